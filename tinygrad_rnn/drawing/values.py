"""The norms of values: of those that rules keep, and of the rest computed again from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.primitive import Primitive
from ..core.tape import Constant, Record
from ..core.tensor import is_tensor
from ..errors import TapeError
from ..replay.expanding import Expanded, norm

_UNKNOWN = object()


def value_norms(tape: Expanded) -> dict[Record, float]:
    """The Frobenius norm of the value of every record, where it can be known: a sum of what was not kept is computed again.

    Raises ``TapeError`` if a backward pass released what the records kept.
    """
    known, _ = known_values(tape)
    with np.errstate(all="ignore"):
        return {record: norm(value) for record, value in known.items() if value.dtype.kind == "f"}


def known_values(tape: Expanded, seen: dict[Record, Any] | None = None) -> tuple[dict[Record, Any], dict[tuple[Record, int], Any]]:
    """The value of every record where it can be known, and the operands that records keep, by their position; ``seen`` are values known beforehand.

    Raises ``TapeError`` if a backward pass released what the records kept.
    """
    known: dict[Record, Any] = dict(seen or {})
    operands: dict[tuple[Record, int], Any] = {}
    for record in tape.records:
        if record.is_leaf:
            tensor = record.tensor()  # type: ignore[attr-defined]
            if tensor is not None:
                known[record] = tensor._data
            continue
        if record.saved is None:
            raise TapeError(f"graph: the values kept by {record.where()} were released by a backward pass; draw before it, or call backward(retain_graph=True)")
        if isinstance(record.op, Primitive):
            _kept(record, known, operands)
    for record in tape.records:
        if record not in known and isinstance(getattr(record, "op", None), Primitive):
            value = _again(record, known, operands)
            if value is not _UNKNOWN:
                known[record] = value
    return known, operands


def _kept(record: Record, known: dict[Record, Any], operands: dict[tuple[Record, int], Any]) -> None:
    for name, value in zip(record.op.saved_names, record.saved or (), strict=True):
        place = record.op.place_of(name)
        if place is None or value is None:
            continue
        if place == -1:
            known[record] = value
            continue
        parts = list(enumerate(value)) if type(value) is tuple and record.op.sequence else [(place, value)]
        for position, part in parts:
            operands[record, position] = part
            parent = record.parents[position]
            if parent is not None and isinstance(part, np.ndarray):
                known.setdefault(parent, part)


def _again(record: Record, known: dict[Record, Any], operands: dict[tuple[Record, int], Any]) -> Any:
    """The record's value, from those of its operands."""
    op, given = record.op, []
    for position, parent in enumerate(record.parents):
        if parent is not None and parent in known:
            given.append(known[parent])
        elif (record, position) in operands:
            given.append(operands[record, position])
        else:
            constant = None if record.constants is None else record.constants[position]
            if parent is not None or isinstance(constant, Constant):
                return _UNKNOWN
            given.append(constant)
    named = record.arguments | ({op.sequence: given} if op.sequence else dict(zip(op.operands, given, strict=True)))
    if any(isinstance(value, Constant) or is_tensor(value) for value in named.values()):
        return _UNKNOWN
    with np.errstate(all="ignore"):
        return np.asarray(op.forward(*[named[p] for p in op.positional], **{p: named[p] for p in op.keyword}))
