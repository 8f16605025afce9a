"""The declaration of a data set: what the items are, how they are found, split, labelled and transformed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pellucid.data.images import Decoding, PILImage, PILImageBW, Resize
from pellucid.data.items import RandomSplitter, Splitter, get_image_files
from pellucid.data.loader import DataLoader, DataLoaders, default_device
from pellucid.data.sources import OnError, Source, StoredImages, StreamedImages, is_path
from pellucid.data.store import PixelStore
from pellucid.data.transforms import BatchTransform, Normalize
from pellucid.errors import DataError, UsageError

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
        batch_tfms: `Normalize()` and callables on float batches in [0, 1].
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
        train, valid = (list(part) for part in self.splitter(items)[:2])
        for part, role in ((train, "training"), (valid, "validation")):
            if not part:
                raise DataError(f"no {role} images: the splitter put none of the {len(items)} items there")
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
        get_x = self.get_x or (lambda item: item)
        files = [get_x(item) for item in items]
        return Declared(
            items, files, [index[found[i]] if i in found else -1 for i in range(len(items))], train, valid, vocab
        )


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
    sides = [
        DataLoader(
            source,
            part,
            [labels[row] for row in part],
            bs=size,
            shuffle=training,
            drop_last=training,
            batch_tfms=ready,
            device=device or default_device(),
            training=training,
            items=[items[row] for row in part],
        )
        for part, size, training in zip(rows, bs, (True, False), strict=True)
    ]
    return DataLoaders(*sides, vocab=vocab, decoding=decoding)


def _open_source(
    files: list[Any], decoding: Decoding, cache: bool, on_error: OnError, workers: int | None
) -> tuple[Source, set[int]]:
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
