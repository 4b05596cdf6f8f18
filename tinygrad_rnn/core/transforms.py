"""Derivatives of functions, all from reverse sweeps over the one set of rules; and checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import DtypeError, GradientError, ShapeError, TapeError
from .creation import Draws
from .primitive import manual
from .state import current, enable_grad, installed, next_index, plain
from .tape import Record, reachable
from .tensor import Tensor, as_tensor, cotangent, is_tensor, run_sweep, wrap


def _listed(value: Any) -> tuple[list[Any], bool]:
    return (list(value), True) if isinstance(value, list | tuple) else ([value], False)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> Any:
    """The gradients of outputs with respect to inputs, without touching any ``.grad``.

    ``inputs`` is a tensor, or a list or tuple for a tuple of gradients; they may be computed tensors.
    ``grad_outputs`` holds a cotangent for each output; outputs of one element need none.
    ``allow_unused`` gives None for an input that the outputs do not depend on, instead of an error.

    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor(3.0, requires_grad=True)
    >>> g = tg.grad(x ** 3, x, create_graph=True)
    >>> g.item(), tg.grad(g, x).item()
    (27.0, 18.0)
    """
    ys, _ = _listed(outputs)
    xs, many = _listed(inputs)
    gs = _listed(grad_outputs)[0] if grad_outputs is not None else [None] * len(ys)
    if len(gs) != len(ys):
        raise GradientError(f"grad: {len(ys)} outputs and {len(gs)} cotangents in grad_outputs")
    for k, x in enumerate(xs):
        if not is_tensor(x):
            raise DtypeError(f"grad: input {k} is {type(x).__name__}, expected a tensor")
        if x._node is None:
            raise GradientError(f"grad: input {k} ({x!r}) does not require grad")
    roots = []
    for k, (y, g) in enumerate(zip(ys, gs, strict=True)):
        if not is_tensor(y):
            raise DtypeError(f"grad: output {k} is {type(y).__name__}, expected a tensor")
        if y._node is not None:
            roots.append((y._node, cotangent("grad", y, g, create_graph)))
        elif not allow_unused:
            raise TapeError(f"grad: output {k} ({y!r}) has no graph")
    retain = create_graph if retain_graph is None else retain_graph
    found = run_sweep(roots, [x._node for x in xs], retain_graph=retain, create_graph=create_graph)
    out = tuple(_result(found, x, k, allow_unused) for k, x in enumerate(xs))
    return out if many else out[0]


def _result(found: dict[Record, Any], x: Tensor, k: int, allow_unused: bool) -> Tensor | None:
    if x._node not in found:
        if allow_unused:
            return None
        raise GradientError(f"grad: the outputs do not depend on input {k} ({x!r}); pass allow_unused=True to get None for it")
    g, owned = found[x._node]
    return g if is_tensor(g) else wrap(np.asarray(g) if owned else np.array(g))


def _inputs(what: str, xs: Sequence[Any]) -> tuple[list[Tensor], bool]:
    """Fresh tensors to differentiate at, linked to the caller's tape where an input is on one."""
    inner, outer = [], False
    for k, x in enumerate(xs):
        t = as_tensor(x) if is_tensor(x) or isinstance(x, np.ndarray) else Tensor(x)
        if t.dtype.kind != "f":
            raise DtypeError(f"{what}: input {k} has dtype {t.dtype}, expected a floating dtype")
        if t._node is not None and plain(current()).recording:
            inner.append(+t)
            outer = True
        else:
            inner.append(wrap(t._data).requires_grad_())
    return inner, outer


def _apply(what: str, f: Callable[..., Any], inner: list[Tensor]) -> Tensor:
    with enable_grad():
        y = f(*inner)
    if not is_tensor(y):
        if isinstance(y, int | float | np.ndarray | np.generic):
            return as_tensor(np.asarray(y))
        raise DtypeError(f"{what}: the function returned {type(y).__name__}, expected a tensor")
    return y  # type: ignore[no-any-return]


def _depends_on_more(y: Tensor, inner: list[Tensor], start: int) -> bool:
    """Whether an output depends on tensors that were on a tape before the call, as weights in a closure are."""
    return y._node is not None and any(r.index < start for r in reachable([y._node])) and plain(current()).recording


def _pull(y: Tensor, inner: list[Tensor], g: Any, create_graph: bool) -> list[Tensor]:
    """The gradient for every input, zeros where the output does not depend on it."""
    found: Any = {}
    if y._node is not None:
        found = run_sweep([(y._node, cotangent("vjp", y, g, create_graph))], [x._node for x in inner], retain_graph=True, create_graph=create_graph)
    return [
        wrap(np.zeros(x.shape, x.dtype)) if x._node not in found else r if is_tensor(r := found[x._node][0]) else wrap(np.array(r))
        for x in inner
    ]  # fmt: skip


