"""What the arguments of this package must be: whole numbers and arrays of symbols."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..errors import DtypeError, OutOfRangeError, ShapeError


def whole_number(where: str, name: str, value: Any, least: int) -> int:
    """``value`` as an int of at least ``least``, or an error that names it."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise DtypeError(f"{where}: {name} must be a whole number, got {value!r}") from error
    if number < least:
        raise ValueError(f"{where}: {name} must be at least {least}, got {number}")
    return number


def symbol_array(where: str, ids: Any, ndim: int | None = 1) -> np.ndarray:
    """``ids`` as an array of integers, not copied if it is one, or an error that says what came."""
    if isinstance(ids, str):
        raise DtypeError(f"{where}: expected the integers of symbols, got a str; encode it with a Vocabulary")
    try:
        array: np.ndarray = np.asarray(ids)
    except ValueError as error:
        raise ShapeError(f"{where}: expected one array of integers, got sequences of several lengths") from error
    if not array.size:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise DtypeError(f"{where}: expected the integers of symbols, got dtype {array.dtype}")
    if array.ndim != ndim and ndim is not None:
        raise ShapeError(f"{where}: expected {ndim} dimension{'s' * (ndim != 1)}, got shape {array.shape}")
    return array


def check_range(where: str, ids: np.ndarray, size: int, advice: str) -> None:
    """Raise an ``OutOfRangeError`` with the first of ``ids`` that is not in 0..size - 1, its position and the way out."""
    bad = np.flatnonzero((ids < 0) | (ids >= size))
    if bad.size:
        place = int(bad[0]) if ids.ndim < 2 else tuple(int(i) for i in np.unravel_index(bad[0], ids.shape))
        raise OutOfRangeError(f"{where}: {ids.flat[bad[0]]} at position {place} is not in 0..{size - 1}; {advice}")
