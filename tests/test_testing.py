"""The gradient checker: every broken rule is caught, no right one accused, and the report says what is wrong and where."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import rules

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.testing import GradientMismatch, InconclusiveWarning, Verdict, check_gradients, check_module, check_vjp, laws

SEED = 11
HOPELESS = {"(1 - cos x) / x^2 near 0"}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def checked(f, vjp, make, seed=SEED):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", InconclusiveWarning)
        return check_vjp(f, vjp, *make(np.random.default_rng(seed)), seed=seed, raises=False, explain=False)


@pytest.mark.parametrize("name", rules.BROKEN)
def test_a_broken_rule_is_caught(name):
    assert checked(*rules.BROKEN[name]).verdict is Verdict.FAIL


@pytest.mark.parametrize("name", rules.CORRECT)
def test_a_right_rule_is_not_accused(name):
    report = checked(*rules.CORRECT[name])
    if name in HOPELESS:
        assert report.verdict is Verdict.INCONCLUSIVE and not report
    else:
        assert report, report


@pytest.mark.parametrize("name", rules.SECOND)
def test_what_is_wrong_at_second_order_only_is_caught_there(name):
    f, make = rules.SECOND[name]
    args = make(np.random.default_rng(SEED))
    assert check_gradients(f, *args).verdict is Verdict.PASS
    with pytest.raises(GradientMismatch) as caught:
        check_gradients(f, *args, order=2)
    assert caught.value.report.record.op.name in ("frozen_sine", "half_frozen_product", "wrong_curvature")


@tg.primitive
def leaning(x, y):
    return x * np.sin(y)


def leaning_x(g, y):
    return g * tg.sin(y)


def leaning_y(g, x, y):
    return g * x * tg.cos(y) * 1.0001


tg.defvjp(leaning, leaning_x, leaning_y)


def test_the_report_names_argument_index_ratio_and_record():
    def f(x, y):
        return tg.tanh(leaning(tg.sin(x), y)) + x

    with pytest.raises(AssertionError) as caught:
        check_gradients(f, numbers(2, 3), numbers(2, 3, seed=1), seed=4)
    report = caught.value.report
    finding, rule = report.findings
    assert finding.argument == "y" and len(finding.index) == 2 and abs(finding.got / finding.expected - 1.0001) < 1e-8
    assert finding.error < 1e-9 * abs(finding.expected)
    assert finding.hint == "the factor is 1.0001" and rule.kind == "rule" and rule.argument == "y"
    assert report.record.op.name == "leaning"
    assert "seed=4" in str(report) and f"{report.evaluations} evaluations" in str(report) and "on the tape: leaning" in str(report)
    picture = report.graph()
    assert [node.op for node in picture.nodes if node.mark] == ["leaning"]
    assert "rule of leaning is wrong" in picture.svg() and "its rule is wrong" in picture.dot


HINTS = {
    "twice too large": lambda x, g: 4 * x * g,
    "half of": lambda x, g: x * g,
    "the sign": lambda x, g: -2 * x * g,
    "it is 0": lambda x, g: 0 * x,
    "4 times too large": lambda x, g: 8 * x * g,
    "1/4 of": lambda x, g: x * g / 2,
    "n and n - 1": lambda x, g: 2 * x * g * 4 / 3,
    "transposed": lambda x, g: (2 * x * g).T.copy(),
    "reversed along axis 1": lambda x, g: (2 * x * g)[:, ::-1].copy(),
    "shifted by one along axis 0": lambda x, g: np.roll(2 * x * g, 1, 0),
    "flat indices 3, 7": lambda x, g: (2 * x * g).ravel()[[0, 1, 2, 7, 4, 5, 6, 3, *range(8, 16)]].reshape(4, 4),
    "it alone is wrong; the factor is 1.25": lambda x, g: rules.one_wrong(2 * x * g, 6, 1.25),
}


@pytest.mark.parametrize("hint", HINTS)
def test_hints(hint):
    report = check_vjp(np.square, lambda args, g: (HINTS[hint](args[0], g),), numbers(4, 4), raises=False)
    assert hint in report.findings[0].hint


def test_bisection_finds_one_entry_of_many_with_few_calls():
    def vjp(args, g):
        return np.zeros(3), rules.one_wrong(g * np.cos(args[1]), 13_141, 1.01)

    report = check_vjp(lambda x, y: np.sin(y) + 0 * x.sum(), vjp, numbers(3), numbers(100, 200), raises=False)
    (finding,) = report.findings
    assert finding.argument == "y" and finding.index == (65, 141)
    # Of these, 514 look for jumps that would explain so small a discrepancy.
    assert report.evaluations < 3000 and report.pullbacks < 40


def test_a_hook_is_suspected_when_every_rule_is_right():
    def f(x):
        h = tg.tanh(x)
        if h.requires_grad:
            h.register_hook(lambda g: 1.5 * g)
        return h * 2

    report = check_gradients(f, numbers(3), raises=False)
    assert report.verdict is Verdict.FAIL and report.record.op.name == "tanh" and "hook" in str(report)


def test_hand_made_gradients_are_blamed_too():
    @tg.custom_vjp
    def squashed(x):
        return np.tanh(x)

    squashed.defvjp(lambda x: (np.tanh(x), x), lambda x, g: (g * (1 - np.tanh(x)),))
    report = check_gradients(lambda x: tg.exp(squashed(x)), numbers(3), raises=False)
    assert report.record.op.name == "squashed"
    squashed.defvjp(lambda x: (np.tanh(x), np.tanh(x)), lambda y, g: (g * (1 - y * y),))
    report = check_gradients(lambda x: tg.exp(squashed(x)), numbers(3))
    assert report


def test_a_wrong_pushforward_is_told_from_a_wrong_pullback():
    report = check_gradients(rules.frozen_sine, numbers(3), raises=False)
    # jvp by two reverse sweeps is linear in the cotangent: a detached slope does not harm it.
    assert report and report.modes == ("vjp", "jvp")


@pytest.mark.parametrize("point, verdict", [([0.0, 1.0], Verdict.KINK), ([-0.5, 1.0], Verdict.PASS)])
def test_kinks_are_a_verdict_of_their_own(point, verdict):
    report = check_gradients(lambda x: tg.relu(x).sum(), np.array(point))
    assert report.verdict is verdict and report and bool(report.kinks) == (verdict is Verdict.KINK)


def test_inconclusive_is_no_pass_and_warns():
    with np.errstate(all="ignore"), pytest.warns(InconclusiveWarning, match="not finite"):
        report = check_gradients(tg.sqrt, np.array([0.0, 1.0]))
    assert report.verdict == "inconclusive" and not report


def test_gradients_that_are_not_finite_where_the_function_has_one():
    with np.errstate(invalid="ignore"):
        report = check_vjp(lambda x: np.abs(x) ** 3, lambda args, g: (3 * g * args[0] ** 3 / np.abs(args[0]),), np.array([1.0, 0.0]), raises=False)
    assert report.findings[0].index == (1,) and "not finite" in str(report)


def test_float32_is_judged_by_its_float64_twin():
    x, W = numbers(3, 4).astype(np.float32), numbers(4, 2, seed=1).astype(np.float32)
    report = check_gradients(lambda x, W: tg.tanh(x @ W), x, W, order=2)
    assert report.dtype == "float32" and report.tightness < 1e-7

    @tg.primitive
    def widened(x):
        return x * 2

    @widened.rule
    def widened_x(g, x):
        return (g * 2) if not isinstance(g, np.ndarray) or g.dtype == np.float64 else g * np.float32(2.001)

    report = check_gradients(widened, x, raises=False)
    assert report.findings[0].kind == "float32"


def test_weights_in_float32_that_a_closure_holds():
    lin = nn.Linear(3, 2, rng=0)
    report = check_gradients(lin, numbers(4, 3).astype(np.float32))
    assert report and 1e-9 < report.tightness < 1e-2
    report = check_gradients(lambda x: lin(x * 1.0) * tg.tanh(x.sum()).detach(), numbers(4, 3).astype(np.float32), raises=False)
    assert report.verdict is Verdict.FAIL


def test_deterministic_for_a_seed():
    def once(seed):
        return check_gradients(lambda x, y: tg.tanh(x @ y), numbers(2, 3), numbers(3, 2), order=2, seed=seed)

    assert str(once(3)) == str(once(3)) and once(3).tightness != once(4).tightness


def test_nested_arguments_integers_and_several_outputs():
    def f(x, state, k):
        h, c = state
        return x[k] * h, (c * h).sum()

    report = check_gradients(f, numbers(3), (numbers(2), numbers(2, seed=1)), np.array([0, 2]), order=2)
    assert report.arguments == ("x", "state[0]", "state[1]") and report
    report = check_vjp(lambda x: (x, 2 * x), lambda args, g: (g[0] + 2 * g[1],), numbers(3))
    assert report
    assert check_gradients(lambda x: x * 2, 0.5)


@pytest.mark.parametrize("shape", [(0,), (0, 3), ()])
def test_empty_and_0_d(shape):
    assert check_gradients(lambda x: tg.tanh(x), numbers(*shape) if shape else 0.3, order=2)
    assert check_gradients(lambda x: x.sum(), numbers(*shape) if shape else 0.3, order=2)


def test_arguments_stay_as_they_are():
    x = tg.tensor(numbers(3), requires_grad=True)
    before = x.numpy().copy()
    (x * 2).sum().backward()
    check_gradients(lambda t: tg.sin(t) * x, x)
    np.testing.assert_array_equal(x.numpy(), before)
    np.testing.assert_array_equal(x.grad.numpy(), 2)


def test_a_module_is_checked_as_a_copy_and_every_parameter_by_name():
    net = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 2, rng=1))
    before = {n: v.numpy().copy() for n, v in net.named_parameters()}
    report = check_module(net, tg.randn(5, 3, rng=2), order=2)
    assert report and report.arguments[:2] == ("0.weight", "0.bias") and report.dtype == "float32"
    for n, p in net.named_parameters():
        assert p.dtype == np.float32 and p.requires_grad and p.grad is None
        np.testing.assert_array_equal(p.numpy(), before[n])

    class Half(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(numbers(3).astype(np.float32))

        def forward(self, x):
            return x * (0.5 * self.weight + 0.5 * self.weight.detach())

    with pytest.raises(GradientMismatch) as caught:
        check_module(Half(), tg.randn(2, 3, rng=0))
    assert caught.value.report.findings[0].argument == "weight" and "half of" in caught.value.report.findings[0].hint


def test_a_module_of_ten_thousand_parameters_costs_few_evaluations():
    net = nn.Sequential(nn.Linear(60, 150, rng=0), nn.ReLU(), nn.Linear(150, 10, rng=1))
    report = check_module(net, tg.randn(16, 60, rng=1))
    assert net.num_parameters() > 10_000 and report
    # A pullback costs about two evaluations, and a step forward and back is three: far below 200 of those.
    assert report.evaluations + 2 * report.pullbacks < 150


MISTAKES = {
    "order": (lambda: check_gradients(tg.sin, 1.0, order=3), tg.errors.ShapeError, "order must be 1 or 2, got 3"),
    "modes": (lambda: check_gradients(tg.sin, 1.0, modes="vjp"), tg.errors.ShapeError, "modes must be a selection"),
    "number of gradients": (lambda: check_vjp(np.add, lambda args, g: (g,), numbers(2), numbers(2)), tg.errors.DtypeError, "returned 1 gradients, expected 2"),
    "no argument": (lambda: check_gradients(tg.sin, np.arange(3)), tg.errors.DtypeError, "sin has no floating argument to differentiate: x is of dtype int64"),
    "no array": (lambda: check_vjp(np.square, lambda args, g: (g,), 3), tg.errors.DtypeError, "x is of type int"),
    "complex": (lambda: check_vjp(np.square, lambda args, g: (g,), np.array([1j])), tg.errors.DtypeError, "x is complex"),
    "no output": (lambda: check_gradients(lambda x: None, 1.0), tg.errors.DtypeError, "returned None, expected a floating array"),
    "complex output": (lambda: check_vjp(lambda x: x * 1j, lambda args, g: (g,), numbers(2)), tg.errors.DtypeError, "returned a ndarray of dtype complex128"),
    "no function": (lambda: check_gradients(3, 1.0), tg.errors.DtypeError, "f must be callable, got int"),
    "no vjp": (lambda: check_vjp(np.sin, 3, 1.0), tg.errors.DtypeError, "vjp must be callable, got int"),
    "another vjp": (lambda: check_vjp(np.sin, lambda g: g, 1.0), tg.errors.DtypeError, r"called as vjp\(args, g\)"),
    "no module": (lambda: check_module(np.sin, 1.0), tg.errors.DtypeError, "module must be a Module, got ufunc"),
    "seed": (lambda: check_gradients(tg.sin, 1.0, seed="a"), tg.errors.ShapeError, "seed must be an int of 0 or more, got 'a'"),
    "no cell": (lambda: laws.split(3, numbers(3, 2, 1)), tg.errors.DtypeError, "called as cell"),
    "a layer": (lambda: laws.split(nn.GRU(1, 1), numbers(3, 2, 1)), tg.errors.ShapeError, "of a layer, which takes whole sequences, give the cell"),
    "no state": (lambda: laws.split(lambda x, h: [1, 2, 3], numbers(3, 2, 1), numbers(2, 1)), tg.errors.ShapeError, "returned a list of 3, expected the new state"),
    "one sequence": (lambda: laws.batch_permutation(nn.RNNCell(1, 1), numbers(3, 1, 1)), tg.errors.ShapeError, "two sequences or more, got batch=1"),
    "lengths": (lambda: laws.padding(nn.RNNCell(1, 1), numbers(3, 2, 1), lengths=[1]), tg.errors.ShapeError, "has 1 numbers, expected one a sequence, batch=2"),
    "law without state": (lambda: laws.split(lambda x, h: h, numbers(3, 2, 1)), tg.errors.ShapeError, "give the first state"),
    "law without time": (lambda: laws.split(nn.RNNCell(1, 1), numbers(3)), tg.errors.ShapeError, r"\(time, batch, ...\)"),
    "cut": (lambda: laws.truncation(nn.RNNCell(1, 1), numbers(3, 2, 1), at=3), tg.errors.ShapeError, "within the 3 steps, got 3"),
}


@pytest.mark.parametrize("call, kind, message", MISTAKES.values(), ids=MISTAKES)
def test_bad_input(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_checks_and_laws_need_no_hypothesis():
    code = """if True:
        import sys
        sys.modules["hypothesis"] = None
        import numpy as np, tinygrad_rnn as tg
        assert "tinygrad_rnn.testing" not in sys.modules
        assert tg.testing.check_gradients(tg.tanh, np.array([0.5]))
        assert tg.testing.check_vjp(np.sin, lambda args, g: (g * np.cos(args[0]),), np.array([0.5]))
        from tinygrad_rnn import nn
        assert tg.testing.check_module(nn.Linear(2, 2, rng=0), tg.ones(1, 2))
        tg.testing.laws.split(nn.RNNCell(1, 1, rng=0), tg.randn(3, 2, 1, rng=0))
        try:
            tg.testing.strategies
        except ImportError:
            print("needed for strategies")
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "needed for strategies", done.stderr


