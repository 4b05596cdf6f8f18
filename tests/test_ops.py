"""Every operation through one battery: dtype, shape kind, order 2, NumPy name."""

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.testing import check_gradients

RNG = np.random.default_rng(0)


def smooth(*shape):
    return RNG.standard_normal(shape)


def positive(*shape):
    return RNG.uniform(0.5, 2.0, shape)


def inside(*shape):
    return RNG.uniform(-0.8, 0.8, shape)


def distinct(*shape):
    return RNG.permutation(np.prod(shape, dtype=int)).reshape(shape) * 0.37 - 1.1


UNARY = {
    name: smooth
    for name in "negative positive absolute exp exp2 expm1 square sin cos tan sinh cosh tanh arctan arcsinh sigmoid relu leaky_relu elu silu softplus gelu erf erfc deg2rad rad2deg nan_to_num copy".split()
}
UNARY |= {name: positive for name in "log log1p log2 log10 sqrt cbrt reciprocal".split()}
UNARY |= {name: inside for name in "arcsin arccos arctanh".split()} | {"arccosh": lambda *s: positive(*s) + 1}
BINARY = {name: smooth for name in "add subtract multiply maximum minimum fmax fmin logaddexp arctan2 hypot".split()}
BINARY |= {name: positive for name in "divide power float_power mod fmod".split()}
SHAPES = [(), (3,), (2, 3), (0, 2), (1, 4), (2, 2, 2)]
OTHERS = {(): (), (3,): (2, 3), (2, 3): (2, 1), (0, 2): (1, 2), (1, 4): (3, 1), (2, 2, 2): (2,)}

CASES = {}
for name, make in UNARY.items():
    for shape in SHAPES:
        CASES[f"{name}{shape}"] = (getattr(tg, name), [make(*shape)])
for name, make in BINARY.items():
    for shape in SHAPES:
        CASES[f"{name}{shape}"] = (getattr(tg, name), [make(*shape), make(*OTHERS[shape])])
    CASES[f"{name}-scalar"] = (lambda x, f=getattr(tg, name): f(x, 1.5) + f(1.5, x), [make(3)])
for name in "sum mean prod max min ptp var std logsumexp norm median".split():
    f = getattr(tg, name)
    for axis in (None, 0, -1, (0, 2), [1, 2], (-1, 0)):
        if isinstance(axis, list):
            axis = tuple(axis)
        for keepdims in (False, True):
            if name == "norm" and axis is None and keepdims:
                continue
            CASES[f"{name}-{axis}-{keepdims}"] = (lambda x, f=f, a=axis, k=keepdims: f(x, axis=a, keepdims=k), [distinct(2, 3, 2)])
for order in (1, 2, 3, np.inf, -np.inf):
    CASES[f"norm-ord{order}"] = (lambda x, o=order: tg.norm(x, o, 1), [distinct(2, 3)])
for order in (1, -1, np.inf, -np.inf, "fro"):
    CASES[f"matrix-norm-{order}"] = (lambda x, o=order: tg.norm(x, o), [smooth(2, 3)])
for name in "cumsum cumprod".split():
    for axis in (None, 0, -1):
        CASES[f"{name}-{axis}"] = (lambda x, f=getattr(tg, name), a=axis: f(x, axis=a), [positive(2, 3)])
CASES["prod-zeros"] = (tg.prod, [np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 1.5]])])
CASES["prod-zero-axis"] = (lambda x: tg.prod(x, axis=1), [np.array([[2.0, 0.0, 3.0], [1.0, 2.0, 1.5]])])
CASES["prod-zero-middle"] = (lambda x: tg.prod(x, axis=(0, 2)), [np.where(distinct(2, 3, 2) == -1.1, 0.0, distinct(2, 3, 2))])
CASES["cumprod-zero"] = (lambda x: tg.cumprod(x, axis=1), [np.array([[2.0, 0.0, 3.0], [1.0, 2.0, 0.0]])])
for axis in (-1, 0, (0, 1)):
    CASES[f"softmax-{axis}"] = (lambda x, a=axis: tg.softmax(x, a), [smooth(3, 4)])
    CASES[f"log_softmax-{axis}"] = (lambda x, a=axis: tg.log_softmax(x, a), [smooth(3, 4)])
