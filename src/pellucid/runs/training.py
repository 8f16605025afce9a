"""From source to trained run folder."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from pellucid.data.loader import DataLoaders, default_device
from pellucid.data.sources import OnError
from pellucid.errors import PellucidError, UsageError
from pellucid.metrics import accuracy
from pellucid.nn.models import ARCHITECTURES, create_model
from pellucid.output import say
from pellucid.runs.predictions import Run
from pellucid.runs.reserving import Reservation, reserved
from pellucid.runs.sources import open_source
from pellucid.runs.writing import save_run_somewhere, size_of, statistics_size
from pellucid.seed import set_seed
from pellucid.text import counted, printable
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.training.learner import Learner

DEVICES = ("cpu", "cuda", "mps", "xpu")
# How each named schedule trains a learner, given epochs and the highest rate; the command line knows all of them.
SCHEDULES: dict[str, Callable[[Learner, int, float], None]] = {
    "one_cycle": lambda learn, epochs, lr: learn.fit_one_cycle(epochs, lr),
    "one_cycle_linear": lambda learn, epochs, lr: learn.fit_one_cycle(epochs, lr, legs="linear"),
    "flat_cos": lambda learn, epochs, lr: learn.fit_flat_cos(epochs, lr),
    "constant": lambda learn, epochs, lr: learn.fit(epochs, lr),
}


def train(
    source: str,
    *,
    arch: str | None = None,
    epochs: int = 5,
    lr: float = 5e-3,
    bs: int | None = None,
    size: int | None = None,
    valid_pct: float | None = None,
    seed: int = 42,
    device: str | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    schedule: str = "one_cycle",
    on_error: OnError = "raise",
    stats: bool = False,
    path_col: str | None = None,
    label_col: str | None = None,
    suffix: str = "",
    image_folder: str | None = None,
) -> Run:
    """Train a classifier, printing how it goes, and write its run folder.

    Args:
        source: `mnist`, `mnist_sample`, a folder of images or of IDX files, or a CSV of path,label.
        arch: A name of `pellucid.nn.models`; None takes `simple_cnn` for grey digits, `small_resnet` for folders.
        epochs: Passes over the training images.
        lr: Highest learning rate.
        bs: Images a batch; None takes 512 from 20,000 training images up, else 64, fewer for small sets.
        size: Side in pixels that images are brought to; None means 128 for folders and CSV, or what half of their files
            have if that is less, 0 the files' own size.
        valid_pct: Share of the images to validate on, at random; None uses train/valid sub-folders, else 0.2.
        seed: Of the split, the weights and the order of the images.
        device: Such as `cpu` or `cuda`; None takes the accelerator if there is one.
        workers: Decoder processes; None takes one a core.
        out: The run folder; None makes one under `runs/`.
        schedule: `one_cycle`, `one_cycle_linear` (as Smith published it), `flat_cos` or `constant`.
        on_error: What to do about damaged images: `raise` or `skip`.
        stats: Record what every layer does, for `show`; `history.safetensors` is kept up to date meanwhile.
        path_col: Of a label file, name or number (from 0) of the column of files; None finds it.
        label_col: Likewise of labels.
        suffix: Of a label file, put after each file's name, such as `.jpg` after ids.
        image_folder: Of a label file, the folder its files are in; None means its own.

    Raises:
        UsageError: something given cannot be used, or the run folder cannot be written.
        TrainingError: the loss stopped being a number.
        PellucidError: at the end the run could not be written where it belongs; the message says where it is.

    Whatever ends a training that has begun, Ctrl-C, SIGTERM or an error, the run so far is written first.
    """
    asked = {name: value for name, value in locals().items() if name != "out"}
    _check_numbers(epochs, lr, bs, size, valid_pct, workers)
    if schedule not in SCHEDULES:
        raise UsageError(f"schedule {schedule!r} does not exist: use one of {', '.join(SCHEDULES)}")
    if arch is not None and arch not in ARCHITECTURES:
        raise UsageError(f"architecture {arch!r} does not exist: use one of {', '.join(ARCHITECTURES)}")
    with reserved(source, out) as reservation:
        set_seed(seed)
        columns = {"fn_col": path_col, "label_col": label_col, "suff": suffix, "folder": image_folder or ""}
        dls = open_source(source, size, valid_pct, seed, torch_device(device), workers, on_error, columns)
        learn, settings = _learner(dls, asked, reservation.folder)
        reservation.hold(size_of(learn, epochs), statistics_size(learn, epochs) if stats else 0)
        _train(learn, settings, reservation)
    found = json.loads((reservation.folder / "run.json").read_text())
    return Run(reservation.folder, found, learn.model.cpu().eval(), dls.pipeline)


def _learner(dls: DataLoaders, asked: dict[str, Any], folder: Path) -> tuple[Learner, dict[str, Any]]:
    """What is to be trained, introduced in two lines, and the settings that were chosen for it."""
    dls.train.bs = dls.valid.bs = asked["bs"] or suggested_batch_size(dls.train.n)
    shape = dls.valid.source.shape
    arch = asked["arch"] or ("simple_cnn" if shape[0] == 1 else "small_resnet")
    set_seed(asked["seed"])  # the weights do not depend on how the data was opened
    model = create_model(arch, shape[0], dls.c, max(shape[1:]))
    seen = [ActivationStats(with_hist=True, with_grads=True, folder=folder)] if asked["stats"] else []
    learn = Learner(dls, model, F.cross_entropy, metrics=accuracy, cbs=seen)
    n_parameters = sum(p.numel() for p in model.parameters())
    say(
        f"{dls.train.n:,} training and {counted(dls.valid.n, 'validation image')} ({'×'.join(map(str, shape))}), "
        f"{counted(dls.c, 'class', 'classes')}"
    )
    say(f"{arch}, {n_parameters:,} parameters, batches of {dls.bs}, {dls.device}\n")
    return learn, asked | {"arch": arch, "bs": dls.bs, "device": str(dls.device)}


def _train(learn: Learner, settings: dict[str, Any], reservation: Reservation) -> None:
    """Fit, and write the run whatever happens: what was trained before an error is work, too."""
    try:
        SCHEDULES[settings["schedule"]](learn, settings["epochs"], settings["lr"])
    except BaseException as error:
        if not learn.train_iter:  # nothing was trained
            raise
        how = {"interrupted": True} if isinstance(error, KeyboardInterrupt) else {"stopped": printable(error)}
        with _undisturbed():
            reservation.release()
            save_run_somewhere(learn, reservation.folder, settings | how)
        where = f"what was trained so far is in {printable(reservation.folder)}"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(where) from None
        if isinstance(error, PellucidError):
            raise type(error)(f"{error}; {where}") from None
        error.add_note(where)
        raise
    with _undisturbed():
        reservation.release()
        save_run_somewhere(learn, reservation.folder, settings)


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


def _check_numbers(
    epochs: int, lr: float, bs: int | None, size: int | None, valid_pct: float | None, workers: int | None
) -> None:
    wanted = {
        "epochs": (epochs, epochs >= 1, "at least 1"),
        "lr": (lr, 0 < lr < math.inf, "a positive number: at 0 nothing is learnt, below it the loss rises"),
        "bs": (bs, bs is None or bs >= 1, "at least 1"),
        "size": (size, size is None or size >= 0, "at least 1, or 0 for the files' own size"),
        "valid_pct": (valid_pct, valid_pct is None or 0 < valid_pct < 1, "a share between 0 and 1, such as 0.2"),
        "workers": (workers, workers is None or workers >= 1, "at least 1"),
    }
    for name, (value, fits, what) in wanted.items():
        if not fits:
            raise UsageError(f"{name} must be {what}, got {value}")


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
