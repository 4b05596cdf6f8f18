"""Laws that hold for every input, against models that use none of the engine's rules."""

import gc
import itertools
import queue
import threading
import warnings
import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_rnn as tg


def laws(examples):
    return settings(derandomize=True, deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large])


def whole(rng, shape, dtype=np.float64):
    """Small whole numbers: sums of them are exact in any order, so that gradients can be compared bit for bit."""
    return rng.integers(-8, 9, shape).astype(dtype)


def scattered(positions, g, shape):
    """Every element of g added to the element that it was read from: the adjoint of reading at positions."""
    total = np.zeros(int(np.prod(shape)), g.dtype)
    np.add.at(total, np.ravel(positions), np.ravel(g))
    return total.reshape(shape)


def places(shape):
    return np.arange(int(np.prod(shape))).reshape(shape)


seeds = st.integers(0, 2**32 - 1)
generators = seeds.map(np.random.default_rng)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
dtypes = st.sampled_from([np.float32, np.float64])


def part_of_index(rng, shape, k, lanes):
    """An index for axis k and how many axes it takes; index arrays broadcast with those of the shape ``lanes``."""
    n, many = shape[k], int(np.prod(lanes))
    kind = rng.choice(["slice", "slice", "array", "array", "int", "mask", "wide mask"])
    mask = np.zeros(shape[k : k + 1 + (kind == "wide mask")], bool)
    if kind == "int" and n:
        i = rng.integers(-n, n)
        return [int(i), i, np.array(i)][rng.integers(3)], 1
    if kind == "array" and (n or not many):
        # Any integer dtype may index, and negative ones count from the end.
        dtype = np.dtype(rng.choice(["int64", "int8", "int32", "uint8", "uint64"]))
        info = np.iinfo(dtype)
        array = rng.integers(max(-n, info.min), min(n, info.max), lanes).astype(dtype) if many else np.zeros(lanes, dtype)
        return [array, array.tolist() if many else array, tg.tensor(array), np.asfortranarray(array)][rng.integers(4)], 1
    if "mask" in kind and mask.size >= lanes[-1]:
        mask.flat[rng.permutation(mask.size)[: lanes[-1]]] = True
        return mask, mask.ndim
    start, stop = (None if rng.integers(3) == 0 else int(rng.integers(-n - 1, n + 2)) for _ in range(2))
    return slice(start, stop, [None, 1, 2, -1, -2][rng.integers(5)]), 1


def random_index(rng, shape):
    """Any index that NumPy takes for an array of the shape. Drawn from a seed: from draws of its own Hypothesis makes mostly empty indices."""
    if shape and rng.integers(12) == 0:
        return rng.integers(2, size=shape).astype(bool)
    lanes = [(2,), (3,), (2, 3), (1,), (0,)][rng.choice(5, p=[0.3, 0.3, 0.2, 0.1, 0.1])]
    parts, k, left = [], 0, int(rng.integers(4) == 0 and len(shape) > 1)
    gap = rng.integers(-1, len(shape) + 1)
    while k < len(shape) - left:
        if k == gap:
            parts.append(Ellipsis)
            k, left, gap = k + left, 0, None
            continue
        part, taken = part_of_index(rng, shape, k, lanes)
        parts += [None, part] if rng.integers(6) == 0 else [part]
        k += taken
    if rng.integers(10) == 0:
        parts.append([None, True, False, np.True_][rng.integers(4)])
    return parts[0] if len(parts) == 1 and rng.integers(2) else tuple(parts)


def random_shape(rng):
    """Mostly small; some axes are empty, and a few longer than the smallest integers count."""
    shape = rng.choice([0, 1, 2, 3, 4], p=[0.1, 0.1, 0.25, 0.25, 0.3], size=rng.choice([0, 1, 2, 3], p=[0.05, 0.25, 0.35, 0.35]))
    if shape.size and rng.integers(6) == 0:
        shape[0] = 300
    return tuple(map(int, shape))


def bare(index):
    """The same index for NumPy, which takes no tensors."""
    return tuple(map(bare, index)) if isinstance(index, tuple) else index.numpy() if isinstance(index, tg.Tensor) else index


def read(a, index):
    """What NumPy reads; an index that it refuses is no example."""
    try:
        return a[bare(index)]
    except IndexError:
        assume(False)


@laws(1000)
@given(generators, dtypes)
def test_every_index_of_numpy(rng, dtype):
    shape = random_shape(rng)
    index = random_index(rng, shape)
    note(f"{shape=} {index=}")
    a = whole(rng, shape, dtype)
    expected = read(a, index)
    x = tg.tensor(a, requires_grad=True)
    y = x[index]
    assert y.shape == expected.shape and y.dtype == dtype
    np.testing.assert_array_equal(y.numpy(), expected)
    g = whole(rng, y.shape, dtype)
    model = scattered(read(places(shape), index), g, shape)
    for part in index if isinstance(index, tuple) else (index,):
        # An index that the caller uses again for something else has been read already.
        if isinstance(part, np.ndarray | tg.Tensor):
            part[...] = 0
    for create_graph in (False, True):
        got = tg.grad(y, x, g, create_graph=create_graph, retain_graph=True)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.numpy(), model)


@laws(100)
@given(generators, st.permutations(range(4)))
def test_several_indices_and_a_dense_use_add_up(rng, order):
    shape = random_shape(rng)
    chosen = [random_index(rng, shape) for _ in range(3)]
    note(f"{shape=} {chosen=}")
    a = whole(rng, shape)
    reads = [read(places(shape), index) for index in chosen]
    x = tg.tensor(a, requires_grad=True)
    gs = [whole(rng, r.shape) for r in reads] + [whole(rng, shape)]
    model = sum((scattered(r, g, shape) for r, g in zip(reads, gs, strict=False)), gs[-1])
    total = 0
    for k in order:
        total = total + ((x if k == 3 else x[chosen[k]]) * gs[k]).sum()
    total.backward()
    np.testing.assert_array_equal(x.grad.numpy(), model)


@laws(100)
@given(generators)
def test_item_assignment_writes_what_numpy_writes(rng):
    shape = random_shape(rng)
    index = random_index(rng, shape)
    note(f"{shape=} {index=}")
    a = whole(rng, shape)
    value = whole(rng, read(a, index).shape)
    t = tg.tensor(a)
    a[bare(index)] = value
    t[index] = tg.tensor(value)
    np.testing.assert_array_equal(t.numpy(), a)


@st.composite
def taken(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    axis = draw(st.sampled_from([None, *range(-len(shape), len(shape))]))
    n = int(np.prod(shape)) if axis is None else shape[axis]
    mode = draw(st.sampled_from(["raise", "wrap", "clip"]))
    bound = n if mode == "raise" else 3 * n
    where = draw(hnp.arrays(np.intp, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3), elements=st.integers(-bound, bound - 1)))
    return shape, axis, mode, where


@laws(100)
@given(taken(), generators)
def test_take_is_reading_at_positions(case, rng):
    shape, axis, mode, where = case
    x = tg.tensor(whole(rng, shape), requires_grad=True)
    y = tg.take(x, where, axis=axis, mode=mode)
    np.testing.assert_array_equal(y.numpy(), np.take(x.numpy(), where, axis=axis, mode=mode))
    g = whole(rng, y.shape)
    np.testing.assert_array_equal(tg.grad(y, x, g).numpy(), scattered(np.take(places(shape), where, axis=axis, mode=mode), g, shape))


ROWS = {
    "none in a row": ((3, 0), [0, 1]), "one row by two names": ((3, 2), [2, -1, 2, 0, -3]), "small integers": ((200, 2), np.array([1, -1, 1], np.int8)),
    "small unsigned integers": ((300, 2), np.array([1, 1], np.uint8)), "unsigned integers": ((3, 2), np.array([[0, 2], [2, 2]], np.uint64)),
}  # fmt: skip


@pytest.mark.parametrize("shape, index", ROWS.values(), ids=ROWS)
def test_rows_of_empty_and_of_long_arrays(shape, index):
    x = tg.tensor(np.zeros(shape), requires_grad=True)
    g = np.ones(read(x.numpy(), index).shape)
    np.testing.assert_array_equal(tg.grad(x[index], x, g).numpy(), scattered(read(places(shape), index), g, shape))


