"""What the model is given: its range, whether validation is given the same, whether it is anything at all.

Healthy, and alike: pixels from 0 to 1 that are not centred; inputs that the model scales itself (a division, or a norm
as its first layer); tokens, which are indices and have no scale; random crops with black borders, colour jitter, mixup
and erasing, which shift training images a little; other sizes of image in validation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.evidence.record import Inputs
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import accuracy, last_round, late
from pellucid.doctor.rules.wording import num, percent, times

_LAYERS = (
    "conv1d",
    "conv2d",
    "conv3d",
    "linear",
    "matmul",
    "addmm",
    "bmm",
    "mm",
    "__matmul__",
    "lstm",
    "gru",
    "embedding",
)
_SCALING = ("div", "truediv", "__truediv__", "mul", "__mul__", "sub", "__sub__", "normalize", "div_", "mul_", "sub_")


@rule
def not_normalised(case: Case) -> Iterator[Suspicion]:
    """A mean or a deviation far from 0 and 1 (LeCun et al., "Efficient BackProp", section 4.3)."""
    seen = case.evidence.train
    mean, std = _at_first_layer(case)
    if seen.integers or not np.isfinite([mean, std]).all() or _norm_first(case):
        return
    spread = seen.channel_std[np.isfinite(seen.channel_std)]
    if std > 10 or abs(mean) > 30:
        prior = 0.93
    elif std > 4:
        prior = 0.6
    elif 0 < std < 0.01:
        prior = 0.7
    elif abs(mean) > 5 * std > 0:
        prior = 0.75 if abs(mean) > 1.5 else 0.3  # mostly white images: a mean of 0.95 and a deviation of 0.1, say
    else:
        return
    scale = (
        f"range from {num(seen.min)} to {num(seen.max)}, with" if np.isfinite([seen.min, seen.max]).all() else "have"
    )
    uneven = ""
    if len(seen.shape) == 1 and len(spread) > 1 and spread.max() > 30 * np.median(spread) > 0:
        uneven = f"; the widest column spreads {times(spread.max() / np.median(spread))} as far as a typical one"
    remedy = None
    if seen.max > 50 and seen.min >= 0 and seen.max <= 255:
        remedy = "Divide the pixels by 255, subtract the mean of the training set and divide by its standard deviation."
    elif std > 0:
        remedy = f"Subtract {num(mean)} and divide by {num(std)}, in training and in validation."
    yield Suspicion(
        "inputs-not-normalised",
        prior,
        f"the inputs {scale} a mean of {num(mean)} and a standard deviation of {num(std)}{uneven}",
        {"mean": mean, "std": std, "min": seen.min, "max": seen.max},
        step=0,
        remedy=remedy,
        trials=("normalised-input", "lower-rate"),
    )


def _at_first_layer(case: Case) -> tuple[float, float]:
    """Mean and deviation of what the first layer gets: the input's, or those after the model's own scaling."""
    mean, std = case.evidence.train.mean, case.evidence.train.std
    for op in case.evidence.ops:
        if op.name in _LAYERS:
            break
        if op.name in _SCALING and op.module is not None and np.isfinite([op.mean, op.std]).all():
            mean, std = op.mean, op.std
    return mean, std


def _norm_first(case: Case) -> bool:
    layers = [layer for layer in case.history.layers if layer.role == "layer" and layer.shape]
    return bool(layers) and "Norm" in layers[0].kind


@rule
def mismatch(case: Case) -> Iterator[Suspicion]:
    """Validation images of another mean or deviation, or with channels or pixels in another order."""
    train, valid = case.evidence.train, case.evidence.valid
    if train.integers or not train.std > 0 or not np.isfinite([valid.mean, valid.std]).all():
        return
    offset, ratio = _difference(train, valid)
    # 1: as far as augmentation may take it, and two standard errors that few images of different brightness may add.
    by_chance = 2 * _error(train, valid)
    apart = max((offset - by_chance) / 0.35, (abs(np.log(max(ratio, 1e-6))) - by_chance) / np.log(1.6))
    trained, validated = late(case.evidence.train_labels), accuracy(case.evidence.valid_labels, last_round(case))
    worse = trained.share - validated.share if trained.n and validated.n else np.nan
    alike = _same_classes(case)
    swapped = alike and _swapped(train, valid)
    looks = _arranged(train, valid) if alike and worse > 0.15 else ""
    if apart < (1 if alike else 1.5) and not swapped and not looks:
        return
    prior = 0.35 if apart < 1.5 else 0.75 if apart < 3 else 0.93
    if swapped or looks:
        prior = max(prior, 0.7)
    if np.isfinite(worse):
        prior = min(0.97, prior + 0.15) if worse > 0.1 else prior * (0.6 if worse < 0 else 1)
    says = (
        f"training images have a mean of {num(train.mean)} and a standard deviation of {num(train.std)}, validation "
        f"images {num(valid.mean)} and {num(valid.std)}"
    )
    if swapped:
        says = (
            f"the channel means of validation images are {_list(valid.channel_mean)}, those of training images "
            f"{_list(train.channel_mean)}: the first and the last channel are swapped (BGR instead of RGB)"
        )
    elif looks and apart < 1:
        says = f"{looks}, and the accuracy is {percent(trained.share)} in training and {percent(validated.share)} there"
    yield Suspicion(
        "train-valid-preprocessing-mismatch",
        prior,
        says,
        {"train": [train.mean, train.std], "valid": [valid.mean, valid.std], "offset": offset, "ratio": ratio},
        step=int(case.evidence.valid_steps[0]) if len(case.evidence.valid_steps) else None,
    )


def _difference(train: Inputs, valid: Inputs) -> tuple[float, float]:
    """Largest offset of a channel's mean, in deviations of training, and the most different ratio of deviations."""
    if len(train.channel_std) == len(valid.channel_std) and 1 <= len(train.channel_std) <= 16:
        known = train.channel_std > 1e-6
        if known.any():
            offsets = np.abs(valid.channel_mean - train.channel_mean)[known] / train.channel_std[known]
            ratios = (valid.channel_std / np.where(known, train.channel_std, 1))[known]
            return float(offsets.max()), float(ratios[np.argmax(np.abs(np.log(np.maximum(ratios, 1e-6))))])
    return abs(valid.mean - train.mean) / train.std, valid.std / train.std


