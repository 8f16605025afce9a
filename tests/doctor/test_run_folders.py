"""A run folder is judged by its record, finished or not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from reports import died, sample

from pellucid import cli
from pellucid.doctor.report import Report
from pellucid.errors import UsageError
from pellucid.runs.diagnosing import diagnose_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Of a run that is still training: there is only its history."""
    return died().save(tmp_path_factory.mktemp("runs") / "digits").parent


def doctor(*args: object) -> int:
    sys.argv[1:] = ["doctor", *map(str, args)]
    with pytest.raises(SystemExit) as done:
        cli.main()
    return done.value.code  # type: ignore[return-value]


def test_the_record_of_a_run_names_what_happened_in_it(folder):
    report = diagnose_run(folder)
    assert not report.healthy and report.history is not None
    assert report.checked[0].startswith("watched: 120 steps of the model (5 layers)")
    assert report.notes[-1] == "a run folder holds no batches and no optimizer, so nothing could be tried"
    assert all(finding.trial is None for finding in report.findings)


def test_the_command_prints_it_and_says_by_its_exit_code_whether_it_is_sick(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pellucid"])
    assert doctor(folder, "--json", "--html", tmp_path / "report.html") == 3
    first, _, rest = capsys.readouterr().out.partition("\n")
    assert first == str(tmp_path / "report.html") and (tmp_path / "report.html").exists()
    assert json.loads(rest) == json.loads(json.dumps(diagnose_run(folder).json()))
    assert doctor(folder, "--html", tmp_path / "report.pdf") == 2
    assert doctor(folder, "--", "--lr", "0.1") == 2
    assert "takes no arguments" in capsys.readouterr().err


def test_a_report_that_lies_in_the_folder_is_the_one(folder):
    file = sample().to_json(folder / "doctor.json")
    assert diagnose_run(folder).json() == Report.from_json(file).json()
    file.write_text("{}")
    with pytest.raises(UsageError, match=r"doctor\.json: is no report"):
        diagnose_run(folder)
    file.unlink()
