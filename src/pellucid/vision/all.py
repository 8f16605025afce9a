"""Everything the chapter's cells use, under its names: `from pellucid.vision.all import *`."""

from __future__ import annotations

import importlib.util
import math
import random
import re
import string
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import fastcore.xtras  # noqa: F401  (gives Path its `ls` and `BASE_PATH`)
import numpy as np
import torch
import torch.nn.functional as F
from fastcore.basics import using_attr
from fastcore.foundation import L
from fastcore.imports import noop
from numpy import array
from PIL import Image
from torch import Tensor, nn

from pellucid.activations.hook import Hook, Hooks, has_params, hook_output, hook_outputs
from pellucid.activations.watch import watch
from pellucid.convolution.summary import summarize
from pellucid.data.augment.crops import CenterCrop, RandomCrop, RandomResizedCropGPU
from pellucid.data.augment.erasing import RandomErasing
from pellucid.data.augment.geometry import Dihedral, Flip, Rotate, Warp, Zoom
from pellucid.data.augment.lighting import Brightness, Contrast, Hue, Saturation
from pellucid.data.augment.policies import RandAugment, TrivialAugment
from pellucid.data.augment.recipes import aug_transforms, augmentation, setup_aug_tfms
from pellucid.data.augment.resampling import PadMode
from pellucid.data.augment.sizing import CenterCropResize
from pellucid.data.balanced import GroupSplitter, TrainTestSplitter
from pellucid.data.block import DataBlock
from pellucid.data.blocks import CategoryBlock, ImageBlock, MultiCategoryBlock
from pellucid.data.catalogue import URLs, untar_data
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.frames import ColReader, ColSplitter
from pellucid.data.images import PILImage, PILImageBW, Resize, ResizeMethod
from pellucid.data.items import RegexLabeller, get_image_files, parent_label
from pellucid.data.labels import csv_items
from pellucid.data.loader import DataLoader, DataLoaders, default_device
from pellucid.data.splits import (
    FuncSplitter,
    GrandparentSplitter,
    IndexSplitter,
    MaskSplitter,
    RandomSplitter,
    RandomSubsetSplitter,
)
from pellucid.data.transforms import Normalize, imagenet_stats
from pellucid.data.verification import verify_images
from pellucid.errors import DataError, PellucidError, TrainingError, UsageError
from pellucid.history.history import History
from pellucid.metrics import (
    AccumMetric,
    ActivationType,
    APScoreBinary,
    APScoreMulti,
    AvgMetric,
    BalancedAccuracy,
    BrierScore,
    BrierScoreMulti,
    CohenKappa,
    F1Score,
    F1ScoreMulti,
    FBeta,
    FBetaMulti,
    HammingLoss,
    HammingLossMulti,
    Jaccard,
    JaccardMulti,
    MatthewsCorrCoef,
    MatthewsCorrCoefMulti,
    Metric,
    Precision,
    PrecisionMulti,
    Recall,
    RecallMulti,
    RocAuc,
    RocAucBinary,
    RocAucMulti,
    accuracy,
    accuracy_multi,
    error_rate,
    skm_to_fastai,
    top_k_accuracy,
)
from pellucid.nn.heads import create_body, create_head
from pellucid.nn.layers import (
    AdaptiveAvgPool,
    AdaptiveConcatPool2d,
    AvgPool,
    ConvLayer,
    Flatten,
    Lambda,
    LinBnDrop,
    MaxPool,
    Mish,
    Module,
    PoolFlatten,
    ResBlock,
    Swish,
    init_default,
    init_linear,
    sequential,
)
from pellucid.nn.losses import (
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    FocalLoss,
    FocalLossFlat,
    L1LossFlat,
    LabelSmoothingCrossEntropy,
    LabelSmoothingCrossEntropyFlat,
    MSELossFlat,
)
from pellucid.nn.norms import BatchNorm, InstanceNorm, NormType
from pellucid.optim.groups import default_split, params, split_at, trainable_params
from pellucid.optim.optimizers import SGD, Adam
from pellucid.plot.images import show_image, show_images, subplots
from pellucid.runs import Run, load_run
from pellucid.schedule import SchedCos, SchedExp, SchedLin, SchedNo, SchedPoly, combine_scheds, combined_cos
from pellucid.seed import set_seed
from pellucid.training.callbacks.averaging import ModelEMA
from pellucid.training.callbacks.balance import BalancedLoss
from pellucid.training.callbacks.checkpoint import Checkpoint
from pellucid.training.callbacks.core import (
    Callback,
    CancelBackwardException,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
    CancelValidException,
)
from pellucid.training.callbacks.csv_logger import CSVLogger
from pellucid.training.callbacks.doctor import Doctor
from pellucid.training.callbacks.gradients import GradientAccumulation, GradientClip
from pellucid.training.callbacks.guard import NonFiniteGuard
from pellucid.training.callbacks.lr_finder import SuggestionMethod, minimum, slide, steep, valley
from pellucid.training.callbacks.mixing import CutMix, MixHandler, MixUp
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.recorder import Recorder
from pellucid.training.callbacks.schedule import ParamScheduler
from pellucid.training.callbacks.statistics import ActivationStats, HookCallback
from pellucid.training.callbacks.tracking import (
    EarlyStoppingCallback,
    KeepBestCallback,
    ReduceLROnPlateau,
    SaveModelCallback,
    TrackerCallback,
)
from pellucid.training.features import body_features
from pellucid.training.interpretation import ClassificationInterpretation
from pellucid.training.learner import Learner
from pellucid.training.probe import linear_probe
from pellucid.training.vision import cnn_learner, vision_learner
from pellucid.vision.core import first, image2tensor, image_bear, tensor, to_cpu, to_np


