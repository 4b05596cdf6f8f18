"""Tokens a second of a character LSTM beside PyTorch, in one run: ``python benchmarks/training.py``.

A step is embedding, LSTM, output layer, loss, backward pass, clipping and Adam. Rounds are interleaved, figures are medians.
"""

from __future__ import annotations

import os

# Threads that wait for their next work by spinning would slow down whatever is measured next.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import contextlib
import statistics
import time
from collections.abc import Callable

import numpy as np

from tinygrad_rnn import nn, optim

BATCH, WINDOW, SYMBOLS = 32, 64, 103


def ours(hidden: int, ids: np.ndarray, mode: str) -> Callable[[], float]:
    model = nn.LanguageModel(SYMBOLS, hidden, embedding_dim=64, rng=0)
    model.rnn.mode = mode
    optimizer = optim.Adam(model.parameters(), 1e-3)

    def step() -> float:
        logits, _ = model(ids[:-1])
        loss = nn.functional.cross_entropy(logits, ids[1:], axis=-1)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.item())

    return step


def in_torch(hidden: int, ids: np.ndarray, threads: int) -> Callable[[], float]:
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.rnn, self.head = torch.nn.Embedding(SYMBOLS, 64), torch.nn.LSTM(64, hidden), torch.nn.Linear(hidden, SYMBOLS)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(self.embedding(x))[0])  # type: ignore[no-any-return]

    model, data = Model(), torch.tensor(ids)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def step() -> float:
        torch.set_num_threads(threads)
        loss = torch.nn.functional.cross_entropy(model(data[:-1]).reshape(-1, SYMBOLS), data[1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.item())

    return step


def main() -> None:
    ids = np.random.default_rng(0).integers(0, SYMBOLS, (WINDOW + 1, BATCH))
    for hidden in (128, 256):
        runs = {"replayed": ours(hidden, ids, "replay"), "eager": ours(hidden, ids, "eager")}
        with contextlib.suppress(ImportError):
            runs |= {f"PyTorch, {n} thread{'s' * (n > 1)}": in_torch(hidden, ids, n) for n in (1, 2)}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        for _ in range(12):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
        middle = {name: statistics.median(taken) for name, taken in times.items()}
        best = min((t for name, t in middle.items() if name.startswith("PyTorch")), default=middle["replayed"])
        print(f"character LSTM, hidden {hidden}, batch {BATCH}, window {WINDOW}: symbols a second, time as a ratio to the better of PyTorch's")
        for name, taken in middle.items():
            print(f"  {name:20s} {BATCH * WINDOW / taken:10,.0f}   {taken / best:5.2f}")


if __name__ == "__main__":
    main()
