"""Losses of descents that differ in one respect, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pellucid.plot.figure import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "crimson", "tab:blue", "tab:green", "tab:orange", "tab:purple"
WIDE = 30.0  # largest over smallest loss, from which on the axis is logarithmic


def plot_descents(curves: Mapping[str, np.ndarray], *, title: str = "", ax: Axes | None = None) -> Axes:
    """Plot losses by step, a line for each name; one that is not finite ends with a cross.

    Args:
        curves: Name → losses, [step].
        title: Above the panel.
        ax: Where to draw; None makes a new figure.
    """
    ax = new_axes(5, 3.2) if ax is None else ax
    finite = [losses[np.isfinite(losses)] for losses in curves.values()]
    for number, (name, losses) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        good = np.isfinite(losses)
        n = len(losses) if good.all() else int(good.argmin())
        ax.plot(np.arange(n), losses[:n], linewidth=1.4, color=colour, label=name)
        if 0 < n < len(losses):
            ax.plot(n - 1, losses[n - 1], marker="x", color=colour)
    seen = np.concatenate([each for each in finite if len(each)]) if any(map(len, finite)) else np.ones(1)
    if seen.min() > 0 and seen.max() / seen.min() > WIDE:
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="loss")
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize="small")
    if title:
        ax.set_title(title, fontsize="medium")
    return ax
