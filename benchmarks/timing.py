"""What the benchmarks of recurrent networks have in common: what is installed, threads, contenders timed in turn, and tables."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn.replay.replaying import PLANS

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
BUDGET, FEWEST, MOST = 1.0, 3, 15
"""Rounds go on for so many seconds, but there are so many of them at least and at most."""

_SHORT, _LONG = 0.05, 0.25
"""Seconds that a contender has in a round, if it needs fewer for one run; one that takes longer than the second is not run twice to find out."""

_PAUSE = 0.13
"""OpenBLAS's threads look for work for 110 ms before they sleep."""


@functools.cache
def optional(name: str) -> Any:
    """A module, or None and one line that says so."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed: left out")
        return None


@functools.cache
def torch() -> Any:
    return optional("torch")


@functools.cache
def jax() -> Any:
    """JAX, with float64 to compare values in; what is given in float32 stays so."""
    module = optional("jax")
    if module is not None:
        module.config.update("jax_enable_x64", True)
    return module


@functools.cache
def _blas() -> list[Any]:
    """NumPy's BLAS, where its threads can be set."""
    control = optional("threadpoolctl")
    if control is None:
        return []
    return [library for library in control.ThreadpoolController().lib_controllers if library.user_api == "blas" and "numpy" in library.filepath]


def blas_threads() -> list[int]:
    """The numbers of threads that NumPy's products can be run with here; 0 stands for what the environment says."""
    return ([1, 2] if CORES > 1 else [1]) if _blas() else [0]


def torch_threads() -> list[int]:
    return [1, 2] if CORES > 1 else [1]


def can_compile() -> bool:
    """Whether loops can run as machine code: the extra ``fast``."""
    return importlib.util.find_spec("llvmlite") is not None


_plans: dict[str, dict[Any, Any]] = {}


@contextlib.contextmanager
def in_numpy(threads: int, variant: str = "never") -> Iterator[None]:
    """With so many threads, and loops in NumPy alone, or by size in machine code if the variant is ``compiled``.

    Plans are made for one or the other, so each variant has its own. Beside the threads of machine code BLAS has one:
    its own look for work without a pause for 110 ms after each product, on the processors that the others need.
    """
    setting = {"TINYGRAD_RNN_COMPILE": "" if variant == "compiled" else "never"} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    others = dict(PLANS)
    PLANS.clear()
    PLANS.update(_plans.get(variant, {}))
    with mock.patch.dict(os.environ, setting), _openblas(min(threads, 1) if variant == "compiled" else threads):
        yield
    _plans[variant] = dict(PLANS)
    PLANS.clear()
    PLANS.update(others)


@contextlib.contextmanager
def _openblas(threads: int) -> Iterator[None]:
    before = [library.num_threads for library in _blas()] if threads else []
    for library in _blas() if threads else []:
        library.set_num_threads(threads)
    try:
        yield
    finally:
        for library, number in zip(_blas(), before, strict=False):
            library.set_num_threads(number)


@contextlib.contextmanager
def in_torch(threads: int) -> Iterator[None]:
    torch().set_num_threads(threads)
    yield


class Contender(NamedTuple):
    """What is timed, the context to run it in, and whether it leaves threads behind that wait by spinning."""

    call: Callable[[], Any]
    around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    spins: bool = False


def ours(call: Callable[[], Any], name: str = "NumPy") -> dict[str, Contender]:
    """A function of this package, or of NumPy alone, by its name and numbers of threads."""
    return {_named(name, n): Contender(call, functools.partial(in_numpy, n), n != 1) for n in blas_threads()}


def compiled(call: Callable[[], Any]) -> dict[str, Contender]:
    """A function of this package with its loops compiled, where they can be."""
    return {_named("compiled", n): Contender(call, functools.partial(in_numpy, n, "compiled"), n != 1) for n in torch_threads()} if can_compile() else {}


def eager(call: Callable[[], Any]) -> dict[str, Contender]:
    """A function of this package that runs without a plan, with one thread in its products."""
    return {"eager": Contender(call, functools.partial(in_numpy, blas_threads()[0]))}


