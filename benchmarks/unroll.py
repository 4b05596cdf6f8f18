"""Recurrent layers and cells beside PyTorch's and JAX's: ``python benchmarks/unroll.py [layers|cells|growth|techniques|memory]``.

``layers`` are RNN, GRU and LSTM, ``cells`` some that no framework has fused, ``growth`` how time grows with steps, batch and
hidden size, ``techniques`` what each of those of a replayed unroll buys, ``memory`` what a long sequence takes; all by default.

Sizes are (time steps T, batch B, input I, hidden H), in float32. Rounds are interleaved, figures are medians in milliseconds
of a forward and a backward pass, ratios are those of the better times on one and on two threads (``1t``, ``2t``). The matrix
products alone, at the same sizes, are the limit. Peers that are not installed are left out.

OpenBLAS chooses its kernels when NumPy is imported, and on some machines with AVX-512 it takes those for AVX2. There the
environment variable ``OPENBLAS_CORETYPE=SkylakeX``, set before Python starts, makes products faster. The first line printed says
which kernels are in use, if threadpoolctl is installed; without it NumPy's number of threads is the environment's
(``OPENBLAS_NUM_THREADS``) and has one column.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import cells
import memory
import techniques
from cells import Run, agreed, data, jax_scan, layer
from timing import Contender, Table, best, compared, compiled, heads, jax, machine, measured, ours, text, theirs, torch
from tinygrad_rnn import nn

SIZES = [*cells.SIZES, (1000, 32, 64, 64)]
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

BASE = (100, 32, 128, 128)
GROWTH = {"T": (25, 50, 100, 200, 400, 800), "B": (1, 4, 16, 32, 64, 128), "H": (32, 64, 128, 256, 512)}


def products(gates: int, T: int, B: int, I: int, H: int) -> Callable[[], Any]:  # noqa: E741
    """The matrix products of a layer's forward and backward pass, and nothing else."""
    X, W, U, V = (np.ones(s, np.float32) for s in ((T * B, I), (gates * H, I), (gates * H, H), (H, gates * H)))
    D, S, h, d = (np.ones(s, np.float32) for s in ((T * B, gates * H), (T * B, H), (B, H), (B, gates * H)))
    a, g = np.empty((B, gates * H), np.float32), np.empty((B, H), np.float32)

    def run() -> None:
        X.dot(W.T)
        for _ in range(T):
            np.dot(h, V, a)
        for _ in range(T):
            np.dot(d, U, g)
        D.T.dot(X)
        D.T.dot(S)
        D.dot(W)

    return run


def torch_layer(network: Any, x: np.ndarray, w: np.ndarray) -> Run:
    """PyTorch's layer of the same name with the same weights."""
    T = torch()
    module = getattr(T.nn, type(network).__name__)(x.shape[2], w.shape[2]).to(T.tensor(x).dtype)
    module.load_state_dict({name: T.tensor(value.numpy()) for name, value in network.state_dict().items()})
    inputs, weight = T.tensor(x, requires_grad=True), T.tensor(w)

    def run(read: bool = False) -> dict[str, Any]:
        output = module(inputs)[0]
        output.backward(weight)
        found = {name.removesuffix("_l0"): p.grad.numpy() for name, p in module.named_parameters()} | {"x": inputs.grad.numpy()} if read else {}
        module.zero_grad()
        inputs.grad = None
        return found

    return run


