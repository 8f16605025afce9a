"""Optimizers are torch's, with the chapter's defaults; hyper-parameters go by one name whichever optimizer it is.

A learner's parameter groups (from its splitter) each become up to two torch groups, so that norms and biases keep out
of weight decay; the key `group` of a torch group tells which of the learner's it belongs to.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from pellucid.errors import UsageError

OptFunc = Callable[..., Optimizer]

NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


class _Adam(AdamW):
    # torch wraps these three so that they can live inside a compiled graph; the wrappers import torch._dynamo, 1 to
    # 2 seconds, at the first optimizer of every process, and a step pays for two graph breaks. Ours run eagerly.
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(AdamW.step))


def Adam(
    params: Iterable[Any],
    lr: float = 1e-3,
    mom: float = 0.9,
    sqr_mom: float = 0.99,
    eps: float = 1e-5,
    wd: float = 0.01,
) -> Optimizer:
    """torch's AdamW with the chapter's settings, fused where the parameters allow it.

    Args:
        params: Parameters or torch parameter groups.
        lr: Learning rate.
        mom: Decay of the gradient mean (beta 1).
        sqr_mom: Decay of the squared-gradient mean (beta 2).
        eps: Added to the root of the squared-gradient mean.
        wd: Decoupled weight decay: each step scales weights by 1 − lr · wd.

    Source: Loshchilov and Hutter, arXiv:1711.05101, algorithm 2.
    """
    groups = list(params)
    tensors = [p for g in groups for p in (g["params"] if isinstance(g, dict) else [g])]
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in tensors)
    return _Adam(groups, lr, betas=(mom, sqr_mom), eps=eps, weight_decay=wd, fused=fused)


def SGD(params: Iterable[Any], lr: float = 1e-3, mom: float = 0.9, wd: float = 0.0) -> Optimizer:
    """torch's SGD with momentum `mom` and weight decay `wd` under our names."""
    return torch.optim.SGD(params, lr, momentum=mom, weight_decay=wd)


def param_groups(model: nn.Module, groups: Sequence[Iterable[nn.Parameter]]) -> list[dict[str, Any]]:
    """Make torch's parameter groups of a learner's: within each, norms and biases get no weight decay.

    Parameters that occur twice (tied weights) are taken once; those that need no gradient are left in, so that
    unfreezing them later keeps the optimizer's state.
    """
    exempt = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
    exempt |= {id(p) for name, p in model.named_parameters() if name.rpartition(".")[2] == "bias"}
    seen: set[int] = set()
    made: list[dict[str, Any]] = []
    for i, group in enumerate(groups):
        params = [p for p in group if id(p) not in seen and not seen.add(id(p))]
        decayed = [p for p in params if id(p) not in exempt]
        plain = [p for p in params if id(p) in exempt]
        made += [{"params": decayed, "group": i}] if decayed else []
        made += [{"params": plain, "group": i, "weight_decay": 0.0}] if plain else []
    return made


def hypers(opt: Optimizer) -> dict[str, list[float]]:
    """Every hyper-parameter as `name → one value per learner group`: lr, mom, sqr_mom, eps, wd, and torch's own names.

    The value of a group is that of its first torch group; the zero weight decay of norms and biases is not listed.
    """
    first = _first_of_each(opt)
    return {name: [_get(group, name) for group in first] for name in _names(first[0])}


def set_hyper(opt: Optimizer, name: str, values: float | Sequence[float]) -> None:
    """Set a hyper-parameter, one value for all learner groups or one each.

    Raises:
        UsageError: the optimizer has no such hyper-parameter, or the number of values is not that of the groups.
    """
    first = _first_of_each(opt)
    if name not in _names(first[0]):
        raise UsageError(f"{type(opt).__name__} has no hyper-parameter {name!r}; it has {', '.join(_names(first[0]))}")
    each = [float(values)] * len(first) if isinstance(values, int | float) else list(values)
    if len(each) != len(first):
        raise UsageError(f"{len(each)} values of {name} for {len(first)} parameter groups")
    for group in opt.param_groups:
        if not (name == "wd" and _exempt(opt, group)):
            _set(group, name, each[group.get("group", 0)])


def snapshot_hypers(opt: Optimizer) -> list[dict[str, Any]]:
    """Copy the settings of every torch group, to put back with `restore_hypers`."""
    return [{k: v for k, v in group.items() if k != "params"} for group in opt.param_groups]


def restore_hypers(opt: Optimizer, snapshot: list[dict[str, Any]]) -> None:
    """Put settings back that `snapshot_hypers` copied."""
    for group, settings in zip(opt.param_groups, snapshot, strict=True):
        group.update(settings)


def _first_of_each(opt: Optimizer) -> list[dict[str, Any]]:
    first: dict[int, dict[str, Any]] = {}
    for group in opt.param_groups:
        first.setdefault(group.get("group", 0), group)
    return [first[i] for i in sorted(first)]


_TORCH = {"lr": "lr", "eps": "eps", "wd": "weight_decay"}


def _names(group: dict[str, Any]) -> list[str]:
    names = ["lr"]
    if "betas" in group or "momentum" in group:
        names.append("mom")
    if "betas" in group:
        names.append("sqr_mom")
    names += [ours for ours, theirs in (("eps", "eps"), ("wd", "weight_decay")) if theirs in group]
    own = {"group", "momentum", *_TORCH.values()}
    return names + [k for k, v in group.items() if k not in own and isinstance(v, float)]


def _get(group: dict[str, Any], name: str) -> float:
    if name == "mom":
        return group["betas"][0] if "betas" in group else group["momentum"]
    return group["betas"][1] if name == "sqr_mom" else group[_TORCH.get(name, name)]


def _set(group: dict[str, Any], name: str, value: float) -> None:
    if name in ("mom", "sqr_mom") and "betas" in group:
        group["betas"] = (value, group["betas"][1]) if name == "mom" else (group["betas"][0], value)
    else:
        group["momentum" if name == "mom" else _TORCH.get(name, name)] = value


def _exempt(opt: Optimizer, group: dict[str, Any]) -> bool:
    return group.get("weight_decay") == 0.0 and opt.defaults.get("weight_decay") != 0.0
