"""The calculation of one activation: window, weights, products, bias, sum; as numbers and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from pellucid.convolution.connectivity.axes import OUTSIDE

N_CHANNELS = 4
N_PLACES = 12
WIDTH = 8


Unit = tuple[int, ...]
WindowKind = Literal["weighted", "largest", "function", "sum of layers", "tangent"]


class Product(NamedTuple):
    """One line of the calculation: an input unit (place -1 is padding), its value, weight and product."""

    channel: int
    position: Unit
    value: float
    weight: float
    product: float


class Step(NamedTuple):
    """A function of single units after the sum: the layer's name, what it does, and what came out."""

    layer: str
    text: str
    value: float


@dataclass(frozen=True, repr=False)
class Immediate:
    """The calculation that made one activation, from the values in the layer before.

    Attributes:
        layer: Name of the layer whose window it is.
        text: What this layer does.
        source: Names of the layers the values come from; "image" for the image.
        kind: `weighted`: a weighted sum (convolution, linear layer, average pooling, batchnorm); `largest`: a maximum;
            `function`: of one value; `sum of layers`: of outputs at the same place; `tangent`: any other layer, with
            its gradient for weights and what remains for bias, which agree at these values only.
        channel, position: The unit.
        channels: Input channels in the window.
        places: Input places in the window on each axis; -1 for padding.
        values, weights: (channel, *window).
        bias: What is added; 0 if nothing is.
        sum: Output of this layer: products and bias added, as the model computed it.
        steps: Functions that follow, if the layer traced holds some.
    """

    layer: str
    text: str
    source: tuple[str, ...]
    kind: WindowKind
    channel: int
    position: Unit
    channels: tuple[int, ...]
    places: tuple[np.ndarray, ...]
    values: np.ndarray
    weights: np.ndarray
    bias: float
    sum: float
    steps: tuple[Step, ...] = ()

    @property
    def products(self) -> np.ndarray:
        """Values times weights, (channel, *window)."""
        return self.values * self.weights

    @property
    def inside(self) -> np.ndarray:
        """Which places of the window lie inside the map rather than in its padding, (*window) of bool."""
        return inside(self.places)

    @property
    def activation(self) -> float:
        """The number traced: the sum after all steps."""
        return self.steps[-1].value if self.steps else self.sum

    @property
    def winner(self) -> Product | None:
        """For a maximum, the input that it took."""
        return next((row for row in self.rows() if row.weight), None) if self.kind == "largest" else None

    def rows(self) -> list[Product]:
        """The calculation line by line, in order of channel and window."""
        rows = []
        for index in np.ndindex(self.values.shape):
            position = tuple(int(axis[i]) for axis, i in zip(self.places, index[1:], strict=True))
            value, weight = float(self.values[index]), float(self.weights[index])
            rows.append(Product(self.channels[index[0]], position, value, weight, value * weight))
        return rows

    def __repr__(self) -> str:
        return calculation(self)


def calculation(found: Immediate) -> str:
    """The whole calculation: where the window lies, values × weights = products per channel, bias, sum, steps.

    Of many channels the ones with the largest part in the sum are shown, the others as one line.
    """
    lines = [f"{found.layer}: {found.text}", _where(found), ""]
    if found.kind == "sum of layers":
        width = max(map(len, found.source))
        lines += [f"{name:<{width}} {_number(value)}" for name, value in zip(found.source, found.values, strict=True)]
        lines.append(f"{'sum':<{width}} {_number(found.sum)}")
    elif found.kind == "function":
        lines.append(f"{found.text}({_number(found.values.item()).strip()}) = {_number(found.sum).strip()}")
    else:
        lines += _channels(found)
        lines += _total(found)
    lines += [f"→ {step.layer}: {step.text}  {_number(step.value).strip()}" for step in found.steps]
    return "\n".join(lines)


def inside(places: tuple[np.ndarray, ...]) -> np.ndarray:
    """Which places of a window lie inside the map rather than in its padding, (*window) of bool."""
    mask = np.array(True)
    for axis in places:
        mask = mask[..., None] & (axis != OUTSIDE)
    return mask


