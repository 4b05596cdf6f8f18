"""Random programs over the engine's operations, built from choices that Hypothesis or a generator makes; they print as code."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Array = np.ndarray

GRID = 64
"""Values are multiples of 1 / GRID: exact, and short to read."""
MOST, LARGEST, SMALLEST = 60, 1e3, 1e-3

SMOOTH = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / (2 + {1} * {1})",
    "power": "{0} ** 3",
    "negative": "-{0}",
    "tanh": "tg.tanh({0})",
    "sigmoid": "tg.sigmoid({0})",
    "softplus": "tg.softplus({0})",
    "silu": "tg.silu({0})",
    "gelu": "tg.gelu({0})",
    "sin": "tg.sin({0})",
    "cos": "tg.cos({0})",
    "exp": "tg.exp(-{0} * {0})",
    "log": "tg.log(1 + {0} * {0})",
    "sqrt": "tg.sqrt(1 + {0} * {0})",
    "reciprocal": "tg.reciprocal(1.5 + {0} * {0})",
    "arctan": "tg.arctan({0})",
    "arctan2": "tg.arctan2({0}, 1 + {1} * {1})",
    "hypot": "tg.hypot({0}, 1 + {1} * {1})",
    "logaddexp": "tg.logaddexp({0}, {1})",
    "matmul": "{0} @ tg.swapaxes({1}, 0, -1)",
    "outer": "tg.outer({0}, {1})",
    "einsum": 'tg.einsum("...i,...i->...", {0}, {1})',
    "sum": "tg.sum({0}, axis={axis}, keepdims=True)",
    "mean": "tg.mean({0}, axis={axis})",
    "var": "tg.var({0}, axis={axis})",
    "norm": "tg.sqrt(1 + tg.sum({0} * {0}))",
    "prod": "tg.prod({0}, axis={axis})",
    "logsumexp": "tg.logsumexp({0}, axis={axis})",
    "softmax": "tg.softmax({0}, {axis})",
    "log_softmax": "tg.log_softmax({0}, {axis})",
    "cumsum": "tg.cumsum({0}, axis={axis})",
    "cumprod": "tg.cumprod({0}, axis={axis})",
    "concatenate": "tg.concatenate([{0}, {1}, {0}], axis={axis})",
    "stack": "tg.stack([{0}, {0} * 0.5], axis={axis})",
    "transpose": "tg.transpose({0})",
    "reshape": "tg.reshape({0}, -1)",
    "flip": "{0}[..., ::-1]",
    "row": "{0}[-1]",
    "rows": "{0}[[0, -1, 0]]",
    "roll": "tg.roll({0}, 1, {axis})",
    "repeat": "tg.repeat({0}, 2, {axis})",
    "pad": "tg.pad({0}, 1)",
    "tile": "tg.tile({0}, 2)",
    "broadcast": "tg.broadcast_to({0}, (2, *{0}.shape))",
}
KINKED = {
    "relu": "tg.relu({0})",
    "absolute": "abs({0})",
    "leaky_relu": "tg.leaky_relu({0})",
    "elu": "tg.elu({0})",
    "maximum": "tg.maximum({0}, {1})",
    "minimum": "tg.minimum({0}, {1})",
    "clip": "tg.clip({0}, -0.71, 0.83)",
    "where": "tg.where({0} > {1}, {0}, {1} * 0.5)",
    "max": "tg.max({0}, axis={axis})",
    "min": "tg.min({0}, axis={axis})",
    "sort": "tg.sort({0}, axis={axis})",
    "median": "tg.median({0}, axis={axis})",
}
SHAPES: tuple[tuple[int, ...], ...] = ((), (3,), (2, 3), (3, 3), (2, 1), (1, 3))


def as_code(value: Any, most: int | None = None) -> str:
    """A value as code that makes it again, to the last bit; an array of more than ``most`` elements as what it is."""
    if isinstance(value, tuple | list):
        inner = ", ".join(as_code(part, most) for part in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    array = getattr(value, "_data", value)
    if not isinstance(array, np.ndarray | np.generic):
        return repr(value)
    if most is not None and array.size > most:
        return f"<{array.dtype} of shape {array.shape}>"
    numbers = repr(array.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    dtype = "" if array.dtype in (np.float64, np.bool_, np.int64) and array.size else f", dtype={str(array.dtype)!r}"
    shape = "" if array.size or array.shape == (0,) else f".reshape({array.shape})"
    made = f"np.array({numbers}{dtype}){shape}"
    return made if array is value else f"tg.tensor({made}{', requires_grad=True' if value.requires_grad else ''})"


class Choices(Protocol):
    """Where the choices come from."""

    def integer(self, low: int, high: int) -> int:
        """One of low ... high."""

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Array:
        """Several."""


class Seeded:
    """Choices of a NumPy generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Array:
        return self.rng.integers(low, high + 1, shape)


