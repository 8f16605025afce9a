"""The picture of an experiment: every seed, means with their intervals, differences from a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pellucid.plot.figure import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bounds = tuple[float, float, float]
WIDE = 5  # the worst seed has so many times the errors of the best: show errors by their ratio
FAR = 6  # differences of so many times the middle one do not set the axis
TICKS = (0, 30, 50, 70, 80, 90, 95, 97, 98, 99, 99.5, 99.8, 99.9)
COLOURS = "tab:blue", "0.45"


@dataclass(frozen=True)
class Series:
    """A variant to draw.

    Attributes:
        name: At the left of its line.
        values: One a seed.
        mean: Lower end of the interval, mean, upper end; nan ends for one seed.
        difference: The same of the paired differences; None for the baseline.
    """

    name: str
    values: Sequence[float]
    mean: Bounds
    difference: Bounds | None


def plot_experiment(
    series: Sequence[Series], *, title: str, metric: str = "accuracy", unit: str = "%", baseline: str = ""
) -> Figure:
    """Draw a line per variant: at the left every seed with mean and interval, at the right the paired differences.

    Shares in per cent whose errors differ by a factor of five or more get an axis on which equal distances are equal
    ratios of errors.

    Args:
        series: The variants, from the top.
        title: Above the picture.
        metric: What is measured.
        unit: `%` for shares.
        baseline: The variant the others are compared with.
    """
    size = (11, 1.6 + 0.36 * len(series))
    figure, (left, right) = new_figure(1, 2, figsize=size, sharey=True, layout="constrained")
    for y, line in enumerate(series):
        colour = COLOURS[line.name == baseline]
        spread = np.linspace(-0.15, 0.15, len(line.values)) if len(line.values) > 1 else np.zeros(1)
        left.plot(line.values, y + spread, "o", color=colour, alpha=0.45, markersize=5, markeredgewidth=0)
        _bar(left, y, line.mean, colour)
    left.set_yticks(range(len(series)), [line.name for line in series])
    left.set_ylim(len(series) - 0.5, -0.5)
    left.set_xlabel(f"{metric}{', %' if unit == '%' else unit}")
    left.set_title("each seed, mean and its 95 % interval", fontsize=10, loc="left")
    if unit == "%":
        _ratios_of_errors(left, np.concatenate([line.values for line in series]))
    _differences(right, series)
    right.set_xlabel(f"{metric}{', points' if unit == '%' else unit}")
    right.set_title(f"paired difference from {baseline}", fontsize=10, loc="left")
    for ax in (left, right):
        ax.grid(axis="x", alpha=0.25)
        ax.tick_params(axis="y", length=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    return figure


def _differences(ax: Axes, series: Sequence[Series]) -> None:
    """Draw the differences; an axis that fits most, an arrow where one lies outside, numbers at the right."""
    compared = [(y, line.difference) for y, line in enumerate(series) if line.difference]
    reach = sorted(float(np.nanmax(np.abs(bounds))) for _, bounds in compared)
    ax.axvline(0, color="0.45", linewidth=1)
    if not reach:
        return
    most = FAR * reach[(len(reach) - 1) // 2] or 1.0
    near = np.array([bounds for _, bounds in compared if np.nanmax(np.abs(bounds)) <= most])
    left, right = min(0.0, np.nanmin(near)), max(0.0, np.nanmax(near))
    margin = 0.08 * (right - left) or 1.0
    left, right = left - margin, right + margin
    ax.set_xlim(left, right)
    for y, bounds in compared:
        low, mean, high = bounds
        _bar(ax, y, bounds, COLOURS[0])
        if not left < mean < right:
            edge = (left, "<") if mean < 0 else (right, ">")
            ax.plot(edge[0], y, edge[1], color=COLOURS[0], markersize=9, clip_on=False)
        half = (high - low) / 2
        sign = "" if abs(mean) < 0.005 else "−" if mean < 0 else "+"
        text = f"{sign}{abs(mean):.2f}" + (f" ± {half:.2f}" if np.isfinite(half) else "")
        where = ax.get_yaxis_transform()
        ax.text(1.03, y, text, transform=where, va="center", fontsize=9)


def _bar(ax: Axes, y: int, bounds: Bounds, colour: str) -> None:
    low, mean, high = bounds
    if np.isfinite([low, high]).all():
        ax.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    ax.plot([mean], [y], "|", color=colour, markersize=17, markeredgewidth=2.5)


def _ratios_of_errors(ax: Axes, values: np.ndarray) -> None:
    """Give the axis a logarithmic scale of errors, 100 − value, where they differ much."""
    errors = np.maximum(100 - values, 0.02)
    if errors.max() < WIDE * errors.min():
        return
    floor = errors.min() / 3

    def forward(x: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(100 - np.asarray(x, float), floor))

    ax.set_xscale("function", functions=(forward, lambda z: 100 - 10.0 ** -np.asarray(z, float)))
    low, high = 100 - 1.25 * errors.max(), 100 - errors.min() / 1.25
    ax.set_xlim(max(low, 0), high)
    ticks = [tick for tick in TICKS if ax.get_xlim()[0] <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
