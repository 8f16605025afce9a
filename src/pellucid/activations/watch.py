"""Watch any model in any training loop: `with watch(model, optimizer=opt) as seen: …`.

Nothing is attached to the model: one hook of torch's on all modules looks up whether a module is watched, so copies and
pickles of the model know nothing of it. Outputs are read, never changed; no random number is drawn.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from pellucid.activations.columns import MAX_COLUMNS, Means, Readings, Timeline
from pellucid.activations.history import History, Layer, Section
from pellucid.activations.pictures import Pictures
from pellucid.activations.reading import FIRST_BIN, HIGH, LOW, M2, MEAN, RELU_MEAN, Count, read, rectified
from pellucid.activations.targets import Which, choose, is_activation, plain
from pellucid.errors import UsageError

FLUSH_EVERY = 50
SAVE_EVERY_S = 10.0
N_SNAPSHOTS = 64
_norms, _differences = torch._foreach_norm, torch._foreach_sub  # pyright: ignore[reportPrivateImportUsage]
SERIES = ("grad.norm", "grad.mean_abs", "grad.zero", "weight.norm", "update.ratio")


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
        optimizer: Its steps, hyper-parameters and gradients are recorded.
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
        self.model, self.optimizer = model, optimizer
        self.every, self.with_hist, self.with_loss = every, with_hist, loss
        self.folder = Path(folder) if folder is not None else None
        self.by_hand = by_hand
        self.root = plain(model)
        self.targets = choose(self.root, modules)
        self.rows = {id(module): row for row, module in enumerate(self.targets.values())}
        self.shapes: list[tuple[int, ...]] = [()] * len(self.targets)
        named = {id(p): name for name, p in self.root.named_parameters()}
        self.params = [p for p in _optimized(optimizer, self.root) if id(p) in named] if with_grads else []
        self.param_names = [named[id(p)] for p in self.params]
        self.hyper_rows: list[tuple[str, int]] = [
            (name, group) for group, values in enumerate(_groups(optimizer)) for name in _numbers(values)
        ]
        self.train, self.valid = Readings(len(self.rows), with_hist), Readings(len(self.rows), with_hist)
        self.series = Means(len(SERIES) * len(self.params) + 1 + len(self.hyper_rows))
        self.timeline = Timeline([self.train, self.series], capacity)
        self.valid_timeline = Timeline([self.valid], capacity)
        self.first_conv = next((m for m in self.root.modules() if isinstance(m, nn.Conv2d)), None)
        self.snapshots: list[tuple[int, Tensor]] = []
        self._snapshot_stride = 1
        self.step = 0
        self._column = self._valid_column = -1
        self._pending: list[tuple[Callable[[np.ndarray], None], Tensor]] = []
        self._last: tuple[Tensor, int, np.ndarray] | None = None
        self._weights: list[Tensor] = []
        self._ignored = False
        self._saw_gradient = False
        self._open: ExitStack | None = None
        self._save_at = time.monotonic() + SAVE_EVERY_S

    def __enter__(self) -> Watch:
        if self._open is not None:
            raise UsageError("this watch is open already; make a second one with watch() to watch the model twice")
        with ExitStack() as stack:
            if _is_compiled(self.model):
                warnings.warn("the model runs uncompiled while it is watched; its results are the same", stacklevel=2)
                stack.enter_context(torch.compiler.set_stance("force_eager"))
                stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are global hooks")
            _watches.append(self)
            stack.callback(_leave, self)
            _install()
            if self.optimizer is not None and not self.by_hand:
                stack.enter_context(_step_hooks(self.optimizer, self.before_step, self.after_step))
            self._open = stack.pop_all()
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: Any) -> None:
        stack, self._open = self._open, None
        if stack is not None:
            stack.close()
        self._last, self._weights = None, []
        self.flush()
        if failed is None:
            self._reduce()
            if self.params and self.timeline.n and not self._saw_gradient:
                warnings.warn(
                    "gradients were asked for, but there were none at any optimizer step: is backward() called inside "
                    "the block, and does this optimizer hold the model's parameters?",
                    stacklevel=2,
                )
        if self.folder is not None:
            self.history.save(self.folder)

    @property
    def history(self) -> History:
        """Everything recorded so far."""
        self.flush()
        n, n_params = self.timeline.n, len(self.params)
        values = self.series.values(n)
        blocks = {name: values[i * n_params : (i + 1) * n_params] for i, name in enumerate(SERIES) if n_params}
        loss_row = len(SERIES) * n_params
        if self.series.counts[loss_row].any():
            blocks["loss"] = values[loss_row]
        for name in dict.fromkeys(name for name, _ in self.hyper_rows):
            rows = [loss_row + 1 + i for i, (each, _) in enumerate(self.hyper_rows) if each == name]
            blocks[f"hyper.{name}"] = values[rows]
        layers = [
            Layer(name, type(module).__name__, shape, "activation" if is_activation(module) else "layer")
            for (name, module), shape in zip(self.targets.items(), self.shapes, strict=True)
        ]
        return History(
            layers,
            list(self.param_names),
            _section(self.timeline, self.train),
            _section(self.valid_timeline, self.valid),
            blocks,
            np.stack([k.cpu().float().numpy() for _, k in self.snapshots]) if self.snapshots else None,
            np.array([step for step, _ in self.snapshots], np.int64) if self.snapshots else None,
        )

    def advance(self) -> None:
        """End a training step."""
        self.step += 1
        self._column = self._valid_column = -1
        self._last = None
        if self.step % FLUSH_EVERY == 0:
            self.flush()
            self._save_if_due()

    def record_loss(self, value: Tensor) -> None:
        """Take the loss of the current step; several in one step are averaged."""
        if self._due:
            self._put(slice(len(SERIES) * len(self.params), len(SERIES) * len(self.params) + 1), value.detach())

    def before_step(self) -> None:
        """Read gradients and weights as the optimizer finds them."""
        if not self._due:
            return
        column = self._train_column()
        start = len(SERIES) * len(self.params) + 1
        groups = _groups(self.optimizer)
        for i, (name, group) in enumerate(self.hyper_rows):
            self.series.add(start + i, column, _numbers(groups[group]).get(name, np.nan))
        if self.params:
            self._saw_gradient |= any(p.grad is not None for p in self.params)
            self._gradients()

    def after_step(self) -> None:
        """Read how far the weights moved, and end the step."""
        if self._weights:
            with torch.no_grad():
                moved = _differences([p.detach() for p in self.params], self._weights)
                ratios = torch.stack(_norms(moved)) / torch.stack(_norms(self._weights))
            n = len(self.params)
            self._put(slice(4 * n, 5 * n), torch.nan_to_num(ratios, nan=0.0, posinf=0.0))
            self._weights = []
        self.advance()

    def flush(self) -> None:
        """Move what waits on the device into the columns, in one transfer."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = torch.cat([tensor.reshape(-1).double() for _, tensor in pending]).cpu().numpy()
        start = 0
        for take, tensor in pending:
            take(values[start : start + tensor.numel()])
            start += tensor.numel()

    @property
    def _due(self) -> bool:
        return self.step % self.every == 0

    def _seen(self, row: int, module: nn.Module, inputs: Any, output: Any) -> None:
        training = self.root.training
        if (training and not self._due) or torch._C._current_graph_task_id() != -1 or torch.compiler.is_compiling():
            return
        x = output if isinstance(output, Tensor) else _first_tensor(output)
        if x is None or not x.numel() or not _readable(x):
            self._ignore(row, x)
            return
        self.shapes[row] = tuple(x.shape[1:])
        column = self._train_column() if training else self._validation_column()
        table = self.train if training else self.valid
        source, self._last = self._last, None
        if isinstance(module, nn.ReLU) and source is not None and _undisturbed(source, inputs, module.inplace):
            table.add(row, column, rectified(source[2]))
            return
        reading = read(x, self.with_hist)
        if isinstance(reading, Tensor):
            self._pending.append((lambda values: table.add(row, column, values), reading))
            return
        table.add(row, column, reading)
        if reading[Count.NONFINITE] == 0 and not x.is_inference():
            self._last = x, x._version, reading

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

    def _gradients(self) -> None:
        n = len(self.params)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in self.params]
        grads = [g.coalesce().to_dense() if g.is_sparse else g for g in grads]
        with torch.no_grad():
            self._weights = [p.detach().clone() for p in self.params]
            sizes = torch.tensor([float(p.numel()) for p in self.params], device=grads[0].device)
            mean_abs = torch.stack(_norms(grads, 1)) / sizes
            zeros = 1 - torch.stack([g.count_nonzero() for g in grads]) / sizes
            values = [torch.stack(_norms(grads)), mean_abs, zeros]
            values.append(torch.stack(_norms(self._weights)))
        self._put(slice(0, 4 * n), torch.cat(values))

    def _put(self, rows: slice, values: Tensor) -> None:
        column = self._train_column()
        self._pending.append((lambda array: self.series.add(rows, column, array), values))

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
            what = "no tensor" if x is None else f"{'empty ' * (not x.numel())}{x.dtype} output"
            name = list(self.targets)[row]
            warnings.warn(f"layer {name} gives {what}: such outputs are not recorded (said once)", stacklevel=2)

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
        group = self.model.process_group
        for table, timeline in ((self.train, self.timeline), (self.valid, self.valid_timeline)):
            _reduce_readings(table.cells[:, : timeline.n], group)
        for array in (self.series.sums, self.series.counts):
            _all_reduce(array, dist.ReduceOp.SUM, group)


