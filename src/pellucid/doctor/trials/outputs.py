"""Trials of what lies between the last layer and the loss: activations, shapes, and the loss itself."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.doctor.rules.wording import percent
from pellucid.doctor.trials.core import Outcome, trial
from pellucid.doctor.trials.nested import tensors_of
from pellucid.doctor.trials.operations import Operation
from pellucid.doctor.trials.replay import CapturedBatch, Skipping
from pellucid.doctor.trials.specimen import Loss, Specimen
from pellucid.doctor.trials.tape import Tape
from pellucid.doctor.trials.weighing import confirming, end, instead, said

SOFTMAXES = frozenset({"softmax", "log_softmax", "softmin"})
EXTRA_SOFTMAXES = SOFTMAXES - {"log_softmax"}  # cross-entropy leaves log-softmax as it is
BOUNDED = frozenset(
    {"relu", "relu_", "relu6", "sigmoid", "sigmoid_", "tanh", "tanh_", "hardtanh", "hardsigmoid", "softplus", "clamp"}
)
LOSSES = frozenset(
    {"cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "l1_loss"}
    | {"smooth_l1_loss", "huber_loss", "kl_div", "multi_margin_loss", "hinge_embedding_loss"}
)
# Whose inputs have no bounds.
LOGITS = frozenset({"cross_entropy", "binary_cross_entropy_with_logits"})
# What they can output; targets of a regression that lie in it need no more.
RANGES = {
    **dict.fromkeys(("sigmoid", "hardsigmoid"), (0.0, 1.0)),
    **dict.fromkeys(("tanh", "hardtanh"), (-1.0, 1.0)),
    **dict.fromkeys(("relu", "softplus"), (0.0, math.inf)),
    "relu6": (0.0, 6.0),
}
# Which activations each loss wants before it.
WANTED: Mapping[str, Collection[str]] = {
    "nll_loss": SOFTMAXES,
    "kl_div": SOFTMAXES,
    "binary_cross_entropy": {"sigmoid", "sigmoid_", "hardsigmoid", *SOFTMAXES},
}
# What multiplies by weights ends the search for what comes after the last layer.
LAYERS = frozenset(
    {"linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "einsum", "batch_norm"}
    | {"layer_norm", "group_norm", "instance_norm", "embedding", "lstm", "gru", "rnn_tanh", "rnn_relu"}
    | {"multi_head_attention_forward", "scaled_dot_product_attention"}
    | {f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)}
)
FEW = 64  # operations between the last layer and the loss; more is another kind of program


@dataclass(frozen=True)
class Tail:
    """What a pass applied after its last layer with weights and before the loss, and the name of the loss function."""

    ops: list[Operation]
    loss: str

    def activations(self, names: Collection[str]) -> list[Operation]:
        """Those of these names that the loss does not want; a `log` takes a softmax back that cross-entropy repeats."""
        wanted = WANTED.get(self.loss, ())
        logged = any(op.name == "log" for op in self.ops)
        return [op for op in self.ops if op.name in names and op.name not in wanted and not logged]


def tail(batch: CapturedBatch, model: nn.Module) -> tuple[Tail, list[Operation]]:
    """The tail of a pass on a copy of the model, and all operations of the pass in order."""
    tape = Tape(model)
    first = model.get_submodule(str(batch.steps[0].function))
    hook = first.register_forward_pre_hook(
        lambda module, args: None if tape.recording else tape.begin(args, None, first)
    )
    try:
        loss = batch.replay(model)[0]
        ops = list(tape.ops)
    finally:
        hook.remove()
        tape.abandon()
    makers = {id(t): op for op in ops for t in tensors_of(op.result)}
    behind = _behind([makers[id(loss)]] if id(loss) in makers else ops[-1:], makers)
    last = next((op for op in behind if op.name in LOSSES), None)
    if last is None:  # put together by hand: a function outside of the model may be part of the loss, as in a hinge
        return Tail([op for op in behind if op.module is not None], ""), ops
    before = [makers[id(t)] for t in list(tensors_of((last.args, last.kwargs)))[:1] if id(t) in makers]
    return Tail(_behind(before, makers), last.name), ops


def _behind(ops: list[Operation], makers: Mapping[int, Operation]) -> list[Operation]:
    """These operations and those they were computed from, back to layers with weights."""
    found: list[Operation] = []
    queue = deque(ops)
    while queue and len(found) < FEW:
        op = queue.popleft()
        if op.name in LAYERS or op in found:
            continue
        found.append(op)
        before = [makers.get(id(t)) for t in tensors_of((op.args, op.kwargs))]
        queue.extend(each for each in before if each is not None and each is not op)
    return found


@trial("without-softmax")
def without_softmax(specimen: Specimen) -> Outcome | None:
    """The same descent without the softmax that the loss does not want."""
    return _without(specimen, "without-softmax", EXTRA_SOFTMAXES, "softmax-before-cross-entropy")


@trial("without-output-activation")
def without_output_activation(specimen: Specimen) -> Outcome | None:
    """The same descent without the activation function after the last layer."""
    return _without(specimen, "without-output-activation", BOUNDED, "activation-on-output")


def without(specimen: Specimen, names: Collection[str]) -> tuple[Loss, Tail, Operation] | None:
    """The loss of a pass without the activations of these names before it, its tail, and the activation."""
    found, ops = tail(specimen.train[0], specimen.copy())
    extra = found.activations(names)
    if not extra:
        return None
    nth = {op.name: {_position(each, ops) for each in extra if each.name == op.name} for op in extra}

    def loss(batch: CapturedBatch, model: nn.Module) -> Tensor:
        with Skipping(nth.keys(), nth):
            return batch.replay(model)[0]

    return loss, found, extra[0]


def _without(specimen: Specimen, name: str, names: Collection[str], fault: str) -> Outcome | None:
    found = without(specimen, names)
    if found is None:
        return None
    loss, before_loss, extra = found
    n = specimen.steps(2)
    before, after = specimen.descend(specimen.copy(), n), specimen.descend(specimen.copy(), n, loss=loss)
    what = extra.name.rstrip("_")
    # Here a healthy start is no excuse: a softmax slows a descent that goes on.
    factor = confirming((end(before) - end(after)) / max(abs(float(before[0])), 1e-12) + 0.1)
    excused = _in_range(what, before_loss.loss, specimen.train)
    if excused:
        factor = min(factor, 0.3)
    elif before_loss.loss in LOGITS:  # what it cuts off may be missed after these steps only
        factor = max(factor, 0.7)
    no_better = f"the targets lie in the range of {what}" if excused else f"no better without the {what}"
    return Outcome(
        trial=name,
        says=f"{n} steps without the {what} on the same batches: {instead(before, after)}",
        numbers={
            "steps": n,
            "as it was": end(before),
            "without": end(after),
            "function": what,
            "loss": before_loss.loss,
            "module": extra.module,
            "kind": extra.kind,
            "where": extra.where or _line_of(extra, specimen.train[0]),
        },
        curves={"as it was": before, f"without {what}": after},
        odds={fault: factor},
        rules_out={fault: no_better} if factor <= 0.3 else {},
    )


def _in_range(activation: str, loss: str, batches: list[CapturedBatch]) -> bool:
    """Whether the loss compares values and all targets are values that the activation can output."""
    targets = [t for batch in batches for t in batch.label_values]
    if loss not in ("", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss") or not targets:
        return False
    low, high = RANGES.get(activation, (math.inf, -math.inf))
    return all(t.is_floating_point() and low <= float(t.min()) and float(t.max()) <= high for t in targets)


def _line_of(op: Operation, batch: CapturedBatch) -> str:
    """Where the program calls the model, or the function outside of it, for what is called by torch's own code."""
    steps = batch.steps[:1] if op.module is not None else [step for step in batch.operations if step.name == op.name]
    return next((step.where for step in steps), "")


