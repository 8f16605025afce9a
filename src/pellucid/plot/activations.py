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
BROKEN = "crimson"
MOST_IN_LEGEND = 16


def plot_layer_stats(
    steps: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    near_zero: np.ndarray,
    nonfinite: np.ndarray | None = None,
    *,
    title: str = "",
    axes: Any = None,
) -> Figure:
    """Plot mean, standard deviation and percentage near zero side by side.

    Args:
        steps: Step ranges, [column, 2].
        mean, std: Of the finite outputs, [column], in activation units.
        near_zero: Fraction of outputs near zero, [column].
        nonfinite: Outputs that were nan or infinite, [column]; columns with any are hatched.
        title: Above the panels.
        axes: Three axes to draw on; None makes a new figure.
    """
    if axes is None:
        axes = new_figure(1, 3, figsize=(12, 3.2), layout="constrained")[1]
    x = centres(steps)
    panels = (mean, "mean"), (std, "standard deviation"), (100 * near_zero, "near zero (≤ 0.05), %")
    for ax, (values, label) in zip(axes, panels, strict=True):
        ax.plot(x, values, linewidth=1.4)
        ax.set(xlabel=BATCH, ylabel=label)
        ax.grid(alpha=0.25)
        mark_nonfinite(ax, steps, nonfinite)
    for ax, values in zip(axes, (mean, std), strict=False):
        clip_explosion(ax, values)
    axes[2].set_ylim(-3, 103)
    figure = axes[0].figure
    if title:
        axes[1].set_title(title, fontsize="medium")
    return figure


def color_dim(
    steps: np.ndarray,
    hist: np.ndarray,
    value_range: tuple[float, float],
    nonfinite: np.ndarray | None = None,
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
        nonfinite: Outputs that were nan or infinite, [column]; columns with any are hatched.
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
    mark_nonfinite(ax, steps, nonfinite)
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
    nonfinite: np.ndarray,
    loss: np.ndarray | None = None,
    loss_steps: np.ndarray | None = None,
) -> Figure:
    """Show all layers on one sheet, a row each: colours (if there are histograms), mean ± std, percentage near zero.

    The loss stands above them, over the same batches.

    Args:
        steps: Step ranges, [column, 2].
        mean, std: Of the finite outputs, [layer, column], in activation units.
        near_zero: Fractions, [layer, column].
        hist: Counts in bins on [0, 10], [layer, column, bin], or None.
        titles: Of the layers.
        nonfinite: Outputs that were nan or infinite, [layer, column]; columns with any are hatched.
        loss: Values of the loss, [value], or None.
        loss_steps: Step ranges of those, [value, 2]; None means those of the columns.
    """
    from pellucid.plot.sheet import Rows

    n, top = len(titles), int(loss is not None)
    widths = [2, 1, 1] if hist is not None else [1, 1]
    figure, grid = new_figure(
        n + top, len(widths), figsize=(12, 1.7 * (n + top) + 0.6), sharex="col", squeeze=False,
        layout=Rows(n + top, len(widths)), width_ratios=widths,
    )  # fmt: skip
    x = centres(steps)
    if loss is not None:
        for spare in grid[0, 1:]:
            spare.remove()
        spans = steps if loss_steps is None else loss_steps
        grid[0, 0].plot(centres(spans), loss, linewidth=1.2)
        grid[0, 0].set_title("loss", fontsize="small", loc="left")
        grid[0, 0].tick_params(labelsize="small")
        clip_explosion(grid[0, 0], loss)
        mark_nonfinite(grid[0, 0], spans, ~np.isfinite(loss))
    grid = grid[top:]
    for row, title in enumerate(titles):
        axes = list(grid[row])
        if hist is not None:
            color_dim(steps, hist[row], (0.0, 10.0), nonfinite[row], ax=axes.pop(0), scale=False)
        grid[row, 0].set_title(title, fontsize="small", loc="left")
        axes[0].plot(x, mean[row], linewidth=1.2)
        axes[0].fill_between(x, mean[row] - std[row], mean[row] + std[row], alpha=0.25, linewidth=0)
        axes[1].plot(x, 100 * near_zero[row], linewidth=1.2)
        clip_explosion(axes[0], np.abs(mean[row]) + std[row], both_ways=True)
        axes[1].set_ylim(-3, 103)
        axes[0].set_ylabel("mean ± std")
        axes[1].set_ylabel("near zero, %")
        for ax in axes:
            mark_nonfinite(ax, steps, nonfinite[row])
        for ax in grid[row]:
            ax.set_xlabel(BATCH if row == n - 1 else "")
            ax.tick_params(labelsize="small")
            ax.yaxis.label.set_size("small")
    for ax in grid[-1]:  # each shares the axis with its whole column
        ax.set_xlim(steps[0, 0], steps[-1, 1])
    return figure


