"""Values and gradients to second order against PyTorch, in float64."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg

torch = pytest.importorskip("torch")
F = torch.nn.functional

few = settings(derandomize=True, deadline=None, max_examples=60, database=None)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    # On arrays this small the threads of PyTorch only wait for each other, longest on a busy machine.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def close(ours, theirs):
    theirs = theirs.numpy(force=True)
    assert ours.dtype == theirs.dtype == np.float64
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-10, atol=1e-12)


def agree(ours, theirs, *xs, order=1):
    """The same values, gradients and, for order 2, gradients of the gradients with respect to the operands and the cotangent."""
    rng = np.random.default_rng(len(xs))
    mine = [tg.tensor(np.array(x, np.float64), requires_grad=True) for x in xs]
    twins = [torch.tensor(np.array(x, np.float64), requires_grad=True) for x in xs]
    y, z = ours(*mine), theirs(*twins)
    close(y, z)
    v = rng.standard_normal(y.shape)
    mine_v, twin_v = tg.tensor(v, requires_grad=order > 1), torch.tensor(v, requires_grad=order > 1)
    first = tg.grad(y, mine, mine_v, create_graph=order > 1)
    expected = torch.autograd.grad(z, twins, twin_v, create_graph=order > 1, materialize_grads=True)
    for g, e in zip(first, expected, strict=True):
        close(g, e)
    if order == 1:
        return
    ws = [rng.standard_normal(g.shape) for g in first]
    mine, twins = [*mine, mine_v], [*twins, twin_v]
    second = tg.grad(first, mine, [tg.tensor(w) for w in ws], allow_unused=True)
    kept = [(e, torch.tensor(w)) for e, w in zip(expected, ws, strict=True) if e.requires_grad]
    expected = torch.autograd.grad([e for e, _ in kept], twins, [w for _, w in kept], materialize_grads=True)
    assert second[-1] is not None
    for x, g, e in zip(mine, second, expected, strict=True):
        close(tg.zeros_like(x) if g is None else g, e)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def apart(*shape, seed=0):
    """No two elements equal, none zero, no two of the same size."""
    return np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape) * 0.37 - 3.01


STRIDES, PADDINGS, DILATIONS, GROUPS = [1, 2, (2, 1), (1, 3)], [0, 1, (2, 0), (1, 3)], [1, 2, (1, 2), (3, 1)], [1, 2, 4]


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("dilation", DILATIONS, ids=str)
def test_conv2d(dilation, groups, kernel):
    x, weight, bias = normal(2, 4, 7, 8), normal(8, 4 // groups, *kernel, seed=1), normal(8, seed=2)
    for stride, padding in itertools.product(STRIDES, PADDINGS):
        options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
        agree(lambda *a, o=options: tg.conv2d(*a, **o), lambda *a, o=options: F.conv2d(*a, **o), x, weight, bias)
        agree(lambda *a, o=options: tg.conv2d(*a, None, **o), lambda *a, o=options: F.conv2d(*a, None, **o), x, weight)


pairs = st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3))


@few
@given(st.data(), seeds, pairs, st.integers(0, 2) | st.tuples(st.integers(0, 2), st.integers(0, 2)), pairs, st.integers(1, 3), st.booleans())
def test_conv2d_of_any_sizes_to_second_order(data, seed, stride, padding, dilation, groups, biased):
    n, kh, kw = (data.draw(st.integers(1, 3), label) for label in ("batch", "rows", "columns"))
    c, o = (data.draw(st.sampled_from([1, 2, 3, 8]), label) for label in ("in", "out"))
    (ph, pw), (dh, dw) = (p if isinstance(p, tuple) else (p, p) for p in (padding, dilation))
    height, width = (data.draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 9)) for k, d, p in ((kh, dh, ph), (kw, dw, pw)))
    operands = [normal(n, c * groups, height, width, seed=seed), normal(o * groups, c, kh, kw, seed=seed + 1)]
    if biased:
        operands.append(normal(o * groups, seed=seed + 2))
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    agree(lambda *a: tg.conv2d(*a, **options), lambda *a: F.conv2d(*a, **options), *operands, order=2)


@pytest.mark.parametrize("options", [{}, dict(stride=2, padding=1), dict(padding=(0, 2), dilation=(2, 1), groups=2)], ids=str)
def test_conv2d_of_one_image(options):
    agree(lambda *a: tg.conv2d(*a, **options), lambda *a: F.conv2d(*a, **options), normal(4, 6, 7), normal(2, 4 // options.get("groups", 1), 3, 3), normal(2), order=2)


POOLS = [
    (k, s, p) for k in (1, 2, 3, (2, 3), (3, 1)) for s in (None, 1, 2, (1, 3)) for p in (0, 1, (0, 1), (1, 0))
    if all(2 * a <= b for a, b in zip(np.broadcast_to(p, 2), np.broadcast_to(k, 2), strict=True))
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS, ids=str)
def test_pooling(kernel, stride, padding):
    x = apart(2, 3, 6, 7)
    for counted in (True, False):
        agree(lambda a: tg.avg_pool2d(a, kernel, stride, padding, counted), lambda a: F.avg_pool2d(a, kernel, stride, padding, count_include_pad=counted), x, order=2)  # noqa: B023
    for dilation in (1, 2, (2, 1)):
        agree(lambda a: tg.max_pool2d(a, kernel, stride, padding, dilation), lambda a: F.max_pool2d(a, kernel, stride, padding, dilation), x, order=2)  # noqa: B023
    agree(lambda a: tg.avg_pool2d(a, kernel, stride, padding), lambda a: F.avg_pool2d(a, kernel, stride, padding), x[0])
    agree(lambda a: tg.max_pool2d(a, kernel, stride, padding), lambda a: F.max_pool2d(a, kernel, stride, padding), x[0])


def test_images_of_an_empty_batch():
    x, weight = np.zeros((0, 2, 4, 4)), normal(3, 2, 2, 2)
    agree(tg.conv2d, F.conv2d, x, weight, order=2)
    agree(lambda a: tg.avg_pool2d(a, 3, 2, 1), lambda a: F.avg_pool2d(a, 3, 2, 1), x)
    agree(lambda a: tg.max_pool2d(a, 3, 2, 1), lambda a: F.max_pool2d(a, 3, 2, 1), x)


@few
@given(seeds)
def test_max_pool2d_takes_the_first_of_equals_and_never_the_padding(seed):
    x = np.random.default_rng(seed).integers(-3, 0, (2, 2, 6, 5))
    agree(lambda a: tg.max_pool2d(a, 3, 2, 1), lambda a: F.max_pool2d(a, 3, 2, 1), x)
    agree(lambda a: tg.max_pool2d(a, (2, 3), 1, (1, 0), (1, 2)), lambda a: F.max_pool2d(a, (2, 3), 1, (1, 0), (1, 2)), x)


POINTS = np.concatenate([np.linspace(-6, 6, 41), [0.0, -0.0, 1e-9, -1e-9, 25.0, -25.0, 40.0, -40.0]])
ACTIVATIONS = {
    "gelu": (tg.gelu, F.gelu),
    "gelu-tanh": (lambda x: tg.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "silu": (tg.silu, F.silu),
    # PyTorch's softplus is the identity above its threshold, by default wrong by 2e-9.
    "softplus": (tg.softplus, lambda x: F.softplus(x, threshold=100)),
    "elu": (tg.elu, F.elu),
    "elu-alpha": (lambda x: tg.elu(x, 0.7), lambda x: F.elu(x, 0.7)),
    "leaky_relu": (tg.leaky_relu, F.leaky_relu),
    "leaky_relu-slope": (lambda x: tg.leaky_relu(x, 0.3), lambda x: F.leaky_relu(x, 0.3)),
    "relu": (tg.relu, F.relu),
    "sigmoid": (tg.sigmoid, torch.sigmoid),
    "tanh": (tg.tanh, torch.tanh),
    "erf": (tg.erf, torch.erf),
    "erfc": (tg.erfc, torch.erfc),
    "absolute": (tg.absolute, torch.abs),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    agree(*ACTIVATIONS[name], POINTS)
    # At 0 our elu curves as on its negative side, where its slope comes from; PyTorch's takes the slope there and no curvature.
    agree(*ACTIVATIONS[name], POINTS[POINTS != 0] if name.startswith("elu") else POINTS, order=2)


@pytest.mark.parametrize("name", ["gelu", "gelu-tanh", "silu", "elu", "leaky_relu", "sigmoid", "tanh", "erf", "erfc", "softplus"])
def test_activation_far_out(name):
    ours, theirs = ACTIVATIONS[name]
    agree(ours, F.softplus if name == "softplus" else theirs, [-1e4, -700.0, 700.0, 1e4], order=2)


@pytest.mark.parametrize("name", ["elu", "leaky_relu", "relu", "sigmoid", "tanh", "erf", "erfc", "softplus"])
def test_activation_at_infinity(name):
    agree(ACTIVATIONS[name][0], F.softplus if name == "softplus" else ACTIVATIONS[name][1], [-np.inf, np.inf, 1.0])


UNARY = {"arccos": "acos", "arcsin": "asin", "arctan": "atan", "arccosh": "acosh", "arcsinh": "asinh", "arctanh": "atanh"}
INSIDE = {"log", "log2", "log10", "log1p", "sqrt", "reciprocal", "arccosh"}


@pytest.mark.parametrize("name", "exp exp2 expm1 log log2 log10 log1p sqrt square reciprocal sin cos tan sinh cosh arccos arcsin arctan arccosh arcsinh arctanh".split())
def test_unary(name):
    x = np.linspace(0.05, 4, 23) + (name == "arccosh") if name in INSIDE else np.linspace(-0.95, 0.95, 23)
    agree(getattr(tg, name), getattr(torch, UNARY.get(name, name)), x, order=2)


BINARY = {"arctan2": "atan2", "mod": "remainder", "divide": "div"}
SHAPES = [((), ()), ((3,), ()), ((2, 3), (3,)), ((2, 1, 3), (4, 1)), ((1, 4), (3, 1))]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", "add subtract multiply divide maximum minimum fmax fmin logaddexp arctan2 hypot mod fmod".split())
def test_binary(name, shapes):
    # The root of 2 keeps the operands of maximum and minimum from ties.
    x, y = (apart(*shape, seed=k) if shape else np.array(0.36) for k, shape in enumerate(shapes))
    agree(getattr(tg, name), getattr(torch, BINARY.get(name, name)), x, -y * np.sqrt(2), order=2)


@pytest.mark.parametrize("exponent", [-2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 4.0])
def test_power_with_a_constant_exponent(exponent):
    agree(lambda x: x**exponent, lambda x: x**exponent, np.linspace(0.1, 3, 9), order=2)
    if exponent == int(exponent):
        agree(lambda x: x**exponent, lambda x: x**exponent, np.linspace(-3, -0.1, 9), order=2)
    if exponent >= 1 or exponent == 0:
        agree(lambda x: x**exponent, lambda x: x**exponent, [0.0, -0.0], order=1 if 1 < exponent < 2 else 2)


@few
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0]), st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.0])), min_size=1, max_size=6))
def test_power_of_zero(points):
    x, y = np.array(points).T
    agree(tg.power, torch.pow, x, y)
    agree(lambda a: tg.power(a, y), lambda a: torch.pow(a, torch.tensor(y)), x)
    agree(lambda b: tg.power(x, b), lambda b: torch.pow(torch.tensor(x), b), y)


@pytest.mark.parametrize("base", [0.0, 0.5, 1, 2, 3.5])
def test_power_of_a_constant_base(base):
    agree(lambda y: base**y, lambda y: base**y, np.linspace(0, 3, 7), order=1 if base == 0 else 2)


@few
@given(seeds, st.sampled_from([((3, 4), (3, 4)), ((3, 4), (4,)), ((1,), (3, 1)), ((), (2,))]))
def test_where(seed, shapes):
    condition = np.random.default_rng(seed).random((3, 4) if shapes[0] == (3, 4) else shapes[1]) < 0.5
    agree(lambda x, y: tg.where(condition, x, y), lambda x, y: torch.where(torch.tensor(condition), x, y), *(normal(*s, seed=seed) for s in shapes), order=2)


@few
@given(seeds)
def test_clip(seed):
    rng = np.random.default_rng(seed)
    # Few values, so that elements stand at their bounds and bounds stand the wrong way round.
    x, low, high = rng.integers(-2, 3, (3, 3, 4)) / 2
    # Below two bounds that are equal PyTorch drops the gradient of both.
    high = np.where(low == high, high + 0.5, high)
    for bounds in ((-0.5, 0.5), (None, 0.5), (-0.5, None), (0.5, -0.5), (0.0, 0.0)):
        agree(lambda a, b=bounds: tg.clip(a, *b), lambda a, b=bounds: torch.clamp(a, *b), x, order=2)
    agree(tg.clip, torch.clamp, x, low, high, order=2)
    agree(lambda a, b: tg.clip(a, None, b), lambda a, b: torch.clamp(a, max=b), x, high)
    agree(lambda a, b: tg.clip(a, b), lambda a, b: torch.clamp(a, min=b), x, low[0])


def dims(axis, ndim):
    return tuple(range(ndim)) if axis is None else axis


AXES = [None, 0, 1, -1, (0, 2), (-1, 0), (0, 1, 2)]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_reduction(axis, keepdims):
    x, d = apart(2, 3, 4), dims(axis, 3)
    for name, theirs in {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin, "logsumexp": torch.logsumexp}.items():
        agree(lambda a, f=getattr(tg, name): f(a, axis=axis, keepdims=keepdims), lambda a, f=theirs: f(a, dim=d, keepdim=keepdims), x, order=2)
    for ddof in (0, 1, 1.5, -1):
        for name in ("var", "std"):
            agree(
                lambda a, f=getattr(tg, name), n=ddof: f(a, axis=axis, ddof=n, keepdims=keepdims),
                lambda a, f=getattr(torch, name), n=ddof: f(a, dim=d, correction=n, keepdim=keepdims),
                x, order=2,
            )  # fmt: skip
    # Equal elements share the gradient on both sides, signs and zeros included.
    ties = np.random.default_rng(0).integers(-1, 2, (2, 3, 4))
    for name in ("max", "min"):
        agree(lambda a, f=getattr(tg, name): f(a, axis=axis, keepdims=keepdims), lambda a, f=getattr(torch, f"a{name}"): f(a, dim=d, keepdim=keepdims), ties, order=2)


def test_std_of_constants():
    agree(lambda x: tg.std(x, axis=1), lambda x: torch.std(x, dim=1, correction=0), [[0.5, 0.5, 0.5], [1.0, 2.0, 4.0]])


@few
@given(seeds, st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data(), st.booleans())
def test_statistics_of_any_shape_to_second_order(seed, shape, data, keepdims):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True).map(tuple))
    # Elements that are nearly equal would leave second derivatives that are nothing but rounding.
    x, n = apart(*shape, seed=seed), int(np.prod([shape[k] for k in axes]))
    agree(lambda a: tg.logsumexp(a, axes, keepdims), lambda a: torch.logsumexp(a, axes, keepdims), x, order=2)
    if n > 1:
        ddof = data.draw(st.integers(0, n - 1))
        agree(lambda a: tg.std(a, axes, ddof=ddof, keepdims=keepdims), lambda a: torch.std(a, axes, correction=ddof, keepdim=keepdims), x, order=2)
        agree(lambda a: tg.var(a, axes, ddof=ddof, keepdims=keepdims), lambda a: torch.var(a, axes, correction=ddof, keepdim=keepdims), x, order=2)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name, axis):
    # Of a saturated softmax the second derivatives are differences of nearly equal numbers: no two formulas agree in them.
    for scale, order in ((1, 2), (30, 2), (1000, 1)):
        agree(lambda a, s=scale: getattr(tg, name)(s * a, axis), lambda a, s=scale: getattr(torch, name)(s * a, axis), normal(2, 3, 4), order=order)
    masked = normal(2, 3, 4)
    masked[0, 0, 0] = -np.inf
    agree(lambda a: tg.softmax(a, axis), lambda a: torch.softmax(a, axis), masked, order=2)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)], ids=str)
def test_logsumexp_at_infinity(axis):
    x = [[-np.inf, -2000.0, -2000.0], [-np.inf, 1000.0, 1000.5], [-2000.0, -2000.0, -np.inf]]
    # Where all are -inf, as in the first column, PyTorch's gradient is NaN.
    agree(lambda a: tg.logsumexp(a, axis), lambda a: torch.logsumexp(a, dims(axis, 2)), np.array(x)[:, 1:] if axis == 0 else x)
    lowest = np.full((3, 3), -np.inf)
    close(tg.logsumexp(tg.tensor(lowest), axis), torch.logsumexp(torch.tensor(lowest), dims(axis, 2)))


def test_logsumexp_of_infinity_has_no_gradient_for_the_finite():
    values = [np.inf, 1.0, -3.0, 1000.0]
    x, twin = tg.tensor(np.array(values), requires_grad=True), torch.tensor(values, dtype=torch.float64, requires_grad=True)
    # What reaches the infinity itself is a matter of taste: NaN in PyTorch.
    with np.errstate(all="ignore"):
        close(tg.grad(tg.logsumexp(x), x)[1:], torch.autograd.grad(torch.logsumexp(twin, 0), twin)[0][1:])


def their_prod(x, axes, keepdims):
    """PyTorch's prod takes one axis."""
    axes = [k % x.ndim for k in axes]
    rest = [k for k in range(x.ndim) if k not in axes]
    out = torch.prod(x.permute(*rest, *axes).reshape([x.shape[k] for k in rest] + [-1]), -1)
    return out.reshape([1 if k in axes else n for k, n in enumerate(x.shape)]) if keepdims else out


