"""One way to look at any loader: ours, or somebody else's sized iterable of batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any

from torch import Tensor

from pellucid.data.batch import first_batch, viewable
from pellucid.data.loader import DataLoader
from pellucid.seed import kept_rng


class AnyLoader:
    """Somebody else's loader with what one of ours can do, as far as its batches allow; all else is its own."""

    items: Sequence[Any] = ()
    n = 0  # nobody knows how many items it has, nor which

    def __init__(self, loader: Any):
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pickle asks for such before there is a loader
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def in_order(self) -> AnyLoader:
        """Itself: its order is its own."""
        return self

    def sample(self, n: int) -> Any:
        """Its first batch, which may have more or fewer than `n` items; it goes on with the same order."""
        with kept_rng(self.loader):
            return first_batch(self.loader)

    def decode(self, xb: Tensor) -> Tensor:
        """Images to show: as they are on [0, 1], else stretched to it."""
        return viewable(xb)

    def preview(self) -> Any:
        """Batches of which the first is cheap; none where it could not be had without using the loader up.

        A torch loader is not iterated, which would start its workers and ask its sampler.
        """
        if isinstance(self.loader, Sequence):
            return self.loader
        dataset, size, collate = (getattr(self.loader, name, None) for name in ("dataset", "batch_size", "collate_fn"))
        if not (size and collate and isinstance(dataset, Sized) and hasattr(dataset, "__getitem__") and len(dataset)):
            return []
        return [collate([dataset[i] for i in range(min(size, len(dataset)))])]  # pyright: ignore[reportIndexIssue]


def adapted(loader: Any) -> DataLoader | AnyLoader:
    """A loader of ours as it is, another in an `AnyLoader`."""
    return loader if isinstance(loader, DataLoader | AnyLoader) else AnyLoader(loader)
