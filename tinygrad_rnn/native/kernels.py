"""Pieces of LLVM's language: vectors of one machine register, elementary functions on them, and the product of a few rows with a panel."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .machine import Machine


class Lanes(NamedTuple):
    """A vector of ``count`` elements of the dtype ``name`` (``float`` or ``double``)."""

    name: str
    count: int  # type: ignore[assignment]

    @property
    def vector(self) -> str:
        return f"<{self.count} x {self.name}>"

    @property
    def integer(self) -> str:
        return "i32" if self.name == "float" else "i64"

    @property
    def integers(self) -> str:
        return f"<{self.count} x {self.integer}>"

    @property
    def bools(self) -> str:
        return f"<{self.count} x i1>"

    @property
    def bytes(self) -> str:
        return f"<{self.count} x i8>"

    @property
    def suffix(self) -> str:
        return f"v{self.count}{'f32' if self.name == 'float' else 'f64'}"

    @property
    def size(self) -> int:
        return 4 if self.name == "float" else 8

    def number(self, value: float) -> str:
        """A number of this dtype in LLVM's notation, which writes floats as doubles."""
        if self.name == "float" and math.isfinite(value):
            value = struct.unpack("f", struct.pack("f", value))[0]
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"

    def all(self, value: float) -> str:
        """The vector of one number."""
        return f"splat ({self.name} {self.number(value)})"

    def alls(self, value: int) -> str:
        return f"splat ({self.integer} {value})"


