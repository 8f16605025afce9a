"""Look inside the model while it trains: `ActivationStats`, and hooks that go away by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pellucid.activations.hook import HookFunc, Hooks, has_params
from pellucid.activations.lists import Lists
from pellucid.activations.targets import Which
from pellucid.errors import UsageError
from pellucid.history.history import History
from pellucid.history.pictures import Pictures
from pellucid.text import counted
from pellucid.training.callbacks.core import Callback
from pellucid.training.watched import WatchOfLearner


class HookCallback(Callback):
    """Put a hook on modules for the time of each fit; override `hook(module, input, output)`, or give it.

    Args:
        modules: Where; None takes the innermost modules with parameters.
        every: Hooks are there at every n-th training batch only; None at all batches, validation too.
        remove_end: Take the hooks off after the fit.
        is_forward, detach, cpu: As of `Hook`.
        include_paramless: With None for `modules`, take the innermost modules without parameters too.
        hook: A function (module, input, output) → what to store, for a callback without a class.

    Attributes:
        hooks: The `Hooks`; `hooks.stored` has the last results.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module] | None = None,
        every: int | None = None,
        remove_end: bool = True,
        is_forward: bool = True,
        detach: bool = True,
        cpu: bool = True,
        include_paramless: bool = False,
        *,
        hook: HookFunc | None = None,
    ):
        self.modules, self.every, self.remove_end = modules, every, remove_end
        self.is_forward, self.detach, self.cpu = is_forward, detach, cpu
        self.include_paramless = include_paramless
        self.hooks: Hooks | None = None
        if hook is not None:
            self.hook = hook  # pyright: ignore[reportAttributeAccessIssue]

    def hook(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """What to store of a call."""
        raise NotImplementedError(f"{type(self).__name__} must define hook(module, input, output)")

    def before_fit(self) -> None:
        if self.every is None:
            self._register()

    def before_batch(self) -> None:
        if self.every is not None and self.learn.training and self.learn.train_iter % self.every == 0:
            self._register()

    def after_batch(self) -> None:
        if self.every is not None:
            self.remove()

    def cleanup_fit(self) -> None:
        if self.remove_end:
            self.remove()

    def remove(self) -> None:
        """Take the hooks off; what they stored stays."""
        if self.hooks is not None:
            self.hooks.remove()

    def _register(self) -> None:
        self.remove()
        modules = self.modules
        if modules is None:
            innermost = [m for m in self.learn.model.modules() if not list(m.children())]
            modules = [m for m in innermost if self.include_paramless or has_params(m)]
        self.hooks = Hooks(modules, self.hook, self.is_forward, self.detach, self.cpu)


class ActivationStats(Callback, Pictures, Lists):
    """Record what every layer outputs in each training batch: mean, standard deviation, share near zero, histogram.

    Layers are those with parameters, before their activation function; activation functions of `torch.nn` are recorded
    beside them under their own names. Statistics of the last fit stay until the next one.

    Args:
        with_hist: Record histograms, which `color_dim` needs.
        modules: Names, patterns, classes, modules or a predicate; None takes all.
        every: Record every n-th batch; None every one.
        with_grads: Record gradients, weights and updates.
        folder: Keep `history.safetensors` there up to date, about every ten seconds.
    """

    order = 45

    def __init__(
        self,
        with_hist: bool = False,
        modules: Which | Sequence[Which] | None = None,
        every: int | None = 1,
        *,
        with_grads: bool = False,
        folder: str | Path | None = None,
    ):
        self.with_hist, self.modules, self.every, self.with_grads = with_hist, modules, every or 1, with_grads
        self.folder = folder
        self.watch: WatchOfLearner | None = None
        self._ended_well = False

    def __repr__(self) -> str:
        if self.watch is None:
            return "ActivationStats: nothing recorded yet"
        history = self.history
        n, last = len(history.layers), int(history.train.steps[-1, 1]) if len(history.train.steps) else 0
        return f"ActivationStats: {counted(n, 'layer')} over {last:,} training batches"

    @property
    def history(self) -> History:
        """Everything recorded in the last fit.

        Raises:
            UsageError: there was none yet.
        """
        if self.watch is None:
            raise UsageError("nothing was recorded yet: train at least one batch first")
        return self.watch.history

    def before_fit(self) -> None:
        self._ended_well = False
        watch = WatchOfLearner(
            self.learn,
            modules=self.modules,
            every=self.every,
            with_hist=self.with_hist,
            with_grads=self.with_grads,
            folder=self.folder,
        )
        self.watch = watch.start()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.watch is None else self.watch.recording.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self.watch is not None
        self.watch.recording.load_state_dict(state)

    def after_loss(self) -> None:
        if self.learn.training and self.watch is not None and self.watch.keeps_losses:
            self.watch.recording.loss(self.learn.loss)

    def before_step(self) -> None:
        assert self.watch is not None
        self.watch.recording.before_step()

    def after_batch(self) -> None:
        if self.learn.training and self.watch is not None:
            self.watch.recording.after_step()

    def after_fit(self) -> None:
        self._ended_well = True

    def cleanup_fit(self) -> None:
        if self.watch is not None:
            self.watch.stop(failed=not self._ended_well)