def _position(op: Operation, ops: list[Operation]) -> int:
    return [each for each in ops if each.name == op.name].index(op)


@trial("equal-shapes")
def equal_shapes(specimen: Specimen) -> Outcome | None:
    """The same descent with targets in the shape of the output, so that nothing is broadcast between them."""
    batch = specimen.train[0]
    with torch.no_grad():
        output = _prediction(batch.replay(specimen.copy())[1])
    if output is None or len(batch.label_values) != 1:
        return None
    labels = batch.label_values[0]
    if not labels.is_floating_point() or labels.shape == output.shape or labels.numel() != output.numel():
        return None

    def loss(batch: CapturedBatch, model: nn.Module) -> Tensor:
        shape = (-1, *output.shape[1:])
        return batch.replay(model, labels=[each.reshape(shape) for each in batch.label_values])[0]

    n = specimen.steps(2)
    sick, well = specimen.copy(), specimen.copy()
    before, after = specimen.descend(sick, n), specimen.descend(well, n, loss=loss)
    with torch.no_grad():  # both by the loss of equal shapes, or it would be two different losses that are compared
        reached = [float(np.mean([float(loss(b, model)) for b in specimen.train])) for model in (sick, well)]
        first = float(np.mean([float(loss(b, specimen.copy())) for b in specimen.train]))
    factor = confirming((reached[0] - reached[1]) / max(first, 1e-12))
    shapes = tuple(labels.shape), tuple(output.shape)
    return Outcome(
        trial="equal-shapes",
        says=f"{n} steps with targets of shape {shapes[1]} instead of {shapes[0]}: "
        f"error {said(reached[1])} instead of {said(reached[0])}",
        numbers={
            "steps": n,
            "as it was": reached[0],
            "equal shapes": reached[1],
            "start": first,
            "target": list(shapes[0]),
            "output": list(shapes[1]),
        },
        curves={"as it was": before, "equal shapes": after},
        odds={"broadcast-in-loss": factor},
        rules_out={"broadcast-in-loss": "no better with equal shapes"} if factor < 0.3 else {},
    )


