"""What the loss was called with, at looks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pellucid.activations.targets import is_readable
from pellucid.doctor import lines
from pellucid.doctor.evidence.functions import Seen, rows_sum_to_one
from pellucid.doctor.evidence.record import LossCall
from pellucid.doctor.listening import LOSSES

_OPTIONS: dict[str, Any] = {
    "reduction": "mean",
    "label_smoothing": 0.0,
    "ignore_index": -100,
    "weight": None,
    "pos_weight": None,
}
# Where a loss is put together from these, they are the first that prediction and target meet in.
_MEETING = "sub", "__sub__", "rsub", "__rsub__", "mul", "__mul__", "__rmul__", "gather", "__getitem__"


class LossCalls:
    """The calls of losses between the model's call and `backward`, look by look."""

    def __init__(self) -> None:
        self.calls: list[LossCall] = []
        self._found: list[LossCall] = []
        self._met: tuple[Tensor, Tensor, str] | None = None

    def begin(self) -> None:
        """Begin a look."""
        self._found, self._met = [], None

    def after(self, seen: Seen, step: int) -> None:
        """Take a function that ran outside of the model, or a loss inside of it."""
        if seen.name in LOSSES and len(tensors := seen.tensors) > 1:
            call = described(tensors[0], tensors[1], step)
            call.name, call.where = seen.name, lines.where()
            call.options = {
                name: True if isinstance(value, Tensor) else value
                for name, value in seen.kwargs.items()
                if name in _OPTIONS and (isinstance(value, Tensor) or value != _OPTIONS[name])
            }
            if isinstance(seen.result, Tensor) and seen.result.numel() == 1:
                call.value = seen.result.item()
            self._found.append(call)
        elif self._met is None and seen.path is None and seen.name in _MEETING:
            operands = seen.tensors
            if len(operands) > 1 and any(x.requires_grad for x in operands) and all(x.ndim for x in operands):
                self._met = operands[0], operands[-1], lines.where()

    def end(self, loss: Tensor | None, step: int) -> None:
        """Take the loss that `backward` is called on."""
        if not self._found and self._met is not None:
            first, second, where = self._met
            target_first = second.requires_grad and not first.requires_grad
            call = described(*((second, first) if target_first else (first, second)), step)
            call.where = where
            call.value = math.nan if loss is None else loss.item()
            self._found.append(call)
        self.calls += self._found
        self._found, self._met = [], None


def described(prediction: Tensor, target: Tensor, step: int) -> LossCall:
    """What a loss is given."""
    x, y = prediction.detach(), target.detach()
    call = LossCall(step, input_shape=tuple(x.shape), target_shape=tuple(y.shape))
    if is_readable(x) and x.numel():
        x = x.float()
        call.input_min, call.input_max = (each.item() for each in torch.aminmax(x))
        call.rows_sum_to_one = rows_sum_to_one(_rows(x))
        call.log_rows = rows_sum_to_one(_rows(x).exp()) if call.input_max < 1e-3 else 0.0
    call.target_kind = "bool" if y.dtype is torch.bool else "float" if y.is_floating_point() else "index"
    if y.numel() and call.target_kind != "bool":
        call.target_min, call.target_max = (float(each.item()) for each in torch.aminmax(y))
    if y.numel() and call.target_kind == "float":
        call.target_whole = bool((y == y.round()).all())
        call.target_std = y.float().std(correction=0).item()
        if y.ndim > 1 and y.shape[-1] > 1:
            call.target_rows_sum_to_one = ((y.float().sum(-1) - 1).abs() < 1e-3).float().mean().item()
    if y.ndim > 1 and y.shape[1] > 1 and y.shape == x.shape:
        rows = _rows(y.float())
        call.one_hot = ((rows.sum(-1) == 1) & (rows.amax(-1) == 1)).float().mean().item()
    return call


def _rows(x: Tensor) -> Tensor:
    """Classes, the second axis of what the losses of torch take, as the last one."""
    return x.movedim(1, -1) if x.ndim > 2 else x
