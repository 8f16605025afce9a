"""The steps of an optimizer, whoever made it: when they happen, with which hyper-parameters, on which parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

SHORT = {"momentum": "mom", "weight_decay": "wd"}
Hyper = tuple[str, int]  # name, parameter group


@contextmanager
def step_hooks(optimizer: Any, before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    """Call functions before and after each step of a torch optimizer, or of any object with a `step` method."""
    if isinstance(optimizer, torch.optim.Optimizer):
        hooks = [
            optimizer.register_step_pre_hook(lambda *_: before()),
            optimizer.register_step_post_hook(lambda *_: after()),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        return
    step = optimizer.step

    def observed(*args: Any, **options: Any) -> Any:
        before()
        result = step(*args, **options)
        after()
        return result

    optimizer.step = observed
    try:
        yield
    finally:
        del optimizer.step


def hypers(optimizer: Any) -> dict[Hyper, float | Tensor]:
    """Every number in the optimizer's parameter groups, under fastai's short names; `betas` are `mom` and `sqr_mom`."""
    found: dict[Hyper, float | Tensor] = {}
    for i, group in enumerate(_groups(optimizer)):
        for name, value in group.items():
            if name == "betas":
                found[("mom", i)], found[("sqr_mom", i)] = value
            elif (isinstance(value, int | float) and not isinstance(value, bool)) or (
                isinstance(value, Tensor) and value.numel() == 1
            ):
                found[(SHORT.get(name, name), i)] = value
    return found


def trained(optimizer: Any, model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter of the model's that this optimizer holds and that get gradients."""
    held = {id(p) for group in _groups(optimizer) for p in group.get("params", [])}
    return {
        name: p
        for name, p in model.named_parameters()
        if p.requires_grad and p.is_floating_point() and (not held or id(p) in held)
    }


def _groups(optimizer: Any) -> list[Mapping[str, Any]]:
    return list(getattr(optimizer, "param_groups", None) or getattr(optimizer, "hypers", []))