@pytest.mark.parametrize("mode", ["wrap", "clip"])
def test_small_integers_take_from_long_axes(mode):
    x = tg.tensor(np.zeros(300), requires_grad=True)
    y = tg.take(x, np.array([1, -1, 1], np.int8), mode=mode)
    expected = np.zeros(300)
    np.add.at(expected, [1, 299 if mode == "wrap" else 0, 1], 1)
    np.testing.assert_array_equal(tg.grad(y.sum(), x).numpy(), expected)


@pytest.mark.parametrize("name", ["tril", "triu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, int, bool])
@laws(20)
@given(generators)
def test_triangles_keep_what_they_keep_and_nothing_else(name, dtype, rng):
    shape = tuple(map(int, rng.integers(0, 4, rng.integers(1, 4))))
    k = int(rng.integers(-3, 4))
    a = whole(rng, shape).astype(dtype)
    if dtype in (np.float32, np.float64):
        a[rng.random(shape) < 0.3] = -np.inf
    x = tg.tensor(a, requires_grad=a.dtype.kind == "f")
    y, expected = getattr(tg, name)(x, k), getattr(np, name)(a, k)
    np.testing.assert_array_equal(y.numpy(), expected)
    assert y.dtype == dtype
    if x.requires_grad:
        g = whole(rng, y.shape, dtype)
        model = scattered(np.broadcast_to(places(shape), y.shape), getattr(np, name)(g, k), shape)
        np.testing.assert_array_equal(tg.grad(y, x, g).numpy(), model)


def axes_from(rng, ndim):
    """None, one axis or several, counted from either end."""
    if ndim == 0 or rng.integers(4) == 0:
        return None
    chosen = tuple(int(k) - ndim * int(rng.integers(2)) for k in rng.permutation(ndim)[: rng.integers(1, ndim + 1)])
    return chosen[0] if len(chosen) == 1 and rng.integers(2) else chosen


def axis_from(rng, ndim):
    return int(rng.integers(-ndim, ndim))


def factors(rng, n):
    """A shape of n elements, one length of it perhaps left open."""
    lengths = [n]
    for p in (2, 3, 2):
        if n and lengths[0] % p == 0 and rng.integers(2):
            lengths = [lengths[0] // p, p, *lengths[1:]]
    if n and rng.integers(2):
        lengths[rng.integers(len(lengths))] = -1
    return tuple(int(m) for m in rng.permutation(lengths))


MOVES = {
    "reshape": lambda rng, a: (factors(rng, a.size),),
    "ravel": lambda rng, a: (str(rng.choice(["C", "F"])),),
    "transpose": lambda rng, a: ([None, tuple(map(int, rng.permutation(a.ndim)))][rng.integers(2)],),
    "swapaxes": lambda rng, a: (axis_from(rng, a.ndim), axis_from(rng, a.ndim)),
    "moveaxis": lambda rng, a: (axis_from(rng, a.ndim), axis_from(rng, a.ndim)),
    "rollaxis": lambda rng, a: (axis_from(rng, a.ndim), int(rng.integers(a.ndim + 1))),
    "expand_dims": lambda rng, a: (axis_from(rng, a.ndim + 1),),
    "squeeze": lambda rng, a: ([None, tuple(k for k, n in enumerate(a.shape) if n == 1)][rng.integers(2)],),
    "broadcast_to": lambda rng, a: ((*map(int, rng.integers(0, 3, rng.integers(3))), *(int(rng.integers(0, 4)) if n == 1 else n for n in a.shape)),),
    "flip": lambda rng, a: (axes_from(rng, a.ndim),),
    "roll": lambda rng, a: (int(rng.integers(-5, 6)), axes_from(rng, a.ndim)),
    "tile": lambda rng, a: (tuple(map(int, rng.integers(0, 3, rng.integers(4)))),),
    "repeat": lambda rng, a: (int(rng.integers(3)), None) if rng.integers(2) else (rng.integers(0, 3, a.shape[-1]), -1),
    "rot90": lambda rng, a: (int(rng.integers(-5, 6)), tuple(map(int, rng.permutation(a.ndim)[:2]))),
    "pad": lambda rng, a: ([(int(rng.integers(3)), int(rng.integers(3))) for _ in a.shape], str(rng.choice(["edge", "reflect", "symmetric", "wrap"]))),
    "diagonal": lambda rng, a: (int(rng.integers(-3, 4)), *map(int, rng.permutation(a.ndim)[:2])),
    "atleast_3d": lambda rng, a: (),
    "atleast_2d": lambda rng, a: (),
    "copy": lambda rng, a: (),
}  # fmt: skip
LEAST = {"swapaxes": 1, "moveaxis": 1, "rollaxis": 1, "repeat": 1, "rot90": 2, "diagonal": 2, "pad": 1}


@pytest.mark.parametrize("name", MOVES)
@laws(40)
@given(generators)
def test_moving_elements_moves_gradients_back(name, rng):
    shape = random_shape(rng)
    assume(len(shape) >= LEAST.get(name, 0) and not (name == "pad" and 0 in shape))
    x = tg.tensor(whole(rng, shape), requires_grad=True)
    arguments = MOVES[name](rng, x)
    note(f"{shape=} {arguments=}")
    f = getattr(np, name)
    y = getattr(tg, name)(x, *arguments)
    np.testing.assert_array_equal(y.numpy(), f(x.numpy(), *arguments))
    np.testing.assert_array_equal(f(x, *arguments).numpy(), y.numpy())
    assert y.shape == f(x.numpy(), *arguments).shape and y.requires_grad
    g = whole(rng, y.shape)
    np.testing.assert_array_equal(tg.grad(y, x, g, create_graph=True).numpy(), scattered(f(places(shape), *arguments), g, shape))
    np.testing.assert_array_equal(tg.grad(y, x, g).numpy(), scattered(f(places(shape), *arguments), g, shape))


@pytest.mark.parametrize("name", ["concatenate", "stack", "hstack", "vstack", "dstack", "column_stack"])
@laws(40)
@given(generators)
def test_joining_gives_every_part_its_gradient(name, rng):
    shape = list(map(int, rng.integers(0 if name in ("concatenate", "stack") else 1, 4, rng.integers(1, 4))))
    axis = axis_from(rng, len(shape) + (name == "stack"))
    shapes = [tuple(shape) for _ in range(rng.integers(1, 4))]
    if name == "concatenate":
        shapes = [tuple(int(rng.integers(4)) if k == axis % len(shape) else n for k, n in enumerate(shape)) for _ in shapes]
    arguments = (axis,) if name in ("concatenate", "stack") else ()
    xs = [tg.tensor(whole(rng, s), requires_grad=True) for s in shapes]
    parts = [*xs, xs[0], tg.tensor(whole(rng, shapes[-1])), whole(rng, shapes[-1])]
    y = getattr(tg, name)(parts, *arguments)
    f = getattr(np, name)
    np.testing.assert_array_equal(y.numpy(), f([p if isinstance(p, np.ndarray) else p.numpy() for p in parts], *arguments))
    g = whole(rng, y.shape)
    for x, got in zip(xs, tg.grad(y, xs, g), strict=True):
        positions = f([places(p.shape) if p is x else np.full(p.shape, x.size) for p in parts], *arguments)
        model = scattered(np.where(positions == x.size, 0, positions), np.where(positions == x.size, 0, g), x.shape) if x.size else np.zeros(x.shape)
        np.testing.assert_array_equal(got.numpy(), model)


@laws(60)
@given(generators)
def test_splitting_and_joining_again_is_the_identity(rng):
    shape = random_shape(rng)
    assume(shape)
    axis = axis_from(rng, len(shape))
    cuts = [int(rng.integers(1, 4)), sorted(map(int, rng.integers(-4, 6, rng.integers(3))))][rng.integers(2)]
    x = tg.tensor(whole(rng, shape), requires_grad=True)
    parts = tg.array_split(x, cuts, axis)
    expected = np.array_split(x.numpy(), cuts, axis)
    assert [p.shape for p in parts] == [e.shape for e in expected]
    gs = [whole(rng, p.shape) for p in parts]
    model = sum(scattered(p, g, shape) for p, g in zip(np.array_split(places(shape), cuts, axis), gs, strict=True))
    np.testing.assert_array_equal(tg.grad(parts, x, gs).numpy(), model)
    if isinstance(cuts, int):
        np.testing.assert_array_equal(tg.concatenate(parts, axis).numpy(), x.numpy())


def larger(x, y):
    return np.where(x == y, 0.5, x > y)


# The partial derivatives for x and for y, as formulas on float64.
PARTIALS = {
    "add": (lambda x, y: 1 + 0 * x * y, lambda x, y: 1 + 0 * x * y),
    "subtract": (lambda x, y: 1 + 0 * x * y, lambda x, y: -1 + 0 * x * y),
    "multiply": (lambda x, y: y + 0 * x, lambda x, y: x + 0 * y),
    "divide": (lambda x, y: 1 / y + 0 * x, lambda x, y: -x / y**2),
    "power": (lambda x, y: y * x ** (y - 1), lambda x, y: x**y * np.log(x)),
    "float_power": (lambda x, y: y * x ** (y - 1), lambda x, y: x**y * np.log(x)),
    "maximum": (larger, lambda x, y: larger(y, x)),
    "minimum": (lambda x, y: larger(y, x), larger),
    "fmax": (larger, lambda x, y: larger(y, x)),
    "fmin": (lambda x, y: larger(y, x), larger),
    "mod": (lambda x, y: 1 + 0 * x * y, lambda x, y: -np.floor(x / y)),
    "fmod": (lambda x, y: 1 + 0 * x * y, lambda x, y: -np.trunc(x / y)),
    "arctan2": (lambda x, y: y / (x**2 + y**2), lambda x, y: -x / (x**2 + y**2)),
    "hypot": (lambda x, y: x / np.sqrt(x**2 + y**2), lambda x, y: y / np.sqrt(x**2 + y**2)),
    "logaddexp": (lambda x, y: 1 / (1 + np.exp(y - x)), lambda x, y: 1 / (1 + np.exp(x - y))),
}
NEED_POSITIVE = {"power", "float_power"}
two_shapes = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3, min_side=0).map(lambda drawn: drawn.input_shapes)


def halves(rng, shape, dtype, positive):
    """Halves from 0.5 to 4, so that ties occur and float32 holds them; of either sign unless they must be positive."""
    size = rng.integers(1, 9, shape) / 2
    return np.asarray(size if positive else size * rng.choice([-1, 1], shape), dtype)


@pytest.mark.parametrize("name", PARTIALS)
@laws(50)
@given(two_shapes, generators, dtypes, dtypes, st.sampled_from(["tensor", "constant", "array", "integers", "float", "int", "np.float64", "np.float32"]), st.booleans())
def test_broadcasting_sums_the_gradient_back(name, pair, rng, dtype, other, kind, swapped):
    if kind in ("float", "int", "np.float64", "np.float32"):
        pair = (pair[0], ())
    positive = name in NEED_POSITIVE
    a = halves(rng, pair[0], dtype, positive)
    b = np.ceil(halves(rng, pair[1], np.float64, True)).astype(int) if kind in ("int", "integers") else halves(rng, pair[1], other, positive)
    x = tg.tensor(a, requires_grad=True)
    y = {"tensor": lambda: tg.tensor(b, requires_grad=True), "constant": lambda: tg.tensor(b), "array": lambda: b, "integers": lambda: b,
         "float": lambda: float(b), "int": lambda: int(b), "np.float64": lambda: np.float64(b), "np.float32": lambda: np.float32(b)}[kind]()  # fmt: skip
    operands, values = ((y, x), (b, a)) if swapped else ((x, y), (a, b))
    out = getattr(tg, name)(*operands)
    # Python's numbers, NumPy's scalars and integers take the tensor's dtype: only another floating array can widen it.
    widest = np.result_type(dtype, other) if kind in ("tensor", "constant", "array") else np.dtype(dtype)
    assert out.dtype == widest and out.shape == np.broadcast_shapes(*pair)
    rtol = 1e-12 if widest == np.float64 else 2e-6
    exact = [np.asarray(v, np.float64) for v in values]
    np.testing.assert_allclose(out.numpy(), getattr(np, name)(*exact), rtol=rtol)
    g = whole(rng, out.shape, widest)
    wanted = [t for t in (x, y) if isinstance(t, tg.Tensor) and t.requires_grad]
    for create_graph in (True, False):
        for t, got in zip(wanted, tg.grad(out, wanted, g, create_graph=create_graph), strict=True):
            full = g * PARTIALS[name][next(k for k, v in enumerate(operands) if v is t)](*exact)
            model = scattered(np.broadcast_to(places(t.shape), full.shape), full, t.shape)
            assert got.shape == t.shape and got.dtype == t.dtype
            np.testing.assert_allclose(got.numpy(), model, rtol=rtol, atol=(1e-12 if t.dtype == widest == np.float64 else 3e-6) * (1 + np.abs(full).sum()))


@pytest.mark.parametrize("name", "equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor floor_divide".split())
@laws(15)
@given(two_shapes, generators, dtypes, dtypes)
def test_operations_without_a_gradient_give_numpys_values(name, pair, rng, dtype, other):
    x, y = tg.tensor(halves(rng, pair[0], dtype, False), requires_grad=True), halves(rng, pair[1], other, False)
    for operands, values in (((x, y), (x.numpy(), y)), ((y, x), (y, x.numpy()))):
        out = getattr(np, name)(*operands)
        assert isinstance(out, tg.Tensor) and not out.requires_grad
        np.testing.assert_array_equal(out.numpy(), getattr(np, name)(*values))
        assert out.dtype == getattr(np, name)(*values).dtype


three_shapes = hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3, min_side=0).map(lambda drawn: drawn.input_shapes)


@laws(60)
@given(three_shapes, generators, st.sampled_from(["where", "clip"]))
def test_operations_on_three_operands(triple, rng, name):
    values = [halves(rng, s, np.float64, False) for s in triple]
    if name == "where":
        values[0] = values[0] > 0
        weights = [np.zeros(()), values[0], ~values[0]]
    else:
        a, low, high = values
        high = values[2] = np.abs(high) + 4.5
        weights = [(a >= low) & (a <= high), a < low, a > high]
    tensors = [tg.tensor(v, requires_grad=v.dtype != bool) for v in values]
    out = getattr(tg, name)(*tensors)
    np.testing.assert_array_equal(out.numpy(), getattr(np, name)(*values))
    g = whole(rng, out.shape)
    wanted = [k for k in range(3) if tensors[k].requires_grad]
    for k, got in zip(wanted, tg.grad(out, [tensors[k] for k in wanted], g), strict=True):
        full = g * weights[k]
        np.testing.assert_array_equal(got.numpy(), scattered(np.broadcast_to(places(triple[k]), full.shape), full, triple[k]))


def jacobian_by_differences(f, x, h=1e-4):
    """The Jacobian of an ndarray function by extrapolated central differences, and a bound on its error measured from two steps."""
    columns = []
    for k in range(x.size):
        step = np.zeros(x.size)
        step[k] = 1
        step = step.reshape(x.shape)
        columns.append([(np.asarray(f(x + s * step)) - np.asarray(f(x - s * step))) / (2 * s) for s in (h, h / 2)])
    if not columns:
        return np.zeros((*np.shape(f(x)), *x.shape)), 0.0
    coarse, fine = (np.stack([c[k] for c in columns], -1).reshape((*np.shape(columns[0][0]), *x.shape)) for k in (0, 1))
    return (4 * fine - coarse) / 3, np.abs(fine - coarse)


def logsumexp(x, axis=None, keepdims=False):
    np.max(x, axis=axis)  # raises where there is nothing to reduce
    return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))


