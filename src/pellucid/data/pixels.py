"""Opened images and arrays to 8-bit grey or colour, upright: by what is known of their values, never by guessing."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image

from pellucid.data.opening import DAMAGE, name_of
from pellucid.errors import DataError

ImageMode = Literal["L", "RGB"]

CHANNELS = range(1, 5)  # grey, grey with alpha, RGB, RGBA
WANTED = (
    "give a path, a Pillow image, or uint8 values as (row, column), (row, column, channel) or (channel, row, column)"
)
SMALLER = "8- or 16-bit first"

UPRIGHT = {  # EXIF 2.3, table 6
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTED = "exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"  # where Pillow keeps what says so

PHOTOMETRIC, BITS_PER_SAMPLE = 262, 258  # tags of TIFF


def to_mode(image: Image.Image, mode: ImageMode, source: Any = "image") -> Image.Image:
    """Convert to 8-bit grey or RGB: 16-bit values are scaled, transparency is laid on white, CMYK and Lab converted.

    Args:
        image: Pixels that have been read.
        mode: What to convert to.
        source: What messages name, as `name_of` does.

    Raises:
        DataError: 32-bit or floating-point pixels, whose range is not known.
    """
    if image.mode == mode and "transparency" not in image.info:
        return image
    try:
        if image.mode.startswith("I"):
            image = _from_integers(image, source)
        elif image.mode == "F":
            raise DataError(f"{name_of(source)}: floating-point pixels have no known range; save it as {SMALLER}")
        elif image.mode in ("LAB", "La"):
            image = image.convert("RGB" if image.mode == "LAB" else "LA")  # Pillow knows no other way out of these
        if image.has_transparency_data:
            image = _on_white(image)
        return image if image.mode == mode else image.convert(mode)
    except (ValueError, TypeError, ImportError) as error:
        how = f"its pixels, of Pillow's mode {image.mode}, cannot become {mode}"
        raise DataError(f"{name_of(source)}: {how} ({error})") from None


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 also where metadata cannot be read, as viewers have it."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGE:
        return 1
    return found if found in UPRIGHT else 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image upright, without the metadata that said how it lay."""
    if orientation == 1:
        return image
    # Not ImageOps.exif_transpose, which writes the EXIF anew and fails at values that it cannot write.
    upright = image.transpose(UPRIGHT[orientation])
    for key in ORIENTED:
        upright.info.pop(key, None)
    return upright


def from_array(source: Any, name: str = "image", remedy: str = WANTED) -> Image.Image:
    """Make an image of an array or a tensor of uint8, uint16 (scaled) or bool, with or without an axis of channels.

    Channels are one to four (grey, grey and alpha, RGB, RGBA), on the first axis or the last.

    Raises:
        DataError: other types, whose range is not known; other shapes; both axes could be the channels.
    """
    try:
        array = np.asarray(source.detach().cpu() if hasattr(source, "detach") else source)
        return Image.fromarray(np.ascontiguousarray(_channels_last(_eight_bit(array))))
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: a {type(source).__name__} that is no picture ({error}); {remedy}") from None


def _eight_bit(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.itemsize == 2:
        return _scaled(array, 65535)
    if array.dtype != np.uint8:
        raise ValueError(f"values of type {array.dtype} have no known range")
    return array


def _channels_last(array: np.ndarray) -> np.ndarray:
    if not array.size:
        raise ValueError(f"of shape {array.shape} it has no pixels")
    if array.ndim == 3:
        first, last = array.shape[0] in CHANNELS, array.shape[2] in CHANNELS
        if first and last:
            raise ValueError(f"of shape {array.shape}, its first or its last axis may be the channels")
        if first:
            array = array.transpose(1, 2, 0)
        elif not last:
            raise ValueError(f"of shape {array.shape} it has neither first nor last an axis of 1 to 4 channels")
        return array[..., 0] if array.shape[2] == 1 else array
    if array.ndim != 2:
        raise ValueError(f"it has {array.ndim} dimensions")
    return array


def _from_integers(image: Image.Image, source: Any) -> Image.Image:
    """16-bit grey to 8 bits. Pillow's own conversion clips at 255 instead of scaling."""
    # Of a portable graymap with more than 8 bits Pillow makes 32-bit pixels on [0, 65535].
    if image.mode == "I" and image.format != "PPM":
        raise DataError(f"{name_of(source)}: 32-bit pixels have no known range; save it as {SMALLER}")
    values, top = np.asarray(image), 65535
    tags = getattr(image, "tag_v2", {})
    if tags.get(BITS_PER_SAMPLE) == (12,):  # which Pillow leaves on [0, 4095]
        top = 4095
    clear = image.info.get("transparency")
    grey = _scaled(values, top)
    if tags.get(PHOTOMETRIC) == 0:  # zero is white, which Pillow minds at 8 bits only
        grey = 255 - grey
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey)


def _scaled(values: np.ndarray, top: int) -> np.ndarray:
    """Values on [0, top] to uint8 on [0, 255], rounded."""
    return np.minimum((values.astype(np.uint32) * 255 + top // 2) // top, 255).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
