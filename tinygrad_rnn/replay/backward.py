"""The backward pass of a replayed step: derived from the rules of its operations, sorted into phases, run for all steps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.state import State, installed
from ..core.tape import Record
from ..core.tensor import Tensor, run_sweep, wrap
from ..native import available, dot
from ..ops.indexing import add_at
from .batching import Batched, batched, elementwise, static, takes_out
from .panels import Layout
from .plan import DEFERRED, HOISTED, LOOP, ONCE, SHORT, Assembly, Loop, Memory, Part, Straight, assemblies, flat, fusable, needed_for, readers_of, uses_of, varying
from .program import Constant, Instruction, Outer, Program, Trace, Unreplayable, Value, interpret, merged
from .workspace import Lease, Workspace

Place = Value | Outer | None

_BUFFER = 1 << 40
"""From here on arrays are known by numbers that no value has."""


def constants(arguments: tuple[Any, ...]) -> Iterator[Constant]:
    """The static arguments among arguments, also those inside of tuples."""
    for argument in arguments:
        if isinstance(argument, Constant):
            yield argument
        elif type(argument) is tuple:
            yield from constants(argument)


def derive(program: Program, given: Mapping[int, np.ndarray], wanted: Sequence[bool], results: Sequence[Place], outputs: int) -> tuple[Program, list[Place], list[int | None]]:
    """The backward program of one step: its inputs are the step's values and a cotangent for each result.

    Gives the program, where the gradient of each input and outer tensor is (None where ``wanted`` says no, or where nothing
    depends on it), and the cotangents' numbers.
    """
    tensors = {k: wrap(array).requires_grad_() if k < len(wanted) and wanted[k] else wrap(array) for k, array in given.items()}
    outer = [wrap(t._data.view()).requires_grad_() if t._node is not None else wrap(t._data.view()) for t in program.outer]
    with installed(State()):
        values = interpret(program, tensors, outer)
        trace = Trace()
        trace.program.outer = list(outer)
        for k, t in enumerate(outer):
            trace._places[id(t._data)] = Outer(k)
        for value in values:
            trace.input(value)
        roots: list[tuple[Record, Tensor]] = []
        seeds: list[int | None] = []
        for k, place in enumerate(results):
            value = None if place is None else values[place.index] if isinstance(place, Value) else outer[place.index]
            # A new state that needs no gradient ends the way back, but the place where the gradient of the old one arrives is needed.
            if value is None or (value._node is None and (k < outputs or value.dtype.kind != "f")):
                seeds.append(None)
                continue
            seed = wrap(np.ones(value.shape, value.dtype)).requires_grad_()
            seeds.append(trace.input(seed).index)
            if value._node is not None:
                roots.append((value._node, seed))
        leaves = [*(tensors[k] for k in range(len(wanted))), *outer]
        targets = [t._node for t in leaves if t._node is not None]
        found: dict[Any, Any] = {}
        if roots and targets:
            with installed(State(observers=(trace,))):
                found = run_sweep(roots, targets, retain_graph=True, create_graph=True)
    if trace.reason:
        raise Unreplayable(f"in the gradient, {trace.reason}")
    known = {id(a.value) for i in program.instructions for a in constants(i.arguments)}
    if any(isinstance(a.value, np.ndarray) and id(a.value) not in known for i in trace.program.instructions for a in constants(i.arguments)):
        raise Unreplayable("the gradient of one of its operations makes arrays of its own, which may depend on values")
    derived, places = trace.program, [trace.place(found[t._node][0]) if t._node is not None and t._node in found else None for t in leaves]
    trace.forget()
    return derived, places, seeds


_CHEAP = set("add subtract multiply negative".split())

_LINEAR = set("transpose reshape getitem scatter columns panels negative add subtract sum broadcast_to astype".split())


class Backward:
    """The backward program of a step with its phases, and how to run it for all steps.

    ``fortran`` says which outer tensors are in Fortran's order, ``widths`` are those of the forward values in panels, ``phases`` the forward values' own, ``count`` is how many
    values the step has: the first ``x`` are inputs, the next ``state`` its state. In one with ``fused``, the instructions of the step, all that machine code can do
    step by step is in the loop, also what is cheaper to make again of other values than to keep.
    """

    def __init__(
        self, program: Program, places: list[Place], seeds: list[int | None], fortran: list[bool], widths: dict[int, int], phases: Mapping[int, str], count: int, x: int, state: int, outputs: int, fused: Sequence[Instruction] | None
    ) -> None:
        self.program, self.seeds, self.fortran, self.count, self.x, self.state = program, seeds, fortran, count, x, state
        self.constants = [t._data for t in program.outer[len(fortran) :]]
        """Outer tensors of its own."""
        program.instructions, same = merged(program.instructions)
        places = [p._replace(index=same.get(p.index, p.index)) if isinstance(p, Value) else p for p in places]
        instructions, self.parts = assemblies(program, {p.index for p in places if isinstance(p, Value)})
        layout = Layout(program, instructions, self.parts, widths)
        self.places = [layout.plain(place) for place in places]
        wanted = {p.index for p in self.places if isinstance(p, Value)}
        self.instructions = needed_for(layout.instructions, wanted)
        if fused is not None:
            self.instructions = [*self._again(fused, wanted, phases), *self.instructions]
        self.made = {i.result: i for i in self.instructions}
        self.y_seeds, self.state_seeds = seeds[:outputs], seeds[outputs:]
        self.moving = {k for k in range(count) if phases.get(k, ONCE) != ONCE} | {s for s in seeds if s is not None}
        self.phase: dict[int, str] = {}
        self.batched: dict[int, Batched | None] = {}
        self.totals: dict[int, int] = {}
        """The arrays in which the loop adds up what it makes, by what that is."""
        self._sort(fused is not None)
        self.forward = {k for k in {p.index for i in self.instructions for p in flat(i) if isinstance(p, Value)} | wanted if k < count and k not in self.made}
        """The values of the forward pass that it reads, and below those that differ from step to step."""
        self.saved = {k for k in self.forward if phases.get(k, ONCE) != ONCE}
        self._prepare()
        self._gather()
        self._store()

    def _again(self, forward: Sequence[Instruction], wanted: set[int], phases: Mapping[int, str]) -> list[Instruction]:
        """Instructions of the step whose results one cheap operation makes of values that are kept anyway."""
        readers = readers_of(self.instructions)
        found: dict[int, Instruction] = {}
        for instruction in forward:
            index = instruction.result
            cheap = index in readers and index not in wanted and phases[index] == LOOP and instruction.op.name in _CHEAP
            if cheap and all(elementwise(user.op) for user in readers[index]):
                operands = [p.index for p in flat(instruction) if isinstance(p, Value) and phases.get(p.index, ONCE) != ONCE]
                if all(k < self.x or (k in readers and k not in found) for k in operands):
                    found[index] = instruction
        return list(found.values())

    @property
    def _pulls(self) -> list[Place]:
        """Where the gradients of the states are."""
        return self.places[self.x : self.x + self.state]

    def _in(self, phase: str) -> list[Instruction]:
        return [i for i in self.instructions if self.phase[i.result] == phase]

    def _sort(self, fused: bool) -> None:
        """The phase of every instruction: deferred, unless the next step's cotangents depend on it."""
        for instruction in self.instructions:
            moves = any(isinstance(p, Value) and self._varies(p.index) for p in flat(instruction))
            self.phase[instruction.result] = DEFERRED if moves else ONCE
        pull = [p.index for p in self._pulls if isinstance(p, Value)]
        while True:
            while pull:
                index = pull.pop()
                if self.phase.get(index) == DEFERRED:
                    self.phase[index] = LOOP
                    pull += [p.index for p in flat(self.made[index]) if isinstance(p, Value)]
            self.finals = {index for index in self._summable() if self.phase[index] == DEFERRED}
            pull = [i.result for i in self._in(DEFERRED) if not self._deferrable(i)]
            if not pull:
                break
        for instruction in self._in(DEFERRED):
            # Parts that the loop makes are written straight into their whole, and need no memory of their own.
            result = instruction.result
            if result in self.parts and all(isinstance(p, Value) and self.phase.get(p.index) == LOOP for p in flat(instruction)):
                users = [i for i in self._in(DEFERRED) if any(isinstance(p, Value) and p.index == result for p in flat(i))]
                sums, self.finals = self.finals, self.finals - {result}
                if all(map(self._deferrable, users)):
                    self.phase[result] = LOOP
                else:
                    self.finals = sums
        for instruction in self._in(DEFERRED) if fused else ():
            ready = all(not isinstance(p, Value) or self.phase.get(p.index, LOOP) != DEFERRED for p in flat(instruction))
            if ready and instruction.result not in self.finals and fusable(instruction, self.program, self.x):
                self.phase[instruction.result] = LOOP
        for instruction in self._in(LOOP):
            if self._early(instruction):
                self.phase[instruction.result] = HOISTED
                self.batched[instruction.result] = batched(instruction, self.program, varying(instruction, self._varies))
        if fused:
            self._total()

    def _total(self) -> None:
        """Of what is to be summed over steps and rows the loop adds up the steps, where what it makes is at hand; the rows are left."""
        for k, instruction in enumerate(self.instructions):
            source = instruction.arguments[0] if instruction.op.name == "sum" and instruction.result in self.finals else None
            if not isinstance(source, Value) or self.phase.get(source.index) != LOOP or len(self.program.shape(source.index)) != 2 or static(instruction, "axis") not in (0, (0,)):
                continue
            total = Value(self._added_up(source.index))
            self.instructions[k] = self.made[instruction.result] = instruction._replace(arguments=(total, *instruction.arguments[1:]))

    def _added_up(self, index: int) -> int:
        """The array in which the loop adds up a value."""
        if index not in self.totals:
            self.totals[index] = len(self.program.arrays)
            self.program.arrays.append(self.program.arrays[index])
        return self.totals[index]

    def _prepare(self) -> None:
        """The code of what runs before the loop, and of what runs after it, in memory of the workspace or of a value that is read for the last time where that can be."""
        before, after = Straight(), Straight()
        self._reuse()
        self.factors: set[int] = set()
        """What the loop reads that is computed before it, in memory of the workspace."""
        for instruction in self._in(ONCE):
            before.once(instruction, self.program.dtype(instruction.result))
        for instruction in self._in(HOISTED):
            index, function = instruction.result, self.batched[instruction.result]
            assert function is not None
            if takes_out(function):
                self.factors.add(index)
            before.for_all(instruction, function, self.program.dtype(index), index if index in self.factors else None)
        for instruction in self._in(DEFERRED):
            index = instruction.result
            dtype, function = self.program.dtype(index), self.batched.get(index)
            if index in self.finals:
                self._summing(after, instruction, function, dtype)
            elif function is not None:
                after.for_all(instruction, function, dtype, self.places_of.get(index))
        self.before, self.after = before.compile(), after.compile()

    def _reuse(self) -> None:
        """Memory for what is computed after the loop and read there alone: fresh memory costs a page fault for every 4,096 bytes."""
        deferred = self._in(DEFERRED)
        self.buffers: list[tuple[tuple[int, ...], Any]] = []
        self.places_of: dict[int, int] = {}
        """The number under which the buffer of a value is among the arrays."""
        owners: dict[int, set[int]] = {}
        """The values in whose buffers one may lie."""
        last: dict[int, int] = {}
        wanted = {p.index for p in self.places if isinstance(p, Value)}
        for k, instruction in enumerate(deferred):
            index, function = instruction.result, self.batched.get(instruction.result)
            parts = [p.index for p in flat(instruction) if isinstance(p, Value)]
            below = set[int]().union(*(owners.get(part, ()) for part in parts))
            buffered = index not in wanted and index not in self.finals and function is not None and takes_out(function) and instruction.op.name != "matmul"
            # What may share memory with its operands keeps that of them.
            fresh = isinstance(instruction.op.forward, np.ufunc) or instruction.op.name == "matmul" or index in self.finals
            owners[index] = {index} if buffered else set() if fresh else below
            last |= dict.fromkeys(below, k)
        for index in wanted:
            last |= dict.fromkeys(owners.get(index, ()), len(deferred))
        free: dict[Any, list[int]] = defaultdict(list)
        for k, instruction in enumerate(deferred):
            index = instruction.result
            dying = {owner for p in flat(instruction) if isinstance(p, Value) for owner in owners.get(p.index, ()) if last.get(owner) == k and owner in self.places_of}
            kinds = {owner: self.buffers[self.places_of[owner] - _BUFFER] for owner in dying}
            inplace = isinstance(instruction.op.forward, np.ufunc)
            if inplace:
                for owner, kind in kinds.items():
                    free[kind].append(self.places_of[owner])
            if index in owners[index]:
                kind = (self.program.shape(index), self.program.dtype(index))
                if not free[kind]:
                    self.buffers.append(kind)
                    free[kind].append(_BUFFER + len(self.buffers) - 1)
                self.places_of[index] = free[kind].pop()
            if not inplace:
                for owner, kind in kinds.items():
                    free[kind].append(self.places_of[owner])

    def _gather(self) -> None:
        """Where one operation makes all parts of a whole, of factors from before the loop, it makes the whole: the operands are put together instead, in place."""
        self.within: dict[int, tuple[int, Any]] = {}
        uses = uses_of(self.instructions)
        kept = {p.index for p in self.places if isinstance(p, Value)}

        def alone(side: Sequence[Any], shapes: list[tuple[int, ...]], dtype: Any) -> bool:
            fit = all(isinstance(p, Value) and uses[p.index] == 1 and p.index not in kept for p in side)
            return fit and all(self.program.shape(p.index) == s and self.program.dtype(p.index) == dtype for p, s in zip(side, shapes, strict=True))

        def written(place: Value) -> bool:
            maker = self.made.get(place.index)
            assembled = place.index in self.parts and self.parts[place.index].whole
            return maker is not None and self.phase[maker.result] == LOOP and (assembled or (isinstance(maker.op.forward, np.ufunc) and place.index not in self.parts))

        for whole, assembly in list(self.parts.items()):
            values = [part.value for part in assembly.parts]
            shape = self.program.shape(whole)
            if self.phase.get(whole) != LOOP or not assembly.whole or math.prod(shape) > SHORT or not all(isinstance(v, Value) for v in values):
                continue
            shapes = [self.program.shape(v.index) for v in values]
            makers = [self.made[v.index] for v in values if v.index in self.made and written(v) and v.index not in self.parts]
            if len(makers) < len(values) or len({(m.op, len(m.arguments)) for m in makers}) > 1 or len(makers[0].arguments) != 2:
                continue
            left, right = zip(*(m.arguments for m in makers), strict=True)
            dtype = self.program.dtype(whole)
            if not (all(alone(side, shapes, dtype) for side in (values, left, right)) and all(map(written, left)) and self.factors.issuperset(p.index for p in right)):
                continue
            first, second = len(self.program.arrays), len(self.program.arrays) + 1
            self.program.arrays += [self.program.arrays[whole]] * 2
            self.parts[first] = Assembly([Part(v, part.index, part.place) for v, part in zip(left, assembly.parts, strict=True)], True)
            self.within |= {v.index: (second, part.place) for v, part in zip(right, assembly.parts, strict=True)}
            self.factors.add(second)
            self.phase[first] = LOOP
            del self.parts[whole]
            gone = {m.result for m in makers}
            k = self.instructions.index(self.made[whole])
            self.instructions[k : k + 1] = [Instruction(self.made[whole].op, tuple(left), first), Instruction(makers[0].op, (Value(first), Value(second)), whole)]
            self.instructions = [i for i in self.instructions if i.result not in gone]
            self.made = {i.result: i for i in self.instructions}

    def _summing(self, code: Straight, instruction: Instruction, function: Batched | None, dtype: Any) -> None:
        """Run an instruction of which the sum over all steps is wanted."""
        on_totals = any(isinstance(p, Value) and p.index in self.totals.values() for p in flat(instruction))
        if on_totals or self._on_sums(instruction, self.finals):
            if instruction.result not in self.parts:
                code.once(instruction, dtype)
                return
            assembled = self._assembled(instruction.result)
            code.for_all(instruction, lambda *arrays, steps: assembled(*[a[None] for a in arrays], steps=1)[0], dtype)
            return
        final = self._final(instruction)
        if final is not None:
            code.for_all(instruction, final, dtype)
            return
        assert function is not None
        code.for_all(instruction, lambda *arrays, steps: np.asarray(function(*arrays, steps=steps)).astype(dtype, copy=False).sum(axis=0), dtype)

    def _summable(self) -> set[int]:
        """Values of which the sum over all steps is enough: weights' gradients, and what only leads to them by linear operations."""
        targets = {p.index for p in self.places[self.x + self.state :] if isinstance(p, Value)}
        kept = {p.index for p in self.places[: self.x + self.state] if isinstance(p, Value)}
        users = readers_of(self.instructions)
        found = {index for index in self.made if self._varies(index) and index not in kept and (index in targets or index in users)}
        before = -1
        while before != len(found):
            before = len(found)
            found = {index for index in found if not (index in targets and index in users) and all(self._on_sums(user, found) for user in users.get(index, ()))}
        return found

    def _on_sums(self, instruction: Instruction, sums: set[int]) -> bool:
        """Whether an instruction, linear in what varies, gives the sum of its results for the sums of its operands."""
        moving = [p.index for p in flat(instruction) if isinstance(p, Value) and self._varies(p.index)]
        if instruction.result not in sums or not moving or not sums.issuperset(moving):
            return False
        name = instruction.op.name
        return instruction.result in self.parts or name in _LINEAR or (name in ("multiply", "matmul") and len(moving) == 1)

    def _deferrable(self, instruction: Instruction) -> bool:
        """Whether an instruction can run for all steps at once; if so, notes how."""
        result = instruction.result
        if result in self.finals and (self._on_sums(instruction, self.finals) or self._final(instruction) is not None):
            return True
        self.batched[result] = self._assembled(result) if result in self.parts else batched(instruction, self.program, varying(instruction, self._varies))
        return self.batched[result] is not None

    def _varies(self, index: int) -> bool:
        return index in self.moving or self.phase.get(index, ONCE) != ONCE

    def _early(self, instruction: Instruction) -> bool:
        """Whether an instruction, short of time at each step, can run for all steps before the loop: it reads no cotangent."""
        if available():
            return False
        known = all(p.index < self.count or self.phase.get(p.index) in (ONCE, HOISTED) for p in flat(instruction) if isinstance(p, Value))
        return known and elementwise(instruction.op) and 0 < math.prod(self.program.shape(instruction.result)) <= SHORT

    def _store(self) -> None:
        """Where values live, and the code of the loop."""
        program, x, state = self.program, self.x, self.state
        loop = self._in(LOOP)
        order = {i.result: k for k, i in enumerate(loop)}
        for place in self.places[x + state :]:
            if isinstance(place, Value) and place.index in order:
                self._added_up(place.index)
        late = {p.index for i in self._in(DEFERRED) for p in flat(i) if isinstance(p, Value)}
        late |= {p.index for p in [*self.places[:x], *self.places[x + state :]] if isinstance(p, Value)}
        top = len(program.arrays)
        # The cotangent that a step gets from the one after it lives in one place: where all of them are read later, copies are kept.
        self.copies = {seed: top + state + len(self.places) + j for j, seed in enumerate(self.state_seeds) if seed in late}
        self.own = {index for index in order if index in late} | set(self.copies.values())
        """What has an array a step that the loop writes."""
        stacked = self.own | self.saved | {s for s in self.y_seeds if s is not None} | {i.result for i in self._in(HOISTED)} | self.factors
        self.loop = Loop(program, loop, self.parts, stacked, {i.result for i in self._in(ONCE)})
        fixed = {s for s in self.state_seeds if s is not None}
        self.joined = self._joined(loop, order, fixed)
        self.loop.plan(fixed | set(self.joined), {p.index for p in self._pulls if isinstance(p, Value)} | self.totals.keys())
        extra, last = [], []
        self.temporary: dict[int, int] = {}
        for j, (place, seed) in enumerate(zip(self._pulls, self.state_seeds, strict=True)):
            if seed is None or (isinstance(place, Value) and place.index in self.joined):
                continue
            source = "0" if place is None else self.loop._name(place)
            root = self.loop.root(place.index) if isinstance(place, Value) else None
            if root in fixed and root != seed:
                self.temporary[top + j] = seed
                extra.append(f"copyto(v{top + j}, {source})")
                source = f"v{top + j}"
            last.append(f"copyto(v{seed}, {source})")
        extra += [f"add(v{total}, v{index}, v{total})" for index, total in self.totals.items()]
        self.loop.compile(extra + last, [f"copyto(v{copy}, v{seed})" for seed, copy in self.copies.items()])
        inputs = [p.index for p in self.places[:x] if isinstance(p, Value)]
        self.given = {k for k in inputs if k in self.own and inputs.count(k) == 1} - self.loop.aliases.keys() - self.within.keys() - {self.loop.root(k) for k in self.loop.aliases}
        """Gradients that the loop writes straight into what the caller gets."""

    def _joined(self, loop: list[Instruction], order: dict[int, int], fixed: set[int]) -> dict[int, int]:
        """The states' gradients that can live where the cotangent was: its last use comes before they are made."""
        self.loop.alias()
        root, pulls = self.loop.root, [p.index for p in self._pulls if isinstance(p, Value)]
        joined: dict[int, int] = {}
        for place, seed in zip(self._pulls, self.state_seeds, strict=True):
            if seed is None or not isinstance(place, Value) or place.index not in order or place.index in self.own or place.index in self.parts:
                continue
            if place.index in self.loop.aliases or pulls.count(place.index) > 1 or root(place.index) in fixed or seed in map(root, pulls):
                continue
            producer, k = self.made[place.index], order[place.index]
            last = max((order[i.result] for i in loop for p in flat(i) if isinstance(p, Value) and root(p.index) == seed), default=-1)
            if last < k or (last == k and elementwise(producer.op) and producer.op.name != "where"):
                joined[place.index] = seed
        return joined

    def _assembled(self, result: int) -> Batched:
        shape, dtype, pieces = self.program.shape(result), self.program.dtype(result), self.parts[result].parts

        def assembled(*arrays: np.ndarray, steps: int) -> np.ndarray:
            total = np.zeros((steps, *shape), dtype)
            for array, part in zip(arrays, pieces, strict=True):
                part.place(total, True)[...] = array
            return total

        return assembled

    def _final(self, instruction: Instruction) -> Any:
        """A function that gives the instruction's result summed over all steps, where there is a better way than to sum."""
        op, arguments, result = instruction
        if result in self.parts:
            return None
        if not all(isinstance(a, Value) and self._varies(a.index) for a in arguments[:2]) and op.name != "sum":
            return None
        program = self.program
        if op.name == "matmul" and all(len(program.shape(a.index)) == 2 for a in arguments):
            turned = self._turned(result)

            def product(x: np.ndarray, g: np.ndarray, steps: int) -> np.ndarray:
                columns = g.reshape(steps * g.shape[1], g.shape[2])
                # Of a transposed stack this is its own memory again: x[t].T for all t are the rows of the stack, transposed.
                rows = x.transpose(0, 2, 1).reshape(steps * x.shape[2], x.shape[1]).T
                return dot(columns.T, rows.T).T if turned else dot(rows, columns)

            return product
        if op.name == "scatter" and len(program.shape(result)):
            shape = program.shape(result)

            def scattered(values: np.ndarray, index: np.ndarray, steps: int) -> np.ndarray:
                total = np.zeros(shape, values.dtype)
                add_at(total, index, values)
                return total

            return scattered if isinstance(arguments[1], Value) else None
        if op.name == "sum" and isinstance(arguments[0], Value) and self._varies(arguments[0].index):
            source = program.shape(arguments[0].index)
            axis = static(instruction, "axis")
            axes = (axis,) if isinstance(axis, int) else axis
            if len(source) == 2 and axes == (0,):
                return lambda a, steps: np.add.reduce(np.add.reduce(a, axis=0), axis=0).reshape(program.shape(result))
        return None

    def _turned(self, index: int) -> bool:
        """Whether a matrix on the way to a weight's gradient is better made in Fortran's order, so that the gradient is C-contiguous."""
        for instruction in self.instructions:
            if instruction.op.name == "transpose" and instruction.arguments[0] == Value(index):
                return not self._turned(instruction.result)
        return any(place == Value(index) and fortran for place, fortran in zip(self.places[self.x + self.state :], self.fortran, strict=False))

    def _workspace(self, steps: int) -> Workspace:
        program = self.program
        arrays = {s: np.empty(program.shape(s), program.dtype(s)) for s in self.state_seeds if s is not None}
        arrays |= {index: arrays[seed] for index, seed in self.joined.items()}
        arrays |= {index: np.empty_like(arrays[seed]) for index, seed in self.temporary.items()}
        originals = {copy: seed for seed, copy in self.copies.items()}
        for index in (self.own | self.factors) - self.given - self.loop.aliases.keys() - self.within.keys():
            like = originals.get(index, index)
            arrays[index] = np.empty((steps, *program.shape(like)), program.dtype(like))
        arrays |= {index: place(arrays[whole], True) for index, (whole, place) in self.within.items()}
        arrays |= {_BUFFER + k: np.empty((steps, *shape), dtype) for k, (shape, dtype) in enumerate(self.buffers)}
        return Workspace(arrays, self.loop.scratched(arrays))

    def run(
        self, steps: int, reverse: bool, kept: Workspace, others: dict[int, np.ndarray], outer: Sequence[np.ndarray], cotangents: Sequence[np.ndarray | None]
    ) -> list[np.ndarray | None]:
        """The gradient of each input and outer tensor, or None; ``kept`` and ``others`` are the forward values."""
        program, own = self.program, Lease((self, steps, reverse), lambda: self._workspace(steps))
        arrays, outer = Memory(kept, own.workspace), [*outer, *self.constants]
        arrays.update(others)
        for seed, g in zip(self.y_seeds, cotangents, strict=False):
            if seed is not None:
                arrays[seed] = np.broadcast_to(np.zeros((), program.dtype(seed)), (steps, *program.shape(seed))) if g is None else g
        for seed, g in zip(self.state_seeds, cotangents[len(self.y_seeds) :], strict=True):
            if seed is not None:
                arrays[seed][...] = 0 if g is None else g
        for index in self.given:
            arrays[index] = np.empty((steps, *program.shape(index)), program.dtype(index))
        for total in self.totals.values():
            arrays[total] = np.zeros(program.shape(total), program.dtype(total))
        self.before(arrays, outer, steps)
        self.loop.run(steps, not reverse, arrays, outer)
        first = [None if seed is None else arrays[seed].copy() for seed in self.state_seeds]
        for seed, copy in self.copies.items():
            arrays[seed] = arrays[copy]
        self.after(arrays, outer, steps)

        def all_steps(place: Value | Outer) -> np.ndarray:
            array = arrays[place.index] if isinstance(place, Value) else outer[place.index]
            if not (isinstance(place, Value) and self._varies(place.index)):
                array = np.broadcast_to(array, (steps, *array.shape))
            # What the caller gets must not be given out again.
            return array.copy() if own.workspace.owns(array) else array

        sums = self.totals | {index: index for index in self.finals}
        inputs = [None if place is None else all_steps(place) for place in self.places[: self.x]]
        weights = [
            None if place is None else arrays[sums[place.index]] if isinstance(place, Value) and place.index in sums else all_steps(place).sum(axis=0)
            for place in self.places[self.x + self.state :]
        ]
        return [*inputs, *(None if place is None else g for place, g in zip(self._pulls, first, strict=True)), *weights]
