"""Machine code of replayed unrolls: against NumPy's loop, against exact values, and what happens where there is none."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import test_unroll
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import native, nn
from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.replay import compiled, replaying

pytest.importorskip("llvmlite")

from tinygrad_rnn.native import gemm, machine, workers
from tinygrad_rnn.replay import binding, emitting


@pytest.fixture(autouse=True)
def always(monkeypatch, tmp_path_factory):
    """Machine code whatever the size, plans of this test alone, and a cache that no other run has filled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv(native.SETTING, "always")
    monkeypatch.setattr(native, "PRODUCT", 1)
    replaying.PLANS.clear()
    yield
    replaying.PLANS.clear()


def loops():
    """The loops of the newest plan."""
    return next(reversed(replaying.PLANS.values())).chosen(2).loops


def reasons():
    """Why they are not machine code: nothing for each that is."""
    return [loop.compiled.why_not(2) for loop in loops()]


def in_numpy(monkeypatch, function):
    """What a function gives without machine code."""
    with monkeypatch.context() as patch:
        patch.setenv(native.SETTING, "never")
        return function()


def agree(found, expected, times=1e3):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        scale = np.abs(b).max(initial=0, where=np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=times * np.finfo(a.dtype).eps * (scale + 1e-30))


class Cell(nn.Module):
    """A cell with the gates of one linear map of the input and one of the state."""

    def __init__(self, inputs, size, gates, dtype):
        self.hidden_size, self.dtype = size, dtype
        self.x, self.h = nn.Linear(inputs, gates * size, rng=0, dtype=dtype), nn.Linear(size, gates * size, rng=1, dtype=dtype)
        self.peep = nn.Parameter(np.linspace(-1, 1, 3 * size).reshape(3, size).astype(dtype))

    def initial_state(self, batch):
        return tg.zeros(*batch, self.hidden_size, dtype=self.dtype)

    def split(self, a):
        return [a[..., k : k + self.hidden_size] for k in range(0, a.shape[-1], self.hidden_size)]


class Peephole(Cell):
    def initial_state(self, batch):
        return super().initial_state(batch), super().initial_state(batch)

    def forward(self, x, state):
        h, c = state
        i, f, g, o = self.split(self.x(x) + self.h(h))
        c = tg.sigmoid(f + self.peep[0] * c) * c + tg.sigmoid(i + self.peep[1] * c) * tg.tanh(g)
        h = tg.sigmoid(o + self.peep[2] * c) * tg.tanh(c)
        return h, (h, c)


class Normalised(Cell):
    def forward(self, x, h):
        b = self.h(h)
        b = b - b.mean(axis=-1, keepdims=True)
        b = b / tg.sqrt((b * b).mean(axis=-1, keepdims=True) + 1e-5)
        (r, z, n), (rx, zx, nx) = self.split(b), self.split(self.x(x))
        r, z = tg.sigmoid(r + rx), tg.sigmoid(z + zx)
        h = (1 - z) * tg.tanh(nx + r * n) + z * h
        return h, h


class Minimal(Cell):
    """Gates on the input and the state as one vector, and a product behind another."""

    def forward(self, x, h):
        f = tg.sigmoid(tg.concatenate([x, h], axis=-1) @ tg.concatenate([self.x.weight.T, self.h.weight.T]))
        g = tg.tanh(self.x(x) + (f * h) @ self.h.weight.T)
        h = (1 - f) * h + f * g
        return (h, f), h


class Along(Cell):
    """All that is done along rows."""

    def forward(self, x, h):
        a = self.x(x) + self.h(h)
        p = tg.softmax(a, axis=-1) - 0.01 * tg.log_softmax(h, axis=1)
        h = tg.tanh(
            p
            + 0.1 * a / tg.norm(a, axis=-1, keepdims=True)
            + 0.1 * a.var(axis=-1, keepdims=True) * (x[:, :2] + h[:, :2]).std(axis=1, ddof=1, keepdims=True)
            - 0.1 * tg.max(a, axis=-1, keepdims=True)
        )
        return h.var(axis=1), h


