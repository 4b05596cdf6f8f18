"""Feed-forward layers, with PyTorch's names, arguments, defaults and initial distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.creation import generator
from ..core.tensor import Tensor, is_tensor, settings
from ..errors import ShapeError
from ..ops.convolution import avg_pool2d, conv2d, max_pool2d
from ..ops.elementwise import relu, sigmoid, sqrt, tanh
from ..ops.indexing import embedding
from ..ops.reduction import mean, softmax
from . import init
from .functional import dropout
from .module import Module, Parameter, lift, same_dtype, sizes


def positive(what: str, **values: Any) -> None:
    """Refuse sizes that are not positive integers."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value <= 0:
            raise ShapeError(f"{what}: {name} must be a positive integer, got {value!r}")


def empty(*shape: int, dtype: Any) -> Tensor:
    return Parameter(np.zeros(shape, dtype or settings.dtype))


def fraction(what: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ShapeError(f"{what} must be between 0 and 1, got {p!r}")


class Linear(Module):
    """x @ weight.T + bias: (..., in_features) -> (..., out_features).

    ``weight`` is (out_features, in_features); both start uniform in +-1/sqrt(in_features), as in PyTorch.
    Raises ``ShapeError`` when the last axis is not ``in_features`` long.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.Linear(4, 2, rng=0)(tg.ones(3, 4)).shape
    (3, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = None, rng: Any = None) -> None:
        positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        source, bound = generator(rng), 1 / math.sqrt(in_features)
        self.weight = init.uniform(empty(out_features, in_features, dtype=dtype), -bound, bound, rng=source)
        self.bias = init.uniform(empty(out_features, dtype=dtype), -bound, bound, rng=source) if bias else None

    def forward(self, x: Any) -> Any:
        x = lift("input", x)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ShapeError(f"input has shape {x.shape}, expected (..., in_features={self.in_features})")
        same_dtype("input", x, self.weight)
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias


class Embedding(Module):
    """A table of vectors: integers of any shape (...) -> (..., embedding_dim).

    ``padding_idx`` names a row that starts at zero and gets no gradient. The others start standard normal.
    Raises ``OutOfRangeError`` for an index that is negative or not below ``num_embeddings``.

    >>> import numpy as np
    >>> from tinygrad_rnn import nn
    >>> nn.Embedding(10, 3, rng=0)(np.array([[1, 2], [3, 4]])).shape
    (2, 2, 3)
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *, dtype: Any = None, rng: Any = None) -> None:
        positive("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ShapeError(f"Embedding: padding_idx={padding_idx} is not one of {num_embeddings} rows")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx if padding_idx is None else padding_idx % num_embeddings
        source = generator(rng)
        start = source.standard_normal((num_embeddings, embedding_dim)).astype(dtype or settings.dtype)
        if self.padding_idx is not None:
            start[self.padding_idx] = 0
        self.weight = Parameter(start)

    @classmethod
    def from_pretrained(cls, vectors: Any, freeze: bool = True, padding_idx: int | None = None) -> Embedding:
        """An embedding with given vectors of shape (num_embeddings, embedding_dim), frozen unless told otherwise."""
        data = vectors._data if is_tensor(vectors) else np.asarray(vectors)
        if data.ndim != 2:
            raise ShapeError(f"Embedding.from_pretrained: expected (num_embeddings, embedding_dim), got shape {data.shape}")
        made = cls(data.shape[0], data.shape[1], padding_idx, dtype=data.dtype, rng=0)
        made.weight = Parameter(data, requires_grad=not freeze, name="weight")
        return made

    def forward(self, indices: Any) -> Any:
        return embedding(indices, self.weight, self.padding_idx)


def _pair(what: str, value: Any) -> tuple[Any, Any]:
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ShapeError(f"{what} must be an integer or a pair, got {value!r}")
        return value[0], value[1]
    return value, value


class Conv2d(Module):
    """Cross-correlation: (batch, in_channels, height, width) -> (batch, out_channels, height', width'); batch may lack.

    ``weight`` is (out_channels, in_channels / groups, kernel height, kernel width); both start uniform in
    +-1/sqrt(fan_in). Raises ``ShapeError`` for channels that do not divide into groups, or a kernel larger than
    the padded input.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.Conv2d(1, 4, 3, padding=1, rng=0)(tg.zeros(2, 1, 8, 8)).shape
    (2, 4, 8, 8)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: Any = None,
        rng: Any = None,
    ) -> None:
        positive("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ShapeError(f"Conv2d: in_channels={in_channels} and out_channels={out_channels} must be multiples of groups={groups}")
        height, width = _pair("Conv2d: kernel_size", kernel_size)
        positive("Conv2d", kernel_height=height, kernel_width=width)
        self.in_channels, self.stride, self.padding, self.dilation, self.groups = in_channels, stride, padding, dilation, groups
        source, bound = generator(rng), 1 / math.sqrt(in_channels // groups * height * width)
        self.weight = init.uniform(empty(out_channels, in_channels // groups, height, width, dtype=dtype), -bound, bound, rng=source)
        self.bias = init.uniform(empty(out_channels, dtype=dtype), -bound, bound, rng=source) if bias else None

    def forward(self, x: Any) -> Any:
        x = lift("input", x)
        if x.ndim not in (3, 4) or x.shape[-3] != self.in_channels:
            raise ShapeError(f"input has {sizes(x.shape, 'batch channels height width')}, expected (batch, in_channels={self.in_channels}, height, width)")
        same_dtype("input", x, self.weight)
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class AvgPool2d(Module):
    """The mean of each window: (batch, channels, height, width) -> (batch, channels, height', width').

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.AvgPool2d(2)(tg.ones(1, 1, 4, 4)).shape
    (1, 1, 2, 2)
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, *, count_include_pad: bool = True) -> None:
        self.kernel_size, self.stride, self.padding, self.count_include_pad = kernel_size, stride, padding, count_include_pad

    def forward(self, x: Any) -> Any:
        return avg_pool2d(lift("input", x), self.kernel_size, self.stride, self.padding, self.count_include_pad)