def _arranged(train: Inputs, valid: Inputs) -> str:
    """What tells that pixels lie in other places: turned, flipped or transposed images, a reshape, another zoom.

    Augmentation moves both figures a little; so they count only where validation is much worse as well.
    """
    rough = np.array([train.roughness, valid.roughness])
    if np.isfinite(rough).all() and rough.min() >= 0 and rough.max() > 1.6 * rough.min():
        return (
            f"neighbouring pixels differ by {num(rough[1])} standard deviations in validation images and by "
            f"{num(rough[0])} in training images"
        )
    if not len(train.layout) or len(train.layout) != len(valid.layout):
        return ""
    # The middle, which borders of random crops do not reach.
    a, b = (each.reshape(8, 8)[2:6, 2:6].ravel() for each in (train.layout, valid.layout))
    if (a - b).std() < 4 * train.std * _error(train, valid) or not a.std() * b.std() > 0:
        return ""
    alike = float(np.corrcoef(a, b)[0, 1])
    says = f"the mean validation image is not like the mean training image (correlation {num(alike)} in the middle)"
    return says if alike < 0.5 else ""


def _error(train: Inputs, valid: Inputs) -> float:
    """Standard error of the difference of both sets' means, over the deviation from image to image."""
    return float(np.sqrt(1 / max(train.looked, 1) + 1 / max(valid.looked, 1)))


def _same_classes(case: Case) -> bool:
    """Whether both sets have the same classes, as far as they are known: ships are bluer than frogs."""
    trained, valid = (np.unique(each.sequence) for each in (case.evidence.train_labels, case.evidence.valid_labels))
    return not len(trained) or not len(valid) or float(np.isin(trained, valid).mean()) > 0.8


def _swapped(train: Inputs, valid: Inputs) -> bool:
    """Whether the first and the last of three channels went opposite ways, as far as each other, and the middle stayed.

    So it is whether the channels were normalised before or not: (m2 − m0)/s0 and (m0 − m2)/s2, or not divided. How
    bright the images are does not count: among few images it differs more than their colour, whose half difference of
    blue and red has 0.25 of the deviation from image to image in CIFAR-10.
    """
    if len(train.channel_mean) != 3 or len(valid.channel_mean) != 3:
        return False
    moved = valid.channel_mean - train.channel_mean
    first, middle, last = moved - moved.mean()
    apart = abs(last - first) / 2
    sure = max(0.08, 5 * 0.25 * _error(train, valid)) * train.std
    return bool(apart > sure and abs(middle) < 0.35 * apart and first * last < 0)


@rule
def constant(case: Case) -> Iterator[Suspicion]:
    """Images that do not differ, or are empty."""
    seen = case.evidence.train
    size = int(np.median(seen.batch_sizes)) if len(seen.batch_sizes) else 0
    size_of_values = max(seen.std, 1e-3 * abs(seen.mean)) if np.isfinite([seen.std, seen.mean]).all() else np.nan
    if size < 2:
        return
    equal = seen.integers and len(seen.hashes) > 2 * size and len(np.unique(seen.hashes)) == 1
    if equal or (not seen.integers and seen.between <= 1e-3 * size_of_values):
        prior, says = 0.95, "all images in a batch are the same" if seen.std > 0 else f"every pixel is {num(seen.mean)}"
    elif seen.constant > 0.25 and not seen.integers:
        prior = 0.93 if seen.constant > 0.4 else 0.75
        says = f"{percent(seen.constant)} of the images are empty (all their values are equal)"
    else:
        return
    yield Suspicion(
        "constant-input",
        prior,
        says,
        {"between": seen.between, "std": seen.std, "constant": seen.constant, "mean": seen.mean},
        step=0,
    )


def _list(values: np.ndarray) -> str:
    return ", ".join(num(float(value)) for value in values)
