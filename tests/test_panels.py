"""Gates in panels, sums taken early, pure steps: what a plan does with its memory changes no result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.replay import Pure, replaying

@pytest.fixture(autouse=True, scope="module")
def in_numpy():
    """Machine code lays out its memory for itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYGRAD_RNN_COMPILE", "never")
        replaying.PLANS.clear()
        yield
    replaying.PLANS.clear()


ACTIVATIONS = {"sigmoid": tg.sigmoid, "tanh": tg.tanh, "relu": tg.relu, "none": lambda a: a, "square": tg.square}


def weights(*shape, seed):
    return tg.tensor(np.random.default_rng([seed, *shape]).standard_normal(shape) * 0.4, requires_grad=True)


class Gated:
    """A cell whose gates are slices of one block, taken together or one by one, in any order."""

    def __init__(self, width, groups, activations, order, *, twice, whole, row):
        self.width, self.groups, self.activations, self.order, self.twice, self.whole, self.row = width, groups, activations, order, twice, whole, row
        columns = width * sum(groups)
        self.W, self.U, self.b = weights(3, columns, seed=1), weights(width, columns, seed=2), weights(*((1, columns) if row else (columns,)), seed=3)
        self.scale = weights(columns, seed=4)

    @property
    def tensors(self):
        return [self.W, self.U, self.b, self.scale]

    def __call__(self, x, h):
        p, q = x @ self.W + self.b, h @ self.U
        a = p + q * self.scale if self.twice else p + q
        gates, start = [], 0
        for count, name in zip(self.groups, self.activations, strict=True):
            block = ACTIVATIONS[name](a[:, start : start + count * self.width] if count * self.width < a.shape[1] else a)
            gates += [block[:, k * self.width : (k + 1) * self.width] for k in range(count)] if count > 1 else [block]
            start += count * self.width
        if self.twice:
            gates[0] = gates[0] + q[:, : self.width]
        new = h
        for k, gate in enumerate([gates[k % len(gates)] for k in self.order]):
            new = new * gate if k % 2 else tg.tanh(new + gate)
        return (a if self.whole else None), new


def run(cell, x, h, mode, lengths, reverse):
    outputs, last = tg.unroll(cell, x, h, mode=mode, lengths=lengths, reverse=reverse)
    loss = (last * last).sum() + (0 if outputs is None else tg.sin(outputs).sum())
    tensors = [*cell.tensors, x, h]
    return [last, *([] if outputs is None else [outputs]), *tg.grad(loss, tensors, allow_unused=True)]


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    st.integers(1, 7),
    st.sampled_from([1, 5, 8, 16]),
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(sorted(ACTIVATIONS))), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_gates_in_panels_are_the_gates(batch, width, groups, order, twice, whole, row, reverse, padded):
    replaying.PLANS.clear()
    cell = Gated(width, [count for count, _ in groups], [name for _, name in groups], order, twice=twice, whole=whole, row=row)
    x, h = weights(5, batch, 3, seed=5), weights(batch, width, seed=6)
    lengths = [5 - k % 3 for k in range(batch)] if padded else None
    for a, b in zip(run(cell, x, h, "replay", lengths, reverse), run(cell, x, h, "eager", lengths, reverse), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            scale = float(abs(b.detach().numpy()).max()) + 1e-300
            assert a.shape == b.shape
            assert abs(a.detach().numpy() - b.detach().numpy()).max() <= 1e-12 * scale
    (plan,) = replaying.PLANS.values()
    panelled = batch >= 4 and width >= 8 and sum(count for count, _ in groups) > 1 and not whole
    assert bool(plan.widths) == panelled


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_the_gates_of_the_built_in_cells_are_in_panels(kind):
    replaying.PLANS.clear()
    network = getattr(nn, kind)(3, 16, rng=0)
    network(tg.zeros(4, 4, 3))
    (plan,) = replaying.PLANS.values()
    assert set(plan.widths.values()) == {16}


def test_a_weight_that_a_step_transposes_gets_no_gradient_a_step():
    layer = nn.Linear(8, 8, rng=0)
    plan = tg.unroll.explain(lambda x, h: (None, tg.tanh(x + layer(h) * 2)), tg.zeros(9, 4, 8), tg.zeros(4, 8))
    sums = [row for row in plan.rows if row[0].startswith("backward, deferred") and row[4] in ("(8, 8)", "(8,)")]
    assert len(sums) >= 3
    assert {row[5] for row in sums} == {"summed"}


def test_a_pure_step_is_not_run_again_and_sees_other_weights_and_shapes():
    calls = []

    def bound(W, b=None):
        def step(x, h):
            calls.append(x.shape)
            h = tg.tanh(x + h @ W + (0 if b is None else b))
            return h, h

        return Pure(step, ("test_panels", b is None), [W] if b is None else [W, b])

    W, V, b = weights(4, 4, seed=0), weights(4, 4, seed=1), weights(4, seed=2)
    for steps, batch, made in [(5, 2, (W,)), (5, 2, (V,)), (7, 2, (W,)), (5, 3, (V,)), (5, 2, (W, b)), (5, 2, (V, b)), (5, 2, (W,))]:
        x, h = weights(steps, batch, 4, seed=3), weights(batch, 4, seed=4)
        ours = tg.unroll(bound(*made), x, h, mode="replay")[0]
        theirs = tg.unroll(bound(*made), x, h, mode="eager")[0]
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-14)
        for g, e in zip(tg.grad(ours.sum(), made), tg.grad(theirs.sum(), made), strict=True):
            np.testing.assert_allclose(g.numpy(), e.numpy(), rtol=1e-12)
    calls.clear()
    with tg.no_grad():
        tg.unroll(bound(W), x, h)
        tg.unroll(bound(V), x, h)
    assert len(calls) == 2
    tg.unroll(bound(V), x, h)
    tg.unroll(bound(W, b), x, h)
    assert len(calls) == 2


def test_forward_alone_and_what_needs_no_gradient_make_plans_of_their_own():
    network = nn.LSTM(3, 8, rng=0)
    x = weights(6, 4, 3, seed=0).astype(np.float32).detach()
    with tg.no_grad():
        silent = network(x)[0]
    assert not silent.requires_grad
    loud = network(x)[0]
    np.testing.assert_array_equal(silent.numpy(), loud.detach().numpy())
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    assert not network(x)[0].requires_grad
