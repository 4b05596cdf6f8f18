"""Hand-written gradients that are wrong, and ones that are right where that is hard to tell: what a checker is measured by.

``BROKEN`` and ``CORRECT`` map a name to ``(f, vjp, make)``: functions of plain ndarrays, and ``make(rng)``, which draws the
arguments. ``SECOND`` holds functions of tensors whose first derivative is right and whose second is wrong.
"""

import math

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn.core.tape import HOOKS

BROKEN = {}
CORRECT = {}
SECOND = {}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normal(*shape, scale=1.0, shift=0.0):
    return lambda rng: (shift + scale * rng.standard_normal(shape),)


def pair(a, b, scale=1.0):
    return lambda rng: (scale * rng.standard_normal(a), scale * rng.standard_normal(b))


def broken(name, f, make):
    def add(vjp):
        BROKEN[name] = (f, vjp, make)
        return vjp

    return add


def correct(name, f, make):
    def add(vjp):
        CORRECT[name] = (f, vjp, make)
        return vjp

    return add


def single(f):
    """A pullback of one argument from a function (x, g)."""
    return lambda args, g: (f(args[0], g),)


def matmul_vjp(args, g):
    return g @ args[1].T, args[0].T @ g


# A product of a small recurrent network's states, written out: y is the last state.
def rnn(x, W, U):
    h = np.zeros((x.shape[1], U.shape[0]))
    for t in range(len(x)):
        h = np.tanh(x[t] @ W + h @ U)
    return h


def rnn_vjp(args, g, first=0, tied=None):
    x, W, U = args
    hs = [np.zeros((x.shape[1], U.shape[0]))]
    for t in range(len(x)):
        hs.append(np.tanh(x[t] @ W + hs[-1] @ U))
    dx, dW, dU, d = np.zeros_like(x), np.zeros_like(W), np.zeros_like(U), g
    for t in range(len(x) - 1, first - 1, -1):
        d = d * (1 - hs[t + 1] ** 2)
        dx[t] = d @ W.T
        dW += x[t].T @ d
        if tied is None or t in tied:
            dU += hs[t].T @ d
        d = d @ U.T
    return dx, dW, dU


def rnn_arguments(T, scale=1.0):
    def make(rng):
        U = np.linalg.qr(rng.standard_normal((4, 4)))[0] * scale
        return 0.3 * rng.standard_normal((T, 2, 3)), 0.3 * rng.standard_normal((3, 4)), U

    return make


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(x, g):
    s = softmax(x)
    return s * (g - (g * s).sum(-1, keepdims=True))


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def layer_norm_vjp(x, g, n=None):
    s = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    y = (x - x.mean(-1, keepdims=True)) / s
    n = n or x.shape[-1]
    return (g - g.sum(-1, keepdims=True) / n - y * (g * y).sum(-1, keepdims=True) / n) / s


def one_wrong(gradient, index, factor):
    out = np.array(gradient)
    out.flat[index] *= factor
    return out


