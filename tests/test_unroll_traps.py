"""unroll: what is remembered from call to call must not change a later one, nor keep anything alive."""

import dataclasses
import gc
import itertools
import weakref

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.replay import replaying, workspace


def numbers(*shape, seed=0, grad=True):
    return tg.tensor(np.random.default_rng([seed, *shape]).standard_normal(shape), requires_grad=grad)


def agree(step, tensors, x, h):
    """Replay gives what eager mode gives, values and gradients."""
    results = []
    for mode in ("replay", "eager"):
        y, last = tg.unroll(step, x, h, mode=mode)
        leaves = [*(last if isinstance(last, tuple) else (last,)), *([] if y is None else [y])]
        loss = sum(((leaf * leaf).sum() for leaf in leaves), start=tg.tensor(0.0))
        results.append([*leaves, *tg.grad(loss, tensors, allow_unused=True)])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-11, atol=1e-11)


def test_tied_tensors_of_a_pure_step_are_not_those_of_an_untied_one():
    x = numbers(6, 5, 3, grad=False)
    tied = nn.GRU(3, 4, rng=0, dtype="float64")
    tied._cells[0].bias_hh = tied._cells[0].bias_ih
    tied(x)
    results = []
    for mode in ("replay", "eager"):
        network = nn.GRU(3, 4, rng=0, dtype="float64")
        network.mode = mode
        y, _ = network(x)
        y.sum().backward()
        results.append([y.detach().numpy(), *(p.grad.numpy() for p in network.parameters())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@dataclasses.dataclass
class Unhashable:
    w: object

    def __call__(self, x, h):
        h = tg.tanh(x + h @ self.w)
        return h, h


class Slotted:
    __slots__ = ("w",)

    def __init__(self, w):
        self.w = w

    def __call__(self, x, h):
        h = tg.tanh(x + h @ self.w)
        return h, h


@pytest.mark.parametrize("kind", [Unhashable, Slotted])
def test_any_object_that_can_be_called_is_a_step(kind):
    w = numbers(4, 4, seed=1)
    agree(kind(w), [w], numbers(5, 2, 4), numbers(2, 4))


def test_a_state_of_no_axes_stays_an_array():
    _, last = tg.unroll(lambda x, h: (None, h * 0.5 + x), numbers(4), tg.tensor(0.0, dtype=np.float64), mode="replay")
    assert type(last.detach().numpy()) is np.ndarray and last.shape == ()


def once():
    w, x, constant = numbers(4, 4, seed=1), numbers(6, 2, 4), np.ones(4)
    _, last = tg.unroll(lambda x, h: (None, tg.tanh(x @ w * constant + h)), x, numbers(2, 4), mode="replay")
    last.sum().backward()
    return [weakref.ref(a) for a in (w._data, x._data, constant)]


def test_a_step_keeps_nothing_alive_without_the_garbage_collector():
    gc.disable()
    try:
        alive = once()
        assert [ref() is None for ref in alive] == [True] * 3
    finally:
        gc.enable()


def test_kept_views_count_as_memory(monkeypatch):
    monkeypatch.setenv("TINYGRAD_RNN_COMPILE", "never")
    network = nn.LSTM(2, 2, rng=0)
    monkeypatch.setattr(workspace.Pool, "limit", 3_000_000)
    for steps in range(900, 930):
        network(tg.zeros(steps, 1, 2))[0].sum().backward()
    spaces = [space for free in workspace.POOL._free.values() for space in free]
    assert sum(space.views for space in spaces) * 120 <= sum(space.counted for space in spaces) <= 3_000_000


def test_one_weight_may_be_broadcast_to_several_shapes():
    w, row = numbers(seed=1), numbers(4, seed=2)

    def step(x, state):
        a, b = state
        return None, (tg.tanh(a * w + x * row), tg.tanh(b * w + a[:, :2] * row[:2]))

    agree(step, [w, row], numbers(5, 3, 4), (numbers(3, 4), numbers(3, 2)))


def test_a_gradient_that_is_zero_but_for_rounding_is_no_reason_to_refuse_a_plan():
    W, b = numbers(3, 3, seed=1), numbers(3, seed=2)

    def step(x, h):
        k = x + h @ W + b
        k = k - k.mean(axis=0)
        h = tg.tanh(k / tg.sqrt((k * k).mean(axis=0) + 1e-5))
        return h, h

    for dtype in (np.float32, np.float64):
        x, h = numbers(5, 4, 3), numbers(4, 3)
        W, b = (tg.tensor(t.detach().numpy().astype(dtype), requires_grad=True) for t in (W, b))
        assert tg.unroll.explain(step, x.astype(dtype), h.astype(dtype)).mode == "replay"


def test_the_plan_that_was_used_last_is_the_last_to_go():
    network = nn.GRU(3, 4, rng=0)
    network(tg.zeros(5, 2, 3))[0].sum().backward()
    for k in range(replaying.LIMIT - 1):
        tg.unroll(lambda x, h, k=k: (x, h * (k + 0.25)), numbers(3, 2, 2), numbers(2, 2), mode="replay")
        network(tg.zeros(5, 2, 3))[0].sum().backward()
    keys = list(replaying.PLANS)
    assert len(keys) == replaying.LIMIT and len(replaying.PLANS[keys[-1]].laid.instructions) > 10


def test_a_gru_keeps_no_more_than_its_two_gradients_of_gates_for_all_steps():
    network = nn.GRU(8, 16, rng=0)
    plan = tg.unroll.explain(network._step(network._cells[0]), tg.zeros(50, 4, 8), tg.zeros(4, 16))
    stacked = [row for row in plan.rows if row[0].startswith("backward, replayed") and row[5] == "all steps"]
    assert [row[4] for row in stacked] == ["(4, 48)", "(4, 48)"]


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_whichever_weights_are_frozen_a_layer_replays_and_the_others_get_the_gradients_of_eager_steps(kind):
    x, w = numbers(5, 3, 2), numbers(5, 3, 4, seed=9)._data
    for frozen in itertools.product([False, True], repeat=5):
        network = getattr(nn, kind)(2, 4, rng=0, dtype=np.float64)
        tensors = [x, *network.parameters()]
        for t, fixed in zip(tensors, frozen, strict=True):
            t.requires_grad_(not fixed)
        free = [t for t in tensors if t.requires_grad]
        if not free:
            continue
        found = []
        for mode in "replay", "eager":
            network.mode = mode
            found.append([g._data for g in tg.grad(network(x)[0], free, w)])
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_an_output_that_is_a_part_of_what_is_kept_stays_what_it_was():
    W, h = numbers(3, 4, seed=1), numbers(2, 4)

    def step(x, h):
        p = x @ W
        return p[:, :2], tg.tanh(h + p * p)

    first = tg.unroll(step, numbers(5, 2, 3), h, mode="replay")[0].detach()
    before = first.numpy().copy()
    for k in range(3):
        ys, last = tg.unroll(step, numbers(5, 2, 3, seed=k), h, mode="replay")
        (ys.sum() + last.sum()).backward()
    np.testing.assert_array_equal(first.numpy(), before)


def test_parts_that_come_and_go_are_seen_by_the_next_walk():
    model = nn.Sequential(nn.Linear(2, 2, rng=0), nn.Linear(2, 2, rng=1))
    model(tg.zeros(1, 2))
    assert len(model.parameters()) == 4
    model.append(nn.Linear(2, 2, rng=2))
    assert [name for name, _ in model.named_parameters()][-1] == "2.bias"
    model[0].bias = None
    assert len(model.parameters()) == 5
    model[1].more = [nn.Linear(2, 2, rng=3)]
    assert len(model.parameters()) == 7
    model[1].more.append(nn.Linear(2, 2, rng=4))
    assert len(model.parameters()) == 9
    del model[1].more
    assert len(model.parameters()) == 5
    other = nn.Sequential(nn.ReLU(), model[1])
    for _ in range(2):
        for owner, name in (model, "1"), (other, "1"):
            owner(tg.zeros(1, 2))
            assert owner[1]._name == name and owner[1].weight.name == f"{name}.weight"
