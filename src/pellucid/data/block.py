"""The declaration of a data set: what the items are, how they are found, split, labelled and transformed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pellucid.data.images import Decoding, PILImage, PILImageBW, Resize
from pellucid.data.items import get_image_files
from pellucid.data.loader import DataLoader, DataLoaders, default_device
from pellucid.data.sources import OnError, Source, StoredImages, StreamedImages, is_path
from pellucid.data.splits import RandomSplitter, Splitter, checked_split
from pellucid.data.store import PixelStore
from pellucid.data.transforms import BatchTransform, Normalize, refuse_random, tried_twice
from pellucid.errors import DataError, UsageError
from pellucid.text import printable

LISTED = 100  # damaged files named in a message
Label = str | int


@dataclass(frozen=True)
class ImageBlock:
    """The input is an image, opened as `cls`: `PILImage` (colour) or `PILImageBW` (grey)."""

    cls: type[PILImage] | type[PILImageBW] = PILImage


@dataclass(frozen=True)
class CategoryBlock:
    """The target is one class; `vocab` fixes the names and their order, None takes the training labels, sorted."""

    vocab: Sequence[Label] | None = None


@dataclass(frozen=True)
class Declared:
    """A data set as declared: items, file and class index of each, and the positions on the two sides."""

    items: list[Any]
    files: list[Any]
    labels: list[int]
    train: list[int]
    valid: list[int]
    vocab: list[Label]


class Dataset:
    """One side of a split: `dataset[i]` is (Pillow image, class index as int64 tensor)."""

    def __init__(self, declared: Declared, positions: Sequence[int], decoding: Decoding):
        self.items = [declared.items[i] for i in positions]
        self.vocab = declared.vocab
        self._files = [declared.files[i] for i in positions]
        self._labels = [declared.labels[i] for i in positions]
        self._decoding = decoding

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Image.Image, Tensor]:
        return self._decoding.image(self._files[i]), torch.tensor(self._labels[i])


@dataclass(frozen=True)
class Datasets:
    """Training and validation items before batching."""

    train: Dataset
    valid: Dataset
    vocab: list[Label]


class DataBlock:
    """Declare a data set once, make it from any source.

    Args:
        blocks: Input and target: `ImageBlock` or `ImageBlock(cls=PILImageBW)`, and `CategoryBlock`.
        get_items: Source → items; default: the image files under a folder, or the source itself if it is a sequence.
        splitter: Items → (training positions, validation positions); default: a random fifth validates.
        get_y: Item → label, a string or an integer.
        get_x: Item → path, Pillow image or array; default: the item itself.
        item_tfms: `Resize`, or callables image → image. Only a lone `Resize` can be stored; others make the set stream.
            All images go through them, so random ones are refused.
        batch_tfms: `Normalize()` and callables on float batches in [0, 1]. Training and validation images go through
            them, unless they have an attribute `split_idx`: 0 for training only, 1 for validation only. Random ones
            need `split_idx = 0`, and are refused without it.
    """

    def __init__(
        self,
        blocks: tuple[Any, Any] = (ImageBlock, CategoryBlock),
        get_items: Callable[[Any], Sequence[Any]] | None = None,
        splitter: Splitter | None = None,
        get_y: Callable[[Any], Any] | None = None,
        get_x: Callable[[Any], Any] | None = None,
        item_tfms: Any = None,
        batch_tfms: Any = None,
    ):
        made = [block() if isinstance(block, type) else block for block in blocks]
        if len(made) != 2 or not isinstance(made[0], ImageBlock) or not isinstance(made[1], CategoryBlock):
            raise UsageError(f"blocks must be (ImageBlock, CategoryBlock), got {blocks}")
        self.image_block, self.category_block = made
        self.get_items = get_items or (lambda source: get_image_files(source) if is_path(source) else source)
        self.splitter = splitter or RandomSplitter()
        self.get_y, self.get_x = get_y, get_x
        self.item_tfms, self.batch_tfms = listed(item_tfms), listed(batch_tfms)

    @property
    def decoding(self) -> Decoding:
        """How one item becomes pixels."""
        first, rest = self.item_tfms[:1], self.item_tfms[1:]
        resize = first[0] if first and isinstance(first[0], Resize) else None
        return Decoding(self.image_block.cls.mode, resize, tuple(rest if resize else self.item_tfms))

    def datasets(self, source: Any) -> Datasets:
        """Find, split and label the items of `source`, without decoding any."""
        declared = self._declare(source)
        train, valid = (Dataset(declared, part, self.decoding) for part in (declared.train, declared.valid))
        return Datasets(train, valid, declared.vocab)

    def dataloaders(
        self,
        source: Any,
        bs: int = 64,
        val_bs: int | None = None,
        *,
        device: torch.device | str | None = None,
        cache: bool = True,
        on_error: OnError = "raise",
        workers: int | None = None,
    ) -> DataLoaders:
        """Make the loaders: training shuffled without its last incomplete batch, validation whole and in order.

        Args:
            source: What `get_items` takes, usually a folder.
            bs: Training images a batch.
            val_bs: Validation images a batch; None takes `bs`.
            device: Where batches go; None takes the accelerator if there is one.
            cache: Decode once into the pixel store; False decodes anew in every epoch.
            on_error: What to do about images that cannot be decoded: `raise` lists them, `skip` leaves them out.
            workers: Decoder processes (or threads without cache); None takes one a core.

        Raises:
            DataError: no images, one class only, an empty side of the split, a validation class that training lacks,
                labels that are no strings, damaged images, or sizes that differ without a Resize.
        """
        if on_error not in ("raise", "skip"):
            raise UsageError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        declared = self._declare(source)
        used = declared.train + declared.valid
        files = [declared.files[i] for i in used]
        pixels, bad = _open_source(files, self.decoding, cache, on_error, workers)
        n_train = len(declared.train)
        rows_train = [row for row in range(n_train) if row not in bad]
        rows_valid = [row for row in range(n_train, len(used)) if row not in bad]
        labels = [declared.labels[i] for i in used]
        for part, role in ((rows_train, "training"), (rows_valid, "validation")):
            if not part:
                raise DataError(f"no {role} image is left: all of them are damaged")
        return make_loaders(
            pixels,
            (rows_train, rows_valid),
            labels,
            declared.vocab,
            self.decoding,
            self.batch_tfms,
            (bs, val_bs or bs),
            device,
            items=[declared.items[i] for i in used],
        )

    def summary(self, source: Any) -> None:
        """Print each step from `source` to a batch, with counts, an example and shapes."""
        declared = self._declare(source)
        i = declared.train[0]
        image = self.decoding.image(declared.files[i])
        counts = np.bincount([declared.labels[j] for j in declared.train], minlength=len(declared.vocab))
        classes = ", ".join(f"{label!r} {n:,}" for label, n in zip(declared.vocab, counts, strict=True))
        print(f"items       {len(declared.items):,} from {source if is_path(source) else type(source).__name__}")
        print(f"split       {len(declared.train):,} training, {len(declared.valid):,} validation")
        print(f"classes     {len(declared.vocab)}: {classes}")
        print(f"example     {declared.items[i]}")
        print(f"  label     {declared.vocab[declared.labels[i]]!r} → {declared.labels[i]}")
        print(f"  image     {image.mode}, {image.height}×{image.width} (height×width)")
        print(f"  pixels    uint8 {tuple(self.decoding.pixels(declared.files[i]).shape)}")
        steps = ["float32 in [0, 1]", *(type(t).__name__ for t in self.batch_tfms)]
        print(f"batch       {' → '.join(steps)}")

    def _declare(self, source: Any) -> Declared:
        items = list(self.get_items(source))
        if not items:
            raise DataError(
                f"{source if is_path(source) else 'source'}: no images found in it; "
                "a folder of images has one sub-folder a class, with .jpg, .png or other image files"
            )
        train, valid, neither = checked_split(self.splitter(items), items)
        if neither:
            warnings.warn(
                f"{len(neither)} of {len(items)} items are on neither side of the split and left out, "
                f"such as {printable(items[neither[0]])}",
                stacklevel=3,
            )
        get_x = self.get_x or (lambda item: item)
        files = [get_x(item) for item in items]
        _refuse_leaks(files, train, valid)
        labels, vocab = self._labelled(items, train, valid)
        return Declared(items, files, labels, train, valid, vocab)

    def _labelled(self, items: list[Any], train: list[int], valid: list[int]) -> tuple[list[int], list[Label]]:
        """Class index of each item, -1 on neither side, and the classes."""
        if self.get_y is None:
            raise UsageError("DataBlock needs get_y, the function that labels an item (such as parent_label)")
        found = {i: _label(self.get_y, items[i]) for i in train + valid}
        vocab = vocabulary(self.category_block, [found[i] for i in train])
        index = {label: i for i, label in enumerate(vocab)}
        for i, label in found.items():
            if label not in index and self.category_block.vocab is not None:
                raise DataError(f"{items[i]}: its class {label!r} is not in the vocab of CategoryBlock, {vocab}")
            if label not in index:
                raise DataError(
                    f"{items[i]}: its class {label!r} does not occur in training (there are {vocab}); "
                    "add training images of it or take it out of validation"
                )
        return [index[found[i]] if i in found else -1 for i in range(len(items))], vocab


def make_loaders(
    source: Source,
    rows: tuple[list[int], list[int]],
    labels: list[int],
    vocab: list[Label],
    decoding: Decoding,
    batch_tfms: Sequence[BatchTransform],
    bs: tuple[int, int],
    device: torch.device | str | None,
    items: Sequence[Any],
) -> DataLoaders:
    """Put both sides of a split into loaders; `rows` are positions in `source`, `labels` and `items`."""
    ready = [
        Normalize(*source.channel_stats(torch.tensor(rows[0]))) if isinstance(t, Normalize) and t.mean is None else t
        for t in batch_tfms
    ]
    device = torch.device(device or default_device())
    refuse_random(ready, source.shape, device)
    sides = [
        DataLoader(
            source,
            part,
            [labels[row] for row in part],
            bs=size,
            shuffle=training,
            drop_last=training,
            batch_tfms=ready,
            device=device,
            training=training,
            items=[items[row] for row in part],
        )
        for part, size, training in zip(rows, bs, (True, False), strict=True)
    ]
    return DataLoaders(*sides, vocab=vocab, decoding=decoding)


def _open_source(
    files: list[Any], decoding: Decoding, cache: bool, on_error: OnError, workers: int | None
) -> tuple[Source, set[int]]:
    _refuse_random_items(files, decoding)
    if not (cache and decoding.storable and all(map(is_path, files))):
        return StreamedImages(files, decoding, None, workers, on_error), set()
    store = PixelStore.open(files, decoding, workers)
    if store.bad:
        reasons = "\n  ".join([*list(store.bad.values())[:LISTED], *(["…"] if len(store.bad) > LISTED else [])])
        if on_error == "raise":
            raise DataError(
                f"{len(store.bad)} of {len(files)} images cannot be decoded:\n  {reasons}\n"
                "remove them, or pass on_error='skip' to leave them out"
            )
        warnings.warn(f"skipped {len(store.bad)} of {len(files)} images:\n  {reasons}", stacklevel=3)
    return StoredImages(store.pixels, store.moments), set(store.bad)


def _refuse_random_items(files: list[Any], decoding: Decoding) -> None:
    """Refuse random item transforms: every image goes through them, also in validation and prediction."""
    plain = replace(decoding, transforms=())
    for file in files if decoding.transforms else []:
        try:
            image = plain.image(file)
        except DataError:
            continue  # reported or skipped with the others
        for transform in decoding.transforms:
            _, drawn = tried_twice(lambda image=image, t=transform: np.array(t(image.copy())))
            if drawn:
                name = getattr(transform, "__name__", type(transform).__name__)
                raise UsageError(
                    f"item_tfms: {name} is random, and validation images and predictions would go through it too; "
                    "make it a batch transform with the attribute split_idx = 0, which is for training only"
                )
            image = transform(image)
        return


def _refuse_leaks(files: list[Any], train: list[int], valid: list[int]) -> None:
    """Refuse a file that is on both sides, as when a label file lists it twice: it would be validated on as learnt."""
    # normpath, not resolve: a system call for each of a million files would cost more than opening the store.
    trained = {os.path.normpath(files[i]) for i in train if is_path(files[i])}
    both = sorted({str(files[i]) for i in valid if is_path(files[i]) and os.path.normpath(files[i]) in trained})
    if both:
        raise DataError(
            f"{len(both)} files are in both training and validation, such as {printable(both[0])}: "
            "they are listed twice; list each once, or put all its entries on one side"
        )


def _label(get_y: Callable[[Any], Any], item: Any) -> Label:
    label = get_y(item)
    if isinstance(label, np.generic):
        label = label.item()
    if not isinstance(label, str | int):
        raise DataError(
            f"{item}: get_y returned {label!r} ({type(label).__name__}); a label must be a string or an integer"
        )
    return label


def vocabulary(block: CategoryBlock, labels: list[Label]) -> list[Label]:
    """The classes of the training labels: the block's own, or what occurs, sorted."""
    distinct = set(labels)
    if len(distinct) == 1:
        raise DataError(
            f"all {len(labels)} training images are of one class, {labels[0]!r}: a classifier needs at least two "
            "(one sub-folder a class?)"
        )
    if block.vocab is not None:
        return list(block.vocab)
    if len({isinstance(label, str) for label in distinct}) > 1:
        raise DataError(f"labels mix strings and integers: {list(distinct)[:6]}; make get_y return one kind")
    return sorted(distinct)  # type: ignore[type-var]


def listed(value: Any) -> list[Any]:
    """One transform, several or None, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