# Wrong by a factor, by little or by much.
broken("tanh, 1.000001", np.tanh, normal(5))(single(lambda x, g: g * (1 - np.tanh(x) ** 2) * 1.000001))
broken("exp, 1.0001", np.exp, normal(3, 4))(single(lambda x, g: g * np.exp(x) * 1.0001))
broken("matmul, 1.000001 in one operand", np.matmul, pair((4, 3), (3, 5)))(lambda a, g: (matmul_vjp(a, g)[0], matmul_vjp(a, g)[1] * 1.000001))
broken("square without its 2", np.square, normal(4))(single(lambda x, g: g * x))
broken("sum of squares, 1.00001", lambda x: (x * x).sum(), normal(1000))(single(lambda x, g: 2.00002 * g * x))
broken("sign", lambda x: -np.sin(x), normal(3))(single(lambda x, g: g * np.cos(x)))
broken("mean as a sum", lambda x: x.mean(), normal(7))(single(lambda x, g: np.full(x.shape, 1.0) * g))
broken("var with n", lambda x: x.var(ddof=1), normal(9))(single(lambda x, g: g * 2 * (x - x.mean()) / len(x)))
broken("std with n - 1", lambda x: x.std(), normal(200))(single(lambda x, g: g * (x - x.mean()) / (x.std() * (len(x) - 1))))
broken("layer norm with n - 1", layer_norm, normal(2, 16))(single(lambda x, g: layer_norm_vjp(x, g, x.shape[-1] - 1)))
broken("one product of a rule missing", lambda x: x * np.exp(x), normal(4))(single(lambda x, g: g * np.exp(x)))
broken("nothing at all", np.cos, normal(4))(single(lambda x, g: np.zeros(x.shape)))
# One entry of many.
broken("one entry of 1,000 by 1.001", lambda x: np.sin(x), normal(1000))(single(lambda x, g: one_wrong(g * np.cos(x), 617, 1.001)))
broken("one entry of 1,000 missing", lambda x: np.tanh(x).sum(), normal(1000))(single(lambda x, g: one_wrong(g * (1 - np.tanh(x) ** 2), 3, 0)))
broken("one entry of 10,000 negated", lambda x: (x**3).sum(), normal(100, 100))(single(lambda x, g: one_wrong(3 * g * x**2, 4242, -1)))
broken("the last entry", lambda x: np.cumsum(x), normal(30))(single(lambda x, g: one_wrong(np.cumsum(g[::-1])[::-1], 29, 0)))
broken("an entry hidden by large ones", lambda x: (x * np.array([1e6, 1e6, 1.0])).sum(), normal(3))(single(lambda x, g: g * np.array([1e6, 1e6, 1.01])))
broken("an output hidden by large ones", lambda x: x * np.array([1e8, 1e8, 1e8, 1e8, 1e8, 1.0]), normal(6))(single(lambda x, g: g * np.array([1e8, 1e8, 1e8, 1e8, 1e8, 1.01])))
# The right numbers in the wrong places.
broken("swapped entries", lambda x: np.exp(x).sum(), normal(50))(single(lambda x, g: (g * np.exp(x))[[*range(20), 21, 20, *range(22, 50)]]))
broken("transposed", lambda x, y: x @ y, pair((4, 4), (4, 4)))(lambda a, g: (matmul_vjp(a, g)[0], (a[0].T @ g).T.copy()))
broken("reversed", lambda x: x[::-1] * np.arange(1.0, 6), normal(5))(single(lambda x, g: g * np.arange(1.0, 6)))
broken("operands exchanged", lambda x, y: x / (1 + y * y), pair(3, 3))(lambda a, g: (-2 * g * a[0] * a[1] / (1 + a[1] ** 2) ** 2, g / (1 + a[1] ** 2)))
broken("shifted by one", lambda x: np.roll(x, 1) ** 2, normal(6))(single(lambda x, g: np.roll(2 * np.roll(x, 1) * g, 1)))
broken("a broadcast axis not summed right", lambda x, y: x * y, pair((3, 4), (4,)))(lambda a, g: (g * a[1], (g * a[0]).mean(0)))
broken("a repeated index that does not add up", lambda x: x[[0, 0, 2]] ** 2, normal(3))(single(lambda x, g: np.array([2 * x[0] * g[1], 0.0, 2 * x[2] * g[2]])))
broken("softmax without its coupling", softmax, normal(2, 5))(single(lambda x, g: softmax(x) * (1 - softmax(x)) * g))
# Scales.
broken("a tiny function, 1.001", lambda x: 1e-20 * np.sin(x), normal(4))(single(lambda x, g: 1.001e-20 * g * np.cos(x)))
broken("a tiny argument, twice", lambda x: np.tanh(1e9 * x), normal(4, scale=1e-9))(single(lambda x, g: 2e9 * g * (1 - np.tanh(1e9 * x) ** 2)))
broken("a huge argument, 1.0001", lambda x: np.log(x), normal(4, scale=1e10, shift=1e11))(single(lambda x, g: 1.0001 * g / x))
broken("a small term of a large sum", lambda x: 1000 + 1e-5 * x**2, normal(5))(single(lambda x, g: 2.2e-5 * g * x))
broken("a gate that is nearly shut", lambda x, y: sigmoid(x) * y, lambda rng: (rng.uniform(-12, -10, 4), rng.standard_normal(4)))(
    lambda a, g: (g * a[1] * sigmoid(a[0]), 1.01 * g * sigmoid(a[0]))
)
# Sequences.
broken("the first step of 30 dropped, x", rnn, rnn_arguments(30))(lambda a, g: rnn_vjp(a, g, first=1))
broken("the first step of 30 dropped, U", lambda x, W, U: rnn(np.concatenate([x[:1] + 1, x[1:]]), W, U), rnn_arguments(30))(
    lambda a, g: rnn_vjp((np.concatenate([a[0][:1] + 1, a[0][1:]]), *a[1:]), g, tied=set(range(2, 30)))
)
broken("truncated at 20 of 30", rnn, rnn_arguments(30, 0.9))(lambda a, g: rnn_vjp(a, g, first=10))
broken("a step twice", rnn, rnn_arguments(6))(lambda a, g: (rnn_vjp(a, g)[0], rnn_vjp(a, g)[1], rnn_vjp(a, g)[2] * 1.0 + rnn_vjp(a, g, tied={5})[2]))


