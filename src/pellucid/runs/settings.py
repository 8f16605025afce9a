"""What a training is asked to do."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import get_args

from pellucid.data.augment.recipes import augmentation
from pellucid.data.images import ResizeName
from pellucid.data.sources import OnError
from pellucid.data.splitting import Split
from pellucid.errors import UsageError
from pellucid.nn.libraries import is_library
from pellucid.nn.models import check_own

BALANCES = ("none", "loss", "sample")
PRECISIONS = "fp32", "bf16", "fp16", "auto"


@dataclass(frozen=True)
class Settings:
    """The settings of a training, as `pellucid train` takes them and `run.json` keeps them.

    Args:
        source: `mnist`, `mnist_sample`, a folder of images or of IDX files, or a CSV of path,label.
        arch: A name of `pellucid.nn.models`, `timm:NAME` or `torchvision:NAME`. EfficientNet-Lite and those of the
            libraries begin with pretrained weights. None takes `efficientnet_lite0` for folders and label files whose
            images have 64 pixels or more and are not brought to fewer, else `small_resnet`, and `simple_cnn` for grey
            digits.
        epochs: Passes over the training images; of a pretrained network, all of it is trained in them.
        probe: Of a pretrained network, compute the best linear head and train no epoch.
        freeze_epochs: Passes in which the head of a pretrained network is trained alone, after the probe.
        lr: Highest learning rate; None takes 5e-3, and 1e-3 for the head of a pretrained network, whose body has rates
            from a hundredth of that on.
        bs: Images a batch; None takes 512 from 20,000 training images up, else 64, fewer for small sets.
        size: Side in pixels that images are brought to; None means 128 for folders and CSV, or what half of their files
            have if that is less; for a pretrained network what its weights were learnt from, mostly 224, or up to three
            times what half of the files have. 0 keeps the files' own size.
        resize: How images of other shapes come to the square: `crop` cuts its middle out, `pad` adds black, `squish`
            distorts.
        valid_pct: Share of the images to validate on; None uses train/valid sub-folders, else 0.2.
        split: `stratified` validates on that share of each class, `random` of all images; `folders` takes train/valid
            sub-folders, `column:NAME` a column of a label file that says train, valid or test, or is true for the
            images to validate on. `auto` is `folders` where there are any and no `valid_pct`, else `stratified`.
        group_by: Keep images of one group on one side: a regular expression that is looked for in an image's path from
            the source's folder (its first group, or all it matches), or `column:NAME` of a label file.
        balance: What is done about classes with few images: `loss` weighs them in the training loss (`BalancedLoss`),
            `sample` draws them more often, `none` nothing. The validation loss is never weighted.
        seed: Of the split, the weights and the order of the images.
        device: Such as `cpu` or `cuda`; None takes the accelerator if there is one.
        workers: Decoder processes; None takes one a core.
        schedule: `one_cycle`, `one_cycle_linear` (as Smith published it), `flat_cos` or `constant`.
        precision: What the network computes in: `fp32`, `bf16`, `fp16` (on GPUs only), or `auto`, which times training
            steps for about a second and takes the faster one. With `auto` two runs need not be the same.
        compile: Hand the network to torch.compile, which takes seconds to minutes at its first batches and pays in long
            trainings, above all on GPUs. It needs a C++ compiler on CPUs.
        augment: How much training images are changed at random: `none`, `light` or `strong`, see `augmentation`; None
            means `light` for pretrained networks, else `none`.
        patience: End the training when the validation accuracy has not risen for so many epochs; None for never.
        on_error: What to do about damaged images: `raise` or `skip`.
        stats: Record what every layer does, for `show`; `history.safetensors` is kept up to date meanwhile.
        doctor: Examine the training within a twentieth of its time, and say at its end what is wrong with it, if
            anything is.
        stop_when_sick: End it early when the doctor is sure of an error: `run.stopped` says which.
        checkpoint_s: Seconds between two checkpoints, from which a training that was killed goes on; 0 for none.
        checkpoint_steps: Keep every n-th step as well.
        keep: How many of the last checkpoints stay when the training is done, besides that of the best epoch; other
            trainings can begin there. 0 for none.
        path_col: Of a label file, name or number (from 0) of the column of files; None finds it.
        label_col: Likewise of labels; several, with commas between them, for images with any number of labels: those of
            the columns that are true or 1, or the columns' values.
        label_delim: Of a label file, what is between the labels of one cell: an image has any number of them then.
        suffix: Of a label file, put after each file's name, such as `.jpg` after ids.
        image_folder: Of a label file, the folder its files are in; None means its own.

    Raises:
        UsageError: a number makes no sense, there is no architecture, split or augmentation of this name, or two
            settings exclude each other.
    """

    source: str
    _: KW_ONLY
    arch: str | None = None
    epochs: int = 5
    probe: bool = False
    freeze_epochs: int = 0
    lr: float | None = None
    bs: int | None = None
    size: int | None = None
    resize: ResizeName = "crop"
    valid_pct: float | None = None
    split: str = "auto"
    group_by: str | None = None
    balance: str = "none"
    seed: int = 42
    device: str | None = None
    workers: int | None = None
    schedule: str = "one_cycle"
    precision: str = "fp32"
    compile: bool = False
    augment: str | None = None
    patience: int | None = None
    on_error: OnError = "raise"
    stats: bool = False
    doctor: bool = True
    stop_when_sick: bool = False
    checkpoint_s: float = 60.0
    checkpoint_steps: int | None = None
    keep: int = 0
    path_col: str | None = None
    label_col: str | None = None
    label_delim: str | None = None
    suffix: str = ""
    image_folder: str | None = None

    def __post_init__(self) -> None:
        fits = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "freeze_epochs": (self.freeze_epochs >= 0, "0 or more"),
            "lr": (
                self.lr is None or 0 < self.lr < math.inf,
                "a positive number: at 0 nothing is learnt, below it the loss rises",
            ),
            "bs": (self.bs is None or self.bs >= 1, "at least 1"),
            "size": (self.size is None or self.size >= 0, "at least 1, or 0 for the files' own size"),
            "valid_pct": (self.valid_pct is None or 0 < self.valid_pct < 1, "a share between 0 and 1, such as 0.2"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "patience": (self.patience is None or self.patience >= 1, "at least 1"),
            "checkpoint_s": (0 <= self.checkpoint_s < math.inf, "a number of seconds, or 0 for no checkpoints"),
            "checkpoint_steps": (self.checkpoint_steps is None or self.checkpoint_steps >= 1, "at least 1"),
            "keep": (self.keep >= 0, "0 or more"),
            "workers": (self.workers is None or self.workers >= 1, "at least 1"),
        }
        for name, (does, what) in fits.items():
            if not does:
                raise UsageError(f"{name} must be {what}, got {getattr(self, name)}")
        if self.resize not in get_args(ResizeName):
            raise UsageError(f"resize {self.resize!r} does not exist: use one of {', '.join(get_args(ResizeName))}")
        if self.resize != "crop" and self.size == 0:
            raise UsageError(f"resize {self.resize!r} needs a size, and size 0 (--size) keeps the files' own")
        if self.compile and self.stats:
            raise UsageError(
                "compile and stats exclude each other (--compile, --stats): a network whose layers are watched runs "
                "uncompiled"
            )
        if self.stop_when_sick and not self.doctor:
            raise UsageError(
                "stop_when_sick needs the doctor (--stop-when-sick, --no-doctor): nobody else says what is sick"
            )
        if self.balance not in BALANCES:
            raise UsageError(f"balance {self.balance!r} does not exist: use one of {', '.join(BALANCES)}")
        Split(self.split, self.valid_pct, self.seed, self.group_by)
        augmentation(self.augment or "none")  # refuses a name that does not exist
        if self.arch is not None and not is_library(self.arch):  # a library says itself what it lacks
            check_own(self.arch)
