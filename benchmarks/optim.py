"""Adam with clipping of the gradient norm, beside PyTorch's fused Adam, in one run: ``python benchmarks/optim.py``.

Rounds are interleaved in random order, and figures are medians and ratios of medians of the one thread's processor time, so that
other processes count less. Set OPENBLAS_NUM_THREADS=1 for steady ones.
"""

from __future__ import annotations

import importlib
import math
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_rnn import optim, tensor

ROUNDS = 200
Run = tuple[Callable[[], None], Callable[[], None]]
"""What comes before, untimed, and what is timed."""
Shapes = list[tuple[int, ...]]
# A character model of 1,000,000 parameters: embedding, two recurrent layers with their biases, output layer, initial states.
MODEL: Shapes = [(400, 128), (1024, 128), (1024, 256), (1024,), (1024,), (1024, 256), (1024, 256), (1024,), (1024,), (100, 256), (100,), (1500,)]
BIASES: Shapes = [(256,)] * 100
NORM_BEFORE = 10.0


def arrays(shapes: Shapes, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    scale = NORM_BEFORE / math.sqrt(sum(map(math.prod, shapes)))
    return [(rng.standard_normal(shape) * scale).astype(np.float32) for shape in shapes]


def ours(shapes: Shapes, max_norm: float | None, block: int = optim.BLOCK, order: Any = "C") -> Run:
    params = [tensor(a, requires_grad=True) for a in arrays(shapes, 0)]
    fresh = [np.array(g, order=order) for g in arrays(shapes, 1)]
    for p, g in zip(params, fresh, strict=True):
        p.grad = g.copy(order="K")
    kept, optim.BLOCK = optim.BLOCK, block
    optimizer = optim.Adam(params)
    optim.BLOCK = kept

    def refill() -> None:
        for p, g in zip(params, fresh, strict=True):
            np.copyto(p.grad._data, g)  # type: ignore[union-attr]

    def run() -> None:
        if max_norm is not None:
            optim.clip_grad_norm_(params, max_norm)
        optimizer.step()

    return refill, run


def in_torch(torch: Any, shapes: Shapes, max_norm: float | None) -> Run:
    params = [torch.tensor(a, requires_grad=True) for a in arrays(shapes, 0)]
    fresh = [torch.tensor(g) for g in arrays(shapes, 1)]
    for p, g in zip(params, fresh, strict=True):
        p.grad = g.clone()
    optimizer = torch.optim.Adam(params, fused=True)

    def refill() -> None:
        for p, g in zip(params, fresh, strict=True):
            p.grad.copy_(g)

    def run() -> None:
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(params, max_norm)
        optimizer.step()

    return refill, run


def compare(title: str, functions: dict[str, Run], rounds: int) -> None:
    """Times of the functions in turn; the gradients, which clipping changes, are written anew before each, as by a backward pass."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 5):
        for name, (refill, run) in random.sample(list(functions.items()), len(functions)):
            refill()
            start = time.thread_time()
            run()
            if turn >= 5:
                times[name].append(time.thread_time() - start)
    base = statistics.median(next(iter(times.values())))
    print(f"\n{title}")
    for name, taken in times.items():
        print(f"  {name:34s} {statistics.median(taken) * 1e3:8.3f} ms   {statistics.median(taken) / base:6.2f} of the first")


def main() -> None:
    try:
        torch: Any = importlib.import_module("torch")
        torch.set_num_threads(1)
    except ImportError:
        torch = None
    large: Shapes = [(2048, 1024), (2048, 2048), (2048, 2048)]
    for name, shapes, rounds in (("a model", MODEL, ROUNDS), ("a model and 100 biases", MODEL + BIASES, ROUNDS), ("three large matrices", large, 20)):
        count = sum(map(math.prod, shapes))
        for what, max_norm in (("clipped", NORM_BEFORE / 10), ("within the bound", NORM_BEFORE * 10), ("without clipping", None)):
            functions = {"PyTorch, fused": in_torch(torch, shapes, max_norm)} if torch else {}
            functions["tinygrad_rnn"] = ours(shapes, max_norm)
            if what == "clipped":
                functions["tinygrad_rnn, gradients transposed"] = ours(shapes, max_norm, order="F")
            compare(f"Adam, {name}, {count:,} float32 values in {len(shapes)} arrays, gradients {what}", functions, rounds)
    for name, shapes, rounds in (("a model", MODEL, ROUNDS), ("three large matrices", large, 20)):
        sizes = [*(2**k * 1024 for k in range(4, 11)), 2**40]
        compare(f"Adam without clipping, {name}: bytes in a block", {f"{size:,}" if size < 2**40 else "no blocks": ours(shapes, None, size) for size in sizes}, rounds)


if __name__ == "__main__":
    main()