class Residual(Cell):
    def forward(self, x, h):
        h = h + tg.relu(self.x(x) + self.h(h)) * 0.1
        return tg.where(h > 0.2, h * h, -h), h


CELLS = {"peephole": (Peephole, 4), "normalised": (Normalised, 3), "minimal": (Minimal, 1), "residual": (Residual, 1), "along": (Along, 1)}


def network(kind, inputs, size, dtype):
    if kind in CELLS:
        return nn.Recurrent(CELLS[kind][0](inputs, size, CELLS[kind][1], dtype))
    return getattr(nn, kind)(inputs, size, rng=0, dtype=dtype)


def trained(kind, T, B, inputs, size, dtype=np.float32, **options):
    """Outputs, last states and gradients of a network."""
    rng = np.random.default_rng(3)
    module = network(kind, inputs, size, dtype)
    x = tg.tensor(rng.standard_normal((T, B, inputs)).astype(dtype), requires_grad=True)
    y, state = module(x, **options)
    leaves = [*test_unroll.leaves(y), *test_unroll.leaves(state)]
    sum((leaf * leaf).sum() for leaf in leaves).backward()
    return [leaf._data for leaf in leaves] + [t.grad._data for t in [x, *module.parameters()] if t.grad is not None]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", *CELLS])
def test_cells_give_what_numpy_gives_but_for_rounding(kind, dtype, monkeypatch):
    for T, B, inputs, size, options in ((5, 1, 3, 70, {}), (4, 3, 5, 19, {"lengths": [4, 1, 3]}), (4, 6, 5, 19, {})):
        run = lambda T=T, B=B, inputs=inputs, size=size, options=options: trained(kind, T, B, inputs, size, dtype, **options)
        found = run()
        assert reasons() == ["", ""]
        agree(found, in_numpy(monkeypatch, run))


@pytest.mark.parametrize("batch, size", [(1, 1), (2, 15), (6, 16), (7, 17), (13, 64), (12, 65), (25, 130), (2, 530), (7, 530)])
def test_rows_and_columns_that_fill_no_register(batch, size, monkeypatch):
    run = lambda: trained("RNN", 3, batch, 4, size)
    found = run()
    assert reasons() == ["", ""]
    agree(found, in_numpy(monkeypatch, run))


@pytest.mark.parametrize("reverse", [False, True])
def test_reversed_with_dropout_and_two_layers(reverse, monkeypatch):
    def run():
        module = nn.LSTM(4, 6, num_layers=2, dropout=0.5, bidirectional=reverse, rng=0)
        x = free(5, 3, 4)
        y, _ = module(x)
        (y * y).sum().backward()
        return [y._data, x.grad._data, *(p.grad._data for p in module.parameters())]

    def free(*shape):
        return tg.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32), requires_grad=True)

    agree(run(), in_numpy(monkeypatch, run))


def carried(step, x, *states):
    outputs, ends = tg.unroll(step, tg.tensor(x), tuple(map(tg.tensor, states)) if len(states) > 1 else tg.tensor(states[0]))
    return [t._data for t in [*test_unroll.leaves(outputs), *test_unroll.leaves(ends)]]


EXACT = {"exp": np.exp, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}


@pytest.mark.parametrize("dtype, far", [(np.float32, 87), (np.float64, 700)])
@pytest.mark.parametrize("name", EXACT)
def test_elementary_functions_are_right_to_three_units_in_the_last_place(name, dtype, far):
    rng = np.random.default_rng(0)
    parts = [rng.uniform(-far, far, 4000), rng.uniform(-12, 12, 20000), rng.uniform(-1, 1, 20000), rng.uniform(-1e-3, 1e-3, 4000), 10.0 ** rng.uniform(-30, 0, 2000)]
    x = np.concatenate(parts).astype(dtype).reshape(4, 50, -1)
    with np.errstate(all="ignore"):
        (y, _) = carried(lambda x, h: (getattr(tg, name)(x + h), h * 1), x, np.zeros(x.shape[1:], dtype))
    assert reasons() == [""]
    expected = EXACT[name](x.astype(np.longdouble))
    assert np.max(np.abs(y - expected) / np.spacing(np.abs(expected).astype(dtype))) < 3


