"""Points where a rule takes another path: singularities, the values 0 and 1, bounds, ties."""

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.testing import check_gradients


def array(*values):
    return np.array(values, float)


SINGULAR = {
    "log": (tg.log, array(0, -1), 0.7),
    "log2": (tg.log2, array(0, -1), 0.7),
    "log10": (tg.log10, array(0, -1), 0.7),
    "log1p": (tg.log1p, array(-1, -2), 0.7),
    "sqrt": (tg.sqrt, array(0, -1), 0.7),
    "cbrt": (tg.cbrt, array(0), 0.7),
    "reciprocal": (tg.reciprocal, array(0), 0.7),
    "arcsin": (tg.arcsin, array(1, -1, 2), 0.7),
    "arccos": (tg.arccos, array(1, -1, 2), 0.7),
    "arccosh": (tg.arccosh, array(1, 0.5, -2), 1.7),
    "arctanh": (tg.arctanh, array(1, -1, 2), 0.7),
    "divisor": (lambda x: 1.5 / x, array(0), 0.7),
    "dividend": (lambda x: x / np.array([0.0, 2.0]), array(0.3), 0.7),
    "power -1": (lambda x: x**-1, array(0), 0.7),
    "power 0.5": (lambda x: x**0.5, array(0, -1), 0.7),
    "power of arrays": (lambda x: x ** np.array([0.5, -0.5, 0.5]), array(0, -1), 0.7),
    "exponent": (lambda y: np.array([-1.0, 0.0, 2.0]) ** y, array(0.5, -1), 0.7),
    "arctan2, first": (lambda y: tg.arctan2(y, np.array([0.0, 2.0])), array(0), 0.7),
    "arctan2, second": (lambda x: tg.arctan2(np.array([0.0, 2.0]), x), array(0), 0.7),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_a_singular_point_is_silent_without_a_cotangent_and_loud_with_one(name):
    f, singular, safe = SINGULAR[name]
    points, asked = np.append(singular, safe), np.append(np.zeros(len(singular)), 1.0)
    with np.errstate(all="ignore"):
        for create_graph in (False, True):
            x = tg.tensor(points, requires_grad=True)
            y = f(x)
            (first,) = tg.grad(y, [x], asked, create_graph=create_graph, retain_graph=True)
            assert (first.numpy()[:-1] == 0).all() and np.isfinite(first.numpy()[-1]) and first.numpy()[-1] != 0
        if first.requires_grad:
            second = tg.grad(first, x, np.ones(len(points)), retain_graph=True).numpy()
            assert (second[:-1] == 0).all() and np.isfinite(second[-1])
        loud = tg.grad(y, x, np.ones(len(points))).numpy()
        assert not np.isfinite(loud[0]) and loud[-1] == first.numpy()[-1]
        np.testing.assert_allclose(tg.jvp(f, points, asked)[1].numpy()[-1], loud[-1])


PLACES = {
    "reciprocal": (tg.reciprocal, array(1, -1, 2)),
    "divide": (tg.divide, array(0, 1, -1, 2), array(1, -1, 2, 1)),
    "log": (tg.log, array(1, 2, 0.5)),
    "log1p": (tg.log1p, array(0, 1, -0.5)),
    "sqrt": (tg.sqrt, array(1, 4, 0.25)),
    "cbrt": (tg.cbrt, array(1, -1, 8)),
    "arcsin": (tg.arcsin, array(0, 0.5, -0.5)),
    "arctanh": (tg.arctanh, array(0, 0.5, -0.5)),
    "arccosh": (tg.arccosh, array(2, 1.5, 1.0625)),
    "arctan2": (tg.arctan2, array(0, 1, 1, -1, 1), array(1, 0, 1, 1, 2)),
    "hypot": (tg.hypot, array(0, 1, 0.6, -1, 2), array(1, 0, 0.8, 0, 1)),
    "logaddexp": (tg.logaddexp, array(0, 1, 1), array(0, 1, 2)),
    "power": (tg.power, array(1, 2, 0.5, 1, 2, 2, 3), array(0, 1, 2, -1, 0, 1.5, 1)),
    "power of 0": (lambda x: x ** np.array([1.0, 2.0, 3.0, 0.0]), array(0, 0, 0, 0)),
    "power of negatives": (lambda x: x ** np.array([1.0, 2.0, 3.0, -1.0, 0.0]), array(-1, -2, -1, -2, -1)),
    **{f"power {n}": (lambda x, n=n: x**n, array(1, 2, 0.5)) for n in (0, 1, 2, 1.5, 3, -1, -2, 0.5)},
    **{f"power {n} of negatives and 0": (lambda x, n=n: x**n, array(-1, -2, 0)) for n in (0, 1, 2, 3)},
    **{f"power {n} of negatives": (lambda x, n=n: x**n, array(-1, -2, -0.5)) for n in (-1, -2)},
    "maximum": (tg.maximum, array(1, 2, -1), array(2, 1, -3)),
    "where": (lambda x, y: tg.where(x > y, x, y), array(1, 2), array(2, 1)),
}


@pytest.mark.parametrize("name", PLACES)
def test_gradients_at_values_that_rules_ask_for(name):
    f, *xs = PLACES[name]
    assert check_gradients(f, *xs, order=2, name=name)


def pulled(f, *xs, g=1.0):
    tensors = [tg.tensor(x, requires_grad=True) for x in xs]
    y = f(*tensors)
    return [r.numpy().tolist() for r in tg.grad(y, tensors, np.full(y.shape, g))]


nan = float("nan")
CONVENTIONS = {
    "hypot of zeros": (tg.hypot, [array(0), array(0)], [[0.0], [0.0]]),
    "0 ** 0": (tg.power, [array(0), array(0)], [[0.0], [0.0]]),
    "0 ** 2": (tg.power, [array(0), array(2)], [[0.0], [0.0]]),
    "maximum": (tg.maximum, [array(1, 2, 3), array(2, 2, 2)], [[0, 0.5, 1], [1, 0.5, 0]]),
    "minimum": (tg.minimum, [array(1, 2, 3), array(2, 2, 2)], [[1, 0.5, 0], [0, 0.5, 1]]),
    "fmax": (tg.fmax, [array(1, 2, nan, 3, 3), array(2, 2, 2, nan, 1)], [[0, 0.5, 0, 1, 1], [1, 0.5, 1, 0, 0]]),
    "fmin": (tg.fmin, [array(1, 2, nan, 3, 3), array(2, 2, 2, nan, 1)], [[1, 0.5, 0, 1, 0], [0, 0.5, 1, 0, 1]]),
    "relu": (tg.relu, [array(-1, 0, 1)], [[0, 0, 1]]),
    "abs": (abs, [array(-1, 0, 1)], [[-1, 0, 1]]),
    "leaky_relu": (lambda x: tg.leaky_relu(x, 0.25), [array(-1, 0, 1)], [[0.25, 0.25, 1]]),
    "elu": (lambda x: tg.elu(x, 0.5), [array(0, 1)], [[0.5, 1]]),
    "clip": (lambda x: tg.clip(x, -1, 1), [array(-2, -1, 0, 1, 2)], [[0, 1, 1, 1, 0]]),
    "nan_to_num": (tg.nan_to_num, [array(nan, 1, np.inf, -np.inf)], [[0, 1, 0, 0]]),
    "max": (lambda x: x.max(), [array(1, 3, 3, 3)], [[0, 1 / 3, 1 / 3, 1 / 3]]),
    "norm": (tg.norm, [array(0, 0)], [[0, 0]]),
    "std": (tg.std, [array(2, 2)], [[0, 0]]),
    "max_pool2d": (lambda x: tg.max_pool2d(x, 2), [np.ones((1, 1, 2, 2))], [[[[[1, 0], [0, 0]]]]]),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions(name):
    f, xs, expected = CONVENTIONS[name]
    assert pulled(f, *xs) == expected
