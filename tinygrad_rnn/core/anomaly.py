"""Finding where a NaN or an infinity first appears."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import GradientError
from .state import Mode, State, current, scope_text, user_line
from .tensor import is_tensor


class detect_anomaly(Mode):
    """Raise where a NaN or an infinity first appears, forward or backward; also a decorator.

    The error names the operation, its scope and the line of the user's code. It costs time: for debugging.

    >>> import tinygrad_rnn as tg, numpy as np
    >>> x = tg.tensor([0.0], requires_grad=True)
    >>> try:
    ...     with np.errstate(divide="ignore"), tg.detect_anomaly():
    ...         tg.log(x)
    ... except tg.errors.GradientError as error:
    ...     print(str(error).split(", recorded")[0])
    forward of log: the result has 1 of 1 values not finite, though its operands are finite
    """

    def derive(self, state: State) -> State:
        return state if _observe in state.observers else state.replace(observers=(*state.observers, _observe))


def not_finite(value: Any) -> int:
    data = value._data if is_tensor(value) else value
    if isinstance(data, list | tuple):
        return sum(map(not_finite, data))
    if isinstance(data, float):
        return int(not np.isfinite(data))
    return int(np.size(data) - np.count_nonzero(np.isfinite(data))) if isinstance(data, np.ndarray | np.generic) and data.dtype.kind == "f" else 0


def _inspect(record: Any, g: Any, gradient: Any) -> None:
    gradient = getattr(gradient, "values", gradient)
    if not_finite(gradient) and not not_finite(g):
        raise GradientError(f"the gradient has {not_finite(gradient)} of {np.size(getattr(gradient, '_data', gradient))} values not finite, though its cotangent is finite")


def _observe(op: Any, values: tuple[Any, ...], out: Any) -> None:
    line = user_line()
    if out._node is not None:
        out._node.source = line
    bad = not_finite(out)
    if bad and not any(map(not_finite, values)):
        scope = scope_text(current().scope)
        raise GradientError(
            f"forward of {op.name}{f' in scope {scope}' if scope else ''}: the result has {bad} of {out.size} values not finite, "
            f"though its operands are finite, recorded at {line}"
        )


def note_line(op: Any, values: tuple[Any, ...], out: Any) -> None:
    """An observer that notes for each record where the user's code called the operation, as ``file.py:12``."""
    if out._node is not None and not out._node.is_leaf:
        out._node.source = os.path.basename(user_line())


_observe.backward = _inspect  # type: ignore[attr-defined]
