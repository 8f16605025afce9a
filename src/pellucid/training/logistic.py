"""Logistic regression, of classes or of labels: the best linear classifier of features, without a learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.optim.optimizers import LBFGS

# From so strong that little is learnt to so weak that nothing is held back.
STRENGTHS = tuple(10.0 ** (-half / 2) for half in range(-2, 10))
N_FOLDS = 5
MANY = 2000  # from so many images on, one fold says enough about the strength
RISING = 2  # so many strengths in turn, clearly worse than the best one, end the search: weaker ones overfit more


@dataclass(frozen=True)
class Choice:
    """A strength of the penalty, and how it was chosen.

    Attributes:
        strength: The strongest penalty with a loss on held-out images that cannot be told from the lowest.
        losses: That loss for each strength that was tried, strength → mean cross entropy.
    """

    strength: float
    losses: dict[float, float]


def fit_logistic(
    x: Tensor,
    y: Tensor,
    n_classes: int,
    strength: float,
    start: tuple[Tensor, Tensor] | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weights (class, feature) and biases (class,) that minimise cross entropy + strength / 2 · Σ weights².

    The minimum is unique up to a constant in all biases, and L-BFGS with a line search finds it: there is nothing to
    tune. Of labels that an item may have any number of, cross entropy is the sum over labels of that of yes and no, so
    that each label has a logistic regression of its own.

    Args:
        x: Features, (item, feature), each with mean 0 and variance 1 over the items, or all are not penalised alike.
        y: Class of each item, int64 (item,), or 0 or 1 for each label, float (item, label).
        n_classes: Classes or labels, also of those that no item has.
        strength: Of the penalty, which leaves the biases alone.
        start: Weights and biases to begin with; None begins with zeros.
        weights: Of each class in the cross entropy, (class,); None weighs every item alike.

    Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, section 4.4; Nocedal and Wright,
    Numerical Optimization, algorithm 7.5.
    """
    zeros = x.new_zeros(n_classes, x.shape[1]), x.new_zeros(n_classes)
    weight, bias = (t.clone().requires_grad_() for t in start or zeros)
    opt = LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        opt.zero_grad()
        loss = _loss(F.linear(x, weight, bias), y, weights, "mean") + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.inference_mode(False), torch.enable_grad():
        opt.step(closure)
    return weight.detach(), bias.detach()


def choose_strength(
    views: Sequence[Tensor], y: Tensor, n_classes: int, weights: Tensor | None = None, seed: int = 0
) -> Choice:
    """The strongest penalty whose cross entropy on held-out items is within a standard error of the lowest.

    Few items cannot tell strengths apart; of equals the simplest classifier is taken (Breiman, Friedman, Olshen and
    Stone, Classification and Regression Trees, 1984, section 3.4.3).

    The items of each class are dealt out to five folds; each fold is predicted by a classifier of the other four. From
    2,000 items on, one fold is predicted. All views of an item are in the same fold, and its first one is predicted.
    Strengths are tried from strong to weak, until two in turn are worse by more than that error.

    Args:
        views: Features of each view of the items, (item, feature).
        y: And `n_classes`: as of `fit_logistic`.
        weights: As of `fit_logistic`.
        seed: Of the folds.
    """
    folds = _folds(y, seed)
    n_folds = N_FOLDS if len(y) < MANY else 1
    held = [folds == fold for fold in range(n_folds)]
    kept = [(torch.cat([view[~out] for view in views]), torch.cat([y[~out]] * len(views))) for out in held]
    found: list[tuple[Tensor, Tensor] | None] = [None] * n_folds
    each: dict[float, Tensor] = {}
    means: dict[float, float] = {}
    good = 0.0
    for strength in STRENGTHS:  # from strong to weak, each from the solution before
        losses = []
        for fold, (x, labels) in enumerate(kept):
            found[fold] = fitted = fit_logistic(x, labels, n_classes, strength, found[fold], weights)
            losses.append(_loss(F.linear(views[0][held[fold]], *fitted), y[held[fold]], weights, "none"))
        each[strength] = torch.cat(losses).double()
        means[strength] = float(each[strength].mean())
        lowest = min(means, key=means.__getitem__)
        good = means[lowest] + float(each[lowest].std()) / len(each[lowest]) ** 0.5
        if len(means) > RISING and all(loss > good for loss in list(means.values())[-RISING:]):
            break
    return Choice(max(strength for strength in means if means[strength] <= good), means)


def _loss(scores: Tensor, y: Tensor, weights: Tensor | None, reduction: str) -> Tensor:
    """Cross entropy of scores (item, class), as the mean of items or of each (`none`)."""
    if y.dim() == 1:
        return F.cross_entropy(scores, y, weights, reduction=reduction)
    each = F.binary_cross_entropy_with_logits(scores, y.to(scores), reduction="none").sum(1)
    return each if reduction == "none" else each.mean()


def _folds(y: Tensor, seed: int) -> Tensor:
    """A fold for each item: the items of every class are dealt out in random order, going on where the last ended.

    Of several labels, the items that have the same ones are dealt out.
    """
    y = y if y.dim() == 1 else y.unique(dim=0, return_inverse=True)[1]
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(y), generator=generator, device="cpu")
    by_class = shuffled[y[shuffled].argsort(stable=True)]
    folds = torch.empty_like(y)
    folds[by_class] = torch.arange(len(y), device="cpu") % N_FOLDS
    return folds
