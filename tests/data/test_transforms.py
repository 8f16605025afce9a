"""Normalize against arithmetic done here: right values and types, and channels that fit or are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.data.transforms import Normalize, imagenet_stats, transformed
from pellucid.errors import UsageError

MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("lead", [(4,), ()])
def test_values_and_type_whatever_torch_takes_by_default(lead, default, dtype):
    x = torch.rand(*lead, 3, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = np.stack([(x.double().numpy()[..., c, :, :] - MEAN[c]) / STD[c] for c in range(3)], axis=-3)
    torch.set_default_dtype(default)
    try:
        normalized = Normalize(MEAN, STD)(x)
        back = Normalize(MEAN, STD).decode(normalized)
    finally:
        torch.set_default_dtype(torch.float32)
    assert normalized.dtype == dtype and normalized.shape == x.shape
    assert np.abs(normalized.double().numpy() - expected).max() < 8 * torch.finfo(dtype).eps
    assert (back - x).abs().max() < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("n_channels", [1, 2, 4])
@pytest.mark.parametrize("way", ["__call__", "decode"])
def test_three_means_never_make_colour_of_other_images(n_channels, way):
    for normalize in (Normalize.from_stats(*imagenet_stats), Normalize(0.5, STD), Normalize(MEAN, [1])):
        with pytest.raises(UsageError, match=rf"statistics of 3 channels.*have {n_channels}: give a number for each"):
            getattr(normalize, way)(torch.rand(2, n_channels, 5, 6))


@pytest.mark.parametrize("n_channels", [1, 3])
def test_one_number_is_for_all_channels(n_channels):
    x = torch.rand(2, n_channels, 5, 6)
    for mean, std in ((0.5, 0.25), ([0.5], [0.25]), (np.array(0.5), torch.tensor([0.25])), (np.float32(0.5), 0.25)):
        assert torch.allclose(Normalize.from_stats(mean, std)(x), (x - 0.5) / 0.25)


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor])
def test_statistics_may_be_of_any_kind_of_numbers(make):
    normalize = Normalize.from_stats(make(MEAN), make(STD))
    assert normalize.to_json()["mean"] == pytest.approx(MEAN) and normalize.to_json()["std"] == pytest.approx(STD)


@pytest.mark.parametrize(
    ("mean", "std", "why"),
    [
        (MEAN, [1, 2], "means of 3 channels and deviations of 2"),
        (MEAN, [1, 0, 1], "positive standard deviations"),
        (MEAN, [1, float("nan"), 1], "positive standard deviations"),
        ([float("inf")], [1], "finite"),
        (MEAN, None, "both mean and std"),
    ],
)
def test_unusable_statistics_are_refused_when_given(mean, std, why):
    with pytest.raises(UsageError, match=why):
        Normalize(mean, std)


def test_a_module_goes_where_the_batch_is():
    x = torch.empty(2, 1, 4, 4, device="meta")  # a convolution on the CPU refuses it
    conv = torch.nn.Conv2d(1, 3, 1)
    assert transformed(conv, x).shape == (2, 3, 4, 4) and conv.weight.is_meta
    assert torch.equal(transformed(torch.relu, torch.tensor([-1.0, 2])), torch.tensor([0.0, 2]))
