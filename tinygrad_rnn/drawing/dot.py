"""A model as DOT text, every node in its place; ``neato -n2`` draws it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model import Cluster, Edge, Node, Parameter, Point
from .naming import number, size
from .svg import COLOURS, THEMES, level, tooltip

if TYPE_CHECKING:
    from .graph import Graph

_BLOCKS = "▁▂▃▄▅▆▇█"


def _quoted(text: str) -> str:
    if text.isalnum():
        return f'"{text}"'
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


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
    import math

    row = norms if len(norms) <= 16 else [max(norms[k * len(norms) // 16 : (k + 1) * len(norms) // 16]) for k in range(16)]
    finite = [math.log10(v) for v in row if 0 < v < math.inf]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join("!" if not v < math.inf else "·" if v == 0 else _BLOCKS[round(7 * (math.log10(v) - low) / (high - low)) if high > low else 7] for v in row)


class Writer:
    """Writes one graph. Heights grow upwards in DOT."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.theme = THEMES[graph.theme]
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
        given: dict[str, object] = {"pos": self.at((node.x, node.y)), "width": round(node.width / 72, 3), "height": round(node.height / 72, 3)}
        text = node.label
        if node.ports:
            ports = sorted(node.ports, key=lambda port: port.x)
            given["shape"], given["style"], text = "record", "filled", ""
            label = "|".join(f"<{port.id}> {_field(port.label)}" for port in ports)
        elif node.kind == "rail":
            known = [v for v in node.series if v is not None]
            text = f"{node.label}  {number(known[0])} {spark(known)} {number(known[-1])}" if known else node.label
        elif node.kind in ("op", "cell") and node.norm is not None and (node.state or node.kind == "cell"):
            text += f"\n{number(node.norm)}"
        if node.kind in ("input", "state"):
            given["shape"] = "ellipse"
            given["style"] = "filled" if node.kind == "input" else "filled,dashed"
        elif node.kind == "output":
            given["peripheries"] = 2
        elif node.kind == "fold":
            given["style"], given["color"] = "", self.theme["paper"]
        if node.state and node.kind in ("op", "split", "rail"):
            given["fillcolor"] = self.theme["state"]
        elif node.kind == "bar":
            given["fillcolor"] = self.theme["bar"]
        colours = [self.colour[p] for p in node.parameters if p in self.colour]
        if colours:
            given["color"], given["penwidth"] = colours[0], 2
        if node.parameters:
            given["class"] = " ".join(node.parameters)
        shown = f'label="{label}"' if node.ports else f"label={_quoted(text)}"
        return f"{_quoted(node.id)} [{shown} {_attributes(given)} id={_quoted(node.id)} tooltip={_quoted(tooltip(node))}]"

    def edge(self, edge: Edge) -> str:
        given: dict[str, object] = {"class": f"{edge.kind} {level(edge)}"}
        kind = level(edge)
        c = self.theme
        if kind[0] == "f":
            k = int(kind[1]) - 1
            given["color"], given["penwidth"] = c["flow"][k], (1.0, 1.5, 2.1, 2.8)[k]
        else:
            word = kind.split()[0]
            looks = {"cold": (c["cold"], 0.8, "dashed"), "hot": (c["hot"], 4, ""), "zero": (c["soft"], 1, "dotted"), "unasked": (c["frame"], 0.7, ""), "none": (c["none"], 1.3, "")}
            given["color"], given["penwidth"], given["style"] = looks[word]
            if "bad" in kind:
                given["style"], given["label"] = "dashed", edge.flow.upper()
        if edge.kind == "cut":
            given["style"] = "dotted"
        if edge.norm is not None:
            given["tooltip"] = f"gradient norm {edge.norm:.3g}"
        elif not edge.tracked:
            given["tooltip"] = "its gradient was never asked for"
        if len(edge.points) > 2:
            given["pos"] = self.spline(edge.points)
        tail = _quoted(edge.tail) + (f":{edge.tail_port}" if edge.tail_port else "")
        return f"{tail} -> {_quoted(edge.head)} [{_attributes(given)}]"

    def spline(self, points: list[Point]) -> str:
        """Straight pieces as the Bezier curve that DOT asks for; the arrow takes the end."""
        (a, b), (x, y) = points[-2], points[-1]
        length = max(((x - a) ** 2 + (y - b) ** 2) ** 0.5, 0.1)
        cut = min(6.0, length * 0.6) / length
        short = [*points[:-1], (x - (x - a) * cut, y - (y - b) * cut)]
        parts = [self.at(short[0])]
        for (p, q), (r, s) in zip(short, short[1:], strict=False):
            parts += [self.at((p + (r - p) / 3, q + (s - q) / 3)), self.at((p + (r - p) * 2 / 3, q + (s - q) * 2 / 3)), self.at((r, s))]
        return f"e,{self.at((x, y))} {' '.join(parts)}"

    def legend(self) -> list[str]:
        x, y, w, h = self.graph.panel
        box = f"{_f(x)},{_f(-y - h)},{_f(x + w)},{_f(-y)}"
        head = {"label": "parameters: shape, uses, gradient norm, share of each step (log)", "style": "rounded", "color": self.theme["frame"], "bb": box, "lp": self.at((x + 190, y + 13)), "lwidth": 4, "lheight": 0.2}
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
