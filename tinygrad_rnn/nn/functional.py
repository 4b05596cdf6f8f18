"""Losses and dropout as functions, with PyTorch's names and meanings.

Where PyTorch answers NaN or warns, these raise: a mean over nothing (every target ignored, an empty batch),
and a target whose shape or floating dtype is not the input's.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..core.creation import draw, generator
from ..core.primitive import primitive
from ..core.tape import Array
from ..core.tensor import Tensor, is_tensor, tensor, wrap
from ..errors import DtypeError, NotDifferentiableError, OutOfRangeError, ShapeError
from ..ops.convolution import avg_pool2d as avg_pool2d
from ..ops.convolution import conv2d as conv2d
from ..ops.convolution import max_pool2d as max_pool2d
from ..ops.elementwise import absolute, clip, sigmoid, softplus, square, where
from ..ops.elementwise import elu as elu
from ..ops.elementwise import gelu as gelu
from ..ops.elementwise import leaky_relu as leaky_relu
from ..ops.elementwise import relu as relu
from ..ops.elementwise import silu as silu
from ..ops.elementwise import tanh as tanh
from ..ops.indexing import embedding as embedding
from ..ops.indexing import one_hot as one_hot
from ..ops.indexing import take_along_axis
from ..ops.reduction import log_softmax, mean, softmax
from ..ops.reduction import sum as total_of
from ..ops.shapes import axes_of, kept_shape


@primitive(constant="target scale")
def _cross_entropy(input: Array, target: Any, scale: Any, total: bool = True, axis: int = -1) -> Any:
    """``scale * (logsumexp(input) - input[target])`` over the classes on ``axis``, added up if ``total``.

    ``target`` and ``scale`` have length 1 on ``axis``. A position whose scale is 0 counts as 0 whatever its input.
    """
    shifted = input - np.max(input, axis=axis, keepdims=True)
    picked = np.take_along_axis(shifted, target, axis)
    loss = np.log(np.sum(np.exp(shifted, out=shifted), axis=axis, keepdims=True)) - picked
    loss = np.multiply(loss, scale, out=np.zeros_like(loss), where=np.not_equal(scale, 0))
    return np.sum(loss) if total else np.squeeze(loss, axis)


@_cross_entropy.rule
def _cross_entropy_input(g: Array, input: Array, target: Any, scale: Any, total: bool, axis: int) -> Array:
    return _cross_entropy_gradient((g if total else g.reshape(target.shape)) * scale, input, target, axis)


@primitive(constant="target")
def _cross_entropy_gradient(y: Array, input: Array, target: Any, axis: int = -1) -> Any:
    """``y * (softmax(input) - onehot(target))``; ``y`` has length 1 on ``axis``."""
    e = input - np.max(input, axis=axis, keepdims=True)
    np.exp(e, out=e)
    e *= y / np.sum(e, axis=axis, keepdims=True)
    np.put_along_axis(e, target, np.take_along_axis(e, target, axis) - y, axis)
    if not np.all(y):
        np.copyto(e, 0, where=np.equal(y, 0))
    return e


@_cross_entropy_gradient.rule
def _cross_entropy_gradient_y(g: Array, input: Array, target: Any, axis: int) -> Array:
    return (g * softmax(input, axis)).sum(axis=axis, keepdims=True) - take_along_axis(g, target, axis)


@_cross_entropy_gradient.rule
def _cross_entropy_gradient_input(g: Array, y: Array, input: Array, axis: int) -> Array:
    p, g = softmax(input, axis), g * y
    return p * (g - (p * g).sum(axis=axis, keepdims=True))


@primitive
def _soft_cross_entropy(input: Array, target: Array, scale: float = 1.0, total: bool = True, axis: int = -1) -> Any:
    """``-scale * sum(target * log_softmax(input))`` over the classes on ``axis``, and over all if ``total``; 0 times -inf is 0."""
    log_p = log_softmax(input, axis)
    loss = np.multiply(target, log_p, out=np.zeros_like(log_p), where=np.not_equal(target, 0))
    return np.sum(loss, axis=None if total else axis) * -scale


@_soft_cross_entropy.rule
def _soft_cross_entropy_input(g: Array, input: Array, target: Array, scale: float, total: bool, axis: int) -> Array:
    g = (g if total else g.reshape(kept_shape(input.shape, axis))) * scale
    return g * (softmax(input, axis) * target.sum(axis=axis, keepdims=True) - target)


@_soft_cross_entropy.rule
def _soft_cross_entropy_target(g: Array, input: Array, scale: float, total: bool, axis: int) -> Array:
    g = (g if total else g.reshape(kept_shape(input.shape, axis))) * -scale
    return g * log_softmax(input, axis)


@primitive
def _binary_cross_entropy(input: Array, target: Array, pos_weight: Any = 1.0) -> Any:
    """``pos_weight * target * softplus(-input) + (1 - target) * softplus(input)``: two terms of one sign, so nothing cancels."""
    tail = np.log1p(np.exp(-np.abs(input)))
    return pos_weight * target * (tail - np.minimum(input, 0)) + (1.0 - target) * (tail + np.maximum(input, 0))


@_binary_cross_entropy.rule
def _binary_cross_entropy_input(g: Array, input: Array, target: Array, pos_weight: Any) -> Array:
    return g * ((1.0 - target) * sigmoid(input) - pos_weight * target * sigmoid(-input))


@_binary_cross_entropy.rule
def _binary_cross_entropy_target(g: Array, input: Array, pos_weight: Any) -> Array:
    return g * (pos_weight * softplus(-input) - softplus(input))


@_binary_cross_entropy.rule
def _binary_cross_entropy_pos_weight(g: Array, input: Array, target: Array) -> Array:
    return g * target * softplus(-input)


@primitive(constant="kept")
def _dropout(x: Array, kept: Any, scale: float = 1.0) -> Any:
    """``scale * x`` where ``kept``, else 0, whatever x is there."""
    out = np.asarray(np.multiply(x, scale))
    # Times 0 or 1 as integers of the same bits: np.where is 20 times slower on a random mask, and infinity times 0.0 is NaN.
    bits = out.view(f"i{out.itemsize}")
    np.multiply(bits, kept, out=bits)
    return out


@_dropout.rule
def _dropout_x(g: Array, kept: Any, scale: float) -> Array:
    return _dropout(g, kept, scale)


def _reduction(what: str, reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{what}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def _reduced(what: str, loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean" and not loss.size:
        raise ShapeError(f"{what}: input of shape {loss.shape} has no element to average; leave empty batches out, or use reduction='sum'")
    reduced: Tensor = loss if reduction == "none" else mean(loss) if reduction == "mean" else total_of(loss)
    return reduced


def _floating(what: str, name: str, value: Any) -> Tensor:
    x: Tensor = value if is_tensor(value) else tensor(value)
    if x.dtype.kind != "f":
        raise DtypeError(f"{what}: {name} has dtype {x.dtype}, expected floats; convert it with .astype(tg.float32)")
    return x


def _like(what: str, name: str, value: Any, input: Tensor) -> Tensor:
    """The value in the input's dtype. Python numbers, integers and bools are converted; one of two float dtypes is not chosen unasked."""
    x: Tensor = value if is_tensor(value) else tensor(value, dtype=None if isinstance(value, np.ndarray) else input.dtype)
    if x.dtype.kind != "f":
        return x.astype(input.dtype)
    if x.dtype != input.dtype:
        raise DtypeError(f"{what}: {name} has dtype {x.dtype} and input {input.dtype}; convert {name} with .astype({str(input.dtype)!r})")
    return x


