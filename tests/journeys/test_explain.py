"""`pellucid explain`, on a run folder without training."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_model

from commands import pellucid
from pellucid import cli
from pellucid import convolution as cv
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImageBW
from pellucid.nn.models import create_model
from pellucid.runs import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with untrained weights: the chapter's network on grey digits."""
    folder = tmp_path_factory.mktemp("explain") / "run"
    rng = np.random.default_rng(0)
    for n in range(8):
        file = folder.parent / "digits" / "ab"[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (28, 28), np.uint8)).save(file)
    dls = ImageDataLoaders.from_folder(folder.parent / "digits", None, None, 0.25, 0, img_cls=PILImageBW)
    folder.mkdir()
    torch.manual_seed(0)
    save_model(create_model("simple_cnn", 1, 2, 28), str(folder / "model.safetensors"))
    settings = {
        "settings": {"arch": "simple_cnn"},
        "input_shape": [1, 28, 28],
        "vocab": ["a", "b"],
        "decoding": dls.decoding.to_json(),
        "normalize": {"mean": [0.1307], "std": [0.3081]},
    }
    (folder / "run.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def digit(run) -> Path:
    return run.parent / "digits" / "a" / "0.png"


def explain(monkeypatch, *args: object) -> int:
    """Run the command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["pellucid", "explain", *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def pixels(file: Path) -> torch.Tensor:
    with Image.open(file) as image:
        return (torch.tensor(np.array(image), dtype=torch.float32) / 255 - 0.1307) / 0.3081


def test_a_page_opens_at_the_activation(run, digit, tmp_path):
    done = pellucid("explain", run, digit, "--layer", "1#1", "--at", "3,5", "--out", "trace.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    t = cv.trace(load_run(run).model, pixels(digit), "1", (3, 5))
    said, file = done.stdout.splitlines()
    assert (said, file) == (str(t), "trace.html")
    page = (tmp_path / "trace.html").read_text()
    assert f"<title>{t}</title>" in page and f'"unit":[{t.channel},3,5]' in page and len(page) < 1e6
    (prediction,) = load_run(run).predict([digit])
    shares = [prediction.probabilities[str(name)] for name in load_run(run).vocab]
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert data["source"] == digit.name and data["classes"] == list(map(str, load_run(run).vocab))
    np.testing.assert_allclose(data["probabilities"], shares, atol=1e-5)


def test_a_picture_and_a_spreadsheet(monkeypatch, run, digit, tmp_path, capsys):
    assert (
        explain(monkeypatch, run, digit, "--layer", "-4", "--at", "0,1", "--out", tmp_path / "new" / "trace.png") == 0
    )
    with Image.open(tmp_path / "new" / "trace.png") as picture:
        assert picture.width > 600
    assert explain(monkeypatch, run, digit, "--xlsx", tmp_path / "conv-example.xlsx") == 0
    assert (tmp_path / "conv-example.xlsx").read_bytes()[:2] == b"PK"
    assert capsys.readouterr().out.splitlines()[1:] == [
        str(tmp_path / n) for n in ("new/trace.png", "conv-example.xlsx")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--layer 1#1 --at 3;5", "--at 3;5: give row,column, such as --at 3,5"),
        ("--layer 1#1 --at 9,9", "position (9, 9) lies outside the map of 1: it has rows 0 to 6 and columns 0 to 6"),
        ("--layer 77", "layer 77 does not exist: Sequential has 0.0 (Conv2d), 0.1 (ReLU)"),
        ("--layer 1#1 --channel 16", "1 has channels 0 to 15, not 16"),
        ("--out trace.txt", "trace.txt: needs the ending .html for a page, or .png, .svg or .pdf for a picture"),
        ("--layers 0,nine", "layer 'nine' does not exist"),
        ("--xlsx a.xlsx --at 1,1", "a spreadsheet takes --layers"),
        ("--xlsx a.csv", ".xlsx"),
    ],
)
def test_wrong_options_are_named(monkeypatch, run, digit, tmp_path, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert explain(monkeypatch, run, digit, *options.split()) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_wrong_files_are_named(monkeypatch, run, digit, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.png").write_text("words")
    Image.new("L", (30, 40)).save(tmp_path / "big.png")
    for image, message in (("none.png", "no such file"), ("words.png", "not an image"), ("big.png", "28×28")):
        assert explain(monkeypatch, run, image) == 2
        assert message in capsys.readouterr().err
    assert explain(monkeypatch, tmp_path, digit) == 2
    assert "no run folder" in capsys.readouterr().err
