"""A tape as DOT text: a box a record, a frame a time step, shared weights in a legend."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ..core.tape import Record, Tape

_COLOURS = "#E69F00 #56B4E9 #009E73 #F0E442 #0072B2 #D55E00 #CC79A7 #999999".split()


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def dot(tape: Tape) -> str:
    """DOT text for Graphviz: records as boxes, the records of a time step in one frame, weights once, with their uses.

    A weight stands in the legend, and a record that reads it carries its name; edges are the values that flow. The text
    depends on the network alone.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn.drawing import dot
    >>> W = tg.ones((2, 2), requires_grad=True, name="W")
    >>> print(dot(tg.tape(tg.tanh(tg.ones((1, 2)) @ W))).splitlines()[0])
    digraph tape {
    """
    number: dict[Record, int] = {record: k for k, record in enumerate(tape)}
    colour: dict[Record, str] = {leaf: _COLOURS[k % len(_COLOURS)] for k, leaf in enumerate(tape.leaves)}
    title: dict[Record, str] = {leaf: leaf.name or f"leaf {k}" for k, leaf in enumerate(tape.leaves)}
    source: dict[Record, Record] = {}
    aliases: set[Record] = set()
    for record in tape:
        # A weight that is only transposed or sliced on its way is still that weight.
        parents = [p for p in record.parents if p is not None]
        if len(parents) == 1 and record.op.name in ("transpose", "reshape", "getitem") and (parents[0].is_leaf or parents[0] in source):
            source[record] = source.get(parents[0], parents[0])
            aliases.add(record)
    uses: dict[Any, int] = defaultdict(int)
    groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    edges = []
    for record, k in number.items():
        if record in aliases:
            continue
        weights = []
        for parent in record.parents:
            if parent is None:
                continue
            leaf = parent if parent.is_leaf else source.get(parent)
            if leaf is not None:
                weights.append(leaf)
                uses[leaf] += 1
            else:
                edges.append(f"  n{number[parent]} -> n{k}")
        label = record.op.name + ("" if not weights else "\n" + ", ".join(title[w] for w in weights)) + f"\n{'x'.join(map(str, record.shape)) or 'scalar'}"
        style = f', fillcolor="{colour[weights[0]]}55"' if weights else ""
        place = tuple((name, step) for name, step in record.scope)
        last = max((j for j, (_, step) in enumerate(place) if step is not None), default=-1)
        groups[place[: last + 1]].append(f"n{k} [label={_quoted(label)}{style}]")
    lines = ["digraph tape {", '  graph [rankdir=LR, newrank=true, fontname="Helvetica"]', '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="Helvetica", fontsize=10]']
    for j, (place, nodes) in enumerate(groups.items()):
        if not place:
            lines += [f"  {node}" for node in nodes]
            continue
        label = "/".join(name if step is None else f"{name}, t = {step + 1}" for name, step in place)
        lines += [f"  subgraph cluster_{j} {{", f'    label={_quoted(label)}; style="rounded"; color="#888888"', *(f"    {node}" for node in nodes), "  }"]
    lines += edges
    legend = [f"{title[leaf]} {'x'.join(map(str, leaf.shape))}, used {uses[leaf]} times" for leaf in tape.leaves if uses[leaf]]
    lines += ["  subgraph cluster_legend {", '    label="weights"; style="rounded"; color="#888888"']
    lines += [f'    w{j} [label={_quoted(text)}, shape=note, fillcolor="{colour[leaf]}55"]' for j, (text, leaf) in enumerate(zip(legend, [x for x in tape.leaves if uses[x]], strict=True))]
    return "\n".join([*lines, "  }", "}"])
