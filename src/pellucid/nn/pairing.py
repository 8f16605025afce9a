"""Predictions and labels one to one, for losses and metrics: checked, so that nothing is broadcast in silence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pellucid.errors import UsageError


def paired(pred: Tensor, targ: Tensor, name: str, hint: str = "") -> tuple[Tensor, Tensor]:
    """Both flattened to vectors, after checking that each value has its label: nothing is broadcast.

    Args:
        pred: Values, of any shape.
        targ: One label for each, in the same shape; axes of length 1 do not matter.
        name: Who compares them, for the message.
        hint: What to do, for the message.

    Raises:
        UsageError: the shapes differ, or one of them is no tensor.
    """
    check_tensors(name, pred, targ)
    if pred.shape != targ.shape and [n for n in pred.shape if n != 1] != [n for n in targ.shape if n != 1]:
        raise UsageError(
            f"{name} compares predictions of shape {tuple(pred.shape)} with labels of shape {tuple(targ.shape)}"
            + (f": {hint}" if hint else "")
        )
    return pred.reshape(-1), targ.reshape(-1)


def check_tensors(name: str, *values: Any) -> None:
    """Raise UsageError where one of the values is no tensor, in the words of who compares them."""
    for value in values:
        if not isinstance(value, Tensor):
            raise UsageError(f"{name} compares tensors, got a {type(value).__name__}: torch.as_tensor makes one of it")


def widened(values: Tensor) -> Tensor:
    """In float64, in which sums of a set are taken; in float32 on the one device that has no float64."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)
