"""Evaluations of images with any number of labels, against loops over images, and as users call them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import expit

from browser import Tab
from pellucid.errors import DataError, UsageError
from pellucid.evaluation.calibration import fitted_sigmoid_temperature
from pellucid.evaluation.labels import LabelsEvaluation
from pellucid.evaluation.scores import wilson
from pellucid.metrics.ranking import average_precision
from pellucid.runs import Run, Settings, load_run, train

NAMES = ["blue", "green", "red"]


def made(n: int = 50) -> LabelsEvaluation:
    """Scores that know a little; no image is red, and one image has no label."""
    rng = np.random.default_rng(0)
    labels = rng.random((n, 3)) < [0.6, 0.3, 0.0]
    labels[0] = False
    probabilities = expit(rng.normal(0, 1, (n, 3)) + 2.0 * (labels - 0.5))
    return LabelsEvaluation("test.csv", NAMES, [f"{i}.png" for i in range(n)], labels, probabilities)


@pytest.mark.parametrize("thresholds", [0.5, {"green": 0.2, "red": 0.9}])
def test_scores_are_those_of_counting(thresholds):
    found = made().at(thresholds)
    limits = [0.5, 0.2, 0.9] if isinstance(thresholds, dict) else [0.5] * 3
    said = [[p > limit for p, limit in zip(row, limits, strict=True)] for row in found.probabilities]
    pairs = list(zip(said, found.labels.tolist(), strict=True))
    n_right = sum(answer == labels for answer, labels in pairs)
    assert 5 < n_right < 45 and found.n_right == n_right and found.accuracy == n_right / 50
    assert found.interval == wilson(n_right, 50)
    wrong = sum(a != b for answer, labels in pairs for a, b in zip(answer, labels, strict=True))
    assert found.hamming_loss == pytest.approx(wrong / 150)
    total = np.zeros((2, 2), int)
    for i, score in enumerate(found.per_class):
        counts = np.zeros((2, 2), int)
        for answer, labels in pairs:
            counts[int(labels[i]), int(answer[i])] += 1
        total += counts
        assert found.confusion[i].tolist() == counts.tolist()
        both, n_there, n_said = counts[1, 1], counts[1].sum(), counts[:, 1].sum()
        assert (score.name, score.support) == (NAMES[i], n_there)
        expected = [both / n_said if n_said else np.nan, both / n_there if n_there else np.nan]
        expected.append(2 * both / (n_there + n_said) if n_there + n_said else np.nan)
        expected.append(average_precision(found.probabilities[:, i], found.labels[:, i]))
        np.testing.assert_allclose(list(score.shares.values()), expected)
    assert found.pooled.precision == pytest.approx(total[1, 1] / total[:, 1].sum())
    assert found.pooled.recall == pytest.approx(total[1, 1] / total[1].sum())


def test_mistakes_say_what_was_added_and_missed_the_most_confident_first():
    found = made()

    def worst(i: int) -> float:
        row, labels = found.probabilities[i], found.labels[i]
        return max(
            (p if p > 0.5 else 1 - p for p, there in zip(row, labels, strict=True) if (p > 0.5) != there), default=0
        )

    order = sorted((i for i in range(50) if worst(i)), key=lambda i: -worst(i))
    assert [each.source for each in found.mistakes] == [f"{i}.png" for i in order]
    for i, answer in enumerate(found.predictions):
        row, labels = dict(zip(NAMES, found.probabilities[i], strict=True)), set(np.array(NAMES)[found.labels[i]])
        assert answer.label == ";".join(sorted(labels))
        said = {name for name, p in row.items() if p > 0.5}
        assert answer.predicted == ";".join(sorted(said))
        assert answer.added == {name: row[name] for name in said - labels}
        assert answer.missed == {name: row[name] for name in labels - said}
    figure = found.plot_mistakes(4)
    titles = [ax.get_title() for ax in figure.axes]
    assert len(titles) == 4 and all(f"{100 * worst(i):.0f}" for i in order)
    first = found.mistakes[0]
    name, p = next(iter((first.added or first.missed).items()))
    assert f"{'not' if first.added else 'is'} {name} {p:.2f}" in titles[0]
    plt.close("all")


def test_calibration_pools_all_answers():
    found = made()
    bins = [[] for _ in range(15)]
    for p, there in zip(found.probabilities.ravel(), found.labels.ravel(), strict=True):
        bins[min(int(np.ceil(15 * p)) - 1, 14)].append((p, there))
    error = sum(len(each) * abs(np.mean(each, 0)[0] - np.mean(each, 0)[1]) for each in bins if each) / 150
    assert found.calibration.counts.tolist() == list(map(len, bins))
    assert found.calibration.error == pytest.approx(error)


def test_the_temperature_is_the_one_scipy_finds():
    rng = np.random.default_rng(2)
    z = rng.normal(0, 2, (800, 3))
    labels = (rng.random(z.shape) < expit(z)).astype(np.float32)

    def loss(log_t: float) -> float:
        scaled = 3 * z / np.exp(log_t)
        return float((np.logaddexp(0, scaled) - labels * scaled).mean())

    theirs = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x)
    assert fitted_sigmoid_temperature(3 * z, labels) == pytest.approx(theirs, rel=1e-5)
    assert theirs == pytest.approx(3, rel=0.15)


def test_thresholds_that_cannot_be():
    with pytest.raises(UsageError, match=r"a probability from 0 to 1, got 1\.5"):
        made().at(1.5)
    with pytest.raises(UsageError, match="thresholds of pink: the labels are blue, green, red"):
        made().at({"pink": 0.5})


def draw(folder: Path, n: int, rng: np.random.Generator) -> None:
    """Noisy images, each a mixture of some of two colours or of none; label files with a delimiter and with columns."""
    folder.mkdir()
    cells, columns = ["path,labels"], ["path,blue,red"]
    for i in range(n):
        there = [i % 2, i // 2 % 2]
        pixels = rng.normal(80, 60, (12, 12, 3)) + 14 * np.array([there[1], 0, there[0]])
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        cells.append(
            f"{i}.png,{' '.join(name for name, is_there in zip(('blue', 'red'), there, strict=True) if is_there)}"
        )
        columns.append(f"{i}.png,{there[0]},{there[1]}")
    (folder / "labels.csv").write_text("\n".join(cells))
    (folder / "columns.csv").write_text("\n".join(columns))


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    draw(folder / "photos", 80, rng)
    draw(folder / "test", 40, rng)
    settings = Settings(str(folder / "photos" / "labels.csv"), label_delim=" ", size=0, epochs=2, bs=16, workers=1)
    train(settings, out=folder / "run")
    return folder


@pytest.fixture
def run(work, monkeypatch) -> Run:
    monkeypatch.chdir(work)
    return load_run("run")


@pytest.mark.parametrize(
    ("file", "columns"),
    [("labels.csv", {}), ("columns.csv", {"label_col": ["blue", "red"]}), ("labels.csv", {"label_col": "labels"})],
)
def test_a_run_is_compared_with_a_label_file(run, file, columns):
    found = run.evaluate(f"test/{file}", **columns)
    assert isinstance(found, LabelsEvaluation)
    assert found.labels.tolist() == [[bool(i % 2), bool(i // 2 % 2)] for i in range(40)]
    said = run.predict([f"test/{i}.png" for i in range(40)])
    assert [answer.predicted for answer in found.predictions] == [";".join(sorted(each.labels)) for each in said]
    for row, each in zip(found.probabilities, said, strict=True):
        np.testing.assert_array_equal(row, [each.probabilities[name] for name in run.vocab])
    assert 0 < len(found.mistakes) < 40


def test_its_temperature_is_of_the_validation_images(run):
    assert run.temperature and run.temperature != 1
    found = run.evaluate("test/labels.csv")
    expected = expit(np.log(found.probabilities / (1 - found.probabilities)) / run.temperature)
    np.testing.assert_allclose(found.scaled, expected, rtol=1e-3)
    (hot,) = run.predict("test/3.png", calibrated=True)
    np.testing.assert_allclose([hot.probabilities[name] for name in run.vocab], expected[3], rtol=1e-3)


def test_the_command_writes_a_column_a_label_and_a_page(chromium, work, run, tmp_path):
    options = ["--threshold", "0.4", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "pellucid", "evaluate", "run", "test/labels.csv", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=work)
    assert done.returncode == 0, done.stderr
    found = run.evaluate("test/labels.csv", threshold=0.4)
    assert (
        done.stdout.startswith(str(found)) and "images that were given all of their labels and no other" in done.stdout
    )
    files = ["evaluation.json", "index.html", "predictions.csv", "reliability.png"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == files
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[3].keys() == {"path", "label", "predicted", "blue", "red"} and rows[3]["label"] == "blue;red"
    values = [[float(row["blue"]), float(row["red"])] for row in rows]
    np.testing.assert_allclose(values, found.probabilities, rtol=1e-5)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["hamming_loss"] == found.hamming_loss and written["thresholds"] == [0.4, 0.4]
    assert written["per_class"][0]["average_precision"] == found.per_class[0].average_precision
    tab = Page(chromium, tmp_path / "out" / "index.html", viewport={"width": 400, "height": 900})
    assert f"{100 * found.accuracy:.1f}" in tab.page.locator(".headline").inner_text()
    assert tab.page.locator(".mistakes li").count() == len(found.mistakes)
    assert tab.page.locator("table.classes tbody tr").count() == 2 and tab.page.locator(".matrix").count() == 0
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
    tab.close(tmp_path / "out" / "index.html")


class Page(Tab):
    def settle(self) -> None:
        """It computes nothing."""


def test_wrong_sources_get_one_message_each(run, tmp_path):
    with pytest.raises(UsageError, match="any number of labels, which folders cannot say"):
        run.evaluate("test")
    rows = "path,labels\n0.png,blue pink\n"
    (tmp_path / "odd.csv").write_text(rows)
    with pytest.raises(DataError, match=r"1 label that the run does not know: 'pink' \(0\.png\); it knows blue, red"):
        run.evaluate(tmp_path / "odd.csv")
    with pytest.raises(DataError, match="knows 1 label that no column was named for: red"):
        run.evaluate("test/columns.csv", label_col=["blue"])
    settings = dict(run.settings, settings=dict(run.settings["settings"], label_delim=None))
    with pytest.raises(UsageError, match="say what divides them in a cell"):
        Run(run.folder, settings, run.model, run.pipeline).evaluate(tmp_path / "odd.csv")
