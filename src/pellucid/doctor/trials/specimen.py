"""What trials work on: copies of a model, captured batches and recipes of its optimizers; never the live ones."""

from __future__ import annotations

import copy
import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.activations.global_hooks import unseen
from pellucid.doctor.trials.nested import tensors_of
from pellucid.doctor.trials.optimizers import Recipe, sane
from pellucid.doctor.trials.replay import CapturedBatch
from pellucid.schedule import Schedule
from pellucid.seed import kept_rng

Weights = dict[str, Tensor]
Loss = Callable[[CapturedBatch, nn.Module], Tensor]
FEWEST, ENOUGH = 10, 20  # steps of a descent: fewer tell nothing; so many usually tell enough
GRACE_S = 1.0  # that a trial may be late: it was planned to fit, and to give it up would waste all that it took
COUNTED_S = 1.0  # seconds that the mean loss of the captured batches may take; of a slow model it is of fewer batches

# The specimen's model is one copy; a trial makes another, with gradients and two moments; two sets of weights are kept.
COPIES = 7


class OutOfTime(Exception):
    """A trial does not fit into the time that is left."""


def weights_of(model: nn.Module) -> Weights:
    """Clones of its parameters and buffers, by name."""
    return {name: t.detach().clone() for name, t in chain(model.named_parameters(), model.named_buffers())}


