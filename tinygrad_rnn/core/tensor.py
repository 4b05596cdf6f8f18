"""Tensor: an ndarray plus its place on the tape; its creation, and NumPy's protocols."""

from __future__ import annotations

import collections
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import AxisError, DtypeError, GradientError, OutOfRangeError, ShapeError, TapeError, TinygradError
from . import tape as _tape
from .state import current, enable_grad, installed, plain, writes
from .tape import Array, Constant, Leaf, Record, Tape, sweep

FUNCTIONS: dict[Any, Callable[..., Any]] = globals().get("FUNCTIONS", {})
"""NumPy function or ufunc -> the operation that stands for it."""

UNTRACKED: dict[Any, Callable[..., Any]] = globals().get("UNTRACKED", {})
"""NumPy functions whose results are integers, bools or shapes: they read the value."""


class _Settings:
    def __init__(self) -> None:
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        self._rng: np.random.Generator | None = None

    @property
    def rng(self) -> np.random.Generator:
        """The generator of tensors whose ``rng=`` is not given; numpy.random loads when it is used."""
        if self._rng is None:
            self._rng = np.random.default_rng()
        return self._rng


settings: _Settings = globals().get("settings") or _Settings()


def copied(new: np.ndarray, old: Any) -> np.ndarray:
    """Tell observers that an array holds a tensor's values, so that it is no constant of theirs; returns the array."""
    state = current()
    if state.special and is_tensor(old):
        for observer in state.observers:
            if hasattr(observer, "same"):
                observer.same(new, old)
    return new


def reading(what: str) -> None:
    """Tell observers who ask for it that Python looks at a value: what runs next may depend on it."""
    state = current()
    if state.special:
        for observer in state.observers:
            if hasattr(observer, "read"):
                observer.read(what)


def restated(call: str, error: Exception) -> Exception:
    """An error of NumPy as ours, which names the call; one that is ours already, or of another kind, stays what it is."""
    if isinstance(error, TinygradError):
        return error
    text = str(error)
    kinds: tuple[tuple[type[Exception], type[Exception]], ...] = (
        (np.exceptions.AxisError, AxisError), (IndexError, OutOfRangeError), (ValueError, ShapeError), (TypeError, DtypeError),
    )  # fmt: skip
    for builtin, ours in kinds:
        if isinstance(error, builtin):
            if ours is ShapeError and "axis" in text and ("duplicate" in text or "repeated" in text):
                ours = AxisError
            return ours(f"{call}: {text}")
    error.add_note(f"in {call}")
    return error


def short(value: Any) -> str:
    """What a value is, in a few words for messages."""
    if is_tensor(value):
        value = value._data
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, list | tuple) and any(is_tensor(v) or isinstance(v, np.ndarray) for v in value):
        return "[" + ", ".join(map(short, value)) + "]"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


_previous: Any = globals().get("Tensor")


