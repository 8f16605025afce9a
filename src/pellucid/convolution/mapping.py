"""Applying a kernel: at one place of an image, everywhere, and channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pellucid.convolution.arithmetic import Padding, output_size, two_sided
from pellucid.errors import UsageError
from pellucid.plot.figure import FigureOptions, finished
from pellucid.text import NOT_FINITE, counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "red", "green", "blue"


def apply_kernel(image: Any, row: int, col: int, kernel: Any) -> Tensor:
    """Multiply the window around one pixel with a kernel and add up: a tensor without axes.

    Args:
        image: Numbers, (row, column), or (channel, row, column), whose channels are added up; or a Pillow image.
        row, col: The window's centre; of an even kernel the pixel before its middle, as padding='same' has it. So
            `feature_map(image, kernel, padding='same')[row, col]` is the same number wherever the window is complete.
        kernel: Numbers, (row, column), used for every channel, or (channel, row, column).

    Raises:
        UsageError: no complete window lies around this pixel, shapes do not fit, channels seem to come last, or numbers
            are nan or infinite.
    """
    window, weights = window_at(image, row, col, kernel)
    return (window * weights).sum()


def feature_map(
    image: Any,
    kernel: Any,
    *,
    bias: Any = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """Apply one kernel or several at every place of an image or a batch: what `F.conv2d` gives, without unit axes.

    Args:
        image: Numbers, (row, column), (channel, row, column) or (image, channel, row, column); or a Pillow image.
        kernel: Numbers. (row, column) is one kernel, used for every channel. (kernel, row, column) is a stack of those,
            unless the image has several channels: then it is (channel, row, column), one kernel with weights for each.
            (kernel, channel, row, column) is what a convolution layer has.
        bias: Added to each map: one number or one for each kernel.
        stride, dilation: As in `F.conv2d`.
        padding: As in `output_size`: pixels, 'same' or 'valid', also different ones on both sides.

    Returns:
        (row, column) for one kernel on one image, (kernel, row, column) for several, (image, kernel, row, column) for a
        batch whatever the kernel. Of type float, unless image or kernel is double.

    Raises:
        UsageError: shapes do not fit, channels seem to come last, the kernel is larger than the padded image, or
            numbers are nan or infinite.
    """
    x, weights = numbers(image, "image"), numbers(kernel, "kernel")
    if not 2 <= x.ndim <= 4:
        raise UsageError(f"an image has 2 axes, with channels 3, in a batch 4; this one has shape {tuple(x.shape)}")
    _check_channels(x, weights)
    n_channels = 1 if x.ndim == 2 else x.shape[-3]
    stacked = weights.ndim == 4 or (weights.ndim == 3 and n_channels == 1)
    weights = _as_weights(weights, n_channels)
    size = tuple(weights.shape[-2:])
    output_size(tuple(x.shape[-2:]), size, stride, padding, dilation)  # raises what does not fit
    kind = torch.promote_types(x.dtype, weights.dtype)
    offsets = None if bias is None else numbers(bias, "bias").to(x.device, kind).expand(len(weights))
    batch = x.to(kind).reshape(-1, n_channels, *x.shape[-2:])
    sides = two_sided(padding, size, pair(stride), pair(dilation))
    if any(before != after for before, after in sides):
        # torch's own 'same' warns of the copy that this is
        batch, sides = F.pad(batch, [pixels for side in reversed(sides) for pixels in side]), [(0, 0), (0, 0)]
    even = tuple(before for before, _ in sides)
    maps = F.conv2d(batch, weights.to(x.device, kind), offsets, stride, even, dilation)
    if x.ndim == 4:
        return maps
    return maps[0] if stacked else maps[0, 0]


@dataclass(frozen=True)
class ChannelProducts:
    """One window of an image with several channels, multiplied step by step; `str()` shows the steps.

    Attributes:
        row, col: The window's centre.
        names: Of the channels.
        window: Pixels, (channel, row, column).
        kernel: Weights, (channel, row, column).
        products: Pixels times weights, (channel, row, column).
        sums: Of the products of each channel, (channel,).
        bias: Added at the end; None for none.
        total: Sum of `sums` and `bias`: the activation before its activation function.
    """

    row: int
    col: int
    names: tuple[str, ...]
    window: Tensor
    kernel: Tensor
    products: Tensor
    sums: Tensor
    bias: float | None
    total: Tensor

    def __str__(self) -> str:
        size = "×".join(map(str, self.window.shape[1:]))
        lines = [f"{size} window around row {self.row}, column {self.col}: pixels × kernel = products"]
        for name, *steps, total in zip(self.names, self.window, self.kernel, self.products, self.sums, strict=True):
            blocks = [_block(values) for values in steps]
            lines.append("")
            for i, (pixels, weights, products) in enumerate(zip(*blocks, strict=True)):
                middle = i == len(blocks[0]) // 2
                times, equals = ("×", "=") if middle else (" ", " ")
                end = f"   sum {_short(total)}" if middle else ""
                cells = pixels, times, weights, equals, products + end
                lines.append(f"{name if i == 0 else '':8}{'  '.join(cells)}".rstrip())
        return "\n".join([*lines, "", self.equation()])

    def equation(self) -> str:
        """The last step as one line: red 12 + green 7 + blue -3 + bias 0.5 = 16.5."""
        terms = [*zip(self.names, self.sums.tolist(), strict=True)]
        terms += [] if self.bias is None else [("bias", self.bias)]
        written = [f"{name} {_short(value)}" if value >= 0 else f"{name} ({_short(value)})" for name, value in terms]
        return f"{' + '.join(written)} = {_short(self.total)}"

    def show(self, **options: Unpack[FigureOptions]) -> Figure:
        """Draw the steps, a row for each channel; options are `figsize`, `dpi`, `title`, `suptitle`."""
        from pellucid.plot.kernels import plot_channel_products

        window, kernel, products, sums = (
            np.asarray(part.cpu()) for part in (self.window, self.kernel, self.products, self.sums)
        )
        drawn = plot_channel_products(window, kernel, products, sums, self.bias, float(self.total), self.names)
        return finished(drawn, options)


def channel_products(
    image: Any, kernel: Any, row: int, col: int, *, bias: float | None = None, names: tuple[str, ...] | None = None
) -> ChannelProducts:
    """What a kernel does with each channel of an image at one place: products, their sums, and the sum of the sums.

    Args:
        image: Numbers, (channel, row, column) or (row, column); or a Pillow image.
        kernel: Numbers, (channel, row, column), or (row, column) for every channel.
        row, col: The window's centre, as `apply_kernel` has it.
        bias: Added at the end.
        names: Of the channels; None names three channels red, green, blue and others by number.

    Raises:
        UsageError: as `apply_kernel`.
    """
    window, weights = (part.detach().reshape(-1, *part.shape[-2:]) for part in window_at(image, row, col, kernel))
    products = window * weights
    sums = products.sum((1, 2))
    names = names or (COLOURS if len(window) == 3 else tuple(f"channel {i}" for i in range(len(window))))
    if len(names) != len(window):
        raise UsageError(f"{len(names)} names for {len(window)} channels")
    return ChannelProducts(row, col, names, window, weights, products, sums, bias, sums.sum() + (bias or 0))


def numbers(values: Any, what: str) -> Tensor:
    """Values as a float or double tensor; of a Pillow image the channels come first.

    Raises:
        UsageError: some are nan or infinite.
    """
    if isinstance(values, Image.Image):
        values = np.asarray(values.convert() if values.mode == "P" else values)  # a palette's indices are no colours
        values = values.transpose(2, 0, 1) if values.ndim == 3 else values
    given = torch.as_tensor(values if isinstance(values, Tensor) else np.require(values, requirements="W"))
    given = given if given.dtype in (torch.float32, torch.float64) else given.float()
    bad = ~given.isfinite()
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        raise UsageError(f"the {what} has {counted(int(bad.sum()), *NOT_FINITE)}, the first at {first}")
    return given


def _check_channels(image: Tensor, kernel: Tensor) -> None:
    """Refuse an image (row, column, channel), whose rows would be taken for channels; a kernel with channels decides.

    A map of some layer may be as narrow as four pixels, but then it is as low: it has not both channels and rows above
    four.
    """
    if image.ndim < 3 or image.shape[-1] not in (1, 3, 4) or min(image.shape[-3:-1]) <= 4:
        return
    if kernel.ndim > 2 and kernel.shape[-3] == image.shape[-3]:
        return
    n, axes = image.shape[-3], "2, 0, 1" if image.ndim == 3 else "0, 3, 1, 2"
    raise UsageError(
        f"an image of shape {tuple(image.shape)} seems to have its channels last, here they come first: "
        f"torch.as_tensor(image).permute({axes}), or give the Pillow image; if it does have {n} channels, "
        f"give the kernel as many: kernel.expand({n}, -1, -1)"
    )


def _as_weights(kernel: Tensor, n_channels: int) -> Tensor:
    """A kernel or several as (kernel, channel, row, column)."""
    if kernel.ndim == 2 or (kernel.ndim == 3 and n_channels == 1):
        one_each = kernel.reshape(-1, 1, *kernel.shape[-2:])
        return one_each.expand(-1, n_channels, -1, -1)
    if not 2 <= kernel.ndim <= 4:
        raise UsageError(f"a kernel has 2, 3 or 4 axes, the last two rows and columns, not shape {tuple(kernel.shape)}")
    if kernel.shape[-3] != n_channels:
        raise UsageError(
            f"the kernel of shape {tuple(kernel.shape)} has weights for {kernel.shape[-3]} channels, the image has "
            f"{n_channels}; several kernels on several channels have shape (kernel, channel, row, column)"
        )
    return kernel.reshape(-1, n_channels, *kernel.shape[-2:])


def window_at(image: Any, row: int, col: int, kernel: Any) -> tuple[Tensor, Tensor]:
    """The pixels under a kernel whose centre is at (row, col), and the kernel with as many channels.

    Raises:
        UsageError: as `apply_kernel`.
    """
    x, weights = numbers(image, "image"), numbers(kernel, "kernel")
    if x.ndim not in (2, 3) or weights.ndim not in (2, 3) or weights.ndim > x.ndim:
        raise UsageError(
            "an image (row, column) goes with a kernel (row, column), an image (channel, row, column) with both kinds; "
            f"these have shapes {tuple(x.shape)} and {tuple(weights.shape)}"
        )
    _check_channels(x, weights)
    if weights.ndim == 3 and len(weights) != len(x):
        raise UsageError(f"the kernel has {len(weights)} channels, the image {len(x)}")
    height, width = x.shape[-2:]
    n_rows, n_cols = weights.shape[-2:]
    if n_rows > height or n_cols > width:
        raise UsageError(f"the kernel of {n_rows}×{n_cols} is larger than the image of {height}×{width}")
    top, left = row - (n_rows - 1) // 2, col - (n_cols - 1) // 2
    if not (0 <= top <= height - n_rows and 0 <= left <= width - n_cols):
        first_row, first_col = row - top, col - left
        raise UsageError(
            f"no complete {n_rows}×{n_cols} window lies around row {row}, column {col} of the {height}×{width} image: "
            f"rows go from {first_row} to {first_row + height - n_rows}, "
            f"columns from {first_col} to {first_col + width - n_cols}"
        )
    return x[..., top : top + n_rows, left : left + n_cols], weights.expand(*x.shape[:-2], -1, -1)


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """One number for both axes, or a number for each."""
    return (value, value) if isinstance(value, int) else value


def _block(values: Tensor) -> list[str]:
    """A matrix as lines of equal width."""
    texts = [[_short(value) for value in row] for row in values]
    width = max(len(text) for row in texts for text in row)
    return [" ".join(text.rjust(width) for text in row) for row in texts]


def _short(value: Any) -> str:
    number = float(value)
    return f"{number:,.0f}" if number == round(number) and abs(number) < 1e6 else f"{number:.4g}"
