"""All pixels behind one activation: the model's tangent at this image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.convolution.connectivity import Kernel, Standardized
from pellucid.convolution.connectivity.weights import Weights
from pellucid.convolution.tracing.calculation import Unit
from pellucid.convolution.tracing.network import Network
from pellucid.errors import UsageError
from pellucid.inspection.calls import IMAGE
from pellucid.inspection.runner import each_call


@dataclass(frozen=True, repr=False)
class Full:
    """One activation as a weighted sum of all pixels: the model's tangent at this image.

    Attributes:
        activation: The number traced.
        pixels: The image as the model saw it, (channel, row, column).
        weights: Change of the activation per unit of each pixel, (channel, row, column).
        constant: What biases and batchnorm shifts add on their way to the activation.
        layers: For each earlier layer by name, the change of the activation per unit of its output, (channel, *grid).
    """

    activation: float
    pixels: np.ndarray
    weights: np.ndarray
    constant: float
    layers: dict[str, np.ndarray]

    @property
    def products(self) -> np.ndarray:
        """Pixels times weights, (channel, row, column)."""
        return self.pixels * self.weights

    @property
    def total(self) -> float:
        """All products and the constant added."""
        return float(self.products.sum() + self.constant)

    @property
    def remainder(self) -> float:
        """Activation less total.

        It is 0 up to rounding if everything between is piecewise linear: convolutions, linear layers, poolings, ReLU,
        batchnorm in evaluation mode, sums. A curved function such as GELU or a softmax leaves the rest.
        """
        return self.activation - self.total

    @property
    def holds(self) -> bool:
        """Whether weights, pixels and biases account for the whole activation, to 1e-4 of what was added up."""
        size = float(np.abs(self.products).sum()) + abs(self.constant) + abs(self.activation)
        return abs(self.remainder) <= 1e-4 * size

    def __repr__(self) -> str:
        n = int(np.count_nonzero(self.weights))
        tail = "" if self.holds else f"; {self.remainder:.6g} remains: the model is curved here"
        return (
            f"{n:,} of {self.weights.size:,} pixel values have a weight; weights × pixels {self.products.sum():.6f} "
            f"+ constant {self.constant:.6f} = {self.total:.6f}, activation {self.activation:.6f}{tail}"
        )


def linearise(network: Network, place: int, unit: Unit) -> Full:
    """One activation as a weighted sum of all pixels, by one pass of gradients through the model.

    Args:
        network: The model on its image.
        place: Of the call whose output it is.
        unit: (channel, *position).

    Raises:
        UsageError: the model cuts gradients off.
    """
    outputs: list[Tensor] = []

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> Any:
        if not (args and isinstance(args[0], Tensor) and isinstance(output, Tensor)):
            return None
        outputs.append(output)
        return output.clone()  # a copy, because the next module may work in place

    model = network.model
    pixels = network.image.clone().requires_grad_()
    with torch.enable_grad(), each_call(model, keep):
        model(pixels * 1)  # a leaf itself could not be changed by a first module that works in place
        target = outputs[place][(0, *unit)]
        if not target.requires_grad:
            raise UsageError(f"{network.label(place)} passes no gradient back to the image")
        gradients = torch.autograd.grad(target, [pixels, *outputs[:place]], allow_unused=True)
    # Where a layer is off every path to the target, its gradient is None, and its weight on the target is 0.
    whole = [
        torch.zeros(network.shape(n), device="cpu") if g is None else g[0] for n, g in enumerate(gradients, start=IMAGE)
    ]
    own = torch.zeros(network.shape(place), device="cpu")
    own[unit] = 1
    weights = [g.double().cpu() for g in [*whole, own]]
    # A model that is linear in pieces is here Σ weight · pixel + Σ slope · bias, each bias at its own layer's slope.
    constant = sum(_added(network.connections[n].weights, weights[n + 1]) for n in range(place + 1))
    layers = {network.label(n): weights[n + 1].numpy() for n in range(place)}
    return Full(
        float(target.detach()), network.image[0].double().cpu().numpy(), weights[0].numpy(), float(constant), layers
    )


def _added(made: Weights | None, weights: Tensor) -> float:
    """What a layer's biases add to the activation, given its output's weights."""
    if isinstance(made, Standardized) and made.is_fixed:
        bias, dim = made.scale_and_shift()[1], 0
    elif isinstance(made, Kernel) and made.bias is not None:
        bias, dim = made.bias.detach().double(), made.dim - 1
    else:
        return 0.0
    return float(weights.movedim(dim, 0).reshape(len(bias), -1).sum(1) @ bias.cpu())
