"""From source to trained run folder."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from pellucid.data.imbalance import class_weights, unevenness
from pellucid.data.loader import DataLoaders, default_device
from pellucid.data.splitting import SHARE
from pellucid.errors import PellucidError, UsageError
from pellucid.metrics import F1ScoreMulti, accuracy, accuracy_multi
from pellucid.nn.libraries import check_library, is_library
from pellucid.nn.models import create_model
from pellucid.optim.groups import LearningRate
from pellucid.output import say
from pellucid.runs.architectures import of_model
from pellucid.runs.examining import examine_run, watching, why_stopped
from pellucid.runs.fitting import is_pretrained
from pellucid.runs.keeping import NEW, Keeping, Origin
from pellucid.runs.predictions import Run
from pellucid.runs.reserving import Reservation, reserved
from pellucid.runs.settings import Settings
from pellucid.runs.sources import open_source
from pellucid.runs.transfer import Start, fine_tune, start
from pellucid.runs.writing import save_run_somewhere, size_of, statistics_size
from pellucid.seed import set_seed
from pellucid.text import counted, printable
from pellucid.training.callbacks.balance import BalancedLoss
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.training.callbacks.tracking import EarlyStoppingCallback, KeepBestCallback
from pellucid.training.computing import half_of
from pellucid.training.learner import Learner
from pellucid.training.timing import faster_precision
from pellucid.training.vision import vision_learner

DEVICES = ("cpu", "cuda", "mps", "xpu")
# How each named schedule trains a learner, given epochs and the highest rate; the command line knows all of them.
SCHEDULES: dict[str, Callable[[Learner, int, LearningRate | None], None]] = {
    "one_cycle": lambda learn, epochs, lr: learn.fit_one_cycle(epochs, lr),
    "one_cycle_linear": lambda learn, epochs, lr: learn.fit_one_cycle(epochs, lr, legs="linear"),
    "flat_cos": lambda learn, epochs, lr: learn.fit_flat_cos(epochs, lr),
    "constant": lambda learn, epochs, lr: learn.fit(epochs, lr),
}
ROUNDING = 1e-6  # the same images right, counted in other batches, may differ in the seventh digit
OURS = tuple(SCHEDULES)  # take rates that rise from the input; one that a user adds takes a number


def train(source: str | Path | Settings, out: str | Path | None = None, **options: Any) -> Run:
    """Train a classifier, printing how it goes, and write its run folder, as `pellucid train` does.

    Args:
        source: What to train on: a folder of images, a label file or the name of a data set; or all settings at once.
        out: The run folder; None makes one under `runs/`.
        options: Of `Settings`, by name: `train("photos/", probe=True)`.

    The doctor watches the training within a twentieth of its time, and what it found is printed at the end and lies in
    the run folder (`doctor.json`, `doctor.html`): `run.report`. `doctor=False` leaves that out.

    Raises:
        UsageError: something given cannot be used, or the run folder cannot be written.
        TrainingError: the loss stopped being a number.
        PellucidError: at the end the run could not be written where it belongs; the message says where it is.

    The run holds the epoch with the best validation accuracy, the first of them if several have it; a pretrained
    network's run holds the probe where no epoch is better.
    Whatever ends a training that has begun, Ctrl-C, SIGTERM or an error, the run so far is written first.
    """
    settings = source if isinstance(source, Settings) else _settings(str(source), options)
    if settings.schedule not in SCHEDULES:
        raise UsageError(f"schedule {settings.schedule!r} does not exist: use one of {', '.join(SCHEDULES)}")
    if settings.arch is not None and is_library(settings.arch):
        check_library(settings.arch)  # before any image is opened
    with reserved(settings.source, out) as reservation:
        return carried_out(settings, reservation)


def carried_out(settings: Settings, reservation: Reservation, origin: Origin = NEW) -> Run:
    """Train in a folder that is reserved: from the beginning, or from where another training was."""
    keeping = Keeping(reservation.folder, settings, origin)
    with keeping:
        set_seed(settings.seed)
        dls, settings = open_source(settings, torch_device(settings.device))
        settings = _with_split(settings, dls.split)
        learn, settings = _learner(dls, settings, reservation.folder)
        keeping.choose(settings)
        meanwhile = statistics_size(learn, settings.epochs) if settings.stats else 0
        reservation.hold(size_of(learn, settings.epochs), meanwhile)
        with learn.going_on_from(origin.kept):
            _train(learn, settings, reservation, keeping)
    found = json.loads((reservation.folder / "run.json").read_text())
    return Run(reservation.folder, found, learn.model.cpu().eval(), dls.pipeline)


def _settings(source: str, options: dict[str, Any]) -> Settings:
    known = [each.name for each in fields(Settings)]
    if unknown := [name for name in options if name not in known]:
        raise UsageError(f"train does not take {', '.join(unknown)}; there are {', '.join(known)}")
    return Settings(source, **options)


def _with_split(settings: Settings, split: str) -> Settings:
    """The settings with what `auto` came to, and the share where one was drawn."""
    share = (settings.valid_pct or SHARE) if split in ("stratified", "random", "group") else None
    return replace(settings, split=settings.split if split in ("", "group") else split, valid_pct=share)


def _learner(dls: DataLoaders, settings: Settings, folder: Path) -> tuple[Learner, Settings]:
    """What is to be trained, introduced in two lines, and the settings with what was chosen for it."""
    dls.train.bs = dls.valid.bs = settings.bs or suggested_batch_size(dls.train.n)
    shape = dls.valid.source.shape
    arch = settings.arch or ("simple_cnn" if shape[0] == 1 else "small_resnet")
    seen = [ActivationStats(with_hist=True, with_grads=True, folder=folder)] if settings.stats else []
    metrics = [accuracy_multi, F1ScoreMulti()] if dls.multi else accuracy
    common: dict[str, Any] = {"metrics": metrics, "cbs": seen, "compile": settings.compile}
    set_seed(settings.seed)  # the weights do not depend on how the data was opened
    if is_pretrained(arch):
        # A single layer, so that the probe can fill it, with the dropout that such networks are trained with.
        learn = vision_learner(dls, arch, **common, lin_ftrs=[], concat_pool=False, ps=0.2)
    else:
        learn = Learner(dls, create_model(arch, shape[0], dls.c, max(shape[1:])), **common)
    learn.add_cbs(_balancing(dls, settings.balance))
    learn.precision = _precision(learn, settings.precision)
    learn.add_cbs(_following(learn.recorder.metric_names[3], settings.patience))
    if not is_pretrained(arch):  # else behind the probe, which has no steps
        learn.add_cbs(watching(settings))
    n_parameters = sum(p.numel() for p in learn.model.parameters())
    seen_shape = "×".join(map(str, dls.valid.sample(1)[0].shape[1:]))
    say(
        f"{dls.train.n:,} training and {counted(dls.valid.n, 'validation image')} ({seen_shape}), "
        f"{counted(dls.c, 'label') if dls.multi else counted(dls.c, 'class', 'classes')}"
    )
    weights = " with pretrained weights" if is_pretrained(arch) else ""
    say(f"{arch}{weights}, {n_parameters:,} parameters, batches of {dls.bs}, {dls.device}\n")
    return learn, replace(settings, arch=arch, bs=dls.bs, device=str(dls.device), precision=learn.precision)


def _precision(learn: Learner, asked: str) -> str:
    """The precision to train in, checked, or measured if that is asked for."""
    if asked != "auto":
        half_of(asked, learn.dls.device)
        return asked
    chosen, seconds = faster_precision(learn)
    times = ", ".join(f"{each} {1000 * seconds[each]:.1f} ms" for each in seconds)
    say(f"precision {chosen}: the fastest of the timed steps took {times}")
    return chosen


def _balancing(dls: DataLoaders, balance: str) -> list[Callback]:
    """What is done about classes with few images; if nothing is, they are told of."""
    labels = dls.train.labels
    if dls.multi and balance != "none":
        raise UsageError(
            f"balance {balance!r} (--balance) is for one class an image; here each may have several labels"
        )
    if dls.multi:
        return []
    if balance == "sample":
        dls.train.weights = class_weights(labels, dls.c)[labels]
    uneven = unevenness(labels, dls.vocab) if balance == "none" else ""
    if uneven:
        say(uneven)
    return [BalancedLoss()] if balance == "loss" else []


def _following(metric: str, patience: int | None) -> list[Callback]:
    """What keeps the best epoch, and stops the training in time if that is asked for."""
    best: list[Callback] = [KeepBestCallback(metric, min_delta=ROUNDING)]
    return best if patience is None else [*best, EarlyStoppingCallback(metric, patience=patience)]


def _fit(learn: Learner, settings: Settings, begun: Start) -> None:
    """All fits of a training; those that were over where it goes on are left out."""
    fit = SCHEDULES[settings.schedule]
    if not is_pretrained(settings.arch):
        fit(learn, settings.epochs, settings.lr)
        return
    if learn.kept_step is None:
        start(learn, settings, begun)
    if not settings.probe:
        fine_tune(learn, settings, fit, begun, spread=settings.schedule in OURS)


def _train(learn: Learner, settings: Settings, reservation: Reservation, keeping: Keeping) -> None:
    """Fit, and write the run whatever happens: what was trained before an error is work, too."""
    begun = keeping.begun
    learn.add_cbs(keeping.callbacks())
    try:
        with learn.sequence("pellucid train", {}):
            _fit(learn, settings, begun)
    except BaseException as error:
        if not learn.train_iter and (not begun or keeping.origin.kept):  # nothing was trained
            raise
        how = {"interrupted": True} if isinstance(error, KeyboardInterrupt) else {"stopped": printable(error)}
        how |= keeping.origin.settings
        with _undisturbed():
            reservation.release()
            save_run_somewhere(learn, reservation.folder, asdict(settings) | of_model(learn.model) | how, begun)
            examine_run(learn, reservation.folder, error)
        kept = "" if learn.recorder.kept is None else f", as it was after epoch {learn.recorder.kept}, the best one"
        where = f"what was trained so far is in {printable(reservation.folder)}{kept}"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"{where}{keeping.goes_on()}") from None
        if isinstance(error, PellucidError):
            raise type(error)(f"{error}; {where}") from None
        error.add_note(where)
        raise
    sick = why_stopped(learn)
    how = keeping.origin.settings | ({} if sick is None else {"stopped": f"the doctor found {sick.name}"})
    with _undisturbed():
        reservation.release()
        save_run_somewhere(learn, reservation.folder, asdict(settings) | of_model(learn.model) | how, begun)
    examine_run(learn, reservation.folder)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let nobody's second Ctrl-C stop the writing that the first one led to."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():  # only there may they be set
        signals = []
    before = {each: signal.signal(each, signal.SIG_IGN) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def suggested_batch_size(n_train: int) -> int:
    """512 from 20,000 images up, else 64, and for small sets about a tenth of the images."""
    return 512 if n_train >= 20_000 else min(64, max(4, n_train // 10))


def torch_device(name: str | None) -> torch.device:
    """The named device, checked; None gives the default one.

    Raises:
        UsageError: torch knows no such device, or it is not there.
    """
    try:
        device = torch.device(name) if name else default_device()
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        if name and name.split(":")[0] not in DEVICES:
            why = f"use one of {', '.join(DEVICES)}"  # torch lists twenty, most of them for its own developers
        raise UsageError(f"device {name!r} cannot be used: {why}") from None
    return device
