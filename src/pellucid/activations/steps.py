"""The steps of an optimizer, whoever made it: when they happen, with which hyper-parameters, on which parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

_STEP = torch.optim.Optimizer.profile_hook_step(lambda _: None).__code__  # torch's wrapper around every `step`
SHORT = {"momentum": "mom", "weight_decay": "wd"}
NO_HYPERS = ("params", "group")  # `group` is the number of the user's group in our optimizers' finer ones
Hyper = tuple[str, int]  # name, parameter group


def unwrapped(optimizer: Any) -> Any:
    """The optimizer that really steps, inside a wrapper of Lightning's, Fabric's or accelerate's."""
    while hasattr(inner := getattr(optimizer, "optimizer", None), "step"):
        optimizer = inner
    return optimizer


@contextmanager
def step_hooks(optimizer: Any, before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    """Call functions before and after each step of a torch optimizer, or of any object with a `step` method.

    `before` comes when the gradients are there: where `step` is given a closure, after that was evaluated once.
    """
    if isinstance(optimizer, torch.optim.Optimizer):
        begin, end = _hooks(lambda _: True, before, after)
        with _removing([optimizer.register_step_pre_hook(begin), optimizer.register_step_post_hook(end)]):
            yield
        return
    step, shadowed = optimizer.step, vars(optimizer).get("step")

    def observed(*args: Any, **options: Any) -> Any:
        before()
        result = step(*args, **options)
        after()
        return result

    optimizer.step = observed
    try:
        yield
    finally:
        if shadowed is None:
            del optimizer.step
        else:
            optimizer.step = shadowed


@contextmanager
def first_step_hooks(
    model: nn.Module, adopt: Callable[[Any], None], before: Callable[[], None], after: Callable[[], None]
) -> Iterator[None]:
    """As `step_hooks`, for the first torch optimizer that steps any parameter of the model; `adopt` is given it."""
    found: Any = None

    def is_it(optimizer: Any) -> bool:
        nonlocal found
        if found is None and _holds_any(optimizer, model):
            found = optimizer
            adopt(optimizer)
        return optimizer is found

    begin, end = _hooks(is_it, before, after)
    with _removing([register_optimizer_step_pre_hook(begin), register_optimizer_step_post_hook(end)]):
        yield


def hypers(optimizer: Any) -> dict[Hyper, float | Tensor]:
    """Every number in the optimizer's parameter groups, under fastai's short names; `betas` are `mom` and `sqr_mom`."""
    found: dict[Hyper, float | Tensor] = {}
    for i, group in enumerate(_groups(optimizer)):
        for name, value in group.items():
            if name in NO_HYPERS:
                continue
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


def _holds_any(optimizer: Any, model: nn.Module) -> bool:
    own = {id(p) for p in model.parameters()}
    return any(id(p) in own for group in _groups(optimizer) for p in group.get("params", []))


def _hooks(
    is_it: Callable[[Any], bool], before: Callable[[], None], after: Callable[[], None]
) -> tuple[Callable[..., Any], Callable[..., None]]:
    def begin(optimizer: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not is_it(optimizer) or _is_inner(optimizer):
            return None
        closure = args[1] if len(args) > 1 else options.get("closure")
        if closure is None:
            before()
            return None
        evaluated = _then(closure, before)
        return ((args[0], evaluated, *args[2:]), options) if len(args) > 1 else (args, options | {"closure": evaluated})

    def end(optimizer: Any, *_: Any) -> None:
        if is_it(optimizer) and not _is_inner(optimizer):
            after()

    return begin, end


def _then(closure: Callable[[], Any], before: Callable[[], None]) -> Callable[[], Any]:
    fresh = True

    def evaluated() -> Any:
        nonlocal fresh
        result = closure()
        if fresh:
            fresh = False
            before()
        return result

    return evaluated


def _is_inner(optimizer: Any) -> bool:
    """Whether the step whose hook is running was called by another step of the same optimizer, by `super().step()`."""
    frame: FrameType | None = sys._getframe(2)
    steps = 0
    while frame is not None and steps < 2:
        steps += frame.f_code is _STEP and frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return steps == 2


@contextmanager
def _removing(hooks: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