def root_of_squares(x, axis=None, keepdims=False):
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))


REDUCTIONS = {name: getattr(np, name) for name in "sum mean prod max min ptp var std median".split()} | {"logsumexp": logsumexp, "norm": root_of_squares}


@pytest.mark.parametrize("name", REDUCTIONS)
@laws(40)
@given(generators, st.booleans(), st.sampled_from([0, 0, 1]))
def test_reductions_over_any_axes(name, rng, keepdims, ddof):
    shape = tuple(map(int, rng.choice([0, 1, 2, 3], p=[0.1, 0.2, 0.4, 0.3], size=rng.integers(4))))
    # NumPy lets many reductions of a 0-d array name axis 0 or -1, and an empty tuple of axes reduces nothing.
    axis = [axes_from(rng, len(shape)), axes_from(rng, len(shape)), ()][rng.integers(3)] if shape else [None, 0, -1, ()][rng.integers(4)]
    assume(not (name == "norm" and (axis == () or (np.ndim(axis) and len(axis) > 2) or (axis is not None and not shape))) and not (name == "median" and axis == ()))
    options = {"axis": axis, "keepdims": keepdims} | ({"ddof": ddof} if name in ("var", "std") else {})
    note(f"{shape=} {options=}")
    # Apart from each other, so that no extreme is near a tie, and away from 0.
    a = (rng.permutation(int(np.prod(shape))).reshape(shape) + 1) * 0.25 * rng.choice([-1, 1], shape)
    a = np.asarray(a + 0.01 * rng.standard_normal(shape))
    if name == "prod":
        a[rng.random(shape) < 0.2] = 0
    ours, theirs = getattr(tg, name), REDUCTIONS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            expected = np.asarray(theirs(a, **options))
        except (ValueError, RuntimeWarning):
            # What NumPy refuses, and the NaN that it warns of, is an error that says so.
            with pytest.raises(tg.errors.ShapeError, match=rf"^{name}\b"):
                ours(tg.tensor(a), **options)
            return
    x = tg.tensor(a, requires_grad=True)
    y = ours(x, **options)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-13, atol=1e-13)
    if name not in ("logsumexp", "norm"):
        np.testing.assert_array_equal(getattr(np, name)(x, **options).numpy(), y.numpy())
    assume(name != "std" or (np.abs(expected) > 0).all())
    jacobian, error = jacobian_by_differences(lambda v: theirs(v, **options), a)
    np.testing.assert_array_less(np.abs(tg.jacobian(lambda v: ours(v, **options), tg.tensor(a)).numpy() - jacobian), 1e-7 * (1 + np.abs(jacobian)) + error)


