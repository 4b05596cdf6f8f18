"""What to follow through time: the states of every layer and direction, and the values that a step has names for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.tape import Constant, Record
from ..core.tensor import is_tensor
from ..drawing.reading import Lane, Reading
from ..errors import DtypeError, TapeError
from ..nn.module import Module
from ..replay.expanding import Expanded


@dataclass(eq=False)
class Path:
    """One value at all of its steps: ``records`` by the number of the step, counted from 0, None where nothing reads it; ``backwards`` where time runs down."""

    name: str
    backwards: bool = False
    records: dict[int, Record | None] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """The steps in the order in which they ran."""
        return sorted(self.records, reverse=self.backwards)


def state_paths(what: str, tape: Expanded, states: Any = None) -> list[Path]:
    """The paths of all states, of those of a module, or of the tensors that ``states`` names.

    Raises ``TapeError`` where there is no time step, or a tensor is no part of the tape.
    """
    if states is not None and not isinstance(states, Module):
        return list(_chosen(what, tape, states))
    reading = Reading(tape)
    lanes = reading.lanes if states is None else _of_module(what, reading, states)
    paths = [path for lane in lanes for path in _states(reading, lane, state_title(reading, lane))]
    if not paths:
        raise TapeError(
            f"{what}: no time steps are to be seen on the tape; run the loop with tg.unroll or in tg.scope('step', step=t), or name the tensors to follow: states=[...]"
        )
    return paths


def labelled_paths(reading: Reading) -> list[Path]:
    """The values that have a name within a step, such as gates, in the order in which a step computes them."""
    found: dict[tuple[Lane, str], Path] = {}
    for lane in reading.lanes:
        for column, members in lane.groups.items():
            for record in members:
                if record.name:
                    key = lane, _plain(record.name)
                    found.setdefault(key, Path(f"{state_title(reading, lane)} {key[1]}", lane.backwards)).records[column] = record
    return list(found.values())


def state_title(reading: Reading, lane: Lane) -> str:
    """A lane's name without what the names of all have in common."""
    every = [other.key[0] for other in reading.lanes]
    common = 0
    while all(len(names) > common + 1 and names[common] == every[0][common] for names in every):
        common += 1
    return "/".join(lane.key[0][common:]) + (f".{lane.key[1] + 1}" if lane.key[1] else "")


def _of_module(what: str, reading: Reading, module: Module) -> list[Lane]:
    own = {id(p) for p in module.parameters()}
    found = [
        lane
        for lane in reading.lanes
        if any(id(leaf.tensor()) in own for members in lane.groups.values() for r in members for p in r.parents if p in reading.weights for leaf in reading.weights[p])  # type: ignore[attr-defined]
    ]
    if not found:
        raise TapeError(f"{what}: no step of the tape uses a parameter of this {type(module).__name__}")
    return found


def _states(reading: Reading, lane: Lane, title: str) -> Iterator[Path]:
    """What one step of a lane hands to the next, and the same at its last step."""
    order = sorted(lane.groups, reverse=lane.backwards)
    slots: dict[Any, dict[int, Record]] = {}
    for before, after in itertools.pairwise(order):
        read = {p for record in lane.groups[after] for p in record.parents if p is not None and _home(reading, p) == (lane, before)}
        for key, record in _slots(reading, {beneath_mask(reading, p) for p in read}):
            slots.setdefault(key, {})[before] = record
    last = order[-1]
    if len(order) == 1:
        members = lane.groups[last]
        leaving = {beneath_mask(reading, members[k]) for k in lane.exports[last]}
        slots = {key: {last: record} for key, record in _slots(reading, leaving)}
    if any(record.shape for found in slots.values() for record in found.values()):
        # A number that is carried along adds up a loss.
        slots = {key: found for key, found in slots.items() if any(record.shape for record in found.values())}
    for key, found in slots.items():
        if last not in found and (end := _same(lane.groups[last], key, next(reversed(found.values())), reading)) is not None:
            found[last] = end
    usual = iter(["h"] if len(slots) == 1 else ["c", "h"] if len(slots) == 2 else [f"s{k + 1}" for k in range(len(slots))])
    for key, found in sorted(slots.items(), key=lambda slot: reading.place[next(iter(slot[1].values()))][2]):
        default = next(usual)
        yield Path(f"{title} {key if isinstance(key, str) else default}", lane.backwards, {column: found.get(column) for column in order})


