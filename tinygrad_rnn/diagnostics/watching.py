"""What ``train.fit`` looks at while it trains: whether gradients vanish or explode."""

from __future__ import annotations

import statistics
from typing import Any

from ..core.tape import reachable
from ..core.tensor import Tensor
from ..drawing.naming import number
from ..errors import TinygradError
from .flow import gradient_flow

LARGEST = 1 << 28
"""Bytes: a tape whose steps would take more is not opened."""

JUMP, RECENT, FEWEST = 100.0, 50, 10


class Watch:
    """Adds warnings to a training run's history, each kind once: from the flow through time at steps 1, 10, 100 and so on, and from the norms that clipping measures at every step.

    Where gradients are clipped, an exploding one is taken care of, and not told.
    """

    def __init__(self, history: Any, clip: float | None) -> None:
        self.history, self.clipped = history, clip is not None

    def flow(self, loss: Tensor, step: int) -> None:
        """Look at the flow back through time before a backward pass, where it is this step's turn."""
        if step != 10 ** (len(str(step)) - 1) or loss._node is None or opened_bytes(loss) > LARGEST:
            return
        try:
            found = gradient_flow(loss)
        except TinygradError:
            # A network without time steps, or a tape that cannot be opened: there is nothing to tell.
            return
        for verdict, text in found.advice.items():
            if not (verdict == "exploding" and self.clipped):
                self._tell(" vanishes: " if verdict == "vanishing" else " explodes: ", step, text)

    def norm(self, norm: float, step: int) -> None:
        """Look at the norm of all gradients of a step."""
        if self.clipped:
            return
        recent = [row["grad_norm"] for row in self.history.rows[-RECENT:] if row.get("grad_norm") is not None]
        usual = statistics.median(recent) if len(recent) >= FEWEST else 0.0
        if usual and norm > JUMP * usual:
            text = f"the gradient exploded: its norm is {number(norm)}, where {number(usual)} is usual; bound it with fit(clip={number(usual)}), or lower the learning rate"
            self._tell(" exploded: ", step, text)

    def _tell(self, mark: str, step: int, text: str) -> None:
        if not any(mark in said for said in self.history.warnings):
            self.history.warnings.append(f"step {step}: {text}")


def opened_bytes(loss: Tensor) -> int:
    """About how much memory the values of all steps take when the replayed unrolls of a tape are opened."""
    total = 0
    for record in reachable([loss._node] if loss._node is not None else []):
        expansion: Any = None if record.is_leaf else getattr(record.op, "expansion", None)
        if expansion is not None:
            total += expansion.steps * sum(expansion.program.arrays[i.result].nbytes for i in expansion.program.instructions)
    return total
