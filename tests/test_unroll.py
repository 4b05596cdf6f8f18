"""unroll: a replayed step against the same step run eagerly, and both against finite differences."""

import functools
import gc
import threading
import warnings
import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.replay import replaying, unrolling, workspace


def laws(examples):
    return settings(derandomize=True, deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large])


def leaves(tree):
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, tuple | list) else [] if tree is None else [tree]


def nested(parts):
    """One tensor, a pair, or a pair with a pair in it; nothing at all for none."""
    return tuple(parts) if len(parts) != 1 and len(parts) < 3 else parts[0] if len(parts) == 1 else (parts[0], nested(parts[1:]))


def numbers(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def free(*shape, seed=0, dtype=np.float64, grad=True):
    return tg.tensor(numbers(*shape, seed=seed, dtype=dtype), requires_grad=grad)


def narrow(b, a):
    """b if it goes with a element by element, else a column of it, which is repeated along a's rows."""
    return b if b.shape == a.shape else b[:, :1]


UNARY = "tanh sigmoid relu silu softplus gelu erfc leaky_relu elu sin erf arctan square absolute cos expm1 sign floor".split()


OPS = {name: lambda c, a, b, k, name=name: getattr(tg, name)(a) for name in UNARY} | {
    "add": lambda c, a, b, k: a + narrow(b, a),
    "subtract": lambda c, a, b, k: 1 - (narrow(b, a) - a),
    "multiply": lambda c, a, b, k: a * narrow(b, a),
    "divide": lambda c, a, b, k: a / (narrow(b, a) ** 2 + 1),
    "scale": lambda c, a, b, k: 0.5 * a + (k - 1),
    "power": lambda c, a, b, k: a**2 - a**3 / 6,
    "exp": lambda c, a, b, k: tg.exp(0.1 * a),
    "log": lambda c, a, b, k: tg.log(a * a + 1),
    "root": lambda c, a, b, k: tg.sqrt(a * a + 1),
    "softmax": lambda c, a, b, k: tg.softmax(a, axis=(-1, 1)[k % 2]),
    "log_softmax": lambda c, a, b, k: tg.log_softmax(a, axis=-1),
    "linear": lambda c, a, b, k: a @ c.weight(k, a.shape[1], k + 1),
    "affine": lambda c, a, b, k: a @ c.weight(k, a.shape[1], 2) + c.weight(k, 2),
    "from the left": lambda c, a, b, k: (c.weight(k, k + 1, a.shape[1]) @ a.T).T,
    "transposed": lambda c, a, b, k: a @ c.weight(k, k + 1, a.shape[1]).T,
    "tied": lambda c, a, b, k: tg.tanh(a @ c.weight(k, a.shape[1], 2)) @ c.weight(k, a.shape[1], 2).T,
    "of a weight": lambda c, a, b, k: a @ tg.tanh(c.weight(k, a.shape[1], 2) * 2),
    "gain": lambda c, a, b, k: a * c.weight(k, a.shape[1]),
    "row": lambda c, a, b, k: a - c.weight(k, 1, 1),
    "number": lambda c, a, b, k: a * c.weight(k),
    "attention": lambda c, a, b, k: tg.softmax(a @ (b @ c.weight(k, b.shape[1], a.shape[1])).T) @ b,
    "outer": lambda c, a, b, k: tg.sum(a.reshape(*a.shape, 1) * b.reshape(b.shape[0], 1, b.shape[1]), axis=1 + k % 2),
    "products": lambda c, a, b, k: (a.reshape(a.shape[0], -1, 1) @ b.reshape(b.shape[0], 1, -1)).reshape(a.shape[0], a.shape[1] * b.shape[1])[:, :3],
    "vector": lambda c, a, b, k: (a @ c.weight(k, a.shape[1])).reshape(a.shape[0], 1),
    "einsum": lambda c, a, b, k: tg.einsum("bi,ij->bj", a, c.weight(k, a.shape[1], 2)),
    "first": lambda c, a, b, k: a[:, : k + 1],
    "second": lambda c, a, b, k: a[:, 1:] if a.shape[1] > 1 else a,
    "strided": lambda c, a, b, k: a[:, :: (-1, 2, -2, 3)[k]],
    "column": lambda c, a, b, k: a[:, -1, None],
    "ellipsis": lambda c, a, b, k: a[..., None, :][:, 0],
    "concatenate": lambda c, a, b, k: tg.concatenate([a, b, a][: 2 + k % 2], axis=1)[:, :4],
    "stack": lambda c, a, b, k: tg.stack([a, narrow(b, a) + 0 * a])[k % 2],
    "stack and sum": lambda c, a, b, k: tg.stack([narrow(b, a) + 0 * a, a], axis=1).sum(axis=1),
    "there and back": lambda c, a, b, k: (a.T * 2).reshape(a.shape[1], a.shape[0]).T,
    "flat": lambda c, a, b, k: tg.tanh(a.reshape(a.size)).reshape(a.shape),
    "split": lambda c, a, b, k: functools.reduce(lambda p, q: p * q, tg.split(a, a.shape[1], axis=1)),
    "sum": lambda c, a, b, k: tg.sum(a, axis=1, keepdims=True),
    "mean": lambda c, a, b, k: a - tg.mean(a, axis=k % 2, keepdims=True) if a.size else a,
    "max": lambda c, a, b, k: tg.max(a, axis=-1, keepdims=True),
    "min": lambda c, a, b, k: narrow(b, a) - tg.min(a, axis=1, keepdims=True),
    "total": lambda c, a, b, k: a + tg.sum(b),
    "logsumexp": lambda c, a, b, k: tg.logsumexp(a, axis=1, keepdims=True),
    "cumsum": lambda c, a, b, k: tg.cumsum(a, axis=1),
    "flip": lambda c, a, b, k: tg.flip(a, axis=1),
    "roll": lambda c, a, b, k: tg.roll(a, 1, axis=1),
    "norm": lambda c, a, b, k: a / (1 + tg.norm(a, axis=1, keepdims=True)),
    "layer norm": lambda c, a, b, k: (a - a.mean(axis=1, keepdims=True)) / tg.sqrt(a.var(axis=1, keepdims=True) + 0.1) * c.weight(k, a.shape[1]),
    "where": lambda c, a, b, k: tg.where(a > narrow(b, a), a, narrow(b, a)),
    "where number": lambda c, a, b, k: tg.where(a < 0.1, a * a, (0.0, narrow(b, a))[k % 2]),
    "maximum": lambda c, a, b, k: tg.maximum(a, narrow(b, a)),
    "minimum": lambda c, a, b, k: tg.minimum(0.2, a),
    "clip": lambda c, a, b, k: tg.clip(a, -0.5, 0.5 + k),
    "embedding": lambda c, a, b, k: tg.embedding(c.symbols, c.weight(k, 5, a.shape[1])) + a,
    "symbols": lambda c, a, b, k: tg.where(c.symbols.reshape(-1, 1) == k, a, 0.5 * a),
    "constant": lambda c, a, b, k: a * c.constant(k, a.shape[1]),
    "array": lambda c, a, b, k: a + c.constant(k, a.shape[1])._data,
}  # fmt: skip


class Cell:
    """A step made of a list of (operation, operand, operand, variant), with weights that are made when they are first asked for.

    Operands are counted from the newest value backwards; ``outputs`` and ``carried`` pick from all values likewise, so that
    an input, a state or a view of one may come back as it is. ``frozen`` is a set of bits: variants whose weights need no gradient.
    """

    def __init__(self, code, outputs=(0,), carried=(0,), frozen=0, dtype=np.float64, seed=0, last=False):
        self.code, self.outputs, self.carried, self.frozen, self.dtype, self.seed, self.last = code, outputs, carried, frozen, dtype, seed, last
        self.weights, self.calls = {}, 0

    def weight(self, k, *shape):
        if (k, shape) not in self.weights:
            self.weights[k, shape] = tg.tensor(0.7 * numbers(*shape, seed=100 + 10 * self.seed + k, dtype=self.dtype), requires_grad=not self.frozen >> k & 1)
        return self.weights[k, shape]

    def constant(self, k, *shape):
        return self.weight(k + 10, *shape).requires_grad_(False)

    def __call__(self, x, state):
        self.calls += 1
        given = [*leaves(x), *leaves(state)]
        self.symbols = next((v for v in given if v.dtype.kind == "i"), tg.tensor(np.zeros(0, int)))
        values = [v for v in given if v.dtype.kind == "f"]
        for name, a, b, k in self.code:
            if name not in ("embedding", "symbols") or self.symbols.size:
                values.append(OPS[name](self, values[-1 - a % len(values)], values[-1 - b % len(values)], k))
        picked = [None if k is None else values[-1 - k % len(values)] for k in self.outputs]
        if self.last:
            picked.append(self.weight(0, 2, 3))
        new = [values[-1 - k % len(values)] for k, _ in zip(self.carried, leaves(state), strict=True)]
        return (nested(picked) if picked else None), nested([self.fitted(a, s.shape[1]) for a, s in zip(new, leaves(state), strict=True)])

    def fitted(self, a, width):
        return a if a.shape[1] == width else a[:, :width] if a.shape[1] > width else a @ self.weight(3, a.shape[1], width)


def close(found, expected, what=""):
    """The same to rounding, as large as the largest value is: 1e-10 of it in float64, 1e-4 in float32. No gradient is one of zeros."""
    if found is None or expected is None:
        assert not any(np.any(v._data) for v in (found, expected) if v is not None), f"{what}: {found} and {expected}"
    else:
        found, expected = (v._data if hasattr(v, "_data") else v for v in (found, expected))
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), what
        tolerance = {"f": 1e-4 if found.dtype == np.float32 else 1e-10}.get(found.dtype.kind, 0)
        size = np.max(np.abs(expected), initial=1) if found.dtype.kind == "f" else 0
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * size, err_msg=what)


