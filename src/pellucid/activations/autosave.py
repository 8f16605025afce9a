"""A history on disk that is kept up to date while it is recorded."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

from pellucid.errors import UsageError
from pellucid.history import file as history_file
from pellucid.history.history import History

SAVE_EVERY_S = 10.0
LEAST_RATIO = 50  # time between two savings to the time of one: a long record costs at most 2 per cent


class Autosave:
    """Saves a history into a folder now and then.

    Attributes:
        at: When the next saving is due, by `time.monotonic`.
    """

    def __init__(self, folder: Path, history: Callable[[], History]):
        self.folder, self._history = folder, history
        self.at = time.monotonic() + SAVE_EVERY_S
        self._failed = False

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            UsageError: it cannot be written.
        """
        history_file.make_room(self.folder)

    def save_if_due(self) -> None:
        """Save, if it was long enough ago."""
        if time.monotonic() >= self.at:
            self.save()

    def save(self) -> None:
        """Save now; that it fails is said once."""
        start = time.monotonic()
        try:
            self._history().save(self.folder)
        except (UsageError, RuntimeError, MemoryError) as error:
            if not self._failed:  # a full disk must not end a training, whose weights are worth more
                self._failed = True
                warnings.warn(f"{error}; it is kept in memory, and tried again (said once)", stacklevel=3)
        took = time.monotonic() - start
        self.at = start + max(SAVE_EVERY_S, LEAST_RATIO * took)
