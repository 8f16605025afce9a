"""The chapter, whole: its cells run in order in one fresh Jupyter kernel and show what the book prints."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from hanging import HUNG_S

CELLS = Path(__file__).with_name("cells.py")
SEED = "from pellucid import set_seed\nset_seed(0)"
PICTURE, REST = "<picture>", "…"
NUMBER = r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?"
BAND = re.compile(rf"({NUMBER})\[({NUMBER}),({NUMBER})\]")
TIME = re.compile(r"\d\d:\d\d")


@dataclass(frozen=True)
class Line:
    """A line the chapter prints, and what may stand instead of it."""

    texts: list[str]

    def fits(self, shown: str) -> bool:
        return any(matches(text, shown) for text in self.texts)

    def __str__(self) -> str:
        return "\n      or ".join(self.texts)


@dataclass(frozen=True)
class Cell:
    """A cell, where it starts in the file, and the lines it has to show."""

    number: int
    of_chapter: bool
    code: str
    lines: list[Line]

    def complaint(self, shown: list[str]) -> str | None:
        """What is wrong with the lines shown."""
        rest, skipping = list(shown), False
        for line in self.lines:
            if line.texts == [REST]:
                skipping = True
                continue
            while skipping and rest and not line.fits(rest[0]):
                rest.pop(0)
            if not rest or not line.fits(rest[0]):
                return self._say(str(line), shown)
            rest.pop(0)
            skipping = False
        return None if skipping or not rest else self._say("nothing more", shown)

    def _say(self, expected: str, shown: list[str]) -> str:
        code, lines = self.code.replace("\n", "\n    "), "\n    ".join(shown)
        return f"{CELLS.name}, line {self.number}:\n    {code}\nexpected: {expected}\nshown:\n    {lines}"

    @property
    def n_numbers(self) -> int:
        """How many numbers are compared."""
        lines = [TIME.sub("", BAND.sub("0", line.texts[0])) for line in self.lines]
        return sum(len(re.findall(rf"(?<![\w.]){NUMBER}", line)) for line in lines)


def matches(text: str, shown: str) -> bool:
    """Whether a shown line is what a line of the file describes: white space aside, numbers within their bands."""
    bands = BAND.findall(text)
    pattern = re.escape(squeeze(BAND.sub("\0", TIME.sub("\1", text)))).replace(REST, ".*").replace("\1", TIME.pattern)
    for number, *_ in bands:
        decimals = len(number.partition(".")[2])
        pattern = pattern.replace("\0", rf"(\d+\.\d{{{decimals}}})" if decimals else r"(\d+)", 1)
    found = re.fullmatch(pattern, squeeze(shown))
    if found is None:
        return False
    return all(float(low) <= float(x) <= float(high) for x, (_, low, high) in zip(found.groups(), bands, strict=True))


def squeeze(line: str) -> str:
    """A line with single blanks, and none beside brackets and commas."""
    return re.sub(r" ?([\[\](),]) ?", r"\1", " ".join(line.split()))


def read_cells() -> list[Cell]:
    """The cells of the file with what they have to show."""
    cells, marker = [], re.compile(r"^# %%(.*)\n", re.MULTILINE)
    text = CELLS.read_text(encoding="utf-8")
    starts = list(marker.finditer(text))
    for start, stop in zip(starts, [*(m.start() for m in starts[1:]), None], strict=True):
        code, lines = [], []
        for line in text[start.end() : stop].splitlines():
            if line.startswith("#> "):
                lines.append(Line([line[3:]]))
            elif line.startswith("#| "):
                lines[-1].texts.append(line[3:])
            else:
                code.append(line)
        number = text.count("\n", 0, start.end()) + 1
        cells.append(Cell(number, not start[1], "\n".join(code).strip(), lines))
    return cells


def shown_by(cell: NotebookNode) -> list[str]:
    """What a reader sees below an executed cell, line by line."""
    lines: list[str] = []
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "stream":
            lines += output.text.splitlines()
        elif output.output_type == "error":
            lines.append(f"{output.ename}: {output.evalue}")
        elif "image/png" in data:
            lines.append(PICTURE)
        elif "<table" in data.get("text/html", ""):
            lines += rows(data["text/html"])
        else:
            lines += data["text/plain"].splitlines()
    return [line for line in lines if line.strip()]


def rows(html: str) -> list[str]:
    """The rows of an HTML table, cells separated by blanks."""
    found = re.findall(r"<tr.*?>(.*?)</tr>", html, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in found]
    return [unescape(" ".join(row)) for row in cells]


@pytest.fixture
def kernel(tmp_path, monkeypatch) -> str:
    """Name of a kernel on this interpreter, untouched by what is installed or configured for the user."""
    folder = tmp_path / "jupyter" / "kernels" / "chapter"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "chapter", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    return "chapter"


def run(cells: list[Cell], kernel: str, folder: Path) -> NotebookNode:
    """The cells as an executed notebook, after one that seeds; stops at the first that raises."""
    codes = [SEED, *(cell.code for cell in cells)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    client = NotebookClient(
        notebook,
        kernel_name=kernel,
        timeout=HUNG_S,
        startup_timeout=HUNG_S,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        return client.execute()
    except CellExecutionError as error:
        pytest.fail(str(error), pytrace=False)


def test_the_chapter_runs_and_shows_what_the_book_prints(kernel, tmp_path, pellucid_home, record_property):
    cells, start = read_cells(), time.perf_counter()
    assert sum(cell.of_chapter for cell in cells) == 63
    notebook = run(cells, kernel, tmp_path)
    shown = [shown_by(cell) for cell in notebook.cells[1:]]
    complaints = [cell.complaint(lines) for cell, lines in zip(cells, shown, strict=True)]
    n_lines, n_numbers = sum(len(cell.lines) for cell in cells), sum(cell.n_numbers for cell in cells)
    n_pictures = sum(lines.count(PICTURE) for lines in shown)
    ran = f"the chapter's 63 cells and {len(cells) - 63} more ran in one kernel in {time.perf_counter() - start:.0f} s"
    compared = f"compared {n_lines} lines with the book's, {n_numbers} numbers in them, {n_pictures} pictures"
    record_property("note", f"{ran}; {compared}; {sum(map(bool, complaints))} cells differ")
    if any(complaints):
        pytest.fail("\n\n".join(filter(None, complaints)), pytrace=False)


@pytest.mark.parametrize(
    ("text", "right", "wrong"),
    [
        ("tensor(762.)", "tensor( 762.)", "tensor(761.)"),
        ("[[(1, 1), (1, 2)],", "[[(1,1),(1,2)],", "[(1, 1), (1, 2)],"),
        ("0 0.974300[0.97,0.98] 00:08", "0 0.971000 01:40", "0 0.965000 00:08"),
        ("0 0.974300[0.97,0.98] 00:08", "0 0.980000 00:00", "0 0.9750 00:08"),
        ("0 0.974300[0.97,0.98] 00:08", "0 0.970000 10:00", "0 0.975000 8"),
        ("ReLU 64 x 4 x 14 x 14 0 False …", "ReLU  64 x 4 x 14 x 14  0  False  0", "ReLU 64 x 4 x 14 x 14 0 True 0"),
        ("torch.Size([3, 1000[1,9999], 846[1,9999]])", "torch.Size([3, 600, 512])", "torch.Size([600, 512, 3])"),
    ],
)
def test_lines_match_in_every_value(text, right, wrong):
    assert matches(text, right)
    assert not matches(text, wrong)


def test_a_cell_that_shows_something_else_is_quoted():
    cell = Cell(7, True, "f()", [Line(["a"]), Line([REST]), Line(["b", "c"])])
    assert cell.complaint(["a", "x", "y", "c"]) is None
    assert cell.complaint(["a", "x"]) == "cells.py, line 7:\n    f()\nexpected: b\n      or c\nshown:\n    a\n    x"
    assert "expected: nothing more" in str(cell.complaint(["a", "b", "again"]))
