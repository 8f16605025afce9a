"""What a watch does not see, and why: one sentence each, said once."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
import torch
from torch import nn

from pellucid.activations.outputs import Outputs
from pellucid.activations.recording import Recording
from pellucid.activations.vector import Count
from pellucid.optim.groups import parameters_of
from pellucid.text import first_few

FUSED = (
    "nn.TransformerEncoderLayer computes them in one operation in evaluation; "
    "torch.backends.mha.set_fastpath_enabled(False) makes them visible"
)
ATTENTION = "nn.MultiheadAttention applies their weights itself: its own output has the same values"
SCRIPTED = "TorchScript runs its layers where they cannot be seen"
UNUSED = "they were not called, or by forward() instead of (), or a function used their weights"
NO_LOSS = (
    "no loss was recorded: no backward() on a single number reached a parameter of this model; torch.autograd.grad is "
    "not seen"
)

_NOTHING = (
    "no watched layer of {} was called in {} steps: is this the model that trains, and is it called by model(x), not "
    "model.forward(x)? A function compiled by torch.compile hides the layers it calls; compile the model instead"
)


def of_replicas(model: nn.Module) -> str | None:
    """Of a DataParallel model on several devices."""
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        return (
            "DataParallel on several devices runs copies of the layers, which are not seen; use "
            "DistributedDataParallel, or watch with one device"
        )
    return None


def of_optimizer(optimizer: Any, model: nn.Module) -> str | None:
    """Of an optimizer that holds nothing of a model, or what is no longer in it."""
    own = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    held = {id(p) for p in parameters_of(optimizer)}
    if not held or not own:
        return None
    if not held & own.keys():
        return (
            f"this optimizer holds none of the parameters of {type(model).__name__}: their gradients and updates are "
            "not recorded; give the optimizer that trains the model, or with_grads=False"
        )
    missing = [name for p, name in own.items() if p not in held]
    if missing and held - {id(p) for p in model.parameters()}:
        return (
            f"the optimizer does not hold {first_few(missing, 3)}, but holds tensors that are not in the model: "
            "it does not train these parameters, and nothing is recorded of them; make the optimizer after replacing "
            "layers"
        )
    return None


def of_gradients(recording: Recording, with_grads: bool) -> str | None:
    """Of gradients that were asked for."""
    series = recording.series
    asked = series.params or (with_grads and recording.optimizer is None)
    if not asked or not recording.train.n or series.saw_gradient:
        return None
    return (
        "gradients were asked for, but there were none at any optimizer step: is backward() called inside the block, "
        "and does this optimizer hold the model's parameters?"
    )


def of_outside(model: nn.Module) -> str:
    """Of layers that were called without the model, whose passes are the steps."""
    return (
        f"layers of {type(model).__name__} were called outside of a call of the model, which without an optimizer "
        "ends no step: call model(x), not model.forward(x) or its parts, or give the optimizer"
    )


def of_idle(names: list[str]) -> str | None:
    """Of parameters that get gradients and never move."""
    if not names:
        return None
    verb = "get gradients, but are" if len(names) > 1 else "gets gradients, but is"
    return (
        f"{first_few(names, 3)} {verb} not in the optimizer and never moved: was a layer replaced after the "
        "optimizer was made? Nothing is recorded of such parameters"
    )


def of_layers(model: nn.Module, outputs: Outputs, called: Set[bool], steps: int) -> list[str]:
    """Of layers that nothing is recorded of; `called` has the modes, training or not, in which the model itself was."""
    tables = {"training": outputs.train, "validation": outputs.valid}
    counts = {phase: x.cells[..., Count.N : Count.NEAR_ZERO].sum(axis=(1, 2)) for phase, x in tables.items()}
    silent = {
        phase: set(np.flatnonzero(n == 0).tolist())
        for phase, n in counts.items()
        if n.any() or (phase == "training") in called
    }
    always = set.intersection(*silent.values()) if silent else set()
    names, sentences = list(outputs.targets), []
    for when, rows in {"": always, **{f" in {phase}": rows - always for phase, rows in silent.items()}}.items():
        evaluated = "validation" in when or "training" not in silent
        reasons: dict[str, list[str]] = {}
        for row in sorted(rows - outputs.ignored.keys()):
            reasons.setdefault(_why(model, names[row], evaluated), []).append(names[row])
        sentences += [f"nothing is recorded of {first_few(of, 3)}{when}: {why}" for why, of in reasons.items()]
    if not outputs.ignored and not any(n.any() for n in counts.values()):
        return [each for each in sentences if not each.endswith(UNUSED)] or [
            _NOTHING.format(type(model).__name__, steps)
        ]
    others = [f"{names[row]} ({what})" for row, what in list(outputs.ignored.items())[1:]]  # the first was said
    return sentences + [f"nor could be recorded what these output: {first_few(others, 3)}"] * bool(others)


def of_changes(model: nn.Module, outputs: Outputs) -> str | None:
    """Of watched modules that left the model meanwhile."""
    there = {id(module) for module in model.modules()}
    gone = [name for name, module in outputs.targets.items() if id(module) not in there]
    if not gone:
        return None
    return f"{first_few(gone, 3)} left the model while it was watched; what came instead was not recorded"


def _why(model: nn.Module, name: str, evaluated: bool) -> str:
    above = [model]
    for part in name.split(".")[:-1]:
        above.append(above[-1]._modules.get(part) or above[-1])
    if any(isinstance(m, torch.jit.ScriptModule) for m in above):
        return SCRIPTED
    if isinstance(above[-1], nn.MultiheadAttention):
        return ATTENTION
    if evaluated and any(isinstance(m, nn.TransformerEncoderLayer) for m in above):
        return FUSED
    return UNUSED
