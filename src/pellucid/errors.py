"""The exceptions a user can meet.

PellucidError
├── UsageError      a wrong argument, name or file given by the user
│   └── DataError   the data itself: files, labels, splits
└── TrainingError   a training run that cannot go on
"""

from __future__ import annotations


class PellucidError(Exception):
    """Base of every error that pellucid raises on purpose; its text says what was wrong, where, and what to do."""


class UsageError(PellucidError):
    """An argument, a name or a path that cannot be used."""


class DataError(UsageError):
    """Images, labels or splits that cannot be trained on."""


class TrainingError(PellucidError):
    """A run that cannot continue: non-finite loss, output that does not fit the loss."""
