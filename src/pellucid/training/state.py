"""All of a learner that decides how its fit goes on, as one dictionary, and back: what a checkpoint holds.

| part | what is in it |
|---|---|
| `position` | epoch, batches of it that are done, of the fit, and of the fits before it; which fit of its call |
| `random` | every random generator: `now`, and at the epoch's `order`, when its order was drawn |
| `model`, `loss` | parameters and buffers by name |
| `optimizer` | moments, hyper-parameters, parameters that are nobody else's, gradients that wait for a step |
| `trains` | which parameters need gradients |
| `scaling` | of the losses, in float16 |
| `callbacks` | what each callback gives as its `state_dict()` |
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.errors import UsageError
from pellucid.optim.hypers import restore_hypers, snapshot_hypers
from pellucid.optim.optimizers import align_state, forget
from pellucid.seed import RandomState
from pellucid.text import first_few
from pellucid.training.checkpoint import check_moments, named_params, on_device, plain_model


def captured(learn: Any, epoch: int, batch: int, order: RandomState | None) -> dict[str, Any]:
    """Copies of everything, on the devices where it is, after `batch` batches of an epoch.

    Args:
        learn: A learner in a fit, between two batches of training or two epochs.
        epoch: The epoch that goes on, or begins.
        batch: Batches of it that are done.
        order: Random numbers as they were before the first of them; None where there was none.
    """
    return {
        "position": {
            "epoch": epoch,
            "batch": batch,
            "train_iter": learn.train_iter,
            "steps_before": learn.steps_before,
            "fit": learn.fit_number,
        },
        "random": {
            "now": RandomState(learn.dls.train).state_dict(),
            "order": None if order is None else order.state_dict(),
        },
        "model": _copied(_values(learn.model)),
        "loss": _copied(_values(learn.loss_func)),
        "trains": {name: p.requires_grad for name, p in plain_model(learn.model).named_parameters()},
        "optimizer": _copied(_of_optimizer(learn)),
        "scaling": None if learn.scaling is None else _copied(learn.scaling.state_dict()),
        "callbacks": {cb.name: _copied(state) for cb in learn.cbs if (state := cb.state_dict())},
    }


@torch.no_grad()
def put_back(learn: Any, state: dict[str, Any], *, changed: bool = False) -> None:
    """Give everything back but the random numbers, which are put back where they are drawn from.

    Args:
        learn: A learner whose fit has begun, with all events up to the place called.
        state: What `captured` gave.
        changed: The fit has other settings on purpose: the optimizer keeps those of its hyper-parameters.
    """
    position = state["position"]
    learn.train_iter, learn.steps_before = position["train_iter"], position["steps_before"]
    learn.resumed_order = state["random"]["order"]
    _put_values(learn.model, state["model"])
    _put_values(learn.loss_func, state["loss"])
    _put_optimizer(learn, state["optimizer"], with_hypers=not changed)
    if learn.scaling is not None and state["scaling"] is not None:
        learn.scaling.load_state_dict(state["scaling"])
    for cb in learn.cbs:
        if cb.name in state["callbacks"]:
            cb.load_state_dict(state["callbacks"][cb.name])


def refuse_other_model(learn: Any, state: dict[str, Any], what: str) -> None:
    """Raise UsageError where the weights are not those of this model and this loss."""
    for module, values in ((learn.model, state["model"]), (learn.loss_func, state["loss"])):
        own = _values(module)
        if module is learn.loss_func:  # which a callback may have replaced while training, by one with weights
            own = {name: value for name, value in own.items() if name in values}
            values = {name: value for name, value in values.items() if name in own}
        faults = [f"{name!r} is missing" for name in own if name not in values]
        faults += [f"{name!r} is not the model's" for name in values if name not in own]
        faults += [
            f"{name!r} is {_times(values[name])}, the model's is {_times(value)}"
            for name, value in own.items()
            if name in values and isinstance(value, Tensor) and values[name].shape != value.shape
        ]
        if faults:
            raise UsageError(f"{what}: is of another model: {first_few(faults, 3)}")


def _values(module: Any) -> dict[str, Any]:
    """Parameters and buffers of a module, tied ones once, and what else it keeps."""
    if not isinstance(module, nn.Module):
        return {}
    plain = plain_model(module)
    extra = {key: value for key, value in plain.state_dict().items() if key.endswith("_extra_state")}
    return {**dict(plain.named_parameters()), **dict(plain.named_buffers()), **extra}


def _put_values(module: Any, values: dict[str, Any]) -> None:
    own, others = _values(module), {}
    for name, value in values.items():
        if isinstance(own.get(name), Tensor) and not name.endswith("_extra_state"):
            own[name].data.copy_(value)
        else:
            others[name] = value
    if others:
        plain_model(module).load_state_dict(others, strict=False)


def _of_optimizer(learn: Any) -> dict[str, Any]:
    opt = learn.opt
    params, beside = named_params(learn.model, learn.loss_func, opt)
    return {
        "kind": type(opt).__name__,
        "moments": {name: opt.state[p] for name, p in params.items() if p in opt.state},
        "hypers": snapshot_hypers(opt),
        "beside": {name: p for name, p in beside.items() if not name.startswith("loss_func.")},
        "gradients": {name: p.grad for name, p in params.items() if p.grad is not None},
    }


def _put_optimizer(learn: Any, state: dict[str, Any], *, with_hypers: bool) -> None:
    opt = learn.opt
    if type(opt).__name__ != state["kind"]:
        raise UsageError(f"the checkpoint has moments of {state['kind']}, and this is {type(opt).__name__}")
    params, _ = named_params(learn.model, learn.loss_func, opt)
    forget(opt)
    if with_hypers:
        restore_hypers(opt, state["hypers"])
    groups = {id(p): group for group in opt.param_groups for p in group["params"]}
    for name, p in params.items():
        if name in state["beside"]:
            p.data.copy_(state["beside"][name])
        if name in state["moments"]:
            check_moments(state["moments"][name], p, repr(name))
            opt.state[p] = {k: on_device(_own(v), p, groups[id(p)]) for k, v in state["moments"][name].items()}
        gradient = state["gradients"].get(name)
        p.grad = None if gradient is None else torch.empty_like(p, requires_grad=False).copy_(gradient)
    align_state(opt)


def _own(value: Any) -> Any:
    """A copy, for a state that is given back may be given back again."""
    return value.clone() if isinstance(value, Tensor) else value


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(each) for each in value)
    return value


def _times(value: Any) -> str:
    return "×".join(map(str, getattr(value, "shape", ()))) or "a single number"
