"""Schedules: pure functions from the fraction of training done to a value.

They hold no state, so they can be plotted and tested without training; `training.callbacks.schedule` writes their
values into the optimizer. Start and end may be arrays, with a value for each parameter group. At the end of the module
are the names that fastai has for the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pellucid.errors import UsageError

Schedule = Callable[[float], float]
"""Fraction of training done, in [0, 1] → value."""


def constant(value: float) -> Schedule:
    """`value` throughout."""
    return lambda pos: value


def linear(start: float, end: float) -> Schedule:
    """A straight line from `start` at 0 to `end` at 1."""
    return lambda pos: start + pos * (end - start)


def cosine(start: float, end: float) -> Schedule:
    """Half a cosine from `start` at 0 to `end` at 1, flat at both ends. Source: arXiv:1608.03983, eq. 5."""
    return lambda pos: end + (start - end) * (1 + math.cos(math.pi * pos)) / 2


def exponential(start: float, end: float) -> Schedule:
    """Equal ratios from `start` at 0 to `end` at 1: start · (end / start)^pos. Both must be positive."""
    if not (_positive(start) and _positive(end)):
        raise UsageError(f"an exponential schedule needs positive ends, got {start} and {end}")
    return lambda pos: start * (end / start) ** pos


def polynomial(start: float, end: float, power: float) -> Schedule:
    """From `start` at 0 to `end` at 1 along pos^power: start + (end - start) · pos^power."""
    return lambda pos: start + (end - start) * pos**power


def combined(fractions: Sequence[float], schedules: Sequence[Schedule]) -> Schedule:
    """Run `schedules` one after the other, each stretched over its fraction of training.

    Raises:
        UsageError: the numbers differ, a fraction is negative, or they do not add up to 1.

    >>> combined([0.25, 0.75], [linear(0, 1), constant(5)])(0.125)
    0.5
    """
    if len(fractions) != len(schedules):
        raise UsageError(f"{len(fractions)} fractions for {len(schedules)} schedules")
    if min(fractions) < 0 or not math.isclose(sum(fractions), 1.0, abs_tol=1e-6):
        raise UsageError(f"fractions must be positive and add up to 1, got {list(fractions)}")

    def value(pos: float) -> float:
        start = 0.0
        for fraction, schedule in zip(fractions[:-1], schedules[:-1], strict=True):
            if pos < start + fraction:
                return schedule((pos - start) / fraction)
            start += fraction
        return schedules[-1](min(1.0, (pos - start) / fractions[-1]) if fractions[-1] else 1.0)

    return value


def one_cycle(
    lr_max: float, *, div: float = 25.0, div_final: float = 1e5, pct_start: float = 0.25, legs: str = "cosine"
) -> Schedule:
    """Learning rate of 1cycle training: up from lr_max / div to lr_max, then down to lr_max / div_final.

    Args:
        lr_max: Highest learning rate.
        div: lr_max over the first learning rate.
        div_final: lr_max over the last one.
        pct_start: Fraction of training spent on the way up.
        legs: `cosine`, or `linear` as first published.

    Source: Smith and Topin, arXiv:1708.07120, section 4; cosine legs as in the book.

    >>> [round(one_cycle(0.06)(k / 8), 5) for k in range(4)]
    [0.0024, 0.0312, 0.06, 0.05598]
    """
    leg = _leg(legs)
    first, last = _divided(lr_max, div, "div"), _divided(lr_max, div_final, "div_final")
    return combined([pct_start, 1 - pct_start], [leg(first, lr_max), leg(lr_max, last)])


def cyclical_momentum(
    moms: tuple[float, float, float] = (0.95, 0.85, 0.95), *, pct_start: float = 0.25, legs: str = "cosine"
) -> Schedule:
    """Momentum that falls while the rate of `one_cycle` rises. Source: Smith, arXiv:1803.09820, section 4.2."""
    leg = _leg(legs)
    return combined([pct_start, 1 - pct_start], [leg(moms[0], moms[1]), leg(moms[1], moms[2])])


def flat_cosine(lr: float, *, div_final: float = 1e5, pct_start: float = 0.75) -> Schedule:
    """`lr` until `pct_start` of training, then a cosine down to lr / div_final."""
    last = _divided(lr, div_final, "div_final")
    return combined([pct_start, 1 - pct_start], [constant(lr), cosine(lr, last)])


def _positive(value: Any) -> bool:
    return bool((value > 0).all()) if hasattr(value, "all") else value > 0


def _divided(lr: float, by: float, name: str) -> float:
    if not _positive(by):
        raise UsageError(f"{name} divides a learning rate and must be above 0, got {by}")
    return lr / by


def _leg(name: str) -> Callable[[float, float], Schedule]:
    legs = {"cosine": cosine, "linear": linear}
    if name not in legs:
        raise UsageError(f"legs must be 'cosine' or 'linear', got {name!r}")
    return legs[name]


SchedLin, SchedCos, SchedExp, SchedPoly, combine_scheds = linear, cosine, exponential, polynomial, combined


def SchedNo(start: float, end: float) -> Schedule:
    """`start` throughout, whatever `end` is."""
    return constant(start)


def combined_cos(pct: float, start: float, middle: float, end: float) -> Schedule:
    """A cosine from `start` to `middle` on the first `pct` of training, and one from there to `end` on the rest."""
    return combined([pct, 1 - pct], [cosine(start, middle), cosine(middle, end)])
