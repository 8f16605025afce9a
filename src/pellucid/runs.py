"""A run: one training from source to folder on disk, and back to a model that predicts.

A run folder holds `model.safetensors` (weights), `run.json` (every setting, library versions, vocabulary, decoding,
normalisation, results per epoch), `history.safetensors` (losses and hyper-parameters per batch) and, if statistics were
asked for, `seen/` (what every layer did, see `pellucid.activations.history`). Nothing in it is pickled; it can be read
without pellucid.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.numpy import save_file
from safetensors.torch import save_model
from torch import nn
from torch.nn import functional as F

from pellucid.activations.history import History
from pellucid.callback.hook import ActivationStats
from pellucid.data.catalogue import URLs, untar_data
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.idx import find_idx
from pellucid.data.images import Decoding, PILImageBW, Resize
from pellucid.data.loader import DataLoader, DataLoaders, default_device
from pellucid.data.sources import OnError, StreamedImages
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.learner import Learner, load_weights
from pellucid.looking import looking
from pellucid.metrics import accuracy
from pellucid.models import create_model
from pellucid.seed import set_seed
from pellucid.summary import ModelSummary, summarize

VERSION = 1
STATS = "seen"
NAMED = {"mnist": URLs.MNIST, "mnist_sample": URLs.MNIST_SAMPLE}
SCHEDULES = ("one_cycle", "one_cycle_linear", "flat_cos", "constant")
ScheduleName = Literal["one_cycle", "one_cycle_linear", "flat_cos", "constant"]


@dataclass(frozen=True)
class Prediction:
    """What a run says of one image.

    Attributes:
        source: The image, as it was given.
        label: Name of the most probable class.
        probabilities: Class name → probability, most probable first.
    """

    source: str
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Run:
    """A trained model with all that is needed to use it on new images.

    Attributes:
        folder: Where it is kept.
        settings: Contents of its `run.json`.
        model: The network, in evaluation mode.
    """

    folder: Path
    settings: dict[str, Any]
    model: nn.Module

    @property
    def vocab(self) -> list[Any]:
        """Class names, in order of their index."""
        return self.settings["vocab"]

    @property
    def results(self) -> list[dict[str, float]]:
        """Losses and metrics of each epoch."""
        return self.settings["results"]

    def predict(self, images: Sequence[Any]) -> list[Prediction]:
        """Classify images (paths, Pillow images or arrays).

        Raises:
            DataError: an image cannot be decoded, or the run knows no resize and its size differs.
        """
        with looking(self.model), torch.no_grad():
            probabilities = torch.cat([self.model(xb).softmax(-1) for (xb,) in self._loader(images)])
        return [self._prediction(image, row) for image, row in zip(images, probabilities, strict=True)]

    def batch(self, images: Sequence[Any]) -> torch.Tensor:
        """Images as the model sees them, decoded and normalised: (image, channel, row, column).

        Raises:
            DataError: as `predict`.
        """
        return torch.cat([xb for (xb,) in self._loader(images)])

    def summary(self) -> ModelSummary:
        """The layer table, for a batch of one image."""
        return summarize(self.model, torch.zeros(1, *self.settings["input_shape"]))

    @property
    def history(self) -> History:
        """What its layers did while it trained.

        Raises:
            UsageError: it was trained without statistics.
        """
        return load_history(self.folder)

    def _loader(self, images: Sequence[Any]) -> DataLoader:
        decoding = Decoding.from_json(self.settings["decoding"])
        source = StreamedImages(list(images), decoding, tuple(self.settings["input_shape"]))
        normalize = Normalize(**self.settings["normalize"])
        return DataLoader(source, range(len(images)), None, bs=64, batch_tfms=[normalize])

    def _prediction(self, image: Any, row: torch.Tensor) -> Prediction:
        values, order = row.sort(descending=True)
        names = [str(self.vocab[i]) for i in order.tolist()]
        return Prediction(str(image), names[0], dict(zip(names, values.tolist(), strict=True)))


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
    folder = _new_folder(source, out)
    asked = {k: v for k, v in locals().items() if k not in ("folder", "out")}
    set_seed(seed)
    dls = _open(source, size, valid_pct, seed, torch_device(device), workers, on_error)
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


def save_run(learn: Learner, folder: Path, settings: dict[str, Any]) -> None:
    """Write the run folder of a trained named architecture."""
    recorder, valid = learn.recorder, learn.dls.valid
    normalize = next((t for t in valid.batch_tfms if isinstance(t, Normalize)), Normalize([0.0], [1.0]))
    names = recorder.metric_names[1:-1]
    results = [
        dict(zip(names, values, strict=True)) | {"seconds": seconds}
        for values, seconds in zip(recorder.values, recorder.seconds, strict=True)
    ]
    description = {
        "version": VERSION,
        "settings": settings,
        "versions": {name: version(name) for name in ("pellucid", "torch", "numpy", "pillow")}
        | {"python": platform.python_version()},
        "input_shape": list(valid.source.shape),
        "vocab": learn.dls.vocab,
        "decoding": learn.dls.decoding.to_json() if learn.dls.decoding else None,
        "normalize": normalize.to_json(),
        "n_train": learn.dls.train.n,
        "n_valid": valid.n,
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_model(learn.model, str(folder / "model.safetensors"))
    save_file(recorder.to_arrays(), folder / "history.safetensors")
    (folder / "run.json").write_text(json.dumps(description, indent=2, default=str) + "\n")


def load_run(folder: str | Path) -> Run:
    """Open a run folder.

    Raises:
        UsageError: it is no run folder, or its files are damaged.
    """
    folder = Path(folder)
    try:
        settings = json.loads((folder / "run.json").read_text())
        arch, shape, n_out = settings["settings"]["arch"], settings["input_shape"], len(settings["vocab"])
    except FileNotFoundError:
        raise UsageError(f"{folder}: no run folder, it has no run.json; `pellucid train` makes one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / 'run.json'}: damaged ({error})") from None
    model = create_model(arch, shape[0], n_out, max(shape[1:]))
    load_weights(model, folder / "model.safetensors")
    return Run(folder, settings, model.eval())


def load_history(folder: str | Path) -> History:
    """Open the layer statistics of a run, finished or still going.

    Raises:
        UsageError: there are none in this folder, or they are damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; `pellucid train --stats` makes one")
    if not (folder / STATS).is_dir():
        raise UsageError(f"{folder}: was trained without statistics; use `pellucid train --stats`")
    return History.load(folder / STATS)


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


