"""The declaration of a data set: what the items are, how they are found, split, labelled and transformed."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.data.assembly import make_loaders, open_source
from pellucid.data.batch import whole_batch
from pellucid.data.blocks import CategoryBlock, ImageBlock, Label, TargetBlock
from pellucid.data.contract import refuse
from pellucid.data.dataset import Dataset, Datasets, Getters
from pellucid.data.finding import real_paths
from pellucid.data.frames import is_frame, rows
from pellucid.data.images import Decoding
from pellucid.data.imbalance import class_weights
from pellucid.data.items import get_image_files, list_images
from pellucid.data.layouts import no_images
from pellucid.data.loader import DataLoaders
from pellucid.data.names import lookalike
from pellucid.data.sources import OnError, is_path
from pellucid.data.splits import RandomSplitter, Splitter, checked_split
from pellucid.errors import DataError, UsageError
from pellucid.text import counted, printable


@dataclass(frozen=True)
class Declared:
    """A data set as declared: items, file and class indices of each, and the positions on the two sides."""

    items: list[Any]
    files: list[Any]
    labels: list[tuple[int, ...]]
    train: list[int]
    valid: list[int]
    vocab: list[Label]
    target: TargetBlock

    def side(self, positions: Sequence[int], decoding: Decoding) -> Dataset:
        """The items at these positions."""
        items, files, labels = ([part[i] for i in positions] for part in (self.items, self.files, self.labels))
        return Dataset(items, files, self.target.encoded_as(labels, len(self.vocab)), self.vocab, decoding)


class DataBlock:
    """Declare a data set once, make it from any source.

    Args:
        blocks: Input and target: `ImageBlock` or `ImageBlock(cls=PILImageBW)`, and `CategoryBlock`, or
            `MultiCategoryBlock` for any number of labels.
        get_items: Source → items; default: the image files under a folder, or the source itself if it is a sequence.
        splitter: Items → (training positions, validation positions); default: a random fifth validates.
        get_y: Item → label, a string or an integer; a list of labels for `MultiCategoryBlock`.
        get_x: Item → path, Pillow image or array; default: the item itself.
        item_tfms: `Resize`, or callables image → image. Only a lone `Resize` can be stored; others make the set stream.
            All images go through them, so random ones are refused.
        batch_tfms: `Normalize()` and callables on float batches in [0, 1]. Training and validation images go through
            them, unless they have an attribute `split_idx`: 0 for training only, 1 for validation only. Random ones
            need `split_idx = 0`, and are refused without it; what validation images go through in their place, if they
            do, is their attribute `validation`. One with a method `decode(x)` is undone for pictures.

    A run folder keeps the transforms of validation by their names: a function or class of a module of yours, with the
    arguments that a dataclass has as its fields, or that a method `to_json()` returns.
    """

    def __init__(
        self,
        blocks: Sequence[Any] = (ImageBlock, CategoryBlock),
        *,
        get_items: Callable[[Any], Sequence[Any]] | None = None,
        splitter: Splitter | None = None,
        get_y: Callable[[Any], Any] | None = None,
        get_x: Callable[[Any], Any] | None = None,
        item_tfms: Any = None,
        batch_tfms: Any = None,
        **others: Any,
    ):
        refuse("DataBlock", others)
        made = [block() if isinstance(block, type) else block for block in blocks]
        if len(made) != 2 or not isinstance(made[0], ImageBlock) or not isinstance(made[1], TargetBlock):
            raise UsageError(f"blocks must be (ImageBlock, CategoryBlock) or MultiCategoryBlock for it, got {blocks}")
        self.image_block, self.category_block = made
        self.get_items = get_items or images_or_itself
        self.splitter = splitter or RandomSplitter()
        self.get_y, self.get_x = get_y, get_x
        self.item_tfms, self.batch_tfms = listed(item_tfms), listed(batch_tfms)

    @classmethod
    def from_columns(
        cls,
        blocks: Sequence[Any] = (ImageBlock, CategoryBlock),
        *,
        get_items: Callable[[Any], Sequence[Any]] | None = None,
        **options: Any,
    ) -> DataBlock:
        """A set given as two columns, images and labels, each a sequence.

        Args:
            blocks: As of `DataBlock`.
            get_items: Source → (images, labels); None takes the source itself.
            options: `splitter`, `item_tfms` and `batch_tfms` of `DataBlock`.
        """
        pairs = partial(_pairs, get_items or (lambda source: source))
        return cls(blocks, get_items=pairs, get_x=itemgetter(0), get_y=itemgetter(1), **options)

    def new(self, item_tfms: Any = None, batch_tfms: Any = None) -> DataBlock:
        """The same declaration with these transforms in place of its own; None for none."""
        other = copy.copy(self)
        other.item_tfms, other.batch_tfms = listed(item_tfms), listed(batch_tfms)
        return other

    @property
    def decoding(self) -> Decoding:
        """How one item becomes pixels."""
        return Decoding.of(self.image_block.cls.mode, self.item_tfms)

    def datasets(self, source: Any, **others: Any) -> Datasets:
        """Find, split and label the items of `source`, without decoding any."""
        refuse("datasets", others)
        declared = self._declare(source)
        train, valid = (declared.side(part, self.decoding) for part in (declared.train, declared.valid))
        return Datasets(train, valid, declared.vocab)

    def dataloaders(
        self,
        source: Any,
        bs: int = 64,
        val_bs: int | None = None,
        *,
        shuffle: bool = True,
        drop_last: bool | None = None,
        device: torch.device | str | None = None,
        path: str | Path = ".",
        cache: bool = True,
        on_error: OnError = "raise",
        workers: int | None = None,
        **others: Any,
    ) -> DataLoaders:
        """Make the loaders: training shuffled without its last incomplete batch, validation whole and in order.

        Args:
            source: What `get_items` takes, usually a folder.
            bs: Training images a batch.
            val_bs: Validation images a batch; None takes `bs`.
            shuffle: Give the training images in a new random order in every epoch.
            drop_last: Leave out the last incomplete training batch; None does where they are shuffled.
            device: Where batches go; None takes the accelerator if there is one.
            path: Kept as `dls.path`.
            cache: Decode once into the pixel store; False decodes anew in every epoch.
            on_error: What to do about images that cannot be decoded: `raise` lists them, `skip` leaves them out.
            workers: Decoder processes (or threads without cache); None takes one a core.

        Raises:
            DataError: no images, one class only, an empty side of the split, a validation class that training lacks,
                labels that are no strings, damaged images, or sizes that differ without a Resize.
        """
        refuse("dataloaders", others)
        whole_batch(bs)
        if on_error not in ("raise", "skip"):
            raise UsageError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        declared, decoding = self._declare(source), self.decoding
        used = declared.train + declared.valid
        n_train = len(declared.train)
        pixels, bad = open_source([declared.files[i] for i in used], decoding, cache, on_error, workers)
        rows_of = [[row for row in part if row not in bad] for part in (range(n_train), range(n_train, len(used)))]
        for part, role in zip(rows_of, ("training", "validation"), strict=True):
            if not part:
                raise DataError(f"no {role} image is left: all of them are damaged")
        train, valid = (declared.side([used[row] for row in part], decoding) for part in rows_of)
        return make_loaders(
            pixels,
            (rows_of[0], rows_of[1]),
            (train, valid),
            batch_tfms=self.batch_tfms,
            bs=bs,
            val_bs=val_bs,
            device=device,
            getters=Getters(self.get_x, self.get_y, type(declared.items[0]), self.category_block),
            shuffle=shuffle,
            drop_last=drop_last,
            path=path,
        )

    def weighted_dataloaders(self, source: Any, wgts: Any = None, bs: int = 64, **options: Any) -> DataLoaders:
        """As `dataloaders`, but training images are drawn with replacement, so that an epoch is as long as ever.

        Args:
            source: As of `dataloaders`.
            wgts: How often each training image is drawn, in the order of `datasets(source).train`; None draws each
                class equally often.
            bs: Training images a batch.
            options: Further arguments of `dataloaders`.

        Raises:
            UsageError: `wgts` are negative, all zero, or not one an image.
            DataError: as `dataloaders`.
        """
        dls = self.dataloaders(source, bs, **options)
        if wgts is None and dls.multi:
            raise UsageError(
                "images with several labels are of no class to draw equally often: give wgts, one an image"
            )
        dls.train.weights = class_weights(dls.train.labels, dls.c)[dls.train.labels] if wgts is None else wgts
        return dls

    def summary(self, source: Any, bs: int = 4, show_batch: bool = False, **options: Any) -> None:
        """Print each step from `source` to a batch, with counts, an example and shapes.

        Args:
            source: What `get_items` takes.
            bs: Images of the batch to show.
            show_batch: Show a batch too.
            options: Arguments of `DataLoaders.show_batch`.
        """
        declared = self._declare(source)
        i = declared.train[0]
        file = declared.files[i]
        image = self.decoding.image(file)
        counts = np.bincount([i for j in declared.train for i in declared.labels[j]], minlength=len(declared.vocab))
        classes = ", ".join(f"{label!r} {n:,}" for label, n in zip(declared.vocab, counts, strict=True))
        print(f"items       {len(declared.items):,} from {source if is_path(source) else type(source).__name__}")
        print(f"split       {len(declared.train):,} training, {len(declared.valid):,} validation")
        print(f"classes     {len(declared.vocab)}: {classes}")
        print(f"example     {printable(file if is_path(file) else type(file).__name__)}")
        labels = declared.labels[i]
        print(f"  label     {', '.join(repr(declared.vocab[j]) for j in labels)} → {', '.join(map(str, labels))}")
        print(f"  image     {image.mode}, {image.height}×{image.width} (height×width)")
        print(f"  pixels    uint8 {tuple(self.decoding.pixels(file).shape)}")
        steps = ["float32 in [0, 1]", *(type(t).__name__ for t in self.batch_tfms)]
        print(f"batch       {' → '.join(steps)}")
        if show_batch:
            self.dataloaders(source, bs).show_batch(**options)

    def __repr__(self) -> str:
        shown = {
            "get_items": None if self.get_items is images_or_itself else self.get_items,
            "splitter": self.splitter,
            "get_x": self.get_x,
            "get_y": self.get_y,
            "item_tfms": self.item_tfms,
            "batch_tfms": self.batch_tfms,
        }
        parts = [f"{name}={_named(value)}" for name, value in shown.items() if value]
        vocab = self.category_block.vocab
        classes = "" if vocab is None else counted(len(vocab), "class", "classes")
        target = type(self.category_block).__name__
        kind = f"ImageBlock({self.image_block.cls.__name__}), {target}({classes})"
        return f"DataBlock(({kind}), {', '.join(parts)})"

    def _declare(self, source: Any) -> Declared:
        found = self.get_items(source)
        items = rows(found) if is_frame(found) else list(found)
        if not items:
            folder = is_path(source) and Path(source).is_dir()
            raise DataError(no_images(source if is_path(source) else "source", list_images(source) if folder else None))
        train, valid, neither = checked_split(self.splitter(found if is_frame(found) else items), items)
        if neither:
            warnings.warn(
                f"{len(neither)} of {len(items)} items are on neither side of the split and left out, "
                f"such as {printable(items[neither[0]])}",
                stacklevel=3,
            )
        get_x = self.get_x or (lambda item: item)
        files = [get_x(item) for item in items]
        real = _refuse_leaks(files, train, valid)
        labels, vocab = self._labelled(items, train, valid)
        _refuse_two_labels(real, files, labels, vocab)
        return Declared(items, files, labels, train, valid, vocab, self.category_block)

    def _labelled(
        self, items: list[Any], train: list[int], valid: list[int]
    ) -> tuple[list[tuple[int, ...]], list[Label]]:
        """Class indices of each item, none on neither side, and the classes."""
        if self.get_y is None:
            raise UsageError("DataBlock needs get_y, the function that labels an item (such as parent_label)")
        block = self.category_block
        found = {i: block.labels_of(self.get_y, items[i]) for i in train + valid}
        vocab = block.vocabulary([found[i] for i in train])
        index = {label: i for i, label in enumerate(vocab)}
        for i, label in ((i, label) for i, labels in found.items() for label in labels if label not in index):
            hint = lookalike(label, vocab)
            if block.vocab is not None:
                raise DataError(
                    f"{printable(items[i])}: its class {label!r} is not in the vocab of {type(block).__name__}, "
                    f"{vocab}{hint}"
                )
            raise DataError(
                f"{printable(items[i])}: its class {label!r} does not occur in training (there are {vocab}){hint}; "
                "add training images of it or take it out of validation"
            )
        return [tuple(index[label] for label in found.get(i, ())) for i in range(len(items))], vocab


def _refuse_leaks(files: list[Any], train: list[int], valid: list[int]) -> dict[int, str]:
    """Refuse a file that is on both sides, as when a label file lists it twice: it would be validated on as learnt.

    Returns the real path of each file that is used, by its position.
    """
    used = [i for i in (*train, *valid) if is_path(files[i])]
    real = dict(zip(used, real_paths(files[i] for i in used), strict=True))
    trained = {real[i]: files[i] for i in train if i in real}
    both = sorted((str(files[i]), str(trained[real[i]])) for i in valid if i in real and real[i] in trained)
    if both:
        raise DataError(
            f"{counted(len(set(both)), 'file is', 'files are')} in both training and validation, such as "
            f"{_and_its_twin(*both[0])}: "
            "they are listed twice; list each once, or put all its entries on one side"
        )
    return real


def _refuse_two_labels(
    real: dict[int, str], files: list[Any], labels: list[tuple[int, ...]], vocab: list[Label]
) -> None:
    first: dict[str, int] = {}
    for i, path in real.items():
        other = first.setdefault(path, i)
        if set(labels[other]) != set(labels[i]):
            twin = _and_its_twin(str(files[i]), str(files[other]))
            names = " and ".join(repr(";".join(str(vocab[j]) for j in labels[k])) for k in (i, other))
            raise DataError(f"{twin}: has two labels, {names}; an image has one label")


def _and_its_twin(file: str, other: str) -> str:
    """A file, and the other path to it where a link makes one."""
    same = os.path.normpath(file) == os.path.normpath(other)
    return printable(file) if same else f"{printable(file)} (the same file as {printable(other)})"


def images_or_itself(source: Any) -> Any:
    """The image files under a folder; anything else is a sequence of items already."""
    return get_image_files(source) if is_path(source) else source


def _pairs(get_items: Callable[[Any], Sequence[Any]], source: Any) -> list[tuple[Any, Any]]:
    images, labels = get_items(source)
    if isinstance(labels, str) or len(images) != len(labels):
        n = "one string" if isinstance(labels, str) else len(labels)
        raise UsageError(f"each image needs a label, got {len(images)} images and {n} for labels")
    return list(zip(images, labels, strict=True))


def _named(value: Any) -> str:
    """A function by its name; one that a function such as RandomSplitter made by that one's."""
    if isinstance(value, list):
        return f"[{', '.join(map(_named, value))}]"
    if getattr(value, "__module__", "").startswith("pellucid.") and hasattr(value, "__qualname__"):
        return value.__qualname__.split(".<locals>")[0]
    return getattr(value, "__name__", None) or repr(value)


def listed(value: Any) -> list[Any]:
    """One transform, several or None, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
