"""Callbacks that follow a column of the table: what they keep, when they stop, what they lower."""

from __future__ import annotations

import copy
import operator
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.vision.all import (
    SGD,
    Callback,
    DataLoaders,
    EarlyStoppingCallback,
    KeepBestCallback,
    Learner,
    ReduceLROnPlateau,
    SaveModelCallback,
    TrackerCallback,
    TrainingError,
    UsageError,
)

SCORES = [0.2, 0.5, 0.5, 0.4, 0.7, 0.6]


class Scored:
    """A metric with the given value in each epoch, and one of the model's states for each."""

    def __init__(self, values: list[float]):
        self.values, self.epoch = list(values), -1

    @property
    def name(self) -> str:
        return "score"

    def reset(self) -> None: ...
    def update(self, pred: Tensor, targ: Tensor) -> None: ...
    def compute(self) -> float:
        return self.values[0]


class Scores(Callback):
    """Go on to the next score once an epoch is over, and keep the weights and moments of its end."""

    order = 70

    def __init__(self, metric: Scored):
        self.metric, self.weights, self.moments = metric, [], []

    def before_epoch(self) -> None:
        if self.learn.epoch:
            self.metric.values.pop(0)

    def before_validate(self) -> None:
        self.weights.append(copy.deepcopy(self.learn.model.state_dict()))
        moments = self.learn.opt.state.values()
        self.moments.append([{k: v.clone() for k, v in state.items() if v is not None} for state in moments])


def learner(values: list[float], tmp_path, **options) -> Learner:
    torch.manual_seed(0)
    batches = [(torch.randn(8, 4), torch.randint(3, (8,))) for _ in range(3)]
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    metric = Scored(values)
    options = {"lr": 0.1, "opt_func": partial(SGD, mom=0.9), "metrics": metric, "path": tmp_path} | options
    learn = Learner(DataLoaders(batches, batches, device="cpu"), model, F.cross_entropy, **options)
    return learn.add_cb(Scores(metric)).add_cb(TrackerCallback("score"))


def equal(learn: Learner, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in learn.model.state_dict().items())


def test_the_first_of_equal_epochs_is_the_best(tmp_path):
    learn = learner(SCORES[:4], tmp_path)
    learn.fit(4)
    assert (learn.tracker.best, learn.tracker.best_epoch, learn.tracker.new_best) == (0.5, 1, False)


@pytest.mark.parametrize(
    ("options", "best"),
    [
        ({}, 4),
        ({"comp": np.less}, 0),
        ({"comp": operator.le}, 0),  # any function of two values
        ({"min_delta": 0.25}, 1),  # 0.7 is not that much above 0.5
        ({"comp": np.less, "min_delta": 0.3}, 0),
    ],
)
def test_what_better_means_can_be_said(tmp_path, options, best):
    learn = learner(SCORES, tmp_path, cbs=())
    learn.remove_cb(learn.tracker).add_cb(TrackerCallback("score", **options))
    learn.fit(6)
    assert learn.tracker.best_epoch == best


def test_losses_and_errors_are_better_when_lower(tmp_path):
    assert TrackerCallback("valid_loss").comp is TrackerCallback("error_rate").comp is np.less
    assert TrackerCallback("accuracy").comp is np.greater


def test_nan_is_never_the_best(tmp_path):
    learn = learner([float("nan"), 0.1, float("nan")], tmp_path)
    learn.fit(3)
    assert learn.tracker.best_epoch == 1


def test_the_best_value_can_outlive_a_fit(tmp_path):
    learn = learner([0.9, 0.1], tmp_path)
    learn.remove_cb(learn.tracker).add_cb(TrackerCallback("score", reset_on_fit=False))
    learn.fit(1)
    learn.scores.metric.values = [0.5]
    learn.fit(1)
    assert (learn.tracker.best, learn.tracker.best_epoch) == (0.9, None)
    learn.tracker.reset_on_fit = True
    learn.fit(1)
    assert (learn.tracker.best, learn.tracker.best_epoch) == (0.5, 0)


def test_the_best_model_is_saved_and_loaded(tmp_path, capsys):
    learn = learner(SCORES, tmp_path, cbs=SaveModelCallback("score", fname="best"))
    learn.fit(6)
    assert learn.save_model.last_saved_path == tmp_path / "models" / "best.safetensors"
    assert equal(learn, learn.scores.weights[4]) and not equal(learn, learn.scores.weights[5])
    assert learn.recorder.kept == 4 and not learn.opt.state
    assert "the best model by score (0.700000), of epoch 4, is loaded from" in capsys.readouterr().out
    learn.load("best")
    assert learn.recorder.kept is None and equal(learn, learn.scores.weights[4])


def test_moments_are_saved_with_it_if_asked(tmp_path):
    learn = learner(SCORES, tmp_path, cbs=SaveModelCallback("score", with_opt=True))
    learn.fit(6)
    for state, kept in zip(learn.opt.state.values(), learn.scores.moments[4], strict=True):
        assert torch.equal(state["momentum_buffer"], kept["momentum_buffer"])