def _open(
    source: str,
    size: int | None,
    valid_pct: float | None,
    seed: int,
    device: torch.device,
    workers: int | None,
    on_error: OnError,
) -> DataLoaders:
    path = Path(source)
    if source in NAMED or (path.is_dir() and find_idx(path)):
        resize = Resize(size) if size else None
        if source not in NAMED and (size or valid_pct):
            raise UsageError(
                f"{source}: IDX files have a size and a split of their own; leave --size and --valid-pct out"
            )
    elif path.exists():
        resize = None if size == 0 else Resize(size or 128)
    else:
        raise UsageError(f"{source}: no such file or folder, and no data set of that name ({', '.join(NAMED)})")
    options: dict[str, Any] = {"device": device, "workers": workers, "on_error": on_error}
    common: dict[str, Any] = {"item_tfms": resize, "batch_tfms": Normalize()}
    if source in NAMED:
        folder = untar_data(NAMED[source])
        return ImageDataLoaders.from_folder(
            folder, None, None, valid_pct, seed, img_cls=PILImageBW, **common, **options
        )
    if path.suffix.lower() == ".csv":
        return ImageDataLoaders.from_csv(path, 0.2 if valid_pct is None else valid_pct, seed, **common, **options)
    if path.is_file():
        raise UsageError(f"{source}: is neither a folder nor a CSV file of path,label")
    if find_idx(path):
        return ImageDataLoaders.from_idx(path, batch_tfms=Normalize(), device=device)
    return ImageDataLoaders.from_folder(path, None, None, valid_pct, seed, **common, **options)


def _fit(learn: Learner, epochs: int, lr: float, schedule: ScheduleName) -> None:
    if schedule == "constant":
        learn.fit(epochs, lr)
    elif schedule == "flat_cos":
        learn.fit_flat_cos(epochs, lr)
    else:
        learn.fit_one_cycle(epochs, lr, legs="linear" if schedule == "one_cycle_linear" else "cosine")


def _new_folder(source: str, out: str | Path | None) -> Path:
    if out is not None:
        if (Path(out) / "run.json").exists():
            raise UsageError(f"{out}: holds a run already; name another folder with --out")
        return Path(out)
    stem = Path("runs") / f"{Path(source).resolve().stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 2
    folder = stem
    while folder.exists():
        folder, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    return folder
