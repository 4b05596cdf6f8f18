"""Module and Parameter: models as plain Python objects whose attributes are their weights and parts."""

from __future__ import annotations

import contextlib
import html
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any, cast

import numpy as np

from ..core.anomaly import note_line
from ..core.state import current, installed, no_grad, plain
from ..core.tensor import Tensor, is_tensor, tensor, wrap
from ..errors import DtypeError, ShapeError

Member = "Tensor | Module"


class _ParameterType(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return is_tensor(value) and getattr(value, "_is_parameter", False)


class Parameter(metaclass=_ParameterType):
    """A leaf tensor that belongs to a module: a float ndarray, list or Tensor, copied; gradients on request.

    What it makes is a plain Tensor with a mark, so that operations stay on their fast path;
    ``isinstance(t, nn.Parameter)`` asks for the mark.

    >>> from tinygrad_rnn import nn
    >>> nn.Parameter([1.0, 2.0])
    tensor([1., 2.], float32, requires_grad)
    """

    def __new__(cls, data: Any, requires_grad: bool = True, *, name: str | None = None) -> Tensor:  # type: ignore[misc]
        result = tensor(data, requires_grad=requires_grad, name=name)
        result._is_parameter = True
        return result


_PLAIN = {int, float, str, bool, bytes, type(None)}
_OWN = {"_config", "_name", "_modules", "_cells", "_walked", "_named"}


class Changes:
    """The last time that a module got other parts or names: what a walk found holds as long as this is the same object."""

    last = object()


def parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The parameters and modules in an attribute: itself, or those in a list, tuple or dict, with their paths."""
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind is Tensor or not isinstance(value, list | tuple | dict):
        if isinstance(value, Module) or (is_tensor(value) and value._is_parameter):
            yield name, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        # Long lists of plain numbers and strings should cost little.
        if type(item) not in _PLAIN:
            yield from parts(f"{name}.{key}", item)


class Module:
    """A part of a model: set parameters and modules as attributes, and write ``forward``.

    Nothing is to be registered: parameters and modules are found in the attributes, also in lists, tuples and
    dicts. A call runs ``forward`` in a scope of the module's name, which listings and pictures show.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self, n):
    ...         self.weight = nn.Parameter(tg.ones(n))
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> model = nn.Sequential(Scale(2), nn.ReLU())
    >>> [name for name, _ in model.named_parameters()]
    ['0.weight']
    >>> model(tg.tensor([1.0, -1.0]))
    tensor([1., 0.], float32, from=relu)
    """

    training: bool = True
    _name: str | None = None
    _config: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = object.__new__(cls)
        object.__setattr__(self, "_config", (args, kwargs))
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A function that built the module is of no use in a copy, and a lambda cannot be pickled.
        args, kwargs = self._config
        plain_config = tuple(_elided if isinstance(a, FunctionType) else a for a in args), {k: v for k, v in kwargs.items() if not isinstance(v, FunctionType)}
        return {name: value for name, value in self.__dict__.items() if name not in ("_walked", "_named")} | {"_config": plain_config}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What a call computes."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state = plain(current())
        if self._name is None and state.recording:
            self._name_parts()
        inner = state.replace(scope=(*state.scope, (self._name or type(self).__name__, None)))
        with installed(inner):
            try:
                out = self.forward(*args, **kwargs)
            except (ShapeError, DtypeError) as error:
                self._locate(error)
                raise
        for observer in state.observers:
            if hasattr(observer, "called"):
                observer.called(self, inner.scope, out)
        return out

    def _locate(self, error: ShapeError | DtypeError) -> None:
        """Put the module's path in front of a message: each module on the way out adds its name."""
        path = getattr(error, "_path", None)
        text = str(error) if path is None else error._text  # type: ignore[union-attr]
        path = f"{self._name or type(self).__name__}{'' if path is None else f'.{path}'}"
        error._path, error._text = path, text  # type: ignore[union-attr]
        error.args = (f"{path}: {text}",)

    def __setattr__(self, name: str, value: Any) -> None:
        other = type(value) not in _PLAIN or type(self.__dict__.get(name)) not in _PLAIN
        object.__setattr__(self, name, value)
        if other:
            Changes.last = object()
        if name not in _OWN:
            for path, part in parts(name, value):
                if isinstance(part, Module):
                    part._rename(path)
                    part._name_parameters(f"{path}.")
                elif part.name is None:
                    part.name, part._named_by_module = path, True

    def _name_parts(self) -> None:
        """Give all modules and parameters below this one their names again; a list may have grown since it was set."""
        if self.__dict__.get("_named") is Changes.last:
            return
        tree, closed = self._walk()
        for module in {id(part): part for part in (self, *(part for _, part in tree)) if isinstance(part, Module)}.values():
            if type(module) is not ModuleList:
                for path, part in module._members():
                    if part._name != path and isinstance(part, Module):
                        part._rename(path)
                        Changes.last = object()
        self._name_parameters("", tree)
        if closed:
            # One that shares parts with this one may have given them other names.
            self.__dict__["_named"] = Changes.last
            self.__dict__["_walked"] = Changes.last, tree

    def _walk(self) -> tuple[list[tuple[str, Any]], bool]:
        """Every parameter and module below this one with its path, and whether that holds until an attribute is set: a list may grow."""
        known = self.__dict__.get("_walked")
        if known is not None and known[0] is Changes.last:
            return known[1], True
        tree = list(self._tree())
        attributes = [item for part in (self, *(part for _, part in tree)) if isinstance(part, Module) for item in part.__dict__.items()]
        closed = not any(isinstance(value, list | tuple | dict) and name not in _OWN for name, value in attributes)
        if closed:
            self.__dict__["_walked"] = Changes.last, tree
        return tree, closed

    def _name_parameters(self, prefix: str, tree: Iterable[tuple[str, Any]] | None = None) -> None:
        for path, parameter in self._parameters(self._tree() if tree is None else tree):
            if (parameter._named_by_module or parameter.name is None) and parameter.name != prefix + path:
                parameter.name, parameter._named_by_module = prefix + path, True
                Changes.last = object()

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        Changes.last = object()

    def _rename(self, name: str | None) -> None:
        object.__setattr__(self, "_name", name)

    def _members(self) -> Iterator[tuple[str, Any]]:
        for name, value in self.__dict__.items():
            if type(value) not in _PLAIN and name not in _OWN:
                yield from parts(name, value)

    def _tree(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Every parameter and module below this one with its path, as often as it is reached."""
        for name, part in self._members():
            yield prefix + name, part
            if isinstance(part, Module):
                yield from part._tree(f"{prefix}{name}.")

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter with its path, a shared one once, in the order of the attributes."""
        return self._parameters(self._walk()[0])

    @staticmethod
    def _parameters(tree: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Tensor]]:
        """Of what a walk reaches, the parameters, each once."""
        seen: set[int] = set()
        for path, part in tree:
            if not isinstance(part, Module) and id(part) not in seen:
                seen.add(id(part))
                yield path, part

    def parameters(self) -> list[Tensor]:
        """Every parameter, a shared one once."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module, with the path ``""``, and every module below it with its path, a shared one once."""
        seen = {id(self)}
        yield "", self
        for path, part in self._walk()[0]:
            if isinstance(part, Module) and id(part) not in seen:
                seen.add(id(part))
                yield path, part

    def modules(self) -> list[Module]:
        """This module and every one below it."""
        return [module for _, module in self.named_modules()]

    def named_children(self) -> list[tuple[str, Module]]:
        return [(name, part) for name, part in self._members() if isinstance(part, Module)]

    def children(self) -> list[Module]:
        """The modules directly below this one."""
        return [module for _, module in self.named_children()]

    def num_parameters(self, trainable: bool = False) -> int:
        """How many numbers the parameters hold, shared ones once; only those that require grad on request."""
        return sum(p.size for p in self.parameters() if p.requires_grad or not trainable)

    def apply(self, function: Callable[[Module], Any]) -> Any:
        """Call a function on every module below this one, and then on it. Returns the module."""
        for module in reversed(self.modules()):
            function(module)
        return self

    def train(self, mode: bool = True) -> Any:
        """Training mode here and below: dropout drops. Returns the module."""
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self) -> Any:
        """Evaluation mode here and below: dropout passes everything. Returns the module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Freeze (False) or thaw every parameter here and below. Returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter._grad = None

    def to(self, dtype: Any) -> Any:
        """Convert every parameter to a floating dtype, in place of the old values. Returns the module."""
        kind = np.dtype(dtype)
        if kind.kind != "f":
            raise DtypeError(f"to: expected a floating dtype, got {kind}")
        for parameter in self.parameters():
            wanted = parameter.requires_grad
            parameter.requires_grad_(False)._data = parameter._data.astype(kind)
            parameter.zero_grad()
            parameter.requires_grad_(wanted)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Path -> the parameter's values, detached and sharing memory; a tied parameter under each of its paths."""
        return {path: part.detach() for path, part in self._tree() if not isinstance(part, Module)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy values (arrays or Tensors) into the parameters; returns the missing and the unexpected paths.

        Raises ``ShapeError`` that lists every missing, unexpected and mis-shaped entry, and changes nothing then;
        ``strict=False`` allows missing and unexpected ones.
        """
        own = {path: part for path, part in self._tree() if not isinstance(part, Module)}
        missing = [path for path in own if path not in state_dict]
        unexpected = [path for path in state_dict if path not in own]
        # Copies, for a value may be another parameter of this module.
        values = {path: (value._data if is_tensor(value := state_dict[path]) else np.asarray(value)).copy() for path in own if path in state_dict}
        wrong = [f"{path} has shape {v.shape}, expected {own[path].shape}" for path, v in values.items() if v.shape != own[path].shape]
        wrong += [f"{path} has dtype {v.dtype}, expected {own[path].dtype}" for path, v in values.items() if v.dtype.kind not in "fiub"]
        tied: dict[int, str] = {}
        for path, value in values.items():
            first = tied.setdefault(id(own[path]), path)
            if first != path and value.shape == values[first].shape and not np.array_equal(value, values[first], equal_nan=True):
                wrong.append(f"{path} is tied to {first}, but their values differ")
        if strict:
            wrong += [f"{path} is missing" for path in missing] + [f"{path} is unexpected" for path in unexpected]
        if wrong:
            raise ShapeError(f"load_state_dict into {type(self).__name__}, nothing changed:\n  " + "\n  ".join(wrong))
        with no_grad():
            for path, value in values.items():
                own[path].assign_(value.astype(own[path].dtype, copy=False))
        return missing, unexpected

    def __repr__(self) -> str:
        """The call that made the module, and its parts below it."""
        args, kwargs = self._config
        defaults = {name: p.default for name, p in inspect.signature(type(self).__init__).parameters.items()}
        left_out = {name for name, value in kwargs.items() if name == "rng" or _is_part(value) or (name in defaults and _is_equal(value, defaults[name]))}
        shown = [_short(a) for a in args if not _is_part(a)] + [f"{k}={_short(v)}" for k, v in kwargs.items() if k not in left_out]
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._shown_children()]
        return "\n".join([f"{type(self).__name__}({', '.join(shown)})", *lines])

    def _shown_children(self) -> list[tuple[str, Module]]:
        return self.named_children()

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{html.escape(path)}</code></td><td>{html.escape(str(p.shape))}</td><td>{p.size:,}</td><td>{p.dtype}{'' if p.requires_grad else ', frozen'}</td></tr>"
            for path, p in self.named_parameters()
        )
        return f"<pre>{html.escape(repr(self))}</pre><table><tr><th>parameter</th><th>shape</th><th>size</th><th>dtype</th></tr>{rows}</table>"

    def summary(self, *example: Any, **options: Any) -> Any:
        """A table of modules, output shapes, parameters and floating-point operations for one call on an example.

        Shared parameters are counted once and marked; a multiplication with its addition counts as two operations.

        >>> import tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn
        >>> print(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).summary(tg.zeros(5, 4)))
        module  kind        output  parameters  operations
                Sequential  (5, 3)          15         150
        0       Linear      (5, 3)          15         135
        1       ReLU        (5, 3)           0          15
        """
        from .summary import summarize

        return summarize(self, example, options)

    def graph(self, *args: Any, depth: str = "op", fold: Any = "auto", rolled: bool = False, gradients: bool = False, values: bool = False, name: str | None = None, theme: str = "light") -> Any:
        """Run the module on an example and draw what it did: :func:`tinygrad_rnn.graph` of all tensors that it returns.

        The run is one of single operations, so that each knows the line of your code that called it.
        Raises ``TapeError`` if the outputs need no gradient.

        >>> import tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn
        >>> nn.RNN(3, 4, rng=0).graph(tg.zeros(5, 2, 3), depth="cell").steps
        5
        """
        from ..drawing import graph
        from ..replay import tree

        state = plain(current())
        with installed(state.replace(recording=True, observers=(*state.observers, note_line))):
            outputs = [t for t in tree.leaves(self(*args)) if is_tensor(t) and t.requires_grad]
        options: dict[str, Any] = {"depth": depth, "fold": fold, "rolled": rolled, "gradients": gradients, "values": values, "theme": theme}
        return graph(outputs, name=name or type(self).__name__, **options)


def _elided() -> None:
    """Stands for a function in the copy of how a module was made."""


def _is_part(value: Any) -> bool:
    return isinstance(value, Module | Parameter | FunctionType) or (isinstance(value, list | tuple) and any(map(_is_part, value)))


def _is_equal(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and isinstance(value, bool | int | float | str | tuple) and value == default)


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode for a ``with`` block; every module gets back the mode that it had."""
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, Module) else []
    try:
        for module, _ in modes:
            object.__setattr__(module, "training", False)
        yield
    finally:
        for module, training in modes:
            object.__setattr__(module, "training", training)


