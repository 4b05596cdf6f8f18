"""What runs at each step of a compiled loop: matrix products, and operations on columns of rows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..native.kernels import Product


class Unsupported(Exception):
    """Why a loop is not compiled."""


class Source(NamedTuple):
    """An array that the caller binds: a value by its number, an outer tensor, or an array among the constants.

    ``mode`` says how it is read: a ``matrix`` of rows, one ``row`` for all, a ``column`` of one number a row, or one ``number``.
    """

    kind: str
    index: int  # type: ignore[assignment]
    mode: str


class Memory(NamedTuple):
    """Elements from a column on: of a source, or of a place in a row's scratch memory."""

    place: Source | int
    start: int


class Segment(NamedTuple):
    """Columns of a value that an instruction of the schedule makes."""

    value: int
    start: int


class Reduced(NamedTuple):
    """One number a row, made of a whole row."""

    value: int


class Number(NamedTuple):
    value: float


Operand = Memory | Segment | Reduced | Number
Key = tuple[int, int, int]
"""Which loop: the pass, the level in it, and the width."""


@dataclass
class Compute:
    """An elementwise operation on segments; ``floating`` says whether its result is a float or a bool."""

    op: str
    operands: list[Operand]
    result: Segment
    floating: bool
    width: int
    broadcast: list[bool]
    """Which operands are one number a row, for a result of more."""
    floats: list[bool]
    """Which operands are floats; the others are bools."""


@dataclass
class Reduce:
    """A part of a reduction of each row: ``add``, ``maximum`` or ``minimum``, divided by ``count`` in the end."""

    op: str
    operand: Operand
    result: Reduced
    width: int
    count: int
    broadcast: bool = False


@dataclass
class Store:
    operand: Operand
    target: Memory
    floating: bool
    width: int
    broadcast: bool = False
    added: bool = False
    """Whether it is added to what is there."""


@dataclass
class Multiply:
    """A matrix product, before the pass of its number; ``right`` is packed by the caller."""

    shape: Product
    left: Memory
    right: Source
    target: Memory


Item = Compute | Reduce | Store


@dataclass
class Schedule:
    """What runs at each step: before each pass its products, then for each row the pass's loops."""

    size: int = 4
    rows: int = 0
    products: dict[int, list[Multiply]] = field(default_factory=lambda: defaultdict(list))
    loops: dict[Key, list[Item]] = field(default_factory=lambda: defaultdict(list))
    scratch: list[tuple[int, bool]] = field(default_factory=list)
    """Width of each place in a row's scratch memory, and whether floats are in it."""
    written: set[Source] = field(default_factory=set)
    constants: list[Any] = field(default_factory=list)

    @property
    def passes(self) -> int:
        return max([*self.products, *(key[0] for key in self.loops)], default=-1) + 1