@pytest.mark.skipif(np.finfo(np.longdouble).eps == np.finfo(float).eps, reason="no extended precision on this machine")
def test_a_change_that_rounding_swallows_is_not_taken_for_none():
    with pytest.warns(InconclusiveWarning, match="could not be told from noise"):
        check_vjp(lambda x: (x + 1e17) - 1e17, lambda args, g: (1.0 * g,), np.array([0.5, -1.0]))
    assert check_vjp(np.floor, lambda args, g: (1.0 * g,), np.array([0.3, 1.7]), raises=False).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("f", "slope", "x"),
    [
        (np.sin, np.cos, np.array([1.1e12, -0.7e12, 0.3e12])),
        (lambda x: np.round(x * 1e6) / 1e6 + x, np.ones_like, np.array([0.3, -1.2])),
    ],
    ids=["an oscillation finer than every step", "a staircase"],
)
def test_nobody_is_accused_of_what_the_steps_cannot_resolve(f, slope, x):
    for seed in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InconclusiveWarning)
            assert check_vjp(f, lambda args, g: (g * slope(args[0]),), x, raises=False, seed=seed).verdict != "fail"


def test_a_zero_in_the_cotangent_that_makes_nan_is_named():
    report = check_vjp(np.exp, lambda args, g: (np.exp(args[0]) * g * g / g,), np.linspace(-1, 1, 9), raises=False)
    assert report.verdict == "fail" and "not for one with zeros" in str(report)


