"""Gradient checkers side by side, in one run: ours and, where they are installed, those of PyTorch, JAX, autograd and MyGrad.

    python benchmarks/gradients.py                             the broken and the correct rules of tests/rules.py, 400 random programs
    python benchmarks/gradients.py --programs 20000 --seed 1   random programs alone, checked by ours: about half an hour on one core
    python benchmarks/gradients.py --cost                      what a check of a module costs, in forward and backward passes

A checker catches a broken rule if it refuses it, and gives a false alarm if it refuses a right one. Each runs at its default
settings, on the same functions of ndarrays and the same hand-written gradients: they are wrapped as a custom operation of its
own. In a random program the gradient that arrives at one record is scaled by 1.0001 and by 1.000001; only ours knows these, for the
others the pullback of the whole program is the custom gradient. A program whose gradient the factor does not change (a record
whose gradient is zero) is left out, and counted.
"""

import argparse
import os
import pathlib
import sys
import time
import warnings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import rules
import tinygrad_rnn as tg
from tinygrad_rnn.testing import check_gradients, check_vjp
from tinygrad_rnn.testing.programs import Seeded, build

PASS, FAIL, UNSURE = "passes", "refuses", "cannot tell"


def ours(f, vjp, args):
    verdict = check_vjp(f, vjp, *args, raises=False, seed=int(args[0].size)).verdict
    return {"fail": FAIL, "inconclusive": UNSURE}.get(str(verdict), PASS)


def floating(args):
    return [k for k, a in enumerate(args) if a.dtype.kind == "f"]


def pytorch(fast):
    import torch

    def check(f, vjp, args):
        chosen = floating(args)

        class Custom(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *tensors):
                ctx.save_for_backward(*tensors)
                return torch.as_tensor(np.asarray(f(*filled(tensors))))

            @staticmethod
            def backward(ctx, g):
                found = vjp(tuple(filled(ctx.saved_tensors)), g.numpy())
                return tuple(None if found[k] is None else torch.as_tensor(np.ascontiguousarray(found[k])) for k in chosen)

        def filled(tensors):
            values = list(args)
            for k, t in zip(chosen, tensors, strict=True):
                values[k] = t.detach().numpy()
            return values

        tensors = [torch.tensor(args[k].copy(), requires_grad=True) for k in chosen]
        return PASS if torch.autograd.gradcheck(Custom.apply, tensors, fast_mode=fast) else FAIL

    return check


def jax_():
    import jax
    from jax.test_util import check_grads

    def check(f, vjp, args):
        chosen = floating(args)

        def filled(values):
            whole = list(args)
            for k, v in zip(chosen, values, strict=True):
                whole[k] = np.array(v)
            return whole

        shape = np.asarray(f(*args))

        @jax.custom_vjp
        def custom(*xs):
            return jax.pure_callback(lambda *v: np.asarray(f(*filled(v)), shape.dtype), jax.ShapeDtypeStruct(shape.shape, shape.dtype), *xs)

        def backward(xs, g):
            kinds = [jax.ShapeDtypeStruct(args[k].shape, args[k].dtype) for k in chosen]

            def run(g, *v):
                found = vjp(tuple(filled(v)), np.array(g))
                return [np.zeros(args[k].shape, args[k].dtype) if found[k] is None else np.asarray(found[k]) for k in chosen]

            return tuple(jax.pure_callback(run, kinds, g, *xs))

        custom.defvjp(lambda *xs: (custom(*xs), xs), backward)
        check_grads(custom, [args[k] for k in chosen], order=1, modes=["rev"])
        return PASS

    return check


def autograd_():
    from autograd.extend import defvjp_argnums, primitive
    from autograd.test_util import check_grads

    def check(f, vjp, args):
        chosen = floating(args)
        custom = primitive(lambda *xs: np.asarray(f(*filled(xs))))

        def filled(values):
            whole = list(args)
            for k, v in zip(chosen, values, strict=True):
                whole[k] = np.array(v)
            return whole

        def maker(argnums, ans, xs, kwargs):
            def pull(g):
                found = vjp(tuple(filled(xs)), np.array(g))
                return [np.zeros(args[chosen[k]].shape) if found[chosen[k]] is None else found[chosen[k]] for k in argnums]

            return pull

        defvjp_argnums(custom, maker)
        check_grads(custom, tuple(range(len(chosen))), modes=["rev"], order=1)(*[args[k] for k in chosen])
        return PASS

    return check