_watches: list[Watch] = []
_hook: Any = None
_backward: Any = None


def _install() -> None:
    global _hook, _backward
    if _hook is None:
        _hook = register_module_forward_hook(_forward)
    if _backward is None and any(w.with_loss and not w.by_hand for w in _watches):
        _backward = torch.autograd.backward
        torch.autograd.backward = _recording_backward


def _leave(watch: Watch) -> None:
    global _hook, _backward
    _watches.remove(watch)
    if not _watches and _hook is not None:
        _hook.remove()
        _hook = None
    if _backward is not None and not any(w.with_loss and not w.by_hand for w in _watches):
        torch.autograd.backward, _backward = _backward, None


def _forward(module: nn.Module, inputs: Any, output: Any) -> None:
    for watch in _watches:
        row = watch.rows.get(id(module))
        if row is not None:
            watch._seen(row, module, inputs, output)
        counts_passes = module is watch.root and watch.optimizer is None and not watch.by_hand
        if counts_passes and module.training and torch._C._current_graph_task_id() == -1:
            watch.advance()


def _recording_backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(tensors, Tensor) and tensors.numel() == 1:
        for watch in _watches:
            if watch.with_loss and not watch.by_hand:
                watch.record_loss(tensors)
    return _backward(tensors, *args, **kwargs)


