"""What ties operations to the places where users find them: Tensor's operators and methods, NumPy's names."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.protocols import asked, implements, untracked
from ..core.tensor import UNTRACKED, Tensor, is_tensor, wrap
from ..errors import DtypeError, ShapeError
from . import elementwise, indexing, linalg, reduction, shaping
from .shapes import axis_of

_OPERATORS = {
    "add": elementwise.add, "sub": elementwise.subtract, "mul": elementwise.multiply, "truediv": elementwise.divide,
    "floordiv": elementwise.floor_divide, "mod": elementwise.mod, "pow": elementwise.power, "matmul": linalg.matmul,
    "and": elementwise.bitwise_and, "or": elementwise.bitwise_or, "xor": elementwise.bitwise_xor,
}  # fmt: skip
_IN_PLACE = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide, "pow": np.power, "floordiv": np.floor_divide,
    "mod": np.mod, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip
_COMPARISONS = {
    "lt": elementwise.less, "le": elementwise.less_equal, "gt": elementwise.greater,
    "ge": elementwise.greater_equal, "eq": elementwise.equal, "ne": elementwise.not_equal,
}  # fmt: skip


def _reflected(operation: Any) -> Any:
    return lambda self, other: operation(other, self)


def _in_place(operation: Any, ufunc: np.ufunc) -> Any:
    return lambda self, other: self._inplace(other, operation, ufunc)


def _comparison(operation: Any) -> Any:
    # A value that is no number is never equal: `t == None` is False, as for any object.
    return lambda self, other: NotImplemented if other is None or isinstance(other, str | dict | type) else operation(self, other)


for _key, _operation in _OPERATORS.items():
    setattr(Tensor, f"__{_key}__", _operation)
    setattr(Tensor, f"__r{_key}__", _reflected(_operation))
for _key, _ufunc in _IN_PLACE.items():
    setattr(Tensor, f"__i{_key}__", _in_place(_OPERATORS[_key], _ufunc))
for _key, _operation in _COMPARISONS.items():
    setattr(Tensor, f"__{_key}__", _comparison(_operation))
for _key, _operation in {"neg": elementwise.negative, "pos": elementwise.positive, "abs": elementwise.absolute, "invert": elementwise.invert}.items():
    setattr(Tensor, f"__{_key}__", _operation)
setattr(Tensor, "__getitem__", indexing.getitem)  # noqa: B010
setattr(Tensor, "__hash__", object.__hash__)  # noqa: B010


def _unary_methods() -> dict[str, Any]:
    names = "exp log sqrt square sin cos tan sinh cosh tanh sigmoid relu softplus"
    return {name: getattr(elementwise, name) for name in names.split()}


def _numpy_method(name: str) -> Any:
    """A method of ndarray that gives integers, bools or plain values."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        result = asked(name, getattr(np.ndarray, name), (self, *args), kwargs)
        return wrap(np.asarray(result)) if isinstance(result, np.generic) else result

    method.__name__ = name
    method.__doc__ = f"As ``numpy.ndarray.{name}``, on the values."
    return method


def _transposed(self: Tensor) -> Tensor:
    """The tensor with its axes reversed."""
    return shaping._transpose(self)  # type: ignore[no-any-return]


def _matrix_transposed(self: Tensor) -> Tensor:
    """The tensor with its last two axes in each other's place."""
    if self.ndim < 2:
        raise ShapeError(f"mT: expected at least two dimensions, got shape {self.shape}")
    return shaping.swapaxes(self, -1, -2)  # type: ignore[no-any-return]


def around(a: Any, decimals: int = 0, out: None = None) -> Any:
    """Rounded values, which do not require grad."""
    return elementwise._around(a, decimals)


def _astype(self: Tensor, dtype: Any, copy: bool = True) -> Tensor:
    """The tensor in another dtype; to integers or bools it loses the gradient."""
    try:
        target = np.dtype(dtype)
    except TypeError as error:
        raise DtypeError(f"astype: {error}") from error
    if target.kind not in "biuf":
        raise DtypeError(f"astype: dtype {target} is not supported, expected floats, integers or bools")
    if target.kind != "f":
        return elementwise._discretised(self, target)  # type: ignore[no-any-return]
    if target == self.dtype and not copy:
        return self
    return elementwise.astype(self, target)  # type: ignore[no-any-return]


