"""How many floating-point operations a call takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_FREE = set(
    "reshape transpose broadcast_to concatenate stack getitem flip roll tile repeat pad take take_along_axis embedding diagonal astype copy detach where "
    "squeeze expand_dims equal not_equal less less_equal greater greater_equal one_hot scatter".split()
)


def operations(op: Any, values: tuple[Any, ...], out: Any) -> int:
    """Floating-point operations of one call: a multiplication and its addition count as two, moving data as none."""
    name = op.name
    if name in _FREE:
        return 0
    if name == "matmul":
        return 2 * int(out.size) * int(np.shape(values[0])[-1])
    if name == "conv2d":
        return 2 * int(out.size) * int(math.prod(np.shape(values[1])[1:]))
    if name == "einsum":
        lengths: dict[str, int] = {}
        text = next(v for v in values if isinstance(v, str))
        operands = next(v for v in values if isinstance(v, list | tuple))
        for term, operand in zip(text.split("->")[0].split(","), operands, strict=True):
            lengths.update(zip(term, np.shape(operand), strict=True))
        return 2 * int(math.prod(lengths.values()))
    return max([int(np.size(out)), *(int(v.size) for v in values if hasattr(v, "dtype") and v.dtype.kind == "f")])
