"""The gallery of pictures: ``python tests/gallery.py`` writes notebooks/gallery/*.svg again."""

import pathlib

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks" / "gallery"


def numbers(*shape):
    return tg.tensor(np.random.default_rng(1).standard_normal(shape).astype(np.float32), name="x")


def rnn():
    _, h = nn.RNN(6, 8, rng=0)(numbers(4, 2, 6))
    return tg.graph((h * h).mean(), gradients=True, name="RNN")


def gru():
    _, h = nn.GRU(6, 8, rng=0)(numbers(3, 2, 6))
    return tg.graph((h * h).mean(), gradients=True, name="GRU")


def lstm():
    _, (h, _) = nn.LSTM(6, 8, rng=0)(numbers(3, 2, 6))
    return tg.graph((h * h).mean(), gradients=True, name="LSTM")


def lstm_folded():
    _, (h, _) = nn.LSTM(6, 8, rng=0)(numbers(50, 2, 6))
    return tg.graph((h * h).mean(), gradients=True, name="LSTM, 50 steps")


def lstm_dark():
    _, (h, _) = nn.LSTM(6, 8, rng=0)(numbers(3, 2, 6))
    return tg.graph((h * h).mean(), gradients=True, values=True, name="LSTM", theme="dark")


def lstm_rolled():
    _, (h, _) = nn.LSTM(6, 8, rng=0)(numbers(5, 2, 6))
    return tg.graph((h * h).mean(), rolled=True, name="LSTM, rolled")


def lstm_tape():
    _, (h, _) = nn.LSTM(6, 8, rng=0)(numbers(2, 2, 6))
    return tg.graph((h * h).mean(), depth="tape", gradients=True, name="LSTM, every record")


def two_layers():
    y, _ = nn.LSTM(6, 8, num_layers=2, rng=0)(numbers(3, 2, 6))
    return tg.graph((y * y).mean(), gradients=True, name="two layers")


def two_layers_cells():
    y, _ = nn.LSTM(6, 8, num_layers=2, rng=0)(numbers(6, 2, 6))
    return tg.graph((y * y).mean(), depth="cell", gradients=True, name="two layers, a box a step")


def dropout():
    y, _ = nn.RNN(6, 8, num_layers=2, dropout=0.3, rng=0)(numbers(3, 2, 6))
    return tg.graph((y * y).mean(), gradients=True, name="dropout between layers")


def bidirectional():
    y, _ = nn.GRU(6, 8, bidirectional=True, rng=0)(numbers(3, 2, 6))
    return tg.graph((y * y).mean(), gradients=True, name="bidirectional")


def bidirectional_layers():
    y, _ = nn.RNN(6, 8, num_layers=2, bidirectional=True, rng=0)(numbers(3, 2, 6))
    return tg.graph((y * y).mean(), gradients=True, name="two bidirectional layers")


def language_model():
    model = nn.LanguageModel(50, 16, embedding_dim=8, num_layers=2, rng=0)
    ids = np.arange(80).reshape(40, 2) % 50
    logits, _ = model(ids)
    return tg.graph(nn.functional.cross_entropy(logits, ids, axis=-1), gradients=True, name="language model, 40 steps")


def encoder_decoder():
    model = nn.EncoderDecoder(20, 30, 8, attention="dot", cell="rnn", rng=0)
    source, target = np.full((3, 2), 5), np.full((4, 2), 7)
    logits = model(source, target)
    return tg.graph(nn.functional.cross_entropy(logits, target[1:], axis=-1), gradients=True, name="encoder-decoder with attention")


def lengths():
    _, h = nn.RNN(6, 8, rng=0)(numbers(4, 3, 6), lengths=[4, 2, 3])
    return tg.graph((h * h).mean(), gradients=True, name="sequences of 4, 2 and 3 steps")


def truncated():
    rnn = nn.LSTM(6, 8, rng=0)
    _, state = rnn(numbers(3, 2, 6))
    _, (h, _) = rnn(numbers(3, 2, 6), tuple(s.detach() for s in state))
    return tg.graph((h * h).mean(), gradients=True, name="truncated backpropagation: the window before is cut off")


def convolution():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, rng=0), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 8, 3, padding=1, rng=0), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(392, 10, rng=0)
    )  # fmt: skip
    return tg.graph(nn.functional.cross_entropy(net(numbers(2, 1, 28, 28)), np.array([1, 2])), gradients=True, name="convolution network")


