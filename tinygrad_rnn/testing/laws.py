"""Laws that every recurrent cell keeps, as functions to call on a cell of one's own; each raises :class:`LawBroken`.

A cell is a module or a function called as ``cell(x_t, state)``; it returns the new state, or ``(y_t, state)``. ``inputs`` is
(time, batch, ...); ``state`` is the first state, by default ``cell.initial_state((batch,))`` or zeros (batch, cell.hidden_size). The
weights are those of the module, or every leaf that the cell's tape reaches. Values and gradients are compared, for random
cotangents of all outputs and of the last state, as far as rounding lets two ways to the same numbers agree.

>>> import tinygrad_rnn as tg
>>> from tinygrad_rnn import nn
>>> tg.testing.laws.tied_is_sum_of_untied(nn.GRUCell(2, 3, rng=0), tg.randn(5, 2, 2, rng=1))
>>> tg.testing.laws.check_all(nn.LSTMCell(2, 3, rng=0), tg.randn(5, 2, 2, rng=1))
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.tape import reachable
from ..core.tensor import Tensor, is_tensor, wrap
from ..core.transforms import grad
from ..errors import DtypeError, ShapeError, TapeError, TinygradError
from ..ops.shaping import concatenate, stack
from ..replay import tree, unroll
from .report import GradientMismatch, Report, Verdict

__all__ = ["LawBroken", "batch_permutation", "check_all", "padding", "replay_is_eager", "reversal", "split", "tied_is_sum_of_untied", "truncation"]

Array = np.ndarray
Steps = Callable[[Any, Any], Any]


class LawBroken(GradientMismatch):
    """Two ways to the same numbers differ; the message says which law, what and where."""

    def __init__(self, text: str) -> None:
        super().__init__(Report(text, Verdict.FAIL))
        self.args = (text,)


class _Cell:
    """A cell in float64 with its weights, first state and inputs, ready to be run in different ways."""

    def __init__(self, cell: Any, inputs: Any, state: Any, seed: int) -> None:
        self.cell = copy.deepcopy(cell) if hasattr(cell, "parameters") else cell
        if hasattr(self.cell, "to"):
            self.cell.to(np.float64)
            self.cell.eval()
        if not callable(cell):
            raise DtypeError(f"laws: a cell is called as cell(x_t, state), got {type(cell).__name__}")
        x = np.array(inputs._data if is_tensor(inputs) else inputs)
        # Integers are indices, of an embedding inside the cell: they stay, and have no gradient.
        self.x = x.astype(np.float64) if x.dtype.kind == "f" else x
        if self.x.ndim < 2 or not len(self.x):
            raise ShapeError(f"laws: inputs must be (time, batch, ...), got shape {self.x.shape}")
        if state is None:
            state = self._first_state()
        self.state = tree.mapped(lambda s: np.array(s._data if is_tensor(s) else s, np.float64), state)
        self.rng = np.random.default_rng(seed)
        self.weights = self._weights()

    @property
    def steps(self) -> int:
        return len(self.x)

    def _first_state(self) -> Any:
        if hasattr(self.cell, "initial_state"):
            try:
                return self.cell.initial_state((self.x.shape[1],))
            except TypeError as error:
                raise ShapeError(f"laws: {type(self.cell).__name__}.initial_state((batch,)) gave {error}; of a layer, which takes whole sequences, give the cell") from error
        if hasattr(self.cell, "hidden_size"):
            return np.zeros((self.x.shape[1], self.cell.hidden_size))
        raise ShapeError("laws: give the first state, or the cell a method initial_state((batch,)) or an attribute hidden_size")

    def _weights(self) -> list[Tensor]:
        if hasattr(self.cell, "parameters"):
            return [p for p in self.cell.parameters() if p.requires_grad]
        y, state = self.step(wrap(self.x[0]), tree.mapped(wrap, self.state))
        found = reachable([t._node for t in tree.leaves((y, state)) if t._node is not None])
        return [t for t in (leaf.tensor() for leaf in found if leaf.is_leaf) if t is not None]  # type: ignore[attr-defined]

    def step(self, x: Any, state: Any) -> tuple[Any, Any]:
        returned = self.cell(x, state)
        if tree.structure(returned) == tree.structure(state):
            return next(tree.leaves(returned)), returned
        if not isinstance(returned, tuple) or len(returned) != 2 or tree.structure(returned[1]) != tree.structure(state):
            parts = f" of {len(returned)}" if isinstance(returned, tuple | list) else ""
            raise ShapeError(f"laws: the cell returned a {type(returned).__name__}{parts}, expected the new state, or (y_t, state), with the state as it was given")
        y, after = returned
        return y, after

    def run(self, how: Callable[[Any, Any], tuple[Any, Any]], x: Array | None = None, state: Any = None) -> dict[str, Array]:
        """Outputs, last state and all gradients of one way to run the cell."""
        inputs = self.tracked(self.x if x is None else x)
        first = tree.mapped(lambda s: wrap(np.array(s)).requires_grad_(), self.state if state is None else state)
        wanted = {"the inputs": inputs} if inputs.requires_grad else {}
        outputs, last = how(inputs, first)
        try:
            return self.gradients(outputs, last, wanted | {f"state {k}": s for k, s in enumerate(tree.leaves(first))} | self.named())
        except TapeError as error:
            raise LawBroken(f"the cell keeps a tensor from one call to the next, or changes one in place: {error}") from error

    @staticmethod
    def tracked(x: Array) -> Tensor:
        t = wrap(np.array(x))
        return t.requires_grad_() if x.dtype.kind == "f" else t

    def named(self) -> dict[str, Tensor]:
        return {w.name or f"weight {k}": w for k, w in enumerate(self.weights)}

    def gradients(self, outputs: Any, last: Any, wanted: dict[str, Tensor]) -> dict[str, Array]:
        values = [*tree.leaves(outputs), *tree.leaves(last)]
        rng = np.random.default_rng(7)
        cotangents = [rng.standard_normal(v.shape).astype(v.dtype) for v in values]
        found = {f"output {k}" if k < len(values) - len(list(tree.leaves(last))) else "the last state": np.array(v._data) for k, v in enumerate(values)}
        live = [(v, g) for v, g in zip(values, cotangents, strict=True) if v.requires_grad]
        got = grad([v for v, _ in live], list(wanted.values()), [g for _, g in live], allow_unused=True) if live else [None] * len(wanted)
        for name, t, g in zip(wanted, wanted.values(), got, strict=True):
            found[f"the gradient of {name}"] = np.zeros(t.shape) if g is None else np.array(g._data)
        return found

    def eagerly(self, x: Any, state: Any) -> tuple[Any, Any]:
        outputs = []
        for t in range(x.shape[0]):
            y, state = self.step(x[t], state)
            outputs.append(y)
        return stack(outputs), state

    def unrolled(self, **options: Any) -> Steps:
        return lambda x, state: unroll(self.step, x, state, **({"mode": "eager"} | options))


def _same(law: str, one: dict[str, Array], other: dict[str, Array]) -> None:
    """Equal but for rounding, measured against the largest entry of each, and of all where one cancels to nothing."""
    overall = max((float(np.max(np.abs(value), initial=0, where=np.isfinite(value))) for value in other.values()), default=0.0)
    for name, expected in other.items():
        got = one[name]
        if got.shape != expected.shape:
            raise LawBroken(f"{law}: {name} has shape {got.shape}, expected {expected.shape}")
        top = max(float(np.max(np.abs(expected), initial=0)), float(np.max(np.abs(got), initial=0)))
        eps = float(np.finfo(got.dtype if got.dtype.kind == "f" else np.float64).eps)
        apart = np.abs(got - expected)
        wrong = ~(apart <= eps * max(2**12 * top, 64 * overall))
        if wrong.any():
            index = tuple(map(int, np.unravel_index(int(np.argmax(np.where(np.isfinite(apart), apart, np.inf))), apart.shape)))
            raise LawBroken(f"{law}: {name or 'its output'} at {list(index)} is {got[index]:.10g}, expected {expected[index]:.10g}")


def tied_is_sum_of_untied(cell: Any, inputs: Any, state: Any = None, *, seed: int = 0) -> None:
    """The gradient of a weight that all steps share is the sum of the gradients of a copy for each step."""
    c = _Cell(cell, inputs, state, seed)
    whole = c.run(c.eagerly)
    copies: list[list[Tensor]] = []

    def untied(x: Any, h: Any) -> tuple[Any, Any]:
        outputs = []
        for t in range(x.shape[0]):
            copies.append([wrap(np.array(w._data)).requires_grad_() for w in c.weights])
            kept = [(w._data, w._node) for w in c.weights]
            try:
                for w, own in zip(c.weights, copies[-1], strict=True):
                    w._data, w._node = own._data, own._node
                y, h = c.step(x[t], h)
            finally:
                for w, (data, node) in zip(c.weights, kept, strict=True):
                    w._data, w._node = data, node
            outputs.append(y)
        return stack(outputs), h

    inputs_, first = c.tracked(c.x), tree.mapped(lambda s: wrap(np.array(s)).requires_grad_(), c.state)
    outputs, last = untied(inputs_, first)
    names = list(c.named())
    apart = c.gradients(outputs, last, {f"{n} {t}": w for t, ws in enumerate(copies) for n, w in zip(names, ws, strict=True)})
    summed = {f"the gradient of {n}": np.sum([apart[f"the gradient of {n} {t}"] for t in range(c.steps)], axis=0) for n in names}
    _same("a tied weight's gradient is the sum of its untied copies' gradients", whole, summed)


def split(cell: Any, inputs: Any, state: Any = None, *, at: int | None = None, seed: int = 0) -> None:
    """A run of T steps is a run of k steps and a run of T - k from where it ended."""
    c = _Cell(cell, inputs, state, seed)
    k = _cut(c, at)

    def parts(x: Any, h: Any) -> tuple[Any, Any]:
        first, h = c.eagerly(x[:k], h)
        second, h = c.eagerly(x[k:], h)
        return concatenate([first, second]), h

    _same(f"{c.steps} steps are {k} and {c.steps - k}", c.run(parts), c.run(c.unrolled()))


def truncation(cell: Any, inputs: Any, state: Any = None, *, at: int | None = None, seed: int = 0) -> None:
    """Detaching the state at a step is starting anew from its value: nothing flows back across the cut."""
    c = _Cell(cell, inputs, state, seed)
    k = _cut(c, at)
    middle: list[Any] = []

    def cut(x: Any, h: Any) -> tuple[Any, Any]:
        _, h = c.eagerly(x[:k], h)
        h = tree.mapped(lambda s: s.detach(), h)
        middle.append(tree.mapped(lambda s: np.array(s._data), h))
        return c.eagerly(x[k:], h)

    truncated = c.run(cut)
    anew = c.run(c.eagerly, c.x[k:], middle[0])
    flowed = truncated.get("the gradient of the inputs")
    if flowed is not None:
        if flowed[:k].any():
            raise LawBroken(f"truncation is a detach at the cut: the inputs before step {k} have a gradient")
        truncated["the gradient of the inputs"] = flowed[k:]
    _same("truncation is a detach at the cut", truncated, {n: v for n, v in anew.items() if not n.startswith("the gradient of state")})


def padding(cell: Any, inputs: Any, state: Any = None, *, lengths: Sequence[int] | None = None, seed: int = 0) -> None:
    """What stands beyond a sequence's length does not matter, NaN neither; each sequence is what it is alone."""
    c = _Cell(cell, inputs, state, seed)
    batch = c.x.shape[1]
    counts = np.asarray(lengths if lengths is not None else [1 + (c.steps - 1 + 2 * b) % c.steps for b in range(batch)])
    if counts.shape != (batch,):
        raise ShapeError(f"laws.padding: lengths has {counts.size} numbers, expected one a sequence, batch={batch}")
    mask = (np.arange(c.steps)[:, None] < counts).reshape(c.steps, batch, *[1] * (c.x.ndim - 2))
    runs = [c.run(c.unrolled(lengths=counts.tolist()), np.where(mask, c.x, filler)) for filler in ((0.0, np.nan, 1e3) if c.x.dtype.kind == "f" else (c.x.min(), c.x.max()))]
    for other in runs[1:]:
        _same("padding does not matter", other, runs[0])
    outputs = next(name for name in runs[0] if name.startswith("output"))
    for b in range(batch):
        alone = c.run(c.eagerly, c.x[: counts[b], b : b + 1], tree.mapped(lambda s, b=b: s[b : b + 1], c.state))
        _same(f"sequence {b} of length {counts[b]} is what it is alone", {"": runs[0][outputs][: counts[b], b : b + 1]}, {"": alone[outputs]})


