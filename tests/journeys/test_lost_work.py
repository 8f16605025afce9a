"""Trainings that are stopped, killed, or have nowhere to write: what is left, and what is said."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hanging import HUNG_S
from pellucid import cli
from pellucid.errors import TrainingError, UsageError
from pellucid.metrics import accuracy
from pellucid.runs import Settings, load_run, reserving, train, training
from pellucid.training.callbacks.recorder import Recorder
from pets import write_noise

LONG = ("--epochs", "100000", "--size", "0", "--bs", "8", "--out", "run")


@pytest.fixture
def noise(tmp_path, monkeypatch) -> Path:
    """Two classes of noise in the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_noise(tmp_path / "noise")


def started(*args: object, cwd: Path) -> subprocess.Popen[str]:
    """A training that has finished its first epoch."""
    command = [sys.executable, "-m", "pellucid", "train", *map(str, args)]
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=obey_hang_ups
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("0 "):
            return process
    raise AssertionError(process.communicate()[1])


def obey_hang_ups() -> None:
    """Under `nohup make test` children inherit that SIGHUP is ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def ended(process: subprocess.Popen[str]) -> str:
    try:
        stderr = process.communicate(timeout=HUNG_S)[1]
    finally:
        process.kill()  # one that goes on would slow down everything after it
    assert "Traceback" not in stderr
    return stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])  # SIGINT is in test_command_line
def test_whatever_signal_ends_it_the_run_is_kept(noise, name):
    process = started(noise, *LONG, cwd=noise.parent)
    for _ in range(2):  # a second one does not stop the writing
        process.send_signal(getattr(signal, name))
    stderr = ended(process)
    assert process.returncode == 1 and "interrupted; what was trained so far is in run" in stderr
    kept = load_run(noise.parent / "run")
    assert kept.settings["settings"]["interrupted"] is True and kept.results
    names = sorted(file.name for file in (noise.parent / "run").iterdir())
    assert names == [
        "checkpoints",
        "doctor.html",
        "doctor.json",
        "history.safetensors",
        "model.safetensors",
        "run.json",
    ]


def test_a_loss_that_is_no_number_leaves_a_run(noise):
    with pytest.raises(TrainingError, match=r"the training loss became .*; what was trained so far is in run"):
        train(Settings(str(noise), size=0, epochs=50, lr=1e30), out="run")
    kept = load_run("run")  # refuses weights that are not finite
    assert "the training loss became" in kept.settings["settings"]["stopped"]
    report = kept.report
    assert not report.healthy and report.findings[0].name in ("learning-rate-too-high", "loss-not-a-number")


def test_an_error_of_any_kind_leaves_a_run(noise, monkeypatch):
    def fails(self: Recorder) -> None:
        raise RuntimeError("the power supply hums")

    monkeypatch.setattr(Recorder, "after_epoch", fails)
    with pytest.raises(RuntimeError, match="hums") as error:
        train(Settings(str(noise), size=0, epochs=3), out="run")
    assert error.value.__notes__ == ["what was trained so far is in run"]
    assert "hums" in load_run("run").settings["settings"]["stopped"]


def test_an_interruption_before_the_first_batch_leaves_nothing(noise, monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "open_source", stop)
    monkeypatch.setattr(sys, "argv", ["pellucid", "train", str(noise)])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert capsys.readouterr().err == "error: interrupted; nothing was trained yet\n"
    assert [path.name for path in noise.parent.iterdir()] == ["noise"]


def test_what_a_killed_training_left_is_not_taken_for_this_run(noise):
    process = started(noise, *LONG, "--stats", cwd=noise.parent)
    seen, deadline = noise.parent / "run" / "history.safetensors", time.monotonic() + HUNG_S
    while not seen.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert not (noise.parent / "run" / "run.json").exists()
    with pytest.raises(UsageError, match=r"a training that was killed; go on with it \(pellucid train --resume run\)"):
        train(Settings(str(noise), size=0, epochs=1), out="run")
    shutil.rmtree(noise.parent / "run" / "checkpoints")
    with pytest.raises(UsageError, match=r"left of a training that was killed \(history.safetensors\)"):
        train(Settings(str(noise), size=0, epochs=1), out="run")
    seen.unlink()
    (noise.parent / "run" / ".model.safetensors.12345678.tmp").write_text("half of it")
    train(Settings(str(noise), size=0, epochs=1), out="run")
    assert not list((noise.parent / "run").glob(".*"))


def test_two_trainings_do_not_share_a_folder(noise):
    first = started(noise, *LONG, cwd=noise.parent)
    with pytest.raises(UsageError, match="another training writes into it"):
        train(Settings(str(noise), size=0, epochs=1), out="run")
    first.send_signal(signal.SIGTERM)
    ended(first)
    with pytest.raises(UsageError, match="holds a run already"):
        train(Settings(str(noise), size=0, epochs=1), out="run")


def test_two_trainings_of_one_second_have_folders_of_their_own(noise, monkeypatch):
    monkeypatch.setattr(reserving.time, "strftime", lambda _: "20261124-093000")
    with reserving.reserved("noise", None) as one, reserving.reserved("noise", None) as two:
        names = [one.folder.name, two.folder.name]
    assert names == ["noise-20261124-093000", "noise-20261124-093000-2"]
    assert not (noise.parent / "runs").exists()  # nothing was written: they are gone


@pytest.mark.parametrize(
    ("make", "out", "message"),
    [
        (Path.touch, "there", "there: is a file, not a folder"),
        (os.mkfifo, "there", "there: is a file, not a folder"),
        (Path.touch, "there/run", "there/run: cannot be written (Not a directory)"),
        (None, "/proc/run", "/proc/run: cannot be written"),  # where nobody may make a folder, root neither
        (None, "x" * 300, "cannot be written (File name too long)"),
    ],
    ids=["file", "pipe", "under a file", "read-only", "too long"],
)
def test_a_folder_that_cannot_be_is_reported_before_anything_is_read(noise, make, out, message):
    if make:
        make(noise.parent / "there")
    for file in noise.rglob("*.png"):
        file.write_bytes(b"no picture")  # reading them would be reported
    with pytest.raises(UsageError, match=re.escape(message)):
        train(Settings(str(noise)), out=out)
    assert sorted(path.name for path in noise.parent.iterdir()) == (["noise", "there"] if make else ["noise"])


@contextmanager
def full_beyond(n_bytes: int) -> Iterator[None]:
    """What a full disk does to a process: no file may become larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_room_is_reported_before_the_first_epoch(noise, capsys):
    train(Settings(str(noise), size=0, epochs=1), out="first")  # decodes
    for room, said in ((40_000, ""), (90_000, "training")):  # for the probe, for the weights
        capsys.readouterr()
        with full_beyond(room), pytest.raises(UsageError, match=r"run: has no room for the \d+\.\d MB that this run"):
            train(Settings(str(noise), size=0, epochs=1), out="run")
        output = capsys.readouterr().out
        assert said in output and "train_loss" not in output
        assert not (noise.parent / "run").exists()


