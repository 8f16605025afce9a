"""Pictures of a convolution's matrix, from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.plot.figure import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ZERO = (0.93, 0.93, 0.93)
PLAIN = (1.0, 1.0, 1.0)
INK, ZERO_INK = "#1a202c", "#a0a5ad"
CELL_INCHES = 0.42
LARGEST_INCHES = 15
DOTS = 800


def plot_matrix(
    entries: Sequence[Sequence[tuple[int, ...]]],
    weights: Sequence[str],
    inputs: Sequence[str],
    biases: Sequence[str],
    outputs: Sequence[str],
) -> Figure:
    """Show a matrix with a letter and a colour for each weight, times the input, plus the bias, equals the output.

    Args:
        entries: The weights in each entry, [row][column]; none for a zero that stays zero, drawn in grey.
        weights: Letters of the weights.
        inputs: Letters of the input values, one for each column.
        biases: Letter of each row's bias, "" for none.
        outputs: Letters of the outputs, one for each row.
    """
    n_rows, n_columns = len(entries), len(inputs)
    height, has_bias = max(n_rows, n_columns), bool(biases[0])
    width = n_columns + (8 if has_bias else 5)
    longest = max(len("+".join(weights[w] for w in entry)) for row in entries for entry in row)
    cell = min(CELL_INCHES * max(1, longest / 3), LARGEST_INCHES / width)
    ax = new_axes(width * cell + 0.2, height * cell + 0.5)
    top, size = (height - n_rows) / 2, min(15.0, 32 * cell) * min(1, 3 / max(longest, 1) + 0.15)
    colours = weight_colours(len(weights))
    for r, row in enumerate(entries):
        for c, entry in enumerate(row):
            colour = colours[list(entry)].mean(axis=0) if entry else ZERO
            text, ink = ("+".join(weights[w] for w in entry), INK) if entry else ("0", ZERO_INK)
            _cell(ax, c, top + r, colour, text, ink, size)
    middle, x = height / 2, n_columns + 1.0
    _column(ax, x, (height - n_columns) / 2, inputs, size)
    _sign(ax, n_columns + 0.5, middle, "×", size)
    if has_bias:
        _sign(ax, x + 1.5, middle, "+", size)
        _column(ax, x + 2, top, biases, size)
        x += 3
    else:
        x += 1
    _sign(ax, x + 0.5, middle, "=", size)
    _column(ax, x + 1, top, outputs, size)
    ax.set(xlim=(-0.1, x + 2.1), ylim=(height + 0.1, -0.1), aspect="equal")
    ax.axis("off")
    return ax.figure  # pyright: ignore[reportReturnType]


def plot_places(
    rows: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray,
    shape: tuple[int, int],
    n_weights: int,
    *,
    title: str = "",
) -> Figure:
    """Show where a large matrix holds weights, a colour for each weight; fixed zeros in grey.

    Args:
        rows, columns, weights: Of each place, alike.
        shape: Of the matrix. Beyond 800 dots a side it is drawn smaller; a dot shows the last place that falls on it.
        n_weights: Weights of the kernel.
        title: Above the picture.
    """
    from matplotlib.colors import ListedColormap

    scale = max(1.0, max(shape) / DOTS)
    dots = np.full([max(int(np.ceil(n / scale)), 1) for n in shape], -1, np.int64)
    dots[(rows / scale).astype(int), (columns / scale).astype(int)] = weights
    # a dot smaller than this is lost on the screen, however long and thin the matrix
    aspect: Any = "equal" if 0.25 < shape[0] / shape[1] < 4 else "auto"
    tall = float(np.clip(6.5 * shape[0] / shape[1], 3, 8))
    ax = new_axes(8, tall + 0.8)
    drawn = np.ma.masked_less(dots, 0)
    ax.set_facecolor(ZERO)
    image = ax.imshow(
        drawn, cmap=ListedColormap(weight_colours(n_weights, pale=False)), vmin=-0.5, vmax=n_weights - 0.5,
        extent=(-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5), interpolation="nearest", aspect=aspect,
    )  # fmt: skip
    ax.set(xlabel="input value", ylabel="output value")
    ax.set_title(title, fontsize="medium")
    colorbar = ax.figure.colorbar(image, ax=ax, label="weight, as numbered in the flattened kernel", shrink=0.8)
    if n_weights <= 12:
        colorbar.set_ticks(range(n_weights))
    return ax.figure  # pyright: ignore[reportReturnType]


def weight_colours(n: int, *, pale: bool = True) -> np.ndarray:
    """One colour for each of `n` weights, [weight, rgb]; pale ones can be written on."""
    import matplotlib

    name, places = ("tab10", np.arange(n)) if n <= 10 else ("turbo", np.linspace(0.03, 0.97, n))
    colours = np.asarray(matplotlib.colormaps[name](places))[:, :3]
    return 0.5 + colours / 2 if pale else colours


def _column(ax: Axes, x: float, top: float, letters: Sequence[str], size: float) -> None:
    for place, letter in enumerate(letters):
        _cell(ax, x, top + place, PLAIN, letter, INK, size)


def _cell(ax: Axes, x: float, y: float, colour: Any, text: str, ink: str, size: float) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor=ZERO_INK if colour is PLAIN else "white", lw=1))
    ax.text(x + 0.5, y + 0.52, text, ha="center", va="center", fontsize=size, color=ink)


def _sign(ax: Axes, x: float, y: float, text: str, size: float) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=size * 1.3, color=INK)
