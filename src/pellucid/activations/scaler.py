"""The loss behind a scaled one: what a GradScaler multiplied, so that the loss is recorded and not 65,536 times it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.utils.weak import WeakIdKeyDictionary

_scale = GradScaler.scale
_losses = WeakIdKeyDictionary()


def remember() -> None:
    """From now on, know the loss behind each scaled one."""
    GradScaler.scale = _remembering  # pyright: ignore[reportAttributeAccessIssue]


def forget() -> None:
    """Leave GradScaler as it was."""
    GradScaler.scale = _scale
    _losses.clear()


def unscaled(loss: Tensor) -> Tensor:
    """The loss that was scaled to this one; itself, if none was."""
    found = _losses.get(loss)
    return loss if found is None else found


def _remembering(scaler: GradScaler, outputs: Any) -> Any:
    scaled = _scale(scaler, outputs)
    if isinstance(outputs, Tensor):
        _losses[scaled] = outputs.detach()
    elif isinstance(outputs, list | tuple):
        for each, loss in zip(scaled, outputs, strict=True):
            if isinstance(each, Tensor):
                _losses[each] = loss.detach()
    return scaled
