"""Optimisers that change parameters in place, gradient clipping, and learning-rate schedules, with PyTorch's names and formulas.

>>> import tinygrad_rnn as tg
>>> from tinygrad_rnn import optim
>>> w = tg.tensor([3.0, -2.0], requires_grad=True)
>>> optimizer = optim.Adam([w], lr=0.1)
>>> schedule = optim.StepLR(optimizer, step_size=100, gamma=0.5)
>>> for _ in range(200):
...     optimizer.zero_grad()
...     (w * w).sum().backward()
...     norm = optim.clip_grad_norm_([w], max_norm=1.0)
...     loss = optimizer.step()
...     schedule.step()
>>> bool(abs(w).max() < 0.01), schedule.get_last_lr()
(True, [0.025])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .core.state import enable_grad
from .core.tensor import Tensor, is_tensor, wrap
from .errors import DtypeError, GradientError, ShapeError

Array = np.ndarray
Rule = Callable[[str, Any], Any]
"""What a setting is named in messages, and its value: gives the value as a plain Python one, or raises."""

BLOCK = 256 * 1024
"""Bytes of one array in a block. Smaller ones cost more calls, larger ones gain nothing and leave the caches: benchmarks/optim.py."""

ROW = 8192
"""Elements that one BLAS product adds up for a norm: more would start its threads."""

STRIP = 32
"""Columns of a transposed matrix that are copied at once."""


def _real(what: str, value: Any, low: float = 0.0, high: float = math.inf, below: bool = False) -> float:
    """A finite float in [low, high], or in [low, high)."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise DtypeError(f"{what}: got {value!r} of type {type(value).__name__}, expected a number") from None
    if not (low <= number <= high and math.isfinite(number)) or (below and number == high):
        interval = f"of at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}{')' if below else ']'}"
        raise ValueError(f"{what}: got {value!r}, expected a finite number {interval}")
    return number


def _whole(what: str, value: Any, low: int = 0) -> int:
    number = _real(what, value, low)
    if number != int(number):
        raise ValueError(f"{what}: got {value!r}, expected a whole number of at least {low}")
    return int(number)


