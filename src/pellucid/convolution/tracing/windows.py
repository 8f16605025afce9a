"""The numbers behind one unit of one layer: window, weights, products, bias, sum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, pooling

from pellucid.convolution.tracing.calculation import Immediate, Unit, inside
from pellucid.convolution.tracing.reach import OUTSIDE, Reach, run
from pellucid.inspection.calls import Call


def immediate(call: Call, reach: Reach, unit: Unit, label: str, source: tuple[str, ...]) -> Immediate:
    """The calculation of one output unit of a call.

    Args:
        call: Whose output.
        reach: Of this call.
        unit: (channel, *position).
        label, source: Names of the call and of what its input comes from.
    """
    channels, places = _window(reach, unit)
    taken = np.ix_(channels, *places)
    values = np.where(inside(places), _array(call.input[0])[taken], 0)
    output = float(call.output[(0, *unit)])
    found = Immediate(
        label, what_it_does(call.module), source, "weighted", unit[0], unit[1:], tuple(int(c) for c in channels),
        places, values, np.ones_like(values), 0.0, output,
    )  # fmt: skip
    return _weigh(found, call, reach)


def what_it_does(module: nn.Module) -> str:
    """What a layer does, in a few words: `convolution 3×3, stride 2, padding 1, 8 → 16 channels`."""
    if isinstance(module, conv._ConvNd):
        name = "transposed convolution" if module.transposed else "convolution"
        return _join(
            f"{name} {_by(module.kernel_size)}", _option("stride", module.stride, 1),
            _option("padding", module.padding, 0), _option("dilation", module.dilation, 1),
            f"{module.groups} groups" if module.groups > 1 else "",
            f"{module.in_channels} → {module.out_channels} channels",
        )  # fmt: skip
    if isinstance(module, nn.Linear):
        return f"linear, {module.in_features} → {module.out_features}"
    if isinstance(module, pooling._MaxPoolNd | pooling._AvgPoolNd):
        name = "max pooling" if isinstance(module, pooling._MaxPoolNd) else "average pooling"
        kernel = _by(module.kernel_size)  # pyright: ignore[reportArgumentType]
        return _join(f"{name} {kernel}", _option("stride", module.stride, module.kernel_size),
                     _option("padding", module.padding, 0))  # fmt: skip
    if isinstance(module, pooling._AdaptiveAvgPoolNd | pooling._AdaptiveMaxPoolNd):
        name = "average" if isinstance(module, pooling._AdaptiveAvgPoolNd) else "max"
        return f"{name} pooling to {_by(module.output_size)}"  # pyright: ignore[reportArgumentType]
    if isinstance(module, batchnorm._BatchNorm):
        return "batchnorm"
    return type(module).__name__


def scale_and_shift(module: Any) -> tuple[Tensor, Tensor]:
    """What batchnorm multiplies each channel by and adds to it in evaluation mode, in float64."""
    scale = (module.running_var.double() + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight.detach().double()
    shift = -module.running_mean.double() * scale
    return scale, shift if module.bias is None else shift + module.bias.detach().double()


def shares(module: Any, reach: Reach) -> np.ndarray:
    """For average pooling, the weight of each input in a window: one number per output position, (*grid)."""
    counts = [(axis != OUTSIDE).sum(1) for axis in reach.axes]
    if isinstance(module, pooling._AvgPoolNd):
        divisor: Any = getattr(module, "divisor_override", None)
        if divisor:
            return np.full(reach.shape_out[1:], 1 / divisor)
        if module.count_include_pad:
            counts = [_padded_counts(module, reach, axis) for axis in range(len(reach.axes))]
    return 1 / np.prod(np.array(np.meshgrid(*counts, indexing="ij")), axis=0)


def _weigh(found: Immediate, call: Call, reach: Reach) -> Immediate:
    module, unit, inside = call.module, (found.channel, *found.position), found.inside
    if isinstance(module, conv._ConvNd | nn.Linear) and reach.kind == "window" and not getattr(module, "transposed", 0):
        bias = 0.0 if module.bias is None else float(module.bias[found.channel].detach())
        weights = _array(module.weight[found.channel]).reshape(found.values.shape)
        return replace(found, weights=weights, bias=bias)
    if isinstance(module, pooling._MaxPoolNd | pooling._AdaptiveMaxPoolNd):
        values = np.where(inside, found.values, -np.inf)
        weights = np.zeros_like(found.values)
        weights[np.unravel_index(values.argmax(), values.shape)] = 1
        return replace(found, kind="largest", weights=weights)
    if isinstance(module, pooling._AvgPoolNd | pooling._AdaptiveAvgPoolNd):
        return replace(
            found, weights=np.where(inside, shares(module, reach)[found.position], np.zeros_like(found.values))
        )
    if isinstance(module, batchnorm._BatchNorm) and reach.kind == "slice":
        scale, shift = (float(each[found.channel]) for each in scale_and_shift(module))
        return replace(found, weights=np.full_like(found.values, scale, dtype=float), bias=shift)
    gradient = _gradient(call, unit)[np.ix_(np.array(found.channels), *found.places)]
    weights = np.where(inside, gradient, 0)
    kind = "function" if reach.kind in ("slice", "reshape") else "tangent"
    return replace(found, kind=kind, weights=weights, bias=found.sum - float((found.values * weights).sum()))


def _window(reach: Reach, unit: Unit) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    if reach.kind == "window":
        return np.array(reach.channels(unit[0])), reach.places(unit[1:])
    if reach.kind == "slice":
        return np.array([unit[0] - reach.offset]), tuple(np.array([p]) for p in unit[1:])
    if reach.kind == "reshape":
        place = np.unravel_index(np.ravel_multi_index(unit, reach.shape_out), reach.shape_in)
        return np.array([place[0]]), tuple(np.array([p]) for p in place[1:])
    return np.arange(reach.shape_in[0]), tuple(np.arange(n) for n in reach.shape_in[1:])


def _gradient(call: Call, unit: Unit) -> np.ndarray:
    x = call.input.clone().requires_grad_()
    with torch.enable_grad():
        output = run(call.module, x * 1)  # a product, because some modules work in place
        (gradient,) = torch.autograd.grad(output[(0, *unit)], x, allow_unused=True)
    return np.zeros(tuple(x.shape[1:])) if gradient is None else _array(gradient[0])


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _padded_counts(module: Any, reach: Reach, axis: int) -> np.ndarray:
    kernel, stride, padding = (
        np.broadcast_to(value, len(reach.axes))[axis] for value in (module.kernel_size, module.stride, module.padding)
    )
    starts = np.arange(reach.shape_out[1 + axis]) * stride
    return np.minimum(starts + kernel, reach.shape_in[1 + axis] + 2 * padding) - starts


def _by(sizes: int | tuple[int, ...]) -> str:
    return f"{sizes}×{sizes}" if isinstance(sizes, int) else "×".join(map(str, sizes))


def _option(name: str, value: Any, default: Any) -> str:
    if np.array_equal(
        np.broadcast_to(value, np.shape(value) or (1,)), np.broadcast_to(default, np.shape(value) or (1,))
    ):
        return ""
    same = isinstance(value, tuple) and len(set(value)) == 1
    return f"{name} {value[0] if same else _by(value) if isinstance(value, tuple) else value}"


def _join(*words: str) -> str:
    return ", ".join(word for word in words if word)
