"""The operations of RandAugment and TrivialAugment on batches: each image with its own strength.

They mean what Pillow's `ImageOps` and `ImageEnhance` mean, on values in [0, 1] that are not rounded to 8 bits; what
counts levels (equalize, posterize) counts 256. An enhancement of strength s is the image times 1 + s and what it is
mixed with times −s, so that 0 changes nothing and −1 is all of that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.data.augment.geometry import affine
from pellucid.data.augment.lighting import luma
from pellucid.data.augment.resampling import resample

Operation = Callable[[Tensor, Tensor], Tensor]  # images, their strengths (image,) → images


def identity(x: Tensor, strength: Tensor) -> Tensor:
    """Images as they are."""
    return x


def shear_x(x: Tensor, strength: Tensor) -> Tensor:
    """Each row moved by `strength` times its distance from the middle."""
    return _moved(x, slope_x=strength)


def shear_y(x: Tensor, strength: Tensor) -> Tensor:
    """Each column moved by `strength` times its distance from the middle."""
    return _moved(x, slope_y=strength)


def translate_x(x: Tensor, strength: Tensor) -> Tensor:
    """Moved to the side by a share of the width."""
    return _moved(x, shift_x=strength * x.shape[3])


def translate_y(x: Tensor, strength: Tensor) -> Tensor:
    """Moved up or down by a share of the height."""
    return _moved(x, shift_y=strength * x.shape[2])


def rotate(x: Tensor, strength: Tensor) -> Tensor:
    """Turned clockwise about the middle, by `strength` degrees."""
    angle, aspect = strength.deg2rad(), x.shape[2] / x.shape[3]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _resampled(x, affine(cos, sin * aspect, zero, -sin / aspect, cos, zero))


def brightness(x: Tensor, strength: Tensor) -> Tensor:
    """Mixed with black."""
    return _mixed(x, torch.zeros_like(x), strength)


def colour(x: Tensor, strength: Tensor) -> Tensor:
    """Mixed with its own grey."""
    return _mixed(x, _grey(x), strength)


def contrast(x: Tensor, strength: Tensor) -> Tensor:
    """Mixed with the mean of its own grey."""
    return _mixed(x, _grey(x).mean((1, 2, 3), keepdim=True), strength)


def sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """Mixed with itself smoothed, except for the outermost pixels: each pixel 5/13, its eight neighbours 1/13 each."""
    if min(x.shape[2:]) < 3:
        return x
    kernel = torch.ones(3, 3, dtype=x.dtype, device=x.device)
    kernel[1, 1] = 5
    smooth = x.clone()
    weights = (kernel / 13).expand(x.shape[1], 1, 3, 3)
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(x, weights, groups=x.shape[1])
    return _mixed(x, smooth, strength)


def posterize(x: Tensor, strength: Tensor) -> Tensor:
    """Only the first 8 − `strength` bits of each value."""
    step = 2 ** strength.round()
    levels = _levels(x)
    return (levels - levels % _each(step, x)) / 255


def solarize(x: Tensor, strength: Tensor) -> Tensor:
    """Levels of 256 · (1 − `strength`) and above inverted."""
    return torch.where(x * 255 >= _each(256 * (1 - strength), x), 1 - x, x)


def autocontrast(x: Tensor, strength: Tensor) -> Tensor:
    """Each channel stretched to [0, 1]."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1e-12), x)


def equalize(x: Tensor, strength: Tensor) -> Tensor:
    """Each channel with all of its 256 levels about equally often."""
    levels = _levels(x).long().flatten(2).flatten(0, 1)
    counts = torch.zeros(len(levels), 256, dtype=torch.long, device=x.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    last = torch.where(counts > 0, torch.arange(256, device=x.device), -1).amax(1, keepdim=True)
    step = (levels.shape[1] - counts.gather(1, last)) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(0, 255)
    table = torch.where(step > 0, table, torch.arange(256, device=x.device))
    return table.gather(1, levels).view(x.shape).to(x.dtype) / 255


def _moved(x: Tensor, **pixels: Tensor) -> Tensor:
    """Sheared and shifted, in pixels."""
    height, width = x.shape[2:]
    zero = torch.zeros(len(x), dtype=torch.float64, device="cpu")
    slope_x, slope_y, shift_x, shift_y = (
        pixels.get(name, zero) for name in ("slope_x", "slope_y", "shift_x", "shift_y")
    )
    # From the result back to the image, so the other way.
    return _resampled(
        x,
        affine(
            zero + 1,
            -slope_x * height / width,
            -2 * shift_x / width,
            -slope_y * width / height,
            zero + 1,
            -2 * shift_y / height,
        ),
    )


def _resampled(x: Tensor, matrices: Tensor) -> Tensor:
    return resample(x, matrices, None, "bilinear", "zeros", align_corners=False)


def _mixed(x: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    return torch.lerp(other, x, _each(1 + strength, x)).clamp_(0, 1)


def _each(values: Tensor, x: Tensor) -> Tensor:
    """A value for each image, to be combined with it."""
    return values.to(x)[:, None, None, None]


def _grey(x: Tensor) -> Tensor:
    return (luma(x) if x.shape[1] == 3 else x.mean(1, keepdim=True)).expand_as(x)


def _levels(x: Tensor) -> Tensor:
    return (x * 255).round_().clamp_(0, 255)
