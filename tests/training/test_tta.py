"""Test-time augmentation: the mean over augmented views, and the plain predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.data.augment.geometry import Flip, Rotate
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.loader import DataLoaders
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.seed import set_seed
from pellucid.training.learner import Learner
from pets import write_pets


@pytest.fixture
def learn(tmp_path, monkeypatch) -> Learner:
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    write_pets(tmp_path / "pets", 8)
    set_seed(0)
    dls = ImageDataLoaders.from_folder(
        tmp_path / "pets", valid_pct=0.5, seed=1, bs=3, device="cpu", batch_tfms=[Flip(p=1), Normalize()]
    )
    return Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(108, 2)))


def by_hand(learn: Learner, ds_idx: int, mirrored: bool) -> torch.Tensor:
    normalize, found = learn.dls.valid.batch_tfms[-1], []
    for image, _ in learn.dls[ds_idx].dataset:
        pixels = np.asarray(image, np.float64) / 255
        x = ((pixels[:, ::-1] if mirrored else pixels) - normalize.mean) / normalize.std
        with torch.no_grad():
            found.append(learn.model(torch.tensor(x.transpose(2, 0, 1)).float()[None]).softmax(1))
    return torch.cat(found)


@pytest.mark.parametrize("ds_idx", [0, 1])
def test_tta_is_the_mean_of_views_weighed_against_the_plain_image(learn, ds_idx):
    plain, mirrored = (by_hand(learn, ds_idx, flag) for flag in (False, True))
    found, labels = learn.tta(ds_idx)
    torch.testing.assert_close(found, 0.75 * mirrored + 0.25 * plain)
    assert labels is not None and torch.equal(labels, learn.get_preds(ds_idx)[1])
    views, alone = learn.tta(ds_idx, beta=None)[0]
    torch.testing.assert_close((views, alone), (mirrored, plain))
    torch.testing.assert_close(learn.tta(ds_idx, use_max=True)[0], torch.maximum(plain, mirrored))
    torch.testing.assert_close(learn.tta(ds_idx, beta=1.0)[0], plain)


def test_views_differ_and_nothing_random_is_used_up(learn):
    learn.dls.train.batch_tfms[0] = Rotate(90, p=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = learn.tta(n=1, beta=0.0)[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(learn.tta(n=1, beta=0.0)[0], one)
    assert not torch.allclose(learn.tta(n=2, beta=0.0)[0], one)
    torch.manual_seed(6)
    assert not torch.allclose(learn.tta(n=1, beta=0.0)[0], one)


def test_new_images_and_other_transforms_are_taken(learn):
    files = [str(item) for item in learn.dls.valid.items]
    torch.testing.assert_close(learn.tta(dl=learn.dls.test_dl(files))[0], learn.tta()[0])
    assert learn.tta(dl=learn.dls.test_dl(files))[1] is None
    normalize = learn.dls.valid.batch_tfms[-1]
    torch.testing.assert_close(learn.tta(batch_tfms=[normalize])[0], learn.get_preds()[0])


def test_tta_refuses_what_it_cannot_augment(learn):
    with pytest.raises(UsageError, match="at least one view, got n=0"):
        learn.tta(n=0)
    with pytest.raises(UsageError, match="item_tfms"):
        learn.tta(item_tfms=[print])
    batches = [(torch.rand(2, 3, 6, 6), torch.tensor([0, 1]))]
    with pytest.raises(UsageError, match="made by a DataBlock"):
        Learner(DataLoaders(batches, batches), learn.model).tta()
