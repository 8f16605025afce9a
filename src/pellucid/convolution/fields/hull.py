"""The pixels that all units of one tensor see, from first to last along each axis, as if no border cut them off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from pellucid.convolution.connectivity.axes import OUTSIDE, Taps
from pellucid.convolution.connectivity.moves import Gather, Move, Permute, same_place


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
        if dim in self.period and not regular:  # without a step from pattern to pattern nothing repeats
            return self.bounded(dim)._gather(dim, taps)
        shape = (*self.shape[:dim], taps.n_out, *self.shape[dim + 1 :])
        jump = dict(self.jump)
        if dim in jump and regular:
            jump[dim] *= Fraction(taps.advance, len(taps.pattern))
        if dim not in self.period:
            low, high = self._read(dim, np.maximum(taps.table, 0), taps.table != OUTSIDE)
            return replace(self, shape=shape, low=low, high=high, jump=jump)
        # After so many patterns the taps stand at the place of the input's period where they began.
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
                # Alike along the dimension, and no unit reads nothing: one entry still stands for all of them. That is
                # what keeps a hull small: of a colour photo, a row and a column of numbers instead of all pixels.
                if values.shape[dim] == 1 and not runs and counts.any(axis=1).all():
                    arrays.append(values)
                    continue
                length, step = self.period.get(dim, (values.shape[dim], 0))
                along = (*counts.shape, *[1] * (values.ndim - dim - 1))
                picked = values.take(places % (1 if values.shape[dim] == 1 else length), axis=dim)
                if runs:  # whole periods further, the field has moved on as many times
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
        kept = {dim: place for dim in self.axis if (place := same_place(self.shape, dim, shape)) is not None}
        hull = self
        for dim in self.period.keys() - kept.keys():
            hull = hull.bounded(dim)

        def change(values: np.ndarray) -> np.ndarray:
            # Dimensions that keep their own place may stay of length one or of a period; only if the field differs
            # along one that is merged or divided, the others have to be written out.
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
        # Branches repeat together where they move as many pixels a unit, whatever their periods; others drift apart.
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


def _less(mapping: dict, key: int) -> dict:
    return {k: v for k, v in mapping.items() if k != key}
