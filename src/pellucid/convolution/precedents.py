"""What made an activation: the window in the layer before, and every pixel of the image behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv

from pellucid.convolution.calls import IMAGE, Call, as_batch, calls
from pellucid.convolution.joins import Join, Stage, joins, stages
from pellucid.convolution.reach import Reach, reach
from pellucid.convolution.windows import Immediate, Step, Unit, what_it_does, immediate, scale_and_shift
from pellucid.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGE_NAME = "image"
Layer = str | int | nn.Module | None


@dataclass(frozen=True)
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

    def __str__(self) -> str:
        n = int(np.count_nonzero(self.weights))
        tail = "" if self.holds else f"; {self.remainder:.6g} remains: the model is curved here"
        return (
            f"{n:,} of {self.weights.size:,} pixel values have a weight; weights × pixels {self.products.sum():.6f} "
            f"+ constant {self.constant:.6f} = {self.total:.6f}, activation {self.activation:.6f}{tail}"
        )


@dataclass(frozen=True)
class Network:
    """A model on one image: its calls, how they hang together, and their names.

    Attributes:
        model, image: The model, and the image as a batch of one.
        calls: Of its innermost modules, in order.
        labels: Their names; a module called again is `name#2`.
    """

    model: nn.Module
    image: Tensor
    calls: list[Call]
    labels: list[str]

    @cached_property
    def reaches(self) -> list[Reach]:
        """Which inputs each call's outputs take."""
        return [reach(call) for call in self.calls]

    @cached_property
    def joins(self) -> list[tuple[Join, ...]]:
        """What each call's input is made of."""
        return joins(self.model, self.image, self.calls)

    @cached_property
    def stages(self) -> list[Stage]:
        """The calls in groups: a layer and the functions of single units after it."""
        return stages(self.calls, self.reaches, self.joins)

    def shape(self, place: int) -> tuple[int, ...]:
        """(channel, *grid) of a call's output, or of the image."""
        return tuple((self.image if place == IMAGE else self.calls[place].output).shape[1:])

    def label(self, place: int) -> str:
        """Name of a call, or of the image."""
        return IMAGE_NAME if place == IMAGE else self.labels[place]

    def sources(self, place: int) -> tuple[str, ...]:
        """Names of what a call's input is made of."""
        return tuple(self.label(join.source) for join in self.joins[place])

    def unreshaped(self, place: int, unit: Unit) -> tuple[int, Unit]:
        """The same number in the output that reshaping calls passed on."""
        while place != IMAGE and self.reaches[place].kind == "reshape" and len(self.joins[place]) == 1:
            reach = self.reaches[place]
            unit = tuple(map(int, np.unravel_index(np.ravel_multi_index(unit, reach.shape_out), reach.shape_in)))
            place = self.joins[place][0].source
        return place, unit

    def back(self, place: int, unit: Unit) -> dict[int, np.ndarray]:
        """Units that one unit takes, at any distance: place of the call or `IMAGE` → (channel, *grid) of bool."""
        lit = {n: np.zeros(self.shape(n), bool) for n in range(IMAGE, place + 1)}
        lit[place][unit] = True
        for n in range(place, IMAGE, -1):
            if lit[n].any():
                taken = self.reaches[n].back(lit[n])
                for join in self.joins[n]:
                    lit[join.source] |= join.reach.back(taken)
        return lit

    def ahead(self, place: int, unit: Unit) -> dict[int, np.ndarray]:
        """Units that take one unit, at any distance, as `back` has them."""
        lit = {n: np.zeros(self.shape(n), bool) for n in range(place, len(self.calls))}
        lit[place][unit] = True
        for n in range(place + 1, len(self.calls)):
            for join in self.joins[n]:
                if join.source >= place and lit[join.source].any():
                    lit[n] |= self.reaches[n].ahead(join.reach.ahead(lit[join.source]))
        return lit


