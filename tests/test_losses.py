from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.errors import UsageError
from pellucid.losses import LabelSmoothingCrossEntropy, activation_of, each_loss

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
