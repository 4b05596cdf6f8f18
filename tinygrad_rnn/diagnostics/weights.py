"""What the weights are: spectral radii of what a step does to its state, dead and saturated units, and how large updates are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..core.tape import Record, _table
from ..core.tensor import Tensor, is_tensor, tensor
from ..core.transforms import jacobian
from ..drawing.naming import number, size
from ..drawing.reading import Reading
from ..drawing.values import known_values
from ..errors import DtypeError, ShapeError
from ..nn.module import Module
from ..ops.shaping import concatenate, reshape
from ..replay import tree
from ..replay.expanding import expanded
from .paths import masked_rows, state_title


class SpectralRadius:
    """Eigenvalues of recurrent weights, or of a step's Jacobian.

    ``radii`` are the largest absolute eigenvalues by name, ``norms`` the largest singular values, ``eigenvalues`` complex arrays. A gradient that goes back k steps through a
    linear recurrence changes by about radius**k, and by no more than (largest singular value)**k, through tanh too (Pascanu, Mikolov and Bengio 2013, section 2.1). ``float(...)`` is the largest radius.
    """

    def __init__(self, matrices: Mapping[str, np.ndarray]) -> None:
        self.eigenvalues = {name: np.linalg.eigvals(m) for name, m in matrices.items()}
        self.radii = {name: float(abs(values).max(initial=0.0)) for name, values in self.eigenvalues.items()}
        self.norms = {name: float(np.linalg.norm(m, 2)) if m.size else 0.0 for name, m in matrices.items()}
        self.names = list(matrices)

    def __float__(self) -> float:
        return max(self.radii.values())

    def table(self) -> str:
        """One line a matrix: its size, its radius, its largest singular value, and what 100 steps of the radius make of a gradient."""
        rows = [[name, str(len(self.eigenvalues[name])), f"{self.radii[name]:.3f}", f"{self.norms[name]:.3f}", number(_power(self.radii[name], 100))] for name in self.names]
        return _table(["matrix", "size", "spectral radius", "largest singular value", "radius^100"], rows, "<>>>>")

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    def plot(self, axes: Any = None) -> Any:
        """The eigenvalues in the complex plane with the unit circle. Returns the matplotlib axes."""
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(figsize=(4, 4))
        angle = np.linspace(0, 2 * math.pi, 200)
        axes.plot(np.cos(angle), np.sin(angle), color="0.7", linewidth=0.8)
        for name, values in self.eigenvalues.items():
            axes.scatter(values.real, values.imag, s=12, alpha=0.7, label=f"{name}: {self.radii[name]:.2f}")
        axes.set_aspect("equal")
        axes.set_xlabel("real part")
        axes.set_ylabel("imaginary part")
        axes.legend(fontsize=8)
        return axes


def _power(radius: float, k: int) -> float:
    with np.errstate(over="ignore"):
        return float(np.float64(radius) ** k)


def spectral_radius(what: Any, x: Any = None, state: Any = None) -> SpectralRadius:
    """The spectral radius of a recurrent weight, of all those of a module, or of a step at a state.

    - a matrix (n, n), or the gates' matrices upon each other (k n, n): one radius a gate;
    - a module: its parameters called ``weight_hh``, gate by gate in the order of its cell;
    - a cell or step ``(x, state) -> state`` or ``(y, state)``, with ``x`` (1, features) or None and ``state`` (1, n), or nested tuples of such: that of the Jacobian of the new state by the
      old one there, by which a gradient is multiplied at this step. It serves any cell, gates and residual paths included.

    Raises ``ShapeError`` for a matrix that is not square, or blocks that are not; ``DtypeError`` for anything else.

    >>> import numpy as np, tinygrad_rnn as tg
    >>> float(tg.diagnostics.spectral_radius(np.diag([0.5, -2.0])))
    2.0
    >>> W = tg.tensor([[0.0, 3.0], [3.0, 0.0]])
    >>> at = tg.diagnostics.spectral_radius(lambda x, h: tg.tanh(h @ W), state=tg.zeros(1, 2))
    >>> round(float(at), 6)
    3.0
    """
    if state is not None:
        if not callable(what):
            raise DtypeError(f"spectral_radius: with a state the first argument must be a cell or a step, got {type(what).__name__}")
        return SpectralRadius({"step": _step_jacobian(what, x, state)})
    if isinstance(what, Module):
        found = {name: p._data for name, p in what.named_parameters() if "weight_hh" in name and p.ndim == 2}
        if not found:
            raise DtypeError(f"spectral_radius: {type(what).__name__} has no parameter called weight_hh; give the matrix itself, or a cell with a state")
        return SpectralRadius({f"{name}{gate}": block for name, matrix in found.items() for gate, block in _blocks(name, matrix)})
    if not (is_tensor(what) or isinstance(what, np.ndarray)):
        raise DtypeError(f"spectral_radius: expected a matrix, a module, or a step with a state, got {type(what).__name__}")
    matrix = what._data if is_tensor(what) else what
    name = (what.name if is_tensor(what) else None) or "matrix"
    return SpectralRadius({f"{name}{gate}": block for gate, block in _blocks(name, matrix)})


_GATES = {1: ("",), 3: (" r", " z", " n"), 4: (" i", " f", " g", " o")}


def _blocks(name: str, matrix: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The square blocks of gates' weights, with the gates' letters where their number is that of a built-in cell."""
    if matrix.ndim != 2 or not matrix.shape[1] or matrix.shape[0] % matrix.shape[1]:
        raise ShapeError(f"spectral_radius: {name} has shape {matrix.shape}, expected (n, n), or (gates * n, n)")
    count = matrix.shape[0] // matrix.shape[1]
    letters = _GATES.get(count, tuple(f" {k + 1}" for k in range(count)))
    return list(zip(letters, np.split(np.asarray(matrix, np.float64), count), strict=True))


