"""Batches on the device: one gather from the source, one conversion to float, then the batch transforms."""

from __future__ import annotations

import copy
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pellucid.data.decoder import moments, size_mismatch
from pellucid.data.images import Decoding
from pellucid.data.transforms import BatchTransform, Normalize
from pellucid.errors import DataError, UsageError
from pellucid.plot.images import photo_style, show_images
from pellucid.seed import kept_rng

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OnError = Literal["raise", "skip"]
STATS_SAMPLE = 1000
DAMAGE_REMEDY = "; remove it, or pass on_error='skip'"
SIZE_REMEDY = "; add item_tfms=Resize(128) (command line: --size 128)"


class Source(Protocol):
    """Where pixels come from: rows asked for in chunks, given as uint8 (batch, channel, row, column)."""

    shape: tuple[int, ...]

    def batches(self, chunks: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """For each chunk of row numbers its pixels, and the positions in the chunk that were kept (None: all)."""
        ...

    def channel_stats(self, rows: Tensor) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over the rows, on [0, 1]."""
        ...


class StoredImages:
    """Images decoded already: a tensor in memory, or the memory map of a pixel store.

    Args:
        pixels: uint8, shape (image, channel, row, column).
        channel_moments: int64, shape (image, channel, (sum, sum of squares)) of the pixels.
    """

    def __init__(self, pixels: np.ndarray, channel_moments: np.ndarray):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the map is read-only and is never written
            self.pixels = torch.from_numpy(pixels)
        self.channel_moments = channel_moments
        self.shape = tuple(pixels.shape[1:])

    def batches(self, chunks: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Gather each chunk's rows."""
        for rows in chunks:
            yield self.pixels.index_select(0, rows), None

    def channel_stats(self, rows: Tensor) -> tuple[list[float], list[float]]:
        """Exact statistics, from the stored moments."""
        total = self.channel_moments[rows.numpy()].sum(0)
        return _mean_std(total, len(rows) * self.shape[1] * self.shape[2])


class StreamedImages:
    """Images decoded anew in every epoch, by threads that stay a few batches ahead.

    Args:
        files: One path (or opened image, or array) a row.
        decoding: How it becomes pixels.
        shape: (channel, row, column) of the images a model was trained on; None takes the first one's.
        workers: Decoding threads; None takes one a core.
        on_error: `raise` stops at an image that cannot be decoded, `skip` leaves it out and warns once.
    """

    AHEAD = 2

    def __init__(
        self,
        files: Sequence[Any],
        decoding: Decoding,
        shape: tuple[int, ...] | None = None,
        workers: int | None = None,
        on_error: OnError = "raise",
    ):
        self.files, self.decoding, self.workers, self.on_error = files, decoding, workers, on_error
        self.fixed = shape is not None
        self.shape = shape or self._first_shape()
        self._reported: set[int] = set()

    def batches(self, chunks: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Decode each chunk's rows."""
        waiting: deque[list[Future[np.ndarray | None]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for rows in chunks:
                    waiting.append([pool.submit(self._decode, row) for row in rows.tolist()])
                    if len(waiting) > self.AHEAD:
                        yield self._collect(waiting.popleft())
                while waiting:
                    yield self._collect(waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def channel_stats(self, rows: Tensor) -> tuple[list[float], list[float]]:
        """Statistics of up to 1,000 images, evenly spaced over the rows."""
        sample = rows[torch.linspace(0, len(rows) - 1, min(len(rows), STATS_SAMPLE)).long()]
        with ThreadPoolExecutor(self.workers) as pool:
            images = pool.map(self._decode, sample.tolist())
            decoded = [moments(pixels[None]) for pixels in images if pixels is not None]
        if not decoded:
            raise DataError(f"none of the {len(sample)} training images looked at can be decoded")
        total = np.concatenate(decoded).sum(0)
        return _mean_std(total, len(decoded) * self.shape[1] * self.shape[2])

    def _decode(self, row: int) -> np.ndarray | None:
        try:
            pixels = self.decoding.pixels(self.files[row])
        except DataError as error:
            if self.on_error == "raise":
                raise DataError(f"{error}{'' if self.fixed else DAMAGE_REMEDY}") from None
            if row not in self._reported:
                self._reported.add(row)
                warnings.warn(f"skipped {error}", stacklevel=2)
            return None
        if pixels.shape != self.shape:
            if self.fixed:
                raise DataError(
                    f"{self.files[row] if is_path(self.files[row]) else 'image'}: is "
                    f"{pixels.shape[1]}×{pixels.shape[2]} (height×width), the model was trained on "
                    f"{self.shape[1]}×{self.shape[2]}; resize it, or train with a Resize (command line: --size)"
                )
            raise DataError(size_mismatch(self.files[row], pixels.shape, self.shape) + SIZE_REMEDY)
        return pixels

    def _collect(self, images: list[Future[np.ndarray | None]]) -> tuple[Tensor, Tensor | None]:
        decoded = [image.result() for image in images]
        kept = [i for i, pixels in enumerate(decoded) if pixels is not None]
        stacked = [pixels for pixels in decoded if pixels is not None]
        batch = torch.from_numpy(np.stack(stacked)) if stacked else torch.empty(0, *self.shape)
        return batch, None if len(kept) == len(images) else torch.tensor(kept, dtype=torch.long)

    def _first_shape(self) -> tuple[int, ...]:
        for file in self.files:
            try:
                return self.decoding.pixels(file).shape
            except DataError as error:
                if self.on_error == "raise":
                    raise DataError(f"{error}{DAMAGE_REMEDY}") from None
        raise DataError(f"none of the {len(self.files)} images can be decoded")


def _mean_std(total: np.ndarray, n_pixels: int) -> tuple[list[float], list[float]]:
    mean = total[:, 0] / n_pixels / 255
    variance = total[:, 1] / n_pixels / 255**2 - mean**2
    std = np.sqrt(np.maximum(variance, 0))
    return mean.tolist(), np.where(std > 0, std, 1.0).tolist()  # a constant channel is only centred


class DataLoader:
    """Batches (xb, yb): float32 (batch, channel, row, column) and int64 (batch,), on the device.

    Args:
        source: Where the pixels come from.
        rows: Row numbers of this loader's images in the source.
        labels: int64 class indices, one a row; None gives batches (xb,).
        bs: Images a batch.
        shuffle: New random order each epoch, from torch's global generator.
        drop_last: Leave out a last batch of fewer than `bs`, unless it is the only one.
        batch_tfms: Applied to float batches in [0, 1]; one with `split_idx = 0` is applied in training only.
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
        self.batch_tfms = [t for t in batch_tfms if training or getattr(t, "split_idx", None) != 0]

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


def is_path(item: Any) -> bool:
    """Whether an item is a file's path rather than an opened image."""
    return isinstance(item, str | Path)
