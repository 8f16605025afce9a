"""Pictures of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.plot.figure import figure_of, finished, new_figure
from pellucid.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE_INCHES = 3.0
LETTER_INCHES = 0.09


def as_picture(image: Any) -> np.ndarray:
    """Turn a Pillow image, array or tensor into what `imshow` takes: (row, column) or (row, column, channel).

    Raises:
        UsageError: another number of axes or channels.
    """
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    shape = array.shape
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (3, 4):
        array = array.transpose(1, 2, 0)
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.ndim != 2 and (array.ndim != 3 or array.shape[-1] not in (3, 4)):
        raise UsageError(
            f"cannot show shape {shape}: an image has shape (row, column), (channel, row, column) or "
            "(row, column, channel), with 1, 3 or 4 channels; show feature maps one by one, as in show_images(maps)"
        )
    # matplotlib subtracts the least value from the others in the image's own type.
    if array.dtype == np.float32 and np.abs(array).max(initial=0) > np.finfo(np.float32).max / 2:
        return array.astype(np.float64)
    return array


def show_image(
    image: Any,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    ctx: Axes | None = None,
    dpi: float | None = None,
    **options: Any,
) -> Axes:
    """Show one image without axis marks; grey ones in the current colour map. Returns the axes.

    Args:
        image: Pillow image, array or tensor, (row, column), (channel, row, column) or (row, column, channel).
        ax: Draw here; None makes a new figure.
        figsize: Width and height of a new figure, in inches.
        title: Text above the picture.
        ctx: The same as `ax`, by fastai's name.
        dpi: Dots an inch of a new figure.
        options: Passed to matplotlib's `imshow`, such as `cmap`.

    Raises:
        UsageError: what is no image by its shape, or an option that `imshow` does not take.
    """
    import matplotlib.pyplot as plt

    options_of_figure = {"figsize": figsize or (SIDE_INCHES, SIDE_INCHES), "dpi": dpi, "layout": "constrained"}
    drawn: Axes = ax or ctx or new_figure(**options_of_figure)[1]
    picture = as_picture(image)
    try:
        drawn.imshow(picture, **options)
    except (AttributeError, TypeError) as error:
        if not options:
            raise
        takes = "ax, ctx, figsize, dpi, title and the options of matplotlib's imshow"
        plt.close(figure_of(drawn))
        raise UsageError(f"show_image takes {takes}: {error}") from None
    if title is not None:
        drawn.set_title(title)
    drawn.axis("off")
    return drawn


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
    suptitle: str | None = None,
    **options: Any,
) -> tuple[Figure, Any]:
    """matplotlib's `subplots` at `imsize` inches a picture; returns the figure and the (array of) axes."""
    figure, axes = new_figure(nrows, ncols, figsize=figsize or (ncols * imsize, nrows * imsize), **options)
    if suptitle is not None:
        figure.suptitle(suptitle)
    return figure, axes


def show_images(
    images: Sequence[Any],
    nrows: int | None = 1,
    ncols: int | None = None,
    titles: Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    *,
    dpi: float | None = None,
    suptitle: str | None = None,
    **options: Any,
) -> np.ndarray:
    """Show images side by side, or in a grid; returns the axes, [row, column].

    Args:
        images: As `show_image` takes them.
        nrows: Rows of the grid; None makes it as square as can be, or as `ncols` wants it.
        ncols: Columns; None takes as many as are needed.
        titles: Text above each.
        figsize: Width and height of the figure in inches; None fits titles.
        dpi: Dots an inch.
        suptitle: Above all.
        options: Passed to matplotlib's `imshow`, such as `cmap`.

    Raises:
        UsageError: no images, another number of titles, or a grid that is too small for them.
    """
    n = len(images)
    if not n:
        raise UsageError("there are no images to show")
    if taken := {"ax", "ctx", "title"} & options.keys():
        hint = "use `titles`" if taken == {"title"} else "show one image with show_image"
        raise UsageError(
            f"a grid of images takes no {taken.pop()!r}: {hint}; it takes the options of matplotlib's imshow"
        )
    if titles is not None and len(titles) and len(titles) != n:
        raise UsageError(f"{counted(len(titles), 'title')} for {counted(n, 'image')}: give one for each, or none")
    if not nrows:
        nrows = math.ceil(n / ncols) if ncols else max(1, round(math.sqrt(n)))
    ncols = ncols or math.ceil(n / nrows)
    if nrows * ncols < n:
        raise UsageError(f"{nrows}×{ncols} (rows×columns) places are too few for {n} images: leave nrows or ncols out")
    texts = [str(title).split("\n") for title in titles or ()]
    n_lines = max(map(len, texts), default=1)
    width = max(1.5, LETTER_INCHES * max((len(line) for lines in texts for line in lines), default=0))
    size = figsize or (width * ncols, (1.5 + 0.2 * n_lines) * nrows)
    figure, axes = subplots(nrows, ncols, size, suptitle=suptitle, squeeze=False, dpi=dpi)
    for i, ax in enumerate(axes.flat):
        if i < n:
            show_image(images[i], ax=ax, title=str(titles[i]) if titles else None, **options)
        else:
            ax.axis("off")
    figure.set_layout_engine("constrained")
    return axes


def show_grid(images: Sequence[Any], titles: Sequence[str] | None, options: Mapping[str, Any]) -> np.ndarray:
    """Show photos with their titles in a grid as square as can be, with a user's options; returns the axes.

    Args:
        images: Values on [0, 1].
        titles: One each, or none.
        options: `GridOptions`, and those of matplotlib's `imshow`.

    Raises:
        UsageError: an option that a grid does not take.
    """
    figure_options = {name: options[name] for name in ("title", "suptitle") if name in options}
    rest = {name: value for name, value in options.items() if name not in figure_options}
    axes = show_images(images, titles=titles, **({"nrows": None} | photo_style() | rest))
    finished(axes[0, 0].figure, figure_options)
    return axes
