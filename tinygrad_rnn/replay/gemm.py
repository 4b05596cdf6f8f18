"""Large matrix products in machine code, for what an unroll does for all steps at once: blocks that stay in the caches (Goto and van de Geijn 2008)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .kernels import ATTRIBUTES, Lanes, Writer, lanes
from .machine import Machine, machine, scratch, share

SHARED = 1 << 24
"""From here on threads share the rows."""

SLOT = 8
"""Elements from one inner step to the next in a packed block of rows, of which there are fewer."""

DEPTH, HEIGHT = 256, 192
"""Elements of the inner axis, and rows, in a block."""


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """``a @ b`` of two matrices in any layout, C-contiguous; None where there is no machine code for it."""
    (m, k), n = a.shape, b.shape[1]
    fit = a.dtype == b.dtype and a.dtype.char in "fd" and m * n * k and a.flags.aligned and b.flags.aligned
    call = _function(a.itemsize) if fit else None
    if call is None:
        return None
    out = np.empty((m, n), a.dtype)
    item, column = a.itemsize, machine_width(a.itemsize)
    columns = -(-n // column) * column

    def rows(first: int, last: int) -> None:
        panels = scratch(DEPTH * (columns + HEIGHT * 2) * item + 64 * (HEIGHT + 1))
        blocks = panels + DEPTH * columns * item
        start = (a.ctypes.data + first * a.strides[0], *a.strides, b.ctypes.data, *b.strides, out.ctypes.data + first * n * item, n * item, last - first, n, k)
        call(*start, panels, blocks)

    share(rows, m, 48 if m * n * k >= SHARED else m)
    return out


def machine_width(size: int) -> int:
    """Columns of a panel."""
    host = machine()
    assert host is not None
    return host.vectors * host.vector // size


@functools.cache
def _function(size: int) -> Any:
    """The machine code for floats of 4 or 8 bytes, or None."""
    host = machine()
    if host is None:
        return None
    try:
        address, owner = host.function(source(host, lanes(host, size)))
    except Exception:  # NumPy can do it as well
        return None
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 13)(address)
    call.owner = owner  # type: ignore[attr-defined]
    return call


def source(host: Machine, v: Lanes) -> str:
    """The function ``run(a, bytes a row, bytes a column, b, likewise, c, bytes a row, rows, columns, inner, panels, blocks)``."""
    width, height = host.vectors * v.count, host.rows
    names = "a as ak b bs bk c cs m n k panels blocks".split()
    pointers = {"a", "b", "c", "panels", "blocks"}
    parameters = ", ".join(("ptr %" if name in pointers else "i64 %") + name for name in names)
    out = Writer(f"define void @run({parameters}) #0")
    panels = out.let(f"udiv i64 {out.let(f'add i64 %n, {width - 1}')}, {width}")
    with out.loop("%k", step=DEPTH) as first:
        depth = out.let(f"call i64 @llvm.umin.i64(i64 {out.let(f'sub i64 %k, {first}')}, i64 {DEPTH})")
        begins = out.let(f"icmp eq i64 {first}, 0")
        panel_bytes = out.let(f"mul i64 {depth}, {width * v.size}")
        with out.loop(panels) as p:
            column = out.let(f"mul i64 {p}, {width}")
            count = out.let(f"call i64 @llvm.umin.i64(i64 {out.let(f'sub i64 %n, {column}')}, i64 {width})")
            start = out.at("%b", out.let(f"mul i64 {first}, %bs"), out.let(f"mul i64 {column}, %bk"))
            out.do(f"call void @pack(ptr {start}, i64 %bs, i64 %bk, i64 {depth}, i64 {count}, i64 {width}, ptr {out.at('%panels', out.let(f'mul i64 {p}, {panel_bytes}'))})")
        with out.loop("%m", step=HEIGHT) as top:
            rows = out.let(f"call i64 @llvm.umin.i64(i64 {out.let(f'sub i64 %m, {top}')}, i64 {HEIGHT})")
            blocks = out.let(f"udiv i64 {out.let(f'add i64 {rows}, {height - 1}')}, {height}")
            # Blocks an even number of cache lines apart would fall on each other in the cache.
            block_bytes = out.let(f"add i64 {out.let(f'mul i64 {depth}, {SLOT * v.size}')}, 64")
            # Rows that lie along the inner axis are read where they are.
            inward = out.let(f"icmp eq i64 %ak, {v.size}")
            direct = out.at("%a", out.let(f"mul i64 {first}, %ak"), out.let(f"mul i64 {top}, %as"))
            number = out.count
            out.do(f"br i1 {inward}, label %ready{number}, label %scattered{number}")
            out.enter(f"scattered{number}")
            out.do(f"br i1 {out.let(f'icmp eq i64 %as, {v.size}')}, label %side{number}, label %other{number}")
            out.enter(f"side{number}")
            out.do(f"call void @pack_blocks(ptr {direct}, i64 %ak, i64 {depth}, i64 {rows}, ptr %blocks, i64 {block_bytes})")
            out.do(f"br label %ready{number}")
            out.enter(f"other{number}")
            with out.loop(blocks) as q:
                row = out.let(f"mul i64 {q}, {height}")
                count = out.let(f"call i64 @llvm.umin.i64(i64 {out.let(f'sub i64 {rows}, {row}')}, i64 {height})")
                start = out.at("%a", out.let(f"mul i64 {first}, %ak"), out.let(f"mul i64 {out.let(f'add i64 {top}, {row}')}, %as"))
                out.do(f"call void @pack(ptr {start}, i64 %ak, i64 %as, i64 {depth}, i64 {count}, i64 {SLOT}, ptr {out.at('%blocks', out.let(f'mul i64 {q}, {block_bytes}'))})")
            out.do(f"br label %ready{number}")
            out.enter(f"ready{number}")
            left = out.let(f"select i1 {inward}, ptr {direct}, ptr %blocks")
            left_block = out.let(f"select i1 {inward}, i64 {out.let(f'mul i64 %as, {height}')}, i64 {block_bytes}")
            left_row, left_step = out.let(f"select i1 {inward}, i64 %as, i64 {v.size}"), out.let(f"select i1 {inward}, i64 {v.size}, i64 {SLOT * v.size}")
            with out.loop(panels) as p:
                column = out.let(f"mul i64 {p}, {width}")
                count = out.let(f"call i64 @llvm.umin.i64(i64 {out.let(f'sub i64 %n, {column}')}, i64 {width})")
                panel = out.at("%panels", out.let(f"mul i64 {p}, {panel_bytes}"))
                with out.loop(blocks) as q:
                    row = out.let(f"mul i64 {q}, {height}")
                    here = out.let(f"call i64 @llvm.umin.i64(i64 {out.let(f'sub i64 {rows}, {row}')}, i64 {height})")
                    target = out.at("%c", out.let(f"mul i64 {out.let(f'add i64 {top}, {row}')}, %cs"), out.let(f"mul i64 {column}, {v.size}"))
                    block = out.at(left, out.let(f"mul i64 {q}, {left_block}"))
                    whole = out.let(f"icmp eq i64 {count}, {width}")
                    which = out.let(f"select i1 {whole}, i64 {here}, i64 {out.let(f'add i64 {here}, {height}')}")
                    given = f"(ptr {block}, i64 {left_row}, i64 {left_step}, ptr {panel}, ptr {target}, i64 %cs, i64 {depth}, i64 {count}, i1 {begins})"
                    out.choose(which, [f"call void @tile{n}_{'part' if part else 'whole'}{given}" for part in (False, True) for n in range(1, height + 1)])
    tiles = [_tile(n, part, host, v) for part in (False, True) for n in range(1, height + 1)]
    integers = f"<{max(v.count, SLOT)} x i64>"
    declared = [
        "declare i64 @llvm.umin.i64(i64, i64)",
        f"declare {v.vector} @llvm.fmuladd.{v.suffix}({v.vector}, {v.vector}, {v.vector})",
        f"declare void @llvm.masked.store.{v.suffix}.p0({v.vector}, ptr, i32, {v.bools})",
        *dict.fromkeys(f"declare {w.vector} @llvm.masked.load.{w.suffix}.p0(ptr, i32, {w.bools}, {w.vector})" for w in (v, Lanes(v.name, SLOT))),
        f"@lanes = internal constant {integers} <{', '.join(f'i64 {k}' for k in range(max(v.count, SLOT)))}>, align 64",
        f"attributes #0 = {{ {ATTRIBUTES.format(bits=8 * host.vector)} }}",
    ]
    return "\n".join([*declared, _packing(v), _block_packing(height, v), *tiles, out.text()])


def _packing(v: Lanes) -> str:
    """``void @pack(from, bytes an inner step, bytes a lane, inner, lanes, width, to)``: inner rows of ``width``, zeros behind the lanes."""
    out = Writer("define internal void @pack(ptr %x, i64 %xs, i64 %xl, i64 %inner, i64 %lanes, i64 %width, ptr %y) noinline #0")
    near = out.let(f"icmp eq i64 %xl, {v.size}")
    whole = out.let(f"icmp eq i64 {out.let(f'urem i64 %lanes, {v.count}')}, 0")
    kind = out.let(f"select i1 {near}, i32 {out.let(f'select i1 {whole}, i32 2, i32 1')}, i32 0")
    out.do(f"switch i32 {kind}, label %columns [ i32 1, label %rows i32 2, label %vectors ]")
    out.enter("vectors")
    with out.loop("%inner") as k:
        source, target = out.at("%x", out.let(f"mul i64 {k}, %xs")), out.at("%y", out.let(f"mul i64 {out.let(f'mul i64 {k}, %width')}, {v.size}"))
        with out.loop("%lanes", step=v.count) as lane:
            value = out.load(out.let(f"getelementptr {v.name}, ptr {source}, i64 {lane}"), v, v.count)
            out.store(value, out.let(f"getelementptr {v.name}, ptr {target}, i64 {lane}"), v, v.count)
    out.do("br label %rest")
    # The source is read along its lines, whichever way they run.
    out.enter("rows")
    with out.loop("%inner") as k:
        source, target = out.at("%x", out.let(f"mul i64 {k}, %xs")), out.at("%y", out.let(f"mul i64 {out.let(f'mul i64 {k}, %width')}, {v.size}"))
        with out.loop("%lanes") as lane:
            value = out.let(f"load {v.name}, ptr {out.let(f'getelementptr {v.name}, ptr {source}, i64 {lane}')}, align {v.size}")
            out.do(f"store {v.name} {value}, ptr {out.let(f'getelementptr {v.name}, ptr {target}, i64 {lane}')}, align {v.size}")
    out.do("br label %rest")
    out.enter("columns")
    with out.loop("%lanes") as lane:
        source, target = out.at("%x", out.let(f"mul i64 {lane}, %xl")), out.let(f"getelementptr {v.name}, ptr %y, i64 {lane}")
        with out.loop("%inner") as k:
            value = out.let(f"load {v.name}, ptr {out.at(source, out.let(f'mul i64 {k}, %xs'))}, align {v.size}")
            place = out.let(f"getelementptr {v.name}, ptr {target}, i64 {out.let(f'mul i64 {k}, %width')}")
            out.do(f"store {v.name} {value}, ptr {place}, align {v.size}")
    out.do("br label %rest")
    out.enter("rest")
    out.do(f"br i1 {out.let('icmp ult i64 %lanes, %width')}, label %fill, label %end")
    out.enter("fill")
    with out.loop("%inner") as k:
        target = out.let(f"getelementptr {v.name}, ptr %y, i64 {out.let(f'mul i64 {k}, %width')}")
        with out.loop("%width", start="%lanes") as lane:
            out.do(f"store {v.name} {v.number(0.0)}, ptr {out.let(f'getelementptr {v.name}, ptr {target}, i64 {lane}')}, align {v.size}")
    out.do("br label %end")
    out.enter("end")
    return out.text()


def _block_packing(height: int, v: Lanes) -> str:
    """``void @pack_blocks(from, bytes an inner step, inner, lanes, to, bytes a block)``: lanes that are neighbours, in blocks of ``height``."""
    slot = Lanes(v.name, SLOT)
    out = Writer("define internal void @pack_blocks(ptr %x, i64 %xs, i64 %inner, i64 %lanes, ptr %y, i64 %ys) noinline #0")
    blocks = out.let(f"udiv i64 {out.let(f'add i64 %lanes, {height - 1}')}, {height}")
    with out.loop("%inner") as k:
        source, target = out.at("%x", out.let(f"mul i64 {k}, %xs")), out.at("%y", out.let(f"mul i64 {k}, {SLOT * v.size}"))
        with out.loop(blocks) as q:
            lane = out.let(f"mul i64 {q}, {height}")
            count = out.let(f"call i64 @llvm.umin.i64(i64 {out.let(f'sub i64 %lanes, {lane}')}, i64 {height})")
            kept = _first_lanes(out, count, slot)
            start = out.let(f"getelementptr {v.name}, ptr {source}, i64 {lane}")
            value = out.let(f"call {slot.vector} @llvm.masked.load.{slot.suffix}.p0(ptr {start}, i32 {v.size}, {slot.bools} {kept}, {slot.vector} zeroinitializer)")
            out.store(value, out.at(target, out.let(f"mul i64 {q}, %ys")), slot, SLOT)
    return out.text()


def _first_lanes(out: Writer, count: str, v: Lanes) -> str:
    """A mask of the first lanes, of a number that is not known beforehand."""
    integers = f"<{v.count} x i64>"
    limit = out.let(f"insertelement {integers} poison, i64 {count}, i32 0")
    limits = out.let(f"shufflevector {integers} {limit}, {integers} poison, <{v.count} x i32> zeroinitializer")
    lane = out.let(f"load {integers}, ptr @lanes, align 64")
    return out.let(f"icmp slt {integers} {lane}, {limits}")


def _tile(rows: int, part: bool, host: Machine, v: Lanes) -> str:
    """Some rows of a block with one panel: the result where the inner axis begins, and added to it later; of a panel in part the first ``n`` columns."""
    V, width = v.vector, host.vectors
    cells = [(r, c) for r in range(rows) for c in range(width)]
    out = Writer(f"define internal void @tile{rows}_{'part' if part else 'whole'}(ptr %a, i64 %as, i64 %ak, ptr %b, ptr %c, i64 %cs, i64 %k, i64 %n, i1 %begins) noinline #0")
    lefts = [out.at("%a", out.let(f"mul i64 %as, {r}")) for r in range(rows)]
    with out.loop("%k", carried=[(V, "zeroinitializer") for _ in cells]) as k:
        sums = out.carried
        panel = out.at("%b", out.let(f"mul i64 {k}, {width * v.count * v.size}"))
        step = out.let(f"mul i64 {k}, %ak")
        right = [out.load(out.at(panel, c * v.count * v.size), v, v.count) for c in range(width)]
        left = [out.splat(out.let(f"load {v.name}, ptr {out.at(a, step)}, align {v.size}"), v) for a in lefts]
        out.carried = [out.let(f"call {V} @llvm.fmuladd.{v.suffix}({V} {left[r]}, {V} {right[c]}, {V} {s})") for (r, c), s in zip(cells, sums, strict=True)]
        sums = out.carried
    masks = [_first_lanes(out, out.let(f"sub i64 %n, {c * v.count}"), v) for c in range(width)] if part else []
    places = [out.at("%c", out.let(f"mul i64 %cs, {r}"), c * v.count * v.size) for r, c in cells]

    def stored(block: str, values: Callable[[str, str, int], str]) -> None:
        out.enter(block)
        for (_, c), place, s in zip(cells, places, sums, strict=True):
            value = values(place, s, c)
            if part:
                out.do(f"call void @llvm.masked.store.{v.suffix}.p0({V} {value}, ptr {place}, i32 {v.size}, {v.bools} {masks[c]})")
            else:
                out.store(value, place, v, v.count)
        out.do("br label %end")

    def added(place: str, s: str, c: int) -> str:
        masked = f"call {V} @llvm.masked.load.{v.suffix}.p0(ptr {place}, i32 {v.size}, {v.bools} {masks[c]}, {V} zeroinitializer)" if part else ""
        before = out.let(masked) if part else out.load(place, v, v.count)
        return out.let(f"fadd {V} {before}, {s}")

    out.do("br i1 %begins, label %new, label %more")
    stored("new", lambda place, s, c: s)
    stored("more", added)
    out.enter("end")
    return out.text()
