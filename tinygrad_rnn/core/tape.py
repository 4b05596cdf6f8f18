"""The tape: one record an executed operation, and the reverse sweep over them.

A record knows its parents and never its output, so a tape has no reference cycles: when the last tensor
that depends on a record goes, the record goes.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from ..errors import DtypeError, GradientError, TapeError, TinygradError
from ..native import LARGE, dot
from .state import ScopePath, State, current, next_index, scope_text, writes

if TYPE_CHECKING:
    from .primitive import Primitive
    from .tensor import Tensor

Array = Any
"""An ndarray in a first-order sweep, a Tensor under ``create_graph=True``."""


class Record:
    """One executed operation.

    ``parents`` holds the record of each operand that needs a gradient, else None; ``constants`` describes
    the operands that need none. ``saved`` holds the values that the op's rules name, and None after a
    backward pass dropped them. ``index`` is the place in execution order.
    """

    __slots__ = ("__weakref__", "constants", "dtype", "index", "label", "op", "parents", "saved", "shape", "source", "state", "static")

    is_leaf = False
    op: Primitive
    index: int
    parents: tuple[Record | None, ...]
    constants: tuple[Any, ...] | None
    saved: tuple[Any, ...] | None
    static: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    state: State
    source: str
    label: str | None

    @property
    def name(self) -> str | None:
        """The name that the user gave to the result, if any."""
        return getattr(self, "label", None)

    @property
    def scope(self) -> ScopePath:
        """The path of (name, step) in which the operation ran."""
        return self.state.scope

    @property
    def operands(self) -> tuple[Any, ...]:
        """What the operation read: records, and descriptions or plain values of what needs no gradient."""
        if self.constants is None:
            return self.parents
        return tuple(c if p is None else p for p, c in zip(self.parents, self.constants, strict=True))

    @property
    def arguments(self) -> dict[str, Any]:
        """The static arguments, such as ``axis``, by name."""
        return dict(zip(self.op.static_names, self.static, strict=True))

    @property
    def buffers(self) -> list[np.ndarray]:
        """The arrays that the record keeps for its rules."""
        flat: list[Any] = []
        for value in self.saved or ():
            flat.extend(value if type(value) is tuple else getattr(value, "buffers", (value,)))
        return [value for value in flat if isinstance(value, np.ndarray)]

    @property
    def nbytes(self) -> int:
        """Bytes that the record keeps alive for its rules, a shared buffer counted once."""
        return sum({id(owner): size for owner, size in map(_owned, self.buffers)}.values())

    def where(self) -> str:
        """The op, its scope and, where it is known, the line that recorded it."""
        scope = f" in scope {scope_text(self.scope)}" if self.scope else ""
        source = getattr(self, "source", None)
        line = f", recorded at {source}" if source else ""
        return f"{self.op.name}{scope}{line}"

    def __repr__(self) -> str:
        return f"Record({self.index}: {self.where()}, {self.shape}, {self.dtype})"


class Leaf(Record):
    """Where a gradient arrives: the place on the tape of a tensor that requires grad and was not computed."""

    __slots__ = ("tensor",)
    is_leaf = True
    tensor: weakref.ref[Tensor]

    def __init__(self, tensor: Tensor, data: np.ndarray) -> None:
        self.tensor = weakref.ref(tensor)
        self.index = next_index()
        self.parents = self.saved = self.static = ()
        self.constants = None
        self.shape = data.shape
        self.dtype = data.dtype
        self.state = current()
        # The name outlives the tensor.
        if tensor._name is not None:
            self.label = tensor._name

    @property
    def name(self) -> str | None:
        tensor = self.tensor()
        return getattr(self, "label", None) if tensor is None else tensor.name

    def where(self) -> str:
        return f"leaf {self.name or ''}".strip()


class Constant:
    """The description of an operand that needs no gradient: its value is not kept.

    ``cut`` is the place in execution order of the record that the operand was detached from, or None.
    """

    __slots__ = ("cut", "dtype", "name", "shape")

    def __init__(self, name: str | None, shape: tuple[int, ...], dtype: np.dtype[Any], cut: int | None = None) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.cut = cut

    def __repr__(self) -> str:
        return f"Constant({self.name or ''}{self.shape}, {self.dtype})"


class Scatter:
    """A gradient that is zero but for ``values`` at ``index``: the sweep adds it in place.

    The gradient of ``x[t]`` for each of T steps would otherwise be T arrays of the size of ``x``.
    """

    __slots__ = ("add", "index", "values")
    shape = None

    def __init__(self, values: np.ndarray, index: Any, add: Callable[[np.ndarray, Any, np.ndarray], None]) -> None:
        self.values = values
        self.index = index
        self.add = add


def product(x: Array, y: Array) -> Array:
    """``x @ y`` of two matrices, in machine code where they are large and that is installed."""
    return x.dot(y) if x.size < LARGE or type(x) is not np.ndarray or type(y) is not np.ndarray else dot(x, y)


class Product(tuple[Any, Any]):
    """A gradient ``x.T @ g``, or the sum of g's rows where x is None: the sweep gathers those of one weight.

    A weight that is used at each of T steps then costs one matrix product a few hundred rows, not one a step.
    """

    __slots__ = ()
    shape = None

    @property
    def values(self) -> np.ndarray:
        x, g = self
        return cast(np.ndarray, np.add.reduce(g) if x is None else product(x.T, g))


class Own(list[Any]):
    """Gradients in arrays that nobody else has, each in its own: the sweep may add to them in place."""

    __slots__ = ()


class Gathered:
    """The products that came for one weight so far: a total, and those whose rows wait to be multiplied at once."""

    __slots__ = ("gs", "rows", "total", "transposed", "xs")
    enough = 256

    def __init__(self, total: np.ndarray | None = None, transposed: bool = False) -> None:
        self.total = total
        self.transposed = transposed
        """The operand is the transpose of a weight: the total is laid out so that the weight's own gradient is C-contiguous."""
        self.xs: list[np.ndarray] = []
        self.gs: list[np.ndarray] = []
        self.rows = 0

    def append(self, product: Product) -> None:
        x, g = product
        if x is not None:
            self.xs.append(x)
        self.gs.append(g)
        self.rows += len(g)
        if self.rows >= self.enough:
            self.multiply()

    def multiply(self) -> None:
        if self.gs:
            g = self.gs[0] if len(self.gs) == 1 else np.concatenate(self.gs)
            x = None if not self.xs else self.xs[0] if len(self.xs) == 1 else np.concatenate(self.xs)
            part = np.add.reduce(g) if x is None else product(g.T, x).T if self.transposed else product(x.T, g)
            self.xs, self.gs, self.rows = [], [], 0
            if self.total is None:
                self.total = part
            else:
                self.total += part

    def __iadd__(self, part: np.ndarray) -> Gathered:
        if self.total is None:
            self.total = np.array(part)
        else:
            self.total += part
        return self

    def value(self) -> np.ndarray:
        self.multiply()
        return cast(np.ndarray, self.total)


