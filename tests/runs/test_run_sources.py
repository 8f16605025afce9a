"""From the word or path a user gives to batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from commands import pellucid
from pellucid.errors import UsageError
from pellucid.runs import Settings
from pellucid.runs.sources import open_source


def opened(source: str, **columns):
    names = {"suff": "suffix", "folder": "image_folder"}
    columns = {names[name]: value for name, value in columns.items()}
    return open_source(
        Settings(source, size=4, seed=0, workers=1, arch="small_resnet", **columns), torch.device("cpu")
    )[0]


@pytest.fixture
def kaggle(tmp_path, monkeypatch) -> Path:
    """Ids without an ending, an age and a species; images in a folder beside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    (tmp_path / "pictures").mkdir()
    rows = ["uid,age,species"]
    for i in range(12):
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(tmp_path / "pictures" / f"{i:04}.jpg")
        rows.append(f"{i:04},{i},{'ant' if i % 2 else 'bee'}")
    (tmp_path / "labels.tsv").write_text("\n".join(rows).replace(",", "\t"))
    return tmp_path


def test_a_label_file_as_kaggle_publishes_them(kaggle):
    options = "--label-col species --path-col 0 --suffix .jpg --image-folder pictures --size 8 --epochs 1 --out run"
    done = pellucid("train", "labels.tsv", *options.split())
    assert done.returncode == 0, done.stderr
    run = json.loads((kaggle / "run" / "run.json").read_text())
    assert run["vocab"] == ["ant", "bee"] and run["settings"]["suffix"] == ".jpg"


def test_a_label_column_is_never_guessed(kaggle):
    with pytest.raises(UsageError, match=r"'age', 'species'.*--label-col"):
        opened("labels.tsv", suff=".jpg", folder="pictures")


def test_columns_are_for_label_files(kaggle):
    with pytest.raises(UsageError, match="--suffix and --image-folder are for label files"):
        opened("pictures", suff=".jpg")


@pytest.mark.parametrize("name", ["mnist", "mnist_sample"])
def test_a_folder_of_ones_own_is_not_passed_over(kaggle, name):
    for label in ("cat", "dog"):
        (kaggle / name / label).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(kaggle / name / label / f"{i}.png")
    with pytest.raises(UsageError) as caught:
        opened(name)
    assert f"write ./{name} for what is here, or pellucid://{name} for the data set" in str(caught.value)
    assert opened(f"./{name}").vocab == ["cat", "dog"]


def test_a_data_set_of_the_package_has_an_address(mnist_sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist_sample").mkdir()
    assert opened("pellucid://mnist_sample").vocab == ["3", "7"]


@pytest.mark.parametrize(("resize", "corner", "middle"), [("crop", 200, 200), ("pad", 0, 200), ("squish", 90, 200)])
def test_images_of_other_shapes_come_to_a_square_as_asked(tmp_path, monkeypatch, resize, corner, middle):
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    for i in range(8):
        (tmp_path / "set" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        image = Image.new("L", (96, 32), 90)
        image.paste(200, (32, 0, 64, 32))
        image.save(tmp_path / "set" / "ab"[i % 2] / f"{i}.png")
    settings = Settings(str(tmp_path / "set"), size=32, seed=0, workers=1, arch="small_resnet", resize=resize)
    dls, _ = open_source(settings, torch.device("cpu"))
    assert dls.decoding.resize.to_json()["method"] == resize
    picture = dls.train.decode(dls.one_batch()[0])[0, 0] * 255
    assert picture.shape == (32, 32)
    assert (round(float(picture[0, 0])), round(float(picture[16, 16]))) == (corner, middle)


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"resize": "fit"}, "'fit' does not exist: use one of crop, pad, squish"), ({"resize": "pad", "size": 0}, "size")],
)
def test_a_resize_that_cannot_be_is_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        Settings("photos", **asked)
    with pytest.raises(UsageError, match="--resize pad needs a --size"):
        open_source(Settings("mnist", resize="pad", workers=1), torch.device("cpu"))
