"""Rules of operations that only move numbers: shapes, slices, joins, padding, shuffles."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from pellucid.convolution.connectivity.axes import FOLDS, every_nth, part, shuffled
from pellucid.convolution.connectivity.moves import Gather, Move, Permute, Reshape, Shape
from pellucid.convolution.connectivity.registry import Input, Read, rule, whole
from pellucid.convolution.connectivity.values import repeated
from pellucid.convolution.connectivity.weights import Copy


def _copied(x: Input, *moves: Move) -> list[Read]:
    return [Read(x, moves, Copy())]


@rule("expand expand_as broadcast_to")
def expand(out: Shape, x: Input, *_: Any, **__: Any) -> list[Read]:
    """A tensor repeated along axes of length one."""
    return _copied(x, *repeated(x.shape, out))


@rule("flatten reshape reshape_as squeeze unflatten unsqueeze view view_as Flatten Unflatten")
def same_values(out: Shape, x: Input, *_: Any, **__: Any) -> list[Read]:
    """The same values in another shape."""
    return _copied(x) if x.shape == out else _copied(x, Reshape(x.shape, out))


@rule("permute")
def permute(out: Shape, x: Input, *dims: Any, **kwargs: Any) -> list[Read]:
    """Axes in another order."""
    order = kwargs.get("dims", dims[0] if len(dims) == 1 else dims)
    return _copied(x, Permute(tuple(d % len(out) for d in order)))


@rule("transpose swapaxes swapdims")
def transpose(out: Shape, x: Input, dim0: int, dim1: int) -> list[Read]:
    """Two axes swapped."""
    order = list(range(len(out)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _copied(x, Permute(tuple(d % len(out) for d in order)))


@rule("cat concat concatenate")
def cat(out: Shape, tensors: Sequence[Input], dim: int = 0, *_: Any, **kwargs: Any) -> list[Read]:
    """Each tensor's places, one tensor after the other."""
    dim, start, reads = kwargs.get("axis", dim) % len(out), 0, []
    for x in tensors:
        reads += _copied(x, Gather(dim, part(x.shape[dim], out[dim], -start)))
        start += x.shape[dim]
    return reads


@rule("stack")
def stack(out: Shape, tensors: Sequence[Input], dim: int = 0) -> list[Read]:
    """Each tensor's places along a new axis."""
    dim %= len(out)
    one = (*out[:dim], 1, *out[dim + 1 :])
    moves = [(Reshape(x.shape, one), Gather(dim, part(1, len(tensors), -i))) for i, x in enumerate(tensors)]
    return [Read(x, found, Copy()) for x, found in zip(tensors, moves, strict=True)]


@rule("chunk split tensor_split unsafe_chunk unsafe_split")
def split(out: list[Shape], x: Input, sections: Any = None, dim: int = 0, **_: Any) -> list[list[Read]]:
    """Pieces along one axis."""
    dim, start, pieces = dim % len(x.shape), 0, []
    for shape in out:
        pieces.append(_copied(x, Gather(dim, part(x.shape[dim], shape[dim], start))))
        start += shape[dim]
    return pieces


@rule("unbind")
def unbind(out: list[Shape], x: Input, dim: int = 0) -> list[list[Read]]:
    """Slices along one axis, which goes."""
    return [select(shape, x, dim, place) for place, shape in enumerate(out)]


@rule("select")
def select(out: Shape, x: Input, dim: int, index: int) -> list[Read]:
    """One slice along an axis, which goes."""
    dim %= len(x.shape)
    one = (*x.shape[:dim], 1, *x.shape[dim + 1 :])
    return _copied(x, Gather(dim, part(x.shape[dim], 1, index % x.shape[dim])), Reshape(one, out))


@rule("narrow")
def narrow(out: Shape, x: Input, dim: int, start: int, length: int) -> list[Read]:
    """A stretch of one axis."""
    dim %= len(out)
    return _copied(x, Gather(dim, part(x.shape[dim], length, start % x.shape[dim])))


