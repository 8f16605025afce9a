"""Pictures of kernels at work: where they go, what they multiply, what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK = "#e8590c"
INPUT, WINDOW, OUTPUT, LIT = "#d0e5f7", "#2b6cb0", "#d3ecd0", "#2f855a"
INK, LINES = "#1a202c", "#8795a8"
CHANNELS = {"red": "Reds", "green": "Greens", "blue": "Blues"}
NUMBERED_UP_TO = 16


def plot_application(
    image: np.ndarray,
    kernel: np.ndarray,
    mapped: np.ndarray,
    corner: tuple[int, int],
    *,
    annotate: bool | None = None,
) -> Figure:
    """Show one application of a kernel: its window in the image, the products, and its place in the feature map.

    Args:
        image: Pixels, [row, column].
        kernel: Weights, [row, column].
        mapped: The feature map at stride 1 without padding, [row, column].
        corner: Row and column of the window's first pixel, which is also the place in the map.
        annotate: Whether to write numbers into image and map; None does so up to 16 pixels a side.
    """
    import matplotlib.pyplot as plt

    top, left = corner
    rows, cols = kernel.shape
    window = image[top : top + rows, left : left + cols]
    products = window * kernel
    numbers = max(image.shape) <= NUMBERED_UP_TO if annotate is None else annotate
    figure = plt.figure(figsize=(10.5, 7.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(2.3, 1))
    above, below = halves
    panels = above.subplots(1, 2)
    limits = float(image.min()), float(image.max())
    draw_grid(panels[0], image, limits=limits, numbers=numbers, inches=4.6, title="image")
    draw_grid(panels[1], mapped, diverging=True, numbers=numbers, inches=4.6, title="feature map")
    _frame(panels[0], left, top, cols, rows)
    _frame(panels[1], left, top, 1, 1)
    parts = below.subplots(1, 4, width_ratios=(1, 1, 1, 0.7))
    draw_grid(parts[0], window, limits=limits, title="window")
    _frame(parts[0], 0, 0, cols, rows)
    draw_grid(parts[1], kernel, diverging=True, title="kernel")
    draw_grid(parts[2], products, diverging=True, title="products")
    for ax, sign in ((parts[0], "×"), (parts[1], "=")):
        ax.text(1.13, 0.5, sign, transform=ax.transAxes, ha="center", va="center", fontsize=20, color=INK)
    parts[3].axis("off")
    parts[3].text(0, 0.5, f"sum  {_exact(products.sum())}", va="center", fontsize=17, color=MARK, weight="bold")
    return figure


def plot_positions(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    output: tuple[int, int],
    positions: Sequence[tuple[int, int]],
    *,
    title: str = "",
) -> Figure:
    """Show which pixels a kernel covers at some of its positions, and which output pixel each position makes.

    Input pixels are blue, padding is dashed, the pixels under the kernel are dark; outputs are green above them.

    Args:
        size: Rows and columns of the input.
        kernel, stride, dilation: Per axis, in pixels.
        padding: (above, below), (left, right), in pixels.
        output: Rows and columns of the output.
        positions: Output pixels (row, column) to show, a panel each.
        title: Above the picture.

    Source: the manner of Dumoulin and Visin, arXiv:1603.07285.
    """
    import matplotlib.pyplot as plt

    across = min(len(positions), output[1] if len(positions) == output[0] * output[1] else 6)
    down = -(-len(positions) // across)
    padded = [n + sum(sides) for n, sides in zip(size, padding, strict=True)]
    height = padded[0] + output[0] + 1.6
    side = min(2.6, 13 / across)
    width, tall = max(side * across, 0.09 * len(title)), side * down * height / max(padded[1], output[1])
    figure, axes = plt.subplots(
        down, across, figsize=(width, tall + 0.5 * bool(title)), squeeze=False, layout="constrained"
    )
    for ax in axes.flat:
        ax.axis("off")
    for ax, place in zip(axes.flat, positions, strict=False):
        _draw_position(ax, size, kernel, stride, padding, dilation, output, place)
    if title:
        figure.suptitle(title, fontsize=12, color=INK)
    return figure


def plot_channels(image: np.ndarray, names: Sequence[str] = tuple(CHANNELS)) -> Figure:
    """Show a colour image and its channels, each in its own colour: the lighter, the more of it.

    Args:
        image: Pixels, [channel, row, column], on 0 to 255 or 0 to 1.
        names: Of the channels; red, green and blue have their colours, others are grey.
    """
    import matplotlib.pyplot as plt

    scaled = image.astype(float) / (255 if image.max() > 1 else 1)
    n = len(scaled)
    shape = scaled.shape[1:]
    figure, axes = plt.subplots(1, n + 1, figsize=(3 * (n + 1), 3 * shape[0] / shape[1] + 0.4), layout="constrained")
    axes[0].imshow(scaled.transpose(1, 2, 0) if n == 3 else scaled.mean(0), cmap="gray", vmin=0, vmax=1)
    axes[0].set_title("image")
    for i, (ax, name) in enumerate(zip(axes[1:], names, strict=True)):
        shown = scaled[i]
        if name in CHANNELS:
            shown = np.zeros((*shape, 3))
            shown[..., list(CHANNELS).index(name)] = scaled[i]
        ax.imshow(shown, cmap="gray", vmin=0, vmax=1)
        ax.set_title(f"{name}, mean {image[i].mean():.3g}")
    for ax in axes:
        ax.axis("off")
    return figure


def plot_channel_products(
    window: np.ndarray,
    kernel: np.ndarray,
    products: np.ndarray,
    sums: np.ndarray,
    bias: float | None,
    total: float,
    names: Sequence[str],
) -> Figure:
    """Show how one kernel turns a window of several channels into one number: a row for each channel, then their sum.

    Args:
        window, kernel, products: [channel, row, column].
        sums: Of the products, [channel].
        bias: Added to them; None for none.
        total: What comes out.
        names: Of the channels.
    """
    import matplotlib.pyplot as plt

    n = len(window)
    figure = plt.figure(figsize=(9.2, 2.05 * n + 0.9), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(2.05 * n, 0.75))
    above, below = halves
    axes = above.subplots(n, 5, squeeze=False, width_ratios=(0.3, 1, 1, 1, 0.8))
    limits = min(0.0, float(window.min())), float(window.max())
    spread = float(np.abs(products).max()), float(np.abs(kernel).max())
    for i, name in enumerate(names):
        label, *row, end = axes[i]
        draw_grid(row[0], window[i], limits=limits, cmap=CHANNELS.get(name, "Greys"))
        draw_grid(row[1], kernel[i], diverging=True, spread=spread[1])
        draw_grid(row[2], products[i], diverging=True, spread=spread[0])
        for ax, sign in zip(row, "×=→", strict=True):
            ax.text(1.13, 0.5, sign, transform=ax.transAxes, ha="center", va="center", fontsize=18, color=INK)
        label.text(1, 0.5, name, ha="right", va="center", fontsize=14, color=_ink(name))
        end.text(0.1, 0.5, f"sum  {_exact(sums[i])}", va="center", fontsize=15, color=_ink(name), weight="bold")
        label.axis("off")
        end.axis("off")
    for ax, title in zip(axes[0, 1:4], ("pixels", "kernel", "products"), strict=True):
        ax.set_title(title, fontsize=12, color=INK)
    _draw_sum(below.subplots(), sums, bias, total, names)
    return figure


def plot_kernel_gallery(kernels: Mapping[str, np.ndarray], maps: Sequence[np.ndarray], across: int = 3) -> Figure:
    """Show kernels as numbers and beside each what it makes of an image; zero is white, negative is brown.

    Args:
        kernels: Weights by name, each [row, column].
        maps: A feature map for each, [row, column].
        across: Kernels in a row.
    """
    import matplotlib.pyplot as plt

    across = min(across, len(kernels))
    down = -(-len(kernels) // across)
    figure, axes = plt.subplots(
        down, 2 * across, figsize=(3.6 * across, 2.15 * down), squeeze=False, layout="constrained",
        width_ratios=(0.75, 1) * across,
    )  # fmt: skip
    for ax in axes.flat:
        ax.axis("off")
    for i, ((name, kernel), mapped) in enumerate(zip(kernels.items(), maps, strict=True)):
        left, right = axes[i // across, 2 * (i % across) :][:2]
        draw_grid(left, kernel, diverging=True, numbers=max(kernel.shape) <= 3, title=name)
        draw_grid(right, mapped, diverging=True, numbers=False)
    return figure


def draw_grid(
    ax: Axes,
    values: np.ndarray,
    *,
    cmap: str = "Greys",
    limits: tuple[float, float] | None = None,
    diverging: bool = False,
    spread: float | None = None,
    numbers: bool = True,
    inches: float = 1.8,
    title: str = "",
) -> None:
    """Draw a matrix as coloured cells with their numbers.

    Args:
        ax: Draw here.
        values: [row, column].
        cmap: Colours from smallest to largest value.
        limits: Smallest and largest value of the colours; None takes those of `values`.
        diverging: Colours around zero instead: brown below, white at zero, teal above.
        spread: Largest absolute value of diverging colours; None takes that of `values`.
        numbers: Whether to write the numbers.
        inches: About how wide the picture will be, for the size of the numbers.
        title: Above the cells.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    if diverging:
        # The strongest colours of the map are too dark for numbers on them.
        largest = 1.35 * (spread or float(np.abs(values).max()) or 1.0)
        cmap, limits = "BrBG", (-largest, largest)
    elif limits is None:
        limits = float(values.min()), float(values.max())
    norm = Normalize(*limits)
    ax.imshow(values, cmap=cmap, norm=norm, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=12, color=INK)
    ax.spines[:].set_color(LINES)
    if not numbers:
        return
    rows, cols = values.shape
    ax.hlines(np.arange(rows - 1) + 0.5, -0.5, cols - 0.5, color=LINES, linewidth=0.5)
    ax.vlines(np.arange(cols - 1) + 0.5, -0.5, rows - 0.5, color=LINES, linewidth=0.5)
    longest = max(len(_short(value)) for value in values.flat)
    fontsize = min(15.0, 72 * inches / max(rows, cols) / (0.85 * max(2, longest)))
    colours = colormaps[cmap](norm(values))
    for (i, j), value in np.ndenumerate(values):
        dark = colours[i, j, :3] @ (0.299, 0.587, 0.114) < 0.5
        ax.text(j, i, _short(value), ha="center", va="center", fontsize=fontsize, color="white" if dark else INK)


