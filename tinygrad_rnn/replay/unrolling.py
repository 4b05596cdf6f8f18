"""``unroll``: a step function applied along the time axis, every operation of every step on the tape."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.state import current, installed, plain
from ..core.tensor import Tensor, is_tensor, run_sweep, wrap
from ..errors import DtypeError, OutOfRangeError, ShapeError, TapeError
from ..native import available
from ..ops.elementwise import where
from ..ops.shaping import _reshape, reshape, stack
from . import tree
from .agreement import close, magnitude
from .explaining import Explanation, explained
from .program import Program, Trace, Unreplayable, identity
from .replaying import LIMIT, PLANS, Kept, Plan, at, remember, replay

_MODES = ("auto", "eager", "replay")
_INTEGER = int | np.integer


def unroll(
    step: Callable[[Any, Any], Any],
    inputs: Any,
    state: Any,
    *,
    lengths: Any = None,
    reverse: bool = False,
    mode: str = "auto",
    name: str = "step",
) -> tuple[Any, Any]:
    """Apply ``step(x_t, state) -> (y_t, state)`` along time; returns the outputs, stacked, and the last state.

    ``inputs`` is (time, batch, ...), or nested tuples of such, or the number of steps, for a step that gets None.
    ``state`` is a Tensor or nested tuples, with the batch first; the step returns one of the same structure, shapes
    and dtypes. Outputs may be nested tuples, or None. With ``lengths`` (batch,) in any order, outputs beyond a
    sequence's length are zero, its state stays what it was at its last step, and padding is never looked at; with
    ``reverse`` the steps run from the last to the first, so that each sequence starts at its own end.
    Each step runs in the scope ``name[t]``, t counted from 0.

    With ``mode="auto"`` one step is recorded and replayed for all, if a second one did the same when this step (or its cell)
    was first seen: Python code that does something else only later, as an ``if t == 5`` does, needs ``mode="eager"``.

    Raises ``ShapeError`` for no steps, inputs of different lengths, or a returned state that does not fit;
    ``OutOfRangeError`` for a length below 1 or above the padded one.

    >>> import tinygrad_rnn as tg
    >>> W = tg.eye(2) * 0.5
    >>> def step(x, h):
    ...     h = tg.tanh(x + h @ W)
    ...     return h, h
    >>> outputs, h = tg.unroll(step, tg.ones(3, 1, 2), tg.zeros(1, 2))
    >>> outputs.shape, bool((outputs[-1] == h).all())
    ((3, 1, 2), True)
    """
    if mode not in _MODES:
        raise ShapeError(f"unroll: mode must be one of {', '.join(_MODES)}, got {mode!r}")
    run = _prepared(step, inputs, state, lengths, reverse, name)
    try:
        reason = "" if mode == "eager" or run.steps < (3 if mode == "auto" else 2) else run.replay()
    finally:
        run.forget()
    if run.results is not None:
        return run.results
    if mode == "replay" and reason:
        raise TapeError(f"unroll: the step cannot be replayed: {reason}")
    if reason and not run.outer.observers and reason not in _SAID:
        _SAID.add(reason)
        warnings.warn(f"unroll runs this step eagerly, one operation after another: {reason}. That is slower, and right", EagerWarning, stacklevel=2)
    return run.eager()


def explain(step: Callable[[Any, Any], Any], inputs: Any, state: Any, *, lengths: Any = None, reverse: bool = False) -> Explanation:
    """How :func:`unroll` would run a step: what is hoisted, replayed and deferred, and where each value lives; or why not.

    Says also whether the replayed steps run as machine code, for which llvmlite must be installed (``pip install 'tinygrad-rnn[fast]'``) and the
    work be large enough; the environment variable ``TINYGRAD_RNN_COMPILE`` set to ``never`` switches it off.

    ``tinygrad_rnn.unroll.explain`` is this function. It runs two steps and no more.

    >>> import tinygrad_rnn as tg
    >>> W = tg.tensor([[0.5]], requires_grad=True, name="W")
    >>> print(tg.unroll.explain(lambda x, h: (None, x + h @ W), tg.zeros(4, 1, 1), tg.zeros(1, 1)))
    replay: 28 floating-point operations, 16 bytes kept for the backward pass
    <BLANKLINE>
    forward, replayed 4 times in NumPy: too little work to compile
     #  op      operands  shape   lives in   operations
    %2  matmul  h, W      (1, 1)  buffer 0            8
    %3  add     x, %2     (1, 1)  all steps           4
    <BLANKLINE>
    backward, once
     #  op         operands  shape   lives in  operations
    d1  transpose  W         (1, 1)  an array           0
    <BLANKLINE>
    backward, replayed 4 times in NumPy: too little work to compile
     #  op      operands  shape   lives in  operations
    d2  matmul  d0, d1    (1, 1)  buffer 0           8
    <BLANKLINE>
    backward, deferred: all 4 steps at once
     #  op         operands  shape   lives in   operations
    d3  transpose  h         (1, 1)  all steps           0
    d4  matmul     d3, d0    (1, 1)  summed              8
    """
    run = _prepared(step, inputs, state, lengths, reverse, "step")
    try:
        found = "there is one step alone" if run.steps < 2 else run.planned()
    finally:
        run.forget()
    if isinstance(found, str):
        return Explanation("eager", found)
    xs, states = len(list(tree.leaves(run.inputs))), len(list(tree.leaves(run.state)))
    names = [*_named("x", xs), *_named("h", states), *(["mask"] if run.mask is not None else [])]
    return explained(found.plan.chosen(run.steps), run.steps, names, [_label(t, k) for k, t in enumerate(found.outer)])


def _label(t: Tensor, k: int) -> str:
    """What an outer tensor is called: a computed one after the weight that it is a view of."""
    if t._node is not None:
        parents = [p for p in t._node.parents if p is not None]
        if len(parents) == 1 and parents[0].name:
            return f"{parents[0].name}.{t._node.op.name}"
    return t.name or f"weight {k}"


def _named(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}{k}" for k in range(count)]


def _prepared(step: Any, inputs: Any, state: Any, lengths: Any, reverse: bool, name: str) -> _Unrolling:
    """The arguments of an unroll, checked."""
    steps = inputs if isinstance(inputs, _INTEGER) and not isinstance(inputs, bool) else None
    if steps is None:
        inputs = tree.tensors("unroll: inputs", inputs)
        shapes = {leaf.shape[:1] for leaf in tree.leaves(inputs)}
        if len(shapes) != 1 or () in shapes:
            raise ShapeError(f"unroll: the inputs must have the same number of time steps in front, got {tree.describe(inputs)}")
        steps = shapes.pop()[0]
    else:
        inputs = None
    if steps < 1:
        raise ShapeError(f"unroll: there must be one time step or more, got {steps}")
    state = tree.tensors("unroll: state", state)
    full, mask = int(steps), None
    if lengths is not None:
        batch = next((leaf.shape[0] for leaf in tree.leaves(state) if leaf.ndim), None)
        counts = checked_lengths("unroll", lengths, int(steps), batch)
        full = int(counts.min(initial=steps))
        if full < steps:
            mask = np.arange(steps)[:, None] < counts
            # Padding may hold anything, NaN too: a step must never see it, for 0 * NaN is NaN in its gradient.
            inputs = tree.mapped(lambda x: where(_aligned(wrap(mask), x), x, 0), inputs)
    return _Unrolling(step, inputs, state, int(steps), reverse, mask, full, name)


class EagerWarning(UserWarning):
    """A step that could not be replayed runs eagerly; said once for each reason."""


class Pure:
    """A step ``(x_t, state) -> (y_t, state)`` that for one ``key`` always does the same operations, on its arguments and ``tensors`` alone.

    A promise: :func:`unroll` does not run it again to see what it does, once a plan was made for the same key, shapes and dtypes.
    """

    def __init__(self, function: Callable[[Any, Any], Any], key: Any, tensors: Sequence[Tensor]) -> None:
        self.function, self.key, self.tensors = function, key, tensors

    def __call__(self, x: Any, state: Any) -> Any:
        return self.function(x, state)


class Planned(NamedTuple):
    """A plan, the tensors from outside that it takes, the names of values, what was recorded for it (random draws), and how its outputs are nested."""

    plan: Plan
    outer: list[Tensor]
    labels: Mapping[int, str]
    drawn: list[Program]
    structure: Any


class Key:
    """What calls that run by one plan have in common: hashed once, since it is long."""

    __slots__ = ("_hash", "parts")

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts, self._hash = parts, hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Key) and self.parts == other.parts)


class Known(NamedTuple):
    """What is known of a pure step: the key of its plan, and which of its tensors that takes."""

    key: Any
    outer: list[int]
    labels: Mapping[int, str]
    structure: Any


_KNOWN: dict[Any, Known] = {}

_SAID: set[str] = set()

_COMPARED: dict[int, tuple[weakref.ref[Any], dict[Any, str]]] = {}
"""For each step, or cell that it comes from, by its identity, and each program: what the comparison of two steps said."""


def _memory(origin: Any) -> dict[Any, str]:
    """What is known of a step; of one that nobody can refer to weakly nothing is remembered."""
    number = id(origin)
    found = _COMPARED.get(number)
    if found is None or found[0]() is not origin:
        try:
            found = weakref.ref(origin, lambda _: _COMPARED.pop(number, None)), {}
        except TypeError:
            return {}
        _COMPARED[number] = found
    return found[1]


class _Unrolling:
    """One call of :func:`unroll`."""

    def __init__(self, step: Any, inputs: Any, state: Any, steps: int, reverse: bool, mask: np.ndarray | None, full: int, name: str) -> None:
        self.step, self.inputs, self.state, self.steps, self.reverse, self.mask, self.full, self.name = step, inputs, state, steps, reverse, mask, full, name
        self.outer = plain(current())
        self.done: list[tuple[Any, Any]] = []
        """What the first steps gave, in the order in which they run."""
        self.results: tuple[Any, Any] | None = None
        self.traces: list[Trace] = []

    def time(self, k: int) -> int:
        return self.steps - 1 - k if self.reverse else k

    def one(self, k: int, state: Any, trace: Trace | None = None) -> tuple[Any, Any]:
        """The k-th step to run; under a trace all that it reads is declared first, and the mask always applies."""
        t = self.time(k)
        x_t = tree.mapped(lambda x: at(x, t), self.inputs)
        here = None if self.mask is None or (trace is None and t < self.full) else wrap(self.mask[t].copy())
        inner = self.outer.replace(scope=(*self.outer.scope, (self.name, t)))
        if trace is not None:
            # Views, so that a tensor that the step reaches in another way too is not taken for its input.
            x_t, state = (tree.mapped(lambda leaf: wrap(leaf._data.view(), leaf._node), part) for part in (x_t, state))
            for leaf in [*tree.leaves(x_t), *tree.leaves(state), *([] if here is None else [here])]:
                trace.input(leaf)
            inner = inner.replace(observers=(trace,), draws=trace)
        with installed(inner):
            y, new = _returned(self.step(x_t, state), state)
            if here is not None:
                for leaf in [*tree.leaves(y), *tree.leaves(new)]:
                    if leaf.shape[:1] != here.shape:
                        raise ShapeError(f"unroll: with lengths every output and state has batch={len(here)} in front, got {tree.describe(leaf)}")
                new = tree.mapped(lambda a, b: where(_aligned(here, a), a, b), new, state)
                y = tree.mapped(lambda a: where(_aligned(here, a), a, 0), y)
        return y, new

    def traced(self) -> tuple[Trace, list[Any]]:
        """Run the next step under a trace; gives it and where its results are."""
        state = self.done[-1][1] if self.done else self.state
        trace = Trace(self.outer.draws)
        self.traces.append(trace)
        y, new = self.one(len(self.done), state, trace)
        self.done.append((y, new))
        trace.program.labels = trace.labels()
        return trace, [trace.place(leaf) for leaf in [*tree.leaves(y), *tree.leaves(new)]]

    def forget(self) -> None:
        """Empty the traces: the records of the steps that ran know them, and would keep all that they saw alive."""
        for trace in self.traces:
            trace.forget()

    def replay(self) -> str:
        """Try to replay: sets ``results``, or gives the reason why not; steps that ran are kept."""
        found = self.planned()
        if isinstance(found, str):
            return found
        plan, outer, labels, drawn, structure = found
        others = [*([] if self.mask is None else [self.mask]), *self._draws(drawn, self.steps)]
        xs, states = list(tree.leaves(self.inputs)), list(tree.leaves(self.state))
        ys, ends = replay(plan, self.steps, self.reverse, xs, others, states, outer, self.name, labels)
        self.results = tree.like(structure, iter(ys)), tree.like(self.state, iter(ends))
        return ""

    def planned(self) -> Planned | str:
        """The plan and what it is for, or the reason why there is none."""
        if self.outer.observers:
            return "its operations are observed, as under detect_anomaly"
        states, xs = list(tree.leaves(self.state)), list(tree.leaves(self.inputs))
        if isinstance(self.step, Pure):
            signature = self._signature(self.step, xs, states)
            known = _KNOWN.get(signature)
            plan = None if known is None else PLANS.get(known.key)
            if known is not None and isinstance(plan, Plan):
                _KNOWN[signature] = _KNOWN.pop(signature)
                remember(known.key, plan)
                return Planned(plan, [self.step.tensors[k] for k in known.outer], known.labels, [], known.structure)
        trace, places = self.traced()
        if trace.reason:
            return trace.reason
        program, (y, _) = trace.program, self.done[0]
        wanted = (*(x._node is not None for x in xs), *(s.dtype.kind == "f" for s in states))
        recording = self.outer.recording and any(t._node is not None for t in [*xs, *states, *program.outer])
        key = Key((program.key(), tuple(places), tree.structure(y), tree.structure(self.state), self.mask is not None, recording, wanted, available()))
        drawn = [program]
        seen = _memory(getattr(self.step, "origin", self.step))
        if key not in seen:
            if len(seen) >= 4 * LIMIT:
                seen.clear()
            seen[key] = self._compare(trace, places, drawn)
        if seen[key]:
            return seen[key]
        plan = PLANS.get(key)
        if plan is None:
            plan = self._plan(program, places, list(wanted), recording, len(xs), len(states))
            if isinstance(plan, Plan):
                if plan.fused is not None and isinstance(self._tried(plan.fused, drawn), str):
                    plan.fused = None
                plan = self._tried(plan, drawn)
        remember(key, plan)
        if isinstance(plan, str):
            return plan
        if isinstance(self.step, Pure) and not program.draws:
            numbers = {identity(t): k for k, t in enumerate(self.step.tensors)}
            if all(identity(t) in numbers for t in program.outer):
                _KNOWN[signature] = Known(key, [numbers[identity(t)] for t in program.outer], program.labels, tree.structure(y))
                while len(_KNOWN) > LIMIT:
                    del _KNOWN[next(iter(_KNOWN))]
        return Planned(plan, program.outer, program.labels, drawn, tree.structure(y))

    def _signature(self, step: Pure, xs: list[Tensor], states: list[Tensor]) -> Key:
        """What two calls of a pure step have in common that run by one plan."""
        kinds: list[Any] = [step.key]
        for t in (*xs, *states):
            kinds += t._data.shape, t._data.dtype, t._node is None
        first: dict[Any, int] = {}
        for k, t in enumerate(step.tensors):
            kinds += t._data.shape, t._data.dtype, t._node is None, t._data.flags.fnc, first.setdefault(identity(t), k)
        return Key((*kinds, tree.structure(self.inputs), tree.structure(self.state), self.mask is not None, self.outer.recording, available()))

    def _compare(self, trace: Trace, places: list[Any], drawn: list[Program]) -> str:
        """Whether a second step does the same as the first: the reason why not, or nothing."""
        again, second = self.traced()
        if again.reason:
            return again.reason
        drawn.append(again.program)
        if again.program.key() != trace.program.key() or second != places:
            return "two steps did different things: a counter, a branch or a random number that Python made"
        if any(not _same(a, b) for a, b in zip(trace.program.outer, again.program.outer, strict=True)):
            return "each step made a tensor or an array of its own, with other values than the one before"
        pairs = [(trace.program.arrays[index], again.program.arrays[index]) for _, index in trace.program.draws]
        if any(a.size and np.array_equal(a, b) for a, b in pairs):
            return "its random numbers begin again at each step"
        return ""

    @staticmethod
    def _plan(program: Program, places: list[Any], wanted: list[bool], recording: bool, x: int, state: int) -> Plan | str:
        try:
            return Plan(program, x, state, places, len(places) - state, wanted, recording)
        except Unreplayable as error:
            return str(error)
        except Exception as error:  # what no plan was foreseen for still runs, eagerly
            return f"no plan could be made of it ({type(error).__name__}: {error})"

    def _tried(self, plan: Plan, drawn: list[Program]) -> Plan | str:
        """The plan, if it gives for the steps that ran what they gave, values and gradients; else the reason not to use it."""
        n, xs, states, outer = len(self.done), list(tree.leaves(self.inputs)), list(tree.leaves(self.state)), drawn[0].outer
        times = sorted(self.time(k) for k in range(n))
        part = slice(times[0], times[-1] + 1)
        others = [*([] if self.mask is None else [self.mask[part]]), *self._draws(drawn, n)]
        steps = self.done[::-1] if self.reverse else self.done
        expected = [[leaf._data for leaf in column] for column in zip(*(tree.leaves(y) for y, _ in steps), strict=True)]
        try:
            values = [t._data for t in outer]
            ys, ends, kept = plan.run(n, self.reverse, [*[x._data[part] for x in xs], *others], [s._data for s in states], values)
            agree = all(close(y, np.stack(e)) for y, e in zip(ys, expected, strict=True))
            agree = agree and all(close(e, leaf._data) for e, leaf in zip(ends, tree.leaves(self.done[-1][1]), strict=True))
            if agree and plan.backward is not None:
                agree = self._same_gradients(plan, n, part, kept, ys, ends, xs, states, outer)
        except Exception as error:
            return f"its plan failed ({type(error).__name__}: {error})"
        if not agree:
            return "its plan gave other values than the step itself"
        for loop in plan.loops:
            loop.compiled.proven = True
        return plan

    def _same_gradients(
        self, plan: Plan, n: int, part: slice, kept: Kept, ys: list[np.ndarray], ends: list[np.ndarray], xs: list[Tensor], states: list[Tensor], outer: list[Tensor]
    ) -> bool:
        rng = np.random.default_rng(0)
        cotangents = [rng.standard_normal(r.shape).astype(r.dtype) if r.dtype.kind == "f" else None for r in [*ys, *ends]]
        again = kept.lease.workspace.again
        assert plan.backward is not None and again is not None
        found = plan.backward.run(n, self.reverse, again, kept.others, [t._data for t in outer], cotangents)
        ours: dict[Any, Any] = {}
        for k, (t, g) in enumerate(zip([*xs, *states, *outer], found, strict=True)):
            if t._node is not None and g is not None:
                whole = g
                if k < len(xs):
                    whole = np.zeros(t.shape, t.dtype)
                    whole[part] = g
                ours[t._node] = ours.get(t._node, 0) + whole
        roots = []
        steps = self.done[::-1] if self.reverse else self.done
        for k, column in enumerate(zip(*(tree.leaves(y) for y, _ in steps), strict=True)):
            roots += [(leaf._node, cotangents[k][t]) for t, leaf in enumerate(column) if leaf._node is not None and cotangents[k] is not None]  # type: ignore[index]
        for k, leaf in enumerate(tree.leaves(self.done[-1][1])):
            if leaf._node is not None and cotangents[len(ys) + k] is not None:
                roots.append((leaf._node, cotangents[len(ys) + k]))
        targets = list({t._node for t in [*xs, *states, *outer] if t._node is not None})
        theirs = run_sweep(roots, targets, stop=True, retain_graph=True) if roots else {}
        # A gradient that is zero comes out as the noise of others.
        floor = 0.01 * max([magnitude(np.asarray(g)) for g, _ in theirs.values()], default=0.0)
        for t in [*xs, *states, *outer]:
            if t._node is not None:
                a, b = ours.get(t._node, np.zeros(t.shape, t.dtype)), theirs[t._node][0] if t._node in theirs else np.zeros(t.shape, t.dtype)
                if not close(np.asarray(a, t.dtype), np.asarray(b), floor):
                    return False
        return True

    def _draws(self, drawn: list[Program], steps: int) -> list[np.ndarray]:
        """The random arrays of the first steps to run, drawn in the order in which eager steps draw them; time first."""
        if not drawn or not drawn[0].draws:
            return []
        program = drawn[0]
        columns = [[p.arrays[index] for _, index in p.draws] for p in drawn]
        columns += [[np.asarray(make()) for make, _ in program.draws] for _ in range(steps - len(columns))]
        return [np.stack(column[::-1] if self.reverse else column) for column in zip(*columns, strict=True)]

    def eager(self) -> tuple[Any, Any]:
        while len(self.done) < self.steps:
            self.done.append(self.one(len(self.done), self.done[-1][1] if self.done else self.state))
        outputs = [y for y, _ in self.done]
        if self.reverse:
            outputs.reverse()
        if any(tree.structure(y) != tree.structure(outputs[0]) for y in outputs):
            raise ShapeError("unroll: the step's outputs differ in their structure from step to step")
        if len(outputs) == 1:
            return tree.mapped(lambda y: _reshape(y, (1, *y.shape)), outputs[0]), self.done[0][1]
        columns = zip(*(tree.leaves(y) for y in outputs), strict=True)
        return tree.like(outputs[0], iter([stack(column) for column in columns])), self.done[-1][1]


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two steps reached the same outside: one and the same weight, or constants that are equal."""
    if a._node is not None or b._node is not None:
        return a._node is b._node
    return a._data is b._data or np.array_equal(a._data, b._data, equal_nan=a.dtype.kind == "f")


