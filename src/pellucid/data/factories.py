"""Loaders straight from the usual layouts of image data: folders, CSV, IDX files."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.data.block import CategoryBlock, DataBlock, ImageBlock, listed, make_loaders, vocabulary
from pellucid.data.decoder import moments
from pellucid.data.idx import find_idx, read_idx
from pellucid.data.images import Decoding, PILImage, PILImageBW
from pellucid.data.items import csv_items, folder_above, get_image_files, parent_label
from pellucid.data.loader import DataLoaders
from pellucid.data.sources import StoredImages
from pellucid.data.splits import GrandparentSplitter, RandomSplitter
from pellucid.errors import DataError

TRAIN_NAMES = ("train", "training")
VALID_NAMES = ("valid", "val", "validation", "test", "testing")


class ImageDataLoaders(DataLoaders):
    """Loaders straight from the usual layouts of image data."""

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        train: str | None = None,
        valid: str | None = None,
        valid_pct: float | None = None,
        seed: int | None = None,
        *,
        img_cls: type[PILImage] | type[PILImageBW] = PILImage,
        item_tfms: Any = None,
        batch_tfms: Any = None,
        bs: int = 64,
        **options: Any,
    ) -> DataLoaders:
        """A folder with training and validation sub-folders of class folders, or class folders split at random.

        Args:
            path: The folder.
            train: Name of the training sub-folder; None finds `train` or `training`.
            valid: Name of the validation sub-folder; None finds `valid`, `val`, `validation`, `test` or `testing`.
            valid_pct: Validate on this random share of all images instead; None means 0.2 where there are no
                sub-folders to tell.
            seed: Makes the random split repeatable.
            options: `val_bs`, `device`, `cache`, `on_error`, `workers` of `DataBlock.dataloaders`.
        """
        root = Path(path)
        names = _split_names(root, train, valid) if valid_pct is None else None
        splitter = (
            GrandparentSplitter(*names) if names else RandomSplitter(0.2 if valid_pct is None else valid_pct, seed)
        )
        block = DataBlock(
            (ImageBlock(img_cls), CategoryBlock),
            get_items=lambda p: [
                f for f in get_image_files(p) if f.parent != root and (not names or folder_above(f, 2) in names)
            ],
            splitter=splitter,
            get_y=parent_label,
            item_tfms=item_tfms,
            batch_tfms=batch_tfms,
        )
        return block.dataloaders(root, bs, **options)

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        valid_pct: float = 0.2,
        seed: int | None = None,
        *,
        img_cls: type[PILImage] | type[PILImageBW] = PILImage,
        item_tfms: Any = None,
        batch_tfms: Any = None,
        bs: int = 64,
        **options: Any,
    ) -> DataLoaders:
        """A CSV file of path,label rows, split at random; options as in `from_folder`."""
        block = DataBlock(
            (ImageBlock(img_cls), CategoryBlock),
            get_items=csv_items,
            splitter=RandomSplitter(valid_pct, seed),
            get_x=itemgetter(0),
            get_y=itemgetter(1),
            item_tfms=item_tfms,
            batch_tfms=batch_tfms,
        )
        return block.dataloaders(path, bs, **options)

    @classmethod
    def from_idx(
        cls,
        path: str | Path,
        *,
        batch_tfms: Any = None,
        bs: int = 64,
        val_bs: int | None = None,
        device: torch.device | str | None = None,
    ) -> DataLoaders:
        """A folder of IDX files named as MNIST's: train-images-idx3-ubyte, train-labels-idx1-ubyte and t10k-…, or .gz.

        Raises:
            DataError: a file is missing, damaged, or images and labels differ in number.
        """
        pairs = find_idx(path)
        if pairs is None:
            raise DataError(f"{path}: expected train-images-idx3-ubyte, train-labels-idx1-ubyte and the t10k- pair")
        sides = []
        for image_file, label_file in pairs:
            images, digits = read_idx(image_file), read_idx(label_file)
            if images.ndim != 3 or not len(images) or images.shape[:1] != digits.shape:
                raise DataError(
                    f"{image_file}: images {'×'.join(map(str, images.shape))} (image×row×column) do not fit "
                    f"labels {'×'.join(map(str, digits.shape))} of {label_file}"
                )
            sides.append((images[:, None], digits))
        (train_x, train_y), (valid_x, valid_y) = sides
        if train_x.shape[1:] != valid_x.shape[1:]:
            sizes = [f"{x.shape[2]}×{x.shape[3]}" for x in (train_x, valid_x)]
            raise DataError(f"{path}: training images are {sizes[0]}, validation images {sizes[1]} (height×width)")
        pixels, labels = np.concatenate([train_x, valid_x]), np.concatenate([train_y, valid_y])
        vocab = vocabulary(CategoryBlock(), train_y.tolist())
        unknown = set(valid_y.tolist()) - set(vocab)
        if unknown:
            raise DataError(f"{path}: classes {sorted(unknown)} occur in validation but not in training")
        parts = [moments(part) for part in np.array_split(pixels, 1 + len(pixels) // 1000)]
        source = StoredImages(pixels, np.concatenate(parts))
        rows = list(range(len(train_x))), list(range(len(train_x), len(pixels)))
        indices = np.searchsorted(vocab, labels).tolist()
        tfms = listed(batch_tfms)
        return make_loaders(
            source, rows, indices, vocab, Decoding("L"), tfms, (bs, val_bs or bs), device, items=labels.tolist()
        )


def _split_names(root: Path, train: str | None, valid: str | None) -> tuple[str, str] | None:
    """Names of the training and validation sub-folders, or None where the folder holds classes directly."""
    if train and valid:
        return train, valid
    present = {p.name for p in root.iterdir() if p.is_dir()} if root.is_dir() else set()
    train = train or next((name for name in TRAIN_NAMES if name in present), None)
    valid = valid or next((name for name in VALID_NAMES if name in present), None)
    if train and not valid:
        raise DataError(
            f"{root}: has {train!r} but no validation folder (one of {', '.join(VALID_NAMES)}); "
            "name it, or split at random with valid_pct=0.2 (command line: --valid-pct 0.2)"
        )
    return (train, valid) if train and valid else None
