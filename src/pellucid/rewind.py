"""Try something on a model and leave no trace of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.looking import kept_modes
from pellucid.seed import kept_rng


@contextmanager
def rewound(model: nn.Module, params: Iterable[Tensor] = (), loader: Any = None) -> Iterator[None]:
    """Whatever happens inside the block, put everything back bit for bit when it ends, also when it fails.

    That is: parameters, buffers, gradients, each module's training flag, all global random numbers, and the random
    generators of a torch loader.

    Args:
        model: Its parameters and buffers are put back.
        params: Further parameters, that the model is not known to hold.
        loader: A loader whose own generators are put back, so that it goes on with the same order.
    """
    held = {id(p): p for p in [*model.parameters(), *params]}.values()
    tensors = [(p, p.data, p.data.clone(), p.grad) for p in held]
    modules = list(model.modules())
    named = [(m._buffers, name, buffer) for m in modules for name, buffer in m._buffers.items() if buffer is not None]
    buffers = [(home, name, buffer, buffer.clone()) for home, name, buffer in named]
    for p in held:
        p.grad = None  # a backward pass would add to the tensor that is to be put back
    try:
        with kept_modes(model), kept_rng(loader):
            yield
    finally:
        with torch.no_grad():
            for p, data, values, grad in tensors:
                p.data = data.copy_(values)
                p.grad = grad
            for home, name, buffer, values in buffers:
                home[name] = buffer.copy_(values)
