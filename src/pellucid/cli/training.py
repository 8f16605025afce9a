"""Train, and use what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.arguments import RunFolder
from pellucid.errors import PellucidError


def train(
    source: Annotated[
        str, typer.Argument(help="mnist, mnist_sample, a folder of images or IDX files, or a CSV of path,label.")
    ],
    arch: Annotated[
        str | None, typer.Option(help="simple_cnn, plain_cnn or small_resnet; default fits the images.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 5,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 5e-3,
    bs: Annotated[int | None, typer.Option(min=1, help="Images a batch; default fits the size of the set.")] = None,
    size: Annotated[
        int | None, typer.Option(min=0, help="Side in pixels; default 128 for folders and CSV, 0 keeps the files' own.")
    ] = None,
    valid_pct: Annotated[
        float | None, typer.Option(help="Validate on this random share instead of a sub-folder, such as 0.2.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the order of images.")] = 42,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default the accelerator if there is one.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoder processes; default one a core.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; default a new one under runs/.")] = None,
    schedule: Annotated[str, typer.Option(help="one_cycle, one_cycle_linear, flat_cos or constant.")] = "one_cycle",
    on_error: Annotated[str, typer.Option(help="Damaged images: raise lists them, skip leaves them out.")] = "raise",
    stats: Annotated[bool, typer.Option("--stats", help="Record what every layer does, for `pellucid show`.")] = False,
) -> None:
    """Train a classifier and write a run folder."""
    from pellucid import runs

    options = {name: value for name, value in locals().items() if name not in ("source", "runs")}
    try:
        run = runs.train(source, **options)
    except KeyboardInterrupt as stop:
        raise PellucidError(f"interrupted; {stop or 'nothing was trained yet'}") from None
    print(f"\naccuracy {run.results[-1]['accuracy']:.4f} on {run.settings['n_valid']:,} validation images")
    print(f"run saved in {run.folder}")


def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of lines.")] = False,
) -> None:
    """Print the class of each image and its probabilities."""
    from pellucid.runs import load_run

    predictions = load_run(run).predict(images)
    if as_json:
        print(json.dumps([vars(p) for p in predictions], indent=2))
        return
    for p in predictions:
        best = "  ".join(f"{name} {value:.4f}" for name, value in list(p.probabilities.items())[:3])
        print(f"{p.source}: {p.label}   ({best})")


def summary(run: RunFolder) -> None:
    """Print the layer table of a run's model."""
    from pellucid.runs import load_run

    print(load_run(run).summary())


def cache(clear: Annotated[bool, typer.Option("--clear", help="Delete all pixel stores.")] = False) -> None:
    """Show how much the pixel stores take on disk, or delete them (they are rebuilt when needed)."""
    from pellucid.data.store import BUDGET_BYTES, evict, stores_folder

    if clear:
        print(f"freed {evict(budget_bytes=0) / 1e6:,.0f} MB")
    used = sum(file.stat().st_size for file in stores_folder().glob("*/*"))
    print(f"{stores_folder()}: {used / 1e6:,.0f} MB of at most {BUDGET_BYTES / 1e9:,.0f} GB")
