"""Our own trainings are examined while they run: what is said, written and left alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from commands import pellucid
from pellucid.errors import UsageError
from pellucid.runs import Settings, examining, load_run
from pets import write_noise

HERE = ("--size", 0, "--bs", 8)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Two classes of which the second is lighter."""
    return write_noise(tmp_path_factory.mktemp("images") / "images", lighter=120)


def test_of_a_healthy_training_there_is_one_line_and_nothing_was_tried(images, tmp_path):
    done = pellucid("train", images, *HERE, "--epochs", 8, "--out", "run", cwd=tmp_path)
    said = [line for line in done.stdout.splitlines() if "doctor" in line]
    assert done.returncode == 0 and len(said) == 1 and said[0].startswith("doctor: nothing found wrong")
    report = load_run(tmp_path / "run").report
    assert report.healthy and report.overhead is None and len(report.checked) == 1
    assert report.checked[0].startswith("watched: 64 steps of ")
    assert (tmp_path / "run" / "doctor.html").exists()


@pytest.mark.parametrize("option", [(), ("--stop-when-sick",)])
def test_a_sick_one_is_named_and_ends_early_where_that_is_asked_for(images, tmp_path, option):
    sick = "--arch", "plain_cnn", "--schedule", "constant", "--lr", 1e-7
    done = pellucid("train", images, *HERE, *sick, "--epochs", 6, *option, "--out", "run", cwd=tmp_path)
    run = load_run(tmp_path / "run")
    assert done.returncode == (3 if option else 0), done.stdout
    assert run.epoch is not None  # the best one
    if option:
        assert run.stopped == "the doctor found learning-rate-too-low" and 0 < len(run.results) < 6
        assert re.search(r"^stopped after epoch \d+: learning rate too low \(from the start\), ", done.stdout, re.M)
    assert "✗ learning-rate-too-low" in done.stdout
    assert f"doctor: the same with pictures is in {Path('run') / 'doctor.html'}" in done.stdout
    first = run.report.findings[0]
    assert first.name == "learning-rate-too-low" and first.trial is not None
    assert pellucid("doctor", "run", cwd=tmp_path).returncode == 3


def test_looking_changes_no_bit_and_no_doctor_writes_nothing(images, tmp_path, monkeypatch):
    monkeypatch.setattr(examining, "SHARE", 1e3)  # looks all along
    for name, option in (("seen", ()), ("plain", ("--no-doctor",))):
        done = pellucid("train", images, *HERE, "--epochs", 4, *option, "--out", name, cwd=tmp_path)
        assert ("doctor" in done.stdout) == (name == "seen")
    seen, plain = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("seen", "plain"))
    assert seen == plain
    names = sorted(file.name for file in (tmp_path / "plain").iterdir())
    assert names == ["history.safetensors", "model.safetensors", "run.json"]
    done = pellucid("doctor", "plain", cwd=tmp_path)
    assert done.returncode == 2 and "was not examined while it trained" in done.stderr


def test_a_report_that_cannot_be_written_costs_neither_the_run_nor_its_end(images, tmp_path, monkeypatch):
    monkeypatch.setattr(examining.Report, "to_html", lambda *_: json.loads("no page today"))
    done = pellucid("train", images, *HERE, "--epochs", 1, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0 and "doctor: this training could not be examined (JSONDecodeError" in done.stdout
    assert load_run(tmp_path / "run").results


def test_who_does_not_look_cannot_stop():
    with pytest.raises(UsageError, match="stop_when_sick needs the doctor"):
        Settings("photos", doctor=False, stop_when_sick=True)