def test_a_run_that_can_no_longer_be_written_goes_to_another_place(noise):
    process = started(noise, *LONG, cwd=noise.parent)
    folder = noise.parent / "run"
    shutil.rmtree(folder)
    folder.write_text("a file in the way")
    process.send_signal(signal.SIGINT)
    stderr = ended(process)
    found = re.search(r"run: cannot be written any more \(.*\); the run is in (\S+)", stderr)
    assert found and process.returncode == 1, stderr
    assert load_run(found[1]).results and folder.read_text() == "a file in the way"


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o027, 0o640)])
def test_every_file_of_a_run_has_the_permissions_of_a_new_file(noise, mask, mode):
    before = os.umask(mask)
    try:
        train(Settings(str(noise), size=0, epochs=1, stats=True), out="run")
    finally:
        os.umask(before)
    files = [file for file in Path("run").rglob("*") if file.is_file()]
    assert len(files) == 6 and {file.stat().st_mode & 0o777 for file in files} == {mode}


def test_results_that_are_no_number_are_kept_as_null(noise, monkeypatch):
    def undefined(pred, targ):
        return accuracy(pred, targ) * float("nan")

    monkeypatch.setattr(training, "accuracy", undefined)
    kept = train(Settings(str(noise), size=0, epochs=1), out="run")
    assert kept.results[0]["undefined"] is None
    assert "NaN" not in Path("run/run.json").read_text()  # which is no JSON
    assert json.loads(Path("run/run.json").read_text())["results"]
