from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.activations import device_reading, numpy_reading, vector
from pellucid.activations import reading as r
from pellucid.activations.vector import FIRST_BIN, HIGH, LOW, M2, MEAN, Count

EDGES = np.linspace(-10, 10, 81)
SPECIAL = [0.0, -0.0, 0.05, -0.05, 0.25, 10.0, -10.0, 9.75, 10.25, 1e30, -1e30, 1e-30]


def brute(x: torch.Tensor) -> dict[str, float | np.ndarray]:
    """From all values, in float64 and one condition at a time."""
    near = float(torch.tensor(0.05, dtype=x.dtype))  # torch compares in the dtype of the tensor
    x64 = x.double().numpy().ravel()
    values = x64[np.isfinite(x64)]
    bins = [((values >= lo) & (values < hi)).sum() for lo, hi in pairwise(EDGES)]
    bins[-1] += (values == 10).sum()
    return {
        "n": len(values),
        "nonfinite": len(x64) - len(values),
        "mean": values.mean() if len(values) else 0,
        "m2": ((values - values.mean()) ** 2).sum() if len(values) else 0,
        "low": values.min(initial=np.inf),
        "high": values.max(initial=-np.inf),
        "near": (values <= near).sum(),
        "near_abs": (np.abs(values) <= near).sum(),
        "zero": (values == 0).sum(),
        "under": (values < -10).sum(),
        "over": (values > 10).sum(),
        "hist": np.array(bins),
    }


def check(got: np.ndarray, x: torch.Tensor) -> None:
    want = brute(x)
    scale = max(1e-12, float(x[x.isfinite()].abs().max()) if want["n"] else 1.0)
    assert got[MEAN] == pytest.approx(want["mean"], rel=1e-9, abs=1e-9 * scale)
    assert got[M2] == pytest.approx(want["m2"], rel=1e-8, abs=1e-12 * scale**2 * max(want["n"], 1))
    assert (got[LOW], got[HIGH]) == (want["low"], want["high"])
    counts = [got[c] for c in (Count.N, Count.NONFINITE, Count.NEAR_ZERO, Count.NEAR_ZERO_ABS, Count.ZERO)]
    assert counts == [want[k] for k in ("n", "nonfinite", "near", "near_abs", "zero")]
    assert (got[Count.UNDER], got[Count.OVER]) == (want["under"], want["over"])
    if len(got) > FIRST_BIN:
        assert got[FIRST_BIN:].tolist() == want["hist"].tolist()


def values_of(kind: str, numbers: list[float], seed: int) -> torch.Tensor:
    x = torch.tensor(numbers, dtype=torch.float32)
    noise = torch.randn(2500, generator=torch.Generator().manual_seed(seed))
    if kind == "shifted":
        return torch.cat([x.clamp(-1e3, 1e3) + 1000, 1000 + noise])
    if kind == "grid":
        return torch.cat([x, (noise * 8).round() / 4])  # many values on the edges of bins
    return torch.cat([x, noise * 4])


@pytest.mark.parametrize("path", ["compiled", "numpy", "torch"])
@settings(max_examples=60)
@given(
    numbers=st.lists(st.sampled_from(SPECIAL) | st.floats(-30, 30, width=32), min_size=1, max_size=40),
    kind=st.sampled_from(["plain", "shifted", "grid"]),
    seed=st.integers(0, 10_000),
    with_hist=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_equals_float64_from_all_values(path, numbers, kind, seed, with_hist, dtype):
    x = values_of(kind, [n if abs(n) < 1e4 or dtype != torch.float16 else 0.0 for n in numbers], seed).to(dtype)
    seen = x if dtype in (torch.float32, torch.float64) else x.float()
    if path == "compiled":
        assert r.compiled() is not None, "numba belongs to the test environment"
        check(r.read(x, with_hist), seen)
    elif path == "numpy":
        check(numpy_reading.read(seen.numpy(), with_hist), seen)
    else:
        check(device_reading.settled(device_reading.read(seen, with_hist)[None].numpy(), with_hist)[0], seen)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("n", [65_535, 65_536, 200_001])
@pytest.mark.parametrize("with_hist", [True, False])
def test_large_tensors_are_read_on_all_threads(n, n_threads, with_hist):
    x = torch.randn(n, generator=torch.Generator().manual_seed(n)) * 5
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        check(r.read(x, with_hist), x)
        x[-1] = torch.nan
        check(r.read(x, with_hist), x)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_values_are_counted_and_left_out(bad):
    x = torch.randn(1000)
    x[3:7] = bad
    check(r.read(x, True), x)
    check(r.read(torch.full((5,), bad), True), torch.full((5,), bad))


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), shift=st.floats(-3, 3), n=st.integers(1, 3000))
def test_rectified_equals_reading_the_relu(seed, shift, n):
    x = torch.randn(n, generator=torch.Generator().manual_seed(seed)) * 5 + shift
    check(vector.rectified(r.read(x, True)), x.relu())


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 500), min_size=1, max_size=6))
def test_pooling_equals_reading_all_at_once(seed, sizes):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(size, generator=generator) * 3 + i for i, size in enumerate(sizes)]
    cell = vector.empty(with_hist=True)
    for part in parts:
        cell = vector.pool(cell, r.read(part, True))
    check(cell, torch.cat(parts))


def test_upper_bins_are_the_chapters():
    x = torch.randn(50_000) * 4
    got = r.read(x, True)[FIRST_BIN + 40 :]
    assert got.tolist() == x[(x >= 0) & (x <= 10)].histc(40, 0, 10).tolist()


def test_channels_last_and_strided_tensors_are_read_whole():
    x = torch.randn(4, 6, 5, 7)
    for view in (x.to(memory_format=torch.channels_last), x[:, ::2], x.transpose(1, 3), x.expand(4, 6, 5, 7)):
        check(r.read(view, True), view.contiguous())


def test_a_tensor_subclass_is_read_without_its_own_methods():
    class Marked(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            assert getattr(func, "__name__", "") == "__get__", f"{func} went through the subclass"
            return super().__torch_function__(func, types, args, kwargs or {})

    x = torch.randn(3, 4)
    marked = x.as_subclass(Marked)
    np.testing.assert_array_equal(r.read(marked, True), r.read(x, True))
