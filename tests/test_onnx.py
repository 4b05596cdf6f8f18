"""The ONNX backend node cases, as published vectors: every graph of the operators that our operations can express is run and differentiated."""

import fnmatch
import functools
import math
import warnings

import numpy as np
import pytest

import tinygrad_rnn as tg

# Before this version some casts had the dtype of their storage, and one expected value was NaN by mistake.
onnx = pytest.importorskip("onnx", minversion="1.21")

# Cases of the operators below that are left out, by the reason. One that runs all the same is an error, so the lists stay true.
LEFT_OUT = {
    "convolution and pooling are of images": "test_averagepool_3d_* test_lppool_3d_* test_maxpool_3d_* test_convtranspose_3d",
    "avg_pool2d has no dilation": "test_averagepool_2d_dilations test_lppool_2d_dilations",
    "max_pool2d gives no places": "test_maxpool_with_argmax_*",
    "the mask is random": "test_training_dropout*",
    "nothing to reduce is an error here, and NaN or an infinity there": "test_reduce_log_sum_exp_empty_set test_reduce_max_empty_set* test_reduce_min_empty_set",
    "scatter adds up": "test_scatter*_mul* test_scatter*_max* test_scatter*_min*",
    "batches of sequences, which the standard has given up": "test_scan_sum",
    "published to four digits": "test_averagepool_2d_ceil_last_window_starts_on_pad",
}
WITHOUT_GRADIENT: dict[str, str] = {}
# Operators without an entry: quantization, bits, strings, sequences, control flow, random numbers, resampling, spectra, decision trees, optimizers;
# and functions such as Attention, RotaryEmbedding or LinearAttention, whose expanded graphs are run instead.

UNARY = "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor IsNaN Log Neg Not Reciprocal Relu Round Sigmoid Sign Sin Sinh Softplus Sqrt Tan Tanh"
BINARY = "Add And BitwiseAnd BitwiseOr BitwiseXor Equal Greater GreaterOrEqual Less LessOrEqual MatMul Mul Or Sub Xor"
OURS = {
    "Acos": "arccos", "Acosh": "arccosh", "Asin": "arcsin", "Asinh": "arcsinh", "Atan": "arctan", "Atanh": "arctanh", "Neg": "negative", "Not": "logical_not",
    "Round": "rint", "Sub": "subtract", "Mul": "multiply", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor", "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor", "GreaterOrEqual": "greater_equal", "LessOrEqual": "less_equal",
}  # fmt: skip


def ints(x):
    return None if x is None else x.numpy().tolist()


def cast(a, x, dtype):
    # Finite differences need double precision throughout.
    return x.astype(np.float64 if a["wide"] and dtype.kind == "f" else dtype)


def divide(a, x, y):
    # The standard truncates quotients of integers; ours are floats, or floored.
    return x / y if x.dtype.kind == "f" else tg.floor_divide(x - tg.fmod(x, y), y)


def is_inf(a, x):
    return tg.isinf(x) & (((x > 0) & bool(a.get("detect_positive", 1))) | ((x < 0) & bool(a.get("detect_negative", 1))))


def shrink(a, x):
    edge, bias = a.get("lambd", 0.5), a.get("bias", 0.0)
    return tg.where(x < -edge, x + bias, tg.where(x > edge, x - bias, 0.0))


def dropout(a, x, ratio=None, training=None):
    assert training is None or not training.item()
    return x, tg.tensor(np.ones(x.shape, bool))


def swish(a, x):
    alpha = a.get("alpha", 1.0)
    return tg.silu(x) if alpha == 1 else x * tg.sigmoid(alpha * x)


