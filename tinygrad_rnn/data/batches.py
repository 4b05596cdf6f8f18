"""Sequences of several lengths in one array, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..core.tensor import get_default_dtype
from ..errors import DtypeError, ShapeError
from .checks import whole_number
from .epochs import Epochs

POOL = 64
"""How many batches' worth of shuffled examples are sorted by length together."""


def pad(sequences: Sequence[Any], value: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sequences side by side in an array of shape (time, batch, ...), with ``value`` after the end of each, and their lengths.

    A sequence is a list or an array of shape (time, ...). Integers become int64, Python's floats the default dtype, and
    arrays of floats keep their dtype. The lengths are int64 of shape (batch,): what ``lengths=`` of recurrent networks takes.

    Raises ``ShapeError`` for no sequences, ragged ones or unlike features, ``DtypeError`` for what is not numbers, and for
    a ``value`` that is no whole number among integers.

    >>> import tinygrad_rnn.data as data
    >>> array, lengths = data.pad([[5, 6, 7], [8]])
    >>> array
    array([[5, 8],
           [6, 0],
           [7, 0]])
    >>> lengths
    array([3, 1])
    """
    arrays = [_numbers(f"pad: sequence {place}", sequence) for place, sequence in enumerate(sequences)]
    if not arrays:
        raise ShapeError("pad: no sequences, expected at least one")
    # An empty list has no dtype and no features of its own.
    telling = [a for a in arrays if a.size] or arrays
    features = telling[0].shape[1:]
    for place, array in enumerate(arrays):
        if not array.ndim or (array.size and array.shape[1:] != features):
            raise ShapeError(f"pad: sequence {place} has shape {array.shape}, expected (time{''.join(f', {n}' for n in features)})")
    dtype = np.result_type(*telling)
    if not isinstance(value, Real if dtype.kind == "f" else Integral):
        raise DtypeError(f"pad: value must be a number that {dtype} holds, got {value!r}")
    lengths = np.array([len(a) for a in arrays], np.int64)
    padded = np.full((int(lengths.max()), len(arrays), *features), value, dtype)
    for place, array in enumerate(arrays):
        if array.size:
            padded[: len(array), place] = array
    return padded, lengths


def _numbers(what: str, values: Any) -> np.ndarray:
    try:
        array: np.ndarray = np.asarray(values)
    except ValueError as error:
        raise ShapeError(f"{what} is ragged: {error}") from error
    if array.dtype.kind not in "biuf":
        raise DtypeError(f"{what} holds {array.dtype}, expected numbers; encode symbols with a Vocabulary")
    if array.dtype.kind in "iu":
        return array.astype(np.int64, copy=False)
    return array.astype(get_default_dtype()) if array.dtype.kind == "f" and not isinstance(values, np.ndarray) else array


def collate(examples: Sequence[Any], value: float = 0) -> Any:
    """The batch of some examples, in the structure of one: sequences are padded, numbers become an array.

    For sequences it is ``(array of (time, batch, ...), lengths)``, see :func:`pad`; for numbers an array of shape (batch,);
    for tuples (named ones too) the tuple of the batches of their parts.

    Raises ``ShapeError`` for tuples of several sizes, and as :func:`pad` does.

    >>> import tinygrad_rnn.data as data
    >>> (inputs, lengths), labels = data.collate([([4, 5, 6], 1), ([7, 8], 0)])
    >>> inputs.shape, lengths.tolist(), labels.tolist()
    ((3, 2), [3, 2], [1, 0])
    """
    if not len(examples):
        raise ShapeError("collate: no examples, expected at least one")
    first = examples[0]
    if isinstance(first, tuple):
        for place, example in enumerate(examples):
            if not isinstance(example, tuple) or len(example) != len(first):
                raise ShapeError(f"collate: example {place} is {_kind(example)}, expected {_kind(first)} as the first one")
        parts = [collate(part, value) for part in zip(*examples, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    if any(_is_number(example) != _is_number(first) for example in examples):
        raise ShapeError("collate: some examples are numbers and some are sequences")
    return _numbers("collate: a batch of numbers", list(examples)) if _is_number(first) else pad(examples, value)


def _is_number(example: Any) -> bool:
    return not hasattr(example, "__len__") or getattr(example, "ndim", 1) == 0


def _kind(example: Any) -> str:
    return f"a tuple of {len(example)}" if isinstance(example, tuple) else f"a {type(example).__name__}"


def batches(
    examples: Sequence[Any],
    batch_size: int,
    *,
    key: Callable[[Any], Any] | None = None,
    shuffle: bool = True,
    rng: Any = None,
    drop_last: bool = False,
    collate: Callable[[list[Any]], Any] = collate,
) -> Epochs[Any]:
    """Batches of examples of similar lengths, drawn anew in every epoch.

    ``examples`` is a list, or anything with a length and an index: an example is read when its batch comes. It is a sequence,
    a number, or a tuple of such, and a batch is what ``collate`` makes of a list of them. With ``shuffle`` the examples are
    drawn in a random order, sorted by ``key`` in pools of 64 batches and cut, and the batches come in a random order again;
    without it they come as they stand. ``key`` is the length of a sequence and the lengths of those in a tuple unless given
    (a constant leaves lengths alone). The last of the drawn examples, too few for a batch, make a smaller one unless ``drop_last``.

    The result iterates over one epoch at a time and can be saved and resumed, see :class:`Epochs`.

    >>> import tinygrad_rnn.data as data
    >>> reviews = [([3, 1, 4], 1), ([1, 5], 0), ([9, 2, 6, 5], 1), ([3], 0)]
    >>> for (inputs, lengths), labels in data.batches(reviews, 2, rng=0):
    ...     print(inputs.shape, lengths.max() - lengths.min() <= 2, labels.shape)
    (2, 2) True (2,)
    (4, 2) True (2,)
    """
    if not (hasattr(examples, "__len__") and hasattr(examples, "__getitem__")):
        raise DtypeError(f"batches: examples must have a length and an index, got {type(examples).__name__}; make a list of them")
    size = whole_number("batches", "batch_size", batch_size, 1)
    n = len(examples)
    kept = n - n % size if drop_last else n
    if not kept:
        raise ShapeError(f"batches: {n} examples do not make one batch of {size}" if n else "batches: no examples, expected at least one")
    measure = _lengths if key is None else key
    keys: list[Any] = []

    def plan(rng: np.random.Generator) -> list[list[int]]:
        if not shuffle:
            return [list(range(start, min(start + size, kept))) for start in range(0, kept, size)]
        if not keys:
            keys.extend(measure(examples[i]) for i in range(n))
        order = rng.permutation(n)[:kept].tolist()
        pools = (sorted(order[start : start + POOL * size], key=keys.__getitem__) for start in range(0, kept, POOL * size))
        cut = [pool[start : start + size] for pool in pools for start in range(0, len(pool), size)]
        return [cut[i] for i in rng.permutation(len(cut)).tolist()]

    return Epochs(plan, lambda places: collate([examples[i] for i in places]), rng=rng)


def _lengths(example: Any) -> tuple[int, ...]:
    if isinstance(example, tuple):
        return tuple(n for part in example for n in _lengths(part))
    return () if _is_number(example) else (len(example),)
