"""New figures and their axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
