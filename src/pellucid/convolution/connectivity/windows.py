"""Rules of operations that read through windows: convolutions, poolings, interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor

from pellucid.convolution.connectivity import axes
from pellucid.convolution.connectivity.axes import Border, everything, part
from pellucid.convolution.connectivity.moves import Gather, Move, Shape
from pellucid.convolution.connectivity.registry import Input, Read, per_axis, rule, whole
from pellucid.convolution.connectivity.weights import Copy, Kernel, Largest, Mean, Weights
from pellucid.padding import same_sides

Sides = Sequence[tuple[int, int]]


@rule("conv? Conv?")
def conv(
    out: Shape, x: Input, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1, padding_mode: str = "zeros",
) -> list[Read]:  # fmt: skip
    """A window along each axis of the grid; all channels of the group."""
    n = len(weight.shape) - 2
    if padding == "valid":
        padding = 0
    sides = (
        _same(x, weight.shape[2:], 1, per_axis(dilation, n))
        if padding == "same"
        else [(p, p) for p in per_axis(padding, n)]
    )
    return _convolved(out, x, weight, bias, stride, sides, dilation, groups, padding_mode)


@rule("Conv2dSame Conv2dSamePadding Conv2dDynamicSamePadding")
def conv_same(
    out: Shape, x: Input, weight: Any, bias: Any = None, stride: Any = 1, dilation: Any = 1, groups: int = 1
) -> list[Read]:
    """TensorFlow's 'same', as timm and ports of EfficientNet have it: the output has ⌈input / stride⌉ places."""
    sides = _same(x, weight.shape[2:], stride, dilation)
    return _convolved(out, x, weight, bias, stride, sides, dilation, groups)


@rule("MaxPool2dSame MaxPool2dDynamicSamePadding")
def max_pool_same(out: Shape, x: Input, kernel_size: Any, stride: Any = None, dilation: Any = 1) -> list[Read]:
    """A window in each channel, padded as TensorFlow does."""
    sides = _same(x, per_axis(kernel_size, len(out) - 2), stride or kernel_size, dilation)
    return _pooled(out, x, kernel_size, stride, sides, dilation, Largest())