# What is wrong beside the numbers.
@broken("the cotangent's own buffer", lambda x: x + 1.0, normal(4))
def _(args, g):
    return (g,)


@broken("the argument's own buffer", lambda x: 0.5 * (x * x).sum(), normal(4))
def _(args, g):
    if g == 1:
        return (args[0],)
    args[0]
    return (np.multiply(args[0], g) if False else args[0].view(),)


@broken("one buffer for two arguments", lambda x, y: 2 * x + 2 * y, pair(3, 3))
def _(args, g):
    out = 2 * g
    return out, out


_BUFFER = np.zeros(4)


@broken("a buffer that the next call overwrites", lambda x: 3 * x, normal(4))
def _(args, g):
    np.multiply(g, 3, out=_BUFFER)
    return (_BUFFER,)


@broken("changes its argument", lambda x: np.exp(x), normal(4))
def _(args, g):
    x = args[0]
    out = g * np.exp(x)
    x *= 1.0001
    return (out,)


@broken("changes the cotangent", lambda x: 3 * x, normal(4))
def _(args, g):
    g *= 3
    return (g.copy(),)


_CALLS = np.random.default_rng(0)


@broken("another answer each time", lambda x: np.sin(x), normal(4))
def _(args, g):
    return (g * np.cos(args[0]) * (1 + 1e-9 * _CALLS.standard_normal()),)


