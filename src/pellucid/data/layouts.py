"""Which folder of a data set is what: training, validation, classes. One rule, and words for what it decided."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pellucid.data.clutter import is_visible
from pellucid.data.items import ImageListing, list_images
from pellucid.data.names import one_spelling
from pellucid.data.splits import quoted
from pellucid.errors import DataError
from pellucid.text import counted, printable

TRAIN_NAMES = ("train", "training")
VALID_NAMES = ("valid", "val", "validation")
TEST_NAMES = ("test", "testing")
_ROLES = {
    name: role
    for role, names in (("train", TRAIN_NAMES), ("valid", VALID_NAMES), ("test", TEST_NAMES))
    for name in names
}
_AT_RANDOM = "split at random with valid_pct=0.2 (command line: --valid-pct 0.2)"
_Parts = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """What a folder was taken for.

    Attributes:
        train: Training images, or all where the split is to be made at random.
        valid: Validation images, None where the split is to be made at random.
        said: What was decided and left out, to be printed; empty where all is as asked for, or `train` and `valid`.
    """

    train: list[Path]
    valid: list[Path] | None
    said: str


def role(name: str) -> str | None:
    """What a folder's name says that it is for: `train`, `valid`, `test` or None.

    >>> [role(name) for name in ("Training", "val_set", "test2017", "Train Images", "trains")]
    ['train', 'valid', 'test', 'train', None]
    """
    return _ROLES.get(re.sub(r"(set|data|images)$", "", re.sub(r"[\W\d_]", "", name.casefold())))


def layout(root: Path, train: str | None, valid: str | None, at_random: bool, *, keep_test: bool = False) -> Layout:
    """Find training and validation images by their folders, as `ImageDataLoaders.from_folder` describes.

    Args:
        root: The folder.
        train: Name of the training sub-folder, None to find it.
        valid: Name of the validation sub-folder, None to find it.
        at_random: Whether all images in class folders are wanted, to be split at random; those for testing are not.
        keep_test: Leave out a folder named like a test set, which otherwise validates where no other does; a training
            folder without a validation folder is then divided.

    Raises:
        DataError: there are no images, no class folders, or it cannot be told what is what.
    """
    listing = list_images(root)
    if not listing.folders:
        raise DataError(no_images(root, listing))
    tree = _Tree.of(root, listing)
    if keep_test:
        tree.set_aside([name for name in tree.names if role(name) == "test"])
    spelt = {one_spelling(name): name for name in tree.names}
    train, valid = (name and spelt.get(one_spelling(name), name) for name in (train, valid))
    given = [name for name in (train, valid) if name]
    if missing := {name for name in given if name not in tree.names}:
        raise DataError(
            f"{printable(tree.base)}: no folder is named {quoted(missing)}; there are {quoted(tree.names) or 'none'}"
        )
    train = train or tree.side("train", True)
    valid = valid or tree.side("valid", bool(train)) or tree.side("test", bool(train))
    if at_random or not (train or valid) or (keep_test and train in tree.deep and not valid):
        files = tree.images(
            [name for name in tree.deep if role(name) in ("train", "valid")] if train in tree.deep else []
        )
        said = (
            ""
            if at_random or keep_test
            else f"no training and validation folders: a random share of the {len(files):,} images validates"
        )
        return Layout(files, None, tree.report(len(files), said))
    sides = _both_sides(tree, train, valid)
    usual = len(given) == 2 or (train, valid) == ("train", "valid")
    said = f"training images from {train!r} ({len(sides[0]):,}), validation images from {valid!r} ({len(sides[1]):,})"
    return Layout(*sides, tree.report(sum(map(len, sides)), "" if usual else said))


def no_images(root: str | Path, listing: ImageListing | None) -> str:
    """The message for a folder (or another source) without images."""
    left_out = listing.left_out() if listing else ""
    return (
        f"{printable(root)}: no images found in it{f' ({left_out})' if left_out else ''}; "
        "a folder of images has one sub-folder a class, with .jpg, .png or other image files"
    )


def _both_sides(tree: _Tree, train: str | None, valid: str | None) -> tuple[list[Path], list[Path]]:
    for name, other, usual, what in (
        (train, valid, TRAIN_NAMES, "training"),
        (valid, train, (*VALID_NAMES, *TEST_NAMES), "validation"),
    ):
        if name is None:
            raise DataError(
                f"{printable(tree.base)}: has {other!r} but no {what} folder (one of {', '.join(usual)}); "
                f"name it, or {_AT_RANDOM}"
            )
    elsewhere = "or take their labels from elsewhere (from_csv, ImageDataLoaders.from_name_func)"
    for name, what, instead in ((train, "training", elsewhere), (valid, "validation", f"or move it, and {_AT_RANDOM}")):
        if name in tree.flat:
            n = counted(len(tree.groups[(str(name),)]), "image")
            raise DataError(
                f"{printable(tree.base / str(name))}: holds {n} but no class "
                f"folders, so that nothing tells their classes; sort them into class folders, {instead}"
            )
        if name not in tree.deep:
            raise DataError(
                f"no {what} images: {name!r} of {printable(tree.base)} has none; there are some in {quoted(tree.deep)}"
            )
    assert train and valid
    tree.check([train, valid])
    train_images, valid_images = (
        [file for parts, files in tree.groups.items() if _class_of(parts, [side]) for file in files]
        for side in (train, valid)
    )
    return train_images, valid_images


@dataclass
class _Tree:
    """The images under a folder, by what may be sides and classes.

    Attributes:
        base: The folder that sides or classes are in.
        names: The folders in it.
        groups: Path of a folder from `base` → its images.
        listing: What was found under the whole.
        notes: What was decided, in words.
        aside: Folders that are no part of the set.
    """

    base: Path
    names: list[str]
    groups: dict[_Parts, list[Path]]
    listing: ImageListing
    notes: list[str] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path, listing: ImageListing) -> _Tree:
        """Sort a listing out; a folder that holds nothing but one folder of folders stands for that one."""
        base, names = root, _folders(root)
        while len(names) == 1 and base not in listing.folders and not role(names[0]):
            inner = base / names[0]
            if inner in listing.folders or not _folders(inner):
                break  # the only class
            base, names = inner, _folders(inner)
        groups = {folder.relative_to(base).parts: files for folder, files in listing.folders.items()}
        return cls(base, names, groups, listing, [] if base == root else ["its one folder stands for the whole"])

    @property
    def deep(self) -> list[str]:
        """Folders that hold class folders."""
        return sorted({parts[0] for parts in self.groups if len(parts) > 1})

    @property
    def flat(self) -> list[str]:
        """Folders that hold images and no class folders."""
        return sorted({parts[0] for parts in self.groups if len(parts) == 1} - set(self.deep))

    def side(self, wanted: str, flat_too: bool) -> str | None:
        """The folder whose name says that it is for this; `flat_too` counts those that hold no class folders."""
        found = [name for name in self.names if role(name) == wanted and (flat_too or name in self.deep)]
        if len(found) > 1:
            raise DataError(
                f"{printable(self.base)}: {quoted(found)} are all named like the {wanted} folder; say which, as in "
                f"from_folder(path, train='…', valid='…')"
            )
        return found[0] if found else None

    def set_aside(self, names: Sequence[str]) -> None:
        """Take these folders for no part of the set, and say so; raises DataError where nothing else is left."""
        for name in names:
            found = [parts for parts in self.groups if parts[:1] == (name,)]
            n = sum(len(self.groups.pop(parts)) for parts in found)
            self.names.remove(name)
            self.aside.append(self.base / name)
            if n:
                self.notes.append(f"{counted(n, 'image')} in {name!r} {'is' if n == 1 else 'are'} left for testing")
        if not self.groups:
            raise DataError(f"{printable(self.base)}: has no images to train on besides those in {quoted(names)}")

    def images(self, sides: Sequence[str]) -> list[Path]:
        """The images in the class folders of these sides, or of the whole where none are named."""
        odd = [name for name in self.flat if role(name) in ("valid", "test")]
        if not sides and odd:
            n = counted(len(self.groups[(odd[0],)]), "image")
            raise DataError(
                f"{printable(self.base / odd[0])}: holds {n} but no class folders, "
                "and its name is no class; move it away, or sort them into class folders"
            )
        side = next((name for name in self.deep if role(name)), None)
        if not sides and side:
            raise DataError(
                f"{printable(self.base / side)}: holds class folders and is named like a side of a split, but there is "
                "no training folder with class folders beside it; name both: from_folder(path, train='…', valid='…')"
            )
        self.check(sides)
        return [file for parts, files in self.groups.items() if _class_of(parts, sides) for file in files]

    def check(self, sides: Sequence[str]) -> None:
        """Refuse what cannot be told: no class, one name for two, images beside class folders, no image in a class."""
        classes = {path for parts in self.groups if (path := _class_of(parts, sides))}
        if not classes:
            n = counted(sum(map(len, self.groups.values())), "image")
            raise DataError(
                f"{printable(self.base)}: holds {n} but no class folders; a "
                "classifier needs one sub-folder a class, or labels from elsewhere: a CSV file, or the names of the "
                "files (ImageDataLoaders.from_name_func)"
            )
        _refuse_ambiguous(self.base, sorted(classes))
        for folder, endings in self.listing.emptied.items():
            if not {folder, *folder.parents}.isdisjoint(self.aside):
                continue
            path = _class_of(folder.relative_to(self.base).parts, sides) if folder.is_relative_to(self.base) else ()
            if path and not any(path[:n] in classes for n in range(1, len(path))):
                raise DataError(
                    f"{printable(folder)}: none of its files is an image by its ending ({endings}), so that this class "
                    "would be missing; convert them, or move the folder away"
                )
        self.notes += _spelt_in_two_ways(classes)
        nested = next((path for path in sorted(classes) if len(path) > 1), None)
        if nested:
            self.notes.append(f"classes are the innermost folders, as {nested[-1]!r} of {'/'.join(nested)!r}")

    def report(self, n_used: int, said: str) -> str:
        """What was decided, and what was left out."""
        left = sum(map(len, self.groups.values())) - n_used
        out = [counted(left, "other image")] if left else []
        out += [self.listing.left_out()] if self.listing.left_out() else []
        parts = [*([said] if said else []), *self.notes, *([f"left out: {'; '.join(out)}"] if out else [])]
        return f"{printable(self.base)}: {'; '.join(parts)}" if parts else ""


def _class_of(parts: _Parts, sides: Sequence[str]) -> _Parts:
    """A folder's path from its side, or from the whole where there are no sides; empty if it is in no class folder."""
    if not sides:
        return parts
    return parts[1:] if parts[:1] and parts[0] in sides else ()