def softmax(x, axis):
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


CUMULATIVE = {"cumsum": np.cumsum, "cumprod": np.cumprod, "sort": np.sort, "softmax": softmax, "log_softmax": lambda x, axis: np.log(softmax(x, axis))}


@pytest.mark.parametrize("name", CUMULATIVE)
@laws(40)
@given(generators)
def test_running_and_normalising_along_any_axis(name, rng):
    shape = tuple(map(int, rng.choice([0, 1, 2, 3], p=[0.1, 0.2, 0.4, 0.3], size=rng.integers(0 if name.startswith("cum") else 1, 4))))
    axis = axis_from(rng, max(len(shape), 1))
    if name in ("cumsum", "cumprod", "sort") and rng.integers(4) == 0:
        axis = None
    note(f"{shape=} {axis=}")
    a = np.asarray(rng.permutation(int(np.prod(shape))).reshape(shape) * 0.25 - 1 + 0.01 * rng.standard_normal(shape))
    if name == "cumprod":
        a[rng.random(shape) < 0.2] = 0
    ours, theirs = getattr(tg, name), CUMULATIVE[name]
    np.testing.assert_allclose(ours(tg.tensor(a), axis=axis).numpy(), theirs(a, axis=axis), rtol=1e-12, atol=1e-13)
    jacobian, error = jacobian_by_differences(lambda v: theirs(v, axis=axis), a)
    np.testing.assert_array_less(np.abs(tg.jacobian(lambda v: ours(v, axis=axis), tg.tensor(a)).numpy() - jacobian), 1e-7 * (1 + np.abs(jacobian)) + error)


class Dual:
    """A value and its derivatives for every number that a program starts from, carried forward: no tape, no rules of ours."""

    def __init__(self, value, rows):
        self.value, self.rows = value, rows


def linear(f):
    """A linear function acts on derivatives as on values."""
    return lambda x: Dual(f(x.value), [f(r) for r in x.rows])


def bilinear(f):
    return lambda x, y: Dual(f(x.value, y.value), [f(r, y.value) + f(x.value, s) for r, s in zip(x.rows, y.rows, strict=True)])


def pointwise(f, derivative):
    return lambda x: Dual(f(x.value), [derivative(x.value) * r for r in x.rows])


def constant(x):
    return Dual(x.value, [0 * r for r in x.rows])


def joined(*parts):
    return Dual(np.concatenate([p.value for p in parts], -1), [np.concatenate(rows, -1) for rows in zip(*[p.rows for p in parts], strict=True)])


def pick(x, y):
    larger = x.value > y.value
    return Dual(np.where(larger, x.value, y.value * 0.5), [np.where(larger, r, s * 0.5) for r, s in zip(x.rows, y.rows, strict=True)])


def normalised(x):
    s = softmax(x.value, -1)
    return Dual(s, [s * (r - (s * r).sum(-1, keepdims=True)) for r in x.rows])


def pick_larger(x, y):
    share = larger(x.value, y.value)
    return Dual(np.maximum(x.value, y.value), [share * r + (1 - share) * s for r, s in zip(x.rows, y.rows, strict=True)])


def largest(x):
    top = x.value.max(-1, keepdims=True)
    share = (x.value == top) / (x.value == top).sum(-1, keepdims=True)
    return Dual(top, [(share * r).sum(-1, keepdims=True) for r in x.rows])


def without_recording(x):
    with tg.no_grad():
        y = tg.sin(x)
        with tg.enable_grad():
            assert tg.sin(x).requires_grad == x.requires_grad
    assert not y.requires_grad
    return y


def twice_in_place(x):
    y = tg.zeros(x.shape, dtype=x.dtype)
    y += x
    y *= 0.5
    return y


SWAPPED = lambda x: x.swapaxes(0, -1)
# For each operation: how many operands, what the engine does, what the forward mode does.
PROGRAM_OPS = {
    "add": (2, lambda x, y: x + y, lambda x, y: Dual(x.value + y.value, [r + s for r, s in zip(x.rows, y.rows, strict=True)])),
    "subtract": (2, lambda x, y: x - y, lambda x, y: Dual(x.value - y.value, [r - s for r, s in zip(x.rows, y.rows, strict=True)])),
    "multiply": (2, lambda x, y: x * y, bilinear(np.multiply)),
    "divide": (2, lambda x, y: x / (2 + y * y), lambda x, y: bilinear(np.multiply)(x, pointwise(lambda v: 1 / (2 + v * v), lambda v: -2 * v / (2 + v * v) ** 2)(y))),
    "matmul": (2, lambda x, y: x @ SWAPPED(y), lambda x, y: bilinear(np.matmul)(x, linear(SWAPPED)(y))),
    "einsum": (2, lambda x, y: tg.einsum("...i,...i->...", x, y), bilinear(lambda a, b: np.einsum("...i,...i->...", a, b))),
    "maximum": (2, tg.maximum, pick_larger),
    "where": (2, lambda x, y: tg.where(x > y, x, y * 0.5), pick),
    "concatenate": (2, lambda x, y: tg.concatenate([x, y, x], -1), lambda x, y: joined(x, y, x)),
    "tanh": (1, tg.tanh, pointwise(np.tanh, lambda v: 1 - np.tanh(v) ** 2)),
    "sin": (1, tg.sin, pointwise(np.sin, np.cos)),
    "exp": (1, lambda x: tg.exp(-x * x), pointwise(lambda v: np.exp(-v * v), lambda v: -2 * v * np.exp(-v * v))),
    "power": (1, lambda x: x**3, pointwise(lambda v: v**3, lambda v: 3 * v**2)),
    "relu": (1, tg.relu, pointwise(lambda v: v * (v > 0), lambda v: v > 0)),
    "abs": (1, abs, pointwise(np.abs, np.sign)),
    "softmax": (1, tg.softmax, normalised),
    "max": (1, lambda x: x.max(-1, keepdims=True), largest),
    "sum": (1, lambda x: x.sum(0, keepdims=True), linear(lambda v: v.sum(0, keepdims=True))),
    "mean": (1, lambda x: x.mean(), linear(lambda v: np.asarray(v.mean()))),
    "cumsum": (1, lambda x: tg.cumsum(x, -1), linear(lambda v: np.cumsum(v, -1))),
    "transposed view": (1, lambda x: x.T, linear(np.transpose)),
    "reversed view": (1, lambda x: x[..., ::-1], linear(lambda v: v[..., ::-1])),
    "row": (1, lambda x: x[-1], linear(lambda v: v[-1])),
    "repeated rows": (1, lambda x: x[[0, -1, 0]], linear(lambda v: v[[0, -1, 0]])),
    "ravelled": (1, lambda x: x.reshape(-1), linear(lambda v: v.reshape(-1))),
    "broadcast": (1, lambda x: tg.broadcast_to(x, (2, *x.shape)), linear(lambda v: np.broadcast_to(v, (2, *v.shape)))),
    "detach": (1, lambda x: x.detach(), constant),
    "no_grad": (1, without_recording, lambda x: constant(pointwise(np.sin, np.cos)(x))),
    "in place": (1, twice_in_place, linear(lambda v: v * 0.5)),
    "checkpoint": (1, lambda x: tg.checkpoint(lambda v: tg.sin(v) * v, x), pointwise(lambda v: np.sin(v) * v, lambda v: np.cos(v) * v + np.sin(v))),
}  # fmt: skip

