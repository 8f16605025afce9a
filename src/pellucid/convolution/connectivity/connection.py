"""What each unit of one output reads of one input, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
from torch import nn

from pellucid.convolution.connectivity import moves as along
from pellucid.convolution.connectivity.axes import OUTSIDE, Taps, everything, part
from pellucid.convolution.connectivity.moves import Gather, Move, Permute, Reshape, Shape
from pellucid.convolution.connectivity.registry import Input, reads_of, whole
from pellucid.convolution.connectivity.weights import Kernel, Weights

Unit = tuple[int, ...]


@dataclass(frozen=True)
class Connection:
    """Which units of an input each unit of an output reads.

    A unit is one number of a map: (channel, row, column), or fewer or more places than two after the channel. Shapes
    and masks have no batch axis; moves have one of length one.

    Attributes:
        shape_in, shape_out: (channel, *grid).
        reads: Moves from the input to the output; an output that has several reads what any of them reads.
        weights: What becomes of the numbers read; None if that is no simple sum.
    """

    shape_in: Shape
    shape_out: Shape
    reads: tuple[tuple[Move, ...], ...]
    weights: Weights | None = None

    @property
    def is_pointwise(self) -> bool:
        """Whether each unit reads the one unit at its own place."""
        return self.reads == ((),)

    @property
    def is_reshape(self) -> bool:
        """Whether it holds the same numbers in another shape."""
        return len(self.reads) == 1 and len(self.reads[0]) == 1 and isinstance(self.reads[0][0], Reshape)

    def back(self, mask: np.ndarray) -> np.ndarray:
        """Inputs that any of the marked outputs reads: (channel, *grid) of bool."""
        found = [along.back(mask[None], moves) for moves in self.reads]
        return np.broadcast_to(reduce(np.logical_or, found), (1, *self.shape_in))[0]

    def ahead(self, mask: np.ndarray) -> np.ndarray:
        """Outputs that read any of the marked inputs: (channel, *grid) of bool."""
        found = [along.ahead(mask[None], moves) for moves in self.reads]
        return np.broadcast_to(reduce(np.logical_or, found), (1, *self.shape_out))[0]

    def window(self, unit: Unit) -> tuple[np.ndarray, ...]:
        """The units that one unit reads: for each axis of the input a place per tap, `OUTSIDE` where padding is."""
        windows = [along.window(moves, (0, *unit)) for moves in self.reads]
        # A shuffle is many reads, of which one meets each unit; a norm's own place and statistics meet together.
        met = [w for w in windows if w and all((places != OUTSIDE).any() for places in w)] or windows[:1]
        if len(met) == 1 and met[0] and None not in windows:
            return tuple(met[0][1:])
        mask = np.zeros(self.shape_out, bool)
        mask[unit] = True
        return tuple(np.unique(places) for places in np.nonzero(self.back(mask)))

    @cached_property
    def taps(self) -> tuple[Taps, ...] | None:
        """For each axis, channels first, what is read along it; None if it is no window."""
        return self.taps_of(self.reads[0]) if len(self.reads) == 1 else None

    def taps_of(self, moves: Sequence[Move]) -> tuple[Taps, ...] | None:
        """For each axis, channels first, what one of the reads gathers along it; None if it is no window."""
        found = along.gathers(moves, (1, *self.shape_in), (1, *self.shape_out))
        return None if found is None else tuple(found[1:])

    @property
    def grid(self) -> tuple[Taps, ...]:
        """What is read along each axis of the grid, of a connection that is a window."""
        return self.taps[1:] if self.taps else ()

    def exported(self) -> dict[str, Any]:
        """As JSON, for the page."""
        return {
            "in": list(self.shape_in),
            "out": list(self.shape_out),
            "pointwise": self.is_pointwise,
            "reshape": self.is_reshape,
            "reads": [[_exported(move) for move in moves] for moves in self.reads],
        }


def _exported(move: Move) -> dict[str, Any]:
    if isinstance(move, Permute):
        return {"order": [dim - 1 for dim in move.order[1:]]}
    if isinstance(move, Reshape):
        return {"before": list(move.before[1:]), "after": list(move.after[1:])}
    taps = move.taps
    sizes = {"axis": move.dim - 1, "in": taps.n_in, "out": taps.n_out}
    return sizes if taps.is_everything else {**sizes, "table": taps.table.tolist()}


def connection_of(module: nn.Module, shape_in: Shape, shape_out: Shape) -> Connection | None:
    """What a module's output reads of its input, by its rule; None if there is none.

    Args:
        module: Called with one tensor.
        shape_in, shape_out: Of a batch of one, without the batch axis.
    """
    x = Input("input", (1, *shape_in))
    reads, known = reads_of((1, *shape_out), module, [x], {})
    if not known:
        return None
    weights = reads[0].weights  # the reads of one input differ in where they read, not in what becomes of it
    return Connection(shape_in, shape_out, tuple(tuple(_moved(read.moves)) for read in reads), weights)


def is_convolution(module: nn.Module, shape_in: Shape, shape_out: Shape) -> bool:
    """Whether each unit is a weighted sum of a window."""
    found = connection_of(module, shape_in, shape_out)
    return found is not None and isinstance(found.weights, Kernel) and found.weights.weight.ndim > 2


def _moved(moves: tuple[Move, ...]) -> list[Move]:
    # A rule written for whole tensors may gather along the batch axis, which has one place here.
    return [move for move in moves if not (isinstance(move, Gather) and (move.dim == 0 or move.taps.is_identity))]


def pointwise(shape: Shape) -> Connection:
    """Each unit reads the one at its own place."""
    return Connection(shape, shape, ((),))


def inserted(shape_in: Shape, shape_out: Shape, offset: int) -> Connection:
    """The input is a stretch of the output's channels, from `offset` on."""
    return Connection(shape_in, shape_out, ((Gather(1, part(shape_in[0], shape_out[0], -offset)),),))


def reshaped(shape_in: Shape, shape_out: Shape) -> Connection:
    """The same numbers in another shape."""
    return Connection(shape_in, shape_out, ((Reshape((1, *shape_in), (1, *shape_out)),),))


def per_channel(shape_in: Shape, shape_out: Shape) -> Connection:
    """Each unit reads everything in its channel."""
    ones_in, ones_out = (1, shape_in[0], *[1] * (len(shape_in) - 1)), (1, shape_in[0], *[1] * (len(shape_out) - 1))
    gathers = [Gather(dim, everything(n, 1)) for dim, n in enumerate(shape_in[1:], start=2)]
    spread = [Gather(dim, everything(1, n)) for dim, n in enumerate(shape_out[1:], start=2)]
    return Connection(shape_in, shape_out, ((*gathers, Reshape(ones_in, ones_out), *spread),))


def all_to_all(shape_in: Shape, shape_out: Shape) -> Connection:
    """Each unit reads everything."""
    (read,) = whole((1, *shape_out), Input("input", (1, *shape_in)))
    return Connection(shape_in, shape_out, (tuple(_moved(read.moves)),))
