"""Run a model and be told of every call of its innermost modules; the hooks are gone when the block ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from pellucid.inspection.looking import looking

After = Callable[[str, nn.Module, Any, Any], Any]  # name, module, inputs, output → another output, or None to keep it
Before = Callable[[nn.Module, Any], None]  # module, inputs: as they are before a module that works in place


@contextmanager
def each_call(model: nn.Module, after: After, before: Before | None = None) -> Iterator[None]:
    """Report the calls of innermost modules while the block runs the model, in evaluation mode and left as it was.

    Args:
        model: Any module.
        after: Called with the module's name, the module, its inputs and its output; what it returns replaces that.
        before: Called with the module and its inputs.
    """
    hooks: list[Any] = []
    try:
        for name, module in model.named_modules():
            if not list(module.children()):
                hooks.append(module.register_forward_hook(partial(after, name)))
                if before is not None:
                    hooks.append(module.register_forward_pre_hook(before))
        with looking(model):
            yield
    finally:
        for hook in hooks:
            hook.remove()
