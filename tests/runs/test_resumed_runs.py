"""`--resume`, `--branch` and `pellucid runs` on a real training that was killed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import pellucid.runs as runs
from commands import pellucid
from hanging import HUNG_S
from pellucid.training import kept
from pets import write_noise

TRAINING = ("train", "noise", "--size", "0", "--epochs", "6", "--bs", "8", "--seed", "5", "--no-doctor")
KEEPING = ("--checkpoint-steps", "5", "--keep", "9")


@pytest.fixture(scope="module")
def was_killed(tmp_path_factory) -> Path:
    """A folder with images and two runs, `whole` and `run`, of which the second was killed after its first epochs."""
    folder = tmp_path_factory.mktemp("killed")
    write_noise(folder / "noise", 40)
    assert pellucid(*TRAINING, *KEEPING, "--out", "whole", cwd=folder).returncode == 0
    endless = [word if word != "6" else "100000" for word in TRAINING]
    command = [sys.executable, "-m", "pellucid", *endless, *KEEPING, "--out", "run"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + HUNG_S
    while not (folder / "run" / kept.FOLDER / "step20").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    return folder


@pytest.fixture
def killed(was_killed, tmp_path, monkeypatch) -> Path:
    """A copy of it as the working folder."""
    for name in ("whole", "run"):
        shutil.copytree(was_killed / name, tmp_path / name)
    shutil.copytree(was_killed / "noise", tmp_path / "noise")
    for about in (tmp_path / "run" / kept.FOLDER).rglob("*.json"):
        text = about.read_text().replace("100000", "6")
        about.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_branch_shares_the_past_of_the_run_it_comes_from(killed):
    done = pellucid("train", "--branch", "whole@step30", "--lr", "0.001", "--out", "other")
    assert done.returncode == 0 and "going on after step 30, at batch 6 of epoch 3" in done.stdout
    whole, other = runs.load_history("whole"), runs.load_history("other")
    assert whole.loss is not None and other.loss is not None
    np.testing.assert_array_equal(whole.loss[:31], other.loss[:31])
    assert not np.array_equal(whole.loss[31:], other.loss[31:])
    np.testing.assert_allclose(whole.hypers["lr"][30:], 5 * other.hypers["lr"][30:])
    settings = json.loads(Path("other/run.json").read_text())["settings"]
    assert settings["lr"] == 0.001 and settings["branch"] == "whole@step30"


def test_runs_are_listed_with_what_differs(killed):
    table = pellucid("runs", ".").stdout.splitlines()
    assert table[0].split() == ["run", "state", "epochs", "best", "source", "kept", "steps"]
    states = {line.split()[0]: line.split()[1] for line in table[1:]}
    assert states == {"run": "killed", "whole": "done"}
    assert re.search(r"whole +done +6 of 6 +accuracy \d\.\d{4} +noise", "\n".join(table))
    with FileLock("run/.training.lock"):
        assert "running" in pellucid("runs", "run").stdout
    assert pellucid("runs", "noise").stdout == "noise: no run is in it\n"
    assert pellucid("runs", "nowhere").returncode == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--resume whole",
            r"whole: has nothing to resume, this training has ended; another one can begin at its steps",
        ),
        ("--resume nowhere", r"nowhere: no such folder"),
        ("--resume noise", r"noise: has no checkpoint, no training began there"),
        ("--resume run --lr 0.5", r"run: was begun with lr None, which 0\.5 contradicts; another training with it can"),
        ("--resume run --epochs 9", r"run: was begun with epochs 6, which 9 contradicts"),
        ("noise --resume run", r"--resume run says itself what is trained where; leave a source out"),
        ("--branch whole@step7", r"whole@step7: step7 is not kept; kept are step\d+, "),
        ("--branch whole@step30 --bs 4", r"so bs cannot be changed; what can be is epochs, lr, "),
        ("--branch whole@step30 --epochs 2", r"is in epoch 3 already, and 2 epochs are over by then"),
        ("--branch noise", r"noise: has no checkpoint to go on from"),
        ("noise --out run", r"run: holds a training that was killed; go on with it \(pellucid train --resume run\)"),
        ("", r"give what to train on"),
    ],
)
def test_what_cannot_be_gone_on_with(killed, words, message):
    done = pellucid("train", *words.split())
    assert done.returncode == 2 and re.search(message, done.stderr) and done.stderr.count("\n") == 1
    assert (killed / "run" / kept.FOLDER / kept.TRAINING).exists()


def test_another_process_has_it(killed):
    with FileLock("run/.training.lock"):
        done = pellucid("train", "--resume", "run")
    assert done.returncode == 2 and done.stderr == "error: run: another process is training there\n"


def test_images_that_have_changed_are_refused(killed):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(killed / "noise" / "a" / "0.png")
    done = pellucid("train", "--resume", "run")
    assert done.returncode == 2 and "was made with other data: other training pixels" in done.stderr
    (killed / "noise" / "a" / "0.png").unlink()
    done = pellucid("train", "--resume", "run")
    assert done.returncode == 2 and "training images 64 then, 63 now" in done.stderr


@pytest.mark.filterwarnings("default")
def test_a_torn_checkpoint_is_passed_over(killed):
    last = kept.steps_in(killed / "run")[-1]
    (last / kept.STATE).write_bytes((last / kept.STATE).read_bytes()[:1000])
    done = pellucid("train", "--resume", "run")
    assert done.returncode == 0 and "torn or damaged" in done.stderr and "the checkpoint before it" in done.stderr


def test_without_a_checkpoint_it_begins_again(killed):
    kept.discard_steps(killed / "run")
    done = pellucid("train", "--resume", "run")
    assert done.returncode == 0 and done.stdout.startswith("there was no checkpoint yet: the training begins again\n")
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_a_run_that_is_done_looks_as_ever(killed, tmp_path):
    assert pellucid(*TRAINING, "--checkpoint-s", "0.1", "--out", "plain").returncode == 0
    assert sorted(each.name for each in Path("plain").iterdir()) == [
        "history.safetensors",
        "model.safetensors",
        "run.json",
    ]
