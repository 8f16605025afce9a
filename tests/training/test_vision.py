"""`vision_learner`: a pretrained body, the head of fastai's, and the normalisation that belongs to the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.errors import UsageError
from pellucid.nn.pretrained import WEIGHTS, pretrained_model
from pellucid.vision.all import (
    DataLoaders,
    ImageDataLoaders,
    Learner,
    Normalize,
    PILImageBW,
    Resize,
    accuracy,
    vision_learner,
)

LITE0 = WEIGHTS["efficientnet_lite0"]


def loaders(photos, **options) -> DataLoaders:
    return ImageDataLoaders.from_folder(photos, valid_pct=0.3, seed=0, bs=8, item_tfms=Resize(64), **options)


def quiet(learn: Learner) -> Learner:
    learn.no_bar().__enter__(), learn.no_logging().__enter__()
    return learn


def test_it_fine_tunes(photos):
    dls = loaders(photos)
    learn = quiet(vision_learner(dls, metrics=accuracy, lin_ftrs=[16], lr=3e-3, train_bn=True))
    body, head = learn.model
    assert [type(m) for m in head][-1] is nn.Linear and head[-1].weight.shape == (3, 16) and learn.lr == 3e-3
    theirs = pretrained_model("efficientnet_lite0")
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in body.state_dict().items())
    norms = {id(p) for m in body.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    assert {id(p) for p in body.parameters() if p.requires_grad} == norms
    assert all(p.requires_grad for p in head.parameters())
    kernel, last = body[0][0].weight.detach().clone(), head[-1].weight.detach().clone()
    learn.fit(1, 0.01)
    assert torch.equal(kernel, body[0][0].weight) and not torch.equal(last, head[-1].weight)
    learn.fine_tune(1, 0.01)
    assert not torch.equal(kernel, body[0][0].weight)
    assert learn.recorder.values[-1][0] < 1.0986  # the training loss of guesses among three classes


def test_images_are_normalised_as_the_weights_need_it(photos):
    dls = loaders(photos)
    raw = dls.valid.one_batch()[0]
    vision_learner(dls)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (LITE0.mean, LITE0.std))
    torch.testing.assert_close(dls.valid.one_batch()[0], (raw - mean) / std)
    vision_learner(dls)  # once is enough
    assert [len(loader.batch_tfms) for loader in dls] == [1, 1]
    with pytest.warns(UserWarning, match=r"weights were learnt with 0.498 and 0.502: leave Normalize out"):
        vision_learner(loaders(photos, batch_tfms=Normalize.from_stats([0.1] * 3, [0.2] * 3)))
    plain = loaders(photos)
    vision_learner(plain, normalize=False)
    assert not plain.train.batch_tfms


def test_grey_images(photos):
    learn = vision_learner(loaders(photos, img_cls=PILImageBW))
    assert learn.model[0][0][0].weight.shape == (32, 1, 3, 3) and learn.dls.valid.one_batch()[0].shape[1] == 1


def test_new_weights_are_all_trained(photos):
    learn = vision_learner(loaders(photos), "small_resnet", pretrained=False, n_out=5)
    assert all(p.requires_grad for p in learn.model.parameters()) and learn.model[1][-1].weight.shape[0] == 5
    assert not learn.dls.train.batch_tfms


def test_a_head_of_ones_own(photos):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 3))
    assert vision_learner(loaders(photos), custom_head=head).model[1] is head
    with pytest.raises(UsageError, match="whole head: ps would have no effect"):
        vision_learner(loaders(photos), custom_head=head, ps=0.1)


def test_looking_at_a_batch_changes_nothing(photos):
    def drawn(with_learner: bool) -> torch.Tensor:
        dls = loaders(photos)
        torch.manual_seed(4)
        if with_learner:
            before = torch.get_rng_state()
            vision_learner(dls, init=None, custom_head=nn.Sequential(nn.Flatten()))
            torch.set_rng_state(before)  # new weights were drawn
        return next(iter(dls.train))[1]

    assert torch.equal(drawn(True), drawn(False))


def resnet34() -> nn.Module:
    """As torchvision's function of this name would be given in fastai."""
    return nn.Identity()


def test_wrong_input(photos):
    x, y = torch.rand(8, 3, 64, 64), torch.arange(8) % 2
    batches = TorchDataLoader(TensorDataset(x, y), 4)
    with pytest.raises(UsageError, match="number of classes is not known: give n_out"):
        vision_learner(DataLoaders(batches, batches))
    with pytest.raises(UsageError, match="normalise there, and pass normalize=False"):
        vision_learner(DataLoaders(batches, batches), n_out=2)
    assert vision_learner(DataLoaders(batches, batches), n_out=2, normalize=False)
    with pytest.raises(UsageError, match=r"'efficientnet_lite9' does not exist: the nearest are effi\w+, eff"):
        vision_learner(loaders(photos), "efficientnet_lite9")
    with pytest.raises(UsageError, match=r"no pretrained weights for 'small_resnet': .* or pretrained=False"):
        vision_learner(loaders(photos), "small_resnet")
    with pytest.raises(UsageError, match="such as 'torchvision:resnet34' or 'timm:resnet34', not a function"):
        vision_learner(loaders(photos), resnet34)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="y_range"):
        vision_learner(loaders(photos), y_range=(0, 1))
