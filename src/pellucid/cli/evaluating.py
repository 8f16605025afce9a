"""How good a run is on labelled images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from pellucid.cli.arguments import Allow, RunFolder, open_run
from pellucid.output import say
from pellucid.text import printable


def evaluate(
    run: RunFolder,
    source: Annotated[
        str,
        typer.Argument(help="A folder of one folder per class (or test/ or valid/ in it) or of IDX files, or a CSV."),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default evaluation-NAME in the run.")] = None,
    on_error: Annotated[
        Literal["raise", "skip"], typer.Option(help="Damaged images: raise lists them, skip leaves them out.")
    ] = "raise",
    as_json: Annotated[bool, typer.Option("--json", help="Print what evaluation.json holds.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of several labels: one is given above this probability; default 0.5."),
    ] = None,
    path_col: Annotated[str | None, typer.Option(help="Column of files in a CSV, by name or number from 0.")] = None,
    label_col: Annotated[str | None, typer.Option(help="Column of labels in a CSV, likewise; several: a,b,c.")] = None,
    label_delim: Annotated[
        str | None, typer.Option(help="Between the labels of one cell; default what the run was trained with.")
    ] = None,
    suffix: Annotated[str, typer.Option(help="Put after the names in a CSV, such as .jpg after ids.")] = "",
    image_folder: Annotated[str | None, typer.Option(help="Folder of a CSV's files, from its own.")] = None,
    allow: Allow = None,
) -> None:
    """Compare a run's predictions with the labels of images that it was not trained on.

    Writes a page (index.html), predictions.csv, evaluation.json and pictures.
    """
    import matplotlib

    from pellucid.data.labels import several

    matplotlib.use("Agg")
    columns = {"fn_col": path_col, "suff": suffix, "folder": image_folder or ""}
    columns |= {"label_col": several(label_col)} if label_col else {}
    columns |= {"label_delim": label_delim} if label_delim else {}
    found = open_run(run, allow).evaluate(source, on_error=on_error, threshold=threshold, **columns)
    folder = found.save(out or run / f"evaluation-{_name(source)}")
    if as_json:
        say(json.dumps(found.to_json(), indent=2))
        return
    say(f"{found}\n\n{printable(folder / 'index.html')} has the mistakes; tables and pictures are beside it")


def _name(source: str) -> str:
    """A name for a folder: the source's own, and that of the folder it is in where it may be one of several."""
    path = Path(source.rpartition("://")[2]).resolve()
    stem = path.stem if path.is_file() else path.name
    return re.sub(r"[^\w.-]+", "-", stem)[:50] or "images"
