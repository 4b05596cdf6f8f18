"""What things are called in pictures: short symbols of parameters, ids, numbers."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Sequence

_PARTS = (("weight", "W"), ("bias", "b"))


def symbol(name: str) -> str:
    """The usual letter for a parameter's name: ``weight_ih_l0`` is W_ih, ``head.bias`` is b.

    >>> from tinygrad_rnn.drawing.naming import symbol
    >>> symbol("encoder.weight_hh_l1_reverse"), symbol("U")
    ('W_hh', 'U')
    """
    last = re.sub(r"_l\d+(_reverse)?$", "", name.rpartition(".")[2])
    for word, letter in _PARTS:
        if last == word or last.startswith(word + "_"):
            return letter + last[len(word) :]
    return last or name


def symbols(names: Sequence[Sequence[str]]) -> list[str]:
    """Symbols for parameters, each the sum of what it is made of; those that would be called the same but in other modules get the module's name."""
    short = []
    for parts in names:
        letters = [symbol(part) for part in parts]
        if len(letters) == 1:
            short.append(letters[0])
        else:
            first = {letter.partition("_")[0] for letter in letters}
            short.append(first.pop() if len(first) == 1 else "+".join(letters))
    same: dict[str, list[int]] = defaultdict(list)
    for k, text in enumerate(short):
        same[text].append(k)
    for text, members in same.items():
        modules = [names[k][0].rpartition(".")[0].rpartition(".")[2] for k in members]
        if len(members) > 1 and len(set(modules)) > 1:
            for k, module in zip(members, modules, strict=True):
                short[k] = f"{module}.{text}" if module else text
    return short


@functools.lru_cache(4096)
def identifier(text: str) -> str:
    """A text as an id of SVG, HTML and DOT."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-") or "x"


class Ids:
    """Ids that do not repeat, the same in every process."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def new(self, text: str) -> str:
        base = identifier(text)
        count = self.seen.get(base, 0) + 1
        self.seen[base] = count
        if count == 1:
            return base
        return self.new(f"{base}-{count}")


@functools.lru_cache(4096)
def size(shape: tuple[int, ...]) -> str:
    """A shape as text: ``4×8``."""
    return "×".join(map(str, shape)) or "scalar"


def number(value: float | None) -> str:
    """A norm in a few characters: ``4e-11``, ``0.12``, ``inf``.

    >>> from tinygrad_rnn.drawing.naming import number
    >>> [number(x) for x in (0.0, 0.1234, 5.0, 123456.0, 4.2e-11, float("nan"))]
    ['0', '0.12', '5', '1e5', '4e-11', 'NaN']
    """
    if value is None:
        return ""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 1000:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"
