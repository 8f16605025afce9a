"""What a script that failed inside a model failed at: the layer, what it was given, and why that does not fit."""

from __future__ import annotations

import traceback
from types import FrameType

import torch
from torch import Tensor, nn

from pellucid.text import printable

MAX_WORDS = 100  # characters of a layer's own description


def place(error: BaseException) -> str:
    """The innermost layer whose `forward` raised an error, in a sentence; `''` if no model did.

    For example: `layer head.2, Linear(in_features=16, out_features=2), failed on float32 (32, 32): it takes 16
    features, and was given 32`.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    calls = [found for found in map(_call, frames) if found is not None]
    if not calls:
        return ""
    root, (layer, inputs) = calls[0][0], calls[-1]
    name = next((name for name, module in root.named_modules() if module is layer), "")
    words = printable(repr(layer)) if not list(layer.children()) else type(layer).__name__
    words = words if len(words) <= MAX_WORDS else type(layer).__name__
    given = " and ".join(map(_described, inputs)) or "its input"
    why = _why(layer, inputs)
    return f"{f'layer {printable(name)}, {words},' if name else words} failed on {given}{why}"


def _call(frame: FrameType) -> tuple[nn.Module, list[Tensor]] | None:
    """The module whose `forward` this frame is, and the tensors that it was called with."""
    code, values = frame.f_code, frame.f_locals
    names = code.co_varnames[: code.co_argcount]
    module = values.get(names[0]) if names else None
    if code.co_name != "forward" or not isinstance(module, nn.Module):
        return None
    return module, [values[name] for name in names[1:] if isinstance(values.get(name), Tensor)]


def _described(x: Tensor) -> str:
    device = f" on {x.device}" if x.device.type != "cpu" else ""
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}{device}"


def _why(layer: nn.Module, inputs: list[Tensor]) -> str:
    """What of the first input does not fit the layer's weight: its device, its type, or its size."""
    weight = getattr(layer, "weight", None)
    if not inputs or not isinstance(weight, Tensor):
        return ""
    x = inputs[0]
    if x.device != weight.device:
        return f": its weight is on {weight.device}; move the model and the batch to the same device"
    if x.dtype != weight.dtype and not isinstance(layer, nn.Embedding) and not torch.is_autocast_enabled(x.device.type):
        kind = str(weight.dtype).removeprefix("torch.")
        return f": its weight is {kind}; convert the batch, for example with .to(torch.{kind})"
    if isinstance(layer, nn.Linear) and x.dim() and x.shape[-1] != layer.in_features:
        return f": it takes {layer.in_features:,} features, and was given {x.shape[-1]:,}"
    if isinstance(layer, nn.modules.conv._ConvNd):
        axis = len(layer.kernel_size) + 1
        channels = x.shape[-axis] if x.dim() >= axis else None
        if channels != layer.in_channels:
            given = "no axis of channels" if channels is None else f"{channels:,}"
            return f": it takes {layer.in_channels:,} channels, and was given {given}"
    return ""
