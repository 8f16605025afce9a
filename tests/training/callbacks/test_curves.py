"""The record of a fit stays bounded, and exact where people look."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.training.callbacks.curves import EXACT, Curve, Curves, Number

CAPACITY = 8


@settings(max_examples=80)
@given(st.lists(st.integers(1, CAPACITY), max_size=40), st.booleans())
def test_columns_are_means_or_last_values_of_equal_stretches(blocks, mean):
    rng = np.random.default_rng(len(blocks))
    curves, rows = Curves(2, mean=mean, capacity=CAPACITY), np.zeros((0, 2))
    for n in blocks:
        block = rng.integers(-9, 9, (n, 2)).astype(float)
        curves.extend(block)
        rows = np.concatenate([rows, block])
        stride = next(s for s in (2**k for k in range(20)) if len(rows) <= s * CAPACITY)
        stretches = [rows[i : i + stride] for i in range(0, len(rows), stride)]
        expected = [s.mean(0) if mean else s[-1] for s in stretches]
        np.testing.assert_allclose(curves.values, expected, rtol=1e-12)
        np.testing.assert_array_equal(curves.steps, np.cumsum([len(s) for s in stretches]))
        assert (curves.n, curves.stride) == (len(rows), stride)


def test_rows_that_come_later_are_nan_before():
    curves = Curves(0, capacity=4)
    curves.widen(1), curves.extend(np.ones((3, 1))), curves.widen(2), curves.extend(np.full((4, 2), 2.0))
    np.testing.assert_array_equal(curves.values, [[1, np.nan], [2, 2], [2, 2], [2, 2]])


def test_memory_of_ten_million_batches():
    tracemalloc.start()
    curves = [Curves(mean=True), Curves(), Curves(5)]  # as a fit with Adam has them
    early = 0
    block = np.random.default_rng(0).random((20_000, 5))
    for i in range(500):
        for table in curves:
            table.extend(block[:, : table.values.shape[1]])
        if i == 2 * EXACT // 20_000:
            early = tracemalloc.get_traced_memory()[0]
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert curves[0].n == 10_000_000 and len(curves[0].values) <= EXACT
    assert curves[0].values.mean() == pytest.approx(block[:, 0].mean(), abs=1e-3)
    assert now <= early + 2**16 and now < 8 * 2**20 and peak < 20 * 2**20


def test_old_values_stay_as_they_were_when_columns_merge():
    curves = Curves(capacity=4)
    curves.extend(np.arange(4.0)[:, None])
    before = Curve(curves.values[:, 0])
    curves.extend(np.full((4, 1), 9.0))
    assert before == [0, 1, 2, 3] and curves.values[:, 0].tolist() == [1, 3, 9, 9]


def test_a_curve_is_a_list_that_cannot_be_changed():
    values = [0.5, 0.25, 1 / 3]
    curve = Curve(np.array(values))
    assert curve == values and values == curve and curve != values[:2] and list(curve) == values
    assert curve[1:] == values[1:] and type(curve[1:]) is list and curve[-1] == 1 / 3
    assert isinstance(curve[0], float) and curve[0].item() == 0.5 and type(curve[0].item()) is float
    assert curve.index(0.25) == 1 and 0.5 in curve and len(curve) == 3 and curve and not Curve(np.zeros(0))
    assert repr(curve) == repr(values) and str(curve[0]) == "0.5" and json.dumps(curve[0]) == "0.5"
    assert torch.equal(torch.tensor(curve, dtype=torch.float64), torch.tensor(values, dtype=torch.float64))
    assert np.array(curve).tolist() == values and np.asarray(curve, np.float32).dtype == np.float32
    assert copy.deepcopy(curve) == pickle.loads(pickle.dumps(curve)) == curve
    assert Number(2) + 1 == 3 and curve == pytest.approx(values)
    with pytest.raises(TypeError):
        curve[0] = 1  # pyright: ignore[reportIndexIssue]
    with pytest.raises(IndexError):
        curve[3]
    groups = Curve(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert groups == [[1, 2], [3, 4]] and groups[0] == [1, 2] and [v[1] for v in groups] == [2, 4]