broken("a function that is not the same twice", lambda x: x * (1 + 1e-6 * _CALLS.standard_normal()), normal(4))(single(lambda x, g: 1.0 * g))
broken("float32 for float64", np.tanh, normal(4))(single(lambda x, g: (g * (1 - np.tanh(x) ** 2)).astype(np.float32)))
broken("float64 for float32", np.tanh, lambda rng: (rng.standard_normal(4).astype(np.float32),))(single(lambda x, g: (g * (1 - np.tanh(x) ** 2)).astype(np.float64)))
broken("a sum that float32 spoils", lambda x: np.log(1 + np.exp(x)), lambda rng: (rng.uniform(95, 100, 4).astype(np.float32) * np.array([1, 0.01, 0.01, 0.01], np.float32),))(
    single(
        lambda x, g: (
            g
            * (
                np.minimum(np.exp(x), np.finfo(x.dtype).max) / (1 + np.minimum(np.exp(x), np.finfo(x.dtype).max))
                if x.dtype == np.float64
                else np.where(x > 88, x.dtype.type(0.5), sigmoid(x))
            )
        )
    )
)
broken("a shape that broadcasts", lambda x: x.sum(), normal(3, 4))(single(lambda x, g: np.ones(4) * g))
broken("not linear in the cotangent", lambda x: np.sin(x), normal(4))(single(lambda x, g: np.cos(x) * np.clip(g, -2, 2)))
broken("the sign of the cotangent lost", lambda x: np.sin(x).sum(), normal(4))(single(lambda x, g: np.cos(x) * abs(g)))
broken("NaN in one entry", lambda x: np.sqrt(x * x), lambda rng: (np.append(rng.standard_normal(3), 1e-200),))(single(lambda x, g: g * x / np.sqrt(x * x)))
broken("NaN where the cotangent is 0", np.exp, normal(7))(single(lambda x, g: np.exp(x + np.log(np.abs(g))) * g / np.abs(g)))
broken("nothing at all if one cotangent is 0", np.exp, normal(7))(single(lambda x, g: g * np.exp(x) * g.all()))
_COUNT = []
broken("wrong at every third call", np.sin, normal(4))(single(lambda x, g: _COUNT.append(0) or g * np.cos(x) * (1 + (len(_COUNT) % 3 == 0) * 1e-3)))
# Right in one regime, wrong in another.
broken("elu wrong below 0", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), lambda rng: (np.array([0.5, 1.5, -0.5, -2.0]),))(
    single(lambda x, g: np.where(x > 0, g, g * np.expm1(x)))
)
broken("huber wrong beyond 1", lambda x: np.where(np.abs(x) < 1, x * x / 2, np.abs(x) - 0.5), lambda rng: (np.array([0.5, -0.3, 2.0, -3.0]),))(single(lambda x, g: g * x))
broken("abs without its sign", np.abs, lambda rng: (np.array([1.0, 2.0, -1.0]),))(single(lambda x, g: 1.0 * g))
broken("relu at the kink", lambda x: np.maximum(x, 0), lambda rng: (np.array([1.0, 0.0, -1.0]),))(single(lambda x, g: g * np.where(x > 0, 1.0, np.where(x == 0, 1.5, 0.0))))
broken("max of a tie gives to both", lambda x: x.max(), lambda rng: (np.array([1.0, 3.0, 3.0]),))(single(lambda x, g: g * (x == x.max())))
broken("clip passes all", lambda x: np.clip(x, -1, 1), lambda rng: (np.array([0.5, 2.0, -3.0]),))(single(lambda x, g: 1.0 * g))
broken("tanh saturated to a straight line", np.tanh, lambda rng: (np.array([0.1, 3.0, -6.0]),))(single(lambda x, g: g * np.where(np.abs(x) > 5, 0.0, 1 - np.tanh(x) ** 2)))
broken("a power's base below 0", lambda x: x**3, lambda rng: (np.array([0.5, -1.5]),))(single(lambda x, g: g * 3 * np.abs(x) ** 2 * np.sign(x)))

