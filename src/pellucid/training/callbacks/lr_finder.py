"""The learning rate range test: raise the rate batch by batch, watch the loss, read a good rate off the curve.

Source: Smith, arXiv:1506.01186, section 3.3. The suggestions are pure functions of the curve and need no training.
"""

from __future__ import annotations

import inspect
import math
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from pellucid.errors import TrainingError, UsageError
from pellucid.optim.hypers import set_hyper
from pellucid.schedule import exponential
from pellucid.training.callbacks.core import Callback, CancelFitException, CancelValidException

Suggestion = Callable[..., Any]
"""Learning rates and smoothed losses, each [batch] → a learning rate; or as `valley` with `num_it`."""

Values = Sequence[float] | np.ndarray | torch.Tensor

MIN_BATCHES = 10
SKIP_START = 0.1
SKIP_END = 5


class LRFinder(Callback):
    """Raise the learning rate in equal ratios from batch to batch; end the fit when the loss explodes.

    The fit trains on the model it is given; `Learner.lr_find` puts everything back. Batch k of `num_it` (from 0) trains
    at start_lr · (end_lr / start_lr)^(k / num_it). Validation is skipped.

    Args:
        start_lr: First rate of each parameter group.
        end_lr: The rate it rises to.
        num_it: Batches.
        stop_div: End when the smoothed loss is four times its lowest value so far.

    Raises:
        TrainingError: when training: the loss of the very first batch is nan or infinite.
    """

    order = 60

    def __init__(self, start_lr: Sequence[float], end_lr: Sequence[float], num_it: int = 100, stop_div: bool = True):
        self.schedules = [exponential(start, end) for start, end in zip(start_lr, end_lr, strict=True)]
        self.num_it, self.stop_div = num_it, stop_div
        self.lowest = math.inf

    def before_batch(self) -> None:
        done = self.learn.train_iter / self.num_it
        set_hyper(self.learn.opt, "lr", [schedule(done) for schedule in self.schedules])

    def after_loss(self) -> None:
        value = self.learn.loss.item()
        if math.isfinite(value):
            return
        if self.learn.train_iter == 0:
            raise TrainingError(
                f"the loss of the first batch is {value} before any step, so there is no learning rate to find: look "
                "for nan or infinite values in images, labels and weights, and at the loss function"
            )
        raise CancelFitException

    def after_batch(self) -> None:
        loss = self.learn.recorder.losses[-1]
        self.lowest = min(self.lowest, loss)
        exploded = loss > self.lowest + 3 * abs(self.lowest)
        if (exploded and self.stop_div) or self.learn.train_iter >= self.num_it:
            raise CancelFitException

    def before_validate(self) -> None:
        raise CancelValidException


def valley(lrs: Values, losses: Values, num_it: int | None = None) -> Any:
    """The rate about half-way down the longest valley: the longest subsequence of ever lower losses.

    The valley ends where that subsequence ends and is taken to be as long as it has members; the rate lies half-way
    through, at the end of its first third and half another.

    Args:
        lrs: Learning rates.
        losses: Smoothed losses.
        num_it: Batches of the test. If it is given, as fastai does, the answer is (rate, (rate, loss)), with the place
            on the curve that was looked for.

    Source: ESRI, `arcgis.learn`; as Zach Mueller brought it to fastai.
    """
    lrs, losses = np.asarray(lrs, float), np.asarray(losses, float)
    n = len(losses)
    length = np.ones(n, int)  # of the longest falling subsequence that ends here
    for i in range(1, n):
        higher = length[:i][losses[:i] > losses[i]]
        length[i] = 1 + higher.max(initial=0)
    end = int(length.argmax())
    third = int(length[end]) / 3
    start = end - int(length[end]) if end else 0
    rate = float(lrs[start + int(third) + int(third / 2)])
    return _answer(rate, rate, lrs, losses, num_it)


def steep(lrs: Values, losses: Values, num_it: int | None = None) -> Any:
    """The rate at which the loss falls fastest, by the logarithm of the rate; arguments as of `valley`."""
    lrs, losses = np.asarray(lrs, float), np.asarray(losses, float)
    rate = float(lrs[(np.diff(losses) / np.diff(np.log(lrs))).argmin()])
    return _answer(rate, rate, lrs, losses, num_it)


