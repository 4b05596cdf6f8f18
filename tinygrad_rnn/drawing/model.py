"""What a picture shows, as plain data: nodes with ports, edges with gradient norms, steps, shared parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

Point = tuple[float, float]


@dataclass(slots=True)
class Port:
    """A part of a node's value: one gate of four. ``x`` is its middle, from the left end of the node."""

    id: str
    label: str
    shape: tuple[int, ...] = ()
    norm: float | None = None
    value: float | None = None
    x: float = 0.0
    width: float = 0.0


@dataclass(slots=True)
class Node:
    """One box of a picture.

    ``kind`` is op, split, input, state (a first one), bar (an operation on all steps at once), cell, fold (steps that are not drawn)
    or rail (a state on its way through them: ``series`` has its gradient norms in order of time). ``step`` counts from 1,
    ``record`` is the place of its record in execution order among those of the tape, ``parameters`` the ids of those it reads.
    ``norm`` is the norm of the gradient that arrives here, ``value`` that of the value; None where they were not asked for.
    ``mark`` says why it stands out: it is framed in vermilion, thickly. ``x`` and ``y`` are its middle, y downwards, in points.
    """

    id: str
    label: str
    kind: str = "op"
    op: str = ""
    name: str | None = None
    state: str | None = None
    shape: tuple[int, ...] = ()
    dtype: str = ""
    scope: str = ""
    source: str = ""
    step: int | None = None
    lane: str = ""
    record: int | None = None
    parameters: list[str] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)
    norm: float | None = None
    value: float | None = None
    series: list[float | None] = field(default_factory=list)
    cut: bool = False
    mark: str = ""
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


@dataclass(slots=True)
class Edge:
    """A value on its way, and the gradient on its way back.

    ``norm`` is that of the gradient which the head passes back along the edge; None where nothing was computed, or where none was
    asked for (``tracked`` is then False). ``kind`` is flow, state, output, input, cut, loop or hub (from a weight). ``points`` is its line, corners included.
    """

    tail: str
    head: str
    tail_port: str = ""
    head_port: str = ""
    kind: str = "flow"
    state: str | None = None
    shape: tuple[int, ...] = ()
    step: int | None = None
    tracked: bool = True
    norm: float | None = None
    relative: float | None = None
    label: str = ""
    points: list[Point] = field(default_factory=list)

    @property
    def flow(self) -> str:
        """How the gradient fares here: none, unasked, zero, vanishing, exploding, nan, inf or healthy."""
        if not self.tracked:
            return "unasked"
        if self.norm is None:
            return "none"
        if self.norm != self.norm:
            return "nan"
        if self.norm == float("inf"):
            return "inf"
        if self.norm == 0:
            return "zero"
        if self.relative is None:
            return "healthy"
        return "vanishing" if self.relative < 1e-3 else "exploding" if self.relative > 1e3 else "healthy"


@dataclass(slots=True)
class Cluster:
    """A frame: a time step, several steps folded into one (``steps`` > 1), or a module."""

    id: str
    label: str
    kind: str = "step"
    first: int | None = None
    steps: int = 1
    nodes: list[str] = field(default_factory=list)
    note: str = ""
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0

    @property
    def folded(self) -> bool:
        return self.steps > 1


@dataclass(slots=True)
class Parameter:
    """A weight, drawn once. ``shares`` is the norm of the gradient that it gets from each step, in order of time."""

    id: str
    name: str
    symbol: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    uses: int = 0
    norm: float | None = None
    value: float | None = None
    shares: dict[int, float] = field(default_factory=dict)
    colour: int = 0
    frozen: bool = False
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


@dataclass(slots=True)
class Rail:
    """A horizontal line that a state keeps to through all steps of a lane."""

    state: str
    lane: str
    y: float = 0.0
    reverse: bool = False
