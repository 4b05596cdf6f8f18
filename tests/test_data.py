"""Data: symbols, windows and batches that resume, corpora, problems with known floors, n-gram rivals."""

import collections
import functools
import json
import math
import string
import struct
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
import tinygrad_rnn.data as data
from tinygrad_rnn.errors import DtypeError, OutOfRangeError, ShapeError


def laws(examples):
    return settings(derandomize=True, deadline=None, max_examples=examples)


seeds = st.integers(0, 2**32 - 1)


def bits_of(item):
    """An item as bytes, dtypes and shapes, in its structure."""
    if isinstance(item, tuple):
        return tuple(map(bits_of, item))
    return (item.tobytes(), item.dtype.str, item.shape) if isinstance(item, np.ndarray) else item


# Vocabulary


@laws(100)
@given(st.text(min_size=1), st.text())
def test_characters_there_and_back(text, other):
    vocabulary = data.Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int64 and ids.shape == (len(text),)
    assert vocabulary.decode(ids) == text
    assert [vocabulary.symbols[i] for i in ids] == list(text)
    assert ids.tolist() == vocabulary.encode(list(text)).tolist() == [vocabulary[c] for c in text]
    unknown = [i for i, c in enumerate(other) if c not in set(text)]
    if unknown:
        for symbols in (other, list(other)):
            with pytest.raises(OutOfRangeError) as caught:
                vocabulary.encode(symbols)
            for part in (repr(other[unknown[0]]), f"position {unknown[0]} ", "<unk>"):
                assert part in str(caught.value)
    tolerant = data.Vocabulary.from_text(text, specials=("<pad>", "<unk>"))
    assert [i for i, n in enumerate(tolerant.encode(other)) if n == 1] == unknown
    assert tolerant.decode([0, 1]) == "<pad><unk>"


@laws(100)
@given(st.lists(st.sampled_from(["a", "b", "cat", "dog", "<unk>", "é", ""]), min_size=1), st.integers(1, 3), st.integers(4, 9))
def test_tokens_are_counted(tokens, min_count, max_size):
    vocabulary = data.Vocabulary.from_tokens(iter(tokens), min_count=min_count, max_size=max_size)
    specials = ("<pad>", "<bos>", "<eos>", "<unk>")
    counts = collections.Counter(t for t in tokens if t not in specials)
    kept = vocabulary.symbols[4:]
    assert vocabulary.symbols[:4] == specials and len(vocabulary) <= max_size
    assert list(kept) == sorted(kept, key=lambda s: (-counts[s], s))
    left_out = set(counts) - set(kept)
    assert all(counts[s] >= min_count for s in kept)
    if len(vocabulary) < max_size:
        assert all(counts[s] < min_count for s in left_out)
    elif kept and left_out:
        assert max(counts[s] for s in left_out) <= counts[kept[-1]]
    assert vocabulary.decode(vocabulary.encode(tokens)) == [t if t in kept else "<unk>" for t in tokens]


def test_vocabulary_is_a_collection():
    vocabulary = data.Vocabulary.from_text("banana")
    assert vocabulary.symbols == ("a", "n", "b") == tuple(vocabulary)
    assert len(vocabulary) == 3 and "a" in vocabulary and "x" not in vocabulary and vocabulary["b"] == 2
    assert repr(vocabulary) == "Vocabulary of 3 characters: 'a', 'n', 'b'"
    assert len(repr(data.Vocabulary.from_text(string.printable))) < 100
    tokens = data.Vocabulary("anb")
    assert tokens != vocabulary and tokens == data.Vocabulary(["a", "n", "b"]) and len({tokens, vocabulary, data.Vocabulary("anb")}) == 2
    assert vocabulary.encode("").shape == (0,) and vocabulary.decode([]) == "" and tokens.decode([]) == []
    assert data.Vocabulary.from_text("ab", specials=("<bos>",)).encode(["<bos>", *"ab"]).tolist() == [0, 1, 2]
    assert data.Vocabulary.from_text("\ud800a").encode("a\ud800").tolist() == [0, 1]


