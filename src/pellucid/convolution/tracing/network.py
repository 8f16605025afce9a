"""A model on one image: what it called, how the calls hang together, and which unit can change which."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from pellucid.convolution.connectivity import Connection
from pellucid.convolution.tracing.calculation import Unit
from pellucid.convolution.tracing.connections import connection
from pellucid.convolution.tracing.joins import Join, Stage, joins, stages
from pellucid.errors import UsageError
from pellucid.inspection.calls import IMAGE, Call
from pellucid.inspection.layers import Layer, with_parameters
from pellucid.inspection.lookup import Lookup, listed

IMAGE_NAME = "image"


@dataclass(frozen=True, repr=False)
class Network:
    """A model on one image: its calls, how they hang together, and their names.

    Attributes:
        model, image: The model, and the image as a batch of one.
        calls: Of its innermost modules, in order.
    """

    model: nn.Module
    image: Tensor
    calls: list[Call]

    @cached_property
    def labels(self) -> list[str]:
        """Names of the calls; a module called again is `name#2`."""
        return [call.label for call in self.calls]

    @cached_property
    def connections(self) -> list[Connection]:
        """Which inputs each call's outputs read."""
        return [connection(call) for call in self.calls]

    @cached_property
    def joins(self) -> list[tuple[Join, ...]]:
        """What each call's input is made of."""
        return joins(self.model, self.image, self.calls)

    @cached_property
    def stages(self) -> list[Stage]:
        """The calls in groups: a layer and the functions of single units after it."""
        return stages(self.calls, self.connections, self.joins)

    def shape(self, place: int) -> tuple[int, ...]:
        """(channel, *grid) of a call's output, or of the image."""
        return tuple((self.image if place == IMAGE else self.calls[place].output).shape[1:])

    def label(self, place: int) -> str:
        """Name of a call, or of the image."""
        return IMAGE_NAME if place == IMAGE else self.labels[place]

    def stage_label(self, stage: Stage) -> str:
        """Name of a stage: the module that holds just its calls, else its first call's name."""
        names = [self.calls[n].name for n in stage.calls]
        parent = names[0].rpartition(".")[0]
        alone = [n for n, call in enumerate(self.calls) if parent and call.name.startswith(f"{parent}.")]
        return parent if len(names) > 1 and alone == list(stage.calls) else self.label(stage.calls[0])

    def sources(self, place: int) -> tuple[str, ...]:
        """Names of what a call's input is made of."""
        return tuple(self.label(join.source) for join in self.joins[place])

    def only_reshapes(self, place: int) -> bool:
        """Whether a call holds the numbers of one earlier output in another shape."""
        return self.connections[place].is_reshape and len(self.joins[place]) == 1

    @property
    def answer(self) -> int:
        """Place of the call that makes the model's output; calls after it only reshape it."""
        place = len(self.calls) - 1
        while self.only_reshapes(place) and self.joins[place][0].source != IMAGE:
            place = self.joins[place][0].source
        return place

    def unreshaped(self, place: int, unit: Unit) -> tuple[int, Unit]:
        """The same number in the output that reshaping calls passed on."""
        while place != IMAGE and self.only_reshapes(place):
            unit = tuple(int(at[0]) for at in self.connections[place].window(unit))
            place = self.joins[place][0].source
        return place, unit

    def back(self, place: int, unit: Unit) -> dict[int, np.ndarray]:
        """Units that one unit takes, at any distance: place of the call or `IMAGE` → (channel, *grid) of bool."""
        lit = {n: np.zeros(self.shape(n), bool) for n in range(IMAGE, place + 1)}
        lit[place][unit] = True
        for n in range(place, IMAGE, -1):
            if lit[n].any():
                taken = self.connections[n].back(lit[n])
                for join in self.joins[n]:
                    lit[join.source] |= join.connection.back(taken)
        return lit

    def ahead(self, place: int, unit: Unit) -> dict[int, np.ndarray]:
        """Units that take one unit, at any distance, as `back` has them."""
        lit = {n: np.zeros(self.shape(n), bool) for n in range(place, len(self.calls))}
        lit[place][unit] = True
        for n in range(place + 1, len(self.calls)):
            for join in self.joins[n]:
                if join.source >= place and lit[join.source].any():
                    lit[n] |= self.connections[n].ahead(join.connection.ahead(lit[join.source]))
        return lit


def find_layer(network: Network, layer: Layer) -> tuple[int, str, range]:
    """Place of a layer's last call, its name, and the places of the calls that belong to it.

    Raises:
        UsageError: there is none.
    """
    labels, found = network.labels, network.calls
    if layer is None:
        return len(found) - 1, labels[-1], range(len(found) - 1, len(found))
    if layer == IMAGE_NAME and IMAGE_NAME not in labels:
        return IMAGE, IMAGE_NAME, range(0)
    modules, numbered = dict(network.model.named_modules()), list(with_parameters(network.model))
    if isinstance(layer, str) and layer not in modules and layer not in labels and layer.lstrip("-").isdigit():
        layer = int(layer)
    lookup = Lookup(labels, numbered, modules)
    places, name = lookup.find(layer), lookup.name(layer)
    if places:
        name = labels[places[0]] if len(places) == 1 else name or type(network.model).__name__
        return places[-1], name, range(places[0], places[-1] + 1)
    if isinstance(layer, nn.Module) and name is None:
        raise UsageError(f"the given {type(layer).__name__} is no module of {type(network.model).__name__}")
    said, told = layer if isinstance(layer, int) else repr(name), "does not exist"
    if name in modules:
        told = "was not called on this image"
    kinds = [type(call.module).__name__ for call in found]
    raise UsageError(
        f"layer {said} {told}: {type(network.model).__name__} has {listed(labels, kinds)}; a container's name works "
        f"too, and a number below {len(numbered)}, which counts layers with parameters"
    )
