"""Operations on each element, with NumPy's names and broadcasting, and their rules.

Conventions at the points where a derivative does not exist are in the table of :mod:`tinygrad_rnn.ops`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.primitive import primitive
from ..core.tape import Array

LN2, LN10 = math.log(2), math.log(10)


def steady(g: Array, x: Array, bad: Array) -> tuple[Array, Array]:
    """``g`` and ``x`` with 0 and 1 where ``x`` is singular and no cotangent arrives, so that nothing times infinity is nothing.

    It keeps the untaken branch of ``where(x > 0, log(x), 0)`` from turning the gradient into NaN, to any order.
    """
    if bad is False or (type(g) is np.ndarray and type(bad) is np.ndarray and not bad.any()):
        return g, x
    idle = (g == 0) & bad
    return where(idle, 0.0, g), where(idle, 1.0, x)


@primitive(np.add)
def add(x: Array, y: Array) -> Any:
    """x + y, element by element.

    >>> import tinygrad_rnn as tg
    >>> tg.add(tg.tensor([1.0, 2.0]), 1)
    tensor([2., 3.], float32)
    """


@add.rule
def add_x(g: Array) -> Array:
    return g


@add.rule
def add_y(g: Array) -> Array:
    return g


@primitive(np.subtract)
def subtract(x: Array, y: Array) -> Any:
    """x - y, element by element.

    >>> import tinygrad_rnn as tg
    >>> tg.subtract(tg.tensor([1.0, 2.0]), 1)
    tensor([0., 1.], float32)
    """


@subtract.rule
def subtract_x(g: Array) -> Array:
    return g


@subtract.rule
def subtract_y(g: Array) -> Array:
    return -g


@primitive(np.multiply)
def multiply(x: Array, y: Array) -> Any:
    """x * y, element by element.

    >>> import tinygrad_rnn as tg
    >>> tg.multiply(tg.tensor([1.0, 2.0]), 3)
    tensor([3., 6.], float32)
    """


@multiply.rule
def multiply_x(g: Array, y: Array) -> Array:
    return g * y


@multiply.rule
def multiply_y(g: Array, x: Array) -> Array:
    return g * x


@primitive(np.divide)
def divide(x: Array, y: Array) -> Any:
    """x / y, element by element.

    >>> import tinygrad_rnn as tg
    >>> tg.divide(tg.tensor([1.0, 2.0]), 2)
    tensor([0.5, 1.], float32)
    """


@divide.rule
def divide_x(g: Array, y: Array) -> Array:
    g, y = steady(g, y, y == 0)
    return g / y


@divide.rule
def divide_y(g: Array, x: Array, y: Array) -> Array:
    g, y = steady(g, y, y == 0)
    return -g * x / (y * y)


@primitive(np.power)
def power(x: Array, y: Array) -> Any:
    """x to the power y, element by element; ``0 ** 0`` is 1 with gradient 0 for x.

    >>> import tinygrad_rnn as tg
    >>> tg.power(tg.tensor([1.0, 2.0, 3.0]), 2)
    tensor([1., 4., 9.], float32)
    """


@power.rule
def power_x(g: Array, x: Array, y: Array) -> Array:
    if isinstance(y, int | float):
        if y == 0:
            return g * 0.0
        if y == 1:
            return g
        if y == 2:
            return 2.0 * g * x
        whole = float(y).is_integer()
        if y > 1 and whole:
            return y * g * x ** (y - 1)
        g, x = steady(g, x, x == 0 if whole else ~(x > 0))
        return y * g * x ** (y - 1)
    singular = ((x == 0) & (y < 1)) | ((x < 0) & (y != floor(y)))
    idle = ((g == 0) & singular) | ((x == 0) & (y == 0))
    return y * where(idle, 0.0, g) * where(idle, 1.0, x) ** (y - 1)


@power.rule
def power_y(g: Array, x: Array, y: Array, out: Array) -> Array:
    idle = ((x == 0) & (y > 0)) | ((g == 0) & ~(x > 0)) | ((x == 0) & (y == 0))
    return where(idle, 0.0, g) * where(idle, 0.0, out) * log(where(idle, 1.0, x).astype(out.dtype, copy=False))


@primitive(np.float_power)
def float_power(x: Array, y: Array) -> Any:
    """x to the power y in floating point.

    >>> import tinygrad_rnn as tg
    >>> tg.float_power(tg.tensor([2.0]), -1)
    tensor([0.5], float32)
    """


@float_power.rule
def float_power_x(g: Array, x: Array, y: Array) -> Array:
    return power_x(g, x, y)


@float_power.rule
def float_power_y(g: Array, x: Array, y: Array, out: Array) -> Array:
    return power_y(g, x, y, out)


@primitive(np.negative)
def negative(x: Array) -> Any:
    """-x, element by element.

    >>> import tinygrad_rnn as tg
    >>> tg.negative(tg.tensor([1.0, -2.0]))
    tensor([-1., 2.], float32)
    """


@negative.rule
def negative_x(g: Array) -> Array:
    return -g


@primitive(np.positive)
def positive(x: Array) -> Any:
    """+x: the same values as a new tensor.

    >>> import tinygrad_rnn as tg
    >>> tg.positive(tg.tensor([1.0]))
    tensor([1.], float32)
    """


@positive.rule
def positive_x(g: Array) -> Array:
    return g


@primitive(np.absolute)
def absolute(x: Array) -> Any:
    """The absolute value; its gradient at 0 is 0.

    >>> import tinygrad_rnn as tg
    >>> tg.absolute(tg.tensor([1.0, -2.0]))
    tensor([1., 2.], float32)
    """


@absolute.rule
def absolute_x(g: Array, x: Array) -> Array:
    return g * sign(x)


@primitive(np.exp)
def exp(x: Array) -> Any:
    """e to the power x.

    >>> import tinygrad_rnn as tg
    >>> tg.exp(tg.tensor([0.0, 1.0]))
    tensor([1., 2.7183], float32)
    """


@exp.rule
def exp_x(g: Array, out: Array) -> Array:
    return g * out


@primitive(np.exp2)
def exp2(x: Array) -> Any:
    """2 to the power x.

    >>> import tinygrad_rnn as tg
    >>> tg.exp2(tg.tensor([0.0, 3.0]))
    tensor([1., 8.], float32)
    """


@exp2.rule
def exp2_x(g: Array, out: Array) -> Array:
    return g * out * LN2


@primitive(np.expm1)
def expm1(x: Array) -> Any:
    """e to the power x, less 1, accurate near 0.

    >>> import tinygrad_rnn as tg
    >>> tg.expm1(tg.tensor([0.0, 1.0]))
    tensor([0., 1.7183], float32)
    """


@expm1.rule
def expm1_x(g: Array, out: Array) -> Array:
    return g * (out + 1.0)


@primitive(np.log)
def log(x: Array) -> Any:
    """The natural logarithm.

    >>> import tinygrad_rnn as tg
    >>> tg.log(tg.tensor([1.0, 2.0]))
    tensor([0., 0.6931], float32)
    """


@log.rule
def log_x(g: Array, x: Array) -> Array:
    g, x = steady(g, x, ~(x > 0))
    return g / x


@primitive(np.log1p)
def log1p(x: Array) -> Any:
    """The natural logarithm of 1 + x, accurate near 0.

    >>> import tinygrad_rnn as tg
    >>> tg.log1p(tg.tensor([0.0, 1.0]))
    tensor([0., 0.6931], float32)
    """


@log1p.rule
def log1p_x(g: Array, x: Array) -> Array:
    g, x = steady(g, x, ~(x > -1))
    return g / (1.0 + x)


@primitive(np.log2)
def log2(x: Array) -> Any:
    """The logarithm to base 2.

    >>> import tinygrad_rnn as tg
    >>> tg.log2(tg.tensor([1.0, 8.0]))
    tensor([0., 3.], float32)
    """


@log2.rule
def log2_x(g: Array, x: Array) -> Array:
    return log_x(g, x) / LN2


@primitive(np.log10)
def log10(x: Array) -> Any:
    """The logarithm to base 10.

    >>> import tinygrad_rnn as tg
    >>> tg.log10(tg.tensor([1.0, 100.0]))
    tensor([0., 2.], float32)
    """


@log10.rule
def log10_x(g: Array, x: Array) -> Array:
    return log_x(g, x) / LN10


@primitive(np.sqrt)
def sqrt(x: Array) -> Any:
    """The square root; at 0 its gradient is infinite, and 0 where no cotangent arrives.

    >>> import tinygrad_rnn as tg
    >>> tg.sqrt(tg.tensor([4.0, 9.0]))
    tensor([2., 3.], float32)
    """


@sqrt.rule
def sqrt_x(g: Array, out: Array) -> Array:
    g, out = steady(g, out, ~(out > 0))
    return 0.5 * g / out


@primitive(np.cbrt)
def cbrt(x: Array) -> Any:
    """The cube root.

    >>> import tinygrad_rnn as tg
    >>> tg.cbrt(tg.tensor([8.0, -27.0]))
    tensor([2., -3.], float32)
    """


@cbrt.rule
def cbrt_x(g: Array, out: Array) -> Array:
    g, out = steady(g, out, out == 0)
    return g / (3.0 * out * out)


@primitive(np.square)
def square(x: Array) -> Any:
    """x * x.

    >>> import tinygrad_rnn as tg
    >>> tg.square(tg.tensor([2.0, -3.0]))
    tensor([4., 9.], float32)
    """


@square.rule
def square_x(g: Array, x: Array) -> Array:
    return 2.0 * g * x


@primitive(np.reciprocal)
def reciprocal(x: Array) -> Any:
    """1 / x.

    >>> import tinygrad_rnn as tg
    >>> tg.reciprocal(tg.tensor([2.0, 4.0]))
    tensor([0.5, 0.25], float32)
    """


@reciprocal.rule
def reciprocal_x(g: Array, x: Array) -> Array:
    g, x = steady(g, x, x == 0)
    return -g / (x * x)


@primitive(np.sin)
def sin(x: Array) -> Any:
    """The sine; x in radians.

    >>> import tinygrad_rnn as tg
    >>> tg.sin(tg.tensor([0.0, 1.0]))
    tensor([0., 0.8415], float32)
    """


@sin.rule
def sin_x(g: Array, x: Array) -> Array:
    return g * cos(x)


@primitive(np.cos)
def cos(x: Array) -> Any:
    """The cosine; x in radians.

    >>> import tinygrad_rnn as tg
    >>> tg.cos(tg.tensor([0.0, 1.0]))
    tensor([1., 0.5403], float32)
    """


@cos.rule
def cos_x(g: Array, x: Array) -> Array:
    return -g * sin(x)


@primitive(np.tan)
def tan(x: Array) -> Any:
    """The tangent; x in radians.

    >>> import tinygrad_rnn as tg
    >>> tg.tan(tg.tensor([0.0, 1.0]))
    tensor([0., 1.5574], float32)
    """


@tan.rule
def tan_x(g: Array, out: Array) -> Array:
    return g * (1.0 + out * out)


@primitive(np.arcsin)
def arcsin(x: Array) -> Any:
    """The inverse sine, in radians.

    >>> import tinygrad_rnn as tg
    >>> tg.arcsin(tg.tensor([0.0, 1.0]))
    tensor([0., 1.5708], float32)
    """


@arcsin.rule
def arcsin_x(g: Array, x: Array) -> Array:
    g, r = steady(g, (1.0 - x) * (1.0 + x), ~(absolute(x) < 1))
    return g / sqrt(r)


@primitive(np.arccos)
def arccos(x: Array) -> Any:
    """The inverse cosine, in radians.

    >>> import tinygrad_rnn as tg
    >>> tg.arccos(tg.tensor([1.0, 0.0]))
    tensor([0., 1.5708], float32)
    """


@arccos.rule
def arccos_x(g: Array, x: Array) -> Array:
    return -arcsin_x(g, x)


@primitive(np.arctan)
def arctan(x: Array) -> Any:
    """The inverse tangent, in radians.

    >>> import tinygrad_rnn as tg
    >>> tg.arctan(tg.tensor([0.0, 1.0]))
    tensor([0., 0.7854], float32)
    """


@arctan.rule
def arctan_x(g: Array, x: Array) -> Array:
    return g / (1.0 + x * x)


@primitive(np.arctan2)
def arctan2(y: Array, x: Array) -> Any:
    """The angle of the point (x, y), in radians.

    >>> import tinygrad_rnn as tg
    >>> tg.arctan2(tg.tensor([1.0]), tg.tensor([1.0]))
    tensor([0.7854], float32)
    """


@arctan2.rule
def arctan2_y(g: Array, y: Array, x: Array) -> Array:
    g, r = steady(g, x * x + y * y, (x == 0) & (y == 0))
    return g * x / r


@arctan2.rule
def arctan2_x(g: Array, y: Array, x: Array) -> Array:
    g, r = steady(g, x * x + y * y, (x == 0) & (y == 0))
    return -g * y / r


@primitive(np.hypot)
def hypot(x: Array, y: Array) -> Any:
    """sqrt(x**2 + y**2); its gradient at the origin is 0.

    >>> import tinygrad_rnn as tg
    >>> tg.hypot(tg.tensor([3.0]), tg.tensor([4.0]))
    tensor([5.], float32)
    """


@hypot.rule
def hypot_x(g: Array, x: Array, out: Array) -> Array:
    zero = out == 0
    return where(zero, 0.0, g) * x / where(zero, 1.0, out)


@hypot.rule
def hypot_y(g: Array, y: Array, out: Array) -> Array:
    zero = out == 0
    return where(zero, 0.0, g) * y / where(zero, 1.0, out)


@primitive(np.sinh)
def sinh(x: Array) -> Any:
    """The hyperbolic sine.

    >>> import tinygrad_rnn as tg
    >>> tg.sinh(tg.tensor([0.0, 1.0]))
    tensor([0., 1.1752], float32)
    """


@sinh.rule
def sinh_x(g: Array, x: Array) -> Array:
    return g * cosh(x)


@primitive(np.cosh)
def cosh(x: Array) -> Any:
    """The hyperbolic cosine.

    >>> import tinygrad_rnn as tg
    >>> tg.cosh(tg.tensor([0.0, 1.0]))
    tensor([1., 1.5431], float32)
    """


@cosh.rule
def cosh_x(g: Array, x: Array) -> Array:
    return g * sinh(x)


@primitive(np.tanh)
def tanh(x: Array) -> Any:
    """The hyperbolic tangent.

    >>> import tinygrad_rnn as tg
    >>> tg.tanh(tg.tensor([0.0, 1.0]))
    tensor([0., 0.7616], float32)
    """


@tanh.rule
def tanh_x(g: Array, out: Array) -> Array:
    return g * (1.0 - out * out)


@primitive(np.arcsinh)
def arcsinh(x: Array) -> Any:
    """The inverse hyperbolic sine.

    >>> import tinygrad_rnn as tg
    >>> tg.arcsinh(tg.tensor([0.0, 1.0]))
    tensor([0., 0.8814], float32)
    """


@arcsinh.rule
def arcsinh_x(g: Array, x: Array) -> Array:
    return g / sqrt(x * x + 1.0)


@primitive(np.arccosh)
def arccosh(x: Array) -> Any:
    """The inverse hyperbolic cosine.

    >>> import tinygrad_rnn as tg
    >>> tg.arccosh(tg.tensor([2.0]))
    tensor([1.317], float32)
    """


@arccosh.rule
def arccosh_x(g: Array, x: Array) -> Array:
    g, r = steady(g, (x - 1.0) * (x + 1.0), ~(x > 1))
    return g / sqrt(r)


@primitive(np.arctanh)
def arctanh(x: Array) -> Any:
    """The inverse hyperbolic tangent.

    >>> import tinygrad_rnn as tg
    >>> tg.arctanh(tg.tensor([0.0, 0.5]))
    tensor([0., 0.5493], float32)
    """


@arctanh.rule
def arctanh_x(g: Array, x: Array) -> Array:
    g, r = steady(g, (1.0 - x) * (1.0 + x), ~(absolute(x) < 1))
    return g / r


@primitive(np.maximum)
def maximum(x: Array, y: Array) -> Any:
    """The larger of two values; where they are equal each gets half the gradient.

    >>> import tinygrad_rnn as tg
    >>> tg.maximum(tg.tensor([1.0, 5.0]), 3)
    tensor([3., 5.], float32)
    """


@maximum.rule
def maximum_x(g: Array, x: Array, y: Array) -> Array:
    return where(x == y, 0.5 * g, where(x > y, g, 0.0))


@maximum.rule
def maximum_y(g: Array, x: Array, y: Array) -> Array:
    return where(x == y, 0.5 * g, where(y > x, g, 0.0))


@primitive(np.minimum)
def minimum(x: Array, y: Array) -> Any:
    """The smaller of two values; where they are equal each gets half the gradient.

    >>> import tinygrad_rnn as tg
    >>> tg.minimum(tg.tensor([1.0, 5.0]), 3)
    tensor([1., 3.], float32)
    """


@minimum.rule
def minimum_x(g: Array, x: Array, y: Array) -> Array:
    return where(x == y, 0.5 * g, where(x < y, g, 0.0))


@minimum.rule
def minimum_y(g: Array, x: Array, y: Array) -> Array:
    return where(x == y, 0.5 * g, where(y < x, g, 0.0))


@primitive(np.fmax)
def fmax(x: Array, y: Array) -> Any:
    """The larger of two values, the other where one is NaN.

    >>> import tinygrad_rnn as tg
    >>> tg.fmax(tg.tensor([1.0, float("nan")]), 0.5)
    tensor([1., 0.5], float32)
    """


@fmax.rule
def fmax_x(g: Array, x: Array, y: Array) -> Array:
    return where(y != y, g, maximum_x(g, x, y))


@fmax.rule
def fmax_y(g: Array, x: Array, y: Array) -> Array:
    return where(x != x, g, maximum_y(g, x, y))


@primitive(np.fmin)
def fmin(x: Array, y: Array) -> Any:
    """The smaller of two values, the other where one is NaN.

    >>> import tinygrad_rnn as tg
    >>> tg.fmin(tg.tensor([1.0, float("nan")]), 0.5)
    tensor([0.5, 0.5], float32)
    """


@fmin.rule
def fmin_x(g: Array, x: Array, y: Array) -> Array:
    return where(y != y, g, minimum_x(g, x, y))


@fmin.rule
def fmin_y(g: Array, x: Array, y: Array) -> Array:
    return where(x != x, g, minimum_y(g, x, y))


@primitive(implements=np.clip)
def clip(a: Array, min: Array = None, max: Array = None) -> Any:
    """The values limited to [min, max]; the bounds themselves count as inside.

    Raises ``ShapeError`` where the bounds do not broadcast to ``a``.

    >>> import tinygrad_rnn as tg
    >>> tg.clip(tg.tensor([-2.0, 0.5, 3.0]), 0, 1)
    tensor([0., 0.5, 1.], float32)
    """
    return np.clip(a, min, max)


def _clip_side(a: Array, min: Array, max: Array) -> tuple[Array, Array]:
    """Where the upper and the lower bound decide; NumPy takes the upper one last."""
    above = np.False_ if max is None else (a > max) if min is None else (a > max) | (min > max)
    below = np.False_ if min is None else (a < min) & ~above
    return above, below


@clip.rule
def clip_a(g: Array, a: Array, min: Array, max: Array) -> Array:
    above, below = _clip_side(a, min, max)
    return where(above | below, 0.0, g)


@clip.rule
def clip_min(g: Array, a: Array, min: Array, max: Array) -> Array:
    return where(_clip_side(a, min, max)[1], g, 0.0)


@clip.rule
def clip_max(g: Array, a: Array, min: Array, max: Array) -> Array:
    return where(_clip_side(a, min, max)[0], g, 0.0)


@primitive(implements=np.where, constant="condition")
def where(condition: Array, x: Array, y: Array) -> Any:
    """x where the condition holds, else y; no gradient reaches the branch that was not taken.

    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([-1.0, 2.0])
    >>> tg.where(x > 0, x, 0.0)
    tensor([0., 2.], float32)
    """
    return np.where(condition, x, y)


@where.rule
def where_x(g: Array, condition: Array) -> Array:
    return where(condition, g, 0.0)


@where.rule
def where_y(g: Array, condition: Array) -> Array:
    return where(condition, 0.0, g)


@primitive(np.mod)
def mod(x: Array, y: Array) -> Any:
    """The remainder of x / y, with the sign of y.

    >>> import tinygrad_rnn as tg
    >>> tg.mod(tg.tensor([5.0, -1.0]), 3)
    tensor([2., 2.], float32)
    """


@mod.rule
def mod_x(g: Array) -> Array:
    return g


@mod.rule
def mod_y(g: Array, x: Array, y: Array) -> Array:
    return -g * floor(x / y)


@primitive(np.fmod)
def fmod(x: Array, y: Array) -> Any:
    """The remainder of x / y, with the sign of x.

    >>> import tinygrad_rnn as tg
    >>> tg.fmod(tg.tensor([5.0, -1.0]), 3)
    tensor([2., -1.], float32)
    """


@fmod.rule
def fmod_x(g: Array) -> Array:
    return g


@fmod.rule
def fmod_y(g: Array, x: Array, y: Array) -> Array:
    return -g * trunc(x / y)


@primitive(np.logaddexp)
def logaddexp(x: Array, y: Array) -> Any:
    """log(exp(x) + exp(y)) without overflow.

    >>> import tinygrad_rnn as tg
    >>> tg.logaddexp(tg.tensor([1000.0]), 1000.0)
    tensor([1000.6932], float32)
    """


@logaddexp.rule
def logaddexp_x(g: Array, x: Array, y: Array) -> Array:
    return g * sigmoid(x - y)


@logaddexp.rule
def logaddexp_y(g: Array, x: Array, y: Array) -> Array:
    return g * sigmoid(y - x)


@primitive(np.deg2rad)
def deg2rad(x: Array) -> Any:
    """Degrees to radians.

    >>> import tinygrad_rnn as tg
    >>> tg.deg2rad(tg.tensor([180.0]))
    tensor([3.1416], float32)
    """


@deg2rad.rule
def deg2rad_x(g: Array) -> Array:
    return g * (math.pi / 180)


@primitive(np.rad2deg)
def rad2deg(x: Array) -> Any:
    """Radians to degrees.

    >>> import tinygrad_rnn as tg
    >>> tg.rad2deg(tg.tensor([3.14159265]))
    tensor([180.], float32)
    """


@rad2deg.rule
def rad2deg_x(g: Array) -> Array:
    return g * (180 / math.pi)


@primitive
def sigmoid(x: Array) -> Any:
    """1 / (1 + exp(-x)), without overflow and accurate in both tails.

    >>> import tinygrad_rnn as tg
    >>> tg.sigmoid(tg.tensor([0.0, -1000.0, 1000.0]))
    tensor([0.5, 0., 1.], float32)
    """
    # Where exp(-x) overflows, 1 / inf is the 0 that is wanted.
    with np.errstate(over="ignore"):
        z = np.exp(np.multiply(x, -1.0))
    z += 1.0
    return 1.0 / z


@sigmoid.rule
def sigmoid_x(g: Array, out: Array) -> Array:
    return g * (out * (1.0 - out))


@primitive
def relu(x: Array) -> Any:
    """max(x, 0); its gradient at 0 is 0.

    >>> import tinygrad_rnn as tg
    >>> tg.relu(tg.tensor([-1.0, 2.0]))
    tensor([0., 2.], float32)
    """
    return np.maximum(x, 0)


@relu.rule
def relu_x(g: Array, out: Array) -> Array:
    return g * (out > 0)


@primitive
def leaky_relu(x: Array, negative_slope: float = 0.01) -> Any:
    """x where it is positive, else ``negative_slope * x``; at 0 the gradient is the slope.

    >>> import tinygrad_rnn as tg
    >>> tg.leaky_relu(tg.tensor([-1.0, 2.0]), 0.1)
    tensor([-0.1, 2.], float32)
    """
    return np.where(np.asarray(x) > 0, x, np.multiply(x, negative_slope))


@leaky_relu.rule
def leaky_relu_x(g: Array, x: Array, negative_slope: float) -> Array:
    return where(x > 0, g, g * negative_slope)


@primitive
def elu(x: Array, alpha: float = 1.0) -> Any:
    """x where it is positive, else ``alpha * (exp(x) - 1)`` (Clevert 2015).

    >>> import tinygrad_rnn as tg
    >>> tg.elu(tg.tensor([-1.0, 2.0]))
    tensor([-0.6321, 2.], float32)
    """
    x = np.asarray(x)
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@elu.rule
def elu_x(g: Array, x: Array, alpha: float) -> Array:
    return where(x > 0, g, g * alpha * exp(where(x > 0, 0.0, x)))


@primitive
def silu(x: Array) -> Any:
    """x * sigmoid(x), also called swish (Ramachandran 2017).

    >>> import tinygrad_rnn as tg
    >>> tg.silu(tg.tensor([0.0, 1.0]))
    tensor([0., 0.7311], float32)
    """
    return x * sigmoid(x)


@silu.rule
def silu_x(g: Array, x: Array) -> Array:
    s = sigmoid(x)
    return g * s * (1.0 + x * (1.0 - s))


@primitive
def softplus(x: Array) -> Any:
    """log(1 + exp(x)), without overflow.

    >>> import tinygrad_rnn as tg
    >>> tg.softplus(tg.tensor([0.0, 1000.0]))
    tensor([0.6931, 1000.], float32)
    """
    return np.logaddexp(x, 0)


@softplus.rule
def softplus_x(g: Array, x: Array) -> Array:
    return g * sigmoid(x)


@primitive
def erf(x: Array) -> Any:
    """The error function, to rounding (rational approximations of Cody 1969 as in FreeBSD's ``s_erf.c``).

    >>> import tinygrad_rnn as tg
    >>> tg.erf(tg.tensor([0.0, 1.0]))
    tensor([0., 0.8427], float32)
    """
    from .special import erf as computed

    return computed(np.asarray(x))


@erf.rule
def erf_x(g: Array, x: Array) -> Array:
    return g * (2 / math.sqrt(math.pi)) * exp(-x * x)


@primitive
def erfc(x: Array) -> Any:
    """1 - erf(x), to rounding also where x is large and the difference small; 0 from about 27 on.

    >>> import tinygrad_rnn as tg
    >>> tg.erfc(tg.tensor([5.0]))
    tensor([1.5375e-12], float32)
    """
    from .special import erfc as computed

    return computed(np.asarray(x))


@erfc.rule
def erfc_x(g: Array, x: Array) -> Array:
    return g * (-2 / math.sqrt(math.pi)) * exp(-x * x)


@primitive
def gelu(x: Array, approximate: str = "none") -> Any:
    """x times the normal distribution function of x (Hendrycks 2016); ``approximate="tanh"`` for the paper's approximation.

    >>> import tinygrad_rnn as tg
    >>> tg.gelu(tg.tensor([0.0, 1.0]))
    tensor([0., 0.8413], float32)
    """
    return x * _normal_cdf(np.asarray(x), approximate)


def _normal_cdf(x: Array, approximate: str) -> Array:
    if approximate == "none":
        return 0.5 * erfc(x * -math.sqrt(0.5))
    if approximate == "tanh":
        return sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")


@gelu.rule
def gelu_x(g: Array, x: Array, approximate: str) -> Array:
    cdf = _normal_cdf(x, approximate)
    if approximate == "none":
        return g * (cdf + x * exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi)))
    inner = math.sqrt(2 / math.pi) * (1.0 + 3 * 0.044715 * x * x)
    return g * (cdf + 2.0 * x * cdf * (1.0 - cdf) * inner)


@primitive(implements=np.nan_to_num)
def nan_to_num(x: Array, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """NaN and infinities replaced by finite numbers; no gradient reaches the replaced ones.

    >>> import tinygrad_rnn as tg
    >>> tg.nan_to_num(tg.tensor([1.0, float("nan")]))
    tensor([1., 0.], float32)
    """
    return np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


@nan_to_num.rule
def nan_to_num_x(g: Array, x: Array) -> Array:
    return where(isfinite(x), g, 0.0)


@primitive(implements=np.astype if hasattr(np, "astype") else None)
def astype(x: Array, dtype: Any = None) -> Any:
    """The values in another dtype; the gradient comes back in the tensor's own.

    >>> import tinygrad_rnn as tg
    >>> tg.astype(tg.tensor([1.5]), "float64").dtype
    dtype('float64')
    """
    return np.asarray(x).astype(dtype)


@astype.rule
def astype_x(g: Array) -> Array:
    return g


@primitive(differentiable=False)
def _discretised(x: Array, dtype: Any = None) -> Any:
    """The values as integers or bools."""
    return np.asarray(x).astype(dtype)


@primitive(differentiable=False)
def _around(x: Array, decimals: int = 0) -> Any:
    """The values rounded to so many decimals."""
    return np.round(x, decimals)


def _discrete(ufunc: np.ufunc, text: str) -> Any:
    """An operation without a gradient: its result does not require grad."""
    if ufunc.nin == 1:

        def operation(x: Array) -> Any: ...
    else:

        def operation(x: Array, y: Array) -> Any: ...  # type: ignore[misc]

    operation.__name__ = operation.__qualname__ = ufunc.__name__
    operation.__doc__ = text + ". The result does not require grad."
    operation.__module__ = __name__
    return primitive(implements=ufunc, differentiable=False)(operation)


sign = _discrete(np.sign, "-1, 0 or 1, as the sign of x; as a function it is constant almost everywhere")
floor = _discrete(np.floor, "The largest integer not above x")
ceil = _discrete(np.ceil, "The smallest integer not below x")
trunc = _discrete(np.trunc, "x without its fraction")
rint = _discrete(np.rint, "The nearest integer, to even at a half")
floor_divide = _discrete(np.floor_divide, "The largest integer not above x / y")
greater = _discrete(np.greater, "Whether x > y")
greater_equal = _discrete(np.greater_equal, "Whether x >= y")
less = _discrete(np.less, "Whether x < y")
less_equal = _discrete(np.less_equal, "Whether x <= y")
equal = _discrete(np.equal, "Whether x == y")
not_equal = _discrete(np.not_equal, "Whether x != y")
logical_and = _discrete(np.logical_and, "Whether x and y hold")
logical_or = _discrete(np.logical_or, "Whether x or y holds")
logical_xor = _discrete(np.logical_xor, "Whether just one of x and y holds")
logical_not = _discrete(np.logical_not, "Whether x does not hold")
bitwise_and = _discrete(np.bitwise_and, "x & y")
bitwise_or = _discrete(np.bitwise_or, "x | y")
bitwise_xor = _discrete(np.bitwise_xor, "x ^ y")
invert = _discrete(np.invert, "~x")
isfinite = _discrete(np.isfinite, "Whether x is finite")
isnan = _discrete(np.isnan, "Whether x is NaN")
isinf = _discrete(np.isinf, "Whether x is infinite")
signbit = _discrete(np.signbit, "Whether the sign bit of x is set")