def _draw_position(
    ax: Axes, size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, output: Any, place: tuple[int, int]
) -> None:
    """One panel of `plot_positions`: the padded input below, the output above, both centred."""
    covered = [
        {p * s - pads[0] + d * i for i in range(k)}
        for p, s, pads, d, k in zip(place, stride, padding, dilation, kernel, strict=True)
    ]
    (above, below), (left, right) = padding
    centre = (size[1] - left + right) / 2
    for i in range(-above, size[0] + below):
        for j in range(-left, size[1] + right):
            inside = 0 <= i < size[0] and 0 <= j < size[1]
            under = i in covered[0] and j in covered[1]
            colour = (WINDOW if under else INPUT) if inside else ("#9bb8d6" if under else "white")
            _cell(ax, j - centre, i, colour, dashed=not inside)
    lift = -above - 1.2 - output[0]
    for i in range(output[0]):
        for j in range(output[1]):
            _cell(ax, j - output[1] / 2, lift + i, LIT if (i, j) == place else OUTPUT)
    half = max(size[1] + left + right, output[1]) / 2 + 0.1
    ax.set(xlim=(-half, half), ylim=(size[0] + below + 0.1, lift - 0.1), aspect="equal")


def _cell(ax: Axes, x: float, y: float, colour: str, *, dashed: bool = False) -> None:
    from matplotlib.patches import Rectangle

    style: dict[str, Any] = {"linestyle": (0, (2, 2)), "zorder": 1} if dashed else {"zorder": 2}
    ax.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor=LINES, linewidth=0.8, **style))


