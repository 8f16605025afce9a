"""Find the items of a data set, label them and split them."""

from __future__ import annotations

import csv
import os
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastcore.foundation import L

from pellucid.errors import DataError, UsageError

Splitter = Callable[[Sequence[Any]], tuple[list[int], list[int]]]

IMAGE_EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
    | {".avif", ".ico", ".jp2", ".tga"}
)


def get_image_files(path: str | Path, recurse: bool = True, folders: Sequence[str] = ()) -> L:
    """List the image files under `path`, sorted by path; hidden files and folders are left out.

    Args:
        path: Folder to search.
        recurse: Also search sub-folders.
        folders: Only search these sub-folders of `path`; empty means all.

    Raises:
        DataError: `path`, or one of `folders` in it, is no folder.
    """
    found: list[Path] = []
    for root in [os.path.join(path, folder) for folder in folders] or [os.fspath(path)]:
        if not os.path.isdir(root):
            raise DataError(f"{root}: is a file, not a folder" if os.path.exists(root) else f"{root}: no such folder")
        for folder, subfolders, names in os.walk(root, followlinks=True):
            visible = sorted(name for name in subfolders if not name.startswith(".")) if recurse else []
            subfolders[:] = [name for name in visible if not _leads_up(folder, name)]
            here = Path(folder)
            found += [
                here / name
                for name in sorted(names)
                if os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS and not name.startswith(".")
            ]
    return L(found)


def csv_items(path: str | Path) -> list[tuple[Path, str]]:
    """Read a CSV of path,label: (file, label) pairs, relative paths taken from the CSV's folder; a header is skipped.

    Raises:
        DataError: the file is missing, empty, or a row has no label.
    """
    path = Path(path)
    try:
        reader = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
        rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None
    first = path.parent / rows[0][1][0] if rows else path
    if rows and first.suffix.lower() not in IMAGE_EXTENSIONS and not first.is_file():
        rows = rows[1:]
    for line, row in rows:
        if len(row) < 2 or not row[1].strip():
            raise DataError(f"{path}: line {line} has no label; each row is path,label")
    if not rows:
        raise DataError(f"{path}: no rows of path,label")
    return [(path.parent / row[0], row[1].strip()) for _, row in rows]


def parent_label(item: str | Path) -> str:
    """Label an item with the name of its folder."""
    return _folder(item, 1)


class RegexLabeller:
    """Label an item with the first group of `pattern` in its path.

    Args:
        pattern: Regular expression with one group, such as `r"(.+)_\\d+.jpg$"`.
        match: Match from the start of the path instead of searching.
    """

    def __init__(self, pattern: str, match: bool = False):
        self.pattern = re.compile(pattern)
        if not self.pattern.groups:
            raise UsageError(f"RegexLabeller pattern {pattern!r} has no group: put the label in parentheses")
        self.find = self.pattern.match if match else self.pattern.search

    def __call__(self, item: str | Path) -> str:
        """Return the label; raises DataError where the pattern is not found."""
        found = self.find(os.fspath(item))
        if not found:
            raise DataError(f"{item}: the label pattern {self.pattern.pattern!r} does not occur in it")
        return found.group(1)


def GrandparentSplitter(
    train_name: str | Sequence[str] = "train", valid_name: str | Sequence[str] = "valid"
) -> Splitter:
    """Split by the name of the folder above the label's: `train/cat/1.png` trains, `valid/cat/2.png` validates.

    The splitter raises DataError, naming the folders there are, when one of the two sides stays empty.
    """
    wanted = [{name} if isinstance(name, str) else set(name) for name in (train_name, valid_name)]

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        folders = [_folder(item, 2) for item in items]
        train, valid = ([i for i, folder in enumerate(folders) if folder in names] for names in wanted)
        for part, names, role in ((train, wanted[0], "training"), (valid, wanted[1], "validation")):
            if not part and items:
                raise DataError(
                    f"no {role} images: no folder is named {_quoted(names)}; there are {_quoted(set(folders))}. "
                    "Name yours: GrandparentSplitter('my-train-folder', 'my-valid-folder')"
                )
        return train, valid

    return split


def RandomSplitter(valid_pct: float = 0.2, seed: int | None = None) -> Splitter:
    """Put a random share `valid_pct` of the items (at least one) aside for validation; `seed` makes it repeatable."""
    if not 0 < valid_pct < 1:
        raise UsageError(f"valid_pct must lie between 0 and 1, got {valid_pct}")

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        order = list(range(len(items)))
        random.Random(seed).shuffle(order)
        cut = max(1, int(valid_pct * len(items)))
        return order[cut:], order[:cut]

    return split


def IndexSplitter(valid_idx: Sequence[int]) -> Splitter:
    """Validate on the items at these positions, train on the others."""

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        valid = set(map(int, valid_idx))
        outside = sorted(i for i in valid if not 0 <= i < len(items))
        if outside:
            raise DataError(f"IndexSplitter position {outside[0]} lies outside the {len(items)} items")
        return [i for i in range(len(items)) if i not in valid], sorted(valid)

    return split


def FuncSplitter(is_valid: Callable[[Any], bool]) -> Splitter:
    """Validate on the items for which `is_valid` is true, train on the others."""

    def split(items: Sequence[Any]) -> tuple[list[int], list[int]]:
        flags = [bool(is_valid(item)) for item in items]
        return [i for i, flag in enumerate(flags) if not flag], [i for i, flag in enumerate(flags) if flag]

    return split


def _leads_up(folder: str, name: str) -> bool:
    """Whether a sub-folder is a link to its own folder or one above, where following it would go round."""
    path = os.path.join(folder, name)
    return os.path.islink(path) and Path(folder).resolve().is_relative_to(Path(path).resolve())


def _folder(item: Any, up: int) -> str:
    parts = item.parts if isinstance(item, Path) else os.fspath(item).split(os.sep)
    return parts[-1 - up] if len(parts) > up else ""


def _quoted(names: set[str]) -> str:
    shown = sorted(names)[:8]
    return ", ".join(map(repr, shown)) + (" …" if len(names) > len(shown) else "")
