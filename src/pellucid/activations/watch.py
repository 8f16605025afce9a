"""Watch any model in any training loop: `with watch(model, optimizer=opt) as seen: …`.

Nothing is attached to the model: one hook of torch's on all modules looks up whether a module is watched, so copies and
pickles of the model know nothing of it. Outputs are read, never changed; no random number is drawn.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.activations import global_hooks
from pellucid.activations.columns import MAX_COLUMNS, Means, Readings, Timeline
from pellucid.activations.history import History, Layer
from pellucid.activations.inbox import Inbox
from pellucid.activations.parameters import AFTER, BEFORE, Parameters
from pellucid.activations.pictures import Pictures
from pellucid.activations.sections import section
from pellucid.activations.steps import first_step_hooks, hypers, step_hooks, trained, unwrapped
from pellucid.activations.targets import Which, choose, first_tensor, is_activation, is_readable, kind, plain
from pellucid.activations.vector import Count
from pellucid.errors import UsageError

FLUSH_EVERY = 50
SAVE_EVERY_S = 10.0
N_SNAPSHOTS = 64


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
        loss: Record the value `backward()` is called on.
        modules: Names, patterns, classes, modules or a predicate; None takes all layers with parameters and all
            activation functions of `torch.nn`.
        every: Record every n-th step.
        with_hist: Record histograms, 1.4 MB a layer when all 2,048 columns are used.
        with_grads: Record gradients, weights and updates; None does if there is an optimizer.
        folder: Keep `history.safetensors` there up to date, about every ten seconds.

    Raises:
        UsageError: nothing to watch, or gradients are asked for without an optimizer.
    """
    if isinstance(optimizer, str) and optimizer != "auto":
        raise UsageError(f"optimizer={optimizer!r}: give the optimizer itself, or 'auto' where a trainer makes it")
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
        step: Training steps so far.
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
        self.every, self.with_hist, self.with_loss, self.with_grads = every, with_hist, loss, with_grads
        self.folder = Path(folder) if folder is not None else None
        self.by_hand = by_hand
        self.root = plain(model)
        self.targets = choose(self.root, modules)
        self.rows = {id(module): row for row, module in enumerate(self.targets.values())}
        self.shapes: list[tuple[int, ...]] = [()] * len(self.targets)
        self.param_names: list[str] = []
        self.parameters, self.hyper_rows = Parameters([]), list(hypers(None))
        self.train, self.valid = Readings(len(self.rows), with_hist), Readings(len(self.rows), with_hist)
        self._loss_row, self.series = 0, Means(1)
        self.timeline = Timeline([self.train, self.series], capacity)
        self.valid_timeline = Timeline([self.valid], capacity)
        self.first_conv = next((m for m in self.root.modules() if isinstance(m, nn.Conv2d)), None)
        self.snapshots: list[tuple[int, Tensor]] = []
        self._snapshot_stride = 1
        self.step, self._due = 0, True
        self._column = self._valid_column = -1
        self._inbox = Inbox(with_hist)
        self._pending: list[tuple[slice, int, Tensor]] = []
        self._last: tuple[Tensor, int, int] | None = None
        self._moving = self._ignored = False
        self._saw_gradient = False
        self._open: ExitStack | None = None
        self._save_at = time.monotonic() + SAVE_EVERY_S
        if self.optimizer is not None and self.optimizer != "auto":
            self._adopt(self.optimizer)

    def __enter__(self) -> Watch:
        if self._open is not None:
            raise UsageError("this watch is open already; make a second one with watch() to watch the model twice")
        with ExitStack() as stack:
            if _is_compiled(self.model):
                warnings.warn("the model runs uncompiled while it is watched; its results are the same", stacklevel=2)
                stack.enter_context(torch.compiler.set_stance("force_eager"))
                stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are global hooks")
            global_hooks.attach(self)
            stack.callback(global_hooks.detach, self)
            if self.optimizer is not None and not self.by_hand:
                around = self.before_step, self.after_step
                auto = self.optimizer == "auto"
                stack.enter_context(
                    first_step_hooks(self.root, self._adopt, *around) if auto else step_hooks(self.optimizer, *around)
                )
            self._open = stack.pop_all()
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: Any) -> None:
        stack, self._open = self._open, None
        if stack is not None:
            stack.close()
        self._last = None
        self.flush()
        if failed is None:
            self._reduce()
            self._say_what_is_missing()
        if self.folder is not None:
            self.history.save(self.folder)

    @property
    def history(self) -> History:
        """Everything recorded so far."""
        self.flush()
        n, n_params = self.timeline.n, len(self.param_names)
        values = self.series.values(n)
        names = (*BEFORE, AFTER)
        series = {name: values[i * n_params : (i + 1) * n_params] for i, name in enumerate(names) if n_params}
        if self.series.counts[self._loss_row].any():
            series["loss"] = values[self._loss_row]
        for name in dict.fromkeys(name for name, _ in self.hyper_rows):
            rows = [self._loss_row + 1 + i for i, (each, _) in enumerate(self.hyper_rows) if each == name]
            series[f"hyper.{name}"] = values[rows]
        layers = [
            Layer(name, type(module).__name__, shape, "activation" if is_activation(module) else "layer")
            for (name, module), shape in zip(self.targets.items(), self.shapes, strict=True)
        ]
        return History(
            layers,
            list(self.param_names),
            section(self.timeline, self.train),
            section(self.valid_timeline, self.valid),
            series,
            np.stack([k.cpu().float().numpy() for _, k in self.snapshots]) if self.snapshots else None,
            np.array([step for step, _ in self.snapshots], np.int64) if self.snapshots else None,
        )

    def advance(self) -> None:
        """End a training step."""
        self.step += 1
        self._due = self.step % self.every == 0
        self._column = self._valid_column = -1
        self._last = None
        if self.step % FLUSH_EVERY == 0:
            self.flush()
            self._save_if_due()

    def record_loss(self, value: Tensor) -> None:
        """Take the loss of the current step; several in one step are averaged."""
        if self._due:
            self._put(slice(self._loss_row, self._loss_row + 1), value.detach())

    def before_step(self) -> None:
        """Read gradients, weights and hyper-parameters as the optimizer finds them."""
        if not self._due:
            return
        found = hypers(self.optimizer)
        rows, numbers = [], []
        for row, hyper in enumerate(self.hyper_rows, self._loss_row + 1):
            number = found.get(hyper, np.nan)
            if isinstance(number, Tensor):
                self._put(slice(row, row + 1), number.detach())
            else:
                rows.append(row)
                numbers.append(number)
        self.series.add(rows, self._train_column(), numbers)
        if self.param_names:
            self._saw_gradient = self._saw_gradient or any(p.grad is not None for p in self.parameters.params)
            self._put(slice(len(BEFORE) * len(self.param_names)), self.parameters.before())
            self._moving = True

    def after_step(self) -> None:
        """Read how far the weights moved, and end the step."""
        if self._moving:
            self._moving = False
            n = len(self.param_names)
            self._put(slice(len(BEFORE) * n, (len(BEFORE) + 1) * n), self.parameters.after())
        self.advance()

    def flush(self) -> None:
        """Move what waits into the columns, in one transfer."""
        self._inbox.empty()
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = torch.cat([tensor.reshape(-1).double() for *_, tensor in pending]).cpu().numpy()
        start = 0
        for rows, column, tensor in pending:
            self.series.add(rows, column, values[start : start + tensor.numel()])
            start += tensor.numel()

    def seen(self, row: int, module: nn.Module, inputs: Any, output: Any) -> None:
        """Read the output of the watched module in a row of the table."""
        training = self.root.training
        if (training and not self._due) or torch._C._current_graph_task_id() != -1 or torch.compiler.is_compiling():
            return
        x = output if isinstance(output, Tensor) else first_tensor(output)
        if x is None or not x.numel() or not is_readable(x):
            self._ignore(row, x)
            return
        if not self.shapes[row]:
            self.shapes[row] = tuple(x.shape[1:])
        if training:
            table, column = self.train, self._column if self._column >= 0 else self._train_column()
        else:
            table, column = self.valid, self._validation_column()
        if self._inbox.full:
            self.flush()
            self._last = None
        source, self._last = self._last, None
        if source is not None and type(module) is nn.ReLU and _undisturbed(source, inputs, module.inplace):
            self._inbox.take_rectified(source[2], table, row, column)
            return
        slot = self._inbox.take(x, table, row, column)
        if slot is not None and not x.is_inference():
            self._last = x, x._version, slot

    def _adopt(self, optimizer: Any) -> None:
        self.flush()
        params = trained(optimizer, self.root) if self.with_grads else {}
        self.optimizer, self.hyper_rows = optimizer, list(hypers(optimizer))
        self.param_names, self.parameters = list(params), Parameters(list(params.values()))
        self._loss_row = (len(BEFORE) + 1) * len(params)
        self.series.pad_rows(self._loss_row, len(self.hyper_rows))

    def _train_column(self) -> int:
        if self._column < 0:
            if self.timeline.n == self.timeline.capacity:
                self.flush()  # columns are about to move
            self._column = self.timeline.open(self.step)
            self._snapshot()
        return self._column

    def _validation_column(self) -> int:
        if self._valid_column < 0:
            self.flush()
            self._valid_column = self.valid_timeline.open(self.step)
        return self._valid_column

    def _put(self, rows: slice, values: np.ndarray | Tensor) -> None:
        column = self._train_column()
        if isinstance(values, Tensor):
            self._pending.append((rows, column, values))
        else:
            self.series.add(rows, column, values.reshape(-1))

    def _snapshot(self) -> None:
        if self.first_conv is None or self.step % (self._snapshot_stride * self.every):
            return
        if len(self.snapshots) == N_SNAPSHOTS:
            self.snapshots, self._snapshot_stride = self.snapshots[::2], 2 * self._snapshot_stride
            if self.step % (self._snapshot_stride * self.every):
                return
        self.snapshots.append((self.step, self.first_conv.weight.detach().clone()))

    def _ignore(self, row: int, x: Tensor | None) -> None:
        if not self._ignored:
            self._ignored = True
            what = "no tensor" if x is None else f"{'empty ' * (not x.numel())}{kind(x)} output"
            name = list(self.targets)[row]
            warnings.warn(f"layer {name} gives {what}: such outputs are not recorded (said once)", stacklevel=2)

    def _say_what_is_missing(self) -> None:
        gradients = self.param_names or (self.with_grads and self.optimizer == "auto")
        tables, missing = (self.train, self.valid), []
        if gradients and self.timeline.n and not self._saw_gradient:
            missing.append(
                "gradients were asked for, but there were none at any optimizer step: is backward() called inside the "
                "block, and does this optimizer hold the model's parameters?"
            )
        if self.step and not self._ignored and not any(t.cells[..., Count.N : Count.NEAR_ZERO].any() for t in tables):
            missing.append(
                f"no watched layer of {type(self.root).__name__} was called in {self.step} steps: is this the model "
                "that trains? A function compiled by torch.compile hides the layers it calls; compile the model instead"
            )
        for message in missing:
            warnings.warn(message, stacklevel=3)

    def _save_if_due(self) -> None:
        if self.folder is None or time.monotonic() < self._save_at:
            return
        start = time.monotonic()
        self.history.save(self.folder)
        took = time.monotonic() - start
        self._save_at = start + max(SAVE_EVERY_S, 50 * took)

    def _reduce(self) -> None:
        import torch.distributed as dist

        if not (isinstance(self.model, nn.parallel.DistributedDataParallel) and dist.is_initialized()):
            return
        from pellucid.activations.ranks import all_reduce, common_columns, reduce_readings

        group = self.model.process_group
        for timeline in (self.timeline, self.valid_timeline):
            timeline.spread(*common_columns(timeline.spans[: timeline.n], group))
        for table, timeline in ((self.train, self.timeline), (self.valid, self.valid_timeline)):
            reduce_readings(table.cells[:, : timeline.n], group)
        for array in (self.series.sums, self.series.counts):
            all_reduce(array, dist.ReduceOp.SUM, group)


def _is_compiled(model: nn.Module) -> bool:
    return any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())


def _undisturbed(source: tuple[Tensor, int, int], inputs: Any, inplace: bool) -> bool:
    """Whether a ReLU was given the very tensor that was just read, unchanged."""
    tensor, version, _ = source
    return bool(inputs) and inputs[0] is tensor and tensor._version == version + inplace