def _short(value: Any) -> str:
    text = np.dtype(value).name if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)) else repr(value)
    return text if len(text) < 60 else "..."


class ModuleList(Module):
    """Modules in a list: index, iterate, append; a plain list as an attribute does as well.

    >>> from tinygrad_rnn import nn
    >>> len(nn.ModuleList([nn.Linear(2, 2), nn.ReLU()]))
    2
    """

    def __init__(self, modules: Any = ()) -> None:
        self._modules: list[Module] = []
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Any:
        if not isinstance(module, Module):
            raise DtypeError(f"{type(self).__name__}: expected modules, got {type(module).__name__}")
        self._modules.append(module)
        Changes.last = object()
        self._rename(self._name)
        self._name_parameters("" if self._name is None else f"{self._name}.")
        return self

    def _rename(self, name: str | None) -> None:
        # A plain list is never called, so that its modules carry its name in theirs.
        self._name = name
        for k, module in enumerate(self._modules):
            module._rename(f"{name}.{k}" if name and type(self) is ModuleList else str(k))

    def _members(self) -> Iterator[tuple[str, Any]]:
        return ((str(k), module) for k, module in enumerate(self._modules))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules)

    def __getitem__(self, index: int | slice) -> Any:
        return type(self)(self._modules[index]) if isinstance(index, slice) else self._modules[index]