# Right, and hard: cancellation, singularities, kinks, scales, saturation, oscillation, long recurrences.
correct("(1 - cos x) / x^2", lambda x: (1 - np.cos(x)) / x**2, lambda rng: (np.array([1e-2, 0.3, -0.02]),))(single(lambda x, g: g * (x * np.sin(x) - 2 * (1 - np.cos(x))) / x**3))
correct("(1 - cos x) / x^2 near 0", lambda x: (1 - np.cos(x)) / x**2, lambda rng: (np.array([1e-4]),))(single(lambda x, g: g * -x / 12))
correct("a difference of large numbers", lambda x: (x + 1e8) - 1e8, normal(4))(single(lambda x, g: 1.0 * g))
correct("a difference of squares", lambda x: (x + 1e4) ** 2 - x**2 - 1e8, normal(4))(single(lambda x, g: 2e4 * g))
correct("log-sum-exp of large numbers", lambda x: np.log(np.exp(x - x.max()).sum()) + x.max(), normal(6, scale=300))(single(lambda x, g: g * softmax(x)))
correct("variance of nearly equal numbers", lambda x: x.var(), normal(8, scale=1e-4, shift=100.0))(single(lambda x, g: g * 2 * (x - x.mean()) / x.size))
correct("two-pass norm of a difference", lambda x, y: np.sqrt(((x - y) ** 2).sum()), lambda rng: (np.ones(3) + 1e-5 * rng.standard_normal(3), np.ones(3)))(
    lambda a, g: (g * (a[0] - a[1]) / np.sqrt(((a[0] - a[1]) ** 2).sum()), -g * (a[0] - a[1]) / np.sqrt(((a[0] - a[1]) ** 2).sum()))
)
correct("log near 0", np.log, lambda rng: (np.array([1e-12, 1e-6, 1.0]),))(single(lambda x, g: g / x))
correct("sqrt near 0", np.sqrt, lambda rng: (np.array([1e-14, 1e-7, 2.0]),))(single(lambda x, g: g / (2 * np.sqrt(x))))
correct("1 / x near 0", lambda x: 1 / x, lambda rng: (np.array([1e-5, -1e-8, 3.0]),))(single(lambda x, g: -g / x**2))
correct("1 / (x - 0.5) near its pole", lambda x: 1 / (x - 0.5), lambda rng: (np.array([0.5 + 1e-6, 0.7]),))(single(lambda x, g: -g / (x - 0.5) ** 2))
correct("arcsin near 1", np.arcsin, lambda rng: (np.array([1 - 1e-9, -0.9999, 0.2]),))(single(lambda x, g: g / np.sqrt((1 - x) * (1 + x))))
correct("tan near its pole", np.tan, lambda rng: (np.array([np.pi / 2 - 1e-4, 0.1]),))(single(lambda x, g: g * (1 + np.tan(x) ** 2)))
correct("x log x near 0", lambda x: x * np.log(x), lambda rng: (np.array([1e-15, 0.5]),))(single(lambda x, g: g * (np.log(x) + 1)))
correct("an inverse of a nearly singular matrix", np.linalg.inv, lambda rng: (np.array([[1.0, 2.0], [2.0, 4.0 + 1e-5]]),))(
    single(lambda x, g: -np.linalg.inv(x).T @ g @ np.linalg.inv(x).T)
)
correct("relu near its kink", lambda x: np.maximum(x, 0), lambda rng: (np.array([1e-7, -1e-9, 1e-12, 2.0]),))(single(lambda x, g: g * (x > 0)))
correct("relu at its kink", lambda x: np.maximum(x, 0), lambda rng: (np.array([0.0, -1.0, 1.0]),))(single(lambda x, g: g * (x > 0)))
correct("abs at 0", np.abs, lambda rng: (np.array([0.0, -1.0, 1.0]),))(single(lambda x, g: g * np.sign(x)))
correct("max of a tie, to the first", lambda x: x.max(), lambda rng: (np.array([1.0, 3.0, 3.0]),))(single(lambda x, g: g * (np.arange(3) == np.argmax(x))))
correct("max of a tie, in halves", lambda x: x.max(), lambda rng: (np.array([1.0, 3.0, 3.0]),))(single(lambda x, g: g * (x == x.max()) / (x == x.max()).sum()))
correct("max of nearly equal numbers", lambda x: x.max(), lambda rng: (1 + 1e-7 * rng.permutation(5),))(single(lambda x, g: g * (x == x.max())))
correct("clip at its bounds", lambda x: np.clip(x, -1, 1), lambda rng: (np.array([1.0, -1.0, 0.3, 7.0]),))(single(lambda x, g: g * ((x >= -1) & (x <= 1))))
correct("sort of close numbers", np.sort, lambda rng: (rng.permutation(6) * 1e-6,))(single(lambda x, g: g[np.argsort(np.argsort(x))]))
correct("many kinks", lambda x: np.maximum(x, 0).sum(), normal(2000))(single(lambda x, g: g * (x > 0)))
correct("where around a singularity", lambda x: np.where(x > 0, np.log(np.where(x > 0, x, 1)), 0.0), lambda rng: (np.array([0.5, -1.0, 1e-6]),))(
    single(lambda x, g: np.where(x > 0, g / np.where(x > 0, x, 1), 0.0))
)
correct("huge numbers", lambda x: x * x, normal(3, scale=1e120))(single(lambda x, g: 2 * g * x))
correct("tiny numbers", lambda x: x * x, normal(3, scale=1e-120))(single(lambda x, g: 2 * g * x))
correct("huge and tiny arguments together", lambda x, y: np.sin(x * 1e10) + np.cos(y * 1e-10), lambda rng: (1e-10 * rng.standard_normal(3), 1e10 * rng.standard_normal(3)))(
    lambda a, g: (g * 1e10 * np.cos(a[0] * 1e10), -g * 1e-10 * np.sin(a[1] * 1e-10))
)
correct("elements of all scales", lambda x: np.log(x), lambda rng: (10.0 ** np.arange(-12, 13, 3),))(single(lambda x, g: g / x))
correct("outputs of all scales", lambda x: np.exp(x), lambda rng: (np.linspace(-30, 30, 9),))(single(lambda x, g: g * np.exp(x)))
correct("saturated tanh", np.tanh, lambda rng: (np.array([15.0, -19.0, 3.0]),))(single(lambda x, g: g / np.cosh(x) ** 2))
correct("saturated tanh alone", np.tanh, lambda rng: (np.array([20.0, -25.0]),))(single(lambda x, g: g / np.cosh(x) ** 2))
correct("saturated sigmoid", sigmoid, lambda rng: (np.array([-30.0, 25.0, 40.0]),))(single(lambda x, g: g * sigmoid(x) * sigmoid(-x)))
correct("softmax of one that wins", softmax, lambda rng: (np.array([[50.0, 0.0, -10.0]]),))(single(softmax_vjp))
correct("cross entropy of a sure answer", lambda x: -np.log(softmax(x)[..., 0]).sum(), lambda rng: (np.array([[12.0, 0.0, -5.0]]),))(
    single(lambda x, g: g * (softmax(x) - np.array([1.0, 0.0, 0.0])))
)
correct("underflow", lambda x: np.exp(-(x**2)), lambda rng: (np.array([20.0, 0.5, -26.0]),))(single(lambda x, g: -2 * g * x * np.exp(-(x**2))))
correct("oscillation, 1e4", lambda x: np.sin(1e4 * x), normal(3))(single(lambda x, g: 1e4 * g * np.cos(1e4 * x)))
correct("oscillation, 1e6", lambda x: np.sin(1e6 * x), normal(3))(single(lambda x, g: 1e6 * g * np.cos(1e6 * x)))
correct("sin of large numbers", np.sin, normal(4, scale=1e6))(single(lambda x, g: g * np.cos(x)))
correct("a tail that rounding makes a staircase", lambda x: x * np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]), lambda rng: (np.array([-6.0, -3.0, 0.0, 5.0]),))(
    single(lambda x, g: g * (np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x]) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)))
)
correct("a small ripple", lambda x: x + 1e-6 * np.sin(1e5 * x), normal(3))(single(lambda x, g: g * (1 + 0.1 * np.cos(1e5 * x))))
correct("a high power", lambda x: x**60, lambda rng: (rng.uniform(0.9, 1.1, 4),))(single(lambda x, g: 60 * g * x**59))
correct("a chaotic map, 20 times", lambda x: _logistic(x, 20), lambda rng: (rng.uniform(0.2, 0.8, 3),))(single(lambda x, g: g * _logistic_slope(x, 20)))
correct("a recurrence of 200 orthogonal steps", rnn, rnn_arguments(200))(rnn_vjp)
correct("a recurrence that forgets", rnn, rnn_arguments(60, 0.3))(rnn_vjp)
correct("a recurrence that explodes", rnn, rnn_arguments(30, 3.0))(rnn_vjp)
correct("a product of 300 numbers", lambda x: np.prod(x), lambda rng: (rng.uniform(0.8, 1.25, 300),))(single(lambda x, g: g * np.prod(x) / x))
correct("layer norm of nearly equal numbers", layer_norm, normal(2, 8, scale=1e-3, shift=5.0))(single(layer_norm_vjp))
correct("a function of nothing", lambda x: x.sum(), lambda rng: (np.zeros((0, 3)),))(single(lambda x, g: np.zeros(x.shape)))
correct("a constant", lambda x: np.ones(3), normal(2))(single(lambda x, g: np.zeros(x.shape)))
correct("floor", np.floor, normal(3))(single(lambda x, g: np.zeros(x.shape)))
correct("a scalar", lambda x: np.exp(x), lambda rng: (np.array(0.3),))(single(lambda x, g: g * np.exp(x)))
correct("computed in float32", lambda x: np.tanh(x.astype(np.float32)).astype(np.float64), normal(4))(single(lambda x, g: g * (1 - np.tanh(x) ** 2)))
correct("float32", lambda x, y: np.tanh(x @ y), lambda rng: (rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal((4, 2)).astype(np.float32)))(
    lambda a, g: matmul_vjp(a, g * (1 - np.tanh(a[0] @ a[1]) ** 2))
)
correct("float32 of large sums", lambda x: (x * x).sum(), lambda rng: ((1000 + rng.standard_normal(1000)).astype(np.float32),))(single(lambda x, g: 2 * g * x))
correct("an integer argument", lambda x, i: x[i] ** 2, lambda rng: (rng.standard_normal(4), np.array([0, 2, 0])))(lambda a, g: (np.bincount(a[1], 2 * a[0][a[1]] * g, 4), None))
correct("a wide sum", lambda x: np.sin(x).sum(), normal(20000))(single(lambda x, g: g * np.cos(x)))