def loss_of(results, chosen=-1, power=1):
    """A sum of all floating results that the bits choose, each element with a factor of its own; None if they choose none."""
    terms = [(r**power * np.cos(np.arange(r.size)).reshape(r.shape).astype(r.dtype)).sum() for k, r in enumerate(results) if chosen >> k & 1 and r.dtype.kind == "f"]
    return functools.reduce(lambda p, q: p + q, terms) if terms else None


def gradients(results, wanted, chosen=-1, **options):
    loss = loss_of(results, chosen)
    return [None] * len(wanted) if loss is None or not loss.requires_grad or not wanted else tg.grad(loss, wanted, allow_unused=True, **options)


def both(step, inputs, state, weights=lambda: [], chosen=-1, **options):
    """Values and gradients in both modes, which must agree; gives the results of replay."""
    runs = {}
    for mode in ("eager", "replay"):
        results = leaves(tg.unroll(step, inputs, state, mode=mode, **options))
        wanted = [t for t in (*leaves(inputs if not isinstance(inputs, int) else None), *leaves(state), *weights()) if t.requires_grad]
        runs[mode] = results, gradients(results, wanted, chosen)
    (eager, expected), (replayed, found) = runs.values()
    assert all(r.requires_grad >= e.requires_grad for r, e in zip(replayed, eager, strict=True))
    for k, (r, e) in enumerate(zip(replayed, eager, strict=True)):
        close(r, e, f"result {k}")
    for k, (r, e) in enumerate(zip(found, expected, strict=True)):
        close(r, e, f"gradient {k}")
    return replayed


def bounded(tensors):
    return all(np.isfinite(t._data).all() and np.max(np.abs(t._data), initial=0) < 1e4 for t in tensors if t is not None)


small = st.integers(0, 3)
many = st.integers(0, 9)
codes = st.lists(st.tuples(st.sampled_from(sorted(OPS)), many, many, small), max_size=7)


@laws(150)
@given(
    code=codes,
    xs=st.lists(st.sampled_from([2, 1, 3, "i"]), max_size=3),
    states=st.lists(st.tuples(st.sampled_from([2, 1, 3]), many), max_size=3),
    outputs=st.lists(st.none() | many, max_size=3),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 4)),
    dtype=st.sampled_from([np.float64, np.float32]),
    grads=st.integers(0, 63),
    frozen=st.integers(0, 15),
    chosen=st.integers(0, 63),
    reverse=st.booleans(),
    lengths=st.none() | st.lists(st.integers(0, 6), min_size=4, max_size=4),
    last=st.booleans(),
)
def test_a_replayed_step_is_the_eager_one(code, xs, states, outputs, shape, dtype, grads, frozen, chosen, reverse, lengths, last):
    steps, batch = shape
    assume(any(x != "i" for x in xs) or states)
    inputs = nested([
        tg.tensor(np.random.default_rng(k).integers(0, 5, (steps, batch))) if x == "i" else free(steps, batch, x, seed=k, dtype=dtype, grad=bool(grads >> k & 1))
        for k, x in enumerate(xs)
    ])  # fmt: skip
    state = nested([free(batch, width, seed=5 + k, dtype=dtype, grad=bool(grads >> (3 + k) & 1)) for k, (width, _) in enumerate(states)])
    cell = Cell(code, outputs, [k for _, k in states], frozen, dtype, last=last and lengths is None)
    options = {"reverse": reverse, "lengths": None if lengths is None else [n % steps + 1 for n in lengths[:batch]]}
    feed = inputs if xs else steps
    with np.errstate(over="ignore", invalid="ignore"):
        eager = leaves(tg.unroll(cell, feed, state, mode="eager", **options))
    assume(bounded(eager) and bounded(gradients(eager, [w for w in [*leaves(inputs), *leaves(state), *cell.weights.values()] if w.requires_grad])))
    replayed = both(cell, feed, state, lambda: cell.weights.values(), chosen, **options)
    with tg.no_grad():
        for r, e in zip(leaves(tg.unroll(cell, feed, state, mode="replay", **options)), replayed, strict=True):
            assert r.is_leaf
            close(r, e, "without recording")


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_operation_hoisted_in_the_loop_and_on_weights_and_after_the_weights_have_changed(name):
    """On what depends on the input, on the state, and on a weight alone; a plan must hold no value of the first call."""
    inputs = free(4, 3, 2, seed=1), tg.tensor(np.random.default_rng(2).integers(0, 5, (4, 3)))
    state, rows = free(3, 2, seed=3), free(3, 2, seed=4)
    cells = [Cell([(name, a, b, k), ("tanh", 0, 0, 0)], outputs=[0, 1]) for a, b, k in ((0, 1, 0), (1, 0, 1), (1, 1, 3))]

    def of_a_weight(x, h):
        cells[0].symbols = x[1]
        y = OPS[name](cells[0], rows, narrow(x[0], rows), 1)
        return y, tg.tanh(h * y[:, :1])

    for step in (*cells, of_a_weight):
        for _ in range(2):
            weights = [rows, *(w for cell in cells for w in cell.weights.values())]
            both(step, inputs, state, lambda weights=weights: weights)
            with tg.no_grad():
                for k, w in enumerate(weights):
                    w.assign_(numbers(*w.shape, seed=50 + k))


