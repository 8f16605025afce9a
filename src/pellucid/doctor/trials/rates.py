"""Trials of the optimizer: its rate, its gradients, what it holds, its decay."""

from __future__ import annotations

import math

import numpy as np
import torch

from pellucid.doctor.trials.core import Outcome, trial
from pellucid.doctor.trials.specimen import Specimen
from pellucid.doctor.trials.weighing import confirming, end, gain, helped, instead, said

LOWER, HIGHER, FAR = 0.1, (10.0, 100.0), (1e3, 1e4)
LEARNT = 0.8  # share of the first loss: what lost more of it came far enough


@trial("lower-rate")
def lower_rate(specimen: Specimen) -> Outcome | None:
    """The same descent at a tenth of the rate; where the run diverged, from its present weights too."""
    n = specimen.steps(2)
    curves = {f"×{factor:g}": _at(specimen, factor, n) for factor in (LOWER, 1.0)}
    first, now = specimen.start, specimen.loss(present=True)
    lower, same = (_fell(losses, first) for losses in curves.values())
    numbers: dict[str, object] = {"steps": n, "start": first, "now": now}
    numbers |= {f"loss at {name}": end(losses) for name, losses in curves.items()}
    odds = helped(curves["×1"], curves["×0.1"], first, specimen.achieved)
    more = gain(curves["×1"], curves["×0.1"], first)
    if _at_once(specimen) and more > 0.05 and specimen.achieved < LEARNT:
        # At a fitting rate a tenth of it is slower from the first step on. The run may get somewhere all the same.
        odds = max(odds, min(10 ** (5 * more), 6.0))
    if specimen.initial is not None:
        if not now < 1.05 * specimen.first:
            curves["×0.1 from here"] = _at(specimen, LOWER, n, present=True)
            numbers["loss at ×0.1 from here"] = end(curves["×0.1 from here"])
            # The first steps went well and the run is worse than where it began: something threw it out on the way.
            odds = max(odds, 4.0 if same > 0.1 else 1.0)
        if lower > same + 0.03 and lower > max(specimen.achieved, 0.0) and specimen.train[-1].step > 2 * n:
            # A few small steps do more than the whole run did. Of few batches they may have learnt no more than these.
            ahead = _ahead(specimen, n)
            numbers["better on validation by"] = ahead
            odds = max(odds, 3.0 if ahead < -0.1 else 20.0 if ahead > 0 else 6.0)
    return Outcome(
        trial="lower-rate",
        says=_compared(n, first, curves),
        numbers=numbers,
        curves=curves,
        odds={"learning-rate-too-high": odds},
        rules_out={"learning-rate-too-high": "no better at 0.1×"} if odds < 0.3 else {},
    )


@trial("higher-rate")
def higher_rate(specimen: Specimen) -> Outcome | None:
    """The same descent at 10 and 100 times the rate."""
    n = specimen.steps(1 + len(HIGHER))
    curves = {f"×{factor:g}": _at(specimen, factor, n) for factor in (1.0, *HIGHER)}
    first = specimen.start
    made = [_fell(losses, first) for losses in curves.values()]
    for factor in FAR:
        # It is far from any rate that would do much: hardly anything moved, and the last did not throw it out either.
        if max(made) < 0.15 and made[-1] > made[0] - 0.05:
            curves[f"×{factor:g}"] = _at(specimen, factor, n)
            made.append(_fell(curves[f"×{factor:g}"], first))
    odds = confirming(max(made[1:]) - made[0])
    moved = max(made[0], specimen.achieved)
    if moved > 0.02:  # that it could move faster is no fault
        odds *= 0.3 if moved < 0.05 else 0.03
    return Outcome(
        trial="higher-rate",
        says=_compared(n, first, curves),
        numbers={"steps": n, "start": first, **{f"loss at {name}": end(each) for name, each in curves.items()}},
        curves=curves,
        odds={"learning-rate-too-low": odds},
        rules_out={"learning-rate-too-low": "no better at 10× and 100×" if odds > 0.1 else "the loss falls at 1×"}
        if odds < 0.3
        else {},
    )


