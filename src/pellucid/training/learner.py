"""The Learner: data, model, loss and optimizer in one place, with the ways to train and use them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pellucid.convolution.fields.graph import as_type_of
from pellucid.convolution.summary import ModelSummary, summarize
from pellucid.data.batch import parts_of
from pellucid.data.loader import DataLoaders
from pellucid.errors import UsageError
from pellucid.nn.layers import CallableModel
from pellucid.number import count
from pellucid.optim.groups import LearningRate, Splitter, params
from pellucid.optim.hypers import has_momentum, hyper, set_hyper
from pellucid.optim.optimizers import Adam, OptFunc, forget
from pellucid.plot.training import plot_lr_find
from pellucid.schedule import Schedule, cyclical_momentum, flat_cosine, one_cycle
from pellucid.training.asking import remembered
from pellucid.training.callbacks.guard import NonFiniteGuard
from pellucid.training.callbacks.holder import listed, nothing
from pellucid.training.callbacks.lr_finder import MIN_BATCHES, LRFinder, Suggestion, suggestions, valley
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.recorder import Recorder
from pellucid.training.callbacks.schedule import ParamScheduler
from pellucid.training.checkpoint import load_moments, load_weights, named_params, optimizer_file, save_checkpoint
from pellucid.training.diagnosing import Diagnosing
from pellucid.training.finetuning import FineTuning
from pellucid.training.forward import passed, usual_loss
from pellucid.training.holding import HasOptimizer
from pellucid.training.layout import channels_last
from pellucid.training.loop import LossFunc, TrainingLoop
from pellucid.training.memory import keep_freed_memory
from pellucid.training.predicting import Predicting
from pellucid.training.rehearsal import rehearse
from pellucid.training.resuming import Resuming, refuse_other_callbacks
from pellucid.training.rewind import rewound

Method = TypeVar("Method", bound=Callable[..., Any])
DEFAULT_CALLBACKS = (NonFiniteGuard, Recorder, ProgressCallback)


def _with_gradients(method: Method) -> Method:
    """Have gradients also inside somebody's `no_grad` or `inference_mode`."""
    return torch.inference_mode(False)(torch.enable_grad()(method))


