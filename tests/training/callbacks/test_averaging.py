"""`ModelEMA` against a loop by hand in float64."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.vision.all import (
    SGD,
    Callback,
    DataLoaders,
    KeepBestCallback,
    Learner,
    ModelEMA,
    SaveModelCallback,
    TrainingError,
    UsageError,
)

LR, N_EPOCHS = 0.3, 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()


def batches(n: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 4, generator=generator).double(), torch.arange(8) % 3) for _ in range(n)]


def learner(data: list[Any], **options) -> Learner:
    options = {"lr": LR, "opt_func": partial(SGD, mom=0.0)} | options
    return Learner(DataLoaders(data, data, device="cpu"), network(), F.cross_entropy, **options)


def by_hand(data: list[Any], decay: float) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Averages and weights at the end of each epoch."""
    model, n = network(), 0
    average = {name: value.clone() for name, value in model.state_dict().items()}
    averages, weights = [], []
    for _ in range(N_EPOCHS):
        for x, y in data:
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= LR * p.grad
            n += 1
            d = min(decay, (1 + n) / (10 + n))
            for name, value in model.state_dict().items():
                floating = value.is_floating_point()
                average[name] = d * average[name] + (1 - d) * value if floating else value.clone()
        averages.append(dict(average))
        weights.append(copy.deepcopy(model.state_dict()))
    return averages, weights


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


class Watches(Callback):
    """The model as training, validation and other callbacks find it."""

    order = 80

    def __init__(self) -> None:
        self.validated, self.trained = [], []

    def before_train(self):
        self.trained.append(copy.deepcopy(self.learn.model.state_dict()))

    def after_epoch(self):
        self.validated.append(copy.deepcopy(self.learn.model.state_dict()))


@pytest.mark.parametrize("decay", [0.2, 0.999])
def test_averages_validate_and_stay_and_training_goes_on_with_the_weights(decay):
    data = batches()
    learn = learner(data, cbs=[ModelEMA(decay), Watches])
    averages, weights = by_hand(data, decay)
    learn.fit(N_EPOCHS)
    close(learn.model.state_dict(), averages[-1])
    for epoch in range(N_EPOCHS):
        close(learn.watches.validated[epoch], averages[epoch])
    for epoch in range(1, N_EPOCHS):
        close(learn.watches.trained[epoch], weights[epoch - 1])
    model = network()
    model.load_state_dict(averages[-1])
    expected = torch.stack([F.cross_entropy(model.eval()(x), y) for x, y in data]).mean().item()
    assert learn.final_record[1] == pytest.approx(expected, rel=1e-9)


def test_without_validation_the_averages_stay_too():
    data = batches()
    learn = learner(data, cbs=ModelEMA(0.5))
    learn.dls.valid = None
    learn.fit(N_EPOCHS)
    close(learn.model.state_dict(), by_hand(data, 0.5)[0][-1])


@pytest.mark.parametrize("keeper", [KeepBestCallback("train_loss", comp=lambda value, best: True), SaveModelCallback()])
def test_the_epoch_that_is_kept_is_one_of_averages(keeper, tmp_path):
    data = batches()
    learn = learner(data, cbs=[ModelEMA(0.5), keeper], path=tmp_path)
    learn.fit(N_EPOCHS)
    close(learn.model.state_dict(), by_hand(data, 0.5)[0][learn.recorder.kept])


class Explodes(Callback):
    order = 20

    def after_loss(self):
        if self.learn.training and (self.learn.epoch, self.learn.iter) == (2, 1):
            self.learn.loss = self.learn.loss * float("nan")


def test_after_an_explosion_the_last_good_weights_are_there():
    data = batches()
    learn = learner(data, cbs=[ModelEMA(0.5), Explodes])
    with pytest.raises(TrainingError, match="at the end of epoch 1"):
        learn.fit(N_EPOCHS)
    close(learn.model.state_dict(), by_hand(data, 0.5)[1][1])


@pytest.mark.parametrize("decay", [0, 1, -0.1, 1.5])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(UsageError, match="above 0 and below 1"):
        ModelEMA(decay)