class Tensor:
    """An n-dimensional array that remembers how it was computed. Make one with :func:`tensor`.

    Operators, NumPy's methods and NumPy's functions work on it as on an ndarray; ``backward()`` fills
    ``.grad`` of the tensors that were made with ``requires_grad=True``.

    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x ** 2).sum().backward()
    >>> x.grad
    tensor([2., 4., 6.], float32)
    """

    _is_tinygrad_tensor = True
    _is_parameter = False
    _named_by_module = False
    _data: np.ndarray
    _node: Record | None = None
    _grad: Tensor | None = None
    _frozen: Record | None = None
    _name: str | None = None
    _constant: Constant | None = None
    _source: np.ndarray | None = None

    __array_priority__ = 1000.0
    __hash__ = object.__hash__

    def __init__(self, data: Any, *, requires_grad: bool = False, dtype: Any = None, name: str | None = None) -> None:
        self._data = _array(data, dtype)
        self._name = name
        if requires_grad:
            self.requires_grad_()

    @property
    def data(self) -> np.ndarray:
        """The values as a read-only view; assigning writes in place, as :meth:`assign_` does."""
        return self.numpy()

    @data.setter
    def data(self, value: Any) -> None:
        with installed(current().replace(recording=False)):
            self.assign_(value)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward passes have added up, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            value = as_tensor(value)
            if value.shape != self.shape:
                raise ShapeError(f"grad: got shape {value.shape}, expected {self.shape} as the tensor's")
            if value.dtype != self.dtype:
                raise DtypeError(f"grad: got dtype {value.dtype}, expected {self.dtype} as the tensor's")
        self._grad = value

    @property
    def name(self) -> str | None:
        """A name for listings and pictures."""
        node = self._node
        return self._name if node is None or node.is_leaf else node.name or self._name

    @name.setter
    def name(self, value: str | None) -> None:
        self._name, self._constant = value, None
        if self._node is not None:
            self._node.label = value

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return self._data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._data.dtype

    @property
    def itemsize(self) -> int:
        return self._data.itemsize

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to or through this tensor."""
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was made by the user and not by a recorded operation."""
        return self._node is None or self._node.is_leaf

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for a gradient of this tensor, or no longer; returns the tensor.

        Raises ``DtypeError`` for a dtype that is not floating, ``GradientError`` on a computed tensor.
        """
        if not self.is_leaf:
            if requires_grad:
                return self
            raise GradientError(f"requires_grad: {self._node!r} is computed, only leaf tensors can stop requiring grad; use .detach()")
        if not requires_grad:
            # Hooks hang on the leaf: it comes back when the tensor is thawed.
            self._frozen, self._node = self._node or self._frozen, None
        elif self._node is None:
            if self._data.dtype.kind != "f":
                raise DtypeError(f"requires_grad: only floating-point tensors have gradients, got dtype {self.dtype}; convert with .astype(tg.float32)")
            self._node, self._frozen = self._frozen or Leaf(self, self._data), None
            self._node.shape, self._node.dtype = self._data.shape, self._data.dtype
        return self

    def numpy(self) -> np.ndarray:
        """The values as a read-only view of the tensor's memory."""
        reading("the values of a tensor were read")
        view = self._data.view()
        view.flags.writeable = False
        return view

    def item(self, *index: int) -> Any:
        """The value of a one-element tensor (or of the element at ``index``) as a Python number."""
        reading("item() was called")
        try:
            return self._data.item(*index)
        except (ValueError, IndexError) as error:
            raise ShapeError(f"item: {error}; the tensor has shape {self.shape}") from error

    def tolist(self) -> Any:
        reading("tolist() was called")
        return self._data.tolist()

    def detach(self) -> Tensor:
        """The same values, cut off the tape; the memory is shared."""
        reading("detach() was called")
        result = wrap(self._data)
        result._name = self.name
        if self._node is not None and not self._node.is_leaf:
            result._constant = Constant(result._name, self._data.shape, self._data.dtype, self._node.index)
        return result

    def backward(self, gradient: Any = None, *, retain_graph: bool | None = None, create_graph: bool = False) -> None:
        """Add the gradient of this tensor to ``.grad`` of every leaf that it depends on.

        ``gradient`` is the cotangent, of the tensor's shape; a tensor of one element needs none.
        ``retain_graph`` keeps the values that the pass needs, for another pass; ``create_graph`` records the
        pass itself, so that gradients can be differentiated. An error or Ctrl-C leaves every ``.grad`` as
        it was.

        Raises ``GradientError`` for a cotangent that does not fit, ``TapeError`` when there is no tape, when
        an earlier pass released it, or when a kept value was changed in place.
        """
        node = self._node
        if node is None:
            raise TapeError(f"backward: {self!r} has no graph: nothing that it was computed from requires grad, or it was computed under no_grad or by operations without a gradient")
        g = cotangent("backward", self, gradient, create_graph)
        commit(run_sweep([(node, g)], retain_graph=create_graph if retain_graph is None else retain_graph, create_graph=create_graph))

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self._grad = None

    def retain_grad(self) -> None:
        """Keep the gradient of this computed tensor in ``.grad`` too, as long as the tensor lives."""
        reading("retain_grad() was called")
        if self._node is None:
            raise GradientError("retain_grad: this tensor does not require grad")
        if not self.is_leaf:
            _tape.RETAINED[self._node] = weakref.ref(self)

    def register_hook(self, hook: Callable[[Tensor], Any]) -> Callable[[], None]:
        """Call ``hook(gradient)`` when a backward pass has this tensor's gradient; what it returns replaces it.

        Returns a function that removes the hook.
        """
        reading("register_hook() was called")
        if self._node is None:
            raise GradientError("register_hook: this tensor does not require grad")
        hooks = _tape.HOOKS.setdefault(self._node, [])
        hooks.append(hook)

        def remove() -> None:
            if hook in hooks:
                hooks.remove(hook)

        return remove

    def assign_(self, value: Any) -> Tensor:
        """Write values into the tensor's memory; records that kept the old ones will refuse a backward pass.

        Raises ``GradientError`` on a tensor that takes part in recording: write under ``tg.no_grad()``.
        """
        self._writable("assign_")
        value = value._data if is_tensor(value) else value
        try:
            value = _operand(value)
            if np.shape(value) != self.shape:
                np.broadcast_to(value, self.shape)
            np.copyto(np.empty(0, self.dtype), _without_elements(value), casting="same_kind")
            self._write(lambda data: np.copyto(data, value, casting="same_kind"))
        except Exception as error:
            raise restated(f"assign_({short(self)}, {short(value)})", error) from error
        return self

    def _writable(self, what: str) -> None:
        if self._node is None:
            return
        if not self.is_leaf:
            raise GradientError(f"{what}: this tensor is computed ({self._node.where()}) and its value may be needed by the backward pass; use tg.where or an operation that makes a new tensor")
        if plain(current()).recording:
            raise GradientError(f"{what}: {self._describe()} is a leaf that requires grad; change it inside `with tg.no_grad():`")

    def _write(self, change: Callable[[np.ndarray], Any]) -> None:
        """Change the memory. It counts as written from the start on: what can be refused is refused before."""
        reading("a tensor was changed in place")
        data = self._data
        if not data.flags.writeable:
            data = self._data = data.copy()
        writes.note(data)
        change(data)

    def _inplace(self, other: Any, operation: Callable[..., Any], ufunc: np.ufunc) -> Tensor:
        """``self += other``: writes where nothing is recorded; a computed tensor gives way to a new one."""
        recording = plain(current()).recording
        if recording and (not self.is_leaf or (self._node is None and is_tensor(other) and other._node is not None)):
            return operation(self, other)  # type: ignore[no-any-return]
        what = f"in-place {ufunc.__name__}"
        self._writable(what)
        if not self.is_leaf:
            return operation(self, other)  # type: ignore[no-any-return]
        value = other._data if is_tensor(other) else other.item() if isinstance(other, np.generic) else other
        try:
            value = _operand(value)
            if type(value) is np.ndarray and value.shape != self.shape:
                shape = np.broadcast_shapes(self.shape, value.shape)
                if shape != self.shape:
                    raise ShapeError(f"{what}: the result has shape {shape}, the tensor {self.shape}")
            nothing = np.empty(0, self.dtype)
            ufunc(nothing, _without_elements(value), out=nothing, casting="same_kind")
            self._write(lambda data: ufunc(data, value, out=data, casting="same_kind"))
        except Exception as error:
            raise restated(f"{what}({short(self)}, {short(value)})", error) from error
        return self

    def _describe(self) -> str:
        return f"tensor{' ' + repr(self.name) if self.name else ''} of shape {self.shape}"

    def __setitem__(self, index: Any, value: Any) -> None:
        self._writable("item assignment")
        if is_tensor(value) and value._node is not None and plain(current()).recording:
            raise GradientError("item assignment: the value requires grad and the assignment is not recorded; use tg.where or tg.concatenate to make a new tensor")
        index = tuple(i._data if is_tensor(i) else i for i in index) if isinstance(index, tuple) else index._data if is_tensor(index) else index
        value = value._data if is_tensor(value) else value
        try:
            place = np.shape(self._data[index])
            array = np.asarray(value, self.dtype if isinstance(value, int | float) else None)
            if array.dtype.kind not in "biuf":
                raise TypeError(f"expected numbers or bools, got dtype {array.dtype}")
            if isinstance(value, list | tuple):
                array = np.asarray(value, self.dtype)
            if array.ndim and array.shape != place:
                # As NumPy has it: axes of length 1 in front do not count.
                array = np.broadcast_to(array.reshape(array.shape[max(array.ndim - len(place), 0) :]), place)
            self._write(lambda data: data.__setitem__(index, array))
        except Exception as error:
            raise restated(f"item assignment(index={short(index)}, value={short(value)}, tensor={short(self)})", error) from error

    def __len__(self) -> int:
        if not self._data.ndim:
            raise DtypeError("len: a 0-d tensor has no length")
        return len(self._data)

    def __iter__(self) -> Iterator[Tensor]:
        if not self._data.ndim:
            raise DtypeError("iteration over a 0-d tensor")
        return (self[k] for k in range(len(self._data)))

    def __contains__(self, value: Any) -> bool:
        reading("`in` was asked for")
        return bool((self._data == (value._data if is_tensor(value) else value)).any())

    def _scalar(self, what: str) -> np.ndarray:
        reading(f"{what}() of a tensor was asked for, as an `if` does")
        if self._data.size != 1:
            raise ShapeError(f"{what}: a tensor of shape {self.shape} is not one value; use .any(), .all(), .item() or an index")
        return self._data.reshape(())

    def __bool__(self) -> bool:
        return bool(self._scalar("bool"))

    def __float__(self) -> float:
        return float(self._scalar("float"))

    def __int__(self) -> int:
        return int(self._scalar("int"))

    def __complex__(self) -> complex:
        return complex(self._scalar("complex"))

    def __index__(self) -> int:
        reading("a tensor was used as an index")
        if self._data.dtype.kind not in "iu" or self._data.ndim:
            raise DtypeError(f"an index must be a 0-d integer, got {self.dtype} {self.shape}")
        return int(self._data)

    def __format__(self, spec: str) -> str:
        return format(self._data.item(), spec) if spec and self._data.size == 1 else format(str(self), spec)

    def __repr__(self) -> str:
        """One line: the values if they are few, else their range."""
        data, shape = self._data, self.shape
        if data.size <= 12:
            text = np.array2string(data, separator=", ", max_line_width=10_000, formatter={"float_kind": _number})
            text = " ".join(text.split())
        elif data.dtype.kind == "f":
            finite = data[np.isfinite(data)]
            bad = data.size - finite.size
            text = f"min {finite.min():.4g}, mean {finite.mean(dtype=np.float64):.4g}, max {finite.max():.4g}" if finite.size else "no finite value"
            text += f", {bad} not finite" if bad else ""
        else:
            text = f"min {data.min()}, max {data.max()}"
        parts = [text, *([f"shape={shape}"] if data.size > 12 or not data.size else []), str(self.dtype)]
        if self.name:
            parts.append(f"name={self.name!r}")
        if not self.is_leaf:
            parts.append(f"from={self._node.op.name}")  # type: ignore[union-attr]
        elif self._node is not None:
            parts.append("requires_grad")
        return f"tensor({', '.join(parts)})"

    def __str__(self) -> str:
        return repr(self) if self._data.size > 1000 else str(self._data)

    def __copy__(self) -> Tensor:
        self._refuse_non_leaf("copy")
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        self._refuse_non_leaf("deepcopy")
        result = tensor(self._data, requires_grad=self.requires_grad, name=self._name)
        result._grad = None if self._grad is None else wrap(self._grad._data.copy())
        result._is_parameter, result._named_by_module = self._is_parameter, self._named_by_module
        memo[id(self)] = result
        return result

    def __reduce__(self) -> Any:
        self._refuse_non_leaf("pickle")
        return _rebuild, (np.ascontiguousarray(self._data).reshape(self.shape), self.requires_grad, self._name, None if self._grad is None else self._grad._data, self._is_parameter, self._named_by_module)

    def _refuse_non_leaf(self, what: str) -> None:
        if not self.is_leaf:
            raise TapeError(f"{what}: this tensor is computed ({self._node.where()}): copying it would need its whole graph. Only leaf tensors can be copied; use .detach()")  # type: ignore[union-attr]

    def _export(self, what: str) -> np.ndarray:
        reading("a tensor was made an array")
        if self._node is not None:
            raise TapeError(
                f"{what}: this tensor requires grad, and a plain array would drop its gradient without a word; "
                "use .numpy() for the values, .detach() for a tensor without gradient, or a tg function instead of the NumPy one"
            )
        return self._data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        data = self._export("np.asarray")
        if dtype is not None and np.dtype(dtype) != data.dtype:
            if copy is False:
                raise ValueError(f"a copy is needed to convert {data.dtype} to {np.dtype(dtype)}")
            return data.astype(dtype)
        return data.copy() if copy else self.numpy()

    def __dlpack__(self, **options: Any) -> Any:
        return self._export("dlpack").__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._data.__dlpack_device__()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        from .protocols import call_ufunc

        return call_ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from .protocols import call_function

        return call_function(function, args, kwargs)

    if TYPE_CHECKING:
        # Attached by the modules of operations, which know this class and not the other way round.
        @property
        def T(self) -> Tensor: ...
        @property
        def mT(self) -> Tensor: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __iadd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __isub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __imul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __itruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __ipow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __getattr__(self, method: str) -> Callable[..., Tensor]: ...


