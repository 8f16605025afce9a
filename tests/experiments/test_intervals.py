from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pellucid.experiments.intervals import differences, interval, t_quantile

NUMBERS = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_t_quantiles_are_scipys(confidence):
    dofs = np.arange(1, 120)
    ours = [t_quantile(confidence, int(dof)) for dof in dofs]
    np.testing.assert_allclose(ours, stats.t.ppf((1 + confidence) / 2, dofs), rtol=1e-10)


@given(st.lists(NUMBERS, min_size=2, max_size=12))
def test_the_interval_is_scipys(values):
    found = interval(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if found.std > 1e-6:
        expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=10))
def test_paired_differences_are_a_paired_t_test(pairs):
    a, b = np.array(pairs).T
    found = differences(list(a), list(b))
    if np.std(a - b) < 1e-6:
        return
    test = stats.ttest_rel(a, b)
    expected = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-7, abs=1e-7)
    if abs(test.pvalue - 0.05) > 1e-6:
        assert found.excludes_zero == (test.pvalue < 0.05)


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    samples = rng.normal(3, 2, (4_000, 5))
    covered = np.mean([interval(list(sample)).low < 3 < interval(list(sample)).high for sample in samples])
    assert covered == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


def test_one_measurement_has_no_interval():
    found = interval([0.9])
    assert (found.n, found.mean) == (1, 0.9)
    assert math.isnan(found.std) and math.isnan(found.half) and not found.excludes_zero
