"""Pictures of what a classifier takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_confusion_matrix(
    counts: np.ndarray,
    names: Sequence[str],
    *,
    normalize: bool = False,
    title: str = "Confusion matrix",
    cmap: str = "Blues",
    norm_dec: int = 2,
    plot_txt: bool = True,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Show how many items of each class were taken for which; colours grow with the cube root, so that errors show.

    Args:
        counts: Items, [actual class, predicted class].
        names: Of the classes.
        normalize: Show shares of each actual class instead of counts.
        title: Above the picture.
        cmap: Colour map.
        norm_dec: Decimals of the shares.
        plot_txt: Write the numbers into the cells, but no zeros.
        figsize: Width and height of a new figure, in inches; None fits the number of classes.
        ax: Draw here; None makes a new figure.
    """
    from matplotlib.colors import PowerNorm

    from pellucid.plot.figure import new_figure

    n = len(names)
    shown = counts / np.maximum(counts.sum(1, keepdims=True), 1) if normalize else counts
    if ax is None:
        side = min(16.0, max(3.6, 1.6 + 0.5 * n + 0.08 * max(map(len, names))))
        ax = new_figure(figsize=figsize or (side, side), layout="constrained")[1]
    assert ax is not None
    scale = PowerNorm(1 / 3, vmin=0, vmax=1 if normalize else max(1, counts.max()))
    ax.imshow(shown, cmap=cmap, norm=scale, interpolation="nearest")
    turned = 90 if max(map(len, names)) > 3 else 0
    ax.set_xticks(range(n), names, rotation=turned)
    ax.set_yticks(range(n), names)
    ax.set(xlabel="predicted", ylabel="actual", title=title)
    if plot_txt:
        cell_points = 72 * 0.8 * min(ax.figure.bbox.size) / ax.figure.dpi / n
        size = float(np.clip(cell_points / 3, 4, 10))
        for i, j in np.argwhere(np.round(shown, norm_dec) > 0):
            text = f"{shown[i, j]:.{norm_dec}f}" if normalize else f"{counts[i, j]}"
            colour = "white" if scale(shown[i, j]) > 0.6 else "black"
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=size)
    return ax.figure  # type: ignore[return-value]


def plot_reliability(
    edges: np.ndarray,
    counts: np.ndarray,
    accuracy: np.ndarray,
    scaled: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    x: str = "probability of the answer",
    y: str = "share of right answers",
    ax: Axes | None = None,
) -> Figure:
    """Show how often answers are right, by the probability they were given: on the diagonal, the two agree.

    Args:
        edges: Of the bins of probability, (bin + 1,).
        counts: Answers in each bin; the area of a point grows with them.
        accuracy: Share of right answers in each bin, nan in an empty one.
        scaled: The same two after temperature scaling, drawn as rings.
        x, y: What the axes are.
        ax: Draw here; None makes a new figure.
    """
    from pellucid.plot.figure import figure_of, new_axes

    ax = ax or new_axes(4.4, 4.2)
    middles = (edges[:-1] + edges[1:]) / 2
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", zorder=1)
    rows = [(counts, accuracy, "as predicted", {"color": "C0", "alpha": 0.85})]
    if scaled is not None:
        rows.append((*scaled, "with temperature", {"facecolors": "none", "edgecolors": "C1", "linewidths": 1.8}))
    for n, right, label, style in rows:
        full = n > 0
        ax.scatter(middles[full], right[full], 20 + 300 * n[full] / n.sum(), label=label, zorder=2, **style)
    ax.set(xlim=(0, 1.03), ylim=(-0.03, 1.03), aspect="equal", title="Reliability")
    ax.set(xlabel=x, ylabel=y)
    if scaled is not None:
        ax.legend(loc="upper left", frameon=False, markerscale=0.6)
    return figure_of(ax)
