"""What made an activation: the window in the layer before, and every pixel of the image behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from torch import Tensor, nn

from pellucid.convolution.connectivity import Connection
from pellucid.convolution.fields.graph import as_type_of
from pellucid.convolution.tracing.calculation import Immediate, Step, Unit
from pellucid.convolution.tracing.network import Network, find_layer
from pellucid.convolution.tracing.tangent import Full, linearise
from pellucid.convolution.tracing.windows import immediate, what_it_does
from pellucid.errors import UsageError
from pellucid.inspection.calls import IMAGE, as_batch, calls
from pellucid.inspection.layers import Layer
from pellucid.plot.figure import FigureOptions, finished
from pellucid.text import drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
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

        Print it for a table. If the layer traced is a container such as Sequential(convolution, ReLU), the window is
        the convolution's and ReLU is a step after the sum.

        Raises:
            UsageError: it is a pixel of the image.
        """
        if self.place == IMAGE:
            raise UsageError("a pixel of the image has no precedents; trace an activation, or ask for dependents()")
        network, head, rest = self.network, self.chain[0], self.chain[1:]
        found = _sum_of_layers(network, head, self.unit)
        if found is None:
            call = network.calls[head]
            found = immediate(call, network.connections[head], self.unit, network.label(head), network.sources(head))
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
        return linearise(self.network, self.place, self.unit)

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

    def show(self, **options: Unpack[FigureOptions]) -> Figure:
        """Draw the way from the image to this activation: each layer's map with the lit window, and the kernels."""
        from pellucid.convolution.tracing.panels import panels
        from pellucid.plot.precedents import plot_precedents

        return finished(
            plot_precedents(panels(self.network, self.place, self.unit, self.full()), title=drawable(self)), options
        )

    def animate(
        self,
        file: str | Path,
        *,
        layers: Sequence[Layer] | None = None,
        limit_mb: float = 20,
        classes: Sequence[object] | None = None,
        source: str | Path = "",
    ) -> Path:
        """Write a page in which one clicks any activation and sees its window light up down to the image.

        The page holds everything it needs and works from the file, without a network. It opens with this activation
        chosen, at the image.

        Args:
            file: Ends in .html.
            layers: Layers to show, by name, number or module; None shows all. The others still pass the light on.
            limit_mb: Largest size of the page, in megabytes.
            classes: Names of the model's outputs, which must be scores before a softmax; the page then says what the
                network takes the image for.
            source: Where the image came from, for the head of the page.

        Returns:
            The file.

        Raises:
            UsageError: another ending, an unknown layer, another number of classes than outputs, or a page above the
                limit.
        """
        from pellucid.convolution.tracing.page import write_page

        at = self.network, self.place, self.unit
        return write_page(*at, Path(file), layers, limit_mb, classes, title=str(self), source=str(source))

    def __repr__(self) -> str:
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
        layer: Name of a module (`conv#2` is the second call of `conv`), the module, or a number among the layers
            with parameters, such as -2. A container stands for its last call. "image" is the image, for dependents of a
            pixel. None takes the last layer.
        position: (row, column) in the layer's map; None takes the place with the largest activation. A layer without a
            map has no position: a number is its channel.
        channel: None takes the one with the largest activation at this position.

    Raises:
        UsageError: no such layer, a position or channel outside the map, or an image that the model does not take.
    """
    batch = as_batch(image)
    if next(model.parameters(), None) is not None:
        batch = as_type_of(model, batch)
    found = calls(model, batch)
    if not found:
        raise UsageError(f"{type(model).__name__} calls no module on this image; there is nothing to trace")
    network = Network(model, batch, found)
    place, name, inside = find_layer(network, layer)
    values = (network.image if place == IMAGE else found[place].output)[0]
    unit = _unit(values, name, position, channel)
    chain = () if place == IMAGE else _chain(network, place, inside)
    return Trace(network, place, name, unit[0], unit[1:], float(values[unit]), chain)


def _chain(network: Network, place: int, inside: range) -> tuple[int, ...]:
    """Calls of the stage that ends at a place, as far as they belong to the layer asked for."""
    chain = [place]
    while len(inside) > 1 and _keeps_units(network.connections[chain[0]]):
        source = network.calls[chain[0]].source
        if source is None or source not in inside or network.shape(source) != network.shape(place):
            break
        chain.insert(0, source)
    return tuple(chain)


def _keeps_units(connection: Connection) -> bool:
    return connection.is_pointwise or connection.is_reshape


def _sum_of_layers(network: Network, head: int, unit: Unit) -> Immediate | None:
    """The sum of earlier outputs that a call of a function of single units takes, if it is one."""
    parts, call = network.joins[head], network.calls[head]
    alike = all(join.plain and join.connection.is_pointwise for join in parts)
    if len(parts) < 2 or not network.connections[head].is_pointwise or not alike:
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