zeros_and_more = st.sampled_from([0.0, 0.0, 0.0, -1.5, 0.5, 1.0, 2.0])


@few
@given(st.data(), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.booleans())
def test_products_through_zeros_to_second_order(data, shape, keepdims):
    n = int(np.prod(shape))
    x = np.reshape(data.draw(st.lists(zeros_and_more, min_size=n, max_size=n)), shape)
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1) | st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True).map(tuple))
    axes = (axis,) if isinstance(axis, int) else dims(axis, len(shape))
    agree(lambda a: tg.prod(a, axis, keepdims=keepdims), lambda a: their_prod(a, axes, keepdims), x, order=2)
    along = axis if isinstance(axis, int) else None
    agree(lambda a: tg.cumprod(a, along), lambda a: torch.cumprod(a.reshape(-1) if along is None else a, along or 0), x, order=2)
    agree(lambda a: tg.cumsum(a, along), lambda a: torch.cumsum(a.reshape(-1) if along is None else a, along or 0), x, order=2)


@pytest.mark.parametrize("axis", [None, 0, 1, -1], ids=str)
@pytest.mark.parametrize("order", [None, 0.5, 1, 1.5, 2, 2.5, 3, np.inf, -np.inf, -1, -2])
def test_vector_norm(order, axis):
    x = apart(12) if axis is None else apart(3, 4)
    zeros = np.where(np.arange(x.size).reshape(x.shape) % 4 == 1, 0.0, np.round(x))
    for keepdims in (False, True):
        ours, theirs = lambda a, k=keepdims: tg.norm(a, order, axis, k), lambda a, k=keepdims: torch.linalg.vector_norm(a, 2 if order is None else order, axis, k)
        agree(ours, theirs, x, order=2)
        if order is None or order >= 0.5:
            agree(ours, theirs, 0 * x)
            agree(ours, theirs, zeros)
        # A vector of zeros has second derivatives NaN in PyTorch.
        if order in (None, 2, 3, np.inf):
            agree(ours, theirs, np.where(zeros.any(axis, keepdims=True), zeros, x), order=2)