# After a reload the operations that were attached to the class before are still its methods.
for _name in () if _previous is None else vars(_previous).keys() - vars(Tensor).keys():
    setattr(Tensor, _name, vars(_previous)[_name])
if _previous is not None:
    for _name in ("__eq__", "__hash__"):
        setattr(Tensor, _name, vars(_previous)[_name])


def _operand(value: Any) -> Any:
    """A Python number, which takes the dtype of what it meets, or an array."""
    return value if isinstance(value, int | float) else np.asarray(value)


def _without_elements(operand: Any) -> Any:
    """What lets NumPy judge whether the dtype fits, with nothing to write."""
    return operand if isinstance(operand, int | float) else np.empty(0, operand.dtype)


def _number(value: Any) -> str:
    size = float(abs(value))
    if size and (size < 1e-4 or size >= 1e6) and np.isfinite(value):
        return np.format_float_scientific(value, precision=4, trim=".")
    return np.format_float_positional(value, precision=4, trim=".")


def wrap(data: np.ndarray, node: Record | None = None) -> Tensor:
    """A Tensor on this very array."""
    result = object.__new__(Tensor)
    result._data = data
    if node is not None:
        result._node = node
    return result


def is_tensor(value: Any) -> bool:
    """Whether a value is a Tensor, also one made before this module was reloaded."""
    return type(value) is Tensor or hasattr(type(value), "_is_tinygrad_tensor")