def _spelt_in_two_ways(classes: Iterable[_Parts]) -> list[str]:
    names = sorted({path[-1] for path in classes})
    first: dict[str, str] = {}
    return [
        f"{other!a} and {name!a} are one name in two spellings, and one class"
        for name in names
        if (other := first.setdefault(one_spelling(name), name)) != name
    ]


def _refuse_ambiguous(base: Path, classes: list[_Parts]) -> None:
    """Refuse classes that share their innermost folder's name, or lie in one another."""
    known, paths = set(classes), dict[str, _Parts]()
    for parts in classes:
        other = paths.setdefault(one_spelling(parts[-1]), parts)
        if list(map(one_spelling, other)) != list(map(one_spelling, parts)):
            raise DataError(
                f"{printable(base)}: {printable('/'.join(other))} and {printable('/'.join(parts))} would be one class, "
                "as a class is named by its innermost folder; give them two names, or, if these are the sides of a "
                f"split, name them: from_folder(path, train={other[0]!r}, valid={parts[0]!r})"
            )
        outer = next((parts[:n] for n in range(1, len(parts)) if parts[:n] in known), None)
        if outer:
            raise DataError(
                f"{printable(base)}: {printable('/'.join(outer))} holds images, and the folder "
                f"{printable('/'.join(parts))}, which would be a class of its own; move one of the two"
            )


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if is_visible(entry.name) and entry.is_dir())