def _flag(what: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise DtypeError(f"{what}: got {value!r} of type {type(value).__name__}, expected True or False")
    return bool(value)


def _one_of(what: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{what}: got {value!r}, expected one of {', '.join(map(repr, choices))}")
    return str(value)


def _list_of(what: str, value: Any, rule: Rule, length: int) -> list[Any]:
    values = value.tolist() if isinstance(value, Array) else value
    if not isinstance(values, list | tuple):
        raise DtypeError(f"{what}: got {value!r} of type {type(value).__name__}, expected {length} numbers")
    if len(values) != length:
        raise ValueError(f"{what}: got {len(values)} numbers, expected {length}")
    return [rule(f"{what}[{k}]", v) for k, v in enumerate(values)]


def _betas(what: str, value: Any) -> tuple[float, float]:
    first, second = _list_of(what, value, _DECAY, 2)
    return first, second


_DECAY: Rule = partial(_real, high=1.0, below=True)
_FRACTION: Rule = partial(_real, high=1.0)


def _checked(where: str, rules: Mapping[str, Rule], given: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """Every setting that the rules name, checked; what is wrong goes to the faults."""
    values = {}
    for name, rule in rules.items():
        if name not in given:
            faults.append(f"{where}{name} is missing")
            continue
        try:
            values[name] = rule(f"{where}{name}", given[name])
        except (TypeError, ValueError) as error:
            faults.append(str(error))
    return values


def _refuse(what: str, faults: list[str]) -> None:
    if faults:
        raise ShapeError(f"{what}: the state does not fit, nothing was changed: " + "; ".join(faults))


def _label(tensor: Tensor, position: int) -> str:
    return f"{tensor.name!r} of shape {tensor.shape}" if tensor.name else f"parameter {position} of shape {tensor.shape}"


def _tensors(what: str, params: Any) -> list[Tensor]:
    """A list of the tensors, checked to be such."""
    if isinstance(params, Mapping | set | frozenset | str) or not isinstance(params, Iterable):
        raise DtypeError(f"{what}: params is of type {type(params).__name__}, expected an ordered iterable of tensors, as [w, b] or model.parameters()")
    tensors = list(params)
    for k, p in enumerate(tensors):
        if not is_tensor(p):
            hint = "; from named_parameters() pass [p for _, p in ...]" if isinstance(p, tuple) else ""
            raise DtypeError(f"{what}: params[{k}] is of type {type(p).__name__}, expected a Tensor{hint}")
    return tensors


class _Piece(NamedTuple):
    """A part of a parameter that is worked on at once, and its place in the flat state."""

    owner: int
    part: tuple[Any, ...]
    shape: tuple[int, ...]
    start: int
    stop: int


def _pieces(owner: int, shape: tuple[int, ...], start: int, limit: int, outer: tuple[int, ...] = ()) -> Iterator[_Piece]:
    """Cut an array along its first axes into parts of at most ``limit`` elements, about equal, in C order."""
    size = math.prod(shape)
    if not shape or size <= limit:
        yield _Piece(owner, (*outer, ...), shape, start, start + size)
        return
    rest = size // shape[0]
    if rest > limit:
        for k in range(shape[0]):
            yield from _pieces(owner, shape[1:], start + k * rest, limit, (*outer, k))
        return
    rows = math.ceil(shape[0] / math.ceil(shape[0] / (limit // rest)))
    for k in range(0, shape[0], rows):
        n = min(rows, shape[0] - k)
        yield _Piece(owner, (*outer, slice(k, k + n), ...), (n, *shape[1:]), start + k * rest, start + (k + n) * rest)


class _Store:
    """The parameters of one group and dtype, and their state in flat arrays.

    A block is a list of pieces that follow each other in the flat arrays: one piece of a large parameter,
    or many small parameters, which are gathered so that they cost as much as one.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.dtype = parameters[0].dtype
        self.steps = [0] * len(parameters)
        self.live = [False] * len(parameters)
        self.places: list[slice] = [slice(0)] * len(parameters)
        self.blocks: list[list[_Piece]] = []
        self.arrays: dict[str, Array] = {}
        self.size = 0
        limit = max(1, BLOCK // self.dtype.itemsize)
        small = limit // 4
        filled = limit + 1
        for k in sorted(range(len(parameters)), key=lambda k: parameters[k].size <= small):
            size = parameters[k].size
            pieces = list(_pieces(k, parameters[k].shape, self.size, limit)) if size else []
            if size > small:
                self.blocks += [[piece] for piece in pieces]
            else:
                if filled + size > limit:
                    self.blocks.append([])
                    filled = 0
                self.blocks[-1] += pieces
                filled += size
            self.places[k] = slice(self.size, self.size + size)
            self.size += size
        self.longest = max([block[-1].stop - block[0].start for block in self.blocks if block], default=0)

    def array(self, name: str, start: float) -> Array:
        """A flat state array; one of zeros takes no memory before it is written."""
        if name not in self.arrays:
            self.arrays[name] = np.full(self.size, start, self.dtype) if start else np.zeros(self.size, self.dtype)
        return self.arrays[name]

    def view(self, name: str, k: int) -> Array:
        return self.arrays[name][self.places[k]].reshape(self.parameters[k].shape)

    def runs(self, gradients: Sequence[Array | None]) -> Iterator[list[_Piece]]:
        """The blocks, cut where a parameter has no gradient or has taken another number of steps."""
        for block in self.blocks:
            run: list[_Piece] = []
            for piece in block:
                if gradients[piece.owner] is None or (run and self.steps[piece.owner] != self.steps[run[0].owner]):
                    if run:
                        yield run
                    run = []
                if gradients[piece.owner] is not None:
                    run.append(piece)
            if run:
                yield run


def _nothing(data: Array) -> None:
    """The change for ``Tensor._write`` where the values are written later."""


def _gathered(arrays: Sequence[Any], run: list[_Piece], scratch: Array) -> Array:
    """The values of a run as a flat array: a view of a contiguous piece, else copies in the scratch."""
    first = run[0]
    if len(run) == 1:
        array: Array = arrays[first.owner][first.part]
        if array.flags.c_contiguous:
            return array.reshape(-1)
    for owner, part, shape, start, stop in run:
        _copy(arrays[owner][part], scratch[start - first.start : stop - first.start].reshape(shape))
    return scratch[: run[-1].stop - first.start]


def _copy(source: Array, target: Array) -> None:
    """Copy into a C-contiguous array. A transposed matrix goes in strips, so that a line of the cache is read once and not for every element."""
    if source.ndim == 2 and source.strides[0] < source.strides[1] and source.shape[0] >= STRIP:
        for k in range(0, source.shape[1], STRIP):
            np.copyto(target[:, k : k + STRIP], source[:, k : k + STRIP])
    else:
        np.copyto(target, source)


class Optimizer:
    """What the optimisers share: parameter groups, state in flat arrays, and :meth:`step`.

    ``param_groups`` is a list of dicts with ``"params"`` and the settings, which may be changed between steps.
    The parameters are floating-point leaf tensors; those that do not require grad, or have no ``.grad``, are
    skipped. A class of its own gives ``_rules``, ``_names``, ``_constants`` and ``_update``.

    Raises ``ShapeError`` (a ``ValueError``) for no parameters, a parameter that is listed twice or is computed,
    ``DtypeError`` for what is not a floating-point tensor, ``ValueError`` for a setting out of range.

    >>> import tinygrad_rnn as tg
    >>> w, b = tg.ones((2, 3), requires_grad=True), tg.ones(3, requires_grad=True)
    >>> optimizer = tg.optim.SGD([{"params": [w], "lr": 0.1}, {"params": b}], lr=0.01)
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.1, 0.01]
    """

    _rules: ClassVar[dict[str, Rule]] = {}
    _arrays: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: Any, **defaults: Any) -> None:
        self.defaults = {name: rule(f"{type(self).__name__}: {name}", defaults[name]) for name, rule in self._rules.items()}
        self.param_groups: list[dict[str, Any]] = []
        self._stores: list[list[_Store]] = []
        self._scratch: dict[np.dtype[Any], Array] = {}
        if is_tensor(params) or isinstance(params, Mapping):
            raise DtypeError(f"{type(self).__name__}: params is one {type(params).__name__}, expected a list of tensors or of groups: put it into a list")
        groups = list(params) if isinstance(params, Iterable) and not isinstance(params, set | frozenset | str) else params
        if not isinstance(groups, list) or not any(isinstance(group, Mapping) for group in groups):
            groups = [{"params": groups}]
        for k, group in enumerate(groups):
            if not isinstance(group, Mapping):
                raise DtypeError(f"{type(self).__name__}: params[{k}] is of type {type(group).__name__} among groups, expected a dict with 'params'")
            self.add_param_group(group)

    def add_param_group(self, group: Any) -> None:
        """Add parameters, as of layers that are to be trained from now on: a dict with ``"params"`` and settings of their own."""
        what = type(self).__name__
        if not isinstance(group, Mapping) or "params" not in group:
            raise DtypeError(f"{what}: got {group!r}, expected a group: a dict with 'params' and settings such as 'lr'")
        unknown = [name for name in group if name not in ("params", "name", *self._rules)]
        if unknown:
            raise ValueError(f"{what}: unknown settings {', '.join(map(repr, unknown))} in a group, expected some of {', '.join(self._rules)}")
        params = _tensors(what, [group["params"]] if is_tensor(group["params"]) else group["params"])
        if not params:
            raise ShapeError(f"{what}: the list of parameters is empty; does the model have parameters, or was a generator used up before?")
        seen = {id(p) for listed in self.param_groups for p in listed["params"]}
        for k, p in enumerate(params):
            if p.dtype.kind != "f":
                raise DtypeError(f"{what}: {_label(p, k)} has dtype {p.dtype}, expected a floating one")
            if not p.is_leaf:
                raise ShapeError(f"{what}: {_label(p, k)} is computed, not a leaf; give the tensors that it is computed from, or make it a leaf with .detach().requires_grad_()")
            if id(p) in seen:
                raise ShapeError(f"{what}: {_label(p, k)} is listed twice, in this group or in an earlier one; it would be updated twice")
            seen.add(id(p))
        added = {**self.defaults, **group, "params": params}
        added.update(self._options(added, f"{what}: "))
        by_dtype: dict[np.dtype[Any], list[Tensor]] = {}
        for p in params:
            by_dtype.setdefault(p.dtype, []).append(p)
        self._stores.append([_Store(listed) for listed in by_dtype.values()])
        self.param_groups.append(added)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.zero_grad()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient, in place; gives what ``closure`` returns, which is called first and recorded.

        Tapes that kept the old values refuse a backward pass. No floating-point warnings come from here.
        Raises ``ValueError`` for a setting in ``param_groups`` out of range, before anything is changed.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        made = [sum(len(store.parameters) for store in stores) for stores in self._stores]
        if [len(group["params"]) for group in self.param_groups] != made:
            raise ShapeError(f"{type(self).__name__}.step: param_groups has other parameters than were given; use add_param_group")
        settings = [self._options(group, f"{type(self).__name__}: param_groups[{k}]: ") for k, group in enumerate(self.param_groups)]
        with np.errstate(all="ignore"):
            for options, stores in zip(settings, self._stores, strict=True):
                for store in stores:
                    self._advance(store, options)
        return loss

    def _advance(self, store: _Store, options: dict[str, Any]) -> None:
        flat = [store.array(name, self._start(options)) for name in self._names(options)]
        scratch = self._scratch.get(store.dtype)
        if scratch is None or scratch.shape[1] < store.longest:
            # The rows begin at different places of a page, or the processor takes a store to one for a store to the others.
            scratch = self._scratch[store.dtype] = np.empty((4, store.longest + 80), store.dtype)
        gradients = [None if p._node is None or p._grad is None else p._grad._data for p in store.parameters]
        for k, p in enumerate(store.parameters):
            if gradients[k] is not None:
                p._write(_nothing)
                if flat:
                    store.steps[k] += 1
                    store.live[k] = True
        values = [p._data for p in store.parameters]
        constants: dict[int, tuple[Array, ...]] = {}
        for run in store.runs(gradients):
            step = store.steps[run[0].owner]
            if step not in constants:
                constants[step] = tuple([np.asarray(c, store.dtype) for c in self._constants(options, step)])
            value, g = _gathered(values, run, scratch[0]), _gathered(gradients, run, scratch[1])
            start, stop = run[0].start, run[-1].stop
            self._update(options, constants[step], value, g, scratch[2, : stop - start], scratch[3, : stop - start], *[array[start:stop] for array in flat])
            if value.base is scratch:
                for owner, part, shape, a, b in run:
                    np.copyto(values[owner][part], value[a - start : b - start].reshape(shape))

    def _options(self, group: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {name: rule(where + name, group[name]) for name, rule in self._rules.items()}

    def _names(self, options: dict[str, Any]) -> tuple[str, ...]:
        """The state arrays that an update needs, of ``_arrays``."""
        return self._arrays

    def _start(self, options: dict[str, Any]) -> float:
        """What the state arrays begin with."""
        return 0.0

    def _constants(self, options: dict[str, Any], step: int) -> tuple[float, ...]:
        """The scalars of the update, in double precision."""
        raise NotImplementedError

    def _update(self, options: dict[str, Any], constants: tuple[Array, ...], p: Array, g: Array, s: Array, t: Array, *state: Array) -> None:
        """Change ``p`` and the state, flat arrays of one size; ``s`` and ``t`` are scratch, ``g`` is not to be changed."""
        raise NotImplementedError

    def _places(self) -> Iterator[tuple[int, _Store, int]]:
        """For every parameter in order: its group's index, its store and its index there."""
        for k, (group, stores) in enumerate(zip(self.param_groups, self._stores, strict=True)):
            where = {id(p): (store, j) for store in stores for j, p in enumerate(store.parameters)}
            for p in group["params"]:
                yield k, *where[id(p)]

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state, in PyTorch's layout: a nested dict of Python scalars, lists and ndarrays.

        ``"state"`` has for every parameter, by its number as a string, ``"step"`` and, once it was changed, the state arrays
        in the parameter's shape; ``"param_groups"`` has the settings, with numbers for parameters.
        """
        state: dict[str, dict[str, Any]] = {}
        groups: list[dict[str, Any]] = []
        for k, group in enumerate(self.param_groups):
            options = self._options(group, f"{type(self).__name__}: param_groups[{k}]: ")
            groups.append({**group, **{name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}, "params": []})
        for number, (k, store, j) in enumerate(self._places()):
            groups[k]["params"].append(number)
            names = [name for name in self._arrays if name in store.arrays and store.live[j]]
            state[str(number)] = {"step": store.steps[j], **{name: store.view(name, j).copy() for name in names}}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Any) -> None:
        """Take over a state: the next steps are bit for bit those of the optimiser that it comes from.

        Keys of ``"state"`` may be strings or integers, arrays may be Tensors or ndarrays. Raises ``ShapeError``, which lists all
        that is missing, unexpected or of another shape or dtype, and changes nothing.
        """
        what = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, Mapping) or not isinstance(state_dict.get("state"), Mapping) or not isinstance(state_dict.get("param_groups"), list | tuple):
            raise ShapeError(f"{what}: expected a dict with a dict 'state' and a list 'param_groups', as state_dict() gives")
        faults: list[str] = []
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            faults.append(f"there are {len(saved)} parameter groups, expected {len(self.param_groups)}")
        settings: list[dict[str, Any]] = []
        for k, (old, new) in enumerate(zip(self.param_groups, saved, strict=False)):
            if not isinstance(new, Mapping) or not isinstance(new.get("params"), list | tuple) or len(new["params"]) != len(old["params"]):
                faults.append(f"param_groups[{k}] has not the {len(old['params'])} parameters expected")
                continue
            settings.append(_checked(f"param_groups[{k}]: ", self._rules, new, faults))
        _refuse(what, faults)
        state = {str(key): entry for key, entry in state_dict["state"].items()}
        numbers = [str(number) for group in saved for number in group["params"]]
        faults += [f"state[{key!r}] is of no parameter" for key in state if key not in numbers]
        loaded = []
        for number, (k, store, j) in zip(numbers, self._places(), strict=True):
            p = store.parameters[j]
            where = f"state[{number!r}] ({_label(p, int(number) if number.isdigit() else j)})"
            entry = state.get(number)
            if not isinstance(entry, Mapping):
                faults.append(f"{where} is missing")
                continue
            step = _checked(f"{where}: ", {"step": _whole}, entry, faults).get("step", 0)
            arrays = {name: value._data if is_tensor(value) else np.asarray(value, None if hasattr(value, "dtype") else object) for name, value in entry.items() if name != "step"}
            faults += [f"{where}: {name!r} is not of {type(self).__name__}" for name in arrays if name not in self._arrays]
            faults += [f"{where}: {name!r} is missing" for name in self._names(settings[k]) if step and name not in arrays]
            for name, array in arrays.items():
                if array.shape != p.shape or array.dtype != p.dtype:
                    faults.append(f"{where}: {name!r} is {array.dtype} of shape {array.shape}, expected {p.dtype} of shape {p.shape}")
            loaded.append((k, store, j, step, arrays))
        _refuse(what, faults)
        for k, store, j, step, arrays in loaded:
            store.steps[j], store.live[j] = step, bool(arrays)
            for name in self._arrays:
                if name in store.arrays or name in arrays:
                    store.array(name, self._start(settings[k]))
                    store.view(name, j)[...] = arrays.get(name, self._start(settings[k]))
        for group, new, options in zip(self.param_groups, saved, settings, strict=True):
            group.update({**new, **options, "params": group["params"]})

    def __repr__(self) -> str:
        groups = [", ".join([f"{len(group['params'])} parameters", *(f"{name}={group[name]}" for name in self._rules)]) for group in self.param_groups]
        return f"{type(self).__name__}({'; '.join(groups)})"


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum: ``b = momentum * b + (1 - dampening) * g``, ``p -= lr * b``; the first ``b`` is ``g``.

    With ``nesterov``, ``p -= lr * (g + momentum * b)`` (Sutskever et al. 2013, in PyTorch's form); ``weight_decay`` adds its
    multiple of ``p`` to ``g`` first. Raises as :class:`Optimizer` does.

    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([w], lr=0.5, momentum=0.9)
    >>> w.grad = tg.tensor([1.0, -1.0])
    >>> optimizer.step()
    >>> w.tolist()
    [0.5, 2.5]
    """

    _rules: ClassVar = {"lr": _real, "momentum": _FRACTION, "dampening": _FRACTION, "weight_decay": _real, "nesterov": _flag}
    _arrays = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0, nesterov: bool = False) -> None:
        super().__init__(params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)

    def _options(self, group: Mapping[str, Any], where: str) -> dict[str, Any]:
        options = super()._options(group, where)
        if options["nesterov"] and (not options["momentum"] or options["dampening"]):
            raise ValueError(f"{where}nesterov: needs momentum above 0 and dampening 0, got momentum={options['momentum']} and dampening={options['dampening']}")
        return options

    def _names(self, options: dict[str, Any]) -> tuple[str, ...]:
        return self._arrays if options["momentum"] else ()

    def _constants(self, options: dict[str, Any], step: int) -> tuple[float, ...]:
        return options["lr"], options["momentum"], 1 - options["dampening"] if step > 1 else 1.0, options["weight_decay"]

    def _update(self, options: dict[str, Any], constants: tuple[Array, ...], p: Array, g: Array, s: Array, t: Array, *state: Array) -> None:
        lr, momentum, share, decay = constants
        g = _decayed(g, p, decay, s)
        if state:
            (b,) = state
            np.multiply(b, momentum, out=b)
            if share == 1:
                np.add(b, g, out=b)
            else:
                np.multiply(g, share, out=t)
                np.add(b, t, out=b)
            if options["nesterov"]:
                np.multiply(b, momentum, out=t)
                g = np.add(g, t, out=t)
            else:
                g = b
        np.multiply(g, lr, out=t)
        np.subtract(p, t, out=p)


class RMSprop(Optimizer):
    """RMSprop (Hinton, lecture 6e, 2012): ``v = alpha * v + (1 - alpha) * g**2``, ``p -= lr * g / (sqrt(v) + eps)``.

    ``centered`` subtracts the square of the mean gradient from ``v`` (Graves 2013, section 4.2); ``momentum`` accumulates
    ``g / (sqrt(v) + eps)``. Raises as :class:`Optimizer` does.

    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = tg.optim.RMSprop([w], lr=0.01, alpha=0.75)
    >>> w.grad = tg.tensor([3.0, -4.0])
    >>> optimizer.step()
    >>> w
    tensor([0.98, 2.02], float32, requires_grad)
    """

    _rules: ClassVar = {"lr": _real, "alpha": _DECAY, "eps": _real, "weight_decay": _real, "momentum": _FRACTION, "centered": _flag}
    _arrays = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(self, params: Any, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0, momentum: float = 0, centered: bool = False) -> None:
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered)

    def _names(self, options: dict[str, Any]) -> tuple[str, ...]:
        return ("square_avg", *(["momentum_buffer"] if options["momentum"] else []), *(["grad_avg"] if options["centered"] else []))

    def _constants(self, options: dict[str, Any], step: int) -> tuple[float, ...]:
        return options["lr"], options["alpha"], 1 - options["alpha"], options["eps"], options["weight_decay"], options["momentum"]

    def _update(self, options: dict[str, Any], constants: tuple[Array, ...], p: Array, g: Array, s: Array, t: Array, *state: Array) -> None:
        lr, alpha, share, eps, decay, momentum = constants
        g = _decayed(g, p, decay, s)
        _average_square(state[0], alpha, share, g, t)
        if options["centered"]:
            mean = state[-1]
            np.subtract(g, mean, out=t)
            np.multiply(t, share, out=t)
            np.add(mean, t, out=mean)
            np.multiply(mean, mean, out=t)
            np.subtract(state[0], t, out=t)
            # A variance of nothing but rounding may come out below 0, and its root would be NaN.
            np.maximum(t, 0, out=t)
            np.sqrt(t, out=t)
        else:
            np.sqrt(state[0], out=t)
        np.add(t, eps, out=t)
        np.divide(g, t, out=t)
        if options["momentum"]:
            b = state[1]
            np.multiply(b, momentum, out=b)
            np.add(b, t, out=b)
            np.multiply(b, lr, out=t)
        else:
            np.multiply(t, lr, out=t)
        np.subtract(p, t, out=p)


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011): ``v += g**2``, ``p -= lr / (1 + (step - 1) * lr_decay) * g / (sqrt(v) + eps)``.

    ``v`` begins with ``initial_accumulator_value``. Raises as :class:`Optimizer` does.

    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = tg.optim.Adagrad([w], lr=0.01)
    >>> w.grad = tg.tensor([3.0, -4.0])
    >>> optimizer.step()
    >>> w
    tensor([0.99, 2.01], float32, requires_grad)
    """

    _rules: ClassVar = {"lr": _real, "lr_decay": _real, "weight_decay": _real, "initial_accumulator_value": _real, "eps": _real}
    _arrays = ("sum",)

    def __init__(self, params: Any, lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0, initial_accumulator_value: float = 0, eps: float = 1e-10) -> None:
        super().__init__(params, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, initial_accumulator_value=initial_accumulator_value, eps=eps)

    def _start(self, options: dict[str, Any]) -> float:
        return float(options["initial_accumulator_value"])

    def _constants(self, options: dict[str, Any], step: int) -> tuple[float, ...]:
        return options["lr"] / (1 + (step - 1) * options["lr_decay"]), options["eps"], options["weight_decay"]

    def _update(self, options: dict[str, Any], constants: tuple[Array, ...], p: Array, g: Array, s: Array, t: Array, *state: Array) -> None:
        lr, eps, decay = constants
        (v,) = state
        g = _decayed(g, p, decay, s)
        np.multiply(g, g, out=t)
        np.add(v, t, out=v)
        np.sqrt(v, out=t)
        np.add(t, eps, out=t)
        np.divide(g, t, out=t)
        np.multiply(t, lr, out=t)
        np.subtract(p, t, out=p)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1): means ``m`` of ``g`` and ``v`` of ``g**2``, corrected for their start at 0.

    ``p -= lr * m / (1 - betas[0]**step) / (sqrt(v / (1 - betas[1]**step)) + eps)``; ``weight_decay`` adds its multiple of ``p`` to
    ``g`` first; ``amsgrad`` takes the largest ``v`` so far (Reddi et al. 2018). Raises as :class:`Optimizer` does.

    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = tg.optim.Adam([w], lr=0.01)
    >>> w.grad = tg.tensor([3.0, -4.0])
    >>> optimizer.step()
    >>> w
    tensor([0.99, 2.01], float32, requires_grad)
    """

    _rules: ClassVar = {"lr": _real, "betas": _betas, "eps": _real, "weight_decay": _real, "amsgrad": _flag}
    _arrays = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _decoupled: ClassVar[bool] = False

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)

    def _names(self, options: dict[str, Any]) -> tuple[str, ...]:
        return self._arrays if options["amsgrad"] else self._arrays[:2]

    def _constants(self, options: dict[str, Any], step: int) -> tuple[float, ...]:
        lr, (beta1, beta2), decay = options["lr"], options["betas"], options["weight_decay"]
        # The root of v's correction goes into eps and the rate: sqrt(v) / r + eps = (sqrt(v) + eps * r) / r.
        root = math.sqrt(1 - beta2**step)
        rate = lr * root / (1 - beta1**step)
        return beta1, 1 - beta1, beta2, 1 - beta2, options["eps"] * root, rate, 1 - lr * decay if self._decoupled else decay

    def _update(self, options: dict[str, Any], constants: tuple[Array, ...], p: Array, g: Array, s: Array, t: Array, *state: Array) -> None:
        beta1, share1, beta2, share2, eps, rate, decay = constants
        m, v = state[:2]
        if not self._decoupled:
            g = _decayed(g, p, decay, s)
        elif decay != 1:
            np.multiply(p, decay, out=p)
        np.multiply(m, beta1, out=m)
        np.multiply(g, share1, out=t)
        np.add(m, t, out=m)
        _average_square(v, beta2, share2, g, t)
        if options["amsgrad"]:
            v = np.maximum(state[2], v, out=state[2])
        np.sqrt(v, out=t)
        np.add(t, eps, out=t)
        np.divide(m, t, out=t)
        np.multiply(t, rate, out=t)
        np.subtract(p, t, out=p)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): ``p *= 1 - lr * weight_decay`` before Adam's step without it.

    Raises as :class:`Optimizer` does.

    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = tg.optim.AdamW([w], lr=0.01, weight_decay=1.0)
    >>> w.grad = tg.tensor([3.0, -4.0])
    >>> optimizer.step()
    >>> w
    tensor([0.98, 1.99], float32, requires_grad)
    """

    _decoupled = True

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)


def _decayed(g: Array, p: Array, decay: Array, s: Array) -> Array:
    """``g + decay * p``, in the scratch ``s``."""
    if not decay:
        return g
    np.multiply(p, decay, out=s)
    np.add(g, s, out=s)
    return s


def _average_square(v: Array, keep: Array, share: Array, g: Array, t: Array) -> None:
    """``v = keep * v + share * g**2``."""
    np.multiply(v, keep, out=v)
    np.multiply(g, g, out=t)
    np.multiply(t, share, out=t)
    np.add(v, t, out=v)


def decay_groups(named_parameters: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of which biases and other parameters of less than two dimensions, as norms' weights, get no weight decay.

    ``named_parameters`` is a module, or an iterable of (name, tensor) pairs. A group without parameters is left out.

    >>> import tinygrad_rnn as tg
    >>> parameters = {"weight": tg.ones((2, 3), requires_grad=True), "bias": tg.zeros(3, requires_grad=True)}
    >>> optimizer = tg.optim.AdamW(tg.optim.decay_groups(parameters.items(), weight_decay=0.1))
    >>> [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]
    [(1, 0.1), (1, 0.0)]
    """
    weight_decay = _real("decay_groups: weight_decay", weight_decay)
    pairs = list(named_parameters.named_parameters() if hasattr(named_parameters, "named_parameters") else named_parameters)
    for k, pair in enumerate(pairs):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise DtypeError(f"decay_groups: item {k} is of type {type(pair).__name__}, expected a module or (name, tensor) pairs, as model.named_parameters() gives")
    tensors = _tensors("decay_groups", [p for _, p in pairs])
    matrices, others = [p for p in tensors if p.ndim > 1], [p for p in tensors if p.ndim <= 1]
    return [{"params": params, "weight_decay": decay} for params, decay in ((matrices, weight_decay), (others, 0.0)) if params]


