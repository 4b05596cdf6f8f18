"""A schedule in LLVM's language: one function for all steps and a range of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..native.kernels import ATTRIBUTES, Writer, elementary, lanes, mask, product
from ..native.machine import Machine
from .schedule import Compute, Item, Key, Memory, Number, Operand, Reduce, Reduced, Schedule, Segment, Source, Store, Unsupported

Emit = Callable[["Body", list[str]], str]

_LIBRARY = {name: name for name in "log log2 log10 log1p exp2 expm1 sin cos tan sinh cosh cbrt erf erfc".split()}
_LIBRARY |= {f"arc{name}": f"a{name}" for name in "sin cos tan sinh cosh tanh".split()} | {"power": "pow", "arctan2": "atan2", "hypot": "hypot"}
_ARITHMETIC = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
_COMPARED = {"greater": "ogt", "greater_equal": "oge", "less": "olt", "less_equal": "ole", "equal": "oeq", "not_equal": "une"}
_BITS = {"logical_and": "and", "logical_or": "or", "logical_xor": "xor", "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor"}
_INTRINSIC = {"absolute": "fabs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint", "maximum": "maximum", "minimum": "minimum"}
_OWN = {"exp", "tanh", "sigmoid"}
_OTHERS = {"negative", "square", "reciprocal", "relu", "where", "astype", "logical_not", "invert", "sign", "isnan", "silu", "clip", "dropout"}


def supported(machine: Machine, size: int, name: str) -> bool:
    """Whether an elementwise operation can be compiled."""
    if name in _LIBRARY:
        return machine.finds(_LIBRARY[name] + ("f" if size == 4 else ""))
    return any(name in names for names in (_ARITHMETIC, _COMPARED, _BITS, _INTRINSIC, _OWN, _OTHERS))


class Emitted(NamedTuple):
    """``source`` defines ``run(sources, steps, first row, rows, scratch)``; ``sources`` is a table of addresses, bytes a step and bytes a row."""

    source: str
    sources: list[Source]
    scratch: int
    """Bytes of scratch memory a row."""


def emitted(schedule: Schedule, machine: Machine) -> Emitted:
    """The schedule as a function."""
    return _Function(schedule, machine).emitted()


class _Function:
    def __init__(self, schedule: Schedule, machine: Machine) -> None:
        self.schedule, self.machine = schedule, machine
        self.v = lanes(machine, schedule.size)
        self.out = Writer("define void @run(ptr %sources, i64 %steps, i64 %first, i64 %rows, ptr %scratch) #0")
        self.sources: dict[Source, int] = {}
        self.library: set[str] = set()
        self.places: list[int] = []
        offset = 0
        for width, floating in schedule.scratch:
            self.places.append(offset)
            lanes_needed = -(-width // self.v.count) * self.v.count
            offset += -(-lanes_needed * (self.v.size if floating else 1) // 64) * 64
        # Rows an even number of cache lines apart would fall on each other in the cache.
        self.scratch = offset + (64 if offset and offset // 64 % 2 == 0 else 0)

    def emitted(self) -> Emitted:
        for source in self._all_sources():
            self.sources.setdefault(source, len(self.sources))
        out = self.out
        base: dict[Source, str] = {}
        step: dict[Source, str] = {}
        row: dict[Source, str] = {}
        for source, k in self.sources.items():
            pointer = out.let(f"load ptr, ptr {out.at('%sources', 24 * k)}, align 8")
            step[source] = out.let(f"load i64, ptr {out.at('%sources', 24 * k + 8)}, align 8")
            row[source] = out.let(f"load i64, ptr {out.at('%sources', 24 * k + 16)}, align 8")
            base[source] = out.at(pointer, out.let(f"mul i64 {row[source]}, %first"))
        with out.loop("%steps") as t:
            here = {source: out.at(base[source], out.let(f"mul i64 {step[source]}, {t}")) for source in self.sources}
            for p in range(self.schedule.passes):
                for m in self.schedule.products.get(p, []):
                    k = self._product(m.shape)
                    a, a_row = self._start(m.left, here, row)
                    c, c_row = self._start(m.target, here, row)
                    out.do(f"call void @product{k}(ptr {a}, i64 {a_row}, ptr {here[m.right]}, ptr {c}, i64 {c_row}, i64 %rows)")
                keys = sorted(key for key in self.schedule.loops if key[0] == p)
                if keys:
                    with out.loop("%rows") as r:
                        Row(self, r, here, row).emit(keys)
        return Emitted(self._text(), list(self.sources), self.scratch)

    def _product(self, shape: tuple[int, int]) -> int:
        shapes = list(dict.fromkeys(m.shape for products in self.schedule.products.values() for m in products))
        return shapes.index(shape)  # type: ignore[arg-type]

    def _start(self, memory: Memory, here: dict[Source, str], row: dict[Source, str]) -> tuple[str, str]:
        """The address of the first row of a product's operand, and the bytes a row."""
        if isinstance(memory.place, int):
            return self.out.at("%scratch", self.places[memory.place] + memory.start * self.v.size), str(self.scratch)
        return self.out.at(here[memory.place], memory.start * self.v.size), row[memory.place]

    def _all_sources(self) -> list[Source]:
        found: list[Source] = []
        for products in self.schedule.products.values():
            for m in products:
                found += [m.right, *(x.place for x in (m.left, m.target) if isinstance(x.place, Source))]
        for items in self.schedule.loops.values():
            for item in items:
                operands = [*item.operands] if isinstance(item, Compute) else [item.operand]
                operands += [item.target] if isinstance(item, Store) else []
                found += [o.place for o in operands if isinstance(o, Memory) and isinstance(o.place, Source)]
        return found

    def _text(self) -> str:
        v = self.v
        V, B, Y = v.vector, v.bools, v.bytes
        shapes = dict.fromkeys(m.shape for products in self.schedule.products.values() for m in products)
        declared = ["declare i64 @llvm.umin.i64(i64, i64)"]
        declared += [f"declare {V} @llvm.{name}.{v.suffix}({', '.join([V] * (2 if name in ('maximum', 'minimum') else 1))})" for name in _INTRINSIC.values() if name != "fabs"]
        for t, suffix in ((V, v.suffix), (Y, f"v{v.count}i8")):
            declared += [f"declare void @llvm.masked.store.{suffix}.p0({t}, ptr, i32, {B})", f"declare {t} @llvm.masked.load.{suffix}.p0(ptr, i32, {B}, {t})"]
        declared += [f"declare {v.name} @llvm.vector.reduce.fadd.{v.suffix}({v.name}, {V})"]
        declared += [f"declare {v.name} @llvm.vector.reduce.f{name}.{v.suffix}({V})" for name in ("maximum", "minimum")]
        declared += [f"declare {v.name} @{name}({', '.join([v.name] * (2 if name.rstrip('f') in ('pow', 'atan2', 'hypot') else 1))})" for name in sorted(self.library)]
        kernels = [product(f"product{k}", shape, self.schedule.rows, self.machine, v) for k, shape in enumerate(shapes)]
        attributes = f"attributes #0 = {{ {ATTRIBUTES.format(bits=8 * self.machine.vector)} }}"
        return "\n".join([*declared, elementary(v), *kernels, self.out.text(), attributes])