@laws(50)
@given(st.lists(st.text(st.characters(exclude_categories=())), min_size=1, unique=True), st.booleans())
def test_vocabulary_in_json(symbols, characters):
    vocabulary = data.Vocabulary(symbols, characters=characters)
    text = vocabulary.to_json()
    assert isinstance(text, str) and text.isascii()
    again = data.Vocabulary.from_json(text)
    assert again == vocabulary and again.symbols == tuple(symbols) and again.characters is characters


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: data.Vocabulary([]), ShapeError, ["no symbols"]),
        (lambda: data.Vocabulary.from_text(""), ShapeError, ["no symbols"]),
        (lambda: data.Vocabulary(["a", "b", "a"]), ShapeError, ["'a'", "more than once"]),
        (lambda: data.Vocabulary(["a", 3]), DtypeError, ["3", "int", "position 1"]),
        (lambda: data.Vocabulary.from_text(["a"]), DtypeError, ["list", "from_tokens"]),
        (lambda: data.Vocabulary.from_tokens("words"), DtypeError, ["tokenize", "from_text"]),
        (lambda: data.Vocabulary.from_tokens([["a"], ["b"]]), DtypeError, ["unhashable", "chain"]),
        (lambda: data.Vocabulary.from_tokens([1, 2]), DtypeError, ["1", "int"]),
        (lambda: data.Vocabulary.from_tokens(["a"], max_size=3), ValueError, ["max_size", "at least 4", "3"]),
        (lambda: data.Vocabulary.from_tokens(["a"], min_count=0), ValueError, ["min_count", "at least 1", "0"]),
        (lambda: data.Vocabulary.from_tokens(["a"]).encode("a b"), DtypeError, ["str", "tokenize"]),
        (lambda: data.Vocabulary("ab").encode(7), DtypeError, ["int", "iterable"]),
        (lambda: data.Vocabulary("ab")["c"], OutOfRangeError, ["'c'", "<unk>"]),
        (lambda: data.Vocabulary("ab").decode([0, 1, 2]), OutOfRangeError, ["2 at position 2", "0..1"]),
        (lambda: data.Vocabulary("ab").decode([0, -1]), OutOfRangeError, ["-1 at position 1"]),
        (lambda: data.Vocabulary("ab").decode([0.0]), DtypeError, ["float64"]),
        (lambda: data.Vocabulary("ab").decode([[0], [1]]), ShapeError, ["(2, 1)"]),
        (lambda: data.Vocabulary("ab").decode("ab"), DtypeError, ["str"]),
        (lambda: data.Vocabulary.from_json("{"), ValueError, ["not JSON"]),
        (lambda: data.Vocabulary.from_json('{"symbols": "ab"}'), ValueError, ["to_json"]),
        (lambda: data.Vocabulary.from_json("[1]"), ValueError, ["to_json", "[1]"]),
    ],
)
def test_vocabulary_bad_input(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


def test_five_million_characters_are_encoded_fast():
    text = (data.reference_text() * 11)[:5_000_000]
    start = time.process_time()
    vocabulary = data.Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    assert time.process_time() - start < 1.0
    assert vocabulary.decode(ids[-1000:]) == text[-1000:]


# Text


def test_reference_text():
    from pydoc_data.topics import topics

    text = data.reference_text()
    assert len(text) == sum(map(len, topics.values())) + 2 * (len(topics) - 1)
    assert text.startswith(next(iter(topics.values())))


def test_read_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffà la\r\nligne\rfin\n".encode())
    assert data.read_text(path) == data.read_text(str(path)) == "à la\nligne\nfin\n"
    path.write_bytes("un\ndéjà".encode("latin-1"))
    assert data.read_text(path, encoding="latin-1") == "un\ndéjà"
    with pytest.raises(ValueError, match=r"a\.txt is not utf-8: byte 0xe9 at offset 4, in line 2 .*encoding='latin-1'"):
        data.read_text(path)
    for content, words in ((b"", r"is empty,"), (b" \n", r"is empty but for white space")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            data.read_text(path)
    with pytest.raises(FileNotFoundError, match=r"read_text: there is no file .*b\.txt"):
        data.read_text(tmp_path / "b.txt")
    with pytest.raises(IsADirectoryError, match=r"read_text: .* is a folder"):
        data.read_text(tmp_path)


def test_tokenize():
    assert data.tokenize("It's 'so', l’été: 3.5 naïve_ways!\n") == ["it's", "'", "so", "'", ",", "l’été", ":", "3", ".", "5", "naïve_ways", "!"]
    assert data.tokenize("Ab C", lower=False) == ["Ab", "C"] and data.tokenize(" \n") == []


@laws(50)
@given(st.text())
def test_tokens_are_the_text_without_white_space(text):
    assert "".join(data.tokenize(text, lower=False)) == "".join(text.split())


fractions = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(lambda parts: tuple(p / sum(parts) for p in parts))


@laws(100)
@given(st.integers(40, 200), fractions, st.booleans(), seeds)
def test_split_is_a_partition(n, fractions, shuffle, seed):
    parts = data.split(n, fractions, shuffle=shuffle, rng=seed)
    assert len(parts) == len(fractions)
    places = np.concatenate([np.asarray(part) for part in parts])
    assert sorted(places.tolist()) == list(range(n))
    assert shuffle or places.tolist() == list(range(n))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - n * fraction) <= 1
    values = np.random.default_rng(0).random((n, 2))
    text = "".join(map(chr, range(n)))
    for sequence, same in ((values, np.array_equal), (list(text), list.__eq__)):
        for part, indices in zip(data.split(sequence, fractions, shuffle=shuffle, rng=seed), parts, strict=True):
            assert type(part) is type(sequence) and same(part, type(part)([sequence[i] for i in indices]) if isinstance(part, list) else sequence[np.asarray(indices)])
    assert "".join(data.split(text, fractions)) == text


def test_split_is_seeded_and_does_not_copy():
    first, second, other = (np.concatenate(data.split(100, shuffle=True, rng=seed)) for seed in (1, 1, 2))
    assert (first == second).all() and (first != other).any() and (first != np.arange(100)).any()
    array = np.arange(100)
    assert all(np.shares_memory(part, array) for part in data.split(array))
    assert [len(p) for p in data.split("x" * 10)] == [8, 1, 1]
    assert data.split(465126)[2] == range(418613, 465126)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: data.split(10, (0.5, 0.4)), ValueError, r"\(0\.5, 0\.4\) with the sum 0\.9"),
        (lambda: data.split(10, (1.5, -0.5)), ValueError, "positive"),
        (lambda: data.split(10, ()), ValueError, "add up to 1"),
        (lambda: data.split(3), ShapeError, r"3 elements .* parts of \(2, 1, 0\)"),
        (lambda: data.split(-1), ValueError, "length must be at least 0, got -1"),
        (lambda: data.split(2.5), DtypeError, "length must be a whole number, got 2.5"),
    ],
)
def test_split_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