def _aligned(mask: Tensor, x: Tensor) -> Any:
    """A mask over the leading axes, with an axis of length one for each of the others."""
    return reshape(mask, mask.shape + (1,) * (x.ndim - mask.ndim))


def _returned(result: Any, state: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ShapeError(f"unroll: the step must return (y, state), got {tree.describe(result)}")
    y, new = result
    new = tree.tensors("unroll: the returned state", new)
    if tree.structure(new) != tree.structure(state) or any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(tree.leaves(new), tree.leaves(state), strict=True)):
        raise ShapeError(f"unroll: the step returned the state {tree.describe(new)}, expected one as it was given: {tree.describe(state)}")
    return tree.tensors("unroll: the step's output", y), new


def checked_lengths(what: str, lengths: Any, steps: int, batch: int | None) -> np.ndarray:
    """Lengths as an integer array, one a sequence, each from 1 to the number of steps."""
    counts = np.asarray(lengths._data if is_tensor(lengths) else lengths)
    if counts.dtype.kind not in "iu" and counts.size:
        raise DtypeError(f"{what}: lengths must be integers, got {counts.dtype}")
    if counts.ndim != 1 or (batch is not None and len(counts) != batch):
        raise ShapeError(f"{what}: lengths has shape {counts.shape}, expected one length for each sequence: batch={batch}")
    for low, text in ((counts < 1, "is below 1"), (counts > steps, f"is above the padded length time={steps}")):
        if low.any():
            k = int(np.argmax(low))
            raise OutOfRangeError(f"{what}: lengths[{k}] = {counts[k]} {text}")
    return counts.astype(np.int64)


unroll.explain = explain  # type: ignore[attr-defined]
