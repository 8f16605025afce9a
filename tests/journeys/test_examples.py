"""The examples and the README's code run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def run(code: Path, folder: Path) -> str:
    environment = os.environ | {"MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-W", "error", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def last_accuracy(output: str) -> float:
    rows = [line.split() for line in output.splitlines() if re.match(r"\d+ +\d+\.\d", line)]
    return float(rows[-1][3])


def test_digits(mnist_sample, tmp_path):
    output = run(ROOT / "examples" / "digits.py", tmp_path)
    assert "Total params: 6,722" in output
    assert last_accuracy(output) > 0.97
    for name in ("batch", "results", "loss", "schedule"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(picture.convert("L").getcolors()) > 20


def test_own_callback(mnist_sample, tmp_path):
    output = run(ROOT / "examples" / "own_callback.py", tmp_path)
    said = re.search(r"stopped after (\d+) epochs; best validation loss (\d\.\d+)", output)
    assert said
    losses = [float(line.split()[2]) for line in output.splitlines() if re.match(r"\d+ +\d\.\d", line)]
    assert len(losses) == int(said[1])
    assert float(said[2]) == pytest.approx(min(losses), abs=2e-4)


def test_own_model(tmp_path):
    assert last_accuracy(run(ROOT / "examples" / "own_model.py", tmp_path)) > 0.95


def test_readme_code(mnist, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for i, block in enumerate(blocks):
        script = tmp_path / f"block{i}.py"
        script.write_text(block.replace("fit_one_cycle(5,", "fit_one_cycle(1,"))  # four epochs more show nothing new
        assert last_accuracy(run(script, tmp_path)) > 0.97
