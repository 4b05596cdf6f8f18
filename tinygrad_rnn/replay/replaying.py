"""Replay: a recorded step run for all time steps in memory laid out beforehand, and its derived backward program."""

from __future__ import annotations

import copy
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from ..core.primitive import manual
from ..core.state import current, enable_grad, installed, next_index, plain, writes
from ..core.tape import Own
from ..core.tensor import Tensor, is_tensor, restated, run_sweep, wrap
from ..errors import TapeError
from ..native import available
from ..ops.shaping import stack
from .backward import Backward, Place, derive
from .batching import is_view, stacked_panels, takes_out, view_of
from .expanding import Expansion
from .panels import Layout, gates
from .plan import HOISTED, LOOP, ONCE, SHORT, Loop, Memory, Straight, classify, flat, fusable, needed_for, operands, readers_of, together, uses_of
from .program import Instruction, Outer, Program, Unreplayable, Value, in_fortran_order, interpret
from .workspace import Lease, Workspace


def _seen_through(instruction: Instruction) -> bool:
    """Whether a value is kept as what it is a view of; a reshaped one may have needed a copy."""
    return is_view(instruction) and instruction.op.name != "reshape"


class Plan:
    """How a recorded step runs for all steps: made once for a program, used at each call that records the same one."""

    def __init__(self, program: Program, x: int, state: int, results: list[Place], outputs: int, wanted: list[bool], recording: bool) -> None:
        self.program, self.x, self.state, self.results, self.outputs, self.wanted = program.light(len(program.outer)), x, state, results, outputs, wanted
        self.laid, self.widths = self._laid_out()
        self.tracked = [t._node is not None for t in program.outer]
        self.reached = self._reached(self.program)
        self._needed: dict[tuple[bool, ...], list[bool]] = {}
        self.derivation = self._derived(program) if recording else None
        self._arrange(False)
        self.fused = self._in_loops()

    def chosen(self, steps: int) -> Plan:
        """This plan, or where both ways run as machine code the one for that: what is pointwise, and products of some rows, are in its loops."""
        if self.fused is None:
            return self
        return self if any(loop.compiled.why_not(steps) for loop in self.fused.loops) else self.fused

    @property
    def loops(self) -> list[Loop]:
        return [self.loop] if self.backward is None else [self.loop, self.backward.loop]

    def _in_loops(self) -> Plan | None:
        """The plan with all that machine code can do step by step in its loops, if that is more than is there."""
        if not available():
            return None
        fused = copy.copy(self)
        fused.fused = None
        fused._arrange(True)
        same = fused.phase == self.phase and (self.backward is None or fused.backward is None or fused.backward.phase == self.backward.phase)
        return None if same else fused

    def _arrange(self, fused: bool) -> None:
        """Phases, memory and code."""
        program, x, state, results, outputs = self.laid, self.x, self.state, self.results, self.outputs
        count = program.inputs
        drawn = [index for _, index in program.draws]
        self.others = [k for k in range(count) if k >= x + state] + drawn
        self.phase, whole = classify(program, set(range(count)) | set(drawn), set(range(x, x + state)))
        if fused:
            self._fuse()
        self.backward: Backward | None = None
        if self.derivation is not None:
            derived, places, seeds, fortran = self.derivation
            self.backward = Backward(derived.light(len(derived.outer)), places, seeds, fortran, self.widths, self.phase, len(self.program.arrays), x, state, outputs, program.instructions if fused else None)
        if not available():
            once = [i for i in program.instructions if self.phase[i.result] != LOOP]
            program.instructions = once + together(program, [i for i in program.instructions if self.phase[i.result] == LOOP])
            self.phase = {i.result: LOOP for i in program.instructions} | self.phase
        made = {i.result: i for i in program.instructions}
        saved = set() if self.backward is None else set(self.backward.saved)
        self.view_of: dict[int, Instruction] = {}
        self.stored: set[int] = set()
        """What is kept for the backward pass: the memory of the saved values, not the views of it."""
        parts: Counter[int] = Counter()
        for index in saved:
            if index in made and self.phase[index] == LOOP and _seen_through(made[index]):
                parts[made[index].arguments[0].index] += math.prod(program.shape(index))
        # A view of much more than is read of it would keep all of that.
        sizes = {whole: math.prod(program.shape(whole)) for whole in parts}
        partly = {whole for whole, size in parts.items() if whole not in saved and size < sizes[whole] and (sizes[whole] > SHORT or 2 * size < sizes[whole])}
        for index in sorted(saved, reverse=True):
            while index in made and self.phase[index] == LOOP and _seen_through(made[index]) and made[index].arguments[0].index not in partly:
                self.view_of[index] = made[index]
                index = made[index].arguments[0].index
            self.stored.add(index)
        self.instructions = needed_for(program.instructions, [*(p.index for p in results if isinstance(p, Value)), *self.stored, *saved])
        loop = [i for i in self.instructions if self.phase[i.result] == LOOP]
        inloop = {i.result for i in loop}
        stacked = {k for k in self.stored if k in inloop}
        top = len(program.arrays)
        extra: list[str] = []
        self.slots: list[int] = []
        """For each new state the value that is stored as it."""
        self.exposed: list[int] = []
        """For each output the value whose stack it is."""
        self.copies: dict[int, Place] = {}
        news, ys = results[outputs:], results[:outputs]
        for j, place in enumerate(news):
            if isinstance(place, Value) and place.index in inloop and not _seen_through(made[place.index]) and place.index not in self.slots:
                self.slots.append(place.index)
            else:
                self.slots.append(top + j)
                self.copies[top + j] = place
        for j, place in enumerate(ys):
            early = isinstance(place, Value) and place.index in made and self.phase[place.index] == HOISTED
            if isinstance(place, Value) and place.index not in self.exposed and (early or (place.index in inloop and not _seen_through(made[place.index]))):
                self.exposed.append(place.index)
            else:
                self.exposed.append(top + state + j)
                self.copies[top + state + j] = place
        self.early: dict[int, int] = {}
        """Values for all steps that only the loop reads, and in whose memory each lives."""
        self.before = self._hoisted(whole, made)
        stacked |= {k for k in [*self.slots, *self.exposed] if k in inloop}
        self.written = stacked | set(self.copies)
        """What has an array a step that the loop writes."""
        self.brief = self.written - self.stored - set(self.slots) - set(self.exposed)
        """Of those, what is needed no longer than the loop runs."""
        hoisted = {i.result for i in self.instructions if self.phase[i.result] == HOISTED}
        self.loop = Loop(
            program, loop, {}, stacked | set(range(count)) | set(drawn) | hoisted | set(self.copies), {i.result for i in self.instructions if self.phase[i.result] == ONCE}
        )
        self.loop.plan(set(), {p.index for p in self.copies.values() if isinstance(p, Value)})
        for index, place in self.copies.items():
            extra.append(f"copyto(v{index}, {self.loop._name(place)})")
        self.loop.compile(extra)
        self.given = [*range(x), *self.others]
        self.shown = [index for index in self.exposed if index in self.written and index not in self.slots]
        self.early_shown = [index for index in self.exposed if self.phase.get(index) == HOISTED]

    def _hoisted(self, functions: Mapping[int, Any], made: Mapping[int, Instruction]) -> Any:
        """The code of what runs before the loop, in memory of the workspace or of a value that is read for the last time where that can be."""
        program, uses = self.laid, uses_of(self.instructions)
        needed = {p.index for p in self.results if isinstance(p, Value)} | self.stored | set(self.view_of)

        def own(instruction: Instruction) -> bool:
            """Whether a result shares no memory with an operand."""
            return isinstance(instruction.op.forward, np.ufunc) or instruction.op.name == "matmul" or (self.phase[instruction.result] == LOOP and not is_view(instruction))

        for instruction in reversed(self.instructions):
            # What may share memory with what lives on must live on.
            if instruction.result in needed and not own(instruction):
                needed |= {p.index for p in flat(instruction) if isinstance(p, Value)}
        shown = set(self.exposed)
        for instruction in reversed(self.instructions):
            if instruction.result in shown and not own(instruction):
                shown |= {p.index for p in flat(instruction) if isinstance(p, Value)}
        self.held = {index for index in self.stored - shown if self.phase.get(index) == HOISTED and functions.get(index) is not None and takes_out(functions[index])}
        """What is stored that is computed before the loop, in memory of the workspace."""
        homes: dict[int, int] = {}
        lasting: set[int] = set()
        hoisted = [i for i in self.instructions if self.phase[i.result] == HOISTED and functions.get(i.result) is not None]
        for instruction in reversed(hoisted):
            index = instruction.result
            if isinstance(instruction.op.forward, np.ufunc) and takes_out(functions[index]) and index not in self.held:
                dying = [p.index for p in flat(instruction) if isinstance(p, Value) and uses[p.index] == 1 and p.index not in needed and self._fresh(made.get(p.index), index)]
                if dying:
                    homes[index] = dying[0]
                    if index in needed or index in lasting:
                        lasting.add(dying[0])
        code = Straight()
        for instruction in self.instructions:
            index = instruction.result
            if self.phase[index] == ONCE:
                code.once(instruction, program.dtype(index))
            elif self.phase[index] == HOISTED and functions.get(index) is not None:
                home = homes.get(index)
                if index in self.held:
                    home = index
                elif home in self.early:
                    self.early[index] = self.early[home]
                elif home is None and takes_out(functions[index]) and index not in needed and index not in lasting:
                    self.early[index] = home = index
                code.for_all(instruction, functions[index], program.dtype(index), home)
        return code.compile()

    def _fuse(self) -> None:
        """Put into the loop what it alone reads."""
        users = readers_of(self.laid.instructions)
        for instruction in reversed(self.laid.instructions):
            index = instruction.result
            if self.phase[index] == HOISTED and index in users and all(self.phase[user.result] == LOOP for user in users[index]) and fusable(instruction, self.laid, self.x):
                self.phase[index] = LOOP

    def _fresh(self, producer: Instruction | None, index: int) -> bool:
        """Whether a hoisted instruction makes an array of its own that another hoisted value could live in."""
        if producer is None or self.phase[producer.result] != HOISTED or not (producer.op.name == "matmul" or isinstance(producer.op.forward, np.ufunc)):
            return False
        a, b = self.laid.at(Value(producer.result)), self.laid.at(Value(index))
        return bool(a.shape == b.shape and a.dtype == b.dtype)

    def _reached(self, program: Program) -> list[tuple[set[int], bool]]:
        """For each result the inputs and states that its gradient reaches, by number, and whether it reaches a weight."""
        found: dict[int, tuple[set[int], bool]] = {k: ({k}, False) for k, want in enumerate(self.wanted) if want}

        def of(place: Any) -> tuple[set[int], bool]:
            return (set(), self.tracked[place.index]) if isinstance(place, Outer) else found.get(place.index, (set(), False))

        for op, arguments, result in program.instructions:
            below: tuple[set[int], bool] = (set(), False)
            for parameter, argument in zip(op.parameters, arguments, strict=True):
                if op.rules.get(parameter) is not None:
                    for part in operands(argument):
                        inputs, weight = of(part)
                        below = (below[0] | inputs, below[1] or weight)
            found[result] = below
        return [(set(), False) if place is None else of(place) for place in self.results]

    def tracked_results(self, states: list[bool]) -> list[bool]:
        """Which results need a gradient, where ``states`` says it of the first states."""
        key = tuple(states)
        if key not in self._needed:
            self._needed[key] = self._tracked(list(states))
        return self._needed[key]

    def _tracked(self, states: list[bool]) -> list[bool]:
        while True:
            results = [weight or any(k < self.x or states[k - self.x] for k in inputs) for inputs, weight in self.reached]
            grown = [a or b for a, b in zip(states, results[self.outputs :], strict=True)]
            if grown == states:
                return results
            states = grown

    def _derived(self, program: Program) -> tuple[Program, list[Place], list[int | None], list[bool]]:
        """The backward program, derived twice at different values: what differs then would depend on a value."""
        rng = np.random.default_rng(0)
        given = {k: program.arrays[k] for k in [*range(program.inputs), *(index for _, index in program.draws)]}
        moved = {k: a + 0.01 * rng.standard_normal(a.shape).astype(a.dtype) if a.dtype.kind == "f" else a for k, a in given.items()}
        (first, places, seeds), (second, *others) = (derive(program, chosen, self.wanted, self.results, self.outputs) for chosen in (given, moved))
        same = first.key() == second.key() and [places, seeds] == others
        if not (same and all(np.array_equal(a._data, b._data, equal_nan=True) for a, b in zip(first.outer, second.outer, strict=True))):
            raise Unreplayable("its gradient is computed otherwise for other values")
        fortran = [in_fortran_order(t._data) for t in program.outer]
        return first.light(len(program.outer)), places, seeds, fortran

    def _laid_out(self) -> tuple[Program, dict[int, int]]:
        """The program with its gates in panels, and the widths of those."""
        program = self.program.light(len(self.program.outer))
        inputs = {*range(program.inputs), *(index for _, index in program.draws)}
        phase, _ = classify(program, inputs, set())
        constant = {i.result for i in program.instructions if phase[i.result] == ONCE}
        found = {} if available() else gates(program, constant, [p.index for p in self.results if isinstance(p, Value)])
        layout = Layout(program, program.instructions, {}, found)
        program.instructions = layout.instructions
        return program, layout.widths

    def _kept(self, steps: int, reverse: bool) -> Workspace:
        """What lives until the backward pass, with the memory of states that no output shows."""
        arrays = self._stacks(steps, self.stored - set(self.slots) - set(self.exposed))
        for j, slot in enumerate(self.slots):
            if slot not in self.exposed:
                arrays |= self._states(j, slot, steps, reverse)
        arrays |= {index: self._laid(index, steps) for index in self.held}
        kept = Workspace(arrays)
        if self.backward is not None:
            kept.again = Workspace({index: read for index in self.backward.saved if (read := self._read(index, arrays)) is not None})
        return kept

    def _short(self, steps: int) -> Workspace:
        arrays = self._stacks(steps, self.brief)
        for index, home in self.early.items():
            arrays[index] = arrays[home] if home != index else self._laid(index, steps)
        return Workspace(arrays, self.loop.scratched(arrays))

    def _laid(self, index: int, steps: int) -> np.ndarray:
        """Memory for a value that is computed before the loop."""
        shape, dtype = (steps, *self.laid.shape(index)), self.laid.dtype(index)
        return stacked_panels(shape, dtype) if index in self.widths else np.empty(shape, dtype)

    def _stacks(self, steps: int, indices: Iterable[int]) -> dict[int, np.ndarray]:
        likes = {index: self.laid.at(self.copies.get(index) or Value(index)) for index in indices if index in self.written}
        return {index: np.empty((steps, *like.shape), like.dtype) for index, like in likes.items()}

    def _states(self, j: int, slot: int, steps: int, reverse: bool) -> dict[int, np.ndarray]:
        """The states that the steps start from and those that they end with: one array, of one step more, seen twice."""
        like = self.laid.at(Value(self.x + j))
        whole = np.empty((steps + 1, *like.shape), like.dtype)
        return {self.x + j: whole[1:], slot: whole[:-1]} if reverse else {self.x + j: whole[:-1], slot: whole[1:]}

    def run(self, steps: int, reverse: bool, inputs: list[np.ndarray], first: list[np.ndarray], outer: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray], Kept]:
        """Outputs for all steps, last states, and what the backward pass needs."""
        lease = Lease((self, "kept", steps, reverse), lambda: self._kept(steps, reverse))
        brief = Lease((self, "short", steps, reverse), lambda: self._short(steps))
        arrays = Memory(lease.workspace, brief.workspace)
        arrays.update(zip(self.given, inputs, strict=True))
        start = -1 if reverse else 0
        for j, slot in enumerate(self.slots):
            if slot not in arrays:
                arrays.update(self._states(j, slot, steps, reverse))
            arrays[self.x + j][start] = first[j]
        self.before(arrays, outer, steps)
        arrays.update(self._stacks(steps, self.shown))
        self.loop.run(steps, reverse, arrays, outer)
        ends = [arrays[slot][-1 - start, ...].copy() for slot in self.slots]
        for index in self.early_shown:
            # A view of what the caller holds would change with it.
            if any(np.may_share_memory(arrays[index], a) for a in (*inputs, *first, *outer)):
                arrays[index] = arrays[index].copy()
        return [arrays[index] for index in self.exposed], ends, Kept(lease, self._others(arrays, lease.workspace))

    def _read(self, index: int, arrays: dict[int, np.ndarray]) -> np.ndarray | None:
        """A forward value for all steps, of ``arrays``, or None where they do not hold it."""
        if index in self.view_of:
            instruction = self.view_of[index]
            whole = self._read(instruction.arguments[0].index, arrays)
            return None if whole is None else view_of(instruction, self.laid)(whole, steps=len(whole))
        return arrays.get(index)

    def _others(self, arrays: dict[int, np.ndarray], kept: Workspace) -> dict[int, np.ndarray]:
        """The forward values that the backward pass reads, but for those that are kept in the workspace."""
        if self.backward is None or kept.again is None:
            return {}
        found: dict[int, np.ndarray] = {}
        for index in self.backward.forward:
            if index not in kept.again.arrays:
                read = self._read(index, arrays)
                assert read is not None
                found[index] = read
        return found