def jax_layer(network: Any, x: np.ndarray, w: np.ndarray) -> tuple[Run, float]:
    """The same layer under ``lax.scan``, its input's product taken out of the loop by hand, and the seconds that it takes to compile."""
    J = jax()
    n, H = J.nn, w.shape[2]
    zero = np.zeros(w.shape[1:], x.dtype)

    def rnn(W: Any, h: Any, p: Any) -> Any:
        h = J.numpy.tanh(p + h @ W["weight_hh"].T + W["bias_hh"])
        return h, h

    def gru(W: Any, h: Any, p: Any) -> Any:
        q = h @ W["weight_hh"].T + W["bias_hh"]
        r, z = n.sigmoid(p[:, :H] + q[:, :H]), n.sigmoid(p[:, H : 2 * H] + q[:, H : 2 * H])
        h = (1 - z) * J.numpy.tanh(p[:, 2 * H :] + r * q[:, 2 * H :]) + z * h
        return h, h

    def lstm(W: Any, state: Any, p: Any) -> Any:
        h, c = state
        a = p + h @ W["weight_hh"].T + W["bias_hh"]
        c = n.sigmoid(a[:, H : 2 * H]) * c + n.sigmoid(a[:, :H]) * J.numpy.tanh(a[:, 2 * H : 3 * H])
        h = n.sigmoid(a[:, 3 * H :]) * J.numpy.tanh(c)
        return (h, c), h

    step = {"RNN": rnn, "GRU": gru, "LSTM": lstm}[type(network).__name__]

    def forward(W: Any, x: Any) -> Any:
        p = x @ W["weight_ih"].T + W["bias_ih"]
        return J.lax.scan(lambda state, p_t: step(W, state, p_t), (zero, zero) if step is lstm else zero, p)[1]

    return jax_scan(forward, {name.removesuffix("_l0"): value.numpy() for name, value in network.state_dict().items()}, x, w)


def check(kind: str) -> None:
    """Compare a layer's values and gradients with its peers' in float64."""
    x, w = data((12, 5, 8, 16), np.dtype(np.float64))
    network = getattr(nn, kind)(8, 16, dtype=np.float64, rng=0)
    found = layer(network, x, w)(True)
    if torch() is not None:
        agreed(found, torch_layer(network, x, w)(True), f"{kind} in PyTorch")
    if jax() is not None:
        agreed(found, jax_layer(network, x, w)[0](True), f"{kind} in JAX")


def layers() -> None:
    table = None
    for kind in GATES:
        check(kind)
    for size in SIZES:
        x, w = data(size)
        for kind, gates in GATES.items():
            network, seconds = getattr(nn, kind)(size[2], size[3], rng=0), float("nan")
            runs = ours(products(gates, *size), "products") | ours(layer(network, x, w)) | compiled(layer(network, x, w))
            if torch() is not None:
                runs |= theirs(torch_layer(network, x, w))
            if jax() is not None:
                call, seconds = jax_layer(network, x, w)
                runs["jax"] = Contender(call, spins=True)
            found = measured(runs)
            ratios = compared(found, ["torch", "jax", "products"]) | {"jax com-\npiles in s": seconds}
            table = table or Table("Layers, forward and backward, float32, in milliseconds", ["T, B, I, H", "layer", *heads(runs), "", *ratios], labels=2)
            table.row(text(size), kind, *found.values(), "", *ratios.values())


def growth() -> None:
    table = None
    for axis, values in GROWTH.items():
        before: tuple[float, float] | None = None
        for value in values:
            T, B, I, H = size = tuple(value if name == axis else base for name, base in zip("TBIH", BASE, strict=True))  # noqa: E741
            x, w = data((T, B, I, H))
            network = nn.LSTM(I, H, rng=0)
            runs = ours(layer(network, x, w)) | compiled(layer(network, x, w))
            if torch() is not None:
                runs |= theirs(torch_layer(network, x, w))
            found = measured(runs)
            mine, torches = best(found, "NumPy"), best(found, "torch")
            grew = (mine / before[0], torches / before[1]) if before else (float("nan"), float("nan"))
            ratios = compared(found, ["torch"]) | {"NumPy\ngrew": grew[0], "torch\ngrew": grew[1]}
            table = table or Table(
                f"How the time of an LSTM grows, from {text(BASE)} along one axis at a time, in milliseconds; the growth from row to row",
                ["T, B, I, H", "axis", *heads(runs), "", *ratios],
                labels=2,
            )
            table.row(text(size), f"{axis} = {value}", *found.values(), "", *ratios.values())
            before = mine, torches


PARTS = {"layers": layers, "cells": cells.main, "growth": growth, "techniques": techniques.main, "memory": memory.main}


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise SystemExit(f"unroll.py: there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    print(machine())
    for name in names or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
