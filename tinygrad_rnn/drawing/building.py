"""The edges of a picture, each with the gradient that flows back along it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

from ..core.tape import Record
from .arranging import CHANNEL, COLUMN_GAP, Block
from .lanes import BOX, INPUT, LaneView, Step
from .layout import Rect, crosses, route, straightened, text_width
from .model import Edge, Node, Point
from .naming import size
from .nodes import Nodes
from .reading import Reading
from .sketch import Line


class Builder(Nodes):
    """Fills the lists that a :class:`~tinygrad_rnn.drawing.graph.Graph` holds."""

    def __init__(self, reading: Reading, depth: str, fold: Any, rolled: bool, flow: Any, values: Any) -> None:
        super().__init__(reading, depth, fold, rolled, flow, values)
        self.edges: list[Edge] = []
        self.paths: dict[Any, list[Point]] = {}
        """Lines that are the same in every column, from its corner."""
        for block in self.plan.blocks:
            for position, columns in enumerate(block.shown):
                for view in block.lanes:
                    if len(columns) == 1:
                        self._step_edges(block, view, columns[0], position)
                    else:
                        self._fold_edges(block, view, columns)
        self._outer_edges()
        self._ends()
        self._shares()
        self.reference = self._reference()
        if self.reference:
            for edge in self.edges:
                edge.relative = None if edge.norm is None else edge.norm / self.reference

    def flown(self, record: Record, position: int) -> float | None:
        """The norm of what a record passes back to one of its operands."""
        if self.flow is None:
            return None
        passed = self.flow.passed.get(record, ())
        k = sum(p is not None for p in record.parents[:position])
        return passed[k][1] if k < len(passed) else None

    def _edge(
        self, tail: Node, head: Node, line: Line, records: list[Record], kind: str, points: list[Point], port: str = "", state: str | None = None, step: int | None = None
    ) -> Edge:
        record = records[line.reader]
        norm = None if not line.tracked else self.norms.get(record) if line.position < 0 else self.flown(record, line.position)
        if self.depth == "cell" and line.tracked and kind == "state" and tail.kind == "cell":
            norm = self.norms.get(self.reading.tape.records[tail.record]) if state is None and tail.record is not None else norm
        edge = Edge(tail.id, head.id, port, "", kind, state, line.shape, step, line.tracked, norm)
        if len(points) == 1:
            points = [points[0], (head.x + max(-head.width / 2 + 4, min(head.width / 2 - 4, points[0][0] - head.x)), head.y + head.height / 2)]
        edge.points = straightened(points)
        self.edges.append(edge)
        return edge

    def _rect(self, view: LaneView, block: Block, step: Step, k: int) -> Rect:
        """A box in its column."""
        (x, y), (w, h) = step.placed.boxes[k], step.placed.sizes[k]
        x = view.x(x, block.width)
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2

    def _rects(self, view: LaneView, block: Block, step: Step, *but: int) -> list[Rect]:
        found = [self._rect(view, block, step, k) for k in range(len(step.sketch.boxes)) if k not in but]
        for k, (x, y) in step.placed.inputs.items():
            x, w = view.x(x, block.width), step.placed.given[k]
            found.append((x - w / 2, y - 11, x + w / 2, y + 11))
        return [(a - 2, b - 2, c + 2, d + 2) for a, b, c, d in found]

    def _step_edges(self, block: Block, view: LaneView, column: int, position: int) -> None:
        step = view.steps.get(column)
        if step is None:
            return
        lane, x, base = view.lane, block.x(position), self.base(view)
        records = lane.groups[column]
        for k, line in enumerate(step.sketch.lines):
            head = self.box[lane.number, column, line.head]
            if k in step.placed.inputs:
                node = self.given[lane.number, column, k]
                points = self._cached(("given", id(step.placed), k), lambda k=k, node=node: self._given(view, block, step, k, node.width))
                self._edge(node, head, line, records, "input", [(x + a, base + b) for a, b in points], step=column + 1)
                continue
            if line.source[0] == "box":
                tail = self.box[lane.number, column, line.source[1]]
                points = self._cached(("in", id(step.placed), k), lambda step=step, k=k: self._inner(view, block, step, k))
                port = "" if line.source[2] is None else f"p{line.source[2]}"
                self._edge(tail, head, line, records, "flow", [(x + a, base + b) for a, b in points], port, step=column + 1)
            elif k in step.rail:
                self._state_edge(block, view, column, position, k)
            else:
                self._outer_edge(block, view, column, position, k)

    def _cached(self, key: Any, make: Any) -> list[Point]:
        found = self.paths.get(key)
        if found is None:
            found = self.paths[key] = make()
        return found

    def _inner(self, view: LaneView, block: Block, step: Step, k: int) -> list[Point]:
        line = step.sketch.lines[k]
        tail, head = self._rect(view, block, step, line.source[1]), self._rect(view, block, step, line.head)
        start = None
        port = line.source[2]
        if port is not None:
            fields = step.sketch.boxes[line.source[1]].fields
            place = len(fields) - 1 - port if view.lane.backwards else port
            width = (tail[2] - tail[0]) / len(fields)
            middle = tail[0] + (place + 0.5) * width
            level = abs((tail[1] + tail[3]) - (head[1] + head[3])) < 2
            ahead = head[0] > tail[2] if not view.lane.backwards else head[2] < tail[0]
            last = place == (0 if view.lane.backwards else len(fields) - 1)
            side, top = (tail[0] if view.lane.backwards else tail[2]), (tail[1] if head[1] < tail[3] else tail[3])
            start = (side, (tail[1] + tail[3]) / 2) if level and ahead and last else (middle, top)
        elif step.sketch.boxes[line.head].fields:
            # Into a split from straight above or below, not to its middle.
            x = min(max((tail[0] + tail[2]) / 2, head[0] + 6), head[2] - 6)
            head = (x - 1, head[1], x + 1, head[3]) if tail[3] < head[1] or tail[1] > head[3] else head
        return route(tail, head, self._rects(view, block, step, line.source[1], line.head), start)

    def _given(self, view: LaneView, block: Block, step: Step, k: int, width: float) -> list[Point]:
        """From a constant below up to what reads it."""
        x, y = step.placed.inputs[k]
        x, head = view.x(x, block.width), self._rect(view, block, step, step.sketch.lines[k].head)
        box = (x - width / 2, y - INPUT / 2, x + width / 2, y + INPUT / 2)
        others = [other for other in self._rects(view, block, step, step.sketch.lines[k].head) if other[3] < box[1]]
        middle = min(max(x, head[0] + 5), head[2] - 5)
        return route(box, (middle - 1, head[1], middle + 1, head[3]), others, (x, box[1]))

    def _entry(self, view: LaneView, block: Block, step: Step, k: int) -> list[Point]:
        """From the side of a column on a state's rail to the box that reads it."""
        y = view.rails[step.rail[k]] if self.depth != "cell" else step.placed.rails[step.rail[k]]
        x = block.width + COLUMN_GAP / 2 if view.lane.backwards else -COLUMN_GAP / 2
        head = self._rect(view, block, step, step.sketch.lines[k].head)
        if head[1] < y < head[3]:
            side = head[2] if view.lane.backwards else head[0]
            others = self._rects(view, block, step, step.sketch.lines[k].head)
            if not any(b < y < d and min(x, side) < c and max(x, side) > a for a, b, c, d in others):
                return [(x, y), (side, y)]
        inner = view.x(8, block.width)
        points = route((inner - 1, y - 1, inner + 1, y + 1), head, self._rects(view, block, step, step.sketch.lines[k].head), (inner, y))
        middle = (head[1] + head[3]) / 2
        # Down or up beside the boxes, then straight in, where nothing stands in the way.
        side = head[2] if view.lane.backwards else head[0]
        if not any(b < middle < d and min(inner, side) < c and max(inner, side) > a for a, b, c, d in self._rects(view, block, step, step.sketch.lines[k].head)):
            points = [(inner, y), (inner, middle), (side, middle)]
        return [(x, y), *points]

    def _exit(self, view: LaneView, block: Block, step: Step, k: int, y: float, column: int) -> list[Point]:
        """From the box that makes a state to the side of its column, on the rail."""
        box = self._rect(view, block, step, k)
        x = -COLUMN_GAP / 2 if view.lane.backwards else block.width + COLUMN_GAP / 2
        side = box[0] if view.lane.backwards else box[2]
        others = self._rects(view, block, step, k)
        if box[1] < y < box[3] and not any(b < y < d and min(x, side) < c and max(x, side) > a for a, b, c, d in others):
            return [(side, y), (x, y)]
        inner = view.x(view.width - 8, block.width)
        return [*route(box, (inner - 1, y - 1, inner + 1, y + 1), others), (x, y)]

    def _state_edge(self, block: Block, view: LaneView, column: int, position: int, k: int) -> None:
        """The edge that brings a state: from the step before, from a fold, or its first value."""
        lane, step = view.lane, view.steps[column]
        line, state = step.sketch.lines[k], step.rail[k]
        x, base, name = block.x(position), self.base(view), view.names[step.rail[k]]
        head, records = self.box[lane.number, column, line.head], lane.groups[column]
        entry = [(x + a, base + b) for a, b in self._cached(("entry", id(step.placed), k), lambda: self._entry(view, block, step, k))]
        level = entry[0][1]
        if line.source[0] == "step" and line.source[1] == lane.number:
            before = column + line.source[2]
            rail = self.through.get((lane.number, before, state))
            if self.rolled:
                self._loop(block, view, column, k, entry, line)
                return
            if rail is not None:
                side = rail.x + (-1 if lane.backwards else 1) * rail.width / 2
                self._edge(rail, head, line, records, "state", [(side, level), *entry], state=name, step=column + 1)
                return
            there = view.steps.get(before)
            if there is not None and line.source[3] in there.sketch.where:
                made = there.sketch.where[line.source[3]][0]
                offset = self._left(block, before)
                out = [(offset + a, base + b) for a, b in self._cached(("exit", id(there.placed), made, level), lambda: self._exit(view, block, there, made, level - base, before))]
                self._edge(self.box[lane.number, before, made], head, line, records, "state", [*out, *entry], state=name, step=column + 1)
            return
        if self.rolled:
            return
        first = block.right if lane.backwards else block.left
        if line.source[0] == "outside":
            k_rest = self.plan.box_of[line.source[1]]
            if k_rest in self.rest and k_rest in self.plan.place:
                tail = self.rest[k_rest]
                self._edge(tail, head, line, records, "state", [*self._across(tail, (first, level)), *entry], state=name, step=column + 1)
                return
        if line.source[0] == "step":
            self._far(block, view, column, line, entry, "state", name)
            return
        constant = line.source[1] if line.source[0] == "constant" else None
        cut = constant is not None and constant.cut is not None
        label = f"{name}0" + (" ✂" if cut else "")
        found = next((n for n in self.nodes if n.kind == "state" and n.lane == view.id and n.state == name and n.step == column), None)
        if found is None:
            found = Node(
                self.ids.new(f"{block.prefix}{view.id + '-' if len(block.lanes) > 1 else ''}{name}0"),
                label,
                "state",
                state=name,
                shape=line.shape,
                lane=view.id,
                step=column,
                cut=cut,
            )
            found.width, found.height = text_width(label) + 20, BOX
            found.x = first + (1 if lane.backwards else -1) * (found.width / 2 + 18)
            found.y, found.dtype = level, "" if constant is None else str(constant.dtype)
            self._add(found)
        side = found.x + (-1 if lane.backwards else 1) * found.width / 2
        self._edge(found, head, line, records, "cut" if cut else "state", [(side, level), *entry], state=name, step=column + 1)

    def _left(self, block: Block, column: int) -> float:
        return block.x(next(k for k, columns in enumerate(block.shown) if column in columns))

    def _loop(self, block: Block, view: LaneView, column: int, k: int, entry: list[Point], line: Line) -> None:
        """A state that comes back: around the frame, above it or below."""
        step, lane, state = view.steps[column], view.lane, view.steps[column].rail[k]
        made = step.sketch.where.get(line.source[3])
        if made is None:
            return
        base, x, level = self.base(view), block.left, entry[0][1]
        out = [(x + a, base + b) for a, b in self._exit(view, block, step, made[0], level - base, column)]
        order = list(view.rails).index(state)
        high = order < (len(view.rails) + 1) // 2
        y = base - 26 if high else base + view.height - 2
        right, left = block.right - 8 - 6 * order, block.left + 8 + 6 * order
        if lane.backwards:
            left, right = right, left
        points = [*out[:-1], (right, level), (right, y), (left, y), (left, level), *entry[1:]]
        edge = self._edge(
            self.box[lane.number, column, made[0]], self.box[lane.number, column, line.head], line, lane.groups[column], "loop", points, state=view.names[state], step=column + 1
        )
        edge.label = f"{view.names[state]}, one step later"

    def _across(self, tail: Node, to: Point) -> list[Point]:
        """From the right side of a node outside of the blocks to a point further right: straight, then level."""
        x = tail.x + tail.width / 2
        if abs(tail.y - to[1]) < 1:
            return [(x, to[1]), to]
        middle = max(x + 10, min(to[0] - 14, x + 24))
        return [(x, tail.y), (middle, tail.y), (middle, to[1]), to]

    def _channel(self, block: Block, view: LaneView) -> int:
        """Which of the lines beside the boxes of a column is this lane's."""
        return block.lanes.index(view) if block.before else 0

    def _riser(self, view: LaneView, block: Block, column: int, which: int, above: LaneView | None = None) -> tuple[Node, list[Point]] | None:
        """A value on its way up out of its step: its node and the line to the top of its lane, past the lanes up to ``above``."""
        above = above or view
        lane, base = view.lane, self.base(view)
        folded = self.through.get((lane.number, column, -1))
        if folded is not None:
            rail = self.through.get((lane.number, column, which))
            node, frame = rail or folded, folded.x + block.width / 2
            y = node.y - (5 if rail is not None else 0)
            side = frame - 8 - CHANNEL * self._channel(block, view)
            return node, [(node.x + node.width / 2, y), (side, y), (side, view.top)]
        step = view.steps.get(column)
        if step is None or which not in step.sketch.where:
            return None
        k, _ = step.sketch.where[which]
        node, x = self.box[lane.number, column, k], self._left(block, column)

        def up() -> list[Point]:
            box = self._rect(view, block, step, k)
            middle = (box[0] + box[2]) / 2
            inner = 6 + CHANNEL * self._channel(block, view)
            inner = inner if view.lane.backwards else block.width - inner
            others = self._rects(view, block, step, k)
            if above is view and not any(a < middle < c and b < box[1] for a, b, c, d in others):
                return [(middle, box[1]), (middle, -22.0)]
            y = (box[1] + box[3]) / 2 - 5
            side = box[0] if view.lane.backwards else box[2]
            return [(side, y), (inner, y), (inner, -22.0)]

        return node, [(x + a, base + b) for a, b in self._cached(("up", id(step.placed), k, above is view, view.lane.number), up)]

    def _outer_edge(self, block: Block, view: LaneView, column: int, position: int, k: int) -> None:
        """An edge into a step from below, or from elsewhere: another lane, a bar, what runs before."""
        step, lane = view.steps[column], view.lane
        line, records = step.sketch.lines[k], lane.groups[column]
        head = self.box[lane.number, column, line.head]
        x, base = block.x(position), self.base(view)
        low = base + view.height

        def upward() -> list[Point]:
            box = self._rect(view, block, step, line.head)
            middle, bottom = (box[0] + box[2]) / 2, view.height
            others = self._rects(view, block, step, line.head)
            if not any(a < middle < c and d > box[3] for a, b, c, d in others):
                return [(middle, bottom), (middle, box[3])]
            inner = view.x(10, block.width)
            return [(inner, bottom), *route((inner - 1, bottom - 1, inner + 1, bottom + 1), box, others, (inner, bottom))]

        path = [(x + a, base + b) for a, b in self._cached(("low", id(step.placed), k), upward)]
        if line.source[0] == "outside":
            number_ = self.plan.box_of[line.source[1]]
            tail = self.rest.get(number_)
            if tail is None:
                return
            if number_ in self.plan.bar and self.plan.bar[number_] is block:
                start = path[0][0]
                if any(isinstance(item, LaneView) and low < self.base(item) < tail.y for item in block.levels):
                    side = 6 + CHANNEL * self._channel(block, view)
                    side = x + (block.width - side if lane.backwards else side)
                    path, start = [(side, low + 8), (start, low + 8), *path], side
                self._edge(tail, head, line, records, "flow", [(start, tail.y - tail.height / 2), *path], step=column + 1)
            else:
                self._edge(tail, head, line, records, "flow", [*self._across(tail, (path[0][0], low + 4)), *path], step=column + 1)
        elif line.source[0] == "step":
            other = self.plan.view_of[line.source[1]]
            there = column + line.source[2]
            home = self.plan.block_of[line.source[1]]
            if home is block and there == column:
                out = self._riser(other, block, there, line.source[3])
                if out is not None:
                    y = (other.top + low) / 2 + 4
                    self._edge(out[0], head, line, records, "flow", [*out[1], (out[1][-1][0], y), (path[0][0], y), *path], step=column + 1)
                return
            self._far(block, view, column, line, path, "flow", None)

    def _highest_between(self, block: Block, low: LaneView, high: LaneView | None) -> LaneView:
        """The highest lane that a line from one lane up to another, or to the top, has to pass."""
        end = block.levels.index(high) if high is not None else len(block.levels)
        between = [item for item in block.levels[block.levels.index(low) + 1 : end] if isinstance(item, LaneView)]
        return between[-1] if between else low

    def _far(self, block: Block, view: LaneView, column: int, line: Line, path: list[Point], kind: str, state: str | None) -> None:
        """An edge from a step of another block, or from another column of another lane."""
        other, there = self.plan.view_of[line.source[1]], column + line.source[2]
        home = self.plan.block_of[line.source[1]]
        head, records = self.box[view.lane.number, column, line.head], view.lane.groups[column]
        last = home is not block and there == (home.columns[0] if other.lane.backwards else home.columns[-1])
        step = other.steps.get(there)
        if last and not other.lane.backwards and line.source[3] in other.rails and step is not None and line.source[3] in step.sketch.where:
            made, level = step.sketch.where[line.source[3]][0], other.rails[line.source[3]]
            out = [(self._left(home, there) + a, self.base(other) + b) for a, b in self._exit(other, home, step, made, level, there)]
            points = [*out, *([] if abs(out[-1][1] - path[0][1]) < 1 else [(out[-1][0] + 14, out[-1][1]), (out[-1][0] + 14, path[0][1])]), *path]
            self._edge(self.box[other.lane.number, there, made], head, line, records, kind, points, state=state, step=column + 1)
            return
        found = self._riser(other, home, there, line.source[3])
        if found is not None:
            tail, up = found
            y = home.top - 8
            beside = path[0][0] - 8
            self._edge(tail, head, line, records, kind, [*up, (up[-1][0], y), (beside, y), (beside, path[0][1]), *path], state=state, step=column + 1)

    def _fold_edges(self, block: Block, view: LaneView, columns: list[int]) -> None:
        """What enters a fold: the states of the step before it, values of lanes and bars below."""
        lane, reader = view.lane, self.plan.readers[view.lane]
        first = columns[-1] if lane.backwards else columns[0]
        before = first + 1 if lane.backwards else first - 1
        there = view.steps.get(before)
        sketch = reader._sketch(first)
        for k, state in reader.rails(sketch, first).items():
            rail, line = self.through[lane.number, first, state], sketch.lines[k]
            if any(edge.head == rail.id for edge in self.edges[-40:] if edge.state == rail.state):
                continue
            y, name = self.base(view) + view.rails[state], view.names[state]
            side = rail.x + (1 if lane.backwards else -1) * rail.width / 2
            if there is not None and state in there.sketch.where and before in block.columns:
                made = there.sketch.where[state][0]
                offset = self._left(block, before)
                out = [(offset + a, self.base(view) + b) for a, b in self._exit(view, block, there, made, view.rails[state], before)]
                self._edge(self.box[lane.number, before, made], rail, line, lane.groups[first], "state", [*out, (side, y)], state=name, step=first + 1)
        done: set[Any] = set()
        for line in sketch.lines:
            tail: Node | None = None
            if line.source[0] == "outside" and line.source[2] is not None:
                tail = self.rest.get(self.plan.box_of[line.source[1]])
            elif line.source[0] == "step" and line.source[1] != lane.number and line.source[2] == 0:
                tail = self.through.get((line.source[1], first, -1))
            node = self.through[lane.number, first, -1]
            if tail is None or tail.id in done:
                continue
            done.add(tail.id)
            side = node.x - block.width / 2 + 8 + CHANNEL * self._channel(block, view)
            if tail.kind == "bar":
                self._edge(tail, node, line, lane.groups[first], "flow", [(side, tail.y - tail.height / 2), (side, node.y), (node.x - node.width / 2, node.y)], step=first + 1)
                continue
            found = self._riser(self.plan.view_of[line.source[1]], block, first, line.source[3])
            if found is not None:
                other, up = found
                y = self.base(view) + view.height + 6
                self._edge(other, node, line, lane.groups[first], "flow", [*up[:-1], (up[-1][0], y), (side, y), (side, node.y), (node.x - node.width / 2, node.y)], step=first + 1)

    def _outer_edges(self) -> None:
        plan, records = self.plan, self.reading.outside
        seen: set[tuple[int, int]] = set()
        once: set[Any] = set()
        for head_box, line, label, (x, y) in plan.fed:
            node = Node(self.ids.new(label.split()[0]), label, "input", shape=line.shape, dtype=str(line.source[1].dtype))
            node.x, node.y, node.width, node.height = x, y, text_width(label, 10) + 22, INPUT
            self._add(node)
            head = self.rest[head_box]
            self._edge(node, head, line, records, "input", self._between(node, head))
        for line in plan.rest.lines:
            if line.head in plan.inlined:
                continue
            head = self.rest[line.head]
            if line.source[0] == "box":
                tail = self.rest[line.source[1]]
                port = "" if line.source[2] is None else f"p{line.source[2]}"
                edge = self._edge(tail, head, line, records, "flow", self._between(tail, head, line.source[2]), port)
                edge.label = "" if plan.blocks else size(line.shape)
            elif line.source[0] == "constant" and line.head in plan.bar:
                self._bar_input(line, head)
            elif line.source[0] == "step":
                if self.rolled:
                    line = replace(line, source=(*line.source[:2], plan.block_of[line.source[1]].shown[0][0], line.source[3]))
                    if (key := (id(head), line.source)) in once:
                        continue
                    once.add(key)
                self._leave(line, head, seen)

    def _ends(self) -> None:
        """An output that is a value of a step has a box of its own, at the right."""
        right = max((n.x + n.width / 2 for n in self.nodes), default=0.0) + 36
        for root in dict.fromkeys(r for r in self.reading.roots if r in self.reading.place):
            lane, column, which = self.reading.place[root]
            view, block = self.plan.view_of[lane.number], self.plan.block_of[lane.number]
            name = "loss" if root.shape == () else "output"
            node = Node(self.ids.new(name), name, "output", shape=root.shape, dtype=str(root.dtype), norm=self.norms.get(root))
            node.width, node.height = text_width(name) + 22, BOX + 6
            node.x, node.y = right + node.width / 2, self.base(view) + view.rails.get(which, view.height / 2)
            while any(n.kind == "output" and n.x == node.x and abs(n.y - node.y) < node.height + 8 for n in self.nodes):
                node.y += node.height + 10
            self._add(node)
            step = view.steps.get(column)
            if step is None or which not in step.sketch.where:
                continue
            made = step.sketch.where[which][0]
            tail = self.box[lane.number, column, made]
            if column == block.columns[-1] and not lane.backwards:
                out = [
                    (self._left(block, column) + a, self.base(view) + b) for a, b in self._exit(view, block, step, made, view.rails.get(which, step.placed.boxes[made][1]), column)
                ]
                points = [*out, *self._to(out[-1], node)]
            else:
                _, up = self._riser(view, block, column, which, self._highest_between(block, view, None)) or (None, [])
                y, end = block.top - 10, node.x - node.width / 2
                points = [*up, (up[-1][0], y), (end - 14, y), (end - 14, node.y), (end, node.y)]
            edge = Edge(tail.id, node.id, kind="output", shape=root.shape, step=column + 1, norm=self.norms.get(root), points=straightened(points))
            self.edges.append(edge)

    def _bar_input(self, line: Line, head: Node) -> None:
        """A constant that an operation on all steps reads stands to its left."""
        label = self.plan.input_label(line)
        node = Node(self.ids.new(label.split()[0]), label, "input", shape=line.shape, dtype=str(line.source[1].dtype))
        node.width, node.height = text_width(label, 10) + 22, INPUT
        others = [self.at[e.tail] for e in self.edges if e.head == head.id and e.kind == "input"]
        right = min([head.x - head.width / 2 - 16, *(n.x - n.width / 2 - 8 for n in others)])
        node.x, node.y = right - node.width / 2, head.y
        self._add(node)
        self._edge(
            node,
            head,
            line,
            self.reading.outside,
            "input",
            [(right, head.y), (head.x - head.width / 2, head.y)]
            if not others
            else [(right, head.y), (right + 4, head.y - 14), (head.x - head.width / 2 - 6, head.y - 14), (head.x - head.width / 2, head.y - 6)],
        )

    def _between(self, tail: Node, head: Node, port: int | None = None) -> list[Point]:
        """A line between two nodes outside of the steps."""
        if tail.kind == "bar" and head.kind == "bar":
            x = max(tail.x - tail.width / 2, head.x - head.width / 2) + 24
            return [(x, tail.y - tail.height / 2), (x, head.y + head.height / 2)] if tail.y > head.y else [(x, tail.y + tail.height / 2), (x, head.y - head.height / 2)]
        box = (head.x - head.width / 2, head.y - head.height / 2, head.x + head.width / 2, head.y + head.height / 2)
        start = (tail.x + tail.width / 2, tail.y)
        if port is not None and tail.ports:
            start = (tail.x - tail.width / 2 + tail.ports[port].x, tail.y + (tail.height / 2 if head.y > tail.y else -tail.height / 2))
        if head.kind == "bar":
            return [start, (box[0], head.y)]
        others = [
            (n.x - n.width / 2 - 2, n.y - n.height / 2 - 2, n.x + n.width / 2 + 2, n.y + n.height / 2 + 2)
            for n in [*self.rest.values()] if n is not tail and n is not head and n.x > tail.x and n.x < head.x
        ]  # fmt: skip
        if tail.kind == "bar":
            beside = [start, (box[0] - 16, start[1]), (box[0] - 16, head.y), (box[0], head.y)]
            if not any(crosses(a, b, other) for a, b in itertools.pairwise(beside) for other in others):
                return beside
        points = route((start[0] - 1, start[1] - 1, start[0] + 1, start[1] + 1), (box[0], head.y - 1, box[0] + 2, head.y + 1), others, start)
        return [*points[:-1], (box[0], head.y)]

    def _leave(self, line: Line, head: Node, seen: set[tuple[int, int]]) -> None:
        """A value that leaves its step: up into a bar, to the right out of the last step, or over the top."""
        plan, records = self.plan, self.reading.outside
        view, column, which = plan.view_of[line.source[1]], line.source[2], line.source[3]
        block = plan.block_of[view.lane.number]
        folded = self.through.get((view.lane.number, column, -1))
        if folded is not None:
            key = (self.nodes.index(head), id(folded))
            if key in seen:
                return
            seen.add(key)
        bar = next((k for k, node in self.rest.items() if node is head and k in block.bars), None)
        between = [i for i in block.levels[block.levels.index(view) + 1 : None if bar is None else block.levels.index(bar)] if isinstance(i, LaneView)]
        found = self._riser(view, block, column, which, between[-1] if between else None)
        if found is None:
            return
        tail, up = found
        step = column + 1
        last = block.shown[0][0] if view.lane.backwards else block.shown[-1][-1]
        there = view.steps.get(column)
        if head.kind == "bar" and abs(head.x - (block.left + block.right) / 2) < 1:
            self._edge(tail, head, line, records, "output", [*up, (up[-1][0], head.y + head.height / 2)], step=step)
        elif folded is None and column == last and not view.lane.backwards and there is not None:
            k = there.sketch.where[which][0]
            level = view.rails.get(which, there.placed.boxes[k][1])
            out = [(self._left(block, column) + a, self.base(view) + b) for a, b in self._exit(view, block, there, k, level, column)]
            self._edge(tail, head, line, records, "output", [*out, *self._to(out[-1], head)], step=step)
        else:
            y = block.top - 10
            end = head.x - head.width / 2
            self._edge(tail, head, line, records, "output", [*up, (up[-1][0], y), (end - 14, y), (end - 14, head.y), (end, head.y)], step=step)

    def _to(self, point: Point, head: Node) -> list[Point]:
        end = (head.x - head.width / 2, head.y)
        return [end] if abs(point[1] - head.y) < 1 else [(end[0] - 16, point[1]), (end[0] - 16, head.y), end]

    def _reference(self) -> float | None:
        """The largest gradient of a state at the step next to the loss: what other gradients are small or large beside."""
        if self.flow is None:
            return None
        found: dict[int, float] = {}
        for lane in self.reading.lanes:
            for column, records in lane.groups.items():
                for state in lane.states or [len(records) - 1]:
                    norm = self.norms.get(records[state], 0.0) if state < len(records) else 0.0
                    if 0 < norm < math.inf:
                        key = -column if lane.backwards else column
                        found[key] = max(found.get(key, 0.0), norm)
        if found:
            return found[max(found)]
        finite = [edge.norm for edge in self.edges if edge.norm is not None and 0 < edge.norm < math.inf]
        return max(finite, default=None)
