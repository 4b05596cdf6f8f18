"""Convolution and pooling of images (batch, channels, height, width).

The convolution, its gradient for the image and its gradient for the weight are each linear in two arguments,
and the gradients of each are the other two: three primitives that give derivatives of every order.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..core.primitive import primitive
from ..core.tape import Array
from ..core.tensor import reading
from ..errors import DtypeError, ShapeError
from ..native import dot
from .indexing import take_along_axis
from .shaping import pad, reshape

Pair = tuple[int, int]

# Products with fewer terms than this take longer than the copies that make them longer.
_ENOUGH = 16

# So many elements stay in the cache while the products of all kernel rows are added to them.
_IN_CACHE = 1 << 18


def _pair(what: str, name: str, value: Any, least: int) -> Pair:
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    try:
        pair = tuple(operator.index(v) for v in values)
    except TypeError as error:
        raise DtypeError(f"{what}: {name} must be an integer or a pair of integers, got {value!r}") from error
    if len(pair) != 2 or min(pair) < least:
        raise ShapeError(f"{what}: {name} must be an integer or a pair of at least {least}, got {value!r}")
    return pair


def _shape(x: Any) -> tuple[int, ...]:
    """``np.shape``, which takes a tensor the long way through NumPy's protocols."""
    shape: tuple[int, ...] = getattr(x, "shape", None) or np.shape(x)
    return shape


