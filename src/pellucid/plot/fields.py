"""Pictures of receptive fields on an image, from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.plot.figure import new_axes, new_figure
from pellucid.plot.images import as_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK, HALF = "#e8590c", "#22b8cf"
SIDE_INCHES = 4.6


def plot_field(
    shape: tuple[int, ...],
    mask: np.ndarray,
    box: tuple[range, ...],
    image: np.ndarray | None = None,
    *,
    title: str = "",
) -> Figure:
    """Show the pixels one unit sees: the others are dimmed, an outline runs from the first to the last.

    Args:
        shape: Rows and columns of the image.
        mask: Pixels seen, [row, column].
        box: Rows and columns from first to last.
        image: [channel, row, column] or [row, column]; None draws seen pixels on white.
        title: Above the picture.
    """
    ax = new_axes(*_inches(shape))
    _picture(ax, shape, image)
    shade = np.zeros((*shape, 4))
    if image is None:
        from matplotlib.colors import to_rgb

        shade[mask] = (*to_rgb(MARK), 0.45)
    else:
        shade[~mask] = (1, 1, 1, 0.72)
    ax.imshow(shade, interpolation="nearest", aspect="equal")
    _outline(ax, box, MARK)
    ax.set_title(title, fontsize="medium")
    return ax.figure  # pyright: ignore[reportReturnType]


def plot_growth(
    shape: tuple[int, ...],
    boxes: Sequence[tuple[range, ...]],
    labels: Sequence[str],
    image: np.ndarray | None = None,
    *,
    title: str = "",
) -> Figure:
    """Show how fields grow from layer to layer: one outline each, dark to bright.

    Args:
        shape: Rows and columns of the image.
        boxes: Rows and columns of each field, first layer first.
        labels: One for each.
        image: [channel, row, column] or [row, column]; None leaves it blank.
        title: Above the picture.
    """
    import matplotlib

    width, height = _inches(shape)
    ax = new_axes(width + 1 + 0.08 * max(map(len, labels), default=0), height)
    _picture(ax, shape, image, dim=0.45)
    colours = matplotlib.colormaps["plasma"](np.linspace(0.05, 0.9, len(boxes)))
    for box, colour, label in zip(boxes, colours, labels, strict=True):
        _outline(ax, box, colour, label=label)
    shown = list(range(len(boxes))) if len(boxes) <= 14 else np.linspace(0, len(boxes) - 1, 14).astype(int)
    handles = [ax.patches[i] for i in shown]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize="small")
    ax.set_title(title, fontsize="medium")
    return ax.figure  # pyright: ignore[reportReturnType]


def plot_effective(
    values: np.ndarray,
    box: tuple[range, ...],
    square: tuple[range, ...],
    image: np.ndarray,
    *,
    title: str = "",
) -> Figure:
    """Show what a unit can see and what it listens to: on an image, and along each axis through the whole map.

    Args:
        values: Share of the gradient at each pixel, [row, column].
        box: Rows and columns of the theoretical field.
        square: Rows and columns of the square with 95 % of the gradient.
        image: [channel, row, column] or [row, column].
        title: Above the picture.
    """
    width, height = _inches(values.shape)
    figure, axes = new_figure(1, 2, figsize=(2 * width + 0.8, height + 0.3), layout="constrained")
    _picture(axes[0], values.shape, image)
    _picture(axes[1], values.shape, image, dim=0.3)
    scaled = values / values.max()
    heat = axes[1].imshow(scaled, alpha=np.sqrt(scaled), cmap="plasma", vmin=0, vmax=1, interpolation="nearest")
    for ax in axes:
        _outline(ax, box, MARK, label="can see")
        _outline(ax, square, HALF, label="95 % of the gradient", style="--")
    axes[0].set_title(title, fontsize="medium")
    axes[1].set_title("what it listens to", fontsize="medium")
    figure.colorbar(heat, ax=axes, label="mean |gradient|, largest = 1", shrink=0.8)
    figure.legend(handles=axes[0].patches, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return figure


def _inches(shape: Sequence[int]) -> tuple[float, float]:
    rows, columns = shape
    return SIDE_INCHES * min(1.6, columns / rows) if columns > rows else SIDE_INCHES * max(0.5, columns / rows), (
        SIDE_INCHES * max(0.5, rows / columns) if columns > rows else SIDE_INCHES
    ) + 0.4


def _picture(ax: Axes, shape: Sequence[int], image: np.ndarray | None, *, dim: float = 1.0) -> None:
    """The image on [0, 1] by its own range, or a blank; `dim` < 1 mixes it with white."""
    if image is None:
        pixels: Any = np.ones((*shape, 3))
    else:
        pixels = as_picture(image).astype(float)
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) / ((high - low) or 1.0)
        pixels = pixels if pixels.ndim == 3 and pixels.shape[2] in (3, 4) else np.repeat(_grey(pixels)[..., None], 3, 2)
    ax.imshow(1 - dim * (1 - pixels), interpolation="nearest", aspect="equal")
    ax.set(xticks=[], yticks=[])
    for side in ax.spines.values():
        side.set_color("#c3c9d2")


def _grey(pixels: np.ndarray) -> np.ndarray:
    """One channel: the mean where there are several, channel first."""
    return pixels if pixels.ndim == 2 else pixels.mean(axis=0)


def _outline(ax: Axes, box: tuple[range, ...], colour: Any, *, label: str = "", style: str = "-") -> None:
    from matplotlib.patches import Rectangle

    rows, columns = box
    corner = columns.start - 0.5, rows.start - 0.5
    ax.add_patch(
        Rectangle(corner, len(columns), len(rows), fill=False, edgecolor=colour, lw=2, ls=style, label=label,
                  clip_on=False)
    )  # fmt: skip
