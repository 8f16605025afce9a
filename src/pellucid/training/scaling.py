"""Scaled losses for float16, whose gradients would otherwise vanish; steps whose gradients overflow are skipped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from pellucid.errors import TrainingError
from pellucid.output import say
from pellucid.text import counted

LOOK_EVERY = 50  # steps; looking waits for the device
MOST_IN_A_ROW = 20  # the scale has then fallen from 65,536 to 1/16: it is not the scale that is to blame


class LossScaling:
    """The scaling of one fit, torch's `GradScaler` at the places of the loop.

    Attributes:
        n_steps: Steps so far.
        n_skipped: How many of them were skipped, as far as was looked.
    """

    def __init__(self, device: torch.device):
        self._scaler = GradScaler(device.type)
        self.n_steps = self.n_skipped = self._in_a_row = 0
        self._scaled = False  # whether the gradients there are belong to a scaled loss
        self._unread: list[Tensor] = []

    def backward(self, loss: Tensor) -> None:
        """Add the scaled loss's gradients."""
        self._scaler.scale(loss).backward()
        self._scaled = True

    def unscale(self, opt: Any) -> None:
        """Divide the gradients by the scale, and find out whether one overflowed."""
        if self._scaled:
            self._scaler.unscale_(opt)

    def step(self, opt: Any) -> None:
        """Step, unless a gradient overflowed."""
        if self._scaled:
            self._scaler.step(opt)
        else:
            opt.step()

    def update(self, opt: Any) -> None:
        """Lower the scale if a gradient overflowed, raise it after 2,000 steps without."""
        if not self._scaled:
            return
        # torch has no public way to ask that does not wait for the device in every step.
        found = self._scaler._found_inf_per_device(opt).values()
        self._unread.append(torch.stack([each.reshape(()) for each in found]).sum())
        self._scaler.update()
        self._scaled = False
        if len(self._unread) >= LOOK_EVERY:
            self._look()

    def report(self) -> None:
        """Print how many steps were skipped, if any; raises as the loop does."""
        self._look()
        if self.n_skipped:
            say(
                f"{self.n_skipped} of {counted(self.n_steps, 'step')} were skipped, as float16 gradients overflowed; "
                f"losses are now scaled by {self._scaler.get_scale():g}"
            )

    def state_dict(self) -> dict[str, Any]:
        """What decides about the steps to come, and was counted."""
        self._look()
        return {"scaler": self._scaler.state_dict(), "counted": [self.n_steps, self.n_skipped, self._in_a_row]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one was."""
        self._scaler.load_state_dict(state["scaler"])
        self.n_steps, self.n_skipped, self._in_a_row = state["counted"]

    def _look(self) -> None:
        unread, self._unread = self._unread, []
        for overflowed in torch.stack(unread).tolist() if unread else []:
            self.n_steps += 1
            self.n_skipped += bool(overflowed)
            self._in_a_row = self._in_a_row + 1 if overflowed else 0
            if self._in_a_row >= MOST_IN_A_ROW:
                raise TrainingError(
                    f"float16 gradients overflowed in {self._in_a_row} steps in a row, however little the loss was "
                    "scaled: train in bfloat16, learn.to_bf16() or --precision bf16, which holds values as large as "
                    "float32 does"
                )
