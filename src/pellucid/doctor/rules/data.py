"""Order of the data, images in both sets, classes out of balance.

Healthy, and alike: batches balanced on purpose, and batches of a few classes for losses on pairs; one batch trained on
again and again, as a test; one epoch in any order; data that stream without epochs; training images that are measured
once more in evaluation mode; a few twins, which most data sets have; rare classes that are weighted or sampled more
often, or recognised all the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from pellucid.doctor.evidence.record import Labels
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import last_round
from pellucid.doctor.rules.wording import num, percent
from pellucid.text import first_few

FEWEST = 10  # different images of a validation set, of which a share says something
_CLASSIFICATION = ("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss")


@rule
def not_shuffled(case: Case) -> Iterator[Suspicion]:
    """Batches with fewer classes than a shuffled set would give, or the same order in every epoch.

    Source: LeCun et al., "Efficient BackProp", section 4.2 ("Shuffling the Examples").
    """
    labels = case.evidence.train_labels
    calls = case.evidence.calls
    if calls and calls[-1].name not in _CLASSIFICATION:
        return
    share, seen, expected = _mixture(labels)
    if share < 0.8:
        prior = 0.95 if share < 0.4 else 0.85 if share < 0.6 else 0.4
        yield Suspicion(
            "data-not-shuffled",
            prior,
            f"a batch contains {_classes(seen)} on average; shuffled, it would contain {_classes(expected)}",
            {"classes_per_batch": seen, "expected": expected},
            step=0,
        )
        return
    period = _period(case)
    if period:
        yield Suspicion(
            "data-not-shuffled",
            0.8,
            f"every epoch goes through the same {period:,} images in the same order",
            {"period": period},
            step=0,
        )


def _classes(number: float) -> str:
    return "one class" if number < 1.05 else f"{num(round(number, 1))} classes"


def _mixture(labels: Labels) -> tuple[float, float, float]:
    """Classes per batch relative to a shuffled order, and both numbers; 1 where it cannot be said."""
    bounds = np.append(labels.starts, len(labels.sequence))
    batches = [labels.sequence[a:b] for a, b in itertools.pairwise(bounds) if b - a > 1][:400]
    if len(batches) < 10 or len(np.unique(labels.sequence)) < 2:
        return 1.0, np.nan, np.nan
    shuffled = np.random.default_rng(0).permutation(np.concatenate(batches))
    ends = np.cumsum([len(batch) for batch in batches])[:-1]
    seen = float(np.mean([len(np.unique(batch)) for batch in batches]))
    expected = float(np.mean([len(np.unique(batch)) for batch in np.split(shuffled, ends)]))
    # one class per batch is 0, as many as in shuffled ones is 1
    return ((seen - 1) / (expected - 1) if expected > 1.05 else 1.0), seen, expected


def _period(case: Case) -> int | None:
    """Images after which the same ones come again in the same order, at least three batches; else None."""
    labels, hashes = case.evidence.train_labels, case.evidence.train.hashes
    starts = labels.starts
    for sequence in (hashes, labels.sequence):
        if len(np.unique(sequence)) < 2 or len(starts) < 6:
            continue
        head = sequence[:64]
        if any(_begins_with(sequence[start:], head) for start in starts[1:3]):
            continue  # one batch again and again, or classes one after the other
        for start in starts[3:]:
            rest = sequence[start : 2 * start]
            if len(rest) < 0.9 * start:
                break  # a second epoch that is seen as good as whole
            if _begins_with(sequence[start:], head) and len(np.unique(rest)) > 1:
                if (sequence[: len(rest)] == rest).mean() > 0.99:
                    return int(start)
                break
    return None


def _begins_with(sequence: np.ndarray, head: np.ndarray) -> bool:
    return bool((sequence[: len(head)] == head[: len(sequence)]).all())


@rule
def leakage(case: Case) -> Iterator[Suspicion]:
    """Validation images that were trained on (Kapoor and Narayanan, arXiv:2207.07048, L1.4)."""
    train, valid = case.evidence.train, case.evidence.valid
    if not len(train.hashes) or not len(valid.hashes):
        return
    mine, own = np.unique(train.hashes), valid.from_training_loader
    found = np.isin(valid.hashes, mine)
    measured = found & _whole_batches(found, valid.batch_sizes)
    covered = len(np.unique(valid.hashes[measured])) / len(mine)
    # whole batches of training images beside others: the loop measures its training accuracy as well
    beside = found[~measured]
    meant = own > 0.02 or covered > 0.8 or (np.isnan(own) and len(beside) > 0 and beside.mean() < 0.01)
    new = ~measured if meant else np.ones(len(found), bool)
    if not new.any():
        return
    # Each image counts once: what appears again and again (empty ones, one colour) is told from no other image.
    checked = np.unique(valid.hashes[new])
    if len(checked) < FEWEST:
        return
    share = min(float(found[new].mean()), float(np.isin(checked, mine).mean()))
    again = _again(case)
    if 0.002 < again < 0.5 and share > max(0.005, 0.3 * again) and share * len(checked) >= FEWEST:
        yield Suspicion(
            "train-valid-leakage",
            0.85,
            f"{percent(share)} of the validation images are identical to an augmented training image, and of training "
            f"images no more than {percent(again)} repeat, so the two sets share images",
            {"share": min(1.0, share / again), "identical": share, "repeated": again},
        )
    elif share > 0.02:
        prior = 0.95 if share > 0.1 else 0.8 if share > 0.04 else 0.5
        if share > 0.98 and np.isnan(own):
            prior = 0.7  # perhaps only the training accuracy was measured
        yield _leak(share, prior, "are identical to a training image")
    elif len(train.nears) and len(valid.nears) == len(found):
        twins = 1 - len(np.unique(train.nears)) / max(len(mine), 1)  # how often two training images look alike
        near = float(np.isin(valid.nears[new], np.unique(train.nears)).mean())
        if near > max(0.15, 3 * max(twins, 0) + 0.1):
            yield _leak(near, 0.75, "are almost identical to a training image")


def _again(case: Case) -> float:
    """Of the training images after the first epoch, the share that had come before, to the bit; 1 where not known.

    Augmentation makes it small: then few validation images are found among training images, even if all are there.
    """
    hashes, epochs = case.evidence.train.hashes, case.evidence.loop.epoch_starts
    sizes = case.evidence.train.batch_sizes
    if len(epochs) < 2 or epochs[1] > len(sizes):
        return 1.0
    later = len(hashes) - int(sizes[: epochs[1]].sum())
    return (len(hashes) - len(np.unique(hashes))) / later if later > 0 else 1.0


def _leak(share: float, prior: float, what: str) -> Suspicion:
    return Suspicion(
        "train-valid-leakage", prior, f"{percent(share)} of the validation images {what}", {"share": share}
    )


def _whole_batches(found: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Of each item, whether all of its batch was found."""
    if sizes.sum() != len(found):
        return np.zeros(len(found), bool)
    whole = [part.mean() > 0.98 for part in np.split(found, np.cumsum(sizes)[:-1])]
    return np.repeat(whole, sizes)


