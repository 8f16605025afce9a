"""Transforms of whole batches, on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import UsageError

BatchTransform = Callable[[Tensor], Tensor]


class Normalize:
    """Batch transform x → (x − mean) / std per channel, on values in [0, 1].

    Args:
        mean: Mean of each channel; None takes those of the training set when the data loaders are made.
        std: Standard deviation of each channel, likewise.
    """

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None):
        if (mean is None) != (std is None):
            raise UsageError("Normalize needs both mean and std, or neither to take the training set's")
        self.mean, self.std = mean, std
        if std is not None and min(std) <= 0:
            raise UsageError(f"Normalize needs positive standard deviations, got {list(std)}")
        self._on: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @classmethod
    def from_stats(cls, mean: Sequence[float] | float, std: Sequence[float] | float) -> Normalize:
        """Normalize with known statistics, a number or one a channel: `Normalize.from_stats(*imagenet_stats)`."""
        listed = [list(s) if isinstance(s, Sequence) else [float(s)] for s in (mean, std)]
        return cls(*listed)

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise a batch (batch, channel, row, column)."""
        mean, std = self._tensors(x.device)
        return (x - mean).div_(std)

    def decode(self, x: Tensor) -> Tensor:
        """Undo the normalisation, to show pictures."""
        mean, std = self._tensors(x.device)
        return x * std + mean

    def to_json(self) -> dict[str, Any]:
        """Arguments that make the same transform."""
        return {"mean": self.mean and list(self.mean), "std": self.std and list(self.std)}

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"

    def _tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.mean is None or self.std is None:
            raise UsageError("Normalize() has no statistics yet: pass it to a DataBlock, or use Normalize.from_stats")
        if device not in self._on:
            mean, std = (torch.tensor(s, device=device).view(1, -1, 1, 1) for s in (self.mean, self.std))
            self._on[device] = mean, std
        return self._on[device]


imagenet_stats = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
