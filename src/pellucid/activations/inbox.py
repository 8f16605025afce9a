"""Readings on their way into the columns: written where a layer was seen, put in place many at a time.

Placing one reading takes longer than reading a small layer; placing hundreds at once costs next to nothing each. What a
device computes stays there meanwhile and comes over in one transfer.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pellucid.activations.columns import Readings
from pellucid.activations.device_reading import settled
from pellucid.activations.reading import read_at, reduce
from pellucid.activations.vector import Count, length, rectified

CAPACITY = 1024


class Inbox:
    """Readings that wait, one slot each."""

    def __init__(self, with_hist: bool, capacity: int = CAPACITY):
        self.with_hist = with_hist
        self.values = np.empty((capacity, length(with_hist)))
        self._address, self._stride = self.values.ctypes.data, self.values.strides[0]
        self._places: list[tuple[Readings, int, int, int]] = []  # table, layer, column, slot it is derived from or −1
        self._on_device: list[tuple[int, Tensor]] = []

    def take(self, x: Tensor, table: Readings, layer: int, column: int) -> int | None:
        """Read an output; returns its slot if it was read at once and all its values are finite."""
        slot = len(self._places)
        place = table, layer, column, -1
        if read_at(x, self.with_hist, self._address + slot * self._stride):
            self._places.append(place)  # after the reading: Ctrl-C in between must not leave a slot without one
            return slot
        reading = reduce(x, self.with_hist)
        if isinstance(reading, Tensor):
            self._on_device.append((slot, reading))
        else:
            self.values[slot] = reading
        self._places.append(place)
        return None if isinstance(reading, Tensor) or reading[Count.NONFINITE] else slot

    def take_rectified(self, source: int, table: Readings, layer: int, column: int) -> None:
        """Note that an output is max(x, 0) of what slot `source` read; it must be called before the next `empty`."""
        self._places.append((table, layer, column, source))

    @property
    def full(self) -> bool:
        """Whether no slot is left."""
        return len(self._places) == len(self.values)

    def empty(self) -> None:
        """Pool all readings into their columns."""
        if not self._places:
            return
        places, self._places = self._places, []
        on_device, self._on_device = self._on_device, []
        for device in {reading.device for _, reading in on_device}:  # the layers of one model may be on several
            slots, there = zip(*[each for each in on_device if each[1].device == device], strict=True)
            found = torch.stack(there).cpu().double().numpy()
            self.values[list(slots)] = settled(found, self.with_hist)
        values = self.values[: len(places)]
        layers, columns, sources = np.array([place[1:] for place in places]).T
        derived = np.flatnonzero(sources >= 0)
        values[derived] = rectified(values[sources[derived]])
        owners = np.array([id(place[0]) for place in places])
        for table in {id(place[0]): place[0] for place in places}.values():
            mine = owners == id(table)
            table.add(layers[mine], columns[mine], values[mine])
