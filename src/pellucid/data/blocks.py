"""What a data set's inputs and targets are: images, and classes with their vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pellucid.data.dataset import Label
from pellucid.data.images import PILImage, PILImageBW
from pellucid.data.names import one_spelling
from pellucid.errors import DataError, UsageError


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
