"""From an input to an output in moves: places gathered along axes, axes in another order, another shape.

Masks are boolean, batch axis of one first, and broadcast to the shapes of the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pellucid.convolution.connectivity.axes import OUTSIDE, Taps, part

Shape = tuple[int, ...]


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

    before: Shape
    after: Shape


Move = Gather | Permute | Reshape


def back(mask: np.ndarray, moves: Sequence[Move]) -> np.ndarray:
    """Which places of the input are read by the places of the output in `mask`."""
    for move in reversed(moves):
        if isinstance(move, Permute):
            mask = mask.transpose(np.argsort(move.order))
        elif isinstance(move, Reshape):
            mask = _reshaped(mask, move.after, move.before)
        elif move.taps.is_everything:  # the axis keeps a length of one: what is alike along it is held once
            mask = np.asarray(mask.any(axis=move.dim, keepdims=True))
        elif not move.taps.is_identity:
            mask = _along(mask, move.dim, move.taps.matrix)
    return mask


def ahead(mask: np.ndarray, moves: Sequence[Move]) -> np.ndarray:
    """Which places of the output read the places of the input in `mask`."""
    for move in moves:
        if isinstance(move, Permute):
            mask = mask.transpose(move.order)
        elif isinstance(move, Reshape):
            mask = _reshaped(mask, move.before, move.after)
        elif move.taps.is_everything:
            mask = np.asarray(mask.any(axis=move.dim, keepdims=True))
        elif not move.taps.is_identity:
            mask = _along(mask, move.dim, move.taps.matrix.T)
    return mask


def window(moves: Sequence[Move], unit: Sequence[int]) -> list[np.ndarray] | None:
    """The places of the input that one place of the output reads: for each axis a place per tap, `OUTSIDE` for none.

    None where they are no window: where a shape changes between several places.
    """
    places = [np.array([place]) for place in unit]
    for move in reversed(moves):
        if isinstance(move, Permute):
            places = [places[dim] for dim in np.argsort(move.order)]
        elif isinstance(move, Reshape):
            if any(len(along) != 1 for along in places):
                return None
            at = [int(along[0]) for along in places]
            if OUTSIDE in at:
                return [np.array([OUTSIDE])] * len(move.before)
            at = np.unravel_index(np.ravel_multi_index(at, move.after), move.before)
            places = [np.array([int(place)]) for place in at]
        else:
            outer = places[move.dim]
            places[move.dim] = np.where((outer == OUTSIDE)[:, None], OUTSIDE, move.taps.read_by(outer)).ravel()
    return places


def gathers(moves: Sequence[Move], before: Shape, after: Shape) -> list[Taps] | None:
    """For each dimension what is gathered along it, at least its own place; None where there are other moves."""
    found: dict[int, Taps] = {}
    for move in moves:
        if not isinstance(move, Gather) or move.dim in found:
            return None
        if not move.taps.is_identity:
            found[move.dim] = move.taps
    if len(before) != len(after):
        return None
    return [found.get(dim, part(*sizes, 0)) for dim, sizes in enumerate(zip(before, after, strict=True))]


def _reshaped(mask: np.ndarray, before: Shape, after: Shape) -> np.ndarray:
    if mask.size == 1:  # all alike, and it may stay so small
        return mask.reshape([1] * len(after))
    return np.broadcast_to(mask, before).reshape(after)


def _along(mask: np.ndarray, dim: int, matrix: np.ndarray) -> np.ndarray:
    """Marks along one dimension from [from, to]; a mask that is the same all along stays so if everything is met."""
    if mask.shape[dim] == 1 and len(matrix) > 1:
        met = matrix.any(axis=0)
        return mask if met.all() else mask & met.reshape([-1 if d == dim else 1 for d in range(mask.ndim)])
    last = mask.swapaxes(dim, -1)
    # Most masks are a window: only the places that it has, and those that they meet, are looked at.
    marked = np.flatnonzero(last.any(axis=tuple(range(last.ndim - 1))))
    rows = matrix[marked]
    met = np.flatnonzero(rows.any(axis=0))
    found = np.zeros((*last.shape[:-1], matrix.shape[1]), bool)
    # float32 products of zeros and ones are exact up to 2²⁴ and run in BLAS.
    found[..., met] = last[..., marked].astype(np.float32) @ rows[:, met].astype(np.float32) > 0
    return found.swapaxes(-1, dim)


def same_place(before: Shape, dim: int, after: Shape) -> int | None:
    """Where dimension `dim` is found after a reshape that leaves it whole."""
    outer = math.prod(before[:dim])
    if before[dim] == 1:  # any 1 looks like it: take the one with the same dimensions after it
        place = len(after) - len(before) + dim
        return place if place > 0 and before[dim:] == after[place:] and math.prod(after[:place]) == outer else None
    for place, n in enumerate(after):
        if n == before[dim] and math.prod(after[:place]) == outer:
            return place
    return None