@trial("fitting-loss")
def fitting_loss(specimen: Specimen) -> Outcome | None:
    """Cross-entropy of classes in place of the loss that was used, judged by the share of right answers."""
    batch, model = specimen.train[0], specimen.copy()
    with torch.no_grad():
        output = _prediction(batch.replay(model)[1])
    found, _ = tail(batch, model)
    if output is None or output.dim() != 2 or output.shape[1] < 2 or found.loss in ("cross_entropy", "nll_loss"):
        return None
    if len(batch.label_values) != 1 or classes_of(batch.label_values[0], output.shape[1]) is None:
        return None

    def loss(batch: CapturedBatch, model: nn.Module) -> Tensor:
        output = _prediction(batch.call(model))
        assert output is not None
        return F.cross_entropy(output, _classes(batch, output.shape[1]))

    n = specimen.steps(2)
    as_was, fitting = specimen.copy(), specimen.copy()
    before, after = specimen.descend(as_was, n), specimen.descend(fitting, n, loss=loss)
    right = [accuracy(specimen.train, each) for each in (as_was, fitting)]
    factor = confirming(right[1] - right[0])
    return Outcome(
        trial="fitting-loss",
        says=f"{n} steps with cross-entropy: {percent(right[1])} of the captured items right instead of "
        f"{percent(right[0])}",
        numbers={"steps": n, "as it was": right[0], "cross-entropy": right[1], "loss": found.loss},
        curves={"as it was": before, "cross-entropy": after},
        odds={"wrong-loss": factor},
        rules_out={"wrong-loss": "no better with cross-entropy"} if factor < 0.3 else {},
    )


def classes_of(labels: Tensor, width: int) -> Tensor | None:
    """The class of each item, from whole numbers or rows with a single 1; None where the labels are neither."""
    if labels.dim() == 2 and labels.shape[1] == width:
        one_hot = bool(((labels == 0) | (labels == 1)).all()) and bool((labels.sum(1) == 1).all())
        return labels.argmax(1) if one_hot else None
    flat = labels.reshape(len(labels), -1)
    if flat.shape[1] != 1 or (labels.is_floating_point() and not bool((labels == labels.round()).all())):
        return None
    classes = flat[:, 0].long()
    return classes if int(classes.min()) >= 0 and int(classes.max()) < width else None


def _classes(batch: CapturedBatch, width: int) -> Tensor:
    classes = classes_of(batch.label_values[0], width)
    assert classes is not None
    return classes


def accuracy(batches: list[CapturedBatch], model: nn.Module) -> float:
    """The share of items whose largest output is their class, in the modes the copy is in."""
    right = items = 0
    with torch.no_grad():
        for batch in batches:
            output = _prediction(batch.call(model))
            assert output is not None
            classes = _classes(batch, output.shape[1])
            right += int((output.argmax(1) == classes).sum())
            items += len(classes)
    return right / items


def _prediction(output: Any) -> Tensor | None:
    """The first floating-point tensor with an entry for each item in what a model returned."""
    return next((t for t in tensors_of(output) if t.is_floating_point() and t.dim()), None)