ALONG_AN_AXIS = {"softmax", "max", "sum", "cumsum"}

ALONG_AN_AXIS = {"softmax", "max", "sum", "cumsum"}


class Program:
    """Inputs, and steps that each take earlier values: shared, as every value may be used again."""

    def __init__(self, rng, length):
        self.inputs = [rng.standard_normal(s) for s in ((2, 3), (3,), (3, 3), ())]
        n = sum(x.size for x in self.inputs)
        rows = np.split(np.eye(n), np.cumsum([x.size for x in self.inputs])[:-1], axis=1)
        values = [Dual(x, list(r.reshape(n, *x.shape))) for x, r in zip(self.inputs, rows, strict=True)]
        self.steps, names = [], list(PROGRAM_OPS)
        while len(self.steps) < length:
            name = names[rng.integers(len(names))]
            count, _, forward = PROGRAM_OPS[name]
            # The newest values twice as often, so that programs grow deep as well as wide.
            operands = [int(max(rng.integers(len(values), size=2))) for _ in range(count)]
            if name in ALONG_AN_AXIS and not all(np.ndim(values[k].value) for k in operands):
                continue
            try:
                out = forward(*[values[k] for k in operands])
            except (ValueError, IndexError):
                continue
            if np.ndim(out.value) <= 4 and np.size(out.value) <= 60 and np.abs(out.value).max() < 50:
                values.append(out)
                self.steps.append((name, operands))
        self.outputs = [len(values) - 1, *map(int, rng.integers(len(values), size=2))]
        self.cotangents = [rng.standard_normal(np.shape(values[k].value)) for k in self.outputs]
        self.values = [values[k].value for k in self.outputs]
        self.derivatives = [np.stack([np.asarray(r) for r in values[k].rows]) for k in self.outputs]
        gradient = sum((d.reshape(n, -1) @ g.reshape(-1) for d, g in zip(self.derivatives, self.cotangents, strict=True)), np.zeros(n))
        self.gradients = [g.reshape(x.shape) for g, x in zip(np.split(gradient, np.cumsum([x.size for x in self.inputs])[:-1]), self.inputs, strict=True)]
        self.size = 1 + sum(np.abs(d).sum(initial=0) for d in self.derivatives)

    def __call__(self, *inputs):
        values = list(inputs)
        for name, operands in self.steps:
            values.append(PROGRAM_OPS[name][1](*[values[k] for k in operands]))
        return [values[k] for k in self.outputs]

    def leaves(self):
        return [tg.tensor(x, requires_grad=True) for x in self.inputs]

    def __repr__(self):
        return f"Program({self.steps}, {self.outputs})"


programs = st.builds(Program, generators, st.integers(1, 16))


