"""Commands on a trained run: predictions of many files, its pictures, and what is said beside its accuracy."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pellucid
from hanging import HUNG_S
from pellucid import cli
from pellucid.data.items import get_image_files
from pellucid.errors import DataError, UsageError
from pellucid.files import result_file
from pellucid.history.history import History
from pellucid.runs import Settings, load_history, load_run, train


def draw(file: Path, bright: bool, rng: np.random.Generator, side: int = 8) -> None:
    low = 128 if bright else 0
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(low, low + 127, (side, side), np.uint8)).save(file)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with photos of two brightnesses, and a run with statistics trained on them."""
    folder, rng = tmp_path_factory.mktemp("using"), np.random.default_rng(0)
    for n in range(240):
        draw(folder / "photos" / ("dark", "light")[n % 2] / f"{n:03}.png", bool(n % 2), rng)
    before = Path.cwd()
    os.chdir(folder)
    try:
        train(Settings("photos", size=0, epochs=2, lr=0.01, bs=16, stats=True), out="run")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch) -> Path:
    """A new working folder with a copy of six photos: two good ones of each class, one damaged, one of another size."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    for name, number in (("dark", "000"), ("light", "001"), ("dark", "002"), ("light", "003")):
        content = (trained / "photos" / name / f"{number}.png").read_bytes()
        (tmp_path / "some" / f"{number}-{name}.png").write_bytes(content)
    (tmp_path / "some" / "001-damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    draw(tmp_path / "some" / "002-large.png", True, np.random.default_rng(0), side=9)
    return tmp_path


def command(monkeypatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pellucid", *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_predict_reports_bad_images_and_goes_on(trained, here, monkeypatch, capsys):
    run = trained / "run"
    assert command(monkeypatch, "predict", run, "some", "missing.png", "some/000-dark.png") == 2
    output = capsys.readouterr()
    lines = [line.split(":")[0] for line in output.out.splitlines()]
    names = ["000-dark", "001-light", "002-dark", "003-light", "000-dark"]
    assert lines == [f"some/{name}.png" for name in names]
    assert all(re.search(r"/\d+-(\w+)\.png: \1 ", line) for line in output.out.splitlines())
    errors = output.err.splitlines()
    assert [re.search(r"(?:some/)?\S+\.png", line)[0] for line in errors[:-1]] == [
        "some/001-damaged.png",
        "some/002-large.png",
        "missing.png",
    ]
    assert "9×9" in errors[1] and "no such file" in errors[2]
    assert errors[-1] == "error: 3 of 8 images could not be classified"


def test_predict_gives_json_of_all_images(trained, here, monkeypatch, capsys):
    assert command(monkeypatch, "predict", trained / "run", "some", "--json") == 2
    answers = json.loads(capsys.readouterr().out)
    assert [answer["source"] for answer in answers] == sorted(str(file) for file in Path("some").iterdir())
    kinds = ["label" if "label" in answer else "error" for answer in answers]
    assert kinds == ["label", "error", "label", "label", "error", "label"]
    assert command(monkeypatch, "predict", trained / "run", "some/000-dark.png", "--json") == 0


def test_a_folder_without_images_is_named(trained, here, monkeypatch, capsys):
    Path("empty").mkdir()
    assert command(monkeypatch, "predict", trained / "run", "some/000-dark.png", "empty") == 2
    assert "empty: " in capsys.readouterr().err


def test_a_batch_with_bad_images_gives_what_each_image_gives_alone(trained, here):
    run, rng = load_run(trained / "run"), np.random.default_rng(1)
    good = sorted((trained / "photos").rglob("*.png"))
    images = list(good[:150])
    for position in rng.choice(150, 20, replace=False):
        images[position] = here / "some" / ("001-damaged.png", "002-large.png", "none.png")[position % 3]
    answers = list(run.answers(images))
    assert len(answers) == 150
    for image, answer in zip(images, answers, strict=True):
        assert isinstance(answer, DataError) == (image not in good)
        assert str(image) in str(answer)
    alone = [run.predict([image])[0].probabilities["dark"] for image in images if image in good]
    together = [answer.probabilities["dark"] for answer in answers if not isinstance(answer, DataError)]
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone))
    with pytest.raises(DataError):
        run.predict(images)


def test_one_image_or_a_folder_counts_as_a_list(trained):
    """As in `dls.test_dl`, in the same words."""
    run, folder = load_run(trained / "run"), trained / "photos"
    file = next(folder.rglob("*.png"))
    (expected,) = run.predict([file])
    with Image.open(file) as image:
        for single in (str(file), file, image, file.read_bytes()):
            assert run.predict(single)[0].probabilities == expected.probabilities
            assert torch.equal(run.batch(single), run.batch([file]))
    assert [each.source for each in run.predict(folder)] == [str(path) for path in get_image_files(folder)]
    with pytest.raises(UsageError, match="array, which may be one image or several"):
        run.predict(np.zeros((16, 16), np.uint8))
    with pytest.raises(UsageError, match="a run takes a list of paths, Pillow images or arrays, got a int"):
        run.predict(5)
    assert run.predict([]) == [] and len(run.predict((file,))) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["train", ""], ["train", "photos", "--out", ""], ["train", "photos", "--out="], ["predict", "run", ""],
        ["predict", "", "a.png"], ["summary", ""], ["show", "run", "--out", ""],
        ["explain", "run", "a.png", "--xlsx", ""], ["experiment", "norms", "--out", ""],
        ["train", "photos", "--device", ""],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_empty_argument_is_not_the_current_folder(trained, monkeypatch, capsys, words):
    monkeypatch.chdir(trained)
    before = set(trained.iterdir())
    assert command(monkeypatch, *words) == 2
    assert "is empty; give it, or leave it out" in capsys.readouterr().err
    assert set(trained.iterdir()) == before


@pytest.mark.parametrize(
    "words", ["summary run", "predict run photos", "show run --out -"], ids=lambda words: words.split()[0]
)
def test_a_full_disk_behind_standard_output_is_reported(trained, words):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "pellucid", *words.split()]
        done = subprocess.run(command, cwd=trained, stdout=full, stderr=subprocess.PIPE, check=False, timeout=HUNG_S)
    assert done.returncode == 1
    assert done.stderr == b"error: standard output cannot be written (No space left on device)\n"


@pytest.mark.parametrize("seed", [-1, 2**64, 10**20, 1.5, "1"])
def test_a_seed_that_torch_does_not_take_is_refused(trained, seed):
    with pytest.raises(UsageError, match="a seed must"):
        pellucid.set_seed(seed)
    if isinstance(seed, int):
        with pytest.raises(UsageError, match="a seed must"):
            train(Settings(str(trained / "photos"), seed=seed), out=trained / "unused")
        assert not (trained / "unused").exists()


def test_an_empty_path_of_a_function_is_refused(trained, monkeypatch):
    monkeypatch.chdir(trained)
    for source, out in (("", None), ("photos", "")):
        with pytest.raises(UsageError, match="is empty"):
            train(Settings(source, epochs=1, size=0), out)
    with pytest.raises(UsageError, match="name a file"), result_file(""):
        pass
    assert not (trained / "run.json").exists() and not (trained / "runs").exists()


@pytest.mark.parametrize("option", ["--lr=-1", "--lr=0", "--lr=nan", "--lr=inf", "--valid-pct=0", "--valid-pct=1.5"])
def test_numbers_that_cannot_train_are_refused(trained, here, monkeypatch, capsys, option):
    assert command(monkeypatch, "train", trained / "photos", option) == 2
    name = option.split("=")[0].removeprefix("--").replace("-", "_")
    assert capsys.readouterr().err.startswith(f"error: {name} must be ")
    assert not Path("runs").exists()


@pytest.mark.parametrize("option", ["bs", "size", "epochs", "workers"])
def test_counts_below_their_least_are_refused(trained, here, option):
    with pytest.raises(UsageError, match=f"^{option} must be at least"):
        train(Settings(str(trained / "photos"), **{option: -1}))


@pytest.mark.parametrize(
    ("side", "size", "trained_at", "said"),
    [
        (40, None, 40, "half of the images have no more than 40 pixels: all are brought to 40"),
        (12, None, 32, "half of the images have no more than 12 pixels: all are enlarged to 32"),
        (200, None, 128, ""),
        (16, 64, 64, "half of the images have no more than 16 pixels: --size 64 enlarges them, for 16 times the work"),
        (64, 32, 32, ""),
        (16, 0, 16, ""),
    ],
)
def test_images_are_enlarged_only_with_a_word(tmp_path, monkeypatch, capsys, side, size, trained_at, said):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for n in range(12):
        draw(tmp_path / "photos" / "ab"[n % 2] / f"{n}.png", bool(n % 2), rng, side)
    run = train(Settings("photos", arch="simple_cnn", size=size, epochs=1), out="run")
    assert run.settings["input_shape"] == [3, trained_at, trained_at]
    output = capsys.readouterr().out
    assert (said in output) if said else ("half of the images" not in output)


def test_the_side_is_read_from_the_files_of_a_csv(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for n in range(20):
        draw(tmp_path / f"{n}.png", bool(n % 2), rng, 36)
    Path("labels.csv").write_text("\n".join(["file,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(20))]))
    run = train(Settings("labels.csv", arch="simple_cnn", epochs=1), out="run")
    assert run.settings["input_shape"] == [3, 36, 36] and "brought to 36" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("right", "n", "share", "said"),
    [
        (0.50, 240, 0.54, "nothing was learnt"),
        (0.54, 240, 0.54, "nothing was learnt"),
        (0.58, 240, 0.54, "that may be chance: among 240 images, differences up to 0.0643 say nothing"),
        (0.58, 24_000, 0.54, ""),
        (0.99, 240, 0.54, ""),
    ],
)
def test_the_accuracy_stands_beside_the_share_of_the_largest_class(right, n, share, said):
    from pellucid.cli.training import _verdict
    from pellucid.runs import Run

    settings = {"results": [{"accuracy": right}], "n_valid": n, "majority": ["cat", share]}
    first, *rest = _verdict(Run(Path("run"), settings, torch.nn.Identity())).splitlines()
    assert first == f"accuracy {right:.4f} on {n:,} validation images; always answering 'cat' gives {share:.4f}"
    assert rest[0].startswith(said) if said else not rest


def test_the_share_is_that_of_the_validation_images(trained):
    run = load_run(trained / "run").settings
    name, share = run["majority"]
    assert name in ("dark", "light") and round(share * run["n_valid"]) == pytest.approx(share * run["n_valid"])
    assert 0.5 <= share <= 0.7


def test_the_default_picture_fits_a_screen_and_says_what_it_is(trained, here, monkeypatch, capsys):
    from matplotlib.figure import Figure

    titles, suptitle = [], Figure.suptitle
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **o: titles.append(text) or suptitle(self, text, **o))
    assert command(monkeypatch, "show", trained / "run") == 0
    with Image.open("picture.png") as image:
        assert image.width <= 1200 and image.height <= 2000
    assert re.fullmatch(r"run, small_resnet on photos, 2 epochs, valid loss \d\.\d{4}, accuracy \d\.\d{4}", titles[-1])


@pytest.mark.parametrize("kind", ["sheet", "loss", "dead", "gradients", "kernels"])
def test_every_picture_has_the_size_asked_for(trained, here, monkeypatch, kind):
    args = ("show", trained / "run", "--picture", kind, "--size", "640x480", "--out", f"{kind}.png")
    assert command(monkeypatch, *args) == 0
    with Image.open(f"{kind}.png") as image:
        assert image.size == (640, 480)


@pytest.mark.parametrize("size", ["640", "640x", "0x480", "640x-1", "1e3x480", "640x480x3", "99999999x10", "٣x٣"])
def test_sizes_that_cannot_be_are_refused(trained, here, monkeypatch, capsys, size):
    assert command(monkeypatch, "show", trained / "run", "--size", size) == 2
    assert "such as 1200x800" in capsys.readouterr().err and not list(Path().glob("*.png"))


def without_statistics(run: Path, folder: Path) -> None:
    """A copy of a run as it would be if it had been trained without --stats."""
    shutil.copytree(run, folder)
    curves = History().with_curves(load_history(run))
    assert curves.loss is not None and curves.epochs and not curves.layers
    curves.save(folder)


def test_the_loss_of_a_run_without_statistics_and_of_one_still_going(trained, here, monkeypatch, capsys):
    without_statistics(trained / "run", Path("plain"))
    assert command(monkeypatch, "show", "plain", "--layer", "0") == 2
    assert "--picture loss" in capsys.readouterr().err
    assert command(monkeypatch, "show", "plain", "--picture", "loss", "--out", "plain.svg") == 0
    Path("going").mkdir()
    shutil.copy(trained / "run" / "history.safetensors", "going")
    assert command(monkeypatch, "show", "going", "--picture", "loss", "--out", "going.svg") == 0
    assert "going, not finished" in Path("going.svg").read_text() or Path("going.svg").stat().st_size > 5_000


@pytest.mark.parametrize("out", ["picture.gif", "picture", ".png", "a/b.txt"])
def test_a_name_of_no_picture_is_refused(trained, here, monkeypatch, capsys, out):
    assert command(monkeypatch, "show", trained / "run", "--out", out) == 2
    assert "a picture needs the ending" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args", [("show",), ("explain", "some/000-dark.png"), ("explain", "some/000-dark.png", "page")]
)
def test_results_that_cannot_be_written_are_reported(trained, here, monkeypatch, capsys, args):
    Path("file").touch()
    ending = "html" if args[-1] == "page" else "png"
    rest = [arg for arg in args[1:] if arg != "page"]
    assert command(monkeypatch, args[0], trained / "run", *rest, "--out", f"file/picture.{ending}") == 2
    assert f"file/picture.{ending}: cannot be written (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--picture", "loss", "--layer", "0"], "--layer is for --picture stats or colors or hist, not for loss"),
        (["--picture", "kernels", "--layer", "foo"], "--layer is for"),
        (["--picture", "loss", "--step", "3"], "--step is for --picture kernels or hist, not for loss"),
        (["--step", "3"], "--step is for --picture kernels or hist, not for sheet"),
        (["--picture", "kernels", "--step", "9999"], "step 9999 was not recorded"),
    ],
)
def test_show_ignores_no_option(trained, here, monkeypatch, capsys, args, message):
    assert command(monkeypatch, "show", trained / "run", *args) == 2
    assert message in capsys.readouterr().err and not list(Path().glob("picture*"))


def test_show_fits_what_there_is(trained, here, monkeypatch, capsys):
    without_statistics(trained / "run", Path("plain"))
    assert command(monkeypatch, "show", "plain", "--out", "plain.png") == 0
    assert command(monkeypatch, "show", trained / "run", "--picture", "loss", "--out", "loss.png") == 0
    with Image.open("plain.png") as a, Image.open("loss.png") as b:
        assert a.size == b.size  # the loss, where no statistics were recorded
        edge = np.concatenate([np.asarray(a)[:, :2, :3].ravel(), np.asarray(a)[:, -2:, :3].ravel()])
    assert (edge == 255).all()  # the title is not cut by the sides
    capsys.readouterr()
    Path("empty").mkdir()
    assert command(monkeypatch, "show", "empty") == 2
    assert "empty: is no run folder" in capsys.readouterr().err


def test_pictures_and_pages_follow_the_umask(trained, here, monkeypatch):
    before = os.umask(0o027)
    try:
        command(monkeypatch, "show", trained / "run", "--out", "a.png")
        command(monkeypatch, "explain", trained / "run", "some/000-dark.png", "--out", "b.html", "--xlsx", "c.xlsx")
    finally:
        os.umask(before)
    assert [Path(name).stat().st_mode & 0o777 for name in ("a.png", "b.html", "c.xlsx")] == [0o640] * 3


def test_a_picture_down_a_pipe_and_on_a_terminal(trained, here):
    show = [sys.executable, "-m", "pellucid", "show", str(trained / "run"), "--picture", "loss", "--out", "-"]
    done = subprocess.run(show, capture_output=True, check=True)
    Path("piped.png").write_bytes(done.stdout)
    with Image.open("piped.png") as image:
        image.verify()
    master, slave = pty.openpty()
    process = subprocess.Popen(show, stdout=slave, stderr=subprocess.PIPE, env=os.environ | {"COLUMNS": "60"})
    os.close(slave)
    output = b""
    while True:
        try:
            output += os.read(master, 65_536)
        except OSError:  # the other end was closed
            break
    os.close(master)
    assert process.communicate()[1] == b"" and process.returncode == 0
    lines = output.decode().splitlines()
    assert {line.count("▀") for line in lines} == {60} and 10 < len(lines) < 40
    assert all(line.endswith("\x1b[0m") for line in lines) and not list(Path().glob("picture*"))


def test_version_and_completion_come_at_once():
    code = (
        "import sys; sys.argv = ['pellucid', *sys.argv[1:]]\nimport pellucid.cli as c\n"
        "try: c.main()\nexcept SystemExit: pass\nassert not {'torch', 'numpy', 'matplotlib'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pellucid {pellucid.__version__}\n"


def test_completion_in_bash(tmp_path):
    """What bash shows after tab, by the script that `--show-completion bash` prints."""
    script = f"""
mkdir bin
printf '#!/bin/sh\\nexec "{sys.executable}" launch.py "$@"' > bin/pellucid
printf 'import sys\\nfrom pellucid.cli import main\\nsys.argv[0] = "pellucid"\\nmain()' > launch.py
chmod +x bin/pellucid
PATH="$PWD/bin:$PATH"
eval "$(_PELLUCID_COMPLETE=source_bash pellucid)"
tab() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _pellucid_completion pellucid; echo "${{COMPREPLY[@]}}"
}}
tab pellucid tr
tab pellucid train --arch s
tab pellucid show run --picture k
"""
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["train", "simple_cnn small_resnet", "kernels"], done.stderr