@pytest.mark.parametrize("axis", [None, 0, 1], ids=str)
def test_norm_that_counts(axis):
    x = np.arange(4.0) if axis is None else np.arange(6.0).reshape(2, 3) % 4
    y = tg.norm(tg.tensor(x, requires_grad=True), 0, axis)
    close(y, torch.linalg.vector_norm(torch.tensor(x), 0, axis))
    assert not y.requires_grad


@pytest.mark.parametrize("axis", [(0, 1), (1, 0), (-1, 0), (0, 2)], ids=str)
@pytest.mark.parametrize("order", [None, "fro", 1, -1, np.inf, -np.inf])
def test_matrix_norm(order, axis):
    for x, keepdims in itertools.product((apart(2, 3, 4), np.round(normal(2, 3, 4)), np.zeros((2, 3, 4))), (False, True)):
        agree(lambda a, k=keepdims: tg.norm(a, order, axis, k), lambda a, k=keepdims: torch.linalg.matrix_norm(a, order or "fro", axis, k), x)


def test_norm_of_all():
    agree(tg.norm, torch.linalg.vector_norm, normal(2, 3, 4), order=2)
    agree(tg.norm, torch.linalg.vector_norm, np.zeros((2, 3)), order=1)


PRODUCTS = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((4, 2, 3), (3, 2)), ((2, 3), (4, 3, 2)), ((4, 1, 2, 3), (5, 3, 2)),
    ((5, 1, 2, 3), (1, 4, 3, 2)), ((3,), (2, 4, 3, 2)), ((2, 4, 2, 3), (3,)), ((1, 2, 3), (1, 3, 2)), ((0, 3), (3, 2)), ((2, 0), (0, 2)),
]  # fmt: skip


