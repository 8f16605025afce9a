"""From the word or path a user gives to batches: one function for each kind of source, registered below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pellucid.data.catalogue import DATA_SETS, SCHEME, untar_data
from pellucid.data.declared import folder_loaders, idx_loaders, label_file_loaders
from pellucid.data.idx import find_idx
from pellucid.data.images import ResizeName
from pellucid.data.labels import csv_items, several
from pellucid.data.layouts import layout
from pellucid.data.loader import DataLoaders
from pellucid.data.splitting import Split
from pellucid.errors import DataError, UsageError
from pellucid.output import say
from pellucid.runs.fitting import fitted, image_steps
from pellucid.runs.settings import Settings
from pellucid.runs.sizes import SAMPLE, some_images, typical_side
from pellucid.text import counted

LABEL_FILES = (".csv", ".tsv")
FLAGS = {
    "size": "--size",
    "resize": "--resize",
    "valid_pct": "--valid-pct",
    "split": "--split",
    "group_by": "--group-by",
    "columns": "--path-col, --label-col, --label-delim, --suffix and --image-folder",
}


@dataclass(frozen=True)
class Asked:
    """What `train` was asked for besides the source.

    Attributes:
        size: Side in pixels; 0 for the files' own, None where nothing was said.
        resize: How images are brought to it: a method of `Resize`; `pad` fills with black.
        divided: How training and validation are told apart.
        columns: Of a label file, the arguments of `csv_items`.
        common: Arguments of every `ImageDataLoaders.from_…`: transforms, device, workers, damaged images.
    """

    size: int | None
    resize: ResizeName
    divided: Split
    columns: Mapping[str, Any]
    common: dict[str, Any]

    @property
    def valid_pct(self) -> float | None:
        """Share of the images to validate on, None where nothing was said."""
        return self.divided.valid_pct

    @property
    def share(self) -> float:
        """Share of the images to validate on."""
        return self.divided.share

    @property
    def seed(self) -> int | None:
        """Of the split."""
        return self.divided.seed

    def given(self) -> list[str]:
        """Names of the options, of those that only some kinds take, that were given."""
        said = {
            "size": self.size,
            "resize": self.resize != "crop",
            "valid_pct": self.divided.valid_pct,
            "split": self.divided.how != "auto",
            "group_by": self.divided.group_by,
            "columns": any(self.columns.values()),
        }
        return [name for name in FLAGS if said[name]]


MakesLoaders = Callable[[str, Asked], DataLoaders]
SomeFiles = Callable[[str, Asked], Iterable[Path]]


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes:
        what: Its name in messages, in the plural.
        recognises: Whether what a user gave is one.
        takes: The options of `FLAGS` that it takes; others are refused.
        loaders: Makes the batches.
        files: Some of its image files, from which architecture and size are chosen; None where images have a size of
            their own.
    """

    what: str
    recognises: Callable[[str], bool]
    takes: tuple[str, ...]
    loaders: MakesLoaders
    files: SomeFiles | None = None


KINDS: list[Kind] = []


def source_kind(
    what: str, recognises: Callable[[str], bool], takes: tuple[str, ...] = (), files: SomeFiles | None = None
) -> Callable[[MakesLoaders], MakesLoaders]:
    """Decorator: `train` and `pellucid train` take this kind of source, too; arguments are those of `Kind`.

    The latest kind is asked first, so a special one stands below the general one that would recognise it, too.
    """

    def register(loaders: MakesLoaders) -> MakesLoaders:
        KINDS.insert(0, Kind(what, recognises, takes, loaders, files))
        return loaders

    return register