@rule("conv_transpose? ConvTranspose?")
def conv_transpose(
    out: Shape, x: Input, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> list[Read]:  # fmt: skip
    """Each input place spread over a window of the output."""
    n = len(weight.shape) - 2
    if len(x.shape) != n + 2:
        return whole(out, x)
    settings = zip(weight.shape[2:], *(per_axis(v, n) for v in (stride, padding, dilation)), strict=True)
    moves = [
        Gather(dim, axes.transposed(x.shape[dim], out[dim], *axis)) for dim, axis in enumerate(settings, start=2)
    ]  # fmt: skip
    channels = Gather(1, axes.groups(x.shape[1], out[1], groups))
    return [Read(x, (channels, *moves), _kernel(weight, bias, groups, transposed=True))]


@rule("max_pool? MaxPool? max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices")
def max_pool(
    out: Any, x: Input, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, *_: Any, **__: Any
) -> Any:
    """A window in each channel; with indices, twice."""
    if isinstance(out, list):
        return [max_pool(shape, x, kernel_size, stride, padding, dilation) for shape in out]
    return _pooled(out, x, kernel_size, stride, _both(padding, kernel_size, out), dilation, Largest())


@rule("avg_pool? AvgPool?")
def avg_pool(
    out: Shape, x: Input, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> list[Read]:  # fmt: skip
    """A window in each channel."""
    sides = _both(padding, kernel_size, out)
    mean = Mean(tuple(p for p, _ in sides) if count_include_pad else (0,) * len(sides), divisor_override)
    return _pooled(out, x, kernel_size, stride, sides, 1, mean)


@rule("lp_pool? LPPool?")
def lp_pool(out: Shape, x: Input, norm_type: Any, kernel_size: Any, stride: Any = None, *_: Any, **__: Any) -> Any:
    """A window in each channel."""
    return _pooled(out, x, kernel_size, stride, _both(0, kernel_size, out), 1, None)


@rule("adaptive_avg_pool? AdaptiveAvgPool?")
def adaptive_avg_pool(out: Shape, x: Input, *_: Any, **__: Any) -> list[Read]:
    """The mean of windows that tile each axis as evenly as they can."""
    return _tiled(out, x, Mean())


@rule("adaptive_max_pool? AdaptiveMaxPool?")
def adaptive_max_pool(out: Any, x: Input, *_: Any, **__: Any) -> Any:
    """The largest of such windows."""
    return [_tiled(shape, x, Largest()) for shape in out] if isinstance(out, list) else _tiled(out, x, Largest())


@rule("interpolate upsample Upsample UpsamplingNearest2d UpsamplingBilinear2d")
def interpolate(
    out: Shape, x: Input, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> list[Read]:  # fmt: skip
    """The neighbours that each new place is interpolated from."""
    if antialias:
        return whole(out, x)
    n_axes = len(out) - 2
    given = scale_factor is not None and not recompute_scale_factor
    factors = per_axis(scale_factor, n_axes) if given else (None,) * n_axes
    moves = []
    for dim, factor in enumerate(factors, start=2):
        n_in, n_out = x.shape[dim], out[dim]
        ratio = 1 / Fraction(factor).limit_denominator(10_000) if factor else Fraction(n_in, n_out)
        neighbours = {"nearest": None, "nearest-exact": None, "bicubic": (-1, 2)}.get(mode, (0, 1))
        offset = Fraction(0) if mode == "nearest" else Fraction(1, 2)
        if align_corners:
            ratio, offset = Fraction(n_in - 1, max(n_out - 1, 1)), Fraction(0)
        if mode == "area":
            axis = axes.adaptive(n_in, n_out)
        elif ratio == 0 or n_in == 1:
            axis = everything(1, n_out) if n_in == 1 else part(n_in, n_out, 0, n_in)
        else:
            axis = axes.rescaled(n_in, n_out, ratio, offset, neighbours)
        moves.append(Gather(dim, axis))
    return [Read(x, tuple(moves), Copy() if mode.startswith("nearest") else None)]


def _convolved(
    out: Shape, x: Input, weight: Any, bias: Any, stride: Any, sides: Sides, dilation: Any, groups: int,
    border: Any = "zeros",
) -> list[Read]:  # fmt: skip
    n = len(weight.shape) - 2
    if len(x.shape) != n + 2:  # an image without batch axis
        return whole(out, x)
    moves = _windows(out, x, weight.shape[2:], per_axis(stride, n), sides, per_axis(dilation, n), border)
    channels = Gather(1, axes.groups(x.shape[1], out[1], groups))
    return [Read(x, (channels, *moves), _kernel(weight, bias, groups))]


def _pooled(
    out: Shape, x: Input, size: Any, stride: Any, sides: Sides, dilation: Any, weights: Weights | None
) -> list[Read]:
    n = len(sides)
    moves = _windows(out, x, per_axis(size, n), per_axis(stride or size, n), sides, per_axis(dilation, n))
    return [Read(x, moves, weights if len(x.shape) == n + 2 else None)]


def _tiled(out: Shape, x: Input, weights: Weights) -> list[Read]:
    return [Read(x, tuple(Gather(d, axes.adaptive(x.shape[d], out[d])) for d in range(2, len(out))), weights)]


def _windows(
    out: Shape, x: Input, sizes: Sequence[int], strides: Sequence[int], sides: Sides, dilations: Sequence[int],
    border: Border = "zeros",
) -> tuple[Move, ...]:  # fmt: skip
    """Windows along the last axes. A window of ceil mode may stick out beyond the padding."""
    settings = zip(sizes, strides, (before for before, _ in sides), dilations, strict=True)
    return tuple(
        Gather(dim, axes.window(x.shape[dim], out[dim], *axis, border))
        for dim, axis in enumerate(settings, start=len(out) - len(sizes))
    )


def _same(x: Input, sizes: Sequence[int], stride: Any, dilation: Any) -> Sides:
    n = len(sizes)
    settings = zip(x.shape[-n:], sizes, per_axis(stride, n), per_axis(dilation, n), strict=True)
    return [same_sides(*axis) for axis in settings]


def _both(padding: Any, size: Any, out: Shape) -> Sides:
    n = len(per_axis(size, len(out) - 2))
    return [(p, p) for p in per_axis(padding, n)]


def _kernel(weight: Any, bias: Any, groups: int, *, transposed: bool = False) -> Kernel | None:
    """None for a weight that the graph of a model computes, whose numbers are not known."""
    known = isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor))
    return Kernel(weight, bias, groups, transposed) if known else None
