"""A learner's model into a run folder: `Learner.save_run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.data.adapter import adapted
from pellucid.errors import PellucidError, UsageError
from pellucid.importing import json_arguments
from pellucid.nn.transfer import BodyAndHead
from pellucid.runs.architectures import described, make, name_of, of_model
from pellucid.runs.reserving import reserved
from pellucid.runs.writing import Trained, describe, save_run
from pellucid.seed import kept_rng
from pellucid.text import printable
from pellucid.training.checkpoint import plain_model
from pellucid.training.forward import passed


def save_learner(learn: Trained, folder: str | Path, arch: Any, arguments: Mapping[str, Any] | None) -> Path:
    """See `Learner.save_run`."""
    model = plain_model(learn.model)
    known = of_model(model)
    if arch is None and isinstance(model, BodyAndHead) and not known:
        raise UsageError(
            "the head or the cut of this model is your own, so its architecture has no name: give the function that "
            "makes all of it, learn.save_run(folder, nets.make), or save the weights with learn.save"
        )
    name = known.get("arch") or name_of(type(model)) if arch is None else name_of(arch)
    kept = json_arguments(known.get("arguments") if arch is None and not arguments else arguments, "an architecture")
    settings = known | {
        "arch": name,
        "arguments": kept,
        "lr": learn.lr,
        "bs": getattr(learn.dls.train, "bs", None) or getattr(learn.dls.train, "batch_size", None),
        "device": str(learn.dls.device),
        "loss": getattr(learn.loss_func, "__name__", type(learn.loss_func).__name__),
    }
    description = describe(learn, settings)
    _check_made_again(learn, name, kept, description)
    with reserved(name, folder) as reservation:
        try:
            reservation.release()
            save_run(learn, reservation.folder, settings)
        except OSError as error:
            raise PellucidError(f"{printable(folder)}: cannot be written ({error.strerror or error})") from None
        return reservation.folder


def _check_made_again(learn: Trained, arch: str, arguments: dict[str, Any], description: dict[str, Any]) -> None:
    """Make the model as `load_run` will, and compare: other options may have weights of the same shapes."""
    call = described(arch, arguments)
    with kept_rng(learn.dls.valid):
        again = make(arch, arguments, tuple(description["input_shape"]), len(description["vocab"]))
        xb = adapted(learn.dls.valid).sample(2)[0][:2]
    state = plain_model(learn.model).state_dict()
    try:
        again.load_state_dict(state)
    except RuntimeError as error:
        why = printable(str(error).splitlines()[-1].strip().rstrip("."))
        raise UsageError(
            f"{call} makes another model than this learner's: {why}. Give "
            "the function or class that made it, and its arguments: learn.save_run(folder, nets.small, {'width': 64})"
        ) from None
    ours, theirs = (next(passed(model, learn.dls, [(xb,)]))[1] for model in (learn.model, again))
    expected = (len(xb), len(description["vocab"]))
    if not isinstance(theirs, Tensor) or theirs.shape != expected:
        found = tuple(theirs.shape) if isinstance(theirs, Tensor) else f"a {type(theirs).__name__}"
        raise UsageError(
            f"{call} gives {found} for {expected[0]} images, not {expected}, one output for each of {expected[1]} "
            "classes: no command could use such a run. Save the weights with learn.save"
        )
    if not isinstance(ours, Tensor) or not torch.allclose(ours, theirs, 1e-3, 1e-4):
        raise UsageError(
            f"{call} makes a model with the same weights that computes something else: give all arguments that this "
            "learner's model was made with"
        )
