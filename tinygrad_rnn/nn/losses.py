"""Losses as modules: a function of ``nn.functional`` with its options."""

from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from . import functional
from .module import Module


class CrossEntropyLoss(Module):
    """:func:`functional.cross_entropy` with its options: class weights, ``ignore_index``, ``reduction``, ``label_smoothing``, ``axis``.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> round(nn.CrossEntropyLoss()(tg.tensor([[0.0, 0.0]]), [1]).item(), 4)
    0.6931
    """

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0, axis: int | None = None) -> None:
        self.options: dict[str, Any] = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing, "axis": axis}
        self.weight = weight

    def forward(self, input: Any, target: Any) -> Tensor:
        return functional.cross_entropy(input, target, self.weight, **self.options)


class NLLLoss(Module):
    """:func:`functional.nll_loss` with its options: class weights, ``ignore_index``, ``reduction``, ``axis``.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.NLLLoss()(tg.tensor([[-1.0, -2.0]]), [1]).item()
    2.0
    """

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean", axis: int | None = None) -> None:
        self.options: dict[str, Any] = {"ignore_index": ignore_index, "reduction": reduction, "axis": axis}
        self.weight = weight

    def forward(self, input: Any, target: Any) -> Tensor:
        return functional.nll_loss(input, target, self.weight, **self.options)


class BCEWithLogitsLoss(Module):
    """:func:`functional.binary_cross_entropy_with_logits` with its options: ``weight``, ``reduction``, ``pos_weight``.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> round(nn.BCEWithLogitsLoss()(tg.zeros(2), tg.ones(2)).item(), 4)
    0.6931
    """

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None) -> None:
        self.weight, self.reduction, self.pos_weight = weight, reduction, pos_weight

    def forward(self, input: Any, target: Any) -> Tensor:
        return functional.binary_cross_entropy_with_logits(input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight)


class MSELoss(Module):
    """:func:`functional.mse_loss` with its ``reduction``.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.MSELoss()(tg.zeros(2), 2 * tg.ones(2)).item()
    4.0
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: Any, target: Any) -> Tensor:
        return functional.mse_loss(input, target, reduction=self.reduction)


class L1Loss(Module):
    """:func:`functional.l1_loss` with its ``reduction``.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.L1Loss()(tg.zeros(2), -2 * tg.ones(2)).item()
    2.0
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: Any, target: Any) -> Tensor:
        return functional.l1_loss(input, target, reduction=self.reduction)


class HuberLoss(Module):
    """:func:`functional.huber_loss` with its ``reduction`` and ``delta``.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.HuberLoss()(tg.zeros(1), 3 * tg.ones(1)).item()
    2.5
    """

    def __init__(self, *, reduction: str = "mean", delta: float = 1.0) -> None:
        self.reduction, self.delta = reduction, delta

    def forward(self, input: Any, target: Any) -> Tensor:
        return functional.huber_loss(input, target, reduction=self.reduction, delta=self.delta)
