"""Every module, every way to unroll, and every shape of sequence model, through the gradient checker."""

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.testing import check_gradients, check_module, coverage, laws

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


def whole(high, *shape):
    return RNG.integers(0, high, shape)


class Peephole(nn.Module):
    """A cell that is nobody's own: gates that look at the cell state."""

    def __init__(self, input_size, hidden_size):
        self.hidden_size = hidden_size
        self.lin = nn.Linear(input_size + hidden_size, 2 * hidden_size, rng=5)
        self.peep = nn.Parameter(0.3 * RNG.standard_normal(hidden_size))

    def forward(self, x, h):
        f, c = tg.split(self.lin(tg.concatenate([x, h], -1)), 2, -1)
        f = tg.sigmoid(f + self.peep * h)
        return f * h + (1 - f) * tg.tanh(c)


class Reduced(nn.Module):
    """A model and what is asked of its outputs."""

    def __init__(self, model, loss):
        self.model, self.loss = model, loss

    def forward(self, *args):
        return self.loss(self.model, *args)


LOGITS, CLASSES = normal(3, 4), whole(4, 3)
ORTHOGONAL = {"recurrent_init": "orthogonal", "rng": 1}
MODULES = {
    "Linear": (lambda: nn.Linear(3, 2, rng=0), normal(4, 3)),
    "Embedding": (lambda: nn.Embedding(5, 3, rng=0), whole(5, 2, 4)),
    "Conv2d": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1, rng=0), normal(2, 2, 5, 5)),
    "AvgPool2d": (lambda: nn.AvgPool2d(2), normal(1, 2, 4, 4)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), normal(1, 2, 4, 4)),
    "Flatten": (lambda: nn.Flatten(), normal(2, 3, 2)),
    "Dropout": (lambda: nn.Dropout(0.5).eval(), normal(3)),
    "LayerNorm": (lambda: nn.LayerNorm(5), normal(2, 5)),
    "ReLU": (lambda: nn.ReLU(), normal(5)),
    "Identity": (lambda: nn.Identity(), normal(5)),
    **{f"Attention, {score}": (lambda s=score: nn.Attention(3, 3, s, rng=0), normal(2, 2, 3), normal(4, 2, 3)) for score in ("dot", "general", "additive")},
    "Tanh": (lambda: nn.Tanh(), normal(5)),
    "Sigmoid": (lambda: nn.Sigmoid(), normal(5)),
    "Softmax": (lambda: nn.Softmax(), normal(2, 4)),
    "Sequential": (lambda: nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 2, rng=1)), normal(2, 3)),
    "ModuleList": (lambda: Reduced(nn.ModuleList([nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=1)]), lambda m, x: m[1](tg.tanh(m[0](x)))), normal(2, 3)),
    "RNNCell": (lambda: nn.RNNCell(2, 3, **ORTHOGONAL), normal(4, 2), normal(4, 3)),
    "RNNCell relu": (lambda: nn.RNNCell(2, 3, nonlinearity="relu", **ORTHOGONAL), normal(4, 2), normal(4, 3)),
    "GRUCell": (lambda: nn.GRUCell(2, 3, **ORTHOGONAL), normal(4, 2), normal(4, 3)),
    "LSTMCell": (lambda: nn.LSTMCell(2, 3, **ORTHOGONAL), normal(4, 2), (normal(4, 3), normal(4, 3))),
    "RNN": (lambda: nn.RNN(2, 3, num_layers=2, rng=0), normal(6, 2, 2)),
    "GRU": (lambda: nn.GRU(2, 3, bidirectional=True, rng=0), normal(6, 2, 2)),
    "LSTM": (lambda: nn.LSTM(2, 3, proj_size=2, rng=0), normal(6, 2, 2)),
    "LSTM with lengths": (lambda: Reduced(nn.LSTM(2, 3, bidirectional=True, rng=0), lambda m, x: m(x, lengths=[4, 2, 6])), normal(6, 3, 2)),
    "LSTM of 30 steps": (lambda: nn.LSTM(2, 3, recurrent_init="orthogonal", forget_bias=3.0, rng=0), normal(30, 1, 2)),
    "Recurrent": (lambda: nn.Recurrent(lambda n: Peephole(n, 3), 2, num_layers=2), normal(5, 2, 2)),
    "SequenceClassifier": (lambda: nn.SequenceClassifier(7, 3, 4, embedding_dim=3, rng=0), whole(7, 5, 2)),
    "SequenceTagger": (lambda: nn.SequenceTagger(7, 3, 4, embedding_dim=3, rng=0), whole(7, 5, 2)),
    "LanguageModel": (lambda: nn.LanguageModel(7, 4, embedding_dim=3, rng=0), whole(7, 5, 2)),
    "EncoderDecoder": (lambda: nn.EncoderDecoder(7, 6, 4, embedding_dim=3, rng=0), whole(7, 5, 2), whole(6, 4, 2)),
    "CrossEntropyLoss": (lambda: Reduced(nn.CrossEntropyLoss(), lambda m, x: m(x, CLASSES)), LOGITS),
    "NLLLoss": (lambda: Reduced(nn.NLLLoss(), lambda m, x: m(tg.log_softmax(x), CLASSES)), LOGITS),
    "BCEWithLogitsLoss": (lambda: nn.BCEWithLogitsLoss(), LOGITS, (whole(2, 3, 4)).astype(np.float64)),
    "MSELoss": (lambda: nn.MSELoss(), LOGITS, normal(3, 4)),
    "L1Loss": (lambda: nn.L1Loss(), LOGITS, normal(3, 4)),
    "HuberLoss": (lambda: nn.HuberLoss(), 2 * LOGITS, normal(3, 4)),
}
SECOND = {"Linear", "Conv2d", "LayerNorm", "GRUCell", "LSTMCell", "RNN", "LSTM", "Recurrent", "CrossEntropyLoss", "BCEWithLogitsLoss"}