@rule("getitem")
def getitem(out: Shape, x: Input, index: Any) -> list[Read]:
    """Slices, single places and new axes; anything else reads everything."""
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(item is None or item is Ellipsis or isinstance(item, int | slice) for item in items):
        return whole(out, x)
    missing = len(x.shape) - sum(item is not None and item is not Ellipsis for item in items)
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    items[at : at + 1] = [slice(None)] * missing
    moves: list[Move] = []
    shape: list[int] = []
    for item in (item for item in items if item is not None):
        dim, n = len(shape), x.shape[len(shape)]
        places = range(n)[item] if isinstance(item, slice) else range(item % n, item % n + 1)
        moves.append(Gather(dim, part(n, len(places), places.start, places.step)))
        shape.append(len(places))
    return _copied(x, *moves, Reshape(tuple(shape), out))


@rule("pad")
def pad(out: Shape, x: Input, pad: Any, mode: str = "constant", value: Any = None) -> list[Read]:
    """Places around, empty or filled from inside; the first pair is for the last axis, and negative numbers crop."""
    dims = range(len(out) - 1, -1, -1)
    border: Any = mode if mode in FOLDS else "zeros"
    borders = [
        Gather(dim, part(x.shape[dim], out[dim], -before, border=border))
        for dim, before in zip(dims, pad[::2], strict=False)
    ]
    return [Read(x, tuple(borders), Copy() if not value else None)]


@rule("ZeroPad? ConstantPad?")
def constant_padding(out: Shape, x: Input, padding: Any, value: float = 0) -> list[Read]:
    """Empty places around."""
    return pad(out, x, padding, value=value)


@rule("ReflectionPad?")
def reflection_padding(out: Shape, x: Input, padding: Any) -> list[Read]:
    """Mirrored places around."""
    return pad(out, x, padding, "reflect")


@rule("ReplicationPad?")
def replication_padding(out: Shape, x: Input, padding: Any) -> list[Read]:
    """The border's places around."""
    return pad(out, x, padding, "replicate")


@rule("CircularPad?")
def circular_padding(out: Shape, x: Input, padding: Any) -> list[Read]:
    """Places of the other end around."""
    return pad(out, x, padding, "circular")


@rule("flip")
def flip(out: Shape, x: Input, *dims: Any) -> list[Read]:
    """Some axes backwards."""
    flat = dims[0] if isinstance(dims[0], list | tuple) else dims
    return _copied(x, *(Gather(d % len(out), part(out[d], out[d], out[d] - 1, -1)) for d in flat))


@rule("pixel_shuffle PixelShuffle")
def pixel_shuffle(out: Shape, x: Input, upscale_factor: int) -> list[Read]:
    """Blocks of channels laid out as blocks of pixels."""
    # Channel c·r² + row·r + column becomes pixel (row, column) of each block of channel c: a read for each of the r².
    r = upscale_factor
    reads = []
    for row, column in product(range(r), repeat=2):
        grid = [Gather(d, every_nth(x.shape[d], out[d], r, phase)) for d, phase in ((2, row), (3, column))]
        reads += _copied(x, Gather(1, part(x.shape[1], out[1], row * r + column, r * r)), *grid)
    return reads


@rule("pixel_unshuffle PixelUnshuffle")
def pixel_unshuffle(out: Shape, x: Input, downscale_factor: int) -> list[Read]:
    """Blocks of pixels laid out as blocks of channels."""
    r = downscale_factor
    reads = []
    for row, column in product(range(r), repeat=2):
        grid = [Gather(d, part(x.shape[d], out[d], start, r)) for d, start in ((2, row), (3, column))]
        reads += _copied(x, Gather(1, every_nth(x.shape[1], out[1], r * r, row * r + column)), *grid)
    return reads


@rule("channel_shuffle ChannelShuffle")
def channel_shuffle(out: Shape, x: Input, groups: int) -> list[Read]:
    """Channels of the groups in turn."""
    n = out[1] // groups
    return _copied(x, Gather(1, shuffled([c % groups * n + c // groups for c in range(out[1])])))
