"""Walk the folders of a data set: each real folder once, whatever links lead to it, and none passed over in silence."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pellucid.data.clutter import is_visible
from pellucid.errors import DataError
from pellucid.text import printable

_Key = tuple[str, ...]


@dataclass
class Walk:
    """What is under a folder, hidden files and clutter left out.

    Attributes:
        files: Folder → names of its files, sorted; folders in the order of their paths, outer before inner.
        repeated: Links to a folder that was walked already under another path, and that path.
    """

    files: dict[Path, list[str]] = field(default_factory=dict)
    repeated: dict[Path, Path] = field(default_factory=dict)


def walk(root: str | Path, recurse: bool = True, seen: dict[tuple[int, int], Path] | None = None) -> Walk:
    """List the files of a folder and, with `recurse`, of all folders in it.

    A folder that links lead to is listed under its own path where that is inside `root`, else under the first link's.

    Args:
        root: The folder.
        recurse: Also list its sub-folders.
        seen: Folders of earlier walks (device, inode) → path, which are not listed again; this one's are added.

    Raises:
        DataError: `root` is no folder, a folder cannot be read, or a link leads nowhere.
    """
    if not os.path.isdir(root):
        raise DataError(f"{printable(root)}: {'is a file, not a folder' if os.path.exists(root) else 'no such folder'}")
    seen = {} if seen is None else seen
    found: dict[_Key, tuple[Path, list[str]]] = {}
    repeated: dict[Path, Path] = {}
    # Links wait until all real folders are known: their images must not get the name of a link for their class.
    waiting: list[tuple[_Key, Path]] = [((), Path(root))]
    while waiting:
        links: list[tuple[_Key, Path]] = []
        for key, start in sorted(waiting):
            first = seen.get(_identity(start))
            if first is None:
                _walk_real(key, start, recurse, seen, found, links)
            elif not start.parent.resolve().is_relative_to(start.resolve()):  # a link back up says nothing new
                repeated[start] = first
        waiting = links
    return Walk({folder: names for _, (folder, names) in sorted(found.items())}, repeated)


def real_paths(files: Iterable[str | Path]) -> list[str]:
    """Where files really are, whatever links lead to them or to their folders: the same path for the same file.

    A folder's listing says which of its files are links, without a system call for each of a million files.
    """
    normal = [os.path.normpath(file) for file in files]
    folders = [os.path.dirname(path) for path in normal]
    moved, links = dict[str, str](), set[str]()
    for folder in set(folders):
        real = os.path.realpath(folder)
        if real != folder:
            moved[folder] = real
        with suppress(OSError), os.scandir(real) as entries:  # what cannot be read is reported when it is opened
            links.update(entry.path for entry in entries if entry.is_symlink())
    if moved:
        pairs = zip(normal, folders, strict=True)
        normal = [os.path.join(moved[at], os.path.basename(path)) if at in moved else path for path, at in pairs]
    return [os.path.realpath(path) if path in links else path for path in normal] if links else normal


def _walk_real(
    key: _Key,
    start: Path,
    recurse: bool,
    seen: dict[tuple[int, int], Path],
    found: dict[_Key, tuple[Path, list[str]]],
    links: list[tuple[_Key, Path]],
) -> None:
    pending = [(key, start)]
    while pending:
        key, folder = pending.pop()
        seen[_identity(folder)] = folder
        names, subfolders, linked = _listed(folder)
        found[key] = folder, names
        if recurse:
            pending += [((*key, name), folder / name) for name in subfolders]
            links += [((*key, name), folder / name) for name in linked]


def _listed(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of the files of a folder, of the folders in it, and of the links to folders."""
    names, subfolders, linked = [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_visible(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    subfolders.append(entry.name)
                elif entry.is_symlink() and entry.is_dir():
                    linked.append(entry.name)
                elif not entry.is_symlink() or entry.is_file() or os.path.splitext(entry.name)[1]:
                    names.append(entry.name)  # also a broken link, where its name says that it is a file
                else:
                    raise DataError(f"{printable(entry.path)}: a link that leads nowhere; remove it, or what it is in")
    except OSError as error:
        raise DataError(f"{printable(error.filename or folder)}: cannot be read ({error.strerror})") from None
    return sorted(names), subfolders, linked


def _identity(folder: Path) -> tuple[int, int]:
    try:
        stat = os.stat(folder)
    except OSError as error:
        raise DataError(f"{printable(folder)}: cannot be read ({error.strerror})") from None
    return stat.st_dev, stat.st_ino
