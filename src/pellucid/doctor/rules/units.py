"""Units at the ends of their activation function: silent ReLUs, saturated sigmoids and tanhs.

Judged before training has changed anything: units that fall silent or saturate later are a sign of steps that are too
large, and count for that.

Healthy, and alike: GELU, SiLU and LeakyReLU (never exactly silent); half of a ReLU's outputs being zero, as long as
each unit answers to some image; wide layers that lose some units while they learn; sigmoids as output or gate that
become sure; batches of few images, of which any unit may ignore all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.evidence.record import Unit
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import descent, fails, learns
from pellucid.doctor.rules.operations import output_activation
from pellucid.doctor.rules.wording import layer, percent

_RELUS = ("relu", "relu6", "relu_", "threshold")
_FLAT_ENDED = ("tanh", "sigmoid", "hardtanh", "hardsigmoid", "softsign", "tanh_", "sigmoid_")


@rule
def dead(case: Case) -> Iterator[Suspicion]:
    """ReLUs that output only zeros from the first batch to the last (Lu et al., arXiv:1903.06733)."""
    units = [unit for unit in hidden(case) if unit.kind.lower() in _RELUS and len(unit.silent)]
    if not units:
        return
    worst = max(units, key=_dead_from_start)
    share = _dead_from_start(worst)
    if share > 0.3:
        prior = 0.9 if share > 0.9 else 0.75 if share > 0.5 else 0.35
        if learns(case):
            prior *= 0.9 if share > 0.7 else 0.4
        yield Suspicion(
            "dead-units",
            prior,
            f"{percent(share)} of the units of {layer(worst.name)} output only zeros, from the first batch to the last",
            {"share": share, "units": {unit.name: float(unit.silent[0]) for unit in units}},
            layer=worst.name,
            step=int(worst.steps[0]) if len(worst.steps) else 0,
            severity="error" if share > 0.95 else None,
            trials=("gradient-flow", "initial-scale", "normalised-input"),
        )
        return
    fallen = max(units, key=lambda unit: unit.always_silent - unit.silent[0])
    if fallen.always_silent - fallen.silent[0] > 0.4 and fails(case):
        since = np.flatnonzero(fallen.silent > fallen.silent[0] + 0.4)
        yield Suspicion(
            "learning-rate-too-high",
            0.3 if descent(case).starts_high else 0.6,
            f"at the end {percent(fallen.always_silent)} of the units of {layer(fallen.name)} output only zeros, at "
            f"the start {percent(fallen.silent[0])}",
            {"silent_first": float(fallen.silent[0]), "silent_last": fallen.always_silent},
            layer=fallen.name,
            step=int(fallen.steps[since[0]]) if len(since) else None,
            trials=("lower-rate",),
        )


@rule
def saturated(case: Case) -> Iterator[Suspicion]:
    """Sigmoids and tanhs beyond their flat part at the first look (Glorot and Bengio, AISTATS 2010, section 3)."""
    units = [unit for unit in hidden(case) if unit.kind.lower() in _FLAT_ENDED and len(unit.saturated)]
    if not units:
        return
    worst = max(units, key=lambda unit: unit.saturated[0])
    share = float(worst.saturated[0])
    if not share > 0.3:
        return
    prior = 0.85 if share > 0.6 else 0.7 if share > 0.45 else 0.4
    if learns(case):
        prior *= 0.8 if share > 0.6 else 0.4
    yield Suspicion(
        "saturated-units",
        prior,
        f"from the first batch, {percent(share)} of the outputs of {layer(worst.name)} are at the flat ends of "
        f"{worst.kind}",
        {"share": share, "units": {unit.name: float(unit.saturated[0]) for unit in units}},
        layer=worst.name,
        step=int(worst.steps[0]) if len(worst.steps) else 0,
        trials=("initial-scale", "gradient-flow", "normalised-input"),
    )


def hidden(case: Case) -> list[Unit]:
    """Activations other than the one on the model's output."""
    last = output_activation(case)
    units = case.evidence.units
    if last and units and units[-1].kind.lower().rstrip("_") == last.name.rstrip("_"):
        return units[:-1]
    return units


def _dead_from_start(unit: Unit) -> float:
    return float(min(unit.silent[0], unit.always_silent if np.isfinite(unit.always_silent) else 1.0))
