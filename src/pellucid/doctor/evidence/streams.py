"""Numbers that come step by step, kept as they come (tensors on their device) and put together when they are read."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_ITEMS, MAX_STEPS = 200_000, 1_000_000  # what of one run is kept at most: 1.6 and 8 MB a stream
BATCHES = 16  # that are read at once: of a small one, starting an operation takes longer than the operation
_WAITING = 256  # pieces


class Items:
    """A number for each item, a piece for each batch; what comes after `limit` items is let go.

    Attributes:
        n: Items so far.
    """

    def __init__(self, dtype: Any, limit: int = MAX_ITEMS):
        self.dtype, self.limit, self.n = dtype, limit, 0
        self._done: list[np.ndarray] = []
        self._waiting: list[Tensor] = []

    @property
    def is_full(self) -> bool:
        """Whether it takes no more."""
        return self.n >= self.limit

    def put(self, piece: Tensor) -> None:
        """Take the numbers of a batch, [item]."""
        if not self.is_full:
            self._waiting.append(piece)
            self.n += len(piece)
            if len(self._waiting) >= _WAITING:
                self._settle()

    def array(self) -> np.ndarray:
        """All of them, in the order in which they came."""
        self._settle()
        self._done = [np.concatenate([np.zeros(0, self.dtype), *self._done])]
        return self._done[0][: self.limit]

    def _settle(self) -> None:
        if self._waiting:
            piece = torch.cat([each.cpu() for each in self._waiting] if _mixed(self._waiting) else self._waiting)
            found = piece.cpu().numpy()
            self._done.append(found.view(self.dtype) if found.itemsize == self._size else found.astype(self.dtype))
            self._waiting = []

    @property
    def _size(self) -> int:
        # Hashes are int64 in torch, which has no arithmetic of uint64: their bits are taken, of the others the values.
        return 8 if self.dtype is np.uint64 else -1


def _mixed(pieces: Iterable[Tensor]) -> bool:
    return len({(each.device, each.dtype) for each in pieces}) > 1


class Numbers:
    """A number for each step or pass, on the device that it came from until it is read."""

    def __init__(self) -> None:
        self._values = array("d")
        self._waiting: list[tuple[int, Tensor]] = []

    def __len__(self) -> int:
        return len(self._values)

    def put(self, value: float | Tensor) -> None:
        """Take the next one."""
        if len(self) >= MAX_STEPS:
            return
        if isinstance(value, Tensor):
            if value.is_cpu:
                value = value.item()
            else:
                self._waiting.append((len(self), value))
                value = np.nan
        self._values.append(value)
        if len(self._waiting) >= _WAITING:
            self._settle()

    def array(self) -> np.ndarray:
        """All of them."""
        self._settle()
        return np.array(self._values, np.float64)

    def _settle(self) -> None:
        if self._waiting:
            for (i, _), value in zip(
                self._waiting, torch.stack([each.double() for _, each in self._waiting]).tolist(), strict=True
            ):
                self._values[i] = value
            self._waiting = []
