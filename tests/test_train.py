"""Training runs: what fit promises about stopping, validation, accumulation, and resuming bit for bit."""

import csv
import math
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import data, nn, optim, train

TEXT = np.random.default_rng(0).integers(0, 12, 1200)


def carried(model, batch, state):
    logits, state = model(batch.inputs, state)
    return nn.functional.cross_entropy(logits, batch.targets, axis=-1), state


def parts(seed=0, **options):
    """A run with everything that has a state: dropout, carried state, Adam, a schedule, shuffled windows."""
    model = nn.LanguageModel(12, 10, num_layers=2, dropout=0.3, rng=seed, **options)
    optimizer = optim.Adam(model.parameters(), 0.01)
    schedule = optim.LinearWarmupLR(optimizer, 5, after=optim.StepLR(optimizer, 7, 0.5))
    return model, data.windows(TEXT, 8, 6, rng=seed), optimizer, schedule


def run(seed=0, **options):
    model, batches, optimizer, schedule = parts(seed)
    options = {"clip": 1.0, "progress": False, "schedule": schedule, "validate": data.windows(TEXT[:200], 8, 4, shuffle=False), "validate_every": 9, **options}
    return model, train.fit(model, batches, carried, optimizer, **options)


def weights(model):
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@settings(derandomize=True, deadline=None, max_examples=12)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=3))
def test_a_stopped_and_resumed_run_ends_as_one_that_was_not(tmp_path_factory, cuts):
    whole, history = run(steps=62)
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    for cut in sorted(cuts):
        run(steps=cut, checkpoint=path, resume=True, seed=0)
    resumed, again = run(steps=62, checkpoint=path, resume=True)
    assert_equal(weights(whole), weights(resumed))
    for name in ("loss", "grad_norm", "lr", "validation"):
        np.testing.assert_array_equal(np.stack(history.column(name)), np.stack(again.column(name)))
    assert_equal(weights(whole), weights(run(steps=62, checkpoint=path, resume=True)[0]))


def test_a_killed_run_resumes_exactly(tmp_path):
    path = tmp_path / "checkpoint"
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import test_train as t
        model, batches, optimizer, schedule = t.parts()
        print("ready", flush=True)
        t.run(steps=10_000, checkpoint={str(path)!r}, checkpoint_every=3, callbacks=[lambda p: time.sleep(0.002)])
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        while not path.exists():
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    reached = len(run(steps=1, checkpoint=path, resume=True)[1])
    assert reached % 3 == 0
    whole, _ = run(steps=reached + 20)
    resumed, _ = run(steps=reached + 20, checkpoint=path, resume=True)
    assert_equal(weights(whole), weights(resumed))


def test_batches_without_a_position_are_skipped():
    xs = [np.full((2, 3), k, np.float32) for k in range(7)]

    def start():
        model = nn.Linear(3, 1, rng=0)
        return model, optim.SGD(model.parameters(), 0.001)

    seen = []

    def loss(model, batch):
        seen.append(batch[0, 0])
        return (model(batch) ** 2).mean()

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "c")
        model, optimizer = start()
        train.fit(model, xs, loss, optimizer, steps=10, checkpoint=path, progress=False)
        model, optimizer = start()
        train.fit(model, xs, loss, optimizer, steps=15, checkpoint=path, resume=True, progress=False)
    assert seen == [k % 7 for k in range(15)]


def test_accumulated_batches_make_the_step_of_their_mean():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 3)), rng.standard_normal((12, 1))

    def loss(model, batch):
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    results = []
    for batches, accumulate in (([(x, y)], 1), ([(x[k : k + 4], y[k : k + 4]) for k in (0, 4, 8)], 3)):
        model = nn.Linear(3, 1, dtype=np.float64, rng=0)
        history = train.fit(model, batches, loss, optim.Adam(model.parameters(), 0.1), epochs=5, accumulate=accumulate, clip=0.5, progress=False)
        assert len(history) == 5
        results.append(np.concatenate([w.ravel() for w in weights(model).values()]))
    np.testing.assert_allclose(*results, rtol=1e-12)


