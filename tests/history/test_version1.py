"""Histories of version 1, in two files of a run folder as pellucid wrote them until 0.1, are read as one of today."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import pellucid
from pellucid.errors import UsageError
from pellucid.runs import load_history, load_record

RUN = Path(__file__).parent / "version1"  # 2 epochs of 3 batches, two parameter groups, statistics with histograms
CURVES, LAYERS = (load_file(folder / "history.safetensors") for folder in (RUN, RUN / "seen"))
EPOCHS = [[1.006898, 0.953459, 0.375], [0.968176, 0.906203, 0.375]]


def same(found, expected) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_the_losses_and_hyper_parameters_of_a_recorder():
    history = pellucid.History.load(RUN)
    assert history.layers == [] and history.train.count.shape == (0, 0)
    assert history.steps.tolist() == [1, 2, 3, 4, 5, 6]
    same(history.loss, CURVES["loss"])
    same(history.smooth_loss, CURVES["smooth_loss"])
    same(history.hypers["lr"], CURVES["hyper.lr"].T)
    assert set(history.hypers) == {"lr", "mom", "sqr_mom", "eps", "wd"}
    assert list(history.epochs) == ["train_loss", "valid_loss", "metric_1"]  # the file did not name its metrics
    np.testing.assert_allclose(np.stack(list(history.epochs.values()), axis=1), EPOCHS, atol=1e-6)
    assert history.series["epoch_end"].tolist() == [3, 6]
    assert str(history).startswith("History of 6 training steps, 2 epochs, loss 1.01 to 0.783")


def test_the_layers_of_a_watch():
    history = pellucid.History.load(RUN / "seen")
    assert [(layer.name, layer.kind, layer.shape) for layer in history.layers] == [
        ("0", "Conv2d", (2, 2, 2)),
        ("1", "ReLU", (2, 2, 2)),
        ("3", "Linear", (2,)),
    ]
    same(history.train.hist, LAYERS["train.hist"])
    same(history.valid.mean, LAYERS["valid.mean"])
    same(history.kernels, LAYERS["kernels"])
    same(history.series["grad.norm"], LAYERS["grad.norm"])
    same(history.loss, LAYERS["loss"])
    same(history.hypers["lr"], LAYERS["hyper.lr"])  # a parameter group a row, then and now
    assert history.steps.tolist() == LAYERS["train.steps"][:, 1].tolist()


def test_a_run_folder_has_both():
    history = load_history(RUN)
    same(history.train.mean, LAYERS["train.mean"])
    same(history.loss, CURVES["loss"])
    assert history.hypers["lr"].shape == (2, 6)  # the learner's groups, not the finer ones of its optimizer
    assert len(history.epochs["valid_loss"]) == 2
    same(load_record(RUN)["hyper.lr"], CURVES["hyper.lr"])


def test_it_is_written_as_version_2_and_comes_back(tmp_path):
    before = load_history(RUN)
    again = pellucid.History.load(before.save(tmp_path))
    assert again.layers == before.layers and again.epoch_columns == before.epoch_columns
    assert again.to_arrays().keys() == before.to_arrays().keys()
    for name, values in before.to_arrays().items():
        same(again.to_arrays()[name], values)


def test_a_folder_of_old_with_losses_alone(tmp_path):
    shutil.copy(RUN / "history.safetensors", tmp_path)
    history = load_history(tmp_path)
    line = history.plot_loss(skip_start=0).axes[0].get_lines()[0]
    assert list(line.get_ydata()) == CURVES["smooth_loss"].tolist() and list(line.get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert len(history.plot_sched().axes) == 2
    for draw in (history.plot, history.dead_chart, history.show_kernels, lambda: history.color_dim(0)):
        with pytest.raises(UsageError, match="no layers were recorded, only the loss"):
            draw()
