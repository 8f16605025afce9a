"""Memory that grows and time that is spent waiting.

Healthy, and alike: memory that grows over the first steps and then stays; a data set that is cached in memory during
the first epoch; a list of losses as plain numbers; a small network that is simply faster than its data (a note).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.wording import num, percent


@rule
def memory(case: Case) -> Iterator[Suspicion]:
    """A steady growth over the whole run, or a tensor that is known to hold the graphs of earlier steps.

    Source: PyTorch FAQ, under "out of memory": "Don't accumulate history across your training loop."
    """
    seen = case.evidence.resources
    _, per_step = _growth(seen.live_tensors, seen.steps)
    mib, mib_per_step = _growth(seen.live_mib, seen.steps)
    graphs = [holder for holder in seen.holders if "operation" in holder]
    if graphs:
        prior = 0.93
    elif seen.holders:  # a list that only grows, of tensors with their graphs; a short run is not looked at often
        prior = 0.9
    elif mib > 0.3 and mib_per_step > 0.01:
        prior = 0.8
    else:
        return
    held = f"; the tensors are held by {(graphs or seen.holders)[0]}" if seen.holders else ""
    amounts = []
    if mib_per_step > 0.01:
        amounts.append(f"{num(mib_per_step)} MiB")
    if per_step >= 0.5:
        amounts.append(f"{num(round(per_step, 1))} tensors")
    growing = f"each step leaves {' and '.join(amounts)} in memory" if amounts else "memory keeps growing"
    yield Suspicion(
        "memory-growing",
        prior,
        f"{growing}{held}",
        {"tensors_per_step": per_step, "mib_per_step": mib_per_step, "holders": seen.holders[:5]},
    )


def _growth(values: np.ndarray, steps: np.ndarray) -> tuple[float, float]:
    """Relative growth over the later three quarters, and per step, if it is steady; else zeros."""
    n = min(len(values), len(steps))
    if n < 4:
        return 0.0, 0.0
    late = steps[:n] >= steps[0] + (steps[n - 1] - steps[0]) / 4
    x, y = steps[:n][late].astype(np.float64), values[:n][late].astype(np.float64)
    if len(x) < 3 or x[-1] == x[0] or not y[0] > 0 or (np.diff(y) < 0).mean() > 0.2:
        return 0.0, 0.0
    half = len(y) // 2
    if y[-1] - y[half] < 0.2 * (y[-1] - y[0]):
        return 0.0, 0.0  # it has levelled out
    return float((y[-1] - y[0]) / y[0]), float((y[-1] - y[0]) / (x[-1] - x[0]))


@rule
def waiting(case: Case) -> Iterator[Suspicion]:
    """The share of the time that the loop waits for data, without the first tenth of the run, which starts workers."""
    seen = case.evidence.resources
    n = min(len(seen.step_s), len(seen.waited_s))
    if n < 20:
        return
    step_s, waited_s = seen.step_s[n // 10 : n], seen.waited_s[n // 10 : n]
    known = np.isfinite(step_s) & np.isfinite(waited_s)
    if not step_s[known].sum() > 0:
        return
    share = float(waited_s[known].sum() / step_s[known].sum())
    each, step = float(waited_s[known].mean()), float(step_s[known].mean())
    if share < 0.5:
        return
    grave = share > 0.85 and each > 0.1
    yield Suspicion(
        "input-bound",
        0.9 if grave else 0.6 if share > 0.8 else 0.5 if share > 0.7 else 0.3,
        f"the loop spends {percent(share)} of its time waiting for data: {num(1000 * each)} of {num(1000 * step)} ms "
        "per step",
        {"share": share, "waited_s": each},
        severity=None if grave else "note",
    )
