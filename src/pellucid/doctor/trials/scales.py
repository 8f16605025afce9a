"""Trials of the size of things: inputs, activations and gradients from layer to layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.doctor.rules.wording import num, times
from pellucid.doctor.trials.core import Outcome, trial
from pellucid.doctor.trials.nested import tensors_of
from pellucid.doctor.trials.replay import CapturedBatch
from pellucid.doctor.trials.specimen import Specimen
from pellucid.doctor.trials.weighing import confirming, end, gain, helped, instead

WEIGHTED = nn.Linear, nn.modules.conv._ConvNd
CELL_CALLS = 8  # in a pass, from which on a layer is taken for the cell of a recurrent network


def rescale(model: nn.Module, batch: CapturedBatch) -> None:
    """Give what each layer of a copy computes on a batch, bias aside, a deviation of 1, by scaling its weights in turn.

    Source: layer-sequential unit variance, Mishkin & Matas, arXiv:1511.06422, without its orthogonal start.
    """
    _measured(model, batch, scale=True)


def deviations(model: nn.Module, batch: CapturedBatch) -> dict[str, float]:
    """Layer with weights → standard deviation of its output on a batch, in the order of execution."""
    return _measured(model, batch, scale=False)


def _measured(model: nn.Module, batch: CapturedBatch, *, scale: bool) -> dict[str, float]:
    found: dict[str, float] = {}

    def hook(path: str) -> Callable[..., Any]:
        def measure(module: Any, args: Any, output: Tensor) -> Tensor | None:
            if path in found:
                return None  # shared weights are scaled for the first place they are used in
            bias = _bias(module)
            without = output if bias is None else output - bias
            found[path] = float(output.float().std())
            std = float(without.float().std())
            if not scale or not 1e-12 < std < float("inf"):
                return None
            module.weight.data.div_(std)
            return without / std if bias is None else without / std + bias

        return measure

    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, WEIGHTED)]
    hooks = [module.register_forward_hook(hook(path)) for path, module in layers]
    try:
        with torch.no_grad():
            batch.call(model)
    finally:
        for each in hooks:
            each.remove()
    return found


@trial("initial-scale")
def initial_scale(specimen: Specimen) -> Outcome | None:
    """The same descent from weights that are scaled so that every layer outputs a standard deviation of 1."""
    scaled = specimen.copy()
    rescale(scaled, specimen.train[0])
    stds = deviations(specimen.copy(), specimen.train[0])
    if not stds or not all(np.isfinite(list(stds.values()))):
        return None
    n = specimen.steps(2)
    before, after = specimen.descend(specimen.copy(), n), specimen.descend(scaled, n)
    typical = float(np.exp(np.mean(np.log(np.maximum(list(stds.values()), 1e-30)))))
    factor = helped(before, after, specimen.start, specimen.achieved)
    sides = ("initial-scale-too-small", "initial-scale-too-large")
    # Saturated units are freed by smaller weights; a run that gets over them in time lost that time to them.
    freed = min(max(confirming(gain(before, after, specimen.start)), 0.5), 3.0) if typical > 1 else 1.0
    small, large = (factor, 0.2 * min(factor, 1)) if typical < 1 else (0.2 * min(factor, 1), factor)
    layers = list(stds)
    return Outcome(
        trial="initial-scale",
        says=f"{n} steps with weights scaled so that every layer outputs a standard deviation of 1 (it was "
        f"{num(stds[layers[0]])} in the first layer and {num(stds[layers[-1]])} in the last): {instead(before, after)}",
        numbers={"steps": n, "as it was": end(before), "scaled": end(after), "deviations": stds},
        curves={"as it was": before, "weights scaled": after},
        odds={**dict(zip(sides, (small, large), strict=True)), "saturated-units": freed},
        rules_out=dict.fromkeys(sides, "no better with scaled weights") if factor < 0.3 else {},
    )


@trial("gradient-flow")
def gradient_flow(specimen: Specimen) -> Outcome | None:
    """How large the gradient is at each layer's output, and the output itself, at the initial weights."""
    outputs, gradients, through = _flow(specimen.copy(), specimen.train[0])
    if not all(np.isfinite([*gradients.values(), *through.values()])) or (len(gradients) < 3 and not through):
        return None
    layers = list(gradients)
    first, last = max(gradients[layers[0]], 1e-45), max(gradients[layers[-1]], 1e-45)
    sizes = [size for size in outputs.values() if size > 0] or [1.0]  # the first rows of an image may be empty
    grows = sizes[-1] / sizes[0]
    ratio = first / last
    if through and max(through.values()) > max(ratio, 1e3):
        return _through_time(max(through, key=through.__getitem__), through)
    if len(gradients) < 3:
        return None
    steady = 1 / 30 < grows < 30  # activations keep their size
    odds = {"vanishing-gradients": 0.2, "exploding-gradients": 0.2}
    if ratio < 1e-3:
        odds["vanishing-gradients"] = 10.0 if steady else 0.8
    elif ratio > 1e3:
        odds["exploding-gradients"] = 10.0 if steady else 0.8
    elif ratio > 30:
        odds["exploding-gradients"] = 0.8  # no proof of it, and no reason against it
    odds["initial-scale-too-small"] = 8.0 if grows < 1e-3 else 3.0 if grows < 0.01 else 1.2 if grows < 0.1 else 0.3
    odds["initial-scale-too-large"] = 8.0 if grows > 1e3 else 3.0 if grows > 100 else 1.2 if grows > 10 else 0.3
    return Outcome(
        trial="gradient-flow",
        says=f"with the initial weights, the gradient at the first layer is {times(ratio)} that at the last, and the "
        f"activations of the last layer are {times(grows)} those of the first",
        numbers={
            "first over last": ratio,
            "activations last over first": grows,
            "gradients": gradients,
            "outputs": outputs,
        },
        odds=odds,
        rules_out={
            f"{word}-gradients": f"a factor of {num(float(f'{ratio:.2g}'))} between the first layer and the last"
            for word in ("vanishing", "exploding")
            if odds[f"{word}-gradients"] < 0.3
        },
    )


