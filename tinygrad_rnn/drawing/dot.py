"""A model as DOT text, every node in its place; ``neato -n2`` draws it."""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

from .model import Cluster, Edge, Node, Parameter, Point, Port
from .naming import number, size
from .svg import COLOURS, THEMES, level, tooltip

if TYPE_CHECKING:
    from .graph import Graph

_BLOCKS = "▁▂▃▄▅▆▇█"


def _quoted(text: str) -> str:
    if text.isalnum():
        return f'"{text}"'
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@functools.lru_cache(512)
def _field(text: str) -> str:
    """A text within a record's label, where some signs have a meaning."""
    return "".join("\\" + c if c in "{}|<> \\" else c for c in text)


def _attributes(given: dict[str, object]) -> str:
    return " ".join(f"{name}={value if isinstance(value, int | float) else _quoted(str(value))}" for name, value in given.items() if value not in (None, ""))


def _f(value: float) -> str:
    return f"{value:.1f}"


def spark(norms: list[float]) -> str:
    """Norms as small bars of text, on a logarithmic scale.

    >>> from tinygrad_rnn.drawing.dot import spark
    >>> spark([1e-3, 1e-2, 1e-1, 1.0])
    '▁▃▆█'
    """
    row = norms if len(norms) <= 16 else [max(norms[k * len(norms) // 16 : (k + 1) * len(norms) // 16]) for k in range(16)]
    finite = [math.log10(v) for v in row if 0 < v < math.inf]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join("!" if not v < math.inf else "·" if v == 0 else _BLOCKS[round(7 * (math.log10(v) - low) / (high - low)) if high > low else 7] for v in row)


def _across(port: Port) -> float:
    return port.x


class Writer:
    """Writes one graph. Heights grow upwards in DOT."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.theme = THEMES[graph.theme]
        self.looks: dict[str, str] = {}
        # Graphviz takes a line without a place of its own from middle to middle.
        self.wide = {node.id for node in graph.nodes if node.kind == "bar"}
        self.colour = {p.id: COLOURS[p.colour % len(COLOURS)] for p in graph.parameters if p.colour >= 0}

    def at(self, point: Point) -> str:
        return f"{point[0]:.1f},{0.0 - point[1]:.1f}"

    def write(self) -> str:
        graph, c = self.graph, self.theme
        lines = [
            f"digraph {_quoted(graph.name)} {{",
            f'  graph [layout="nop2" splines="line" bgcolor="{c["paper"]}" fontname="Helvetica" fontsize=11 fontcolor="{c["ink"]}" tooltip={_quoted(graph.title)}]',
            f'  node [fontname="Helvetica" fontsize=10 fontcolor="{c["ink"]}" shape="box" style="rounded,filled" fillcolor="{c["box"]}" color="{c["soft"]}" fixedsize="true"]',
            f'  edge [arrowsize=0.6 color="{c["none"]}"]',
        ]
        framed = {node for frame in graph.clusters for node in frame.nodes}
        by_id = {node.id: node for node in graph.nodes}
        lines += ["  " + self.node(node) for node in graph.nodes if node.id not in framed]
        for frame in graph.clusters:
            if frame.kind == "lane":
                continue
            lines += self.cluster(frame, [by_id[name] for name in frame.nodes if name in by_id])
        lines += ["  " + self.edge(edge) for edge in graph.edges]
        if graph.parameters:
            lines += self.legend()
        return "\n".join([*lines, "}\n"])

    def cluster(self, frame: Cluster, nodes: list[Node]) -> list[str]:
        box = f"{_f(frame.x)},{_f(-frame.y - frame.height)},{_f(frame.x + frame.width)},{_f(-frame.y)}"
        given = {
            "label": frame.label, "style": "rounded,dashed" if frame.folded else "rounded", "color": self.theme["frame"], "bb": box,
            "lp": self.at((frame.x + frame.width / 2, frame.y + 14)), "lheight": 0.2, "lwidth": 1,
        }  # fmt: skip
        return [f"  subgraph {_quoted(f'cluster_{frame.id}')} {{", f"    graph [{_attributes(given)}]", *("    " + self.node(node) for node in nodes), "  }"]

    def node(self, node: Node) -> str:
        c, kind = self.theme, node.kind
        looks = [f'pos="{self.at((node.x, node.y))}" width={node.width / 72:.3f} height={node.height / 72:.3f}']
        text = node.label
        if node.ports:
            looks.append('shape="record" style="filled"')
            label = '"' + "|".join([f"<{port.id}> {_field(port.label)}" for port in sorted(node.ports, key=_across)]) + '"'
        else:
            if kind == "rail":
                known = [v for v in node.series if v is not None]
                text = f"{text}  {number(known[0])} {spark(known)} {number(known[-1])}" if known else text
            elif node.norm is not None and ((kind == "op" and node.state) or kind == "cell"):
                text += f"\n{number(node.norm)}"
            label = _quoted(text)
        if kind != "op":
            looks.append(
                'shape="ellipse" style="filled"' if kind == "input" else 'shape="ellipse" style="filled,dashed"' if kind == "state" else "peripheries=2" if kind == "output"
                else f'style="" color="{c["paper"]}"' if kind == "fold" else f'fillcolor="{c["bar"]}"' if kind == "bar" else ""
            )  # fmt: skip
        if node.state and kind in ("op", "split", "rail"):
            looks.append(f'fillcolor="{c["state"]}"')
        if node.parameters:
            colour = next((self.colour[p] for p in node.parameters if p in self.colour), None)
            looks.append((f'color="{colour}" penwidth=2 ' if colour and not node.mark else "") + f'class="{" ".join(node.parameters)}"')
        if node.mark:
            looks.append(f'color="{c["hot"]}" penwidth=4')
        return f'"{node.id}" [label={label} {" ".join(looks)} id="{node.id}" tooltip={_quoted(tooltip(node))}]'

    def edge(self, edge: Edge) -> str:
        kind, c = level(edge), self.theme
        looks = self.looks.get(kind)
        if looks is None:
            if kind[0] == "f":
                k = int(kind[1]) - 1
                looks = f'color="{c["flow"][k]}" penwidth={(1.0, 1.5, 2.1, 2.8)[k]}'
            else:
                lines = {
                    "cold": (c["cold"], 0.8, "dashed"),
                    "hot": (c["hot"], 4, "solid"),
                    "zero": (c["soft"], 1, "dotted"),
                    "unasked": (c["frame"], 0.7, "solid"),
                    "none": (c["none"], 1.3, "solid"),
                }
                colour, width, line = lines[kind.split()[0]]
                looks = f'color="{colour}" penwidth={width} style="{"dashed" if "bad" in kind else line}"'
            self.looks[kind] = looks
        if edge.kind == "cut":
            looks += ' style="dotted"'
        if edge.flow in ("nan", "inf"):
            looks += f' label="{edge.flow}"'
        if edge.norm is not None:
            looks += f' tooltip="gradient norm {edge.norm:.3g}"'
        elif not edge.tracked:
            looks += ' tooltip="its gradient was never asked for"'
        if len(edge.points) > 2 or (edge.points and (edge.tail in self.wide or edge.head in self.wide)):
            looks += f' pos="{self.spline(edge.points)}"'
        tail = f'"{edge.tail}":{edge.tail_port}' if edge.tail_port else f'"{edge.tail}"'
        return f'{tail} -> "{edge.head}" [class="{edge.kind} {kind}" {looks}]'

    def spline(self, points: list[Point]) -> str:
        """Straight pieces as the Bezier curve that DOT asks for; the arrow takes the end."""
        (a, b), (x, y) = points[-2], points[-1]
        length = max(((x - a) ** 2 + (y - b) ** 2) ** 0.5, 0.1)
        cut = min(6.0, length * 0.6) / length
        short = [*points[:-1], (x - (x - a) * cut, y - (y - b) * cut)]
        parts = [self.at(short[0])]
        for (p, q), (r, s) in itertools.pairwise(short):
            parts += [self.at((p + (r - p) / 3, q + (s - q) / 3)), self.at((p + (r - p) * 2 / 3, q + (s - q) * 2 / 3)), self.at((r, s))]
        return f"e,{self.at((x, y))} {' '.join(parts)}"

    def legend(self) -> list[str]:
        x, y, w, h = self.graph.panel
        box = f"{_f(x)},{_f(-y - h)},{_f(x + w)},{_f(-y)}"
        head = {
            "label": "parameters: shape, uses, gradient norm, share of each step (log)",
            "style": "rounded",
            "color": self.theme["frame"],
            "bb": box,
            "lp": self.at((x + 190, y + 13)),
            "lwidth": 4,
            "lheight": 0.2,
        }
        return ['  subgraph "cluster_parameters" {', f"    graph [{_attributes(head)}]", *("    " + self.chip(p) for p in self.graph.parameters), "  }"]

    def chip(self, p: Parameter) -> str:
        shares = [v for step, v in p.shares.items() if step]
        words = f"{p.symbol}  {size(p.shape)}  ×{p.uses}" + ("" if p.norm is None else f"  {number(p.norm)}") + ("  frozen" if p.frozen else "")
        words += ("" if p.name == p.symbol else f"\n{p.name}") + (f"\n{spark(shares)}" if shares else "")
        given = {
            "pos": self.at((p.x + p.width / 2, p.y + p.height / 2)), "width": round(p.width / 72, 3), "height": round(p.height / 72, 3),
            "color": self.colour.get(p.id, self.theme["soft"]), "penwidth": 2, "class": p.id,
        }  # fmt: skip
        return f"{_quoted(p.id)} [label={_quoted(words)} {_attributes(given)} id={_quoted(p.id)}]"


def dot(graph: Graph) -> str:
    return Writer(graph).write()
