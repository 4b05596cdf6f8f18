"""Corpora that come with other software: sentence pairs out of gettext catalogues, labelled texts out of CSV files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from .checks import whole_number
from .text import check_file

_CODE = re.compile(r"[%{}<>&$~_\\|]")


def pairs(path: str | os.PathLike[str], *, min_words: int = 1, max_words: int | None = None) -> Iterator[tuple[str, str]]:
    """Sentences and their translations out of a gettext catalogue: a .mo file, or a .po file if the package ``polib`` is installed.

    Left out are pairs with a sign of markup, a placeholder or an access key on either side (one of ``% { } < > & $ ~ _ \\ |``), those
    whose translation is missing, the same as the source, or marked as doubtful, plural forms but the first, pairs
    that came before, sources of fewer than ``min_words`` words (divided by white space), and pairs with a side of more
    than ``max_words``. Runs of white space become one space.

    Raises ``FileNotFoundError``, ``ValueError`` for a file that is no catalogue, ``ImportError`` for a .po file without ``polib``.

    >>> import glob
    >>> import tinygrad_rnn.data as data
    >>> found = [pair for path in glob.glob("/usr/share/locale/fr/LC_MESSAGES/*.mo") for pair in data.pairs(path, min_words=4, max_words=12)]
    >>> all(4 <= len(source.split()) <= 12 for source, target in found)
    True
    """
    least = whole_number("pairs", "min_words", min_words, 1)
    most = None if max_words is None else whole_number("pairs", "max_words", max_words, least)
    check_file("pairs", path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".mo", ".gmo", ".po"):
        raise ValueError(f"pairs: {os.fspath(path)} is no gettext catalogue, expected a .mo or a .po file")
    return _clean(_po(path) if suffix == ".po" else _mo(path), least, most)


def _clean(entries: list[tuple[str, str]], least: int, most: int | None) -> Iterator[tuple[str, str]]:
    seen = set()
    for entry in entries:
        words = [side.split() for side in entry]
        source, target = pair = " ".join(words[0]), " ".join(words[1])
        if not target or source == target or pair in seen or _CODE.search(source) or _CODE.search(target):
            continue
        if len(words[0]) < least or (most is not None and max(map(len, words)) > most):
            continue
        seen.add(pair)
        yield pair


def _mo(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    import gettext
    import struct

    with open(path, "rb") as file:
        try:
            # The module translates one message at a time; its table of all of them has no public name.
            catalogue: dict[Any, str] = vars(gettext.GNUTranslations(file))["_catalog"]
        except (OSError, ValueError, IndexError, struct.error) as error:
            raise ValueError(f"pairs: {os.fspath(path)} cannot be read as a .mo file: {error}") from error
    first = {key[0] if isinstance(key, tuple) else key: text for key, text in catalogue.items() if not isinstance(key, tuple) or key[1] == 0}
    # A message's context stands before it, ended by this control character.
    return [(key.rpartition("\x04")[2], text) for key, text in first.items() if key]


def _po(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    import importlib

    try:
        polib = importlib.import_module("polib")
    except ImportError as error:
        raise ImportError(f"pairs: reading {os.fspath(path)} needs the package polib (pip install polib); a .mo file, which msgfmt makes of it, needs nothing") from error
    try:
        entries = polib.pofile(os.fspath(path)).translated_entries()
    except (OSError, ValueError) as error:
        raise ValueError(f"pairs: {os.fspath(path)} is not a .po file: {error}") from error
    return [(entry.msgid, entry.msgstr_plural[0] if entry.msgid_plural else entry.msgstr) for entry in entries]


def labelled_csv(
    path: str | os.PathLike[str], text: str = "text", label: str = "label", *, delimiter: str = ",", encoding: str = "utf-8"
) -> Iterator[tuple[str, str]]:
    """The texts and labels of a CSV file with a header, as ``(text, label)`` of strings, read as they are asked for.

    ``text`` and ``label`` name columns; ``encoding`` is one in which a newline is one byte. Empty lines are passed over.

    Raises ``FileNotFoundError`` and, at once, ``ValueError`` for an empty file and a missing column, with those that there
    are; in the course of reading ``ValueError`` with the row and the line for bytes that are not of the encoding, for a row
    of another number of fields than the header's, and for broken quotes. Row 1 is the first after the header.

    >>> import os, tempfile
    >>> import tinygrad_rnn.data as data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "reviews.csv")
    ...     with open(path, "w") as file:
    ...         n = file.write('text,label\\n"Good, not great.",1\\n')
    ...     list(data.labelled_csv(path))
    [('Good, not great.', '1')]
    """
    check_file("labelled_csv", path)
    header = next(_rows(path, delimiter, encoding), None)
    if header is None:
        raise ValueError(f"labelled_csv: {os.fspath(path)} is empty, expected a header with the columns {text!r} and {label!r}")
    for name in (text, label):
        if name not in header:
            raise ValueError(f"labelled_csv: {os.fspath(path)} has no column {name!r}, its columns are {', '.join(map(repr, header))}; name them with text= and label=")
    return _columns(path, delimiter, encoding, header.index(text), header.index(label))


def _columns(path: str | os.PathLike[str], delimiter: str, encoding: str, *places: int) -> Iterator[Any]:
    rows = _rows(path, delimiter, encoding)
    next(rows)
    for row in rows:
        yield tuple(row[place] for place in places)


def _rows(path: str | os.PathLike[str], delimiter: str, encoding: str) -> Iterator[list[str]]:
    """The header and the rows, each with as many fields as the header."""
    import csv

    done, line, width = 0, 0, 0
    with open(path, "rb") as file:

        def lines() -> Iterator[str]:
            # Decoding line by line, and not in blocks, is what lets an error name its row.
            nonlocal line
            for line, content in enumerate(file, 1):
                yield content.decode(encoding).removeprefix("\ufeff" if line == 1 else "")

        rows = csv.reader(lines(), delimiter=delimiter, strict=True)
        while True:
            try:
                row = next(rows, None)
                if row is None:
                    return
                if not row:
                    continue
                if done and len(row) != width:
                    raise ValueError(f"{len(row)} fields, and the header has {width}")
            except (csv.Error, ValueError) as error:
                advice = "; give its encoding, such as encoding='latin-1'" if isinstance(error, UnicodeDecodeError) else ""
                raise ValueError(f"labelled_csv: {os.fspath(path)}, {f'row {done}' if done else 'header'} (line {line}): {error}{advice}") from error
            width = width or len(row)
            done += 1
            yield row
