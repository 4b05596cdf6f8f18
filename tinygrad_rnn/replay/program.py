"""A step as a program: the operations that it ran, on numbered values, as an observer saw them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from ..core.state import current
from ..core.tensor import Tensor, is_tensor, wrap


class Value(NamedTuple):
    """A value that differs from step to step: an input, a draw, or the result of an instruction.

    ``raw`` says that the operation took it as an ndarray, as integer indices are.
    """

    index: int  # type: ignore[assignment]
    raw: bool = False


class Outer(NamedTuple):
    """A tensor that the step reached from outside, a weight or a constant: the same at every step."""

    index: int  # type: ignore[assignment]


class Constant(NamedTuple):
    """A static argument, or an array that the step took from outside."""

    value: Any


class Instruction(NamedTuple):
    op: Any
    arguments: tuple[Any, ...]
    result: int


class Unreplayable(Exception):
    """Why a step cannot be replayed."""


class Program:
    """Straight-line code: instructions on values, of which the first are inputs.

    ``shapes`` and ``dtypes`` are those of all values; ``outer`` holds the tensors that :class:`Outer` arguments stand
    for, ``draws`` the functions that made the random arrays, whose values follow the inputs.
    """

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self.arrays: list[np.ndarray] = []
        self.outer: list[Tensor] = []
        self.draws: list[tuple[Callable[[], np.ndarray], int]] = []
        self.inputs = 0
        self.labels: dict[int, str] = {}
        """The names that the step gave to values."""

    def shape(self, index: int) -> tuple[int, ...]:
        return self.arrays[index].shape

    def dtype(self, index: int) -> np.dtype[Any]:
        return self.arrays[index].dtype

    def at(self, argument: Value | Outer) -> Any:
        """What an argument stands for in the recording, or something of its shape and dtype."""
        return self.arrays[argument.index] if isinstance(argument, Value) else self.outer[argument.index]

    def light(self, kept: int) -> Program:
        """The program without the values of the recording, which a plan must not keep alive; outer tensors from ``kept`` on stay."""
        made = Program()
        made.instructions, made.inputs = self.instructions, self.inputs
        made.arrays = [np.broadcast_to(np.zeros((), a.dtype), a.shape) for a in self.arrays]
        made.outer = [t if k >= kept else wrap(np.broadcast_to(np.zeros((), t._data.dtype), t._data.shape)) for k, t in enumerate(self.outer)]
        made.draws = [(_no_draw, index) for _, index in self.draws]
        return made

    def key(self) -> tuple[Any, ...]:
        """What two recordings have in common that can be replayed by one plan."""
        return (
            tuple([(i.op, *map(_coded, i.arguments)) for i in self.instructions]),
            tuple([(a.shape, a.dtype.str) for a in self.arrays[: self.inputs]]),
            tuple([(t._data.shape, t._data.dtype.str, t._node is not None, in_fortran_order(t._data)) for t in self.outer]),
            tuple([index for _, index in self.draws]),
        )


def in_fortran_order(array: np.ndarray) -> bool:
    return array.flags.fnc


def _no_draw() -> np.ndarray:
    raise Unreplayable("a plan draws nothing itself")


_SCALARS = frozenset({bool, int, float, str})


def _coded(argument: Any) -> Any:
    kind = type(argument)
    if kind is Value:
        return argument
    if kind is Outer:
        return "o", argument.index
    if kind is tuple:
        return tuple(map(_coded, argument))
    value = argument.value
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "iub":
            return "array", id(value)
        # Indices are copied when they are taken, so that they are known by what they are.
        return "array", value.dtype.str, value.shape, value.tobytes() if value.size <= 64 else blake2b(np.ascontiguousarray(value).data, digest_size=20).digest()
    if isinstance(value, slice):
        return "slice", value.start, value.stop, value.step
    if isinstance(value, tuple):
        return tuple(_coded(Constant(part)) for part in value)
    return type(value).__name__, repr(value) if isinstance(value, float) or value.__hash__ is None else value


def _renamed(argument: Any, same: Mapping[int, int]) -> Any:
    if isinstance(argument, Value):
        return argument._replace(index=same.get(argument.index, argument.index))
    return tuple([_renamed(part, same) for part in argument]) if type(argument) is tuple else argument


def merged(instructions: Iterable[Instruction]) -> tuple[list[Instruction], dict[int, int]]:
    """The instructions with each computation once, and for each result that went the one that stands for it.

    Slices that are scattered stay apart: each is written straight into its own sum.
    """
    kept: list[Instruction] = []
    same: dict[int, int] = {}
    seen: dict[Any, int] = {}

    for op, arguments, result in instructions:
        arguments = tuple([_renamed(a, same) for a in arguments])
        key = (op, *map(_coded, arguments))
        if key in seen and op.name != "scatter":
            same[result] = seen[key]
        else:
            seen[key] = result
            kept.append(Instruction(op, arguments, result))
    return kept, same


def identity(tensor: Tensor) -> tuple[int, int]:
    """What makes a tensor from outside another one: its memory, and its place on the tape, since a weight and its detached self are two."""
    return id(tensor._data if tensor._source is None else tensor._source), id(tensor._node)


class Trace:
    """An observer that writes a program down while a step runs."""

    def __init__(self, beneath: Any = None) -> None:
        self.program = Program()
        self.reason = ""
        self.recording = current().recording
        self.beneath = beneath
        self._places: dict[int, Value | Outer] = {}
        self._outer: dict[tuple[int, int], Outer] = {}
        self._kept: list[Any] = []

    def input(self, tensor: Tensor) -> Value:
        """Declare a tensor as an input; all inputs come before the first instruction."""
        value = self._new(tensor._data)
        self.program.inputs = len(self.program.arrays)
        return value

    def _new(self, array: np.ndarray) -> Value:
        value = Value(len(self.program.arrays))
        self.program.arrays.append(array)
        self._places[id(array)] = value
        return value

    def draw(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Random numbers that the step asked for: as ``core.creation.draw`` calls it."""
        again = make if self.beneath is None else lambda: self.beneath.next(make)
        array = np.asarray(again())
        self.program.draws.append((again, self._new(array).index))
        return array

    next = draw

    def forget(self) -> None:
        """Let go of all that was seen."""
        self.program = Program()
        self._places, self._outer, self._kept = {}, {}, []

    def read(self, what: str) -> None:
        """The step looked at a value: what it did next may depend on it."""
        self.reason = self.reason or what

    def same(self, new: np.ndarray, old: Tensor) -> None:
        """An array that holds a tensor's values is that tensor."""
        found = self._places.get(id(old._data))
        if found is not None:
            self._kept.append(new)
            self._places[id(new)] = found

    def labels(self) -> dict[int, str]:
        """The names that the step gave to its values, by number; asked for when it has ended."""
        found: dict[int, str] = {}
        for kept in self._kept:
            name = kept[1].name if isinstance(kept, tuple) and is_tensor(kept[1]) else None
            place = self._places.get(id(kept[1]._data)) if name else None
            if name and isinstance(place, Value):
                found[place.index] = name
        return found

    def place(self, tensor: Any) -> Any:
        """What a tensor is in the program."""
        origin = tensor._data if tensor._source is None else tensor._source
        found = self._places.get(id(origin))
        if found is None:
            key = identity(tensor)
            if key not in self._outer:
                self._outer[key] = Outer(len(self.program.outer))
                self.program.outer.append(tensor)
            found = self._outer[key]
        return found

    def _argument(self, value: Any) -> Any:
        if value is None or type(value) in _SCALARS:
            return Constant(value)
        if is_tensor(value):
            return self.place(value)
        if isinstance(value, np.ndarray):
            found = self._places.get(id(value))
            return Value(found.index, True) if isinstance(found, Value) else found or Constant(value)
        if isinstance(value, list | tuple) and any(is_tensor(part) or isinstance(part, np.ndarray) for part in value):
            return tuple(map(self._argument, value))
        return Constant(tuple(value) if isinstance(value, list) else value)

    def __call__(self, op: Any, values: tuple[Any, ...], out: Any) -> None:
        if current().recording != self.recording:
            self.read("no_grad or enable_grad was used in the step")
        arguments = tuple([self.place(value) if type(value) is Tensor else self._argument(value) for value in values])
        self._kept.append((values, out))
        if id(out._data) in self._places:
            # An operation that gave one of its operands back.
            self.reason = self.reason or f"{op.name} returned its operand itself"
            return
        self.program.instructions.append(Instruction(op, arguments, self._new(out._data).index))


def _looked_up(argument: Any, values: Sequence[Any], outer: Sequence[Any]) -> Any:
    if isinstance(argument, Value):
        return values[argument.index]._data if argument.raw else values[argument.index]
    if isinstance(argument, Outer):
        return outer[argument.index]
    if isinstance(argument, Constant):
        return argument.value
    return tuple([_looked_up(part, values, outer) for part in argument])


def interpret(program: Program, given: Mapping[int, Any], outer: Sequence[Any]) -> list[Any]:
    """Run a program on tensors, inputs and draws given by their numbers, through the operations themselves: every value of it."""
    values: list[Any] = [given.get(k) for k in range(len(program.arrays))]

    for op, arguments, result in program.instructions:
        named = dict(zip(op.parameters, [_looked_up(a, values, outer) for a in arguments], strict=True))
        out = op.function(*[named[p] for p in op.positional], **{p: named[p] for p in op.keyword})
        values[result] = out if is_tensor(out) else wrap(np.asarray(out))
    return values
