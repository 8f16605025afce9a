from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from hanging import HUNG_S
from pellucid.errors import UsageError
from pellucid.experiments import EXPERIMENTS, Experiment, experiment_named, run
from pellucid.experiments.results import read_cells


def measured(seed: int, *, bonus: float, noise: float) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    shared = rng.normal(0.9, noise)
    own = np.random.default_rng(int(1e6 * bonus) + seed).normal(0, noise / 10)
    return {"accuracy": shared + bonus + own, "cost": 100 * bonus}


def toy(**changes) -> Experiment:
    variants = {"plain": {"bonus": 0.0}, "better": {"bonus": 0.05}, "the same": {"bonus": 0.0001}}
    given = {"settings": {"noise": 0.01}, "also": ("cost",)} | changes
    return Experiment("toy", "Which is better?", measured, variants, **given)


def test_the_table_is_scipys(tmp_path):
    results = run(toy(), 6, tmp_path, report=None)
    columns = {
        name: [100 * measured(seed, bonus=bonus, noise=0.01)["accuracy"] for seed in range(6)]
        for name, bonus in (("plain", 0.0), ("better", 0.05), ("the same", 0.0001))
    }
    with (tmp_path / "toy" / "table.csv").open() as lines:
        rows = {row["variant"]: row for row in csv.DictReader(lines)}
    assert list(rows) == list(columns)
    for name, values in columns.items():
        low, high = stats.t.interval(0.95, 5, np.mean(values), stats.sem(values))
        found = [float(rows[name][key]) for key in ("n", "mean", "std", "low", "high")]
        assert found == pytest.approx([6, np.mean(values), np.std(values, ddof=1), low, high])
    for name in ("better", "the same"):
        bounds = stats.ttest_rel(columns[name], columns["plain"]).confidence_interval()
        found = [float(rows[name][key]) for key in ("difference_low", "difference_high")]
        assert found == pytest.approx([bounds.low, bounds.high])
    assert rows["plain"]["difference"] == "" and float(rows["better"]["cost"]) == pytest.approx(5)
    text = (tmp_path / "toy" / "table.md").read_text()
    assert str(results) in text and "# Which is better?" in text and "noise 0.01" in text
    better, same = text.splitlines()[-2:]
    assert "**+5." in better and "**" not in same
    assert (
        f"| {np.mean(columns['better']):.2f}\N{NO-BREAK SPACE}±" in better
        and better.endswith("| 5 | 6 |")
        and same.endswith("| 0.0100 | 6 |")
    )


def test_any_two_variants_are_compared_by_seed(tmp_path):
    results = run(toy(), 4, tmp_path, report=None)
    better, same = (np.array(results.values(name, "accuracy")) for name in ("better", "the same"))
    found, bounds = results.compare("better", "the same"), stats.ttest_rel(100 * better, 100 * same)
    assert (found.low, found.high) == pytest.approx(tuple(bounds.confidence_interval()))
    with pytest.raises(UsageError, match="variant 'best' does not exist: use one of plain, better, the same"):
        results.compare("better", "best")


def test_values_csv_holds_every_cell_exactly(tmp_path):
    results = run(toy(), 3, tmp_path, report=None)
    assert read_cells(tmp_path / "toy" / "values.csv") == results.cells


def test_another_baseline_and_a_plain_number(tmp_path):
    results = run(toy(baseline="better", metric="cost", percent=False), 2, tmp_path, report=None)
    assert [row.difference and row.difference.mean for row in results.rows()] == pytest.approx([-5, None, -4.99])
    assert "| cost |" in str(results) and "%" not in str(results)


def test_one_seed_has_a_table_and_a_picture_without_intervals(tmp_path):
    text = str(run(toy(), 1, tmp_path, report=None))
    assert "nan" not in text and "±" not in text
    assert (tmp_path / "toy" / "picture.png").stat().st_size > 10_000