class Row:
    """The loops of one pass over a row."""

    def __init__(self, function: _Function, r: str, here: dict[Source, str], row: dict[Source, str]) -> None:
        self.function, self.out, self.v = function, function.out, function.v
        self.r, self.here, self.row = r, here, row
        self.pointers: dict[Source | int, str] = {}
        self.splats: dict[Operand, str] = {}
        self.singles: dict[Segment, tuple[str, bool]] = {}
        """Segments of one column, and whether they are floats."""
        self.sums: dict[Reduced, str] = {}

    def emit(self, keys: list[Key]) -> None:
        loops = self.function.schedule.loops
        # What is the same for a whole row is read before the loops over columns: their blocks do not enclose what comes after them.
        for key in keys:
            for item in loops[key]:
                for operand in item.operands if isinstance(item, Compute) else [item.operand]:
                    if isinstance(operand, Memory):
                        self.pointer(operand.place)
                if isinstance(item, Store):
                    self.pointer(item.target.place)
        for n, key in enumerate(keys):
            self._loop(key, loops[key])
            if n + 1 == len(keys) or keys[n + 1][1] != key[1]:
                self._reduced([item for k in keys if k[1] == key[1] for item in loops[k] if isinstance(item, Reduce)])

    def pointer(self, place: Source | int) -> str:
        """The address of a row."""
        if place not in self.pointers:
            if isinstance(place, int):
                offset = self.out.let(f"mul i64 {self.r}, {self.function.scratch}")
                self.pointers[place] = self.out.at("%scratch", offset, self.function.places[place])
            elif place.mode in ("row", "number"):
                self.pointers[place] = self.here[place]
            else:
                self.pointers[place] = self.out.at(self.here[place], self.out.let(f"mul i64 {self.r}, {self.row[place]}"))
        return self.pointers[place]

    def _loop(self, key: Key, items: list[Item]) -> None:
        width, count = key[2], self.v.count
        for item in items:
            for k, operand in enumerate(item.operands if isinstance(item, Compute) else [item.operand]):
                narrow = item.broadcast[k] if isinstance(item, Compute) else item.broadcast
                if narrow or isinstance(operand, Reduced):
                    self.splat(operand, item.floats[k] if isinstance(item, Compute) else not isinstance(item, Store) or item.floating)
        reductions = [item for item in items if isinstance(item, Reduce)]
        for item in reductions:
            self.sums.setdefault(item.result, self.v.all(_IDENTITY[item.op]) if item.op != "add" else "zeroinitializer")
        full = width // count
        if full > 1:
            carried = list(dict.fromkeys(item.result for item in reductions))
            with self.out.loop(str(full * count), step=count, carried=[(self.v.vector, self.sums[c]) for c in carried]) as column:
                self.sums.update(zip(carried, self.out.carried, strict=True))
                Body(self, column, count).emit(items)
                self.out.carried = [self.sums[c] for c in carried]
        elif full:
            Body(self, "0", count).emit(items)
        if width % count:
            body = Body(self, str(full * count), width % count)
            body.emit(items)
            if width == 1:
                self.singles.update({s: (name, body.kinds[s]) for s, name in body.made.items()})

    def splat(self, operand: Operand, floating: bool) -> str:
        """A vector of the one number that an operand is in this row."""
        if isinstance(operand, Number):
            return self.v.all(operand.value) if floating else f"splat (i1 {'true' if operand.value else 'false'})"
        if operand not in self.splats:
            out, v = self.out, self.v
            if isinstance(operand, Segment):
                name, is_float = self.singles[operand]
                kind = v.vector if is_float else v.bools
                self.splats[operand] = out.let(f"shufflevector {kind} {name}, {kind} poison, <{v.count} x i32> zeroinitializer")
            elif isinstance(operand, Memory) and floating:
                self.splats[operand] = out.splat(out.let(f"load {v.name}, ptr {out.at(self.pointer(operand.place), operand.start * v.size)}, align {v.size}"), v)
            elif isinstance(operand, Memory):
                byte = out.let(f"load i8, ptr {out.at(self.pointer(operand.place), operand.start)}, align 1")
                first = out.let(f"insertelement {v.bools} poison, i1 {out.let(f'icmp ne i8 {byte}, 0')}, i32 0")
                self.splats[operand] = out.let(f"shufflevector {v.bools} {first}, {v.bools} poison, <{v.count} x i32> zeroinitializer")
        return self.splats[operand]

    def _reduced(self, items: list[Reduce]) -> None:
        """The sums of vectors as one number each."""
        out, v = self.out, self.v
        for item in {item.result: item for item in items}.values():
            if item.op == "add":
                value = out.let(f"call reassoc {v.name} @llvm.vector.reduce.fadd.{v.suffix}({v.name} {v.number(0.0)}, {v.vector} {self.sums[item.result]})")
            else:
                value = out.let(f"call {v.name} @llvm.vector.reduce.f{item.op}.{v.suffix}({v.vector} {self.sums[item.result]})")
            if item.count != 1:
                value = out.let(f"fdiv {v.name} {value}, {v.number(float(item.count))}")
            self.splats[item.result] = out.splat(value, v)


