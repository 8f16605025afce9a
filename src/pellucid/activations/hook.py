"""Hooks on modules that go away by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor, nn

HookFunc = Callable[[nn.Module, Any, Any], Any]


def has_params(module: nn.Module) -> bool:
    """Whether a module or one inside it has parameters."""
    return next(module.parameters(), None) is not None


class Hook:
    """Call a function at each forward (or backward) pass of a module and keep its last result; a context manager.

    The result is kept as a copy, which an in-place operation of a later layer does not change. With `detach=False` it
    is kept as it is, to ask autograd about it, and such an operation changes it.

    Args:
        module: Where.
        hook_func: (module, input, output) → what to store; of gradients, which are tuples, if not `is_forward`.
        is_forward: At the forward pass, else at the backward pass.
        detach: Hand over detached tensors.
        cpu: Hand over tensors moved to the CPU, if they are detached.

    Attributes:
        stored: Last result, None before the first.
        removed: Whether it is gone.
    """

    def __init__(
        self,
        module: nn.Module,
        hook_func: HookFunc,
        is_forward: bool = True,
        detach: bool = True,
        cpu: bool = False,
    ):
        self.hook_func, self.detach, self.cpu = hook_func, detach, cpu
        self._kind = type(module).__name__
        self.stored: Any = None
        self.removed = False
        register = module.register_forward_hook if is_forward else module.register_full_backward_hook
        self.handle = register(self._call)

    def _call(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self.detach:
            self.stored = self.hook_func(module, inputs, output)
            return
        inputs, output = _map(self._detached, inputs), _map(self._detached, output)
        self.stored = _map(Tensor.clone, self.hook_func(module, inputs, output))

    def _detached(self, x: Tensor) -> Tensor:
        return x.detach().cpu() if self.cpu else x.detach()

    def __repr__(self) -> str:
        shape = f" {'×'.join(map(str, self.stored.shape))}" if isinstance(self.stored, Tensor) else ""
        return f"Hook on {self._kind}{', removed' * self.removed}; stored: {type(self.stored).__name__}{shape}"

    def remove(self) -> None:
        """Take the hook off; a second time does nothing."""
        self.handle.remove()
        self.removed = True

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()


class Hooks:
    """A `Hook` on each of several modules, indexed and iterated as a list; a context manager."""

    def __init__(
        self,
        modules: Iterable[nn.Module],
        hook_func: HookFunc,
        is_forward: bool = True,
        detach: bool = True,
        cpu: bool = False,
    ):
        self.hooks = [Hook(module, hook_func, is_forward, detach, cpu) for module in modules]

    @property
    def stored(self) -> list[Any]:
        """Last result of each."""
        return [hook.stored for hook in self.hooks]

    def remove(self) -> None:
        """Take all hooks off."""
        for hook in self.hooks:
            hook.remove()

    def __repr__(self) -> str:
        return f"Hooks {self.hooks}"

    def __getitem__(self, i: int) -> Hook:
        return self.hooks[i]

    def __len__(self) -> int:
        return len(self.hooks)

    def __iter__(self) -> Iterator[Hook]:
        return iter(self.hooks)

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()


def hook_output(module: nn.Module, detach: bool = True, cpu: bool = False, grad: bool = False) -> Hook:
    """A hook that stores the output of a module, or with `grad` the gradients of its outputs, a tuple."""
    return Hook(module, _output, not grad, detach, cpu)


def hook_outputs(modules: Iterable[nn.Module], detach: bool = True, cpu: bool = False, grad: bool = False) -> Hooks:
    """Hooks that store the outputs of modules, or with `grad` the gradients of their outputs, a tuple each."""
    return Hooks(modules, _output, not grad, detach, cpu)


def _output(module: nn.Module, inputs: Any, output: Any) -> Any:
    return output


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to the tensors in an output of any usual kind."""
    if isinstance(value, Tensor):
        return function(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _map(function, getattr(value, f.name)) for f in fields(value) if f.init})
    if isinstance(value, Mapping):
        return {k: _map(function, v) for k, v in value.items()}
    if not isinstance(value, list | tuple):
        return value
    found = [_map(function, v) for v in value]
    if hasattr(value, "_fields"):
        return type(value)(*found)  # a named tuple
    return type(value)(found)
