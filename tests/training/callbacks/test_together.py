"""Callbacks that change a training go together, and watching them changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pellucid.seed import set_seed
from pellucid.vision.all import (
    ActivationStats,
    CSVLogger,
    CutMix,
    DataLoaders,
    EarlyStoppingCallback,
    GradientAccumulation,
    GradientClip,
    KeepBestCallback,
    Learner,
    MixUp,
    ModelEMA,
    SaveModelCallback,
    accuracy,
)


def trained(path, *cbs, precision: str = "fp32") -> Learner:
    set_seed(3)
    labels = torch.arange(72) % 3
    images = torch.randn(72, 1, 8, 8) + labels.view(-1, 1, 1, 1)
    data = list(zip(images.split(8), labels.split(8), strict=True))
    model = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(54, 3))
    learn = Learner(DataLoaders(data, data, device="cpu"), model, F.cross_entropy, metrics=accuracy, path=path)
    everything = [GradientAccumulation(20), GradientClip(0.5), ModelEMA(0.9), CSVLogger(), KeepBestCallback("accuracy")]
    learn.add_cbs([*everything, SaveModelCallback(), EarlyStoppingCallback(patience=4), *cbs])
    learn.precision = precision
    learn.fit_one_cycle(4, 0.02)
    return learn


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mix", [MixUp, CutMix])
def test_all_at_once_learn_and_are_watched(mix, precision, tmp_path):
    plain = trained(tmp_path, mix(), precision=precision)
    watched = trained(tmp_path, mix(), ActivationStats(with_hist=True, with_grads=True), precision=precision)
    for ours, theirs in zip(plain.model.state_dict().values(), watched.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert plain.recorder.values == watched.recorder.values
    assert plain.validate()[1] == max(row[2] for row in plain.recorder.values) > 0.8
    norms = watched.activation_stats.history.series["grad.norm"]
    # Nine batches of eight: a step after three of them.
    assert (np.isfinite(norms).all(0) == [False, False, True] * 12).all()
    assert np.sqrt((norms[:, 2::3] ** 2).sum(0)).max() <= 0.5 + 1e-5
