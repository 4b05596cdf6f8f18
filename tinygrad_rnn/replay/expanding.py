"""The tape with its replayed unrolls opened into their steps, and what flows back through it."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from ..core.state import State
from ..core.tape import Constant, Record, reachable, sweep
from ..core.tensor import Tensor, describe, is_tensor, wrap
from ..errors import DtypeError, TapeError
from ..ops.indexing import _getitem
from ..ops.shaping import _stack
from .program import Constant as Given
from .program import Program, Value


class Expansion:
    """How one record stands for all steps of an unroll: enough to write them down again, without a value."""

    def __init__(self, program: Program, x: int, results: Sequence[Any], outputs: int, steps: int, reverse: bool, name: str, labels: Mapping[int, str]) -> None:
        self.program, self.x, self.results, self.outputs = program, x, results, outputs
        self.steps, self.reverse, self.name, self.labels = steps, reverse, name, labels
        self.state = len(results) - outputs

    def records(self, one: Record, parents: Sequence[Record | None]) -> list[Record | None]:
        """The records of all steps, as running them one by one would have made them but for the values; gives those of the results.

        ``one`` is the record that stands for them, ``parents`` what it reads. Their places in execution order lie between its own and the next.
        """
        made = _Steps(one, 2 + self.steps * (self.x + len(self.program.instructions)) + len(self.results))
        program, size, end = self.program, len(self.program.arrays), self.x + self.state
        # One list for all that operations read: the step's values, what is outside of it, its static arguments.
        template, plain = self._template(size + len(parents) - end)
        nodes: list[Record | None] = [*[None] * size, *parents[end:], *[None] * len(plain)]
        constants: list[Any] = list(one.constants or [None] * len(parents))
        told: list[Any] = [*[None] * size, *constants[end:], *plain]
        for k, parent in enumerate(parents[end:], size):
            if parent is not None:
                told[k] = _described(parent)
        nodes[self.x : end], told[self.x : end] = parents[self.x : end], constants[self.x : end]
        columns: list[list[Any]] = [[None] * self.steps for _ in range(self.outputs)]
        read, record = _compiled(_getitem), made.record
        results = [p.index if isinstance(p, Value) else size + p.index for p in self.results]
        unknown = self.unknown
        for t in range(self.steps - 1, -1, -1) if self.reverse else range(self.steps):
            for k in range(self.x):
                shape, dtype, parent = program.shape(k), program.dtype(k), parents[k]
                told[k] = Constant(constants[k].name if parent is None else None, shape, dtype)
                if parent is not None:
                    nodes[k] = record(read, (parent, None), (None, t), (), shape, dtype, one.state, None)
            scope = one.state.replace(scope=(*one.scope, (self.name, t)))
            for k in unknown:
                told[k] = Constant(None, program.shape(k), program.dtype(k))
            for op, active, read_from, alone, static, result, shape, dtype, label in template:
                given = tuple([nodes[k] for k in active])
                if None in given:
                    if not any(given):
                        nodes[result], told[result] = None, Constant(label, shape, dtype)
                        continue
                    rest = None if alone else tuple([None if n is not None else told[k] if nodes[k] is None else _described(nodes[k]) for n, k in zip(given, read_from)])  # noqa: B905
                else:
                    rest = None
                nodes[result] = record(op, given, rest, static, shape, dtype, scope, label)
            for j in range(self.outputs):
                columns[j][t] = nodes[results[j]], told[results[j]]
            after = results[self.outputs :]
            nodes[self.x : end], told[self.x : end] = [nodes[k] for k in after], [told[k] for k in after]
        stacks = [self._stack(made, one.state, column) for column in columns]
        return [*stacks, *nodes[self.x : end]]

    @property
    def unknown(self) -> list[int]:
        """Masks and draws: the numbers of what is neither an input nor computed."""
        top = self.x + self.state
        return [*range(top, self.program.inputs), *(index for _, index in self.program.draws)]

    def _template(self, first: int) -> tuple[list[tuple[Any, ...]], list[Any]]:
        """For each instruction what its record has at every step, operands by number; and the static ones, whose numbers begin at ``first``."""
        template: list[tuple[Any, ...]] = []
        size = len(self.program.arrays)
        # Of what is never tracked there is a number too.
        plain: list[Any] = [None]
        for op, arguments, result in self.program.instructions:
            if not op.compiled:
                op.compile()
            named = dict(zip(op.parameters, arguments, strict=True))
            parts = [(op.sequence, part) for part in named[op.sequence]] if op.sequence else [(p, named[p]) for p in op.operands]
            active, read_from = [], []
            for name, part in parts:
                if isinstance(part, Given):
                    number = first + len(plain)
                    plain.append(describe(part.value))
                else:
                    number = part.index if isinstance(part, Value) else size + part.index
                active.append(number if op.rules.get(name) is not None else first)
                read_from.append(number)
            alone = len(parts) == 1 and not op.sequence
            static = tuple([self._static(named[p]) for p in op.static_names])
            template.append((op, active, read_from, alone, static, result, self.program.shape(result), self.program.dtype(result), self.labels.get(result)))
        return template, plain

    def _static(self, argument: Any) -> Any:
        if isinstance(argument, Given):
            return argument.value
        if type(argument) is tuple:
            return tuple(map(self._static, argument))
        return Constant(None, self.program.at(argument).shape, self.program.at(argument).dtype)

    @staticmethod
    def _stack(made: _Steps, state: State, column: list[tuple[Record | None, Any]]) -> Record | None:
        nodes = tuple([node for node, _ in column])
        first = next((node for node in nodes if node is not None), None)
        if first is None:
            return None
        told = tuple([None if n is not None else c for n, c in column]) if None in nodes else None
        op = _compiled(_stack)
        return made.record(op, nodes, told, (0,) * len(op.static_names), (len(nodes), *first.shape), first.dtype, state, None)


class _Steps:
    """Makes records whose places in execution order lie between one record's and the next."""

    def __init__(self, one: Record, count: int) -> None:
        self.index: float = one.index
        self.by = 1 / (count + 1)

    def record(self, op: Any, parents: Any, constants: Any, static: Any, shape: Any, dtype: Any, state: State, label: str | None) -> Record:
        record = Record.__new__(Record)
        self.index += self.by
        record.op, record.parents, record.constants, record.saved, record.static = op, parents, constants, None, static
        record.shape, record.dtype, record.state, record.index = shape, dtype, state, cast(int, self.index)
        if label is not None:
            record.label = label
        return record


