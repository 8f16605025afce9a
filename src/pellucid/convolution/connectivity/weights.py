"""What an operation makes of the numbers it reads: a weighted sum, a mean, the largest, a function of one.

An operation without any of these, such as a softmax, is known only by its gradient at the numbers that it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from pellucid.convolution.connectivity.axes import Taps

Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A weighted sum of the window, and a bias: convolutions and linear layers.

    Attributes:
        weight: As the layer has it.
        bias: One number for each output feature, or None.
        groups: Into how many groups of channels that do not see one another it is divided.
        transposed: Whether `weight` has the input's channels first.
        dim: The dimension of the output that counts its features.
    """

    weight: Tensor
    bias: Tensor | None = None
    groups: int = 1
    transposed: bool = False
    dim: int = 1

    def arranged(self, values: Array) -> Array:
        """Numbers in the shape of `weight` as (output feature, input feature of its group, *tap)."""
        if not self.transposed:
            return values
        first, second, *taps = values.shape  # torch: (in, out of each group, *tap)
        grouped = values.reshape(self.groups, first // self.groups, second, *taps)
        return grouped.swapaxes(1, 2).reshape(self.groups * second, first // self.groups, *taps)

    def of_feature(self, feature: int) -> Tensor:
        """The weights of one output feature: (input feature of its group, *tap)."""
        return self.arranged(self.weight.detach())[feature]


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of the window.

    Attributes:
        counted: Places of zero padding on either side of each axis of the grid that count as part of a window.
        divisor: What the sum is divided by in place of the number of places.
    """

    counted: tuple[int, ...] = ()
    divisor: int | None = None

    def n_counted(self, taps: Taps, axis: int) -> np.ndarray:
        """How many taps of each output place count, along one axis of the grid."""
        if taps.is_everything:
            return np.full(taps.n_out, taps.n_in)
        # In ceil mode the last window may stick out beyond the padding; what lies there is never counted.
        read, meets = taps.boundless(np.arange(taps.n_out))
        counted = self.counted[axis] if self.counted else 0
        return (meets & (read >= -counted) & (read < taps.n_in + counted)).sum(1)

    def shares(self, grid: Sequence[Taps]) -> np.ndarray:
        """The weight of each input in a window: one number for each output position."""
        if self.divisor:
            return np.full([taps.n_out for taps in grid], 1 / self.divisor)
        counts = [self.n_counted(taps, axis) for axis, taps in enumerate(grid)]
        return 1 / np.prod(np.array(np.meshgrid(*counts, indexing="ij")), axis=0)


@dataclass(frozen=True)
class Largest:
    """The largest number of the window; padding never wins."""


@dataclass(frozen=True)
class Copy:
    """The one number that is read, as it is; zero where nothing is read."""


@dataclass(frozen=True)
class Function:
    """A function of the one number that is read.

    Attributes:
        details: As people write it.
        formula: As a spreadsheet has it, with {x} for the number; empty if it has none.
    """

    details: str = ""
    formula: str = ""


@dataclass(frozen=True, eq=False)
class Standardized:
    """(x − mean)/√(var + ε)·γ + β, channel by channel.

    Attributes:
        eps: ε.
        weight, bias: γ and β for each channel, or None.
        mean, var: Running statistics of each channel; None where they are taken over the window.
        groups: Groups of channels with common statistics.
    """

    eps: float
    weight: Tensor | None = None
    bias: Tensor | None = None
    mean: Tensor | None = None
    var: Tensor | None = None
    groups: int | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether each number is scaled and shifted on its own."""
        return self.mean is not None

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What each channel is multiplied by and what is added to it, with fixed statistics, in float64."""
        mean, var = _known(self.mean), _known(self.var)
        scale = (var + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * _known(self.weight)
        shift = -mean * scale
        return scale, shift if self.bias is None else shift + _known(self.bias)


Weights = Kernel | Mean | Largest | Copy | Function | Standardized


def _known(values: Any) -> Tensor:
    return values.detach().double()
