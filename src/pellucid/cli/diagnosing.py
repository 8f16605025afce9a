"""What is wrong with a training: anybody's script, or a run folder."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from pellucid.errors import UsageError
from pellucid.output import say
from pellucid.text import printable


def doctor(
    target: Annotated[Path, typer.Argument(help="A Python script that trains, or a run folder, finished or not.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Of the script, after --: pellucid doctor train.py -- --lr 0.1.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page with pictures, too.")] = None,
    patch: Annotated[
        bool, typer.Option("--patch", help="Print what to change in the script, as a diff. No file is changed.")
    ] = False,
    no_trials: Annotated[
        bool, typer.Option("--no-trials", help="Judge by what was seen, without trials on copies of the model.")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds for trials; default a tenth of the training's, at least 5, at most 60."),
    ] = None,
) -> None:
    """Find out what is wrong with a training, and why.

    A script runs as it is and is watched; then what looks wrong is put to trial on a copy of its model.
    A run folder is judged by its record.
    The exit code is 0 for healthy, 3 for sick, and 1 if the script itself failed.
    """
    from pellucid.web.builder import check_page

    page = None if html is None else check_page(html).absolute()
    if target.is_dir():
        if arguments:
            raise UsageError(f"{printable(target)}: is a folder, which takes no arguments; leave out what follows --")
        raise typer.Exit(_of_folder(target, as_json, page))
    from pellucid.doctor.script import Options

    options = Options(as_json, None if page is None else str(page), patch, not no_trials, budget)
    raise typer.Exit(_run(options.command(_script(target), arguments or [])))


def _of_folder(folder: Path, as_json: bool, page: Path | None) -> int:
    from pellucid.runs.diagnosing import diagnose_run

    report = diagnose_run(folder)
    if page is not None:
        say(printable(report.to_html(page)))
    say(json.dumps(report.json(), indent=2) if as_json else str(report))
    return 0 if report.healthy else 3


def _script(file: Path) -> Path:
    if not file.exists():
        raise UsageError(f"{printable(file)}: no such file or folder; give a script that trains, or a run folder")
    if file.suffix == ".ipynb":
        name = printable(file)
        raise UsageError(f"{name}: is a notebook; make it a script first: jupyter nbconvert --to script {name}")
    if file.suffix != ".py":
        raise UsageError(f"{printable(file)}: is no Python script (its name does not end in .py)")
    return file


def _run(command: list[str]) -> int:
    """Run a command on our own streams; Ctrl-C and the like are its own affair, and it is waited for."""
    with subprocess.Popen(command) as process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda number, _: process.send_signal(number))
        code = process.wait()
    return code if code >= 0 else 128 - code