def _lazy(name: str) -> ModuleType | None:
    """A module that is imported when first used: plots and tables cost a script that makes none nothing."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parent, _, child = name.rpartition(".")
    if parent:  # what an import does last, and code that says matplotlib.pyplot counts on
        setattr(sys.modules[parent], child, module)
    return module


matplotlib = _lazy("matplotlib")
plt = _lazy("matplotlib.pyplot")
pd = _lazy("pandas")

__all__ = [
    "SGD",
    "APScoreBinary",
    "APScoreMulti",
    "AccumMetric",
    "ActivationStats",
    "ActivationType",
    "Adam",
    "AdaptiveAvgPool",
    "AdaptiveConcatPool2d",
    "AvgMetric",
    "AvgPool",
    "BCEWithLogitsLossFlat",
    "BalancedAccuracy",
    "BalancedLoss",
    "BatchNorm",
    "BrierScore",
    "BrierScoreMulti",
    "Brightness",
    "CSVLogger",
    "Callback",
    "CancelBackwardException",
    "CancelBatchException",
    "CancelEpochException",
    "CancelFitException",
    "CancelStepException",
    "CancelTrainException",
    "CancelValidException",
    "CategoryBlock",
    "CenterCrop",
    "CenterCropResize",
    "Checkpoint",
    "ClassificationInterpretation",
    "CohenKappa",
    "ColReader",
    "ColSplitter",
    "Contrast",
    "ConvLayer",
    "CrossEntropyLossFlat",
    "CutMix",
    "DataBlock",
    "DataError",
    "DataLoader",
    "DataLoaders",
    "Dihedral",
    "Doctor",
    "EarlyStoppingCallback",
    "F",
    "F1Score",
    "F1ScoreMulti",
    "FBeta",
    "FBetaMulti",
    "Flatten",
    "Flip",
    "FocalLoss",
    "FocalLossFlat",
    "FuncSplitter",
    "GradientAccumulation",
    "GradientClip",
    "GrandparentSplitter",
    "GroupSplitter",
    "HammingLoss",
    "HammingLossMulti",
    "History",
    "Hook",
    "HookCallback",
    "Hooks",
    "Hue",
    "Image",
    "ImageBlock",
    "ImageDataLoaders",
    "IndexSplitter",
    "InstanceNorm",
    "Jaccard",
    "JaccardMulti",
    "KeepBestCallback",
    "L",
    "L1LossFlat",
    "LabelSmoothingCrossEntropy",
    "LabelSmoothingCrossEntropyFlat",
    "Lambda",
    "Learner",
    "LinBnDrop",
    "MSELossFlat",
    "MaskSplitter",
    "MatthewsCorrCoef",
    "MatthewsCorrCoefMulti",
    "MaxPool",
    "Metric",
    "Mish",
    "MixHandler",
    "MixUp",
    "ModelEMA",
    "Module",
    "MultiCategoryBlock",
    "NonFiniteGuard",
    "NormType",
    "Normalize",
    "PILImage",
    "PILImageBW",
    "PadMode",
    "ParamScheduler",
    "Path",
    "PellucidError",
    "PoolFlatten",
    "Precision",
    "PrecisionMulti",
    "ProgressCallback",
    "RandAugment",
    "RandomCrop",
    "RandomErasing",
    "RandomResizedCropGPU",
    "RandomSplitter",
    "RandomSubsetSplitter",
    "Recall",
    "RecallMulti",
    "Recorder",
    "ReduceLROnPlateau",
    "RegexLabeller",
    "ResBlock",
    "Resize",
    "ResizeMethod",
    "RocAuc",
    "RocAucBinary",
    "RocAucMulti",
    "Rotate",
    "Run",
    "Saturation",
    "SaveModelCallback",
    "SchedCos",
    "SchedExp",
    "SchedLin",
    "SchedNo",
    "SchedPoly",
    "SuggestionMethod",
    "Swish",
    "Tensor",
    "TrackerCallback",
    "TrainTestSplitter",
    "TrainingError",
    "TrivialAugment",
    "URLs",
    "UsageError",
    "Warp",
    "Zoom",
    "accuracy",
    "accuracy_multi",
    "array",
    "aug_transforms",
    "augmentation",
    "body_features",
    "cnn_learner",
    "combine_scheds",
    "combined_cos",
    "create_body",
    "create_head",
    "csv_items",
    "default_device",
    "default_split",
    "error_rate",
    "first",
    "get_image_files",
    "has_params",
    "hook_output",
    "hook_outputs",
    "image2tensor",
    "image_bear",
    "imagenet_stats",
    "init_default",
    "init_linear",
    "linear_probe",
    "load_run",
    "math",
    "matplotlib",
    "minimum",
    "nn",
    "noop",
    "np",
    "params",
    "parent_label",
    "partial",
    "pd",
    "plt",
    "random",
    "re",
    "sequential",
    "set_seed",
    "setup_aug_tfms",
    "show_image",
    "show_images",
    "skm_to_fastai",
    "slide",
    "split_at",
    "steep",
    "string",
    "subplots",
    "summarize",
    "tensor",
    "to_cpu",
    "to_np",
    "top_k_accuracy",
    "torch",
    "trainable_params",
    "untar_data",
    "using_attr",
    "valley",
    "verify_images",
    "vision_learner",
    "watch",
]
