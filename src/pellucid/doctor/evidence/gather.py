"""Gathers the evidence of a model's training from outside, while it trains.

Cheap facts come at every step. At looks (steps 0, 1, 2, 5, 10, 20, 50, …, and one early in each epoch) the functions
that run from the model's call to `backward` are seen too, and parameters are read around the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.activations import graph
from pellucid.activations.targets import plain, tensors_in
from pellucid.doctor import lines
from pellucid.doctor.evidence import failures
from pellucid.doctor.evidence.captures import Captures
from pellucid.doctor.evidence.inputs import Given
from pellucid.doctor.evidence.labels import from_batch, from_loss
from pellucid.doctor.evidence.looks import Looks, is_looked_at, is_sampled
from pellucid.doctor.evidence.norms import Norms
from pellucid.doctor.evidence.passes import Comparisons, Pass, Phase, behind
from pellucid.doctor.evidence.record import Evidence, Failure, Loop
from pellucid.doctor.evidence.resources import Resources
from pellucid.doctor.evidence.schedules import Optimizers, Schedules, alive
from pellucid.doctor.evidence.streams import Numbers
from pellucid.doctor.listening import Listener, forget, listen, passing_over
from pellucid.doctor.trials.specimen import Specimen


class Gathering(Listener):
    """What is gathered of one model.

    Args:
        model: Any module, also wrapped by DistributedDataParallel or torch.compile.
        roots: The modules that the loop calls; the model itself, if it calls that.
        watch: The watch of the model, for the layers in which a value stops being a number.

    Attributes:
        model: Without a wrapper.
        captures: What is kept for trials: initial values, a few passes, recipes of the optimizers.
        failure: The first value that was not a number, or how the script ended.
        finished: Whether the training came to its end.
        models: How many root modules trained.
    """

    def __init__(self, model: nn.Module, roots: Sequence[nn.Module] = (), watch: Any = None):
        super().__init__()
        self.model = plain(model)
        self.watch = watch
        self.failure: Failure | None = None
        self.models, self.finished = 1, False
        self._roots = {id(m) for m in (model, self.model, *roots)}
        self._owned = {id(p) for p in self.model.parameters()}
        self.captures = Captures(self.model)
        self._train, self._valid = Phase(), Phase()
        self._open: list[Pass] = []  # passes of which it is not yet known what they were for
        self._inside = self._backward = self._stepping = False
        self._batch, self._source = None, 0
        self._fresh = False

        self.steps = self.backwards = self.passes = 0
        self._losses, self._step_losses, self._since_step = Numbers(), list[Tensor](), 0
        self._per_step = Numbers()
        self._epochs: list[int] = []
        self._ours: list[Pass] = []  # the passes that the `backward` that runs belongs to
        self._over: list[Pass] = []  # and those of the last one, for another with the same graph
        self._probe: tuple[nn.Parameter, Tensor] | None = None  # a parameter after `backward`, while nothing stepped
        self._by_hand = False

        self._comparisons = Comparisons()
        self._norms, self._resources = Norms(self.model), Resources()
        self.looks = Looks(self, self.model, self._norms, self.captures)
        self._optimizers, self._schedules = Optimizers(), Schedules()
        self._main: Any = None  # the optimizer whose steps are those of the loop
        self._strangers: set[int] = set()

    # Passes

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, grad: bool) -> None:
        """A pass begins, or goes on with another of its modules."""
        if id(module) not in self._roots:
            return
        self._inside = True
        now = self._open[-1] if self._open else None
        # A module that is called again begins another pass, unless it goes on with what came out of this one.
        again = now is not None and id(module) in now.roots and not any(t.grad_fn for t in tensors_in((args, kwargs)))
        if now is None or now.grad != grad or again:
            now = self._begin((args, kwargs), grad=grad)
            self.looks.called_again()
            if grad and not self.looks.recording and self.looks.is_due(self._clock, fresh=now.fresh):
                self._resources.look(self._clock, self.model)
                self.looks.begin(self._clock, module, args, kwargs)
        now.roots.add(id(module))

    def _begin(self, given: Any, *, grad: bool) -> Pass:
        self._end_comparisons()
        for each in [each for each in self._open if not each.grad]:
            self._settle(each, trained=False)
        self.passes += grad
        if grad:
            self._see_hand()
            if self.looks.stepped:
                self.looks.end()
            self._resources.called()
        phase = self._train if grad else self._valid
        x = next((t for t in tensors_in(given) if t.is_floating_point()), next(tensors_in(given), None))
        x = None if x is not None and (not x.ndim or x.layout is not torch.strided or x.is_meta) else x
        due = grad and self.looks.is_due(self._clock, fresh=self._fresh)
        looked = due or (is_looked_at if grad else is_sampled)(phase.n)
        taken = Given((), integers=False) if x is None else phase.inputs.take(x.detach(), look=looked)
        taken.source = self._source
        now = Pass(grad, self.steps, taken, self.model.training, self._norms.modes(), x, fresh=self._fresh)
        now.batch_labels = from_batch(self._batch, now.n)
        self._fresh, self._batch, self._source = False, None, 0
        for each in self._open:
            each.x = None
        self._open.append(now)
        return now

    def catch_up(self, calls: Sequence[tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]]) -> None:
        """Take calls of the first pass that were made before it was known that these modules train together."""
        for module, args, kwargs, output in calls:
            self.called(module, args, kwargs, grad=True)
            self.returned(module, output)
        if calls:
            self.looks.pass_over()  # what they called meanwhile was not recorded

    def returned(self, module: nn.Module, output: Any) -> None:
        """One of the modules of a pass returned."""
        if id(module) not in self._roots or not self._open:
            return
        self._inside = output is None
        now = self._open[-1]
        now.returned(output)
        if not self.backwards:
            self.captures.keep_initial()  # of lazy modules, whose parameters come with the first pass
        unknown = now.batch_labels is None and now.answer.labels is None
        if self.looks.is_open if now.grad else unknown or is_looked_at(self._valid.n):
            self._comparisons.begin(now)

    def lost(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """A loss was computed: what it was given are labels and, mostly, the output of the last pass."""
        prediction = args[0] if args else kwargs.get("input")
        target = args[1] if len(args) > 1 else kwargs.get("target")
        n = len(target) if isinstance(target, Tensor) and target.ndim else 0
        now = next((each for each in reversed(self._open) if each.n == n), self._open[-1] if self._open else None)
        if now is None:
            return
        if now.loss is None and isinstance(result, Tensor) and result.numel() == 1:
            now.loss = result.detach().reshape(())
        labels = None if now.answer.labels is not None else from_loss(name, prediction, target, now.n)
        if labels is not None:
            now.answer.labels = labels
            if isinstance(prediction, Tensor) and prediction.ndim and len(prediction) == now.n:
                now.answer.said(prediction)
                now.answer.kind = "probability" if name == "binary_cross_entropy" else ""

    def dropped(self, name: str, where: str, *, training: bool) -> None:
        """A dropout was called as a function, in the model."""
        if self._inside and self._open:
            self._open[-1].functions[f"{name} in {type(self.model).__name__} ({where})"] = training

    def _settle(self, each: Pass, *, trained: bool) -> None:
        """Count a pass with the others of its phase, when it is known what it was for."""
        self._open = [other for other in self._open if other is not each]
        (self._train if trained else self._valid).add(each)
        self._norms.add(each.modes, each.functions, trained=trained)
        if trained and each.fresh:
            self._epochs.append(self.steps)

    def _end_comparisons(self) -> None:
        if self._comparisons.of is not None:
            phase = self._train if self._comparisons.of.grad else self._valid
            phase.answers.compared = self._comparisons.compared or phase.answers.compared
            self._comparisons.compared = ""
        self._comparisons.end()

    # backward

    def before_backward(self, roots: Any, inputs: list[Tensor] | None) -> None:
        """Find the passes it belongs to; look at what it finds."""
        self._ours = []
        if inputs is not None and self._owned.isdisjoint(map(id, inputs)):
            return  # of an attack, or a penalty on gradients with respect to images
        fresh = [each for each in self._open if each.grad]
        self._ours = behind(roots, fresh, self._owned) or behind(roots, self._over, self._owned)
        if not self._ours:
            return
        self._backward = True
        self.backwards += 1
        loss, root = graph.loss_of(roots), roots if isinstance(roots, Tensor) else roots[0]
        if loss is not None:
            self._step_losses.append(loss)
            if self.failure is None and loss.is_cpu and not math.isfinite(loss.item()):
                seen = None if self.watch is None else self.watch.history
                ops = self.looks.ops if len(self.looks.steps) == 1 and self.looks.recording else []
                self.failure = failures.of_loss(self.steps, root, self._ours[-1].x, self.model, ops, seen)
        self.looks.before_backward(loss, root)
        for each in self._ours:
            if not each.over:
                each.over = True
                self._settle(each, trained=True)
        self._over = self._ours

    def after_backward(self, roots: Any, *, accumulated: bool) -> None:
        """Look at the gradients."""
        if not self._ours:
            return
        self._backward = False
        if accumulated:
            self.looks.after_backward(roots)
        self._since_step += 1
        self._ours = []
        if self._main is None:
            self._remember()

    # Steps

    def before_step(self, optimizer: Any) -> None:
        """Look at what an optimizer of the model is to do."""
        if not self._optimizers.holds(optimizer, self._owned) and not self._is_stand_in(optimizer):
            return
        self._stepping = True
        self._main = optimizer if self._main is None else self._main
        self.looks.before_step(optimizer)
        if self.looks.is_open:
            self._optimizers.look(optimizer)

    def after_step(self, optimizer: Any) -> None:
        """Look at what it did; the first optimizer ends the step."""
        if not self._optimizers.holds(optimizer, self._owned):
            return
        self._stepping = False
        self._optimizers.stepped(optimizer)
        self.looks.after_step(optimizer)
        if optimizer is self._main:
            self._tick()

    def scheduled(self, scheduler: Any, error: str) -> None:
        """Take a step of a schedule of one of the optimizers."""
        optimizer = getattr(scheduler, "optimizer", None)
        if optimizer is not None and self._optimizers.holds(optimizer, self._owned):
            self._schedules.stepped(scheduler, self._optimizers.steps_of(optimizer), error)

    def _tick(self) -> None:
        self.steps += 1
        self.looks.step_ended()
        self._per_step.put(self._since_step)
        losses = self._step_losses
        self._losses.put(losses[0] if len(losses) == 1 else torch.stack(losses).mean() if losses else np.nan)
        self._step_losses, self._since_step, self._over = [], 0, []
        for each in [each for each in self._open if each.step < self.steps - 1 or not each.grad]:
            self._settle(each, trained=False)
        self._resources.stepped()

    def _is_stand_in(self, optimizer: Any) -> bool:
        """Whether it steps after `backward` in place of one that holds the model's parameters, which none does."""
        if self._main is not None or not self._since_step or id(optimizer) in self._strangers:
            return False
        if any(self._optimizers.holds(each, self._owned) for each in alive()):
            self._strangers.add(id(optimizer))
            return False
        self._optimizers.adopt(optimizer)
        return True

    def _remember(self) -> None:
        trained = [p for p in self.model.parameters() if p.grad is not None and not p.grad.is_sparse]
        if trained:
            p = min(trained, key=Tensor.numel)
            self._probe = p, p.detach().clone()

    def _see_hand(self) -> None:
        """Count a step where the weights were changed after `backward`, while no optimizer has stepped."""
        if self._main is None and self._probe is not None:
            p, before = self._probe
            if p.shape != before.shape or not torch.equal(p.detach(), before):
                self._by_hand = True
                self._tick()
            self._probe = None

    @property
    def _clock(self) -> int:
        """Steps; where none came in a hundred, calls of `backward`."""
        return self.steps or (self.backwards if self.backwards >= 100 else 0)

    # Data

    def loaded(self, iterator: Any, batch: Any, asked: float) -> None:
        """A loader gave a batch."""
        self._end_comparisons()
        self._resources.loaded(asked)
        self._batch, self._source = batch, id(iterator._index_sampler)
        self._fresh = self._fresh or iterator._num_yielded == 1

    # Everything

    def end(self) -> None:
        """Take away what is left in torch, and count the last passes."""
        self._end_comparisons()
        self._see_hand()
        self.looks.end()
        for each in self._open if self.backwards or self.failure else []:
            self._settle(each, trained=each.grad and not self.backwards)  # the first pass of all, if that failed

    def failed(self, error: BaseException) -> None:
        """Take the error that ended the training."""
        found = self.failure or Failure(during=self.during, step=self.steps)
        self.failure = replace(
            found,
            kind=type(error).__name__,
            message=str(error) or found.message,
            where=lines.raised_at(error.__traceback__) or found.where,
        )

    @property
    def during(self) -> str:
        """What runs at this moment: `forward`, `loss`, `backward`, `step` or `input`."""
        if self._backward:
            return "backward"
        if self._inside:
            return "forward"
        if self._stepping:
            return "step"
        return "loss" if any(each.grad for each in self._open) else "input"

    def specimen(self) -> Specimen:
        """What trials need: a copy of the model, with what was kept of its training."""
        self._find_optimizers()
        kept = self.captures
        return Specimen.of(self.model, kept.train, recipes=kept.recipes, initial=kept.initial, final=kept.final)

    def _find_optimizers(self) -> None:
        """Know those that hold parameters of the model and have not stepped, too."""
        for optimizer in alive():
            if self._optimizers.holds(optimizer, self._owned):
                self.captures.see(optimizer)

    def evidence(self) -> Evidence:
        """Everything gathered so far."""
        self._find_optimizers()
        train, valid, sizes = self._train, self._valid, self._train.inputs.sizes.array()
        losses = self._losses.array() if len(self._losses) else np.array([float(x) for x in self._step_losses])
        return Evidence(
            type(self.model).__name__,
            self.models,
            Loop(
                self.steps,
                self.backwards,
                self.passes,
                self._per_step.array().astype(np.int64),
                np.array(self.looks.left),
                np.array(self.looks.left_steps, np.int64),
                self.looks.discarded_share,
                valid.n,
                train.in_eval / train.n if train.n else np.nan,
                list(self._epochs),
                self._by_hand,
            ),
            train.inputs.inputs(),
            valid.inputs.inputs(train.inputs),
            train.answers.labels(),
            valid.answers.labels(),
            losses,
            valid.losses.array(),
            valid.steps.array().astype(np.int64),
            list(self.looks.calls.calls),
            list(self.looks.ops),
            self.looks.units.units(),
            self.looks.all_parameters(self._optimizers.known),
            self._optimizers.optimizers(self._owned),
            self._schedules.schedulers(),
            self._norms.norms(int(sizes.min()) if len(sizes) else 0),
            self._resources.resources(),
            None if self.failure is None else replace(self.failure),
            self.finished,
            np.array(self.looks.steps, np.int64),
            list(self.notes),
        )


@contextmanager
def open_gathering(gathering: Gathering) -> Iterator[Gathering]:
    """Gather inside a block; after it, torch is as it was."""
    try:
        listen(gathering)
        yield gathering
        gathering.finished = True
    except Exception as error:
        gathering.failed(error)
        raise
    finally:
        forget(gathering)
        with passing_over():
            gathering.end()
