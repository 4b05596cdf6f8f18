"""Diagnosis, beside gradients kept in loops written by hand, closed forms and torch."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import data, nn, optim, train
from tinygrad_rnn.diagnostics import activation_map, gate_statistics, gradient_flow, spectral_radius, weight_report
from tinygrad_rnn.errors import DtypeError, OutOfRangeError, ShapeError, TapeError

CELLS = {nn.RNN: ["h"], nn.GRU: ["h"], nn.LSTM: ["c", "h"]}


def numbers(*shape, seed=0, dtype=np.float64):
    return tg.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def norm(x):
    return float(np.linalg.norm(x))


def by_hand(network, x, lengths, keep):
    """The network as plain loops over its cells; ``keep`` gets every new state with its layer, step and name."""
    steps, batch = x.shape[:2]
    alive = np.arange(steps)[:, None] < np.asarray(lengths)
    for layer in range(network.num_layers):
        outputs = []
        for direction in range(network.directions):
            lane = f"l{layer}{'_reverse' if direction else ''}"
            cell = dict(network._members())[lane]
            state, ys = cell.initial_state((batch,)), [None] * steps
            for t in range(steps)[:: -1 if direction else 1]:
                new = cell(x[t], state)
                parts = dict(zip(["h", "c"], new, strict=True)) if isinstance(new, tuple) else {"h": new}
                for name, part in parts.items():
                    keep(f"{lane} {name}", t, part)
                mask = alive[t][:, None]
                state = tuple(tg.where(mask, a, b) for a, b in zip(new, state, strict=True)) if isinstance(new, tuple) else tg.where(mask, new, state)
                ys[t] = tg.where(mask, parts["h"], 0.0)
            outputs.append(tg.stack(ys))
        x = outputs[0] if len(outputs) == 1 else tg.concatenate(outputs, axis=-1)
    return x


@settings(max_examples=30, deadline=None)
@given(
    cell=st.sampled_from(list(CELLS)),
    layers=st.integers(1, 2),
    both=st.booleans(),
    mode=st.sampled_from(["auto", "eager"]),
    steps=st.integers(2, 6),
    ragged=st.booleans(),
    last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_flow_is_what_retain_grad_keeps_in_loops_by_hand(cell, layers, both, mode, steps, ragged, last, seed):
    # Of two steps of which one alone is masked, nothing repeats by which time could be found.
    assume(steps > 2 or not ragged)
    network = cell(3, 4, num_layers=layers, bidirectional=both, dtype=np.float64, rng=seed)
    network.mode = mode
    x = numbers(steps, 3, 3, seed=seed)
    lengths = [steps, 1, max(1, steps - 1)] if ragged else None
    weights = numbers(steps, 3, 4 * network.directions, seed=seed + 1).data * (np.arange(steps) == steps - 1 if last else np.ones(steps))[:, None, None]
    y, _ = network(x, lengths=lengths)
    flow = gradient_flow((y * weights).sum())
    assert all(p.grad is None for p in network.parameters())
    kept = {}

    def keep(name, t, state):
        state.retain_grad()
        kept[name, t] = state

    (by_hand(network, x, lengths or [steps] * 3, keep) * weights).sum().backward()
    assert {name for name, _ in kept} == set(flow.names)
    for k, name in enumerate(flow.names):
        expected = [0.0 if kept[name, t].grad is None else norm(kept[name, t].grad.numpy()) for t in range(steps)]
        assert flow[name] == pytest.approx(expected, rel=1e-9, abs=1e-300)
        assert flow.steps[k] == list(range(steps))[:: -1 if "reverse" in name else 1]


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.2, 3.0), steps=st.integers(2, 40), units=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_linear_recurrence_of_orthogonal_weights_changes_by_its_spectral_radius_each_step(scale, steps, units, seed):
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((units, units)))[0]
    W = tg.tensor(Q * scale, requires_grad=True, name="W")
    _, h = tg.unroll(lambda x, h: (None, h @ W), steps, tg.ones(1, units, dtype=np.float64))
    flow = gradient_flow(h.sum())
    assert flow.norms[0] == pytest.approx(np.sqrt(units) * scale ** np.arange(steps)[::-1], rel=1e-9)
    assert flow.rates[0] == pytest.approx(scale) == float(spectral_radius(W))
    ratio = scale ** (steps - 1)
    assert flow.verdicts == ["vanishing" if ratio < 1e-3 else "exploding" if ratio > 1e3 else "steady"]
    assert list(flow.advice) == [verdict for verdict in flow.verdicts if verdict != "steady"]


@settings(max_examples=15, deadline=None)
@given(units=st.integers(1, 5), steps=st.integers(3, 30), seed=st.integers(0, 99))
def test_any_linear_recurrence_follows_the_powers_of_its_matrix(units, steps, seed):
    matrix = np.random.default_rng(seed).standard_normal((units, units)) / np.sqrt(units)
    W = tg.tensor(matrix, requires_grad=True)
    h = numbers(2, units, seed=seed)
    for t in range(steps):
        with tg.scope("step", step=t):
            h = h @ W
    expected = [norm(np.linalg.matrix_power(matrix, k).T.sum(axis=0)) * np.sqrt(2) for k in range(steps)]
    assert gradient_flow(h.sum()).norms[0, ::-1] == pytest.approx(expected, rel=1e-8)


def test_the_flow_is_that_of_torch():
    torch = pytest.importorskip("torch")
    ours = nn.LSTM(3, 5, dtype=np.float64, rng=0)
    cell = torch.nn.LSTMCell(3, 5, dtype=torch.float64)
    for name, p in cell.named_parameters():
        p.data = torch.from_numpy(np.array(getattr(ours, name + "_l0").data))
    x = numbers(20, 2, 3)
    h, c, kept = torch.zeros(2, 5, dtype=torch.float64), torch.zeros(2, 5, dtype=torch.float64), []
    for t in range(20):
        h, c = cell(torch.from_numpy(np.array(x.data[t])), (h, c))
        kept.append((h, c))
        h.retain_grad()
        c.retain_grad()
    (h * h).sum().backward()
    _, (last, _) = ours(x)
    flow = gradient_flow((last * last).sum())
    assert flow["l0 h"] == pytest.approx([norm(a.grad.numpy()) for a, _ in kept], rel=1e-9)
    assert flow["l0 c"] == pytest.approx([norm(b.grad.numpy()) for _, b in kept], rel=1e-9)


def loop(steps=6, scoped=True, named=False):
    W, h, states = numbers(3, 3).requires_grad_(), numbers(2, 3, seed=1), []
    W.name = "W"
    for t in range(steps):
        if scoped:
            with tg.scope("cell", step=t):
                h = tg.tanh(h @ W)
        else:
            h = tg.tanh(h @ W)
        if named:
            h.name = f"h{t + 1}"
        states.append(h)
    return W, states


@pytest.mark.parametrize("scoped", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_loops_need_no_marks_and_states_can_be_named(scoped, named):
    W, states = loop(scoped=scoped, named=named)
    for state in states:
        state.retain_grad()
    loss = (states[-1] ** 2).sum() + states[2].sum()
    found = gradient_flow(loss)
    chosen = gradient_flow(loss, states)
    by_name = gradient_flow(loss, {"late": states[3:], "early": states[0]})
    loss.backward()
    expected = [norm(state.grad.numpy()) for state in states]
    assert found.norms[0] == pytest.approx(expected) == chosen.norms[0]
    assert found.names == [("cell" if scoped else "step") + " h"]
    assert by_name["late"] == pytest.approx(expected[3:]) and by_name["early"] == pytest.approx(expected[:1])
    assert W.grad is not None


class Nested(nn.Module):
    """A cell with a state of three parts, of which one has no name and one is a step's input a step later."""

    def __init__(self, size, hidden_size):
        self.hidden_size = hidden_size
        self.lin = nn.Linear(size + hidden_size, 2 * hidden_size, dtype=np.float64, rng=0)

    def initial_state(self, batch):
        zero = tg.zeros(*batch, self.hidden_size, dtype=np.float64)
        return zero, (zero + 0.5, zero)

    def forward(self, x, state):
        a, (b, c) = state
        z = self.lin(tg.concatenate([x, a], axis=-1))
        keep, new = tg.sigmoid(z[..., : self.hidden_size]), tg.tanh(z[..., self.hidden_size :])
        b = keep * b + (1 - keep) * new
        a = b * tg.cos(c)
        c = tg.sin(c + new)
        a.name, b.name = "a", "b"
        return a, (b, c)


