"""What a user gets wrong about images, folders and losses is said in words, and in the right number."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImageBW
from pellucid.data.items import get_image_files, list_images
from pellucid.data.labels import csv_items
from pellucid.errors import DataError, UsageError
from pellucid.nn import losses
from pellucid.plot.images import show_image, show_images
from pellucid.text import counted, first_few


@pytest.fixture
def photos(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(6):
            Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(tmp_path / label / f"{i}.png")
    return tmp_path


def loaders(path, **options):
    return ImageDataLoaders.from_folder(path, valid_pct=0.4, bs=2, img_cls=PILImageBW, **options)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("position", [0, 1])
def test_an_item_transform_that_returns_nothing_is_named(photos, cache, position):
    def forgets(image):
        image.rotate(90)

    transforms = [lambda image: image, lambda image: image]
    transforms[position] = forgets
    with pytest.raises(UsageError, match="item transform forgets returned None; it must return the image"):
        loaders(photos, item_tfms=transforms, cache=cache)


def test_an_empty_class_folder_is_named(photos, capsys):
    (photos / "owl").mkdir()
    (photos / "dog" / "inner").mkdir()
    assert list_images(photos).empty == [photos / "dog" / "inner", photos / "owl"]
    loaders(photos)
    assert f"left out: empty folders: {photos / 'dog' / 'inner'}, {photos / 'owl'}" in capsys.readouterr().out
    (photos / "dog" / "inner").rmdir()
    with pytest.warns(UserWarning, match="left out an empty folder: .*owl"):
        get_image_files(photos)


def test_one_folder_is_a_list_of_its_images(photos):
    dls = loaders(photos)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dls.test_dl(photos / "cat").n == 6
        assert dls.test_dl(photos / "cat" / "0.png").n == 1


@pytest.mark.parametrize("shape", [(2, 5, 5), (5, 5, 2), (1, 3, 5, 5), (7,), ()])
def test_what_is_no_image_by_its_shape_is_not_drawn(shape):
    with pytest.raises(UsageError, match=r"cannot show shape .* 1, 3 or 4 channels"):
        show_image(torch.zeros(shape))


@pytest.mark.parametrize("n", [1, 3])
def test_there_is_a_title_for_each_image(n):
    with pytest.raises(UsageError, match=rf"{n} titles? for 2 images"):
        show_images([torch.zeros(4, 4)] * 2, titles=["a"] * n)


LOSSES = [
    losses.LabelSmoothingCrossEntropy, losses.CrossEntropyLossFlat, losses.LabelSmoothingCrossEntropyFlat,
    losses.BCEWithLogitsLossFlat, losses.MSELossFlat, losses.L1LossFlat, losses.FocalLoss, losses.FocalLossFlat,
]  # fmt: skip


@pytest.mark.parametrize("make", LOSSES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("reduction", ["average", "Mean", None])
def test_an_unknown_reduction_is_refused(make, reduction):
    with pytest.raises(UsageError, match="reduction is 'mean', 'sum' or 'none', got"):
        make(reduction=reduction)


def test_label_files_say_what_is_wrong(photos):
    table = photos / "labels.csv"
    table.write_text("id,label\n0,cat\n1,cat\n")
    with pytest.raises(DataError, match=r"nope: no such folder; folder \(command line: --image-folder\)"):
        csv_items(table, folder="nope", suff=".png")
    with pytest.raises(UsageError, match=r"--suffix.* say '\.png', not 'png'"):
        csv_items(table, folder="cat", suff="png")
    assert [label for _, label in csv_items(table, folder="cat", suff=".png")] == ["cat", "cat"]


@pytest.mark.parametrize(
    ("n", "words", "text"),
    [(0, ("file",), "0 files"), (1, ("file",), "1 file"), (1, ("class", "classes"), "1 class"),
     (1234, ("class", "classes"), "1,234 classes")],
)  # fmt: skip
def test_numbers_of_things(n, words, text):
    assert counted(n, *words) == text


def test_many_names_are_cut():
    assert first_few(range(10), most=3) == "0, 1, 2 and 7 more"
    assert first_few(["a\x1b[31m"]) == "a\\x1b[31m"
