"""Trials of what can be learnt at all: one batch by heart, all captured ones, and more than by heart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.doctor.evidence.inputs import hashes
from pellucid.doctor.trials.core import Outcome, trial
from pellucid.doctor.trials.nested import tensors_of
from pellucid.doctor.trials.optimizers import sane
from pellucid.doctor.trials.outputs import classes_of
from pellucid.doctor.trials.replay import CapturedBatch, can_be_dealt, dealt
from pellucid.doctor.trials.specimen import Specimen
from pellucid.doctor.trials.weighing import end, progress, said
from pellucid.text import counted

LEARNT = 0.7  # of its loss lost: a batch that is being learnt by heart
# What keeps even one batch from being learnt, and how much one that was learnt speaks against it.
IN_THE_WAY = {
    "softmax-before-cross-entropy": 0.03,
    "activation-on-output": 0.7,  # where one batch is learnt, others may need what the activation cuts off
    "broadcast-in-loss": 0.05,
    "broken-graph": 0.3,
    "constant-input": 0.05,
    "symmetric-initialisation": 0.3,
    "vanishing-gradients": 0.3,
    "dead-units": 0.3,
    "saturated-units": 0.8,  # Adam moves what steps in proportion to the gradient leave where it is
    "underfitting": 0.5,
}
# What one batch says nothing against, since it is learnt all the same; where it is not, something else is wrong.
BESIDE = ("labels-random", "labels-noisy", "overfitting", "data-not-shuffled", "learning-rate-too-low")


# By how many standard errors real labels do better than shuffled ones → the odds of labels that carry nothing.
_ERRORS = 1.0, 2.0, 3.0, 4.0, 5.0
_ODDS = 5.0, 2.0, 0.7, 0.2, 0.05, 0.02


@trial("one-batch")
def one_batch(specimen: Specimen) -> Outcome | None:
    """One batch learnt by heart with Adam at 0.001, from the initial weights, without dropout."""
    batches = specimen.train[:1]
    n = specimen.steps(1, times=2.5)
    model = _without_dropout(specimen.copy())
    losses = specimen.descend(model, n, optimizers=[sane(model)], batches=batches)
    learnt = progress(losses)
    if learnt > LEARNT:
        odds = dict(IN_THE_WAY)
    elif learnt < 0.5 and n >= 60:  # ten classes after a softmax come to 0.37 at the most: from ln 10 to 1.46
        odds = {fault: min(1 / factor, 3.0) for fault, factor in IN_THE_WAY.items()} | dict.fromkeys(BESIDE, 0.5)
    elif learnt < 0.1:  # few steps bring any batch a little further, and hardly one to its end
        odds = {fault: min(1 / factor, 1.5) for fault, factor in IN_THE_WAY.items()}
    else:
        odds = {}
    can = "can" if learnt > LEARNT else "cannot" if odds else "can only partly"
    return Outcome(
        trial="one-batch",
        says=f"one batch of {len(batches[0])} {can} be memorised: {n} steps of Adam at 0.001 bring its loss from "
        f"{said(float(losses[0]))} to {said(end(losses))}",
        numbers={"steps": n, "start": float(losses[0]), "end": end(losses), "items": len(batches[0])},
        curves={"one batch": losses},
        odds=odds,
        rules_out=dict.fromkeys(IN_THE_WAY, "one batch can be learnt") if learnt > LEARNT else {},
    )


@trial("capacity")
def capacity(specimen: Specimen) -> Outcome | None:
    """All captured batches learnt by heart with Adam at 0.001, from the weights of now."""
    n = specimen.steps(1, times=2.5)
    model = _without_dropout(specimen.copy(present=True))
    losses = specimen.descend(model, n, optimizers=[sane(model)])
    each = min(len(specimen.train), len(losses) // 3)
    first, last = float(losses[:each].mean()), float(losses[-each:].mean())
    fell = 1 - last / first if math.isfinite(last) and first > 0 else -1.0
    middle = float(losses[-2 * each : -each].mean())
    going = math.isfinite(last) and last < 0.98 * middle
    # It learnt something, and cannot learn even these few batches by heart: more epochs will not help.
    classes = all(not t.is_floating_point() for batch in specimen.train for t in batch.label_values)
    learnt = 0.5 < first / specimen.start < 0.97
    too_small = learnt and classes and n >= 60 and -0.5 < fell < 0.1 and not going
    odds = 3.0 if too_small else 2.0 if fell > 0.3 or going else 1.0
    return Outcome(
        trial="capacity",
        says=f"{n} more steps of Adam at 0.001 on {counted(len(specimen.train), 'batch', 'batches')} bring the loss "
        f"from {said(first)} to {said(last)}{', and it is still falling' if going else ''}",
        numbers={"steps": n, "start": first, "end": last, "still falling": going},
        curves={"more steps": losses},
        odds={"underfitting": odds if first > 0.3 * specimen.start else 0.5},
        severity={"underfitting": "warning"} if too_small else {},
    )


@trial("shuffled-labels")
def shuffled_labels(specimen: Specimen) -> Outcome | None:
    """The same descent with the labels given to other items, judged on batches that neither was trained on."""
    train, held = _apart(specimen)
    if not train or not held:
        return None
    real = [batch.label_values for batch in train]
    if not can_be_dealt(real):
        return None
    mixed = dealt(real, torch.randperm(sum(len(each[0]) for each in real)))
    shuffled = {id(batch): labels for batch, labels in zip(train, mixed, strict=True)}
    n = specimen.steps(2, times=1.5)
    curves, judged, known = {}, {}, torch.cat([_identities(batch) for batch in train])
    held = [batch for batch in held if not torch.isin(_identities(batch), known).all()]
    if not held:
        return None
    for name, labels in (("real labels", None), ("shuffled labels", shuffled)):
        model = specimen.copy()

        def loss(batch: CapturedBatch, model: nn.Module, labels: dict[int, list[Tensor]] | None = labels) -> Tensor:
            return batch.replay(model, labels=None if labels is None else labels[id(batch)])[0]

        curves[name] = specimen.descend(model, n, optimizers=[sane(model)], batches=train, loss=loss)
        judged[name] = _judged(held, model, known)
    items = len(judged["real labels"].chances) or sum(map(len, held))
    sure, said_as, numbers = _difference(judged["real labels"], judged["shuffled labels"])
    learnt = progress(curves["real labels"]) > 0.05
    odds = float(_ODDS[np.searchsorted(_ERRORS, sure)])
    odds = odds if learnt else min(odds, 1.0)
    return Outcome(
        trial="shuffled-labels",
        says=f"{n} steps with real and {n} with shuffled labels, compared on {items} other items: {said_as}",
        numbers={"steps": n, "items": items, "standard errors": sure, **numbers},
        curves=curves,
        odds={"labels-random": odds},
        rules_out={"labels-random": f"real labels do better than shuffled ones: {said_as}"} if odds < 0.3 else {},
    )


def _without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    return model


def _apart(specimen: Specimen) -> tuple[list[CapturedBatch], list[CapturedBatch]]:
    """Captured batches with labels, to train on and to judge by: the last quarter of those of training is held back."""
    labelled = [batch for batch in specimen.train if batch.label_values]
    valid = [batch for batch in specimen.valid if batch.label_values]
    if len(labelled) < 4:
        return labelled, valid
    kept = len(labelled) // 4
    return labelled[:-kept], [*labelled[-kept:], *valid]


def _identities(batch: CapturedBatch) -> Tensor:
    """A number for each item by which it is recognised; of an epoch before, it may be in two batches."""
    values = next((t for t in batch.input_values if t.dim() and len(t) == len(batch)), torch.arange(len(batch)))
    return hashes(values.detach())


@dataclass(frozen=True)
class _Judged:
    """What a model said of held-back items: mean loss of the batches, and of each item with a class, in order, whether
    it was right and the probability that it gave the class."""

    loss: float
    right: Tensor
    chances: Tensor


def _judged(held: Sequence[CapturedBatch], model: nn.Module, known: Tensor) -> _Judged:
    """On held-back batches, in evaluation mode, without items that are among the known ones."""
    model.eval()
    losses, right, chances = [], [], []
    with torch.no_grad():
        for batch in held:
            loss, output = batch.replay(model)
            losses.append(float(loss))
            scores = next((t for t in tensors_of(output) if t.is_floating_point() and t.dim()), None)
            labels = batch.label_values[0]
            if scores is None or scores.dim() != 2 or scores.shape[1] < 2 or len(scores) != len(labels):
                continue
            classes = classes_of(labels, scores.shape[1])
            if classes is not None:
                new = ~torch.isin(_identities(batch), known)
                right.append((scores.argmax(1) == classes)[new])
                chances.append(scores.float().softmax(1).gather(1, classes[:, None])[:, 0][new])
    empty = torch.zeros(0)
    return _Judged(float(np.mean(losses)), torch.cat(right or [empty]), torch.cat(chances or [empty]))


def _difference(real: _Judged, shuffled: _Judged) -> tuple[float, str, dict[str, object]]:
    """By how many standard errors real labels do better than shuffled ones, in words, and the numbers.

    Probabilities of the same items are compared in pairs: on 128 images of CIFAR-10, after 40 steps on 384 others, they
    differ by 4.6 to 7.6 errors (8 draws), the counts of right answers by 2.5 to 5.5.
    """
    items = len(real.chances)
    if items < 2:
        # Of losses of batches there is no standard error: a tenth less counts as three.
        sure = 30 * (shuffled.loss - real.loss) / max(abs(shuffled.loss), 1e-12)
        numbers: dict[str, object] = {"loss": real.loss, "loss shuffled": shuffled.loss}
        return sure, f"loss {said(real.loss)} and {said(shuffled.loss)}", numbers
    more = (real.chances - shuffled.chances).double()
    sure = float(more.mean()) / max(float(more.std()) / math.sqrt(items), 1e-9)
    shares = [float(each.right.float().mean()) for each in (real, shuffled)]
    chances = [float(each.chances.mean()) for each in (real, shuffled)]
    words = f"on average they give the right class a probability of {chances[0]:.2f} and {chances[1]:.2f}"
    numbers = {"probability": chances[0], "probability shuffled": chances[1]}
    return sure, words, numbers | {"right": shares[0], "right shuffled": shares[1]}
