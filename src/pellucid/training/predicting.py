"""What a learner's model says of a set: loss and metrics, predictions, and pictures of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from pellucid.data.adapter import AnyLoader, adapted
from pellucid.data.batch import parts_of, photos, target_name
from pellucid.data.block import listed
from pellucid.data.loader import DataLoader
from pellucid.data.transforms import of_side, refuse_misplaced
from pellucid.errors import UsageError
from pellucid.metrics import Evaluation
from pellucid.nn.losses import activation_of, decoded
from pellucid.plot.figure import GridOptions
from pellucid.plot.images import show_grid
from pellucid.seed import kept_rng
from pellucid.text import drawable
from pellucid.training.forward import item_losses, loss_of, passed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_CLASSES = "predicted classes need a model whose output is one tensor (batch, classes), this one gives a "
OUTPUTS = "; get_preds without with_decoded gives them as they are"


class Predicting:
    """Validation and predictions, which leave the model, its modes and all random numbers as they were.

    Attributes:
        model, dls, loss_func, precision: As of `Learner`.
        metrics: What `validate` computes besides the loss.
    """

    model: nn.Module
    dls: Any
    loss_func: Any
    metrics: list[Any]
    precision: str

    def validate(self, ds_idx: int = 1, dl: Any = None) -> list[float]:
        """Loss and metrics over a set; leaves the record of the fit alone.

        Args:
            ds_idx: 1 for the validation images, 0 for all training images.
            dl: A loader of (input, label) batches instead.

        Raises:
            UsageError: there is no such loader, or it has no labels.
        """
        evaluation = Evaluation(self.metrics, self.dls.device, self.loss_func)
        for _, pred, yb in passed(self.model, self.dls, self._loader(ds_idx, dl), self.loss_func, self.precision):
            if yb is None:
                raise UsageError("validate needs labels, this loader has none; use get_preds")
            targets: Any = yb if isinstance(yb, tuple) else (yb,)
            evaluation.update(loss_of(self.loss_func, pred, targets), pred, targets)
        return evaluation.values()

    def get_preds(
        self,
        ds_idx: int = 1,
        dl: Any = None,
        *,
        with_input: bool = False,
        with_decoded: bool = False,
        with_loss: bool = False,
        act: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Any, ...]:
        """Probabilities (image, class) and labels (image,) of a set, on the CPU.

        Args:
            ds_idx: 1 for the validation images, 0 for all training images, in order.
            dl: A loader instead; one without labels (`dls.test_dl`) gives None for them.
            with_input: Give the inputs too, in front of the others.
            with_decoded: Give the predicted classes too, behind the labels (or what else the loss decodes to).
            with_loss: Give the loss of each image too, at the end.
            act: Turns outputs into predictions; None takes what belongs to the loss: softmax for cross entropy,
                sigmoid for binary cross entropy with logits, exp for the log-likelihood, else nothing.

        Raises:
            UsageError: there is no such loader, it has no batch, or no labels to compute losses with.
        """
        activation = act or activation_of(self.loss_func)
        seen = _Seen()
        for inputs, pred, yb in passed(self.model, self.dls, self._loader(ds_idx, dl), self.loss_func, self.precision):
            if yb is None and with_loss:
                raise UsageError("with_loss needs labels, this loader has none")
            seen.inputs += [inputs[0] if len(inputs) == 1 else inputs] if with_input else []
            # What a loss implies is for one tensor of outputs; what several mean its user knows.
            seen.preds.append(_joined([activation(pred) if act or isinstance(pred, Tensor) else pred]))
            seen.labels += [] if yb is None else [yb]
            seen.losses += [item_losses(self.loss_func, pred, yb)] if with_loss and yb is not None else []
        if not seen.preds:
            raise UsageError("the loader has no batch to predict")
        preds = _joined(seen.preds)
        if with_decoded and not isinstance(preds, Tensor):
            raise UsageError(NO_CLASSES + type(preds).__name__ + OUTPUTS)
        found = [preds, _joined(seen.labels) if seen.labels else None]
        found = [_joined(seen.inputs), *found] if with_input else found
        found += [decoded(self.loss_func, preds)] if with_decoded else []
        found += [torch.cat(seen.losses)] if with_loss else []
        return tuple(found)

    def tta(
        self,
        ds_idx: int = 1,
        dl: Any = None,
        n: int = 4,
        item_tfms: Any = None,
        batch_tfms: Any = None,
        beta: float | None = 0.25,
        use_max: bool = False,
    ) -> tuple[Any, Tensor | None]:
        """Probabilities (image, class) and labels of a set, the mean over several augmented views of each image.

        Args:
            ds_idx: 1 for the validation images, 0 for all training images, in order.
            dl: A loader instead, such as `dls.test_dl(files)`.
            n: How often every image is augmented, as in training.
            item_tfms: None: images are decoded once, before they are augmented.
            batch_tfms: Batch transforms in place of training's, `Normalize` among them.
            beta: Weight of the images as they are, against all augmented views together; None gives both predictions,
                augmented and plain.
            use_max: Take the greatest probability over all views, the plain one included, in place of the mean.

        Raises:
            UsageError: a loader of others, whose images cannot be augmented here; fewer than one view; or as
                `get_preds`.
        """
        plain = self._loader(ds_idx, dl)
        if item_tfms is not None:
            raise UsageError("tta augments batches: images are decoded once, so item_tfms would see no others")
        if n < 1 or not isinstance(plain, DataLoader) or not (batch_tfms or isinstance(self.dls.train, DataLoader)):
            raise UsageError(f"tta needs loaders made by a DataBlock and at least one view, got n={n}")
        views = plain.new()
        views.batch_tfms = of_side(listed(batch_tfms), training=True) if batch_tfms else self.dls.train.batch_tfms
        refuse_misplaced(views.batch_tfms, views.source.shape, views.device)
        if isinstance(self.dls.valid, DataLoader):  # training images as they are, too
            plain = plain.new()
            plain.batch_tfms = self.dls.valid.batch_tfms
        with kept_rng():
            augmented = []
            for seed in torch.randint(2**62, (n,), device="cpu").tolist():
                torch.manual_seed(seed)  # each pass puts the random numbers back: without, all views would be the same
                augmented.append(self.get_preds(dl=views)[0])
        preds, labels = self.get_preds(dl=plain)
        if use_max:
            return torch.stack([preds, *augmented]).amax(0), labels
        mean = torch.stack(augmented).mean(0)
        return ((mean, preds) if beta is None else mean.lerp(preds, beta)), labels

    def predict(self, item: Any) -> tuple[str | list[str], Tensor, Tensor]:
        """Class name, class index and probabilities (class,) of one path, Pillow image or array.

        One yes-or-no output (binary cross entropy) stands for class 1: its only probability is that of yes. Where an
        image may have any number of labels, a list of their names and True or False for each (label,) come first.

        Raises:
            UsageError: the model gives several tensors, or one output of which the loss does not say what it means.
        """
        preds, _, said = self.get_preds(dl=self.dls.test_dl([item]), with_decoded=True)
        if getattr(self.dls, "multi", False) and said[0].dtype == torch.bool:
            return [self.dls.label(i) for i in said[0].nonzero()[:, 0].tolist()], said[0], preds[0]
        index = _class_of(said[0], preds[0])
        return self.dls.label(int(index)), index, preds[0]

    def show_results(
        self, ds_idx: int = 1, dl: Any = None, *, max_n: int = 9, **options: Unpack[GridOptions]
    ) -> Figure:
        """Show images, each under its label and the prediction, wrong ones in red.

        Args:
            ds_idx: 1 for validation images, 0 for training images.
            dl: A loader instead; without labels (`dls.test_dl`) the predictions stand alone.
            max_n: Most images to show, evenly spaced over the set (of somebody else's loader, the first ones).
            options: `nrows`, `ncols`, `figsize`, `dpi`, `title` and `suptitle`.
        """
        dl = self._loader(ds_idx, dl)
        inputs, targets = ([part[:max_n] for part in side] for side in parts_of(dl.sample(max_n), self.dls))
        *_, guesses = self.get_preds(dl=[(*inputs, *targets)] if targets else [inputs], with_decoded=True)
        if targets and guesses.dtype == torch.bool and guesses.numel() == len(guesses):
            targets = [targets[0] > 0.5]  # one yes or no each: labels 1, 1.0 and [1.0] are then the same class
        columns = ([target_name(value, self.dls.vocab) for value in side] for side in (*targets[:1], guesses))
        pairs = list(zip(*columns, strict=True))
        titles = ["\n".join(map(drawable, pair)) for pair in pairs]
        axes = show_grid(photos(dl.decode(inputs[0])), titles, options)
        for ax, pair in zip(axes.flat, pairs, strict=False):
            ax.title.set_color("black" if pair[0] == pair[-1] else "crimson")
        figure = axes[0, 0].figure
        if not (options.get("title") or options.get("suptitle")):
            figure.suptitle("label / prediction" if targets else "prediction")
        return figure

    def _loader(self, ds_idx: int, dl: Any) -> DataLoader | AnyLoader:
        """The loader that is meant, ours in order and whole."""
        return adapted(self.dls[ds_idx] if dl is None else dl).in_order()


@dataclass
class _Seen:
    """What came of each batch."""

    inputs: list[Any] = field(default_factory=list)
    preds: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)


def _class_of(said: Tensor, values: Tensor) -> Tensor:
    """Number of the class that the loss decodes one prediction to; where that is none, the one of the largest value."""
    if said.numel() == 1 and not said.is_floating_point():
        return said.reshape(()).long()
    if values.numel() == 1:
        raise UsageError(
            "the model gives one number and the loss does not say which class it means; train a yes-or-no output with "
            "BCEWithLogitsLossFlat, or take the number from get_preds"
        )
    return values.argmax()


def _joined(batches: list[Any]) -> Any:
    """Tensors of all batches, on the CPU, in tuples, lists and dicts as they came."""
    first = batches[0]
    if isinstance(first, dict):
        return {key: _joined([batch[key] for batch in batches]) for key in first}
    if isinstance(first, tuple | list):
        each = [_joined(list(members)) for members in zip(*batches, strict=True)]
        return type(first)(*each) if hasattr(first, "_fields") else type(first)(each)
    if not isinstance(first, Tensor):
        raise UsageError(
            f"batches can be put together where they are tensors, the model gives a {type(first).__name__}"
        )
    return torch.cat([batch.cpu() for batch in batches])