class Learner(TrainingLoop, Predicting, FineTuning, Diagnosing, HasOptimizer, Resuming):
    """A model with all that is needed to train it.

    Args:
        dls: Training and validation batches.
        model: Any module, or a callable on batches. Modules and parameters that a callable refers to are taken as its
            own; where it finds them in another way, `splitter` gives its parameters.
        loss_func: (output, labels) → scalar loss; None takes cross entropy, for several labels an image
            `BCEWithLogitsLossFlat`.
        opt_func: (torch parameter groups, lr) → optimizer; ours, or any class of `torch.optim`.
        lr: Learning rate of the `fit` methods when they are given none.
        splitter: Model → parameter groups, from the input on, see `pellucid.optim.groups`; None takes one of all.
        cbs: A callback or a list of them, besides the standard ones.
        metrics: A function (output, labels) → number, an object with reset/update/compute, or a list of them. A
            function is called for each batch, and its mean over the items is shown: right for what is a mean over items
            itself, such as accuracy. For scores of a whole set, such as F1, take `F1Score` and its like, `AccumMetric`
            for a function of all outputs and labels, or `skm_to_fastai` for one of scikit-learn.
        path: Folder with the folder `model_dir`.
        model_dir: Folder in `path` under which `save` puts its files.
        wd: Weight decay; None leaves it to `opt_func`.
        wd_bn_bias: Let weights of norms and biases decay as well.
        train_bn: Train the norms of frozen groups too.
        moms: Momentum of `fit_one_cycle` at its start, at the highest rate, and at its end.
        default_cbs: Add the standard callbacks: the guard against losses of nan, the recorder and the progress table.
        compile: Hand the model to torch.compile, and say what that costs: see `Learner.compile`.
    """

    recorder: Recorder

    def __init__(
        self,
        dls: DataLoaders,
        model: nn.Module | Callable[[Tensor], Tensor],
        loss_func: LossFunc | None = None,
        opt_func: OptFunc = Adam,
        lr: LearningRate = 1e-3,
        splitter: Splitter | None = None,
        cbs: Any = None,
        metrics: Any = None,
        path: str | Path | None = None,
        model_dir: str | Path = "models",
        wd: float | None = None,
        wd_bn_bias: bool = False,
        train_bn: bool = True,
        moms: tuple[float, float, float] = (0.95, 0.85, 0.95),
        default_cbs: bool = True,
        compile: bool = False,
    ):
        super().__init__()
        if not (hasattr(dls, "train") and hasattr(dls, "valid")):
            raise UsageError(
                f"Learner takes DataLoaders first, got a {type(dls).__name__}: put loaders together as "
                "DataLoaders(train, valid)"
            )
        self.dls, self.loss_func, self.opt_func, self.lr = dls, loss_func or usual_loss(dls), opt_func, lr
        self.model = model if isinstance(model, nn.Module) else CallableModel(model)
        self.splitter, self.metrics = splitter or params, listed(metrics)
        self.path, self.model_dir = Path(path or "."), Path(model_dir)
        self.wd, self.wd_bn_bias, self.train_bn, self.moms = wd, wd_bn_bias, train_bn, moms
        self.opt, self._holding, self._left_out = None, None, {}
        self.add_cbs([*(DEFAULT_CALLBACKS if default_cbs else ()), *listed(cbs)])
        if compile:
            self.compile()
        self._call("after_create")

    @property
    def smooth_loss(self) -> float:
        """The smoothed training loss after the last batch that was recorded; no attribute before there is one."""
        if not len(self.recorder.steps):
            raise AttributeError("no training batch was recorded yet")
        return self.recorder.losses[-1]

    @property
    def final_record(self) -> list[float]:
        """Values of the last finished epoch: (train_loss, valid_loss, metrics…); no attribute before there is one."""
        if not self.recorder.values:
            raise AttributeError("no epoch was finished yet")
        return self.recorder.values[-1].copy()

    @_with_gradients
    @remembered
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
        n_epoch = count(n_epoch, "n_epoch")
        if not len(self.dls.train):
            raise UsageError("the training loader has no batch: fewer images than the batch size, with drop_last?")
        if not self._next_fit():
            return
        keep_freed_memory()
        self._ready_opt(reset_opt)
        set_hyper(self.opt, "lr", self._rates(lr))
        decay = self.wd if wd is None else wd
        if decay is not None:
            set_hyper(self.opt, "wd", decay)
        try:
            with self.added_cbs(cbs), channels_last(self.model, self.opt, [self.loss_func, *self.cbs]):
                if self.kept_step is not None:
                    refuse_other_callbacks(self, self.kept_step)
                rehearse(self, self.metrics)
                self._run(n_epoch)
        finally:
            self._leave_opt()

    @_with_gradients
    @remembered
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

        The momentum of an optimizer that was made without stays as it is.

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
        self._ready_opt(reset_opt)
        lrs = self._rates(lr_max)
        schedules: dict[str, Schedule | Sequence[Schedule]] = {
            "lr": [one_cycle(lr, div=div, div_final=div_final, pct_start=pct_start, legs=legs) for lr in lrs]
        }
        if has_momentum(self.opt):
            start, low, end = (hyper(mom, "mom") for mom in (self.moms if moms is None else moms))
            schedules["mom"] = cyclical_momentum((start, low, end), pct_start=pct_start, legs=legs)
        self.fit(n_epoch, lrs, wd, [ParamScheduler(schedules), *listed(cbs)])

    @_with_gradients
    @remembered
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
        self._ready_opt(reset_opt)
        lrs = self._rates(lr)
        schedule = [flat_cosine(lr, div_final=div_final, pct_start=pct_start) for lr in lrs]
        self.fit(n_epoch, lrs, wd, [ParamScheduler({"lr": schedule}), *listed(cbs)])

    @_with_gradients
    def lr_find(
        self,
        start_lr: LearningRate = 1e-7,
        end_lr: LearningRate = 10.0,
        num_it: int = 100,
        stop_div: bool = True,
        show_plot: bool = True,
        suggest_funcs: Suggestion | Sequence[Suggestion] | None = valley,
    ) -> Any:
        """Suggest learning rates: train a while at rates that rise from batch to batch, and put everything back.

        Weights, optimizer, random numbers, order of the data and the record of the last fit are afterwards what they
        were, bit for bit. The learner's callbacks take no part and the model is not validated.

        Args:
            start_lr: First rate, or one per parameter group as in `fit_one_cycle`.
            end_lr: The rate it rises to, in equal ratios.
            num_it: Batches.
            stop_div: Stop when the smoothed loss is four times its lowest value.
            show_plot: Plot the loss over the rates, with the suggestions.
            suggest_funcs: `valley`, `steep`, `minimum`, `slide`, functions (rates, losses) → rate of your own, or a
                list of them; None for none.

        Returns:
            A named tuple with the suggested rate of each function under its name; its attributes `lrs` and `losses`
            hold the curve of the last parameter group.

        Raises:
            UsageError: too few batches, rates that are not positive, or as `fit` does.
            TrainingError: the loss is nan or infinite from the first batch, or explodes before anything can be seen.

        Source: Smith, arXiv:1506.01186, section 3.3.
        """
        if num_it < MIN_BATCHES:
            raise UsageError(f"num_it must be at least {MIN_BATCHES} batches to see a curve, got {num_it}")
        finder = LRFinder(self._rates(start_lr), self._rates(end_lr), num_it, stop_div)
        self._put_on_device()
        held = [p for group in self._groups() for p in group]
        held += [p for group in self.opt.param_groups for p in group["params"]] if self.opt is not None else []
        with rewound(self._modules(), held, self.dls.train):
            trial = self._trial(held)
            trial.fit(-(-num_it // max(1, len(self.dls.train))), cbs=finder)
        functions = listed(suggest_funcs)
        found = suggestions(trial.recorder.lrs, trial.recorder.losses, functions, num_it)
        if show_plot:
            plot_lr_find(found.lrs, found.losses, found._asdict())
        return found

    def summary(self) -> ModelSummary:
        """The layer table on one training batch; leaves the record of the fit and the model's state alone."""
        xb, *more = self._some_inputs()
        if more:
            raise UsageError(f"the layer table is of models with one input, the batches have {1 + len(more)}")
        notes = ["", f"Optimizer used: {self.opt_func}", f"Loss function: {self.loss_func}", "", "Callbacks:"]
        notes += [f"  - {type(cb).__name__}" for cb in self.cbs]
        try:
            model = self.model.to(self.dls.device)
            return summarize(model, as_type_of(model, xb) if xb.is_floating_point() else xb, notes)
        except RuntimeError:
            next(passed(self.model, self.dls, [(xb,)]))  # which says what does not fit
            raise

    def save(self, name: str | Path, with_opt: bool = True) -> Path:
        """Write the weights to `path/model_dir/<name>.safetensors`; returns the file.

        The file holds the plain model's weights, also where it was compiled or wrapped for several devices.

        Args:
            name: Of the file.
            with_opt: Write the optimizer's moments beside it, to `<name>.optimizer.safetensors`, so that training can
                go on after `load` as if nothing had happened.

        Raises:
            UsageError: the file cannot be written, or the model holds something that it cannot keep.
        """
        return save_checkpoint(self._model_file(name), self.model, self.loss_func, self.opt if with_opt else None)

    def save_run(self, folder: str | Path, arch: Any = None, arguments: Mapping[str, Any] | None = None) -> Path:
        """Write a run folder: the model with all it takes to look at new images, for `load_run` and the command line.

        Args:
            folder: A new or empty one.
            arch: What makes the model: a name of `pellucid.nn.models`, which is also given channels, classes and the
                longest side, or a function or class that can be imported, itself or as `'module:name'`. None takes
                what `vision_learner` made, or the model's own class. The model is made and compared before anything
                is written.
            arguments: Keyword arguments to make it with, which must fit into JSON.

        Returns:
            The folder.

        Raises:
            UsageError: `arch` and `arguments` make another model, the batches go through steps that a run folder
                cannot keep, or the folder holds a run already or cannot be written.
        """
        from pellucid.runs.learners import save_learner  # of a higher level, which this is the way to

        return save_learner(self, folder, arch, arguments)

    def load(
        self, name: str | Path, device: torch.device | str | None = None, with_opt: bool = True, strict: bool = True
    ) -> Learner:
        """Read what `save` wrote: all of it, or nothing and an error.

        Args:
            name: Of the file.
            device: Where the model is put; None takes the loaders'.
            with_opt: Read the optimizer's moments as well. If not, or if none were saved, it begins without: moments of
                other weights would push these away.
            strict: Refuse a file that lacks weights of the model, or has others.

        Raises:
            UsageError: no such file, a damaged one, or its weights are not this model's.
        """
        file = self._model_file(name)
        self._left_out = {}
        load_weights(self.model, file, strict=strict)
        self.model.to(device or self.dls.device)
        if hasattr(self, "recorder"):
            self.recorder.kept = None
        if with_opt and optimizer_file(file).exists() and any(p.requires_grad for p in self.model.parameters()):
            self._ready_opt()
            load_moments(self.opt, *named_params(self.model, self.loss_func, self.opt), file)
        elif self.opt is not None:
            forget(self.opt)
        return self

    def _trial(self, held: Sequence[Tensor]) -> Learner:
        """A learner on the same model, with a copy of the optimizer, a recorder of its own and no other callbacks."""
        with self.removed_cbs(self.cbs):
            trial = copy.copy(self)
        trial.metrics, trial.logger = [], nothing
        trial.add_cb(Recorder)
        trial._copy_opt(held)
        return trial

    def _some_inputs(self) -> Sequence[Any]:
        return parts_of(self.dls.one_batch(), self.dls)[0]

    def _model_file(self, name: str | Path) -> Path:
        return self.path / self.model_dir / f"{str(name).removesuffix('.safetensors')}.safetensors"
