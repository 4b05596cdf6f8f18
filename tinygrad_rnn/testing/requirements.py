"""What a gradient must be beside right: of the argument's shape and dtype, the same twice, linear in the cotangent, and nobody else's memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.tensor import is_tensor
from .compare import Comparison
from .derivative import Array
from .report import Finding
from .subject import Differentiable, Given, Modular, Subject

_SLACK, _LARGE = 64, 1024


def given_requirements(subject: Subject, comparison: Comparison, rng: np.random.Generator) -> Iterator[Finding]:
    """The requirements on the numbers of a hand-written pullback."""
    yield from repeatable(subject, comparison)
    yield from _linear(subject, comparison, rng)


def tensor_requirements(subject: Subject, comparison: Comparison, rng: np.random.Generator) -> Iterator[Finding]:
    """The requirements on the engine's gradients; shapes and dtypes are the sweep's own business."""
    assert isinstance(subject, Differentiable)
    yield from repeatable(subject, comparison)
    yield from _linear(subject, comparison, rng)
    if subject.arguments.single:
        yield from _float32(subject, comparison)


def buffers(subject: Given) -> Iterator[Finding]:
    """One call as a user would make it, in the user's dtypes, with an eye on all memory."""
    args = tuple(np.array(arg) if isinstance(arg, np.ndarray | np.generic) else arg for arg in subject.arguments.args)
    kept = [np.array(a) for a in args if isinstance(a, np.ndarray)]
    with np.errstate(all="ignore"):
        y = subject.f(*args)
        outputs = [np.asarray(y)] if not isinstance(y, tuple | list) else [np.asarray(part) for part in y]
        cotangents = [np.random.default_rng(0).standard_normal(out.shape).astype(out.dtype if out.dtype.kind == "f" else np.float64) for out in outputs]
        g: Any = cotangents[0] if not isinstance(y, tuple | list) else tuple(cotangents)
        before = [c.copy() for c in cotangents]
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        for a, k in zip(arrays, kept, strict=True):
            if not np.array_equal(a, k, equal_nan=True):
                yield Finding("mutation", f"{subject.name} changes its arguments")
                return
        returned = subject.gradients(subject.vjp(args, g))
    for a, k in zip(arrays, kept, strict=True):
        if not np.array_equal(a, k, equal_nan=True):
            yield Finding("mutation", f"the gradient of {subject.name} changes its arguments in place")
            return
    for c, b in zip(cotangents, before, strict=True):
        if not np.array_equal(c, b):
            yield Finding("mutation", f"the gradient of {subject.name} changes the cotangent in place")
            return
    for place, (name, leaf, gradient) in enumerate(zip(subject.names, subject.arguments.leaves, returned, strict=True)):
        if gradient is None:
            continue
        array = np.asarray(gradient)
        wanted = np.shape(leaf._data if is_tensor(leaf) else leaf)
        if array.shape != wanted:
            yield Finding("shape", f"the gradient of {subject.name} for {name} has shape {array.shape}, expected {wanted}", argument=name)
            return
        if hasattr(leaf, "dtype") and array.dtype != leaf.dtype:
            yield Finding("dtype", f"the gradient of {subject.name} for {name} has dtype {array.dtype}, expected {leaf.dtype}", argument=name)
            return
        # A read-only view, such as broadcast_to gives, lets nobody write through it.
        if isinstance(gradient, np.ndarray) and gradient.flags.writeable and gradient.size:
            others = (
                [("the cotangent", c) for c in cotangents] + [("an argument", a) for a in arrays] + [("another gradient", h) for h in returned[:place] if isinstance(h, np.ndarray)]
            )
            for what, other in others:
                if np.shares_memory(gradient, other):
                    yield Finding("aliasing", f"the gradient of {subject.name} for {name} shares its memory with {what}; return a copy", argument=name)
                    return
    with np.errstate(all="ignore"):
        first = [None if r is None else np.array(r) for r in returned]
        subject.vjp(args, tuple(2 * c for c in cotangents) if isinstance(g, tuple) else 2 * cotangents[0])
    for name, then, now in zip(subject.names, first, returned, strict=True):
        if then is not None and not np.array_equal(then, np.asarray(now), equal_nan=True):
            yield Finding("aliasing", f"the gradient of {subject.name} for {name} is overwritten by the next call: it returns a buffer of its own", argument=name)
            return
    if subject.arguments.single:
        yield from _float32_given(subject, args, cotangents, first, isinstance(g, tuple))


