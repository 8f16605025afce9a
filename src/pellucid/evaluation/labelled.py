"""Images with known labels, from a folder or a label file, for a classifier whose classes are given."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pellucid.data.catalogue import DATA_SETS, SCHEME, untar_data
from pellucid.data.items import list_images
from pellucid.data.labels import csv_items
from pellucid.data.layouts import no_images, role
from pellucid.data.names import lookalike, one_spelling
from pellucid.errors import DataError
from pellucid.output import say
from pellucid.text import counted, first_few, printable

LABEL_FILES = (".csv", ".tsv")


def labelled_images(source: str | Path, vocab: Sequence[Any], **columns: Any) -> tuple[Path, list[tuple[Path, int]]]:
    """The folder or file that was taken, and each image with the number of its class.

    Args:
        source: A folder with a sub-folder of images for each class, or with a sub-folder such as `test` that has them
            (else `valid`), a label file, or the name of a data set.
        vocab: Classes that the model knows.
        columns: Of a label file, the arguments of `csv_items`.

    Raises:
        DataError: there are no images, or some are of classes that the model does not know.
    """
    root = Path(source)
    if not root.exists() and str(source).removeprefix(SCHEME) in DATA_SETS:
        root = untar_data(f"{SCHEME}{str(source).removeprefix(SCHEME)}")
    from_file = root.suffix.lower() in LABEL_FILES and not root.is_dir()
    where, items = (root, csv_items(root, **columns)) if from_file else _in_folders(root, vocab)
    known = {one_spelling(str(name)): i for i, name in enumerate(vocab)}
    unknown = {label: file for file, label in reversed(items) if one_spelling(label) not in known}
    if unknown:
        is_all = len(unknown) == len({label for _, label in items})
        raise DataError(_unknown(root, unknown, list(map(str, vocab)), is_all))
    return where, [(file, known[one_spelling(label)]) for file, label in items]


def _in_folders(root: Path, vocab: Sequence[Any]) -> tuple[Path, list[tuple[Path, str]]]:
    listing = list_images(root)
    if not listing.folders:
        raise DataError(no_images(root, listing))
    names = sorted({folder.relative_to(root).parts[0] for folder in listing.folders if folder != root})
    sides = {role(name): name for name in reversed(names) if name not in map(str, vocab)}
    side = sides.get("test") or sides.get("valid")
    base = root / side if side else root
    folders = {folder: files for folder, files in listing.folders.items() if folder.is_relative_to(base)}
    if side:
        say(f"{printable(root)}: evaluated on the {counted(sum(map(len, folders.values())), 'image')} in {side}")
    return base, [(file, folder.resolve().name) for folder, files in folders.items() for file in files]


def _unknown(root: Path, unknown: dict[str, Path], known: list[str], is_all: bool) -> str:
    named = []
    for label, file in sorted(unknown.items()):
        near = lookalike(label, known).removeprefix("; ") or _nearest(label, known)
        named.append(f"{label!r} ({file.name}{f'; {near}' if near else ''})")
    hint = "; each image lies in a folder named like its class" if is_all else ""
    return (
        f"{printable(root)}: {counted(len(unknown), 'class', 'classes')} that the run does not know: "
        f"{first_few(named)}; it knows {first_few(known)}{hint}"
    )


def _nearest(label: str, known: list[str]) -> str:
    near = get_close_matches(label, known, n=1)
    return f"is {near[0]!r} meant?" if near else ""
