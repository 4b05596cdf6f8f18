"""What the rules and their helpers do where the batteries do not look: special values, scales, options, forms of arguments."""

import math
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.core.state import current, installed
from tinygrad_rnn.errors import DtypeError, ShapeError
from tinygrad_rnn.ops import convolution
from tinygrad_rnn.ops.counting import operations

ERF_POINTS = np.concatenate([np.linspace(-7, 7, 281), [0.84375, 1.25, 1 / 0.35, 6.0, 1e-8, -1e-300, np.inf, -np.inf]])


def test_erf_to_rounding():
    expected = [math.erf(x) for x in ERF_POINTS]
    np.testing.assert_allclose(tg.erf(ERF_POINTS), expected, rtol=4e-16)
    single = tg.erf(ERF_POINTS.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, [math.erf(x) for x in ERF_POINTS.astype(np.float32)], rtol=6e-8)
    assert np.isnan(tg.erf(np.array([np.nan]))).all()
    np.testing.assert_array_equal(tg.erf(np.array([0, 1, -2])), [0.0, math.erf(1), -math.erf(2)])


def test_erfc_to_rounding():
    x = np.concatenate([ERF_POINTS, np.linspace(7, 26.5, 200), [26.6, 27.5, 30.0]])
    expected = [math.erfc(v) for v in x]
    np.testing.assert_allclose(tg.erfc(x), expected, rtol=6e-16, atol=5e-324)
    single = tg.erfc(x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, [math.erfc(v) for v in x.astype(np.float32)], rtol=6e-8, atol=1.5e-45)
    assert np.isnan(tg.erfc(np.array([np.nan]))).all()
    np.testing.assert_array_equal(tg.erfc(np.array([0, 1, -2])), [1.0, math.erfc(1), math.erfc(-2)])


def test_gelu_keeps_its_digits_where_it_is_tiny():
    x = np.linspace(-12, 12, 97)
    np.testing.assert_allclose(tg.gelu(x), [v * 0.5 * math.erfc(v * -math.sqrt(0.5)) for v in x], rtol=1e-15)
    inner = [math.sqrt(2 / math.pi) * (v + 0.044715 * v**3) for v in x]
    np.testing.assert_allclose(tg.gelu(x, approximate="tanh"), [v / (1 + math.exp(-2 * u)) for v, u in zip(x, inner, strict=True)], rtol=1e-12)
    np.testing.assert_allclose(tg.gelu(x.astype(np.float32)), tg.gelu(x), rtol=2e-5)


def slopes(f, *xs, g=None):
    """The gradients of f for every argument, for the cotangent g or ones."""
    tensors = [tg.tensor(np.asarray(x, float), requires_grad=True) for x in xs]
    with np.errstate(all="ignore"):
        y = f(*tensors)
        return [d.numpy().tolist() for d in tg.grad(y, tensors, np.ones(y.shape) if g is None else np.asarray(g, float))]


