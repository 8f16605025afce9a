from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.data.loader import DataLoaders
from pellucid.errors import TrainingError
from pellucid.nn.losses import CrossEntropyLossFlat, FocalLoss, FocalLossFlat, LabelSmoothingCrossEntropy
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.learner import Learner
from pellucid.training.misfit import misfit, silent_misfit

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3
YES = (Y > 0).float()
WEIGHT = torch.ones(3)


def fails(loss_func, y, n_out: int = 3, model=None) -> str:
    """What a fit on these labels says."""
    batches = [(X[:8], y[:8]), (X[8:], y[8:])]
    model = model or nn.Linear(6, n_out)
    learn = Learner(DataLoaders(batches, batches, device="cpu"), model, loss_func)
    learn.remove_cb(ProgressCallback)
    with pytest.raises(TrainingError) as caught:
        learn.fit(1, 0.01)
    assert learn.recorder.raw_losses == []
    return str(caught.value)


class Two(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("loss_func", "y", "n_out", "blamed"),
    [
        (
            partial(F.cross_entropy, weight=WEIGHT.double()),
            Y,
            3,
            "weight is float64, the outputs are float32: give weight",
        ),
        (
            nn.CrossEntropyLoss(WEIGHT.double()),
            Y,
            3,
            "weight is float64, the outputs are float32: give weight.to(torch.fl",
        ),
        (LabelSmoothingCrossEntropy(0.1, WEIGHT.double()), Y, 3, "weight is float64, the outputs are float32"),
        (CrossEntropyLossFlat(WEIGHT.double()), Y, 3, "weight is float64, the outputs are float32"),
        (nn.CrossEntropyLoss(WEIGHT[:2]), Y, 3, "weight holds 2 class weights for 3 classes"),
        (F.cross_entropy, Y - 1, 3, "the label -1 is no class: class numbers begin at 0; ignore_index=-1"),
        (nn.NLLLoss(), Y - 1, 3, "the label -1 is no class"),
        (nn.CrossEntropyLoss(ignore_index=0), Y - 1, 3, "the label -1 is no class"),
        (CrossEntropyLossFlat(), Y - 1, 3, "the label -1 is no class"),
        (FocalLoss(), Y - 1, 3, "the label -1 is no class"),
        (FocalLossFlat(2.0, WEIGHT.double()), Y, 3, "weight is float64, the outputs are float32"),
        (CrossEntropyLossFlat(), Y.float(), 3, "class numbers are int64, not float32"),
        (
            F.cross_entropy,
            Y + 1,
            3,
            "the label 3 is beyond the 3 outputs: number classes from 0; the last layer needs one",
        ),
        (F.cross_entropy, Y.int(), 3, "class numbers are int64, not int32: give labels.long()"),
        (F.cross_entropy, Y.short(), 3, "class numbers are int64, not int16"),
        (F.cross_entropy, Y.float(), 3, "class numbers are int64, not float32"),
        (F.cross_entropy, Y > 0, 3, "class numbers are int64, not bool"),
        (F.cross_entropy, Y[:, None], 3, "class numbers come as (batch,): give labels.squeeze(1)"),
        (F.cross_entropy, F.one_hot(Y), 3, "one-hot labels have to be probabilities: give labels.float()"),
        (F.cross_entropy, torch.stack([Y, Y, Y, Y], 1), 3, "the last layer needs one output per class"),
        (nn.BCEWithLogitsLoss(), Y > 0, 1, "outputs and labels need one shape"),
        (
            nn.BCEWithLogitsLoss(),
            (Y > 0).long()[:, None],
            1,
            "yes-or-no labels are float32, not int64: give labels.float()",
        ),
        (nn.BCELoss(), YES[:, None], 1, "outputs are no probabilities: end the model in a sigmoid"),
        (nn.BCEWithLogitsLoss(pos_weight=WEIGHT[:2]), F.one_hot(Y).float(), 3, "pos_weight of shape (2,) does not fit"),
        (nn.CrossEntropyLoss(reduction="none"), Y, 3, "gives a loss of shape (8,), training needs one number"),
        (lambda pred, targ: 1.0, Y, 3, "gives a float, training needs a tensor"),
    ],
)
def test_a_failing_loss_says_which_argument_is_to_blame(loss_func, y, n_out, blamed):
    said = fails(loss_func, y, n_out)
    assert blamed in said
    assert ("last layer" in said) == ("last layer" in blamed or "beyond" in blamed)