def reversal(cell: Any, inputs: Any, state: Any = None, *, seed: int = 0) -> None:
    """The reverse direction is the forward one on the flipped inputs, its outputs flipped back."""
    c = _Cell(cell, inputs, state, seed)

    def flipped(x: Any, h: Any) -> tuple[Any, Any]:
        outputs, h = c.eagerly(x[::-1], h)
        return tree.mapped(lambda y: y[::-1], outputs), h

    _same("the reverse direction is the flipped input", c.run(c.unrolled(reverse=True)), c.run(flipped))


def batch_permutation(cell: Any, inputs: Any, state: Any = None, *, seed: int = 0) -> None:
    """Sequences of a batch do not look at each other: permuting them permutes outputs and gradients, and changes no weight's."""
    c = _Cell(cell, inputs, state, seed)
    batch = c.x.shape[1]
    if batch < 2:
        raise ShapeError(f"laws.batch_permutation: there must be two sequences or more, got batch={batch}")
    whole = c.run(c.eagerly)
    # Two of them exchanged, and all moved on by one: every permutation is made of these.
    for order in (np.array([1, 0, *range(2, batch)]), np.roll(np.arange(batch), 1)):
        back = np.argsort(order)

        def permuted(x: Any, h: Any, order: Array = order, back: Array = back) -> tuple[Any, Any]:
            outputs, h = c.eagerly(x[:, order], tree.mapped(lambda s: s[order], h))
            return tree.mapped(lambda y: y[:, back], outputs), tree.mapped(lambda s: s[back], h)

        _same("the order of a batch does not matter", c.run(permuted), whole)


