"""An instruction for all time steps at once: the same operation with the time as one more axis in front."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..native import dot
from ..ops.indexing import _getitem, add_at, embedding
from .program import Constant, Instruction, Outer, Program, Value

Batched = Callable[..., np.ndarray]
"""From the arrays of an instruction's operands, those that vary with a time axis, and the number of steps."""

_ELEMENTWISE = set("discretised around where clip sigmoid relu leaky_relu elu silu softplus gelu erf erfc dropout square nan_to_num astype copy".split())
_ALONG_AXIS = set("argsort sum mean prod max min ptp var std logsumexp softmax log_softmax cumsum cumprod norm2 flip".split())
ALONG_ROWS = set("sum mean max min var std softmax log_softmax norm2".split())
"""Those of them that machine code knows for matrices with the batch in front."""

VIEWS = set("transpose reshape getitem panels".split())


def elementwise(op: Any) -> bool:
    return isinstance(op.forward, np.ufunc) or op.name in _ELEMENTWISE


def takes_out(function: Batched) -> bool:
    """Whether a function for all steps takes ``out``, the array to write to."""
    return "out" in (getattr(function, "__kwdefaults__", None) or ())


def along_rows(instruction: Instruction, program: Program) -> bool:
    """Whether an operation along an axis runs along the rows of a matrix."""
    source = instruction.arguments[0]
    return instruction.op.name in ALONG_ROWS and isinstance(source, Value) and program.at(source).ndim == 2 and static(instruction, "axis") in (-1, 1, (-1,), (1,))


def basic(index: Any) -> bool:
    """Whether an index is made of integers, slices, None and Ellipsis alone."""
    if isinstance(index, Value | Outer):
        return False
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, slice | int) for part in parts)


def is_view(instruction: Instruction) -> bool:
    """Whether the result can be a view of the operand's memory, a varying one."""
    return instruction.op.name in VIEWS and isinstance(instruction.arguments[0], Value) and (instruction.op.name != "getitem" or basic(static(instruction, "index")))


def view_of(instruction: Instruction, program: Program) -> Batched:
    """The function of a view, for all steps."""
    function = batched(instruction, program, (True, *[False] * (len(instruction.arguments) - 1)))
    assert function is not None
    return function


def static(instruction: Instruction, name: str) -> Any:
    """The value of a static argument."""
    argument = instruction.arguments[instruction.op.parameters.index(name)]
    return argument.value if isinstance(argument, Constant) else argument


def behind(index: Any) -> tuple[Any, ...]:
    """An index for an array that has the time in front."""
    return (slice(None), *(index if isinstance(index, tuple) else (index,)))


def later_axes(axes: Any, ndim: int) -> Any:
    """Axes of an array that has the time in front."""
    if axes is None:
        return tuple(range(1, ndim + 1))
    return tuple(a % ndim + 1 for a in axes) if isinstance(axes, tuple | list) else int(axes) % ndim + 1


