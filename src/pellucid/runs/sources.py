"""From the word or path a user gives to batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pellucid.data.catalogue import URLs, untar_data
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.idx import find_idx
from pellucid.data.images import PILImageBW, Resize
from pellucid.data.labels import csv_items
from pellucid.data.loader import DataLoaders
from pellucid.data.sources import OnError
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.runs.sizes import SAMPLE, fitting_side, some_images

LABEL_FILES = (".csv", ".tsv")
NAMED = {"mnist": URLs.MNIST, "mnist_sample": URLs.MNIST_SAMPLE}


def open_source(
    source: str,
    size: int | None,
    valid_pct: float | None,
    seed: int,
    device: torch.device,
    workers: int | None,
    on_error: OnError,
    columns: Mapping[str, Any] | None = None,
) -> DataLoaders:
    """The batches of `train`'s source, with the options of that name; `columns` are those of `csv_items`."""
    if not str(source):  # which would be the current folder
        raise UsageError("the source is empty: name a data set, a folder or a label file")
    path = Path(source)
    embedded = _embedded(source)
    if embedded or (path.is_dir() and find_idx(path)):
        resize = Resize(size) if size else None
        if not embedded and (size or valid_pct):
            raise UsageError(
                f"{source}: IDX files have a size and a split of their own; leave --size and --valid-pct out"
            )
    elif path.exists():
        listed = not path.is_dir() and path.suffix.lower() in LABEL_FILES
        some = (file for file, _ in csv_items(path, **(columns or {}))[:SAMPLE]) if listed else some_images(path)
        resize = None if size == 0 else Resize(fitting_side(size, some))
    else:
        raise UsageError(f"{source}: no such file or folder, and no data set of that name ({', '.join(NAMED)})")
    options: dict[str, Any] = {"device": device, "workers": workers, "on_error": on_error}
    common: dict[str, Any] = {"item_tfms": resize, "batch_tfms": Normalize()}
    if not embedded and path.suffix.lower() in LABEL_FILES:
        share = 0.2 if valid_pct is None else valid_pct
        return ImageDataLoaders.from_csv(path, share, seed, **(columns or {}), **common, **options)
    if any(columns.values() if columns else []):
        raise UsageError(f"{source}: --path-col, --label-col, --suffix and --image-folder are for label files (.csv)")
    if embedded:
        folder = untar_data(embedded)
        return ImageDataLoaders.from_folder(
            folder, None, None, valid_pct, seed, img_cls=PILImageBW, **common, **options
        )
    if path.is_file():
        raise UsageError(f"{source}: is neither a folder nor a CSV file of path,label")
    if find_idx(path):
        return ImageDataLoaders.from_idx(path, batch_tfms=Normalize(), device=device)
    return ImageDataLoaders.from_folder(path, None, None, valid_pct, seed, **common, **options)


def _embedded(source: str) -> str | None:
    """The address of a data set of the package; a user's own file or folder of its name is not passed over."""
    if source in NAMED.values():
        return source
    if source in NAMED and Path(source).exists():
        raise UsageError(
            f"{source}: a data set of pellucid has this name, and a file or folder here; write ./{source} for what is "
            f"here, or {NAMED[source]} for the data set"
        )
    return NAMED.get(source)
