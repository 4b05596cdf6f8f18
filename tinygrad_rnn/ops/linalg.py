"""Products of vectors, matrices and arrays."""

from __future__ import annotations

import math
import string
from typing import Any

import numpy as np

from ..core.primitive import primitive
from ..core.tape import Array, Product, product
from ..core.tensor import is_tensor
from ..errors import DtypeError, ShapeError
from ..native import LARGE
from .elementwise import multiply, where
from .shapes import axes_of
from .shaping import broadcast_to, expand_dims, moveaxis, reshape, transpose


@primitive(implements=(np.matmul,))  # np.dot is faster where both are matrices
def matmul(x: Array, y: Array) -> Any:
    """The matrix product, over the last two axes and broadcast over the others; vectors as in NumPy.

    Raises ``ShapeError`` where the inner lengths differ.

    >>> import tinygrad_rnn as tg
    >>> tg.matmul(tg.tensor([[1.0, 2.0]]), tg.tensor([[3.0], [4.0]]))
    tensor([[11.]], float32)
    """
    if type(x) is np.ndarray and type(y) is np.ndarray and y.ndim == 2:
        if x.ndim == 2:
            return x.dot(y) if x.size < LARGE else product(x, y)
        if x.ndim > 2 and x.shape[-1] == y.shape[0]:
            # One product of all rows is faster than one a matrix.
            return product(_rows(x), y).reshape((*x.shape[:-1], y.shape[1]))
    return np.matmul(x, y)


@matmul.rule
def matmul_x(g: Array, x_shape: tuple[int, ...], y: Array) -> Array:
    if len(x_shape) == 2 == y.ndim:
        return product(g, y.T)
    if len(x_shape) == 1:
        return g * y if y.ndim == 1 else _sum_to(matmul(y, g.reshape(*g.shape, 1)).reshape(*g.shape[:-1], x_shape[0]), x_shape)
    if y.ndim == 1:
        return _sum_to(g.reshape(*g.shape, 1) * y, x_shape)
    return _sum_to(matmul(g, y.swapaxes(-1, -2)), x_shape)


@matmul.rule
def matmul_y(g: Array, x: Array, y_shape: tuple[int, ...]) -> Array:
    if len(y_shape) == 2:
        if x.ndim != 2:
            x, g = _rows(x), _rows(g)
        if type(g) is np.ndarray:
            return Product((x, g))
        return product(x.T, g)
    if x.ndim == 1:
        return g * x if len(y_shape) == 1 else _sum_to(g.reshape(*g.shape[:-1], 1, g.shape[-1]) * x.reshape(-1, 1), y_shape)
    if len(y_shape) == 1:
        return _sum_to(matmul(x.swapaxes(-1, -2), g.reshape(*g.shape, 1)).reshape(*x.shape[:-2], y_shape[0]), y_shape)
    return _sum_to(matmul(x.swapaxes(-1, -2), g), y_shape)


def _rows(x: Array) -> Array:
    """All rows of a stack of matrices as one matrix, a vector as its only row."""
    return x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


def _sum_to(a: Array, shape: tuple[int, ...]) -> Array:
    """Summed over what broadcasting repeated to get from ``shape`` to that of ``a``."""
    if a.shape == shape:
        return a
    lead = a.ndim - len(shape)
    axes = (*range(lead), *(k + lead for k, n in enumerate(shape) if n == 1))
    return a.sum(axis=axes).reshape(shape)


def dot(a: Array, b: Array) -> Any:
    """The product over the last axis of a and the second-last of b (the last of a vector), as ``np.dot``.

    >>> import tinygrad_rnn as tg
    >>> tg.dot(tg.tensor([1.0, 2.0]), tg.tensor([3.0, 4.0])).item()
    11.0
    """
    first, second = np.ndim(a), np.ndim(b)
    if first == 0 or second == 0:
        return multiply(a, b)
    if second <= 2:
        return matmul(a, b)
    return tensordot(a, b, ([first - 1], [second - 2]))