def test_a_picture_with_collapsed_seeds(tmp_path):
    def collapsing(seed: int, *, wild: bool) -> dict[str, float]:
        return {"accuracy": 0.1 if wild and seed % 2 else 0.99 + 0.001 * seed}

    grid = Experiment("c", "?", collapsing, {"calm": {"wild": False}, "wild": {"wild": True}})
    run(grid, 5, tmp_path, report=None)
    with Image.open(tmp_path / "c" / "picture.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 60).any(0).nonzero()[0]
    assert blue.min() < 0.25 * picture.width < 0.4 * picture.width < blue.max()  # the collapsed are at the left end


def test_finished_cells_are_kept_and_other_settings_are_other_cells(tmp_path):
    calls: list[tuple[int, float, float]] = []

    def counted(seed: int, *, bonus: float, noise: float) -> dict[str, float]:
        calls.append((seed, bonus, noise))
        return measured(seed, bonus=bonus, noise=noise)

    grid = toy()
    grid = Experiment(grid.name, grid.question, counted, grid.variants, settings=grid.settings)
    first = run(grid, 2, tmp_path, report=None)
    assert len(calls) == 6
    assert run(grid, 2, tmp_path, report=None) == first and len(calls) == 6
    run(grid, 3, tmp_path, report=None)
    assert [seed for seed, *_ in calls[6:]] == [2, 2, 2]
    run(grid, 1, tmp_path, report=None, noise=0.02)
    assert [noise for *_, noise in calls[9:]] == [0.02] * 3
    damaged = next((tmp_path / "toy" / "cells").glob("better-0-*.json"))
    damaged.write_text(damaged.read_text()[:40])
    assert run(grid, 2, tmp_path, report=None, noise=0.02).cells
    assert run(grid, 2, tmp_path, report=None) == first


SCRIPT = """
import sys, time
from pathlib import Path
from pellucid.experiments import Experiment, run
from test_grid import measured

def slow(seed, **options):
    with Path("calls").open("a") as log:
        log.write(f"{seed} {options['bonus']}\\n")
    if options["bonus"] and seed == 1 and not Path("again").exists():
        print("hanging", flush=True)
        time.sleep(600)
    return measured(seed, **options)

grid = Experiment("toy", "?", slow, {"plain": {"bonus": 0.0}, "better": {"bonus": 0.05}}, settings={"noise": 0.01})
run(grid, 3, "out", report=None)
"""


def test_a_killed_process_goes_on_where_it_was(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    here = Path(__file__).parent  # the script takes `measured` from this module, which takes more from the folder above
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here, here.parent))), "MPLBACKEND": "Agg"}
    command = [sys.executable, "script.py"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "hanging\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cells = tmp_path / "out" / "toy" / "cells"
    assert len([json.loads(file.read_text()) for file in cells.iterdir()]) == 3
    before = {file: file.stat().st_mtime_ns for file in cells.iterdir()}
    (tmp_path / "again").touch()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=HUNG_S)
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in before.items())
    called = (tmp_path / "calls").read_text().splitlines()
    assert called == ["0 0.0", "0 0.05", "1 0.0", "1 0.05", "1 0.05", "2 0.0", "2 0.05"]
    found = {(cell.variant, cell.seed): dict(cell.values) for cell in read_cells(cells.parent / "values.csv")}
    names = {"plain": 0.0, "better": 0.05}
    assert found == {(n, s): measured(s, bonus=b, noise=0.01) for n, b in names.items() for s in range(3)}


def test_report_says_what_was_kept(tmp_path):
    lines: list[str] = []
    run(toy(), 1, tmp_path, report=lines.append)
    run(toy(), 2, tmp_path, report=lines.append)
    assert len(lines) == 9 and [line.endswith("(kept)") for line in lines] == [False] * 3 + [True] * 3 + [False] * 3
    assert lines[-1].split()[:3] == ["6", "of", "6"]


def test_wrong_input(tmp_path):
    with pytest.raises(UsageError, match="'nroms' does not exist: use one of norms, order, pooling, kernel, batch-s"):
        experiment_named("nroms")
    with pytest.raises(UsageError, match="seeds must be at least 1"):
        run(toy(), 0, tmp_path)
    with pytest.raises(UsageError, match="has no setting 'epoch'; there are: epochs, images"):
        run(EXPERIMENTS["order"], 1, tmp_path, epoch=3)
    with pytest.raises(UsageError, match=r"baseline 'best' is none of the variants plain, better, the same"):
        toy(baseline="best")
    with pytest.raises(UsageError, match="no variants"):
        Experiment("empty", "?", measured, {})
    assert not list(tmp_path.iterdir())
