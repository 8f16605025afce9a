"""A remedy tried on a copy: the same training with it and without, as losses and as pictures of a layer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pellucid.activations.watch import watch
from pellucid.doctor.remedies import FOR, REMEDIES, Course, as_it_was
from pellucid.doctor.report import Finding
from pellucid.doctor.trials.specimen import Specimen, aside
from pellucid.doctor.trials.weighing import end, said
from pellucid.errors import UsageError
from pellucid.history.history import History
from pellucid.plot.descents import plot_descents
from pellucid.plot.figure import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 3.0  # times the steps of a trial


@dataclass(frozen=True)
class Treatment:
    """What a remedy did.

    Attributes:
        fault, remedy: Their names.
        says: What was done and what came of it, in a sentence.
        before, after: Losses by step, of training as it was and with the remedy, on the same batches from the same
            weights.
        layer: Dotted name of the layer that the pictures are of; None where nothing was recorded.
        histories: What the layers did, before and after.
    """

    fault: str
    remedy: str
    says: str
    before: np.ndarray
    after: np.ndarray
    layer: str | None = None
    histories: tuple[History, ...] = field(default=(), repr=False)

    def plot(self) -> Figure:
        """Plot both losses and, where layers were recorded, the colours of one of them before and after."""
        figure, axes = new_figure(
            1, 1 + len(self.histories), figsize=(4.2 + 4 * len(self.histories), 3.4), layout="constrained"
        )
        first, *others = np.atleast_1d(axes)
        plot_descents({"as it was": self.before, "treated": self.after}, title=self.fault, ax=first)
        for name, history, ax in zip(("as it was", "treated"), self.histories, others, strict=True):
            history.color_dim(self.layer or -1, ax=ax, title=f"{self.layer}, {name}")
        return figure


def treat(
    specimen: Specimen, finding: Finding, *, remedy: str | None = None, budget_s: float = 20.0
) -> Treatment | None:
    """Train two copies of the model from its initial weights on the captured batches, one of them with a remedy.

    Nothing of the live model, its optimizer or the random numbers changes.

    Args:
        specimen: The run.
        finding: The fault.
        remedy: One of those in `pellucid.doctor.remedies.FOR`; None takes the first that can be applied.
        budget_s: Seconds it may take, roughly.

    Returns:
        None where no remedy can be applied without the user.

    Raises:
        UsageError: the specimen cannot be trained, or there is no such remedy for this fault.
    """
    if specimen.why:
        raise UsageError(f"no remedy can be tried: {specimen.why}")
    known = FOR.get(finding.name, ())
    if remedy is not None and remedy not in known:
        raise UsageError(f"{remedy!r} is no remedy for {finding.name}; known ones: {', '.join(known) or 'none'}")
    began = time.perf_counter()
    with aside():
        for name in known if remedy is None else (remedy,):
            says, prescription = REMEDIES[name]
            course = prescription(specimen)
            if course is not None:
                break
        else:
            return None
        specimen.deadline = began + budget_s
        n = specimen.steps(1, times=MOST)
        before, first = _recorded(specimen, as_it_was(specimen, finding.name), n)
        after, second = _recorded(specimen, course, n)
    histories = tuple(history for history in (first, second) if history is not None)
    layer = _layer(histories, finding.layer)
    return Treatment(
        fault=finding.name,
        remedy=name,
        says=f"{n} steps with {says}: loss {said(end(after))} instead of {said(end(before))}",
        before=before,
        after=after,
        layer=layer,
        histories=histories if layer is not None else (),
    )


def _recorded(specimen: Specimen, course: Course, n: int) -> tuple[np.ndarray, History | None]:
    options = {"loss": course.loss, "zero": course.zero, "clip": course.clip, "schedule": course.schedule}
    try:
        seen = watch(course.model, course.optimizers[0])
    except UsageError:  # a model without layers of torch's
        return specimen.descend(course.model, n, optimizers=course.optimizers, **options), None
    with seen:
        losses = specimen.descend(course.model, n, optimizers=course.optimizers, **options)
    return losses, seen.history


def _layer(histories: tuple[History, ...], wanted: str | None) -> str | None:
    """The layer to show: the one concerned if both runs have it, else the last but one of those with weights."""
    if len(histories) != 2:
        return None
    shared = [layer.name for layer in histories[0].layers if layer.name in {each.name for each in histories[1].layers}]
    if wanted in shared:
        return wanted
    return shared[-2] if len(shared) > 1 else shared[-1] if shared else None