class _step_hooks:
    """Call functions before and after each step of a torch optimizer, or of any object with a `step` method."""

    def __init__(self, optimizer: Any, before: Callable[[], None], after: Callable[[], None]):
        self.optimizer, self.before, self.after = optimizer, before, after

    def __enter__(self) -> None:
        opt = self.optimizer
        if isinstance(opt, torch.optim.Optimizer):
            pre = opt.register_step_pre_hook(lambda *_: self.before())
            post = opt.register_step_post_hook(lambda *_: self.after())
            self.remove = lambda: (pre.remove(), post.remove())
            return
        step = opt.step

        def observed(*args: Any, **kwargs: Any) -> Any:
            self.before()
            result = step(*args, **kwargs)
            self.after()
            return result

        opt.step = observed
        self.remove = lambda: delattr(opt, "step")

    def __exit__(self, *_: Any) -> None:
        self.remove()


def _groups(optimizer: Any) -> list[Mapping[str, Any]]:
    if optimizer is None:
        return []
    return list(getattr(optimizer, "param_groups", None) or getattr(optimizer, "hypers", []))


def _numbers(group: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in group.items():
        if name == "betas":
            found |= {"mom": float(value[0]), "sqr_mom": float(value[1])}
        elif isinstance(value, int | float) and not isinstance(value, bool) and name not in ("params", "group"):
            found[{"momentum": "mom", "weight_decay": "wd"}.get(name, name)] = float(value)
    return found


def _optimized(optimizer: Any, model: nn.Module) -> list[nn.Parameter]:
    held = {id(p) for group in getattr(optimizer, "param_groups", []) for p in group.get("params", [])}
    return [p for p in model.parameters() if p.requires_grad and (not held or id(p) in held) and p.is_floating_point()]


def _is_compiled(model: nn.Module) -> bool:
    return any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())


