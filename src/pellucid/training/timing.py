"""Which precision trains this model fastest on this machine: measured on it, and nothing of it changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pellucid.data.batch import Parts, parts_of
from pellucid.optim.optimizers import SGD
from pellucid.training.computing import HALVES
from pellucid.training.forward import floating_type, loss_of, output_of
from pellucid.training.layout import channels_last
from pellucid.training.memory import keep_freed_memory
from pellucid.training.rewind import rewound

BUDGET_S = 0.7  # for steps in turn; two small ones of each come before
STEP_S = 0.1  # of the slower one: the batch is cut down to about that
FEW = 8  # images, enough to guess the rest
CLEARLY = 0.95  # a half type must take less than this of float32's time, as it costs digits


def faster_precision(learn: Any) -> tuple[str, dict[str, float]]:
    """Train one batch back and forth in float32 and in a half type, in turn, for about a second.

    Weights, buffers, gradients, optimizer and random numbers are afterwards what they were, bit for bit. The
    optimizer's step is left out, since it is float32 in both.

    Returns:
        The name of the faster one, `fp32` unless a half type takes at least 5 % less time, and the seconds that each
        took for its fastest step on that batch, or on the part of it that fits into the time.
    """
    device = learn.dls.device
    names = ["fp32", _half_for(device)]
    modules = [m.to(device) for m in (learn.model, learn.loss_func) if isinstance(m, nn.Module)]
    inputs, targets = parts_of(learn.dls.one_batch(), learn.dls)
    idle = SGD(learn.model.parameters(), lr=0.0)  # `channels_last` asks for an optimizer; this one never steps
    keep_freed_memory()
    with rewound(modules), channels_last(learn.model, idle, [learn.loss_func]):
        learn.model.train()
        best = _times(names, len(inputs[0]), lambda name, n: _step(learn, name, inputs, targets, n))
    return names[best[names[1]] < CLEARLY * best["fp32"]], best


def _half_for(device: torch.device) -> str:
    bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if bf16 else "fp16"


def _times(names: list[str], n: int, step: Callable[[str, int], None]) -> dict[str, float]:
    """Seconds of the fastest step of each; they take turns, so that whatever else the machine does hits all."""

    def seconds(name: str, n: int) -> float:
        started = time.perf_counter()
        step(name, n)
        return time.perf_counter() - started

    few = min(FEW, n)
    for name in names:
        step(name, few)
    n = max(few, min(n, int(few * STEP_S / max(seconds(name, few) for name in names))))
    end, times = time.perf_counter() + BUDGET_S, {name: [] for name in names}
    while not times[names[-1]] or time.perf_counter() < end:
        for name in names:
            times[name].append(seconds(name, n))
    return {name: min(taken) for name, taken in times.items()}


def _step(learn: Any, precision: str, inputs: Parts, targets: Parts, n: int) -> None:
    """Forward and back with the first `n` items, to the end."""
    half, floating = HALVES[precision], floating_type(learn.model)
    pred = output_of(learn.model, tuple(x[:n] for x in inputs), floating, half)
    loss_of(learn.loss_func, pred, tuple(y[:n] for y in targets)).backward()
    for p in learn.model.parameters():
        p.grad = None
    if learn.dls.device.type != "cpu":
        torch.accelerator.synchronize()
