"""The kinds of sequence models: each against a computation by hand, one sequence at a time and without padding."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.nn.functional import cross_entropy

few = settings(derandomize=True, deadline=None, max_examples=40, database=None)
CELLS = ["rnn", "gru", "lstm"]


def parts(tree):
    return [leaf for part in tree for leaf in parts(part)] if isinstance(tree, tuple) else [tree]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a.numpy() if isinstance(a, tg.Tensor) else a, b.numpy() if isinstance(b, tg.Tensor) else b, rtol=tolerance, atol=tolerance)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [p.grad.numpy().copy() for p in model.parameters()]


def training_but_for_one_part(model):
    model.train()
    model.modules()[2].eval()


each_mode = pytest.mark.parametrize("change", [nn.Module.train, nn.Module.eval, training_but_for_one_part], ids=["train", "eval", "mixed"])


class Spy(nn.Module):
    """A part that notes whether what it gives is recorded, and in what mode."""

    def __init__(self, inner):
        self.inner, self.seen = inner, []

    def forward(self, *arguments):
        out = self.inner(*arguments)
        self.seen.append((out.requires_grad, self.training))
        return out


class TestReaders:
    """SequenceClassifier and SequenceTagger."""

    @staticmethod
    def steps(model, x):
        """One sequence alone through the network: outputs (time, size)."""
        return model.rnn(x[:, None] if model.embedding is None else model.embedding.weight.numpy()[x][:, None])[0].numpy()[:, 0]

    @few
    @given(st.sampled_from(CELLS), st.sampled_from(["last", "mean", "max"]), st.booleans(), st.booleans(), st.integers(1, 2), st.booleans(), st.integers(0, 2**32 - 1))
    def test_each_sequence_alone_gives_the_same(self, cell, pool, bidirectional, features, layers, padded, seed):
        rng = np.random.default_rng(seed)
        options = {"cell": cell, "bidirectional": bidirectional, "num_layers": layers, "dtype": np.float64, "rng": rng}
        size = {"input_size": 3} if features else {"embedding_dim": 2}
        classifier = nn.SequenceClassifier(None if features else 7, 4, 3, pool=pool, **size, **options)
        tagger = nn.SequenceTagger(None if features else 7, 4, 5, **size, **options)
        T, B = (int(n) for n in rng.integers(1, 6, 2))
        counts = rng.integers(1, T + 1, B) if padded else np.full(B, T)
        x = rng.standard_normal((T, B, 3)) if features else rng.integers(0, 7, (T, B))
        logits, tags = (model(x, counts) if padded else model(x) for model in (classifier, tagger))
        assert logits.shape == (B, 3)
        assert tags.shape == (T, B, 5)
        for k, n in enumerate(counts):
            out = self.steps(classifier, x[:n, k])
            # The reverse direction's last step is the first one.
            read = {"last": np.concatenate([out[-1, :4], out[0, 4:]]), "mean": out.mean(axis=0), "max": out.max(axis=0)}[pool]
            close(logits[k], classifier.head.weight.numpy() @ read + classifier.head.bias.numpy())
            close(tags[:n, k], self.steps(tagger, x[:n, k]) @ tagger.head.weight.numpy().T + tagger.head.bias.numpy())

    @pytest.mark.parametrize("kind", ["last", "mean", "max", "tagger"])
    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize("features", [False, True])
    def test_padding_never_matters(self, kind, bidirectional, features):
        options = {"num_layers": 2, "bidirectional": bidirectional, "dtype": np.float64, "rng": 0, "input_size": 3 if features else None}
        words = None if features else 7
        model = nn.SequenceTagger(words, 4, 2, **options) if kind == "tagger" else nn.SequenceClassifier(words, 4, 2, pool=kind, **options)
        rng, counts = np.random.default_rng(1), np.array([2, 5, 1, 3])
        x = rng.standard_normal((5, 4, 3)) if features else rng.integers(0, 7, (5, 4))
        inside = np.arange(5)[:, None] < counts
        inside = inside[..., None] if features else inside
        weights = rng.standard_normal((4, 2))
        results = []
        for padding in (0.0, math.nan, math.inf, 1e300) if features else (0, 6, 99, -1):
            t = tg.tensor(np.where(inside, x, padding), requires_grad=features)
            y = model(t, lengths=tg.tensor(counts))
            results.append([y.numpy(), *gradients(model, (y * weights).sum())])
            if features:
                results[-1].append(t.grad.numpy())
                assert not np.where(inside, 0, t.grad.numpy()).any()
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)
        assert np.isfinite(results[0][0]).all()
        longer = np.concatenate([x, x[:2]])
        y = model(longer, counts)
        close(y[:5] if kind == "tagger" else y, results[0][0])

    @pytest.mark.parametrize("kind", [nn.SequenceClassifier, nn.SequenceTagger])
    def test_the_order_of_a_batch_does_not_matter(self, kind):
        model, rng = kind(9, 5, 3, bidirectional=True, dtype=np.float64, rng=0), np.random.default_rng(0)
        x, counts, order = rng.integers(0, 9, (6, 5)), np.array([3, 6, 1, 6, 2]), rng.permutation(5)
        axis = 0 if kind is nn.SequenceClassifier else 1
        close(model(x[:, order], counts[order]), np.take(model(x, counts).numpy(), order, axis=axis))

    def test_the_padding_row_gets_no_gradient(self):
        model = nn.SequenceClassifier(4, 3, 2, padding_idx=0, rng=0)
        assert not model.embedding.weight.numpy()[0].any()
        model(np.array([[1, 2], [0, 3]])).sum().backward()
        assert [row.any() for row in model.embedding.weight.grad.numpy()] == [False, True, True, True]

    def test_dropout_acts_in_training_only(self):
        model = nn.SequenceClassifier(4, 64, 2, dropout=0.5, rng=0)
        x = np.array([[1, 2], [0, 3]])
        assert not np.array_equal(model(x).numpy(), model(x).numpy())
        model.eval()
        np.testing.assert_array_equal(model(x).numpy(), model(x).numpy())
        plain = nn.SequenceClassifier(4, 64, 2, rng=0)
        np.testing.assert_array_equal(model(x).numpy(), plain(x).numpy())

    @pytest.mark.parametrize("pool", ["last", "mean", "max"])
    def test_float32_and_empty_batches(self, pool):
        model = nn.SequenceClassifier(4, 3, 2, pool=pool, bidirectional=True, rng=0)
        y = model(np.array([[1, 2], [0, 3]]), [2, 1])
        y.sum().backward()
        assert {y.dtype, *(p.grad.dtype for p in model.parameters())} == {np.dtype(np.float32)}
        assert model(np.zeros((3, 0), int)).shape == model(np.zeros((3, 0), int), []).shape == (0, 2)
        assert nn.SequenceTagger(4, 3, 2)(np.zeros((3, 0), int), []).shape == (3, 0, 2)


def language_model(words=6, hidden=5, **options):
    """One whose symbols are far from equally probable."""
    model = nn.LanguageModel(words, hidden, **{"dtype": np.float64, "rng": 0} | options)
    with tg.no_grad():
        for p in model.parameters():
            p *= 4
    return model


def constant_model(logits):
    """The same logits after every text."""
    model = nn.LanguageModel(len(logits), 1, cell="rnn", dtype=np.float64, rng=0)
    with tg.no_grad():
        for p in model.parameters():
            p *= 0
        model.head.bias += np.array(logits)
    return model


def chi_square(drawn, probabilities):
    counts = np.bincount(drawn, minlength=len(probabilities))
    expected = len(drawn) * np.asarray(probabilities)
    assert not counts[expected == 0].any()
    return sum((counts - expected)[expected > 0] ** 2 / expected[expected > 0])


# The value that chi square exceeds once in 10,000 times, by its degrees of freedom.
UNLIKELY = {2: 18.42, 4: 23.51}


class TestLanguageModel:
    @pytest.mark.parametrize("cell", CELLS)
    def test_state_carried_over_windows_is_one_pass(self, cell):
        model, x = language_model(cell=cell, num_layers=2), np.random.default_rng(0).integers(0, 6, (7, 3))
        whole, last = model(x)
        assert whole.shape == (7, 3, 6)
        pieces, state = [], None
        for window in (x[:2], x[2:3], x[3:]):
            logits, state = model(window, state)
            pieces.append(logits.numpy())
        close(whole, np.concatenate(pieces))
        for a, b in zip(parts(last), parts(state), strict=True):
            close(a, b)

    def test_logits_by_hand(self):
        model, x = language_model(), np.random.default_rng(0).integers(0, 6, (4, 2))
        output, _ = model.rnn(model.embedding.weight.numpy()[x])
        close(model(x)[0], output.numpy() @ model.head.weight.numpy().T + model.head.bias.numpy())

    @pytest.mark.parametrize("options", [{}, {"embedding_dim": 3, "proj_size": 3}])
    def test_tied_weights(self, options):
        model = language_model(tie_weights=True, **options)
        assert model.head.weight is model.embedding.weight
        assert "head.weight" in model.state_dict()
        assert "head.weight" not in dict(model.named_parameters())
        apart = language_model(**options)
        apart.load_state_dict(model.state_dict())
        assert apart.num_parameters() - model.num_parameters() == model.embedding.weight.size
        x = np.array([[1, 2], [3, 3], [0, 5]])
        for m in (model, apart):
            cross_entropy(m(x[:-1])[0], x[1:], axis=-1).backward()
        close(model.embedding.weight.grad, apart.embedding.weight.grad + apart.head.weight.grad)
        close(model.head.bias.grad, apart.head.bias.grad)

    @pytest.mark.parametrize("cell", CELLS)
    def test_greedy_is_argmax_of_the_whole_text_again(self, cell):
        model, seen = language_model(cell=cell, num_layers=2, dropout=0.5), set()
        for prompt in ([1], [0, 3, 2], np.array([5, 5]), tg.tensor([4])):
            text = list(prompt.tolist() if hasattr(prompt, "tolist") else prompt)
            start = len(text)
            model.eval()
            for _ in range(8):
                text.append(int(np.argmax(model(np.array(text)[:, None])[0].numpy()[-1, 0])))
            model.train()
            written = model.generate(prompt, 8, temperature=0)
            assert written.dtype == np.int64
            assert written.tolist() == text[start:]
            seen.update(text[start:])
        assert len(seen) > 1

    def test_top_one_is_greedy(self):
        model = language_model()
        for temperature in (0.5, 3.0):
            np.testing.assert_array_equal(model.generate([1], 20, temperature, top_k=1, rng=3), model.generate([1], 20, temperature=0))

    def test_seeds_repeat(self):
        model = language_model(num_layers=2)
        text = model.generate([1, 2], 30, rng=5)
        np.testing.assert_array_equal(model.generate([1, 2], 30, rng=5), text)
        np.testing.assert_array_equal(model.generate([1, 2], 30, rng=np.random.default_rng(5)), text)
        np.testing.assert_array_equal(model.generate([1, 2], 12, rng=5), text[:12])
        np.testing.assert_array_equal(model.generate([1, 2], 30, temperature=1.0, top_k=6, rng=5), text)
        assert list(itertools.islice(model.stream([1, 2], rng=5), 30)) == text.tolist()
        assert not np.array_equal(model.generate([1, 2], 30, rng=6), text)
        assert model.generate([1, 2], 0).shape == (0,)

    def test_streaming_gives_the_same(self):
        model = language_model()
        streams = [model.stream([1, 2], 1.3, 4, seed) for seed in (5, 6)]
        texts = list(itertools.islice(zip(*streams, strict=True), 20))
        for text, seed in zip(zip(*texts, strict=True), (5, 6), strict=True):
            assert list(text) == model.generate([1, 2], 20, 1.3, 4, seed).tolist()
            assert all(type(symbol) is int for symbol in text)

    @pytest.mark.parametrize("tiny", [1e-3, 1e-300, 5e-324])
    def test_a_temperature_near_zero_is_greedy(self, tiny):
        model = language_model()
        np.testing.assert_array_equal(model.generate([1], 10, tiny, rng=0), model.generate([1], 10, 0))

    @pytest.mark.parametrize(
        ("temperature", "top_k", "probabilities"),
        [
            (1.0, None, softmax(np.array([1.0, -1.0, 0.5, 2.0, -0.5]))),
            (0.5, None, softmax(np.array([1.0, -1.0, 0.5, 2.0, -0.5]) / 0.5)),
            (1e9, None, np.full(5, 0.2)),
            (2.0, 3, np.array([1.0, 0, 1, 1, 0]) * np.exp(np.array([1.0, 0, 0.5, 2.0, 0]) / 2) / np.exp(np.array([1.0, 0.5, 2.0]) / 2).sum()),
        ],
    )
    def test_frequencies_are_the_softmax(self, temperature, top_k, probabilities):
        model = constant_model([1.0, -1.0, 0.5, 2.0, -0.5])
        drawn = model.generate([0], 1000, temperature, top_k, rng=0)
        assert chi_square(drawn, probabilities) < UNLIKELY[np.count_nonzero(probabilities) - 1]
        # Successive symbols are independent here: pairs of one symbol twice are as frequent as they should be.
        share = np.sum(probabilities**2)
        assert abs(np.mean(drawn[1:] == drawn[:-1]) - share) < 4 * math.sqrt(share / 1000)

    def test_top_k_of_equals_keeps_k(self):
        assert len(set(constant_model([0.0] * 6).generate([0], 100, top_k=2, rng=0).tolist())) == 2

    def test_logits_may_be_large(self):
        assert set(constant_model([1e4, 1e4 - 800, -1e308]).generate([0], 20, rng=0).tolist()) == {0}

    def test_nothing_is_recorded_and_dropout_is_off(self):
        model = language_model(dropout=0.9)
        loss = cross_entropy(model(np.array([[1], [2]]))[0], np.array([[2], [3]]), axis=-1)
        model.head = spy = Spy(model.head)
        model.generate([1], 5, rng=0)
        assert spy.seen == [(False, False)] * 5
        assert all(p.grad is None for p in model.parameters())
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())

    @each_mode
    def test_the_mode_of_every_part_is_restored(self, change):
        model = language_model(dropout=0.5)
        change(model)
        before = [m.training for m in model.modules()]
        model.generate([1], 3, rng=0)
        assert [m.training for m in model.modules()] == before
        with pytest.raises(IndexError):
            model.generate([99], 3)
        assert [m.training for m in model.modules()] == before

    def test_between_two_symbols_the_model_is_the_callers(self):
        model, x = language_model(dropout=0.5), np.array([[1], [2], [3]])
        stream = model.stream([1], rng=0)
        for _ in range(3):
            next(stream)
            assert model.training
            loss = cross_entropy(model(x[:-1])[0], x[1:], axis=-1)
            assert loss.requires_grad
            loss.backward()
        stream.close()
        assert (model.head.weight * 1).requires_grad


class TestAttention:
    @few
    @given(st.sampled_from(["dot", "general", "additive"]), st.booleans(), st.integers(0, 2**32 - 1))
    def test_by_hand(self, score, padded, seed):
        rng = np.random.default_rng(seed)
        T, S, B, Q = (int(n) for n in rng.integers(1, 5, 4))
        K = Q if score == "dot" else int(rng.integers(1, 5))
        attention = nn.Attention(Q, K, score, dtype=np.float64, rng=rng)
        q, k = rng.standard_normal((T, B, Q)), rng.standard_normal((S, B, K))
        counts = rng.integers(1, S + 1, B) if padded else np.full(B, S)
        context, weights = attention(q, k, lengths=counts if padded else None)
        assert context.shape == (T, B, K)
        assert weights.shape == (T, B, S)
        matrices = {name: value.numpy() for name, value in attention.state_dict().items()}
        for t, b in itertools.product(range(T), range(B)):
            n = counts[b]
            if score == "additive":
                W, U, v = matrices["query.weight"], matrices["key.weight"], matrices["value.weight"][0]
                e = np.array([v @ np.tanh(W @ q[t, b] + U @ k[s, b]) for s in range(n)])
            else:
                e = np.array([(matrices["query.weight"] @ q[t, b] if score == "general" else q[t, b]) @ k[s, b] for s in range(n)])
            a = softmax(e)
            close(weights[t, b, :n], a)
            assert not weights.numpy()[t, b, n:].any()
            close(context[t, b], a @ k[:n, b])

    def test_weights(self):
        shapes = {score: [(name, p.shape) for name, p in nn.Attention(3, 3 if score == "dot" else 4, score).state_dict().items()] for score in ("dot", "general", "additive")}
        assert shapes == {"dot": [], "general": [("query.weight", (4, 3))], "additive": [("query.weight", (4, 3)), ("key.weight", (4, 4)), ("value.weight", (1, 4))]}

    @pytest.mark.parametrize("score", ["dot", "general", "additive"])
    def test_padding_never_matters(self, score):
        attention, rng, counts = nn.Attention(4, 4, score, dtype=np.float64, rng=0), np.random.default_rng(1), np.array([2, 5])
        q, k, v = rng.standard_normal((3, 2, 4)), rng.standard_normal((5, 2, 4)), rng.standard_normal((3, 2, 4))
        inside = (np.arange(5)[:, None] < counts)[..., None]
        results = []
        for padding in (0.0, 1e300, math.inf, math.nan):
            queries, keys = tg.tensor(q, requires_grad=True), tg.tensor(np.where(inside, k, padding), requires_grad=True)
            context, weights = attention(queries, keys, lengths=counts)
            attention.zero_grad()
            (context * v).sum().backward()
            results.append([context.numpy(), weights.numpy(), queries.grad.numpy(), keys.grad.numpy(), *[p.grad.numpy() for p in attention.parameters()]])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


def pair(source_size=6, target_size=7, hidden=4, *, scale=3.0, **options):
    """An encoder-decoder whose symbols are far from equally probable."""
    model = nn.EncoderDecoder(source_size, target_size, hidden, **{"dtype": np.float64, "rng": 0} | options)
    with tg.no_grad():
        for p in model.parameters():
            p *= scale
    return model


def sentences(model, seed=0, S=5, T=4, B=4):
    """Source, its lengths, and target from bos to eos, padded."""
    rng = np.random.default_rng(seed)
    source, counts = rng.integers(0, model.encoder_embedding.num_embeddings, (S, B)), rng.integers(1, S + 1, B)
    target = np.full((T + 1, B), model.pad)
    target[0] = model.bos
    for k, n in enumerate(rng.integers(1, T + 1, B)):
        target[1:n, k] = rng.integers(3, model.decoder_embedding.num_embeddings, n - 1)
        target[n, k] = model.eos
    return source, counts, target


def log_probabilities(model, source, text):
    """Of each symbol after bos and each beginning of a text, (length + 1, symbols), for one source sentence alone."""
    target = np.array([model.bos, *text, model.pad])[:, None]
    logits = model(source[:, None], target).numpy()[:, 0]
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def log_probability(model, source, text):
    return log_probabilities(model, source, text)[np.arange(len(text)), list(text)].sum()


def best_next(model, source, text):
    """The most probable symbol after bos and a text."""
    return int(np.argmax(log_probabilities(model, source, text)[-1]))


KINDS = [
    {"cell": "rnn"},
    {"cell": "gru", "attention": "dot", "num_layers": 2},
    {"cell": "lstm", "attention": "general", "bidirectional": True},
    {"cell": "lstm", "attention": "additive", "bidirectional": True, "num_layers": 2, "embedding_dim": 3},
    {"cell": "gru", "bidirectional": True},
]
each_kind = pytest.mark.parametrize("options", KINDS, ids=lambda o: "-".join(map(str, o.values())))


class TestEncoderDecoder:
    @each_kind
    def test_teacher_forcing_is_decoding_step_by_step(self, options):
        model = pair(**options)
        source, counts, target = sentences(model)
        logits = model(source, target, counts)
        assert logits.shape == (4, 4, 7)
        keys, state = model.encode(source, counts)
        for t in range(4):
            step, state, _ = model.decode(target[t : t + 1], state, keys, counts)
            close(step[0], logits[t])
        # What is read later does not show in what was written before.
        other = target.copy()
        other[2:] = 5
        close(model(source, other, counts)[:2], logits[:2])

    @each_kind
    def test_source_padding_never_matters(self, options):
        model = pair(**options)
        source, counts, target = sentences(model)
        counts[0] = 2
        results = []
        for padding in (0, 5, 99, -1):
            padded = np.where(np.arange(5)[:, None] < counts, source, padding)
            logits = model(padded, target, counts)
            loss = cross_entropy(logits, target[1:], ignore_index=model.pad, axis=-1)
            results.append([logits.numpy(), *gradients(model, loss)])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)
        for k, n in enumerate(counts):
            close(model(source[:n, k : k + 1], target[:, k : k + 1])[:, 0], results[0][0][:, k])

    @each_kind
    def test_target_padding_never_matters_to_the_loss(self, options):
        model = pair(**options)
        source, counts, target = sentences(model)
        loss = cross_entropy(model(source, target, counts), target[1:], ignore_index=model.pad, axis=-1)
        together = gradients(model, loss)
        total, count, alone = 0.0, 0, [np.zeros(p.shape) for p in model.parameters()]
        for k, n in enumerate(counts):
            m = int(np.argmax(target[:, k] == model.eos)) + 1
            part = -tg.log_softmax(model(source[:n, k : k + 1], target[:m, k : k + 1]), -1)[np.arange(m - 1), 0, target[1:m, k]].sum()
            total, count = total + part.item(), count + m - 1
            alone = [a + g for a, g in zip(alone, gradients(model, part), strict=True)]
        close(loss.item(), total / count)
        for a, b in zip(together, alone, strict=True):
            close(a, b / count)

    @pytest.mark.parametrize("score", ["dot", "general", "additive"])
    def test_attention_in_the_model(self, score):
        model = pair(attention=score, bidirectional=score != "dot")
        source, counts, target = sentences(model)
        counts[1] = 2
        logits, weights = model(source, target, counts, return_attention=True)
        close(model(source, target, counts), logits)
        assert weights.shape == (4, 4, 5)
        close(weights.numpy().sum(axis=-1), np.ones((4, 4)))
        assert (weights.numpy() >= 0).all()
        beyond = np.broadcast_to(np.arange(5) >= counts[:, None], weights.shape)
        assert beyond.any()
        assert not weights.numpy()[beyond].any()
        # The rest by hand: the context and the output through a tanh, then the output layer (Luong et al. 2015, eq. 5).
        keys, state = model.encode(source, counts)
        output, _ = model.decoder(model.decoder_embedding(target[:-1]), state)
        context = np.einsum("tbs,sbk->tbk", weights.numpy(), keys.numpy())
        combined = np.tanh(np.concatenate([context, output.numpy()], axis=-1) @ model.combine.weight.numpy().T)
        close(logits, combined @ model.head.weight.numpy().T + model.head.bias.numpy())
        assert pair()(source, target, counts, return_attention=True)[1] is None

    @pytest.mark.parametrize("cell", CELLS)
    def test_the_bridge_from_two_directions(self, cell):
        model = pair(cell=cell, bidirectional=True, num_layers=2)
        source, counts, _ = sentences(model)
        keys, state = model.encode(source, counts)
        outputs, final = model.encoder(model.encoder_embedding(source), lengths=counts)
        close(keys, outputs)
        assert len(model.bridge) == len(parts(state)) == len(parts(final)) == (2 if cell == "lstm" else 1)
        for bridge, made, both in zip(model.bridge, parts(state), parts(final), strict=True):
            assert made.shape == (2, 4, 4)
            for layer in range(2):
                joined = np.concatenate([both.numpy()[2 * layer], both.numpy()[2 * layer + 1]], axis=-1)
                close(made[layer], joined @ bridge.weight.numpy().T + bridge.bias.numpy())

    def test_without_a_bridge_the_state_is_the_encoders(self):
        model = pair(cell="gru", num_layers=2)
        source, counts, _ = sentences(model)
        close(model.encode(source, counts)[1], model.encoder(model.encoder_embedding(source), lengths=counts)[1])

    @each_kind
    def test_without_teacher_it_reads_its_own_symbols(self, options):
        model = pair(**options)
        source, counts, target = sentences(model)
        logits, weights = model(source, target, counts, teacher_forcing=0.0, return_attention=True)
        assert (weights is None) == ("attention" not in options)
        own = np.concatenate([target[:1], np.argmax(logits.numpy(), axis=-1)])
        assert not np.array_equal(own[1:-1], target[1:-1])
        close(logits, model(source, own, counts))
        if weights is not None:
            close(weights, model(source, own, counts, return_attention=True)[1])
        other = np.concatenate([target[:1], np.full((4, 4), 3)])
        np.testing.assert_array_equal(model(source, other, counts, teacher_forcing=0.0).numpy(), logits.numpy())
        logits.sum().backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_half_a_teacher(self):
        model, source, seen = pair(rng=0), np.array([[3], [4]]), set()
        # A target that never says what the model would.
        own = best_next(model, source[:, 0], [])
        first = next(s for s in range(7) if s != own)
        second = next(s for s in range(7) if s not in (best_next(model, source[:, 0], [own]), best_next(model, source[:, 0], [first])))
        for seed in range(12):
            model.rng = np.random.default_rng(seed)
            logits = model(source, np.array([[1], [first], [second], [0]]), teacher_forcing=0.5).numpy()
            written = np.argmax(logits, axis=-1)[:, 0]
            choices = itertools.product((first, written[0]), (second, written[1]))
            (read,) = [(a, b) for a, b in choices if np.allclose(model(source, np.array([[1], [a], [b], [0]])).numpy(), logits, rtol=1e-12, atol=1e-12)]
            seen.add((read[0] == first, read[1] == second))
        assert len(seen) == 4

    @each_kind
    def test_greedy_translation_by_hand(self, options):
        model = pair(**options, dropout=0.5)
        source, counts, _ = sentences(model, B=6)
        # Some texts end by themselves, others at the longest length.
        with tg.no_grad():
            model.head.bias[model.eos] = 3.0
        texts = model.translate(source, counts, max_length=6)
        model.eval()
        for k, n in enumerate(counts):
            text = []
            while len(text) < 6 and (symbol := best_next(model, source[:n, k], text)) != model.eos:
                text.append(symbol)
            assert texts[k].tolist() == text

    @each_kind
    @pytest.mark.parametrize("beam", [1, 3])
    def test_a_batch_is_translated_as_one_by_one(self, options, beam):
        model = pair(**options)
        source, counts, _ = sentences(model, seed=2, B=6)
        padded = np.where(np.arange(5)[:, None] < counts, source, 99)
        texts = [text.tolist() for text in model.translate(padded, counts, max_length=6, beam=beam)]
        assert texts == [model.translate(source[:n, k : k + 1], max_length=6, beam=beam)[0].tolist() for k, n in enumerate(counts)]
        assert all(len(text) <= 6 and model.eos not in text for text in texts)
        order = np.array([3, 1, 5, 0, 2, 4])
        assert [text.tolist() for text in model.translate(padded[:, order], counts[order], max_length=6, beam=beam)] == [texts[k] for k in order]

    @pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
    def test_a_wide_beam_finds_the_best_of_all_texts(self, penalty):
        endings = set()
        for seed in range(8):
            options = KINDS[seed % len(KINDS)]
            model = pair(4, 3, 3, scale=5.0, **options | {"rng": seed})
            source = np.random.default_rng(seed).integers(0, 4, 3)
            texts = [text for n in range(3) for text in itertools.product((0, 1), repeat=n)]
            assert len(texts) == 7
            scores = [log_probability(model, source, [*text, model.eos]) / (len(text) + 1) ** penalty for text in texts]
            best = texts[int(np.argmax(scores))]
            assert tuple(model.translate(source[:, None], max_length=3, beam=14, length_penalty=penalty)[0]) == best
            endings.add(len(best))
        assert len(endings) > 1

    def test_without_an_end_it_is_the_best_of_the_longest(self):
        for seed in range(4):
            model = pair(4, 3, 3, scale=5.0, rng=seed)
            with tg.no_grad():
                model.head.bias[model.eos] = -1e4
            source, texts = np.array([1, 3, 2]), list(itertools.product((0, 1), repeat=2))
            best = texts[int(np.argmax([log_probability(model, source, text) for text in texts]))]
            assert tuple(model.translate(source[:, None], max_length=2, beam=2)[0]) == best

    @pytest.mark.parametrize("beam", [2, 3])
    def test_a_narrow_beam_by_hand(self, beam):
        differs = 0
        for seed in range(6):
            model = pair(4, 5, 3, rng=seed, attention="dot")
            source = np.random.default_rng(seed).integers(0, 4, 3)
            alive, finished = [((), 0.0)], []
            for length in range(1, 6):
                options = sorted(((score + p, (*text, s)) for text, score in alive for s, p in enumerate(log_probabilities(model, source, text)[-1])), reverse=True)
                finished += [(score / length, text[:-1]) for score, text in options[:beam] if text[-1] == model.eos]
                alive = [(text, score) for score, text in options if text[-1] != model.eos][:beam]
                if len(finished) >= beam:
                    break
            expected = max(finished or [(score, text) for text, score in alive])[1]
            assert tuple(model.translate(source[:, None], max_length=5, beam=beam)[0]) == expected
            differs += tuple(model.translate(source[:, None], max_length=5)[0]) != expected
        assert differs

    @pytest.mark.parametrize("beam", [1, 2])
    def test_translation_records_nothing_and_repeats(self, beam):
        model = pair(attention="general", dropout=0.5)
        source, counts, _ = sentences(model)
        model.head = spy = Spy(model.head)
        first = [text.tolist() for text in model.translate(source, counts, max_length=5, beam=beam)]
        assert set(spy.seen) == {(False, False)}
        assert [text.tolist() for text in model.translate(source, counts, max_length=5, beam=beam)] == first
        assert all(p.grad is None for p in model.parameters())

    @each_mode
    @pytest.mark.parametrize("beam", [1, 2])
    def test_the_mode_of_every_part_is_restored(self, change, beam):
        model = pair(attention="general", dropout=0.5)
        change(model)
        before = [m.training for m in model.modules()]
        model.translate(np.array([[3], [4]]), max_length=3, beam=beam)
        assert [m.training for m in model.modules()] == before
        with pytest.raises(IndexError):
            model.translate(np.full((2, 1), 99), beam=beam)
        assert [m.training for m in model.modules()] == before

    def test_it_writes_up_to_a_hundred_symbols_and_stops_at_the_end(self):
        model = pair()
        assert (model.pad, model.bos, model.eos) == (0, 1, 2)
        with tg.no_grad():
            model.head.bias[model.eos] = -1e4
        assert [len(text) for text in model.translate(np.array([[3, 4], [1, 2]]))] == [100, 100]
        with tg.no_grad():
            model.head.bias[model.eos] = 1e4
        model.head = spy = Spy(model.head)
        for beam, calls in ((1, 1), (2, 2)):
            spy.seen.clear()
            assert [text.tolist() for text in model.translate(np.array([[3], [1]]), beam=beam, max_length=9)] == [[]]
            assert len(spy.seen) == calls

    def test_empty_batches(self):
        model = pair(attention="dot")
        nothing = np.zeros((3, 0), int)
        assert model.translate(nothing) == model.translate(nothing, [], beam=2) == []
        assert model(nothing, nothing).shape == (2, 0, 7)

    def test_float32_stays_float32(self):
        model = nn.EncoderDecoder(6, 7, 4, attention="additive", bidirectional=True, rng=0)
        source, counts, target = sentences(model)
        logits = model(source, target, counts)
        cross_entropy(logits, target[1:], ignore_index=model.pad, axis=-1).backward()
        assert {logits.dtype, *(p.grad.dtype for p in model.parameters())} == {np.dtype(np.float32)}

    def test_dropout_acts_in_training_only(self):
        model, plain = pair(dropout=0.5), pair()
        source, counts, target = sentences(model)
        assert not np.array_equal(model(source, target, counts).numpy(), model(source, target, counts).numpy())
        np.testing.assert_array_equal(model.eval()(source, target, counts).numpy(), plain(source, target, counts).numpy())

    @each_kind
    def test_gradients_against_central_differences(self, options):
        model = pair(scale=2.0, **options)
        source, counts, target = sentences(model)

        def loss():
            return cross_entropy(model(source, target, counts), target[1:], ignore_index=model.pad, axis=-1)

        rng, h = np.random.default_rng(1), 1e-5
        analytic = gradients(model, loss())
        assert len(analytic) == len(model.parameters())
        for p, g in zip(model.parameters(), analytic, strict=True):
            v = rng.standard_normal(p.shape)
            values = []
            for sign in (1, -2):
                with tg.no_grad():
                    p += sign * h * v
                    values.append(loss().item())
            with tg.no_grad():
                p += h * v
            assert abs((values[0] - values[1]) / (2 * h) - (g * v).sum()) < 1e-8


def ids(*shape):
    return np.full(shape, 3)


def features(*shape):
    return np.zeros(shape, np.float32)


lm = lambda **options: nn.LanguageModel(5, 4, rng=0, **options)
ed = lambda **options: nn.EncoderDecoder(6, 7, 4, rng=0, **options)
classify = lambda **options: nn.SequenceClassifier(5, 4, 2, rng=0, **options)
measure = lambda **options: nn.SequenceClassifier(None, 4, 2, input_size=3, rng=0, **options)

BAD = [
    # What is built or called, the error, words of its message.
    (lambda: nn.SequenceClassifier(None, 4, 2), ValueError, "SequenceClassifier: give num_embeddings for symbols, or None and input_size= for features"),
    (lambda: nn.SequenceTagger(5, 4, 2, input_size=3), ValueError, "SequenceTagger: give num_embeddings for symbols, or None and input_size= for features, got 5 and 3"),
    (lambda: nn.SequenceClassifier(5, 0, 2), ValueError, "SequenceClassifier: hidden_size must be a positive integer, got 0"),
    (lambda: nn.SequenceTagger(5, 4, 0), ValueError, "SequenceTagger: num_classes must be a positive integer, got 0"),
    (lambda: nn.SequenceClassifier(0, 4, 2), ValueError, "num_embeddings must be a positive integer, got 0"),
    (lambda: classify(embedding_dim=0), ValueError, "embedding_dim must be a positive integer, got 0"),
    (lambda: classify(dropout=1.5), ValueError, "SequenceClassifier: dropout must be between 0 and 1, got 1.5"),
    (lambda: classify(pool="sum"), ValueError, "SequenceClassifier: pool must be 'last', 'mean' or 'max', got 'sum'"),
    (lambda: classify(cell="elman"), ValueError, "cell must be one of rnn, gru, lstm, got 'elman'"),
    (lambda: classify()(features(4, 2)), TypeError, "SequenceClassifier: input has dtype float32, expected integers"),
    (lambda: classify()(ids(4)), ValueError, "SequenceClassifier: input has shape (4,), expected (time, batch)"),
    (lambda: classify()(ids(4, 2) + 4), IndexError, "SequenceClassifier.embedding: embedding: index 7 is out of range for 5 symbols"),
    (lambda: classify()(-ids(4, 2)), IndexError, "index -3 is out of range"),
    (lambda: classify()(ids(4, 2), [5, 1]), IndexError, "SequenceClassifier: lengths: lengths[0] = 5 is above the padded length time=4"),
    (lambda: classify()(ids(4, 2), [4, 0]), IndexError, "lengths[1] = 0 is below 1"),
    (lambda: classify()(ids(4, 2), [4]), ValueError, "expected one length for each sequence: batch=2"),
    (lambda: classify()(ids(4, 2), [4.0, 1.0]), TypeError, "lengths must be integers"),
    (lambda: classify()(ids(0, 2)), ValueError, "SequenceClassifier.rnn: input has no time steps: time=0 batch=2"),
    (lambda: measure()(features(4, 2, 5)), ValueError, "SequenceClassifier.rnn: input has time=4 batch=2 features=5, expected features=input_size=3"),
    (lambda: measure()(features(4, 2, 3).astype(float)), TypeError, "SequenceClassifier.rnn: input is float64, the weights are float32"),
    (lambda: measure(pool="mean")(features(4, 2, 3), [5, 1]), IndexError, "lengths[0] = 5 is above"),
    (lambda: measure(pool="mean")(features(4, 3)), ValueError, "input has shape (4, 3), expected (time, batch, input_size=3)"),
    (lambda: measure(pool="max")(features(4, 3)), ValueError, "input has shape (4, 3), expected (time, batch, input_size=3)"),
    (lambda: nn.LanguageModel(0, 4), ValueError, "LanguageModel: num_embeddings must be a positive integer, got 0"),
    (lambda: nn.LanguageModel(5, 2.0), ValueError, "LanguageModel: hidden_size must be a positive integer, got 2.0"),
    (lambda: lm(embedding_dim=0), ValueError, "embedding_dim must be a positive integer, got 0"),
    (lambda: lm(dropout=-0.1), ValueError, "LanguageModel: dropout must be between 0 and 1, got -0.1"),
    (lambda: lm(bidirectional=True), ValueError, "LanguageModel: a bidirectional network would read the symbol that it is to predict"),
    (lambda: lm(batch_first=True), ValueError, "batch_first"),
    (lambda: lm(embedding_dim=3, tie_weights=True), ValueError, "LanguageModel: tie_weights needs embedding_dim = the network's output size, got (5, 3) and (5, 4)"),
    (lambda: lm()(ids(4)), ValueError, "LanguageModel: input has shape (4,), expected (time, batch)"),
    (lambda: lm()(ids(4, 2), features(1, 2, 4)), ValueError, "LanguageModel.rnn: the initial state is float32 (1, 2, 4), expected (float32 (1, 2, 4), float32 (1, 2, 4))"),
    (lambda: lm().generate([], 3), ValueError, "generate: the prompt is empty; give one symbol or more"),
    (lambda: lm().generate(np.array([], int), 3), ValueError, "generate: the prompt is empty; give one symbol or more"),
    (lambda: lm().generate([1.5], 3), TypeError, "generate: prompt has dtype float64, expected integers"),
    (lambda: lm().generate("text", 3), TypeError, "prompt has dtype <U4, expected integers"),
    (lambda: lm().generate([[1]], 3), ValueError, "prompt has shape (1, 1), expected (time,)"),
    (lambda: lm().generate([9], 3), IndexError, "LanguageModel.embedding: embedding: index 9 is out of range for 5 symbols"),
    (lambda: lm().generate([1], -1), ValueError, "generate: length must not be negative, got -1"),
    (lambda: lm().generate([1], 2.5), (TypeError, ValueError), "generate: length"),
    (lambda: lm().generate([1], 3, temperature=-1), ValueError, "generate: temperature must be 0 (the most probable symbol) or a positive number, got -1"),
    (lambda: lm().generate([1], 3, temperature=math.nan), ValueError, "generate: temperature must be"),
    (lambda: lm().generate([1], 3, temperature=math.inf), ValueError, "generate: temperature must be"),
    (lambda: lm().generate([1], 3, top_k=0), IndexError, "generate: top_k must be between 1 and the 5 symbols, got 0"),
    (lambda: lm().generate([1], 3, top_k=6), IndexError, "generate: top_k must be between 1 and the 5 symbols, got 6"),
    (lambda: lm().generate([1], 3, top_k=2.5), (TypeError, ValueError), "generate: top_k"),
    (lambda: lm().generate([1], 3, rng="seed"), TypeError, "rng: expected a numpy Generator or a seed, got str"),
    (lambda: lm().stream([1], temperature=-1), ValueError, "generate: temperature"),
    (lambda: nn.Attention(4, 4, "cosine"), ValueError, "Attention: score must be 'dot', 'general' or 'additive', got 'cosine'"),
    (lambda: nn.Attention(4, 8), ValueError, "Attention: the score 'dot' needs equal sizes, got query_size=4 and key_size=8; use 'general'"),
    (lambda: nn.Attention(0, 0), ValueError, "Attention: query_size must be a positive integer, got 0"),
    (lambda: nn.Attention(4, 4)(features(2, 1, 4), features(3, 1, 4), [4]), IndexError, "lengths[0] = 4 is above the padded length time=3"),
    (lambda: nn.Attention(4, 4)(features(2, 1, 4), features(3, 1, 5)), ValueError, "Attention: keys"),
    (lambda: nn.Attention(4, 4)(features(2, 2, 4), features(3, 1, 4)), ValueError, "batch"),
    (lambda: nn.Attention(4, 4, "additive")(features(2, 3, 4), features(3, 1, 4)), ValueError, "batch"),
    (lambda: nn.Attention(4, 4)(features(2, 1, 4), features(0, 1, 4)), ValueError, "Attention: keys"),
    (lambda: nn.Attention(4, 4)(features(2, 1, 4), np.zeros((3, 1, 4))), TypeError, "float64"),
    (lambda: nn.Attention(4, 4)(features(2, 4), features(3, 4)), ValueError, "Attention: queries"),
    (lambda: nn.EncoderDecoder(6, 7, 0), ValueError, "EncoderDecoder: hidden_size must be a positive integer, got 0"),
    (lambda: nn.EncoderDecoder(6, 2, 4), IndexError, "EncoderDecoder: eos=2 is not one of the 2 target symbols"),
    (lambda: ed(pad=-1), IndexError, "EncoderDecoder: pad=-1 is not one of the 7 target symbols"),
    (lambda: ed(embedding_dim=0), ValueError, "embedding_dim must be a positive integer, got 0"),
    (lambda: ed(dropout=2), ValueError, "EncoderDecoder: dropout must be between 0 and 1, got 2"),
    (lambda: ed(attention="dot", bidirectional=True), ValueError, "use 'general'"),
    (lambda: ed(cell="elman"), ValueError, "cell must be one of rnn, gru, lstm, got 'elman'"),
    (lambda: ed()(features(3, 2), ids(4, 2)), TypeError, "EncoderDecoder: source has dtype float32, expected integers"),
    (lambda: ed()(ids(3, 2), ids(4)), ValueError, "EncoderDecoder: target has shape (4,), expected (time, batch)"),
    (lambda: ed()(ids(3, 2), ids(4, 1)), ValueError, "EncoderDecoder: source has batch=2, target has batch=1"),
    (lambda: ed()(ids(3, 2), ids(1, 2)), ValueError, "EncoderDecoder: target has 1 steps, expected bos and at least one symbol after it"),
    (lambda: ed()(ids(0, 2), ids(4, 2)), ValueError, "EncoderDecoder.encoder: input has no time steps: time=0 batch=2"),
    (lambda: ed()(ids(3, 2) + 3, ids(4, 2)), IndexError, "EncoderDecoder.encoder_embedding: embedding: index 6 is out of range for 6 symbols"),
    (lambda: ed()(ids(3, 2), ids(4, 2) + 4), IndexError, "EncoderDecoder.decoder_embedding: embedding: index 7 is out of range for 7 symbols"),
    (lambda: ed()(ids(3, 2), ids(4, 2), [4, 1]), IndexError, "EncoderDecoder: source_lengths: lengths[0] = 4 is above the padded length time=3"),
    (lambda: ed()(ids(3, 2), ids(4, 2), [0, 1]), IndexError, "EncoderDecoder: source_lengths: lengths[0] = 0 is below 1"),
    (lambda: ed()(ids(3, 2), ids(4, 2), [1]), ValueError, "expected one length for each sequence: batch=2"),
    (lambda: ed()(ids(3, 2), ids(4, 2), teacher_forcing=2), ValueError, "EncoderDecoder: teacher_forcing must be between 0 and 1, got 2"),
    (lambda: ed().translate(ids(3, 2), max_length=0), ValueError, "translate: max_length must be a positive integer, got 0"),
    (lambda: ed().translate(ids(3, 2), beam=0), ValueError, "translate: beam must be a positive integer, got 0"),
    (lambda: ed().translate(ids(3, 2), beam=2.5), ValueError, "translate: beam must be a positive integer, got 2.5"),
    (lambda: ed().translate(ids(3, 2), beam=2, length_penalty=math.nan), ValueError, "translate: length_penalty"),
    (lambda: ed().translate(ids(3, 2), [4, 1]), IndexError, "source_lengths: lengths[0] = 4 is above the padded length time=3"),
    (lambda: ed().translate(ids(3)), ValueError, "source has shape (3,), expected (time, batch)"),
    (lambda: ed().translate(ids(0, 2)), ValueError, "no time steps"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "kind", "words"), BAD, ids=[f"{k}: {words[:50]}" for k, (_, _, words) in enumerate(BAD)])
def test_bad_input(act, kind, words):
    with pytest.raises(kind) as caught:
        act()
    assert isinstance(caught.value, tg.errors.TinygradError)
    assert words in str(caught.value)