def _through_time(path: str, through: dict[str, float]) -> Outcome:
    said = f"{times(through[path])} that at the last"
    return Outcome(
        trial="gradient-flow",
        says=f"with the initial weights, the gradient at the first time step of {path} is {said}",
        numbers={"first over last time step": through},
        odds={"exploding-gradients": 10.0, "vanishing-gradients": 0.2},
        rules_out={"vanishing-gradients": f"the gradient at the first time step is {said}"},
    )


def _flow(model: nn.Module, batch: CapturedBatch) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Layer with weights → root mean square of its output without the bias, and norm of the loss's gradient there.

    Third, recurrent module → the gradient at what it is given first over that at what it is given last, of those in one
    direction; of a layer that is called again and again, as in a cell written by hand, that at what it gives.
    """
    kept: dict[str, Tensor] = {}
    given: dict[str, tuple[Tensor, int]] = {}
    again: dict[str, list[Tensor]] = {}
    outputs: dict[str, float] = {}

    def keep_input(path: str) -> Callable[..., Any]:
        def hook(module: nn.RNNBase, args: Any) -> Any:
            x = args[0]
            if path in given or module.bidirectional or not isinstance(x, Tensor) or x.dim() != 3:
                return None
            x = x if x.requires_grad else x.detach().requires_grad_()
            x.retain_grad()
            given[path] = x, 1 if module.batch_first else 0
            return x, *args[1:]

        return hook

    def keep(path: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            found = next((t for t in tensors_of(output) if t.requires_grad), None)
            if found is None:
                return
            found.retain_grad()
            again.setdefault(path, []).append(found)
            if path not in kept:
                kept[path] = found
                outputs[path] = _size(found.detach(), _bias(module))

        return hook

    own = [(path, m) for path, m in model.named_modules() if isinstance(m, WEIGHTED) or _is_recurrent(m)]
    hooks = [module.register_forward_hook(keep(path)) for path, module in own]
    hooks += [m.register_forward_pre_hook(keep_input(path)) for path, m in own if isinstance(m, nn.RNNBase)]
    try:
        batch.replay(model)[0].backward()
    finally:
        for each in hooks:
            each.remove()
    gradients = {path: float(t.grad.double().norm()) for path, t in kept.items() if t.grad is not None}
    through = {}
    for path, (x, axis) in given.items():
        if x.grad is not None and x.shape[axis] > 1:
            first, last = (float(x.grad.select(axis, at).double().norm()) for at in (0, -1))
            through[path] = first / last if last > 0 else 0.0
    for path, calls in again.items():
        ends = [t.grad for t in (calls[0], calls[-1])]
        if len(calls) >= CELL_CALLS and ends[0] is not None and ends[1] is not None and ends[1].any():
            through[path] = float(ends[0].double().norm() / ends[1].double().norm())
    return outputs, gradients, through


def _size(output: Tensor, bias: Tensor | None) -> float:
    """Root mean square of an output without its bias, which would hide that what comes from below shrinks."""
    without = output if bias is None else output - bias
    return float(without.double().square().mean().sqrt())


def _bias(module: Any) -> Tensor | None:
    """The bias of a linear layer or convolution, in the shape to broadcast; None of other modules."""
    if not isinstance(module, WEIGHTED) or module.bias is None:
        return None
    return (
        module.bias.detach()
        if isinstance(module, nn.Linear)
        else module.bias.detach().reshape(-1, *[1] * (module.weight.dim() - 2))
    )


def _is_recurrent(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase | nn.RNNCellBase)


@trial("normalised-input")
def normalised_input(specimen: Specimen) -> Outcome | None:
    """The same descent with inputs of mean 0 and deviation 1 in each channel."""
    statistics = input_statistics(specimen.train)
    if not statistics:
        return None
    mean, std = (float(t.mean()) for t in next(iter(statistics.values())))
    numbers: dict[str, object] = {"mean": mean, "deviation": std}
    if abs(mean) < 1 and 0.2 < std < 3:
        return Outcome(
            trial="normalised-input",
            says=f"the inputs have a mean of {num(mean)} and a standard deviation of {num(std)}, which is fine",
            numbers=numbers,
            odds={"inputs-not-normalised": 0.05},
            rules_out={"inputs-not-normalised": f"mean {num(mean)}, standard deviation {num(std)}"},
        )
    normalised = standardised(statistics)
    n = specimen.steps(2)
    before = specimen.descend(specimen.copy(), n)
    after = specimen.descend(
        specimen.copy(), n, loss=lambda batch, model: batch.replay(model, inputs=normalised(batch))[0]
    )
    factor = helped(before, after, specimen.start, specimen.achieved)
    if std > 10 and abs(end(before) - end(after)) > 0.02 * specimen.start:
        factor = max(factor, 0.3)  # no norm makes up for it; larger gradients only came further in so few steps
    return Outcome(
        trial="normalised-input",
        says=f"{n} steps with inputs normalised to mean 0 and standard deviation 1 (they have {num(mean)} and "
        f"{num(std)}): {instead(before, after)}",
        numbers=numbers | {"steps": n, "as it was": end(before), "normalised": end(after)},
        curves={"as it was": before, "inputs normalised": after},
        odds={"inputs-not-normalised": factor},
        rules_out={"inputs-not-normalised": "no better with normalised inputs"} if factor < 0.3 else {},
    )


def input_statistics(batches: Sequence[CapturedBatch]) -> dict[int, tuple[Tensor, Tensor]]:
    """Of floating-point inputs with two or more axes: place → mean and deviation of each channel, ready to broadcast.

    Channels are along axis 1; the features of a plain vector are taken together.
    """
    found = {}
    for i, first in enumerate(batches[0].input_values):
        if first.is_floating_point() and first.dim() > 1:
            every = torch.cat([batch.input_values[i].float() for batch in batches])
            axes = [axis for axis in range(every.dim()) if axis != 1 or every.dim() == 2]
            found[i] = every.mean(axes, keepdim=True), every.std(axes, keepdim=True).clamp_min(1e-6)
    return found


def standardised(statistics: dict[int, tuple[Tensor, Tensor]]) -> Callable[[CapturedBatch], list[Tensor]]:
    """A batch's inputs, those with statistics normalised."""

    def inputs(batch: CapturedBatch) -> list[Tensor]:
        return [
            ((t.float() - statistics[i][0]) / statistics[i][1]).to(t.dtype) if i in statistics else t
            for i, t in enumerate(batch.input_values)
        ]

    return inputs


