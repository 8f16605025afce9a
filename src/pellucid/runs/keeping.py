"""What a training keeps in its run folder while it goes on, and what is left of that when it ends."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pellucid.output import say
from pellucid.runs.settings import Settings
from pellucid.runs.statistics import DESCRIPTION
from pellucid.text import printable
from pellucid.training import kept
from pellucid.training.callbacks.checkpoint import Checkpoint
from pellucid.training.callbacks.core import Callback
from pellucid.training.kept import Kept

NEVER_S = 1e9  # JSON has no infinity


@dataclass(frozen=True)
class Origin:
    """Where a training begins.

    Attributes:
        kept: The step that it goes on from; None for the beginning.
        resumes: Whether the folder is that of the training which is gone on with.
        settings: What `run.json` says of it among the settings.
    """

    kept: Kept | None = None
    resumes: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


NEW = Origin()


class Keeping:
    """Inside its block a folder is known as that of a training; afterwards only what can still be used is left there.

    Args:
        folder: The run folder, reserved.
        settings: What was asked for.
        origin: Where the training begins.

    Attributes:
        begun: What the model could do before the first epoch, see `pellucid.runs.transfer.Start`.
    """

    def __init__(self, folder: Path, settings: Settings, origin: Origin):
        self.folder, self.asked, self.origin = folder, settings, origin
        self.begun: dict[str, Any] = {} if origin.kept is None else dict(origin.kept.description["begun"])
        self._trained: dict[str, Any] = {}
        self._keeps = settings.checkpoint_s > 0 or settings.checkpoint_steps is not None

    def __enter__(self) -> Self:
        self._describe()
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: Any) -> None:
        usable = kept.steps_in(self.folder) if failed is not None or self.asked.keep else []
        waits = failed is not None and self.origin.resumes and not (self.folder / DESCRIPTION).exists()
        if not usable and not waits:
            kept.remove(self.folder)
        elif failed is None:
            self._describe("done")

    def choose(self, settings: Settings) -> None:
        """Note what was chosen; what was measured on this machine is not measured another time."""
        self.asked = replace(self.asked, precision=settings.precision, device=settings.device)
        self._trained = asdict(settings)
        self._describe()

    def callbacks(self) -> list[Callback]:
        """What keeps the training while it goes on."""
        if not self._keeps:
            return []
        asked = self.asked
        every_s = asked.checkpoint_s or NEVER_S
        # The best epoch is kept in every checkpoint; a step of its own is for those who begin other trainings there.
        best = "valid_loss" if asked.keep else None
        callback = Checkpoint(self.folder, every_s, max(1, asked.keep), every=asked.checkpoint_steps, best=best)
        callback.extra = self._extra()
        return [callback]

    def goes_on(self) -> str:
        """How a training that was interrupted goes on, for a message."""
        if not kept.steps_in(self.folder):
            return ""
        return f"; pellucid train --resume {printable(self.folder)} goes on"

    def _extra(self) -> dict[str, Any]:
        return {
            "settings": asdict(self.asked),
            "trained": self._trained,
            "begun": self.begun,
            "origin": self.origin.settings,
        }

    def _describe(self, state: str = "running") -> None:
        with suppress(OSError):  # who has no room for it has none for the run, which is said elsewhere
            kept.describe_training(self.folder, {"state": state, **self._extra()})


def say_where(found: Kept | None) -> None:
    """Say where a training goes on."""
    if found is None:
        say("there was no checkpoint yet: the training begins again")
        return
    about = found.description
    where = f"batch {about['batch']:,} of epoch {about['epoch']}" if about["batch"] else f"epoch {about['epoch']}"
    say(f"going on after step {about['step']:,}, at {where}")
