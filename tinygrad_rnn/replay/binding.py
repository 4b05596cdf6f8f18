"""The compiled function of a loop, and the arrays that it is called with."""

from __future__ import annotations

import ctypes
import itertools
import re
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..native.gemm import pack, panels
from ..native.kernels import Product, lanes
from ..native.machine import Machine, machine, scratch
from ..native.workers import share
from .emitting import Emitted, emitted, supported
from .lowering import Lowering
from .program import Constant, Outer, Value
from .schedule import Schedule, Source, Unsupported
from .segments import Copy

if TYPE_CHECKING:
    from .plan import Loop
    from .workspace import Workspace

SHARED = 1 << 25
"""Work in one call from which on threads share it, in shards of at least ``SHARD`` rows."""

SHARD = 8

BLOCK = 1 << 19
"""Bytes of scratch memory that stay in the cache: more rows than these take go through all steps block by block."""


def compiled(loop: Loop, first: Sequence[str], last: Sequence[str]) -> Function | str:
    """The function of a loop, or why there is none."""
    host = machine()
    if host is None:
        return "llvmlite is not installed"
    size = max((loop.program.dtype(i.result).itemsize for i in loop.instructions if loop.program.dtype(i.result).kind == "f"), default=4)
    try:
        schedule = Lowering(loop, _copies(first), _copies(last), lambda name: supported(host, size, name)).lowered()
        return Function(host, schedule, emitted(schedule, host), loop)
    except Unsupported as error:
        return str(error)


_COPY = re.compile(r"copyto\(v(\d+), (?:v(\d+)|0)\)")
_ADDED = re.compile(r"add\(v(\d+), v(\d+), v\1\)")


def _copies(lines: Sequence[str]) -> list[Copy]:
    """What a loop copies before or after its instructions, and what it adds up."""
    found: list[Copy] = []
    for line in lines:
        copied = _COPY.fullmatch(line)
        match = copied or _ADDED.fullmatch(line)
        if match is None:
            raise Unsupported(f"{line} runs at each step")
        target, value = match.groups()
        if target != value:
            found.append(Copy(int(target), Constant(0.0) if value is None else Value(int(value)), copied is None))
    return found


