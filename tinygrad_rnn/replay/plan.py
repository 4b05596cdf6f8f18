"""A plan: which instructions of a step run once, which for all steps at a time, and which in the loop, and where values live.

Three phases each way. What depends on the inputs alone is *hoisted*: it runs for all steps at once before the loop. What the
next state depends on is *replayed*: it runs in the loop, into memory laid out beforehand. What only feeds the gradients of
weights and inputs is *deferred*: it runs for all steps at once after the loop.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .batching import Batched, along_rows, basic, batched, behind, elementwise, is_view, static, view_of
from .compiled import Compiled
from .program import Constant, Instruction, Outer, Program, Value
from .workspace import Workspace

ONCE, HOISTED, LOOP, DEFERRED = "once", "hoisted", "loop", "deferred"


def operands(argument: Any) -> Iterable[Any]:
    """The values and outer tensors in an argument."""
    if isinstance(argument, Value | Outer):
        yield argument
    elif type(argument) is tuple:
        for part in argument:
            yield from operands(part)


def flat(instruction: Instruction) -> list[Any]:
    return [part for argument in instruction.arguments for part in operands(argument)]


def uses_of(instructions: Iterable[Instruction]) -> Counter[int]:
    """How often each value is read."""
    return Counter(part.index for instruction in instructions for part in flat(instruction) if isinstance(part, Value))


def readers_of(instructions: Iterable[Instruction]) -> dict[int, list[Instruction]]:
    """The instructions that read each value, once for each operand."""
    found: dict[int, list[Instruction]] = {}
    for instruction in instructions:
        for part in flat(instruction):
            if isinstance(part, Value):
                found.setdefault(part.index, []).append(instruction)
    return found


def needed_for(instructions: list[Instruction], wanted: Iterable[int]) -> list[Instruction]:
    """The instructions that the wanted values depend on."""
    made = {i.result: i for i in instructions}
    needed: set[int] = set()
    pending = list(wanted)
    while pending:
        index = pending.pop()
        if index in made and index not in needed:
            needed.add(index)
            pending += [p.index for p in flat(made[index]) if isinstance(p, Value)]
    return [i for i in instructions if i.result in needed]


def varying(instruction: Instruction, moves: Callable[[int], bool]) -> tuple[bool, ...]:
    """Which arguments differ from step to step, where ``moves`` says it of a value."""
    return tuple(any(isinstance(part, Value) and moves(part.index) for part in operands(argument)) for argument in instruction.arguments)


Place = Callable[[np.ndarray, bool], np.ndarray]
"""Views a part of an array, or with a true second argument that of the arrays of all steps."""


class Part(NamedTuple):
    """A value that is written into a whole: at ``index``, if it is a slice, which ``place`` views."""

    value: Any
    index: Any
    place: Place


class Assembly(NamedTuple):
    """A value put together of parts that do not overlap: they can be written straight into it. ``whole`` says that they fill it."""

    parts: list[Part]
    whole: bool


def slice_of(index: Any) -> Place:
    return lambda array, time: array[behind(index) if time else index]


def assemblies(program: Program, wanted: set[int]) -> tuple[list[Instruction], dict[int, Assembly]]:
    """The program with every sum of disjoint slices as one instruction, its assembly by its result."""
    made = {i.result: i for i in program.instructions}
    uses = uses_of(program.instructions)
    found: dict[int, Assembly] = {}
    gone: set[int] = set()

    def terms(index: int, top: bool) -> list[Instruction] | None:
        instruction = made.get(index)
        if instruction is None or (not top and (uses[index] != 1 or index in wanted)):
            return None
        if instruction.op.name == "scatter" and basic(static(instruction, "index")) and isinstance(instruction.arguments[0], Value):
            return [instruction]
        if instruction.op.name == "add" and all(isinstance(a, Value) and program.shape(a.index) == program.shape(index) for a in instruction.arguments):
            sides = [terms(a.index, False) for a in instruction.arguments]
            return None if sides[0] is None or sides[1] is None else sides[0] + sides[1]
        return None

    def inner(index: int, top: bool) -> set[int]:
        instruction = made[index]
        below = {index} if not top else set()
        if instruction.op.name == "add":
            for a in instruction.arguments:
                below |= inner(a.index, False)
        return below

    for instruction in reversed(program.instructions):
        index = instruction.result
        if index in gone:
            continue
        parts = terms(index, True)
        if parts is None:
            continue
        count = np.zeros(program.shape(index), np.int8)
        for part in parts:
            count[static(part, "index")] += 1
        if count.size and count.max() > 1:
            continue
        found[index] = Assembly([Part(part.arguments[0], at := static(part, "index"), slice_of(at)) for part in parts], bool(count.all()))
        gone |= inner(index, True)
    kept = []
    for instruction in program.instructions:
        if instruction.result in found:
            kept.append(Instruction(instruction.op, tuple(part.value for part in found[instruction.result].parts), instruction.result))
        elif instruction.result not in gone:
            kept.append(instruction)
    return kept, found


SHORT = 1024
"""An operation on so few elements takes less time than to call it."""

_TOTAL = frozenset({"sigmoid", "tanh"})
"""Operations that warn of nothing, whatever they are given."""


def together(program: Program, instructions: list[Instruction]) -> list[Instruction]:
    """The instructions with an operation on several slices of one value as one on all of it, of which its results are slices.

    That is where a call takes more time than the elements do, and the slices lie as contiguous as the value.
    """
    made = {i.result: i for i in instructions}
    groups: dict[Any, list[tuple[Instruction, Instruction]]] = defaultdict(list)
    for instruction in instructions:
        op, arguments, result = instruction
        cut = made.get(arguments[0].index) if len(arguments) == 1 and isinstance(arguments[0], Value) else None
        if cut is None or not elementwise(op) or cut.op.name != "getitem" or not isinstance(cut.arguments[0], Value) or not basic(static(cut, "index")):
            continue
        source = cut.arguments[0].index
        whole = np.empty(program.shape(source), np.int8)
        if source in made and whole.size <= SHORT and whole[static(cut, "index")].flags.c_contiguous and program.shape(result) == program.shape(cut.result):
            groups[op, source].append((instruction, cut))
    merged: dict[int, list[Instruction]] = {}
    for (op, source), group in groups.items():
        count = np.zeros(program.shape(source), np.int8)
        for _, cut in group:
            count[static(cut, "index")] += 1
        if len(group) < 2 or count.max() > 1 or not (count.all() or (op.name in _TOTAL and 2 * count.sum() >= count.size)):
            continue
        joint = Value(len(program.arrays))
        program.arrays.append(np.broadcast_to(np.zeros((), program.dtype(group[0][0].result)), program.shape(source)))
        slices = [[Instruction(cut.op, (joint, *cut.arguments[1:]), instruction.result)] for instruction, cut in group]
        slices[0].insert(0, Instruction(op, (Value(source),), joint.index))
        merged |= {instruction.result: made_of for (instruction, _), made_of in zip(group, slices, strict=True)}
    return [new for instruction in instructions for new in merged.get(instruction.result, [instruction])]


class Memory(dict[int, np.ndarray]):
    """The arrays of one call by number, and the workspaces in which most of them are."""

    def __init__(self, *spaces: Workspace) -> None:
        super().__init__()
        self.spaces = spaces
        for space in spaces:
            self.update(space.arrays)


class Loop:
    """Instructions to run at each step, as generated Python; values live in slots that the caller binds."""

    def __init__(self, program: Program, instructions: list[Instruction], parts: dict[int, Assembly], stacked: set[int], constant: set[int]) -> None:
        self.program, self.parts = program, parts
        self.stacked = stacked
        """Values with an array a step."""
        self.instructions = instructions
        self.aliases: dict[int, tuple[int, Place]] = {}
        self.factors: set[str] = set()
        """Second operands of matrix products: with the same matrix at every step, one copy makes all of them faster."""
        self.written: set[int] = set()
        """Aliases that are written as part of what they are a view of."""
        self.lines: list[str] = []
        self.names: dict[str, Any] = {}
        self.outer: dict[str, Outer] = {}
        self.broadcast: dict[str, tuple[Any, tuple[int, ...]]] = {}
        self.constant = constant
        self.fixed: set[int] = set()
        """Values that live in arrays of the caller, the same at every step."""
        self.scratch: dict[int, int] = {}
        self.buffers: list[tuple[tuple[int, ...], np.dtype[Any]]] = []
        self.zeroed: list[int] = []

    def root(self, index: int) -> int:
        while index in self.aliases:
            index = self.aliases[index][0]
        return index

    def plan(self, fixed: set[int], late: set[int]) -> None:
        """Decide on views and buffers, and write the code.

        ``fixed`` are values that live in arrays of the caller, ``late`` those that are read after the last instruction.
        """
        self.fixed = fixed
        made = {i.result: i for i in self.instructions}
        self.aliases.clear()
        self.alias()
        self._place_parts(made, fixed)
        last: dict[int, int] = {}
        for k, instruction in enumerate(self.instructions):
            for part in flat(instruction):
                if isinstance(part, Value):
                    last[self.root(part.index)] = k
        for index in late:
            last[self.root(index)] = len(self.instructions)
        free: dict[Any, list[int]] = defaultdict(list)
        for k, instruction in enumerate(self.instructions):
            result = instruction.result
            dying = {r for part in flat(instruction) if isinstance(part, Value) and (r := self.root(part.index)) in self.scratch and last[r] == k}
            pointwise = elementwise(instruction.op) and instruction.op.name != "where" and result not in self.parts
            if pointwise:
                self._release(dying, free)
            # What is written as a part of a whole needs the whole's memory from then on.
            root = self.root(result)
            if (root == result or result in self.written) and root not in self.stacked and root not in fixed and root not in self.scratch:
                self._allocate(root, free)
            if not pointwise:
                self._release(dying, free)
            if result not in self.aliases or result in self.written:
                self._emit(instruction)

    def _release(self, values: set[int], free: dict[Any, list[int]]) -> None:
        for value in values - self._with_zeros():
            buffer = self.scratch[value]
            free[self.buffers[buffer]].append(buffer)

    def _allocate(self, result: int, free: dict[Any, list[int]]) -> None:
        kind = (self.program.shape(result), self.program.dtype(result))
        if not free[kind] or result in self._with_zeros():
            self.buffers.append(kind)
            free[kind].append(len(self.buffers) - 1)
        self.scratch[result] = free[kind].pop()

    def _with_zeros(self) -> set[int]:
        """Values that are zero in part: what was zeroed before the loop must stay so, and is never another value's memory."""
        return {index for index, assembly in self.parts.items() if not assembly.whole}

    def alias(self) -> None:
        """Note what is a view of something else."""
        for instruction in self.instructions:
            self._alias(instruction)

    def _alias(self, instruction: Instruction) -> None:
        """A view of memory that stays where it is needs no instruction."""
        if not is_view(instruction) or instruction.result in self.stacked:
            return
        whole, view = instruction.arguments[0].index, self._viewer(instruction)
        if instruction.op.name == "reshape" and (whole in self.aliases or view(np.empty(self.program.shape(whole)), False).base is None):
            return
        self.aliases[instruction.result] = (whole, view)

    def _viewer(self, instruction: Instruction) -> Place:
        function = view_of(instruction, self.program)
        return lambda array, time: function(array, steps=len(array)) if time else function(array[None], steps=1)[0]

    def _place_parts(self, made: dict[int, Instruction], fixed: set[int]) -> None:
        """Where a sum's or a concatenation's parts can be written straight into it, they are views of it."""
        for instruction in self.instructions:
            result = instruction.result
            if result in self.parts:
                parts = self.parts[result].parts
            elif instruction.op.name == "concatenate":
                parts, start, axis = [], 0, int(static(instruction, "axis")) % len(self.program.shape(result))
                for part in instruction.arguments[instruction.op.parameters.index(instruction.op.sequence)]:
                    shape = self.program.at(part).shape
                    index = (*[slice(None)] * axis, slice(start, start + shape[axis]))
                    parts.append(Part(part, index, slice_of(index)))
                    start += shape[axis]
                self.parts[result] = Assembly(parts, True)
            else:
                continue
            seen: set[int] = set()
            for part, _, place in parts:
                producer = made.get(part.index) if isinstance(part, Value) else None
                if producer is None or part.index in seen or part.index in self.aliases or part.index in self.stacked or part.index in fixed:
                    continue
                assembled = part.index in self.parts and self.parts[part.index].whole
                if not (
                    assembled or (part.index not in self.parts and (isinstance(producer.op.forward, np.ufunc) or producer.op.name == "matmul" or producer.op.name in _WRITERS))
                ):
                    continue
                seen.add(part.index)
                self.written.add(part.index)
                self.aliases[part.index] = (result, place)

    def _name(self, argument: Any) -> str:
        if isinstance(argument, Value):
            return f"v{argument.index}"
        if isinstance(argument, Outer):
            self.outer[f"o{argument.index}"] = argument
            return f"o{argument.index}"
        value = argument.value
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return repr(value)
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name

    def _emit(self, instruction: Instruction) -> None:
        op, arguments, result = instruction
        out = f"v{result}"
        if result in self.parts:
            if not self.parts[result].whole:
                self.zeroed.append(result)
            for k, (part, _, view) in enumerate(self.parts[result].parts):
                if isinstance(part, Value) and self.aliases.get(part.index) == (result, view):
                    continue
                self.lines.append(f"copyto({self._view(result, k, result, view)}, {self._name(part)})")
            return
        if is_view(instruction) and op.name != "reshape":
            self.lines.append(f"copyto({out}, {self._view(result, 0, arguments[0].index, self._viewer(instruction))})")
            return
        names = [", ".join(map(self._name, a)) if type(a) is tuple else self._name(a) for a in arguments]
        if isinstance(op.forward, np.ufunc):
            names = [self._operand(a, name, result) for a, name in zip(arguments, names, strict=True)]
            self.names[f"u_{op.name}"] = op.forward
            # These two refuse a third argument that is not named.
            place = f"out={out}" if op.forward in (np.maximum, np.minimum) else out
            self.lines.append(f"u_{op.name}({', '.join(names)}, {place})")
        elif op.name in _WRITERS and (op.name != "where" or _dtype(self.program, arguments[0]) == np.bool_):
            one = self._scalar(1.0, result) if op.name == "sigmoid" else ""
            self.lines += [line.format(*names, out=out, one=one) for line in _WRITERS[op.name]]
        elif op.name == "matmul" and self._is_product(instruction):
            if self._same_always(arguments[1]):
                self.factors.add(names[1])
            plain = len(self.program.shape(result)) == 2 and result not in self.aliases
            if plain and self.program.shape(result)[0] == 1 and isinstance(arguments[0], Value):
                # A vector times a matrix takes less time than a matrix of one row.
                row = self._view(result, 0, arguments[0].index, _only_row)
                self.lines.append(f"dot({row}, {names[1]}, {self._view(result, 1, result, _only_row)})")
            else:
                self.lines.append(f"{'dot' if plain else 'matmul'}({', '.join(names)}, {out})")
        else:
            function = f"f{result}"
            self.names[function] = _caller(instruction)
            self.lines.append(f"copyto({out}, {function}({', '.join(names)}))")

    def _is_product(self, instruction: Instruction) -> bool:
        """Whether a product of matrices, or of one with panels, can be written where its result lives."""
        program, arguments = self.program, instruction.arguments
        return program.at(arguments[0]).ndim == 2 and program.at(arguments[1]).ndim in (2, 3) and all(program.at(a).dtype == program.dtype(instruction.result) for a in arguments)

    def _view(self, number: int, k: int, whole: int, place: Place) -> str:
        """A variable for a view of a value that is no value itself."""
        name, index = f"p{number}_{k}", -(1000 * number + k + 1)
        self.aliases[index], self.names[name] = (whole, place), index
        return name

    def _scalar(self, value: float, result: int) -> str:
        """A number as a 0-d array of the result's dtype, which a ufunc takes faster than a Python float."""
        dtype = self.program.dtype(result)
        name = f"c_{dtype.name}_{value!r}".replace(".", "_").replace("-", "m").replace("+", "p")
        self.names[name] = np.array(value, dtype)
        return name

    def _same_always(self, argument: Any) -> bool:
        """Whether an operand is the same at every step."""
        return isinstance(argument, Outer) or (isinstance(argument, Value) and argument.index in self.constant)

    def _operand(self, argument: Any, name: str, result: int) -> str:
        """An operand of a ufunc in the form in which it is fastest."""
        if isinstance(argument, Constant) and type(argument.value) in (int, float) and self.program.dtype(result).kind == "f":
            return self._scalar(float(argument.value), result)
        shape = self.program.shape(result)
        if self._same_always(argument) and self.program.at(argument).shape != shape and 0 < math.prod(shape) <= _SMALL:
            # Rows that repeat are read row by row; a full copy, in the cache, is read at once.
            full = f"b{name}_{'_'.join(map(str, shape))}"
            self.broadcast[full] = (argument, shape)
            return full
        return name

    def compile(self, extra: list[str], first: Sequence[str] = ()) -> None:
        """Make the function: it takes the number of steps, the lists of what is stacked, and the rest by name."""
        body = [*first, *self.lines, *extra]
        words = compile("\n".join(body), "<replayed step>", "exec").co_names
        each = sorted(word for word in words if word[0] in "vp" and self._per_step(word))
        held = sorted(word for word in words if word not in each and word not in _FUNCTIONS)
        self.words = [(word, word in each, self._root_of(word)) for word in [*each, *held]]
        """The variables of the code: their names, whether they differ from step to step, and the value in whose memory they live."""
        self.constants = [self.names.get(word) if root is None else None for word, _, root in self.words]
        self.unchanging = {k for k, (word, _, root) in enumerate(self.words) if root is None and word in self.names}
        head = f"    for {', '.join(each)}{',' if len(each) == 1 else ''} in zip({', '.join(f's_{word}' for word in each)}):" if each else "    for _ in range(steps):"
        self.source = "\n".join([f"def run(steps, {', '.join([*(f's_{word}' for word in each), *held])}):", head, *(f"        {line}" for line in body or ["pass"])])
        namespace: dict[str, Any] = dict(_FUNCTIONS)
        exec(compile(self.source, "<replayed step>", "exec"), namespace)
        self.function = namespace["run"]
        self.compiled = Compiled(self, first, extra)

    def _root_of(self, word: str) -> int | None:
        if word[0] not in "vp":
            return None
        return self.root(self.names[word] if word[0] == "p" else int(word[1:]))

    def _per_step(self, word: str) -> bool:
        return self._root_of(word) in self.stacked

    def scratched(self, arrays: dict[int, np.ndarray]) -> list[np.ndarray]:
        """The scratch buffers, with zeros where what is not filled must be zero, there and in ``arrays``."""
        buffers = [np.empty(*kind) for kind in self.buffers]
        for index in self.zeroed:
            (arrays[index] if index in arrays else buffers[self.scratch[index]])[...] = 0
        return buffers

    def resolve(self, index: int, arrays: dict[int, np.ndarray], buffers: Sequence[np.ndarray] = ()) -> np.ndarray:
        """The memory of a value: for all steps where it is stacked."""
        if index in self.aliases:
            whole, view = self.aliases[index]
            return view(self.resolve(whole, arrays, buffers), self.root(index) in self.stacked)
        return arrays[index] if index in arrays else buffers[self.scratch[index]]

    def run(self, steps: int, reverse: bool, arrays: Memory, outer: Sequence[np.ndarray]) -> None:
        """Run all steps. ``arrays`` are stacked values, time first, and fixed ones; the scratch buffers are those of the last of their workspaces."""

        def values(place: Outer) -> np.ndarray:
            return outer[place.index]

        if not self.compiled.run(steps, reverse, arrays, values, lambda n, few: self._interpreted(n, reverse, few, values, [Workspace({}, arrays.spaces[-1].buffers)])):
            self._interpreted(steps, reverse, arrays, values, arrays.spaces)

    def _interpreted(self, steps: int, reverse: bool, arrays: dict[int, np.ndarray], values: Callable[[Outer], np.ndarray], spaces: Sequence[Workspace]) -> None:
        """All steps by calls of NumPy."""
        given = list(self.constants)
        changing = set(range(len(given)))
        for space in spaces:
            known = space.places.get(self)
            if known is None:
                known = space.places[self] = self._known(steps, reverse, arrays, space, space is spaces[-1])
            for k, value in known.items():
                given[k] = value
            changing.difference_update(known)
        for k in changing - self.unchanging:
            word, moves, _ = self.words[k]
            given[k] = self._found(word, moves, reverse, arrays, values, spaces[-1].buffers)
        with np.errstate(over="ignore"):
            self.function(steps, *given)

    def _known(self, steps: int, reverse: bool, arrays: dict[int, np.ndarray], space: Workspace, last: bool) -> dict[int, Any]:
        """The variables of the code that live in a workspace, or in the buffers of the ``last``, by their places."""
        found: dict[int, Any] = {}
        for k, (word, moves, root) in enumerate(self.words):
            if root in space.arrays or (last and root in self.scratch):
                found[k] = self._found(word, moves, reverse, arrays, None, space.buffers)
                space.views += steps if moves else 1
        return found

    def _found(self, word: str, moves: bool, reverse: bool, arrays: dict[int, np.ndarray], values: Any, buffers: Sequence[np.ndarray]) -> Any:
        """What a variable of the code stands for in this call."""
        if word in self.broadcast:
            argument, shape = self.broadcast[word]
            return np.array(np.broadcast_to(values(argument) if isinstance(argument, Outer) else arrays[argument.index], shape))
        own = self.names[word] if word[0] == "p" else None if word in self.outer else int(word[1:])
        value = values(self.outer[word]) if own is None else self.resolve(own, arrays, buffers)
        if moves:
            return _per_step(value[::-1] if reverse else value)
        return np.ascontiguousarray(value) if word in self.factors else value


