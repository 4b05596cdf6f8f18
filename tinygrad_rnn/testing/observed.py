"""A run of a function with all values of its tape at hand: rounding bounds, complex steps, and each record by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.state import State, current, enable_grad, installed, plain
from ..core.tape import HOOKS, Record, reachable, sweep
from ..core.tensor import Tensor, is_tensor, wrap
from .derivative import EPS, Array

ANALYTIC = frozenset(
    "add subtract multiply divide negative positive exp exp2 expm1 log log1p log2 log10 sqrt square reciprocal sin cos tan sinh cosh tanh arctan arcsinh "
    "matmul dot inner outer vdot einsum tensordot kron trace diagonal diag tril triu sum mean cumsum cumprod prod reshape ravel transpose swapaxes moveaxis "
    "expand_dims squeeze broadcast_to concatenate stack getitem flip roll tile repeat pad take embedding copy deg2rad rad2deg".split()
)
"""Operations whose forward function, given complex arrays, is the analytic continuation of the real one."""

_TINY = 2.0**-100


class _Opaque(Exception):
    """A value that no observed operation made."""


def _whole(exponent: Any) -> bool:
    return isinstance(exponent, int | float) and float(exponent).is_integer() and abs(exponent) < 100


def _as_it_is(value: Any) -> Any:
    """A tensor with the memory and the place on the tape that it has now: a parameter may be given others."""
    if is_tensor(value):
        return wrap(value._data, value._node)
    return tuple(map(_as_it_is, value)) if isinstance(value, list | tuple) and any(map(is_tensor, value)) else value


@dataclass
class Step:
    """One operation as it ran: the op, its arguments by name, and its result."""

    op: Any
    values: tuple[Any, ...]
    out: Tensor

    @property
    def name(self) -> str:
        """The operation's name."""
        return str(self.op.name if hasattr(self.op, "name") else self.op.__name__)

    @property
    def record(self) -> Record | None:
        return self.out._node

    def largest(self) -> float:
        """The size of the largest finite number among operands and result."""
        flat = [part for value in (*self.values, self.out) for part in (value if isinstance(value, list | tuple) else [value])]
        sizes = [np.abs(part._data) for part in flat if is_tensor(part) and part.dtype.kind == "f"]
        return max((float(np.max(size, initial=0, where=np.isfinite(size))) for size in sizes), default=0.0)


class Observed:
    """One forward run of a function of tensors, every operation of it observed."""

    def __init__(self, run: Callable[[], list[Tensor]], inputs: list[Tensor]) -> None:
        self.steps: list[Step] = []
        self.inputs = inputs
        self.escaped = False
        self.cuts: list[str] = []
        state = plain(current())
        with np.errstate(all="ignore"), installed(enable_grad().derive(state).replace(observers=(*state.observers, self))):
            self.outputs = run()

    def __call__(self, op: Any, values: tuple[Any, ...], out: Tensor) -> None:
        self.steps.append(Step(op, tuple(map(_as_it_is, values)), out))

    def custom(self, op: Any, values: tuple[Any, ...], out: Tensor) -> None:
        """A function with a hand-made gradient ran."""
        self(op, values, out)

    @staticmethod
    def quiet() -> State:
        """The state without observers."""
        return plain(current()).quiet

    def read(self, what: str) -> None:
        """The function looked at a value: it may depend on it in ways that the operations do not show."""
        self.escaped = self.escaped or not what.startswith("detach")
        self.cuts.append(what)

    def records(self) -> list[Step]:
        """The steps that the outputs depend on, in order."""
        tape = set(reachable([y._node for y in self.outputs if y._node is not None]))
        return [step for step in self.steps if step.record in tape]

    def hooked(self) -> Record | None:
        """A record whose gradient a hook may change."""
        return next((r for r in reachable([y._node for y in self.outputs if y._node is not None]) if HOOKS.get(r)), None)

    def rounding(self, v: Array, inside: bool = False) -> float:
        """Linnainmaa's bound on what rounding does to <v, outputs>: eps times the sum over records of |cotangent x value|.

        ``inside`` takes for the value the largest number that the operation met, where its result is smaller.

        S. Linnainmaa, Taylor expansion of the accumulated rounding error, BIT 16 (1976).
        """
        values = {id(step.record): step.out._data if not inside else np.full(step.out.shape, step.largest()) for step in self.steps if step.record is not None}
        total = 0.0

        def observe(record: Record, g: Any) -> None:
            nonlocal total
            value = values.get(id(record))
            if value is not None and np.shape(g) == value.shape:
                with np.errstate(all="ignore"):
                    part = float(np.sum(np.abs(np.asarray(g) * value)))
                total += part if np.isfinite(part) else 0.0

        cuts = np.cumsum([y.size for y in self.outputs])[:-1]
        roots = [(y._node, part.reshape(y.shape).astype(y.dtype)) for y, part in zip(self.outputs, np.split(v, cuts), strict=True) if y._node is not None]
        try:
            sweep(roots, [t._node for t in self.inputs if t._node is not None], retain_graph=True, observe=observe)
        except Exception:
            # A rule that fails is found where it is compared.
            return 0.0
        return EPS * total

    def complex_step(self, us: list[Array]) -> Array | None:
        """The derivatives of the outputs along ``us``, from one run at x + i tiny u; None where an operation is not analytic.

        W. Squire and G. Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40 (1998).
        """
        known = {id(step.out._data) for step in self.steps} | {id(t._data) for t in self.inputs}
        if self.escaped:
            return None
        found: dict[int, Array] = {id(t._data): np.asarray(t._data + 1j * _TINY * u) for t, u in zip(self.inputs, us, strict=True) if np.any(u)}

        def moved(value: Any) -> Any:
            if is_tensor(value):
                if value._node is not None and not value._node.is_leaf and id(value._data) not in known:
                    raise _Opaque
                # A detached tensor shares its array, and moves with it: what is differentiated is what the function does.
                return found.get(id(value._data), value._data)
            if isinstance(value, list | tuple) and any(map(is_tensor, value)):
                return [moved(part) for part in value]
            return value

        with np.errstate(all="ignore"):
            for step in self.steps:
                try:
                    values = [moved(value) for value in step.values]
                except _Opaque:
                    return None
                flat = [part for value in values for part in (value if isinstance(value, list) else [value])]
                if not any(isinstance(part, np.ndarray) and part.dtype.kind == "c" for part in flat):
                    continue
                op = step.op
                if step.name not in ANALYTIC and not (step.name == "power" and _whole(values[1])):
                    return None
                named = dict(zip(op.parameters, values, strict=True))
                try:
                    found[id(step.out._data)] = np.asarray(op.forward(*[named[p] for p in op.positional], **{p: named[p] for p in op.keyword}))
                except (TypeError, ValueError):
                    return None
            if any(y._node is not None and id(y._data) not in known for y in self.outputs):
                return None
            return np.concatenate([np.imag(found[id(y._data)]).ravel() / _TINY if id(y._data) in found else np.zeros(y.size) for y in self.outputs])
