"""Splits that look at labels: each class on both sides, and what belongs together on one."""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid.data.apportioning import apportioned, chosen_groups
from pellucid.data.frames import is_frame, rows
from pellucid.data.names import one_spelling
from pellucid.data.splits import Splitter, check_share, seed_of
from pellucid.errors import DataError, UsageError
from pellucid.text import counted, first_few, printable

Labels = Sequence[Any] | Callable[[Any], Any]
LISTED = 3  # files in a message


def TrainTestSplitter(
    test_size: float = 0.2, random_state: int | None = None, stratify: Labels | None = None
) -> Splitter:
    """Put a share of the items aside for validation; with `stratify` the same share of each class, within one item.

    Files are divided by their paths: in the same way, whatever order they are listed in.

    Args:
        test_size: Share to validate on, between 0 and 1.
        random_state: Makes the split repeatable, as the seed of `RandomSplitter`.
        stratify: The label of each item, or a function of an item that gives it, such as `parent_label`. An item may
            have a list of labels: each label's share is then met as nearly as it can be. None for no classes.

    The splitter raises DataError where a class has one item only, which cannot be on both sides.
    """
    check_share(test_size, "test_size")

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        items = rows(items) if is_frame(items) else items
        order = _by_path(items)
        if stratify is None:
            random.Random(seed_of(random_state)).shuffle(order)
            return _sides(order[: max(1, round(test_size * len(items)))], len(items))
        labels = _labels_of(items, stratify)
        if any(len(each) != 1 for each in labels):
            counts = [Counter(labels[i]) or Counter([None]) for i in order]
            chosen = chosen_groups(counts, [1] * len(counts), test_size, seed_of(random_state))
            return _sides([order[i] for i in chosen], len(items))
        return _sides(_of_each_class(items, order, labels, test_size, seed_of(random_state)), len(items))

    return split


def GroupSplitter(
    group_by: str | Labels, valid_pct: float = 0.2, seed: int | None = None, stratify: Labels | None = None
) -> Splitter:
    r"""Keep what belongs together on one side, as the photos of one animal: groups are drawn, not items.

    Groups are chosen so that the validation share is met as nearly as whole groups allow, and that of each class as
    well. A class of which all items are of one group is trained on and not validated on. Files are divided in the same
    way, whatever order they are listed in.

    Args:
        group_by: The group of each item, a function of an item that gives it, or a regular expression that is looked
            for in an item's path: its first group, or all that it matches where it has none, such as `r"cat_(\d+)"`.
        valid_pct: Share of the items to validate on, between 0 and 1.
        seed: As of `RandomSplitter`.
        stratify: Labels, as of `TrainTestSplitter`, of which each side gets its share; None for none.

    The splitter raises DataError where the expression does not occur in a path, or groups are too large for the share.
    """
    check_share(valid_pct)
    grouped = path_groups(group_by) if isinstance(group_by, str) else group_by

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        items = rows(items) if is_frame(items) else items
        members = groups_of(items, grouped)
        labels = [(None,)] * len(items) if stratify is None else _labels_of(items, stratify)
        names = sorted(members, key=str)
        counts = [_counted(labels[i] or (None,) for i in members[name]) for name in names]
        chosen = chosen_groups(counts, [len(members[name]) for name in names], valid_pct, seed_of(seed))
        valid = [i for at in chosen for i in members[names[at]]]
        _check_groups(members, len(valid), len(items), valid_pct, len({each for count in counts for each in count}))
        return _sides(valid, len(items))

    return split


def groups_of(items: Sequence[Any], grouped: Labels) -> dict[Any, list[int]]:
    """Group → positions of its items."""
    values = [grouped(item) for item in items] if callable(grouped) else list(grouped)
    if len(values) != len(items):
        raise UsageError(f"GroupSplitter has {len(values)} groups for {len(items)} items; give one for each")
    missing = [items[i] for i, value in enumerate(values) if value is None or value == ""]
    if missing:
        pattern = getattr(grouped, "pattern", None)
        why = f"{pattern!r} does not occur in" if pattern else "there is no group for"
        raise DataError(
            f"group_by: {why} {counted(len(missing), 'of the files', 'of the files')}, such as "
            f"{first_few((path_of(item) or str(item) for item in missing), LISTED)}; "
            "each image needs a group, if need be one of its own"
        )
    members: dict[Any, list[int]] = {}
    for i, value in enumerate(values):
        members.setdefault(one_spelling(value), []).append(i)
    return members


