"""Large matrix products in machine code, for what an unroll does for all steps at once: blocks that stay in the caches (Goto and van de Geijn 2008)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .kernels import ATTRIBUTES, Lanes, Product, Writer, lanes
from .machine import Machine, aligned, machine, scratch
from .workers import share

SHARED = 1 << 24
"""From here on threads share the rows."""

SLOT = 8
"""Elements from one inner step to the next in a packed block of rows, of which there are fewer."""

DEPTH, GROUP = 256, 8
"""Elements of the inner axis in a block, and blocks of rows that are packed together."""

RESIDENT = 1 << 18
"""Bytes of the panels that stay in the second cache."""

UNROLLED = 2
"""Inner steps in one turn of the innermost loop; with more, LLVM moves so many loads ahead that sums leave their registers."""

AHEAD = 16
"""Inner steps from one that is packed to one that is fetched."""


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray | None:
    """``a @ b`` of two matrices in any layout, in ``out``, whose rows have their elements next to each other, where it is given; None where there is no machine code for it."""
    (m, k), n = a.shape, b.shape[1]
    fit = a.dtype == b.dtype and a.dtype.char in "fd" and b.shape[0] == k and m * n * k and a.flags.aligned and b.flags.aligned
    call = _function(a.itemsize) if fit else None
    if call is None:
        return None
    if out is None:
        out = np.empty((m, n), a.dtype)
    into = out.ctypes.data
    item, left, right = a.itemsize, a.ctypes.data, b.ctypes.data

    def rows(first: int, last: int) -> None:
        panels = scratch(RESIDENT + GROUP * SLOT * (DEPTH * item + 64))
        call(left + first * a.strides[0], *a.strides, right, *b.strides, into + first * out.strides[0], out.strides[0], last - first, n, k, panels, panels + RESIDENT)

    share(rows, m, 48 if m * n * k >= SHARED else m)
    return out


def panels(shape: Product, host: Machine, v: Lanes) -> np.ndarray:
    """Memory for a matrix in panels."""
    count, width, _, padded = shape.layout(host, v)
    return aligned(shape.inner * (count * width + padded) * v.size)


def pack(matrix: np.ndarray, shape: Product, host: Machine, to: np.ndarray) -> None:
    """Write a matrix in any layout in panels, as :func:`kernels.product` reads it."""
    call = _panelling(host, lanes(host, matrix.itemsize))
    call(matrix.__array_interface__["data"][0], *matrix.strides, shape.inner, shape.columns, to.__array_interface__["data"][0])


@functools.cache
def _function(size: int) -> Any:
    """The machine code of products for floats of 4 or 8 bytes, or None."""
    host = machine()
    try:
        return None if host is None else host.callable(source(host, lanes(host, size)), *[ctypes.c_int64] * 13)
    except Exception:  # NumPy can do it as well
        return None


@functools.cache
def _panelling(host: Machine, v: Lanes) -> Any:
    return host.callable(panelling(host, v), *[ctypes.c_int64] * 6)


def panelling(host: Machine, v: Lanes) -> str:
    """The function ``run(b, bytes a row, bytes a column, inner, columns, to)``: a matrix in panels, the last one with zeros up to whole vectors."""
    width = host.vectors * v.count
    out = Writer("define void @run(ptr %b, i64 %bs, i64 %bk, i64 %inner, i64 %columns, ptr %to) #0")
    with out.loop("%columns", step=width) as column:
        count = out.remaining("%columns", column, width)
        padded = out.rounded(count, v.count)
        start, target = out.at("%b", out.let(f"mul i64 {column}, %bk")), out.at("%to", out.let(f"mul i64 {out.let(f'mul i64 {column}, %inner')}, {v.size}"))
        out.do(f"call void @pack(ptr {start}, i64 %bs, i64 %bk, i64 %inner, i64 {count}, i64 {padded}, ptr {target}, i64 %inner)")
    return "\n".join(["declare i64 @llvm.umin.i64(i64, i64)", _packing(v), out.text(), f"attributes #0 = {{ {ATTRIBUTES.format(bits=8 * host.vector)} }}"])


def source(host: Machine, v: Lanes) -> str:
    """The function ``run(a, bytes a row, bytes a column, b, likewise, c, bytes a row, rows, columns, inner, panels, blocks)``.

    Panels of columns of b stay in the second cache while rows of a pass by, a few of them at a time in the first one, so that
    the result is written row by row.
    """
    width, height = host.vectors * v.count, host.rows
    names = "a as ak b bs bk c cs m n k panels blocks".split()
    pointers = {"a", "b", "c", "panels", "blocks"}
    parameters = ", ".join(("ptr %" if name in pointers else "i64 %") + name for name in names)
    out = Writer(f"define void @run({parameters}) #0")
    deepest = out.let(f"call i64 @llvm.umin.i64(i64 {out.rounded('%k', UNROLLED)}, i64 {DEPTH})")
    span = out.let(f"mul i64 {out.let(f'udiv i64 {RESIDENT // v.size // width}, {deepest}')}, {width}")
    inward, sideways = out.let(f"icmp eq i64 %ak, {v.size}"), out.let(f"icmp eq i64 %as, {v.size}")
    kind = out.let(f"select i1 {inward}, i64 2, i64 {out.let(f'select i1 {sideways}, i64 1, i64 0')}")
    with out.loop("%n", step=span) as begin, out.loop("%k", step=DEPTH) as first:
        across = out.remaining("%n", begin, span)
        panels = out.blocks(across, width)
        depth = out.remaining("%k", first, DEPTH)
        # Inner steps with those of zeros behind them.
        deep = out.rounded(depth, UNROLLED)
        begins = out.let(f"icmp eq i64 {first}, 0")
        panel_bytes = out.let(f"mul i64 {deep}, {width * v.size}")
        with out.loop(panels) as p:
            column = out.let(f"mul i64 {p}, {width}")
            count = out.remaining(across, column, width)
            start = out.at("%b", out.let(f"mul i64 {first}, %bs"), out.let(f"mul i64 {out.let(f'add i64 {begin}, {column}')}, %bk"))
            padded = out.rounded(count, v.count)
            out.do(f"call void @pack(ptr {start}, i64 %bs, i64 %bk, i64 {depth}, i64 {count}, i64 {padded}, ptr {out.at('%panels', out.let(f'mul i64 {p}, {panel_bytes}'))}, i64 {deep})")
        with out.loop("%m", step=height * GROUP) as top:
            rows = out.remaining("%m", top, height * GROUP)
            blocks = out.blocks(rows, height)
            left = out.at("%a", out.let(f"mul i64 {first}, %ak"), out.let(f"mul i64 {top}, %as"))
            number = out.count
            out.do(f"switch i64 {kind}, label %other{number} [ i64 1, label %side{number} i64 2, label %in{number} ]")
            out.enter(f"side{number}")
            out.do(f"call void @pack_sideways(ptr {left}, i64 %ak, i64 {depth}, i64 {rows}, i64 {out.let(f'sub i64 %m, {top}')}, ptr %blocks, i64 {deep})")
            out.do(f"br label %ready{number}")
            out.enter(f"in{number}")
            out.do(f"call void @pack_rows(ptr {left}, i64 %as, i64 {depth}, i64 {rows}, ptr %blocks, i64 {deep})")
            out.do(f"br label %ready{number}")
            out.enter(f"other{number}")
            with out.loop(blocks) as q:
                row = out.let(f"mul i64 {q}, {height}")
                count = out.remaining(rows, row, height)
                start, target = out.at(left, out.let(f"mul i64 {row}, %as")), out.at("%blocks", out.let(f"mul i64 {q}, {_block(v)}"))
                out.do(f"call void @pack(ptr {start}, i64 %ak, i64 %as, i64 {depth}, i64 {count}, i64 {SLOT}, ptr {target}, i64 {deep})")
            out.do(f"br label %ready{number}")
            out.enter(f"ready{number}")
            with out.loop(blocks) as q, out.loop(panels) as p:
                row = out.let(f"mul i64 {q}, {height}")
                here = out.remaining(rows, row, height)
                column = out.let(f"mul i64 {p}, {width}")
                count = out.remaining(across, column, width)
                panel, block = out.at("%panels", out.let(f"mul i64 {p}, {panel_bytes}")), out.at("%blocks", out.let(f"mul i64 {q}, {_block(v)}"))
                target = out.at("%c", out.let(f"mul i64 {out.let(f'add i64 {top}, {row}')}, %cs"), out.let(f"mul i64 {out.let(f'add i64 {begin}, {column}')}, {v.size}"))
                # Tiles count from 1: by their rows, then by their vectors.
                vectors = out.blocks(count, v.count)
                before = out.let(f"add i64 {vectors}, {out.let(f'select i1 {inward}, i64 {host.vectors - 1}, i64 -1')}")
                which = out.let(f"add i64 {here}, {out.let(f'mul i64 {before}, {height}')}")
                given = f"(ptr {block}, ptr {panel}, ptr {target}, i64 %cs, i64 {deep}, i64 {count}, i1 {begins})"
                out.choose(which, [f"call void @{name}{given}" for name, *_ in _tiles(host)])
    integers = f"<{max(v.count, SLOT)} x i64>"
    declared = [
        "declare i64 @llvm.umin.i64(i64, i64)",
        "declare i64 @llvm.usub.sat.i64(i64, i64)",
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        f"declare {v.vector} @llvm.fmuladd.{v.suffix}({v.vector}, {v.vector}, {v.vector})",
        f"declare void @llvm.masked.store.{v.suffix}.p0({v.vector}, ptr, i32, {v.bools})",
        *dict.fromkeys(f"declare {w.vector} @llvm.masked.load.{w.suffix}.p0(ptr, i32, {w.bools}, {w.vector})" for w in (v, Lanes(v.name, SLOT))),
        f"@lanes = internal constant {integers} <{', '.join(f'i64 {k}' for k in range(max(v.count, SLOT)))}>, align 64",
        f"attributes #0 = {{ {ATTRIBUTES.format(bits=8 * host.vector)} }}",
    ]
    tiles = [_tile(*which, v) for which in _tiles(host)]
    return "\n".join([*declared, _packing(v), _sideways(height, v), _rows(height, v), *tiles, out.text()])


def _block(v: Lanes) -> int:
    """Bytes of a packed block of rows, a little more than they take: rows and blocks an even number of cache lines apart would fall on each other in the cache."""
    return SLOT * _row(v)


def _row(v: Lanes) -> int:
    return DEPTH * v.size + 64


def _tiles(host: Machine) -> list[tuple[str, int, int, bool]]:
    """The functions for tiles: name, rows, vectors of columns, and whether the rows lie along the inner axis."""
    return [
        (f"tile{rows}_{vectors}_{'inward' if inward else 'sideways'}", rows, vectors, inward)
        for inward in (False, True)
        for vectors in range(1, host.vectors + 1)
        for rows in range(1, host.rows + 1)
    ]


def _packing(v: Lanes) -> str:
    """``void @pack(from, bytes an inner step, bytes a lane, inner, lanes, width, to, deep)``: inner rows of ``width``, zeros behind the lanes and the inner rows."""
    out = Writer("define internal void @pack(ptr %x, i64 %xs, i64 %xl, i64 %inner, i64 %lanes, i64 %width, ptr %y, i64 %deep) noinline #0")
    near = out.let(f"icmp eq i64 %xl, {v.size}")
    whole = out.let(f"icmp eq i64 {out.let(f'urem i64 %lanes, {v.count}')}, 0")
    kind = out.let(f"select i1 {near}, i32 {out.let(f'select i1 {whole}, i32 2, i32 1')}, i32 0")
    out.do(f"switch i32 {kind}, label %columns [ i32 1, label %rows i32 2, label %vectors ]")
    out.enter("vectors")
    with out.loop("%inner") as k:
        source, target = out.at("%x", out.let(f"mul i64 {k}, %xs")), out.at("%y", out.let(f"mul i64 {out.let(f'mul i64 {k}, %width')}, {v.size}"))
        with out.loop("%lanes", step=v.count) as lane:
            out.store(out.load(out.element(source, lane, v), v, v.count), out.element(target, lane, v), v, v.count)
    out.do("br label %rest")
    # The source is read along its lines, whichever way they run.
    out.enter("rows")
    with out.loop("%inner") as k:
        source, target = out.at("%x", out.let(f"mul i64 {k}, %xs")), out.at("%y", out.let(f"mul i64 {out.let(f'mul i64 {k}, %width')}, {v.size}"))
        with out.loop("%lanes") as lane:
            value = out.let(f"load {v.name}, ptr {out.element(source, lane, v)}, align {v.size}")
            out.do(f"store {v.name} {value}, ptr {out.element(target, lane, v)}, align {v.size}")
    out.do("br label %rest")
    out.enter("columns")
    blocks = out.let(f"select i1 {out.let(f'icmp eq i64 %xs, {v.size}')}, i64 {-v.count}, i64 0")
    lanes, inner = out.let(f"and i64 %lanes, {blocks}"), out.let(f"and i64 %inner, {blocks}")

    def at(k: str, lane: str) -> tuple[str, str]:
        source = out.at("%x", out.let(f"mul i64 {lane}, %xl"), out.let(f"mul i64 {k}, %xs"))
        element = out.let(f"add i64 {lane}, {out.let(f'mul i64 {k}, %width')}")
        return source, out.element("%y", element, v)

    def one_by_one(first_lane: str, last_lane: str, first: str) -> None:
        some = out.let(f"and i1 {out.let(f'icmp ult i64 {first_lane}, {last_lane}')}, {out.let(f'icmp ult i64 {first}, %inner')}")
        with out.when(some), out.loop(last_lane, start=first_lane) as lane, out.loop("%inner", start=first) as k:
            source, target = at(k, lane)
            out.do(f"store {v.name} {out.let(f'load {v.name}, ptr {source}, align {v.size}')}, ptr {target}, align {v.size}")

    with out.when(out.let(f"icmp ne i64 {out.let(f'mul i64 {lanes}, {inner}')}, 0")), out.loop(lanes, step=v.count) as lane, out.loop(inner, step=v.count) as k:
        source, target = at(k, lane)
        columns = [out.load(out.at(source, out.let(f"mul i64 %xl, {n}")), v, v.count) for n in range(v.count)]
        for n, row in enumerate(out.transposed(columns, v)):
            out.store(row, out.at(target, out.let(f"mul i64 %width, {n * v.size}")), v, v.count)
    one_by_one("0", lanes, inner)
    one_by_one(lanes, "%lanes", "0")
    out.do("br label %rest")
    out.enter("rest")
    with out.when(out.let("icmp ult i64 %lanes, %width")), out.loop("%inner") as k:
        target = out.element("%y", out.let(f"mul i64 {k}, %width"), v)
        with out.loop("%width", start="%lanes") as lane:
            out.do(f"store {v.name} {v.number(0.0)}, ptr {out.element(target, lane, v)}, align {v.size}")
    with out.when(out.let("icmp ult i64 %inner, %deep")):
        first, last = out.let("mul i64 %inner, %width"), out.let("mul i64 %deep, %width")
        with out.loop(last, start=first) as place:
            out.do(f"store {v.name} {v.number(0.0)}, ptr {out.element('%y', place, v)}, align {v.size}")
    return out.text()


def _sideways(height: int, v: Lanes) -> str:
    """``void @pack_sideways(from, bytes an inner step, inner, lanes, readable lanes, to, deep)``: lanes that are neighbours, in blocks of ``height``; what a slot holds behind them is not read."""
    slot = Lanes(v.name, SLOT)
    out = Writer("define internal void @pack_sideways(ptr %x, i64 %xs, i64 %inner, i64 %lanes, i64 %readable, ptr %y, i64 %deep) noinline #0")
    # Blocks that can be read with a whole slot, which is more than their rows.
    blocks = out.blocks("%lanes", height)
    safe = out.let(f"udiv i64 {out.let(f'call i64 @llvm.usub.sat.i64(i64 %readable, i64 {SLOT - height})')}, {height}")
    safe = out.let(f"call i64 @llvm.umin.i64(i64 {safe}, i64 {blocks})")
    some, rest = out.let(f"icmp ne i64 {safe}, 0"), out.let(f"icmp ult i64 {safe}, {blocks}")

    def moved(k: str, q: str, whole: bool) -> None:
        lane = out.let(f"mul i64 {q}, {height}")
        start = out.element(out.at("%x", out.let(f"mul i64 {k}, %xs")), lane, v)
        target = out.at("%y", out.let(f"mul i64 {k}, {SLOT * v.size}"), out.let(f"mul i64 {q}, {_block(v)}"))
        if whole:
            # Rows of the source are far from each other, which the processor does not foresee.
            out.do(f"call void @llvm.prefetch.p0(ptr {out.at(start, out.let(f'mul i64 %xs, {AHEAD}'))}, i32 0, i32 3, i32 1)")
            value = out.load(start, slot, SLOT)
        else:
            value = out.load(start, slot, _first_lanes(out, out.remaining("%lanes", lane, height), slot))
        out.store(value, target, slot, SLOT)

    with out.loop("%inner") as k:
        with out.when(some), out.loop(safe) as q:
            moved(k, q, True)
        with out.when(rest), out.loop(blocks, start=safe) as q:
            moved(k, q, False)
    with out.when(out.let("icmp ult i64 %inner, %deep")), out.loop("%deep", start="%inner") as k, out.loop(blocks) as q:
        out.store("zeroinitializer", out.at("%y", out.let(f"mul i64 {k}, {SLOT * v.size}"), out.let(f"mul i64 {q}, {_block(v)}")), slot, SLOT)
    return out.text()


def _rows(height: int, v: Lanes) -> str:
    """``void @pack_rows(from, bytes a row, inner, rows, to, deep)``: rows that lie along the inner axis, in blocks of ``height``."""
    out = Writer("define internal void @pack_rows(ptr %x, i64 %xs, i64 %inner, i64 %rows, ptr %y, i64 %deep) noinline #0")
    whole = out.let(f"and i64 %inner, {-v.count}")
    some, rest = out.let(f"icmp ne i64 {whole}, 0"), out.let(f"icmp ult i64 {whole}, %deep")
    with out.loop("%rows") as row:
        block, within = out.let(f"udiv i64 {row}, {height}"), out.let(f"urem i64 {row}, {height}")
        source, target = out.at("%x", out.let(f"mul i64 {row}, %xs")), out.at("%y", out.let(f"mul i64 {block}, {_block(v)}"), out.let(f"mul i64 {within}, {_row(v)}"))
        with out.when(some), out.loop(whole, step=v.count) as k:
            out.store(out.load(out.element(source, k, v), v, v.count), out.element(target, k, v), v, v.count)
        with out.when(rest), out.loop("%deep", start=whole, step=v.count) as k:
            kept = _first_lanes(out, out.let(f"call i64 @llvm.usub.sat.i64(i64 %inner, i64 {k})"), v)
            out.store(out.load(out.element(source, k, v), v, kept), out.element(target, k, v), v, v.count)
    return out.text()


def _first_lanes(out: Writer, count: str, v: Lanes) -> str:
    """A mask of the first lanes, of a number that is not known beforehand."""
    integers = f"<{v.count} x i64>"
    limit = out.let(f"insertelement {integers} poison, i64 {count}, i32 0")
    limits = out.let(f"shufflevector {integers} {limit}, {integers} poison, <{v.count} x i32> zeroinitializer")
    lane = out.let(f"load {integers}, ptr @lanes, align 64")
    return out.let(f"icmp slt {integers} {lane}, {limits}")


def _tile(name: str, rows: int, width: int, inward: bool, v: Lanes) -> str:
    """Some rows of a block with one panel: the first ``n`` columns of the result where the inner axis begins, and added to it later."""
    V = v.vector
    a_row, a_step = (_row(v), v.size) if inward else (v.size, SLOT * v.size)
    cells = [(r, c) for r in range(rows) for c in range(width)]
    out = Writer(f"define internal void @{name}(ptr %a, ptr %b, ptr %c, i64 %cs, i64 %k, i64 %n, i1 %begins) noinline #0")
    with out.loop("%k", step=UNROLLED, carried=[(V, "zeroinitializer") for _ in cells]) as k:
        sums = out.carried
        panel, block = out.at("%b", out.let(f"mul i64 {k}, {width * v.count * v.size}")), out.at("%a", out.let(f"mul i64 {k}, {a_step}"))
        for u in range(UNROLLED):
            right = [out.load(out.at(panel, (u * width + c) * v.count * v.size), v, v.count) for c in range(width)]
            left = [out.splat(out.let(f"load {v.name}, ptr {out.at(block, u * a_step + r * a_row)}, align {v.size}"), v) for r in range(rows)]
            sums = [out.let(f"call {V} @llvm.fmuladd.{v.suffix}({V} {left[r]}, {V} {right[c]}, {V} {s})") for (r, c), s in zip(cells, sums, strict=True)]
        out.carried = sums
    kept: list[int | str] = [*[v.count] * (width - 1), _first_lanes(out, out.let(f"sub i64 %n, {(width - 1) * v.count}"), v)]
    places = [out.at("%c", out.let(f"mul i64 %cs, {r}"), c * v.count * v.size) for r, c in cells]

    def stored(block: str, values: Callable[[str, str, int], str]) -> None:
        out.enter(block)
        for (_, c), place, s in zip(cells, places, sums, strict=True):
            out.store(values(place, s, c), place, v, kept[c])
        out.do("br label %end")

    def added(place: str, s: str, c: int) -> str:
        return out.let(f"fadd {V} {out.load(place, v, kept[c])}, {s}")

    out.do("br i1 %begins, label %new, label %more")
    stored("new", lambda place, s, c: s)
    stored("more", added)
    out.enter("end")
    return out.text()
