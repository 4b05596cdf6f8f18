"""NumPy's protocols: its functions on tensors, by table; one that has no rule raises and is named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DtypeError, NotDifferentiableError
from .state import current, plain
from .tensor import FUNCTIONS, UNTRACKED, is_tensor, reading, restated, short, wrap

REDUCTIONS: dict[Any, Any] = {np.add: np.sum, np.multiply: np.prod, np.maximum: np.max, np.minimum: np.min, np.logical_and: np.all, np.logical_or: np.any, np.logaddexp: None}
ACCUMULATIONS: dict[Any, Any] = {np.add: np.cumsum, np.multiply: np.cumprod}


def implements(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a function stand for NumPy functions on tensors."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for numpy_function in functions:
            FUNCTIONS[numpy_function] = function
        return function

    return register


def _name(function: Any) -> str:
    module = getattr(function, "__module__", "numpy") or "numpy"
    module = module if module.startswith("numpy.linalg") or module.startswith("numpy.fft") else "numpy"
    return f"{module.replace('numpy', 'np')}.{getattr(function, '__name__', function)}"


def _tracked(values: Any) -> bool:
    if is_tensor(values):
        return values._node is not None
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return False
    return any(map(_tracked, values))


def _bare(value: Any) -> Any:
    """Arguments with tensors replaced by their values."""
    if is_tensor(value):
        return value._data
    if isinstance(value, list | tuple):
        return type(value)(*map(_bare, value)) if hasattr(value, "_fields") else type(value)(map(_bare, value))
    return {k: _bare(v) for k, v in value.items()} if isinstance(value, dict) else value


def _wrapped(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return wrap(value)
    return tuple(map(_wrapped, value)) if type(value) is tuple else value


_SHAPES = (np.shape, np.ndim, np.size)


def untracked(function: Any, args: Any, kwargs: Any) -> Any:
    """Call a NumPy function on values; arrays come back as tensors that need no gradient."""
    if function not in _SHAPES:
        reading(f"{getattr(function, '__name__', function)} was computed of its values")
    return _wrapped(function(*_bare(args), **_bare(kwargs)))


def asked(name: str, function: Any, args: Any, kwargs: Any) -> Any:
    """:func:`untracked` for what NumPy tells of values, with its errors as ours."""
    try:
        return untracked(function, args, kwargs)
    except Exception as error:
        raise restated(f"{name}({', '.join([*map(short, args), *(f'{key}={short(value)}' for key, value in kwargs.items())])})", error) from error


def _refusal(name: str) -> NotDifferentiableError:
    return NotDifferentiableError(
        f"{name} has no gradient rule, so its result would lose the gradient; use .detach() to do without one, "
        "an operation of this package, or give it a rule with tg.primitive and tg.defvjp"
    )


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A NumPy ufunc, or one of its methods, on at least one tensor."""
    name = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
    out = options.pop("out", None)
    for key in ("casting", "order", "subok"):
        options.pop(key, None)
    tracking = plain(current()).recording and _tracked((inputs, options))
    if out is not None:
        return _into(name, ufunc, method, inputs, options, out, tracking)
    if method == "__call__":
        operation = FUNCTIONS.get(ufunc)
        where, dtype = options.pop("where", True), options.pop("dtype", None)
        if operation is not None and where is True and not options:
            if dtype is not None:
                inputs = tuple(FUNCTIONS[np.astype](x, dtype) if is_tensor(x) else np.asarray(x, dtype) for x in inputs)
            return operation(*inputs)
        options |= ({} if where is True else {"where": where}) | ({} if dtype is None else {"dtype": dtype})
    else:
        options = {key: value for key, value in options.items() if not (key == "dtype" and value is None)}
        if method == "reduce" and REDUCTIONS.get(ufunc) is not None:
            return FUNCTIONS[REDUCTIONS[ufunc]](*inputs, **{"axis": 0, **options} if len(inputs) == 1 else options)
        if method == "accumulate" and ufunc in ACCUMULATIONS:
            return FUNCTIONS[ACCUMULATIONS[ufunc]](*inputs, **{"axis": 0, **options} if len(inputs) == 1 else options)
        if method == "outer" and ufunc in FUNCTIONS and not options:
            x, y = (FUNCTIONS[np.reshape](v, (*np.shape(v), *(1,) * extra)) if is_tensor(v) else np.reshape(v, (*np.shape(v), *(1,) * extra))
                    for v, extra in zip(inputs, (np.ndim(inputs[1]), 0), strict=True))  # fmt: skip
            return FUNCTIONS[ufunc](x, y)
    if tracking:
        raise _refusal(name)
    return untracked(getattr(ufunc, method), inputs, options)


def _into(name: str, ufunc: np.ufunc, method: str, inputs: Any, options: Any, out: tuple[Any, ...], tracking: bool) -> Any:
    """``out=``: values are written, so nothing may be recorded."""
    if tracking:
        raise NotDifferentiableError(f"{name}: out= writes values and would lose the gradient; leave out= away (a = a + b instead of a += b for an ndarray a)")
    for target in out:
        if is_tensor(target):
            target._writable(name)
    # Computed apart, so that nothing is written where NumPy refuses the call.
    results = tuple([target._data.copy() if is_tensor(target) else target for target in out])
    asked(name, getattr(ufunc, method), inputs, options | {"out": results})
    for target, result in zip(out, results, strict=True):
        if is_tensor(target):
            target.assign_(result)
    return out[0] if len(out) == 1 else out