def _only_row(array: np.ndarray, time: bool) -> np.ndarray:
    return array[..., 0, :]


_SMALL = 1 << 15
_FUNCTIONS = {name: getattr(np, name) for name in ("dot", "matmul", "copyto", "exp", "negative", "add", "divide", "maximum")}
_WRITERS: dict[str, list[str]] = {
    "sigmoid": ["negative({0}, {out})", "exp({out}, {out})", "add({out}, {one}, {out})", "divide({one}, {out}, {out})"],
    "relu": ["maximum({0}, 0, out={out})"],
    "where": ["copyto({out}, {2})", "copyto({out}, {1}, where={0})"],
}


def _dtype(program: Program, argument: Any) -> Any:
    return np.asarray(argument.value).dtype if isinstance(argument, Constant) else program.at(argument).dtype


def _per_step(array: np.ndarray) -> list[np.ndarray]:
    """The array of each step; those of 0-d values are arrays too, to be written to."""
    return list(array) if array.ndim > 1 else [array[t, ...] for t in range(len(array))]


def _caller(instruction: Instruction) -> Callable[..., Any]:
    """The operation on arrays, with its static arguments in place."""
    op, arguments, _ = instruction

    def call(*given: Any) -> Any:
        rest = iter(given)
        named: dict[str, Any] = {}
        for parameter, argument in zip(op.parameters, arguments, strict=True):
            if type(argument) is tuple:
                parts = [next(rest) for _ in argument]
                named[parameter] = parts if parameter == op.sequence else tuple(parts)
            else:
                named[parameter] = next(rest)
        return op.forward(*[named[p] for p in op.positional], **{p: named[p] for p in op.keyword})

    return call


