"""Strategies, property tests in one line, random programs, and the engine as a state machine beside a naive model."""

import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from rules import scaled

import tinygrad_rnn as tg
from tinygrad_rnn.testing import GradientMismatch, InconclusiveWarning, Verdict, check_gradients, given_tensors, gradient_property, laws, strategies
from tinygrad_rnn.testing.programs import Program, Seeded, build

PHASES = [Phase.generate, Phase.shrink]


def laws_of(examples):
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def quietly(f, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconclusiveWarning)
        return check_gradients(f, *args, raises=False, **options)


# Strategies.


@laws_of(60)
@given(st.data(), st.sampled_from(strategies.REGIMES), strategies.shapes())
def test_regimes_are_what_they_say(data, regime, shape):
    a = data.draw(strategies.arrays(shape, regime))
    assert a.shape == shape and a.dtype == np.float64 and np.isfinite(a).all()
    if regime == "distinct":
        assert np.unique(a).size == a.size and a.all()
    if regime == "positive":
        assert (a > 0).all()
    if regime == "saturated":
        assert (np.abs(a) >= 8).all()
    if regime == "tiny":
        assert (np.abs(a) < 1e-10).all()
    if regime == "orthogonal" and a.ndim > 1 and a.size:
        rows = a if a.shape[-2] <= a.shape[-1] else a.swapaxes(-1, -2)
        np.testing.assert_allclose(rows @ rows.swapaxes(-1, -2), np.broadcast_to(np.eye(rows.shape[-2]), (*a.shape[:-2], rows.shape[-2], rows.shape[-2])), atol=1e-12)
    else:
        assert (np.abs(a[a != 0]) >= np.finfo(float).tiny).all()


def test_strategies_reach_the_corners():
    assert find(strategies.shapes(), lambda s: s == ()) == ()
    assert 0 in find(strategies.shapes(), lambda s: 0 in s)
    assert find(strategies.arrays((2, 2), contiguous=False), lambda a: not a.flags.c_contiguous).tolist() == [[0, 0], [0, 0]]
    assert find(strategies.arrays((2,)), lambda a: a[0] > 1)[0] == 65 / 64
    assert find(strategies.tensors((2,), dtype=np.float32), lambda t: True).dtype == np.float32
    a, b = find(strategies.broadcastable(2), lambda pair: pair[0].shape != pair[1].shape and min(p.size for p in pair) > 1)
    assert np.broadcast_shapes(a.shape, b.shape)
    with pytest.raises(tg.errors.ShapeError, match="regime must be one or several of smooth"):
        strategies.arrays((2,), "wild")


@laws_of(30)
@given(strategies.sequences())
def test_sequences_fit_their_lengths_and_print_as_code(drawn):
    assert drawn.inputs.shape[1] == len(drawn.lengths) and 1 <= min(drawn.lengths) <= max(drawn.lengths) <= len(drawn.inputs)
    again = eval(repr(drawn), {"np": np, "Sequences": strategies.Sequences})
    assert again.lengths == drawn.lengths
    np.testing.assert_array_equal(again.inputs, drawn.inputs)


@laws_of(40)
@given(strategies.programs())
def test_programs_print_as_code_that_does_the_same(program):
    code = repr(program).rsplit("\n", 1)[0]
    found = {}
    exec(code, found)
    for name, x in zip(program.names, program.inputs, strict=True):
        np.testing.assert_array_equal(found[name], x)
    for y, z in zip(program(*program.inputs), found["f"](*program.inputs), strict=True):
        np.testing.assert_array_equal(y, z)


@laws_of(15)
@given(strategies.recurrent_cells(), strategies.sequences())
def test_random_cells_keep_the_laws_and_print_as_code(cell, drawn):
    note(repr(cell))
    state = np.zeros((len(drawn.lengths), cell.hidden_size))
    laws.check_all(cell, drawn.inputs, state)
    found = {}
    exec(repr(cell), found)
    x = drawn.inputs[0]
    np.testing.assert_allclose(found["cell"](x, state).numpy(), cell(x, state).numpy(), rtol=1e-13)


def test_programs_shrink_to_one_line():
    options = settings(max_examples=150, deadline=None, derandomize=True, database=None, phases=PHASES, suppress_health_check=list(HealthCheck))
    program = find(strategies.programs(), lambda p: "sort" in p.operations, settings=options)
    assert program.operations == ("sort",) and len(program.inputs) <= 2


@laws_of(60)
@given(strategies.programs())
def test_random_programs_are_not_accused(program):
    report = quietly(program, *program.inputs)
    assert report.verdict is not Verdict.FAIL, f"{report}\n{program}"