# Windows


@laws(150)
@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 60), st.booleans(), st.booleans(), seeds)
def test_windows_continue_their_streams(window, batch_size, spare, shuffle, drop_last, seed):
    text = np.arange(1000, 1000 + window * batch_size + 1 + spare, dtype=np.uint16)
    batches = data.windows(text, window, batch_size, shuffle=shuffle, rng=seed, drop_last=drop_last)
    for _ in range(2):
        epoch = list(batches)
        assert len(epoch) == len(batches) >= 1
        for item in epoch:
            assert item.inputs.dtype == item.targets.dtype == np.int64
            assert item.inputs.shape == item.targets.shape and item.inputs.shape[1] == batch_size
            assert (item.targets == item.inputs + 1).all() and not np.shares_memory(*item[:2])
        assert [item.start for item in epoch] == [True] + [False] * (len(epoch) - 1)
        steps = [len(item.inputs) for item in epoch]
        assert set(steps[:-1]) <= {window} and (steps[-1] == window if drop_last else 1 <= steps[-1] <= window)
        streams = np.concatenate([item.inputs for item in epoch])
        assert (np.diff(streams, axis=0) == 1).all()
        # Streams do not overlap, and what is left out is less than a window of each and the offset.
        assert len(np.unique(streams)) == streams.size
        left_out = len(text) - 1 - streams.size
        assert left_out < batch_size + shuffle * window + drop_last * window * batch_size
        assert shuffle or streams[0, 0] == 1000


def test_windows_for_measuring_cover_everything_once():
    text = np.arange(1, 24)
    targets = np.concatenate([w.targets[:, 0] for w in data.windows(text, 5, 1, shuffle=False)])
    assert targets.tolist() == list(range(2, 24))


def test_windows_have_an_offset_of_their_own_in_every_epoch(tmp_path):
    batches = data.windows(range(1000), 10, 4, rng=0)
    firsts = {next(iter(list(batches))).inputs[0, 0] for _ in range(30)}
    assert len(firsts) > 5 and max(firsts) < 4 + 10
    np.arange(1000, dtype=np.int32).tofile(tmp_path / "ids")
    mapped = np.memmap(tmp_path / "ids", np.int32, "r")
    again = data.windows(mapped, 10, 4, rng=0)
    assert bits_of(tuple(again)) == bits_of(tuple(data.windows(range(1000), 10, 4, rng=0)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: data.windows(range(256), 64, 4), ShapeError, r"256 symbols, and 4 streams with a window of 64 need at least 257"),
        (lambda: data.windows([], 1, 1), ShapeError, "0 symbols"),
        (lambda: data.windows("some text", 2, 1), DtypeError, "encode it"),
        (lambda: data.windows([0.5, 1.5], 1, 1), DtypeError, "float64"),
        (lambda: data.windows([[1, 2], [3, 4]], 1, 1), ShapeError, r"\(2, 2\)"),
        (lambda: data.windows([[1, 2], [3]], 1, 1), ShapeError, "several lengths"),
        (lambda: data.windows(range(9), 0, 1), ValueError, "window must be at least 1, got 0"),
        (lambda: data.windows(range(9), 2, -1), ValueError, "batch_size must be at least 1, got -1"),
        (lambda: data.windows(range(9), 2.0, 1), DtypeError, "window must be a whole number, got 2.0"),
        (lambda: data.windows(range(9), 2, 1, rng="seed"), DtypeError, "rng"),
    ],
)
def test_windows_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


# Padding and batches


@laws(100)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.sampled_from([(), (3,), (2, 2)]), st.sampled_from([np.float32, np.float64, np.int32]), st.integers(-100, 100), seeds)
def test_pad(lengths, features, dtype, value, seed):
    rng = np.random.default_rng(seed)
    sequences = [(rng.random((n, *features)) * 100).astype(dtype) for n in lengths]
    padded, found = data.pad(sequences, value)
    assert found.dtype == np.int64 and found.tolist() == lengths
    assert padded.shape == (max(lengths), len(lengths), *features)
    assert padded.dtype == (np.int64 if dtype == np.int32 else dtype)
    for b, sequence in enumerate(sequences):
        assert (padded[: len(sequence), b] == sequence).all() and (padded[len(sequence) :, b] == value).all()