@trial("clipped")
def clipped(specimen: Specimen) -> Outcome | None:
    """The same descent with gradients clipped to a norm of 1."""
    n = specimen.steps(2)
    before, after = _at(specimen, 1.0, n), specimen.descend(specimen.copy(), n, clip=1.0)
    factor = helped(before, after, specimen.start, specimen.achieved)
    if _fell(before, specimen.start) < 0.1:
        # Clipping changes little where the optimizer divides by the size of gradients anyway, or where those of the
        # first layers outweigh the others as much after it: that it does not help a sick run is a weak sign.
        factor = max(factor, 0.4)
    return Outcome(
        trial="clipped",
        says=f"{n} steps with gradients clipped to a norm of 1: {instead(before, after)}",
        numbers={"steps": n, "as it was": end(before), "clipped": end(after), "norm": 1.0},
        curves={"as it was": before, "clipped": after},
        odds={"exploding-gradients": factor, "learning-rate-too-high": min(max(factor, 1.0), 3.0)},
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
    n = specimen.steps(2 * len(places), times=2)  # decay takes 1 / (rate × decay) steps to show
    pairs: dict[bool, tuple[np.ndarray, np.ndarray]] = {}
    for present in places:
        model = specimen.copy(present=present)
        after = specimen.descend(model, n, optimizers=specimen.optimizers(model, weight_decay=0.0))
        pairs[present] = _at(specimen, 1.0, n, present=present), after
    present = max(pairs, key=lambda place: gain(*pairs[place], specimen.start))
    before, after = pairs[present]
    factor = helped(before, after, specimen.start, specimen.achieved)
    first, fell = pairs[False], _fell(pairs[False][1], specimen.start)
    if fell > max(specimen.achieved, _fell(first[0], specimen.start) + 0.1) and specimen.train[-1].step > len(after):
        factor = max(factor, 6.0)  # a few steps without it do more than the whole run did
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


def _at_once(specimen: Specimen) -> bool:
    """Whether the run began at its highest rate, without a warm-up that lets it bear a higher one."""
    groups = [group for recipe in specimen.recipes for group in recipe.groups]
    return bool(groups) and all(float(group.settings.get("lr", 0.0)) >= 0.9 * group.rate for group in groups)


def _ahead(specimen: Specimen, n: int) -> float:
    """By how much less a model after these steps at the lower rate loses on validation than the run's; 0 if unknown."""
    held = [batch for batch in specimen.valid if batch.label_values]
    if not held:
        return 0.0
    model = specimen.copy()
    specimen.descend(model, n, optimizers=specimen.optimizers(model, rate=LOWER))
    losses = []
    for each in (model, specimen.copy(present=True)):
        each.eval()
        with torch.no_grad():
            losses.append(float(np.mean([float(batch.replay(each)[0]) for batch in held])))
    return (losses[1] - losses[0]) / specimen.start


def _at(specimen: Specimen, factor: float, n: int, *, present: bool = False) -> np.ndarray:
    """Losses of a descent at so many times the run's rate."""
    model = specimen.copy(present=present)
    return specimen.descend(model, n, optimizers=specimen.optimizers(model, rate=factor))


def _compared(n: int, first: float, curves: dict[str, np.ndarray]) -> str:
    """Where descents from the same weights came to, by `×` and the factor on their rate."""
    *losses, last = (
        f"{said(end(each))} at {float(name[1:]):,g}×" for name, each in curves.items() if "here" not in name
    )
    ends = f"{', '.join(losses)} and {last}"
    return f"{n} steps each, from the same weights, bring the loss from {said(first)} to {ends} the learning rate"


def _fell(losses: np.ndarray, first: float) -> float:
    """The share of the mean first loss that a descent lost, −1 at the least."""
    last = end(losses)
    return max(-1.0, 1 - last / first) if math.isfinite(last) and first > 0 else -1.0