@pytest.mark.parametrize("factor", [1.0001, 1.000001])
def test_a_record_that_scales_its_gradient_is_caught(factor):
    rng = np.random.default_rng(12)
    missed = total = 0
    while total < 15:
        program = build(Seeded(rng))
        wrong = scaled(program, int(rng.integers(99)), factor)

        def gradient(f, program=program):
            inputs = [tg.tensor(x, requires_grad=True) for x in program.inputs]
            return [0 if g is None else g.numpy() for g in tg.grad(sum((y * y).sum() for y in f(*inputs)), inputs, allow_unused=True)]

        if all(np.allclose(a, b, rtol=1e-12, atol=0) for a, b in zip(gradient(program), gradient(wrong), strict=True)):
            continue
        total += 1
        missed += quietly(wrong, *program.inputs, modes=("vjp",), explain=False).verdict is not Verdict.FAIL
    assert not missed


# Property tests in one line.

test_softplus = gradient_property(tg.softplus, args=["smooth"], order=2, max_examples=10)
test_hypot = gradient_property(tg.hypot, args=["distinct", (1,)], max_examples=10)
test_subtract = gradient_property(tg.subtract, order=2, max_examples=10)


@given_tensors((2, 3), (3, 2), order=2, max_examples=10)
def test_dense(x, W):
    return tg.tanh(x @ W)


@given_tensors("tiny", dtype=np.float32, max_examples=10)
def test_tensors_of_a_dtype(x):
    assert x.requires_grad and x.dtype == np.float32


@gradient_property(tg.multiply, args=[(2, 1), (3,)], laws=[lambda x, y: np.testing.assert_array_equal(tg.multiply(x, y), x * y)], max_examples=5)
def test_reports_reach_the_test(report):
    assert report.tightness < 1e-8 and report.arguments == ("x", "y")


@tg.primitive
def identity_sort(x):
    return np.sort(x)


@identity_sort.rule
def identity_sort_x(g):
    return g


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_a_failing_property_prints_code():
    @given_tensors((2,), max_examples=5)
    def uneven(x):
        assert x.data[0] > 100

    with pytest.raises(AssertionError) as caught:
        uneven()
    printed = "\n".join(caught.value.__notes__)
    assert "uneven(\n    x=np.array([" in printed
    x = eval(printed.partition("x=")[2].rpartition(",\n)")[0], {"np": np})
    assert x.shape == (2,) and x[0] != np.float32(x[0] + 1)
    with pytest.raises(tg.errors.ShapeError, match="a list with one entry an argument"):
        gradient_property(tg.sin, args="smooth")
    with pytest.raises(tg.errors.ShapeError, match="say with args= what to draw"):
        gradient_property(lambda *xs: xs[0])


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_properties_that_do_not_hold():
    with pytest.raises(GradientMismatch, match="identity_sort"):
        gradient_property(identity_sort, args=[(3,)], max_examples=5)()

    @given_tensors((3,), max_examples=5)
    def wrong(x):
        return identity_sort(x) * 2

    with pytest.raises(GradientMismatch):
        wrong()

    def refuse(x):
        raise AssertionError("law")

    with pytest.raises(AssertionError, match="law"):
        gradient_property(tg.sin, args=[(2,)], laws=[refuse], max_examples=2)()
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match="were inconclusive"):
        gradient_property(lambda x: tg.log(x * 0), args=[(2,)], max_examples=3)()


# The engine beside a naive model: every value carries its derivatives for all numbers that were ever made.


class Naive:
    """A value and the rows of its Jacobian, one for each number of each leaf."""

    def __init__(self, value, rows):
        self.value, self.rows = value, rows

    def map(self, value, slope):
        return Naive(value, {k: slope * r for k, r in self.rows.items()})

    def linear(self, f):
        return Naive(f(self.value), {k: f(r) for k, r in self.rows.items()})

    def plus(self, other, a=1.0, b=1.0):
        keys = self.rows.keys() | other.rows.keys()
        zero = np.zeros(np.broadcast_shapes(self.value.shape, other.value.shape))
        return Naive(a * self.value + b * other.value, {k: a * self.rows.get(k, zero) + b * other.rows.get(k, zero) for k in keys})

    def times(self, other):
        one, two = Naive(self.value, {k: r * other.value for k, r in self.rows.items()}), Naive(other.value, {k: r * self.value for k, r in other.rows.items()})
        product = one.plus(two)
        return Naive(self.value * other.value, product.rows)

    def still(self):
        return Naive(self.value, {})


