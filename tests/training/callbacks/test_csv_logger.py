from __future__ import annotations

import csv

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pellucid.vision.all import Callback, CSVLogger, DataLoaders, Learner, UsageError, accuracy


def learner(path, **options) -> Learner:
    torch.manual_seed(0)
    data = [(torch.randn(8, 4), torch.arange(8) % 3) for _ in range(2)]
    dls = DataLoaders(data, data, device="cpu")
    return Learner(dls, nn.Linear(4, 3), F.cross_entropy, metrics=accuracy, path=path, **options)


def rows(file) -> list[list[str]]:
    with file.open(newline="") as lines:
        return list(csv.reader(lines))


def test_the_file_holds_the_table(tmp_path):
    learn = learner(tmp_path / "new", cbs=CSVLogger())
    learn.fit(3)
    header, *epochs = rows(tmp_path / "new" / "history.csv")
    assert header == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert [row[0] for row in epochs] == ["0", "1", "2"]
    assert [[float(value) for value in row[1:-1]] for row in epochs] == learn.recorder.values
    assert learn.csv_logger.read_log()["accuracy"].tolist() == [row[2] for row in learn.recorder.values]


class Stops(Callback):
    def before_epoch(self):
        if self.learn.epoch == 2:
            raise KeyboardInterrupt


def test_each_epoch_is_there_when_it_is_over(tmp_path):
    learn = learner(tmp_path, cbs=[CSVLogger("a.csv"), Stops])
    with pytest.raises(KeyboardInterrupt):
        learn.fit(3)
    assert len(rows(tmp_path / "a.csv")) == 3


@pytest.mark.parametrize(("append", "epochs"), [(False, ["0"]), (True, ["0", "1", "0"])])
def test_another_fit_begins_anew_or_goes_on(tmp_path, append, epochs):
    learn = learner(tmp_path, cbs=CSVLogger(append=append))
    learn.fit(2)
    learn.fit(1)
    assert [row[0] for row in rows(tmp_path / "history.csv")] == ["epoch", *epochs]


def test_other_columns_and_other_things_of_that_name_are_refused(tmp_path):
    (tmp_path / "other.csv").write_text("epoch,loss\n0,1\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="has the columns epoch, loss, this fit epoch, train_loss"):
        learner(tmp_path, cbs=CSVLogger("other.csv", append=True)).fit(1)
    with pytest.raises(UsageError, match="cannot be written"):
        learner(tmp_path, cbs=CSVLogger("folder")).fit(1)
