"""Where things stand: one step laid out, to be stamped for all of them, and a small layered layout for everything else."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .model import Point
from .sketch import Sketch

GAP, ROW, PAD = 17.0, 54.0, 14.0
Rect = tuple[float, float, float, float]
"""Left, top, right, bottom."""

# Advance widths of the characters from space to tilde, in hundredths of the size: the widest of the usual sans-serif fonts.
_WIDTHS = (
    "32 40 46 84 64 95 78 27 39 39 50 84 32 36 32 34 64 64 64 64 64 64 64 64 64 64 34 34 84 84 84 56 102 68 69 72 77 67 61 78 75 29 50 67 56 86 75 79 67 79 72 "
    "67 61 73 68 99 69 67 69 39 34 39 84 56 50 61 63 55 63 62 35 63 63 28 28 58 28 97 63 61 63 63 41 52 39 63 59 82 59 59 52 64 34 64 84"
)
_WIDTH = dict(zip(map(chr, range(32, 127)), map(int, _WIDTHS.split()), strict=True))


def text_width(text: str, size: float = 11.0) -> float:
    """How wide a text is at most, in the fonts that pictures ask for."""
    return sum([_WIDTH.get(c, 90) for c in text]) * size / 100


@dataclass(slots=True)
class Placed:
    """A laid-out step: the middle of each box, of each input below, and the heights of the rails; y downwards from the top."""

    boxes: list[Point]
    sizes: list[tuple[float, float]]
    inputs: dict[int, Point] = field(default_factory=dict)
    given: dict[int, float] = field(default_factory=dict)
    """The widths of the inputs."""
    rails: dict[int, float] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0

    def rect(self, k: int) -> Rect:
        (x, y), (w, h) = self.boxes[k], self.sizes[k]
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def chains(members: Iterable[int], after: dict[int, list[int]]) -> list[list[int]]:
    """Members covered by paths, the longest first."""
    left, found = sorted(set(members)), []
    while left:
        best: dict[int, list[int]] = {}
        allowed = set(left)
        for k in reversed(left):
            tails = [best[j] for j in after[k] if j in allowed and j in best]
            best[k] = [k, *max(tails, key=lambda path: (len(path), -path[0]), default=[])]
        longest = max(best.values(), key=lambda path: (len(path), -path[0]))
        found.append(longest)
        left = [k for k in left if k not in longest]
    return found


def shortest(starts: Iterable[int], goal: int, after: dict[int, list[int]]) -> list[int]:
    """The shortest path from one of the starts to the goal, or the goal alone."""
    queue: list[list[int]] = [[k] for k in sorted(set(starts))]
    seen = {path[0] for path in queue}
    while queue:
        path = queue.pop(0)
        if path[-1] == goal:
            return path
        for k in after[path[-1]]:
            if k not in seen:
                seen.add(k)
                queue.append([*path, k])
    return [goal]


class StepLayout:
    """Lays out one step: each state's rail through the boxes between its old and its new value, other boxes on rows of their own.

    Rails stand above each other, the state that is computed last the lowest; what reads inputs alone stands below, inputs lowest.
    """

    def __init__(
        self,
        sketch: Sketch,
        sizes: Sequence[tuple[float, float]],
        rails: Sequence[tuple[int, int | None, Sequence[int]]],
        inputs: dict[int, tuple[float, float]],
        like: Placed | None = None,
    ) -> None:
        """``rails`` has for each state its number, the box that makes it and the boxes that read the old one; ``inputs`` the sizes of input lines by number.

        ``like`` has where the boxes and rails stand in a step with more boxes, if they shall stand there.
        """
        self.sketch, self.sizes, self.inputs = sketch, list(sizes), inputs
        self.count = len(sketch.boxes)
        self.after: dict[int, list[int]] = defaultdict(list)
        self.before: dict[int, list[int]] = defaultdict(list)
        for line in sketch.lines:
            if line.source[0] == "box":
                self.after[line.source[1]].append(line.head)
                self.before[line.head].append(line.source[1])
        self.row: dict[int, int] = {}
        self._rows(rails)
        self.placed = Placed([(0.0, 0.0)] * self.count, self.sizes)
        self._across()
        self._align()
        self._finish(rails, like)

    def _rows(self, rails: Sequence[tuple[int, int | None, Sequence[int]]]) -> None:
        moving = {k for _, _, readers in rails for k in readers}
        for k in range(self.count):
            if any(j in moving for j in self.before[k]):
                moving.add(k)
        backbones: list[list[int]] = []
        for _, maker, readers in rails:
            path = [] if maker is None else shortest(readers, maker, self.after)
            backbones.append([k for k in path if k not in self.row])
            for k in backbones[-1]:
                self.row[k] = -1
        middle = self._packed([k for k in range(self.count) if k not in self.row and k in moving])
        below = self._packed([k for k in range(self.count) if k not in self.row and k not in moving])
        # Backbones of all but the last rail, what stands between, the last rail, what reads inputs alone; with one rail it is the highest.
        order: list[list[int]] = [*backbones, *middle] if len(backbones) < 2 else [*backbones[:-1], *middle, backbones[-1]]
        order += below
        self.levels = order
        for level, members in enumerate(order):
            for k in members:
                self.row[k] = level
        self.rail_rows = list(range(len(backbones))) if len(backbones) < 2 else [*range(len(backbones) - 1), len(backbones) - 1 + len(middle)]

    def _packed(self, members: list[int]) -> list[list[int]]:
        """Chains of boxes on as few rows as order allows: one chain may follow another that leads to it."""
        reach: dict[int, set[int]] = {}
        for k in reversed(range(self.count)):
            reach[k] = {k}.union(*[reach[j] for j in self.after[k]])
        rows: list[list[int]] = []
        for chain in chains(members, self.after):
            for row in rows:
                if chain[0] in reach[row[-1]]:
                    row.extend(chain)
                    break
                if row[0] in reach[chain[-1]]:
                    row[:0] = chain
                    break
            else:
                rows.append(chain)
        return rows

    def port(self, k: int, port: int | None) -> float:
        """The middle of a port, from the middle of its box."""
        box = self.sketch.boxes[k]
        if port is None or not box.fields:
            return 0.0
        width = self.sizes[k][0] / len(box.fields)
        return (port + 0.5) * width - self.sizes[k][0] / 2

    def _across(self) -> None:
        edge: dict[int, float] = defaultdict(lambda: PAD - GAP)
        into: dict[int, list[tuple[int, int | None]]] = defaultdict(list)
        for line in self.sketch.lines:
            if line.source[0] == "box":
                into[line.head].append((line.source[1], line.source[2]))
        drawn: list[tuple[Point, Point]] = []
        placed = self.placed.boxes
        for k in range(self.count):
            row, (width, height) = self.row[k], self.sizes[k]
            y = row * ROW
            x = edge[row] + GAP + width / 2
            for j, port in into[k]:
                beside = self.sizes[j][0] / 2 + GAP + width / 2
                x = max(x, placed[j][0] + (beside if self.row[j] == row else self.port(j, port)))
            first = x
            for _ in range(20):
                box = (x - width / 2 - 4, y - height / 2 - 4, x + width / 2 + 4, y + height / 2 + 4)
                lines = [((placed[j][0] + self.port(j, p), placed[j][1]), (x, y)) for j, p in into[k] if self.row[j] != row]
                hits = any(crosses(a, b, box) for a, b in drawn) or any(
                    crosses(a, b, self._wide(i)) for (a, b), (j, _) in zip(lines, [s for s in into[k] if self.row[s[0]] != row], strict=True) for i in range(k) if i != j
                )
                if not hits:
                    break
                x += 5
            else:
                x = first
            placed[k] = (x, y)
            edge[row] = x + width / 2
            drawn += lines

    def _wide(self, k: int) -> Rect:
        a, b, c, d = self.placed.rect(k)
        return a - 3, b - 3, c + 3, d + 3

    def _align(self) -> None:
        """Boxes that are read elsewhere move right, below or above their reader, as far as their row allows."""
        placed = self.placed.boxes
        for k in reversed(range(self.count)):
            heads = sorted({line.head for line in self.sketch.lines if line.source[:2] == ("box", k)})
            if not heads or any(self.row[j] == self.row[k] for j in heads) or self.sketch.boxes[k].kind == "split":
                continue
            if len(self.before[k]) > 1 and all(self.row[j] != self.row[k] for j in self.before[k]):
                continue
            wanted = min(placed[j][0] for j in heads)
            after = [placed[j][0] - self.sizes[j][0] / 2 for j in range(self.count) if self.row[j] == self.row[k] and placed[j][0] > placed[k][0]]
            limit = min(after, default=1e9) - GAP - self.sizes[k][0] / 2
            if min(wanted, limit) > placed[k][0]:
                was = placed[k]
                placed[k] = (min(wanted, limit), was[1])
                lines = [(placed[j], placed[k]) for j in self.before[k]] + [(placed[k], placed[j]) for j in heads]
                if any(crosses(a, b, self.placed.rect(i)) for a, b in lines for i in range(self.count) if placed[i] not in (a, b)):
                    placed[k] = was

    def _finish(self, rails: Sequence[tuple[int, int | None, Sequence[int]]], like: Placed | None) -> None:
        out = self.placed
        levels = len(self.levels)
        out.given = {number: width for number, (width, _) in self.inputs.items()}
        if like is not None:
            out.boxes, out.rails = list(like.boxes), dict(like.rails)
            levels = 1 + round(max([*(y for _, y in out.boxes), *out.rails.values()]) / ROW)
        else:
            out.rails = {state: row * ROW for (state, _, _), row in zip(rails, self.rail_rows, strict=True)}
        low = levels * ROW
        left = PAD
        for number, (width, _height) in sorted(self.inputs.items(), key=lambda item: (out.boxes[self.sketch.lines[item[0]].head][0], item[0])):
            x = max(out.boxes[self.sketch.lines[number].head][0], left + width / 2)
            out.inputs[number] = (x, low - 4)
            left = x + width / 2 + 10
        right = [x + w / 2 for (x, _), (w, _) in zip(out.boxes, out.sizes, strict=True)]
        right += [x + self.inputs[number][0] / 2 for number, (x, _) in out.inputs.items()]
        out.width = max(right, default=0.0) + PAD
        out.height = low + (14 if self.inputs else -ROW + 16)


def crosses(a: Point, b: Point, box: Rect) -> bool:
    """Whether a segment enters a rectangle (Liang and Barsky 1984)."""
    (x, y), (dx, dy) = a, (b[0] - a[0], b[1] - a[1])
    low, high = 0.0, 1.0
    for p, q in ((-dx, x - box[0]), (dx, box[2] - x), (-dy, y - box[1]), (dy, box[3] - y)):
        if p == 0:
            if q <= 0:
                return False
        elif p < 0:
            low = max(low, q / p)
        else:
            high = min(high, q / p)
    return low < high


def border(box: Rect, towards: Point) -> Point:
    """Where the segment from a rectangle's middle towards a point leaves it."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    dx, dy = towards[0] - x, towards[1] - y
    if dx == dy == 0:
        return x, y
    scale = min((box[2] - box[0]) / 2 / abs(dx) if dx else 1e9, (box[3] - box[1]) / 2 / abs(dy) if dy else 1e9)
    return x + dx * scale, y + dy * scale


