"""Examine a model, a loss and loaders before the first epoch: a few steps on a copy, watched, then trials."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.activations.global_hooks import unseen
from pellucid.activations.watch import Watch, watch
from pellucid.doctor.report import Report
from pellucid.errors import UsageError
from pellucid.seed import kept_rng

STEPS, PASSES = 60, 5  # training and validation batches at most
FEWEST = 10  # batches that are looked at if that takes no more than half as long again; else two
WATCHED_S, VALIDATED_S, TRIALS_S = 6.0, 1.5, 15.0  # together with what is slow of a slow model under 30 s
ALL_S = 27.0
# Where a training step takes longer than a second, each batch is cut to what takes one, but not below 16 items: batch
# norms and the mixture of classes look sick in fewer.
STEP_S, FEW_ITEMS = 1.0, 16


def examine(
    model: nn.Module,
    loss_func: Callable[..., Tensor],
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any] | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    budget_s: float | None = None,
) -> Report:
    """Look for faults before the first epoch, in less than half a minute: some steps on a copy, watched, then trials.

    Model, optimizer and random numbers are afterwards what they were, bit for bit; batches are read from the loaders.

    Args:
        model: On the device that it will train on.
        loss_func: Loss of the model's output and the rest of the batch.
        train_loader: Gives batches (input, …, target).
        valid_loader: Likewise, for validation; None leaves that out.
        optimizer: The one that will train it; None takes Adam with a rate of 0.001.
        budget_s: Seconds for trials; None takes 15, or what is left of half a minute.

    Raises:
        UsageError: a loader that can be read only once, no batch, or a batch that is not (input, …, target).
    """
    began, notes = time.monotonic(), list[str]()
    with kept_rng(train_loader), kept_rng(valid_loader):
        seen = examined(model, loss_func, train_loader, valid_loader, optimizer, notes)
        left_s = max(0.0, ALL_S - (time.monotonic() - began))
        report = seen.diagnose(min(TRIALS_S, left_s) if budget_s is None else budget_s)
    report.notes.extend(notes)
    return report


def examined(
    model: nn.Module,
    loss_func: Callable[..., Tensor],
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any] | None,
    optimizer: torch.optim.Optimizer | None,
    notes: list[str] | None = None,
) -> Watch:
    """The watch of some steps on a copy; see `examine`. What was left out is added to the notes."""
    for name, loader in (("train_loader", train_loader), ("valid_loader", valid_loader)):
        if isinstance(loader, Iterator):
            raise UsageError(
                f"{name} is a {type(loader).__name__}, which can be read only once: the batches examined here "
                "would be missing from the training. Pass a DataLoader or a list of batches"
            )
    opt = optimizer or torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    try:
        model, opt = copy.deepcopy((model, opt))
    except (RuntimeError, MemoryError, TypeError) as error:
        raise UsageError(f"the model cannot be copied, so no step can be tried on it ({error})") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a watch does not see: the report says it
        with watch(model, opt, loss=True, doctor=True) as seen:
            most = _most_items(model, train_loader)
            _train(model, loss_func, _batches(model, train_loader, STEPS, WATCHED_S, most), opt)
            if valid_loader is not None:
                _validate(model, loss_func, _batches(model, valid_loader, PASSES, VALIDATED_S, most))
    if most is not None and notes is not None:
        notes.append(f"a step of this model takes long, so only {most} items of each batch were used")
    return seen


def _most_items(model: nn.Module, loader: Iterable[Any]) -> int | None:
    """How many items of a batch to use so that a step takes `STEP_S` at most, by a pass of a few; None for all."""
    for inputs, target in _batches(model, loader, 1, 0.0):
        n, few = _n_items(inputs, target), [x[:FEW_ITEMS] if isinstance(x, Tensor) else x for x in inputs]
        if n <= FEW_ITEMS:
            return None
        with unseen(), torch.no_grad():
            model.eval()
            try:
                model(*few)
                began = time.monotonic()
                model(*few)
            except Exception:  # whatever is wrong, the first step says it
                return None
        step_s = 3 * (time.monotonic() - began) * n / FEW_ITEMS  # backward takes twice as long as forward
        return None if step_s <= STEP_S else max(FEW_ITEMS, int(n * STEP_S / step_s))
    return None


def _n_items(inputs: list[Any], target: Any) -> int:
    """How many a batch has, if its tensors agree in that; else 0."""
    lengths = {len(x) if x.ndim else 0 for x in (*inputs, target) if isinstance(x, Tensor)}
    return lengths.pop() if len(lengths) == 1 and isinstance(target, Tensor) else 0


def _train(model: nn.Module, loss_func: Callable[..., Tensor], batches: Iterable[Any], opt: Any) -> None:
    model.train()
    loss = None
    for inputs, target in batches:
        loss = loss_func(model(*inputs), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if loss is None:
        raise UsageError("train_loader has no batch, so there is nothing to examine")


def _validate(model: nn.Module, loss_func: Callable[..., Tensor], batches: Iterable[Any]) -> None:
    model.eval()
    with torch.no_grad():
        for inputs, target in batches:
            loss_func(model(*inputs), target)


def _batches(
    model: nn.Module, loader: Iterable[Any], most: int, seconds: float, items: int | None = None
) -> Iterator[tuple[list[Any], Any]]:
    """Arguments of the model, and the target, on its device; the loader once more from the start if it is short.

    Args:
        model: That they are for.
        loader: Gives them.
        most: Batches at most.
        seconds: About how long they may take.
        items: Of each batch that are used; None for all.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    began, n = time.monotonic(), 0
    while n < most:
        before = n
        for batch in loader:
            if not isinstance(batch, list | tuple) or len(batch) < 2:
                raise UsageError(
                    f"a batch is a {type(batch).__name__}, not (input, …, target), so the loss has no target"
                )
            *inputs, target = (part.to(device) if isinstance(part, Tensor) else part for part in batch)
            if items is not None and _n_items(inputs, target):
                inputs, target = [x[:items] if isinstance(x, Tensor) else x for x in inputs], target[:items]
            yield inputs, target
            n += 1
            took = time.monotonic() - began
            if n == most or (took > seconds and n >= FEWEST) or (took > 1.5 * seconds and n >= 2):
                return
        if n == before:
            return
