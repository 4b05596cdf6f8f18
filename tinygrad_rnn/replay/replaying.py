"""Replay: a recorded step run for all time steps in memory laid out beforehand, and its derived backward program."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from ..core.primitive import manual
from ..core.state import State, current, enable_grad, installed, next_index, plain, writes
from ..core.tape import Record
from ..core.tensor import Tensor, is_tensor, run_sweep, wrap
from ..errors import TapeError
from ..ops.indexing import add_at
from ..ops.shaping import stack
from .batching import batched, behind, elementwise, is_view, static, view_of
from .compiled import dot
from .plan import DEFERRED, HOISTED, LOOP, ONCE, Loop, assemblies, classify, flat, needed_for, operands, run_batched, run_once, uses_of, varying
from .program import Constant, Instruction, Outer, Program, Trace, Unreplayable, Value, interpret

Place = Value | Outer | None


class Pool:
    """Arrays given back, to be taken again: fresh memory costs a page fault for every 4,096 bytes.

    All of them together take ``limit`` bytes at most; the kinds that were not asked for the longest go first.
    """

    limit = 1 << 28

    def __init__(self) -> None:
        self._free: OrderedDict[Any, list[np.ndarray]] = OrderedDict()
        self._bytes = 0
        # A lease may end while the garbage collector runs, in the middle of anything.
        self._lock = threading.RLock()

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        kind = (shape, np.dtype(dtype))
        with self._lock:
            free = self._free.get(kind)
            if free:
                array = free.pop()
                self._bytes -= array.nbytes
                self._free.move_to_end(kind)
                return array
        return np.empty(shape, dtype)

    def give(self, arrays: list[np.ndarray]) -> None:
        with self._lock:
            for array in arrays:
                kind = (array.shape, array.dtype)
                self._free.setdefault(kind, []).append(array)
                self._free.move_to_end(kind)
                self._bytes += array.nbytes
            while self._bytes > self.limit:
                oldest = next(iter(self._free))
                self._bytes -= sum(array.nbytes for array in self._free.pop(oldest))


POOL = Pool()


def constants(arguments: tuple[Any, ...]) -> Iterator[Constant]:
    """The static arguments among arguments, also those inside of tuples."""
    for argument in arguments:
        if isinstance(argument, Constant):
            yield argument
        elif type(argument) is tuple:
            yield from constants(argument)


class Lease:
    """Arrays of a pool for as long as this object lives."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.arrays: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = self.pool.take(shape, dtype)
        self.arrays.append(array)
        return array

    def __del__(self) -> None:
        self.pool.give(self.arrays)


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
    return trace.program, [trace.place(found[t._node][0]) if t._node is not None and t._node in found else None for t in leaves], seeds


