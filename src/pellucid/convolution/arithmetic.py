"""Sizes, parameters and multiplications of convolutions and poolings. Integers only; nothing here needs torch.

An argument that is one integer holds for every axis; a tuple has one entry per axis. Padding may differ between the two
sides of an axis: then its entry is the pair (before, after), left and right or top and bottom.

Source: V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285; the rules for
ceil mode and even kernels are PyTorch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from pellucid.errors import UsageError
from pellucid.padding import same_sides

Axes = int | tuple[int, ...]
Sides = int | tuple[int, int]
Padding = int | tuple[Sides, ...] | Literal["same", "valid"]


def output_size(
    size: Axes,
    kernel: Axes,
    stride: Axes = 1,
    padding: Padding = 0,
    dilation: Axes = 1,
    *,
    transposed: bool = False,
    output_padding: Axes = 0,
    ceil_mode: bool = False,
) -> Axes:
    """Size of the output grid of a convolution or pooling: an int if `size` and the rest are ints, else a tuple.

    On each axis (n + before + after - dilation·(kernel - 1) - 1) // stride + 1, which is the chapter's
    (n + 2·pad - ks) // stride + 1 without dilation. It holds for `Conv`, `MaxPool`, `AvgPool` and `LPPool` in 1 to 3
    dimensions; PyTorch's poolings take the kernel as their stride unless given another. A transposed convolution and
    `MaxUnpool` turn it round: (n - 1)·stride - before - after + dilation·(kernel - 1) + 1 + output_padding. Groups
    change no size; adaptive poolings give the size they are asked for.

    >>> output_size(28, kernel=3, stride=2, padding=1)
    14
    >>> output_size((480, 640), kernel=(3, 5), padding='same')
    (480, 640)

    Args:
        size: Pixels of the input.
        kernel: Pixels of the kernel.
        stride: Pixels from one position of the kernel to the next.
        padding: Pixels added on both sides; a pair (before, after) for one axis or in place of an axis's entry; 'same'
            keeps the size, 'valid' adds none.
        dilation: Pixels from one kernel entry to the next.
        transposed: Whether the convolution is transposed.
        output_padding: Pixels added to the end of a transposed convolution's output.
        ceil_mode: Whether a pooling keeps a last window that sticks out. It must start inside the input or its padding
            before, and padding may be at most half of the kernel.

    Raises:
        UsageError: an argument is out of range, tuples differ in length, or the kernel does not fit.
    """
    axes, plain = _axes(size, kernel, stride, padding, dilation, output_padding, transposed, ceil_mode, "size")
    outputs = tuple(axis.output(n) for axis, n in axes)
    return outputs[0] if plain else outputs


def input_sizes(
    output: Axes,
    kernel: Axes,
    stride: Axes = 1,
    padding: Padding = 0,
    dilation: Axes = 1,
    *,
    transposed: bool = False,
    output_padding: Axes = 0,
    ceil_mode: bool = False,
) -> range | tuple[range, ...]:
    """Which input sizes give this output size: a range, or one per axis; empty if none does.

    The arguments are those of `output_size`, whose inverse this is.

    >>> input_sizes(14, kernel=3, stride=2, padding=1)
    range(27, 29)

    Raises:
        UsageError: an argument is out of range or tuples differ in length.
    """
    axes, plain = _axes(output, kernel, stride, padding, dilation, output_padding, transposed, ceil_mode, "output")
    ranges = tuple(axis.inputs(n) for axis, n in axes)
    return ranges[0] if plain else ranges


def same_padding(kernel: Axes, dilation: Axes = 1) -> Sides | tuple[Sides, ...]:
    """Padding that keeps the size at stride 1: an int for each axis if both sides are equal, else (before, after).

    An even kernel needs one pixel more after than before, as PyTorch's padding='same' has it.

    >>> same_padding(5), same_padding(4), same_padding((3, 4))
    (2, (1, 2), (1, (1, 2)))

    Raises:
        UsageError: an argument is below 1 or tuples differ in length.
    """
    n_axes, plain = _count(kernel=kernel, dilation=dilation)
    kernels = _per_axis(kernel, n_axes, "kernel", 1)
    pairs = [same_sides(1, k, 1, d) for k, d in zip(kernels, _per_axis(dilation, n_axes, "dilation", 1), strict=True)]
    sides: tuple[Sides, ...] = tuple(before if before == after else (before, after) for before, after in pairs)
    return sides[0] if plain else sides


def two_sided(
    padding: Padding,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    *,
    transposed: bool = False,
) -> list[tuple[int, int]]:
    """Padding as pixels (before, after) for each axis of the kernel.

    Raises:
        UsageError: it does not fit the axes, or is 'same' where no padding keeps the size.
    """
    n_axes = len(kernel)
    if padding == "valid" and not transposed:
        return [(0, 0)] * n_axes
    if padding == "same" and not transposed:
        if any(s != 1 for s in stride):
            raise UsageError(f"padding='same' keeps the size at stride 1 only, not {stride}: give the pixels")
        return [_pair(side) for side in same_padding(kernel, dilation)]  # pyright: ignore[reportGeneralTypeIssues]
    if isinstance(padding, str):
        allowed = "pixels" if transposed else "pixels, 'same' or 'valid'"
        raise UsageError(f"padding {padding!r} cannot be used here: give {allowed}")
    if isinstance(padding, int):
        return [_pair(padding)] * n_axes
    if n_axes == 1 and len(padding) == 2:
        return [_pair(padding)]  # pyright: ignore[reportArgumentType]
    if len(padding) != n_axes:
        wanted = "an int or (before, after)" if n_axes == 1 else f"an int or {n_axes} entries, one for each axis"
        raise UsageError(f"padding {padding} does not fit {n_axes} axes: give {wanted}")
    return [_pair(entry) for entry in padding]


def parameters(channels_in: int, channels_out: int, kernel: Axes, *, groups: int = 1, bias: bool = True) -> int:
    """Weights and biases of a convolution: out · in/groups · kernel area, and a bias for each output channel.

    >>> [parameters(*channels, kernel=3) for channels in ((1, 4), (4, 8), (8, 16), (16, 32), (32, 2))]
    [40, 296, 1168, 4640, 578]

    Args:
        channels_in, channels_out: Channels of input and output; features of a linear layer.
        kernel: One int for a square; a tuple in 1 or 3 dimensions; () for a linear layer.
        groups: Parts of the channels that do not see one another; a transposed convolution counts alike.
        bias: Whether there are biases.

    Raises:
        UsageError: a count is below 1, or the channels cannot be divided into the groups.
    """
    for name, value in (("channels_in", channels_in), ("channels_out", channels_out), ("groups", groups)):
        _per_axis(value, 1, name, 1)
    if channels_in % groups or channels_out % groups:
        raise UsageError(f"{channels_in} and {channels_out} channels cannot be divided into {groups} groups")
    area = prod(_per_axis(kernel, 2 if isinstance(kernel, int) else len(kernel), "kernel", 1))
    return channels_out * (channels_in // groups) * area + (channels_out if bias else 0)


def multiplications(channels_in: int, channels_out: int, kernel: Axes, grid: Axes, *, groups: int = 1) -> int:
    """Multiplications by weights for one image: each weight is used once at each position of the grid.

    The grid is the one the kernel stops at: the output of a convolution, the input of a transposed one, () for a linear
    layer. The chapter counts a stride-2 convolution over its input, which is four times as many:

    >>> multiplications(4, 8, kernel=3, grid=7), multiplications(4, 8, kernel=3, grid=14)
    (14112, 56448)

    Args:
        channels_in, channels_out, kernel, groups: As `parameters` has them.
        grid: Pixels; one int for a square.

    Raises:
        UsageError: as `parameters`.
    """
    positions = prod(_per_axis(grid, 2 if isinstance(grid, int) else len(grid), "grid", 1))
    return parameters(channels_in, channels_out, kernel, groups=groups, bias=False) * positions


@dataclass(frozen=True)
class _Axis:
    """One axis of a convolution or pooling; `span` is what the kernel covers, `extra` the output padding."""

    span: int
    stride: int
    before: int
    after: int
    transposed: bool
    extra: int
    ceil_mode: bool

    def output(self, n: int) -> int:
        if self.transposed:
            size = (n - 1) * self.stride - self.before - self.after + self.span + self.extra
            if size < 1:
                raise UsageError(
                    f"nothing is left of the output: {n} pixels spread to {size + self.before + self.after}, "
                    f"of which padding cuts off {self.before} before and {self.after} after"
                )
            return size
        room = n + self.before + self.after - self.span
        size = (room + self.stride - 1 if self.ceil_mode else room) // self.stride + 1
        if size < 1:
            padded = "" if self.before + self.after == 0 else f" with padding {self.before} before, {self.after} after"
            raise UsageError(
                f"a kernel that spans {self.span} pixels does not fit into {n}{padded}; "
                f"it needs {self.span - self.before - self.after} or more"
            )
        if self.ceil_mode and (size - 1) * self.stride >= n + self.before:
            size -= 1
        return size

    def inputs(self, output: int) -> range:
        pads = self.before + self.after
        if self.transposed:
            steps, rest = divmod(output + pads - self.span - self.extra, self.stride)
            return range(0) if rest or steps < 0 else range(steps + 1, steps + 2)
        last = (output - 1) * self.stride + self.span - pads
        if not self.ceil_mode:
            return range(max(1, last), max(1, last + self.stride))
        # Two counts grow with n, and the smaller one holds: windows that touch all pixels, windows that start inside.
        start = (output - 1) * self.stride + 1 - self.before
        return range(max(1, last - self.stride + 1, start), max(1, last + 1, start + self.stride))


def _axes(
    size: Axes,
    kernel: Axes,
    stride: Axes,
    padding: Padding,
    dilation: Axes,
    output_padding: Axes,
    transposed: bool,
    ceil_mode: bool,
    what: str,
) -> tuple[list[tuple[_Axis, int]], bool]:
    """Every axis with its size, and whether all arguments were plain integers."""
    named = {"kernel": kernel, "stride": stride, "dilation": dilation}
    n_axes, plain = _count(**{what: size}, **named, output_padding=output_padding)
    if transposed and ceil_mode:
        raise UsageError("ceil_mode belongs to poolings; a transposed convolution does not have it")
    spread = {name: _per_axis(value, n_axes, name, 1) for name, value in named.items()}
    sides = two_sided(padding, *spread.values(), transposed=transposed)
    extras = _per_axis(output_padding, n_axes, "output_padding", 0)
    axes = []
    for k, s, d, (before, after), extra in zip(*spread.values(), sides, extras, strict=True):
        span = d * (k - 1) + 1
        if extra and not transposed:
            raise UsageError(f"output_padding {extra} belongs to transposed convolutions: add transposed=True")
        if extra >= max(s, d) and transposed:
            raise UsageError(f"output_padding {extra} must be smaller than the stride {s} or the dilation {d}")
        if ceil_mode and max(before, after) > span // 2:
            raise UsageError(
                f"padding of a pooling is at most half of its kernel: {span // 2} here, not {before, after}"
            )
        axes.append(_Axis(span, s, before, after, transposed, extra, ceil_mode))
    return list(zip(axes, _per_axis(size, n_axes, what, 1), strict=True)), plain


def _pair(side: Sides) -> tuple[int, int]:
    before, after = _per_axis(side, 2, "padding", 0)
    return before, after


def _count(**arguments: Axes) -> tuple[int, bool]:
    """How many axes the tuples among the arguments have, and whether there are none."""
    lengths = {name: len(value) for name, value in arguments.items() if isinstance(value, tuple | list)}
    if len(set(lengths.values())) > 1:
        raise UsageError("different numbers of axes: " + ", ".join(f"{name} has {n}" for name, n in lengths.items()))
    return max(lengths.values(), default=1), not lengths


def _per_axis(value: Axes, n_axes: int, name: str, least: int) -> tuple[int, ...]:
    """One checked integer per axis."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * n_axes
    if len(values) != n_axes:
        raise UsageError(f"{name} {value} has {len(values)} entries; {n_axes} are needed")
    for entry in values:
        if not isinstance(entry, int) or isinstance(entry, bool) or entry < least:
            raise UsageError(f"{name} must be a whole number of {least} or more, not {entry!r}")
    return values
