"""What a data set's inputs and targets are: images, and classes or labels with their vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.data.images import PILImage, PILImageBW
from pellucid.data.names import one_spelling
from pellucid.errors import DataError, UsageError
from pellucid.text import printable

Label = str | int


@dataclass(frozen=True)
class ImageBlock:
    """The input is an image, opened as `cls`: `PILImage` (colour) or `PILImageBW` (grey)."""

    cls: type[PILImage] | type[PILImageBW] = PILImage


@dataclass(frozen=True)
class CategoryBlock:
    """The target is one class.

    Args:
        vocab: Names of the classes; None takes the training labels, sorted.
        sort: Sort a vocabulary that is given; False keeps its order. Without it, one that is not sorted is refused:
            fastai sorts it, and what class 0 is should not depend on who reads the line.
        add_na: A class for unknown labels, which is refused here.
    """

    vocab: Sequence[Label] | None = None
    sort: bool | None = field(default=None, repr=False)
    add_na: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.add_na:
            raise UsageError("CategoryBlock cannot add_na: each label is a class; label the unknown ones yourself")
        if self.vocab is None:
            return
        names = list(map(one_spelling, self.vocab))
        ordered = sorted(names)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"CategoryBlock got the class {twice!r} twice")
        if self.sort is None and names != ordered:
            raise UsageError(
                f"the vocabulary {names} is not sorted: sort it, or keep its order by CategoryBlock(vocab, sort=False)"
            )
        object.__setattr__(self, "vocab", ordered if self.sort else names)

    def labels_of(self, get_y: Callable[[Any], Any], item: Any) -> tuple[Label, ...]:
        """The class of an item, alone in a tuple."""
        return (label_of(get_y, item),)

    def vocabulary(self, labels: list[tuple[Label, ...]]) -> list[Label]:
        """The classes of the training labels: the block's own, or what occurs, sorted."""
        return vocabulary(self, [label for each in labels for label in each])

    def encoded_as(self, indices: Sequence[tuple[int, ...]], n: int) -> list[int]:
        """What batches hold of each item: its class index."""
        return [each[0] for each in indices]


@dataclass(frozen=True)
class MultiCategoryBlock:
    """The target is any number of labels: batches have float32 (image, label), 1 where an image has the label.

    `get_y` returns the labels of an item as a list, as `ColReader(…, label_delim=' ')` does.

    Args:
        encoded: `get_y` returns 0 or 1 for each name of `vocab` instead, as `ColReader([…])` does of several columns.
        vocab: Names of the labels, in their order; None takes those of the training images, sorted.
        add_na: A label for unknown ones, which is refused here.

    Raises:
        UsageError: `encoded` without `vocab`, or a name in it twice.
    """

    encoded: bool = False
    vocab: Sequence[Label] | None = None
    add_na: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.add_na:
            raise UsageError("MultiCategoryBlock cannot add_na: an image may have no label at all")
        if self.encoded and self.vocab is None:
            raise UsageError("MultiCategoryBlock(encoded=True) needs the vocab: the name of each column")
        if self.vocab is not None:
            names = list(map(one_spelling, self.vocab))
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise UsageError(f"MultiCategoryBlock got the label {twice!r} twice")
            object.__setattr__(self, "vocab", names)

    def labels_of(self, get_y: Callable[[Any], Any], item: Any) -> tuple[Label, ...]:
        """The labels of an item, each once.

        Raises:
            DataError: `get_y` returned no list, or other than one 0 or 1 for each name of the vocabulary.
        """
        found = get_y(item)
        if isinstance(found, str | bytes) or not isinstance(found, Iterable):
            raise DataError(
                f"{printable(item)}: get_y returned {found!r}; MultiCategoryBlock takes a list of labels (of one text "
                "with several in it, label_delim=' ')"
            )
        values = [value.item() if hasattr(value, "item") else value for value in found]
        if not self.encoded:
            return tuple(dict.fromkeys(label_of(lambda value: value, value) for value in values))
        names = list(self.vocab or ())
        if len(values) != len(names) or any(value not in (0, 1) for value in values):
            raise DataError(
                f"{printable(item)}: get_y returned {values}; wanted is 0 or 1 for each of {len(names)} labels, {names}"
            )
        return tuple(name for name, value in zip(names, values, strict=True) if value)

    def vocabulary(self, labels: list[tuple[Label, ...]]) -> list[Label]:
        """The labels of the training images: the block's own, or what occurs, sorted."""
        if self.vocab is not None:
            return list(self.vocab)
        distinct = {label for each in labels for label in each}
        if not distinct:
            raise DataError(f"none of {len(labels)} training images has a label")
        return _sorted(distinct)

    def encoded_as(self, indices: Sequence[tuple[int, ...]], n: int) -> Tensor:
        """What batches hold of each item: float32 (item, label)."""
        found = torch.zeros(len(indices), n, device="cpu")
        rows = [row for row, each in enumerate(indices) for _ in each]
        found[rows, [i for each in indices for i in each]] = 1.0
        return found


TargetBlock = CategoryBlock | MultiCategoryBlock


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
    return _sorted(distinct)


def _sorted(distinct: set[Label]) -> list[Label]:
    if len({isinstance(label, str) for label in distinct}) > 1:
        raise DataError(f"labels mix strings and integers: {list(distinct)[:6]}; make get_y return one kind")
    return sorted(distinct)  # type: ignore[type-var]


def label_of(get_y: Callable[[Any], Any], item: Any) -> Label:
    """Label of an item, names in one spelling; raises DataError where it is neither a string nor an integer."""
    label = one_spelling(get_y(item))
    if isinstance(label, np.generic):
        label = label.item()
    if not isinstance(label, str | int):
        raise DataError(
            f"{printable(item)}: get_y returned {label!r} ({type(label).__name__}); a label must be a string or an "
            "integer"
        )
    return label
