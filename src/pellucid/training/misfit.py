"""Why a model cannot take a batch, or a loss the model's output and the labels: which of them is to blame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.nn.losses import FLAT, FocalLoss, is_cross_entropy, setting, unwrapped

ONE_PER_CLASS = "the last layer needs one output per class, as (batch, classes)"
BINARY = F.binary_cross_entropy, F.binary_cross_entropy_with_logits
BINARY_MODULES = nn.BCELoss, nn.BCEWithLogitsLoss
# Losses of value against value. Most of them broadcast (batch, 1) with (batch,) to batch × batch differences.
ELEMENTWISE = (
    *(F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div, F.poisson_nll_loss, F.soft_margin_loss),
    *(F.hinge_embedding_loss, F.multilabel_soft_margin_loss, *BINARY),
)
ELEMENTWISE_MODULES = (
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.KLDivLoss, nn.PoissonNLLLoss, nn.SoftMarginLoss),
    *(nn.HingeEmbeddingLoss, nn.MultiLabelSoftMarginLoss, *BINARY_MODULES),
)

# torch's words where a convolution, or a linear layer, is given what it cannot take.
CHANNELS = re.compile(r"expected input\[([\d, ]+)\] to have (\d+) channels?, but got \d+ channels? instead")
TYPES = re.compile(r"must have the same dtype|to have the same dtype|should be the same|expected scalar type")
VALUES = re.compile(r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x\d+\)")


def input_misfit(error: RuntimeError, inputs: Sequence[Any]) -> str:
    """Why a model could not take a batch; "" where the error is not of the batch itself but of something within."""
    x = inputs[0] if len(inputs) == 1 else None
    if not isinstance(x, Tensor) or x.dim() < 2:
        return ""
    shape, text = list(x.shape), str(error)
    if (found := CHANNELS.search(text)) and list(map(int, found[1].split(","))) == shape:
        takes, given = int(found[2]), shape[1]
        return (
            f"the model takes images of {takes} channel{'' if takes == 1 else 's'}, the batches have {given} "
            f"(batch {'×'.join(map(str, shape))}): grey images have one (ImageBlock(PILImageBW), img_cls=PILImageBW), "
            "colour images three (PILImage); or give the model's first layer as many"
        )
    n_values = x[0].numel()
    if (found := VALUES.search(text)) and [int(found[1]), int(found[2])] == [shape[0], n_values]:
        return (
            f"the model takes {found[3]} values of each image, the batches have {'×'.join(map(str, shape[1:]))} = "
            f"{n_values}: resize the images (item_tfms=Resize(…)), or give the model's first layer as many inputs"
        )
    if TYPES.search(text):
        return (
            f"the batches hold {str(x.dtype).removeprefix('torch.')} values and the model computes in another type "
            f"({text}): give the loader's batches the model's type, such as xb.float()"
        )
    return ""


def silent_misfit(loss_func: Any, pred: Any, targ: Any) -> str:
    """What torch would compute without an error although nobody can mean it; "" if there is nothing of the kind.

    It looks at shapes only, so it takes a microsecond a batch and never waits for the device.
    """
    if not (isinstance(pred, Tensor) and isinstance(targ, Tensor)) or isinstance(loss_func, FLAT):
        return ""
    if is_cross_entropy(loss_func):
        if pred.dim() < 2:
            return f"torch takes a vector of outputs for the classes of one item: {ONE_PER_CLASS}"
        return f"with one class the loss is always 0: {ONE_PER_CLASS}" if pred.shape[1] < 2 else ""
    return "" if pred.shape == targ.shape or not _elementwise(loss_func) else _unequal(loss_func, pred, targ)


def misfit(loss_func: Any, pred: Any, targ: Any) -> str:
    """Why torch's loss failed; "" if it is not known here. Reads labels, so it is for after the failure only."""
    if not isinstance(pred, Tensor):
        return f"the model gives a {type(pred).__name__}, the loss takes one tensor of outputs"
    if not isinstance(targ, Tensor):
        return f"the labels are a {type(targ).__name__}, the loss takes one tensor of them"
    pred = pred.detach()
    if is_cross_entropy(loss_func) or isinstance(loss_func, FocalLoss):
        pred = pred.movedim(getattr(loss_func, "axis", 1), 1)
        return _class_weights(loss_func, pred) or _class_labels(loss_func, pred, targ)
    if unwrapped(loss_func) in BINARY or isinstance(loss_func, BINARY_MODULES):
        return _binary(loss_func, pred, targ)
    return ""


