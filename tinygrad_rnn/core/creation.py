"""Tensors made from nothing: zeros, ones, ranges and random numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError
from .state import current
from .tensor import Tensor, is_tensor, restated, settings, tensor, wrap


def _shape(what: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    try:
        lengths = tuple(operator.index(n) for n in given)
    except TypeError as error:
        raise DtypeError(f"{what}: the shape must be integers, got {given!r}") from error
    if any(n < 0 for n in lengths):
        raise ShapeError(f"{what}: negative lengths in the shape {lengths}")
    return lengths


def _made(what: str, make: Callable[[], np.ndarray], requires_grad: bool, name: str | None) -> Tensor:
    try:
        data = make()
    except Exception as error:
        raise restated(what, error) from error
    if data.dtype.kind not in "biuf":
        raise DtypeError(f"{what}: dtype {data.dtype} is not supported, expected floats, integers or bools")
    result = wrap(data)
    result._name = name
    return result.requires_grad_() if requires_grad else result


def zeros(*shape: Any, dtype: Any = None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """Zeros of the default dtype. The shape is a tuple or several integers.

    >>> import tinygrad_rnn as tg
    >>> tg.zeros(2)
    tensor([0., 0.], float32)
    """
    return _made("zeros", lambda: np.zeros(_shape("zeros", shape), dtype or settings.dtype), requires_grad, name)


def ones(*shape: Any, dtype: Any = None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """Ones of the default dtype. The shape is a tuple or several integers.

    >>> import tinygrad_rnn as tg
    >>> tg.ones((1, 2))
    tensor([[1., 1.]], float32)
    """
    return _made("ones", lambda: np.ones(_shape("ones", shape), dtype or settings.dtype), requires_grad, name)


def full(shape: Any, fill_value: Any, *, dtype: Any = None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """One value everywhere; a float takes the default dtype, an integer stays one.

    >>> import tinygrad_rnn as tg
    >>> tg.full((2,), 7.0)
    tensor([7., 7.], float32)
    """
    if dtype is None:
        dtype = tensor(fill_value).dtype
    value = fill_value._data if is_tensor(fill_value) else fill_value
    lengths = _shape("full", (shape,) if not isinstance(shape, tuple | list) else tuple(shape))
    return _made("full", lambda: np.full(lengths, value, dtype), requires_grad, name)


def eye(n: int, m: int | None = None, k: int = 0, *, dtype: Any = None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """Ones on the k-th diagonal of an (n, m) matrix, zeros elsewhere.

    >>> import tinygrad_rnn as tg
    >>> tg.eye(2)
    tensor([[1., 0.], [0., 1.]], float32)
    """
    return _made("eye", lambda: np.eye(n, m, k, dtype or settings.dtype), requires_grad, name)


def arange(*bounds: Any, dtype: Any = None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """Numbers from start to stop in steps; integers if the bounds are, else the default dtype.

    >>> import tinygrad_rnn as tg
    >>> tg.arange(3)
    tensor([0, 1, 2], int64)
    """
    if not 1 <= len(bounds) <= 3:
        raise ShapeError(f"arange: expected stop, or start, stop and step, got {len(bounds)} numbers")

    def make() -> np.ndarray:
        if len(bounds) == 3 and bounds[2] == 0:
            raise ValueError("the step must not be 0")
        data = np.arange(*bounds, dtype=dtype)
        return data.astype(settings.dtype) if dtype is None and data.dtype.kind == "f" else data

    return _made("arange", make, requires_grad, name)


def linspace(start: float, stop: float, num: int = 50, *, endpoint: bool = True, dtype: Any = None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """Evenly spaced numbers over an interval.

    >>> import tinygrad_rnn as tg
    >>> tg.linspace(0, 1, 3)
    tensor([0., 0.5, 1.], float32)
    """
    return _made("linspace", lambda: np.linspace(start, stop, num, endpoint=endpoint, dtype=dtype or settings.dtype), requires_grad, name)


def generator(rng: Any) -> np.random.Generator:
    """The generator that ``rng=`` names: a Generator, a seed, or None for one that differs in every process."""
    if rng is None:
        return settings.rng
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, int | np.integer | np.random.SeedSequence | list | tuple):
        return np.random.default_rng(rng)
    raise DtypeError(f"rng: expected a numpy Generator or a seed, got {type(rng).__name__}")


def draw(make: Callable[[], np.ndarray]) -> np.ndarray:
    """Random numbers, the same again where a computation is repeated (see :func:`checkpoint`)."""
    draws = current().draws
    return make() if draws is None else draws.next(make)


class Draws:
    """Random numbers in the order in which a computation drew them, to be given out again."""

    def __init__(self) -> None:
        self.drawn: list[np.ndarray] = []
        self.place = 0

    def next(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        if self.place == len(self.drawn):
            self.drawn.append(make())
        self.place += 1
        return self.drawn[self.place - 1]


def randn(*shape: Any, rng: Any = None, dtype: Any = None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """Standard normal numbers; ``rng`` is a numpy Generator or a seed.

    >>> import tinygrad_rnn as tg
    >>> bool((tg.randn(3, rng=1) == tg.randn(3, rng=1)).all())
    True
    """
    lengths, source = _shape("randn", shape), generator(rng)
    return _made("randn", lambda: draw(lambda: source.standard_normal(lengths)).astype(dtype or settings.dtype), requires_grad, name)


def rand(*shape: Any, rng: Any = None, dtype: Any = None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """Uniform numbers in [0, 1); ``rng`` is a numpy Generator or a seed.

    >>> import tinygrad_rnn as tg
    >>> tg.rand(2, 3, rng=0).shape
    (2, 3)
    """
    lengths, source = _shape("rand", shape), generator(rng)

    def make() -> np.ndarray:
        kind = np.dtype(dtype or settings.dtype)
        return draw(lambda: source.random(lengths, np.float32) if kind == np.float32 else source.random(lengths)).astype(kind)

    return _made("rand", make, requires_grad, name)


def _like(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(x: Any, *, dtype: Any = None, requires_grad: bool = False, name: str | None = None, **options: Any) -> Tensor:
        return make(np.shape(x), dtype=dtype or getattr(x, "dtype", None), requires_grad=requires_grad, name=name, **options)

    made.__name__ = made.__qualname__ = f"{make.__name__}_like"
    made.__doc__ = f"As :func:`{make.__name__}`, with the shape and dtype of another array."
    return made


zeros_like, ones_like, randn_like, rand_like = _like(zeros), _like(ones), _like(randn), _like(rand)


def full_like(x: Any, fill_value: Any, *, dtype: Any = None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """One value everywhere, with the shape and dtype of another array."""
    return full(np.shape(x), fill_value, dtype=dtype or getattr(x, "dtype", None), requires_grad=requires_grad, name=name)