HOOKS: weakref.WeakKeyDictionary[Record, list[Callable[[Any], Any]]] = globals().get("HOOKS", weakref.WeakKeyDictionary())
RETAINED: weakref.WeakKeyDictionary[Record, weakref.ref[Any]] = globals().get("RETAINED", weakref.WeakKeyDictionary())


def sweep(
    roots: Sequence[tuple[Record, Array]],
    targets: Iterable[Record] | None = None,
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
    stop: bool = False,
    observe: Callable[[Record, Array], None] | None = None,
    passed: Callable[[Record, Record, Any], None] | None = None,
) -> dict[Record, tuple[Array, bool]]:
    """Reverse sweep from ``roots`` (records with their cotangents): the gradient at each target, or at every leaf.

    Each gradient comes with a flag that says whether its buffer is the sweep's own. ``stop`` goes no further
    than the targets. ``observe`` is called with every record and its cotangent, ``passed`` with what each record gives to each that it read.
    """
    table: dict[int, list[Any]] = {}
    heap: list[int] = []
    results: dict[Record, tuple[Array, bool]] = {}
    wanted = None if targets is None else set(targets)
    useful = None if wanted is None else _leading_to(wanted, [record for record, _ in roots], stop)
    watched = {*RETAINED, *HOOKS, *(wanted or ())} if wanted or len(RETAINED) or len(HOOKS) else set()
    for record, g in roots:
        _accumulate(table, heap, record, g)
    last_write = writes.last
    inspectors = [observer.backward for observer in current().observers if hasattr(observer, "backward")]
    looked_at = bool(watched) or observe is not None or useful is not None
    alone = not looked_at and not inspectors and passed is None
    while heap:
        index = -heappop(heap)
        record, g, owned = table.pop(index)
        if type(g) is Gathered:
            g = g.value()
        parents = record.parents
        if looked_at:
            if record in watched:
                for hook in tuple(HOOKS.get(record, ())):
                    changed = hook(_as_tensor(g))
                    if changed is not None:
                        g, owned = _hooked(changed, record, create_graph), False
                if wanted is None or record in wanted:
                    results[record] = (g, owned)
                    owned = False
                    if stop:
                        continue
            if observe is not None:
                observe(record, g)
            if useful is not None and not record.is_leaf:
                parents = tuple(p if p in useful else None for p in parents) if record in useful else ()
                if not any(parents):
                    continue
        if not parents:
            if wanted is None and record.is_leaf:
                results[record] = (g, owned)
            continue
        saved = record.saved
        if saved is None:
            raise TapeError(
                f"backward: the values kept by {record.where()} were released by an earlier backward pass; "
                "call the first one with retain_graph=True, or run the forward pass again"
            )
        if last_write > index:
            _check_unchanged(record)
        gi = record
        try:
            pulled = record.op.pull(record, parents, g, lifted(record) if create_graph else saved)
            # What was the sweep's own still is when it is only seen in another way.
            own = alone and (type(pulled) is Own or (owned and record.op.seen_through))
            for parent, gi in zip(parents, pulled):  # noqa: B905
                if gi is None:
                    continue
                if inspectors:
                    for inspect in inspectors:
                        inspect(record, g, gi)
                if gi.shape != parent.shape or gi.dtype is not parent.dtype:
                    gi = _fit(gi, parent, record)
                    if gi.shape is None:
                        if passed is not None:
                            passed(record, parent, gi)
                        _partial(table, heap, parent, gi)
                        continue
                if passed is not None:
                    passed(record, parent, gi)
                key = parent.index
                entry = table.get(key)
                if entry is None:
                    table[key] = [parent, gi, own]
                    heappush(heap, -key)
                elif entry[2]:
                    entry[1] += gi
                else:
                    entry[1] = entry[1] + gi
                    entry[2] = True
        except Exception as error:
            if isinstance(error, AttributeError) and not hasattr(gi, "dtype"):
                error = GradientError(f"the rule for {_argument(record, parent)} returned {type(gi).__name__}, expected an array of shape {parent.shape}")
            raise _blame(error, record) from error
        if not retain_graph:
            record.saved = None
    return results


