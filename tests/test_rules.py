"""What the rules and their helpers do where the batteries do not look: special values, scales, options, forms of arguments."""

import math

import numpy as np
import pytest

import tinygrad_rnn as tg

ERF_POINTS = np.concatenate([np.linspace(-7, 7, 281), [0.84375, 1.25, 1 / 0.35, 6.0, 1e-8, -1e-300, np.inf, -np.inf]])


def test_erf_to_rounding():
    expected = [math.erf(x) for x in ERF_POINTS]
    np.testing.assert_allclose(tg.erf(ERF_POINTS), expected, rtol=4e-16)
    single = tg.erf(ERF_POINTS.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, [math.erf(x) for x in ERF_POINTS.astype(np.float32)], rtol=6e-8)
    assert np.isnan(tg.erf(np.array([np.nan]))).all()
    np.testing.assert_array_equal(tg.erf(np.array([0, 1, -2])), [0.0, math.erf(1), -math.erf(2)])


def test_erf_in_its_tail():
    # 1 - erf holds the digits that erf itself does not show.
    x = np.linspace(1.25, 5.5, 60)
    np.testing.assert_allclose(1 - tg.erf(x), [math.erfc(v) for v in x], rtol=1e-12, atol=2.3e-16)


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
    y = tg.hypot(x, 0.0 * x).sum() if name == "hypot" else getattr(tg, name)(x)
    first = tg.grad(y, x, create_graph=True)
    assert tg.grad(first.sum(), x).numpy().tolist() == [0.0, 0.0]


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


@pytest.mark.parametrize("index", [1.0, tg.tensor(1.0), np.float64(1), [1.5], (0, tg.tensor(2.0)), (0, 1.0), np.array([0.5])], ids=repr)
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
