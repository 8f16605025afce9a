"""Train a pretrained network: the probe first, then all of it, never ending with less than the probe has."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pellucid.output import say
from pellucid.runs.examining import watching
from pellucid.runs.settings import Settings
from pellucid.text import counted
from pellucid.training.callbacks.tracking import KeepBestCallback
from pellucid.training.features import validation_features
from pellucid.training.finetuning import KeptStatistics
from pellucid.training.learner import Learner
from pellucid.training.probe import linear_probe

SPREAD = 100  # rate of the head over the rate of the first layers

Start = dict[str, Any]
"""What a model could do before the first epoch that a run records: `of` says what made it, the rest is as of an
epoch's results. Empty where nothing is known."""


def start(learn: Learner, settings: Settings, begun: Start) -> None:
    """Give the head the weights of the probe, print what it reaches and have the learner fall back on it.

    Args:
        learn: A learner whose body is frozen.
        settings: With `augment` and `balance`.
        begun: Gets what the probe reaches.
    """
    began, best = time.perf_counter(), _best(learn)
    found = linear_probe(learn, flipped=settings.augment != "none", balanced=settings.balance != "none")
    of = {"of": "probe", "strength": found.strength}
    with validation_features(learn) as valid:
        values = learn.validate(dl=valid)
    result = _result(learn, of, values, time.perf_counter() - began)
    metric = best.monitor
    say(
        f"probe: {metric} {result[metric]:.4f}, valid_loss {result['valid_loss']:.4f} in {result['seconds']:.0f} s; a "
        f"linear layer on {found.n_features:,} features of each image{' and its mirror image' * (found.n_views > 1)}"
        + "\n"
        * (not settings.probe)  # before the table of the epochs that follow
    )
    best.start = result[metric]
    begun.update(result)


def fine_tune(
    learn: Learner, settings: Settings, fit: Callable[..., None], begun: Start, *, spread: bool = True
) -> None:
    """Train the head alone as far as that is asked for, then everything at rates that rise from the input.

    Args:
        learn: A learner whose body is frozen.
        settings: With `freeze_epochs`, `epochs` and `lr`.
        fit: Trains a learner for some epochs at some rates.
        begun: What `start` found; gets what the model can do before the last part.
        spread: Whether `fit` takes rates that rise from the input; otherwise all have that of the head.
    """
    lr, best = settings.lr or 0.0, _best(learn)
    frozen = settings.freeze_epochs or int(not begun)  # a head of random numbers would spoil the body
    if frozen:
        learn.fit_frozen(frozen, 2 * lr, flipped=settings.augment != "none")
        best.start = best.best
        if learn.recorder.kept is not None:
            values = learn.recorder.values[learn.recorder.kept][1:]
            begun.clear()
            begun.update(_result(learn, {"of": counted(frozen, "frozen epoch")}, values, sum(learn.recorder.seconds)))
    learn.unfreeze()
    learn.add_cbs(KeptStatistics())
    learn.add_cbs(watching(settings))
    fit(learn, settings.epochs, slice(lr / SPREAD, lr) if spread else lr)


def _best(learn: Learner) -> KeepBestCallback:
    return next(cb for cb in learn.cbs if isinstance(cb, KeepBestCallback))


def _result(learn: Learner, of: dict[str, Any], values: list[float], seconds: float) -> Start:
    names = learn.recorder.metric_names[2:-1]
    return of | dict(zip(names, values, strict=True)) | {"seconds": seconds}
