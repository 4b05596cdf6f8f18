"""A model as SVG, written directly: no program is needed to see it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from .layout import text_width
from .model import Cluster, Edge, Node, Parameter, Point
from .naming import number, size

if TYPE_CHECKING:
    from .graph import Graph

# Okabe and Ito 2008: colours that colour-blind readers tell apart. Blue and vermilion also mean vanishing and exploding, so they come late.
COLOURS = "#0072B2 #009E73 #CC79A7 #E69F00 #56B4E9 #8C6BB1 #A6761D #666666".split()
THEMES = {
    "light": {
        "paper": "#ffffff", "ink": "#1f2328", "soft": "#6b7280", "frame": "#b9c0c8", "box": "#ffffff", "state": "#fff3d6", "bar": "#eef2f6", "panel": "#f7f8fa",
        "flow": "#9aa1a9 #737a82 #4b5158 #1d2125".split(), "cold": "#0072B2", "hot": "#D55E00", "none": "#59616a",
    },
    "dark": {
        "paper": "#15181c", "ink": "#e8eaed", "soft": "#a0a7b0", "frame": "#454c55", "box": "#20252b", "state": "#4a3f1f", "bar": "#2a3038", "panel": "#1b1f24",
        "flow": "#6b727b #8f969f #b7bdc5 #f2f4f6".split(), "cold": "#56B4E9", "hot": "#FF8A3D", "none": "#a0a7b0",
    },
}  # fmt: skip
_FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
_WIDTHS = (1.0, 1.5, 2.1, 2.8)


def level(edge: Edge) -> str:
    """The class of an edge's line: ``f1`` to ``f4`` for a gradient that is well, from a thousandth of the reference to all of it, or what ails it."""
    flow = edge.flow
    if flow != "healthy":
        return {"vanishing": "cold", "exploding": "hot", "nan": "hot bad", "inf": "hot bad"}.get(flow, flow)
    if edge.relative is None or edge.relative <= 0:
        return "f3"
    return f"f{max(1, min(4, math.ceil((math.log10(edge.relative) + 3) / 3 * 4)))}"


def style(theme: str) -> str:
    """The style sheet of a picture."""
    c = THEMES[theme]
    rules = [
        f"text{{font-family:{_FONT};font-size:11px;fill:{c['ink']};text-anchor:middle}}",
        ".small{font-size:9px}.left{text-anchor:start}.right{text-anchor:end}.mid{font-size:10px}.head{font-size:12px}.bold{font-weight:600}",
        f".soft{{fill:{c['soft']}}}",
        f".frame{{fill:none;stroke:{c['frame']};stroke-width:1}}.folded .frame{{stroke-dasharray:5 4}}.panel{{fill:{c['panel']};stroke:{c['frame']}}}",
        f".box{{fill:{c['box']};stroke:{c['soft']};stroke-width:1}}.state .box,.rail .box{{fill:{c['state']}}}.bar .box{{fill:{c['bar']}}}.output .box{{stroke-width:1.4}}",
        ".input .box{stroke-dasharray:none}.start .box{stroke-dasharray:4 3}",
        f".fold .box{{fill:none;stroke:none}}.bars{{fill:{c['ink']}}}.used .box{{stroke-width:2.4}}",
        f".between{{stroke:{c['frame']}}}",
        f".edge path{{fill:none;stroke:{c['none']};stroke-width:1.3}}",
    ]
    for k, (colour, width) in enumerate(zip(c["flow"], _WIDTHS, strict=True)):
        rules.append(f".f{k + 1} path{{stroke:{colour};stroke-width:{width}}}")
    rules += [
        f".cold path{{stroke:{c['cold']};stroke-width:1;stroke-dasharray:6 4}}",
        f".hot path{{stroke:{c['hot']};stroke-width:4}}.bad path{{stroke-dasharray:11 3 2 3}}.hot text{{fill:{c['hot']};font-weight:700}}",
        f".zero path{{stroke:{c['soft']};stroke-width:1.2;stroke-dasharray:1.2 4;stroke-linecap:round}}",
        f".unasked path{{stroke:{c['frame']};stroke-width:1}}.cut path{{stroke-dasharray:2 3}}",
    ]
    for k, colour in enumerate(COLOURS):
        rules.append(f".p{k} .box{{stroke:{colour}}}.p{k} .bars{{fill:{colour}}}")
    # Other pictures on the same page have their own rules.
    blocks = [rule.split("{") for rule in "".join(rules).split("}")[:-1]]
    return "".join([f"{','.join([f'.tg-{theme} {one}' for one in selector.split(',')])}{{{declared}}}" for selector, declared in blocks])