@trial("with-batchnorm")
def with_batchnorm(specimen: Specimen) -> Outcome | None:
    """The same descent with batch normalisation after every layer but the last."""
    model = specimen.copy()
    norms = put_batchnorm(model, specimen.train[0])
    if not norms:
        return None
    n = specimen.steps(2)
    before = specimen.descend(specimen.copy(), n)
    after = specimen.descend(model, n, optimizers=with_norms(specimen.optimizers(model), norms))
    faults = ("vanishing-gradients", "exploding-gradients", "initial-scale-too-small", "initial-scale-too-large")
    more = gain(before, after, specimen.start)
    return Outcome(
        trial="with-batchnorm",
        says=f"{n} steps with batch normalisation after every layer but the last: {instead(before, after)}",
        numbers={"steps": n, "as it was": end(before), "with batchnorm": end(after)},
        curves={"as it was": before, "with batchnorm": after},
        odds=dict.fromkeys(faults, 2.0 if more > 0.3 else 0.6 if more < 0.05 else 1.0),
    )


def put_batchnorm(model: nn.Module, batch: CapturedBatch) -> list[nn.Module]:
    """Put a batch norm after each convolution and linear layer of a copy but the last, by hooks: the norms.

    Nothing where the model has norms already.
    """
    if any(isinstance(m, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm) for m in model.modules()):
        return []
    norms: list[nn.Module] = []
    for path in list(deviations(model, batch))[:-1]:
        layer: Any = model.get_submodule(path)
        if isinstance(layer, nn.modules.conv._ConvNd):
            norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[layer.weight.dim() - 2](layer.out_channels)
        else:
            norm = nn.BatchNorm1d(layer.out_features)
        norm = norm.to(layer.weight.device, layer.weight.dtype)
        layer.register_forward_hook(lambda module, args, output, norm=norm: _normed(norm, module, output))
        norms.append(norm)
    return norms


def with_norms(optimizers: list[torch.optim.Optimizer], norms: Sequence[nn.Module]) -> list[torch.optim.Optimizer]:
    """The optimizers, the first with the weights of these norms too, without decay."""
    rate = optimizers[0].param_groups[0]["lr"]
    weights = [p for norm in norms for p in norm.parameters()]
    optimizers[0].add_param_group({"params": weights, "lr": rate, "weight_decay": 0.0})
    return optimizers


def _normed(norm: nn.Module, layer: nn.Module, output: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear) and output.dim() > 2:  # on sequences: features come last
        return norm(output.flatten(0, -2)).reshape(output.shape)
    return norm(output)
