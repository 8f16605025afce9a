"""Bring batches to one size without anything random: what validation images go through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.data.augment.resampling import Size, check_sampling, resample, sides
from pellucid.data.registry import BATCH_TRANSFORMS, registered
from pellucid.errors import UsageError


@registered(BATCH_TRANSFORMS)
@dataclass(frozen=True)
class CenterCropResize:
    """Batch transform for validation: cuts the middle out and brings it to one size.

    Training transforms that have a `size` bring one along as their `validation`, and a run folder keeps it.

    Args:
        size: Side in pixels, or (height, width).
        ratio: Least and greatest width over height of what is cut out; None takes the whole image, whatever its shape.
        scale: Share of its height and width that is kept.
        mode: `bilinear`, `nearest` or `bicubic`.
        align_corners: As of `resample`.

    Raises:
        UsageError: an argument that makes no sense.
    """

    size: Size
    ratio: Sequence[float] | None = None
    scale: float = 1.0
    mode: str = "bilinear"
    align_corners: bool = True

    split_idx = 1

    def __post_init__(self) -> None:
        check_sampling(self.mode, "border")
        object.__setattr__(self, "size", list(sides(self.size)))
        if self.ratio is not None:
            object.__setattr__(self, "ratio", check_ratio(self.ratio))
        if not 0 < self.scale <= 1:
            raise UsageError(f"the share of an image that is kept must be above 0 and at most 1, got {self.scale}")

    def __call__(self, x: Tensor) -> Tensor:
        """Cut and resize a batch (batch, channel, row, column)."""
        height, width = sides(self.size)
        rows, columns = (max(1, int(side * self.scale)) for side in within_ratio(x.shape[2], x.shape[3], self.ratio))
        top, left = (x.shape[2] - rows) // 2, (x.shape[3] - columns) // 2
        middle = x[:, :, top : top + rows, left : left + columns]
        same = torch.eye(3, dtype=torch.float64, device="cpu").expand(len(x), 3, 3)
        return resample(middle, same, (height, width), self.mode, "border", self.align_corners)


def within_ratio(height: int, width: int, ratio: Sequence[float] | None) -> tuple[int, int]:
    """The largest (height, width) in an image whose width over height is not beyond the ratios."""
    if ratio is None:
        return height, width
    least, greatest = ratio
    if width / height < least:
        return int(width / least), width
    return (height, int(height * greatest)) if width / height > greatest else (height, width)


def check_ratio(ratio: Sequence[float]) -> list[float]:
    """Least and greatest width over height; raises UsageError where they are none."""
    found = [float(each) for each in ratio]
    if len(found) != 2 or not 0 < found[0] <= found[1] < math.inf:
        raise UsageError(f"ratio must be the least and the greatest width over height, such as (3/4, 4/3), got {ratio}")
    return found
