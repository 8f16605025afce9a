"""Images with known labels, from a folder or a label file, for a classifier whose classes are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data.catalogue import DATA_SETS, SCHEME, untar_data
from pellucid.data.idx import find_pair, read_pair
from pellucid.data.items import list_images
from pellucid.data.labels import read_labels
from pellucid.data.layouts import no_images, role
from pellucid.data.names import lookalike, one_spelling
from pellucid.errors import DataError, UsageError
from pellucid.output import say
from pellucid.text import counted, first_few, printable

LABEL_FILES = (".csv", ".tsv")


@dataclass(frozen=True)
class Labelled:
    """Images and what is true of them.

    Attributes:
        where: The folder or file that was taken.
        names: Of the images: their paths, where they are files.
        images: Paths, or uint8 (image, row, column).
        labels: Numbers of their classes, int (image,), or which labels they have, bool (image, label).
    """

    where: Path
    names: Sequence[str]
    images: Sequence[Path] | np.ndarray
    labels: np.ndarray


def labelled_images(source: str | Path, vocab: Sequence[Any], columns: Mapping[str, Any]) -> Labelled:
    """Images of one class each.

    Args:
        source: A folder with a sub-folder of images for each class, or with a sub-folder such as `test` that has them
            (else `valid`), a folder of IDX files, of which the test side is taken, a label file, or the name of a data
            set.
        vocab: Classes that the model knows.
        columns: Of a label file, the arguments of `csv_items`.

    Raises:
        DataError: there are no images, or some are of classes that the model does not know.
    """
    root = Path(source)
    if not root.exists() and str(source).removeprefix(SCHEME) in DATA_SETS:
        root = untar_data(f"{SCHEME}{str(source).removeprefix(SCHEME)}")
    pair = find_pair(root, "t10k") if root.is_dir() else None
    if pair is not None:
        return _of_pair(*pair, vocab)
    where, items = (root, read_labels(root, **columns).items) if _is_label_file(root) else _in_folders(root, vocab)
    if any(isinstance(label, list) for _, label in items):
        raise UsageError(
            f"{printable(root)}: its images may have several labels, and this run gives an image one class: name one "
            "column of classes, without --label-delim"
        )
    hint = "" if _is_label_file(root) else "each image lies in a folder named like its class"
    numbers = _numbers(root, [(label, file.name) for file, label in items], vocab, hint=hint)
    files = [file for file, _ in items]
    return Labelled(where, list(map(str, files)), files, np.array([numbers[label] for _, label in items], int))


def images_with_labels(source: str | Path, vocab: Sequence[Any], columns: Mapping[str, Any]) -> Labelled:
    """Images of any number of labels.

    Args:
        source: A label file.
        vocab: Labels that the model knows.
        columns: The arguments of `csv_items`, which say how several labels are written.

    Raises:
        UsageError: it is no label file, or has one label a row.
        DataError: it cannot be read, some labels are none that the model knows, or a label has no column.
    """
    file = Path(source)
    if not _is_label_file(file):
        raise UsageError(
            f"{printable(source)}: this run gives an image any number of labels, which folders cannot say: give a "
            "label file (.csv or .tsv)"
        )
    read = read_labels(file, **columns)
    if not isinstance(read.items[0][1], list):
        raise UsageError(
            f"{printable(file)}: this run gives an image any number of labels: say what divides them in a cell, "
            "label_delim=';' (command line: --label-delim ';'), or name the columns of labels, label_col=['a', 'b'] "
            "(--label-col a,b)"
        )
    if read.vocab is not None and (missing := {str(name) for name in vocab} - set(read.vocab)):
        raise DataError(
            f"{printable(file)}: the run knows {counted(len(missing), 'label')} that no column was named for: "
            f"{first_few(sorted(missing))}"
        )
    numbers = _numbers(file, [(label, path.name) for path, labels in read.items for label in labels], vocab, "label")
    has = np.zeros((len(read.items), len(vocab)), bool)
    for i, (_, labels) in enumerate(read.items):
        has[i, [numbers[label] for label in labels]] = True
    files = [path for path, _ in read.items]
    return Labelled(file, list(map(str, files)), files, has)


def _is_label_file(path: Path) -> bool:
    return path.suffix.lower() in LABEL_FILES and not path.is_dir()


def _of_pair(image_file: Path, label_file: Path, vocab: Sequence[Any]) -> Labelled:
    """The test side of IDX files."""
    images, found = read_pair(image_file, label_file)
    say(f"{printable(image_file.parent)}: evaluated on the {counted(len(images), 'image')} of {image_file.name}")
    labels = list(map(str, found.tolist()))
    numbers = _numbers(image_file, [(label, f"image {i}") for i, label in enumerate(labels)], vocab)
    names = [f"{image_file}[{i}]" for i in range(len(images))]
    return Labelled(image_file, names, images, np.array([numbers[label] for label in labels], int))


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


def _numbers(
    root: Path, found: Sequence[tuple[str, str]], vocab: Sequence[Any], what: str = "class", hint: str = ""
) -> dict[str, int]:
    """Number of each label that was found, each with the name of an image that has it.

    Raises:
        DataError: some are not in the vocab; with a hint for when all are not.
    """
    known = {one_spelling(str(name)): i for i, name in enumerate(vocab)}
    first = dict(reversed(found))
    unknown = {label: name for label, name in first.items() if one_spelling(label) not in known}
    if unknown:
        names = list(map(str, vocab))
        described = [f"{label!r} ({name}{_near(label, names)})" for label, name in sorted(unknown.items())]
        raise DataError(
            f"{printable(root)}: {counted(len(unknown), what, 'classes' if what == 'class' else '')} that the run does "
            f"not know: {first_few(described)}; it knows {first_few(names)}"
            + (f"; {hint}" if hint and len(unknown) == len(first) else "")
        )
    return {label: known[one_spelling(label)] for label in first}


def _near(label: str, known: list[str]) -> str:
    """The class that may be meant, after a semicolon."""
    alike = lookalike(label, known)
    close = get_close_matches(label, known, n=1)
    return alike or (f"; is {close[0]!r} meant?" if close else "")
