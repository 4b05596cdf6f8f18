"""The model of a picture: what it says about a computation, beside what the computation does."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.core.tape import Product
from tinygrad_rnn.replay.expanding import Flow, expanded, norm


def numbers(*shape, seed=0):
    return tg.tensor(np.random.default_rng(seed).standard_normal(shape))


def listed(tape):
    """A tape as plain values: operations with their operands by number."""
    number = {record: k for k, record in enumerate(tape.records)}
    rows = []
    for record in tape.records:
        if record.is_leaf:
            rows.append(record.name)
        else:
            operands = tuple(number[o] if isinstance(o, tg.Record) else str(o) for o in record.operands)
            rows.append((record.op.name, record.scope, record.shape, str(record.dtype), operands, str(record.static)))
    return rows


NETWORKS = st.fixed_dictionaries(
    {"cell": st.sampled_from([nn.RNN, nn.GRU, nn.LSTM]), "num_layers": st.integers(1, 2), "bidirectional": st.booleans(), "dropout": st.sampled_from([0.0, 0.4])}
)


@settings(max_examples=25, deadline=None)
@given(options=NETWORKS, steps=st.integers(3, 6), ragged=st.booleans(), last=st.booleans(), seed=st.integers(0, 9))
def test_a_replayed_unroll_opens_into_the_records_of_its_steps(options, steps, ragged, last, seed):
    """The same records with and without values, before and after a backward pass; the same gradients as a tape of single operations."""
    cell = options.pop("cell")
    lengths = [steps, 1, steps - 1] if ragged else None
    norms = []
    for mode in ("auto", "eager"):
        network = cell(3, 4, rng=seed, **options)
        network.mode = mode
        y, state = network(numbers(steps, 3, 3, seed=seed).astype(np.float32), lengths=lengths)
        end = state[0] if cell is nn.LSTM else state
        loss = ((end if last else y) ** 2).mean()
        flow = Flow(loss)
        rows = listed(flow)
        assert listed(expanded(loss)) == listed(expanded(loss, values=True)) == rows
        loss.backward()
        assert listed(expanded(loss)) == rows
        assert any(isinstance(row, tuple) and row[1] and row[1][-1][1] == steps - 1 for row in rows)
        for record in flow.records:
            if record.is_leaf:
                assert flow.norms[record] == pytest.approx(np.linalg.norm(record.tensor().grad.numpy()), rel=1e-4, abs=1e-9)
        norms.append([flow.norms[r] for r in flow.records if not r.is_leaf])
    if not ragged:
        assert norms[0] == pytest.approx(norms[1], rel=1e-3, abs=1e-9)


def elman(steps, untied=False):
    """A loop of single operations: the loss, its states and its weights, one for each step or the same."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 4)) * 0.6
    Ws = [tg.tensor(weight, requires_grad=True, name="W")] * steps
    if untied:
        Ws = [tg.tensor(weight, requires_grad=True, name="W") for _ in range(steps)]
    h, states = tg.tensor(rng.standard_normal((2, 4)), name="h0"), []
    for t in range(steps):
        with tg.scope("step", step=t):
            h = tg.tanh(h @ Ws[t])
        states.append(h)
    return (h * h).sum(), states, Ws


def test_norms_on_states_and_shares_of_a_weight_are_those_of_its_untied_copies():
    picture = tg.graph(elman(5)[0], gradients=True)
    loss, states, copies = elman(5, untied=True)
    expected = [float(np.linalg.norm(g.numpy())) for g in tg.grad(loss, copies, retain_graph=True)]
    (weight,) = picture.parameters
    assert weight.uses == 5 and [weight.shares[t + 1] for t in range(5)] == pytest.approx(expected)
    loss, states, Ws = elman(5)
    assert weight.norm == pytest.approx(float(np.linalg.norm(tg.grad(loss, Ws[0], retain_graph=True).numpy())))
    arriving = [float(np.linalg.norm(g.numpy())) for g in tg.grad(loss, states)]
    assert [n.norm for n in picture.nodes if n.state == "h" and n.kind == "op"] == pytest.approx(arriving)
    carried = [edge for edge in picture.edges if edge.kind == "state" and edge.tracked]
    assert [edge.norm for edge in carried] == pytest.approx(arriving[:-1])
    assert [(edge.tail, edge.head) for edge in carried] == [(f"step{t}-h", f"step{t + 1}-matmul") for t in range(1, 5)]


