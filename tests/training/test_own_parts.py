"""A norm, a metric, a schedule and a callback are written in one place and then work everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from pellucid import convolution as cv
from pellucid.cli import app
from pellucid.convolution.connectivity import Gather, Read, axes, rule
from pellucid.metrics import accuracy
from pellucid.nn.models import simple_cnn
from pellucid.nn.norms import norm
from pellucid.optim.groups import params
from pellucid.runs import load_record, load_run, training
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.schedule import ParamScheduler
from pellucid.vision.all import ImageDataLoaders, Learner


@norm
class ScaleNorm(nn.Module):
    """A norm: each pixel divided by the size of its channels, times a learned scale."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, n, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.pow(2).mean(1, keepdim=True) + 1e-5).sqrt() * self.scale


@rule("ScaleNorm")
def scale_norm(out, x):
    """What it reads: all channels of its own pixel."""
    return [Read(x, (Gather(1, axes.everything(x.shape[1], out[1])),))]


class Surest:
    """A metric: the largest output of a whole set."""

    name = "surest"

    def reset(self) -> None:
        self.value = -torch.inf

    def update(self, output: Tensor, y: Tensor) -> None:
        self.value = max(self.value, output.max().item())

    def compute(self) -> float:
        return self.value


class Steps(Callback):
    """A callback: counts steps."""

    def before_fit(self) -> None:
        self.n = 0

    def after_step(self) -> None:
        self.n += 1


def staircase(start: float):
    """A schedule: half of it in the second half."""
    return lambda pos: start if pos < 0.5 else start / 2


@pytest.fixture
def learn(mnist_sample):
    dls = ImageDataLoaders.from_folder(mnist_sample, train="train", valid="valid", bs=512)
    return Learner(dls, simple_cnn(3, 2), metrics=[accuracy, Surest()], cbs=Steps())


def normed() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, 2), ScaleNorm(4), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten()),
        nn.Linear(2 * 11 * 11, 2),
    )  # fmt: skip


def test_a_norm_is_trained_without_decay_and_in_frozen_groups(learn):
    model = normed()
    learn = Learner(learn.dls, model, splitter=lambda m: [params(m[0]), params(m[1:])], wd=0.1)
    learn.freeze()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.01)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert "0.1.scale" in moved and not {"0.0.weight", "0.0.bias"} & moved
    decay = {id(p): group["weight_decay"] for group in learn.opt.param_groups for p in group["params"]}
    assert decay[id(model[0][1].scale)] == 0 and decay[id(model[0][0].weight)] == 0.1


def test_a_norm_is_explained():
    model, x = normed().double().eval(), torch.rand(1, 3, 28, 28, dtype=torch.float64)
    field = cv.receptive_field(model, (3, 28, 28))
    spoiled = x.repeat(28 * 28, 1, 1, 1)
    spoiled.flatten(2).diagonal(dim1=0, dim2=2).fill_(torch.nan)
    with torch.no_grad():
        seen = model[0](spoiled).isnan()[:, 0, 4, 5].reshape(28, 28)
    np.testing.assert_array_equal(field.mask("0.1", (4, 5)), seen)
    found = cv.trace(model, x, "0.1", (4, 5), channel=2)
    np.testing.assert_array_equal(found.precedents()["image"].any(0), seen)
    with torch.no_grad():
        value = model[0][:2](x)[0, 2, 4, 5].item()
    assert found.immediate().products.sum() + found.immediate().bias == pytest.approx(value)
    (row,) = [row for row in cv.layer_counts(model, (3, 28, 28)).rows if row.kind == "ScaleNorm"]
    assert row.n_params == 4


def test_a_metric_is_in_table_record_and_run_folder(learn, tmp_path, capsys):
    learn.fit(1, 0.01)
    assert "surest" in capsys.readouterr().out
    largest = learn.get_preds(act=lambda output: output)[0].max().item()
    assert [learn.final_record[-1], learn.validate()[-1]] == pytest.approx([largest] * 2, rel=1e-5)
    learn.save_run(tmp_path / "run", simple_cnn)
    assert load_run(tmp_path / "run").results[-1]["surest"] == pytest.approx(largest, rel=1e-5)


def test_a_callback_is_called_and_found(learn):
    with learn.no_logging():
        learn.fit(1, 0.01)
    assert learn.steps.n == len(learn.dls.train) == learn.train_iter


def test_a_schedule_sets_the_rate_and_is_recorded(learn, tmp_path):
    with learn.no_logging():
        learn.fit(2, 0.02, cbs=ParamScheduler({"lr": staircase(0.02)}))
    n = 2 * len(learn.dls.train)
    expected = [0.02 if k / n < 0.5 else 0.01 for k in range(n)]
    np.testing.assert_allclose(learn.recorder.lrs, expected, rtol=1e-6)


def test_a_schedule_that_is_named_is_known_to_the_command_line(photos, tmp_path, monkeypatch):
    fit = lambda learn, epochs, lr: learn.fit(epochs, lr, cbs=ParamScheduler({"lr": staircase(lr)}))
    monkeypatch.setitem(training.SCHEDULES, "staircase", fit)
    run = tmp_path / "run"
    command = ["train", str(photos), "--schedule", "staircase", "--epochs", "2", "--size", "32", "--out", str(run)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    rates = load_record(run)["hyper.lr"]
    assert rates.max() == pytest.approx(5e-3) and rates.min() == pytest.approx(2.5e-3)
    assert load_run(run).settings["settings"]["schedule"] == "staircase"
    refused = CliRunner().invoke(app, [*command, "--schedule", "stairs"])
    assert "staircase" in str(refused.exception)