@pytest.mark.parametrize("name", MODULES)
def test_a_modules_gradients(name):
    make, *args = MODULES[name]
    report = check_module(make(), *args, order=2 if name in SECOND else 1)
    assert report and report.tightness < 1e-4, report


def test_every_module_of_the_package_is_here():
    classes = {type(part).__name__ for make, *_ in MODULES.values() for part in make().modules()}
    assert coverage.module_names() - classes - {"Cell"} == set()


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"lengths": [2, 5, 4]}, {"reverse": True, "lengths": [2, 5, 4]}], ids=str)
@pytest.mark.parametrize("mode", ["eager", "replay"])
def test_every_way_to_unroll(mode, options):
    def f(x, h, W, U, b):
        def step(x_t, h):
            h = tg.tanh(x_t @ W + h @ U + b)
            return h * x_t[:, :1], h

        return tg.unroll(step, x, h, mode=mode, **options)

    orthogonal = np.linalg.qr(normal(3, 3))[0]
    report = check_gradients(f, normal(5, 3, 2), normal(3, 3), normal(2, 3), orthogonal, normal(3), order=2)
    assert report and report.tightness < 1e-4


CELLS = {
    "RNN": lambda: nn.RNNCell(2, 3, **ORTHOGONAL),
    "GRU": lambda: nn.GRUCell(2, 3, **ORTHOGONAL),
    "LSTM": lambda: nn.LSTMCell(2, 3, **ORTHOGONAL),
    "LSTM with a projection": lambda: nn.LSTMCell(2, 3, proj_size=2, rng=1),
    "peephole": lambda: Peephole(2, 3),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_cell_keeps_the_laws(name, steps):
    laws.check_all(CELLS[name](), normal(steps, 3, 2))


W, U = tg.tensor(normal(3, 3), requires_grad=True, name="W"), tg.tensor(normal(2, 3), requires_grad=True, name="U")
COUNT = [0]


def counting(x, h):
    COUNT[0] += 1
    return tg.tanh(x @ U + h @ W) * (1 + 0.1 * COUNT[0])


BROKEN = {
    "batch": (lambda x, h: tg.tanh(x @ U + h @ W - h.mean(0)), laws.padding, "is what it is alone"),
    "order in the batch": (lambda x, h: tg.tanh(x @ U + tg.roll(h, 1, 0) * np.arange(3)[:, None]), laws.batch_permutation, "order of a batch"),
    "time": (counting, laws.split, "steps are"),
    "detached": (lambda x, h: tg.tanh(x @ U + h.detach() @ W), laws.replay_is_eager, "detach"),
    "looks back": (counting, laws.reversal, "reverse"),
}


@pytest.mark.parametrize("cell, law, words", BROKEN.values(), ids=BROKEN)
def test_a_cell_that_breaks_a_law_is_told_which(cell, law, words):
    COUNT[0] = 0
    with pytest.raises(laws.LawBroken, match=words) as caught:
        law(cell, normal(6, 3, 2), normal(3, 3))
    assert isinstance(caught.value, AssertionError)


def test_operations_that_only_gradients_are_made_of():
    x = np.random.default_rng(5).standard_normal((2, 1, 4, 4))
    report = check_gradients(lambda x: tg.avg_pool2d(x, 2) ** 2, x, order=2)
    assert report.verdict == "pass"
    assert check_gradients(lambda x: tg.take_along_axis(x, np.array([[0, 2, 0], [1, 1, 3]]), 1) ** 2, x[:, 0, 0], order=2).verdict == "pass"