def _float32_given(subject: Given, args: tuple[Any, ...], cotangents: list[Array], found: list[Any], nested: bool) -> Iterator[Finding]:
    """The float32 answer against the float64 one for the same numbers."""
    wide = [np.array(leaf._data if is_tensor(leaf) else leaf, np.float64) for leaf in subject.arguments.leaves]

    def answer(values: list[Array]) -> list[Any]:
        g = tuple(c.astype(np.float64) for c in cotangents)
        return subject.gradients(subject.vjp(subject.arguments.put(values), g if nested else g[0]))

    yield from _compared_in_float32(subject, wide, [None if f is None else np.asarray(f, np.float64) for f in found], answer)


def _wide(gradients: list[Any]) -> list[Array | None]:
    return [None if g is None else np.asarray(g, np.float64) for g in gradients]


def _compared_in_float32(subject: Subject, wide: list[Array], found: list[Any], answer: Any) -> Iterator[Finding]:
    eps = float(np.finfo(np.float32).eps)
    rng = np.random.default_rng(1)
    with np.errstate(all="ignore"):
        exact = _wide(answer(wide))
        moved = [_wide(answer([x * (1 + eps * rng.uniform(-1, 1, x.shape)) for x in wide])) for _ in range(3)]
    for k, (name, e, f) in enumerate(zip(subject.names, exact, found, strict=True)):
        if e is None or f is None or not np.isfinite(e).all():
            continue
        near = [m for m in (answers[k] for answers in moved) if m is not None and np.isfinite(m).all()]
        spread = max((float(np.max(np.abs(m - e), initial=0)) for m in near), default=0.0)
        top = float(np.max(np.abs(e), initial=0))
        if top > np.finfo(np.float32).max / 16:
            continue
        slack = _SLACK * (spread + eps * top) * max(1.0, float(np.sqrt(subject.size))) + 1e-37
        worst = np.abs(f - e)
        if not np.all(worst <= slack):
            index = tuple(map(int, np.unravel_index(int(np.argmax(np.where(np.isfinite(worst), worst, np.inf))), worst.shape)))
            yield Finding(
                "float32", f"the gradient of {subject.name} is right in float64 and wrong in float32", name, index, None, float(e[index]), slack / _SLACK, float(f[index])
            )
            return


def _float32(subject: Differentiable, comparison: Comparison) -> Iterator[Finding]:
    if subject.eps > np.finfo(np.float64).eps:
        return
    v = comparison.cotangents[0].astype(np.float32).astype(np.float64)
    wide = [np.array(x) for x in subject.xs]
    subject.dtype = np.float32
    try:
        tensors = subject.tensors(wide)
        with np.errstate(all="ignore"):
            outputs = subject.in_float32(tensors)
            bad = next((y for y in outputs if y.dtype != np.float32), None)
            if bad is not None:
                yield Finding("dtype", f"{subject.name} makes {bad.dtype} of float32 arguments")
                return
            pulled = subject.pull(outputs, tensors, v)
    except Exception as error:
        yield Finding("float32", f"{subject.name} fails in float32, and works in float64: {error}")
        return
    finally:
        subject.dtype = np.float64
    for name, t, g in zip(subject.names, tensors, pulled, strict=True):
        if g is not None and g.dtype != t.dtype:
            yield Finding("dtype", f"the gradient of {subject.name} for {name} has dtype {g.dtype}, expected {t.dtype}", argument=name)
            return
    found = [np.zeros(t.shape) if g is None else np.asarray(g._data, np.float64) for t, g in zip(tensors, pulled, strict=True)]
    yield from _compared_in_float32(subject, wide, found, lambda values: subject.linearise(values)[1](v))


