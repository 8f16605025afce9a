"""Layers as formulas: which input cells and parameter cells a cell of a layer's output is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from pellucid.convolution.connectivity import (
    Connection,
    Copy,
    Function,
    Kernel,
    Largest,
    Mean,
    Standardized,
    connection_of,
)
from pellucid.convolution.connectivity.axes import OUTSIDE, Taps
from pellucid.convolution.sheets.grids import Frame, Grid, Pair
from pellucid.convolution.wording import SIZED, settings
from pellucid.errors import UsageError
from pellucid.inspection.calls import Call


@dataclass(frozen=True)
class Scalar:
    """A parameter in one cell: its label, its value, and its formula where it is computed from the input."""

    label: str
    value: float
    formula: str | None = None


class Layer:
    """How one layer stands in a sheet. This one is pointwise: each output cell has one input cell.

    Attributes:
        title: What to call it.
        details: Its settings, or its formula as people write it.
        frame: Padding it wants around its input.
        kernel: Rows and columns of its kernels; None without kernels.
        n_scalars: Parameters of one cell that each output channel has.
    """

    frame = Frame()
    kernel: Pair | None = None
    n_scalars = 0

    def __init__(self, title: str, details: str, text: str = ""):
        self.title, self.details, self.text = title, details, text

    def sources(self, channel: int) -> list[int]:
        """Input channels that an output channel is made of."""
        return [channel]

    def weights(self, channel: int) -> np.ndarray:
        """Kernels of an output channel: (source, row, column)."""
        return np.empty((0, 0, 0))

    def scalars(self, channel: int, maps: Mapping[int, Grid]) -> list[Scalar]:
        """Parameters of an output channel that take one cell each."""
        return []

    def formula(
        self, channel: int, place: Pair, maps: Mapping[int, Grid], kernels: Sequence[Grid], scalars: Sequence[str]
    ) -> str:
        """Formula of the output cell at `place`, from its input maps, kernels and references of its scalars."""
        return self.text.format(*scalars, x=maps[channel].cell(*place))


class _Window(Layer):
    """A layer whose cells have a window of cells in each of some channels."""

    def __init__(self, connection: Connection, title: str, details: str, counted: Pair | None = None):
        """`counted` is the padding on each axis that is drawn; None draws all that a window meets."""
        super().__init__(title, details)
        assert connection.taps  # layer_of asked for them
        self.channels, *self.axes = connection.taps
        self.windows = [_windows(taps) for taps in self.axes]
        sides = [_sides(taps, windows) for taps, windows in zip(self.axes, self.windows, strict=True)]
        if counted is not None:
            sides = [(n, n) for n in counted]
        self.frame = Frame(*sides[0], *sides[1], mode=self.axes[0].border)

    def sources(self, channel: int) -> list[int]:
        return self.channels.read_by(np.array([channel]))[0].tolist()

    def drawn(self, place: Pair) -> tuple[list[int | None], list[int | None]]:
        """Rows and columns of the window at a place, counted from the map's first cell; None for a tap that meets none.

        What lies beyond the padding that is drawn is left out.
        """
        sides = ((self.frame.top, self.frame.bottom), (self.frame.left, self.frame.right))
        rows, columns = (
            [at for at in windows[i] if at is None or -before <= at < taps.n_in + after]
            for windows, i, taps, (before, after) in zip(self.windows, place, self.axes, sides, strict=True)
        )
        return rows, columns


class Convolution(_Window):
    """A SUMPRODUCT of window and kernel for each input channel; single products where the window has gaps."""

    def __init__(self, connection: Connection, weights: Kernel, title: str, details: str):
        super().__init__(connection, title, details)
        self.made = weights
        self.kernels = _numbers(weights.arranged(weights.weight.detach()))
        self.kernel = (self.kernels.shape[2], self.kernels.shape[3])
        self.n_scalars = 0 if weights.bias is None else 1

    def weights(self, channel: int) -> np.ndarray:
        return self.kernels[channel]

    def scalars(self, channel: int, maps: Mapping[int, Grid]) -> list[Scalar]:
        return [] if self.made.bias is None else [Scalar("bias", self.made.bias[channel].item())]

    def formula(
        self, channel: int, place: Pair, maps: Mapping[int, Grid], kernels: Sequence[Grid], scalars: Sequence[str]
    ) -> str:
        rows, columns = self.drawn(place)
        terms: list[str] = []
        for source, kernel in zip(self.sources(channel), kernels, strict=True):
            if len(rows) * len(columns) > 1 and _unbroken(rows) and _unbroken(columns):
                terms.append(f"SUMPRODUCT({maps[source].window(_met(rows), _met(columns))},{kernel.fixed})")
            else:
                terms += [
                    f"{maps[source].cell(row, column)}*{kernel.fixed_cells[i][j]}"
                    for i, row in enumerate(rows)
                    for j, column in enumerate(columns)
                    if row is not None and column is not None
                ]
        return "+".join([*terms, *scalars]) or "0"


class Pooling(_Window):
    """Maximum or average of a window. Padding is no part of a maximum; of an average it is if the layer counts it."""

    def __init__(self, connection: Connection, weights: Mean | Largest, details: str):
        counted = weights.counted if isinstance(weights, Mean) and weights.counted else (0, 0)
        title = "Average pooling" if isinstance(weights, Mean) else "Max pooling"
        super().__init__(connection, title, details, (counted[0], counted[1]))
        self.made = weights

    def formula(
        self, channel: int, place: Pair, maps: Mapping[int, Grid], kernels: Sequence[Grid], scalars: Sequence[str]
    ) -> str:
        rows, columns = map(_met, self.drawn(place))
        grid = maps[channel]
        if _unbroken(rows) and _unbroken(columns):
            inside = grid.window(rows, columns)
        else:
            inside = ",".join(grid.cell(row, column) for row in rows for column in columns)
        if isinstance(self.made, Mean) and self.made.divisor:
            return f"SUM({inside})/{self.made.divisor}"
        return f"{'AVERAGE' if isinstance(self.made, Mean) else 'MAX'}({inside})"


class Copied(Layer):
    """Each cell is another cell, or zero."""

    def __init__(self, connection: Connection, title: str, details: str):
        super().__init__(title, details)
        self.connection = connection

    def sources(self, channel: int) -> list[int]:
        grid = self.connection.shape_out[1:]
        read = {self._source((channel, *place)) for place in np.ndindex(grid)} - {None}
        return sorted({unit[0] for unit in read if unit is not None})

    def _source(self, unit: tuple[int, ...]) -> tuple[int, int, int] | None:
        channels, rows, columns = self.connection.window(unit)
        found = (int(channels[0]), int(rows[0]), int(columns[0]))
        return None if OUTSIDE in found else found

    def formula(
        self, channel: int, place: Pair, maps: Mapping[int, Grid], kernels: Sequence[Grid], scalars: Sequence[str]
    ) -> str:
        found = self._source((channel, *place))
        return "0" if found is None else maps[found[0]].cell(found[1], found[2])


class Normalization(Layer):
    """Norms with running statistics, or with live ones of a group of channels: (x − mean)/√(var + ε)·γ + β."""

    n_scalars = 5

    def __init__(self, call: Call, weights: Standardized, title: str):
        n = call.input.shape[1]
        self.made = weights
        self.size = 1 if weights.is_fixed else n // (weights.groups or n)
        if self.size > 255:
            raise UsageError(f"{call.name!r} averages over {self.size} channels; a formula takes 255 at most")
        x = _numbers(call.input)[0].reshape(n // self.size, -1)
        self.means, self.variances = x.mean(1), x.var(1)
        if weights.mean is not None and weights.var is not None:
            self.means, self.variances = _numbers(weights.mean), _numbers(weights.var)
        self.gammas = np.ones(n) if weights.weight is None else _numbers(weights.weight)
        self.betas = np.zeros(n) if weights.bias is None else _numbers(weights.bias)
        super().__init__(title, "(x − mean)/√(var + ε)·γ + β", "({x}-{0})/SQRT({1}+{2})*{3}+{4}")

    def sources(self, channel: int) -> list[int]:
        first = channel // self.size * self.size
        return list(range(first, first + self.size))

    def scalars(self, channel: int, maps: Mapping[int, Grid]) -> list[Scalar]:
        group, formulas = channel // self.size, [None, None]
        if not self.made.is_fixed:
            inside = ",".join(maps[source].fixed for source in self.sources(channel))
            formulas = [f"{name}({inside})" for name in ("AVERAGE", "VARP")]
        return [
            Scalar("mean", float(self.means[group]), formulas[0]),
            Scalar("var", float(self.variances[group]), formulas[1]),
            Scalar("ε", self.made.eps),
            Scalar("γ", float(self.gammas[channel])),
            Scalar("β", float(self.betas[channel])),
        ]


class PixelScaling(Layer):
    """From pixels of 0 to 255 to the network's input: (pixel/255 − mean)/std."""

    n_scalars = 2

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        self.mean, self.std = mean, std
        super().__init__("Network input", "(pixel/255 − mean)/std", "({x}/255-{0})/{1}")

    def scalars(self, channel: int, maps: Mapping[int, Grid]) -> list[Scalar]:
        return [Scalar("mean", float(self.mean[channel])), Scalar("std", float(self.std[channel]))]