@laws(20)
@given(codes.filter(len), st.booleans(), st.integers(0, 3))
def test_a_batch_of_nobody_gives_empty_results_and_zero_gradients(code, reverse, frozen):
    code = [part for part in code if part[0] not in ("max", "min", "products", "total", "mean")]
    both(cell := Cell(code, frozen=frozen), free(3, 0, 2), free(0, 2), lambda: cell.weights.values(), reverse=reverse)


def linear(x, h, W=free(3, 3, seed=9)):
    return None, h @ W + x


ODD = {
    "the last state alone": linear,
    "the state is the input": lambda x, h: (h, x),
    "the state never changes": lambda x, h: (h * x, h),
    "the state is a constant": lambda x, h, zero=tg.tensor(np.zeros((2, 3))): (h * x, zero),
    "the state is a weight": lambda x, h, w=free(2, 3): (h * x, w),
    "nothing but the input": lambda x, h: (x, h),
    "a part of the input": lambda x, h: (x[:, :2], h * 2),
    "the input twice": lambda x, h: ((x, x), h + x),
    "one value as output and state": lambda x, h: ((x * h,) * 3, x * h),
    "no output": lambda x, h: (None, tg.tanh(x + h)),
    "outputs in outputs": lambda x, h: ((x, (None, (h, x * 2))), -h),
    "the state's transpose there and back": lambda x, h: (h.T.T, (h.T * x.T).T),
    "an input that is not used": lambda x, h: (h, tg.sin(h)),
    "numbers alone": lambda x, h: (h, h * 0.5 + 1),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [1, 3]])
@pytest.mark.parametrize("step", ODD.values(), ids=ODD)
def test_odd_steps(step, lengths, reverse):
    weights = [d for d in step.__defaults__ or () if d.requires_grad]
    for chosen in (-1, 1, 2, 4):
        both(step, free(4, 2, 3), free(2, 3, seed=1), lambda: weights, chosen, lengths=lengths, reverse=reverse)


STATES = {
    "swapped": lambda x, s: (s[0], (s[1], s[0])),
    "one tensor as both": lambda x, s: (s[1], (s[0] * x,) * 2),
    "views of each other": lambda x, s: (None, (s[0] * x, (s[0] * x)[:, ::-1])),
    "a view of the other state": lambda x, s: (s[0], (s[1][:, ::-1], s[0] + x)),
    "a view, and more afterwards": lambda x, s: (None, ((b := s[0] * 2)[:, ::-1], tg.tanh(tg.sin(tg.sin(b * 3))))),
    "one of them lost": lambda x, s: (s[1], (x, tg.tanh(s[1]))),
}


@pytest.mark.parametrize("lengths", [None, [4, 1]])
@pytest.mark.parametrize("step", STATES.values(), ids=STATES)
def test_two_states(step, lengths):
    for chosen in (-1, 1, 2, 4):
        both(step, free(4, 2, 3), (free(2, 3, seed=1), free(2, 3, seed=2)), chosen=chosen, lengths=lengths)
        zero = free(2, 3, seed=1)
        both(step, free(4, 2, 3), (zero, zero), chosen=chosen, lengths=lengths)


def test_nothing_to_give_back_is_no_error():
    assert tg.unroll(lambda x, s: (None, ()), free(4, 2, 3), (), mode="replay") == (None, ())


def test_results_need_a_gradient_only_where_they_depend_on_what_does():
    for grads in ((False, False), (True, False), (False, True)):
        x, h = free(4, 2, 3, grad=grads[0]), free(2, 3, grad=grads[1])
        for step in ((lambda x, h: (x, h)), (lambda x, h: (h, h * 2)), (lambda x, h: (x * 2, x + h))):
            eager, replayed = (leaves(tg.unroll(step, x, h, mode=mode)) for mode in ("eager", "replay"))
            assert [r.requires_grad for r in replayed] == [r.requires_grad for r in eager]


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("mode", ["auto", "replay"])
def test_few_steps_call_the_step_that_often(steps, mode):
    cell = Cell([("affine", 0, 0, 1), ("tanh", 0, 0, 0)])
    both(cell, free(steps, 2, 3), free(2, 2), lambda: cell.weights.values())
    cell.calls, before = 0, len(cell.weights)
    outputs, _ = tg.unroll(cell, free(steps, 2, 3), free(2, 2), mode=mode)
    assert cell.calls <= steps and outputs.shape == (steps, 2, 2) and len(cell.weights) == before


def lstm(seed=0, dtype=np.float64, size=2):
    """An LSTM's step in a few lines, the weights it uses, an input and its first state."""
    W, U, b = (free(*shape, seed=seed, dtype=dtype) for shape in ((size, 4 * size), (size, 4 * size), (4 * size,)))

    def step(x, state):
        h, c = state
        a = x @ W + h @ U + b
        i, f, o = (tg.sigmoid(a[:, k * size : (k + 1) * size]) for k in range(3))
        c = f * c + i * tg.tanh(a[:, 3 * size :])
        h = o * tg.tanh(c)
        return h, (h, c)

    return step, (W, U, b), free(5, 3, size, seed=7, dtype=dtype), (free(3, size, seed=8, dtype=dtype), free(3, size, seed=9, dtype=dtype))


