"""Which of the values that `backward` is called on are the loss of a model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pellucid.activations import graph
from pellucid.activations.recording import Recording
from pellucid.optim.groups import parameters_of


class Losses:
    """Takes the losses of one model: those that reach its parameters, or a tensor of its optimizer."""

    def __init__(self, recording: Recording):
        self.recording = recording
        self._owned = set(map(id, self.leaves()))

    def leaves(self) -> list[Tensor]:
        """What gets gradients from a loss of this model: its parameters, and the tensors of its optimizer."""
        return [*self.recording.model.parameters(), *parameters_of(self.recording.optimizer)]

    def owns(self, tensors: Tensor | Sequence[Tensor], *, leaves: bool = False) -> bool:
        """Whether a loss reaches the leaves, or whether one of the tensors is one of them."""
        if leaves:
            return not self._owned.isdisjoint(map(id, [tensors] if isinstance(tensors, Tensor) else tensors))
        return graph.reaches(tensors, self._owned)
