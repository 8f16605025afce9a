"""The step that an optimizer's own state implies, in float64: torch's SGD, Adam, AdamW, RMSprop and Adagrad."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from pellucid.optim import optimizers


@dataclass(frozen=True)
class Update:
    """What a step is to add to the values of a parameter.

    Attributes:
        change: [value] float64.
        decay_share: Share of weight decay in it: the size of decay over those of decay and gradient, before momentum
            mixes them; nan without decay.
    """

    change: Tensor
    decay_share: float


Rule = Callable[[Mapping[str, Any], Tensor, Tensor, Mapping[str, Any]], Update]


def rule_of(optimizer: Any) -> Rule | None:
    """How this optimizer steps: from group, values, gradient and state before the step; None if that is not known."""
    if getattr(optimizer, "grad_scale", None) is not None:
        return None
    if isinstance(optimizer, optimizers._SGDW):
        return _sgd_decoupled
    step = inspect.unwrap(type(optimizer).step)
    return next((rule for cls, rule in _RULES.items() if inspect.unwrap(cls.step) is step), None)


def _sgd(group: Mapping[str, Any], p: Tensor, grad: Tensor, state: Mapping[str, Any]) -> Update:
    grad, share = _with_decay(group, p, grad)
    momentum, buffer = group["momentum"], state.get("momentum_buffer")
    if momentum:
        mean = grad if buffer is None else momentum * buffer + (1 - group["dampening"]) * grad
        grad = grad + momentum * mean if group["nesterov"] else mean
    return Update(-float(group["lr"]) * grad, share)


def _sgd_decoupled(group: Mapping[str, Any], p: Tensor, grad: Tensor, state: Mapping[str, Any]) -> Update:
    without = _sgd({**group, "weight_decay": 0.0}, p, grad, state)
    return _decayed(group, p, without.change)


def _adam(group: Mapping[str, Any], p: Tensor, grad: Tensor, state: Mapping[str, Any]) -> Update:
    return _adam_step(group, p, grad, state, decoupled=bool(group.get("decoupled_weight_decay")))


def _adamw(group: Mapping[str, Any], p: Tensor, grad: Tensor, state: Mapping[str, Any]) -> Update:
    return _adam_step(group, p, grad, state, decoupled=True)


def _adam_step(
    group: Mapping[str, Any], p: Tensor, grad: Tensor, state: Mapping[str, Any], *, decoupled: bool
) -> Update:
    share = torch.nan
    if decoupled:
        grad = -grad if group["maximize"] else grad
    else:
        grad, share = _with_decay(group, p, grad)
    (beta1, beta2), step = map(float, group["betas"]), float(state.get("step", 0)) + 1
    mean = beta1 * state.get("exp_avg", 0.0) + (1 - beta1) * grad
    square = beta2 * state.get("exp_avg_sq", 0.0) + (1 - beta2) * grad**2
    if group["amsgrad"] and "max_exp_avg_sq" in state:
        square = torch.maximum(square, state["max_exp_avg_sq"])
    root = (square / (1 - beta2**step)).sqrt() + group["eps"]
    change = -float(group["lr"]) * mean / (1 - beta1**step) / root
    # p (1 − lr wd) is made first, and the step of the gradient does not depend on it.
    return _decayed(group, p, change) if decoupled else Update(change, share)


def _rmsprop(group: Mapping[str, Any], p: Tensor, grad: Tensor, state: Mapping[str, Any]) -> Update:
    grad, share = _with_decay(group, p, grad)
    alpha = group["alpha"]
    square = alpha * state.get("square_avg", 0.0) + (1 - alpha) * grad**2
    if group["centered"]:
        square = square - (alpha * state.get("grad_avg", 0.0) + (1 - alpha) * grad) ** 2
    step = grad / (square.sqrt() + group["eps"])
    if group["momentum"]:
        step = group["momentum"] * state.get("momentum_buffer", 0.0) + step
    return Update(-float(group["lr"]) * step, share)


def _adagrad(group: Mapping[str, Any], p: Tensor, grad: Tensor, state: Mapping[str, Any]) -> Update:
    grad, share = _with_decay(group, p, grad)
    rate = float(group["lr"]) / (1 + float(state["step"]) * group["lr_decay"])
    return Update(-rate * grad / ((state["sum"] + grad**2).sqrt() + group["eps"]), share)


_RULES: dict[type[Optimizer], Rule] = {
    SGD: _sgd,
    AdamW: _adamw if inspect.unwrap(AdamW.step) is not inspect.unwrap(Adam.step) else _adam,
    Adam: _adam,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
}


def _with_decay(group: Mapping[str, Any], p: Tensor, grad: Tensor) -> tuple[Tensor, float]:
    grad, decay = -grad if group.get("maximize") else grad, group["weight_decay"] * p
    return grad + decay, _share(group, decay, grad)


def _decayed(group: Mapping[str, Any], p: Tensor, change: Tensor) -> Update:
    decay = -float(group["lr"]) * group["weight_decay"] * p
    return Update(change + decay, _share(group, decay, change))


def _share(group: Mapping[str, Any], decay: Tensor, rest: Tensor) -> float:
    if not group["weight_decay"]:
        return torch.nan
    sizes = decay.norm().item(), rest.norm().item()
    return sizes[0] / sum(sizes) if sum(sizes) else torch.nan