def open_source(settings: Settings, device: torch.device) -> tuple[DataLoaders, Settings]:
    """The batches of a training's source, and the settings with what was chosen to fit it.

    Raises:
        UsageError: it is of no kind that is known, or its kind does not take an option that was given.
    """
    kind = _kind(settings.source)
    columns = {
        "fn_col": settings.path_col,
        "label_col": several(settings.label_col),
        "label_delim": settings.label_delim,
        "suff": settings.suffix,
        "folder": settings.image_folder or "",
    }
    divided = Split(settings.split, settings.valid_pct, settings.seed, settings.group_by, stratified=True)
    asked = Asked(settings.size, settings.resize, divided, columns, {})
    for name in asked.given():
        if name not in kind.takes:
            takers = ", ".join(kind.what for kind in KINDS if name in kind.takes)
            are, them = ("are", "them") if " and " in FLAGS[name] else ("is", "it")
            raise UsageError(f"{settings.source}: {FLAGS[name]} {are} for {takers}; leave {them} out for {kind.what}")
    photos = None if kind.files is None else typical_side(kind.files(settings.source, asked))
    settings = fitted(settings, photos, of_files=kind.files is not None)
    common = {"device": device, "workers": settings.workers, "on_error": settings.on_error, **image_steps(settings)}
    dls = kind.loaders(settings.source, replace(asked, size=settings.size, common=common))
    _refuse_one_class(dls)
    if dls.split and dls.split != "group":  # groups were described when they were chosen
        name = f"{dls.split} split" if dls.split in ("stratified", "random") else f"split by {dls.split}"
        say(f"{name}: {dls.valid.n:,} of {dls.train.n + dls.valid.n:,} images validate")
    return dls, settings


def _kind(source: str) -> Kind:
    if not str(source):  # which would be the current folder
        raise UsageError("the source is empty: name a data set, a folder or a label file")
    kind = next((kind for kind in KINDS if kind.recognises(source)), None)
    if kind is None and not Path(source).exists():
        raise UsageError(f"{source}: no such file or folder, and no data set of that name ({', '.join(DATA_SETS)})")
    if kind is None:
        raise UsageError(f"{source}: is none of what can be trained on: {', '.join(kind.what for kind in KINDS)}")
    return kind


def _refuse_one_class(dls: DataLoaders) -> None:
    """Refuse a validation of one class: what always gives that class would be right each time."""
    labels = getattr(dls.valid, "labels", None)
    if labels is not None and labels.dim() == 1 and len(labels.unique()) == 1:
        raise DataError(
            f"all {counted(len(labels), 'validation image')} are of one class, {dls.label(int(labels[0]))!r}, which no "
            "accuracy can be measured on; validate on images of each class: --split stratified takes a share of each"
        )


@source_kind(
    "folders of images",
    lambda source: Path(source).is_dir(),
    ("size", "resize", "valid_pct", "split", "group_by"),
    lambda source, asked: some_images(Path(source)),
)
def _folder(source: str, asked: Asked) -> DataLoaders:
    found = layout(Path(source), None, None, asked.divided.own, keep_test=True)
    return folder_loaders(source, found, asked.divided, **asked.common)


@source_kind("folders of IDX files", lambda source: Path(source).is_dir() and find_idx(source) is not None)
def _idx(source: str, asked: Asked) -> DataLoaders:
    common = {name: asked.common[name] for name in ("batch_tfms", "device")}
    return idx_loaders(source, bs=64, val_bs=None, **common)


@source_kind(
    "label files (.csv, .tsv)",
    lambda source: Path(source).suffix.lower() in LABEL_FILES and Path(source).is_file(),
    ("size", "resize", "valid_pct", "split", "group_by", "columns"),
    lambda source, asked: (file for file, _ in csv_items(source, **asked.columns)[:SAMPLE]),
)
def _label_file(source: str, asked: Asked) -> DataLoaders:
    return label_file_loaders(Path(source), asked.divided, asked.columns, **asked.common)


@source_kind(
    "data sets of pellucid",
    lambda source: source.removeprefix(SCHEME) in DATA_SETS,
    ("size", "resize", "valid_pct", "split", "group_by"),
)
def _data_set(source: str, asked: Asked) -> DataLoaders:
    """By its name or address; a user's own file or folder of its name is not passed over."""
    name = source.removeprefix(SCHEME)
    if source == name and Path(source).exists():
        raise UsageError(
            f"{source}: a data set of pellucid has this name, and a file or folder here; write ./{source} for what is "
            f"here, or {SCHEME}{name} for the data set"
        )
    if asked.resize != "crop" and not asked.size:
        raise UsageError(f"{source}: --resize {asked.resize} needs a --size, as these images are kept as they are")
    folder = untar_data(f"{SCHEME}{name}")
    return folder_loaders(
        folder,
        layout(folder, None, None, asked.divided.own),
        asked.divided,
        img_cls=DATA_SETS[name].img_cls,
        **asked.common,
    )
