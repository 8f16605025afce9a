"""Brightness, contrast, saturation and hue.

The first three are computed on logits, as fastai does: what is bright or dark stays within [0, 1] without being cut
off. Each is there z ↦ a·z + b·grey(z) + c, and so is one after another: a batch is gone through once for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pellucid.data.augment.draws import Draw, check_share, drawn, parts
from pellucid.errors import UsageError

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
EPS = 1e-7  # black and white are this far from 0 and 1, whose logits are infinite

# a, b, c of every image, each float64 of shape (image,), on the CPU.
Light = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class Lighting:
    """Batch transform for training: changes of light, one after another, computed in one pass.

    Args:
        changes: Functions that give a, b and c for each image; what comes first is done first.
    """

    split_idx = 0
    of_pixels = True

    def __init__(self, changes: Sequence[Light]):
        self.changes = list(changes)

    def __call__(self, x: Tensor) -> Tensor:
        """Change each image of a batch (batch, channel, row, column); an image without a change keeps its bits."""
        a, b, c = self.coefficients(x)
        changed = (a != 1) | (b != 0) | (c != 0)
        if not changed.any():
            return x
        out, grey = x.clone(), bool((b != 0).any())
        if grey and x.shape[1] not in (1, 3):
            raise UsageError(f"saturation is of images with 1 or 3 channels, these have {x.shape[1]}")
        if x.shape[1] == 1:  # which are their own grey
            a, b, grey = a + b, torch.zeros_like(b), False
        for rows in parts(changed.nonzero().flatten(), x):
            z = _single(x[rows])
            a_, b_, c_ = (each[rows.cpu()].to(z)[:, None, None, None] for each in (a, b, c))
            z = z.logit_(EPS)
            added = luma(z).mul_(b_).add_(c_) if grey else c_
            out[rows] = z.mul_(a_).add_(added).sigmoid_().to(x.dtype)
        return out

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a, b and c for each image: float64, shape (image,), on the CPU."""
        a = torch.ones(len(x), dtype=torch.float64, device="cpu")
        b, c = torch.zeros_like(a), torch.zeros_like(a)
        for change in self.changes:
            p, q, r = change(x)  # grey(a z + b grey(z) + c) = (a + b) grey(z) + c, for the weights of grey add up to 1
            a, b, c = p * a, p * b + q * (a + b), (p + q) * c + r
        return a, b, c


def lit(transforms: Sequence[Lighting]) -> Lighting:
    """Several in one, in this order."""
    return Lighting([change for t in transforms for change in t.changes])


class Brightness(Lighting):
    """Batch transform for training: makes images brighter or darker.

    Args:
        max_lighting: Greatest change: grey 0.5 becomes 0.5·(1 ± max_lighting).
        p: Share of the images that are changed.
        draw: What becomes of grey 0.5, above 0 and below 1, in place of random values.
        batch: One draw for the whole batch.
    """

    def __init__(self, max_lighting: float = 0.2, p: float = 0.75, draw: Draw = None, batch: bool = False):
        _check("max_lighting", max_lighting, p)

        def brighten(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            middle = drawn(x, 0.5 * (1 - max_lighting), 0.5 * (1 + max_lighting), p, 0.5, draw, batch=batch)
            return torch.ones_like(middle), torch.zeros_like(middle), middle.logit()

        super().__init__([brighten])


class Contrast(Lighting):
    """Batch transform for training: moves values away from grey 0.5, or towards it.

    Args:
        max_lighting: Greatest change: logits times 1 − max_lighting up to 1 / (1 − max_lighting).
        p: Share of the images that are changed.
        draw: Factors in place of random ones.
        batch: One draw for the whole batch.
    """

    def __init__(self, max_lighting: float = 0.2, p: float = 0.75, draw: Draw = None, batch: bool = False):
        _check("max_lighting", max_lighting, p)

        def stretch(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            factor = _factor(x, max_lighting, p, draw, batch)
            return factor, torch.zeros_like(factor), torch.zeros_like(factor)

        super().__init__([stretch])


class Saturation(Lighting):
    """Batch transform for training: moves colours away from grey, or towards it. Grey images stay as they are.

    Args:
        max_lighting: Greatest change: the difference from grey times 1 − max_lighting up to 1 / (1 − max_lighting).
        p: Share of the images that are changed.
        draw: Factors in place of random ones; 0 makes an image grey.
        batch: One draw for the whole batch.
    """

    def __init__(self, max_lighting: float = 0.2, p: float = 0.75, draw: Draw = None, batch: bool = False):
        _check("max_lighting", max_lighting, p)

        def saturate(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            factor = _factor(x, max_lighting, p, draw, batch)
            return factor, 1 - factor, torch.zeros_like(factor)

        super().__init__([saturate])


class Hue:
    """Batch transform for training: turns colours around the circle of hues. Grey images stay as they are.

    Args:
        max_hue: Greatest change: by 1 − max_hue up to 1 / (1 − max_hue) of the circle, where 1 is the same hue again.
        p: Share of the images that are changed.
        draw: Shares of the circle in place of random ones.
        batch: One draw for the whole batch.

    Raises:
        UsageError: an argument that makes no sense; when called, images without 1 or 3 channels.
    """

    split_idx = 0
    of_pixels = True

    def __init__(self, max_hue: float = 0.1, p: float = 0.75, draw: Draw = None, batch: bool = False):
        _check("max_hue", max_hue, p)
        self.max_hue, self.p, self.draw, self.batch = max_hue, p, draw, batch

    def __call__(self, x: Tensor) -> Tensor:
        """Change each image of a batch (batch, channel, row, column) on [0, 1]."""
        shift = _factor(x, self.max_hue, self.p, self.draw, self.batch) % 1
        if x.shape[1] not in (1, 3):
            raise UsageError(f"hue is of images with 1 or 3 channels, these have {x.shape[1]}")
        if x.shape[1] == 1 or not shift.any():
            return x
        out = x.clone()
        for rows in parts(shift.nonzero().flatten(), x):
            images = _single(x[rows])
            out[rows] = turned_hue(images, shift[rows.cpu()].to(images)[:, None, None]).to(x.dtype)
        return out


def turned_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Colours with another hue, and their saturation and value in the HSV model.

    Args:
        x: (image, 3, row, column).
        shift: Share of the circle, broadcast against (image, row, column).
    """
    red, green, blue = x.unbind(1)
    value, least = x.amax(1), x.amin(1)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sector = sector + 6 * shift
    # How far a channel is below the value, in chromas, is one shape for all three, a third of the circle apart.
    below = [((sector + turn) % 6).sub_(3).abs_().neg_().add_(2).clamp_(0, 1) for turn in (0, 4, 2)]
    return torch.stack([value - chroma * each for each in below], 1)


def luma(x: Tensor) -> Tensor:
    """Grey of red, green and blue: (image, 1, row, column)."""
    red, green, blue = x.split(1, 1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _factor(x: Tensor, most: float, p: float, draw: Draw, batch: bool) -> Tensor:
    """Factors whose logarithms are uniform; `draw` takes their place."""
    edge = -math.log(1 - most)
    if draw is not None:
        return drawn(x, 1, 1, p, 1, draw, batch=batch)
    return drawn(x, -edge, edge, p, 0, batch=batch).exp()


def _single(x: Tensor) -> Tensor:
    """In at least single precision; 1e-7 is nothing to a half."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _check(name: str, value: float, p: float) -> None:
    check_share("p", p)
    if not 0 <= value < 1:
        raise UsageError(f"{name} must be at least 0 and below 1, got {value}")