def repeatable(subject: Subject, comparison: Comparison) -> Iterator[Finding]:
    """The same call gives the same answer, to a few last bits."""
    again = subject.value(subject.xs)
    slack = _SLACK * subject.eps
    if again.shape != comparison.y.shape or not _close(again, comparison.y, slack):
        hint = "random numbers must be the same at every call: module.eval() switches dropout off" if isinstance(subject, Modular) else "random numbers must be the same at every call"
        yield Finding("determinism", f"{subject.name} gives other values when it is called again with the same arguments", hint=hint)
        return
    for _ in range(3):
        for name, a, b in zip(subject.names, comparison.gradients[0], comparison.pullback(comparison.cotangents[0]), strict=True):
            if not _close(a, b, slack):
                yield Finding("determinism", f"the gradient of {subject.name} for {name} is another one when it is asked for again", argument=name)
                return


def _close(a: Array, b: Array, slack: float) -> bool:
    top = float(np.max(np.abs(b), initial=0, where=np.isfinite(b)))
    with np.errstate(all="ignore"):
        return bool(np.all((np.abs(a - b) <= slack * top) | (a == b) | (np.isnan(a) & np.isnan(b))))


def _linear(subject: Subject, comparison: Comparison, rng: np.random.Generator) -> Iterator[Finding]:
    """A multiple of the cotangent gives that multiple of the gradient, and sums of cotangents sums of gradients as far as rounding lets them."""
    if not comparison.y.size:
        return
    v = comparison.cotangents[0]
    # Two parts, each zero where the other is not: zeros are what a masked loss sends.
    order = rng.standard_normal(v.shape).argsort()
    w = -v * (order % 2 if v.size > 1 else 0.5)
    with np.errstate(all="ignore"):
        first, second = comparison.gradients[0], comparison.pullback(w)
        minus = comparison.pullback(-_LARGE * v)
        both = comparison.pullback(v + w)
        # How far small parts of the cotangent fail to add up is rounding; a rule that is not linear fails by much more at large ones.
        small = [v * rng.uniform(-1, 1, v.shape) * 2.0 ** (-10 if subject.eps > 1e-12 else -20) for _ in range(2)]
        pairs = [(comparison.pullback(v + s), comparison.pullback(s)) for s in small]
    outputs = float(np.sum(np.abs(v * np.where(comparison.finite, comparison.y, 0))))
    for k, name in enumerate(subject.names):
        a, b, c, m = first[k], second[k], both[k], minus[k]
        noises = [np.abs(moved[k] - a - part[k]) for moved, part in pairs]
        if np.isfinite(a).all() and not (np.isfinite(b).all() and np.isfinite(c).all()):
            yield Finding("linearity", f"the gradient of {subject.name} for {name} is finite for one cotangent, and not for one with zeros", argument=name)
            return
        if not all(np.isfinite(part).all() for part in (a, b, c, m, *noises)):
            continue
        spread = max(float(np.max(noise, initial=0)) for noise in noises) + subject.eps * float(np.max(np.abs(a) + np.abs(b), initial=0))
        tiny = float(np.finfo(np.float32 if subject.eps > 1e-12 else np.float64).tiny)
        # What a large part of the cotangent absorbs of a small one is no more than rounding of the values is.
        absorbed = subject.eps * outputs / comparison.scales[k]
        if np.any(np.abs(m / _LARGE + a) > _SLACK * spread + tiny) or np.any(np.abs(c - a - b) > _SLACK * (spread + absorbed) + tiny):
            yield Finding("linearity", f"the gradient of {subject.name} for {name} is not linear in the cotangent", argument=name)
            return
