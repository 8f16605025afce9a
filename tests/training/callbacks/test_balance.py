"""Classes with few images count as much as those with many, and validation stays what it was."""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from pellucid.data.imbalance import class_weights, unevenness
from pellucid.runs import Settings, train
from pellucid.vision.all import (
    SGD,
    BalancedLoss,
    Callback,
    CategoryBlock,
    CrossEntropyLossFlat,
    DataBlock,
    DataLoaders,
    FocalLoss,
    ImageBlock,
    LabelSmoothingCrossEntropy,
    Learner,
    ProgressCallback,
    UsageError,
    accuracy,
    parent_label,
    set_seed,
)

COUNTS = {"ant": 24, "bee": 6, "fly": 3}


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Noise whose mean brightness tells the class; 24, 6 and 3 images to train on and as many to validate on."""
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    for side in ("train", "valid"):
        for label, n in COUNTS.items():
            folder = tmp_path / "photos" / side / label
            folder.mkdir(parents=True)
            for i in range(n):
                base = {"ant": 90, "bee": 120, "fly": 150}[label]
                pixels = rng.normal(base, 40, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


def declared() -> DataBlock:
    return DataBlock(
        (ImageBlock, CategoryBlock),
        get_y=parent_label,
        splitter=lambda items: tuple(
            [i for i, item in enumerate(items) if side in Path(item).parts] for side in ("train", "valid")
        ),
    )


def loaders(photos: Path, **options) -> DataLoaders:
    return declared().dataloaders(photos, bs=11, device="cpu", workers=1, **options)


def learner(dls: DataLoaders, loss_func=F.cross_entropy, **options) -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    learn = Learner(dls, model, loss_func, opt_func=partial(SGD, mom=0), lr=0.1, metrics=accuracy, **options)
    return learn.remove_cb(ProgressCallback)


def test_weights_add_up_to_the_images_and_give_each_class_the_same():
    labels = torch.tensor([0] * 24 + [1] * 6 + [3] * 3)
    weights = class_weights(labels, 4)
    torch.testing.assert_close(weights, torch.tensor([33 / 72, 33 / 18, 1.0, 33 / 9]))
    assert float(weights[labels].sum()) == pytest.approx(33)
    assert unevenness(labels, ["ant", "bee", "elk", "fly"]).startswith(
        "classes are uneven, of training images 'ant' 24 and 'fly' 3: --balance"
    )
    assert unevenness(torch.tensor([0, 0, 0, 1]), ["ant", "bee"]) == ""


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (F.cross_entropy, lambda w: partial(F.cross_entropy, weight=w)),
        (partial(F.cross_entropy, label_smoothing=0.1), lambda w: nn.CrossEntropyLoss(w, label_smoothing=0.1)),
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss),
        (CrossEntropyLossFlat(), CrossEntropyLossFlat),
        (LabelSmoothingCrossEntropy(0.2), lambda w: LabelSmoothingCrossEntropy(0.2, w)),
        (FocalLoss(1.5), lambda w: FocalLoss(1.5, w)),
    ],
    ids=["function", "partial", "torch", "flat", "smoothed", "focal"],
)
def test_training_is_that_of_a_weighted_loss_and_validation_that_of_the_plain_one(photos, loss, expected):
    dls = loaders(photos)
    weights = torch.tensor([33 / (3 * n) for n in COUNTS.values()])
    ours, theirs = learner(dls, loss, cbs=BalancedLoss()), learner(dls, expected(weights))
    for learn in (ours, theirs):
        set_seed(1)
        learn.fit(2)
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert ours.loss_func is loss
    plain = learner(dls, copy.deepcopy(loss))
    plain.model.load_state_dict(ours.model.state_dict())
    assert ours.recorder.values[-1][1] == pytest.approx(plain.validate()[0], rel=1e-6)
    assert ours.recorder.values[-1][1] != pytest.approx(theirs.recorder.values[-1][1], rel=1e-4)


@pytest.mark.parametrize("event", ["after_batch", "after_train", "before_validate"])
def test_the_plain_loss_comes_back_whatever_ends_the_fit(photos, event):
    class Stops(Callback):
        pass

    def stop(self):
        raise KeyboardInterrupt

    setattr(Stops, event, stop)
    learn = learner(loaders(photos), cbs=[BalancedLoss([1.0, 2.0, 3.0]), Stops])
    with pytest.raises(KeyboardInterrupt):
        learn.fit(1)
    assert learn.loss_func is F.cross_entropy


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss(torch.ones(3)), "the loss has weights of its own already"),
        (lambda pred, targ: pred.sum() * 0, "the loss has no weights of classes"),
    ],
)
def test_a_loss_that_cannot_be_weighed_is_refused(photos, loss, message):
    with pytest.raises(UsageError, match=message):
        learner(loaders(photos), loss, cbs=BalancedLoss()).fit(1)


def test_loaders_of_others_need_weights_to_be_given():
    data = [(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))]
    with pytest.raises(UsageError, match=r"needs loaders of ours.*BalancedLoss\(\[1\.0, 3\.5\]\)"):
        learner(DataLoaders(data, data, device="cpu"), cbs=BalancedLoss()).fit(1)
    learner(DataLoaders(data, data, device="cpu"), cbs=BalancedLoss([1.0, 2.0, 3.0])).fit(1)


def test_a_weighted_loader_draws_each_class_equally_often(photos):
    dls = declared().weighted_dataloaders(photos, bs=11, device="cpu", workers=1)
    set_seed(0)
    drawn = Counter(int(y) for _ in range(100) for _, yb in dls.train for y in yb)
    assert sum(drawn.values()) == 3300 and len(dls.train) == 3
    for n in drawn.values():
        assert abs(n - 1100) < 5 * (3300 * 2 / 9) ** 0.5
    valid = torch.cat([yb for _, yb in dls.valid])
    assert torch.bincount(valid).tolist() == list(COUNTS.values())  # validation is what it was
    in_order = torch.cat([yb for _, yb in dls.train.in_order()])
    assert torch.bincount(in_order).tolist() == list(COUNTS.values())
    assert "drawn by weight" in repr(dls)


def test_same_seed_same_batches_and_looking_takes_no_draws(photos):
    dls = declared().weighted_dataloaders(photos, bs=11, device="cpu", workers=1)
    passes = []
    for look in (False, True):
        set_seed(3)
        if look:
            dls.one_batch(), dls.train.sample(2)
        passes.append(torch.cat([xb for _ in range(2) for xb, _ in dls.train]))
    assert torch.equal(*passes)


def test_weights_of_ones_own_say_how_often_an_image_is_drawn(photos):
    only = [1.0 if "bee" in str(item) else 0 for item in declared().datasets(photos).train.items]
    dls = declared().weighted_dataloaders(photos, only, bs=11, device="cpu", workers=1)
    assert {int(y) for _, yb in dls.train for y in yb} == {1}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"one number for each of 33 images, got \(1,\)"),
        ([-1.0] * 33, "negative"),
        ([0.0] * 33, "all of them 0"),
    ],
)
def test_weights_that_cannot_be_are_refused(photos, weights, message):
    with pytest.raises(UsageError, match=message):
        declared().weighted_dataloaders(photos, weights, device="cpu", workers=1)


@pytest.mark.parametrize("balance", ["none", "loss", "sample"])
def test_a_run_says_and_keeps_what_was_done_about_it(photos, tmp_path, capsys, balance):
    asked = Settings(str(photos), epochs=1, size=32, device="cpu", workers=1, balance=balance)
    run = train(asked, tmp_path / "run")
    assert run.settings["settings"]["balance"] == balance
    said = "classes are uneven, of training images 'ant' 24 and 'fly' 3: --balance loss or sample"
    assert (said in capsys.readouterr().out) == (balance == "none")
    with pytest.raises(UsageError, match="balance 'all' does not exist: use one of none, loss, sample"):
        Settings(str(photos), balance="all")