@pytest.mark.parametrize("shapes", PRODUCTS, ids=str)
def test_matmul(shapes):
    agree(tg.matmul, torch.matmul, *(normal(*s, seed=k) for k, s in enumerate(shapes)), order=2)
    agree(lambda x, y: x @ y, lambda x, y: x @ y, *(normal(*s, seed=k) for k, s in enumerate(shapes)))


@few
@given(seeds, st.data(), st.lists(st.integers(1, 3), max_size=3), st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)))
def test_matmul_of_any_batches_to_second_order(seed, data, batch, sizes):
    rows, inner, columns = sizes

    def lead():
        return tuple(1 if data.draw(st.booleans()) else n for n in batch[data.draw(st.integers(0, len(batch))) :])

    agree(tg.matmul, torch.matmul, normal(*lead(), rows, inner, seed=seed), normal(*lead(), inner, columns, seed=seed + 1), order=2)


LENGTHS = dict(zip("bijklm", (2, 3, 3, 2, 4, 1), strict=True))
SUBSCRIPTS = "ij,jk->ik|ij,jk|ij,ij->|ij,kj->ik|bij,bjk->bik|bij,bkj->bik|ij->ji|ij->j|ij->|i,j->ij|i,j->ji|ij,jk,kl->il|ij,jk,kl,l->i|bi,ij,bj->b|ij,k->j|ij,kl->"
TRACES = "ii->i|ii->|ii|iij->j|iji->j|iij,j->i|iii->i|iij,jj->|ii,ij->j|bii,bi->b|ii,ii->i"