def test_early_stopping_puts_the_best_weights_back():
    measured = iter([3.0, 1.0, 2.0, 2.5, 0.1])
    kept = []
    model = nn.Linear(2, 1, rng=0)

    def validate(model):
        kept.append(weights(model))
        return next(measured)

    history = train.fit(model, [np.ones((1, 2), np.float32)], lambda m, b: m(b).sum(), optim.SGD(model.parameters(), 0.1), epochs=50, validate=validate, patience=2, progress=False)
    assert len(history) == 4 and history.best == 1.0 and "no better validation in 2" in history.stopped
    assert_equal(weights(model), kept[1])


def test_a_plateau_schedule_steps_with_validations():
    model = nn.Linear(2, 1, rng=0)
    optimizer = optim.SGD(model.parameters(), 1.0)
    schedule = optim.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    train.fit(model, [np.zeros((1, 2), np.float32)], lambda m, b: m(b).sum(), optimizer, epochs=4, validate=lambda m: 1.0, schedule=schedule, progress=False)
    assert optimizer.param_groups[0]["lr"] == 0.125


def test_ctrl_c_returns_what_there_is(tmp_path):
    path = tmp_path / "c"

    def interrupt(progress):
        if progress.row["step"] == 7:
            os.kill(os.getpid(), signal.SIGINT)

    model, history = run(steps=50, callbacks=[interrupt], checkpoint=path, validate=None, validate_every=None)
    assert len(history) == 7 and history.stopped == "interrupted"
    assert all(p.grad is None for p in model.parameters())
    whole, _ = run(steps=20, validate=None, validate_every=None)
    again, _ = run(steps=20, checkpoint=path, resume=True, validate=None, validate_every=None)
    assert_equal(weights(whole), weights(again))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_callbacks_end_a_run_and_see_each_step():
    steps = []
    _, history = run(steps=50, callbacks=[lambda p: steps.append(p.row["step"]), lambda p: p.row["step"] >= 5])
    assert steps == [1, 2, 3, 4, 5] and history.stopped == "a callback ended it"


def test_a_loss_that_is_not_finite_never_reaches_the_weights():
    model = nn.Linear(2, 1, rng=0)
    before = weights(model)
    with pytest.raises(RuntimeError, match="the loss is nan at step 1"):
        train.fit(model, [np.full((1, 2), np.nan, np.float32)], lambda m, b: m(b).sum(), optim.SGD(model.parameters(), 0.1), epochs=1, progress=False)
    assert_equal(before, weights(model))


def test_a_generator_of_batches_is_walked_once():
    model = nn.Linear(2, 1, rng=0)
    history = train.fit(model, (np.ones((1, 2), np.float32) for _ in range(5)), lambda m, b: m(b).sum(), optim.SGD(model.parameters(), 0.1), epochs=9, progress=False)
    assert len(history) == 5 and history.stopped == "the batches came to an end"


def test_history_is_a_table_a_file_and_a_plot(tmp_path, capsys):
    _, history = run(steps=40)
    lines = str(history).splitlines()
    assert len(lines) == 22 and lines[0].split() == ["step", "epoch", "loss", "bits", "|g|", "lr", "validation", "symbols/s"] and lines[-1] == "40 steps done"
    history.save(tmp_path / "h.csv")
    with open(tmp_path / "h.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and float(rows[-1]["loss"]) == history[-1]["loss"] and float(rows[0]["bits"]) == history[0]["loss"] / math.log(2)
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    figure = history.plot()
    assert len(figure.axes) == 2 and len(figure.axes[0].lines) == 2
    matplotlib.pyplot.close(figure)


def test_progress_is_shown(capfd):
    run(steps=5, progress=True)
    assert "bits" in capfd.readouterr().err


def test_a_checkpoint_is_a_model_too(tmp_path):
    model, _ = run(steps=5, checkpoint=tmp_path / "c", validate=None, validate_every=None)
    assert_equal(weights(model), weights(nn.load_model(tmp_path / "c")))


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path):
    path = tmp_path / "c"
    run(steps=5, checkpoint=path)
    other, batches, optimizer, schedule = parts(seed=1, cell="gru")
    before, scheduled = weights(other), schedule.state_dict()
    with pytest.raises(ValueError, match="does not fit"):
        train.fit(other, batches, carried, optimizer, steps=9, checkpoint=path, resume=True, schedule=schedule, progress=False)
    assert schedule.state_dict() == scheduled
    with pytest.raises(ValueError, match="of a run with a schedule"):
        train.fit(other, batches, carried, optimizer, steps=9, checkpoint=path, resume=True, progress=False)
    with pytest.raises(OSError, match="no folder"):
        train.fit(other, batches, carried, optimizer, steps=9, checkpoint=tmp_path / "none" / "c", progress=False)
    with pytest.raises(RuntimeError, match="no parameter of the optimiser got a gradient"):
        train.fit(nn.LanguageModel(12, 10, rng=3), batches, carried, optimizer, steps=2, progress=False)
    assert_equal(before, weights(other))
    nn.save_model(tmp_path / "model", other)
    with pytest.raises(ValueError, match="no checkpoint"):
        train.fit(other, batches, carried, optimizer, steps=9, checkpoint=tmp_path / "model", resume=True, progress=False)
    for wrong, words in (({}, "how long"), ({"steps": 0}, "steps must be"), ({"steps": 1, "clip": -1.0}, "clip"), ({"steps": 1, "patience": 2}, "patience needs validate")):
        with pytest.raises(ValueError, match=words):
            train.fit(other, batches, carried, optimizer, progress=False, **wrong)
    with pytest.raises(ValueError, match="no batch"):
        train.fit(other, [], carried, optimizer, epochs=2, progress=False)
    with pytest.raises(TypeError, match=r"\(loss, state\)"):
        train.fit(other, batches, lambda m, b, s: tg.tensor(1.0), optimizer, steps=1, progress=False)


