"""Pictures of a training run: losses and hyper-parameters over its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pellucid.plot.figure import new_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONG_NAMES = {
    "lr": "learning rate",
    "mom": "momentum",
    "sqr_mom": "squared-gradient momentum",
    "wd": "weight decay",
    "eps": "epsilon",
}


def plot_loss(
    train: Sequence[float],
    valid: Sequence[float] = (),
    valid_at: Sequence[int] = (),
    *,
    skip_start: int = 5,
    ax: Axes | None = None,
) -> Axes:
    """Plot the smoothed training loss over batches and the validation loss at the ends of epochs.

    Args:
        train: Smoothed training loss after each batch.
        valid: Validation losses.
        valid_at: Number of batches trained before each of them.
        skip_start: First batches left out, whose loss would stretch the axis.
        ax: Draw here; None makes a new figure.
    """
    if ax is None:
        ax = new_axes(6, 4)
    skip = skip_start if len(train) > 2 * skip_start else 0
    ax.plot(range(skip + 1, len(train) + 1), train[skip:], label="training (smoothed)", linewidth=1.6)
    if len(valid):
        ax.plot(valid_at, valid, "o-", label="validation", linewidth=1.6, markersize=4)
        ax.legend(frameon=False)
    ax.set(xlabel="batch", ylabel="loss")
    ax.grid(alpha=0.25)
    return ax


def plot_sched(hypers: Mapping[str, Sequence[float]], axes: Sequence[Axes] | None = None) -> Figure:
    """Plot hyper-parameters over the batches, one panel each; returns the figure."""
    if axes is None:
        _, grid = new_figure(1, len(hypers), figsize=(5 * len(hypers), 3.6), squeeze=False, layout="constrained")
        axes = list(grid.flat)
    for ax, (name, values) in zip(axes, hypers.items(), strict=True):
        ax.plot(range(1, len(values) + 1), values, linewidth=1.6)
        ax.set(xlabel="batch", ylabel=LONG_NAMES.get(name, name))
        ax.grid(alpha=0.25)
    return axes[0].figure  # type: ignore[return-value]