def shape_of(term):
    return tuple(LENGTHS[letter] for letter in term)


@pytest.mark.parametrize("subscripts", [*SUBSCRIPTS.split("|"), *TRACES.split("|"), "im,mj->ij", "ij,im->ij", "mj,ij->i", "i,i,i->i"])
def test_einsum(subscripts):
    operands = [normal(*shape_of(term), seed=k) for k, term in enumerate(subscripts.split("->")[0].split(","))]
    agree(lambda *a: tg.einsum(subscripts, *a), lambda *a: torch.einsum(subscripts, *a), *operands, order=2)


@pytest.mark.parametrize("subscripts", ["ij,ij->", "ij,kj->ik", "ij,ij,ij->i", "ij,ji->", "ii,jj->ij", "ij,jk->ik", "...i,...i->..."])
def test_einsum_of_one_tensor_repeated(subscripts):
    n = subscripts.count(",") + 1
    agree(lambda x: tg.einsum(subscripts, *[x] * n), lambda x: torch.einsum(subscripts, *[x] * n), normal(3, 3), order=2)


ELLIPSES = {
    "...i,...i->...": ((2, 4, 3), (2, 4, 3)), "...ij,...jk->...ik": ((2, 1, 3, 4), (5, 4, 2)), "b...i,ij->b...j": ((2, 4, 5, 3), (3, 2)),
    "...ii->...": ((2, 4, 3, 3),), "...ii->...i": ((2, 3, 3),), "i...->...": ((3, 2, 4),), "...,...->...": ((3, 1), (4,)), "i...,i...->i": ((3, 4), (3, 4)),
    "...i->i": ((2, 4, 3),), "...ij->...ji": ((2, 3, 4),), "...i,i...->...": ((4, 3), (3, 2, 4)), "...,i->i...": ((), (3,)), "...ij,...jk": ((2, 3, 4), (4, 2)),
    "...i": ((2, 3),), "i...j,...->ij": ((3, 1, 2), (4,)),
}  # fmt: skip


