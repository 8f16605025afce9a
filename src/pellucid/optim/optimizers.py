"""Optimizers are torch's, with the chapter's defaults and fastai's names of hyper-parameters.

A learner's parameter groups (from its splitter) each become up to two torch groups, so that norms and biases keep out
of weight decay; the key `group` of a torch group is the number of the learner's it belongs to, and `exempt` marks those
that do not decay.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from pellucid.errors import UsageError
from pellucid.nn.norms import norm_params
from pellucid.optim.hypers import hyper

OptFunc = Callable[..., Optimizer]

# Moments with a value for each element, in torch's optimizers.
ELEMENTWISE = "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "sum"


class _Eager(Optimizer):
    # torch wraps these so that they can live inside a compiled graph; the wrappers import torch._dynamo, 1 to 2
    # seconds, at the first optimizer of every process, and a step pays for two graph breaks. Ours run eagerly.
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)


class _Adam(_Eager, AdamW):
    step = torch.no_grad()(inspect.unwrap(AdamW.step))


class _AdamL2(_Eager, torch.optim.Adam):
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class _SGD(_Eager, torch.optim.SGD):
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class LBFGS(_Eager, torch.optim.LBFGS):
    """torch's, without importing its compiler."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.LBFGS.step))


class _SGDW(_Eager, torch.optim.SGD):
    """SGD whose weight decay scales the weights and stays out of gradient and momentum."""

    # torch's SGD can only add decay to the gradient; fastai's default, and so ours, is this.
    _step = inspect.unwrap(torch.optim.SGD.step)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        decays = [group["weight_decay"] for group in self.param_groups]
        # The weights decay first, so that a step of the gradient is not shortened by it, as in torch's AdamW.
        for group in self.param_groups:
            kept = 1 - group["lr"] * group["weight_decay"]
            if kept != 1:
                for p in group["params"]:
                    if p.grad is not None:
                        p.mul_(kept)
            group["weight_decay"] = 0.0  # or torch would add it to the gradient as well
        try:
            self._step()
        finally:  # also after an error, or the next step would go without decay
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return loss


def Adam(
    params: Iterable[Any],
    lr: float = 1e-3,
    mom: float = 0.9,
    sqr_mom: float = 0.99,
    eps: float = 1e-5,
    wd: float = 0.01,
    decouple_wd: bool = True,
) -> Optimizer:
    """torch's AdamW with the chapter's settings, fused where the parameters allow it.

    Args:
        params: Parameters or torch parameter groups.
        lr: Learning rate.
        mom: Decay of the gradient mean (beta 1).
        sqr_mom: Decay of the squared-gradient mean (beta 2).
        eps: Added to the root of the squared-gradient mean.
        wd: Weight decay.
        decouple_wd: Decay scales weights by 1 − lr · wd at each step; False adds wd · weight to the gradient instead.

    Source: Loshchilov and Hutter, arXiv:1711.05101, algorithm 2.
    """
    groups = _listed(params)
    kind = _Adam if decouple_wd else _AdamL2
    betas = hyper(mom, "mom"), hyper(sqr_mom, "sqr_mom")
    settings: dict[str, Any] = {"eps": hyper(eps, "eps"), "weight_decay": hyper(wd, "wd")}
    return kind(groups, hyper(lr, "lr"), betas=betas, fused=all(map(_fusible, _tensors(groups))), **settings)


def SGD(
    params: Iterable[Any], lr: float = 1e-3, mom: float = 0.0, wd: float = 0.0, decouple_wd: bool = True
) -> Optimizer:
    """torch's SGD under our names, without momentum unless asked for, as fastai has it.

    Args:
        params: Parameters or torch parameter groups.
        lr: Learning rate.
        mom: Momentum: each step goes along the sum of all gradients so far, the one of k steps ago times mom^k.
        wd: Weight decay.
        decouple_wd: Decay scales weights by 1 − lr · wd at each step; False adds wd · weight to the gradient instead,
            so that momentum builds up of it.

    Source: Loshchilov and Hutter, arXiv:1711.05101, algorithm 1, with the decay times the learning rate.
    """
    kind = _SGDW if decouple_wd else _SGD
    return kind(_listed(params), hyper(lr, "lr"), momentum=hyper(mom, "mom"), weight_decay=hyper(wd, "wd"))


def _listed(params: Iterable[Any]) -> list[Any]:
    """Parameters or groups as lists, since looking at a generator would use it up."""
    each = [dict(g) if isinstance(g, dict) else g for g in params]
    for g in each:
        if isinstance(g, dict) and not isinstance(g["params"], Tensor):
            g["params"] = list(g["params"])
    return each


def _tensors(params: Iterable[Any]) -> list[Tensor]:
    given = [p for g in params for p in (g["params"] if isinstance(g, dict) else [g])]
    return [p[1] if isinstance(p, tuple) else p for p in given]  # torch also takes (name, parameter)


def _fusible(p: Tensor) -> bool:
    # The fused kernels walk through memory: a parameter with holes in it, such as every second column of a larger
    # tensor, would be paired with other elements' moments. Only of one without, `empty_like` keeps the strides.
    dense = torch.empty_like(p, device="meta").stride() == p.stride()
    return p.is_floating_point() and p.device.type in ("cpu", "cuda") and dense


