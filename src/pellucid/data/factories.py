"""Loaders straight from the usual layouts of image data: folders, CSV, IDX files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch

from pellucid.data.block import DataBlock
from pellucid.data.blocks import MultiCategoryBlock
from pellucid.data.dataset import item_list
from pellucid.data.declared import ImageOptions, folder_loaders, idx_loaders, label_file_loaders, loaders
from pellucid.data.frames import ColReader, ColSplitter, Column, column, is_frame
from pellucid.data.items import RegexLabeller
from pellucid.data.layouts import layout
from pellucid.data.loader import DataLoaders
from pellucid.data.splits import RandomSplitter, check_share
from pellucid.data.splitting import GroupBy, Split
from pellucid.errors import UsageError


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
        *,
        group_by: GroupBy | None = None,
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
            valid_pct: Validate on this random share of all images instead, those for testing left out; None means 0.2
                where there are no sub-folders to tell.
            seed: Makes the random split repeatable; None takes that of `set_seed`.
            vocab: Names of the classes, sorted; None takes the training folders'.
            group_by: Keep images of one group on one side: a regular expression that is looked for in an image's path
                from `path`, or a function of the path; see `GroupSplitter`. A share of `valid_pct` validates then.
            options: `ImageOptions`.

        Raises:
            DataError: no images or no class folders, a class folder without images but with other files, a name that
                two classes or two sides share, or as `DataBlock.dataloaders`.
        """
        split = Split("auto", valid_pct, seed, group_by)
        return folder_loaders(path, layout(Path(path), train, valid, split.own), split, vocab=vocab, **options)

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
        label_col: Column | Sequence[Column] | None = None,
        delimiter: str | None = None,
        label_delim: str | None = None,
        valid_col: Column | None = None,
        group_by: GroupBy | None = None,
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
            label_col: Name, or number from 0, of the column of labels; None finds it. With a list of columns an image
                has any number of labels: the columns that are true or 1, or their values.
            delimiter: What is between the columns; None finds it.
            label_delim: What is between the labels of a cell, such as a blank: an image has any number of them then.
            valid_col: Name, or number from 0, of a column that says train, valid or test, or is true for the rows to
                validate on, instead of `valid_pct`; rows to test on are left out.
            group_by: Keep images of one group on one side: `column:NAME`, or as of `from_folder`.
            options: `ImageOptions`.

        Raises:
            UsageError: `valid_pct` is no share.
            DataError: as `csv_items` or `DataBlock.dataloaders`; also where one file is on both sides.
        """
        if isinstance(valid_pct, str):
            raise UsageError(f"from_csv takes the file's name as csv_fname={valid_pct!r}; its second is valid_pct")
        file = Path(path) / (csv_fname or "labels.csv") if csv_fname or Path(path).is_dir() else Path(path)
        columns = {"fn_col": fn_col, "label_col": label_col, "folder": folder, "suff": suff, "delimiter": delimiter}
        columns["label_delim"] = label_delim
        check_share(valid_pct)
        split = Split("random", valid_pct, seed) if group_by is None else Split("auto", valid_pct, seed, group_by)
        return label_file_loaders(
            file, split if valid_col is None else Split(f"column:{valid_col}"), columns, **options
        )

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
        return idx_loaders(path, batch_tfms=batch_tfms, bs=bs, val_bs=val_bs, device=device)

    @classmethod
    def from_path_func(
        cls,
        path: str | Path,
        fnames: Sequence[Any],
        label_func: Callable[[Any], Any],
        valid_pct: float = 0.2,
        seed: int | None = None,
        *,
        group_by: GroupBy | None = None,
        **options: Unpack[ImageOptions],
    ) -> DataLoaders:
        """Files in a list, labelled by a function of their paths, split at random.

        Args:
            path: Kept as `dls.path`; `fnames` are opened as they are.
            fnames: Paths of the images.
            label_func: Path → label, a string or an integer.
            valid_pct: Share of the images to validate on.
            seed: Makes the random split repeatable.
            group_by: Keep images of one group on one side, as of `from_folder`.
            options: `ImageOptions`.

        Raises:
            UsageError: `fnames` is empty.
            DataError: as `DataBlock.dataloaders`.
        """
        split = Split("auto", valid_pct, seed, group_by)
        splitter = split.splitter(label_func, split.grouped(path))
        return loaders(options, item_list(fnames, "fnames"), path, splitter=splitter, get_y=label_func)

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
        label_col: Column | Sequence[Column] = 1,
        *,
        label_delim: str | None = None,
        valid_col: Column | None = None,
        group_by: GroupBy | None = None,
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
            label_col: Name or number of the column of labels; a list of several as of `from_csv`.
            label_delim: What is between the labels of a cell, as of `from_csv`.
            valid_col: Name or number of a column that is true for the rows to validate on, instead of `valid_pct`.
            group_by: Keep images of one group on one side: `column:NAME`, or as of `from_folder`.
            options: `ImageOptions`.

        Raises:
            UsageError: `df` is no DataFrame.
            DataError: a column is missing, or as `DataBlock.dataloaders`.
        """
        if not is_frame(df):
            raise UsageError(f"from_df takes a DataFrame first, then the path; got a {type(df).__name__}")
        get_x = ColReader(fn_col, pref=Path(path) / (folder or ""), suff=suff)
        get_y = ColReader(label_col, label_delim=label_delim)
        if options.get("y_block") is None and (label_delim is not None or not get_y.alone):
            options["y_block"] = labels_block(df, get_y.cols)
        split = Split("auto", valid_pct, seed, group_by)
        name = split.group_column
        grouped = split.grouped(path) if name is None else ColReader(name)
        if grouped is not None and name is None:
            grouped = lambda row, of_path=grouped: of_path(get_x(row))
        splitter = split.splitter(get_y, grouped) if valid_col is None else ColSplitter(valid_col)
        return loaders(options, df, path, splitter=splitter, get_x=get_x, get_y=get_y)

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
        return loaders(options, columns, path, declare=DataBlock.from_columns, splitter=splitter)


def labels_block(frame: Any, columns: Sequence[Column]) -> MultiCategoryBlock:
    """What several labels an image are: names, or yes and no in a column each."""
    values = [column(frame, each) for each in columns] if len(columns) > 1 else [["a name"]]
    if not all(value in (0, 1) for each in values for value in each):
        return MultiCategoryBlock()
    return MultiCategoryBlock(
        encoded=True, vocab=[list(frame.columns)[c] if isinstance(c, int) else c for c in columns]
    )


def _by_name(label_func: Callable[[str], Any], item: Any) -> Any:
    return label_func(Path(item).name)