def _accumulate(table: dict[int, list[Any]], heap: list[int], record: Record, g: Array) -> None:
    entry = table.get(record.index)
    if entry is None:
        table[record.index] = [record, g, False]
        heappush(heap, -record.index)
    else:
        entry[1], entry[2] = entry[1] + g, True


def _partial(table: dict[int, list[Any]], heap: list[int], parent: Any, part: Scatter | Product) -> None:
    """Add a gradient that is not a whole array to the parent's entry, in place."""
    entry = table.get(parent.index)
    transposed = not parent.is_leaf and parent.op.name == "transpose"
    if entry is None:
        entry = table[parent.index] = [parent, Gathered(transposed=transposed) if type(part) is Product else np.zeros(parent.shape, parent.dtype), True]
        heappush(heap, -parent.index)
    if isinstance(part, Product):
        if type(entry[1]) is not Gathered:
            entry[1], entry[2] = Gathered(entry[1] if entry[2] else np.array(entry[1]), transposed), True
        entry[1].append(part)
    else:
        if type(entry[1]) is Gathered:
            entry[1] = entry[1].value()
        if not entry[2]:
            entry[1], entry[2] = np.array(entry[1]), True
        part.add(entry[1], part.index, part.values)


def _fit(gi: Any, parent: Any, record: Record) -> Any:
    """Sum what broadcasting repeated, cast to the operand's dtype, refuse anything else."""
    shape = gi.shape
    if shape is None and isinstance(gi, Scatter | Product):
        if type(gi) is Product and gi[1].dtype != parent.dtype:
            return _fit(gi.values, parent, record)
        return gi
    if shape != parent.shape:
        if shape[1:] == parent.shape and shape == record.shape and type(gi) is np.ndarray:
            if len(shape) == 2 and gi.dtype == parent.dtype:
                return Product((None, gi))
            gi = np.add.reduce(gi)
        else:
            if shape != record.shape or not _broadcasts(parent.shape, shape):
                raise GradientError(f"the rule for {_argument(record, parent)} returned shape {shape}, expected {parent.shape}")
            lead = len(shape) - len(parent.shape)
            axes = (*range(lead), *(k + lead for k, n in enumerate(parent.shape) if n == 1 and shape[k + lead] != 1))
            gi = gi.sum(axis=axes)
            if gi.shape != parent.shape:
                gi = gi.reshape(parent.shape)
    if gi.dtype is not parent.dtype and gi.dtype != parent.dtype:
        if gi.dtype.kind != "f":
            raise DtypeError(f"the rule for {_argument(record, parent)} returned {gi.dtype}, expected {parent.dtype}")
        gi = gi.astype(parent.dtype)
    return gi