CASES["clip"] = (lambda x: tg.clip(x, -0.5, 0.5), [distinct(3, 4)])
CASES["clip-tensors"] = (tg.clip, [distinct(5), np.array(-0.6), np.full(5, 0.2)])
CASES["clip-none"] = (lambda x: tg.clip(x, None, 0.5), [distinct(3, 4)])
CASES["where"] = (lambda x, y: tg.where(np.array([True, False, True]), x, y), [smooth(3), smooth(2, 3)])
PRODUCTS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3, 2)),
    ((4, 2, 3), (3, 2)),
    ((2, 3), (4, 3, 2)),
    ((4, 1, 2, 3), (5, 3, 2)),
    ((3,), (4, 3, 2)),
    ((4, 2, 3), (3,)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 2)),
]
for a, b in PRODUCTS:
    CASES[f"matmul{a}{b}"] = (tg.matmul, [smooth(*a), smooth(*b)])
for a, b in [((), (3,)), ((3,), (3,)), ((2, 3), (3, 2)), ((2, 2, 3), (3,)), ((2, 2, 3), (4, 3, 2)), ((3,), (4, 3, 2))]:
    CASES[f"dot{a}{b}"] = (tg.dot, [smooth(*a), smooth(*b)])
CASES["outer"] = (tg.outer, [smooth(2, 2), smooth(3)])
CASES["inner"] = (tg.inner, [smooth(2, 3), smooth(4, 3)])
CASES["vdot"] = (tg.vdot, [smooth(2, 3), smooth(2, 3)])
CASES["kron"] = (tg.kron, [smooth(2, 3), smooth(3)])
CASES["cross"] = (tg.cross, [smooth(2, 3), smooth(2, 3)])
CASES["tensordot"] = (tg.tensordot, [smooth(2, 3, 4), smooth(3, 4, 2)])
CASES["tensordot-axes"] = (lambda x, y: tg.tensordot(x, y, ([0, 2], [2, 1])), [smooth(2, 3, 4), smooth(3, 4, 2)])
EINSUMS = [
    "ij,jk->ik",
    "ij,jk",
    "ij,ij->",
    "ij,kj->ik",
    "bij,bjk->bik",
    "ij->ji",
    "ii->i",
    "ii",
    "ij->j",
    "ij->",
    "i,j->ij",
    "ij,jk,kl->il",
    "...i,...i->...",
    "b...i,ij->b...j",
    "iij,j->i",
    "i,i,i->i",
    "ij,j->",
]
LENGTHS = dict(i=3, j=3, k=2, l=4, b=2)
for spec in EINSUMS:
    operands = [smooth(*([LENGTHS[c] for c in term.replace("...", "#").replace("#", "k")])) for term in spec.split("->")[0].split(",")]
    CASES[f"einsum-{spec}"] = (lambda *xs, s=spec: tg.einsum(s, *xs), operands)
CASES["einsum-broadcast"] = (lambda x, y: tg.einsum("...i,...i->...", x, y), [smooth(2, 1, 3), smooth(4, 3)])
CASES["einsum-lists"] = (lambda x, y: tg.einsum(x, [0, 1], y, [1, 2], [0, 2]), [smooth(2, 3), smooth(3, 2)])
INDICES = {
    "int": 1, "negative": -1, "slice": slice(0, 2), "step": slice(None, None, -2), "tuple": (1, slice(None), 0), "ellipsis": (..., 0), "newaxis": (None, 1, None), "mask": np.array([True, False, True]),
    "full-mask": np.arange(24).reshape(3, 2, 4) % 3 == 0, "array": np.array([0, 2, 0]), "array2": np.array([[0, 1], [1, 1]]), "list": [0, 0, 1], "arrays": (np.array([0, 0, 2]), np.array([1, 1, 0])),
    "mixed": (slice(None), np.array([0, 0, 1])), "split": (np.array([0, 0]), slice(None), np.array([1, 1])), "empty": slice(0, 0), "empty-list": [], "np-int": np.int64(1), "bool": True, "mask-axis": (slice(None), np.array([True, False])),
}  # fmt: skip
for name, index in INDICES.items():
    CASES[f"getitem-{name}"] = (lambda x, i=index: x[i], [smooth(3, 2, 4)])
