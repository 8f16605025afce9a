"""From pooled readings to the arrays of a history."""

from __future__ import annotations

import numpy as np

from pellucid.activations.columns import Readings, Timeline
from pellucid.activations.vector import FIRST_BIN, HIGH, LOW, M2, MEAN, Count
from pellucid.history.record import Section, as_float32


def section(timeline: Timeline, table: Readings) -> Section:
    """The statistics of a table's columns."""
    n = timeline.n
    cells = table.cells[:, :n]
    count = cells[..., Count.N]

    def moment(values: np.ndarray) -> np.ndarray:
        return as_float32(np.where(count > 0, values, np.nan))

    def whole(place: Count) -> np.ndarray:
        return cells[..., place].astype(np.int64)

    return Section(
        steps=timeline.spans[:n].copy(),
        count=whole(Count.N),
        mean=moment(cells[..., MEAN]),
        std=moment(np.sqrt(cells[..., M2] / np.maximum(count - 1, 1))),
        min=moment(cells[..., LOW]),
        max=moment(cells[..., HIGH]),
        near_zero=whole(Count.NEAR_ZERO),
        near_zero_abs=whole(Count.NEAR_ZERO_ABS),
        zero=whole(Count.ZERO),
        nonfinite=whole(Count.NONFINITE),
        underflow=whole(Count.UNDER),
        overflow=whole(Count.OVER),
        hist=cells[..., FIRST_BIN:].astype(np.int64) if table.with_hist else None,
    )