class Kept(NamedTuple):
    """What the backward pass needs of the forward pass: the lease of a workspace, and what lives elsewhere."""

    lease: Lease
    others: dict[int, np.ndarray]


class Bundle:
    """Cotangents of several outputs of one record, on their way to it as one gradient."""

    shape = ()

    def __init__(self, parts: dict[int, Any], dtype: Any) -> None:
        self.parts, self.dtype = parts, dtype

    def __add__(self, other: Bundle) -> Bundle:
        joined = dict(self.parts)
        for k, g in other.parts.items():
            joined[k] = joined[k] + g if k in joined else g
        return Bundle(joined, self.dtype)


def _apart(arrays: Iterable[np.ndarray | None], others: Iterable[np.ndarray | None]) -> bool:
    """Whether arrays can be written to, and share no memory with each other or with others."""
    seen = {id(a if a.base is None else a.base) for a in others if a is not None}
    for array in arrays:
        if array is not None:
            owner = array if array.base is None else array.base
            if id(owner) in seen or not array.flags.writeable:
                return False
            seen.add(id(owner))
    return True


def _bundled(k: int, dtype: Any) -> Callable[[Any], list[Any]]:
    return lambda g: [Bundle({k: g}, dtype)]


class Pull:
    """The gradient of one replayed unroll for each of what it was given, and the same as a recorded computation.

    ``arrays`` and ``nodes`` are those of inputs, first states and outer tensors, ``outside`` the arrays of the last of these.
    """

    def __init__(
        self,
        plan: Plan,
        steps: int,
        reverse: bool,
        arrays: list[np.ndarray],
        nodes: tuple[Any, ...],
        others: list[np.ndarray],
        outside: list[np.ndarray],
        ys: list[np.ndarray],
        kept: Kept,
        name: str,
        labels: Mapping[int, str],
    ) -> None:
        self.plan, self.steps, self.reverse, self.arrays, self.nodes, self.others, self.outside, self.ys = plan, steps, reverse, arrays, nodes, others, outside, ys
        self.kept, self.name, self.labels = kept, name, labels
        self.began, self.state = next_index(), plain(current())

    def __call__(self, g: Bundle) -> list[Any]:
        self._unchanged()
        if any(map(is_tensor, g.parts.values())):
            return self._recorded(g)
        space = self.kept.lease.workspace.again
        assert self.plan.backward is not None and space is not None
        cotangents = [g.parts.get(k) for k in range(len(self.plan.results))]
        found = self.plan.backward.run(self.steps, self.reverse, space, self.kept.others, self.outside, cotangents)
        return Own(found) if _apart(found, cotangents) else found

    @property
    def lease(self) -> Lease:
        return self.kept.lease

    @property
    def held(self) -> list[Tensor]:
        """What the call was given."""
        return [wrap(array, node) for array, node in zip(self.arrays, self.nodes, strict=True)]

    @property
    def buffers(self) -> list[np.ndarray]:
        """The memory that it keeps."""
        return [*self.kept.lease.workspace.owned, *(y for y in self.ys if any(np.may_share_memory(y, a) for a in self.kept.others.values()))]

    def _unchanged(self) -> None:
        if writes.last <= self.began:
            return
        for array in (*self.arrays, *self.ys):
            if writes.after(array, self.began):
                raise TapeError(f"unroll kept an array of shape {array.shape}, which was changed in place afterwards; change it after the backward pass")

    def opened(self, given: list[Tensor], observers: tuple[Any, ...] = ()) -> list[Any]:
        """The results as all steps through the operations give them, from tensors that hold what this call was given."""
        self._unchanged()
        x, end = self.plan.x, self.plan.x + self.plan.state
        with installed(enable_grad().derive(self.state).replace(observers=observers)):
            outs, last = expand(self.plan, self.steps, self.reverse, given[:x], self.others, given[x:end], given[end:], self.name, self.labels)
        return [*outs, *last]

    def _recorded(self, g: Bundle) -> list[Any]:
        """The gradient as a recorded computation: all steps through the operations, then a sweep that is recorded itself."""
        roots = [(t._node, g.parts[k]) for k, t in enumerate(self.opened(self.held)) if k in g.parts and t._node is not None]
        found = run_sweep(roots, [n for n in self.nodes if n is not None], stop=True, create_graph=True, retain_graph=True)
        return [found[n][0] if n is not None and n in found else None for n in self.nodes]


