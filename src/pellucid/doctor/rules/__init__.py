"""The rules by which a run is suspected of faults: one module per family, and each says its source and look-alikes."""

from pellucid.doctor.rules import (
    curves,
    data,
    gradients,
    inputs,
    labels,
    loop,
    losses,
    modes,
    norms,
    numbers,
    optimizers,
    outputs,
    rates,
    resources,
    scale,
    schedules,
    units,
)
from pellucid.doctor.rules.core import RULES, Case, Suspicion

__all__ = [
    "RULES", "Case", "Suspicion", "curves", "data", "gradients", "inputs", "labels", "loop", "losses", "modes", "norms",
    "numbers", "optimizers", "outputs", "rates", "resources", "scale", "schedules", "suspicions", "units",
]  # fmt: skip


def suspicions(case: Case) -> list[Suspicion]:
    """What all rules find in a run, most probable first."""
    return sorted((each for rule in RULES for each in rule(case)), key=lambda each: -each.prior)
