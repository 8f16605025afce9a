from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.data.loader import DataLoaders
from pellucid.errors import UsageError
from pellucid.metrics import accuracy
from pellucid.optim.groups import split_at
from pellucid.optim.hypers import hypers
from pellucid.optim.optimizers import SGD, Adam
from pellucid.schedule import linear
from pellucid.seed import set_seed
from pellucid.training.callbacks import recorder as home
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.curves import Curves
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.schedule import ParamScheduler
from pellucid.training.learner import Learner

N_BATCHES = 6


def learner(**options) -> Learner:
    set_seed(0)
    data = TensorDataset(torch.randn(48, 4), torch.arange(48) % 3)
    loader = TorchDataLoader(data, 8)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 3))
    learn = Learner(DataLoaders(loader, loader, device="cpu"), model, **options)
    learn.remove_cb(ProgressCallback)
    return learn


TORCHS = ("RMSprop", "Adagrad", "Adadelta", "Adafactor", "Adamax", "ASGD", "NAdam", "RAdam")


@pytest.mark.parametrize("opt_func", [Adam, SGD, *(getattr(torch.optim, name) for name in TORCHS)])
def test_every_hyper_parameter_of_an_optimizer_can_be_shown(opt_func):
    learn = learner(opt_func=opt_func)
    learn.fit(2, 0.01)
    axes = learn.recorder.plot_sched(None).axes
    expected = hypers(learn.opt)
    assert len(axes) == len(expected) >= 2
    for ax, values in zip(axes, expected.values(), strict=True):
        assert list(ax.get_lines()[0].get_ydata()) == values * 2 * N_BATCHES
        assert ax.get_ylabel() and "_" not in ax.get_ylabel() and ax.get_xlabel() == "batch"


@pytest.mark.parametrize(
    "fit",
    [
        lambda learn: learn.fit(1, wd=-1.0),
        lambda learn: learn.fit_one_cycle(1, moms=(0.9, 2.0, 0.9)),
        lambda learn: learn.fit_one_cycle(1, div=0),
        lambda learn: learn.fit_flat_cos(1, div_final=0),
    ],
)
def test_nothing_is_trained_with_impossible_settings(fit):
    learn = learner()
    before = [p.detach().clone() for p in learn.model.parameters()]
    with pytest.raises(UsageError, match=r"must be|at least 0"):
        fit(learn)
    assert all(torch.equal(p, q) for p, q in zip(learn.model.parameters(), before, strict=True))


def test_a_constant_is_read_off_its_axis():
    learn = learner()
    learn.fit(1, 0.003)
    lr, mom = learn.recorder.plot_sched().axes
    assert [tick.get_text() for tick in lr.get_yticklabels()] == ["0.003"]
    assert [tick.get_text() for tick in mom.get_yticklabels()] == ["0.9"]


def test_groups_that_differ_have_a_line_each():
    learn = learner(splitter=split_at(2, 3))
    rates = [linear(0, lr) for lr in (1e-4, 1e-3, 1e-2)]
    learn.fit(1, cbs=ParamScheduler({"lr": rates, "wd": linear(0.1, 0.2)}))
    lr, mom, wd = learn.recorder.plot_sched(["lr", "mom", "wd"]).axes
    assert len(lr.get_lines()) == 3 and len(mom.get_lines()) == len(wd.get_lines()) == 1
    for group, line in enumerate(lr.get_lines()):
        assert line.get_ydata() == pytest.approx(np.linspace(0, 10.0 ** (group - 4), 7)[:6])
    labels = [text.get_text() for text in lr.get_legend().get_texts()]
    assert labels == ["group 0 (input side)", "group 1", "group 2 (output side)"]
    assert wd.get_lines()[0].get_ydata() == pytest.approx(np.linspace(0.1, 0.2, 7)[:6])
    assert wd.get_ylabel() == "weight decay"


def test_names_of_hyper_parameters():
    learn = learner()
    with pytest.raises(UsageError, match="train at least one batch first"):
        learn.recorder.plot_sched()
    learn.fit(1, 0.01)
    (ax,) = learn.recorder.plot_sched("sqr_mom").axes
    assert ax.get_ylabel() == "squared-gradient momentum"
    with pytest.raises(
        UsageError, match="no hyper-parameter 'momentum' was recorded; there are lr, mom, sqr_mom, eps, wd"
    ):
        learn.recorder.plot_sched(["lr", "momentum"])


class Last(Callback):
    """Runs a function of itself after the recorder's turn in each training batch."""

    order, run_valid = 51, False

    def __init__(self, look):
        self.look = look

    def after_batch(self):
        self.look(self)


def test_the_record_is_current_after_each_batch():
    def look(self):
        recorder = self.recorder
        raw.append(self.loss.item())
        rates.append(hypers(self.opt)["lr"][-1])
        read = len(recorder.losses_read)
        assert recorder.lrs == rates and len(recorder.losses_read) == read < len(raw)  # rates do not wait for losses
        if len(raw) % 3:
            return
        mean = 0.0
        for loss in raw:
            mean = 0.98 * mean + 0.02 * loss
        assert recorder.losses[-1] == pytest.approx(mean / (1 - 0.98 ** len(raw)), rel=1e-6)
        assert recorder.losses_read == recorder.losses and len(recorder.losses) == len(raw)
        assert self.smooth_loss == recorder.losses[-1] and self.smooth_loss.item() == float(self.smooth_loss)
        assert recorder.raw_losses == raw

    raw: list[float] = []
    rates: list[float] = []
    learn = learner()
    learn.fit_one_cycle(2, 0.01, cbs=Last(look))
    assert learn.recorder.raw_losses == raw and learn.recorder.lrs == rates and len(raw) == 2 * N_BATCHES


