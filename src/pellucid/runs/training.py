"""From source to trained run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from torch.nn import functional as F

from pellucid.callback.hook import ActivationStats
from pellucid.data.loader import default_device
from pellucid.data.sources import OnError
from pellucid.errors import UsageError
from pellucid.learner import Learner
from pellucid.metrics import accuracy
from pellucid.models import create_model
from pellucid.runs.predictions import Run
from pellucid.runs.sources import open_source
from pellucid.runs.statistics import STATS
from pellucid.runs.writing import new_folder, save_run
from pellucid.seed import set_seed

SCHEDULES = ("one_cycle", "one_cycle_linear", "flat_cos", "constant")
ScheduleName = Literal["one_cycle", "one_cycle_linear", "flat_cos", "constant"]


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
    schedule: ScheduleName = "one_cycle",
    on_error: OnError = "raise",
    stats: bool = False,
) -> Run:
    """Train a classifier, printing how it goes, and write its run folder.

    Args:
        source: `mnist`, `mnist_sample`, a folder of images or of IDX files, or a CSV of path,label.
        arch: A name of `pellucid.models`; None takes `simple_cnn` for grey digits, `small_resnet` for folders.
        epochs: Passes over the training images.
        lr: Highest learning rate.
        bs: Images a batch; None takes 512 from 20,000 training images up, else 64, fewer for small sets.
        size: Side in pixels that images are brought to; None means 128 for folders and CSV, 0 the files' own size.
        valid_pct: Share of the images to validate on, at random; None uses train/valid sub-folders, else 0.2.
        seed: Of the split, the weights and the order of the images.
        device: Such as `cpu` or `cuda`; None takes the accelerator if there is one.
        workers: Decoder processes; None takes one a core.
        out: The run folder; None makes one under `runs/`.
        schedule: `one_cycle`, `one_cycle_linear` (as Smith published it), `flat_cos` or `constant`.
        on_error: What to do about damaged images: `raise` or `skip`.
        stats: Record what every layer does, for `show`; `seen/history.safetensors` is kept up to date meanwhile.

    Raises:
        UsageError: something given cannot be used. On Ctrl-C the run is written before KeyboardInterrupt goes on.
    """
    if schedule not in SCHEDULES:
        raise UsageError(f"schedule {schedule!r} does not exist: use one of {', '.join(SCHEDULES)}")
    folder = new_folder(source, out)
    asked = {k: v for k, v in locals().items() if k not in ("folder", "out")}
    set_seed(seed)
    dls = open_source(source, size, valid_pct, seed, torch_device(device), workers, on_error)
    dls.train.bs = dls.valid.bs = bs or suggested_batch_size(dls.train.n)
    shape = dls.valid.source.shape
    arch = arch or ("simple_cnn" if shape[0] == 1 else "small_resnet")
    set_seed(seed)  # the weights do not depend on how the data was opened
    model = create_model(arch, shape[0], dls.c, max(shape[1:]))
    seen = [ActivationStats(with_hist=True, with_grads=True, folder=folder / STATS)] if stats else []
    learn = Learner(dls, model, F.cross_entropy, metrics=accuracy, cbs=seen)
    settings = asked | {"arch": arch, "bs": dls.bs, "device": str(dls.device)}
    n_parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{dls.train.n:,} training and {dls.valid.n:,} validation images ({'×'.join(map(str, shape))}), {dls.c} classes"
    )
    print(f"{arch}, {n_parameters:,} parameters, batches of {dls.bs}, {dls.device}\n")
    try:
        _fit(learn, epochs, lr, schedule)
    except KeyboardInterrupt:
        save_run(learn, folder, settings | {"interrupted": True})
        raise KeyboardInterrupt(f"what was trained so far is in {folder}") from None
    save_run(learn, folder, settings)
    return Run(folder, json.loads((folder / "run.json").read_text()), learn.model.cpu().eval())


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
        raise UsageError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def _fit(learn: Learner, epochs: int, lr: float, schedule: ScheduleName) -> None:
    if schedule == "constant":
        learn.fit(epochs, lr)
    elif schedule == "flat_cos":
        learn.fit_flat_cos(epochs, lr)
    else:
        learn.fit_one_cycle(epochs, lr, legs="linear" if schedule == "one_cycle_linear" else "cosine")