def theirs(call: Callable[[], Any], name: str = "torch") -> dict[str, Contender]:
    """A function of PyTorch by its name and numbers of threads."""
    return {_named(name, n): Contender(call, functools.partial(in_torch, n), n != 1) for n in torch_threads()}


def _named(name: str, threads: int) -> str:
    return f"{name} {threads}t" if threads else name


def measured(contenders: dict[str, Contender], budget: float = BUDGET) -> dict[str, float]:
    """The median time of each in milliseconds; every round runs all of them in turn.

    A short one runs again and again, as in training, and the median of these runs is its time in the round: in the first
    ones the caches are empty, and its threads asleep.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    repeated: dict[str, int] = {}
    for name, contender in contenders.items():
        with contender.around():
            took = _took(contender)
            repeated[name] = 1 if took > _LONG else max(int(_SHORT / _took(contender)), 1)
        _settle(contender)
    start = time.perf_counter()
    for done in range(MOST):
        if done >= FEWEST and time.perf_counter() - start > budget:
            break
        for name, contender in contenders.items():
            with contender.around():
                times[name].append(statistics.median(_took(contender) for _ in range(repeated[name])))
            _settle(contender)
    return {name: statistics.median(taken) * 1e3 for name, taken in times.items()}


def _took(contender: Contender) -> float:
    start = time.perf_counter()
    contender.call()
    return time.perf_counter() - start


def _settle(contender: Contender) -> None:
    """Let threads that spin go to sleep before something else is timed."""
    if contender.spins:
        time.sleep(_PAUSE)


def best(found: dict[str, float], name: str) -> float:
    """The better time of one contender's, whatever its number of threads; NaN where it is left out."""
    return min((t for key, t in found.items() if key == name or key.startswith(f"{name} ")), default=float("nan"))


def compared(found: dict[str, float], peers: Sequence[str]) -> dict[str, float]:
    """Our times, alone on NumPy and compiled, as ratios to those of peers, by the heads of their columns."""
    pairs = [(name, peer) for peer in peers for name in ("NumPy", "compiled") if best(found, name) == best(found, name)]
    return {f"{name}\n/ {peer}": best(found, name) / best(found, peer) for name, peer in pairs}


class Table:
    """Rows printed as they come: labels to the left, figures to the right, and a gap between groups of columns (an empty head)."""

    def __init__(self, title: str, heads: Sequence[str], labels: int = 1) -> None:
        lines = [head.split("\n") for head in heads]
        deepest = max(map(len, lines))
        self.widths = [-18 if k < labels else max(7, *map(len, parts)) if head else 1 for k, (head, parts) in enumerate(zip(heads, lines, strict=True))]
        print(f"\n{title}\n")
        for k in range(deepest):
            # Heads stand on the line above the figures.
            self._line([parts[k - deepest + len(parts)] if k >= deepest - len(parts) else "" for parts in lines])

    def row(self, *cells: Any) -> None:
        self._line([_shown(cell) for cell in cells])

    def _line(self, cells: Sequence[str]) -> None:
        print(" ".join(cell.rjust(width) if width > 0 else cell.ljust(-width) for cell, width in zip(cells, self.widths, strict=True)).rstrip(), flush=True)


def heads(contenders: Iterable[str]) -> list[str]:
    """The heads of their columns, a number of threads below the name."""
    return [name.replace(" ", "\n") for name in contenders]


def text(size: tuple[int, ...]) -> str:
    return ", ".join(map(str, size))


def _shown(cell: Any) -> str:
    if isinstance(cell, float):
        return "-" if cell != cell else f"{cell:.2f}" if cell < 100 else f"{cell:.0f}"
    return str(cell)


def machine() -> str:
    """The versions and the BLAS that figures depend on."""
    kernels = ", ".join(f"{library.internal_api} {library.version} with {library.architecture} kernels" for library in _blas()) or "its BLAS"
    others = "".join(f", {module.__name__} {module.__version__}" for module in (torch(), jax()) if module is not None)
    return f"tinygrad_rnn {tg.__version__}, NumPy {np.__version__} ({kernels}){others}, {CORES} cores"
