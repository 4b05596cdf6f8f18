"""``unroll``: a step function applied along the time axis, every operation of every step on the tape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.state import current, installed, plain
from ..core.tensor import Tensor, is_tensor, wrap
from ..errors import DtypeError, OutOfRangeError, ShapeError
from ..ops.elementwise import where
from ..ops.shaping import stack
from . import tree

_MODES = ("auto", "eager")


def unroll(
    step: Callable[[Any, Any], Any],
    inputs: Any,
    state: Any,
    *,
    lengths: Any = None,
    reverse: bool = False,
    mode: str = "auto",
    name: str = "step",
) -> tuple[Any, Any]:
    """Apply ``step(x_t, state) -> (y_t, state)`` along time; returns the outputs, stacked, and the last state.

    ``inputs`` is (time, batch, ...), or nested tuples of such, or the number of steps, for a step that gets None.
    ``state`` is a Tensor or nested tuples, with the batch first; the step returns one of the same structure, shapes
    and dtypes. Outputs may be nested tuples, or None. With ``lengths`` (batch,) in any order, outputs beyond a
    sequence's length are zero, its state stays what it was at its last step, and padding is never looked at; with
    ``reverse`` the steps run from the last to the first, so that each sequence starts at its own end.
    Each step runs in the scope ``name[t]``, t counted from 0.

    Raises ``ShapeError`` for no steps, inputs of different lengths, or a returned state that does not fit;
    ``OutOfRangeError`` for a length below 1 or above the padded one.

    >>> import tinygrad_rnn as tg
    >>> W = tg.eye(2) * 0.5
    >>> def step(x, h):
    ...     h = tg.tanh(x + h @ W)
    ...     return h, h
    >>> outputs, h = tg.unroll(step, tg.ones(3, 1, 2), tg.zeros(1, 2))
    >>> outputs.shape, bool((outputs[-1] == h).all())
    ((3, 1, 2), True)
    """
    if mode not in _MODES:
        raise ShapeError(f"unroll: mode must be one of {', '.join(_MODES)}, got {mode!r}")
    steps = inputs if isinstance(inputs, int | np.integer) and not isinstance(inputs, bool) else None
    if steps is None:
        inputs = tree.tensors("unroll: inputs", inputs)
        shapes = {leaf.shape[:1] for leaf in tree.leaves(inputs)}
        if len(shapes) != 1 or () in shapes:
            raise ShapeError(f"unroll: the inputs must have the same number of time steps in front, got {tree.describe(inputs)}")
        steps = shapes.pop()[0]
    if steps < 1:
        raise ShapeError(f"unroll: there must be one time step or more, got {steps}")
    state = tree.tensors("unroll: state", state)
    full, mask = int(steps), None
    if lengths is not None:
        batch = next((leaf.shape[0] for leaf in tree.leaves(state) if leaf.ndim), None)
        counts = checked_lengths("unroll", lengths, int(steps), batch)
        full = int(counts.min(initial=steps))
        if full < steps:
            mask = np.arange(steps)[:, None] < counts
            if not isinstance(inputs, int | np.integer):
                # Padding may hold anything, NaN too: a step must never see it, for 0 * NaN is NaN in its gradient.
                inputs = tree.mapped(lambda x: where(_aligned(mask, x), x, 0), inputs)
    outer = plain(current())
    outputs: list[Any] = [None] * int(steps)
    for t in range(int(steps) - 1, -1, -1) if reverse else range(int(steps)):
        x_t = None if isinstance(inputs, int | np.integer) else tree.mapped(lambda x, t=t: x[t], inputs)
        with installed(outer.replace(scope=(*outer.scope, (name, t)))):
            y, new = _returned(step(x_t, state), state)
            if mask is not None and t >= full:
                here = mask[t]
                new = tree.mapped(lambda a, b, here=here: where(_aligned(here, a), a, b), new, state)
                y = tree.mapped(lambda a, here=here: where(_aligned(here, a), a, 0), y)
        outputs[t], state = y, new
    if any(tree.structure(y) != tree.structure(outputs[0]) for y in outputs):
        raise ShapeError("unroll: the step's outputs differ in their structure from step to step")
    columns = zip(*(tree.leaves(y) for y in outputs), strict=True)
    return tree.like(outputs[0], iter([stack(column) for column in columns])), state


def _aligned(mask: np.ndarray, x: Tensor) -> Tensor:
    """A mask over the leading axes, with an axis of length one for each of the others."""
    return wrap(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)))


def _returned(result: Any, state: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ShapeError(f"unroll: the step must return (y, state), got {tree.describe(result)}")
    y, new = result
    new = tree.tensors("unroll: the returned state", new)
    if tree.structure(new) != tree.structure(state) or any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(tree.leaves(new), tree.leaves(state), strict=True)):
        raise ShapeError(f"unroll: the step returned the state {tree.describe(new)}, expected one as it was given: {tree.describe(state)}")
    return tree.tensors("unroll: the step's output", y), new


def checked_lengths(what: str, lengths: Any, steps: int, batch: int | None) -> np.ndarray:
    """Lengths as an integer array, one a sequence, each from 1 to the number of steps."""
    counts = np.asarray(lengths._data if is_tensor(lengths) else lengths)
    if counts.dtype.kind not in "iu" and counts.size:
        raise DtypeError(f"{what}: lengths must be integers, got {counts.dtype}")
    if counts.ndim != 1 or (batch is not None and len(counts) != batch):
        raise ShapeError(f"{what}: lengths has shape {counts.shape}, expected one length for each sequence: batch={batch}")
    for low, text in ((counts < 1, "is below 1"), (counts > steps, f"is above the padded length time={steps}")):
        if low.any():
            k = int(np.argmax(low))
            raise OutOfRangeError(f"{what}: lengths[{k}] = {counts[k]} {text}")
    return counts.astype(np.int64)