def test_evaluate_weights_batches_and_leaves_the_mode():
    model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Dropout(0.5)).train()
    x, y = np.ones((5, 2), np.float32), np.array([0, 1, 2, 0, 1])

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    whole = train.evaluate(model, [(x, y)], loss)
    assert model.training and train.evaluate(model, [(x[:2], y[:2]), (x[2:], y[2:])], loss) == pytest.approx(whole, rel=1e-6)


def test_the_steps_after_the_last_validation_are_not_lost():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3)).astype(np.float32)
    batches = [(x, x @ np.array([[1.0], [-2.0], [3.0]], np.float32))]

    def loss(model, batch):
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    ends = []
    for options in ({}, {"validate": batches, "validate_every": 10}):
        model = nn.Linear(3, 1, rng=0)
        history = train.fit(model, batches, loss, optim.SGD(model.parameters(), 0.1), steps=19, progress=False, **options)
        ends.append(weights(model))
    assert_equal(*ends)
    assert len(history.column("validation")[0]) == 2


@pytest.mark.parametrize("sized", [True, False])
def test_a_last_group_that_is_smaller_is_a_step_of_its_own(sized):
    class Unsized:
        def __iter__(self):
            return iter([2.0, 4.0, 6.0])

    w = nn.Parameter([0.0])
    history = train.fit(w, [2.0, 4.0, 6.0] if sized else Unsized(), lambda w, b: (w * b).sum(), optim.SGD([w], 1.0), epochs=2, accumulate=2, progress=False, count=lambda b: 1)
    assert len(history) == 4 and w.item() == -2 * (3.0 + 6.0) and w.grad is None


def test_an_interrupt_in_the_middle_of_a_step_leaves_the_last_checkpoint(tmp_path):
    path = tmp_path / "c"
    calls = []

    def interrupted(model, batch, state):
        calls.append(0)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return carried(model, batch, state)

    model, batches, optimizer, schedule = parts()
    history = train.fit(model, batches, interrupted, optimizer, steps=20, clip=1.0, schedule=schedule, checkpoint=path, checkpoint_every=3, progress=False)
    assert len(history) == 7 and "in the middle" in history.stopped
    plain = {"validate": None, "validate_every": None}
    assert_equal(weights(run(steps=20, **plain)[0]), weights(run(steps=20, checkpoint=path, resume=True, **plain)[0]))


def test_a_validating_function_sees_a_model_at_rest():
    seen = []
    model = nn.Sequential(nn.Linear(2, 1, rng=0), nn.Dropout(0.5))

    def validate(model):
        seen.append((model.training, model(np.ones((1, 2), np.float32)).requires_grad))
        return 1.0

    train.fit(model, [np.ones((1, 2), np.float32)], lambda m, b, k=3: k * m(b).sum(), optim.SGD(model.parameters(), 0.1), epochs=2, validate=validate, progress=False)
    assert seen == [(False, False)] * 2 and model.training