def backward(program, leaves, gradients=None, **options):
    outputs = program(*leaves)
    pairs = [(y, g) for y, g in zip(outputs, gradients or program.cotangents, strict=True) if y.requires_grad]
    return tg.grad([y for y, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True, **options)


@laws(300)
@given(programs)
def test_programs_agree_with_forward_mode(program):
    leaves = program.leaves()
    outputs = program(*leaves)
    for y, value in zip(outputs, program.values, strict=True):
        np.testing.assert_allclose(y.numpy(), value, rtol=1e-11, atol=1e-12)
    for options in ({}, {"create_graph": True}):
        for got, model in zip(backward(program, leaves, **options), program.gradients, strict=True):
            np.testing.assert_allclose(np.zeros(model.shape) if got is None else got.numpy(), model, rtol=1e-9, atol=1e-11 * program.size)
    total = sum((y * g).sum() for y, g in zip(outputs, program.cotangents, strict=True))
    if total.requires_grad:
        total.backward()
        for x, model in zip(leaves, program.gradients, strict=True):
            np.testing.assert_allclose(np.zeros(model.shape) if x.grad is None else x.grad.numpy(), model, rtol=1e-9, atol=1e-11 * program.size)


@laws(60)
@given(programs, generators)
def test_jvp_of_programs_agrees_with_forward_mode(program, rng):
    us = [rng.standard_normal(x.shape) for x in program.inputs]
    flat = np.concatenate([u.ravel() for u in us])
    for k, derivative in enumerate(program.derivatives):
        y, dy = tg.jvp(lambda *xs, k=k: program(*xs)[k], program.inputs, us)
        np.testing.assert_allclose(y.numpy(), program.values[k], rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(dy.numpy(), np.tensordot(flat, derivative, 1), rtol=1e-9, atol=1e-11 * program.size)


@laws(60)
@given(programs, generators, st.sampled_from([-2.0, 0.5, 3.0]))
def test_gradients_are_linear_in_the_cotangent(program, rng, factor):
    leaves = program.leaves()
    us = program.cotangents
    vs = [rng.standard_normal(u.shape) for u in us]
    first, second, both, nothing = (
        [np.zeros(x.shape) if g is None else g.numpy() for x, g in zip(leaves, backward(program, leaves, gs), strict=True)]
        for gs in (us, vs, [u + factor * v for u, v in zip(us, vs, strict=True)], [0 * u for u in us])
    )
    for a, b, c, zero in zip(first, second, both, nothing, strict=True):
        np.testing.assert_allclose(c, a + factor * b, rtol=1e-9, atol=1e-11 * program.size)
        assert not zero.any()


@laws(40)
@given(programs, st.integers(1, 3))
def test_repeated_backward_adds_up_exactly(program, times):
    leaves = program.leaves()
    total = sum((y * g).sum() for y, g in zip(program(*leaves), program.cotangents, strict=True))
    assume(total.requires_grad)
    once = tg.grad(total, leaves, retain_graph=True, allow_unused=True)
    kept = [None if g is None else g.numpy().copy() for g in once]
    sums = [None if g is None else g.copy() for g in kept]
    for k in range(times):
        total.backward(retain_graph=k < times - 1)
        if k:
            sums = [None if g is None else s + g for s, g in zip(sums, kept, strict=True)]
        for x, s in zip(leaves, sums, strict=True):
            assert (x.grad is None) == (s is None)
            if s is not None:
                np.testing.assert_array_equal(x.grad.numpy(), s)
    # What grad gave out shares no memory with what backward added up.
    for g, k in zip(once, kept, strict=True):
        assert g is None or (g.numpy() == k).all()
    with pytest.raises(tg.errors.TapeError):
        total.backward()


@laws(40)
@given(programs)
def test_gradients_share_no_memory(program):
    leaves = program.leaves()
    # Each tensor once: who asks twice for the gradient of one tensor gets it twice.
    outputs = list({id(y): y for y in program(*leaves) if y.requires_grad and not y.is_leaf}.values())
    assume(outputs)
    cotangents = [np.ones(y.shape) for y in outputs]
    gradients = [g for g in tg.grad(outputs, [*leaves, *outputs], cotangents, allow_unused=True) if g is not None]
    arrays = [g.numpy() for g in gradients] + cotangents + program.inputs
    for y, g in zip(program(*leaves), program.cotangents, strict=True):
        if y.requires_grad and not y.is_leaf:
            y.backward(g, retain_graph=True)
    arrays += [x.grad.numpy() for x in leaves if x.grad is not None] + program.cotangents
    for a, b in itertools.combinations(arrays, 2):
        assert not np.may_share_memory(a, b)


@laws(60)
@given(generators, st.integers(2, 12), dtypes, st.booleans())
def test_shared_uses_add_up_as_untied_copies_do(rng, T, dtype, gated):
    W, x = rng.standard_normal((3, 3)).astype(dtype), rng.standard_normal((2, 3)).astype(dtype)

    def unrolled(weights):
        h = tg.tensor(x)
        for w in weights:
            h = tg.tanh(h @ w) * tg.sigmoid(h @ w[0]).reshape(-1, 1) if gated else tg.tanh(h @ w)
        return (h * h).sum()

    copies = [tg.tensor(W, requires_grad=True) for _ in range(T)]
    parts = np.stack([g.numpy() for g in tg.grad(unrolled(copies), copies)])
    runs = []
    for _ in range(2):
        shared = tg.tensor(W, requires_grad=True)
        unrolled([shared] * T).backward()
        runs.append(shared.grad.numpy())
    assert runs[0].dtype == dtype
    # Any order of T additions is within T roundings of the exact sum; a gated step uses its weight twice.
    bound = 2 * T * np.finfo(dtype).eps * np.abs(parts.astype(np.float64)).sum(0) * (2 if gated else 1)
    assert (np.abs(runs[0] - parts.astype(np.float64).sum(0)) <= bound + 4 * np.finfo(dtype).eps * np.abs(parts).max()).all()
    np.testing.assert_array_equal(runs[0], runs[1])


def each(names, call):
    return dict.fromkeys(names.split(), call)


def one(f, x, y):
    return f(x)


def two(f, x, y):
    return f(x, y)


# How to call every public operation on two (3, 4) arrays between 0.1 and 0.9.
EVERY = {
    **each("abs absolute amax amin arccos arcsin arcsinh arctan arctanh average cbrt ceil copy cos cosh cumprod cumsum deg2rad diag diagonal diff elu erf erfc exp exp2", one),
    **each("expm1 fliplr flip flipud floor gelu isfinite isinf isnan leaky_relu log log10 log1p log2 log_softmax logical_not logsumexp max mean median min", one),
    **each("nan_to_num negative norm positive prod ptp rad2deg ravel reciprocal relu rint rot90 sigmoid sign signbit silu sin sinh softmax softplus sort sqrt", one),
    **each("square squeeze std sum tan tanh trace transpose trapezoid tril triu trunc var", one),
    **each("add append arctan2 divide equal float_power floor_divide fmax fmin fmod greater greater_equal hypot inner kron less less_equal logaddexp logical_and", two),
    **each("logical_or logical_xor maximum minimum mod multiply not_equal outer pow power subtract tensordot vdot", two),
    **each("atleast_1d atleast_2d atleast_3d", lambda f, x, y: f(x[0, 0])),
    **each("avg_pool2d max_pool2d", lambda f, x, y: f(x.reshape(1, 3, 4), 2)),
    **each("array_split split vsplit", lambda f, x, y: f(x, 3)),
    **each("bitwise_and bitwise_or bitwise_xor", lambda f, x, y: f(x > 0.5, y > 0.5)),
    **each("column_stack concatenate dstack hstack stack vstack", lambda f, x, y: f([x, y])),
    **each("dot matmul", lambda f, x, y: f(x, y.T)),
    "arccosh": lambda f, x, y: f(x + 1.5),
    "astype": lambda f, x, y: f(x, x.dtype),
    "broadcast_arrays": lambda f, x, y: f(x, y[0]),
    "broadcast_to": lambda f, x, y: f(x, (2, 3, 4)),
    "clip": lambda f, x, y: f(x, 0.3, 0.7),
    "conv2d": lambda f, x, y: f(x.reshape(1, 3, 4), y[:2, :2].reshape(1, 1, 2, 2)),
    "cross": lambda f, x, y: f(x, y, axis=0),
    "einsum": lambda f, x, y: f("ij,kj->ik", x, y),
    "embedding": lambda f, x, y: f([0, 2, 0], x),
    "expand_dims": lambda f, x, y: f(x, 1),
    "hsplit": lambda f, x, y: f(x, 2),
    "invert": lambda f, x, y: f(x > 0.5),
    "meshgrid": lambda f, x, y: f(x[0], y[1]),
    "moveaxis": lambda f, x, y: f(x, 0, 1),
    "one_hot": lambda f, x, y: f(np.arange(3)),
    "pad": lambda f, x, y: f(x, 1),
    "repeat": lambda f, x, y: f(x, 2, 0),
    "reshape": lambda f, x, y: f(x, (4, 3)),
    "roll": lambda f, x, y: f(x, 1),
    "rollaxis": lambda f, x, y: f(x, 1),
    "scatter": lambda f, x, y: f(x, np.array([0, 0, 1]), (2, 4)),
    "swapaxes": lambda f, x, y: f(x, 0, 1),
    "take": lambda f, x, y: f(x, [0, 0], 1),
    "take_along_axis": lambda f, x, y: f(x, np.zeros((3, 1), int)),
    "tile": lambda f, x, y: f(x, 2),
    "where": lambda f, x, y: f(x > 0.5, x, y),
}
CREATION = {
    **each("zeros ones rand randn", lambda f: f(2, 3)),
    **each("zeros_like ones_like rand_like randn_like", lambda f: f(tg.ones(3))),
    "full": lambda f: f((2,), 1.5),
    "full_like": lambda f: f(tg.ones(3), 2),
    "eye": lambda f: f(3),
    "arange": lambda f: f(0.0, 3.0),
    "linspace": lambda f: f(0, 1),
}
# Piecewise constant, so without a gradient.
FLAT = set("bitwise_and bitwise_or bitwise_xor ceil equal floor floor_divide greater greater_equal invert isfinite isinf isnan less less_equal".split())
FLAT |= set("logical_and logical_not logical_or logical_xor not_equal one_hot rint sign signbit trunc".split())


def test_the_tables_name_every_public_operation():
    modules = {name: getattr(getattr(tg, name), "__module__", "") for name in tg.__all__}
    assert sorted(EVERY) == sorted(name for name, module in modules.items() if module.startswith("tinygrad_rnn.ops."))
    assert sorted(CREATION) == sorted(name for name, module in modules.items() if module == "tinygrad_rnn.core.creation")


@pytest.mark.parametrize("name", [*EVERY, *CREATION])
def test_float32_in_gives_float32_out(name):
    if name in CREATION:
        assert CREATION[name](getattr(tg, name)).dtype == np.float32
        return
    rng = np.random.default_rng(7)
    x, y = (tg.tensor(rng.uniform(0.1, 0.9, (3, 4)).astype(np.float32), requires_grad=True) for _ in range(2))
    parts = EVERY[name](getattr(tg, name), x, y)
    parts = parts if isinstance(parts, list | tuple) else [parts]
    assert all(p.dtype == np.float32 or (name in FLAT and p.dtype.kind in "biu") for p in parts)
    assert all(p.requires_grad == (name not in FLAT) for p in parts)
    if name in FLAT:
        return
    total = sum((p * p).sum() for p in parts)
    first = [g for g in tg.grad(total, [x, y], create_graph=True, allow_unused=True) if g is not None]
    second = [g for g in tg.grad(sum(g.sum() for g in first), [x, y], allow_unused=True) if g is not None]
    assert first and {g.dtype for g in first + second} == {np.dtype(np.float32)}


def layouts(values):
    """The same values in other places of memory."""
    yield "transposed", np.ascontiguousarray(values.T), lambda base: base.T
    yield "strided", np.repeat(np.repeat(values, 2, 0), 3, 1), lambda base: base[::2, 1::3]
    yield "reversed", np.ascontiguousarray(values[::-1, ::-1]), lambda base: base[::-1, ::-1]
    yield "inner", np.pad(np.moveaxis(np.stack([values, values + 1]), 0, 1), 1), lambda base: base[1:-1, 1, 1:-1]


@pytest.mark.parametrize("name", [n for n in EVERY if n not in FLAT])
def test_memory_layout_changes_no_result(name):
    rng = np.random.default_rng(8)
    values = [rng.uniform(0.1, 0.9, (3, 4)) for _ in range(2)]

    def results(x, y):
        parts = EVERY[name](getattr(tg, name), x, y)
        parts = parts if isinstance(parts, list | tuple) else [parts]
        gradients = tg.grad(sum((p * p).sum() for p in parts), [x, y], allow_unused=True)
        return [p.numpy() for p in parts] + [g.numpy() for g in gradients if g is not None]

    expected = results(*[tg.tensor(v, requires_grad=True) for v in values])
    for (kind, base, view), (_, other, view_other) in zip(layouts(values[0]), layouts(values[1]), strict=True):
        xs = [view(tg.tensor(base, requires_grad=True)), view_other(tg.tensor(other, requires_grad=True))]
        assert not any(x.numpy().flags.c_contiguous for x in xs), kind
        for got, want in zip(results(*xs), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13, err_msg=kind)
        # An ndarray as the other operand may be laid out in any way too.
        for y in (values[1], np.asfortranarray(values[1]), view_other(other)):
            x = tg.tensor(values[0], requires_grad=True)
            parts = EVERY[name](getattr(tg, name), x, y)
            for got, want in zip(parts if isinstance(parts, list | tuple) else [parts], expected, strict=False):
                np.testing.assert_allclose(np.asarray(got.detach() if isinstance(got, tg.Tensor) else got), want, rtol=1e-13, atol=1e-13, err_msg=kind)


def watched(*outputs):
    """Weak references to everything that a tape keeps alive: its records and the arrays in them."""
    recorded = [y for y in outputs if y.requires_grad]
    records = list(tg.tape(*recorded)) if recorded else []
    return [weakref.ref(r) for r in records] + [weakref.ref(b) for r in records for b in r.buffers if b.base is None]


def after_nothing(program, leaves, outputs, total):
    pass


def after_backward(program, leaves, outputs, total):
    total.backward()


def after_grad(program, leaves, outputs, total):
    tg.grad(total, leaves, retain_graph=True, allow_unused=True)


def after_second_order(program, leaves, outputs, total):
    first = [g for g in tg.grad(total, leaves, create_graph=True, allow_unused=True) if g is not None]
    again = sum((g * g).sum() for g in first)
    if again.requires_grad:
        again.backward()


def after_an_error(program, leaves, outputs, total):
    def fail(g):
        raise ZeroDivisionError("in a hook")

    total.register_hook(fail)
    with pytest.raises(ZeroDivisionError):
        total.backward()


def after_hooks(program, leaves, outputs, total):
    total.retain_grad()
    total.register_hook(lambda g: g * 2)
    total.backward()


@pytest.mark.parametrize("use", [after_nothing, after_backward, after_grad, after_second_order, after_an_error, after_hooks], ids=lambda f: f.__name__)
@laws(20)
@given(programs)
def test_the_tape_goes_with_its_last_tensor(use, program):
    gc.disable()
    try:
        leaves = program.leaves()
        outputs = program(*leaves)
        total = sum((y * g).sum() for y, g in zip(outputs, program.cotangents, strict=True))
        alive = watched(total)
        if total.requires_grad:
            use(program, leaves, outputs, total)
        del total, outputs
        leaks = [r() for r in alive if r() is not None]
        # A leaf's own array is the leaf's to keep.
        assert not [o for o in leaks if not any(o is x._data for x in leaves)]
    finally:
        gc.enable()


class Worker:
    """A thread that runs what it is given, one thing at a time."""

    def __init__(self):
        self.tasks, self.results = queue.Queue(), queue.Queue()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        for task in iter(self.tasks.get, None):
            try:
                self.results.put((True, task()))
            except BaseException as error:
                self.results.put((False, error))

    def __call__(self, task):
        self.tasks.put(task)
        fine, result = self.results.get(timeout=10)
        if not fine:
            raise result
        return result

    def stop(self):
        self.tasks.put(None)
        self.thread.join()


ACTIONS = ["op", "op", "op", "no_grad", "enable_grad", "scope", "leave"]


@laws(60)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(ACTIONS)), min_size=4, max_size=40))
def test_threads_that_take_turns_do_not_mix(schedule):
    workers = [Worker(), Worker()]
    try:
        # The leaf is shared; the chains, the modes and the scopes are each thread's own.
        w = tg.tensor(np.array([0.5, -0.25]), requires_grad=True)
        chains, modes, models = [w, w], [[], []], [(w.numpy(), np.ones(2)), (w.numpy(), np.ones(2))]
        for k, (who, action) in enumerate(schedule):
            if action == "op":
                recording = next((m == "enable_grad" for m, _ in reversed(modes[who]) if m != "scope"), True)
                before = chains[who]
                chains[who] = after = workers[who](lambda y=before: tg.sin(y) * w)
                value, slope = models[who]
                models[who] = np.sin(value) * w.numpy(), (np.cos(value) * slope * w.numpy() + np.sin(value)) if recording else np.zeros(2)
                assert after.requires_grad == recording
                if recording:
                    assert [name for name, _ in tg.tape(after)[-1].scope] == [f"{who}:{n}" for n, (m, _) in enumerate(modes[who]) if m == "scope"]
            elif action == "leave":
                if modes[who]:
                    workers[who](lambda mode=modes[who].pop()[1]: mode.__exit__(None, None, None))
            else:
                mode = tg.scope(f"{who}:{len(modes[who])}", step=k) if action == "scope" else getattr(tg, action)()
                workers[who](mode.__enter__)
                modes[who].append((action, mode))
        assert tg.sin(w).requires_grad and tg.tape(tg.sin(w))[0].scope == ()
        for chain, (value, slope) in zip(chains, models, strict=True):
            np.testing.assert_allclose(chain.numpy(), value, rtol=1e-13)
            if chain.requires_grad:
                np.testing.assert_allclose(tg.grad(chain, w, np.ones(2)).numpy(), slope, rtol=1e-12, atol=1e-14)
    finally:
        for worker in workers:
            worker.stop()


