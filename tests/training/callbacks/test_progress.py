"""Progress as it reaches a pipe, a terminal and a notebook: real ones of each."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from hanging import HUNG_S
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.progress import NotebookDisplay

TRAIN = """
import torch, torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from pellucid.data.loader import DataLoaders
from pellucid.training.learner import Learner
from pellucid.metrics import accuracy
x = torch.randn(64, 6)
data = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 8)
learn = Learner(DataLoaders(data, data), torch.nn.Linear(6, 2), F.cross_entropy, metrics=accuracy)
learn.fit(2, 0.01)
"""
COLUMNS = ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
ROW = r"[01] +\d\.\d{6} +\d\.\d{6} +\d\.\d{6} +\d\d:\d\d"


def test_a_pipe_gets_whole_lines_only():
    done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, check=True)
    header, *rows = done.stdout.splitlines()
    assert header.split() == COLUMNS
    assert len(rows) == 2 and all(re.fullmatch(ROW, row) for row in rows)
    starts = [re.search(name, header).start() for name in COLUMNS]  # type: ignore[union-attr]
    assert all(row[start] != " " and (start == 0 or row[start - 1] == " ") for row in rows for start in starts)


LEFT_OUT = ["learn.no_bar()", "learn.no_logging()", "learn.no_bar(), learn.no_logging()"]


@pytest.fixture(scope="module")
def written() -> list[str]:
    """What one program writes to a terminal: in a plain fit, and then with each of these and after it."""
    block = "with {}: learn.fit(2, 0.01)\nprint('then'); learn.fit(1, 0.01); print('next')\n"
    return in_terminal(f"{TRAIN}print('next')\n" + "".join(map(block.format, LEFT_OUT))).split("next\r\n")


def test_a_terminal_gets_a_bar_that_vanishes(written):
    text = written[0]
    assert re.search(r"epoch 0.*\d/8", text)
    assert text.rstrip().endswith("\x1b[2K")  # the last thing done is to erase the bar's line
    plain = without_codes(text)
    assert [line.split() for line in plain.splitlines() if line.startswith("epoch  ")] == [COLUMNS]
    assert len(re.findall(f"^{ROW}", plain, re.MULTILINE)) == 2


def in_terminal(code: str) -> str:
    """What a program writes to a terminal."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    output = b""
    while chunk := _read(master):
        output += chunk
    os.close(master)
    assert process.wait() == 0
    return output.decode()


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


@pytest.mark.parametrize("without", LEFT_OUT)
def test_a_part_left_out_inside_a_block_only(written, without):
    table, bar = "no_logging" not in without, "no_bar" not in without
    inside, after = written[1 + LEFT_OUT.index(without)].split("then\r\n")
    assert len(re.findall(f"^{ROW}", without_codes(inside), re.MULTILINE)) == (2 if table else 0)
    assert bool(re.search(r"epoch 0.*\d/8", inside)) is bar and ("\x1b[" in inside) is bar
    assert bool(inside) is (table or bar)
    assert len(re.findall(f"^{ROW}", without_codes(after), re.MULTILINE)) == 1 and re.search(r"epoch 0.*\d/8", after)


def test_another_logger_takes_the_tables_place(capsys):
    space: dict = {}
    exec(TRAIN, space)
    learn, logged = space["learn"], []
    assert len(capsys.readouterr().out.splitlines()) == 3

    class Lines(Callback):
        """fastai's way to write a log: take the place of the logger, and hand on to it."""

        order = 60

        def before_fit(self):
            self.old, self.learn.logger = self.logger, self.write

        def write(self, log):
            logged.append(log)
            self.old(log)

        def after_fit(self):
            self.learn.logger = self.old

    learn.fit(1, 0.01, cbs=Lines)
    assert len(logged) == 1 and len(capsys.readouterr().out.splitlines()) == 2  # both saw it
    learn.logger = logged.append
    learn.fit(1, 0.01)
    assert len(logged) == 2 and capsys.readouterr().out == ""
    learn.remove_cb(learn.progress)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.01)
    assert len(logged) == 2 and learn.logger == logged.append


def test_a_notebook_gets_one_table(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(TRAIN)])
    NotebookClient(notebook, timeout=HUNG_S, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = notebook.cells[0].outputs
    html = output["data"]["text/html"]
    assert re.findall(r"<th>(.*?)</th>", html) == COLUMNS
    cells = re.findall(r"<td>(.*?)</td>", html)
    assert [cells[0], cells[5]] == ["0", "1"] and len(cells) == 10
    assert "<progress" not in html
    assert not list(Path(tmp_path).iterdir())


def test_a_notebook_shows_every_name_as_it_is():
    shown, names = [], ["epoch", "<lambda>", "a & b", "<b>bold</b>"]
    table = NotebookDisplay()
    table.names, table.rows = names, [names[::-1]]
    parser = HTMLParser()
    parser.handle_data = shown.append
    parser.feed(table._table())
    assert shown == [*names, *names[::-1]]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux reports the other end's closing as an error
        return b""
