"""How far answers or probabilities are from the labels, as a mean over items."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pellucid.errors import UsageError
from pellucid.metrics.batch import HINT, chosen, error_rate
from pellucid.metrics.counts import unweighted
from pellucid.metrics.multi import answers
from pellucid.metrics.whole import AvgMetric
from pellucid.nn.pairing import paired, widened


class HammingLoss(AvgMetric):
    """Share of wrong answers of a classifier of one label an item: `error_rate`, under scikit-learn's name.

    Args:
        axis: The axis of the classes in the outputs.
        sample_weight: Not supported.
    """

    def __init__(self, axis: int = -1, sample_weight: Any = None):
        unweighted(sample_weight)
        self.axis = axis
        super().__init__(self._wrong)
        self.name = "hamming_loss"

    def _wrong(self, pred: Tensor, targ: Tensor) -> Tensor:
        return error_rate(pred, targ, self.axis)


class HammingLossMulti(AvgMetric):
    """Share of wrong yes-or-no answers, 1 − `accuracy_multi`.

    Args:
        thresh: An answer is yes above it.
        sigmoid: Put outputs through a sigmoid first.
        sample_weight: Not supported.
    """

    def __init__(self, thresh: float = 0.5, sigmoid: bool = True, sample_weight: Any = None):
        unweighted(sample_weight)
        self.thresh, self.sigmoid = thresh, sigmoid
        super().__init__(self._wrong)
        self.name = "hamming_loss"

    def _wrong(self, pred: Tensor, targ: Tensor) -> Tensor:
        said, labels = answers(pred, targ, self.thresh, self.sigmoid, "hamming_loss")
        return (said != labels).float().mean()


class BrierScore(AvgMetric):
    """Squared distance of the probabilities from the label, 0 at best; of outputs before softmax.

        mean over items of Σ (p[class] − 1 where it is the label)²        of two classes half of it, (p[1] − label)²

    Args:
        axis: The axis of the classes in the outputs.
        sample_weight: Not supported.
        pos_label: Without effect: of two classes both have the same distance.

    fastai's function of this name compares the most probable class in place of the probabilities.

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78(1), 1950.
    """

    def __init__(self, axis: int = -1, sample_weight: Any = None, pos_label: Any = None):
        unweighted(sample_weight)
        self.axis = axis
        super().__init__(self._squared)
        self.name = "brier_score_loss"

    def _squared(self, pred: Tensor, targ: Tensor) -> Tensor:
        labels = paired(chosen(pred, self.axis, "BrierScore"), targ, "BrierScore", HINT)[1].long()
        p = widened(pred).softmax(self.axis).movedim(self.axis, -1)
        p = p.reshape(-1, p.shape[-1])
        is_label = labels[:, None] == torch.arange(p.shape[-1], device=p.device)
        each = (p - is_label.to(p)).square().sum(1)
        return each.mean() / (2 if p.shape[-1] == 2 else 1)


class BrierScoreMulti(AvgMetric):
    """Squared distance of each label's probability from 1 where an image has it, else 0, on average over all answers.

    Args:
        thresh: Only None: the score is of probabilities; `HammingLossMulti` is of answers.
        sigmoid: Put outputs through a sigmoid first.
        sample_weight: Not supported.
        pos_label: Without effect.
    """

    def __init__(
        self, thresh: float | None = None, sigmoid: bool = True, sample_weight: Any = None, pos_label: Any = None
    ):
        if thresh is not None:
            raise UsageError(
                f"BrierScoreMulti compares probabilities, not answers above {thresh}: leave thresh out, or take "
                "HammingLossMulti, which is the same of answers"
            )
        unweighted(sample_weight)
        self.sigmoid = sigmoid
        super().__init__(self._squared)
        self.name = "brier_score_loss"

    def _squared(self, pred: Tensor, targ: Tensor) -> Tensor:
        values, labels = paired(pred, targ, "BrierScoreMulti")
        return ((widened(values).sigmoid() if self.sigmoid else values) - labels).square().mean()
