"""Scripts of others in real processes: they run as they would without the doctor, and what went wrong is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanging import HUNG_S
from pellucid.doctor.script import _nothing
from pellucid.history.history import History

TRAIN = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4))
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
x = torch.randn(256, 20)
y = (x[:, :4] + 0.1 * torch.randn(256, 4)).argmax(1)
for epoch in range(10):
    for i in torch.randperm(256).split(32):
        loss = nn.functional.cross_entropy(model(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
"""
SICK = TRAIN.replace("nn.Linear(32, 4))", "nn.Linear(32, 4), nn.Softmax(1))")


def run(*args: object, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, args)]
    options = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=HUNG_S, **options)


def doctor(*args: object, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return run("-m", "pellucid", "doctor", *args, cwd=cwd, **options)


def write(folder: Path, text: str, name: str = "train.py") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


SURROUNDINGS = """
import atexit, json, multiprocessing, os, sys, threading, time
import colorsys  # a file beside this one
def speak(): print("from a process", __name__ == "__mp_main__", sys.argv[1:], flush=True)
if __name__ == "__main__":
    g = globals()
    print(json.dumps([sys.argv, sys.path[0], colorsys.OURS, os.getcwd(), "torch" in sys.modules, sys.stdin.read()]))
    print([g[name] for name in ("__file__", "__name__", "__spec__", "__package__", "__cached__", "__doc__")])
    import __main__
    print(__main__.speak is speak, type(__builtins__).__name__)
    atexit.register(print, "at exit")
    child = multiprocessing.get_context("spawn").Process(target=speak)
    child.start(), child.join()
    sys.stdout.flush()
    if os.fork() == 0:
        print("forked")
        sys.exit(5)
    print("child exited with", os.waitstatus_to_exitcode(os.wait()[1]))
    threading.Thread(target=lambda: (time.sleep(0.2), print("late thread"))).start()
"""


def test_a_script_finds_what_it_finds_under_python(tmp_path):
    script = write(tmp_path, SURROUNDINGS + "    os.chdir('/')\n    sys.exit(0)\n", "sub/train.py")
    write(tmp_path, "OURS = True", "sub/colorsys.py")
    args = (script.relative_to(tmp_path), "--lr", "0.1", "", "--json")
    alone = run(*args, cwd=tmp_path, input="hello", stdin=None)
    assert alone.returncode == 0, alone.stderr
    watched = doctor(args[0], "--", *args[1:], cwd=tmp_path, input="hello", stdin=None)
    assert watched.stdout == alone.stdout
    assert watched.returncode == 2 and watched.stderr.startswith("error: train.py does not import torch")
    assert "late thread\nat exit" in watched.stdout


FAILS = """
class Wrong(Exception): pass
def deep():
    try:
        {}["a"]
    except KeyError as error:
        raise Wrong("no ä") from error
"""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (FAILS + "deep()", 1),
        ("x = (", 1),
        ("import sys; sys.exit('no data')", 1),
        ("import sys; sys.exit(7)", 7),
        ("input('name? ')", 1),
        ("import sys; sys.excepthook = lambda *a: print('hook', a[1], a[2].tb_lineno); 1/0", 1),
    ],
)
def test_a_script_fails_as_it_does_under_python(text, code, tmp_path):
    script = write(tmp_path, text)
    alone, watched = run(script, cwd=tmp_path), doctor(script, cwd=tmp_path)
    assert alone.returncode == code and watched.returncode == 1
    assert watched.stdout == alone.stdout and watched.stderr.startswith(alone.stderr)
    rest = watched.stderr.removeprefix(alone.stderr)
    assert rest == "error: train.py failed before it trained anything, so there is nothing to diagnose\n"


@pytest.mark.parametrize(
    ("layers", "batch", "why"),
    [
        (
            "nn.Linear(20, 32), nn.ReLU(), nn.Linear(16, 4)",
            "",
            "layer 2, Linear(in_features=16, out_features=4, bias=True), failed on float32 (32, 32): it takes "
            "16 features, and was given 32",
        ),
        (
            "nn.Unflatten(1, (2, 10)), nn.Conv1d(3, 4, 2), nn.Flatten(), nn.LazyLinear(4)",
            "",
            "failed on float32 (32, 2, 10): it takes 3 channels, and was given 2",
        ),
        (
            "nn.Linear(20, 4)",
            ".double()",
            "failed on float64 (32, 20): its weight is float32; convert the batch, for example with .to(torch.float32)",
        ),
    ],
)
def test_a_pass_that_fails_is_explained_after_the_traceback_of_python(layers, batch, why, tmp_path):
    """The lines of ours between those of torch are not shown; torch's own call of a module with hooks is."""
    made = TRAIN.split("model = nn.Sequential(")[1].split("\n")[0]
    text = TRAIN.replace(made, f"{layers})").replace("model(x[i])", f"model(x[i]{batch})")
    script = write(tmp_path, text)
    alone, watched = run(script, cwd=tmp_path), doctor(script, cwd=tmp_path)
    *_, message = alone.stderr.strip().splitlines()
    assert alone.returncode == watched.returncode == 1
    assert message in watched.stderr and "pellucid" not in watched.stderr
    assert watched.stderr.index(message) < watched.stderr.index(
        "error: train.py failed before it trained anything: layer "
    )
    assert why in watched.stderr


