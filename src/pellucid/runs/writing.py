"""Write a trained model into its run folder: each file appears whole, `run.json` last, which makes it a run."""

from __future__ import annotations

import json
import math
import platform
import shutil
import tempfile
import time
from contextlib import nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pellucid.activations.columns import MAX_COLUMNS
from pellucid.activations.vector import length
from pellucid.data.home import home
from pellucid.data.loader import DataLoader
from pellucid.data.pipeline import Pipeline, kept
from pellucid.errors import PellucidError, UsageError
from pellucid.evaluation.calibration import fitted_sigmoid_temperature, fitted_temperature
from pellucid.files import write_text
from pellucid.history.file import write as write_history
from pellucid.history.history import History
from pellucid.nn.libraries import is_library
from pellucid.nn.losses import activation_name
from pellucid.runs.schema import VERSION
from pellucid.runs.statistics import DESCRIPTION, WEIGHTS
from pellucid.seed import kept_rng
from pellucid.text import printable
from pellucid.training.callbacks.curves import EXACT
from pellucid.training.checkpoint import save_weights
from pellucid.training.features import validation_features

N_CURVES = 12  # losses and hyper-parameters of one parameter group, and the step, which is twice as wide

PACKAGES = ("pellucid", "torch", "numpy", "pillow")


class Trained(Protocol):
    """What a run folder is written from: a `Learner`, of which this room needs no more."""

    model: nn.Module
    dls: Any
    loss_func: Any
    lr: Any
    recorder: Any
    get_preds: Any


def save_run(learn: Trained, folder: Path, settings: dict[str, Any], start: dict[str, Any] | None = None) -> None:
    """Write the run folder of a learner whose model `settings["arch"]` makes.

    Args:
        learn: What was trained.
        folder: Where it is written.
        settings: What it was asked to do.
        start: What the model could do before the first epoch, if that is known: `of` what made it, and results.

    Raises:
        UsageError: its batches are made in a way that a run folder cannot keep.
        OSError: the folder cannot be written.
    """
    description: dict[str, Any] = describe(learn, settings) | ({"start": start} if start else {})
    if not settings.get("interrupted"):  # whoever stops a training waits for its end
        description["temperature"] = temperature(learn, description["activation"], bool(settings.get("probe")))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        save_weights(learn.model, folder / WEIGHTS)
        write_history(folder, _history(learn))
    except SafetensorError as error:  # its word for a full disk, too
        raise OSError(str(error)) from error
    write_text(folder / DESCRIPTION, json.dumps(description, indent=2, allow_nan=False) + "\n")


def temperature(learn: Trained, activation: str | None, probed: bool = False) -> float | None:
    """Of the model's outputs for the validation images, see `fitted_temperature`; costs one validation.

    After a probe, whose body is as it was, that goes quickly: the features of these images are kept.

    None of other losses than cross entropy and its kin, and of loaders of others, which may not be read once more.
    """
    valid, multi = learn.dls.valid, getattr(learn.dls, "multi", False)
    fits = activation == "sigmoid" if multi else activation in ("softmax", "exp")
    if not fits or not isinstance(valid, DataLoader) or not valid.n:
        return None
    with validation_features(learn) if probed else nullcontext(valid) as images:
        outputs, labels = learn.get_preds(dl=images, act=lambda outputs: outputs)
    if not isinstance(labels, Tensor) or labels.dim() != 1 + multi or outputs.dim() != 2:
        return None
    return (fitted_sigmoid_temperature if multi else fitted_temperature)(outputs.numpy(), labels.numpy())


def _history(learn: Trained) -> History:
    """Of the last fit, with what its layers did if that was recorded."""
    stats = getattr(learn, "activation_stats", None)
    return learn.recorder.history if stats is None or stats.watch is None else stats.history


def save_run_somewhere(
    learn: Trained, folder: Path, settings: dict[str, Any], start: dict[str, Any] | None = None
) -> None:
    """Write a run folder; if that fails, write it to another place and name that.

    Raises:
        PellucidError: it is not in `folder`; the message says where it is.
    """
    try:
        save_run(learn, folder, settings, start)
        return
    except OSError as error:
        problem = f"{printable(folder)}: cannot be written any more ({error.strerror or error})"
    name = f"{folder.name[:50]}-{time.strftime('%Y%m%d-%H%M%S')}-"
    places = [Path(tempfile.gettempdir())]
    with suppress(UsageError):  # nobody knows a home folder
        places.insert(0, home() / "rescued")
    for parent in places:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            other = Path(tempfile.mkdtemp(prefix=name, dir=parent))
        except OSError:
            continue
        try:
            save_run(learn, other, settings, start)
        except OSError:
            shutil.rmtree(other, ignore_errors=True)
            continue
        raise PellucidError(f"{problem}; the run is in {printable(other)}")
    raise PellucidError(f"{problem}, nor can {' or '.join(map(printable, places))}: the run is lost")


