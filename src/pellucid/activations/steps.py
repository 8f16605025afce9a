"""The steps of an optimizer, whoever made it: when they happen, and on which parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pellucid.optim.groups import groups_of, parameters_of

# The code of the wrapper that torch puts around the `step` of every class of optimizer, by which its frames are known.
_STEP = torch.optim.Optimizer.profile_hook_step(lambda _: None).__code__


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
        begin, end = _hooks(lambda _: True, lambda _: before(), lambda _: after())
        with _removing([optimizer.register_step_pre_hook(begin), optimizer.register_step_post_hook(end)]):
            yield
        return
    # In the object and not in its class, so that other optimizers of the class stay as they are; one stand-in for all
    # watches, so that they may close in any order.
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
        result = self.step(*args, **options)  # a step that raises has not ended: it is not counted
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

    # torch's hooks on all optimizers: the trainer makes its own later, inside the block.
    with all_step_hooks(is_it, lambda _: before(), lambda _: after()):
        yield


@contextmanager
def all_step_hooks(
    wanted: Callable[[Any], bool], before: Callable[[Any], None], after: Callable[[Any], None]
) -> Iterator[None]:
    """As `step_hooks`, for every torch optimizer that is wanted; the functions are given it."""
    begin, end = _hooks(wanted, before, after)
    with _removing([register_optimizer_step_pre_hook(begin), register_optimizer_step_post_hook(end)]):
        yield


def trained(optimizer: Any, model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Name → parameter of the model's that get gradients: those this optimizer holds, and the others."""
    held = {id(p) for p in parameters_of(optimizer)}
    ours, others = {}, {}
    for name, p in model.named_parameters():
        if p.requires_grad and p.is_floating_point():
            (ours if not held or id(p) in held else others)[name] = p
    return ours, others


def sizes(optimizer: Any) -> list[int]:
    """How many tensors each group holds."""
    return [len(group.get("params", ())) for group in groups_of(optimizer)]


def _holds_any(optimizer: Any, model: nn.Module) -> bool:
    own = {id(p) for p in model.parameters()}
    return any(id(p) in own for p in parameters_of(optimizer))


def _hooks(
    is_it: Callable[[Any], bool], before: Callable[[Any], None], after: Callable[[Any], None]
) -> tuple[Callable[..., Any], Callable[..., None]]:
    def begin(optimizer: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not is_it(optimizer) or _is_inner(optimizer):
            return None
        # torch hands a hook the arguments of `step` with the optimizer itself first, and takes back both or None.
        closure = args[1] if len(args) > 1 else options.get("closure")
        if closure is None:
            before(optimizer)
            return None
        evaluated = _then(closure, lambda: before(optimizer))
        return ((args[0], evaluated, *args[2:]), options) if len(args) > 1 else (args, options | {"closure": evaluated})

    def end(optimizer: Any, *_: Any) -> None:
        if is_it(optimizer) and not _is_inner(optimizer):
            after(optimizer)

    return begin, end


def _then(closure: Callable[[], Any], before: Callable[[], None]) -> Callable[[], Any]:
    # LBFGS evaluates its closure up to 25 times a step, all but the first at weights that have moved already.
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
    # Both steps are wrapped and call the hooks, and torch says nothing of which it is: only the stack tells them apart.
    frame: FrameType | None = sys._getframe(2)  # past this function and the hook
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
