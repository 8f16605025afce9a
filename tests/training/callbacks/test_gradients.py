"""Gradients gathered over batches are those of one large batch, and clipping is torch's."""

from __future__ import annotations

import copy
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
    Callback,
    DataLoaders,
    GradientAccumulation,
    GradientClip,
    Learner,
    UsageError,
)

IGNORED = torch.tensor([0.5, 3.0, 1.0])


def batches(sizes: list[int], seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    made = [
        (torch.randn(n, 4, generator=generator).double(), torch.randint(3, (n,), generator=generator)) for n in sizes
    ]
    made[0][1][0] = -100  # an ignored label
    return made


def learner(data: list[Any], loss: Any = F.cross_entropy, **options) -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    options = {"lr": 0.5, "opt_func": partial(SGD, mom=0.9)} | options
    return Learner(DataLoaders(data, data[:1], device="cpu"), model, loss, **options)


def joined(data: list[tuple[Tensor, Tensor]], groups: list[list[int]]) -> list[tuple[Tensor, Tensor]]:
    return [tuple(map(torch.cat, zip(*(data[i] for i in group), strict=True))) for group in groups]


@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        nn.CrossEntropyLoss(IGNORED.double(), label_smoothing=0.1),
        partial(F.cross_entropy, reduction="sum"),
        lambda pred, targ: F.cross_entropy(pred, targ.clamp(min=0)),
    ],
    ids=["mean", "weighted", "sum", "own"],
)
@pytest.mark.parametrize(
    ("sizes", "n_acc", "groups"),
    [
        ([4, 4, 4, 4], 8, [[0, 1], [2, 3]]),
        ([4, 4, 4, 4, 4], 8, [[0, 1], [2, 3], [4]]),  # the last group is not complete
        ([5, 2, 6, 3], 7, [[0, 1], [2, 3]]),
        ([5, 5, 5, 1], 8, [[0, 1], [2, 3]]),
        ([4, 4], 1, [[0], [1]]),
        ([4, 4, 3], 100, [[0, 1, 2]]),
    ],
)
def test_small_batches_train_as_large_ones(loss, sizes, n_acc, groups):
    data = batches(sizes)
    gathered = learner(data, loss, cbs=GradientAccumulation(n_acc))
    large = learner(joined(data, groups), loss)
    for learn in (gathered, large):
        learn.fit(3)
    for ours, theirs in zip(gathered.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_recorded_losses_are_those_of_the_batches():
    data = batches([4, 4, 4, 2])
    learn = learner(data, cbs=GradientAccumulation(8), lr=0.0)
    expected = [F.cross_entropy(learn.model(x), y).item() for x, y in data]
    learn.fit(1)
    assert list(learn.recorder.raw_losses) == pytest.approx(expected, rel=1e-6)


class Steps(Callback):
    """Counts steps, and keeps the gradients that the optimizer is given."""

    order = 90

    def before_fit(self):
        self.seen = []

    def before_step(self):
        self.seen.append([p.grad.clone() for p in self.learn.model.parameters()])


def test_statistics_go_on_with_gathered_gradients():
    data = batches([4, 4, 4, 4, 4])
    learn = learner(data, cbs=[GradientAccumulation(8), ActivationStats(with_grads=True), Steps])
    learn.fit(2)
    assert len(learn.steps.seen) == 6
    norms = learn.activation_stats.history.series["grad.norm"][0]
    steps = [1, 3, 4, 6, 8, 9]  # of two epochs of five batches; the others have no step and no gradient
    expected = [float(gradients[0].norm()) for gradients in learn.steps.seen]
    assert norms[steps].tolist() == pytest.approx(expected, rel=1e-5)
    assert np.isnan(np.delete(norms, steps)).all()


@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf")])
def test_clipping_is_of_the_norm_of_all_gradients(norm_type):
    data = batches([4, 4, 4])
    learn = learner(data, cbs=[GradientClip(0.1, norm_type), Steps])
    model = copy.deepcopy(learn.model)
    opt = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    learn.fit(1)
    for (x, y), given in zip(data, learn.steps.seen, strict=True):
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in model.parameters()]), norm_type)
        for p, gradient in zip(model.parameters(), given, strict=True):
            p.grad.mul_(min(1.0, 0.1 / (float(norm) + 1e-6)))
            torch.testing.assert_close(gradient, p.grad)
        opt.step()
    assert float(learn.gradient_clip.total_norm) == pytest.approx(float(norm), rel=1e-6)


def test_gathered_gradients_are_clipped_as_a_whole():
    data = batches([4, 4])
    learn = learner(data, cbs=[GradientClip(0.05), GradientAccumulation(8), Steps])
    learn.fit(1)
    (given,) = learn.steps.seen
    assert float(torch.cat([g.flatten() for g in given]).norm()) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("cb", [GradientClip(), GradientAccumulation(8)])
def test_an_optimizer_that_evaluates_the_loss_itself_is_refused(cb):
    learn = learner(batches([4]), cbs=cb, opt_func=torch.optim.LBFGS)
    with pytest.raises(UsageError, match=f"{type(cb).__name__} does not work with LBFGS"):
        learn.fit(1)


def test_limits_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="max_norm must be positive, got 0"):
        GradientClip(0)
    with pytest.raises(UsageError, match="n_acc must be at least 1"):
        GradientAccumulation(0)