def straightened(points: Sequence[Point]) -> list[Point]:
    """A line without repeated points and without corners that are none."""
    out: list[Point] = []
    for point in points:
        if out and abs(out[-1][0] - point[0]) < 0.01 and abs(out[-1][1] - point[1]) < 0.01:
            continue
        if len(out) > 1:
            (a, b), (c, d) = out[-2], out[-1]
            if abs((c - a) * (point[1] - b) - (d - b) * (point[0] - a)) < 0.01 and (c - a) * (point[0] - c) + (d - b) * (point[1] - d) >= 0:
                out.pop()
        out.append(point)
    return out


def route(tail: Rect, head: Rect, boxes: Sequence[Rect], start: Point | None = None) -> list[Point]:
    """A line from one box to another that goes through none of the others, if there is a simple one.

    ``start`` is where it leaves the tail, if not anywhere.
    """
    middle, end = ((tail[0] + tail[2]) / 2, (tail[1] + tail[3]) / 2), ((head[0] + head[2]) / 2, (head[1] + head[3]) / 2)
    origin = start or middle
    side = middle if start is None else origin

    def tries() -> Iterator[list[Point]]:
        yield [origin, end]
        for y in (min(tail[1], head[1]) - 12, max(tail[3], head[3]) + 12, tail[1] - 12, tail[3] + 12, head[1] - 12, head[3] + 12):
            yield [origin, (origin[0], y), (end[0], y), end]
        for x in (tail[2] + 9, head[0] - 9, tail[0] - 9, head[2] + 9):
            yield [side, (x, side[1]), (x, end[1]), end]
        # Beside or between what is in the way.
        for y in sorted({round(y, 1) for box in boxes for y in (box[1] - 7, box[3] + 7)}, key=lambda y: abs(y - origin[1]) + abs(y - end[1])):
            yield [origin, (origin[0], y), (end[0], y), end]
            yield [origin, (origin[0] + 12, y), (head[0] - 12, y), (head[0] - 12, end[1]), end]
        for x in sorted({round(x, 1) for box in boxes for x in (box[0] - 7, box[2] + 7)}, key=lambda x: abs(x - origin[0]) + abs(x - end[0])):
            yield [side, (x, side[1]), (x, end[1]), end]

    best: list[Point] | None = None
    fewest = 1e9
    for points in tries():
        hits = sum(crosses(a, b, box) for a, b in itertools.pairwise(points) for box in boxes)
        if hits < fewest:
            best, fewest = points, hits
        if not hits:
            break
    assert best is not None
    first = best[0] if start is not None else border(tail, best[1])
    return straightened([first, *best[1:-1], border(head, best[-2])])