@pytest.mark.parametrize("seed", range(6))
def test_a_gradient_of_pieces_is_constant_between_its_jumps(seed):
    x, y = np.array([0.9, 1.7, 1.1]), np.array([[0.6, 1.3, 0.7], [1.9, 0.8, 1.4]])
    assert check_gradients(tg.mod, x, y, order=2, seed=seed).verdict == "pass"


def fixed_point(tolerance):
    """The state of a network that has come to rest, and its gradient by the implicit function theorem."""

    def f(W, b):
        z = np.zeros(len(b))
        while True:
            last, z = z, np.tanh(W @ z + b)
            if np.abs(z - last).max() < tolerance:
                return z

    def vjp(args, g, factor=1.0):
        W, b = args
        z = np.zeros(len(b))
        for _ in range(200):
            z = np.tanh(W @ z + b)
        slope = 1 - z * z
        u = slope * np.linalg.solve(np.eye(len(b)) - (slope[:, None] * W).T, g)
        return np.outer(u, z) * factor, u

    return f, vjp


@pytest.mark.parametrize("tolerance", [1e-9, 1e-5])
def test_an_iteration_that_stops_at_a_tolerance_is_not_accused_of_it(tolerance):
    f, vjp = fixed_point(tolerance)
    args = 0.35 * numbers(4, 4, seed=1), numbers(4, seed=2)
    with pytest.warns(InconclusiveWarning, match="does an iteration stop at a tolerance"):
        report = check_vjp(f, vjp, *args)
    assert not report
    assert check_vjp(f, lambda a, g: vjp(a, g, 1.01), *args, raises=False).verdict == "fail"
    assert check_vjp(fixed_point(1e-16)[0], vjp, *args)


