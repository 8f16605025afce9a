"""What runs there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.output import say
from pellucid.tables import columns
from pellucid.text import printable


def runs(
    folder: Annotated[Path, typer.Argument(help="Where the runs are, or one run.")] = Path("runs"),
) -> None:
    """List runs: source, settings that differ, best value, and whether they are running, killed or done."""
    from pellucid.runs.listing import differing, list_runs

    found = list_runs(folder)
    if not found:
        say(f"{printable(folder)}: no run is in it")
        return
    names = differing(found)
    table = [["run", "state", "epochs", "best", "source", *names, "kept steps"]]
    for run in found:
        wanted = run.settings.get("epochs")
        table.append(
            [
                printable(run.folder.resolve().name),
                run.state,
                f"{run.epochs} of {wanted}" if wanted else str(run.epochs),
                run.metric,
                printable(run.settings.get("source", "")),
                *(_shown(run.settings.get(name)) for name in names),
                _steps(run.steps),
            ]
        )
    filled = [i for i in range(len(table[0])) if any(row[i] for row in table[1:])]
    say("\n".join(columns([[row[i] for i in filled] for row in table])))


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else printable(value)


def _steps(steps: tuple[int, ...]) -> str:
    return ", ".join(map(str, steps[-3:])) if len(steps) < 4 else f"{len(steps)}, the last {steps[-1]}"
