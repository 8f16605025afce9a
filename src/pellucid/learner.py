"""The Learner: data, model, loss and optimizer in one place, with the ways to train and use them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from pellucid.callback.core import Callback
from pellucid.callback.guard import NonFiniteGuard
from pellucid.callback.progress import ProgressCallback
from pellucid.callback.recorder import Recorder
from pellucid.callback.schedule import ParamScheduler
from pellucid.data.loader import DataLoader, DataLoaders
from pellucid.errors import UsageError
from pellucid.layout import channels_last
from pellucid.loop import LossFunc, TrainingLoop
from pellucid.memory import keep_freed_memory
from pellucid.metrics import Evaluation
from pellucid.optimizer import NORMS, Adam, OptFunc, param_groups, restore_hypers, set_hyper, snapshot_hypers
from pellucid.plot.images import photo_style, show_images
from pellucid.schedule import Schedule, cyclical_momentum, flat_cosine, one_cycle
from pellucid.summary import ModelSummary, summarize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LearningRate = float | Sequence[float] | slice
Splitter = Callable[[nn.Module], Sequence[Iterable[nn.Parameter]]]
DEFAULT_CALLBACKS = (NonFiniteGuard, Recorder, ProgressCallback)


class Learner(TrainingLoop):
    """A model with all that is needed to train it.

    Args:
        dls: Training and validation batches.
        model: Any module, or a callable on batches (then `splitter` gives its parameters).
        loss_func: (output, labels) → scalar loss.
        opt_func: (torch parameter groups, lr) → optimizer; ours, or any class of `torch.optim`.
        lr: Learning rate of the `fit` methods when they are given none.
        metrics: A function (output, labels) → number, an object with reset/update/compute, or a list of them.
        cbs: A callback or a list of them, besides the standard ones.
        wd: Weight decay; None leaves it to `opt_func`.
        moms: Momentum of `fit_one_cycle` at its start, at the highest rate, and at its end.
        path: Folder under which `save` puts its files.
        splitter: Model → parameter groups, from the input on; default one group of all parameters.
    """

    opt: Optimizer
    recorder: Recorder

    def __init__(
        self,
        dls: DataLoaders,
        model: nn.Module | Callable[[Tensor], Tensor],
        loss_func: LossFunc = F.cross_entropy,
        opt_func: OptFunc = Adam,
        lr: float = 1e-3,
        metrics: Any = (),
        cbs: Any = (),
        wd: float | None = None,
        moms: tuple[float, float, float] = (0.95, 0.85, 0.95),
        path: str | Path = ".",
        splitter: Splitter | None = None,
    ):
        super().__init__()
        self.dls, self.loss_func, self.opt_func, self.lr, self.wd = dls, loss_func, opt_func, lr, wd
        self.model = model if isinstance(model, nn.Module) else CallableModel(model)
        self.metrics = list(metrics) if isinstance(metrics, list | tuple) else [metrics]
        self.moms, self.path = moms, Path(path)
        self.splitter = splitter or (lambda model: [list(model.parameters())])
        for cb in [*DEFAULT_CALLBACKS, *(cbs if isinstance(cbs, list | tuple) else [cbs])]:
            self.add_cb(cb)

    def fit(
        self,
        n_epoch: int,
        lr: LearningRate | None = None,
        wd: float | None = None,
        cbs: Any = (),
        reset_opt: bool = False,
    ) -> None:
        """Train at a constant learning rate.

        Each fit starts from the optimizer's own hyper-parameters, whatever a schedule left; its moments are kept.
        Ctrl-C ends it with the model usable and the record of the finished batches kept.

        Args:
            n_epoch: Passes over the training set.
            lr: One learning rate, or one per parameter group as in `fit_one_cycle`; None takes the learner's.
            wd: Weight decay of this fit; None takes the learner's.
            cbs: Callbacks for this fit only.
            reset_opt: Start with a new optimizer.

        Raises:
            UsageError: the model has no trainable parameters, there is no training batch, or `lr` fits no groups.
            TrainingError: the loss became nan or infinite, or does not fit the model's output.
        """
        if n_epoch < 1:
            raise UsageError(f"n_epoch must be at least 1, got {n_epoch}")
        if not len(self.dls.train):
            raise UsageError("the training loader has no batch: fewer images than the batch size, with drop_last?")
        if reset_opt or not hasattr(self, "opt"):
            self.create_opt()
        restore_hypers(self.opt, self._initial_hypers)
        set_hyper(self.opt, "lr", self._lrs(self.lr if lr is None else lr))
        decay = self.wd if wd is None else wd
        if decay is not None:
            set_hyper(self.opt, "wd", decay)
        keep_freed_memory()
        with self.added_cbs(cbs), channels_last(self.model, self.opt):
            self._run(n_epoch)

    def fit_one_cycle(
        self,
        n_epoch: int,
        lr_max: LearningRate | None = None,
        div: float = 25.0,
        div_final: float = 1e5,
        pct_start: float = 0.25,
        wd: float | None = None,
        moms: tuple[float, float, float] | None = None,
        cbs: Any = (),
        reset_opt: bool = False,
        legs: str = "cosine",
    ) -> None:
        """Train with the 1cycle schedule: learning rate up and down, momentum down and up.

        Args:
            n_epoch: Passes over the training set.
            lr_max: Highest learning rate; a list has one per parameter group, `slice(a, b)` spreads from a to b in
                equal ratios over the groups, `slice(b)` gives b to the last group and b / 10 to the others.
            div: lr_max over the first learning rate.
            div_final: lr_max over the last one.
            pct_start: Fraction of the batches spent on the way up.
            wd: Weight decay of this fit.
            moms: Momentum at the start, at the highest rate, at the end; None takes the learner's.
            cbs: Callbacks for this fit only.
            reset_opt: Start with a new optimizer.
            legs: `cosine`, or `linear` as Smith first published it.

        Source: arXiv:1708.07120 (rates), arXiv:1803.09820 (momentum). Raises as `fit` does.
        """
        lrs = self._lrs(self.lr if lr_max is None else lr_max)
        schedules: dict[str, Schedule | Sequence[Schedule]] = {
            "lr": [one_cycle(lr, div=div, div_final=div_final, pct_start=pct_start, legs=legs) for lr in lrs],
            "mom": cyclical_momentum(moms or self.moms, pct_start=pct_start, legs=legs),
        }
        self.fit(n_epoch, lrs, wd, [ParamScheduler(schedules), *_listed(cbs)], reset_opt)

    def fit_flat_cos(
        self,
        n_epoch: int,
        lr: LearningRate | None = None,
        div_final: float = 1e5,
        pct_start: float = 0.75,
        wd: float | None = None,
        cbs: Any = (),
        reset_opt: bool = False,
    ) -> None:
        """Train at a constant rate for `pct_start` of the batches, then along a cosine down to lr / div_final."""
        lrs = self._lrs(self.lr if lr is None else lr)
        schedule = [flat_cosine(lr, div_final=div_final, pct_start=pct_start) for lr in lrs]
        self.fit(n_epoch, lrs, wd, [ParamScheduler({"lr": schedule}), *_listed(cbs)], reset_opt)

    def fine_tune(
        self,
        epochs: int,
        base_lr: float = 2e-3,
        freeze_epochs: int = 1,
        lr_mult: float = 100,
        pct_start: float = 0.3,
        div: float = 5.0,
        **options: Any,
    ) -> None:
        """Train the last parameter group alone for `freeze_epochs`, then all of them.

        Args:
            epochs: Passes after unfreezing.
            base_lr: Highest rate of the last group while the others are frozen; half of it afterwards.
            freeze_epochs: Passes with all but the last group frozen.
            lr_mult: Last group's rate over the first group's, after unfreezing.
            pct_start: Fraction of the second part spent on the way up.
            div: Highest over first learning rate in the second part.
            options: Further arguments of `fit_one_cycle`.
        """
        n_groups = len(self.splitter(self.model))
        self.freeze()
        self.fit_one_cycle(freeze_epochs, base_lr, pct_start=0.99, **options)
        self.unfreeze()
        high = base_lr / 2
        lrs = high if n_groups == 1 else slice(high / lr_mult, high)
        self.fit_one_cycle(epochs, lrs, pct_start=pct_start, div=div, **options)

    def create_opt(self) -> None:
        """Make a new optimizer of all parameter groups, with the model on the loaders' device."""
        self.model.to(self.dls.device)
        groups = param_groups(self.model, self.splitter(self.model))
        if not any(p.requires_grad for group in groups for p in group["params"]):
            hint = (
                ": is it a function that makes a model? then call it" if isinstance(self.model, CallableModel) else ""
            )
            raise UsageError(f"the model has no trainable parameters{hint}")
        self.opt = self.opt_func(groups, lr=self.lr)
        self._initial_hypers = snapshot_hypers(self.opt)

    def freeze(self) -> None:
        """Train only the last parameter group, and the norms of the others."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Train all parameter groups."""
        self.freeze_to(0)

    def freeze_to(self, n: int) -> None:
        """Train parameter groups from `n` on, and the norms of those before."""
        norms = {id(p) for m in self.model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
        groups = list(self.splitter(self.model))
        first = n if n >= 0 else max(0, len(groups) + n)
        for i, group in enumerate(groups):
            for p in group:
                p.requires_grad_(i >= first or id(p) in norms)

    def validate(self, dl: Any = None) -> list[float]:
        """Loss and metrics on the validation set, or on `dl`; leaves the record of the fit alone."""
        evaluation = Evaluation(self.metrics, self.dls.device)
        for pred, yb in self._outputs(self.dls.valid if dl is None else dl):
            if yb is None:
                raise UsageError("validate needs labels, this loader has none; use get_preds")
            evaluation.update(self._loss(pred, yb), pred, yb)
        return evaluation.values()

    def get_preds(
        self, dl: Any = None, *, activation: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Probabilities (image, class) and labels (image,) of the validation set or of `dl`, on the CPU.

        Args:
            dl: A loader; one without labels (`dls.test_dl`) gives None for them.
            activation: Turns outputs into predictions; None takes what belongs to the loss: softmax for cross
                entropy, sigmoid for binary cross entropy with logits, exp for the log-likelihood, else nothing.
        """
        activation = activation or _activation(self.loss_func)
        pairs = [(activation(pred).cpu(), yb) for pred, yb in self._outputs(self.dls.valid if dl is None else dl)]
        labels = [yb.cpu() for _, yb in pairs if yb is not None]
        return torch.cat([pred for pred, _ in pairs]), torch.cat(labels) if labels else None

    def predict(self, item: Any) -> tuple[str, Tensor, Tensor]:
        """Class name, class index and probabilities (class,) of one path, Pillow image or array."""
        probabilities = self.get_preds(self.dls.test_dl([item]))[0][0]
        index = probabilities.argmax()
        return self.dls.label(int(index)), index, probabilities

    def show_results(self, max_n: int = 9, figsize: tuple[float, float] | None = None) -> Figure:
        """Show validation images, each under its label and the prediction, wrong ones in red."""
        valid = self.dls.valid
        ours = isinstance(valid, DataLoader)
        xb, yb = valid.sample(max_n) if ours else (t[:max_n] for t in next(iter(valid)))
        guesses = self.get_preds([(xb, yb)])[0].argmax(1).tolist()
        pairs = list(zip(yb.tolist(), guesses, strict=True))
        titles = [f"{self.dls.label(y)}\n{self.dls.label(guess)}" for y, guess in pairs]
        images = valid.decode(xb) if ours else xb.cpu()
        axes = show_images(list(images), titles=titles, figsize=figsize, **photo_style())
        for ax, (y, guess) in zip(axes.flat, pairs, strict=False):
            ax.title.set_color("black" if y == guess else "crimson")
        figure = axes[0, 0].figure
        figure.suptitle("label / prediction")
        return figure

    def summary(self) -> ModelSummary:
        """The layer table on one training batch; leaves the record of the fit and the model's state alone."""
        rng = torch.get_rng_state()  # drawing a batch must not change the next fit
        xb = self.dls.one_batch()[0].to(self.dls.device)
        torch.set_rng_state(rng)
        notes = ["", f"Optimizer used: {self.opt_func}", f"Loss function: {self.loss_func}", "", "Callbacks:"]
        notes += [f"  - {type(cb).__name__}" for cb in self.cbs]
        return summarize(self.model.to(self.dls.device), xb, notes)

    def save(self, name: str | Path) -> Path:
        """Write the weights to `path/models/<name>.safetensors`; returns the file."""
        file = self._model_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(file))
        return file

    def load(self, name: str | Path) -> Learner:
        """Read weights that `save` wrote.

        Raises:
            UsageError: no such file, or its weights are not this model's.
        """
        load_weights(self.model, self._model_file(name))
        return self

    @contextmanager
    def added_cbs(self, cbs: Any) -> Iterator[Learner]:
        """Have further callbacks inside the block only."""
        added: list[Callback] = []
        try:
            for cb in _listed(cbs):
                before = set(map(id, self.cbs))
                self.add_cb(cb)
                added += [c for c in self.cbs if id(c) not in before]
            yield self
        finally:
            for cb in added:
                self.remove_cb(cb)

    def _outputs(self, dl: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor | None]]:
        was_training = self.model.training
        self.model.to(self.dls.device).eval()
        try:
            with torch.no_grad():
                for batch in dl:
                    xb, *rest = (t.to(self.dls.device) for t in batch)
                    yield self.model(xb), rest[0] if rest else None
        finally:
            self.model.train(was_training)

    def _lrs(self, lr: LearningRate) -> list[float]:
        n_groups = len(self.splitter(self.model))
        if isinstance(lr, int | float):
            return [float(lr)] * n_groups
        if isinstance(lr, slice):
            if lr.stop is None:
                raise UsageError(f"a slice of learning rates needs an end, got {lr}")
            if lr.start is None:
                return [lr.stop / 10] * (n_groups - 1) + [lr.stop]
            if n_groups == 1:
                raise UsageError(
                    f"slice({lr.start}, {lr.stop}) spreads rates over parameter groups, but there is only one: "
                    "give the Learner a splitter, or one number"
                )
            return [lr.start * (lr.stop / lr.start) ** (i / (n_groups - 1)) for i in range(n_groups)]
        if len(lr) != n_groups:
            raise UsageError(f"{len(lr)} learning rates for {n_groups} parameter groups")
        return list(lr)

    def _model_file(self, name: str | Path) -> Path:
        return self.path / "models" / f"{str(name).removesuffix('.safetensors')}.safetensors"


class CallableModel(nn.Module):
    """A plain callable as a module; it has no parameters of its own."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Call the function."""
        return self.function(x)


def load_weights(model: nn.Module, file: Path) -> None:
    """Read a safetensors file into `model`.

    Raises:
        UsageError: no such file, a damaged one, or weights of another model.
    """
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    try:
        load_model(model, str(file))
    except (RuntimeError, SafetensorError) as error:
        raise UsageError(f"{file}: its weights do not fit this {type(model).__name__}: {error}") from None


def _activation(loss_func: Any) -> Callable[[Tensor], Tensor]:
    if loss_func is F.cross_entropy or isinstance(loss_func, nn.CrossEntropyLoss):
        return lambda pred: pred.softmax(-1)
    if loss_func is F.binary_cross_entropy_with_logits or isinstance(loss_func, nn.BCEWithLogitsLoss):
        return torch.sigmoid
    if loss_func is F.nll_loss or isinstance(loss_func, nn.NLLLoss):
        return torch.exp
    return lambda pred: pred


def _listed(cbs: Any) -> list[Any]:
    return list(cbs) if isinstance(cbs, list | tuple) else [cbs]
