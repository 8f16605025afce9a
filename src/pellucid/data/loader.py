"""Batches on the device: one gather from the source, one conversion to float, then the batch transforms."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pellucid.data.images import Decoding
from pellucid.data.sources import Source, StreamedImages
from pellucid.data.transforms import BatchTransform, Normalize
from pellucid.errors import UsageError
from pellucid.plot.images import photo_style, show_images
from pellucid.seed import kept_rng

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DataLoader:
    """Batches (xb, yb): float32 (batch, channel, row, column) and int64 (batch,), on the device.

    Args:
        source: Where the pixels come from.
        rows: Row numbers of this loader's images in the source.
        labels: int64 class indices, one a row; None gives batches (xb,).
        bs: Images a batch.
        shuffle: New random order each epoch, from torch's global generator.
        drop_last: Leave out a last batch of fewer than `bs`, unless it is the only one.
        batch_tfms: Applied to float batches in [0, 1]; one with `split_idx = 0` is applied in training only,
            one with `split_idx = 1` in validation only.
        device: Where batches are put.
        training: Whether this loader is for training.
        items: What each row was made from, for titles and messages.
    """

    def __init__(
        self,
        source: Source,
        rows: Sequence[int],
        labels: Sequence[int] | None,
        *,
        bs: int,
        shuffle: bool = False,
        drop_last: bool = False,
        batch_tfms: Sequence[BatchTransform] = (),
        device: torch.device | str = "cpu",
        training: bool = False,
        items: Sequence[Any] = (),
    ):
        if bs < 1:
            raise UsageError(f"batch size must be at least 1, got {bs}")
        self.source, self.bs, self.shuffle, self.device, self.items = source, bs, shuffle, torch.device(device), items
        self.rows = torch.as_tensor(rows, dtype=torch.long)
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=torch.long)
        self.drop_last = drop_last
        self.batch_tfms = [t for t in batch_tfms if getattr(t, "split_idx", None) in (None, 0 if training else 1)]

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.rows)

    def __len__(self) -> int:
        return self.n // self.bs if self.drop_last and self.n >= self.bs else -(-self.n // self.bs)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(self.n) if self.shuffle else torch.arange(self.n)
        chunks = order.split(self.bs)[: len(self)]
        batches = self.source.batches(self.rows[chunk] for chunk in chunks)
        for (pixels, kept), chunk in zip(batches, chunks, strict=True):
            if len(pixels):
                yield self._finish(pixels, chunk if kept is None else chunk[kept])

    def one_batch(self) -> tuple[Tensor, ...]:
        """The batch that the next pass begins with; looking at it takes no random numbers from that pass."""
        with kept_rng():
            return next(iter(self))

    def sample(self, n: int) -> tuple[Tensor, ...]:
        """Up to `n` images evenly spaced over the loader, as one batch."""
        return self.take(torch.linspace(0, self.n - 1, min(n, self.n)).round().long())

    def take(self, positions: Tensor) -> tuple[Tensor, ...]:
        """The images at these positions, int64 (batch,), as one batch."""
        pixels, kept = next(self.source.batches([self.rows[positions]]))
        return self._finish(pixels, positions if kept is None else positions[kept])

    def in_order(self) -> DataLoader:
        """The same images in the order of their rows, with the last batch."""
        other = copy.copy(self)
        other.shuffle = other.drop_last = False
        return other

    def decode(self, xb: Tensor) -> Tensor:
        """Undo the batch transforms that can be undone, to show pictures: values in [0, 1], on the CPU."""
        for transform in reversed(self.batch_tfms):
            xb = transform.decode(xb) if isinstance(transform, Normalize) else xb
        return xb.clamp(0, 1).cpu()

    def _finish(self, pixels: Tensor, chunk: Tensor) -> tuple[Tensor, ...]:
        xb = pixels.to(self.device, non_blocking=True).float().div_(255)
        for transform in self.batch_tfms:
            xb = transform(xb)
        if self.labels is None:
            return (xb,)
        return xb, self.labels[chunk].to(self.device, non_blocking=True)


class DataLoaders:
    """A training and a validation loader with what belongs to both.

    Args:
        train: Training batches: ours, or any sized iterable of (xb, yb) such as a torch DataLoader.
        valid: Validation batches.
        vocab: Class names, in order of their index.
        decoding: How a file becomes pixels; needed for `test_dl`.
        device: Where the model is trained; None takes the loaders'.
    """

    def __init__(
        self,
        train: Any,
        valid: Any,
        *,
        vocab: Sequence[Any] = (),
        decoding: Decoding | None = None,
        device: torch.device | str | None = None,
    ):
        self.train, self.valid, self.vocab, self.decoding = train, valid, list(vocab), decoding
        self.device = torch.device(device or getattr(train, "device", None) or default_device())

    @property
    def c(self) -> int:
        """Number of classes."""
        return len(self.vocab)

    @property
    def bs(self) -> int:
        """Training batch size."""
        return self.train.bs if isinstance(self.train, DataLoader) else self.train.batch_size

    def __getitem__(self, i: int) -> Any:
        return (self.train, self.valid)[i]

    def __len__(self) -> int:
        return 2

    def one_batch(self) -> tuple[Tensor, ...]:
        """The batch that the next pass over the training set begins with; looking at it changes nothing."""
        with kept_rng(self.train):
            return next(iter(self.train))

    def to(self, device: torch.device | str) -> DataLoaders:
        """Put further batches on `device`."""
        self.device = self.train.device = self.valid.device = torch.device(device)
        return self

    def cpu(self) -> DataLoaders:
        """Put further batches on the CPU."""
        return self.to("cpu")

    def show_batch(self, max_n: int = 9, figsize: tuple[float, float] | None = None) -> Figure:
        """Show up to `max_n` training images with their labels."""
        xb, yb = self.one_batch()[:2]
        images = self.train.decode(xb[:max_n]) if isinstance(self.train, DataLoader) else xb[:max_n].cpu()
        titles = [self.label(y) for y in yb[:max_n].tolist()]
        return show_images(list(images), titles=titles, figsize=figsize, **photo_style())[0, 0].figure

    def label(self, index: int) -> str:
        """Name of a class."""
        return str(self.vocab[index]) if self.vocab else str(index)

    def test_dl(self, items: Sequence[Any], bs: int | None = None, workers: int | None = None) -> DataLoader:
        """Batches (xb,) of new items (paths, Pillow images, arrays), treated as the validation images were.

        Raises:
            UsageError: these loaders were not made from images.
            DataError: an item cannot be decoded or has another size.
        """
        if self.decoding is None or not isinstance(self.valid, DataLoader):
            raise UsageError("test_dl needs loaders made by a DataBlock or ImageDataLoaders")
        items = list(items)
        if not items:
            raise UsageError("test_dl got no items")
        return DataLoader(
            StreamedImages(items, self.decoding, self.valid.source.shape, workers),
            range(len(items)),
            None,
            bs=bs or self.valid.bs,
            batch_tfms=self.valid.batch_tfms,
            device=self.device,
            items=items,
        )


def default_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