# At bounds, ties and zeros the convention decides.
AT = {
    "elu of another size at 0": (lambda x: tg.elu(x, 3.0), [[0.0, 0.5, -0.0]], [[3.0, 1.0, 3.0]]),
    "leaky_relu at 0, and its slope": (tg.leaky_relu, [[0.0, -2.0, 0.5]], [[0.01, 0.01, 1.0]]),
    "clip at the upper bound alone": (lambda x: tg.clip(x, None, 1.0), [[1.0, 1.5, 0.5]], [[1.0, 0.0, 1.0]]),
    "clip at the lower bound alone": (lambda x: tg.clip(x, 1.0, None), [[1.0, 1.5, 0.5]], [[1.0, 1.0, 0.0]]),
    "clip at both bounds": (lambda x: tg.clip(x, -1.0, 1.0), [[1.0, -1.0, 0.5]], [[1.0, 1.0, 1.0]]),
    "clip between equal bounds": (tg.clip, [[0.0, 2.0], [1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
    "clip between bounds that cross": (tg.clip, [[0.0, 2.0, 1.2], [1.5] * 3, [1.0] * 3], [[0.0] * 3, [0.0] * 3, [1.0] * 3]),
    "maximum of equals": (tg.maximum, [[1.0, 2.0], [1.0, 1.0]], [[0.5, 1.0], [0.5, 0.0]]),
    "minimum of equals": (tg.minimum, [[1.0, 2.0], [1.0, 1.0]], [[0.5, 0.0], [0.5, 1.0]]),
    "relu at 0": (tg.relu, [[0.0, -1.0, 1.0]], [[0.0, 0.0, 1.0]]),
    "absolute at 0": (tg.absolute, [[0.0, -1.0, 1.0]], [[0.0, -1.0, 1.0]]),
    "hypot at the origin": (tg.hypot, [[0.0, 3.0], [0.0, 4.0]], [[0.0, 0.6], [0.0, 0.8]]),
    "0 to powers": (lambda x, y: x**y, [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 0.5]], [[0.0, 1.0, 0.0, np.inf], [0.0, 0.0, 0.0, 0.0]]),
    "1 to powers": (lambda x, y: x**y, [[1.0, 1.0], [0.0, 3.0]], [[0.0, 3.0], [0.0, 0.0]]),
    "powers below 0": (lambda x: x ** np.array([3.0, 2.0, 1.0, 0.0]), [[-2.0, -2.0, -2.0, -2.0]], [[12.0, -4.0, 1.0, 0.0]]),
    "max of ties": (tg.max, [[3.0, 1.0, 3.0]], [[0.5, 0.0, 0.5]]),
    "min of ties": (tg.min, [[3.0, 1.0, 1.0]], [[0.0, 0.5, 0.5]]),
    "max of NaN alone": (tg.max, [[np.nan, np.nan]], [[0.0, 0.0]]),
    "std of constants": (tg.std, [[2.0, 2.0]], [[0.0, 0.0]]),
    "norm of zeros": (tg.norm, [[0.0, 0.0]], [[0.0, 0.0]]),
    "norm of order 3 of zeros": (lambda x: tg.norm(x, 3), [[0.0, 0.0]], [[0.0, 0.0]]),
    "norm of order 3 with a zero": (lambda x: tg.norm(x, 3), [[0.0, -2.0]], [[0.0, -1.0]]),
    "norm of order -2 with a zero": (lambda x: tg.norm(x, -2), [[0.0, 1.0]], [[0.0, 0.0]]),
}


@pytest.mark.parametrize("name", AT)
def test_convention(name):
    f, xs, expected = AT[name]
    for got, wanted in zip(slopes(f, *xs), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-15)


@pytest.mark.parametrize("name", ["hypot", "norm", "std"])
def test_second_derivatives_at_the_origin_are_zero(name):
    x = tg.tensor(np.zeros(2), requires_grad=True)
    y = (tg.hypot(x, 0.0 * x) + tg.hypot(0.0 * x, x)).sum() if name == "hypot" else getattr(tg, name)(x)
    first = tg.grad(y, x, create_graph=True)
    assert tg.grad(first, x, np.array([1.0, 2.0])).numpy().tolist() == [0.0, 0.0]


def test_nan_to_num_passes_its_replacements_on():
    x = np.array([np.nan, np.inf, -np.inf, 1.5])
    np.testing.assert_array_equal(tg.nan_to_num(x), np.nan_to_num(x))
    np.testing.assert_array_equal(tg.nan_to_num(x, 7.0, 8.0, -9.0), [7.0, 8.0, -9.0, 1.5])
    assert slopes(lambda t: tg.nan_to_num(t, 7.0, 8.0, -9.0), x) == [[0.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize("name", ["power", "float_power"])
@pytest.mark.parametrize("x", [-2.0, -0.5, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("y", [-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_power_at_a_point(name, x, y):
    f = getattr(tg, name)
    with np.errstate(all="ignore"):
        base = np.multiply(y, np.power(x, y - 1)) if y else 0.0
        exponent = np.power(x, y) * np.log(x) if x else (0.0 if y >= 0 else -np.inf)
        # By scalar and by array exponents, which take different ways.
        np.testing.assert_array_equal(slopes(lambda t: f(t, y), [x]), slopes(lambda t: f(t, np.array([y])), [x]))
        np.testing.assert_allclose(slopes(lambda t: f(t, np.array([y])), [x]), [[base]], rtol=1e-15)
        np.testing.assert_allclose(slopes(lambda t: f(np.array([x]), t), [y]), [[exponent]], rtol=1e-15)
    # Where nothing arrives, nothing leaves, whatever the slope.
    assert slopes(lambda t: f(t, y), [x], g=[0.0]) == [[0.0]]
    assert slopes(lambda t: f(t, np.array([y])), [x], g=[0.0]) == [[0.0]]
    assert slopes(lambda t: f(np.array([x]), t), [y], g=[0.0]) == [[0.0]]


INDICES = {
    "alone": lambda i: i,
    "first of two": lambda i: (i, slice(None)),
    "second of two": lambda i: (slice(None), i),
    "two": lambda i: (i, i),
    "after an integer": lambda i: (0, i),
    "before a slice": lambda i: (i, slice(1, None)),
    "after None": lambda i: (None, i),
    "after an ellipsis": lambda i: (..., i),
}


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("kind", ["ndarray", "tensor", "list"])
def test_an_index_is_what_it_was_when_it_was_used(name, kind):
    kept = np.array([0, 2, 2])
    given = {"ndarray": kept.copy(), "tensor": tg.tensor(kept), "list": kept.tolist()}[kind]
    values = np.arange(27.0).reshape(3, 3, 3)
    x = tg.tensor(values, requires_grad=True)
    y = x[INDICES[name](given)]
    expected = np.zeros((3, 3, 3))
    v = np.arange(1.0, y.size + 1).reshape(y.shape)
    np.add.at(expected, INDICES[name](kept), v)
    np.testing.assert_array_equal(y.numpy(), values[INDICES[name](kept)])
    if kind == "ndarray":
        given[:] = 1
    elif kind == "tensor":
        given._data[...] = 1
    np.testing.assert_array_equal(tg.grad(y, x, v).numpy(), expected)


@pytest.mark.parametrize("index", [1.0, tg.tensor(1.0), tg.tensor([0.5]), np.float64(1), [1.5], (0, tg.tensor(2.0)), (0, 1.0), np.array([0.5])], ids=repr)
def test_only_integers_and_bools_are_indices(index):
    with pytest.raises(IndexError, match="getitem: an index must be integers, bools or slices"):
        tg.tensor(np.ones((3, 3)))[index]


@pytest.mark.parametrize("index", [tg.tensor(1), tg.tensor(True), np.True_, np.int8(-1), (tg.tensor(1), tg.tensor(2)), (np.int64(1), None), [True, False, True], []], ids=repr)
def test_scalars_and_lists_as_indices(index):
    plain = tuple(i.numpy()[()] if isinstance(i, tg.Tensor) else i for i in index) if isinstance(index, tuple) else index.numpy()[()] if isinstance(index, tg.Tensor) else index
    x = tg.tensor(np.arange(9.0).reshape(3, 3), requires_grad=True)
    y = x[index]
    np.testing.assert_array_equal(y.numpy(), x.numpy()[plain])
    expected = np.zeros((3, 3))
    expected[plain] = 1
    np.testing.assert_array_equal(tg.grad(y, x, np.ones(y.shape)).numpy(), expected)


def test_a_mask_takes_as_many_axes_as_it_has():
    x, mask = tg.tensor(np.arange(4.0).reshape(2, 2)), np.array([[True, False], [True, True]])
    np.testing.assert_array_equal(x[mask].numpy(), [0, 2, 3])
    with pytest.raises(IndexError):
        x[mask, :]


def test_bools_where_integers_are_wanted_are_0_and_1():
    w = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(tg.embedding([True, False], w), w[[1, 0]])
    np.testing.assert_array_equal(tg.take(w, [True, False, True], 0), w[[1, 0, 1]])
    np.testing.assert_array_equal(tg.one_hot(np.array([True, False])).numpy(), [[0, 1], [1, 0]])


@pytest.mark.parametrize("index", [[0, 2], [[1], [0]], [], 3])
def test_one_hot_has_as_many_classes_as_the_largest_index_needs(index):
    for given in (index, np.asarray(index, int), tg.tensor(np.asarray(index, int))):
        classes = int(np.max(index)) + 1 if np.size(index) else 0
        np.testing.assert_array_equal(tg.one_hot(given).numpy(), np.eye(classes)[np.asarray(index, int)])
        assert tg.one_hot(given).dtype == np.float32


def test_the_last_axis_if_none_is_named():
    index = np.array([[3, 0], [1, 1], [2, 0]])
    np.testing.assert_array_equal(tg.take_along_axis(X[0], index), np.take_along_axis(X[0], index, -1))
    np.testing.assert_array_equal(tg.sort(X), np.sort(X, -1))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
@pytest.mark.parametrize("shape", [(1,), (2,), (3, 2), (0,), (1, 1)])
@pytest.mark.parametrize("size", [(5,), (5, 2), (200, 1), (5, 0), (5, 2, 3)])
def test_repeated_rows_add_up(dtype, shape, size):
    rng = np.random.default_rng(0)
    index = rng.integers(0 if dtype == np.uint8 else -5, 5, shape).astype(dtype)
    index = np.where(rng.integers(0, 2, shape), index, index.dtype.type(4))
    x = tg.tensor(rng.standard_normal(size), requires_grad=True)
    y = x[index]
    v = rng.standard_normal(y.shape)
    expected = np.zeros(size)
    np.add.at(expected, index, v)
    np.testing.assert_allclose(tg.grad(y, x, v).numpy(), expected, rtol=1e-14, atol=1e-14)
    if len(size) == 2 and (index >= 0).all():
        w = tg.tensor(x.numpy(), requires_grad=True)
        np.testing.assert_allclose(tg.grad(tg.embedding(index, w), w, v).numpy(), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("shapes", [((3, 1), (1, 2), 1), ((1, 4), (3, 2), 1), ((2, 3), (2, 1), 1), ((2, 3), (1, 3), 0), ((3, 2, 1), (3, 2, 4), 2), ((1, 2, 3), (4, 2, 2), 2), ((2, 2, 2), (2, 1, 2), 1)])
@pytest.mark.parametrize("negative", [False, True])
def test_take_along_axis_broadcasts(shapes, negative):
    size, indexed, axis = shapes
    rng = np.random.default_rng(1)
    index = rng.integers(0, size[axis], indexed)
    axis = axis - len(size) if negative else axis
    x = tg.tensor(rng.standard_normal(size), requires_grad=True)
    y = tg.take_along_axis(x, index, axis)
    np.testing.assert_array_equal(y.numpy(), np.take_along_axis(x.numpy(), index, axis))
    v = rng.standard_normal(y.shape)
    expected = np.zeros(size)
    places = np.take_along_axis(np.arange(expected.size).reshape(size), index, axis)
    np.add.at(expected.reshape(-1), places, v)
    np.testing.assert_allclose(tg.grad(y, x, v).numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize("indices", [[True, False], np.array([True, False]), [], np.array(1), tg.tensor([1, 0])], ids=repr)
def test_what_take_takes(indices):
    x = tg.tensor(np.array([3.0, 4.0, 5.0]), requires_grad=True)
    plain = indices.numpy() if isinstance(indices, tg.Tensor) else np.asarray(indices, int)
    np.testing.assert_array_equal(tg.take(x, indices).numpy(), x.numpy()[plain])
    with pytest.raises(TypeError, match="take: indices must be integers"):
        tg.take(x, np.zeros(0))


def forms(**tables):
    return {f"{name} {k}": f for name, fs in tables.items() for k, f in enumerate(fs)}


# Linear in x and y: f(module, x, y), where the module is NumPy or ours. The adjoint is then known from NumPy's values alone.
MOVES = forms(
    reshape=[lambda m, x, y: m.reshape(x, (4, 6)), lambda m, x, y: m.reshape(x, (-1, 3)), lambda m, x, y: m.reshape(x, -1), lambda m, x, y: x.reshape(3, 8), lambda m, x, y: x.reshape((3, -1)),
             lambda m, x, y: m.reshape(x, (6, 4), order="F"), lambda m, x, y: m.reshape(x, (6, 4), order="A"), lambda m, x, y: m.reshape(x.T, (6, 4), order="A"), lambda m, x, y: m.reshape(x, (4, 6), order="C")],
    ravel=[lambda m, x, y: m.ravel(x), lambda m, x, y: m.ravel(x, order="F"), lambda m, x, y: m.ravel(x, order="C"), lambda m, x, y: x.flatten()],
    transpose=[lambda m, x, y: m.transpose(x), lambda m, x, y: m.transpose(x, (2, 0, 1)), lambda m, x, y: m.transpose(x, (-1, 0, 1)), lambda m, x, y: x.transpose(1, 2, 0), lambda m, x, y: x.transpose(None), lambda m, x, y: x.T,
               lambda m, x, y: m.matrix_transpose(x) if m is np else x.mT],
    swapaxes=[lambda m, x, y: m.swapaxes(x, 0, 2), lambda m, x, y: m.swapaxes(x, -1, 1), lambda m, x, y: m.swapaxes(x, 1, 1)],
    moveaxis=[lambda m, x, y: m.moveaxis(x, 0, -1), lambda m, x, y: m.moveaxis(x, (0, 1), (2, 0)), lambda m, x, y: m.moveaxis(x, [2, 0], [0, 1]), lambda m, x, y: m.moveaxis(x, -1, 0)],
    rollaxis=[(lambda m, x, y, a=a, s=s: m.rollaxis(x, a, s)) for a in (-3, -1, 0, 1, 2) for s in (-2, -1, 0, 1, 2, 3)] + [lambda m, x, y: m.rollaxis(x, 2)],
    expand_dims=[lambda m, x, y: m.expand_dims(x, 0), lambda m, x, y: m.expand_dims(x, -1), lambda m, x, y: m.expand_dims(x, (1, 3)), lambda m, x, y: m.expand_dims(x, (0, -1))],
    squeeze=[lambda m, x, y: m.squeeze(x[:, :1]), lambda m, x, y: m.squeeze(x[:1, :1], 0), lambda m, x, y: m.squeeze(x[:1, :, :1], (0, -1)), lambda m, x, y: m.squeeze(x)],
    broadcast=[lambda m, x, y: m.broadcast_to(x, (2, 2, 3, 4)), lambda m, x, y: m.broadcast_to(x[0, 0, 0], 5), lambda m, x, y: m.broadcast_to(x[:, :1], (2, 3, 4)), lambda m, x, y: m.broadcast_arrays(x[:, :1], y[0])[0],
               lambda m, x, y: m.broadcast_arrays(x[:, :1], y[0])[1]],
    concatenate=[lambda m, x, y: m.concatenate([x, y, x]), lambda m, x, y: m.concatenate((x, y), axis=-1), lambda m, x, y: m.concatenate([x, y[:, :1]], 1), lambda m, x, y: m.concatenate([x, y], axis=None),
                 lambda m, x, y: m.concatenate([x[:, :, :0], y], axis=2)],
    stack=[lambda m, x, y: m.stack([x, y]), lambda m, x, y: m.stack([y, x], axis=-1), lambda m, x, y: m.stack([x, y, y], 2), lambda m, x, y: m.stack([x, y], axis=-2)],
    joined=[lambda m, x, y: m.hstack([x, y]), lambda m, x, y: m.hstack([x[0, 0], y[0, 0]]), lambda m, x, y: m.vstack([x[0], y[0]]), lambda m, x, y: m.vstack([x[0, 0], y[0]]), lambda m, x, y: m.dstack([x, y]), lambda m, x, y: m.dstack([x[0], y[0]]),
            lambda m, x, y: m.dstack([x[0, 0], y[0, 0]]), lambda m, x, y: m.column_stack([x[0, 0], y[0, 0]]), lambda m, x, y: m.column_stack([x[0], y[0]]), lambda m, x, y: m.append(x, y), lambda m, x, y: m.append(x, y, axis=1), lambda m, x, y: m.column_stack([x[0, 0], y[0].T])],
    atleast=[(lambda m, x, y, n=n, k=k: getattr(m, f"atleast_{n}d")(x[(0,) * k])) for n in (1, 2, 3) for k in (0, 1, 2, 3)] + [lambda m, x, y: m.atleast_2d(x[0, 0], y)[1]],
    split=[(lambda m, x, y, f=f: sum((k + 1.0) * part.sum() for k, part in enumerate(f(m, x)))) for f in (
        lambda m, x: m.split(x, 3, axis=1), lambda m, x: m.split(x, [1, 2], axis=-1), lambda m, x: m.split(x, 2), lambda m, x: m.array_split(x, 3, axis=2), lambda m, x: m.array_split(x, 3, 0), lambda m, x: m.array_split(x, [1, 3], 2),
        lambda m, x: m.hsplit(x, 3), lambda m, x: m.hsplit(x[0, 0], 2), lambda m, x: m.vsplit(x, 2), lambda m, x: m.array_split(x, 5, axis=2))],
    flip=[lambda m, x, y: m.flip(x), lambda m, x, y: m.flip(x, 0), lambda m, x, y: m.flip(x, -1), lambda m, x, y: m.flip(x, (0, 2)), lambda m, x, y: m.fliplr(x), lambda m, x, y: m.flipud(x)],
    rot90=[(lambda m, x, y, k=k, a=a: m.rot90(x, k, a)) for k in (-1, 0, 1, 2, 3, 4, 5) for a in ((0, 1), (1, 0), (-1, 0))] + [lambda m, x, y: m.rot90(x)],
    roll=[lambda m, x, y: m.roll(x, 1), lambda m, x, y: m.roll(x, -2, 1), lambda m, x, y: m.roll(x, (1, -1), (0, 2)), lambda m, x, y: m.roll(x, [1, 2], [0, 2]), lambda m, x, y: m.roll(x, 1, (0, 1)), lambda m, x, y: m.roll(x, 2, axis=-1)],
    tile=[lambda m, x, y: m.tile(x, 2), lambda m, x, y: m.tile(x, (2, 1)), lambda m, x, y: m.tile(x, (2, 1, 1, 3)), lambda m, x, y: m.tile(x, (0, 2, 1)), lambda m, x, y: m.tile(x[0, 0], (2, 2))],
    repeat=[lambda m, x, y: m.repeat(x, 2), lambda m, x, y: m.repeat(x, 3, axis=1), lambda m, x, y: m.repeat(x, [2, 0, 1], axis=1), lambda m, x, y: m.repeat(x, 2, -1), lambda m, x, y: m.repeat(x, 0, 0), lambda m, x, y: m.repeat(x[0, 0], [1, 0, 2, 1])],
    pad=[lambda m, x, y: m.pad(x, 1), lambda m, x, y: m.pad(x, (1, 2)), lambda m, x, y: m.pad(x, ((0, 1), (2, 0), (1, 1))), lambda m, x, y: m.pad(x, [[1, 0]]), *[(lambda m, x, y, k=k: m.pad(x, ((1, 1), (0, 2), (1, 0)), mode=k)) for k in ("edge", "reflect", "symmetric", "wrap")],
         lambda m, x, y: m.pad(x, ((0, 0), (0, 0), (2, 3)), "wrap")],
    diagonal=[lambda m, x, y: m.diagonal(x), *[(lambda m, x, y, o=o, a=a: m.diagonal(x, o, *a)) for o in (-4, -1, 0, 1, 2, 5) for a in ((0, 1), (2, 1), (-1, 0))], lambda m, x, y: m.trace(x), *[(lambda m, x, y, o=o: m.trace(x, o, 2, 1)) for o in (-2, 0, 1)],
              lambda m, x, y: m.diag(x[0]), lambda m, x, y: m.diag(x[0], 1), lambda m, x, y: m.diag(x[0], -1), *[(lambda m, x, y, k=k: m.diag(x[0, 0], k)) for k in (-2, -1, 0, 1, 2)]],
    triangle=[(lambda m, x, y, k=k, n=n: getattr(m, n)(x, k)) for k in (-2, -1, 0, 1, 2) for n in ("tril", "triu")] + [lambda m, x, y: m.tril(x[0]), lambda m, x, y: m.triu(x[0, 0]), lambda m, x, y: m.triu(x[:, :, :2]), lambda m, x, y: m.tril(x[:, :2])],
    take=[lambda m, x, y: m.take(x, [0, 5, 23, 5]), lambda m, x, y: m.take(x, [[2, 0], [1, 1]], axis=1), lambda m, x, y: m.take(x, [-1, 0], axis=-1), lambda m, x, y: m.take(x, [5, -7, 2], axis=1, mode="wrap"), lambda m, x, y: m.take(x, [5, -7, 2], axis=1, mode="clip"), lambda m, x, y: m.take(x, 1, axis=0),
          lambda m, x, y: m.take(x, [5, 40], mode="clip"), lambda m, x, y: x.take([3, 1])],
    along=[lambda m, x, y: m.take_along_axis(x, np.array([[[1]], [[0]]]), axis=2), lambda m, x, y: m.take_along_axis(x, np.array([3, 3, 20]), axis=None), lambda m, x, y: m.take_along_axis(x, np.zeros((1, 3, 4), int), 0), lambda m, x, y: m.take_along_axis(x, np.array([[[0, 1, 2, 0]], [[2, 2, 1, 0]]]), -2)],
    sums=[(lambda m, x, y, n=n, a=a, k=k: getattr(m, n)(x, axis=a, keepdims=k)) for n in ("sum", "mean") for a in (None, 0, -1, (0, 2), (-1, 0), ()) for k in (False, True)] + [lambda m, x, y: m.sum(x), lambda m, x, y: m.mean(x, 1), lambda m, x, y: m.sum(x, (0, 1))],
    average=[lambda m, x, y: m.average(x), lambda m, x, y: m.average(x, 1), lambda m, x, y: m.average(x, axis=1, weights=[1.0, 2.0, 3.0]), lambda m, x, y: m.average(x, axis=-1, weights=[1, 2, 3, 4]), lambda m, x, y: m.average(x, weights=np.arange(1, 25.0).reshape(2, 3, 4)),
             lambda m, x, y: m.average(x, axis=0, weights=np.arange(1, 25.0).reshape(2, 3, 4), keepdims=True), lambda m, x, y: m.average(x, 2, keepdims=True), lambda m, x, y: m.average(x, axis=1, weights=[1.0, 2.0, 3.0], keepdims=True)],
    cumulative=[(lambda m, x, y, a=a: m.cumsum(x, axis=a)) for a in (None, 0, 1, -1)] + [lambda m, x, y: m.cumsum(x)],
    differences=[lambda m, x, y: m.diff(x), lambda m, x, y: m.diff(x, axis=0), lambda m, x, y: m.diff(x, 2), lambda m, x, y: m.diff(x, 0), lambda m, x, y: m.diff(x, n=3, axis=-1), lambda m, x, y: m.trapezoid(x), lambda m, x, y: m.trapezoid(x, axis=0), lambda m, x, y: m.trapezoid(x, dx=0.5, axis=1),
                 lambda m, x, y: m.trapezoid(x, np.array([0.0, 1.0, 4.0, 5.0])), lambda m, x, y: m.trapezoid(x, np.array([0.0, 1.0, 4.0]), axis=1), lambda m, x, y: m.trapezoid(x, np.arange(24.0).reshape(2, 3, 4) ** 2, axis=1)],
    meshgrid=[(lambda m, x, y, i=i, s=s, k=k: m.meshgrid(x[0, 0], y[0, 0, :3], x[1, :, 0], indexing=i, sparse=s)[k]) for i in ("xy", "ij") for s in (False, True) for k in (0, 1, 2)] + [lambda m, x, y: m.meshgrid(x[0, 0])[0], lambda m, x, y: m.meshgrid(x[0, 0], y[0, 0])[1]],
    copies=[lambda m, x, y: m.copy(x), lambda m, x, y: +x, lambda m, x, y: m.where(np.arange(4) > 1, x, y), lambda m, x, y: m.where(True, x, y), lambda m, x, y: m.clip(x, -100, 100), lambda m, x, y: m.deg2rad(x), lambda m, x, y: m.rad2deg(x)],
)  # fmt: skip
MOVES |= {
    "numpy's " + name: (lambda m, x, y, f=f: f(x, y))
    for name, f in {
        "matrix_transpose": lambda x, y: np.matrix_transpose(x), "linalg.diagonal": lambda x, y: np.linalg.diagonal(x, offset=1), "linalg.trace": lambda x, y: np.linalg.trace(x, offset=-1), "heaviside-free copysign": lambda x, y: np.copysign(x, np.array([1.0, -1.0, 1.0, -1.0])) * np.sign(np.asarray(tg.sign(x.detach() if hasattr(x, "detach") else x))),
        "real": lambda x, y: np.real(x), "conjugate": lambda x, y: np.conjugate(x), "full_like": lambda x, y: np.full_like(x, 3.0) * x,
        "select": lambda x, y: np.select([np.arange(4) < 1, np.arange(4) > 2], [x, y], 0.0), "modf": lambda x, y: np.modf(x / 1e6)[0], "permute_dims": lambda x, y: np.permute_dims(x, (1, 0, 2)), "concat": lambda x, y: np.concat([x, y]), "radians": lambda x, y: np.radians(x),
        "sum where": lambda x, y: np.sum(x, axis=1, where=np.array([True, False, True, True])), "sum method where": lambda x, y: x.sum(where=np.array([True, False, True, True])), "degrees": lambda x, y: np.degrees(x),
    }.items()
}  # fmt: skip
RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((2, 2, 3, 4))


def adjoint_holds(f, xs, linear_in):
    """Values as NumPy's, and <v, f(dx)> = <pullback of v, dx> for each argument in which f is linear."""
    tensors = [tg.tensor(x, requires_grad=True) for x in xs]
    y, expected = f(tg, *tensors), np.asarray(f(np, *xs))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-13, atol=1e-13)
    v = RNG.standard_normal(expected.shape)
    found = tg.grad(y, tensors, v, allow_unused=True)
    for moved in linear_in:
        for _ in range(2):
            changed = [RNG.standard_normal(x.shape) if k in moved else x for k, x in enumerate(xs)]
            there = np.sum(v * f(np, *changed))
            back = sum(np.sum(found[k].numpy() * changed[k]) for k in moved if found[k] is not None)
            np.testing.assert_allclose(back, there, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", MOVES)
def test_a_linear_operation_and_its_adjoint(name):
    adjoint_holds(MOVES[name], [X, Y], [(0, 1)])


def product(name, *shapes, **options):
    return [(lambda m, x, y: getattr(m, name)(x, y, **options), [np.random.default_rng(sum(map(sum, s))).standard_normal(n) for n in s]) for s in shapes]


SHAPES = [((), ()), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((1, 2, 3), (4, 3, 2)), ((4, 2, 3), (1, 3, 2)), ((3,), (2, 3, 4)), ((2, 4, 3), (3,)), ((1, 3), (3, 1)), ((2, 0), (0, 3)), ((0, 3), (3, 2)), ((4, 0, 3), (3, 2)), ((1, 2, 3), (5, 4, 3, 2)), ((5, 4, 2, 3), (1, 3, 2))]
PRODUCTS = [
    *product("matmul", *SHAPES[1:]), *product("dot", *[s for s in SHAPES if len(s[0]) < 4], ((), (2, 3)), ((2, 3), ()), ((2, 3, 4), (2, 4, 3))), *product("inner", ((), ()), ((3,), (3,)), ((2, 3), (4, 3)), ((2, 2, 3), (3,)), ((), (3,)), ((2,), ())),
    *product("outer", ((3,), (2,)), ((2, 2), (3,)), ((), (2,))), *product("vdot", ((3,), (3,)), ((2, 3), (2, 3))), *product("kron", ((2,), (3,)), ((2, 3), (2,)), ((2,), (2, 3)), ((2, 2), (3, 2)), ((), (2,)), ((2, 1, 2), (3, 2))),
    *product("cross", ((3,), (3,)), ((2, 3), (2, 3)), ((2, 3), (3,))), *product("cross", ((3, 2), (3, 2)), axis=0), *product("cross", ((2, 3, 4), (2, 3, 4)), axis=1), *product("tensordot", ((2, 3, 4), (3, 4, 2)), ((2, 2), (2, 2))), *product("tensordot", ((2, 3), (4, 2)), axes=0), *product("tensordot", ((2, 3), (3, 2)), axes=1),
    *product("tensordot", ((2, 3, 4), (4, 3, 2)), axes=([0, 1], [2, 1])), *product("tensordot", ((2, 3), (4, 3)), axes=(1, 1)), *product("tensordot", ((2, 3, 4), (4, 2)), axes=([-1], [0])), *product("multiply", ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2,)), ((0, 3), (1, 3))),
    *[(lambda m, x, y, e=e: m.einsum(e, x, y), [np.random.default_rng(5).standard_normal(s), np.random.default_rng(6).standard_normal(t)]) for e, s, t in [
        ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ji,jk", (2, 3), (2, 4)), ("ij, ij ->", (2, 3), (2, 3)), ("...ij,...jk->...ik", (5, 2, 3), (3, 4)), ("...i,...i", (4, 1, 3), (2, 3)), ("i...,i...->...", (2, 3), (2, 1)),
        ("ii,i->i", (3, 3), (3,)), ("iij,jj->i", (2, 2, 3), (3, 3)), ("ij,k->k", (2, 3), (4,)), ("ij,ij->i", (1, 3), (2, 3)), ("ij,jk->ik", (20, 30), (30, 10)), ("i,j->ij", (2,), (3,)), ("b...i,ij->b...j", (2, 2, 2, 3), (3, 2)), ("ii,jj", (3, 3), (2, 2)), ("ij,j...->i...", (2, 3), (3, 2, 2))]],
    (lambda m, x, y: m.einsum(x, [0, 1], y, [1, 2], [0, 2]), [np.ones((2, 3)), np.arange(12.0).reshape(3, 4)]), (lambda m, x, y: m.einsum(x, [0, 1], y, [1, 2]), [np.ones((2, 3)), np.arange(12.0).reshape(3, 4)]), (lambda m, x, y: m.einsum(x, [..., 1], y, [1, 2], [..., 2]), [np.ones((2, 3)), np.arange(12.0).reshape(3, 4)]),
    *([(lambda m, x, y: (np.matvec(x, y)), [np.ones((2, 3)), np.arange(3.0)]), (lambda m, x, y: np.vecmat(y, x), [np.arange(6.0).reshape(3, 2), np.arange(3.0)])] if hasattr(np, "matvec") else []), (lambda m, x, y: np.vecdot(x, y), [np.arange(6.0).reshape(2, 3), np.arange(3.0)]), (lambda m, x, y: np.linalg.outer(x, y), [np.arange(3.0), np.arange(2.0)]),
    (lambda m, x, y: np.linalg.matmul(x, y), [np.ones((2, 3)), np.arange(6.0).reshape(3, 2)]), (lambda m, x, y: np.linalg.cross(x, y), [np.ones((2, 3)), np.arange(6.0).reshape(2, 3)]), (lambda m, x, y: np.linalg.cross(x, y, axis=0), [np.ones((3, 2)), np.arange(6.0).reshape(3, 2)]),
    (lambda m, x, y: np.linalg.tensordot(x, y, axes=1), [np.ones((2, 3)), np.arange(6.0).reshape(3, 2)]), (lambda m, x, y: np.linalg.tensordot(x, y), [np.ones((2, 3)), np.arange(6.0).reshape(2, 3)]),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(PRODUCTS)))
def test_a_product_and_its_adjoints(place):
    f, xs = PRODUCTS[place]
    adjoint_holds(f, xs, [(0,), (1,)])


@pytest.mark.parametrize("lengths", [(3, 2), (2, 3), (3, 4), (4, 3), (4, 4), (2, 2)])
def test_a_cross_product_is_of_three_dimensions(lengths):
    with pytest.raises(ShapeError, match="cross: expected vectors of length 3, got {} and {}".format(*lengths)):
        tg.cross(*(np.ones((3, n)) for n in lengths))


def test_as_many_choices_as_conditions_and_as_many_axes_as_arrays():
    x = tg.tensor(np.ones((2, 2)))
    with pytest.raises(ShapeError, match="select: 1 conditions and 2 choices"):
        np.select([x.numpy() > 0], [x, x])
    with pytest.raises(ShapeError, match=r"tensordot: axes must be .* got 3 entries"):
        tg.tensordot(x, x, ([0], [1], [0]))


def test_a_weight_of_many_rows_used_twice_has_second_derivatives():
    x, w = (tg.tensor(RNG.standard_normal(s), requires_grad=True) for s in ((300, 2), (2, 2)))
    first = tg.grad((x @ w @ w).sum(), w, create_graph=True)
    # Of a form of second degree: half the second derivatives with its own argument are the first.
    np.testing.assert_allclose(tg.grad((first * w.detach()).sum(), w).numpy(), first.numpy(), rtol=1e-12)


@pytest.mark.parametrize(("subscripts", "shape"), [("...i...", (2, 3)), ("..i", (3,)), ("i.", (3,)), ("ij", (2,)), ("i", (2, 3)), ("...ij", (2,))])
def test_subscripts_that_do_not_fit(subscripts, shape):
    with pytest.raises(ShapeError, match="does not fit its subscripts"):
        tg.einsum(subscripts + "->", np.ones(shape))


def test_einsum_of_lists_of_axes():
    np.testing.assert_array_equal(tg.einsum(X, [2, 0, 1]), np.einsum(X, [2, 0, 1]))
    np.testing.assert_allclose(tg.einsum(X, [2, 0, 1], [1, 0]), np.einsum(X, [2, 0, 1], [1, 0]), rtol=1e-14)
    with pytest.raises(DtypeError, match="einsum: expected a string"):
        tg.einsum(X)


@pytest.mark.parametrize(
    ("name", "values", "out", "count"),
    [
        ("matmul", (np.ones((2, 3)), np.ones((3, 4))), np.ones((2, 4)), 2 * 24), ("einsum", ("bi,ij->bj", [np.ones((2, 3)), np.ones((3, 4))]), np.ones((2, 4)), 2 * 24), ("einsum", ((np.ones((2, 3)), np.ones((2, 3))), "bi,bi->"), np.ones(()), 2 * 6),
        ("conv2d", (np.ones((1, 4, 5, 6)), np.ones((2, 4, 3, 2)), (1, 1)), np.ones((1, 2, 3, 5)), 2 * 30 * 24), ("exp", (np.ones(3),), np.ones(3), 3), ("sum", (np.ones((2, 3)),), np.ones(()), 6), ("take", (np.ones(5), np.arange(4)), np.ones(4), 0),
        ("add", (np.ones(1), np.ones((2, 1))), np.ones((2, 3)), 6), ("cumsum", (np.arange(5),), np.ones(1), 1), ("power", (np.ones(2), 2.0), np.ones(2), 2),
    ],
)  # fmt: skip
def test_operations_are_counted(name, values, out, count):
    assert operations(SimpleNamespace(name=name), values, out) == count


REDUCED = {
    "prod": np.prod, "max": np.max, "min": np.min, "ptp": np.ptp, "var": np.var, "std": np.std, "median": np.median, "norm": lambda x, axis=None, keepdims=False: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
    "logsumexp": lambda x, axis=None, keepdims=False: np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims)),
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCED)
@pytest.mark.parametrize("shape", [(), (3,), (4,), (2, 3, 4)])
def test_a_reduction_is_numpys_in_every_form(name, shape):
    x = RNG.standard_normal(shape)
    ours, theirs = getattr(tg, name), REDUCED[name]
    same = lambda got, expected: (np.testing.assert_allclose(got, expected, rtol=1e-13), np.testing.assert_equal(np.shape(got), np.shape(expected)))
    same(ours(tg.tensor(x)).numpy(), theirs(x))
    for axis in [None, *range(-len(shape), len(shape)), *([(0, 1), (-1, 0), (0, 2)] if len(shape) > 2 else [])]:
        for keepdims in (False, True):
            same(ours(tg.tensor(x), axis=axis, keepdims=keepdims).numpy(), theirs(x, axis=axis, keepdims=keepdims))
        if name != "norm":
            same(ours(tg.tensor(x), axis).numpy(), theirs(x, axis=axis))
        if name in ("var", "std"):
            same(ours(tg.tensor(x), axis=axis, ddof=0.5).numpy(), theirs(x, axis=axis, ddof=0.5))


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "var", "std", "cumsum", "cumprod"])
def test_a_reduction_in_another_dtype(name):
    x = tg.tensor(np.array([1.5, 2.0, 3.25], np.float32), requires_grad=True)
    y = getattr(tg, name)(x, dtype=np.float64)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y.numpy(), getattr(np, name)(x.numpy(), dtype=np.float64), rtol=1e-15)
    assert tg.grad(y, x, np.ones(y.shape)).dtype == np.float32


@pytest.mark.parametrize("order", [None, 0, 1, 2, 3, 0.5, -1, -2, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [0, -1, 1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_vector_norms_are_numpys(order, axis, keepdims):
    np.testing.assert_allclose(tg.norm(tg.tensor(X[0]), order, axis, keepdims).numpy(), np.linalg.norm(X[0], order, axis, keepdims), rtol=1e-13)
    assert tg.norm(tg.tensor(X[0]), order, axis).shape == np.linalg.norm(X[0], order, axis).shape


@pytest.mark.parametrize("order", [None, "fro", 1, -1, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [(0, 1), (2, 0), (-1, -2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_matrix_norms_are_numpys(order, axis, keepdims):
    np.testing.assert_allclose(tg.norm(tg.tensor(X), order, axis, keepdims).numpy(), np.linalg.norm(X, order, axis, keepdims), rtol=1e-13)
    np.testing.assert_allclose(tg.norm(tg.tensor(X[0]), order).numpy(), np.linalg.norm(X[0], order), rtol=1e-13)


def test_norms_of_zeros():
    for order, values, expected in [(0, [0.0, 1.0, 1.0], 2.0), (3, [0.0, 0.0], 0.0), (0.5, [0.0, 4.0], 4.0), (-1, [0.0, 4.0], 0.0), (3, [1.0, 0.0], 1.0), (2.5, [1.0] * 32, 4.0), (-1, [1.0, 1.0], 0.5), (1, [0.0, -4.0], 4.0)]:
        assert tg.norm(np.array(values), order) == expected
    for order, axis in [(None, (0, 1, 2)), (3, None), ("fro", 0)]:
        with pytest.raises(ShapeError, match="norm: "):
            tg.norm(X, order, axis)


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "logsumexp", "cumsum", "cumprod"])
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_number_is_reduced_over_its_only_axis(name, value):
    f = lambda t: getattr(tg, name)(t, axis=0).reshape(())
    assert f(tg.tensor(value)).item() == value
    assert slopes(f, value) == [1.0]


def test_weights_that_do_not_fit():
    for axis, shape in [(None, (4,)), ((0, 1), (2, 3)), (0, (3,)), (2, (3,)), ((2,), (4,))]:
        with pytest.raises(ShapeError, match="average: weights of shape"):
            tg.average(X, axis, np.ones(shape))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 2)])
def test_softmax_sums_to_one(name, axis):
    for x in (X, 1000 * X, X[:, :0], np.zeros((0, 3, 4))):
        y = getattr(tg, name)(tg.tensor(x), axis).numpy()
        p = y if name == "softmax" else np.exp(y)
        assert y.shape == x.shape
        np.testing.assert_allclose(p.sum(axis=axis), np.ones(p.sum(axis=axis).shape) if x.size else p.sum(axis=axis), rtol=1e-12)
        if x is X:
            e = np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)
            np.testing.assert_allclose(p, e, rtol=1e-13)
    np.testing.assert_array_equal(getattr(tg, name)(tg.tensor(X)).numpy(), getattr(tg, name)(tg.tensor(X), axis=-1).numpy())


def test_logsumexp_of_infinities():
    inf = np.inf
    for row, expected in [([-inf, -inf], -inf), ([inf, 1.0], inf), ([-inf, 2.0], 2.0), ([1e4, 1e4], 1e4 + np.log(2))]:
        assert tg.logsumexp(tg.tensor(np.array(row))).item() == pytest.approx(expected)
    assert slopes(lambda x: tg.logsumexp(x, 1), [[-inf, 2.0], [0.0, 0.0], [-inf, -inf]]) == [[[0.0, 1.0], [0.5, 0.5], [0.0, 0.0]]]
    with pytest.raises(ValueError, match="logsumexp: there is nothing to reduce"):
        tg.logsumexp(tg.tensor(np.zeros((2, 0))), 1)
    assert tg.logsumexp(tg.tensor(np.zeros((2, 0))), 0).shape == (0,)


@pytest.mark.parametrize("name", ["mean", "max", "min", "var", "std", "median"])
def test_nothing_to_reduce(name):
    empty = tg.tensor(np.zeros((2, 0, 3)))
    for axis in (None, 1, (0, 1)):
        with pytest.raises(ValueError, match=f"{name}: .*nothing"):
            getattr(tg, name)(empty, axis)
    assert getattr(tg, name)(empty, 0).shape == (0, 3)
    if name in ("var", "std"):
        for shape, ddof in (((1,), 1), ((2,), 2), ((2,), 3)):
            with pytest.raises(ValueError, match="leave nothing to divide by"):
                getattr(tg, name)(tg.tensor(np.ones(shape)), ddof=ddof)
        assert getattr(tg, name)(tg.tensor(np.array([1.0, 3.0])), ddof=1.5).item() > 0


@pytest.mark.parametrize("zeros", [0, 1, 2])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (2, 0)])
def test_products_with_zeros(zeros, axis):
    x = np.array(X)
    x.reshape(-1)[[1, 6][:zeros]] = 0
    for f in (tg.prod, tg.cumprod) if not isinstance(axis, tuple) else (tg.prod,):
        t = tg.tensor(x, requires_grad=True)
        y = f(t, axis=axis)
        v = RNG.standard_normal(y.shape)
        found = tg.grad(y, t, v).numpy()
        for k in np.ndindex(x.shape):
            # A product is linear in each of its factors.
            moved = np.array(x)
            moved[k] += 1
            there = np.sum(v * (getattr(np, f.__name__)(moved, axis=axis) - getattr(np, f.__name__)(x, axis=axis)))
            np.testing.assert_allclose(found[k], there, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [None, "stable", "quicksort", "heapsort"])
@pytest.mark.parametrize("axis", [None, 0, -1, 1])
def test_sort_sends_each_cotangent_to_where_its_value_came_from(axis, kind):
    x = np.round(2 * X) / 2
    t = tg.tensor(x, requires_grad=True)
    y = tg.sort(t, axis, kind)
    np.testing.assert_array_equal(y.numpy(), np.sort(x, axis, kind))
    v = RNG.standard_normal(y.shape)
    flat = x.reshape(-1) if axis is None else x
    order = np.argsort(flat, axis=-1 if axis is None else axis, kind=kind or "stable")
    expected = np.zeros(flat.shape)
    np.put_along_axis(expected, order, v, -1 if axis is None else axis)
    np.testing.assert_array_equal(tg.grad(y, t, v).numpy(), expected.reshape(x.shape))
    np.testing.assert_array_equal(tg.sort(tg.tensor(x)).numpy(), np.sort(x))


CONVOLUTIONS = [
    ((2, 2, 5, 5), (3, 2, 3, 3), {}), ((1, 2, 6, 5), (4, 1, 3, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}), ((1, 4, 5, 6), (2, 2, 2, 3), {"stride": (1, 3), "padding": (0, 1), "groups": 2}), ((2, 1, 4, 4), (1, 1, 4, 4), {}),
    ((1, 3, 5, 4), (3, 1, 2, 2), {"groups": 3, "dilation": (2, 1), "stride": 2}), ((0, 2, 4, 4), (3, 2, 2, 2), {}), ((1, 1, 1, 1), (2, 1, 1, 1), {"padding": 1, "stride": 2}), ((2, 2, 7, 6), (2, 2, 2, 3), {"padding": (2, 0), "dilation": (3, 2), "stride": (2, 1)}),
    ((2, 4, 4, 5), (6, 2, 2, 3), {"groups": 2}), ((1, 2, 4, 4), (2, 2, 1, 3), {"padding": (1, 0)}), ((1, 2, 4, 4), (2, 2, 3, 1), {"padding": (0, 1)}), ((2, 8, 6, 7), (3, 8, 3, 2), {"dilation": (2, 1), "padding": (1, 2)}), ((1, 12, 5, 6), (4, 6, 2, 3), {"groups": 2, "stride": (1, 2), "dilation": (1, 2)}), ((1, 12, 6, 5), (2, 6, 3, 3), {"groups": 2, "stride": (2, 1), "padding": (0, 1)}),
]  # fmt: skip


def plain_convolution(x, w, stride=1, padding=0, dilation=1, groups=1):
    (sh, sw), (ph, pw), (dh, dw) = (p if isinstance(p, tuple) else (p, p) for p in (stride, padding, dilation))
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    (n, _, height, width), (o, per, kh, kw) = x.shape, w.shape
    out = np.zeros((n, o, (height - dh * (kh - 1) - 1) // sh + 1, (width - dw * (kw - 1) - 1) // sw + 1))
    for b, k, i, j in np.ndindex(out.shape):
        first = k // (o // groups) * per
        out[b, k, i, j] = sum(x[b, first + m, i * sh + r * dh, j * sw + s * dw] * w[k, m, r, s] for m, r, s in np.ndindex(per, kh, kw))
    return out


@pytest.mark.parametrize("cache", [1, 40, 1 << 18])
@pytest.mark.parametrize("place", range(len(CONVOLUTIONS)))
def test_a_convolution_is_its_sum(place, cache):
    with patch.object(convolution, "_IN_CACHE", cache):
        convolution_is_its_sum(*CONVOLUTIONS[place])


def convolution_is_its_sum(size, kernel, options):
    x, w = RNG.standard_normal(size), RNG.standard_normal(kernel)
    tensors = [tg.tensor(a, requires_grad=True) for a in (x, w)]
    y = tg.conv2d(*tensors, None, **options)
    expected = plain_convolution(x, w, **options)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-12)
    v = RNG.standard_normal(y.shape)
    gx, gw = (g.numpy() for g in tg.grad(y, tensors, v, create_graph=True))
    dx, dw = RNG.standard_normal(size), RNG.standard_normal(kernel)
    np.testing.assert_allclose(np.sum(gx * dx), np.sum(v * plain_convolution(dx, w, **options)), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(np.sum(gw * dw), np.sum(v * plain_convolution(x, dw, **options)), rtol=1e-10, atol=1e-10)
    bias = RNG.standard_normal(kernel[0])
    np.testing.assert_allclose(tg.conv2d(x, w, bias, **options), expected + bias[:, None, None], rtol=1e-12, atol=1e-12)


POOLS = [(2, None, 0, 1), ((3, 2), (2, 1), (1, 1), 1), (3, 1, 1, 1), ((1, 3), None, (0, 1), 1), (2, 1, 0, 2), ((2, 3), (1, 2), (1, 0), (2, 1)), ((3, 2), (1, 2), 0, 1), ((2, 3), 2, (0, 1), 1)]


@pytest.mark.parametrize("place", range(len(POOLS)))
@pytest.mark.parametrize("kind", ["max", "mean", "mean without padding"])
def test_a_pool_is_taken_window_by_window(place, kind):
    kernel, stride, padding, dilation = POOLS[place]
    pair = lambda p: p if isinstance(p, tuple) else (p, p)
    (kh, kw), (ph, pw), (dh, dw) = pair(kernel), pair(padding), pair(dilation)
    sh, sw = pair(kernel if stride is None else stride)
    if kind != "max":
        dh = dw = 1
    x = RNG.standard_normal((2, 2, 6, 7)) - 3.0
    t = tg.tensor(x, requires_grad=True)
    y = tg.max_pool2d(t, kernel, stride, padding, dilation) if kind == "max" else tg.avg_pool2d(t, kernel, stride, padding, kind == "mean")
    v = RNG.standard_normal(y.shape)
    expected, back = np.zeros(y.shape), np.zeros(x.shape)
    assert y.shape[2:] == ((6 + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (7 + 2 * pw - dw * (kw - 1) - 1) // sw + 1)
    for b, c, i, j in np.ndindex(y.shape):
        window = [(i * sh + r * dh - ph, j * sw + s * dw - pw) for r in range(kh) for s in range(kw)]
        inside = [(r, s) for r, s in window if 0 <= r < 6 and 0 <= s < 7]
        if kind == "max":
            best = max(inside, key=lambda p: x[b, c][p])
            expected[b, c, i, j] = x[b, c][best]
            back[b, c][best] += v[b, c, i, j]
        else:
            count = len(window) if kind == "mean" else len(inside)
            for p in inside:
                expected[b, c, i, j] += x[b, c][p] / count
                back[b, c][p] += v[b, c, i, j] / count
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(tg.grad(y, t, v).numpy(), back, rtol=1e-12, atol=1e-14)


def test_pools_of_infinities_and_integers():
    low = np.full((1, 1, 2, 2), -np.inf)
    assert tg.max_pool2d(tg.tensor(low), 2, 1, 1).numpy().tolist() == np.full((1, 1, 3, 3), -np.inf).tolist()
    assert tg.max_pool2d(tg.tensor(np.array([[[[-5, -7], [-6, -8]]]])), 2, 1, 1).numpy().tolist() == [[[[-5, -5, -7], [-5, -5, -7], [-6, -6, -8]]]]


def test_a_tensor_is_never_equal_to_what_is_no_number():
    x = tg.tensor([1.0, 2.0])
    for other in (None, "1", {}, int):
        assert (x == other) is False and (x != other) is True
        with pytest.raises(TypeError):
            x < other  # noqa: B015


def test_what_numpys_methods_give():
    x = tg.tensor([1.0, 3.0, 2.0])
    for name, arguments, expected in [("argmax", (), 1), ("any", (), True), ("searchsorted", (2.0,), 1), ("argsort", (), [0, 2, 1])]:
        found = getattr(x, name)(*arguments)
        assert isinstance(found, tg.Tensor) and found.tolist() == expected
    assert x.tobytes() == x.numpy().tobytes()
    assert [part.tolist() for part in x.nonzero()] == [[0, 1, 2]]


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_last_two_axes_in_each_others_place(ndim):
    x = X[0] if ndim == 2 else X
    np.testing.assert_array_equal(tg.tensor(x).mT.numpy(), x.swapaxes(-1, -2))
    with pytest.raises(ShapeError, match="mT: expected at least two dimensions"):
        _ = tg.tensor(x[(0,) * (ndim - 1)]).mT


def test_rounding_is_to_integers_unless_decimals_are_given():
    x = tg.tensor([1.26, -0.74, 2.5])
    for found, decimals in [(x.round(), 0), (np.round(x), 0), (round(x), 0), (np.around(x, 1), 1), (x.round(1), 1), (round(x, 1), 1)]:
        np.testing.assert_array_equal(found.numpy(), np.round(x.numpy(), decimals))


def test_a_change_of_dtype_copies_unless_told_not_to():
    x, a = tg.tensor([1.0]), np.ones(1, np.float32)
    for copied in (x.astype("float32"), tg.astype(x, "float32"), x.astype("float64", copy=False)):
        assert copied is not x
    assert x.astype("float32", copy=False) is x and tg.astype(x, "float32", copy=False) is x
    assert tg.astype(a, "float32") is not a and tg.astype(a, "float32", copy=False) is a


def test_select_gives_the_default_where_no_condition_holds():
    conditions, x = [np.array([True, False, False]), np.array([True, True, False])], tg.tensor([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(np.select(conditions, [x, -x]).numpy(), [1, -2, 0])
    np.testing.assert_array_equal(np.select(conditions, [x, -x], 7.0).numpy(), [1, -2, 7])


def test_parts_before_and_after_the_point():
    x = np.array([1.25, -2.5, 3.0])
    for found, expected in [*zip(np.modf(tg.tensor(x)), np.modf(x), strict=True), *zip(np.divmod(tg.tensor(x), 2.0), np.divmod(x, 2.0), strict=True)]:
        np.testing.assert_array_equal(found.numpy(), expected)
    assert slopes(lambda t: np.modf(t)[0], x) == [[1.0, 1.0, 1.0]]
    assert slopes(lambda t: np.divmod(t, 2.0)[1], x) == [[1.0, 1.0, 1.0]]


def test_full_like_takes_numbers_and_tensors():
    x = tg.tensor([1.0, 2.0])
    assert np.full_like(x, 3.0).dtype == np.float32 and np.full_like(x, 3.0).tolist() == [3.0, 3.0]
    wide = np.full_like(x, 3, dtype=np.float64, shape=(3,))
    assert isinstance(wide, tg.Tensor) and wide.dtype == np.float64 and wide.tolist() == [3.0] * 3
    assert slopes(lambda t: np.full_like(x, t, dtype=np.float64), 5.0) == [2.0]


def test_shapes_and_axes_may_be_tensors_or_stand_alone():
    x = tg.tensor(np.arange(4.0))
    for shape, expected in [(tg.tensor(4), (4,)), (tg.tensor([2, 2]), (2, 2)), (np.int64(4), (4,)), ([2, -1], (2, 2))]:
        assert tg.reshape(x, shape).shape == expected
    assert tg.transpose(x, 0).shape == (4,)
    for part in (tg.repeat(x, tg.tensor(2)), tg.tile(x, tg.tensor(2)), tg.broadcast_to(x, (2, 4)).reshape(tg.tensor(8))):
        assert part.shape == (8,)


def test_what_shares_its_memory():
    a = np.arange(4.0)
    for copy in (None, False, True):
        assert np.shares_memory(tg.reshape(a, (2, 2), copy=copy), a) == (not copy)
    for ndim, f in enumerate([tg.atleast_1d, tg.atleast_2d, tg.atleast_3d], 1):
        for more in (0, 1, 2):
            x = tg.ones((2,) * (ndim + more))
            assert f(x) is x


def test_arrays_to_be_joined_come_in_anything_that_can_be_run_through():
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    for arrays in (x, iter(x), [x[0], x[1]]):
        assert tg.concatenate(arrays).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert tg.hstack([x]).tolist() == x.tolist()
    with pytest.raises(DtypeError, match="must be a sequence of arrays"):
        tg.concatenate(1.0)
    with pytest.raises(ShapeError, match="expected at least one array"):
        tg.concatenate([])


@pytest.mark.parametrize("name", ["split", "array_split"])
def test_into_how_many_parts(name):
    x = tg.tensor(np.arange(4.0))
    assert [part.tolist() for part in getattr(tg, name)(x, 1)] == [[0.0, 1.0, 2.0, 3.0]]
    for parts in (0, -1):
        with pytest.raises(ShapeError, match="split: "):
            getattr(tg, name)(x, parts)


def test_a_bias_may_be_a_list_and_a_pair_must_be_one():
    x, w = RNG.standard_normal((2, 3, 4, 4)), RNG.standard_normal((2, 3, 2, 2))
    np.testing.assert_allclose(tg.conv2d(x, w, [1.0, -2.0]), tg.conv2d(x, w) + np.array([1.0, -2.0])[:, None, None], rtol=1e-14)
    for options in ({"stride": 0}, {"stride": (1, 0)}, {"stride": (1, 1, 1)}, {"stride": (2,)}, {"padding": -1}, {"padding": (0, -1)}, {"dilation": 0}):
        with pytest.raises(ShapeError, match=f"conv2d: {next(iter(options))} must be"):
            tg.conv2d(x, w, **options)
    for options in ({"kernel_size": 0}, {"kernel_size": (1, 1, 1)}, {"kernel_size": 2, "stride": 0}, {"kernel_size": 3, "padding": -1}):
        for pool in (tg.max_pool2d, tg.avg_pool2d):
            with pytest.raises(ShapeError, match=f"pool2d: {[*options][-1]} must be"):
                pool(x, **options)


def test_images_of_other_dimensions_are_refused():
    image, w = np.ones((1, 2, 4, 4)), np.ones((2, 2, 2, 2))
    for x, weight in [(image[None], w), (image[0, 0], w), (image, w[0])]:
        with pytest.raises(ShapeError, match="conv2d: expected x"):
            tg.conv2d(x, weight)


@pytest.mark.parametrize("pool", [tg.max_pool2d, tg.avg_pool2d])
def test_padding_of_a_pool_is_at_most_half_its_kernel(pool):
    for kernel, padding in [((3, 3), (2, 0)), ((3, 3), (0, 2)), ((2, 6), (2, 0)), ((6, 2), (0, 2))]:
        with pytest.raises(ShapeError, match="more than half the kernel"):
            pool(np.ones((1, 1, 8, 8)), kernel, padding=padding)
    assert pool(np.ones((1, 1, 3, 3)), 3).tolist() == [[[[1.0]]]]


def test_what_a_mean_of_windows_counts():
    x = np.ones((3, 3, 2, 2))
    np.testing.assert_array_equal(tg.avg_pool2d(x, 2), np.ones((3, 3, 1, 1)))
    np.testing.assert_array_equal(tg.avg_pool2d(x, 2, 1, 1, False), np.ones((3, 3, 3, 3)))
    np.testing.assert_array_equal(tg.avg_pool2d(x, 2, 1, 1)[0, 0], np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]))


@pytest.mark.parametrize("padding", [(1, 0), (0, 1), (1, 1)])
def test_windows_of_infinities_send_their_gradient_into_the_image(padding):
    x = tg.tensor(np.full((1, 1, 2, 2), -np.inf), requires_grad=True)
    y = tg.max_pool2d(x, 2, 1, padding)
    assert (y.numpy() == -np.inf).all()
    assert tg.grad(y, x, np.ones(y.shape)).numpy().sum() == y.size


def test_a_symbol_for_padding_gets_no_gradient():
    w = tg.tensor(np.ones((3, 2)), requires_grad=True)
    for padding, rows in [(1, [1.0, 0.0, 0.0]), (-3, [0.0, 2.0, 0.0]), (-2, [1.0, 0.0, 0.0]), (0, [0.0, 2.0, 0.0]), (None, [1.0, 2.0, 0.0])]:
        assert tg.grad(tg.embedding([0, 1, 1], w, padding).sum(), w).numpy().tolist() == [[n, n] for n in rows]


def test_moves_with_their_options():
    x = np.arange(6.0).reshape(2, 3)
    t = tg.tensor(x)
    assert tg.concatenate([tg.ones(1), tg.ones(1)], dtype=np.float64).dtype == np.float64
    assert [part.tolist() for part in tg.hsplit(t, 3)] == [part.tolist() for part in np.hsplit(x, 3)]
    for constant in (5.0, (1.0, 2.0), [[1.0, 2.0], [3.0, 4.0]], np.array([[1.0, 2.0], [3.0, 4.0]])):
        np.testing.assert_array_equal(tg.pad(t, 1, constant_values=constant).numpy(), np.pad(x, 1, constant_values=constant))
    np.testing.assert_array_equal(tg.pad(t, ((0, 1), (1, 0)), "edge").numpy(), np.pad(x, ((0, 1), (1, 0)), "edge"))
    for shape, offset in [((2, 5), 1), ((5, 2), -1), ((2, 5), -1), ((5, 2), 1)]:
        a = RNG.standard_normal(shape)
        np.testing.assert_array_equal(tg.diagonal(a, offset), np.diagonal(a, offset))


def test_a_constant_of_many_rows_has_second_derivatives_for_its_weight():
    x, w = RNG.standard_normal((300, 2)), tg.tensor(RNG.standard_normal((2, 2)), requires_grad=True)
    first = tg.grad(((x @ w) * (x @ w)).sum(), w, create_graph=True)
    np.testing.assert_allclose(first.numpy(), 2 * x.T @ x @ w.numpy(), rtol=1e-12)
    np.testing.assert_allclose(tg.grad((first * w.detach()).sum(), w).numpy(), first.numpy(), rtol=1e-12)


class Told:
    """An observer that notes what it is told of values that Python reads, and of arrays that hold a tensor's values."""

    def __init__(self):
        self.reads, self.copies = [], []

    def __call__(self, *call):
        pass

    def read(self, what):
        self.reads.append(what)

    def same(self, new, old):
        self.copies.append((np.array(new), old))


def told(f):
    """What observers are told while f runs."""
    told = Told()
    with installed(current().replace(observers=(told,))):
        f()
    return told


def test_observers_are_told_of_indices_that_depend_on_tensors():
    x, mask = tg.tensor(np.arange(3.0)), tg.tensor([True, False, True])
    for index in (tg.tensor([2, 0]), tg.tensor(1), mask, tg.tensor(True)):
        (copy, old), *others = told(lambda i=index: x[i]).copies
        assert old is index and not others
        np.testing.assert_array_equal(copy, index.numpy())
    assert told(lambda: x[mask]).reads == ["a mask selected elements"]
    assert told(lambda: x[tg.tensor([0, 1])]).reads == []
    labels = tg.tensor([0, 2])
    assert told(lambda: tg.one_hot(labels)).reads == ["the largest index was looked up"]
    assert told(lambda: tg.one_hot(labels, 3)).reads == []
    for f in (lambda: tg.take(x, labels), lambda: tg.embedding(labels, tg.ones((3, 2))), lambda: tg.one_hot(labels, 3)):
        assert [old for _, old in told(f).copies] == [labels]


@pytest.mark.parametrize("f", [lambda x: tg.max_pool2d(x, 2), lambda x: tg.avg_pool2d(x, 2), lambda x: tg.conv2d(x, np.ones((2, 3, 2, 2)))])
def test_one_image_is_a_batch_of_one(f):
    x = RNG.standard_normal((1, 3, 4, 4))
    np.testing.assert_array_equal(f(x[0]), f(x)[0])


def test_lists_move_as_arrays_do():
    for f in (lambda m: m.transpose([[1.0, 2.0]]), lambda m: m.reshape([[1.0, 2.0]], (2,)), lambda m: m.swapaxes([[1.0, 2.0]], 0, 1)):
        np.testing.assert_array_equal(f(tg), f(np))