def derivative(f, w, v, eps=1e-4):
    """The derivative of an ndarray-valued function along v, from five points, at a leaf whose values are moved in place."""
    at = w.numpy().copy()

    def moved(k):
        with tg.no_grad():
            w.assign_(at + k * eps * v)
        return f()

    found = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * eps)
    moved(0)
    return found


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"lengths": [2, 5, 1]}, {"lengths": [2, 5, 1], "reverse": True}])
def test_second_derivatives_and_a_step_that_is_not_called_again(options):
    step, weights, x, state = lstm()
    calls, found = [], {}

    def counted(x, s):
        calls.append(0)
        return step(x, s)

    wanted = [*weights, x, *state]

    def first(mode, **more):
        results = leaves(tg.unroll(counted, x, state, mode=mode, **options))
        calls.clear()
        return tg.grad(loss_of(results, power=2), wanted, **more)

    for mode in ("eager", "replay"):
        gs = first(mode, create_graph=True)
        penalty = sum((g * g * np.sin(np.arange(g.size)).reshape(g.shape)).sum() for g in gs)
        found[mode] = tg.grad(penalty, wanted)
        assert not calls
    for g, e in zip(found["replay"], found["eager"], strict=True):
        close(g, e)

    def value():
        return np.array(sum((g._data**2 * np.sin(np.arange(g.size)).reshape(g.shape)).sum() for g in first("replay")))

    for w, g in zip(wanted, found["replay"], strict=True):
        v = numbers(*w.shape, seed=77)
        np.testing.assert_allclose(derivative(value, w, v), (g._data * v).sum(), rtol=1e-7)


def test_third_derivatives():
    step, (W, *_), x, state = lstm()
    found = {}
    for mode in ("eager", "replay"):
        loss = loss_of(leaves(tg.unroll(step, x, state, mode=mode)), power=2)
        for _ in range(3):
            loss = (tg.grad(loss, W, create_graph=True) ** 2).sum()
        found[mode] = loss
    close(found["replay"], found["eager"])


@laws(25)
@given(codes, st.booleans(), st.integers(1, 63))
def test_second_derivatives_of_random_steps(code, reverse, chosen):
    code = [part for part in code if part[0] not in ("sign", "floor")]
    cell, x, h, found = Cell(code, outputs=[0, 1], seed=1), free(3, 2, 2), free(2, 2, seed=1), {}
    with np.errstate(over="ignore", invalid="ignore"):
        for mode in ("eager", "replay"):
            results = leaves(tg.unroll(cell, x, h, mode=mode, reverse=reverse))
            wanted = [x, h, *(w for w in cell.weights.values() if w.requires_grad)]
            gs = [g for g in gradients(results, wanted, chosen, create_graph=True) if g is not None]
            found[mode] = [*gs, *gradients(gs, wanted)]
    assume(bounded(found["eager"]))
    for k, (g, e) in enumerate(zip(found["replay"], found["eager"], strict=True)):
        close(g, e, str(k))


def test_derivatives_of_functions_go_through():
    _, (W, *_), x, state = lstm()
    v = tg.tensor(numbers(*W.shape, seed=5))
    found = {}
    for mode in ("eager", "replay"):

        def whole(U, mode=mode):
            def with_other_weights(x, s):
                h = tg.tanh(x @ U[:, :2] + s[0] @ W[:, :2])
                return h, (h, s[1] + h)

            outputs, (_, c) = tg.unroll(with_other_weights, x, state, mode=mode)
            return (outputs**2).sum(axis=(0, 1)) + c[0]

        y, pull = tg.vjp(whole, W)
        found[mode] = [y, *pull(np.array([1.0, -2.0])), *tg.jvp(whole, W, v), tg.jacobian(whole, W), tg.hvp(lambda U, f=whole: f(U).sum(), W, v)]
    for g, e in zip(found["replay"], found["eager"], strict=True):
        close(g, e)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("wrap", ["plain", "checkpoint", "no_grad", "second order"])
@pytest.mark.parametrize("per_step", [1, 2])
def test_random_numbers_are_those_of_the_eager_steps(reverse, wrap, per_step):
    x, h, W = free(6, 3, 2), free(3, 2, seed=1), free(2, 2)
    found = {}
    for mode in ("eager", "replay", "replay "):
        rng = np.random.default_rng(3)

        def step(x, h, rng=rng):
            for k in range(per_step):
                h = nn.functional.dropout(h + x, 0.25 + k / 4, rng=rng)
            return tg.tanh(h @ W), h * 0.5

        def run(x, h, step=step, mode=mode):
            y, h = tg.unroll(step, x, h, reverse=reverse, mode=mode.strip())
            return y, h

        if wrap == "no_grad":
            with tg.no_grad():
                results = run(x, h)
            found[mode] = list(results)
        else:
            results = tg.checkpoint(run, x, h) if wrap == "checkpoint" else run(x, h)
            found[mode] = [*results, *tg.grad(loss_of(results), [x, h, W], create_graph=wrap == "second order")]
        found[mode].append(tg.tensor(rng.random(3)))
    for mode in ("replay", "replay "):
        for k, (g, e) in enumerate(zip(found[mode], found["eager"], strict=True)):
            close(g, e, str(k))
            if k < 2 or g is found[mode][-1]:
                # A mask is 0 or 1: where it is 0, every later value is another one, so that rounding alone is left to differ.
                assert ((g._data == 0) == (e._data == 0)).all()


def drawn(make):
    return lambda x, h: (tg.tanh(h) + make(x.shape), h + x)


DRAWS = {
    "dropout with a seed at each step": lambda rng: lambda x, h: (nn.functional.dropout(x * 2, 0.5, rng=0), tg.tanh(h)),
    "normal": lambda rng: drawn(lambda shape: tg.randn(shape, rng=rng, dtype=np.float64)),
    "normal float32": lambda rng: drawn(lambda shape: tg.randn(shape, rng=rng).astype(np.float64)),
    "uniform with a seed": lambda rng: drawn(lambda shape: tg.rand(shape, rng=4, dtype=np.float64)),
    "one mask for all steps": lambda rng: lambda x, h, kept=np.array([[1.0, 0.0]]): (x * kept, tg.tanh(h)),
}


@pytest.mark.filterwarnings("ignore::tinygrad_rnn.replay.unrolling.EagerWarning")
@pytest.mark.parametrize("make", DRAWS.values(), ids=DRAWS)
def test_other_random_numbers_are_those_of_the_eager_steps_too(make):
    found = {}
    for mode in ("eager", "auto", "auto "):
        rng = np.random.default_rng(3)
        found[mode] = [*leaves(tg.unroll(make(rng), free(5, 3, 2), free(3, 2), mode=mode.strip())), tg.tensor(rng.random(3))]
    for mode in ("auto", "auto "):
        for g, e in zip(found[mode], found["eager"], strict=True):
            close(g, e)


def by(make):
    """A step that takes something that Python made anew at each step."""
    count = iter(range(1000))
    return lambda x, h: (x * h, tg.tanh(h + make(next(count), x, h)))


def in_place(x, h):
    kept = tg.tensor(np.zeros((3, 2)))
    kept[0] = 1.5
    return x, h * kept


LISTED = [free(3, 2, seed=k) for k in range(9)]

