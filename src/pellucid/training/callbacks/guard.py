"""Stop a run whose loss is no longer a number, and give the model back as it last was sound."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import TrainingError
from pellucid.training.callbacks.core import Callback
from pellucid.training.rewind import Snapshot

LOOK_EVERY = 50
EXPLODED = 3  # as in the rate test: the loss has risen by three times what it was, to four times


class NonFiniteGuard(Callback):
    """End the fit with `TrainingError` when a training loss is nan or infinite, and undo what led to it.

    By then weights are often finite and useless: a rate that is too high takes them to 1e15 before the loss overflows.
    So model, loss and moments of the optimizer go back to the end of the last good epoch, bit for bit, or to where
    they were before the fit. An epoch ended soundly if the loss of the next batch, the first that was computed with its
    weights, is at most four times the fit's first loss, or the first epoch's median loss where that is larger: a first
    batch that was easy by chance must not cost all epochs.

    On the CPU each loss is looked at before its backward pass; on an accelerator every 50 batches, because reading one
    waits for the device.
    """

    order = 40
    needs_images = False

    def before_fit(self) -> None:
        self._sound: Snapshot | None = Snapshot.of_learner(self.learn)
        self._when = "before this fit"
        self._candidate: Snapshot | None = None
        self._usual: float | None = None  # known after the first epoch
        self._losses: list[float] = []  # of the first epoch
        self._unread: list[Tensor] = []

    def before_train(self) -> None:
        if self._losses or self._usual is not None:  # a batch was trained already
            self._candidate = Snapshot.of_learner(self.learn)

    def after_loss(self) -> None:
        if not self.learn.training:
            return
        loss = self.learn.loss.detach()
        self._unread.append(loss)
        if self._candidate is not None:
            self._judge(float(loss))
        if len(self._unread) >= LOOK_EVERY or loss.device.type == "cpu":
            self._look()

    def after_train(self) -> None:
        self._look()
        # The last step of all has no loss after it that would show what it did.
        floating = [p for group in self.learn.opt.param_groups for p in group["params"] if p.is_floating_point()]
        if floating and not torch.stack([p.detach().isfinite().all() for p in floating]).all():
            self._stop("weights became nan or infinite in the last step")

    def state_dict(self) -> dict[str, Any]:
        return {
            "sound": None if self._sound is None else self._sound.state_dict(),
            "when": self._when,
            "usual": self._usual,
            "losses": self._losses,
            "unread": self._unread,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._sound is not None and state["sound"] is not None:
            self._sound.load_state_dict(state["sound"])
        self._when, self._usual, self._losses = state["when"], state["usual"], list(state["losses"])
        self._unread = [loss.to(self.learn.dls.device) for loss in state["unread"]]
        self._candidate = None  # it was judged by the first batch of the epoch

    def cleanup_fit(self) -> None:
        self._sound = self._candidate = None
        self._unread, self._losses = [], []

    def _judge(self, loss: float) -> None:
        if self._usual is None:
            self._usual, self._losses = max(self._losses[0], median(self._losses)), []
        if self._candidate is not None and loss <= self._usual + EXPLODED * abs(self._usual):
            self._sound, self._when = self._candidate, f"at the end of epoch {self.learn.epoch - 1}"
        self._candidate = None

    def _look(self) -> None:
        unread, self._unread = self._unread, []
        values = [unread[0].item()] if len(unread) == 1 else torch.stack(unread).tolist() if unread else []
        for value in values:
            if not math.isfinite(value):
                self._stop(f"the training loss became {value}")
        if self._usual is None:
            self._losses += values

    def _stop(self, what: str) -> None:
        assert self._sound is not None
        self._sound.restore()
        learn = self.learn
        place = f"epoch {learn.epoch}, batch {learn.iter} (learning rate {learn.opt.param_groups[-1]['lr']:.3g})"
        half = "Train in bfloat16, learn.to_bf16(): float16 ends at 65,504. " if learn.precision == "fp16" else ""
        raise TrainingError(
            f"{what} at {place}; model and optimizer are put back as they were {self._when}. {half}"
            "Lower the learning rate, or look for bad values in inputs and loss"
        )
