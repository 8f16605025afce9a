"""Where pixels come from: images decoded already, or decoded anew in every epoch."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pellucid.data.decoder import moments, size_mismatch
from pellucid.data.images import Decoding
from pellucid.data.opening import name_of
from pellucid.errors import DataError
from pellucid.text import counted

OnError = Literal["raise", "skip"]
STATS_SAMPLE = 1000
DAMAGE_REMEDY = "; remove it, or pass on_error='skip' (command line: --on-error skip)"
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
        key: Of the pixel store they are in; None for those that are in none.
    """

    def __init__(self, pixels: np.ndarray, channel_moments: np.ndarray, key: str | None = None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the map is read-only and is never written
            self.pixels = torch.from_numpy(pixels)
        self.channel_moments, self.key = channel_moments, key
        self.shape = tuple(pixels.shape[1:])

    def __repr__(self) -> str:
        return f"StoredImages of {counted(len(self.pixels), 'image')} ({'×'.join(map(str, self.shape))})"

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

    def __repr__(self) -> str:
        return f"StreamedImages of {counted(len(self.files), 'image')} ({'×'.join(map(str, self.shape))})"

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
        sample = rows[torch.linspace(0, len(rows) - 1, min(len(rows), STATS_SAMPLE), device="cpu").long()]
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
            if self.fixed and pixels.shape[1:] == self.shape[1:]:
                raise DataError(
                    f"{name_of(self.files[row])}: has {len(pixels)} channel(s), the model was trained on "
                    f"{self.shape[0]}; an item transform changes them"
                )
            if self.fixed:
                raise DataError(
                    f"{name_of(self.files[row])}: is "
                    f"{pixels.shape[1]}×{pixels.shape[2]} (height×width), the model was trained on "
                    f"{self.shape[1]}×{self.shape[2]}; resize it, or train with a Resize (command line: --size)"
                )
            remedy = SIZE_REMEDY if pixels.shape[1:] != self.shape[1:] else ""
            raise DataError(size_mismatch(self.files[row], pixels.shape, self.shape) + remedy)
        return pixels

    def _collect(self, images: list[Future[np.ndarray | None]]) -> tuple[Tensor, Tensor | None]:
        decoded = [image.result() for image in images]
        kept = [i for i, pixels in enumerate(decoded) if pixels is not None]
        stacked = [pixels for pixels in decoded if pixels is not None]
        batch = torch.from_numpy(np.stack(stacked)) if stacked else torch.empty(0, *self.shape, device="cpu")
        return batch, None if len(kept) == len(images) else torch.tensor(kept, dtype=torch.long, device="cpu")

    def _first_shape(self) -> tuple[int, ...]:
        for file in self.files:
            try:
                return self.decoding.pixels(file).shape
            except DataError as error:
                if self.on_error == "raise":
                    raise DataError(f"{error}{DAMAGE_REMEDY}") from None
        raise DataError(f"none of the {counted(len(self.files), 'image')} can be decoded")


def _mean_std(total: np.ndarray, n_pixels: int) -> tuple[list[float], list[float]]:
    mean = total[:, 0] / n_pixels / 255
    variance = total[:, 1] / n_pixels / 255**2 - mean**2
    std = np.sqrt(np.maximum(variance, 0))
    return mean.tolist(), np.where(std > 0, std, 1.0).tolist()  # a constant channel is only centred


def is_path(item: Any) -> bool:
    """Whether an item is a file's path rather than an opened image."""
    return isinstance(item, str | Path)
