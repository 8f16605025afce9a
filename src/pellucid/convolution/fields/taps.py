"""Which places of its input each place of an operation's output reads, along one axis and over a whole path."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Taps:
    """The places read along one axis.

    Output place u reads `pattern[u % len(pattern)]`, moved by `advance` for each whole pattern before it; what falls
    outside the input is padding. Without a pattern every place reads every place, unless a `table` says otherwise.

    Attributes:
        n_in, n_out: Lengths of the axis.
        pattern: Places read by the first output places, as if the input had no border.
        advance: Input places from one pattern to the next.
        table: One input place for each output place, −1 for none, where the border mirrors or wraps.
    """

    n_in: int
    n_out: int
    pattern: tuple[tuple[int, ...], ...] = ()
    advance: int = 0
    table: tuple[int, ...] | None = None

    @property
    def is_everything(self) -> bool:
        """Whether every place reads every place."""
        return not self.pattern and self.table is None

    @property
    def is_identity(self) -> bool:
        """Whether every place reads its own."""
        return self.pattern == ((0,),) and self.advance == 1 and self.n_in == self.n_out and self.table is None

    def boundless(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `places` read in an input without border: places [place, tap] and which of them count, alike."""
        width = max(map(len, self.pattern))
        padded = np.array([[*row, *[0] * (width - len(row))] for row in self.pattern], np.int64)
        counts = np.array([[True] * len(row) + [False] * (width - len(row)) for row in self.pattern])
        phase, turn = places % len(self.pattern), places // len(self.pattern)
        return padded.reshape(len(self.pattern), width)[phase] + self.advance * turn[:, None], counts[phase]

    @cached_property
    def inside(self) -> tuple[np.ndarray, np.ndarray]:
        """What every output place reads inside the input: places [place, tap], zero where the second is False."""
        if self.table is not None:
            read = np.array(self.table)[:, None]
            counts = read >= 0
        else:
            read, counts = self.boundless(np.arange(self.n_out))
            counts = counts & (read >= 0) & (read < self.n_in)
        return np.where(counts, read, 0), counts

    @cached_property
    def matrix(self) -> np.ndarray:
        """True where an output place reads an input place, [output, input]."""
        matrix = np.zeros((self.n_out, self.n_in), bool)
        read, counts = self.inside
        matrix[np.nonzero(counts)[0], read[counts]] = True
        return matrix


def everything(n_in: int, n_out: int) -> Taps:
    """Every output place reads every input place."""
    return Taps(n_in, n_out)