class Engine(RuleBasedStateMachine):
    """Programs that grow step by step, with views, detach, no_grad, in-place writes and backward passes in any order."""

    tracked, constants = Bundle("tracked"), Bundle("constants")
    values = st.one_of(tracked, tracked, constants)

    def __init__(self):
        super().__init__()
        self.leaves, self.models, self.grads, self.stale, self.released = [], [], {}, set(), set()
        self.made = []

    def leaf(self, numbers):
        t = tg.tensor(np.array(numbers) / 8, requires_grad=True)
        key = len(self.leaves)
        rows = {}
        for i in range(t.size):
            rows[key, i] = np.zeros(t.shape)
            rows[key, i].flat[i] = 1
        self.leaves.append(t)
        self.models.append(Naive(t.numpy().copy(), rows))
        return t, self.models[-1], frozenset([key])

    @initialize(target=tracked, numbers=st.lists(st.integers(-12, 12), min_size=3, max_size=3))
    def first(self, numbers):
        return self.leaf(numbers)

    @rule(target=tracked, numbers=st.lists(st.integers(-12, 12), min_size=3, max_size=3))
    def another_leaf(self, numbers):
        return self.leaf(numbers)

    @rule(target=tracked, a=tracked, b=values, kind=st.sampled_from(["+", "-", "*"]), swap=st.booleans())
    def combine(self, a, b, kind, swap):
        (t, n, k), (u, m, j) = (b, a) if swap else (a, b)
        if kind == "*":
            return self.bounded(t * u, n.times(m), k | j)
        sign = 1.0 if kind == "+" else -1.0
        return self.bounded(t + u if sign > 0 else t - u, n.plus(m, 1.0, sign), k | j)

    @rule(target=tracked, a=tracked, kind=st.sampled_from(["tanh", "sin", "relu", "square"]), view=st.booleans())
    def bend(self, a, kind, view):
        t, n, k = a
        v = n.value
        value, slope = {"tanh": (np.tanh(v), 1 - np.tanh(v) ** 2), "sin": (np.sin(v), np.cos(v)), "relu": (np.maximum(v, 0), (v > 0) * 1.0), "square": (v * v, 2 * v)}[kind]
        # What is kept for the backward pass may be a view of the memory of a leaf.
        return self.bounded(getattr(tg, kind)(t.reshape(3, 1)[:, 0] if view else t), n.map(value, slope), k)

    @rule(target=tracked, a=tracked, kind=st.sampled_from(["reversed", "rolled", "cumulated", "mean", "view"]))
    def move(self, a, kind):
        t, n, k = a
        ours, naive = {
            "reversed": (lambda x: x[::-1], lambda x: x[::-1]),
            "rolled": (lambda x: tg.roll(x, 1), lambda x: np.roll(x, 1)),
            "cumulated": (lambda x: tg.cumsum(x), np.cumsum),
            "mean": (lambda x: tg.broadcast_to(x.mean(), (3,)), lambda x: np.full(3, x.mean())),
            "view": (lambda x: x.reshape(3, 1)[:, 0], lambda x: x),
        }[kind]
        # A view is read at once: it shares the memory of a leaf that may be written later.
        return self.bounded(ours(t) * 1.0, n.linear(naive), k)

    @rule(target=constants, a=values, how=st.sampled_from(["detach", "no_grad"]))
    def cut(self, a, how):
        t, n, _ = a
        if how == "detach":
            # A copy: the detached tensor shares its memory, and would change with a later write.
            return t.detach() * 1.0, n.still(), frozenset()
        with tg.no_grad():
            return tg.sin(t), Naive(np.sin(n.value), {}), frozenset()

    @rule(target=tracked, a=tracked, b=values)
    def add_in_place(self, a, b):
        (t, n, k), (u, m, j) = a, b
        total = t * 1.0
        total += u
        return self.bounded(total, n.plus(m), k | j)

    def bounded(self, t, n, keys):
        if np.abs(n.value).max() > 50:
            t, n = t * 0.001, n.map(n.value * 0.001, 0.001)
        np.testing.assert_allclose(t.numpy(), n.value, rtol=1e-12, atol=1e-12)
        self.made.append((t, n, keys))
        return t, n, keys

    @rule(data=st.data(), factor=st.sampled_from([0.5, -1.0]))
    def write(self, data, factor):
        """A leaf changes in place: what is made of it later sees the new value, and an old record that kept the old one refuses."""
        key = data.draw(st.integers(0, len(self.leaves) - 1))
        leaf = self.leaves[key]
        with tg.no_grad():
            leaf *= factor
        self.models[key].value = self.models[key].value * factor
        self.stale.add(key)

    @rule(a=tracked, weights=st.lists(st.integers(-3, 3), min_size=3, max_size=3), keep=st.booleans(), retain=st.sampled_from([True, True, True, False]))
    def backward(self, a, weights, keep, retain):
        t, n, keys = a
        assert t.requires_grad
        g = np.array(weights, float)
        before = {k: None if leaf.grad is None else leaf.grad.numpy().copy() for k, leaf in enumerate(self.leaves)}
        try:
            t.backward(g, retain_graph=retain)
        except tg.errors.TapeError as error:
            # The tape may refuse only where a leaf was written that the value depends on, or a pass released what it shares; then nothing is added.
            refusal, possible = ("released", self.released) if "released" in str(error) else ("changed in place", self.stale)
            assert refusal in str(error) and keys & possible
            SEEN[refusal] += 1
            for k, leaf in enumerate(self.leaves):
                assert (leaf.grad is None) == (before[k] is None)
                assert leaf.grad is None or (leaf.grad.numpy() == before[k]).all()
            return
        finally:
            # Also a pass that stops half-way has released what it went through.
            self.released |= keys if not retain else set()
        SEEN["passes"] += 1
        for k, leaf in enumerate(self.leaves):
            expected = np.array([float((n.rows.get((k, i), np.zeros(3)) * g).sum()) for i in range(3)])
            total = expected + self.grads.get(k, 0)
            got = np.zeros(3) if leaf.grad is None else leaf.grad.numpy()
            np.testing.assert_allclose(got, total, rtol=1e-9, atol=1e-9 * (1 + np.abs(total).max()))
            self.grads[k] = total
        if not keep:
            for leaf in self.leaves:
                leaf.zero_grad()
            self.grads.clear()

    def teardown(self):
        """Whatever was made has a gradient still."""
        for value in self.made:
            self.backward(value, [1, -2, 3], True, True)


