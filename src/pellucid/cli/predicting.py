"""What a run says of images, one by one."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.arguments import Allow, RunFolder, open_run
from pellucid.cli.pictures import TERMINAL
from pellucid.errors import DataError, UsageError
from pellucid.files import result_file
from pellucid.output import complain, lost, say
from pellucid.text import counted, printable

if TYPE_CHECKING:
    from pellucid.runs.predictions import Prediction


def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of lines.")] = False,
    table: Annotated[
        Path | None,
        typer.Option("--csv", help="Write a table instead: source, label and each probability; - prints it."),
    ] = None,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Probabilities at the temperature that the run keeps.")
    ] = False,
    allow: Allow = None,
) -> None:
    """Print the class of each image and its probabilities.

    An image that cannot be read is reported, and the others are classified; the exit code is 2 then. In the JSON list
    its entry has "error" in place of "label" and "probabilities", in the table it has a text in the column error.
    """
    if as_json and table:
        raise UsageError("--json and --csv are two forms of the same: give one")
    opened, files = open_run(run, allow), _image_files(images)
    answers: list[Prediction | DataError] = []
    for answer in opened.answers(files, calibrated=calibrated):
        answers.append(answer)
        if isinstance(answer, DataError):
            complain(f"error: {printable(answer)}")
        elif not as_json and not table:
            best = "  ".join(f"{printable(name)} {value:.4f}" for name, value in list(answer.probabilities.items())[:3])
            say(f"{printable(answer.source)}: {printable(answer.label) or 'no label'}   ({best})")
            if lost:  # nobody would see the others
                return
    if as_json:
        say(json.dumps([_entry(*each) for each in zip(files, answers, strict=True)], indent=2))
    if table:
        _write_table(table, _rows(files, answers, list(map(str, opened.vocab))))
    n_bad = sum(isinstance(answer, DataError) for answer in answers)
    if n_bad:
        raise UsageError(f"{n_bad} of {counted(len(files), 'image')} could not be classified")


def _entry(file: Path, answer: Prediction | DataError) -> dict[str, Any]:
    return {"source": str(file), "error": str(answer)} if isinstance(answer, DataError) else vars(answer)


def _rows(files: Sequence[Path], answers: Sequence[Prediction | DataError], vocab: list[str]) -> Iterable[list[Any]]:
    """The head, and a row for each image; a column of errors where there are some."""
    some_bad = any(isinstance(answer, DataError) for answer in answers)
    yield ["source", "label", *vocab, *(["error"] if some_bad else [])]
    for file, answer in zip(files, answers, strict=True):
        if isinstance(answer, DataError):
            yield [file, "", *[""] * len(vocab), str(answer)]
        else:
            values = [f"{answer.probabilities[name]:.6g}" for name in vocab]
            yield [answer.source, answer.label, *values, *([""] if some_bad else [])]


def _write_table(table: Path, rows: Iterable[list[Any]]) -> None:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    if table == TERMINAL:
        say(text.getvalue().removesuffix("\n"))
        return
    with result_file(table) as scratch:  # names of files need not be text: their bytes are written as they are
        scratch.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape", newline="")
    say(printable(table))


def _image_files(given: list[Path]) -> list[Path]:
    """The files as given, and those in folders."""
    from pellucid.data.items import get_image_files

    files: list[Path] = []
    for path in given:
        found = list(get_image_files(path)) if path.is_dir() else [path]
        if not found:
            raise DataError(f"{printable(path)}: there is no image file in it")
        files += found
    return files
