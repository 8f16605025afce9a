"""`pellucid train` on photos: pretrained, from the probe on, and never with less than the probe had."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import pellucid
from pellucid.cli import app
from pellucid.errors import UsageError
from pellucid.nn import libraries
from pellucid.runs import Settings, describe_run, load_run, train, training
from pellucid.runs.fitting import fitted, image_steps
from pellucid.runs.listing import list_runs
from pellucid.runs.sizes import fitting_side

FAST = {"size": 64, "seed": 1}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """48 photos of 72 pixels, of three kinds of stripes."""
    folder = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:72, :72]
    for i in range(48):
        wave = (y, x, x + y)[i % 3] * rng.uniform(0.5, 0.9) + rng.uniform(0, 6)
        pixels = np.stack([127 + 90 * np.sin(wave)] * 3, -1) + rng.normal(0, 40, (72, 72, 3))
        file = folder / "abc"[i % 3] / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return folder


def test_a_missing_library_is_told_before_images_are_opened(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    monkeypatch.setattr(training, "open_source", lambda *_: pytest.fail("images were opened"))
    with pytest.raises(UsageError, match=r"timm is not installed: pip install 'pellucid\[timm\]'"):
        train(Settings(str(photos), arch="timm:resnet50"), tmp_path / "run")


def test_photos_begin_with_a_pretrained_network_and_its_probe(photos, tmp_path, capsys):
    run = pellucid.train(photos, tmp_path / "run", epochs=1, **FAST)
    said = capsys.readouterr().out
    assert "efficientnet_lite0" in said and "probe: accuracy" in said
    kept = json.loads((run.folder / "run.json").read_text())
    settings = kept["settings"]
    assert (settings["arch"], settings["augment"], settings["lr"]) == ("efficientnet_lite0", "light", 1e-3)
    assert kept["image_shape"] == [3, 73, 73] and kept["input_shape"] == [3, 64, 64]
    assert kept["start"]["of"] == "probe" and len(kept["results"]) == 1
    assert run.result["accuracy"] == max(kept["start"]["accuracy"], kept["results"][0]["accuracy"])
    files = sorted(photos.rglob("*.png"))
    again = load_run(run.folder)
    assert [p.probabilities for p in again.predict(files)] == [p.probabilities for p in run.predict(files)]
    right = [p.label == file.parent.name for file, p in zip(files, again.predict(files), strict=True)]
    assert np.mean(right) > 0.8
    assert again.summary()


def test_the_probe_alone(photos, tmp_path):
    result = CliRunner().invoke(
        app, ["train", str(photos), "--probe", "--size", "64", "--out", str(tmp_path / "run")], catch_exceptions=False
    )
    assert result.exit_code == 0 and "train_loss" not in result.output
    run = load_run(tmp_path / "run")
    assert run.results == [] and run.epoch is None and run.settings["settings"]["probe"]
    assert f"accuracy {run.result['accuracy']:.4f} on" in result.output
    assert describe_run(run.folder).endswith(f"accuracy {run.result['accuracy']:.4f}")
    assert isinstance(run.model[1][-1], nn.Linear) and run.model[1][-1].weight.shape == (3, 1280)
    shown = CliRunner().invoke(app, ["show", str(run.folder), "--out", str(tmp_path / "a.png")])
    assert shown.exit_code == 0 and (tmp_path / "a.png").stat().st_size > 1000


def test_a_run_holds_the_probe_where_no_epoch_is_better(photos, tmp_path, capsys):
    run = train(Settings(str(photos), epochs=1, lr=20.0, **FAST), tmp_path / "bad")  # which forgets everything
    probe = train(Settings(str(photos), probe=True, **FAST), tmp_path / "probe")
    assert run.results[0]["accuracy"] < run.settings["start"]["accuracy"]
    assert run.epoch is None and run.result["accuracy"] == probe.result["accuracy"]
    assert [each.metric for each in list_runs(tmp_path)] == [f"accuracy {probe.result['accuracy']:.4f}"] * 2
    ours, theirs = run.model.state_dict(), probe.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    arguments = ["train", str(photos), "--epochs", "1", "--lr", "20", "--size", "64", "--seed", "1"]
    said = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "again")]).output
    assert "with the model of the probe, which no epoch was better than" in said


def test_frozen_epochs_come_before_the_others(photos, tmp_path, capsys):
    run = train(Settings(str(photos), epochs=1, freeze_epochs=2, **FAST), tmp_path / "run")
    table = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit() or "epoch" in line]
    assert table.count("epoch") == 2
    assert run.settings["start"]["of"] in ("probe", "2 frozen epochs")


def test_the_same_seed_gives_the_same_bits(photos, tmp_path):
    runs = [
        train(Settings(str(photos), epochs=1, augment="strong", workers=n, **FAST), tmp_path / str(n)) for n in (1, 2)
    ]
    one, two = (run.model.state_dict() for run in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_options_that_do_not_exist_are_named(photos):
    with pytest.raises(UsageError, match="does not take epoch; there are source, arch, epochs"):
        pellucid.train(photos, epoch=3)
    with pytest.raises(UsageError, match="freeze_epochs must be 0 or more"):
        pellucid.train(photos, freeze_epochs=-1)
    with pytest.raises(UsageError, match="pretrained"):
        pellucid.train(photos, arch="small_resnet", probe=True)


@pytest.mark.parametrize(
    ("typical", "arch", "size", "lr", "augment"),
    [
        (500, "efficientnet_lite0", 224, 1e-3, "light"),
        (64, "efficientnet_lite0", 192, 1e-3, "light"),
        (63, "small_resnet", 63, 5e-3, "none"),
        (None, "small_resnet", 128, 5e-3, "none"),
    ],
)
def test_what_fits_the_images(typical, arch, size, lr, augment):
    found = fitted(Settings("x"), typical, of_files=True)
    assert (found.arch, found.size, found.lr, found.augment) == (arch, size, lr, augment)


def test_what_was_asked_for_stays():
    asked = Settings("x", arch="efficientnet_lite2", size=100, lr=0.1, augment="none")
    assert fitted(asked, 500, of_files=True) == asked
    assert fitted(Settings("x", arch="efficientnet_lite1"), 500, of_files=True).size == 240
    assert fitted(Settings("x", arch="timm:resnet50"), 500, of_files=True).size == 224
    assert fitted(Settings("x", arch="timm:resnet50"), 32, of_files=True).size == 96
    assert fitted(Settings("x", size=0), 500, of_files=True).size == 0
    assert fitted(Settings("x", size=32), 500, of_files=True).arch == "small_resnet"
    assert fitted(Settings("x", size=64), 500, of_files=True).arch == "efficientnet_lite0"
    assert fitted(Settings("x"), None, of_files=False) == Settings("x", lr=5e-3, augment="none")


def test_validation_sees_the_middle_of_photos_pixel_by_pixel():
    steps = image_steps(fitted(Settings("x"), 500, of_files=True))
    assert steps["item_tfms"].size == 256
    (middle,) = (t.validation for t in steps["batch_tfms"] if getattr(t, "validation", None))
    x = torch.rand(2, 3, 256, 256)
    torch.testing.assert_close(middle(x), x[:, :, 16:240, 16:240])


def test_small_files_are_enlarged_for_a_pretrained_body_only():
    assert fitting_side(None, 32, 224, pretrained=True) == 96
    assert fitting_side(None, 8, 224, pretrained=True) == 64
    assert fitting_side(None, 32, 128) == 32