def minimum(lrs: Values, losses: Values, num_it: int | None = None) -> Any:
    """A tenth of the rate at which the loss is lowest, where it is about to explode; arguments as of `valley`."""
    lrs, losses = np.asarray(lrs, float), np.asarray(losses, float)
    lowest = float(lrs[losses.argmin()])
    return _answer(lowest / 10, lowest, lrs, losses, num_it)


def slide(
    lrs: Values,
    losses: Values,
    num_it: int | None = None,
    lr_diff: int = 15,
    thresh: float = 0.005,
    adjust_value: float = 1.0,
) -> Any:
    """The highest rate before the loss bends: where the curve's slope at both ends of an interval is nearly the same.

    Args:
        lrs: Learning rates.
        losses: Smoothed losses.
        num_it: As of `valley`.
        lr_diff: Length of the interval that slides down from the highest rate, in batches.
        thresh: Difference of slopes (loss a batch) at which it stops.
        adjust_value: Factor on the rate found, that of the interval's lower end.

    Source: Andrew Chang, forums.fast.ai/t/44199; as in fastai.
    """
    lrs, losses = np.asarray(lrs, float), np.asarray(losses, float)
    slopes = np.gradient(losses)
    low, high = max(len(lrs) - 1 - lr_diff, 0), len(lrs) - 1
    found = lrs[low]
    while low >= 0 and abs(slopes[high] - slopes[low]) > thresh:
        found = lrs[low]
        low, high = low - 1, high - 1
    rate = float(found) * adjust_value
    return _answer(rate, rate, lrs, losses, num_it)


def _answer(rate: float, place: float, lrs: np.ndarray, losses: np.ndarray, num_it: int | None) -> Any:
    if num_it is None:
        return rate
    return rate, (place, float(np.interp(np.log(place), np.log(lrs), losses)))


class SuggestionMethod:
    """The suggestions by name, for completion: `learn.lr_find(suggest_funcs=SuggestionMethod.Slide)`."""

    Valley = staticmethod(valley)
    Slide = staticmethod(slide)
    Minimum = staticmethod(minimum)
    Steep = staticmethod(steep)


def suggestions(lrs: Sequence[float], losses: Sequence[float], functions: Sequence[Suggestion], num_it: int) -> Any:
    """What each function suggests for a curve, as a named tuple `SuggestedLRs` with a field of each function's name.

    The first tenth of `num_it` and the last five batches are left out: there the mean is not yet smooth, or the loss
    explodes already. The tuple's attributes `lrs` and `losses` are the whole curve, as arrays [batch].

    Raises:
        TrainingError: the curve is too short for a suggestion.
    """
    rates, values = np.array(lrs), np.array(losses)
    part = slice(int(num_it * SKIP_START), max(0, len(rates) - SKIP_END))
    if functions and len(rates[part]) < 2:
        raise TrainingError(
            f"the loss exploded after {len(rates)} of {num_it} batches, at a learning rate of {rates[-1]:.2g}: too few "
            "to suggest one. Begin with a lower start_lr, or look at the inputs and the loss"
        )
    names = [_name(function) for function in functions]
    if len(set(names)) < len(names):
        raise UsageError(f"each suggestion needs a name of its own, got {', '.join(names)}")
    kind = type("SuggestedLRs", (namedtuple("SuggestedLRs", names),), {"lrs": rates, "losses": values})
    return kind(*(_suggested(function, rates[part], values[part], num_it) for function in functions))


def _suggested(function: Suggestion, lrs: np.ndarray, losses: np.ndarray, num_it: int) -> float:
    """What a function suggests, called in our way or in fastai's, with tensors and the number of batches."""
    if _takes_num_it(function):
        answer = function(torch.from_numpy(lrs), torch.from_numpy(losses), num_it)
    else:
        answer = function(lrs, losses)
    rate: Any = answer[0] if isinstance(answer, tuple) and len(answer) == 2 else answer
    try:
        return float(rate)
    except (TypeError, ValueError):
        raise UsageError(
            f"{_name(function)} returned {answer!r}: a suggestion is a learning rate, or (rate, (rate, loss))"
        ) from None


def _takes_num_it(function: Suggestion) -> bool:
    parameters = list(inspect.signature(function).parameters.values())
    third = parameters[2:3]
    return any(p.name == "num_it" for p in parameters) or bool(third and third[0].default is inspect.Parameter.empty)


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return function.__name__
