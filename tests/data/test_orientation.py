"""Photos are turned by their EXIF however they arrive, and EXIF that nobody can read or write harms no pixels."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.data.images import Decoding, PILImage, PILImageBW
from pellucid.data.store import PixelStore

HEIGHT, WIDTH = 6, 9


def noise(*shape: int, seed: int = 0, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


TURNED = {  # EXIF 2.3, table 6: what turns the stored array upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


def lying(folder: Path, ending: str, orientation: int) -> tuple[Path, np.ndarray]:
    """A photo that its EXIF says to turn, and its pixels as stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / f"a.{ending}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(ending, {})
    Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(path, exif=exif, **options)
    with Image.open(path) as image:
        stored = np.rot90(np.asarray(image), 0) if ending != "tif" else noise(HEIGHT, WIDTH, 3)
    return path, stored


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("kind", ["path", "bytes", "lazily opened", "loaded", "resized"])
def test_a_photo_is_turned_by_its_exif_however_it_arrives(tmp_path, kind, ending, orientation):
    path, stored = lying(tmp_path, ending, orientation)
    if kind in ("path", "bytes"):
        source = path if kind == "path" else path.read_bytes()
    else:
        source = Image.open(path)
    if kind in ("loaded", "resized"):
        source.load()
        source = source.resize(source.size) if kind == "resized" else source  # keeps the EXIF, and lies as before
    for cls in (PILImage, PILImageBW):
        expected = np.asarray(Image.fromarray(np.ascontiguousarray(TURNED[orientation](stored))).convert(cls.mode))
        assert np.array_equal(np.asarray(cls.create(source)), expected)
        assert np.array_equal(np.asarray(cls.create(PILImage.create(source))), expected)  # never turned twice


def tiff_exif(entries: list[tuple[int, int, int, bytes]]) -> bytes:
    """EXIF of one directory: (tag, type, count, value of up to four bytes), little-endian."""
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in sorted(entries))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0)


def rational(numerator: int, denominator: int, tag: int, kind: int) -> bytes:
    head = tiff_exif([(0x0112, 3, 1, struct.pack("<H", 8)), (tag, kind, 1, struct.pack("<I", 8 + 2 + 24 + 4))])
    return head + struct.pack("<ii", numerator, denominator)


ORIENTED_8 = (0x0112, 3, 1, struct.pack("<H", 8))
UNWRITABLE = {
    "ResolutionUnit as text": tiff_exif([ORIENTED_8, (0x0128, 2, 4, b"abc\0")]),
    "YResolution −72/1": rational(-72, 1, 0x011B, 10),
    "XResolution 1/0": rational(1, 0, 0x011A, 5),
    "Orientation and a signed width": tiff_exif([ORIENTED_8, (0x0100, 9, 1, struct.pack("<i", -1))]),
    "Compression as text": tiff_exif([ORIENTED_8, (0x0103, 2, 4, b"abc\0")]),
    "YCbCrPositioning as text": tiff_exif([ORIENTED_8, (0x0213, 2, 4, b"abc\0")]),
    "Software as a number": tiff_exif([ORIENTED_8, (0x0131, 4, 1, b"\1\2\3\4")]),
    "an EXIF directory far away": tiff_exif([ORIENTED_8, (0x8769, 4, 1, b"\xff\xff\xff\x7f")]),
    "an EXIF directory as text": tiff_exif([ORIENTED_8, (0x8769, 2, 4, b"abc\0")]),
    "GPS as a double": tiff_exif([ORIENTED_8, (0x8825, 12, 1, b"\0\0\0\0")]),
    "cut short": tiff_exif([ORIENTED_8, (0x0128, 2, 4, b"abc\0")])[:-9],
}


@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning", "ignore:Metadata Warning:UserWarning")
@pytest.mark.parametrize("what", UNWRITABLE)
@pytest.mark.parametrize("kind", ["path", "bytes", "opened"])
def test_exif_that_cannot_be_written_again_harms_no_pixels(tmp_path, kind, what):
    rgb = noise(HEIGHT, WIDTH, 3)
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=UNWRITABLE[what])
    make = {"path": Path, "bytes": Path.read_bytes, "opened": Image.open}[kind]
    assert np.array_equal(np.asarray(PILImage.create(make(tmp_path / "a.png"))), np.rot90(rgb))


@pytest.mark.parametrize("workers", [1, 2])
def test_exif_that_cannot_be_written_again_does_not_end_the_build_of_a_set(tmp_path, monkeypatch, workers):
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("pellucid.data.store.FILES_PER_PROCESS", 6)
    rgb = noise(8, 8, 3)
    files = [tmp_path / f"{i}.png" for i in range(len(UNWRITABLE))]
    for file, exif in zip(files, UNWRITABLE.values(), strict=True):
        Image.fromarray(rgb).save(file, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        store = PixelStore.open(files, Decoding("RGB"), workers)
    assert not store.bad and all(np.array_equal(pixels.transpose(1, 2, 0), np.rot90(rgb)) for pixels in store.pixels)


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0garbage", b"II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"],
)
@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
def test_exif_that_cannot_be_read_leaves_the_pixels_as_they_lie(tmp_path, exif):
    rgb = noise(HEIGHT, WIDTH, 3)
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(PILImage.create(tmp_path / "a.png")), rgb)