def test_looking_changes_nothing():
    network = nn.LSTM(3, 4, rng=0)
    _, (h, _) = network(numbers(6, 2, 3).astype(np.float32))
    loss = h.sum()
    before = len(tg.tape(loss))
    picture = tg.graph(loss, gradients=True, values=True)
    assert all(p.grad is None for p in network.parameters()) and len(tg.tape(loss)) == before
    loss.backward()
    assert all(p.grad is not None for p in network.parameters())
    total = {p.name: p.norm for p in picture.parameters}
    assert total["weight_hh_l0"] == pytest.approx(np.linalg.norm(network.weight_hh_l0.grad.numpy()), rel=1e-5)


def test_structure_is_left_after_backward_and_gradients_are_not():
    _, h = nn.GRU(3, 4, rng=0)(numbers(6, 2, 3).astype(np.float32))
    loss = h.sum()
    fresh = tg.graph(loss).svg()
    loss.backward()
    assert tg.graph(loss).svg() == fresh
    for options in ({"gradients": True}, {"values": True}):
        with pytest.raises(tg.errors.TapeError, match="retain_graph=True"):
            tg.graph(loss, **options)


@pytest.mark.parametrize("mode", ["auto", "eager"])
def test_an_lstm_is_drawn_as_its_textbook_has_it(mode):
    network = nn.LSTM(6, 8, rng=0)
    network.mode = mode
    _, (h, _) = network(numbers(3, 4, 6).astype(np.float32))
    picture = tg.graph((h * h).mean(), gradients=True)
    assert [frame.label for frame in picture.clusters] == ["t = 1", "t = 2", "t = 3"]
    assert sorted(rail.state for rail in picture.rails) == ["c", "h"]
    gates = picture.node("step2-split")
    assert [port.label for port in gates.ports] == ["i σ", "f σ", "g tanh", "o σ"] and all(port.shape == (4, 8) for port in gates.ports)
    assert picture.node("step2-c").label == "+ c2" and picture.node("step3-h").label == "⊙ h3" and picture.node("h0").kind == "state"
    assert {p.symbol: (p.shape, p.uses) for p in picture.parameters} == {"W_ih": ((32, 6), 3), "W_hh": ((32, 8), 3), "b": ((32,), 3)}
    assert picture.node("step2-x2").label == "x2 4×6"
    (from_x,) = [edge for edge in picture.edges if edge.tail == "step2-x2"]
    assert from_x.flow == "unasked" and not from_x.tracked
    forgotten = [edge for edge in picture.edges if edge.tail == "step1-split" and edge.tail_port == "p1"]
    assert [edge.flow for edge in forgotten] == ["zero"], "c0 is zero, so that the forget gate of the first step has no gradient at all"
    assert not any(node.id.startswith("param") for node in picture.nodes), "no edges from a weight to every step"


def test_depths():
    _, (h, _) = nn.LSTM(6, 8, rng=0)(numbers(4, 4, 6).astype(np.float32))
    loss = h.sum()
    counts = {depth: len(tg.graph(loss, depth=depth).clusters[1].nodes) for depth in ("cell", "op", "tape")}
    # With the step's input: one box, nine, and all seventeen records.
    assert counts == {"cell": 2, "op": 10, "tape": 18}


def test_folding_is_by_structure():
    network = nn.LSTM(3, 4, rng=0)
    _, (h, _) = network(numbers(60, 2, 3).astype(np.float32))
    loss = h.sum()
    picture = tg.graph(loss, gradients=True)
    assert [frame.steps for frame in picture.clusters] == [1, 1, 56, 1, 1] and "56 of 60" in picture.caption
    rail = next(node for node in picture.nodes if node.kind == "rail" and node.state == "h")
    whole = tg.graph(loss, gradients=True, fold=None)
    assert len(whole.clusters) == 60 and not whole.caption
    assert rail.series == pytest.approx([n.norm for n in whole.nodes if n.state == "h" and n.kind == "op" and 3 <= n.step <= 58])
    assert [frame.steps for frame in tg.graph(loss, fold=4).clusters] == [1] * 4 + [52] + [1] * 4
    assert [p.shares for p in picture.parameters] == [p.shares for p in whole.parameters]


