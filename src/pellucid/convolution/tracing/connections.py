"""Which inputs each unit of a call reads: by the rule of its module, or else found by trying."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.convolution.connectivity import Connection, connection_of
from pellucid.convolution.connectivity.connection import all_to_all, pointwise, reshaped
from pellucid.inspection.calls import Call


def connection(call: Call) -> Connection:
    """Which inputs each output of a call reads. What is not known to read less counts as reading everything."""
    shape_in, shape_out = call.shapes
    found = connection_of(call.module, shape_in, shape_out)
    if found is not None:
        return found
    if shape_in == shape_out and _found_pointwise(call):
        return pointwise(shape_in)
    if shape_in != shape_out and torch.equal(call.input.flatten(), call.output.flatten()):
        return reshaped(shape_in, shape_out)
    return all_to_all(shape_in, shape_out)


def run(module: nn.Module, x: Tensor) -> Tensor:
    """Apply an innermost module in evaluation mode, without its hooks."""
    training, module.training = module.training, False
    try:
        return module.forward(x)
    finally:
        module.training = training


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