def replay_is_eager(cell: Any, inputs: Any, state: Any = None, *, reverse: bool = False, lengths: Sequence[int] | None = None, seed: int = 0) -> None:
    """A replayed unroll gives the values and gradients of the eager one; a cell that cannot be replayed is said to be so."""
    c = _Cell(cell, inputs, state, seed)
    if c.steps < 2:
        raise ShapeError("laws.replay_is_eager: there must be two steps or more")
    options: dict[str, Any] = {"reverse": reverse} | ({} if lengths is None else {"lengths": lengths})
    try:
        replayed = c.run(c.unrolled(mode="replay", **options))
    except TinygradError as error:
        raise LawBroken(f"replay is eager: {error}") from error
    _same("replay is eager", replayed, c.run(c.unrolled(**options)))


def check_all(cell: Any, inputs: Any, state: Any = None, *, seed: int = 0) -> None:
    """Every law of this module that the numbers of steps and sequences allow."""
    laws: list[Callable[..., None]] = [tied_is_sum_of_untied, padding, reversal]
    if np.shape(inputs)[1:2] > (1,):
        laws.append(batch_permutation)
    if len(inputs) > 1:
        laws += [split, truncation, replay_is_eager]
    for law in laws:
        law(cell, inputs, state, seed=seed)


def _cut(c: _Cell, at: int | None) -> int:
    k = c.steps // 2 if at is None else at
    if not 0 < k < c.steps:
        raise ShapeError(f"laws: the cut must lie within the {c.steps} steps, got {k}")
    return k
