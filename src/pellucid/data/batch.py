"""One batch: taken apart into inputs and targets, and shown as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pellucid.errors import UsageError
from pellucid.plot.images import show_grid
from pellucid.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Parts = tuple[Any, ...]


def take_apart(batch: Any, device: torch.device | str, n_inp: int | None = None) -> tuple[Parts, Parts]:
    """Inputs and targets of a batch, on the device; no targets where it has one member, or is a bare tensor.

    Args:
        batch: A tuple or list of tensors, or one tensor.
        device: Where its members are put.
        n_inp: How many members are inputs; None takes all but the last.

    Raises:
        UsageError: it is a dict or something else, or has a member that is no tensor.
    """
    parts = (batch,) if isinstance(batch, Tensor) else batch
    if not isinstance(parts, tuple | list) or not parts:
        raise _no_batch(batch)
    try:
        moved = tuple(part.to(device) for part in parts)
    except AttributeError:
        if all(hasattr(part, "to") for part in parts):
            raise
        raise _no_batch(batch) from None
    n_inp = n_inp or max(1, len(parts) - 1)
    return moved[:n_inp], moved[n_inp:]


def parts_of(batch: Any, dls: Any) -> tuple[Parts, Parts]:
    """Inputs and targets of a batch of these loaders, on their device; `dls.n_inp` says how many are inputs, if set."""
    return take_apart(batch, dls.device, getattr(dls, "n_inp", None))


def check_loader(loader: Any, role: str) -> None:
    """See that a loader can be gone through in every epoch and has a length.

    Raises:
        UsageError: it is a data set, an iterator that one pass uses up, nothing to iterate over, or has no length.
    """
    kind = f"the {role} loader is a {type(loader).__name__}"
    if isinstance(loader, Dataset):
        raise UsageError(f"{kind}, which gives single items: wrap it, torch.utils.data.DataLoader(dataset, 64)")
    if isinstance(loader, Iterator):
        raise UsageError(f"{kind}, which one pass uses up: give a loader, or list(…) of its batches")
    if isinstance(loader, str | Mapping) or not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
        raise UsageError(f"{kind}, which holds no batches: give a loader, such as torch.utils.data.DataLoader")
    try:
        len(loader)
    except TypeError:
        raise UsageError(
            f"{kind} without a length, which schedules and progress need: "
            "give its IterableDataset a __len__ that returns the number of items"
        ) from None


def first_batch(loader: Any) -> Any:
    """The first batch of a new pass; raises UsageError where there is none."""
    for batch in loader:
        return batch
    raise UsageError("the loader has no batch: fewer images than the batch size, with drop_last?")


def batches_from(loader: Any, first: int) -> Iterator[Any]:
    """The batches of an epoch from number `first` on, of any loader; what is drawn before them is drawn now.

    Loaders that have a method of this name, as ours do, leave out what comes before; others make it, to be thrown away.
    """
    if hasattr(loader, "batches_from"):
        return loader.batches_from(first)
    batches = iter(loader)
    for _ in range(first):
        next(batches, None)
    return batches


def show_batch(
    batch: Any,
    pictures: Callable[[Tensor], Tensor],
    vocab: Sequence[Any],
    max_n: int = 9,
    *,
    nrows: int | None = None,
    ncols: int | None = None,
    **options: Any,
) -> Figure:
    """Show the images of a batch with their labels.

    Args:
        batch: (xb, yb), or (xb,) without labels.
        pictures: Turns inputs into images to show.
        vocab: Class names.
        max_n: Most images to show; `nrows` × `ncols` if both are given and fewer.
        nrows: Rows of the grid.
        ncols: Its columns.
        options: `figsize`, `dpi`, `title`, `suptitle`, and those of matplotlib's `imshow`.
    """
    if isinstance(batch, int):
        raise UsageError(f"show_batch takes a batch first; for {batch} images say show_batch(max_n={batch})")
    if max_n < 1:
        raise UsageError(f"max_n must be at least 1, got {max_n}")
    (xb, *_), targets = take_apart(batch, "cpu")
    n = min(max_n, nrows * ncols) if nrows and ncols else max_n
    titles = [target_name(y, vocab) for y in targets[0][:n]] if targets else None
    return show_grid(photos(pictures(xb[:n])), titles, {"nrows": nrows, "ncols": ncols} | options)[0, 0].figure


def viewable(images: Tensor) -> Tensor:
    """Images (image, channel, row, column) on [0, 1]; one that is not, normalised perhaps, is stretched to it.

    Raises:
        UsageError: these are no images.
    """
    if images.dim() not in (3, 4) or (images.dim() == 4 and images.shape[1] not in (1, 3, 4)):
        raise UsageError(
            f"only images can be shown, (batch, channel, row, column); these inputs are {described(images)}"
        )
    images = images.detach().cpu().double()  # the difference of two floats may be none
    flat = images.flatten(1)
    low, high = (edge.view(-1, *[1] * (images.dim() - 1)) for edge in (flat.amin(1), flat.amax(1)))
    inside = (low >= 0) & (high <= 1)
    return torch.where(inside, images, (images - low) / (high - low).clamp(min=1e-12)).float()


def photos(images: Tensor) -> list[Tensor]:
    """Each image as a picture is drawn, (row, column) or (row, column, channel), whatever its size."""
    moved = images.movedim(1, -1) if images.dim() == 4 else images
    return list(moved[..., 0] if moved.dim() == 4 and moved.shape[-1] == 1 else moved)


def label(vocab: Sequence[Any], index: int) -> str:
    """Name of a class; its number where the vocabulary has none."""
    return str(vocab[index]) if 0 <= index < len(vocab) else str(index)


def target_name(target: Tensor, vocab: Sequence[Any]) -> str:
    """A target or prediction in words: the class's name, all labels it has joined by ";", the number, or the shape."""
    if target.shape == (len(vocab),) and target.numel() > 1 and bool(((target == 0) | (target == 1)).all()):
        return ";".join(str(vocab[i]) for i in target.nonzero()[:, 0].tolist())
    if target.numel() == 1 and not target.is_floating_point():
        return label(vocab, int(target))
    return f"{target.item():.4g}" if target.numel() == 1 else described(target)


