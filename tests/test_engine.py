"""The tape, the sweep and what users do with them."""

import copy
import gc
import importlib
import pickle
import threading
import tracemalloc

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.core import tape as tape_module


def leaf(*shape, seed=0, dtype=np.float64, name=None):
    return tg.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True, name=name)


def test_shared_weight_accumulates_over_every_way_to_reach_it():
    W = leaf(3, 3)
    x = tg.tensor(np.random.default_rng(1).standard_normal((2, 3)))
    h = x
    for _ in range(5):
        h = tg.tanh(h @ W + h @ W.T + h @ W[:, ::-1] + (W * W).sum())
    h.sum().backward()
    copies = [leaf(3, 3) for _ in range(5)]
    h = x
    for V in copies:
        h = tg.tanh(h @ V + h @ V.T + h @ V[:, ::-1] + (V * V).sum())
    h.sum().backward()
    np.testing.assert_allclose(W.grad.numpy(), sum(V.grad.numpy() for V in copies), rtol=1e-12)


def test_grad_accumulates_over_backward_calls_and_is_no_alias():
    a, b = leaf(3), leaf(3, seed=1)
    (a + b).sum().backward()
    a.grad.assign_(5.0)
    assert (b.grad.numpy() == 1).all()
    (a + b).sum().backward()
    assert (a.grad.numpy() == 6).all()
    a.zero_grad()
    assert a.grad is None


def test_second_backward_says_what_to_do_and_retain_graph_allows_it():
    w = leaf(3)
    y = (w * w).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(w.grad.numpy(), 4 * w.numpy())
    with pytest.raises(tg.errors.TapeError, match="retain_graph=True"):
        y.backward()
    assert len(tg.tape(y)) == 2


@pytest.mark.parametrize("change", ["assign", "add", "item", "data"])
def test_change_of_a_kept_value_is_found(change):
    w, x = leaf(3, name="w"), tg.tensor(np.ones(3))
    y = (w * x).sum()
    if change == "assign":
        x.assign_(2.0)
    elif change == "add":
        x += 1
    elif change == "item":
        x[0] = 3
    else:
        x.data = np.zeros(3)
    with pytest.raises(tg.errors.TapeError, match=r"multiply.*operand y.*changed in place"):
        y.backward()
    assert w.grad is None


def test_change_of_a_view_is_found_and_a_change_before_is_not():
    base = tg.tensor(np.ones((2, 3)))
    w = leaf(3)
    base += 1
    y = (w * base[0]).sum()
    y.backward(retain_graph=True)
    base.assign_(0.0)
    with pytest.raises(tg.errors.TapeError):
        y.backward()


def test_in_place_on_a_leaf_and_on_computed_tensors():
    w = leaf(2)
    with pytest.raises(tg.errors.GradientError, match="no_grad"):
        w += 1
    before = w.numpy().copy()
    same = w
    with tg.no_grad():
        w -= 0.5
    assert w is same and w.requires_grad
    np.testing.assert_array_equal(w.numpy(), before - 0.5)
    loss = 0
    for k in range(3):
        loss += (w * k).sum()
    loss.backward()
    np.testing.assert_array_equal(w.grad.numpy(), [3.0, 3.0])
    with pytest.raises(tg.errors.GradientError, match="where"):
        (w * 2)[0] = 1


def test_an_array_that_the_caller_reuses_does_not_change_the_gradient():
    w, buffer = leaf(3), np.ones(3)
    y = (w * buffer).sum()
    buffer[:] = 7
    y.backward()
    np.testing.assert_array_equal(w.grad.numpy(), np.ones(3))


def test_the_tape_is_freed_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        w = leaf(4, 4)
        y = w
        for _ in range(50):
            y = tg.tanh(y @ w)
        y.sum().backward()
        del y
        assert not [o for o in gc.get_objects() if type(o) is tape_module.Record]
    finally:
        gc.enable()