def test_a_model_that_gives_several_things():
    assert "the model gives a tuple, the loss takes one tensor of outputs" in fails(F.cross_entropy, Y, model=Two(6, 3))


BROADCAST = [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.poisson_nll_loss, F.hinge_embedding_loss]
BROADCAST += [F.multilabel_soft_margin_loss, F.soft_margin_loss, F.binary_cross_entropy_with_logits, nn.MSELoss()]
BROADCAST += [nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(), nn.PoissonNLLLoss(), partial(F.mse_loss, reduction="sum")]


@pytest.mark.parametrize("loss_func", BROADCAST, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_one_output_is_never_broadcast(loss_func):
    said = fails(loss_func, YES, 1)
    assert (
        "model output 8×1 float32 and labels 8 float32: outputs and labels need one shape, nothing is broadcast" in said
    )
    assert "give labels.view_as(outputs)" in said
    assert "nothing is broadcast" in fails(loss_func, YES, 8)  # eight outputs, eight items
    fits = [(X, YES[:, None])]
    learn = Learner(DataLoaders(fits, fits, device="cpu"), nn.Linear(6, 1), loss_func)
    learn.remove_cb(ProgressCallback)
    learn.fit(1, 0.01)


@pytest.mark.parametrize(
    "loss_func", [F.cross_entropy, nn.CrossEntropyLoss(), nn.NLLLoss(), LabelSmoothingCrossEntropy()]
)
def test_one_output_is_no_choice_between_classes(loss_func):
    assert "with one class the loss is always 0" in fails(loss_func, Y * 0, 1)
    squeezed = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
    assert "a vector of outputs for the classes of one item" in fails(loss_func, Y.float(), model=squeezed)


def test_a_loss_of_one_element_trains_like_a_scalar():
    weights = []
    for shape in ((), (1,), (1, 1)):
        torch.manual_seed(0)
        batches = [(X, Y)]
        model = nn.Linear(6, 3)
        loss = lambda pred, targ, shape=shape: F.cross_entropy(pred, targ).reshape(shape)
        learn = Learner(DataLoaders(batches, batches, device="cpu"), model, loss)
        learn.remove_cb(ProgressCallback)
        learn.fit(2, 0.1)
        weights.append(model.weight)
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])


def test_what_torch_does_as_meant_is_let_through():
    soft = torch.rand(12, 3).softmax(1)
    maps = torch.randn(2, 3, 4, 4)
    for loss_func, pred, targ in (
        (F.cross_entropy, X[:, :3], Y),
        (F.cross_entropy, X[:, :3], soft),
        (nn.CrossEntropyLoss(), maps, torch.zeros(2, 4, 4).long()),
        (F.mse_loss, X, X),
        (nn.CosineEmbeddingLoss(), X, Y),
        (lambda pred, targ: pred.mean(), X[:, :1], Y),
    ):
        assert silent_misfit(loss_func, pred, targ) == ""


def test_the_axis_of_the_classes_is_the_losss_own():
    pred, targ = torch.randn(2, 5, 3), torch.zeros(2, 5).long()
    assert misfit(CrossEntropyLossFlat(), pred, targ) == ""
    assert "the label 3 is beyond the 3 outputs" in misfit(CrossEntropyLossFlat(), pred, targ + 3)
    assert "the label 5 is beyond the 5 outputs" in misfit(CrossEntropyLossFlat(axis=1), pred, torch.full((2, 3), 5))
