"""Pictures of layer statistics over a training run, from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.plot.figure import new_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BATCH = "batch"


def plot_layer_stats(
    steps: np.ndarray, mean: np.ndarray, std: np.ndarray, near_zero: np.ndarray, *, title: str = "", axes: Any = None
) -> Figure:
    """Plot mean, standard deviation and percentage near zero side by side.

    Args:
        steps: Step ranges, [column, 2].
        mean, std: Of the outputs, [column], in activation units.
        near_zero: Fraction of outputs near zero, [column].
        title: Above the panels.
        axes: Three axes to draw on; None makes a new figure.
    """
    if axes is None:
        axes = new_figure(1, 3, figsize=(12, 3.2), layout="constrained")[1]
    x = _centres(steps)
    panels = (mean, "mean"), (std, "standard deviation"), (100 * near_zero, "near zero (≤ 0.05), %")
    for ax, (values, label) in zip(axes, panels, strict=True):
        ax.plot(x, values, linewidth=1.4)
        ax.set(xlabel=BATCH, ylabel=label)
        ax.grid(alpha=0.25)
    axes[2].set_ylim(-3, 103)
    figure = axes[0].figure
    if title:
        axes[1].set_title(title, fontsize="medium")
    return figure


def color_dim(
    steps: np.ndarray,
    hist: np.ndarray,
    value_range: tuple[float, float],
    *,
    title: str = "",
    ax: Axes | None = None,
    scale: bool = True,
) -> Axes:
    """Show histograms over batches as colours: one column a batch, log(1 + count), smallest values at the bottom.

    Args:
        steps: Step ranges, [column, 2].
        hist: Counts, [column, bin].
        value_range: Lower edge of the first bin and upper edge of the last.
        title: Above the picture.
        ax: Draw here; None makes a new figure.
        scale: Explain the colours in a bar at the side.

    Source: S. Giomo, "The colorful dimension", forums.fast.ai/t/42908.
    """
    if ax is None:
        ax = new_axes(9, 3.2)
    extent = (float(steps[0, 0]), float(steps[-1, 1]), *value_range)
    image = ax.imshow(
        np.log1p(hist.T), origin="lower", aspect="auto", extent=extent, cmap="viridis", interpolation="nearest"
    )
    ax.set(xlabel=BATCH, ylabel="activation", title=title)
    ax.title.set_fontsize("medium")
    if scale:
        powers = [k for k in range(0, 10, 2) if 10**k <= max(hist.max(), 1)]
        bar = ax.figure.colorbar(image, ax=ax, pad=0.015, label="count", ticks=np.log1p([0, *(10**k for k in powers)]))
        bar.ax.set_yticklabels(["0", *("1" if k == 0 else f"$10^{k}$" for k in powers)])
    return ax


def plot_sheet(
    steps: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    near_zero: np.ndarray,
    hist: np.ndarray | None,
    titles: Sequence[str],
) -> Figure:
    """Show all layers on one sheet, a row each: colours (if there are histograms), mean ± std, percentage near zero."""
    n = len(titles)
    widths = [2, 1, 1] if hist is not None else [1, 1]
    figure, grid = new_figure(
        n, len(widths), figsize=(12, 1.7 * n + 0.6), sharex=True, squeeze=False, layout="constrained",
        width_ratios=widths,
    )  # fmt: skip
    x = _centres(steps)
    for row, title in enumerate(titles):
        axes = list(grid[row])
        if hist is not None:
            color_dim(steps, hist[row], (0.0, 10.0), ax=axes.pop(0), scale=False)
        grid[row, 0].set_title(title, fontsize="small", loc="left")
        axes[0].plot(x, mean[row], linewidth=1.2)
        axes[0].fill_between(x, mean[row] - std[row], mean[row] + std[row], alpha=0.25, linewidth=0)
        axes[1].plot(x, 100 * near_zero[row], linewidth=1.2)
        axes[1].set_ylim(-3, 103)
        axes[0].set_ylabel("mean ± std")
        axes[1].set_ylabel("near zero, %")
        for ax in grid[row]:
            ax.set_xlabel(BATCH if row == n - 1 else "")
            ax.tick_params(labelsize="small")
            ax.yaxis.label.set_size("small")
    return figure


def dead_chart(steps: np.ndarray, near_zero: np.ndarray, names: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Show the share of outputs near zero as a map: layers from top to bottom, batches from left to right.

    Args:
        steps: Step ranges, [column, 2].
        near_zero: Fractions, [layer, column].
        names: Of the layers.
        ax: Draw here; None makes a new figure.
    """
    if ax is None:
        ax = new_axes(9, 0.32 * len(names) + 1.4)
    extent = (float(steps[0, 0]), float(steps[-1, 1]), len(names) - 0.5, -0.5)
    image = ax.imshow(
        100 * near_zero, aspect="auto", extent=extent, cmap="cividis", vmin=0, vmax=100, interpolation="nearest"
    )
    ax.set_yticks(range(len(names)), names, fontsize="small")
    ax.set_xlabel(BATCH)
    ax.figure.colorbar(image, ax=ax, label="near zero (≤ 0.05), %")
    return ax