def test_pad_takes_lists():
    padded, _ = data.pad([[1.5], [], [2, 3.0]], math.nan)
    assert padded.dtype == tg.get_default_dtype() and np.isnan(padded).sum() == 3
    padded, lengths = data.pad([[], [1, 2], range(1)], -1)
    assert padded.dtype == np.int64 and padded.T.tolist() == [[-1, -1], [1, 2], [0, -1]] and lengths.tolist() == [0, 2, 1]
    assert data.pad([[[1, 2]], [[3, 4], [5, 6]]])[0].shape == (2, 2, 2)
    assert data.pad([[True], [False, True]])[0].dtype == bool
    assert data.pad([[], np.ones((2, 3), np.float32)])[0].tolist() == [[[0] * 3, [1] * 3]] * 2


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: data.pad([]), ShapeError, "no sequences"),
        (lambda: data.pad([np.zeros((2, 3)), np.zeros((2, 4))]), ShapeError, r"sequence 1 has shape \(2, 4\), expected \(time, 3\)"),
        (lambda: data.pad([[1], 2]), ShapeError, r"sequence 1 has shape \(\)"),
        (lambda: data.pad([[1], [[1], [2, 3]]]), ShapeError, "sequence 1 is ragged"),
        (lambda: data.pad(["text"]), DtypeError, "Vocabulary"),
        (lambda: data.pad([[1]], 0.5), DtypeError, "int64 holds, got 0.5"),
        (lambda: data.pad([[1.0]], None), DtypeError, "got None"),
        (lambda: data.collate([]), ShapeError, "no examples"),
        (lambda: data.collate([([1], 0), ([1], 0, 2)]), ShapeError, "example 1 is a tuple of 3, expected a tuple of 2"),
        (lambda: data.collate([([1], 0), [1]]), ShapeError, "example 1 is a list, expected a tuple of 2"),
        (lambda: data.collate([1, [1]]), ShapeError, "some examples are numbers"),
        (lambda: data.collate([[1], 1]), ShapeError, "some examples are numbers"),
        (lambda: data.batches([], 2), ShapeError, "no examples"),
        (lambda: data.batches([[1]], 2, drop_last=True), ShapeError, "1 examples do not make one batch of 2"),
        (lambda: data.batches(([i] for i in range(3)), 2), DtypeError, "generator; make a list"),
        (lambda: data.batches([[1]], 0), ValueError, "batch_size must be at least 1"),
    ],
)
def test_batches_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


class Example(NamedTuple):
    source: list
    target: np.ndarray
    label: float


def test_collate_keeps_the_structure():
    examples = [(Example([1, 2], np.ones((1, 3), np.float32), 0.5), 1), (Example([3], np.ones((2, 3), np.float32), 1.5), 0)]
    example, labels = data.collate(examples, -1)
    assert type(example) is Example and labels.tolist() == [1, 0] and labels.dtype == np.int64
    assert example.source[0].tolist() == [[1, 3], [2, -1]] and example.source[1].tolist() == [2, 1]
    assert example.target[0].shape == (2, 2, 3) and example.target[0][1, 0].tolist() == [-1, -1, -1]
    assert example.label.tolist() == [0.5, 1.5] and example.label.dtype == tg.get_default_dtype()
    assert data.collate([np.float32(1), np.float32(2)]).shape == data.collate([np.array(1), np.array(2)]).shape == (2,)


