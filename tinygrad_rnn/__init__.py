"""tinygrad_rnn: a minimal autograd engine on NumPy for recurrent networks.

Operations on tensors are recorded on a tape; ``backward()`` sweeps it in reverse:

>>> import tinygrad_rnn as tg
>>> W = tg.tensor([[0.5, -1.0], [1.0, 0.5]], requires_grad=True, name="W")
>>> h = tg.tensor([1.0, 0.0])
>>> for t in range(3):
...     with tg.scope("step", step=t):
...         h = tg.tanh(h @ W)
>>> h.sum().backward()
>>> W.grad.shape
(2, 2)
"""

import numpy as _np

from . import errors, ops
from .core.anomaly import detect_anomaly
from .core.creation import (
    arange, eye, full, full_like, linspace, ones, ones_like, rand, rand_like, randn, randn_like, zeros, zeros_like,
)  # fmt: skip
from .core.primitive import Primitive, custom_vjp, defvjp, primitive
from .core.state import enable_grad, no_grad, scope
from .core.tape import Record, Tape
from .core.tensor import Tensor, get_default_dtype, set_default_dtype, tape, tensor
from .core.transforms import checkpoint, grad, hessian, hvp, jacobian, jvp, vjp
from .ops.convolution import avg_pool2d, conv2d, max_pool2d
from .ops.elementwise import (
    absolute, add, arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, bitwise_and, bitwise_or, bitwise_xor, cbrt, ceil, clip, cos, cosh,
    deg2rad, divide, elu, equal, erf, exp, exp2, expm1, float_power, floor, floor_divide, fmax, fmin, fmod, gelu, greater, greater_equal, hypot,
    invert, isfinite, isinf, isnan, leaky_relu, less, less_equal, log, log1p, log2, log10, logaddexp, logical_and, logical_not, logical_or,
    logical_xor, maximum, minimum, mod, multiply, nan_to_num, negative, not_equal, positive, power, rad2deg, reciprocal, relu, rint, sigmoid,
    sign, signbit, silu, sin, sinh, softplus, sqrt, square, subtract, tan, tanh, trunc, where,
)  # fmt: skip
from .ops.indexing import embedding, median, one_hot, scatter, sort, take, take_along_axis
from .ops.linalg import cross, diag, diagonal, dot, einsum, inner, kron, matmul, outer, tensordot, trace, tril, triu, vdot
from .ops.methods import astype, diff, trapezoid
from .ops.reduction import (
    amax, amin, average, cumprod, cumsum, log_softmax, logsumexp, max, mean, min, norm, prod, ptp, softmax, std, sum, var,
)  # fmt: skip
from .ops.shaping import (
    append, array_split, atleast_1d, atleast_2d, atleast_3d, broadcast_arrays, broadcast_to, column_stack, concatenate, copy, dstack, expand_dims,
    flip, fliplr, flipud, hsplit, hstack, meshgrid, moveaxis, pad, ravel, repeat, reshape, roll, rollaxis, rot90, split, squeeze, stack, swapaxes,
    tile, transpose, vsplit, vstack,
)  # fmt: skip

__version__ = "0.1.0"

float32 = _np.float32
float64 = _np.float64
abs = absolute
pow = power

__all__ = [name for name in dir() if not name.startswith("_") and name not in ("core", "ops")]
