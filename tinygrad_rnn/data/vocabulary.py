"""Vocabulary: symbols to integers and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import DtypeError, OutOfRangeError, ShapeError
from .checks import check_range, symbol_array, whole_number

UNKNOWN = "<unk>"


class Vocabulary:
    """Distinct symbols, each of which stands for its place: the integers that an embedding takes.

    Make one with :meth:`from_text`, whose symbols are characters, or with :meth:`from_tokens`, whose symbols are words or
    whatever the tokens are. ``symbols`` is the tuple of them. A symbol that it does not have becomes ``"<unk>"`` if that is
    one of its symbols, and else is an ``OutOfRangeError``.

    >>> import tinygrad_rnn.data as data
    >>> letters = data.Vocabulary.from_text("abracadabra")
    >>> letters.encode("cab")
    array([3, 0, 1])
    >>> letters.decode([3, 0, 1])
    'cab'
    >>> words = data.Vocabulary.from_tokens("the cat saw the dog".split(), max_size=7)
    >>> words
    Vocabulary of 7 tokens: '<pad>', '<bos>', '<eos>', '<unk>', 'the', 'cat', 'dog'
    >>> words.decode(words.encode(["the", "unicorn"]))
    ['the', '<unk>']
    """

    def __init__(self, symbols: Iterable[str], *, characters: bool = False) -> None:
        """``characters`` says that the symbols are the characters of texts, but for special ones such as ``"<pad>"``."""
        self.symbols: tuple[str, ...] = tuple(symbols)
        self.characters = bool(characters)
        if not self.symbols:
            raise ShapeError("Vocabulary: no symbols, expected at least one")
        for place, symbol in enumerate(self.symbols):
            if not isinstance(symbol, str):
                raise DtypeError(f"Vocabulary: symbols are strings, got {symbol!r} of type {type(symbol).__name__} at position {place}")
        self._places = {symbol: place for place, symbol in enumerate(self.symbols)}
        if len(self._places) < len(self.symbols):
            twice = next(symbol for symbol, count in Counter(self.symbols).items() if count > 1)
            raise ShapeError(f"Vocabulary: the symbol {twice!r} is given more than once")

    @classmethod
    def from_text(cls, text: str, *, max_size: int | None = None, min_count: int = 1, specials: Iterable[str] = ()) -> Vocabulary:
        """The characters of a text. Its ``encode`` takes a text, its ``decode`` gives one.

        ``specials`` come first; the characters follow, the most frequent first, equally frequent ones in the order of their
        code points; those seen less than ``min_count`` times and those that would make the vocabulary larger than
        ``max_size``, specials included, are left out.
        """
        if not isinstance(text, str):
            raise DtypeError(f"Vocabulary.from_text: expected a str, got {type(text).__name__}; for tokens there is from_tokens")
        counts = np.bincount(_code_points(text), minlength=1)
        found = np.flatnonzero(counts)
        return cls._most_frequent("from_text", dict(zip(map(chr, found.tolist()), counts[found].tolist(), strict=True)), max_size, min_count, specials, True)

    @classmethod
    def from_tokens(
        cls, tokens: Iterable[str], *, max_size: int | None = None, min_count: int = 1, specials: Iterable[str] = ("<pad>", "<bos>", "<eos>", UNKNOWN)
    ) -> Vocabulary:
        """The distinct ones of tokens, such as those of :func:`tokenize`. Its ``encode`` takes tokens, its ``decode`` gives a list.

        ``max_size``, ``min_count``, ``specials`` and the order are as in :meth:`from_text`.
        """
        if isinstance(tokens, str):
            raise DtypeError("Vocabulary.from_tokens: expected tokens, got one str; tokenize it first, or use from_text for its characters")
        try:
            counts = Counter(tokens)
        except TypeError as error:
            raise DtypeError(f"Vocabulary.from_tokens: expected an iterable of strings ({error}); chain the tokens of all sentences") from error
        return cls._most_frequent("from_tokens", counts, max_size, min_count, specials, False)

    @classmethod
    def _most_frequent(cls, where: str, counts: dict[str, int], max_size: int | None, min_count: int, specials: Iterable[str], characters: bool) -> Vocabulary:
        first = (specials,) if isinstance(specials, str) else tuple(specials)
        least = whole_number(f"Vocabulary.{where}", "min_count", min_count, 1)
        room = None if max_size is None else whole_number(f"Vocabulary.{where}", "max_size", max_size, max(1, len(first))) - len(first)
        for token in counts:
            if not isinstance(token, str):
                raise DtypeError(f"Vocabulary.{where}: tokens are strings, got {token!r} of type {type(token).__name__}")
        kept = sorted((symbol for symbol, count in counts.items() if count >= least and symbol not in first), key=lambda symbol: (-counts[symbol], symbol))
        return cls((*first, *kept[:room]), characters=characters)

    def encode(self, text_or_tokens: str | Iterable[str]) -> np.ndarray:
        """The integers of a text's characters, or of tokens: int64, of shape (time,).

        A vocabulary of characters takes a str, or a sequence of symbols in which special ones may occur. Raises
        ``OutOfRangeError`` with the first symbol that it does not have and its position, unless it has ``"<unk>"``, and
        ``DtypeError`` for a str where the symbols are tokens.
        """
        if isinstance(text_or_tokens, str):
            if not self.characters:
                raise DtypeError("encode: this vocabulary is one of tokens, got a str; give its tokens, such as encode(tokenize(text))")
            codes = _code_points(text_or_tokens)
            ids: np.ndarray = self._table[np.minimum(codes, len(self._table) - 1)]
            lacking = np.flatnonzero(ids < 0)
            if lacking.size:
                raise self._unknown("encode", text_or_tokens[lacking[0]], int(lacking[0]))
            return ids
        places, unknown = self._places, self._places.get(UNKNOWN, -1)
        try:
            tokens = list(text_or_tokens)
        except TypeError as error:
            raise DtypeError(f"encode: expected {'a str or ' * self.characters}an iterable of symbols, got {type(text_or_tokens).__name__}") from error
        ids = np.fromiter((places.get(token, unknown) for token in tokens), np.int64, len(tokens))
        if (lacking := np.flatnonzero(ids < 0)).size:
            raise self._unknown("encode", tokens[lacking[0]], int(lacking[0]))
        return ids

    def decode(self, ids: Any) -> Any:
        """The text (of a vocabulary of characters) or the list of tokens for integers of shape (time,).

        Raises ``OutOfRangeError`` for an integer that stands for no symbol.
        """
        array = symbol_array("decode", ids)
        check_range("decode", array, len(self), "the integers must come from this vocabulary")
        symbols = map(self.symbols.__getitem__, array.tolist())
        return "".join(symbols) if self.characters else list(symbols)

    def __getitem__(self, symbol: str) -> int:
        """The integer of one symbol, with the same rule for unknown ones as ``encode``."""
        place = self._places.get(symbol, self._places.get(UNKNOWN))
        if place is None:
            raise self._unknown("Vocabulary", symbol, None)
        return place

    def __iter__(self) -> Iterator[str]:
        return iter(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._places

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and (self.symbols, self.characters) == (other.symbols, other.characters)

    def __hash__(self) -> int:
        return hash((self.symbols, self.characters))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.symbols[:8])) + ", ..." * (len(self) > 8)
        return f"Vocabulary of {len(self)} {'characters' if self.characters else 'tokens'}: {shown}"

    def to_json(self) -> str:
        """The vocabulary as a JSON text, for a file or the metadata of one; :meth:`from_json` reads it."""
        import json

        return json.dumps({"characters": self.characters, "symbols": self.symbols})

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """The vocabulary that :meth:`to_json` wrote. Raises ``ValueError`` for any other text."""
        import json

        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"Vocabulary.from_json: not JSON: {error}") from error
        if not isinstance(content, dict) or not isinstance(content.get("symbols"), list) or not isinstance(content.get("characters"), bool):
            raise ValueError(f"Vocabulary.from_json: expected what to_json wrote, an object with 'symbols' and 'characters', got {text[:60]!r}")
        return cls(content["symbols"], characters=content["characters"])

    @cached_property
    def _table(self) -> np.ndarray:
        """Code point -> integer; the last entry is for every code point beyond."""
        codes = {ord(symbol): place for symbol, place in self._places.items() if len(symbol) == 1}
        table = np.full(max(codes, default=0) + 2, self._places.get(UNKNOWN, -1), np.int64)
        table[list(codes)] = list(codes.values())
        return table

    def _unknown(self, where: str, symbol: object, position: int | None) -> OutOfRangeError:
        kind, at = ("characters", "from_text") if self.characters else ("tokens", "from_tokens"), "" if position is None else f" at position {position}"
        return OutOfRangeError(f"{where}: {symbol!r}{at} is not one of the {len(self)} {kind[0]} of this vocabulary; build it from data that has it, or with Vocabulary.{kind[1]}(..., specials=('{UNKNOWN}',))")


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
