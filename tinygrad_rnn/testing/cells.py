"""Random recurrent cells with shared weights, that print as code."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.tensor import tensor
from .programs import GRID, Array, Choices, distinct, orthogonal

_NONLINEAR = ("tg.tanh({0})", "tg.sigmoid({0})", "tg.sin({0})", "tg.softplus({0}) - 1", "tg.relu({0} + 0.3)")
_MIXED = ("{0} * {1}", "{0} + 0.5 * {1}", "{0} - {1}", "{0} * tg.sigmoid({1})", "tg.maximum({0}, {1})")
_AGAIN = ("{0} @ U", "tg.tanh({0}) @ U + b", "{0} * b")


class Cell:
    """A step ``cell(x, h)`` on (batch, input_size) and (batch, hidden_size) that gives the next h; U, W and b are its weights."""

    def __init__(self, lines: list[str], weights: dict[str, Array]) -> None:
        import tinygrad_rnn

        self.weights = {name: tensor(value, requires_grad=True, name=name) for name, value in weights.items()}
        self.input_size, self.hidden_size = weights["W"].shape
        body = "\n".join(f"    {line}" for line in lines)
        self.source = f"def cell(x, h):\n{body}\n"
        namespace: dict[str, Any] = {"tg": tinygrad_rnn, "np": np, **self.weights}
        exec(compile(self.source, "<cell>", "exec"), namespace)
        self.function: Any = namespace["cell"]

    def __call__(self, x: Any, h: Any) -> Any:
        return self.function(x, h)

    def __repr__(self) -> str:
        lines = [
            f"{n} = tg.tensor(np.array({np.array2string(w._data, separator=', ', floatmode='unique').replace(chr(10), ' ')}), requires_grad=True)" for n, w in self.weights.items()
        ]
        return "\n".join(["import numpy as np", "import tinygrad_rnn as tg", "", *lines, "", self.source])


def build(choices: Choices, input_size: int, hidden_size: int, *, length: int = 5) -> Cell:
    """A cell of a few operations that ends in a bounded one."""
    lines, names = ["a = x @ W + h @ U + b"], ["h", "a"]
    for k in range(choices.integer(0, length)):
        table = (_NONLINEAR, _MIXED, _AGAIN)[choices.integer(0, 2)]
        first, second = (names[-1 - min(choices.integer(0, len(names) - 1), choices.integer(0, len(names) - 1))] for _ in range(2))
        lines.append(f"v{k} = {table[choices.integer(0, len(table) - 1)].format(first, second)}")
        names.append(f"v{k}")
    lines.append(f"return tg.tanh({names[-1]})")
    weights = {
        "W": np.asarray(choices.integers((input_size, hidden_size), -GRID, GRID)) / GRID,
        "U": orthogonal(choices, (hidden_size, hidden_size)),
        "b": distinct(choices, (hidden_size,)) / 4,
    }
    return Cell(lines, weights)