UNREPLAYABLE = {
    "bool": lambda: lambda x, h: (x, h * 2 if (h.sum() > 0) else h * 3),
    "item": lambda: lambda x, h: (x, h * (1 + h.max().item())),
    "float": lambda: lambda x, h: (x, h * float(h[0, 0])),
    "numpy": lambda: lambda x, h: (x, h + x.numpy() ** 2),
    "data": lambda: lambda x, h: (x, h + x.data),
    "tolist": lambda: lambda x, h: (x, h + np.array(x.tolist())),
    "an array": lambda: lambda x, h: (x, h + np.asarray(x.detach())),
    "detach": lambda: lambda x, h: (x, h.detach() + x),
    "no_grad": lambda: lambda x, h: (x, tg.no_grad()(tg.tanh)(h) + x),
    "in place": lambda: in_place,
    "a counter as a number": lambda: by(lambda t, x, h: t * x),
    "a counter in an index": lambda: by(lambda t, x, h: h[:, t % 2 :][:, :1]),
    "a counter that branches": lambda: by(lambda t, x, h: x if t % 2 else -x),
    "an array a step": lambda: by(lambda t, x, h: np.full((3, 2), t / 4)),
    "a tensor a step": lambda: by(lambda t, x, h: tg.full((3, 2), t / 4, dtype=np.float64)),
    "a weight a step": lambda: by(lambda t, x, h: LISTED[t]),
    "a product with a weight a step": lambda: by(lambda t, x, h: tg.matmul(x, LISTED[t][:2])),
    "a computed tensor a step": lambda: by(lambda t, x, h, made=[w * 2 for w in LISTED]: made[t]),
    "numpy's random numbers": lambda rng=None: (lambda r: lambda x, h: (x, h + r.standard_normal((3, 2))))(np.random.default_rng(0)),
    "argmax": lambda: lambda x, h: (x, h + np.eye(2)[h.argmax(axis=1).numpy()]),
    "argmax as an index": lambda: lambda x, h: (x, h[:, h.sum(axis=0).argmax()][:, None] + x),
    "a mask": lambda: lambda x, h: (x, h + x[x > -99].reshape(3, 2)),
    "cumprod": lambda: lambda x, h: (x, tg.cumprod(h, axis=1) + x),
}  # fmt: skip


@pytest.fixture
def fresh():
    """No plans and nothing said, as in a new process."""
    replaying.PLANS.clear()
    unrolling._SAID.clear()


@pytest.mark.parametrize("make", UNREPLAYABLE.values(), ids=UNREPLAYABLE)
def test_a_step_that_cannot_be_replayed_runs_eagerly_and_unroll_says_so_once(make, fresh):
    x, h = free(6, 3, 2), free(3, 2, seed=1)
    expected = leaves(tg.unroll(make(), x, h, mode="eager"))
    gs = gradients(expected, [x, h])
    said = []
    for _ in range(3):
        calls, step = [], make()

        def counted(x, h, step=step, calls=calls):
            calls.append(0)
            return step(x, h)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = leaves(tg.unroll(counted, x, h))
        said.append([str(w.message) for w in caught])
        assert len(calls) == 6 or not said[0]
        for found, wanted in zip([*results, *gradients(results, [x, h])], [*expected, *gs], strict=True):
            close(found, wanted)
        if said[0]:
            with pytest.raises(tg.errors.TapeError) as error:
                tg.unroll(make(), x, h, mode="replay")
            assert str(error.value).removeprefix("unroll: the step cannot be replayed: ") in said[0][0]
    assert said[1:] == [[], []] and len(said[0]) <= 1
    # Sorting is by values and has a gradient all the same: it may be replayed.
    assert said[0] or make is UNREPLAYABLE["sort"]


SAME_PROGRAMS = {
    "tensors": (lambda t, x, h, kept=tg.full((3, 2), 0.5, dtype=np.float64): kept, "a tensor a step"),
    "weights": (lambda t, x, h: LISTED[0], "a weight a step"),
}


@pytest.mark.filterwarnings("ignore::tinygrad_rnn.replay.unrolling.EagerWarning")
@pytest.mark.parametrize("what", SAME_PROGRAMS)
def test_a_step_with_the_program_of_another_that_was_replayed_is_still_found_to_be_unreplayable(what, fresh):
    kept, other = SAME_PROGRAMS[what]
    x, h = free(6, 3, 2), free(3, 2, seed=1)
    tg.unroll(by(kept), x, h, mode="replay")
    for found, wanted in zip(*(leaves(tg.unroll(UNREPLAYABLE[other](), x, h, mode=mode)) for mode in ("auto", "eager")), strict=True):
        close(found, wanted)


def test_an_error_in_the_step_leaves_nothing_broken(fresh):
    step, weights, x, state = lstm()
    for last in range(4):
        left = iter(range(last))

        def failing(x, s, left=left):
            if next(left, None) is None:
                raise KeyError("mine")
            return step(x, s)

        if last < 2:
            with pytest.raises(KeyError, match="mine"):
                tg.unroll(failing, x, state)
    assert all(w.grad is None for w in weights)
    both(step, x, state, lambda: weights)
    with pytest.raises(ZeroDivisionError):
        tg.unroll(lambda x, s: (1 / 0, s), x, state)
    both(step, x, state, lambda: weights)


def test_calls_do_not_disturb_each_other():
    """Two forward passes before the first backward pass, two backward passes over one, and results that stay as they are."""
    step, weights, x, state = lstm()
    other = free(5, 3, 2, seed=70), (free(3, 2, seed=71), free(3, 2, seed=72))
    expected = []
    for given_ in ((x, state), other):
        results = leaves(tg.unroll(step, *given_, mode="eager"))
        expected.append([r.numpy().copy() for r in [*results, *gradients(results, weights)]])
    first, second = (leaves(tg.unroll(step, *given, mode="replay")) for given in ((x, state), other))
    held = []
    for results, k in ((first, 0), (second, 1), (first, 0), (second, 1)):
        held.append((k, [*results, *gradients(results, weights, retain_graph=True)]))
        tg.unroll(step, free(5, 3, 2, seed=k), state, mode="replay")
    for k in range(3):
        leaves(tg.unroll(step, free(5, 3, 2, seed=k), state, mode="replay"))[0].sum().backward()
        with tg.no_grad():
            tg.unroll(step, free(5, 3, 2, seed=k), state, mode="replay")
    for k, tensors in held:
        for t, e in zip(tensors, expected[k], strict=True):
            close(t, e)
    loss = loss_of(first)
    loss.backward(retain_graph=True)
    loss.backward()
    with pytest.raises(tg.errors.TapeError, match="retain_graph"):
        loss.backward()


@pytest.mark.parametrize("step", [lambda x, h: ((x[:, :1], x.T.T, x), h), lambda x, h: ((h, h * 2, h[:, ::-1]), h), lambda x, h: ((x + h, x + h), x + h)])
def test_results_share_no_memory_with_each_other_or_with_what_was_given(step):
    x, h = free(4, 3, 2), free(3, 2, seed=1)
    for recording in (tg.enable_grad(), tg.no_grad()):
        with recording:
            results = leaves(tg.unroll(step, x, h, mode="replay"))
        gs = [g for g in gradients(results, [x, h]) if g is not None]
        arrays = [x._data, h._data, *(r._data for r in results), *(g._data for g in gs)]
        for k, a in enumerate(arrays):
            assert a.flags.writeable
            for b in arrays[:k]:
                assert not np.shares_memory(a, b)