class Program:
    """A function of tensors made of a few operations, and inputs for it; ``print(program)`` is code that runs it.

    ``program(*inputs)`` gives its outputs as a tuple: its last value, and every other one that nothing uses.
    """

    def __init__(self, inputs: Sequence[Array], lines: Sequence[str], outputs: Sequence[str], operations: Sequence[str] = ()) -> None:
        self.inputs = tuple(inputs)
        self.operations = tuple(operations)
        self.names = [f"x{k}" for k in range(len(self.inputs))]
        body = "\n".join(f"    {line}" for line in (*lines, f"return {', '.join(outputs)}{',' if len(outputs) == 1 else ''}"))
        self.source = f"def f({', '.join(self.names)}):\n{body}\n"
        self.__name__ = "program"
        namespace = _namespace()
        exec(compile(self.source, "<program>", "exec"), namespace)
        self.function: Any = namespace["f"]
        self.__signature__ = inspect.signature(self.function)

    def __call__(self, *inputs: Any) -> Any:
        return self.function(*inputs)

    def __repr__(self) -> str:
        values = "".join(
            f"{name} = np.array({np.array2string(x, separator=', ', floatmode='unique').replace(chr(10), ' ')})\n" for name, x in zip(self.names, self.inputs, strict=True)
        )
        head = "import numpy as np\nimport tinygrad_rnn as tg\n\n"
        return f"{head}{self.source}\n{values}tg.testing.check_gradients(f, {', '.join(self.names)})"


def _namespace() -> dict[str, Any]:
    import tinygrad_rnn

    return {"tg": tinygrad_rnn, "np": np}


def build(choices: Choices, *, length: int = 8, kinks: bool = True) -> Program:
    """A program of up to ``length`` operations; what would leave a sensible range of sizes and values is left out."""
    inputs = []
    for k in range(choices.integer(1, 3)):
        shape = SHAPES[choices.integer(0, len(SHAPES) - 1)]
        inputs.append(distinct(choices, shape, k))
    values = {f"x{k}": x for k, x in enumerate(inputs)}
    table = SMOOTH | KINKED if kinks else SMOOTH
    names, lines, operations = list(table), list[str](), list[str]()
    used = set[str]()
    namespace = _namespace()
    for _ in range(choices.integer(1, length)):
        operation = names[choices.integer(0, len(names) - 1)]
        # The newest values more often, so that programs grow deep as well as wide.
        known = list(values)
        operands = [known[-1 - min(choices.integer(0, len(known) - 1), choices.integer(0, len(known) - 1))] for _ in range(2)]
        axis = choices.integer(0, max(np.ndim(values[operands[0]]) - 1, 0))
        line = table[operation].format(*operands, axis=axis)
        value = _value(line, namespace | values)
        if value is None:
            continue
        name = f"v{len(lines)}"
        lines.append(f"{name} = {line}")
        operations.append(operation)
        values[name] = value
        used |= {operand for k, operand in enumerate(operands) if f"{{{k}}}" in table[operation]}
    free = [name for name in values if name not in used and name.startswith("v")] or [next(iter(values))]
    return Program(inputs, lines, free, operations)


def _value(line: str, namespace: dict[str, Any]) -> Array | None:
    with np.errstate(all="ignore"):
        try:
            value = np.asarray(eval(line, namespace))
        except (ValueError, IndexError, TypeError, ArithmeticError):
            return None
    if value.ndim > 4 or not 0 < value.size <= MOST or value.dtype != np.float64 or not np.isfinite(value).all():
        return None
    return value if SMALLEST < np.abs(value).max() < LARGEST else None


def distinct(choices: Choices, shape: tuple[int, ...], salt: int = 0) -> Array:
    """Values on the grid, each moved by a small part of its own, so that no two are equal and none is zero."""
    size = int(np.prod(shape))
    moved = (np.arange(size) + 1 + 61 * salt) * 2.0**-15
    return np.asarray((np.asarray(choices.integers((size,), -2 * GRID, 2 * GRID)) / GRID + moved).reshape(shape))


def orthogonal(choices: Choices, shape: tuple[int, ...]) -> Array:
    """Matrices with orthonormal rows or columns: products of a permutation, signs and rotations by one angle."""
    n, m = shape[-2:]
    k = max(n, m)
    q = np.eye(k)[:, np.argsort(np.asarray(choices.integers((k,), 0, 4 * k)), kind="stable")]
    q = q * (1 - 2 * np.asarray(choices.integers((k,), 0, 1)))
    angle = choices.integer(0, 2 * GRID) / GRID
    for i in range(k - 1):
        c, s = np.cos(angle), np.sin(angle)
        q[:, [i, i + 1]] = q[:, [i, i + 1]] @ np.array([[c, -s], [s, c]])
    return np.array(np.broadcast_to(q[:n, :m], shape))
