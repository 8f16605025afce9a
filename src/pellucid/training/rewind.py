"""Put a model back as it was: after trying something on it, or after training went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pellucid.inspection.looking import kept_modes
from pellucid.optim.optimizers import align_state
from pellucid.seed import kept_rng
from pellucid.training.checkpoint import on_device


class Snapshot:
    """Parameters, buffers and an optimizer's moments as they are now, copied to the CPU's memory.

    Args:
        modules: Modules whose parameters and buffers are kept.
        params: Further parameters, that the modules are not known to hold.
        opt: The optimizer whose moments are kept; None for none. Its hyper-parameters are not kept.
    """

    def __init__(self, modules: Sequence[nn.Module], params: Iterable[Tensor] = (), opt: Optimizer | None = None):
        own = [p for module in modules for p in module.parameters()]
        self._params = [(p, _copied(p)) for p in {id(p): p for p in [*own, *params]}.values()]
        homes = [(f"{i}.{path}", m._buffers) for i, each in enumerate(modules) for path, m in each.named_modules()]
        self._buffers = {
            f"{where}.{name}": (home, name, b, _copied(b))
            for where, home in homes
            for name, b in home.items()
            if b is not None
        }
        self.opt = opt
        self._moments = [] if opt is None else [(p, _copied(state)) for p, state in opt.state.items()]

    @classmethod
    def of_learner(cls, learn: Any) -> Snapshot:
        """Model, loss, optimizer's moments and all that it trains, of a learner whose fit has begun."""
        held = [p for group in learn.opt.param_groups for p in group["params"]]
        return cls([m for m in (learn.model, learn.loss_func) if isinstance(m, nn.Module)], held, learn.opt)

    def state_dict(self) -> dict[str, Any]:
        """What it holds, to be kept in a file."""
        return {
            "params": [copied() for _, copied in self._params],
            "buffers": {where: copied() for where, (*_, copied) in self._buffers.items()},
            "moments": {str(i): copied() for i, p, copied in self._numbered_moments()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold what another one of the same model and optimizer held."""
        self._params = [(p, _copied(_like(p, v))) for (p, _), v in zip(self._params, state["params"], strict=True)]
        for where, (home, name, b, _) in self._buffers.items():
            if where in state["buffers"]:  # a loss that a callback puts in place while training may have others
                self._buffers[where] = home, name, b, _copied(_like(b, state["buffers"][where]))
        if self.opt is not None:
            held = [(p, group) for group in self.opt.param_groups for p in group["params"]]
            self._moments = []
            for i, moments in state["moments"].items():
                p, group = held[int(i)]
                self._moments.append((p, _copied({k: on_device(v, p, group) for k, v in moments.items()})))

    def _numbered_moments(self) -> list[tuple[int, Tensor, Callable[[], Any]]]:
        held = [p for group in (self.opt.param_groups if self.opt is not None else ()) for p in group["params"]]
        numbers = {id(p): i for i, p in enumerate(held)}
        return [(numbers[id(p)], p, copied) for p, copied in self._moments if id(p) in numbers]

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back bit for bit, in the memory that it had."""
        for p, copied in self._params:
            p.data = _in_place(p.data, copied())
        for home, name, buffer, copied in self._buffers.values():
            home[name] = _in_place(buffer, copied())
        if self.opt is not None:
            self.opt.state.clear()  # also what came since
            self.opt.state.update({p: copied() for p, copied in self._moments})
            align_state(self.opt)


@contextmanager
def rewound(modules: Sequence[nn.Module], params: Iterable[Tensor] = (), loader: Any = None) -> Iterator[None]:
    """Whatever happens inside the block, put everything back bit for bit when it ends, also when it fails.

    That is: parameters, buffers, gradients, each module's training flag, all global random numbers, and the random
    generators of a torch loader.

    Args:
        modules: Their parameters and buffers are put back.
        params: Further parameters, that the modules are not known to hold.
        loader: A loader whose own generators are put back, so that it goes on with the same order.
    """
    held = list({id(p): p for p in [*(p for module in modules for p in module.parameters()), *params]}.values())
    before = Snapshot(modules, held)
    gradients = [(p, p.grad) for p in held]
    for p in held:
        p.grad = None  # a backward pass would add to the tensor that is to be put back
    try:
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(kept_modes(module))
            stack.enter_context(kept_rng(loader))
            yield
    finally:
        before.restore()
        for p, gradient in gradients:
            p.grad = gradient


def _copied(value: Any) -> Callable[[], Any]:
    """Copy a tensor, also inside lists and dictionaries, and return what makes it anew on the device it came from."""
    if isinstance(value, Tensor):
        kept, device = value.detach().to("cpu", copy=True), value.device
        return lambda: kept.to(device, copy=True)
    if isinstance(value, dict):
        made = {name: _copied(v) for name, v in value.items()}
        return lambda: {name: copied() for name, copied in made.items()}
    if isinstance(value, list | tuple):
        each = [_copied(v) for v in value]
        return lambda: type(value)(copied() for copied in each)
    return lambda: value


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    return values.to(tensor.device)


def _in_place(tensor: Tensor, values: Tensor) -> Tensor:
    same = (tensor.shape, tensor.dtype, tensor.device) == (values.shape, values.dtype, values.device)
    return tensor.copy_(values) if same else values
