"""Loaders straight from the usual layouts of image data: folders, CSV, IDX files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch

from pellucid.data.assembly import make_loaders
from pellucid.data.block import CategoryBlock, DataBlock, ImageBlock, listed, vocabulary
from pellucid.data.dataset import Dataset, item_list
from pellucid.data.decoder import moments
from pellucid.data.frames import ColReader, ColSplitter, Column, is_frame
from pellucid.data.idx import read_set
from pellucid.data.images import Decoding, PILImage, PILImageBW
from pellucid.data.items import RegexLabeller, parent_label
from pellucid.data.labels import csv_items
from pellucid.data.layouts import layout
from pellucid.data.loader import DataLoaders
from pellucid.data.sources import OnError, StoredImages
from pellucid.data.splits import RandomSplitter, Splitter
from pellucid.errors import DataError, UsageError
from pellucid.output import say


class ImageOptions(TypedDict, total=False):
    """What every `ImageDataLoaders.from_…` but `from_idx` takes by keyword, besides its own arguments.

    Attributes:
        img_cls: What images are opened as: `PILImage` (colour, the default) or `PILImageBW` (grey).
        item_tfms, batch_tfms: As of `DataBlock`.
        bs, val_bs, shuffle, drop_last, device, cache, on_error, workers: As of `DataBlock.dataloaders`.
    """

    img_cls: type[PILImage] | type[PILImageBW]
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
        vocab: Sequence[Any] | None = None,
        **options: Unpack[ImageOptions],
    ) -> DataLoaders:
        """A folder with training and validation sub-folders of class folders, or class folders split at random.

        A sub-folder is for training if its name is `train` or `training`, for validation if it is `valid`, `val` or
        `validation`, or else `test` or `testing`: in any case, alone or with set, data, images or a number
        (`Training`, `val_set`, `test2017`). An image's class is the folder it is in. A folder that holds nothing but
        one folder stands for that one. What was taken for what is printed unless it is just `train` and `valid`, with
        all that was left out.

        Args:
            path: The folder.
            train: Name of the training sub-folder; None finds it.
            valid: Name of the validation sub-folder; None finds it.
            valid_pct: Validate on this random share of all images instead; None means 0.2 where there are no
                sub-folders to tell.
            seed: Makes the random split repeatable; None takes that of `set_seed`.
            vocab: Names of the classes, sorted; None takes the training folders'.
            options: `ImageOptions`.

        Raises:
            DataError: no images or no class folders, a class folder without images but with other files, a name that
                two classes or two sides share, or as `DataBlock.dataloaders`.
        """
        found = layout(Path(path), train, valid, valid_pct is not None)
        if found.said:
            say(found.said)
        if found.valid is None:
            splitter = RandomSplitter(0.2 if valid_pct is None else valid_pct, seed)
        else:
            n_train, n = len(found.train), len(found.train) + len(found.valid)
            splitter: Splitter = lambda items: (list(range(n_train)), list(range(n_train, n)))
        files = [*found.train, *(found.valid or [])]
        functions = {"get_items": lambda path: files, "splitter": splitter, "get_y": parent_label}
        return _loaders(options, path, path, vocab=vocab, **functions)

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        valid_pct: float = 0.2,
        seed: int | None = None,
        *,
        csv_fname: str | None = None,
        fn_col: Column | None = None,
        folder: str | Path = "",
        suff: str = "",
        label_col: Column | None = None,
        delimiter: str | None = None,
        **options: Unpack[ImageOptions],
    ) -> DataLoaders:
        """A label file: a CSV (or .tsv) with a column of files and one of labels, split at random.

        Args:
            path: The file, or a folder with a `labels.csv`.
            valid_pct: Share of the rows to validate on.
            seed: Makes the random split repeatable.
            csv_fname: Name of the file where `path` is a folder.
            fn_col: Name, or number from 0, of the column of files; None finds it, as `csv_items` describes.
            folder: Sub-folder that the files are in, from the label file's.
            suff: Put after each file's name, such as `.jpg` after ids.
            label_col: Name, or number from 0, of the column of labels; None finds it.
            delimiter: What is between the columns; None finds it.
            options: `ImageOptions`.

        Raises:
            UsageError: `valid_pct` is no share.
            DataError: as `csv_items` or `DataBlock.dataloaders`; also where one file is on both sides.
        """
        if isinstance(valid_pct, str):
            raise UsageError(f"from_csv takes the file's name as csv_fname={valid_pct!r}; its second is valid_pct")
        file = Path(path) / (csv_fname or "labels.csv") if csv_fname or Path(path).is_dir() else Path(path)
        columns = {"fn_col": fn_col, "label_col": label_col, "folder": folder, "suff": suff, "delimiter": delimiter}
        functions = {"get_items": partial(csv_items, **columns), "get_x": itemgetter(0), "get_y": itemgetter(1)}
        return _loaders(options, file, file.parent, splitter=RandomSplitter(valid_pct, seed), **functions)

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

    @classmethod
    def from_path_func(
        cls,
        path: str | Path,
        fnames: Sequence[Any],
        label_func: Callable[[Any], Any],
        valid_pct: float = 0.2,
        seed: int | None = None,
        **options: Unpack[ImageOptions],
    ) -> DataLoaders:
        """Files in a list, labelled by a function of their paths, split at random.

        Args:
            path: Kept as `dls.path`; `fnames` are opened as they are.
            fnames: Paths of the images.
            label_func: Path → label, a string or an integer.
            valid_pct: Share of the images to validate on.
            seed: Makes the random split repeatable.
            options: `ImageOptions`.

        Raises:
            UsageError: `fnames` is empty.
            DataError: as `DataBlock.dataloaders`.
        """
        splitter = RandomSplitter(valid_pct, seed)
        return _loaders(options, item_list(fnames, "fnames"), path, splitter=splitter, get_y=label_func)

    @classmethod
    def from_name_func(
        cls, path: str | Path, fnames: Sequence[Any], label_func: Callable[[str], Any], *args: Any, **options: Any
    ) -> DataLoaders:
        """As `from_path_func`, but the function is given the file's name alone: "cat_12.jpg"."""
        return cls.from_path_func(path, fnames, partial(_by_name, label_func), *args, **options)

    @classmethod
    def from_path_re(cls, path: str | Path, fnames: Sequence[Any], pat: str, *args: Any, **options: Any) -> DataLoaders:
        """As `from_path_func`, with the first group of the regular expression `pat` in the path as the label."""
        return cls.from_path_func(path, fnames, RegexLabeller(pat), *args, **options)

    @classmethod
    def from_name_re(cls, path: str | Path, fnames: Sequence[Any], pat: str, *args: Any, **options: Any) -> DataLoaders:
        """As `from_path_re`, but `pat` is looked for in the file's name alone."""
        return cls.from_name_func(path, fnames, RegexLabeller(pat), *args, **options)

    @classmethod
    def from_df(
        cls,
        df: Any,
        path: str | Path = ".",
        valid_pct: float = 0.2,
        seed: int | None = None,
        fn_col: Column = 0,
        folder: str | Path | None = None,
        suff: str = "",
        label_col: Column = 1,
        *,
        valid_col: Column | None = None,
        **options: Unpack[ImageOptions],
    ) -> DataLoaders:
        """A pandas DataFrame with a column of file names and one of labels.

        Args:
            df: The table.
            path: Folder that the file names are in.
            valid_pct: Share of the rows to validate on, at random.
            seed: Makes the random split repeatable.
            fn_col: Name or number of the column of file names.
            folder: Sub-folder of `path` that they are in.
            suff: Put after each name, such as `.jpg`.
            label_col: Name or number of the column of labels.
            valid_col: Name or number of a column that is true for the rows to validate on, instead of `valid_pct`.
            options: `ImageOptions`.

        Raises:
            UsageError: `df` is no DataFrame.
            DataError: a column is missing, or as `DataBlock.dataloaders`.
        """
        if not is_frame(df):
            raise UsageError(f"from_df takes a DataFrame first, then the path; got a {type(df).__name__}")
        return _loaders(
            options,
            df,
            path,
            splitter=RandomSplitter(valid_pct, seed) if valid_col is None else ColSplitter(valid_col),
            get_x=ColReader(fn_col, pref=Path(path) / (folder or ""), suff=suff),
            get_y=ColReader(label_col),
        )

    @classmethod
    def from_lists(
        cls,
        path: str | Path,
        fnames: Sequence[Any],
        labels: Sequence[Any],
        valid_pct: float = 0.2,
        seed: int | None = None,
        **options: Unpack[ImageOptions],
    ) -> DataLoaders:
        """Files in a list and their labels in another, split at random; arguments as of `from_path_func`.

        Raises:
            UsageError: the two differ in length.
        """
        columns, splitter = (item_list(fnames, "fnames"), labels), RandomSplitter(valid_pct, seed)
        return _loaders(options, columns, path, declare=DataBlock.from_columns, splitter=splitter)


def _loaders(
    options: ImageOptions,
    source: Any,
    path: str | Path,
    *,
    vocab: Sequence[Any] | None = None,
    declare: Callable[..., DataBlock] = DataBlock,
    **functions: Any,
) -> DataLoaders:
    """What a DataBlock of these functions makes of `source`, with the options of a user."""
    blocks = ImageBlock(options.pop("img_cls", PILImage)), CategoryBlock(vocab)
    transforms = {name: options.pop(name, None) for name in ("item_tfms", "batch_tfms")}
    return declare(blocks, **functions, **transforms).dataloaders(source, path=path, **options)


def _by_name(label_func: Callable[[str], Any], item: Any) -> Any:
    return label_func(Path(item).name)