def _logistic(x, steps):
    for _ in range(steps):
        x = 3.9 * x * (1 - x)
    return x


def _logistic_slope(x, steps):
    slope = np.ones_like(x)
    for _ in range(steps):
        slope = slope * 3.9 * (1 - 2 * x)
        x = 3.9 * x * (1 - x)
    return slope


def second(name, f, make):
    SECOND[name] = (f, make)


@tg.primitive
def frozen_sine(x):
    return np.sin(x)


@frozen_sine.rule
def frozen_sine_x(g, x):
    return g * tg.cos(x).detach()


@tg.primitive
def half_frozen_product(x, y):
    return x * y


@half_frozen_product.rule
def half_frozen_product_x(g, y):
    return g * y


@half_frozen_product.rule
def half_frozen_product_y(g, x):
    return g * (0.5 * x + 0.5 * (x.detach() if hasattr(x, "detach") else x))


@tg.primitive
def wrong_curvature(x):
    return np.exp(x)


@wrong_curvature.rule
def wrong_curvature_x(g, x, out):
    return g * (out + 1e-5 * (x - (x.detach() if hasattr(x, "detach") else x)))


def frozen_sine_x_on_arrays(g, x):
    return g * (tg.cos(x).detach() if hasattr(x, "detach") else np.cos(x))


tg.defvjp(frozen_sine, frozen_sine_x_on_arrays)
second("the slope of a sine detached", lambda x: frozen_sine(x), normal(4))
second("half of a product detached", lambda x, y: half_frozen_product(x, y), pair(3, 3))
second("a curvature that is off by 1e-5", lambda x: wrong_curvature(x), normal(3))
second("a weight that is detached in the second pass", lambda x: frozen_sine(x * x) + x, normal(3))


def scaled(program, place, factor):
    """The program with the gradient that arrives at one of its records scaled."""

    def f(*inputs):
        outputs = program(*inputs)
        live = [y for y in outputs if y.requires_grad]
        records = tg.tape(*live) if live else []
        if len(records):
            HOOKS.setdefault(records[place % len(records)], []).append(lambda g: g * factor)
        return outputs

    return f
