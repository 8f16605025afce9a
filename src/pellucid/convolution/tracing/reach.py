"""Which inputs each unit of a layer takes: tables of places, the same for a convolution, a pooling or a sum.

A unit is one number in a map: (channel, row, column), or fewer or more places than two after the channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import activation, batchnorm, conv, dropout, instancenorm, pooling

from pellucid.inspection.calls import Call

Kind = Literal["window", "slice", "reshape", "channel", "all"]
OUTSIDE = -1
_MIXING = (nn.GLU, nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax)
_POINTWISE = (
    *(cls for cls in map(vars(activation).get, activation.__all__) if isinstance(cls, type) and cls not in _MIXING),
    dropout._DropoutNd,
    nn.Identity,
    batchnorm._BatchNorm,
)
_POOLS = (pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._LPPoolNd)
_ADAPTIVE = (pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd)
_PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@dataclass(frozen=True)
class Reach:
    """Which inputs each output unit takes, batch axis left out.

    Attributes:
        kind: `window`: a window of the unit's group of channels, by `axes`; `slice`: the one unit at the same place
            and channel, less `offset`; `reshape`: the unit at the same place in reading order; `channel`: everything in
            its channel; `all`: everything.
        shape_in, shape_out: (channel, *grid).
        axes: For `window`, on each axis the input places that each output place takes, (output, tap); `OUTSIDE` for
            padding.
        groups: For `window`, into how many groups that do not see one another the channels are divided.
        offset: For `slice`, the output channel at which the input's channels begin.
    """

    kind: Kind
    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    axes: tuple[np.ndarray, ...] = ()
    groups: int = 1
    offset: int = 0

    def channels(self, channel: int) -> range:
        """Input channels that an output channel takes, for a `window`."""
        width = self.shape_in[0] // self.groups
        first = channel // (self.shape_out[0] // self.groups) * width
        return range(first, first + width)

    def places(self, position: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """Input places on each axis that an output position takes, for a `window`; `OUTSIDE` for padding."""
        return tuple(axis[i] for axis, i in zip(self.axes, position, strict=True))

    def back(self, lit: np.ndarray) -> np.ndarray:
        """Inputs that any of the marked outputs takes: (channel, *grid) of bool."""
        if self.kind == "all":
            return np.full(self.shape_in, lit.any())
        if self.kind == "reshape":
            return lit.reshape(self.shape_in)
        if self.kind == "slice":
            return lit[self.offset : self.offset + self.shape_in[0]]
        if self.kind == "channel":
            any_lit = lit.reshape(len(lit), -1).any(1)
            return np.broadcast_to(any_lit.reshape(-1, *[1] * (len(self.shape_in) - 1)), self.shape_in).copy()
        marked = _by_group(lit, self.groups)
        for number, axis in enumerate(self.axes, start=1):
            marked = _scatter(marked, axis, number, self.shape_in[number])
        return np.repeat(marked, self.shape_in[0] // self.groups, axis=0)

    def ahead(self, lit: np.ndarray) -> np.ndarray:
        """Outputs that take any of the marked inputs: (channel, *grid) of bool."""
        if self.kind == "all":
            return np.full(self.shape_out, lit.any())
        if self.kind == "reshape":
            return lit.reshape(self.shape_out)
        if self.kind == "slice":
            out = np.zeros(self.shape_out, bool)
            out[self.offset : self.offset + self.shape_in[0]] = lit
            return out
        if self.kind == "channel":
            any_lit = lit.reshape(len(lit), -1).any(1)
            return np.broadcast_to(any_lit.reshape(-1, *[1] * (len(self.shape_out) - 1)), self.shape_out).copy()
        marked = _by_group(lit, self.groups)
        for number, axis in enumerate(self.axes, start=1):
            marked = _gather(marked, axis, number)
        return np.repeat(marked, self.shape_out[0] // self.groups, axis=0)


def reach(call: Call) -> Reach:
    """Which inputs each output of a call takes. What is not known to take less counts as taking everything."""
    module, shape_in, shape_out = call.module, tuple(call.input.shape[1:]), tuple(call.output.shape[1:])
    grid_in, grid_out = shape_in[1:], shape_out[1:]
    if isinstance(module, conv._ConvNd) and call.input.ndim == len(module.kernel_size) + 2:
        axes = _transposed_axes if module.transposed else _convolution_axes
        return Reach("window", shape_in, shape_out, axes(module, grid_in, grid_out), module.groups)
    if isinstance(module, _POOLS) and len(grid_in) == len(grid_out):
        return Reach("window", shape_in, shape_out, _pooling_axes(module, grid_in, grid_out), shape_in[0])
    if isinstance(module, _ADAPTIVE) and len(grid_in) == len(grid_out):
        axes = tuple(_adaptive_axis(n, size) for n, size in zip(grid_in, grid_out, strict=True))
        return Reach("window", shape_in, shape_out, axes, shape_in[0])
    if isinstance(module, nn.Linear) and not grid_in:
        return Reach("window", shape_in, shape_out)
    if shape_in == shape_out and (isinstance(module, nn.GroupNorm | instancenorm._InstanceNorm)):
        axes = tuple(np.tile(np.arange(n), (n, 1)) for n in grid_in)
        groups = module.num_groups if isinstance(module, nn.GroupNorm) else shape_in[0]
        return Reach("window", shape_in, shape_out, axes, groups)
    if shape_in == shape_out and (_known_pointwise(module) or _found_pointwise(call)):
        return Reach("slice", shape_in, shape_out)
    if shape_in != shape_out and torch.equal(call.input.flatten(), call.output.flatten()):
        return Reach("reshape", shape_in, shape_out)
    return Reach("all", shape_in, shape_out)


def run(module: nn.Module, x: Tensor) -> Tensor:
    """Apply an innermost module in evaluation mode, without its hooks."""
    training, module.training = module.training, False
    try:
        return module.forward(x)
    finally:
        module.training = training


def _known_pointwise(module: nn.Module) -> bool:
    if isinstance(module, batchnorm._BatchNorm):
        return module.track_running_stats
    return isinstance(module, _POINTWISE)


def _found_pointwise(call: Call) -> bool:
    """Whether changing half of the inputs, up and down, leaves the outputs at all other places as they are."""
    chosen = torch.rand(call.input.shape, generator=torch.Generator().manual_seed(0), device="cpu") < 0.5
    chosen = chosen.to(call.input.device)
    try:
        with torch.no_grad():
            outputs = [run(call.module, torch.where(chosen, call.input + step, call.input)) for step in (-1, 1)]
    except (TypeError, RuntimeError):  # it needs more than its first input
        return False
    return all(torch.equal(output[~chosen], call.output[~chosen]) for output in outputs)


def _convolution_axes(module: Any, grid_in: tuple[int, ...], grid_out: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    if isinstance(module.padding, str):
        totals = [d * (k - 1) if module.padding == "same" else 0 for k, d in _pairs(module)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(p, p) for p in module.padding]
    return tuple(
        _axis(n, size, k, stride, d, *pads, mode=_PAD_MODES[module.padding_mode])
        for n, size, (k, d), stride, pads in zip(grid_in, grid_out, _pairs(module), module.stride, sides, strict=True)
    )


def _pairs(module: Any) -> list[tuple[int, int]]:
    return list(zip(module.kernel_size, module.dilation, strict=True))


def _pooling_axes(module: Any, grid_in: tuple[int, ...], grid_out: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    kernel, stride, padding, dilation = (
        np.broadcast_to(getattr(module, name, default) or default, len(grid_in)).tolist()
        for name, default in (("kernel_size", 1), ("stride", module.kernel_size), ("padding", 0), ("dilation", 1))
    )
    return tuple(
        _axis(n, size, kernel[a], stride[a], dilation[a], padding[a], padding[a])
        for a, (n, size) in enumerate(zip(grid_in, grid_out, strict=True))
    )


def _axis(
    n: int, size: int, kernel: int, stride: int, dilation: int, before: int, after: int, mode: Any = "constant"
) -> np.ndarray:
    """Input places of each output place, (output, tap). A window of ceil mode may stick out beyond the padding."""
    starts = np.arange(size)[:, None] * stride
    taken = starts + dilation * np.arange(kernel)
    if mode == "constant":
        places = taken - before
        return np.where((places >= 0) & (places < n), places, OUTSIDE)
    return np.pad(np.arange(n), (before, after), mode)[taken]


def _transposed_axes(module: Any, grid_in: tuple[int, ...], grid_out: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    axes = []
    for n, size, (k, d), stride, padding in zip(
        grid_in, grid_out, _pairs(module), module.stride, module.padding, strict=True
    ):
        places, rest = np.divmod(np.arange(size)[:, None] + padding - d * np.arange(k), stride)
        axes.append(np.where((rest == 0) & (places >= 0) & (places < n), places, OUTSIDE))
    return tuple(axes)


def _adaptive_axis(n: int, size: int) -> np.ndarray:
    starts, ends = np.arange(size) * n // size, -(-(np.arange(size) + 1) * n // size)
    taken = starts[:, None] + np.arange((ends - starts).max())
    return np.where(taken < ends[:, None], taken, OUTSIDE)


def _by_group(lit: np.ndarray, groups: int) -> np.ndarray:
    return np.asarray(lit.reshape(groups, -1, *lit.shape[1:]).any(1))


def _scatter(marked: np.ndarray, axis: np.ndarray, number: int, n: int) -> np.ndarray:
    moved = np.moveaxis(marked, number, 0)
    out = np.zeros((n + 1, *moved.shape[1:]), bool)  # the last place takes what falls outside
    for taps in axis.T:
        np.logical_or.at(out, taps, moved)
    return np.moveaxis(out[:n], 0, number)


def _gather(marked: np.ndarray, axis: np.ndarray, number: int) -> np.ndarray:
    moved = np.moveaxis(marked, number, 0)
    padded = np.concatenate([moved, np.zeros((1, *moved.shape[1:]), bool)])
    return np.moveaxis(np.asarray(padded[axis].any(1)), 0, number)