_SIGNATURES: dict[Any, tuple[str, ...]] = {}


def _parameter_names(function: Any) -> tuple[str, ...]:
    if function not in _SIGNATURES:
        try:
            parameters = inspect.signature(function).parameters
            open_ended = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
            _SIGNATURES[function] = () if open_ended else tuple(parameters)
        except (ValueError, TypeError):
            _SIGNATURES[function] = ()
    return _SIGNATURES[function]


_IDLE = {"out": (None,), "subok": (True, False), "like": (None,), "overwrite_input": (False,), "method": ("linear",), "interpolation": (None,), "casting": ("same_kind",), "order": (None, "K"), "mean": (np._NoValue,), "correction": (np._NoValue,)} # fmt: skip


def call_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A NumPy function on at least one tensor."""
    operation = FUNCTIONS.get(function)
    tracking = plain(current()).recording and _tracked((args, kwargs))
    if operation is None:
        if function in UNTRACKED:
            return asked(_name(function), UNTRACKED[function], args, kwargs)
        if not tracking:
            return untracked(function, args, kwargs)
        raise _refusal(_name(function))
    theirs, ours = _parameter_names(function), _parameter_names(operation)
    named = dict(kwargs)
    positional = list(args)
    # NumPy passes through what the caller wrote: drop options left at rest, and carry the others over by name.
    if len(positional) > 1 and theirs and ours and theirs[: len(positional)] != ours[: len(positional)]:
        keep = next((k for k, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b and k > 0), min(len(theirs), len(ours)))
        if keep < len(positional):
            named = dict(zip(theirs[keep:], positional[keep:], strict=False)) | named
            positional = positional[:keep]
    for key, idle in _IDLE.items():
        if key in named and key not in ours and any(named[key] is value or named[key] == value for value in idle if not is_tensor(named[key])):
            del named[key]
    named = {key: value for key, value in named.items() if value is not np._NoValue}
    if not positional and theirs and theirs[0] in named and ours and theirs[0] != ours[0]:
        positional = [named.pop(theirs[0])]
    where, initial = named.pop("where", True) if "where" not in ours else True, named.pop("initial", None) if "initial" not in ours else None
    if (where is not True and where is not np.True_) or initial is not None:
        return _partial(function, operation, positional, named, where, initial, tracking)
    unknown = [key for key in named if key not in ours]
    if unknown and ours and "kwargs" not in ours:
        if not tracking:
            return untracked(function, args, kwargs)
        if "out" in unknown:
            raise NotDifferentiableError(f"{_name(function)}: out= writes values and would lose the gradient; leave out= away")
        raise NotDifferentiableError(f"{_name(function)}: {unknown[0]}= has no gradient rule; use .detach() to do without a gradient, or leave it away")
    return operation(*positional, **named)


_NEUTRAL = {np.sum: 0.0, np.prod: 1.0, np.max: -np.inf, np.min: np.inf, np.amax: -np.inf, np.amin: np.inf}


def _partial(function: Any, operation: Any, positional: list[Any], named: dict[str, Any], where: Any, initial: Any, tracking: bool) -> Any:
    """Reductions with ``where=`` and ``initial=``: of what is left, together with the initial value."""
    if function in (np.mean, np.var, np.std) and initial is None:
        x, rest = positional[0], positional[1:]
        axis = rest[0] if rest else named.get("axis")
        keepdims = bool(named.get("keepdims", False))
        select, total = FUNCTIONS[np.where], FUNCTIONS[np.sum]
        n = np.sum(np.broadcast_to(_bare(where), x.shape), axis=axis, keepdims=True)
        n = np.asarray(n, x.dtype)
        center = total(select(where, x, 0.0), axis=axis, keepdims=True) / n
        if function is np.mean:
            return center if keepdims else FUNCTIONS[np.squeeze](center, tuple(range(x.ndim)) if axis is None else axis)
        squares = select(where, (x - center) ** 2, 0.0)
        out = total(squares, axis=axis, keepdims=True) / (n - named.get("ddof", 0))
        out = out if keepdims else FUNCTIONS[np.squeeze](out, tuple(range(x.ndim)) if axis is None else axis)
        return FUNCTIONS[np.sqrt](out) if function is np.std else out
    if function not in _NEUTRAL:
        if tracking:
            raise NotDifferentiableError(f"{_name(function)}: where= and initial= have no gradient rule")
        return untracked(function, positional, named | {"where": where} | ({} if initial is None else {"initial": initial}))
    x = positional[0]
    if where is not True:
        if function in (np.max, np.min, np.amax, np.amin) and initial is None:
            raise DtypeError(f"{_name(function)}: where= needs initial=")
        x = FUNCTIONS[np.where](where, x, _NEUTRAL[function])
    combine = {np.sum: np.add, np.prod: np.multiply, np.max: np.maximum, np.amax: np.maximum, np.min: np.minimum, np.amin: np.minimum}[function]
    if initial is not None and combine in (np.maximum, np.minimum) and x.size == 0:
        axis = positional[1] if len(positional) > 1 else named.get("axis")
        return untracked(function, [np.zeros(x.shape, x.dtype)], {"axis": axis, "initial": _bare(initial), "keepdims": bool(named.get("keepdims", False))})
    out = operation(x, *positional[1:], **named)
    return out if initial is None else FUNCTIONS[combine](out, initial)