def copied(model: nn.Module) -> nn.Module:
    """A deep copy without gradients; tensors with a graph that modules keep (stored features) lose it."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        kept = [value for name, value in vars(module).items() if name not in ("_parameters", "_buffers", "_modules")]
        memo |= {id(t): t.detach().clone() for t in tensors_of(kept) if t.grad_fn is not None}
    return copy.deepcopy(model, memo)


@dataclass
class Specimen:
    """A run as trials see it.

    Attributes:
        model: A deep copy, with the weights of the moment when it was made.
        initial: The weights before the first step, or None where they were not kept.
        train, valid: Captured batches, in order. Passes that cannot be made again are left out.
        recipes: Of the optimizers that hold parameters of the model.
        why: Why there can be no trials; `''` if there can.
        notes: What else was left out, a sentence each.
        first: The mean loss of the captured batches at the initial weights.
        start: The same, or that of a constant answer where it is lower: a model with large outputs has to come down to
            that before it learns anything.
        achieved: The share of `start` that the run lost since, 0 where the initial weights are not known.
        deadline: When time is up, as `time.perf_counter` counts; None for never.
        step_s: Seconds of a training step on a copy, as the last descent took.
        counted: How many of the captured batches mean losses are of; None for all.
        most_steps: Of a descent.
    """

    model: nn.Module
    initial: Weights | None = None
    train: list[CapturedBatch] = field(default_factory=list)
    valid: list[CapturedBatch] = field(default_factory=list)
    recipes: list[Recipe] = field(default_factory=list)
    why: str = ""
    notes: list[str] = field(default_factory=list)
    first: float = 1.0
    start: float = 1.0
    achieved: float = 0.0
    deadline: float | None = None
    step_s: float = 0.0
    counted: int | None = None
    most_steps: int = 60

    @classmethod
    def of(
        cls,
        model: nn.Module,
        train: Sequence[CapturedBatch],
        valid: Sequence[CapturedBatch] = (),
        *,
        recipes: Sequence[Recipe] = (),
        initial: Weights | None = None,
        final: Weights | None = None,
    ) -> Specimen:
        """Copy a model for trials, and check the first batch of training on its initial weights.

        Args:
            model: The live model; it is not changed.
            train, valid: What a `Tape` captured.
            recipes: Of its optimizers.
            initial: `weights_of` the model before the first of these batches.
            final: Those after the last one, where the model may have got others since; None takes the model's.
        """
        size = sum(t.numel() * t.element_size() for t in chain(model.parameters(), model.buffers()))
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        free = _free(device)
        if COPIES * size > free:
            why = f"the model is too large: {COPIES} copies of {size / 2**30:.1f} GiB do not fit into the free "
            why += f"{free / 2**30:.1f} GiB"
            return cls(nn.Identity(), why=why)
        try:
            with aside(), unseen():
                held = copied(model)
                put(held, final or {})
        except Exception as error:  # whatever the user's modules hold
            return cls(nn.Identity(), why=f"the model cannot be copied: {type(error).__name__}: {error}")
        specimen = cls(held, initial, [], list(valid), [each for each in recipes if each.groups])
        specimen._take(list(train))
        return specimen

    def _take(self, train: list[CapturedBatch]) -> None:
        usable = [batch for batch in train if not batch.why]
        if usable:
            with aside(), unseen():
                began = time.perf_counter()
                usable[0].check(self.copy(), same_loss=self.initial is not None and usable[0].step == 0)
                each_s = time.perf_counter() - began
            self.counted = min(len(usable), max(1, int(COUNTED_S / max(each_s, 1e-6))))
            if usable[0].why:
                self.notes.append(f"the captured batches cannot be replayed: {usable[0].why}")
                usable = []
        self.train = usable
        if usable:
            with aside(), unseen():
                self.first = self.loss(present=False)
                self.start = min(self.first, constant_loss(usable)) if self.first > 0 else 1.0
                if self.initial is not None:
                    self.achieved = 1 - self.loss(present=True) / self.start
        self.valid = [batch for batch in self.valid if not batch.why]
        if not usable:
            self.why = next((batch.why for batch in train if batch.why), "no training pass was captured")

    def copy(self, *, present: bool = False) -> nn.Module:
        """A copy of the model to work on, in the modes of training; with its initial weights, if these are known."""
        self.check_time()
        model = copied(self.model)
        if self.initial is not None and not present:
            put(model, self.initial)
        if self.train:
            for path, module in model.named_modules():
                module.training = self.train[0].modes.get(path, module.training)
        return model

    def check_time(self, seconds: float = 0.0) -> None:
        """Make sure that there is time for something that takes so long.

        Raises:
            OutOfTime: there is not.
        """
        if self.deadline is not None and time.perf_counter() + seconds > self.deadline + GRACE_S:
            raise OutOfTime

    def loss(self, *, present: bool) -> float:
        """The mean loss of the captured batches in the modes of training, at the initial or the present weights."""
        model = self.copy(present=present)
        with torch.no_grad():
            return float(np.mean([float(batch.replay(model)[0]) for batch in self.train[: self.counted]]))

    def optimizers(self, model: nn.Module, **changes: Any) -> list[torch.optim.Optimizer]:
        """The run's optimizers for a copy (see `Recipe.make`), or Adam at 0.001 where it had none of torch's."""
        made = [recipe.make(model, **changes) for recipe in self.recipes]
        return made or [sane(model)]

    def not_held(self) -> list[str]:
        """Names of parameters that get gradients and that no optimizer holds."""
        held = {name for recipe in self.recipes for group in recipe.groups for name in group.names}
        return [name for name, p in self.model.named_parameters() if p.requires_grad and name not in held]

    def steps(self, descents: int, *, times: float = 1.0, fewest: int = FEWEST) -> int:
        """How many steps each of several descents may take so that they fit into the time that is left.

        Args:
            descents: How many.
            times: Of `most_steps`, the most.
            fewest: Below which they are not worth it.

        Raises:
            OutOfTime: not even the fewest do.
        """
        most = int(self.most_steps * times)
        if self.deadline is None:
            return most
        if not self.step_s:
            self.descend(self.copy(), 1)  # the very first makes and imports what later ones find
            self.descend(self.copy(), 1)
        affordable = int((self.deadline - time.perf_counter()) / (descents * self.step_s))
        if affordable < fewest:
            raise OutOfTime
        # Others come after it: a trial takes a third of what is left, unless that is too little to tell anything.
        return min(most, max(affordable // 3, min(affordable, ENOUGH)))

    def descend(
        self,
        model: nn.Module,
        steps: int,
        *,
        optimizers: Sequence[torch.optim.Optimizer] | None = None,
        batches: Sequence[CapturedBatch] | None = None,
        loss: Loss | None = None,
        zero: bool = True,
        clip: float | None = None,
        schedule: Schedule | None = None,
    ) -> np.ndarray:
        """Train a copy, batch after batch and then again from the first: the loss of each step.

        After a loss that is not finite, it stays infinite.

        Args:
            model: The copy; it is trained in place.
            steps: Steps of all optimizers.
            optimizers: Those of the run if None.
            batches: Those of training if None.
            loss: Of a batch and the copy; the replayed pass if None.
            zero: Whether gradients are zeroed before each pass.
            clip: Norm that gradients are clipped to.
            schedule: Factor on the rates, from the fraction of the steps that is done.

        Raises:
            OutOfTime: the deadline came before the last step.
        """
        optimizers = self.optimizers(model) if optimizers is None else optimizers
        batches = self.train if batches is None else batches
        held = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        groups = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
        losses, began = np.full(steps, np.inf), time.perf_counter()
        for step in range(steps):
            self.check_time(self.step_s)
            for group, rate in groups:
                group["lr"] = rate if schedule is None else rate * schedule(step / max(1, steps - 1))
            if zero:
                model.zero_grad()
            batch = batches[step % len(batches)]
            value = batch.replay(model)[0] if loss is None else loss(batch, model)
            losses[step] = float(value.detach())
            if not np.isfinite(losses[step]):
                losses[step:] = np.inf
                break
            if value.requires_grad:
                value.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_([p for p in held if p.grad is not None], clip)
            for optimizer in optimizers:
                _step(optimizer, batch, model, loss)
            self.step_s = (time.perf_counter() - began) / (step + 1)
        return losses


def put(model: nn.Module, weights: Weights) -> None:
    """Give a copy these parameters and buffers, by name; what it has no name for is left out."""
    with torch.no_grad():
        for name, t in chain(model.named_parameters(), model.named_buffers()):
            if name in weights and weights[name].shape == t.shape:
                t.copy_(weights[name])


def constant_loss(batches: Sequence[CapturedBatch]) -> float:
    """The lowest loss of the same answer to all items, of cross-entropy and of squared errors; infinite of others."""
    names = {step.name for step in batches[0].operations}
    labels = [t for batch in batches for t in batch.label_values]
    if not labels or any(t.shape[1:] != labels[0].shape[1:] for t in labels):
        return float("inf")
    every = torch.cat(labels).double()
    if names & {"cross_entropy", "nll_loss"} and not labels[0].is_floating_point():
        shares = every.long().unique(return_counts=True)[1].double() / every.numel()
        found = float(-(shares * shares.log()).sum())
    elif "mse_loss" in names and labels[0].is_floating_point():
        found = float(every.var(0).mean())
    else:
        return float("inf")
    return found if found > 1e-3 else float("inf")  # batches of one class say nothing of the others


def _step(optimizer: torch.optim.Optimizer, batch: CapturedBatch, model: nn.Module, loss: Loss | None) -> None:
    if not isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step()
        return

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = batch.replay(model)[0] if loss is None else loss(batch, model)
        value.backward()
        return value

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]


@contextmanager
def aside() -> Iterator[None]:
    """What runs inside the block takes no random number of the run's, minds no mode of torch's, and is not heard."""
    with (
        kept_rng(),
        torch.inference_mode(False),
        torch.enable_grad(),
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield


def _free(device: torch.device) -> float:
    """Bytes of memory that are free for tensors on a device; infinite where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), float("inf"))