@laws(100)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 7), st.booleans(), st.booleans(), seeds)
def test_every_example_comes_once_an_epoch(lengths, batch_size, shuffle, drop_last, seed):
    n = len(lengths)
    if drop_last and n < batch_size:
        return
    examples = [([i] * length, i) for i, length in enumerate(lengths)]
    loader = data.batches(examples, batch_size, shuffle=shuffle, rng=seed, drop_last=drop_last)
    for _ in range(2):
        epoch = list(loader)
        assert len(epoch) == len(loader) == (n // batch_size if drop_last else math.ceil(n / batch_size))
        labels = np.concatenate([labels for _, labels in epoch]).tolist()
        assert len(set(labels)) == len(labels) == (n - n % batch_size if drop_last else n)
        sizes = sorted(len(labels) for _, labels in epoch)
        assert set(sizes[1:]) <= {batch_size}
        for (_, found), names in epoch:
            assert found.tolist() == [lengths[i] for i in names]
        assert shuffle or labels == list(range(len(labels)))


def padding(loader):
    return sum(inputs.size - lengths.sum() for inputs, lengths in loader)


def test_batches_hold_similar_lengths_in_random_order():
    rng = np.random.default_rng(0)
    examples = [[1] * n for n in rng.integers(1, 60, 5000)]
    bucketed, plain = data.batches(examples, 16, rng=0), data.batches(examples, 16, rng=0, key=lambda _: 0)
    assert padding(bucketed) < 0.1 * padding(plain)
    first, second = list(bucketed), list(bucketed)
    assert bits_of(tuple(first)) != bits_of(tuple(second))
    longest = [lengths.max() for _, lengths in first]
    # Neighbouring batches are as unlike as any two are.
    steps, spread = np.abs(np.diff(longest)).mean(), np.abs(np.subtract.outer(longest, longest)).mean()
    assert 0.8 < steps / spread < 1.2
    assert bits_of(tuple(data.batches(examples, 16, rng=7))) == bits_of(tuple(data.batches(examples, 16, rng=7)))
    # The examples that drop_last leaves out are not the longest ones.
    dropped = data.batches(list(range(5)), 4, drop_last=True, key=lambda n: n, rng=0)
    assert {tuple(sorted(set(range(5)) - {int(n) for n in b})) for _ in range(50) for b in dropped} == {(n,) for n in range(5)}


def test_pairs_of_sequences_are_sorted_by_both_lengths():
    rng = np.random.default_rng(0)
    examples = [([1] * a, [1] * b) for a, b in rng.integers(1, 4, (2000, 2))]
    for (_, sources), (_, targets) in data.batches(examples, 4, rng=0):
        assert np.ptp(sources) <= 1 and (np.ptp(sources) or np.ptp(targets) <= 2)
    waste = sum(inputs.size - lengths.sum() for batch in data.batches(examples, 4, rng=0) for inputs, lengths in batch)
    by_first = sum(inputs.size - lengths.sum() for batch in data.batches(examples, 4, rng=0, key=lambda e: len(e[0])) for inputs, lengths in batch)
    assert waste < 0.2 * by_first


class Lazy:
    """Examples that say when they are read."""

    def __init__(self, n):
        self.n, self.read = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.read.append(i)
        return [i] * (i + 1)


def test_examples_are_read_when_their_batch_comes():
    examples = Lazy(10)
    loader = iter(data.batches(examples, 3, shuffle=False, collate=list))
    assert examples.read == []
    assert next(loader) == [[0], [1, 1], [2, 2, 2]] and examples.read == [0, 1, 2]
    examples = Lazy(10)
    loader = data.batches(examples, 3, rng=0)
    list(loader), list(loader)
    # Once more to learn the lengths, and only in the first epoch.
    assert collections.Counter(examples.read) == dict.fromkeys(range(10), 3)


# Positions


def some_windows(shape, rng):
    n, window, batch_size = shape
    return data.windows(np.arange(n), window, batch_size, rng=rng)


def some_batches(shape, rng):
    n, _, batch_size = shape
    return data.batches([([i] * (i % 5 + 1), i) for i in range(n)], batch_size, rng=rng)


def some_problems(shape, rng):
    n, T, batch = shape
    return data.Epochs(lambda rng: rng.integers(2**32, size=n % 7 + 1), lambda seed: data.copy_memory(T, batch, rng=seed), rng=rng)


kinds = st.sampled_from([some_windows, some_batches, some_problems])
shapes = st.tuples(st.integers(20, 60), st.integers(1, 6), st.integers(1, 3))


@laws(150)
@given(kinds, shapes, seeds, st.data())
def test_a_run_that_was_cut_off_sees_the_same_items(kind, shape, seed, draw):
    whole = kind(shape, seed)
    expected = [bits_of(item) for _ in range(3) for item in whole]
    length = len(whole)
    cut = draw.draw(st.integers(0, 2 * length), "items before the cut")

    first = kind(shape, seed)
    seen, position = [], first.state_dict()
    while len(seen) < cut:
        for item in first:
            seen.append(bits_of(item))
            position = first.state_dict()
            if len(seen) == cut:
                break

    resumed = kind(shape, None)
    resumed.load_state_dict(json.loads(json.dumps(position)))
    assert resumed.state_dict() == position
    rest, epochs = [], 0
    while len(rest) < 3 * length - cut:
        rest += [bits_of(item) for item in resumed]
        epochs += 1
        assert resumed.index == 0
    assert seen + rest == expected
    # As many loops end as would have: the one that the cut fell into, behind its last item too, and the whole ones.
    assert epochs == 3 - position["epoch"] and resumed.epoch == 3


def test_a_loop_goes_on_where_one_was_left():
    whole, parts = (data.windows(range(100), 5, 2, rng=3) for _ in range(2))
    expected = [bits_of(item) for item in whole]
    found = []
    while len(found) < len(expected):
        for item in parts:
            found.append(bits_of(item))
            if len(found) % 2:
                break
    assert found == expected and (parts.epoch, parts.index) in {(0, len(parts)), (1, 0)}
    # Loops over the same object share its position, as those over a file do.
    both = data.windows(range(100), 5, 2, rng=3)
    assert [bits_of(a) for pair in zip(both, both, strict=False) for a in pair] == expected[: len(expected) // 2 * 2]
    assert repr(data.windows(range(100), 5, 2)) == "Epochs(epoch=0, index=0)"


def test_a_loop_ends_where_the_position_is_moved():
    loader = data.windows(range(100), 5, 2, rng=3)
    position = loader.state_dict()
    items = iter(loader)
    next(items), next(items)
    loader.load_state_dict(position)
    assert list(items) == [] and (loader.epoch, loader.index) == (0, 0)


def test_an_item_that_cannot_be_read_is_not_passed_over():
    fail = [True]

    def read(place):
        if place == 2 and fail.pop():
            raise OSError("busy")
        return place

    loader = data.Epochs(lambda rng: range(4), read)
    found = []
    with pytest.raises(OSError):
        for item in loader:
            found.append(item)
    fail.append(False)
    assert found == [0, 1] and loader.index == 2 and [*loader] == [2, 3]


def test_the_position_does_not_depend_on_who_else_draws():
    shared = np.random.default_rng(5)
    loader, other = (data.batches(list(range(20)), 3, rng=np.random.default_rng(5)) for _ in range(2))
    mixed = data.batches(list(range(20)), 3, rng=shared)
    found = []
    for _ in range(2):
        for item in mixed:
            shared.random(3)
            found.append(item.tolist())
    assert found == [item.tolist() for _ in range(2) for item in loader]
    assert data.batches(list(range(20)), 3, rng=shared).state_dict()["seed"] != other.state_dict()["seed"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"index": -1}, DtypeError, "whole numbers"),
        ({"epoch": 1.5}, DtypeError, "1.5"),
        ({"seed": [1, 2, 3]}, DtypeError, "four"),
        ({"seed": None}, DtypeError, "four"),
        ({"seed": [1, 2, 3, "x"]}, DtypeError, "four"),
        ({"more": 1}, DtypeError, "more"),
        ({"index": 8}, ShapeError, "item 8 of an epoch of 7"),
        ({"length": 9}, ShapeError, "an epoch of 9, an epoch of this data has 7: it is other data"),
    ],
)
def test_positions_of_other_data_change_nothing(change, error, words):
    loader = data.batches(list(range(20)), 3, rng=0)
    for _, _ in zip(range(2), loader, strict=False):
        pass
    before = loader.state_dict()
    with pytest.raises(error, match=words):
        loader.load_state_dict({**data.batches(list(range(20)), 3, rng=1).state_dict(), **change})
    assert loader.state_dict() == before
    for state in (None, [1], {}):
        with pytest.raises(DtypeError, match="seed, epoch, index, length"):
            loader.load_state_dict(state)


