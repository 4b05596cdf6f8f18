"""The instructions of a loop as a schedule: matrix products, and passes over rows that do all that is pointwise in between.

Operations on segments of one width share a loop over columns, in which values stay in registers. What a matrix product or a
reduction needs is there after one pass or loop, and what needs it comes in a later one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..native.kernels import Product
from .batching import along_rows, static
from .program import Constant, Instruction, Outer, Value
from .schedule import Compute, Item, Key, Memory, Multiply, Number, Operand, Reduce, Reduced, Schedule, Segment, Source, Store, Unsupported
from .segments import REDUCTIONS, Copies, Segments

if TYPE_CHECKING:
    from .plan import Loop


class Lowering(Segments):
    """One loop on its way to a schedule; ``first`` and ``last`` are copies before and after its instructions."""

    def __init__(self, loop: Loop, first: Copies, last: Copies, supported: Callable[[str], bool]) -> None:
        super().__init__(loop, first, last)
        self.supported = supported
        self.schedule = Schedule(self.size, self.rows)
        self.key: dict[Segment | Reduced | int, Key] = {}
        """The loop that makes a segment or takes part in a reduction; of a product's result the pass from which it is there."""
        self.kept: dict[int, Source | int] = {}
        """The memory of values that are read in other loops than the one that makes them."""
        self.last_read: Key = (-1, 0, 0)
        """The last loop that reads what is carried from step to step."""

    def source(self, argument: Any) -> Source:
        """How an array from outside of the loop is read, as an operand of rows."""
        if isinstance(argument, Constant):
            value = np.asarray(argument.value)
            self.schedule.constants.append(value)
            kind, index, shape, dtype = "constant", len(self.schedule.constants) - 1, value.shape, value.dtype
        else:
            kind, index = "outer" if isinstance(argument, Outer) else "value", argument.index
            like = self.program.at(argument)
            shape, dtype = like.shape, like.dtype
        if dtype != np.bool_ and (dtype.kind != "f" or dtype.itemsize != self.schedule.size):
            raise Unsupported(f"an operand is {dtype}")
        return Source(kind, index, self._mode(shape))

    def _mode(self, shape: tuple[int, ...]) -> str:
        if all(n == 1 for n in shape) and (self.schedule.rows > 1 or len(shape) < 2):
            return "number"
        if len(shape) == 2 and shape[0] == self.schedule.rows:
            return "matrix"
        if len(shape) == 1 or (len(shape) == 2 and shape[0] == 1):
            return "row"
        raise Unsupported(f"an operand has shape {shape}")

    def operand(self, argument: Any, start: int, width: int, rank: int) -> tuple[Operand, bool, bool]:
        """Columns of an argument, whether they are one number a row, and whether it is a float; ``rank`` is that of the result."""
        if isinstance(argument, Constant) and isinstance(argument.value, bool | int | float | np.generic):
            if isinstance(argument.value, np.floating) and argument.value.itemsize > self.schedule.size:
                raise Unsupported("a constant of a wider dtype")
            return Number(float(argument.value)), True, not isinstance(argument.value, bool | np.bool_)
        if isinstance(argument, Value) and argument.index in self.made:
            index = argument.index
            if len(self.shape(index)) != rank:
                raise Unsupported("a column is used as a row")
            one = self.width(index) == 1
            found, narrow = self.resolved(index, 0 if one else start, 1 if one else width)
            return found, one or narrow, self.floating[index]
        source = self.source(argument)
        like = np.asarray(argument.value) if isinstance(argument, Constant) else self.program.at(argument)
        if rank == 1 and source.mode == "row":
            source = source._replace(mode="column")
        one = source.mode in ("column", "number") or like.shape[-1] == 1
        if source.kind == "value" and source.index in self.loop.fixed and source.mode != "matrix":
            raise Unsupported("a state that is not a matrix")
        return Memory(source, 0 if one else start), one, like.dtype != np.bool_

    def resolved(self, index: int, start: int, width: int) -> tuple[Operand, bool]:
        """Where columns of a value of the loop come from, through all that only renames them, and whether that is one number a row for all of them."""
        instruction = self.made.get(index)
        if instruction is None:
            source = self.source(Value(index))
            if source.mode not in ("matrix", "row"):
                source = source._replace(mode="matrix" if len(self.shape(index)) == 2 else "column")
            elif len(self.shape(index)) == 1:
                source = source._replace(mode="column")
            return Memory(source, start), False
        if index in self.parts:
            for first, size, part in self.parts[index]:
                if first <= start and start + width <= first + size:
                    return self.operand(part, start - first, width, len(self.shape(index)))[:2]
            return Number(0.0), True
        if self._renames(instruction):
            source, first = self._view(instruction)
            return self.resolved(source.index, start + first, width)
        if instruction.op.name == "broadcast_to":
            return self.operand(instruction.arguments[0], start, width, len(self.shape(index)))[:2]
        if instruction.op.name == "matmul":
            return Memory(Source("value", index, "matrix"), start), False
        if instruction.op.name in REDUCTIONS:
            return Reduced(index), True
        return Segment(index, start), False

    def available(self, operand: Operand) -> tuple[int, int]:
        """From which pass and level on an operand is there."""
        if isinstance(operand, Segment):
            return self.key[operand][:2]
        if isinstance(operand, Reduced):
            p, level, _ = self.key[operand]
            return p, level + 1
        if isinstance(operand, Memory) and isinstance(operand.place, Source) and operand.place.kind == "value" and operand.place.index in self.key:
            return self.key[operand.place.index][:2]
        return 0, 0

    def lowered(self) -> Schedule:
        for target, source, _ in self.first:
            self._copy(target, source, {})
        for instruction in self.instructions:
            self._place(instruction)
        late: list[tuple[int, Any]] = []
        renamed: dict[int, Any] = {}
        for target, source, added in self.last:
            if added:
                self._store_all(source.index, Source("value", target, "matrix"), added=True)
            elif target >= self.program.recorded and target not in self.loop.stacked:
                renamed[target] = source
            elif target in self.loop.fixed:
                late.append((target, renamed.get(source.index, source) if isinstance(source, Value) else source))
            else:
                self._copy(target, source, renamed)
        for index in self.made:
            if index in self.loop.stacked:
                self._keep(index)
        self._carry(late)
        self._spill()
        return self.schedule

    def _place(self, instruction: Instruction) -> None:
        name, index = instruction.op.name, instruction.result
        if index in self.parts or self._renames(instruction) or name == "broadcast_to":
            if name == "broadcast_to":
                self.resolved(index, 0, 1)
            return
        if name == "matmul":
            self._multiply(instruction)
        elif name in REDUCTIONS:
            self._reduce(instruction)
        elif self.supported(name):
            self._compute(instruction)
        else:
            raise Unsupported(f"{name} is not compiled")

    def _compute(self, instruction: Instruction) -> None:
        index, rank = instruction.result, len(self.shape(instruction.result))
        arguments = [a for a in instruction.arguments if not (isinstance(a, Constant) and (a.value is None or isinstance(a.value, np.dtype | type)))]
        if instruction.op.name == "astype":
            arguments = arguments[:1]
        for start, width in self.segments(index):
            found = [self.operand(a, start, width, rank) for a in arguments]
            operands = [o for o, _, _ in found]
            narrow = [width > 1 and one for _, one, _ in found]
            item = Compute(instruction.op.name, operands, Segment(index, start), self.floating[index], width, narrow, [f for _, _, f in found])
            p, level = max((self.available(o) for o in operands), default=(0, 0))
            self.key[item.result] = self._add(item, (p, level, width))

    def _reduce(self, instruction: Instruction) -> None:
        source, index = instruction.arguments[0], instruction.result
        shape = self.program.at(source).shape
        if not along_rows(instruction, self.program) or not self.floating[index]:
            raise Unsupported(f"{instruction.op.name} over axis {static(instruction, 'axis')} of an array of shape {shape}")
        pieces = self.segments(source.index) if self._tracked(source) else [(0, shape[1])]
        operands = [(*self.operand(source, start, width, 2)[:2], width) for start, width in pieces]
        p, level = max(self.available(o) for o, _, _ in operands)
        self.key[Reduced(index)] = (p, level, 0)
        for operand, one, width in operands:
            count = shape[1] if instruction.op.name == "mean" else 1
            self._add(Reduce(REDUCTIONS[instruction.op.name], operand, Reduced(index), width, count, width > 1 and one), (p, level, width))

    def _multiply(self, instruction: Instruction) -> None:
        left, right = instruction.arguments
        if not isinstance(left, Value) or not (isinstance(right, Outer) or (isinstance(right, Value) and right.index in self.loop.constant)):
            raise Unsupported("a matrix product with something else than a weight on its right")
        shapes = self.program.at(left).shape, self.program.at(right).shape
        dtypes = {self.program.dtype(left.index), self.program.at(right).dtype, self.program.dtype(instruction.result)}
        if len(shapes[0]) != 2 or len(shapes[1]) != 2 or 0 in shapes[1] or len(dtypes) != 1:
            raise Unsupported("a matrix product of other things than two matrices")
        memory, p = self._whole(left.index)
        source = Source("outer" if isinstance(right, Outer) else "value", right.index, "panels")
        self._reads(memory, (p, -1, 0))
        index = instruction.result
        self.key[index] = (p, 0, 0)
        if index in self.loop.stacked:
            self.schedule.written.add(Source("value", index, "matrix"))
        self.schedule.products[p].append(Multiply(Product(*shapes[1]), memory, source, Memory(Source("value", index, "matrix"), 0)))

    def _whole(self, index: int) -> tuple[Memory, int]:
        """All columns of a value in one piece of memory, and the pass before which they are there."""
        start = 0
        while index in self.made and self._renames(self.made[index]) and index not in self.loop.stacked:
            source, first = self._view(self.made[index])
            index, start = source.index, start + first
        if index not in self.made:
            operand, _ = self.resolved(index, start, 1)
            assert isinstance(operand, Memory)
            return operand, 0
        if self.made[index].op.name == "matmul":
            return Memory(Source("value", index, "matrix"), start), self.key[index][0] + 1
        memory = self._keep(index)
        last = max(self.available(self.resolved(index, c, w)[0]) for c, w in self.segments(index))
        return Memory(memory, start), last[0] + 1

    def _add(self, item: Item, key: Key) -> Key:
        for operand in item.operands if isinstance(item, Compute) else [item.operand]:
            self._reads(operand, key)
        self.schedule.loops[key].append(item)
        return key

    def _reads(self, operand: Operand, key: Key) -> None:
        place = operand.place if isinstance(operand, Memory) else None
        if isinstance(place, Source) and place.kind == "value" and place.index in self.loop.fixed and place.index not in self.made:
            self.last_read = max(self.last_read, key)

    def _copy(self, target: int, source: Any, renamed: dict[int, Any]) -> None:
        """Store a value in the stack of ``target``, which is no value of the program."""
        if isinstance(source, Value):
            source = renamed.get(source.index, source)
        if not isinstance(source, Value):
            raise Unsupported("a result that is the same at every step")
        self._store_all(source.index, Source("value", target, "matrix"))

    def _store_all(self, index: int, place: Source | int, added: bool = False) -> None:
        if self.shape(index)[:1] != (self.schedule.rows,) or len(self.shape(index)) > 2:
            raise Unsupported(f"an array of shape {self.shape(index)} at every step")
        floating = self.floating[index] if index in self.made else self.program.dtype(index) != np.bool_
        if isinstance(place, Source):
            if len(self.shape(index)) == 1:
                place = place._replace(mode="column")
            self.schedule.written.add(place)
        for start, width in self.segments(index):
            operand, one = self.resolved(index, start, width)
            p, level = self.available(operand)
            self._add(Store(operand, Memory(place, start), floating, width, width > 1 and one, added), (p, level, width))

    def _keep(self, index: int) -> Source | int:
        """Memory that holds all of a value: its stack, or a place in scratch memory."""
        if index not in self.kept:
            if self.made[index].op.name == "matmul" and index in self.loop.stacked:
                self.kept[index] = Source("value", index, "matrix")
            elif index in self.loop.stacked:
                self.kept[index] = Source("value", index, "matrix" if len(self.shape(index)) == 2 else "column")
                self._store_all(index, self.kept[index])
            else:
                self.kept[index] = self._scratch(index)
                self._store_all(index, self.kept[index])
        return self.kept[index]

    def _scratch(self, index: int) -> int:
        self.schedule.scratch.append((self.width(index), self.floating[index]))
        return len(self.schedule.scratch) - 1

    def _carry(self, late: list[tuple[int, Any]]) -> None:
        """What the next step gets is stored where it is made, if all that this step got is read by then; else at the end."""
        stores: list[Store] = []
        for target, value in [(index, Value(index)) for index in self.loop.fixed if index in self.made] + late:
            place = Source("value", target, "matrix" if len(self.shape(target)) == 2 else "column")
            self.schedule.written.add(place)
            if isinstance(value, Value) and target == value.index and self.made[target].op.name == "matmul":
                continue
            index = value.index if isinstance(value, Value) else target
            for start, width in self.segments(index):
                operand, one = self.resolved(index, start, width) if isinstance(value, Value) else self.operand(value, start, width, len(self.shape(target)))[:2]
                stores.append(Store(operand, Memory(place, start), True, width, width > 1 and one))
        last = max(self.schedule.passes - 1, 0), 1 << 20
        for store in stores:
            self._reads(store.operand, (*last, store.width))
        for store in stores:
            key = self.key.get(store.operand) if isinstance(store.operand, Segment) else None
            if key is None or key < self.last_read or key[2] != store.width:
                key = (*last, store.width)
            self.schedule.loops[key].append(store)
        if any((self.key[index][0], -1, 0) <= self.last_read for index in self.loop.fixed if index in self.key):
            raise Unsupported("a state is read after its successor is there")

    def _spill(self) -> None:
        """Values that other loops read than the one that makes them go through memory; numbers of a row stay, within a pass."""
        # Keeping a value adds a store to the loop that makes it, and reads nothing that must be kept in turn.
        for key, items in list(self.schedule.loops.items()):
            for item in list(items):
                if isinstance(item, Compute):
                    item.operands = [self._near(o, key) for o in item.operands]
                else:
                    item.operand = self._near(item.operand, key)
        self._homes()

    def _near(self, operand: Operand, key: Key) -> Operand:
        if not isinstance(operand, Segment | Reduced):
            return operand
        made = self.key[operand]
        if made == key or (made[0] == key[0] and (isinstance(operand, Reduced) or self.width(operand.value) == 1)):
            return operand
        return Memory(self._keep(operand.value), operand.start if isinstance(operand, Segment) else 0)

    def _homes(self) -> None:
        """Results of products that nobody outside asks for live in scratch memory."""
        homes: dict[int, int] = {}

        def home(operand: Any) -> Any:
            if isinstance(operand, Memory) and isinstance(operand.place, Source):
                place = operand.place
                if place.kind == "value" and place.index in self.made and place.index not in self.loop.stacked and place.index not in self.loop.fixed:
                    if place.index not in homes:
                        homes[place.index] = self._scratch(place.index)
                    return Memory(homes[place.index], operand.start)
            return operand

        for products in self.schedule.products.values():
            for m in products:
                m.left, m.target = home(m.left), home(m.target)
        for items in self.schedule.loops.values():
            for item in items:
                if isinstance(item, Compute):
                    item.operands = [home(o) for o in item.operands]
                else:
                    item.operand = home(item.operand)
