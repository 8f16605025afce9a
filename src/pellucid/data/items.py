"""Find the items of a data set and label them."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastcore.foundation import L

from pellucid.data.finding import walk
from pellucid.data.formats import IMAGE_EXTENSIONS
from pellucid.errors import DataError, UsageError
from pellucid.text import counted, first_few, printable

FOLDERS, ENDINGS, LINKS = 3, 6, 6  # that a message lists


@dataclass
class ImageListing:
    """The images under a folder, and what was left out.

    Attributes:
        folders: Folder → its image files, in the order of their paths; folders without images do not occur.
        ignored: Ending → number of other files.
        emptied: Folder with files, none of which is an image, and with no image below it → their endings, in words.
        empty: Folders with nothing in them.
        repeated: Link to a folder that is listed under another path → that path.
    """

    folders: dict[Path, list[Path]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    emptied: dict[Path, str] = field(default_factory=dict)
    empty: list[Path] = field(default_factory=list)
    repeated: dict[Path, Path] = field(default_factory=dict)

    def left_out(self) -> str:
        """What was left out, in words, the first few of many; empty where nothing was."""
        n, notes = sum(self.ignored.values()), []
        if n:
            what = "that is no image by its ending" if n == 1 else "that are no images by their endings"
            notes.append(f"{counted(n, 'file')} {what} ({_counted(self.ignored)})")
        if n and self.emptied:
            notes.append(f"{first_few(self.emptied, FOLDERS)} {'has' if len(self.emptied) == 1 else 'have'} no others")
        links = [f"{printable(link)} leads to {printable(to)}, listed once" for link, to in self.repeated.items()]
        notes += links[:LINKS] + ([f"{len(links) - LINKS} more such links"] if len(links) > LINKS else [])
        if self.empty:
            notes.append(f"{'an empty folder' if len(self.empty) == 1 else 'empty folders'}: {first_few(self.empty)}")
        return "; ".join(notes)


def list_images(path: str | Path, recurse: bool = True, folders: str | Sequence[str] | None = None) -> ImageListing:
    """Find images as `get_image_files` does, with account of what was left out."""
    listing, seen = ImageListing(), {}
    inside = [folders] if isinstance(folders, str | Path) else folders or ()
    for root in [os.path.join(path, folder) for folder in inside] or [os.fspath(path)]:
        found = walk(root, recurse, seen)
        listing.repeated |= found.repeated
        full: set[Path] = set()
        bare: dict[Path, str] = {}
        for folder, names in found.files.items():
            endings = [os.path.splitext(name)[1].lower() for name in names]
            images = [folder / name for name, ending in zip(names, endings, strict=True) if ending in IMAGE_EXTENSIONS]
            if images:
                listing.folders[folder] = images
                full |= {folder, *folder.parents}
            if len(images) < len(names):
                others = Counter(ending for ending in endings if ending not in IMAGE_EXTENSIONS)
                listing.ignored += others
                bare |= {} if images else {folder: _counted(others)}
        inner = {folder.parent for folder in found.files}
        listing.empty += [
            folder
            for folder, names in found.files.items()
            if not names and folder not in inner and folder != Path(root)
        ]
        listing.emptied |= {folder: endings for folder, endings in bare.items() if folder not in full}
    return listing


def get_image_files(path: str | Path, recurse: bool = True, folders: str | Sequence[str] | None = None) -> L:
    """List the image files under `path`, sorted by path, each real folder once, whatever links lead to it.

    Hidden files and folders, and what systems leave behind (`__MACOSX`, `Thumbs.db`), are left out; so are files whose
    ending is no image's, and a warning counts these and names empty folders.

    Args:
        path: Folder to search.
        recurse: Also search sub-folders.
        folders: Only search this sub-folder of `path`, or these; None means all.

    Raises:
        DataError: `path`, or one of `folders` in it, is no folder, a folder cannot be read, or a link leads nowhere.
    """
    listing = list_images(path, recurse, folders)
    if listing.left_out():
        remedy = "; convert what belongs to the set" if listing.ignored else ""
        warnings.warn(f"{printable(path)}: left out {listing.left_out()}{remedy}", stacklevel=2)
    return L([file for files in listing.folders.values() for file in files])


def parent_label(item: str | Path) -> str:
    """Label an item with the name of its folder."""
    return folder_above(item, 1)


def folder_above(item: Any, up: int) -> str:
    """Name of the folder `up` levels above a file, "" where there is none."""
    parts = item.parts if isinstance(item, Path) else os.fspath(item).split(os.sep)
    return parts[-1 - up] if len(parts) > up else ""


class RegexLabeller:
    """Label an item with the first group of `pat` in its path.

    Args:
        pat: Regular expression with one group, such as `r"(.+)_\\d+.jpg$"`.
        match: Match from the start of the path instead of searching.
    """

    def __init__(self, pat: str, match: bool = False):
        self.pattern = re.compile(pat)
        if not self.pattern.groups:
            raise UsageError(f"RegexLabeller pattern {pat!r} has no group: put the label in parentheses")
        self.find = self.pattern.match if match else self.pattern.search

    def __call__(self, item: str | Path) -> str:
        """Return the label; raises DataError where the pattern is not found."""
        found = self.find(str(item))
        if not found:
            raise DataError(f"{printable(item)}: the label pattern {self.pattern.pattern!r} does not occur in it")
        return found.group(1)


def _counted(endings: Counter[str]) -> str:
    return first_few((f"{ending or 'no ending'} {n:,}" for ending, n in endings.most_common()), ENDINGS)
