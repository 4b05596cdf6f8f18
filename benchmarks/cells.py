"""Cells that no framework has fused, in this package, in PyTorch and in JAX: ``python benchmarks/unroll.py cells``.

A cell is written once, over a few functions that each library supplies in its own best way: all three run the same text.
PyTorch runs it in a Python loop, JAX under ``jit`` and ``lax.scan``. Before anything is timed their values and gradients are
compared with ours in float64.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from timing import Contender, Table, best, compared, compiled, eager, heads, jax, measured, ours, text, theirs, torch

SIZES = [(50, 1, 64, 64), (50, 16, 64, 128), (100, 32, 128, 128), (100, 32, 128, 256), (100, 64, 256, 512)]

_F32 = np.dtype(np.float32)


def peephole_lstm(F: Any, w: Any, x: Any, state: Any) -> Any:
    """An LSTM whose gates see the cell (Gers and Schmidhuber 2000)."""
    h, c = state
    i, f, g, o = F.chunk(F.linear(x, w.W, w.b) + F.linear(h, w.U), 4)
    i, f = F.sigmoid(i + w.p[0] * c), F.sigmoid(f + w.p[1] * c)
    c = f * c + i * F.tanh(g)
    h = F.sigmoid(o + w.p[2] * c) * F.tanh(c)
    return h, (h, c)


def norm_gru(F: Any, w: Any, x: Any, h: Any) -> Any:
    """A gated recurrent unit with both products normalised (Ba, Kiros and Hinton 2016)."""
    p, q = F.chunk(F.norm(F.linear(x, w.W), w.s, w.b), 3), F.chunk(F.norm(F.linear(h, w.U), w.t, w.c), 3)
    r, z = F.sigmoid(p[0] + q[0]), F.sigmoid(p[1] + q[1])
    n = F.tanh(p[2] + r * q[2])
    h = n + z * (h - n)
    return h, h


def minimal_gated_unit(F: Any, w: Any, x: Any, h: Any) -> Any:
    """One gate for all (Zhou, Wu, Zhang and Zhou 2016)."""
    a, b = F.chunk(F.linear(x, w.W, w.b), 2)
    f = F.sigmoid(a + F.linear(h, w.U))
    n = F.tanh(b + F.linear(f * h, w.V))
    h = h + f * (n - h)
    return h, h


def residual_rnn(F: Any, w: Any, x: Any, h: Any) -> Any:
    """What is computed of input and state, joined, is added to the state."""
    h = h + F.tanh(F.linear(F.joined(x, h), w.W, w.b))
    return h, h


CELLS: dict[str, tuple[Callable[..., Any], dict[str, str], int]] = {
    "peephole LSTM": (peephole_lstm, {"W": "4H,I", "U": "4H,H", "b": "4H", "p": "3,H"}, 2),
    "layer-norm GRU": (norm_gru, {"W": "3H,I", "U": "3H,H", "s": "3H", "b": "3H", "t": "3H", "c": "3H"}, 1),
    "minimal gated unit": (minimal_gated_unit, {"W": "2H,I", "b": "2H", "U": "H,H", "V": "H,H"}, 1),
    "residual RNN": (residual_rnn, {"W": "H,I+H", "b": "H"}, 1),
}
"""The step, the shapes of its weights, and how many arrays its state is made of."""


def weights(name: str, I: int, H: int, dtype: np.dtype[Any]) -> dict[str, np.ndarray]:  # noqa: E741
    rng = np.random.default_rng(0)
    found = {}
    for key, sizes in CELLS[name][1].items():
        shape = [{"I": I, "H": H, "3": 3, "I+H": I + H}.get(size) or int(size[0]) * H for size in sizes.split(",")]
        found[key] = rng.uniform(-1, 1, shape).astype(dtype) / dtype.type(np.sqrt(H))
    return found


class Cell(nn.Module):
    """One of the cells as a module of this package."""

    def __init__(self, name: str, I: int, H: int, dtype: np.dtype[Any]) -> None:  # noqa: E741
        self.step, _, self.states = CELLS[name]
        self.hidden_size, self.kind = H, dtype
        for key, value in weights(name, I, H, dtype).items():
            setattr(self, key, nn.Parameter(value))

    def initial_state(self, batch: tuple[int, ...]) -> Any:
        zero = tg.zeros((*batch, self.hidden_size), dtype=self.kind)
        return zero if self.states == 1 else (zero,) * self.states

    def forward(self, x: Any, state: Any) -> Any:
        return self.step(_OURS, self, x, state)


def _norm(a: Any, scale: Any, shift: Any) -> Any:
    centred = a - a.mean(axis=-1, keepdims=True)
    return centred / tg.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5) * scale + shift


_OURS = SimpleNamespace(
    linear=lambda x, W, b=None: x @ W.T if b is None else x @ W.T + b,
    chunk=lambda a, n: tg.split(a, n, axis=-1),
    joined=lambda a, b: tg.concatenate([a, b], axis=-1),
    norm=_norm,
    sigmoid=tg.sigmoid,
    tanh=tg.tanh,
)


@functools.cache
def _torch() -> SimpleNamespace:
    T = torch()
    f = T.nn.functional
    return SimpleNamespace(
        linear=f.linear,
        chunk=lambda a, n: a.chunk(n, -1),
        joined=lambda a, b: T.cat([a, b], -1),
        norm=lambda a, scale, shift: f.layer_norm(a, a.shape[-1:], scale, shift, 1e-5),
        sigmoid=T.sigmoid,
        tanh=T.tanh,
    )


@functools.cache
def _jax() -> SimpleNamespace:
    jnp, n = jax().numpy, jax().nn

    def norm(a: Any, scale: Any, shift: Any) -> Any:
        return n.standardize(a, axis=-1, epsilon=1e-5) * scale + shift

    return SimpleNamespace(
        linear=lambda x, W, b=None: x @ W.T if b is None else x @ W.T + b,
        chunk=lambda a, n: jnp.split(a, n, axis=-1),
        joined=lambda a, b: jnp.concatenate([a, b], axis=-1),
        norm=norm,
        sigmoid=n.sigmoid,
        tanh=jnp.tanh,
    )


Run = Callable[..., dict[str, Any]]
"""Runs forward and backward; with a true argument it gives the outputs and gradients."""


def layer(network: Any, x: np.ndarray, w: np.ndarray, mode: str = "replay") -> Run:
    """A recurrent network of this package."""
    inputs = tg.tensor(x, requires_grad=True)
    replayed(network, inputs)

    def run(read: bool = False) -> dict[str, Any]:
        network.mode = mode
        output = network(inputs)[0]
        output.backward(w)
        leaves = {"x": inputs, **dict(network.named_parameters())}
        found = {"output": output.numpy()} | {name: t.grad.numpy() for name, t in leaves.items() if t.grad is not None} if read else {}
        network.zero_grad()
        inputs.zero_grad()
        return found

    return run


def replayed(network: Any, inputs: Any) -> None:
    """Assert that a layer is replayed: eager mode would give the same values, slowly."""
    cell, batch = network._cells[0], inputs.shape[1]
    plan = tg.unroll.explain(network._step(cell), inputs, cell.initial_state((batch,)))  # type: ignore[attr-defined]
    assert plan.mode == "replay", plan.reason


def torch_loop(name: str, x: np.ndarray, w: np.ndarray) -> Run:
    T, F, (step, _, states) = torch(), _torch(), CELLS[name]
    W = SimpleNamespace(**{key: T.tensor(value, requires_grad=True) for key, value in weights(name, x.shape[2], w.shape[2], x.dtype).items()})
    inputs, weight, zero = T.tensor(x, requires_grad=True), T.tensor(w), T.zeros(w.shape[1:], dtype=T.tensor(w).dtype)

    def run(read: bool = False) -> dict[str, Any]:
        state = zero if states == 1 else (zero,) * states
        outputs = []
        for x_t in inputs.unbind(0):
            y, state = step(F, W, x_t, state)
            outputs.append(y)
        output = T.stack(outputs)
        output.backward(weight)
        leaves = {"x": inputs, **vars(W)}
        found = {"output": output.detach().numpy()} | {key: t.grad.numpy() for key, t in leaves.items()} if read else {}
        for t in leaves.values():
            t.grad = None
        return found

    return run


def jax_scan(forward: Callable[[Any, Any], Any], parameters: dict[str, np.ndarray], x: np.ndarray, w: np.ndarray) -> tuple[Run, float]:
    """``forward(parameters, x)`` and its gradients under ``jit``, and how long it takes to compile, in seconds."""
    J = jax()

    def whole(parameters: Any, x: Any, w: Any) -> Any:
        output, pull = J.vjp(forward, parameters, x)
        gradients, dx = pull(w)
        return {"output": output, "x": dx, **gradients}

    given = J.device_put((parameters, x, w))
    start = time.perf_counter()
    run = J.jit(whole).lower(*given).compile()
    return lambda read=True: J.block_until_ready(run(*given)), time.perf_counter() - start


def jax_cell(name: str, x: np.ndarray, w: np.ndarray) -> tuple[Run, float]:
    J, F, (step, _, states) = jax(), _jax(), CELLS[name]
    zero = np.zeros(w.shape[1:], x.dtype)

    def forward(parameters: Any, x: Any) -> Any:
        W = SimpleNamespace(**parameters)
        return J.lax.scan(lambda state, x_t: step(F, W, x_t, state)[::-1], zero if states == 1 else (zero,) * states, x)[1]

    return jax_scan(forward, weights(name, x.shape[2], w.shape[2], x.dtype), x, w)


def data(size: tuple[int, int, int, int], dtype: np.dtype[Any] = _F32) -> tuple[np.ndarray, np.ndarray]:
    """An input, and a cotangent for the outputs, of a size (T, B, I, H)."""
    T, B, I, H = size  # noqa: E741
    rng = np.random.default_rng(0)
    return rng.standard_normal((T, B, I)).astype(dtype), rng.standard_normal((T, B, H)).astype(dtype)


def agreed(found: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    """Assert that outputs and gradients are equal but for rounding; parameters of ours are named after the layer too."""
    for key, value in expected.items():
        mine = next(array for name, array in found.items() if name.removesuffix("_l0").split(".")[-1] == key)
        value = np.asarray(value)
        error = float(np.abs(mine - value).max() / np.abs(value).max())
        assert error < 1e-12, f"{what}: {key} differs from its peer's by {error:.0e} of its largest entry"


def check(name: str) -> None:
    """Compare a cell's values and gradients with PyTorch's and JAX's in float64."""
    size = (12, 5, 8, 16)
    x, w = data(size, np.dtype(np.float64))
    found = layer(nn.Recurrent(Cell(name, 8, 16, x.dtype)), x, w)(True)
    if torch() is not None:
        agreed(found, torch_loop(name, x, w)(True), f"{name} in PyTorch")
    if jax() is not None:
        agreed(found, jax_cell(name, x, w)[0](), f"{name} in JAX")


def main() -> None:
    table = None
    for name in CELLS:
        check(name)
    for size in SIZES:
        x, w = data(size)
        for name in CELLS:
            network, seconds = nn.Recurrent(Cell(name, size[2], size[3], x.dtype)), float("nan")
            runs = ours(layer(network, x, w)) | compiled(layer(network, x, w)) | eager(layer(network, x, w, "eager"))
            if torch() is not None:
                runs |= theirs(torch_loop(name, x, w))
            if jax() is not None:
                call, seconds = jax_cell(name, x, w)
                runs["jax"] = Contender(call, spins=True)
            found = measured(runs)
            ratios = compared(found, ["torch", "jax"]) | {"eager\n/ torch": found["eager"] / best(found, "torch"), "jax com-\npiles in s": seconds}
            table = table or Table(
                "Cells that no framework has fused, forward and backward, float32, in milliseconds. torch: a Python loop over the same cell; jax: jit and lax.scan",
                ["T, B, I, H", "cell", *heads(runs), "", *ratios],
                labels=2,
            )
            table.row(text(size), name, *found.values(), "", *ratios.values())
