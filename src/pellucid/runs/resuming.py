"""A training that ended before it was done goes on, or another one begins at one of its steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pellucid.errors import UsageError
from pellucid.runs.keeping import Origin, say_where
from pellucid.runs.predictions import Run
from pellucid.runs.reserving import reserved
from pellucid.runs.settings import Settings
from pellucid.runs.statistics import DESCRIPTION
from pellucid.runs.training import carried_out
from pellucid.text import first_few, printable
from pellucid.training import kept

# What a branch may have otherwise: all that does not decide which images there are, or what the weights are of.
CHANGES = (
    "epochs", "lr", "schedule", "precision", "compile", "augment", "patience", "stats", "doctor", "stop_when_sick",
    "checkpoint_s", "checkpoint_steps", "keep", "workers", "device",
)  # fmt: skip
FREE = ("workers",)  # of a training that goes on: nothing depends on it


def resume(folder: str | Path, **given: Any) -> Run:
    """Go on with a training that was killed or interrupted, as `pellucid train --resume` does.

    It goes on after the last batch that was kept, and ends in the bits it would have ended in, on the same machine with
    the same versions and the same number of threads. One that was killed before the first checkpoint begins again.

    Args:
        folder: Its run folder.
        given: Settings that it must have, by name.

    Raises:
        UsageError: the training is done, nothing was kept, settings or data are others, or another process is training
            there.
    """
    folder = Path(folder)
    about = _unfinished(folder)
    settings = _known(about["settings"], folder)
    for name, value in given.items():
        if name not in FREE and getattr(settings, name) != value:
            raise UsageError(
                f"{printable(folder)}: was begun with {name} {getattr(settings, name)}, which {value} contradicts; "
                f"another training with it can begin there: --branch {printable(folder)}"
            )
    with reserved(settings.source, folder, resumes=True) as reservation:
        found = kept.find(folder) if kept.steps_in(folder) else None
        if found is not None:
            kept.warn_of_versions(found)
        say_where(found)
        origin = Origin(found, resumes=True, settings=about.get("origin", {}))
        return carried_out(dataclasses.replace(settings, **given), reservation, origin)


def branch(step: str | Path, out: str | Path | None = None, **changes: Any) -> Run:
    """Begin a training at a kept step of another one, with other settings: the same past, the same batches.

    Args:
        step: Such as `runs/a@step300` or `runs/a@best`; `runs/a` for the last step that is kept.
        out: The run folder; None makes one under `runs/`.
        changes: Settings that are to be other ones, such as `lr=0.01` or `epochs=20`.

    Raises:
        UsageError: this step is not kept, or a setting cannot be another one on the way.
    """
    found = dataclasses.replace(kept.find(step), changed=True)
    if refused := [name for name in changes if name not in CHANGES]:
        raise UsageError(
            f"{printable(step)}: a branch has the same images and the same network, so {first_few(refused)} cannot be "
            f"changed; what can be is {', '.join(CHANGES)}"
        )
    if "settings" not in found.description:
        raise UsageError(f"{printable(step)}: was kept by a script, which branches with learn.branch")
    settings = dataclasses.replace(_known(found.description["settings"], found.folder), **changes)
    if settings.epochs <= found.epoch:
        raise UsageError(
            f"{printable(step)}: is in epoch {found.epoch} already, and {settings.epochs} epochs are over by then; "
            "name an earlier step, or more epochs"
        )
    name = f"{printable(kept.place_of(step)[0])}@step{found.step}"
    with reserved(settings.source, out) as reservation:
        say_where(found)
        return carried_out(settings, reservation, Origin(found, settings={"branch": name}))


def _unfinished(folder: Path) -> dict[str, Any]:
    """What is known of a training that is not done."""
    if not folder.is_dir():
        raise UsageError(f"{printable(folder)}: no such folder")
    there = (folder / kept.FOLDER / kept.TRAINING).exists()
    about = kept.training_of(folder) if there else {}
    if about.get("state") == "done" or (not there and (folder / DESCRIPTION).exists()):
        more = f"; another one can begin at its steps: --branch {printable(folder)}" if there else ""
        raise UsageError(f"{printable(folder)}: has nothing to resume, this training has ended{more}")
    if not there:
        raise UsageError(f"{printable(folder)}: has no checkpoint, no training began there")
    if "settings" not in about:
        raise UsageError(f"{printable(folder)}: was kept by a script, which goes on with learn.resume")
    return about


def _known(settings: dict[str, Any], folder: Path) -> Settings:
    """Settings as another pellucid may have written them."""
    names = [each.name for each in dataclasses.fields(Settings)]
    if unknown := [name for name in settings if name not in names]:
        raise UsageError(f"{printable(folder)}: has settings of another version of pellucid: {first_few(unknown)}")
    return Settings(**settings)
