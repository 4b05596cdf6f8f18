"""What the units do over time: states, gates and any value that a step has a name for, read from the opened tape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..core.tape import Record, _table
from ..core.tensor import Tensor
from ..drawing.reading import VIEWS, Lane, Reading
from ..drawing.values import known_values
from ..errors import OutOfRangeError, TapeError
from ..replay.expanding import expanded
from .paths import Path, labelled_paths, masked_rows, state_paths, state_title

OPEN, SHUT = 0.9, 0.1


class ActivationMap:
    """The values of states, gates or other named values at every step.

    ``values`` has them by name, float arrays (steps, batch, units); NaN where a sequence had ended. ``print`` shows ``table()``; ``plot()`` draws the
    units of one sequence over time.
    """

    def __init__(self, values: dict[str, np.ndarray]) -> None:
        self.values = values
        self.names = list(values)

    def __getitem__(self, name: str) -> np.ndarray:
        """The values of a name. Raises ``KeyError``."""
        if name not in self.values:
            raise KeyError(f"activation_map: no value {name!r}; there are {', '.join(self.names)}")
        return self.values[name]

    def table(self) -> str:
        """One line a name: mean, deviation, extremes, the share of values that are exactly 0 and that are beyond ±0.95."""
        rows = []
        for name, values in self.values.items():
            v = values[~np.isnan(values)]
            figures = (v.mean(), v.std(), v.min(), v.max()) if len(v) else (math.nan,) * 4
            rows.append([name, "×".join(map(str, values.shape)), *(f"{x:.3f}" for x in figures), f"{(v == 0).mean():.1%}", f"{(abs(v) > 0.95).mean():.1%}"])
        return _table(["activation", "shape", "mean", "deviation", "min", "max", "zero", "beyond ±0.95"], rows, "<<>>>>>>")

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    def plot(self, axes: Any = None, *, sequence: int = 0, ticks: Sequence[str] | None = None) -> Any:
        """Units (downwards) over time, a panel a name, for one sequence of the batch; ``ticks`` names the steps, as the symbols of a text. Returns the matplotlib figure."""
        shapes = {values.shape[1] for values in self.values.values() if values.ndim > 1}
        if not all(-n <= sequence < n for n in shapes):
            raise OutOfRangeError(f"activation_map: sequence {sequence} of a batch of {min(shapes)}")
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(len(self.names), 1, figsize=(8, 1.1 + 1.3 * len(self.names)), sharex=True, squeeze=False, layout="constrained")
        panels = np.ravel(axes)
        for panel, (name, values) in zip(panels, self.values.items(), strict=True):
            units = values[:, sequence] if values.ndim > 1 else values
            units = units.reshape(len(units), -1).T
            gate = not (units < 0).any()
            top = max(1.0, float(np.nanmax(abs(units), initial=0.0)))
            image = panel.imshow(
                units,
                aspect="auto",
                interpolation="nearest",
                cmap="viridis" if gate else "RdBu_r",
                vmin=0 if gate else -top,
                vmax=top,
                extent=(0.5, len(values) + 0.5, units.shape[0] + 0.5, 0.5),
            )
            panel.set_title(name, loc="left", fontsize=9)
            panel.set_ylabel("unit")
            panel.figure.colorbar(image, ax=panel, pad=0.01)
        if ticks is not None:
            panels[-1].set_xticks(range(1, len(ticks) + 1), ticks)
        else:
            panels[-1].set_xlabel("step t")
        return panels[0].figure


def activation_map(outputs: Tensor | Iterable[Tensor], names: Sequence[str] | None = None) -> ActivationMap:
    """The values of states over time, or of what else a step has names for: ``names=["f", "c"]`` or ``["l1 f"]``, the gates of built-in cells and what your own cell names (``r.name = "r"``).

    It reads the opened tape of ``outputs``, so that they must need a gradient and no backward pass may have released their values.

    Raises ``TapeError`` for outputs without a graph or time steps, ``OutOfRangeError`` for a name that no step has.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> output, _ = nn.LSTM(3, 4, rng=0)(tg.ones(5, 2, 3))
    >>> found = tg.diagnostics.activation_map(output, ["f", "h"])
    >>> found.names, found["l0 h"].shape, bool((found["l0 h"] == output.data).all())
    (['l0 f', 'l0 h'], (5, 2, 4), True)
    """
    values = _Values("activation_map", outputs)
    if names is None:
        return ActivationMap(values.of(state_paths("activation_map", values.tape)))
    paths = labelled_paths(values.reading)
    chosen = []
    for name in names:
        found = [path for path in paths if name in (path.name, path.name.rpartition(" ")[2])]
        if not found:
            raise OutOfRangeError(f"activation_map: no step has a value called {name!r}; there are {', '.join(path.name for path in paths) or 'none with a name'}")
        chosen += found
    return ActivationMap(values.of(chosen))


class _Values:
    """The opened tape of outputs, with values."""

    def __init__(self, what: str, outputs: Any) -> None:
        self.what = what
        seen: dict[Record, Any] = {}
        self.tape = expanded(outputs, values=True, seen=seen)
        self.reading = Reading(self.tape)
        self.known, operands = known_values(self.tape, seen)
        self.rows = masked_rows(self.tape, self.reading, operands)

    def of(self, paths: Sequence[Path]) -> dict[str, np.ndarray]:
        found = {path.name: self._stacked(path) for path in paths}
        for name, values in found.items():
            if values is None:
                raise TapeError(f"{self.what}: no record of the tape keeps the values of {name}; run the loop with tg.unroll, which can tell them")
        return {name: values for name, values in found.items() if values is not None}

    def _stacked(self, path: Path) -> np.ndarray | None:
        parts = {t: (r, self.known[r]) for t, r in path.records.items() if r is not None and r in self.known}
        if not parts:
            return None
        like = next(iter(parts.values()))[1]
        values = np.full((1 + max(path.records), *like.shape), math.nan, like.dtype if like.dtype.kind == "f" else float)
        for t, (record, part) in parts.items():
            if part.shape == like.shape:
                values[t] = part
                place = self.reading.place.get(record)
                rows = None if place is None else self.rows.get(place[:2])
                if rows is not None and part.shape[:1] == rows.shape:
                    values[t, ~rows] = math.nan
        return values


class GateStatistics:
    """How open the gates are. A gate is a sigmoid in a step, or the parts that a step cuts a sigmoid into.

    ``values`` has the gates by name, (steps, batch, units), NaN where a sequence had ended. ``mean``, ``shut`` (share below 0.1) and ``open`` (above 0.9) are arrays by name,
    a value a unit. ``plot()`` draws each gate over time; ``scatter()`` the units by how often they are shut and open.
    """

    def __init__(self, values: dict[str, np.ndarray]) -> None:
        self.values = values
        self.names = list(values)
        flat = {name: v.reshape(-1, *v.shape[2:]) for name, v in values.items()}
        flat = {name: v[~np.isnan(v).reshape(len(v), -1).any(axis=1)] for name, v in flat.items()}
        self.mean = {name: v.mean(axis=0) for name, v in flat.items()}
        self.shut = {name: (v < SHUT).mean(axis=0) for name, v in flat.items()}
        self.open = {name: (v > OPEN).mean(axis=0) for name, v in flat.items()}

    def table(self) -> str:
        """One line a gate: its mean over everything, the range of the units' means, and how often it is shut and open."""
        rows = []
        for name in self.names:
            mean = np.ravel(self.mean[name])
            rows.append([name, f"{mean.mean():.3f}", f"{mean.min():.3f}", f"{mean.max():.3f}", f"{self.shut[name].mean():.1%}", f"{self.open[name].mean():.1%}"])
        return _table(["gate", "mean", "least unit", "most unit", f"shut (< {SHUT})", f"open (> {OPEN})"], rows, "<>>>>>")

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    def plot(self, axes: Any = None) -> Any:
        """Each gate over time: its mean over batch and units as a line, the middle 80 % as a band. Returns the matplotlib axes."""
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(figsize=(7, 3))
        for name, values in self.values.items():
            flat = values.reshape(len(values), -1)
            present = ~np.isnan(flat).all(axis=1)
            flat, steps = flat[present], np.flatnonzero(present) + 1
            (line,) = axes.plot(steps, np.nanmean(flat, axis=1), label=name)
            axes.fill_between(steps, *np.nanquantile(flat, (0.1, 0.9), axis=1), color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set_ylim(0, 1)
        axes.set_xlabel("step t")
        axes.set_ylabel("gate")
        axes.legend()
        return axes

    def scatter(self, axes: Any = None) -> Any:
        """Every unit by the share of the time in which its gate is shut and open (Karpathy et al. 2015, figure 3). Returns the matplotlib axes."""
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(figsize=(4, 4))
        for name in self.names:
            axes.scatter(np.ravel(self.shut[name]), np.ravel(self.open[name]), s=14, alpha=0.6, label=name)
        axes.plot([0, 1], [1, 0], color="0.7", linewidth=0.8)
        axes.set_xlabel(f"share of time shut (< {SHUT})")
        axes.set_ylabel(f"share of time open (> {OPEN})")
        axes.legend()
        return axes


def gate_statistics(outputs: Tensor | Iterable[Tensor]) -> GateStatistics:
    """How open the gates of every layer are, over time and by unit; a gate is a sigmoid within a step.

    It reads the opened tape of ``outputs``, as :func:`activation_map` does.

    Raises ``TapeError`` for outputs without a graph, and where no step has a sigmoid.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> output, _ = nn.GRU(3, 4, rng=0)(tg.ones(5, 2, 3))
    >>> gates = tg.diagnostics.gate_statistics(output)
    >>> gates.names, gates.mean["l0 z"].shape
    (['l0 r', 'l0 z'], (4,))
    """
    values = _Values("gate_statistics", outputs)
    reading = values.reading
    named = {record: path.name for path in labelled_paths(reading) for record in path.records.values() if record is not None}
    paths: dict[tuple[Lane, str], Path] = {}
    for lane in reading.lanes:
        title = state_title(reading, lane)
        for column, members in lane.groups.items():
            for k, record in enumerate(gate for r in members if r.op.name == "sigmoid" for gate in _parts(r, members)):
                name = named.get(record, f"{title} sigmoid {k + 1}")
                paths.setdefault((lane, name), Path(name, lane.backwards)).records[column] = record
    found = values.of(list(paths.values()))
    if not found:
        raise TapeError("gate_statistics: no step of the tape has a gate, which is a sigmoid within a step")
    return GateStatistics(found)


def _parts(gate: Record, members: list[Record]) -> list[Record]:
    """What a step cuts a gate block into, where nothing reads the whole of it; else the block itself."""
    readers = [r for r in members if gate in r.parents]
    if readers and all(r.op.name in ("getitem", *VIEWS) for r in readers):
        return readers
    return [gate]