def test_a_long_chain():
    w = tg.tensor([1.0], requires_grad=True)
    y = w
    for _ in range(200_000):
        y = y + 1.0
    y.backward()
    assert w.grad.item() == 1
    del y


def test_backward_frees_as_it_goes():
    n, T = 16_384, 60
    w = tg.ones(n, requires_grad=True)
    y = w
    for _ in range(T):
        y = tg.tanh(y)
    loss = y.sum()
    del y
    tracemalloc.start()
    loss.backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * n * 4


def test_slices_of_a_sequence_cost_no_full_gradient_each():
    x = tg.zeros((300, 1000), requires_grad=True)
    total = sum((x[t] * t).sum() for t in range(300))
    total.backward()
    np.testing.assert_array_equal(x.grad.numpy()[:, 0], np.arange(300))


def test_interrupt_leaves_gradients_as_they_were():
    w, v = leaf(2), leaf(2, seed=1)
    (w * v).sum().backward()
    before = w.grad.numpy().copy(), v.grad.numpy().copy()
    y = tg.exp(w) * v
    y.register_hook(lambda g: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        y.sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), before[0])
    np.testing.assert_array_equal(v.grad.numpy(), before[1])


def test_hooks_and_retained_gradients():
    w = leaf(3)
    h = w * 2
    h.retain_grad()
    seen = []
    remove = h.register_hook(lambda g: seen.append(g.numpy().copy()))
    w.register_hook(lambda g: g * 10)
    (h * h).sum().backward()
    np.testing.assert_allclose(h.grad.numpy(), 4 * w.numpy())
    np.testing.assert_allclose(seen[0], 4 * w.numpy())
    np.testing.assert_allclose(w.grad.numpy(), 80 * w.numpy())
    remove()
    (w * 2).sum().backward()
    assert len(seen) == 1


def test_no_grad_as_block_decorator_and_in_generators():
    w = leaf(2)

    @tg.no_grad()
    def plain():
        return w * 2

    @tg.no_grad()
    def stream():
        for _ in range(3):
            yield w * 2

    def inner():
        with tg.no_grad():
            yield w * 2
            yield w * 2

    assert not plain().requires_grad and (w * 2).requires_grad
    for y in stream():
        assert not y.requires_grad and (w * 2).requires_grad
    for y in inner():
        assert not y.requires_grad and (w * 2).requires_grad
    assert (w * 2).requires_grad
    with tg.no_grad(), tg.enable_grad():
        assert (w * 2).requires_grad