def _norm(data: Array, p: float) -> float:
    """The p-norm of all elements; where sums of squares would overflow or vanish in the array's precision, they are taken scaled, in double precision."""
    flat = data.ravel(order="K")
    if p != 2 or data.dtype.char not in _SAFE:
        return _scaled_norm(flat, p)
    low, high = _SAFE[data.dtype.char]
    whole = flat.size - flat.size % ROW
    squares = [] if whole == flat.size else [float(np.dot(flat[whole:], flat[whole:]))]
    if whole:
        rows = flat[:whole].reshape(-1, ROW)
        squares = np.vecdot(rows, rows).tolist() + squares
    if all([low <= square <= high for square in squares]):
        return math.sqrt(math.fsum(squares))
    return math.hypot(*[math.sqrt(square) if low <= square <= high else _scaled_norm(flat[k * ROW : (k + 1) * ROW], p) for k, square in enumerate(squares)])


_SAFE = {"f": (1e-24, 1e38), "d": (1e-276, 1e300)}
"""Sums of squares that are neither infinite nor have lost digits to underflow."""


def _scaled_norm(flat: Array, p: float) -> float:
    largest = float(np.abs(flat).max(initial=0))
    if p == math.inf or largest == 0 or not math.isfinite(largest):
        return largest
    ratios = np.abs(flat).astype(np.float64) / largest
    return largest * math.pow(float((ratios**p).sum()), 1 / p)


