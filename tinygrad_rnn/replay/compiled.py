"""The loop of a replayed unroll as machine code, where LLVM is installed: the extra ``fast``.

The same instructions that the generated Python runs one ufunc at a time become one function for all steps: what is pointwise
is fused, products run on panels of the weights, and shards of the batch run in threads, with the interpreter lock released.
Which of the two ways runs is a matter of sizes alone, never of timing, so that bits repeat. What is not supported runs in NumPy.
"""

from __future__ import annotations

import ctypes
import math
import re
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .emitting import emitted, supported
from .kernels import Lanes, Product, lanes
from .lowering import Lowering
from .machine import SETTING, Machine, machine, scratch, share, wanted
from .program import Constant, Outer, Value
from .schedule import Schedule, Source, Unsupported

if TYPE_CHECKING:
    from .plan import Loop

WORTH = 1 << 20
"""Work in one call from which on the compiled loop runs: products and 16 times the elements. It pays for compiling within some hundred calls."""

SHARED = 1 << 25
"""Work in one call from which on threads share it, in shards of at least ``SHARD`` rows."""

SHARD = 8


class Function(NamedTuple):
    """Machine code of a loop, with the arrays to bind."""

    call: Any
    sources: list[Source]
    scratch: int
    schedule: Schedule
    panels: dict[Source, Product]
    owner: Any


class Compiled:
    """The machine code of a loop, made when it is first worth it."""

    def __init__(self, loop: Loop, first: Sequence[str], last: Sequence[str]) -> None:
        self.loop, self.copies = loop, (first, last)
        self.work = sum(_work(loop, k) for k in range(len(loop.instructions)))
        self.function: Function | None = None
        self.reason = ""
        """Why there is no machine code; empty where nobody asked for it yet, or where there is some."""
        self._lock = threading.Lock()
        self._checked = False

    def why_not(self, steps: int) -> str:
        """Why so many steps do not run as machine code; empty if they do."""
        setting = wanted()
        if setting != "always" and steps * self.work < WORTH:
            return "too little work to compile"
        if not setting:
            return f"{SETTING} is never"
        with self._lock:
            if self.function is None and not self.reason:
                self._make()
        return self.reason

    def _make(self) -> None:
        host = machine()
        if host is None:
            self.reason = "llvmlite is not installed"
            return
        try:
            self.function = _function(self.loop, *self.copies, host)
        except Unsupported as error:
            self.reason = str(error)
        except Exception as error:  # what was not foreseen still runs, in NumPy
            self.reason = f"{type(error).__name__}: {error}"

    def run(self, steps: int, reverse: bool, arrays: dict[int, np.ndarray], values: Callable[[Outer], np.ndarray], otherwise: Callable[[int, dict[int, np.ndarray]], None]) -> bool:
        """Run all steps, if it is worth it and possible; ``otherwise`` runs the first steps in NumPy, to compare with."""
        if self.why_not(steps):
            return False
        try:
            if not self._checked:
                self._check(min(steps, 3), reverse, arrays, values, otherwise)
            return self.function is not None and self._call(self.function, steps, reverse, arrays, values)
        except Exception as error:  # as above; what was written is written again
            self.function, self.reason = None, f"{type(error).__name__}: {error}"
            return False

    def _check(
        self, steps: int, reverse: bool, arrays: dict[int, np.ndarray], values: Callable[[Outer], np.ndarray], otherwise: Callable[[int, dict[int, np.ndarray]], None]
    ) -> None:
        """Compare a few steps with those of NumPy, once: machine code that differs is not used."""
        assert self.function is not None
        part = slice(-steps, None) if reverse else slice(steps)
        few = {k: a[part] if k in self.loop.stacked else a for k, a in arrays.items()}
        written = {s.index for s in self.function.schedule.written}
        carried = {k: few[k].copy() for k in written - self.loop.stacked}
        if not self._call(self.function, steps, reverse, few, values):
            self.function, self.reason = None, "an array that it writes to is not contiguous"
            return
        found = {k: few[k].copy() for k in written}
        for k, a in carried.items():
            few[k][...] = a
        otherwise(steps, few)
        agree = all(_close(found[k], few[k]) for k in written)
        for k, a in carried.items():
            few[k][...] = a
        self._checked = True
        if not agree:
            self.function, self.reason = None, "it gave other values than NumPy"

    def _call(self, function: Function, steps: int, reverse: bool, arrays: dict[int, np.ndarray], values: Callable[[Outer], np.ndarray]) -> bool:
        host = machine()
        assert host is not None
        v = lanes(host, function.schedule.size)
        held: list[np.ndarray] = []
        table = np.empty((len(function.sources), 3), np.int64)
        for k, source in enumerate(function.sources):
            array = function.schedule.constants[source.index] if source.kind == "constant" else values(Outer(source.index)) if source.kind == "outer" else arrays[source.index]
            if source.mode == "panels":
                array = packed(array, function.panels[source], host, v)
            time = source.kind == "value" and source.index in self.loop.stacked
            bound = _bound(array, source.mode, time, steps, reverse, source in function.schedule.written)
            if bound is None:
                return False
            table[k], array = bound[:3], bound[3]
            held.append(array)
        rows = function.schedule.rows
        address = table.ctypes.data

        def shard(first: int, last: int) -> None:
            function.call(address, steps, first, last - first, scratch(function.scratch * (last - first)))

        share(shard, rows, SHARD if steps * self.work >= SHARED else rows)
        return True


