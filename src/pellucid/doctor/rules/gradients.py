"""Where gradients arrive, and how their size changes from layer to layer.

The gradient of a weight is judged relative to that weight, so that layers of different width compare, and at the first
look, before training has changed anything.

Healthy, and alike: frozen bodies (no gradient wanted, or in no optimizer); heads that one loss does not use; a body
that runs in no_grad on purpose; recurrent nets whose gradients have a long tail that is clipped; a factor of ten to
a hundred between the first and the last layer, which hardly counts here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from pellucid.doctor.evidence.record import Op, Parameter
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import descent, fails, learns
from pellucid.doctor.rules.weights import growth, layer_weights
from pellucid.doctor.rules.wording import layer, times
from pellucid.text import counted, first_few

_RECURRENT = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
_CUTS = (
    "detach",
    "detach_",
    "data",
    "numpy",
    "item",
    "tolist",
    "argmax",
    "round",
    "sign",
    "no_grad",
    "from_numpy",
    "tensor",
)


@rule
def broken(case: Case) -> Iterator[Suspicion]:
    """Weights that an optimizer holds and that never get a gradient, before a layer that does."""
    failure = case.evidence.failure
    if failure and "does not require grad" in failure.message:
        yield Suspicion(
            "broken-graph",
            0.9,
            "backward failed with “element 0 of tensors does not require grad”: the loss is not connected to the "
            "weights",
            {"message": failure.message},
            step=max(failure.step, 0),
            where=failure.where or None,
        )
        return
    parameters = [p for p in case.evidence.parameters if p.requires_grad]
    live = [i for i, p in enumerate(parameters) if p.has_grad > 0]
    if not live:
        return
    called = {layer.name for layer in case.history.layers if layer.shape} or {p.layer for p in parameters}
    cut = [p for p in parameters[: live[-1]] if p.has_grad == 0 and p.held >= 0 and p.layer in called]
    if not cut:
        return
    weights = [p for p in cut if len(p.shape) > 1] or cut
    last = weights[-1].layer
    reason = _cut(case)
    layers = list(dict.fromkeys(p.layer for p in cut))
    yield Suspicion(
        "broken-graph",
        0.93 if reason or len(layers) > 1 else 0.8,
        f"no gradient reaches {first_few(map(layer, layers), 4)}, although the optimizer holds "
        f"{'their' if len(layers) > 1 else 'its'} weights and later layers get gradients"
        + (f"; {reason.name} ({reason.where}) cuts the graph between them" if reason else ""),
        {"layers": layers, "cut_by": reason.name if reason else None},
        layer=last,
        step=0,
        where=reason.where if reason else None,
        remedy=f"Remove the {reason.name} at {reason.where}, or use torch operations there." if reason else None,
        trials=("gradient-flow",),
    )


def _cut(case: Case) -> Op | None:
    """The first operation that ends the graph: nothing from it to the next layer is attached any more."""
    ops, layers = case.evidence.ops, {p.layer for p in case.evidence.parameters}
    for i, op in enumerate(ops):
        if op.name in _CUTS and op.where:
            rest = ops[i + 1 :]
            between = rest[: next((j for j, each in enumerate(rest) if each.module in layers), len(rest))]
            if not any(each.attached for each in between):
                return op
    return None


@rule
def vanishing(case: Case) -> Iterator[Suspicion]:
    """Gradients that shrink by a steady factor per layer (Glorot and Bengio, AISTATS 2010, section 4.2.1)."""
    slope = _slope(layer_weights(case))
    if slope is None or slope[0] < 1:
        return
    decades, first, last, n = slope
    prior = 0.85 if decades > 4 else 0.75 if decades > 3 else 0.45 if decades > 2 else 0.15
    if learns(case):
        prior *= 0.3
    elif not fails(case):
        prior *= 0.7
    if growth(case) < 0.01:
        prior *= 0.7  # activations shrink as well: rather the initial scale
    yield Suspicion(
        "vanishing-gradients",
        prior,
        f"before the first step, the gradient of {layer(first.layer)} is {_power(decades)} smaller than that of "
        f"{layer(last.layer)}, {counted(n - 1, 'layer')} later (each relative to its weights)",
        {"decades": decades, "first": first.layer, "last": last.layer, "layers": n},
        layer=first.layer,
        step=0,
        trials=("gradient-flow", "initial-scale", "higher-rate"),
    )


@rule
def exploding(case: Case) -> Iterator[Suspicion]:
    """Gradients that grow towards the input, or are huge for the weights (Pascanu et al., arXiv:1211.5063)."""
    weights, how = layer_weights(case), descent(case)
    slope = _slope(weights)
    first = [p for p in weights if len(p.gradient) and len(p.weight)]
    if not first:
        return
    gradients = np.sqrt(sum(p.gradient[0] ** 2 * np.prod(p.shape) for p in first))
    sizes = np.sqrt(sum(p.weight[0] ** 2 * np.prod(p.shape) for p in first))
    force = float(gradients / sizes) if sizes > 0 else 0.0
    recurrent = any(p.kind in _RECURRENT for p in weights) or _called_again(case)
    prior, signs = 0.0, []
    if slope and slope[0] < -2:
        prior = 0.7 if slope[0] < -3 else 0.5
        signs.append(
            f"before the first step, the gradient of {layer(slope[1].layer)} is {_power(-slope[0])} larger than that "
            f"of {layer(slope[2].layer)} (each relative to its weights)"
        )
    if force > 10:
        prior = max(prior, 0.7 if recurrent else 0.55 if force > 1000 else 0.35)
        signs.append(f"at the first step, the gradient is {times(force)} as large as the weights themselves")
    spread = _tail(case)
    if spread > 100 and (recurrent or how.diverged):
        prior = max(prior, 0.6 if recurrent else 0.3)
        signs.append(f"the largest gradient of the run is {times(spread)} the typical one")
    if not signs:
        return
    if learns(case) and how.learnt > 0.1:  # a better guess than chance is little, where gradients are as large as that
        prior *= 0.3
    if (growth(case) > 100 or how.starts_high) and not recurrent:
        prior *= 0.5  # activations grow as well: rather the initial scale, or the inputs
    yield Suspicion(
        "exploding-gradients",
        prior,
        "; ".join(signs),
        {"gradient_to_weight": force, "largest_to_usual": spread},
        layer=first[0].layer,
        step=0,
        trials=("gradient-flow", "clipped", "lower-rate"),
    )


def _called_again(case: Case) -> bool:
    """Whether a layer with weights is called eight times in a pass or more, as the cell of a recurrent network is."""
    layers = {p.layer for p in case.evidence.parameters}
    calls = Counter((op.module, op.name) for op in case.evidence.ops if op.module in layers)
    return max(calls.values(), default=0) >= 8


def _slope(weights: list[Parameter]) -> tuple[float, Parameter, Parameter, int] | None:
    """Decades by which the gradient grows from the first layer to the last, on a straight line through all of them."""
    known = [p for p in weights if len(p.gradient) and len(p.weight) and p.gradient[0] > 0 and p.weight[0] > 0]
    if len(known) < 4:
        return None
    ratios = np.array([np.log10(p.gradient[0] / p.weight[0]) for p in known])
    per_layer = float(np.polyfit(np.arange(len(known)), ratios, 1)[0])
    return per_layer * (len(known) - 1), known[0], known[-1], len(known)


def _tail(case: Case) -> float:
    norms = case.history.series.get("grad.norm")
    if norms is None or not norms.size:
        return 1.0
    total = np.sqrt(np.nansum(norms.astype(np.float64) ** 2, axis=0))
    total = total[np.isfinite(total) & (total > 0)]
    return float(total.max() / np.median(total)) if len(total) else 1.0


def _power(decades: float) -> str:
    return times(10**decades) if decades < 7 else f"10^{decades:.0f} times"
