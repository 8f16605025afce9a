"""On a GPU a fit that is stopped and gone on with ends in the same bits, where its kernels repeat bits at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pellucid.data.augment.geometry import Flip
from pellucid.data.loader import DataLoader, DataLoaders
from pellucid.data.sources import StoredImages
from pellucid.nn.models import small_resnet
from pellucid.seed import set_seed
from pellucid.vision.all import Callback, Checkpoint, GradientAccumulation, KeepBestCallback, Learner, MixUp, accuracy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def learner(precision: str) -> Learner:
    set_seed(3)
    rng = np.random.default_rng(0)
    source = StoredImages(rng.integers(0, 256, (200, 3, 32, 32), np.uint8), np.zeros((200, 3, 2), np.int64))
    labels = torch.arange(200) % 3
    changes = [Flip()]
    train = DataLoader(
        source, range(160), labels[:160], bs=16, shuffle=True, batch_tfms=changes, training=True, device="cuda"
    )
    dls = DataLoaders(train, DataLoader(source, range(160, 200), labels[160:], bs=16, device="cuda"), vocab="abc")
    cbs = [MixUp(), GradientAccumulation(32), KeepBestCallback("accuracy")]
    learn = Learner(dls, small_resnet(3, 3), metrics=accuracy, cbs=cbs)
    learn.precision = precision
    return learn


def stop(self: Any) -> None:
    if self.training and self.epoch == 1 and self.iter == 5:
        raise RuntimeError("the power is gone")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_same_bits(precision, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    results = []
    for _ in range(2):
        whole = learner(precision)
        whole.fit_one_cycle(3, 0.01)
        results.append(whole)
    if not all(map(torch.equal, results[0].model.parameters(), results[1].model.parameters())):
        pytest.skip("two fits that were not stopped differ here")
    with pytest.raises(RuntimeError, match="the power is gone"):
        learner(precision).fit_one_cycle(
            3, 0.01, cbs=[Checkpoint(tmp_path / "a", every=1), Callback(before_batch=stop)]
        )
    again = learner(precision)
    again.resume(tmp_path / "a")
    assert all(map(torch.equal, again.model.parameters(), results[0].model.parameters()))
    assert again.recorder.raw_losses == results[0].recorder.raw_losses
    assert again.recorder.values == results[0].recorder.values