# Corpora


def write_mo(path, messages):
    """A .mo file (GNU gettext manual, The Format of GNU MO Files): tables of (length, offset), then strings that end with NUL."""
    messages = {"": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n != 1;\n", **messages}
    originals, translations = ([text.encode() for text in side] for side in zip(*sorted(messages.items()), strict=True))
    n = len(messages)
    tables, strings, offset = b"", b"", 28 + 16 * n
    for text in originals + translations:
        tables += struct.pack("<2I", len(text), offset + len(strings))
        strings += text + b"\0"
    path.write_bytes(struct.pack("<7I", 0x950412DE, 0, n, 28, 28 + 8 * n, 0, 28 + 16 * n) + tables + strings)


MESSAGES = {
    "Open the file": "Ouvrir le fichier",
    "menu\x04Open the file": "Ouvrir le fichier",
    "noun\x04Open the file": "Le fichier ouvert",
    "one page\x00pages": "une page\x00des pages",
    "  Two\n lines ": "Deux   lignes",
    "Same": "Same",
    "Missing": "",
    "Load %s": "Charger %s",
    "Load {0}": "Charger {0}",
    "Load <b>it</b>": "Le charger",
    "Load &it": "Le charger",
    "Load $name": "Charger le nom",
    "Open ~now": "Ouvrir maintenant",
    "_Close": "Fermer",
    "C:\\temp": "Dossier",
    "Load 100": "Charger 100 %",
    "A sentence of exactly six words": "Une phrase d'exactement sept beaux mots",
}
CLEAN = {
    ("Open the file", "Ouvrir le fichier"),
    ("Open the file", "Le fichier ouvert"),
    ("one page", "une page"),
    ("Two lines", "Deux lignes"),
    ("A sentence of exactly six words", "Une phrase d'exactement sept beaux mots"),
}


def test_pairs_of_a_compiled_catalogue(tmp_path):
    write_mo(tmp_path / "a.mo", MESSAGES)
    found = list(data.pairs(tmp_path / "a.mo"))
    assert len(found) == len(CLEAN) and set(found) == CLEAN
    assert set(data.pairs(str(tmp_path / "a.mo"), min_words=3, max_words=5)) == {p for p in CLEAN if p[0].startswith("Open")}
    assert len(list(data.pairs(tmp_path / "a.mo", min_words=6))) == 1 and not list(data.pairs(tmp_path / "a.mo", min_words=7))
    # The longer side counts against max_words.
    write_mo(tmp_path / "b.mo", {"short": "pas si court que cela"})
    assert not list(data.pairs(tmp_path / "b.mo", max_words=4)) and len(list(data.pairs(tmp_path / "b.mo", max_words=5))) == 1


def test_pairs_of_a_source_catalogue(tmp_path):
    pytest.importorskip("polib")
    (tmp_path / "a.po").write_text(
        'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
        'msgid "Open the file"\nmsgstr "Ouvrir le fichier"\n\n'
        'msgctxt "noun"\nmsgid "Open the file"\nmsgstr "Le fichier ouvert"\n\n'
        '#, fuzzy\nmsgid "doubtful"\nmsgstr "douteux"\n\nmsgid "missing"\nmsgstr ""\n\n#~ msgid "old"\n#~ msgstr "vieux"\n\n'
        'msgid "one page"\nmsgid_plural "pages"\nmsgstr[0] "une page"\nmsgstr[1] "des pages"\n',
        encoding="utf-8",
    )
    assert set(data.pairs(tmp_path / "a.po")) == {p for p in CLEAN if p[0].startswith(("Open", "one"))}
    (tmp_path / "b.po").write_text("no catalogue\n")
    with pytest.raises(ValueError, match=r"b\.po is not a \.po file"):
        data.pairs(tmp_path / "b.po")


def test_pairs_bad_input(tmp_path, monkeypatch):
    write_mo(tmp_path / "a.mo", MESSAGES)
    content = (tmp_path / "a.mo").read_bytes()
    for broken in (b"", b"abc", b"not a catalogue at all", content[:20], content[: len(content) // 2], content[:-100], content[:60]):
        (tmp_path / "b.mo").write_bytes(broken)
        with pytest.raises(ValueError, match=r"pairs: .*b\.mo cannot be read as a \.mo file"):
            data.pairs(tmp_path / "b.mo")
    with pytest.raises(FileNotFoundError, match="pairs: there is no file"):
        data.pairs(tmp_path / "c.mo")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"expected a \.mo or a \.po file"):
        data.pairs(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="max_words must be at least 4, got 3"):
        data.pairs(tmp_path / "a.mo", min_words=4, max_words=3)
    (tmp_path / "a.po").write_text("")
    monkeypatch.setitem(sys.modules, "polib", None)
    with pytest.raises(ImportError, match="pip install polib"):
        data.pairs(tmp_path / "a.po")


def test_labelled_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufefftext,label,source\r\n"Good, ""really""\nso",1,x\r\n\r\nmau,0,y\n'.encode())
    assert list(data.labelled_csv(path)) == [('Good, "really"\nso', "1"), ("mau", "0")]
    assert list(data.labelled_csv(str(path), "source", "text"))[1] == ("y", "mau")
    path.write_bytes("text\tlabel\ndéjà\t1\n".encode("latin-1"))
    assert list(data.labelled_csv(path, delimiter="\t", encoding="latin-1")) == [("déjà", "1")]


def test_labelled_csv_is_read_as_it_is_asked_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,label\nfine,1\n"two\nlines",0\n' + "déjà,1\n".encode("latin-1") + b"never,1\n")
    rows = data.labelled_csv(path)
    assert next(rows) == ("fine", "1") and next(rows) == ("two\nlines", "0")
    with pytest.raises(ValueError, match=r"a\.csv, row 3 \(line 5\): 'utf-8' codec can't decode byte 0xe9.*encoding='latin-1'"):
        next(rows)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"is empty, expected a header with the columns 'text' and 'label'"),
        (b"text,stars\n", r"no column 'label', its columns are 'text', 'stars'"),
        (b"t\xe9xt,label\n", r"header \(line 1\): 'utf-8'"),
        (b"text,label\na,1\nb\n", r"row 2 \(line 3\): 1 fields, and the header has 2"),
        (b"text,label\na,1,2\n", r"row 1 \(line 2\): 3 fields"),
        (b'text,label\n"a"b,1\n', r"row 1 \(line 2\): .*expected after"),
        (b'text,label\n"a,1\n', r"row 1 \(line 2\): unexpected end of data"),
    ],
)
def test_labelled_csv_bad_input(tmp_path, content, words):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        list(data.labelled_csv(path))
    with pytest.raises(FileNotFoundError, match="labelled_csv: there is no file"):
        data.labelled_csv(tmp_path / "b.csv")


