"""What is checked, in the form that the measurement needs: a function of float64 arrays and its pullback."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..core.state import enable_grad, no_grad
from ..core.tensor import Tensor, is_tensor, wrap
from ..core.transforms import grad
from ..errors import DtypeError, TinygradError
from ..replay import tree
from .derivative import EPS, Array
from .observed import Observed

Pullback = Callable[[Array], list[Array]]
F32 = np.dtype(np.float32)
_MOST = 400


def is_floating(leaf: Any) -> bool:
    """Whether a leaf of the arguments is differentiated."""
    if isinstance(leaf, bool | np.bool_):
        return False
    return isinstance(leaf, float) or (hasattr(leaf, "dtype") and leaf.dtype.kind == "f")


class Subject:
    """A function at a point: ``value(xs)`` is its flat output, ``linearise(xs)`` that and a pullback of flat cotangents.

    ``xs`` are the floating leaves of the arguments, in float64 unless the function computes in float32 alone; then
    ``eps`` is float32's.
    """

    def __init__(self, name: str, names: Sequence[str], xs: Sequence[Array]) -> None:
        self.name = name
        self.names = list(names)
        self.xs = [np.array(x) for x in xs]
        self.eps = EPS
        self.evaluations = self.pullbacks = self.size = 0
        self.returned = "nothing"
        self.found = False
        self.held: bool | None = None

    def _value(self, xs: list[Array]) -> Array:
        raise NotImplementedError

    def _linearise(self, xs: list[Array]) -> tuple[Array, Pullback]:
        raise NotImplementedError

    def value(self, xs: list[Array]) -> Array:
        self.evaluations += 1
        return self._value(xs)

    def near(self, xs: list[Array]) -> Array:
        """The value at another point, NaN where the function refuses it."""
        try:
            return self.value(xs)
        except (ArithmeticError, ValueError):
            return np.full(self.size, np.nan)

    def linearise(self, xs: list[Array]) -> tuple[Array, Pullback]:
        self.evaluations += 1
        y, pullback = self._linearise(xs)
        self.size = y.size

        def counted(v: Array) -> list[Array]:
            self.pullbacks += 1
            return pullback(v)

        return y, counted

    def pushforward(self, us: list[Array]) -> Array | None:
        """The derivative along ``us`` by forward mode, where there is one."""
        return None

    def rounding(self, v: Array) -> float:
        """What the rounding of inner values can change <v, value> by, where that is known."""
        return 0.0

    def hides_changes(self, us: list[Array], v: Array, claimed: float) -> bool:
        """Whether <v, value>, which does not change along ``us``, may be a rounded one that does, by about ``claimed``."""
        return False

    def rules_hold(self) -> bool:
        """Whether it is known of every operation inside, of several, that its own rule is right here."""
        return False

    def branches(self) -> bool:
        """Whether what is done may depend on values, so that the function may jump."""
        return True

    def analytic(self, us: list[Array], v: Array) -> tuple[float, float] | None:
        """The derivative of <v, value> along ``us`` by a complex step and its error, where every operation is analytic."""
        return None


class Arguments:
    """The arguments of a call: the floating leaves, and how to put others in their places."""

    def __init__(self, args: Sequence[Any], names: Sequence[str]) -> None:
        self.args = tuple(args)
        self.given = list(names)
        self.leaves: list[Any] = []
        self.names: list[str] = []
        for name, arg in zip(names, self.args, strict=True):
            odd = next((leaf for leaf in tree.leaves(arg) if isinstance(leaf, complex) or getattr(getattr(leaf, "dtype", None), "kind", "") == "c"), None)
            if odd is not None:
                raise DtypeError(f"{name} is complex: derivatives are measured along the real line; give real and imaginary part apart")
            found = [leaf for leaf in tree.leaves(arg) if is_floating(leaf)]
            self.leaves += found
            self.names += [name] * len(found) if not isinstance(arg, tuple | list) else [f"{name}[{k}]" for k in range(len(found))]
        self.arrays = [np.array(leaf._data if is_tensor(leaf) else leaf) for leaf in self.leaves]

    @property
    def single(self) -> bool:
        """Whether any argument is float32, and none float64: the function is meant for float32."""
        return F32 in {a.dtype for a, leaf in zip(self.arrays, self.leaves, strict=True) if hasattr(leaf, "dtype")}

    def put(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments with these in place of the floating leaves."""
        rest: Iterator[Any] = iter(values)
        return tuple(_replaced(arg, rest) for arg in self.args)


