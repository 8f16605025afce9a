"""Figures of kernels: at work, on the way over an image, beside what they make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pellucid.convolution.arithmetic import Padding, output_size, two_sided
from pellucid.convolution.mapping import COLOURS, feature_map, numbers, pair, window_at
from pellucid.errors import UsageError
from pellucid.plot.figure import FigureOptions, finished

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_application(
    image: Any, kernel: Any, row: int, col: int, *, annotate: bool | None = None, **options: Unpack[FigureOptions]
) -> Figure:
    """Draw a kernel at work: the image with one window marked, the kernel, their products, and the whole feature map.

    Args:
        image: Numbers, (row, column).
        kernel: Numbers, (row, column).
        row, col: The window's centre, as `apply_kernel` has it.
        annotate: Whether to write numbers into image and map; None does so up to 16 pixels a side.
        options: `figsize`, `dpi`, `title`, `suptitle`.

    Raises:
        UsageError: as `apply_kernel`.
    """
    from pellucid.plot.kernels import plot_application

    pixels, weights = numbers(image, "image").detach(), window_at(image, row, col, kernel)[1].detach()
    if pixels.ndim != 2:
        raise UsageError(f"show_application takes an image (row, column), not {tuple(pixels.shape)}")
    corner = row - (weights.shape[0] - 1) // 2, col - (weights.shape[1] - 1) // 2
    image, kernel, mapped = (np.asarray(part.cpu()) for part in (pixels, weights, feature_map(pixels, weights)))
    return finished(plot_application(image, kernel, mapped, corner, annotate=annotate), options)


def show_positions(
    size: int | tuple[int, int],
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    *,
    positions: Sequence[tuple[int, int]] | None = None,
    **options: Unpack[FigureOptions],
) -> Figure:
    """Draw where a kernel goes on a padded image, a panel for each position, with the output pixel it makes.

    Args:
        size: Rows and columns of the image.
        kernel, stride, padding, dilation: As in `output_size`; an int is for both axes.
        positions: Output pixels (row, column) to show; None shows all if they are up to nine, else those of the first
            row, at most six.
        options: `figsize`, `dpi`, `title`, `suptitle`.

    Raises:
        UsageError: the kernel does not fit, or there is no such position.
    """
    from pellucid.plot.kernels import plot_positions

    sizes, kernels, strides, dilations = map(pair, (size, kernel, stride, dilation))
    n_rows, n_cols = output_size(sizes, kernels, strides, padding, dilations)  # pyright: ignore[reportGeneralTypeIssues]
    places = [(i, j) for i in range(n_rows) for j in range(n_cols)]
    shown = list(positions) if positions is not None else places if len(places) <= 9 else places[: min(n_cols, 6)]
    for place in shown:
        if place not in places:
            raise UsageError(f"no position {place}: rows go from 0 to {n_rows - 1}, columns from 0 to {n_cols - 1}")
    (above, below), (left, right) = two_sided(padding, kernels, strides, dilations)
    sides = (above, below), (left, right)
    title = f"{_by(kernels)} kernel on {_by(sizes)}"
    if above == below == left == right:
        title += f", padding {above}" if above else ""
    else:
        title += f", padding {above} above, {below} below, {left} left, {right} right"
    for name, values in (("stride", strides), ("dilation", dilations)):
        title += "" if values == (1, 1) else f", {name} {values[0] if values[0] == values[1] else _by(values)}"
    title += f" → {_by((n_rows, n_cols))}"
    drawn = plot_positions(sizes, kernels, strides, sides, dilations, (n_rows, n_cols), shown, title=title)
    return finished(drawn, options)


def show_channels(image: Any, names: Sequence[str] = COLOURS, **options: Unpack[FigureOptions]) -> Figure:
    """Draw a colour image and each of its channels.

    Args:
        image: Pixels, (channel, row, column), on 0 to 255 or 0 to 1.
        names: Of the channels; red, green and blue appear in their colours.
        options: `figsize`, `dpi`, `title`, `suptitle`.

    Raises:
        UsageError: the image has no channels, or another number than names, or pixels are nan or infinite.
    """
    from pellucid.plot.kernels import plot_channels

    pixels = numbers(image, "image").detach().cpu()
    if pixels.ndim != 3 or len(pixels) != len(names):
        raise UsageError(f"an image of shape {tuple(pixels.shape)} does not have the {len(names)} channels {names}")
    return finished(plot_channels(np.asarray(pixels), names), options)


def show_gallery(image: Any, kernels: Mapping[str, Any] | None = None, **options: Unpack[FigureOptions]) -> Figure:
    """Draw kernels and what each makes of an image.

    Args:
        image: Numbers, (row, column).
        kernels: By name, each (row, column); None takes all that `kernels.named()` has.
        options: `figsize`, `dpi`, `title`, `suptitle`.

    Raises:
        UsageError: as `feature_map`.
    """
    from pellucid.convolution.kernels import named
    from pellucid.plot.kernels import plot_kernel_gallery

    shown = {name: numbers(kernel, name).detach().cpu() for name, kernel in (kernels or named()).items()}
    maps = [np.asarray(feature_map(image, kernel).detach().cpu()) for kernel in shown.values()]
    return finished(plot_kernel_gallery({name: np.asarray(kernel) for name, kernel in shown.items()}, maps), options)


def _by(sides: tuple[int, int]) -> str:
    return f"{sides[0]}×{sides[1]}"
