"""What is drawn where: blocks of steps side by side, what runs on all steps at once in bars between their lanes, everything else around them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from ..core.tape import Record
from .lanes import BOX, INPUT, TALL, LaneReader, LaneView, box_width, field_label, input_name
from .layout import layered, text_width
from .model import Point
from .naming import size
from .reading import Lane, Reading
from .sketch import Line, Sketcher, by_module

COLUMN_GAP, LANE_GAP, BAR, HEAD, ZONE, CHANNEL = 12.0, 40.0, 22.0, 30.0, 44.0, 8.0


@dataclass(slots=True, eq=False)
class Block:
    """Lanes that share their columns, with the operations between, below and above them that run on all steps at once."""

    lanes: list[LaneView]
    columns: list[int] = field(default_factory=list)
    shown: list[list[int]] = field(default_factory=list)
    """The columns that are drawn: one step each, or several that are folded."""
    bars: list[int] = field(default_factory=list)
    levels: list[Any] = field(default_factory=list)
    """Lanes and bars, the lowest first."""
    width: float = 0.0
    before: float = 0.0
    """Room on the left of each column for lines that pass lanes on their way up; the same on the right is what is over."""
    left: float = 0.0
    top: float = 0.0
    bottom: float = 0.0
    prefix: str = ""

    def x(self, position: int) -> float:
        return self.left + position * (self.width + COLUMN_GAP)

    @property
    def right(self) -> float:
        return self.x(len(self.shown)) - COLUMN_GAP


class Arrangement:
    """The places of everything in a picture."""

    def __init__(self, reading: Reading, depth: str, fold: Any, rolled: bool, norms: bool, symbol: dict[Record, str]) -> None:
        self.reading, self.depth, self.rolled, self.norms, self.symbol = reading, depth, rolled, norms, symbol
        self._blocks(fold)
        self._outside()
        self._place()

    # Blocks of lanes, and which of their steps are drawn

    def _blocks(self, fold: Any) -> None:
        reading = self.reading
        readers = [LaneReader(reading, lane, self.depth, self.norms, self.symbol, self.rolled) for lane in reading.lanes]
        self.readers = {reader.lane: reader for reader in readers}
        group = {lane: [lane] for lane in reading.lanes}

        def join(a: Lane, b: Lane) -> None:
            if group[a] is not group[b]:
                merged = group[a] + group[b]
                for lane in merged:
                    group[lane] = merged

        for lane in reading.lanes:
            for other in reading.lanes[: lane.number]:
                later = {step for n, step in lane.reads if n == other.number} | {-step for n, step in other.reads if n == lane.number}
                alike = other.key[0][:-1] == lane.key[0][:-1] and other.key[1] == lane.key[1] and set(other.groups) == set(lane.groups)
                if later == {0} or (alike and not later):
                    join(lane, other)
        self.blocks: list[Block] = []
        seen: set[int] = set()
        for lane in reading.lanes:
            if id(group[lane]) in seen:
                continue
            seen.add(id(group[lane]))
            block = Block([self.readers[member].view for member in sorted(group[lane], key=lambda m: m.number)])
            block.columns = sorted(set().union(*(view.lane.groups for view in block.lanes)))
            self.blocks.append(block)
        for k, block in enumerate(self.blocks):
            names = block.lanes[0].lane.key[0]
            block.prefix = "" if len(self.blocks) == 1 else f"{names[-2] if len(names) > 1 else names[-1]}{'' if k == 0 else f'.{k + 1}'}-"
            block.shown = self._shown(block, fold)
            for view in block.lanes:
                self.readers[view.lane].read([columns[0] for columns in block.shown if len(columns) == 1] + [columns[0] for columns in block.shown if len(columns) > 1])
                low, high = view.gap()
                if high - low < 40 and any(len(columns) > 1 for columns in block.shown):
                    view.height = max(view.rails.values(), default=0.0) + 16 + 40

    def _shown(self, block: Block, fold: Any) -> list[list[int]]:
        columns = block.columns
        if self.rolled:
            return [[columns[len(columns) // 2]]]
        boxes = sum(len(self.readers[view.lane].reference.boxes) + 1 for view in block.lanes) * len(columns)
        ends = 2 if fold in ("auto", None) else int(fold)
        if fold is None or len(columns) < 2 * ends + 2 or (fold == "auto" and boxes <= 150):
            return [[column] for column in columns]
        lanes = [view.lane for view in block.lanes]
        like = [tuple([(lane.number, lane.signatures[c], frozenset(lane.leaving[c])) for lane in lanes if c in lane.signatures]) for c in columns]
        classes: dict[Any, int] = {}
        kind = [classes.setdefault(key, len(classes)) for key in like]
        shown: list[list[int]] = []
        k = 0
        while k < len(columns):
            end = k
            while end + 1 < len(columns) - ends and kind[end + 1] == kind[k]:
                end += 1
            if k < ends or k >= len(columns) - ends or end == k:
                shown.append([columns[k]])
                k += 1
            else:
                shown.append(columns[k : end + 1])
                k = end + 1
        return shown

    # What runs outside of the steps

    def _outside(self) -> None:
        reading = self.reading
        self.rest = Sketcher(reading, reading.outside, [], None, raw=self.depth == "tape").run()
        if self.depth == "cell":
            self.rest = by_module(self.rest, reading)
        number_of = {record: k for k, record in enumerate(reading.outside)}
        self.box_of = {record: self.rest.where[k][0] for record, k in number_of.items()}
        block_of = {view.lane.number: block for block in self.blocks for view in block.lanes}
        self.view_of = {view.lane.number: view for block in self.blocks for view in block.lanes}
        self.block_of = block_of
        self._inline()
        self.into: dict[int, list[Line]] = defaultdict(list)
        users: dict[int, list[int]] = defaultdict(list)
        collects: dict[int, dict[Block, dict[int, set[int]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
        for line in self.rest.lines:
            self.into[line.head].append(line)
            if line.source[0] == "box":
                users[line.source[1]].append(line.head)
            elif line.source[0] == "step":
                collects[line.head][block_of[line.source[1]]][line.source[1]].add(line.source[2])
        feeds: dict[int, dict[Block, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.serves: dict[int, set[Block]] = defaultdict(set)
        for block in self.blocks:
            for view in block.lanes:
                for column, step in view.steps.items():
                    for line in step.sketch.lines:
                        if line.source[0] == "outside":
                            k = self.box_of[line.source[1]]
                            self.serves[k].add(block)
                            if line.source[2] is not None or self.rolled:
                                feeds[k][block].add(column)
        count = len(self.rest.boxes)
        behind: list[set[Block]] = [set() for _ in range(count)]
        for k in range(count):
            behind[k] |= {block for block, lanes in collects[k].items() if lanes}
            for line in self.into[k]:
                if line.source[0] == "box":
                    behind[k] |= behind[line.source[1]]
        ahead: list[set[Block]] = [set(self.serves[k]) for k in range(count)]
        for k in reversed(range(count)):
            for user in users[k]:
                ahead[k] |= ahead[user]
        self.bar: dict[int, Block] = {}
        for k in range(count):
            for block in self.blocks:
                most = max(map(len, collects[k][block].values()), default=0)
                collecting, feeding = most > 1 and 2 * most >= len(block.columns), len(feeds[k][block]) > 1 or (self.rolled and feeds[k][block])
                if collecting or feeding or (block in behind[k] and block in ahead[k]):
                    self.bar.setdefault(k, block)
        for k in reversed(range(count)):
            if (
                k not in self.bar
                and len(users[k]) == 1
                and users[k][0] in self.bar
                and not behind[k]
                and not any(line.source[0] == "box" for line in self.into[users[k][0]] if line.source[1] != k)
            ):
                self.bar[k] = self.bar[users[k][0]]
        self.zone: dict[int, int] = {}
        order = {block: k for k, block in enumerate(self.blocks)}
        for k in reversed(range(count)):
            if k in self.bar:
                continue
            if behind[k]:
                self.zone[k] = 1 + max(order[block] for block in behind[k])
            else:
                near = [order[block] for block in self.serves[k]] + [self.zone[u] if u in self.zone else order[self.bar[u]] for u in users[k]]
                self.zone[k] = min(near, default=0)
        for block in self.blocks:
            self._levels(block)

    def _inline(self) -> None:
        """A stack of all steps that only one operation reads is part of it."""
        lines, boxes = self.rest.lines, self.rest.boxes
        readers: dict[int, list[Line]] = defaultdict(list)
        for line in lines:
            if line.source[0] == "box":
                readers[line.source[1]].append(line)
        self.inlined: set[int] = set()
        for k, box in enumerate(boxes):
            steps = [line for line in lines if line.head == k]
            if box.op != "stack" or self.depth == "tape" or len(steps) < 2 or any(line.source[0] != "step" for line in steps) or len(readers[k]) != 1:
                continue
            if any(self.box_of.get(line.source[1]) == k for view in self.view_of.values() for s in view.steps.values() for line in s.sketch.lines if line.source[0] == "outside"):
                continue
            self.inlined.add(k)
            for line in steps:
                line.head = readers[k][0].head
            lines.remove(readers[k][0])

    def _levels(self, block: Block) -> None:
        """The lanes and bars of a block, from the lowest to the highest: each above what it reads."""
        items: list[Any] = [*block.lanes, *(k for k, home in self.bar.items() if home is block)]
        below: dict[Any, set[Any]] = {item: set() for item in items}
        for item in items:
            if isinstance(item, LaneView):
                for step in item.steps.values():
                    for line in step.sketch.lines:
                        if line.source[0] == "outside" and self.box_of[line.source[1]] in below:
                            below[item].add(self.box_of[line.source[1]])
                        elif line.source[0] == "step" and line.source[1] != item.lane.number and self.view_of[line.source[1]] in below:
                            below[item].add(self.view_of[line.source[1]])
            else:
                for line in self.into[item]:
                    if line.source[0] == "box" and line.source[1] in below:
                        below[item].add(line.source[1])
                    elif line.source[0] == "step" and self.view_of[line.source[1]] in below:
                        below[item].add(self.view_of[line.source[1]])
        left = list(items)
        while left:
            ready = [item for item in left if not below[item] & set(left)] or left[:1]
            lanes = [item for item in ready if isinstance(item, LaneView)]
            chosen = lanes[0] if lanes else ready[0]
            block.levels.append(chosen)
            left.remove(chosen)
        block.bars = [item for item in block.levels if not isinstance(item, LaneView)]

    # Places

    def rest_size(self, k: int) -> tuple[float, float]:
        box = self.rest.boxes[k]
        if box.fields:
            return max(38.0, max(text_width(field_label(f)) for f in box.fields) + 12) * len(box.fields), BOX
        return box_width(self.rest_label(k)), TALL if box.kind == "cell" and self.norms else BOX

    def rest_label(self, k: int) -> str:
        box = self.rest.boxes[k]
        if box.kind == "input":
            return f"{box.name or 'x'} {size(self.reading.outside[box.which].shape)}"
        words = [box.label, *(self.symbol.get(weight, "") for weight, _, _ in box.weights), *(c.name or "" for c in box.frozen)]
        return " ".join([*words, *([box.name] if box.name else [])])

    def _place(self) -> None:
        """Heights first, every block upwards from one line; then from left to right zones and blocks in turn."""
        self.bar_y: dict[int, float] = {}
        for block in self.blocks:
            y = 0.0
            lanes = [k for k, item in enumerate(block.levels) if isinstance(item, LaneView)]
            for k, item in enumerate(block.levels):
                if isinstance(item, LaneView):
                    block.bottom = y + 8 if k == lanes[0] else block.bottom
                    item.top = y - item.height - 22
                    y = item.top - 22 - (LANE_GAP - 22)
                    if k == lanes[-1]:
                        block.top = item.top - 24 - HEAD
                        # What leaves an earlier block passes over the bars of those after it.
                        y = block.top - 14 - (BAR + 18) * (len(self.blocks) - 1 - self.blocks.index(block))
                else:
                    y -= BAR / 2
                    self.bar_y[item] = y
                    y -= BAR / 2 + (20 if lanes and lanes[0] < k else 18)
            passing, inner = 3 if self.rolled else self._passing(block), max(view.width for view in block.lanes)
            if any(len(columns) > 1 for columns in block.shown):
                inner = max(inner, 150.0)
            block.before, block.width = CHANNEL * passing, inner + 2 * CHANNEL * passing
            for view in block.lanes:
                view.offset = block.before + (inner - view.width) / 2
        x = 0.0
        self.place: dict[int, Point] = {}
        self.fed: list[tuple[int, Line, str, tuple[float, float]]] = []
        for zone in range(len(self.blocks) + 1):
            members = sorted(k for k, z in self.zone.items() if z == zone and k not in self.inlined)
            x = self._zone(members, x)
            if zone < len(self.blocks):
                block = self.blocks[zone]
                x += self._margin(block, backwards=False)
                block.left = x
                x = block.right + self._margin(block, backwards=True) + ZONE

    @staticmethod
    def _passing(block: Block) -> int:
        """How many lanes have others between them and where their values go, or come from."""
        return max(0, len(block.lanes) - 1) if block.bars or len(block.lanes) > 2 else 0

    def _margin(self, block: Block, backwards: bool) -> float:
        """Room for the first states of a direction, and for what bars read."""
        found = [0.0]
        if not backwards:
            for k in block.bars:
                found.append(sum(text_width(self.input_label(line), 10) + 30 for line in self.into[k] if line.source[0] == "constant") + 8)
        for view in block.lanes:
            if view.lane.backwards is backwards and not self.rolled:
                found += [text_width(f"{name}00", 11) + 44 for name in view.names.values()]
        return max(found)

    def _zone(self, members: list[int], x: float) -> float:
        """Lay out what stands between two blocks, with the constants that it reads."""
        if not members:
            return x
        sizes: list[tuple[float, float]] = []
        edges: list[tuple[int, int]] = []
        wishes: list[float | None] = []
        what: list[Any] = []
        index = {k: j for j, k in enumerate(members)}
        inputs = [line for k in members for line in self.into[k] if line.source[0] == "constant"]
        for j, line in enumerate(inputs):
            label = self.input_label(line)
            sizes.append((text_width(label, 10) + 22, INPUT))
            wishes.append(None)
            what.append((line, label))
            edges.append((j, len(inputs) + index[line.head]))
        for k in members:
            sizes.append(self.rest_size(k))
            what.append(k)
            wish: list[float] = []
            for line in self.into[k]:
                if line.source[0] == "box" and line.source[1] in index:
                    edges.append((len(inputs) + index[line.source[1]], len(inputs) + index[k]))
                elif line.source[0] == "box" and line.source[1] in self.bar_y:
                    wish.append(self.bar_y[line.source[1]])
                elif line.source[0] == "step":
                    view = self.view_of[line.source[1]]
                    wish.append(view.top + 22 + view.rails.get(line.source[3], view.height / 2))
            for block in self.serves[k]:
                for view in block.lanes:
                    wish += [view.top + 22 + view.rails[s] for step in view.steps.values() for n, s in step.rail.items() if self._is_from(step.sketch.lines[n], k)]
            wishes.append(sum(wish) / len(wish) if wish else None)
        if not self.blocks:
            wishes = [None] * len(wishes)
        room = [0.0] * len(sizes)
        if not self.blocks:
            for j, k in enumerate(members, len(inputs)):
                room[j] = text_width(size(self.reading.outside[self.rest.boxes[k].which].shape), 9) + 16
        points = layered(len(sizes), edges, sizes, wishes, room, range(len(inputs)))
        for j, (px, py) in enumerate(points):
            if isinstance(what[j], int):
                self.place[what[j]] = (x + px, py)
            else:
                line, label = what[j]
                self.fed.append((line.head, line, label, (x + px, py)))
        return x + max(px + sizes[j][0] / 2 for j, (px, _) in enumerate(points)) + ZONE

    def _is_from(self, line: Line, k: int) -> bool:
        return line.source[0] == "outside" and self.box_of[line.source[1]] == k

    def input_label(self, line: Line) -> str:
        return f"{input_name(line, self.reading.outside)} {size(line.source[1].shape)}"
