"""Where gates live: columns that are only read in slices become panels, one contiguous matrix (rows, width) for each slice.

A slice of columns is strided, and an operation on it costs up to four times as much as on contiguous memory. The panels of
a value (rows, columns) are an array (columns / width, rows, width). A value that must stay as it is can be viewed in panels,
so that an operation on panels may read and write it; the reverse, :func:`columns`, is written in place where it can be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..core.primitive import primitive
from .batching import basic, elementwise, static
from .plan import Assembly, Part, flat, readers_of, slice_of
from .program import Constant, Instruction, Outer, Program, Value

_ROWS, _WIDTH = 4, 8
"""Below so many rows, or columns in a slice, panels do not pay."""


@primitive
def panels(a: Any, width: int) -> Any:
    """An array (rows, columns) or (columns,) as (columns / width, rows, width), a view."""
    return a.reshape(a.shape[0] if a.ndim > 1 else 1, -1, width).transpose(1, 0, 2)


@primitive
def columns(a: Any) -> Any:
    """Panels as the array (rows, columns) that they are of."""
    return a.transpose(1, 0, 2).reshape(a.shape[1], -1)


def gates(program: Program, constant: set[int], results: Iterable[int]) -> dict[int, int]:
    """The matrix products whose columns are only read in slices, with the width of their panels.

    ``constant`` are the values that are the same at every step; ``results`` must stay as they are.
    """
    results = set(results)
    users = readers_of(program.instructions)

    def block(index: int) -> bool:
        return len(program.shape(index)) == 2

    found: list[tuple[set[int], set[int], int]] = []
    for op, arguments, start in program.instructions:
        if op.name != "matmul" or start in constant or not block(start) or program.shape(start)[0] < _ROWS or not all(isinstance(a, Value | Outer) for a in arguments):
            continue
        weight = arguments[1]
        if len(program.at(weight).shape) != 2 or (isinstance(weight, Value) and weight.index not in constant):
            continue
        # All blocks of columns that come of it, value by value.
        reached, pending, width = {start}, [start], program.shape(start)[1]
        while pending:
            index = pending.pop()
            for user in users.get(index, ()):
                cut = _cut(user, program)
                if cut is not None:
                    width = math.gcd(width, *cut)
                elif not (elementwise(user.op) and program.shape(user.result) == program.shape(index)):
                    continue
                if user.result not in reached:
                    reached.add(user.result)
                    pending.append(user.result)
        found.append(({start}, reached, width))
    merged: list[tuple[set[int], set[int], int]] = []
    for group in found:
        for other in [g for g in merged if g[1] & group[1]]:
            merged.remove(other)
            group = (group[0] | other[0], group[1] | other[1], math.gcd(group[2], other[2]))
        merged.append(group)

    def fits(starts: set[int], reached: set[int], width: int) -> bool:
        wide = [index for index in reached if program.shape(index)[1] > width]
        read = [user for index in wide for user in users.get(index, ())]
        return width >= _WIDTH and results.isdisjoint(wide) and any(_cut(u, program) for u in read) and all(u.result in reached for u in read)

    return {start: width for starts, reached, width in merged if fits(starts, reached, width) for start in starts}


def _cut(instruction: Instruction, program: Program) -> tuple[int, int] | None:
    """From where to where an instruction slices the columns of a matrix, all of its rows; None for any other."""
    if instruction.op.name != "getitem" or not isinstance(instruction.arguments[0], Value):
        return None
    return extent(static(instruction, "index"), program.shape(instruction.arguments[0].index))


def extent(index: Any, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The first column and the one behind the last of a slice of columns, all rows; None for any other index."""
    if len(shape) != 2 or not basic(index):
        return None
    index = index if isinstance(index, tuple) else (index,)
    index = (slice(None),) * (2 - len(index) + 1) + index[1:] if index and index[0] is Ellipsis else index
    if len(index) != 2 or not all(isinstance(part, slice) for part in index) or index[0].indices(shape[0]) != (0, shape[0], 1):
        return None
    start, stop, step = index[1].indices(shape[1])
    return (start, stop) if step == 1 and stop > start else None


