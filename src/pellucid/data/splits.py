"""Divide the items of a data set into training and validation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from pellucid.data.items import folder_above
from pellucid.data.names import one_spelling
from pellucid.errors import DataError, UsageError
from pellucid.text import printable

Splitter = Callable[[Sequence[Any]], tuple[list[int], list[int]]]
SHOWN = 8  # names in a message


def RandomSplitter(valid_pct: float = 0.2, seed: int | None = None) -> Splitter:
    """Put a random share `valid_pct` of the items (at least one) aside for validation.

    The same splitter divides as many items the same way every time, whatever random numbers were drawn in between.

    Args:
        valid_pct: Share of the items, between 0 and 1.
        seed: Makes the split repeatable; None takes the process's: what `set_seed` (or `torch.manual_seed`) was last
            given, or the random one that a process starts with.
    """
    check_share(valid_pct)

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        order = list(range(len(items)))
        random.Random(seed_of(seed)).shuffle(order)
        cut = max(1, int(valid_pct * len(items)))
        return order[cut:], order[:cut]

    return split


def RandomSubsetSplitter(train_sz: float, valid_sz: float, seed: int | None = None) -> Splitter:
    """Train on a random share of the items and validate on another; the rest is on neither side.

    Args:
        train_sz: Share of the items to train on, between 0 and 1.
        valid_sz: Share to validate on; the two may add up to 1 at most.
        seed: As of `RandomSplitter`.
    """
    check_share(train_sz, "train_sz")
    check_share(valid_sz, "valid_sz")
    if train_sz + valid_sz > 1 + 1e-9:
        raise UsageError(f"train_sz and valid_sz are shares of all items, they cannot be {train_sz} and {valid_sz}")

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        order = list(range(len(items)))
        random.Random(seed_of(seed)).shuffle(order)
        n_train, n_valid = int(train_sz * len(items)), int(valid_sz * len(items))
        return order[:n_train], order[n_train : n_train + n_valid]

    return split


def IndexSplitter(valid_idx: Iterable[int]) -> Splitter:
    """Validate on the items at these positions, train on the others.

    Raises:
        UsageError: not whole numbers, such as a mask of True and False. The splitter raises DataError for a position
            that no item has.
    """
    positions = sorted(set(_whole(valid_idx, "IndexSplitter")))

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        outside = [i for i in positions if not 0 <= i < len(items)]
        if outside:
            raise DataError(f"IndexSplitter position {outside[0]} lies outside the {len(items)} items")
        valid = set(positions)
        return [i for i in range(len(items)) if i not in valid], list(positions)

    return split


def MaskSplitter(mask: Iterable[Any]) -> Splitter:
    """Validate on the items where `mask` is true, train on the others; the splitter checks that each item has one.

    Raises:
        UsageError: the mask holds something else, or another number of values than there are items.
    """
    flags = [flag.item() if hasattr(flag, "item") else flag for flag in mask]
    if not all(isinstance(flag, bool) for flag in flags):
        raise UsageError("MaskSplitter takes True or False for each item; for positions there is IndexSplitter")

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        if len(flags) != len(items):
            raise UsageError(f"MaskSplitter has {len(flags)} values for {len(items)} items")
        return [i for i, flag in enumerate(flags) if not flag], [i for i, flag in enumerate(flags) if flag]

    return split


def FuncSplitter(func: Callable[[Any], bool]) -> Splitter:
    """Validate on the items for which `func` is true, train on the others."""

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        flags = [bool(func(item)) for item in items]
        return [i for i, flag in enumerate(flags) if not flag], [i for i, flag in enumerate(flags) if flag]

    return split


def GrandparentSplitter(
    train_name: str | Sequence[str] = "train", valid_name: str | Sequence[str] = "valid"
) -> Splitter:
    """Split by the name of the folder above the label's: `train/cat/1.png` trains, `valid/cat/2.png` validates.

    Items in other folders are on neither side. The splitter raises DataError, naming the folders there are, when one of
    the two sides stays empty.
    """
    wanted = [set(map(one_spelling, [name] if isinstance(name, str) else name)) for name in (train_name, valid_name)]

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        folders = [one_spelling(folder_above(item, 2)) for item in items]
        train, valid = ([i for i, folder in enumerate(folders) if folder in names] for names in wanted)
        for part, names, role in ((train, wanted[0], "training"), (valid, wanted[1], "validation")):
            if not part and items:
                raise DataError(f"no {role} images: {_missing(names, items, set(folders))}")
        return train, valid

    return split


def check_share(value: Any, name: str = "valid_pct") -> None:
    """See that it is a share of the items; raises UsageError otherwise."""
    if isinstance(value, str) or not 0 < value < 1:
        raise UsageError(f"{name} must be a number between 0 and 1, got {value!r}")


def seed_of(seed: int | None) -> int:
    """A splitter's seed; without one the process's, not the generator's state, which every batch looked at moves."""
    return torch.initial_seed() if seed is None else seed


