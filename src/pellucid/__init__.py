"""pellucid: train image classifiers you can see through.

Names load on first use, so that `import pellucid` costs next to nothing; `from pellucid.vision.all import *` gives the
whole working set of the chapter at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.activations.watch import watch
    from pellucid.convolution.summary import summarize
    from pellucid.data.block import CategoryBlock, DataBlock, ImageBlock
    from pellucid.data.catalogue import URLs, untar_data
    from pellucid.data.factories import ImageDataLoaders
    from pellucid.data.loader import DataLoaders
    from pellucid.doctor.examining import examine
    from pellucid.doctor.report import Finding, Report
    from pellucid.errors import DataError, PellucidError, TrainingError, UsageError
    from pellucid.history.history import History
    from pellucid.metrics import accuracy, error_rate
    from pellucid.nn.losses import LabelSmoothingCrossEntropy
    from pellucid.runs import Run, load_run, train
    from pellucid.seed import set_seed
    from pellucid.training.callbacks.core import Callback
    from pellucid.training.callbacks.statistics import ActivationStats
    from pellucid.training.interpretation import ClassificationInterpretation
    from pellucid.training.learner import Learner

__version__ = "0.1.0"

_HOMES = {
    "ActivationStats": "training.callbacks.statistics",
    "Callback": "training.callbacks.core",
    "CategoryBlock": "data.block",
    "ClassificationInterpretation": "training.interpretation",
    "DataBlock": "data.block",
    "DataError": "errors",
    "DataLoaders": "data.loader",
    "Finding": "doctor.report",
    "History": "history.history",
    "ImageBlock": "data.block",
    "ImageDataLoaders": "data.factories",
    "LabelSmoothingCrossEntropy": "nn.losses",
    "Learner": "training.learner",
    "PellucidError": "errors",
    "Report": "doctor.report",
    "Run": "runs",
    "TrainingError": "errors",
    "URLs": "data.catalogue",
    "UsageError": "errors",
    "accuracy": "metrics",
    "error_rate": "metrics",
    "examine": "doctor.examining",
    "load_run": "runs",
    "set_seed": "seed",
    "summarize": "convolution.summary",
    "train": "runs",
    "untar_data": "data.catalogue",
    "watch": "activations.watch",
}

__all__ = [
    "ActivationStats",
    "Callback",
    "CategoryBlock",
    "ClassificationInterpretation",
    "DataBlock",
    "DataError",
    "DataLoaders",
    "Finding",
    "History",
    "ImageBlock",
    "ImageDataLoaders",
    "LabelSmoothingCrossEntropy",
    "Learner",
    "PellucidError",
    "Report",
    "Run",
    "TrainingError",
    "URLs",
    "UsageError",
    "__version__",
    "accuracy",
    "error_rate",
    "examine",
    "load_run",
    "set_seed",
    "summarize",
    "train",
    "untar_data",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"pellucid.{_HOMES[name]}"), name)
    return value