CASES |= {
    "take": (lambda x: tg.take(x, [[0, 2], [0, 0]], axis=1), [smooth(2, 3)]),
    "take-flat": (lambda x: tg.take(x, [5, 0, 0]), [smooth(2, 3)]),
    "take-wrap": (lambda x: tg.take(x, [7, -4], mode="wrap"), [smooth(2, 3)]),
    "take_along_axis": (lambda x: tg.take_along_axis(x, np.array([[0, 0], [2, 1]]), axis=1), [smooth(2, 3)]),
    "sort": (lambda x: tg.sort(x, axis=0), [distinct(3, 2)]),
    "embedding": (lambda w: tg.embedding([[0, 2], [0, 0]], w), [smooth(4, 3)]),
    "scatter": (lambda v: tg.scatter(v, np.array([0, 0, 2]), (4,)), [smooth(3)]),
    "reshape": (lambda x: tg.reshape(x, (3, -1)), [smooth(2, 3)]),
    "reshape-F": (lambda x: tg.reshape(x, (3, 2), order="F"), [smooth(2, 3)]),
    "transpose": (lambda x: tg.transpose(x, (2, 0, 1)), [smooth(2, 3, 4)]),
    "T": (lambda x: x.T, [smooth(2, 3, 4)]),
    "swapaxes": (lambda x: tg.swapaxes(x, 0, -1), [smooth(2, 3, 4)]),
    "moveaxis": (lambda x: tg.moveaxis(x, (0, 1), (-1, 0)), [smooth(2, 3, 4)]),
    "expand_dims": (lambda x: tg.expand_dims(x, (0, -1)), [smooth(2, 3)]),
    "squeeze": (tg.squeeze, [smooth(1, 3, 1)]),
    "broadcast_to": (lambda x: tg.broadcast_to(x, (4, 2, 3)), [smooth(2, 1)]),
    "concatenate": (lambda x, y: tg.concatenate([x, y, x], axis=-1), [smooth(2, 3), smooth(2, 1)]),
    "concatenate-flat": (lambda x, y: tg.concatenate([x, y], axis=None), [smooth(2, 3), smooth(2)]),
    "stack": (lambda x, y: tg.stack([x, y, x], axis=1), [smooth(2, 3), smooth(2, 3)]),
    "vstack": (lambda x, y: tg.vstack([x, y]), [smooth(2, 3), smooth(3)]),
    "hstack": (lambda x, y: tg.hstack([x, y]), [smooth(2, 3), smooth(2, 1)]),
    "split": (lambda x: tg.split(x, 3, axis=1)[1] * tg.split(x, [1, 2], axis=1)[1], [smooth(2, 3)]),
    "flip": (lambda x: tg.flip(x, 0), [smooth(2, 3)]),
    "roll": (lambda x: tg.roll(x, (1, -1), (0, 1)), [smooth(2, 3)]),
    "rot90": (tg.rot90, [smooth(2, 3)]),
    "tile": (lambda x: tg.tile(x, (2, 1, 2)), [smooth(2, 3)]),
    "repeat": (lambda x: tg.repeat(x, 2, axis=0), [smooth(2, 3)]),
    "repeat-each": (lambda x: tg.repeat(x, [1, 0, 2], axis=1), [smooth(2, 3)]),
    "pad": (lambda x: tg.pad(x, ((1, 0), (0, 2))), [smooth(2, 3)]),
    **{f"pad-{mode}": (lambda x, m=mode: tg.pad(x, 2, mode=m), [smooth(3, 3)]) for mode in ("edge", "reflect", "symmetric", "wrap")},
    "diag": (tg.diag, [smooth(3)]),
    "diagonal": (lambda x: tg.diagonal(x, 1), [smooth(3, 4)]),
    "trace": (tg.trace, [smooth(3, 4)]),
    "tril": (tg.tril, [smooth(3, 3)]),
    "triu": (lambda x: tg.triu(x, 1), [smooth(3, 3)]),
    "astype": (lambda x: x.astype(x.dtype), [smooth(3)]),
    "average": (lambda x: tg.average(x, axis=1, weights=[1.0, 2.0, 3.0]), [smooth(2, 3)]),
    "diff": (lambda x: tg.diff(x, axis=0), [smooth(3, 2)]),
    "trapezoid": (tg.trapezoid, [smooth(2, 3)]),
    "gelu-tanh": (lambda x: tg.gelu(x, "tanh"), [smooth(3)]),
    "conv2d": (tg.conv2d, [smooth(2, 2, 5, 5), smooth(3, 2, 3, 3), smooth(3)]),
    "conv2d-options": (lambda x, w: tg.conv2d(x, w, None, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2), [smooth(1, 4, 6, 5), smooth(2, 2, 3, 2)]),
    "conv2d-image": (lambda x, w: tg.conv2d(x, w, padding=1), [smooth(1, 3, 3), smooth(2, 1, 3, 3)]),
    "avg_pool2d": (lambda x: tg.avg_pool2d(x, 2), [smooth(1, 2, 5, 4)]),
    "avg_pool2d-options": (lambda x: tg.avg_pool2d(x, 3, 2, 1, False), [smooth(1, 2, 5, 4)]),
    "max_pool2d": (lambda x: tg.max_pool2d(x, 3, 2, 1), [distinct(1, 2, 5, 4)]),
    "max_pool2d-dilation": (lambda x: tg.max_pool2d(x, 2, 1, 1, 2), [distinct(1, 2, 5, 4)]),
}  # fmt: skip

