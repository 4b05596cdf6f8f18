"""Pictures of one LSTM by this package and by those of its peers that are installed, in one run: ``python benchmarks/drawing.py``.

B = 4, H = 8; from a loss to DOT text or SVG, the median of interleaved rounds. The peers make DOT text alone, with every step's operations in it
(torchview from a forward pass of its own); laying it out is left to Graphviz's ``dot``, which is timed where it takes less than a minute.
"""

from __future__ import annotations

import importlib
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn

BATCH, HIDDEN, ROUNDS, PATIENCE = 4, 8, 5, 60


def optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def our_loss(steps: int) -> tg.Tensor:
    x = np.random.default_rng(0).standard_normal((steps, BATCH, HIDDEN)).astype(np.float32)
    _, (h, _) = nn.LSTM(HIDDEN, HIDDEN, rng=0)(x)
    return (h * h).mean()


def ours(steps: int) -> dict[str, Callable[[], str]]:
    loss = our_loss(steps)
    drawn = tg.graph(loss, fold=None)
    return {
        "DOT, every step": lambda: tg.graph(loss, fold=None).dot,
        "DOT, folded": lambda: tg.graph(loss).dot,
        "layout and SVG, every step": lambda: tg.graph(loss, fold=None).svg(),
        "layout and SVG, folded": lambda: tg.graph(loss).svg(),
        "the same with a sweep for gradients": lambda: tg.graph(loss, gradients=True).svg(),
        "SVG of a model, every step": drawn.svg,
    }


def their_cell(torch: Any) -> tuple[Any, Any]:
    """A loop over an LSTM cell of single operations, as the pictures of ours show it."""

    class Loop(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.W, self.U, self.b = (torch.nn.Parameter(torch.randn(shape) * 0.1) for shape in ((HIDDEN, 4 * HIDDEN), (HIDDEN, 4 * HIDDEN), (4 * HIDDEN,)))

        def forward(self, x: Any) -> Any:
            h = c = torch.zeros(BATCH, HIDDEN)
            for x_t in x:
                i, f, g, o = (x_t @ self.W + h @ self.U + self.b).split(HIDDEN, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            return (h * h).mean()

    return Loop(), torch


def peers(steps: int) -> dict[str, Callable[[], str]]:
    torch = optional("torch")
    if torch is None:
        return {}
    network, _ = their_cell(torch)
    x = torch.randn(steps, BATCH, HIDDEN)
    loss, found = network(x), {}
    torchviz, torchview = optional("torchviz"), optional("torchview")
    if torchviz is not None:
        found["torchviz"] = lambda: str(torchviz.make_dot(loss, params=dict(network.named_parameters())).source)
    if torchview is not None:
        found["torchview"] = lambda: str(torchview.draw_graph(network, input_data=x, depth=3).visual_graph.source)
    return found


def measured(what: dict[str, Callable[[], str]]) -> dict[str, tuple[float, str]]:
    taken: dict[str, list[float]] = {name: [] for name in what}
    texts: dict[str, str] = {}
    for _ in range(ROUNDS):
        for name, run in what.items():
            start = time.perf_counter()
            texts[name] = run()
            taken[name].append(time.perf_counter() - start)
    return {name: (statistics.median(times), texts[name]) for name, times in taken.items()}


def laid_out(text: str) -> str:
    """How long Graphviz takes to lay a peer's text out."""
    if shutil.which("dot") is None:
        return "no Graphviz"
    start = time.perf_counter()
    try:
        subprocess.run(["dot", "-Tsvg"], input=text.encode(), capture_output=True, timeout=PATIENCE, check=True)
    except subprocess.TimeoutExpired:
        return f"killed after {PATIENCE} s"
    except subprocess.CalledProcessError:
        return "dot failed"
    return f"{time.perf_counter() - start:6.2f} s more to lay out"


def pictures() -> None:
    for steps in (3, 50, 200, 1000):
        print(f"\nLSTM, {steps} steps, batch {BATCH}, hidden {HIDDEN}")
        for name, (seconds, text) in measured(ours(steps)).items():
            print(f"  {name:38s} {seconds * 1e3:8.1f} ms  {len(text) / 1e3:8.1f} kB")
        if steps <= 200:
            for name, (seconds, text) in measured(peers(steps)).items():
                print(f"  {name:38s} {seconds * 1e3:8.1f} ms  {len(text) / 1e3:8.1f} kB  {laid_out(text)}")


def long_tape() -> None:
    W, h = tg.tensor(np.eye(4) * 0.5, requires_grad=True, name="W"), tg.tensor(np.ones((1, 4)))
    for t in range(25_000):
        with tg.scope("step", step=t):
            h = tg.tanh(h @ W + 0.1) * 0.99
    loss = h.sum()
    start = time.perf_counter()
    text = tg.graph(loss).svg()
    print(f"\n{len(tg.tape(loss)):,} records: folded and drawn in {time.perf_counter() - start:.2f} s, {len(text) / 1e3:.1f} kB")


if __name__ == "__main__":
    pictures()
    long_tape()