def _where(found: Immediate) -> str:
    place = f"channel {found.channel}"
    if found.position:
        place += f" at ({', '.join(map(str, found.position))})"
    source = " + ".join(found.source) or "code between the layers"
    if not found.places or found.kind == "sum of layers":
        return f"{place}, from {source}"
    names = ("row", "column") if len(found.places) == 2 else ("place",) * len(found.places)
    spans = ", ".join(_span(name, axis) for name, axis in zip(names, found.places, strict=True))
    return f"{place}, from {source}: {spans}"


def _span(name: str, axis: np.ndarray) -> str:
    inside = axis[axis >= 0]
    outside = f" ({len(axis) - len(inside)} in the padding)" if len(inside) < len(axis) else ""
    if not len(inside):
        return f"no {name}{outside}"
    low, high = inside.min(), inside.max()
    return f"{name} {low}{outside}" if low == high else f"{name}s {low} to {high}{outside}"


def _channels(found: Immediate) -> list[str]:
    sums = found.products.reshape(len(found.channels), -1).sum(1)
    if found.values.ndim == 1:
        return _features(found)
    shown = sorted(np.argsort(-np.abs(sums), kind="stable")[:N_CHANNELS])
    lines = []
    for i in shown:
        tables = [_matrix(part[i], found.inside, name) for part, name in
                  ((found.values, "values"), (found.weights, "weights"), (found.products, "products"))]  # fmt: skip
        signs = (" × ", " = ")
        for row in range(len(tables[0])):
            middle = (len(tables[0]) + 1) // 2 == row
            gaps = [sign if middle else "   " for sign in signs]
            head = f"channel {found.channels[i]:<4} " if row == 0 else " " * 13
            tail = f"   sum {_number(sums[i]).strip()}" if middle and found.kind != "largest" else ""
            line = head + tables[0][row] + gaps[0] + tables[1][row] + gaps[1] + tables[2][row] + tail
            lines.append(line.rstrip())
        lines.append("")
    if len(shown) < len(sums):
        rest = sums.sum() - sums[shown].sum()
        lines.append(f"{len(sums) - len(shown)} more channels, sum {_number(rest).strip()}")
    return lines


def _features(found: Immediate) -> list[str]:
    order = np.sort(np.argsort(-np.abs(found.products), kind="stable")[:N_PLACES])
    lines = []
    for i in order:
        numbers = [_number(float(part[i])) for part in (found.values, found.weights, found.products)]
        lines.append(f"input {found.channels[i]:<6}{numbers[0]} × {numbers[1]} = {numbers[2]}")
    if len(order) < len(found.products):
        rest = found.products.sum() - found.products[order].sum()
        lines.append(f"{len(found.products) - len(order)} more inputs, sum {_number(rest).strip()}")
    return lines


def _total(found: Immediate) -> list[str]:
    if found.kind == "largest":
        winner = found.winner
        assert winner is not None
        return [f"largest {_number(found.sum).strip()}, channel {winner.channel} at {winner.position}"]
    products = float(found.products.sum())
    name = "bias" if found.kind == "weighted" else "rest of the tangent"
    return [
        f"products {_number(products).strip()} + {name} {_number(found.bias).strip()} = {_number(found.sum).strip()}"
    ]


def _matrix(values: np.ndarray, inside: np.ndarray, title: str) -> list[str]:
    rows = np.atleast_2d(values.reshape(-1, values.shape[-1]))
    within = np.broadcast_to(inside, values.shape).reshape(rows.shape)
    columns = min(rows.shape[1], N_PLACES)
    lines = [f"{title:>{columns * WIDTH}}"]
    for row, mask in list(zip(rows, within, strict=True))[:N_PLACES]:
        shown = zip(row[:columns], mask[:columns], strict=True)
        lines.append("".join(_number(v) if m or title == "weights" else f"{'·':>{WIDTH}}" for v, m in shown))
    return lines


def _number(value: float) -> str:
    size = abs(value)
    text = f"{value:.4f}" if size < 100 else f"{value:.2f}" if size < 1e5 else f"{value:.2e}"
    return f"{text:>{WIDTH}}"