ELEMENTWISE = {
    **{n: (lambda a, x, f=getattr(tg, OURS.get(n, n.lower())): f(x)) for n in UNARY.split()},
    **{n: (lambda a, x, y, f=getattr(tg, OURS.get(n, n.lower())): f(x, y)) for n in BINARY.split()},
    "BitwiseNot": lambda a, x: tg.invert(x),
    "Cast": lambda a, x: cast(a, x, onnx.helper.tensor_dtype_to_np_dtype(a["to"])),
    "CastLike": lambda a, x, y: cast(a, x, y.dtype),
    "Celu": lambda a, x: a.get("alpha", 1.0) * tg.elu(x / a.get("alpha", 1.0)),
    "Clip": lambda a, x, low=None, high=None: tg.clip(x, low, high),
    "Div": divide,
    "Dropout": dropout,
    "Elu": lambda a, x: tg.elu(x, a.get("alpha", 1.0)),
    "Gelu": lambda a, x: tg.gelu(x, a.get("approximate", "none")),
    "HardSigmoid": lambda a, x: tg.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0.0, 1.0),
    "HardSwish": lambda a, x: x * tg.clip(x / 6 + 0.5, 0.0, 1.0),
    "Identity": lambda a, x: x,
    "IsInf": is_inf,
    "LeakyRelu": lambda a, x: tg.leaky_relu(x, a.get("alpha", 0.01)),
    "Max": lambda a, *xs: functools.reduce(tg.maximum, xs),
    "Mean": lambda a, *xs: sum(xs[1:], xs[0]) / len(xs),
    "Min": lambda a, *xs: functools.reduce(tg.minimum, xs),
    "Mish": lambda a, x: x * tg.tanh(tg.softplus(x)),
    "Mod": lambda a, x, y: (tg.fmod if a.get("fmod") else tg.mod)(x, y),
    "PRelu": lambda a, x, slope: tg.where(x < 0, slope * x, x),
    "Pow": lambda a, x, y: tg.power(x, y).astype(x.dtype, copy=False),
    "Selu": lambda a, x: a.get("gamma", 1.05070102214813232421875) * tg.elu(x, a.get("alpha", 1.67326319217681884765625)),
    "Shrink": shrink,
    "Softsign": lambda a, x: x / (1 + abs(x)),
    "Sum": lambda a, *xs: sum(xs[1:], xs[0]),
    "Swish": swish,
    "SwiGLU": lambda a, x, y: swish(a, x) * y,
    "ThresholdedRelu": lambda a, x: tg.where(x > a.get("alpha", 1.0), x, 0.0),
    "Where": lambda a, c, x, y: tg.where(c, x, y),
}  # fmt: skip


def reshape(a, x, shape):
    return tg.reshape(x, [x.shape[k] if n == 0 and not a.get("allowzero") else n for k, n in enumerate(ints(shape))])


def flatten(a, x):
    axis = a.get("axis", 1)
    return tg.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def slices(a, x, starts, ends, axes=None, steps=None):
    starts, ends, axes, steps = ints(starts), ints(ends), ints(axes), ints(steps)
    index = [slice(None)] * x.ndim
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        index[axes[k] if axes else k] = slice(start, end, steps[k] if steps else 1)
    return x[tuple(index)]


