"""The experiments that the chapter's further research and its asides ask for."""

from __future__ import annotations

from itertools import product
from typing import Any

from pellucid.errors import UsageError
from pellucid.experiments.grid import Experiment

SETTINGS = {"epochs": 2, "images": 60_000}
COUNTS = ("valid_loss", "parameters", "multiplications", "diverged")
NORMS = {
    "batch, outputs too": {"norm": "batch", "norm_last": True},
    "batch": {"norm": "batch", "norm_last": False},
    "group": {"norm": "group", "norm_last": False},
    "instance": {"norm": "instance", "norm_last": False},
    "layer": {"norm": "layer", "norm_last": False},
    "none": {"norm": None},
}


def _train_digits(seed: int, **options: Any) -> dict[str, float]:
    from pellucid.experiments.trainings import train_digits  # here, so that the list of experiments comes at once

    return train_digits(seed, **options)


def _train_colours(seed: int, **options: Any) -> dict[str, float]:
    from pellucid.experiments.trainings import train_colours

    return train_colours(seed, **options)


_DIGITS = (
    Experiment(
        "norms",
        "Which normalization layer works best: batch, group, instance, layer or none?",
        _train_digits,
        {f"{name}, rate {lr:g}": options | {"lr": lr} for lr, (name, options) in product((0.06, 0.01), NORMS.items())},
        settings=SETTINGS,
        also=COUNTS,
    ),
    Experiment(
        "order",
        "Does it matter whether the activation function comes before or after the batchnorm?",
        _train_digits,
        {
            f"{name}, rate {lr:g}": {"act_first": first, "lr": lr}
            for lr, (name, first) in product((0.06, 0.01), {"ReLU first": True, "batchnorm first": False}.items())
        },
        settings=SETTINGS,
        also=COUNTS,
    ),
    Experiment(
        "pooling",
        "Does halving the maps by pooling work better than stride 2?",
        _train_digits,
        {"stride 2": {"pool": None}, "max pooling": {"pool": "max"}, "average pooling": {"pool": "avg"}},
        settings=SETTINGS,
        also=COUNTS,
    ),
    Experiment(
        "kernel",
        "Is a 5×5 kernel in the first layer better than a 3×3 kernel?",
        _train_digits,
        {"5×5": {"first_ks": 5}, "3×3": {"first_ks": 3}},
        settings=SETTINGS,
        also=COUNTS,
    ),
    Experiment(
        "batch-size",
        "Is a batch of 512 images better than one of 64, in the same number of epochs?",
        _train_digits,
        {f"{bs}, rate {lr:g}": {"bs": bs, "lr": lr} for bs, lr in product((512, 64), (0.003, 0.01, 0.03, 0.1))},
        baseline="512, rate 0.03",
        settings=SETTINGS,
        also=COUNTS,
    ),
)
_COLOURS = Experiment(
    "colour",
    "Does it matter how colours are encoded: RGB, HSV or grey?",
    _train_colours,
    {name: {"encoding": name} for name in ("RGB", "HSV", "HSV from magenta", "grey")},
    settings=SETTINGS,
    also=COUNTS,
)

EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in (*_DIGITS, _COLOURS)}


def experiment_named(name: str) -> Experiment:
    """One of `EXPERIMENTS`.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise UsageError(f"experiment {name!r} does not exist: use one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
