"""Which epoch a run holds: the one with the best validation accuracy, also where the training went on after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from pellucid.cli import app
from pellucid.errors import UsageError
from pellucid.runs import Run, Settings, describe_run, load_run, train, training
from pellucid.training.callbacks.tracking import KeepBestCallback
from pets import write_noise


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_noise(tmp_path / "grey", lighter=20)


def trained(folder: Path, monkeypatch, accuracies: list[float], **options) -> tuple[Run, list[dict[str, Tensor]]]:
    """A run whose epochs have these accuracies, and the weights at the end of each."""
    weights = []

    class Given(KeepBestCallback):
        def after_epoch(self) -> None:
            self.learn.recorder.values[-1][-1] = accuracies[self.learn.epoch]
            weights.append({name: value.clone() for name, value in self.learn.model.state_dict().items()})
            super().after_epoch()

    monkeypatch.setattr(training, "KeepBestCallback", Given)
    return train(Settings(str(folder), size=0, epochs=len(accuracies), **options), out="run"), weights


def test_the_run_holds_the_first_of_the_best_epochs(folder, monkeypatch):
    run, weights = trained(folder, monkeypatch, [0.5, 0.8, 0.6, 0.8])
    assert json.loads((run.folder / "run.json").read_text())["epoch"] == run.epoch == 1
    assert run.result == run.results[1] and run.result["accuracy"] == 0.8
    held = load_file(run.folder / "model.safetensors")
    assert all((held[name] == value).all() for name, value in weights[1].items())
    assert not all((held[name] == value).all() for name, value in weights[3].items())
    assert load_run(run.folder).epoch == 1
    assert describe_run(run.folder).endswith(
        f"4 epochs, valid loss {run.results[1]['valid_loss']:.4f}, accuracy 0.8000"
    )


def test_patience_ends_a_training(folder, monkeypatch, capsys):
    run, _ = trained(folder, monkeypatch, [0.5, 0.7, 0.7, 0.6, 0.9], patience=2)
    assert (run.epoch, len(run.results)) == (1, 4)
    assert "stopped after epoch 3: accuracy was best in epoch 1" in capsys.readouterr().out


def test_the_command_says_which_epoch_the_run_holds(folder):
    done = CliRunner().invoke(
        app, ["train", str(folder), "--size", "0", "--epochs", "4", "--patience", "4", "--out", "run"]
    )
    run = load_run("run")
    accuracies = [epoch["accuracy"] for epoch in run.results]
    assert done.exit_code == 0 and run.epoch == accuracies.index(max(accuracies))
    assert f"run saved in run, as it was after epoch {run.epoch}, the best of 4" in done.output
    assert f"accuracy {max(accuracies):.4f} on 16 validation images" in done.output
    assert run.settings["settings"]["patience"] == 4


def test_an_interrupted_training_holds_its_best_epoch(folder, monkeypatch):
    class Stops(KeepBestCallback):
        def after_batch(self) -> None:
            if self.learn.training and self.learn.epoch == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(training, "KeepBestCallback", Stops)
    with pytest.raises(KeyboardInterrupt, match=r"is in run, as it was after epoch [01], the best one"):
        train(Settings(str(folder), size=0, epochs=9), out="run")
    run = load_run("run")
    assert len(run.results) == 2 and run.epoch == int(run.results[1]["accuracy"] > run.results[0]["accuracy"])


@pytest.mark.parametrize("epoch", [3, -1, 1.5, "1", True])
def test_an_epoch_that_cannot_be_is_refused(folder, epoch):
    run = train(Settings(str(folder), size=0, epochs=2), out="run")
    file = run.folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"epoch": epoch}))
    with pytest.raises(UsageError, match=r"damaged, .*epoch"):
        load_run(run.folder)


def test_patience_must_be_a_number_of_epochs():
    with pytest.raises(UsageError, match="patience must be at least 1, got 0"):
        Settings("mnist", patience=0)
