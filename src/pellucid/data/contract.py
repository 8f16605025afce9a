"""Arguments that fastai's functions of the same name take and ours do not: each is answered rather than ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.errors import UsageError

ONE_LABEL = "a batch is images and their labels here: one class each, or several labels by MultiCategoryBlock"
SEVERAL = "several labels an image: blocks=(ImageBlock, MultiCategoryBlock), or from_csv and from_df with label_delim"
NO_HOOK = "there is no pipeline of items here: use item_tfms and batch_tfms of the DataBlock"
DECLARED_FIRST = "give it to the DataBlock, or make another with new(item_tfms, batch_tfms)"
ANSWERS = {
    "num_workers": "it is called workers: processes that decode, once, before the first epoch; None takes one a core",
    "shuffle_train": "it is called shuffle",
    "shuffle_fn": "pass shuffle=False, or a torch DataLoader of your own to DataLoaders",
    "val_shuffle": "validation images keep their order",
    "verbose": "DataBlock.summary(source) prints each step",
    "n": "leave items out in get_items instead",
    "pin_memory": "pixels are gathered in this process, so there is nothing to pin",
    "timeout": "pixels are gathered in this process, so there is nothing to wait for",
    "dl_type": "make a torch DataLoader of your own and pass it to DataLoaders",
    "dl_kwargs": "bs and val_bs, shuffle and drop_last are arguments of their own",
    "y_block": SEVERAL,
    "label_delim": SEVERAL,
    "n_inp": ONE_LABEL,
    "header": "a line of headings is found by what it says",
    "quoting": "fields are quoted as csv files quote them",
    "getters": "pass them as get_x and get_y",
    "item_tfms": DECLARED_FIRST,
    "batch_tfms": DECLARED_FIRST,
    "after_item": NO_HOOK,
    "before_batch": NO_HOOK,
    "after_batch": NO_HOOK,
}


def refuse(caller: str, others: Mapping[str, Any]) -> None:
    """Refuse arguments that `caller` does not take, and say what to use for those of fastai.

    Raises:
        UsageError: there are any.
    """
    if others:
        parts = [f"{name}{f' ({ANSWERS[name]})' if name in ANSWERS else ''}" for name in others]
        raise UsageError(f"{caller} does not take {', '.join(parts)}")