@pytest.mark.parametrize("subscripts", ELLIPSES)
def test_einsum_with_an_ellipsis(subscripts):
    operands = [normal(*shape, seed=k) for k, shape in enumerate(ELLIPSES[subscripts])]
    agree(lambda *a: tg.einsum(subscripts, *a), lambda *a: torch.einsum(subscripts, *a), *operands, order=2)


@settings(few, max_examples=150)
@given(seeds, st.lists(st.text("bijkm", max_size=4), min_size=1, max_size=3), st.data())
def test_einsum_of_any_subscripts(seed, terms, data):
    letters = sorted(set("".join(terms)))
    output = "".join(data.draw(st.lists(st.sampled_from(letters), unique=True))) if letters else ""
    subscripts = ",".join(terms) + "->" + output
    # An axis of length 1 is broadcast against the others of its letter.
    short = [data.draw(st.sets(st.sampled_from(term))) if term else () for term in terms]
    operands = [normal(*(1 if letter in ones else LENGTHS[letter] for letter in term), seed=seed + k) for k, (term, ones) in enumerate(zip(terms, short, strict=True))]
    agree(lambda *a: tg.einsum(subscripts, *a), lambda *a: torch.einsum(subscripts, *a), *operands, order=2)


@pytest.mark.parametrize("subscripts", ["ij,jk,kl->il", "ij,ij->j", "iij,jk->ik", "ij,kl,jl->k", "...ij,jk->...k", "ii,ij->j"])
def test_einsum_of_large_operands(subscripts):
    sizes = dict(i=11, j=23, k=13, l=7)
    terms = subscripts.replace("...", "l").split("->")[0].split(",")
    operands = [normal(*(sizes[letter] for letter in term), seed=k) / 5 for k, term in enumerate(terms)]
    # Einsum plans its order of work where an operand has more than 256 elements, with axes of length 1 too.
    agree(lambda *a: tg.einsum(subscripts, *a), lambda *a: torch.einsum(subscripts, *a), *operands, order=2)
    operands[1] = operands[1].mean(0, keepdims=True)
    agree(lambda *a: tg.einsum(subscripts, *a), lambda *a: torch.einsum(subscripts, *a), *operands, order=2)