class Layout:
    """A program with some of its values in panels.

    ``widths`` are those of the values known to be in panels; what elementwise operations and slices make of them follows.
    Sums of slices are given by ``parts``. Values keep their numbers; what has to be converted gets new ones.
    """

    def __init__(self, program: Program, instructions: list[Instruction], parts: dict[int, Assembly], widths: dict[int, int]) -> None:
        self.program, self.widths, self.parts = program, dict(widths), parts
        self.original = [a.shape for a in program.arrays]
        self.instructions: list[Instruction] = []
        self._converted: dict[tuple[int, int], Value] = {}
        self._spread(instructions)
        for index, width in self.widths.items():
            rows, count = self.original[index]
            program.arrays[index] = _like(program.arrays[index], (count // width, rows, width))
        for instruction in instructions:
            self.instructions.append(self._rewritten(instruction))

    def _spread(self, instructions: list[Instruction]) -> None:
        """Find everything that is in panels because something else is."""
        users = readers_of(instructions)
        before = -1
        while before != len(self.widths):
            before = len(self.widths)
            for instruction in instructions:
                result = instruction.result
                if result in self.widths or len(self.original[result]) != 2:
                    continue
                if result in self.parts:
                    below = users.get(result, [])
                    if below and all(elementwise(u.op) and u.result in self.widths and self.original[u.result] == self.original[result] for u in below):
                        width = self.widths[below[0].result]
                        cuts = [extent(part.index, self.original[result]) for part in self.parts[result].parts]
                        if all(cut is not None and cut[0] % width == cut[1] % width == 0 for cut in cuts):
                            self.widths[result] = width
                    continue
                width = self._width(instruction)
                if width and self.original[result][1] > width:
                    self.widths[result] = width

    def _width(self, instruction: Instruction) -> int:
        """The width of the panels in which a result is because an operand is; 0 where it is in none."""
        operands = [p.index for p in flat(instruction) if isinstance(p, Value) and p.index in self.widths]
        if not operands:
            return 0
        if elementwise(instruction.op):
            same = [index for index in operands if self.original[index] == self.original[instruction.result]]
            return self.widths[same[0]] if same else 0
        if instruction.op.name == "getitem":
            cut, width = extent(static(instruction, "index"), self.original[operands[0]]), self.widths[operands[0]]
            return width if cut is not None and cut[0] % width == cut[1] % width == 0 else 0
        return 0

    def _rewritten(self, instruction: Instruction) -> Instruction:
        op, arguments, result = instruction
        width = self.widths.get(result, 0)
        if result in self.parts:
            return self._assembly(instruction, width)
        if op.name == "getitem" and (inner := self._width(instruction)):
            start, stop = extent(static(instruction, "index"), self.original[arguments[0].index])  # type: ignore[misc]
            index = slice(start // inner, stop // inner) if width else start // inner
            return Instruction(op, tuple([Constant(index) if p == "index" else a for p, a in zip(op.parameters, arguments, strict=True)]), result)
        if not width:
            return Instruction(op, tuple([self._argument(a, 0, ()) for a in arguments]), result)
        if op.name == "matmul":
            return Instruction(op, (self._argument(arguments[0], 0, ()), self._argument(arguments[1], width, self.original[result])), result)
        return Instruction(op, tuple([self._argument(a, width, self.original[result]) for a in arguments]), result)

    def _assembly(self, instruction: Instruction, width: int) -> Instruction:
        result, made = instruction.result, []
        for part in self.parts[result].parts:
            if not width:
                made.append(Part(self._argument(part.value, 0, ()), part.index, part.place))
                continue
            start, stop = extent(part.index, self.original[result])  # type: ignore[misc]
            one = stop - start == width
            index = start // width if one else slice(start // width, stop // width)
            value = self._argument(part.value, 0 if one else width, (stop - start,))
            made.append(Part(value, index, slice_of(index)))
        self.parts[result] = Assembly(made, self.parts[result].whole)
        return Instruction(instruction.op, tuple([part.value for part in made]), result)

    def _argument(self, argument: Any, width: int, shape: tuple[int, ...]) -> Any:
        """An operand in panels of ``width`` for a result of ``shape``, or as it is where ``width`` is 0."""
        if type(argument) is tuple:
            return tuple([self._argument(part, width, shape) for part in argument])
        if isinstance(argument, Constant):
            value = argument.value
            fits = width and isinstance(value, np.ndarray) and value.ndim and value.shape[-1] == shape[-1]
            return Constant(panels.primitive.forward(value, width)) if fits else argument
        if isinstance(argument, Value) and argument.index in self.widths:
            return argument if self.widths[argument.index] == width else self._argument(self._columns(argument), width, shape)
        given = self.program.at(argument).shape
        if not width or not given or given[-1] != shape[-1] or len(given) > 2:
            return argument
        return self._new(panels.primitive, argument, (Constant(width),), (given[-1] // width, given[0] if len(given) == 2 else 1, width), width)

    def _columns(self, value: Value) -> Value:
        made = self._new(columns.primitive, value, (), self.original[value.index], 0)
        self.parts[made.index] = Assembly([Part(value, None, panels_of(self.widths[value.index]))], True)
        return made

    def _new(self, op: Any, argument: Value | Outer, rest: tuple[Constant, ...], shape: tuple[int, ...], width: int) -> Value:
        key = (argument.index if isinstance(argument, Value) else -1 - argument.index, width)
        if key not in self._converted:
            dtype = self.program.arrays[argument.index].dtype if isinstance(argument, Value) else self.program.outer[argument.index].dtype
            self.program.arrays.append(np.broadcast_to(np.zeros((), dtype), shape))
            self._converted[key] = Value(len(self.program.arrays) - 1)
            self.original.append(shape)
            self.instructions.append(Instruction(op, (argument, *rest), self._converted[key].index))
        return self._converted[key]

    def plain(self, place: Any) -> Any:
        """A value as it was before: what leaves the program."""
        return self._columns(place) if isinstance(place, Value) and place.index in self.widths else place


def panels_of(width: int) -> Any:
    """Views an array (rows, columns), or those of all steps, in panels."""

    def view(array: np.ndarray, time: bool) -> np.ndarray:
        cut = array.reshape(*array.shape[:-1], array.shape[-1] // width, width)
        return cut.transpose(0, 2, 1, 3) if time else cut.transpose(1, 0, 2)

    return view


def _like(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.zeros((), array.dtype), shape)
