"""Layers as formulas: which input cells and parameter cells a cell of a layer's output is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from pellucid.convolution.arithmetic import same_padding
from pellucid.convolution.sheets.grids import Frame, Grid, Pair
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


class Convolution(Layer):
    """`nn.Conv2d`: a SUMPRODUCT of window and kernel for each input channel; single products if it is dilated."""

    def __init__(self, module: nn.Conv2d, number: int):
        rows, columns = (_sides(module, axis) for axis in (0, 1))
        self.module = module
        self.frame = Frame(*rows, *columns, mode=module.padding_mode)
        self.kernel = (module.kernel_size[0], module.kernel_size[1])
        self.n_scalars = 0 if module.bias is None else 1
        self.kernels = _numbers(module.weight)
        super().__init__(f"Convolution {number}", _settings(module, rows, columns))

    def sources(self, channel: int) -> list[int]:
        n_in, n_out = (n // self.module.groups for n in (self.module.in_channels, self.module.out_channels))
        group = channel // n_out
        return list(range(group * n_in, (group + 1) * n_in))

    def weights(self, channel: int) -> np.ndarray:
        return self.kernels[channel]

    def scalars(self, channel: int, maps: Mapping[int, Grid]) -> list[Scalar]:
        return [] if self.module.bias is None else [Scalar("bias", self.module.bias[channel].item())]

    def formula(
        self, channel: int, place: Pair, maps: Mapping[int, Grid], kernels: Sequence[Grid], scalars: Sequence[str]
    ) -> str:
        m, padding = self.module, (self.frame.top, self.frame.left)
        rows, columns = (
            [place[i] * m.stride[i] - padding[i] + k * m.dilation[i] for k in range(m.kernel_size[i])] for i in (0, 1)
        )
        terms: list[str] = []
        for source, kernel in zip(self.sources(channel), kernels, strict=True):
            if len(rows) * len(columns) > 1 and _unbroken(rows) and _unbroken(columns):
                terms.append(f"SUMPRODUCT({maps[source].window(rows, columns)},{kernel.fixed})")
            else:
                terms += [
                    f"{maps[source].cell(row, column)}*{kernel.fixed_cells[i][j]}"
                    for i, row in enumerate(rows)
                    for j, column in enumerate(columns)
                ]
        return "+".join([*terms, *scalars])


class Pooling(Layer):
    """Maximum or average of a window. Padding is no part of a maximum; of an average it is if the layer counts it."""

    def __init__(self, call: Call):
        module: Any = call.module
        self.average = isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d)
        self.divisor = getattr(module, "divisor_override", None)
        self.sizes = (call.input.shape[2], call.input.shape[3])
        self.adaptive = isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)
        self.outputs = (call.output.shape[2], call.output.shape[3])
        details = f"{self.outputs[0]}×{self.outputs[1]} windows over all"
        if not self.adaptive:
            names = ("kernel_size", "stride", "padding", "dilation")
            self.steps = [[_entry(getattr(module, name, 1), axis) for name in names] for axis in (0, 1)]
            (kr, sr, pr, dr), (kc, sc, pc, dc) = self.steps
            if self.average and module.count_include_pad:
                self.frame = Frame(pr, pr, pc, pc)
            details = _join(
                (f"{kr}×{kc}", True),
                (f"stride {_both(sr, sc)}", True),
                (f"padding {_both(pr, pc)}", pr + pc > 0),
                (f"dilation {_both(dr, dc)}", dr * dc > 1),
            )
        super().__init__("Average pooling" if self.average else "Max pooling", details)

    def formula(
        self, channel: int, place: Pair, maps: Mapping[int, Grid], kernels: Sequence[Grid], scalars: Sequence[str]
    ) -> str:
        rows, columns = (self._window(place[axis], axis) for axis in (0, 1))
        grid = maps[channel]
        if _unbroken(rows) and _unbroken(columns):
            inside = grid.window(rows, columns)
        else:
            inside = ",".join(grid.cell(row, column) for row in rows for column in columns)
        if self.divisor:
            return f"SUM({inside})/{self.divisor}"
        return f"{'AVERAGE' if self.average else 'MAX'}({inside})"

    def _window(self, at: int, axis: int) -> list[int]:
        size = self.sizes[axis]
        if self.adaptive:
            n = self.outputs[axis]
            return list(range(at * size // n, -(-(at + 1) * size // n)))
        kernel, stride, padding, dilation = self.steps[axis]
        before = self.frame.top if axis == 0 else self.frame.left
        window = [at * stride - padding + k * dilation for k in range(kernel)]
        return [place for place in window if -before <= place < size + before]


class Normalization(Layer):
    """Batchnorm with its running statistics, group and instance norm with live ones: (x − mean)/√(var + ε)·γ + β."""

    n_scalars = 5

    def __init__(self, call: Call):
        self.module: Any = call.module
        n = call.input.shape[1]
        self.live = not getattr(self.module, "track_running_stats", False)
        if self.live and isinstance(self.module, nn.BatchNorm2d):
            raise UsageError(f"batchnorm {call.name!r} keeps no running statistics: a sheet shows evaluation mode")
        self.size = n // self.module.num_groups if isinstance(self.module, nn.GroupNorm) else 1
        if self.live and self.size > 255:
            raise UsageError(f"{call.name!r} averages over {self.size} channels; a formula takes 255 at most")
        x = _numbers(call.input)[0].reshape(n // self.size, -1)
        self.means, self.variances = x.mean(1), x.var(1)
        if not self.live:
            self.means, self.variances = (_numbers(getattr(self.module, f"running_{s}")) for s in ("mean", "var"))
        self.gammas = np.ones(n) if self.module.weight is None else _numbers(self.module.weight)
        self.betas = np.zeros(n) if self.module.bias is None else _numbers(self.module.bias)
        titles = {nn.BatchNorm2d: "Batchnorm", nn.GroupNorm: "Group norm", nn.InstanceNorm2d: "Instance norm"}
        title = next(text for kind, text in titles.items() if isinstance(self.module, kind))
        super().__init__(title, "(x − mean)/√(var + ε)·γ + β", "({x}-{0})/SQRT({1}+{2})*{3}+{4}")

    def sources(self, channel: int) -> list[int]:
        first = channel // self.size * self.size
        return list(range(first, first + self.size))

    def scalars(self, channel: int, maps: Mapping[int, Grid]) -> list[Scalar]:
        group, formulas = channel // self.size, [None, None]
        if self.live:
            inside = ",".join(maps[source].fixed for source in self.sources(channel))
            formulas = [f"{name}({inside})" for name in ("AVERAGE", "VARP")]
        return [
            Scalar("mean", float(self.means[group]), formulas[0]),
            Scalar("var", float(self.variances[group]), formulas[1]),
            Scalar("ε", self.module.eps),
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


ACTIVATIONS: dict[type[nn.Module], Callable[[Any], tuple[str, str]]] = {
    nn.ReLU: lambda m: ("max(0, x)", "MAX(0,{x})"),
    nn.LeakyReLU: lambda m: (f"x, or {m.negative_slope:g}·x below 0", f"IF({{x}}>0,{{x}},{m.negative_slope}*{{x}})"),
    nn.Hardtanh: lambda m: (f"between {m.min_val:g} and {m.max_val:g}", f"MIN({m.max_val},MAX({m.min_val},{{x}}))"),
    nn.ELU: lambda m: ("x, or α·(exp(x) − 1) below 0", f"IF({{x}}>0,{{x}},{m.alpha}*(EXP({{x}})-1))"),
    nn.GELU: lambda m: (
        ("x·Φ(x)", "{x}*NORMSDIST({x})")
        if m.approximate == "none"
        else ("x·Φ(x), by tanh", "{x}/2*(1+TANH(SQRT(2/PI())*({x}+0.044715*{x}^3)))")
    ),
    nn.SiLU: lambda m: ("x/(1 + exp(−x))", "{x}/(1+EXP(-{x}))"),
    nn.Sigmoid: lambda m: ("1/(1 + exp(−x))", "1/(1+EXP(-{x}))"),
    nn.Tanh: lambda m: ("tanh(x)", "TANH({x})"),
    nn.Hardswish: lambda m: ("x·(x + 3)/6 between −3 and 3", "{x}*MIN(6,MAX(0,{x}+3))/6"),
}
POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d)
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
SUPPORTED = (nn.Conv2d, *POOLINGS, *NORMS, *ACTIVATIONS, *NOTHING)


def layer_of(call: Call, number: int) -> Layer | None:
    """The layer of a call in a sheet; None for one that changes nothing in evaluation, such as dropout.

    Args:
        call: One that took a batch of maps.
        number: What to call a convolution.

    Raises:
        UsageError: a sheet has no formula for its kind.
    """
    module = call.module
    # A subclass that overrides forward computes something else.
    kind = next((k for k in SUPPORTED if isinstance(module, k) and type(module).forward is k.forward), None)
    if kind is None:
        raise UsageError(
            f"layer {call.name!r} is a {type(module).__name__}, for which a sheet has no formula; it knows "
            f"{', '.join(k.__name__ for k in SUPPORTED)}"
        )
    if kind is nn.Conv2d:
        return Convolution(module, number)  # pyright: ignore[reportArgumentType]
    if kind in POOLINGS:
        return Pooling(call)
    if kind in NORMS:
        return Normalization(call)
    return None if kind in NOTHING else Layer(type(module).__name__, *ACTIVATIONS[kind](module))


def _sides(module: nn.Conv2d, axis: int) -> Pair:
    """Padding before and after on one axis."""
    if module.padding == "same":
        side = same_padding(module.kernel_size[axis], module.dilation[axis])
    else:
        side = 0 if isinstance(module.padding, str) else module.padding[axis]
    return (side, side) if isinstance(side, int) else side  # pyright: ignore[reportReturnType]


def _settings(module: nn.Conv2d, rows: Pair, columns: Pair) -> str:
    same = rows[0] == rows[1] == columns[0] == columns[1]
    padding = str(rows[0]) if same else f"{_both(*rows)}, {_both(*columns)}"
    mode = "" if module.padding_mode == "zeros" else f" ({module.padding_mode})"
    return _join(
        ("×".join(map(str, module.kernel_size)), True),
        (f"stride {_both(*module.stride)}", module.stride != (1, 1)),
        (f"padding {padding}{mode}", sum(rows + columns) > 0),
        (f"dilation {_both(*module.dilation)}", module.dilation != (1, 1)),
        (f"{module.groups} groups", module.groups > 1),
    )


def _join(*parts: tuple[str, bool]) -> str:
    return ", ".join(text for text, shown in parts if shown)


def _both(a: int, b: int) -> str:
    return str(a) if a == b else f"{a}×{b}"


def _unbroken(places: Sequence[int]) -> bool:
    return places[-1] - places[0] == len(places) - 1


def _entry(value: Any, axis: int) -> int:
    return int(value[axis] if isinstance(value, tuple | list) else value)


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()