CASES = {name: (f, [np.asarray(x) for x in xs]) for name, (f, xs) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_gradients_to_second_order(name):
    f, xs = CASES[name]
    tensors = [tg.tensor(x, requires_grad=True) for x in xs]
    y = f(*tensors)
    assert y.requires_grad
    assert [g.shape for g in tg.grad(y, tensors, np.ones(y.shape))] == [x.shape for x in xs]
    report = check_gradients(f, *xs, order=2, name=name)
    assert report and report.tightness < 1e-5


@pytest.mark.parametrize("name", [name for name, (_, xs) in CASES.items() if len(xs) > 1])
def test_a_constant_operand_changes_no_other_gradient(name):
    f, xs = CASES[name]
    rng = np.random.default_rng(2)
    whole = [tg.tensor(x, requires_grad=True) for x in xs]
    y = f(*whole)
    v = rng.standard_normal(y.shape)
    for k, x in enumerate(xs):
        w = rng.standard_normal(x.shape)

        def both(tensors, k=k, w=w):
            out = f(*tensors)
            g = tg.grad(out * out, tensors[k], v, create_graph=True)
            second = tg.grad((g * w).sum(), tensors[k], allow_unused=True) if g.requires_grad else None
            return g.numpy(), np.zeros(w.shape) if second is None else second.numpy()

        alone = [tg.tensor(other, requires_grad=j == k) for j, other in enumerate(xs)]
        for expected, got in zip(both(whole), both(alone), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_float32(name):
    f, xs = CASES[name]
    tensors = [tg.tensor(np.asarray(x, np.float32), requires_grad=True) for x in xs]
    y = f(*tensors)
    assert y.dtype == np.float32
    first = tg.grad(y, tensors, np.ones(y.shape, np.float32), create_graph=True)
    assert {g.dtype for g in first} == {np.dtype(np.float32)}
    twins = [tg.tensor(np.asarray(x, np.float32).astype(np.float64), requires_grad=True) for x in xs]
    exact = tg.grad(f(*twins), twins, np.ones(y.shape))
    for g, e in zip(first, exact, strict=True):
        np.testing.assert_allclose(g.numpy(), e.numpy(), rtol=1e-3, atol=1e-3 * (1 + np.abs(e.numpy()).max(initial=0)))
    total = sum(g.sum() for g in first)
    if total.requires_grad:
        for g in tg.grad(total, tensors, allow_unused=True):
            assert g is None or g.dtype == np.float32


@pytest.mark.parametrize("name", CASES)
def test_non_contiguous_operands(name):
    f, xs = CASES[name]
    strided = [np.asfortranarray(np.stack([x, x], -1))[..., 0] for x in map(np.asarray, xs)]
    plain = [tg.tensor(x, requires_grad=True) for x in xs]
    other = [tg.Tensor.__new__(tg.Tensor) for _ in xs]
    for t, x in zip(other, strided, strict=True):
        t._data = x
        t.requires_grad_()
    y, z = f(*plain), f(*other)
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-12, atol=1e-12)
    ones = np.ones(y.shape)
    for a, b in zip(tg.grad(y, plain, ones), tg.grad(z, other, ones), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in [*UNARY, *BINARY] if hasattr(np, n)])
def test_numpy_name(name):
    make = UNARY.get(name) or BINARY[name]
    xs = [make(2, 3) for _ in range(1 if name in UNARY else 2)]
    tensors = [tg.tensor(x, requires_grad=True) for x in xs]
    y = getattr(np, name)(*tensors)
    assert y.requires_grad
    np.testing.assert_array_equal(y.numpy(), getattr(np, name)(*xs))
    np.testing.assert_array_equal(getattr(tg, name)(*xs), getattr(np, name)(*xs))
    assert type(getattr(tg, name)(*xs)) is np.ndarray
