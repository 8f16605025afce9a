"""Look at a model without changing it: everything that only reads a model or its data runs inside `looking`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from pellucid.seed import kept_rng


@contextmanager
def looking(model: nn.Module, loader: Any = None) -> Iterator[None]:
    """Have `model` in evaluation mode, and leave no trace: training goes on as if nobody had looked.

    When the block ends, also when it fails, every module has the mode it had (a user may keep some in evaluation mode
    on purpose), and all random numbers go on where they were, Python's, numpy's, torch's and the loader's own.
    Gradients are not switched off: some of those who look need them.

    Args:
        model: Any module.
        loader: A loader of batches that is read inside the block.
    """
    with kept_modes(model), kept_rng(loader):
        model.eval()
        yield


@contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """Give every module its own mode, training or evaluation, back when the block ends."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        # Through `train`, from the outside in, because some do more there than set a flag: adapters such as LoRA merge
        # their weights for evaluation and take them apart for training.
        for module, mode in modes:
            if module.training != mode:
                module.train(mode)
        for module, mode in modes:  # a parent visited later may have reached a shared child again
            if module.training != mode:
                module.training = mode
