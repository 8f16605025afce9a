"""Initial weights: too large, too small, or all the same.

A linear layer changes the size of its input by `gain`: the deviation of its weights times the root of the fan-in.
Kaiming has 1.4, which a ReLU needs; PyTorch's Linear and Conv2d start at 0.58, weights of 0.02, usual in transformers,
at 0.55 for 768 inputs.

Healthy, and alike: small weights before a norm layer (it undoes their scale); residual branches, adapters and heads
that start at zero on purpose (their gradients differ from unit to unit); pretrained weights; saturating functions,
which keep activations from growing (then it is saturated units).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import descent, fails, learns
from pellucid.doctor.rules.weights import fan_in, gain, growth, has_norms, layer_weights
from pellucid.doctor.rules.wording import layer, num, part, times
from pellucid.text import counted

_FLAT_ENDED = ("tanh", "sigmoid", "hardtanh", "hardsigmoid", "softsign")
_MAKES_UNITS = ("Linear", "Conv1d", "Conv2d", "Conv3d")
LARGE_GAIN, SMALL_GAIN = 4.0, 0.2


@rule
def large(case: Case) -> Iterator[Suspicion]:
    """Activations that grow from layer to layer before the first step (He et al., arXiv:1502.01852, section 2.2)."""
    gains, grown, how = _gains(case), growth(case), descent(case)
    if not len(gains):
        return
    typical = float(np.median(gains))
    grows = grown > 3 or np.isnan(grown)
    if how.starts_high and typical > LARGE_GAIN / 2 and grows:
        prior = 0.85
    elif typical > LARGE_GAIN and grows:
        prior = 0.6 if fails(case) else 0.4
    elif typical > LARGE_GAIN or (typical > LARGE_GAIN / 2 and grown > 100):
        prior = 0.3
    else:
        return
    if _saturating(case):
        prior *= 0.3  # what sits at its ends cannot grow
    elif has_norms(case):
        prior *= 0.6
    if learns(case) and not how.starts_high:
        prior *= 0.3
    yield _scale(case, "initial-scale-too-large", prior, typical, grown)


@rule
def small(case: Case) -> Iterator[Suspicion]:
    """Activations that shrink from layer to layer before the first step."""
    gains, grown = _gains(case), growth(case)
    if not len(gains):
        return
    typical = float(np.median(gains))
    if typical == 0:
        return  # all zero: symmetric
    if typical < SMALL_GAIN / 2:
        prior = 0.85
    elif typical < SMALL_GAIN or 0 < grown < 1e-3:
        prior = 0.6
    elif 0 < grown < 1e-2:
        prior = 0.2
    else:
        return
    if learns(case):  # an adaptive optimizer gets over it, late
        prior *= 0.7 if typical < SMALL_GAIN / 4 and descent(case).learnt < 0.15 else 0.15
    elif not fails(case):
        prior *= 0.7
    if has_norms(case):
        prior *= 0.4
    yield _scale(case, "initial-scale-too-small", prior, typical, grown)


def _scale(case: Case, name: str, prior: float, typical: float, grown: float) -> Suspicion:
    weights = [p for p in layer_weights(case, trained=False) if len(p.weight) and np.isfinite(p.weight[0])]
    off = max(weights, key=lambda p: abs(np.log(max(gain(p), 1e-12))))
    fitting = float(np.sqrt(2 / fan_in(off)))
    how = descent(case)
    change = ""
    if np.isfinite(grown) and (grown > 3 or grown < 1 / 3):
        how_much = f"{times(grown)} their size" if grown > 1 else f"{part(grown)} of their size"
        change = f"; from the first layer to the last, activations {'grow' if grown > 1 else 'shrink'} to {how_much}"
    start = (
        f"; the loss starts at {num(how.start)}, guessing gives {num(how.chance)}" if np.isfinite(how.chance) else ""
    )
    return Suspicion(
        name,
        prior,
        f"the initial weights of {layer(off.layer)} have a standard deviation of {num(float(off.weight[0]))}; Kaiming "
        f"initialisation gives {num(fitting)} for {counted(fan_in(off), 'input')}{change}{start}",
        {"gain": typical, "growth": grown, "layer_std": float(off.weight[0]), "fitting_std": fitting},
        layer=off.layer,
        step=0,
        remedy=f"Initialise with kaiming_normal_ (a standard deviation of {num(fitting)} in {layer(off.layer)} instead "
        f"of {num(float(off.weight[0]))}), or keep PyTorch's default initialisation.",
        trials=("initial-scale", "gradient-flow"),
    )


@rule
def symmetric(case: Case) -> Iterator[Suspicion]:
    """Units of a layer that start equal and get equal gradients (Goodfellow et al., Deep Learning, section 8.4)."""
    same = []
    for p in layer_weights(case):
        if p.shape[0] < 2 or not p.spread < 1e-4:
            continue
        if len(p.gradient) and p.gradient[0] == 0 and (p.gradient > 0).any():
            continue  # behind a head that starts at zero: it gets its gradient a step later
        still = len(p.gradient) > 0 and not (p.gradient > 0).any()  # zeros that not even get a gradient
        # The random weights after it give units that start equal different gradients, but all in the same direction.
        constant = len(p.weight) > 0 and p.weight[0] > 0 and fan_in(p) > 1 and p.kind in _MAKES_UNITS
        if constant or p.gradient_spread < 1e-3 or (still and len(p.weight) > 0 and p.weight[0] == 0):
            same.append(p)
    if not same:
        return
    layers = list(dict.fromkeys(p.layer for p in same))
    of_all = len(same) / max(len(layer_weights(case)), 1)
    alike = [p for p in same if p.gradient_spread < 1e-3]
    prior = 0.95 if of_all > 0.5 else 0.85 if not learns(case) else 0.5
    if not alike and any(p.weight[0] > 0 for p in same):
        prior = 0.8
    zero = all(len(p.weight) > 0 and p.weight[0] == 0 for p in same)
    yield Suspicion(
        "symmetric-initialisation",
        prior,
        f"all units of {', '.join(map(layer, layers[:3]))}{' and others' if len(layers) > 3 else ''} start with the "
        f"same weights{' (zero)' if zero else ''} and get "
        + ("the same gradient, so they stay identical" if alike or zero else "gradients in the same direction"),
        {"layers": layers, "share_of_layers": of_all},
        layer=layers[0],
        step=0,
        trials=("initial-scale",),
    )


def _gains(case: Case) -> np.ndarray:
    found = np.array([gain(p) for p in layer_weights(case)])
    return found[np.isfinite(found)]


def _saturating(case: Case) -> bool:
    units = case.evidence.units
    return bool(units) and sum(unit.kind.lower().rstrip("_") in _FLAT_ENDED for unit in units) >= len(units) / 2
