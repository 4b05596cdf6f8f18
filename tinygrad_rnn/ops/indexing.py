"""Reading elements by index, and the adjoint, adding them up at an index."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..core.primitive import primitive
from ..core.state import current
from ..core.tape import Array, Scatter
from ..core.tensor import copied, is_tensor, reading, settings, wrap
from ..errors import DtypeError, NotDifferentiableError, OutOfRangeError, ShapeError
from .shapes import axes_of, axis_of
from .shaping import ravel, reshape


def _is_basic(index: Any) -> bool:
    """Whether an index selects every element at most once, as slices and integers do, or a boolean mask."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, int | slice | np.integer) or (isinstance(p, np.ndarray) and p.dtype == bool) for p in parts)


def add_at(total: np.ndarray, index: Any, values: np.ndarray) -> None:
    """``total[index] += values``, with repeated indices added up."""
    if _is_basic(index):
        total[index] += values
    elif isinstance(index, np.ndarray) and total.ndim > 1 and index.size > 1 and total.size:
        _add_rows(total, index.reshape(-1), values.reshape(-1, *total.shape[1:]))
    else:
        np.add.at(total, index, values)


def _add_rows(total: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    """Rows added up by row number: sorted, then summed in runs, which np.add.at does ten times slower."""
    rows = rows.astype(np.intp)  # the smallest integers do not count as far as the rows
    rows = np.where(rows < 0, rows + len(total), rows)
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    total[ordered[starts]] += np.add.reduceat(values[order], starts)


@primitive(constant="index")
def scatter(values: Array, index: Any, shape: tuple[int, ...] = ()) -> Any:
    """An array of zeros with ``values`` added at an index: the adjoint of reading there.

    >>> import numpy as np, tinygrad_rnn as tg
    >>> tg.scatter(tg.tensor([1.0, 2.0, 3.0]), np.array([0, 0, 2]), (3,))
    tensor([3., 0., 3.], float32)
    """
    values = np.asarray(values)
    total = np.zeros(shape, values.dtype)
    add_at(total, index, values)
    return total


@scatter.rule
def scatter_values(g: Array, index: Any) -> Array:
    # The record keeps its index already: no copy.
    return _getitem(g, index)


@primitive(constant="index")
def _getitem(a: Array, index: Any) -> Any:
    """The elements at an index."""
    return a[index]


@_getitem.rule
def _getitem_a(g: Array, index: Any, a_shape: tuple[int, ...]) -> Any:
    if is_tensor(g):
        return scatter(g, index, a_shape)
    return Scatter(g, index, add_at)


def getitem(a: Array, index: Any) -> Any:
    """``a[index]``, for every index that NumPy takes."""
    kind = type(index)
    if kind is tuple:
        for part in index:
            if type(part) is not slice and type(part) is not int and part is not None and part is not Ellipsis:
                index = tuple([_index(p) for p in index])
                # Columns that are all taken leave rows, of which there is more to know.
                if isinstance(index[0], np.ndarray) and index[0].dtype.kind in "iu" and all(type(p) is slice and p == slice(None) for p in index[1:]) and len(index) <= a.ndim:
                    index = index[0]
                break
    elif kind is not int and kind is not slice:
        index = _index(index)
    return _getitem(a, index)


def _index(part: Any) -> Any:
    """One part of an index as something that a record can keep: arrays are copied, tensors read."""
    if part is None or part is Ellipsis or isinstance(part, slice | int):
        return part
    if is_tensor(part):
        if part.requires_grad:
            raise NotDifferentiableError("getitem: an index that requires grad has no gradient; use .detach() and integers")
        if part.dtype.kind == "b":
            reading("a mask selected elements")
        if part.dtype.kind in "iub" and (part.ndim or current().special):
            return copied(np.array(part._data), part)
        part = part.numpy()[()]
    if isinstance(part, np.integer):
        return int(part)
    array = np.array([p.item() if is_tensor(p) else p for p in part] if isinstance(part, list | tuple) else part)
    if array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.intp)
    if array.dtype.kind not in "iub":
        raise OutOfRangeError(f"getitem: an index must be integers, bools or slices, got {type(part).__name__} of dtype {array.dtype}")
    return array


