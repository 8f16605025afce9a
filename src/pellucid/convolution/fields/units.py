"""The units of a model whose operations are known: what each of them sees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from pellucid.convolution.connectivity.moves import Gather, back
from pellucid.convolution.fields.graph import Operation
from pellucid.convolution.fields.hull import Hull, union
from pellucid.errors import UsageError


@dataclass(frozen=True)
class LayerField:
    """The receptive field of one layer's units, one entry for each axis of the image.

    Attributes:
        name: Of the module in the model, or of the operation in `forward`.
        kind: Class name of the module, or name of the function.
        shape: Of the output, without batch axis.
        size: Pixels from the first to the last that a unit sees, as if the image went on for ever; where fields differ
            from unit to unit, the largest.
        jump: Pixels from one unit's field to the next one's; None where units no longer lie on a grid.
        start: Centre of the first unit's field, in pixels from the first pixel's; None where it sees only padding.
        share: Part of the image, 0 to 1, in the middle unit's field, from its first row and column to its last.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    size: tuple[int, ...]
    jump: tuple[float | None, ...]
    start: tuple[float | None, ...]
    share: float


class Followed:
    """Fields of a model whose operations are known."""

    def __init__(self, found: dict[str, Operation]) -> None:
        self.operations = found
        self.key = {operation.name: key for key, operation in reversed(found.items())}
        self.exact = _hulls(found, boundless=False)
        self.boundless = _hulls(found, boundless=True)

    def names(self) -> list[str]:
        """Operations that can be asked for."""
        return [operation.name for operation in list(self.operations.values())[1:]]

    def rows(self) -> list[LayerField]:
        """A row for each module and each operation that widens or joins fields."""
        shown = lambda operation: operation.reads and (operation.is_module or _widens(operation))
        return [self._row(key) for key, operation in self.operations.items() if shown(operation)]

    def unit_dims(self, name: str) -> list[int]:
        """Dimensions that tell units apart: those of the map, or all where there is none."""
        hull = self.exact[self.key[name]]
        return sorted(hull.axis) or list(range(1, len(hull.shape)))

    def position(self, name: str, position: int | Sequence[int] | None) -> tuple[int, ...] | None:
        """A unit's position; the middle one if none is named, None where there is no map."""
        hull, dims = self.exact[self.key[name]], self.unit_dims(name)
        if position is None:
            return tuple(hull.shape[d] // 2 for d in dims) if hull.axis else None
        return checked_position(name, position, [hull.shape[d] for d in dims])

    def index(self, name: str, position: tuple[int, ...]) -> tuple[Any, ...]:
        """The unit as an index into the layer's output: all channels at its position."""
        index: list[Any] = [slice(None)] * len(self.exact[self.key[name]].shape)
        for dim, place in zip(self.unit_dims(name), position, strict=True):
            index[dim] = place
        return tuple(index)

    def box(self, name: str, position: tuple[int, ...] | None) -> tuple[range, ...]:
        """First to last pixel along each axis."""
        hull = self.exact[self.key[name]]
        low, high = ([_at(v, self.unit_dims(name), position) for v in bounds] for bounds in (hull.low, hull.high))
        spans = [(float(a.min()), float(b.max())) for a, b in zip(low, high, strict=True)]
        if any(a > b for a, b in spans):
            return tuple(range(0) for _ in spans)
        return tuple(range(int(a), int(b) + 1) for a, b in spans)

    def mask(self, name: str, position: tuple[int, ...] | None) -> np.ndarray:
        """Pixels seen, shape (row, column)."""
        target = self.key[name]
        shape = self.operations[target].shape
        start = np.ones([1] * len(shape), bool)
        for dim, place in zip(self.unit_dims(name), position or (), strict=position is not None):
            start = start & (np.arange(shape[dim]) == place).reshape([-1 if d == dim else 1 for d in range(len(shape))])
        masks = {target: start}
        for key in reversed(self.operations):
            if key in masks and self.operations[key].reads:
                mask = masks.pop(key)
                for source, moves, _ in self.operations[key].reads:
                    read = back(mask, moves)
                    masks[source.made_by] = masks[source.made_by] | read if source.made_by in masks else read
        image = next(iter(self.operations))
        whole = self.operations[image].shape
        mask = masks.get(image, np.zeros([1] * len(whole), bool))
        return np.broadcast_to(mask, whole)[0].any(axis=0)

    def _row(self, key: str) -> LayerField:
        operation, hull = self.operations[key], self.boundless[key]
        dims = self.unit_dims(operation.name)
        low, high = ([_together(v, dims, f) for v in b] for b, f in ((hull.low, np.min), (hull.high, np.max)))
        sizes = [float((b - a).max()) + 1 for a, b in zip(low, high, strict=True)]
        jumps = {hull.axis[dim]: jump for dim, jump in hull.jump.items() if dim in hull.axis}
        firsts = [(float(a.flat[0]), float(b.flat[0])) for a, b in zip(low, high, strict=True)]
        box = self.box(operation.name, self.position(operation.name, None))
        whole = math.prod(next(iter(self.operations.values())).shape[2:])
        return LayerField(
            operation.name, operation.kind, operation.shape[1:],
            tuple(int(n) if n > 0 else 0 for n in sizes),
            tuple(_number(jumps.get(a)) for a in range(len(low))),
            tuple((a + b) / 2 if a <= b else None for a, b in firsts), math.prod(map(len, box)) / whole,
        )  # fmt: skip


def checked_position(name: str, position: int | Sequence[int], lengths: Sequence[int]) -> tuple[int, ...]:
    """A unit's position, if the layer has it."""
    at = (position,) if isinstance(position, int) else tuple(int(p) for p in position)
    if len(at) != len(lengths) or any(not 0 <= p < n for p, n in zip(at, lengths, strict=True)):
        valid = " and ".join(f"0 to {n - 1}" for n in lengths)
        raise UsageError(f"{name!r} has no unit at {at}: its map is {by(lengths)}, so positions go from {valid}")
    return at


def by(sizes: Iterable[Any]) -> str:
    """Sizes as text, with a cross between."""
    return "×".join(f"{n:g}" if isinstance(n, float) else str(n) for n in sizes)


def _hulls(found: dict[str, Operation], boundless: bool) -> dict[str, Hull]:
    hulls: dict[str, Hull] = {}
    for key, operation in found.items():
        if operation.reads:
            hulls[key] = union([hulls[source.made_by].along(moves) for source, moves, _ in operation.reads])
        else:
            hulls[key] = Hull.of_image(operation.shape, boundless)
    return hulls


def _widens(operation: Operation) -> bool:
    """Whether an operation in `forward` is worth a row: it reads through windows or joins branches."""
    sources = {source.made_by for source, *_ in operation.reads}
    windows = (m for _, moves, _ in operation.reads for m in moves if isinstance(m, Gather) and m.dim > 1)
    return len(sources) > 1 or any(m.taps.n_in > 1 and not m.taps.is_identity for m in windows)


def _at(bound: np.ndarray, dims: Sequence[int], position: tuple[int, ...] | None) -> np.ndarray:
    for dim, place in zip(dims, position or (), strict=position is not None):
        bound = bound.take([place if bound.shape[dim] > 1 else 0], axis=dim)
    return bound


def _together(bound: np.ndarray, dims: Sequence[int], least: Any) -> np.ndarray:
    others = tuple(d for d in range(bound.ndim) if d not in dims)
    return least(bound, axis=others)


def _number(jump: Fraction | None) -> float | None:
    return None if jump is None else int(jump) if jump.denominator == 1 else float(jump)
