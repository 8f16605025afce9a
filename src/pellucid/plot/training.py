"""Pictures of a training run: losses and hyper-parameters over its batches, and the learning rate range test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
    "dampening": "dampening of momentum",
}


def plot_loss(
    train: Sequence[float] | np.ndarray,
    valid: Sequence[float] | np.ndarray = (),
    valid_at: Sequence[int] | np.ndarray = (),
    *,
    train_at: Sequence[int] | np.ndarray | None = None,
    skip_start: int = 5,
    raw: Sequence[float] | np.ndarray = (),
    ax: Axes | None = None,
) -> Axes:
    """Plot the smoothed training loss over batches and the validation loss at the ends of epochs.

    Args:
        train: Smoothed training loss after each batch.
        train_at: Number of batches trained at each of them; None counts from 1.
        valid: Validation losses.
        valid_at: Number of batches trained before each of them.
        skip_start: First batches left out, whose loss would stretch the axis.
        raw: Loss of each batch before smoothing, drawn pale behind.
        ax: Draw here; None makes a new figure.
    """
    if ax is None:
        ax = new_axes(6, 4)
    skip = skip_start if len(train) > 2 * skip_start else 0
    at = range(1, len(train) + 1) if train_at is None else train_at
    if len(raw):
        ax.plot(at[skip:], raw[skip:], color="C0", alpha=0.3, linewidth=0.8)
    ax.plot(at[skip:], train[skip:], label="training (smoothed)", linewidth=1.6)
    if len(valid):
        ax.plot(valid_at, valid, "o-", label="validation", linewidth=1.6, markersize=4)
        ax.legend(frameon=False)
    ax.set(xlabel="batch", ylabel="loss")
    ax.grid(alpha=0.25)
    return ax


def plot_sched(
    hypers: Mapping[str, Any], axes: Sequence[Axes] | None = None, *, at: Sequence[int] | np.ndarray | None = None
) -> Figure:
    """Plot hyper-parameters over the batches, one panel each, with a line per parameter group where they differ.

    Args:
        hypers: Name → its values, [batch] or [batch, group].
        axes: Draw here, one each; None makes a new figure with three panels a row.
        at: Number of batches trained at each value; None counts from 1.
    """

    if axes is None:
        n_across = min(3, len(hypers))
        n_down = -(-len(hypers) // n_across)
        size = (5 * n_across, 3.6 * n_down)
        _, grid = new_figure(n_down, n_across, figsize=size, squeeze=False, layout="constrained")
        axes = list(grid.flat)
        for spare in axes[len(hypers) :]:
            spare.remove()
    for ax, (name, values) in zip(axes, hypers.items(), strict=False):
        x = range(1, len(values) + 1) if at is None else at
        _plot_hyper(ax, x, np.asarray(values, float).reshape(len(values), -1))
        ax.set(xlabel="batch", ylabel=LONG_NAMES.get(name, name.replace("_", " ")))
        ax.grid(alpha=0.25)
    return axes[0].figure  # type: ignore[return-value]


def plot_lr_find(
    lrs: Sequence[float] | np.ndarray,
    losses: Sequence[float] | np.ndarray,
    suggestions: Mapping[str, float],
    *,
    skip_end: int = 5,
    ax: Axes | None = None,
) -> Figure:
    """Plot the loss over learning rates that rose from batch to batch, and mark suggested rates on the curve.

    Args:
        lrs: Learning rate of each batch.
        losses: Smoothed loss after each batch.
        suggestions: Name → learning rate.
        skip_end: Last batches left out, where the loss explodes.
        ax: Draw here; None makes a new figure.
    """

    if ax is None:
        ax = new_figure(figsize=(7, 4.2), layout="constrained")[1]
    assert ax is not None
    n = len(lrs) - skip_end if len(lrs) > 2 * skip_end else len(lrs)
    ax.plot(lrs[:n], losses[:n], color="0.35", linewidth=1.8)
    for i, (name, lr) in enumerate(suggestions.items()):
        loss = np.interp(np.log(lr), np.log(lrs[:n]), losses[:n])
        ax.axvline(lr, color=f"C{i}", linewidth=1, linestyle=":")
        ax.plot([lr], [loss], "o", color=f"C{i}", markersize=8, label=f"{name}: {lr:.2g}")
    if suggestions:
        ax.legend(frameon=False, title="suggested", alignment="left")
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss (smoothed)")
    ax.grid(alpha=0.25)
    return ax.figure  # type: ignore[return-value]


def _plot_hyper(ax: Axes, x: Sequence[int] | np.ndarray, values: np.ndarray) -> None:
    """Draw [batch, group]: one line if all groups agree, else one each, labelled."""
    if (values == values[:, :1]).all():
        ax.plot(x, values[:, -1], linewidth=1.6)
        if (values == values[0]).all():
            ax.set_yticks(values[0, :1], [f"{values[0, 0]:g}"])
        return
    last = values.shape[1] - 1
    for group in range(last + 1):
        where = " (input side)" if group == 0 else " (output side)" if group == last else ""
        ax.plot(x, values[:, group], linewidth=1.6, label=f"group {group}{where}")
    ax.legend(frameon=False, fontsize="small")
