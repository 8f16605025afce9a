"""Why channels double where the grid halves: one network with channels kept and with channels doubled, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import nn

from pellucid.convolution.arithmetic import multiplications, parameters
from pellucid.convolution.fields.graph import as_type_of, refused
from pellucid.convolution.fields.units import by
from pellucid.convolution.notation import network
from pellucid.errors import UsageError
from pellucid.inspection.work import layer_work
from pellucid.tables import as_html, as_text

CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d
HEAD = (
    *("Layer", "Grid"),
    *("Channels kept", "Multiplications", "Activations"),
    *("Channels doubled", "Multiplications", "Activations"),
)
NOTES = (
    "A layer of stride 2 leaves a quarter of the positions: with as many channels as before, a quarter of the work.",
    "Twice the channels in and out are four times the weights: the same work. (Odd grids leave more than a quarter.)",
)


@dataclass(frozen=True)
class Cost:
    """What one convolution costs for one image.

    Attributes:
        channels: In and out.
        n_params: Weights and biases.
        n_multiplications: Over the output grid.
        n_activations: Numbers in the output.
    """

    channels: tuple[int, int]
    n_params: int
    n_multiplications: int
    n_activations: int


@dataclass(frozen=True)
class ChannelRow:
    """One convolution with its channels kept and doubled.

    Attributes:
        name: In the model.
        grid: Positions of the output.
        kept, doubled: Its cost in either network.
    """

    name: str
    grid: tuple[int, ...]
    kept: Cost
    doubled: Cost


@dataclass(frozen=True)
class ChannelComparison:
    """The convolutions of a network with channels kept and doubled at each stride; `str()` gives the table.

    Attributes:
        model: Class name of the model.
        input_size: Shape of an image.
        rows: Its convolutions in order.
    """

    model: str
    input_size: tuple[int, ...]
    rows: tuple[ChannelRow, ...]

    def __str__(self) -> str:
        return "\n".join([self._title(), "", as_text(HEAD, *self._cells(), left=2), "", *NOTES])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return as_html(self._title(), HEAD, *self._cells(), left=2, notes=NOTES)

    def _title(self) -> str:
        return f"{self.model} on {by(self.input_size)}: channels kept, and doubled at each stride"

    def _cells(self) -> tuple[list[list[str]], list[str]]:
        lines = [[row.name, by(row.grid), *_cells(row.kept), *_cells(row.doubled)] for row in self.rows]
        foot = ["total", ""]
        for costs in ([row.kept for row in self.rows], [row.doubled for row in self.rows]):
            foot += ["", f"{sum(c.n_multiplications for c in costs):,}", f"{sum(c.n_activations for c in costs):,}"]
        return lines, foot


def compare_channels(model: nn.Module | str, input_size: Sequence[int]) -> ChannelComparison:
    """Compare a chain of convolutions with the channels of its first layer kept, and doubled at each later stride.

    Grids, kernels, strides and biases are the model's. Only the channels differ: both start with those of the first
    convolution. A last one that has fewer outputs than inputs gives the answer, and keeps its outputs.

    >>> print(compare_channels('conv 1 8 k3 s2 p1, conv 8 16 k3 s2 p1, conv 16 32 k3 s2 p1', (1, 64, 64)).rows[-1].kept)
    Cost(channels=(8, 8), n_params=584, n_multiplications=36864, n_activations=512)

    Args:
        model: Any module that is a chain, or a line of words as `network` takes it.
        input_size: Shape of one image, such as (1, 28, 28), without batch axis.

    Raises:
        UsageError: there are no convolutions, or they are no chain without groups.
    """
    size = tuple(input_size)
    model = network(model, size) if isinstance(model, str) else model
    x = as_type_of(model, torch.zeros(1, *size, device="cpu"))
    try:
        works = layer_work(model, x)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise refused(model, size, error) from None
    found = [(work.name, work.module, work.shape[2:]) for work in works if isinstance(work.module, CONVOLUTIONS)]
    _check_chain(model, found)
    kept = [found[0][1].out_channels] * len(found)
    doubled = list(kept)
    for i, (_, conv, _) in enumerate(found[1:], start=1):
        doubled[i] = doubled[i - 1] * (2 if max(conv.stride) > 1 else 1)
    last = found[-1][1]
    if len(found) > 1 and last.out_channels < last.in_channels:
        kept[-1] = doubled[-1] = last.out_channels
    rows = []
    for i, (name, conv, grid) in enumerate(found):
        costs = (
            _cost(conv, grid, channels[i - 1] if i else conv.in_channels, channels[i]) for channels in (kept, doubled)
        )
        rows.append(ChannelRow(name, grid, *costs))
    return ChannelComparison(type(model).__name__, size, tuple(rows))


def _check_chain(model: nn.Module, found: list[tuple[str, Any, tuple[int, ...]]]) -> None:
    if not found:
        raise UsageError(f"{type(model).__name__} has no convolutions whose channels could be compared")
    for (before, first, _), (after, second, _) in pairwise(found):
        if second.in_channels != first.out_channels:
            raise UsageError(
                f"channels are compared in chains of convolutions, but {after!r} takes {second.in_channels} channels "
                f"and {before!r} before it gives {first.out_channels}"
            )
    for name, conv, _ in found:
        if conv.groups > 1:
            raise UsageError(f"channels are compared in convolutions without groups, but {name!r} has {conv.groups}")


def _cost(conv: Any, grid: tuple[int, ...], n_in: int, n_out: int) -> Cost:
    kernel = tuple(conv.kernel_size)
    n_params = parameters(n_in, n_out, kernel, bias=conv.bias is not None)
    return Cost((n_in, n_out), n_params, multiplications(n_in, n_out, kernel, grid), n_out * prod(grid))


def _cells(cost: Cost) -> list[str]:
    return [f"{cost.channels[0]} → {cost.channels[1]}", f"{cost.n_multiplications:,}", f"{cost.n_activations:,}"]
