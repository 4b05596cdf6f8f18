"""Windows of a long text for truncated backpropagation through time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import ShapeError
from .checks import symbol_array, whole_number
from .epochs import Epochs


class Window(NamedTuple):
    """Some steps of parallel streams: ``inputs`` and ``targets`` are int64 of shape (time, batch), ``start`` says that the state starts anew."""

    inputs: np.ndarray
    targets: np.ndarray
    start: bool


def windows(ids: Any, window: int, batch_size: int, *, shuffle: bool = True, rng: Any = None, drop_last: bool = False) -> Epochs[Window]:
    """Windows of a text, for truncated backpropagation through time with the state carried over.

    The text's symbols, ``ids`` of shape (time,), are cut into ``batch_size`` streams of equal length, and each batch
    continues every stream where the batch before left it; ``targets`` are the symbols that follow ``inputs``. Carry the
    network's state from batch to batch, detached, and start from zeros where ``start`` is True: at the beginning of an epoch.
    (To resume in the middle of one, restore the network's state along with the position.) With ``shuffle`` every epoch begins at
    a random offset, so that windows and streams fall differently. Without it an epoch begins at the first symbol, and with a
    ``batch_size`` of 1 each symbol but the first is a target exactly once: for measuring. The last window of an epoch is shorter
    where the streams' length asks for it, unless ``drop_last``. Of a memory-mapped array only what a window needs is read.

    The result iterates over one epoch at a time and can be saved and resumed, see :class:`Epochs`. Raises ``ShapeError`` for
    a text shorter than one window of each stream.

    >>> import tinygrad_rnn.data as data
    >>> for inputs, targets, start in data.windows(range(13), window=4, batch_size=2, shuffle=False):
    ...     print(inputs.T.tolist(), targets.T.tolist(), start)
    [[0, 1, 2, 3], [6, 7, 8, 9]] [[1, 2, 3, 4], [7, 8, 9, 10]] True
    [[4, 5], [10, 11]] [[5, 6], [11, 12]] False
    """
    text = symbol_array("windows", ids)
    steps, streams = whole_number("windows", "window", window, 1), whole_number("windows", "batch_size", batch_size, 1)
    spare = len(text) - 1 - steps * streams
    if spare < 0:
        raise ShapeError(
            f"windows: the text has {len(text)} symbols, and {streams} streams with a window of {steps} need at least {steps * streams + 1} (window * batch_size + 1); take a smaller window or batch_size"
        )
    # What the offsets may skip is the same in every epoch, and so is the number of windows.
    length = (len(text) - 1 - (min(steps - 1, spare) if shuffle else 0)) // streams
    used = length - length % steps if drop_last else length

    def plan(rng: np.random.Generator) -> list[tuple[int, int, int]]:
        offset = int(rng.integers(len(text) - length * streams)) if shuffle else 0
        return [(offset, done, min(done + steps, used)) for done in range(0, used, steps)]

    def read(place: tuple[int, int, int]) -> Window:
        offset, begin, end = place
        both = text[offset + np.arange(begin, end + 1)[:, None] + length * np.arange(streams)].astype(np.int64, copy=False)
        return Window(both[:-1], both[1:].copy(), begin == 0)

    return Epochs(plan, read, rng=rng)
