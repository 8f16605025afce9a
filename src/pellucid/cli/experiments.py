"""Compare variants over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.errors import PellucidError
from pellucid.output import say
from pellucid.tables import columns
from pellucid.text import printable


def experiment(
    name: Annotated[str | None, typer.Argument(help="Which; without one they are listed.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each variant.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 2,
    images: Annotated[int, typer.Option(help="Training images; fewer than all for a quick look.")] = 60_000,
    out: Annotated[Path, typer.Option(help="Parent of the result folder; a second call continues there.")] = Path(
        "experiments"
    ),
) -> None:
    """Compare variants of a network over seeds: norms, order, pooling, kernel, batch-size, colour."""
    import matplotlib

    matplotlib.use("Agg")
    from pellucid import experiments

    if name is None:
        say("\n".join(columns([(each.name, each.question) for each in experiments.EXPERIMENTS.values()])))
        return
    chosen = experiments.experiment_named(name)
    try:
        results = experiments.run(chosen, seeds, out, epochs=epochs, images=images)
    except KeyboardInterrupt:
        raise PellucidError("interrupted; finished cells are kept, the same command goes on from there") from None
    say(f"\n{chosen.question}\n\n{results}\n{printable(out / name)}: table.md, table.csv, values.csv, picture.png")