def convolution_modules():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, rng=0), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 10, rng=0))
    return tg.graph(nn.functional.cross_entropy(net(numbers(2, 1, 28, 28)), np.array([1, 2])), depth="cell", gradients=True, name="convolution network, a box a module")


def bidirectional_folded():
    y, _ = nn.LSTM(6, 8, bidirectional=True, rng=0)(numbers(40, 2, 6))
    return tg.graph((y * y).mean(), gradients=True, name="bidirectional LSTM, 40 steps")


def outputs():
    return nn.LSTM(6, 8, bidirectional=True, rng=0).graph(numbers(3, 2, 6))


def two_states():
    W = tg.tensor(np.eye(8) * 0.3, requires_grad=True, name="W")
    h, loss = tg.tensor(np.ones((2, 8)), name="h0"), 0.0
    for t in range(4):
        with tg.scope("step", step=t):
            h = tg.tanh(h @ W + tg.tensor(np.ones((2, 8))))
            loss = loss + (h * h).sum()
    return tg.graph(loss, gradients=True, name="a loss at every step")


def attention_in_the_loop():
    W, V = (tg.tensor(np.eye(8) * 0.3, requires_grad=True, name=name) for name in "WV")
    h, states = tg.tensor(np.ones((2, 8)), name="h0"), []
    for t in range(3):
        with tg.scope("encoder", step=t):
            h = tg.tanh(h @ W)
        states.append(h)
    keys = tg.stack(states)
    for t in range(2):
        with tg.scope("decoder", step=t):
            a = tg.softmax((keys * h).sum(-1), axis=0)
            h = tg.tanh((a[..., None] * keys).sum(0) @ V)
    return tg.graph((h * h).sum(), gradients=True, name="attention at every step")


def linear_recurrence(scale):
    rng = np.random.default_rng(0)
    W = tg.tensor(np.linalg.qr(rng.standard_normal((8, 8)))[0] * scale, requires_grad=True, name="W")
    U = tg.tensor(rng.standard_normal((6, 8)) * 0.01, requires_grad=True, name="U")

    def step(x, h):
        h = x @ U + h @ W
        return h, h

    _, h = tg.unroll(step, tg.tensor(rng.standard_normal((30, 2, 6))), tg.zeros(2, 8, dtype=np.float64))
    return h.sum()


def vanishing():
    return tg.graph(linear_recurrence(0.6), gradients=True, fold=2, name="vanishing gradients")


def exploding():
    return tg.graph(linear_recurrence(1.7), gradients=True, fold=2, name="exploding gradients")


def infinite():
    W = tg.tensor([[3e9]], requires_grad=True, name="W")
    h = tg.tensor([[1e-30]], requires_grad=True, name="h0")
    with np.errstate(all="ignore"):
        for t in range(6):
            with tg.scope("step", step=t):
                h = h @ W
        return tg.graph(h.sum(), gradients=True, name="an infinite gradient")


def no_scopes():
    rng = np.random.default_rng(0)
    W = tg.tensor(rng.standard_normal((8, 8)) * 0.3, requires_grad=True, name="W")
    h = tg.tensor(rng.standard_normal((2, 8)), name="h0")
    for _ in range(4):
        h = tg.tanh(h @ W + tg.tensor(rng.standard_normal((2, 8))))
    return tg.graph((h * h).sum(), gradients=True, name="a loop without scopes")


def another_step():
    rng = np.random.default_rng(0)
    W = tg.tensor(rng.standard_normal((8, 8)) * 0.3, requires_grad=True, name="W")
    h = tg.tensor(rng.standard_normal((2, 8)), name="h0")
    for t in range(12):
        with tg.scope("step", step=t):
            h = tg.sigmoid(h @ W) * 2 if t == 5 else tg.tanh(h @ W)
    return tg.graph((h * h).sum(), gradients=True, fold=2, name="one step differs")


PICTURES = [
    rnn, gru, lstm, lstm_folded, lstm_dark, lstm_rolled, lstm_tape, two_layers, two_layers_cells, dropout, bidirectional, bidirectional_layers, language_model,
    encoder_decoder, lengths, truncated, convolution, vanishing, exploding, infinite, no_scopes, another_step,
    convolution_modules, bidirectional_folded, two_states, outputs, attention_in_the_loop,
]  # fmt: skip

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for make in PICTURES:
        make().save(FOLDER / f"{make.__name__}.svg")