def layered(
    count: int, edges: Sequence[tuple[int, int]], sizes: Sequence[tuple[float, float]], given: Sequence[float | None], room: Sequence[float], light: Iterable[int]
) -> list[Point]:
    """Nodes from left to right by their longest way from a source (Sugiyama, Tagawa and Toda 1981), ordered by the mean of their neighbours.

    ``given`` tells at which height a node would stand, where something else decides that, ``room`` how much a node wants to its right at least;
    nothing follows ``light`` nodes up or down that has another neighbour.
    """
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    layer = [0] * count
    for k in range(count):
        layer[k] = max((layer[j] + 1 for j in before[k]), default=0)
    for k in reversed(range(count)):
        if after[k] and not before[k]:
            layer[k] = min(layer[j] for j in after[k]) - 1
    layers: dict[int, list[int]] = defaultdict(list)
    for k in range(count):
        layers[layer[k]].append(k)
    y = [0.0] * count
    minor = set(light)

    def settle(members: list[int], wanted: dict[int, float]) -> None:
        members.sort(key=lambda k: (wanted[k], k))
        place: list[float] = []
        for position, k in enumerate(members):
            low = wanted[k]
            if position:
                j = members[position - 1]
                low = max(low, place[-1] + (sizes[j][1] + sizes[k][1]) / 2 + 14)
            place.append(low)
        if members:
            heavy = [p - wanted[k] for p, k in zip(place, members, strict=True) if k not in minor] or [0.0]
            shift = sum(heavy) / len(heavy)
            for p, k in zip(place, members, strict=True):
                y[k] = p - shift

    order = sorted(layers)
    for sweep in range(5):
        for level in order if sweep % 2 == 0 else reversed(order):
            members = layers[level]
            wanted = {}
            for position, k in enumerate(members):
                around = before[k] if sweep % 2 == 0 else after[k]
                around = around or (before[k] + after[k] if sweep else [])
                near = [y[j] for j in around if j not in minor] or [y[j] for j in around]
                known = given[k]
                if known is not None:
                    near = [*near, known, known]
                wanted[k] = sum(near) / len(near) if near else (y[k] if sweep else position * 40.0)
            settle(members, wanted)
    x, left = [0.0] * count, 0.0
    for level in order:
        wide = max(sizes[k][0] for k in layers[level])
        for k in layers[level]:
            x[k] = left + wide / 2
        left += wide + max(34.0, *(room[k] for k in layers[level]))
    return list(zip(x, y, strict=True))