def test_changed_weights_and_other_numbers_of_steps_are_seen_by_the_same_plan(fresh):
    step, weights, _, state = lstm()
    for k, steps in enumerate((5, 3, 9, 4)):
        both(step, free(steps, 3, 2, seed=k), state, lambda: weights)
        with tg.no_grad():
            weights[1].data = numbers(*weights[1].shape, seed=60 + k)
            weights[0].assign_(weights[0] - 0.1)
    assert len(replaying.PLANS) == 1
    step, weights, x, state = lstm(seed=3)
    both(step, x, state, lambda: weights)
    assert len(replaying.PLANS) == 1


LARGE = np.random.default_rng(0).integers(0, 3, 5000)
ALONG = np.random.default_rng(1).integers(0, 3, (4, 3))
"""Indices from outside, more of them than a key should hold."""

LOOKED_UP = {
    "rows by an input": lambda i, h, E: E[i],
    "rows by an input, all columns": lambda i, h, E: E[i, :],
    "rows by a part of an input": lambda i, h, E: tg.stack([E[i[0]], E[i[1]], E[i[2]], E[i[3]]]),
    "rows of a computed table": lambda i, h, E: tg.tanh(E * h.mean())[i],
    "elements of the state": lambda i, h, E: h[np.arange(4), i % 3][:, None] * E[0],
    "many columns": lambda i, h, E: h[:, LARGE].mean(axis=1, keepdims=True) * E[i],
    "rows by values": lambda i, h, E: E[(h.sum(axis=1) > 0).astype(int)],
    "rows by rounded values": lambda i, h, E: E[tg.clip(abs(2 * h[:, 0]).round(), 0, 4).astype(int)],
    "along an axis": lambda i, h, E: tg.take_along_axis(h, ALONG, axis=1) * E[i],
    "along an axis by an input": lambda i, h, E: tg.take_along_axis(h, i[:, None] % 3, axis=1) * E[i],
    "sorted": lambda i, h, E: tg.sort(h, axis=1) + tg.sort(E, axis=0)[:4],
    "the median": lambda i, h, E: (h - tg.median(h, axis=1, keepdims=True)) * E[i],
    "one-hot": lambda i, h, E: tg.one_hot(i, 5, dtype=np.float64) @ E,
    "one-hot of values": lambda i, h, E: tg.one_hot((h.sum(axis=1) > 0).astype(int), 5, dtype=np.float64) @ E,
    "a diagonal": lambda i, h, E: h @ tg.diag(E[0]),
}


@pytest.mark.parametrize("name", LOOKED_UP)
def test_what_a_step_looks_up_is_replayed_at_first_and_second_order(name):
    E, W, h = free(5, 3, seed=1), free(3, 3, seed=2), free(4, 3)
    i = tg.tensor(np.random.default_rng(3).integers(0, 5, (7, 4)))

    def step(i, h):
        h = tg.tanh(0.5 * h @ W + LOOKED_UP[name](i, h, E))
        return h, h

    found = []
    for mode in "replay", "eager":
        ys, last = tg.unroll(step, i, h, mode=mode)
        once = tg.grad((ys * ys).sum() + last.sum(), [E, W, h], create_graph=True)
        found.append([ys, last, *once, *tg.grad(sum((g * g).sum() for g in once), [E, W, h])])
    for k, (a, b) in enumerate(zip(*found, strict=True)):
        close(a, b, str(k))


def test_an_index_beyond_the_end_at_a_later_step_is_named():
    E, i = free(5, 3), np.zeros((6, 4), int)
    i[4, 2] = 7
    for step in (lambda i, h: (None, h + E[i]), lambda i, h: (None, h * h[np.arange(4), i][:, None])):
        with pytest.raises(tg.errors.OutOfRangeError, match="index 7 is out of bounds"):
            tg.unroll(step, i, free(4, 3), mode="replay")


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("which", range(6))
def test_what_was_changed_in_place_is_refused(which, create_graph):
    step, (W, U, _), x, state = lstm()
    for t in (x, *state):
        t.requires_grad_(False)
    results = leaves(tg.unroll(step, x, state, mode="replay"))
    loss = loss_of(results)
    target = [W, U, x, *state, results[0].detach()][which]
    with tg.no_grad():
        target[..., 0] = 5.0
    with pytest.raises(tg.errors.TapeError, match="in place"):
        tg.grad(loss, U, create_graph=create_graph)


def test_an_index_from_outside_that_was_changed_in_place_is_refused(fresh):
    rows, table = tg.tensor(np.array([0, 2, 1])), free(3, 2)
    for mode in ("eager", "auto"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", unrolling.EagerWarning)
            outputs, _ = tg.unroll(lambda x, h: (tg.embedding(rows, table) * x, h), free(4, 3, 2), free(3, 2), mode=mode)
        expected = tg.grad(outputs.sum(), table, retain_graph=True).numpy().copy()
        rows.assign_([1, 1, 1])
        try:
            close(tg.grad(outputs.sum(), table), expected)
        except tg.errors.TapeError as error:
            assert "in place" in str(error)
        rows.assign_([0, 2, 1])


def test_buffers_are_given_back_and_taken_again(fresh):
    step, _, x, state = lstm()
    pool = workspace.POOL
    while pool._free:
        for space in pool._free.popitem()[1]:
            pool._bytes, pool._held = pool._bytes - space.counted, pool._held - 1

    def held():
        return pool._held, pool._bytes

    def forward():
        return tg.unroll(step, x, state, mode="replay")

    gc.disable()
    try:
        forward()[0].sum().backward()
        after = held()
        assert after[1] == sum(space.counted for spaces in pool._free.values() for space in spaces) > 0
        for _ in range(3):
            results = forward()
            assert held() < after
            del results
            assert held() == after
            forward()[0].sum().backward()
            assert held() == after
        one, two = forward(), forward()
        one[0].sum().backward()
        two[0].sum().backward()
        assert held() > after
    finally:
        gc.enable()


def test_plans_are_bounded_and_keep_no_weight_alive(fresh):
    for k in range(replaying.LIMIT + 5):
        tg.unroll(lambda x, h, k=k: (x, h * (k + 0.5)), free(3, 2, 2), free(2, 2), mode="replay")
    assert len(replaying.PLANS) == replaying.LIMIT
    step, weights, x, state = lstm()
    computed = tg.tanh(weights[0] * 2)
    tg.unroll(lambda x, h, U=computed: (x @ U[:, :2], tg.tanh(h)), x, state[0], mode="replay")[0].sum().backward()
    alive = [weakref.ref(a._data) for a in (*weights, computed, x)] + [weakref.ref(computed._node)]
    tg.unroll(step, x, state, mode="replay")[0].sum().backward()
    del step, weights, x, state, computed
    gc.collect()
    assert [a() is None for a in alive] == [True] * len(alive)


def test_two_threads_at_once(fresh):
    step, weights, _, state = lstm()
    inputs = [free(5, 3, 2, seed=k) for k in range(8)]

    def values(k, mode):
        results = leaves(tg.unroll(step, inputs[k], state, mode=mode))
        return [*results, *gradients(results, [*weights, inputs[k]])]

    expected = [values(k, "eager") for k in range(8)]
    wrong, start = [], threading.Barrier(4)

    def work(offset):
        try:
            start.wait()
            for n in range(30):
                k = (n + offset) % 8
                for found, e in zip(values(k, "replay"), expected[k], strict=True):
                    close(found, e)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]


