"""Operations that move elements and change shapes."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np

from ..core.primitive import primitive
from ..core.tape import Array
from ..core.tensor import is_tensor
from ..errors import AxisError, DtypeError, ShapeError
from .shapes import axes_of, axis_of


@primitive
def _reshape(a: Array, shape: Any = ()) -> Any:
    """The elements in another shape."""
    return a.reshape(shape) if type(a) is np.ndarray else np.reshape(a, shape)


_reshape.primitive.seen_through = True


@_reshape.rule
def _reshape_a(g: Array, a_shape: tuple[int, ...]) -> Array:
    return g.reshape(a_shape)



def reshape(a: Array, /, *shape: Any, order: str = "C", copy: bool | None = None) -> Any:
    """The elements in another shape, one length of which may be -1.

    Raises ``ShapeError`` where the sizes do not fit.

    >>> import tinygrad_rnn as tg
    >>> tg.reshape(tg.tensor([1.0, 2.0, 3.0, 4.0]), (2, -1)).shape
    (2, 2)
    """
    wanted: Any = shape[0] if len(shape) == 1 and not _is_int(shape[0]) else shape
    if is_tensor(wanted):
        wanted = wanted.tolist()
    if order not in ("C", "F", "A"):
        raise ShapeError(f"reshape: order must be 'C', 'F' or 'A', got {order!r}")
    try:
        lengths = tuple(operator.index(n) for n in wanted)
    except TypeError as error:
        raise DtypeError(f"reshape: the shape must be integers, got {shape!r}") from error
    if order == "F" or (order == "A" and np.isfortran(a._data if is_tensor(a) else np.asarray(a))):
        reversed_axes = tuple(range(np.ndim(a)))[::-1]
        return transpose(_reshape(transpose(a, reversed_axes), lengths[::-1]))
    out = _reshape(a, lengths)
    return out.copy() if copy else out


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) or (is_tensor(value) and value.ndim == 0)


def ravel(a: Array, order: str = "C") -> Any:
    """The elements in one axis.

    >>> import tinygrad_rnn as tg
    >>> tg.ravel(tg.ones((2, 3))).shape
    (6,)
    """
    return reshape(a, (-1,), order="C" if order == "K" else order)


@primitive
def _transpose(a: Array, axes: Any = None) -> Any:
    """The axes in another order."""
    return a.transpose(axes) if type(a) is np.ndarray else np.transpose(a, axes)


_transpose.primitive.seen_through = True


@_transpose.rule
def _transpose_a(g: Array, axes: Any) -> Array:
    if axes is None:
        return g.transpose()
    return g.transpose(tuple(int(k) for k in np.argsort(axes)))



def transpose(a: Array, /, *axes: Any) -> Any:
    """The axes in another order, reversed if none is given.

    >>> import tinygrad_rnn as tg
    >>> tg.transpose(tg.ones((2, 3, 4)), (0, 2, 1)).shape
    (2, 4, 3)
    """
    if not axes or axes == (None,):
        return _transpose(a)
    wanted = axes[0] if len(axes) == 1 and not _is_int(axes[0]) else axes
    order = axes_of("transpose", tuple(wanted), np.ndim(a))
    if len(order) != np.ndim(a):
        raise AxisError(f"transpose: axes {tuple(wanted)} do not name every axis of an array of {np.ndim(a)} dimensions")
    return _transpose(a, order)


def swapaxes(a: Array, axis1: int, axis2: int) -> Any:
    """Two axes in each other's place.

    >>> import tinygrad_rnn as tg
    >>> tg.swapaxes(tg.ones((2, 3, 4)), 0, 2).shape
    (4, 3, 2)
    """
    first, second = axis_of("swapaxes", axis1, np.ndim(a)), axis_of("swapaxes", axis2, np.ndim(a))
    order = list(range(np.ndim(a)))
    order[first], order[second] = second, first
    return _transpose(a, tuple(order))


def moveaxis(a: Array, source: Any, destination: Any) -> Any:
    """Axes moved to new places, the others in their order.

    >>> import tinygrad_rnn as tg
    >>> tg.moveaxis(tg.ones((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    ndim = np.ndim(a)
    sources, targets = axes_of("moveaxis", source, ndim), axes_of("moveaxis", destination, ndim)
    if len(sources) != len(targets):
        raise ShapeError(f"moveaxis: {len(sources)} source axes and {len(targets)} destinations")
    order = [k for k in range(ndim) if k not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return _transpose(a, tuple(order))


def rollaxis(a: Array, axis: int, start: int = 0) -> Any:
    """One axis rolled back until it lies before ``start``.

    >>> import tinygrad_rnn as tg
    >>> tg.rollaxis(tg.ones((2, 3, 4)), 2).shape
    (4, 2, 3)
    """
    k = axis_of("rollaxis", axis, np.ndim(a))
    start = start + np.ndim(a) if start < 0 else start
    return moveaxis(a, k, start - 1 if k < start else start)


def expand_dims(a: Array, axis: Any) -> Any:
    """New axes of length 1 at the given places of the result.

    >>> import tinygrad_rnn as tg
    >>> tg.expand_dims(tg.ones((2, 3)), (0, -1)).shape
    (1, 2, 3, 1)
    """
    ndim = np.ndim(a) + (len(axis) if isinstance(axis, tuple | list) else 1)
    places = axes_of("expand_dims", axis, ndim)
    lengths = iter(np.shape(a))
    return _reshape(a, tuple(1 if k in places else next(lengths) for k in range(ndim)))


def squeeze(a: Array, axis: Any = None) -> Any:
    """Without axes of length 1, all of them or those named. Raises ``ShapeError`` for a longer one.

    >>> import tinygrad_rnn as tg
    >>> tg.squeeze(tg.ones((1, 3, 1))).shape
    (3,)
    """
    shape = np.shape(a)
    if axis is None:
        return _reshape(a, tuple(n for n in shape if n != 1))
    axes = axes_of("squeeze", axis, len(shape))
    for k in axes:
        if shape[k] != 1:
            raise ShapeError(f"squeeze: axis {k} has length {shape[k]}, expected 1; the shape is {shape}")
    return _reshape(a, tuple(n for k, n in enumerate(shape) if k not in axes))


@primitive
def _broadcast_to(a: Array, shape: Any = ()) -> Any:
    """The array repeated along new axes and axes of length 1."""
    return np.broadcast_to(a, shape)


@_broadcast_to.rule
def _broadcast_to_a(g: Array) -> Array:
    return g



def broadcast_to(array: Array, shape: Any, subok: bool = False) -> Any:
    """The array repeated along new axes and axes of length 1. Raises ``ShapeError`` where it does not fit.

    >>> import tinygrad_rnn as tg
    >>> tg.broadcast_to(tg.tensor([1.0, 2.0]), (3, 2)).shape
    (3, 2)
    """
    return _broadcast_to(array, (shape,) if _is_int(shape) else tuple(shape))


def broadcast_arrays(*args: Array, subok: bool = False) -> tuple[Any, ...]:
    """The arrays, each broadcast to their common shape.

    >>> import tinygrad_rnn as tg
    >>> [a.shape for a in tg.broadcast_arrays(tg.ones((2, 1)), tg.ones(3))]
    [(2, 3), (2, 3)]
    """
    try:
        shape = np.broadcast_shapes(*(np.shape(a) for a in args))
    except ValueError as error:
        raise ShapeError(f"broadcast_arrays: {error}") from error
    return tuple(broadcast_to(a, shape) for a in args)


@primitive(sequence="arrays")
def _concatenate(arrays: Any, axis: int = 0) -> Any:
    """Arrays joined along an axis."""
    return np.concatenate(arrays, axis)


@_concatenate.rule
def _concatenate_arrays(g: Array, position: int, arrays_shape: Any, axis: int) -> Array:
    axis = axis % g.ndim
    start = 0
    for shape in arrays_shape[:position]:
        start += shape[axis]
    return g[(slice(None),) * axis + (slice(start, start + arrays_shape[position][axis]),)]



def _sequence(what: str, arrays: Any) -> Any:
    if not isinstance(arrays, list | tuple):
        if not np.iterable(arrays):
            raise DtypeError(f"{what}: arrays must be a sequence of arrays, got {type(arrays).__name__}")
        arrays = list(arrays)
    if not arrays:
        raise ShapeError(f"{what}: arrays is empty, expected at least one array")
    return arrays


def _place(what: str, axis: Any) -> int:
    try:
        return operator.index(axis)
    except TypeError as error:
        raise DtypeError(f"{what}: axis must be an integer, got {axis!r}") from error


def concatenate(arrays: Any, axis: int | None = 0, *, dtype: Any = None) -> Any:
    """Arrays joined along an existing axis; None joins them flattened.

    Raises ``ShapeError`` for no arrays, or for lengths that differ along another axis.

    >>> import tinygrad_rnn as tg
    >>> tg.concatenate([tg.ones((2, 1)), tg.zeros((2, 2))], axis=1).shape
    (2, 3)
    """
    arrays = _sequence("concatenate", arrays)
    if axis is None:
        arrays, axis = [ravel(x if hasattr(x, "shape") else np.asarray(x)) for x in arrays], 0
    out = _concatenate(arrays, _place("concatenate", axis))
    return out if dtype is None else out.astype(dtype)


@primitive(sequence="arrays")
def _stack(arrays: Any, axis: int = 0) -> Any:
    """Arrays joined along a new axis."""
    return np.stack(arrays, axis)


@_stack.rule
def _stack_arrays(g: Array, position: int, axis: int) -> Array:
    return g[(slice(None),) * (axis % g.ndim) + (position,)]



def stack(arrays: Any, axis: int = 0) -> Any:
    """Arrays of one shape joined along a new axis.

    >>> import tinygrad_rnn as tg
    >>> tg.stack([tg.ones(3), tg.zeros(3)], axis=1).shape
    (3, 2)
    """
    return _stack(_sequence("stack", arrays), _place("stack", axis))


def atleast_1d(*arrays: Array) -> Any:
    """Arrays with at least one axis.

    >>> import tinygrad_rnn as tg
    >>> tg.atleast_1d(tg.tensor(1.0)).shape
    (1,)
    """
    return _each(arrays, lambda a: reshape(a, (1,)) if a.ndim < 1 else a)


def atleast_2d(*arrays: Array) -> Any:
    """Arrays with at least two axes, new ones in front.

    >>> import tinygrad_rnn as tg
    >>> tg.atleast_2d(tg.ones(3)).shape
    (1, 3)
    """
    return _each(arrays, lambda a: reshape(a, (1,) * (2 - a.ndim) + a.shape) if a.ndim < 2 else a)


def atleast_3d(*arrays: Array) -> Any:
    """Arrays with at least three axes.

    >>> import tinygrad_rnn as tg
    >>> tg.atleast_3d(tg.ones(3)).shape
    (1, 3, 1)
    """
    shapes: dict[int, Any] = {0: lambda s: (1, 1, 1), 1: lambda s: (1, *s, 1), 2: lambda s: (*s, 1)}
    return _each(arrays, lambda a: reshape(a, shapes[a.ndim](a.shape)) if a.ndim < 3 else a)


def _each(arrays: tuple[Any, ...], change: Any) -> Any:
    changed = tuple(change(a if hasattr(a, "ndim") else np.asarray(a)) for a in arrays)
    return changed[0] if len(changed) == 1 else changed


def _joined(tup: Any, change: Any, axis: Any) -> Any:
    arrays = [change(a) for a in tup]
    return concatenate(arrays, axis(arrays) if callable(axis) else axis)


def hstack(tup: Any) -> Any:
    """Arrays joined along the second axis, or the only one.

    >>> import tinygrad_rnn as tg
    >>> tg.hstack([tg.ones((2, 1)), tg.ones((2, 2))]).shape
    (2, 3)
    """
    return _joined(tup, atleast_1d, lambda arrays: 0 if arrays and arrays[0].ndim == 1 else 1)


def vstack(tup: Any) -> Any:
    """Arrays joined along the first axis, each at least two-dimensional.

    >>> import tinygrad_rnn as tg
    >>> tg.vstack([tg.ones(3), tg.ones((2, 3))]).shape
    (3, 3)
    """
    return _joined(tup, atleast_2d, 0)


def dstack(tup: Any) -> Any:
    """Arrays joined along the third axis.

    >>> import tinygrad_rnn as tg
    >>> tg.dstack([tg.ones((2, 3)), tg.ones((2, 3))]).shape
    (2, 3, 2)
    """
    return _joined(tup, atleast_3d, 2)


def column_stack(tup: Any) -> Any:
    """One-dimensional arrays as the columns of a matrix.

    >>> import tinygrad_rnn as tg
    >>> tg.column_stack([tg.ones(3), tg.zeros(3)]).shape
    (3, 2)
    """
    return _joined(tup, lambda a: reshape(atleast_1d(a), (-1, 1)) if np.ndim(a) < 2 else a, 1)


def append(arr: Array, values: Array, axis: int | None = None) -> Any:
    """Values joined to the end of an array, both flattened if no axis is given.

    >>> import tinygrad_rnn as tg
    >>> tg.append(tg.ones(2), tg.zeros(1))
    tensor([1., 1., 0.], float32)
    """
    return concatenate([arr, values], axis)


def split(ary: Array, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Parts along an axis: a number of equal ones, or cut at the given indices.

    Raises ``ShapeError`` where equal parts do not fit.

    >>> import tinygrad_rnn as tg
    >>> [part.shape for part in tg.split(tg.ones((4, 6)), 3, axis=1)]
    [(4, 2), (4, 2), (4, 2)]
    """
    k = axis_of("split", axis, np.ndim(ary))
    if _is_int(indices_or_sections):
        sections = int(indices_or_sections)
        if sections <= 0 or np.shape(ary)[k] % sections:
            raise ShapeError(f"split: axis {axis} of length {np.shape(ary)[k]} does not divide into {sections} equal parts")
    return array_split(ary, indices_or_sections, axis)


def array_split(ary: Array, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Parts along an axis, of nearly equal length or cut at the given indices.

    >>> import tinygrad_rnn as tg
    >>> [part.shape for part in tg.array_split(tg.ones(5), 2)]
    [(3,), (2,)]
    """
    k = axis_of("split", axis, np.ndim(ary))
    length = np.shape(ary)[k]
    if _is_int(indices_or_sections):
        sections = int(indices_or_sections)
        if sections <= 0:
            raise ShapeError(f"split: the number of sections must be positive, got {sections}")
        small, extra = divmod(length, sections)
        cuts = [0]
        for part in range(sections):
            cuts.append(cuts[-1] + small + (part < extra))
        bounds: list[tuple[int, int | None]] = list(itertools.pairwise(cuts))
    else:
        inner = [operator.index(i) for i in indices_or_sections]
        bounds = list(zip([0, *inner], [*inner, None], strict=True))
    return [ary[(slice(None),) * k + (slice(start, end),)] for start, end in bounds]


def hsplit(ary: Array, indices_or_sections: Any) -> list[Any]:
    """:func:`split` along the second axis, or the only one.

    >>> import tinygrad_rnn as tg
    >>> len(tg.hsplit(tg.ones((2, 4)), 2))
    2
    """
    return split(ary, indices_or_sections, 1 if np.ndim(ary) > 1 else 0)


def vsplit(ary: Array, indices_or_sections: Any) -> list[Any]:
    """:func:`split` along the first axis.

    >>> import tinygrad_rnn as tg
    >>> len(tg.vsplit(tg.ones((4, 2)), 2))
    2
    """
    return split(ary, indices_or_sections, 0)


@primitive
def _flip(m: Array, axis: Any = None) -> Any:
    """The order of elements reversed."""
    return np.flip(m, axis)


@_flip.rule
def _flip_m(g: Array, axis: Any) -> Array:
    return flip(g, axis)



def flip(m: Array, axis: Any = None) -> Any:
    """The order of elements reversed along the axes, or along all.

    >>> import tinygrad_rnn as tg
    >>> tg.flip(tg.tensor([1.0, 2.0, 3.0]))
    tensor([3., 2., 1.], float32)
    """
    return _flip(m, axes_of("flip", axis, np.ndim(m)))


def fliplr(m: Array) -> Any:
    """Reversed along the second axis.

    >>> import tinygrad_rnn as tg
    >>> tg.fliplr(tg.tensor([[1.0, 2.0]]))
    tensor([[2., 1.]], float32)
    """
    return flip(m, 1)


def flipud(m: Array) -> Any:
    """Reversed along the first axis.

    >>> import tinygrad_rnn as tg
    >>> tg.flipud(tg.tensor([1.0, 2.0]))
    tensor([2., 1.], float32)
    """
    return flip(m, 0)


def rot90(m: Array, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    """Turned by 90 degrees k times in the plane of two axes.

    >>> import tinygrad_rnn as tg
    >>> tg.rot90(tg.tensor([[1.0, 2.0]])).shape
    (2, 1)
    """
    first, second = axes_of("rot90", tuple(axes), np.ndim(m))
    k %= 4
    if k == 0:
        return m
    if k == 2:
        return flip(flip(m, first), second)
    return swapaxes(flip(m, second), first, second) if k == 1 else flip(swapaxes(m, first, second), second)


@primitive
def _roll(a: Array, shift: Any = 0, axis: Any = None) -> Any:
    """Elements shifted around the end."""
    return np.roll(a, shift, axis)


@_roll.rule
def _roll_a(g: Array, shift: Any, axis: Any) -> Array:
    return roll(g, tuple(-s for s in shift) if isinstance(shift, tuple) else -shift, axis)



def roll(a: Array, shift: Any, axis: Any = None) -> Any:
    """Elements shifted along the axes, those pushed over the end coming back at the start.

    >>> import tinygrad_rnn as tg
    >>> tg.roll(tg.tensor([1.0, 2.0, 3.0]), 1)
    tensor([3., 1., 2.], float32)
    """
    shift = tuple(int(s) for s in shift) if np.iterable(shift) else int(shift)
    return _roll(a, shift, tuple(axis) if isinstance(axis, list) else axis)


def tile(A: Array, reps: Any) -> Any:
    """The array repeated as a whole along each axis.

    >>> import tinygrad_rnn as tg
    >>> tg.tile(tg.tensor([1.0, 2.0]), 2)
    tensor([1., 2., 1., 2.], float32)
    """
    times = (int(reps),) if _is_int(reps) else tuple(int(r) for r in reps)
    shape = np.shape(A)
    ndim = max(len(shape), len(times))
    shape = (1,) * (ndim - len(shape)) + shape
    times = (1,) * (ndim - len(times)) + times
    if any(r < 0 for r in times):
        raise ShapeError(f"tile: reps must not be negative, got {times}")
    pairs = list(zip(times, shape, strict=True))
    apart = _reshape(A, tuple(n for _, length in pairs for n in (1, length)))
    whole = _broadcast_to(apart, tuple(n for pair in pairs for n in pair))
    return _reshape(whole, tuple(r * length for r, length in pairs))


def repeat(a: Array, repeats: Any, axis: int | None = None) -> Any:
    """Each element repeated, along an axis or flattened; ``repeats`` is one number or one for each element.

    >>> import tinygrad_rnn as tg
    >>> tg.repeat(tg.tensor([1.0, 2.0]), 2)
    tensor([1., 1., 2., 2.], float32)
    """
    if axis is None:
        a, axis = ravel(a), 0
    k = axis_of("repeat", axis, a.ndim)
    if is_tensor(repeats):
        repeats = repeats.numpy()
    try:
        index = np.repeat(np.arange(a.shape[k]), repeats)
    except (ValueError, TypeError) as error:
        raise ShapeError(f"repeat: repeats={repeats!r} does not fit axis {axis} of length {a.shape[k]}: {error}") from error
    if np.ndim(repeats) == 0:
        n = int(repeats)
        apart = _reshape(a, (*a.shape[: k + 1], 1, *a.shape[k + 1 :]))
        whole = _broadcast_to(apart, (*a.shape[: k + 1], n, *a.shape[k + 1 :]))
        return _reshape(whole, (*a.shape[:k], a.shape[k] * n, *a.shape[k + 1 :]))
    return a[(slice(None),) * k + (index,)]


@primitive
def _pad(array: Array, pad_width: Any = (), constant_values: Any = 0) -> Any:
    """The array in a frame of constants."""
    return np.pad(array, pad_width, constant_values=constant_values)


@_pad.rule
def _pad_array(g: Array, array_shape: tuple[int, ...], pad_width: Any) -> Array:
    return g[tuple(slice(before, before + n) for (before, _), n in zip(pad_width, array_shape, strict=True))]



def pad(array: Array, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    """The array in a frame: of constants, or of its own elements (modes ``edge reflect symmetric wrap``).

    ``pad_width`` is one number, one pair (before, after), or a pair for each axis, as in NumPy.

    >>> import tinygrad_rnn as tg
    >>> tg.pad(tg.tensor([1.0, 2.0]), (1, 2))
    tensor([0., 1., 2., 0., 0.], float32)
    """
    shape = np.shape(array)
    if isinstance(pad_width, dict):
        pad_width = [pad_width.get(k, pad_width.get(k - len(shape), 0)) for k in range(len(shape))]
        pad_width = [(w, w) if _is_int(w) else w for w in pad_width]
    try:
        widths = tuple((int(b), int(e)) for b, e in np.broadcast_to(np.asarray(pad_width), (len(shape), 2)))
        if np.asarray(pad_width).dtype.kind not in "iu" and len(shape):
            raise TypeError("it must be integers")
    except (ValueError, TypeError) as error:
        raise ShapeError(f"pad: pad_width={pad_width!r} does not fit an array of {len(shape)} dimensions: {error}") from error
    if any(width < 0 for pair in widths for width in pair):
        raise ShapeError(f"pad: pad_width must not be negative, got {widths}")
    if mode == "constant":
        return _pad(array, widths, constant_values)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise ShapeError(f"pad: mode must be constant, edge, reflect, symmetric or wrap, got {mode!r}")
    for k, pair in enumerate(widths):
        if pair != (0, 0):
            if not shape[k]:
                raise ShapeError(f"pad: mode {mode!r} needs elements, and axis {k} has none")
            index = np.pad(np.arange(shape[k]), pair, mode=mode)  # type: ignore[call-overload]
            array = array[(slice(None),) * k + (index,)]
    return array


@primitive(implements=np.copy)
def copy(a: Array) -> Any:
    """The same values in memory of their own.

    >>> import tinygrad_rnn as tg
    >>> tg.copy(tg.ones(2))
    tensor([1., 1.], float32)
    """
    return np.array(a)


@copy.rule
def copy_a(g: Array) -> Array:
    return g


def meshgrid(*xi: Array, indexing: str = "xy", sparse: bool = False, copy: bool = True) -> tuple[Any, ...]:
    """Coordinate arrays of a grid from one-dimensional coordinates.

    >>> import tinygrad_rnn as tg
    >>> [a.shape for a in tg.meshgrid(tg.ones(2), tg.ones(3))]
    [(3, 2), (3, 2)]
    """
    if indexing not in ("xy", "ij"):
        raise ShapeError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    n = len(xi)
    grid = [reshape(x, (1,) * k + (-1,) + (1,) * (n - k - 1)) for k, x in enumerate(xi)]
    if indexing == "xy" and n > 1:
        grid = [swapaxes(x, 0, 1) for x in grid]
    return tuple(grid) if sparse else broadcast_arrays(*grid)


__all__ = [
    "append", "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_arrays", "broadcast_to", "column_stack",
    "concatenate", "copy", "dstack", "expand_dims", "flip", "fliplr", "flipud", "hsplit", "hstack", "meshgrid", "moveaxis", "pad", "ravel",
    "repeat", "reshape", "roll", "rollaxis", "rot90", "split", "squeeze", "stack", "swapaxes", "tile", "transpose", "vsplit", "vstack",
]  # fmt: skip
