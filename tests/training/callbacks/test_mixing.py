"""MixUp and CutMix against float64 arithmetic image by image."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.vision.all import (
    SGD,
    ActivationStats,
    BCEWithLogitsLossFlat,
    Callback,
    CrossEntropyLossFlat,
    CutMix,
    DataLoaders,
    FocalLoss,
    LabelSmoothingCrossEntropy,
    Learner,
    MixUp,
    MSELossFlat,
    UsageError,
)

N, K = 6, 3
WEIGHT = torch.tensor([0.5, 3.0, 1.0], dtype=torch.float64)


def images() -> Tensor:
    return torch.arange(N * 2 * 5 * 4, dtype=torch.float64).reshape(N, 2, 5, 4) / 10 + torch.arange(N).view(N, 1, 1, 1)


class Keeps(Callback):
    """What the model is given, and the loss that is trained on."""

    order = 90

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def after_loss(self):
        learn = self.learn
        kept = {"x": learn.xb[0].clone(), "yb": learn.yb, "pred": learn.pred.detach(), "loss": learn.loss.item()}
        self.seen.append(kept | {"training": learn.training})


def learner(mix: Any, labels: Tensor, loss: Any = F.cross_entropy, n_out: int = K, n: int = 1, **options) -> Learner:
    torch.manual_seed(0)
    data = [(images(), labels)] * n
    model = nn.Sequential(nn.Flatten(), nn.Linear(40, n_out)).double()
    options = {"cbs": [mix, Keeps], "opt_func": partial(SGD, mom=0.0), "lr": 1e-3} | options
    return Learner(DataLoaders(data, data, device="cpu"), model, loss, **options)


def trained(learn: Learner) -> dict[str, Any]:
    learn.fit(1)
    first = learn.keeps.seen[0]
    assert first["training"]
    return first


def others(learn: Learner, x: Tensor, lam: list[float]) -> list[int]:
    """Which image each was mixed with, found from the pixels alone."""
    found = []
    for i in range(N):
        fits = [j for j in range(N) if torch.allclose(x[i], lam[i] * images()[i] + (1 - lam[i]) * images()[j])]
        assert fits
        found.append(fits[0])
    assert sorted(found) == list(range(N))
    return found


def item(loss: str, pred: np.ndarray, label: int) -> float:
    """Loss of one image by the formula."""
    log_p = pred - np.log(np.exp(pred - pred.max()).sum()) - pred.max()
    if loss == "smooth":
        return -0.9 * log_p[label] - 0.1 * log_p.mean()
    if loss == "focal":
        return (1 - np.exp(log_p[label])) ** 2 * -log_p[label]
    return -log_p[label]


LOSSES = {
    "plain": F.cross_entropy,
    "flat": CrossEntropyLossFlat(),
    "smooth": LabelSmoothingCrossEntropy(),
    "focal": FocalLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weighted": nn.CrossEntropyLoss(WEIGHT),
}


@pytest.mark.parametrize("name", LOSSES)
def test_mixup_mixes_images_and_losses_by_a_share_of_each_image(name):
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    learn = learner(MixUp(), labels, LOSSES[name])
    seen = trained(learn)
    lam = learn.mix_up.lam.tolist()
    assert len(set(lam)) == N and all(0.5 <= share <= 1 for share in lam)
    js = others(learn, seen["x"], lam)
    assert torch.equal(learn.mix_up.yb1[0], labels[js]) and torch.equal(seen["yb"][0], labels)
    total = weights = 0.0
    for i, j in enumerate(js):
        pred = seen["pred"][i].numpy()
        for share, label in ((lam[i], int(labels[i])), (1 - lam[i], int(labels[j]))):
            weight = share * (float(WEIGHT[label]) if name == "weighted" else 1.0)
            total, weights = total + weight * item(name, pred, label), weights + weight
    assert seen["loss"] == pytest.approx(total if name == "sum" else total / weights, rel=1e-6)


@pytest.mark.parametrize(("loss", "n_out"), [(F.cross_entropy, K), (BCEWithLogitsLossFlat(), K), (MSELossFlat(), K)])
def test_labels_that_are_numbers_are_mixed_themselves(loss, n_out):
    labels = F.one_hot(torch.arange(N) % K).double()
    learn = learner(MixUp(), labels, loss, n_out)
    seen = trained(learn)
    lam = learn.mix_up.lam
    js = others(learn, seen["x"], lam.tolist())
    expected = torch.stack([lam[i] * labels[i] + (1 - lam[i]) * labels[j] for i, j in enumerate(js)])
    torch.testing.assert_close(seen["yb"][0], expected)
    torch.testing.assert_close(seen["yb"][0].sum(1), torch.ones(N).double())
    assert seen["loss"] == pytest.approx(loss(seen["pred"], expected).item())


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_puts_a_rectangle_of_another_image_in_and_labels_by_area(seed):
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    learn = learner(CutMix(), labels)
    torch.manual_seed(seed)
    seen = trained(learn)
    changed = (seen["x"] != images()).any(0).any(0)  # (row, column), the same for all
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    area = int(changed.sum())
    if area:
        box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        assert changed[box].all()
        js = [next(j for j in range(N) if torch.equal(seen["x"][i][:, *box], images()[j][:, *box])) for i in range(N)]
        assert torch.equal(learn.cut_mix.yb1[0], labels[js])
    lam = 1 - area / 20
    assert float(learn.cut_mix.lam) == pytest.approx(lam)
    ours, other = (np.mean([item("plain", seen["pred"][i].numpy(), int(y[i])) for i in range(N)])
                   for y in (labels, learn.cut_mix.yb1[0]))  # fmt: skip
    assert seen["loss"] == pytest.approx(lam * ours + (1 - lam) * other, rel=1e-6)


def test_rectangles_are_of_every_size_and_stay_inside():
    learn = learner(CutMix(), torch.arange(N) % K, n=100)
    learn.fit(1)
    shares = [1 - float((kept["x"] != images()).any(0).any(0).sum()) / 20 for kept in learn.keeps.seen[:100]]
    assert min(shares) < 0.3 and max(shares) > 0.9
    assert 0.5 < np.mean(shares) < 0.8  # more than one half, as the border cuts rectangles off


@pytest.mark.parametrize("mix", [MixUp(), CutMix()])
def test_the_loaders_batches_and_the_validation_are_left_alone(mix):
    learn = learner(mix, torch.arange(N) % K, n=2)
    learn.fit(2)
    assert all(torch.equal(x, images()) for x, _ in learn.dls.train)
    for kept in learn.keeps.seen:
        if not kept["training"]:
            assert torch.equal(kept["x"], images())
            assert kept["loss"] == pytest.approx(F.cross_entropy(kept["pred"], torch.arange(N) % K).item())


@pytest.mark.parametrize("mix", [MixUp, CutMix])
def test_the_mixed_loss_is_trained_on_and_recorded(mix):
    learn = learner(mix(), torch.arange(N) % K)
    learn.add_cb(ActivationStats)
    weight = learn.model[1].weight.detach().clone()
    learn.fit(1)
    first = learn.keeps.seen[0]
    assert list(learn.recorder.raw_losses) == pytest.approx([first["loss"]])
    assert learn.activation_stats.history.series["loss"].tolist() == pytest.approx([first["loss"]])
    # Gradient of the mixed cross entropy: (p − target) xᵀ / n with the mixed target.
    mixer = learn.cbs[[isinstance(cb, mix) for cb in learn.cbs].index(True)]
    lam = mixer.lam.double().expand(N)[:, None]
    target = lam * F.one_hot(first["yb"][0], K) + (1 - lam) * F.one_hot(mixer.yb1[0], K)
    gradient = (first["pred"].softmax(1) - target).T @ first["x"].flatten(1) / N
    torch.testing.assert_close(learn.model[1].weight.detach(), weight - 1e-3 * gradient, rtol=1e-6, atol=1e-9)


def takes_reduction(pred: Tensor, targ: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(pred, targ, reduction=reduction)


def test_a_function_that_knows_reduction_will_do():
    losses = [
        trained(learner(MixUp(), torch.arange(N) % K, loss))["loss"] for loss in (takes_reduction, F.cross_entropy)
    ]
    assert losses[0] == losses[1]


def test_a_loss_of_indices_alone_is_refused_by_mixup_and_fits_cutmix():
    indices_only = lambda pred, targ: -pred.log_softmax(1)[torch.arange(len(targ)), targ].mean()
    learn = learner(MixUp(), torch.arange(N) % K, indices_only)
    before = learn.model[1].weight.detach().clone()
    with pytest.raises(UsageError, match=r"give it an argument `reduction`.*or use CutMix"):
        learn.fit(1)
    assert torch.equal(learn.model[1].weight, before)
    labels = torch.arange(N) % K
    losses = [trained(learner(CutMix(), labels, loss))["loss"] for loss in (indices_only, F.cross_entropy)]
    assert losses[0] == pytest.approx(losses[1])


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(UsageError, match="MixUp and CutMix: a batch can be mixed once"):
        learner(MixUp(), torch.arange(N) % K, cbs=[MixUp(), CutMix()]).fit(1)
    with pytest.raises(UsageError, match="MixUp does not work with LBFGS"):
        Learner(learner(MixUp(), torch.arange(N) % K).dls, nn.Flatten(), opt_func=torch.optim.LBFGS, cbs=MixUp(),
                splitter=lambda _: [[nn.Parameter(torch.zeros(1))]]).fit(1)  # fmt: skip
    for alpha in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="alpha"):
            MixUp(alpha)
    flat = [(torch.randn(4, 5), torch.arange(4) % K)]
    learn = Learner(DataLoaders(flat, flat, device="cpu"), nn.Linear(5, K), F.cross_entropy, cbs=CutMix())
    with pytest.raises(UsageError, match=r"CutMix takes images .* got \[\(4, 5\)\]"):
        learn.fit(1)
