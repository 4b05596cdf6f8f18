"""Generated problems whose answer needs a memory of T steps, each with the score of a network that remembers nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.creation import generator
from ..core.tensor import get_default_dtype
from .checks import whole_number


def adding_problem(T: int, batch: int, rng: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Add the two marked numbers of T: inputs of shape (T, batch, 2) and targets of shape (batch, 1), of the default dtype.

    The first feature is uniform in [0, 1), the second is 1 at one step of the first half and at one of the second, and 0
    elsewhere. **Floor**: always answering 1 has a mean squared error of 1/6, the variance of the sum of two uniform numbers.
    From Hochreiter and Schmidhuber, Long Short-Term Memory (1997), in the form of Arjovsky, Shah and Bengio, Unitary
    Evolution Recurrent Neural Networks (2016).

    >>> import tinygrad_rnn.data as data
    >>> inputs, targets = data.adding_problem(50, 20, rng=0)
    >>> inputs.shape, targets.shape
    ((50, 20, 2), (20, 1))
    """
    steps, size, source = whole_number("adding_problem", "T", T, 2), whole_number("adding_problem", "batch", batch, 1), generator(rng)
    numbers = source.random((steps, size))
    marks, columns = np.zeros((steps, size)), np.arange(size)
    marks[source.integers(steps // 2, size=size), columns] = 1
    marks[source.integers(steps // 2, steps, size=size), columns] = 1
    dtype = get_default_dtype()
    return np.stack([numbers, marks], axis=2).astype(dtype), (numbers * marks).sum(0)[:, None].astype(dtype)


def copy_memory(T: int, batch: int, rng: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Repeat ten symbols after T steps: inputs and targets, int64 of shape (T + 20, batch), of an alphabet of 10 symbols.

    The inputs are ten symbols out of 0..7, T - 1 blanks (8), the signal to answer (9) and ten blanks; the targets are T + 10
    blanks and the ten symbols. **Floor**: without a memory the mean cross entropy is 10 ln 8 / (T + 20) nats. From Hochreiter
    and Schmidhuber (1997), in the form of Arjovsky, Shah and Bengio, Unitary Evolution Recurrent Neural Networks (2016).

    >>> import tinygrad_rnn.data as data
    >>> inputs, targets = data.copy_memory(3, 1, rng=0)
    >>> print(inputs[:, 0], targets[:, 0], sep="\\n")
    [6 5 4 2 2 0 0 0 1 6 8 8 9 8 8 8 8 8 8 8 8 8 8]
    [8 8 8 8 8 8 8 8 8 8 8 8 8 6 5 4 2 2 0 0 0 1 6]
    """
    steps, size = whole_number("copy_memory", "T", T, 1), whole_number("copy_memory", "batch", batch, 1)
    symbols = generator(rng).integers(8, size=(10, size))
    inputs, targets = np.full((2, steps + 20, size), 8)
    inputs[:10], inputs[steps + 9], targets[-10:] = symbols, 9, symbols
    return inputs, targets


def temporal_order(T: int, batch: int, rng: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Tell in which order two symbols came: inputs, int64 of shape (T, batch) out of 6 symbols, targets, int64 of shape (batch,) out of 4.

    Symbol 0 or 1 stands at a step in [T/10, 2T/10] and again one of them at a step in [4T/10, 5T/10]; all others are
    distractors out of 2..5. The target is 2 * first + second. **Floor**: without a memory one answer in four is right, with a
    cross entropy of ln 4 nats. From Hochreiter and Schmidhuber (1997), in the form of Pascanu, Mikolov and Bengio, On the
    Difficulty of Training Recurrent Neural Networks (2013).

    >>> import tinygrad_rnn.data as data
    >>> inputs, targets = data.temporal_order(20, 3, rng=0)
    >>> first, second = inputs[inputs[:, 0] < 2, 0]
    >>> bool(targets[0] == 2 * first + second)
    True
    """
    steps, size, source = whole_number("temporal_order", "T", T, 10), whole_number("temporal_order", "batch", batch, 1), generator(rng)
    inputs, columns = source.integers(2, 6, size=(steps, size)), np.arange(size)
    first, second = source.integers(2, size=(2, size))
    inputs[source.integers(steps // 10, 2 * steps // 10 + 1, size=size), columns] = first
    inputs[source.integers(4 * steps // 10, 5 * steps // 10 + 1, size=size), columns] = second
    return inputs, 2 * first + second
