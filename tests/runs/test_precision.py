"""The precision that a run is trained in: asked for, measured, and kept in its settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pellucid.cli import app
from pellucid.errors import UsageError
from pellucid.runs import Settings, load_run, train


def test_the_default_is_float32_and_bfloat16_is_a_choice(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    losses = {}
    for precision in ("fp32", "bf16"):
        run = train(Settings(str(photos), size=32, epochs=1, precision=precision), out=precision)
        assert json.loads((Path(precision) / "run.json").read_text())["settings"]["precision"] == precision
        losses[precision] = run.results[0]["train_loss"]
        label = load_run(precision).predict(photos / "red" / "0.jpg")[0].label
        assert label in ("red", "green", "blue")
    assert Settings("mnist").precision == "fp32"
    assert losses["fp32"] != losses["bf16"] and losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


def test_auto_measures_says_what_it_took_and_changes_nothing_else(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    arguments = ["train", str(photos), "--size", "32", "--epochs", "1", "--device", "cpu"]
    measured = CliRunner().invoke(app, [*arguments, "--precision", "auto", "--out", "auto"])
    assert measured.exit_code == 0, measured.output
    found = re.search(r"precision (fp32|bf16): .* took fp32 (\d+\.\d) ms, bf16 (\d+\.\d) ms", measured.output)
    assert found
    assert load_run("auto").settings["settings"]["precision"] == found[1]
    CliRunner().invoke(app, [*arguments, "--precision", found[1], "--out", "same"])
    files = [Path(folder, "model.safetensors").read_bytes() for folder in ("auto", "same")]
    assert files[0] == files[1]


def test_what_cannot_be_is_refused_before_anything_is_trained(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    with pytest.raises(UsageError, match="float16 is for GPUs"):
        train(Settings(str(photos), size=32, precision="fp16", device="cpu"), out="run")
    with pytest.raises(UsageError, match="precision must be one of fp32, bf16, fp16, auto, got fp8"):
        Settings("mnist", precision="fp8")