@pytest.mark.parametrize("n_epoch", [1, 2, 4, 7])
def test_a_long_fit_keeps_values_of_equal_stretches(n_epoch, monkeypatch):
    ends = []
    for capacity in (10_000, 8):
        monkeypatch.setattr(home, "Curves", partial(Curves, capacity=capacity))
        learn = learner(splitter=split_at(2), metrics=accuracy)
        learn.fit_one_cycle(n_epoch, slice(1e-4, 1e-2))
        ends.append(learn)
    exact, short = (learn.recorder for learn in ends)
    n = n_epoch * N_BATCHES
    stride = next(s for s in (1, 2, 4, 8) if s * 8 >= n)
    assert short.steps.tolist() == [min(end, n) for end in range(stride, n + stride, stride)]
    assert exact.steps.tolist() == list(range(1, n + 1))
    assert short.values == exact.values and short.iters == exact.iters == [N_BATCHES * (i + 1) for i in range(n_epoch)]
    last = short.steps - 1
    assert short.losses == np.array(exact.losses)[last].tolist() and short.losses[-1] == exact.losses[-1]
    assert short.lrs == np.array(exact.lrs)[last].tolist()
    assert short.hypers["lr"] == np.array(exact.hypers["lr"])[last].tolist()
    means = [np.mean(exact.raw_losses[start : start + stride]) for start in range(0, n, stride)]
    assert short.raw_losses == pytest.approx(means)
    line = short.plot_loss(skip_start=0).axes[0].get_lines()[0]
    assert list(line.get_xdata()) == short.steps.tolist() and list(line.get_ydata()) == short.losses
    assert list(short.plot_sched("lr").axes[0].get_lines()[1].get_xdata()) == short.steps.tolist()
    arrays = short.to_arrays()
    assert arrays["step"].tolist() == short.steps.tolist() and arrays["hyper.lr"].shape == (len(short.steps), 2)


def test_scheduled_hyper_parameters():
    learn = learner(splitter=split_at(2))
    learn.fit_one_cycle(1, slice(1e-3, 1e-2))
    hps = learn.recorder.hps
    assert list(hps) == ["lr", "mom"] and hps["lr"] == learn.recorder.lrs and len(hps["mom"]) == N_BATCHES
    assert hps["lr"] == [groups[-1] for groups in learn.recorder.hypers["lr"]] and hps["mom"][0] == 0.95
    learn.fit_flat_cos(1, 1e-3)
    assert list(learn.recorder.hps) == ["lr"]
    learn.fit(1, 1e-3, cbs=ParamScheduler({"wd": linear(0.1, 0.2)}))
    assert learn.recorder.hps["wd"] == pytest.approx(np.linspace(0.1, 0.2, 7)[:6])
    learn.fit(1, 1e-3)
    assert learn.recorder.hps == {} and list(learn.recorder.hypers) == ["lr", "mom", "sqr_mom", "eps", "wd"]


def test_the_log_is_the_row_of_the_table():
    seen: list = []
    cb = Callback(after_epoch=lambda self: seen.append((list(self.recorder.log), self.recorder.values[-1])))
    cb.order = 51
    learn = learner(metrics=accuracy, cbs=cb)
    logged: list = []
    learn.logger = logged.append
    learn.fit(2, 0.01)
    assert logged == [log for log, _ in seen] and [log[0] for log in logged] == [0, 1]
    for log, values in seen:
        assert log[1:-1] == values and len(log) == len(learn.recorder.metric_names)
        assert re.fullmatch(r"\d\d:\d\d", log[-1])
    assert learn.recorder.metric_names == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert learn.final_record == learn.recorder.values[-1]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "00:00"), (61, "01:01"), (3599.4, "59:59"), (7261, "2:01:01")])
def test_durations(seconds, text):
    assert home.clock(seconds) == text


def test_parameter_groups_that_come_and_go():
    def change(self):
        if self.train_iter == 2:
            self.learn.opt = torch.optim.SGD([{"params": [p]} for p in self.model.parameters()], lr=0.5, momentum=0.1)

    learn = learner()
    learn.fit(1, 0.01, cbs=Last(change))
    rates = np.array(learn.recorder.hypers["lr"])
    assert rates.shape == (N_BATCHES, 6) and (rates[:2, 0] == 0.01).all() and np.isnan(rates[:2, 1:]).all()
    assert (rates[2:] == 0.5).all() and learn.recorder.lrs[2:] == [0.5] * 4
    assert np.isnan(np.array(learn.recorder.hypers["eps"])[2:]).all()


def test_it_prints_itself():
    learn = learner(metrics=accuracy)
    assert repr(learn.recorder) == "Recorder: nothing recorded yet"
    learn.fit(2, 0.01)
    assert re.fullmatch(
        r"Recorder: 12 batches, 2 epochs, train_loss \d\.\d+, valid_loss \d\.\d+, accuracy [\d.]+", repr(learn.recorder)
    )


def test_the_loss_on_logarithmic_axes_with_epochs():
    learn = learner()
    learn.fit(3, 0.01)
    (ax,) = learn.recorder.plot_loss(5, True, True, True).axes
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert [line.get_xdata()[0] for line in ax.get_lines()[2:]] == learn.recorder.iters
