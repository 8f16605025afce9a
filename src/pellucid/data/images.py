"""Decode one image file to uint8 pixels. Pillow and numpy only: decoder processes import nothing heavier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from pellucid.errors import DataError, UsageError

ImageMode = Literal["L", "RGB"]
ResizeMethod = Literal["crop", "squish", "pad"]


class PILImage:
    """Colour images: three channels, red, green and blue."""

    mode: ImageMode = "RGB"

    @classmethod
    def create(cls, source: Any) -> Image.Image:
        """Open a path, array, tensor or Pillow image as this class's mode, upright and with 8 bits a channel.

        Raises:
            DataError: the file is missing, unreadable, damaged, or no image.
        """
        return to_mode(load(source), cls.mode, _name(source))


class PILImageBW(PILImage):
    """Grey images: one channel."""

    mode: ImageMode = "L"


@dataclass(frozen=True)
class Resize:
    """Item transform that brings every image to one size.

    Args:
        size: Side in pixels of a square, or (height, width).
        method: `crop` scales the short side and cuts the middle out, `squish` stretches to the size, `pad` scales the
            long side and fills the rest with black.
    """

    size: int | tuple[int, int]
    method: ResizeMethod = "crop"

    def __post_init__(self) -> None:
        if self.method not in ("crop", "squish", "pad"):
            raise UsageError(f"Resize method {self.method!r} does not exist: use 'crop', 'squish' or 'pad'")
        if min(self.height_width) < 1:
            raise UsageError(f"Resize needs a size of at least 1 pixel, got {self.size}")

    @property
    def height_width(self) -> tuple[int, int]:
        """Target size as (height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return `image` at the target size."""
        height, width = self.height_width
        bilinear = Image.Resampling.BILINEAR
        if self.method == "crop":
            return ImageOps.fit(image, (width, height), bilinear)
        if self.method == "pad":
            return ImageOps.pad(image, (width, height), bilinear)
        return image.resize((width, height), bilinear)


@dataclass(frozen=True)
class Decoding:
    """How a file becomes pixels: the deterministic part of the pipeline, and so part of the pixel store's key.

    Args:
        mode: `L` for one grey channel, `RGB` for three.
        resize: Size that every image is brought to; None keeps the files' own.
        transforms: Further callables, image to image. Code has no fingerprint, so a set with any is never stored.
    """

    mode: ImageMode = "RGB"
    resize: Resize | None = None
    transforms: tuple[Callable[[Image.Image], Image.Image], ...] = ()

    @property
    def storable(self) -> bool:
        """Whether the result depends on nothing but the file and plain settings."""
        return not self.transforms

    def to_json(self) -> dict[str, Any]:
        """Plain settings; inverse of `from_json`."""
        return {"mode": self.mode, "resize": asdict(self.resize) if self.resize else None}

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> Decoding:
        """Rebuild from `to_json`."""
        resize = settings["resize"]
        if resize is None:
            return cls(settings["mode"])
        size = resize["size"]
        return cls(settings["mode"], Resize(size if isinstance(size, int) else tuple(size), resize["method"]))

    def image(self, source: Any) -> Image.Image:
        """Open, convert, resize and transform one image."""
        image = to_mode(load(source, self._draft_size(), self.mode), self.mode, _name(source))
        if self.resize:
            image = self.resize(image)
        for transform in self.transforms:
            image = transform(image)
        return image

    def pixels(self, source: Any) -> np.ndarray:
        """Decode to uint8, shape (channel, row, column).

        Raises:
            DataError: the file is missing, unreadable, damaged, or no image.
        """
        array = np.asarray(self.image(source), dtype=np.uint8)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))

    def _draft_size(self) -> int | None:
        # A JPEG decoder can halve as it decodes; twice the target keeps the antialiasing of the final resize.
        return 2 * max(self.resize.height_width) if self.resize else None


def load(source: Any, draft_size: int | None = None, mode: ImageMode = "RGB") -> Image.Image:
    """Open and fully read an image, turned upright by its EXIF orientation; arrays and images pass through."""
    if isinstance(source, Image.Image):
        return source
    if not isinstance(source, str | Path):
        return _from_array(source)
    try:
        with open(source, "rb") as file:
            image = Image.open(BytesIO(file.read()))  # one read: Pillow's many small ones cost a fifth more
        if draft_size and min(image.size) > draft_size:
            image.draft(mode if image.mode in ("L", "RGB", "YCbCr") else None, (draft_size, draft_size))
        image.load()
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return image if upright else ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise DataError(f"{source}: {error}; shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it") from None
    except FileNotFoundError:
        raise DataError(f"{source}: no such file") from None
    except PermissionError:
        raise DataError(f"{source}: no permission to read it") from None
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError) as error:
        # Pillow reports damage in all of these; its own text for an unknown format repeats the path.
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else f"damaged image ({error})"
        raise DataError(f"{source}: {_empty_or(source, reason)}") from None


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else "image"


def _from_array(source: Any) -> Image.Image:
    try:
        array = np.asarray(source)
        if array.ndim == 3 and array.shape[0] in (1, 3):
            array = array.transpose(1, 2, 0)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        if array.ndim < 2:
            raise ValueError(f"it has {array.ndim} dimensions")
        return Image.fromarray(np.ascontiguousarray(array))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"image: a {type(source).__name__} that is no picture ({error}); give a path, a Pillow image, or uint8 "
            "values as (row, column), (row, column, channel) or (channel, row, column)"
        ) from None


def _empty_or(path: str | Path, reason: str) -> str:
    return "empty file" if Path(path).is_file() and not Path(path).stat().st_size else reason


def to_mode(image: Image.Image, mode: ImageMode, name: str = "image") -> Image.Image:
    """Convert to 8-bit grey or RGB: 16-bit values are scaled, transparency is laid on white, CMYK is converted."""
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):
        image = _from_16_bit(image)
    elif image.mode == "F":
        raise DataError(f"{name}: floating-point pixels have no known range; save it as 8- or 16-bit first")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return image.convert(mode)


def _from_16_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling.
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray(np.clip((values + 128) // 257, 0, 255).astype(np.uint8))
