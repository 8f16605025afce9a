"""How backward, step and zero_grad follow one another.

Healthy, and alike: gradient accumulation (several backwards per step, the first of which finds zeroed gradients); two
optimizers, each zeroed before its own backward; several losses for one step; siamese calls (several passes for one
backward); loops that update the weights by hand, without an optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.evidence.record import Loop
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import fails
from pellucid.doctor.rules.wording import percent
from pellucid.text import counted

_MOST_ACCUMULATED = 64  # batches; more than that without a step is hardly meant


@rule
def not_zeroed(case: Case) -> Iterator[Suspicion]:
    """Gradients of the batch before are still there, and the optimizer steps for every batch.

    Source: PyTorch recipes, "Zeroing out gradients in PyTorch".
    """
    loop = case.evidence.loop
    left = loop.left_before_backward[np.isfinite(loop.left_before_backward)]
    if len(left) > 1:
        left = left[1:]  # nothing came before the first
    if not len(left) or loop.steps < 2:
        return
    share = float((left > 1e-6).mean())
    if share < 0.3:
        return
    per_step = float(np.median(loop.backwards_per_step)) if len(loop.backwards_per_step) else 1.0
    prior = 0.95 if share > 0.6 else 0.8
    if per_step > 1:
        prior -= 0.1  # accumulation that is never cleared: as wrong, but rarer
    if len(case.evidence.optimizers) > 1:
        prior = min(prior, 0.5)
    size = float(np.median(left[left > 1e-6]))
    yield Suspicion(
        "gradients-not-zeroed",
        prior,
        f"at {percent(share)} of the steps looked at, backward found gradients of earlier steps and added to them: "
        f"the old ones were {percent(size)} as large as the sum that the step used",
        {"share": share, "left": size, "backwards_per_step": per_step},
        step=int(loop.left_steps[np.argmax(loop.left_before_backward > 1e-6)]) if len(loop.left_steps) else None,
        trials=("fresh-gradients", "lower-rate"),
    )


@rule
def not_stepped(case: Case) -> Iterator[Suspicion]:
    """Many backwards, and no step or far too few."""
    loop = case.evidence.loop
    if loop.backwards < 5:
        return
    steps = loop.steps
    stepped = [optimizer for optimizer in case.evidence.optimizers if optimizer.steps]
    if not steps and not stepped:
        if _weights_move(case) or (not case.evidence.optimizers and not fails(case)):
            return  # the loop updates them by hand
        yield _unstepped(case, 0.95 if case.evidence.optimizers else 0.8, ", but the optimizer never stepped")
        return
    per_step = loop.backwards / max(steps, 1)
    if per_step > 1.5 and loop.discarded > 0.3:
        yield _unstepped(
            case,
            0.92,
            f" for {counted(steps, 'optimizer step')}: {percent(loop.discarded)} of the gradients were zeroed before a "
            "step had used them",
        )
    elif per_step > _MOST_ACCUMULATED or (per_step >= 8 and _once_per_epoch(loop)):
        yield _unstepped(
            case,
            0.7,
            f" for {counted(steps, 'optimizer step')}: each step adds up the gradients of {per_step:.0f} batches",
        )


def _unstepped(case: Case, prior: float, rest: str) -> Suspicion:
    loop = case.evidence.loop
    return Suspicion(
        "optimizer-not-stepped",
        prior,
        f"backward was called {loop.backwards:,} times{rest}",
        {"backwards": loop.backwards, "steps": loop.steps, "discarded": loop.discarded},
        step=0,
        trials=("higher-rate",),
    )


def _once_per_epoch(loop: Loop) -> bool:
    starts = np.array(loop.epoch_starts)
    return len(starts) > 2 and bool((np.diff(starts) <= 1).all())


def _weights_move(case: Case) -> bool:
    return any(len(p.weight) > 1 and bool((p.weight != p.weight[0]).any()) for p in case.evidence.parameters)
