"""A run says the same of one photo, lying on its side, however the photo arrives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import Resize
from pellucid.errors import DataError
from pellucid.nn.models import simple_cnn
from pellucid.runs import load_run
from pellucid.training.learner import Learner


def upright(path):
    with Image.open(path) as image:
        return np.array(ImageOps.exif_transpose(image))


SOURCES = {
    "string": str,
    "bytes": lambda path: path.read_bytes(),
    "opened": Image.open,
    "array": upright,
    "array, channels first": lambda path: upright(path).transpose(2, 0, 1),
    "tensor": lambda path: torch.from_numpy(upright(path)),
    "16 bits": lambda path: upright(path).astype(np.uint16) * 257,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos_once):
    dls = ImageDataLoaders.from_folder(photos_once, item_tfms=Resize(32), bs=6, seed=0, device="cpu")
    folder = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    learn = Learner(dls, simple_cnn(3, 3))
    return load_run(learn.save_run(folder, "simple_cnn"))


@pytest.fixture(scope="module")
def photos_once(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("photos")
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        for i in range(6):
            exif = Image.Exif()
            exif[0x0112] = 1 + (i + 3) % 8
            values = np.kron(rng.integers(0, 256, (5, 7, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{i}.png", exif=exif)
    return folder


@pytest.mark.parametrize("kind", SOURCES)
def test_a_run_says_the_same_however_a_photo_arrives(run, photos_once, kind):
    files = sorted(photos_once.glob("*/*.png"))
    of_files = run.predict(files)
    found = run.predict([SOURCES[kind](file) for file in files])
    assert [p.probabilities for p in found] == [p.probabilities for p in of_files]
    assert [p.source for p in found] == (
        [str(f) for f in files] if kind in ("string", "opened") else ["image"] * len(files)
    )


def test_a_folder_among_the_images_is_said_to_be_one(run, photos_once):
    with pytest.raises(DataError, match="is a folder, not an image; give the image files in it"):
        run.predict([photos_once / "a"])
