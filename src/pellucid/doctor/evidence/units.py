"""Activation functions, of modules or called as functions: how many of their units are silent or at their ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pellucid.activations.targets import is_activation, is_readable
from pellucid.doctor import lines
from pellucid.doctor.evidence.functions import HIGH, LOW, Seen
from pellucid.doctor.evidence.record import Unit

KINDS = frozenset(
    {
        "relu",
        "relu6",
        "leaky_relu",
        "prelu",
        "rrelu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "tanh",
        "sigmoid",
        "logsigmoid",
        "softplus",
        "softsign",
        "hardtanh",
        "hardsigmoid",
        "hardswish",
        "threshold",
    }
)
_OF_FEATURES = "linear", "layer_norm", "lstm", "gru", "rnn_tanh", "rnn_relu"  # whose last axis are the units
_OF_CHANNELS = "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm"
LAST = 3  # looks at all of which an always silent unit was silent
# Beyond these an output hardly depends on the input any more.
ENDS = {
    "tanh": (LOW, HIGH),
    "sigmoid": (0.03, 0.97),
    "hardtanh": (-0.999, 0.999),
    "hardsigmoid": (0.001, 0.999),
    "softsign": (LOW, HIGH),
    "relu6": (-np.inf, 5.999),
}


@dataclass
class _Row:
    name: str
    kind: str
    steps: list[int] = field(default_factory=list)
    silent: list[Tensor] = field(default_factory=list)
    saturated: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)


class Units:
    """Readings of the activation functions of a model, look by look."""

    def __init__(self, root: str):
        self._root = root
        self._rows: dict[tuple[str, int], _Row] = {}
        self._calls: dict[str, int] = {}
        self._features = False
        self._std = np.nan

    def begin(self) -> None:
        """Begin a look."""
        self._calls, self._features = {}, False

    def before(self, seen: Seen) -> None:
        """Read what an activation is given, which it may change."""
        if seen.name in _OF_FEATURES or seen.name in _OF_CHANNELS:
            self._features = seen.name in _OF_FEATURES
        x = seen.args[0] if seen.args else None
        self._std = np.nan
        if isinstance(x, Tensor) and _kind(seen) and _is_read(x):
            self._std = x.detach().float().std(correction=0).item()

    def after(self, seen: Seen, step: int) -> None:
        """Read what it gave."""
        kind = _kind(seen)
        if not kind or seen.path is None or not _is_read(seen.result):
            return
        y = seen.result.detach()
        name = self._named(seen, kind)
        call = self._calls[name] = self._calls.get(name, 0) + 1
        row = self._rows.setdefault((name, call), _Row(f"{name}, call {call}" if call > 1 else name, kind))
        axis = y.ndim - 1 if self._features or y.ndim < 3 else 1
        silent = y.ne(0).movedim(axis, 0).flatten(1).any(1).logical_not() if y.ndim > 1 else y.eq(0)
        low, high = ENDS.get(kind, (np.nan, np.nan))
        row.steps.append(step)
        row.silent.append(silent.cpu())
        row.std.append(self._std)
        row.saturated.append(((y < low) | (y > high)).float().mean().item() if kind in ENDS else np.nan)

    def units(self) -> list[Unit]:
        """Everything so far, in the order in which they were first called."""
        return [
            Unit(
                row.name,
                row.kind,
                np.array(row.steps),
                np.array([each.float().mean().item() for each in row.silent]),
                _always(row.silent[-LAST:]),
                np.array(row.saturated),
                np.array(row.std),
            )
            for row in self._rows.values()
        ]

    def _named(self, seen: Seen, kind: str) -> str:
        if is_activation(seen.module):
            return seen.path or self._root
        return f"{kind} in {seen.path or self._root} ({lines.where()})"


def _kind(seen: Seen) -> str:
    name = seen.name.removesuffix("_")
    if name in ("clamp", "clamp_min", "clip"):
        low = seen.kwargs.get("min", seen.args[1] if len(seen.args) > 1 else None)
        high = seen.kwargs.get("max", seen.args[2] if len(seen.args) > 2 else None)
        return "relu" if high is None and isinstance(low, int | float) and low == 0 else ""
    return name if name in KINDS else ""


def _is_read(x: object) -> bool:
    return isinstance(x, Tensor) and is_readable(x) and x.numel() > 0


def _always(silent: list[Tensor]) -> float:
    same = [each for each in silent if each.shape == silent[-1].shape]
    return torch.stack(same).all(0).float().mean().item()
