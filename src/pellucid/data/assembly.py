"""From files and a split to loaders: where the pixels come from, and the two sides of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.data.dataset import Dataset, Getters
from pellucid.data.images import Decoding, apply_item
from pellucid.data.loader import DataLoader, DataLoaders, default_device
from pellucid.data.registry import called
from pellucid.data.sources import OnError, Source, StoredImages, StreamedImages, is_path
from pellucid.data.store import PixelStore
from pellucid.data.transforms import BatchTransform, Normalize, of_side, refuse_misplaced, refuse_random, tried_twice
from pellucid.errors import DataError, UsageError
from pellucid.text import counted

LISTED = 100  # damaged files named in a message


def make_loaders(
    source: Source,
    rows: tuple[Sequence[int], Sequence[int]],
    sides: tuple[Dataset, Dataset],
    *,
    batch_tfms: Sequence[BatchTransform],
    bs: int,
    val_bs: int | None,
    device: torch.device | str | None,
    getters: Getters | None = None,
    shuffle: bool = True,
    drop_last: bool | None = None,
    path: str | Path = ".",
) -> DataLoaders:
    """Put both sides of a split into loaders; `rows` are their positions in `source`."""
    ready = [
        Normalize(*source.channel_stats(torch.tensor(rows[0], device="cpu")))
        if isinstance(t, Normalize) and t.mean is None
        else t
        for t in batch_tfms
    ]
    device = torch.device(device or default_device())
    refuse_random(ready, source.shape, device)
    for training in (True, False):
        refuse_misplaced(of_side(ready, training), source.shape, device)
    common = {"batch_tfms": ready, "device": device, "vocab": sides[0].vocab}
    drop_last = shuffle if drop_last is None else drop_last
    train = DataLoader(
        source,
        rows[0],
        sides[0].labels,
        bs=bs,
        shuffle=shuffle,
        drop_last=drop_last,
        training=True,
        dataset=sides[0],
        **common,
    )
    valid = DataLoader(
        source, rows[1], sides[1].labels, bs=bs if val_bs is None else val_bs, dataset=sides[1], **common
    )
    return DataLoaders(train, valid, decoding=sides[0].decoding, getters=getters, path=path)


def open_source(
    files: list[Any], decoding: Decoding, cache: bool, on_error: OnError, workers: int | None
) -> tuple[Source, set[int]]:
    """Where the pixels of `files` come from, and the positions of those that are damaged and to be left out."""
    _refuse_random_items(files, decoding)
    if not (cache and decoding.storable and all(map(is_path, files))):
        return StreamedImages(files, decoding, None, workers, on_error), set()
    store = PixelStore.open(files, decoding, workers)
    if store.bad:
        reasons = "\n  ".join([*list(store.bad.values())[:LISTED], *(["…"] if len(store.bad) > LISTED else [])])
        if on_error == "raise":
            raise DataError(
                f"{len(store.bad)} of {counted(len(files), 'image')} cannot be decoded:\n  {reasons}\n"
                "remove them, or pass on_error='skip' (command line: --on-error skip) to leave them out"
            )
        warnings.warn(f"skipped {len(store.bad)} of {counted(len(files), 'image')}:\n  {reasons}", stacklevel=4)
    return StoredImages(store.pixels, store.moments, store.key), set(store.bad)


def _refuse_random_items(files: list[Any], decoding: Decoding) -> None:
    """Refuse random item transforms: every image goes through them, also in validation and prediction."""
    plain = replace(decoding, transforms=())
    for file in files if decoding.transforms else []:
        try:
            image: Any = plain.image(file)
        except DataError:
            continue  # reported or skipped with the others
        for transform in decoding.transforms:
            # One transform may hand an array or a tensor to the next; a tensor has no copy().
            duplicate = getattr(image, "copy", None) or image.clone
            _, drawn = tried_twice(
                lambda duplicate=duplicate, t=transform: np.asarray(apply_item(t, duplicate())).copy()
            )
            if drawn:
                name = called(transform)
                raise UsageError(
                    f"item_tfms: {name} is random, and validation images and predictions would go through it too; "
                    "make it a batch transform with the attribute split_idx = 0, which is for training only"
                )
            image = apply_item(transform, image)
        return
