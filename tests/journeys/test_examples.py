"""The examples and the README's code run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from commands import pellucid
from hanging import HUNG_S

ROOT = Path(__file__).parents[2]
A_TRAINING = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4))
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
x = torch.randn(256, 20)
y = x[:, :4].argmax(1)
for epoch in range(10):
    for i in torch.randperm(256).split(32):
        loss = nn.functional.cross_entropy(model(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
"""


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


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


# What README's block on a loop of one's own takes for granted.
A_LOOP = """
import itertools
import pellucid
opt = torch.optim.SGD(model.parameters(), 0.01)
loader = list(itertools.islice(dls.train, 5))
"""


def test_readme_code(mnist, photos, tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    first, *rest = blocks("README.md")
    script = tmp_path / "readme.py"
    for name in ("a.jpg", "b.heic"):
        Image.open(photos / "red" / "0.jpg").save(tmp_path / name)
    shutil.copytree(photos, tmp_path / "test")
    rest = [
        block.replace("pellucid.train('photos/')", "pellucid.train('photos/', size=32, epochs=1)") for block in rest
    ]
    first = first.replace("fit_one_cycle(5,", "fit_one_cycle(1,")  # four epochs more show nothing new
    script.write_text("\n".join([first, A_LOOP, *rest]))
    assert last_accuracy(run(script, tmp_path)) > 0.97
    assert (tmp_path / "run").is_dir() and (tmp_path / "conv-example.xlsx").is_file()


def test_code_of_the_front_page(mnist, tmp_path):
    (block,) = blocks("docs/index.md")
    (tmp_path / "front.py").write_text(block.replace("fit_one_cycle(5,", "fit_one_cycle(1,"))
    assert last_accuracy(run(tmp_path / "front.py", tmp_path)) > 0.97


def shorter(command: str, run_folder: str) -> list[str]:
    """A command of README as it stands, but for the name of the run and for how long it takes."""
    command = re.sub(r"runs/photos-\d+-\d+", run_folder, command).replace("--size 128", "--size 32")
    command = re.sub(r"--epochs \d+", "--epochs 1", command).replace("train mnist", "train mnist_sample")
    words = shlex.split(command, comments=True)
    if words[1] == "train" and "--epochs" not in words:
        words += ["--epochs", "1"]
    if words[1] == "train" and "mnist_sample" not in words and "--size" not in words:
        words += ["--size", "64" if "--probe" in words else "32"]
    if words[1:2] == ["experiment"]:
        words += ["--seeds", "1", "--images", "256", "--epochs", "1"]
    return words


def test_readme_commands(photos, mnist_sample):
    folder = photos.parent
    rows = [f"{file.relative_to(folder)},{file.parent.name}" for file in sorted(photos.glob("*/*.jpg"))]
    shutil.copytree(photos, folder / "test")
    shutil.copytree(photos / "red", folder / "folder")
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))
    ids = [(f"{file.parent.name}{file.stem}", file) for file in sorted(photos.glob("*/*.jpg"))]
    (folder / "train").mkdir()
    for name, file in ids:
        shutil.copy(file, folder / "train" / f"{name}.jpg")
    (folder / "train.csv").write_text("\n".join(["id,age,breed", *(f"{n},3,{f.parent.name}" for n, f in ids)]))
    for i, name in enumerate(("a.jpg", "b.jpg")):
        shutil.copy(photos / "red" / f"{i}.jpg", folder / name)
    shutil.copy(next((mnist_sample / "valid" / "3").iterdir()), folder / "digit.png")
    (folder / "train.py").write_text(A_TRAINING)
    lines = [line for block in blocks("README.md", "") for line in block.splitlines() if line.startswith("pellucid ")]
    assert len(lines) >= 6
    started: set[str] = set()
    for line in lines:
        trained = sorted(folder.glob("runs/photos-*"))
        words = shorter(line, f"runs/{trained[0].name}" if trained else "")
        if "--resume" in words or "--branch" in words:  # of a run that was killed: test_killed.py kills some
            done = pellucid(*words[1:], cwd=folder)
            refusal = "has nothing to resume, this training has ended" if "--resume" in words else "runs/a"
            assert done.returncode == 2 and refusal in done.stderr, line
            continue
        if words[1] in started:  # the first of each command is a process
            done = pellucid(*words[1:], cwd=folder)
        else:
            command = [sys.executable, "-W", "error", "-m", *words]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=HUNG_S)
            started.add(words[1])
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if "--out" in words or "--xlsx" in words:
            option = "--out" if "--out" in words else "--xlsx"
            assert (folder / words[words.index(option) + 1]).exists(), line
