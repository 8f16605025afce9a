"""New figures and their axes, and matplotlib's usual options for everything that shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from pellucid.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(nrows: int = 1, ncols: int = 1, **options: Any) -> tuple[Figure, Any]:
    """matplotlib's `subplots`, on a `Sheet`: the figure, and its axes or an array of them."""
    import matplotlib.pyplot as plt

    from pellucid.plot.sheet import Sheet

    return plt.subplots(nrows, ncols, FigureClass=Sheet, **options)


def new_axes(width: float, height: float) -> Axes:
    """Axes of their own figure, whose size is given in inches."""
    return new_figure(figsize=(width, height), layout="constrained")[1]


def figure_of(ax: Axes) -> Figure:
    """The whole figure that axes are part of."""
    return ax.get_figure(root=True)  # pyright: ignore[reportReturnType]


class FigureOptions(TypedDict, total=False):
    """What every picture takes as keyword arguments, with matplotlib's meaning.

    Attributes:
        figsize: Width and height of the figure in inches; None leaves them as they are.
        dpi: Dots an inch.
        title: Above the picture, instead of its own.
        suptitle: Above the whole figure.
    """

    figsize: tuple[float, float] | None
    dpi: float | None
    title: str | None
    suptitle: str | None


class AxesOptions(FigureOptions, total=False):
    """What a picture of one panel takes as keyword arguments.

    Attributes:
        ax: Draw here; None makes a new figure.
        ctx: The same by fastai's name.
    """

    ax: Axes | None
    ctx: Axes | None


class GridOptions(FigureOptions, total=False):
    """What a grid of images takes as keyword arguments.

    Attributes:
        nrows, ncols: Rows and columns; None makes the grid as square as can be.
        cmap: Colours of images of one channel.
    """

    nrows: int | None
    ncols: int | None
    cmap: Any


def given_axes(options: Mapping[str, Any]) -> Axes | None:
    """The axes among the options of a picture of one panel, if there are any.

    Raises:
        UsageError: an option that no picture takes, or the size of a figure that is somebody else's.
    """
    _check(options, AxesOptions)
    ax = options.get("ax") or options.get("ctx")
    size = [name for name in ("figsize", "dpi") if options.get(name) is not None]
    if ax is not None and size:
        raise UsageError(f"{size[0]} is for a new figure, and `ax` belongs to one already: set it there")
    return ax


def finished(drawn: Axes | Figure, options: Mapping[str, Any]) -> Figure:
    """The figure of a picture, with the user's options applied to it.

    Args:
        drawn: The axes of a picture of one panel, or the figure of one of several.
        options: `AxesOptions`, or `FigureOptions` of several panels.

    Raises:
        UsageError: an option that such a picture does not take.
    """
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    figure = figure_of(drawn) if isinstance(drawn, Axes) else drawn
    try:
        _check(options, AxesOptions if isinstance(drawn, Axes) else FigureOptions)
    except UsageError:
        plt.close(figure)
        raise
    if options.get("figsize") is not None:
        figure.set_size_inches(options["figsize"])
    if options.get("dpi") is not None:
        figure.set_dpi(options["dpi"])
    if options.get("title") is not None:
        (drawn.set_title if isinstance(drawn, Axes) else figure.suptitle)(options["title"])
    if options.get("suptitle") is not None:
        figure.suptitle(options["suptitle"])
    return figure


def _check(options: Mapping[str, Any], kind: type) -> None:
    takes = list(kind.__annotations__)
    unknown = next((name for name in options if name not in takes), None)
    if unknown:
        raise UsageError(f"{unknown!r} is no option of this picture; it takes {', '.join(takes)}")