def _step_jacobian(step: Callable[..., Any], x: Any, state: Any) -> np.ndarray:
    """The Jacobian of a step's new state by its old one, all parts of the state one after another."""
    state = tree.mapped(lambda part: tensor(part._data) if is_tensor(part) else tensor(np.asarray(part)), state)
    leaves = list(tree.leaves(state))
    sizes = np.cumsum([0, *(leaf.size for leaf in leaves)])

    def flat(vector: Tensor) -> Any:
        parts = [reshape(vector[a:b], leaf.shape) for leaf, a, b in zip(leaves, sizes, sizes[1:], strict=False)]
        result = step(x, tree.like(state, iter(parts)))
        new = result if tree.structure(result) == tree.structure(state) else result[1]
        return concatenate([reshape(leaf, -1) for leaf in tree.leaves(new)])

    at = tensor(np.concatenate([np.ravel(leaf._data) for leaf in leaves]), requires_grad=True)
    return np.asarray(jacobian(flat, at).numpy(), np.float64)


class WeightReport:
    """The state of a model's weights and units.

    ``weights`` has a dict a parameter: ``name``, ``shape``, ``mean``, ``rms``, ``gradient`` (rms of ``.grad``, or None), ``update`` (rms of the change since ``before`` as a share of the
    rms of the weights before, or None: about 1e-3 is usual). ``units`` has a dict a nonlinearity: ``name``, ``kind``, ``count``, ``dead`` and ``saturated`` (arrays: which units).
    """

    def __init__(self, weights: list[dict[str, Any]], units: list[dict[str, Any]]) -> None:
        self.weights, self.units = weights, units

    def table(self) -> str:
        """A line a parameter, and below a line a nonlinearity."""
        rows = [[w["name"], size(w["shape"]), f"{w['mean']:.3g}", f"{w['rms']:.3g}", number(w["gradient"]), number(w["update"])] for w in self.weights]
        parts = [_table(["weight", "shape", "mean", "rms", "gradient rms", "update / weight"], rows, "<<>>>>")]
        if self.units:
            lines = [[u["name"], u["kind"], str(u["count"]), str(int(u["dead"].sum())), str(int(u["saturated"].sum()))] for u in self.units]
            parts.append(_table(["units", "kind", "count", "dead", "saturated"], lines, "<<>>>"))
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    def plot(self, axes: Any = None) -> Any:
        """The update-to-weight ratio of every parameter, or its rms where no update is known. Returns the matplotlib axes."""
        updates = all(w["update"] is not None for w in self.weights)
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(figsize=(7, 0.8 + 0.25 * len(self.weights)))
        axes.barh([w["name"] for w in self.weights], [w["update" if updates else "rms"] for w in self.weights], color="#0072B2")
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("update / weight" if updates else "rms of the weights")
        if updates:
            axes.axvline(1e-3, color="0.6", linewidth=0.8)
        return axes