def needs_closure(opt: Any) -> bool:
    """Whether a step evaluates the loss itself, at several places perhaps, as LBFGS does."""
    closure = inspect.signature(type(opt).step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def refuse_closure(opt: Any, what: str) -> None:
    """Refuse an optimizer whose steps evaluate the loss out of sight of `what`, a callback.

    Raises:
        UsageError: it is one.
    """
    if needs_closure(opt):
        raise UsageError(
            f"{what} does not work with {type(opt).__name__}, which evaluates the loss itself in every step: take "
            "another optimizer"
        )


def makes_decay(opt_func: OptFunc) -> bool:
    """Whether the optimizer that this makes knows weight decay; where that cannot be seen, it is taken to."""
    try:
        arguments = inspect.signature(opt_func).parameters
    except (TypeError, ValueError):
        return True
    open_ended = any(a.kind is a.VAR_KEYWORD for a in arguments.values())
    return open_ended or "wd" in arguments or "weight_decay" in arguments


def param_groups(
    model: nn.Module, groups: Sequence[Iterable[nn.Parameter]], *, decay_all: bool = False
) -> list[dict[str, Any]]:
    """Make torch's parameter groups of a learner's: within each, norms and biases get no weight decay.

    Parameters that occur twice (tied weights) are taken once; those that need no gradient are left in, so that
    unfreezing them later keeps the optimizer's state.

    Args:
        model: Says which parameters belong to norms, and which are biases.
        groups: The learner's groups.
        decay_all: Treat norms and biases as all others.
    """
    exempt: set[int] = set()
    if not decay_all:
        exempt |= norm_params(model)
        exempt |= {id(p) for name, p in model.named_parameters() if name.rpartition(".")[2] == "bias"}
    seen: set[int] = set()
    made: list[dict[str, Any]] = []
    for i, group in enumerate(groups):
        params = [p for p in group if id(p) not in seen and not seen.add(id(p))]
        decayed = [p for p in params if id(p) not in exempt]
        plain = [p for p in params if id(p) in exempt]
        # `exempt` and not only a decay of 0: a schedule may take the others to 0 and back.
        made += [{"params": decayed, "group": i}] if decayed else []
        made += [{"params": plain, "group": i, "weight_decay": 0.0, "exempt": True}] if plain else []
    return made


def carry_state(old: Optimizer, new: Optimizer, set_aside: dict[Tensor, Any]) -> dict[Tensor, Any]:
    """Give a new optimizer the moments of those parameters that an old one of its kind held.

    Args:
        old: The optimizer until now.
        new: Takes its place.
        set_aside: Moments of parameters that `old` did not hold, but one before it.

    Returns:
        The moments of parameters that `new` does not hold, such as frozen ones that a splitter leaves out.
    """
    if type(old) is not type(new):  # a moment of the same name may mean something else
        return {}
    known = {**set_aside, **old.state}
    held = list(_tensors(new.param_groups))
    new.state.update({p: known[p] for p in held if p in known})
    return {p: state for p, state in known.items() if p not in new.state}


def forget(opt: Optimizer, params: Iterable[Tensor] | None = None) -> None:
    """Drop the moments of these parameters, None for all: the optimizer starts afresh with them."""
    for p in list(opt.state if params is None else params):
        opt.state.pop(p, None)
    if isinstance(opt, torch.optim.Adagrad):  # of torch 2.11, say: its constructor alone makes what a step needs
        start = opt.defaults["initial_accumulator_value"]
        fresh = torch.optim.Adagrad(list(map(dict, opt.param_groups)), initial_accumulator_value=start)
        opt.state.update({p: state for p, state in fresh.state.items() if p not in opt.state})


def align_state(opt: Optimizer) -> None:
    """Give moments the type, device and memory order of their parameter, whatever was done to that.

    Fused kernels pair a parameter's elements with their moments by the place in memory. Of a parameter that has another
    shape than when they were gathered, moments are dropped: those kernels would write beyond their end.
    """
    misshapen = [p for p, state in opt.state.items() if any(map(partial(_misshapen, p), state.items()))]
    if misshapen:
        forget(opt, misshapen)
    groups = {id(p): group for group in opt.param_groups for p in group["params"]}
    for p, state in opt.state.items():
        for name, value in state.items():
            if not isinstance(value, Tensor):
                continue
            # `step` has the shape of a parameter that is one number, and stays float32: float16 counts to 2,048 only.
            if name == "step" or value.shape != p.shape:
                state[name] = value.to(moment_device(value, p, groups.get(id(p), {})))
                continue
            dtype = p.dtype if value.is_floating_point() else value.dtype
            if (value.stride(), value.dtype, value.device) != (p.stride(), dtype, p.device):
                state[name] = torch.empty_like(p, dtype=dtype, requires_grad=False).copy_(value)


def moment_device(value: Tensor, p: Tensor, group: dict[str, Any]) -> torch.device:
    """Where torch keeps a part of a parameter's state: counts of steps beside it only if its kernel reads them."""
    there = group.get("fused") or group.get("capturable") or value.dim() or not p.dim()
    return p.device if there else torch.device("cpu")


def _misshapen(p: Tensor, moment: tuple[str, Any]) -> bool:
    name, value = moment
    return name in ELEMENTWISE and isinstance(value, Tensor) and value.shape != p.shape
