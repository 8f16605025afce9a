"""Sources that no image can be read from: each is named, with what is wrong."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.data.images import PILImage
from pellucid.errors import DataError

HEIGHT, WIDTH = 6, 9


def noise(*shape: int, seed: int = 0, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def closed(folder: Path) -> Image.Image:
    Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(folder / "a.png")
    with Image.open(folder / "a.png") as image:
        return image


def emptied(folder: Path) -> Image.Image:
    file = BytesIO()
    Image.new("CMYK", (WIDTH, HEIGHT)).save(file, "TIFF")
    image = Image.open(file)
    file.truncate(0)
    return image


@pytest.mark.parametrize(("make", "name"), [(closed, "a.png"), (emptied, "image")])
def test_an_opened_image_whose_file_is_gone_is_named(tmp_path, make, name):
    with pytest.raises(DataError, match=f"{name}: damaged image"):
        PILImage.create(make(tmp_path))


NAMES = {
    "x" * 300 + ".png": "the file name is too long",
    "a\0b.png": "damaged|null",
    "nothing.png": "no such file",
    "file/inside.png": "no such file",
    "loop.png": "leads back to itself",
    "folder": "is a folder, not an image; give the image files in it",
    "fifo.png": "is a pipe or a device, not a file",
    "empty.png": "empty file",
}


@pytest.mark.parametrize("name", NAMES)
def test_what_no_image_can_be_read_from_is_said_in_words(tmp_path, name):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "fifo.png")
    for path in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(DataError, match=NAMES[name]):
            PILImage.create(path)


def test_control_characters_of_a_file_name_are_not_printed(tmp_path):
    path = tmp_path / "a\x1b[31m.png"
    path.write_text("no image")
    with pytest.raises(DataError) as caught:
        PILImage.create(path)
    assert "\x1b" not in str(caught.value) and "a\\x1b[31m.png: not an image" in str(caught.value)
