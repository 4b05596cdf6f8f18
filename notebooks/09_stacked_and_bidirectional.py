# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Stacked and bidirectional networks
#
# A layer reads what the layer below wrote; a second direction reads from the end. What is each worth? One task answers: find the ends of the words in text without spaces, where what comes next matters as much as what came before.

# %%
import importlib.util
import os

import matplotlib.pyplot as plt
import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import data, nn, optim, train

# The full setting of the last part: FULL=1 in the environment, or FULL = True here.
FULL = "FULL" in os.environ
SEEDS = (0, 1)
EPOCHS = 3

# %%
words = [word for word in data.tokenize(data.reference_text()) if word.isascii() and word.isalpha()]
alphabet = data.Vocabulary.from_text("abcdefghijklmnopqrstuvwxyz", specials="<pad>")


def example(line):
    return alphabet.encode("".join(line)), np.concatenate([[0] * (len(word) - 1) + [1] for word in line])


training, _, test = data.split([example(words[k : k + 8]) for k in range(0, 32000, 8)])
print(f"{len(training)} lines of eight words for learning, {len(test)} for the test")
print(alphabet.decode(test[0][0]), "".join(map(str, test[0][1])))

# %% [markdown]
# ## Two layers, two directions
#
# Layers stand upon each other, the backward direction runs from right to left on a row of its own. The second layer reads both directions of the first at every step: from there on each step knows the whole line.


# %%
def loss(model, batch):
    (letters, lengths), (ends, _) = batch
    inside = np.where(np.arange(len(ends))[:, None] < lengths, ends, -1)
    return nn.functional.cross_entropy(model(letters, lengths), inside, axis=-1, ignore_index=-1)


model = nn.SequenceTagger(len(alphabet), 16, 2, cell="rnn", num_layers=2, bidirectional=True, rng=0)
tg.graph(loss(model, data.collate([example(["to", "a"])])), gradients=True)

# %% [markdown]
# ## What each is worth
#
# All networks have about 20,000 weights in their recurrent part, so that a richer form has fewer units.


# %%
def network(cell, layers, bidirectional, seed):
    def build(units):
        return nn.SequenceTagger(len(alphabet), units, 2, embedding_dim=24, cell=cell, num_layers=layers, bidirectional=bidirectional, rng=seed)

    units = next(units for units in range(8, 300, 2) if build(units).rnn.num_parameters() >= 20_000)
    return build(units)


def accuracy(model):
    (letters, lengths), (ends, _) = data.collate(test)
    with tg.no_grad():
        guess = model(letters, lengths).numpy().argmax(axis=-1)
    inside = np.arange(len(ends))[:, None] < lengths
    return float((guess == ends)[inside].mean())


forms = [("rnn", 1, False), ("gru", 1, False), ("lstm", 1, False), ("rnn", 1, True), ("gru", 1, True), ("lstm", 1, True), ("gru", 2, True)]
scores = {}
print(f"no ends at all: {1 - np.concatenate([ends for _, ends in test]).mean():.1%}\n")
for cell, layers, bidirectional in forms:
    marks = []
    for seed in SEEDS:
        model = network(cell, layers, bidirectional, seed)
        batches = data.batches(training, 32, rng=seed)
        optimizer = optim.Adam(model.parameters(), lr=0.005)
        schedule = optim.CosineAnnealingLR(optimizer, EPOCHS * len(batches))
        train.fit(model, batches, loss, optimizer, epochs=EPOCHS, schedule=schedule, clip=1.0, progress=False)
        marks.append(accuracy(model))
    name = f"{layers} x {cell}, {'both directions' if bidirectional else 'forward'}"
    scores[cell, layers, bidirectional] = float(np.mean(marks))
    print(f"{name:26}{model.rnn.hidden_size:4} units {np.mean(marks):.1%}  ({', '.join(f'{mark:.1%}' for mark in marks)})")
assert all(scores[cell, 1, True] > scores[cell, 1, False] + 0.02 for cell in ("rnn", "gru", "lstm"))

# %% [markdown]
# The second direction is worth more than any cell: a forward network must say that a word ends before it sees that the next one begins. A second layer with half as many units changes little where lines are as short as here.
#
# ## Where the directions matter
#
# How much each letter of a line changes the answer at one place: the gradient of that answer with respect to the letters' vectors. A forward network would have nothing to the right of the diagonal.