def classify(program: Program, moving: set[int], carried: set[int]) -> tuple[dict[int, str], dict[int, Batched | None]]:
    """The phase of every instruction's result: once, hoisted, or in the loop because it depends on what is carried.

    Gives also, for those that could be hoisted, the function that runs them for all steps.
    """
    phase: dict[int, str] = {}
    functions: dict[int, Batched | None] = {}
    for index in moving:
        phase[index] = LOOP if index in carried else HOISTED
    for instruction in program.instructions:
        parts = flat(instruction)
        phases = {phase.get(p.index, ONCE) if isinstance(p, Value) else ONCE for p in parts}
        if LOOP in phases:
            phase[instruction.result] = LOOP
        elif HOISTED in phases:
            function = batched(instruction, program, varying(instruction, lambda index: phase.get(index, ONCE) != ONCE))
            phase[instruction.result] = LOOP if function is None else HOISTED
            functions[instruction.result] = function
        else:
            phase[instruction.result] = ONCE
    return phase, functions


FEW = 4
"""A product of so many rows runs as fast in the loop as for all steps at once, and what it makes never leaves the cache."""


def fusable(instruction: Instruction, program: Program, state: int) -> bool:
    """Whether machine code does an instruction as well step by step as for all steps at once; ``state`` is a value with the batch in front."""
    op, arguments, result = instruction
    shape = program.shape(result)
    if not 0 < len(shape) <= 2 or 0 in shape or shape[:1] != program.shape(state)[:1]:
        return False
    if op.name == "matmul":
        return len(shape) == 2 and shape[0] >= FEW and program.at(arguments[0]).ndim == 2
    if is_view(instruction):
        return op.name != "transpose" and bool(program.at(arguments[0]).shape[:1] == shape[:1])
    return elementwise(op) or op.name == "broadcast_to" or along_rows(instruction, program)