def test_threads_that_run_at_once_get_the_gradients_of_one():
    rng = np.random.default_rng(3)
    cases = [Program(rng, 12) for _ in range(24)]
    alone = [backward(p, p.leaves()) for p in cases]
    together = [None] * len(cases)
    barrier = threading.Barrier(4)

    def work(k):
        barrier.wait(timeout=10)
        for i in range(k, len(cases), 4):
            together[i] = backward(cases[i], cases[i].leaves())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert [None if g is None else g.tolist() for g in one] == [None if g is None else g.tolist() for g in other]


def windows_of(size, kernel, stride, padding, dilation=(1, 1)):
    """The places in the padded image that each window reads: for rows and for columns, (windows, kernel)."""
    spans = zip(size, kernel, stride, padding, dilation, strict=True)
    return [s * np.arange((n + 2 * p - d * (k - 1) - 1) // s + 1)[:, None] + d * np.arange(k) for n, k, s, p, d in spans]


def framed(x, padding, value=0):
    return np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=value)


class Windows:
    """A convolution and its two adjoints, one window after the other."""

    def __init__(self, stride, padding, dilation, groups):
        self.options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)

    def visit(self, x, weight, g, body):
        """``body(window of x, weight of the group, element of g)`` for each window of each group; all are views."""
        o, c, *kernel = weight.shape
        groups = self.options["groups"]
        rows, columns = windows_of([n - 2 * p for n, p in zip(x.shape[2:], self.options["padding"], strict=True)], kernel, *[self.options[k] for k in ("stride", "padding", "dilation")])
        for k in range(groups):
            ins, outs = slice(k * c, (k + 1) * c), slice(k * o // groups, (k + 1) * o // groups)
            for (r, i), (s, j) in itertools.product(enumerate(rows), enumerate(columns)):
                place = (slice(None), ins, slice(i[0], i[-1] + 1, self.options["dilation"][0]), slice(j[0], j[-1] + 1, self.options["dilation"][1]))
                body(x[place], weight[outs], g[:, outs, r, s])
        return [len(rows), len(columns)]

    def values(self, x, weight):
        p = self.options["padding"]
        rows, columns = windows_of(x.shape[2:], weight.shape[2:], self.options["stride"], p, self.options["dilation"])
        out = np.zeros((len(x), len(weight), len(rows), len(columns)), x.dtype)
        self.visit(framed(x, p), weight, out, lambda window, w, y: np.einsum("ncij,ocij->no", window, w, out=y))
        return out

    def image(self, g, weight, shape):
        (ph, pw), (height, width) = self.options["padding"], shape[2:]
        total = framed(np.zeros(shape, g.dtype), (ph, pw))

        def body(window, w, y):
            window += np.einsum("no,ocij->ncij", y, w)

        self.visit(total, weight, g, body)
        return total[:, :, ph : ph + height, pw : pw + width]

    def kernel(self, g, x, shape):
        total = np.zeros(shape, g.dtype)

        def body(window, w, y):
            w += np.einsum("no,ncij->ocij", y, window)

        self.visit(framed(x, self.options["padding"]), total, g, body)
        return total


def as_operand(x, order):
    """A leaf that holds x with its axes in another order, and the tensor of x that reads it, not contiguous."""
    leaf = tg.tensor(np.ascontiguousarray(x.transpose(order)), requires_grad=True)
    return leaf, tg.transpose(leaf, np.argsort(order).tolist())


pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
frames = st.tuples(st.integers(0, 3), st.integers(0, 3))


@laws(150)
@given(st.data(), generators, dtypes, pair, frames, pair, st.integers(1, 3), st.permutations(range(4)), st.permutations(range(4)))
def test_a_convolution_is_that_of_one_window_after_the_other_to_second_order(data, rng, dtype, stride, padding, dilation, groups, order, other):
    n, c, o = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([1, 2, 8])), data.draw(st.sampled_from([1, 3, 8]))
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = [data.draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), d * (k - 1) + 6)) for k, p, d in zip(kernel, padding, dilation, strict=True)]
    x, weight = whole(rng, (n, c * groups, *size), dtype), whole(rng, (o * groups, c, *kernel), dtype)
    model = Windows(stride, padding, dilation, groups)
    (image, read), (matrix, factor) = as_operand(x, order), as_operand(weight, other)
    y = tg.conv2d(read, factor, **model.options)
    np.testing.assert_array_equal(y.numpy(), model.values(x, weight))
    g = tg.tensor(whole(rng, y.shape, dtype), requires_grad=True)
    dx, dw = tg.grad(y, (read, factor), g, create_graph=True)
    np.testing.assert_array_equal(dx.numpy(), model.image(g.numpy(), weight, x.shape))
    np.testing.assert_array_equal(dw.numpy(), model.kernel(g.numpy(), x, weight.shape))
    # <a, dx> + <b, dw> is linear in x, in the weight and in g.
    a, b = whole(rng, x.shape, dtype), whole(rng, weight.shape, dtype)
    second = tg.grad((dx, dw), (g, image, matrix), (a, b))
    assert all(t.dtype == dtype for t in (y, dx, dw, *second))
    np.testing.assert_array_equal(second[0].numpy(), model.values(a, weight) + model.values(x, b))
    np.testing.assert_array_equal(second[1].numpy(), model.image(g.numpy(), b, x.shape).transpose(order))
    np.testing.assert_array_equal(second[2].numpy(), model.kernel(g.numpy(), a, weight.shape).transpose(other))


