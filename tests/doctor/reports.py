"""A report with everything in it, about a training that really went wrong."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import pellucid
from pellucid.doctor.report import Finding, Report

STEP = 60


def died() -> pellucid.History:
    """120 steps of a small network; at step 60 it is pushed to where its second ReLUs are dead."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = torch.randn(64, 8), torch.arange(64) % 4
    with pellucid.watch(model, opt, loss=True) as seen:
        for step in range(120):
            if step == STEP:
                model[2].bias.data -= 100
            nn.functional.cross_entropy(model(x), y).backward()
            opt.step()
            opt.zero_grad()
    return seen.history


def sample() -> Report:
    """An error, a warning and a note."""
    steps = np.arange(40)
    too_high = Finding(
        "learning-rate-too-high",
        "error",
        0.974,
        "2",
        STEP,
        "a step changed the weights by 3.1 of their size, and since then 100 % of the ReLUs behind layer 2 are silent",
        {"update_per_weight": 3.1, "rates": [300.0, 0.05], "dead_before": np.float32(0.21)},
        {"says": "40 steps at a tenth of the rate: loss 0.4 instead of 1.4", "loss": 1.386, "loss_at_0.1x": np.nan},
        "divide the learning rate by ten, or let it rise slowly (1cycle)",
        where="train.py:31",
        ruled_out=["labels (one batch can be learnt)"],
        explains=["dead-units"],
        curves={"as it was": np.full(40, 1.386), "at a tenth": 1.386 * np.exp(-steps / 30)},
    )
    imbalance = Finding(
        "class-imbalance", "warning", 0.8, None, None, "93 % of the labels are class 0", {}, None, "weigh the classes"
    )
    slow = Finding("input-bound", "note", 0.6, None, 0, "<b>60 %</b> of the time is spent waiting", {}, None, "workers")
    return Report([too_high, imbalance, slow], 0.0412, ["no validation was seen"], ["120 steps of 5 layers"], died())


def healthy() -> Report:
    """Nothing but a note."""
    return Report(sample().findings[2:], 0.05, [], ["120 steps of 5 layers", "one batch was learnt to a loss of 0.01"])
