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
from pellucid.metrics.evaluation import Evaluation
from pellucid.metrics.multi import F1ScoreMulti, FBetaMulti, HammingLossMulti, JaccardMulti, PrecisionMulti, RecallMulti
from pellucid.metrics.ranking import RocAucBinary
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
    "AccumMetric",
    "ActivationType",
    "AvgMetric",
    "BalancedAccuracy",
    "CohenKappa",
    "Evaluation",
    "F1Score",
    "F1ScoreMulti",
    "FBeta",
    "FBetaMulti",
    "HammingLossMulti",
    "Jaccard",
    "JaccardMulti",
    "MatthewsCorrCoef",
    "Metric",
    "MetricLike",
    "Precision",
    "PrecisionMulti",
    "Recall",
    "RecallMulti",
    "RocAucBinary",
    "accuracy",
    "accuracy_multi",
    "column_names",
    "error_rate",
    "metric_name",
    "skm_to_fastai",
    "top_k_accuracy",
]
