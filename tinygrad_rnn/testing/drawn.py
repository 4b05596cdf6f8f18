"""The picture of a computation whose check failed, with the guilty record marked."""

from __future__ import annotations

from typing import Any

from ..errors import TapeError
from .report import Report


def marked(report: Report, **options: Any) -> Any:
    """The picture of ``tg.graph`` with a frame around the record whose rule is wrong."""
    # Drawing is loaded where somebody looks.
    from ..drawing import graph
    from ..replay.expanding import expanded

    outputs = [y for y in report.outputs or () if y.requires_grad]
    if not outputs:
        raise TapeError(f"graph: the check of {report.name} kept no tape: only a failed check of tensors has one")
    picture = graph(outputs, **{"depth": "tape", "fold": None, **options})
    if report.record is not None:
        opened = expanded(outputs)
        guilty = opened.stands_for.get(report.record, report.record)
        wrong = f"the rule of {report.record.op.name} is wrong"
        shown = [node for node in picture.nodes if node.record is not None and opened.records[node.record] is guilty]
        for node in shown:
            node.mark = "its rule is wrong"
        picture.notes.append(f"framed in vermilion: {wrong}" if shown else f"{wrong}, {report.record.where()}: it is folded away; fold=None shows it")
        picture.arrange()
    return picture
