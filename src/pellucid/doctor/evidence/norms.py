"""Layers that behave otherwise in training than in evaluation: in which mode they were when, and their statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from pellucid.doctor.evidence.functions import Seen
from pellucid.doctor.evidence.record import Norm


@dataclass
class _Row:
    """Counts of passes by phase, trained and validated, and in how many the mode was the other one."""

    name: str
    kind: str
    module: nn.Module | None
    trained: int = 0
    trained_in_eval: int = 0
    validated: int = 0
    validated_in_train: int = 0
    per_item: float = 0.0
    disagreement: float = np.nan
    before: dict[str, Tensor] | None = None


class Norms:
    """The modes of the norms and dropouts of a model, and of dropouts that are called as functions."""

    def __init__(self, model: nn.Module):
        self._rows = {
            id(module): _Row(name, type(module).__name__, module, before=_buffers(module))
            for name, module in model.named_modules()
            if isinstance(module, _NormBase | _DropoutNd) or "running_mean" in module._buffers
        }
        self._modules = [row.module for row in self._rows.values() if row.module is not None]
        self._functions: dict[str, _Row] = {}

    def modes(self) -> list[bool]:
        """Whether each is in training mode."""
        return [module.training for module in self._modules]

    def add(self, modes: list[bool], functions: dict[str, bool], *, trained: bool) -> None:
        """Take the modes that a pass ran in: those of the modules, and of functions by name."""
        rows = [*self._rows.values()]
        for row, mode in zip(rows, modes, strict=True):
            _count(row, mode, trained=trained)
        for name, mode in functions.items():
            row = self._functions.setdefault(name, _Row(name, "function", None))
            _count(row, mode, trained=trained)

    def before(self, seen: Seen) -> None:
        """Compare the statistics of a batch with the running ones, where a norm uses those of the batch."""
        row = self._rows.get(id(seen.module))
        if row is None or seen.name != "batch_norm" or not seen.module.training:
            return
        x, running = seen.args[0].detach(), seen.module._buffers.get("running_var")
        row.per_item = x.numel() / max(1, x.shape[0] * x.shape[1])
        if running is not None and x.numel() > x.shape[1]:
            variance = x.float().movedim(1, 0).flatten(1).var(1)
            known = running.detach().float()
            row.disagreement = ((variance - known).abs() / known.clamp_min(1e-12)).mean().item()

    def norms(self, batch_size: int) -> list[Norm]:
        """Everything so far; `batch_size` is the smallest one seen in training."""
        found = []
        for row in (*self._rows.values(), *self._functions.values()):
            now = None if row.module is None else _buffers(row.module)
            moved = (
                bool(now) and row.before is not None and any(not torch.equal(x, row.before[k]) for k, x in now.items())
            )
            found.append(
                Norm(
                    row.name,
                    row.kind,
                    row.trained_in_eval / row.trained if row.trained else np.nan,
                    row.validated_in_train / row.validated if row.validated else np.nan,
                    round(row.per_item * batch_size),
                    batch_size,
                    moved,
                    row.disagreement,
                )
            )
        return found


def _count(row: _Row, mode: bool, *, trained: bool) -> None:
    if trained:
        row.trained += 1
        row.trained_in_eval += not mode
    else:
        row.validated += 1
        row.validated_in_train += mode


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    names = "running_mean", "running_var"
    buffers = {name: module._buffers.get(name) for name in names}
    return {
        name: x.detach().clone()
        for name, x in buffers.items()
        if x is not None and not isinstance(x, nn.parameter.UninitializedBuffer)
    }
