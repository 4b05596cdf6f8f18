"""What each technique of a replayed unroll buys, switched off one at a time: ``python benchmarks/unroll.py techniques``.

A technique is switched off by replacing the function that decides on it, while plans are made and while they run; each variant
has plans of its own. All of them run NumPy alone, on one thread of the BLAS but for the last.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

from cells import Cell, data, layer
from timing import Contender, Table, blas_threads, in_numpy, measured, text
from tinygrad_rnn import nn
from tinygrad_rnn.replay import plan, replaying, unrolling, workspace
from tinygrad_rnn.replay.backward import Backward
from tinygrad_rnn.replay.batching import Batched, is_view
from tinygrad_rnn.replay.plan import HOISTED, LOOP, Loop
from tinygrad_rnn.replay.program import Instruction, Program

SIZES = [(50, 1, 64, 64), (50, 16, 64, 128), (100, 32, 128, 256)]


def _nothing_hoisted(program: Program, moving: set[int], carried: set[int]) -> tuple[dict[int, str], dict[int, Batched | None]]:
    phase, _ = _classify(program, moving, carried)
    made = {instruction.result for instruction in program.instructions}
    return {index: LOOP if found == HOISTED and index in made else found for index, found in phase.items()}, {}


_classify, _emit = plan.classify, Loop._emit


def _emitted_without_out(self: Loop, instruction: Instruction) -> None:
    """The operation makes an array of its own; it is copied only where others look for its values in their own place."""
    op, arguments, result = instruction
    if result in self.parts or is_view(instruction):
        return _emit(self, instruction)
    names = [", ".join(map(self._name, a)) if type(a) is tuple else self._name(a) for a in arguments]
    if op.name == "matmul" and self._same_always(arguments[1]):
        self.factors.add(names[1])
    if isinstance(op.forward, np.ufunc):
        names = [self._operand(a, name, result) for a, name in zip(arguments, names, strict=True)]
        self.names[f"u_{op.name}"] = op.forward
        made = f"u_{op.name}({', '.join(names)})"
    elif op.name == "matmul":
        made = f"dot({', '.join(names)})" if self.program.at(arguments[1]).ndim == 2 else f"matmul({', '.join(names)})"
    else:
        self.names[f"f{result}"] = plan._caller(instruction)
        made = f"f{result}({', '.join(names)})"
    looked_into = any(whole == result for whole, _ in self.aliases.values()) or any(is_view(i) and i.arguments[0].index == result for i in self.instructions)
    own = result in self.scratch and not looked_into
    self.lines.append(f"v{result} = {made}" if own else f"copyto(v{result}, {made})")


TECHNIQUES: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "hoisting": (replaying, "classify", _nothing_hoisted),
    "deferring": (Backward, "_deferrable", lambda self, instruction: False),
    "writing\nwith out=": (Loop, "_emit", _emitted_without_out),
    "panels\nof gates": (replaying, "gates", lambda program, constant, results: {}),
    "early\nfactors": (Backward, "_early", lambda self, instruction: False),
    "copies of\nconstants": (Loop, "_same_always", lambda self, argument: False),
    "known\nsteps": (unrolling, "Pure", type("Impure", (), {})),
    "kept\nworkspaces": (workspace.POOL, "take", lambda kind: None),
}
"""What is replaced, and by what.

``hoisting`` runs what depends on inputs alone before the loop, ``deferring`` the gradients of weights and inputs after it, ``early
factors`` what the backward pass knows without cotangents before its loop. ``copies of constants`` are contiguous matrices and biases repeated for each row;
``known steps`` are those of the built-in cells, which are not recorded again at each call.
"""


@contextlib.contextmanager
def without(name: str, threads: int) -> Iterator[None]:
    """With one technique switched off, or none."""
    switch = mock.patch.object(*TECHNIQUES[name]) if name in TECHNIQUES else contextlib.nullcontext()
    with in_numpy(threads, f"without {name}"), switch:
        yield


NETWORKS: dict[str, Callable[[int, int], Any]] = {
    "RNN": functools.partial(nn.RNN, rng=0),
    "GRU": functools.partial(nn.GRU, rng=0),
    "LSTM": functools.partial(nn.LSTM, rng=0),
    "layer-norm GRU": lambda I, H: nn.Recurrent(Cell("layer-norm GRU", I, H, np.dtype(np.float32))),  # noqa: E741
}


def main() -> None:
    threads = blas_threads()
    table = Table(
        "What techniques buy: the time without one as a ratio to that with all of them (in milliseconds), forward and backward, float32",
        ["T, B, I, H", "layer", "all", "", *TECHNIQUES, "all:\neager", *(["two\nthreads"] if len(threads) > 1 else [])],
        labels=2,
    )
    for size in SIZES:
        x, w = data(size)
        for kind, make in NETWORKS.items():
            runs: dict[str, Contender] = {}
            for name in ["all", *TECHNIQUES]:
                around = functools.partial(without, name, threads[0])
                with around():
                    runs[name] = Contender(layer(make(size[2], size[3]), x, w), around)
            runs["eager"] = Contender(layer(make(size[2], size[3]), x, w, "eager"), runs["all"].around)
            if len(threads) > 1:
                runs["threads"] = Contender(layer(make(size[2], size[3]), x, w), functools.partial(without, "all", threads[1]), True)
            found = measured(runs)
            first = found.pop("all")
            table.row(text(size), kind, first, "", *(t / first for t in found.values()))