@rule
def imbalance(case: Case) -> Iterator[Suspicion]:
    """Classes that are rare in training and missed in validation (He and Garcia, TKDE 2009)."""
    labels, valid = case.evidence.train_labels, case.evidence.valid_labels
    classes, counts = np.unique(labels.sequence, return_counts=True)
    if not 2 <= len(classes) <= 1000 or len(labels.sequence) < 30 * len(classes):
        return
    calls = case.evidence.calls
    if calls and calls[-1].name not in _CLASSIFICATION[:4] and not (labels.compared or valid.compared):
        return  # whole numbers that are no classes
    weighted = any(call.options.get("weight") for call in case.evidence.calls)
    ratio = counts.max() / counts.min()
    rare = classes[counts < 0.3 * counts.sum() / len(classes)]
    if ratio < 4 or not len(rare):
        return
    checked, items = (
        (valid, last_round(case)) if len(valid.predicted) else (labels, slice(-len(labels.sequence) // 3, None))
    )
    n = min(len(checked.predicted), len(checked.sequence))
    truth, predicted = checked.sequence[:n][items], checked.predicted[:n][items]
    recalls = {int(c): float((predicted[truth == c] == c).mean()) for c in classes if (truth == c).sum() >= 5}
    common = [recall for c, recall in recalls.items() if c not in rare]
    missed = [c for c in rare if c in recalls and common and recalls[int(c)] < 0.5 * float(np.mean(common))]
    if missed:
        prior = 0.92 if ratio >= 8 else 0.8
        worst = min(missed, key=lambda c: recalls[int(c)])
        says = (
            f"the model recognises {percent(recalls[int(worst)])} of the images of class {worst}, but "
            f"{percent(float(np.mean(common)))} of those of frequent classes; the training set has "
            f"{counts.max() / counts[classes == worst][0]:.0f} times as many images of class {classes[counts.argmax()]}"
        )
    else:
        prior = 0.6 if ratio >= 10 and not recalls else 0.15
        says = (
            f"the most frequent class has {ratio:.0f} times as many images as the rarest "
            f"(rare classes: {first_few(rare, 4)})"
        )
    if weighted:
        prior *= 0.4
    yield Suspicion(
        "class-imbalance",
        prior,
        says,
        {"counts": dict(zip(map(str, classes.tolist()), counts.tolist(), strict=True)), "recalls": recalls},
        step=0,
        remedy="Weight the loss by class (cross_entropy(weight=...)), or sample the rare classes "
        f"({first_few(rare, 4)}) more often (WeightedRandomSampler).",
    )
