"""``python -m tinygrad_rnn``: train a small recurrent language model on the standard library's reference texts."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence

import numpy as np

import tinygrad_rnn as tg


def demo(seconds: float, seed: int) -> None:
    """Train a tanh RNN on characters for a while; print its loss and the tape of three steps."""
    from pydoc_data.topics import topics

    text = "\n\n".join(topics.values())
    symbols = sorted(set(text))
    codes = np.searchsorted(np.array(symbols), np.array(list(text)))
    rng = np.random.default_rng(seed)
    hidden, batch, window = 96, 32, 24
    weights = {
        "W": tg.randn(len(symbols), hidden, rng=rng) * 0.1,
        "U": tg.randn(hidden, hidden, rng=rng) / math.sqrt(hidden),
        "b": tg.zeros(hidden),
        "V": tg.randn(hidden, len(symbols), rng=rng) / math.sqrt(hidden),
    }
    for name, weight in weights.items():
        weight.name = name
        weight.requires_grad_()
    moments = {name: (np.zeros(w.shape, np.float32), np.zeros(w.shape, np.float32)) for name, w in weights.items()}

    def loss_of(windows: np.ndarray) -> tg.Tensor:
        h: tg.Tensor = tg.zeros((len(windows), hidden))
        total: tg.Tensor = tg.zeros(())
        rows = np.arange(len(windows))
        for t in range(windows.shape[1] - 1):
            with tg.scope("step", step=t):
                h = tg.tanh(tg.embedding(windows[:, t], weights["W"]) + h @ weights["U"] + weights["b"])
                total = total - tg.log_softmax(h @ weights["V"])[rows, windows[:, t + 1]].mean()
        mean: tg.Tensor = total / (windows.shape[1] - 1)
        return mean

    print(f"{len(text):,} characters of Python's reference texts, {len(symbols)} symbols; a tanh RNN of {hidden} units, {seconds:g} seconds")
    start, step = time.monotonic(), 0
    shown = 0.0
    while (elapsed := time.monotonic() - start) < seconds:
        places = rng.integers(0, len(codes) - window - 1, batch)
        loss = loss_of(codes[places[:, None] + np.arange(window + 1)])
        loss.backward()
        step += 1
        with tg.no_grad():
            for name, weight in weights.items():
                gradient, (mean, square) = weight.grad.numpy(), moments[name]  # type: ignore[union-attr]
                mean += 0.1 * (gradient - mean)
                square += 0.001 * (gradient * gradient - square)
                weight -= 0.003 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
                weight.zero_grad()
        if elapsed >= shown:
            print(f"step {step:5d}  {loss.item() / math.log(2):.3f} bits a character")
            shown += seconds / 8
    print(f"step {step:5d}  {loss.item() / math.log(2):.3f} bits a character\n\nThree steps of it, on the tape:\n")
    print(tg.tape(loss_of(codes[None, :4])))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tinygrad_rnn", description="Train a small recurrent language model and show its tape.")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to train (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the windows (default: 0)")
    options = parser.parse_args(arguments)
    if not options.seconds > 0:
        parser.error("--seconds must be positive")
    demo(options.seconds, options.seed)


if __name__ == "__main__":
    main()