def _compiled(function: Any) -> Any:
    op = function.primitive
    if not op.compiled:
        op.compile()
    return op


def _described(record: Any) -> Constant:
    return Constant(record.name, record.shape, record.dtype)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection while many objects are made that all stay: looking through them again and again would take longer than making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Expanded:
    """The records that outputs depend on, every step of every unroll among them, in execution order.

    ``stands_for`` gives for a record of the tape what stands for it here.
    """

    def __init__(self, roots: Sequence[Record], stands_for: Mapping[Record, Record]) -> None:
        self.roots = tuple(stands_for.get(root, root) for root in roots)
        self.stands_for = stands_for
        self.records = reachable(self.roots)


def expanded(outputs: Tensor | Iterable[Tensor], *, values: bool = False, seen: dict[Record, Any] | None = None) -> Expanded:
    """The tape of outputs with each replayed unroll as the records of its steps, each in its scope.

    Without ``values`` nothing is computed, and a tape whose values were released will do. With them the records hold what
    their rules read, so that a sweep can run; ``TapeError`` says if they were released. ``seen`` is filled with the value of every record of an opened unroll.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn.replay.expanding import expanded
    >>> W = tg.eye(2).requires_grad_()
    >>> _, h = tg.unroll(lambda x, h: (None, tg.tanh(h @ W)), 50, tg.ones(1, 2))
    >>> len(tg.tape(h)), len(expanded(h).records)
    (2, 101)
    """
    nodes = reachable(_roots("graph", outputs))
    stands_for: dict[Record, Record] = {}
    results: dict[Record, list[Record | None]] = {}
    for node in nodes:
        if node.is_leaf:
            continue
        expansion = getattr(node.op, "expansion", None)
        if expansion is not None:
            parents = [None if p is None else stands_for.get(p, p) for p in node.parents]
            results[node] = _with_values(node, parents, seen) if values else expansion.records(node, parents)
        elif node.parents[0] in results:
            found = results[node.parents[0]][node.static[0]]
            if found is not None:
                stands_for[node] = found
        elif any(p in stands_for for p in node.parents):
            stands_for[node] = _moved(node, tuple([None if p is None else stands_for.get(p, p) for p in node.parents]))
    return Expanded(_roots("graph", outputs), stands_for)


