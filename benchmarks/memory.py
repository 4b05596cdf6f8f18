"""What forward and backward over a long sequence take, in processes of their own: ``python benchmarks/unroll.py memory``.

Figures are megabytes of resident memory at the peak, above those before: with inputs, weights and the outputs' cotangent there.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_rnn as tg
from timing import Table
from tinygrad_rnn import nn

T, B, I, H = 1000, 32, 128, 256  # noqa: E741
SEGMENT = 32
"""Steps: about the root of T, where the states at the segments' ends and the values in one of them take as much."""

KINDS = ("RNN", "GRU", "LSTM")


def replayed(kind: str, x: np.ndarray, w: np.ndarray) -> Callable[[], Any]:
    network, inputs = getattr(nn, kind)(I, H, rng=0), tg.tensor(x, requires_grad=True)
    return lambda: network(inputs)[0].backward(w)


def checkpointed(kind: str, x: np.ndarray, w: np.ndarray) -> Callable[[], Any]:
    """Each segment runs again when the backward pass comes to it."""
    network = getattr(nn, kind)(I, H, rng=0)
    inputs = [tg.tensor(x[t : t + SEGMENT], requires_grad=True) for t in range(0, len(x), SEGMENT)]

    def segment(x: Any, *state: Any) -> Any:
        output, last = network(x, None if not state else state[0] if len(state) == 1 else state)
        return output, *(last if isinstance(last, tuple) else (last,))

    def run() -> None:
        outputs, state = [], ()
        for part in inputs:
            output, *state = tg.checkpoint(segment, part, *state)
            outputs.append(output)
        tg.concatenate(outputs).backward(w)

    return run


def in_torch(kind: str, x: np.ndarray, w: np.ndarray) -> Callable[[], Any]:
    import torch

    network = getattr(torch.nn, kind)(I, H)
    inputs, weight = torch.tensor(x, requires_grad=True), torch.tensor(w)
    return lambda: network(inputs)[0].backward(weight)


WAYS = {"replayed": replayed, "checkpointed": checkpointed, "torch": in_torch}


def measure(way: str, kind: str) -> None:
    """Print the memory at the peak above that before, in bytes, and the time in seconds; a short sequence before that loads what is loaded once."""
    x, w = np.ones((T, B, I), np.float32), np.ones((T, B, H), np.float32)
    WAYS[way](kind, x[: 2 * SEGMENT].copy(), w[: 2 * SEGMENT].copy())()
    run = WAYS[way](kind, x, w)
    before = _now()
    start = time.perf_counter()
    run()
    print(_peak() - before, time.perf_counter() - start)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def _now() -> int:
    """Resident memory; the peak is counted from here on where the system can forget the one before."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return _peak()


def _peak() -> int:
    try:
        return _status("VmHWM")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measured(way: str, kind: str) -> tuple[float, float]:
    """Megabytes and seconds, of a process of its own; NaN where the peer is not installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(tg.__file__).parents[1]), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run([sys.executable, __file__, way, kind], capture_output=True, text=True, env=environment)
    if done.returncode and "No module named 'torch'" not in done.stderr:
        raise RuntimeError(done.stderr)
    found = done.stdout.split()
    return (int(found[0]) / 1e6, float(found[1])) if found else (math.nan, math.nan)


def main() -> None:
    results = 4 * T * B * (H + I) / 1e6
    table = Table(
        f"Memory at T, B, I, H = {T}, {B}, {I}, {H}, forward and backward, float32, in megabytes above that before; {results:.0f} of them are the outputs and the input's gradient",
        ["layer", *(f"{way}\n{unit}" for way in WAYS for unit in ("MB", "s")), "", "replayed\n/ torch", "checkpointed\n/ torch"],
    )
    for kind in KINDS:
        found = [measured(way, kind) for way in WAYS]
        table.row(kind, *(figure for pair in found for figure in pair), "", found[0][0] / found[2][0], found[1][0] / found[2][0])


if __name__ == "__main__":
    measure(*sys.argv[1:])
