"""What `run.json` must hold, checked once and before anything is made from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from pellucid.data.images import Decoding
from pellucid.errors import UsageError
from pellucid.nn.losses import ACTIVATIONS
from pellucid.text import printable

VERSION = 1
NEEDED = ("settings", "input_shape", "vocab", "decoding", "normalize")  # to make the model and its input
LONGEST_SIDE = 65_535  # of a JPEG; others that long are no pictures to classify
MOST_VALUES = 1 << 27  # of one image: half a gigabyte as the model sees it


def check(run: dict[str, Any], file: Path) -> None:
    """Check the contents of `run.json`.

    Raises:
        UsageError: a newer pellucid wrote it, or something in it is missing or cannot be.
    """
    version = run.get("version")
    if _is_whole(version) and version > VERSION:
        raise UsageError(
            f"{printable(file)}: has the format {version}, this pellucid reads up to {VERSION}; update pellucid"
        )
    checks: dict[str, Callable[[Any], bool]] = {
        "version": lambda value: value == VERSION and _is_whole(value),
        "settings": _is_settings,
        "input_shape": _is_shape,
        "vocab": _is_vocab,
        "decoding": _is_decoding,
        "normalize": _is_normalization,
        "results": _are_results,
        "n_train": _is_count,
        "n_valid": _is_count,
        "majority": _is_majority,
        "activation": lambda value: value is None or (isinstance(value, str) and value in ACTIVATIONS),
    }
    for name in NEEDED:
        if name not in run:
            raise UsageError(f"{printable(file)}: damaged, {name!r} is missing")
    for name in (each for each in checks if each in run):
        if not checks[name](run[name]):
            raise UsageError(f"{printable(file)}: damaged, {name!r} cannot be {_shortened(run[name])}")
    _check_agreement(run, file)


def _check_agreement(run: dict[str, Any], file: Path) -> None:
    """Each part may be possible alone; here they are held against each other."""
    shape, decoding = run["input_shape"], run["decoding"]
    if decoding is not None:
        made = Decoding.from_json(decoding)
        pixels = made.resize.height_width if made.resize else tuple(shape[1:])
        expected = (1 if made.mode == "L" else 3, *pixels)
        if tuple(shape) != expected:
            raise UsageError(
                f"{printable(file)}: damaged, images of {_times(shape)} do not fit its decoding, {_times(expected)}"
            )
    if len(run["normalize"]["mean"]) not in (1, shape[0]):
        raise UsageError(
            f"{printable(file)}: damaged, it normalises {len(run['normalize']['mean'])} channels of {shape[0]}"
        )


def _is_settings(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("arch"), str):
        return False
    arguments = value.get("arguments", {})
    return isinstance(arguments, dict)


def _is_shape(value: Any) -> bool:
    if not isinstance(value, list) or not 1 <= len(value) <= 8 or not all(_is_count(n) and n > 0 for n in value):
        return False
    return max(value) <= LONGEST_SIDE and math.prod(value) <= MOST_VALUES


def _is_vocab(value: Any) -> bool:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) or _is_whole(v) for v in value):
        return False
    return len(set(map(str, value))) == len(value)


def _is_decoding(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or value.get("mode") not in ("L", "RGB"):
        return False
    resize = value.get("resize")
    if resize is not None:
        if not isinstance(resize, dict):
            return False
        size = resize.get("size")
        sides = size if isinstance(size, list) and len(size) == 2 else [size]
        if not all(_is_count(side) and 0 < side <= LONGEST_SIDE for side in sides):
            return False
    try:
        Decoding.from_json(value)
    except (UsageError, KeyError, TypeError, ValueError):
        return False
    return True


def _is_normalization(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"mean", "std"}:
        return False
    mean, std = value["mean"], value["std"]
    listed = isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) > 0
    return listed and all(map(_is_finite, mean)) and all(_is_finite(s) and s > 0 for s in std)


def _are_results(value: Any) -> bool:
    """Epochs of numbers; null is a number that was not finite."""
    return isinstance(value, list) and all(
        isinstance(epoch, dict) and all(v is None or _is_number(v) for v in epoch.values()) for epoch in value
    )


def _is_majority(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _is_finite(value[1])


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> TypeGuard[int]:
    return _is_whole(value) and value >= 0


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)


def _is_finite(value: Any) -> bool:
    # A whole number of JSON may be too long for a float.
    return (isinstance(value, float) and math.isfinite(value)) or (_is_whole(value) and abs(value) < 2**53)


def _times(shape: Any) -> str:
    return "×".join(map(str, shape))


def _shortened(value: Any) -> str:
    text = printable(repr(value)) if not isinstance(value, dict | list) or len(value) < 20 else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}…"