PLANS: OrderedDict[Any, Plan | str] = OrderedDict()
"""Plans by what a recording must have in common; a string says why there is none. The least recently used are dropped."""

LIMIT = 64


def remember(key: Any, plan: Plan | str) -> None:
    PLANS[key] = plan
    PLANS.move_to_end(key)
    while len(PLANS) > LIMIT:
        PLANS.popitem(last=False)


def replay(
    plan: Plan, steps: int, reverse: bool, inputs: list[Tensor], others: list[np.ndarray], first: list[Tensor], outer: list[Tensor], name: str, labels: Mapping[int, str]
) -> tuple[list[Tensor], list[Tensor]]:
    """Run a plan: one record for all steps, with the outputs, stacked, and the last states hanging on it."""
    plan = plan.chosen(steps)
    outside = [t._data for t in outer]
    try:
        ys, ends, kept = plan.run(steps, reverse, [*(t._data for t in inputs), *others], [t._data for t in first], outside)
    except IndexError as error:
        raise restated("unroll", error) from error
    results, given = [*ys, *ends], [*inputs, *first, *outer]
    nodes = tuple([t._node for t in given])
    if plan.backward is None or not any(nodes) or not results:
        return [wrap(y) for y in ys], [wrap(e) for e in ends]
    pull = Pull(plan, steps, reverse, [t._data for t in given], nodes, others, outside, ys, kept, name, labels)
    tracked = plan.tracked_results([t._node is not None for t in first])
    # The outputs hang on one record, whose own value nobody reads: their cotangents reach it in a bundle.
    many = manual("unroll", np.zeros((), results[0].dtype), nodes, pull, given, steps=steps)._node
    assert many is not None
    many.op.expansion = Expansion(plan.program, plan.x, plan.results, plan.outputs, steps, reverse, name, labels)  # type: ignore[attr-defined]
    tensors = [manual("unrolled", r, (many,), _bundled(k, many.dtype), output=k) if tracked[k] else wrap(r) for k, r in enumerate(results)]
    return tensors[: len(ys)], tensors[len(ys) :]