def vjp(f: Callable[..., Any], *xs: Any) -> tuple[Tensor, Callable[[Any], tuple[Tensor, ...]]]:
    """The value of f at xs and its pullback: from a cotangent of the value to one gradient an input.

    >>> import tinygrad_rnn as tg
    >>> y, pullback = tg.vjp(lambda a, b: a * b, tg.tensor([2.0]), tg.tensor([3.0]))
    >>> pullback(tg.tensor([1.0]))
    (tensor([3.], float32), tensor([2.], float32))
    """
    start = next_index()
    inner, outer = _inputs("vjp", xs)
    y = _apply("vjp", f, inner)
    linked = outer or _depends_on_more(y, inner, start)

    def pullback(g: Any) -> tuple[Tensor, ...]:
        if y._node is None and np.shape(g) != y.shape:
            raise GradientError(f"vjp: the cotangent has shape {np.shape(g)}, expected {y.shape} as the output's")
        follow = linked or (is_tensor(g) and g._node is not None)
        return tuple(_pull(y, inner, g, follow and plain(current()).recording))

    return (y if linked else y.detach()), pullback


def jvp(f: Callable[..., Any], xs: Any, vs: Any) -> tuple[Tensor, Tensor]:
    """The value of f at xs and its derivative along vs, from two reverse sweeps.

    >>> import tinygrad_rnn as tg
    >>> y, dy = tg.jvp(lambda x: x ** 2, (tg.tensor([3.0]),), (tg.tensor([1.0]),))
    >>> dy
    tensor([6.], float32)
    """
    start = next_index()
    xs, vs = _listed(xs)[0], _listed(vs)[0]
    if len(xs) != len(vs):
        raise GradientError(f"jvp: {len(xs)} inputs and {len(vs)} tangents")
    inner, outer = _inputs("jvp", xs)
    tangents = [_tangent("jvp", k, x, v) for k, (x, v) in enumerate(zip(inner, vs, strict=True))]
    y = _apply("jvp", f, inner)
    linked = outer or _depends_on_more(y, inner, start) or any(v._node is not None for v in tangents)
    # The pullback is linear in its cotangent u, so its derivative for u, applied to v, is the pushforward.
    u = wrap(np.zeros(y.shape, y.dtype)).requires_grad_() if y.dtype.kind == "f" else None
    dy: Tensor | None = None
    if y._node is not None and u is not None:
        gs = _pull(y, inner, u, True)
        pairs = [(g._node, v) for g, v in zip(gs, tangents, strict=True) if g._node is not None]
        if pairs:
            found = run_sweep([(n, v if linked else v._data) for n, v in pairs], [u._node], retain_graph=True, create_graph=linked)
            if u._node in found:
                g = found[u._node][0]
                dy = g if is_tensor(g) else wrap(np.array(g))
    return (y if linked else y.detach()), wrap(np.zeros(y.shape, y.dtype)) if dy is None else dy


def _tangent(what: str, k: int, x: Tensor, v: Any) -> Tensor:
    t = v if is_tensor(v) else wrap(np.asarray(v, x.dtype if not isinstance(v, np.ndarray) else None))
    if t.shape != x.shape:
        raise GradientError(f"{what}: tangent {k} has shape {t.shape}, expected {x.shape} as the input's")
    if t.dtype != x.dtype:
        raise DtypeError(f"{what}: tangent {k} has dtype {t.dtype}, expected {x.dtype} as the input's")
    return t


def _scalar(what: str, f: Callable[..., Any], inner: list[Tensor]) -> Tensor:
    y = _apply(what, f, inner)
    if y.size != 1:
        raise ShapeError(f"{what}: the function must return one value, got shape {y.shape}")
    return y


def hvp(f: Callable[[Any], Any], x: Any, v: Any) -> Tensor:
    """The Hessian of a scalar function at x times v, without forming the Hessian.

    >>> import tinygrad_rnn as tg
    >>> tg.hvp(lambda x: (x ** 3).sum(), tg.tensor([1.0, 2.0]), tg.tensor([1.0, 1.0]))
    tensor([6., 12.], float32)
    """
    start = next_index()
    inner, outer = _inputs("hvp", [x])
    tangent = _tangent("hvp", 0, inner[0], v)
    y = _scalar("hvp", f, inner)
    linked = outer or _depends_on_more(y, inner, start) or tangent._node is not None
    (g,) = _pull(y, inner, None, True)
    return _pull(g, inner, tangent, linked)[0]