class Straight:
    """Instructions outside of the loop, one after the other, as generated Python.

    ``run(a, o, steps)`` takes the arrays by number, to which it adds its results, and those of the outer tensors.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"asarray": np.asarray, "ndarray": np.ndarray}

    def name(self, argument: Any) -> str:
        if isinstance(argument, Value):
            return f"a[{argument.index}]"
        if isinstance(argument, Outer):
            return f"o[{argument.index}]"
        return self._held(argument.value)

    def _held(self, value: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name

    def for_all(self, instruction: Instruction, function: Batched, dtype: Any, out: int | None = None) -> None:
        """Run an instruction for all steps at once, in the array of another value if that is given."""
        given = [*map(self.name, flat(instruction)), "steps=steps", *([] if out is None else [f"out=a[{out}]"])]
        self._call(instruction.result, f"{self._held(function)}({', '.join(given)})", dtype)

    def once(self, instruction: Instruction, dtype: Any) -> None:
        """Run an instruction that is the same at every step."""
        op = instruction.op
        given = {p: f"[{', '.join(map(self.name, a))}]" if type(a) is tuple else self.name(a) for p, a in zip(op.parameters, instruction.arguments, strict=True)}
        given |= {p: f"tuple({given[p]})" for p, a in zip(op.parameters, instruction.arguments, strict=True) if type(a) is tuple and p != op.sequence}
        arguments = [*(given[p] for p in op.positional), *(f"{p}={given[p]}" for p in op.keyword)]
        self._call(instruction.result, f"{self._held(op.forward)}({', '.join(arguments)})", dtype)

    def view(self, index: int, whole: int, view: Callable[[np.ndarray], np.ndarray]) -> None:
        self.lines.append(f"a[{index}] = {self._held(view)}(a[{whole}])")

    def _call(self, result: int, call: str, dtype: np.dtype[Any]) -> None:
        kind = self._held(dtype)
        self.lines += [f"v = {call}", f"a[{result}] = v if type(v) is ndarray and v.dtype is {kind} else asarray(v).astype({kind}, copy=False)"]

    def compile(self) -> Callable[[dict[int, np.ndarray], Sequence[np.ndarray], int], None]:
        source = "\n".join(["def run(a, o, steps):", *(f"    {line}" for line in self.lines or ["pass"])])
        exec(compile(source, "<replayed step>", "exec"), self.names)
        return self.names["run"]  # type: ignore[no-any-return]