def mygrad_rule(f, vjp, args):
    """MyGrad's rule in its own tests: a central difference of step 1e-8 x, compared by ``assert_allclose`` at 1e-7 and 1e-4."""
    chosen = floating(args)
    y = np.asarray(f(*args))
    g = np.random.default_rng(0).uniform(-100, 100, y.shape)
    found = vjp(tuple(np.array(a) for a in args), g)
    for k in chosen:
        expected = np.zeros(args[k].shape)
        for index in np.ndindex(args[k].shape):
            moved = [[np.array(a, np.float64 if a.dtype.kind == "f" else None) for a in args] for _ in range(2)]
            for values, sign in zip(moved, (1, -1), strict=True):
                values[k][index] += sign * 1e-8
            expected[index] = np.sum(g * (np.asarray(f(*moved[0])) - np.asarray(f(*moved[1])))) / 2e-8
        np.testing.assert_allclose(np.zeros(args[k].shape) if found[k] is None else found[k], expected, rtol=1e-4, atol=1e-7)
    return PASS


def checkers():
    found = {"tinygrad_rnn": ours}
    for name, make in {"PyTorch, slow": lambda: pytorch(False), "PyTorch, fast": lambda: pytorch(True), "JAX": jax_, "autograd": autograd_}.items():
        try:
            found[name] = make()
        except ImportError:
            print(f"{name} is not installed")
    return found | {"MyGrad's rule": mygrad_rule}


def verdict(check, f, vjp, args):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return check(f, vjp, tuple(np.array(a) for a in args))
        except Exception:
            return FAIL


def compare_rules(seeds):
    print(f"{len(rules.BROKEN)} broken and {len(rules.CORRECT)} correct rules, seeds {seeds}")
    print(f"{'':16}{'caught':>12}{'false alarms':>16}{'cannot tell':>14}{'seconds':>10}")
    for name, check in checkers().items():
        began, counts = time.perf_counter(), {}
        for kind, table in (("broken", rules.BROKEN), ("correct", rules.CORRECT)):
            for f, vjp, make in table.values():
                for seed in seeds:
                    args = make(np.random.default_rng(seed))
                    # The others look at every element: what has thousands would take them minutes.
                    if name != "tinygrad_rnn" and sum(a.size for a in args) > 2500:
                        continue
                    outcome = kind, verdict(check, f, vjp, args)
                    counts[outcome] = counts.get(outcome, 0) + 1
        broken, correct = (sum(n for (k, _), n in counts.items() if k == kind) for kind in ("broken", "correct"))
        caught, alarms = f"{counts.get(('broken', FAIL), 0)} of {broken}", f"{counts.get(('correct', FAIL), 0)} of {correct}"
        unsure = counts.get(("correct", UNSURE), 0) + counts.get(("broken", UNSURE), 0)
        print(f"{name:16}{caught:>12}{alarms:>16}{unsure:>14}{time.perf_counter() - began:>10.1f}", flush=True)


def gradient(f, inputs, seed=0):
    tensors = [tg.tensor(x, requires_grad=True) for x in inputs]
    live = [y for y in f(*tensors) if y.requires_grad]
    rng = np.random.default_rng(seed)
    found = tg.grad(live, tensors, [rng.standard_normal(y.shape) for y in live], allow_unused=True) if live else [None]
    return [np.zeros(1) if g is None else g.numpy() for g in found]


class Remembered:
    """A program whose values are computed once for each inputs: its scaled copies have the same ones."""

    def __init__(self, program):
        self.program, self.values = program, {}

    def __call__(self, *inputs):
        if any(x.requires_grad for x in inputs):
            return self.program(*inputs)
        key = b"".join(x.numpy().tobytes() for x in inputs)
        if key not in self.values:
            self.values[key] = self.program(*inputs)
        return self.values[key]


def compare_programs(count, seed, factors=(1.0001, 1.000001)):
    rng = np.random.default_rng(seed)
    right, wrong, same, evaluations = {}, {factor: {} for factor in factors}, 0, 0
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in range(count):
            program = build(Seeded(rng))
            place = int(rng.integers(1 << 20))
            f = Remembered(program)
            report = check_gradients(f, *program.inputs, raises=False, seed=k)
            right[str(report.verdict)] = right.get(str(report.verdict), 0) + 1
            evaluations += report.evaluations
            if report.verdict == "fail":
                print(f"false alarm: {report}\n{program}\n")
            changed = gradient(rules.scaled(program, place, 1.0001), program.inputs)
            if all(np.allclose(a, b, rtol=1e-12, atol=0) for a, b in zip(gradient(program, program.inputs), changed, strict=True)):
                same += 1
            else:
                for factor, outcomes in wrong.items():
                    outcome = str(check_gradients(rules.scaled(f, place, factor), *program.inputs, modes=("vjp",), raises=False, explain=False, seed=k).verdict)
                    outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if k % 1000 == 999:
                print(f"  {k + 1} programs, {time.perf_counter() - began:.0f} s: {right}, {wrong}", flush=True)
    print(
        f"{count} random programs, seed {seed}: {right}; false alarms {100 * right.get('fail', 0) / count:.3f} %, inconclusive {100 * right.get('inconclusive', 0) / count:.2f} %; {evaluations / count:.0f} evaluations each"
    )
    for factor, outcomes in wrong.items():
        total = sum(outcomes.values())
        print(
            f"one record's gradient times {factor}: {outcomes.get('fail', 0)} of {total} caught ({100 * outcomes.get('fail', 0) / max(total, 1):.2f} %), {outcomes.get('inconclusive', 0)} inconclusive"
        )
    print(f"left out, as the record's gradient is zero: {same}")


