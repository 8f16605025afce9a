"""Calls of a model and of its watched layers: what is read of them, and which of them are training steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pellucid.activations.recording import Recording


class Calls:
    """Takes what the hooks on all modules report of one model.

    Attributes:
        model: The model.
        rows: The row of each watched module, by identity.
        are_steps: Whether each training pass of the model is a step, since no optimizer says when one ends.
        modes: The modes in which the model itself was called, True for training.
        outside: Whether layers were called in training while the model was not, where its passes are the steps.
    """

    def __init__(self, recording: Recording, *, are_steps: bool):
        self.recording, self.model, self.are_steps = recording, recording.model, are_steps
        self.outputs, self.rows = recording.outputs, recording.outputs.rows
        self.modes: set[bool] = set()
        self.outside = False
        self._inside = False
        # A pass that has returned is not yet a step that has ended: its loss and its backward are still to come.
        self.pending = False

    def begin(self) -> None:
        """Note that the model is called, where its training passes are the steps."""
        if torch._C._current_graph_task_id() == -1:  # else a checkpoint computes the pass once more, inside `backward`
            self.end_step()
            self._inside = True

    def end(self) -> None:
        """Note that it returned."""
        self.modes.add(self.model.training)
        if self._inside:
            self._inside, self.pending = False, self.model.training

    def end_step(self) -> None:
        """End the step of the last pass, if that is still open."""
        if self.pending:
            self.pending = False
            self.recording.end_step()

    def read(self, row: int, module: nn.Module, inputs: Any, output: Any) -> None:
        """Read the output of the watched module in a row of the table."""
        training, recording = self.model.training, self.recording
        if (training and not recording.due) or torch._C._current_graph_task_id() != -1:
            return
        if torch.compiler.is_compiling() or torch._C._is_tracing():
            return
        x = self.outputs.readable(row, output)
        if x is None:
            return
        if self.are_steps and not self._inside and module is not self.model:
            self.outside = self.outside or training
            if not training:
                self.end_step()
        if training:
            column = recording.train_column if recording.train_column >= 0 else recording.open_train()
        else:
            column = recording.open_valid()
        self.outputs.read(x, row, column, module, inputs, training=training)
