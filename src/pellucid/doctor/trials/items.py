"""Trials of what a model computes from a batch that it would not compute from its items one by one."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.doctor.rules.wording import percent
from pellucid.doctor.trials.core import Outcome, trial
from pellucid.doctor.trials.nested import tensors_of
from pellucid.doctor.trials.specimen import Specimen, copied
from pellucid.doctor.trials.weighing import end, helped, instead, said
from pellucid.nn.norms import is_batch_norm

FEW_VALUES = 4  # per channel, below which statistics of a batch are noise
PROBED = 3  # items whose outputs are followed back


@trial("image-mixing")
def image_mixing(specimen: Specimen) -> Outcome | None:
    """The gradient of one item's output with respect to the other items, in evaluation mode."""
    batch, model = specimen.train[0], specimen.copy(present=True).eval()
    n = len(batch)
    if n < 2 or not batch.input_values or not any(t.is_floating_point() for t in batch.input_values):
        return None
    inputs = [t.detach().requires_grad_() if t.is_floating_point() else t for t in batch.input_values]
    output = next((t for t in tensors_of(batch.call(model, inputs)) if t.requires_grad and t.dim()), None)
    followed = [t for t in inputs if t.requires_grad and len(t) == n]
    if output is None or len(output) != n or not followed:
        return None
    weights = torch.randn(output.shape[1:], device=output.device, dtype=output.dtype)
    shares = []
    for i in range(0, n, max(1, n // PROBED)):
        gradients = torch.autograd.grad((output[i] * weights).sum(), followed, retain_graph=True, allow_unused=True)
        own = sum(float(g[i].double().square().sum()) for g in gradients if g is not None)
        every = sum(float(g.double().square().sum()) for g in gradients if g is not None)
        if every > 0:
            shares.append(math.sqrt(max(every - own, 0.0) / every))
    if not shares:
        return None
    share = max(shares)
    mixed = share > 1e-6
    return Outcome(
        trial="image-mixing",
        says=f"in evaluation mode, {percent(share)} of the gradient of an item's output goes to others in its batch"
        if mixed
        else "in evaluation mode, the output of an item does not depend on the other items in its batch",
        numbers={"share of others": share, "items": n},
        odds={"batch-mixing": 100.0 if share > 1e-3 else 10.0 if mixed else 0.01},
        rules_out={} if mixed else {"batch-mixing": "no gradient from one item's output to another item"},
    )


@trial("norm-modes")
def norm_modes(specimen: Specimen) -> Outcome | None:
    """The same batches and weights with norms in either mode; and the same descent with norms in training mode."""
    model = specimen.copy(present=True)
    norms = [path for path, module in model.named_modules() if is_batch_norm(module)]
    if not norms:
        return None
    in_eval = [path for path in norms if not model.get_submodule(path).training]
    losses = {}
    for mode in (True, False):
        each = copied(model)
        for module in each.modules():
            if is_batch_norm(module):
                module.train(mode)
            elif isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()
        losses[mode] = float(np.mean([float(batch.replay(each)[0].detach()) for batch in specimen.train]))
    ratio = losses[False] / max(losses[True], 1e-12)
    sizes = _values_per_channel(specimen, model)
    # Running statistics may be right on average, and training suffer all the same from those of two or three values.
    calm = 0.9 if sizes <= FEW_VALUES else 0.3
    odds = {"batchnorm-batch-too-small": 4.0 if ratio > 2 and sizes < 32 else calm if ratio < 1.2 else 1.0}
    numbers: dict[str, object] = {"train": losses[True], "eval": losses[False], "values per channel": sizes}
    numbers["norms in evaluation mode"] = len(in_eval)
    curves: dict[str, np.ndarray] = {}
    says = f"the captured batches have a loss of {said(losses[True])} with batch norms in training mode and of "
    says += f"{said(losses[False])} in evaluation mode"
    if in_eval:
        n = specimen.steps(2)
        before, trained = specimen.descend(specimen.copy(), n), specimen.copy()
        for path in norms:
            trained.get_submodule(path).train()
        after = specimen.descend(trained, n)
        curves = {"as it was": before, "norms in training mode": after}
        numbers |= {"steps": n, "as it was": end(before), "norms in training mode": end(after)}
        # A frozen body keeps its norms in evaluation mode on purpose, and is no worse for it.
        odds["model-left-in-eval-mode"] = max(helped(before, after, specimen.start, specimen.achieved), 0.3)
        says += f"; {n} steps with batch norms in training mode: {instead(before, after)}"
    else:
        odds["model-left-in-eval-mode"] = 0.3
    return Outcome(trial="norm-modes", says=says, numbers=numbers, curves=curves, odds=odds)


def _values_per_channel(specimen: Specimen, model: nn.Module) -> int:
    """The fewest values that the statistics of a norm are of."""
    fewest: list[int] = []

    def count(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        fewest.append(args[0].numel() // args[0].shape[1])

    hooks = [m.register_forward_pre_hook(count) for m in model.modules() if is_batch_norm(m)]
    try:
        specimen.train[0].replay(model)
    finally:
        for hook in hooks:
            hook.remove()
    return min(fewest, default=0)
