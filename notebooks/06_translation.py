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
# # Translation: an encoder, a decoder, and where to look
#
# One network reads a sequence, another one writes a sequence of another length in another language. First a language with one right answer, numbers in French words, where "99.6 %" means exactly that; then sentences.

# %%
import glob
import importlib.util

import matplotlib.pyplot as plt
import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import data, nn, optim, train

SEED = 0

# %% [markdown]
# ## 76,381 in words
#
# French counts by twenties here and there: 81 is "quatre-vingt-un", 95 is "quatre-vingt-quinze". 6,000 numbers below 100,000 are for learning; 500 others are the test. The package `num2words` spells them (`pip install ".[lecture]"`); without it the words are the English digits.


# %%
real = importlib.util.find_spec("num2words") is not None


def spelled(number):
    if not real:
        return ["zero one two three four five six seven eight nine".split()[int(digit)] for digit in str(number)]
    from num2words import num2words

    return data.tokenize(num2words(number, lang="fr").replace("-", " "))


numbers = np.random.default_rng(SEED).choice(100_000, 6500, replace=False).tolist()
words = {number: spelled(number) for number in numbers}
digits = data.Vocabulary.from_text("0123456789", specials="<pad>")
french = data.Vocabulary.from_tokens(word for spelling in words.values() for word in spelling)
print(numbers[0], "->", " ".join(words[numbers[0]]))


def as_pairs(reverse=False):
    texts = ((str(number)[::-1] if reverse else str(number), spelling) for number, spelling in words.items())
    return [(digits.encode(text), np.array([1, *french.encode(spelling), 2])) for text, spelling in texts]


# %% [markdown]
# ## The network
#
# Left the encoder, which reads 1, 9, 5. Its last state is the decoder's first one, and all that it knows unless attention lets the decoder look at every state of the encoder: the lines that come from the upper left. The gradient takes both ways.


# %%
def network(attention, bidirectional=False):
    return nn.EncoderDecoder(len(digits), len(french), 64, embedding_dim=24, cell="gru", attention=attention, bidirectional=bidirectional, rng=SEED)


def loss(model, batch):
    (source, lengths), (target, _) = batch
    return nn.functional.cross_entropy(model(source, target, lengths), target[1:], ignore_index=model.pad, axis=-1)


example = data.collate([(digits.encode("195"), np.array([1, *french.encode(spelled(195)), 2]))])
tg.graph(loss(network("general"), example), depth="cell", gradients=True)

# %% [markdown]
# ## With and without attention, forward and backward
#
# Sutskever, Vinyals and Le (2014) turned the source round, so that its first word stands next to the translation's first word. Attention makes the distance to any word the same.


# %%
def learn(model, pairs, epochs, lr=0.005):
    batches = data.batches(pairs, 32, rng=SEED)
    optimizer = optim.Adam(model.parameters(), lr=lr)
    train.fit(model, batches, loss, optimizer, epochs=epochs, schedule=optim.CosineAnnealingLR(optimizer, epochs * len(batches)), clip=1.0, progress=False)
    model.eval()


def exact(model, pairs):
    """The share of the texts that are right from the first word to the last."""
    (source, lengths), _ = data.collate(pairs)
    written = model.translate(source, lengths, max_length=20)
    return float(np.mean([np.array_equal(text, target[1:-1]) for text, (_, target) in zip(written, pairs, strict=True)]))


results = {}
for name, attention, reverse in (("no attention, forward", None, False), ("no attention, reversed", None, True), ("attention, forward", "general", False)):
    pairs = as_pairs(reverse)
    model = network(attention)
    learn(model, pairs[:6000], 10)
    results[name] = exact(model, pairs[6000:])
    print(f"{name:24}{results[name]:.1%} of 500 numbers, every word right")
assert results["attention, forward"] > 0.985
assert results["no attention, reversed"] > results["no attention, forward"] or not real

# %% [markdown]
# Three seeds, the same lines with `SEED` 0, 1 and 2: without attention 94.0 %, 92.4 % and 88.2 % forward, 97.6 %, 99.4 % and 94.2 % reversed; with attention 99.6 % each time.

# %% [markdown]
# ## Where it looks
#
# A row for each word as it is written, a column for each digit that was read. The weights of a row add up to 1.

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 4))
for axis, number in zip(axes, numbers[6000:], strict=False):
    source = digits.encode(str(number))[:, None]
    (answer,) = model.translate(source)
    with tg.no_grad():
        _, weights = model(source, np.array([1, *answer, 2])[:, None], return_attention=True)
    axis.imshow(weights.numpy()[:, 0], cmap="Greys", vmin=0, vmax=1)
    axis.set_xticks(range(len(source)), str(number))
    axis.set_yticks(range(len(answer) + 1), [*french.decode(answer), "(end)"])
    axis.xaxis.tick_top()
figure.tight_layout()

# %% [markdown]
# ## Sentences
#
# What programs say, in English and French: the gettext catalogues of this machine's own programs, short sentences with frequent words. There are few, they are about everything, and a word seen less than eight times is `<unk>`.
# So the question is not whether the translation is perfect but what reading the source is worth: bits per French word, beside n-gram models of French that do not see the source.

# %%
found = {}
for path in sorted(glob.glob("/usr/share/locale/fr/LC_MESSAGES/*.mo")):
    for source, target in data.pairs(path, min_words=2, max_words=6):
        found.setdefault(source.lower(), target.lower())
tokens = [pair for pair in ((data.tokenize(source), data.tokenize(target)) for source, target in found.items()) if max(map(len, pair)) <= 7]
print(len(tokens), "pairs", "" if len(tokens) > 10_000 else "are too few: the rest is left out on this machine")

# %%
if len(tokens) > 10_000:
    parts = data.split(tokens, (0.9, 0.1), shuffle=True, rng=SEED)
    english, french = (data.Vocabulary.from_tokens((word for pair in parts[0] for word in pair[side]), min_count=8) for side in (0, 1))
    learning, asked = ([(english.encode(source), np.array([1, *french.encode(target), 2])) for source, target in part] for part in parts)
    sentences = np.concatenate([target for _, target in learning])
    floors = {n: data.WittenBell(n, num_symbols=len(french)).fit(sentences) for n in (1, 2, 3)}
    floors = {n: float(-np.log2(np.concatenate([model.probabilities(target)[1:] for _, target in asked])).mean()) for n, model in floors.items()}
    print("n-grams", {n: round(floor, 2) for n, floor in floors.items()}, "bits a word")
    bits = {}
    for name, attention in (("with attention", "general"), ("without attention", None)):
        model = nn.EncoderDecoder(len(english), len(french), 64, embedding_dim=48, cell="gru", attention=attention, bidirectional=True, dropout=0.1, rng=SEED)
        learn(model, learning, 4, 0.006)
        with tg.no_grad():
            bits[name] = loss(model, data.collate(asked)).item() / np.log(2)
        print(f"with the source, {name} {bits[name]:.2f} bits a word")
    assert max(bits.values()) < min(floors.values()) - 0.3

# %% [markdown]
# Sentences of at most seven words fit into the encoder's last state, and four epochs are few: here the network without attention is ahead. What it writes:

# %%
if len(tokens) > 10_000:
    known = [pair for pair in asked if 3 not in pair[0] and len(pair[0]) > 2][:8]
    (source, lengths), _ = data.collate(known)
    for (text, answer), written in zip(known, model.translate(source, lengths, max_length=12, beam=4), strict=True):
        print(f"{' '.join(english.decode(text)):45}{' '.join(french.decode(written)):45}({' '.join(french.decode(answer[1:-1]))})")
