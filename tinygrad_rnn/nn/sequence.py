"""The kinds of sequence models: many to one, many to many (aligned), one to many, and encoder-decoder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.creation import generator
from ..core.state import no_grad
from ..core.tensor import Tensor, is_tensor, wrap
from ..errors import DtypeError, GradientError, OutOfRangeError, ShapeError
from ..ops.elementwise import tanh, where
from ..ops.linalg import einsum
from ..ops.reduction import log_softmax, softmax
from ..ops.shaping import concatenate, swapaxes
from ..replay import tree
from ..replay.unrolling import checked_lengths
from .functional import dropout
from .layers import Embedding, Linear, fraction, positive
from .module import Module, evaluating, lift, same_dtype, sizes
from .recurrent import GRU, LSTM, RNN, Recurrent

CELLS: dict[str, type[Recurrent]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


def network(cell: str, input_size: int, hidden_size: int, num_layers: int, options: dict[str, Any]) -> Recurrent:
    """The recurrent network that a cell's name stands for."""
    if cell not in CELLS:
        raise ShapeError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
    return CELLS[cell](input_size, hidden_size, num_layers, **options)


def whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def given(name: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {name: value}


def symbols(what: str, x: Any, ndim: int = 2) -> np.ndarray:
    """Integers of shape (time, batch)."""
    ids = x._data if is_tensor(x) else np.asarray(x)
    if ids.dtype.kind not in "iu":
        raise DtypeError(f"{what} has dtype {ids.dtype}, expected integers")
    if ids.ndim != ndim:
        raise ShapeError(f"{what} has shape {ids.shape}, expected {'(time, batch)' if ndim == 2 else '(time,)'}")
    return ids


def within(what: str, ids: np.ndarray, lengths: Any) -> np.ndarray:
    """Symbols (time, batch) with 0 behind each sequence's end: what stands there need not be a symbol."""
    if lengths is None:
        return ids
    return np.where(np.arange(len(ids))[:, None] < checked_lengths(what, lengths, *ids.shape), ids, 0)


class _Reader(Module):
    """What the classifier and the tagger have in common: symbols or features into a recurrent network."""

    def __init__(
        self,
        num_embeddings: int | None,
        hidden_size: int,
        num_classes: int,
        *,
        input_size: int | None = None,
        embedding_dim: int | None = None,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        padding_idx: int | None = None,
        dtype: Any = None,
        rng: Any = None,
    ) -> None:
        source, name = generator(rng), type(self).__name__
        positive(name, hidden_size=hidden_size, num_classes=num_classes, **given("embedding_dim", embedding_dim))
        fraction(f"{name}: dropout", dropout)
        if (num_embeddings is None) == (input_size is None):
            raise ShapeError(f"{name}: give num_embeddings for symbols, or None and input_size= for features, got {num_embeddings!r} and {input_size!r}")
        self.embedding = None if num_embeddings is None else Embedding(num_embeddings, embedding_dim or hidden_size, padding_idx, dtype=dtype, rng=source)
        size = input_size if self.embedding is None else self.embedding.embedding_dim
        options = {"bidirectional": bidirectional, "dropout": dropout, "dtype": dtype, "rng": source}
        self.rnn = network(cell, size, hidden_size, num_layers, options)  # type: ignore[arg-type]
        self.dropout, self.rng = dropout, source
        self.head = Linear(hidden_size * self.rnn.directions, num_classes, dtype=dtype, rng=source)

    def _read(self, x: Any, lengths: Any) -> tuple[Tensor, Any]:
        if self.embedding is not None:
            x = self.embedding(within("lengths", symbols("input", x), lengths))
        elif np.ndim(x) != 3:
            raise ShapeError(f"input has shape {np.shape(x)}, expected (time, batch, input_size={self.rnn.input_size})")
        output, state = self.rnn(x, lengths=lengths)
        return output, state

    def _classes(self, x: Tensor) -> Tensor:
        return self.head(dropout(x, self.dropout, self.training, self.rng) if self.dropout else x)  # type: ignore[no-any-return]


class SequenceClassifier(_Reader):
    """Many to one: a sequence in, one of ``num_classes`` out, as for the sentiment of a review.

    x is (time, batch) symbols below ``num_embeddings``, or (time, batch, input_size) features; logits are
    (batch, num_classes), read from the last layer's state at each sequence's end, both directions' where there are two.
    ``pool="mean"`` or ``"max"`` reads the outputs of all steps instead. Parts: ``embedding``, ``rnn``, ``head``.

    >>> import numpy as np
    >>> from tinygrad_rnn import nn
    >>> model = nn.SequenceClassifier(20, 8, 2, cell="gru", rng=0)
    >>> model(np.zeros((5, 3), int), lengths=[5, 2, 3]).shape
    (3, 2)
    """

    def __init__(self, num_embeddings: int | None, hidden_size: int, num_classes: int, *, pool: str = "last", **options: Any) -> None:
        if pool not in ("last", "mean", "max"):
            raise ShapeError(f"SequenceClassifier: pool must be 'last', 'mean' or 'max', got {pool!r}")
        super().__init__(num_embeddings, hidden_size, num_classes, **options)
        self.pool = pool

    def forward(self, x: Any, lengths: Any = None) -> Tensor:
        output, state = self._read(x, lengths)
        if self.pool == "last":
            h = next(tree.leaves(state))
            last = h[-1] if self.rnn.directions == 1 else concatenate([h[-2], h[-1]], axis=-1)
        else:
            steps, batch = output.shape[:2]
            counts = np.full(batch, steps) if lengths is None else checked_lengths("lengths", lengths, steps, batch)
            if self.pool == "mean":
                last = output.sum(axis=0) / wrap(counts.astype(output.dtype)[:, None])
            else:
                inside = wrap((np.arange(steps)[:, None] < counts)[..., None])
                last = where(inside, output, -math.inf).max(axis=0)
        return self._classes(last)


class SequenceTagger(_Reader):
    """Many to many, aligned: one of ``num_classes`` for every step, as for parts of speech.

    x is (time, batch) symbols or (time, batch, input_size) features; logits are (time, batch, num_classes).
    Parts: ``embedding``, ``rnn``, ``head``.

    >>> import numpy as np
    >>> from tinygrad_rnn import nn
    >>> nn.SequenceTagger(20, 8, 5, bidirectional=True, rng=0)(np.zeros((6, 3), int)).shape
    (6, 3, 5)
    """

    def forward(self, x: Any, lengths: Any = None) -> Tensor:
        return self._classes(self._read(x, lengths)[0])


class LanguageModel(Module):
    """One to many: the next symbol's logits after each symbol; ``generate`` draws a text from them.

    ``logits, state = model(x, state=None)``: x is (time, batch) symbols below ``num_embeddings``, logits are
    (time, batch, num_embeddings). ``tie_weights`` lets the output use the embedding's matrix (Press and Wolf 2017).
    Parts: ``embedding``, ``rnn``, ``head``.

    >>> import numpy as np
    >>> from tinygrad_rnn import nn
    >>> model = nn.LanguageModel(20, 8, rng=0)
    >>> logits, state = model(np.zeros((5, 3), int))
    >>> logits.shape
    (5, 3, 20)
    >>> len(model.generate([1, 2], 10, temperature=0.8, top_k=5, rng=0))
    10
    """

    def __init__(
        self,
        num_embeddings: int,
        hidden_size: int,
        *,
        embedding_dim: int | None = None,
        cell: str = "lstm",
        num_layers: int = 1,
        dropout: float = 0.0,
        tie_weights: bool = False,
        dtype: Any = None,
        rng: Any = None,
        **options: Any,
    ) -> None:
        source = generator(rng)
        positive("LanguageModel", num_embeddings=num_embeddings, hidden_size=hidden_size, **given("embedding_dim", embedding_dim))
        fraction("LanguageModel: dropout", dropout)
        self.embedding = Embedding(num_embeddings, embedding_dim or hidden_size, dtype=dtype, rng=source)
        self.rnn = network(cell, self.embedding.embedding_dim, hidden_size, num_layers, {"dropout": dropout, "dtype": dtype, "rng": source, **options})
        if self.rnn.bidirectional:
            raise ShapeError("LanguageModel: a bidirectional network would read the symbol that it is to predict")
        if self.rnn.batch_first:
            raise ShapeError("LanguageModel: symbols are (time, batch), so that batch_first=True does not fit")
        self.dropout, self.rng = dropout, source
        self.head = Linear(getattr(self.rnn, "proj_size", 0) or hidden_size, num_embeddings, dtype=dtype, rng=source)
        if tie_weights:
            if self.head.weight.shape != self.embedding.weight.shape:
                raise ShapeError(f"LanguageModel: tie_weights needs embedding_dim = the network's output size, got {self.embedding.weight.shape} and {self.head.weight.shape}")
            self.head.weight = self.embedding.weight

    def forward(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:
        ids = symbols("input", x)
        output, state = self.rnn(self.embedding(ids), state)
        if self.dropout:
            output = dropout(output, self.dropout, self.training, self.rng)
        return self.head(output), state

    def stream(self, prompt: Any, temperature: float = 1.0, top_k: int | None = None, rng: Any = None) -> Iterator[int]:
        """Symbols drawn one after another without end, each fed back; see :meth:`generate`."""
        if not np.size(prompt._data if is_tensor(prompt) else prompt):
            raise ShapeError("generate: the prompt is empty; give one symbol or more")
        ids = symbols("generate: prompt", prompt, 1)
        count = self.embedding.num_embeddings
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ShapeError(f"generate: temperature must be 0 (the most probable symbol) or a positive number, got {temperature!r}")
        if top_k is not None and not (whole(top_k) and 1 <= top_k <= count):
            raise OutOfRangeError(f"generate: top_k must be between 1 and the {count} symbols, got {top_k!r}")
        return self._stream(ids, temperature, top_k, generator(rng))

    def _stream(self, ids: np.ndarray, temperature: float, top_k: int | None, source: np.random.Generator) -> Iterator[int]:
        state = None
        while True:
            # The mode is set a step at a time: between two symbols the model is the caller's.
            with no_grad(), evaluating(self):
                logits, state = self(ids[:, None], state)
            symbol = draw(logits._data[-1, 0], temperature, top_k, source)
            yield symbol
            ids = np.array([symbol])

    def generate(self, prompt: Any, length: int, temperature: float = 1.0, top_k: int | None = None, rng: Any = None) -> np.ndarray:
        """``length`` symbols that follow the prompt, a sequence of one symbol or more; an int64 array.

        Symbols are drawn from softmax(logits / temperature), of the ``top_k`` most probable ones where it is given;
        temperature 0 takes the most probable one. ``rng`` is a generator or seed.
        """
        if not whole(length) or length < 0:
            raise ShapeError(f"generate: length must {'not be negative' if whole(length) else 'be a whole number'}, got {length!r}")
        stream = self.stream(prompt, temperature, top_k, rng)
        return np.array([next(stream) for _ in range(length)], np.int64)


def draw(logits: np.ndarray, temperature: float, top_k: int | None, source: np.random.Generator) -> int:
    """One index, with probability softmax(logits / temperature) among the ``top_k`` largest."""
    if np.isnan(logits).any():
        raise GradientError("generate: the model's logits are NaN; its weights may not be finite")
    if temperature == 0:
        return int(np.argmax(logits))
    with np.errstate(over="ignore"):
        scaled = (logits.astype(np.float64) - logits.max()) / temperature
    if top_k is not None:
        kept = np.argsort(-scaled, kind="stable")[:top_k]
        masked = np.full_like(scaled, -np.inf)
        masked[kept] = scaled[kept]
        scaled = masked
    weights = np.cumsum(np.exp(scaled - scaled.max()))
    return min(int(np.searchsorted(weights, source.random() * weights[-1], side="right")), len(weights) - 1)


class Attention(Module):
    """Where a decoder looks: the encoder's outputs averaged with weights that the decoder's state gives.

    queries (target time, batch, size) and keys (source time, batch, key size) give contexts (target time, batch, key size)
    and weights (target time, batch, source time), zero beyond ``lengths``. ``score`` is ``"dot"`` q k or ``"general"``
    q W k (Luong et al. 2015), or ``"additive"`` v tanh(W q + U k) (Bahdanau et al. 2015).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> context, weights = nn.Attention(4, 4)(tg.zeros(2, 1, 4), tg.ones(5, 1, 4), lengths=[2])
    >>> weights[0, 0].tolist()
    [0.5, 0.5, 0.0, 0.0, 0.0]
    """

    def __init__(self, query_size: int, key_size: int, score: str = "dot", *, dtype: Any = None, rng: Any = None) -> None:
        source = generator(rng)
        positive("Attention", query_size=query_size, key_size=key_size)
        self.query_size, self.key_size = query_size, key_size
        if score not in ("dot", "general", "additive"):
            raise ShapeError(f"Attention: score must be 'dot', 'general' or 'additive', got {score!r}")
        if score == "dot" and query_size != key_size:
            raise ShapeError(f"Attention: the score 'dot' needs equal sizes, got query_size={query_size} and key_size={key_size}; use 'general'")
        self.score = score
        self.query = Linear(query_size, key_size, bias=False, dtype=dtype, rng=source) if score != "dot" else None
        self.key = Linear(key_size, key_size, bias=False, dtype=dtype, rng=source) if score == "additive" else None
        self.value = Linear(key_size, 1, bias=False, dtype=dtype, rng=source) if score == "additive" else None

    def forward(self, queries: Any, keys: Any, lengths: Any = None) -> tuple[Tensor, Tensor]:
        queries, keys = lift("queries", queries), lift("keys", keys)
        for name, x, size in (("queries", queries, self.query_size), ("keys", keys, self.key_size)):
            if x.ndim != 3 or x.shape[2] != size or not len(x):
                raise ShapeError(f"{name} has {sizes(x.shape, 'time batch size')}, expected (time, batch, size={size}) with one time step or more")
        if queries.shape[1] != keys.shape[1]:
            raise ShapeError(f"queries has batch={queries.shape[1]}, keys has batch={keys.shape[1]}")
        same_dtype("keys", keys, queries)
        inside = None
        if lengths is not None:
            inside = np.arange(keys.shape[0]) < checked_lengths("lengths", lengths, keys.shape[0], keys.shape[1])[:, None]
            # What stands behind a sequence's end may be anything, and 0 * NaN is NaN.
            keys = where(wrap(inside.T[..., None]), keys, 0)
        q = queries if self.query is None else self.query(queries)
        if self.key is not None and self.value is not None:
            hidden = tanh(q[:, :, None] + swapaxes(self.key(keys), 0, 1)[None])
            scores = self.value(hidden)[..., 0]
        else:
            scores = einsum("tbh,sbh->tbs", q, keys)
        if inside is not None:
            scores = where(wrap(inside), scores, -math.inf)
        weights = softmax(scores, -1)
        return einsum("tbs,sbh->tbh", weights, keys), weights


class EncoderDecoder(Module):
    """Many to many: one network reads the source, another writes the target (Sutskever, Vinyals and Le 2014).

    ``logits = model(source, target, source_lengths=None)``: source (source time, batch) and target (target time, batch)
    are symbols; target begins with ``bos`` and ends with ``eos``. The decoder reads ``target[:-1]`` (teacher forcing) and
    its logits, (target time - 1, batch, target_size), are to be compared with ``target[1:]``, padding left out by
    ``cross_entropy(logits, target[1:], ignore_index=model.pad, axis=-1)``. With ``teacher_forcing`` below 1, each step reads
    the model's own best symbol with that much less probability (Bengio et al. 2015).

    ``attention`` is None or a score of :class:`Attention`. ``translate`` writes greedily or with a beam.
    Parts: ``encoder_embedding``, ``encoder``, ``bridge`` (for two directions), ``decoder_embedding``, ``decoder``,
    ``attention``, ``combine``, ``head``.

    >>> import numpy as np
    >>> from tinygrad_rnn import nn
    >>> model = nn.EncoderDecoder(20, 30, 8, attention="dot", rng=0)
    >>> source, target = np.full((6, 2), 5), np.full((4, 2), 7)
    >>> model(source, target, source_lengths=[6, 3]).shape
    (3, 2, 30)
    >>> [len(words) <= 9 for words in model.translate(source, [6, 3], max_length=9, beam=3)]
    [True, True]
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        hidden_size: int,
        *,
        embedding_dim: int | None = None,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        attention: str | None = None,
        dropout: float = 0.0,
        pad: int = 0,
        bos: int = 1,
        eos: int = 2,
        dtype: Any = None,
        rng: Any = None,
    ) -> None:
        positive("EncoderDecoder", source_size=source_size, target_size=target_size, hidden_size=hidden_size, **given("embedding_dim", embedding_dim))
        fraction("EncoderDecoder: dropout", dropout)
        for name, symbol in (("pad", pad), ("bos", bos), ("eos", eos)):
            if not 0 <= symbol < target_size:
                raise OutOfRangeError(f"EncoderDecoder: {name}={symbol} is not one of the {target_size} target symbols")
        source, width = generator(rng), embedding_dim or hidden_size
        options = {"dropout": dropout, "dtype": dtype, "rng": source}
        self.pad, self.bos, self.eos, self.dropout, self.rng = pad, bos, eos, dropout, source
        self.encoder_embedding = Embedding(source_size, width, dtype=dtype, rng=source)
        self.encoder = network(cell, width, hidden_size, num_layers, {**options, "bidirectional": bidirectional})
        states = 2 if cell == "lstm" else 1
        self.bridge = [Linear(2 * hidden_size, hidden_size, dtype=dtype, rng=source) for _ in range(states)] if bidirectional else []
        self.decoder_embedding = Embedding(target_size, width, dtype=dtype, rng=source)
        self.decoder = network(cell, width, hidden_size, num_layers, options)
        keys = hidden_size * self.encoder.directions
        self.attention = None if attention is None else Attention(hidden_size, keys, attention, dtype=dtype, rng=source)
        self.combine = None if attention is None else Linear(keys + hidden_size, hidden_size, bias=False, dtype=dtype, rng=source)
        self.head = Linear(hidden_size, target_size, dtype=dtype, rng=source)

    def encode(self, source: Any, source_lengths: Any = None) -> tuple[Tensor, Any]:
        """The encoder's outputs, (source time, batch, directions * hidden_size), and the state that the decoder starts from."""
        ids = within("source_lengths", symbols("source", source), source_lengths)
        keys, state = self.encoder(self._dropped(self.encoder_embedding(ids)), lengths=source_lengths)
        if self.bridge:
            bridges = iter(self.bridge)
            # Linear: a tanh here learns worse, and a cell state is not bounded by one.
            state = tree.mapped(lambda s: next(bridges)(concatenate([s[0::2], s[1::2]], axis=-1)), state)
        return keys, state

    def decode(self, ids: Any, state: Any, keys: Tensor, source_lengths: Any = None) -> tuple[Tensor, Any, Tensor | None]:
        """Logits after each of the target symbols (time, batch), the state after the last, and the attention's weights."""
        output, state = self.decoder(self._dropped(self.decoder_embedding(symbols("target", ids))), state)
        weights = None
        if self.attention is not None and self.combine is not None:
            context, weights = self.attention(output, keys, source_lengths)
            output = tanh(self.combine(concatenate([context, output], axis=-1)))
        return self.head(self._dropped(output)), state, weights

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training, self.rng) if self.dropout else x

    def forward(self, source: Any, target: Any, source_lengths: Any = None, *, teacher_forcing: float = 1.0, return_attention: bool = False) -> Any:
        """Logits for ``target[1:]``; with ``return_attention`` also the weights (target time - 1, batch, source time)."""
        source, target = symbols("source", source), symbols("target", target)
        fraction("teacher_forcing", teacher_forcing)
        if len(target) < 2:
            raise ShapeError(f"target has {len(target)} steps, expected bos and at least one symbol after it")
        if source.shape[1] != target.shape[1]:
            raise ShapeError(f"source has batch={source.shape[1]}, target has batch={target.shape[1]}")
        keys, state = self.encode(source, source_lengths)
        if teacher_forcing == 1:
            logits, _, weights = self.decode(target[:-1], state, keys, source_lengths)
        else:
            steps, looks, ids = [], [], target[:1]
            for t in range(len(target) - 1):
                step, state, look = self.decode(ids, state, keys, source_lengths)
                steps.append(step)
                looks.append(look)
                ids = target[t + 1 : t + 2] if self.rng.random() < teacher_forcing else np.argmax(step._data, axis=-1)
            logits, weights = concatenate(steps), None if self.attention is None else concatenate(looks)
        return (logits, weights) if return_attention else logits

    def translate(self, source: Any, source_lengths: Any = None, *, max_length: int = 100, beam: int = 1, length_penalty: float = 1.0) -> list[np.ndarray]:
        """The target symbols for each source sequence, without bos and eos: greedy, or the best of a beam.

        A beam keeps the ``beam`` most probable beginnings until as many texts have ended; the result is the one that ended with the
        highest log probability divided by length ** ``length_penalty``, where eos counts in the length. Texts that did not end
        within ``max_length`` symbols count if none did.
        """
        positive("translate", max_length=max_length, beam=beam)
        if not math.isfinite(length_penalty):
            raise ShapeError(f"translate: length_penalty must be a finite number, got {length_penalty!r}")
        ids = symbols("source", source)
        if not len(ids):
            raise ShapeError(f"translate: source has no time steps: shape {ids.shape}")
        counts = np.full(ids.shape[1], len(ids)) if source_lengths is None else checked_lengths("source_lengths", source_lengths, *ids.shape)
        with no_grad(), evaluating(self):
            if beam == 1:
                return self._greedy(ids, counts, max_length)
            return [self._beam(ids[:n, k : k + 1], max_length, beam, length_penalty) for k, n in enumerate(counts)]

    def _greedy(self, source: np.ndarray, counts: np.ndarray, max_length: int) -> list[np.ndarray]:
        if not source.shape[1]:
            return []
        keys, state = self.encode(source, counts)
        written: list[np.ndarray] = []
        ids, done = np.full((1, source.shape[1]), self.bos), np.zeros(source.shape[1], bool)
        while len(written) < max_length and not done.all():
            logits, state, _ = self.decode(ids, state, keys, counts)
            ids = np.argmax(logits._data, axis=-1)
            written.append(ids[0])
            done |= ids[0] == self.eos
        columns = np.array(written).T
        return [column[: int(np.argmax(ends))] if (ends := column == self.eos).any() else column for column in columns]

    def _beam(self, source: np.ndarray, max_length: int, beam: int, length_penalty: float) -> np.ndarray:
        keys, state = self.encode(source)
        texts, scores = np.zeros((1, 0), np.int64), np.zeros(1)
        finished: list[tuple[float, np.ndarray]] = []
        ids = np.full((1, 1), self.bos)
        for length in range(1, max_length + 1):
            logits, state, _ = self.decode(ids, state, wrap(np.repeat(keys._data, ids.shape[1], axis=1)))
            total = scores[:, None] + log_softmax(logits, -1)._data[0].astype(np.float64)
            best = np.argsort(-total, axis=None, kind="stable")[: 2 * beam]
            rows, words = np.divmod(best, total.shape[1])
            values = total.ravel()[best]
            ended = words == self.eos
            for row, value in zip(rows[:beam][ended[:beam]], values[:beam][ended[:beam]], strict=True):
                finished.append((value / length**length_penalty, texts[row]))
            rows, words, scores = (part[~ended][:beam] for part in (rows, words, values))
            texts = np.concatenate([texts[rows], words[:, None]], axis=1)
            if len(finished) >= beam or not len(rows):
                break
            state = tree.mapped(lambda s, rows=rows: wrap(s._data[:, rows]), state)
            ids = words[None]
        if not finished:
            finished = [(score / max_length**length_penalty, text) for score, text in zip(scores, texts, strict=True)]
        return max(finished, key=lambda pair: pair[0])[1]
