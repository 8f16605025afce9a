"""Whether the loss fits the targets: which loss for which targets, in which shapes.

Healthy, and alike: mse_loss on one-hot targets (a proper score: Brier 1950; Hui and Belkin, arXiv:2006.07322) and
binary_cross_entropy on them; regression whose targets are whole numbers; nll_loss on log-probabilities; soft targets of
mixup and label smoothing; losses put together by hand, whose pairs of all items with all others are meant.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.evidence.record import LossCall
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import learns
from pellucid.doctor.rules.wording import num

_REGRESSIONS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
_BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
_USE_CROSS_ENTROPY = "Use cross_entropy, on one output per class without softmax, with the class indices as targets."


@rule
def broadcast(case: Case) -> Iterator[Suspicion]:
    """(B, 1) against (B): every prediction is compared with every target, so the best one is the mean of the targets.

    Source: torch.nn.functional.mse_loss warns of it ("Using a target size … that is different to the input size").
    """
    hits = [call for call in case.evidence.calls if _broadcasts(call)]
    if not hits:
        return
    call = hits[0]
    size = max(call.input_shape[0], call.target_shape[0])
    floor = f"; the loss then stays near the variance of the targets ({num(call.target_std**2)})"
    yield Suspicion(
        "broadcast-in-loss",
        0.95 if call.name else 0.6,
        f"{call.name or 'the loss'} compares predictions of shape {_shape(call.input_shape)} with targets of shape "
        f"{_shape(call.target_shape)}, which makes {size} × {size} pairs instead of {size}"
        + (floor if call.name == "mse_loss" and np.isfinite(call.target_std) else ""),
        {"prediction": list(call.input_shape), "target": list(call.target_shape), "loss": call.name},
        step=call.step,
        where=call.where or None,
        remedy=f"Give both the shape ({size},): {'prediction' if len(call.input_shape) > 1 else 'target'}.squeeze(1).",
        trials=("equal-shapes",),
    )


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _broadcasts(call: LossCall) -> bool:
    a, b = call.input_shape, call.target_shape
    if call.name not in (*_REGRESSIONS, *_BINARY, "", "sub", "mul", "__sub__", "__mul__"):
        return False
    column, flat = (a, b) if len(a) > len(b) else (b, a)
    return len(flat) == 1 and len(column) == 2 and column[1] == 1 and column[0] == flat[0] and flat[0] > 1


@rule
def wrong(case: Case) -> Iterator[Suspicion]:
    """Targets or predictions that the loss was not made for."""
    if not case.evidence.calls:
        return
    call = case.evidence.calls[-1]
    found = _sign(case, call) or _misfit(case, call)
    if not found:
        return
    prior, says, remedy, numbers = found
    yield Suspicion(
        "wrong-loss",
        prior,
        says,
        {"loss": call.name, "target": call.target_kind, "value": call.value} | numbers,
        step=0,
        where=call.where or None,
        remedy=remedy,
        trials=("fitting-loss",),
    )


_Found = tuple[float, str, str, dict[str, object]]


def _misfit(case: Case, call: LossCall) -> _Found | None:
    """Prior, sentence, remedy and numbers."""
    if call.name == "nll_loss" and not call.log_rows > 0.9:
        what, then = "raw outputs", "it can then fall without limit"
        if call.rows_sum_to_one > 0.9:
            what, then = "probabilities", "wrong predictions then get hardly any gradient"
        return (
            0.93,
            f"nll_loss expects log-probabilities, but gets {what} from {num(call.input_min)} to "
            f"{num(call.input_max)}; {then}",
            "Use cross_entropy on the raw outputs, or log_softmax before nll_loss.",
            {"input_min": call.input_min, "input_max": call.input_max},
        )
    if call.name in _BINARY and (call.target_max > 1 or call.target_min < 0):
        return (
            0.95,
            f"{call.name} expects targets from 0 to 1, but gets targets from {num(call.target_min)} to "
            f"{num(call.target_max)}; it can then fall without limit",
            _USE_CROSS_ENTROPY,
            {"target_min": call.target_min, "target_max": call.target_max},
        )
    if call.name == "kl_div" and not call.log_rows > 0.9 and not call.options.get("log_target"):
        return (
            0.8,
            "kl_div expects log-probabilities as its first argument, but does not get them",
            "Pass log_softmax of the model's outputs to kl_div.",
            {"input_min": call.input_min, "input_max": call.input_max},
        )
    if call.name == "cross_entropy" and call.target_kind == "float" and call.target_rows_sum_to_one < 0.5:
        return (
            0.85,
            "cross_entropy expects one class per image, but gets targets whose rows do not sum to 1",
            "With several classes per image use binary_cross_entropy_with_logits.",
            {"target_rows_sum_to_one": call.target_rows_sum_to_one},
        )
    if call.name == "cross_entropy" and len(call.input_shape) == 2 and call.input_shape[1] == 1:
        return (
            0.95,
            "cross_entropy with a single output is always 0, whatever the model predicts",
            "Use binary_cross_entropy_with_logits for one output, or two outputs.",
            {"outputs": 1},
        )
    if call.name in _REGRESSIONS and call.rows_sum_to_one > 0.99 and call.target_rows_sum_to_one < 0.5:
        return (
            0.9,
            f"{call.name} compares probabilities, which sum to 1 in each row, with targets that do not: their rows are "
            "no classes",
            _USE_CROSS_ENTROPY,
            {"rows_sum_to_one": call.rows_sum_to_one, "target_rows_sum_to_one": call.target_rows_sum_to_one},
        )
    if call.name in _REGRESSIONS:
        return _indices(case, call)
    return None


def _indices(case: Case, call: LossCall) -> _Found | None:
    """Class indices as targets of a regression, told from whole-number targets by how the predictions are used."""
    labels = case.evidence.train_labels
    if (not call.target_whole and call.target_kind != "index") or call.one_hot > 0.5 or not len(labels.sequence):
        return None
    values, counts = np.unique(labels.sequence, return_counts=True)
    contiguous = 3 <= len(values) <= 1000 and bool((values == np.arange(len(values))).all())
    if not contiguous or not 0 <= call.target_min <= call.target_max <= values[-1]:
        return None
    compared = labels.compared or case.evidence.valid_labels.compared
    balanced = counts.std() / counts.mean() < 0.25
    prior = 0.93 if compared == "argmax" or labels.width == len(values) else 0.8 if compared else 0.35
    if prior < 0.5 and not learns(case):
        prior = 0.55
    if not balanced and not compared:
        prior = 0.1
    return (
        prior,
        f"{call.name} treats class indices (0 to {values[-1]}) as quantities: for it, class {values[-1]} is closer to "
        f"class {values[-2]} than to class 0",
        _USE_CROSS_ENTROPY,
        {"classes": len(values), "compared": compared},
    )


def _sign(case: Case, call: LossCall) -> _Found | None:
    """A loss that is maximised: what goes backward is minus what was computed."""
    losses = case.evidence.losses
    pairs = [(losses[c.step], c.value) for c in case.evidence.calls if c.step < len(losses) and c.value > 0]
    if not pairs or not all(np.isclose(a, -b, rtol=1e-3) for a, b in pairs):
        return None
    return (
        0.95,
        f"backward is called on the negative {call.name or 'loss'} ({num(pairs[-1][0])}), so each step increases the "
        "loss",
        "Call backward on the loss itself, without the minus sign.",
        {"backward": float(pairs[-1][0]), "computed": float(pairs[-1][1])},
    )