def test_threads_do_not_mix():
    results = {}

    def work(k):
        w = leaf(4, 4, seed=k)
        with tg.scope(f"thread{k}"):
            y = w
            for _ in range(100):
                y = tg.tanh(y @ w)
        y.sum().backward()
        results[k] = (w.grad.numpy(), {r.scope for r in tg.tape(y)})

    def quiet():
        with tg.no_grad():
            for _ in range(500):
                assert not (leaf(2) * 2).requires_grad

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)] + [threading.Thread(target=quiet)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(3):
        w = leaf(4, 4, seed=k)
        y = w
        for _ in range(100):
            y = tg.tanh(y @ w)
        y.sum().backward()
        np.testing.assert_array_equal(results[k][0], w.grad.numpy())
        assert results[k][1] == {((f"thread{k}", None),)}


@pytest.mark.parametrize("modules", [["core.tensor"], ["core.state"], ["core.tape"], ["core.state", "core.tape", "core.tensor"]])
def test_survives_the_reload_of_a_module(modules):
    loaded = [importlib.import_module(f"tinygrad_rnn.{name}") for name in modules]
    saved = [dict(vars(module)) for module in loaded]
    w = leaf(3)
    y = tg.tanh(w * 2)
    try:
        for module in loaded:
            importlib.reload(module)
        z = (y * w).sum()
        z.backward()
        expected = np.tanh(2 * w.numpy()) + 2 * w.numpy() * (1 - np.tanh(2 * w.numpy()) ** 2)
        np.testing.assert_allclose(w.grad.numpy(), expected)
    finally:
        for module, names in zip(loaded, saved, strict=True):
            vars(module).update(names)


def test_leaves_are_pickled_and_copied_and_others_say_why_not():
    w = leaf(2, 3, name="W")
    w.sum().backward()
    for twin in (pickle.loads(pickle.dumps(w)), copy.deepcopy(w), copy.copy(w)):
        assert twin.requires_grad and twin.name == "W" and twin is not w
        np.testing.assert_array_equal(twin.numpy(), w.numpy())
        np.testing.assert_array_equal(twin.grad.numpy(), w.grad.numpy())
    for use in (pickle.dumps, copy.deepcopy):
        with pytest.raises(tg.errors.TapeError, match="detach"):
            use(w * 2)


def test_anomaly_names_the_op_the_scope_and_the_line():
    x = leaf(2)
    with np.errstate(all="ignore"), tg.detect_anomaly(), tg.scope("cell", step=3), pytest.raises(tg.errors.GradientError, match=r"log in scope cell\[3\].*test_engine.py:\d+"):
        tg.log(x * 0)
    with np.errstate(all="ignore"), tg.detect_anomaly():
        y = tg.sqrt(x * 0).sum()
        with pytest.raises(tg.errors.GradientError, match=r"backward of sqrt.*test_engine.py:\d+"):
            y.backward()
    assert x.grad is None


def test_where_around_a_singularity_to_second_order():
    x = tg.tensor(np.array([-1.0, 0.0, 2.0]), requires_grad=True)
    with np.errstate(all="ignore"):
        for f in (tg.log, tg.sqrt, lambda x: x**0.5, lambda x: 1 / x, lambda x: x**-1.5):
            y = tg.where(x > 0, f(x), 0.0).sum()
            g = tg.grad(y, x, create_graph=True)
            assert (g.numpy()[:2] == 0).all() and np.isfinite(g.numpy()).all()
            h = tg.grad(g.sum(), x)
            assert (h.numpy()[:2] == 0).all() and np.isfinite(h.numpy()).all()


def test_conventions():
    def gradient(f, *values):
        xs = [tg.tensor(np.array(v, float), requires_grad=True) for v in values]
        return [g.numpy().tolist() for g in tg.grad(f(*xs).sum(), xs)]

    assert gradient(tg.max, [1, 2, 2]) == [[0, 0.5, 0.5]]
    assert gradient(tg.maximum, [1, 2], [1, 0]) == [[0.5, 1], [0.5, 0]]
    assert gradient(lambda x: tg.clip(x, 0, 1), [0, 1, 2]) == [[1, 1, 0]]
    assert gradient(tg.relu, [0, 1]) == [[0, 1]]
    assert gradient(abs, [0, -1]) == [[0, -1]]
    assert gradient(tg.norm, [0, 0]) == [[0, 0]]
    assert gradient(tg.std, [2, 2]) == [[0, 0]]
    assert gradient(tg.power, [0, 2], [0, 1]) == [[0, 1], [0, 2 * np.log(2)]]
    assert not tg.sign(tg.ones(2, requires_grad=True)).requires_grad


def test_large_inputs_do_not_overflow():
    x = tg.tensor(np.array([-1000.0, -50.0, 0.0, 50.0, 1000.0]), requires_grad=True)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for f in (tg.sigmoid, tg.softplus, tg.softmax, tg.log_softmax, tg.logsumexp, tg.tanh, tg.silu, tg.gelu, tg.elu):
            assert np.isfinite(tg.grad(f(x).sum(), x).numpy()).all()
    assert tg.sigmoid(x).numpy()[0] == 0 and tg.sigmoid(x).numpy()[1] == pytest.approx(np.exp(-50.0), rel=1e-12)


def test_transforms_agree_with_closed_forms():
    A = np.random.default_rng(0).standard_normal((3, 3))
    x, v = np.array([0.3, -0.2, 0.9]), np.array([1.0, 2.0, -1.0])
    f = lambda x: (tg.sin(x) * (tg.matmul(A, x))).sum()
    H = tg.hessian(f, tg.tensor(x)).numpy()
    np.testing.assert_allclose(H, H.T, atol=1e-12)
    np.testing.assert_allclose(tg.hvp(f, tg.tensor(x), v).numpy(), H @ v, atol=1e-12)
    np.testing.assert_allclose(tg.jacobian(lambda x: tg.matmul(A, x), tg.tensor(x)).numpy(), A)
    np.testing.assert_allclose(tg.jvp(lambda x: tg.matmul(A, tg.sin(x)), (x,), (v,))[1].numpy(), A @ (np.cos(x) * v))
    third = tg.grad(tg.grad(tg.grad((t := tg.tensor(2.0, requires_grad=True)) ** 4, t, create_graph=True), t, create_graph=True), t)
    assert third.item() == 48
    w = tg.tensor(np.array(2.0), requires_grad=True)
    tg.jvp(lambda x: w * x**2, (x,), (v,))[1].sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), (2 * x * v).sum())
    np.testing.assert_allclose(tg.hvp(lambda a: tg.hvp(lambda b: (b**4).sum(), a, v).sum(), tg.tensor(x), v).numpy(), 24 * v * v * 1.0)


