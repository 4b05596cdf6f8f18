"""One step as a sketch: its records merged into boxes as a reader would draw them, with slices as ports."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.tape import Constant, Record
from .reading import VIEWS, Reading

SYMBOLS = {
    "add": "+", "subtract": "−", "multiply": "⊙", "divide": "÷", "matmul": "@", "negative": "−", "sigmoid": "σ", "sum": "Σ", "concatenate": "concat",
    "power": "^", "dot": "@", "maximum": "max", "minimum": "min", "getitem": "slice", "embedding": "embed", "multiply_add": "+",
    "cross_entropy": "cross-entropy", "log_softmax": "log softmax", "binary_cross_entropy_with_logits": "cross-entropy",
}  # fmt: skip
UNARY = frozenset("sigmoid tanh relu exp softplus leaky_relu elu gelu silu negative sin cos sqrt square log abs".split())
Source = tuple[Any, ...]
"""Where an edge begins: ("box", k, port), ("step", lane number, columns later, place in its step), ("outside", record, index),
("constant", descriptor) or ("start", state), the first value of a state that needs no gradient."""


@dataclass(slots=True)
class Field:
    """One port of a split: the slice's place in its step, or where an activation follows at once, the activation's."""

    which: int
    label: str
    members: list[int]
    operations: list[str]


@dataclass(slots=True)
class Box:
    """One box of a step: its records by their places in the step, the last of them the one whose value it gives."""

    kind: str
    op: str
    label: str
    which: int
    members: list[int]
    weights: list[tuple[Record, int, int]] = field(default_factory=list)
    frozen: list[Constant] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    name: str | None = None
    state: int | None = None


@dataclass(slots=True)
class Line:
    """An edge of a step: into box ``head``, read by the record at ``reader`` as its operand ``position``."""

    source: Source
    head: int
    reader: int
    position: int
    shape: tuple[int, ...]
    tracked: bool = True


@dataclass(slots=True)
class Sketch:
    boxes: list[Box]
    lines: list[Line]
    where: dict[int, tuple[int, int | None]]
    """For the place of a record in its step: its box and port."""


class Sketcher:
    """Sketches a list of records, ``keep`` being those whose values are read elsewhere."""

    def __init__(self, reading: Reading, records: Sequence[Record], keep: Iterable[int], column: int | None, lane: Any = None, raw: bool = False) -> None:
        self.reading, self.records, self.keep, self.column, self.lane, self.raw = reading, records, set(keep), column, lane, raw
        self.number = {record: k for k, record in enumerate(records)}
        self.users: list[list[tuple[int, int]]] = [[] for _ in records]
        self.sources: list[list[Source | None]] = []
        for k, record in enumerate(records):
            row: list[Source | None] = []
            for position, parent in enumerate(record.parents):
                source = self._source(record, position, parent)
                row.append(source)
                if source is not None and source[0] == "local":
                    self.users[source[1]].append((k, position))
            self.sources.append(row)
        self.sketch = Sketch([], [], {})
        self.skipped: dict[int, int] = {}
        self.absorbed: set[int] = set()
        self.splits: dict[int, list[Field]] = {}
        self.through: dict[int, int] = {}
        self.activated: dict[int, list[Field]] = {}

    def _source(self, record: Record, position: int, parent: Record | None) -> Source | None:
        reading = self.reading
        if parent is None:
            constant = None if record.constants is None else record.constants[position]
            return ("constant", constant) if isinstance(constant, Constant) and constant.shape else None
        if parent in reading.weights:
            return ("weight", parent)
        source, index = (parent, None) if parent in reading.place else reading.resolve(parent)
        if not isinstance(source, Record):
            return ("constant", source)
        if source in self.number:
            return ("local", self.number[source])
        if source in reading.place:
            lane, column, which = reading.place[source]
            return ("step", lane.number, column - (self.column or 0), which)
        if source in reading.weights:
            return ("weight", source)
        return ("outside", source, index)

    def run(self) -> Sketch:
        if not self.raw:
            self._merge()
        boxes, where = self.sketch.boxes, self.sketch.where
        for k, record in enumerate(self.records):
            if k in self.absorbed or k in self.skipped:
                continue
            if k in self.activated:
                fields = self.activated[k]
                where.update({f.which: (len(boxes), j) for j, f in enumerate(fields)})
                boxes.append(Box("split", "split", "", k, sorted({m for f in fields for m in f.members}), fields=fields))
                continue
            members = [*(j for j, into in self.skipped.items() if self._into(into) == k), k]
            box = Box("input", "leaf", "", k, members, name=record.name) if record.is_leaf else Box("op", record.op.name, "", k, members, name=record.name)
            where[k] = len(boxes), None
            boxes.append(box)
            split = self.splits.get(k)
            if split:
                where.update({f.which: (len(boxes), j) for j, f in enumerate(split)})
                boxes.append(Box("split", "split", "", k, [m for f in split for m in f.members], fields=split))
                self.sketch.lines.append(Line(("box", len(boxes) - 2, None), len(boxes) - 1, k, -1, record.shape))
        for k in self.skipped:
            where[k] = where[self._into(k)]
        for number, box in enumerate(boxes):
            if box.kind == "op":
                self._connect(number, box)
            elif self.activated_root(box):
                self._connect(number, box, [box.which])
        return self.sketch

    def _into(self, k: int) -> int:
        while k in self.skipped:
            k = self.skipped[k]
        return k

    def _merge(self) -> None:
        """What is not a box of its own: views, additions within an addition, slices, and activations of slices."""
        for k, record in enumerate(self.records):
            if record.is_leaf:
                continue
            source = self.sources[k][0] if record.op.name in VIEWS and self.column is not None and k not in self.keep else None
            if source is not None and source[0] == "local":
                self.through[k] = source[1]
                self.absorbed.add(k)
        for k, record in enumerate(self.records):
            if k in self.absorbed or record.is_leaf:
                continue
            fields = self._fields(k)
            if fields and record.op.name in UNARY and self.column is not None:
                # An activation that is only read in slices is written on them.
                word = SYMBOLS.get(record.op.name, record.op.name)
                fields = [Field(f.which, f.label, [k, *f.members], [word, *f.operations]) for f in fields]
                self.activated[k] = fields
                self.absorbed.update(m for f in fields for m in f.members if m != k)
            elif fields:
                self.splits[k] = fields
                self.absorbed.update(m for f in fields for m in f.members)
            users = self.users[k]
            if record.op.name == "add" and k not in self.keep and len(users) == 1 and record.name is None and not fields:
                reader = self.records[users[0][0]]
                if reader.op.name == "add" and reader.shape == record.shape and self.column is not None:
                    self.skipped[k] = users[0][0]

    def _fields(self, k: int) -> list[Field]:
        """The slices that a value is read as, if nothing reads it otherwise and they do not overlap."""
        users = self.users[k]
        if k in self.keep or len(users) < 2 or len({j for j, _ in users}) != len(users):
            return []
        parts: list[Any] = []
        for j, position in users:
            extent = _extent(self.records[j], self.records[k].shape) if position == 0 else None
            if extent is None:
                return []
            parts.append((extent, j))
        if len({axis for (axis, _, _), _ in parts}) != 1:
            return []
        parts.sort()
        if any(a[0][2] > b[0][1] for a, b in itertools.pairwise(parts)):
            return []
        return [f for (_, start, stop), j in parts for f in self._field(j, start, stop)]

    def _field(self, j: int, start: int, stop: int) -> list[Field]:
        members, operations, which = [j], [], j
        while which not in self.keep and len(self.users[which]) == 1 and self.records[which].name is None:
            after = self.users[which][0][0]
            if self.records[after].op.name not in UNARY:
                break
            which = after
            members.append(which)
            operations.append(SYMBOLS.get(self.records[which].op.name, self.records[which].op.name))
        inner = self._fields(which)
        if inner:
            return [Field(f.which, f.label, [*members, *f.members], [*operations, *f.operations]) for f in inner]
        record = self.records[which]
        label = record.name or next((self.records[m].name for m in reversed(members) if self.records[m].name), None) or ""
        return [Field(which, label or f"{start}:{stop}", members, operations)]

    def activated_root(self, box: Box) -> bool:
        return box.kind == "split" and box.which in self.activated

    def _connect(self, number: int, box: Box, readers: Sequence[int] = ()) -> None:
        words: list[str] = []
        seen: set[Any] = set()
        for k in readers or box.members:
            record = self.records[k]
            for position, source in enumerate(self.sources[k]):
                if source is None:
                    words += [] if self.raw or record.op.name in ("getitem", "where", "clip") else _scalar(record, position)
                    continue
                while source[0] == "local" and source[1] in self.through:
                    source = ("local", self.through[source[1]])
                if source[0] == "local" and source[1] in self.skipped and self._into(source[1]) == box.which:
                    continue
                if source[0] == "weight":
                    box.weights.append((source[1], k, position))
                    continue
                shape = record.parents[position].shape if record.parents[position] is not None else source[1].shape  # type: ignore[union-attr]
                if source[0] == "constant":
                    if id(source[1]) in self.reading.frozen:
                        box.frozen.append(source[1])
                        continue
                    if (id(source[1]), "constant") in seen:
                        continue
                    seen.add((id(source[1]), "constant"))
                    self.sketch.lines.append(Line(source, number, k, position, shape, tracked=False))
                    continue
                if source[0] == "local":
                    home, port = self.sketch.where[source[1]]
                    source = ("box", home, port)
                self.sketch.lines.append(Line(source, number, k, position, shape))
        box.label = " ".join([SYMBOLS.get(box.op, box.op.replace("_", " ")), *words])


def by_module(sketch: Sketch, reading: Reading) -> Sketch:
    """The sketch of what runs outside of the steps, with the boxes of each call of a module as one, where they follow each other with no steps between."""
    records, level = reading.outside, _levels(reading)
    boxes: list[Box] = []
    into: list[int] = []
    for box in sketch.boxes:
        path = records[box.which].scope
        last = boxes[-1] if boxes else None
        if last is None or not path or records[last.which].is_leaf or records[last.which].scope != path or level[records[last.which]] != level[records[box.which]]:
            boxes.append(Box(box.kind, box.op, box.label, box.which, list(box.members), list(box.weights), list(box.frozen), box.fields, box.name))
            if path and box.kind == "op":
                boxes[-1].kind, boxes[-1].label = "cell", f"{path[-1][0]}: {box.label}"
        else:
            last.members += box.members
            last.weights += box.weights
            last.frozen += box.frozen
            last.which, last.fields, last.name = box.which, [], None
        into.append(len(boxes) - 1)
    lines = []
    for line in sketch.lines:
        head, source = into[line.head], line.source
        if source[0] == "box":
            source = ("box", into[source[1]], None)
        if source[:2] != ("box", head):
            lines.append(Line(source, head, line.reader, line.position, line.shape, line.tracked))
    return Sketch(boxes, lines, {k: (into[home], None) for k, (home, _) in sketch.where.items()})


def _levels(reading: Reading) -> dict[Record | None, int]:
    """How often what a record is made of went into steps and came out: odd outside, even in a step."""
    outside = set(reading.outside)
    level: dict[Record | None, int] = {}
    for record in reading.tape.records:
        found = 0 if record.is_leaf else max([level.get(parent, 0) for parent in record.parents], default=0)
        level[record] = found + found % 2 if record in reading.place else found | 1 if record in outside else found
    return level


def _scalar(record: Record, position: int) -> list[str]:
    """A plain number among the operands, as text."""
    constant = record.constants[position] if record.constants is not None else None
    if isinstance(constant, int | float) and not isinstance(constant, bool) and record.op.name in ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum"):
        return [f"{constant:.3g}" if math.isfinite(constant) else str(constant)]
    return []


def _extent(record: Record, shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The axis, start and end of a slice along one axis, if the record is one."""
    if record.op.name != "getitem":
        return None
    index = (record.constants or (None, None))[1]
    parts = index if isinstance(index, tuple) else (index,)
    if any(not (part is Ellipsis or type(part) is slice) for part in parts):
        return None
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts = (*parts[:at], *[slice(None)] * (len(shape) - len(parts) + 1), *parts[at + 1 :])
    found = None
    for axis, part in enumerate(parts):
        if part == slice(None):
            continue
        start, stop, step = part.indices(shape[axis])
        if found is not None or step != 1:
            return None
        found = (axis, start, stop)
    return found