def _class_weights(loss_func: Any, pred: Tensor) -> str:
    weight = setting(loss_func, "weight")
    if weight is None:
        return ""
    if weight.numel() != pred.shape[1]:
        return f"weight holds {weight.numel()} class weights for {pred.shape[1]} classes: give one for each class"
    return _unlike("weight", weight, pred)


def _class_labels(loss_func: Any, pred: Tensor, targ: Tensor) -> str:
    n = pred.shape[1]
    if targ.shape == pred.shape:
        hint = "give labels.float(), or class numbers, labels.argmax(1)"
        return "" if targ.is_floating_point() else f"one-hot labels have to be probabilities: {hint}"
    if not hasattr(loss_func, "axis"):  # flat losses check shapes themselves
        if targ.dim() == pred.dim() == 2 and targ.shape == (len(pred), 1):
            return "class numbers come as (batch,): give labels.squeeze(1), or use CrossEntropyLossFlat()"
        if targ.shape != (len(pred), *pred.shape[2:]):
            return f"{len(pred)} outputs for {len(targ)} labels" if len(pred) != len(targ) else ONE_PER_CLASS
    if targ.dtype not in (torch.int64, torch.uint8):
        return f"class numbers are int64, not {_dtype(targ)}: give labels.long(), or use CrossEntropyLossFlat()"
    labels = targ[targ != setting(loss_func, "ignore_index", -100)]
    if labels.numel() and int(labels.min()) < 0:
        return (
            f"the label {int(labels.min())} is no class: class numbers begin at 0; ignore_index={int(labels.min())} in "
            "the loss leaves such items out"
        )
    if labels.numel() and int(labels.max()) >= n:
        return f"the label {int(labels.max())} is beyond the {n} outputs: number classes from 0; {ONE_PER_CLASS}"
    return ""


def _binary(loss_func: Any, pred: Tensor, targ: Tensor) -> str:
    if not targ.is_floating_point():
        wanted = f"{_dtype(pred)}, not {_dtype(targ)}"
        return f"yes-or-no labels are {wanted}: give labels.float(), or use BCEWithLogitsLossFlat()"
    for name in ("weight", "pos_weight"):
        weight = setting(loss_func, name)
        if weight is not None and weight.numel() > 1 and weight.shape[-1] != pred.shape[-1]:
            return f"{name} of shape {tuple(weight.shape)} does not fit outputs of shape {tuple(pred.shape)}"
        if weight is not None and weight.device != pred.device:
            return _unlike(name, weight, pred)
    logits = _takes_logits(unwrapped(loss_func))
    if not logits and not 0 <= float(pred.min()) <= float(pred.max()) <= 1:
        return "outputs are no probabilities: end the model in a sigmoid, or use binary_cross_entropy_with_logits"
    if not logits and not 0 <= float(targ.min()) <= float(targ.max()) <= 1:
        return "yes-or-no labels lie between 0 and 1"
    return "" if targ.dtype == pred.dtype else _unlike("labels", targ, pred)


def _unequal(loss_func: Any, pred: Tensor, targ: Tensor) -> str:
    text = "outputs and labels need one shape, nothing is broadcast"
    if pred.numel() != targ.numel():
        return text
    function = unwrapped(loss_func)
    flat = "BCEWithLogitsLossFlat" if _takes_logits(function) else "MSELossFlat" if _squares(function) else ""
    return f"{text}: give labels.view_as(outputs)" + (f", or use {flat}()" if flat else "")


def _takes_logits(function: Any) -> bool:
    return function is F.binary_cross_entropy_with_logits or isinstance(function, nn.BCEWithLogitsLoss)


def _squares(function: Any) -> bool:
    return function is F.mse_loss or isinstance(function, nn.MSELoss)


def _elementwise(loss_func: Any) -> bool:
    function = unwrapped(loss_func)
    return function in ELEMENTWISE or isinstance(function, ELEMENTWISE_MODULES)


def _unlike(name: str, given: Tensor, pred: Tensor) -> str:
    if given.device != pred.device:
        return f"{name} is on {given.device}, the outputs are on {pred.device}: give {name}.to('{pred.device}')"
    if given.dtype != pred.dtype:
        return f"{name} is {_dtype(given)}, the outputs are {_dtype(pred)}: give {name}.to(torch.{_dtype(pred)})"
    return ""


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
