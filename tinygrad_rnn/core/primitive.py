"""Primitives: what an operation computes on ndarrays, and one gradient rule an argument.

The function that a user calls is generated from the primitive's signature and rules, as dataclasses generate
their methods: it unwraps the operands, computes, and records, with nothing to interpret on the way.
``print(tg.tanh.primitive.source)`` shows it.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

import numpy as np

from ..errors import DtypeError, GradientError, NotDifferentiableError, TapeError, TinygradError
from . import tensor as _tensor
from .state import State, current, installed, next_index, plain
from .tape import Array, Own, Record
from .tensor import FUNCTIONS, Tensor, as_tensor, describe, is_tensor, restated, short, wrap

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
Rule = Callable[..., Any]
RuleT = TypeVar("RuleT", bound=Callable[..., Any])

_RESERVED = ("g", "out", "position")


class Op(Protocol[P, R]):
    """The function of a primitive: call it, or give it rules."""

    __name__: str
    primitive: Primitive

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def rule(self, function: RuleT, /) -> RuleT: ...


class Primitive:
    """One operation: its forward function and its rules. ``operands`` are the parameters that may be tensors."""

    def __init__(
        self,
        function: Callable[..., Any],
        forward: Callable[..., Any],
        *,
        sequence: str | None = None,
        constant: str = "",
        differentiable: bool = True,
    ) -> None:
        code = function.__code__
        if code.co_flags & 0x0C:
            raise TypeError(f"primitive {function.__name__}: *args and **kwargs have no rule; name every parameter")
        self.name = function.__name__.lstrip("_")
        self.forward = forward
        self.positional = code.co_varnames[: code.co_argcount]
        self.keyword = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        self.parameters = (*self.positional, *self.keyword)
        for reserved in _RESERVED:
            if reserved in self.parameters:
                raise TypeError(f"primitive {self.name}: a parameter is called {reserved!r}, which names something else in rules")
        self.required = self.positional[: code.co_argcount - len(function.__defaults__ or ())]
        self.sequence = sequence
        self.constant = tuple(constant.split())
        self.differentiable = differentiable
        self.seen_through = False
        """Whether the only gradient is a view of the whole cotangent."""
        self.rules: dict[str, Rule | None] = {}
        self.pull: Callable[..., Any] = _not_compiled
        self.saved_names: tuple[str, ...] = ()
        self.static_names: tuple[str, ...] = ()
        self.source = ""
        self.compiled = False
        self.namespace: dict[str, Any] = {"op": self, "compile_and_call": _compile_and_call, "__primitive__": True, "__name__": function.__module__}
        self.function = types.FunctionType(_stub.__code__, self.namespace, self.name)
        self.function.__doc__ = function.__doc__
        self.function.__module__ = function.__module__
        self.function.__qualname__ = function.__qualname__
        self.function.__wrapped__ = function  # type: ignore[attr-defined]
        self.function.primitive = self  # type: ignore[attr-defined]
        self.function.rule = self.rule  # type: ignore[attr-defined]
        self.signature = function

    def __repr__(self) -> str:
        return f"Primitive({self.name}({', '.join(self.parameters)}))"

    @property
    def operands(self) -> tuple[str, ...]:
        """Parameters without a default, or with a rule."""
        if self.sequence:
            return (self.sequence,)
        return tuple(p for p in self.parameters if p in self.required or p in self.rules)

    def operand_name(self, position: int) -> str:
        return f"{self.sequence}[{position}]" if self.sequence else self.operands[position]

    def rule(self, function: RuleT) -> RuleT:
        """Declare the rule of the argument after which the function is named, as ``x`` or ``multiply_x``."""
        name = function.__name__
        argument = name if name in self.parameters else name.lstrip("_").removeprefix(self.name).removeprefix("_")
        self.declare(argument, function)
        return function

    def declare(self, argument: str, rule: Rule | None) -> None:
        if argument not in self.parameters:
            raise TypeError(f"{self.name}: no parameter {argument!r} for this rule; the parameters are {', '.join(self.parameters)}")
        if rule is not None:
            allowed = {"g", "out", *self.parameters, *(f"{p}_shape" for p in self.parameters), *(["position"] if self.sequence else [])}
            for name in _parameters(rule):
                if name not in allowed:
                    raise TypeError(
                        f"{self.name}: the rule for {argument} has a parameter {name!r}; a rule's parameters are g, out, "
                        f"a parameter of the operation ({', '.join(self.parameters)}) or its shape ({argument}_shape)"
                    )
        self.rules[argument] = rule
        self.compiled = False
        self.function.__code__ = _stub.__code__

    def compile(self) -> None:
        """Write and load the source of the public function and of the pullback."""
        active = {name: _parameters(rule) for name, rule in self.rules.items() if rule is not None}
        operands = self.operands
        self.static_names = tuple(p for p in self.parameters if p not in operands)
        self.saved_names = tuple(p for p in (*operands, "out") if any(p in names for names in active.values()))
        self.source = _sequence_source(self, active) if self.sequence else _source(self, active)
        self.namespace.update(
            Tensor=_tensor.Tensor, Record=Record, ndarray=np.ndarray, asarray=np.asarray, FLOAT32=np.dtype(np.float32), FLOAT64=np.dtype(np.float64),
            PLAIN=PLAIN, new=object.__new__, current=current, next_index=next_index, forward=self.forward, general=general, explain=explain,
            settle=settle, describe=describe, no_rule=no_rule, shape_of=shape_of, **{f"rule_{name}": self.rules[name] for name in active},
        )  # fmt: skip
        loaded: dict[str, Any] = {}
        exec(compile(self.source, f"<primitive {self.name}>", "exec"), self.namespace, loaded)
        self.pull = loaded["pull"]
        self.function.__defaults__ = self.signature.__defaults__
        self.function.__kwdefaults__ = self.signature.__kwdefaults__
        self.function.__code__ = loaded["call"].__code__
        self.compiled = True

    def takes(self, values: tuple[Any, ...]) -> bool:
        """Whether the operands are tensors and plain Python values, and one of them a tensor: what the generated function takes."""
        tracked = False
        for name, value in zip(self.parameters, values, strict=True):
            if type(value) is _tensor.Tensor:
                tracked = True
            elif name not in self.static_names and not PLAIN[type(value)]:
                return False
        return tracked

    def place_of(self, name: str) -> int | None:
        """Which parent a saved value of this name is; -1 is the output, None no operand."""
        return -1 if name == "out" else self.operands.index(name) if name in self.operands else None

    def __reduce__(self) -> Any:
        raise TypeError(f"primitive {self.name} cannot be pickled; pickle the function that uses it")


def _not_compiled(*_: Any) -> Any:
    raise TapeError("this record's primitive was never compiled")


def _stub(*args: Any, **kwargs: Any) -> Any:
    return compile_and_call(op, args, kwargs)  # type: ignore[name-defined] # noqa: F821


def _compile_and_call(op: Primitive, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    op.compile()
    return op.function(*args, **kwargs)


def _parameters(rule: Rule) -> tuple[str, ...]:
    code = getattr(rule, "__code__", None)
    if code is None or code.co_flags & 0x0C:
        raise TypeError(f"a rule must be a plain function with named parameters, got {rule!r}")
    return cast("tuple[str, ...]", code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def _arguments(op: Primitive, value: Callable[[str], str]) -> str:
    return ", ".join([*map(value, op.positional), *(f"{p}={value(p)}" for p in op.keyword)])


def _tuple(parts: list[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _rule_call(op: Primitive, name: str, parameters: tuple[str, ...]) -> str:
    operands = op.operands
    values = []
    for p in parameters:
        shaped = p.removesuffix("_shape")
        if p not in op.parameters and p not in _RESERVED and shaped in operands:
            if op.sequence:
                values.append("shapes__")
            else:
                values.append(f"{shaped}__node.shape" if shaped == name else f"shape_of(record__, {operands.index(shaped)})")
        else:
            values.append(p)
    return f"rule_{name}({', '.join(values)})"


def _source(op: Primitive, active: dict[str, tuple[str, ...]]) -> str:
    """The source of a primitive with a fixed number of operands."""
    operands, static = op.operands, op.static_names
    head = ", ".join([*op.positional, *(["*", *op.keyword] if op.keyword else [])])
    everything = _tuple(list(op.parameters))
    bail = f"return general(op, {everything})"
    lines = [f"def call({head}):", "    state__ = current()", f"    if state__.special: {bail}"]
    for p in operands:
        others = [f"type({q}) is Tensor" for q in operands if q != p]
        lines += [f"    if type({p}) is Tensor:", f"        {p}__value = {p}._data", f"        {p}__node = {p}._node"]
        if others:
            lines += [f"    elif ({' or '.join(others)}) and PLAIN[type({p})]:", f"        {p}__value = {p}", f"        {p}__node = None"]
        lines.append(f"    else: {bail}")
    lines += [
        "    try:",
        f"        out = forward({_arguments(op, lambda p: f'{p}__value' if p in operands else p)})",
        "        if type(out) is not ndarray: out = asarray(out)",
        "        dtype__ = out.dtype",
    ]
    if "dtype" in op.parameters:
        lines.append("        if dtype__ is not FLOAT32 and dtype__ is not FLOAT64: settle(out, ())")
    elif op.differentiable:
        values = _tuple([f"{p}__value" for p in operands])
        lines += ["        if dtype__ is not FLOAT32:", f"            out = settle(out, {values})", "            dtype__ = out.dtype"]
    lines += ["    except Exception as error:", f"        raise explain(op, {everything}, error) from error"]
    lines += ["    result__ = new(Tensor)", "    result__._data = out"]
    traced = [p for p in operands if p in active]
    for p in operands if op.differentiable else ():
        if p not in active and p not in op.constant and op.rules.get(p, no_rule) is not None:
            lines.append(f"    if {p}__node is not None and state__.recording: raise no_rule(op, {p!r})")
    if not traced:
        lines += ["    return result__", "def pull(record__, parents__, g, saved__): return ()"]
        return "\n".join(lines)
    for p in operands:
        if p not in active:
            lines.append(f"    {p}__node = None")
    none = " and ".join(f"{p}__node is None" for p in traced)
    lines.append(f"    if {none} or not state__.recording: return result__")
    lines += ["    record__ = new(Record)", "    record__.op = op", f"    record__.parents = {_tuple([f'{p}__node' for p in operands])}"]
    describes = _tuple([f"None if {p}__node is not None else type({p}) is Tensor and {p}._constant or describe({p})" for p in operands])
    some = " or ".join(f"{p}__node is None" for p in operands)
    if len(operands) == 1:
        lines.append("    record__.constants = None")
    else:
        lines.append(f"    record__.constants = {describes} if {some} else None")
    saved = []
    for p in op.saved_names:
        value = "out" if p == "out" else f"{p}__value"
        users = [q for q in traced if p in active[q]]
        if len(users) == len(traced):
            saved.append(value)
        else:
            saved.append(f"{value} if {' or '.join(f'{q}__node is not None' for q in users)} else None")
    lines += [
        f"    record__.saved = {_tuple(saved)}",
        f"    record__.static = {_tuple(list(static))}",
        "    record__.shape = out.shape",
        "    record__.dtype = dtype__",
        "    record__.state = state__",
        "    record__.index = next_index()",
        "    result__._node = record__",
        "    return result__",
        "def pull(record__, parents__, g, saved__):",
    ]
    if op.saved_names:
        lines.append(f"    {_tuple(list(op.saved_names))} = saved__")
    if static and any(p in names for p in static for names in active.values()):
        lines.append(f"    {_tuple(list(static))} = record__.static")
    lines.append(f"    {_tuple([f'{p}__node' for p in operands])} = parents__")
    calls = [_rule_call(op, p, active[p]) if p in active else "None" for p in operands]
    pulled = [f"{call} if {p}__node is not None else None" if p in active and len(traced) > 1 else call for p, call in zip(operands, calls, strict=True)]
    lines.append(f"    return {_tuple(pulled)}")
    return "\n".join(lines)


def _sequence_source(op: Primitive, active: dict[str, tuple[str, ...]]) -> str:
    """The source of a primitive on a sequence of arrays: one rule for all, given the position."""
    name = cast(str, op.sequence)
    head = ", ".join([*op.positional, *(["*", *op.keyword] if op.keyword else [])])
    everything = _tuple(list(op.parameters))
    rule = active[name]
    saved = [{"out": "out"}.get(p, "values__") for p in op.saved_names]
    lines = [
        f"def call({head}):",
        "    state__ = current()",
        "    values__ = []",
        "    nodes__ = []",
        "    tracked__ = False",
        f"    if state__.special or type({name}) is not tuple and type({name}) is not list: return general(op, {everything})",
        f"    for item__ in {name}:",
        f"        if type(item__) is not Tensor: return general(op, {everything})",
        "        values__.append(item__._data)",
        "        nodes__.append(item__._node)",
        "        if item__._node is not None: tracked__ = True",
        "    try:",
        f"        out = forward({_arguments(op, lambda p: 'values__' if p == name else p)})",
        "        if type(out) is not ndarray: out = asarray(out)",
        "        if out.dtype is not FLOAT32: out = settle(out, values__)",
        "    except Exception as error:",
        f"        raise explain(op, {everything}, error) from error",
        "    result__ = new(Tensor)",
        "    result__._data = out",
        "    if not tracked__ or not state__.recording: return result__",
        "    values__ = tuple(values__)",
        "    record__ = new(Record)",
        "    record__.op = op",
        "    record__.parents = tuple(nodes__)",
        f"    record__.constants = tuple([None if item__._node is not None else describe(item__) for item__ in {name}]) if None in nodes__ else None",
        f"    record__.saved = {_tuple(saved)}",
        f"    record__.static = {_tuple(list(op.static_names))}",
        "    record__.shape = out.shape",
        "    record__.dtype = out.dtype",
        "    record__.state = state__",
        "    record__.index = next_index()",
        "    result__._node = record__",
        "    return result__",
        "def pull(record__, parents__, g, saved__):",
    ]
    if op.saved_names:
        lines.append(f"    {_tuple(list(op.saved_names))} = saved__")
    if op.static_names:
        lines.append(f"    {_tuple(list(op.static_names))} = record__.static")
    if f"{name}_shape" in rule:
        lines.append("    shapes__ = tuple([shape_of(record__, k) for k in range(len(parents__))])")
    lines.append(f"    return [{_rule_call(op, name, rule)} if parents__[position] is not None else None for position in range(len(parents__))]")
    return "\n".join(lines)


class _Plain(dict[type, bool]):
    """Types whose values an operation takes as they are: scalars, tuples, None, slices; not arrays."""

    def __missing__(self, kind: type) -> bool:
        arrays = (np.ndarray, np.generic, list)
        self[kind] = plain_kind = not (issubclass(kind, arrays) or hasattr(kind, "_is_tinygrad_tensor") or hasattr(kind, "__array__"))
        return plain_kind


PLAIN = _Plain()


def general(op: Primitive, values: tuple[Any, ...]) -> Any:
    """Any call that the generated function does not take: other operand types, observers, no tensor at all."""
    if op.namespace.get("Tensor") is not _tensor.Tensor:
        op.compile()
    state = current()
    if state.special and not op.sequence and op.takes(values):
        return _observed(op, values, plain(state))
    arguments = dict(zip(op.parameters, values, strict=True))
    name = op.sequence
    if name:
        items = list(arguments[name]) if np.iterable(arguments[name]) else None
        if items is None or isinstance(arguments[name], str):
            raise DtypeError(f"{op.name}: {name} must be a sequence of arrays, got {type(arguments[name]).__name__}")
        if not any(map(is_tensor, items)):
            return _raw(op, arguments | {name: items}, values)
        arguments[name] = [_operand(op, name, item, True) for item in items]
        if not all(type(item) is _tensor.Tensor for item in arguments[name]):
            arguments[name] = [as_tensor(item) for item in arguments[name]]
    else:
        tracked = [p for p in op.operands if is_tensor(arguments[p])]
        if not tracked:
            return _raw(op, arguments, values)
        for p in op.operands:
            given = arguments[p]
            arguments[p] = _operand(op, p, given, p in op.saved_names)
            if isinstance(given, np.ndarray):
                arguments[p]._source = given
    values = tuple([arguments[p] for p in op.parameters])
    return _observed(op, values, plain(state)) if state.special else _call(op, values)


def _observed(op: Primitive, values: tuple[Any, ...], state: State) -> Any:
    with installed(state.quiet):
        out = _call(op, values)
    for observer in state.observers:
        observer(op, values, out)
    return out


def _call(op: Primitive, values: tuple[Any, ...]) -> Any:
    count = len(op.positional)
    return op.function(*values[:count], **dict(zip(op.keyword, values[count:], strict=True))) if op.keyword else op.function(*values)


def _raw(op: Primitive, arguments: dict[str, Any], values: tuple[Any, ...]) -> Any:
    """On ndarrays alone an operation is its forward function."""
    try:
        return op.forward(*[arguments[p] for p in op.positional], **{p: arguments[p] for p in op.keyword})
    except Exception as error:
        raise explain(op, values, error) from error


def _operand(op: Primitive, name: str, value: Any, kept: bool) -> Any:
    """A value in the form that the generated function takes: a Tensor or a plain Python value."""
    if type(value) is _tensor.Tensor:
        return value
    if is_tensor(value):
        return wrap(value._data, value._node)
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    if PLAIN[type(value)]:
        return value
    if isinstance(value, list) and op.rules.get(name) is None:
        return tuple(value) if not any(map(is_tensor, value)) else [v._data if is_tensor(v) else v for v in value]
    try:
        array = np.asarray(value)
    except TinygradError:
        raise
    except Exception as error:
        raise DtypeError(f"{op.name}: {name} is not an array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise DtypeError(f"{op.name}: {name} has dtype {array.dtype}, expected numbers or bools")
    if isinstance(value, np.ndarray) and kept and current().recording:
        array = array.copy()
    return wrap(array)


def settle(out: np.ndarray, values: tuple[Any, ...] | list[Any]) -> np.ndarray:
    """Undo a float promotion that no floating operand asked for: integers and counts do not widen float32.

    Raises ``TypeError`` for an output that no tensor can hold.
    """
    if out.dtype.kind != "f":
        if out.dtype.kind not in "biu":
            raise TypeError(f"the result has dtype {out.dtype}, expected floats, integers or bools")
        return out
    widest = None
    for value in values:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and (widest is None or value.dtype.itemsize > widest.itemsize):
            widest = value.dtype
    return out if widest is None or widest.itemsize >= out.dtype.itemsize else out.astype(widest)


def shape_of(record: Record, position: int) -> tuple[int, ...]:
    operand = record.operands[position]
    return operand.shape if hasattr(operand, "shape") else np.shape(operand)


def no_rule(op: Primitive, argument: str) -> NotDifferentiableError:
    return NotDifferentiableError(
        f"{op.name}: argument {argument} requires grad, but {op.name} has no gradient rule for it; pass {argument}.detach(), or give the operation a rule with tg.defvjp"
    )


def explain(op: Primitive, values: tuple[Any, ...], error: Exception) -> Exception:
    """The error to raise for a call: it names the operation and what each argument was."""
    came = ", ".join(f"{p}={short(v)}" for p, v in zip(op.parameters, values, strict=True) if v is not None or p in op.operands)
    return restated(f"{op.name}({came})", error)


class _Decorator(Protocol):
    def __call__(self, function: Callable[P, Any], /) -> Op[P, Any]: ...


@overload
def primitive(function: np.ufunc, /) -> _Decorator: ...
@overload
def primitive(function: None = None, /, *, implements: Any = None, sequence: str | None = None, constant: str = "", differentiable: bool = True) -> _Decorator: ...
@overload
def primitive(function: Callable[P, Any], /) -> Op[P, Any]: ...
def primitive(function: Any = None, /, *, implements: Any = None, sequence: str | None = None, constant: str = "", differentiable: bool = True) -> Any:
    """Make an operation of a function of ndarrays; give it rules with ``tg.defvjp`` or ``@operation.rule``.

    Parameters without a default, and those with a rule, may be tensors; the others are static. On ndarrays
    alone the operation is the function itself. A rule's parameters are ``g`` (the cotangent), ``out`` (the
    output), names of the operation's own parameters, or ``x_shape`` for the shape alone; only what rules name
    is kept. Rules use operators, methods and ``tg`` operations, so that they can be differentiated again.

    Raises ``TypeError`` when a parameter has a reserved name (``g``, ``out``, ``position``).

    >>> import numpy as np, tinygrad_rnn as tg
    >>> @tg.primitive
    ... def softsign(x):
    ...     return x / (1 + np.abs(x))
    >>> @softsign.rule
    ... def softsign_x(g, x):
    ...     return g / (1 + abs(x)) ** 2
    >>> x = tg.tensor([1.0, -3.0], requires_grad=True)
    >>> softsign(x).sum().backward()
    >>> x.grad
    tensor([0.25, 0.0625], float32)
    """
    if isinstance(function, np.ufunc):
        implements, function = function, None
    options: dict[str, Any] = {"sequence": sequence, "constant": constant, "differentiable": differentiable}

    def decorate(function: Callable[..., Any]) -> Any:
        if not isinstance(function, types.FunctionType):
            raise TypeError(f"primitive: expected a Python function, got {type(function).__name__}")
        forward = implements if isinstance(implements, np.ufunc) else function
        op = Primitive(function, forward, **options)
        if sequence:
            op.required = (sequence,)
        for numpy_function in implements if isinstance(implements, tuple) else (implements,):
            if numpy_function is not None:
                FUNCTIONS[numpy_function] = op.function
        return op.function

    return decorate if function is None else decorate(function)


def defvjp(operation: Any, *rules: Rule | None) -> None:
    """Give an operation its rules, one for each argument in order; None says that an argument is constant.

    Raises ``TypeError`` when the number of rules or the name of a rule's parameter does not fit.

    >>> import numpy as np, tinygrad_rnn as tg
    >>> @tg.primitive
    ... def scaled(x, factor):
    ...     return x * factor
    >>> def for_x(g, factor): return g * factor
    >>> def for_factor(g, x): return g * x
    >>> tg.defvjp(scaled, for_x, for_factor)
    >>> tg.grad(scaled(x := tg.tensor([2.0], requires_grad=True), 3.0), x)
    tensor([3.], float32)
    """
    op = getattr(operation, "primitive", None)
    if op is None:
        raise TypeError(f"defvjp: expected an operation made by tg.primitive, got {operation!r}")
    required = op.operands
    if not (len(required) <= len(rules) <= len(op.parameters)):
        many = "rule" if len(required) == 1 else "rules"
        raise TypeError(f"defvjp: {op.name} has {len(required)} arguments that may be tensors ({', '.join(required)}), so {len(required)} {many}; got {len(rules)}")
    for argument, rule in zip(op.parameters, rules, strict=False):
        op.declare(argument, rule)


class custom_vjp:
    """A function with a hand-made gradient: ``forward`` returns its output and residuals, ``backward`` uses them.

    ``f.defvjp(forward, backward)`` with ``forward(*args) -> (out, residuals)`` and
    ``backward(residuals, g) -> one gradient an argument`` (None for no gradient). Both get ndarrays, and the
    residuals are kept until the backward pass. Higher derivatives run ``forward`` and ``backward`` again on
    tensors, so they exist if both are made of operations; otherwise asking for them raises
    ``NotDifferentiableError``: the gradient is then first-order only.

    >>> import numpy as np, tinygrad_rnn as tg
    >>> @tg.custom_vjp
    ... def log1pexp(x):
    ...     return np.log1p(np.exp(x))
    >>> def forward(x):
    ...     e = np.exp(x)
    ...     return np.log1p(e), e
    >>> def backward(e, g):
    ...     return (g * (1 - 1 / (1 + e)),)
    >>> log1pexp.defvjp(forward, backward)
    >>> x = tg.tensor(0.0, requires_grad=True)
    >>> tg.grad(log1pexp(x), x).item()
    0.5
    """

    def __init__(self, function: Callable[..., Any], forward: Rule | None = None, backward: Rule | None = None) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", "custom")
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        if forward is not None and backward is not None:
            self.defvjp(forward, backward)

    def defvjp(self, forward: Rule, backward: Rule) -> None:
        self._forward, self._backward = forward, backward

    def __call__(self, *args: Any) -> Any:
        if not hasattr(self, "_forward"):
            raise TypeError(f"custom_vjp {self.__name__}: call {self.__name__}.defvjp(forward, backward) first")
        if not any(map(is_tensor, args)):
            return self.function(*args)
        tensors = [as_tensor(a) if isinstance(a, np.ndarray) else a for a in args]
        tracked = current().recording and any(is_tensor(a) and a._node is not None for a in tensors)
        values = [a._data if is_tensor(a) else a for a in tensors]
        if not tracked:
            return wrap(self._output(self.function(*values)))
        returned = self._forward(*values)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise GradientError(f"custom_vjp {self.__name__}: forward must return (output, residuals), got {type(returned).__name__}")
        out, residuals = returned
        held = [wrap(a._data, a._node) if is_tensor(a) else a for a in tensors]

        def backward(g: Array) -> list[Any]:
            if not is_tensor(g):
                return self._checked(self._backward(residuals, g), len(args))
            try:
                again = self._forward(*held)[1]
                return self._checked(self._backward(again, g), len(args))
            except (NotDifferentiableError, TapeError, DtypeError) as error:
                raise NotDifferentiableError(f"custom_vjp {self.__name__} is first-order only: its forward or backward is not made of operations ({error})") from error

        nodes = tuple(a._node if is_tensor(a) else None for a in tensors)
        backward.buffers = residuals if isinstance(residuals, tuple | list) else (residuals,)  # type: ignore[attr-defined]
        result = manual(self.__name__, self._output(out), nodes, backward, operands=tensors)
        if current().special:
            for observer in plain(current()).observers:
                if hasattr(observer, "custom"):
                    observer.custom(self, tuple(held), result)
        return result

    def _output(self, value: Any) -> np.ndarray:
        try:
            return settle(np.asarray(value), ())
        except (ValueError, TypeError) as error:
            raise restated(f"custom_vjp {self.__name__}: the output", error) from error

    def _checked(self, returned: Any, count: int) -> list[Any]:
        gradients: list[Any] = list(returned) if isinstance(returned, tuple | list) else [returned]
        if len(gradients) != count:
            raise GradientError(f"custom_vjp {self.__name__}: backward returned {len(gradients)} gradients, expected {count}, one an argument")
        return gradients


class _Manual:
    """The op of a record whose pullback is a function made at run time."""

    saved_names = ("backward",)
    seen_through = False
    sequence = None
    expansion: Any = None
    """How the one record stands for many, where it does."""

    def __init__(self, name: str, static_names: tuple[str, ...]) -> None:
        self.name, self.static_names = name, static_names

    def operand_name(self, position: int) -> str:
        return f"argument {position}"

    def place_of(self, name: str) -> None:
        return None

    @staticmethod
    def pull(record: Record, parents: tuple[Record | None, ...], g: Array, saved: tuple[Any, ...]) -> list[Any]:
        gradients = saved[0](g)
        found = [gi if p is not None else None for p, gi in zip(parents, gradients, strict=True)]
        return Own(found) if type(gradients) is Own else found


def manual(name: str, out: np.ndarray, nodes: tuple[Record | None, ...], backward: Callable[[Any], list[Any]], operands: list[Any] | None = None, **static: Any) -> Tensor:
    """A tensor on a record whose gradient for each of ``nodes`` comes from ``backward(g)``; listings show ``static``."""
    record = Record()
    record.op = cast(Primitive, _Manual(name, tuple(static)))
    record.parents = nodes
    record.constants = None if operands is None else tuple(None if n is not None else describe(a) for n, a in zip(nodes, operands, strict=True))
    record.saved = (backward,)
    record.static = tuple(static.values())
    record.shape, record.dtype, record.state, record.index = out.shape, out.dtype, current(), next_index()
    return wrap(out, record)