class path_groups:
    """The group of an item by a regular expression in its path; None where it does not occur.

    Args:
        pattern: The expression.
        root: Folder that paths are taken from; None takes them as they are.

    Raises:
        UsageError: the pattern is none.
    """

    def __init__(self, pattern: str, root: str | Path | None = None):
        self.pattern, self.root = pattern, root
        try:
            self.found = re.compile(pattern)
        except re.error as error:
            raise UsageError(f"group_by: {pattern!r} is no regular expression ({error})") from None

    def __call__(self, item: Any) -> str | None:
        """What the expression finds."""
        path = path_of(item)
        if path is None:
            raise UsageError(f"group_by: a regular expression needs paths, and an item is a {type(item).__name__}")
        if self.root is not None:
            path = os.path.relpath(path, self.root).replace(os.sep, "/")
        found = self.found.search(path)
        return found and found.group(1 if self.found.groups else 0)


def path_of(item: Any) -> str | None:
    """The path of an item that is one, or a pair that begins with one."""
    first = item[0] if isinstance(item, tuple) and item else item
    return os.fspath(first) if isinstance(first, str | Path) else None


def _by_path(items: Sequence[Any]) -> list[int]:
    """Positions in the order of the items' paths; as they are where they have none."""
    paths = [path_of(item) for item in items]
    known = [path for path in paths if path is not None]
    return sorted(range(len(items)), key=known.__getitem__) if len(known) == len(items) else list(range(len(items)))


def _labels_of(items: Sequence[Any], stratify: Labels) -> list[tuple[Any, ...]]:
    """The labels of each item."""
    found = [stratify(item) for item in items] if callable(stratify) else list(stratify)
    if len(found) != len(items):
        raise UsageError(f"stratify has {len(found)} labels for {len(items)} items; give one for each")
    several = [each if isinstance(each, list | tuple | set | frozenset) else (each,) for each in found]
    return [tuple(one_spelling(label) for label in each) for each in several]


def _of_each_class(
    items: Sequence[Any], order: Sequence[int], labels: Sequence[tuple[Any, ...]], share: float, seed: int
) -> list[int]:
    """Positions of the items that validate, of each class its share."""
    members: dict[Any, list[int]] = {}
    for i in order:
        members.setdefault(labels[i][0], []).append(i)
    alone = {label: positions[0] for label, positions in members.items() if len(positions) == 1}
    if alone:
        label, i = next(iter(alone.items()))
        others = f" (and {counted(len(alone) - 1, 'other class', 'other classes')})" if len(alone) > 1 else ""
        raise DataError(
            f"stratified split: the class {label!r} has one image, {printable(path_of(items[i]) or items[i])}{others}, "
            "which cannot be trained on and validated on; add images, take the class out, or split without regard to "
            "classes (command line: --split random)"
        )
    n_valid, draw = apportioned({label: len(positions) for label, positions in members.items()}, share), random.Random
    # Each class draws from numbers of its own: another class that grows leaves its split as it is.
    return [i for label in members for i in draw(f"{seed} {label}").sample(members[label], n_valid[label])]


def _check_groups(members: Mapping[Any, Sequence[int]], n_valid: int, n: int, share: float, n_classes: int) -> None:
    """Refuse a split far from the share that was asked for: no whole groups come nearer."""
    largest = max(members, key=lambda name: len(members[name]))
    if len(members) == 1:
        raise DataError(
            f"group_by: all {n} images are of one group, {printable(largest)!r}; groups are to tell them apart"
        )
    if n * share / 2 - 1 <= n_valid <= 2 * n * share + n_classes and n_valid:
        return
    nearest = f"the nearest is {n_valid / n:.2g}" if n_valid else "each class is of one group only"
    remedy = (
        "another share (valid_pct, command line: --valid-pct), or for smaller groups" if n_valid else "smaller groups"
    )
    raise DataError(
        f"group_by: {counted(len(members), 'group')} cannot be divided so that a share of {share:g} validates: "
        f"{nearest}; the largest, {printable(largest)!r}, has {len(members[largest])} of the {n} images. Ask for "
        f"{remedy}"
    )


def _counted(labels: Iterable[Iterable[Any]]) -> dict[Any, int]:
    """How often each label occurs, in an order that depends on nothing else."""
    counts = Counter(label for each in labels for label in each)
    return dict(sorted(counts.items(), key=lambda each: str(each[0])))


def _sides(valid: Iterable[int], n: int) -> tuple[list[int], list[int]]:
    chosen = set(valid)
    return [i for i in range(n) if i not in chosen], sorted(chosen)
