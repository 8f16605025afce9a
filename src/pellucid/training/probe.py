"""The probe: features of the frozen body once, and the best linear head for them, in place of the first epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.data.imbalance import class_weights
from pellucid.errors import UsageError
from pellucid.training.features import body_features, divided
from pellucid.training.logistic import choose_strength, fit_logistic

LINEAR_HEAD = "vision_learner(dls, arch, lin_ftrs=[]) makes such a head"


@dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        strength: Of the penalty on the weights, on standardised features; cross-validation chose it.
        losses: Mean cross entropy (of several labels, their sum) of held-out training images at each strength that was
            tried.
        n_features: Features of an image.
        n_views: Views of each training image: 2 with its mirror image.
    """

    strength: float
    losses: dict[float, float]
    n_features: int
    n_views: int


def linear_probe(learn: Any, *, flipped: bool = True, balanced: bool = False) -> Probe:
    """Give a learner's head the weights of a logistic regression on the features of its frozen body.

    There is no learning rate and no epoch: the body looks at every image once, see `pellucid.training.features`, and
    the best head for what it gives is computed. The strength of the penalty is what decides how good it is; it is
    chosen on training images alone. The body stays as it is. Where an image may have several labels, each label has a
    logistic regression of its own, with the strength that is best for all together.

    Args:
        learn: A learner whose head is a single linear layer, with a batchnorm before it at most.
        flipped: Learn from the mirror image of every training image too; not for digits, letters or road signs.
        balanced: Weigh the images of rare classes more, as `class_weights` does; of one class an image.

    Raises:
        UsageError: the head is another one, labels are no classes, or as `body_features`.
    """
    norm, linear = _linear_head(learn.model)
    labels = learn.dls.train.labels
    if labels is None or not (labels.dim() == 1 or learn.dls.multi):
        raise UsageError("the probe needs one class an image, or several labels: train with fine_tune")
    if balanced and labels.dim() != 1:
        raise UsageError("balanced weighs classes, one an image; here each image may have several labels")
    views = [body_features(learn, 0)] + ([body_features(learn, 0, flipped=True)] if flipped else [])
    everything = torch.cat(views)
    mean, variance = everything.mean(0), everything.var(0, correction=0)
    eps = norm.eps if norm is not None else 1e-5
    std = (variance + eps).sqrt()
    views = [(view - mean) / std for view in views]
    n_classes = linear.out_features
    weights = class_weights(labels, n_classes).float() if balanced else None
    choice = choose_strength(views, labels, n_classes, weights)
    everything, repeated = torch.cat(views), torch.cat([labels] * len(views))
    weight, bias = fit_logistic(everything, repeated, n_classes, choice.strength, weights=weights)
    with torch.no_grad():
        if norm is None:
            weight, bias = weight / std, bias - (weight / std) @ mean
        else:
            _standardise(norm, mean, variance, torch.zeros_like(mean) if _has_bias(linear) else _carried(weight, bias))
        linear.weight.copy_(weight)
        if _has_bias(linear):
            linear.bias.copy_(bias)
    return Probe(choice.strength, choice.losses, views[0].shape[1], len(views))


def _linear_head(model: nn.Module) -> tuple[nn.BatchNorm1d | None, nn.Linear]:
    """The layers of a head that count when it predicts: a batchnorm or none, and a linear layer."""
    layers = [layer for layer in divided(model)[1] if not isinstance(layer, nn.Dropout)]
    match layers:
        case [nn.BatchNorm1d() as norm, nn.Linear() as linear]:
            return norm, linear
        case [nn.Linear() as linear]:
            return None, linear
    raise UsageError(f"the probe is a single linear layer, and the head of this model is not: {LINEAR_HEAD}")


def _has_bias(linear: nn.Linear) -> bool:
    return linear.bias is not None  # pyright: ignore[reportUnnecessaryComparison]


def _carried(weight: Tensor, bias: Tensor) -> Tensor:
    """What is to be added to standardised features so that a layer without bias gives these biases, or nearly.

    It is nearly so where classes are more than features. A constant in all biases of classes does not matter, and is
    what weights of a logistic regression, which add up to 0, could not give.
    """
    return torch.linalg.lstsq(weight.double(), bias.double()[:, None], driver="gelsd").solution[:, 0].to(weight.dtype)


def _standardise(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, shift: Tensor) -> None:
    """Have a batchnorm subtract this mean, divide by this deviation and add this shift, in evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    if norm.affine:
        nn.init.ones_(norm.weight)
        norm.bias.copy_(shift)