def at(x: Any, t: int) -> Any:
    """One step of an input, called what all of it is called."""
    x_t = x[t]
    if x._name is not None and x_t._node is None:
        x_t._name = x._name
    return x_t


def expand(
    plan: Plan, steps: int, reverse: bool, inputs: list[Any], others: list[np.ndarray], first: list[Any], outer: list[Any], name: str, labels: Mapping[int, str]
) -> tuple[list[Any], list[Any]]:
    """All steps through the operations themselves, every one of them on the tape; the step itself is not called again."""
    state, outputs = list(first), [[None] * steps for _ in range(plan.outputs)]
    for t in range(steps - 1, -1, -1) if reverse else range(steps):
        given = {k: at(x, t) for k, x in enumerate(inputs)} | {plan.x + j: s for j, s in enumerate(state)}
        given |= {k: wrap(array[t]) for k, array in zip(plan.others, others, strict=True)}
        here = plain(current())
        with installed(here.replace(scope=(*here.scope, (name, t)))):
            values = interpret(plan.program, given, outer)
        for index, label in labels.items():
            if values[index]._node is not None:
                values[index]._node.label = label
        found = [values[p.index] if isinstance(p, Value) else outer[cast(Outer, p).index] for p in plan.results]
        for j in range(plan.outputs):
            outputs[j][t] = found[j]
        state = found[plan.outputs :]
    return [stack(column) for column in outputs], state
