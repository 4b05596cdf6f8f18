"""The ways of lines through and around the steps: within one, along its rails, up past other lanes."""

from __future__ import annotations

from typing import Any

from .arranging import CHANNEL, COLUMN_GAP, Block
from .lanes import INPUT, LaneView, Step
from .layout import Rect, route
from .model import Node, Point
from .nodes import Nodes
from .reading import Reading


class Paths(Nodes):
    """Lines between the nodes of a picture; those that are the same in every column are found once."""

    def __init__(self, reading: Reading, depth: str, fold: Any, rolled: bool, flow: Any, values: Any) -> None:
        super().__init__(reading, depth, fold, rolled, flow, values)
        self.paths: dict[Any, list[Point]] = {}
        """Lines that are the same in every column, from its corner."""

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

    def _left(self, block: Block, column: int) -> float:
        return block.x(next(k for k, columns in enumerate(block.shown) if column in columns))

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

    def _highest_between(self, block: Block, low: LaneView, high: LaneView | None) -> LaneView:
        """The highest lane that a line from one lane up to another, or to the top, has to pass."""
        end = block.levels.index(high) if high is not None else len(block.levels)
        between = [item for item in block.levels[block.levels.index(low) + 1 : end] if isinstance(item, LaneView)]
        return between[-1] if between else low

    def _to(self, point: Point, head: Node) -> list[Point]:
        end = (head.x - head.width / 2, head.y)
        return [end] if abs(point[1] - head.y) < 1 else [(end[0] - 16, point[1]), (end[0] - 16, head.y), end]
