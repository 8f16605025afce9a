"""Result folders of experiments that are damaged, of a stranger, or cannot be written."""

from __future__ import annotations

import json
import os
import re
import resource
from pathlib import Path

import pytest

from pellucid.errors import UsageError
from pellucid.experiments import Experiment, run
from pellucid.experiments.results import read_cells

CALLS: list[int] = []


def measured(seed: int, *, bonus: float) -> dict[str, float]:
    CALLS.append(seed)
    return {"accuracy": 0.5 + bonus + seed / 100, "cost": 1}


TOY = Experiment("toy", "Which?", measured, {"plain": {"bonus": 0.0}, "better": {"bonus": 0.1}}, also=("cost",))


@pytest.fixture
def cell(tmp_path) -> Path:
    """One of four finished cells."""
    run(TOY, 2, tmp_path, report=None)
    CALLS.clear()
    return next((tmp_path / "toy" / "cells").glob("better-1-*.json"))


def test_finished_cells_are_kept(cell, tmp_path):
    run(TOY, 2, tmp_path, report=None)
    assert CALLS == []


VALUES = [
    None,
    [],
    {},
    "0.9",
    {"accuracy": 0.9},
    {"cost": 1},
    {"accuracy": "0.9", "cost": 1},
    {"accuracy": None, "cost": 1},
]
VALUES += [{"accuracy": [0.9], "cost": 1}, {"accuracy": True, "cost": 1}, {"accuracy": 10**400, "cost": 1}]


@pytest.mark.parametrize("values", VALUES, ids=range(len(VALUES)))
def test_numbers_that_cannot_be_are_trained_again(cell, tmp_path, values):
    cell.write_text(json.dumps(json.loads(cell.read_text()) | {"values": values}))
    lines: list[str] = []
    results = run(TOY, 2, tmp_path, report=lines.append)
    assert CALLS == [1] and results.values("better", "accuracy") == [0.6, 0.61]
    assert len([line for line in lines if "damaged, or of another training; trained again" in line]) == 1


@pytest.mark.parametrize("change", [{"variant": "plain"}, {"seed": 7}, {"options": {"bonus": 9}}, {"more": 1}])
def test_a_cell_of_another_training_under_this_ones_name_is_trained_again(cell, tmp_path, change):
    cell.write_text(json.dumps(json.loads(cell.read_text()) | change))
    run(TOY, 2, tmp_path, report=None)
    assert CALLS == [1] and json.loads(cell.read_text())["options"] == {"bonus": 0.1}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 10_000])
def test_a_cell_that_is_no_json_object_is_trained_again(cell, tmp_path, content):
    cell.write_bytes(content)
    run(TOY, 2, tmp_path, report=None)
    assert CALLS == [1]


def test_a_pipe_in_place_of_a_cell_does_not_hang(cell, tmp_path):
    cell.unlink()
    os.mkfifo(cell)
    run(TOY, 2, tmp_path, report=None)
    assert CALLS == [1] and cell.is_file()


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "variant,seed,accuracy\nplain,zero,0.5\n", "variant,seed\nplain,1,2,3\n"]
)
def test_a_table_that_is_none_is_named(tmp_path, text):
    file = tmp_path / "values.csv"
    file.write_text(text)
    if text:
        with pytest.raises(UsageError, match=r"values\.csv: is no values\.csv"):
            read_cells(file)
    else:
        assert read_cells(file) == ()
    with pytest.raises(UsageError, match="no such file"):
        read_cells(tmp_path / "nothing.csv")


def test_a_folder_that_cannot_be_written_is_reported_before_the_first_training(tmp_path):
    CALLS.clear()
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", Path("/proc/experiments"), tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="cannot be written"):
            run(TOY, 1, out, report=None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # as a full disk would
    try:
        with pytest.raises(UsageError, match="cannot be written"):
            run(TOY, 1, tmp_path, report=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert CALLS == []


def test_a_function_that_does_not_return_what_is_compared_is_named(tmp_path):
    for options in ({"metric": "f1"}, {"also": ("speed",)}):
        lacking = Experiment("toy", "Which?", measured, {"plain": {"bonus": 0.0}}, **options)
        with pytest.raises(UsageError, match=re.escape("does not return; it gives accuracy, cost")):
            run(lacking, 1, tmp_path, report=None)


def test_results_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        run(TOY, 1, tmp_path, report=None)
    finally:
        os.umask(before)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 6 and {file.stat().st_mode & 0o777 for file in files} == {0o640}