def _replaced(arg: Any, values: Iterator[Any]) -> Any:
    if isinstance(arg, tuple | list):
        return type(arg)(_replaced(part, values) for part in arg) if not hasattr(arg, "_fields") else type(arg)(*[_replaced(part, values) for part in arg])
    return next(values) if arg is not None and is_floating(arg) else arg


def argument_names(f: Callable[..., Any], count: int) -> list[str]:
    """The names of a function's first parameters, or their numbers."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [named[k] if k < len(named) else f"argument {k}" for k in range(count)]


def name_of(f: Any) -> str:
    name = getattr(f, "__name__", None) or type(f).__name__
    return "the function" if name == "<lambda>" else str(name)


def described(value: Any) -> str:
    """What a function returned, in a word."""
    return f"a {type(value).__name__}" + (f" of dtype {value.dtype}" if hasattr(value, "dtype") else "") if value is not None else "None"


def flat(outputs: list[Any]) -> Array:
    """Outputs as one float64 vector."""
    parts = [np.asarray(y._data if is_tensor(y) else y).ravel() for y in outputs]
    return np.concatenate([p.astype(np.float64) for p in parts]) if parts else np.zeros(0)


class Differentiable(Subject):
    """A function of tensors, differentiated by the engine."""

    def __init__(self, f: Callable[..., Any], args: Sequence[Any], name: str | None = None, names: Sequence[str] | None = None) -> None:
        self.f = f
        self.arguments = Arguments(args, names or argument_names(f, len(args)))
        super().__init__(name or name_of(f), self.arguments.names, [a.astype(np.float64) for a in self.arguments.arrays])
        self.dtype: Any = np.float64
        try:
            with np.errstate(all="ignore"):
                outputs = self.outputs(self.tensors(self.xs), enable_grad())
        except DtypeError:
            if not self.arguments.single:
                raise
            self._use_float32()
            outputs = self.outputs(self.tensors(self.xs), enable_grad())
        if any(y.dtype == F32 for y in outputs):
            self.eps = float(np.finfo(np.float32).eps)
        self.size = sum(y.size for y in outputs)

    def _use_float32(self) -> None:
        """The function holds float32 tensors of its own, and takes no others."""
        self.dtype, self.eps = np.float32, float(np.finfo(np.float32).eps)

    def tensors(self, xs: Sequence[Array], requires_grad: bool = True) -> list[Tensor]:
        made = [wrap(np.array(x, self.dtype)) for x in xs]
        for t, name in zip(made, self.names, strict=True):
            t.name = name
        return [t.requires_grad_() for t in made] if requires_grad else made

    def outputs(self, tensors: Sequence[Tensor], mode: Any) -> list[Tensor]:
        """The floating outputs for these in place of the arguments."""
        with mode:
            returned = self.call(*self.arguments.put(tensors))
        self.returned = described(returned)
        found = [y if is_tensor(y) else wrap(np.asarray(y)) for y in tree.leaves(returned) if is_tensor(y) or isinstance(y, np.ndarray | np.generic | float)]
        found = [y for y in found if y.dtype.kind == "f"]
        self.found = bool(found)
        return found

    def in_float32(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The floating outputs for float32 tensors."""
        return self.outputs(tensors, enable_grad())

    def call(self, *args: Any) -> Any:
        return self.f(*args)

    def _value(self, xs: list[Array]) -> Array:
        return flat(self.outputs(self.tensors(xs, False), no_grad()))

    def observed(self, xs: list[Array]) -> Observed:
        """A run with all values of the tape at hand."""
        tensors = self.tensors(xs)
        return Observed(lambda: self.outputs(tensors, enable_grad()), tensors)

    def rounding(self, v: Array) -> float:
        return self.observed(self.xs).rounding(v) * self.eps / EPS

    def hides_changes(self, us: list[Array], v: Array, claimed: float) -> bool:
        """An operation may round at the size of its operands, of which its result shows nothing where they cancel in it."""
        return abs(claimed) <= self.observed(self.xs).rounding(v, inside=True) * self.eps / EPS

    def rules_hold(self) -> bool:
        if self.held is None:
            # A record's rule is looked at as a subject is.
            from .records import wrong_rule

            observed = self.observed(self.xs)
            records = observed.records()
            sound = 1 < len(records) <= _MOST and not observed.cuts and observed.hooked() is None
            self.held = sound and all(wrong_rule(step) is None for step in records)
        return self.held

    def branches(self) -> bool:
        return self.observed(self.xs).escaped

    def analytic(self, us: list[Array], v: Array) -> tuple[float, float] | None:
        if self.eps > EPS:
            return None
        values = []
        for xs in (self.xs, [x * (1 + EPS) for x in self.xs]):
            moved = self.observed(xs).complex_step(us)
            if moved is None:
                return None
            values.append(float(np.sum((v * moved)[v != 0])))
        return values[0], abs(values[0] - values[1]) + 16 * EPS * abs(values[0])

    def pull(self, outputs: list[Tensor], tensors: list[Tensor], v: Array, create_graph: bool = False) -> list[Tensor | None]:
        cuts = np.cumsum([y.size for y in outputs])[:-1]
        pairs = [(y, part.reshape(y.shape).astype(y.dtype)) for y, part in zip(outputs, np.split(v, cuts), strict=True) if y.requires_grad]
        if not pairs:
            return [None] * len(tensors)
        ys, vs = zip(*pairs, strict=True)
        return list(grad(list(ys), tensors, list(vs), retain_graph=True, create_graph=create_graph, allow_unused=True))

    def _linearise(self, xs: list[Array]) -> tuple[Array, Pullback]:
        tensors = self.tensors(xs)
        outputs = self.outputs(tensors, enable_grad())
        return flat(outputs), lambda v: [np.zeros(t.shape) if g is None else np.array(g._data, np.float64) for t, g in zip(tensors, self.pull(outputs, tensors, v), strict=True)]

    def pushforward(self, us: list[Array]) -> Array | None:
        """By two reverse sweeps: the pullback of a cotangent, differentiated for that cotangent."""
        tensors = self.tensors(self.xs)
        outputs = [y for y in self.outputs(tensors, enable_grad())]
        live = [y for y in outputs if y.requires_grad]
        if not live:
            return np.zeros(self.size)
        vs = [wrap(np.zeros(y.shape, y.dtype)).requires_grad_() for y in live]
        pulled = grad(live, tensors, list(vs), create_graph=True, allow_unused=True)
        pairs = [(g, u.reshape(g.shape).astype(g.dtype)) for g, u in zip(pulled, us, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            return np.zeros(self.size)
        gs, tangents = zip(*pairs, strict=True)
        pushed = iter(grad(list(gs), vs, list(tangents), allow_unused=True))
        parts = [next(pushed) if y.requires_grad else None for y in outputs]
        return flat([np.zeros(y.shape) if p is None else p for y, p in zip(outputs, parts, strict=True)])


class Gradient(Differentiable):
    """The pullback of a function for one cotangent, as a function of the same arguments: what order 2 differentiates."""

    def rules_hold(self) -> bool:
        return False

    def __init__(self, inner: Differentiable, v: Array) -> None:
        Subject.__init__(self, f"the gradient of {inner.name}", inner.names, inner.xs)
        self.inner, self.v, self.eps, self.dtype, self.arguments = inner, v, inner.eps, inner.dtype, inner.arguments

    def outputs(self, tensors: Sequence[Tensor], mode: Any) -> list[Tensor]:
        made = list(tensors)
        with enable_grad():
            tracked = [t if t.requires_grad else wrap(t._data).requires_grad_() for t in made]
            gs = self.inner.pull(self.inner.outputs(tracked, enable_grad()), tracked, self.v, create_graph=isinstance(mode, enable_grad))
        return [wrap(np.zeros(t.shape, t.dtype)) if g is None else g for g, t in zip(gs, tracked, strict=True)]


class Modular(Differentiable):
    """A module as a function of its parameters and its floating arguments: a copy of it, in float64."""

    def __init__(self, module: Any, args: Sequence[Any]) -> None:
        self.module = copy.deepcopy(module)
        trained = [(n, p) for n, p in self.module.named_parameters() if p.requires_grad]
        given = argument_names(module.forward, len(args))
        self.parameters = [p for _, p in trained]
        values = [wrap(p._data) for p in self.parameters]
        try:
            self.module.to(np.float64)
        except TinygradError:
            self.module = copy.deepcopy(module)
        super().__init__(self._run, [*values, *args], type(module).__name__, [*[n for n, _ in trained], *given])

    def _use_float32(self) -> None:
        self.module.to(np.float32)
        super()._use_float32()

    def in_float32(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self.module.to(np.float32)
        try:
            return super().in_float32(tensors)
        finally:
            self.module.to(np.float64)

    def _run(self, *args: Any) -> Any:
        weights, rest = args[: len(self.parameters)], args[len(self.parameters) :]
        kept = [(p._data, p._node) for p in self.parameters]
        try:
            for p, w in zip(self.parameters, weights, strict=True):
                p._data, p._node = w._data, w._node
            return self.module(*rest)
        finally:
            for p, (data, node) in zip(self.parameters, kept, strict=True):
                p._data, p._node = data, node


class Given(Subject):
    """A function of ndarrays and a gradient that somebody wrote for it."""

    def __init__(self, f: Callable[..., Any], vjp: Callable[[tuple[Any, ...], Any], Any], args: Sequence[Any]) -> None:
        self.f, self.vjp = f, vjp
        self.arguments = Arguments(args, argument_names(f, len(args)))
        super().__init__(name_of(f), self.arguments.names, [a.astype(np.float64) for a in self.arguments.arrays])
        self.dtype: Any = np.float64
        with np.errstate(all="ignore"):
            returned = self._call(self.xs)
        self.returned = described(returned)
        outputs = list(tree.leaves(returned))
        if not outputs or any(np.asarray(y).dtype.kind not in "fiub" for y in outputs):
            raise DtypeError(f"check_vjp: {self.name} returned {self.returned}, expected a floating array or a tuple of them")
        self.found = True
        self.output = np.asarray(outputs[0])
        self.nested = len(outputs) != 1
        self.shapes = [np.shape(y) for y in outputs]
        self.dtypes = [np.asarray(y).dtype for y in outputs]
        self.size = sum(int(np.prod(s)) for s in self.shapes)
        if F32 in self.dtypes:
            self.eps = float(np.finfo(np.float32).eps)

    def _call(self, xs: list[Array]) -> Any:
        return self.f(*self.arguments.put([np.array(x, self.dtype) for x in xs]))

    def _value(self, xs: list[Array]) -> Array:
        return flat(list(tree.leaves(self._call(xs))))

    def hides_changes(self, us: list[Array], v: Array, claimed: float) -> bool:
        """Seen in the extended precision of ``longdouble``, where the function and the machine have it."""
        ends = [[x + t * u for x, u in zip(self.xs, us, strict=True)] for t in (0.25, -0.25)]
        if np.any(((self.near(ends[0]) - self.near(ends[1])) * v)[v != 0]):
            return False
        moved = []
        for t in (0.25, -0.25):
            try:
                y = self.f(*self.arguments.put([x.astype(np.longdouble) + t * u for x, u in zip(self.xs, us, strict=True)]))
            except (TypeError, ValueError, ArithmeticError):
                return False
            parts = [np.asarray(part, np.longdouble).ravel() for part in tree.leaves(y)]
            moved.append(np.concatenate(parts))
        return bool(np.any(((moved[0] - moved[1]) * v)[v != 0]))

    def cotangent(self, v: Array) -> Any:
        """The flat cotangent in the form of the output."""
        cuts = np.cumsum([int(np.prod(s)) for s in self.shapes])[:-1]
        parts = [np.array(p.reshape(s).astype(d)) for p, s, d in zip(np.split(v, cuts), self.shapes, self.dtypes, strict=True)]
        return tuple(parts) if self.nested else parts[0]

    def gradients(self, returned: Any) -> list[Any]:
        """What the given vjp returned, one for each floating leaf; None is zero."""
        count = len(self.arguments.args)
        parts = list(returned) if isinstance(returned, tuple | list) and not (count == 1 and isinstance(self.arguments.args[0], tuple | list)) else [returned]
        if len(parts) != count:
            if len(parts) == len(self.xs):
                return parts
            raise DtypeError(f"vjp of {self.name} returned {len(parts)} gradients, expected {count}, one an argument")
        found: list[Any] = []
        for arg, part in zip(self.arguments.args, parts, strict=True):
            floating = sum(is_floating(leaf) for leaf in tree.leaves(arg))
            if not isinstance(arg, tuple | list):
                found += [part] * floating
            else:
                found += [None] * floating if part is None else list(tree.leaves(part))
        return found

    def _linearise(self, xs: list[Array]) -> tuple[Array, Pullback]:
        args = self.arguments.put([np.array(x, self.dtype) for x in xs])

        def pullback(v: Array) -> list[Array]:
            found = self.gradients(self.vjp(args, self.cotangent(v)))
            return [np.zeros(x.shape) if g is None else np.array(g, np.float64).reshape(x.shape) for x, g in zip(self.xs, found, strict=True)]

        return flat(list(tree.leaves(self._call(xs)))), pullback