def _draw_sum(ax: Axes, sums: np.ndarray, bias: float | None, total: float, names: Sequence[str]) -> None:
    """The sums of the channels, added up in a row of coloured words."""
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

    terms = [(f"{name} {_exact(value)}", _ink(name)) for name, value in zip(names, sums, strict=True)]
    terms += [] if bias is None else [(f"bias {_exact(bias)}", INK)]
    words = [
        terms[0],
        *(piece for term in terms[1:] for piece in (("+", INK), term)),
        ("=", INK),
        (_exact(total), MARK),
    ]
    areas: list[Any] = [TextArea(text, textprops={"color": colour, "size": 16}) for text, colour in words]
    ax.axis("off")
    ax.add_artist(AnchoredOffsetbox("center", child=HPacker(children=areas, pad=0, sep=9), frameon=False))


def _frame(ax: Axes, left: int, top: int, width: int, height: int) -> None:
    from matplotlib.patches import Rectangle

    corner = (left - 0.5, top - 0.5)
    ax.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=MARK, linewidth=2.6, zorder=5, clip_on=False))


def _ink(name: str) -> str:
    return {"red": "#c53030", "green": "#2f855a", "blue": "#2b6cb0"}.get(name, INK)


def _short(value: float) -> str:
    """A number as a cell has room for, with a true minus sign."""
    number = float(value)
    text = f"{number:.2g}" if abs(number) < 10 and number != round(number) else f"{number:.0f}"
    return "0" if text == "-0" else text.replace("-", "−")


def _exact(value: float) -> str:
    number = float(value)
    text = f"{number:,.0f}" if number == round(number) else f"{number:,.4g}"
    return "0" if text == "-0" else text.replace("-", "−")