def _pair(what: str, input: Any, target: Any, reduction: str) -> tuple[Tensor, Tensor]:
    """Input and target of a loss that compares element by element, checked."""
    _reduction(what, reduction)
    x = _floating(what, "input", input)
    y = _like(what, "target", target, x)
    if y.shape != x.shape:
        raise ShapeError(f"{what}: target has shape {y.shape}, expected {x.shape} as input; nothing is broadcast")
    return x, y


def _class_axis(what: str, x: Tensor, axis: int | None) -> int:
    if not x.ndim:
        raise ShapeError(f"{what}: input is 0-d, expected an axis of classes")
    (k,) = axes_of(what, ((x.ndim > 1) if axis is None else axis,), x.ndim)
    if not x.shape[k]:
        raise ShapeError(f"{what}: input of shape {x.shape} has no classes on axis {k}")
    return k


def _class_weights(what: str, weight: Any, x: Tensor, axis: int) -> np.ndarray | None:
    if weight is None:
        return None
    w = _like(what, "weight", weight, x)
    if w.requires_grad:
        raise NotDifferentiableError(f"{what}: weight requires grad, but there is no gradient for it; pass weight.detach()")
    if w.shape != (x.shape[axis],):
        raise ShapeError(f"{what}: weight has shape {w.shape}, expected ({x.shape[axis]},), one for each class on axis {axis} of input {x.shape}")
    return w.numpy()


