"""Items before batching: what image and which label belongs to each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pellucid.data.blocks import CategoryBlock, Label, TargetBlock
from pellucid.data.frames import is_frame, rows
from pellucid.data.images import Decoding
from pellucid.data.items import get_image_files
from pellucid.data.sources import is_path
from pellucid.errors import DataError, UsageError
from pellucid.text import counted, printable


class Dataset:
    """One side of a split: `dataset[i]` is (Pillow image, class index as int64 tensor), or (Pillow image, labels).

    Args:
        items: What `get_items` found.
        files: What `get_x` made of each item: path, Pillow image or array.
        labels: Class index of each, or floats of shape (item, label), 1 for each label it has; None gives (image,).
        vocab: Names of the classes or labels.
        decoding: How a file becomes an image.
    """

    def __init__(
        self,
        items: Sequence[Any],
        files: Sequence[Any] | np.ndarray,
        labels: Sequence[int] | Tensor | None,
        vocab: Sequence[Label],
        decoding: Decoding,
    ):
        self.items, self.files, self.labels, self.vocab, self.decoding = items, files, labels, vocab, decoding

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Image.Image, Tensor] | tuple[Image.Image]:
        image = self.decoding.image(self.files[i])
        return (image,) if self.labels is None else (image, torch.as_tensor(self.labels[i], device="cpu"))

    def __repr__(self) -> str:
        what = "without labels" if self.labels is None else f"of {counted(len(self.vocab), 'class', 'classes')}"
        first = f", the first {printable(self.files[0])}" if len(self) and is_path(self.files[0]) else ""
        return f"Dataset of {counted(len(self), 'image')} {what}{first}"


@dataclass(frozen=True, repr=False)
class Datasets:
    """Training and validation items before batching."""

    train: Dataset
    valid: Dataset
    vocab: list[Label]

    def __repr__(self) -> str:
        return f"Datasets\n  train  {self.train}\n  valid  {self.valid}"


@dataclass(frozen=True)
class Getters:
    """How an item becomes an image and a label.

    Args:
        get_x: Item → path, Pillow image or array; None takes the item itself.
        get_y: Item → label; None where labels come another way.
        kind: Type of the items that both understand. Anything else is an image already, as far as `get_x` goes.
        target: What `get_y` gives.
    """

    get_x: Callable[[Any], Any] | None = None
    get_y: Callable[[Any], Any] | None = None
    kind: type = object
    target: TargetBlock = field(default_factory=CategoryBlock)

    def files(self, items: Sequence[Any]) -> list[Any]:
        """What `get_x` makes of new items."""
        if self.get_x is None:
            return list(items)
        understood = [self._understood(item) for item in items]
        return [self.get_x(item) if isinstance(item, self.kind) else item for item in understood]

    def labels(self, items: Sequence[Any], vocab: Sequence[Label]) -> list[int] | Tensor:
        """Targets of new items: class indices, or floats (item, label).

        Raises:
            UsageError: there is no `get_y`, or the items are not of its kind.
            DataError: a class is not in the vocabulary.
        """
        if self.get_y is None:
            raise UsageError("with_labels needs loaders made by a DataBlock, whose get_y labels an item")
        index = {label: i for i, label in enumerate(vocab)}
        found = []
        for item in map(self._understood, items):
            if not isinstance(item, self.kind):
                raise UsageError(
                    f"with_labels needs items as the set was declared on, {self.kind.__name__}; "
                    f"got a {type(item).__name__}, which get_y may not label"
                )
            labels = self.target.labels_of(self.get_y, item)
            unknown = [label for label in labels if label not in index]
            if unknown:
                raise DataError(f"{printable(item)}: its class {unknown[0]!r} is not in the vocabulary, {list(vocab)}")
            found.append(tuple(index[label] for label in labels))
        return self.target.encoded_as(found, len(vocab))

    def _understood(self, item: Any) -> Any:
        return Path(item) if isinstance(item, str) and issubclass(self.kind, Path) else item


def item_list(items: Any, caller: str) -> list[Any]:
    """Items as a list; one path, image, file or dict stands for a list of it, a folder for its images, a
    DataFrame for its rows.

    Raises:
        UsageError: there are none, or it is an array that may be one image or several.
    """
    if is_frame(items):
        listed = rows(items)
    elif is_path(items) and os.path.isdir(items):
        listed = list(get_image_files(items))
    elif is_path(items) or isinstance(items, bytes | Image.Image | Mapping) or hasattr(items, "read"):
        listed = [items]
    elif 1 < getattr(items, "ndim", 1) < 4:
        size = "×".join(map(str, items.shape))
        raise UsageError(
            f"{caller} got one {size} array, which may be one image or several: put one image into a list, [image], "
            "and several too, list(images)"
        )
    elif isinstance(items, Iterable):
        listed = list(items)
    else:
        raise UsageError(f"{caller} takes a list of paths, Pillow images or arrays, got a {type(items).__name__}")
    if not listed:
        raise UsageError(f"{caller} got no items")
    return listed
