"""What rules read of weights: which are layers' weights, how far steps moved them, and how large they were at first."""

from __future__ import annotations

from math import prod

import numpy as np

from pellucid.doctor.evidence.record import Parameter
from pellucid.doctor.rules.core import Case

USUAL_STEP = 1e-3  # of a step relative to the weights it moves (Karpathy, CS231n notes, "Ratio of weights:updates")
LARGE_STEP, HUGE_STEP = 0.03, 0.2
SMALL_STEP, TINY_STEP = 1e-4, 1e-5

_NO_LAYERS = ("Embedding", "EmbeddingBag")


def layer_weights(case: Case, trained: bool = True) -> list[Parameter]:
    """Weights of linear and convolutional layers (two axes or more), in order; of those, the ones that are trained."""
    found = [p for p in case.evidence.parameters if len(p.shape) > 1 and p.kind not in _NO_LAYERS]
    if trained:
        found = [p for p in found if p.requires_grad and p.held >= 0 and p.has_grad != 0]
    return found


def fan_in(parameter: Parameter) -> int:
    """How many inputs each output is a sum of."""
    if "Transpose" in parameter.kind:
        return parameter.shape[0] * prod(parameter.shape[2:])
    return prod(parameter.shape[1:])


def gain(parameter: Parameter) -> float:
    """Deviation of the initial weights times the root of the fan-in, by which a linear layer changes its input's size.

    1.4 for Kaiming, 1 for Xavier on square layers, 0.58 for what PyTorch's Linear and Conv2d start with.

    Source: He et al., arXiv:1502.01852, section 2.2.
    """
    return float(parameter.weight[0] * np.sqrt(fan_in(parameter))) if len(parameter.weight) else np.nan


def step_sizes(case: Case) -> np.ndarray:
    """Norm of a step relative to the norm of the weights, the median over layers, [column or look]."""
    ratios = case.history.series.get("update.ratio")
    if ratios is not None and ratios.size:
        params = case.history.params
        shapes = {p.name: len(p.shape) for p in case.evidence.parameters}
        rows = [i for i, name in enumerate(params) if shapes.get(name, 2 if name.endswith("weight") else 1) > 1]
        return _medians(ratios[rows]) if rows else np.zeros(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # weights that start at zero
        looks = [p.moved / p.weight for p in layer_weights(case) if len(p.moved) and len(p.moved) == len(p.weight)]
    n = max(map(len, looks), default=0)
    return _medians(np.stack([look for look in looks if len(look) == n])) if n else np.zeros(0)


def _medians(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values).any(axis=0)
    out = np.full(values.shape[1], np.nan)
    out[known] = np.nanmedian(np.where(np.isfinite(values), values, np.nan)[:, known], axis=0)
    return out


def learning_rate(case: Case) -> np.ndarray:
    """Of the first optimizer, [step]; empty where it was not seen."""
    for optimizer in case.evidence.optimizers:
        if "lr" in optimizer.hypers:
            return np.asarray(optimizer.hypers["lr"], np.float64)
    rates = case.history.hypers.get("lr")
    return np.zeros(0) if rates is None or not rates.size else np.asarray(rates[0], np.float64)


def growth(case: Case) -> float:
    """Deviation of the last layer's outputs over that of the first one's, in the first column; nan where unknown."""
    train, layers = case.history.train, case.history.layers
    if not train.std.size:
        return np.nan
    rows = [i for i, layer in enumerate(layers) if layer.role == "layer" and layer.shape and "Norm" not in layer.kind]
    stds = train.std[rows, 0].astype(np.float64)
    stds = stds[np.isfinite(stds)]
    if len(stds) < 2 or not stds[0] > 0:
        return np.nan
    return float(stds[-1] / stds[0])


def has_norms(case: Case, *kinds: str) -> bool:
    """Whether the model normalises its activations somewhere, with a norm of one of these kinds if any are given."""
    found = [layer.kind for layer in case.history.layers] + [norm.kind for norm in case.evidence.norms]
    return any(kind in each for each in found for kind in kinds or ("Norm",))
