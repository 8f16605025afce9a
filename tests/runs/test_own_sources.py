"""Data sources defined in this one file: a kind of file and a named set work wherever those of pellucid do."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid import cli
from pellucid.cli.training import _data_sets
from pellucid.data import catalogue
from pellucid.data.catalogue import data_set, untar_data
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImageBW
from pellucid.errors import UsageError
from pellucid.runs import Settings, load_run, sources, train
from pellucid.runs.sources import source_kind


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(sources, "KINDS", list(sources.KINDS))
    monkeypatch.setattr(catalogue, "DATA_SETS", dict(catalogue.DATA_SETS))
    monkeypatch.setattr(sources, "DATA_SETS", catalogue.DATA_SETS)


@pytest.fixture
def arrays(tmp_path, monkeypatch) -> Path:
    """An .npz file of images and labels, and the kind that opens such files."""

    @source_kind("files of arrays (.npz)", lambda source: source.endswith(".npz"), ("valid_pct",))
    def of_arrays(source, asked):
        held = np.load(source)
        images, labels = list(held["images"]), held["labels"].tolist()
        return ImageDataLoaders.from_lists(
            source, images, labels, asked.share, asked.seed, img_cls=PILImageBW, **asked.common
        )

    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 200, (40, 8, 8), np.uint8)
    images[::2, :, :4] += 50
    np.savez("digits.npz", images=images, labels=np.array(["left", "none"] * 20))
    return tmp_path / "digits.npz"


def command(monkeypatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pellucid", *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_a_kind_of_source_trains_from_python_and_predicts(arrays):
    run = train(Settings("digits.npz", epochs=1, valid_pct=0.25, device="cpu", bs=10), out="run")
    assert run.vocab == ["left", "none"] and run.settings["n_valid"] == 10 and run.settings["input_shape"] == [1, 8, 8]
    images = list(np.load(arrays)["images"])
    assert load_run("run").predict(images) == run.predict(images)


def test_a_kind_of_source_trains_from_the_command_line(arrays, monkeypatch, capsys):
    assert command(monkeypatch, "train", "digits.npz", "--epochs", 1, "--out", "run", "--stats") == 0
    assert "32 training and 8 validation images (1×8×8), 2 classes" in capsys.readouterr().out
    assert json.loads(Path("run/run.json").read_text())["settings"]["source"] == "digits.npz"
    assert command(monkeypatch, "summary", "run") == command(monkeypatch, "show", "run", "--out", "a.png") == 0
    Image.fromarray(np.load(arrays)["images"][0]).save("digit.png")
    assert command(monkeypatch, "predict", "run", "digit.png") == 0


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (["--size", "8"], "digits.npz: --size is for .*; leave it out for files of arrays"),
        (
            ["--suffix", ".jpg"],
            "--suffix and --image-folder are for label files .*; leave them out for files of arrays",
        ),
    ],
)
def test_options_that_it_does_not_take_are_refused(arrays, monkeypatch, capsys, option, why):
    assert command(monkeypatch, "train", "digits.npz", *option) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert re.search(why, message)
    assert not Path("runs").exists()


def test_a_source_of_no_kind_names_the_kinds_there_are(arrays):
    Path("notes.txt").write_text("nothing")
    with pytest.raises(
        UsageError, match=r"none of what can be trained on: files of arrays \(.npz\), data sets of pell"
    ):
        train(Settings("notes.txt"))


@pytest.fixture
def stripes(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))

    @data_set("stripes")
    def lay_out(folder):
        for name, axis in (("across", 0), ("along", 1)):
            for i in range(12):
                pixels = np.zeros((8, 8, 3), np.uint8)
                np.swapaxes(pixels, 0, axis)[i % 8] = 255
                for side in ("train", "valid"):
                    (folder / side / name).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(folder / side / name / f"{i}.png")


def test_a_named_set_works_by_name_and_address(stripes, monkeypatch, capsys):
    folder = untar_data("pellucid://stripes")
    assert sorted(file.name for file in (folder / "train").iterdir()) == ["across", "along"]
    run = train(Settings("stripes", epochs=1, device="cpu", arch="simple_cnn"), out="by-name")
    assert run.vocab == ["across", "along"] and run.settings["input_shape"] == [3, 8, 8]
    assert command(monkeypatch, "train", "pellucid://stripes", "--epochs", 1, "--arch", "simple_cnn", "--size", 4) == 0
    assert "24 training and 24 validation images (3×4×4)" in capsys.readouterr().out
    assert _data_sets() == ["mnist", "mnist_sample", "stripes"]
    with pytest.raises(UsageError, match=r"pellucid://mnist_sample, pellucid://stripes nor"):
        untar_data("nowhere")
    with pytest.raises(UsageError, match=r"no data set of that name \(mnist, mnist_sample, stripes\)"):
        train(Settings("nowhere"))


def test_ones_own_folder_of_a_sets_name_is_not_passed_over(stripes):
    Path("stripes").mkdir()
    with pytest.raises(UsageError, match=r"write \./stripes for what is here, or pellucid://stripes"):
        train(Settings("stripes"))
