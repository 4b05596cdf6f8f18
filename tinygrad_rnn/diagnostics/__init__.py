"""Diagnosis of recurrent networks: what flows back through time, what the units do, and what the weights are.

Each function reads a tape or a module and gives an object with numbers as arrays, ``table()`` as text and ``plot()`` with matplotlib.
"""

from .activity import ActivationMap, GateStatistics, activation_map, gate_statistics
from .flow import GradientFlow, gradient_flow
from .weights import SpectralRadius, WeightReport, spectral_radius, weight_report

__all__ = [
    "ActivationMap",
    "GateStatistics",
    "GradientFlow",
    "SpectralRadius",
    "WeightReport",
    "activation_map",
    "gate_statistics",
    "gradient_flow",
    "spectral_radius",
    "weight_report",
]
