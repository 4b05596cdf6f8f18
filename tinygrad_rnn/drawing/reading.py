"""Reading a tape: which records are one step of what, and which steps are the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.tape import Constant, Record
from ..replay.expanding import Expanded


def _long(record: Record) -> list[int]:
    """The axes that are longer than 1."""
    return [n for n in record.shape if n != 1]


VIEWS = frozenset("transpose swapaxes expand_dims squeeze moveaxis astype copy broadcast_to positive".split())
LaneKey = tuple[Any, ...]


@dataclass(slots=True, eq=False)
class Lane:
    """One cell at all of its steps: a layer, or one direction of it."""

    key: LaneKey
    steps: dict[Any, list[Record]] = field(default_factory=dict)
    number: int = 0
    states: list[int] = field(default_factory=list)
    """Which records of a step the next one reads, by their place in the step."""
    backwards: bool = False
    signatures: dict[int, Any] = field(default_factory=dict)
    usual: int = 0
    """How many records most steps have. Steps with fewer, as a first one whose state needs no gradient, number theirs otherwise."""
    groups: dict[int, list[Record]] = field(default_factory=dict)
    """The records of each step, by column."""
    exports: dict[int, set[int]] = field(default_factory=dict)
    leaving: dict[int, set[Any]] = field(default_factory=dict)
    reads: set[tuple[int, int]] = field(default_factory=set)
    """Which other lanes it reads, and how many columns later than its own."""

    @property
    def path(self) -> str:
        return "/".join(self.key[0])


class Reading:
    """The records of a tape, sorted into lanes, steps, parameters and the rest."""

    def __init__(self, tape: Expanded, merge: bool = True) -> None:
        self.tape, self.merge = tape, merge
        self.weights: dict[Record, tuple[Record, ...]] = {}
        """Records that depend on parameters alone, with the leaves that they are made of."""
        self.place: dict[Record, tuple[Lane, int, int]] = {}
        self.frozen: dict[int, Constant] = {}
        self._lanes()
        self._parameters()
        self._columns()
        self._outside()
        self._encode()

    def _lanes(self) -> None:
        """Each record's lane and step. The same scope entered again at a step that was left is another lane."""
        lanes: dict[LaneKey, Lane] = {}
        calls: dict[tuple[str, ...], int] = {}
        now: dict[tuple[str, ...], Any] = {}
        split: dict[Any, Any] = {}
        self.lanes: list[Lane] = []
        state: Any = None
        members: list[Record] | None = None
        home: Any = None
        self.home: dict[Record, tuple[Lane, Any]] = {}
        for record in self.tape.records:
            if record.is_leaf:
                continue
            if record.state is state:
                if members is not None:
                    members.append(record)
                    self.home[record] = home
                continue
            state, members = record.state, None
            scope = state.scope
            found = split.get(scope)
            if found is None:
                steps = tuple([step for _, step in scope if step is not None])
                last = max((k for k, (_, step) in enumerate(scope) if step is not None), default=-1)
                found = split[scope] = (tuple([name for name, _ in scope[: last + 1]]), steps)
            names, step = found
            if not step:
                continue
            key = (names, calls.setdefault(names, 0))
            lane = lanes.get(key)
            if lane is not None and now[names] != step and step in lane.steps:
                calls[names] += 1
                key, lane = (names, calls[names]), None
            if lane is None:
                lane = lanes[key] = Lane(key, number=len(self.lanes))
                self.lanes.append(lane)
            now[names] = step
            members = lane.steps.get(step)
            if members is None:
                members = lane.steps[step] = []
            members.append(record)
            home = self.home[record] = (lane, step)
        self.found = False
        if not self.lanes:
            self._find_time()

    def _find_time(self) -> None:
        """Steps where no scope tells of any: a loop is a piece of the tape that repeats, operand by operand, with the same weights."""
        records = [r for r in self.tape.records if not r.is_leaf]
        number = {r: k for k, r in enumerate(records)}
        last: dict[Record, int] = {}
        apart: dict[int, int] = defaultdict(int)
        for k, record in enumerate(records):
            for parent in record.parents:
                if parent is not None and (parent.is_leaf or all(p is None or p.is_leaf for p in parent.parents)):
                    if parent in last and k > last[parent]:
                        apart[k - last[parent]] += 1
                    last[parent] = k
        if not apart:
            return
        period = max(apart, key=lambda p: (apart[p], -p))
        codes: list[Any] = []
        for k, record in enumerate(records):
            operands = [
                _coded(c) if p is None else (p if p.is_leaf or number[p] < k - 2 * period else k - number[p])
                for p, c in zip(record.parents, record.constants or record.parents, strict=True)
            ]
            codes.append((record.op, record.shape, tuple(operands)))
        best, run, end = 0, 0, 0
        for k in range(len(records) - period):
            run = run + 1 if codes[k] == codes[k + period] else 0
            if run > best:
                best, end = run, k + 1
        start = end - best
        while start > 0 and codes[start - 1][:2] == codes[start - 1 + period][:2]:
            start -= 1
        steps = (end + period - start) // period
        if steps < 3 or best < period:
            return
        lane = Lane((("step",), 0))
        self.lanes.append(lane)
        self.found = True
        for t in range(steps):
            lane.steps[(t,)] = records[start + t * period : start + (t + 1) * period]
            self.home.update(dict.fromkeys(lane.steps[(t,)], (lane, (t,))))

    def _parameters(self) -> None:
        """Which leaves are parameters, and what is made of them alone outside of the steps."""
        made: dict[Record | None, tuple[Record, ...]] = {}
        readers: list[Record] = []
        uses: dict[Record, list[tuple[Record, int]]] = defaultdict(list)
        for record in self.tape.records:
            if record.is_leaf:
                made[record] = (record,)
                continue
            if made.keys().isdisjoint(record.parents):
                continue
            read = [parent for parent in record.parents if parent in made]
            leaves = [leaf for parent in read for leaf in made[parent]]
            outside = record not in self.home or (len(leaves) == 1 and record.op.name in (*VIEWS, "reshape", "getitem"))
            if outside and len(read) + record.parents.count(None) == len(record.parents) and not any(map(_is_array, record.constants or ())) and record not in self.tape.roots:
                made[record] = tuple(dict.fromkeys(leaves))
                continue
            readers.append(record)
            for k, parent in enumerate(record.parents):
                if parent in made:
                    for leaf in made[parent]:
                        uses[leaf].append((record, k))
        weights = {leaf for leaf in made if leaf is not None and leaf.is_leaf and uses[leaf] and (len(uses[leaf]) > 1 or not _looks_like_input(leaf, *uses[leaf][0]))}
        self.weights = {record: leaves for record, leaves in made.items() if record is not None and weights.issuperset(leaves)}
        # What is made of weights alone, and read by what reads nothing else, is a computation like any other.
        plain: set[Record] = set()
        for record in sorted({*readers, *self.weights}, key=lambda r: -r.index):
            if record in plain and not record.is_leaf:
                self.weights.pop(record, None)
            if record not in self.weights and all(p is None or p in self.weights for p in record.parents) and not any(map(_is_array, record.constants or ())):
                plain.update(p for p in record.parents if p is not None)
                readers.append(record)
        self.readers = [record for record in dict.fromkeys(readers) if record not in self.weights]
        """The records that read a weight."""

    def _columns(self) -> None:
        """The steps of all lanes in order of time, as columns; parts of a step's number that never change are dropped."""
        self.times: list[Any] = []
        every: set[Any] = set()
        for lane in self.lanes:
            keys = list(lane.steps)
            changing = [k for k in range(len(keys[0])) if len({key[k] for key in keys}) > 1] or [len(keys[0]) - 1]
            renamed = {key: tuple([key[k] for k in changing]) for key in keys}
            if len(set(renamed.values())) == len(keys):
                lane.steps = {renamed[key]: members for key, members in lane.steps.items()}
            every.update(lane.steps)
        self.times = sorted(every)
        self.column = {time: k for k, time in enumerate(self.times)}
        for lane in self.lanes:
            for time, members in lane.steps.items():
                column = self.column[time]
                local = [r for r in members if r not in self.weights]
                lane.groups[column] = local
                lane.exports[column] = set()
                lane.leaving[column] = set()
                for k, record in enumerate(local):
                    self.place[record] = (lane, column, k)
            counts = Counter(map(len, lane.groups.values()))
            lane.usual = max(counts, key=lambda n: (counts[n], n))

    def resolve(self, record: Record) -> tuple[Any, Any]:
        """Where a value outside of the steps comes from: through views, and through a stack to the step whose value is read; and the index read."""
        index: Any = None
        while record not in self.place and record not in self.weights and not record.is_leaf:
            op, parent = record.op.name, record.parents[0]
            if not self.merge:
                break
            if op == "stack" and len(record.parents) == 1:
                record = parent  # type: ignore[assignment]
            elif op == "getitem" and type(record.constants[1]) is int and parent is not None and index is None:  # type: ignore[index]
                k = record.constants[1]  # type: ignore[index]
                source, before = self.resolve(parent)
                if isinstance(source, Record) and before is None and source not in self.place and not source.is_leaf and source.op.name == "stack" and source.static[:1] == (0,):
                    part = source.parents[k]
                    if part is None:
                        return (source.constants or ())[k], None
                    record = part
                else:
                    record, index = source, k if before is None else (before, k)
                    break
            elif parent is not None and (op in VIEWS or (op == "reshape" and _long(record) == _long(parent))):
                record = parent
            else:
                break
        return record, index

    def _outside(self) -> None:
        """The records outside of all steps that the picture needs, in execution order."""
        seen: set[Record] = set()
        queue: list[Any] = [self.resolve(root)[0] for root in self.tape.roots]
        self.roots = list(queue)
        resolved: dict[Record, Any] = {}
        for record in self.place:
            for parent in record.parents:
                if parent is not None and parent not in self.place and parent not in self.weights and parent not in resolved:
                    resolved[parent] = self.resolve(parent)[0]
        queue += resolved.values()
        while queue:
            record = queue.pop()
            if not isinstance(record, Record) or record in seen or record in self.place or record in self.weights:
                continue
            seen.add(record)
            queue += [self.resolve(p)[0] for p in record.parents if p is not None]
        self.outside = sorted(seen, key=lambda record: record.index)

    def _encode(self) -> None:
        """What each step is: its operations with their operands in order, seen from the step itself."""
        place, weights = self.place, self.weights
        constants: dict[int, Any] = {}
        keep: list[Any] = []
        shared: dict[int, tuple[Any, int]] = {}
        for lane in self.lanes:
            read: list[tuple[int, int, int]] = []
            for column, local in lane.groups.items():
                coded = []
                for record in local:
                    code: list[Any] = [record.op, record.shape, record.static and _coded(record.static)]
                    told = record.constants
                    for k, parent in enumerate(record.parents):
                        if parent is None:
                            constant = told[k] if told is not None else None
                            if type(constant) is Constant:
                                code.append((constant.shape, constant.dtype))
                                first = shared.setdefault(id(constant), (constant, column))
                                if first[1] != column and constant.name:
                                    self.frozen[id(constant)] = constant
                            else:
                                key = id(constant)
                                if key not in constants:
                                    constants[key] = _coded(constant)
                                    keep.append(constant)
                                code.append(constants[key])
                            continue
                        found = place.get(parent)
                        if found is None and parent not in weights:
                            source, index = self.resolve(parent)
                            if not isinstance(source, Record):
                                code.append((source.shape, source.dtype))
                                continue
                            found = place.get(source)
                            if found is None:
                                code.append((source, "t" if index == self.times[column][-1] else index))
                                continue
                            parent = source
                        if found is None:
                            code.append((parent,))
                        elif found[0] is lane and found[1] == column:
                            code.append(found[2])
                        else:
                            there, when, which = found
                            there.exports[when].add(which)
                            code.append((there.number, when - column, which))
                            if there is lane:
                                if which not in lane.states and abs(when - column) == 1 and len(local) == len(lane.groups[when]) == lane.usual:
                                    lane.states.append(which)
                                    lane.backwards = when > column
                                elif abs(when - column) == 1 and len(local) == lane.usual:
                                    read.append((column, when, which))
                            else:
                                lane.reads.add((there.number, when - column))
                    coded.append(tuple(code))
                lane.signatures[column] = tuple(coded)
            if not lane.states:
                # No two steps are whole: what the only whole one reads, by its own place for it.
                for column, when, which in read:
                    state = self.matched(lane, when, column).get(which)
                    if state is not None and state not in lane.states:
                        lane.states.append(state)
                        lane.backwards = when > column
        for record in self.outside:
            for parent in record.parents:
                self._leaves(parent, record)
        for root in self.roots:
            if root in place:
                lane, column, which = place[root]
                lane.exports[column].add(which)
                lane.leaving[column].add("output")
        for lane in self.lanes:
            lane.states.sort()

    def matched(self, lane: Lane, column: int, other: int) -> dict[int, int]:
        """For the records of a step those of a longer one that do the same, by place: from the last to the first, by operation, shape and weights."""
        short, whole = ([self._kind(record) for record in lane.groups[c]] for c in (column, other))
        found: dict[int, int] = {}
        j = len(whole)
        for k in range(len(short) - 1, -1, -1):
            like = next((i for i in range(j - 1, -1, -1) if whole[i] == short[k]), None)
            if like is not None:
                found[k] = j = like
        return found

    def _kind(self, record: Record) -> tuple[Any, ...]:
        return record.op, record.shape, tuple([self.weights[parent] for parent in record.parents if parent in self.weights])

    def _leaves(self, parent: Record | None, reader: Record) -> None:
        if parent is None or parent in self.weights:
            return
        source, _ = self.resolve(parent)
        found = self.place.get(source) if isinstance(source, Record) else None
        if found is not None:
            lane, column, which = found
            lane.exports[column].add(which)
            lane.leaving[column].add((which, reader))


def _is_array(constant: Any) -> bool:
    return isinstance(constant, Constant | np.ndarray) and len(constant.shape) > 0


def _looks_like_input(leaf: Record, reader: Record, position: int) -> bool:
    """A leaf that is read once, where an operation's input stands and not its weight."""
    tensor = leaf.tensor()  # type: ignore[attr-defined]
    if tensor is not None and tensor._is_parameter:
        return False
    if reader.op.name in ("matmul", "dot", "einsum", "conv2d", "embedding"):
        return position == 0 and reader.op.name != "embedding"
    parent = reader.parents[position]
    return len(reader.parents) == 1 or (parent is not None and parent.shape == reader.shape)


def _coded(value: Any) -> Any:
    """A static value as something that can be compared and hashed; arrays by shape and dtype alone."""
    kind = type(value)
    if kind is slice:
        return "slice", value.start, value.stop, value.step
    if kind is tuple or kind is list:
        return tuple([_coded(part) for part in value])
    if isinstance(value, np.ndarray | Constant):
        return "array", value.shape, value.dtype.str
    if kind is float:
        return repr(value)
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return kind, value