def _out_length(what: str, size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    if kernel < 1:
        raise ShapeError(f"{what}: a kernel of {kernel} rows or columns has no elements")
    room = size + 2 * padding - (dilation * (kernel - 1) + 1)
    if room < 0:
        raise ShapeError(f"{what}: a kernel of {kernel} with dilation {dilation} does not fit an image of {size} with padding {padding}")
    return room // stride + 1


def _inner(x: np.ndarray) -> np.ndarray:
    """Images with the batch innermost, (channels, height, width, batch): shifted windows are then copied in long runs."""
    return np.ascontiguousarray(x.transpose(1, 2, 3, 0))


def _outer(x: np.ndarray) -> np.ndarray:
    """A view of (channels, height, width, batch) as images."""
    return x.transpose(3, 0, 1, 2)


def _framed(x: np.ndarray, padding: Pair) -> np.ndarray:
    """(channels, height, width, batch) with zeros around each image; a negative padding crops."""
    (ph, pw), (c, height, width, n) = padding, x.shape
    x = x[:, max(0, -ph) : height - max(0, -ph), max(0, -pw) : width - max(0, -pw)]
    if max(padding) <= 0:
        return x
    framed = np.zeros((c, height + 2 * ph, width + 2 * pw, n), x.dtype)
    framed[:, max(0, ph) : max(0, ph) + x.shape[1], max(0, pw) : max(0, pw) + x.shape[2]] = x
    return framed


def _taps(x: np.ndarray, axis: int, size: int, step: int, count: int, gap: int = 1) -> list[np.ndarray]:
    """Views of the first, the second, ... elements of all windows along an axis."""
    return [x[(slice(None),) * axis + (slice(i, i + step * (count - 1) + 1, step),)] for i in range(0, gap * size, gap)]


def _columns(
    x: np.ndarray, kernel: Pair, out: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> list[tuple[slice, np.ndarray]]:
    """Rows of the kernel with what they are multiplied by: (groups, channels * kernel rows * kernel columns, rows * columns * batch).

    ``x`` has the batch innermost. With a stride of 1, one copy of the image for each kernel column serves all kernel rows, as windows
    of whole rows; where that leaves too short a product, or the stride skips rows, all kernel rows come at once.
    """
    c, n = x.shape[0], x.shape[3]
    (kh, kw), (rows, columns) = kernel, out
    alone = stride[0] == 1 and c // groups * kw >= _ENOUGH
    taps, length = (1, rows + dilation[0] * (kh - 1)) if alone else (kh, rows)
    copies = np.empty((c, taps, kw, length, columns, n), x.dtype)
    for i, row in enumerate(_taps(_framed(x, padding), 1, taps, stride[0], length, dilation[0])):
        for j, tap in enumerate(_taps(row, 2, kw, stride[1], columns, dilation[1])):
            copies[:, i, j] = tap
    flat = copies.reshape(groups, c // groups * taps * kw, length * columns * n)
    size = columns * n
    return [(slice(i, i + taps), flat[:, :, i * dilation[0] * size : (i * dilation[0] + rows) * size]) for i in range(0, kh, taps)]


def _products(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The matrix product of each group."""
    if len(a) > 1:
        return np.asarray(np.matmul(a, b, out=out))
    return dot(a[0], b[0], None if out is None else out[0])[None]


def _correlate(x: np.ndarray, weight: np.ndarray, out: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> np.ndarray:
    """The convolution of (channels, height, width, batch), of the size ``out``; a negative padding crops."""
    o, _, kh, kw = weight.shape
    columns = _columns(x, (kh, kw), out, stride, padding, dilation, groups)
    terms = [(weight[:, :, rows].reshape(groups, o // groups, matrix.shape[1]), matrix) for rows, matrix in columns]
    total = np.empty((groups, o // groups, out[0] * out[1] * x.shape[3]), np.result_type(x, weight))
    size = max(1, _IN_CACHE * groups // max(1, o))
    for start in range(0, total.shape[2], size):
        block = slice(start, start + size)
        for k, (factor, matrix) in enumerate(terms):
            if k == 0:
                _products(factor, matrix[:, :, block], out=total[:, :, block])
            else:
                total[:, :, block] += _products(factor, matrix[:, :, block])
    return total.reshape(o, *out, x.shape[3])


@primitive
def _conv2d(x: Array, weight: Array, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1) -> Any:
    """The convolution: sums of products of the weight with each window."""
    height, width = (_out_length("conv2d", *sizes) for sizes in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True))
    return _outer(_correlate(_inner(x), weight, (height, width), stride, padding, dilation, groups))


@_conv2d.rule
def _conv2d_x(g: Array, weight: Array, x_shape: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    return _conv2d_image(g, weight, x_shape, stride, padding, dilation, groups)


@_conv2d.rule
def _conv2d_weight(g: Array, x: Array, weight_shape: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    return _conv2d_kernel(g, x, weight_shape, stride, padding, dilation, groups)


@primitive
def _conv2d_image(
    y: Array, weight: Array, shape: Any = (), stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1
) -> Any:
    """The convolution's gradient for the image: the weight added up at each window."""
    n, c, height, width = shape
    o, _, kh, kw = weight.shape
    (ph, pw), (dh, dw) = padding, dilation
    y = _inner(y)
    weights = weight.reshape(groups, o // groups, c // groups, kh, kw).swapaxes(1, 2)
    if stride == (1, 1):
        flipped = weights[..., ::-1, ::-1].reshape(c, o // groups, kh, kw)
        return _outer(_correlate(y, flipped, (height, width), stride, (dh * (kh - 1) - ph, dw * (kw - 1) - pw), dilation, groups))
    rows, columns = y.shape[1:3]
    y = y.reshape(groups, o // groups, rows * columns * n)
    total = np.zeros((c, height + 2 * ph, width + 2 * pw, n), np.result_type(y, weight))
    for i, row in enumerate(_taps(total, 1, kh, stride[0], rows, dh)):
        products = _products(weights[:, :, :, i].swapaxes(2, 3).reshape(groups, c // groups * kw, o // groups), y).reshape(c, kw, rows, columns, n)
        for j, tap in enumerate(_taps(row, 2, kw, stride[1], columns, dw)):
            tap += products[:, j]
    return _outer(_framed(total, (-ph, -pw)))


@_conv2d_image.rule
def _conv2d_image_y(g: Array, weight: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    return _conv2d(g, weight, stride, padding, dilation, groups)


@_conv2d_image.rule
def _conv2d_image_weight(g: Array, y: Array, weight_shape: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    return _conv2d_kernel(y, g, weight_shape, stride, padding, dilation, groups)


@primitive
def _conv2d_kernel(
    y: Array, x: Array, shape: Any = (), stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1
) -> Any:
    """The convolution's gradient for the weight: products of the output's gradient with each window."""
    o, c, kh, kw = shape
    n, _, height, width = y.shape
    total = np.empty(shape, np.result_type(y, x))
    y = _inner(y).reshape(groups, o // groups, height * width * n).swapaxes(1, 2)
    for rows, matrix in _columns(_inner(x), (kh, kw), (height, width), stride, padding, dilation, groups):
        total[:, :, rows] = _products(matrix, y).swapaxes(1, 2).reshape(o, c, rows.stop - rows.start, kw)
    return total


@_conv2d_kernel.rule
def _conv2d_kernel_y(g: Array, x: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    return _conv2d(x, g, stride, padding, dilation, groups)


@_conv2d_kernel.rule
def _conv2d_kernel_x(g: Array, y: Array, x_shape: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    return _conv2d_image(y, g, x_shape, stride, padding, dilation, groups)


def conv2d(x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    """The convolution of images (batch, channels, height, width) with weights (out, channels / groups, rows, columns).

    As in PyTorch the weight is not flipped. Also takes one image (channels, height, width).
    Raises ``ShapeError`` where channels and groups do not fit or the kernel is larger than the padded image.

    >>> import tinygrad_rnn as tg
    >>> tg.conv2d(tg.ones((1, 1, 4, 4)), tg.ones((2, 1, 3, 3)), padding=1).shape
    (1, 2, 4, 4)
    """
    if len(_shape(x)) == 3:
        out = conv2d(reshape(x, (1, *_shape(x))), weight, bias, stride, padding, dilation, groups)
        return reshape(out, out.shape[1:])
    shape, kernel = _shape(x), _shape(weight)
    if len(shape) != 4 or len(kernel) != 4:
        raise ShapeError(f"conv2d: expected x (batch, channels, height, width) and weight (out, channels, rows, columns), got {shape} and {kernel}")
    groups = operator.index(groups)
    if groups < 1 or shape[1] != kernel[1] * groups or kernel[0] % groups:
        raise ShapeError(f"conv2d: channels={shape[1]} of x {shape} do not fit weight {kernel} with groups={groups}: weight takes {kernel[1]} * {groups}, and its {kernel[0]} outputs must divide into the groups")
    out = _conv2d(
        x, weight, _pair("conv2d", "stride", stride, 1), _pair("conv2d", "padding", padding, 0), _pair("conv2d", "dilation", dilation, 1), groups
    )
    if bias is None:
        return out
    if _shape(bias) != (kernel[0],):
        raise ShapeError(f"conv2d: bias has shape {_shape(bias)}, expected ({kernel[0]},), one for each output channel")
    return out + reshape(bias, (kernel[0], 1, 1))


@primitive
def _window_sum(x: Array, kernel: Pair = (1, 1), stride: Pair = (1, 1)) -> Any:
    """The sum over each window."""
    x = _inner(x)
    for axis, size, step in zip((1, 2), kernel, stride, strict=True):
        first, *others = _taps(x, axis, size, step, (x.shape[axis] - size) // step + 1)
        x = sum(others, first)
    return _outer(x)


@_window_sum.rule
def _window_sum_x(g: Array, x_shape: Any, kernel: Pair, stride: Pair) -> Array:
    return _window_spread(g, x_shape, kernel, stride)


@primitive
def _window_spread(y: Array, shape: Any = (), kernel: Pair = (1, 1), stride: Pair = (1, 1)) -> Any:
    """Each value added to its whole window: the adjoint of the sum over windows."""
    y = _inner(y)
    for axis, size, step in zip((2, 1), kernel[::-1], stride[::-1], strict=True):
        total = np.zeros((*y.shape[:axis], shape[axis + 1], *y.shape[axis + 1 :]), y.dtype)
        for tap in _taps(total, axis, size, step, y.shape[axis]):
            tap[...] = y if size <= step else tap + y
        y = total
    return _outer(y)


@_window_spread.rule
def _window_spread_y(g: Array, kernel: Pair, stride: Pair) -> Array:
    return _window_sum(g, kernel, stride)


def _pooling(what: str, x: Array, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1) -> tuple[Pair, Pair, Pair, Pair, Pair]:
    kernel = _pair(what, "kernel_size", kernel_size, 1)
    steps = kernel if stride is None else _pair(what, "stride", stride, 1)
    frame, gaps = _pair(what, "padding", padding, 0), _pair(what, "dilation", dilation, 1)
    if len(_shape(x)) != 4:
        raise ShapeError(f"{what}: expected x (batch, channels, height, width), got shape {_shape(x)}")
    if 2 * frame[0] > kernel[0] or 2 * frame[1] > kernel[1]:
        raise ShapeError(f"{what}: padding {frame} is more than half the kernel {kernel}")
    out = tuple(_out_length(what, *sizes) for sizes in zip(_shape(x)[2:], kernel, steps, frame, gaps, strict=True))
    return kernel, steps, frame, gaps, out  # type: ignore[return-value]


def avg_pool2d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, count_include_pad: bool = True) -> Any:
    """The mean of each window of images (batch, channels, height, width), or of one image without the batch axis.

    ``stride`` is the kernel size if not given. Zeros of the padding count unless ``count_include_pad`` is False.

    >>> import tinygrad_rnn as tg
    >>> tg.avg_pool2d(tg.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0]
    tensor([[2.5, 4.5], [10.5, 12.5]], float32)
    """
    if len(_shape(x)) == 3:
        out = avg_pool2d(reshape(x, (1, *_shape(x))), kernel_size, stride, padding, count_include_pad)
        return reshape(out, out.shape[1:])
    kernel, steps, (ph, pw), _, _ = _pooling("avg_pool2d", x, kernel_size, stride, padding)
    frame = ((0, 0), (0, 0), (ph, ph), (pw, pw))
    sums = _window_sum(pad(x, frame) if ph or pw else x, kernel, steps)
    if count_include_pad or not (ph or pw):
        return sums / (kernel[0] * kernel[1])
    counts = _window_sum(np.pad(np.ones((1, 1, *x.shape[2:]), x.dtype), frame), kernel, steps)
    return sums / counts


def max_pool2d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> Any:
    """The largest element of each window of images (batch, channels, height, width), or of one image.

    ``stride`` is the kernel size if not given; padding never wins. The gradient goes to the first of the
    largest elements of each window.

    >>> import tinygrad_rnn as tg
    >>> tg.max_pool2d(tg.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0]
    tensor([[5., 7.], [13., 15.]], float32)
    """
    if len(_shape(x)) == 3:
        out = max_pool2d(reshape(x, (1, *_shape(x))), kernel_size, stride, padding, dilation)
        return reshape(out, out.shape[1:])
    kernel, steps, frame, gaps, (rows, columns) = _pooling("max_pool2d", x, kernel_size, stride, padding, dilation)
    n, c, height, width = x.shape
    chosen = _largest(x, kernel, steps, frame, gaps, (rows, columns))
    flat = take_along_axis(reshape(x, (n, c, height * width)), chosen.reshape(n, c, rows * columns))
    return reshape(flat, (n, c, rows, columns))


def _largest(x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> np.ndarray:
    """The place, in the flattened image, of the first of the largest elements of each window."""
    values = getattr(x, "_data", x)
    reading("the largest of values was looked for")
    (ph, pw), width = padding, values.shape[3]
    lowest = -np.inf if values.dtype.kind == "f" else np.iinfo(values.dtype).min
    values = _inner(values)
    if ph or pw:
        values = np.pad(values, ((0, 0), (ph, ph), (pw, pw), (0, 0)), constant_values=lowest)
    taps = [tap for row in _taps(values, 1, kernel[0], stride[0], out[0], dilation[0]) for tap in _taps(row, 2, kernel[1], stride[1], out[1], dilation[1])]
    best, number = taps[0], np.min_scalar_type(len(taps)).type
    chosen = np.zeros(best.shape, number)
    for k, tap in enumerate(taps[1:], 1):
        # As in argmax, the first NaN is the largest.
        np.maximum(chosen, number(k) * (~(tap <= best) & (best == best)), out=chosen)
        best = np.maximum(best, tap)
    i, j = np.divmod(np.arange(len(taps)), kernel[1])
    chosen = np.ascontiguousarray(_outer(chosen))
    row = (i * dilation[0])[chosen] + (np.arange(out[0]) * stride[0] - ph)[:, None]
    column = (j * dilation[1])[chosen] + (np.arange(out[1]) * stride[1] - pw)
    # A window of -inf alone may have chosen the padding before it: its nearest pixel stands for it.
    row, column = np.maximum(row, 0), np.maximum(column, 0)
    return np.asarray(row * width + column)


__all__ = ["avg_pool2d", "conv2d", "max_pool2d"]