def dead_chart(
    steps: np.ndarray,
    near_zero: np.ndarray,
    names: Sequence[str],
    nonfinite: np.ndarray | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Show the share of outputs near zero as a map: layers from top to bottom, batches from left to right.

    Args:
        steps: Step ranges, [column, 2].
        near_zero: Fractions, [layer, column]; blank where nan.
        names: Of the layers.
        nonfinite: Outputs that were nan or infinite, [layer, column]; red where there are any.
        ax: Draw here; None makes a new figure.
    """
    if ax is None:
        ax = new_axes(9, 0.32 * len(names) + 1.4)
    extent = (float(steps[0, 0]), float(steps[-1, 1]), len(names) - 0.5, -0.5)
    broken = np.isnan(near_zero) if nonfinite is None else nonfinite > 0
    shown = np.ma.array(100 * near_zero, mask=broken | np.isnan(near_zero))
    image = ax.imshow(shown, aspect="auto", extent=extent, cmap="cividis", vmin=0, vmax=100, interpolation="nearest")
    if broken.any():
        from matplotlib.colors import ListedColormap

        red = np.ma.masked_equal(broken.astype(int), 0)
        ax.imshow(red, aspect="auto", extent=extent, cmap=ListedColormap([BROKEN]), interpolation="nearest")
        ax.set_title("red: nan or infinite", color=BROKEN, fontsize="small", loc="right")
    if (np.isnan(near_zero) & ~broken).any():
        ax.set_title("blank: not seen, or zero from the start", fontsize="small", loc="left")
    ax.set_yticks(range(len(names)), names, fontsize="small")
    ax.set_xlabel(BATCH)
    ax.figure.colorbar(image, ax=ax, label="near zero (≤ 0.05), %")
    return ax


def plot_gradients(
    steps: np.ndarray, norm: np.ndarray, ratio: np.ndarray, names: Sequence[str], *, axes: Any = None
) -> Figure:
    """Plot gradient norms and update-to-weight ratios over batches, a line per parameter, log scale.

    Up to 16 lines have a legend, more a bar of their colours with some of the names.

    Args:
        steps: Step ranges, [column, 2].
        norm, ratio: Values, [parameter, column]; columns with any that is nan or infinite are hatched.
        names: Of the parameters; the first is darkest.
        axes: Two axes to draw on; None makes a new figure.
    """
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    if axes is None:
        axes = new_figure(1, 2, figsize=(12, 4), sharex=True, layout="constrained")[1]
    x, n = centres(steps), len(names)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, n))
    lines = []
    for ax, values, label in ((axes[0], norm, "gradient norm"), (axes[1], ratio, "update / weight")):
        broken = np.asarray(np.isinf(values).any(0) | np.isnan(norm).any(0))
        for row, colour in enumerate(colours):
            shown = np.where(np.isfinite(values[row]) & (values[row] > 0), values[row], np.nan)
            lines += ax.plot(x, shown, color=colour, linewidth=1.1)
        ax.set(xlabel=BATCH, ylabel=label, yscale="log")
        ax.grid(alpha=0.25)
        mark_nonfinite(ax, steps, broken)
    axes[1].axhline(1e-3, color="grey", linestyle=":", linewidth=1)
    if n <= MOST_IN_LEGEND:
        # Handles and names together, because a legend of matplotlib's leaves out labels that start with "_".
        box = axes[1].legend(
            lines[:n], [""] * n, fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
        )
        for text, name in zip(box.get_texts(), names, strict=True):
            text.set_text(name)
    else:
        colours_of = ScalarMappable(BoundaryNorm(np.arange(n + 1) - 0.5, n), ListedColormap(colours))
        bar = axes[0].figure.colorbar(colours_of, ax=axes[1], pad=0.02)
        shown = np.unique(np.linspace(0, n - 1, 8).astype(int))
        bar.set_ticks(shown, labels=[names[i] for i in shown], fontsize="small")
        bar.ax.invert_yaxis()
        bar.ax.minorticks_off()
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
    ax.set(xlabel="activation", ylabel="count", title=title)
    if counts.any():  # the axis starts below a single value: started at the smallest bar, it would hide that
        ax.set_yscale("log")
        ax.set_ylim(0.5, 2 * float(counts.max()))
    ax.title.set_fontsize("medium")
    for side, n in (("left", outside[0]), ("right", outside[1])):
        if n:
            x, text = (0.02, f"← {n:,}") if side == "left" else (0.98, f"{n:,} →")
            ax.text(x, 0.95, text, transform=ax.transAxes, ha=side, va="top", fontsize="small")
    return ax


def show_kernels(kernels: np.ndarray, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Show convolution kernels as one picture: three input channels as colours, others as grey tiles.

    All are on one scale, that of the largest weight, zero being mid-grey: a kernel near zero looks like one.

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
    scaled = 0.5 + 0.5 * kernels / (np.nanmax(np.abs(kernels), initial=0) or 1)
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
    shown = sheet if channels == 3 else sheet[..., 0]
    ax.imshow(np.nan_to_num(shown, nan=1.0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize="medium")
    ax.axis("off")
    return ax


def mark_nonfinite(ax: Axes, steps: np.ndarray, nonfinite: np.ndarray | None) -> None:
    """Hatch the columns in which values were nan or infinite: what is drawn there is of the others, or nothing.

    Args:
        ax: A picture over batches.
        steps: Step ranges, [column, 2].
        nonfinite: How many, or whether any, [column]; None for none.
    """
    if nonfinite is None or not np.any(nonfinite):
        return
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (nonfinite > 0).astype(int), [0]])))
    for start, stop in edges.reshape(-1, 2):
        ax.axvspan(
            float(steps[start, 0]), float(steps[stop - 1, 1]), facecolor="none", edgecolor=BROKEN, hatch="////",
            linewidth=0, zorder=3,
        )  # fmt: skip
    first, (left, right) = float(steps[edges[0], 0]), (float(steps[0, 0]), float(steps[-1, 1]))
    inside = first < left + 0.85 * (right - left)  # else the words would leave the picture
    ax.annotate(
        "nan or inf", (first, 0.5), (4 if inside else -4, 0), ("data", "axes fraction"), "offset points", rotation=90,
        va="center", ha="left" if inside else "right", fontsize="small", color=BROKEN, zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 1.5},
    )  # fmt: skip


def clip_explosion(ax: Axes, values: np.ndarray, *, both_ways: bool = False) -> None:
    """Keep a few exploding columns from pressing all others into a line: cut the axis, and write how far they go.

    It is cut at ten times the median size if anything exceeds a hundred times that size and a hundred units.

    Args:
        ax: A picture over batches.
        values: What is drawn, [column].
        both_ways: Whether the axis is symmetric about zero.
    """
    size = np.abs(values[np.isfinite(values)]).astype(np.float64)
    if not len(size):
        return
    middle = float(np.median(size))
    if size.max() <= 100 * max(middle, 1.0):
        return
    top = 1.1 * (float(size[size <= 10 * middle].max(initial=0)) or 1.0)
    ax.set_ylim(-top if both_ways or np.nanmin(values) < 0 else -0.03 * top, top)
    ax.annotate(
        f"up to {size.max():.1g}", (0.02, 0.97), xycoords="axes fraction", va="top", fontsize="small", color=BROKEN,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 1.5},
    )  # fmt: skip


def centres(steps: np.ndarray) -> np.ndarray:
    """Where the columns lie over batches, [column], from their step ranges, [column, 2]."""
    return (steps[:, 0] + steps[:, 1] - 1) / 2
