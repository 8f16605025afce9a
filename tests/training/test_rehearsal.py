from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.activations.watch import watch
from pellucid.data.loader import DataLoader, DataLoaders
from pellucid.data.sources import StoredImages
from pellucid.errors import UsageError
from pellucid.metrics import AccumMetric, AvgMetric, F1Score, Metric, accuracy
from pellucid.seed import set_seed
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.learner import Learner
from pellucid.training.rehearsal import rehearse

X, Y = torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3


def stored() -> DataLoaders:
    source = StoredImages((X * 40 + 128).clamp(0, 255).byte().numpy(), np.zeros((40, 1, 2), np.int64))
    train = DataLoader(source, range(30), Y[:30].numpy(), bs=8, shuffle=True, drop_last=True, training=True)
    return DataLoaders(train, DataLoader(source, range(30, 40), Y[30:].numpy(), bs=4), device="cpu")


def shuffled() -> DataLoaders:
    data = TensorDataset(X, Y)
    train = TorchDataLoader(data, 8, shuffle=True, generator=torch.Generator().manual_seed(1))
    return DataLoaders(train, TorchDataLoader(data, 8, shuffle=True), device="cpu")


def listed() -> DataLoaders:
    return DataLoaders([(X[:8], Y[:8]), (X[8:16], Y[8:16])], [(X[16:24], Y[16:24])], device="cpu")


SOURCES = [stored, shuffled, listed]


def learner(make=listed, **options) -> Learner:
    set_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3)
    learn = Learner(make(), nn.Sequential(*layers), **options)
    learn.remove_cb(ProgressCallback)
    return learn


def state() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


BAD = {
    "matrix": (lambda pred, targ: torch.zeros(3, 3), r"an array of shape \(3, 3\)"),
    "array": (lambda pred, targ: np.zeros(2), r"an array of shape \(2,\)"),
    "dict": (lambda pred, targ: {"a": 1.0}, "a dict"),
    "text": (lambda pred, targ: "0.5", "a str"),
    "pair": (lambda pred, targ: (0.5, 0.5), "a tuple"),
    "nothing": (lambda pred, targ: None, "nothing"),
    "complex": (lambda pred, targ: torch.tensor(1j), "a number of type torch.complex64"),
    "later": (AccumMetric(lambda pred, targ: np.eye(3), 1, name="later"), r"an array of shape \(3, 3\)"),
}


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_number_is_refused_before_anything_is_trained(name, make):
    metric, said = BAD[name]
    learn = learner(make, metrics=[accuracy, metric])
    weights, before = copy.deepcopy(learn.model.state_dict()), state()
    with pytest.raises(UsageError, match=rf"the metric .* gave {said}: a metric is one number"):
        learn.fit(1, 0.1)
    assert state() == before and learn.recorder.raw_losses == []
    assert all(torch.equal(v, weights[k]) for k, v in learn.model.state_dict().items())
    with pytest.raises(UsageError, match="a metric is one number"):
        learn.validate()
    learn.metrics = [accuracy]
    learn.fit(1, 0.1)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (F1Score, "is a class: give an instance, F1Score"),
        ("accuracy", "'accuracy' is no metric"),
        ([accuracy, 3], "3 is no metric"),
        (F1Score(), "average='macro'"),
    ],
)
def test_what_is_no_metric(metrics, said):
    learn = learner(metrics=metrics)
    with pytest.raises(UsageError, match=said):
        learn.fit(1, 0.1)
    assert learn.recorder.raw_losses == []


class Noisy:
    """A metric that takes random numbers and keeps count of its batches."""

    def reset(self):
        self.n = 0

    def update(self, pred, targ):
        self.n += 1
        random.random(), np.random.rand(), torch.rand(1)

    def compute(self):
        return self.n


