"""Random crops: out of images kept at a larger size, and of small images by a few pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.data.augment.draws import uniform
from pellucid.data.augment.geometry import Frame, Geometry, affine
from pellucid.data.augment.resampling import Size, check_sampling, sides
from pellucid.data.augment.sizing import CenterCropResize, check_ratio, within_ratio
from pellucid.data.registry import BATCH_TRANSFORMS, registered
from pellucid.errors import UsageError

PADDINGS = {"zeros": "constant", "border": "replicate", "reflection": "reflect"}
ATTEMPTS = 10  # to find a crop of the area and the shape that were drawn that is within the image


class RandomResizedCropGPU(Geometry):
    """Batch transform for training: a random part of each image, at one size. Validation images lose their borders.

    Keep images at a larger size than they are trained on (`item_tfms=Resize(256)` for 224), and parts of them are
    still sharp. In `setup_aug_tfms` and `aug_transforms` the part is found in the same resampling as other movements.

    Args:
        size: Side of the result in pixels, or (height, width).
        min_scale: Smallest part, as a share of the image's area.
        ratio: Least and greatest width over height of the part.
        mode: `bilinear`, `nearest` or `bicubic`.
        valid_scale: Share of height and width that validation images keep.
        max_scale: Largest part.

    Raises:
        UsageError: an argument that makes no sense.
    """

    def __init__(
        self,
        size: Size,
        min_scale: float = 0.08,
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        mode: str = "bilinear",
        valid_scale: float = 1.0,
        max_scale: float = 1.0,
    ):
        if not 0 < min_scale <= max_scale <= 1:
            raise UsageError(f"a crop is a share of the image from above 0 to 1, got {min_scale} to {max_scale}")
        limits = check_ratio(ratio)

        def crop(frame: Frame) -> Tensor:
            return _into(random_parts(len(frame.x), frame.size, (min_scale, max_scale), limits), frame)

        super().__init__([crop], size, mode, validation=CenterCropResize(size, limits, valid_scale, mode))


def random_parts(n: int, size: tuple[int, int], scale: tuple[float, float], ratio: Sequence[float]) -> Tensor:
    """A random part for each of `n` images: int64 (image, (top, left, height, width)).

    Area and logarithm of the ratio are uniform, as Szegedy et al. have them (arXiv:1409.4842); where none of ten
    fits into the image, it is the largest one in its middle.
    """
    height, width = size
    area = uniform(*scale, ATTEMPTS, n) * height * width
    shape = uniform(math.log(ratio[0]), math.log(ratio[1]), ATTEMPTS, n).exp()
    rows, columns = (area / shape).sqrt().round(), (area * shape).sqrt().round()
    fits = (rows <= height) & (columns <= width) & (rows >= 1) & (columns >= 1)
    first = fits.long().argmax(0)[None]
    chosen = torch.stack([rows.gather(0, first)[0], columns.gather(0, first)[0]], -1)
    middle = torch.tensor(within_ratio(height, width, ratio), dtype=torch.float64, device="cpu")
    found = fits.any(0)[:, None]
    chosen = torch.where(found, chosen, middle)
    room = torch.tensor(size, dtype=torch.float64, device="cpu") - chosen
    place = torch.where(found, (uniform(0, 1, n, 2) * (room + 1)).floor(), (room / 2).floor())
    return torch.cat([place, chosen], -1).long()


def _into(boxes: Tensor, frame: Frame) -> Tensor:
    """Matrices that lead into the parts: their outermost pixels, or their edges, become those of the result."""
    (top, left, rows, columns), (height, width) = boxes.double().unbind(-1), frame.size
    less = 1 if frame.align_corners else 0
    zero = torch.zeros_like(top)
    x, y = ((side - less) / max(1, whole - less) for side, whole in ((columns, width), (rows, height)))
    shift_x, shift_y = (
        (2 * start + side - whole) / max(1, whole - less)
        for start, side, whole in ((left, columns, width), (top, rows, height))
    )
    return affine(x, zero, shift_x, zero, y, shift_y)


class RandomCrop:
    """Batch transform for training: a random part of each image, pixel by pixel: `RandomCrop(padding=4)` is CIFAR's.

    Nothing is interpolated. Validation images are cut to the middle, if there is a size.

    Args:
        size: Side of the part in pixels, or (height, width); None for the images' own.
        padding: Pixels added on every side first.
        pad_mode: What is added: `zeros`, the `border` repeated, or its `reflection`.

    Raises:
        UsageError: an argument that makes no sense; when called, images that are too small.
    """

    split_idx = 0

    def __init__(self, size: Size | None = None, padding: int = 0, pad_mode: str = "zeros"):
        if padding < 0 or (size is None and not padding):
            raise UsageError(f"RandomCrop needs a size, or padding of at least a pixel, got {size} and {padding}")
        check_sampling("nearest", pad_mode)
        self.size, self.padding, self.pad_mode = None if size is None else sides(size), padding, pad_mode
        self.validation = None if self.size is None else CenterCrop(self.size)

    def __call__(self, x: Tensor) -> Tensor:
        """Cut each image of a batch (batch, channel, row, column)."""
        height, width = self.size or (x.shape[2], x.shape[3])
        if self.padding:
            try:
                x = F.pad(x, [self.padding] * 4, PADDINGS[self.pad_mode])
            except RuntimeError as error:
                raise UsageError(f"images of {x.shape[2]}×{x.shape[3]} cannot be padded: {error}") from None
        check_room(x, (height, width))
        rooms = x.shape[2] - height + 1, x.shape[3] - width + 1
        top, left = (torch.randint(room, (len(x),), device="cpu").to(x.device) for room in rooms)
        # Every part that there is, as a view; it took 3 ms for 512 images of 32 pixels, slices one by one 6.
        views = x.unfold(2, height, 1).unfold(3, width, 1)
        return views[torch.arange(len(x), device=x.device), :, top, left]


@registered(BATCH_TRANSFORMS)
@dataclass(frozen=True)
class CenterCrop:
    """Batch transform for validation: the middle of each image, pixel by pixel.

    Args:
        size: Side in pixels, or (height, width).

    Raises:
        UsageError: it is no size; when called, images that are smaller.
    """

    size: Size

    split_idx = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", list(sides(self.size)))

    def __call__(self, x: Tensor) -> Tensor:
        """Cut a batch (batch, channel, row, column)."""
        height, width = sides(self.size)
        check_room(x, (height, width))
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        return x[:, :, top : top + height, left : left + width]


def check_room(x: Tensor, size: tuple[int, int]) -> None:
    """Refuse images smaller than what is to be cut out of them."""
    if x.shape[2] < size[0] or x.shape[3] < size[1]:
        raise UsageError(f"{size[0]}×{size[1]} pixels cannot be cut out of images of {x.shape[2]}×{x.shape[3]}")