def size_of(learn: Trained, n_epoch: int) -> int:
    """About how many bytes `save_run` will write after so many epochs, rather more than less."""
    weights = sum(t.numel() * t.element_size() for t in learn.model.state_dict().values())
    n_steps = min(n_epoch * len(learn.dls.train), EXACT)
    n_values = n_steps * N_CURVES + 16 * n_epoch
    return weights + 4 * n_values + 256 * n_epoch + 64 * len(learn.dls.vocab) + (1 << 16)


def statistics_size(learn: Trained, n_epoch: int) -> int:
    """About how many bytes the layer statistics take while two versions of them lie beside each other."""
    n_layers = sum(not list(module.children()) for module in learn.model.modules())
    return 2 * n_layers * min(MAX_COLUMNS, n_epoch * len(learn.dls.train)) * 8 * length(with_hist=True)


def describe(learn: Trained, settings: dict[str, Any]) -> dict[str, Any]:
    """The contents of `run.json`.

    Raises:
        UsageError: as `save_run`.
    """
    recorder, dls = learn.recorder, learn.dls
    names = recorder.metric_names[1:-1]
    results = [
        dict(zip(names, map(_finite, values), strict=True)) | {"seconds": seconds}
        for values, seconds in zip(recorder.values, recorder.seconds, strict=True)
    ]
    return {
        "version": VERSION,
        "settings": {name: _plain(value) for name, value in settings.items()},
        "versions": {name: version(name) for name in (*PACKAGES, *_library(settings))}
        | {"python": platform.python_version()},
        "activation": activation_name(learn.loss_func),
        **(_from_files(learn) if isinstance(dls.valid, DataLoader) else _from_batches(learn)),
        "results": results,
        **({} if recorder.kept is None else {"epoch": recorder.kept}),
    }


def _library(settings: dict[str, Any]) -> list[str]:
    arch = settings["arch"]
    return [arch.partition(":")[0]] if is_library(arch) else []


def _from_files(learn: Trained) -> dict[str, Any]:
    """What turns a file into a batch, of loaders of ours."""
    dls, valid = learn.dls, learn.dls.valid
    pipeline, input_shape = kept(dls.pipeline, valid.dataset.files if valid.dataset else (), dls.device)
    return {
        "input_shape": list(input_shape),
        "vocab": [_plain(label) for label in dls.vocab],
        **pipeline,
        "n_train": dls.train.n,
        "n_valid": valid.n,
        **({"multi": True} if dls.multi else {"majority": _majority(valid.labels, dls)}),
    }


def _majority(labels: Tensor, dls: Any) -> list[Any]:
    """The most frequent class and its share: what an answer without looking would reach."""
    counts = torch.bincount(labels)
    return [dls.label(int(counts.argmax())), float(counts.max()) / len(labels)]


def _from_batches(learn: Trained) -> dict[str, Any]:
    """What can be said of batches of somebody else's loaders."""
    with kept_rng(learn.dls.valid):
        batch = next(iter(learn.dls.valid))
    xb = batch[0] if isinstance(batch, list | tuple) else batch
    if not isinstance(xb, Tensor) or not xb.is_floating_point():
        raise UsageError("a run folder keeps classifiers of images: the first part of a batch must be a float tensor")
    predictions = learn.get_preds(dl=[batch])[0]
    return {
        "input_shape": list(xb.shape[1:]),
        "vocab": [_plain(label) for label in learn.dls.vocab] or [str(i) for i in range(predictions.shape[-1])],
        **Pipeline(None, tuple(xb.shape[1:])).to_json(),
        "n_train": _n_items(learn.dls.train),
        "n_valid": _n_items(learn.dls.valid),
    }


def _n_items(loader: Any) -> int:
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return 0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no nan


def _plain(value: Any) -> Any:
    """A setting as JSON holds it: numbers of numpy become Python's, paths and devices their names."""
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, dict | list):
        return value
    return value if isinstance(value, str | int | float | bool | None) else str(value)
