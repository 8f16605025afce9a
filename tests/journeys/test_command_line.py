"""Training, predicting and what goes wrong, as a user starts them: as processes where that is what is tested."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from commands import pellucid
from hanging import HUNG_S


def process(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pellucid", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=HUNG_S)


@pytest.fixture(scope="module")
def digits_run(mnist_sample, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    done = process("train", "mnist_sample", "--epochs", 1, "--lr", 0.02, "--out", folder / "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert f"run saved in {folder / 'run'}" in done.stdout
    assert "\ndoctor: nothing found wrong\n" in done.stdout
    assert re.search(r"^0 +\d\.\d{6} +\d\.\d{6} +0\.9\d{5} +\d\d:\d\d$", done.stdout, re.MULTILINE)
    return folder / "run"


def test_the_run_folder_says_everything(digits_run):
    run = json.loads((digits_run / "run.json").read_text())
    assert run["settings"]["arch"] == "simple_cnn" and run["settings"]["lr"] == 0.02
    assert run["vocab"] == ["3", "7"] and run["input_shape"] == [1, 28, 28]
    assert {"pellucid", "torch", "numpy", "pillow", "python"} == run["versions"].keys()
    assert run["results"][-1]["accuracy"] > 0.95
    history = load_file(digits_run / "history.safetensors")
    n_batches = run["n_train"] // run["settings"]["bs"]
    assert history["loss"].shape == (n_batches,) and history["hyper.lr"].shape == (n_batches, 1)


def test_predict_names_digits(digits_run, mnist_sample, tmp_path):
    files = [next((mnist_sample / "valid" / digit).iterdir()) for digit in ("3", "7")]
    done = pellucid("predict", digits_run, *files, "--json", cwd=tmp_path)
    answers = json.loads(done.stdout)
    assert [a["label"] for a in answers] == ["3", "7"]
    assert all(sum(a["probabilities"].values()) == pytest.approx(1, abs=1e-5) for a in answers)
    lines = pellucid("predict", digits_run, *files, cwd=tmp_path).stdout.splitlines()
    assert [line.split(": ")[1][0] for line in lines] == ["3", "7"]


def test_summary_prints_the_table(digits_run, tmp_path):
    rows = [line.split() for line in pellucid("summary", digits_run, cwd=tmp_path).stdout.splitlines()]
    assert ["Conv2d", "1", "x", "8", "x", "14", "x", "14", "208", "True", "39,200"] in rows


def test_predict_refuses_another_size(digits_run, tmp_path):
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "big.png")
    done = pellucid("predict", digits_run, tmp_path / "big.png", cwd=tmp_path)
    assert done.returncode == 2 and "30×40" in done.stderr and "28×28" in done.stderr


def test_a_folder_of_colour_photos_of_mixed_sizes(photos):
    done = process("train", photos, "--size", 32, "--epochs", 6, "--out", "run", cwd=photos.parent)
    assert done.returncode == 0, done.stderr
    run = json.loads((photos.parent / "run" / "run.json").read_text())
    assert run["settings"]["arch"] == "small_resnet" and run["vocab"] == ["blue", "green", "red"]
    assert run["results"][-1]["accuracy"] == 1.0  # a mean colour tells them apart
    done = pellucid("predict", "run", photos / "red" / "0.jpg", cwd=photos.parent)
    assert done.stdout.startswith(f"{photos / 'red' / '0.jpg'}: red")


def test_a_csv_of_path_and_label(photos):
    rows = [f"{file.relative_to(photos)},{file.parent.name}" for file in sorted(photos.glob("*/*.jpg"))]
    (photos / "labels.csv").write_text("\n".join(["file,label", *rows]))
    done = pellucid("train", photos / "labels.csv", "--size", 32, "--epochs", 5, "--out", "run", cwd=photos.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads((photos.parent / "run" / "run.json").read_text())["vocab"] == ["blue", "green", "red"]


def test_same_seed_same_weights(photos):
    runs = []
    for name in ("a", "b"):
        args = ("train", photos, "--size", 32, "--epochs", 1, "--seed", 9, "--out", name)
        assert process(*args, cwd=photos.parent).returncode == 0
        runs.append((photos.parent / name / "model.safetensors").read_bytes())
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "nowhere"], "no such file or folder"),
        (["train", "mnist_sample", "--arch", "resnet9000"], "simple_cnn, plain_cnn, small_resnet"),
        (["train", "mnist_sample", "--schedule", "sine"], "one_cycle, one_cycle_linear, flat_cos, constant"),
        (["train", "mnist_sample", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["train", "mnist_sample", "--epochs", "0"], "--epochs"),
        (["predict", "nowhere", "a.png"], "no run folder"),
        (["summary", "nowhere"], "no run folder"),
    ],
)
def test_what_the_user_got_wrong_exits_with_2(args, message, tmp_path, mnist_sample):
    done = pellucid(*args, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr


def test_ctrl_c_keeps_what_was_trained(mnist_sample, tmp_path):
    command = [sys.executable, "-m", "pellucid", "train", "mnist_sample", "--epochs", "500", "--out", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    for line in process.stdout:
        if line.startswith("0 "):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=HUNG_S)
    assert process.returncode == 1 and "interrupted" in stderr and "Traceback" not in stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["interrupted"] is True and run["results"]
    file = next((mnist_sample / "valid" / "3").iterdir())
    assert pellucid("predict", "run", file, cwd=tmp_path).returncode == 0


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['pellucid', 'train', '--help']\ntry:\n import pellucid.cli as c; c.main()\n"
    code += "except SystemExit: pass\nprint(sorted({'torch', 'numpy', 'PIL', 'matplotlib'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "[]"


def test_import_pellucid_imports_nothing_heavy():
    code = "import pellucid, sys; print(sorted({'torch', 'numpy', 'PIL', 'matplotlib'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
