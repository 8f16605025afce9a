"""Arguments that several commands have, and the run and files they stand for."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pellucid.runs import Run

LAYER = "Number among the layers with parameters, such as -2, or name (2#1 if the name is 2)"
RunFolder = Annotated[Path, typer.Argument(help="A run folder, as `pellucid train` or `learn.save_run` writes it.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE:NAME", help="Code outside pellucid that may be called to make the run's model and transforms."
    ),
]


def layer_of(text: str) -> int | str:
    """A layer as a command line names it: a whole number counts layers with parameters, all else is a name."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text


def open_run(folder: Path, allow: list[str] | None) -> Run:
    """Open a run; modules it is allowed to use are also looked for in the working folder, after all other places."""
    from pellucid.runs import load_run

    if allow:
        sys.path.append(os.getcwd())  # last, so that nothing there passes for a library
    return load_run(folder, allow=allow or ())
