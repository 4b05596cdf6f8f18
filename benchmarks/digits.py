"""Time per epoch of a small convolutional network beside PyTorch, in one run: ``python benchmarks/digits.py``.

An epoch is 4,000 images of 28x28 in batches of 25: forward, loss, backward pass and Adam, on one thread. Rounds are interleaved, figures are medians of processor time.
"""

from __future__ import annotations

import os

# Before NumPy is imported: afterwards its threads cannot be capped.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import statistics
import time
from collections.abc import Callable

import numpy as np

from tinygrad_rnn import nn, optim

COUNT, BATCH, ROUNDS = 4000, 25, 5


def ours(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2, rng=0), nn.ReLU(), nn.Conv2d(16, 32, 5, padding=2, rng=0), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(1568, 10, rng=0)
    )
    optimizer = optim.Adam(model.parameters(), 4e-3)

    def epoch() -> None:
        for k in range(0, COUNT, BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[k : k + BATCH]), labels[k : k + BATCH]).backward()
            optimizer.step()

    return epoch


def in_torch(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    import torch
    from torch import nn as peer

    torch.set_num_threads(1)
    model = peer.Sequential(peer.Conv2d(1, 16, 5, 2, 2), peer.ReLU(), peer.Conv2d(16, 32, 5, 1, 2), peer.ReLU(), peer.AvgPool2d(2), peer.Flatten(), peer.Linear(1568, 10))
    optimizer = torch.optim.Adam(model.parameters(), 4e-3, fused=True)
    x, y = torch.tensor(images), torch.tensor(labels)

    def epoch() -> None:
        for k in range(0, COUNT, BATCH):
            optimizer.zero_grad()
            peer.functional.cross_entropy(model(x[k : k + BATCH]), y[k : k + BATCH]).backward()
            optimizer.step()

    return epoch


def main() -> None:
    rng = np.random.default_rng(0)
    data = rng.random((COUNT, 1, 28, 28), dtype=np.float32), rng.integers(10, size=COUNT)
    epochs = {"tinygrad_rnn": ours(*data), "PyTorch": in_torch(*data)}
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for round_ in range(ROUNDS + 1):
        for name, epoch in epochs.items():
            start = time.process_time()
            epoch()
            # The first round warms up.
            if round_:
                seconds[name].append(time.process_time() - start)
    for name, values in seconds.items():
        print(f"{name:14}{statistics.median(values):6.2f} s an epoch")
    print(f"ratio of medians {statistics.median(seconds['tinygrad_rnn']) / statistics.median(seconds['PyTorch']):.2f}")


if __name__ == "__main__":
    main()
