"""How the training went, for rules that have to know: what the loss did, and what it would be without learning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pellucid.doctor.evidence.record import Labels, LossCall
from pellucid.doctor.rules.core import Case

FEW = 20  # steps below which a loss that has not fallen says nothing
_CROSS_ENTROPIES = ("cross_entropy", "nll_loss")
_BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")


@dataclass(frozen=True)
class Descent:
    """The training loss from its start to its end.

    Attributes:
        losses: Finite ones, [step].
        start: Before the first step (mean of 8 steps where a batch has fewer than 8 items).
        end, end_error: Mean of the last tenth, and its standard error.
        chance: What the best constant prediction gives; nan where it is not known.
        broken_at: First step without a finite loss, or None.
        opposed: Whether another model was trained beside it and chance is not known, as a critic beside its generator:
            then a loss that rises may be the other's doing.
    """

    losses: np.ndarray
    start: float
    end: float
    end_error: float
    chance: float
    broken_at: int | None
    opposed: bool = False

    @property
    def baseline(self) -> float:
        """The loss of having learnt nothing: chance, or else the start."""
        return self.chance if np.isfinite(self.chance) else self.start

    @property
    def starts_high(self) -> bool:
        """Whether the loss was far above chance before the first step, which no step can have done."""
        return bool(self.start > 3 * self.chance > 0)

    @property
    def peak(self) -> float:
        """The largest loss after the first step."""
        return float(self.losses[1:].max()) if len(self.losses) > 1 else np.nan

    @property
    def means(self) -> np.ndarray:
        """The mean loss of a twentieth of the run, from each step on that has so many after it."""
        window = max(1, len(self.losses) // 20)
        sums = np.cumsum(np.concatenate([[0.0], self.losses]))
        return (sums[window:] - sums[:-window]) / window

    @property
    def best(self) -> float:
        """The lowest mean of a twentieth of the run."""
        return float(self.means.min())

    @property
    def lost(self) -> float:
        """Share of the run, by means of a twentieth of it, in which the loss was clearly above start and baseline."""
        return float((self.means > 1.2 * max(self.start, self.baseline)).mean()) if len(self.losses) >= FEW else 0.0

    @property
    def relapse(self) -> float:
        """How much of what had been learnt was lost again, if it was more than a tenth of the baseline."""
        if len(self.losses) < FEW or not self.best < 0.9 * self.baseline:
            return 0.0
        return max(0.0, (self.end - self.best) / (self.baseline - self.best))

    @property
    def learnt(self) -> float:
        """Part of the baseline that is gone at the end: 0 for nothing learnt, 1 for a loss of 0; nan if not known."""
        if not self.baseline > 0:
            return np.nan
        return (self.baseline - self.end) / self.baseline

    @property
    def stuck(self) -> bool:
        """Whether the loss ended where it would be without learning, within what is measurable."""
        if len(self.losses) < FEW or self.opposed:
            return False
        return bool(self.end > self.baseline - max(0.03 * abs(self.baseline), 2 * self.end_error))

    @property
    def diverged(self) -> bool:
        """Whether the loss broke, or ended well above its start and what it would be without learning."""
        if self.broken_at is not None:
            return True
        if self.opposed:
            return False
        worst = max(self.start, self.baseline)
        return len(self.losses) >= FEW and bool(self.end > worst + max(0.2 * abs(self.baseline), 4 * self.end_error))

    @property
    def still_falling(self) -> bool:
        """Whether the last quarter is lower than the one before it by more than chance and a hundredth."""
        quarter = len(self.losses) // 4
        if quarter < 5:
            return False
        third, last = self.losses[-2 * quarter : -quarter], self.losses[-quarter:]
        error = np.hypot(third.std(), last.std()) / np.sqrt(quarter)
        return bool(third.mean() - last.mean() > max(2 * error, 0.01 * abs(third.mean())))

    @property
    def swing(self) -> float:
        """Deviation of the last third from step to step, relative to the baseline."""
        last = self.losses[-max(3, len(self.losses) // 3) :]
        if len(last) < 3 or not self.baseline > 0:
            return 0.0
        return float(np.diff(last).std() / np.sqrt(2) / self.baseline)


def descent(case: Case) -> Descent:
    """Of the losses in the evidence, or else of those in the history."""
    if "descent" not in case.derived:  # most rules ask for it, and chance is counted from up to 200,000 labels
        case.derived["descent"] = _descent(case)
    return case.derived["descent"]


def _descent(case: Case) -> Descent:
    recorded = case.history.loss
    every = case.evidence.losses if len(case.evidence.losses) or recorded is None else recorded
    every = np.asarray(every, np.float64)
    broken = np.flatnonzero(~np.isfinite(every))
    finite = every[np.isfinite(every)]
    if not len(finite):
        return Descent(finite, np.nan, np.nan, np.nan, np.nan, int(broken[0]) if len(broken) else None)
    tiny = len(case.evidence.train.batch_sizes) > 0 and np.median(case.evidence.train.batch_sizes) < 8
    start = float(finite[: 8 if tiny else 1].mean())
    tail = finite[-max(5, len(finite) // 10) :]
    lasting = len(broken) and (broken[-1] == len(every) - 1 or len(broken) > len(every) / 2)
    chance = chance_loss(case)
    return Descent(
        finite,
        start,
        float(tail.mean()),
        float(tail.std() / np.sqrt(len(tail))),
        chance,
        int(broken[0]) if lasting else None,
        opposed=case.evidence.models > 1 and bool(np.isnan(chance)),
    )


def chance_loss(case: Case) -> float:
    """The loss of the best constant prediction, on the scale of the recorded losses; nan where it is not known."""
    evidence = case.evidence
    calls = [call for call in evidence.calls if np.isfinite(call.value) and call.value != 0]
    if not calls:
        return np.nan
    call = calls[0]
    value = _entropy_of(call, evidence.train_labels)
    if call.options.get("reduction") == "sum":
        value *= call.input_shape[0] if call.input_shape else np.nan
    # the loss that went backward may be a part of it (accumulation) or a sum with others
    ratios = [evidence.losses[each.step] / each.value for each in calls if each.step < len(evidence.losses)]
    ratios = [ratio for ratio in ratios if np.isfinite(ratio)]
    if ratios and np.subtract(*np.quantile(ratios, (0.75, 0.25))) > 0.3 * abs(np.median(ratios)):
        return np.nan
    return value * float(np.median(ratios)) if ratios else value


def _entropy_of(call: LossCall, labels: Labels) -> float:
    shares = class_shares(labels)
    if call.name in _CROSS_ENTROPIES and call.target_kind == "index":
        if call.options.get("weight"):
            return np.nan
        if len(shares):
            return float(-(shares * np.log(shares)).sum())
        return float(np.log(call.input_shape[1])) if len(call.input_shape) > 1 else np.nan
    if call.name == "cross_entropy" and len(call.input_shape) > 1:  # shares of classes: mixup, smoothing
        return float(np.log(call.input_shape[-1]))
    if call.name in _BINARY:
        outputs = call.input_shape[-1] if call.input_shape else 1
        if call.one_hot > 0.99 and outputs > 1:
            return _binary_entropy(1 / outputs)
        if len(shares) == 2:
            return _binary_entropy(float(shares[0]))
    if call.name == "mse_loss" and np.isfinite(call.target_std):
        return call.target_std**2
    return np.nan


def _binary_entropy(p: float) -> float:
    return float(-p * np.log(p) - (1 - p) * np.log(1 - p))


def class_shares(labels: Labels) -> np.ndarray:
    """Shares of the classes that were seen, [class]."""
    known = labels.sequence[labels.sequence >= 0]  # -100 is ignored
    if not len(known):
        return np.zeros(0)
    counts = np.unique(known, return_counts=True)[1]
    return counts / counts.sum()


@dataclass(frozen=True)
class Accuracy:
    """Share of right predictions among `n`, against always naming the most frequent class; nan where unknown."""

    share: float
    majority: float
    n: int

    @property
    def margin(self) -> float:
        """Standard deviation of the share if predictions were chance."""
        return float(np.sqrt(self.majority * (1 - self.majority) / max(self.n, 1)))

    @property
    def above_chance(self) -> bool:
        """Whether it is more than chance, by a margin that is no accident."""
        return bool(self.share > self.majority + max(4 * self.margin, 0.03))

    @property
    def at_chance(self) -> bool:
        """Whether it is no more than chance, and this is measured closely enough to say so."""
        return bool(self.share < self.majority + max(3 * self.margin, 0.02)) and self.margin < 0.03


def accuracy(labels: Labels, items: slice = slice(None)) -> Accuracy:
    """Of some of the items."""
    n = min(len(labels.predicted), len(labels.sequence))
    truth, predicted = labels.sequence[:n][items], labels.predicted[:n][items]
    if not len(truth):
        return Accuracy(np.nan, np.nan, 0)
    return Accuracy(float((truth == predicted).mean()), float(class_shares(labels).max()), len(truth))


def late(labels: Labels) -> Accuracy:
    """Of the last fifth."""
    n = min(len(labels.predicted), len(labels.sequence))
    return accuracy(labels, slice(n - max(n // 5, min(n, 256)), n))


def last_round(case: Case) -> slice:
    """The items of the last validation among all that were validated."""
    steps, starts = case.evidence.valid_steps, case.evidence.valid_labels.starts
    if len(steps) == len(starts) > 0:
        return slice(int(starts[-int((steps == steps[-1]).sum())]), None)
    hashes = case.evidence.valid.hashes
    again = np.flatnonzero(hashes == hashes[0]) if len(hashes) == len(case.evidence.valid_labels.sequence) > 0 else []
    return slice(int(again[-1]), None) if len(again) else slice(None)  # where the first image comes for the last time


def learns(case: Case) -> bool:
    """Whether it plainly gets somewhere: a tenth of the baseline is gone, or predictions are better than chance."""
    how = descent(case)
    if how.diverged:
        return False
    return bool(how.learnt > 0.1) or late(case.evidence.train_labels).above_chance


def fails(case: Case) -> bool:
    """Whether the training plainly gets nowhere: its loss broke, rose, or does not fall."""
    how = descent(case)
    if how.diverged:
        return True
    return how.stuck and not late(case.evidence.train_labels).above_chance


def mixes_images(case: Case) -> bool:
    """Whether images are mixed (mixup, CutMix), so that a label is meant for a part of its image only."""
    calls = case.evidence.calls
    soft = any(call.target_kind == "float" and not call.one_hot > 0.99 and len(call.target_shape) > 1 for call in calls)
    return soft or len(calls) > len({(call.step, call.where, call.name) for call in calls})
