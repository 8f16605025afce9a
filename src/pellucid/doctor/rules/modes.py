"""Training and evaluation mode of the model.

Healthy, and alike: batch norms that stay in evaluation mode on purpose while a pretrained body is fine-tuned (the model
itself is in training mode then); a model without norms and dropout, for which the mode changes nothing; passes in
training mode that set batch norms anew (update_bn), or one pass that only asks for shapes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.evidence.record import Norm
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.wording import percent
from pellucid.text import counted


@rule
def trained_in_eval(case: Case) -> Iterator[Suspicion]:
    """Training passes of the whole model in evaluation mode.

    Source: PyTorch documentation, torch.nn.Module.eval and "Autograd mechanics" (evaluation mode is not no_grad).
    """
    norms, whole = _switched(case.evidence.norms), case.evidence.loop.trained_in_eval
    if not norms:
        return
    shares = np.array([norm.trained_in_eval for norm in norms])
    shares = shares[np.isfinite(shares)]
    if not len(shares) or shares.min() < 0.05:
        return  # some layers train as they should: the others were frozen on purpose
    share = float(np.median(shares)) if np.isnan(whole) else whole
    if share < 0.05:
        return
    kinds = _kinds(norms)
    later = " (typical if model.train() is only called before the loop over epochs)" if 0.3 < share < 0.99 else ""
    yield Suspicion(
        "model-left-in-eval-mode",
        0.95 if np.isfinite(whole) else 0.8,
        f"{percent(share)} of the training passes ran in evaluation mode{later}: {_off(kinds)}",
        {"share": share, "layers": [norm.name for norm in norms]},
        layer=norms[0].name,
        trials=("norm-modes",),
    )


@rule
def validated_in_train(case: Case) -> Iterator[Suspicion]:
    """Passes without gradients in training mode: dropout is on, and batch norms take in what they see."""
    norms = _switched(case.evidence.norms)
    passes = max(case.evidence.loop.quiet_passes, len(case.evidence.valid_steps))
    if not norms or passes < 2:
        return
    worst = max(norms, key=lambda norm: np.nan_to_num(norm.validated_in_train))
    share = worst.validated_in_train
    if not share > 0.2:
        return
    kinds = _kinds([norm for norm in norms if norm.validated_in_train > 0.2])
    if case.evidence.valid.from_training_loader > 0.5:
        return  # training batches, looked at once more in between
    known = len(case.evidence.valid_labels.sequence) or len(case.evidence.valid_losses)
    yield Suspicion(
        "validated-in-train-mode",
        (0.93 if share > 0.6 else 0.7) if known else 0.55,
        f"{percent(share)} of {counted(passes, 'pass', 'passes')} without gradients ran in training mode: {_on(kinds)}",
        {"share": share, "passes": passes, "layers": [norm.name for norm in norms]},
        layer=worst.name,
        trials=("norm-modes",),
    )


def _switched(norms: list[Norm]) -> list[Norm]:
    """Those that a mode makes a difference to."""
    return [norm for norm in norms if "InstanceNorm" not in norm.kind]


def _kinds(norms: list[Norm]) -> str:
    """All in one text; dropout that is called as a function has it in its name."""
    return " ".join(f"{norm.kind} {norm.name}" for norm in norms).lower()


def _off(kinds: str) -> str:
    parts = ["dropout was off"] * ("dropout" in kinds)
    parts += ["batch norms used their running statistics"] * ("norm" in kinds)
    return " and ".join(parts)


def _on(kinds: str) -> str:
    parts = ["dropout was on"] * ("dropout" in kinds)
    parts += ["batch norms used these batches' statistics and updated their running ones"] * ("norm" in kinds)
    return " and ".join(parts)
