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
# # The five kinds
#
# What goes in and what comes out may each be one thing or a sequence, and a sequence may keep step with the other or not. That makes five kinds of networks, each with its picture, a small real task, and the floor that it has to beat.

# %%
import collections
import datetime
import importlib.util
import itertools
import pathlib

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import data, nn, optim, train

SEED = 0


def learn(model, batches, loss, epochs, lr=0.005):
    optimizer = optim.Adam(model.parameters(), lr=lr)
    schedule = optim.CosineAnnealingLR(optimizer, epochs * len(batches))
    train.fit(model, batches, loss, optimizer, epochs=epochs, schedule=schedule, clip=1.0, progress=False)
    model.eval()


# %% [markdown]
# Three of the tasks are about the 5,163 first names of the US census of 1990, which the package `names` brings (`pip install ".[lecture]"`; without it the notebook makes up some).


# %%
def census(folder):
    share = {}
    for kind, file in enumerate(("dist.female.first", "dist.male.first")):
        for line in (pathlib.Path(folder) / file).read_text().splitlines():
            name, frequency = line.split()[:2]
            share.setdefault(name.lower(), [0.0, 0.0])[kind] += float(frequency)
    return [(name, int(male >= female)) for name, (female, male) in share.items()]


def made_up(rng):
    syllables = [a + b for a in "bdklmnrst" for b in "aeiou"]
    stems = sorted({"".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(6000)})
    endings, kinds = (("na", "la", "e", ""), ("n", "rd", "s", "")), rng.integers(2, size=len(stems)).tolist()
    return [(stem + endings[kind][rng.integers(4)], kind) for stem, kind in zip(stems, kinds, strict=True)]


found = importlib.util.find_spec("names")
people = census(found.submodule_search_locations[0]) if found else made_up(np.random.default_rng(SEED))
training, test = data.split(people, (0.8, 0.2), shuffle=True, rng=SEED)
letters = data.Vocabulary.from_text("".join(sorted({letter for name, _ in people for letter in name})), specials=["<pad>", "<women>", "<men>", "<end>"])
kinds = np.array([kind for _, kind in test])
majority = max(kinds.mean(), 1 - kinds.mean())
print(len(people), "names:", ", ".join(f"{name} ({'men' if kind else 'women'})" for name, kind in training[:6]))


def as_ids(names):
    return [(letters.encode(name), kind) for name, kind in names]


# %% [markdown]
# ## One to one: no time
#
# The last letter alone says much about whose name it is. One thing in, one out, as in any feed-forward network.

# %%
model = nn.Sequential(nn.Embedding(len(letters), 8, rng=1), nn.Linear(8, 2, rng=2))


def last(names):
    return np.array([letters[name[-1]] for name, _ in names]), np.array([kind for _, kind in names])


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


whole = last(training)
learn(model, data.Epochs(lambda rng: np.array_split(rng.permutation(len(training)), 64), lambda k: (whole[0][k], whole[1][k]), rng=SEED), loss, 10, 0.02)
one_letter = float((model(last(test)[0]).numpy().argmax(axis=1) == kinds).mean())
print(f"always the more frequent kind {majority:.1%}, from the last letter {one_letter:.1%}")
assert one_letter > majority
tg.graph(loss(model, last(test[:1])), gradients=True)

# %% [markdown]
# ## Many to one: read, then answer
#
# A GRU reads the whole name. Only its last state is asked, and the gradient goes back through all of them.

# %%
model = nn.SequenceClassifier(len(letters), 48, 2, embedding_dim=24, cell="gru", dropout=0.2, rng=SEED)


def loss(model, batch):
    (names, lengths), kinds = batch
    return nn.functional.cross_entropy(model(names, lengths), kinds)


learn(model, data.batches(as_ids(training), 32, rng=SEED), loss, 10)
(names, lengths), _ = data.collate(as_ids(test))
whole_name = float((model(names, lengths).numpy().argmax(axis=1) == kinds).mean())
print(f"from the last letter {one_letter:.1%}, from the whole name {whole_name:.1%}")
assert whole_name > one_letter
tg.graph(nn.functional.cross_entropy(model(letters.encode("anna")[:, None]), [0]), depth="cell", gradients=True)

# %% [markdown]
# ## One to many: a kind of name, then names
#
# One symbol goes in, women or men; what the network writes is fed back until it writes the end. The floor is a trigram model, in bits a letter on the test's names.

# %%
model = nn.LanguageModel(len(letters), 96, embedding_dim=24, cell="gru", dropout=0.2, rng=SEED)


def sentences(names):
    return [np.array([1 + kind, *letters.encode(name), letters["<end>"]]) for name, kind in names]


def loss(model, batch):
    names, _ = batch
    return nn.functional.cross_entropy(model(names[:-1])[0], names[1:], axis=-1, ignore_index=0)


learn(model, data.batches(sentences(training), 32, rng=SEED), loss, 12)
with tg.no_grad():
    ours = loss(model, data.collate(sentences(test))).item() / np.log(2)
