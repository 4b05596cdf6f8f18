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
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import data, nn, optim, train

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