def inner(a: Array, b: Array) -> Any:
    """The product over the last axes of both.

    >>> import tinygrad_rnn as tg
    >>> tg.inner(tg.tensor([1.0, 2.0]), tg.tensor([3.0, 4.0])).item()
    11.0
    """
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return multiply(a, b)
    return tensordot(a, b, ([np.ndim(a) - 1], [np.ndim(b) - 1]))


def vdot(a: Array, b: Array) -> Any:
    """The product of the flattened arrays.

    >>> import tinygrad_rnn as tg
    >>> tg.vdot(tg.ones((2, 2)), tg.ones((2, 2))).item()
    4.0
    """
    return matmul(reshape(a, (-1,)), reshape(b, (-1,)))


def outer(a: Array, b: Array) -> Any:
    """Every element of a times every element of b, both flattened: a matrix.

    >>> import tinygrad_rnn as tg
    >>> tg.outer(tg.tensor([1.0, 2.0]), tg.tensor([3.0, 4.0]))
    tensor([[3., 4.], [6., 8.]], float32)
    """
    return multiply(reshape(a, (-1, 1)), reshape(b, (1, -1)))


def tensordot(a: Array, b: Array, axes: Any = 2) -> Any:
    """The product summed over pairs of axes: the last n of a with the first n of b, or those named.

    >>> import tinygrad_rnn as tg
    >>> tg.tensordot(tg.ones((2, 3, 4)), tg.ones((3, 4, 5))).shape
    (2, 5)
    """
    first, second = np.ndim(a), np.ndim(b)
    if np.ndim(axes) == 0:
        n = int(axes)
        if not 0 <= n <= min(first, second):
            raise ShapeError(f"tensordot: axes={n} does not fit arrays of {first} and {second} dimensions")
        left, right = tuple(range(first - n, first)), tuple(range(n))
    else:
        if len(axes) != 2:
            raise ShapeError(f"tensordot: axes must be a number, or those of a and those of b, got {len(axes)} entries")
        left, right = (axes_of("tensordot", k, n) if k is not None else () for k, n in zip(axes, (first, second), strict=True))
    shape_a, shape_b = np.shape(a), np.shape(b)
    if [shape_a[k] for k in left] != [shape_b[k] for k in right]:
        raise ShapeError(f"tensordot: axes {left} of a{shape_a} and axes {right} of b{shape_b} have other lengths")
    rows = [k for k in range(first) if k not in left]
    columns = [k for k in range(second) if k not in right]
    n = math.prod(shape_a[k] for k in left)
    matrix_a = reshape(transpose(a, (*rows, *left)), (math.prod(shape_a[k] for k in rows), n))
    matrix_b = reshape(transpose(b, (*right, *columns)), (n, math.prod(shape_b[k] for k in columns)))
    return reshape(matmul(matrix_a, matrix_b), tuple([shape_a[k] for k in rows] + [shape_b[k] for k in columns]))


def kron(a: Array, b: Array) -> Any:
    """The Kronecker product.

    >>> import tinygrad_rnn as tg
    >>> tg.kron(tg.tensor([1.0, 2.0]), tg.tensor([1.0, 1.0]))
    tensor([1., 1., 2., 2.], float32)
    """
    ndim = max(np.ndim(a), np.ndim(b))
    shape_a = (1,) * (ndim - np.ndim(a)) + np.shape(a)
    shape_b = (1,) * (ndim - np.ndim(b)) + np.shape(b)
    apart_a = reshape(a, tuple(n for length in shape_a for n in (length, 1)))
    apart_b = reshape(b, tuple(n for length in shape_b for n in (1, length)))
    return reshape(multiply(apart_a, apart_b), tuple(m * n for m, n in zip(shape_a, shape_b, strict=True)))