def batched(instruction: Instruction, program: Program, varies: tuple[bool, ...]) -> Batched | None:
    """A function that runs the instruction for all steps, or None where there is none.

    ``varies`` says of each argument whether it differs from step to step. The function takes the operands in the order
    of the arguments, static ones left out, and the number of steps as ``steps``.
    """
    op, arguments, result = instruction
    shape = program.shape(result)
    dynamic = [k for k, argument in enumerate(arguments) if not isinstance(argument, Constant)]
    if any(isinstance(arguments[k], tuple) and type(arguments[k]) is tuple for k in dynamic):
        return _sequence(instruction, program, varies)

    def forward(arrays: tuple[np.ndarray, ...], **changed: Any) -> Any:
        given = dict(zip(op.parameters, [a.value if isinstance(a, Constant) else None for a in arguments], strict=True))
        given.update({op.parameters[k]: array for k, array in zip(dynamic, arrays, strict=True)}, **changed)
        if isinstance(op.forward, np.ufunc):
            return op.forward(*[given[p] for p in op.positional])
        return op.forward(*[given[p] for p in op.positional], **{p: given[p] for p in op.keyword})

    if elementwise(op):
        ranks = [program.at(arguments[k]).ndim if varies[k] else len(shape) for k in dynamic]

        def aligned(*arrays: np.ndarray, steps: int) -> np.ndarray:
            ones = ((steps,) + (1,) * (len(shape) - rank) for rank in ranks)
            return np.asarray(forward(tuple([a if rank >= len(shape) else a.reshape(one + a.shape[1:]) for a, rank, one in zip(arrays, ranks, ones, strict=True)])))

        def direct(*arrays: np.ndarray, steps: int, out: np.ndarray | None = None) -> np.ndarray:
            return op.forward(*arrays, out=out)  # type: ignore[no-any-return]

        def filled(*arrays: np.ndarray, steps: int, out: np.ndarray | None = None) -> np.ndarray:
            given = list(numbers)
            for k, array in zip(dynamic, arrays, strict=True):
                given[k] = array
            return op.forward(*given, out=out)  # type: ignore[no-any-return]

        def chosen(*arrays: np.ndarray, steps: int, out: np.ndarray | None = None) -> np.ndarray:
            given = list(numbers)
            for k, array in zip(dynamic, arrays, strict=True):
                given[k] = array
            into = np.empty((steps, *shape), program.dtype(result)) if out is None else out
            np.copyto(into, given[2])
            np.copyto(into, given[1], where=given[0])
            return into

        numbers: list[Any] = [a.value if isinstance(a, Constant) else None for a in arguments]
        full = op.parameters == op.positional and all(rank >= len(shape) for rank in ranks)
        if full and isinstance(op.forward, np.ufunc):
            return direct if len(dynamic) == len(arguments) else filled
        return chosen if full and op.name == "where" and 0 in dynamic and program.at(arguments[0]).dtype == np.bool_ else aligned
    name = op.name
    if name == "matmul":
        return _matmul(program, arguments, varies)
    if name == "getitem" and varies[:2] == (False, True):
        return lambda a, index, steps: np.asarray(_getitem(a, index))
    if len(dynamic) != 1 and name not in ("embedding", "scatter"):
        return None
    ndim = program.at(arguments[dynamic[0]]).ndim
    if name == "one_hot":
        return lambda a, steps: np.asarray(forward((a,)))
    if name == "embedding":
        if [k for k, v in enumerate(varies) if v] != [0]:
            return None
        return lambda indices, weight, steps: np.asarray(embedding(indices, weight, static(instruction, "padding_idx")))
    if name == "scatter":
        if not varies[0] or len(dynamic) != 1 or not basic(static(instruction, "index")):
            return None

        def scattered(values: np.ndarray, steps: int) -> np.ndarray:
            total = np.zeros((steps, *shape), values.dtype)
            add_at(total, behind(static(instruction, "index")), values)
            return total

        return scattered
    if name == "transpose":
        axes = static(instruction, "axes")
        order = (0, *(later_axes(axes, ndim) if axes is not None else range(ndim, 0, -1)))
        return lambda a, steps: a.transpose(order)
    if name == "panels":
        count, rows, width = shape
        return lambda a, steps: a.reshape(steps, rows, count, width).transpose(0, 2, 1, 3)
    if name == "columns":
        return lambda a, steps: a.transpose(0, 2, 1, 3).reshape(steps, *shape)
    if name == "reshape":
        return lambda a, steps: a.reshape((steps, *shape))
    if name == "getitem":
        index = static(instruction, "index")
        return (lambda a, steps: a[behind(index)]) if basic(index) else None
    if name == "broadcast_to":
        return lambda a, steps: np.broadcast_to(a.reshape((steps,) + (1,) * (len(shape) - ndim) + a.shape[1:]), (steps, *shape))
    if name in _ALONG_AXIS and "axis" in op.parameters:
        if static(instruction, "axis") is None and name in ("cumsum", "cumprod"):
            return None
        axis = later_axes(static(instruction, "axis"), ndim)
        return lambda a, steps: np.asarray(forward((a,), axis=axis)).reshape((steps, *shape))
    return None


def stacked_panels(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array (time, panels, rows, width) in which each panel is contiguous for all steps together."""
    steps, count, rows, width = shape
    return np.empty((count, steps, rows, width), dtype).transpose(1, 0, 2, 3)


def _matmul(program: Program, arguments: tuple[Any, ...], varies: tuple[bool, ...]) -> Batched | None:
    first, second = program.at(arguments[0]).ndim, program.at(arguments[1]).ndim
    if varies == (True, False) and second == 2 and first in (1, 2):

        def product(x: np.ndarray, y: np.ndarray, steps: int, *, out: np.ndarray | None = None) -> np.ndarray:
            shape = (*x.shape[:-1], y.shape[1])
            return dot(x.reshape((math.prod(x.shape[:-1]), x.shape[-1])), y, None if out is None else out.reshape(-1, y.shape[1])).reshape(shape)

        return product
    if varies == (True, False) and second == 3 and first == 2:

        def panelled(x: np.ndarray, y: np.ndarray, steps: int, *, out: np.ndarray | None = None) -> np.ndarray:
            rows, (count, _, width) = len(x) * x.shape[1], y.shape
            into = stacked_panels((len(x), count, x.shape[1], width), x.dtype) if out is None else out
            np.matmul(x.reshape(rows, x.shape[2]), y, out=into.transpose(1, 0, 2, 3).reshape(count, rows, width))
            return into

        return panelled
    if first == second == 2:
        return lambda x, y, steps: np.matmul(x, y)
    return None


def _sequence(instruction: Instruction, program: Program, varies: tuple[bool, ...]) -> Batched | None:
    op = instruction.op
    if op.name not in ("concatenate", "stack"):
        return None
    parts = instruction.arguments[op.parameters.index(op.sequence)]
    axis = static(instruction, "axis")
    shape = program.shape(instruction.result)
    shifted = int(axis) % len(shape) + 1
    join = np.concatenate if op.name == "concatenate" else np.stack
    shapes = [program.at(part).shape for part in parts]

    def joined(*arrays: np.ndarray, steps: int) -> np.ndarray:
        fitted = [np.broadcast_to(a, (steps, *s)) for a, s in zip(arrays, shapes, strict=True)]
        return np.asarray(join(fitted, axis=shifted))

    return joined
