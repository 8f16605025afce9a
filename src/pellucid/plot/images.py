"""Pictures of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.plot.figure import new_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE_INCHES = 3.0
LETTER_INCHES = 0.09


def as_picture(image: Any) -> np.ndarray:
    """Turn a Pillow image, array or tensor into what `imshow` takes: (row, column) or (row, column, channel)."""
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (3, 4):
        array = array.transpose(1, 2, 0)
    return array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array


def show_image(
    image: Any,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    **options: Any,
) -> Axes:
    """Show one image without axis marks; grey ones in the current colour map. Returns the axes.

    Args:
        image: Pillow image, array or tensor, (row, column), (channel, row, column) or (row, column, channel).
        ax: Draw here; None makes a new figure.
        figsize: Width and height of a new figure, in inches.
        title: Text above the picture.
        options: Passed to matplotlib's `imshow`, such as `cmap`.
    """
    if ax is None:
        ax = new_axes(*(figsize or (SIDE_INCHES, SIDE_INCHES)))
    ax.imshow(as_picture(image), **options)
    if title is not None:
        ax.set_title(title)
    ax.axis("off")
    return ax


def photo_style() -> dict[str, Any]:
    """Options of `show_image` for photos on [0, 1]: grey ones in true grey, unless another colour map was chosen."""
    import matplotlib

    chosen = matplotlib.rcParams["image.cmap"]
    cmap = "gray" if chosen == matplotlib.rcParamsDefault["image.cmap"] else chosen
    return {"cmap": cmap, "vmin": 0, "vmax": 1}


def subplots(
    nrows: int = 1,
    ncols: int = 1,
    figsize: tuple[float, float] | None = None,
    imsize: float = SIDE_INCHES,
    **options: Any,
) -> tuple[Figure, Any]:
    """matplotlib's `subplots` at `imsize` inches a picture; returns the figure and the (array of) axes."""
    return new_figure(nrows, ncols, figsize=figsize or (ncols * imsize, nrows * imsize), **options)


def show_images(
    images: Sequence[Any],
    nrows: int | None = None,
    ncols: int | None = None,
    titles: Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    **options: Any,
) -> np.ndarray:
    """Show images in a grid, as square as can be unless `nrows` or `ncols` says otherwise; returns the axes."""
    n = len(images)
    if not nrows:
        nrows = math.ceil(n / ncols) if ncols else max(1, round(math.sqrt(n)))
    ncols = ncols or math.ceil(n / nrows)
    texts = [str(title).split("\n") for title in titles or ()]
    n_lines = max(map(len, texts), default=1)
    width = max(1.5, LETTER_INCHES * max((len(line) for lines in texts for line in lines), default=0))
    size = figsize or (width * ncols, (1.5 + 0.2 * n_lines) * nrows)
    figure, axes = subplots(nrows, ncols, size, squeeze=False)
    for i, ax in enumerate(axes.flat):
        if i < n:
            show_image(images[i], ax=ax, title=str(titles[i]) if titles else None, **options)
        else:
            ax.axis("off")
    figure.set_layout_engine("constrained")
    return axes