@pytest.mark.parametrize("lengths", [None, [7, 2]])
def test_states_of_a_cell_of_ones_own(lengths):
    kept = {}
    network = nn.Recurrent(lambda n: Nested(n, 4), 3)
    x = numbers(7, 2, 3)
    y, _ = network(x, lengths=lengths)
    flows = [gradient_flow((y * y).sum())]
    network.mode = "eager"
    y, _ = network(x, lengths=lengths)
    flows.append(gradient_flow((y * y).sum()))
    cell = dict(network._members())["l0"]
    state, ys = cell.initial_state((2,)), []
    for t in range(7):
        a, (b, c) = cell(x[t], state)
        for name, part in zip("abc", (a, b, c), strict=True):
            part.retain_grad()
            kept[name, t] = part
        alive = (np.full(2, 7) if lengths is None else np.array(lengths))[:, None] > t
        old_a, (old_b, old_c) = state
        state = tg.where(alive, a, old_a), (tg.where(alive, b, old_b), tg.where(alive, c, old_c))
        ys.append(tg.where(alive, a, 0.0))
    (tg.stack(ys) ** 2).sum().backward()
    for flow in flows:
        names = dict(zip("bac", flow.names, strict=True))
        assert names["a"] == "l0 a" and names["b"] == "l0 b"
        for letter, name in names.items():
            expected = [0.0 if kept[letter, t].grad is None else norm(kept[letter, t].grad.numpy()) for t in range(7)]
            assert flow[name] == pytest.approx(expected, rel=1e-9)


