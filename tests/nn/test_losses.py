from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.errors import UsageError
from pellucid.nn.losses import (
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    FocalLoss,
    FocalLossFlat,
    L1LossFlat,
    LabelSmoothingCrossEntropy,
    LabelSmoothingCrossEntropyFlat,
    MSELossFlat,
    activation_of,
    each_loss,
)

PRED = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
TARG = torch.tensor([0, 1, 2, 3, 4, 0, 1])


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5, 1.0])
def test_label_smoothing_is_cross_entropy_against_a_smoothed_target(eps):
    target = torch.full((7, 5), eps / 5, dtype=torch.float64)
    target[range(7), TARG] += 1 - eps
    each = -(target * PRED.double().log_softmax(1)).sum(1)
    for reduction, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
        loss = LabelSmoothingCrossEntropy(eps, reduction=reduction)(PRED, TARG)
        assert torch.allclose(loss.double(), expected, atol=1e-6)
    assert LabelSmoothingCrossEntropy(eps).eps == eps


@pytest.mark.parametrize("eps", [-0.1, 1.1])
def test_label_smoothing_beyond_its_range(eps):
    with pytest.raises(UsageError, match="from 0 to 1"):
        LabelSmoothingCrossEntropy(eps)


class Heedless(nn.Module):
    """A loss with an attribute `reduction` that it does not look at."""

    reduction = "mean"

    def forward(self, pred, targ):
        return F.cross_entropy(pred, targ)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_loss_that_does_not_heed_its_reduction_is_asked_item_by_item(n):
    expected = -PRED[:n].double().log_softmax(1)[range(n), TARG[:n]]
    assert torch.allclose(each_loss(Heedless(), PRED[:n], TARG[:n]).double(), expected, atol=1e-6)


WEIGHTED = [LabelSmoothingCrossEntropy, LabelSmoothingCrossEntropyFlat, FocalLoss, FocalLossFlat]


@pytest.mark.parametrize(
    "make", [*(partial(kind, 0.1) for kind in WEIGHTED), CrossEntropyLossFlat, BCEWithLogitsLossFlat]
)
@pytest.mark.parametrize("weight", ["mean", [1.0] * 5])
def test_a_weight_is_a_tensor(make, weight):
    with pytest.raises(UsageError, match="weight is a tensor"):
        make(weight)


@pytest.mark.parametrize("targ", [TARG[:, None], TARG[:6], TARG[None], TARG.tolist()])
def test_focal_loss_says_which_labels_it_takes(targ):
    with pytest.raises(UsageError, match=r"FocalLoss compares (outputs .* with labels of shape|tensors, got a list)"):
        FocalLoss()(PRED, targ)
    # of a label for each position, and of probabilities
    images, labels = PRED.reshape(1, 7, 5).movedim(2, 1), TARG[None]
    assert torch.allclose(FocalLoss()(images, labels), FocalLoss()(PRED, TARG))
    assert torch.allclose(FocalLoss()(PRED, F.one_hot(TARG, 5).float()), FocalLoss()(PRED, TARG))


class Own(nn.Module):
    def forward(self, pred, targ):
        return F.mse_loss(pred.tanh(), F.one_hot(targ, 5).float())

    def activation(self, pred):
        return pred.tanh()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (F.cross_entropy, PRED.softmax(1)),
        (nn.CrossEntropyLoss(), PRED.softmax(1)),
        (LabelSmoothingCrossEntropy(), PRED.softmax(1)),
        (partial(F.cross_entropy, label_smoothing=0.1), PRED.softmax(1)),
        (partial(partial(F.nll_loss), weight=None), PRED.exp()),
        (F.binary_cross_entropy_with_logits, PRED.sigmoid()),
        (F.mse_loss, PRED),
        (Own(), PRED.tanh()),
    ],
)
def test_predictions_belong_to_the_loss(loss, expected):
    assert torch.equal(activation_of(loss)(PRED), expected)


WEIGHT = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])


@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        nn.CrossEntropyLoss(),
        LabelSmoothingCrossEntropy(0.2),
        partial(F.cross_entropy, label_smoothing=0.2),
        lambda pred, targ: F.cross_entropy(pred, targ).pow(2),
        Own(),
    ],
)
def test_each_loss_is_the_loss_of_each_item(loss):
    expected = [float(loss(PRED[i : i + 1], TARG[i : i + 1])) for i in range(7)]
    assert each_loss(loss, PRED, TARG).tolist() == pytest.approx(expected, rel=1e-5)
    assert getattr(loss, "reduction", "mean") == "mean"


def test_each_loss_of_several_values_an_item_is_their_mean():
    target = F.one_hot(TARG, 5).float()
    expected = F.binary_cross_entropy_with_logits(PRED, target, reduction="none").mean(1)
    assert torch.allclose(each_loss(nn.BCEWithLogitsLoss(), PRED, target), expected)
    weighted = each_loss(nn.CrossEntropyLoss(WEIGHT), PRED, TARG)
    assert torch.allclose(weighted, F.cross_entropy(PRED, TARG, reduction="none") * WEIGHT[TARG])