def _home(reading: Reading, record: Record) -> tuple[Lane, int] | None:
    """The lane and the column of a record."""
    place = reading.place.get(record)
    return None if place is None else place[:2]


def _slots(reading: Reading, records: Iterable[Record]) -> Iterator[tuple[Any, Record]]:
    """The states of a step, each with what tells it from the others: its name, or its place among those without one."""
    unnamed = itertools.count()
    ordered = sorted(records, key=lambda r: r.index)
    plain = [_plain(r.name) for r in ordered if r.name]
    for record in ordered:
        name = record.name
        if name and plain.count(_plain(name)) == 1:
            name = _plain(name)
        yield name or next(unnamed), record


def _same(members: list[Record], key: Any, example: Record, reading: Reading) -> Record | None:
    """The record of a step that is what another step's record is: of the same name, or in the same place."""
    if isinstance(key, str):
        named = [r for r in members if r.name and key in (r.name, _plain(r.name))]
        return named[-1] if named else None
    k = reading.place[example][2]
    return members[k] if k < len(members) and members[k].op is example.op and members[k].shape == example.shape else None


def _plain(name: str) -> str:
    """A name without the number of its step."""
    return re.sub(r"(?<=.)_?\d+$", "", name)


def mask_of(record: Record) -> bool:
    """Whether a record chooses whole rows of the batch, as an unroll with lengths does to keep the state of a sequence that ended."""
    if record.is_leaf or record.op.name != "where" or record.constants is None:
        return False
    condition = record.constants[0]
    return isinstance(condition, Constant) and condition.dtype.kind == "b" and condition.shape[1:] == (1,) * (len(record.shape) - 1) and condition.shape[:1] == record.shape[:1]


def beneath_mask(reading: Reading, record: Record) -> Record:
    """What the step itself computed, where lengths mask it."""
    while mask_of(record):
        inner = record.parents[1]
        if inner is None or _home(reading, inner) != _home(reading, record):
            break
        record = inner
    return record


def _chosen(what: str, tape: Expanded, states: Any) -> Iterator[Path]:
    """Paths of the tensors that a user names: one, whose first axis is time or which is one step, a list with one a step, or a dict of such."""
    named = states if isinstance(states, dict) else {_called(states): states}
    known = set(tape.records)
    for name, given in named.items():
        tensors = [given] if is_tensor(given) else list(given) if isinstance(given, list | tuple) else None
        if not tensors or not all(map(is_tensor, tensors)):
            raise DtypeError(f"{what}: states must be tensors, a dict of them or a module, got {type(given).__name__} for {name!r}")
        records = []
        for k, tensor in enumerate(tensors):
            record = None if tensor._node is None else tape.stands_for.get(tensor._node, tensor._node)
            if record is None or record not in known:
                raise TapeError(f"{what}: the loss does not depend on tensor {k} of {name!r}" + ("" if tensor._node is not None else ", which needs no gradient"))
            records.append(record)
        if len(records) == 1 and not records[0].is_leaf and records[0].op.name == "stack" and records[0].static[:1] == (0,):
            yield Path(name, False, dict(enumerate(records[0].parents)))
        else:
            yield Path(name, False, dict(enumerate(records)))


def _called(states: Any) -> str:
    first = states[0] if isinstance(states, list | tuple) and states else states
    name = getattr(first, "name", None)
    return _plain(name) if isinstance(name, str) else "states"


def masked_rows(tape: Expanded, reading: Reading, operands: dict[tuple[Record, int], Any]) -> dict[tuple[Lane, int], np.ndarray]:
    """Which sequences of the batch a step belongs to, where lengths say that some have ended: booleans by lane and column."""
    return {reading.place[r][:2]: np.asarray(operands[r, 0]).reshape(-1) for r in tape.records if r in reading.place and mask_of(r) and (r, 0) in operands}
