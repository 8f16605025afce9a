"""Loaders of what a folder, a label file or IDX files hold, with the options of a user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from pellucid.data.assembly import make_loaders
from pellucid.data.block import DataBlock, listed
from pellucid.data.blocks import CategoryBlock, ImageBlock, MultiCategoryBlock, TargetBlock, vocabulary
from pellucid.data.dataset import Dataset
from pellucid.data.decoder import moments
from pellucid.data.idx import read_set
from pellucid.data.images import Decoding, PILImage, PILImageBW
from pellucid.data.items import parent_label
from pellucid.data.labels import read_labels
from pellucid.data.layouts import Layout
from pellucid.data.loader import DataLoaders
from pellucid.data.sources import OnError, StoredImages
from pellucid.data.splits import MaskSplitter, Splitter
from pellucid.data.splitting import Split, by_path, column_sides, describe_groups
from pellucid.errors import DataError, UsageError
from pellucid.output import say
from pellucid.text import counted, printable


class ImageOptions(TypedDict, total=False):
    """What every `ImageDataLoaders.from_…` but `from_idx` takes by keyword, besides its own arguments.

    Attributes:
        img_cls: What images are opened as: `PILImage` (colour, the default) or `PILImageBW` (grey).
        y_block: `CategoryBlock` or `MultiCategoryBlock`; None fits the labels.
        item_tfms, batch_tfms: As of `DataBlock`.
        bs, val_bs, shuffle, drop_last, device, cache, on_error, workers: As of `DataBlock.dataloaders`.
    """

    img_cls: type[PILImage] | type[PILImageBW]
    y_block: TargetBlock | type[CategoryBlock] | type[MultiCategoryBlock] | None
    item_tfms: Any
    batch_tfms: Any
    bs: int
    val_bs: int | None
    shuffle: bool
    drop_last: bool | None
    device: torch.device | str | None
    cache: bool
    on_error: OnError
    workers: int | None


def folder_loaders(
    path: str | Path, found: Layout, split: Split, *, vocab: Sequence[Any] | None = None, **options: Any
) -> DataLoaders:
    """The images of a folder, by the sides it has or divided as `split` says; prints what was found."""
    if split.column is not None:
        raise UsageError(f"split {split.how!r} is for label files: {printable(path)} is a folder")
    if found.said:
        say(found.said)
    if found.valid is not None:
        n_train, n = len(found.train), len(found.train) + len(found.valid)
        by_folders: Splitter = lambda items: (list(range(n_train)), list(range(n_train, n)))
        functions = {"get_items": lambda _: [*found.train, *(found.valid or [])], "get_y": parent_label}
        return _named(loaders(options, path, path, vocab=vocab, splitter=by_folders, **functions), "folders")
    if split.how == "folders":
        raise DataError(f"{printable(path)}: there are no train and valid folders in it to split by")
    grouped = split.grouped(path)
    functions = {"get_items": lambda _: found.train, "get_y": parent_label}
    return _divided(options, path, path, found.train, split, grouped, parent_label, vocab=vocab, **functions)


def label_file_loaders(file: Path, split: Split, columns: Mapping[str, Any], **options: Any) -> DataLoaders:
    """The images of a label file, whose `columns` are the arguments of `csv_items`, divided as `split` says.

    Raises:
        UsageError: it is to be split by folders.
    """
    if split.how == "folders":
        raise UsageError(f"{printable(file)}: a label file has no folders to split by; column:NAME is for it")
    read = read_labels(file, **columns, more=split.columns)
    items, label = read.items, itemgetter(1)
    common: dict[str, Any] = {"get_x": itemgetter(0), "get_y": label}
    if options.get("y_block") is None and isinstance(items[0][1], list):
        options["y_block"] = MultiCategoryBlock(vocab=read.vocab)
    if split.column is None:
        cells = read.columns.get(split.group_column or "")
        grouped = split.grouped(read.folder, None if cells is None else by_path(items, cells))
        common["get_items"] = lambda _: items
        return _divided(options, file, file.parent, items, split, grouped, label, **common)
    sides = column_sides(read.columns[split.column], split.column)
    kept = [i for i, side in enumerate(sides) if side != "test"]
    if len(kept) < len(items):
        say(f"{printable(file)}: {counted(len(items) - len(kept), 'image')} of the test side left out")
    mask = MaskSplitter([sides[i] == "valid" for i in kept])
    common |= {"get_items": lambda _: [items[i] for i in kept], "splitter": mask}
    return _named(loaders(options, file, file.parent, **common), split.how)


def idx_loaders(
    path: str | Path, *, batch_tfms: Any, bs: int, val_bs: int | None, device: torch.device | str | None
) -> DataLoaders:
    """See `ImageDataLoaders.from_idx`."""
    images, labels, n_train = read_set(path)
    pixels, n = images[:, None], len(images)
    vocab = vocabulary(CategoryBlock(), labels[:n_train].tolist())
    unknown = set(labels[n_train:].tolist()) - set(vocab)
    if unknown:
        raise DataError(f"{path}: classes {sorted(unknown)} occur in validation but not in training")
    parts = [moments(part) for part in np.array_split(pixels, 1 + n // 1000)]
    decoding = Decoding("L")
    indices = np.searchsorted(vocab, labels).tolist()
    train, valid = (
        Dataset(labels[part].tolist(), pixels[part, 0], indices[part], vocab, decoding)
        for part in (slice(n_train), slice(n_train, n))
    )
    return make_loaders(
        StoredImages(pixels, np.concatenate(parts)),
        (range(n_train), range(n_train, n)),
        (train, valid),
        batch_tfms=listed(batch_tfms),
        bs=bs,
        val_bs=val_bs,
        device=device,
        path=path,
    )


def loaders(
    options: Mapping[str, Any],
    source: Any,
    path: str | Path,
    *,
    vocab: Sequence[Any] | None = None,
    declare: Callable[..., DataBlock] = DataBlock,
    **functions: Any,
) -> DataLoaders:
    """What a DataBlock of these functions makes of `source`, with the options of a user."""
    rest = dict(options)
    blocks = ImageBlock(rest.pop("img_cls", PILImage)), rest.pop("y_block", None) or CategoryBlock(vocab)
    transforms = {name: rest.pop(name, None) for name in ("item_tfms", "batch_tfms")}
    return declare(blocks, **functions, **transforms).dataloaders(source, path=path, **rest)


def _divided(
    options: Mapping[str, Any],
    source: Any,
    path: str | Path,
    items: Sequence[Any],
    split: Split,
    grouped: Callable[[Any], Any] | None,
    label: Callable[[Any], Any],
    **functions: Any,
) -> DataLoaders:
    """Items divided into shares; groups are described."""
    divided = split.splitter(label, grouped)(items)
    if grouped is not None:
        say(describe_groups(items, divided[1], label, grouped))
    return _named(loaders(options, source, path, splitter=lambda _: divided, **functions), split.name)


def _named(dls: DataLoaders, split: str) -> DataLoaders:
    dls.split = split
    return dls
