"""The first convolution's kernels, as they were at some steps of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

MOST = 64


class Snapshots:
    """Copies of the kernels at equal distances; every other one goes when there is no room for the next.

    A parametrized convolution has none: its kernels are computed whenever they are read, which moves the power
    iteration of a spectral norm and would change the training.
    """

    def __init__(self, model: nn.Module, every: int):
        convs = (m for m in model.modules() if isinstance(m, nn.Conv2d) and not is_parametrized(m, "weight"))
        self._conv, self._every, self._stride = next(convs, None), every, 1
        self._taken: list[tuple[int, Tensor]] = []

    def take(self, step: int) -> None:
        """Copy the kernels, if their time has come."""
        if self._conv is None or step % (self._stride * self._every):
            return
        if len(self._taken) == MOST:
            self._taken, self._stride = self._taken[::2], 2 * self._stride
            if step % (self._stride * self._every):
                return
        self._taken.append((step, self._conv.weight.detach().clone()))

    def state_dict(self) -> dict[str, Any]:
        """The copies, to be kept in a file."""
        return {
            "steps": [step for step, _ in self._taken],
            "kernels": [k for _, k in self._taken],
            "stride": self._stride,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where others were."""
        self._taken = list(zip(state["steps"], state["kernels"], strict=True))
        self._stride = state["stride"]

    def arrays(self) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Kernels, [snapshot, out, in, row, column], and the step of each."""
        if not self._taken:
            return None, None
        kernels = np.stack([kernels.cpu().float().numpy() for _, kernels in self._taken])
        return kernels, np.array([step for step, _ in self._taken], np.int64)