def test_other_products():
    a, b = normal(2, 3, 4), normal(3, 4, 5, seed=1)
    agree(tg.tensordot, torch.tensordot, a, b, order=2)
    agree(lambda x, y: tg.tensordot(x, y, ([2, 0], [1, 2])), lambda x, y: torch.tensordot(x, y, ([2, 0], [1, 2])), a, b[..., :2], order=2)
    agree(tg.kron, torch.kron, a[0], b[0], order=2)
    agree(tg.outer, torch.outer, a[0, 0], b[0, 0], order=2)
    agree(tg.inner, torch.inner, a, b[0].T, order=2)
    agree(lambda x, y: tg.cross(x, y, axis=1), lambda x, y: torch.linalg.cross(x, y, dim=1), a, a[::-1] + 1, order=2)
    for k in (-2, 0, 1):
        agree(lambda x, k=k: tg.tril(x, k), lambda x, k=k: torch.tril(x, k), a)
        agree(lambda x, k=k: tg.triu(x, k), lambda x, k=k: torch.triu(x, k), a)
        agree(lambda x, k=k: tg.diagonal(x, k, 2, 0), lambda x, k=k: torch.diagonal(x, k, 2, 0), a)
        agree(lambda x, k=k: tg.diag(x, k), lambda x, k=k: torch.diag(x, k), a[0, 0])


@pytest.mark.parametrize("padding_idx", [None, 0, 3, -1])
def test_embedding(padding_idx):
    index = np.array([[0, 3, 4], [3, 0, 0]])
    agree(lambda w: tg.embedding(index, w, padding_idx), lambda w: F.embedding(torch.tensor(index), w, padding_idx), normal(5, 3), order=2)
    agree(lambda w: tg.embedding(3, w, padding_idx), lambda w: F.embedding(torch.tensor(3), w, padding_idx), normal(5, 3))


@few
@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(-3, 2), st.booleans())
def test_sort_and_take_along_axis(seed, a, b, c, axis, tied):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, (a, b, c)) if tied else rng.standard_normal((a, b, c))
    agree(lambda v: tg.sort(v, axis), lambda v: torch.sort(v, dim=axis, stable=True).values, x, order=2)
    shape = list(x.shape)
    shape[axis] = int(rng.integers(0, 6))
    for k in range(3):
        if k != axis % 3 and rng.random() < 0.3:
            shape[k] = 1
    index = rng.integers(0, x.shape[axis], shape)
    theirs = torch.tensor(index)
    agree(lambda v: tg.take_along_axis(v, index - rng.choice([0, x.shape[axis]], shape), axis), lambda v: torch.take_along_dim(v, theirs, axis), x, order=2)
    agree(lambda v: tg.take(v, index, axis), lambda v: v.movedim(axis, 0)[theirs].permute(*range(3, 3 + axis % 3), 0, 1, 2, *range(3 + axis % 3, 5)), x)


