"""Operations written as the simpler ones that they are made of: reductions of rows, and elementwise ones that machine code knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .batching import along_rows, static
from .program import Constant, Instruction, Program, Value

FIRST = 1 << 30
"""The number of the first value that is in no recording."""


class Named(NamedTuple):
    """An operation by its name alone."""

    name: str
    parameters: tuple[str, ...]
    sequence: None = None


class Expanded(Program):
    """A program with values of its own besides those of the recording."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.outer, self.recorded = program.outer, len(program.arrays)
        self.arrays: Any = dict(enumerate(program.arrays))


class Expansion:
    """The instructions of a loop, the composite ones expanded."""

    def __init__(self, program: Program, instructions: list[Instruction]) -> None:
        self.program = Expanded(program)
        self.instructions: list[Instruction] = []
        for instruction in instructions:
            expand = _ALONG_ROWS.get(instruction.op.name) if along_rows(instruction, self.program) else _POINTWISE.get(instruction.op.name)
            if expand is None or not isinstance(instruction.arguments[0], Value):
                self.instructions.append(instruction)
            else:
                expand(self, instruction)

    def emit(self, name: str, *operands: Any, result: int | None = None, dtype: Any = None) -> Value:
        """One instruction; without ``result`` it makes a value of the first operand's shape, or a column for a reduction."""
        reduces = name in ("sum", "mean", "max")
        if result is None:
            like = self.program.arrays[operands[0].index]
            result = FIRST + len(self.program.arrays)
            self.program.arrays[result] = np.broadcast_to(np.zeros((), dtype or like.dtype), (like.shape[0], 1) if reduces else like.shape)
        arguments = (operands[0], Constant(-1)) if reduces else operands
        self.instructions.append(Instruction(Named(name, ("a", "axis") if reduces else ("x", "y")), arguments, result))
        return Value(result)


def _shifted(to: Expansion, instruction: Instruction) -> tuple[Value, Value, Value]:
    """Rows less their largest element, the exponentials of these, and the sums of the exponentials."""
    source = instruction.arguments[0]
    shifted = to.emit("subtract", source, to.emit("max", source))
    powers = to.emit("exp", shifted)
    return shifted, powers, to.emit("sum", powers)


def _softmax(to: Expansion, instruction: Instruction) -> None:
    _, powers, total = _shifted(to, instruction)
    to.emit("divide", powers, total, result=instruction.result)


def _log_softmax(to: Expansion, instruction: Instruction) -> None:
    shifted, _, total = _shifted(to, instruction)
    to.emit("subtract", shifted, to.emit("log", total), result=instruction.result)


def _spread(to: Expansion, instruction: Instruction) -> tuple[Value, Constant]:
    """The sums of squares of rows less their means, in the shape of the result, and what to divide them by."""
    source = instruction.arguments[0]
    centred = to.emit("subtract", source, to.emit("mean", source))
    squares = to.emit("multiply", centred, centred)
    return _summed(to, squares, instruction), Constant(float(to.program.shape(source.index)[1] - static(instruction, "ddof")))


def _summed(to: Expansion, value: Value, instruction: Instruction) -> Value:
    like = to.program.arrays[instruction.result]
    result = FIRST + len(to.program.arrays)
    to.program.arrays[result] = like
    return to.emit("sum", value, result=result)


def _var(to: Expansion, instruction: Instruction) -> None:
    to.emit("divide", *_spread(to, instruction), result=instruction.result)


def _std(to: Expansion, instruction: Instruction) -> None:
    to.emit("sqrt", to.emit("divide", *_spread(to, instruction)), result=instruction.result)


def _norm2(to: Expansion, instruction: Instruction) -> None:
    source = instruction.arguments[0]
    to.emit("sqrt", _summed(to, to.emit("multiply", source, source), instruction), result=instruction.result)


def _leaky_relu(to: Expansion, instruction: Instruction) -> None:
    x, slope = instruction.arguments
    to.emit("where", to.emit("greater", x, Constant(0.0), dtype=np.bool_), x, to.emit("multiply", x, slope), result=instruction.result)


def _elu(to: Expansion, instruction: Instruction) -> None:
    x, alpha = instruction.arguments
    below = to.emit("multiply", to.emit("expm1", to.emit("minimum", x, Constant(0.0))), alpha)
    to.emit("where", to.emit("greater", x, Constant(0.0), dtype=np.bool_), x, below, result=instruction.result)


def _softplus(to: Expansion, instruction: Instruction) -> None:
    x = instruction.arguments[0]
    powers = to.emit("exp", to.emit("negative", to.emit("absolute", x)))
    to.emit("add", to.emit("maximum", x, Constant(0.0)), to.emit("log1p", powers), result=instruction.result)


def _gelu(to: Expansion, instruction: Instruction) -> None:
    x = instruction.arguments[0]
    if static(instruction, "approximate") == "tanh":
        cube = to.emit("multiply", to.emit("multiply", to.emit("multiply", x, x), x), Constant(0.044715))
        cdf = to.emit("sigmoid", to.emit("multiply", to.emit("add", cube, x), Constant(2 * math.sqrt(2 / math.pi))))
    else:
        cdf = to.emit("multiply", to.emit("erfc", to.emit("multiply", x, Constant(-math.sqrt(0.5)))), Constant(0.5))
    to.emit("multiply", cdf, x, result=instruction.result)


_ALONG_ROWS: dict[str, Callable[[Expansion, Instruction], None]] = {"softmax": _softmax, "log_softmax": _log_softmax, "var": _var, "std": _std, "norm2": _norm2}
_POINTWISE: dict[str, Callable[[Expansion, Instruction], None]] = {"leaky_relu": _leaky_relu, "elu": _elu, "softplus": _softplus, "gelu": _gelu}