def describe(value: Any) -> Any:
    """What a record keeps of an operand that needs no gradient."""
    if is_tensor(value):
        if value._constant is None:
            value._constant = Constant(value.name, value._data.shape, value._data.dtype)
        return value._constant
    if isinstance(value, np.ndarray):
        return Constant(None, value.shape, value.dtype)
    return value


def as_tensor(value: Any) -> Tensor:
    """The tensor itself, or a tensor on an array without a copy where none is needed."""
    if is_tensor(value):
        return value  # type: ignore[no-any-return]
    return wrap(np.asarray(value)) if isinstance(value, np.ndarray) else tensor(value)


def _array(data: Any, dtype: Any) -> np.ndarray:
    """A fresh array: an ndarray's dtype is kept, Python floats take the default dtype."""
    if is_tensor(data):
        data = data._data
    source = data
    python = not hasattr(data, "dtype")
    if python and isinstance(data, list | tuple):
        source = _plain_list(data)
        python = not any(hasattr(v, "dtype") for v in source)
    try:
        array = np.array(source, dtype=None if dtype is None else np.dtype(dtype), order="C")
    except TinygradError:
        raise
    except ValueError as error:
        raise ShapeError(f"tensor: the nested sequences have no common shape: {error}") from error
    except TypeError as error:
        raise DtypeError(f"tensor: cannot make an array of {type(data).__name__}: {error}") from error
    if array.dtype.kind not in "biuf":
        raise DtypeError(f"tensor: dtype {array.dtype} is not supported, expected floats, integers or bools")
    if dtype is None and python and array.dtype.kind == "f":
        array = array.astype(settings.dtype)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _plain_list(data: Any) -> Any:
    if is_tensor(data):
        if data._node is not None:
            raise GradientError("tensor: a list of tensors that require grad would lose its gradients; use tg.stack or tg.concatenate")
        return data._data
    return [_plain_list(v) for v in data] if isinstance(data, list | tuple) else data


