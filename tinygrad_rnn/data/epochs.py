"""Epochs: passes over data, each in a random order of its own, that can be left and taken up again at any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..core.creation import generator
from ..errors import DtypeError, ShapeError

T = TypeVar("T")


class Epochs(Generic[T]):
    """Data that training walks over, epoch after epoch, with a position that can be saved and restored.

    ``plan(generator)`` draws what an epoch consists of, a sequence of places; ``read(place)`` makes the item of a place when its
    turn comes. :func:`windows` and :func:`batches` are made of it, and so is data that is generated as it is needed:

    >>> import tinygrad_rnn.data as data
    >>> problems = data.Epochs(lambda rng: rng.integers(2**32, size=100), lambda seed: data.adding_problem(50, 20, rng=seed), rng=0)
    >>> len(problems)
    100
    >>> for inputs, targets in problems:
    ...     break
    >>> problems.epoch, problems.index, inputs.shape
    (0, 1, (50, 20, 2))

    Iteration gives the items of one epoch from the present position on; where a loop was left, the next one goes on. An
    epoch ends when a loop runs out of items. ``epoch`` counts the epochs that have ended, ``index`` the items of the
    present one that were given out. The random numbers of an epoch depend on a seed, drawn once from ``rng``, and on the
    epoch's number alone: so the position is three plain values, and what else draws from ``rng`` does not matter.

    >>> position = problems.state_dict()
    >>> again = data.Epochs(lambda rng: rng.integers(2**32, size=100), lambda seed: data.adding_problem(50, 20, rng=seed))
    >>> again.load_state_dict(position)
    >>> all((a[0] == b[0]).all() for a, b in zip(problems, again, strict=True))
    True
    """

    def __init__(self, plan: Callable[[np.random.Generator], Sequence[Any]], read: Callable[[Any], T], *, rng: Any = None) -> None:
        self._draw = plan
        self._read = read
        self._seed: list[int] = generator(rng).integers(2**32, size=4).tolist()
        self._epoch = 0
        self._index = 0
        self._plan: Sequence[Any] | None = None

    @property
    def epoch(self) -> int:
        """How many epochs have ended."""
        return self._epoch

    @property
    def index(self) -> int:
        """How many items of the present epoch were given out."""
        return self._index

    def __len__(self) -> int:
        """The number of items in an epoch."""
        return len(self._planned())

    def __iter__(self) -> Iterator[T]:
        plan = self._planned()
        # Another loop that ended the epoch, or a restored position, puts another plan in its place: then this loop is over.
        while plan is self._plan and self._index < len(plan):
            item = self._read(plan[self._index])
            self._index += 1
            yield item
        if plan is self._plan:
            self._epoch, self._index, self._plan = self._epoch + 1, 0, None

    def state_dict(self) -> dict[str, Any]:
        """The position in plain JSON values: ``seed`` (four integers), ``epoch``, ``index``, and ``length`` of the epoch.

        Taken inside a loop, after an item was given out, it stands behind that item, the last one too: a loop over the
        restored position then gives no item and ends the epoch, as the loop that was cut off would have.
        """
        return {"seed": list(self._seed), "epoch": self._epoch, "index": self._index, "length": len(self)}

    def load_state_dict(self, state: Any) -> None:
        """Go to the position of ``state``: the items that follow are the ones that would have followed there, bit for bit.

        Raises ``DtypeError`` for a state that is not of :meth:`state_dict`'s form and ``ShapeError`` for one of other data
        (an epoch of another length); the position is then as it was.
        """
        names = ("seed", "epoch", "index", "length")
        if not isinstance(state, Mapping) or set(state) != set(names):
            raise DtypeError(f"load_state_dict: expected a mapping with the keys {', '.join(names)}, got {list(state) if isinstance(state, Mapping) else type(state).__name__}")
        seed, epoch, index, length = (state[name] for name in names)
        numbers = [epoch, index, length, *(seed if isinstance(seed, list | tuple) and len(seed) == 4 else [None])]
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise DtypeError(f"load_state_dict: seed must be four whole numbers, and epoch, index and length one each, got {dict(state)}")
        plan = self._planned_for(seed, epoch)
        if len(plan) != length or index > length:
            raise ShapeError(
                f"load_state_dict: the state is at item {index} of an epoch of {length}, an epoch of this data has {len(plan)}: it is other data, or batch_size or window differ"
            )
        self._seed, self._epoch, self._index, self._plan = list(seed), epoch, index, plan

    def _planned_for(self, seed: Sequence[int], epoch: int) -> Sequence[Any]:
        return self._draw(np.random.default_rng([*seed, epoch]))

    def _planned(self) -> Sequence[Any]:
        if self._plan is None:
            self._plan = self._planned_for(self._seed, self._epoch)
        return self._plan

    def __repr__(self) -> str:
        return f"Epochs(epoch={self._epoch}, index={self._index})"