def test_a_healthy_script_ends_as_it_would_have_and_is_called_healthy(tmp_path):
    """Also with workers, another folder, a log in place of the output, and sys.exit."""
    more = """
import os, sys
from torch.utils.data import DataLoader, TensorDataset
list(DataLoader(TensorDataset(x), batch_size=64, num_workers=1))
os.makedirs("elsewhere"), os.chdir("elsewhere")
sys.stdout = open("log.txt", "w")
print("in the log")
torch.save(model.state_dict(), "weights.pt")
sys.exit(0)
"""
    write(tmp_path, TRAIN + more)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    alone = run("../train.py", cwd=tmp_path / "a")
    watched = doctor("../train.py", "--html", "report.html", "--json", cwd=tmp_path / "b")
    assert alone.returncode == 0, alone.stderr
    assert watched.returncode == 0, watched.stdout + watched.stderr
    first, _, rest = watched.stdout.partition("\n")
    assert first == str(tmp_path / "b" / "report.html") and (tmp_path / "b" / "report.html").exists()
    report = json.loads(rest)
    assert report["healthy"] and report["checked"][0].startswith("watched: 80 steps of Sequential (3 layers)")
    files = [(tmp_path / name / "elsewhere" / "weights.pt").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    assert (tmp_path / "b" / "elsewhere" / "log.txt").read_text() == "in the log\n"


def test_a_sick_script_is_named_with_its_line_and_what_was_tried(tmp_path):
    write(tmp_path, SICK + "print('loss', loss.item())\n")
    done = doctor("train.py", "--patch", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("loss ")
    assert any(line[2:].startswith("softmax-before-cross-entropy") for line in lines)
    assert any(line.startswith("  tried: ") for line in lines)
    assert (tmp_path / "train.py").read_text().startswith(SICK)
    assert "-model = " in done.stdout and "nn.Softmax" not in done.stdout.split("+model = ")[1].splitlines()[0]


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("model(x[i]), y[i])", "model(x[i]), y[i]).neg().log()", "loss-not-a-number"),
        ("nn.Linear(32, 4))", "nn.Linear(32, 3))", "output-does-not-match-classes"),
    ],
)
def test_a_script_that_fails_is_diagnosed_where_that_is_possible(old, new, name, tmp_path):
    assert old in TRAIN
    end = "\nassert loss.isfinite(), 'no number'\n"
    script = write(tmp_path, TRAIN.replace(old, new) + end)
    watched = doctor(script, "--json", cwd=tmp_path)
    assert watched.returncode == 1 and watched.stderr.startswith("Traceback (most recent call last):\n  File ")
    assert str(script) in watched.stderr.splitlines()[1] and "script.py" not in watched.stderr
    report = json.loads(watched.stdout)
    assert not report["healthy"] and report["findings"][0]["name"].startswith(name)


NOTHING = {
    "import torch; m = torch.nn.Linear(1, 1); m(torch.ones(1))": "backward() was never called",
}


@pytest.mark.parametrize("text", NOTHING)
def test_a_script_that_trains_nothing_is_told_so(text, tmp_path):
    done = doctor(write(tmp_path, text), cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert NOTHING[text] in done.stderr and len(done.stderr.splitlines()) == 1


def test_training_in_processes_that_the_script_starts_is_told_apart(monkeypatch):
    times = os.times()
    monkeypatch.setattr(os, "times", lambda: os.times_result((*times[:2], 60.0, *times[3:])))
    assert "processes that it started took 60 s" in _nothing("train.py", None)
    monkeypatch.setattr(os, "times", lambda: os.times_result((*times[:2], 0.1, *times[3:])))
    assert _nothing("train.py", None) == ""


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.py", "no such file or folder"),
        ("notes.txt", "no Python script"),
        ("book.ipynb", "jupyter nbconvert --to script"),
        (".", "is no run folder"),
        ("quiet", "or with --stats"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(target, message, tmp_path):
    for name in ("notes.txt", "book.ipynb"):
        (tmp_path / name).touch()
    History(series={"step": np.arange(3), "loss": np.ones(3, np.float32)}).save(tmp_path / "quiet")
    done = doctor(target, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_ctrl_c_ends_the_script_and_not_the_diagnosis(tmp_path):
    endless = SICK.replace("range(10)", "range(10**9)").replace(
        "    opt.step()", "    opt.step()\n        if epoch == 9: print('go', flush=True)"
    )
    command = [sys.executable, "-m", "pellucid", "doctor", str(write(tmp_path, endless)), "--no-trials"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    assert process.stdout.readline() == "go\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to both processes
    out, err = process.communicate(timeout=HUNG_S)
    assert process.returncode == 1 and err.rstrip().endswith("KeyboardInterrupt")
    assert "softmax-before-cross-entropy" in out


LATE = """
import torch
from torch import nn
torch.manual_seed(0)
layers = [nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4)]
layers.append(nn.Softmax(1))
model = nn.Sequential(*layers)
rate = 0.1
opt = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
x = torch.randn(256, 20)
y = (x[:, :4] + 0.1 * torch.randn(256, 4)).argmax(1)
for epoch in range(10):
    for i in torch.randperm(256).split(32):
        loss = nn.functional.cross_entropy(model(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [(LATE, 6), (LATE.replace("rate = 0.1", "rate = 30").replace("layers.append(nn.Softmax(1))", ""), 8)],
)
def test_a_finding_names_the_line_to_change(text, line, tmp_path):
    """It is where the layer is made or the rate is set, not where the loss is called or the optimizer is made."""
    write(tmp_path, text)
    report = json.loads(doctor("--json", "train.py", cwd=tmp_path).stdout)
    assert report["findings"][0]["where"] == f"train.py:{line}"
