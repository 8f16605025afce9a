"""Trials of the optimizer: its rate, its gradients, what it holds, its decay."""

from __future__ import annotations

import math

import numpy as np

from pellucid.doctor.trials.core import Outcome, trial
from pellucid.doctor.trials.specimen import Specimen
from pellucid.doctor.trials.weighing import confirming, end, gain, helped, instead, said

RATES = 0.1, 1.0, 10.0, 100.0
FAR = 1e4


@trial("rate")
def rate(specimen: Specimen) -> Outcome | None:
    """The same descent at 0.1, 10 and 100 times the rate; where the run diverged, from its present weights too."""
    n = specimen.steps(len(RATES) + 1)
    curves = {f"×{factor:g}": _at(specimen, factor, n) for factor in RATES}
    first, now = specimen.start, specimen.loss(present=True)
    made = {factor: _fell(curves[f"×{factor:g}"], first) for factor in RATES}
    if max(made.values()) < 0.02:  # it is far from any rate that would do something
        curves[f"×{FAR:g}"] = _at(specimen, FAR, n)
        made[FAR] = _fell(curves[f"×{FAR:g}"], first)
    diverged = specimen.initial is not None and not now < 1.05 * specimen.first
    numbers: dict[str, object] = {"steps": n, "start": first, "now": now}
    numbers |= {f"loss at {name}": end(losses) for name, losses in curves.items()}
    too_high = helped(curves["×1"], curves["×0.1"], first, specimen.achieved)
    if diverged:
        curves["×0.1 from here"] = _at(specimen, 0.1, n, present=True)
        numbers["loss at ×0.1 from here"] = end(curves["×0.1 from here"])
        # The first steps went well and the run is worse than where it began: something threw it out on the way.
        too_high = max(too_high, 4.0 if made[1.0] > 0.1 else 1.0)
    too_low = confirming(max(made[factor] for factor in made if factor > 1) - made[1.0])
    moved = max(made[1.0], specimen.achieved)
    if moved > 0.02:  # that it could move faster is no fault
        too_low *= 0.3 if moved < 0.05 else 0.03
    *losses, last = (f"{said(end(curves[f'×{factor:g}']))} at {factor:,g}×" for factor in made)
    return Outcome(
        trial="rate",
        says=f"{n} steps each, from the same weights, bring the loss from {said(first)} to {', '.join(losses)} and "
        f"{last} the learning rate",
        numbers=numbers,
        curves=curves,
        odds={"learning-rate-too-high": too_high, "learning-rate-too-low": too_low},
        rules_out={
            name: words
            for name, words, odds in (
                ("learning-rate-too-high", "no better at 0.1×", too_high),
                (
                    "learning-rate-too-low",
                    "no better at 10× and 100×" if too_low > 0.1 else "the loss falls at 1×",
                    too_low,
                ),
            )
            if odds < 0.3
        },
    )


@trial("clipped")
def clipped(specimen: Specimen) -> Outcome | None:
    """The same descent with gradients clipped to a norm of 1."""
    n = specimen.steps(2)
    before, after = _at(specimen, 1.0, n), specimen.descend(specimen.copy(), n, clip=1.0)
    factor = helped(before, after, specimen.start, specimen.achieved)
    return Outcome(
        trial="clipped",
        says=f"{n} steps with gradients clipped to a norm of 1: {instead(before, after)}",
        numbers={"steps": n, "as it was": end(before), "clipped": end(after), "norm": 1.0},
        curves={"as it was": before, "clipped": after},
        odds={"exploding-gradients": factor, "learning-rate-too-high": min(factor, 3.0)},
        rules_out={"exploding-gradients": "no better with clipped gradients"} if factor < 0.3 else {},
    )


@trial("fresh-gradients")
def fresh_gradients(specimen: Specimen) -> Outcome | None:
    """Gradients that add up against gradients that are zeroed before every pass."""
    n = specimen.steps(2)
    piled, fresh = specimen.descend(specimen.copy(), n, zero=False), _at(specimen, 1.0, n)
    # How much it harms differs; that gradients were left in was seen, and is not what is tried here.
    factor = min(max(confirming(gain(piled, fresh, specimen.start)), 0.5), 5.0)
    return Outcome(
        trial="fresh-gradients",
        says=f"{n} steps with gradients zeroed before every backward pass: {instead(piled, fresh)}",
        numbers={"steps": n, "accumulated": end(piled), "zeroed": end(fresh)},
        curves={"as it was": piled, "zeroed": fresh},
        odds={"gradients-not-zeroed": factor},
    )


@trial("optimizer-holds-all")
def optimizer_holds_all(specimen: Specimen) -> Outcome | None:
    """With the parameters too that get gradients and that no optimizer holds."""
    left = specimen.not_held()
    if not specimen.recipes or not left:
        return None
    n = specimen.steps(2)
    before, model = _at(specimen, 1.0, n), specimen.copy()
    first, *others = specimen.recipes
    after = specimen.descend(
        model, n, optimizers=[first.make(model, more=left), *(recipe.make(model) for recipe in others)]
    )
    factor = max(
        confirming(gain(before, after, specimen.start)), 0.5
    )  # the loss may not need them; they are left out all the same
    return Outcome(
        trial="optimizer-holds-all",
        says=f"{n} steps with all parameters in the optimizer: {instead(before, after)}",
        numbers={"steps": n, "as it was": end(before), "with all": end(after), "left out": left[:20]},
        curves={"as it was": before, "with all parameters": after},
        odds={"parameters-not-optimised": factor},
    )


@trial("without-decay")
def without_decay(specimen: Specimen) -> Outcome | None:
    """The same descent without weight decay, from the weights it began with and from those it has now."""
    groups = [group for recipe in specimen.recipes for group in recipe.groups]
    if not any(group.settings.get("weight_decay") for group in groups):
        return None
    places = (False, True) if specimen.initial is not None else (False,)
    n = specimen.steps(2 * len(places))
    pairs: dict[bool, tuple[np.ndarray, np.ndarray]] = {}
    for present in places:
        model = specimen.copy(present=present)
        after = specimen.descend(model, n, optimizers=specimen.optimizers(model, weight_decay=0.0))
        pairs[present] = _at(specimen, 1.0, n, present=present), after
    present = max(pairs, key=lambda place: gain(*pairs[place], specimen.start))
    before, after = pairs[present]
    factor = helped(before, after, specimen.start, specimen.achieved)
    return Outcome(
        trial="without-decay",
        says=f"{n} steps without weight decay, from the {'present' if present else 'initial'} weights: "
        f"{instead(before, after)}",
        numbers={
            "steps": n,
            "as it was": end(before),
            "without decay": end(after),
            "from": ("initial", "now")[present],
        },
        curves={"as it was": before, "without decay": after},
        odds={"weight-decay-too-high": factor},
        rules_out={"weight-decay-too-high": "no better without it"} if factor < 0.3 else {},
    )


def _at(specimen: Specimen, factor: float, n: int, *, present: bool = False) -> np.ndarray:
    """Losses of a descent at so many times the run's rate."""
    model = specimen.copy(present=present)
    return specimen.descend(model, n, optimizers=specimen.optimizers(model, rate=factor))


def _fell(losses: np.ndarray, first: float) -> float:
    """The share of the mean first loss that a descent lost, −1 at the least."""
    last = end(losses)
    return max(-1.0, 1 - last / first) if math.isfinite(last) and first > 0 else -1.0
