"""Processes whose output is not a UTF-8 terminal, goes away, is full or never was; names no terminal can show."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from hanging import HUNG_S
from pellucid import cli
from pellucid.data.home import home
from pellucid.data.loader import DataLoaders
from pellucid.errors import UsageError
from pellucid.output import complain, is_terminal, say
from pellucid.runs import Settings, load_run, train
from pellucid.training.learner import Learner

CLASSES = "Käse", "日本\x1b[31m"
TRAIN = ("train", "photos", "--size", "0", "--epochs", "2", "--out", "run")


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Two classes whose names are not ASCII, one with a colour code; one file has a name that is no text."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for n in range(24):
        file = tmp_path / "photos" / CLASSES[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(file)
    file.rename(file.with_name(os.fsdecode(b"\xff.png")))
    return tmp_path


def pellucid(*args: object, cwd: Path, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose output goes where `shell` says."""
    words = [sys.executable, "-m", "pellucid", *map(str, args)]
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", *words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, check=False, timeout=HUNG_S, env=os.environ | environment
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp437"])
def test_an_encoding_without_our_signs(photos, encoding):
    done = pellucid(*TRAIN, cwd=photos, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "(3x8x8)" in text and "train_loss" in text and "\x1b" not in text
    always = text.split("always answering ")[1]
    assert always.startswith(("'K\\xe4se'" if encoding == "ascii" else "'Käse'", "'\\u65e5\\u672c\\x1b[31m'"))


def test_predictions_of_names_that_no_terminal_shows(photos, capsys, monkeypatch):
    train(Settings("photos", size=0, epochs=1), out="run")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["pellucid", "predict", "run", "photos", "missing\x07.png"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 24 and "\\udcff.png: " in output.out
    assert "\x1b" not in output.out + output.err and "\x07" not in output.err and "missing\\x07.png: no" in output.err


def test_no_standard_output_at_all(photos):
    done = pellucid(*TRAIN, cwd=photos, shell=">&- 2>&-")
    assert done.returncode == 0
    assert len(load_run(photos / "run").results) == 2


def test_standard_output_on_a_full_disk(photos):
    done = pellucid(*TRAIN, cwd=photos, shell="> /dev/full")
    assert done.returncode == 1
    assert done.stderr == b"error: standard output cannot be written (No space left on device)\n"
    assert len(load_run(photos / "run").results) == 2  # training went on


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["cache"]], ids=" ".join)
def test_whatever_is_printed_on_a_full_disk(words, tmp_path):
    done = pellucid(*words, cwd=tmp_path, shell="> /dev/full")
    assert done.returncode == 1
    assert done.stderr == b"error: standard output cannot be written (No space left on device)\n"


def test_a_reader_that_leaves(photos):
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m pellucid {' '.join(TRAIN)} | head -n 1"],
        cwd=photos, capture_output=True, text=True, check=False, timeout=HUNG_S,
    )  # fmt: skip
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1
    assert len(load_run(photos / "run").results) == 2


def test_a_terminal_that_closes(photos):
    """As when a connection breaks: the training goes on without its bar."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "pellucid", *TRAIN]
    environment = os.environ | {"TERM": "xterm", "PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    process = subprocess.Popen(command, cwd=photos, stdout=slave, stderr=subprocess.PIPE, env=environment)
    os.close(slave)
    output = b""
    while b"train_loss" not in output:
        output += os.read(master, 4096)
    os.close(master)
    _, stderr = process.communicate(timeout=HUNG_S)
    assert b"Traceback" not in stderr
    assert len(load_run(photos / "run").results) == 2


class OnlyWrites:
    """The least that code puts in place of a stream."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Fails(OnlyWrites):
    def write(self, text: str) -> None:
        raise OSError(28, "No space left on device")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [OnlyWrites, Fails, closed, lambda: None], ids=["bare", "full", "closed", "none"])
def test_a_fit_does_not_depend_on_the_streams(make, monkeypatch):
    x = torch.randn(64, 6)
    data = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 8)
    learn = Learner(DataLoaders(data, data), torch.nn.Linear(6, 2), F.cross_entropy)
    stream = make()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        learn.fit(2, 0.01)
        say("x")
        complain("x")
        assert not is_terminal(stream)
    assert len(learn.recorder.values) == 2
    if isinstance(stream, OnlyWrites) and not isinstance(stream, Fails):
        assert "train_loss" in stream.text


def test_a_metric_of_any_name_is_in_the_table(monkeypatch):
    from pellucid.training.callbacks.progress import NotebookDisplay

    display = NotebookDisplay()
    display.names, display.rows = ["<lambda>", "a & b"], [["<b>", "1"]]
    assert "<th>&lt;lambda&gt;</th><th>a &amp; b</th>" in display._table() and "&lt;b&gt;" in display._table()


def test_the_cache_folder_may_be_given_from_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PELLUCID_HOME", "~/x")
    assert home() == tmp_path / "x"


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="becomes a user without a home, as root can")
@pytest.mark.parametrize("given", ["", "~/x"])
def test_a_user_without_a_home_is_told_what_to_set(given, tmp_path):
    variables = {"PELLUCID_HOME": given} if given else {}
    code = (
        "import os, pwd\nfrom pellucid.data.home import home\nfrom pellucid.errors import UsageError\n"
        "os.setuid(54321)\n"
        "for name in ('HOME', 'XDG_CACHE_HOME', 'PELLUCID_HOME'): os.environ.pop(name, None)\n"
        f"os.environ.update({variables!r})\n"
        "try: home()\nexcept UsageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "set PELLUCID_HOME to a folder" in done.stdout and not list(tmp_path.iterdir())


def test_a_home_that_is_given_as_a_word_makes_no_folder_of_that_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_HOME", "~nobody-of-that-name/x")
    with pytest.raises(UsageError, match="PELLUCID_HOME"):
        home()


def test_json_output_is_plain_ascii(photos, capsys, monkeypatch):
    train(Settings("photos", size=0, epochs=1), out="run")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["pellucid", "predict", "run", "photos", "--json"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    output = capsys.readouterr().out
    assert output.isascii() and "\x1b" not in output
    assert {answer["label"] for answer in json.loads(output)} <= set(CLASSES)


def test_it_ends_without_taking_the_interpreter_apart_but_cleans_up_and_keeps_code_and_output(tmp_path):
    """What others have registered for the end still runs, threads are waited for, and a failure is still Python's."""
    (tmp_path / "launch.py").write_text(
        "import atexit, threading\n"
        "from pathlib import Path\n"
        "from pellucid import __main__ as entry\n"
        "class Alive:\n"
        "    def __del__(self): print('taken apart')\n"
        "entry.alive, main = Alive(), entry.main\n"
        "def busy():\n"
        "    atexit.register(lambda: print('cleaned up'))\n"
        "    threading.Timer(0.3, lambda: Path('thread').touch()).start()\n"
        "    main()\n"
        "entry.main = busy\n"
        "entry.process()\n"
    )
    run = lambda *words: subprocess.run(
        [sys.executable, "launch.py", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    version, wrong = run("--version"), run("train", "nowhere")
    assert (version.returncode, wrong.returncode) == (0, 2)
    assert version.stdout.startswith("pellucid ") and version.stdout.endswith("cleaned up\n")
    assert "nowhere" in wrong.stderr and wrong.stdout == "cleaned up\n"
    assert (tmp_path / "thread").exists()