def test_a_module_or_an_output_says_what_to_follow():
    first, second = nn.GRU(3, 4, rng=0), nn.RNN(4, 4, rng=1)
    middle, _ = first(numbers(5, 2, 3, dtype=np.float32))
    y, _ = second(middle)
    loss = (y * y).sum()
    every = gradient_flow(loss)
    one = gradient_flow(loss, second)
    assert len(every.names) == 2 and len(one.names) == 1
    assert gradient_flow(loss, y).norms == pytest.approx(one.norms) == every.norms[1:]
    assert gradient_flow(loss, first).norms == pytest.approx(gradient_flow(loss, {"middle": middle}).norms)
    with pytest.raises(TapeError, match="no step of the tape uses a parameter of this LSTM"):
        gradient_flow(loss, nn.LSTM(3, 4))


def test_what_cannot_be_followed_is_told():
    W, states = loop()
    loss = states[-1].sum()
    with pytest.raises(TapeError, match=r"gradient_flow: the loss does not depend on tensor 0 of 'other'"):
        gradient_flow(loss, {"other": (W * 2).sum()})
    with pytest.raises(TapeError, match="needs no gradient"):
        gradient_flow(loss, [states[0].detach()])
    with pytest.raises(DtypeError, match="states must be tensors"):
        gradient_flow(loss, ["h"])
    with pytest.raises(TapeError, match=r"no time steps.*tg.unroll"):
        gradient_flow((W * 2).sum())
    with pytest.raises(KeyError, match="there are cell h"):
        gradient_flow(loss)["x"]
    before = gradient_flow(loss)
    loss.backward(retain_graph=True)
    assert np.array_equal(gradient_flow(loss).norms, before.norms)
    loss.backward()
    with pytest.raises(TapeError, match="retain_graph=True"):
        gradient_flow(loss)


