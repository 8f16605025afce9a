"""After a loss that is no number the learner is as it was at the end of the last sound epoch, bit for bit."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.data.loader import DataLoaders
from pellucid.errors import TrainingError
from pellucid.optim.groups import params
from pellucid.optim.optimizers import SGD, Adam
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.learner import Learner

N_BATCHES, BS = 6, 8


class Weighted(nn.Module):
    """A loss with a weight and a statistic of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, pred: Tensor, targ: Tensor) -> Tensor:
        self.calls += 1
        return (pred - targ).square().mean() * self.scale.square() + 1


class Keeps(Callback):
    """What a learner consists of at the end of each epoch; -1 is before the fit."""

    order = 90

    def __init__(self) -> None:
        self.at: dict[int, list[Any]] = {}

    def before_fit(self):
        self.at[-1] = state(self.learn)

    def after_epoch(self):
        self.at[self.learn.epoch] = state(self.learn)


class Explodes(Callback):
    """Train at a rate that no model survives, from a batch of an epoch on; or at a factor of the loss."""

    order = 30

    def __init__(self, epoch: int, batch: int, lr: float = 1e4, factor: float = 1.0):
        self.start, self.lr, self.factor = epoch * N_BATCHES + batch, lr, factor

    def after_loss(self):
        if self.learn.training and self.learn.train_iter >= self.start:
            self.learn.loss = self.learn.loss * self.factor

    def before_step(self):
        if self.learn.train_iter >= self.start:
            for group in self.learn.opt.param_groups:
                group["lr"] = self.lr


def learner(opt_func: Any = SGD) -> Learner:
    torch.manual_seed(0)
    x = torch.randn(N_BATCHES * BS, 4)
    data = TensorDataset(x, x @ torch.randn(4, 2))
    dls = DataLoaders(TorchDataLoader(data, BS, shuffle=True), TorchDataLoader(data, BS), device="cpu")
    net, loss = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)), Weighted()
    learn = Learner(dls, net, loss, opt_func, splitter=lambda m: [params(m), params(loss)])
    learn.remove_cb(ProgressCallback)
    return learn


def state(learn: Learner) -> list[Any]:
    held = [p for group in learn.opt.param_groups for p in group["params"]]
    moments = [learn.opt.state.get(p) for p in held]
    return copy.deepcopy([learn.model.state_dict(), learn.loss_func.state_dict(), moments])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list) else a == b


OPTIMIZERS = {
    "SGD": SGD,
    "SGD with momentum": partial(SGD, mom=0.9),
    "Adam": Adam,
    "RMSprop": partial(torch.optim.RMSprop, momentum=0.9),
    "Adagrad": torch.optim.Adagrad,
}


@pytest.mark.parametrize("opt_func", OPTIMIZERS)
@pytest.mark.parametrize(
    ("explosion", "sound"),
    [
        (Explodes(0, 0, factor=math.inf), -1),
        (Explodes(0, 3, lr=1e20), -1),
        (Explodes(1, 0, factor=math.nan), -1),  # the loss that would show that epoch 0 was sound is no number
        (Explodes(1, 3, factor=math.nan), 0),
        (Explodes(2, 1, lr=1e20), 1),
        (Explodes(1, 4, lr=1e4), 0),  # epoch 1 ends with finite weights that are lost already
        (Explodes(3, 4, lr=1e30), 2),
        (Explodes(3, 5, lr=math.nan), 2),  # the very last step
    ],
)
def test_back_to_the_end_of_the_last_sound_epoch(opt_func, explosion, sound):
    learn, keeps = learner(OPTIMIZERS[opt_func]), Keeps()
    learn.fit(1, 0.01)  # so that there are moments before the fit
    before_that = learn.validate()[0]
    try:
        learn.fit(4, 0.01, cbs=[keeps, copy.copy(explosion)])
    except TrainingError as error:
        expected = "before this fit" if sound < 0 else f"at the end of epoch {sound}"
        assert f"put back as they were {expected}. Lower the learning rate" in str(error)
        assert same(state(learn), keeps.at[sound])
    else:
        assert (
            explosion.lr == 1e4 and "SGD" not in opt_func
        )  # the others divide by gradients: their loss stays a number
        return
    learn.fit(1, 0.001)
    assert math.isfinite(learn.recorder.raw_losses[0]) and learn.recorder.raw_losses[0] < 5 * before_that


def test_the_epochs_before_are_not_lost_to_one_bad_batch_and_the_record_stays():
    learn = learner()
    learn.fit(1, 0.01)
    with pytest.raises(TrainingError, match="the training loss became nan at epoch 2, batch 1"):
        learn.fit(4, 0.01, cbs=Explodes(2, 1, factor=math.nan))
    assert len(learn.recorder.values) == 2
    assert learn.validate()[0] == pytest.approx(learn.recorder.values[-1][1])


def test_a_first_batch_that_was_easy_by_chance_costs_no_epoch():
    class Lucky(Callback):
        order = 30

        def after_loss(self):
            if self.learn.training and self.learn.train_iter == 0:
                self.learn.loss = self.learn.loss * 1e-4

    learn, keeps = learner(), Keeps()
    with pytest.raises(TrainingError, match="at the end of epoch 2"):
        learn.fit(4, 0.01, cbs=[Lucky(), keeps, Explodes(3, 2, factor=math.nan)])
    assert same(state(learn), keeps.at[2])
