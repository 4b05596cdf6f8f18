"""Text: where it comes from, words and marks out of it, and parts of it for training and testing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..core.creation import generator
from ..errors import ShapeError
from .checks import whole_number

_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def reference_text() -> str:
    """The reference prose of Python's standard library: text to learn from that is on every machine.

    It is what ``help()`` shows of the language's topics, 465,126 characters in Python 3.11 and somewhat different in every
    version.

    >>> import tinygrad_rnn.data as data
    >>> len(data.reference_text()) > 400_000
    True
    """
    from pydoc_data.topics import topics

    return "\n\n".join(topics.values())


def read_text(path: str | os.PathLike[str], *, encoding: str = "utf-8") -> str:
    """The text of a file, with its ends of lines as newlines and without a byte order mark.

    Raises ``FileNotFoundError`` (or another ``OSError``) for a path that cannot be read, ``ValueError`` for a file that is
    empty, or whose bytes are not of the encoding: the message says where.

    >>> import os, tempfile
    >>> import tinygrad_rnn.data as data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "rhyme.txt")
    ...     with open(path, "wb") as file:
    ...         n = file.write("Frère Jacques\\r\\n".encode())
    ...     data.read_text(path)
    'Frère Jacques\\n'
    """
    check_file("read_text", path)
    with open(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"read_text: {os.fspath(path)} is not {encoding}: byte 0x{content[error.start]:02x} at offset {error.start}, in line {line} ({error.reason}); "
            "give the encoding that it is in, such as encoding='latin-1'"
        ) from error
    if not text.strip():
        raise ValueError(f"read_text: {os.fspath(path)} is empty{' but for white space' * bool(text)}, expected text")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def check_file(where: str, path: str | os.PathLike[str]) -> None:
    """Raise the ``OSError`` of a path that is not there, or is a folder, with a message that names the function."""
    if os.path.isdir(path):
        raise IsADirectoryError(f"{where}: {os.fspath(path)} is a folder, expected a file")
    if not os.path.exists(path):
        raise FileNotFoundError(f"{where}: there is no file {os.fspath(path)} (in the folder {os.getcwd()})")


def tokenize(text: str, lower: bool = True) -> list[str]:
    """The words and marks of a text, in order, in lower case if asked.

    A word is a run of letters, digits and underscores, with single apostrophes inside it; any other character that is not
    white space is a token by itself. White space is not kept.

    >>> import tinygrad_rnn.data as data
    >>> data.tokenize("Don't panic, 42!")
    ["don't", 'panic', ',', '42', '!']
    """
    return _TOKEN.findall(text.lower() if lower else text)


def split(sequence: Any, fractions: Sequence[float] = (0.8, 0.1, 0.1), *, shuffle: bool = False, rng: Any = None) -> tuple[Any, ...]:
    """Parts of a sequence for training, validation and testing: one after the other, or drawn at random.

    ``sequence`` is a text, an array (its first axis is split, without a copy unless shuffled), a list, or a length n, which
    stands for the indices 0..n - 1. ``fractions`` add up to 1. Without ``shuffle`` the parts are contiguous, so that the last
    one of a text is its end, held out; with it each element goes to a part at random, the same for the same ``rng``, and the
    parts of a length are int64 arrays of indices. Every element is in exactly one part.

    Raises ``ValueError`` for fractions that are not positive or do not add up to 1, ``ShapeError`` if a part would be empty.

    >>> import tinygrad_rnn.data as data
    >>> data.split("abcdefghij")
    ('abcdefgh', 'i', 'j')
    >>> [len(part) for part in data.split(8530, (0.8, 0.2), shuffle=True, rng=0)]
    [6824, 1706]
    """
    if not all(f > 0 for f in fractions) or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ValueError(f"split: fractions must be positive and add up to 1, got {tuple(fractions)} with the sum {sum(fractions):g}")
    if not hasattr(sequence, "__len__"):
        sequence = range(whole_number("split", "a length", sequence, 0))
    n = len(sequence)
    bounds = [round(n * math.fsum(fractions[:k])) for k in range(len(fractions))] + [n]
    places = list(pairwise(bounds))
    if any(start >= stop for start, stop in places):
        sizes = tuple(stop - start for start, stop in places)
        raise ShapeError(f"split: {n} elements in the fractions {tuple(fractions)} give parts of {sizes} elements, and a part must not be empty")
    if not shuffle:
        return tuple(sequence[start:stop] for start, stop in places)
    order = generator(rng).permutation(n)
    if isinstance(sequence, range):
        sequence = np.arange(n)
    if isinstance(sequence, np.ndarray):
        return tuple(sequence[order[start:stop]] for start, stop in places)
    return tuple([sequence[i] for i in order[start:stop].tolist()] for start, stop in places)