@pytest.mark.parametrize("make", SOURCES)
def test_trying_metrics_changes_nothing(make):
    records = []
    for metrics in ([], [accuracy, Noisy(), AvgMetric(accuracy)]):
        learn = learner(make, metrics=metrics)
        set_seed(3)
        with watch(learn.model) as seen:
            learn.fit(1, 0.05)
        records.append((learn.model.state_dict(), learn.recorder.raw_losses, seen.history.to_arrays()))
    (weights, losses, seen), (tried_weights, tried_losses, tried_seen) = records
    assert losses == tried_losses
    assert all(torch.equal(v, weights[k]) for k, v in tried_weights.items())
    assert all(np.array_equal(v, seen[k], equal_nan=True) for k, v in tried_seen.items())
    assert learn.recorder.values[0][3] == len(learn.dls.valid)


def test_modules_keep_their_modes():
    learn = learner(metrics=accuracy)
    learn.model.train()
    learn.model[3].eval()
    rehearse(learn, learn.metrics)
    assert [m.training for m in learn.model] == [True, True, True, False, True, True]


class Prepare(Callback):
    """Give the metrics what they want, in validation too."""

    def after_pred(self):
        self.learn.pred = self.learn.pred[0]


def by_function() -> Callback:
    return Callback(after_pred=lambda self: setattr(self.learn, "pred", self.learn.pred[0]))


class Pair(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x), x


@pytest.mark.parametrize("make", [Prepare, by_function])
def test_a_callback_may_prepare_what_metrics_get(make):
    learn = learner(metrics=accuracy, cbs=make())
    learn.model = Pair(learn.model)
    learn.fit(1, 0.1)
    assert 0 <= learn.recorder.values[0][2] <= 1


def test_a_loader_that_can_be_read_once_is_left_alone():
    class Stream:
        def __init__(self, batches):
            self.batches = iter(batches)

        def __len__(self):
            return 2

        def __iter__(self):
            return self.batches

    learn = learner(metrics=accuracy)
    learn.dls.valid = Stream([(X[:8], Y[:8]), (X[8:16], Y[8:16])])
    learn.fit(1, 0.1)
    with torch.no_grad():
        right = learn.model.eval()(X[:16]).argmax(1) == Y[:16]
    assert learn.recorder.values[0][2] == pytest.approx(right.double().mean().item())


def test_a_score_that_one_batch_does_not_have():
    def spread(pred, targ):
        if len(targ) < 16:
            raise ZeroDivisionError("too few items")
        return pred.double().mean()

    batches = [(X[:8], Y[:8]), (X[8:16], Y[8:16])]
    learn = learner(lambda: DataLoaders(batches, batches, device="cpu"), metrics=AccumMetric(spread, flatten=False))
    learn.fit(1, 0.1)
    assert np.isfinite(learn.recorder.values[0][2])


class ShareOfZerosMetric(Metric):
    """A metric in fastai's form."""

    def reset(self):
        self.zeros = self.n = 0

    def accumulate(self, learn):
        assert learn.y is learn.yb[0] and len(learn.pred) == len(learn.y)
        self.zeros += int((learn.y == 0).sum())
        self.n += len(learn.y)

    @property
    def value(self):
        return self.zeros / self.n


def test_a_metric_in_fastais_form():
    learn = learner(metrics=[ShareOfZerosMetric(), AvgMetric(accuracy), F1Score(average="macro")])
    learn.fit(1, 0.1)
    assert learn.recorder.values[0][2] == pytest.approx((Y[16:24] == 0).double().mean().item())
    assert learn.recorder.metric_names[3:-1] == ["share_of_zeros", "accuracy", "f1_score"]
    with pytest.raises(NotImplementedError):
        learner(metrics=Metric()).fit(1, 0.1)
    for metric in learn.metrics[1:]:
        metric.reset()
        learn.pred, learn.yb = torch.eye(3)[Y[:6]], (Y[:6],)
        metric.accumulate(learn)
        assert float(metric.value) == 1