def test_a_loss_that_is_not_finite_and_one_that_reaches_nothing():
    W = tg.tensor([[1e30]], requires_grad=True)
    with np.errstate(all="ignore"):
        _, h = tg.unroll(lambda x, h: (None, h @ W), 4, tg.ones(1, 1))
        flow = gradient_flow(h.sum())
    assert np.isinf(flow.norms[0, 0]) and flow.verdicts == ["exploding"] and "∞" in flow.table()
    _, states = loop()
    flow = gradient_flow((states[-1] * 0.0).sum())
    assert flow.verdicts == ["none"] and flow.norms.sum() == 0 and np.isnan(flow.rates).all()


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize("mode", ["auto", "eager"])
def test_activations_are_the_values_of_a_loop_by_hand(cell, mode):
    network = cell(3, 4, num_layers=2, bidirectional=True, dtype=np.float64, rng=3)
    network.mode = mode
    x, lengths, kept = numbers(5, 3, 3), [5, 1, 3], {}
    y, _ = network(x, lengths=lengths)
    by_hand(network, x, lengths, lambda name, t, state: kept.update({(name, t): state.numpy()}))
    found = activation_map(y)
    assert set(found.names) == {name for name, _ in kept}
    for name in found.names:
        for t in range(5):
            alive = np.array(lengths) > t
            assert np.allclose(found[name][t, alive], kept[name, t][alive], rtol=1e-12)
            assert np.isnan(found[name][t, ~alive]).all()


def test_values_that_no_rule_keeps():
    """A state that is only added to: an opened unroll tells its values, a loop's tape cannot."""
    W = numbers(3, 3).requires_grad_()

    def step(x, s):
        s = s + x @ W
        s.name = "s"
        return None, s

    x, start = numbers(5, 2, 3), numbers(2, 3, seed=1)
    _, last = tg.unroll(step, x, start)
    assert np.allclose(activation_map(last)["step s"], start.data + np.cumsum(x.data @ W.data, axis=0))
    _, last = tg.unroll(step, x, start, mode="eager")
    with pytest.raises(TapeError, match="no record of the tape keeps the values of step s"):
        activation_map(last)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def test_gates_are_those_of_the_formulas():
    network = nn.LSTM(3, 4, dtype=np.float64, rng=0)
    x = numbers(6, 2, 3) * 5
    y, _ = network(x)
    gates = gate_statistics(y)
    assert gates.names == ["l0 i", "l0 f", "l0 o"]
    before = np.concatenate([np.zeros((1, 2, 4)), y.data[:-1]])
    raw = x.data @ network.weight_ih_l0.data.T + network.bias_ih_l0.data + before @ network.weight_hh_l0.data.T + network.bias_hh_l0.data
    for k, name in ((0, "l0 i"), (1, "l0 f"), (3, "l0 o")):
        values = logistic(raw[..., 4 * k : 4 * k + 4])
        assert np.allclose(gates.values[name], values)
        assert np.allclose(gates.mean[name], values.mean(axis=(0, 1)))
        assert np.allclose(gates.shut[name], (values < 0.1).mean(axis=(0, 1))) and np.allclose(gates.open[name], (values > 0.9).mean(axis=(0, 1)))
        assert np.allclose(activation_map(y, [name])[name], values)
    assert [line.split()[:2] for line in gates.table().splitlines()[1:]] == [["l0", "i"], ["l0", "f"], ["l0", "o"]]


def test_gates_that_are_shut_or_open_and_gates_of_ones_own():
    network = nn.LSTM(3, 4, rng=0, forget_bias=20.0)
    with tg.no_grad():
        network.bias_ih_l0[:4] = -20.0
    y, _ = network(numbers(6, 2, 3, dtype=np.float32), lengths=[6, 2])
    gates = gate_statistics(y)
    assert gates.open["l0 f"].min() == 1 == gates.shut["l0 i"].min() and gates.shut["l0 f"].max() == 0
    y, _ = nn.Recurrent(lambda n: Nested(n, 4), 3)(numbers(4, 2, 3))
    assert gate_statistics(y).names == ["l0 sigmoid 1"]
    y, _ = nn.RNN(3, 4)(tg.ones(4, 2, 3))
    with pytest.raises(TapeError, match="no step of the tape has a gate"):
        gate_statistics(y)
    with pytest.raises(OutOfRangeError, match=r"no step has a value called 'f'; there are l0 h"):
        activation_map(y, ["f"])


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats(-3, 3), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_spectral_radius_of_a_matrix_with_given_eigenvalues(values, seed):
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    found = spectral_radius(Q @ np.diag(values) @ Q.T)
    assert float(found) == pytest.approx(max(map(abs, values)), abs=1e-9)
    assert found.norms["matrix"] == pytest.approx(max(map(abs, values)), abs=1e-9)


