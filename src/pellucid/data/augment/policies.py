"""TrivialAugment (arXiv:2103.10158) and RandAugment (arXiv:1909.13719): random operations of random strengths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.data.augment import operations as op
from pellucid.data.augment.draws import uniform
from pellucid.errors import UsageError

STRENGTHS = 30  # the strongest of 31, from 0 on


@dataclass(frozen=True)
class Choice:
    """An operation that may be drawn.

    Attributes:
        operation: It.
        least: Its strength at 0.
        most: Its strength at 30.
        signed: Whether the strength is as often negative.
    """

    operation: op.Operation
    least: float = 0.0
    most: float = 0.0
    signed: bool = False


def choices(shear: float, translate: float, degrees: float, enhance: float, bits: float) -> list[Choice]:
    """The fourteen operations of both papers, up to these strengths."""
    moving = [(op.shear_x, shear), (op.shear_y, shear), (op.translate_x, translate), (op.translate_y, translate)]
    mixing = [op.brightness, op.colour, op.contrast, op.sharpness]
    return [
        Choice(op.identity),
        *(Choice(each, 0, most, signed=True) for each, most in [*moving, (op.rotate, degrees)]),
        *(Choice(each, 0, enhance, signed=True) for each in mixing),
        Choice(op.posterize, 0, bits),
        Choice(op.solarize, 0, 1),
        Choice(op.autocontrast),
        Choice(op.equalize),
    ]


# The largest strengths in the papers' code; a translation there is 32 pixels, or 150 of 331.
WIDE = choices(shear=0.99, translate=32 / 224, degrees=135, enhance=0.99, bits=6)
USUAL = choices(shear=0.3, translate=150 / 331, degrees=30, enhance=0.9, bits=4)


class TrivialAugment:
    """Batch transform for training: one of fourteen operations for each image, of any strength.

    Shear and translation to either side, rotation, brightness, colour, contrast, sharpness, posterize, solarize,
    autocontrast, equalize, and nothing, with the wide range of strengths of Müller and Hutter, arXiv:2103.10158. There
    is nothing to choose. It comes before `Normalize`, for it works on values in [0, 1].
    """

    split_idx = 0
    of_pixels = True

    def __call__(self, x: Tensor) -> Tensor:
        """Change each image of a batch (batch, channel, row, column)."""
        return applied(x, WIDE, torch.randint(STRENGTHS + 1, (len(x),), device="cpu"))


class RandAugment:
    """Batch transform for training: several operations for each image, one after another, of one strength.

    The operations are those of `TrivialAugment`, with the ranges of Cubuk et al., arXiv:1909.13719. It comes before
    `Normalize`, for it works on values in [0, 1].

    Args:
        n: Operations an image; of the fourteen, any may be drawn again.
        m: Their strength, from 0 to 30.

    Raises:
        UsageError: no operation, or another strength.
    """

    split_idx = 0
    of_pixels = True

    def __init__(self, n: int = 2, m: int = 9):
        if n < 1 or not 0 <= m <= STRENGTHS:
            raise UsageError(f"RandAugment takes n of at least 1 and m from 0 to {STRENGTHS}, got {n} and {m}")
        self.n, self.m = n, m

    def __call__(self, x: Tensor) -> Tensor:
        """Change each image of a batch (batch, channel, row, column)."""
        for _ in range(self.n):
            x = applied(x, USUAL, torch.full((len(x),), self.m, device="cpu"))
        return x


def applied(x: Tensor, among: list[Choice], strengths: Tensor) -> Tensor:
    """Images after an operation each, drawn from some.

    Args:
        x: (image, channel, row, column).
        among: What is drawn from, evenly.
        strengths: int64, shape (image,), 0 to 30.
    """
    drawn = torch.randint(len(among), (len(x),), device="cpu")
    signs = uniform(0, 1, len(x)).round() * 2 - 1
    out = x.clone()
    for number, choice in enumerate(among):
        rows = (drawn == number).nonzero().flatten()
        if not len(rows) or choice.operation is op.identity:
            continue
        strength = choice.least + (choice.most - choice.least) * strengths[rows].double() / STRENGTHS
        strength = strength * signs[rows] if choice.signed else strength
        images = x[rows.to(x.device)]
        single = images if x.dtype in (torch.float32, torch.float64) else images.float()
        out[rows.to(x.device)] = choice.operation(single, strength).to(x.dtype)
    return out
