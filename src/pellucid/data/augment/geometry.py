"""Flip, turn, zoom and warp: matrices that are multiplied first, so that an image is resampled once.

A matrix leads from a place in the result, (x, y, 1), to the one in the image that is seen there. Both run from −1 to 1,
left to right and top to bottom. The arguments are those of fastai's transforms of the same names, `draw` included,
which takes the place of the random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.data.augment.draws import Draw, check_share, drawn
from pellucid.data.augment.resampling import Size, check_sampling, resample, sides
from pellucid.data.augment.sizing import CenterCropResize
from pellucid.errors import UsageError

# The eight symmetries of a square, as fastai numbers them: x and y in the image in terms of those in the result.
SYMMETRIES = torch.tensor(
    [
        [[1, 0], [0, 1]],
        [[-1, 0], [0, 1]],
        [[1, 0], [0, -1]],
        [[0, -1], [1, 0]],
        [[-1, 0], [0, -1]],
        [[0, 1], [-1, 0]],
        [[0, 1], [1, 0]],
        [[0, -1], [-1, 0]],
    ],
    dtype=torch.float64,
    device="cpu",
)
FOLDED = 0.5  # from here on a corner reaches the line between its neighbours, and the image folds


class Frame(NamedTuple):
    """What a matrix has to know of a batch.

    Attributes:
        x: The batch.
        align_corners: As of `resample`.
    """

    x: Tensor
    align_corners: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of an image."""
        return self.x.shape[-2], self.x.shape[-1]

    @property
    def aspect(self) -> float:
        """Height over width of what lies between −1 and 1, in pixels: turning keeps shapes."""
        height, width = (max(1, side - 1) if self.align_corners else side for side in self.size)
        return height / width


Move = Callable[[Frame], Tensor]  # → (image, 3, 3), float64, on the CPU


class Geometry:
    """Batch transform for training: moves images by the product of matrices, and interpolates each once.

    Args:
        moves: Functions that give a matrix for each image; what comes first is done first.
        size: Side of the result in pixels, or (height, width); None for the images' own.
        mode: `bilinear`, `nearest` or `bicubic`.
        pad_mode: What is outside an image: `zeros`, its `border`, or its `reflection`.
        align_corners: As of `resample`.
        validation: What validation images go through in its place; None brings them to `size`, if there is one.

    Raises:
        UsageError: the size, the mode or the padding does not exist.
    """

    split_idx = 0

    def __init__(
        self,
        moves: Sequence[Move],
        size: Size | None = None,
        mode: str = "bilinear",
        pad_mode: str = "reflection",
        align_corners: bool = True,
        validation: CenterCropResize | None = None,
    ):
        check_sampling(mode, pad_mode)
        self.moves, self.size = list(moves), None if size is None else sides(size)
        self.mode, self.pad_mode, self.align_corners = mode, pad_mode, align_corners
        if self.size and validation is None:
            validation = CenterCropResize(self.size, mode=mode, align_corners=align_corners)
        self.validation = validation

    def __call__(self, x: Tensor) -> Tensor:
        """Move each image of a batch (batch, channel, row, column)."""
        return resample(x, self.matrices(x), self.size, self.mode, self.pad_mode, self.align_corners)

    def matrices(self, x: Tensor) -> Tensor:
        """Draw a matrix for each image: float64, shape (image, 3, 3), on the CPU."""
        found = torch.eye(3, dtype=torch.float64, device="cpu").expand(len(x), 3, 3)
        for move in self.moves:
            found = found @ move(Frame(x, self.align_corners))
        return found


def composed(transforms: Sequence[Geometry]) -> Geometry:
    """Several in one, with the size that some have, and the first one's way of sampling.

    Raises:
        UsageError: two have another size.
    """
    sizes = {t.size for t in transforms if t.size}
    if len(sizes) > 1:
        raise UsageError(f"images cannot be brought to several sizes in one step, got {sorted(sizes)}: give one size")
    first, moves = transforms[0], [move for t in transforms for move in t.moves]
    sized = [t for t in transforms if t.size]
    # Of a crop and what only has its size, the crop says what validation sees.
    sized.sort(key=lambda t: t.validation is None or t.validation.ratio is None)
    size, validation = (sized[0].size, sized[0].validation) if sized else (None, None)
    validation = validation and replace(validation, mode=first.mode, align_corners=first.align_corners)
    return Geometry(moves, size, first.mode, first.pad_mode, first.align_corners, validation)