SEEN = Counter()


def test_the_engine_agrees_with_a_naive_model_step_by_step():
    SEEN.clear()
    run_state_machine_as_test(Engine, settings=settings(max_examples=60, stateful_step_count=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)))
    assert SEEN["passes"] > 200 and SEEN["changed in place"] > 10 and SEEN["released"] > 10, SEEN


# The table of `pytest --gradient-report`.


def test_the_report_of_a_suite(pytester_like):
    text = pytester_like(
        """
        import warnings
        import numpy as np, pytest, tinygrad_rnn as tg
        from tinygrad_rnn import nn
        def test_one():
            tg.testing.check_gradients(lambda x, y: tg.tanh(x @ y), np.full((2, 2), 9.5), np.eye(2), order=2)
            tg.testing.check_module(nn.Linear(2, 2, rng=0), tg.ones(1, 2))
            tg.testing.check_vjp(np.sin, lambda args, g: (g * np.cos(args[0]),), np.array([0.5]))
        def test_two():
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                tg.testing.check_gradients(tg.log, np.array([0.0]))
        @pytest.mark.skip
        def test_three(): ...
        """
    )
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert rows["matmul"][1:4] == ["2", "2", "jvp"] and "with-zeros" in rows["matmul"] and "large" in rows["tanh"]
    assert rows["Linear"][1] == "1" and rows["sin"][1] == "1"
    assert rows["log"][-1] == "1" and "1 inconclusive" in text
    assert "gradient checks: 4, 1 inconclusive; 1 tests skipped, 0 tests xfailed" in text
    left_out, modules = (text.partition(f"{kind}s not checked\n")[2].partition("\n\n")[0].replace("\n", " ").split(", ") for kind in ("operation", "module"))
    assert "conv2d" in [name.strip() for name in left_out] and "matmul" not in left_out and "LSTM" in [name.strip() for name in modules]
    assert "test_two: log: no value of log is finite here" in text and "in 4 checks: 1 inconclusive, 0 failed" in text


def test_a_suite_says_what_was_inconclusive_without_being_asked(pytester_like):
    text = pytester_like(
        """
        import numpy as np, pytest, tinygrad_rnn as tg
        def test_one():
            tg.testing.check_gradients(tg.tanh, np.array([0.5]))
        def test_two():
            pass
        @pytest.mark.skip
        def test_three(): ...
        """,
        "-q",
    )
    assert "gradient checks: 1, 0 inconclusive; 1 tests skipped" in text and "gradients checked" not in text


@pytest.fixture
def pytester_like(tmp_path):
    import subprocess
    import sys
    import textwrap

    def run(code, option="--gradient-report"):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(code))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tinygrad_rnn.testing.plugin", option, "-p", "no:cacheprovider", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    return run


def test_programs_can_be_written_by_hand():
    program = Program([np.array([1.0, -2.0])], ["v0 = tg.sin(x0)"], ["v0"])
    assert check_gradients(program, *program.inputs, order=2)
