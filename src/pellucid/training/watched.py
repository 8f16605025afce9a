"""The watch of a learner, whose loop says itself what a step is and what its loss was."""

from __future__ import annotations

from typing import Any

from pellucid.activations.watch import Watch, pools_ranks
from pellucid.history.history import History


class WatchOfLearner(Watch):
    """A watch whose history has the losses, hyper-parameters and epochs of the learner's recorder, if it has one.

    A recorder knows this rank only. So where layers are pooled over the ranks, the watch keeps losses and
    hyper-parameters itself, and only the values of epochs are this rank's.
    """

    def __init__(self, learn: Any, **settings: Any):
        self.recorder = getattr(learn, "recorder", None)
        self.keeps_losses = self.recorder is None or pools_ranks(learn.model)
        super().__init__(learn.model, learn.opt, loss=self.keeps_losses, by_hand=True, **settings)

    @property
    def history(self) -> History:
        """Everything recorded so far, by both."""
        seen = super().history
        if self.recorder is None:
            return seen
        recorded = self.recorder.history
        return seen.with_epochs(recorded) if self.keeps_losses else seen.with_curves(recorded)