ACTIVATIONS = {name: getattr(tg, name) for name in ("elu", "silu", "softplus", "gelu")}
ACTIVATIONS |= {"leaky_relu": lambda x: tg.leaky_relu(x, 0.2), "elu of 0.3": lambda x: tg.elu(x, 0.3), "gelu by tanh": lambda x: tg.gelu(x, "tanh")}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_compiled_in_parts(name, dtype, monkeypatch):
    def run():
        rng = np.random.default_rng(2)
        W, x, h = (tg.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True) for shape in ((7, 7), (6, 5, 7), (5, 7)))
        y, end = tg.unroll(lambda x_t, h: (h, 0.5 * ACTIVATIONS[name](x_t + h @ W)), 3 * x, h)
        (y * y + end).sum().backward()
        return [t._data for t in (y, end)] + [t.grad._data for t in (W, x, h)]

    found = run()
    assert reasons() == ["", ""]
    agree(found, in_numpy(monkeypatch, run))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_comes_out_as_from_numpy(dtype, monkeypatch):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e4, -1e4, 1e-42] * 3, dtype).reshape(4, 2, 3)

    def step(x, h):
        a = x + h
        return [
            tg.exp(a),
            tg.tanh(a),
            tg.sigmoid(a),
            tg.relu(a),
            tg.sqrt(a),
            1 / a,
            tg.maximum(a, 0),
            tg.minimum(a, 1),
            tg.where(a > 0, a, -1),
            tg.sign(a),
            tg.absolute(a),
            a**2,
        ], h * 1

    def run():
        with np.errstate(all="ignore"):
            return carried(step, x, np.zeros((2, 3), dtype))

    found = run()
    assert reasons() == [""]
    for a, b in zip(found, in_numpy(monkeypatch, run), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    "step",
    [
        lambda x, s: (None, (s[1], s[0])),
        lambda x, s: (None, (s[0] + s[1], s[0])),
        lambda x, s: (x, (tg.concatenate([s[1][:, 2:], s[0][:, :2]], axis=1), s[1] * 0.5 + x)),
        lambda x, s: (s[0] * s[1], (s[1] * 2, s[0][:, ::-1] + x)),
        lambda x, s: (s[0][:, 1:] * s[1][:, :-1], (s[1] - x, tg.tanh(s[0] * s[1]))),
        lambda x, s: (s[0].sum(axis=1), (s[1] / (1 + tg.max(s[0], axis=1, keepdims=True) ** 2), s[0] - tg.mean(s[1], axis=-1, keepdims=True))),
    ],
)
def test_states_that_change_places_are_read_before_they_are_written(step, monkeypatch):
    def run():
        x, a, b = (tg.tensor(np.random.default_rng(k).standard_normal((6, 2, 5)[1 if k else 0 :]), requires_grad=True) for k in range(3))
        y, (c, d) = tg.unroll(step, x, (a, b))
        sum((leaf * (1 + k)).sum() for k, leaf in enumerate([*test_unroll.leaves(y), c, d])).backward()
        return [t._data for t in [*test_unroll.leaves(y), c, d]] + [t.grad._data for t in (x, a, b) if t.grad is not None]

    agree(run(), in_numpy(monkeypatch, run))
    assert not any("other values" in reason for reason in reasons())


