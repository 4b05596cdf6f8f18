"""The operations and their gradient rules, a module a family.

Conventions where the mathematics leaves a choice:

==========================  =====================================================================
``max``, ``min``            elements that tie share the gradient evenly
``maximum``, ``minimum``    equal operands get half each
``clip``                    the bounds count as inside: the gradient there is 1
``relu``, ``absolute``      the gradient at 0 is 0
``sqrt``, ``log``           infinite at 0, and 0 where no cotangent arrives, to any order
``norm``, ``std``           0 at 0 (of constants)
``power``                   ``0 ** 0`` is 1; gradient 0 for the base, and 0 for the exponent
``sign``, ``floor``, ...    no gradient: the result does not require grad
``max_pool2d``, ``sort``    the first of equal elements
``leaky_relu``, ``elu``     at 0 the slope of the negative side
==========================  =====================================================================
"""

from . import methods  # noqa: F401
