"""Open the image in a file or in bytes: by known formats only, read whole, every fault in our own words."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import logging
import os
import stat
import struct
import zlib
from contextlib import suppress
from functools import cache
from io import BytesIO
from typing import Any, BinaryIO

import PIL
from PIL import Image

from pellucid.data import libtiff
from pellucid.data.formats import FORMATS
from pellucid.errors import DataError, PellucidError
from pellucid.text import printable

IN_MEMORY_BYTES = 256 << 20  # a larger file is read piece by piece
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

# Faults of one file, whatever else goes on. Any other errno (too many open files, a failing disk, no memory) says
# something of the machine at this moment, and must neither be blamed on the file nor remembered as its fault.
FILE_FAULTS = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.EISDIR: "is a folder, not an image; give the image files in it",
    errno.ENAMETOOLONG: "the file name is too long",
    errno.ELOOP: "is a link that leads back to itself",
}


class MissingExtra(DataError):
    """A file that may well be sound: what decodes it is not installed."""


class _Fault(Exception):
    """What is wrong with a file, without its name."""


class _NotInstalled(_Fault):
    pass


# What Pillow and its plugins raise at damaged data, by its source and by 150,000 damaged files of every format.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, ArithmeticError),
    *(AttributeError, AssertionError, struct.error, zlib.error),
)
FAULTS = (*DAMAGE, _Fault, MemoryError, Image.DecompressionBombError)

# Pillow also logs some of what it raises, which Python prints as long as nobody listens.
logging.getLogger("PIL").addHandler(logging.NullHandler())

PLUGINS = "Jpeg", "Png", "Gif", "Bmp", "Ppm", "Tiff", "WebP", "Avif", "Jpeg2K", "Ico", "Qoi", "Tga"

# Settings of Pillow's that decide what can be decoded, and to which pixels: module, attribute.
SETTINGS = (
    ("PIL.Image", "MAX_IMAGE_PIXELS"),
    ("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES"),
    ("PIL.PngImagePlugin", "MAX_TEXT_CHUNK"),
    ("PIL.PngImagePlugin", "MAX_TEXT_MEMORY"),
)


def open_image(source: str | os.PathLike[str] | bytes, draft_size: int | None = None, mode: str = "RGB") -> Image.Image:
    """Open and fully read an image, as its file has it.

    Args:
        source: A path, or the bytes of a file.
        draft_size: A JPEG may be decoded smaller, by halves, but no smaller than this.
        mode: What such a smaller JPEG is converted to as it is decoded.

    Raises:
        DataError: the file is missing, unreadable, damaged, or no image; `MissingExtra`: HEIC without its extra.
        PellucidError: the system would not have it read now: too many open files, a failing disk, no memory.
    """
    try:
        if isinstance(source, bytes):
            return _decoded(BytesIO(source), draft_size, mode)
        status = os.stat(source)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise _Fault("is a pipe or a device, not a file")  # opening it might never return
        if status.st_size > IN_MEMORY_BYTES:
            with open(source, "rb") as file:
                return _decoded(file, draft_size, mode)
        with open(source, "rb", buffering=0) as file:
            data = file.read()  # one read: Pillow's many small ones cost a fifth more
        return _decoded(BytesIO(data), draft_size, mode)
    except FAULTS as error:
        raise explained(error, source) from None


def _decoded(file: BinaryIO, draft_size: int | None, mode: str) -> Image.Image:
    head = file.read(16)
    if not head:
        raise _Fault("empty file")
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS and "HEIF" not in _formats():
        _register_heif()
    image = Image.open(file, formats=_formats())
    if draft_size and min(image.size) > draft_size and image.format in ("JPEG", "MPO"):
        image.draft(mode if image.mode in ("L", "RGB", "YCbCr") else None, (draft_size, draft_size))
    finish(image)
    return image


def finish(image: Image.Image) -> None:
    """Read the pixels of an image that was opened; what goes wrong is one of `FAULTS`."""
    _correct_transparency(image)
    if image.format != "TIFF":
        image.load()
        return
    with libtiff.messages() as said:
        try:
            image.load()
        except OSError as error:
            if error.errno is not None or not said:
                raise
            raise OSError(f"{error}; {said[0]}") from None


def explained(error: BaseException, source: Any) -> PellucidError:
    """What went wrong, one of `FAULTS`, while the image `source` was read: an error of ours that names it."""
    name = name_of(source)
    if isinstance(error, MemoryError):
        return PellucidError(f"{name}: there is not enough memory to decode it")
    if isinstance(error, Image.DecompressionBombError):
        remedy = "shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        return DataError(f"{name}: {str(error).rstrip('.')}; {remedy}")
    number = error.errno if isinstance(error, OSError) else None
    if number in FILE_FAULTS:
        return DataError(f"{name}: {FILE_FAULTS[number]}")
    if number not in (None, errno.EINVAL):  # EINVAL is a place outside the file, where a damaged one may point
        return PellucidError(f"{name}: cannot be read now ({os.strerror(number)}); try again")
    if isinstance(error, _Fault):
        return (MissingExtra if isinstance(error, _NotInstalled) else DataError)(f"{name}: {error}")
    if isinstance(error, Image.UnidentifiedImageError):
        return DataError(f"{name}: not an image, or of a format that is not opened")
    return DataError(f"{name}: damaged image ({error})")


def _correct_transparency(image: Image.Image) -> None:
    """Bring the transparent value of a PNG to the scale that Pillow gives the pixels, which it forgets to do.

    Of 16-bit colours Pillow keeps the upper bytes only, so all that share them are taken for the transparent one.
    """
    clear, tiles = image.info.get("transparency"), getattr(image, "tile", ())
    if clear is None or image.format != "PNG" or not tiles:
        return
    if tiles[0][3] in ("L;2", "L;4"):
        image.info["transparency"] = clear * (85 if tiles[0][3] == "L;2" else 17)
    elif tiles[0][3] == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _register_heif() -> None:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise _NotInstalled("is HEIC, as phones save photos; to open it: pip install 'pellucid[heic]'") from None
    _formats.cache_clear()


@cache
def _formats() -> list[str]:
    """The formats that are opened and that this installation can decode."""
    for plugin in PLUGINS:  # not Image.init(), which would import all that Pillow has, in twice the time
        with suppress(ImportError):
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
    return [name for name in FORMATS if name in Image.OPEN]


def name_of(source: Any) -> str:
    """What messages call a source: its path where it has one, else "image"."""
    path = getattr(source, "filename", None) if isinstance(source, Image.Image) else source
    return printable(os.fspath(path) or "image") if isinstance(path, str | os.PathLike) else "image"


def decoder_settings() -> dict[str, Any]:
    """What the pixels depend on besides the file and the `Decoding`: settings of Pillow's, and what is installed."""
    found = {f"{module}.{name}": getattr(importlib.import_module(module), name) for module, name in SETTINGS}
    return found | {"version": PIL.__version__, "heif": importlib.util.find_spec("pillow_heif") is not None}


def apply_settings(settings: dict[str, Any]) -> None:
    """Give Pillow in this process the settings that `decoder_settings` found in another."""
    for module, name in SETTINGS:
        setattr(importlib.import_module(module), name, settings[f"{module}.{name}"])