def tensor(data: Any, *, requires_grad: bool = False, dtype: Any = None, name: str | None = None) -> Tensor:
    """A tensor with a copy of the data.

    An ndarray keeps its dtype; Python floats take the default dtype, float32 unless
    :func:`set_default_dtype` changed it; Python ints and bools stay integers and bools.

    Raises ``DtypeError`` for strings, complex numbers and other objects, and for ``requires_grad`` on a dtype
    that is not floating; ``ShapeError`` for ragged lists.

    >>> import tinygrad_rnn as tg
    >>> tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True, name="W")
    tensor([[1., 2.], [3., 4.]], float32, name='W', requires_grad)
    """
    return Tensor(data, requires_grad=requires_grad, dtype=dtype, name=name)


def _rebuild(data: np.ndarray, requires_grad: bool, name: str | None, grad: np.ndarray | None, is_parameter: bool = False, named_by_module: bool = False) -> Tensor:
    result = tensor(data, requires_grad=requires_grad, name=name)
    result._is_parameter, result._named_by_module = is_parameter, named_by_module
    result._grad = None if grad is None else wrap(grad)
    return result


def set_default_dtype(dtype: Any) -> None:
    """Set the dtype of tensors made from Python floats and by creation functions: float32 at first.

    >>> import numpy as np, tinygrad_rnn as tg
    >>> tg.set_default_dtype(np.float64)
    >>> tg.zeros(2).dtype
    dtype('float64')
    >>> tg.set_default_dtype(np.float32)
    """
    try:
        chosen = np.dtype(dtype)
    except TypeError as error:
        raise restated("set_default_dtype", error) from error
    if chosen.kind != "f":
        raise DtypeError(f"set_default_dtype: expected a floating dtype, got {chosen}")
    settings.dtype = chosen