def _roots(what: str, outputs: Any) -> list[Record]:
    roots = []
    for k, output in enumerate([outputs] if is_tensor(outputs) else list(outputs)):
        if not is_tensor(output):
            raise DtypeError(f"{what}: output {k} is {type(output).__name__}, expected a tensor")
        if output._node is None:
            raise TapeError(f"{what}: output {k} ({output!r}) has no graph: it requires no grad, or was computed under no_grad")
        roots.append(output._node)
    if not roots:
        raise TapeError(f"{what}: there is no output")
    return roots


def _with_values(one: Record, parents: Sequence[Record | None], seen: dict[Record, Any] | None) -> list[Record | None]:
    if one.saved is None:
        raise released(one)
    pull = one.saved[0]
    given = [wrap(t._data, p) for t, p in zip(pull.held, parents, strict=True)]
    for t, constant in zip(given, one.constants or (), strict=False):
        if constant is not None:
            t._name, t._constant = constant.name, constant

    def observe(op: Any, values: tuple[Any, ...], out: Any) -> None:
        if seen is not None and out._node is not None:
            seen[out._node] = out._data

    results = [t._node for t in pull.opened(given, () if seen is None else (observe,))]
    below = {p for p in parents if p is not None}
    made = [r for r in reachable([r for r in results if r is not None], lambda r: r not in below) if r not in below]
    for k, record in enumerate(made):
        record.index = cast(int, one.index + (k + 1) / (len(made) + 1))
    return results


def released(record: Record) -> TapeError:
    return TapeError(
        f"graph: the values kept by {record.where()} were released by a backward pass, so that no gradient can be computed for a picture; "
        "draw before it, or call backward(retain_graph=True)"
    )


def _moved(record: Record, parents: tuple[Record | None, ...]) -> Record:
    """A copy that reads other records."""
    copy = Record.__new__(Record)
    for name in ("op", "constants", "saved", "static", "shape", "dtype", "state", "index", "source", "label"):
        if hasattr(record, name):
            setattr(copy, name, getattr(record, name))
    copy.parents = parents
    return copy


class Flow(Expanded):
    """What flows back from outputs: the norm of the cotangent at every record of every step, and along every edge.

    ``norms`` holds the Frobenius norm of the whole cotangent that arrives at a record, a weight among them; ``passed`` what a
    record hands to each record that it reads, in the order of its operands: for a weight, one entry each time it is used.
    """

    def __init__(self, outputs: Tensor | Iterable[Tensor], gradients: Sequence[Any] | None = None) -> None:
        tensors: list[Any] = [outputs] if is_tensor(outputs) else list(outputs)
        with uncollected():
            opened = expanded(tensors, values=True)
        super().__init__(_roots("graph", tensors), opened.stands_for)
        for record in self.records:
            if not record.is_leaf and record.saved is None:
                raise released(record)
        self.norms: dict[Record, float] = {}
        self.passed: dict[Record, list[tuple[Record, float]]] = {}
        seeds = [np.ones(t.shape, t.dtype) if g is None else np.asarray(g, t.dtype) for t, g in zip(tensors, gradients or [None] * len(tensors), strict=True)]
        with uncollected(), np.errstate(all="ignore"):
            sweep(list(zip(self.roots, seeds, strict=True)), retain_graph=True, observe=self._observe, passed=self._passed)

    def _observe(self, record: Record, g: Any) -> None:
        self.norms[record] = norm(g)

    def _passed(self, record: Record, parent: Record, g: Any) -> None:
        entry = self.passed.get(record)
        if entry is None:
            self.passed[record] = [(parent, norm(g))]
        else:
            entry.append((parent, norm(g)))


def norm(g: Any) -> float:
    """The Frobenius norm of a gradient in any form that the sweep knows; no overflow, no underflow on the way."""
    if g.shape is None:
        if isinstance(g, tuple):
            x, rows = g
            if x is not None and len(x) * len(x) <= x.shape[1] * rows.shape[1]:
                # |x'g|^2 is the sum over pairs of rows of (x x') (g g').
                square = float(np.vdot(x.dot(x.T), rows.dot(rows.T)))
                if 1e-25 < square < 1e30:
                    return math.sqrt(square)
        g = g.values
    flat = g.ravel()
    square = float(flat.dot(flat))
    if 1e-25 < square < 1e30:
        return math.sqrt(square)
    top = float(np.abs(flat).max(initial=0.0))
    if top == 0 or not math.isfinite(top):
        return top
    return top * float(np.linalg.norm(flat.astype(np.float64) / top))