class Backward:
    """The backward program of a step with its phases, and how to run it for all steps."""

    def __init__(self, program: Program, places: list[Place], seeds: list[int | None], forward: Program, fphase: dict[int, str], x: int, state: int, outputs: int) -> None:
        self.program, self.places, self.seeds = program, places, seeds
        self.count = len(forward.arrays)
        self.x, self.state, self.outputs = x, state, outputs
        self.gs = places[x : x + state]
        wanted = {p.index for p in places if isinstance(p, Value)}
        instructions, parts = assemblies(program, wanted)
        self.parts = parts
        instructions = needed_for(instructions, wanted)
        self.made = {i.result: i for i in instructions}
        moving: set[int] = {k for k in range(self.count) if fphase.get(k, ONCE) != ONCE} | {s for s in seeds if s is not None}
        phase: dict[int, str] = {}
        for instruction in instructions:
            moves = any(isinstance(p, Value) and (p.index in moving or phase.get(p.index, ONCE) != ONCE) for p in flat(instruction))
            phase[instruction.result] = DEFERRED if moves else ONCE
        uses = uses_of(instructions)
        self.moving, self.phase = moving, phase
        pull = [p.index for p in self.gs if isinstance(p, Value)]
        targets = {p.index for p in places[x + state :] if isinstance(p, Value)}
        others = {p.index for p in places[: x + state] if isinstance(p, Value)}
        self.finals = {index for index in targets if index in self.made and not uses[index] and index not in others}
        self.batched: dict[int, Any] = {}
        while True:
            while pull:
                index = pull.pop()
                if phase.get(index) == DEFERRED:
                    phase[index] = LOOP
                    pull += [p.index for p in flat(self.made[index]) if isinstance(p, Value)]
            for instruction in instructions:
                result = instruction.result
                if phase[result] == DEFERRED and not (result in self.finals and self._final(instruction) is not None):
                    function = self._assembled(result, parts) if result in parts else batched(instruction, program, varying(instruction, self._varies))
                    if function is None:
                        pull.append(result)
                    self.batched[result] = function
            if not pull:
                break
        self.instructions = instructions
        loop = [i for i in instructions if phase[i.result] == LOOP]
        self.read = {p.index for i in instructions for p in flat(i) if isinstance(p, Value)} | wanted
        self.saved = {k for k in self.read if k < self.count and fphase.get(k, ONCE) != ONCE}
        late = {p.index for i in instructions if phase[i.result] == DEFERRED for p in flat(i) if isinstance(p, Value)}
        late |= {p.index for p in [*places[:x], *places[x + state :]] if isinstance(p, Value)}
        top = len(program.arrays)
        # The cotangent that a step gets from the one after it lives in one place: where all of them are read later, copies are kept.
        self.copies = {seed: top + state + len(places) + j for j, seed in enumerate(seeds[outputs:]) if seed in late}
        stacked = {i.result for i in loop if i.result in late or i.result in {p.index for p in places[:x] if isinstance(p, Value)}}
        y_seeds = {s for s in seeds[:outputs] if s is not None}
        self.state_seeds = seeds[outputs:]
        fixed = {s for s in self.state_seeds if s is not None}
        self.sums = [p.index for p in places[x + state :] if isinstance(p, Value) and phase.get(p.index) == LOOP]
        # Where the last use of a state's cotangent comes before its successor is made, both live in one place.
        order = {i.result: k for k, i in enumerate(loop)}
        self.loop = Loop(program, loop, parts, stacked | self.saved | y_seeds | set(self.copies.values()), {i.result for i in instructions if phase[i.result] == ONCE})
        self.joined: dict[int, int] = {}
        for instruction in loop:
            self.loop._alias(instruction)
        for j, place in enumerate(self.gs):
            seed = self.state_seeds[j]
            if seed is None or not isinstance(place, Value) or place.index not in order or place.index in stacked or place.index in self.loop.aliases or place.index in parts:
                continue
            if [p.index for p in self.gs if isinstance(p, Value)].count(place.index) > 1 or self.loop.root(place.index) in fixed:
                continue
            if any(isinstance(p, Value) and self.loop.root(p.index) == seed for p in self.gs):
                continue
            producer, k = self.made[place.index], order[place.index]
            last = max((order[i.result] for i in loop for p in flat(i) if isinstance(p, Value) and self.loop.root(p.index) == seed), default=-1)
            if last < k or (last == k and elementwise(producer.op) and producer.op.name != "where"):
                self.joined[place.index] = seed
        self.loop.aliases.clear()
        self.loop.plan(fixed | set(self.joined), {p.index for p in self.gs if isinstance(p, Value)} | set(self.sums))
        extra, late_extra = [], []
        self.temporary: dict[int, int] = {}
        for j, place in enumerate(self.gs):
            seed = self.state_seeds[j]
            if seed is None or (isinstance(place, Value) and place.index in self.joined):
                continue
            source = "0" if place is None else self.loop._name(place)
            root = self.loop.root(place.index) if isinstance(place, Value) else None
            if root in fixed and root != seed:
                self.temporary[top + j] = seed
                extra.append(f"copyto(v{top + j}, {source})")
                source = f"v{top + j}"
            late_extra.append(f"copyto(v{seed}, {source})")
        self.accumulators = {top + state + j: index for j, index in enumerate(self.sums)}
        extra += [f"add(v{name}, v{index}, v{name})" for name, index in self.accumulators.items()]
        self.loop.compile(extra + late_extra, [f"copyto(v{copy}, v{seed})" for seed, copy in self.copies.items()])

    def _varies(self, index: int) -> bool:
        return index in self.moving or self.phase.get(index, ONCE) != ONCE

    def _assembled(self, result: int, parts: Any) -> Any:
        shape, dtype, pieces = self.program.shape(result), self.program.dtype(result), parts[result].parts

        def assembled(*arrays: np.ndarray, steps: int) -> np.ndarray:
            total = np.zeros((steps, *shape), dtype)
            for array, (_, index) in zip(arrays, pieces, strict=True):
                total[behind(index)] = array
            return total

        return assembled

    def _final(self, instruction: Instruction) -> Any:
        """A function that gives the instruction's result summed over all steps, where there is a better way than to sum.

        ``flipped`` asks for it in Fortran's order: of the transpose of a weight, so that the weight's own gradient is C-contiguous.
        """
        op, arguments, result = instruction
        if result in self.parts:
            return None
        if not all(isinstance(a, Value) and self._varies(a.index) for a in arguments[:2]) and op.name != "sum":
            return None
        program = self.program
        if op.name == "matmul" and all(len(program.shape(a.index)) == 2 for a in arguments):

            def product(x: np.ndarray, g: np.ndarray, steps: int, flipped: bool) -> np.ndarray:
                columns = g.reshape(steps * g.shape[1], g.shape[2])
                # Of a transposed stack this is its own memory again: x[t].T for all t are the rows of the stack, transposed.
                rows = x.transpose(0, 2, 1).reshape(steps * x.shape[2], x.shape[1]).T
                return dot(columns.T, rows.T).T if flipped else dot(rows, columns)

            return product
        if op.name == "scatter" and len(program.shape(result)):
            shape = program.shape(result)

            def scattered(values: np.ndarray, index: np.ndarray, steps: int, flipped: bool) -> np.ndarray:
                total = np.zeros(shape, values.dtype)
                add_at(total, index, values)
                return total

            return scattered if isinstance(arguments[1], Value) else None
        if op.name == "sum" and isinstance(arguments[0], Value) and self._varies(arguments[0].index):
            source = program.shape(arguments[0].index)
            axis = static(instruction, "axis")
            axes = (axis,) if isinstance(axis, int) else axis
            if len(source) == 2 and axes == (0,):
                return lambda a, steps, flipped: np.ones(a.shape[0] * a.shape[1], a.dtype).dot(a.reshape(a.shape[0] * a.shape[1], a.shape[2])).reshape(program.shape(result))
        return None

    def run(self, steps: int, reverse: bool, arrays: dict[int, np.ndarray], outer: list[np.ndarray], cotangents: list[np.ndarray | None], pool: Pool) -> list[Any]:
        """The gradient of each input and outer tensor, or None; ``arrays`` are the forward values that were kept."""
        program, lease = self.program, Lease(pool)
        arrays = dict(arrays)
        for seed, g in zip(self.seeds, cotangents, strict=True):
            if seed is None:
                continue
            shape, dtype = program.shape(seed), program.dtype(seed)
            if seed in self.state_seeds:
                arrays[seed] = lease.take(shape, dtype)
                arrays[seed][...] = 0 if g is None else g
            else:
                arrays[seed] = np.broadcast_to(np.zeros((), dtype), (steps, *shape)) if g is None else g
        for index, seed in self.joined.items():
            arrays[index] = arrays[seed]
        for index, seed in self.temporary.items():
            arrays[index] = lease.take(program.shape(seed), program.dtype(seed))
        for index, source in self.accumulators.items():
            arrays[index] = np.zeros(program.shape(source), program.dtype(source))

        after = False

        def value(place: Any) -> np.ndarray:
            if isinstance(place, Outer):
                return outer[place.index] if place.index < len(outer) else program.outer[place.index]._data
            index = self.copies.get(place.index, place.index) if after else place.index
            if index not in arrays:
                whole, view = self.loop.aliases[index]
                arrays[index] = view(value(Value(whole)), True)
            return arrays[index]

        for instruction in self.instructions:
            if self.phase[instruction.result] == ONCE:
                arrays[instruction.result] = run_once(instruction, value, program.dtype(instruction.result))
        originals = {copy: seed for seed, copy in self.copies.items()}
        for index in self.loop.stacked:
            if index not in arrays:
                like = originals.get(index, index)
                arrays[index] = lease.take((steps, *program.shape(like)), program.dtype(like))
        for index in self.loop.parts:
            if index in self.loop.stacked and index in self.loop.zeroed:
                arrays[index][...] = 0
        buffers = [lease.take(*kind) for kind in self.loop.buffers]
        self.loop.run(steps, not reverse, arrays, value, buffers)
        after = True
        summed: dict[int, np.ndarray] = {}
        weights = zip(self.places[self.x + self.state :], outer, strict=False)
        flipped = {p.index for p, o in weights if isinstance(p, Value) and o.flags.f_contiguous and not o.flags.c_contiguous}
        for instruction in self.instructions:
            index = instruction.result
            if self.phase[index] != DEFERRED:
                continue
            final = self._final(instruction) if index in self.finals else None
            if final is not None:
                summed[index] = run_batched(instruction, functools.partial(final, flipped=index in flipped), value, steps, program.dtype(index))
            else:
                arrays[index] = run_batched(instruction, self.batched[index], value, steps, program.dtype(index))
        gradients: list[Any] = []
        accumulated = {source: arrays[index] for index, source in self.accumulators.items()}
        for k, place in enumerate(self.places):
            if place is None:
                gradients.append(None)
            elif k < self.x:
                gradients.append(self._all_steps(place, value, steps, pool_owned=lease))
            elif k < self.x + self.state:
                seed = self.state_seeds[k - self.x]
                gradients.append(None if seed is None else arrays[seed].copy())
            elif isinstance(place, Value) and place.index in summed:
                gradients.append(summed[place.index])
            elif isinstance(place, Value) and place.index in accumulated:
                gradients.append(accumulated[place.index])
            else:
                gradients.append(self._all_steps(place, value, steps, pool_owned=lease).sum(axis=0))
        return gradients

    def _all_steps(self, place: Any, value: Callable[[Any], np.ndarray], steps: int, pool_owned: Lease) -> np.ndarray:
        array = value(place)
        if not (isinstance(place, Value) and (self._varies(place.index))):
            array = np.broadcast_to(array, (steps, *array.shape))
        # What the caller gets must not be given out again.
        return array.copy() if any(np.shares_memory(array, a) for a in pool_owned.arrays) else array


