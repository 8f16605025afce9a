"""Watch a fit for the doctor."""

from __future__ import annotations

import warnings
from typing import Any

from pellucid.activations.watch import Watch, watch
from pellucid.errors import UsageError
from pellucid.training.callbacks.core import Callback


class Doctor(Callback):
    """Watch each fit, so that `learn.diagnose()` can say afterwards what was wrong with the last one.

    Args:
        every: Read the layers at every n-th batch; everything else is seen at each.

    Attributes:
        watch: Of the last fit, or of the one that is running.
    """

    order = 44  # right before ActivationStats
    needs_images = False

    def __init__(self, every: int = 1):
        self.every = every
        self.watch: Watch | None = None

    def before_fit(self) -> None:
        learn: Any = self.learn
        self.watch = watch(learn.model, learn.opt, every=self.every, doctor=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a watch does not see: the report says it
            self.watch.start()

    def cleanup_fit(self) -> None:
        if self.watch is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.watch.stop()

    @property
    def seen(self) -> Watch:
        """The watch.

        Raises:
            UsageError: there was no fit yet.
        """
        if self.watch is None:
            raise UsageError("nothing was trained yet: fit first")
        return self.watch