def _argument(record: Record, parent: Any) -> str:
    return record.op.operand_name(next((k for k, p in enumerate(record.parents) if p is parent), 0))


def _broadcasts(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    return len(small) <= len(large) and all(a in (1, b) for a, b in zip(reversed(small), reversed(large), strict=False))


def _leading_to(targets: set[Record], roots: list[Record], stop: bool) -> set[Record]:
    """The records between the roots and the targets."""
    useful = set(targets)
    lowest = min((record.index for record in targets), default=0)
    for record in reachable(roots, lambda r: r.index > lowest and not (stop and r in targets)):
        if not useful.isdisjoint(record.parents) and not (stop and record in targets):
            useful.add(record)
    return useful


def reachable(roots: Iterable[Record], expand: Callable[[Record], bool] | None = None) -> list[Record]:
    """Every record that the roots depend on, in execution order; ``expand`` says past which to look."""
    stack = list(roots)
    seen = set(stack)
    while stack:
        record = stack.pop()
        if expand is not None and not expand(record):
            continue
        for parent in record.parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=lambda record: record.index)


def _check_unchanged(record: Record) -> None:
    for name, value in zip(record.op.saved_names, record.saved or (), strict=False):
        for buffer in value if type(value) is tuple else (value,):
            if isinstance(buffer, np.ndarray) and writes.after(buffer, record.index):
                what = "its output" if name == "out" else f"its operand {name}"
                raise TapeError(
                    f"backward: {record.where()} kept {what} of shape {buffer.shape}, which was changed in place afterwards; "
                    "change it after the backward pass, or give the operation a copy"
                )


def lifted(record: Record) -> tuple[Any, ...]:
    """The saved values as tensors with their places on the tape, so that rules can be differentiated."""
    from .tensor import wrap

    values: list[Any] = []
    for name, value in zip(record.op.saved_names, record.saved or (), strict=True):
        place = record.op.place_of(name)
        if place is not None and record.op.sequence and place >= 0:
            values.append(tuple(wrap(v, p) for v, p in zip(value, record.parents, strict=True)))
        else:
            node = None if place is None else record if place < 0 else record.parents[place]
            values.append(wrap(value, node) if place is not None and isinstance(value, np.ndarray) else value)
    return tuple(values)


def _as_tensor(g: Array) -> Tensor:
    from .tensor import is_tensor, wrap

    if is_tensor(g):
        return g  # type: ignore[no-any-return]
    view = np.asarray(g).view()
    view.flags.writeable = False
    return wrap(view)


def _hooked(changed: Any, record: Record, create_graph: bool) -> Array:
    from .tensor import is_tensor

    shape = np.shape(changed)
    if shape != record.shape:
        raise GradientError(f"a gradient hook of {record.where()} returned shape {shape}, expected {record.shape}")
    if create_graph:
        return changed if is_tensor(changed) else _as_tensor(np.asarray(changed, record.dtype))
    return np.asarray(changed._data if is_tensor(changed) else changed, record.dtype)


def _blame(error: Exception, record: Record) -> Exception:
    kind = type(error) if isinstance(error, TinygradError) else GradientError
    text = f"backward of {record.where()}: {error}" if isinstance(error, TinygradError) else f"backward of {record.where()}: {type(error).__name__}: {error}"
    return kind(text)


