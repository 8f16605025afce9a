"""How to make an optimizer of a run anew, for a copy of its model."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Group:
    """Of an optimizer: names of its parameters in the model, and its settings. `rate` is the highest it had so far."""

    names: list[str]
    settings: dict[str, Any]
    rate: float


@dataclass
class Recipe:
    """An optimizer as it was when the run began, and the highest rates it has had since.

    Schedules begin low and end low, so that the rate of the moment says little of how a run trains.

    Attributes:
        kind: Its class.
        groups: Those with parameters of the model.
        defaults: What its constructor was given, as far as the constructor has a name for it.
        state: Name of a parameter → copies of its state (moments), as `see` last found it.
    """

    kind: Callable[..., torch.optim.Optimizer]
    groups: list[Group]
    defaults: dict[str, Any]
    state: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, model: nn.Module) -> Recipe:
        """Read it off; `groups` is empty where none of its tensors is the model's."""
        names = {id(p): name for name, p in model.named_parameters()}
        groups = []
        for group in optimizer.param_groups:
            settings = {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
            held = [names[id(p)] for p in group["params"] if id(p) in names]
            if held:
                groups.append(Group(held, settings, float(settings.get("lr", 0.0))))
        kind = type(optimizer)
        taken = inspect.signature(kind).parameters
        return cls(kind, groups, {name: value for name, value in optimizer.defaults.items() if name in taken})

    def see(self, optimizer: torch.optim.Optimizer, model: nn.Module, *, with_state: bool = False) -> None:
        """Take note of its rates now, and of its state if that is wanted."""
        parameters = dict(model.named_parameters())
        for group in self.groups:
            held = id(parameters[group.names[0]]) if group.names[0] in parameters else None
            for live in optimizer.param_groups:
                if any(id(p) == held for p in live["params"]):
                    group.rate = max(group.rate, float(live.get("lr", 0.0)))
        if with_state:
            own = ((name, optimizer.state.get(p)) for name, p in parameters.items())
            self.state = {name: _cloned(state) for name, state in own if state}

    def make(
        self,
        model: nn.Module,
        *,
        rate: float = 1.0,
        with_state: bool = False,
        more: Collection[str] = (),
        **settings: Any,
    ) -> torch.optim.Optimizer:
        """The same optimizer for a copy of the model.

        Args:
            model: The copy.
            rate: Factor on the learning rates.
            with_state: Whether it goes on with the moments it had, rather than beginning with none.
            more: Names of parameters that it holds besides, in its first group.
            settings: In place of those of every group that has them, such as `weight_decay=0.0`.
        """
        parameters = dict(model.named_parameters())
        groups: list[dict[str, Any]] = []
        for group in self.groups:
            wanted = copy.deepcopy(group.settings) | {k: v for k, v in settings.items() if k in group.settings}
            own = [parameters[name] for name in (*group.names, *(() if groups else more))]
            groups.append(wanted | {"params": own, "lr": group.rate * rate})
        made = self.kind(groups, **self.defaults)
        if with_state:
            held = {name for group in self.groups for name in group.names}
            made.state |= {parameters[name]: _cloned(state) for name, state in self.state.items() if name in held}
        return made


def sane(model: nn.Module) -> torch.optim.Optimizer:
    """Adam at its usual rate of 0.001 on all parameters that have gradients: what most networks can be trained with."""
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def _cloned(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v.detach().clone() if isinstance(v, Tensor) else copy.deepcopy(v) for name, v in state.items()}