def plot_gradients(
    steps: np.ndarray, norm: np.ndarray, ratio: np.ndarray, names: Sequence[str], *, axes: Any = None
) -> Figure:
    """Plot gradient norms and update-to-weight ratios over batches, a line per parameter, log scale.

    Args:
        steps: Step ranges, [column, 2].
        norm, ratio: Values, [parameter, column].
        names: Of the parameters; the first is darkest.
        axes: Two axes to draw on; None makes a new figure.
    """
    import matplotlib.pyplot as plt

    if axes is None:
        axes = new_figure(1, 2, figsize=(12, 4), sharex=True, layout="constrained")[1]
    x = _centres(steps)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(names)))
    for ax, values, label in ((axes[0], norm, "gradient norm"), (axes[1], ratio, "update / weight")):
        for row, (name, colour) in enumerate(zip(names, colours, strict=True)):
            ax.plot(x, np.where(values[row] > 0, values[row], np.nan), color=colour, linewidth=1.1, label=name)
        ax.set(xlabel=BATCH, ylabel=label, yscale="log")
        ax.grid(alpha=0.25)
    axes[1].axhline(1e-3, color="grey", linestyle=":", linewidth=1)
    if len(names) <= 16:
        axes[1].legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return axes[0].figure


def plot_hist(
    counts: np.ndarray,
    value_range: tuple[float, float],
    outside: tuple[int, int] = (0, 0),
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Plot one histogram as bars; says how many values lie outside its range.

    Args:
        counts: Per bin.
        value_range: Lower edge of the first bin and upper edge of the last.
        outside: Values below and above it.
        title: Above the picture.
        ax: Draw here; None makes a new figure.
    """
    if ax is None:
        ax = new_axes(6, 3.6)
    edges = np.linspace(*value_range, len(counts) + 1)
    ax.stairs(counts, edges, fill=True, alpha=0.8)
    ax.set(xlabel="activation", ylabel="count", yscale="log" if counts.any() else "linear", title=title)
    ax.title.set_fontsize("medium")
    for side, n in (("left", outside[0]), ("right", outside[1])):
        if n:
            x, text = (0.02, f"← {n:,}") if side == "left" else (0.98, f"{n:,} →")
            ax.text(x, 0.95, text, transform=ax.transAxes, ha=side, va="top", fontsize="small")
    return ax


def show_kernels(kernels: np.ndarray, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Show convolution kernels as one picture: three input channels as colours, others as grey tiles.

    Each kernel is scaled by its own largest weight, zero being mid-grey.

    Args:
        kernels: Weights, [out, in, row, column].
        title: Above the picture.
        ax: Draw here; None makes a new figure.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    if kernels.shape[1] != 3:
        kernels = kernels.reshape(-1, 1, *kernels.shape[2:])
    n, channels, height, width = kernels.shape
    largest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    scaled = 0.5 + 0.5 * kernels / np.where(largest > 0, largest, 1)
    n_across = int(np.ceil(np.sqrt(n * 2)))
    n_down = -(-n // n_across)
    gap = max(1, width // 5)
    sheet = np.ones((n_down * (height + gap) - gap, n_across * (width + gap) - gap, channels))
    frames = []
    for i, kernel in enumerate(scaled):
        top, left = i // n_across * (height + gap), i % n_across * (width + gap)
        sheet[top : top + height, left : left + width] = kernel.transpose(1, 2, 0)
        frames.append(Rectangle((left - 0.5, top - 0.5), width, height))
    if ax is None:
        ax = new_axes(8, 8 * sheet.shape[0] / sheet.shape[1] + 0.4)
    ax.add_collection(PatchCollection(frames, facecolor="none", edgecolor="grey", linewidth=0.6))
    ax.imshow(sheet if channels == 3 else sheet[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize="medium")
    ax.axis("off")
    return ax


def _centres(steps: np.ndarray) -> np.ndarray:
    return (steps[:, 0] + steps[:, 1] - 1) / 2