class Tape(Sequence[Record]):
    """The records that an output depends on, in execution order; ``print`` gives a listing.

    >>> import tinygrad_rnn as tg
    >>> W = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True, name="W")
    >>> x = tg.tensor([1.0, -1.0], name="x")
    >>> with tg.scope("layer", step=0):
    ...     y = tg.tanh(x @ W)
    >>> print(tg.tape(y))
    tape: 2 records, 1 leaf, 16 bytes kept for backward
     #  scope     op      operands  shape  dtype    bytes
    %0  layer[0]  matmul  x, W      (2,)   float32      8
    %1  layer[0]  tanh    %0        (2,)   float32      8
    """

    def __init__(self, roots: Sequence[Record]) -> None:
        nodes = reachable(roots)
        self.roots = tuple(roots)
        self.leaves: tuple[Leaf, ...] = tuple(node for node in nodes if node.is_leaf)  # type: ignore[misc]
        self._records = [node for node in nodes if not node.is_leaf]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self._records[index]

    @property
    def nbytes(self) -> int:
        """Bytes kept alive for the backward pass, each buffer counted once, at its whole size."""
        return sum(self._kept())

    def _kept(self) -> list[int]:
        """Bytes that each record keeps and no earlier one did."""
        seen: set[int] = set()
        kept = []
        for record in self._records:
            total = 0
            for owner, size in map(_owned, record.buffers):
                if id(owner) not in seen:
                    seen.add(id(owner))
                    total += size
            kept.append(total)
        return kept

    def summary(self) -> str:
        """Records and bytes by operation, as a table.

        >>> import tinygrad_rnn as tg
        >>> w = tg.ones(3, requires_grad=True)
        >>> print(tg.tape((w * w + w).sum()).summary())
        op        records  bytes
        multiply        1     12
        add             1      0
        sum             1      0
        total           3     12
        """
        counts: dict[str, list[int]] = {}
        for record, size in zip(self._records, self._kept(), strict=True):
            row = counts.setdefault(record.op.name, [0, 0])
            row[0] += 1
            row[1] += size
        rows = sorted(counts.items(), key=lambda item: (-item[1][1], -item[1][0]))
        rows.append(("total", [len(self), self.nbytes]))
        return _table(["op", "records", "bytes"], [[name, str(n), f"{size:,}"] for name, (n, size) in rows], "<>>")

    def listing(self, limit: int | None = None) -> str:
        """One line a record; at most about ``limit`` lines, with the middle left out."""
        number = {record: f"%{k}" for k, record in enumerate(self._records)}
        unnamed = itertools.count()
        for leaf in self.leaves:
            number[leaf] = leaf.name or f"leaf{next(unnamed)}"
        kept = self._kept()
        head = f"tape: {_count(len(self), 'record')}, {_count(len(self.leaves), 'leaf')}, {sum(kept):,} bytes kept for backward"
        shown = list(range(len(self)))
        cut = 0
        if limit is not None and len(shown) > limit:
            cut = limit * 2 // 3
            shown = shown[:cut] + shown[len(shown) - (limit - cut) :]
        rows = []
        for k in shown:
            record = self._records[k]
            operands = ", ".join([_operand(operand, number) for operand in record.operands])
            arguments = "".join(f", {name}={value}" for name, value in record.arguments.items() if value not in (None, False) and np.ndim(value) < 2)
            label = f" -> {record.name}" if record.name else ""
            released = "released" if record.saved is None else f"{kept[k]:,}"
            rows.append([number[record], scope_text(record.scope), record.op.name, operands + arguments + label, str(record.shape), str(record.dtype), released])
        lines = _table(["#", "scope", "op", "operands", "shape", "dtype", "bytes"], rows, "><<<<<>").split("\n")
        if cut:
            lines.insert(cut + 1, f" ... {len(self) - len(shown):,} records more: print(tape.listing())")
        return "\n".join([head, *lines])

    def __str__(self) -> str:
        return self.listing(limit=200)

    def __repr__(self) -> str:
        return f"Tape({_count(len(self), 'record')}, {_count(len(self.leaves), 'leaf')}, {self.nbytes:,} bytes)"


def _owned(buffer: np.ndarray) -> tuple[np.ndarray, int]:
    owner = buffer
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return owner, max(owner.nbytes, buffer.nbytes if owner is buffer else 0)


def _count(n: int, noun: str) -> str:
    plural = {"leaf": "leaves"}.get(noun, noun + "s")
    return f"{n:,} {noun if n == 1 else plural}"


def _operand(operand: Any, number: dict[Record, str]) -> str:
    if hasattr(operand, "parents"):
        return number[operand]
    if hasattr(operand, "shape"):
        return operand.name or "x".join(map(str, operand.shape)) + " constant" if operand.shape else operand.name or "constant"
    text = repr(operand)
    return text if len(text) <= 24 else text[:21] + "..."


def _table(head: list[str], rows: list[list[str]], align: str) -> str:
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [cell.rjust(width) if mark == ">" else cell.ljust(width) for cell, width, mark in zip(row, widths, align, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
