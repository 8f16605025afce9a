"""What the watched modules output, read as they are called and kept per column."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

from pellucid.activations.columns import Readings
from pellucid.activations.inbox import Inbox
from pellucid.activations.targets import first_tensor, is_activation, is_readable, kind
from pellucid.history.record import Layer


class Outputs:
    """Readings of the outputs of modules, a row each.

    Attributes:
        targets: Name → module.
        rows: The row of each module, by identity.
        train, valid: The tables.
        ignored: What the outputs are that cannot be recorded, by row.
    """

    def __init__(self, targets: dict[str, nn.Module], with_hist: bool):
        self.targets = targets
        self.rows = {id(module): row for row, module in enumerate(targets.values())}
        self.train, self.valid = Readings(len(targets), with_hist), Readings(len(targets), with_hist)
        self.ignored: dict[int, str] = {}
        self._shapes: list[tuple[int, ...]] = [()] * len(targets)
        self._inbox = Inbox(with_hist)
        self._last: tuple[Tensor, int, int] | None = None

    def readable(self, row: int, output: Any) -> Tensor | None:
        """The tensor to read in an output; None, with one warning for all, if there is none."""
        x = output if isinstance(output, Tensor) else first_tensor(output)
        if x is not None and is_readable(x) and x.numel():
            return x
        if row not in self.ignored:
            what = "no tensor" if x is None else f"{'empty ' * (is_readable(x))}{kind(x)} output"
            if not self.ignored:
                name = list(self.targets)[row]
                warnings.warn(f"layer {name} gives {what}: such outputs are not recorded (said once)", stacklevel=2)
            self.ignored[row] = what
        return None

    def read(self, x: Tensor, row: int, column: int, module: nn.Module, inputs: Any, *, training: bool) -> None:
        """Read an output into a column of one of the tables."""
        if not self._shapes[row] and not x.is_nested:
            self._shapes[row] = tuple(x.shape[1:])
        table = self.train if training else self.valid
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

    def forget_last(self) -> None:
        """Let go of the last output: nothing is derived from it any more."""
        self._last = None

    def flush(self) -> None:
        """Move what waits into the columns."""
        self._inbox.empty()

    def state_dict(self) -> dict[str, Any]:
        """The tables, to be kept in a file; nothing may wait."""
        ignored = {str(row): what for row, what in self.ignored.items()}
        return {"train": self.train.cells, "valid": self.valid.cells, "shapes": self._shapes, "ignored": ignored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where others of the same layers were."""
        self.train.cells, self.valid.cells = state["train"], state["valid"]
        self._shapes = list(state["shapes"])
        self.ignored = {int(row): what for row, what in state["ignored"].items()}

    def layers(self) -> list[Layer]:
        """The modules as a history lists them."""
        return [
            Layer(name, type(module).__name__, shape, "activation" if is_activation(module) else "layer")
            for (name, module), shape in zip(self.targets.items(), self._shapes, strict=True)
        ]


def _undisturbed(source: tuple[Tensor, int, int], inputs: Any, inplace: bool) -> bool:
    """Whether a ReLU was given the very tensor that was just read, unchanged."""
    tensor, version, _ = source
    return bool(inputs) and inputs[0] is tensor and tensor._version == version + inplace