def test_spectral_radius_of_modules_gates_and_steps():
    gru = nn.GRU(3, 4, num_layers=2, rng=0)
    found = spectral_radius(gru)
    assert found.names == [f"weight_hh_l{layer} {gate}" for layer in range(2) for gate in "rzn"]
    block = gru.weight_hh_l1.data[4:8].astype(np.float64)
    assert found.radii["weight_hh_l1 z"] == pytest.approx(abs(np.linalg.eigvals(block)).max())
    cell = nn.RNNCell(3, 4, dtype=np.float64, rng=0)
    x, h = numbers(1, 3), numbers(1, 4, seed=1)
    new = cell(x, h).numpy()
    expected = abs(np.linalg.eigvals((1 - new**2).T * cell.weight_hh.data)).max()
    assert float(spectral_radius(cell, x, h)) == pytest.approx(expected)
    lstm = nn.LSTMCell(3, 4, dtype=np.float64, rng=0, forget_bias=50.0)
    assert float(spectral_radius(lstm, x, (numbers(1, 4), numbers(1, 4)))) > 0.9
    for wrong, error in ((np.ones((3, 2)), ShapeError), (nn.Linear(2, 2), DtypeError), ("W", DtypeError)):
        with pytest.raises(error, match="spectral_radius"):
            spectral_radius(wrong)
    with pytest.raises(DtypeError, match="must be a cell or a step"):
        spectral_radius(np.ones((2, 2)), None, np.ones((1, 2)))


def test_weights_updates_and_units():
    model = nn.Sequential(nn.Linear(3, 5, dtype=np.float64, rng=0), nn.ReLU(), nn.Linear(5, 4, dtype=np.float64, rng=1), nn.Tanh())
    with tg.no_grad():
        model[0].bias[[1, 3]] = -100.0
        model[2].bias[0] = 50.0
    before = {name: p.numpy().copy() for name, p in model.named_parameters()}
    loss = (model(numbers(20, 3)) ** 2).sum()
    report = weight_report(model, loss)
    assert [u["kind"] for u in report.units] == ["relu", "tanh"]
    assert report.units[0]["dead"].tolist() == [False, True, False, True, False]
    assert report.units[1]["saturated"].tolist() == [True, False, False, False]
    loss.backward()
    optim.SGD(model.parameters(), lr=0.01).step()
    for row, (name, p) in zip(weight_report(model, before=before).weights, model.named_parameters(), strict=True):
        g = p.grad.numpy()
        assert row["name"] == name and row["gradient"] == pytest.approx(np.sqrt((g**2).mean()))
        assert row["update"] == pytest.approx(0.01 * norm(g) / norm(before[name]))
    with pytest.raises(ShapeError, match=r"before has no 0\.weight"):
        weight_report(model, before={})
    with pytest.raises(DtypeError, match="expected a module"):
        weight_report(loss)


def test_units_beyond_a_sequences_end_do_not_count():
    network = nn.RNN(1, 2, nonlinearity="relu", bias=False, rng=0)
    with tg.no_grad():
        network.weight_ih_l0[:] = [[1.0], [-1.0]]
    y, _ = network(np.ones((6, 2, 1), np.float32), lengths=[6, 1])
    (units,) = weight_report(network, y).units
    assert units["dead"].tolist() == [False, True] and units["name"] == "l0 h"


class Adder(nn.Module):
    def __init__(self, cell, **options):
        self.rnn = cell(2, 8, rng=0, **options)
        self.head = nn.Linear(8, 1, rng=1)

    def forward(self, x):
        return self.head(self.rnn(x)[0][-1])


def trained(model, T=60, steps=12, **options):
    batches = [data.adding_problem(T, 4, rng=k) for k in range(steps)]
    return train.fit(model, batches, lambda m, b: nn.functional.mse_loss(m(b[0]), b[1]), optim.SGD(model.parameters(), lr=1e-3), epochs=1, progress=False, **options)


