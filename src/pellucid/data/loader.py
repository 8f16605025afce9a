"""Batches on the device: one gather from the source, one conversion to float, then the batch transforms."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pellucid.data.batch import (
    MakesLoaders,
    check_loader,
    first_batch,
    label,
    n_items,
    show_batch,
    take_apart,
    viewable,
    whole_batch,
)
from pellucid.data.dataset import Dataset, Getters, item_list
from pellucid.data.images import Decoding
from pellucid.data.imbalance import checked_weights, drawn_order
from pellucid.data.pipeline import Pipeline
from pellucid.data.prefetch import default_device, one_ahead
from pellucid.data.registry import undone
from pellucid.data.sources import Source, StoredImages
from pellucid.data.transforms import BatchTransform, of_side, transformed
from pellucid.errors import UsageError
from pellucid.seed import kept_rng
from pellucid.text import counted, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DataLoader:
    """Batches (xb, yb): float32 (batch, channel, row, column) and the labels (batch,), on the device.

    Args:
        source: Where the pixels come from.
        rows: Row numbers of this loader's images in the source.
        labels: int64 class indices, one a row, or float32 (row, label) for any number of labels an image; None gives
            batches (xb,).
        bs: Images a batch.
        shuffle: New random order each epoch, from torch's global generator.
        drop_last: Leave out a last batch of fewer than `bs`, unless it is the only one.
        batch_tfms: Applied to float batches in [0, 1]; one with `split_idx = 0` is applied in training only,
            one with `split_idx = 1` in validation only, see `of_side`.
        device: Where batches are put.
        training: Whether this loader is for training.
        dataset: The images one by one, with what each was made from.
        vocab: Class names, for titles.
        weights: Shuffle by drawing with replacement, so that an epoch is as long as ever and an image with twice the
            weight of another is in it twice as often; one number a row. None draws each image once.

    Raises:
        UsageError: called like torch's or fastai's loader, with a data set; a batch size below 1; or weights that are
            negative, all zero, or not one a row.
    """

    def __init__(
        self,
        source: Source,
        rows: Sequence[int] | None = None,
        labels: Sequence[int] | Tensor | None = None,
        *,
        bs: int = 64,
        shuffle: bool = False,
        drop_last: bool = False,
        batch_tfms: Sequence[BatchTransform] = (),
        device: torch.device | str = "cpu",
        training: bool = False,
        dataset: Dataset | None = None,
        vocab: Sequence[Any] = (),
        weights: Any = None,
    ):
        if rows is None:
            raise UsageError(
                "DataLoader makes batches of decoded images and needs their rows; for a data set of your own use "
                "torch.utils.data.DataLoader, which DataLoaders and Learner take as well"
            )
        self.source, self.bs, self.shuffle, self.device = source, whole_batch(bs), shuffle, torch.device(device)
        self.dataset, self.vocab = dataset, list(vocab)
        self.rows = torch.as_tensor(rows, dtype=torch.long, device="cpu")
        several = isinstance(labels, Tensor) and labels.is_floating_point()
        kind = torch.float32 if several else torch.long
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=kind, device="cpu")
        self.drop_last, self.weights = drop_last, weights
        self.batch_tfms = of_side(batch_tfms, training)

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.rows)

    @property
    def items(self) -> Sequence[Any]:
        """What each row was made from, as far as it is known."""
        return self.dataset.items if self.dataset is not None else ()

    @property
    def weights(self) -> Tensor | None:
        """How often each row is drawn, float64 (row,), or None for once each."""
        return self._weights

    @weights.setter
    def weights(self, weights: Any) -> None:
        self._weights = None if weights is None else checked_weights(weights, self.n)

    def __len__(self) -> int:
        return self.n // self.bs if self.drop_last and self.n >= self.bs else -(-self.n // self.bs)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self.batches_from(0)

    def batches_from(self, first: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches of an epoch from number `first` on; its order is drawn at once, as for all of it."""
        chunks = drawn_order(self.n, self.shuffle, self.weights).split(self.bs)[: len(self)]
        stored = isinstance(self.source, StoredImages)
        batches = self._of(chunks[first:] if stored else chunks)
        for _ in range(0 if stored else first):  # which of them have no image is known when they are decoded
            next(batches, None)
        return batches

    def _of(self, chunks: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        decoded = zip(self.source.batches(self.rows[chunk] for chunk in chunks), chunks, strict=True)
        batches = ((p, chunk if kept is None else chunk[kept]) for (p, kept), chunk in decoded if len(p))
        for pixels, positions in one_ahead(batches, self.device) if self.device.type == "cuda" else batches:
            yield self._finish(pixels, positions)

    def one_batch(self) -> tuple[Tensor, ...]:
        """The batch that the next pass begins with; looking at it takes no random numbers from that pass."""
        with kept_rng():
            return first_batch(self)

    def sample(self, n: int) -> tuple[Tensor, ...]:
        """Up to `n` images evenly spaced over the loader, as one batch."""
        return self.take(torch.linspace(0, self.n - 1, min(n, self.n), device="cpu").round().long())

    def take(self, positions: Tensor) -> tuple[Tensor, ...]:
        """The images at these positions, int64 (batch,), as one batch; it takes no random numbers from training."""
        with kept_rng():
            pixels, kept = next(self.source.batches([self.rows[positions]]))
            return self._finish(pixels, positions if kept is None else positions[kept])

    def new(self, bs: int | None = None, shuffle: bool | None = None, drop_last: bool | None = None) -> DataLoader:
        """The same images in other batches; None keeps what this loader does."""
        other = copy.copy(self)
        other.bs = self.bs if bs is None else whole_batch(bs)
        other.shuffle = self.shuffle if shuffle is None else shuffle
        other.drop_last = self.drop_last if drop_last is None else drop_last
        return other

    def in_order(self) -> DataLoader:
        """The same images in the order of their rows, with the last batch."""
        return self.new(shuffle=False, drop_last=False)

    def preview(self) -> DataLoader:
        """Batches of which the first is cheap, as `AnyLoader` finds them: its own."""
        return self

    def decode(self, xb: Tensor) -> Tensor:
        """Undo the batch transforms that can be undone, to show pictures: values in [0, 1], on the CPU."""
        for transform in reversed(self.batch_tfms):
            xb = undone(transform, xb)
        return xb.clamp(0, 1).cpu()

    def show_batch(self, b: Any = None, max_n: int = 9, *, unique: bool = False, **options: Any) -> Figure:
        """Show up to `max_n` images with their labels.

        Args:
            b: The batch to show; None takes `one_batch`.
            max_n: Most images to show.
            unique: Show the first image `max_n` times, to see what random batch transforms do to it.
            options: `nrows`, `ncols` of the grid, and further arguments of `show_images`, such as `figsize`.
        """
        if unique:
            b = self.take(torch.zeros(max_n, dtype=torch.long, device="cpu"))
        elif b is None:
            b = self.one_batch()
        return show_batch(b, self.decode, self.vocab, max_n, **options)

    def __repr__(self) -> str:
        return f"DataLoader of {summary_of(self)} on {self.device}"

    def _finish(self, pixels: Tensor, chunk: Tensor) -> tuple[Tensor, ...]:
        xb = pixels.to(self.device, non_blocking=True).float().div_(255)
        for transform in self.batch_tfms:
            xb = transformed(transform, xb)
        if self.labels is None:
            return (xb,)
        return xb, self.labels[chunk].to(self.device, non_blocking=True)


class DataLoaders:
    """A training and a validation loader with what belongs to both.

    Args:
        train: Training batches: ours, or any sized iterable of (xb, yb) such as a torch DataLoader.
        valid: Validation batches, likewise; None for none.
        vocab: Class names, in order of their index, for both loaders; empty takes the training loader's.
        decoding: How a file becomes pixels; needed for `test_dl`.
        getters: How an item becomes a file and a label, for `test_dl` of the items a data set is declared on.
        device: Where the model is trained; None takes the loaders'.
        path: Folder that the data came from, for your own use.

    Attributes:
        split: How the two sides of a folder or a label file were told apart: `folders`, `random`, `stratified`, `group`
            or `column:NAME`; empty for other loaders.
        made_from: Where batches are what was computed from others, those.

    Raises:
        UsageError: a loader has no length, is used up after one pass, or gives single items.
    """

    def __init__(
        self,
        train: Any,
        valid: Any = None,
        *,
        vocab: Sequence[Any] = (),
        decoding: Decoding | None = None,
        getters: Getters | None = None,
        device: torch.device | str | None = None,
        path: str | Path = ".",
    ):
        check_loader(train, "training")
        if valid is not None:
            check_loader(valid, "validation")
        self.train, self.decoding, self.getters, self.path, self.split = train, decoding, getters, Path(path), ""
        self.valid: Any = valid
        self.made_from: DataLoaders | None = None
        self.vocab = list(vocab if len(vocab) else getattr(train, "vocab", ()))
        for loader in self.loaders:
            if isinstance(loader, DataLoader):
                loader.vocab = self.vocab
        self._device = torch.device(device or getattr(train, "device", None) or default_device())

    @property
    def c(self) -> int:
        """Number of classes."""
        return len(self.vocab)

    @property
    def multi(self) -> bool:
        """Whether an image may have any number of labels, as of `MultiCategoryBlock`."""
        labels = getattr(self.train, "labels", None)
        return isinstance(labels, Tensor) and labels.is_floating_point() and labels.dim() == 2

    @property
    def n(self) -> int:
        """Number of training images."""
        return n_items(self.train)

    @property
    def bs(self) -> int:
        """Training batch size."""
        size = getattr(self.train, "bs", None) or getattr(self.train, "batch_size", None)
        return size or len(take_apart(self.one_batch(), "cpu")[0][0])

    @property
    def loaders(self) -> list[Any]:
        """The training loader, and the validation loader if there is one."""
        return [self.train] if self.valid is None else [self.train, self.valid]

    @property
    def train_ds(self) -> Any:
        """Data set of the training loader: item by item (image, class index), before batching."""
        return self.train.dataset

    @property
    def valid_ds(self) -> Any:
        """Data set of the validation loader."""
        return self[1].dataset

    @property
    def device(self) -> torch.device:
        """Where batches go; setting it moves both loaders."""
        return self._device

    @device.setter
    def device(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        for loader in self.loaders:
            if isinstance(loader, DataLoader):
                loader.device = self._device

    @property
    def pipeline(self) -> Pipeline | None:
        """What validation images go through on their way to the model; None of somebody else's batches."""
        if not isinstance(self.valid, DataLoader):
            return None
        return Pipeline(self.decoding, self.valid.source.shape, self.valid.batch_tfms)

    def __getitem__(self, i: int) -> Any:
        """The training (0) or validation loader (1); raises UsageError where there is none."""
        if isinstance(i, bool) or not isinstance(i, int) or not -2 <= i < 2:
            raise UsageError(f"loader {i!r} does not exist: 0 is training, 1 is validation; your own goes in as dl=…")
        loader = (self.train, self.valid)[i]
        if loader is None:
            raise UsageError("these DataLoaders have no validation loader: DataLoaders(train, valid)")
        return loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loaders)

    def __len__(self) -> int:
        return 2

    def one_batch(self) -> tuple[Tensor, ...]:
        """The batch that the next pass over the training set begins with; looking at it changes nothing."""
        with kept_rng(self.train):
            return first_batch(self.train)

    def to(self, device: torch.device | str) -> DataLoaders:
        """Put further batches on `device`."""
        self.device = device
        return self

    @classmethod
    def from_dblock(cls, dblock: MakesLoaders, source: Any, path: str | Path = ".", **options: Any) -> DataLoaders:
        """What `dblock.dataloaders(source, path=path, …)` makes."""
        return dblock.dataloaders(source, path=path, **options)

    def cpu(self) -> DataLoaders:
        """Put further batches on the CPU."""
        return self.to("cpu")

    def cuda(self) -> DataLoaders:
        """Put further batches on the accelerator if there is one, else on the CPU."""
        return self.to(default_device())

    def show_batch(self, b: Any = None, max_n: int = 9, **options: Any) -> Figure:
        """Show up to `max_n` training images with their labels; arguments as of `DataLoader.show_batch`."""
        if isinstance(self.train, DataLoader):
            return self.train.show_batch(b, max_n, **options)
        if options.pop("unique", False):
            raise UsageError("unique shows one image several times, which only loaders made by a DataBlock can do")
        return show_batch(self.one_batch() if b is None else b, viewable, self.vocab, max_n, **options)

    def label(self, index: int) -> str:
        """Name of a class."""
        return label(self.vocab, index)

    def test_dl(
        self, items: Sequence[Any], *, with_labels: bool = False, bs: int | None = None, workers: int | None = None
    ) -> DataLoader:
        """Batches of new items, treated as the validation images were.

        Args:
            items: Paths, Pillow images or arrays; or items of the kind the set was declared on (rows of a DataFrame,
                or the DataFrame), of which `get_x` then makes the images. One path or image counts as a list of it, a
                folder as the list of its images.
            with_labels: Give batches (xb, yb), with the labels that `get_y` finds, instead of (xb,).
            bs: Images a batch; None takes the validation batches'.
            workers: Decoding threads; None takes one a core.

        Raises:
            UsageError: these loaders were not made from images, or have no way to label items.
            DataError: an item cannot be decoded or has another size, or its class is not in the vocabulary.
        """
        pipeline = self.pipeline
        if pipeline is None or pipeline.decoding is None:
            raise UsageError("test_dl needs loaders made by a DataBlock or ImageDataLoaders")
        items = item_list(items, "test_dl")
        getters = self.getters or Getters()
        labels = getters.labels(items, self.vocab) if with_labels else None
        files = getters.files(items)
        return DataLoader(
            pipeline.source(files, workers),
            range(len(items)),
            labels,
            bs=bs or self.valid.bs,
            batch_tfms=pipeline.batch_tfms,
            device=self.device,
            dataset=Dataset(items, files, labels, self.vocab, pipeline.decoding),
            vocab=self.vocab,
        )

    def __repr__(self) -> str:
        names = printable(", ".join(map(str, self.vocab[:8]))) + (", …" if self.c > 8 else "")
        classes = f", {counted(self.c, 'class', 'classes')}: {names}" if self.vocab else ""
        lines = [f"DataLoaders on {self.device}{classes}"]
        for role, loader in (("train", self.train), ("valid", self.valid)):
            lines.append(f"  {role}  {'none' if loader is None else summary_of(loader)}")
        return "\n".join(lines)


def summary_of(loader: Any) -> str:
    """A loader in one line: images, batches, order."""
    if not isinstance(loader, DataLoader):
        return f"{counted(len(loader), 'batch', 'batches')} of a {type(loader).__name__}"
    size = "×".join(map(str, loader.source.shape))
    order = "in order" if not loader.shuffle else "shuffled" if loader.weights is None else "drawn by weight"
    images, batches = counted(loader.n, "image"), counted(len(loader), "batch", "batches")
    return f"{images} ({size}), {batches} of {loader.bs}, {order}"
