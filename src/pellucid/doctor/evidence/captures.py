"""What is kept of a training for trials: initial values, a few passes that can be made again, recipes of optimizers."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pellucid.doctor.trials.optimizers import Recipe
from pellucid.doctor.trials.replay import CapturedBatch
from pellucid.doctor.trials.tape import Tape

MAX_KEPT = 2**30  # bytes of a model whose values are kept
FIRST, LAST = 4, 4  # passes that are kept


class Captures:
    """Keeps what trials of one model need.

    Attributes:
        initial: Values of parameters and buffers before training, by name, on the CPU; None for a large model.
        final: Those at its end, where somebody may put others in their place afterwards; None where nobody said so.
        train: Passes that `backward` followed: the first looks, and the last ones.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.initial: dict[str, Tensor] | None = None
        self.final: dict[str, Tensor] | None = None
        self.train: list[CapturedBatch] = []
        self._recipes: dict[int, Recipe] = {}
        self._tape = Tape(model)
        self._step, self._known = 0, False
        self.keep_initial()

    def keep_initial(self) -> None:
        """Copy the values, once, when all of them are there."""
        if not self._known and not any(is_lazy(x) for x in self.model.parameters()):
            self._known, self.initial = True, self._values()

    def keep_final(self) -> None:
        """Copy the values as they are now, at the end of the training."""
        self.final = self._values()

    def _values(self) -> dict[str, Tensor] | None:
        named = list(chain(self.model.named_parameters(), self.model.named_buffers()))
        if any(is_lazy(x) for _, x in named) or sum(x.numel() * x.element_size() for _, x in named) > MAX_KEPT:
            return None
        return {name: x.detach().cpu().clone() for name, x in named}

    def begin(self, step: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin to record a pass."""
        self._step = step
        with torch.enable_grad():  # listeners are told without
            self._tape.begin(args, kwargs, module)

    def pass_over(self) -> None:
        """Record nothing of this pass, the first one, of which a part is missing."""
        self._tape.abandon()

    def finish(self, loss: Tensor) -> None:
        """End it with the tensor that `backward` is called on."""
        if not self._tape.recording:
            return
        batch = self._tape.finish(loss)
        batch.step = self._step
        self.train.append(batch)
        if len(self.train) > FIRST + LAST:
            del self.train[FIRST]

    def abandon(self) -> None:
        """Forget it."""
        self._tape.abandon()

    def see(self, optimizer: Any) -> None:
        """Take note of an optimizer before a step."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            return
        if id(optimizer) not in self._recipes:
            self._recipes[id(optimizer)] = Recipe.of(optimizer, self.model)
        self._recipes[id(optimizer)].see(optimizer, self.model)

    @property
    def recipes(self) -> list[Recipe]:
        """Of the optimizers that stepped."""
        return list(self._recipes.values())
