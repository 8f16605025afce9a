"""Which steps of a training to look at, so that looking takes no more than a share of its time."""

from __future__ import annotations

from collections import deque
from statistics import median
from time import perf_counter

import numpy as np

LOOK = 2  # steps: what a look reads of the first is compared with how the second finds it
SECOND = 5  # step of the second look
KNOWN = 3  # steps not looked at, from which on it is known what a step takes without
LOOKING = 0.6  # of the share; the rest is for the verdict at the end


class Attention:
    """Chooses what is looked at, by what it took so far.

    Looking at a step, or at a batch of validation, takes what it takes longer than others do. The first look is charged
    what the second takes, since the first steps of a training warm up all else, too.

    Args:
        share: Of the time that looking may take: 0 for no look at all, None for looks at everything.

    Attributes:
        begins: Whether the step that was asked for last is the first of a look.
        spent_s: Seconds that looking took.
    """

    def __init__(self, share: float | None):
        self.share, self.begins, self.spent_s = share, False, 0.0
        self._began = perf_counter()
        self._left, self._looks = 0, 0
        self._cost, self._look_s = np.nan, 0.0
        self._plain = {training: deque[float](maxlen=31) for training in (True, False)}
        self._uncharged = list[float]()  # of validation batches that were looked at before any was not
        self._round, self._round_s = -1, 0.0

    def step(self, step: int) -> bool:
        """Whether to look at the training step after so many."""
        self.begins = False
        if self._left <= 0 and self._is_due(step):
            self._left, self._look_s, self.begins = LOOK, 0.0, True
            self._looks += 1
        return self._left > 0

    def validation(self, *, last: bool) -> bool:
        """Whether to look at the validation that begins, all of it: its batches may hold a class each."""
        if self.share is None or self.share == 0:
            return self.share is None
        self._round += 1
        return self._round == 0 or last or (bool(self._plain[False]) and self._affords(self._round_s))

    def took(self, seconds: float, *, training: bool, looked: bool) -> None:
        """Take note of a step, or a batch of validation."""
        plain = self._plain[training]
        if not looked:
            plain.append(seconds)
        elif training:
            self._look_s += seconds - median(plain) if plain else 0.0
            self._left -= 1
            if not self._left:
                self._end_look()
        else:
            self._uncharged.append(seconds)
        if self._uncharged and self._plain[False]:
            usual = median(self._plain[False])
            self._round_s = sum(max(0.0, each - usual) for each in self._uncharged)
            self.spent_s += self._round_s
            self._uncharged = []

    def charge(self, seconds: float) -> None:
        """Take note of time that was spent on looking besides."""
        self.spent_s += seconds

    def _end_look(self) -> None:
        if self._looks > 1:
            self._cost = max(0.0, self._look_s)
            self.spent_s += self._cost * (2 if self._looks == 2 else 1)

    def _is_due(self, step: int) -> bool:
        if self.share is None or self.share == 0:
            return self.share is None
        if self._looks < 2:
            return not self._looks or (step >= SECOND and len(self._plain[True]) >= KNOWN)
        return self._affords(self._cost)

    def _affords(self, seconds: float) -> bool:
        assert self.share is not None
        return self.spent_s + seconds <= LOOKING * self.share * (perf_counter() - self._began)