def get_default_dtype() -> np.dtype[Any]:
    """The dtype of tensors made from Python floats and by creation functions."""
    return settings.dtype


def cotangent(what: str, output: Tensor, gradient: Any, create_graph: bool) -> Any:
    """The cotangent of an output as the sweep takes it, checked."""
    if gradient is None:
        if output.size != 1:
            raise GradientError(f"{what}: the output has shape {output.shape}; give the cotangent (gradient=...), or reduce it to one value first, as with .sum()")
        g: Any = np.ones(output.shape, output.dtype)
    else:
        try:
            g = gradient if is_tensor(gradient) else np.asarray(gradient, output.dtype if isinstance(gradient, list | tuple) else None)
        except (ValueError, TypeError) as error:
            raise restated(f"{what}: the cotangent", error) from error
        if g.shape != output.shape:
            raise GradientError(f"{what}: the cotangent has shape {g.shape}, expected {output.shape} as the output's")
        if isinstance(gradient, int | float):
            g = np.asarray(gradient, output.dtype)
        if g.dtype != output.dtype:
            raise DtypeError(f"{what}: the cotangent has dtype {g.dtype}, expected {output.dtype} as the output's; convert it with .astype")
    if create_graph:
        return g if is_tensor(g) else wrap(np.array(g))
    return g._data if is_tensor(g) else g


def commit(results: dict[Record, tuple[Array, bool]]) -> None:
    """Add the gradients to ``.grad`` of their tensors, all of them or none.

    The last step runs in one C call, so that Ctrl-C comes before or after it.
    """
    owners, gradients = [], []
    for record, (g, owned) in results.items():
        tensor = cast(Leaf, record).tensor() if record.is_leaf else _tape.RETAINED[record]() if record in _tape.RETAINED else None
        if tensor is None:
            continue
        if tensor._grad is not None:
            g = tensor._grad + g if is_tensor(g) else tensor._grad._data + g
        elif is_tensor(g):
            g = wrap(g._data, g._node)
        elif not owned:
            g = np.array(g)
        owners.append(tensor)
        gradients.append(g if is_tensor(g) else wrap(np.asarray(g)))
    collections.deque(map(setattr, owners, itertools.repeat("_grad"), gradients), maxlen=0)


def run_sweep(roots: Sequence[tuple[Record, Any]], targets: Any = None, **options: Any) -> dict[Record, tuple[Any, bool]]:
    """A sweep, recorded if it is to be differentiated."""
    if not options.get("create_graph"):
        return sweep(roots, targets, **options)
    with installed(enable_grad().derive(plain(current()))):
        return sweep(roots, targets, **options)


def tape(*outputs: Tensor) -> Tape:
    """The tape of one or several outputs: the records that they depend on, in execution order.

    Raises ``TapeError`` for a tensor without a graph. See :class:`Tape`.
    """
    roots = []
    for output in outputs:
        if not is_tensor(output):
            raise DtypeError(f"tape: expected a tensor, got {type(output).__name__}")
        if output._node is None:
            raise TapeError(f"tape: {output!r} has no graph: it requires no grad, or was computed under no_grad")
        roots.append(output._node)
    return Tape(roots)


__all__ = ["FUNCTIONS", "UNTRACKED", "Tensor", "get_default_dtype", "set_default_dtype", "tape", "tensor"]