def _work(loop: Loop, k: int) -> int:
    op, arguments, result = loop.instructions[k]
    size = math.prod(loop.program.shape(result))
    return size * int(loop.program.at(arguments[0]).shape[-1]) if op.name == "matmul" else 16 * size


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal but for rounding."""
    if a.dtype.kind != "f" or not a.size:
        return bool(np.array_equal(a, b))
    with np.errstate(all="ignore"):
        scale = float(np.max(np.abs(b), initial=0, where=np.isfinite(b)))
        return bool(np.allclose(a, b, rtol=0, atol=float(np.finfo(a.dtype).eps) * 1e4 * (scale + 1e-30), equal_nan=True))


_COPY = re.compile(r"copyto\(v(\d+), (?:v(\d+)|(0))\)")


def _copies(lines: Sequence[str]) -> list[tuple[int, Any]]:
    """What a loop copies before or after its instructions, as (target, source)."""
    found: list[tuple[int, Any]] = []
    for line in lines:
        match = _COPY.fullmatch(line)
        if match is None:
            raise Unsupported(f"{line} runs at each step")
        target, value, _ = match.groups()
        found.append((int(target), Constant(0.0) if value is None else Value(int(value))))
    return found


def _function(loop: Loop, first: Sequence[str], last: Sequence[str], host: Machine) -> Function:
    """The loop in machine code. Raises ``Unsupported``."""
    size = max((loop.program.dtype(i.result).itemsize for i in loop.instructions if loop.program.dtype(i.result).kind == "f"), default=4)
    schedule = Lowering(loop, _copies(first), _copies(last), lambda name: supported(host, size, name)).lowered()
    made = emitted(schedule, host)
    address, owner = host.function(made.source)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p)(address)
    panels = {m.right: m.shape for products in schedule.products.values() for m in products}
    return Function(call, made.sources, made.scratch, schedule, panels, owner)


def aligned(size: int) -> np.ndarray:
    """Bytes that begin at a multiple of 64."""
    whole = np.empty(size + 64, np.uint8)
    start = -whole.ctypes.data % 64
    return whole[start : start + size]


def packed(matrix: np.ndarray, shape: Product, host: Machine, v: Lanes) -> np.ndarray:
    """A matrix in panels, as :func:`kernels.product` reads it."""
    panels = shape.panels(host, v)
    width = host.vectors * v.count
    count = sum(w == width for _, w in panels)
    rest = shape.columns - count * width
    padded = -(-rest // v.count) * v.count
    flat = aligned(shape.inner * (count * width + padded) * v.size).view(matrix.dtype)
    middle = count * width * shape.inner
    flat[:middle].reshape(count, shape.inner, width)[...] = matrix[:, : count * width].reshape(shape.inner, count, width).transpose(1, 0, 2)
    if rest:
        last = flat[middle:].reshape(shape.inner, padded)
        last[:, rest:] = 0
        last[:, :rest] = matrix[:, count * width :]
    return flat


def _bound(array: np.ndarray, mode: str, time: bool, steps: int, reverse: bool, written: bool) -> tuple[int, int, int, np.ndarray] | None:
    """Address of the first step, bytes a step, bytes a row, and the array; None for one that cannot be written to."""
    if mode == "panels":
        return array.ctypes.data, 0, 0, array
    inner = array.strides[-1:] if array.ndim > time and mode in ("matrix", "row") and array.shape[-1] > 1 else (array.itemsize,)
    if inner != (array.itemsize,):
        if written:
            return None
        # Cotangents that nobody gave are one zero for all steps.
        array = np.broadcast_to(np.ascontiguousarray(array[0]), array.shape) if time and array.strides[0] == 0 else np.ascontiguousarray(array)
    step = array.strides[0] if time else 0
    row = array.strides[-2] if mode == "matrix" else array.strides[-1] if mode == "column" else 0
    start = array.__array_interface__["data"][0]
    return (start + (steps - 1) * step, -step, row, array) if reverse else (start, step, row, array)