class MaxPool2d(Module):
    """The largest value of each window: (batch, channels, height, width) -> (batch, channels, height', width').

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.MaxPool2d(2)(tg.ones(1, 1, 4, 4)).shape
    (1, 1, 2, 2)
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> None:
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation

    def forward(self, x: Any) -> Any:
        return max_pool2d(lift("input", x), self.kernel_size, self.stride, self.padding, self.dilation)


class Flatten(Module):
    """Axes from ``start_dim`` to ``end_dim`` as one.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.Flatten()(tg.zeros(2, 3, 4)).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Any:
        x = lift("input", x, "biuf")
        start, end = (d + x.ndim if d < 0 else d for d in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < x.ndim:
            raise ShapeError(f"Flatten: dimensions {self.start_dim} to {self.end_dim} of an input of shape {x.shape}")
        return x.reshape((*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


class Dropout(Module):
    """In training, each value is zero with probability p, and the others are scaled by 1 / (1 - p).

    ``rng`` is a generator or seed; without it masks differ from run to run (Srivastava et al. 2014).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.Dropout(0.5).eval()(tg.ones(2))
    tensor([1., 1.], float32)
    """

    def __init__(self, p: float = 0.5, *, rng: Any = None) -> None:
        fraction("Dropout: p", p)
        self.p, self.rng = p, generator(rng)

    def forward(self, x: Any) -> Any:
        return dropout(lift("input", x), self.p, self.training, self.rng)


class LayerNorm(Module):
    """Over the last axes: mean 0, variance 1, then a learned scale and shift (Ba, Kiros and Hinton 2016).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.LayerNorm(2)(tg.tensor([1.0, 3.0]))
    tensor([-1., 1.], float32, from=add)
    """

    def __init__(self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True, *, dtype: Any = None) -> None:
        self.normalized_shape = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
        self.eps = eps
        positive("LayerNorm", **{f"normalized_shape[{k}]": n for k, n in enumerate(self.normalized_shape)})
        self.weight = Parameter(np.ones(self.normalized_shape, dtype or settings.dtype)) if elementwise_affine else None
        self.bias = empty(*self.normalized_shape, dtype=dtype) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Any:
        x = lift("input", x)
        n = len(self.normalized_shape)
        if x.shape[-n:] != self.normalized_shape:
            raise ShapeError(f"input has shape {x.shape}, expected the last axes to be {self.normalized_shape}")
        axes = tuple(range(-n, 0))
        centred = x - mean(x, axes, keepdims=True)
        y = centred / sqrt(mean(centred * centred, axes, keepdims=True) + self.eps)
        if self.weight is not None:
            same_dtype("input", x, self.weight)
            y = y * self.weight
        return y if self.bias is None else y + self.bias


class Identity(Module):
    """Its input.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.Identity()(tg.tensor([1.0]))
    tensor([1.], float32)
    """

    def forward(self, x: Any) -> Any:
        return x


class ReLU(Module):
    """max(x, 0) at each element.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.ReLU()(tg.tensor([-1.0, 2.0]))
    tensor([0., 2.], float32)
    """

    def forward(self, x: Any) -> Any:
        return relu(lift("input", x))


class Tanh(Module):
    """The hyperbolic tangent of each element.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.Tanh()(tg.tensor([0.0]))
    tensor([0.], float32)
    """

    def forward(self, x: Any) -> Any:
        return tanh(lift("input", x))


class Sigmoid(Module):
    """1 / (1 + exp(-x)) of each element.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.Sigmoid()(tg.tensor([0.0]))
    tensor([0.5], float32)
    """

    def forward(self, x: Any) -> Any:
        return sigmoid(lift("input", x))


class Softmax(Module):
    """exp(x) over its sum along an axis.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.Softmax()(tg.tensor([0.0, 0.0]))
    tensor([0.5, 0.5], float32)
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        return softmax(lift("input", x), self.dim)
