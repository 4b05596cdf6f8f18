"""Arithmetic on axes and shapes that several families of operations share."""

from __future__ import annotations

import math
import operator
from typing import Any

from ..errors import AxisError, DtypeError


def axes_of(what: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes as a tuple of non-negative ints; None is all of them.

    Raises ``AxisError`` for one that does not exist or is named twice.
    """
    if axis is None:
        return tuple(range(ndim))
    named = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    axes = []
    for item in named:
        try:
            k = operator.index(item)
        except TypeError as error:
            raise DtypeError(f"{what}: axis must be an integer or a tuple of integers, got {axis!r}") from error
        if not -ndim <= k < ndim:
            raise AxisError(f"{what}: axis {k} is out of range for an array of {ndim} dimensions")
        axes.append(k % ndim)
    if len(set(axes)) != len(axes):
        raise AxisError(f"{what}: repeated axis in {axis!r}")
    return tuple(axes)


def axis_of(what: str, axis: Any, ndim: int) -> int:
    """One axis as a non-negative int. Raises ``AxisError`` for one that does not exist."""
    if axis is None or isinstance(axis, tuple | list):
        raise DtypeError(f"{what}: axis must be one integer, got {axis!r}")
    return axes_of(what, axis, ndim)[0]


def kept_shape(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    """The shape after a reduction with ``keepdims=True``; NumPy reduces a number over axis 0 or -1 too."""
    if not shape:
        return ()
    axes = axes_of("reduction", axis, len(shape))
    return tuple(1 if k in axes else n for k, n in enumerate(shape))


def count(shape: tuple[int, ...], axis: Any, what: str = "reduction") -> int:
    """How many elements a reduction combines."""
    return math.prod(shape[k] for k in axes_of(what, axis, len(shape)))
