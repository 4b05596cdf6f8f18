"""Hypothesis strategies for tensor code: shapes, arrays in regimes, tensors, sequences, programs, recurrent cells.

Values are multiples of 1/64, so that they are exact, have no subnormals, and shrink to 0; programs, cells and sequences print as
code that can be pasted. Needs Hypothesis.

>>> from hypothesis import given, settings
>>> from tinygrad_rnn.testing import check_gradients, strategies
>>> @settings(max_examples=5, deadline=None)
... @given(strategies.programs(kinks=False))
... def test_programs(program):
...     check_gradients(program, *program.inputs)
>>> test_programs()
"""

from __future__ import annotations

import sys
from collections.abc import Sequence as Several
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import currently_in_test_context, note
from hypothesis import strategies as st

from ..core.tensor import Tensor, tensor
from ..errors import ShapeError
from . import cells as _cells
from . import programs as _programs
from .programs import GRID, Array, Program

__all__ = ["REGIMES", "Sequences", "arrays", "broadcastable", "programs", "recurrent_cells", "sequences", "shapes", "tensors"]

REGIMES = ("smooth", "distinct", "positive", "saturated", "tiny", "near_kink", "orthogonal")
"""``smooth``: within +-2; ``distinct``: that, with no ties and no zeros; ``positive``: 1/64 to 3; ``saturated``: 8 to 24 in size;
``tiny``: times 2**-40; ``near_kink``: 0 and multiples of 2**-30; ``orthogonal``: orthonormal rows or columns in the last two axes."""


class _Drawn:
    """Choices of Hypothesis."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Array:
        return self.draw(hnp.arrays(np.int64, shape, elements=st.integers(low, high)))


def shapes(*, min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes, also 0-d and with sides of 0: those that are forgotten most often."""
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


def arrays(shape: Any = None, regime: str | Several[str] = "smooth", *, dtype: Any = np.float64, contiguous: bool = True) -> st.SearchStrategy[Array]:
    """Arrays of a shape (or a strategy of shapes) in a regime, or in one of several: see ``REGIMES``.

    ``contiguous=False`` also draws views with strides, which hold the same values. Raises ``ShapeError`` for a regime
    that is not there.
    """
    return _noted(unnoted(shape, _chosen(regime), dtype, contiguous))


def _chosen(regime: str | Several[str]) -> tuple[str, ...]:
    chosen = (regime,) if isinstance(regime, str) else tuple(regime)
    if not chosen or not set(chosen) <= set(REGIMES):
        raise ShapeError(f"arrays: regime must be one or several of {', '.join(REGIMES)}, got {regime!r}")
    return chosen


@st.composite
def _noted(draw: st.DrawFn, drawn: st.SearchStrategy[Array]) -> Array:
    """An array, which a failing test prints to eight digits, and exactly where those are not all."""
    values = draw(drawn)
    printed = np.array2string(values.ravel(), threshold=sys.maxsize, separator=",", floatmode="maxprec")
    if currently_in_test_context() and values.size and not np.array_equal(np.array(printed.strip("[]").split(","), values.dtype), values.ravel()):
        note(f"exactly: {_programs.as_code(values)}")
    return values


@st.composite
def unnoted(draw: st.DrawFn, shape: Any, regimes: tuple[str, ...], dtype: Any = np.float64, contiguous: bool = True) -> Array:
    """As :func:`arrays`, for what prints its values itself."""
    lengths = draw(shapes() if shape is None else shape) if shape is None or isinstance(shape, st.SearchStrategy) else (shape,) if isinstance(shape, int) else tuple(shape)
    kind = regimes[0] if len(regimes) == 1 else draw(st.sampled_from(regimes))
    values = _in_regime(draw, kind, lengths).astype(dtype)
    if not contiguous and values.ndim and draw(st.booleans()):
        spread = np.zeros((*values.shape, 2), values.dtype)
        spread[..., 0] = values
        values = spread[..., 0]
    return values


