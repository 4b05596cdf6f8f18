"""How the gradient flows back through time: its norm at every step of every state."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..core.tape import _table
from ..core.tensor import Tensor
from ..drawing.naming import number
from ..replay.expanding import Flow
from .paths import state_paths

VANISHING, EXPLODING = 1e-3, 1e3
"""The shares of the gradient at the last step beyond which pictures show it as vanishing or exploding, too."""

_REMEDIES: tuple[tuple[str, str, Any, str], ...] = (
    (
        "vanishing",
        "vanishes",
        min,
        "early inputs teach nothing: use a GRU or an LSTM with forget_bias=1 or more (about the logarithm of the steps to remember), recurrent_init='orthogonal', or shorter sequences",
    ),
    ("exploding", "explodes", max, "clip it (fit(clip=1.0), optim.clip_grad_norm_), lower the learning rate, or scale the recurrent weights to a spectral radius of 1"),
)


class GradientFlow:
    """The norm of dL/dh_t for every step t and every state of every layer and direction.

    ``norms`` is a float64 array (len(names), steps), the norm over batch and units; NaN where a state has no such step, 0 where no gradient arrives.
    ``names`` has the layer and the state, as in ``"l0 h"``, ``steps`` the numbers of each one's steps in the order in which they ran; ``flow["l0 h"]`` is one row. ``rates`` is by what factor the norm changes at each step back (the geometric mean),
    ``verdicts`` what that comes to. ``print`` shows ``table()`` and what to do; ``plot()`` draws the norms on a logarithmic axis.
    """

    def __init__(self, names: list[str], norms: np.ndarray, steps: list[list[int]]) -> None:
        self.names, self.norms, self.steps = names, norms, steps

    def __getitem__(self, name: str) -> np.ndarray:
        """The norms of one state at its steps, in order of time. Raises ``KeyError``."""
        if name not in self.names:
            raise KeyError(f"gradient_flow: no state {name!r}; there are {', '.join(self.names)}")
        k = self.names.index(name)
        return self.norms[k, sorted(self.steps[k])]

    def _run(self, k: int) -> np.ndarray:
        """The norms of a state in the order in which its steps ran, up to where a gradient first arrives."""
        row = self.norms[k, self.steps[k]]
        last = np.flatnonzero(row != 0)
        return row[: last[-1] + 1] if len(last) else row[:0]

    @property
    def rates(self) -> np.ndarray:
        """By what factor the norm changes from each step to the one before: 1 is a gradient that is kept, 0.5 one that halves."""
        return np.array([_rate(self._run(k)) for k in range(len(self.names))])

    @property
    def ratios(self) -> np.ndarray:
        """The norm at the first step of each state, in the order in which they ran, as a share of that at its last."""
        runs = [self._run(k) for k in range(len(self.names))]
        return np.array([run[0] / run[-1] if len(run) > 1 else math.nan for run in runs])

    @property
    def verdicts(self) -> list[str]:
        """``vanishing`` below a thousandth, ``exploding`` above a thousand times or where a norm is infinite, ``steady`` between, ``none`` without a gradient."""
        return [_verdict(self._run(k), ratio) for k, ratio in enumerate(self.ratios)]

    @property
    def advice(self) -> dict[str, str]:
        """What to do, in plain words: a sentence for ``vanishing`` and one for ``exploding``, where a state's gradient is; each tells the figures of the worst."""
        found = {}
        for verdict, verb, worst, remedy in _REMEDIES:
            states = [k for k, given in enumerate(self.verdicts) if given == verdict]
            if states:
                k = worst(states, key=lambda k: np.nan_to_num(self.ratios[k], nan=math.inf))
                run = self._run(k)
                others = f" (and of {', '.join(self.names[j] for j in states if j != k)})" if len(states) > 1 else ""
                found[verdict] = f"the gradient of {self.names[k]}{others} {verb}: {number(run[0])} at the first of {len(run)} steps, {number(run[-1])} at the last; {remedy}"
        return found

    def table(self) -> str:
        """One line a state: the norm at five steps, counted from 1, the factor a step back, and the verdict."""
        steps = self.norms.shape[1]
        shown = sorted({round(f * (steps - 1)) for f in (0, 0.25, 0.5, 0.75, 1)})
        rows = [
            [name, *(number(self.norms[k, t]) if t in self.steps[k] else "" for t in shown), "" if math.isnan(rate) else f"{rate:.3f}", verdict]
            for k, (name, rate, verdict) in enumerate(zip(self.names, self.rates, self.verdicts, strict=True))
        ]
        return _table(["|dL/dh_t|", *(f"t={t + 1}" for t in shown), "a step back", "verdict"], rows, "<" + ">" * (len(shown) + 1) + "<")

    def __str__(self) -> str:
        return "\n".join([self.table(), *self.advice.values()])

    __repr__ = __str__

    def plot(self, axes: Any = None, *, label: str = "") -> Any:
        """The norms over time on a logarithmic axis, a line a state; give ``axes`` and a ``label`` to compare networks. Returns the matplotlib axes."""
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(figsize=(7, 3.5))
        for k, name in enumerate(self.names):
            steps = np.sort(self.steps[k])
            values = np.where(self.norms[k, steps] > 0, self.norms[k, steps], np.nan)
            axes.plot(steps + 1, values, marker="." if len(steps) < 40 else "", linestyle="--" if self.steps[k][0] > self.steps[k][-1] else "-", label=f"{label} {name}".strip())
        axes.set_yscale("log")
        axes.set_xlabel("step t")
        axes.set_ylabel("norm of dL/dh_t")
        axes.legend()
        return axes