# %%
letters, ends = example("return the value of the first item".split())
vectors = model.embedding(letters[:, None]).detach().requires_grad_()
answers = model.head(model.rnn(vectors)[0])[:, 0, 1]
influence = np.array([np.linalg.norm(tg.grad(answer, vectors, retain_graph=True).numpy()[:, 0], axis=1) for answer in answers])
figure, axis = plt.subplots(figsize=(6, 6))
axis.imshow(influence / influence.max(axis=1, keepdims=True), cmap="Greys")
labels = [letter + "|" * int(end) for letter, end in zip(alphabet.decode(letters), ends, strict=True)]
axis.set_xticks(range(len(labels)), labels, fontsize=8)
axis.set_yticks(range(len(labels)), labels, fontsize=8)
axis.set(xlabel="the letter that is changed", ylabel="the place that is asked")
figure.tight_layout()

# %% [markdown]
# ## Bach: tanh, GRU and LSTM side by side
#
# Chung, Gulcehre, Cho and Bengio (2014) let three units of about 20,000 weights each foretell the next chord of Bach's chorales: 88 keys of a piano, each down or not, a step a quarter note. Their measure is the negative log-likelihood of a chord in nats.
# The 229 chorales that they learnt from are not at hand; but the package `music21` brings the scores of 365 chorales in four parts (`pip install ".[lecture]"`; without it this part is left out), and `data.chorales` reads them.

# %%
BACH = importlib.util.find_spec("music21") is not None
if BACH:
    chorales = data.chorales()
    learning, validation, test = data.split(list(chorales.values()), (0.6, 0.2, 0.2), shuffle=True, rng=0)
    print(f"{len(chorales)} chorales, {sum(map(len, chorales.values())):,} chords: {len(learning)} to learn from, {len(validation)} to choose by, {len(test)} for the test")
else:
    print("music21 is not installed: Bach is left out")


# %% [markdown]
# Three floors say what is easy: how often each key is down at all; the same, given whether that key was down a chord ago; and a linear layer from the whole last chord to the next, which is the network without its memory.


# %%
def before(rolls):
    """What has sounded when the next chord is asked for: the chord before it, and nothing before the first."""
    return np.concatenate([np.zeros_like(rolls[:1]), rolls[:-1]])


def nats(probability, chords):
    return float(-np.log(np.where(chords > 0, probability, 1 - probability)).sum(axis=1).mean())


if BACH:
    known, asked = np.concatenate(learning), np.concatenate(test)
    known_before, asked_before = (np.concatenate([before(roll) for roll in part]) for part in (learning, test))
    often = (known.sum(axis=0) + 0.5) / (len(known) + 1)
    held, struck = (((known * mask).sum(axis=0) + 0.5) / (mask.sum(axis=0) + 1) for mask in (known_before, 1 - known_before))
    floors = {"how often": nats(often, asked), "given itself before": nats(np.where(asked_before > 0, held, struck), asked)}
    print({name: round(value, 2) for name, value in floors.items()}, "nats a chord")

# %% [markdown]
# Training is theirs as far as the paper says: RMSProp, the gradient's norm cut at 1, weights shaken by noise of standard deviation 0.075 while the gradient is taken, and the network that was best on the validation chorales.


# %%
UNITS = {"tanh": ("rnn", 100), "GRU": ("gru", 46), "LSTM": ("lstm", 36)}
NOISE = 0.075


class Memoryless(nn.Module):
    def __init__(self, seed):
        self.head = nn.Linear(88, 88, rng=seed)

    def forward(self, x, lengths=None):
        return self.head(x)


def composer(unit, seed):
    if unit not in UNITS:
        return Memoryless(seed)
    cell, units = UNITS[unit]
    return nn.SequenceTagger(None, units, 88, input_size=88, cell=cell, rng=seed)


def surprise(model, batch):
    """The negative log-likelihood of a chord in nats."""
    rolls, lengths = batch
    keys = nn.functional.binary_cross_entropy_with_logits(model(before(rolls)), rolls, reduction="none")
    inside = np.arange(len(rolls))[:, None] < lengths
    return tg.where(inside[..., None], keys, 0.0).sum() / int(inside.sum())


def measured(model, rolls):
    with tg.no_grad():
        return surprise(model, data.collate(rolls)).item()