# Problems with known floors


@laws(50)
@given(st.integers(2, 40), st.integers(1, 5), seeds)
def test_adding_problem(T, batch, seed):
    inputs, targets = data.adding_problem(T, batch, seed)
    assert inputs.shape == (T, batch, 2) and targets.shape == (batch, 1) and inputs.dtype == targets.dtype == np.float32
    for b in range(batch):
        marked = np.flatnonzero(inputs[:, b, 1])
        assert len(marked) == 2 and marked[0] < T // 2 <= marked[1] and inputs[marked, b, 1].tolist() == [1, 1]
        assert abs(inputs[marked, b, 0].sum() - targets[b, 0]) < 1e-6
    assert ((inputs[..., 0] >= 0) & (inputs[..., 0] <= 1)).all()


@laws(50)
@given(st.integers(1, 40), st.integers(1, 5), seeds)
def test_copy_memory(T, batch, seed):
    inputs, targets = data.copy_memory(T, batch, seed)
    assert inputs.shape == targets.shape == (T + 20, batch) and inputs.dtype == targets.dtype == np.int64
    assert (inputs[:10] < 8).all() and (inputs[:10] >= 0).all()
    assert (inputs[10 : T + 9] == 8).all() and (inputs[T + 9] == 9).all() and (inputs[T + 10 :] == 8).all()
    assert (targets[: T + 10] == 8).all() and (targets[T + 10 :] == inputs[:10]).all()


@laws(50)
@given(st.integers(10, 60), st.integers(1, 5), seeds)
def test_temporal_order(T, batch, seed):
    inputs, targets = data.temporal_order(T, batch, seed)
    assert inputs.shape == (T, batch) and targets.shape == (batch,) and inputs.dtype == targets.dtype == np.int64
    for b in range(batch):
        first, second = places = np.flatnonzero(inputs[:, b] < 2)
        assert T // 10 <= first <= T / 5 and 2 * T // 5 <= second <= T / 2
        assert targets[b] == 2 * inputs[places[0], b] + inputs[places[1], b]
    assert inputs.max() <= 5 and inputs.min() >= 0


def test_floors():
    _, sums = data.adding_problem(10, 100_000, 0)
    assert abs(((sums - 1) ** 2).mean() - 1 / 6) < 0.002
    inputs, targets = data.copy_memory(30, 20_000, 0)
    # The best prediction for each step when nothing is known but the step: its frequencies over the batch.
    entropy = 0.0
    for row in targets:
        p = np.bincount(row, minlength=10) / len(row)
        entropy -= (p[p > 0] * np.log(p[p > 0])).sum() / len(targets)
    assert abs(entropy - 10 * math.log(8) / 50) < 1e-3
    inputs, targets = data.temporal_order(50, 40_000, 0)
    assert np.abs(np.bincount(targets) / 40_000 - 1 / 4).max() < 0.01
    assert np.abs(np.bincount(inputs.ravel(), minlength=6)[2:] / inputs.size - 48 / 50 / 4).max() < 0.01
    marks = data.adding_problem(11, 50_000, 0)[0][..., 1].mean(1)
    assert np.abs(marks - np.repeat([1 / 5, 1 / 6], [5, 6])).max() < 0.01


