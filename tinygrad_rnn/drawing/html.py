"""A picture as one page that needs nothing else, for any browser."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from ..replay.expanding import uncollected
from .packing import packed
from .svg import COLOURS, THEMES

if TYPE_CHECKING:
    from .graph import Graph


def html(graph: Graph) -> str:
    """The page of a graph: its model as data, and a script that draws and folds it.

    The data are never read as markup, and the page's policy lets no other script run and nothing be fetched.
    """
    with uncollected():
        model = json.dumps(packed(graph.unfolded(), graph), separators=(",", ":"), allow_nan=False)
    # Nothing in the data can end the element that holds them.
    model = model.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    sheet, script = style(), _part("model.js") + _part("draw.js") + _part("page.js")
    return _filled(
        _part("page.html"),
        {
            "policy": f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(sheet)}; img-src data:; base-uri 'none'; form-action 'none'",
            "theme": ' data-theme="dark"' if graph.theme == "dark" else "",
            "title": _text(graph.title),
            "description": _text(graph.description),
            "style": sheet,
            "model": model,
            "script": script,
        },
    )


@cache
def _part(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def _text(text: str) -> str:
    """Text between tags; what cannot be encoded is shown as a question mark."""
    return escape(text.encode("utf-8", "replace").decode())


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _filled(page: str, parts: dict[str, str]) -> str:
    """The template with its ``{{names}}`` filled in, none of them looked for in what was filled in."""
    first, *rest = page.split("{{")
    made = [first]
    for piece in rest:
        name, _, after = piece.partition("}}")
        made += [parts[name], after]
    return "".join(made)


@cache
def style() -> str:
    """The page's style sheet, with the colours of the two themes as variables."""
    light, dark = (_variables(theme) for theme in ("light", "dark"))
    shared = "".join(f"--p{k}:{colour};" for k, colour in enumerate(COLOURS))
    themes = (
        f":root{{color-scheme:light;{shared}{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
    )
    marks = "".join(f".p{k}{{--mark:var(--p{k})}}" for k in range(len(COLOURS)))
    return themes + marks + _part("page.css")


def _variables(theme: str) -> str:
    colours = THEMES[theme]
    found = ""
    for name, value in colours.items():
        found += f"--{name}:{value};" if isinstance(value, str) else "".join(f"--{name}{k + 1}:{shade};" for k, shade in enumerate(value))
    return found