def in_torch(index):
    return tuple(torch.tensor(k) if isinstance(k, np.ndarray) else k for k in index)


@st.composite
def indices(draw, shape):
    def part(n):
        rows = st.lists(st.integers(-n, n - 1), min_size=2, max_size=2).map(np.array)
        return draw(st.one_of(rows, rows.map(lambda k: k.reshape(2, 1)), st.sampled_from([slice(None), slice(1, None), slice(0, n, 2), slice(-1, None), slice(0, 0)])))

    front = draw(st.integers(0, len(shape)))
    # An ellipsis of no axes between arrays parts them in NumPy, and not in PyTorch.
    back = draw(st.integers(0, max(0, len(shape) - front - 1)))
    parts = [part(n) for n in shape[:front]] + [...] * (back > 0) + [part(n) for n in shape[len(shape) - back :]]
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return tuple(parts)


@settings(few, max_examples=200)
@given(seeds, indices((3, 4, 2, 5)))
def test_getitem(seed, index):
    agree(lambda v: v[index], lambda v: v[in_torch(index)], normal(3, 4, 2, 5, seed=seed), order=2)


MASKS = {
    "rows": (np.arange(3) % 2 == 0,), "plane": (np.arange(12).reshape(3, 4) % 5 < 2,), "all": (np.arange(24).reshape(3, 4, 2) % 3 == 0,),
    "second": (slice(None), np.arange(4) > 1), "none": (np.zeros(3, bool),), "last": (..., np.array([False, True])),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_getitem_with_a_mask(name):
    index = MASKS[name]
    agree(lambda v: v[index], lambda v: v[in_torch(index)], normal(3, 4, 2), order=2)


PADS = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}


@pytest.mark.parametrize("widths", [((0, 0), (0, 0), (1, 2), (2, 0)), ((0, 0), (0, 0), (3, 0), (0, 1)), ((0, 0), (0, 0), (1, 1), (1, 1))], ids=str)
@pytest.mark.parametrize("mode", PADS)
def test_pad(mode, widths):
    theirs = tuple(n for pair in widths[:1:-1] for n in pair)
    agree(lambda v: tg.pad(v, widths, mode), lambda v: F.pad(v, theirs, PADS[mode]), normal(2, 2, 4, 3), order=2)
    if mode == "constant":
        agree(lambda v: tg.pad(v, widths, constant_values=1.5), lambda v: F.pad(v, theirs, value=1.5), normal(2, 2, 4, 3))
        agree(lambda v: tg.pad(v, ((1, 0), (2, 1))), lambda v: F.pad(v, (2, 1, 1, 0)), normal(2, 3))


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_recurrent_network(cell):
    steps, batch, inputs, hidden = 6, 3, 4, 5
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[cell]
    module = getattr(torch.nn, cell)(inputs, hidden).double()
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights = [normal(*shape, seed=k) / 2 for k, shape in enumerate([(gates * hidden, inputs), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)])]

    def ours(xs, h, W, U, b, d):
        c, out = 0 * h, []
        for x in xs:
            left, right = (tg.split(v, gates, axis=1) for v in (x @ W.T + b, h @ U.T + d))
            if cell == "RNN":
                h = tg.tanh(left[0] + right[0])
            elif cell == "GRU":
                reset, update = (tg.sigmoid(left[k] + right[k]) for k in (0, 1))
                h = (1 - update) * tg.tanh(left[2] + reset * right[2]) + update * h
            else:
                i, f, g, o = (u + v for u, v in zip(left, right, strict=True))
                c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
                h = tg.sigmoid(o) * tg.tanh(c)
            out.append(h)
        return tg.stack(out)

    def theirs(xs, h, *values):
        state = (h[None], 0 * h[None]) if cell == "LSTM" else h[None]
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (xs, state))[0]

    agree(ours, theirs, normal(steps, batch, inputs), normal(batch, hidden, seed=1), *weights, order=2)
