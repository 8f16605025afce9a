"""Watch any model in any training loop: `with watch(model, optimizer=opt) as seen: …`.

Nothing is attached to the model: one hook of torch's on all modules looks up whether a module is watched, so copies and
pickles of the model know nothing of it. Outputs are read, never changed; no random number is drawn.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.activations import global_hooks, graph, unseen
from pellucid.activations.columns import MAX_COLUMNS, Timeline
from pellucid.activations.outputs import Outputs
from pellucid.activations.sections import section
from pellucid.activations.series import Series
from pellucid.activations.snapshots import Snapshots
from pellucid.activations.steps import first_step_hooks, parameters_of, step_hooks, unwrapped
from pellucid.activations.targets import Which, choose, plain
from pellucid.errors import UsageError
from pellucid.history import file as history_file
from pellucid.history import wording
from pellucid.history.history import History
from pellucid.history.pictures import Pictures

FLUSH_EVERY = 50
SAVE_EVERY_S = 10.0


def watch(
    model: nn.Module,
    optimizer: Any = None,
    *,
    loss: bool = False,
    modules: Which | Sequence[Which] | None = None,
    every: int = 1,
    with_hist: bool = True,
    with_grads: bool | None = None,
    folder: str | Path | None = None,
) -> Watch:
    """Record what the layers of a model put out, and its gradients, inside a `with` block around any training loop.

    A step ends with `optimizer.step()`; without an optimizer every training pass of the model is one. Passes with the
    model in evaluation mode are kept apart. Each call of a module is seen; of outputs that are tuples, dicts or
    dataclasses the first floating-point tensor. Recomputation of checkpointed activations is not counted again.

    Args:
        model: Any module, also wrapped by DistributedDataParallel (then statistics are reduced over the ranks when the
            block ends) or torch.compile (it runs uncompiled inside the block, with the same results).
        optimizer: Its steps, hyper-parameters and gradients are recorded. `'auto'` takes the first torch optimizer that
            steps any of the model's parameters, for trainers that make their own.
        loss: Record the value `backward()` is called on, where it reaches this model's parameters or a tensor of the
            optimizer.
        modules: Names, patterns, classes, modules or a predicate; None takes all layers with parameters and all
            activation functions of `torch.nn`.
        every: Record every n-th step.
        with_hist: Record histograms, 1.4 MB a layer when all 2,048 columns are used.
        with_grads: Record gradients, weights and updates; None does if there is an optimizer.
        folder: Keep `history.safetensors` there up to date, about every ten seconds.

    Raises:
        UsageError: nothing to watch, gradients are asked for without an optimizer, or it is none; when the block
            begins, `folder` cannot be written.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"watch() reads the layers of an nn.Module, not of a {type(model).__name__}")
    if isinstance(optimizer, str) and optimizer != "auto":
        raise UsageError(f"optimizer={optimizer!r}: give the optimizer itself, or 'auto' where a trainer makes it")
    if optimizer is not None and not isinstance(optimizer, str) and not callable(getattr(optimizer, "step", None)):
        raise UsageError(f"a {type(optimizer).__name__} has no step(): give one optimizer, and each its own watch")
    if with_grads and optimizer is None:
        raise UsageError("gradients are read when the optimizer steps: give watch(model, optimizer=…)")
    return Watch(
        model,
        optimizer,
        loss=loss,
        modules=modules,
        every=every,
        with_hist=with_hist,
        with_grads=optimizer is not None if with_grads is None else with_grads,
        folder=folder,
    )


