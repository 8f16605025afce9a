from __future__ import annotations

import csv
from pathlib import Path
from subprocess import CompletedProcess

from commands import pellucid
from pellucid.experiments import EXPERIMENTS


def experiment(*args: object, cwd: Path) -> CompletedProcess[str]:
    return pellucid("experiment", *args, cwd=cwd)


def test_an_experiment_from_the_command_line(tmp_path):
    args = ("kernel", "--seeds", 2, "--epochs", 1, "--images", 600, "--out", "results")
    done = experiment(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "kernel"
    assert sorted(file.name for file in folder.iterdir()) == [
        "cells",
        "picture.png",
        "table.csv",
        "table.md",
        "values.csv",
    ]
    with (folder / "values.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["variant"], row["seed"]) for row in rows] == [("5×5", "0"), ("3×3", "0"), ("5×5", "1"), ("3×3", "1")]
    assert {row["parameters"] for row in rows} == {"30542.0", "30414.0"}
    assert "| 3×3 | " in done.stdout and "4 of 4" in done.stdout
    again = experiment(*args, cwd=tmp_path)
    assert again.stdout.count("(kept)") == 4
    assert again.stdout.split("\n\n")[1:] == done.stdout.split("\n\n")[1:]


def test_without_a_name_it_lists_them(tmp_path):
    done = experiment(cwd=tmp_path)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(EXPERIMENTS)


def test_a_wrong_name_lists_them(tmp_path):
    done = experiment("nroms", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    names = ", ".join(EXPERIMENTS)
    assert done.stderr == f"error: experiment 'nroms' does not exist: use one of {names}\n"
    assert not list(tmp_path.iterdir())