@dataclass(frozen=True)
class Trace:
    """One activation and what made it; see `trace`.

    Attributes:
        network: The model on this image.
        place: Of the call whose output it is; `IMAGE` for a pixel.
        layer: The layer's name as asked for.
        channel, position: The unit.
        value: The activation.
    """

    network: Network
    place: int
    layer: str
    channel: int
    position: Unit
    value: float
    chain: tuple[int, ...]

    @property
    def unit(self) -> Unit:
        """(channel, *position)."""
        return (self.channel, *self.position)

    def immediate(self) -> Immediate:
        """The window in the layer before: values, weights, products, bias, sum, and the functions after it.

        Print it for a table. If the layer traced is a container such as Sequential(convolution, ReLU), the window is the
        convolution's and ReLU is a step after the sum.

        Raises:
            UsageError: it is a pixel of the image.
        """
        if self.place == IMAGE:
            raise UsageError("a pixel of the image has no precedents; trace an activation, or ask for dependents()")
        network, head, rest = self.network, self.chain[0], self.chain[1:]
        found = _sum_of_layers(network, head, self.unit)
        if found is None:
            call = network.calls[head]
            found = immediate(call, network.reaches[head], self.unit, network.label(head), network.sources(head))
        else:
            rest = self.chain
        steps = tuple(
            Step(
                network.label(n), what_it_does(network.calls[n].module), float(network.calls[n].output[(0, *self.unit)])
            )
            for n in rest
        )
        return replace(found, steps=steps)

    def full(self) -> Full:
        """All pixels of the image with their total weight in this activation, and the same for the layers between.

        Raises:
            UsageError: it is a pixel, or the model cuts gradients off.
        """
        if self.place == IMAGE:
            raise UsageError("a pixel of the image has no precedents; trace an activation, or ask for dependents()")
        return _linearise(self.network, self.place, self.unit)

    def precedents(self) -> dict[str, np.ndarray]:
        """Units that can change this activation: layer name → (channel, *grid) of bool, "image" first.

        They are read off the layers' windows, so a unit counts also if its weight is 0 at this image. Of a layer whose
        windows are not known, everything counts.
        """
        network = self.network
        return {network.label(n): lit for n, lit in network.back(self.place, self.unit).items() if n < self.place}

    def dependents(self) -> dict[str, np.ndarray]:
        """Units that this one can change: layer name → (channel, *grid) of bool, nearest layer first."""
        network = self.network
        return {network.label(n): lit for n, lit in network.ahead(self.place, self.unit).items() if n > self.place}

    def show(self) -> Figure:
        """Draw the way from the image to this activation: each layer's map with the lit window, and the kernels."""
        from pellucid.convolution.panels import panels
        from pellucid.plot.precedents import plot_precedents

        return plot_precedents(panels(self), title=str(self))

    def animate(self, file: str | Path, *, layers: Sequence[Layer] | None = None, limit_mb: float = 20) -> Path:
        """Write a page in which one clicks any activation and sees its window light up down to the image.

        The page holds everything it needs and works from the file, without a network. It opens at this activation.

        Args:
            file: Ends in .html.
            layers: Layers to show, by name, number or module; None shows all. The others still pass the light on.
            limit_mb: Largest size of the page, in megabytes.

        Returns:
            The file.

        Raises:
            UsageError: another ending, an unknown layer, or a page above the limit.
        """
        from pellucid.convolution.page import write_page

        return write_page(self, Path(file), layers, limit_mb)

    def __str__(self) -> str:
        at = f" at ({', '.join(map(str, self.position))})" if self.position else ""
        return f"{self.layer}, channel {self.channel}{at}: {self.value:.4f}"


def trace(
    model: nn.Module,
    image: Any,
    layer: Layer = None,
    position: int | Sequence[int] | None = None,
    *,
    channel: int | None = None,
) -> Trace:
    """Find what made one activation of a model on an image.

    >>> t = trace(model, image, layer='2', position=(3, 5))
    >>> print(t.immediate())    # window, weights, products, bias, sum
    >>> t.full().weights        # each pixel's total weight
    >>> t.animate('trace.html')

    Args:
        model: Any module; it is run in evaluation mode and left as it was.
        image: (row, column), (channel, row, column) or a batch of one, normalised as the model expects it.
        layer: Name of a module, the module, or a number among the layers with parameters, such as -2. A container stands
            for its last call. "image" is the image, for dependents of a pixel. None takes the last layer.
        position: (row, column) in the layer's map; None takes the place with the largest activation. A layer without a
            map has no position: a number is its channel.
        channel: None takes the one with the largest activation at this position.

    Raises:
        UsageError: no such layer, a position or channel outside the map, or an image that the model does not take.
    """
    found = calls(model, image)
    if not found:
        raise UsageError(f"{type(model).__name__} calls no module on this image; there is nothing to trace")
    network = Network(model, as_batch(image), found, _labels(found))
    place, name, inside = find_layer(network, layer)
    values = (network.image if place == IMAGE else found[place].output)[0]
    unit = _unit(values, name, position, channel)
    chain = () if place == IMAGE else _chain(network, place, inside)
    return Trace(network, place, name, unit[0], unit[1:], float(values[unit]), chain)