def learn_bach(unit, lr, seed, epochs, patience=15):
    """The network where it was best on the validation chorales."""
    model, noise = composer(unit, seed), np.random.default_rng(seed)
    batches, weights = data.batches(learning, 8, rng=seed), list(model.parameters())
    optimizer = optim.RMSprop(weights, lr=lr, alpha=0.95, eps=1e-4)
    best, since, kept = np.inf, 0, None
    for _ in range(epochs):
        for batch in batches:
            shaken = [(NOISE * noise.standard_normal(weight.shape)).astype(np.float32) for weight in weights]
            with tg.no_grad():
                for weight, shake in zip(weights, shaken, strict=True):
                    weight += shake
            surprise(model, batch).backward()
            with tg.no_grad():
                for weight, shake in zip(weights, shaken, strict=True):
                    weight -= shake
            optim.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        now, since = measured(model, validation), since + 1
        if now < best:
            best, since, kept = now, 0, {name: weight.numpy().copy() for name, weight in model.state_dict().items()}
        if since == patience:
            break
    model.load_state_dict(kept)
    return model


# %%
PUBLISHED = {"tanh": 9.10, "GRU": 8.54, "LSTM": 8.67}
if BACH:
    seeds, epochs, lr = (range(3), 120, 0.004) if FULL else (range(1), 25, 0.01)
    composers, results = {}, {}
    for unit in ("no memory", *UNITS):
        models = [learn_bach(unit, lr, seed, epochs) for seed in seeds]
        composers[unit], results[unit] = models[0], [measured(model, test) for model in models]
        print(
            f"{unit:10} {models[0].num_parameters():6,} weights: {measured(models[0], learning):.2f} on those learnt, test {', '.join(f'{result:.2f}' for result in results[unit])}",
            f"(published: {PUBLISHED[unit]:.2f})" if unit in PUBLISHED else "",
        )
    assert all(abs(np.mean(results[unit]) - PUBLISHED[unit]) < 0.4 for unit in UNITS)
    assert all(np.mean(results[unit]) < min(floors.values()) - 1 for unit in UNITS)

# %% [markdown]
# `FULL=1 MPLBACKEND=Agg python notebooks/09_stacked_and_bidirectional.py` at commit 3ddabf7, up to 120 epochs, seeds 0 to 2 (about ten minutes of one core; music21 10.5.1; nats a chord):
#
# | | weights | test, three seeds | learnt from | published: test | learnt from |
# |---|---|---|---|---|---|
# | how often a key is down | 88 | 11.33 | | | |
# | given itself before | 176 | 10.67 | | | |
# | no memory: a linear layer | 7,832 | 9.41 9.42 9.41 | 9.37 | | |
# | tanh, 100 units | 27,888 | 8.98 8.95 8.98 | 8.48 | 9.10 | 8.82 |
# | GRU, 46 units | 22,904 | 8.78 8.76 8.76 | 8.25 | 8.54 | 6.94 |
# | LSTM, 36 units | 21,400 | 8.74 8.77 8.77 | 8.38 | 8.67 | 8.15 |
#
# The order is theirs, gated units before tanh, and each figure is within a quarter of a nat of theirs. It cannot be nearer than by chance: these are other transcriptions of partly other chorales, 362 of 382, in other splits, in their own keys and with repeats played once;
# each chord is sampled at its quarter note; and where the paper drew ten learning rates for each unit, one serves all here. Two chorales have a near twin among the others.
#
# What a GRU expects, chord by chord, above what Bach wrote; and what it writes by itself, each key drawn on its own from its probability.

# %%
if BACH:
    model, piece = composers["GRU"], test[0]
    with tg.no_grad():
        expected = tg.sigmoid(model(before(piece[:, None]))).numpy()[:, 0]
    source, chord, state, written = np.random.default_rng(0), np.zeros((1, 1, 88), np.float32), None, []
    for _ in range(len(piece)):
        with tg.no_grad():
            output, state = model.rnn(chord, state)
            chord = (source.random((1, 1, 88)) < tg.sigmoid(model.head(output)).numpy()).astype(np.float32)
        written.append(chord[0, 0])
    figure, axes = plt.subplots(3, 1, figsize=(9, 6), sharex=True, layout="constrained")
    for axis, roll, title in zip(axes, (expected, piece, np.array(written)), ("expected by the GRU", "written by Bach", "written by the GRU"), strict=True):
        axis.imshow(roll.T, cmap="Greys", vmin=0, vmax=1, origin="lower", aspect="auto", interpolation="nearest")
        axis.set(ylim=(10, 64), ylabel="key", title=title)
        axis.set_yticks([15, 27, 39, 51, 63], ["C2", "C3", "C4", "C5", "C6"])
    axes[-1].set_xlabel("quarter note")
    plt.show()