def checked_split(split: Any, items: Sequence[Any]) -> tuple[list[int], list[int], list[int]]:
    """Check what a splitter returned: training, validation, and the positions that are on neither side.

    Raises:
        UsageError: it is no pair of whole numbers within the items, such as a mask of True and False.
        DataError: an item is on both sides, or a side is empty.
    """
    if isinstance(split, str | dict) or not isinstance(split, Iterable):
        raise UsageError(f"the splitter returned {_kind(split)}; wanted are two lists of positions, (train, valid)")
    parts = list(split)
    if len(parts) != 2:
        raise UsageError(f"the splitter returned {len(parts)} parts; wanted are two lists of positions, (train, valid)")
    train, valid = (
        _whole(part, f"the splitter's {role} part")
        for part, role in zip(parts, ("training", "validation"), strict=True)
    )
    for part, role in ((train, "training"), (valid, "validation")):
        if not part:
            raise DataError(f"no {role} images: the splitter put none of the {len(items)} items there")
        outside = [i for i in part if not 0 <= i < len(items)]
        if outside:
            raise UsageError(
                f"the splitter's {role} part holds position {outside[0]}; positions of the {len(items)} items go "
                f"from 0 to {len(items) - 1}"
            )
    both = sorted(set(train) & set(valid))
    if both:
        raise DataError(
            f"the splitter put {len(both)} of the {len(items)} items into both training and validation, "
            f"such as {printable(items[both[0]])} (position {both[0]})"
        )
    used = {*train, *valid}
    return train, valid, [i for i in range(len(items)) if i not in used]


def quoted(names: Iterable[str]) -> str:
    """Names for a message, sorted, the first few of many."""
    listed = sorted(names)
    return ", ".join(map(repr, listed[:SHOWN])) + (" …" if len(listed) > SHOWN else "")


def _whole(values: Any, what: str) -> list[int]:
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise UsageError(f"{what} must be a list of positions, got {_kind(values)}")
    # A tensor's elements are tensors, and far slower to look at one by one.
    tolist = getattr(values, "tolist", None)
    listed = tolist() if tolist else list(values)
    if not isinstance(listed, list):
        raise UsageError(f"{what} must be a list of positions, got the single number {listed}")
    numbers = [value.item() if hasattr(value, "item") else value for value in listed]
    for number in numbers:
        if isinstance(number, bool):
            raise UsageError(f"{what} must hold positions, not a mask of True and False: use MaskSplitter(mask)")
        if not isinstance(number, int):
            raise UsageError(f"{what} must hold whole numbers, got {_kind(number)}")
    return numbers


def _missing(names: set[str], items: Sequence[Any], folders: set[str]) -> str:
    """What to say where no item lies in a class folder of one of `names`."""
    flat = names & {folder_above(item, 1) for item in items}
    if flat:
        return f"{quoted(flat)} holds images itself, not class folders with the images in them"
    return (
        f"no folder is named {quoted(names)}; there are {quoted(folders)}. "
        "Name yours: GrandparentSplitter('my-train-folder', 'my-valid-folder')"
    )


def _kind(value: Any) -> str:
    return f"{printable(repr(value))[:60]} ({type(value).__name__})"
