"""Parameters at looks: their gradients, how far they moved, and how far their optimizer was to move them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pellucid.doctor.evidence.functions import Stranger
from pellucid.doctor.evidence.record import Parameter
from pellucid.doctor.evidence.updates import rule_of
from pellucid.optim.groups import groups_of, parameters_of

SAMPLED = 8  # parameters whose steps are computed
MAX_SAMPLED = 1_000_000  # values of these together
MAX_COPIED = 20_000_000  # values of all parameters that are copied to see how far each moved
_GRADIENT, _WEIGHT, _MOVED, _ASKED, _DEVIATION, _DECAY, _KEPT, _QUANTITIES = range(8)
_norms = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]


@dataclass
class _Sample:
    """Values of one parameter around a step, in float64."""

    before: Tensor
    change: Tensor
    decay_share: float


@dataclass
class _Row:
    """A parameter, whatever its name.

    Attributes:
        looks: Of looks with a `backward`: how many, and at how many of them it had a gradient.
        last: Its sampled values after the last step that was looked at, the move that this step made, and of which
            look it was; compared: how often they were compared with those before the next step, and how often these
            were others.
    """

    p: nn.Parameter
    looks: int = 0
    had_gradient: int = 0
    last: tuple[Tensor, Tensor, int] | None = None
    compared: int = 0
    overwritten: int = 0
    spread: float = np.nan
    gradient_spread: float = np.nan
    dtype: str = ""


@dataclass
class Parameters:
    """Readings of all parameters of a model, look by look."""

    model: nn.Module
    table: list[np.ndarray] = field(default_factory=list)  # [look][quantity, parameter]
    _copies: dict[int, Tensor] = field(default_factory=dict)
    _samples: dict[int, _Sample] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rows = [_Row(p) for p in self.model.parameters()]
        self._sampled: list[int] = []

    @property
    def params(self) -> list[nn.Parameter]:
        """The parameters."""
        return [row.p for row in self._rows]

    def begin(self) -> None:
        """Begin a look."""
        self.table.append(np.full((_QUANTITIES, len(self._rows)), np.nan))
        self._copies, self._samples = {}, {}
        trained = [i for i, row in enumerate(self._rows) if row.p.requires_grad and row.p.is_floating_point()]
        self._sampled = [trained[i] for i in _spread_over(len(trained), SAMPLED)]
        if len(self.table) == 1:
            for row in self._rows:
                row.spread = _spread(row.p)

    def gradient_norm(self) -> float:
        """The norm of all gradients that are there; 0 if there are none."""
        grads = [g for p in self.params if (g := _gradient(p)) is not None]
        return float(np.linalg.norm(_values(_norms(grads)))) if grads else 0.0

    def after_backward(self, scale: float) -> None:
        """Read gradients and weights; `scale` is what a GradScaler multiplied the loss with."""
        now, rows = self.table[-1], self._rows
        found = [(i, g) for i, row in enumerate(rows) if (g := _gradient(row.p)) is not None]
        there = [i for i, row in enumerate(rows) if not is_lazy(row.p)]
        if found:
            at = [i for i, _ in found]
            sizes = np.array([g.numel() for _, g in found])
            now[_GRADIENT, at] = _values(_norms([g for _, g in found])) / scale / np.sqrt(np.maximum(sizes, 1))
        if len(self.table) == 1:
            for i, g in found:
                rows[i].gradient_spread = _spread(g)
        for row in rows:
            row.looks += 1
            row.had_gradient += row.p.grad is not None
            row.dtype = str(row.p.dtype).removeprefix("torch.")
        sizes = np.array([rows[i].p.numel() for i in there])
        now[_WEIGHT, there] = _values(_norms([rows[i].p.detach() for i in there])) / np.sqrt(np.maximum(sizes, 1))
        if not self._copies:
            copied = there if sizes.sum() <= MAX_COPIED else [i for i in there if i in self._sampled]
            self._copies = {i: rows[i].p.detach().clone() for i in copied}

    def before_step(self, optimizer: Any) -> None:
        """Compute the step that is asked for, where that is known."""
        rule = rule_of(optimizer)
        groups = {id(p): group for group in groups_of(optimizer) for p in group.get("params", ())}
        for i in self._sampled if rule is not None else []:
            row = self._rows[i]
            group, grad = groups.get(id(row.p)), _gradient(row.p)
            if group is None or grad is None or grad.shape != row.p.shape or i in self._samples:
                continue
            state = {
                name: self._values_of(value) if value.shape == row.p.shape else value.double().cpu()
                for name, value in optimizer.state.get(row.p, {}).items()
                if isinstance(value, Tensor)
            }
            before = self._values_of(row.p)
            update = rule(group, before, self._values_of(grad), state)  # pyright: ignore[reportOptionalCall]
            self._samples[i] = _Sample(before, update.change, update.decay_share)

    def after_step(self, optimizer: Any) -> None:
        """Compare it with what happened."""
        held = {id(p) for p in parameters_of(optimizer)}
        self._measure([i for i in self._copies if id(self._rows[i].p) in held])
        for i, sample in self._samples.items():
            row, now = self._rows[i], self.table[-1]
            after = self._values_of(row.p)
            row.last = after, after - sample.before, len(self.table) - 1
            now[_ASKED, i] = _rms(sample.change)
            now[_DEVIATION, i] = _rms(after - sample.before - sample.change)
            now[_DECAY, i] = sample.decay_share
        self._samples = {}

    def compare(self) -> None:
        """Compare the values before a step with those after the last, where these were read."""
        for i, row in enumerate(self._rows):
            if row.last is not None:
                (last, move, look), now = row.last, self._values_of(row.p)
                row.compared += 1
                row.overwritten += not torch.equal(last, now)
                if look < len(self.table) and (size := move.square().sum().item()):
                    self.table[look][_KEPT, i] = 1 + ((now - last) * move).sum().item() / size
                row.last = None

    def forget(self) -> None:
        """Forget the values after the last step: the next one that is seen is not the one after it."""
        for row in self._rows:
            row.last = None

    def end(self) -> None:
        """End a look: read how far those weights moved since `backward` that no optimizer has moved."""
        self._measure(list(self._copies))
        self._copies = {}

    def _measure(self, rows: list[int]) -> None:
        copies = {i: copy for i in rows if (copy := self._copies.pop(i)).shape == self._rows[i].p.shape}
        if copies:
            moved = [self._rows[i].p.detach() - copy for i, copy in copies.items()]
            sizes = np.array([each.numel() for each in moved])
            self.table[-1][_MOVED, list(copies)] = _values(_norms(moved)) / np.sqrt(np.maximum(sizes, 1))

    def parameters(self, optimizers: Sequence[Any], order: Sequence[str]) -> list[Parameter]:
        """Everything so far.

        Args:
            optimizers: Those that hold any of them.
            order: Dotted names of layers, in the order in which they were first called; theirs come in this order.
        """
        names = {id(p): name for name, p in self.model.named_parameters()}
        modules = dict(self.model.named_modules())
        table = np.array(self.table).reshape(-1, _QUANTITIES, len(self._rows))
        held = {
            id(p): (number, group)
            for number, optimizer in reversed(list(enumerate(optimizers)))
            for group, each in enumerate(groups_of(optimizer))
            for p in each.get("params", ())
        }
        found = []
        for i, row in enumerate(self._rows):
            name = names.get(id(row.p), f"parameter {i}, which is no longer the model's")
            layer = name.rpartition(".")[0]
            number, group = held.get(id(row.p), (-1, -1))
            readings = [table[:, quantity, i] for quantity in range(_QUANTITIES)]
            found.append(
                Parameter(
                    name,
                    () if is_lazy(row.p) else tuple(row.p.shape),
                    layer,
                    type(modules.get(layer)).__name__,
                    row.p.requires_grad,
                    row.had_gradient / row.looks if row.looks else np.nan,
                    number,
                    group,
                    gradient=readings[_GRADIENT],
                    weight=readings[_WEIGHT],
                    moved=readings[_MOVED],
                    asked=readings[_ASKED],
                    deviation=readings[_DEVIATION],
                    kept=readings[_KEPT],
                    overwritten=row.overwritten / row.compared if row.compared else np.nan,
                    spread=row.spread,
                    gradient_spread=row.gradient_spread,
                    decay_share=readings[_DECAY],
                    dtype=row.dtype or str(row.p.dtype).removeprefix("torch."),
                )
            )
        place = {layer: i for i, layer in enumerate(order)}
        return sorted(found, key=lambda each: place.get(each.layer, len(place)))

    def _values_of(self, x: Tensor) -> Tensor:
        n = MAX_SAMPLED // max(1, len(self._sampled))
        return x.detach().reshape(-1)[:n].double().cpu().clone()


def outside(model: nn.Module, strangers: Iterable[Stranger]) -> list[Parameter]:
    """The parameters with gradients of modules that the model calls and does not have, and that nothing changed since.

    Nothing zeroes these gradients, so the last ones are there.
    """
    known = {id(p) for p in model.parameters()}
    found = []
    for module, versions in strangers:
        kind = type(module).__name__
        layer = f"{kind} in {_holder(model, module)}, which is no part of the model"
        for name, p in module.named_parameters(recurse=False):
            if p.grad is not None and p._version == versions.get(name) and id(p) not in known:
                found.append(Parameter(name, tuple(p.shape), layer, kind, p.requires_grad, has_grad=1.0))
    return found


def _holder(model: nn.Module, module: nn.Module) -> str:
    """Class and name of the attribute of the model that keeps it, in a list or a dict; `a function` if none does."""
    for each in model.modules():
        for name, value in vars(each).items():
            kept = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            if not name.startswith("_") and any(
                module in part.modules() for part in kept if isinstance(part, nn.Module)
            ):
                return f"{type(each).__name__}.{name}"
    return "a function"


def _spread_over(n: int, k: int) -> list[int]:
    """Up to `k` of `n` indices, evenly spread, with the first and the last."""
    if not n:
        return []
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, k))})


def _gradient(p: Tensor) -> Tensor | None:
    g = None if is_lazy(p) else p.grad
    return g.coalesce().values() if g is not None and g.is_sparse else g


def _values(norms: Sequence[Tensor]) -> np.ndarray:
    devices = {(each.device, each.dtype) for each in norms}
    if len(devices) > 1:
        return np.array([each.item() for each in norms], np.float64)
    return torch.stack(list(norms)).double().cpu().numpy()


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def _spread(x: Tensor) -> float:
    if is_lazy(x) or x.ndim < 2 or len(x) < 2 or x.is_sparse or not x.numel():
        return np.nan
    rows = x.detach().flatten(1).float()
    size = rows.norm(dim=1).max().item()
    return (rows - rows[0]).norm(dim=1).max().item() / size if size else 0.0
