"""The layer statistics in a run folder."""

from __future__ import annotations

from pathlib import Path

from pellucid.activations.history import History
from pellucid.errors import UsageError

STATS = "seen"


def load_history(folder: str | Path) -> History:
    """Open the layer statistics of a run, finished or still going.

    Raises:
        UsageError: there are none in this folder, or they are damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; `pellucid train --stats` makes one")
    if not (folder / STATS).is_dir():
        raise UsageError(f"{folder}: was trained without statistics; use `pellucid train --stats`")
    return History.load(folder / STATS)