def jacobian(f: Callable[[Any], Any], x: Any) -> Tensor:
    """The derivative of every output of f for every element of x, of shape ``(*output, *x)``: one sweep an output.

    >>> import tinygrad_rnn as tg
    >>> tg.jacobian(lambda x: x ** 2, tg.tensor([1.0, 3.0]))
    tensor([[2., 0.], [0., 6.]], float32)
    """
    start = next_index()
    inner, outer = _inputs("jacobian", [x])
    y = _apply("jacobian", f, inner)
    linked = outer or _depends_on_more(y, inner, start)
    return _rows(y, inner, linked)


def _rows(y: Tensor, inner: list[Tensor], linked: bool) -> Tensor:
    from ..ops.shaping import reshape, stack

    rows = []
    for k in range(y.size):
        g = np.zeros(y.size, y.dtype)
        g[k] = 1
        rows.append(_pull(y, inner, g.reshape(y.shape), linked)[0])
    shape = (*y.shape, *inner[0].shape)
    if not rows:
        return wrap(np.zeros(shape, y.dtype))
    return reshape(stack(rows), shape)  # type: ignore[no-any-return]


def hessian(f: Callable[[Any], Any], x: Any) -> Tensor:
    """The second derivatives of a scalar function at x, of shape ``(*x, *x)``.

    >>> import tinygrad_rnn as tg
    >>> tg.hessian(lambda x: (x ** 3).sum(), tg.tensor([1.0, 2.0]))
    tensor([[6., 0.], [0., 12.]], float32)
    """
    start = next_index()
    inner, outer = _inputs("hessian", [x])
    y = _scalar("hessian", f, inner)
    linked = outer or _depends_on_more(y, inner, start)
    return _rows(_pull(y, inner, None, True)[0], inner, linked)


def checkpoint(f: Callable[..., Any], *args: Any) -> Any:
    """f(*args) without keeping what its backward pass needs: it runs again when the gradient is asked for.

    f returns a tensor, or a tuple of tensors. Weights that f reaches through its closure get their gradients.
    Random numbers drawn by this package (``tg.randn``, dropout) are the same the second time; f must not depend
    on anything else that changes, which is checked: ``GradientError`` if its values differ the second time.

    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([0.5], requires_grad=True)
    >>> y = tg.checkpoint(lambda x: tg.tanh(tg.tanh(x * w)), tg.tensor([1.0]))
    >>> y.sum().backward()
    >>> round(w.grad.item(), 4)
    0.6398
    """
    state = plain(current())
    if not state.recording:
        return f(*args)
    start = next_index()
    draws = Draws()
    with installed(state.replace(draws=draws)):
        returned = f(*args)
    outputs, many = _listed(returned)
    for y in outputs:
        if not is_tensor(y):
            raise DtypeError(f"checkpoint: the function returned {type(y).__name__}, expected tensors")
    computed = [y for y in outputs if y._node is not None and y._node.index > start]
    if not computed:
        return returned
    nodes = [r for r in reachable([y._node for y in computed], lambda r: r.index > start) if r.index < start]
    from ..ops.shaping import concatenate, ravel

    # One record stands for all outputs: they are joined, and read apart again.
    values = [y._data for y in computed]
    joined = values[0] if len(values) == 1 else np.concatenate([v.ravel() for v in values])
    digest = [float(np.sum(v, dtype=np.float64)) for v in values]

    def backward(g: Any) -> list[Any]:
        began = next_index()
        create = is_tensor(g)
        draws.place = 0
        again = plain(current()).replace(recording=True, scope=state.scope)
        with installed(again.replace(draws=draws)):
            ys = [y for y in _listed(f(*args))[0] if y._node is not None and y._node.index > began]
            if [y.shape for y in ys] != shapes or any(
                not (a == b or (a != a and b != b)) for a, b in zip(digest, [float(np.sum(y._data, dtype=np.float64)) for y in ys], strict=True)
            ):
                raise GradientError("checkpoint: the function gave other values the second time; it must depend on its arguments and weights alone")
            whole = ys[0] if len(ys) == 1 else concatenate([ravel(y) for y in ys])
        found = run_sweep([(whole._node, g)], nodes, stop=True, create_graph=create, retain_graph=create)
        return [found[n][0] if n in found else None for n in nodes]

    backward.buffers = tuple(a._data for a in args if is_tensor(a))  # type: ignore[attr-defined]
    shapes = [v.shape for v in values]
    out = manual("checkpoint", joined, tuple(nodes), backward)
    if len(computed) == 1:
        parts = iter([out])
    else:
        cuts = np.cumsum([0] + [v.size for v in values])
        parts = iter([out[int(a) : int(b)].reshape(v.shape) for a, b, v in zip(cuts[:-1], cuts[1:], values, strict=True)])
    wanted = {id(y) for y in computed}
    result = tuple(next(parts) if id(y) in wanted else y for y in outputs)
    return result if many else result[0]