def affine(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    """Matrices of (a x + b y + c, d x + e y + f), from numbers of shape (image,)."""
    zero = torch.zeros_like(a)
    return torch.stack([a, b, c, d, e, f, zero, zero, zero + 1], -1).view(-1, 3, 3)


class Flip(Geometry):
    """Batch transform for training: mirrors images left to right.

    Args:
        p: Share of the images that are.
        draw: 1 for images to mirror and 0 for others, in place of 1 for all of that share.
        size, mode, pad_mode, align_corners: As of `Geometry`.
        batch: One draw for the whole batch.
    """

    def __init__(
        self,
        p: float = 0.5,
        draw: Draw = None,
        size: Size | None = None,
        mode: str = "bilinear",
        pad_mode: str = "reflection",
        align_corners: bool = True,
        batch: bool = False,
    ):
        check_share("p", p)

        def flip(frame: Frame) -> Tensor:
            sign = 1 - 2 * drawn(frame.x, 1, 1, p, 0, draw, batch=batch)
            zero = torch.zeros_like(sign)
            return affine(sign, zero, zero, zero, zero + 1, zero)

        super().__init__([flip], size, mode, pad_mode, align_corners)


class Dihedral(Geometry):
    """Batch transform for training: one of the eight ways to put a square, four turns, mirrored or not.

    Args:
        p: Share of the images that are turned or mirrored, or as they were in one of eight cases.
        draw: The number of the way, 0 to 7, in place of a random one; 0 leaves an image alone, 1 mirrors it left to
            right, 2 top to bottom, 4 both.
        size, mode, pad_mode, align_corners: As of `Geometry`.
        batch: One draw for the whole batch.
    """

    def __init__(
        self,
        p: float = 0.5,
        draw: Draw = None,
        size: Size | None = None,
        mode: str = "bilinear",
        pad_mode: str = "reflection",
        align_corners: bool = True,
        batch: bool = False,
    ):
        check_share("p", p)

        def turn(frame: Frame) -> Tensor:
            ways = drawn(frame.x, 0, 8, p, 0, draw, batch=batch).long().clamp(0, 7)
            m, zero = SYMMETRIES[ways], torch.zeros(len(frame.x), dtype=torch.float64, device="cpu")
            a = frame.aspect
            return affine(m[:, 0, 0], m[:, 0, 1] * a, zero, m[:, 1, 0] / a, m[:, 1, 1], zero)

        super().__init__([turn], size, mode, pad_mode, align_corners)


class Rotate(Geometry):
    """Batch transform for training: turns images about their middle.

    Args:
        max_deg: Largest angle in degrees, to either side.
        p: Share of the images that are turned.
        draw: Angles in degrees, clockwise, in place of random ones.
        size, mode, pad_mode, align_corners: As of `Geometry`.
        batch: One draw for the whole batch.
    """

    def __init__(
        self,
        max_deg: float = 10,
        p: float = 0.5,
        draw: Draw = None,
        size: Size | None = None,
        mode: str = "bilinear",
        pad_mode: str = "reflection",
        align_corners: bool = True,
        batch: bool = False,
    ):
        check_share("p", p)
        check_limit("max_deg", max_deg)

        def rotate(frame: Frame) -> Tensor:
            angle = drawn(frame.x, -max_deg, max_deg, p, 0, draw, batch=batch).deg2rad()
            cos, sin, zero, a = angle.cos(), angle.sin(), torch.zeros_like(angle), frame.aspect
            return affine(cos, sin * a, zero, -sin / a, cos, zero)

        super().__init__([rotate], size, mode, pad_mode, align_corners)


class Zoom(Geometry):
    """Batch transform for training: enlarges or shrinks images, about a random place.

    Args:
        min_zoom: Smallest factor.
        max_zoom: Largest factor.
        p: Share of the images that are zoomed.
        draw: Factors in place of random ones.
        draw_x: Where the image stays in place: 0 for its left edge, 1 for its right one.
        draw_y: Likewise from the top to the bottom.
        size, mode, pad_mode, align_corners: As of `Geometry`.
        batch: One draw for the whole batch.
    """

    def __init__(
        self,
        min_zoom: float = 1.0,
        max_zoom: float = 1.1,
        p: float = 0.5,
        draw: Draw = None,
        draw_x: Draw = None,
        draw_y: Draw = None,
        size: Size | None = None,
        mode: str = "bilinear",
        pad_mode: str = "reflection",
        batch: bool = False,
        align_corners: bool = True,
    ):
        check_share("p", p)
        if not 0 < min_zoom <= max_zoom < math.inf:
            raise UsageError(
                f"zoom goes from a smallest factor to a largest, both above 0, got {min_zoom} to {max_zoom}"
            )

        def zoom(frame: Frame) -> Tensor:
            step = 1 / drawn(frame.x, min_zoom, max_zoom, p, 1, draw, batch=batch)
            x, y = (drawn(frame.x, 0, 1, 1, 0, each, batch=batch) for each in (draw_x, draw_y))
            zero = torch.zeros_like(step)
            return affine(step, zero, (1 - step) * (2 * x - 1), zero, step, (1 - step) * (2 * y - 1))

        super().__init__([zoom], size, mode, pad_mode, align_corners)


class Warp(Geometry):
    """Batch transform for training: images as if seen from one side and from above or below.

    Args:
        magnitude: How far corners move at most, in halves of a side, to either side: below 0.5.
        p: Share of the images that are warped, along each axis.
        draw_x: Movements along x in place of random ones.
        draw_y: Likewise along y.
        size, mode, pad_mode, align_corners: As of `Geometry`.
        batch: One draw for the whole batch.
    """

    def __init__(
        self,
        magnitude: float = 0.2,
        p: float = 0.5,
        draw_x: Draw = None,
        draw_y: Draw = None,
        size: Size | None = None,
        mode: str = "bilinear",
        pad_mode: str = "reflection",
        batch: bool = False,
        align_corners: bool = True,
    ):
        check_share("p", p)
        if not abs(magnitude) < FOLDED:
            raise UsageError(f"the magnitude of a warp must be below {FOLDED}, where images fold, got {magnitude}")

        def warp(frame: Frame) -> Tensor:
            x, y = (
                drawn(frame.x, -magnitude, magnitude, p, 0, each, batch=batch).clamp(-0.499, 0.499)
                for each in (draw_x, draw_y)
            )
            return perspective(x, y)

        super().__init__([warp], size, mode, pad_mode, align_corners)


def perspective(x: Tensor, y: Tensor) -> Tensor:
    """Matrices that lead corners, moved by x and y as fastai's Warp moves them, back to the corners of the image."""
    corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    moved = [(-1 - y, -1 - x), (-1 + y, 1 + x), (1 + y, -1 + x), (1 - y, 1 - x)]
    rows, right = [], []
    for (u, v), (a, b) in zip(corners, moved, strict=True):
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        rows += [[a, b, one, zero, zero, zero, -u * a, -u * b], [zero, zero, zero, a, b, one, -v * a, -v * b]]
        right += [u * one, v * one]
    system = torch.stack([torch.stack(row, -1) for row in rows], 1)
    solved = torch.linalg.solve(system, torch.stack(right, -1))
    found = torch.cat([solved, torch.ones_like(solved[:, :1])], 1).view(-1, 3, 3)
    # Solving rounds; an image that is not warped is to keep its pixels.
    still = ((x == 0) & (y == 0))[:, None, None]
    return torch.where(still, torch.eye(3, dtype=found.dtype, device="cpu"), found)


def check_limit(name: str, value: float) -> None:
    """Refuse what is no amount."""
    if not 0 <= value < math.inf:
        raise UsageError(f"{name} must be an amount from 0 on, got {value}")
