"""Recurrent networks against PyTorch's, in every combination of their options; lengths, states, cells of one's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn

KINDS = {"RNN": nn.RNN, "relu": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM, "projected": nn.LSTM}
EXTRA = {"relu": {"nonlinearity": "relu"}, "projected": {"proj_size": 2}}


@st.composite
def networks(draw):
    kind = draw(st.sampled_from(list(KINDS)))
    options = {
        "num_layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        **EXTRA.get(kind, {}),
    }
    form = draw(st.sampled_from(["batch", "unbatched", "lengths"]))
    return kind, options, form, draw(st.booleans()), draw(st.integers(0, 2**32 - 1))


def scatter_loss(parts, weights):
    return sum((part * w).sum() for part, w in zip(parts, weights, strict=True))


@settings(derandomize=True, deadline=None, max_examples=120)
@given(networks())
def test_outputs_and_gradients_are_those_of_pytorch(drawn):
    torch = pytest.importorskip("torch")
    kind, options, form, given_state, seed = drawn
    rng = np.random.default_rng(seed)
    T, B, F, H = (int(rng.integers(1, 6)) for _ in range(4))
    H += 2
    ours = KINDS[kind](F, H, dtype=np.float64, rng=rng, **options)
    theirs = getattr(torch.nn, "LSTM" if kind == "projected" else "RNN" if kind == "relu" else kind)(F, H, dtype=torch.float64, **options)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    theirs.load_state_dict({name: torch.tensor(value.numpy()) for name, value in ours.state_dict().items()})

    shape = (T, F) if form == "unbatched" else (B, T, F) if options["batch_first"] else (T, B, F)
    x = tg.tensor(rng.standard_normal(shape), requires_grad=True)
    tx = torch.tensor(x.numpy(), requires_grad=True)
    rows = options["num_layers"] * (2 if options["bidirectional"] else 1)
    sizes = [options.get("proj_size", H), H] if ours.__class__ is nn.LSTM else [H]
    states, tstates = [], []
    if given_state:
        states = [tg.tensor(rng.standard_normal((rows, n) if form == "unbatched" else (rows, B, n)), requires_grad=True) for n in sizes]
        tstates = [torch.tensor(s.numpy(), requires_grad=True) for s in states]
    state = None if not states else tuple(states) if len(states) > 1 else states[0]
    tstate = None if not states else tuple(tstates) if len(states) > 1 else tstates[0]

    if form == "lengths":
        lengths = rng.integers(1, T + 1, B)
        y, last = ours(x, state, lengths)
        packed = torch.nn.utils.rnn.pack_padded_sequence(tx, torch.tensor(lengths), batch_first=options["batch_first"], enforce_sorted=False)
        ty, tlast = theirs(packed, tstate)
        ty, _ = torch.nn.utils.rnn.pad_packed_sequence(ty, batch_first=options["batch_first"], total_length=T)
    else:
        y, last = ours(x, state)
        ty, tlast = theirs(tx, tstate)
    parts = [y, *(last if isinstance(last, tuple) else [last])]
    tparts = [ty, *(tlast if isinstance(tlast, tuple) else [tlast])]
    weights = [rng.standard_normal(part.shape) for part in parts]
    scatter_loss(parts, weights).backward()
    scatter_loss(tparts, [torch.tensor(w) for w in weights]).backward()
    for part, tpart in zip(parts, tparts, strict=True):
        np.testing.assert_allclose(part.numpy(), tpart.detach().numpy(), rtol=1e-12, atol=1e-12)
    pairs = [(x, tx), *zip(states, tstates, strict=True), *zip(ours.parameters(), theirs.parameters(), strict=True)]
    for a, b in pairs:
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12, atol=1e-12 * (1 + abs(b.grad.numpy()).max(initial=0)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_is_never_looked_at(kind, bidirectional):
    network = KINDS[kind](3, 4, num_layers=2, bidirectional=bidirectional, dtype=np.float64, rng=0, **EXTRA.get(kind, {}))
    rng = np.random.default_rng(1)
    lengths = np.array([2, 5, 1, 3])
    x = rng.standard_normal((5, 4, 3))
    results = []
    for padding in (0.0, np.nan, np.inf):
        t = tg.tensor(np.where((np.arange(5)[:, None] < lengths)[..., None], x, padding), requires_grad=True)
        y, last = network(t, lengths=lengths)
        network.zero_grad()
        (y * y).sum().backward()
        results.append([y.numpy(), *[s.numpy() for s in (last if isinstance(last, tuple) else (last,))], t.grad.numpy(), *[p.grad.numpy() for p in network.parameters()]])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    # Each sequence alone, without padding, gives the same.
    for k, n in enumerate(lengths):
        alone, _ = network(x[:n, k])
        np.testing.assert_allclose(results[0][0][:n, k], alone.numpy(), rtol=1e-12, atol=1e-12)
        assert not results[0][0][n:, k].any()


@pytest.mark.parametrize("kind", KINDS)
def test_float32_stays_float32_and_names_what_to_convert(kind):
    network = KINDS[kind](3, 4, 2, rng=0, bidirectional=True, **EXTRA.get(kind, {}))
    y, _ = network(np.zeros((5, 2, 3), np.float32), lengths=[5, 3])
    y.sum().backward()
    assert {y.dtype, *(p.grad.dtype for p in network.parameters())} == {np.dtype(np.float32)}
    with pytest.raises(TypeError, match=r"input is float64, the weights are float32; convert it with .astype\('float32'\)"):
        network(np.zeros((5, 2, 3)))
    assert network.to(np.float64)(np.zeros((5, 2, 3)))[0].dtype == np.float64


class PeepholeCell(nn.Module):
    """A cell that no library has: its state is (h, (c, count)), it returns (y, state)."""

    def __init__(self, input_size, hidden_size):
        self.hidden_size, self.output_size = hidden_size, 2
        self.gates = nn.Linear(input_size + hidden_size, 2 * hidden_size, dtype=np.float64, rng=0)
        self.read = nn.Parameter(np.random.default_rng(1).standard_normal((hidden_size, 2)))

    def initial_state(self, batch):
        h = tg.zeros((*batch, self.hidden_size), dtype=np.float64)
        return h, (h, tg.zeros((*batch, 1), dtype=np.float64))

    def forward(self, x, state):
        h, (c, count) = state
        z, n = tg.split(self.gates(tg.concatenate([x, h], axis=-1)), 2, axis=-1)
        c = tg.sigmoid(z + c) * c + tg.tanh(n)
        h = tg.tanh(c) / (1 + count)
        return h @ self.read, (h, (c, count + 1))


def test_a_cell_of_ones_own_in_layers_and_directions():
    network = nn.Recurrent(lambda n: PeepholeCell(n, 3), 2, num_layers=2, bidirectional=True)
    names = [name for name, _ in network.named_parameters()]
    assert names[:3] == ["gates_l0.weight", "gates_l0.bias", "read_l0"] and "read_l1_reverse" in names and len(names) == 12
    x = np.random.default_rng(2).standard_normal((5, 3, 2))
    y, (h, (c, count)) = network(x, lengths=[5, 2, 3])
    assert y.shape == (5, 3, 4) and h.shape == c.shape == (4, 3, 3)
    np.testing.assert_array_equal(count.numpy()[:, :, 0], [[5, 2, 3]] * 4)
    cell = network._cells[1]
    state = cell.initial_state((1,))
    for t in (1, 0):
        out, state = cell(tg.tensor(x[t, 1:2]), state)
    first = nn.Recurrent(cell)
    np.testing.assert_allclose(first(x[1::-1, 1:2])[0][-1].numpy(), out.numpy(), rtol=1e-14)
    y.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    with pytest.raises(ValueError, match="one cell makes one layer"):
        nn.Recurrent(cell, num_layers=2)
    lazy = nn.Recurrent(lambda n: nn.GRUCell(n, 3, dtype=np.float64, rng=0), num_layers=2)
    assert lazy(x)[0].shape == (5, 3, 3) and lazy.num_parameters() == nn.GRU(2, 3, 2).num_parameters()
    plain = nn.Recurrent(lambda n: lambda x, h: tg.tanh(x + h), 2)
    assert plain(x, np.zeros((1, 3, 2)))[0].shape == (5, 3, 2)


def test_the_builtin_networks_are_recurrent_with_their_cells():
    for kind, cell in (("RNN", nn.RNNCell), ("GRU", nn.GRUCell), ("LSTM", nn.LSTMCell)):
        whole = KINDS[kind](3, 4, 2, bidirectional=True, rng=5)
        source = np.random.default_rng(5)
        same = nn.Recurrent(lambda n, cell=cell, source=source: cell(n, 4, rng=source), 3, 2, bidirectional=True)
        assert [n for n, _ in whole.named_parameters()] == [n for n, _ in same.named_parameters()]
        x = np.ones((4, 2, 3), np.float32)
        np.testing.assert_array_equal(whole(x)[0].numpy(), same(x)[0].numpy())


def test_dropout_acts_between_layers_in_training_only():
    network = nn.GRU(3, 64, 2, dropout=0.5, rng=0)
    x = np.ones((2, 1, 3), np.float32)
    a, b = network(x)[0].numpy(), network(x)[0].numpy()
    assert not np.array_equal(a, b)
    network.eval()
    np.testing.assert_array_equal(network(x)[0].numpy(), network(x)[0].numpy())
    single = nn.GRU(3, 4, 1, dropout=0.9, rng=0)
    np.testing.assert_array_equal(single(x)[0].numpy(), single(x)[0].numpy())


def test_initialisation_is_one_argument_away():
    network = nn.LSTM(3, 8, forget_bias=1.0, recurrent_init="orthogonal", rng=0)
    total = (network.bias_ih_l0 + network.bias_hh_l0).numpy()
    np.testing.assert_array_equal(total[8:16], 1)
    assert abs(total[:8]).max() <= 2 / np.sqrt(8)
    for block in np.split(network.weight_hh_l0.numpy(), 4):
        np.testing.assert_allclose(block @ block.T, np.eye(8), atol=1e-6)
    np.testing.assert_array_equal(nn.RNN(3, 4, nonlinearity="relu", recurrent_init="identity").weight_hh_l0.numpy(), np.eye(4))
    big = nn.LSTM(5, 100, rng=0)
    for p in big.parameters():
        assert abs(p.numpy()).max() <= 0.1 and abs(p.numpy().std() - 0.1 / np.sqrt(3)) < 0.005


def test_the_tape_shows_module_and_step():
    class Model(nn.Module):
        def __init__(self):
            self.encoder = nn.GRU(3, 4, rng=0)
            self.head = nn.Linear(4, 2, rng=0)

        def forward(self, x):
            return self.head(self.encoder(x)[1][-1])

    model = Model()
    model.encoder.mode = "eager"
    scopes = [record.scope for record in tg.tape(model(np.zeros((3, 1, 3), np.float32)).sum())]
    assert (("Model", None), ("encoder", None), ("l0", 2)) in scopes and (("Model", None), ("head", None)) in scopes
    assert [p.name for p in model.parameters()][:2] == ["encoder.weight_ih_l0", "encoder.weight_hh_l0"]


@pytest.mark.parametrize(
    ("make", "call", "kind", "words"),
    [
        (lambda: nn.LSTM(3, 0), None, ValueError, "LSTMCell: hidden_size must be a positive integer, got 0"),
        (lambda: nn.LSTM(3, 4, dropout=1.5), None, ValueError, "LSTM: dropout must be between 0 and 1, got 1.5"),
        (lambda: nn.LSTM(3, 4, num_layers=0), None, ValueError, "num_layers"),
        (lambda: nn.LSTM(3, 4, proj_size=4), None, ValueError, "proj_size=4"),
        (lambda: nn.RNN(3, 4, nonlinearity="sin"), None, ValueError, "nonlinearity"),
        (lambda: nn.LSTM(3, 4), lambda m: m(np.zeros((5, 2, 7), np.float32)), ValueError, "LSTM: input has time=5 batch=2 features=7, expected features=input_size=3"),
        (lambda: nn.LSTM(3, 4), lambda m: m(np.zeros(3, np.float32)), ValueError, "expected (time, batch, input_size=3)"),
        (lambda: nn.GRU(3, 4), lambda m: m(np.zeros((0, 2, 3), np.float32)), ValueError, "no time steps: time=0 batch=2"),
        (lambda: nn.GRU(3, 4), lambda m: m(np.zeros((5, 2, 3), np.float32), np.zeros((1, 3, 4), np.float32)), ValueError, "expected (num_layers * directions=1, batch=2, size=4)"),
        (
            lambda: nn.LSTM(3, 4),
            lambda m: m(np.zeros((5, 2, 3), np.float32), np.zeros((1, 2, 4), np.float32)),
            ValueError,
            "the initial state is float32 (1, 2, 4), expected (float32",
        ),
        (lambda: nn.GRU(3, 4), lambda m: m(np.zeros((5, 2, 3), np.float32), np.zeros((1, 2, 4))), TypeError, "the initial state is float64, the weights are float32"),
        (lambda: nn.GRU(3, 4), lambda m: m(np.zeros((5, 2, 3), np.float32), lengths=[6, 1]), IndexError, "lengths[0] = 6 is above the padded length time=5"),
        (lambda: nn.GRU(3, 4), lambda m: m(np.zeros((5, 2, 3), np.float32), lengths=[3, 0]), IndexError, "lengths[1] = 0 is below 1"),
        (lambda: nn.GRU(3, 4), lambda m: m(np.zeros((5, 2, 3), np.float32), lengths=[3]), ValueError, "expected one length for each sequence: batch=2"),
        (lambda: nn.GRU(3, 4), lambda m: m(np.zeros((5, 2, 3), np.float32), lengths=[3.0, 2.0]), TypeError, "lengths must be integers"),
        (lambda: nn.GRU(3, 4), lambda m: m(np.zeros((5, 2, 3), int)), TypeError, "expected floats"),
        (lambda: nn.Recurrent(3), None, TypeError, "input_size -> cell"),
        (lambda: nn.LSTMCell(3, 4), lambda m: m(np.zeros((2, 5), np.float32)), ValueError, "LSTMCell: input has batch=2 features=5, expected (batch, input_size=3)"),
        (lambda: nn.LSTMCell(3, 4), lambda m: m(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)), ValueError, "the state is float32 (2, 4)"),
    ],
)
def test_bad_input(make, call, kind, words):
    with pytest.raises(kind) as caught:
        model = make()
        call(model)
    assert isinstance(caught.value, tg.errors.TinygradError)
    assert words in str(caught.value)


def test_an_empty_batch_is_legal():
    y, (h, c) = nn.LSTM(3, 4, 2)(np.zeros((5, 0, 3), np.float32))
    assert y.shape == (5, 0, 4) and h.shape == c.shape == (2, 0, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [None, [4, 2]])
@pytest.mark.parametrize("grad", [False, True])
def test_every_built_in_cell_is_replayed(kind, lengths, grad):
    network = KINDS[kind](3, 4, rng=0, **EXTRA.get(kind, {}))
    state = network.initial_state(2)
    state = tuple(s[0] for s in state) if isinstance(state, tuple) else state[0]
    plan = tg.unroll.explain(network._step(network._cells[0]), tg.zeros(4, 2, 3, requires_grad=grad), state, lengths=lengths)
    assert plan.mode == "replay", plan.reason
    phases = {row[0].split(":")[0] for row in plan.rows}
    assert "forward, hoisted" in phases and "backward, deferred" in phases
    hoisted = [row[2] for row in plan.rows if row[0].startswith("forward, hoisted")]
    assert "matmul" in hoisted
    network.mode = "replay"
    network(tg.zeros(4, 2, 3), lengths=lengths)[0].sum().backward()


def test_explain_says_why_a_step_runs_eagerly():
    plan = tg.unroll.explain(lambda x, h: (None, h * (2.0 if h.sum() > 0 else 1.0)), tg.zeros(4, 2), tg.zeros(2))
    assert plan.mode == "eager" and "if" in str(plan)