def astype(x: Any, dtype: Any, /, *, copy: bool = True) -> Any:
    """The values in another dtype; the gradient comes back in the tensor's own.

    >>> import tinygrad_rnn as tg
    >>> tg.astype(tg.tensor([1.5]), "float64").dtype
    dtype('float64')
    """
    return _astype(x, dtype, copy) if is_tensor(x) else np.asarray(x).astype(dtype, copy=copy)


def _reduced(operation: Any) -> Any:
    """A reduction as a method: NumPy's ``where=`` and ``initial=`` too."""
    numpy_function = getattr(np, operation.__name__)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return numpy_function(self, *args, **kwargs) if kwargs.keys() & {"where", "initial", "out"} else operation(self, *args, **kwargs)

    method.__name__, method.__doc__ = operation.__name__, operation.__doc__
    return method


def _sorted(self: Tensor, axis: int = -1, kind: Any = None) -> Tensor:
    """A sorted tensor (not in place, as ndarray's method is)."""
    return indexing.sort(self, axis, kind)  # type: ignore[no-any-return]


_METHODS: dict[str, Any] = {
    **_unary_methods(),
    **{name: _reduced(getattr(reduction, name)) for name in ("sum", "mean", "prod", "max", "min", "var", "std", "cumsum", "cumprod", "ptp")},
    **{name: getattr(reduction, name) for name in ("norm", "logsumexp", "softmax", "log_softmax")},
    **{name: getattr(shaping, name) for name in ("reshape", "ravel", "transpose", "swapaxes", "squeeze", "repeat", "copy", "expand_dims", "flip", "broadcast_to", "moveaxis", "split")},
    **{name: getattr(linalg, name) for name in ("dot", "matmul", "diagonal", "trace", "outer")},
    **{name: _numpy_method(name) for name in ("argmax", "argmin", "argsort", "argpartition", "nonzero", "searchsorted", "any", "all", "tobytes")},
    "flatten": shaping.ravel, "abs": elementwise.absolute, "clip": elementwise.clip, "take": indexing.take, "sort": _sorted,
    "astype": _astype, "round": around, "__round__": lambda self, digits=0: around(self, digits or 0), "conj": elementwise.positive,
}  # fmt: skip
for _key, _method in _METHODS.items():
    setattr(Tensor, _key, _method)
setattr(Tensor, "T", property(_transposed))  # noqa: B010
setattr(Tensor, "mT", property(_matrix_transposed))  # noqa: B010
setattr(Tensor, "real", property(lambda self: self))  # noqa: B010

_NUMPY: dict[Any, Any] = {
    np.dot: linalg.dot, np.inner: linalg.inner, np.vdot: linalg.vdot, np.outer: linalg.outer, np.tensordot: linalg.tensordot, np.kron: linalg.kron,
    np.cross: linalg.cross, np.trace: linalg.trace, np.diagonal: linalg.diagonal, np.diag: linalg.diag, np.tril: linalg.tril, np.triu: linalg.triu,
    np.linalg.norm: reduction.norm, np.average: reduction.average, np.median: indexing.median,
    np.take: indexing.take, np.take_along_axis: indexing.take_along_axis, np.sort: indexing.sort, np.astype: astype,
    np.linalg.outer: lambda x1, x2, /: linalg.outer(x1, x2), np.linalg.matmul: lambda x1, x2, /: linalg.matmul(x1, x2),
    np.linalg.tensordot: lambda x1, x2, /, *, axes=2: linalg.tensordot(x1, x2, axes), np.linalg.diagonal: lambda x, /, *, offset=0: linalg.diagonal(x, offset, -2, -1),
    np.linalg.trace: lambda x, /, *, offset=0: linalg.trace(x, offset, -2, -1), np.linalg.cross: lambda x1, x2, /, *, axis=-1: linalg.cross(x1, x2, axis),
    np.matrix_transpose: lambda x, /: shaping.swapaxes(x, -1, -2), np.linalg.matrix_transpose: lambda x, /: shaping.swapaxes(x, -1, -2),
}  # fmt: skip
for _function, _operation in _NUMPY.items():
    implements(_function)(_operation)
for _name in shaping.__all__:
    implements(getattr(np, _name))(getattr(shaping, _name))