def whole_batch(bs: Any) -> int:
    """A batch size as an integer; raises UsageError where it is none or below 1."""
    if isinstance(bs, bool) or not hasattr(bs, "__index__"):
        raise UsageError(f"batch size must be a whole number, got {bs!r} (fastai's `path` is named: path=…)")
    if int(bs) < 1:
        raise UsageError(f"batch size must be at least 1, got {bs}")
    return int(bs)


def _no_batch(batch: Any) -> UsageError:
    return UsageError(f"a batch must be a tuple of tensors, (inputs, labels), got {_described(batch)}; {_fix(batch)}")


def _described(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with keys {', '.join(printable(repr(key)) for key in batch)}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {', '.join(map(described, batch[:6])) or 'nothing'}"
    return f"a {type(batch).__name__}"


def described(value: Any) -> str:
    """Shape and type of a tensor, or what else a value is."""
    if isinstance(value, Tensor):
        return f"{'×'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def _fix(batch: Any) -> str:
    keys = [f"batch[{printable(repr(key))}]" for key in batch] if isinstance(batch, Mapping) else []
    return f"give the loader a collate_fn that returns {', '.join(keys[:2]) or 'two tensors'}"


class MakesLoaders(Protocol):
    """What `DataLoaders.from_dblock` takes: a `DataBlock`."""

    def dataloaders(self, source: Any, *, path: str | Path = ".", **options: Any) -> Any:
        """Loaders of what is in `source`."""
        ...


def n_items(loader: Any) -> int:
    """How many items a loader has."""
    n = getattr(loader, "n", None)
    return len(loader.dataset) if n is None else n
