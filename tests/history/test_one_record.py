"""What a Learner's Recorder and its ActivationStats record is one history, in one file of a run folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

import pellucid
from pellucid import cli
from pellucid.data.loader import DataLoaders
from pellucid.history import pictures
from pellucid.history.history import History
from pellucid.metrics import accuracy
from pellucid.nn.models import simple_cnn
from pellucid.optim.groups import split_at
from pellucid.runs import load_history
from pellucid.training.callbacks.recorder import Recorder
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.training.learner import Learner


def trained(*cbs, **options) -> Learner:
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(24, 1, 28, 28), torch.arange(24) % 2)
    dls = DataLoaders(TorchDataLoader(data, 6), TorchDataLoader(data, 12), device="cpu")
    learn = Learner(dls, simple_cnn(1, 2, 28), nn.CrossEntropyLoss(), metrics=accuracy, cbs=list(cbs), **options)
    learn.fit_one_cycle(2, 0.01)
    return learn


@pytest.fixture(scope="module")
def learn() -> Learner:
    return trained(ActivationStats(with_hist=True, with_grads=True), splitter=split_at(2))


def test_the_statistics_have_the_curves_of_the_recorder(learn):
    history, recorder = learn.activation_stats.history, learn.recorder
    assert history.train.mean.shape[1] == 8
    assert history.loss.tolist() == recorder.raw_losses and history.smooth_loss.tolist() == recorder.losses
    assert history.steps.tolist() == recorder.steps.tolist() == list(range(1, 9))
    assert {name: values.T.tolist() for name, values in history.hypers.items()} == dict(recorder.hypers.items())
    assert list(history.epochs) == recorder.metric_names[1:-1] == ["train_loss", "valid_loss", "accuracy"]
    assert np.stack(list(history.epochs.values()), axis=1).tolist() == recorder.values
    assert history.series["epoch_end"].tolist() == recorder.iters == [4, 8]
    assert (history.series["update.ratio"] > 0).any()


def test_without_a_recorder_they_record_the_loss_themselves():
    stats = ActivationStats()
    learn = trained(stats, default_cbs=False)
    assert not hasattr(learn, "recorder")
    assert len(stats.history.loss) == 8 and stats.history.hypers["lr"].shape[1] == 8
    assert len(stats.plot_loss().axes) == 1


@pytest.mark.parametrize("with_layers", [True, False])
def test_a_run_folder_has_one_history(learn, tmp_path, with_layers):
    learn = learn if with_layers else trained()
    folder = learn.save_run(tmp_path / "run", "simple_cnn")
    assert [str(file.relative_to(folder)) for file in folder.rglob("history.safetensors")] == ["history.safetensors"]
    history = load_history(folder)
    np.testing.assert_array_equal(history.loss, np.float32(learn.recorder.raw_losses))
    assert history.epochs["accuracy"].tolist() == pytest.approx([row[2] for row in learn.recorder.values])
    assert bool(history.layers) == with_layers == (folder / "history.json").exists()
    if with_layers:
        assert json.loads((folder / "history.json").read_text())["schema"] == 2
        np.testing.assert_array_equal(history.train.hist, learn.activation_stats.history.train.hist)


def test_the_file_that_is_kept_up_to_date_has_everything_too(tmp_path):
    learn = trained(ActivationStats(folder=tmp_path))
    history = pellucid.History.load(tmp_path)
    np.testing.assert_array_equal(history.loss, np.float32(learn.recorder.raw_losses))
    assert len(history.layers) > 2 and len(history.epochs["valid_loss"]) == 2


def test_a_recorder_and_its_history_draw_the_same(learn):
    for name in ("plot_loss", "plot_sched"):
        ours, theirs = getattr(learn.recorder, name)(), getattr(learn.activation_stats.history, name)()
        for a, b in zip(ours.axes, theirs.axes, strict=True):
            for one, other in zip(a.get_lines(), b.get_lines(), strict=True):
                np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
    assert isinstance(learn.recorder, Recorder) and isinstance(learn.recorder.history, History)


@pytest.fixture
def show(learn, tmp_path, monkeypatch):
    """The command, on a run of this learner; returns its exit code."""
    folder = learn.save_run(tmp_path / "run", "simple_cnn")

    def run(*args: object) -> int:
        monkeypatch.setattr(sys, "argv", ["pellucid", "show", str(folder), *map(str, args)])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code

    return run


@pytest.mark.parametrize("name", list(pictures.PICTURES))
def test_every_picture_can_be_had_on_the_command_line(show, tmp_path, name):
    options = ["--layer", "-2"] if pictures.PICTURES[name].of_layer else []
    assert show("--picture", name, *options) == 0
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_a_new_picture_is_a_function_with_a_name(show, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "PICTURES", dict(pictures.PICTURES))
    seen = []

    @pictures.picture("largest")
    def plot_largest(history: History, idx: int | str, step: int | None = None):
        seen.append((idx, step, float(history.train.max[history.index(idx)].max())))
        figure, ax = plt.subplots()
        ax.plot(history.steps, history.train.max[history.index(idx)])
        return figure

    assert show("--picture", "largest", "--layer", "-2", "--step", "3", "--out", "mine.png") == 0
    assert Path(tmp_path / "mine.png").exists() and seen[0][:2] == (-2, 3) and seen[0][2] > 0
    assert show("--picture", "largest") == 2 and "--picture largest needs --layer" in capsys.readouterr().err
    assert show("--picture", "lagest") == 2 and "kernels, hist, largest" in capsys.readouterr().err
