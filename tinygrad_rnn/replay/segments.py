"""The values of a loop as rows of a batch, cut into segments of columns.

A value is cut where slices, sums of slices and concatenations say so, and wherever what goes with it element by element is, so
that the gates of a cell become operations on segments of one width. Rows are independent of each other: what mixes them is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .batching import basic, static
from .composites import Expansion
from .program import Instruction, Value
from .schedule import Unsupported

if TYPE_CHECKING:
    from .plan import Loop


class Copy(NamedTuple):
    """What a loop stores at each step beside its instructions: a value in another place, or ``added`` to what is there."""

    target: int
    source: Any
    added: bool = False


Copies = Sequence[Copy]

LIMIT = 64
"""More pieces of one value than this are not worth a loop each."""

REDUCTIONS = {"sum": "add", "mean": "add", "max": "maximum", "min": "minimum"}
_RENAMED = {"getitem", "reshape", "transpose", "copy", "positive"}


class Segments:
    """The instructions of a loop, composite ones expanded, with the segments of their results."""

    def __init__(self, loop: Loop, first: Copies, last: Copies) -> None:
        expanded = Expansion(loop.program, loop.instructions)
        self.loop, self.program, self.instructions = loop, expanded.program, expanded.instructions
        self.made = {i.result: i for i in self.instructions}
        self.first, self.last = first, last
        self.floating: dict[int, bool] = {}
        self.rows, self.size = 0, 0
        self._sizes()
        self.bounds: dict[int, set[int]] = {}
        self.parts = {index: self._parts(index) for index in loop.parts if index in self.made}
        self._segment()

    def shape(self, index: int) -> tuple[int, ...]:
        return self.program.shape(index)

    def _sizes(self) -> None:
        """One batch size, one floating dtype; only matrices with the batch first, and columns of one number a row."""
        heads, floats = set(), set()
        for instruction in self.instructions:
            shape, dtype = self.shape(instruction.result), self.program.dtype(instruction.result)
            if len(shape) not in (1, 2) or 0 in shape:
                raise Unsupported(f"{instruction.op.name} makes an array of shape {shape}")
            heads.add(shape[0])
            self.floating[instruction.result] = dtype.kind == "f"
            if dtype.kind == "f":
                floats.add(dtype.itemsize)
            elif dtype != np.bool_:
                raise Unsupported(f"{instruction.op.name} makes {dtype}")
        if not heads:
            raise Unsupported("nothing is computed in it")
        if len(heads) != 1 or len(floats) != 1 or not floats <= {4, 8}:
            raise Unsupported("its values have several dtypes, or not the batch in front")
        self.rows, self.size = heads.pop(), floats.pop()

    def width(self, index: int) -> int:
        shape = self.shape(index)
        return shape[1] if len(shape) == 2 else 1

    def _columns(self, shape: tuple[int, ...], view: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
        """Where in a row a view of rows begins, and its width."""
        rows = self.rows
        if shape[:1] != (rows,) or len(shape) > 2:
            raise Unsupported(f"a view of an array of shape {shape}")
        whole = np.empty((rows, shape[1] + 1), np.int8)[:, :-1] if len(shape) == 2 else np.empty((rows, 2), np.int8)[:, 0]
        part = view(whole)
        width = part.shape[1] if part.ndim == 2 else 1
        start = part.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        fits = part.ndim in (1, 2) and part.shape[0] == rows and np.may_share_memory(part, whole)
        fits = fits and (rows == 1 or part.strides[0] == whole.strides[0]) and (width == 1 or part.strides[1] == 1)
        if not fits or not 0 <= start <= whole.strides[0] - width:
            raise Unsupported("a view of it is not a range of columns")
        return start, width

    def _view(self, instruction: Instruction) -> tuple[Any, int]:
        """What an instruction that computes nothing renames, and the first column."""
        source = instruction.arguments[0]
        if not isinstance(source, Value):
            raise Unsupported(f"{instruction.op.name} of a weight")
        name = instruction.op.name
        if name in ("copy", "positive") or (name == "astype" and self.program.dtype(source.index) == self.program.dtype(instruction.result)):
            return source, 0

        def view(a: np.ndarray) -> np.ndarray:
            if name == "getitem":
                index = static(instruction, "index")
                if not basic(index):
                    raise Unsupported("an index that is an array")
                return np.asarray(a[index])
            return a.reshape(self.shape(instruction.result)) if name == "reshape" else a.transpose(static(instruction, "axes"))

        start, _ = self._columns(self.shape(source.index), view)
        return source, start

    def _renames(self, instruction: Instruction) -> bool:
        name = instruction.op.name
        return name in _RENAMED or (name == "astype" and self.program.dtype(instruction.arguments[0].index) == self.program.dtype(instruction.result))

    def _parts(self, index: int) -> list[tuple[int, int, Any]]:
        """First column, width and value of each part of a whole."""
        found = []
        for part in self.loop.parts[index].parts:
            start, width = self._columns(self.shape(index), lambda a, place=part.place: place(a, False))  # type: ignore[misc]
            found.append((start, width, part.value))
        return found

    def _tracked(self, argument: Any) -> bool:
        if not isinstance(argument, Value):
            return False
        index = argument.index
        return (index in self.made and self.made[index].op.name != "matmul") or index in self.loop.fixed

    def _segment(self) -> None:
        """Cut every value wherever anything that goes with it element by element is cut."""
        before = -1
        carried = sorted((v for v in self.loop.fixed if v < self.program.recorded), key=self.width)
        while (now := sum(map(len, self.bounds.values()))) != before:
            before = now
            for k in range(len(self.instructions)):
                for instruction in (self.instructions[k], self.instructions[-1 - k]):
                    self._cut(instruction)
            copied = [(t, s.index) for t, s, _ in [*self.first, *self.last] if t in self.loop.fixed and isinstance(s, Value) and self._tracked(s)]
            for a, b in [*copied, *itertools.pairwise(carried)]:
                if max(a, b) < self.program.recorded and self.width(a) == self.width(b):
                    self._share(a, b, 0)
        if any(len(b) > LIMIT for b in self.bounds.values()):
            raise Unsupported("its values fall into many pieces")

    def _bound(self, index: int) -> set[int]:
        return self.bounds.setdefault(index, {0, self.width(index)})

    def _share(self, whole: int, part: int, start: int) -> None:
        outer, inner = self._bound(whole), self._bound(part)
        width = self.width(part)
        outer |= {b + start for b in inner}
        inner |= {b - start for b in outer if start <= b <= start + width}

    def _cut(self, instruction: Instruction) -> None:
        index = instruction.result
        if index in self.parts:
            for start, width, part in self.parts[index]:
                self._bound(index).update((start, start + width))
                if self._tracked(part):
                    self._share(index, part.index, start)
        elif self._renames(instruction):
            source, start = self._view(instruction)
            if self._tracked(source):
                self._share(source.index, index, start)
            else:
                self._bound(index)
        elif instruction.op.name == "broadcast_to":
            self._bound(index)
        elif instruction.op.name in REDUCTIONS or instruction.op.name == "matmul":
            if self._tracked(instruction.arguments[0]):
                self._bound(instruction.arguments[0].index)
        else:
            self._bound(index)
            for argument in instruction.arguments:
                if self._tracked(argument) and self.width(argument.index) == self.width(index):
                    self._share(index, argument.index, 0)

    def segments(self, index: int) -> list[tuple[int, int]]:
        """First column and width of each segment."""
        cuts = sorted(self.bounds.get(index, {0, self.width(index)}))
        return [(a, b - a) for a, b in itertools.pairwise(cuts)]