def cost():
    """A check beside one forward and backward pass, of modules of 10,000 parameters and more."""
    from tinygrad_rnn import nn
    from tinygrad_rnn.testing import check_module

    cases = {
        "Linear, ReLU, Linear": (nn.Sequential(nn.Linear(60, 150, rng=0), nn.ReLU(), nn.Linear(150, 10, rng=1)), tg.randn(16, 60, rng=1)),
        "the same at the kink": (nn.Sequential(nn.Linear(60, 150, bias=False, rng=0), nn.ReLU(), nn.Linear(150, 10, rng=1)), tg.randn(16, 60, rng=1) * (np.arange(16) > 0)[:, None]),
        "LSTM, 20 steps": (nn.LSTM(30, 40, rng=0), tg.randn(20, 8, 30, rng=1)),
        "Conv2d": (nn.Sequential(nn.Conv2d(8, 48, 5, rng=0), nn.Tanh(), nn.Flatten(), nn.Linear(48 * 64, 4, rng=1)), tg.randn(4, 8, 12, 12, rng=2)),
    }
    print(f"{'':24}{'parameters':>12}{'verdict':>12}{'evaluations':>13}{'pullbacks':>11}{'seconds':>9}{'in passes':>11}")
    for name, (module, x) in cases.items():
        module.to(np.float64)
        x = tg.tensor(x.numpy().astype(np.float64))

        def once(module=module, x=x):
            began = time.perf_counter()
            y = module(x)
            y = y[0] if isinstance(y, tuple) else y
            y.sum().backward()
            module.zero_grad()
            return time.perf_counter() - began

        passes = sorted(once() for _ in range(31))[15]
        times = []
        # The first one also compiles.
        for _ in range(6):
            began = time.perf_counter()
            report = check_module(module, x, raises=False)
            times.append(time.perf_counter() - began)
        spent = sorted(times[1:])[2]
        print(f"{name:24}{module.num_parameters():>12}{report.verdict!s:>12}{report.evaluations:>13}{report.pullbacks:>11}{spent:>9.2f}{spent / passes:>11.0f}", flush=True)


def compare_checkers_on_programs(count, seed):
    """All checkers on the same scaled programs, as hand-written gradients."""
    rng = np.random.default_rng(seed)
    cases = []
    while len(cases) < count:
        program = build(Seeded(rng))
        place = int(rng.integers(1 << 20))
        before, after = (gradient(f, program.inputs) for f in (program, rules.scaled(program, place, 1.0001)))
        if not all(np.allclose(a, b, rtol=1e-12, atol=0) for a, b in zip(before, after, strict=True)):
            cases.append((program, place))
    print(f"\n{count} random programs, right and with one record's gradient times 1.0001, as hand-written gradients")
    print(f"{'':16}{'caught':>12}{'false alarms':>16}{'seconds':>10}")
    for name, check in checkers().items():
        began, caught, alarms = time.perf_counter(), 0, 0
        for program, place in cases:

            def f(*xs, program=program):
                return np.concatenate([np.ravel(y) for y in program(*xs)])

            for factor in (1.0, 1.0001):

                def vjp(args, g, program=program, place=place, factor=factor):
                    tensors = [tg.tensor(np.array(a), requires_grad=True) for a in args]
                    ys = (rules.scaled(program, place, factor) if factor != 1 else program)(*tensors)
                    pairs = [(y, part.reshape(y.shape)) for y, part in zip(ys, np.split(np.array(g), np.cumsum([y.size for y in ys])[:-1]), strict=True) if y.requires_grad]
                    found = tg.grad([y for y, _ in pairs], tensors, [p for _, p in pairs], allow_unused=True)
                    return [np.zeros(a.shape) if h is None else np.array(h.numpy()) for a, h in zip(args, found, strict=True)]

                refused = verdict(check, f, vjp, program.inputs) == FAIL
                caught, alarms = caught + (refused and factor != 1), alarms + (refused and factor == 1)
        print(f"{name:16}{f'{caught} of {count}':>12}{f'{alarms} of {count}':>16}{time.perf_counter() - began:>10.1f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, help="only random programs, so many, checked by ours")
    parser.add_argument("--cost", action="store_true", help="only what a check costs, in forward and backward passes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.cost:
        cost()
    elif options.programs:
        compare_programs(options.programs, options.seed)
    else:
        compare_rules([options.seed])
        compare_checkers_on_programs(400, options.seed)
