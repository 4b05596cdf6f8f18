"""A model as plain data for a page: what repeats from step to step is kept once, what differs in a row."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .model import Cluster, Edge, Node
from .naming import size
from .svg import level
from .sweep import Sweep, block_of

if TYPE_CHECKING:
    from .graph import Graph

LEVELS = {"f1": "1", "f2": "2", "f3": "3", "f4": "4", "cold": "c", "hot": "h", "hot bad": "b", "zero": "z", "unasked": "u", "none": "n"}
_Slot = dict[str, Any]


def packed(graph: Graph, folded: Graph) -> dict[str, Any]:
    """Everything that a page needs to draw ``graph``, with the steps of ``folded`` folded at first.

    A *stamp* is what the steps of one kind have in common. Each value in it is the same in all of its steps, or ``{"*": [...]}``, one for each step, or
    ``{"~": [k, part, ...]}``: parts of a text between which the number of the step plus ``k`` stands, or ``{"{": {...}}``, values again.
    """
    frames = [frame for frame in graph.clusters if frame.kind == "step"]
    homes, sweep = Homes(graph, frames), Sweep(graph, frames)
    groups: dict[Any, list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        groups[_form(frame, homes.nodes[k], homes.edges[k])].append(k)
    known = {(block_of(frame), frame.first): k for k, frame in enumerate(frames)}
    starts = [(known.get((block_of(frame), frame.first)), frame.steps) for frame in folded.clusters if frame.folded and folded is not graph]
    return {
        "title": graph.title,
        "description": graph.description,
        "notes": graph.notes,
        "gradients": graph.gradients,
        "depth": graph.depth,
        "blocks": [block_of(frame) for frame in frames],
        "stamps": [_stamp(members, frames, homes, sweep) for members in groups.values()],
        "nodes": [_node(n) | {"stop": sweep.stop[n.id]} for n in homes.outer],
        "edges": [_edge(e) for e in homes.outer_edges],
        "lanes": [_frame(frame) for frame in graph.clusters if frame.kind == "lane"],
        "modules": [*[_frame(frame) | {"nodes": frame.nodes} for frame in graph.clusters if frame.kind not in ("step", "lane")], *modules(homes.outer)],
        "parameters": [_parameter(p) for p in graph.parameters],
        "key": [[LEVELS[kind], word] for kind, word in graph.key],
        "sweep": sweep.labels,
        "folds": [[k, k + steps - 1] for k, steps in starts if k is not None],
    }


def _stamp(members: list[int], frames: list[Cluster], homes: Homes, sweep: Sweep) -> _Slot:
    times = [frames[k].label.removeprefix("t = ") for k in members]
    nodes = zip(*([_node(node, frames[k].x) for node in homes.nodes[k]] for k in members), strict=True)
    edges = zip(*([_edge(edge, frames[k].x) for edge in homes.edges[k]] for k in members), strict=True)
    return {
        "frames": members,
        "times": [int(time) if time.isdigit() else time for time in times],
        "frame": _columns([_frame(frames[k]) for k in members], times),
        "nodes": [_columns(row, times) for row in nodes],
        "edges": [_columns(row, times) for row in edges],
        "stops": [{node.lane: sweep.stop[node.id] for node in homes.nodes[k]} for k in members],
    }


def _form(frame: Cluster, nodes: list[Node], edges: list[Edge]) -> Any:
    return (
        block_of(frame),
        tuple([(n.kind, n.op, n.name, n.state, n.lane, len(n.ports), len(n.parameters)) for n in nodes]),
        tuple([(e.kind, e.state, e.tail_port, len(e.points)) for e in edges]),
    )


class Homes:
    """What belongs to which step: ``nodes`` and ``edges`` of each, and those of none."""

    def __init__(self, graph: Graph, frames: list[Cluster]) -> None:
        home = {name: k for k, frame in enumerate(frames) for name in frame.nodes}
        self.nodes: list[list[Node]] = [[] for _ in frames]
        self.edges: list[list[Edge]] = [[] for _ in frames]
        self.outer: list[Node] = []
        self.outer_edges: list[Edge] = []
        for node in graph.nodes:
            (self.nodes[home[node.id]] if node.id in home else self.outer).append(node)
        for edge in [edge for edge in graph.edges if edge.kind != "hub"]:
            k = home.get(edge.head, home.get(edge.tail))
            (self.outer_edges if k is None else self.edges[k]).append(edge)


def modules(nodes: Sequence[Node]) -> list[_Slot]:
    """Frames around the operations of a module outside of steps, where nothing else stands among them."""
    scopes: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        if node.scope and node.kind == "op":
            scopes[node.scope].append(node)
    found = []
    for scope, members in scopes.items():
        left, right = min(n.x - n.width / 2 for n in members) - 8, max(n.x + n.width / 2 for n in members) + 8
        top, bottom = min(n.y - n.height / 2 for n in members) - 24, max(n.y + n.height / 2 for n in members) + 8
        if len(members) < 2 or any(
            n not in members and n.x + n.width / 2 > left and n.x - n.width / 2 < right and n.y + n.height / 2 > top and n.y - n.height / 2 < bottom for n in nodes
        ):
            continue
        found.append(_frame(Cluster(f"module-{scope}", scope, "module", x=left, y=top, width=right - left, height=bottom - top)) | {"nodes": [n.id for n in members]})
    return found


# Values


def number(value: float | None) -> Any:
    """A norm in four digits. JSON has no NaN and no infinity: they are words."""
    if value is None:
        return None
    if not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short


def _place(value: float) -> Any:
    # The nudge keeps what is equal up to rounding errors equal in every column.
    short = round(value + 1e-6, 1)
    return int(short) if short.is_integer() else short


def _kept(**given: Any) -> _Slot:
    return {name: value for name, value in given.items() if value is not None and value != "" and value != [] and value is not False}


def _frame(frame: Cluster) -> _Slot:
    return _kept(
        id=frame.id,
        label=frame.label,
        kind=frame.kind,
        note=frame.note,
        x=_place(frame.x),
        y=_place(frame.y),
        w=_place(frame.width),
        h=_place(frame.height),
        first=frame.first,
        steps=frame.steps if frame.folded else None,
    )


def _node(node: Node, left: float = 0.0) -> _Slot:
    made = _kept(
        id=node.id, label=node.label, kind=node.kind, op=node.op, state=node.state, shape=size(node.shape) if node.dtype else None, dtype=node.dtype, scope=node.scope,
        source=node.source, lane=node.lane, params=node.parameters, norm=number(node.norm), value=number(node.value), cut=node.cut,
    )  # fmt: skip
    made |= {"x": _place(node.x - left), "y": _place(node.y), "w": _place(node.width), "h": _place(node.height)}
    for k, port in enumerate(node.ports):
        made[f"p{k}"] = _kept(label=port.label, shape=size(port.shape), norm=number(port.norm), value=number(port.value), x=_place(port.x), w=_place(port.width))
    if node.series:
        made["series"] = [number(v) for v in node.series]
    return made


def _edge(edge: Edge, left: float = 0.0) -> _Slot:
    made = _kept(
        tail=edge.tail,
        head=edge.head,
        port=edge.tail_port,
        kind=edge.kind,
        state=edge.state,
        shape=size(edge.shape) if edge.shape else None,
        norm=number(edge.norm),
        label=edge.label,
    )
    return made | {"level": LEVELS[level(edge)], "at": [_place(v) for x, y in edge.points for v in (x - left, y)]}


def _parameter(p: Any) -> _Slot:
    made = _kept(id=p.id, name=p.name, symbol=p.symbol, shape=size(p.shape), dtype=p.dtype, norm=number(p.norm), value=number(p.value), frozen=p.frozen)
    return made | {"uses": p.uses, "colour": p.colour, "steps": list(p.shares), "shares": [number(v) for v in p.shares.values()]}


def _columns(rows: Sequence[_Slot], times: list[str]) -> _Slot:
    """One slot for the same part of all steps."""
    return {name: _column([row.get(name) for row in rows], times) for name in {name: None for row in rows for name in row}}


def _column(values: list[Any], times: list[str]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return {"{": _columns([v or {} for v in values], times)}
    if all(v == first for v in values) and first is not None:
        return first
    if all(isinstance(v, str) for v in values):
        if all(len(v) == 1 for v in values):
            return {"*": "".join(values)}
        for shift in (0, -1, 1):
            parts = _split(values, times, shift)
            if parts is not None:
                return {"~": [shift, *parts]}
    return {"*": values}


def _split(texts: list[str], times: list[str], shift: int) -> list[str] | None:
    """The parts of texts that differ by the number of their step alone."""
    if not all(time.isdigit() for time in times):
        return None
    for text, time in ((texts[-1], times[-1]), (texts[0], times[0])):
        parts = re.split(rf"(?<!\d){int(time) + shift}(?!\d)", text)
        if all(str(int(t) + shift).join(parts) == other for t, other in zip(times, texts, strict=True)):
            return parts
    return None
