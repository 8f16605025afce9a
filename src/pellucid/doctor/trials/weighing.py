"""How much two descents that differ in one respect speak for that respect being what is wrong."""

from __future__ import annotations

import math

import numpy as np

from pellucid.doctor.rules.wording import num


def end(losses: np.ndarray) -> float:
    """Where a descent came to: the mean of the last quarter of its losses."""
    return float(losses[-max(1, len(losses) // 4) :].mean())


def progress(losses: np.ndarray) -> float:
    """The share of its first loss that a descent lost: 1 for one that came to zero, 0 for none, −1 at the least."""
    first, last = float(losses[0]), end(losses)
    if not math.isfinite(last) or not math.isfinite(first):
        return -1.0
    return max(-1.0, (first - last) / max(abs(first), 1e-12))


def gain(before: np.ndarray, after: np.ndarray, start: float) -> float:
    """How much lower the second descent came, relative to a loss that it started from; −2 to 2."""
    return (_reached(before, start) - _reached(after, start)) / start


def confirming(more: float) -> float:
    """The odds of a fault whose remedy gained this much: 0.18 for nothing, 1 for 0.15, 6 for 0.3, 30 from 0.45 on.

    That a remedy helps a little is no proof: many a change makes the first steps of a healthy run faster.
    """
    return float(10 ** np.clip(5 * more - 0.75, -1.3, 1.5))


def helped(before: np.ndarray, after: np.ndarray, start: float, achieved: float = 0.0) -> float:
    """The odds of a fault whose remedy turned one descent into the other; what descends well already is not sick.

    Args:
        before, after: Losses by step.
        start: The loss of a model that knows nothing.
        achieved: The share of it that the run itself lost, in all its steps.
    """
    if not math.isfinite(end(before)) and end(after) < 0.5 * float(after[0]):
        return 10.0  # from nan or infinity to a descent: how far it comes in so few steps does not matter
    fell, more = 1 - _reached(before, start) / start, gain(before, after, start)
    if fell < 0.03 and more > 0:
        more *= 2  # where nothing moved, that something does counts for more
    well = max(fell, achieved)
    return min(confirming(more), 1.0 if well > 0.5 else 3.0 if well > 0.25 else math.inf)


def _reached(losses: np.ndarray, start: float) -> float:
    """Where a descent came to; at most twice where it began, which is as bad as not a number."""
    last = end(losses)
    return min(last, 2 * start) if math.isfinite(last) else 2 * start


def said(loss: float) -> str:
    """A loss as a sentence has it."""
    return num(loss) if math.isfinite(loss) else "infinite"


def instead(before: np.ndarray, after: np.ndarray) -> str:
    """`loss 0.31 instead of 1.58`."""
    return f"loss {said(end(after))} instead of {said(end(before))}"
