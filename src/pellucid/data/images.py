"""Decode one image file to uint8 pixels. Pillow and numpy only: decoder processes import nothing heavier."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from pellucid.data.opening import FAULTS, explained, finish, name_of, open_image
from pellucid.data.pixels import ImageMode, from_array, orientation, to_mode, turned
from pellucid.data.registry import ITEM_TRANSFORMS, Transform, called, from_json, registered, to_json
from pellucid.errors import DataError, UsageError

ResizeName = Literal["crop", "pad", "squish"]
PADDING = {"zeros": "constant", "border": "edge", "reflection": "reflect"}  # names of fastai → of numpy


class ResizeMethod:
    """Names of the methods of `Resize`."""

    Crop, Squish, Pad = "crop", "squish", "pad"


class PILImage:
    """Colour images: three channels, red, green and blue."""

    mode: ImageMode = "RGB"

    @classmethod
    def create(cls, source: Any) -> Image.Image:
        """Open an image as this class's mode, upright and with 8 bits a channel: the same however it arrives.

        Args:
            source: A path, the bytes of a file, a Pillow image (turned upright by its EXIF, as files are), or an array
                or tensor of uint8, uint16 (scaled to 8 bits) or bool, (row, column), (row, column, channel) or
                (channel, row, column), with one to four channels.

        Raises:
            DataError: the file is missing, unreadable, damaged, or no image; values without a known range (32-bit,
                floating-point); an array whose first and last axis could both be the channels.
        """
        return load(source, cls.mode)


class PILImageBW(PILImage):
    """Grey images: one channel."""

    mode: ImageMode = "L"


@registered(ITEM_TRANSFORMS)
@dataclass(frozen=True)
class Resize:
    """Item transform that brings every image to one size.

    Args:
        size: Side in pixels of a square, or (height, width).
        method: `crop` scales the short side and cuts the middle out, in training too; `squish` stretches to the size;
            `pad` scales the long side and fills the rest.
        pad_mode: What `pad` fills with: `zeros`, which is black, the image's `border`, or its `reflection`.
    """

    size: int | tuple[int, int]
    method: ResizeName = "crop"
    pad_mode: str = "reflection"

    def __post_init__(self) -> None:
        if self.method not in ("crop", "squish", "pad"):
            raise UsageError(f"Resize method {self.method!r} does not exist: use 'crop', 'squish' or 'pad'")
        if self.pad_mode not in PADDING:
            raise UsageError(f"Resize pad_mode {self.pad_mode!r} does not exist: use one of {', '.join(PADDING)}")
        if self.method != "pad":  # which of them makes no difference
            object.__setattr__(self, "pad_mode", "reflection")
        object.__setattr__(self, "size", _pixels(self.size))
        if min(self.height_width) < 1:
            raise UsageError(f"Resize needs a size of at least 1 pixel, got {self.size}")
        height, width = self.height_width
        if Image.MAX_IMAGE_PIXELS and height * width > Image.MAX_IMAGE_PIXELS:
            raise UsageError(
                f"Resize to {height:,}×{width:,} makes images of {height * width / 1e6:,.0f} million pixels, above the "
                f"limit of {Image.MAX_IMAGE_PIXELS / 1e6:,.0f} (PIL.Image.MAX_IMAGE_PIXELS)"
            )

    @property
    def height_width(self) -> tuple[int, int]:
        """Target size as (height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    def __repr__(self) -> str:
        padding = f", pad_mode={self.pad_mode!r}" if self.method == "pad" else ""
        return f"Resize(size={self.size}, method={self.method!r}{padding})"

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return `image` at the target size."""
        height, width = self.height_width
        bilinear = Image.Resampling.BILINEAR
        if self.method == "crop":
            return ImageOps.fit(image, (width, height), bilinear)
        if self.method == "pad":
            return _padded(ImageOps.contain(image, (width, height), bilinear), width, height, PADDING[self.pad_mode])
        return image.resize((width, height), bilinear)

    def to_json(self) -> dict[str, Any]:
        """Arguments that make the same transform."""
        size = self.size if isinstance(self.size, int) else list(self.size)
        return {"size": size, "method": self.method} | ({"pad_mode": self.pad_mode} if self.method == "pad" else {})


def _padded(image: Image.Image, width: int, height: int, how: Any) -> Image.Image:
    """An image in the middle of a larger one, by a mode of `np.pad`."""
    pixels = np.asarray(image)
    top, left = round((height - image.height) / 2), round((width - image.width) / 2)
    around = [(top, height - image.height - top), (left, width - image.width - left), (0, 0)]
    return Image.fromarray(np.pad(pixels, around[: pixels.ndim], how))


def _pixels(size: Any) -> int | tuple[int, int]:
    """A size in plain numbers, which fit into JSON and so into a store's key."""
    try:
        if isinstance(size, tuple | list):
            height, width = map(operator.index, size)
            return height, width
        return operator.index(size)
    except (TypeError, ValueError):
        raise UsageError(f"Resize takes a whole number of pixels, or (height, width), got {size!r}") from None


@dataclass(frozen=True)
class Decoding:
    """How a file becomes pixels: the deterministic part of the pipeline, and so part of the pixel store's key.

    Args:
        mode: `L` for one grey channel, `RGB` for three.
        resize: Size that every image is brought to; None keeps the files' own. A JPEG of more than twice this size is
            decoded at a half, a quarter or an eighth of its own, four times as fast; an image that was opened already
            is not, so that its pixels may differ by a few levels from its file's.
        transforms: Further callables, image to image. Code has no fingerprint, so a set with any is never stored.
    """

    mode: ImageMode = "RGB"
    resize: Resize | None = None
    transforms: tuple[Callable[[Image.Image], Image.Image], ...] = ()

    @property
    def storable(self) -> bool:
        """Whether the result depends on nothing but the file and plain settings."""
        return not self.transforms

    @classmethod
    def of(cls, mode: ImageMode, transforms: Sequence[Transform]) -> Decoding:
        """Of item transforms in order, of which a first `Resize` is known as such."""
        if transforms and isinstance(transforms[0], Resize):
            return cls(mode, transforms[0], tuple(transforms[1:]))
        return cls(mode, None, tuple(transforms))

    def to_json(self) -> dict[str, Any]:
        """Plain settings; inverse of `from_json`.

        Raises:
            UsageError: a transform that cannot be made again from JSON.
        """
        settings: dict[str, Any] = {"mode": self.mode, "resize": self.resize.to_json() if self.resize else None}
        return settings | ({"transforms": list(map(to_json, self.transforms))} if self.transforms else {})

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> Decoding:
        """Rebuild from `to_json`."""
        # Before 0.2 the one way to pad was not written down.
        resize = None if settings["resize"] is None else Resize(**{"pad_mode": "zeros", **settings["resize"]})
        transforms = settings.get("transforms", ())
        return cls(settings["mode"], resize, tuple(from_json(t, ITEM_TRANSFORMS) for t in transforms))

    def image(self, source: Any) -> Image.Image:
        """Open, convert, resize and transform one image.

        Raises:
            DataError: as `PILImage.create`.
            UsageError: a transform returns nothing, or the last one what is no picture, such as floating-point values.
        """
        image = load(source, self.mode, self._draft_size())
        if self.resize:
            image = self.resize(image)
        if not self.transforms:
            return image
        image = image.copy() if image is source else image  # a transform may draw on it
        for transform in self.transforms:
            image = apply_item(transform, image)
        return self._transformed(image)

    def pixels(self, source: Any) -> np.ndarray:
        """Decode to uint8, shape (channel, row, column).

        Raises:
            DataError, UsageError: as `image`.
        """
        array = np.asarray(self.image(source))
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))

    def _transformed(self, result: Any) -> Image.Image:
        """What the transforms returned as an image: of the mode they gave it, where that is grey or RGB."""
        last = self.transforms[-1]
        name = f"item transform {called(last)}"
        try:
            if not isinstance(result, Image.Image) or result.mode in ("F", "I"):
                result = from_array(result, name, "return 8-bit pixels; arithmetic belongs in batch_tfms")
            return to_mode(result, result.mode if result.mode in ("L", "RGB") else self.mode, name)
        except DataError as error:
            raise UsageError(str(error)) from None  # no fault of the image, which would be skipped for it

    def _draft_size(self) -> int | None:
        # A JPEG decoder can halve as it decodes; twice the target keeps the antialiasing of the final resize.
        return 2 * max(self.resize.height_width) if self.resize else None


def apply_item(transform: Callable[[Any], Any], image: Any) -> Any:
    """What an item transform makes of an image.

    Raises:
        UsageError: it returns nothing.
    """
    result = transform(image)
    if result is None:
        raise UsageError(f"item transform {called(transform)} returned None; it must return the image")
    return result


def load(source: Any, mode: ImageMode = "RGB", draft_size: int | None = None) -> Image.Image:
    """Any source as an upright image of one mode; `draft_size` as in `open_image`."""
    if not isinstance(source, Image.Image | str | os.PathLike | bytes):
        return to_mode(from_array(source), mode)
    if isinstance(source, Image.Image):
        image = source
        try:
            finish(image)
        except FAULTS as error:
            raise explained(error, source) from None
        if min(image.size) < 1:
            raise DataError(f"{name_of(source)}: an image of {image.width}×{image.height} has no pixels")
    else:
        image = open_image(source, draft_size, mode)
    way = orientation(image)  # first: converting may lose what says it
    return turned(to_mode(image, mode, source), way)
