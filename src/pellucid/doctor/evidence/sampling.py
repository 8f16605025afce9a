"""Gathers the evidence of a loop of which only some passes are looked at, and which says itself how the others went."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pellucid.doctor.evidence import failures
from pellucid.doctor.evidence.gather import Gathering
from pellucid.doctor.evidence.looks import Looks
from pellucid.doctor.evidence.resources import Resources
from pellucid.doctor.listening import forget, listen, passing_over


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

    def open(self, *, look: bool) -> None:
        """Listen from now on; `look`: whether the next pass is looked at closely."""
        if self._chosen is not None:
            self._chosen.wanted = look
        if not self.is_open:
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
            self._resources.begin()

    def called_unseen(self) -> None:
        """Note that a batch is there that is not looked at."""
        self._resources.called()

    def stepped_unseen(self, loss: Tensor) -> None:
        """Count a step that was not looked at."""
        self.steps, self.backwards, self.passes = self.steps + 1, self.backwards + 1, self.passes + 1
        self._per_step.put(1)
        self._losses.put(loss.detach().reshape(-1)[0])
        self._resources.stepped()
        rate = max(float(group["lr"]) for group in self._optimizer.param_groups)
        if rate > 1.05 * self._rate:  # trials train at the highest one
            self._rate = rate
            self.captures.see(self._optimizer)

    def broken(self, loss: Tensor, given: Any) -> None:
        """Take a loss that is not finite, with its graph, and what the model was given."""
        x = given if isinstance(given, Tensor) else None
        seen = None if self.watch is None else self.watch.history
        ops = self.looks.ops if len(self.looks.steps) == 1 and self.looks.recording else []
        with passing_over():
            self.failure = failures.of_loss(self.steps, loss, x, self.model, ops, seen)
        self._losses.put(loss.detach().reshape(-1)[0])

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