def test_steps_that_are_no_iteration_excuse_nothing():
    for scale in (1.0, 1e-3):
        report = check_vjp(lambda x, s=scale: np.sin(x) + s * np.floor(8 * x), lambda args, g: (1.0001 * g * np.cos(args[0]),), np.array([0.3, -0.4, 1.2]), raises=False)
        assert report.verdict == "fail"

    def chosen(args, g):
        a, b = args
        taken, g = b > a, 1.0001 * g
        return np.where(taken, 0, 0.5 * g).sum(axis=0, keepdims=True), np.where(taken, g, 0).sum(axis=1, keepdims=True)

    row, column = np.array([[-0.531219482421875, -1.53118896484375, 0.796966552734375]]), np.array([[0.40814208984375], [1.455047607421875]])
    for seed in range(5):
        assert check_vjp(lambda a, b: np.where(b > a, b, a * 0.5), chosen, row, column, seed=seed, raises=False).verdict == "fail"


def test_every_element_must_be_known():
    for x in ([1.0], [1.0, 2.5], [0.5, 2.0, 0.25]):
        with pytest.warns(InconclusiveWarning, match="could not be told"):
            check_vjp(np.floor, lambda args, g: (0 * g,), np.array(x))
    assert check_vjp(np.floor, lambda args, g: (0 * g,), np.array([0.5, 2.5]))


