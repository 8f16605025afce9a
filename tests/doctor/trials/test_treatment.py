"""A remedy is tried on a copy, from the same weights and on the same batches as the training without it."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.doctor import treatment as treating
from pellucid.doctor.remedies import FOR, REMEDIES
from pellucid.doctor.report import Finding
from pellucid.doctor.trials.specimen import weights_of
from pellucid.errors import UsageError
from sick import classes, network, specimen


def finding(name, layer=None):
    return Finding(name, "error", 0.9, layer, 0, "", {}, None, "")


def treat(*args, **options) -> Any:
    return treating.treat(*args, **options)


def sgd(model, lr=0.1, **more):
    return torch.optim.SGD(model.parameters(), lr=lr, **more)


def test_every_remedy_is_there_and_every_one_is_for_something():
    assert {name for names in FOR.values() for name in names} == set(REMEDIES)


def sorted_by_class(batches):
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    order = y.argsort(stable=True)
    return list(zip(x[order].split(32), y[order].split(32), strict=True))


def make(fault):
    """A small run that has the fault."""
    batches, model, options = classes(), network(), {}
    if fault == "softmax-before-cross-entropy":
        model = network(nn.Softmax(dim=1))
    elif fault == "activation-on-output":
        model = network(nn.Tanh())
    elif fault == "inputs-not-normalised":
        batches = [(100 + 50 * x, y) for x, y in batches]
    elif fault in ("initial-scale-too-small", "vanishing-gradients"):
        model = nn.Sequential(*[each for _ in range(5) for each in (nn.Linear(8, 8), nn.ReLU())], nn.Linear(8, 3))
    elif fault == "data-not-shuffled":
        batches = sorted_by_class(batches)
    elif fault == "model-left-in-eval-mode":
        batches = [(10 * x + 30, y) for x, y in batches]
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).eval()
    rates = {
        "learning-rate-too-high": 30.0,
        "learning-rate-too-low": 1e-3,
        "gradients-not-zeroed": 0.5,
        "data-not-shuffled": 1.0,
    }
    if fault == "parameters-not-optimised":
        options["optimizer"] = torch.optim.SGD(model[0].parameters(), lr=0.1)
    else:
        decay = 5.0 if fault == "weight-decay-too-high" else 0.0
        options["optimizer"] = sgd(model, rates.get(fault, 0.1), weight_decay=decay)
    return model, specimen(model, batches, **options)


SHOWN = [
    *("learning-rate-too-high", "learning-rate-too-low", "initial-scale-too-small", "vanishing-gradients"),
    *("gradients-not-zeroed", "parameters-not-optimised", "weight-decay-too-high", "model-left-in-eval-mode"),
    *("softmax-before-cross-entropy", "activation-on-output", "inputs-not-normalised", "data-not-shuffled"),
]


@pytest.mark.parametrize("fault", SHOWN)
def test_the_first_remedy_helps(fault):
    torch.manual_seed(0)
    model, run = make(fault)
    weights, drawn = weights_of(model), torch.get_rng_state()
    treatment = treat(run, finding(fault), budget_s=600)
    assert treatment.fault == fault
    assert treatment.remedy == FOR[fault][0]
    assert len(treatment.before) == len(treatment.after) == 180
    tail = slice(0 if fault == "data-not-shuffled" else -50, None)  # these few batches are known by heart at the end
    assert treatment.after[tail].mean() < 0.9 * treatment.before[tail].mean() or not np.isfinite(treatment.before[-1])
    assert "180 steps with" in treatment.says
    assert all(torch.equal(a, b) for a, b in zip(weights.values(), weights_of(model).values(), strict=True))
    assert torch.equal(drawn, torch.get_rng_state())


def test_other_remedies_by_name():
    _, run = make("learning-rate-too-high")
    for name in ("1cycle", "batchnorm", "clipping"):
        assert treat(run, finding("learning-rate-too-high"), remedy=name, budget_s=600).remedy == name


def test_the_picture_shows_both_losses_and_the_layer_concerned():
    _, run = make("learning-rate-too-high")
    figure = treat(run, finding("learning-rate-too-high", "0"), budget_s=600).plot()
    assert [ax.get_title() for ax in figure.axes[:3]] == ["learning-rate-too-high", "0, as it was", "0, treated"]
    assert [line.get_label() for line in figure.axes[0].lines][:2] == ["as it was", "treated"]


def test_what_cannot_be_treated():
    _, run = make("learning-rate-too-high")
    assert treat(run, finding("labels-random")) is None
    assert treat(run, finding("softmax-before-cross-entropy")) is None  # there is none to take out
    with pytest.raises(UsageError, match="no remedy for labels-random"):
        treat(run, finding("labels-random"), remedy="1cycle")
    run.why = "it is too large"
    with pytest.raises(UsageError, match="too large"):
        treat(run, finding("learning-rate-too-high"))