@pytest.mark.parametrize("problem", [data.adding_problem, data.copy_memory, data.temporal_order])
def test_problems_are_seeded_and_check_their_numbers(problem):
    assert bits_of(problem(20, 4, rng=3)) == bits_of(problem(20, 4, np.random.default_rng(3)))
    assert bits_of(problem(20, 4, rng=3)) != bits_of(problem(20, 4, rng=4))
    with pytest.raises(ValueError, match=f"{problem.__name__}: T must be at least"):
        problem(0, 4)
    with pytest.raises(ValueError, match=f"{problem.__name__}: batch must be at least 1, got 0"):
        problem(20, 0)
    with pytest.raises(DtypeError, match="T must be a whole number"):
        problem(20.0, 4)


# n-gram rivals


def witten_bell(text, order, size):
    """The formula, read aloud: P(w | h), by counting in plain Python."""

    @functools.cache
    def followers(h):
        return collections.Counter(text[i + len(h)] for i in range(len(text) - len(h)) if text[i : i + len(h)] == h)

    def p(w, h):
        lower = p(w, h[1:]) if h else 1 / size
        seen = followers(h)
        return (seen[w] + len(seen) * lower) / (seen.total() + len(seen)) if seen else lower

    return lambda ids: [p(w, tuple(ids[max(0, i - order + 1) : i])) for i, w in enumerate(ids)]


symbols = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@laws(100)
@given(symbols, symbols, st.integers(1, 6), st.integers(0, 2))
def test_witten_bell_is_its_formula(text, other, order, more):
    model = data.WittenBell(order, 4 + more).fit(np.array(text, np.uint8))
    for ids in (text, other):
        expected = witten_bell(tuple(text), order, 4 + more)(ids)
        np.testing.assert_allclose(model.probabilities(ids), expected, rtol=1e-13)
        assert math.isclose(model.bits(ids), -sum(map(math.log2, expected)) / len(ids), rel_tol=1e-13)


@laws(100)
@given(symbols, st.lists(st.integers(0, 6), max_size=8), st.integers(1, 9))
def test_witten_bell_is_a_distribution(text, context, order):
    model = data.WittenBell(order, 7).fit(text)
    every = np.array([[*context, w] for w in range(7)])
    p = model.probabilities(every)
    assert p.shape == every.shape and (p > 0).all()
    assert abs(p[:, -1].sum() - 1) < 1e-14


@pytest.fixture(scope="module")
def reference():
    text = data.reference_text()
    vocabulary = data.Vocabulary.from_text(text)
    return vocabulary, *data.split(vocabulary.encode(text), (0.9, 0.1))


def test_witten_bell_sums_to_one_on_the_reference_text(reference):
    vocabulary, train, test = reference
    model = data.WittenBell(6, len(vocabulary)).fit(train)
    rng = np.random.default_rng(0)
    contexts = [test[i : i + 5] for i in rng.integers(0, len(test) - 5, 50)] + [rng.integers(0, len(vocabulary), 5) for _ in range(10)]
    for context in contexts:
        every = np.column_stack([np.tile(context, (len(vocabulary), 1)), np.arange(len(vocabulary))])
        assert abs(model.probabilities(every)[:, -1].sum() - 1) < 1e-12


def test_bits_of_the_reference_text(reference):
    vocabulary, train, test = reference
    if len(train) + len(test) != 465_126:
        pytest.skip("the text differs between versions of Python")
    assert len(vocabulary) == 103
    start = time.process_time()
    bits = [data.WittenBell(order, len(vocabulary)).fit(train).bits(test) for order in (4, 6)]
    assert np.round(bits, 2).tolist() == [2.03, 1.93]
    assert time.process_time() - start < 4


def test_witten_bell_bad_input():
    with pytest.raises(RuntimeError, match=r"call fit\(ids\) first"):
        data.WittenBell(2).bits([0])
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        data.WittenBell(0)
    with pytest.raises(ShapeError, match="the text is empty"):
        data.WittenBell(2).fit([])
    model = data.WittenBell(2).fit([0, 1, 2])
    with pytest.raises(ShapeError, match="the text is empty"):
        model.bits([])
    with pytest.raises(OutOfRangeError, match=r"3 at position 1 is not in 0\.\.2; give WittenBell\(order, num_symbols=len\(vocabulary\)\)"):
        model.bits([0, 3])
    with pytest.raises(OutOfRangeError, match=r"-1 at position \(1, 0\)"):
        model.probabilities([[0, 1], [-1, 0]])
    before = model.bits([0, 1])
    for text, error in (([0, -1], OutOfRangeError), ("text", DtypeError)):
        with pytest.raises(error):
            model.fit(text)
    assert model.bits([0, 1]) == before
    with pytest.raises(OutOfRangeError, match="num_symbols is the size of the alphabet"):
        data.WittenBell(2, 2).fit([0, 2])


def test_import_is_cheap():
    code = "import sys, tinygrad_rnn; before = set(sys.modules); import tinygrad_rnn.data; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert all(name.startswith("tinygrad_rnn.data") for name in loaded)