def test_fit_warns_of_gradients_that_vanish_or_explode(tmp_path):
    (text,) = trained(Adder(nn.RNN)).warnings
    assert text.startswith("step 1: the gradient of l0 h vanishes: ") and "LSTM" in text
    assert not trained(Adder(nn.RNN), T=4).warnings
    model = Adder(nn.RNN, nonlinearity="relu")
    with tg.no_grad():
        model.rnn.weight_hh_l0.assign_(np.eye(8, dtype=np.float32) * 1.2)
    weights = {name: p.numpy().copy() for name, p in model.named_parameters()}
    history = trained(model, steps=1)
    assert "explodes" in history.warnings[0] and "clip" in history.warnings[0] and str(history).endswith(history.warnings[0])
    model.load_state_dict(weights)
    assert not trained(model, steps=1, clip=1.0).warnings
    model = Adder(nn.RNN)
    path = tmp_path / "run"
    trained(model, steps=2, checkpoint=path)
    assert trained(model, steps=2, checkpoint=path, resume=True).warnings[0].startswith("step 1")


def test_fit_warns_of_a_norm_that_jumps():
    w = nn.Linear(1, 1, bias=False, rng=0)
    scales = [1.0] * 12 + [1e4]

    def loss(model, batch):
        return (model(np.ones((1, 1), np.float32)) * batch).sum()

    run = {"epochs": 1, "progress": False, "count": lambda batch: 1}
    history = train.fit(w, scales, loss, optim.SGD(w.parameters(), lr=1e-9), **run)
    assert history.warnings == ["step 13: the gradient exploded: its norm is 1e4, where 1 is usual; bound it with fit(clip=1), or lower the learning rate"]
    assert not train.fit(w, scales, loss, optim.SGD(w.parameters(), lr=1e-9), clip=1.0, **run).warnings


def test_watching_changes_no_weight(monkeypatch):
    watched = Adder(nn.GRU)
    trained(watched)
    monkeypatch.setattr("tinygrad_rnn.diagnostics.watching.Watch.flow", lambda *_: None)
    plain = Adder(nn.GRU)
    trained(plain)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(watched.parameters(), plain.parameters(), strict=True))


def test_a_tape_too_large_is_not_opened(monkeypatch):
    monkeypatch.setattr("tinygrad_rnn.diagnostics.watching.LARGEST", 1000)
    assert not trained(Adder(nn.RNN), steps=1).warnings


def test_plots_show_the_numbers():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    network = nn.LSTM(3, 4, bidirectional=True, rng=0)
    y, _ = network(numbers(6, 2, 3, dtype=np.float32), lengths=[6, 3])
    loss = (y * y).sum()
    flow = gradient_flow(loss)
    axes = flow.plot(label="LSTM")
    for k, line in enumerate(axes.lines):
        assert np.array_equal(line.get_xdata(), np.arange(6) + 1) and np.array_equal(line.get_ydata(), flow.norms[k])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"LSTM {name}" for name in flow.names]
    assert gradient_flow(loss, y).plot(axes) is axes
    activations = activation_map(y, ["h"])
    figure = activations.plot(sequence=1)
    assert np.array_equal(figure.axes[0].images[0].get_array().filled(np.nan), activations["l0 h"][:, 1].T, equal_nan=True)
    with pytest.raises(OutOfRangeError, match="sequence 2 of a batch of 2"):
        activations.plot(sequence=2)
    gates = gate_statistics(y)
    assert np.allclose(gates.plot().lines[0].get_ydata(), np.nanmean(gates.values["l0 i"], axis=(1, 2)))
    assert np.allclose(gates.scatter().collections[0].get_offsets(), np.stack([gates.shut["l0 i"], gates.open["l0 i"]], axis=1))
    radii = spectral_radius(network)
    points = radii.plot().collections[0].get_offsets()
    assert np.allclose(points[:, 0] + 1j * points[:, 1], radii.eigenvalues["weight_hh_l0 i"])
    assert len(weight_report(network).plot().patches) == 8
    y, _ = network(numbers(6, 2, 3, dtype=np.float32), lengths=[4, 3])
    assert gate_statistics(y).plot().lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    plt.close("all")


def test_matplotlib_loads_with_the_first_plot_alone():
    code = "import sys, tinygrad_rnn as tg; assert 'tinygrad_rnn.diagnostics' not in sys.modules; tg.diagnostics.gradient_flow; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