def test_a_kink_alone():
    assert check_gradients(tg.relu, np.array([0.0])).verdict == "kink-pass"
    assert check_vjp(lambda x: np.maximum(x, 0), lambda args, g: (1.5 * g,), np.array([0.0]), raises=False).verdict == "fail"


@pytest.mark.parametrize("n", [9, 40, 300])
def test_many_kinks_at_once(n):
    """What is wrong by little is not hidden among the slopes that so many kinks allow."""
    zeros = np.zeros(n)
    assert check_gradients(tg.relu, zeros).verdict == check_vjp(np.abs, lambda args, g: (g * np.sign(args[0]),), zeros).verdict == "kink-pass"
    assert check_vjp(np.abs, lambda args, g: (1.01 * g,), zeros, raises=False, explain=False).verdict == "fail"
    assert check_vjp(lambda x: np.maximum(x, 0), lambda args, g: (-0.01 * g,), zeros, raises=False, explain=False).verdict == "fail"


def test_kinks_that_meet_inside_are_nobodys_fault():
    """relu'(0) = 0 in each of many units at once is no number between the slopes of their sum on either side."""
    net = nn.Sequential(nn.Linear(6, 40, bias=False, rng=0), nn.ReLU(), nn.Linear(40, 2, rng=1))
    for seed in range(3):
        assert check_module(net, np.concatenate([np.zeros((1, 6)), numbers(2, 6)]), seed=seed).verdict == "kink-pass"

    @tg.primitive
    def leaky(x):
        return np.maximum(x, 0)

    @leaky.rule
    def leaky_x(g, x):
        return g * ((x > 0) + 1.5 * (x == 0))

    report = check_gradients(lambda x, W, V: leaky(x @ W) @ V, np.zeros((1, 3)), numbers(3, 8), numbers(8, 2), raises=False)
    assert report.verdict == "fail" and report.record.op.name == "leaky"