def _rate(run: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return float((run[0] / run[-1]) ** (1 / (len(run) - 1))) if len(run) > 1 else math.nan


def _verdict(run: np.ndarray, ratio: float) -> str:
    if not len(run):
        return "none"
    if not np.isfinite(run).all() or ratio > EXPLODING:
        return "exploding"
    return "vanishing" if ratio < VANISHING else "steady"


def gradient_flow(loss: Tensor | Iterable[Tensor], states: Any = None) -> GradientFlow:
    """The norm of dL/dh_t at every step t, for the states of every layer and direction.

    Nothing needs to be marked: the states are what one step of the tape hands to the next, in a replayed unroll, a loop with ``tg.scope(name, step=t)``, or a plain loop.
    With ``lengths``, h_t is what the step computed, before padding is masked. ``states`` says otherwise what to follow: a module (its layers alone), an output whose
    first axis is time, a list of tensors with one a step, or a dict of such by name. The total derivative is meant: what a later loss and the loss at t itself send back. To
    see how far a memory reaches, give the loss of the last step.

    It runs a sweep of its own over the opened tape, which holds every value of every step; no ``.grad`` is touched. Call it before ``backward()``, or after
    ``backward(retain_graph=True)``.

    Raises ``TapeError`` for a loss without a graph, a tape whose values were released, and where no time steps can be found.

    >>> import numpy as np, tinygrad_rnn as tg
    >>> W = tg.tensor(np.diag([0.5, 0.25]), requires_grad=True)
    >>> _, h = tg.unroll(lambda x, h: (None, h @ W), 4, tg.ones(1, 2, dtype=np.float64))
    >>> flow = tg.diagnostics.gradient_flow(h[:, 0].sum())
    >>> flow.norms
    array([[0.125, 0.25 , 0.5  , 1.   ]])
    >>> print(flow.table())
    |dL/dh_t|   t=1   t=2  t=3  t=4  a step back  verdict
    step h     0.12  0.25  0.5    1        0.500  steady
    """
    flow = Flow(loss)
    paths = state_paths("gradient_flow", flow, states)
    norms = np.full((len(paths), 1 + max(max(path.records) for path in paths)), math.nan)
    for row, path in zip(norms, paths, strict=True):
        for t, record in path.records.items():
            row[t] = 0.0 if record is None else flow.norms.get(record, 0.0)
    return GradientFlow([path.name for path in paths], norms, [path.steps for path in paths])
