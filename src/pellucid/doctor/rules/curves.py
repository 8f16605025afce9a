"""Over- and underfitting, from the curves of training and validation.

Healthy, and alike: validation above training accuracy; a validation loss that wavers, on few images above all; one
epoch only, whose loss still falls (a note); mixup and label smoothing, with which the loss cannot come near zero.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import accuracy, descent, fails, last_round, late, mixes_images
from pellucid.doctor.rules.wording import num, percent

LITTLE = 0.2  # of the way to no mistakes: 28 % right of ten equal classes


@rule
def over(case: Case) -> Iterator[Suspicion]:
    """Validation loss rises while training loss falls (Goodfellow et al., Deep Learning, section 7.8)."""
    rounds = _rounds(case)
    how = descent(case)
    trained = late(case.evidence.train_labels)
    valid = accuracy(case.evidence.valid_labels, last_round(case))
    gap = trained.share - valid.share if trained.n and valid.n else np.nan
    prior, says, step = 0.0, "", None
    evidence: dict[str, object] = {"train_accuracy": trained.share, "valid_accuracy": valid.share}
    if len(rounds) >= 3:
        steps, losses, errors = rounds.T
        best = int(losses.argmin())
        rise = (losses[-1] - losses[best]) / losses[best] if losses[best] > 0 else 0.0
        sure = losses[-1] - losses[best] > 3 * np.hypot(errors[-1], errors[best])
        at_best = how.losses[max(0, int(steps[best]) - 20) : int(steps[best]) + 1]
        falls = len(at_best) > 0 and how.end < 0.9 * at_best.mean() and how.end < 0.8 * losses[-1]
        if rise > 0.05 and sure and falls:
            prior = 0.92 if rise > 0.4 else 0.8 if rise > 0.2 else 0.6 if rise > 0.1 else 0.3
            step = int(steps[best])
            says = (
                f"the validation loss was lowest at step {step} ({num(losses[best])}) and then rose to "
                f"{num(losses[-1])}, while the training loss fell to {num(how.end)}"
            )
            evidence |= {"best": losses[best], "last": losses[-1], "rise": rise, "train_loss": how.end}
    if gap > 0.15 and trained.share > 0.9 and valid.n >= 200 and prior < 0.75:
        prior = 0.85 if gap > 0.3 else 0.65
        says = f"the accuracy is {percent(trained.share)} in training and {percent(valid.share)} in validation"
    if prior and gap < 0.02:
        prior *= 0.4
    if prior:
        yield Suspicion("overfitting", prior, says, evidence, step=step)


def _rounds(case: Case) -> np.ndarray:
    """Step, mean loss and its standard error of each validation, [validation, 3]."""
    losses, steps = case.evidence.valid_losses, case.evidence.valid_steps
    n = min(len(losses), len(steps))
    losses, steps = losses[:n], steps[:n]
    found = []
    for step in np.unique(steps):
        values = losses[(steps == step) & np.isfinite(losses)]
        if len(values):
            # one or two batches do not say how far they may be off: we take a tenth
            error = values.std() / np.sqrt(len(values)) if len(values) > 2 else 0.1 * abs(values.mean())
            found.append((step, values.mean(), error))
    return np.array(found) if found else np.zeros((0, 3))


@rule
def under(case: Case) -> Iterator[Suspicion]:
    """A loss far from zero that still falls, or lies flat, with nothing else wrong."""
    how, end = descent(case), late(case.evidence.train_labels)
    if len(how.losses) < 50 or how.diverged or np.isnan(how.learnt):
        return
    if fails(case):
        yield _under(case, 0.25, f"the loss stays at {num(how.end)}, no better than guessing", None)
        return
    if how.learnt > 0.5 or end.share > 0.7 or how.relapse > 0.3:
        return
    accuracy_so_far = f" (accuracy {percent(end.share)})" if end.n else ""
    reached = _reached(case)
    if how.still_falling:
        says = f"the loss was still falling when training ended, at {num(how.end)}{accuracy_so_far}"
        yield _under(case, 0.55, says, None if reached < LITTLE else "note")
    elif len(how.losses) >= 200:
        soft = any(call.target_kind == "float" and call.name == "cross_entropy" for call in case.evidence.calls)
        grave = reached < LITTLE or (np.isnan(reached) and how.learnt < 0.15 and not soft)
        yield _under(
            case,
            0.6 if how.learnt < 0.35 and not soft else 0.5,
            f"the loss stopped falling, at {num(how.end)}{accuracy_so_far}; guessing gives {num(how.baseline)}",
            None if grave else "note",
        )


def _reached(case: Case) -> float:
    """How far the accuracy is on the way from the most frequent class to 1; nan if not known.

    Unlike the loss, that of validation says the same under mixup, dropout and label smoothing. Training alone looks
    worse with them than it is, so it counts double, and not at all where images are mixed.
    """
    valid, trained = accuracy(case.evidence.valid_labels, last_round(case)), late(case.evidence.train_labels)
    way = [
        (each.share - each.majority) / (1 - each.majority) if each.majority < 1 else np.nan for each in (valid, trained)
    ]
    if valid.n:
        return float(np.nanmax(way))
    return np.nan if mixes_images(case) else 2 * way[1]


def _under(case: Case, prior: float, says: str, severity: str | None) -> Suspicion:
    how = descent(case)
    falling = how.still_falling
    return Suspicion(
        "underfitting",
        prior,
        says,
        {"start": how.start, "end": how.end, "learnt": how.learnt},
        severity=severity,
        remedy="Train for more epochs." if falling else "Use more channels or layers, or train longer.",
        trials=("higher-rate", "lower-rate", "one-batch", "capacity"),
    )