def lanes(machine: Machine, size: int) -> Lanes:
    """The vectors of a machine for floats of 4 or 8 bytes."""
    return Lanes("float" if size == 4 else "double", machine.vector // size)


# Nothing is to be recognised as a function of the C library, which the linker of code in memory might not find.
ATTRIBUTES = '"no-builtins" "min-legal-vector-width"="{bits}" "prefer-vector-width"="{bits}" nounwind'


def elementary(v: Lanes) -> str:
    """``@exp``, ``@tanh`` and ``@sigmoid`` on vectors, right to about two units in the last place.

    exp(x) = 2^n exp(r) with n the integer nearest to x / ln 2, ln 2 in two parts (Cody and Waite 1980), and exp(r) - 1 by its
    Taylor series, which ends where its terms fall below the rounding at abs(r) = ln(2) / 2. tanh(x) = -m / (m + 2) with
    m = exp(-2 abs(x)) - 1 keeps its relative accuracy near 0.
    """
    single = v.name == "float"
    degree, bits, bias = (7, 23, 127) if single else (13, 52, 1023)
    high, low = (0.693145751953125, 1.428606765330187e-06) if single else (6.93147180369123816490e-01, 1.90821492927058770002e-10)
    shift = 1.5 * 2.0**bits
    bottom, top, far = (-104.0, 89.0, 10.0) if single else (-746.0, 710.0, 20.0)
    shift_bits = struct.unpack("<i", struct.pack("<f", shift))[0] if single else struct.unpack("<q", struct.pack("<d", shift))[0]
    V, I, B, fma = v.vector, v.integers, v.bools, f"@llvm.fmuladd.{v.suffix}"  # noqa: E741

    def reduced(x: str) -> list[str]:
        lines = [
            f"%m = call {V} {fma}({V} {x}, {V} {v.all(1 / math.log(2))}, {V} {v.all(shift)})",
            f"%n = fsub {V} %m, {v.all(shift)}",
            f"%r0 = call {V} {fma}({V} %n, {V} {v.all(-high)}, {V} {x})",
            f"%r = call {V} {fma}({V} %n, {V} {v.all(-low)}, {V} %r0)",
            f"%bits = bitcast {V} %m to {I}",
            f"%q{degree} = fadd {V} {v.all(1 / math.factorial(degree))}, zeroinitializer",
        ]
        for k in range(degree - 1, 1, -1):
            lines.append(f"%q{k} = call {V} {fma}({V} %q{k + 1}, {V} %r, {V} {v.all(1 / math.factorial(k))})")
        return [*lines, f"%rr = fmul {V} %r, %r", f"%p = call {V} {fma}({V} %q2, {V} %rr, {V} %r)"]

    def power(name: str, n: str) -> list[str]:
        return [f"%{name}b = add {I} {n}, {v.alls(bias)}", f"%{name}e = shl {I} %{name}b, {v.alls(bits)}", f"%{name} = bitcast {I} %{name}e to {V}"]

    head = [f"%lowest = fcmp olt {V} %x, {v.all(bottom)}", f"%x0 = select {B} %lowest, {V} {v.all(bottom)}, {V} %x"]
    head += [f"%highest = fcmp ogt {V} %x0, {v.all(top)}", f"%x1 = select {B} %highest, {V} {v.all(top)}, {V} %x0"]
    # Two factors reach further than the exponents of one, to infinity and down to the subnormal numbers.
    exp = [*head, *reduced("%x1"), f"%i = sub {I} %bits, {v.alls(shift_bits)}", f"%i1 = ashr {I} %i, {v.alls(1)}", f"%i2 = sub {I} %i, %i1"]
    exp += [*power("s1", "%i1"), *power("s2", "%i2"), f"%e0 = call {V} {fma}({V} %p, {V} %s1, {V} %s1)", f"%e = fmul {V} %e0, %s2", f"ret {V} %e"]
    tanh = [
        f"%a = call {V} @llvm.fabs.{v.suffix}({V} %x)",
        f"%beyond = fcmp ogt {V} %a, {v.all(far)}",
        f"%a0 = select {B} %beyond, {V} {v.all(far)}, {V} %a",
        f"%y = fmul {V} %a0, {v.all(-2.0)}",
        *reduced("%y"),
        f"%i = sub {I} %bits, {v.alls(shift_bits)}",
        *power("s", "%i"),
        f"%s1 = fadd {V} %s, {v.all(-1.0)}",
        f"%em = call {V} {fma}({V} %s, {V} %p, {V} %s1)",
        f"%d = fadd {V} %em, {v.all(2.0)}",
        f"%t = fdiv {V} %em, %d",
        f"%u = call {V} @llvm.copysign.{v.suffix}({V} %t, {V} %x)",
        f"ret {V} %u",
    ]
    sigmoid = [f"%y = fneg {V} %x", f"%z = call {V} @exp({V} %y)", f"%d = fadd {V} %z, {v.all(1.0)}", f"%s = fdiv {V} {v.all(1.0)}, %d", f"ret {V} %s"]
    bodies = {"exp": exp, "tanh": tanh, "sigmoid": sigmoid}
    declared = [f"declare {V} {fma}({V}, {V}, {V})", f"declare {V} @llvm.fabs.{v.suffix}({V})", f"declare {V} @llvm.copysign.{v.suffix}({V}, {V})"]
    return "\n".join(declared + [f"define internal {V} @{name}({V} %x) alwaysinline #0 {{\n  " + "\n  ".join(body) + "\n}" for name, body in bodies.items()])


DEEP = 512
"""Elements of the inner axis of a panel that stay in the first cache."""


class Product(NamedTuple):
    """A matrix product: rows of ``inner`` elements with a matrix of ``inner`` rows and ``columns`` columns."""

    inner: int
    columns: int

    def layout(self, machine: Machine, v: Lanes) -> tuple[int, int, int, int]:
        """The number and width of whole panels, the columns of the last one if it is not whole, and these with zeros up to whole vectors."""
        width = machine.vectors * v.count
        count, rest = divmod(self.columns, width)
        return count, width, rest, -(-rest // v.count) * v.count


def product(name: str, shape: Product, most: int, machine: Machine, v: Lanes) -> str:
    """``void @name(a, bytes a row, panels, c, bytes a row, rows)``: c = a @ b of ``most`` rows or fewer, each element's sum in the order of the inner axis.

    Panel by panel, or a few panels at once where there are few rows, and for each, or each part of it that stays in the first
    cache, in blocks of rows that stay in registers; how all that is blocked changes no bit of the result.
    """
    full, width, rest, _ = shape.layout(machine, v)
    highest = min(machine.rows, most)
    together = machine.rows // highest
    groups = [(0, full // together, width, together)] if full >= together else []
    groups += [(full // together * together * width, 1, width, full % together)] if full % together else []
    groups += [(full * width, 1, rest, 1)] if rest else []
    out = Writer(f"define internal void @{name}(ptr %a, i64 %as, ptr %b, ptr %c, i64 %cs, i64 %rows) noinline #0")
    length = -(-shape.inner // -(-shape.inner // DEEP))
    pieces = [(first, min(length, shape.inner - first)) for first in range(0, shape.inner, length)]
    blocks = out.blocks("%rows", machine.rows)
    base, extra = out.let(f"udiv i64 %rows, {blocks}"), out.let(f"urem i64 %rows, {blocks}")
    for start, number, columns, panels in groups:
        padded = -(-columns // v.count) * v.count
        with out.loop(str(number)) as p:
            panel = out.at("%b", out.let(f"mul i64 {p}, {panels * shape.inner * padded * v.size}"), start * shape.inner * v.size)
            column = out.at("%c", out.let(f"mul i64 {p}, {panels * columns * v.size}"), start * v.size)
            for first, inner in pieces:
                with out.loop(blocks) as block:
                    more = out.let(f"icmp ult i64 {block}, {extra}")
                    size = out.let(f"add i64 {base}, {out.let(f'zext i1 {more} to i64')}")
                    before = out.let(f"call i64 @llvm.umin.i64(i64 {block}, i64 {extra})")
                    row = out.let(f"add i64 {out.let(f'mul i64 {block}, {base}')}, {before}")
                    left, right = out.at("%a", out.let(f"mul i64 {row}, %as")), out.at(column, out.let(f"mul i64 {row}, %cs"))
                    given = f"(ptr {out.at(left, first * v.size)}, i64 %as, ptr {out.at(panel, first * padded * v.size)}, ptr {right}, i64 %cs)"
                    out.choose(size, [f"call void @{name}_{n}_{panels}_{columns}_{inner}_{bool(first)}{given}" for n in range(1, highest + 1)])
    kernels = [
        _kernel(f"{name}_{rows}_{panels}_{columns}_{inner}_{more}", rows, panels, columns, shape.inner, inner, more, v)
        for _, _, columns, panels in groups
        for inner, more in dict.fromkeys((inner, bool(first)) for first, inner in pieces)
        for rows in range(1, highest + 1)
    ]
    return "\n".join([out.text(), *kernels])


def _kernel(name: str, rows: int, panels: int, columns: int, stride: int, inner: int, more: bool, v: Lanes, unrolled: int = 4) -> str:
    """A few rows with a few panels, ``stride`` rows from each other, of so many columns: all sums in registers, with what is in c already if there is ``more``."""
    V, width = v.vector, -(-columns // v.count)
    cells = [(r, c) for r in range(rows) for c in range(panels * width)]
    out = Writer(f"define internal void @{name}(ptr %a, i64 %as, ptr %b, ptr %c, i64 %cs) noinline #0")
    lefts = [out.at("%a", out.let(f"mul i64 %as, {r}")) for r in range(rows)]

    def step(k: str, sums: list[str]) -> list[str]:
        """The sums with one more element of the inner axis."""
        row = out.at("%b", out.let(f"mul i64 {k}, {width * v.count * v.size}"))
        right = [out.load(out.at(row, (c // width * stride * width + c % width) * v.count * v.size), v, v.count) for c in range(panels * width)]
        left = [out.splat(out.let(f"load {v.name}, ptr {out.let(f'getelementptr {v.name}, ptr {a}, i64 {k}')}, align {v.size}"), v) for a in lefts]
        return [out.let(f"call {V} @llvm.fmuladd.{v.suffix}({V} {left[r]}, {V} {right[c]}, {V} {s})") for (r, c), s in zip(cells, sums, strict=True)]

    places = [out.at(out.at("%c", out.let(f"mul i64 %cs, {r}")), (c // width * columns + c % width * v.count) * v.size) for r, c in cells]
    counts = [min(v.count, columns - c % width * v.count) for _, c in cells]
    sums, done = [out.load(place, v, count) if more else "zeroinitializer" for place, count in zip(places, counts, strict=True)], 0
    if inner >= 2 * unrolled:
        done = inner // unrolled * unrolled
        with out.loop(str(done), step=unrolled, carried=[(V, s) for s in sums]) as k:
            sums = out.carried
            for u in range(unrolled):
                sums = step(k if u == 0 else out.let(f"add i64 {k}, {u}"), sums)
            out.carried = sums
    for number in range(done, inner):
        sums = step(str(number), sums)
    for place, count, s in zip(places, counts, sums, strict=True):
        out.store(s, place, v, count)
    return out.text()


class Writer:
    """Writes a function: numbers names, keeps count of blocks, writes loops."""

    def __init__(self, head: str) -> None:
        self.head = head
        self.lines: list[str] = ["start:"]
        self.block = "start"
        self.count = 0
        self.carried: list[str] = []

    def text(self) -> str:
        return "\n".join([f"{self.head} {{", *self.lines, "  ret void", "}"])

    def let(self, value: str) -> str:
        """A name for a value."""
        self.count += 1
        self.lines.append(f"  %v{self.count} = {value}")
        return f"%v{self.count}"

    def do(self, statement: str) -> None:
        self.lines.append(f"  {statement}")

    def enter(self, block: str) -> None:
        self.lines.append(f"{block}:")
        self.block = block

    def at(self, pointer: str, *offsets: str | int) -> str:
        """An address so many bytes further."""
        for offset in offsets:
            if offset != 0:
                pointer = self.let(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        return pointer

    def splat(self, value: str, v: Lanes) -> str:
        first = self.let(f"insertelement {v.vector} poison, {v.name} {value}, i32 0")
        return self.let(f"shufflevector {v.vector} {first}, {v.vector} poison, <{v.count} x i32> zeroinitializer")

    def element(self, pointer: str, number: str, v: Lanes) -> str:
        """The address of an element."""
        return self.let(f"getelementptr {v.name}, ptr {pointer}, i64 {number}")

    def blocks(self, value: str, size: int) -> str:
        """How many of a size it takes to hold a number of things."""
        return self.let(f"udiv i64 {self.let(f'add i64 {value}, {size - 1}')}, {size}")

    def rounded(self, value: str, size: int) -> str:
        """The next multiple of a power of two."""
        return self.let(f"and i64 {self.let(f'add i64 {value}, {size - 1}')}, {-size}")

    def remaining(self, total: str, start: str, most: str | int) -> str:
        """What is left from a place on, and at most so much."""
        return self.let(f"call i64 @llvm.umin.i64(i64 {self.let(f'sub i64 {total}, {start}')}, i64 {most})")

    def store(self, value: str, pointer: str, v: Lanes, kept: int | str) -> None:
        """Store the first lanes, of a number, or those of a mask."""
        if kept == v.count:
            self.do(f"store {v.vector} {value}, ptr {pointer}, align {v.size}")
        else:
            self.do(f"call void @llvm.masked.store.{v.suffix}.p0({v.vector} {value}, ptr {pointer}, i32 {v.size}, {v.bools} {mask(v, kept)})")

    def load(self, pointer: str, v: Lanes, kept: int | str) -> str:
        """Load the first lanes, of a number, or those of a mask; the others are 0."""
        if kept == v.count:
            return self.let(f"load {v.vector}, ptr {pointer}, align {v.size}")
        return self.let(f"call {v.vector} @llvm.masked.load.{v.suffix}.p0(ptr {pointer}, i32 {v.size}, {v.bools} {mask(v, kept)}, {v.vector} zeroinitializer)")

    @contextlib.contextmanager
    def loop(self, stop: str, start: str = "0", step: int | str = 1, carried: Sequence[tuple[str, str]] = ()) -> Iterator[str]:
        """A loop that runs once at least; gives its counter.

        ``carried`` are types and first values of what goes from pass to pass: the body finds the names in ``self.carried``
        and puts the new ones there, where they are also found behind the loop.
        """
        self.count += 1
        number, before, place = self.count, self.block, len(self.lines) + 2
        self.do(f"br label %b{number}")
        self.enter(f"b{number}")
        names = [f"%c{number}_{k}" for k in range(len(carried))]
        outer, self.carried = self.carried, names
        yield f"%i{number}"
        following = self.let(f"add i64 %i{number}, {step}")
        again = self.let(f"icmp ult i64 {following}, {stop}")
        self.do(f"br i1 {again}, label %b{number}, label %e{number}")
        heads = [f"  %i{number} = phi i64 [ {start}, %{before} ], [ {following}, %{self.block} ]"]
        heads += [f"  {n} = phi {t} [ {s}, %{before} ], [ {e}, %{self.block} ]" for n, (t, s), e in zip(names, carried, self.carried, strict=True)]
        self.lines[place:place] = heads
        self.carried = outer
        self.enter(f"e{number}")

    @contextlib.contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What runs only if a condition holds."""
        self.count += 1
        number = self.count
        self.do(f"br i1 {condition}, label %w{number}, label %u{number}")
        self.enter(f"w{number}")
        yield
        self.do(f"br label %u{number}")
        self.enter(f"u{number}")

    def transposed(self, rows: Sequence[str], v: Lanes) -> list[str]:
        """As many vectors as a vector has lanes, with lanes and vectors exchanged: quarters of ever smaller blocks change places."""
        found, distance = list(rows), v.count // 2
        while distance:
            low = [k + v.count - distance if k & distance else k for k in range(v.count)]
            high = [k + v.count if k & distance else k + distance for k in range(v.count)]
            for k in range(v.count):
                if not k & distance:
                    pair = f"shufflevector {v.vector} {found[k]}, {v.vector} {found[k + distance]}, <{v.count} x i32> "
                    found[k], found[k + distance] = (self.let(f"{pair}<{', '.join(f'i32 {n}' for n in order)}>") for order in (low, high))
            distance //= 2
        return found

    def choose(self, which: str, statements: Sequence[str]) -> None:
        """Run the statement of the given number, counted from 1."""
        self.count += 1
        n = self.count
        self.do(f"switch i64 {which}, label %d{n} [ {' '.join(f'i64 {k}, label %d{n}_{k}' for k in range(1, len(statements) + 1))} ]")
        for k, statement in enumerate(statements, 1):
            self.enter(f"d{n}_{k}")
            self.do(statement)
            self.do(f"br label %d{n}")
        self.enter(f"d{n}")


def mask(v: Lanes, kept: int | str) -> str:
    """A mask that keeps the first lanes; one that is given is left."""
    return kept if isinstance(kept, str) else "<" + ", ".join(f"i1 {'true' if k < kept else 'false'}" for k in range(v.count)) + ">"
