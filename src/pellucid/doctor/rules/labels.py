"""Labels that are random, and labels of which a share is wrong.

Healthy, and alike: label smoothing (losses stay away from zero); dropout, mixup and augmentation (training looks worse
than validation, for all images a little and not for some of them entirely); hard images, whose losses lie between; a
training that has not begun to learn, whose losses are all at chance.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.evidence.record import Labels
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import accuracy, class_shares, descent, fails, last_round, late, learns, mixes_images
from pellucid.doctor.rules.weights import step_sizes
from pellucid.doctor.rules.wording import percent

_UNLIKELY, _LIKELY = 0.1, 0.5  # probabilities of the given label


@rule
def carry_nothing(case: Case) -> Iterator[Suspicion]:
    """Chance on new images, and on training images until they come again (Zhang et al., arXiv:1611.03530)."""
    labels, how = case.evidence.train_labels, descent(case)
    n = min(len(labels.predicted), len(labels.sequence))
    if n < 1000 or len(class_shares(labels)) < 2:
        return
    early, end = accuracy(labels, slice(0, _unrepeated(case, n))), late(labels)
    valid = accuracy(case.evidence.valid_labels, last_round(case))
    if not early.at_chance or valid.above_chance:
        return
    if end.above_chance and valid.at_chance:
        prior = 0.85 if end.share > max(valid.share, early.share) + 0.1 else 0.5
        says = (
            f"validation stays at chance ({percent(valid.share)}); training rose from chance ({percent(early.share)}) "
            f"to {percent(end.share)} only as the images repeated: they are memorised"
        )
    elif end.above_chance and not valid.n:
        prior = 0.3  # perhaps only a slow start
        says = (
            f"training rose from chance ({percent(early.share)}) to {percent(end.share)} only as the images repeated, "
            "as if they were memorised"
        )
    elif fails(case):
        sizes = step_sizes(case)
        sizes = sizes[np.isfinite(sizes)]
        moving = len(sizes) > 0 and 1e-4 < np.median(sizes) < 0.03 and not how.diverged and how.peak < 2 * how.baseline
        prior = 0.45 if moving else 0.1
        says = (
            f"training and validation stay at chance ({percent(end.share)}), although the weights move"
            if valid.n
            else f"training stays at chance ({percent(end.share)}), although the weights move"
        )
    else:
        return
    yield Suspicion(
        "labels-random",
        prior,
        says,
        {"early": early.share, "late": end.share, "valid": valid.share, "chance": end.majority},
        step=0,
        trials=("shuffled-labels", "one-batch", "higher-rate"),
    )


def _unrepeated(case: Case, n: int) -> int:
    """How many of the first `n` items, a third at the most, came before any could be recognised."""
    starts, epochs = case.evidence.train_labels.starts, case.evidence.loop.epoch_starts
    second = int(starts[epochs[1]]) if len(epochs) > 1 and epochs[1] < len(starts) else n
    hashes = case.evidence.train.hashes[:n]
    return min(n // 3, second, len(np.unique(hashes)) if len(hashes) else n)


@rule
def partly_wrong(case: Case) -> Iterator[Suspicion]:
    """Two heaps of losses: labels that the model gives a fair probability, and labels it gives next to none.

    Source: Arazo et al., arXiv:1904.11238, section 3.1; Northcutt et al., arXiv:1911.00068.
    """
    trained = _spread(case.evidence.train_labels, slice(-_third(case.evidence.train_labels), None))
    valid = _spread(case.evidence.valid_labels, last_round(case))
    if trained is None or mixes_images(case) or not learns(case):
        return
    unlikely, between, likely = trained
    dropout = any("Dropout" in norm.kind for norm in case.evidence.norms)
    prior, says = 0.0, ""
    if valid and unlikely - valid[0] > 0.1 and _beyond(trained, valid):
        prior = 0.85 if not dropout else 0.75
        says = (
            f"the model gives {percent(unlikely)} of the training labels a probability below 0.1, but only "
            f"{percent(valid[0])} of the validation labels: at least {percent(unlikely - valid[0])} of the training "
            "labels are wrong"
        )
    elif likely > 0.4 and unlikely > 0.08 and unlikely > 0.9 * between:
        prior = 0.65 if unlikely > 1.3 * between and case.evidence.train_labels.width > 2 else 0.4
        says = (
            f"of the training labels, the model gives {percent(likely)} a probability above 0.5, {percent(unlikely)} "
            f"one below 0.1 and only {percent(between)} one in between: the {percent(unlikely)} look wrong"
        )
    if not prior:
        return
    yield Suspicion(
        "labels-noisy",
        prior,
        says,
        {"unlikely": unlikely, "between": between, "likely": likely, "valid_unlikely": valid[0] if valid else None},
        remedy=f"Look at the {percent(unlikely)} of the training images with the highest losses and correct their "
        "labels. Label smoothing limits the damage.",
        trials=("shuffled-labels", "one-batch"),
    )


def _beyond(trained: tuple[float, float, float], valid: tuple[float, float, float]) -> bool:
    """Whether labels became unlikely past the middle, and not because all probabilities shrank, as dropout does.

    Wrong labels are unlikely in nine cases of ten, whatever the right ones are; so the shares of both sets tell theirs.
    """
    more, wrong = trained[0] - valid[0], (trained[0] - valid[0]) / max(0.9 - valid[0], 0.1)
    if trained[0] > 2 * valid[0]:
        return more > trained[1] - valid[1]
    return wrong > 0.2 and trained[1] < valid[1]


def _third(labels: Labels) -> int:
    return max(1, len(labels.losses) // 3)


def _spread(labels: Labels, items: slice) -> tuple[float, float, float] | None:
    """Shares of labels that the model gives a small, a middling and a large probability; None of too few."""
    losses = labels.losses[items]
    losses = losses[np.isfinite(losses)]
    if len(losses) < 300:
        return None
    p = np.exp(-losses)
    unlikely, likely = float((p < _UNLIKELY).mean()), float((p > _LIKELY).mean())
    return unlikely, 1 - unlikely - likely, likely
