"""Runs put together from numbers: three epochs of a small convolutional net, which a test then spoils."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pellucid.doctor.evidence.record import (
    Evidence,
    Inputs,
    Labels,
    LossCall,
    Norm,
    Op,
    Optimizer,
    Parameter,
    Unit,
)
from pellucid.doctor.rules.core import Case
from pellucid.history.record import Layer, Record, Section

LAYERS = (("conv1", (16, 3, 3, 3)), ("conv2", (32, 16, 3, 3)), ("conv3", (64, 32, 3, 3)), ("fc", (10, 64)))
LOOKS = np.array([0, 1, 2, 20, 60, 120, 200, 299])


@dataclass
class Recipe:
    """What a run is made from.

    Attributes:
        steps, batch, epochs, classes: Of the training; images: how many there are.
        loss: [step] of training; by default it falls from ln(classes) to 0.6.
        right: Share of right predictions, from the first step to the last; valid_right: in each validation.
        step_size: Size of a step relative to the weights, a number or [step].
        gain: Deviation of the initial weights times the root of the fan-in.
        stds: Of the layers' outputs before training.
        gradients: Of each layer relative to its weights, at the first look.
        noise: Share of training labels that are wrong.
        seed: Of everything drawn.
    """

    steps: int = 300
    batch: int = 64
    epochs: int = 3
    classes: int = 10
    loss: np.ndarray | None = None
    right: tuple[float, float] = (0.12, 0.8)
    valid_right: tuple[float, ...] = (0.55, 0.7, 0.78)
    step_size: float | np.ndarray = 1e-3
    gain: float = 0.58
    stds: tuple[float, ...] = (0.6, 0.45, 0.4, 0.3)
    gradients: tuple[float, ...] = (0.05, 0.04, 0.05, 0.1)
    noise: float = 0.0
    seed: int = 0


def falling(start: float, end: float, steps: int = 300, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """A loss that falls as losses do, fast at first."""
    x = np.arange(steps)
    curve = end + (start - end) * np.exp(-4 * x / steps)
    return curve + np.random.default_rng(seed).normal(0, noise, steps) * np.minimum(1, x / 3)


def flat(level: float, steps: int = 300, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    return level + np.random.default_rng(seed).normal(0, noise, steps)


def stuck(recipe: Recipe | None = None, **changes) -> Case:
    """A run that learns nothing: loss and accuracy stay at chance."""
    settings = {"loss": flat(np.log(10)), "right": (0.1, 0.1), "valid_right": (0.1, 0.1, 0.1)}
    return run(recipe, **(settings | changes))


def run(recipe: Recipe | None = None, **changes) -> Case:
    """The case; unless changed, of a healthy run."""
    r = replace(recipe or Recipe(), **changes)
    rng = np.random.default_rng(r.seed)
    losses = falling(np.log(r.classes), 0.6, r.steps, seed=r.seed) if r.loss is None else r.loss
    per_epoch = r.steps * r.batch // r.epochs
    classes = rng.integers(0, r.classes, per_epoch)
    identity = rng.integers(0, 2**62, per_epoch, dtype=np.uint64)
    order = np.concatenate([rng.permutation(per_epoch) for _ in range(r.epochs)])
    given = np.where(rng.random(per_epoch) < r.noise, rng.integers(0, r.classes, per_epoch), classes)
    evidence = Evidence(model="Net", losses=losses, looks=LOOKS)
    evidence.loop.steps = evidence.loop.backwards = evidence.loop.passes = r.steps
    evidence.loop.backwards_per_step = np.ones(r.steps, np.int64)
    evidence.loop.left_before_backward = np.zeros(len(LOOKS))
    evidence.loop.left_steps = LOOKS
    evidence.loop.epoch_starts = [r.steps * i // r.epochs for i in range(r.epochs)]
    evidence.loop.trained_in_eval, evidence.loop.discarded, evidence.loop.quiet_passes = 0.0, 0.0, 48
    shares = np.linspace(*r.right, len(order))
    evidence.train = _inputs(identity[order], r.batch)
    evidence.train_labels = _labels(classes[order], given[order], shares, r, rng)
    _validate(evidence, r, rng)
    evidence.calls = [
        LossCall(
            step=int(step),
            name="cross_entropy",
            where="train.py:31",
            input_shape=(r.batch, r.classes),
            target_shape=(r.batch,),
            target_kind="index",
            input_min=-3.0,
            input_max=4.0,
            rows_sum_to_one=0.0,
            log_rows=0.0,
            value=float(losses[step]),
        )
        for step in LOOKS
        if step < len(losses)
    ]
    evidence.ops = operations()
    n, unknown = len(LOOKS), np.full(len(LOOKS), np.nan)
    evidence.units = [Unit(f"relu{i}", "relu", LOOKS, np.full(n, 0.02), 0.0, unknown, np.ones(n)) for i in (1, 2, 3)]
    evidence.parameters = [_weight(name, shape, i, r) for i, (name, shape) in enumerate(LAYERS)]
    evidence.optimizers = [Optimizer("SGD", r.steps, hypers={"lr": np.full(r.steps, 0.05)})]
    evidence.resources.step_s, evidence.resources.waited_s = np.full(r.steps, 0.02), np.full(r.steps, 0.002)
    return Case(_history(losses, r, rng), evidence)


def operations(*last: Op) -> list[Op]:
    """From the input to the loss; `last` come after the last layer."""
    body = [
        Op(kind, name, where="net.py:12", shape=(64, 16, 8, 8))
        for name in ("conv1", "conv2", "conv3")
        for kind in ("conv2d", "relu")
    ]
    return [
        *body,
        Op("flatten", "", shape=(64, 64)),
        Op("linear", "fc", "Linear", shape=(64, 10)),
        *last,
        Op("cross_entropy"),
    ]


def batch_norms(**changes) -> list[Norm]:
    usual = Norm("", "BatchNorm2d", 0.0, 0.0, per_channel=4096, batch_size=64, moved=True, disagreement=0.05)
    return [replace(usual, name=f"bn{i}", **changes) for i in (1, 2, 3)]


def _inputs(hashes: np.ndarray, batch: int) -> Inputs:
    n = len(hashes) // batch
    return Inputs(
        shape=(3, 32, 32),
        batch_sizes=np.full(n, batch),
        mean=0.0,
        std=1.0,
        min=-2.0,
        max=2.1,
        channel_mean=np.array([0.01, -0.02, 0.0]),
        channel_std=np.array([1.0, 0.98, 1.02]),
        between=0.9,
        constant=0.0,
        looked=640,
        hashes=hashes,
    )


def _labels(truth: np.ndarray, given: np.ndarray, shares: np.ndarray, r: Recipe, rng: np.random.Generator) -> Labels:
    """Predictions that are right with a probability, and losses of a model that is about as sure as it is right."""
    right = rng.random(len(truth)) < shares
    others = (truth + rng.integers(1, r.classes, len(truth))) % r.classes
    predicted = np.where(right, truth, others)
    sure = np.clip(rng.beta(2, 1, len(truth)) * shares + 1 / r.classes, 1 / r.classes, 0.999)
    p = np.where(predicted == given, sure, np.clip((1 - sure) * rng.beta(2, 2, len(truth)), 1e-4, 0.9))
    p = np.where(given != truth, (1 - sure) / r.classes + 1e-4, p)
    return Labels(
        given.astype(np.int32),
        np.arange(0, len(truth), r.batch),
        -np.log(p),
        predicted.astype(np.int32),
        r.classes,
        "argmax",
    )


def _validate(evidence: Evidence, r: Recipe, rng: np.random.Generator) -> None:
    n, rounds = 1024, len(r.valid_right)
    identity, classes = rng.integers(2**62, 2**63, n, dtype=np.uint64), rng.integers(0, r.classes, n)
    shares = np.repeat(r.valid_right, n)
    evidence.valid = _inputs(np.tile(identity, rounds), r.batch)
    truth = np.tile(classes, rounds)
    evidence.valid_labels = _labels(truth, truth, shares, r, rng)
    batches = n // r.batch
    evidence.valid_steps = np.repeat([r.steps * (i + 1) // rounds for i in range(rounds)], batches)
    levels = np.repeat(np.log(r.classes) * (1 - np.array(r.valid_right)) * 1.1, batches)
    evidence.valid_losses = levels + rng.normal(0, 0.05, len(levels))


def _weight(name: str, shape: tuple[int, ...], i: int, r: Recipe) -> Parameter:
    size = r.gain / np.sqrt(np.prod(shape[1:]))
    weights = np.full(len(LOOKS), size)
    steps = np.broadcast_to(r.step_size, (r.steps,))
    moved = weights * steps[np.minimum(LOOKS, r.steps - 1)]
    return Parameter(
        f"{name}.weight",
        shape,
        name,
        "Linear" if len(shape) == 2 else "Conv2d",
        has_grad=1.0,
        held=0,
        group=0,
        gradient=weights * r.gradients[i],
        weight=weights,
        moved=moved,
        asked=moved,
        deviation=moved * 1e-4,
        overwritten=0.0,
        kept=np.ones(len(LOOKS)),
        spread=1.4,
        gradient_spread=1.4,
        decay_share=np.full(len(LOOKS), np.nan),
    )


def _history(losses: np.ndarray, r: Recipe, rng: np.random.Generator) -> Record:
    columns = r.steps
    layers = [Layer(name, "Linear" if len(shape) == 2 else "Conv2d", (shape[0],), "layer") for name, shape in LAYERS]
    none = np.zeros((len(layers), columns), np.int64)
    count = none + 1000
    std = np.repeat(np.array(r.stds, np.float32)[:, None], columns, axis=1)
    section = Section(
        np.stack([np.arange(columns), np.arange(columns) + 1], 1),
        count,
        np.zeros_like(std),
        std,
        -2 * std,
        2 * std,
        *[none + 400, none + 100, none, none, none, none],
    )
    ratios = np.broadcast_to(r.step_size, (columns,)) * rng.lognormal(0, 0.2, (len(layers), columns))
    norms = np.ones((len(layers), columns)) * rng.lognormal(0, 0.3, (len(layers), columns))
    series = {"step": np.arange(1, columns + 1), "loss": losses.astype(np.float32)}
    series |= {"update.ratio": ratios.astype(np.float32), "grad.norm": norms.astype(np.float32)}
    return Record(layers, [f"{name}.weight" for name, _ in LAYERS], train=section, series=series)
