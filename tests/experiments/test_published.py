"""The results in the repository, and the page that tells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pellucid.experiments import EXPERIMENTS, Results
from pellucid.experiments.results import read_cells

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "experiments"
PAGE = ROOT / "docs" / "experiments.md"
TOLD = {
    "norms": [
        *(
            (f"{norm}, rate {lr}", f"batch, rate {lr}")
            for lr in ("0.06", "0.01")
            for norm in ("group", "layer", "none")
        ),
        *((f"{norm}, rate 0.06", "batch, rate 0.06") for norm in ("instance", "batch, outputs too")),
        *((f"{norm}, rate 0.01", "batch, rate 0.01") for norm in ("instance", "batch, outputs too")),
        ("none, rate 0.06", "none, rate 0.01"),
        ("instance, rate 0.06", "none, rate 0.06"),
    ],
    "order": [(f"batchnorm first, rate {lr}", f"ReLU first, rate {lr}") for lr in ("0.06", "0.01")],
    "pooling": [("average pooling", "max pooling")],
    "kernel": [],
    "batch-size": [
        *((f"64, rate {lr}", f"512, rate {lr}") for lr in ("0.003", "0.01", "0.03", "0.1")),
        ("64, rate 0.03", "512, rate 0.1"),
    ],
    "colour": [("HSV from magenta", "HSV")],
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_tables_and_page_follow_from_the_values(name, tmp_path):
    experiment, folder = EXPERIMENTS[name], RESULTS / name
    cells = read_cells(folder / "values.csv")
    n = 1 + max(cell.seed for cell in cells)
    assert n >= 5 and {(c.variant, c.seed) for c in cells} == {(v, s) for v in experiment.variants for s in range(n)}
    baseline = experiment.baseline or next(iter(experiment.variants))
    results = Results(name, experiment.question, cells, baseline, experiment.settings, also=experiment.also)
    results.save(tmp_path)
    for file in ("table.csv", "table.md"):
        assert (tmp_path / file).read_text() == (folder / file).read_text()
    assert (folder / "picture.png").is_file()
    page = PAGE.read_text()
    assert results.to_markdown() in page and f"results/experiments/{name}/picture.png" in page
    prose = " ".join(page.split())
    for pair in TOLD[name]:
        found = results.compare(*pair)
        text = "{} ({} to {})".format(*(signed(value) for value in (found.mean, found.low, found.high)))
        assert text in prose, f"{' − '.join(pair)}: {text}"


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−").replace("+0.00", "0.00").replace("−0.00", "0.00")
