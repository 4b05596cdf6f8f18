"""Machine code for a replayed unroll, where LLVM is installed (the extra ``fast``): when it is used, and how it is checked.

The same instructions that the generated Python runs one ufunc at a time become one function for all steps: what is pointwise
is fused, products run on panels of the weights, and shards of the batch run in threads, with the interpreter lock released.
Which of the two ways runs is a matter of sizes alone, never of timing, so that bits repeat. What is not supported runs in NumPy.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..native import SETTING
from .agreement import close
from .program import Outer

if TYPE_CHECKING:
    from .binding import Function
    from .plan import Loop

LOOP = 1 << 18
"""Work in one call from which on a loop is compiled: multiplications of products and 16 times the elements of the rest.

That is a third of a millisecond in NumPy. Compiling takes 100 ms, the first time on a machine, and loading 4.
"""

Values = Callable[[Outer], np.ndarray]
Otherwise = Callable[[int, dict[int, np.ndarray]], None]


class Compiled:
    """The machine code of a loop, made when it is first worth it; ``first`` and ``last`` are lines around its instructions."""

    def __init__(self, loop: Loop, first: Sequence[str], last: Sequence[str]) -> None:
        self.loop, self.first, self.last = loop, first, last
        self.work = sum(_work(loop, k) for k in range(len(loop.instructions)))
        self.function: Function | None = None
        self.reason = ""
        """Why there is no machine code; empty where nobody asked for it yet, or where there is some."""
        self.proven = False
        """Whether the loop in NumPy gave what the step itself gives: then machine code may be compared with it, and used."""
        self._lock = threading.Lock()
        self._checked = False

    def why_not(self, steps: int) -> str:
        """Why so many steps do not run as machine code; empty if they do."""
        setting = os.environ.get(SETTING, "")
        if setting == "never":
            return f"{SETTING} is never"
        if steps * self.work < LOOP and setting != "always":
            return "too little work to compile"
        with self._lock:
            if self.function is None and not self.reason:
                self._make()
        return self.reason

    def _make(self) -> None:
        try:
            from .binding import compiled

            found = compiled(self.loop, self.first, self.last)
        except Exception as error:  # what was not foreseen still runs, in NumPy
            found = f"{type(error).__name__}: {error}"
        if isinstance(found, str):
            self.reason = found
        else:
            self.function = found

    def run(self, steps: int, reverse: bool, arrays: dict[int, np.ndarray], values: Values, otherwise: Otherwise) -> bool:
        """Run all steps, if it is worth it and possible; ``otherwise`` runs the first steps in NumPy, to compare with."""
        if not self.proven or self.why_not(steps):
            return False
        if not self._checked:
            self._check(min(steps, 3), reverse, arrays, values, otherwise)
        function = self.function
        return function is not None and function.run(steps, reverse, arrays, values, steps * self.work)

    def _check(self, steps: int, reverse: bool, arrays: dict[int, np.ndarray], values: Values, otherwise: Otherwise) -> None:
        """Compare a few steps with those of NumPy, once: machine code that differs is not used."""
        function = self.function
        if function is None:
            return
        part = slice(-steps, None) if reverse else slice(steps)
        few = {k: a[part] if k in self.loop.stacked else a for k, a in arrays.items()}
        carried = {k: few[k].copy() for k in function.written - self.loop.stacked}
        try:
            done = function.run(steps, reverse, few, values, 0)
        except Exception as error:
            self.function, self.reason = None, f"{type(error).__name__}: {error}"
            return
        if not done:
            self.function, self.reason = None, "an array lies in memory in another way"
            return
        found = {k: few[k].copy() for k in function.written}
        for k, a in carried.items():
            few[k][...] = a
        otherwise(steps, few)
        if not all(close(found[k], few[k]) for k in function.written):
            self.function, self.reason = None, "it gave other values than NumPy"
        for k, a in carried.items():
            few[k][...] = a
        self._checked = True


def _work(loop: Loop, k: int) -> int:
    op, arguments, result = loop.instructions[k]
    size = math.prod(loop.program.shape(result))
    return size * int(loop.program.at(arguments[0]).shape[-1]) if op.name == "matmul" else 16 * size
