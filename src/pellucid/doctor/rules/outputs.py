"""What comes out of the model against what its loss takes: softmax twice, an activation on logits, too many outputs.

Healthy, and alike: LogSoftmax with nll_loss; log-probabilities into cross_entropy (log_softmax changes nothing there);
a sigmoid under binary_cross_entropy; a last layer whose logits happen to be positive for some batches; a bounded output
for targets within the bounds (autoencoders); 21 outputs for segmentation, or a vocabulary, of which a run sees a part.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.evidence.record import LossCall, Op
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.operations import output_activation
from pellucid.doctor.rules.wording import num
from pellucid.text import counted

_LOGITS = ("cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss", "multi_margin_loss")
_REGRESSIONS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
_BOUNDS = {  # smallest and largest value
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softplus": (0.0, np.inf),
    "gelu": (-0.17, np.inf),
    "silu": (-0.28, np.inf),
    "elu": (-1.0, np.inf),
    "hardtanh": (-1.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softsign": (-1.0, 1.0),
    "softmax": (0.0, 1.0),
    "exp": (0.0, np.inf),
    "square": (0.0, np.inf),
    "abs": (0.0, np.inf),
}


@rule
def softmax_twice(case: Case) -> Iterator[Suspicion]:
    """Rows that sum to one are given to cross_entropy, whose smallest value is then ln(1 + (C − 1)/e).

    Source: torch.nn.CrossEntropyLoss ("The input is expected to contain the unnormalized logits for each class"); the
    smallest value is −ln of softmax of (1, 0, …, 0), by insertion.
    """
    calls = [call for call in case.evidence.calls if call.name == "cross_entropy" and call.rows_sum_to_one > 0.99]
    if not calls or len(calls) < 0.9 * sum(call.name == "cross_entropy" for call in case.evidence.calls):
        return
    call = calls[-1]
    classes = call.input_shape[1] if len(call.input_shape) > 1 else case.evidence.train_labels.width
    if classes < 2:
        return
    floor = float(np.log(1 + (classes - 1) / np.e))
    last = output_activation(case, ("softmax",))
    where = last.where if last and last.where else call.where
    module = f" ({last.module})" if last and last.module else ""
    yield Suspicion(
        "softmax-before-cross-entropy",
        0.97,
        f"every row of the model's output sums to 1 (probabilities), so the loss cannot fall below {num(floor)}; it "
        f"ended at {num(call.value)}",
        {"rows_sum_to_one": call.rows_sum_to_one, "classes": classes, "floor": floor, "loss": call.value},
        layer=last.module if last else None,
        step=0,
        where=where or None,
        remedy=f"Remove the softmax{module}: cross_entropy expects logits and applies softmax itself.",
        trials=("without-softmax",),
    )


@rule
def activation(case: Case) -> Iterator[Suspicion]:
    """An output that is bounded by its last operation, where the loss asks for values beyond the bound."""
    calls, last = case.evidence.calls, output_activation(case)
    if not calls or any(call.rows_sum_to_one > 0.99 for call in calls):
        return
    call = calls[-1]
    low, high = min(each.input_min for each in calls), max(each.input_max for each in calls)
    bounds = _BOUNDS.get(last.name.rstrip("_"), (-np.inf, np.inf)) if last else (-np.inf, np.inf)
    if call.name in _LOGITS:
        if last and last.name != "softmax" and np.isfinite(bounds).any():
            yield _bounded(case, last, call, 0.9, bounds, low, high)
        elif last is None and low == 0.0 and high > 0 and len(calls) > 1 and call.log_rows < 0.01:
            yield _bounded(case, None, call, 0.6, (0.0, np.inf), low, high)
    elif call.name in _REGRESSIONS and last and call.target_kind == "float":
        slack = 0.02 * (call.target_max - call.target_min)
        if call.target_min < bounds[0] - slack or call.target_max > bounds[1] + slack:
            yield _bounded(case, last, call, 0.9, bounds, low, high)


def _bounded(
    case: Case, last: Op | None, call: LossCall, prior: float, bounds: tuple[float, float], low: float, high: float
) -> Suspicion:
    name = last.name.rstrip("_") if last else "ReLU"
    limits = f"stay between {num(bounds[0])} and {num(bounds[1])}"
    if bounds[1] == np.inf:
        limits = "cannot be negative" if bounds[0] == 0 else f"cannot fall below {num(bounds[0])}"
    asks = f"{call.name} expects logits of any size and sign"
    if call.name in _REGRESSIONS:
        asks = f"the targets range from {num(call.target_min)} to {num(call.target_max)}"
    return Suspicion(
        "activation-on-output",
        prior,
        f"the model ends with {name}, so its outputs {limits}, but {asks}",
        {"activation": name, "min": low, "max": high, "loss": call.name},
        layer=last.module if last else None,
        step=0,
        where=(last.where or None) if last else None,
        remedy=f"Remove the {name} after the last layer.",
        trials=("without-output-activation",),
    )


@rule
def width(case: Case) -> Iterator[Suspicion]:
    """More outputs than classes were ever seen, or a label beyond the outputs."""
    failure, labels = case.evidence.failure, case.evidence.train_labels
    if failure and _beyond(failure.message):
        yield Suspicion(
            "output-does-not-match-classes",
            0.95,
            f"the script failed with “{failure.message}”: there is a label that the model has no output for"
            + (f" (it has {counted(labels.width, 'output')})" if labels.width else ""),
            {"message": failure.message, "outputs": labels.width},
            step=max(failure.step, 0),
            where=failure.where or None,
        )
        return
    call = case.evidence.calls[-1] if case.evidence.calls else None
    seen = np.unique(np.concatenate([labels.sequence, case.evidence.valid_labels.sequence]))
    if not call or call.name not in ("cross_entropy", "nll_loss") or len(call.target_shape) > 1 or not len(seen):
        return
    if case.evidence.train.integers or labels.width <= 2:
        return
    seen = seen[seen >= 0]
    n, missing = len(labels.sequence), labels.width - len(seen)
    rarest = np.unique(labels.sequence, return_counts=True)[1].min()
    if set(labels.sequence[: n // 2].tolist()) != set(labels.sequence[n // 2 :].tolist()):
        return  # sorted or streamed: more classes may come
    # What was never seen has about the share of what was seen once (Good, Biometrika 1953): here, none.
    if missing > 0 and rarest >= 10 and seen.max() < labels.width:
        unused = missing >= max(2, 0.2 * labels.width)
        yield Suspicion(
            "output-does-not-match-classes",
            0.9 if unused else 0.7,
            f"the model has {counted(labels.width, 'output')}, but {n:,} labels contain only "
            f"{counted(len(seen), 'class', 'classes')} ({seen.min()} to {seen.max()})",
            {"outputs": labels.width, "classes": len(seen), "lowest": int(seen.min()), "highest": int(seen.max())},
            layer=_last_layer(case),
            step=0,
            severity="warning",
            remedy=f"Give the last layer {len(seen):,} outputs instead of {labels.width:,}, and number the classes "
            "from 0.",
        )


def _beyond(message: str) -> bool:
    text = message.lower()
    return (
        ("target" in text and "out of bounds" in text)
        or "n_classes" in text
        or ("nll_loss" in text and "assert" in text)
    )


def _last_layer(case: Case) -> str | None:
    layers = [layer.name for layer in case.history.layers if layer.role == "layer" and layer.shape]
    return layers[-1] if layers else None