def find_layer(network: Network, layer: Layer) -> tuple[int, str, range]:
    """Place of a layer's last call, its name, and the places of the calls that belong to it.

    Raises:
        UsageError: there is none.
    """
    labels, found = network.labels, network.calls
    if layer is None:
        return len(found) - 1, labels[-1], range(len(found) - 1, len(found))
    if isinstance(layer, nn.Module):
        names = [name for name, module in network.model.named_modules() if module is layer]
        if not names:
            raise UsageError(f"the given {type(layer).__name__} is no module of {type(network.model).__name__}")
        layer = names[0]
    if layer == IMAGE_NAME and IMAGE_NAME not in labels:
        return IMAGE, IMAGE_NAME, range(0)
    known = {name for name, _ in network.model.named_modules()}
    if isinstance(layer, str) and layer not in known and layer not in labels and layer.lstrip("-").isdigit():
        layer = int(layer)
    if isinstance(layer, int):
        weighty = [n for n, call in enumerate(found) if list(call.module.parameters(recurse=False))]
        if not -len(weighty) <= layer < len(weighty):
            raise UsageError(f"layer {layer} does not exist: {_listed(network)}")
        place = weighty[layer]
        return place, labels[place], range(place, place + 1)
    if layer in labels:
        last = max(n for n, call in enumerate(found) if layer in (call.name, labels[n]))
        return last, labels[last], range(last, last + 1)
    inside = [n for n, call in enumerate(found) if layer == "" or call.name.startswith(f"{layer}.")]
    if not inside:
        told = "was not called on this image" if layer in known else "does not exist"
        raise UsageError(f"layer {layer!r} {told}: {_listed(network)}")
    return inside[-1], layer or type(network.model).__name__, range(inside[0], inside[-1] + 1)


def _listed(network: Network) -> str:
    names = [
        f"{label} ({type(call.module).__name__})" for label, call in zip(network.labels, network.calls, strict=True)
    ]
    n = sum(bool(list(call.module.parameters(recurse=False))) for call in network.calls)
    listed = ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
    return f"{type(network.model).__name__} has {listed}; a container's name or a number below {n} works too"


def _labels(found: Sequence[Call]) -> list[str]:
    labels: list[str] = []
    for n, call in enumerate(found):
        number = 1 + sum(earlier.name == call.name for earlier in found[:n])
        name = call.name or type(call.module).__name__
        labels.append(name if number == 1 else f"{name}#{number}")
    return labels


def _chain(network: Network, place: int, inside: range) -> tuple[int, ...]:
    """Calls of the stage that ends at a place, as far as they belong to the layer asked for."""
    chain = [place]
    while len(inside) > 1 and network.reaches[chain[0]].kind in ("slice", "reshape"):
        source = network.calls[chain[0]].source
        if source is None or source not in inside or network.shape(source) != network.shape(place):
            break
        chain.insert(0, source)
    return tuple(chain)


def _sum_of_layers(network: Network, head: int, unit: Unit) -> Immediate | None:
    """The sum of earlier outputs that a call of a function of single units takes, if it is one."""
    parts, call = network.joins[head], network.calls[head]
    alike = all(join.plain and join.reach.kind == "slice" and join.reach.offset == 0 for join in parts)
    if len(parts) < 2 or network.reaches[head].kind != "slice" or not alike:
        return None
    if any(join.reach.shape_in != join.reach.shape_out for join in parts):
        return None
    values = np.array([float(_output(network, join.source)[unit]) for join in parts])
    total = float(call.input[(0, *unit)])
    if not np.isclose(values.sum(), total, rtol=1e-5, atol=1e-6 * np.abs(values).sum()):
        return None
    return Immediate(
        f"before {network.label(head)}", "sum", network.sources(head), "sum of layers", unit[0], unit[1:], (unit[0],),
        tuple(np.array([p]) for p in unit[1:]), values, np.ones_like(values), 0.0, total,
    )  # fmt: skip