def odd_one(step):
    """Twelve steps, of which one may do something else with the same operations."""
    W = tg.tensor(np.eye(3) * 0.5, requires_grad=True, name="W")
    U = tg.tensor(np.eye(3) * 0.5, requires_grad=True, name="U")
    h = tg.tensor(np.ones((2, 3)))
    outputs = []
    for t in range(12):
        with tg.scope("step", step=t):
            a, b = h @ W, tg.tanh(h @ U)
            h = step(t, a, b)
        outputs.append(h)
    return h.sum(), outputs


@pytest.mark.parametrize(
    ("step", "folds"),
    [
        (lambda t, a, b: a - b, [8]),
        (lambda t, a, b: b - a if t == 6 else a - b, [4, 3]),
        (lambda t, a, b: a - b if t == 6 else a + b, [4, 3]),
        (lambda t, a, b: (a - b) * (0.5 if t == 6 else 0.25), [4, 3]),
        # The step after it reads what stands at another place of its step.

        (lambda t, a, b: a - a if t == 6 else a - b, [4, 2]),
    ],
    ids=["all alike", "operands swapped", "another operation", "another number", "another operand"],
)  # fmt: skip
def test_a_step_that_differs_is_not_folded(step, folds):
    loss, _ = odd_one(step)
    assert [frame.steps for frame in tg.graph(loss, fold=2).clusters if frame.folded] == folds


def test_a_step_whose_result_is_read_elsewhere_is_not_folded():
    loss, outputs = odd_one(lambda t, a, b: a - b)
    picture = tg.graph(loss + outputs[6].sum(), fold=2)
    assert [frame.steps for frame in picture.clusters if frame.folded] == [4, 3] and picture.node("step7-h").kind == "op"


def test_a_swapped_operand_is_seen_where_replay_would_not_be():
    """Two weights of one shape, exchanged at one step."""
    W, U = (tg.tensor(np.eye(3) * 0.5, requires_grad=True, name=name) for name in "WU")
    h = tg.tensor(np.ones((2, 3)))
    for t in range(12):
        with tg.scope("step", step=t):
            h = tg.tanh(h @ W) * tg.sigmoid(h @ U) if t != 6 else tg.tanh(h @ U) * tg.sigmoid(h @ W)
    assert [frame.steps for frame in tg.graph(h.sum(), fold=2).clusters if frame.folded] == [4, 3]


def test_tied_weights_are_one():
    E = tg.tensor(np.random.default_rng(0).standard_normal((7, 4)), requires_grad=True, name="E")
    h = tg.embedding(np.array([1, 2]), E)
    for t in range(3):
        with tg.scope("step", step=t):
            h = tg.tanh(h)
    (parameter,) = tg.graph((h @ E.T).sum()).parameters
    assert parameter.name == "E" and parameter.uses == 2


def test_flows():
    def chain(scale, steps=12):
        W = tg.tensor([[scale]], requires_grad=True, name="W")
        h = tg.tensor([[1e-20]], requires_grad=True, name="h0")
        with np.errstate(all="ignore"):
            for t in range(steps):
                with tg.scope("step", step=t):
                    h = h @ W
            return tg.graph(h.sum(), gradients=True, fold=None)

    small = {e.flow for e in chain(0.1).edges if e.step == 2}
    large = {e.flow for e in chain(10.0).edges if e.step == 2}
    assert small == {"vanishing"} and large == {"exploding"}
    assert {e.flow for e in chain(1e30).edges if e.step == 2} == {"inf"}
    assert {e.flow for e in chain(float("nan")).edges if e.step == 2} == {"nan"}
    assert "NaN" in chain(float("nan")).svg() and "∞" in chain(1e30).svg()
    picture = chain(10.0)
    assert 'class="edge state hot"' in picture.svg() and 'class="edge state cold"' in chain(0.1).svg()


