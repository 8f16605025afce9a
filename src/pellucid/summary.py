"""The layer table: shapes, parameters and multiplications of every layer of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WIDTHS = (20, 20, 12, 10, 16)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer.

    Attributes:
        kind: Class name of the module.
        shape: Output shape, batch first.
        n_params: Weights and biases; zero when an earlier row has already counted the same module.
        trainable: Whether it has parameters that are trained.
        n_multiplications: Multiplications by weights per image, counted over the output grid.
    """

    kind: str
    shape: tuple[int, ...]
    n_params: int
    trainable: bool
    n_multiplications: int


@dataclass(frozen=True)
class ModelSummary:
    """The layer table of a model; `str()` gives it as text.

    Attributes:
        name: Class name of the model.
        input_shape: Shape of the batch it was run on.
        rows: Its layers in order of their calls.
        n_params: Parameters of the whole model, each counted once, whichever module holds them.
        n_trainable: Those that are trained.
        notes: Lines below the totals (optimizer, loss, callbacks).
    """

    name: str
    input_shape: tuple[int, ...]
    rows: list[LayerRow]
    n_params: int
    n_trainable: int
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        rule = "=" * sum(WIDTHS)
        lines = [f"{self.name} (Input shape: ['{_by(self.input_shape)}'])", rule]
        lines += [_line("Layer (type)", "Output Shape", "Param #", "Trainable", "Multiplications"), rule]
        for row in self.rows:
            counts = f"{row.n_params:,}", str(row.trainable), f"{row.n_multiplications:,}"
            lines.append(_line(row.kind, _by(row.shape), *counts))
        total = sum(row.n_multiplications for row in self.rows)
        lines += [rule, f"Total params: {self.n_params:,}", f"Total trainable params: {self.n_trainable:,}"]
        lines += [f"Total non-trainable params: {self.n_params - self.n_trainable:,}"]
        lines += [f"Total multiplications per image: {total:,}", *self.notes]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def summarize(model: nn.Module, xb: Tensor, notes: Sequence[str] = ()) -> ModelSummary:
    """Run `model` on a batch in evaluation mode and tabulate its layers; the model stays as it was.

    Args:
        model: Any module.
        xb: A batch it accepts, batch axis first.
        notes: Lines to add below the totals.
    """
    rows: list[LayerRow] = []
    counted: set[int] = set()

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            parameters = [p for p in module.parameters() if id(p) not in counted and not counted.add(id(p))]
            n_params = sum(p.numel() for p in parameters)
            trainable = any(p.requires_grad for p in module.parameters())
            rows.append(
                LayerRow(
                    type(module).__name__,
                    tuple(output.shape),
                    n_params,
                    trainable,
                    multiplications(module, inputs[0], output),
                )
            )

    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(record) for module in leaves]
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(xb)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    parameters = list(model.parameters())
    n_trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return ModelSummary(
        type(model).__name__, tuple(xb.shape), rows, sum(p.numel() for p in parameters), n_trainable, notes
    )


def multiplications(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """Multiplications by weights that one image costs in this layer; zero for layers other than linear and convolution.

    A convolution applies its out · in/groups · k · k weights once per position of the output grid. (The chapter counts
    the positions of the input grid, which is four times as many at stride 2.) A transposed one does so per input
    position, a linear layer once.
    """
    if isinstance(module, CONVOLUTIONS):
        return module.weight.numel() * output[0, 0].numel()
    if isinstance(module, TRANSPOSED):
        return module.weight.numel() * x[0, 0].numel()
    if isinstance(module, nn.Linear):
        return module.weight.numel() * (output[0].numel() // module.out_features)
    return 0


def _line(*cells: str) -> str:
    return "".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
