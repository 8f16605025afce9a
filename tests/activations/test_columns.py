from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.activations.columns import Means, Readings, Timeline
from pellucid.activations.reading import read
from pellucid.activations.vector import Count, empty, pool


@settings(max_examples=30)
@given(n_steps=st.integers(1, 150), capacity=st.sampled_from([2, 4, 16, 64]))
def test_merged_columns_hold_every_step_exactly(n_steps, capacity):
    readings, means = Readings(1, with_hist=True), Means(1)
    timeline = Timeline([readings, means], capacity)
    generator = torch.Generator().manual_seed(n_steps)
    steps = [torch.randn(20, generator=generator) + i for i in range(n_steps)]
    for i, x in enumerate(steps):
        column = timeline.open(i)
        readings.add(np.array([0]), np.array([column]), read(x, True)[None])
        means.add([0], column, [float(i)])
    assert timeline.n <= capacity
    spans = timeline.spans[: timeline.n]
    assert spans[0, 0] == 0 and spans[-1, 1] == n_steps
    assert (spans[1:, 0] == spans[:-1, 1]).all()
    for column, (start, stop) in enumerate(spans):
        want = empty(with_hist=True)
        for x in steps[start:stop]:
            want = pool(want, read(x, True))
        np.testing.assert_allclose(readings.cells[0, column], want, rtol=1e-9)
        assert readings.cells[0, column, Count.N] == 20 * (stop - start)
        assert means.values(timeline.n)[0, column] == np.float32(np.mean(range(start, stop)))


def test_memory_stays_the_same_from_1000_to_200000_steps():
    means = Means(3)
    timeline = Timeline([means], 256)
    sizes = set()
    for step in range(200_000):
        means.add([0], timeline.open(step), [1.0])
        if step >= 1000:
            sizes.add((means.sums.nbytes, timeline.spans.nbytes))
    assert len(sizes) == 1
    assert means.counts[0].sum() == 200_000
    assert timeline.stride == 1024
