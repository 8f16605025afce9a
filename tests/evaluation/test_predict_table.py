"""`pellucid predict --csv` and `--calibrated`."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

from commands import pellucid
from pellucid.runs import Settings, load_run, train


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Photos of two brightnesses, hard to tell, and a run trained on them."""
    folder, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    for n in range(80):
        file = folder / "photos" / ("dark", "light")[n % 2] / f'{n}, "{n}".png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.normal(100 + 40 * (n % 2), 60, (12, 12)).clip(0, 255).astype(np.uint8)).save(file)
    train(Settings(str(folder / "photos"), size=0, epochs=2, lr=0.003, bs=16), out=folder / "run")
    return folder


def predict(work: Path, *args: object) -> CompletedProcess[str]:
    return pellucid("predict", "run", *args, cwd=work)


def test_a_table_of_a_folder(work):
    done = predict(work, "photos/dark", "--csv", "new/out.csv")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "new/out.csv\n")
    with (work / "new" / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    listed = json.loads(predict(work, "photos/dark", "--json").stdout)
    assert rows[0].keys() == {"source", "label", "dark", "light"}
    assert [(row["source"], row["label"]) for row in rows] == [(each["source"], each["label"]) for each in listed]
    for row, each in zip(rows, listed, strict=True):
        assert float(row["dark"]) == pytest.approx(each["probabilities"]["dark"], rel=1e-5)
        assert float(row["light"]) == pytest.approx(each["probabilities"]["light"], rel=1e-5)


def test_a_bad_image_has_its_error_in_the_table(work):
    (work / "bad.png").write_bytes(b"no image")
    good = next((work / "photos" / "light").iterdir())
    done = predict(work, "bad.png", good, "--csv", "-")
    assert done.returncode == 2 and "1 of 2 images could not be classified" in done.stderr
    bad, other = csv.DictReader(StringIO(done.stdout))
    assert bad["source"] == "bad.png" and bad["label"] == bad["dark"] == "" and "bad.png" in bad["error"]
    assert other["source"] == str(good) and other["label"] in ("dark", "light") and other["error"] == ""


def test_calibrated_probabilities_are_those_of_the_run(work):
    file = next((work / "photos" / "light").iterdir())
    done = predict(work, file, "--calibrated", "--json")
    (expected,) = load_run(work / "run").predict(file, calibrated=True)
    assert json.loads(done.stdout)[0]["probabilities"] == pytest.approx(expected.probabilities)
    assert expected.probabilities != load_run(work / "run").predict(file)[0].probabilities


def test_two_forms_at_once_are_refused(work):
    done = predict(work, "photos", "--csv", "out.csv", "--json")
    assert done.returncode == 2 and "give one" in done.stderr and not (work / "out.csv").exists()
