"""The numbers behind one unit of one layer: window, weights, products, bias, sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import conv, pooling

from pellucid.convolution.connectivity import Connection, Kernel, Largest, Mean, Standardized
from pellucid.convolution.tracing.calculation import Immediate, Unit, inside
from pellucid.convolution.tracing.connections import run
from pellucid.convolution.wording import settings
from pellucid.inspection.calls import Call
from pellucid.nn.norms import is_batch_norm


def immediate(call: Call, connection: Connection, unit: Unit, label: str, source: tuple[str, ...]) -> Immediate:
    """The calculation of one output unit of a call.

    Args:
        call: Whose output.
        connection: Of this call.
        unit: (channel, *position).
        label, source: Names of the call and of what its input comes from.
    """
    channels, *axes = connection.window(unit)
    places = tuple(axes)
    taken = np.ix_(channels, *places)
    values = np.where(inside(places), _array(call.input[0])[taken], 0)
    output = float(call.output[(0, *unit)])
    found = Immediate(
        label, what_it_does(call.module), source, "weighted", unit[0], unit[1:], tuple(int(c) for c in channels),
        places, values, np.ones_like(values), 0.0, output,
    )  # fmt: skip
    return _weigh(found, call, connection)


def what_it_does(module: nn.Module) -> str:
    """What a layer does, in a few words: `convolution 3×3, stride 2, padding 1, 8 → 16 channels`."""
    if isinstance(module, conv._ConvNd):
        name = "transposed convolution" if module.transposed else "convolution"
        return f"{name} {settings(module)}, {module.in_channels} → {module.out_channels} channels"
    if isinstance(module, nn.Linear):
        return f"linear, {module.in_features} → {module.out_features}"
    if isinstance(module, pooling._MaxPoolNd | pooling._AvgPoolNd):
        name = "max pooling" if isinstance(module, pooling._MaxPoolNd) else "average pooling"
        return f"{name} {settings(module)}"
    if isinstance(module, pooling._AdaptiveAvgPoolNd | pooling._AdaptiveMaxPoolNd):
        name = "average" if isinstance(module, pooling._AdaptiveAvgPoolNd) else "max"
        return f"{name} pooling to {_by(module.output_size)}"  # pyright: ignore[reportArgumentType]
    if is_batch_norm(module):
        return "batchnorm"
    return type(module).__name__


def _weigh(found: Immediate, call: Call, connection: Connection) -> Immediate:
    weights, unit, inside = connection.weights, (found.channel, *found.position), found.inside
    if isinstance(weights, Kernel):
        feature = unit[weights.dim - 1]
        bias = 0.0 if weights.bias is None else float(weights.bias[feature].detach())
        return replace(found, weights=_array(weights.of_feature(feature)).reshape(found.values.shape), bias=bias)
    if isinstance(weights, Largest):
        values = np.where(inside, found.values, -np.inf)
        chosen = np.zeros_like(found.values)
        chosen[np.unravel_index(values.argmax(), values.shape)] = 1
        return replace(found, kind="largest", weights=chosen)
    if isinstance(weights, Mean):
        share = weights.shares(connection.grid)[found.position]
        return replace(found, weights=np.where(inside, share, np.zeros_like(found.values)))
    if isinstance(weights, Standardized) and weights.is_fixed:
        scale, shift = (float(each[found.channel]) for each in weights.scale_and_shift())
        return replace(found, weights=np.full_like(found.values, scale, dtype=float), bias=shift)
    gradient = _gradient(call, unit)[np.ix_(np.array(found.channels), *found.places)]
    slopes = np.where(inside, gradient, 0)
    kind = "function" if found.values.size == 1 else "tangent"
    return replace(found, kind=kind, weights=slopes, bias=found.sum - float((found.values * slopes).sum()))


def _gradient(call: Call, unit: Unit) -> np.ndarray:
    x = call.input.clone().requires_grad_()
    with torch.enable_grad():
        output = run(call.module, x * 1)  # a product, because some modules work in place
        (gradient,) = torch.autograd.grad(output[(0, *unit)], x, allow_unused=True)
    return np.zeros(tuple(x.shape[1:])) if gradient is None else _array(gradient[0])


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _by(sizes: int | tuple[int, ...]) -> str:
    return f"{sizes}×{sizes}" if isinstance(sizes, int) else "×".join(map(str, sizes))
