"""The picture of a trace: from the image to one activation, from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK = "#e08a00"
PANEL_INCHES = 2.5
ACROSS = 7


@dataclass(frozen=True)
class Panel:
    """One map on the way to an activation.

    Attributes:
        picture: Values [row, column], or an image on [0, 1], [row, column] or [row, column, 3].
        lit: Cells that have a part in the activation, [row, column].
        cell: Row and column of the activation itself, in the last panel.
        title: Above the map.
        kernel: Weights drawn below the map, [row, column].
        largest: Weight of the strongest colour, the largest of the layer; None takes that of the kernel.
        caption: Below the weights.
        is_image: Whether the picture is an image.
    """

    picture: np.ndarray
    lit: np.ndarray
    cell: tuple[int, int] | None
    title: str
    kernel: np.ndarray | None = None
    caption: str = ""
    largest: float | None = None
    is_image: bool = False


def plot_precedents(panels: Sequence[Panel], *, title: str = "") -> Figure:
    """Draw the panels from left to right: what is lit in each ends in what it makes in the next.

    Args:
        panels: The image first, the activation last.
        title: Above all.
    """
    from pellucid.plot.figure import new_figure

    across = min(len(panels), ACROSS)
    lines = -(-len(panels) // across)
    figure, axes = new_figure(
        2 * lines, across, figsize=(PANEL_INCHES * across, (PANEL_INCHES * 1.75) * lines + 0.5), squeeze=False,
        height_ratios=[1, 0.62] * lines, layout="constrained",
    )  # fmt: skip
    for ax in axes.flat:
        ax.set_axis_off()
    for i, panel in enumerate(panels):
        row, column = i // across * 2, i % across
        _draw_map(axes[row, column], panel)
        if panel.kernel is not None:
            _draw_weights(axes[row + 1, column], panel)
        if column:
            _join(axes[row, column - 1], panels[i - 1], axes[row, column], panel)
    figure.get_layout_engine().set(h_pad=0.08)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    figure.suptitle(title, fontsize="large")
    return figure


def _draw_map(ax: Axes, panel: Panel) -> None:
    from matplotlib.patches import Rectangle

    options: dict[str, Any] = {"interpolation": "nearest", "aspect": "equal"}
    if panel.is_image:
        ax.imshow(panel.picture, cmap="gray", vmin=0, vmax=1, **options)
    else:
        largest = np.nanmax(np.abs(panel.picture)) or 1
        ax.imshow(panel.picture, cmap="RdBu", vmin=-largest, vmax=largest, **options)
    veil = np.ones((*panel.lit.shape, 4))
    veil[..., 3] = np.where(panel.lit, 0, 0.62 if panel.cell is None else 0)
    ax.imshow(veil, **options)
    _outline(ax, panel.lit)
    if panel.cell is not None:
        row, column = panel.cell
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=MARK, linewidth=2.4))
    if max(panel.picture.shape[:2]) <= 8 and not panel.is_image:
        _write(
            ax,
            panel.picture,
            largest=float(np.nanmax(np.abs(panel.picture))),
            veil=panel.lit | (panel.cell is not None),
        )
    ax.set_title(panel.title, fontsize="small")


def _outline(ax: Axes, lit: np.ndarray) -> None:
    """Lines between what is lit and what is not."""
    framed = np.pad(lit, 1)
    across = np.argwhere(framed[1:, 1:-1] != framed[:-1, 1:-1])
    down = np.argwhere(framed[1:-1, 1:] != framed[1:-1, :-1])
    if len(across):
        ax.hlines(across[:, 0] - 0.5, across[:, 1] - 0.5, across[:, 1] + 0.5, color=MARK, linewidth=1.6)
    if len(down):
        ax.vlines(down[:, 1] - 0.5, down[:, 0] - 0.5, down[:, 0] + 0.5, color=MARK, linewidth=1.6)


def _draw_weights(ax: Axes, panel: Panel) -> None:
    assert panel.kernel is not None
    largest = panel.largest or float(np.abs(panel.kernel).max()) or 1
    ax.imshow(panel.kernel, cmap="RdBu", vmin=-largest, vmax=largest, interpolation="nearest", aspect="equal")
    if max(panel.kernel.shape) <= 5:
        _write(ax, panel.kernel, largest)
    ax.set_title(panel.caption, fontsize="x-small", y=-0.16, va="top")


def _write(ax: Axes, values: np.ndarray, largest: float, veil: np.ndarray | None = None) -> None:
    size = 8 if max(values.shape) <= 4 else 6 if max(values.shape) == 5 else 5
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value) or (veil is not None and not veil[row, column]):
            continue
        colour = "white" if abs(value) > 0.6 * largest else "black"
        text = f"{value:.2f}".replace("-", "−")
        if size < 8 and abs(value) < 1:  # −.15: in five columns, numbers with a zero touch each other
            text = text.replace("0.", ".", 1)
        ax.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def _join(before: Axes, source: Panel, after: Axes, target: Panel) -> None:
    """Two lines from what is lit in one map to what it makes in the next."""
    from matplotlib.patches import ConnectionPatch

    if not source.lit.any() or not target.lit.any():
        return
    (top, right, bottom, _), (top_to, _, bottom_to, left_to) = _corners(source.lit), _corners(target.lit)
    for y, y_to in ((top, top_to), (bottom, bottom_to)):
        line = ConnectionPatch(
            (right, y), (left_to, y_to), "data", "data", axesA=before, axesB=after, color=MARK, linewidth=0.9, alpha=0.8
        )
        after.figure.add_artist(line)  # pyright: ignore[reportAttributeAccessIssue]
        line.set_in_layout(False)


def _corners(lit: np.ndarray) -> tuple[float, float, float, float]:
    """Top, right, bottom and left edge of what is lit, in cells."""
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    return rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5, columns[0] - 0.5