TITLES = {nn.BatchNorm2d: "Batchnorm", nn.GroupNorm: "Group norm", nn.InstanceNorm2d: "Instance norm"}


def layer_of(call: Call, number: int) -> Layer | None:
    """The layer of a call in a sheet; None for one that changes nothing in evaluation, such as dropout.

    Args:
        call: One that took a batch of maps.
        number: What to call a convolution.

    Raises:
        UsageError: a sheet has no formula for it.
    """
    module, kind = call.module, type(call.module).__name__
    found = connection_of(module, *call.shapes)
    weights = found.weights if found else None
    if found is not None and len(found.shape_in) == len(found.shape_out) == 3:
        if isinstance(weights, Kernel) and found.taps:
            title = "Transposed convolution" if weights.transposed else "Convolution"
            return Convolution(found, weights, f"{title} {number}", _settings(module, kind))
        if isinstance(weights, Mean | Largest) and found.taps:
            over_all = f"{'×'.join(map(str, found.shape_out[1:]))} windows over all"
            return Pooling(found, weights, _settings(module, over_all))
        if isinstance(weights, Standardized):
            return Normalization(call, weights, next((t for k, t in TITLES.items() if isinstance(module, k)), kind))
        if isinstance(weights, Copy):
            return None if found.is_pointwise else Copied(found, kind, "")
        if isinstance(weights, Function) and weights.formula:
            return Layer(kind, weights.details, weights.formula)
    if isinstance(module, nn.BatchNorm2d):
        raise UsageError(f"batchnorm {call.name!r} keeps no running statistics: a sheet shows evaluation mode")
    raise UsageError(
        f"layer {call.name!r} is a {kind}, for which a sheet has no formula; it knows Conv2d, MaxPool2d, "
        "AvgPool2d and their kin, norms, layers that copy numbers, and most activation functions"
    )


def _windows(taps: Taps) -> list[list[int | None]]:
    """For each output place, what each tap meets in an input that goes on without border."""
    if taps.is_everything:
        return [list(range(taps.n_in))] * taps.n_out
    read, meets = taps.boundless(np.arange(taps.n_out))
    return [[int(p) if m else None for p, m in zip(*row, strict=True)] for row in zip(read, meets, strict=True)]


def _sides(taps: Taps, windows: Sequence[Sequence[int | None]]) -> Pair:
    """Padding cells before and after one axis: those that a window meets, and after it no fewer than before.

    With a stride the last padding may meet no window; it is drawn all the same, as the layer has it.
    """
    met = [at for window in windows for at in window if at is not None]
    before = max(0, -min(met))
    return before, max(before, max(met) - taps.n_in + 1)


def _settings(module: Any, otherwise: str) -> str:
    """Kernel and options, or else what an adaptive or foreign layer is called."""
    return settings(module) if isinstance(module, SIZED) else otherwise


def _met(places: Sequence[int | None]) -> list[int]:
    return [place for place in places if place is not None]


def _unbroken(places: Sequence[int | None]) -> bool:
    met = _met(places)
    return len(met) == len(places) and met[-1] - met[0] == len(met) - 1


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()