def _with_gradient(what: str, params: Any) -> list[tuple[int, Tensor]]:
    return [(k, p) for k, p in enumerate(_tensors(what, [params] if is_tensor(params) else params)) if p._grad is not None]


def _change_gradients(listed: list[tuple[int, Tensor]], change: Callable[[Array, Array], Any]) -> None:
    """Change gradients, in place where nothing else holds the memory: ``change(old, out)``."""
    seen: set[int] = set()
    later = []
    for _, p in listed:
        gradient: Any = p._grad
        data = gradient._data
        if gradient._node is None and data.base is None and id(data) not in seen:
            later.append(gradient)
        else:
            out = np.empty_like(data)
            change(data, out)
            p._grad = wrap(out)
        seen.add(id(data))
    for gradient in later:
        gradient._write(lambda data: change(data, data))


def clip_grad_norm_(params: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = True) -> float:
    """Scale the gradients so that their norm, of all parameters together, is at most ``max_norm``; gives the norm before that.

    The rule is ``g = min(1, max_norm / |g|) * g`` (Pascanu et al. 2013, algorithm 1), without the 1e-6 that PyTorch adds to ``|g|``.
    ``params`` is a tensor or an iterable of tensors; those without ``.grad`` are skipped. ``norm_type`` may be ``math.inf``.

    Raises ``GradientError`` where the norm is infinite or NaN, and names the first parameter at fault; nothing is changed then. With
    ``error_if_nonfinite=False`` the rule is applied all the same.

    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> w.grad = tg.tensor([3.0, -4.0])
    >>> tg.optim.clip_grad_norm_([w], max_norm=1.0)
    5.0
    >>> w.grad
    tensor([0.6, -0.8], float32)
    """
    what = "clip_grad_norm_"
    max_norm = math.inf if max_norm == math.inf else _real(f"{what}: max_norm", max_norm)
    norm_type = math.inf if norm_type == math.inf else _real(f"{what}: norm_type", norm_type)
    if not norm_type:
        raise ValueError(f"{what}: norm_type: got 0, expected a number above 0 or math.inf")
    listed = _with_gradient(what, params)
    with np.errstate(all="ignore"):
        norms = [_norm(p._grad._data, norm_type) for _, p in listed]  # type: ignore[union-attr]
        norm = _scaled_norm(np.array(norms), norm_type)
        if error_if_nonfinite and not math.isfinite(norm):
            for (k, p), part in zip(listed, norms, strict=True):
                if not math.isfinite(part):
                    bad = int((~np.isfinite(p._grad._data)).sum())  # type: ignore[union-attr]
                    found = f"has {bad} of {p.size} values that are not finite" if bad else "has a norm beyond the largest float"
                    raise GradientError(f"{what}: the norm is {norm}: the gradient of {_label(p, k)} {found}; nothing was changed. tg.detect_anomaly() finds where they come from")
            raise GradientError(f"{what}: the norm of the gradients together is beyond the largest float; nothing was changed")
        if not norm <= max_norm:
            _change_gradients(listed, partial(_scale, max_norm / norm))
    return norm


