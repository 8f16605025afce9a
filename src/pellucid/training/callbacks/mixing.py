"""Train on mixtures of two images of a batch, and of their labels: MixUp and CutMix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta

from pellucid.errors import UsageError
from pellucid.nn.losses import is_cross_entropy, label_weights, setting, unreduced
from pellucid.number import number
from pellucid.optim.optimizers import refuse_closure
from pellucid.training.callbacks.core import Callback


class MixHandler(Callback):
    """Base of MixUp and CutMix: a share of each image's label, the rest of another's; only training is mixed.

    Labels that are whole numbers stay, and the loss is mixed instead: share · loss(own label) + (1 − share) ·
    loss(other label). Labels that are floating numbers, such as probabilities, are mixed themselves.

    Args:
        alpha: The share is drawn from the distribution Beta(alpha, alpha): near 0 or 1 for a small one, near one half
            for a large one.

    Attributes:
        lam: Share of each image's own label, shape (batch,) or one number for all.
        yb1: The labels of the other images.

    Raises:
        UsageError: `alpha` is not positive. When a fit begins: there are several callbacks that mix, or the optimizer
            evaluates the loss itself.
    """

    order = 5  # before anything that looks at the loss
    run_valid = False
    lam: Tensor
    yb1: tuple[Any, ...]

    def __init__(self, alpha: float = 0.5):
        self.alpha = number(alpha, "alpha")
        if self.alpha <= 0:
            raise UsageError(f"alpha must be positive, got {alpha}")
        concentration = torch.tensor(self.alpha, device="cpu")
        self._shares = Beta(concentration, concentration)

    def before_fit(self) -> None:
        refuse_closure(self.learn.opt, type(self).__name__)
        mixing = [type(cb).__name__ for cb in self.learn.cbs if isinstance(cb, MixHandler)]
        if len(mixing) > 1:
            raise UsageError(f"{' and '.join(mixing)}: a batch can be mixed once, leave one out")

    def before_batch(self) -> None:
        learn = self.learn
        others = torch.randperm(len(learn.xb[0]), device="cpu").to(learn.xb[0].device)
        self.yb1 = tuple(y[others] for y in learn.yb)
        learn.xb = self.mixed(learn.xb, others)
        learn.yb = tuple(
            _lerp(other, y, self.lam) if y.is_floating_point() else y
            for other, y in zip(self.yb1, learn.yb, strict=True)
        )

    def mixed(self, xb: tuple[Tensor, ...], others: Tensor) -> tuple[Tensor, ...]:
        """Inputs mixed with those of `others`, int64 (batch,); sets `lam`."""
        raise NotImplementedError

    def after_loss(self) -> None:
        if not self.learn.yb[0].is_floating_point():
            self.learn.loss = self._mixed_loss()

    def _mixed_loss(self) -> Tensor:
        raise NotImplementedError


class MixUp(MixHandler):
    """Train on weighted means of two images each, and of their labels.

    A loss of whole-number labels must be able to give one value an image: torch's and ours do, and so does a function
    with an argument `reduction` that heeds `reduction="none"`.

    Args:
        alpha: As of `MixHandler`. Each image has its own share, at least one half.

    Raises:
        UsageError: at the first batch: the loss takes whole-number labels and gives a batch one value only.

    Source: Zhang et al., arXiv:1710.09412; the share of at least one half is fastai's.
    """

    def __init__(self, alpha: float = 0.4):
        super().__init__(alpha)

    def mixed(self, xb: tuple[Tensor, ...], others: Tensor) -> tuple[Tensor, ...]:
        """See `MixHandler`."""
        shares = self._shares.sample((len(others),))
        self.lam = torch.maximum(shares, 1 - shares).to(xb[0].device)
        return tuple(_lerp(x[others], x, self.lam) for x in xb)

    def _mixed_loss(self) -> Tensor:
        loss_func = self.learn.loss_func
        loss = self._between(self._each_loss)
        if setting(loss_func, "reduction") == "sum":
            return loss.sum()
        if not is_cross_entropy(loss_func):
            return loss.mean()
        return loss.sum() / self._between(lambda y: label_weights(loss_func, y).to(loss.dtype)).sum()

    def _each_loss(self, y: Tensor) -> Tensor:
        """Loss of each image, or of each of its labels in order."""
        each = unreduced(self.learn.loss_func)
        losses = None if each is None else each(self.learn.pred, y)
        if losses is None or losses.dim() == 0 or losses.numel() % len(y):
            raise UsageError(
                "MixUp weighs the two labels of each image by its own share, and this loss gives one value a batch and "
                "takes class numbers: give it an argument `reduction` that heeds 'none', make the labels probabilities "
                "if it takes those, or use CutMix, which has one share a batch"
            )
        return losses

    def _between(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Values of a function of labels, (image, label), between those of the two labels."""
        other, own = (function(y).reshape(len(y), -1) for y in (self.yb1[0], self.learn.yb[0]))
        return _lerp(other, own, self.lam)


class CutMix(MixHandler):
    """Train on images with a rectangle of another image in each, labelled by area.

    The rectangle lies anywhere and is the same for the whole batch. Without the part of it beyond the border it leaves
    `lam` of the area, which is the share of the label. Any loss will do.

    Args:
        alpha: As of `MixHandler`.

    Raises:
        UsageError: at the first batch: the inputs are no images (batch, channel, row, column).

    Source: Yun et al., arXiv:1905.04899.
    """

    def __init__(self, alpha: float = 1.0):
        super().__init__(alpha)

    def mixed(self, xb: tuple[Tensor, ...], others: Tensor) -> tuple[Tensor, ...]:
        """See `MixHandler`."""
        if any(x.dim() != 4 for x in xb):
            raise UsageError(f"CutMix takes images (batch, channel, row, column), got {[tuple(x.shape) for x in xb]}")
        rows, columns = xb[0].shape[2:]
        side = float(torch.sqrt(1 - self._shares.sample()))
        (top, bottom), (left, right) = _span(rows, side), _span(columns, side)
        self.lam = torch.tensor(1 - (bottom - top) * (right - left) / (rows * columns), device=xb[0].device)
        cut = tuple(x.clone() for x in xb)  # the loader may give this very batch again
        for x, image in zip(xb, cut, strict=True):
            image[..., top:bottom, left:right] = x[..., top:bottom, left:right][others]
        return cut

    def _mixed_loss(self) -> Tensor:
        return _lerp(self.learn.loss_func(self.learn.pred, *self.yb1), self.learn.loss, self.lam)


def _span(n: int, share: float) -> tuple[int, int]:
    """First and end of about `share` of n pixels around a random one, cut off at the border."""
    size, centre = round(n * share), int(torch.randint(n, (), device="cpu"))
    first = centre - size // 2
    return max(first, 0), min(first + size, n)


def _lerp(other: Tensor, own: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(other, own, share.to(own.dtype).reshape(-1, *[1] * (own.dim() - 1)) if share.dim() else share)