class Function:
    """Machine code of a loop. ``written`` are the values whose arrays it writes."""

    def __init__(self, host: Machine, schedule: Schedule, made: Emitted, loop: Loop) -> None:
        self.host, self.rows, self.scratch = host, schedule.rows, made.scratch
        self.lanes = lanes(host, schedule.size)
        self.block = max(BLOCK // max(made.scratch, 1), 48)
        self.written = {source.index for source in schedule.written}
        multiplied = {m.right: m.shape for products in schedule.products.values() for m in products}
        self.bindings = [Binding(source, loop, source in schedule.written, multiplied.get(source), schedule.constants) for source in made.sources]
        self._call = host.callable(made.source, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p)

    def run(self, steps: int, reverse: bool, arrays: dict[int, np.ndarray], values: Callable[[Outer], np.ndarray], work: float) -> bool:
        """Run so many steps; False, and nothing done, where an array lies in memory in another way than is supported."""
        table = self._table(getattr(arrays, "spaces", ()), steps, reverse)
        held: list[np.ndarray] = []
        for k in table.changing:
            place = self._place(k, arrays, values, steps, reverse, held, table.packed)
            if place is None:
                return False
            table.places[k] = place
        address = table.address

        def shard(first: int, last: int) -> None:
            blocks = -(-(last - first) // self.block)
            bounds = [first + (last - first) * k // blocks for k in range(blocks + 1)]
            for row, end in itertools.pairwise(bounds):
                self._call(address, steps, row, end - row, scratch(self.scratch * (end - row)))

        if work >= SHARED:
            share(shard, self.rows, SHARD)
        else:
            shard(0, self.rows)
        return True

    def _table(self, spaces: Sequence[Workspace], steps: int, reverse: bool) -> Table:
        """The table of a call: what its workspaces hold stays where it is, and is known from the last call with the same ones."""
        last = spaces[-1].places.get(self) if spaces else None
        if last is not None and all(ref() is space for ref, space in zip(last[0], spaces, strict=True)):
            return last[1]  # type: ignore[no-any-return]
        table = Table(len(self.bindings))
        for space in spaces:
            for k, binding in enumerate(self.bindings):
                array = space.arrays.get(binding.index) if binding.kind == "value" and binding.panels is None else None
                if array is not None and k in table.changing and binding.fits(array) and binding.shape in (None, array.shape[binding.stacked :]):
                    table.places[k] = binding.place(array, steps, reverse)
                    table.changing.remove(k)
        for k, binding in enumerate(self.bindings):
            if binding.panels is not None:
                table.packed[k] = panels(binding.panels, self.host, self.lanes)
        if spaces:
            spaces[-1].places[self] = [weakref.ref(space) for space in spaces], table
            spaces[-1].grow(sum(memory.nbytes for memory in table.packed.values()) if last is None else 0)
        return table

    def _place(
        self, k: int, arrays: dict[int, np.ndarray], values: Callable[[Outer], np.ndarray], steps: int, reverse: bool, held: list[np.ndarray], packed: dict[int, np.ndarray]
    ) -> tuple[int, int, int] | None:
        """Where one array is, in a copy, which ``held`` keeps, if it must be; None where that is not supported."""
        binding = self.bindings[k]
        array = binding.found(arrays, values)
        if binding.shape is not None and array.shape[binding.stacked :] != binding.shape:
            return None
        if binding.panels is not None:
            pack(array, binding.panels, self.host, packed[k])
            array = packed[k]
        elif not binding.fits(array):
            if binding.written:
                return None
            array = binding.contiguous(array)
        held.append(array)
        return binding.place(array, steps, reverse)


class Table:
    """Where the arrays of a call are: three numbers each, for machine code to read; ``changing`` are those that every call finds anew."""

    def __init__(self, count: int) -> None:
        self.places = np.zeros((count, 3), np.int64)
        self.address = int(self.places.__array_interface__["data"][0])
        self.changing = list(range(count))
        self.packed: dict[int, np.ndarray] = {}


class Binding:
    """How one array is handed over: the address of its first step, the bytes from step to step and those from row to row."""

    def __init__(self, source: Source, loop: Loop, written: bool, panels: Product | None, constants: list[Any]) -> None:
        self.kind, self.index, self.mode = source
        self.stacked, self.written, self.panels = self.kind == "value" and self.index in loop.stacked, written, panels
        known = self.kind == "value" and self.index < len(loop.program.arrays)
        self.shape = loop.program.shape(self.index) if known else None
        self.constant = constants[source.index] if source.kind == "constant" else None
        self._row = {"matrix": -2, "column": -1}.get(self.mode)

    def found(self, arrays: dict[int, np.ndarray], values: Callable[[Outer], np.ndarray]) -> Any:
        return arrays[self.index] if self.kind == "value" else values(Outer(self.index)) if self.kind == "outer" else self.constant

    def fits(self, array: np.ndarray) -> bool:
        """Whether the elements of a row are next to each other."""
        whole = self.mode not in ("matrix", "row") or array.ndim == self.stacked or array.shape[-1] <= 1 or array.strides[-1] == array.itemsize
        return whole and array.flags.aligned

    def contiguous(self, array: np.ndarray) -> np.ndarray:
        if self.stacked and array.strides[0] == 0:
            # Cotangents that nobody gave are one zero for all steps.
            return np.broadcast_to(np.ascontiguousarray(array[0]), array.shape)
        return np.ascontiguousarray(array)

    def place(self, array: np.ndarray, steps: int, reverse: bool) -> tuple[int, int, int]:
        start = array.__array_interface__["data"][0]
        if self.panels is not None:
            return start, 0, 0
        strides = array.strides
        step = strides[0] if self.stacked else 0
        row = 0 if self._row is None else strides[self._row]
        return (start + (steps - 1) * step, -step, row) if reverse else (start, step, row)
