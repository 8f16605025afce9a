"""From the word or path a user gives to batches: one function for each kind of source, registered below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pellucid.data.catalogue import DATA_SETS, SCHEME, untar_data
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.idx import find_idx
from pellucid.data.images import Resize
from pellucid.data.labels import csv_items
from pellucid.data.loader import DataLoaders
from pellucid.data.sources import OnError
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.runs.sizes import SAMPLE, fitting_side, some_images

LABEL_FILES = (".csv", ".tsv")
FLAGS = {
    "size": "--size",
    "valid_pct": "--valid-pct",
    "columns": "--path-col, --label-col, --suffix and --image-folder",
}


@dataclass(frozen=True)
class Asked:
    """What `train` was asked for besides the source.

    Attributes:
        size: Side in pixels; 0 for the files' own, None where nothing was said.
        valid_pct: Share of the images to validate on, None where nothing was said.
        seed: Of the split.
        columns: Of a label file, the arguments of `csv_items`.
        common: Arguments of every `ImageDataLoaders.from_…`: transforms of batches, device, workers, damaged images.
    """

    size: int | None
    valid_pct: float | None
    seed: int | None
    columns: Mapping[str, Any]
    common: dict[str, Any]

    @property
    def share(self) -> float:
        """Share of the images to validate on, at random."""
        return 0.2 if self.valid_pct is None else self.valid_pct

    def given(self) -> list[str]:
        """Names of the options, of those that only some kinds take, that were given."""
        return [
            name for name in FLAGS if (any(self.columns.values()) if name == "columns" else bool(getattr(self, name)))
        ]


MakesLoaders = Callable[[str, Asked], DataLoaders]


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes:
        what: Its name in messages, in the plural.
        recognises: Whether what a user gave is one.
        takes: The options of `FLAGS` that it takes; others are refused.
        loaders: Makes the batches.
    """

    what: str
    recognises: Callable[[str], bool]
    takes: tuple[str, ...]
    loaders: MakesLoaders


KINDS: list[Kind] = []


def source_kind(
    what: str, recognises: Callable[[str], bool], takes: tuple[str, ...] = ()
) -> Callable[[MakesLoaders], MakesLoaders]:
    """Decorator: `train` and `pellucid train` take this kind of source, too; arguments are those of `Kind`.

    The latest kind is asked first, so a special one stands below the general one that would recognise it, too.
    """

    def register(loaders: MakesLoaders) -> MakesLoaders:
        KINDS.insert(0, Kind(what, recognises, takes, loaders))
        return loaders

    return register


def open_source(
    source: str,
    size: int | None,
    valid_pct: float | None,
    seed: int | None,
    device: torch.device,
    workers: int | None,
    on_error: OnError,
    columns: Mapping[str, Any] | None = None,
) -> DataLoaders:
    """The batches of `train`'s source, with the options of that name; `columns` are those of `csv_items`.

    Raises:
        UsageError: it is of no kind that is known, or its kind does not take an option that was given.
    """
    if not str(source):  # which would be the current folder
        raise UsageError("the source is empty: name a data set, a folder or a label file")
    common = {"batch_tfms": Normalize(), "device": device, "workers": workers, "on_error": on_error}
    asked = Asked(size, valid_pct, seed, columns or {}, common)
    kind = next((kind for kind in KINDS if kind.recognises(source)), None)
    if kind is None and not Path(source).exists():
        raise UsageError(f"{source}: no such file or folder, and no data set of that name ({', '.join(DATA_SETS)})")
    if kind is None:
        raise UsageError(f"{source}: is none of what can be trained on: {', '.join(kind.what for kind in KINDS)}")
    for name in asked.given():
        if name not in kind.takes:
            takers = ", ".join(kind.what for kind in KINDS if name in kind.takes)
            are, them = ("are", "them") if " and " in FLAGS[name] else ("is", "it")
            raise UsageError(f"{source}: {FLAGS[name]} {are} for {takers}; leave {them} out for {kind.what}")
    return kind.loaders(source, asked)


def _resize(asked: Asked, some: Any) -> Resize | None:
    """To the side that was asked for, or that fits some of the files."""
    return None if asked.size == 0 else Resize(fitting_side(asked.size, some))


@source_kind("folders of images", lambda source: Path(source).is_dir(), ("size", "valid_pct"))
def _folder(source: str, asked: Asked) -> DataLoaders:
    resize = _resize(asked, some_images(Path(source)))
    return ImageDataLoaders.from_folder(
        source, valid_pct=asked.valid_pct, seed=asked.seed, item_tfms=resize, **asked.common
    )


@source_kind("folders of IDX files", lambda source: Path(source).is_dir() and find_idx(source) is not None)
def _idx(source: str, asked: Asked) -> DataLoaders:
    return ImageDataLoaders.from_idx(source, batch_tfms=asked.common["batch_tfms"], device=asked.common["device"])


@source_kind(
    "label files (.csv, .tsv)",
    lambda source: Path(source).suffix.lower() in LABEL_FILES and Path(source).is_file(),
    ("size", "valid_pct", "columns"),
)
def _label_file(source: str, asked: Asked) -> DataLoaders:
    some = (file for file, _ in csv_items(source, **asked.columns)[:SAMPLE])
    options = {**asked.columns, **asked.common, "item_tfms": _resize(asked, some)}
    return ImageDataLoaders.from_csv(source, asked.share, asked.seed, **options)


@source_kind("data sets of pellucid", lambda source: source.removeprefix(SCHEME) in DATA_SETS, ("size", "valid_pct"))
def _data_set(source: str, asked: Asked) -> DataLoaders:
    """By its name or address; a user's own file or folder of its name is not passed over."""
    name = source.removeprefix(SCHEME)
    if source == name and Path(source).exists():
        raise UsageError(
            f"{source}: a data set of pellucid has this name, and a file or folder here; write ./{source} for what is "
            f"here, or {SCHEME}{name} for the data set"
        )
    return ImageDataLoaders.from_folder(
        untar_data(f"{SCHEME}{name}"),
        valid_pct=asked.valid_pct,
        seed=asked.seed,
        img_cls=DATA_SETS[name].img_cls,
        item_tfms=Resize(asked.size) if asked.size else None,
        **asked.common,
    )