def test_every_epoch_or_the_last_one_can_be_saved(tmp_path):
    learn = learner(SCORES, tmp_path, cbs=SaveModelCallback("score", fname="m", every_epoch=2))
    learn.fit(5)
    assert sorted(file.name for file in (tmp_path / "models").iterdir()) == [f"m_{i}.safetensors" for i in (0, 2, 4)]
    assert equal(learn, learn.scores.weights[4])
    learn = learner(SCORES, tmp_path, cbs=SaveModelCallback("score", fname="end", at_end=True))
    learn.fit(6)
    last = learn.scores.weights[5]
    assert equal(learn, last) and equal(learn.load("end"), last)


def test_without_a_best_epoch_no_older_file_is_loaded(tmp_path):
    learner(SCORES, tmp_path, cbs=SaveModelCallback("score")).fit(1)
    learn = learner([float("nan")] * 2, tmp_path, cbs=SaveModelCallback("score"))
    learn.fit(2)
    assert equal(learn, learn.scores.weights[1]) and learn.recorder.kept is None


def test_training_stops_when_nothing_gets_better(tmp_path, capsys):
    learn = learner([0.5, 0.6, 0.6, 0.5, 0.9], tmp_path, cbs=EarlyStoppingCallback("score", patience=2))
    learn.fit(5)
    assert len(learn.recorder.values) == 4 and equal(learn, learn.scores.weights[3])
    out = capsys.readouterr().out
    assert "stopped after epoch 3: score was best in epoch 1 (0.600000), and no better in 2 epochs since" in out


def test_stopping_keeps_what_others_do_at_the_end(tmp_path):
    learn = learner([0.5, 0.6, 0.6], tmp_path, cbs=[EarlyStoppingCallback("score"), SaveModelCallback("score")])
    learn.fit(9)
    assert len(learn.recorder.values) == 3 and equal(learn, learn.scores.weights[1])


def test_the_last_epoch_does_not_count_as_stopped(tmp_path, capsys):
    learner([0.5, 0.4], tmp_path, cbs=EarlyStoppingCallback("score")).fit(2)
    assert "stopped" not in capsys.readouterr().out


def test_the_best_epoch_is_kept_in_memory_with_its_moments(tmp_path):
    learn = learner(SCORES, tmp_path, cbs=KeepBestCallback("score"))
    learn.fit(6)
    assert equal(learn, learn.scores.weights[4]) and learn.recorder.kept == 4
    for state, kept in zip(learn.opt.state.values(), learn.scores.moments[4], strict=True):
        assert torch.equal(state["momentum_buffer"], kept["momentum_buffer"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keeper", [KeepBestCallback, SaveModelCallback])
@pytest.mark.parametrize("reset", [False, True])
def test_the_best_of_several_fits_can_be_kept(tmp_path, keeper, reset):
    learn = learner([0.2, 0.9], tmp_path, cbs=keeper("score", reset_on_fit=reset))
    learn.fit(2)
    best = copy.deepcopy(learn.model.state_dict())
    learn.scores.metric.values, learn.scores.weights = [0.5, 0.4], []
    learn.fit(2, reset_opt=True)
    assert equal(learn, learn.scores.weights[0] if reset else best)
    assert learn.recorder.kept == (0 if reset else None)
    if not reset:
        assert not learn.opt.state  # moments of other weights would push these away


class Stops(Callback):
    """Whatever may end a fit, in the middle of an epoch."""

    order = 80

    def __init__(self, error: BaseException):
        self.error = error

    def after_batch(self) -> None:
        if self.learn.training and (self.learn.epoch, self.learn.iter) == (3, 1):
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("disk"), TrainingError("nan")])
def test_the_best_epoch_is_kept_whatever_ends_the_fit(tmp_path, error):
    learn = learner(SCORES, tmp_path, cbs=[KeepBestCallback("score"), Stops(error)])
    with pytest.raises(type(error)):
        learn.fit(6)
    assert equal(learn, learn.scores.weights[1]) and learn.recorder.kept == 1


def test_the_rate_falls_on_a_plateau(tmp_path, capsys):
    reduce = ReduceLROnPlateau("score", patience=2, factor=2, min_lr=0.04)
    learn = learner([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 0.6], tmp_path, cbs=reduce)
    learn.fit(9)
    # Rates of each epoch of three batches: halved after epochs 2 and 4, then held at the lowest.
    assert list(learn.recorder.lrs)[::3] == pytest.approx([0.1] * 3 + [0.05] * 2 + [0.04] * 4)
    out = capsys.readouterr().out
    assert "epoch 2: the learning rate falls to 0.05" in out and "epoch 4: the learning rate falls to 0.04" in out


def test_a_rate_that_a_schedule_sets_cannot_fall(tmp_path):
    learn = learner(SCORES, tmp_path, cbs=ReduceLROnPlateau("score"))
    with pytest.raises(UsageError, match=r"a schedule sets the rate: train with learn\.fit"):
        learn.fit_one_cycle(2)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    learn = learner(SCORES, tmp_path, cbs=EarlyStoppingCallback("acuracy"))
    with pytest.raises(UsageError, match="no column 'acuracy', only train_loss, valid_loss, score"):
        learn.fit(1)
    learn.remove_cb(EarlyStoppingCallback)
    learn.dls.valid = None
    with pytest.raises(UsageError, match="needs a validation loader, and there is none"):
        learn.fit(1)


def test_patience_is_a_number_of_epochs():
    with pytest.raises(UsageError, match="patience must be at least 1"):
        EarlyStoppingCallback(patience=0)