def test_what_an_operation_rounds_away_inside_is_no_proof():
    def f(x):
        return tg.logsumexp(x, axis=0), tg.log_softmax(tg.silu((x + x[::-1]) ** 3), 0)

    report = check_gradients(f, np.array([-1.234344482421875, 1.76568603515625, 1.312591552734375]), seed=3696, raises=False)
    assert report.verdict != "fail"


def test_an_argument_that_is_not_finite_is_nobodys_fault():
    with pytest.warns(InconclusiveWarning, match=r"argument x is not finite at \[0\]"):
        check_gradients(tg.sin, np.array([np.nan, 1.0]))


def test_a_cut_is_named():
    report = check_gradients(lambda x: x * x.detach(), np.array([0.5, 2.0]), raises=False)
    assert "every rule on the tape is right by itself; detach() was called in the function" in str(report)
    report = check_module(nn.Sequential(nn.Linear(2, 2, rng=0), nn.Dropout(0.5, rng=0)), tg.ones(3, 2), raises=False)
    assert "module.eval() switches dropout off" in str(report)


def test_a_report_says_how_to_see_it_again():
    x = np.array([[0.1, -0.7]])
    report = check_vjp(np.exp, lambda args, g: (2 * g * np.exp(args[0]),), x, seed=3, raises=False)
    code = str(report).rpartition("reproduce: ")[2]
    again = eval(code.replace("check_vjp(f, vjp,", "check_vjp(np.exp, lambda a, g: (2 * g * np.exp(a[0]),), raises=False, *(").replace(", seed=3)", ",), seed=3)"), {"np": np, "check_vjp": check_vjp})
    assert str(again) == str(report)


class Mixing(nn.Module):
    """Sequences of a batch that look at each other."""

    def __init__(self, mix):
        self.hidden_size, self.mix = 3, mix
        self.read, self.keep = nn.Linear(2, 3, rng=0), nn.Linear(3, 3, rng=1)

    def forward(self, x, h):
        return tg.tanh(self.read(x) + self.keep(self.mix(h)))


@pytest.mark.parametrize("batch", [2, 3, 4])
def test_sequences_that_look_at_each_other(batch):
    x = numbers(4, batch, 2)
    laws.batch_permutation(Mixing(lambda h: h), x)
    with pytest.raises(laws.LawBroken, match="the order of a batch"):
        laws.batch_permutation(Mixing(lambda h: h * np.arange(1.0, len(h.data) + 1)[:, None]), x)
    if batch > 2:
        with pytest.raises(laws.LawBroken, match="the order of a batch"):
            laws.batch_permutation(Mixing(lambda h: tg.roll(h, 1, 0)), x)


def test_what_cancels_to_nothing_breaks_no_law():
    """The bias of what is centred over the batch has no gradient but rounding."""

    class Centred(Mixing):
        def forward(self, x, h):
            a = self.read(x)
            return tg.tanh(a - a.mean(axis=0) + self.keep(h))

    for law in (laws.tied_is_sum_of_untied, laws.replay_is_eager, laws.batch_permutation, laws.split):
        law(Centred(None), numbers(6, 3, 2))


def test_cells_that_look_numbers_up_keep_the_laws():
    class Reading(Mixing):
        def __init__(self):
            super().__init__(None)
            self.table = nn.Embedding(5, 2, rng=0)

        def forward(self, x, h):
            return tg.tanh(self.read(self.table(x)) + self.keep(h))

    laws.check_all(Reading(), np.array([[1, 2], [0, 1], [3, 4], [2, 2]]))


def test_a_cell_that_keeps_a_tensor():
    class Leaking(Mixing):
        def forward(self, x, h):
            last = getattr(self, "last", h)
            self.last = tg.tanh(self.read(x) + self.keep(h) + 0.1 * last)
            return self.last

    with pytest.raises(laws.LawBroken, match="keeps a tensor from one call to the next"):
        laws.split(Leaking(None), numbers(4, 2, 2))
