"""Watch a fit for the doctor: all of it, or as much as a share of its time allows."""

from __future__ import annotations

import math
import warnings
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.activations.watch import is_compiled
from pellucid.errors import UsageError
from pellucid.training.callbacks.core import Callback
from pellucid.training.watched import WatchOfLearner

if TYPE_CHECKING:
    from pellucid.doctor.evidence.record import Evidence
    from pellucid.doctor.evidence.sampling import Sampled
    from pellucid.doctor.report import Report
    from pellucid.doctor.trials.specimen import Specimen
    from pellucid.history.history import History


class Doctor(Callback):
    """Watch each fit, so that `learn.diagnose()` can say afterwards what was wrong with the last one.

    Results are the same with and without, bit for bit. With `ActivationStats(with_grads=True)` of all layers beside it,
    layers are read once for both.

    Args:
        every: Read the layers at every n-th batch; everything else is seen at each.
        share: Of the fit's time that this may take, such as 0.05: only some batches are looked at, as many as fit into
            it, and a model that torch.compile was given is judged by its losses alone. None looks at all of them.

    Attributes:
        watch: Of the layers, in the last fit or in the one that is running.
        gathering: Of everything else.
    """

    order = 39  # before the guard, which ends the fit at a loss that is not finite
    needs_images = False

    def __init__(self, every: int = 1, share: float | None = None):
        self.every, self.share = every, share
        self.watch: WatchOfLearner | None = None
        self.gathering: Sampled | None = None

    def before_fit(self) -> None:
        from pellucid.doctor.evidence.attention import Attention

        self.watch = self.gathering = None
        share = 0.0 if self.share is not None and is_compiled(self.learn.model) else self.share
        self._attention, self._started = Attention(share), 0.0
        self._looks, self._validated = False, set[int]()
        self._since, self._is_behind = 0, False

    def before_epoch(self) -> None:
        if self.gathering is not None:
            return
        from pellucid.doctor.evidence.sampling import Sampled

        learn: Any = self.learn
        stats = getattr(learn, "activation_stats", None)
        shared = None if stats is None or not stats.with_grads or stats.modules is not None else stats.watch
        self._own = None
        if shared is None:
            full: Any = {"modules": None, "every": self.every, "with_hist": True, "with_grads": True}
            self._own = WatchOfLearner(learn, **full, compiled=self.share is None)
        self.watch = shared or self._own
        self.gathering = Sampled(learn.model, learn.opt, self.watch, chosen=self.share is not None)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.learn.train_iter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # What was seen is calls and batches of a process that is gone: it begins anew, and the report says so.
        self._since, self._is_behind = state["step"], True

    def before_train(self) -> None:
        self._gathered.phase_begins()

    def before_validate(self) -> None:
        self._looks = self._attention.validation(last=self.learn.epoch + 1 == self.learn.n_epoch)
        self._validated |= {self.learn.epoch} if self._looks else set()

    def after_validate(self) -> None:
        if self.share is not None:
            self._attend(False)

    def before_batch(self) -> None:
        if self._is_behind:
            self._catch_up()
        if self.learn.training:
            self._looks = self._attention.step(self.learn.train_iter)
        self._attend(self._looks)
        self._started = perf_counter()

    def after_loss(self) -> None:
        if not self.learn.training:
            return
        loss, own = self.learn.loss, self._own
        if own is not None and own.is_open and own.keeps_losses:
            own.recording.loss(loss)
        if loss.is_cpu and loss.numel() == 1 and not math.isfinite(loss.item()):
            self._gathered.broken(loss, self.learn.x)

    def before_step(self) -> None:
        if self._own is not None and self._own.is_open:
            self._own.recording.before_step()

    def after_batch(self) -> None:
        began, ended, training, own = self._started, perf_counter(), self.learn.training, self._own
        if training and own is not None:
            end_step = own.recording.after_step if own.is_open else own.recording.skip_step
            end_step()
        if training and not self._looks:
            self._gathered.stepped_unseen(self.learn.loss, began, ended)
        now = perf_counter()
        self._attention.took((now if self._looks else ended) - began, training=training, looked=self._looks)
        if not self._looks:
            self._attention.charge(now - ended)

    def after_fit(self) -> None:
        self._gathered.finished = True

    def cleanup_fit(self) -> None:
        if self.gathering is None:
            return
        if self._own is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._own.stop(failed=not self.gathering.finished)
        self._attend(False)
        self.gathering.ended()

    def history(self) -> History:
        """What the layers did in the last fit.

        Raises:
            UsageError: there was no fit yet.
        """
        if self.watch is None:
            raise UsageError("nothing was trained yet: fit first")
        return self.watch.history

    def evidence(self) -> Evidence:
        """What else was seen of it; raises as `history`."""
        history, found, learn = self.history(), self._gathered.evidence(), self.learn
        recorder = getattr(learn, "recorder", None)
        if self.share is not None and recorder is not None:
            for optimizer in found.optimizers:
                optimizer.steps = found.loop.steps
                if "lr" in history.hypers:
                    optimizer.hypers.pop("lr", None)  # the history has that of every step
            self._add_validations(found, recorder)
        return found

    def specimen(self) -> Specimen:
        """A copy of the model with what was kept of its training, for trials; raises as `history`."""
        self.history()
        return self._gathered.specimen()

    def diagnose(self, budget_s: float | None = None, *, trials: bool | None = True) -> Report:
        """What was wrong with the last fit, or is with the one that is running.

        Args:
            budget_s: Seconds for trials; None takes a tenth of the watched time, at least 5 and at most 60.
            trials: Whether to make any; None makes them where a fault is suspected.

        Raises:
            UsageError: there was no fit yet.
        """
        from pellucid.doctor.diagnosis import diagnose

        history, evidence = self.history(), self.evidence()
        specimen = self.specimen if trials is None else self.specimen() if trials else None
        report = diagnose(history, evidence, specimen, budget_s)
        if self._since:
            report.notes.append(f"the fit was resumed after step {self._since:,}, and examined from there on")
        return report

    @property
    def _gathered(self) -> Sampled:
        assert self.gathering is not None
        return self.gathering

    def _attend(self, looks: bool) -> None:
        """Look from now on, or no more; with a share, layers are read in training alone."""
        own, gathered = self._own, self._gathered
        reads = looks and (self.learn.training or self.share is None)
        if gathered.is_open == looks and (own is None or own.is_open == reads) and not self._attention.begins:
            return
        began = perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a watch does not see: the report says it
            if own is not None and own.is_open != reads:
                own.start() if reads else own.stop(failed=True)
        if looks:
            gathered.open(look=self._attention.begins)
        else:
            gathered.close()
        self._attention.charge(perf_counter() - began)

    def _catch_up(self) -> None:
        """Count the steps that were trained before the fit was gone on with."""
        self._is_behind = False
        self._gathered.skip(list(self.learn.recorder.raw_losses) if hasattr(self.learn, "recorder") else [])
        if self._own is not None:
            self._own.recording.go_on_at(self._since)

    def _add_validations(self, found: Evidence, recorder: Any) -> None:
        """Add the losses of the validations that were not looked at."""
        unseen = [i for i in range(len(recorder.values)) if i not in self._validated]
        steps = np.concatenate([found.valid_steps, [recorder.iters[i] for i in unseen]])
        losses = np.concatenate([found.valid_losses, [recorder.values[i][1] for i in unseen]])
        order = np.argsort(steps, kind="stable")
        found.valid_steps, found.valid_losses = steps[order].astype(np.int64), losses[order]