def test_checkpoint_gives_the_same_gradients_and_reaches_closures():
    W, b = leaf(4, 4), leaf(4, seed=2)
    scaled = W * 0.5
    x = leaf(2, 4, seed=3)

    def segment(h):
        for _ in range(4):
            h = tg.tanh(h @ scaled + b) + 0.1 * tg.randn(2, 4, rng=noise, dtype=np.float64)
        return h, h * 2

    results = []
    for run in (lambda h: segment(h), lambda h: tg.checkpoint(segment, h)):
        noise = np.random.default_rng(5)
        h = x
        for _ in range(3):
            h, other = run(h)
        loss = (h * other).sum()
        results.append([loss.item(), *[g.numpy() for g in tg.grad(loss, [W, b, x], retain_graph=True)]])
    for a, c in zip(*results, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-12)
    state = [0.0]

    def changing(h):
        state[0] += 1
        return h * state[0]

    with pytest.raises(tg.errors.GradientError, match="other values"):
        tg.checkpoint(changing, x).sum().backward()


def test_custom_operations_are_checked():
    with pytest.raises(TypeError, match="'out'"):
        tg.primitive(lambda out: out)

    @tg.primitive
    def double(x, factor=2.0):
        return x * factor

    with pytest.raises(tg.errors.NotDifferentiableError, match="argument x"):
        double(leaf(2))
    with pytest.raises(TypeError, match="got 3"):
        tg.defvjp(double, None, None, None)

    def wrong_name(g, y):
        return g

    with pytest.raises(TypeError, match="'y'"):
        tg.defvjp(double, wrong_name)
    for bad, message in [(lambda g: g[:1], "shape"), (lambda g: "text", "str"), (lambda g: g > 0, "bool")]:
        double.primitive.declare("x", bad)
        with pytest.raises((tg.errors.GradientError, tg.errors.DtypeError), match=message):
            double(leaf(2)).sum().backward()
    double.primitive.declare("x", lambda g, factor: g * factor)
    x = leaf(2)
    double(x, factor=3.0).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3, 3])


def test_parameters_of_any_name():
    @tg.primitive
    def blend(state, record, dtype=2.0, values=None):
        return state * record * dtype

    tg.defvjp(blend, lambda g, record, dtype: g * record * dtype, lambda g, state, dtype: g * state * dtype)
    a, b = leaf(2), leaf(2, seed=1)
    y = blend(a, b)
    np.testing.assert_allclose(tg.grad(y, a, np.ones(2), retain_graph=True).numpy(), 2 * b.numpy())
    assert tg.tape(y)[0].arguments == {"dtype": 2.0, "values": None}