def cross(a: Array, b: Array, axis: int = -1) -> Any:
    """The cross product of three-dimensional vectors along an axis.

    >>> import tinygrad_rnn as tg
    >>> tg.cross(tg.tensor([1.0, 0.0, 0.0]), tg.tensor([0.0, 1.0, 0.0]))
    tensor([0., 0., 1.], float32)
    """
    a, b = moveaxis(a, axis, -1), moveaxis(b, axis, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise ShapeError(f"cross: expected vectors of length 3, got {a.shape[-1]} and {b.shape[-1]}")
    forth, back = [1, 2, 0], [2, 0, 1]
    return moveaxis(a[..., forth] * b[..., back] - a[..., back] * b[..., forth], -1, axis)


def diagonal(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonals of the planes of two axes, along a new last axis.

    >>> import tinygrad_rnn as tg
    >>> tg.diagonal(tg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([1., 4.], float32)
    """
    if np.ndim(a) < 2:
        raise ShapeError(f"diagonal: expected at least two dimensions, got {np.ndim(a)}")
    last = moveaxis(a, (axis1, axis2), (-2, -1))
    rows, columns = last.shape[-2:]
    n = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    index = np.arange(n)
    return last[..., index - min(offset, 0), index + max(offset, 0)]


def trace(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of the diagonal.

    >>> import tinygrad_rnn as tg
    >>> tg.trace(tg.tensor([[1.0, 2.0], [3.0, 4.0]])).item()
    5.0
    """
    return diagonal(a, offset, axis1, axis2).sum(axis=-1)


def diag(v: Array, k: int = 0) -> Any:
    """The diagonal of a matrix, or the matrix with this diagonal.

    >>> import tinygrad_rnn as tg
    >>> tg.diag(tg.tensor([1.0, 2.0]))
    tensor([[1., 0.], [0., 2.]], float32)
    """
    if np.ndim(v) == 2:
        return diagonal(v, k)
    if np.ndim(v) != 1:
        raise ShapeError(f"diag: expected one or two dimensions, got {np.ndim(v)}")
    from .indexing import scatter

    n, index = np.shape(v)[0] + abs(k), np.arange(np.shape(v)[0])
    return scatter(v, (index - min(k, 0), index + max(k, 0)), (n, n))


def _triangle(what: str, m: Array, k: int, upper: bool) -> Any:
    if np.ndim(m) == 0:
        raise ShapeError(f"{what}: expected at least one dimension, got shape ()")
    # Chosen, not multiplied: an infinity times 0 is NaN, and masks are made of infinities.
    return where(np.tri(m.shape[-2:][0], m.shape[-1], k=k) != upper, m, np.zeros((), m.dtype))


def tril(m: Array, k: int = 0) -> Any:
    """The part on and below the k-th diagonal, zero above.

    >>> import tinygrad_rnn as tg
    >>> tg.tril(tg.ones((2, 2)))
    tensor([[1., 0.], [1., 1.]], float32)
    """
    return _triangle("tril", m, k, False)


def triu(m: Array, k: int = 0) -> Any:
    """The part on and above the k-th diagonal, zero below.

    >>> import tinygrad_rnn as tg
    >>> tg.triu(tg.ones((2, 2)))
    tensor([[1., 1.], [0., 1.]], float32)
    """
    return _triangle("triu", m, k - 1, True)


@primitive(sequence="operands")
def _einsum(operands: Any, subscripts: str = "") -> Any:
    """Sums of products by index letters."""
    return np.einsum(subscripts, *operands, optimize=max(a.size for a in operands) > 256)


@_einsum.rule
def _einsum_operands(g: Array, position: int, operands: Any, operands_shape: Any, subscripts: str) -> Array:
    inputs, output = subscripts.split("->")
    terms = inputs.split(",")
    mine, shape = terms[position], operands_shape[position]
    others = [(term, a) for k, (term, a) in enumerate(zip(terms, operands, strict=True)) if k != position]
    lengths = dict(zip(mine, shape, strict=True))
    known = set(output).union(*(term for term, _ in others))
    letters = "".join(dict.fromkeys(mine))
    reached = "".join(letter for letter in letters if letter in known)
    part = einsum(",".join([output, *(term for term, _ in others)]) + "->" + reached, g, *(a for _, a in others))
    # A letter of this operand alone was summed away: its gradient is the same along that axis.
    part = expand_dims(part, tuple(k for k, letter in enumerate(letters) if letter not in known))
    stretched = tuple(k for k, letter in enumerate(letters) if lengths[letter] == 1)
    if stretched:
        part = part.sum(axis=stretched, keepdims=True)
    once = tuple(lengths[letter] for letter in letters)
    part = broadcast_to(part, once)
    if len(letters) == len(mine):
        return part
    # A letter that stands twice reads a diagonal: put the gradient back on it.
    from .indexing import scatter

    grid = np.indices(once, sparse=True)
    return scatter(part, tuple(grid[letters.index(letter)] for letter in mine), shape)


def einsum(*arguments: Any, optimize: Any = None) -> Any:
    """Sums of products of arrays by index letters, as ``np.einsum``: ``tg.einsum("bi,ij->bj", x, W)``.

    Takes implicit outputs, ellipses, letters that repeat within an operand, and NumPy's alternating form.
    Raises ``ShapeError`` where letters and shapes do not fit.

    >>> import tinygrad_rnn as tg
    >>> tg.einsum("ij,j->i", tg.tensor([[1.0, 2.0], [3.0, 4.0]]), tg.tensor([1.0, 1.0]))
    tensor([3., 7.], float32)
    """
    if not arguments:
        raise ShapeError("einsum: no subscripts given")
    if isinstance(arguments[0], str):
        subscripts, operands = arguments[0].replace(" ", ""), list(arguments[1:])
    else:
        subscripts, operands = _from_lists(arguments)
    operands = [a if is_tensor(a) or isinstance(a, np.ndarray) else np.asarray(a) for a in operands]
    if not operands:
        raise ShapeError("einsum: no operands given")
    return _einsum(operands, _explicit(subscripts, [a.shape for a in operands]))


def _from_lists(arguments: tuple[Any, ...]) -> tuple[str, list[Any]]:
    letters = string.ascii_letters

    def spell(sublist: Any) -> str:
        return "".join("..." if k is Ellipsis else letters[k] for k in sublist)

    if len(arguments) < 2:
        raise DtypeError("einsum: expected a string of subscripts first, or arrays each followed by its list of axes")
    subscripts = ",".join(spell(sublist) for sublist in arguments[1::2])
    return subscripts + ("->" + spell(arguments[-1]) if len(arguments) % 2 else ""), list(arguments[:-1:2])


def _explicit(subscripts: str, shapes: list[tuple[int, ...]]) -> str:
    """Subscripts with the ellipses spelled in letters and the output written out."""
    inputs, arrow, output = subscripts.partition("->")
    terms = inputs.split(",")
    if len(terms) != len(shapes):
        raise ShapeError(f"einsum: {subscripts!r} names {len(terms)} operands, got {len(shapes)}")
    unused = [letter for letter in string.ascii_letters if letter not in subscripts]
    missing = []
    for k, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        named = len(term.replace("...", ""))
        if term.count("...") > 1 or "." in term.replace("...", "") or (named != len(shape) if "..." not in term else named > len(shape)):
            raise ShapeError(f"einsum: operand {k} of shape {shape} does not fit its subscripts {term!r}")
        missing.append(len(shape) - named)
    shared = "".join(unused[: max(missing)])
    spelled = [term.replace("...", shared[len(shared) - n :]) for term, n in zip(terms, missing, strict=True)]
    if arrow:
        output = output.replace("...", shared)
    else:
        joined = "".join(terms).replace("...", "")
        output = shared + "".join(sorted(letter for letter in set(joined) if joined.count(letter) == 1))
    return ",".join(spelled) + "->" + output


__all__ = ["cross", "diag", "diagonal", "dot", "einsum", "inner", "kron", "matmul", "outer", "tensordot", "trace", "tril", "triu", "vdot"]