class Watch(Pictures):
    """What `watch` returns: the block, and afterwards (or meanwhile) its history and pictures.

    Attributes:
        due: Whether the current step is recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        loss: bool,
        modules: Which | Sequence[Which] | None,
        every: int,
        with_hist: bool,
        with_grads: bool,
        folder: str | Path | None = None,
        by_hand: bool = False,
        capacity: int = MAX_COLUMNS,
    ):
        if every < 1:
            raise UsageError(f"every must be at least 1, got {every}")
        self.model, self.optimizer = model, unwrapped(optimizer)
        self.every, self.with_loss, self.with_grads = every, loss, with_grads
        self.folder = Path(folder) if folder is not None else None
        self.by_hand = by_hand
        self.passes_are_steps = optimizer is None and not by_hand
        self.root = plain(model)
        self.outputs, self.series = Outputs(choose(self.root, modules), with_hist), Series(self.root, with_grads)
        self.rows = self.outputs.rows
        self.timeline = Timeline([self.outputs.train, *self.series.tables], capacity)
        self.valid_timeline = Timeline([self.outputs.valid], capacity)
        self.snapshots = Snapshots(self.root, every)
        self._step, self.due = 0, True
        self._column = self._valid_column = -1
        self._in_pass = self._passed = self._outside = False
        self._owned: set[int] = set()
        self._called: set[bool] = set()  # in which modes the model itself was
        self._open: ExitStack | None = None
        self._save_at = time.monotonic() + SAVE_EVERY_S
        self._save_failed = False
        if self.optimizer is not None and self.optimizer != "auto":
            self._adopt(self.optimizer)

    def __enter__(self) -> Watch:
        if self._open is not None:
            raise UsageError("this watch is open already; make a second one with watch() to watch the model twice")
        if self.folder is not None:
            history_file.make_room(self.folder)
        known = self.optimizer is not None and self.optimizer != "auto" and self.with_grads
        _say([unseen.of_replicas(self.model), unseen.of_optimizer(self.optimizer, self.root) if known else None])
        self._owned = set(map(id, self.leaves()))
        with ExitStack() as stack:
            if _is_compiled(self.model):
                warnings.warn("the model runs uncompiled while it is watched; its results are the same", stacklevel=2)
                stack.enter_context(torch.compiler.set_stance("force_eager"))
                stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are global hooks")
            stack.callback(global_hooks.detach, self)  # before there is anything to detach: Ctrl-C may come between
            global_hooks.attach(self)
            if self.optimizer is not None and not self.by_hand:
                around = self.before_step, self.after_step
                auto = self.optimizer == "auto"
                stack.enter_context(
                    first_step_hooks(self.root, self._adopt, *around) if auto else step_hooks(self.optimizer, *around)
                )
            self._open = stack.pop_all()
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: Any) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        if self._passed:
            self.advance()
        self.outputs.forget_last()
        if failed is None:
            self.flush()
            self._reduce()
        if self.folder is not None:
            self._save(self.folder)
        if failed is None:
            _say(self._missing())

    def __repr__(self) -> str:
        return f"{'open ' * self.is_open}watch of {type(self.root).__name__}: {wording.said(self.history)}"

    @property
    def is_open(self) -> bool:
        """Whether the block runs."""
        return self._open is not None

    @property
    def step(self) -> int:
        """Training steps so far."""
        return self._step + self._passed

    @property
    def history(self) -> History:
        """Everything recorded so far."""
        self.flush()
        kernels, kernel_steps = self.snapshots.arrays()
        return History(
            self.outputs.layers(),
            list(self.series.params),
            section(self.timeline, self.outputs.train),
            section(self.valid_timeline, self.outputs.valid),
            self.series.arrays(self.timeline.n),
            kernels,
            kernel_steps,
        )

    def begin_pass(self) -> None:
        """Note that the model was called, where its training passes are the steps."""
        if torch._C._current_graph_task_id() == -1:
            if self._passed:
                self.advance()
            self._in_pass = True

    def end_pass(self) -> None:
        """Note that it returned; a step ends when the next pass begins, since its loss is still to come."""
        self._called.add(self.root.training)
        if self._in_pass:
            self._in_pass, self._passed = False, self.root.training

    def advance(self) -> None:
        """End a training step."""
        self._step += 1
        self._passed = False
        self.due = self._step % self.every == 0
        self._column = self._valid_column = -1
        self.outputs.forget_last()
        if self._step % FLUSH_EVERY == 0:
            self.flush()
            if self.folder is not None and time.monotonic() >= self._save_at:
                self._save(self.folder)

    def leaves(self) -> list[Tensor]:
        """What gets gradients from a loss of this model: its parameters, and the tensors of its optimizer."""
        return [*self.root.parameters(), *parameters_of(self.optimizer)]

    def owns(self, tensors: Tensor | Sequence[Tensor], *, leaves: bool = False) -> bool:
        """Whether a loss reaches them, or whether one of the tensors is one of them."""
        if leaves:
            return not self._owned.isdisjoint(map(id, [tensors] if isinstance(tensors, Tensor) else tensors))
        return graph.reaches(tensors, self._owned)

    def record_loss(self, value: Tensor) -> None:
        """Take the loss of the current step; several in one step are averaged."""
        if self.due:
            self.series.loss(self._train_column(), value)

    def before_step(self) -> None:
        """Read gradients, weights and hyper-parameters as the optimizer finds them."""
        if self.due:
            self.series.before_step(self._train_column(), self.optimizer)

    def after_step(self) -> None:
        """Read how far the weights moved, and end the step."""
        if self.series.moving:
            self.series.after_step(self._train_column())
        self.advance()

    def flush(self) -> None:
        """Move what waits into the columns."""
        self.outputs.flush()
        self.series.flush()

    def seen(self, row: int, module: nn.Module, inputs: Any, output: Any) -> None:
        """Read the output of the watched module in a row of the table."""
        training = self.root.training
        if (training and not self.due) or torch._C._current_graph_task_id() != -1:
            return
        if torch.compiler.is_compiling() or torch._C._is_tracing():
            return
        x = self.outputs.readable(row, output)
        if x is None:
            return
        if self.passes_are_steps and not self._in_pass and module is not self.root:
            self._outside = self._outside or training
            if self._passed and not training:
                self.advance()
        if training:
            column = self._column if self._column >= 0 else self._train_column()
        else:
            column = self._validation_column()
        self.outputs.read(x, row, column, module, inputs, training=training)

    def _adopt(self, optimizer: Any) -> None:
        self.series.adopt(optimizer)
        self.optimizer = optimizer

    def _train_column(self) -> int:
        if self._column < 0:
            if self.timeline.n == self.timeline.capacity:
                self.flush()  # columns are about to move
            self._column = self.timeline.open(self._step)
            self.snapshots.take(self._step)
        return self._column

    def _validation_column(self) -> int:
        if self._valid_column < 0:
            self.flush()
            self._valid_column = self.valid_timeline.open(self._step)
        return self._valid_column

    def _missing(self) -> Iterable[str | None]:
        """What was asked for and is not there."""
        gradients = self.series.params or (self.with_grads and self.optimizer == "auto")
        if gradients and self.timeline.n and not self.series.saw_gradient:
            yield (
                "gradients were asked for, but there were none at any optimizer step: is backward() called inside the "
                "block, and does this optimizer hold the model's parameters?"
            )
        yield from unseen.of_layers(self.root, self.outputs, self._called, self.step)
        if self._outside:
            yield (
                f"layers of {type(self.root).__name__} were called outside of a call of the model, which without an "
                "optimizer ends no step: call model(x), not model.forward(x) or its parts, or give the optimizer"
            )
        if self.with_loss and not self.by_hand and "loss" not in self.series.arrays(0):
            yield (
                "no loss was recorded: no backward() on a single number reached a parameter of this model; "
                "torch.autograd.grad is not seen"
            )
        yield unseen.of_idle(self.series.idle())
        yield unseen.of_changes(self.root, self.outputs)

    def _save(self, folder: Path) -> None:
        start = time.monotonic()
        try:
            self.history.save(folder)
        except (UsageError, RuntimeError, MemoryError) as error:
            if not self._save_failed:  # a full disk must not end a training, whose weights are worth more
                self._save_failed = True
                warnings.warn(f"{error}; it is kept in memory, and tried again (said once)", stacklevel=3)
        took = time.monotonic() - start
        self._save_at = start + max(SAVE_EVERY_S, 50 * took)

    def _reduce(self) -> None:
        import torch.distributed as dist

        if not (isinstance(self.model, nn.parallel.DistributedDataParallel) and dist.is_initialized()):
            return
        from pellucid.activations.ranks import pool_ranks

        readings = {self.timeline: self.outputs.train, self.valid_timeline: self.outputs.valid}
        pool_ranks(readings, self.series.tables, self.model.process_group)


def _is_compiled(model: nn.Module) -> bool:
    return any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())


def _say(messages: Iterable[str | None]) -> None:
    for message in filter(None, messages):
        warnings.warn(message, stacklevel=3)
