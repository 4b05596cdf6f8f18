"""The steps of every lane, sketched and laid out, and which of them are drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.tape import Record
from .layout import Placed, StepLayout, text_width
from .naming import size
from .reading import Lane, Reading
from .sketch import Box, Line, Sketch, Sketcher

BOX, TALL, INPUT = 24.0, 36.0, 22.0


@dataclass(slots=True)
class Step:
    """The sketch of one step with its layout; ``rail`` tells which state a line brings, by its number."""

    sketch: Sketch
    rail: dict[int, int]
    placed: Placed


@dataclass(slots=True, eq=False)
class LaneView:
    """A lane as it is drawn."""

    lane: Lane
    names: dict[int, str]
    """The names of its states."""
    steps: dict[int, Step] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0
    rails: dict[int, float] = field(default_factory=dict)
    top: float = 0.0
    offset: float = 0.0

    @property
    def id(self) -> str:
        names, call = self.lane.key
        return str(names[-1]) + (f".{call + 1}" if call else "")

    def gap(self) -> tuple[float, float]:
        """The widest strip between the rails, or above or below them: from where to where."""
        levels = sorted(self.rails.values())
        gaps = zip([-20.0, *[y + 16 for y in levels]], [*[y - 16 for y in levels], self.height], strict=True)
        return max(gaps, key=lambda gap: gap[1] - gap[0])

    def x(self, x: float, width: float) -> float:
        """From a place in the layout to one in a column: a backward lane is mirrored."""
        return width - self.offset - x if self.lane.backwards else self.offset + x


class LaneReader:
    """Makes the view of a lane: one sketch for all steps that are the same, one layout for all that look the same."""

    def __init__(self, reading: Reading, lane: Lane, depth: str, norms: bool, symbol: dict[Record, str], rolled: bool) -> None:
        self.reading, self.lane, self.depth, self.norms, self.symbol = reading, lane, depth, norms, symbol
        self.keep: dict[int, set[int]] = {lane.usual: set(lane.states)}
        """The records that are read elsewhere, by their places in steps of so many records."""
        for column, exports in lane.exports.items():
            self.keep.setdefault(len(lane.groups[column]), set()).update(exports)
        self.sketches: dict[Any, Sketch] = {}
        self.layouts: dict[Any, Placed] = {}
        columns = sorted(lane.groups)
        whole = [column for column in columns if len(lane.groups[column]) == lane.usual]
        before = 1 if lane.backwards else -1
        # A step that is like most, and reads one that is.
        usual = [column for column in whole if len(lane.groups.get(column + before, ())) == lane.usual] or whole
        middle = usual[len(usual) // 2]
        self.middle = middle
        self.reference = self._sketch(middle)
        self.slots = self._slots(middle)
        self.view = LaneView(lane, self._names(middle))
        self.digits = "(t)" if rolled else "0" * len(str(len(reading.times)))
        self.rolled = rolled

    def _sketch(self, column: int) -> Sketch:
        key = self.lane.signatures[column]
        found = self.sketches.get(key)
        if found is None:
            records = self.lane.groups[column]
            found = Sketcher(self.reading, records, self.keep[len(records)], column, self.lane, raw=self.depth == "tape").run()
            if self.depth == "cell":
                found = _one_box(found, self.lane)
            self.sketches[key] = found
        return found

    def _slots(self, column: int) -> dict[tuple[int, int], int]:
        """Which operand, of which record, is which state."""
        found: dict[tuple[int, int], int] = {}
        for line in self.reference.lines:
            if line.source[:2] == ("step", self.lane.number) and abs(line.source[2]) == 1:
                there, state = column + line.source[2], line.source[3]
                if len(self.lane.groups[there]) < self.lane.usual:
                    state = self.reading.matched(self.lane, there, column).get(state)
                if state in self.lane.states:
                    found[line.reader, line.position] = state
        return found

    def _names(self, column: int) -> dict[int, str]:
        """States are called as the step called them, or as their first value without its 0; else h, or c and h, the one that is computed last being h."""
        states, records = self.lane.states, self.lane.groups[column]
        found = {state: records[state].name or self._first(state) for state in states if state < len(records)}
        usual = ["h"] if len(states) == 1 else ["c", "h"] if len(states) == 2 else []
        if any(found.values()) or not usual:
            usual = list("suvwpq"[: len(states)]) if len(states) < 7 else [f"s{k + 1}." for k in range(len(states))]
        names: dict[int, str] = {}
        for k, state in enumerate(states):
            name = found.get(state) or usual[k]
            names[state] = name if name not in names.values() else f"{name}{k + 1}"
        return names

    def _first(self, state: int) -> str | None:
        """What the first value of a state is called."""
        column = max(self.lane.groups) if self.lane.backwards else min(self.lane.groups)
        records = self.lane.groups[column]
        short = len(records) < self.lane.usual
        home = {like: k for k, like in self.reading.matched(self.lane, column, self.middle).items()} if short else {k: k for k in range(len(records))}
        for (reader, position), which in self.slots.items():
            if which == state and reader in home:
                operands = records[home[reader]].operands
                name = getattr(operands[position], "name", None) if position < len(operands) else None
                if name:
                    return re.sub(r"(?<=.)_?0$", "", name)
        return None

    def makers(self, column: int) -> dict[int, int]:
        """For each state the record that makes it, by its place in this step: that of most steps, or what the next step reads."""
        lane = self.lane
        if len(lane.groups[column]) == lane.usual:
            return {state: state for state in lane.states}
        after = column + (-1 if lane.backwards else 1)
        if len(lane.groups.get(after, ())) != lane.usual:
            return {}
        lines = [line for line in self._sketch(after).lines if line.source[:2] == ("step", lane.number) and after + line.source[2] == column]
        return {self.slots[line.reader, line.position]: line.source[3] for line in lines if (line.reader, line.position) in self.slots}

    def states(self, column: int) -> dict[int, str]:
        """The names of the states that a step makes, by the place of the record in it."""
        return {which: self.view.names[state] for state, which in self.makers(column).items()}

    def rails(self, sketch: Sketch, column: int) -> dict[int, int]:
        """The state that each line brings, where it brings one."""
        found: dict[int, int] = {}
        if len(self.lane.groups[column]) != self.lane.usual:
            for number, line in enumerate(sketch.lines):
                if line.source[:2] == ("step", self.lane.number) and abs(line.source[2]) == 1:
                    made = {which: state for state, which in self.makers(column + line.source[2]).items()}
                    if line.source[3] in made:
                        found[number] = made[line.source[3]]
            if column == (max(self.lane.groups) if self.lane.backwards else min(self.lane.groups)):
                like = self.reading.matched(self.lane, column, self.middle)
                for number, line in enumerate(sketch.lines):
                    state = self.slots.get((like.get(line.reader, -1), line.position))
                    if state is not None and line.source[0] in ("constant", "outside") and line.shape == self.lane.groups[self.middle][state].shape:
                        found[number] = state
            return found
        for number, line in enumerate(sketch.lines):
            state = self.slots.get((line.reader, line.position))
            if state is not None and line.source[0] not in ("box", "weight"):
                found[number] = state
        return found

    def step(self, column: int) -> Step:
        sketch = self._sketch(column)
        rail = self.rails(sketch, column)
        key = (
            tuple([(b.kind, b.op, b.label, b.name, len(b.weights), tuple([f.label for f in b.fields])) for b in sketch.boxes]),
            tuple(self.makers(column).items()),
            tuple([(line.head, line.source if line.source[0] == "box" else rail.get(k, line.source[0] == "constant")) for k, line in enumerate(sketch.lines)]),
        )
        placed = self.layouts.get(key)
        if placed is None:
            placed = self.layouts[key] = self._layout(sketch, rail, column)
        return Step(sketch, rail, placed)

    def _layout(self, sketch: Sketch, rail: dict[int, int], column: int) -> Placed:
        rails, makers, states, records = [], self.makers(column), self.states(column), self.lane.groups[column]
        for state in self.lane.states:
            maker = sketch.where.get(makers.get(state, -1))
            readers = sorted({sketch.lines[k].head for k, s in rail.items() if s == state})
            rails.append((state, None if maker is None else maker[0], readers))
        sizes = [self.size(box, states) for box in sketch.boxes]
        inputs = {k: (text_width(self.input_label(line, records), 10) + 22, INPUT) for k, line in enumerate(sketch.lines) if line.source[0] == "constant" and k not in rail}
        if self.depth == "cell":
            return _cell(sizes[0], inputs, self.lane.states)
        return StepLayout(sketch, sizes, rails, inputs, self._like(sketch, column)).placed

    def _like(self, sketch: Sketch, column: int) -> Placed | None:
        """Where the boxes of a step with fewer records than most stand in most, if all of them do."""
        if len(self.lane.groups[column]) >= self.lane.usual:
            return None
        usual, matched = self.step(self.middle), self.reading.matched(self.lane, column, self.middle)
        homes = [usual.sketch.where[matched[box.which]][0] for box in sketch.boxes if matched.get(box.which) in usual.sketch.where]
        return replace(usual.placed, boxes=[usual.placed.boxes[home] for home in homes]) if homes and len(set(homes)) == len(sketch.boxes) else None

    def input_label(self, line: Line, records: list[Record], time: str | None = None) -> str:
        return f"{input_name(line, records)}{self.digits if time is None else time} {size(line.source[1].shape)}"

    def label(self, box: Box, states: dict[int, str], time: str) -> str:
        """The first line of a box."""
        words = [box.label]
        words += [self.symbol[weight].rpartition(".")[2] for weight, _, _ in box.weights]
        words += [constant.name or "" for constant in box.frozen]
        if self.depth == "cell":
            return box.label
        state = states.get(box.which)
        if state is not None:
            words.append(state + time)
        elif box.name:
            words.append(box.name)
        return " ".join(words)

    def size(self, box: Box, states: dict[int, str]) -> tuple[float, float]:
        if box.fields:
            return max(38.0, max(text_width(field_label(f)) for f in box.fields) + 12) * len(box.fields), BOX
        tall = self.norms and box.which in states and self.depth != "cell"
        width = box_width(self.label(box, states, self.digits))
        if self.depth == "cell":
            return max(width, 74.0), 58.0
        return max(width, 46.0 if tall else BOX), TALL if tall else BOX

    def read(self, columns: list[int]) -> LaneView:
        """Lay out the given columns; the rails of all of them at the same height."""
        view = self.view
        for column in columns:
            if column in self.lane.groups:
                view.steps[column] = self.step(column)
        layouts = list(self.layouts.values())
        for state in sorted(self.lane.states, key=lambda s: min(p.rails[s] for p in layouts)):
            level = max(p.rails[state] for p in layouts)
            for placed in layouts:
                self._lower(placed, placed.rails[state], level - placed.rails[state])
            view.rails[state] = level
        view.width, view.height = max(p.width for p in layouts), max(p.height for p in layouts) + (14 if self.rolled else 0)
        return view

    @staticmethod
    def _lower(placed: Placed, below: float, by: float) -> None:
        if by <= 0:
            return
        placed.boxes = [(x, y + by if y >= below - 1 else y) for x, y in placed.boxes]
        placed.inputs = {k: (x, y + by) for k, (x, y) in placed.inputs.items()}
        placed.rails = {state: y + by if y >= below - 1 else y for state, y in placed.rails.items()}
        placed.height += by


def _cell(box: tuple[float, float], inputs: dict[int, tuple[float, float]], states: list[int]) -> Placed:
    """One box with all rails through it."""
    width, height = max(box[0], sum(w + 8 for w, _ in inputs.values())), max(box[1], 30.0 * len(states))
    placed = Placed([(18 + width / 2, 0.0)], [(box[0], height)], width=width + 36, height=height / 2 + (56 if inputs else 8))
    for k, state in enumerate(states):
        placed.rails[state] = (k + 0.5) * height / len(states) - height / 2
    left = 18 + width / 2 - sum(w for w, _ in inputs.values()) / 2
    for number, (w, _) in inputs.items():
        placed.inputs[number], placed.given[number] = (left + w / 2, height / 2 + 42), w
        left += w + 8
    return placed


def input_name(line: Line, records: Sequence[Record]) -> str:
    """What a constant is called: as the user called it, as the operation calls it, or by its kind."""
    constant = line.source[1]
    if constant.name:
        return str(constant.name)
    operand = records[line.reader].op.operand_name(line.position).partition("[")[0]
    if constant.dtype.kind == "b":
        return "mask"
    return operand if len(operand) > 3 and operand != "arrays" else "ids" if constant.dtype.kind in "iu" else "x"


def box_width(label: str) -> float:
    """How wide a box is: a single sign stands in a circle."""
    return BOX if len(label) < 2 else max(text_width(label) + 16, BOX)


def field_label(field: Any) -> str:
    return " ".join([field.label, *field.operations])


def _one_box(sketch: Sketch, lane: Lane) -> Sketch:
    """The sketch with all of its boxes as one."""
    members = sorted({m for box in sketch.boxes for m in box.members})
    last = max((box.which for box in sketch.boxes), default=0)
    one = Box("cell", "cell", lane.key[0][-1], last, members)
    for box in sketch.boxes:
        one.weights += box.weights
        one.frozen += box.frozen
    lines, seen = [], set()
    for line in sketch.lines:
        given = line.source[1] if line.source[0] == "constant" else None
        key = line.source if given is None else (given.name, given.shape, given.dtype.str)
        if line.source[0] != "box" and key not in seen:
            seen.add(key)
            lines.append(Line(line.source, 0, line.reader, line.position, line.shape, line.tracked))
    return Sketch([one], lines, dict.fromkeys(members, (0, None)))