def test_random_programs_and_every_operation(monkeypatch):
    """The property of the replayed step, with machine code: most loops have some, and none gives other values than NumPy's."""
    seen = []
    run = compiled.Compiled.run

    def watched(self, *given):
        done = run(self, *given)
        if self.proven:
            seen.append((done, self.reason))
        return done

    monkeypatch.setattr(compiled.Compiled, "run", watched)
    for name in test_unroll.OPS:
        test_unroll.test_every_operation_hoisted_in_the_loop_and_on_weights_and_after_the_weights_have_changed(name)
    every = len(seen)
    test_unroll.test_a_replayed_step_is_the_eager_one()
    assert not [reason for _, reason in seen if "other values" in reason or "Error" in reason]
    assert sum(done for done, _ in seen[:every]) > every / 4 and sum(done for done, _ in seen[every:]) > (len(seen) - every) / 4


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.integers(1, 200), st.integers(1, 140) | st.just(530), st.sampled_from([1, 2, 7, 255, 256, 257, 600]), st.sampled_from([np.float32, np.float64]), st.tuples(*[st.sampled_from("CFS")] * 2)
)
def test_products_of_all_steps(m, n, k, dtype, layouts):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-8, 9, shape).astype(dtype) for shape in ((m, k), (k, n)))
    x, y = ({"C": c, "F": np.asfortranarray(c), "S": np.repeat(np.repeat(c, 2, 0), 3, 1)[::2, ::3]}[order] for c, order in zip((a, b), layouts, strict=True))
    found = gemm.product(x, y)
    # Sums of small integers are exact in any order.
    assert found.flags.c_contiguous and found.dtype == dtype and np.array_equal(found, a.astype(np.int64) @ b.astype(np.int64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_outside_of_loops(dtype, monkeypatch):
    def gradients():
        r = np.random.default_rng(0)
        x, w, image, kernel = (tg.tensor(r.normal(size=s).astype(dtype), requires_grad=True) for s in ((3, 50, 40), (40, 70), (2, 4, 15, 15), (6, 4, 3, 3)))
        out = tg.tanh(x @ w)
        grouped = tg.conv2d(image, tg.concatenate([kernel[:3, :2], kernel[3:, 2:]]), groups=2)
        total = out.sum() + (tg.conv2d(image, kernel, padding=1) ** 2).sum() + tg.sin(grouped).sum()
        first = tg.grad(total, [x, w, image, kernel], create_graph=True)
        return [t.numpy() for t in [out, *first, *tg.grad((first[1] ** 2).sum(), [x, w])]]

    shapes, product = [], gemm.product
    monkeypatch.setattr(gemm, "product", lambda a, b, out=None: shapes.append((a.shape, b.shape)) or product(a, b, out))
    found = gradients()
    assert {((150, 40), (40, 70)), ((150, 70), (70, 40)), ((40, 150), (150, 70))} <= set(shapes)
    assert any(a == (6, 36) or b[1] == 6 for a, b in shapes)
    agree(found, in_numpy(monkeypatch, gradients))


def test_a_product_that_does_not_fit_is_refused_as_by_numpy():
    with pytest.raises(ShapeError, match="matmul"):
        tg.ones(40, 50) @ tg.ones(40, 50)


def test_rows_of_a_result_may_be_apart():
    a, b, out = np.ones((40, 50), np.float32), np.ones((50, 30), np.float32), np.zeros((40, 99), np.float32)
    for setting in (native.dot, gemm.product):
        assert np.shares_memory(setting(a, b, out[:, 4:34]), out)
        assert (out[:, 4:34] == 50).all() and out.sum() == 40 * 30 * 50
        out[...] = 0


def test_bits_do_not_depend_on_threads_or_blocks_and_repeat(monkeypatch):
    monkeypatch.setattr(binding, "SHARED", 0)
    monkeypatch.setattr(binding, "SHARD", 1)
    monkeypatch.setattr(gemm, "SHARED", 0)
    monkeypatch.setattr(machine, "LARGE", 1 << 12)
    results = []
    for threads in "1", "3", "3", "2":
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        results.append(trained("LSTM", 6, 100, 40, 33))
    assert reasons() == ["", ""]
    for loop in loops():
        loop.compiled.function.block = 7
    results.append(trained("LSTM", 6, 100, 40, 33))
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("pause", [0, 0.02])
def test_threads_share_all_rows_once_and_say_what_went_wrong(pause, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(workers, "TURNS", 20)
    for rows in (100, 1, 2, 3, 7) * 20:
        seen, ran = [], set()

        def part(first, last, seen=seen, ran=ran, slow=0.05 * (rows == 100)):
            ran.add(threading.get_ident())
            seen.extend(range(first, last))
            # A call inside of a call that is shared finds all threads taken.
            workers.share(lambda a, b: ran.add(threading.get_ident()), 9, 1)
            time.sleep(slow)

        workers.share(part, rows, 1)
        # What a thread has not begun when the caller is done with its part is the caller's.
        assert sorted(seen) == list(range(rows)) and len(ran) <= 3 and (rows < 100 or len(ran) == 3)

        def fails(first, last, rows=rows):
            if last == rows:
                raise KeyError(first)

        with pytest.raises(KeyError):
            workers.share(fails, rows, 1)
        time.sleep(pause * (rows == 7))


def test_an_interrupt_waits_for_the_threads(monkeypatch):
    """They write to memory that is given back when the call ends."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    begun, done = threading.Event(), []

    def part(first, last):
        if first:
            begun.set()
            time.sleep(0.3)
            done.append(last)
        else:
            begun.wait(10)
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            workers.share(part, 2, 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [2]


def test_sizes_and_a_setting_decide(monkeypatch):
    step = lambda x, h: (None, tg.tanh(x + h))
    explained = lambda n: str(tg.unroll.explain(step, tg.zeros(n, 4, 40), tg.zeros(4, 40)))
    assert "replayed 5 times, compiled" in explained(5)
    monkeypatch.setenv(native.SETTING, "")
    assert "replayed 5 times in NumPy: too little work" in explained(5)
    assert "replayed 5000 times, compiled" in explained(5000)
    monkeypatch.setenv(native.SETTING, "never")
    assert f"replayed 5000 times in NumPy: {native.SETTING} is never" in explained(5000)


@pytest.mark.parametrize("batch", [3, 4])
def test_what_the_loop_can_do_as_well_is_in_the_loop_and_what_is_cheap_to_make_is_not_kept(batch, monkeypatch):
    cell = nn.GRUCell(5, 8, rng=0)
    explained = lambda: tg.unroll.explain(lambda x, h: (None, cell(x, h)), tg.zeros(6, batch, 5, requires_grad=True), tg.zeros(batch, 8))
    found, (before, after) = explained(), ("forward, hoisted", "backward, deferred")
    operations = lambda of, phase: [row[2] for row in of.rows if row[0].startswith(phase)]
    assert operations(found, before) == (["matmul"] if batch < 4 else [])
    # The gradients of two weights and two biases; of few rows the input's gradient, too.
    assert operations(found, after).count("matmul") == (3 if batch < 4 else 2)
    with monkeypatch.context() as patch:
        patch.setenv(native.SETTING, "never")
        other = explained()
    assert "matmul" in operations(other, before) and operations(other, after).count("matmul") == 3
    # h - n is made again.
    assert other.nbytes - found.nbytes == 6 * batch * 8 * 4


@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_summed_over_steps_is_added_up_in_the_loop(reverse, monkeypatch):
    shapes = {"of each row": (5, 4), "of all rows": (4,), "before a product": (1, 4)}
    r = np.random.default_rng(0)
    x, w = r.normal(size=(9, 5, 4)), r.normal(size=(4, 4)) / 2

    def gradients():
        weights = [tg.tensor(r.normal(size=s), requires_grad=True) for s in shapes.values()]
        each, every, before = weights

        def step(x, h):
            h = tg.tanh(h + each + every + (x + before) @ w)
            return h, h

        out, last = tg.unroll(step, tg.tensor(x), tg.zeros(5, 4, dtype=np.float64), reverse=reverse)
        ((out**2).sum() + last.sum()).backward()
        return [out.numpy(), *(v.grad.numpy() for v in weights)]

    r = np.random.default_rng(1)
    found = gradients()
    assert reasons() == ["", ""]
    assert next(reversed(replaying.PLANS.values())).chosen(2).backward.totals
    r = np.random.default_rng(1)
    agree(found, in_numpy(monkeypatch, gradients))


def test_without_llvm_numpy_runs(monkeypatch):
    expected = in_numpy(monkeypatch, lambda: trained("GRU", 4, 3, 2, 5))
    replaying.PLANS.clear()
    monkeypatch.setattr(binding, "machine", lambda: None)
    monkeypatch.setattr(gemm, "machine", lambda: None)
    gemm._function.cache_clear()
    found = trained("GRU", 4, 3, 2, 5)
    gemm._function.cache_clear()
    assert reasons() == ["llvmlite is not installed"] * 2
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_each_loop_by_itself_where_an_operation_has_no_machine_code(monkeypatch):
    def run():
        h = tg.tensor(np.linspace(-1, 1, 6).reshape(2, 3), requires_grad=True)
        y, _ = tg.unroll(lambda x, h: (h, tg.cumsum(h, axis=1) * 0.3), 4, h)
        (y * y).sum().backward()
        return [y._data, h.grad._data]

    found = run()
    assert "cumsum" in reasons()[0]
    assert all(np.array_equal(a, b) for a, b in zip(found, in_numpy(monkeypatch, run), strict=True))


@pytest.mark.parametrize("fault", ["values", "language"])
def test_a_fault_in_the_machine_code_is_found_before_anyone_sees_it(fault, monkeypatch):
    expected = in_numpy(monkeypatch, lambda: trained("LSTM", 5, 3, 2, 4))
    replaying.PLANS.clear()
    monkeypatch.setitem(emitting._ARITHMETIC, "subtract", "fadd" if fault == "values" else "no such instruction")
    agree(trained("LSTM", 5, 3, 2, 4), expected)
    found = trained("LSTM", 5, 3, 2, 4)
    assert reasons()[0] == "" and ("other values" if fault == "values" else "Error") in reasons()[1]
    agree(found, expected)


@pytest.mark.parametrize("harm", ["nothing", "a file cut short", "other bytes", "a file for a folder"])
def test_what_was_compiled_is_found_again_by_the_next_process_and_a_bad_cache_is_none(harm, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    trained("RNN", 4, 2, 2, 3)
    kept = sorted((tmp_path / "tinygrad_rnn").iterdir())
    assert len(kept) >= 2
    if harm == "a file for a folder":
        monkeypatch.setenv("XDG_CACHE_HOME", str(kept[0]))
    for path in kept if harm in ("a file cut short", "other bytes") else []:
        path.write_bytes(path.read_bytes()[:100] if harm == "a file cut short" else os.urandom(3000))
    count = []
    translate = machine.Machine._compiled
    monkeypatch.setattr(machine.Machine, "_compiled", lambda self, source: (count.append(1), translate(self, source))[1])
    replaying.PLANS.clear()
    found = trained("RNN", 4, 2, 2, 3)
    assert reasons() == ["", ""] and len(count) == (0 if harm == "nothing" else 2)
    agree(found, in_numpy(monkeypatch, lambda: trained("RNN", 4, 2, 2, 3)))


def test_the_cache_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "KEPT", 3)
    for size in range(3, 6):
        trained("RNN", 3, 2, 2, size)
    assert len(list((tmp_path / "tinygrad_rnn").iterdir())) == 3


def test_nothing_is_imported_before_it_is_used():
    code = "import sys, tinygrad_rnn; assert not {'llvmlite', 'concurrent.futures'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(binding, "SHARED", 0)
    monkeypatch.setattr(binding, "SHARD", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    expected = trained("RNN", 4, 4, 2, 3)
    child = os.fork()
    if not child:
        signal.alarm(30)
        good = all(np.array_equal(a, b) for a, b in zip(trained("RNN", 4, 4, 2, 3), expected, strict=True))
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
