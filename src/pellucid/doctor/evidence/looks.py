"""Looks: steps of which the functions that run and the parameters around the step are read too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from pellucid.activations import scaler
from pellucid.doctor.evidence.calls import LossCalls
from pellucid.doctor.evidence.captures import Captures
from pellucid.doctor.evidence.functions import Functions, Seen, described
from pellucid.doctor.evidence.norms import Norms
from pellucid.doctor.evidence.parameters import Parameters, outside
from pellucid.doctor.evidence.record import Op, Parameter
from pellucid.doctor.evidence.units import Units
from pellucid.doctor.listening import Listener

EPOCH_LOOK = 20  # steps after the last look from which on a new epoch is looked at
MAX_CALLS = 8  # of the model in a pass, of pairs and triplets of images, before a look is given up


class Looks:
    """The looks at one model.

    A look begins with a pass and ends with the next one after a step; its functions are seen until `backward`.

    Args:
        owner: Who is told where looking fails.
        model: The model.
        norms: Those of it.
        captures: What is kept for trials.

    Attributes:
        steps: Of the looks.
        is_open: Whether a look has begun and not ended.
        recording: Whether functions are seen.
        stepped: Whether a step came since it began.
        ops: What ran at the first look that saw all of a pass.
        left, left_steps: What `backward` found of earlier gradients, see `Loop`.
        backwards, discarded: Calls of `backward` at looks, and those whose gradients no step used.
    """

    def __init__(self, owner: Listener, model: nn.Module, norms: Norms, captures: Captures):
        self.norms, self.captures = norms, captures
        self.functions = Functions(owner, model, self._before_function, self._after_function)
        self.units, self.calls, self.parameters = Units(type(model).__name__), LossCalls(), Parameters(model)
        self.steps: list[int] = []
        self.is_open = self.recording = self.stepped = False
        self.ops: list[Op] = []
        self.left: list[float] = []
        self.left_steps: list[int] = []
        self.backwards = self.discarded = 0
        self._n_calls, self._whole = 0, 0
        self._ratios: list[float] = []  # of gradients before a `backward` and after it, since the last step
        self._before = self._after = 0.0  # norms of gradients

    def is_due(self, clock: int, *, fresh: bool) -> bool:
        """Whether to look at the step after so many, with which a new epoch begins or not."""
        if self.steps and clock <= self.steps[-1]:
            return False
        return is_looked_at(clock) or (fresh and clock >= self.steps[-1] + EPOCH_LOOK)

    def begin(self, clock: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a look: this module is being called."""
        self.end()
        self.steps.append(clock)
        self.is_open, self.recording, self.stepped, self._n_calls = True, True, False, 0
        if len(self.steps) == self._whole + 1:
            self.ops = []
        self.units.begin()
        self.calls.begin()
        self.parameters.begin()
        self.captures.begin(clock, module, args, kwargs)
        self.functions.start(module)

    def pass_over(self) -> None:
        """The pass that is looked at began before the look did: what it ran is taken from the next look."""
        self._whole = len(self.steps)
        self.captures.pass_over()

    def called_again(self) -> None:
        """Another pass begins before `backward`: one of a pair, or the look was at a pass that nothing followed."""
        if self.recording:
            self._n_calls += 1
            if self._n_calls > MAX_CALLS:
                self._give_up()

    def before_backward(self, loss: Tensor | None, root: Tensor) -> None:
        """End what is recorded until here; read the gradients that are there."""
        if self.recording:
            self.recording = False
            self.functions.pause()
            self.captures.finish(root)
            self.calls.end(loss, self.steps[-1])
        if self.is_open:
            self._before = self.parameters.gradient_norm()
            self.discarded += self._after > 0 and not self._before

    def after_backward(self, roots: Any) -> None:
        """Read those that are there now."""
        if self.is_open:
            self.parameters.after_backward(_scale(roots))
            self._after = self.parameters.gradient_norm()
            self.backwards += 1
            self._ratios.append(self._before / self._after if self._after else 0.0)

    def before_step(self, optimizer: Any) -> None:
        """Read what an optimizer is to do."""
        self.functions.stop()
        self.parameters.compare()
        if self.is_open:
            self.discarded += self._after > 0 and not self.parameters.gradient_norm()
            self._after = 0.0
            self.captures.see(optimizer)
            self.parameters.before_step(optimizer)

    def after_step(self, optimizer: Any) -> None:
        """Read what it did."""
        if self.is_open:
            self.parameters.after_step(optimizer)

    def step_ended(self) -> None:
        """Note that the step is over; the look goes on until the next pass, since other optimizers may step yet."""
        self.stepped = self.is_open
        self._end_ratios()

    def end(self) -> None:
        """End a look."""
        self.functions.stop()
        if self.recording:
            self._give_up()
        elif self.is_open:
            self.parameters.end()
            self._end_ratios()
        self.is_open = self.stepped = False

    def all_parameters(self, optimizers: Sequence[Any]) -> list[Parameter]:
        """The model's, of which these optimizers hold some, and those of modules that it calls and does not have."""
        own = self.parameters.parameters(optimizers, list(self.functions.order))
        return own + outside(self.functions.model, self.functions.strangers.values())

    def _give_up(self) -> None:
        """Forget a look at a pass that `backward` did not follow."""
        self.functions.stop()
        self.captures.abandon()
        self.steps.pop()
        self.parameters.table.pop()
        self.is_open = self.recording = False
        if not self.steps:
            self.ops = []

    def _end_ratios(self) -> None:
        if self._ratios:
            self.left.append(min(self._ratios))
            self.left_steps.append(self.steps[-1])
        self._ratios, self._after = [], 0.0

    def _before_function(self, seen: Seen) -> None:
        self.units.before(seen)
        if seen.name == "batch_norm":
            self.norms.before(seen)

    def _after_function(self, seen: Seen) -> None:
        self.units.after(seen, self.steps[-1])
        self.calls.after(seen, self.steps[-1])
        if len(self.steps) <= self._whole + 1:
            op = described(seen)
            if op is not None:
                self.ops.append(op)

    @property
    def discarded_share(self) -> float:
        """Share of calls of `backward` whose gradients no step used."""
        return self.discarded / self.backwards if self.backwards else np.nan


def is_looked_at(n: int) -> bool:
    """Whether it is one of 0, 1, 2, 5, 10, 20, 50, …"""
    while n >= 10 and n % 10 == 0:
        n //= 10
    return n in (0, 1, 2, 5)


def is_sampled(n: int) -> bool:
    """Whether it is 0 or belongs to a quarter of all numbers, spread without order.

    So validation is looked at: its first batches, where it is not shuffled, are of one class.
    """
    return n == 0 or (n * 2654435761) % 2**32 < 2**30  # Knuth's multiplicative hash


def _scale(roots: Any) -> float:
    """What a GradScaler multiplied the loss with."""
    root = roots if isinstance(roots, Tensor) else next(iter(roots), None)
    if not isinstance(root, Tensor) or root.numel() != 1:
        return 1.0
    loss = scaler.unscaled(root)
    return 1.0 if loss is root or not float(loss) else float(root) / float(loss)