def _scale(factor: float, old: Array, out: Array) -> None:
    if 0 < factor < 1e-4 and factor < np.finfo(old.dtype).tiny:
        # A subnormal factor has lost digits, its root has not.
        root = math.sqrt(factor)
        np.multiply(old, root, out=out)
        np.multiply(out, root, out=out)
    else:
        np.multiply(old, factor, out=out)


def clip_grad_value_(params: Any, clip_value: float) -> None:
    """Clip every element of the gradients to [-clip_value, clip_value]; NaN stays.

    >>> import tinygrad_rnn as tg
    >>> w = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> w.grad = tg.tensor([3.0, -0.5])
    >>> tg.optim.clip_grad_value_([w], 1.0)
    >>> w.grad
    tensor([1., -0.5], float32)
    """
    bound = _real("clip_grad_value_: clip_value", clip_value)
    _change_gradients(_with_gradient("clip_grad_value_", params), lambda old, out: np.clip(old, -bound, bound, out=out))


class Schedule:
    """What the schedules share: they set ``lr`` of an optimiser's groups at each :meth:`step`, which is called after ``optimizer.step()``.

    The rate of step number ``last_epoch`` is a function of the rates that the groups had when the schedule was made, so that what
    was set by hand since gives way, and one optimiser has one schedule. A class of its own gives ``_rate``.

    >>> import tinygrad_rnn as tg
    >>> class Halved(tg.optim.Schedule):
    ...     def _rate(self, base):
    ...         return base / 2**self.last_epoch
    >>> optimizer = tg.optim.SGD([tg.ones(3, requires_grad=True)], lr=0.1)
    >>> schedule = Halved(optimizer)
    >>> schedule.step()
    >>> optimizer.param_groups[0]["lr"]
    0.05
    """

    last_epoch: int
    base_lrs: list[float]
    last_lr: list[float]

    def __init__(self, optimizer: Optimizer, **settings: Any) -> None:
        if not isinstance(optimizer, Optimizer):
            raise DtypeError(f"{type(self).__name__}: optimizer is of type {type(optimizer).__name__}, expected an optimiser such as SGD or Adam")
        self.optimizer = optimizer
        self.last_epoch = 0
        self.base_lrs = [_real("lr", group["lr"]) for group in optimizer.param_groups]
        self.last_lr = list(self.base_lrs)
        rules = self._rules()
        for name, value in settings.items():
            setattr(self, name, rules[name](f"{type(self).__name__}: {name}", value))

    def _rules(self) -> dict[str, Rule]:
        """What belongs to the state, and what it has to be."""
        return {"last_epoch": _whole, "base_lrs": self._rates, "last_lr": self._rates}

    def _rates(self, what: str, value: Any) -> list[Any]:
        return _list_of(what, value, _real, len(self.optimizer.param_groups))

    def _rate(self, base: float) -> float:
        raise NotImplementedError

    def step(self, metrics: Any = None) -> None:
        """Set the rates of the next step. ``metrics`` is for :class:`ReduceLROnPlateau`."""
        self._same_groups()
        self.last_epoch += 1
        self._set([self._rate(base) for base in self.base_lrs])

    def _same_groups(self) -> None:
        if len(self.base_lrs) != len(self.optimizer.param_groups):
            raise ShapeError(
                f"{type(self).__name__}.step: the optimiser has {len(self.optimizer.param_groups)} groups, the schedule was made for {len(self.base_lrs)}; "
                "make it again after add_param_group"
            )

    def _set(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.last_lr = list(rates)

    def get_last_lr(self) -> list[float]:
        """The rates that this schedule set last, one for each group."""
        return list(self.last_lr)

    def state_dict(self) -> dict[str, Any]:
        """The state and the settings: a dict of Python scalars and lists, and of the same for a schedule within."""
        values = {name: getattr(self, name) for name in self._rules()}
        return {name: v.state_dict() if isinstance(v, Schedule) else list(v) if isinstance(v, list) else v for name, v in values.items()}

    def load_state_dict(self, state_dict: Any) -> None:
        """Take over a state; the optimiser's rates come with its own. Raises ``ShapeError``, which lists all that does not fit, and changes nothing."""
        self._take(self._checked_state(state_dict))

    def _take(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    def _checked_state(self, state_dict: Any) -> dict[str, Any]:
        rules = self._rules()
        if not isinstance(state_dict, Mapping):
            raise DtypeError(f"{type(self).__name__}.load_state_dict: got {type(state_dict).__name__}, expected a dict as state_dict() gives")
        faults = [f"{name!r} is not of {type(self).__name__}" for name in state_dict if name not in rules]
        values = _checked("", rules, state_dict, faults)
        _refuse(f"{type(self).__name__}.load_state_dict", faults)
        return values


class StepLR(Schedule):
    """Multiply the rates by ``gamma`` every ``step_size`` steps: ``lr = base * gamma ** (step // step_size)``.

    >>> import tinygrad_rnn as tg
    >>> optimizer = tg.optim.SGD([tg.ones(3, requires_grad=True)], lr=1.0)
    >>> schedule = tg.optim.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> for _ in range(4):
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.25]
    """

    step_size: int
    gamma: float

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        super().__init__(optimizer, step_size=step_size, gamma=gamma)

    def _rules(self) -> dict[str, Rule]:
        return {**super()._rules(), "step_size": partial(_whole, low=1), "gamma": _real}

    def _rate(self, base: float) -> float:
        return base * self.gamma ** (self.last_epoch // self.step_size)


class CosineAnnealingLR(Schedule):
    """Half a cosine from the rates down to ``eta_min`` in ``T_max`` steps, and up again (Loshchilov and Hutter 2017, equation 5).

    >>> import tinygrad_rnn as tg
    >>> optimizer = tg.optim.SGD([tg.ones(3, requires_grad=True)], lr=1.0)
    >>> schedule = tg.optim.CosineAnnealingLR(optimizer, T_max=2, eta_min=0.5)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.75]
    """

    T_max: int
    eta_min: float

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        super().__init__(optimizer, T_max=T_max, eta_min=eta_min)

    def _rules(self) -> dict[str, Rule]:
        return {**super()._rules(), "T_max": partial(_whole, low=1), "eta_min": _real}

    def _rate(self, base: float) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2


class ReduceLROnPlateau(Schedule):
    """Multiply the rates by ``factor`` when a metric has not got better for more than ``patience`` steps; ``step(metrics)`` takes it.

    Better is below ``best * (1 - threshold)`` with ``mode="min"`` and ``threshold_mode="rel"``, below ``best - threshold`` with ``"abs"``;
    ``mode="max"`` mirrors that. ``cooldown`` steps after a reduction do not count. ``min_lr`` is a number or one for each group; a change
    of a rate by ``eps`` or less is not made. NaN and infinities are never better.

    >>> import tinygrad_rnn as tg
    >>> optimizer = tg.optim.SGD([tg.ones(3, requires_grad=True)], lr=1.0)
    >>> schedule = tg.optim.ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    >>> schedule.get_last_lr()
    [0.1]
    """

    mode: str
    factor: float
    patience: int
    threshold: float
    threshold_mode: str
    cooldown: int
    min_lrs: list[float]
    eps: float
    best: float | None
    num_bad_epochs: int
    cooldown_counter: int

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        min_lrs = min_lr if isinstance(min_lr, list | tuple) else [min_lr] * len(getattr(optimizer, "param_groups", ()))
        super().__init__(
            optimizer, mode=mode, factor=factor, patience=patience, threshold=threshold, threshold_mode=threshold_mode, cooldown=cooldown, min_lrs=min_lrs, eps=eps,
            best=None, num_bad_epochs=0, cooldown_counter=0,
        )  # fmt: skip

    def _rules(self) -> dict[str, Rule]:
        return {
            **super()._rules(), "mode": partial(_one_of, choices=("min", "max")), "factor": _DECAY, "patience": _whole, "threshold": _real,
            "threshold_mode": partial(_one_of, choices=("rel", "abs")), "cooldown": _whole, "min_lrs": self._rates, "eps": _real,
            "best": lambda what, value: None if value is None else _real(what, value, -math.inf), "num_bad_epochs": _whole, "cooldown_counter": _whole,
        }  # fmt: skip

    def step(self, metrics: Any = None) -> None:
        """Look at the metric, a number or a tensor of one element, and set the rates of the next step."""
        self._same_groups()
        if metrics is None:
            raise DtypeError("ReduceLROnPlateau.step: got no metric, expected a number, as step(validation_loss)")
        current = float(metrics)
        self.last_epoch += 1
        sign = 1 if self.mode == "min" else -1
        bound = math.inf
        if self.best is not None:
            bound = sign * self.best * (1 - sign * self.threshold) if self.threshold_mode == "rel" else sign * self.best - self.threshold
        if math.isfinite(current) and sign * current < bound:
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        rates = [_real("lr", group["lr"]) for group in self.optimizer.param_groups]
        if self.num_bad_epochs > self.patience:
            reduced = [max(rate * self.factor, low) for rate, low in zip(rates, self.min_lrs, strict=True)]
            rates = [new if old - new > self.eps else old for old, new in zip(rates, reduced, strict=True)]
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._set(rates)


class LinearWarmupLR(Schedule):
    """Rates that rise linearly over the first ``warmup_steps`` optimiser steps, and those of another schedule from then on.

    ``lr = base * min(1, (step + 1) / warmup_steps)`` for steps counted from 0, so that the last step of the warm-up has the full rate.
    ``after`` is a schedule of the same optimiser, made before; its step 0 is step number ``warmup_steps``. Without it the rates stay.

    >>> import tinygrad_rnn as tg
    >>> optimizer = tg.optim.SGD([tg.ones(3, requires_grad=True)], lr=1.0)
    >>> schedule = tg.optim.LinearWarmupLR(optimizer, 4, after=tg.optim.StepLR(optimizer, step_size=1))
    >>> rates = []
    >>> for _ in range(6):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [0.25, 0.5, 0.75, 1.0, 1.0, 0.1]
    """

    warmup_steps: int

    def __init__(self, optimizer: Optimizer, warmup_steps: int, after: Schedule | None = None) -> None:
        if after is not None and getattr(after, "optimizer", None) is not optimizer:
            raise ShapeError(f"LinearWarmupLR: after is {type(after).__name__}, expected a schedule of the same optimiser, or None")
        self.after = after
        super().__init__(optimizer, warmup_steps=warmup_steps)
        self._set([self._rate(base) for base in self.base_lrs])

    def _rules(self) -> dict[str, Rule]:
        return {**super()._rules(), "warmup_steps": _whole, "after": self._after}

    def _after(self, what: str, value: Any) -> Any:
        if (value is None) != (self.after is None):
            raise ValueError(f"{what}: got {'none' if value is None else 'a schedule'}, expected {'none' if self.after is None else type(self.after).__name__}")
        return None if self.after is None else self.after._checked_state(value)

    def _rate(self, base: float) -> float:
        return base if self.last_epoch + 1 >= self.warmup_steps else base * (self.last_epoch + 1) / self.warmup_steps

    def step(self, metrics: Any = None) -> None:
        """Set the rates of the next step; ``metrics`` goes to the schedule after the warm-up."""
        if self.after is None or self.last_epoch < self.warmup_steps:
            super().step()
        else:
            self.after.step(metrics)
            self.last_epoch += 1
            self.last_lr = self.after.get_last_lr()

    def _take(self, values: dict[str, Any]) -> None:
        after = values.pop("after")
        super()._take(values)
        if self.after is not None:
            self.after._take(after)


__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "LinearWarmupLR",
    "Optimizer",
    "RMSprop",
    "ReduceLROnPlateau",
    "Schedule",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "decay_groups",
]
