"""One resampling of a batch: every image through its own matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.data.augment.draws import parts
from pellucid.data.images import Resize
from pellucid.errors import UsageError

Size = int | Sequence[int]  # a side of a square, or (height, width), in pixels
MODES = ("bilinear", "nearest", "bicubic")
HORIZON = 1e-2  # of a perspective: what lies at or beyond it has no place in the image, and is taken from far outside


class PadMode:
    """Names of what is outside an image: nothing (black), its border, or its reflection."""

    Zeros, Border, Reflection = "zeros", "border", "reflection"


def check_sampling(mode: str, pad_mode: str) -> None:
    """Refuse names that do not exist."""
    if mode not in MODES:
        raise UsageError(f"mode {mode!r} does not exist: use one of {', '.join(MODES)}")
    if pad_mode not in ("zeros", "border", "reflection"):
        raise UsageError(f"pad_mode {pad_mode!r} does not exist: use 'zeros', 'border' or 'reflection'")


def resample(
    x: Tensor,
    matrices: Tensor,
    size: tuple[int, int] | None = None,
    mode: str = "bilinear",
    pad_mode: str = "reflection",
    align_corners: bool = True,
) -> Tensor:
    """Look up every pixel of the result where its image's matrix says.

    An image is not interpolated where its matrix only turns or mirrors it (by right angles, at its own size), or leaves
    it alone: its pixels stay as they are, bit for bit. One that shrinks by a factor of two or more is averaged down
    first, so that no pixel is passed over.

    Args:
        x: Images, float, shape (image, channel, row, column).
        matrices: float64, shape (image, 3, 3): from (x, y, 1) in the result to the place in the image, times a number.
            Both run from −1 to 1, left to right and top to bottom.
        size: (height, width) of the result; None for the images' own.
        mode: `bilinear`, `nearest` or `bicubic`.
        pad_mode: What is outside an image: `zeros`, its `border`, or its `reflection`.
        align_corners: −1 and 1 are the centres of the outermost pixels, not their outer edges.
    """
    own = (x.shape[2], x.shape[3])
    size = own if size is None else size
    matrices = matrices.cpu()
    exact = _keeps_pixels(matrices, own) if size == own else torch.zeros(len(x), dtype=torch.bool, device="cpu")
    if exact.all() and (matrices == torch.eye(3, dtype=matrices.dtype, device="cpu")).all():
        return x
    out = x.new_empty(*x.shape[:2], *size)
    _turn(x, matrices, exact.nonzero().flatten(), out)
    factors = _shrinking(matrices, own, size)
    for factor in factors[~exact].unique().tolist():
        for rows in parts((~exact & (factors == factor)).nonzero().flatten(), x):
            images, scales = _averaged(x[rows], int(factor), align_corners)
            places = _places(scales @ matrices[rows.cpu()], size, images, align_corners)
            out[rows] = F.grid_sample(images, places, mode, pad_mode, align_corners).to(x.dtype)
    return out


def _keeps_pixels(matrices: Tensor, size: tuple[int, int]) -> Tensor:
    """Which matrices map pixels on pixels: axes on axes, without a shift."""
    kept = (matrices.abs() == matrices.abs().round()).all(-1).all(-1)
    kept &= (matrices[:, :2, 2] == 0).all(-1) & (matrices[:, 2] == torch.tensor([0.0, 0.0, 1.0], device="cpu")).all(-1)
    kept &= (matrices[:, :2, :2].abs().sum(1) == 1).all(-1) & (matrices[:, :2, :2].abs().sum(2) == 1).all(-1)
    return kept & (matrices[:, 0, 0] != 0) if size[0] != size[1] else kept


def _turn(x: Tensor, matrices: Tensor, rows: Tensor, out: Tensor) -> None:
    """Turn and mirror images by right angles."""
    kinds = matrices[rows, :2, :2]
    for kind in kinds.unique(dim=0) if len(rows) else ():
        chosen = rows[(kinds == kind).all(-1).all(-1)].to(x.device)
        images = x[chosen]
        # The matrix leads from the result to the image: what it does to rows and columns comes before swapping them.
        mirrored = [axis - 2 for axis in (0, 1) if kind[1 - axis].sum() < 0]
        images = images.flip(mirrored) if mirrored else images
        out[chosen] = images if kind[0, 0] else images.transpose(-1, -2)


def _shrinking(matrices: Tensor, own: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """By which whole factor each image becomes smaller, in its middle and along the direction that shrinks least."""
    depth, shift, tilt = matrices[:, 2:, 2:], matrices[:, :2, 2:], matrices[:, 2:, :2]
    slopes = (matrices[:, :2, :2] - shift @ tilt / depth) / depth
    pixels = torch.tensor([own[1], own[0]], dtype=torch.float64, device="cpu")[:, None]
    steps = torch.tensor([size[1], size[0]], dtype=torch.float64, device="cpu")
    smallest = torch.linalg.svdvals(slopes * pixels / steps)[:, -1]
    return (smallest + 1e-6).floor().clamp(1, min(own))  # 1.9999999 is two, rounded


def _averaged(images: Tensor, factor: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Images made smaller by a factor, and the matrix from places in the original to places in them."""
    images = images if images.dtype in (torch.float32, torch.float64) else images.float()
    scales = torch.eye(3, dtype=torch.float64, device="cpu")
    if factor == 1:
        return images, scales
    small = F.interpolate(images, size=[max(1, side // factor) for side in images.shape[2:]], mode="area")
    if align_corners:  # edges stay where they are, and the centres of the outermost pixels move inwards
        for axis, k in ((0, 3), (1, 2)):
            before, after = images.shape[k], small.shape[k]
            scales[axis, axis] = (before - 1) / before * after / max(1, after - 1)
    return small, scales


def _places(matrices: Tensor, size: tuple[int, int], like: Tensor, align_corners: bool) -> Tensor:
    """Where each pixel of the result lies in its image: (image, row, column, (x, y))."""
    m = matrices.to(like)[:, :, :, None, None]
    ys, xs = (_centres(side, align_corners).to(like) for side in size)
    rows = ys[:, None]
    places = like.new_empty(len(matrices), *size, 2)
    if (matrices[:, 2, :2] == 0).all():
        for k in (0, 1):
            torch.add(m[:, k, 1] * rows + m[:, k, 2], m[:, k, 0] * xs, out=places[..., k])
        return places
    depth = (m[:, 2, 0] * xs + (m[:, 2, 1] * rows + m[:, 2, 2])).clamp_(min=HORIZON).reciprocal_()
    for k in (0, 1):
        torch.mul(m[:, k, 0] * xs + (m[:, k, 1] * rows + m[:, k, 2]), depth, out=places[..., k])
    return places


def _centres(n: int, align_corners: bool) -> Tensor:
    """Centres of `n` pixels on −1 to 1; of a single one, the middle."""
    edge = 1.0 if align_corners and n > 1 else (n - 1) / n
    return torch.linspace(-edge, edge, n, dtype=torch.float64, device="cpu") if n > 1 else torch.zeros(1)


def sides(size: Size) -> tuple[int, int]:
    """A size as (height, width); raises UsageError where it is none in pixels."""
    return Resize(cast(Any, tuple(size) if isinstance(size, list) else size), "squish").height_width
