"""Initial values: each function fills a parameter in place and returns it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.creation import generator
from ..core.state import no_grad
from ..core.tensor import Tensor
from ..errors import ShapeError


def _fill(tensor: Tensor, draw: Callable[[], np.ndarray]) -> Tensor:
    with no_grad():
        return tensor.assign_(draw().astype(tensor.dtype))


def uniform(tensor: Tensor, a: float = 0.0, b: float = 1.0, *, rng: Any = None) -> Tensor:
    """Uniform numbers in [a, b).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> bool((nn.init.uniform(tg.zeros(100), -1.0, 1.0, rng=0) >= -1).all())
    True
    """
    source = generator(rng)
    return _fill(tensor, lambda: source.uniform(a, b, tensor.shape))


def normal(tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, rng: Any = None) -> Tensor:
    """Normal numbers.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.init.normal(tg.zeros(2), mean=5.0, std=0.0, rng=0)
    tensor([5., 5.], float32)
    """
    source = generator(rng)
    return _fill(tensor, lambda: source.normal(mean, std, tensor.shape))


def constant(tensor: Tensor, value: float) -> Tensor:
    """One value everywhere.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.init.constant(tg.zeros(2), 1.0)
    tensor([1., 1.], float32)
    """
    return _fill(tensor, lambda: np.full(tensor.shape, value))


def fans(tensor: Tensor) -> tuple[int, int]:
    """Inputs and outputs of one unit: a weight has shape (out, in) or (out, in, height, width).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.init.fans(tg.zeros(8, 3, 2, 2))
    (12, 32)
    """
    if tensor.ndim < 2:
        raise ShapeError(f"fans: a weight has two dimensions or more, got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def xavier_uniform(tensor: Tensor, gain: float = 1.0, *, rng: Any = None) -> Tensor:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.init.xavier_uniform(tg.zeros(3, 3), rng=0).shape
    (3, 3)
    """
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform(tensor, -bound, bound, rng=rng)


def xavier_normal(tensor: Tensor, gain: float = 1.0, *, rng: Any = None) -> Tensor:
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.init.xavier_normal(tg.zeros(3, 3), rng=0).shape
    (3, 3)
    """
    return normal(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))), rng=rng)


def kaiming_uniform(tensor: Tensor, a: float = 0.0, *, rng: Any = None) -> Tensor:
    """Uniform in +-sqrt(6 / ((1 + a^2) fan_in)), for rectifiers of negative slope a (He et al. 2015, eq. 10 and 15).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.init.kaiming_uniform(tg.zeros(3, 3), rng=0).shape
    (3, 3)
    """
    bound = math.sqrt(6 / ((1 + a * a) * fans(tensor)[0]))
    return uniform(tensor, -bound, bound, rng=rng)


def orthogonal(tensor: Tensor, gain: float = 1.0, *, rng: Any = None) -> Tensor:
    """Orthonormal rows or columns, uniformly distributed (Saxe et al. 2014): a product with it keeps the norm.

    A stack of square blocks, (k n, n), as a gated cell's recurrent weight is, gets an orthogonal matrix a block.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> Q = nn.init.orthogonal(tg.zeros(3, 3), rng=0)
    >>> bool(abs(Q @ Q.T - tg.eye(3)).max() < 1e-6)
    True
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal: a weight has two dimensions or more, got shape {tensor.shape}")
    source = generator(rng)
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    blocks = rows // columns if columns and rows % columns == 0 else 1

    def block(n: int, m: int) -> np.ndarray:
        q, r = np.linalg.qr(source.standard_normal((max(n, m), min(n, m))))
        q *= np.sign(np.diagonal(r))
        return np.asarray(q if n >= m else q.T)

    return _fill(tensor, lambda: gain * np.concatenate([block(rows // blocks, columns) for _ in range(blocks)]).reshape(tensor.shape))


def identity(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """The identity, for the recurrent weight of a rectified network (Le, Jaitly and Hinton 2015).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.init.identity(tg.zeros(2, 2))
    tensor([[1., 0.], [0., 1.]], float32)
    """
    if tensor.ndim != 2:
        raise ShapeError(f"identity: expected a matrix, got shape {tensor.shape}")
    return _fill(tensor, lambda: gain * np.eye(tensor.shape[0], tensor.shape[1]))