def _output(network: Network, place: int) -> Tensor:
    return (network.image if place == IMAGE else network.calls[place].output)[0]


def _unit(values: Tensor, name: str, position: int | Sequence[int] | None, channel: int | None) -> Unit:
    shape = tuple(values.shape)
    if not shape:
        raise UsageError(f"{name} gives a single number without a channel; trace the layer before it")
    if position is not None and len(shape) == 1:
        given = (position,) if isinstance(position, int) else tuple(position)
        if len(given) > 1 or (given and channel is not None):
            raise UsageError(f"{name} gives {shape[0]} numbers and no map: leave position out and give channel=")
        position, channel = None, given[0] if given else channel
    if channel is not None and not 0 <= channel < shape[0]:
        raise UsageError(f"{name} has channels 0 to {shape[0] - 1}, not {channel}")
    if position is None:
        chosen = values if channel is None else values[channel : channel + 1]
        best = np.unravel_index(int(chosen.argmax()), tuple(chosen.shape))
        return (int(best[0]) if channel is None else channel, *map(int, best[1:]))
    place = _checked(position, shape, name)
    return (int(values[(slice(None), *place)].argmax()) if channel is None else channel, *place)


def _checked(position: int | Sequence[int], shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    grid = shape[1:]
    place = (position,) if isinstance(position, int) else tuple(int(p) for p in position)
    axes = ("rows", "columns") if len(grid) == 2 else tuple(f"axis {n}" for n in range(len(grid)))
    valid = " and ".join(f"{axis} 0 to {n - 1}" for axis, n in zip(axes, grid, strict=True))
    if len(place) != len(grid):
        raise UsageError(f"position {place} has {len(place)} numbers; {name} has {valid}")
    if not all(0 <= p < n for p, n in zip(place, grid, strict=True)):
        raise UsageError(f"position {place} lies outside the map of {name}: it has {valid}")
    return place


def _linearise(network: Network, place: int, unit: Unit) -> Full:
    """Gradients of one activation, in one pass through the model."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> Any:
        if not (args and isinstance(args[0], Tensor) and isinstance(output, Tensor)):
            return None
        outputs.append(output)
        return output.clone()  # a copy, because the next module may work in place

    model = network.model
    modes = [(module, module.training) for module in model.modules()]
    hooks = [module.register_forward_hook(keep) for module in model.modules() if not list(module.children())]
    pixels = network.image.clone().requires_grad_()
    try:
        with torch.enable_grad():
            model.eval()(pixels * 1)
            target = outputs[place][(0, *unit)]
            if not target.requires_grad:
                raise UsageError(f"{network.label(place)} passes no gradient back to the image")
            gradients = torch.autograd.grad(target, [pixels, *outputs[:place]], allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    whole = [torch.zeros(network.shape(n)) if g is None else g[0] for n, g in enumerate(gradients, start=IMAGE)]
    own = torch.zeros(network.shape(place))
    own[unit] = 1
    weights = [g.double().cpu() for g in [*whole, own]]
    constant = sum(_added(network.calls[n].module, weights[n + 1]) for n in range(place + 1))
    layers = {network.label(n): weights[n + 1].numpy() for n in range(place)}
    return Full(
        float(target.detach()), network.image[0].double().cpu().numpy(), weights[0].numpy(), float(constant), layers
    )


def _added(module: nn.Module, weights: Tensor) -> float:
    """What a layer's biases add to the activation, given its output's weights."""
    if isinstance(module, batchnorm._BatchNorm) and module.track_running_stats:
        bias = scale_and_shift(module)[1]
    elif isinstance(module, conv._ConvNd | nn.Linear) and module.bias is not None:
        bias = module.bias.detach().double()
    else:
        return 0.0
    if isinstance(module, nn.Linear):
        return float((weights * bias.cpu()).sum())
    return float((weights.flatten(1).sum(1) * bias.cpu()).sum())