def test_a_weight_used_inside_and_outside_gets_both_gradients():
    step, (W, U, b), x, state = lstm()
    found = {}
    for mode in ("eager", "replay"):
        outputs, (h, _) = tg.unroll(step, tg.tanh(x @ W[:, :2]), state, mode=mode)
        loss = (outputs @ W).sum() + (h @ U[:, :2] * U[0, 0]).sum() + (b * b).sum()
        for t in (W, U, b):
            t.zero_grad()
        loss.backward()
        loss = loss_of(leaves(tg.unroll(step, outputs.detach(), state, mode=mode)))
        loss.backward()
        found[mode] = [t.grad for t in (W, U, b)]
    for g, e in zip(found["replay"], found["eager"], strict=True):
        close(g, e)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM", "own"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_networks_give_the_same_in_both_modes_and_leave_frozen_weights_alone(kind, options):
    class Own(nn.Module):
        """A cell with no bind(), a layer in it, and a layer in that; one weight is used twice."""

        def __init__(self, input_size):
            self.hidden_size = 3
            self.inner = nn.Sequential(nn.Linear(input_size + 3, 3, rng=0, dtype=np.float64), nn.LayerNorm(3, dtype=np.float64))
            self.weight = nn.Parameter(numbers(3, 3))

        def forward(self, x, h):
            h = tg.tanh(self.inner(tg.concatenate([x, h], axis=-1)) + h @ self.weight)
            return h @ self.weight.T, h

    network = nn.Recurrent(Own, 2, **options) if kind == "own" else getattr(nn, kind)(2, 3, dtype=np.float64, rng=0, **options)
    parameters = list(network.parameters())
    parameters[1].requires_grad_(False)
    x, found = free(5, 4, 2), {}
    for mode in ("eager", "replay"):
        network.mode = mode
        for lengths in (None, [2, 5, 1, 4]):
            network.zero_grad()
            x.zero_grad()
            results = leaves(network(x, lengths=lengths))
            loss_of(results).backward()
            assert parameters[1].grad is None
            found[mode, lengths is None] = [*results, x.grad, *(p.grad for p in parameters)]
    for k in (True, False):
        for g, e in zip(found["replay", k], found["eager", k], strict=True):
            close(g, e)


def test_a_number_of_steps_stands_for_inputs_that_are_none():
    W = free(2, 2)
    seen = []

    def step(x, h):
        seen.append(x)
        h = tg.tanh(h @ W)
        return (h, None), h

    for lengths in (None, [3, 1, 4]):
        (outputs, nothing), h = tg.unroll(step, np.int64(4), free(3, 2), mode="replay", lengths=lengths)
        assert outputs.shape == (4, 3, 2) and nothing is None and h.shape == (3, 2) and set(seen) == {None}
        both(step, 4, free(3, 2), lambda: [W], lengths=lengths)


def test_padding_is_never_looked_at():
    lengths = np.array([2, 4, 1])
    W, h = free(2, 2), free(3, 2)
    step = lambda x, h: ((tg.log(x * x) + h, x), tg.tanh(x @ W + h))
    padded = numbers(4, 3, 2)
    padded[np.arange(4)[:, None] >= lengths] = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        for reverse in (False, True):
            x = tg.tensor(padded, requires_grad=True)
            results = leaves(tg.unroll(step, x, h, lengths=lengths, reverse=reverse, mode="replay"))
            (y, same, last) = results
            for g in gradients([same, last], [x, W, h]):
                assert np.isfinite(g._data).all()
            beyond = np.arange(4)[:, None] >= lengths
            assert not y._data[beyond].any() and not same._data[beyond].any()
            for k, n in enumerate(lengths):
                one = tg.unroll(step, tg.tensor(padded[:n, k : k + 1]), h[k : k + 1], reverse=reverse, mode="eager")
                close(y[:n, k], one[0][0][:, 0])
                close(last[k], one[1][0])


def test_hooks_see_the_whole_gradient_once_and_may_change_it():
    step, (W, *_), x, state = lstm()
    for mode in ("eager", "replay"):
        seen = []
        remove = W.register_hook(lambda g, seen=seen: seen.append(g.numpy().copy()) or g * 2)
        results = leaves(tg.unroll(step, x, state, mode=mode))
        results[0].register_hook(lambda g: g * 0.5)
        results[0].retain_grad()
        W.zero_grad()
        loss_of(results).backward()
        remove()
        if mode == "eager":
            expected = seen, W.grad, results[0].grad
        else:
            assert len(seen) == 1 == len(expected[0])
            close(tg.tensor(seen[0]), tg.tensor(expected[0][0]))
            close(W.grad, expected[1])
            close(results[0].grad, expected[2])


def test_anomalies_are_looked_for_step_by_step():
    step, (W, U, b), x, state = lstm()
    x.data = np.where(np.arange(5)[:, None, None] == 3, 0.0, x.numpy())
    with np.errstate(divide="ignore", invalid="ignore"), tg.detect_anomaly():
        both_modes = [leaves(tg.unroll(step, x, state, mode=mode)) for mode in ("eager", "auto")]
        for g, e in zip(*(gradients(results, [W, U, b, x]) for results in both_modes), strict=True):
            close(g, e)
        with pytest.raises(tg.errors.GradientError, match=r"forward of log.*step\[3\]"):
            tg.unroll(lambda x, h: (tg.log(tg.absolute(x)), h), x, state)
        with pytest.raises(tg.errors.TapeError, match=r"replayed: \w"):
            tg.unroll(step, x, state, mode="replay")
    replayed = leaves(tg.unroll(step, x, state, mode="replay"))
    with tg.detect_anomaly():
        for g, e in zip(gradients(replayed, [W, U, b, x]), gradients(leaves(tg.unroll(step, x, state, mode="eager")), [W, U, b, x]), strict=True):
            close(g, e)


def test_the_tape_lists_a_replayed_unroll_as_one_record_and_names_its_bytes():
    step, _, x, state = lstm()
    outputs, _ = tg.unroll(step, x, state, mode="replay")
    loss = outputs.sum()
    tape = tg.tape(loss)
    assert [record.op.name for record in tape][-3:] == ["unroll", "unrolled", "sum"] and "unroll" in str(tape)
    assert tape.nbytes > x._data.nbytes
    loss.backward()
    assert "released" in str(tape)
    with pytest.raises(tg.errors.TapeError, match=r"unroll.*retain_graph"):
        outputs.backward(np.ones(outputs.shape))


