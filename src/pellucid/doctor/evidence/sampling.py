"""Gathers the evidence of a loop of which only some passes are looked at, and which says itself how the others went."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor, nn

from pellucid.doctor.evidence import failures
from pellucid.doctor.evidence.gather import Gathering
from pellucid.doctor.evidence.looks import Looks
from pellucid.doctor.evidence.record import Evidence
from pellucid.doctor.evidence.resources import Resources
from pellucid.doctor.listening import forget, listen, passing_over

WAITING = 256  # steps


class Sampled(Gathering):
    """What is gathered of a model whose loop is known: a pass, a backward and a step for each batch.

    Args:
        model: The model.
        optimizer: The only one that steps it.
        watch: That of its layers.
        chosen: Whether `open` says what is looked at closely; otherwise that follows the count of steps, as elsewhere.

    Attributes:
        is_open: Whether the passes that come are looked at.
    """

    def __init__(self, model: nn.Module, optimizer: Any, watch: Any = None, *, chosen: bool):
        super().__init__(model, watch=watch)
        self._chosen = ChosenLooks(self, self.model, self._norms, self.captures) if chosen else None
        if self._chosen is not None:
            self.looks, self._resources = self._chosen, Times()
        self._optimizer, self.is_open, self._rate = optimizer, False, 0.0
        self._unseen: list[tuple[Tensor | float, float, float]] = []

    def open(self, *, look: bool) -> None:
        """Listen from now on; `look`: whether the next pass is looked at closely."""
        if self._chosen is not None:
            self._chosen.wanted = look
        if not self.is_open:
            self._settle_unseen()
            self.is_open = True
            listen(self)

    def close(self) -> None:
        """Listen no more; torch is as it was."""
        if not self.is_open:
            return
        self.is_open = False
        forget(self)
        with passing_over():
            self.end()
            self.looks.parameters.forget()

    def phase_begins(self) -> None:
        """Note that batches are asked for from now on; what went before was no waiting for data."""
        if self._chosen is not None:
            self._settle_unseen()
            self._resources.begin()

    def stepped_unseen(self, loss: Tensor, called: float, ended: float) -> None:
        """Count a step that was not looked at, with its loss and the times of its pass and its end."""
        self._unseen.append((loss.detach() if loss.numel() == 1 else np.nan, called, ended))
        rate = self._optimizer.param_groups[-1]["lr"]
        if rate > 1.1 * self._rate:  # trials train at the highest one
            self._rate = rate
            self.captures.see(self._optimizer)
        if len(self._unseen) >= WAITING:
            self._settle_unseen()

    def skip(self, losses: Iterable[float]) -> None:
        """Count steps of which nothing but the losses is known."""
        for loss in losses:
            self.steps, self.backwards, self.passes = self.steps + 1, self.backwards + 1, self.passes + 1
            self._per_step.put(1)
            self._losses.put(loss)

    def _settle_unseen(self) -> None:
        """Put the numbers of several steps in place: doing so after each of them takes several times as long."""
        unseen, self._unseen = self._unseen, []
        n = len(unseen)
        self.steps, self.backwards, self.passes = self.steps + n, self.backwards + n, self.passes + n
        for loss, called, ended in unseen:
            self._per_step.put(1)
            self._losses.put(loss)
            self._resources.took(called, ended)

    def broken(self, loss: Tensor, given: Any) -> None:
        """Take a loss that is not finite, with its graph, and what the model was given."""
        self._settle_unseen()
        x = given if isinstance(given, Tensor) else None
        seen = None if self.watch is None else self.watch.history
        ops = self.looks.ops if len(self.looks.steps) == 1 and self.looks.recording else []
        with passing_over():
            self.failure = failures.of_loss(self.steps, loss, x, self.model, ops, seen)
        self._losses.put(loss.detach())

    def evidence(self) -> Evidence:
        """Everything gathered so far."""
        self._settle_unseen()
        return super().evidence()

    def ended(self) -> None:
        """Keep the weights as they are: after the training somebody may put back earlier ones."""
        self.captures.keep_final()

    def _find_optimizers(self) -> None:
        self.captures.see(self._optimizer)


class ChosenLooks(Looks):
    """Looks where somebody else says so.

    Attributes:
        wanted: Whether the next pass is to be looked at.
    """

    wanted = False

    def is_due(self, clock: int, *, fresh: bool) -> bool:
        """See `wanted`."""
        return self.wanted and not (self.steps and clock <= self.steps[-1])

    def begin(self, clock: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin it, and wait for the next word."""
        self.wanted = False
        super().begin(clock, module, args, kwargs)


class Times(Resources):
    """The times of a loop; its memory is not counted, for that takes a tenth of a second."""

    def look(self, step: int, model: nn.Module) -> None:
        """Count nothing."""
