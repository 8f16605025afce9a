"""What is recorded per step beside the layers: gradients, weights and their moves, losses and hyper-parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.activations.columns import Means
from pellucid.activations.parameters import AFTER, BEFORE, Parameters
from pellucid.activations.steps import sizes, trained
from pellucid.optim.groups import groups_of
from pellucid.optim.hypers import Hyper, HyperRows, numbers


class Series:
    """Means over the steps of each column.

    Args:
        model: Whose gradients and weights are read.
        with_grads: Read them.
        with_hypers: Record hyper-parameters, which a learner's Recorder has already.

    Attributes:
        params: Name → parameter whose gradients are read.
        saw_gradient: Whether any of them had one at a step.
        moving: Whether the weights were read before a step and not yet after it.
    """

    def __init__(self, model: nn.Module, with_grads: bool, with_hypers: bool = True):
        self.model, self.with_grads, self.with_hypers = model, with_grads, with_hypers
        self.params: dict[str, nn.Parameter] = {}
        self.saw_gradient = False
        self._hypers = HyperRows()
        self._losses, self._rates = Means(), Means(0)
        self._before, self._after = Means(len(BEFORE), 0), Means(0)
        self.tables = [self._losses, self._rates, self._before, self._after]
        self._parameters, self._sizes, self._n_hypers = Parameters([]), [0], 0
        self.moving, self._steps = False, 0
        self._left_out: dict[str, nn.Parameter] = {}
        self._idle: dict[str, tuple[nn.Parameter, Tensor, int]] = {}  # sum of its values, and at which step
        self._pending: list[tuple[Means, Any, int, Tensor]] = []

    def adopt(self, optimizer: Any) -> None:
        """Record this optimizer from now on, with whatever groups and parameters it has got meanwhile."""
        self.flush()
        self._n_hypers = len(self._hypers.of(self._hypers_of(optimizer)))
        if self.with_grads:
            self._sizes = sizes(optimizer)
            held, self._left_out = trained(optimizer, self.model)
            self.params |= held
        self._parameters = Parameters(list(self.params.values()))
        self._rates.widen(len(self._hypers))
        for table in (self._before, self._after):
            table.widen(len(self.params))

    @property
    def has_loss(self) -> bool:
        """Whether any loss was recorded."""
        return bool(self._losses.counts.any())

    def loss(self, column: int, value: Tensor) -> None:
        """Take a loss; several in one step are averaged."""
        self._put(self._losses, ..., column, value.detach().reshape(()))

    def before_step(self, column: int, optimizer: Any) -> None:
        """Read gradients, weights and hyper-parameters as the optimizer finds them."""
        found = self._hypers_of(optimizer)
        if len(found) != self._n_hypers or (self.with_grads and self._sizes != sizes(optimizer)):
            self.adopt(optimizer)  # `add_param_group`, or a schedule that keeps a number of its own in the groups
        rows, values = [], []
        for row, hyper in enumerate(self._hypers):
            number = found.get(hyper, np.nan)
            if isinstance(number, Tensor):
                self._put(self._rates, row, column, number.detach().reshape(()))
            else:
                rows.append(row)
                values.append(number)
        self._rates.add(rows, column, values)
        self._steps += 1
        for name, p in self._left_out.items():
            if p.grad is not None and name not in self._idle:
                self._idle[name] = p, p.detach().sum(dtype=torch.float64), self._steps
        if self.params:
            self.saw_gradient = self.saw_gradient or any(p.grad is not None for p in self.params.values())
            self._put(self._before, ..., column, self._parameters.before())
            self.moving = True

    def after_step(self, column: int) -> None:
        """Read how far the weights moved since `before_step`."""
        self.moving = False
        self._put(self._after, ..., column, self._parameters.after())

    def idle(self) -> list[str]:
        """Names of parameters that got gradients, are not in the optimizer, and no other one moved them."""
        return [
            name
            for name, (p, total, step) in self._idle.items()
            if step < self._steps and torch.equal(p.detach().sum(dtype=torch.float64), total)
        ]

    def flush(self) -> None:
        """Move what waits on a device into the columns, in one transfer."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = torch.cat([tensor.reshape(-1).double() for *_, tensor in pending]).cpu().numpy()
        start = 0
        for table, rows, column, tensor in pending:
            table.add(rows, column, values[start : start + tensor.numel()].reshape(tensor.shape))
            start += tensor.numel()

    def state_dict(self) -> dict[str, Any]:
        """The tables, to be kept in a file; nothing may wait."""
        return {
            "sums": [table.sums for table in self.tables],
            "counts": [table.counts for table in self.tables],
            "hypers": [list(each) for each in self._hypers],
            "steps": self._steps,
            "saw_gradient": self.saw_gradient,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where others of the same parameters were."""
        for table, sums, counts in zip(self.tables, state["sums"], state["counts"], strict=True):
            table.sums, table.counts = sums, counts
        self._hypers = HyperRows()
        self._hypers.of((name, group) for name, group in state["hypers"])
        self._steps, self.saw_gradient = state["steps"], state["saw_gradient"]

    def arrays(self, n: int) -> dict[str, np.ndarray]:
        """The first `n` columns under their names in a history, but for the steps at which their losses end."""
        found: dict[str, np.ndarray] = {}
        if self.params:
            found |= zip((*BEFORE, AFTER), (*self._before.values(n), self._after.values(n)), strict=True)
        if self.has_loss:
            found["loss"] = self._losses.values(n)
        rates = self._rates.values(n)
        return found | {f"hyper.{name}": rates[rows].T for name, rows in self._hypers.by_name().items()}

    def _hypers_of(self, optimizer: Any) -> dict[Hyper, float | Tensor]:
        groups = groups_of(optimizer) if self.with_hypers else []
        return {(name, i): value for i, group in enumerate(groups) for name, value in numbers(group).items()}

    def _put(self, table: Means, rows: Any, column: int, values: np.ndarray | Tensor) -> None:
        if isinstance(values, Tensor):
            self._pending.append((table, rows, column, values))
        else:
            table.add(rows, column, values)
