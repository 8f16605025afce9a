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
    observed = vars(optimizer).get("step")
    if not isinstance(observed, _Observed):
        optimizer.step = observed = _Observed(optimizer)
    around = before, after
    observed.around.append(around)
    try:
        yield
    finally:
        observed.around.remove(around)
        if not observed.around:
            observed.restore()


class _Observed:
    """Stands in for the `step` of an object and calls what is to happen around it, for all watches of it."""

    def __init__(self, optimizer: Any):
        self.optimizer, self.step, self.shadowed = optimizer, optimizer.step, vars(optimizer).get("step")
        self.around: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        for before, _ in self.around:
            before()
        result = self.step(*args, **options)
        for _, after in self.around:
            after()
        return result

    def restore(self) -> None:
        """Take it away again."""
        if vars(self.optimizer).get("step") is not self:
            return  # someone put another one before it, which goes on calling it
        if self.shadowed is None:
            del self.optimizer.step
        else:
            self.optimizer.step = self.shadowed


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


def trained(optimizer: Any, model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Name → parameter of the model's that get gradients: those this optimizer holds, and the others."""
    held = {id(p) for p in parameters_of(optimizer)}
    ours, others = {}, {}
    for name, p in model.named_parameters():
        if p.requires_grad and p.is_floating_point():
            (ours if not held or id(p) in held else others)[name] = p
    return ours, others


def parameters_of(optimizer: Any) -> list[Tensor]:
    """The tensors an optimizer moves."""
    return [p for group in _groups(optimizer) for p in group.get("params", ())]


def sizes(optimizer: Any) -> list[int]:
    """How many tensors each group holds."""
    return [len(group.get("params", ())) for group in _groups(optimizer)]


def _groups(optimizer: Any) -> list[Mapping[str, Any]]:
    return list(getattr(optimizer, "param_groups", None) or getattr(optimizer, "hypers", []))


def _holds_any(optimizer: Any, model: nn.Module) -> bool:
    own = {id(p) for p in model.parameters()}
    return any(id(p) in own for p in parameters_of(optimizer))


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
