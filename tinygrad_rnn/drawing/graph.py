"""``tg.graph``: a picture of the computation behind a tensor, and what can be done with it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..atomic import atomic_write
from ..core.tape import Record
from ..core.tensor import Tensor, is_tensor
from ..errors import OutOfRangeError
from ..replay.expanding import Flow, expanded, uncollected
from .layout import text_width
from .model import Cluster, Edge, Node, Parameter, Rail
from .naming import size
from .svg import THEMES, level, svg

DEPTHS = ("op", "cell", "tape")
KEPT = 50_000
"""A folded picture keeps the computation that it shows, to draw it unfolded, up to so many operations."""
_KEY = {
    "f4": "gradient, as strong as at the last step", "f1": "a thousandth of that", "cold": "less: vanishing", "hot": "more than 1000 times: exploding", "hot bad": "NaN or ∞",
    "zero": "exactly zero", "unasked": "never asked for",
}  # fmt: skip


@dataclass(eq=False)
class Graph:
    """A picture as data: read it, change it, draw it.

    ``nodes``, ``edges``, ``clusters`` (a frame a time step), ``parameters`` and ``rails`` are plain dataclasses with their places in points, y downwards;
    see :mod:`tinygrad_rnn.drawing.model`. ``dot`` is DOT text, ``svg()`` SVG, ``save(path)`` writes either, or PNG, PDF or HTML.
    """

    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    clusters: list[Cluster] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    rails: list[Rail] = field(default_factory=list)
    name: str = "graph"
    depth: str = "op"
    theme: str = "light"
    rolled: bool = False
    gradients: bool = False
    values: bool = False
    records: int = 0
    steps: int = 0
    reference: float | None = None
    notes: list[str] = field(default_factory=list)
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Left, top, width and height of the picture."""
    panel: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    foot: tuple[float, float] = (0.0, 0.0)
    again: Callable[[str | int | None], Graph] | None = field(default=None, repr=False)
    """Draws the same computation with another ``fold``: a picture with folded steps keeps it alive for that. None lets go of it."""

    def node(self, id: str) -> Node:
        """The node of an id, such as ``step2-h``. Raises ``KeyError``."""
        for node in self.nodes:
            if node.id == id:
                return node
        raise KeyError(f"graph: no node {id!r}; the nodes are {', '.join(n.id for n in self.nodes[:8])}, ...")

    @property
    def title(self) -> str:
        """One line: what the picture shows."""
        steps = f", {self.steps} time steps" if self.steps > 1 else ""
        return f"{self.name}: {self.records:,} operations{steps}, {len(self.parameters)} parameters"

    @property
    def caption(self) -> str:
        folded = sum(frame.steps for frame in self.clusters if frame.folded)
        told = [f"{folded} of {self.steps} steps are the same and folded (fold=None draws them all)"] if folded else []
        return "; ".join([*told, *self.notes])

    @property
    def description(self) -> str:
        """The picture in words, for those who cannot see it."""
        words = [self.title + "."]
        for rail in self.rails:
            series = [n.norm for n in self.nodes if n.state == rail.state and (n.lane or rail.lane) == rail.lane and n.norm is not None and n.kind in ("op", "split", "cell")]
            series = series[::-1] if rail.reverse else series
            way = "right to left" if rail.reverse else "left to right"
            words.append(
                f"State {rail.state} of {rail.lane} runs {way}."
                if not series
                else f"State {rail.state} of {rail.lane}: gradient norm {series[0]:.2g} at its first step, {series[-1]:.2g} at its last."
            )
        words += [f"Parameter {p.name}, {size(p.shape)}, used {p.uses} times" + ("." if p.norm is None else f", gradient norm {p.norm:.2g}.") for p in self.parameters[:20]]
        bad = sorted({edge.flow for edge in self.edges if edge.flow in ("nan", "inf", "exploding", "vanishing")})
        return " ".join([*words, *([f"There are gradients that are {' and '.join(bad)}."] if bad else []), self.caption])

    @property
    def key(self) -> list[tuple[str, str]]:
        """The kinds of lines that the picture has, with their meanings."""
        if not self.gradients:
            return []
        present = {level(edge) for edge in self.edges}
        return [(kind, word) for kind, word in _KEY.items() if kind in present or kind == "f4"]

    def arrange(self) -> None:
        """Place the parameters below the picture, and measure it. Call it after nodes were moved or added."""
        left, top, right, bottom = math.inf, math.inf, -math.inf, -math.inf
        for node in self.nodes:
            left, right = min(left, node.x - node.width / 2), max(right, node.x + node.width / 2)
            top, bottom = min(top, node.y - node.height / 2), max(bottom, node.y + node.height / 2)
        for frame in self.clusters:
            beside = text_width(frame.label, 9) + 8 if frame.kind == "lane" else 0.0
            left, right = min(left, frame.x - beside), max(right, frame.x + frame.width)
            top, bottom = min(top, frame.y), max(bottom, frame.y + frame.height)
        for edge in self.edges:
            for x, y in edge.points if len(edge.points) > 2 else ():
                left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
        if not self.nodes:
            left, top, right, bottom = 0.0, 0.0, 400.0, 40.0
        words = text_width(self.caption, 10)
        words = max(words, sum(58 + text_width(word, 10) for _, word in self.key))
        width = max(right - left, words, 460.0)
        if self.parameters:
            wide = max(
                190.0,
                *(
                    max(text_width(p.name, 9) + 20, text_width(p.symbol) * 1.1 + text_width(f"{size(p.shape)}  ×{p.uses}  {'frozen' if p.frozen else ''}", 10) + 76)
                    for p in self.parameters
                ),
            )
            columns = max(1, min(len(self.parameters), int((width - 20 + 10) // (wide + 10))))
            tall = 56.0 if any(p.shares.keys() - {0} for p in self.parameters) else 38.0
            for k, p in enumerate(self.parameters):
                p.x, p.y, p.width, p.height = left + 12 + (k % columns) * (wide + 10), bottom + 24 + 26 + (k // columns) * (tall + 8), wide, tall
            rows = -(-len(self.parameters) // columns)
            self.panel = (left, bottom + 24, max(width, columns * (wide + 10) + 14) if columns > 1 else max(width, wide + 24), 26 + rows * (tall + 8) + 4)
            width = max(width, self.panel[2])
            bottom = self.panel[1] + self.panel[3]
        self.foot = (left + 4, bottom + 20)
        bottom += (22 if self.caption else 0) + (22 if self.key else 0)
        margin = 14.0
        self.box = (left - margin, top - margin, width + 2 * margin, bottom - top + 2 * margin)

    @property
    def dot(self) -> str:
        """DOT text, every node in its place: ``neato -n2`` draws what the SVG shows."""
        from .dot import dot

        with uncollected():
            return dot(self)

    def svg(self) -> str:
        """The picture as SVG text."""
        with uncollected():
            return svg(self)

    def unfolded(self) -> Graph:
        """The picture with every step drawn: itself where none is folded, else drawn again from the computation, without changes made to this one.

        A picture of more than 50,000 operations does not keep its computation, and stays folded.
        """
        if self.again is None:
            return self
        with uncollected():
            return self.again(None)

    def html(self) -> str:
        """The picture as one page that needs nothing else: pan, zoom, fold, and the gradient step by step. It has what :meth:`unfolded` draws.

        >>> import tinygrad_rnn as tg
        >>> page = tg.graph(tg.tanh(tg.ones(2, requires_grad=True)).sum(), name="two operations").html()
        >>> page.startswith("<!DOCTYPE html>"), "two operations" in page
        (True, True)
        """
        from .html import html

        return html(self)

    def save(self, path: Any) -> None:
        """Write the picture; the name's end says how: .svg, .dot, .html, .png or .pdf. The file is written whole or not at all.

        PNG and PDF need the package ``cairosvg`` or Graphviz's program. Raises ``ValueError`` for another end of the name,
        ``RuntimeError`` if nothing is installed that can draw it.
        """
        from .files import content

        atomic_write(path, content(self, os.path.splitext(os.fspath(path))[1].lower()))

    def __repr__(self) -> str:
        return f"Graph({self.title}; {len(self.nodes)} nodes, {len(self.edges)} edges)"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        try:
            return {"image/svg+xml": self.svg(), "text/plain": repr(self)}
        except Exception as error:  # a notebook must never fail because of a picture
            return {"text/plain": f"Graph: it cannot be drawn ({type(error).__name__}: {error})"}


def graph(
    outputs: Tensor | Iterable[Tensor],
    *,
    depth: str = "op",
    fold: str | int | None = "auto",
    rolled: bool = False,
    gradients: bool = False,
    values: bool = False,
    name: str | None = None,
    theme: str = "light",
    hubs: bool = False,
) -> Graph:
    """A picture of how outputs were computed: time runs to the right, one column a step; states on level rails; each weight once, in a legend.

    ``depth`` is ``cell`` (a box a step), ``op`` (the operations of a step) or ``tape`` (every record). ``fold`` folds steps that are the same, operand by
    operand: ``auto`` above about 150 boxes, a number of steps to leave at each end, or None. ``rolled`` draws one step with loops. ``gradients`` runs a backward
    pass of its own, which touches no ``.grad``, and shows the gradient's norm along every edge and each step's share of every weight's gradient; an output of several
    elements counts as their sum. ``values`` shows the norms of values. ``theme`` is ``light`` or ``dark``.
    ``hubs`` draws a line from each weight to each of its uses, which is for small pictures: a page leaves them out.

    Raises ``TapeError`` for an output without a graph, and where gradients or values are asked for that a backward pass released:
    ``backward(retain_graph=True)`` keeps them.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> output, (h, c) = nn.LSTM(3, 4, rng=0)(tg.zeros(50, 2, 3))
    >>> picture = tg.graph(h.sum(), gradients=True)
    >>> [frame.label for frame in picture.clusters]
    ['t = 1', 't = 2', 't = 3 … 48', 't = 49', 't = 50']
    """
    from .building import Builder
    from .reading import Reading

    if depth not in DEPTHS:
        raise OutOfRangeError(f"graph: depth must be one of {', '.join(DEPTHS)}, got {depth!r}")
    if not (fold is None or fold == "auto" or (isinstance(fold, int) and not isinstance(fold, bool) and fold >= 1)):
        raise OutOfRangeError(f"graph: fold must be 'auto', None or a number of steps of at least 1, got {fold!r}")
    if theme not in THEMES:
        raise OutOfRangeError(f"graph: theme must be one of {', '.join(THEMES)}, got {theme!r}")
    with uncollected():
        tensors: Any = outputs if is_tensor(outputs) else list(outputs)
        flow = Flow(tensors) if gradients else None
        tape = flow if flow is not None else expanded(tensors, values=values)
        found: dict[Record, float] | None = None
        if values:
            from .values import value_norms

            found = value_norms(tape)
        reading = Reading(tape, merge=depth != "tape")
        records = sum(not record.is_leaf for record in tape.records)

        def drawn(fold: str | int | None) -> Graph:
            built = Builder(reading, depth, fold, rolled, flow, found)
            steps = max((len(block.columns) for block in built.plan.blocks), default=0)
            made = Graph(
                built.nodes, built.edges, built.clusters, built.parameters, built.rails, name or "graph", depth, theme, rolled, gradients, values, records, steps, built.reference
            )
            if reading.found:
                made.notes.append("no scope names the steps: they were found as what repeats")
            made.arrange()
            if hubs:
                uses = [(p, node) for p in made.parameters for node in made.nodes if p.id in node.parameters]
                made.edges += [Edge(p.id, node.id, kind="hub", shape=p.shape, points=[(p.x + p.width / 2, p.y), (node.x, node.y + node.height / 2)]) for p, node in uses]
            return made

        made = drawn(fold)
    if records <= KEPT and any(frame.folded for frame in made.clusters):
        made.again = drawn
    return made