def test_custom_vjp_says_that_it_is_first_order():
    @tg.custom_vjp
    def f(x):
        return np.sort(x) ** 2

    f.defvjp(lambda x: (np.partition(x, 0) ** 2, x), lambda x, g: (2 * np.asarray(x) * g,))
    x = leaf(1)
    np.testing.assert_allclose(tg.grad(f(x), x).numpy(), 2 * x.numpy())
    with pytest.raises(tg.errors.NotDifferentiableError, match="first-order"):
        tg.grad(f(x), x, create_graph=True)


def test_numpy_protocols():
    t, a = leaf(2, 3), np.ones((2, 3))
    for y in (
        a + t,
        a * t,
        np.add(a, t),
        np.float64(2) * t,
        np.concatenate([a, t]),
        np.where(a > 0, t, a),
        np.einsum("ij->ji", t),
        np.linalg.norm(t),
        np.add.reduce(t),
        np.multiply.outer(t, a),
        np.sum(t, axis=0, where=a > 0),
        np.max(t, initial=0.0),
    ):
        assert y.requires_grad
    assert np.shape(t) == (2, 3) and np.argmax(t).item() == np.argmax(t.numpy()) and np.allclose(t, t)
    assert not (t > 0).requires_grad
    for call in (lambda: np.linalg.svd(t), lambda: np.fft.fft(t), lambda: np.interp(0.5, t[0], t[1]), lambda: np.bitwise_count(t), lambda: np.spacing(t)):
        with pytest.raises(tg.errors.NotDifferentiableError, match=r"np\."):
            call()
    with pytest.raises(tg.errors.NotDifferentiableError, match="out="):
        a += t
    with pytest.raises(tg.errors.TapeError, match=r"\.detach"):
        np.asarray(t)
    np.testing.assert_array_equal(np.asarray(t.detach()), t.numpy())
    wide = tg.grad((x := tg.ones(2, requires_grad=True)).astype(np.float64).sum(), x)
    assert wide.dtype == np.float32 and x.astype(np.float64).dtype == np.float64
    assert (np.float32(2) * tg.ones(2)).dtype == np.float32
    assert (tg.ones(2) * np.arange(2)).dtype == np.float32 and (tg.ones(2) * np.float64(2)).dtype == np.float32