def test_label_smoothing_weighs_classes_as_torch_does():
    log_p, weight = PRED.double().log_softmax(1), WEIGHT.double()
    each = -0.7 * log_p[range(7), TARG] * weight[TARG] - 0.3 / 5 * (log_p * weight).sum(1)
    for make in (LabelSmoothingCrossEntropy, LabelSmoothingCrossEntropyFlat):
        loss = make(0.3, weight)(PRED.double(), TARG)
        assert float(loss) == pytest.approx(float(each.sum() / weight[TARG].sum()), rel=1e-12)
        torchs = F.cross_entropy(PRED.double(), TARG, weight=weight, label_smoothing=0.3, reduction="none")
        assert torch.allclose(make(0.3, weight, "none")(PRED.double(), TARG), torchs)


MAPS, CLASSES = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)).double(), torch.arange(30) % 4


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -3])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_flat_cross_entropy_takes_classes_along_any_axis(axis, dtype):
    pred = MAPS.movedim(2, axis)  # four classes
    targ = CLASSES.reshape(2, 3, 5).to(dtype)
    rows = MAPS.movedim(2, -1).reshape(30, 4)
    each = rows.logsumexp(1) - rows[range(30), CLASSES]
    for reduction, expected in (("mean", each.mean()), ("sum", each.sum()), ("none", each)):
        assert torch.allclose(CrossEntropyLossFlat(axis=axis, reduction=reduction)(pred, targ), expected)
    loss = CrossEntropyLossFlat(axis=axis)
    assert torch.equal(loss.activation(pred), pred.softmax(axis)) and torch.equal(loss.decodes(pred), pred.argmax(axis))
    assert torch.equal(activation_of(loss)(pred), pred.softmax(axis))


def test_flat_losses_of_values_by_hand():
    pred, yes = PRED.double(), PRED > 0.3
    each = -(yes * pred.sigmoid().log() + ~yes * (-pred).sigmoid().log())
    for labels in (yes, yes.int(), yes.long(), yes.float(), yes[:, None]):
        assert float(BCEWithLogitsLossFlat()(pred, labels)) == pytest.approx(float(each.mean()))
    weighted = -(yes * WEIGHT * pred.sigmoid().log() + ~yes * (-pred).sigmoid().log())
    assert float(BCEWithLogitsLossFlat(pos_weight=WEIGHT)(pred, yes)) == pytest.approx(float(weighted.mean()))
    assert float(MSELossFlat()(pred[:, :1], TARG)) == pytest.approx(float(((pred[:, 0] - TARG) ** 2).mean()))
    assert torch.equal(BCEWithLogitsLossFlat(thresh=0.7).decodes(pred), pred > 0.7)
    assert torch.equal(activation_of(BCEWithLogitsLossFlat())(pred), pred.sigmoid())


@pytest.mark.parametrize(
    "loss",
    [
        *(CrossEntropyLossFlat(), LabelSmoothingCrossEntropyFlat(), FocalLossFlat()),
        *(BCEWithLogitsLossFlat(), MSELossFlat(), L1LossFlat()),
    ],
    ids=lambda loss: type(loss).__name__,
)
@pytest.mark.parametrize("shape", [(6,), (7, 5, 2), (5, 7), (14,), (), (1,)])
def test_flat_losses_check_shapes(loss, shape):
    with pytest.raises(UsageError, match=rf"{type(loss).__name__} compares predictions of shape .* labels of shape"):
        loss(PRED, torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize(
    "loss", [CrossEntropyLossFlat(), LabelSmoothingCrossEntropyFlat(), FocalLossFlat(), FocalLoss()]
)
def test_flat_cross_entropy_of_one_class(loss):
    with pytest.raises(UsageError, match="always 0"):
        loss(PRED[:, :1], TARG * 0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weight", [None, WEIGHT.double()])
def test_focal_loss_by_hand(gamma, weight):
    ce = -PRED.double().log_softmax(1)[range(7), TARG] * (1 if weight is None else weight[TARG])
    each = (1 - torch.exp(-ce)) ** gamma * ce
    for reduction, expected in (("mean", each.mean()), ("sum", each.sum()), ("none", each)):
        assert torch.allclose(FocalLoss(gamma, weight, reduction)(PRED.double(), TARG), expected)
        flat = FocalLossFlat(gamma, weight, reduction, axis=0)
        assert torch.allclose(flat(PRED.double().T, TARG.int()), expected)
    assert torch.equal(activation_of(FocalLossFlat())(PRED), PRED.softmax(1))
    assert each_loss(FocalLossFlat(gamma, weight), PRED.double(), TARG).tolist() == pytest.approx(each.tolist())


def test_flat_absolute_error():
    expected = float((PRED[:, 0].double() - TARG).abs().mean())
    assert float(L1LossFlat()(PRED.double()[:, :1], TARG)) == pytest.approx(expected)
