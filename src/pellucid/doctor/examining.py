"""Examine a model, a loss and loaders before the first epoch: a few steps on a copy, watched, then trials."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.activations.watch import Watch, watch
from pellucid.doctor.report import Report
from pellucid.errors import UsageError
from pellucid.seed import kept_rng

STEPS, PASSES = 60, 5  # training and validation batches at most
FEWEST = 10  # batches that are looked at if that takes no more than half as long again; else two
WATCHED_S, VALIDATED_S, TRIALS_S = 8.0, 2.0, 15.0  # together with what is slow of a slow model under 30 s
ALL_S = 27.0


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
    began = time.monotonic()
    with kept_rng(train_loader), kept_rng(valid_loader):
        seen = examined(model, loss_func, train_loader, valid_loader, optimizer)
        left_s = max(0.0, ALL_S - (time.monotonic() - began))
        return seen.diagnose(min(TRIALS_S, left_s) if budget_s is None else budget_s)


def examined(
    model: nn.Module,
    loss_func: Callable[..., Tensor],
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any] | None,
    optimizer: torch.optim.Optimizer | None,
) -> Watch:
    """The watch of some steps on a copy; see `examine`."""
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
            _train(model, loss_func, train_loader, opt)
            if valid_loader is not None:
                _validate(model, loss_func, valid_loader)
    return seen


def _train(model: nn.Module, loss_func: Callable[..., Tensor], loader: Iterable[Any], opt: Any) -> None:
    model.train()
    loss = None
    for inputs, target in _batches(model, loader, STEPS, WATCHED_S):
        loss = loss_func(model(*inputs), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if loss is None:
        raise UsageError("train_loader has no batch, so there is nothing to examine")


def _validate(model: nn.Module, loss_func: Callable[..., Tensor], loader: Iterable[Any]) -> None:
    model.eval()
    with torch.no_grad():
        for inputs, target in _batches(model, loader, PASSES, VALIDATED_S):
            loss_func(model(*inputs), target)


def _batches(model: nn.Module, loader: Iterable[Any], most: int, seconds: float) -> Iterator[tuple[list[Any], Any]]:
    """Arguments of the model, and the target, on its device; the loader once more from the start if it is short."""
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
            yield inputs, target
            n += 1
            took = time.monotonic() - began
            if n == most or (took > seconds and n >= FEWEST) or (took > 1.5 * seconds and n >= 2):
                return
        if n == before:
            return