implements(np.permute_dims)(shaping.transpose)
implements(np.concat)(shaping.concatenate)
if hasattr(np, "matvec"):
    implements(np.matvec)(lambda x, y: linalg.matmul(x, shaping.expand_dims(y, -1))[..., 0])
    implements(np.vecmat)(lambda x, y: linalg.matmul(shaping.expand_dims(x, -2), y)[..., 0, :])
implements(np.vecdot)(lambda x, y: reduction.sum(elementwise.multiply(x, y), axis=-1))
implements(np.fabs)(elementwise.absolute)
implements(np.radians)(elementwise.deg2rad)
implements(np.degrees)(elementwise.rad2deg)
implements(np.conjugate)(elementwise.positive)
implements(np.heaviside)(lambda x, y: elementwise.where(elementwise.equal(x, 0), y, elementwise.greater(x, 0).astype(np.result_type(x.dtype, np.float32))))
implements(np.copysign)(lambda x, y: x * elementwise.where(elementwise.equal(elementwise.signbit(x), elementwise.signbit(y)), 1.0, -1.0))
implements(np.real, np.real_if_close)(lambda a, *_: a)


@implements(np.einsum)
def _np_einsum(*operands: Any, out: None = None, optimize: Any = False, **_: Any) -> Any:
    return linalg.einsum(*operands)


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    """Differences of neighbours along an axis, n times.

    >>> import tinygrad_rnn as tg
    >>> tg.diff(tg.tensor([1.0, 4.0, 9.0]))
    tensor([3., 5.], float32)
    """
    if n < 0:
        raise ShapeError(f"diff: n must not be negative, got {n}")
    k = axis_of("diff", axis, np.ndim(a))
    for _ in range(n):
        a = a[(slice(None),) * k + (slice(1, None),)] - a[(slice(None),) * k + (slice(None, -1),)]
    return a


@implements(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> Any:
    """The integral along an axis by the trapezoidal rule.

    >>> import tinygrad_rnn as tg
    >>> tg.trapezoid(tg.tensor([1.0, 2.0, 3.0])).item()
    4.0
    """
    y = shaping.moveaxis(y, axis, -1)
    steps = dx if x is None else diff(x) if np.ndim(x) == 1 else diff(shaping.moveaxis(x, axis, -1))
    return reduction.sum((y[..., 1:] + y[..., :-1]) * 0.5 * steps, axis=-1)


@implements(np.where)
def _np_where(condition: Any, *branches: Any) -> Any:
    return elementwise.where(condition, *branches) if branches else untracked(np.nonzero, (condition,), {})


@implements(np.select)
def _np_select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    if len(condlist) != len(choicelist):
        raise ShapeError(f"select: {len(condlist)} conditions and {len(choicelist)} choices")
    out = default
    for condition, choice in reversed(list(zip(condlist, choicelist, strict=True))):
        out = elementwise.where(condition, choice, out)
    return out


@implements(np.modf)
def _np_modf(x: Any) -> Any:
    whole = elementwise.trunc(x)
    return x - whole, whole


@implements(np.divmod)
def _np_divmod(x: Any, y: Any) -> Any:
    return elementwise.floor_divide(x, y), elementwise.mod(x, y)


@implements(np.full_like)
def _np_full_like(a: Any, fill_value: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, **_: Any) -> Any:
    target = np.dtype(dtype) if dtype is not None else a.dtype
    shape = a.shape if shape is None else shape
    return shaping.broadcast_to(fill_value, shape).astype(target) if is_tensor(fill_value) else wrap(np.full(shape, fill_value, target))


def _around(a: Any, decimals: int = 0, out: None = None) -> Any:
    return np.round(a, decimals)


for _name in (
    "argmax argmin argsort argwhere argpartition nanargmax nanargmin nonzero flatnonzero count_nonzero searchsorted digitize any all shape ndim size isclose allclose "
    "array_equal array_equiv iscomplexobj isrealobj iscomplex isreal isposinf isneginf zeros_like ones_like empty_like result_type can_cast min_scalar_type common_type "
    "may_share_memory shares_memory array_repr array_str array2string lexsort isin in1d bincount fix round around rint"
).split():
    if hasattr(np, _name):
        UNTRACKED[getattr(np, _name)] = getattr(np, _name)
UNTRACKED[np.round] = UNTRACKED[np.around] = _around