def test_eager_steps_run_in_a_scope_of_the_given_name():
    outputs, _ = tg.unroll(lambda x, h: (x * h, h), free(3, 2, 2), free(2, 2), mode="eager", reverse=True, name="cell")
    assert [record.scope for record in tg.tape(outputs) if record.op.name == "multiply"] == [(("cell", t),) for t in (2, 1, 0)]


def good(x, h):
    return x, h


x3, h3 = tg.zeros(4, 2, 3), tg.zeros(2, 3)

BAD = [
    (good, tg.zeros(0, 2, 3), h3, {}, tg.errors.ShapeError, "one time step or more"),
    (good, 0, h3, {}, tg.errors.ShapeError, "one time step or more, got 0"),
    (good, -1, h3, {}, tg.errors.ShapeError, "one time step or more, got -1"),
    (good, True, h3, {}, tg.errors.ShapeError, "time steps in front"),
    (good, None, h3, {}, tg.errors.ShapeError, "time steps in front"),
    (good, tg.zeros(()), h3, {}, tg.errors.ShapeError, "time steps in front"),
    (good, (x3, tg.zeros(5, 2)), h3, {}, tg.errors.ShapeError, r"same number of time steps.*\(4, 2, 3\).*\(5, 2\)"),
    (good, "abc", h3, {}, tg.errors.DtypeError, "inputs: expected a tensor.*str"),
    (good, x3, "abc", {}, tg.errors.DtypeError, "state: expected a tensor.*str"),
    (good, x3, h3, {"mode": "fast"}, tg.errors.ShapeError, "mode must be one of auto, eager, replay, got 'fast'"),
    (good, x3, h3, {"lengths": [1]}, tg.errors.ShapeError, r"lengths has shape \(1,\).*batch=2"),
    (good, x3, h3, {"lengths": 3}, tg.errors.ShapeError, r"lengths has shape \(\).*batch=2"),
    (good, x3, h3, {"lengths": [1.0, 2.0]}, tg.errors.DtypeError, "lengths must be integers, got float64"),
    (good, x3, h3, {"lengths": [1, 0]}, tg.errors.OutOfRangeError, r"lengths\[1\] = 0 is below 1"),
    (good, x3, h3, {"lengths": [5, 1]}, tg.errors.OutOfRangeError, r"lengths\[0\] = 5 is above the padded length time=4"),
    (lambda x, h: h, x3, h3, {}, tg.errors.ShapeError, r"must return \(y, state\), got float32 \(2, 3\)"),
    (lambda x, h: (x, h, h), x3, h3, {}, tg.errors.ShapeError, r"must return \(y, state\)"),
    (lambda x, h: (x, (h, h)), x3, h3, {}, tg.errors.ShapeError, r"returned the state \(float32 \(2, 3\), float32 \(2, 3\)\), expected.* float32 \(2, 3\)"),
    (lambda x, h: (x, None), x3, h3, {}, tg.errors.ShapeError, "returned the state None, expected"),
    (lambda x, h: (x, h[:1]), x3, h3, {}, tg.errors.ShapeError, r"returned the state float32 \(1, 3\), expected.*\(2, 3\)"),
    (lambda x, h: (x, h.astype(np.float64)), x3, h3, {}, tg.errors.ShapeError, "returned the state float64.*expected.*float32"),
    (lambda x, h: ("y", h), x3, h3, {}, tg.errors.DtypeError, "the step's output: expected a tensor.*str"),
    (lambda x, h: (x @ h, h), x3, h3, {}, tg.errors.ShapeError, "matmul"),
    (lambda x, h: (x.sum(), h), x3, h3, {"lengths": [4, 1]}, tg.errors.ShapeError, "batch"),
    (good, x3, (h3, tg.zeros(())), {"lengths": [4, 1]}, tg.errors.ShapeError, "batch"),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["auto", "eager", "replay"])
@pytest.mark.parametrize(("step", "inputs", "state", "options", "error", "message"), BAD)
def test_bad_input(step, inputs, state, options, error, message, mode):
    with pytest.raises(error, match=message) as raised:
        tg.unroll(step, inputs, state, **{"mode": mode, **options})
    assert raised.value.args[0].startswith(("unroll: ", "matmul"))


def test_a_step_that_changes_its_mind_about_shapes_is_an_error():
    for later in (lambda x, h: (x, h[:1]), lambda x, h: ((x, x), h), lambda x, h: (None, h), lambda x, h: (x[:, :1], h)):
        for last in (1, 3):
            for mode in ("eager", "auto") if last == 1 else ("eager",):
                counter = iter(range(9))
                with pytest.raises(tg.errors.ShapeError), warnings.catch_warnings():
                    warnings.simplefilter("ignore", unrolling.EagerWarning)
                    tg.unroll(lambda x, h, later=later, counter=counter, last=last: later(x, h) if next(counter) == last else (x, h), free(5, 2, 3), free(2, 3), mode=mode)


def test_zero_and_minus_zero_are_two_constants(fresh):
    for zero in (0.0, -0.0):
        outputs, _ = tg.unroll(lambda x, h, zero=zero: (x * zero, h), tg.ones(3, 2, 2), h3, mode="replay")
        assert np.signbit(outputs.numpy()).all() == np.signbit(zero)


def test_a_weight_and_its_detached_self_are_two():
    W = free(3, 3)
    fixed = W.detach()
    both(lambda x, h: (None, h @ W + x @ fixed), free(4, 2, 3), free(2, 3, seed=1), lambda: [W])
    both(lambda x, h: (None, x @ fixed + h @ W), free(4, 2, 3), free(2, 3, seed=1), lambda: [W])


@pytest.mark.parametrize(
    "step",
    [
        lambda x, h: (h.sum(), tg.tanh(h + x)),
        lambda x, h: (None, h / tg.sum(h * h) + x),
        lambda x, h: (None, tg.tanh(2.0**h * x)),
        lambda x, h: (None, h * tg.cumsum(x)[-1]),
        lambda x, h, W=free(3, 3): (None, tg.tanh(x + h * tg.einsum("ii->i", W))),
        lambda x, h, W=free(3, 3): (None, tg.tanh(x + h @ W[:, [1, 0, 2]])),
    ],
)
def test_steps_that_are_seldom_seen(step):
    weights = [d for d in step.__defaults__ or () if d.requires_grad]
    x, h = free(5, 2, 3), free(2, 3, seed=1)
    results = []
    for mode in ("eager", "auto"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y, last = tg.unroll(step, x, h, mode=mode)
        total = (last * last).sum() + (0.0 if y is None else (y * y).sum())
        results.append([total, *tg.grad(total, [x, h, *weights])])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-10)


def test_integers_do_not_widen_float32():
    x, ids = tg.ones(4, 2, 3), tg.tensor(np.arange(24).reshape(4, 2, 3))
    for mode in ("eager", "replay"):
        y, h = tg.unroll(lambda a, h: (a[0] * a[1], h + a[0] / (a[1] + 1)), (x, ids), tg.zeros(2, 3), mode=mode)
        assert y.dtype == h.dtype == np.float32