def _seen_through(instruction: Instruction) -> bool:
    """Whether a value is kept as what it is a view of; a reshaped one may have needed a copy."""
    return is_view(instruction) and instruction.op.name != "reshape"


class Plan:
    """How a recorded step runs for all steps: made once for a program, used at each call that records the same one."""

    def __init__(self, program: Program, x: int, state: int, results: list[Place], outputs: int, wanted: list[bool], recording: bool) -> None:
        self.program, self.x, self.state, self.results, self.outputs, self.wanted = program.light(len(program.outer)), x, state, results, outputs, wanted
        self.pool = POOL
        self.tracked = [t._node is not None for t in program.outer]
        program, recorded = self.program, program
        count = program.inputs
        drawn = [index for _, index in program.draws]
        self.others = [k for k in range(count) if k >= x + state] + drawn
        self.phase, self.batched = classify(program, set(range(count)) | set(drawn), set(range(x, x + state)))
        self.backward: Backward | None = None
        self.reached = self._reached(program)
        if recording:
            self.backward = self._derived(recorded)
        made = {i.result: i for i in program.instructions}
        saved = set() if self.backward is None else set(self.backward.saved)
        self.view_of: dict[int, Instruction] = {}
        self.stored: set[int] = set()
        """What is kept for the backward pass: the memory of the saved values, not the views of it."""
        for index in sorted(saved, reverse=True):
            while index in made and self.phase[index] == LOOP and _seen_through(made[index]):
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
            whole = isinstance(place, Value) and place.index in made and self.phase[place.index] == HOISTED
            if isinstance(place, Value) and place.index not in self.exposed and (whole or (place.index in inloop and not _seen_through(made[place.index]))):
                self.exposed.append(place.index)
            else:
                self.exposed.append(top + state + j)
                self.copies[top + state + j] = place
        stacked |= {k for k in [*self.slots, *self.exposed] if k in inloop}
        hoisted = {i.result for i in self.instructions if self.phase[i.result] == HOISTED}
        self.loop = Loop(program, loop, {}, stacked | set(range(count)) | set(drawn) | hoisted | set(self.copies), {i.result for i in self.instructions if self.phase[i.result] == ONCE})
        self.loop.plan(set(), {p.index for p in self.copies.values() if isinstance(p, Value)})
        for index, place in self.copies.items():
            extra.append(f"copyto(v{index}, {self.loop._name(place)})")
        self.loop.compile(extra)

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
        states = list(states)
        while True:
            results = [weight or any(k < self.x or states[k - self.x] for k in inputs) for inputs, weight in self.reached]
            grown = [a or b for a, b in zip(states, results[self.outputs :], strict=True)]
            if grown == states:
                return results
            states = grown

    def _derived(self, program: Program) -> Backward:
        """The backward program, derived twice at different values: what differs then would depend on a value."""
        rng = np.random.default_rng(0)
        given = {k: program.arrays[k] for k in [*range(program.inputs), *(index for _, index in program.draws)]}
        moved = {k: a + 0.01 * rng.standard_normal(a.shape).astype(a.dtype) if a.dtype.kind == "f" else a for k, a in given.items()}
        (first, places, seeds), (second, *others) = (derive(program, chosen, self.wanted, self.results, self.outputs) for chosen in (given, moved))
        same = first.key() == second.key() and [places, seeds] == others
        if not (same and all(np.array_equal(a._data, b._data, equal_nan=True) for a, b in zip(first.outer, second.outer, strict=True))):
            raise Unreplayable("its gradient is computed otherwise for other values")
        return Backward(first.light(len(program.outer)), places, seeds, self.program, self.phase, self.x, self.state, self.outputs)

    def run(self, steps: int, reverse: bool, inputs: list[np.ndarray], first: list[np.ndarray], outer: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray], Any]:
        """Outputs for all steps, last states, and what the backward pass needs: forward values by number, and their lease."""
        program, kept, short = self.program, Lease(self.pool), Lease(self.pool)
        arrays: dict[int, np.ndarray] = {}
        for k, array in zip([*range(self.x), *self.others], inputs, strict=True):
            arrays[k] = array

        def value(place: Any) -> np.ndarray:
            return outer[place.index] if isinstance(place, Outer) else arrays[place.index]

        before, behind_ = (slice(1, None), slice(None, -1)) if reverse else (slice(None, -1), slice(1, None))
        for j, slot in enumerate(self.slots):
            shape, dtype = first[j].shape, first[j].dtype
            whole = np.empty((steps + 1, *shape), dtype) if slot in self.exposed else kept.take((steps + 1, *shape), dtype)
            whole[-1 if reverse else 0] = first[j]
            arrays[self.x + j], arrays[slot] = whole[before], whole[behind_]
        for instruction in self.instructions:
            phase = self.phase[instruction.result]
            if phase == ONCE:
                arrays[instruction.result] = run_once(instruction, value, program.dtype(instruction.result))
            elif phase == HOISTED:
                arrays[instruction.result] = run_batched(instruction, cast(Any, self.batched[instruction.result]), value, steps, program.dtype(instruction.result))
        for index in self.loop.stacked:
            if index not in arrays:
                like = program.at(self.copies.get(index) or Value(index))
                if index in self.exposed:
                    arrays[index] = np.empty((steps, *like.shape), like.dtype)
                else:
                    arrays[index] = (kept if index in self.stored else short).take((steps, *like.shape), like.dtype)
        buffers = [short.take(*kind) for kind in self.loop.buffers]
        self.loop.run(steps, reverse, arrays, value, buffers)
        ends = [arrays[slot][0 if reverse else -1].copy() for slot in self.slots]
        given = [*inputs, *first, *outer]
        for index in self.exposed:
            # A view of what the caller holds would change with it.
            if self.phase.get(index) == HOISTED and any(np.may_share_memory(arrays[index], a) for a in given):
                arrays[index] = arrays[index].copy()
        return [arrays[index] for index in self.exposed], ends, (arrays, kept)

    def kept(self, arrays: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """The forward values that the backward pass reads, all steps of each."""
        assert self.backward is not None

        def read(index: int) -> np.ndarray:
            if index in self.view_of:
                instruction = self.view_of[index]
                return view_of(instruction, self.program)(read(instruction.arguments[0].index), steps=0)
            return arrays[index]

        found = {index: read(index) for index in self.backward.saved}
        for index in self.backward.read:
            if index < len(self.program.arrays) and index not in found:
                found[index] = arrays[index]
        return found


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


def _bundled(k: int, dtype: Any) -> Callable[[Any], list[Any]]:
    return lambda g: [Bundle({k: g}, dtype)]


PLANS: OrderedDict[Any, Plan | str] = OrderedDict()
"""Plans by what a recording must have in common; a string says why there is none. The least recently used are dropped."""

LIMIT = 64


def remember(key: Any, plan: Plan | str) -> None:
    PLANS[key] = plan
    while len(PLANS) > LIMIT:
        PLANS.popitem(last=False)


def replay(
    plan: Plan, steps: int, reverse: bool, inputs: list[Tensor], others: list[np.ndarray], first: list[Tensor], outer: list[Tensor], name: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Run a plan: one record for all steps, with the outputs, stacked, and the last states hanging on it."""
    x_arrays, s_arrays, o_arrays = [t._data for t in inputs], [t._data for t in first], [t._data for t in outer]
    ys, ends, (arrays, lease) = plan.run(steps, reverse, [*x_arrays, *others], s_arrays, o_arrays)
    results = [*ys, *ends]
    nodes = tuple(t._node for t in [*inputs, *first, *outer])
    if plan.backward is None or not any(n is not None for n in nodes) or not results:
        return [wrap(y) for y in ys], [wrap(e) for e in ends]
    kept = plan.kept(arrays)
    backward, began = plan.backward, next_index()
    exposed = [*x_arrays, *s_arrays, *o_arrays, *ys]
    state = plain(current())
    held = [wrap(t._data, t._node) for t in [*inputs, *first, *outer]]

    def pull(g: Bundle) -> list[Any]:
        for array in exposed:
            if writes.after(array, began):
                raise TapeError(f"unroll kept an array of shape {array.shape}, which was changed in place afterwards; change it after the backward pass")
        if any(is_tensor(part) for part in g.parts.values()):
            return expanded(g)
        return backward.run(steps, reverse, kept, o_arrays, [g.parts.get(k) for k in range(len(results))], plan.pool)

    def expanded(g: Bundle) -> list[Any]:
        """The gradient as a recorded computation: all steps through the operations, then a sweep that is recorded itself."""
        with installed(enable_grad().derive(state)):
            outs, last = expand(plan, steps, reverse, held[: plan.x], others, held[plan.x : plan.x + plan.state], held[plan.x + plan.state :], name)
        roots = [(t._node, g.parts[k]) for k, t in enumerate([*outs, *last]) if k in g.parts and t._node is not None]
        found = run_sweep(roots, [n for n in nodes if n is not None], stop=True, create_graph=True, retain_graph=True)
        return [found[n][0] if n is not None and n in found else None for n in nodes]

    pull.buffers = [*lease.arrays, *(a for a in ys if any(a is b for b in arrays.values()))]  # type: ignore[attr-defined]
    pull.lease = lease  # type: ignore[attr-defined]
    tracked = plan.tracked_results([t._node is not None for t in first])
    # The outputs hang on one record, whose own value nobody reads: their cotangents reach it in a bundle.
    many = manual("unroll", np.zeros((), results[0].dtype), nodes, pull, held, steps=steps)._node
    assert many is not None
    tensors = [manual("unrolled", r, (many,), _bundled(k, many.dtype), output=k) if tracked[k] else wrap(r) for k, r in enumerate(results)]
    return tensors[: len(ys)], tensors[len(ys) :]


def expand(plan: Plan, steps: int, reverse: bool, inputs: list[Any], others: list[np.ndarray], first: list[Any], outer: list[Any], name: str) -> tuple[list[Any], list[Any]]:
    """All steps through the operations themselves, every one of them on the tape; the step itself is not called again."""
    state, outputs = list(first), [[None] * steps for _ in range(plan.outputs)]
    for t in range(steps - 1, -1, -1) if reverse else range(steps):
        given = {k: x[t] for k, x in enumerate(inputs)} | {plan.x + j: s for j, s in enumerate(state)}
        given |= {k: wrap(array[t]) for k, array in zip(plan.others, others, strict=True)}
        here = plain(current())
        with installed(here.replace(scope=(*here.scope, (name, t)))):
            values = interpret(plan.program, given, outer)
        found = [values[p.index] if isinstance(p, Value) else outer[cast(Outer, p).index] for p in plan.results]
        for j in range(plan.outputs):
            outputs[j][t] = found[j]
        state = found[plan.outputs :]
    return [stack(column) for column in outputs], state
