"""The page in which one clicks an activation and sees what made it: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pellucid.convolution.connectivity import Connection, Copy, Kernel, Largest, Mean, Standardized
from pellucid.convolution.tracing.calculation import Unit
from pellucid.convolution.tracing.connections import run
from pellucid.convolution.tracing.joins import Stage
from pellucid.convolution.tracing.network import Network, find_layer
from pellucid.convolution.tracing.windows import what_it_does
from pellucid.errors import UsageError
from pellucid.inspection.calls import IMAGE, Call
from pellucid.inspection.layers import Layer
from pellucid.text import printable
from pellucid.web import builder

N_LISTED = 5


def write_page(
    network: Network,
    place: int,
    unit: Unit,
    file: Path,
    layers: Sequence[Layer] | None,
    limit_mb: float,
    classes: Sequence[object] | None = None,
    *,
    title: str,
    source: str = "",
) -> Path:
    """Write the page that opens at one unit of the call at `place`; see `Trace.animate`."""
    builder.check_page(file)
    shown = _shown(network, layers, place)
    contents = (
        _contents(network, shown)
        | _opening(network, place, unit)
        | {"source": printable(source)}
        | _prediction(network, classes)
    )
    _check_size(network, contents, limit_mb)
    return builder.write_page(file, "trace", title=title, data=_encoded(contents))


def _prediction(network: Network, classes: Sequence[object] | None) -> dict[str, Any]:
    """Names of the model's outputs, and their softmax."""
    if classes is None:
        return {"classes": None, "probabilities": None, "last": None}
    outputs = network.calls[-1].output[0].detach().double().flatten()
    if len(outputs) != len(classes):
        raise UsageError(f"{len(classes)} classes for the {len(outputs)} outputs of {network.labels[-1]}")
    place = next((stage.tail for stage in network.stages if len(network.calls) - 1 in stage.calls), None)
    return {"classes": list(map(printable, classes)), "probabilities": outputs.softmax(0).tolist(), "last": place}


def _shown(network: Network, layers: Sequence[Layer] | None, place: int) -> list[bool]:
    """Which stages are shown: those with a chosen layer's last call, and the one of the trace."""
    if layers is None:
        return [True] * len(network.stages)
    asked = [layers] if isinstance(layers, str | int | nn.Module) else list(layers)
    wanted = {place, *(n for layer in asked for n in find_layer(network, layer)[2])}
    return [bool(wanted & set(stage.calls)) for stage in network.stages]


def _contents(network: Network, shown: list[bool]) -> dict[str, Any]:
    kept = {n for stage, is_shown in zip(network.stages, shown, strict=True) if is_shown for n in stage.calls}
    image = network.image[0]
    return {
        "image": {
            "shape": list(image.shape),
            "range": {"low": float(image.min()), "high": float(image.max())},
            "values": _values(image),
        },
        "calls": [_call(network, n, n in kept) for n in range(len(network.calls))],
        "stages": [
            {
                "calls": list(stage.calls),
                "shown": is_shown,
                "label": network.stage_label(stage),
                "text": _text(network, stage),
            }
            for stage, is_shown in zip(network.stages, shown, strict=True)
        ],
    }


def _text(network: Network, stage: Stage) -> str:
    words = [what_it_does(network.calls[n].module) for n in stage.calls]
    return " → ".join(["sum", *words] if len(network.joins[stage.calls[0]]) > 1 else words)


def _opening(network: Network, place: int, unit: Unit) -> dict[str, Any]:
    """The unit that the page opens at: the same place in its stage's last output, reshaping undone."""
    place, unit = network.unreshaped(place, unit)
    if place != IMAGE and network.connections[place].is_reshape:
        raise UsageError(f"{network.label(place)} only reshapes what code between the layers made; trace another layer")
    tail = next((stage.tail for stage in network.stages if place in stage.calls), IMAGE)
    return {"opening": {"place": tail, "unit": list(unit)}}


def _call(network: Network, place: int, kept: bool) -> dict[str, Any]:
    call, connection = network.calls[place], network.connections[place]
    return {
        "label": network.label(place),
        "text": what_it_does(call.module),
        "connection": connection.exported(),
        "inputs": [
            {"source": join.source, "connection": join.connection.exported(), "plain": join.plain}
            for join in network.joins[place]
        ],
        "op": _operation(call, connection, kept),
        "values": _values(call.output[0]) if kept and not connection.is_reshape else None,
        "given": _values(call.input[0]) if (kept or connection.is_reshape) and call.source is None else None,
    }


def _operation(call: Call, connection: Connection, kept: bool) -> dict[str, Any]:
    """How the page computes a unit from its window."""
    weights = connection.weights
    if not kept:
        return {"kind": "left out"}
    if connection.is_reshape:
        return {"kind": "reshape"}
    if isinstance(weights, Kernel):
        bias = None if weights.bias is None else _values(weights.bias)
        arranged = _values(weights.arranged(weights.weight.detach()))
        return {"kind": "weighted", "axis": weights.dim - 1, "weights": arranged, "bias": bias}
    if isinstance(weights, Largest):
        return {"kind": "largest"}
    if isinstance(weights, Mean):
        return {"kind": "shares", "shares": _values(torch.from_numpy(weights.shares(connection.grid)))}
    if isinstance(weights, Standardized) and weights.is_fixed:
        scale, shift = weights.scale_and_shift()
        return {"kind": "scale", "scale": _values(scale), "shift": _values(shift)}
    if isinstance(weights, Copy):
        return {"kind": "function", "slope": _values(torch.ones_like(call.output[0]))}
    if connection.is_pointwise:
        x = call.input.clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(run(call.module, x * 1).sum(), x)
        return {"kind": "function", "slope": _values(slope[0])}
    return {"kind": "unknown"}


def _values(x: torch.Tensor) -> np.ndarray:
    return x.detach().cpu().float().contiguous().numpy()


def _check_size(network: Network, contents: dict[str, Any], limit_mb: float) -> None:
    sizes = [_bytes(call) for call in contents["calls"]]
    total = sum(sizes) + _bytes(contents["image"])
    if total <= limit_mb * 1e6:
        return
    largest = sorted(network.stages, key=lambda stage: -sum(sizes[n] for n in stage.calls))[:N_LISTED]
    listed = ", ".join(
        f"{network.stage_label(stage)} {sum(sizes[n] for n in stage.calls) / 1e6:.1f} MB" for stage in largest
    )
    raise UsageError(
        f"the page would take {total / 1e6:.0f} MB, above the limit of {limit_mb:g}; the largest layers are {listed}. "
        "Choose which to show with layers=[...], or raise limit_mb="
    )


def _bytes(contents: Any) -> int:
    """Size of all arrays, in characters of base64."""
    if isinstance(contents, np.ndarray):
        return -(-contents.nbytes // 3) * 4
    children = contents.values() if isinstance(contents, dict) else contents if isinstance(contents, list) else ()
    return sum(map(_bytes, children))


def _encoded(contents: Any) -> Any:
    """Arrays as base64 of little-endian float32."""
    if isinstance(contents, np.ndarray):
        return base64.b64encode(contents.astype("<f4").tobytes()).decode("ascii")
    if isinstance(contents, dict):
        return {key: _encoded(value) for key, value in contents.items()}
    return [_encoded(value) for value in contents] if isinstance(contents, list) else contents
