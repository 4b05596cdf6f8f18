"""The engine beside hand-written NumPy and its peers, in one run: ``python benchmarks/engine.py``.

Rounds are interleaved, and figures are medians and ratios of medians. Set OPENBLAS_NUM_THREADS=1 for steady ones.
"""

from __future__ import annotations

import importlib
import itertools
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_rnn as tg

STEPS = 100


def optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def step_functions(batch: int, hidden: int) -> dict[str, Callable[[], Any]]:
    """Forward and backward of h = tanh(x @ W + h @ U + b) over all steps, by each engine, float32."""
    rng = np.random.default_rng(0)
    W, U = (rng.standard_normal((hidden, hidden)).astype(np.float32) * 0.1 for _ in range(2))
    b = np.zeros(hidden, np.float32)
    xs = [rng.standard_normal((batch, hidden)).astype(np.float32) for _ in range(STEPS)]
    zero = np.zeros((batch, hidden), np.float32)

    def by_hand() -> Any:
        h, hs = zero, [zero]
        for x in xs:
            h = np.tanh(x @ W + h @ U + b)
            hs.append(h)
        dh, dW, dU, db = 2 * h, np.zeros_like(W), np.zeros_like(U), np.zeros_like(b)
        for t in range(STEPS - 1, -1, -1):
            dz = dh * (1 - hs[t + 1] * hs[t + 1])
            dW += xs[t].T @ dz
            dU += hs[t].T @ dz
            db += dz.sum(0)
            dh = dz @ U.T
        return dW

    weights = [tg.tensor(w, requires_grad=True) for w in (W, U, b)]
    inputs = [tg.tensor(x) for x in xs]

    def ours() -> Any:
        h = tg.tensor(zero)
        for x in inputs:
            h = tg.tanh(x @ weights[0] + h @ weights[1] + weights[2])
        (h * h).sum().backward()
        gradient = weights[0].grad.numpy()
        for w in weights:
            w.zero_grad()
        return gradient

    functions: dict[str, Callable[[], Any]] = {"by hand": by_hand, "tinygrad_rnn": ours}
    torch = optional("torch")
    if torch is not None:
        torch.set_num_threads(1)
        tw = [torch.tensor(w, requires_grad=True) for w in (W, U, b)]
        tx = [torch.tensor(x) for x in xs]

        def in_torch() -> Any:
            h = torch.zeros(batch, hidden)
            for x in tx:
                h = torch.tanh(x @ tw[0] + h @ tw[1] + tw[2])
            (h * h).sum().backward()
            gradient = tw[0].grad.numpy()
            for w in tw:
                w.grad = None
            return gradient

        functions["PyTorch eager"] = in_torch
    autograd = optional("autograd")
    if autograd is not None:
        anp = importlib.import_module("autograd.numpy")

        def loss(ws: Any) -> Any:
            h = zero
            for x in xs:
                h = anp.tanh(anp.dot(x, ws[0]) + anp.dot(h, ws[1]) + ws[2])
            return anp.sum(h * h)

        gradient_of = autograd.grad(loss)
        functions["autograd"] = lambda: gradient_of((W, U, b))[0]
    mg = optional("mygrad")
    if mg is not None:
        mw = [mg.tensor(w) for w in (W, U, b)]

        def in_mygrad() -> Any:
            h = mg.tensor(zero, constant=True)
            for x in xs:
                h = mg.tanh(mg.matmul(x, mw[0]) + mg.matmul(h, mw[1]) + mw[2])
            (h * h).sum().backward()
            gradient = mw[0].grad
            for w in mw:
                w.null_grad()
            return gradient

        functions["MyGrad"] = in_mygrad
    return functions


def recorded_step() -> None:
    for batch, hidden, rounds in ((8, 16, 40), (32, 128, 15)):
        functions = step_functions(batch, hidden)
        expected = functions["by hand"]()
        times: dict[str, list[float]] = {name: [] for name in functions}
        for run in functions.values():
            np.testing.assert_allclose(run(), expected, rtol=1e-2, atol=1e-3)
        for _ in range(rounds):
            for name, run in functions.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
        base = statistics.median(times["by hand"])
        print(f"\nrecorded step, hidden {hidden}, batch {batch}, T = {STEPS}, forward and backward")
        for name, taken in times.items():
            middle = statistics.median(taken)
            print(f"  {name:14s} {middle / STEPS * 1e6:8.1f} us a step   {middle / base:6.2f} of by hand")


def long_chain() -> None:
    print("\nchain of additions: seconds forward, backward, release")
    for length in (250_000, 500_000, 1_000_000):
        w = tg.tensor([1.0], requires_grad=True)
        marks = [time.perf_counter()]
        y = w
        for _ in range(length):
            y = y + 1.0
        marks.append(time.perf_counter())
        y.backward()
        marks.append(time.perf_counter())
        del y
        marks.append(time.perf_counter())
        print(f"  {length:9,d}  " + "  ".join(f"{b - a:6.2f}" for a, b in itertools.pairwise(marks)))


def memory() -> None:
    batch, hidden, steps, segment = 32, 256, 1000, 32
    W, b = tg.randn(hidden, hidden, rng=0) * 0.05, tg.zeros(hidden)
    W.requires_grad_(), b.requires_grad_()

    def run(h: tg.Tensor, count: int) -> tg.Tensor:
        for _ in range(count):
            h = tg.tanh(h @ W + b)
        return h

    def plain() -> tg.Tensor:
        return run(tg.zeros((batch, hidden)), steps)

    def checkpointed() -> tg.Tensor:
        h: tg.Tensor = tg.zeros((batch, hidden))
        for start in range(0, steps, segment):
            h = tg.checkpoint(run, h, min(segment, steps - start))
        return h

    named = tg.tape(plain()).nbytes - W.nbytes
    print(f"\nmemory, T = {steps}, batch {batch}, hidden {hidden}: the rules name {named / 1e6:.1f} MB")
    base = 0.0
    for name, forward in (("plain", plain), (f"checkpoints of {segment}", checkpointed)):
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            forward().sum().backward()
            taken.append(time.perf_counter() - start)
        tracemalloc.start()
        forward().sum().backward()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        base = base or statistics.median(taken)
        print(f"  {name:18s} peak {peak / 1e6:6.1f} MB = {peak / named:5.2f} of it, time {statistics.median(taken) / base:5.2f} of plain")


def import_time() -> None:
    taken: dict[str, list[float]] = {"numpy": [], "tinygrad_rnn": []}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for name in taken:
        subprocess.run([sys.executable, "-c", f"import {name}"], check=True, env=environment)
    for _ in range(7):
        for name, times in taken.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True, env=environment)
            times.append(time.perf_counter() - start)
    ours, numpy = statistics.median(taken["tinygrad_rnn"]), statistics.median(taken["numpy"])
    print(f"\nimport: {(ours - numpy) * 1e3:.0f} ms more than numpy's {numpy * 1e3:.0f} ms (with byte code cached)")


if __name__ == "__main__":
    recorded_step()
    long_chain()
    memory()
    import_time()