def weight_report(model: Module, outputs: Tensor | Iterable[Tensor] | None = None, *, before: Mapping[str, Any] | None = None) -> WeightReport:
    """Weights, gradients and updates of a model, and its dead and saturated units.

    ``before`` holds the weights before an update, as ``{name: p.numpy().copy() for name, p in model.named_parameters()}`` does: the report then has the ratio of update to weight.
    ``outputs`` are what the model gave, before ``backward()``: over all steps and sequences of their tape a relu unit that is always 0 is dead, and a tanh (sigmoid) unit that is beyond
    ±0.99 (outside 0.005 to 0.995) at more than nine in ten of them is saturated.

    Raises ``DtypeError`` for what is no module, ``ShapeError`` where ``before`` is of another model.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> model = nn.Sequential(nn.Linear(2, 2, rng=0), nn.ReLU())
    >>> with tg.no_grad():
    ...     model[0].bias[1] = -100.0
    >>> report = tg.diagnostics.weight_report(model, model(tg.ones(5, 2)).sum())
    >>> report.units[0]["dead"]
    array([False,  True])
    """
    if not isinstance(model, Module):
        raise DtypeError(f"weight_report: expected a module, got {type(model).__name__}")
    weights = []
    for name, p in model.named_parameters():
        update = None
        if before is not None:
            if name not in before or np.shape(before[name]) != p.shape:
                raise ShapeError(
                    f"weight_report: before has no {name} of shape {p.shape}; take it from the same model: {{name: p.numpy().copy() for name, p in model.named_parameters()}}"
                )
            old = np.asarray(before[name]._data if is_tensor(before[name]) else before[name])
            update = _ratio(_rms(p._data - old), _rms(old))
        gradient = None if p._grad is None else _rms(p._grad._data)
        weights.append({"name": name, "shape": p.shape, "mean": float(p._data.mean()) if p.size else 0.0, "rms": _rms(p._data), "gradient": gradient, "update": update})
    return WeightReport(weights, [] if outputs is None else _units(outputs))


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.inf if a else 0.0


_KINDS = ("relu", "tanh", "sigmoid")


def _units(outputs: Any) -> list[dict[str, Any]]:
    """Each nonlinearity at all of its steps: which of its units do nothing."""
    tape = expanded(outputs, values=True)
    reading = Reading(tape)
    known, operands = known_values(tape)
    rows = masked_rows(tape, reading, operands)
    groups: dict[tuple[Any, ...], list[np.ndarray]] = {}
    names: dict[tuple[Any, ...], str] = {}
    cut: dict[Record, list[str]] = {}
    for record in tape.records:
        if not record.is_leaf and record.op.name == "getitem" and record.name and record.parents[0] is not None:
            cut.setdefault(record.parents[0], []).append(record.name)
    for record in tape.records:
        if record.is_leaf or record.op.name not in _KINDS or record not in known or not record.shape:
            continue
        values, place = known[record], reading.place.get(record)
        if place is None:
            scope = "/".join(name for name, _ in record.scope)
            key: tuple[Any, ...] = (scope, record.op.name, record.index)
        else:
            key = (state_title(reading, place[0]), record.op.name, sum(r.op is record.op for r in place[0].groups[place[1]][: place[2]]))
            mask = rows.get(place[:2])
            if mask is not None and mask.shape == values.shape[:1]:
                values = values[mask]
        names[key] = record.name or (", ".join(cut[record]) if record in cut else "")
        axis = 1 if values.ndim == 4 else values.ndim - 1
        groups.setdefault(key, []).append(np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]))
    counts: dict[tuple[str, str], int] = {}
    for scope, kind, _ in groups:
        counts[scope, kind] = counts.get((scope, kind), 0) + 1
    seen: dict[tuple[str, str], int] = {}
    found = []
    for group, parts in groups.items():
        scope, kind, _ = group
        k = seen[scope, kind] = seen.get((scope, kind), 0) + 1
        values = np.concatenate(parts)
        low = {"relu": -np.inf, "tanh": -0.99, "sigmoid": 0.005}[kind]
        high = {"relu": np.inf, "tanh": 0.99, "sigmoid": 0.995}[kind]
        saturated = ((values < low) | (values > high)).mean(axis=0) > 0.9
        dead = (values == 0).all(axis=0) if kind == "relu" else np.zeros(values.shape[1], bool)
        label = names[group] or f"{kind}{f' {k}' if counts[scope, kind] > 1 else ''}"
        found.append({"name": f"{scope} {label}".strip(), "kind": kind, "count": values.shape[1], "dead": dead, "saturated": saturated})
    return found
