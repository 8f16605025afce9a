from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.callback.progress import ProgressCallback
from pellucid.callback.schedule import ParamScheduler
from pellucid.data.loader import DataLoaders
from pellucid.errors import UsageError
from pellucid.groups import split_at
from pellucid.learner import Learner
from pellucid.optimizer import SGD, Adam, hypers
from pellucid.schedule import linear
from pellucid.seed import set_seed

N_BATCHES = 6


def learner(**options) -> Learner:
    set_seed(0)
    data = TensorDataset(torch.randn(48, 4), torch.arange(48) % 3)
    loader = TorchDataLoader(data, 8)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 3))
    learn = Learner(DataLoaders(loader, loader, device="cpu"), model, **options)
    learn.remove_cb(ProgressCallback)
    return learn


@pytest.mark.parametrize("opt_func", [Adam, SGD, torch.optim.RMSprop, torch.optim.Adagrad])
def test_every_hyper_parameter_of_an_optimizer_can_be_shown(opt_func):
    learn = learner(opt_func=opt_func)
    learn.fit(2, 0.01)
    axes = learn.recorder.plot_sched(None).axes
    expected = hypers(learn.opt)
    assert len(axes) == len(expected) >= 2
    for ax, values in zip(axes, expected.values(), strict=True):
        assert list(ax.get_lines()[0].get_ydata()) == values * 2 * N_BATCHES
        assert ax.get_ylabel() and "_" not in ax.get_ylabel() and ax.get_xlabel() == "batch"


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