def _class_indices(what: str, target: np.ndarray, x: Tensor, axis: int, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    """The class of each position, 0 where it is ignored, and whether it is not; of length 1 on the axis of classes."""
    classes, rest = x.shape[axis], x.shape[:axis] + x.shape[axis + 1 :]
    if target.shape != rest:
        raise ShapeError(
            f"{what}: target has shape {target.shape}, expected {rest}: a class index for each position of input {x.shape}, which has {classes} classes on axis {axis}"
        )
    if target.dtype.kind not in "iu":
        raise DtypeError(f"{what}: target has dtype {target.dtype}, expected integers for class indices")
    index = target.astype(np.intp)
    kept = index != ignore_index
    index[~kept] = 0
    if index.size and not 0 <= index.min() <= index.max() < classes:
        place = tuple(np.argwhere((index < 0) | (index >= classes))[0].tolist())
        at = f"target[{', '.join(map(str, place))}]" if place else "target"
        raise OutOfRangeError(f"{what}: {at} is {index[place]}, out of range for {classes} classes (0 to {classes - 1}); only ignore_index={ignore_index} may lie outside")
    return np.expand_dims(index, axis), np.expand_dims(kept, axis)


def _divisor(what: str, weights: np.ndarray, kept: np.ndarray, reduction: str) -> float:
    """What the weighted sum over positions is divided by."""
    if reduction != "mean":
        return 1.0
    total = float(np.sum(weights, dtype=np.float64))
    if total:
        return total
    why = "the batch is empty" if not kept.size else "every target is ignored" if not kept.any() else "the class weights of the targets add up to 0"
    raise ShapeError(f"{what}: there is nothing to average, as {why}; leave such batches out, or use reduction='sum'")


def _array(target: Any) -> np.ndarray:
    array = target.numpy() if is_tensor(target) else np.asarray(target)
    return array.astype(np.intp) if not array.size and not hasattr(target, "dtype") else array


def _integer(what: str, name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise DtypeError(f"{what}: {name} must be an integer, got {value!r}") from error


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    axis: int | None = None,
) -> Tensor:
    """The cross entropy in nats of scores (logits) and classes: ``-log(softmax(input)[target])``.

    ``input`` has the classes on ``axis``: by default axis 1, or axis 0 of a vector, as in PyTorch, so (batch, classes) or
    (batch, classes, time); (time, batch, classes) takes ``axis=-1``. ``target`` is either integer class indices, of
    input's shape without that axis, or class probabilities, floats of input's shape and dtype. ``weight`` (classes,)
    scales each class; ``"mean"`` divides by the weights of the targets, or with probabilities by the number of positions.
    Positions whose index is ``ignore_index`` count for nothing. ``label_smoothing`` mixes the target with the uniform
    distribution (Szegedy et al. 2016, section 7). The result has input's dtype; ``reduction="none"`` gives one number a position.

    Raises ``ShapeError`` for shapes that do not fit and, where PyTorch returns NaN, for a mean over nothing;
    ``DtypeError`` for dtypes, ``OutOfRangeError`` for a class that does not exist, ``ValueError`` for other settings.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn.nn.functional import cross_entropy
    >>> cross_entropy(tg.zeros((2, 4)), [3, 0])
    tensor(1.3863, float32)
    """
    what = "cross_entropy"
    _reduction(what, reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{what}: label_smoothing must lie in [0, 1], got {label_smoothing!r}")
    ignore_index = _integer(what, "ignore_index", ignore_index)
    x = _floating(what, "input", input)
    k = _class_axis(what, x, axis)
    classes, total = x.shape[k], reduction != "none"
    w = _class_weights(what, weight, x, k)
    along = 1.0 if w is None else w.reshape([classes if j == k else 1 for j in range(x.ndim)])
    if np.shape(target) == x.shape:
        if ignore_index >= 0:
            raise ValueError(f"{what}: ignore_index={ignore_index} is for class indices; target has input's shape {x.shape}, so it holds class probabilities")
        return _of_probabilities(what, x, target, along, reduction, label_smoothing, k)
    index, kept = _class_indices(what, _array(target), x, k, ignore_index)
    weights = kept.astype(x.dtype) if w is None else np.where(kept, w[index], 0)
    divisor = _divisor(what, weights, kept, reduction)
    loss: Tensor
    if not label_smoothing:
        loss = _cross_entropy(x, wrap(index), wrap(weights / divisor), total, k)
        return loss
    q = np.zeros(x.shape, x.dtype)
    np.copyto(q, (label_smoothing / classes) * along, where=kept)
    np.put_along_axis(q, index, np.take_along_axis(q, index, k) + (1.0 - label_smoothing) * weights, k)
    loss = _soft_cross_entropy(x, wrap(q), 1.0 / divisor, total, k)
    return loss


def _of_probabilities(what: str, x: Tensor, target: Any, along: Any, reduction: str, label_smoothing: float, axis: int) -> Tensor:
    if getattr(target, "dtype", x.dtype).kind != "f":
        raise DtypeError(
            f"{what}: target has input's shape {x.shape}, so it holds class probabilities, but dtype {target.dtype}; "
            f"convert it with .astype({str(x.dtype)!r}), or give class indices of shape {x.shape[:axis] + x.shape[axis + 1 :]}"
        )
    q = _like(what, "target", target, x)
    positions = np.ones(kept_shape(x.shape, axis), bool)
    if label_smoothing:
        q = q * (1.0 - label_smoothing) + label_smoothing / x.shape[axis]
    if isinstance(along, np.ndarray):
        q = q * along
    loss: Tensor = _soft_cross_entropy(x, q, 1.0 / _divisor(what, positions, positions, reduction), reduction != "none", axis)
    return loss


def nll_loss(input: Any, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean", axis: int | None = None) -> Tensor:
    """The negative log likelihood of log-probabilities: ``-input[target]``, for the class indices of :func:`cross_entropy`.

    Shapes, ``weight``, ``ignore_index``, ``reduction``, ``axis`` and errors are those of :func:`cross_entropy`.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn.nn.functional import nll_loss
    >>> nll_loss(tg.log_softmax(tg.zeros((2, 4))), [3, 0])
    tensor(1.3863, float32)
    """
    what = "nll_loss"
    _reduction(what, reduction)
    ignore_index = _integer(what, "ignore_index", ignore_index)
    x = _floating(what, "input", input)
    k = _class_axis(what, x, axis)
    w = _class_weights(what, weight, x, k)
    index, kept = _class_indices(what, _array(target), x, k, ignore_index)
    weights = kept.astype(x.dtype) if w is None else np.where(kept, w[index], 0)
    scale = weights / -_divisor(what, weights, kept, reduction)
    terms = where(scale != 0, take_along_axis(x, index, k), 0.0) * wrap(scale)
    loss: Tensor = terms.reshape(x.shape[:k] + x.shape[k + 1 :]) if reduction == "none" else total_of(terms)
    return loss


def binary_cross_entropy_with_logits(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None) -> Tensor:
    """The cross entropy in nats of two classes, from the score of the positive one: ``-y log(p) - (1 - y) log(1 - p)``, ``p = sigmoid(input)``.

    ``target`` has input's shape: probabilities y in [0, 1], or bools or integers. ``weight`` scales each element and
    ``pos_weight`` the positive term; both broadcast to input's shape. Does not overflow, and keeps its relative precision
    where the loss is small.

    Raises ``ShapeError`` for other shapes and for the mean of nothing, ``DtypeError`` for dtypes, ``ValueError`` for
    another reduction.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn.nn.functional import binary_cross_entropy_with_logits
    >>> binary_cross_entropy_with_logits(tg.tensor([0.0, 1000.0]), [0, 1])
    tensor(0.3466, float32)
    """
    what = "binary_cross_entropy_with_logits"
    x, y = _pair(what, input, target, reduction)
    loss = _binary_cross_entropy(x, y, 1.0 if pos_weight is None else _broadcastable(what, "pos_weight", pos_weight, x))
    return _reduced(what, loss if weight is None else loss * _broadcastable(what, "weight", weight, x), reduction)


def _broadcastable(what: str, name: str, value: Any, x: Tensor) -> Tensor:
    scale = _like(what, name, value, x)
    if scale.ndim > x.ndim or any(n not in (1, m) for n, m in zip(scale.shape[::-1], x.shape[::-1], strict=False)):
        raise ShapeError(f"{what}: {name} has shape {scale.shape}, which does not broadcast to input {x.shape}")
    return scale


def mse_loss(input: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """The squared difference, averaged over all elements (or ``"sum"``, ``"none"``).

    ``target`` has input's shape, and its dtype or integers. Raises ``ShapeError`` for other shapes and for the mean
    of nothing, ``DtypeError`` for dtypes, ``ValueError`` for another reduction; so do the two below.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn.nn.functional import mse_loss
    >>> mse_loss(tg.tensor([1.0, 2.0]), [0, 0])
    tensor(2.5, float32)
    """
    x, y = _pair("mse_loss", input, target, reduction)
    return _reduced("mse_loss", square(x - y), reduction)


def l1_loss(input: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """The absolute difference, reduced as in :func:`mse_loss`; its gradient at 0 is 0.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn.nn.functional import l1_loss
    >>> l1_loss(tg.tensor([1.0, -2.0]), [0, 0])
    tensor(1.5, float32)
    """
    x, y = _pair("l1_loss", input, target, reduction)
    return _reduced("l1_loss", absolute(x - y), reduction)


def huber_loss(input: Any, target: Any, *, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Half the squared difference d up to ``delta``, then ``delta * (abs(d) - delta / 2)`` (Huber 1964); reduced as in :func:`mse_loss`.

    Raises ``ValueError`` unless ``delta`` is positive.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn.nn.functional import huber_loss
    >>> huber_loss(tg.tensor([0.5, 3.0]), [0, 0], reduction="none")
    tensor([0.125, 2.5], float32)
    """
    x, y = _pair("huber_loss", input, target, reduction)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta!r}")
    d = x - y
    near = clip(d, -float(delta), float(delta))
    return _reduced("huber_loss", near * (d - 0.5 * near), reduction)


def dropout(x: Any, p: float = 0.5, training: bool = True, rng: Any = None) -> Any:
    """Zeros in place of elements, each with probability ``p``, and the others divided by ``1 - p`` (Srivastava et al. 2014).

    Without ``training``, or with ``p=0``, it is ``x`` itself. ``rng`` is a numpy Generator or a seed; what one byte an
    element remembers is kept for the backward pass. Raises ``ValueError`` for ``p`` outside [0, 1], ``DtypeError`` unless x is floating.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn.nn.functional import dropout
    >>> dropout(tg.ones(6), 0.5, rng=1)
    tensor([0., 2., 2., 2., 0., 0.], float32)
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must lie in [0, 1], got {p!r}")
    if not training or p == 0:
        return x
    x, source = _floating("dropout", "x", x), generator(rng)
    kept = draw(lambda: source.random(x.shape, np.float32) >= p)
    return _dropout(x, wrap(kept), 1.0 / (1.0 - float(p)) if p < 1 else 1.0)


__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "dropout", "huber_loss", "l1_loss", "mse_loss", "nll_loss"]
