"""A picture as the bytes of a file, by whatever is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import OutOfRangeError

if TYPE_CHECKING:
    from .graph import Graph

FORMATS = (".svg", ".dot", ".html", ".png", ".pdf")


def content(graph: Graph, suffix: str) -> bytes:
    """The picture in the format that a file's name asks for."""
    if suffix not in FORMATS:
        raise OutOfRangeError(f"graph: expected a name that ends in {', '.join(FORMATS)}, got {suffix or 'one without an end'}")
    if suffix in (".svg", ".dot", ".html"):
        text = graph.svg() if suffix == ".svg" else graph.dot if suffix == ".dot" else graph.html()
        return text.encode()
    reasons = []
    for draw in (_by_cairo, _by_graphviz):
        try:
            return draw(graph, suffix[1:])
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    raise RuntimeError(
        f"graph: nothing that is installed draws {suffix[1:].upper()} ({'; '.join(reasons)}): install cairosvg, or Graphviz (apt install graphviz, or pip install graphviz-pure); .svg needs nothing"
    )


def _by_cairo(graph: Graph, kind: str) -> bytes:
    cairosvg: Any = importlib.import_module("cairosvg")
    convert: Callable[..., bytes] = getattr(cairosvg, f"svg2{kind}")
    return convert(bytestring=graph.svg().encode(), **({"scale": 2} if kind == "png" else {}))


def _by_graphviz(graph: Graph, kind: str) -> bytes:
    graphviz: Any = importlib.import_module("graphviz")
    # nop2 takes every place from the text: nothing is laid out again.
    made: bytes = graphviz.Source(graph.dot, engine="neato").pipe(format=kind, neato_no_op=2)
    return made
