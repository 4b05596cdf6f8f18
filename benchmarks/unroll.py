"""Recurrent layers beside PyTorch's, forward and backward, in one run: ``python benchmarks/unroll.py``.

Sizes are (time steps, batch, input, hidden), float32; rounds are interleaved, figures are medians, in milliseconds and as ratios to
the better of PyTorch's times on one and on two threads. The products alone, at the same sizes, are printed as the limit.
"""

from __future__ import annotations

import os

# Threads that wait for their next work by spinning would slow down whatever is measured next.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn

SIZES = [(50, 1, 64, 64), (50, 16, 64, 128), (100, 32, 128, 128), (100, 32, 128, 256), (100, 64, 256, 512), (1000, 32, 64, 64)]
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def products(gates: int, T: int, B: int, I: int, H: int) -> Callable[[], Any]:  # noqa: E741
    """The matrix products of a layer's forward and backward pass, and nothing else."""
    X, W, U = (np.ones(s, np.float32) for s in ((T * B, I), (gates * H, I), (gates * H, H)))
    D, S, h, d = (np.ones(s, np.float32) for s in ((T * B, gates * H), (T * B, H), (B, H), (B, gates * H)))
    a, g = np.empty((B, gates * H), np.float32), np.empty((B, H), np.float32)

    def run() -> None:
        X.dot(W.T)
        for _ in range(T):
            np.dot(h, U.T, a)
        for _ in range(T):
            np.dot(d, U, g)
        X.T.dot(D)
        S.T.dot(D)
        D.dot(W)

    return run


def layer(module: Any, x: np.ndarray, w: np.ndarray, mode: str = "replay") -> Callable[[], Any]:
    module.mode = mode
    inputs = tg.tensor(x, requires_grad=True)

    def run() -> None:
        module(inputs)[0].backward(w)
        module.zero_grad()
        inputs.zero_grad()

    return run


def torch_layer(kind: str, x: np.ndarray, w: np.ndarray, threads: int, loop: bool = False) -> Callable[[], Any]:
    import torch

    T, I, H = len(x), x.shape[2], w.shape[2]  # noqa: E741
    module = getattr(torch.nn, kind + ("Cell" if loop else ""))(I, H)
    inputs, weights = torch.tensor(x, requires_grad=True), torch.tensor(w)

    def whole() -> torch.Tensor:
        return module(inputs)[0]  # type: ignore[no-any-return]

    def steps() -> torch.Tensor:
        state: Any = None
        outputs = []
        for t in range(T):
            state = module(inputs[t], state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs)

    def run() -> None:
        torch.set_num_threads(threads)
        (steps if loop else whole)().backward(weights)
        module.zero_grad()
        inputs.grad = None

    return run


class Peephole(nn.Module):
    """An LSTM whose gates see the cell (Gers and Schmidhuber 2000): no framework has fused it."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        self.hidden_size = hidden_size
        self.x = nn.Linear(input_size, 4 * hidden_size, rng=0)
        self.h = nn.Linear(hidden_size, 4 * hidden_size, rng=1)
        self.p = nn.Parameter(np.full((3, hidden_size), 0.1, np.float32))

    def initial_state(self, batch: tuple[int, ...]) -> Any:
        return tg.zeros((*batch, self.hidden_size)), tg.zeros((*batch, self.hidden_size))

    def forward(self, x: Any, state: Any) -> Any:
        h, c = state
        H = self.hidden_size
        a = self.x(x) + self.h(h)
        i, f = tg.sigmoid(a[:, :H] + self.p[0] * c), tg.sigmoid(a[:, H : 2 * H] + self.p[1] * c)
        c = f * c + i * tg.tanh(a[:, 2 * H : 3 * H])
        return tg.sigmoid(a[:, 3 * H :] + self.p[2] * c) * tg.tanh(c), c


def measured(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) * 1e3 for name, taken in times.items()}


def main() -> None:
    try:
        import torch
    except ImportError:
        torch = None
    for size in SIZES:
        T, B, I, H = size  # noqa: E741
        rng = np.random.default_rng(0)
        x, w = rng.standard_normal((T, B, I)).astype(np.float32), rng.standard_normal((T, B, H)).astype(np.float32)
        rounds = 15 if T * B * H * H < 1e8 else 5
        print(f"\n(T, B, I, H) = {size}")
        for kind, gates in GATES.items():
            runs = {"products": products(gates, T, B, I, H), "replayed": layer(getattr(nn, kind)(I, H, rng=0), x, w)}
            if torch is not None:
                runs |= {f"torch {n}": torch_layer(kind, x, w, n) for n in (1, 2)}
            found = measured(runs, rounds)
            best = min((t for name, t in found.items() if name.startswith("torch")), default=found["replayed"])
            print(f"  {kind:5s} " + "  ".join(f"{name} {t:8.2f}" for name, t in found.items()) + f"   {found['replayed'] / best:5.2f} of torch, {found['replayed'] / found['products']:5.2f} of the products")
        runs = {mode: layer(nn.Recurrent(Peephole(I, H)), x, w, mode) for mode in ("replay", "eager")}
        if torch is not None:
            runs["torch LSTMCell loop"] = torch_layer("LSTM", x, w, 1, loop=True)
        found = measured(runs, max(3, rounds // 3))
        print("  peephole LSTM, a user's cell: " + "  ".join(f"{name} {t:8.2f}" for name, t in found.items()))


if __name__ == "__main__":
    main()