def _f(value: float) -> str:
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def _attributes(**given: object) -> str:
    return "".join([f' {name.replace("_", "-")}="{escape(str(value), quote=True)}"' for name, value in given.items() if value not in (None, "", [])])


def line(points: Sequence[Point], radius: float = 6.0) -> str:
    """A path through points, its corners rounded."""
    if len(points) < 2:
        return ""
    parts = [f"M{_f(points[0][0])} {_f(points[0][1])}"]
    for (a, b), (x, y), (p, q) in zip(points, points[1:], points[2:], strict=False):
        before, after = math.hypot(x - a, y - b), math.hypot(p - x, q - y)
        r = min(radius, before / 2, after / 2)
        if r < 0.5:
            parts.append(f"L{_f(x)} {_f(y)}")
            continue
        parts.append(f"L{_f(x - (x - a) / before * r)} {_f(y - (y - b) / before * r)}Q{_f(x)} {_f(y)} {_f(x + (p - x) / after * r)} {_f(y + (q - y) / after * r)}")
    parts.append(f"L{_f(points[-1][0])} {_f(points[-1][1])}")
    return "".join(parts)


def bars(values: Iterable[float | None], x: float, y: float, width: float, height: float) -> str:
    """A small bar chart of norms on a logarithmic scale, as a path; ``y`` is its foot. NaN and infinity reach over the top."""
    row = [v for v in values]
    most = max(1, int(width // 3))
    if len(row) > most:
        # The largest of each bin; so few bars that each is seen.
        row = [_top(row[k * len(row) // most : max(k * len(row) // most + 1, (k + 1) * len(row) // most)]) for k in range(most)]
    finite = [v for v in row if v is not None and 0 < v < math.inf]
    high = math.log10(max(finite)) if finite else 0.0
    low = max(math.log10(min(finite)) if finite else 0.0, high - 12)
    span = max(high - low, 1.0)
    step = width / max(1, len(row))
    wide = max(0.8, step - min(1.0, step / 4))
    parts = []
    for k, v in enumerate(row):
        if v is None:
            continue
        tall = height + 3 if not v < math.inf else 0.6 if v == 0 else max(1.0, height * (0.12 + 0.88 * (math.log10(v) - high + span) / span))
        parts.append(f"M{_f(x + k * step)} {_f(y)}v{_f(-tall)}h{_f(wide)}v{_f(tall)}z")
    return "".join(parts)


def _top(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return next((v for v in known if v != v), max(known, default=None))


def tooltip(node: Node) -> str:
    """What a pointer shows of a node: name, operation, shape, dtype, norms, scope and line of source."""
    told = " ".join([part for part in (node.label.replace("\n", " ") or node.op, size(node.shape) if node.dtype else "", node.dtype) if part])
    if node.op and node.kind != "cell":
        told += f"\noperation {node.op}"
    if node.norm is not None:
        told += f"\ngradient norm {node.norm:.3g}"
    if node.value is not None:
        told += f"\nvalue norm {node.value:.3g}"
    for port in node.ports:
        told += f"\n{port.label}: {size(port.shape)}" + ("" if port.norm is None else f", gradient norm {port.norm:.3g}")
    for text in (node.mark, node.scope, node.source):
        if text:
            told += "\n" + text
    return told


class Writer:
    """Writes one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.colour = {p.id: p.colour for p in graph.parameters}
        self.markers: dict[str, None] = {}

    def write(self) -> str:
        graph = self.graph
        body = ['<g class="frames">', *map(self.cluster, graph.clusters), "</g>"]
        body += ['<g class="edges">', *[self.edge(k, edge) for k, edge in enumerate(graph.edges)], "</g>"]
        body += ['<g class="nodes">', *map(self.node, graph.nodes), "</g>"]
        if graph.parameters:
            body += ['<g class="legend">', *self.legend(), "</g>"]
        body += self.key()
        left, top, width, height = graph.box
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" class="tinygrad-graph tg-{graph.theme}" viewBox="{_f(left)} {_f(top)} {_f(width)} {_f(height)}" '
            f'width="{_f(width)}" height="{_f(height)}" aria-labelledby="title desc" data-depth="{graph.depth}">'
        )
        described = [f'<title id="title">{escape(graph.title)}</title>', f'<desc id="desc">{escape(graph.description)}</desc>']
        paper = f'<rect class="paper" x="{_f(left)}" y="{_f(top)}" width="{_f(width)}" height="{_f(height)}" fill="{THEMES[graph.theme]["paper"]}"/>'
        return "\n".join([head, *described, f"<style>{style(graph.theme)}</style>", self.arrows(), paper, *body, "</svg>\n"])

    def arrows(self) -> str:
        c = THEMES[self.graph.theme]
        colours = {"none": c["none"], "cold": c["cold"], "hot": c["hot"], "zero": c["soft"], "unasked": c["soft"], **{f"f{k + 1}": colour for k, colour in enumerate(c["flow"])}}
        return "<defs>" + "".join(
            f'<marker id="a-{self.graph.theme}-{name}" viewBox="0 0 8 8" refX="7.4" refY="4" markerWidth="{w}" markerHeight="{w}" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 .8 8 4 0 7.2z" fill="{colours[name]}"/></marker>'
            for name in self.markers for w in [11 if name == "hot" else 9 if name in ("f3", "f4") else 7]
        ) + "</defs>"  # fmt: skip

    def cluster(self, frame: Cluster) -> str:
        if frame.kind == "lane":
            return f'<g{_attributes(id=frame.id, **{"class": "cluster lane"})}><text class="right small soft" x="{_f(frame.x - 8)}" y="{_f(frame.y + 3)}">{escape(frame.label)}</text></g>'
        kind = "cluster folded" if frame.folded else f"cluster {frame.kind}"
        return (
            f'<g{_attributes(id=frame.id, **{"class": kind})} data-first="{frame.first or ""}" data-steps="{frame.steps}"><title>{escape(frame.label)}</title>'
            f'<rect class="frame" x="{_f(frame.x)}" y="{_f(frame.y)}" width="{_f(frame.width)}" height="{_f(frame.height)}" rx="10"/>'
            f'<text class="head" x="{_f(frame.x + frame.width / 2)}" y="{_f(frame.y + 18)}">{escape(frame.label)}</text></g>'
        )

    def edge(self, k: int, edge: Edge) -> str:
        kind = level(edge)
        marker = kind.split()[0]
        self.markers.setdefault(marker)
        told = "" if edge.norm is None else f"gradient norm {edge.norm:.3g}"
        told = told or ("its gradient was never asked for" if not edge.tracked else "")
        title = f"{edge.tail} → {edge.head}" + (f", {size(edge.shape)}" if edge.shape else "") + (f"\n{told}" if told else "")
        data = _attributes(
            data_tail=edge.tail,
            data_head=edge.head,
            data_port=edge.tail_port,
            data_state=edge.state,
            data_step=edge.step,
            data_norm=None if edge.norm is None else f"{edge.norm:.4g}",
            data_flow=edge.flow,
        )
        label = ""
        if edge.flow in ("nan", "inf") or edge.label:
            text = edge.flow.upper().replace("NAN", "NaN").replace("INF", "∞") if edge.flow in ("nan", "inf") else edge.label
            (a, b), (c, d) = max(zip(edge.points, edge.points[1:], strict=False), key=lambda pair: abs(pair[0][0] - pair[1][0]), default=((0, 0), (0, 0)))
            if text and (edge.kind == "loop" or abs(c - a) > text_width(text, 9) + 6 or edge.flow in ("nan", "inf")):
                label = f'<text class="small soft" x="{_f((a + c) / 2)}" y="{_f((b + d) / 2 - 5)}">{escape(text)}</text>'
        return f'<g id="edge{k}" class="edge {edge.kind} {kind}"{data}><title>{escape(title)}</title><path d="{line(edge.points)}" marker-end="url(#a-{self.graph.theme}-{marker})"/>{label}</g>'

    def node(self, node: Node) -> str:
        x, y, w, h = node.x - node.width / 2, node.y - node.height / 2, node.width, node.height
        colours = [f"p{self.colour[p] % len(COLOURS)}" for p in node.parameters if self.colour.get(p, -1) >= 0]
        kind = "start" if node.kind == "state" else node.kind
        classes = " ".join(["node", kind, *(["state"] if node.state and node.kind in ("op", "split") else []), *(["used", colours[0]] if colours else [])])
        data = _attributes(
            data_step=node.step, data_lane=node.lane, data_param=" ".join(node.parameters), data_record=node.record, data_op=node.op, data_state=node.state,
            data_shape=size(node.shape) if node.shape else None, data_dtype=node.dtype, data_norm=None if node.norm is None else f"{node.norm:.4g}",
            data_value=None if node.value is None else f"{node.value:.4g}", data_source=node.source, data_scope=node.scope,
        )  # fmt: skip
        body = [f'<g id="{node.id}" class="{classes}"{data}><title>{escape(tooltip(node))}</title>']
        radius = h / 2 if node.kind in ("input", "state") or abs(w - h) < 1 else 7
        frame = f' style="stroke:{THEMES[self.graph.theme]["hot"]};stroke-width:4"' if node.mark else ""
        body.append(f'<rect class="box"{frame} x="{_f(x)}" y="{_f(y)}" width="{_f(w)}" height="{_f(h)}" rx="{_f(radius)}"/>')
        if node.kind == "output":
            body.append(f'<rect class="box" x="{_f(x + 3)}" y="{_f(y + 3)}" width="{_f(w - 6)}" height="{_f(h - 6)}" rx="5"/>')
        if node.kind == "rail":
            body += self.rail(node)
        elif node.ports:
            for port in node.ports:
                left = x + port.x - port.width / 2
                if left > x + 1:
                    body.append(f'<path d="M{_f(left)} {_f(y)}v{_f(h)}" class="between"/>')
                body.append(
                    f'<g class="port"{_attributes(id=f"{node.id}-{port.id}", data_port=port.id)}><text x="{_f(x + port.x)}" y="{_f(node.y + 4)}">{escape(port.label)}</text></g>'
                )
        else:
            lines = node.label.split("\n")
            if self.second(node):
                lines.append(self.second(node))
            for k, text in enumerate(lines):
                small = ' class="small"' if k and self.second(node) and k == len(lines) - 1 else ' class="mid"' if node.kind in ("input", "fold") else ""
                body.append(f'<text{small} x="{_f(node.x)}" y="{_f(node.y + 4 + (k - (len(lines) - 1) / 2) * 12.5)}">{escape(text)}</text>')
        return "".join([*body, "</g>"])

    def second(self, node: Node) -> str:
        """The gradient's or the value's norm under the name of a state."""
        if node.kind not in ("op", "cell") or (node.state is None and node.kind != "cell"):
            return ""
        if node.norm is not None:
            return number(node.norm)
        return f"‖{number(node.value)}‖" if node.value is not None and self.graph.values else ""

    def rail(self, node: Node) -> list[str]:
        known = [v for v in node.series if v is not None]
        left, right = node.x - node.width / 2 + 9, node.x + node.width / 2 - 8
        text = [f'<text class="left bold" x="{_f(left)}" y="{_f(node.y + 4)}">{escape(node.label)}</text>']
        if known:
            first, last = number(node.series[0]), number(node.series[-1])
            start = left + text_width(node.label, 11) + 6
            text.append(
                f'<text class="left small" x="{_f(start)}" y="{_f(node.y + 3.5)}">{first}</text><text class="right small" x="{_f(right)}" y="{_f(node.y + 3.5)}">{last}</text>'
            )
            start, end = start + text_width(first, 9) + 5, right - text_width(last, 9) - 5
            if end - start > 12:
                text.append(f'<path class="bars" d="{bars(node.series, start, node.y + 8, end - start, 15)}"/>')
        return text

    def legend(self) -> list[str]:
        graph = self.graph
        x, y, w, h = graph.panel
        title = "parameters: shape, uses" + (", gradient norm, share of each step (log)" if any(p.norm is not None for p in graph.parameters) else "")
        text = [
            f'<rect class="panel" x="{_f(x)}" y="{_f(y)}" width="{_f(w)}" height="{_f(h)}" rx="10"/><text class="left mid soft" x="{_f(x + 14)}" y="{_f(y + 17)}">{escape(title)}</text>'
        ]
        return text + [self.chip(p) for p in graph.parameters]

    def chip(self, p: Parameter) -> str:
        colour = f" p{p.colour % len(COLOURS)}" if p.colour >= 0 else ""
        title = (
            f"{p.name} {size(p.shape)} {p.dtype}\nused {p.uses} times"
            + ("" if p.norm is None else f"\ngradient norm {p.norm:.3g}")
            + ("" if p.value is None else f"\nvalue norm {p.value:.3g}")
        )
        first = f"{size(p.shape)}  ×{p.uses}" + ("  frozen" if p.frozen else "")
        parts = [
            f"<g{_attributes(id=p.id, **{'class': f'node parameter used{colour}'})}{_attributes(data_uses=p.uses, data_norm=None if p.norm is None else f'{p.norm:.4g}', data_name=p.name)}><title>{escape(title)}</title>",
            f'<rect class="box" x="{_f(p.x)}" y="{_f(p.y)}" width="{_f(p.width)}" height="{_f(p.height)}" rx="7"/>',
            f'<text class="left bold" x="{_f(p.x + 10)}" y="{_f(p.y + 16)}">{escape(p.symbol)}</text>',
            f'<text class="left mid" x="{_f(p.x + 16 + text_width(p.symbol) * 1.1)}" y="{_f(p.y + 16)}">{escape(first)}</text>',
        ]
        if p.name != p.symbol:
            parts.append(f'<text class="left small soft" x="{_f(p.x + 10)}" y="{_f(p.y + 30)}">{escape(p.name)}</text>')
        if p.norm is not None:
            warn = ' class="right small bold"' if not p.norm < math.inf else ' class="right small"'
            parts.append(f'<text{warn} x="{_f(p.x + p.width - 10)}" y="{_f(p.y + 16)}">{number(p.norm)}</text>')
        steps = [v for k, v in p.shares.items() if k]
        if steps:
            parts.append(f'<path class="bars" d="{bars(steps, p.x + 10, p.y + p.height - 5, p.width - 20, 13)}"/>')
        return "".join([*parts, "</g>"])

    def key(self) -> list[str]:
        """The caption, and what lines mean where they carry gradients."""
        graph = self.graph
        x, y = graph.foot
        text = [f'<text class="left mid soft caption" x="{_f(x)}" y="{_f(y)}">{escape(graph.caption)}</text>'] if graph.caption else []
        shown = graph.key
        if not shown:
            return text
        y += 20 if graph.caption else 0
        text.append('<g class="key">')
        for kind, word in shown:
            self.markers.setdefault(kind.split()[0])
            text.append(f'<g class="edge {kind}"><path d="M{_f(x)} {_f(y - 4)}h30"/><text class="left mid" x="{_f(x + 36)}" y="{_f(y)}">{escape(word)}</text></g>')
            x += 36 + text_width(word, 10) + 22
        return [*text, "</g>"]


def svg(graph: Graph) -> str:
    return Writer(graph).write()
