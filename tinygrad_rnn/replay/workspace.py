"""Workspaces: the memory that a plan writes to, kept from one call to the next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


class Workspace:
    """Arrays by the number of the value that lives there, and scratch buffers."""

    def __init__(self, arrays: dict[int, np.ndarray], buffers: Iterable[np.ndarray] = ()) -> None:
        self.arrays, self.buffers = arrays, list(buffers)
        self.places: dict[Any, Any] = {}
        """What a loop, or its machine code, made of them, as the views of all steps, so that the next call need not."""
        self.views = self.counted = 0
        self.again: Workspace | None = None
        """The same arrays as the backward pass reads them."""
        owned = {id(base): base for array in [*arrays.values(), *self.buffers] for base in [array if array.base is None else array.base]}
        self.owned = list(owned.values())
        self._ids = frozenset(owned)
        self._bytes = sum(array.nbytes for array in self.owned)

    def grow(self, size: int) -> None:
        """Count so many bytes more that are kept with it."""
        self._bytes += size

    def owns(self, array: np.ndarray) -> bool:
        """Whether an array is in this memory."""
        return id(array if array.base is None else array.base) in self._ids

    @property
    def nbytes(self) -> int:
        """What it takes, with the views: about 120 bytes each."""
        return self._bytes + 120 * (self.views + (0 if self.again is None else self.again.views))


class Pool:
    """Workspaces given back, to be taken again: fresh memory costs a page fault for every 4,096 bytes.

    All of them together take ``limit`` bytes at most, and are ``count`` at most; those that were not asked for the longest go first.
    One of more than ``large`` bytes is not kept: there the time that it takes to fill it outweighs the faults.
    """

    limit, count, large = 1 << 28, 256, 100 << 20

    def __init__(self) -> None:
        self._free: OrderedDict[Any, list[Workspace]] = OrderedDict()
        self._bytes = self._held = 0
        # A lease may end while the garbage collector runs, in the middle of anything.
        self._lock = threading.RLock()

    def take(self, kind: Any) -> Workspace | None:
        with self._lock:
            free = self._free.get(kind)
            if not free:
                return None
            self._free.move_to_end(kind)
            return self._removed(free)

    def give(self, kind: Any, workspace: Workspace) -> None:
        if workspace.nbytes > self.large:
            return
        with self._lock:
            self._free.setdefault(kind, []).append(workspace)
            self._free.move_to_end(kind)
            workspace.counted = workspace.nbytes
            self._bytes += workspace.counted
            self._held += 1
            while self._bytes > self.limit or self._held > self.count:
                oldest = next(iter(self._free))
                free = self._free[oldest]
                if free:
                    self._removed(free)
                if not free:
                    del self._free[oldest]

    def _removed(self, free: list[Workspace]) -> Workspace:
        workspace = free.pop()
        self._bytes -= workspace.counted
        self._held -= 1
        return workspace


POOL = Pool()


class Lease:
    """A workspace of the pool, or a new one, for as long as this object lives."""

    def __init__(self, kind: Any, make: Callable[[], Workspace]) -> None:
        self.kind = kind
        self.workspace = POOL.take(kind) or make()

    def __del__(self) -> None:
        # When the interpreter ends the module's names may be gone before the last tensors are.
        if hasattr(self, "workspace") and POOL is not None:
            POOL.give(self.kind, self.workspace)