_IDENTITY = {"add": 0.0, "maximum": float("-inf"), "minimum": float("inf")}


class Body:
    """What is done to one vector of columns, of which the first ``count`` lanes count."""

    def __init__(self, row: Row, column: str, count: int) -> None:
        self.row, self.out, self.v, self.column, self.count = row, row.out, row.v, column, count
        self.made: dict[Segment, str] = {}
        self.kinds: dict[Segment, bool] = {}
        self.loaded: dict[Memory, str] = {}

    def emit(self, items: list[Item]) -> None:
        stores: list[tuple[str, Store]] = []
        for item in items:
            if isinstance(item, Compute):
                given = [self.value(o, narrow, f) for o, narrow, f in zip(item.operands, item.broadcast, item.floats, strict=True)]
                self.made[item.result] = self.compute(item, given)
                self.kinds[item.result] = item.floating
            elif isinstance(item, Reduce):
                self._accumulate(item)
            else:
                stores.append((self.value(item.operand, item.broadcast, item.floating), item))
        for value, item in stores:
            self._store(value, item)

    def value(self, operand: Operand, narrow: bool, floating: bool) -> str:
        if narrow or isinstance(operand, Number | Reduced):
            return self.row.splat(operand, floating)
        if isinstance(operand, Segment):
            return self.made[operand] if operand in self.made else self.row.singles[operand][0]
        assert isinstance(operand, Memory)
        if operand not in self.loaded:
            self.loaded[operand] = self._load(operand, floating)
        return self.loaded[operand]

    def _address(self, memory: Memory, size: int) -> str:
        start = self.out.at(self.row.pointer(memory.place), memory.start * size)
        return self.out.let(f"getelementptr {'i8' if size == 1 else self.v.name}, ptr {start}, i64 {self.column}") if self.column != "0" else start

    def _load(self, memory: Memory, floating: bool) -> str:
        v, out = self.v, self.out
        if floating:
            return out.load(self._address(memory, v.size), v, self.count)
        address = self._address(memory, 1)
        if self.count == v.count:
            found = out.let(f"load {v.bytes}, ptr {address}, align 1")
        else:
            found = out.let(f"call {v.bytes} @llvm.masked.load.v{v.count}i8.p0(ptr {address}, i32 1, {v.bools} {mask(v, self.count)}, {v.bytes} zeroinitializer)")
        return out.let(f"icmp ne {v.bytes} {found}, zeroinitializer")

    def _store(self, value: str, item: Store) -> None:
        v, out = self.v, self.out
        if item.floating:
            address = self._address(item.target, v.size)
            if item.added:
                value = out.let(f"fadd {v.vector} {out.load(address, v, self.count)}, {value}")
            out.store(value, address, v, self.count)
            return
        found, address = out.let(f"zext {v.bools} {value} to {v.bytes}"), self._address(item.target, 1)
        if self.count == v.count:
            out.do(f"store {v.bytes} {found}, ptr {address}, align 1")
        else:
            out.do(f"call void @llvm.masked.store.v{v.count}i8.p0({v.bytes} {found}, ptr {address}, i32 1, {v.bools} {mask(v, self.count)})")

    def _accumulate(self, item: Reduce) -> None:
        v, value = self.v, self.value(item.operand, item.broadcast, True)
        if self.count < v.count:
            value = self.out.let(f"select {v.bools} {mask(v, self.count)}, {v.vector} {value}, {v.vector} {v.all(_IDENTITY[item.op])}")
        total = self.row.sums[item.result]
        self.row.sums[item.result] = self._two(item.op, total, value)

    def _two(self, op: str, x: str, y: str) -> str:
        v = self.v
        if op in _ARITHMETIC:
            return self.out.let(f"{_ARITHMETIC[op]} {v.vector} {x}, {y}")
        return self.out.let(f"call {v.vector} @llvm.{_INTRINSIC[op]}.{v.suffix}({v.vector} {x}, {v.vector} {y})")

    def compute(self, item: Compute, x: list[str]) -> str:
        """The result of an elementwise operation."""
        op, v, out = item.op, self.v, self.out
        if op in _BITS or op in ("logical_not", "invert"):
            if any(item.floats) or item.floating:
                raise Unsupported(f"{op} of floats")
            return out.let(f"{_BITS.get(op, 'xor')} {v.bools} {x[0]}, {x[1] if op in _BITS else 'splat (i1 true)'}")
        if op == "where":
            if item.floats[0] or not item.floating:
                raise Unsupported("where of other things than floats by a bool")
            condition, x = x[0], self._floats(item.floats[1:], x[1:])
            return out.let(f"select {v.bools} {condition}, {v.vector} {x[0]}, {v.vector} {x[1]}")
        if op == "dropout":
            scaled = self._two("multiply", x[0], x[2])
            return out.let(f"select {v.bools} {x[1]}, {v.vector} {scaled}, {v.vector} zeroinitializer")
        if op in _COMPARED or op == "isnan":
            x = self._floats(item.floats, x)
            return out.let(f"fcmp {_COMPARED.get(op, 'uno')} {v.vector} {x[0]}, {x[1] if op in _COMPARED else x[0]}")
        if not item.floating:
            raise Unsupported(f"{op} of bools")
        return self._number(item, self._floats(item.floats, x))

    def _floats(self, floats: list[bool], x: list[str]) -> list[str]:
        """Bools as 0 and 1."""
        return [a if f else self.out.let(f"uitofp {self.v.bools} {a} to {self.v.vector}") for a, f in zip(x, floats, strict=True)]

    def _number(self, item: Compute, x: list[str]) -> str:
        op, v, out = item.op, self.v, self.out
        if op == "power" and isinstance(item.operands[1], Number) and item.operands[1].value in (1.0, 2.0, -1.0):
            op, x = {1.0: "astype", 2.0: "square", -1.0: "reciprocal"}[item.operands[1].value], x[:1]
        one = v.all(1.0)
        if op in _ARITHMETIC or op in ("maximum", "minimum"):
            return self._two(op, x[0], x[1])
        if op in _INTRINSIC:
            return out.let(f"call {v.vector} @llvm.{_INTRINSIC[op]}.{v.suffix}({v.vector} {x[0]})")
        if op in _OWN:
            return out.let(f"call {v.vector} @{op}({v.vector} {x[0]})")
        if op in _LIBRARY:
            return self._called(_LIBRARY[op], x)
        if op == "clip":
            if len(x) != 3:
                raise Unsupported("clip on one side")
            return self._two("minimum", self._two("maximum", x[0], x[1]), x[2])
        if op == "sign":
            signed = out.let(f"call {v.vector} @llvm.copysign.{v.suffix}({v.vector} {one}, {v.vector} {x[0]})")
            differs = out.let(f"fcmp one {v.vector} {x[0]}, zeroinitializer")
            kept = out.let(f"fmul {v.vector} {x[0]}, {one}")
            return out.let(f"select {v.bools} {differs}, {v.vector} {signed}, {v.vector} {kept}")
        if op == "relu":
            return self._two("maximum", x[0], "zeroinitializer")
        if op == "silu":
            return self._two("multiply", x[0], out.let(f"call {v.vector} @sigmoid({v.vector} {x[0]})"))
        return {
            "negative": lambda: out.let(f"fneg {v.vector} {x[0]}"),
            "square": lambda: self._two("multiply", x[0], x[0]),
            "reciprocal": lambda: self._two("divide", one, x[0]),
            "astype": lambda: x[0],
        }[op]()

    def _called(self, name: str, x: list[str]) -> str:
        """A function of the C library on the lanes that count."""
        v, out = self.v, self.out
        name += "f" if v.size == 4 else ""
        self.row.function.library.add(name)
        result = "zeroinitializer"
        for k in range(self.count):
            lane = ", ".join(f"{v.name} {out.let(f'extractelement {v.vector} {a}, i32 {k}')}" for a in x)
            result = out.let(f"insertelement {v.vector} {result}, {v.name} {out.let(f'call {v.name} @{name}({lane})')}, i32 {k}")
        return result


__all__ = ["Emitted", "emitted", "supported"]
