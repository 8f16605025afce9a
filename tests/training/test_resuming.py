"""A fit that is stopped anywhere and gone on with ends in the bits of one that was not."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import RandomSampler, TensorDataset

from pellucid.data.augment.geometry import Flip, Rotate
from pellucid.data.images import Decoding
from pellucid.data.loader import DataLoader, DataLoaders
from pellucid.data.sources import StoredImages, StreamedImages
from pellucid.errors import UsageError
from pellucid.metrics import accuracy
from pellucid.nn.layers import Flatten
from pellucid.optim.groups import split_at
from pellucid.optim.optimizers import SGD
from pellucid.runs.reserving import reserved
from pellucid.seed import set_seed
from pellucid.training import kept
from pellucid.training.callbacks.averaging import ModelEMA
from pellucid.training.callbacks.balance import BalancedLoss
from pellucid.training.callbacks.checkpoint import Checkpoint
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.csv_logger import CSVLogger
from pellucid.training.callbacks.doctor import Doctor
from pellucid.training.callbacks.gradients import GradientAccumulation, GradientClip
from pellucid.training.callbacks.mixing import CutMix, MixUp
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.training.callbacks.stopping import StopWhenSick
from pellucid.training.callbacks.tracking import (
    EarlyStoppingCallback,
    KeepBestCallback,
    ReduceLROnPlateau,
    SaveModelCallback,
)
from pellucid.training.learner import Learner

N_BATCHES = 5  # an epoch
CASES: dict[str, tuple[Callable[[], list[Callback]], Callable[..., None]]] = {
    "plain": (list, lambda learn, **o: learn.fit_one_cycle(4, 0.05, **o)),
    "flat": (list, lambda learn, **o: learn.fit_flat_cos(4, 0.05, **o)),
    "mixed, gathered, clipped": (
        lambda: [MixUp(), GradientAccumulation(20), GradientClip()],
        lambda learn, **o: learn.fit_one_cycle(4, 0.05, **o),
    ),
    "cut": (lambda: [CutMix(), BalancedLoss()], lambda learn, **o: learn.fit(4, 0.05, **o)),
    "averaged, stopped": (
        lambda: [ModelEMA(0.9), EarlyStoppingCallback("valid_loss", patience=2, min_delta=0.02)],
        lambda learn, **o: learn.fit(6, 0.05, **o),
    ),
    "best, lowered, saved": (
        lambda: [
            KeepBestCallback("accuracy"),
            ReduceLROnPlateau(min_delta=0.5),
            SaveModelCallback(fname="m"),
            CSVLogger(),
        ],
        lambda learn, **o: learn.fit(4, 0.1, **o),
    ),
    "statistics": (
        lambda: [ActivationStats(with_hist=True, with_grads=True)],
        lambda learn, **o: learn.fit_one_cycle(4, 0.05, **o),
    ),
    "doctor": (lambda: [Doctor(share=0.05), StopWhenSick()], lambda learn, **o: learn.fit_one_cycle(4, 0.05, **o)),
    "fine-tuned": (list, lambda learn, **o: learn.fine_tune(3, 0.05, **o)),
}


class Stop(Callback):
    """Ends the fit after so many batches of its call, as if the machine had died."""

    order = 2**40

    def __init__(self, at: int):
        self.at = at

    def after_batch(self) -> None:
        if self.learn.step == self.at and self.learn.training:
            raise RuntimeError("the power is gone")


def images(n: int = 53) -> DataLoaders:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 1, 8, 8), np.uint8)
    labels = torch.arange(n) % 3
    source = StoredImages(pixels, np.zeros((n, 1, 2), np.int64))
    changes = [Flip(), Rotate(30)]
    train = DataLoader(
        source, range(40), labels[:40], bs=8, shuffle=True, batch_tfms=changes, training=True, vocab="abc"
    )
    valid = DataLoader(source, range(40, n), labels[40:], bs=8, vocab="abc")
    return DataLoaders(train, valid)


def foreign() -> DataLoaders:
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(40, 1, 8, 8, generator=rng), torch.arange(40) % 3)
    own = torch.Generator().manual_seed(5)
    return DataLoaders(
        TorchDataLoader(data, 8, sampler=RandomSampler(data, generator=own)), TorchDataLoader(data, 8), device="cpu"
    )


def learner(folder: Path, cbs: Any = (), dls: DataLoaders | None = None, **options: Any) -> Learner:
    set_seed(7)
    body = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Dropout(0.2))
    model = nn.Sequential(body, nn.Sequential(Flatten(), nn.Linear(8, 3)))
    dls = dls or images()
    options = {"splitter": split_at(1)} | options
    return Learner(dls, model, nn.CrossEntropyLoss(), metrics=accuracy, cbs=cbs, path=folder, **options)


def outcome(learn: Learner) -> dict[str, Any]:
    """All that must not differ; times do."""
    stats = getattr(learn, "activation_stats", None)
    arrays = (learn.recorder if stats is None else stats.history).to_arrays()
    moments = [learn.opt.state[p] for group in learn.opt.param_groups for p in group["params"] if p in learn.opt.state]
    return {
        "weights": learn.model.state_dict(),
        "moments": moments,
        "record": arrays,
        "values": learn.recorder.values,
        "kept": learn.recorder.kept,
        "random": [torch.rand(3), np.random.rand(), random.random()],
    }


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for name in a:
            assert_same(a[name], b[name])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for each in zip(a, b, strict=True):
            assert_same(*each)
    else:
        assert a == b


def lines(text: str) -> list[str]:
    """A printed table without its times."""
    return [line.rsplit(maxsplit=1)[0] for line in text.splitlines() if line[:1].isdigit() or "train_loss" in line]


@pytest.mark.parametrize("at", [1, 3, N_BATCHES, N_BATCHES + 1, 2 * N_BATCHES + 2])
@pytest.mark.parametrize("case", CASES)
def test_a_fit_that_is_gone_on_with_ends_in_the_same_bits(case, at, tmp_path, capsys):
    cbs, fit = CASES[case]
    whole = learner(tmp_path / "whole", cbs())
    fit(whole)
    expected, table = outcome(whole), lines(capsys.readouterr().out)

    folder = tmp_path / "run"
    keeping = lambda: Checkpoint(folder, every=1)
    with pytest.raises(RuntimeError, match="the power is gone"):
        fit(learner(tmp_path / "a", cbs()), cbs=[keeping(), Stop(at)])
    (tmp_path / "a").rename(tmp_path / "b") if (tmp_path / "a").exists() else None
    capsys.readouterr()
    set_seed(99)
    again = learner(tmp_path / "b", cbs())
    torch.rand(5)
    again.resume(folder)
    printed = lines(capsys.readouterr().out)
    assert printed and printed == table[-len(printed) :]  # a fit of the same call that was over is not shown again
    assert_same(outcome(again), expected)


def test_between_epochs_and_in_the_last_one(tmp_path):
    whole = learner(tmp_path)
    whole.fit_one_cycle(3, 0.05)
    expected = outcome(whole)
    learner(tmp_path).fit_one_cycle(3, 0.05, cbs=Checkpoint(tmp_path / "run", every_s=1e9, keep=9))
    training = tmp_path / "run" / kept.FOLDER / kept.TRAINING
    for step in kept.steps_in(tmp_path / "run"):  # the best ones, at ends of epochs
        assert kept.read(step).batch == 0
        copy = tmp_path / step.name
        shutil.copytree(tmp_path / "run", copy)
        for other in kept.steps_in(copy):
            if other.name != step.name:
                shutil.rmtree(other)
        about = json.loads(training.read_text())
        (copy / kept.FOLDER / kept.TRAINING).write_text(json.dumps(about | {"state": "running"}))
        again = learner(tmp_path)
        again.resume(copy)
        assert_same(outcome(again), expected)


def streamed() -> DataLoaders:
    """Images that are decoded anew in every epoch, some of which cannot be: a batch may have fewer."""
    dls = images()
    files: list[Any] = [np.asarray(pixels[0]) for pixels in dls.train.source.pixels]
    files[3], files[17] = Path("nowhere.png"), Path("neither.png")
    for loader in dls:
        loader.source = StreamedImages(files, Decoding("L"), (1, 8, 8), on_error="skip")
    return dls


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("make", [foreign, streamed, partial(images, 48)])
@pytest.mark.parametrize("options", [{}, {"opt_func": partial(SGD, mom=0.9)}])
def test_other_loaders_optimizers_and_precision(tmp_path, make, options):
    def fit(**more: Any) -> Learner:
        learn = learner(tmp_path, dls=make(), **options).to_bf16()
        learn.fit_one_cycle(3, 0.05, **more)
        return learn

    expected = outcome(fit())
    with pytest.raises(RuntimeError, match="the power is gone"):
        fit(cbs=[Checkpoint(tmp_path / "run", every=1), Stop(8)])
    again = learner(tmp_path, dls=make(), **options).to_bf16()
    again.resume(tmp_path / "run")
    assert_same(outcome(again), expected)


@pytest.mark.parametrize("kind", ["NAdam", "Adagrad", "Adadelta", "RMSprop"])
def test_optimizers_of_torch(tmp_path, kind):
    options: dict[str, Any] = {"opt_func": getattr(torch.optim, kind)}

    def fit(learn: Learner, **more: Any) -> Learner:
        learn.fit(3, 0.01, **more)
        return learn

    expected = outcome(fit(learner(tmp_path, **options)))
    with pytest.raises(RuntimeError, match="the power is gone"):
        fit(learner(tmp_path, **options), cbs=[Checkpoint(tmp_path / "run", every=1), Stop(8)])
    again = learner(tmp_path, **options)
    again.resume(tmp_path / "run")
    assert_same(outcome(again), expected)


def stopped(folder: Path, at: int = 8, cbs: Any = (), **options: Any) -> Learner:
    """A fit of three epochs that ended after a batch of the second one."""
    learn = learner(folder.parent, cbs, **options)
    with pytest.raises(RuntimeError, match="the power is gone"):
        learn.fit_one_cycle(3, 0.05, cbs=[Checkpoint(folder, every=1), Stop(at)])
    return learn


def test_a_branch_has_the_same_past_and_other_settings(tmp_path):
    stopped(tmp_path / "a")
    whole = learner(tmp_path)
    whole.fit_one_cycle(3, 0.05)
    other = learner(tmp_path)
    other.branch(tmp_path / "a@step6", tmp_path / "b", lr_max=0.01)
    assert other.recorder.raw_losses[:7] == whole.recorder.raw_losses[:7]  # that of batch 7 has seen no other rate
    assert other.recorder.lrs[:6] == whole.recorder.lrs[:6] and other.recorder.lrs[7] == whole.recorder.lrs[7] / 5
    assert len(other.recorder.values) == 3 and kept.training_of(tmp_path / "b")["state"] == "done"
    longer = learner(tmp_path)
    longer.branch(tmp_path / "a", tmp_path / "c", n_epoch=5, cbs=EarlyStoppingCallback("accuracy", patience=9))
    assert len(longer.recorder.values) == 5


def test_the_doctor_begins_anew_and_says_so(tmp_path):
    stopped(tmp_path / "a", cbs=Doctor())
    learn = learner(tmp_path, Doctor())
    learn.resume(tmp_path / "a")
    report = learn.doctor.diagnose(trials=False)
    assert "the fit was resumed after step 8, and examined from there on" in report.notes
    history, evidence = learn.doctor.history(), learn.doctor.evidence()
    assert history.loss is not None and len(history.loss) == 3 * N_BATCHES == evidence.loop.steps
    assert history.train.steps[0, 0] == 8 and history.train.steps[-1, 1] == 3 * N_BATCHES


def test_a_run_can_be_saved_where_its_checkpoints_are(tmp_path):
    learner(tmp_path).fit(1, 0.05, cbs=Checkpoint(tmp_path / "a"))
    with reserved("a", tmp_path / "a") as reservation:
        assert reservation.folder == tmp_path / "a"
    stopped(tmp_path / "b")
    with pytest.raises(UsageError, match="b: holds a training that was killed"), reserved("b", tmp_path / "b"):
        pass


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", "nowhere: no such folder"),
        ("", "has no checkpoint to go on from"),
        ("a@step4", r"a@step4: step4 is not kept; kept are step6, step7, step8"),
    ],
)
def test_steps_that_are_not_there(tmp_path, where, message):
    stopped(tmp_path / "a")
    with pytest.raises(UsageError, match=message):
        learner(tmp_path).resume(tmp_path / where if where else tmp_path)


def test_what_does_not_fit_is_refused(tmp_path):
    stopped(tmp_path / "a", cbs=ModelEMA())
    with pytest.raises(UsageError, match=r"other data: training images 40 then, 39 now"):
        dls = images()
        dls.train = DataLoader(dls.train.source, range(39), dls.train.labels[:39], bs=8, shuffle=True, vocab="abc")
        learner(tmp_path, ModelEMA(), dls).resume(tmp_path / "a")
    with pytest.raises(UsageError, match=r"other data: other training labels"):
        dls = images()
        dls.train.labels[3] = 1
        learner(tmp_path, ModelEMA(), dls).resume(tmp_path / "a")
    with pytest.raises(UsageError, match=r"other data: other training pixels"):
        dls = images()
        dls.train.source.pixels[3] = 0
        learner(tmp_path, ModelEMA(), dls).resume(tmp_path / "a")
    with pytest.raises(UsageError, match=r"had callbacks that are missing here: model_ema"):
        learner(tmp_path).resume(tmp_path / "a")
    learn = learner(tmp_path, ModelEMA())
    learn.model[1][1] = nn.Linear(8, 4)
    with pytest.raises(UsageError, match=r"is of another model: '1.1.weight' is 3×8, the model's is 4×8"):
        learn.resume(tmp_path / "a")
    with pytest.raises(UsageError, match=r"fit_one_cycle takes no rate; it takes cbs, div"):
        learner(tmp_path, ModelEMA()).branch(tmp_path / "a", tmp_path / "b", rate=1)


def test_a_training_that_is_done_or_another_one_is_not_gone_on_with(tmp_path):
    learn = learner(tmp_path)
    learn.fit(1, 0.05, cbs=Checkpoint(tmp_path / "a"))
    with pytest.raises(UsageError, match="a: this training is done"):
        learner(tmp_path).resume(tmp_path / "a")
    with pytest.raises(UsageError, match=r"has checkpoints of another training \(step5\)"):
        learner(tmp_path).fit(1, 0.05, cbs=Checkpoint(tmp_path / "a"))


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    stopped(tmp_path / "a")
    whole = learner(tmp_path)
    whole.fit_one_cycle(3, 0.05)
    last = kept.steps_in(tmp_path / "a")[-1]
    whole_file = (last / kept.STATE).read_bytes()
    (last / kept.STATE).write_bytes(whole_file[:-100])
    again = learner(tmp_path)
    with pytest.warns(
        UserWarning, match=r"step8/state.safetensors: torn or damaged.*the checkpoint before it is taken"
    ):
        again.resume(tmp_path / "a")
    assert_same(again.model.state_dict(), whole.model.state_dict())


def test_another_format_is_refused_and_other_versions_are_said(tmp_path):
    stopped(tmp_path / "a")
    file = kept.steps_in(tmp_path / "a")[-1] / kept.DESCRIPTION
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"versions": about["versions"] | {"torch": "1.0"}}))
    with pytest.warns(UserWarning, match=r"may differ in their last bits, for 1 difference: torch 1.0 then"):
        learner(tmp_path).resume(tmp_path / "a")
    stopped(tmp_path / "b")
    file = kept.steps_in(tmp_path / "b")[-1] / kept.DESCRIPTION
    file.write_text(json.dumps(about | {"format": 2, "versions": {"pellucid": "9"}}))
    with pytest.raises(
        UsageError, match="has the format 2, this pellucid goes on from 1; it was written by pellucid 9"
    ):
        learner(tmp_path).resume(tmp_path / "b")


def test_two_processes_do_not_go_on_with_one_training(tmp_path):
    stopped(tmp_path / "a")
    lock = FileLock(tmp_path / "a" / kept.FOLDER / ".lock")
    with lock, pytest.raises(UsageError, match="a: another process is training there"):
        learner(tmp_path).resume(tmp_path / "a")


def test_a_full_disk_is_one_warning_and_the_last_checkpoint_stays(tmp_path):
    learn = learner(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fills(self: Callback) -> None:
        if self.learn.train_iter == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    quiet = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.warns(UserWarning, match=r"step [78] could not be kept .*step[67] is the last checkpoint") as said:
            learn.fit(3, 0.05, cbs=[Checkpoint(tmp_path / "a", every=1, best=None), Callback(before_step=fills)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, quiet)
    assert len([each for each in said if "could not be kept" in str(each.message)]) == 1
    assert len(learn.recorder.values) == 3
    steps = [each.name for each in kept.steps_in(tmp_path / "a")]  # step 7 may be on its way when the disk fills
    assert steps in (["step4", "step5", "step6"], ["step5", "step6", "step7"])
    assert not list((tmp_path / "a" / kept.FOLDER).glob(".step*"))


@pytest.mark.parametrize("phase", ["train", "validate"])
def test_ctrl_c_keeps_the_batch_that_goes_on(tmp_path, phase):
    def interrupt(self: Callback) -> None:
        if self.learn.epoch == 1 and self.learn.iter == 1 and self.learn.training == (phase == "train"):
            signal.raise_signal(signal.SIGINT)

    whole = learner(tmp_path)
    whole.fit_one_cycle(3, 0.05)
    expected = outcome(whole)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        learner(tmp_path).fit_one_cycle(
            3, 0.05, cbs=[Checkpoint(tmp_path / "a", best=None), Callback(after_pred=interrupt)]
        )
    assert signal.getsignal(signal.SIGINT) is handler
    at = N_BATCHES + 2 if phase == "train" else 2 * N_BATCHES
    assert [each.name for each in kept.steps_in(tmp_path / "a")] == [f"step{at}"]
    again = learner(tmp_path)
    again.resume(tmp_path / "a")
    assert_same(outcome(again), expected)


def test_a_second_ctrl_c_ends_it_at_once(tmp_path):
    def interrupt(self: Callback) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    learn = learner(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        learn.fit(3, 0.05, cbs=[Checkpoint(tmp_path / "a"), Callback(after_pred=interrupt)])
    assert learn.train_iter == 0 and not kept.steps_in(tmp_path / "a")


def test_steps_that_are_kept(tmp_path):
    learn = learner(tmp_path)
    learn.fit(4, 0.05, cbs=Checkpoint(tmp_path / "a", every_s=1e9, every=3, keep=2))
    best = int(np.argmin([values[1] for values in learn.recorder.values])) + 1
    expected = {"step15", "step18", f"step{best * N_BATCHES}"} if best < 4 else {"step18", "step20"}
    assert {each.name for each in kept.steps_in(tmp_path / "a")} == expected
    assert kept.find(tmp_path / "a@best").step == best * N_BATCHES


def test_nothing_is_pickled_and_people_can_read_it(tmp_path):
    stopped(tmp_path / "a")
    step = kept.steps_in(tmp_path / "a")[-1]
    assert sorted(file.name for file in step.iterdir()) == ["checkpoint.json", "state.safetensors"]
    about = json.loads((step / kept.DESCRIPTION).read_text())
    assert about["asked"]["method"] == "fit_one_cycle" and about["asked"]["arguments"]["lr_max"] == 0.05
    assert about["step"] == 8 and about["columns"] == ["train_loss", "valid_loss", "accuracy"]
