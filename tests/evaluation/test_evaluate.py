"""`run.evaluate` and `pellucid evaluate` as users call them: folders, label files, wrong input, files, the page."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from browser import Tab
from commands import pellucid
from pellucid.errors import DataError, UsageError
from pellucid.evaluation.calibration import fitted_temperature
from pellucid.evaluation.evaluation import Evaluation
from pellucid.runs import Run, Settings, load_run, train

SCRIPT = "<script>alert('x')<script> & \"it\".png"


def draw(file: Path, light: float, rng: np.random.Generator) -> Path:
    """Noise around a brightness, from 0 (dark) to 1 (light)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((rng.normal(70 + 110 * light, 60, (12, 12)).clip(0, 255)).astype(np.uint8)).save(file)
    return file


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Photos of two brightnesses, hard to tell, with a test set, and a run trained on the others."""
    folder, rng = tmp_path_factory.mktemp("evaluate"), np.random.default_rng(0)
    for n in range(160):
        draw(
            folder / "photos" / ("train", "valid")[n % 8 > 5] / f"{('dark', 'light')[n % 2]}" / f"{n}.png",
            0.5 + (n % 2 - 0.5) * 0.3,
            rng,
        )
    for n in range(31):
        name = SCRIPT if n == 30 else f"{n}.png"
        draw(
            folder / "test" / ("dark", "light")[n % 2] / name, 1 - n % 2 if n == 30 else 0.5 + (n % 2 - 0.5) * 0.3, rng
        )
    before = Path.cwd()
    os.chdir(folder)
    try:
        train(Settings("photos", size=0, epochs=2, lr=0.003, bs=16), out="run")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def run(work, monkeypatch) -> Run:
    monkeypatch.chdir(work)
    return load_run("run")


def test_a_run_is_compared_with_the_folders_its_images_lie_in(run):
    found = run.evaluate("test")
    files = sorted(Path("test").glob("*/*.png"))
    said = run.predict(files)
    assert [answer.source for answer in found.predictions] == [str(file) for file in files]
    assert [(a.label, a.predicted) for a in found.predictions] == [
        (file.parent.name, each.label) for file, each in zip(files, said, strict=True)
    ]
    for row, each in zip(found.probabilities, said, strict=True):
        np.testing.assert_array_equal(row, [each.probabilities[name] for name in run.vocab])
    assert 0 < len(found.mistakes) < 31


def test_the_temperature_is_of_the_validation_images_and_changes_no_answer(run):
    valid = run.evaluate("photos")  # its `valid` folder
    assert valid.n == 40 and valid.source == "photos/valid" and valid.accuracy == pytest.approx(run.result["accuracy"])
    assert run.temperature == pytest.approx(fitted_temperature(np.log(valid.probabilities), valid.labels), rel=1e-4)
    files = sorted(Path("test").glob("*/*.png"))
    for plain, hot in zip(run.predict(files), run.predict(files, calibrated=True), strict=True):
        assert plain.label == hot.label
        values = np.array([plain.probabilities[name] for name in run.vocab])
        expected = softmax(np.log(values) / run.temperature)
        np.testing.assert_allclose([hot.probabilities[name] for name in run.vocab], expected, rtol=1e-4)
    found = run.evaluate("test")
    np.testing.assert_allclose(found.scaled, softmax(np.log(found.probabilities) / run.temperature, 1), rtol=1e-4)


def test_runs_of_before_have_no_temperature_and_still_open(run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree("run", old)
    settings = json.loads((old / "run.json").read_text())
    for temperature, problem in ((0, "cannot be 0"), ("1", "cannot be '1'")):
        (old / "run.json").write_text(json.dumps(settings | {"temperature": temperature}))
        with pytest.raises(UsageError, match=f"'temperature' {problem}"):
            load_run(old)
    del settings["temperature"]
    (old / "run.json").write_text(json.dumps(settings))
    opened = load_run(old)
    assert opened.temperature is None
    found = opened.evaluate("test")
    assert found.scaled is None and found.scaled_calibration is None and "temperature" not in str(found)
    with pytest.raises(UsageError, match="this run has no temperature to calibrate with"):
        opened.predict(["test/dark/0.png"], calibrated=True)


def test_label_files(run, tmp_path):
    rows = [(f"{n}", ("dark", "light")[n % 2]) for n in range(6)]
    for n, (_, label) in enumerate(rows):
        shutil.copy(f"test/{label}/{n}.png", tmp_path / f"{n}.png")
    (tmp_path / "labels.tsv").write_text("id\tother\tkind\n" + "".join(f"{n}\tx\t{label}\n" for n, label in rows))
    found = run.evaluate(tmp_path / "labels.tsv", label_col="kind", suff=".png")
    assert [(Path(a.source).name, a.label) for a in found.predictions] == [(f"{n}.png", label) for n, label in rows]


def test_wrong_sources_get_one_message_each(run, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found in it"):
        run.evaluate(tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder"):
        run.evaluate(tmp_path / "missing")
    for name in ("Dark", "ligth", "zebra"):
        draw(tmp_path / "odd" / name / "1.png", 0.5, rng)
    draw(tmp_path / "odd" / "dark" / "2.png", 0.5, rng)
    with pytest.raises(DataError) as error:
        run.evaluate(tmp_path / "odd")
    told = str(error.value)
    assert "3 classes that the run does not know" in told and "it knows dark, light" in told
    assert "'Dark' (1.png; there is 'dark', which differs in capital letters)" in told
    assert "'ligth' (1.png; is 'light' meant?)" in told and "'zebra' (1.png)" in told
    draw(tmp_path / "flat" / "1.png", 0.5, rng)
    with pytest.raises(DataError, match="each image lies in a folder named like its class"):
        run.evaluate(tmp_path / "flat")


def test_damaged_images_are_reported_or_left_out_and_named(run, tmp_path):
    shutil.copytree("test", tmp_path / "test")
    (tmp_path / "test" / "dark" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match=r"1 image of 32 cannot be classified: .*broken\.png.*--on-error skip"):
        run.evaluate(tmp_path / "test")
    found = run.evaluate(tmp_path / "test", on_error="skip")
    assert found.n == 31 and [Path(name).name for name in found.failed] == ["broken.png"]
    assert "1 image left out" in str(found) and "broken.png" in str(found)
    with found.to_csv(tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32 and "broken.png" in rows[-1]["error"] and rows[-1]["predicted"] == ""
    assert found.to_json()["failed"].keys() == found.failed.keys()


def test_mistakes_are_shown(run):
    found = run.evaluate("test")
    figure = found.plot_mistakes(4, suptitle="wrong")
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [
        f"{each.predicted} {each.probability:.2f}\nis {each.label} {each.of_label:.2f}" for each in found.mistakes[:4]
    ]
    with Image.open(found.mistakes[0].source) as image:
        np.testing.assert_allclose(figure.axes[0].images[0].get_array() * 255, np.asarray(image.convert("RGB")))
    plt.close("all")
    perfect = Evaluation("t", ["a", "b"], ["t/1.png"], np.array([0]), np.array([[0.8, 0.2]]))
    with pytest.raises(DataError, match="t: there is no mistake to show: of 1 image all were told rightly"):
        perfect.plot_mistakes()


def write_idx(file: Path, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    file.write_bytes(head + values.astype(np.uint8).tobytes())


def test_idx_files_are_evaluated_on_their_test_side(chromium, tmp_path, monkeypatch):
    rng, folder = np.random.default_rng(0), tmp_path / "digits"
    folder.mkdir()
    for part, n in (("train", 60), ("t10k", 24)):
        labels = np.arange(n) % 2 + 3
        images = (rng.normal(100, 60, (n, 12, 12)) + 40 * (labels[:, None, None] - 3)).clip(0, 255).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    monkeypatch.chdir(tmp_path)
    train(Settings("digits", epochs=2, lr=0.003, bs=16), out="run")
    run = load_run("run")
    found = run.evaluate("digits")
    assert found.accuracy == pytest.approx(run.result["accuracy"]) and found.labels.tolist() == [
        i % 2 for i in range(24)
    ]
    assert found.sources[3] == "digits/t10k-images-idx3-ubyte[3]"
    said = run.predict(list(images))
    assert [answer.predicted for answer in found.predictions] == [each.label for each in said]
    place = int(found.wrong[0])
    np.testing.assert_array_equal(np.asarray(found.picture(place)), images[place])
    file = found.to_html(tmp_path / "page.html")
    tab = Page(chromium, file)
    assert tab.page.locator(".mistakes img").count() == len(found.mistakes)
    tab.close(file)
    (folder / "train-images-idx3-ubyte").unlink()  # not needed
    assert run.evaluate("digits").n == 24
    write_idx(folder / "t10k-labels-idx1-ubyte", np.arange(24) % 2 + 8)
    with pytest.raises(DataError, match=r"2 classes that the run does not know: '8' \(image 0\), '9' \(image 1\)"):
        run.evaluate("digits")


def test_the_command_prints_a_report_and_writes_its_files(run, tmp_path):
    done = pellucid("evaluate", "run", "test", "--out", tmp_path / "new" / "folder")
    assert done.returncode == 0, done.stderr
    found = run.evaluate("test")
    assert done.stdout.startswith(str(found))
    folder = tmp_path / "new" / "folder"
    files = ["confusion.png", "evaluation.json", "index.html", "predictions.csv", "reliability.png"]
    assert sorted(file.name for file in folder.iterdir()) == files
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() == {"path", "label", "predicted", "dark", "light"}
    assert [row["path"] for row in rows] == list(found.sources)
    values = [[float(row["dark"]), float(row["light"])] for row in rows]
    np.testing.assert_allclose(values, found.probabilities, rtol=1e-5)
    written = json.loads((folder / "evaluation.json").read_text())
    assert written["accuracy"] == found.accuracy and written["confusion"] == found.confusion.tolist()
    assert written["calibration"]["error"] == found.calibration.error
    for name in ("confusion.png", "reliability.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300


def test_json_is_what_the_file_holds_and_the_folder_is_in_the_run(run):
    done = pellucid("evaluate", "run", "test", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(Path("run/evaluation-test/evaluation.json").read_text())


class Page(Tab):
    def settle(self) -> None:
        """It computes nothing."""


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_shows_mistakes_and_numbers(chromium, run, tmp_path, width):
    found = run.evaluate("test")
    file = found.to_html(tmp_path / "page.html")
    tab = Page(chromium, file, viewport={"width": width, "height": 900}, color_scheme="dark")
    assert f"{100 * found.accuracy:.1f}" in tab.page.locator(".headline").inner_text()
    shown = tab.page.locator(".mistakes li")
    assert shown.count() == len(found.mistakes)
    names = [name.split("/")[-1] for name in shown.locator(".path").all_inner_texts()]
    assert names == [Path(each.source).name for each in found.mistakes]
    assert any("alert('x')" in name for name in names)  # as text: a dialog would be a complaint of the page
    assert tab.page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    cells = [int(text or 0) for text in tab.page.locator(".matrix td").all_inner_texts()]
    assert cells == found.confusion.flatten().tolist()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    tab.close(file)


def test_the_page_of_forty_classes_and_a_perfect_score(chromium, tmp_path):
    names = [f"class number {i} <b>" for i in range(40)]
    labels = np.arange(80) % 40
    probabilities = softmax(9 * np.eye(40)[labels], 1)
    perfect = Evaluation("test", names, [f"{i}.png" for i in range(80)], labels, probabilities)
    assert perfect.mistakes == [] and perfect.most_confused == [] and "no mistakes" in str(perfect)
    file = perfect.to_html(tmp_path / "perfect.html")
    tab = Page(chromium, file, viewport={"width": 400, "height": 900})
    assert tab.page.locator("h2", has_text="No mistakes").count() == 1
    assert tab.page.locator(".matrix td").count() == 1600
    assert tab.page.locator(".matrix tbody th").first.inner_text() == names[0]
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
    tab.close(file)


def test_images_that_are_gone_leave_a_place(chromium, tmp_path):
    found = Evaluation("t", ["a", "b"], ["t/gone.png"], np.array([0]), np.array([[0.2, 0.8]]))
    file = found.to_html(tmp_path / "page.html")
    tab = Page(chromium, file)
    assert tab.page.locator(".mistakes .gone").count() == 1
    tab.close(file)
