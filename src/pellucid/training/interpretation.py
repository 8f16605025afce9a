"""What a trained classifier gets wrong: which classes it confuses, and on which images it is furthest off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor

from pellucid.data.adapter import adapted
from pellucid.data.batch import take_apart
from pellucid.data.loader import DataLoader
from pellucid.errors import UsageError
from pellucid.nn.losses import activation_of, decoded
from pellucid.plot.classification import plot_confusion_matrix
from pellucid.plot.figure import GridOptions, finished, given_axes
from pellucid.plot.images import show_grid
from pellucid.seed import kept_rng
from pellucid.text import drawable
from pellucid.training.forward import item_losses, passed
from pellucid.training.learner import Learner
from pellucid.training.reports import classification_report, labels_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class ClassificationInterpretation:
    """Predictions of a classifier on one loader, and what they say; make one with `from_learner`.

    Images are not kept: `plot_top_losses` fetches those it shows. Where an image may have any number of labels, no
    class is taken for another: the confusion matrix is refused, the report is of each label.

    Attributes:
        dl: The loader.
        vocab: Class names.
        preds: Probabilities, float (item, class).
        targs: Labels, int (item,); of several labels an item, bool (item, label).
        decoded: Predicted classes, int (item,); of several labels, those that are said, bool (item, label).
        losses: Loss of each item, float (item,).
        multi: Whether an item may have any number of labels.
    """

    def __init__(
        self,
        dl: Any,
        vocab: Sequence[Any],
        preds: Tensor,
        targs: Tensor,
        losses: Tensor,
        said: Tensor | None = None,
    ):
        self.multi = said is not None
        if said is not None:
            _check_yes_or_no(preds, targs)
            targs = targs.bool()
        else:
            _check_classes(preds, targs)
        self.dl, self.preds, self.targs, self.losses = adapted(dl), preds, targs, losses
        self.vocab = list(vocab) if len(vocab) == preds.shape[1] else list(range(preds.shape[1]))
        self.decoded = preds.argmax(1) if said is None else said

    @classmethod
    def from_learner(
        cls, learn: Learner, ds_idx: int = 1, dl: Any = None, act: Callable[[Tensor], Tensor] | None = None
    ) -> ClassificationInterpretation:
        """Run the learner's model once over a loader.

        Args:
            learn: A learner whose model gives one output a class or label.
            ds_idx: 0 for the training images (all, in order), 1 for the validation images.
            dl: Another loader with labels, ours or any of (xb, yb) batches in a fixed order.
            act: Turns outputs into probabilities; None takes what belongs to the loss.

        Raises:
            UsageError: the loader has no labels or no batch, or the model is no classifier.
        """
        dl = adapted(learn.dls[ds_idx] if dl is None else dl).in_order()
        activation = act or activation_of(learn.loss_func)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for _, pred, yb in passed(learn.model, learn.dls, dl, learn.loss_func, learn.precision):
            if yb is None:
                raise UsageError("interpretation compares predictions with labels, this loader has none")
            if not (isinstance(pred, Tensor) and isinstance(yb, Tensor)):
                raise UsageError("interpretation needs one output and one label of each item, these are several")
            parts.append((activation(pred).cpu(), yb.cpu(), item_losses(learn.loss_func, pred, yb)))
        if not parts:
            raise UsageError("the loader has no batch to interpret")
        preds, targs, losses = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        said = decoded(learn.loss_func, preds) if targs.dim() == 2 else None
        yes_or_no = said is not None and said.dtype == torch.bool
        return cls(dl, learn.dls.vocab, preds, targs, losses, said if yes_or_no else None)

    def confusion_matrix(self) -> np.ndarray:
        """Number of items, int [actual class, predicted class].

        Raises:
            UsageError: an item may have several labels.
        """
        if self.multi:
            raise UsageError(
                "these items may have several labels, and no label is taken for another: "
                "print_classification_report() says how well each is told, plot_top_losses() shows mistakes"
            )
        n = len(self.vocab)
        return np.bincount(self.targs.numpy() * n + self.decoded.numpy(), minlength=n * n).reshape(n, n)

    def plot_confusion_matrix(
        self,
        normalize: bool = False,
        title: str = "Confusion matrix",
        cmap: str = "Blues",
        norm_dec: int = 2,
        plot_txt: bool = True,
        figsize: tuple[float, float] | None = None,
        ax: Axes | None = None,
        **options: Any,
    ) -> Figure:
        """Show the confusion matrix; arguments as of `pellucid.plot.classification.plot_confusion_matrix`.

        Further options are `ctx`, `dpi` and `suptitle`.
        """
        drawn = plot_confusion_matrix(
            self.confusion_matrix(),
            list(map(drawable, self.vocab)),
            normalize=normalize,
            title=title,
            cmap=cmap,
            norm_dec=norm_dec,
            plot_txt=plot_txt,
            figsize=figsize,
            ax=given_axes(options | {"ax": ax, "figsize": figsize}),
        )
        return finished(drawn.axes[0], options)

    def most_confused(self, min_val: int = 1) -> list[tuple[Any, Any, int]]:
        """Pairs of classes that are confused at least `min_val` times: (actual, predicted, items), most first."""
        counts = self.confusion_matrix()
        np.fill_diagonal(counts, 0)
        pairs = [(self.vocab[i], self.vocab[j], int(counts[i, j])) for i, j in np.argwhere(counts >= max(1, min_val))]
        return sorted(pairs, key=lambda pair: -pair[2])

    def top_losses(self, k: int | None = None, largest: bool = True, items: bool = False) -> tuple[Any, ...]:
        """The `k` largest (or smallest) losses and the positions of their items in the loader, both (k,).

        Args:
            k: How many; None for all.
            largest: Largest losses first, or smallest.
            items: Give also what the images were made from (paths), as a third member; our own loaders know it.
        """
        if k is not None and k < 1:
            raise UsageError(f"k is how many losses, at least 1, got {k}")
        k = len(self.losses) if k is None else min(k, len(self.losses))
        values, positions = self.losses.topk(k, largest=largest)
        if not items:
            return values, positions
        if len(self.dl.items) != len(self.losses):
            raise UsageError("this loader does not know what its images were made from; leave `items` out")
        return values, positions, [self.dl.items[i] for i in positions.tolist()]

    def plot_top_losses(
        self, k: int | Sequence[int] = 9, largest: bool = True, **options: Unpack[GridOptions]
    ) -> Figure:
        """Show the images with the `k` largest (or smallest) losses, wrong predictions in red.

        Above each stand prediction and label, then the loss, and where there is one class an item the probability of
        the prediction.

        Args:
            k: How many, or which: `range(9, 18)` shows the second nine.
            largest: Largest losses first, or smallest.
            options: `nrows`, `ncols`, `figsize`, `dpi`, `title` and `suptitle`.
        """
        if isinstance(k, int):
            return self.show_results(self.top_losses(k, largest)[1], **options)
        order = self.top_losses(None, largest)[1]
        return self.show_results(order[_places(k, len(order), "ranks")], **options)

    def show_results(self, idxs: int | Sequence[int] | Tensor, **options: Unpack[GridOptions]) -> Figure:
        """Show the images at these positions of the loader, as `plot_top_losses` does."""
        positions = _places([idxs] if isinstance(idxs, int) else idxs, len(self.losses), "positions")
        pairs = [self._names(i) for i in positions.tolist()]
        gap = " / " if max(len(name) for pair in pairs for name in pair) <= 6 else "\n"
        titles = [
            f"{gap.join(pair)}\n{self.losses[i]:.2f}" + ("" if self.multi else f" / {self.preds[i].max():.2f}")
            for i, pair in zip(positions.tolist(), pairs, strict=True)
        ]
        with kept_rng(self.dl):
            images = self._images(positions)
        axes = show_grid(images, titles, options)
        for ax, i in zip(axes.flat, positions.tolist(), strict=False):
            ax.title.set_color("black" if torch.equal(self.decoded[i], self.targs[i]) else "crimson")
            ax.title.set_fontsize("medium")
        figure = axes[0, 0].figure
        if not (options.get("title") or options.get("suptitle")):
            below = "loss" if self.multi else "loss / probability"
            figure.suptitle(f"prediction{gap}actual\n{below}", fontsize="medium")
        return figure

    def print_classification_report(self, digits: int = 2) -> None:
        """Print precision, recall, F1 and number of items of each class or label, and their means."""
        names = [str(name) for name in self.vocab]
        if self.multi:
            print(labels_report(self.targs.numpy(), self.decoded.numpy(), names, digits))
        else:
            print(classification_report(self.confusion_matrix(), names, digits))

    def _names(self, i: int) -> tuple[str, str]:
        """What was predicted of an item, and what is true."""

        def name(side: Tensor) -> str:
            places = side.nonzero()[:, 0].tolist() if self.multi else [int(side)]
            return drawable(";".join(str(self.vocab[place]) for place in places))

        return name(self.decoded[i]), name(self.targs[i])

    def _images(self, positions: Tensor) -> list[Tensor]:
        """Images to show at these positions of the loader, values on [0, 1]."""
        if isinstance(self.dl, DataLoader) and self.dl.n == len(self.losses):  # none was left out as damaged
            return list(self.dl.decode(self.dl.take(positions)[0]))
        wanted, found, start = set(positions.tolist()), {}, 0
        for batch in self.dl:
            (xb, *_), (yb, *_) = take_apart(batch, "cpu")
            here = [i for i in range(start, start + len(yb)) if i in wanted]
            if not torch.equal(yb.cpu(), self.targs[start : start + len(yb)]):
                raise UsageError(
                    "the loader gives its items in another order each time, so the images of these losses cannot be "
                    "found again: pass from_learner a loader that does not shuffle"
                )
            for i in here:
                image = xb[i - start : i - start + 1]
                found[i] = self.dl.decode(image)[0]
            start += len(yb)
            if len(found) == len(wanted):
                break
        return [found[i] for i in positions.tolist()]


def _places(places: Sequence[int] | Tensor, n: int, what: str) -> Tensor:
    found = torch.as_tensor(places if isinstance(places, Tensor) else list(places), device="cpu")
    if found.dim() != 1 or not len(found) or found.is_floating_point() or found.min() < 0 or found.max() >= n:
        raise UsageError(f"{what} must be whole numbers from 0 to {n - 1}, at least one, got {places!r}")
    return found


def _check_classes(preds: Tensor, targs: Tensor) -> None:
    if preds.dim() != 2 or targs.dim() != 1 or targs.is_floating_point():
        raise UsageError(
            "interpretation needs outputs (batch, classes) and one whole number as label of each item, or yes or no "
            f"for each under a loss of yes and no, got outputs {tuple(preds.shape)} and labels {tuple(targs.shape)} "
            f"{targs.dtype}"
        )
    n = preds.shape[1]
    if n < 2:
        raise UsageError("interpretation compares classes, the model gives one output: it needs one per class")
    outside = targs[(targs < 0) | (targs >= n)]
    if len(outside):
        raise UsageError(
            f"{len(outside)} labels are not among the classes 0 to {n - 1}, {int(outside[0])} for one: pass a "
            "loader without those items"
        )


def _check_yes_or_no(preds: Tensor, targs: Tensor) -> None:
    if preds.shape != targs.shape or not bool(((targs == 0) | (targs == 1)).all()):
        raise UsageError(
            "interpretation of several labels an item needs outputs and labels (batch, label), with 0 or 1 for each "
            f"label, got outputs {tuple(preds.shape)} and labels {tuple(targs.shape)}"
        )
