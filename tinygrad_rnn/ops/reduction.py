"""Reductions and cumulative operations over one, several or all axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.primitive import primitive
from ..core.tape import Array
from ..errors import NotDifferentiableError, ShapeError
from .elementwise import absolute, divide, exp, isnan, maximum, steady, where
from .shapes import axes_of, axis_of, count, kept_shape
from .shaping import broadcast_to, flip, moveaxis, reshape


def spread(g: Array, shape: tuple[int, ...], axis: Any) -> Array:
    """A reduced array repeated over the axes that were reduced."""
    return broadcast_to(g.reshape(kept_shape(shape, axis)), shape)


@primitive(implements=np.sum)
def sum(a: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """The sum over the axes, or over all.

    >>> import tinygrad_rnn as tg
    >>> tg.sum(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    tensor([4., 6.], float32)
    """
    return np.sum(a, axis=axis, dtype=dtype, keepdims=keepdims)


@sum.rule
def sum_a(g: Array, a_shape: tuple[int, ...], axis: Any) -> Array:
    return spread(g, a_shape, axis)


@primitive(implements=np.mean)
def mean(a: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """The mean over the axes, or over all. Raises ``ShapeError`` where there is nothing to average.

    >>> import tinygrad_rnn as tg
    >>> tg.mean(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    tensor([2., 3.], float32)
    """
    _nonempty("mean", a, axis)
    return np.mean(a, axis=axis, dtype=dtype, keepdims=keepdims)


@mean.rule
def mean_a(g: Array, a_shape: tuple[int, ...], axis: Any) -> Array:
    return spread(g / count(a_shape, axis), a_shape, axis)


def _nonempty(what: str, a: Array, axis: Any) -> None:
    shape = np.shape(a)
    if 0 in shape and count(shape, axis, what) == 0:
        raise ShapeError(f"{what}: there is nothing to reduce over axis {axis} of an array of shape {shape}")


@primitive(implements=np.prod)
def prod(a: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """The product over the axes, or over all; gradients are right where elements are 0.

    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([2.0, 0.0, 3.0], requires_grad=True)
    >>> tg.grad(tg.prod(x), x)
    tensor([0., 6., 0.], float32)
    """
    return np.prod(a, axis=axis, dtype=dtype, keepdims=keepdims)


@prod.rule
def prod_a(g: Array, a: Array, out: Array, axis: Any) -> Array:
    kept = kept_shape(a.shape, axis)
    g = g.reshape(kept)
    if bool((a != 0).all()):
        return g * out.reshape(kept) / a
    axes = axes_of("prod", axis if a.ndim else None, a.ndim)
    rest = tuple(k for k in range(a.ndim) if k not in axes)
    order = (*rest, *axes)
    moved = a.transpose(order)
    flat = moved.reshape(*(a.shape[k] for k in rest), -1)
    others = prod(where(np.eye(flat.shape[-1]), 1.0, flat.reshape(*flat.shape[:-1], 1, flat.shape[-1])), axis=-1)
    return g * others.reshape(moved.shape).transpose(tuple(int(k) for k in np.argsort(order)))


def _extreme_rule(g: Array, a: Array, out: Array, axis: Any) -> Array:
    kept = kept_shape(a.shape, axis)
    chosen = (a == out.reshape(kept)).astype(g.dtype)
    # Of nothing but NaN, none is the largest.
    ties = maximum(chosen.sum(axis=axis, keepdims=True), 1.0)
    return chosen * (g.reshape(kept) / ties)


@primitive(implements=(np.max, np.amax))
def max(a: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest element over the axes, or over all; where several are largest they share the gradient evenly.

    >>> import tinygrad_rnn as tg
    >>> tg.max(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([2., 4.], float32)
    """
    _nonempty("max", a, axis)
    return np.max(a, axis=axis, keepdims=keepdims)


@max.rule
def max_a(g: Array, a: Array, out: Array, axis: Any) -> Array:
    return _extreme_rule(g, a, out, axis)


@primitive(implements=(np.min, np.amin))
def min(a: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """The smallest element over the axes, or over all; where several are smallest they share the gradient evenly.

    >>> import tinygrad_rnn as tg
    >>> tg.min(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([1., 3.], float32)
    """
    _nonempty("min", a, axis)
    return np.min(a, axis=axis, keepdims=keepdims)


@min.rule
def min_a(g: Array, a: Array, out: Array, axis: Any) -> Array:
    return _extreme_rule(g, a, out, axis)


amax, amin = max, min


@primitive(implements=np.ptp)
def ptp(a: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest less the smallest element over the axes.

    >>> import tinygrad_rnn as tg
    >>> tg.ptp(tg.tensor([1.0, 5.0, 3.0])).item()
    4.0
    """
    return np.ptp(a, axis=axis, keepdims=keepdims)


@ptp.rule
def ptp_a(g: Array, a: Array, axis: Any) -> Array:
    return _extreme_rule(g, a, max(a, axis), axis) - _extreme_rule(g, a, min(a, axis), axis)


@primitive(implements=np.var)
def var(a: Array, axis: Any = None, dtype: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
    """The variance over the axes, or over all, with ``n - ddof`` as the divisor.

    >>> import tinygrad_rnn as tg
    >>> tg.var(tg.tensor([1.0, 2.0, 3.0])).item()
    0.6666666865348816
    """
    _enough("var", a, axis, ddof)
    return np.var(a, axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims)


def _enough(what: str, a: Array, axis: Any, ddof: float) -> None:
    _nonempty(what, a, axis)
    n = count(np.shape(a), axis, what)
    if n - ddof <= 0:
        raise ShapeError(f"{what}: {n} elements less ddof={ddof} leave nothing to divide by")


@var.rule
def var_a(g: Array, a: Array, axis: Any, ddof: float) -> Array:
    kept = kept_shape(a.shape, axis)
    return (g.reshape(kept) * (2.0 / (count(a.shape, axis) - ddof))) * (a - a.mean(axis=axis, keepdims=True))


@primitive(implements=np.std)
def std(a: Array, axis: Any = None, dtype: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
    """The standard deviation over the axes, or over all; of constants it is 0 with gradient 0.

    >>> import tinygrad_rnn as tg
    >>> tg.std(tg.tensor([1.0, 3.0])).item()
    1.0
    """
    _enough("std", a, axis, ddof)
    return np.std(a, axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims)


@std.rule
def std_a(g: Array, a: Array, out: Array, axis: Any, ddof: float) -> Array:
    kept = kept_shape(a.shape, axis)
    zero = out == 0
    scale = where(zero, 0.0, g) / where(zero, 1.0, out) / (count(a.shape, axis) - ddof)
    return scale.reshape(kept) * (a - a.mean(axis=axis, keepdims=True))


@primitive(implements=np.cumsum)
def cumsum(a: Array, axis: Any = None, dtype: Any = None) -> Any:
    """Running sums along an axis, or of the flattened array.

    >>> import tinygrad_rnn as tg
    >>> tg.cumsum(tg.tensor([1.0, 2.0, 3.0]))
    tensor([1., 3., 6.], float32)
    """
    return np.cumsum(a, axis=axis, dtype=dtype)


@cumsum.rule
def cumsum_a(g: Array, a_shape: tuple[int, ...], axis: Any) -> Array:
    return reshape(_reverse_cumsum(g, 0 if axis is None else axis), a_shape)


def _reverse_cumsum(g: Array, axis: int) -> Array:
    return flip(cumsum(flip(g, axis), axis), axis)


@primitive(implements=np.cumprod)
def cumprod(a: Array, axis: Any = None, dtype: Any = None) -> Any:
    """Running products along an axis, or of the flattened array; gradients are right where elements are 0.

    >>> import tinygrad_rnn as tg
    >>> tg.cumprod(tg.tensor([1.0, 2.0, 3.0]))
    tensor([1., 2., 6.], float32)
    """
    return np.cumprod(a, axis=axis, dtype=dtype)


@cumprod.rule
def cumprod_a(g: Array, a: Array, out: Array, axis: Any) -> Array:
    flat = a.reshape(-1) if axis is None or not a.ndim else a
    k = axis_of("cumprod", 0 if axis is None else axis, flat.ndim)
    if bool((flat != 0).all()):
        return (_reverse_cumsum(g * out, k) / flat).reshape(a.shape)
    # d out[i] / d a[j] is the product of a[0..i] without a[j]: an array (..., i, j, factors), ones where a factor is left out.
    last = moveaxis(flat, k, -1)
    n = last.shape[-1]
    index = np.arange(n)
    used = (index <= index[:, None, None]) & (index != index[:, None])
    products = prod(where(used, last.reshape(*last.shape[:-1], 1, 1, n), 1.0), axis=-1)
    reached = (index <= index[:, None]).astype(g.dtype)
    weighted = moveaxis(g, k, -1).reshape(*last.shape[:-1], n, 1) * products * reached
    return moveaxis(weighted.sum(axis=-2), -1, k).reshape(a.shape)


@primitive
def logsumexp(a: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(a))) over the axes, or over all, without overflow.

    >>> import tinygrad_rnn as tg
    >>> round(tg.logsumexp(tg.tensor([1000.0, 1000.0])).item(), 3)
    1000.693
    """
    a = np.asarray(a)
    _nonempty("logsumexp", a, axis)
    largest = np.max(a, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        out = np.log(np.sum(np.exp(a - shift), axis=axis, keepdims=True)) + shift
    axes = axes_of("logsumexp", axis if a.ndim else None, a.ndim)
    return out if keepdims else out.reshape([n for k, n in enumerate(a.shape) if k not in axes])


@logsumexp.rule
def logsumexp_a(g: Array, a: Array, out: Array, axis: Any) -> Array:
    kept = kept_shape(a.shape, axis)
    shift = where(out == -np.inf, 0.0, out).reshape(kept)
    return g.reshape(kept) * exp(a - shift)


def _shifted(a: Array, axis: Any) -> Any:
    """What is left of the elements after the largest along the axis is subtracted: its exponential cannot overflow."""
    a = np.asarray(a)
    return a - np.max(a, axis=axis, keepdims=True) if a.size else np.exp(a)


@primitive
def softmax(a: Array, axis: int = -1) -> Any:
    """exp(a) divided by its sum along the axis (an int or a tuple), without overflow.

    >>> import tinygrad_rnn as tg
    >>> tg.softmax(tg.tensor([0.0, 0.0, 1000.0]))
    tensor([0., 0., 1.], float32)
    """
    e = np.exp(_shifted(a, axis))
    return e / np.sum(e, axis=axis, keepdims=True)


@softmax.rule
def softmax_a(g: Array, out: Array, axis: Any) -> Array:
    # A row of nothing but -inf is NaN; where it is masked out, its gradient is zero.
    g, out = steady(g, out, isnan(out))
    return out * (g - (g * out).sum(axis=axis, keepdims=True))


@primitive
def log_softmax(a: Array, axis: int = -1) -> Any:
    """a - logsumexp(a) along the axis (an int or a tuple): the logarithm of :func:`softmax`.

    >>> import tinygrad_rnn as tg
    >>> tg.log_softmax(tg.tensor([0.0, 0.0]))
    tensor([-0.6931, -0.6931], float32)
    """
    shifted = _shifted(a, axis)
    total = np.sum(np.exp(shifted), axis=axis, keepdims=True)
    return shifted - np.log(total) if shifted.size else shifted


@log_softmax.rule
def log_softmax_a(g: Array, out: Array, axis: Any) -> Array:
    g, out = steady(g, out, isnan(out))
    return g - exp(out) * g.sum(axis=axis, keepdims=True)


def norm(x: Array, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The norm of vectors (one axis) or matrices (two), as ``np.linalg.norm``; 0 has gradient 0.

    ``ord`` is None (the root of the sum of squares), ``"fro"``, inf, -inf, 0 or a number p for vectors;
    ``"fro"``, 1, -1, inf, -inf for matrices. Raises ``NotDifferentiableError`` for matrix norms that need
    singular values.

    >>> import tinygrad_rnn as tg
    >>> tg.norm(tg.tensor([3.0, 4.0])).item()
    5.0
    """
    if axis is None and ord is None:
        return _norm2(x, None, keepdims)
    ndim = np.ndim(x)
    axes = axes_of("norm", axis, ndim)
    if ord is None:
        if len(axes) > 2:
            raise ShapeError(f"norm: axis must name one or two axes, got {axis!r}")
        return _norm2(x, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm(x, ord, axes, keepdims)
    if len(axes) != 1:
        raise ShapeError(f"norm: ord={ord!r} is for vectors and matrices; the array has {ndim} dimensions, so name one or two axes")
    if isinstance(ord, str):
        raise ShapeError(f"norm: ord={ord!r} is for matrices, got one axis")
    if ord == 2:
        return _norm2(x, axes, keepdims)
    if ord == np.inf:
        return max(absolute(x), axes, keepdims)
    if ord == -np.inf:
        return min(absolute(x), axes, keepdims)
    if ord == 0:
        return sum((x != 0).astype(x.dtype), axes, keepdims=keepdims)
    if ord == 1:
        return sum(absolute(x), axes, keepdims=keepdims)
    return _norm_p(x, ord, axes, keepdims)


def _matrix_norm(x: Array, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if ord in ("fro", "f"):
        return _norm2(x, axes, keepdims)
    if ord not in (1, -1, np.inf, -np.inf):
        raise NotDifferentiableError(f"norm: ord={ord!r} of a matrix needs singular values, which have no rule")
    rows, columns = axes
    first, second = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = sum(absolute(x), first, keepdims=True)
    out = (max if ord > 0 else min)(sums, second, True)
    return out if keepdims else reshape(out, tuple(n for k, n in enumerate(x.shape) if k not in axes))


@primitive
def _norm2(x: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """The root of the sum of squares."""
    x = np.asarray(x)
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))


@_norm2.rule
def _norm2_x(g: Array, x: Array, out: Array, axis: Any) -> Array:
    kept = kept_shape(x.shape, axis)
    zero = out == 0
    return (where(zero, 0.0, g) / where(zero, 1.0, out)).reshape(kept) * x


def _norm_p(x: Array, p: float, axes: tuple[int, ...], keepdims: bool) -> Any:
    """(sum |x|^p)^(1/p), with gradient 0 at a zero, and for a vector of zeros."""
    size = absolute(x)
    zero = size == 0
    total = sum(where(zero, 0.0 if p > 0 else np.inf, where(zero, 1.0, size) ** p), axes, keepdims=True)
    empty = total == 0
    out = where(empty, 0.0, where(empty, 1.0, total) ** (1 / p))
    return out if keepdims else reshape(out, tuple(n for k, n in enumerate(np.shape(x)) if k not in axes))


def average(a: Array, axis: Any = None, weights: Any = None, *, keepdims: bool = False) -> Any:
    """The mean with weights.

    >>> import tinygrad_rnn as tg
    >>> tg.average(tg.tensor([1.0, 3.0]), weights=[3, 1]).item()
    1.5
    """
    if weights is None:
        return mean(a, axis, keepdims=keepdims)
    weights = weights if hasattr(weights, "shape") else np.asarray(weights, getattr(a, "dtype", None))
    if weights.shape != a.shape:
        if not isinstance(axis, int) or weights.shape != (a.shape[axis],):
            raise ShapeError(f"average: weights of shape {weights.shape} do not fit an array of shape {a.shape} with axis {axis}")
        weights = weights.reshape(tuple(n if k == axis % a.ndim else 1 for k, n in enumerate(a.shape)))
    total = sum(a * weights, axis, keepdims=keepdims)
    whole = broadcast_to(weights, a.shape)
    return divide(total, sum(whole, axis, keepdims=keepdims))


__all__ = [
    "amax", "amin", "average", "cumprod", "cumsum", "log_softmax", "logsumexp", "max", "mean", "min",
    "norm", "prod", "ptp", "softmax", "std", "sum", "var",
]  # fmt: skip