def _first_tensor(output: Any) -> Tensor | None:
    return next((x for x in _tensors(output) if x.is_floating_point()), next(_tensors(output), None))


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)
    elif is_dataclass(output):
        for each in fields(output):
            yield from _tensors(getattr(output, each.name))


def _readable(x: Tensor) -> bool:
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(x)  # pyright: ignore[reportAttributeAccessIssue]
    return x.is_floating_point() and x.layout is torch.strided and not x.is_meta and not wrapped


def _undisturbed(source: tuple[Tensor, int, np.ndarray], inputs: Any, inplace: bool) -> bool:
    """Whether a ReLU was given the very tensor that was just read, unchanged."""
    tensor, version, _ = source
    return bool(inputs) and inputs[0] is tensor and tensor._version == version + inplace


def _section(timeline: Timeline, table: Readings) -> Section:
    n = timeline.n
    cells = table.cells[:, :n]
    count = cells[..., Count.N]
    unseen = np.where(count > 0, 0, np.nan)

    def moment(values: np.ndarray) -> np.ndarray:
        return (np.where(np.isfinite(values), values, 0) + unseen).astype(np.float32)

    def whole(place: Count) -> np.ndarray:
        return cells[..., place].astype(np.int64)

    return Section(
        steps=timeline.spans[:n].copy(),
        count=whole(Count.N),
        mean=moment(cells[..., MEAN]),
        std=moment(np.sqrt(cells[..., M2] / np.maximum(count - 1, 1))),
        min=moment(cells[..., LOW]),
        max=moment(cells[..., HIGH]),
        near_zero=whole(Count.NEAR_ZERO),
        near_zero_abs=whole(Count.NEAR_ZERO_ABS),
        zero=whole(Count.ZERO),
        nonfinite=whole(Count.NONFINITE),
        underflow=whole(Count.UNDER),
        overflow=whole(Count.OVER),
        hist=cells[..., FIRST_BIN:].astype(np.int64) if table.with_hist else None,
    )


def _reduce_readings(cells: np.ndarray, group: Any) -> None:
    """Pool readings over the ranks in place: counts add, deviations are taken about the common mean."""
    import torch.distributed as dist

    low, high = cells[..., LOW].copy(), cells[..., HIGH].copy()
    _all_reduce(low, dist.ReduceOp.MIN, group)
    _all_reduce(high, dist.ReduceOp.MAX, group)
    own_n, own = cells[..., Count.N].copy(), cells.copy()
    totals = cells[..., Count.N :].copy()
    _all_reduce(totals, dist.ReduceOp.SUM, group)
    n = np.maximum(totals[..., 0], 1)
    for mean in (MEAN, RELU_MEAN):
        common = own[..., mean] * own_n
        _all_reduce(common, dist.ReduceOp.SUM, group)
        common /= n
        deviations = own[..., mean + 1] + own_n * (own[..., mean] - common) ** 2
        _all_reduce(deviations, dist.ReduceOp.SUM, group)
        cells[..., mean], cells[..., mean + 1] = common, deviations
    cells[..., LOW], cells[..., HIGH], cells[..., Count.N :] = low, high, totals


def _all_reduce(array: np.ndarray, op: Any, group: Any) -> None:
    import torch.distributed as dist

    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device)
    dist.all_reduce(tensor, op, group)
    array[...] = tensor.cpu().numpy()