@pytest.mark.parametrize("value", [1e-30, 1e-22, 1.0, 1e22, 1e30])
def test_norms_neither_overflow_nor_vanish_in_float32(value):
    w = tg.tensor(np.full(4, 1.0, np.float32), requires_grad=True, name="w")
    flow = Flow((w * np.float32(value)).sum())
    assert flow.norms[tg.tape(w * 1.0).leaves[0]] == pytest.approx(2 * value, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(scale=st.sampled_from([1e-28, 1e-20, 1e-3, 1.0, 1e18]), batch=st.integers(1, 4), rows=st.integers(1, 5), columns=st.integers(1, 5), seed=st.integers(0, 9))
def test_the_norm_of_a_product_needs_no_product(scale, batch, rows, columns, seed):
    rng = np.random.default_rng(seed)
    x, g = (rng.standard_normal((batch, n)).astype(np.float32) for n in (rows, columns))
    with np.errstate(all="ignore"):
        found = norm(Product((x, g * np.float32(scale))))
    assert found == pytest.approx(float(np.linalg.norm(x.T.astype(float) @ (g * np.float32(scale)).astype(float))), rel=1e-3, abs=0)


def test_each_edge_has_the_gradient_of_its_own_operand():
    rng = np.random.default_rng(0)
    a, b = (tg.tensor(rng.standard_normal((2, 3)), requires_grad=True, name=name) for name in "ab")
    picture = tg.graph((tg.tanh(a) * tg.exp(b)).sum(), gradients=True)
    norms = {edge.tail: edge.norm for edge in picture.edges if edge.head == "multiply"}
    assert norms == pytest.approx({"tanh": np.linalg.norm(np.exp(b.numpy())), "exp": np.linalg.norm(np.tanh(a.numpy()))})


def test_slices_are_ports_only_if_they_share_nothing():
    def split(first, second):
        W = tg.tensor(np.eye(4), requires_grad=True, name="W")
        h = tg.tensor(np.ones((2, 4)))
        for t in range(3):
            with tg.scope("step", step=t):
                a = h @ W
                h = tg.concatenate([tg.tanh(a[..., first]), a[..., second] * 2.0], axis=-1)
        return [[port.label for port in node.ports] for node in tg.graph(h.sum()).nodes if node.step == 2 and node.ports]

    assert split(slice(0, 2), slice(2, 4)) == [["0:2 tanh", "2:4"]]
    assert split(slice(0, 2), slice(1, 3)) == []


def test_values_are_those_of_the_steps():
    network = nn.LSTM(3, 4, rng=0)
    _, (h, _) = network(x := numbers(4, 2, 3).astype(np.float32))
    picture = tg.graph(h.sum(), values=True)
    network.mode = "eager"
    for t in range(4):
        _, (h, c) = network(x[: t + 1])
        for name, value in (("h", h), ("c", c)):
            assert picture.node(f"step{t + 1}-{name}").value == pytest.approx(np.linalg.norm(value.numpy()), rel=1e-5)
    assert picture.parameters[0].value == pytest.approx(np.linalg.norm(network.weight_ih_l0.numpy()), rel=1e-5)
    assert picture.node("step2-add").value > 0, "the value of an addition is kept by no rule, and computed again"


def test_steps_are_found_without_scopes():
    W = tg.tensor(np.eye(3) * 0.5, requires_grad=True, name="W")
    h = tg.tensor(np.ones((2, 3)), name="h0")
    for _ in range(9):
        h = tg.tanh(h @ W + 1.0)
    picture = tg.graph((h * h).sum(), gradients=True, fold=2)
    assert [frame.label for frame in picture.clusters] == ["t = 1", "t = 2", "t = 3 … 7", "t = 8", "t = 9"] and "repeats" in picture.caption
    layers = [tg.tensor(np.eye(3), requires_grad=True, name=f"W{k}") for k in range(6)]
    h = tg.tensor(np.ones((2, 3)))
    for W in layers:
        h = tg.tanh(h @ W)
    assert not tg.graph(h.sum()).clusters, "layers of their own weights are no steps"


def test_a_detached_state_is_a_cut():
    network = nn.LSTM(3, 4, rng=0)
    x = numbers(4, 2, 3).astype(np.float32)
    for mode in ("auto", "eager"):
        network.mode = mode
        _, state = network(x)
        _, (h, _) = network(x, tuple(s.detach() for s in state))
        for gradients in (False, True):
            picture = tg.graph(h.sum(), gradients=gradients)
            assert [node.id for node in picture.nodes if node.cut] == ["c0", "h0"] or [node.id for node in picture.nodes if node.cut] == ["h0", "c0"]
            assert {edge.tail for edge in picture.edges if edge.kind == "cut"} == {"h0", "c0"} and "✂" in picture.node("h0").label
    _, (h, _) = network(x)
    assert not any(node.cut for node in tg.graph(h.sum()).nodes)


def test_rolled():
    _, (h, _) = nn.LSTM(3, 4, rng=0)(numbers(8, 2, 3).astype(np.float32))
    picture = tg.graph(h.sum(), rolled=True)
    assert [frame.label for frame in picture.clusters] == ["step t"]
    assert sorted((edge.tail, edge.state) for edge in picture.edges if edge.kind == "loop") == [("stept-c", "c"), ("stept-h", "h")]
    assert all(p.uses == 8 for p in picture.parameters)


class Residual(nn.Module):
    """Its first operation is a constant at the first step, where neither operand needs a gradient."""

    def __init__(self, n, hidden_size):
        self.hidden_size = hidden_size
        self.linear = nn.Linear(n + hidden_size, hidden_size, rng=0)

    def forward(self, x, h):
        return h + tg.tanh(self.linear(tg.concatenate([x, h], axis=-1)))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_a_first_step_of_fewer_records_keeps_to_the_rails_and_places_of_the_others(steps, bidirectional):
    y, _ = nn.Recurrent(lambda n: Residual(n, 4), 3, bidirectional=bidirectional)(tg.zeros(steps, 2, 3))
    picture = tg.graph((y * y).sum(), gradients=True)
    assert [(rail.state, rail.lane) for rail in picture.rails] == [("h", "l0"), ("h", "l0_reverse")][: 1 + bidirectional]
    for rail in picture.rails:
        own = [node for node in picture.nodes if node.lane in ("", rail.lane)]
        order = range(steps, 0, -1) if rail.reverse else range(1, steps + 1)
        boxes = [{node.label.rstrip("0123456789"): node for node in own if node.step == t and node.kind == "op"} for t in order]
        assert [list(step) for step in boxes] == [["@ W", "+ b", "tanh", "+ h"]] + [["concat", "@ W", "+ b", "tanh", "+ h"]] * (steps - 1)
        left = [picture.clusters[t - 1].x for t in order]
        assert all(
            step[label].y == node.y and step[label].x - x == pytest.approx(node.x - left[0]) for step, x in zip(boxes, left, strict=True) for label, node in boxes[0].items()
        )
        (first,) = [node.id for node in own if node.kind == "state"]
        made = [step["+ h"].id for step in boxes]
        ids = {node.id for node in own}
        carried = sorted((edge.tail, edge.head) for edge in picture.edges if edge.kind == "state" and edge.head in ids)
        assert carried == sorted([(first, made[0])] + [(a, step[label].id) for a, step in zip(made, boxes[1:], strict=False) for label in ("concat", "+ h")])


class Gated(Residual):
    """Two states, of which the first step reads none that needs a gradient."""

    def initial_state(self, batch):
        return tg.zeros(*batch, self.hidden_size), tg.zeros(*batch, self.hidden_size)

    def forward(self, x, state):
        h, c = state
        c = c * 0.5 + tg.tanh(self.linear(tg.concatenate([x, h], axis=-1)))
        h = tg.sin(c)
        return h, (h, c)


def test_a_first_step_of_fewer_records_stands_on_the_rows_of_the_others():
    y, _ = nn.Recurrent(lambda n: Gated(n, 4), 3)(tg.zeros(4, 2, 3))
    picture = tg.graph((y * y).sum())
    assert sorted(rail.state for rail in picture.rails) == ["c", "h"]
    boxes = [{n.label.rstrip("0123456789"): (n.x - picture.clusters[t].x, n.y) for n in picture.nodes if n.step == t + 1 and n.kind == "op"} for t in range(4)]
    assert len(boxes[0]) == 5 and len(boxes[1]) == 7
    for step in boxes[1:]:
        assert {label: step[label] for label in boxes[0]} == {label: pytest.approx(place) for label, place in boxes[0].items()}


def test_each_boundary_of_bidirectional_layers_is_a_bar_of_its_own():
    model = nn.SequenceTagger(27, 16, 2, cell="rnn", num_layers=2, bidirectional=True, rng=0)
    picture = tg.graph((model(np.zeros((3, 2), int)) ** 2).sum(), depth="cell")
    lane = {node.id: node.lane for node in picture.nodes}
    height = {node.id: node.y for node in picture.nodes}
    bars = sorted((node for node in picture.nodes if node.kind == "bar"), key=lambda node: -node.y)
    below = [{lane[edge.tail] for edge in picture.edges if edge.head == bar.id} - {""} for bar in bars]
    above = [{lane[edge.head] for edge in picture.edges if edge.tail == bar.id} - {""} for bar in bars]
    first, second = {"l0", "l0_reverse"}, {"l1", "l1_reverse"}
    assert (below, above) == ([set(), first, second], [first, second, set()])
    assert all(height[edge.tail] > height[edge.head] for edge in picture.edges for bar in bars if bar.id in (edge.tail, edge.head) and lane[edge.tail] != lane[edge.head])


def test_a_module_draws_itself():
    model = nn.LanguageModel(9, 5, rng=0)
    picture = model.graph(np.zeros((3, 2), int), depth="cell", gradients=True)
    assert picture.name == "LanguageModel" and picture.steps == 3 and all(p.norm is not None for p in picture.parameters)
    net = nn.Sequential(nn.Linear(4, 3, rng=0), nn.Tanh())
    chain = net.graph(tg.zeros(2, 4))
    assert [(e.tail, e.head, e.label) for e in chain.edges if e.kind == "flow"] == [("matmul", "add", "2×3"), ("add", "tanh", "2×3")]


def test_a_node_knows_the_line_that_made_it():
    class Mine(nn.Module):
        def __init__(self):
            self.W = nn.Parameter(tg.eye(3))

        def forward(self, x):
            y = x @ self.W
            return tg.tanh(y)

    nodes = Mine().graph(tg.ones(2, 3)).nodes
    lines = {n.op: n.source for n in nodes if n.kind in ("op", "output")}
    file, _, line = lines["matmul"].partition(":")
    assert file == "test_drawing.py" and lines["tanh"] == f"{file}:{int(line) + 1}"


def test_bad_arguments():
    w = tg.ones(3, requires_grad=True)
    for options, words in (
        ({"depth": "deep"}, "depth must be one of op, cell, tape"),
        ({"fold": 0}, "fold must be"),
        ({"fold": True}, "fold must be"),
        ({"theme": "pink"}, "theme must be"),
    ):
        with pytest.raises(ValueError, match=words):
            tg.graph(w.sum(), **options)
    with pytest.raises(tg.errors.TapeError, match="no graph"):
        tg.graph(tg.ones(3))
    with pytest.raises(TypeError, match="expected a tensor"):
        tg.graph([1.0])


def test_files(tmp_path, monkeypatch):
    picture = tg.graph(elman(3)[0], gradients=True)
    picture.save(tmp_path / "a.svg")
    picture.save(str(tmp_path / "a.dot"))
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == picture.svg() and (tmp_path / "a.dot").read_text(encoding="utf-8") == picture.dot
    with pytest.raises(ValueError, match=r"ends in \.svg"):
        picture.save(tmp_path / "a.bmp")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    with pytest.raises(RuntimeError, match=r"graphviz-pure"):
        picture.save(tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_a_notebook_never_fails(monkeypatch):
    picture = tg.graph(elman(3)[0])
    monkeypatch.setenv("PATH", "")
    shown = picture._repr_mimebundle_()
    assert shown["image/svg+xml"].startswith("<svg") and "3 time steps" in shown["text/plain"]
    picture.nodes[0].x = "nowhere"
    assert "cannot be drawn" in picture._repr_mimebundle_()["text/plain"]


def test_the_model_can_be_changed():
    picture = tg.graph(elman(3)[0])
    node = picture.node("step2-matmul")
    node.label = "mine"
    picture.nodes.append(type(node)("note", "a note", x=900.0, y=400.0, width=60.0, height=24.0))
    picture.arrange()
    assert ">mine</text>" in picture.svg() and '"mine"' in picture.dot and picture.box[0] + picture.box[2] > 930
    with pytest.raises(KeyError, match="step2-mat"):
        picture.node("step2-mat")


SCRIPT = """
import sys, json, numpy as np, tinygrad_rnn as tg
from tinygrad_rnn import nn
x = np.random.default_rng(0).standard_normal((40, 2, 3)).astype(np.float32)
y, _ = nn.LSTM(3, 4, num_layers=2, bidirectional=True, rng=0)(x)
p = tg.graph((y * y).mean(), gradients=True)
import hashlib
print(json.dumps([hashlib.sha256(t.encode()).hexdigest() for t in (p.svg(), p.dot)]))
"""


def test_the_same_bytes_in_every_process():
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", SCRIPT], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True).stdout)
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1]


def test_graphviz_draws_every_node_where_the_model_has_it():
    graphviz = pytest.importorskip("graphviz")
    picture = tg.graph(elman(30)[0], gradients=True, fold=2)
    try:
        plain = graphviz.Source(picture.dot, engine="neato").pipe(format="json", neato_no_op=2)
    except graphviz.ExecutableNotFound:
        pytest.skip("Graphviz's programs are not installed")
    drawn = {o["name"]: tuple(map(float, o["pos"].split(","))) for o in json.loads(plain)["objects"] if "pos" in o}
    assert set(drawn) == {n.id for n in picture.nodes} | {p.id for p in picture.parameters}
    shift = [(drawn[n.id][0] - n.x, drawn[n.id][1] + n.y) for n in picture.nodes]
    assert max(abs(a - shift[0][0]) + abs(b - shift[0][1]) for a, b in shift) < 1


def test_long_pictures_stay_small():
    x = numbers(1000, 4, 8).astype(np.float32)
    _, (h, _) = nn.LSTM(8, 8, rng=0)(x)
    picture = tg.graph(h.sum(), gradients=True)
    assert len(picture.svg()) < 60_000 and len(picture.dot) < 60_000
    assert [frame.label for frame in picture.clusters][2] == "t = 3 … 998" and math.isfinite(picture.reference)


def test_a_million_is_not_needed_to_be_slow():
    """A chain of 20,000 records is folded; nothing in it is as deep as the chain."""
    W = tg.tensor(np.eye(2), requires_grad=True, name="W")
    h = tg.tensor(np.ones((1, 2)))
    for _ in range(10_000):
        h = tg.tanh(h @ W)
    assert len(tg.graph(h.sum()).nodes) < 40


def test_lines_from_weights_to_their_uses_are_drawn_on_request():
    _, h = nn.RNN(3, 4, rng=0)(tg.zeros(3, 2, 3))
    loss = h.sum()
    assert not [edge for edge in tg.graph(loss).edges if edge.kind == "hub"]
    picture = tg.graph(loss, hubs=True)
    hubs = {(edge.tail, edge.head) for edge in picture.edges if edge.kind == "hub"}
    assert hubs == {(p.id, node.id) for p in picture.parameters for node in picture.nodes if p.id in node.parameters}
    assert len(hubs) == 9
    assert picture.svg().count('class="edge hub') == picture.dot.count('class="hub') == 9
    assert picture.html()