class Sequential(ModuleList):
    """Modules one after another, each on the output of the one before.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.Sequential(nn.Linear(4, 3), nn.Tanh())(tg.zeros(2, 4)).shape
    (2, 3)
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def __getitem__(self, index: int | slice) -> Any:
        return Sequential(*self._modules[index]) if isinstance(index, slice) else self._modules[index]

    def forward(self, x: Any) -> Any:
        for module in self._modules:
            x = module(x)
        return x


def sizes(shape: tuple[int, ...], names: str) -> str:
    """A shape with its lengths bound to names: ``time=5 batch=3 features=7``."""
    bound = names.split()
    return " ".join(f"{name}={n}" for name, n in zip(bound, shape, strict=True)) if len(bound) == len(shape) else f"shape {shape}"


def same_dtype(what: str, x: Tensor, weight: Tensor) -> None:
    """Refuse to mix floating dtypes, and say which to convert."""
    if x.dtype is not weight.dtype and x.dtype != weight.dtype and x.dtype.kind == "f":
        raise DtypeError(f"{what} is {x.dtype}, the weights are {weight.dtype}; convert it with .astype('{weight.dtype}'), or the module with .to('{x.dtype}')")


def lift(what: str, x: Any, kind: str = "f") -> Tensor:
    """An argument as a tensor, an ndarray without a copy; refuses dtypes of another kind."""
    t = x if is_tensor(x) else wrap(np.asarray(x)) if isinstance(x, np.ndarray) else tensor(x)
    if t.dtype.kind not in kind:
        expected = "floats" if kind == "f" else "integers"
        raise DtypeError(f"{what} has dtype {t.dtype}, expected {expected}")
    return cast(Tensor, t)
