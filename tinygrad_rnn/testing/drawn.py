"""The graph of a computation whose check failed, with the guilty record marked."""

from __future__ import annotations

import json
from typing import Any

from ..core.tape import Record
from ..core.tensor import tape
from ..errors import TapeError
from .report import Report

RED = "#D55E00"


def marked(report: Report, **options: Any) -> Any:
    """The picture of ``tg.graph``, the guilty record's label saying so; where that is not there, DOT text in which it is red."""
    import tinygrad_rnn

    outputs = [y for y in report.outputs or () if y.requires_grad]
    if not outputs:
        raise TapeError(f"graph: the check of {report.name} kept no tape: only a failed check of tensors has one")
    graph: Any = getattr(tinygrad_rnn, "graph", None)
    if graph is None:
        return dot(outputs, report.record)
    picture = graph(outputs if len(outputs) > 1 else outputs[0], **{"depth": "tape", "fold": None, **options})
    place = next((k for k, record in enumerate(tape(*outputs)) if record is report.record), None)
    for node in picture.nodes:
        if place is not None and node.record == place:
            node.label = f"{node.label} (wrong rule)"
    return picture


def dot(outputs: list[Any], guilty: Record | None) -> str:
    """DOT text of the tape of some outputs, one record red."""
    found = tape(*outputs)
    numbers: dict[Record, str] = {record: f"n{k}" for k, record in enumerate([*found.leaves, *found])}
    lines = ["digraph tape {", "  graph [rankdir=LR]", '  node [shape=box, style="rounded,filled", fillcolor=white]']
    for record, name in numbers.items():
        label = f"{record.name or 'leaf'}" if record.is_leaf else record.op.name
        style = f', fillcolor="{RED}", fontcolor=white' if record is guilty else ""
        text = json.dumps(f"{label}\n{'x'.join(map(str, record.shape)) or 'scalar'}" + ("\nwrong rule" if record is guilty else ""))
        lines.append(f"  {name} [label={text}{style}]")
        lines += [f"  {numbers[parent]} -> {name}" for parent in record.parents if parent is not None]
    return "\n".join([*lines, "}"])
