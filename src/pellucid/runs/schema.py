"""What `run.json` must hold, checked once and before anything is made from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from pellucid.data.images import Decoding
from pellucid.data.registry import BATCH_TRANSFORMS, ITEM_TRANSFORMS, from_json
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.importing import is_foreign
from pellucid.nn.losses import ACTIVATIONS
from pellucid.text import printable

VERSION = 2
NEEDED = ("settings", "input_shape", "vocab", "decoding", "image_shape", "batch_tfms")  # for the model and its input
LONGEST_SIDE = 65_535  # of a JPEG; others that long are no pictures to classify
MOST_VALUES = 1 << 27  # of one image: half a gigabyte as the model sees it


def check(run: dict[str, Any], file: Path) -> dict[str, Any]:
    """Check the contents of `run.json`, and give them as the present version has them.

    Raises:
        UsageError: a newer pellucid wrote it, or something in it is missing or cannot be.
    """
    version = run.get("version", 1)
    if not _is_whole(version) or version < 1:
        raise _damaged(file, "version", version)
    if version > VERSION:
        raise UsageError(
            f"{printable(file)}: has the format {version}, this pellucid reads up to {VERSION}; update pellucid"
        )
    run = _from_version_1(run, file) if version == 1 else run
    checks: dict[str, Callable[[Any], bool]] = {
        "settings": _is_settings,
        "input_shape": _is_shape,
        "vocab": _is_vocab,
        "decoding": _is_decoding,
        "image_shape": _is_shape,
        "batch_tfms": _are_transforms,
        "results": _are_results,
        "start": _is_start,
        "epoch": _is_count,
        "temperature": lambda value: value is None or (_is_finite(value) and value > 0),
        "n_train": _is_count,
        "n_valid": _is_count,
        "majority": _is_majority,
        "multi": lambda value: isinstance(value, bool),
        "activation": lambda value: value is None or (isinstance(value, str) and value in ACTIVATIONS),
    }
    for name in NEEDED:
        if name not in run:
            raise UsageError(f"{printable(file)}: damaged, {name!r} is missing")
    for name in (each for each in checks if each in run):
        if not checks[name](run[name]):
            raise _damaged(file, name, run[name])
    _check_agreement(run, file)
    return run


def foreign_transforms(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The transforms of other people in a checked `run.json`, which are imported by name."""
    decoding = run["decoding"] or {}
    return [each for each in (*decoding.get("transforms", ()), *run["batch_tfms"]) if is_foreign(each["name"])]


def _from_version_1(run: dict[str, Any], file: Path) -> dict[str, Any]:
    """Before version 2 images were resized and batches normalised, and nothing else."""
    if "normalize" not in run:
        raise UsageError(f"{printable(file)}: damaged, 'normalize' is missing")
    arguments = run["normalize"]
    if not _is_normalization(arguments):
        raise _damaged(file, "normalize", arguments)
    shape = {"image_shape": run["input_shape"]} if "input_shape" in run else {}
    others = {name: value for name, value in run.items() if name != "normalize"}
    return others | shape | {"version": VERSION, "batch_tfms": [{"name": "Normalize", "arguments": arguments}]}


def _check_agreement(run: dict[str, Any], file: Path) -> None:
    """Each part may be possible alone; here they are held against each other."""
    shape, decoding = run["image_shape"], run["decoding"]
    if decoding is not None and not decoding.get("transforms"):
        made = Decoding.from_json(decoding)
        pixels = made.resize.height_width if made.resize else tuple(shape[1:])
        expected = (1 if made.mode == "L" else 3, *pixels)
        if tuple(shape) != expected:
            raise UsageError(
                f"{printable(file)}: damaged, images of {_times(shape)} do not fit its decoding, {_times(expected)}"
            )
    if "epoch" in run and run["epoch"] >= len(run.get("results", [])):
        raise UsageError(f"{printable(file)}: damaged, it has no results of the epoch {run['epoch']} that it holds")
    _own_transforms((decoding or {}).get("transforms", ()), ITEM_TRANSFORMS, file)
    for i, made in _own_transforms(run["batch_tfms"], BATCH_TRANSFORMS, file):
        n_channels = len(made.mean or ()) if isinstance(made, Normalize) else 1
        if n_channels not in (1, shape[0]) and i == 0:  # what comes before another may change the channels
            raise UsageError(f"{printable(file)}: damaged, it normalises {n_channels} channels of {shape[0]}")


def _own_transforms(listed: Sequence[Any], known: dict[str, type], file: Path) -> list[tuple[int, Any]]:
    """Those of pellucid's, made, with their places: no code of others runs before it is allowed."""
    try:
        return [(i, from_json(each, known)) for i, each in enumerate(listed) if not is_foreign(each["name"])]
    except UsageError as error:
        raise UsageError(f"{printable(file)}: {error}") from None


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
        if not isinstance(resize, dict) or not {"size", "method"} <= resize.keys() <= {"size", "method", "pad_mode"}:
            return False
        size = resize["size"]
        sides = size if isinstance(size, list) and len(size) == 2 else [size]
        if not all(_is_count(side) and 0 < side <= LONGEST_SIDE for side in sides):
            return False
    try:
        Decoding.from_json(value | {"transforms": ()})
    except (UsageError, KeyError, TypeError, ValueError):
        return False
    return _are_transforms(value.get("transforms", []))


def _are_transforms(value: Any) -> bool:
    """Names and arguments; a function of others has none, and is not called while the folder is opened."""
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and {"name"} <= each.keys() <= {"name", "arguments"}
        and isinstance(each["name"], str)
        and isinstance(each.get("arguments", {}), dict)
        and (is_foreign(each["name"]) or "arguments" in each)
        for each in value
    )


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


def _is_start(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("of"), str):
        return False
    return _are_results([{name: each for name, each in value.items() if name != "of"}])


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


def _damaged(file: Path, name: str, value: Any) -> UsageError:
    return UsageError(f"{printable(file)}: damaged, {name!r} cannot be {_shortened(value)}")


def _times(shape: Any) -> str:
    return "×".join(map(str, shape))


def _shortened(value: Any) -> str:
    text = printable(repr(value)) if not isinstance(value, dict | list) or len(value) < 20 else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}…"
