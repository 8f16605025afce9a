"""What is recorded of a model, under the training steps it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from pellucid.activations.columns import Timeline
from pellucid.activations.outputs import Outputs
from pellucid.activations.sections import section
from pellucid.activations.series import Series
from pellucid.activations.snapshots import Snapshots
from pellucid.activations.targets import Which, choose
from pellucid.history.history import History

FLUSH_EVERY = 50  # steps
PARTS = ("train", "valid", "outputs", "series", "snapshots")  # attributes with a state of their own


class Recording:
    """The tables of a watch, and the step they are at; who ends the steps is another's business.

    Attributes:
        model: The model, without a wrapper.
        outputs: Of its layers.
        series: Of losses, gradients and hyper-parameters.
        optimizer: Whose hyper-parameters and parameters are read; None before `adopt`.
        step: Training steps that have ended.
        due: Whether the current step is recorded.
        train, valid: Which steps each column covers.
        train_column, valid_column: Those of the current step and validation pass.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Which | Sequence[Which] | None,
        *,
        every: int,
        with_hist: bool,
        with_grads: bool,
        with_hypers: bool,
        capacity: int,
        on_flush: Callable[[], None] | None,
    ):
        self.model, self.every = model, every
        self.outputs = Outputs(choose(model, modules), with_hist)
        self.series = Series(model, with_grads, with_hypers)
        self.optimizer: Any = None
        self.train = Timeline([self.outputs.train, *self.series.tables], capacity)
        self.valid = Timeline([self.outputs.valid], capacity)
        self.snapshots = Snapshots(model, every)
        self.step, self.due, self._on_flush = 0, True, on_flush
        self.train_column = self.valid_column = -1  # none is open before something is read: a step may not be due

    def adopt(self, optimizer: Any) -> None:
        """Read this optimizer from now on."""
        self.series.adopt(optimizer)
        self.optimizer = optimizer

    def loss(self, value: Tensor) -> None:
        """Take the loss of the current step; several in one step are averaged."""
        if self.due:
            self.series.loss(self.open_train(), value)

    def before_step(self) -> None:
        """Read gradients, weights and hyper-parameters as the optimizer finds them."""
        if self.due:
            self.series.before_step(self.open_train(), self.optimizer)

    def after_step(self) -> None:
        """Read how far the weights moved, and end the step."""
        if self.series.moving:
            self.series.after_step(self.open_train())
        self.end_step()

    def end_step(self) -> None:
        """Go on to the next training step."""
        self.step += 1
        self.due = self.step % self.every == 0
        self.train_column = self.valid_column = -1
        self.outputs.forget_last()
        if self.step % FLUSH_EVERY == 0:
            self.flush()
            if self._on_flush is not None:
                self._on_flush()

    def skip_step(self) -> None:
        """Go on to the next training step after one of which nothing was read."""
        self.step += 1
        self.due = self.step % self.every == 0

    def open_train(self) -> int:
        """The column of the current training step."""
        if self.train_column < 0:
            if self.train.n == self.train.capacity:
                self.flush()  # columns are about to merge: what waits is addressed by the old ones
            self.train_column = self.train.open(self.step)
            self.snapshots.take(self.step)
        return self.train_column

    def open_valid(self) -> int:
        """The column of the validation pass after the current training step."""
        if self.valid_column < 0:
            self.flush()
            self.valid_column = self.valid.open(self.step)
        return self.valid_column

    def flush(self) -> None:
        """Move what waits into the columns."""
        self.outputs.flush()
        self.series.flush()

    def state_dict(self) -> dict[str, Any]:
        """Everything recorded so far, between two steps, to be kept in a file."""
        self.flush()
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        return {**parts, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the recording of the same model was."""
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.go_on_at(state["step"])

    def go_on_at(self, step: int) -> None:
        """Take the next step for this one."""
        self.step, self.due = step, step % self.every == 0
        self.train_column = self.valid_column = -1

    def pool(self, group: Any) -> None:
        """Make one record of those of all ranks of a process group."""
        from pellucid.activations.ranks import pool_ranks

        pool_ranks({self.train: self.outputs.train, self.valid: self.outputs.valid}, self.series.tables, group)

    def history(self) -> History:
        """Everything recorded so far."""
        self.flush()
        kernels, kernel_steps = self.snapshots.arrays()
        return History(
            self.outputs.layers(),
            list(self.series.params),
            section(self.train, self.outputs.train),
            section(self.valid, self.outputs.valid),
            {"step": self.train.spans[: self.train.n, 1].copy()} | self.series.arrays(self.train.n),
            kernels,
            kernel_steps,
        )