def test_a_convolution_of_many_pixels():
    rng = np.random.default_rng(0)
    x, weight = whole(rng, (3, 4, 90, 110), np.float32), whole(rng, (12, 4, 3, 4), np.float32)
    for stride in ((1, 1), (2, 1)):
        model = Windows(stride, (1, 2), (1, 1), 1)
        image, factor = tg.tensor(x, requires_grad=True), tg.tensor(weight, requires_grad=True)
        y = tg.conv2d(image, factor, **model.options)
        np.testing.assert_array_equal(y.numpy(), model.values(x, weight))
        g = whole(rng, y.shape, np.float32)
        dx, dw = tg.grad(y, (image, factor), g)
        np.testing.assert_array_equal(dx.numpy(), model.image(g, weight, x.shape))
        np.testing.assert_array_equal(dw.numpy(), model.kernel(g, x, weight.shape))


@laws(150)
@given(st.data(), generators, dtypes, pair, st.none() | pair, st.permutations(range(4)))
def test_pooling_is_that_of_one_window_after_the_other(data, rng, dtype, kernel, stride, order):
    padding = [data.draw(st.integers(0, k // 2)) for k in kernel]
    shape = (*data.draw(st.tuples(st.integers(0, 3), st.integers(1, 3))), *(data.draw(st.integers(k, k + 6)) for k in kernel))
    # Whole multiples of every window's count, so that means are exact; few of them, so that there are ties.
    x = 36 * rng.integers(-3, 4, shape).astype(dtype)
    rows, columns = windows_of(shape[2:], kernel, stride or kernel, padding)
    out = (*shape[:2], len(rows), len(columns))
    means, largest, g = np.zeros(out, dtype), np.zeros(out, dtype), 36 * whole(rng, out, dtype)
    spread, chosen = framed(np.zeros(shape, dtype), padding), framed(np.zeros(shape, dtype), padding)
    zeros, lowest = framed(x, padding), framed(x, padding, -np.inf)
    for (r, i), (s, j) in itertools.product(enumerate(rows), enumerate(columns)):
        place = (slice(None), slice(None), slice(i[0], i[-1] + 1), slice(j[0], j[-1] + 1))
        means[:, :, r, s] = zeros[place].sum((2, 3)) / (kernel[0] * kernel[1])
        spread[place] += g[:, :, r, s, None, None] / (kernel[0] * kernel[1])
        for m, k in itertools.product(range(shape[0]), range(shape[1])):
            window = lowest[m, k][place[2:]]
            at = np.unravel_index(window.argmax(), window.shape)
            largest[m, k, r, s] = window[at]
            chosen[m, k][place[2:]][at] += g[m, k, r, s]
    inside = (slice(None), slice(None), *(slice(p, p + n) for p, n in zip(padding, shape[2:], strict=True)))
    for pool, values, gradient in ((tg.avg_pool2d, means, spread), (tg.max_pool2d, largest, chosen)):
        leaf, read = as_operand(x, order)
        cotangent = tg.tensor(g, requires_grad=True)
        y = pool(read, kernel, stride, padding)
        np.testing.assert_array_equal(y.numpy(), values)
        first = tg.grad(y, leaf, cotangent, create_graph=True)
        np.testing.assert_array_equal(first.numpy(), gradient[inside].transpose(order))
        # Each is linear in the cotangent, so that its gradient for the cotangent is the pooling of another image with the same choices.
        v = 36 * whole(rng, first.shape, dtype)
        again = tg.grad(first, cotangent, v)
        assert y.dtype == first.dtype == again.dtype == dtype
        assert np.vdot(again.numpy(), g) == np.vdot(v, first.numpy())


@laws(60)
@given(generators, st.tuples(st.integers(1, 3), st.integers(1, 3)), st.booleans())
def test_max_pooling_hands_nan_and_infinities_on(rng, kernel, padded):
    x = rng.choice([1.0, 2.0, np.nan, np.inf, -np.inf], (2, 2, 5, 4))
    padding = [padded * (k // 2) for k in kernel]
    rows, columns = windows_of(x.shape[2:], kernel, (1, 1), padding)
    windows = framed(x, padding, -np.inf)[:, :, rows[:, None, :, None], columns[:, None, :]]
    leaf = tg.tensor(x, requires_grad=True)
    y = tg.max_pool2d(leaf, kernel, 1, padding)
    np.testing.assert_array_equal(y.numpy(), windows.max((4, 5)))
    # The gradient goes to elements as large as the result.
    for place in np.argwhere(tg.grad(y, leaf, np.ones(y.shape)).numpy()):
        assert any(np.array_equal(x[tuple(place)], value, equal_nan=True) for value in y.numpy()[tuple(place[:2])].ravel())
