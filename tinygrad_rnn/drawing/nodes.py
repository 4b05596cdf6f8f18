"""The nodes of a picture: stamped from the sketches in the places that were arranged."""

from __future__ import annotations

import functools
import math
from typing import Any

from ..core.state import scope_text
from ..core.tape import Record
from .arranging import Arrangement, Block
from .lanes import INPUT, LaneView, field_label
from .layout import text_width
from .model import Cluster, Node, Parameter, Port, Rail
from .naming import Ids, symbols
from .reading import Reading
from .sketch import Box

_dtype = functools.lru_cache(str)
_scope = functools.lru_cache(scope_text)


class Nodes:
    """The nodes, frames and parameters of a picture. ``flow`` and ``values`` may be None."""

    def __init__(self, reading: Reading, depth: str, fold: Any, rolled: bool, flow: Any, values: Any) -> None:
        self.reading, self.depth, self.rolled, self.flow, self.values = reading, depth, rolled, flow, values
        self.norms: dict[Record, float] = flow.norms if flow is not None else {}
        self.nodes: list[Node] = []
        self.clusters: list[Cluster] = []
        self.rails: list[Rail] = []
        self.parameters: list[Parameter] = []
        self.parameter: dict[Any, Parameter] = {}
        self.symbol: dict[Record, str] = {}
        self.same: dict[Any, Record] = {}
        self.ids = Ids()
        self.number = {record: k for k, record in enumerate(reading.tape.records)}
        self._parameters()
        self.plan = Arrangement(reading, depth, fold, rolled, flow is not None, self.symbol)
        self.box: dict[tuple[int, int, int], Node] = {}
        """The node of a box, by lane, column and number in its sketch."""
        self.through: dict[tuple[int, int, int], Node] = {}
        """The node that stands for a state (-1: for the lane) in a folded column, by lane and column."""
        self.given: dict[tuple[int, int, int], Node] = {}
        """The constant that a line of a sketch begins at, by lane, column and number."""
        self.rest: dict[int, Node] = {}
        self.at: dict[str, Node] = {}
        for block in self.plan.blocks:
            self._frames(block)
        self._outer_nodes()

    # Parameters

    def _parameters(self) -> None:
        weights, used = self.reading.weights, {}
        roots: dict[Record, Record] = {record: self._root(record) for record in weights}
        for record in sorted(self.reading.readers, key=lambda r: r.index):
            used.update(dict.fromkeys([roots[p] for p in record.parents if p in weights]))
        names = [tuple(leaf.name or f" {leaf.index}" for leaf in weights[root]) for root in used]
        unnamed = {name: f"w{k + 1}" for k, name in enumerate(dict.fromkeys(n for parts in names for n in parts if n[0] == " "))}
        names = [tuple(unnamed.get(part, part) for part in parts) for parts in names]
        for colour, (root, parts, short) in enumerate(zip(used, names, symbols(names), strict=True)):
            name = " + ".join(parts) if root.is_leaf or root.op.name == "add" else f"{root.op.name}({', '.join(parts)})"
            made = Parameter(self.ids.new(f"param-{name}"), name, short, root.shape, str(root.dtype), norm=self.norms.get(root), colour=colour)
            made.value = None if self.values is None else self.values.get(root)
            self.parameters.append(made)
            self.parameter[root] = made
        for record in weights:
            root = roots[record]
            if root in self.parameter:
                self.parameter[record] = self.parameter[root]
                self.symbol[record] = self.parameter[root].symbol
        for key, constant in self.reading.frozen.items():
            name = constant.name or "constant"
            self.parameter[key] = Parameter(self.ids.new(f"param-{name}"), name, name, constant.shape, str(constant.dtype), colour=-1, frozen=True)
            self.parameters.append(self.parameter[key])

    def _root(self, record: Any) -> Record:
        """The leaf that a view is a view of, or the record that is made of several leaves."""
        while not record.is_leaf and len([p for p in record.parents if p is not None]) == 1:
            record = record.parents[0]
        # The same made again, as at each call of a module, is the same.
        return self.same.setdefault(record if record.is_leaf else (record.op, record.parents), record)

    def _shares(self) -> None:
        """How often each parameter is used, and what it gets from each step."""
        weights, place, passed = self.reading.weights, self.reading.place, {} if self.flow is None else self.flow.passed
        squares: dict[str, dict[int, float]] = {p.id: {} for p in self.parameters}
        for record in self.reading.tape.records if self.reading.frozen else self.reading.readers:
            if record.is_leaf or record in weights:
                continue
            step = place[record][1] + 1 if record in place else 0
            for parent in record.parents:
                if parent in weights:
                    self.parameter[parent].uses += 1
            if self.reading.frozen and record.constants:
                for constant in record.constants:
                    if id(constant) in self.reading.frozen:
                        self.parameter[id(constant)].uses += 1
            for parent, norm in passed.get(record, ()):
                if parent in weights:
                    row = squares[self.parameter[parent].id]
                    row[step] = math.hypot(row.get(step, 0.0), norm)
        for parameter in self.parameters:
            parameter.shares = dict(sorted(squares[parameter.id].items()))

    # Nodes

    def _frames(self, block: Block) -> None:
        """The frames of the steps of a block, with the nodes in them."""
        for position, columns in enumerate(block.shown):
            first, last = (self._time(columns[0]), self._time(columns[-1]))
            x, bottom = block.x(position), block.bottom
            name = f"{block.prefix}step{first}" if len(columns) == 1 else f"{block.prefix}step{first}-{last}"
            label = "step t" if self.rolled else f"t = {first}" if len(columns) == 1 else f"t = {first} … {last}"
            frame = Cluster(self.ids.new(name), label, "step", columns[0] + 1, len(columns), x=x, y=block.top, width=block.width, height=bottom - block.top)
            self.clusters.append(frame)
            for view in block.lanes:
                if len(columns) > 1:
                    self._folded(block, view, columns, frame)
                elif columns[0] in view.steps:
                    self._stamp(block, view, columns[0], x, frame)
        for view in block.lanes:
            if len(block.lanes) > 1 or len(self.plan.blocks) > 1:
                name = self.ids.new(f"{block.prefix}lane-{view.id}")
                arrow = "←" if view.lane.backwards else "→"
                self.clusters.append(Cluster(name, f"{view.lane.path} {arrow}", "lane", x=block.left, y=view.top, width=block.right - block.left, height=view.height + 22))
            for state, y in view.rails.items():
                self.rails.append(Rail(view.names[state], view.id, self.base(view) + y, view.lane.backwards))

    def _time(self, column: int) -> str:
        return "t" if self.rolled else ".".join(str(part + 1) for part in self.reading.times[column])

    def base(self, view: LaneView) -> float:
        """Where the rows of a lane begin."""
        return view.top + 22

    def _stamp(self, block: Block, view: LaneView, column: int, x: float, frame: Cluster) -> None:
        lane, step, time = view.lane, view.steps[column], "(t)" if self.rolled else self._time(column)
        reader, records = self.plan.readers[lane], lane.groups[column]
        prefix = frame.id if len(block.lanes) == 1 else f"{frame.id}-{view.id}"
        base, many = self.base(view), len(self.reading.lanes) > 1
        for k, box in enumerate(step.sketch.boxes):
            (px, py), (width, height) = step.placed.boxes[k], step.placed.sizes[k]
            record = records[box.which]
            state = view.names.get(box.which) if self.depth != "cell" else None
            node = self._node(f"{prefix}-{state or box.name or box.op}", box, record, records)
            node.label = reader.label(box, records, time) if not box.fields else ""
            node.state, node.step, node.lane = state, column + 1, view.id if many else ""
            node.x, node.y, node.width, node.height = x + view.x(px, block.width), base + py, width, height
            self._ports(node, box, records, lane.backwards)
            self._add(node, frame)
            self.box[lane.number, column, k] = node
        for k, (px, py) in step.placed.inputs.items():
            line = step.sketch.lines[k]
            label = reader.input_label(line, records, time)
            node = Node(
                self.ids.new(f"{prefix}-{label.split()[0]}"), label, "input", shape=line.shape, dtype=str(line.source[1].dtype), step=column + 1, lane=view.id if many else ""
            )
            node.x, node.y, node.width, node.height = x + view.x(px, block.width), base + py, text_width(label, 10) + 22, INPUT
            self._add(node, frame)
            self.given[lane.number, column, k] = node

    def _node(self, name: str, box: Box, record: Record, records: list[Record]) -> Node:
        node = Node(self.ids.new(name), "", box.kind, box.op, box.name, None, record.shape, _dtype(record.dtype), _scope(record.state.scope), getattr(record, "source", ""))
        node.record = self.number.get(record)
        node.norm = self.norms.get(record)
        node.value = None if self.values is None else self.values.get(record)
        for weight, _, _ in box.weights:
            if weight in self.parameter and self.parameter[weight].id not in node.parameters:
                node.parameters.append(self.parameter[weight].id)
        node.parameters += [self.parameter[id(constant)].id for constant in box.frozen]
        return node

    def _ports(self, node: Node, box: Box, records: list[Record], mirrored: bool = False) -> None:
        width = node.width / max(1, len(box.fields))
        for j, field in enumerate(box.fields):
            record = records[field.which]
            place = len(box.fields) - 1 - j if mirrored else j
            value = None if self.values is None else self.values.get(record)
            node.ports.append(Port(f"p{j}", field_label(field), record.shape, self.norms.get(record), value, (place + 0.5) * width, width))

    def _add(self, node: Node, frame: Cluster | None = None) -> None:
        self.nodes.append(node)
        self.at[node.id] = node
        if frame is not None:
            frame.nodes.append(node.id)

    def _folded(self, block: Block, view: LaneView, columns: list[int], frame: Cluster) -> None:
        """A folded lane: a line of text, and each state on its rail with its norms at all of these steps."""
        lane, base = view.lane, self.base(view)
        boxes = len(self.plan.readers[lane].reference.boxes)
        suffix = "" if len(block.lanes) == 1 else f"-{view.id}"
        label = f"{len(columns)} more steps,\nthe same {boxes} boxes" if self.depth != "cell" else f"{len(columns)} more steps"
        node = Node(self.ids.new(f"{frame.id}{suffix}-folded"), label, "fold", step=columns[0] + 1, lane=view.id if len(self.reading.lanes) > 1 else "")
        levels = sorted(view.rails.values())
        gaps = list(zip([-20.0, *[y + 16 for y in levels]], [*[y - 16 for y in levels], view.height], strict=True))
        low, high = max(gaps, key=lambda gap: gap[1] - gap[0])
        node.x, node.y, node.width, node.height = frame.x + frame.width / 2, base + (low + high) / 2, min(130.0, frame.width - 20), 34.0
        self._add(node, frame)
        for state, y in view.rails.items():
            rail = Node(self.ids.new(f"{frame.id}{suffix}-{view.names[state]}"), view.names[state], "rail", state=view.names[state], step=columns[0] + 1, lane=node.lane)
            rail.series = [self.norms.get(lane.groups[c][state]) if state < len(lane.groups[c]) else None for c in columns]
            rail.x, rail.y, rail.width, rail.height = frame.x + frame.width / 2, base + y, frame.width - 40 - 2 * block.before, 26.0
            known = [norm for norm in rail.series if norm is not None]
            rail.norm = known[-1] if known else None
            self._add(rail, frame)
            for column in columns:
                self.through[lane.number, column, state] = rail
        for column in columns:
            self.through[lane.number, column, -1] = node

    def _outer_nodes(self) -> None:
        plan, records = self.plan, self.reading.outside
        roots = set(self.reading.roots)
        for k, box in enumerate(plan.rest.boxes):
            if k in plan.inlined:
                continue
            record = records[box.which]
            node = self._node(box.name or box.op, box, record, records)
            node.label = plan.rest_label(k) if not box.fields else ""
            width, height = plan.rest_size(k)
            if k in plan.bar:
                block = plan.bar[k]
                node.kind = "bar"
                node.x, node.y, node.width, node.height = (block.left + block.right) / 2, plan.bar_y[k], block.right - block.left, height - 2
            else:
                node.x, node.y = plan.place[k]
                node.width, node.height = width, height
                if record in roots:
                    node.kind, node.height = "output", height + 10
                    name = box.name or ("loss" if record.shape == () else "output")
                    node.label = node.label if node.name else f"{node.label}\n{name}"
                    node.width = max(width, max(text_width(part) for part in node.label.split("\n")) + 22)
            self._ports(node, box, records)
            self._add(node)
            self.rest[k] = node
