"""When a backward sweep reaches what, step by step from the loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .model import Cluster, Node

if TYPE_CHECKING:
    from .graph import Graph


def block_of(frame: Cluster) -> str:
    """The block of a step's frame, as its id tells it."""
    return frame.id.rpartition("step")[0]


@dataclass(slots=True)
class Sweep:
    """The stops of a sweep: the loss, then step after step. Lanes that do not wait for each other stop together.

    ``stop`` is the number of the stop at which the gradient of each node is complete, ``labels`` names the stops.
    """

    graph: Graph
    frames: Sequence[Cluster]
    stop: dict[str, int] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        nodes = {node.id: node for node in self.graph.nodes}
        home = {name: frame for frame in self.frames for name in frame.nodes if name in nodes}
        turn = self._turns(nodes, home)
        number = {each: k + 1 for k, each in enumerate(sorted(set(turn.values())))}
        self.stop = {name: number[each] for name, each in turn.items()}
        self.labels = ["loss", *self._labels(nodes, home, len(number))]
        self._elsewhere(home)

    def _turns(self, nodes: dict[str, Node], home: dict[str, Cluster]) -> dict[str, tuple[int, int]]:
        """For each node in a step: how far its lane is from the loss, and how far the step from the lane's end."""
        reverse = {rail.lane for rail in self.graph.rails if rail.reverse}

        def unit(name: str) -> Any:
            # Where all lanes of a block run one way, its last step is complete in all of them at once.
            frame = home.get(name)
            return name if frame is None else (block_of(frame), nodes[name].lane if reverse else "")

        after: dict[Any, set[Any]] = defaultdict(set)
        for edge in self.graph.edges:
            if unit(edge.tail) != unit(edge.head):
                after[unit(edge.tail)].add(unit(edge.head))
        away = _distances([*dict.fromkeys(map(unit, nodes))], after)
        columns: dict[str, list[int]] = defaultdict(list)
        for frame in self.frames:
            columns[block_of(frame)].append(frame.first or 0)
        found = {}
        for name, frame in home.items():
            steps = columns[block_of(frame)]
            found[name] = (away[unit(name)], (frame.first or 0) - steps[0] if nodes[name].lane in reverse else steps[-1] - (frame.first or 0))
        return found

    def _labels(self, nodes: dict[str, Node], home: dict[str, Cluster], count: int) -> list[str]:
        """What steps each stop is at: with their blocks where there are several, with their lanes where these run both ways."""
        both = any(rail.reverse for rail in self.graph.rails)
        words: list[dict[str, None]] = [{} for _ in range(count)]
        for name, frame in home.items():
            block, lane = block_of(frame).rstrip("-"), nodes[name].lane if both else ""
            words[self.stop[name] - 1][frame.label + (f", {block}" if block else "") + (f" {lane}" if lane else "")] = None
        return ["; ".join(row) for row in words]

    def _elsewhere(self, home: dict[str, Cluster]) -> None:
        """What is in no step is complete when all that it goes to are."""
        heads: dict[str, list[str]] = defaultdict(list)
        for edge in self.graph.edges:
            heads[edge.tail].append(edge.head)
        outer = [node for node in self.graph.nodes if node.id not in home]
        for node in sorted(outer, key=lambda n: -1 if n.record is None else n.record, reverse=True):
            self.stop[node.id] = max((self.stop.get(head, 0) for head in heads[node.id]), default=0)


def _distances(units: Iterable[Any], after: dict[Any, set[Any]]) -> dict[Any, int]:
    """The longest way from each unit to an end. Of units that wait for each other, each step in its turn, the one that is met first is the nearer."""
    found: dict[Any, int] = {}
    for start in units:
        stack = [start]
        while stack:
            unit = stack[-1]
            ahead = [] if unit in found else [other for other in after[unit] if other not in found and other not in stack]
            if ahead:
                stack.append(min(ahead, key=str))
                continue
            stack.pop()
            found.setdefault(unit, 1 + max((found.get(other, 0) for other in after[unit]), default=0))
    return found
