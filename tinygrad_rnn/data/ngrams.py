"""The rival of a recurrent language model: counting what followed the last few symbols."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError
from .checks import check_range, symbol_array, whole_number


class WittenBell:
    """An n-gram model with Witten-Bell interpolation: what a language model that has learnt something must beat.

    ``order`` is n: the last n - 1 symbols predict the next one. After a context h that was followed c(h) times by
    u(h) distinct symbols, P(w | h) = (c(h, w) + u(h) P(w | h')) / (c(h) + u(h)), where h' is h without its first symbol; below
    the single symbols there is the uniform distribution over the alphabet of ``num_symbols`` (by default, as many
    as the fitted text shows). Chen and Goodman, An Empirical Study of Smoothing Techniques for Language Modeling (1998), section 2.

    >>> import tinygrad_rnn.data as data
    >>> ids = data.Vocabulary.from_text("abracadabra").encode("abracadabra")
    >>> rival = data.WittenBell(3).fit(ids)
    >>> round(rival.bits(ids), 3)
    0.533
    >>> float(data.WittenBell(1, num_symbols=4).fit([0, 0, 1]).probabilities([0])[0])
    0.5
    """

    def __init__(self, order: int, num_symbols: int | None = None) -> None:
        self.order = whole_number("WittenBell", "order", order, 1)
        self.num_symbols = None if num_symbols is None else whole_number("WittenBell", "num_symbols", num_symbols, 1)
        self._size = 0
        self._levels: list[_Level] = []

    def fit(self, ids: Any) -> WittenBell:
        """Count the n-grams of a text, ``ids`` of shape (time,), instead of what was counted before; returns the model.

        Raises ``ShapeError`` for an empty text, ``OutOfRangeError`` for an integer outside the alphabet.
        """
        text = symbol_array("WittenBell.fit", ids).astype(np.int64, copy=False)
        if not text.size:
            raise ShapeError("WittenBell.fit: the text is empty")
        size = int(text.max()) + 1 if self.num_symbols is None else self.num_symbols
        check_range("WittenBell.fit", text, size, "num_symbols is the size of the alphabet")
        context, contexts, levels = np.zeros(len(text), np.int64), 1, []
        for _ in range(self.order):
            level = _Level(context, text, contexts, size)
            levels.append(level)
            context, contexts = _shifted(level.find(context, text)), len(level.seen)
        self._levels, self._size = levels, size
        return self

    def probabilities(self, ids: Any) -> np.ndarray:
        """The probability of each symbol given those before it, along the last axis: float64 of the shape of ``ids``.

        The contexts of the first symbols are as short as they are. Raises ``RuntimeError`` before ``fit`` and
        ``OutOfRangeError`` for an integer outside the alphabet.
        """
        if not self._levels:
            raise RuntimeError("WittenBell: nothing is counted yet; call fit(ids) first")
        text = symbol_array("WittenBell.probabilities", ids, None).astype(np.int64, copy=False)
        check_range("WittenBell", text, self._size, "give WittenBell(order, num_symbols=len(vocabulary)) for symbols that the fitted text does not show")
        context, p = np.zeros(text.shape, np.int64), np.full(text.shape, 1 / self._size)
        for level in self._levels:
            found = level.find(context, text)
            followed, distinct = level.followed[context], level.distinct[context]
            p = np.where(followed > 0, (level.counts[found] + distinct * p) / np.maximum(followed + distinct, 1), p)
            context = _shifted(found)
        return p

    def bits(self, ids: Any) -> float:
        """The mean number of bits that a symbol of the text costs: -log2 of its probability.

        Raises ``ShapeError`` for an empty text, and as :meth:`probabilities` does.
        """
        p = self.probabilities(ids)
        if not p.size:
            raise ShapeError("WittenBell.bits: the text is empty")
        return float(-np.log2(p).mean())


class _Level:
    """The n-grams of one length: those that were seen, sorted, and what is known of their contexts.

    An n-gram is the pair of its context's place on the level below and its last symbol, packed into one integer.
    """

    def __init__(self, context: np.ndarray, text: np.ndarray, contexts: int, size: int) -> None:
        self.size = size
        packed = self._packed(context, text)
        seen, counts = np.unique(packed[packed >= 0], return_counts=True)
        # The last place, which -1 finds as well, is that of n-grams and contexts that were never seen.
        self.seen = np.append(seen, np.iinfo(np.int64).max)
        self.counts = np.append(counts, 0)
        self.followed = np.bincount(seen // size, weights=counts, minlength=contexts)
        self.distinct = np.bincount(seen // size, minlength=contexts)

    def find(self, context: np.ndarray, text: np.ndarray) -> np.ndarray:
        """The place of the n-gram of each context and symbol, -1 where it was never seen."""
        packed = self._packed(context, text)
        place = np.searchsorted(self.seen, packed)
        return np.where(self.seen[place] == packed, place, -1)

    def _packed(self, context: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Negative where there is no context."""
        packed: np.ndarray = context * self.size + text
        return packed


def _shifted(found: np.ndarray) -> np.ndarray:
    """The context of each symbol is what was found for the symbol before it; the first has none."""
    return np.concatenate([np.full_like(found[..., :1], -1), found[..., :-1]], axis=-1)
