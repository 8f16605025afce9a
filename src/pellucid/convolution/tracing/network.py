"""A model on one image: what it called, how the calls hang together, and which unit can change which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from pellucid.convolution.tracing.joins import Join, Stage, joins, stages
from pellucid.convolution.tracing.reach import Reach, reach
from pellucid.convolution.tracing.windows import Unit
from pellucid.errors import UsageError
from pellucid.inspection.calls import IMAGE, Call
from pellucid.text import first_few

IMAGE_NAME = "image"
Layer = str | int | nn.Module | None


@dataclass(frozen=True, repr=False)
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

    @property
    def answer(self) -> int:
        """Place of the call that makes the model's output; calls after it only reshape it."""
        place = len(self.calls) - 1
        while (
            self.reaches[place].kind == "reshape" and len(self.joins[place]) == 1 and self.joins[place][0].source >= 0
        ):
            place = self.joins[place][0].source
        return place

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
    return (
        f"{type(network.model).__name__} has {first_few(names, 40)}; a container's name or a number below {n} works too"
    )


def labels_of(found: Sequence[Call]) -> list[str]:
    """Names of calls; a module called again is `name#2`."""
    labels: list[str] = []
    for n, call in enumerate(found):
        number = 1 + sum(earlier.name == call.name for earlier in found[:n])
        name = call.name or type(call.module).__name__
        labels.append(name if number == 1 else f"{name}#{number}")
    return labels
