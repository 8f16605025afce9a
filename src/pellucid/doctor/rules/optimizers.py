"""What optimizers hold, and whether the weights do as they ask.

Healthy, and alike: frozen bodies (no gradient wanted); two optimizers that hold a part each; an average of the weights
(EMA), which is another model; norms or weights that are clipped after a step, which keep nearly all of it; the usual
weight decays (0.0005 for SGD, up to 0.1 for AdamW, which shrinks weights by decay times rate in each step).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from pellucid.doctor.evidence.record import Parameter
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import descent, fails, learns
from pellucid.doctor.rules.weights import layer_weights
from pellucid.doctor.rules.wording import layer, num, percent
from pellucid.text import counted, first_few

MUCH_DECAY = 0.05  # a hundred times what is usual where decay is a part of the gradient
_HALF = ("float16", "bfloat16")
USUAL_DECAY = 0.001  # of SGD, up to which it is not to blame


@rule
def not_optimised(case: Case) -> Iterator[Suspicion]:
    """Weights with gradients that no optimizer holds."""
    evidence = case.evidence
    stepping = [optimizer for optimizer in evidence.optimizers if optimizer.steps]
    if not stepping:
        return
    left_out = [p for p in evidence.parameters if p.requires_grad and p.has_grad > 0 and p.held < 0]
    if not left_out:
        return
    wanted = [p for p in evidence.parameters if p.requires_grad and p.has_grad > 0]
    share = sum(prod(p.shape) for p in left_out) / sum(prod(p.shape) for p in wanted)
    foreign = sum(optimizer.foreign for optimizer in stepping)
    layers = list(dict.fromkeys(p.layer for p in left_out))
    if sum(optimizer.foreign_with_grad for optimizer in stepping):
        return  # a copy is stepped: `lost` says so
    prior = 0.95 if foreign else 0.9 if share > 0.02 else 0.6
    also = f"; instead, an optimizer holds {counted(foreign, 'tensor')} that the model does not use" if foreign else ""
    yield Suspicion(
        "parameters-not-optimised",
        prior,
        f"the weights of {first_few(map(layer, layers), 4)} are in no optimizer, {percent(share)} of all that get "
        f"gradients{also}",
        {"layers": layers, "share": share, "foreign": foreign},
        layer=layers[0],
        step=0,
        remedy="Keep layers in an nn.ModuleList or nn.ModuleDict instead of a plain list or dict, so that "
        "model.parameters() has their weights."
        if any("no part of the model" in layer for layer in layers)
        else "Create the optimizer after the model is complete and on its device: this one holds an older copy."
        if foreign and share == 1
        else None,
        trials=("optimizer-holds-all", "higher-rate"),
    )


@rule
def lost(case: Case) -> Iterator[Suspicion]:
    """Steps that were asked for and not made, or made and undone."""
    evidence, weights = case.evidence, layer_weights(case)
    if evidence.loop.steps < 3:
        return
    if evidence.loop.discarded > 0.9 and evidence.loop.backwards < 1.5 * evidence.loop.steps:
        yield Suspicion(
            "updates-lost",
            0.95,
            f"{percent(evidence.loop.discarded)} of the gradients were zeroed between backward and the optimizer's "
            "step, so that the steps had nothing to apply",
            {"discarded": evidence.loop.discarded, "steps": evidence.loop.steps},
            step=0,
            remedy="Call optimizer.zero_grad() before backward, or after optimizer.step(), but not between the two.",
        )
        return
    copied = sum(optimizer.foreign_with_grad for optimizer in evidence.optimizers)
    idle = [p for p in evidence.parameters if p.requires_grad and p.has_grad > 0 and p.held < 0]
    if copied and idle:
        yield _lost(
            0.9,
            f"the optimizer updates {counted(copied, 'tensor')} that the model does not use (a copy of its weights), "
            "and the model's own weights do not change",
            idle[0],
            {"copies": copied},
            "Give the optimizer model.parameters(), or copy its weights back into the model after each step.",
        )
        return
    undone = [(float(np.nanmedian(p.kept)), p) for p in weights if np.isfinite(p.kept).any()]
    if undone and np.median([kept for kept, _ in undone]) < 0.5:
        kept, p = min(undone, key=lambda each: each[0])
        yield _lost(
            0.9,
            f"something overwrites the weights of {layer(p.layer)} between the steps: when a step begins, "
            f"{percent(max(kept, 0))} of what the last one changed is left",
            p,
            {"kept": kept, "overwritten": p.overwritten},
            "Look for code that writes into the weights after the step, such as a checkpoint that is loaded in the "
            "loop.",
        )
        return
    if (again := _begins_anew(case)) is not None:
        starts, ends = again
        yield Suspicion(
            "updates-lost",
            0.8,
            f"every epoch starts again at the initial loss ({num(starts)}), although the one before ended at "
            f"{num(ends)}: the weights are reset in between",
            {"epochs_begin_at": starts, "epochs_end_at": ends},
            step=case.evidence.loop.epoch_starts[1],
            remedy="Look for code that resets the weights between epochs: load_state_dict, or a model created again.",
            trials=("higher-rate",),
        )
        return
    missed = [(share, p) for p in weights if (share := _missed(p)) is not None]
    if not missed or np.median([share for share, _ in missed]) < 0.3:
        return
    share, p = max(missed, key=lambda each: each[0])
    rounded = p.dtype in _HALF
    why = f": {p.dtype} rounds away steps that are small next to the weights" if rounded else ""
    yield _lost(
        0.92 if rounded else 0.85,
        f"{percent(min(share, 1))} of an optimizer step does not reach the weights of {layer(p.layer)}{why}",
        p,
        {"missed": share, "dtype": p.dtype},
        f"Keep the weights in float32 instead of {p.dtype}, and use torch.autocast for speed." if rounded else None,
    )


def _begins_anew(case: Case) -> tuple[float, float] | None:
    """Mean loss at the beginning and at the end of epochs, if every epoch begins where the training began."""
    losses = case.evidence.losses
    starts = [step for step in case.evidence.loop.epoch_starts if step < len(losses)]
    lengths = np.diff([*starts, len(losses)])
    if len(starts) < 3 or lengths.min() < 15 or not np.isfinite(losses).all():
        return None
    begins = np.array([losses[s : s + 3].mean() for s in starts])
    ends = np.array([losses[s + n - n // 4 : s + n].mean() for s, n in zip(starts, lengths, strict=True)])
    fell = begins[0] - ends
    noise = np.diff(losses).std() / np.sqrt(6)  # of a mean of three losses
    if (fell > max(0.03 * abs(begins[0]), 5 * noise)).all() and (begins[1:] - ends[:-1] > 0.7 * fell[:-1]).all():
        return float(begins[1:].mean()), float(ends[:-1].mean())
    return None


def _lost(prior: float, says: str, p: Parameter, numbers: dict[str, object], remedy: str | None) -> Suspicion:
    return Suspicion(
        "updates-lost",
        prior,
        says,
        numbers,
        layer=p.layer,
        step=0,
        remedy=remedy,
        trials=("optimizer-holds-all", "higher-rate"),
    )


def _missed(p: Parameter) -> float | None:
    """Part of the step that was asked for and not made; None where that is not known."""
    n = min(len(p.moved), len(p.asked), len(p.deviation), len(p.weight))
    if n:
        # a step below float32's own resolution is lost by any rate that small
        resolution = 1e-6 if p.dtype not in _HALF else 0.0
        known = np.isfinite(p.deviation[:n]) & (p.asked[:n] > resolution * p.weight[:n])
        if known.any():
            return float(np.median(p.deviation[:n][known] / p.asked[:n][known]))
    still = len(p.weight) > 3 and bool((p.weight == p.weight[0]).all()) and not np.nan_to_num(p.moved).any()
    if still and bool((p.gradient > 0).all()) and not np.isfinite(p.asked).any():
        return 1.0
    return None


@rule
def decay(case: Case) -> Iterator[Suspicion]:
    """A step that is mostly decay, and weights that shrink (Loshchilov and Hutter, arXiv:1711.05101)."""
    weights = [p for p in layer_weights(case) if np.isfinite(p.decay_share).any()]
    how = descent(case)
    strength = _strength(case)
    # A usual strength takes over where nothing else moves the weights any more: then what stopped it is the cause.
    if weights and strength > USUAL_DECAY:
        share = float(np.median([np.nanmedian(p.decay_share) for p in weights]))
        kept = float(
            np.median([p.weight[-1] / p.weight[0] for p in weights if len(p.weight) and p.weight[0] > 0] or [1])
        )
        if share > 0.5 and kept < 0.7:
            prior = 0.9
        elif share > 0.25 and kept < 0.4:
            prior = 0.75
        elif share > 0.5:
            prior = 0.6
        elif share > 0.1 and strength >= MUCH_DECAY:
            prior = 0.4  # the loss may have come down and stay where gradient and decay balance: the trial tells
        else:
            return
        if prior > 0.4 and not fails(case):
            prior *= 0.35 if learns(case) and how.learnt > 0.3 else 0.75
        evidence: dict[str, object] = {"decay_share": share, "weights_kept": kept, "weight_decay": strength}
        change = "shrank to" if kept < 1 else "stayed at"
        yield Suspicion(
            "weight-decay-too-high",
            prior,
            f"weight decay makes up {percent(share)} of a typical step; the weights {change} {percent(kept)} of their "
            f"size, and the loss ended at {num(how.end)}",
            evidence,
            layer=max(weights, key=lambda p: float(np.nanmedian(p.decay_share))).layer,
            step=0,
            remedy=f"Use a weight decay of at most {num(USUAL_DECAY)}, or 0.01 with AdamW, instead of {num(strength)}.",
            trials=("without-decay",),
        )


def _strength(case: Case) -> float:
    values = [o.hypers["weight_decay"] for o in case.evidence.optimizers if len(o.hypers.get("weight_decay", ()))]
    return float(max(np.nanmax(v) for v in values)) if values else 0.0
