"""How training and validation are told apart, as users ask for it: one description for folders, tables and lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.data.balanced import GroupSplitter, TrainTestSplitter, groups_of, path_groups, path_of
from pellucid.data.frames import flag_of
from pellucid.data.layouts import role
from pellucid.data.splits import RandomSplitter, Splitter
from pellucid.errors import DataError, UsageError
from pellucid.text import counted, first_few, printable

WAYS = ("auto", "stratified", "random", "folders")
COLUMN = "column:"
GroupBy = str | Callable[[Any], Any]
FEW = 3
SHARE = 0.2  # that validates where nothing was said


@dataclass(frozen=True)
class Split:
    """How training and validation are told apart.

    Attributes:
        how: `folders` by sub-folders, `stratified`, `random`, `column:NAME` by a column of a label file, or `auto`:
            sub-folders where there are any, else a share.
        valid_pct: Share of the images to validate on; None for 0.2 where a share is needed.
        seed: Of a share.
        group_by: A regular expression in the path, a function of the item, or `column:NAME`: images of one group stay
            on one side; None for no groups.
        stratified: `auto` takes the share of each class rather than of all images.

    Raises:
        UsageError: there is no such way, or two of these exclude each other.
    """

    how: str = "auto"
    valid_pct: float | None = None
    seed: int | None = None
    group_by: GroupBy | None = None
    stratified: bool = False

    def __post_init__(self) -> None:
        if self.how not in WAYS and not self.how.startswith(COLUMN):
            raise UsageError(f"split {self.how!r} does not exist: use one of {', '.join(WAYS)} or {COLUMN}NAME")
        if COLUMN in (self.how, self.group_by):
            raise UsageError(f"{COLUMN} needs the name of a column behind it, such as {COLUMN}animal")
        if self.group_by == "":
            raise UsageError("group_by is empty: give a regular expression, or column:NAME")
        decided = self.how == "folders" or self.column is not None
        if decided and self.valid_pct is not None:
            raise UsageError(f"split {self.how!r} says which images validate: leave valid_pct (--valid-pct) out")
        if self.group_by is not None and (decided or self.how == "random"):
            raise UsageError(f"group_by makes a split of its own: leave split {self.how!r} (--split) out")

    @property
    def own(self) -> bool:
        """Whether the images are divided anew, whatever folders they are in."""
        return self.how in ("stratified", "random") or self.valid_pct is not None or self.group_by is not None

    @property
    def column(self) -> str | None:
        """The column that says which images validate."""
        return self.how.removeprefix(COLUMN) if self.how.startswith(COLUMN) else None

    @property
    def group_column(self) -> str | None:
        """The column that names the group of each image."""
        by = self.group_by
        return by.removeprefix(COLUMN) if isinstance(by, str) and by.startswith(COLUMN) else None

    @property
    def columns(self) -> list[str]:
        """The columns of a label file that are needed."""
        return [name for name in (self.column, self.group_column) if name]

    @property
    def share(self) -> float:
        """Share of the images to validate on."""
        return SHARE if self.valid_pct is None else self.valid_pct

    @property
    def name(self) -> str:
        """What a split into shares is called: `group`, `stratified` or `random`."""
        balanced = self.how == "stratified" or (self.how == "auto" and self.stratified)
        return "group" if self.group_by is not None else "stratified" if balanced else "random"

    def grouped(self, root: str | Path, column: Mapping[str, str] | None = None) -> Callable[[Any], Any] | None:
        """What gives an item's group; None without groups.

        Args:
            root: Folder that paths are taken from.
            column: File → the cell of `group_column`.
        """
        if self.group_column is not None:
            if column is None:
                raise UsageError(f"group_by {self.group_by!r} is for label files: here there is no column")
            return lambda item: column[str(path_of(item))]
        return path_groups(self.group_by, root) if isinstance(self.group_by, str) else self.group_by

    def splitter(self, label: Callable[[Any], Any], grouped: Callable[[Any], Any] | None) -> Splitter:
        """What divides items into shares."""
        if grouped is not None:
            return GroupSplitter(grouped, self.share, self.seed, label)
        if self.name == "stratified":
            return TrainTestSplitter(self.share, self.seed, label)
        return RandomSplitter(self.share, self.seed)


def column_sides(values: Sequence[str], column: str) -> list[str]:
    """What each cell of a column says: `train`, `valid` or `test`, in these words or as true and false.

    Raises:
        DataError: a cell says something else.
    """
    found = []
    for value in values:
        flag = flag_of(value)
        side = role(value) if flag is None else "valid" if flag else "train"
        if side is None:
            raise DataError(
                f"column {column!r} holds {printable(repr(value))}, which says no side: it is train, valid or test, or "
                "true for the images to validate on and false for the others"
            )
        found.append(side)
    return found


def describe_groups(
    items: Sequence[Any], valid: Sequence[int], label: Callable[[Any], Any], grouped: Callable[[Any], Any]
) -> str:
    """A split by group in words, with what may surprise: groups of several classes, classes of one group."""
    members, chosen = groups_of(items, grouped), set(valid)
    n_valid = sum(not chosen.isdisjoint(positions) for positions in members.values())
    said = (
        f"split by group: {n_valid} of {counted(len(members), 'group')} validate, {len(chosen)} of {len(items)} images"
    )
    of = [label(item) for item in items]
    each = [set(map(str, labels)) if isinstance(labels, list) else {str(labels)} for labels in of]
    classes = {name: sorted(set().union(*(each[i] for i in positions))) for name, positions in members.items()}
    several = [name for name, labels in classes.items() if len(labels) > 1 and not isinstance(of[0], list)]
    if several:
        shown = f"{printable(several[0])!r} ({first_few(classes[several[0]], FEW)})"
        said += f"; {counted(len(several), 'group has', 'groups have')} images of several classes, such as {shown}"
    missing = sorted(set().union(*each) - set().union(*(each[i] for i in chosen)))
    if missing:
        said += f"; not validated, as all of its images are of one group: {first_few(missing, FEW)}"
    return said


def by_path(items: Sequence[Any], cells: Sequence[str]) -> dict[str, str]:
    """File → cell of a column."""
    return {os.fspath(item[0]): cell for item, cell in zip(items, cells, strict=True)}