def split(a, x, sizes=None):
    axis, parts = a.get("axis", 0), a.get("num_outputs", a["outputs"])
    length = -(-x.shape[axis] // parts)
    if sizes is None and length * parts == x.shape[axis]:
        return tg.split(x, parts, axis)
    return tg.split(x, np.cumsum(ints(sizes) if sizes is not None else [length] * parts)[:-1], axis)


def pad(a, x, widths, value=None, axes=None):
    frame = np.zeros((x.ndim, 2), int)
    frame[slice(None) if axes is None else ints(axes)] = np.reshape(ints(widths), (2, -1)).T
    if value is None or a.get("mode", "constant") != "constant":
        return tg.pad(x, frame, a.get("mode", "constant"))
    return tg.where(np.pad(np.ones(x.shape, bool), frame), tg.pad(x, frame), value)


def depth_to_space(a, x):
    (n, c, h, w), b, first = x.shape, a["blocksize"], a.get("mode", "DCR") == "DCR"
    x = x.reshape(n, *((b, b, c // b**2) if first else (c // b**2, b, b)), h, w).transpose(*((0, 3, 4, 1, 5, 2) if first else (0, 1, 4, 2, 5, 3)))
    return x.reshape(n, c // b**2, h * b, w * b)


def space_to_depth(a, x):
    (n, c, h, w), b = x.shape, a["blocksize"]
    x = x.reshape(n, c, h // b, b, w // b, b).transpose(*((0, 3, 5, 1, 2, 4) if a.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)))
    return x.reshape(n, c * b * b, h // b, w // b)


def gather_nd(a, x, indices):
    batch, indices = a.get("batch_dims", 0), indices.numpy()
    places = np.indices(indices.shape[:-1], sparse=True)[:batch]
    return x[(*places, *np.moveaxis(indices, -1, 0))]


def scatter(a, x, index, updates):
    assert a.get("reduction", "none") in ("none", "add")
    values = tg.scatter(updates, index, x.shape)
    if a.get("reduction", "none") == "add":
        return x + values
    return tg.where(tg.scatter(np.ones(updates.shape), index, x.shape) > 0, values, x)


def scatter_elements(a, x, indices, updates):
    index, axis = [*np.indices(indices.shape, sparse=True)], a.get("axis", 0)
    index[axis] = indices.numpy() % x.shape[axis]
    return scatter(a, x, tuple(index), updates)


def one_hot(a, indices, depth, values):
    indices, depth = indices.numpy()[..., None], int(depth.item())
    hot = np.where(indices < 0, indices + depth, indices) == np.arange(depth)
    return tg.where(np.moveaxis(hot, -1, a.get("axis", -1)), values[1], values[0])


def arg(name):
    def run(a, x):
        axis, last = a.get("axis", 0), a.get("select_last_index")
        place = getattr(tg.flip(x, axis) if last else x, name)(axis, keepdims=bool(a.get("keepdims", 1)))
        return x.shape[axis] - 1 - place if last else place

    return run


def hard_max(a, x):
    axis = a.get("axis", -1)
    return tg.moveaxis(tg.one_hot(x.argmax(axis), x.shape[axis], dtype=x.dtype), -1, axis)


def top_k(a, x, k):
    axis, values = a.get("axis", -1), x.numpy()
    order = np.argsort(values, axis, kind="stable")
    if a.get("largest", 1):
        # Of equal elements the first comes first, in descending order too.
        order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(values, axis), axis, kind="stable"), axis)
    order = np.take(order, range(k.item()), axis)
    return tg.take_along_axis(x, order, axis), order


def cumulative(operation, first):
    def run(a, x, axis):
        axis = axis.item()
        x = tg.flip(x, axis) if a.get("reverse") else x
        if a.get("exclusive"):
            rest, last = tg.split(x, [x.shape[axis] - 1], axis)
            x = tg.concatenate([tg.full_like(last, first), rest], axis)
        out = operation(x, axis, dtype=x.dtype)
        return tg.flip(out, axis) if a.get("reverse") else out

    return run


def reverse_sequence(a, x, lengths):
    time, batch = a.get("time_axis", 0), a.get("batch_axis", 1)
    steps = np.arange(x.shape[time])[:, None]
    order = np.where(steps < lengths.numpy(), lengths.numpy() - 1 - steps, steps)
    out = tg.moveaxis(x, (time, batch), (0, 1))[order, np.arange(x.shape[batch])]
    return tg.moveaxis(out, (0, 1), (time, batch))


def span(a, start, limit, delta):
    n = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    return start + delta * np.arange(n).astype(start.dtype)


def constant_of_shape(a, shape):
    value = onnx.numpy_helper.to_array(a["value"]) if "value" in a else np.zeros(1, np.float32)
    return tg.tensor(np.full(ints(shape), value[0], value.dtype))


def constant(a):
    if "value" in a:
        return tg.tensor(onnx.numpy_helper.to_array(a["value"]))
    (value,) = (v for k, v in a.items() if k.startswith("value_"))
    return tg.tensor(np.array(value, np.float32 if "value_float" in a or "value_floats" in a else np.int64))


SHAPES = {
    "ArgMax": arg("argmax"),
    "ArgMin": arg("argmin"),
    "Compress": lambda a, x, condition: tg.take(x, np.flatnonzero(condition.numpy()), a.get("axis")),
    "Concat": lambda a, *xs: tg.concatenate(xs, a["axis"]),
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "CumProd": cumulative(tg.cumprod, 1),
    "CumSum": cumulative(tg.cumsum, 0),
    "DepthToSpace": depth_to_space,
    "Expand": lambda a, x, shape: tg.broadcast_to(x, np.broadcast_shapes(x.shape, ints(shape))),
    "Flatten": flatten,
    "Gather": lambda a, x, i: tg.take(x, i, a.get("axis", 0)),
    "GatherElements": lambda a, x, i: tg.take_along_axis(x, i, a.get("axis", 0)),
    "GatherND": gather_nd,
    "Hardmax": hard_max,
    "OneHot": one_hot,
    "Pad": pad,
    "Range": span,
    "Reshape": reshape,
    "ReverseSequence": reverse_sequence,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": lambda a, x, i, updates: scatter(a, x, tuple(np.moveaxis(i.numpy(), -1, 0)), updates),
    "Shape": lambda a, x: np.array(x.shape[a.get("start") : a.get("end")], np.int64),
    "Size": lambda a, x: np.array(x.size),
    "Slice": slices,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": lambda a, x, axes=None: tg.squeeze(x, None if axes is None else tuple(ints(axes))),
    "Tile": lambda a, x, repeats: tg.tile(x, ints(repeats)),
    "TopK": top_k,
    "Transpose": lambda a, x: tg.transpose(x, *([a["perm"]] if "perm" in a else [])),
    "Trilu": lambda a, x, k=None: (tg.triu if a.get("upper", 1) else tg.tril)(x, 0 if k is None else k.item()),
    "Unsqueeze": lambda a, x, axes: tg.expand_dims(x, tuple(ints(axes))),
}  # fmt: skip


def reduction(operation):
    def run(a, x, axes=None):
        axes = a.get("axes", ints(axes))
        return operation(x, axis=tuple(axes) if axes or a.get("noop_with_empty_axes") else None, keepdims=bool(a.get("keepdims", 1)))

    return run


def normalized(x, axes, epsilon):
    center, scale = tg.mean(x, axes, keepdims=True), 1 / tg.sqrt(tg.var(x, axes, keepdims=True) + epsilon)
    return (x - center) * scale, center, scale


def layer_normalization(a, x, weight, bias=None):
    out, center, scale = normalized(x, tuple(range(a.get("axis", -1) % x.ndim, x.ndim)), a.get("epsilon", 1e-5))
    return (out * weight if bias is None else out * weight + bias), center, scale


def rms_normalization(a, x, weight):
    axes = tuple(range(a.get("axis", -1) % x.ndim, x.ndim))
    return x / tg.sqrt(tg.mean(x * x, axes, keepdims=True) + a.get("epsilon", 1e-5)) * weight


def per_channel(x, ndim):
    return tg.reshape(x, (-1, *[1] * (ndim - 2)))


def batch_normalization(a, x, weight, bias, mean, var):
    if not a.get("training_mode"):
        columns = [per_channel(v, x.ndim) for v in (weight, bias, mean, var)]
        return columns[0] * (x - columns[2]) / tg.sqrt(columns[3] + a.get("epsilon", 1e-5)) + columns[1]
    axes, keep = (0, *range(2, x.ndim)), a.get("momentum", 0.9)
    out = per_channel(weight, x.ndim) * normalized(x, axes, a.get("epsilon", 1e-5))[0] + per_channel(bias, x.ndim)
    return out, keep * mean + (1 - keep) * tg.mean(x, axes), keep * var + (1 - keep) * tg.var(x, axes)


def group_normalization(a, x, weight, bias):
    groups = tg.reshape(x, (x.shape[0], a.get("num_groups", x.shape[1]), -1))
    out = tg.reshape(normalized(groups, 2, a.get("epsilon", 1e-5))[0], x.shape)
    return out * per_channel(weight, x.ndim) + per_channel(bias, x.ndim)


def lp_normalization(a, x):
    size = tg.norm(x, a.get("p", 2), a.get("axis", -1), keepdims=True)
    return x / tg.where(size == 0, 1.0, size)


def local_response(a, x):
    size, channels = a["size"], x.shape[1]
    squares = tg.pad(x * x, ((0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0)))
    total = sum(squares[:, k : k + channels] for k in range(size))
    return x / (a.get("bias", 1.0) + a.get("alpha", 1e-4) / size * total) ** a.get("beta", 0.75)


def nll(a, scores, target, weight=None):
    ignored = target.numpy() == a.get("ignore_index", np.nan)
    labels = np.where(ignored, 0, target.numpy())
    weights = np.ones(labels.shape, scores.dtype) if weight is None else tg.take(weight, labels)
    weights = tg.where(ignored, 0.0, weights)
    loss = -weights * tg.take_along_axis(scores, labels[:, None], 1)[:, 0]
    kind = a.get("reduction", "mean")
    return loss if kind == "none" else loss.sum() if kind == "sum" else loss.sum() / weights.sum()


def cross_entropy(a, scores, target, weight=None):
    log_prob = tg.log_softmax(scores, 1)
    return nll(a, log_prob, target, weight), log_prob


REDUCTIONS = {
    **{f"Reduce{n}": reduction(getattr(tg, n.lower())) for n in "LogSumExp Max Mean Min Prod Sum".split()},
    "ReduceL1": reduction(lambda x, axis, keepdims: tg.sum(abs(x), axis, keepdims=keepdims)),
    "ReduceL2": reduction(lambda x, axis, keepdims: tg.norm(x, axis=axis, keepdims=keepdims)),
    "ReduceLogSum": reduction(lambda x, axis, keepdims: tg.log(tg.sum(x, axis, keepdims=keepdims))),
    "ReduceSumSquare": reduction(lambda x, axis, keepdims: tg.sum(x * x, axis, keepdims=keepdims)),
    "BatchNormalization": batch_normalization,
    "GlobalAveragePool": lambda a, x: tg.mean(x, tuple(range(2, x.ndim)), keepdims=True),
    "GlobalMaxPool": lambda a, x: tg.max(x, tuple(range(2, x.ndim)), keepdims=True),
    "GroupNormalization": group_normalization,
    "InstanceNormalization": group_normalization,
    "LRN": local_response,
    "LayerNormalization": layer_normalization,
    "LogSoftmax": lambda a, x: tg.log_softmax(x, a.get("axis", -1)),
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": lambda a, x: normalized(x, tuple(a.get("axes", (0, 2, 3))), 1e-18)[0],
    "NegativeLogLikelihoodLoss": nll,
    "RMSNormalization": rms_normalization,
    "Softmax": lambda a, x: tg.softmax(x, a.get("axis", -1)),
    "SoftmaxCrossEntropyLoss": cross_entropy,
}  # fmt: skip


def gemm(a, x, y, c=None):
    out = a.get("alpha", 1.0) * ((x.T if a.get("transA") else x) @ (y.T if a.get("transB") else y))
    return out if c is None else out + a.get("beta", 1.0) * c


def framed(a, x, kernel, value=0.0):
    """The image and the padding left to the operation; or, where its own is not enough, the padded image, 0 and (before, after, beyond) for each axis."""
    strides, dilations, half = a.get("strides", (1, 1)), a.get("dilations", (1, 1)), len(kernel)
    pads = np.reshape(a.get("pads", [0] * 2 * half), (2, half)).T.tolist()
    frame = []
    for k, (size, (before, after)) in enumerate(zip(x.shape[2:], pads, strict=True)):
        reach, auto = dilations[k] * (kernel[k] - 1) + 1, a.get("auto_pad", "NOTSET")
        if auto.startswith("SAME"):
            total = max((-(-size // strides[k]) - 1) * strides[k] + reach - size, 0)
            before, after = (total // 2, total - total // 2) if auto == "SAME_UPPER" else (total - total // 2, total // 2)
        room, extra = size + before + after - reach, 0
        if a.get("ceil_mode"):
            windows = -(-room // strides[k]) + 1
            windows -= (windows - 1) * strides[k] >= size + before
            extra = max((windows - 1) * strides[k] - room, 0)
        frame.append((before, after, extra))
    if all(before == after and not extra and 2 * before <= kernel[k] for k, (before, after, extra) in enumerate(frame)):
        return x, tuple(before for before, _, _ in frame), None
    return tg.pad(x, ((0, 0), (0, 0), *((b, e + extra) for b, e, extra in frame)), constant_values=value), 0, frame


def images(operation):
    """The operation on sequences too, as images of one row."""

    def run(a, x, *rest):
        assert x.ndim < 5
        if x.ndim == 4:
            return operation(a, x, *rest)
        a = a | {k: [1, *a[k]] for k in ("kernel_shape", "strides", "dilations") if k in a} | ({"pads": [0, a["pads"][0], 0, a["pads"][1]]} if "pads" in a else {})
        return operation(a, x[:, :, None], *(w[:, :, None] if w.ndim == 3 else w for w in rest))[:, :, 0]

    return run


@images
def conv(a, x, w, b=None):
    x, padding, _ = framed(a, x, w.shape[2:])
    return tg.conv2d(x, w, b, a.get("strides", 1), padding, a.get("dilations", 1), a.get("group", 1))


@images
def conv_transpose(a, x, w):
    """The gradient of the convolution, so that a gradient of this one is of second order."""
    strides, dilations, more = a.get("strides", (1, 1)), a.get("dilations", (1, 1)), a.get("output_padding", (0, 0))
    full = [s * (n - 1) + d * (k - 1) + 1 + m for n, k, s, d, m in zip(x.shape[2:], w.shape[2:], strides, dilations, more, strict=True)]
    shape = a.get("output_shape", [n * s for n, s in zip(x.shape[2:], strides, strict=True)] if a.get("auto_pad", "").startswith("SAME") else None)
    pads = a.get("pads", (0, 0, 0, 0))
    if shape:
        full = [max(n, m) for n, m in zip(full, shape, strict=True)]
        cut = [n - m for n, m in zip(full, shape, strict=True)]
        pads = [cut[0] // 2, cut[1] // 2, cut[0] - cut[0] // 2, cut[1] - cut[1] // 2]
    image = tg.zeros((x.shape[0], w.shape[1] * a.get("group", 1), *full), dtype=x.dtype, requires_grad=True)
    out = tg.grad(tg.conv2d(image, w, None, strides, 0, dilations, a.get("group", 1)), image, x, create_graph=True)
    return out[:, :, pads[0] : full[0] - pads[2], pads[1] : full[1] - pads[3]]


@images
def average_pool(a, x):
    kernel, strides, with_pad = a["kernel_shape"], a.get("strides", (1, 1)), bool(a.get("count_include_pad"))
    assert max(a.get("dilations", (1, 1))) == 1
    image, padding, frame = framed(a, x, kernel)
    if frame is None:
        return tg.avg_pool2d(image, kernel, strides, padding, with_pad)
    inside = [(b, e) if with_pad else (0, 0) for b, e, _ in frame]
    counted = np.pad(np.ones(x.shape, x.dtype), ((0, 0), (0, 0), *inside), constant_values=1)
    counted = np.pad(counted, ((0, 0), (0, 0), *((b - p, e + extra - q) for (b, e, extra), (p, q) in zip(frame, inside, strict=True))))
    return tg.avg_pool2d(image, kernel, strides) / tg.avg_pool2d(tg.tensor(counted), kernel, strides)


@images
def max_pool(a, x):
    image, padding, _ = framed(a, x, a["kernel_shape"], -np.inf)
    return tg.max_pool2d(image, a["kernel_shape"], a.get("strides", 1), padding, a.get("dilations", 1))


@images
def lp_pool(a, x):
    p = a.get("p", 2)
    return (math.prod(a["kernel_shape"]) * average_pool(a | {"count_include_pad": 1}, abs(x) ** p)) ** (1 / p)


def rnn(u, h, c, r, b, p):
    return tg.tanh(u + h @ r + b), c


def gru(u, h, c, r, b, p):
    n = h.shape[1]
    z, reset = tg.split(tg.sigmoid(u[:, : 2 * n] + h @ r[:, : 2 * n] + b[: 2 * n]), 2, 1)
    return (1 - z) * tg.tanh(u[:, 2 * n :] + (reset * h) @ r[:, 2 * n :] + b[2 * n :]) + z * h, c


def lstm(u, h, c, r, b, p):
    i, o, f, g = tg.split(u + h @ r + b, 4, 1)
    pi, po, pf = tg.split(p, 3) if p is not None else (0.0, 0.0, 0.0)
    c = tg.sigmoid(f + pf * c) * c + tg.sigmoid(i + pi * c) * tg.tanh(g)
    return tg.sigmoid(o + po * c) * tg.tanh(c), c


def recurrent(cell):
    def run(a, x, w, r, b=None, lengths=None, h0=None, c0=None, p=None):
        x = x.swapaxes(0, 1) if a.get("layout") else x
        assert lengths is None or (lengths.numpy() == len(x)).all()
        zero, ways = tg.zeros((x.shape[1], r.shape[2]), dtype=x.dtype), []
        for d in range(len(w)):
            bias = tg.split(b[d] if b is not None else tg.zeros(2 * w.shape[1], dtype=x.dtype), 2)
            h, c = zero if h0 is None else h0[d], zero if c0 is None else c0[d]
            step, hs = -1 if d or a.get("direction") == "reverse" else 1, []
            for t in range(len(x))[::step]:
                h, c = cell(x[t] @ w[d].T + bias[0], h, c, r[d].T, bias[1], None if p is None else p[d])
                hs.append(h)
            ways.append((tg.stack(hs[::step]), h, c))
        out, *states = (tg.stack(part, 0) for part in zip(*ways, strict=True))
        if a.get("layout"):
            return out.transpose(2, 1, 0, 3), *(s.swapaxes(0, 1) for s in states)
        return out.swapaxes(0, 1), *states

    return run


def scan(a, *xs):
    """A recurrent network of any cell: the states after the last step, and the other outputs of every step."""
    cut = len(xs) - a["num_scan_inputs"]
    states, outs = xs[:cut], []
    for step in zip(*xs[cut:], strict=True):
        values = evaluate(a["body"], [*states, *step], a["wide"], a["scope"])
        states, outs = values[:cut], [*outs, values[cut:]]
    return *states, *(tg.stack(part) for part in zip(*outs, strict=True))


NETS = {
    "AveragePool": average_pool,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Einsum": lambda a, *xs: tg.einsum(a["equation"], *xs),
    "GRU": recurrent(gru),
    "Gemm": gemm,
    "LSTM": recurrent(lstm),
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "RNN": recurrent(rnn),
    "Scan": scan,
}
RUN = ELEMENTWISE | SHAPES | REDUCTIONS | NETS


def attribute(a):
    value = onnx.helper.get_attribute_value(a)
    return value.decode() if isinstance(value, bytes) else value


def evaluate(graph, tensors, wide, scope=None):
    """The outputs of a graph; where ``wide``, nothing is rounded to less than double precision on the way."""
    known = {**(scope or {}), **{v.name: x for v, x in zip(graph.input, tensors, strict=True)}}
    for node in graph.node:
        a = {"outputs": len(node.output), "wide": wide, "scope": known} | {entry.name: attribute(entry) for entry in node.attribute}
        out = RUN[node.op_type](a, *(known[name] if name else None for name in node.input))
        outs = out if isinstance(out, tuple | list) else [out]
        known.update((name, y if isinstance(y, tg.Tensor) else tg.tensor(y)) for name, y in zip(node.output, outs, strict=False))
    return [known[v.name] for v in graph.output]


def loss(outputs):
    """The floating outputs, weights for them that are always the same, and the weighted sum."""
    ys = [y for y in outputs if y.dtype.kind == "f"]
    weights = [(np.random.default_rng(0).uniform(0.5, 1.5, y.shape) * np.isfinite(y.numpy())).astype(y.dtype) for y in ys]
    return ys, weights, sum(float((w * np.nan_to_num(y.numpy(), posinf=0, neginf=0)).sum()) for y, w in zip(ys, weights, strict=True))


def gradients(graph, arrays, wide=False):
    """The outputs, and the gradient of their weighted sum for each input: None for one that it does not depend on."""
    leaves = [tg.tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
    outputs = evaluate(graph, leaves, wide)
    linked = [(y, w) for y, w in zip(*loss(outputs)[:2], strict=True) if y.requires_grad]
    wanted = [x for x in leaves if x.requires_grad]
    found = tg.grad([y for y, _ in linked], wanted, [w for _, w in linked], allow_unused=True) if linked else [None] * len(wanted)
    return outputs, [found[k] if x.requires_grad else None for x, k in zip(leaves, np.cumsum([x.requires_grad for x in leaves]) - 1, strict=True)]


def check_values(graph, inputs, expected):
    outputs, found = gradients(graph, inputs)
    for out, y in zip(outputs, expected, strict=True):
        assert (out.dtype, out.shape) == (y.dtype, y.shape)
        rtol = {2: 4e-3, 4: 1e-4, 8: 1e-9}[y.dtype.itemsize] if y.dtype.kind == "f" else 0
        np.testing.assert_allclose(out.numpy(), y, rtol=rtol, atol=rtol / 10)
    assert all(g is None or (g.dtype, g.shape) == (x.dtype, x.shape) for x, g in zip(inputs, found, strict=True))


def check_gradients(graph, inputs, expected):
    """A difference along one direction, in double precision, a little beside the inputs: many of those are at corners."""
    rng, floating = np.random.default_rng(1), [x.dtype.kind == "f" for x in inputs]
    xs = [np.where(np.isfinite(x), x, 1) + rng.uniform(1e-3, 2e-3, x.shape) if f else x for x, f in zip(inputs, floating, strict=True)]
    vs = [rng.uniform(-1e-6, 1e-6, x.shape) if f else 0 for x, f in zip(xs, floating, strict=True)]
    slope = sum((g.numpy() * v).sum() for g, v in zip(gradients(graph, xs, wide=True)[1], vs, strict=True) if g is not None)
    up, down = (loss(evaluate(graph, [tg.tensor(x + s * v) if f else tg.tensor(x) for x, v, f in zip(xs, vs, floating, strict=True)], True))[2] for s in (1, -1))
    np.testing.assert_allclose(slope * 1e6, (up - down) / 2e-6, rtol=1e-5, atol=1e-5)


def array(x):
    """An input or an output of a case, or None for a sequence and for a dtype that NumPy does not have."""
    x = onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x
    return np.asarray(x) if isinstance(x, np.ndarray | np.generic) and x.dtype.isbuiltin == 1 and x.dtype.kind in "biuf" else None


def cases():
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    for case in collected:
        if case.data_sets and all(node.op_type in RUN and not node.domain for node in case.model.graph.node):
            yield case.name, case.model.graph, *([array(x) for x in part] for part in case.data_sets[0])


def why(left_out, name):
    return next((reason for reason, patterns in left_out.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns.split())), None)


def test_backend_node_cases():
    ran, foreign, faults = 0, 0, []
    for name, graph, inputs, expected in cases():
        if any(x is None for x in [*inputs, *expected]):
            foreign += 1
            continue
        for check, left_out in (check_values, LEFT_OUT), (check_gradients, WITHOUT_GRADIENT):
            reason = why(left_out, name)
            try:
                with np.errstate(all="ignore"):
                    check(graph, inputs, expected)
            except Exception as error:
                if reason is None:
                    faults.append(f"{name}, {check.__name__}: {type(error).__name__} {' '.join(str(error).split())}")
                break
            if reason is not None:
                faults.append(f"{name} passes {check.__name__}, although {reason!r}")
        else:
            ran += 1
    print(f"{ran} ONNX cases ran, {foreign} have a dtype that NumPy does not have, or sequences")
    assert not faults, "\n".join(faults)
    assert ran >= 1100