trigram = data.WittenBell(3, num_symbols=len(letters)).fit(np.concatenate(sentences(training)))
# What kind it is, is given: the first symbol of a name is not asked for.
floor = float(-np.log2(np.concatenate([trigram.probabilities(name)[1:] for name in sentences(test)])).mean())
print(f"trigram {floor:.3f} bits a letter, the network {ours:.3f}")
assert ours < floor - 0.05


def invented(kind, rng):
    stream = model.stream([kind], temperature=0.7, rng=rng)
    return letters.decode(list(itertools.takewhile(lambda letter: letter != letters["<end>"], stream)))


for kind in ("<women>", "<men>"):
    print(kind, " ".join(invented(letters[kind], seed) for seed in range(12)))

# %% [markdown]
# Unrolled, each step's input is what the step before wrote; here it is "ana" as the data has it.

# %%
name = sentences([("ana", 0)])[0][:, None]
tg.graph(loss(model, (name, None)), depth="cell", gradients=True)

# %% [markdown]
# ## Many to many, in step: where does a word end?
#
# Words from Python's reference texts without the spaces between them. For each letter the network says whether a word ends there; it may look ahead, so it is bidirectional. The floor is a table: what is most frequent for a letter with its two neighbours.

# %%
words = [word for word in data.tokenize(data.reference_text()) if word.isascii() and word.isalpha()]
lines = [words[k : k + 8] for k in range(0, 32000, 8)]
alphabet = data.Vocabulary.from_text("abcdefghijklmnopqrstuvwxyz", specials="<pad>")
runs = [(alphabet.encode("".join(line)), np.concatenate([[0] * (len(word) - 1) + [1] for word in line])) for line in lines]
learning, asked = data.split(runs)[0], data.split(runs)[2]
model = nn.SequenceTagger(len(alphabet), 48, 2, embedding_dim=24, cell="gru", bidirectional=True, rng=SEED)


def loss(model, batch):
    (run, lengths), (ends, _) = batch
    inside = np.where(np.arange(len(run))[:, None] < lengths, ends, -1)
    return nn.functional.cross_entropy(model(run, lengths), inside, axis=-1, ignore_index=-1)


def neighbours(run):
    return zip(*(np.pad(run, 1)[k : k + len(run)].tolist() for k in range(3)), strict=True)


learn(model, data.batches(learning, 32, rng=SEED), loss, 5)
table = collections.defaultdict(collections.Counter)
for run, ends in learning:
    for key, end in zip(neighbours(run), ends.tolist(), strict=True):
        table[key][end] += 1
floor, ours = [], []
for run, ends in asked:
    floor.append(np.array([table[key].most_common(1)[0][0] if table[key] else 0 for key in neighbours(run)]) == ends)
    ours.append(model(run[:, None]).numpy()[:, 0].argmax(axis=1) == ends)
floor, ours = (float(np.concatenate(marks).mean()) for marks in (floor, ours))
print(f"no ends {1 - np.concatenate([ends for _, ends in asked]).mean():.1%} right, a table of three letters {floor:.1%}, the network {ours:.1%}")
run, _ = asked[0]
ends = model(run[:, None]).numpy()[:, 0].argmax(axis=1)
print("".join(letter + " " * end for letter, end in zip(alphabet.decode(run), ends.tolist(), strict=True)))
assert ours > floor + 0.03

# %%
tg.graph(loss(model, data.collate([(run[:4], np.array([0, 1, 0, 1]))])), depth="cell", gradients=True)

# %% [markdown]
# ## Many to many, out of step: read it all, then write
#
# A date in words goes in, the same day in digits comes out, in another order and of another length. One network reads, its last state starts another one, which writes and looks back at what was read (attention). There is exactly one right answer, and the test's days were never seen.

# %%
first = datetime.date(1900, 1, 1)
days = [first + datetime.timedelta(days=int(k)) for k in np.random.default_rng(SEED).choice(73000, 5500, replace=False)]
texts = [(f"{day:%A}, {day:%B} {day.day}, {day.year}".lower(), day.isoformat()) for day in days]
source = data.Vocabulary.from_text("".join(text for text, _ in texts), specials="<pad>")
target = data.Vocabulary.from_text("0123456789-", specials=["<pad>", "<bos>", "<eos>"])
pairs = [(source.encode(text), np.array([1, *target.encode(answer), 2])) for text, answer in texts]
learning, asked = pairs[:5000], pairs[5000:]
model = nn.EncoderDecoder(len(source), len(target), 64, embedding_dim=24, cell="gru", bidirectional=True, attention="general", rng=SEED)


def loss(model, batch):
    (texts, lengths), (answers, _) = batch
    return nn.functional.cross_entropy(model(texts, answers, lengths), answers[1:], ignore_index=model.pad, axis=-1)


learn(model, data.batches(learning, 32, rng=SEED), loss, 8)
(text, lengths), _ = data.collate(asked)
written = [target.decode(answer) for answer in model.translate(text, lengths, max_length=12)]
right = float(np.mean([ours == answer for ours, (_, answer) in zip(written, texts[5000:], strict=True)]))
print(f"{texts[5000][0]} -> {written[0]}; whole dates right: {right:.1%}, by chance none in 73,000")
assert right > 0.9

# %%
tg.graph(loss(model, data.collate([(source.encode("may"), np.array([1, *target.encode("05"), 2]))])), depth="cell", gradients=True)
