"""What each call's input is made of: one earlier output, or several that the model's own code added or put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.convolution.connectivity import Connection
from pellucid.convolution.connectivity.connection import all_to_all, inserted, per_channel, pointwise, reshaped
from pellucid.inspection.calls import IMAGE, Call, as_batch
from pellucid.inspection.runner import each_call


@dataclass(frozen=True)
class Join:
    """A share that an earlier output has in a call's input.

    Attributes:
        source: Place of the earlier call in the list; `IMAGE` for the image.
        connection: Which of the source's units each unit of the input reads.
        plain: Whether the source's values are added or put in as they are, so that a gradient passes unchanged.
    """

    source: int
    connection: Connection
    plain: bool


@dataclass(frozen=True)
class Stage:
    """A layer with the functions of single units that follow it, such as convolution, ReLU and batchnorm.

    Attributes:
        calls: Places of its calls in the list, in order.
    """

    calls: tuple[int, ...]

    @property
    def tail(self) -> int:
        """Its last call, whose output is what a reader calls the layer's activations."""
        return self.calls[-1]


def joins(model: nn.Module, image: Any, found: Sequence[Call]) -> list[tuple[Join, ...]]:
    """For each call, what its input is made of.

    Where code between the modules made it, the model runs once more with every output cut off from its history, and the
    gradient of the input tells which outputs it took: added, put side by side, reshaped, averaged per channel, or else
    all of them.
    """
    known: list[tuple[Join, ...]] = [
        () if call.source is None else (Join(call.source, pointwise(call.shapes[0]), True),) for call in found
    ]
    if all(call.source is not None for call in found):
        return known
    outputs, inputs = _cut_run(model, as_batch(image))
    sources = {number - 1: output for number, output in enumerate(outputs)}
    for place, call in enumerate(found):
        if call.source is None:
            earlier = {source: output for source, output in sources.items() if source < place}
            known[place] = _direct(inputs[place], earlier)
    return known


def stages(found: Sequence[Call], connections: Sequence[Connection], parts: Sequence[tuple[Join, ...]]) -> list[Stage]:
    """Group calls into stages. Reshaping calls belong to none; an output that several calls take ends its stage."""
    takers = [0] * len(found)
    for part in parts:
        for join in part:
            if join.source != IMAGE:
                takers[join.source] += 1
    groups: list[list[int]] = []
    home: dict[int, list[int]] = {}
    for place, call in enumerate(found):
        if connections[place].is_reshape:
            continue
        group = home.get(call.source) if call.source is not None and connections[place].is_pointwise else None
        if group is None or group[-1] != call.source or takers[group[-1]] > 1:
            group = []
            groups.append(group)
        group.append(place)
        home[place] = group
    return [Stage(tuple(group)) for group in groups]


def _cut_run(model: nn.Module, batch: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of all calls, the image first, as leaves of their own, and inputs of all calls as made from these."""
    leaves = [batch.clone().requires_grad_()]
    inputs: list[Tensor] = []
    given: dict[int, Tensor] = {}

    def before(module: nn.Module, args: Any) -> None:
        if args and isinstance(args[0], Tensor):
            given[id(module)] = args[0].clone()

    def after(name: str, module: nn.Module, args: Any, output: Any) -> Any:
        if not (args and isinstance(args[0], Tensor) and isinstance(output, Tensor)):
            return None
        inputs.append(given.pop(id(module)))
        leaves.append(output.detach().requires_grad_(output.is_floating_point()))
        return leaves[-1].clone()  # a copy, because the next module may work in place

    with torch.enable_grad(), each_call(model, after, before):
        model(leaves[0].clone())
    return leaves, inputs


def _direct(x: Tensor, earlier: dict[int, Tensor]) -> tuple[Join, ...]:
    usable = {source: leaf for source, leaf in earlier.items() if leaf.requires_grad}
    if not x.requires_grad or not usable:
        return ()
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(x.shape, generator=generator, device="cpu").to(x)
    half = (torch.rand(x.shape, generator=generator, device="cpu") < 0.5).to(x)
    channels = (
        (torch.rand(x.shape[:2], generator=generator, device="cpu") < 0.5)
        .to(x)
        .reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    )
    slopes = [
        torch.autograd.grad(x, list(usable.values()), weights, retain_graph=True, allow_unused=True)
        for weights in (probe, probe * half, probe * channels)
    ]
    return tuple(
        _join(source, leaf, x, (probe, half, channels), of_leaf)
        for source, leaf, *of_leaf in zip(usable, usable.values(), *slopes, strict=True)
        if of_leaf[0] is not None
    )


def _join(source: int, leaf: Tensor, x: Tensor, probes: tuple[Tensor, ...], slopes: list[Tensor]) -> Join:
    (probe, half, channels), (whole, by_half, by_channel) = probes, slopes
    shapes = tuple(leaf.shape[1:]), tuple(x.shape[1:])
    if leaf.shape == x.shape and not by_half[half == 0].any():
        return Join(source, pointwise(shapes[0]), torch.equal(whole, probe))
    if leaf.ndim == x.ndim and leaf.shape[2:] == x.shape[2:] and leaf.shape[1] < x.shape[1]:
        n = leaf.shape[1]
        for offset in range(x.shape[1] - n + 1):
            if not by_half[half[:, offset : offset + n] == 0].any():
                plain = torch.equal(whole, probe[:, offset : offset + n])
                return Join(source, inserted(*shapes, offset), plain)
    if leaf.numel() == x.numel() and torch.equal(whole.flatten(), probe.flatten()):
        return Join(source, reshaped(*shapes), True)
    if leaf.shape[1] == x.shape[1] and not by_channel[0, channels.flatten() == 0].any():
        return Join(source, per_channel(*shapes), False)
    return Join(source, all_to_all(*shapes), False)
