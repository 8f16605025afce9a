"""Which places of its input each place of an output reads, along one axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np

Border = Literal["zeros", "reflect", "replicate", "circular"]
OUTSIDE = -1
# Where padding finds its values, by place and length of the axis; PyTorch allows less than a whole length of padding.
FOLDS: dict[str, Callable[[Any, int], Any]] = {
    "reflect": lambda place, n: n - 1 - abs(n - 1 - abs(place)),
    "replicate": lambda place, n: np.clip(place, 0, n - 1),
    "circular": lambda place, n: place % n,
}


@dataclass(frozen=True)
class Taps:
    """The places read along one axis.

    Output place u reads `pattern[u % len(pattern)]`, moved by `advance` for each whole pattern before it. Without a
    pattern every place reads every place. A pattern needs no list of all places, so that a field can be followed
    beyond the border of the image.

    Attributes:
        n_in, n_out: Lengths of the axis.
        pattern: Places read by the first output places, as if the input had no border; None keeps the place of a tap
            that meets nothing, as most taps of a transposed convolution with a stride.
        advance: Input places from one pattern to the next.
        border: What is found outside the input: zeros, or values from inside.
    """

    n_in: int
    n_out: int
    pattern: tuple[tuple[int | None, ...], ...] = ()
    advance: int = 0
    border: Border = "zeros"

    @property
    def is_everything(self) -> bool:
        """Whether every place reads every place."""
        return not self.pattern

    @property
    def is_identity(self) -> bool:
        """Whether every place reads its own."""
        return self.pattern == ((0,),) and self.advance == 1 and self.n_in == self.n_out

    def boundless(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `places` read in an input without border: places [place, tap] and which taps meet one, alike."""
        width = max(map(len, self.pattern))
        rows = [[*row, *[None] * (width - len(row))] for row in self.pattern]
        read = np.array([[tap or 0 for tap in row] for row in rows], np.int64).reshape(len(rows), width)
        meets = np.array([[tap is not None for tap in row] for row in rows], bool).reshape(len(rows), width)
        phase, turn = places % len(rows), places // len(rows)
        return read[phase] + self.advance * turn[:, None], meets[phase]

    def inside(self, read: np.ndarray) -> np.ndarray:
        """Places inside the input for places of an input without border; `OUTSIDE` where padding is zero."""
        if self.border != "zeros":
            return FOLDS[self.border](read, self.n_in)
        return np.where((read >= 0) & (read < self.n_in), read, OUTSIDE)

    def read_by(self, places: np.ndarray) -> np.ndarray:
        """The input place that each tap of these output places meets, [place, tap]; `OUTSIDE` where it meets none."""
        if self.is_everything:
            return np.broadcast_to(np.arange(self.n_in), (len(places), self.n_in))
        read, meets = self.boundless(places)
        return np.where(meets, self.inside(read), OUTSIDE)

    @cached_property
    def table(self) -> np.ndarray:
        """What every output place reads, [output, tap]."""
        return self.read_by(np.arange(self.n_out))

    @cached_property
    def matrix(self) -> np.ndarray:
        """True where an output place reads an input place, [output, input]."""
        matrix = np.zeros((self.n_out, self.n_in), bool)
        outputs, taps = np.nonzero(self.table != OUTSIDE)
        matrix[outputs, self.table[outputs, taps]] = True
        return matrix


def everything(n_in: int, n_out: int) -> Taps:
    """Every output place reads every input place."""
    return Taps(n_in, n_out)


def groups(n_in: int, n_out: int, n_groups: int) -> Taps:
    """Every place reads every place of its own group."""
    if n_groups == 1:
        return everything(n_in, n_out)
    width = n_in // n_groups
    return Taps(n_in, n_out, (tuple(range(width)),) * (n_out // n_groups), width)


def window(
    n_in: int, n_out: int, size: int, stride: int = 1, before: int = 0, dilation: int = 1, border: Border = "zeros"
) -> Taps:
    """A window of `size` places, `dilation` apart, that moves by `stride`; the first starts `before` the input."""
    return Taps(n_in, n_out, (tuple(dilation * k - before for k in range(size)),), stride, border)


def transposed(n_in: int, n_out: int, size: int, stride: int, padding: int, dilation: int) -> Taps:
    """A transposed window: output u reads input i wherever u = stride · i − padding + dilation · k for a k < size."""
    at = [[u + padding - dilation * k for k in range(size)] for u in range(stride)]
    return Taps(n_in, n_out, tuple(tuple(s // stride if s % stride == 0 else None for s in row) for row in at), 1)


def part(n_in: int, n_out: int, start: int, stride: int = 1, border: Border = "zeros") -> Taps:
    """Output place u is input place start + stride · u: slices; negative starts place an input after others."""
    return Taps(n_in, n_out, ((start,),), stride, border)


def shuffled(places: Sequence[int]) -> Taps:
    """Output place u is input place `places[u]`."""
    return Taps(len(places), len(places), tuple((place,) for place in places))


def every_nth(n_in: int, n_out: int, n: int, phase: int) -> Taps:
    """Output places `phase`, `phase` + n, … are the input's in turn; the others read nothing."""
    return Taps(n_in, n_out, tuple((0 if u == phase else None,) for u in range(n)), 1)


def rescaled(n_in: int, n_out: int, ratio: Fraction, offset: Fraction, neighbours: tuple[int, int] | None) -> Taps:
    """Interpolation at ratio · (u + offset) − offset.

    Args:
        n_in, n_out: Lengths of the axis.
        ratio: Input places per output place.
        offset: One half where places are squares, zero where they are points.
        neighbours: First and last neighbour read, counted from the place below; None takes the place that holds the
            point.
    """
    rows = []
    for u in range(ratio.denominator):
        if neighbours is None:
            rows.append((math.floor(ratio * (u + offset)),))
        else:
            at = ratio * (u + offset) - offset
            below = math.floor(at)
            rows.append((below,) if at == below else tuple(range(below + neighbours[0], below + neighbours[1] + 1)))
    return Taps(n_in, n_out, tuple(rows), ratio.numerator)


def adaptive(n_in: int, n_out: int) -> Taps:
    """Adaptive pooling: output u reads from ⌊u · n_in / n_out⌋ up to ⌈(u + 1) · n_in / n_out⌉."""
    if n_out == 1:
        return everything(n_in, 1)
    ratio = Fraction(n_in, n_out)
    rows = [range(math.floor(u * ratio), math.ceil((u + 1) * ratio)) for u in range(ratio.denominator)]
    return Taps(n_in, n_out, tuple(map(tuple, rows)), ratio.numerator)
