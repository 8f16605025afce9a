"""Remedies that can be applied without the user: each makes of a specimen a course of training that has it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.doctor.trials import outputs, scales
from pellucid.doctor.trials.replay import CapturedBatch, can_be_dealt, dealt
from pellucid.doctor.trials.specimen import Loss, Specimen
from pellucid.schedule import Schedule, one_cycle


@dataclass
class Course:
    """A copy of a model and how it is trained; see `Specimen.descend`."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    loss: Loss | None = None
    zero: bool = True
    clip: float | None = None
    schedule: Schedule | None = None


Prescription = Callable[[Specimen], Course | None]
REMEDIES: dict[
    str, tuple[str, Prescription]
] = {}  # name → what it does, in words, and the course; None cannot be applied

# What helps against which fault, best first. Where the cause can only be taken away by the user there is none.
FOR: dict[str, tuple[str, ...]] = {
    "learning-rate-too-high": ("lower-rate", "1cycle", "batchnorm", "clipping"),
    "learning-rate-too-low": ("higher-rate", "1cycle"),
    "dead-units": ("scaled-weights", "batchnorm", "lower-rate"),
    "saturated-units": ("scaled-weights", "batchnorm"),
    "vanishing-gradients": ("batchnorm", "scaled-weights"),
    "exploding-gradients": ("clipping", "batchnorm", "scaled-weights"),
    "initial-scale-too-large": ("scaled-weights", "batchnorm"),
    "initial-scale-too-small": ("scaled-weights", "batchnorm"),
    "gradients-not-zeroed": ("zeroed-gradients",),
    "parameters-not-optimised": ("all-parameters",),
    "weight-decay-too-high": ("no-decay",),
    "model-left-in-eval-mode": ("training-mode",),
    "softmax-before-cross-entropy": ("no-softmax",),
    "activation-on-output": ("no-output-activation",),
    "inputs-not-normalised": ("normalised-inputs", "batchnorm"),
    "data-not-shuffled": ("shuffled",),
}


def as_it_was(specimen: Specimen, fault: str = "") -> Course:
    """Training as the run did it."""
    model = specimen.copy()
    return Course(model, specimen.optimizers(model), zero=fault != "gradients-not-zeroed")


def remedy(name: str, says: str) -> Callable[[Prescription], Prescription]:
    """Register a remedy with its words: "a tenth of the learning rate"."""

    def register(prescription: Prescription) -> Prescription:
        REMEDIES[name] = says, prescription
        return prescription

    return register


def _with_rate(specimen: Specimen, factor: float) -> Course:
    model = specimen.copy()
    return Course(model, specimen.optimizers(model, rate=factor))


@remedy("lower-rate", "a tenth of the learning rate")
def lower_rate(specimen: Specimen) -> Course:
    """For steps that overshoot."""
    return _with_rate(specimen, 0.1)


@remedy("higher-rate", "ten times the learning rate")
def higher_rate(specimen: Specimen) -> Course:
    """For weights that barely move."""
    return _with_rate(specimen, 10.0)


@remedy("1cycle", "a learning rate that rises to the old one and falls again (1cycle)")
def cycle(specimen: Specimen) -> Course:
    """Smith and Topin, arXiv:1708.07120: the first steps are small, those in the middle as large as they were."""
    course = as_it_was(specimen)
    course.schedule = one_cycle(1.0)
    return course


@remedy("batchnorm", "batch normalisation after every layer but the last")
def batchnorm(specimen: Specimen) -> Course | None:
    """Ioffe & Szegedy, arXiv:1502.03167."""
    course = as_it_was(specimen)
    norms = scales.put_batchnorm(course.model, specimen.train[0])
    if not norms:
        return None
    scales.with_norms(course.optimizers, norms)
    return course


@remedy("clipping", "gradients clipped to a norm of 1")
def clipping(specimen: Specimen) -> Course:
    """Pascanu et al., arXiv:1211.5063."""
    course = as_it_was(specimen)
    course.clip = 1.0
    return course


@remedy("scaled-weights", "weights scaled so that every layer's output starts with a standard deviation of 1")
def scaled_weights(specimen: Specimen) -> Course:
    """See `scales.rescale`."""
    course = as_it_was(specimen)
    scales.rescale(course.model, specimen.train[0])
    return course


@remedy("zeroed-gradients", "gradients zeroed before every backward pass")
def zeroed_gradients(specimen: Specimen) -> Course:
    """`optimizer.zero_grad()`."""
    return as_it_was(specimen)


@remedy("all-parameters", "all parameters in the optimizer")
def all_parameters(specimen: Specimen) -> Course | None:
    """Those too that get gradients and were held by none."""
    left = specimen.not_held()
    if not specimen.recipes or not left:
        return None
    model = specimen.copy()
    first, *others = specimen.recipes
    return Course(model, [first.make(model, more=left), *(recipe.make(model) for recipe in others)])


@remedy("no-decay", "no weight decay")
def no_decay(specimen: Specimen) -> Course:
    """For weights that decay pulls to zero."""
    model = specimen.copy()
    return Course(model, specimen.optimizers(model, weight_decay=0.0))


@remedy("training-mode", "the model in training mode")
def training_mode(specimen: Specimen) -> Course:
    """`model.train()`."""
    course = as_it_was(specimen)
    course.model.train()
    return course


@remedy("no-softmax", "no softmax before the loss")
def no_softmax(specimen: Specimen) -> Course | None:
    """Cross-entropy takes logits."""
    return _without(specimen, outputs.EXTRA_SOFTMAXES)


@remedy("no-output-activation", "no activation function after the last layer")
def no_output_activation(specimen: Specimen) -> Course | None:
    """Logits and targets may be of any size and sign."""
    return _without(specimen, outputs.BOUNDED)


def _without(specimen: Specimen, names: Collection[str]) -> Course | None:
    found = outputs.without(specimen, names)
    if found is None:
        return None
    course = as_it_was(specimen)
    course.loss = found[0]
    return course


@remedy("normalised-inputs", "inputs normalised to mean 0 and standard deviation 1 in each channel")
def normalised_inputs(specimen: Specimen) -> Course | None:
    """By the statistics of the captured batches."""
    statistics = scales.input_statistics(specimen.train)
    if not statistics:
        return None
    course, inputs = as_it_was(specimen), scales.standardised(statistics)
    course.loss = lambda batch, model: batch.replay(model, inputs=inputs(batch))[0]
    return course


@remedy("shuffled", "the captured batches reshuffled")
def shuffled(specimen: Specimen) -> Course | None:
    """Each batch is a sample of all captured ones."""
    batches = specimen.train
    values = [[*batch.input_values, *batch.label_values] for batch in batches]
    if len(batches) < 2 or not can_be_dealt(values):
        return None
    mixed = dealt(values, torch.randperm(sum(len(each[0]) for each in values)))
    by_batch = {
        id(batch): (each[: len(batch.inputs)], each[len(batch.inputs) :])
        for batch, each in zip(batches, mixed, strict=True)
    }

    def loss(batch: CapturedBatch, model: nn.Module) -> Tensor:
        inputs, labels = by_batch[id(batch)]
        return batch.replay(model, inputs=inputs, labels=labels)[0]

    course = as_it_was(specimen)
    course.loss = loss
    return course