def _in_regime(draw: st.DrawFn, regime: str, shape: tuple[int, ...]) -> Array:
    choices = _Drawn(draw)
    if regime == "distinct":
        return _programs.distinct(choices, shape)
    if regime == "positive":
        return np.asarray(choices.integers(shape, 1, 3 * GRID) / GRID)
    if regime == "saturated":
        sign = 1 - 2 * choices.integers(shape, 0, 1)
        return np.asarray(sign * choices.integers(shape, 8 * GRID, 24 * GRID) / GRID)
    if regime == "near_kink":
        return np.asarray(choices.integers(shape, -3, 3) * 2.0**-30)
    if regime == "orthogonal" and len(shape) > 1 and 0 not in shape:
        return _programs.orthogonal(choices, shape)
    values = choices.integers(shape, -2 * GRID, 2 * GRID) / GRID
    return np.asarray(values * 2.0**-40 if regime == "tiny" else values)


def tensors(shape: Any = None, regime: str | Several[str] = "smooth", *, dtype: Any = np.float64, requires_grad: bool = True, contiguous: bool = True) -> st.SearchStrategy[Tensor]:
    """As :func:`arrays`, as tensors."""
    return st.builds(tensor, arrays(shape, regime, dtype=dtype, contiguous=contiguous), requires_grad=st.just(requires_grad))


@st.composite
def broadcastable(draw: st.DrawFn, count: int = 2, regime: str | Several[str] = "smooth", *, max_dims: int = 3, min_side: int = 0, max_side: int = 3) -> tuple[Array, ...]:
    """Several arrays whose shapes broadcast together."""
    return tuple(draw(_noted(st.just(values))) for values in draw(group(count, regime, max_dims, min_side, max_side)))


@st.composite
def group(draw: st.DrawFn, count: int, regime: str | Several[str] = "smooth", max_dims: int = 3, min_side: int = 0, max_side: int = 3) -> tuple[Array, ...]:
    """As :func:`broadcastable`, for what prints its values itself."""
    drawn = draw(hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=max_dims, min_side=min_side, max_side=max_side))
    return tuple(draw(_drawn(shape, regime)) for shape in drawn.input_shapes)


def _drawn(shape: Any, regime: str | Several[str]) -> st.SearchStrategy[Array]:
    return unnoted(shape, _chosen(regime))


class Sequences:
    """A batch of sequences: ``inputs`` (time, batch, features) and ``lengths`` (batch,)."""

    def __init__(self, inputs: Array, lengths: Several[int]) -> None:
        self.inputs, self.lengths = inputs, list(lengths)

    def __repr__(self) -> str:
        return f"Sequences({_programs.as_code(self.inputs)}, lengths={self.lengths})"


@st.composite
def sequences(draw: st.DrawFn, features: int = 2, *, max_time: int = 6, max_batch: int = 3, regime: str | Several[str] = "smooth") -> Sequences:
    """Batches of sequences of different lengths, each of one step or more."""
    time, batch = draw(st.integers(1, max_time)), draw(st.integers(1, max_batch))
    inputs = draw(_drawn((time, batch, features), regime))
    return Sequences(inputs, draw(st.lists(st.integers(1, time), min_size=batch, max_size=batch)))


@st.composite
def programs(draw: st.DrawFn, length: int = 8, *, kinks: bool = True) -> Program:
    """Random programs over the engine's operations with inputs for them; a failing one shrinks to few lines, and prints as code."""
    return _programs.build(_Drawn(draw), length=length, kinks=kinks)


@st.composite
def recurrent_cells(draw: st.DrawFn, input_size: int = 2, *, hidden_size: int = 3, length: int = 5) -> _cells.Cell:
    """Random recurrent cells whose weights are used several times; they print as code."""
    return _cells.build(_Drawn(draw), input_size, hidden_size, length=length)
