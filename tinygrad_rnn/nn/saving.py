"""Models in files: their weights, and how they were made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError, TinygradError
from ..files import load, save
from .module import Module

ASIDE = "checkpoint:"
"""What the names of tensors begin with that are not a model's weights, in a checkpoint of a training run."""


def config(model: Module) -> dict[str, Any]:
    """How a module was made, in plain values: its class and the arguments of its call. ``rng`` is left out.

    Raises ``DtypeError`` for an argument that is not a number, a string, None, a dtype, a module or a list of such.

    >>> from tinygrad_rnn import nn
    >>> nn.config(nn.Linear(3, 4, bias=False, rng=0))
    {'class': 'Linear', 'args': [3, 4], 'kwargs': {'bias': False}}
    """
    args, kwargs = model._config
    where = type(model).__name__
    return {
        "class": where,
        "args": [_encoded(where, value) for value in args],
        "kwargs": {name: _encoded(where, value) for name, value in kwargs.items() if name != "rng"},
    }


def _encoded(where: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.integer | np.floating):
        return value.item()
    if isinstance(value, Module):
        return config(value)
    if isinstance(value, list | tuple):
        return [_encoded(where, item) for item in value]
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return {"dtype": np.dtype(value).name}
    raise DtypeError(f"config: {where} was made with an argument of type {type(value).__name__}, which a file cannot hold; save model.state_dict() instead")


def build(configuration: Any, classes: Iterable[type[Module]] = ()) -> Module:
    """A module made as its :func:`config` says, with initial weights; ``classes`` are those that are not in ``nn``.

    >>> from tinygrad_rnn import nn
    >>> nn.build({"class": "Linear", "args": [3, 4], "kwargs": {}})
    Linear(3, 4)
    """
    from .. import nn

    known: dict[str, Any] = {name: value for name in nn.__all__ if isinstance(value := getattr(nn, name), type) and issubclass(value, Module)}
    known |= {kind.__name__: kind for kind in classes}

    def decoded(value: Any) -> Any:
        if isinstance(value, list):
            return [decoded(item) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"dtype"}:
            return np.dtype(value["dtype"])
        if set(value) != {"class", "args", "kwargs"}:
            raise ShapeError(f"build: expected class, args and kwargs, got {sorted(value)}")
        if value["class"] not in known:
            raise ShapeError(f"build: no module class {value['class']!r}; pass your own in classes=[...]")
        return known[value["class"]](*map(decoded, value["args"]), **{name: decoded(item) for name, item in value["kwargs"].items()})

    model = decoded(configuration)
    if not isinstance(model, Module):
        raise ShapeError(f"build: the configuration is not a module's: {configuration!r}")
    return model


def save_model(path: Any, model: Module, metadata: dict[str, Any] | None = None) -> None:
    """Write a model's weights with its :func:`config`, so that :func:`load_model` rebuilds it.

    >>> import os, tempfile
    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> model = nn.GRU(3, 4, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.save_model(os.path.join(folder, "gru.safetensors"), model)
    ...     again = nn.load_model(os.path.join(folder, "gru.safetensors"))
    >>> bool((again.weight_hh_l0 == model.weight_hh_l0).all()), again
    (True, GRU(3, 4))
    """
    save(path, model.state_dict(), {**(metadata or {}), "model": config(model)})


def load_model(path: Any, *, classes: Iterable[type[Module]] = ()) -> Module:
    """The model of a file written by :func:`save_model` or as a checkpoint: built again, with the file's weights.

    Raises ``ShapeError`` for a file without a model's configuration, and what :func:`tinygrad_rnn.load` raises.
    """
    tensors = load(path)
    configuration = tensors.metadata.get("model")
    if configuration is None:
        raise ShapeError(f"load_model: {path} holds tensors but no model's configuration; make the model and use load_state_dict(tg.load(path))")
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(ASIDE)}
    try:
        model = build(configuration, classes)
    except TinygradError as error:
        raise ShapeError(f"load_model: {path}: {error}") from error
    kinds = {tensor.dtype for tensor in weights.values()}
    if len(kinds) == 1:
        model.to(kinds.pop())
    model.load_state_dict(weights)
    return model