def window(n_in: int, n_out: int, size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Taps:
    """A window of `size` places, `dilation` apart, that moves by `stride`; the first starts at −`padding`."""
    return Taps(n_in, n_out, (tuple(-padding + dilation * k for k in range(size)),), stride)


def transposed(n_in: int, n_out: int, size: int, stride: int, padding: int, dilation: int) -> Taps:
    """A transposed window: output u reads input i wherever u = stride · i − padding + dilation · k for a k < size."""
    starts = [[u + padding - dilation * k for k in range(size)] for u in range(stride)]
    return Taps(n_in, n_out, tuple(tuple(s // stride for s in row if s % stride == 0) for row in starts), 1)


def part(n_in: int, n_out: int, start: int, stride: int = 1) -> Taps:
    """Output place u is input place start + stride · u: slices; negative starts place an input behind others."""
    return Taps(n_in, n_out, ((start,),), stride)


def rescaled(n_in: int, n_out: int, ratio: Fraction, offset: Fraction, reach: tuple[int, int] | None) -> Taps:
    """Interpolation at ratio · (u + offset) − offset.

    Args:
        n_in, n_out: Lengths of the axis.
        ratio: Input places per output place.
        offset: One half where places are squares, zero where they are points.
        reach: First and last neighbour read, counted from the place below; None takes the place that holds the point.
    """
    rows = []
    for u in range(ratio.denominator):
        if reach is None:
            rows.append((math.floor(ratio * (u + offset)),))
        else:
            at = ratio * (u + offset) - offset
            below = math.floor(at)
            rows.append((below,) if at == below else tuple(range(below + reach[0], below + reach[1] + 1)))
    return Taps(n_in, n_out, tuple(rows), ratio.numerator)


def adaptive(n_in: int, n_out: int) -> Taps:
    """Adaptive pooling: output u reads from ⌊u · n_in / n_out⌋ up to ⌈(u + 1) · n_in / n_out⌉."""
    if n_out == 1:
        return everything(n_in, 1)
    ratio = Fraction(n_in, n_out)
    rows = [range(math.floor(u * ratio), math.ceil((u + 1) * ratio)) for u in range(ratio.denominator)]
    return Taps(n_in, n_out, tuple(map(tuple, rows)), ratio.numerator)


@dataclass(frozen=True)
class Gather:
    """Along one dimension, each output place reads some input places."""

    dim: int
    taps: Taps


@dataclass(frozen=True)
class Permute:
    """Output dimension d is input dimension order[d]."""

    order: tuple[int, ...]


@dataclass(frozen=True)
class Reshape:
    """The same places in another shape."""

    before: tuple[int, ...]
    after: tuple[int, ...]


Move = Gather | Permute | Reshape


@dataclass(frozen=True)
class Hull:
    """The field of every unit of one tensor: first and last pixel along each axis of the image.

    A dimension in `period` goes on without border: the array holds one period, and a period further the field has
    moved by so many pixels. Dimensions that a field does not depend on have length one.

    Attributes:
        shape: Of the tensor.
        low, high: First and last pixel, one array for each image axis; inf and −inf where a unit sees no pixel.
        axis: Image axis of each dimension that runs along one.
        jump: Pixels from one unit to the next along such a dimension.
        period: Length of a period and pixels it moves on, by dimension.
    """

    shape: tuple[int, ...]
    low: tuple[np.ndarray, ...]
    high: tuple[np.ndarray, ...]
    axis: dict[int, int]
    jump: dict[int, Fraction]
    period: dict[int, tuple[int, int]]

    @classmethod
    def of_image(cls, shape: Sequence[int], boundless: bool) -> Hull:
        """The image itself, shape (1, channel, axis …): every pixel sees itself; `boundless` leaves out the border."""
        dims = range(2, len(shape))
        places = []
        for dim in dims:
            along = [1] * len(shape)
            along[dim] = 1 if boundless else shape[dim]
            places.append(np.arange(along[dim], dtype=float).reshape(along))
        return cls(
            tuple(shape), tuple(places), tuple(places), {dim: dim - 2 for dim in dims},
            {dim: Fraction(1) for dim in dims}, dict.fromkeys(dims, (1, 1)) if boundless else {},
        )  # fmt: skip

    def along(self, moves: Iterable[Move]) -> Hull:
        """The fields of an operation's output, given those of its input."""
        hull = self
        for move in moves:
            if isinstance(move, Gather):
                hull = hull._gather(move.dim, move.taps)
            elif isinstance(move, Permute):
                hull = hull._permute(move.order)
            else:
                hull = hull._reshape(move.after)
        return hull

    def _gather(self, dim: int, taps: Taps) -> Hull:
        if taps.is_identity:
            return self
        if taps.is_everything:
            return self.bounded(dim)._everything(dim, taps.n_out)
        regular = bool(taps.pattern) and taps.advance != 0
        if dim in self.period and not regular:
            return self.bounded(dim)._gather(dim, taps)
        shape = (*self.shape[:dim], taps.n_out, *self.shape[dim + 1 :])
        jump = dict(self.jump)
        if dim in jump and regular:
            jump[dim] *= Fraction(taps.advance, len(taps.pattern))
        if dim not in self.period:
            low, high = self._read(dim, *taps.inside)
            return replace(self, shape=shape, low=low, high=high, jump=jump)
        length, step = self.period[dim]
        patterns = length // math.gcd(length, taps.advance)
        low, high = self._read(dim, *taps.boundless(np.arange(patterns * len(taps.pattern))))
        moved = patterns * len(taps.pattern), step * (patterns * taps.advance) // length
        return replace(self, shape=shape, low=low, high=high, jump=jump, period={**self.period, dim: moved})

    def _everything(self, dim: int, n_out: int) -> Hull:
        shape = (*self.shape[:dim], n_out, *self.shape[dim + 1 :])
        low = tuple(values.min(axis=dim, keepdims=True) for values in self.low)
        high = tuple(values.max(axis=dim, keepdims=True) for values in self.high)
        return replace(self, shape=shape, low=low, high=high, jump=_less(self.jump, dim))

    def _read(self, dim: int, places: np.ndarray, counts: np.ndarray) -> tuple[tuple[np.ndarray, ...], ...]:
        """Smallest low and largest high over the taps [place, tap] of each place."""
        found: list[tuple[np.ndarray, ...]] = []
        for bounds, empty, least in ((self.low, np.inf, np.min), (self.high, -np.inf, np.max)):
            arrays = []
            for image_axis, values in enumerate(bounds):
                runs = dim in self.period and self.axis.get(dim) == image_axis
                if values.shape[dim] == 1 and not runs and counts.any(axis=1).all():
                    arrays.append(values)
                    continue
                length, step = self.period.get(dim, (values.shape[dim], 0))
                along = (*counts.shape, *[1] * (values.ndim - dim - 1))
                picked = values.take(places % (1 if values.shape[dim] == 1 else length), axis=dim)
                if runs:
                    picked = picked + (step * (places // length)).reshape(along)
                arrays.append(least(np.where(counts.reshape(along), picked, empty), axis=dim + 1))
            found.append(tuple(arrays))
        return tuple(found)

    def bounded(self, dim: int) -> Hull:
        """The same units with as many places along `dim` as the tensor has, no longer going on."""
        if dim not in self.period:
            return self
        places = np.arange(self.shape[dim])[:, None]
        low, high = self._read(dim, places, np.ones_like(places, bool))
        return replace(self, low=low, high=high, period=_less(self.period, dim))

    def _permute(self, order: tuple[int, ...]) -> Hull:
        new = {old: dim for dim, old in enumerate(order)}
        return Hull(
            tuple(self.shape[old] for old in order),
            tuple(values.transpose(order) for values in self.low),
            tuple(values.transpose(order) for values in self.high),
            {new[dim]: value for dim, value in self.axis.items()},
            {new[dim]: value for dim, value in self.jump.items()},
            {new[dim]: value for dim, value in self.period.items()},
        )

    def _reshape(self, shape: tuple[int, ...]) -> Hull:
        kept = {dim: place for dim in self.axis if (place := _same_place(self.shape, dim, shape)) is not None}
        hull = self
        for dim in self.period.keys() - kept.keys():
            hull = hull.bounded(dim)

        def change(values: np.ndarray) -> np.ndarray:
            if all(n == 1 for dim, n in enumerate(values.shape) if dim not in kept):
                after = [1] * len(shape)
            else:
                full = [values.shape[dim] if dim in kept else n for dim, n in enumerate(self.shape)]
                values, after = np.broadcast_to(values, full), list(shape)
            for dim, place in kept.items():
                after[place] = values.shape[dim]
            return values.reshape(after)

        return Hull(
            shape, tuple(map(change, hull.low)), tuple(map(change, hull.high)),
            {kept[dim]: value for dim, value in hull.axis.items() if dim in kept},
            {kept[dim]: value for dim, value in hull.jump.items() if dim in kept},
            {kept[dim]: value for dim, value in hull.period.items()},
        )  # fmt: skip

    def stretched(self, dim: int, length: int) -> Hull:
        """The same units with a period of `length`, a multiple of the one before."""
        old, step = self.period[dim]
        places = np.arange(length)[:, None]
        low, high = self._read(dim, places, np.ones_like(places, bool))
        return replace(self, low=low, high=high, period={**self.period, dim: (length, step * length // old)})


def union(hulls: Sequence[Hull]) -> Hull:
    """The fields of units that read through several branches of one output shape."""
    hulls = list(hulls)
    for dim in {dim for hull in hulls for dim in hull.period}:
        if len({Fraction(*reversed(hull.period.get(dim, (1, 0)))) for hull in hulls}) == 1:
            length = math.lcm(*(hull.period[dim][0] for hull in hulls))
            hulls = [hull.stretched(dim, length) for hull in hulls]
        else:
            hulls = [hull.bounded(dim) for hull in hulls]
    low, high = hulls[0].low, hulls[0].high
    axis, jump = dict(hulls[0].axis), dict(hulls[0].jump)
    for hull in hulls[1:]:
        low = tuple(np.minimum(one, other) for one, other in zip(low, hull.low, strict=True))
        high = tuple(np.maximum(one, other) for one, other in zip(high, hull.high, strict=True))
        axis |= hull.axis
        jump = {dim: n for dim, n in (hull.jump | jump).items() if hull.jump.get(dim, n) == jump.get(dim, n)}
    return Hull(hulls[0].shape, low, high, axis, jump, dict(hulls[0].period))


def read_by(mask: np.ndarray, moves: Sequence[Move]) -> np.ndarray:
    """Which places of an operation's input are read by the places of its output in `mask`.

    Both masks are boolean and broadcast to the tensors' shapes.
    """
    for move in reversed(moves):
        if isinstance(move, Permute):
            mask = mask.transpose(np.argsort(move.order))
        elif isinstance(move, Reshape):
            one = mask.size == 1
            mask = mask.reshape([1] * len(move.before)) if one else np.broadcast_to(mask, move.after)
            mask = mask if one else mask.reshape(move.before)
        elif move.taps.is_everything:
            mask = np.asarray(mask.any(axis=move.dim, keepdims=True))
        elif not move.taps.is_identity:
            mask = _read_along(mask, move.dim, move.taps)
    return mask


def _read_along(mask: np.ndarray, dim: int, taps: Taps) -> np.ndarray:
    read, counts = taps.inside
    if mask.shape[dim] == 1:
        covered = np.zeros(taps.n_in, bool)
        covered[read[counts]] = True
        return mask if covered.all() else mask & covered.reshape([-1 if d == dim else 1 for d in range(mask.ndim)])
    last = np.moveaxis(mask, dim, -1)
    places = read[counts]
    if counts.shape[1] == 1 and len(np.unique(places)) == len(places):  # slices and concatenations
        found = np.zeros((*last.shape[:-1], taps.n_in), bool)
        found[..., places] = last[..., counts[:, 0]]
    else:  # float32 products of zeros and ones are exact and run in BLAS
        found = last.astype(np.float32) @ taps.matrix.astype(np.float32) > 0
    return np.moveaxis(found, -1, dim)


def _same_place(before: tuple[int, ...], dim: int, after: tuple[int, ...]) -> int | None:
    """Where dimension `dim` is found after a reshape that leaves it whole."""
    outer = math.prod(before[:dim])
    if before[dim] == 1:  # any 1 looks like it: take the one with the same dimensions behind it
        place = len(after) - len(before) + dim
        return place if place > 0 and before[dim:] == after[place:] and math.prod(after[:place]) == outer else None
    for place, n in enumerate(after):
        if n == before[dim] and math.prod(after[:place]) == outer:
            return place
    return None


def _less(mapping: dict, key: int) -> dict:
    return {k: v for k, v in mapping.items() if k != key}
