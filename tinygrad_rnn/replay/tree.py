"""Nested tuples of tensors: how states, inputs and outputs of a step are made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.tensor import as_tensor, is_tensor
from ..errors import DtypeError


def leaves(tree: Any) -> Iterator[Any]:
    """The leaves of nested tuples and lists; None is no leaf."""
    if isinstance(tree, tuple | list):
        for part in tree:
            yield from leaves(part)
    elif tree is not None:
        yield tree


def like(tree: Any, values: Iterator[Any]) -> Any:
    """The same nesting with other leaves."""
    if isinstance(tree, tuple | list):
        return tuple(like(part, values) for part in tree)
    return None if tree is None else next(values)


def mapped(function: Callable[..., Any], *trees: Any) -> Any:
    """A function of the leaves in the same place of trees of one structure."""
    first = trees[0]
    if isinstance(first, tuple | list):
        return tuple([mapped(function, *parts) for parts in zip(*trees, strict=True)])
    return None if first is None else function(*trees)


def structure(tree: Any) -> Any:
    """What two trees have in common that differ in their leaves alone: a tree itself, of plain values."""
    if isinstance(tree, tuple | list):
        return tuple(structure(part) for part in tree)
    return None if tree is None else "Tensor"


def tensors(what: str, tree: Any) -> Any:
    """The tree with every leaf a Tensor."""
    if is_tensor(tree):
        return tree

    def lifted(leaf: Any) -> Any:
        if is_tensor(leaf) or isinstance(leaf, np.ndarray | np.generic | int | float):
            return as_tensor(leaf)
        raise DtypeError(f"{what}: expected a tensor or nested tuples of tensors, got {type(leaf).__name__}")

    return mapped(lifted, tree)


def describe(tree: Any) -> str:
    """Shapes and dtypes of a tree, for messages."""
    if isinstance(tree, tuple | list):
        return "(" + ", ".join(map(describe, tree)) + ")"
    return f"{tree.dtype} {tree.shape}" if hasattr(tree, "shape") else "None" if tree is None else type(tree).__name__