@primitive(constant="indices")
def _take(a: Array, indices: Any, axis: int = 0, mode: str = "raise") -> Any:
    """Elements along an axis."""
    return np.take(a, indices, axis=axis, mode=mode)  # type: ignore[call-overload]


@_take.rule
def _take_a(g: Array, indices: Any, a_shape: tuple[int, ...], axis: int, mode: str) -> Any:
    n, k = a_shape[axis], axis % len(a_shape)
    if mode == "wrap":
        indices = indices.astype(np.intp) % n
    elif mode == "clip":
        indices = np.clip(indices, 0, n - 1)
    index = (slice(None),) * k + (indices,) if k else indices
    return scatter(g, index, a_shape) if is_tensor(g) else Scatter(g, index, add_at)


def take(a: Array, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
    """Elements at integer indices along an axis, or of the flattened array.

    Raises ``OutOfRangeError`` for an index beyond the end (``mode`` may be ``"wrap"`` or ``"clip"``).

    >>> import tinygrad_rnn as tg
    >>> tg.take(tg.tensor([1.0, 2.0, 3.0]), [2, 0])
    tensor([3., 1.], float32)
    """
    index = _integers("take", "indices", indices)
    if axis is None:
        a, axis = ravel(a), 0
    return _take(a, index, axis_of("take", axis, np.ndim(a)), mode)


def _integers(what: str, name: str, indices: Any) -> np.ndarray:
    array = np.array(indices._data if is_tensor(indices) else indices)
    if array.size == 0 and not hasattr(indices, "dtype"):
        array = array.astype(np.intp)
    if array.dtype.kind not in "iub":
        raise DtypeError(f"{what}: {name} must be integers, got dtype {array.dtype}")
    return copied(array.astype(np.intp) if array.dtype == bool else array, indices)


@primitive(constant="indices")
def _take_along_axis(arr: Array, indices: Any, axis: int = -1) -> Any:
    """Elements at indices that vary along the other axes."""
    return np.take_along_axis(arr, indices, axis)


@primitive(constant="indices")
def _add_along_axis(values: Array, indices: Any, shape: tuple[int, ...] = (), axis: int = -1) -> Any:
    """An array of zeros with values added at indices that vary along the other axes."""
    # An axis of length 1 in the array or in the indices is broadcast against the other.
    grid: list[Any] = list(np.indices(shape, sparse=True))
    grid[axis] = indices
    total = np.zeros(shape, values.dtype)
    add_at(total, tuple(grid), values)
    return total


@_add_along_axis.rule
def _add_along_axis_values(g: Array, indices: Any, axis: int) -> Any:
    return _take_along_axis(g, indices, axis)


@_take_along_axis.rule
def _take_along_axis_arr(g: Array, indices: Any, arr_shape: tuple[int, ...], axis: int) -> Any:
    return _add_along_axis(g, indices, arr_shape, axis)


def take_along_axis(arr: Array, indices: Any, axis: int | None = -1) -> Any:
    """Elements at integer indices along an axis that vary along the other axes, as ``argsort`` gives them.

    >>> import tinygrad_rnn as tg
    >>> tg.take_along_axis(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), [[1], [0]], axis=1)
    tensor([[2.], [3.]], float32)
    """
    index = _integers("take_along_axis", "indices", indices)
    if axis is None:
        arr, axis = ravel(arr), 0
    if index.ndim != np.ndim(arr):
        raise ShapeError(f"take_along_axis: indices have {index.ndim} dimensions, expected {np.ndim(arr)} as the array")
    return _take_along_axis(arr, index, axis_of("take_along_axis", axis, np.ndim(arr)))


@primitive(differentiable=False)
def _argsort(a: Array, axis: int = -1, kind: Any = "stable") -> Any:
    """The indices that sort along an axis."""
    return np.argsort(a, axis=axis, kind=kind)


def sort(a: Array, axis: int | None = -1, kind: Any = None, *, stable: bool | None = None) -> Any:
    """Sorted values along an axis, or of the flattened array; the gradient goes back to where each value came from.

    >>> import tinygrad_rnn as tg
    >>> tg.sort(tg.tensor([3.0, 1.0, 2.0]))
    tensor([1., 2., 3.], float32)
    """
    if axis is None:
        a, axis = ravel(a), -1
    k = axis_of("sort", axis, np.ndim(a))
    order = _argsort(a if is_tensor(a) else np.asarray(a), k, kind or "stable")
    return _take_along_axis(a, order._data if is_tensor(order) else order, k)


def median(a: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """The middle value along the axes, or of all: the mean of the two middle ones if their number is even.

    >>> import tinygrad_rnn as tg
    >>> tg.median(tg.tensor([3.0, 1.0, 2.0])).item()
    2.0
    """
    from .reduction import mean

    axes = axes_of("median", axis, np.ndim(a))
    rest = [k for k in range(np.ndim(a)) if k not in axes]
    flat = reshape(a.transpose((*rest, *axes)), (*(a.shape[k] for k in rest), math.prod(a.shape[k] for k in axes)))
    n = flat.shape[-1]
    if n == 0:
        raise ShapeError(f"median: there is nothing to reduce over axis {axis} of an array of shape {a.shape}")
    out = mean(sort(flat)[..., (n - 1) // 2 : n // 2 + 1], axis=-1)
    return reshape(out, tuple(1 if k in axes else m for k, m in enumerate(a.shape))) if keepdims else out


@primitive(constant="indices")
def _embedding(indices: Any, weight: Array, padding_idx: int | None = None) -> Any:
    """Rows of a matrix."""
    return weight[indices]


@_embedding.rule
def _embedding_weight(g: Array, indices: Any, weight_shape: tuple[int, ...], padding_idx: int | None) -> Any:
    if padding_idx is not None:
        g = g * (indices != padding_idx)[..., None]
    return scatter(g, indices, weight_shape) if is_tensor(g) else Scatter(g, indices, add_at)


def embedding(indices: Any, weight: Array, padding_idx: int | None = None) -> Any:
    """Rows of ``weight`` (symbols, features) at integer indices of any shape; row ``padding_idx`` gets no gradient.

    Raises ``DtypeError`` for indices that are not integers, ``OutOfRangeError`` for a negative index or one
    beyond the last row.

    >>> import tinygrad_rnn as tg
    >>> tg.embedding([2, 0], tg.eye(3))
    tensor([[0., 0., 1.], [1., 0., 0.]], float32)
    """
    index = _integers("embedding", "indices", indices)
    shape = np.shape(weight)
    if len(shape) != 2:
        raise ShapeError(f"embedding: weight must be a matrix (symbols, features), got shape {shape}")
    symbols = shape[0]
    _in_range("embedding", index, symbols)
    if padding_idx is not None:
        padding_idx = operator.index(padding_idx)
        if not -symbols <= padding_idx < symbols:
            raise OutOfRangeError(f"embedding: padding_idx {padding_idx} is out of range for {symbols} symbols")
        padding_idx %= symbols
    return _embedding(index, weight, padding_idx)


def _in_range(what: str, index: np.ndarray, n: int) -> None:
    if index.size:
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= n:
            raise OutOfRangeError(f"{what}: index {low if low < 0 else high} is out of range for {n} symbols (0 to {n - 1})")


@primitive(differentiable=False)
def _one_hot(indices: Any, num_classes: int = 0, kind: Any = None) -> Any:
    """Ones at integer indices along a new last axis."""
    return (np.asarray(indices)[..., None] == np.arange(num_classes)).astype(kind)


def one_hot(indices: Any, num_classes: int | None = None, *, dtype: Any = None) -> Any:
    """Ones at integer indices along a new last axis, zeros elsewhere; as many classes as the largest index needs.

    Raises ``OutOfRangeError`` for a negative index or one of ``num_classes`` or above.

    >>> import tinygrad_rnn as tg
    >>> tg.one_hot([0, 2], 3)
    tensor([[1., 0., 0.], [0., 0., 1.]], float32)
    """
    index = _integers("one_hot", "indices", indices)
    if num_classes is None:
        reading("the largest index was looked up")
    classes = (int(index.max()) + 1 if index.size else 0) if num_classes is None else operator.index(num_classes)
    _in_range("one_hot", index, classes)
    hot = _one_hot(indices if is_tensor(indices) and indices.dtype.kind in "iu" else index, classes, np.dtype(settings.dtype if dtype is None else dtype))
    return hot if is_tensor(hot) else wrap(hot)


__all__ = ["embedding", "median", "one_hot", "scatter", "sort", "take", "take_along_axis"]
