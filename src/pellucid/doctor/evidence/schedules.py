"""Optimizers and their settings step by step, and the schedules that change these."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from pellucid.doctor.evidence import record
from pellucid.doctor.evidence.streams import Numbers
from pellucid.optim.groups import groups_of, parameters_of

_LENGTHS = "total_steps", "T_max", "total_iters"
_CHANGING = "last_epoch", "best", "cooldown_counter", "num_bad_epochs", "mode_worse", "T_cur"


@dataclass
class _Optimizer:
    optimizer: Any
    steps: int = 0
    with_grad: set[int] = field(default_factory=set)
    hypers: dict[str, Numbers] = field(default_factory=dict)


@dataclass
class _Schedule:
    schedule: Any
    stepped_at: Numbers = field(default_factory=Numbers)
    rates: Numbers = field(default_factory=Numbers)
    raised: str = ""


class Optimizers:
    """The optimizers that hold parameters of a model, those that step first."""

    def __init__(self) -> None:
        self._rows: dict[int, _Optimizer] = {}

    def holds(self, optimizer: Any, owned: Collection[int]) -> bool:
        """Whether it is known, or, since it holds any of these parameters, is from now on."""
        if id(optimizer) not in self._rows:
            if not any(id(p) in owned for p in parameters_of(optimizer)):
                return False
            self.adopt(optimizer)
        return True

    def adopt(self, optimizer: Any) -> None:
        """Know it from now on."""
        self._rows[id(optimizer)] = _Optimizer(optimizer)

    @property
    def known(self) -> list[Any]:
        """Them."""
        return [row.optimizer for row in self._rows.values()]

    def steps_of(self, optimizer: Any) -> int:
        """How often it stepped."""
        row = self._rows.get(id(optimizer))
        return 0 if row is None else row.steps

    def look(self, optimizer: Any) -> None:
        """See which of its tensors have gradients before a step."""
        with_grad = self._rows[id(optimizer)].with_grad
        with_grad.update(id(p) for p in parameters_of(optimizer) if p.grad is not None)

    def stepped(self, optimizer: Any) -> None:
        """Take a step, and the settings of the first group that it was made with."""
        row = self._rows[id(optimizer)]
        row.steps += 1
        for name, value in _numbers(groups_of(optimizer)[0]).items():
            row.hypers.setdefault(name, Numbers()).put(value)

    def optimizers(self, owned: Collection[int]) -> list[record.Optimizer]:
        """Everything so far."""
        return [
            record.Optimizer(
                type(row.optimizer).__name__,
                row.steps,
                sum(id(p) not in owned for p in parameters_of(row.optimizer)),
                len(row.with_grad - set(owned)),
                {name: values.array() for name, values in row.hypers.items()},
            )
            for row in self._rows.values()
        ]


class Schedules:
    """The schedules of these optimizers."""

    def __init__(self) -> None:
        self._rows: dict[int, _Schedule] = {}

    def stepped(self, schedule: Any, at: int, error: str) -> None:
        """Take a step of a schedule when its optimizer had stepped so often."""
        row = self._rows.setdefault(id(schedule), _Schedule(schedule))
        if error:
            row.raised = error
            return
        row.stepped_at.put(at)
        row.rates.put(groups_of(schedule.optimizer)[0]["lr"])

    def schedulers(self) -> list[record.Scheduler]:
        """Everything so far."""
        return [
            record.Scheduler(
                type(row.schedule).__name__,
                int(next((getattr(row.schedule, name) for name in _LENGTHS if hasattr(row.schedule, name)), 0)),
                _settings(row.schedule),
                row.stepped_at.array().astype(np.int64),
                row.rates.array(),
                row.raised,
            )
            for row in self._rows.values()
        ]


def alive() -> list[Any]:
    """All optimizers of torch's that there are; takes some hundredths of a second."""
    from torch.optim import Optimizer

    return [x for x in gc.get_objects() if issubclass(type(x), Optimizer) and getattr(x, "param_groups", None)]


def _settings(schedule: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in vars(schedule).items():
        listed = sorted(value.elements()) if isinstance(value, Counter) else value  # milestones
        several = isinstance(listed, list | tuple) and all(type(each) in (int, float) for each in listed)
        if name[0] != "_" and name not in _CHANGING and (several or type(listed) in (int, float)):
            found[name] = list(listed) if several else listed  # pyright: ignore[reportArgumentType]
    return found


def _numbers(group: Mapping[str, Any]) -> dict[str, float | Tensor]:
    found: dict[str, float | Tensor] = {}
    for name, value in group.items():
        if type(value) in (int, float) or (isinstance(value, Tensor) and value.numel() == 1):
            found[name] = value.detach().reshape(()) if isinstance(value, Tensor) else value
        elif name == "betas":
            found["beta1"], found["beta2"] = value
    return found
