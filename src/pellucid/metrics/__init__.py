"""Metrics: functions of one batch and their means, scores of a whole set, and the pass that collects them."""

from pellucid.metrics.batch import accuracy, accuracy_multi, error_rate, top_k_accuracy
from pellucid.metrics.counts import (
    BalancedAccuracy,
    CohenKappa,
    F1Score,
    FBeta,
    Jaccard,
    MatthewsCorrCoef,
    Precision,
    Recall,
)
from pellucid.metrics.deviations import BrierScore, BrierScoreMulti, HammingLoss, HammingLossMulti
from pellucid.metrics.evaluation import Evaluation
from pellucid.metrics.multi import (
    F1ScoreMulti,
    FBetaMulti,
    JaccardMulti,
    MatthewsCorrCoefMulti,
    PrecisionMulti,
    RecallMulti,
)
from pellucid.metrics.ranking import APScoreBinary, APScoreMulti, RocAuc, RocAucBinary, RocAucMulti
from pellucid.metrics.whole import (
    AccumMetric,
    ActivationType,
    AvgMetric,
    Metric,
    MetricLike,
    column_names,
    metric_name,
    skm_to_fastai,
)

__all__ = [
    "APScoreBinary",
    "APScoreMulti",
    "AccumMetric",
    "ActivationType",
    "AvgMetric",
    "BalancedAccuracy",
    "BrierScore",
    "BrierScoreMulti",
    "CohenKappa",
    "Evaluation",
    "F1Score",
    "F1ScoreMulti",
    "FBeta",
    "FBetaMulti",
    "HammingLoss",
    "HammingLossMulti",
    "Jaccard",
    "JaccardMulti",
    "MatthewsCorrCoef",
    "MatthewsCorrCoefMulti",
    "Metric",
    "MetricLike",
    "Precision",
    "PrecisionMulti",
    "Recall",
    "RecallMulti",
    "RocAuc",
    "RocAucBinary",
    "RocAucMulti",
    "accuracy",
    "accuracy_multi",
    "column_names",
    "error_rate",
    "metric_name",
    "skm_to_fastai",
    "top_k_accuracy",
]