BAD = {
    "matmul": (lambda: tg.ones((2, 3)) @ tg.ones((4, 5)), ValueError, "matmul.*(2, 3).*(4, 5)"),
    "broadcast": (lambda: tg.ones(3) + tg.ones(4), ValueError, "add"),
    "non-scalar": (lambda: leaf(3).backward(), RuntimeError, r"\(3,\)"),
    "integer grad": (lambda: tg.tensor([1, 2], requires_grad=True), TypeError, "int64"),
    "bool grad": (lambda: tg.tensor([True], requires_grad=True), TypeError, "bool"),
    "string": (lambda: tg.tensor("abc"), TypeError, "U"),
    "complex": (lambda: tg.tensor([1j]), TypeError, "complex"),
    "ragged": (lambda: tg.tensor([[1.0], [1.0, 2.0]]), ValueError, "shape"),
    "no graph": (lambda: tg.ones(()).backward(), RuntimeError, "no graph"),
    "cotangent shape": (lambda: (leaf(3) * 2).backward(np.ones(2)), RuntimeError, r"\(2,\).*\(3,\)"),
    "cotangent dtype": (lambda: (leaf(3) * 2).backward(np.ones(3, np.float32)), TypeError, "float32.*float64"),
    "unused": (lambda: tg.grad(leaf(3).sum(), leaf(3)), RuntimeError, "allow_unused"),
    "item": (lambda: tg.ones(2).item(), ValueError, r"\(2,\)"),
    "bool": (lambda: bool(tg.ones(2)), ValueError, "any"),
    "axis": (lambda: tg.sum(tg.ones(2), axis=1), ValueError, "sum.*axis"),
    "axis index": (lambda: tg.sum(tg.ones(2), axis=1), IndexError, "axis"),
    "repeated axis": (lambda: tg.sum(tg.ones((2, 2)), axis=(0, 0)), ValueError, "sum.*axis"),
    "reshape": (lambda: tg.ones(6).reshape(4), ValueError, "reshape"),
    "reshape twice": (lambda: tg.ones(6).reshape(-1, -1), ValueError, "reshape"),
    "index": (lambda: tg.ones(3)[3], IndexError, "getitem"),
    "float index": (lambda: tg.ones(3)[np.array([0.5])], IndexError, "getitem"),
    "take": (lambda: tg.take(tg.ones(3), [3]), IndexError, "take"),
    "embedding": (lambda: tg.embedding([4], tg.ones((4, 2))), IndexError, "embedding.*4"),
    "negative embedding": (lambda: tg.embedding([-1], tg.ones((4, 2))), IndexError, "embedding.*-1"),
    "float embedding": (lambda: tg.embedding([0.5], tg.ones((4, 2))), TypeError, "integers"),
    "concatenate nothing": (lambda: tg.concatenate([]), ValueError, "concatenate"),
    "concatenate shapes": (lambda: tg.concatenate([tg.ones((2, 2)), tg.ones((3, 3))]), ValueError, "concatenate"),
    "max of nothing": (lambda: tg.max(tg.ones(0)), ValueError, "max"),
    "mean of nothing": (lambda: tg.mean(tg.ones(0)), ValueError, "mean"),
    "kernel": (lambda: tg.conv2d(tg.ones((1, 1, 2, 2)), tg.ones((1, 1, 3, 3))), ValueError, "kernel"),
    "channels": (lambda: tg.conv2d(tg.ones((1, 2, 4, 4)), tg.ones((1, 1, 3, 3))), ValueError, "channels=2"),
    "pool padding": (lambda: tg.max_pool2d(tg.ones((1, 1, 4, 4)), 2, padding=2), ValueError, "half"),
    "grad shape": (lambda: setattr(leaf(2), "grad", np.ones(3)), ValueError, "grad"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert isinstance(caught.value, tg.errors.TinygradError)


def test_repr_is_one_line():
    for t in (tg.ones(()), tg.ones((0, 3)), leaf(2, 2, name="W"), leaf(50, 50) * 2, tg.arange(100), tg.full((99,), float("nan"))):
        assert "\n" not in repr(t) and len(repr(t)) < 160
    assert "W" in repr(leaf(1, name="W")) and "multiply" in repr(leaf(2) * 2)


@pytest.mark.parametrize("rows", [(), (1,), (5,), (70,)])
def test_a_weight_reached_in_every_way_at_many_steps(rows):
    """Few rows are gathered before they are multiplied: nothing is lost between products, sums, slices and whole arrays."""
    rng = np.random.default_rng(0)
    W, b = rng.standard_normal((4, 4)) * 0.5, rng.standard_normal(4)
    xs = rng.standard_normal((130, *rows, 4))

    def loss(weights, biases):
        total = 0.0
        for t, (x, w, c) in enumerate(zip(xs, weights, biases, strict=True)):
            total = total + (tg.tanh(tg.tensor(x) @ w + c) ** 2).sum()
            if t % 17 == 3:
                total = total + (w * w).sum() + w[1].sum() * c[2] + (w.T @ w).sum()
        return total

    shared = [tg.tensor(W, requires_grad=True), tg.tensor(b, requires_grad=True)]
    apart = [[tg.tensor(a, requires_grad=True) for _ in xs] for a in (W, b)]
    loss(*[[s] * len(xs) for s in shared]).backward()
    loss(*apart).backward()
    for s, copies in zip(shared, apart, strict=True):
        np.testing.assert_allclose(s.grad.numpy(), sum(c.grad.numpy() for c in copies), rtol=1e-12, atol=1e-12)
