"""Fields measured by gradients, for models that cannot be followed and for what a unit listens to on real images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.convolution.fields.graph import as_type_of, output_of, refused
from pellucid.convolution.fields.units import LayerField, checked_position
from pellucid.errors import UsageError
from pellucid.inspection.looking import looking
from pellucid.inspection.lookup import CallNames
from pellucid.inspection.runner import each_call

N_NOISE = 16


class Measured:
    """Fields of a model that is a black box: the pixels whose gradient differs from zero on images of noise."""

    def __init__(self, model: nn.Module, input_size: tuple[int, ...]) -> None:
        self.image_shape = input_size[1:]
        noise = torch.randn(N_NOISE, *input_size, generator=torch.Generator().manual_seed(0), device="cpu")
        self.images = as_type_of(model, noise).requires_grad_()
        self.call_name = CallNames()
        self.kinds: dict[str, str] = {}
        self.outputs: dict[str, Tensor] = {}
        try:
            with each_call(model, self._keep), torch.enable_grad():
                model(self.images)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise refused(model, input_size, error) from None
        if not self.outputs:
            raise UsageError(f"{type(model).__name__} has no modules whose output could be watched")
        self.units: dict[tuple[str, tuple[int, ...] | None], np.ndarray] = {}

    def _keep(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if name and isinstance(output, Tensor) and output.grad_fn is not None:
            key = self.call_name(name)
            self.outputs[key] = output.clone()  # an activation in place would change it
            self.kinds[key] = type(module).__name__

    def names(self) -> list[str]:
        """Layers that were called."""
        return list(self.outputs)

    def rows(self) -> list[LayerField]:
        """A row for each call of an innermost module."""
        return [self._row(name) for name in self.outputs]

    def _is_map(self, name: str) -> bool:
        return self.outputs[name].ndim == len(self.image_shape) + 2

    def _lengths(self, name: str) -> tuple[int, ...]:
        return tuple(self.outputs[name].shape[2 if self._is_map(name) else 1 :])

    def position(self, name: str, position: int | Sequence[int] | None) -> tuple[int, ...] | None:
        """A unit's position; the middle one if none is named."""
        lengths = self._lengths(name)
        if position is None:
            return tuple(n // 2 for n in lengths) if self._is_map(name) else None
        return checked_position(name, position, lengths)

    def index(self, name: str, position: tuple[int, ...]) -> tuple[Any, ...]:
        """The unit as an index into the layer's output."""
        return (slice(None), *([slice(None)] if self._is_map(name) else []), *position)

    def mask(self, name: str, position: tuple[int, ...] | None) -> np.ndarray:
        """Pixels with a gradient on any image."""
        if (name, position) not in self.units:
            output = self.outputs[name]
            chosen = output if position is None else output[self.index(name, position)]
            # random weights, so that the gradients of channels do not cancel
            weights = torch.randn(chosen.shape, generator=torch.Generator().manual_seed(1), device="cpu").to(chosen)
            grad = torch.autograd.grad((chosen * weights).sum(), self.images, retain_graph=True, allow_unused=True)[0]
            seen = torch.zeros_like(self.images) if grad is None else grad
            self.units[name, position] = (seen != 0).any(dim=0).any(dim=0).cpu().numpy()
        return self.units[name, position]

    def box(self, name: str, position: tuple[int, ...] | None) -> tuple[range, ...]:
        """First to last pixel along each axis."""
        mask = self.mask(name, position)
        places = np.nonzero(mask)
        return tuple(range(int(p.min()), int(p.max()) + 1) if len(p) else range(0) for p in places)

    def _row(self, name: str) -> LayerField:
        middle = self.position(name, None)
        box = self.box(name, middle)
        jump: list[float | None] = [None] * len(box)
        first = middle
        if middle is not None:
            first = (0,) * len(middle)
            for axis, place in enumerate(middle):
                if place > 0:
                    before = self.box(name, (*middle[:axis], place - 1, *middle[axis + 1 :]))
                    jump[axis] = _centre(box[axis]) - _centre(before[axis])
        return LayerField(
            name, self.kinds[name], tuple(self.outputs[name].shape[1:]), tuple(map(len, box)), tuple(jump),
            tuple(map(_centre, self.box(name, first))), math.prod(map(len, box)) / math.prod(self.image_shape),
        )  # fmt: skip


def _centre(span: range) -> float:
    return (span.start + span.stop - 1) / 2


def gradient_map(model: nn.Module, images: Tensor, name: str, index: tuple[Any, ...]) -> np.ndarray:
    """Size of the gradient of one unit with respect to each pixel, averaged over images, shape (row, column).

    Args:
        model: Run in evaluation mode and left as it was.
        images: A batch.
        name: The layer, as `receptive_field` names it.
        index: The unit in the layer's output.
    """
    x = images.detach().clone().requires_grad_()
    with looking(model), torch.enable_grad():
        value = output_of(model, name, x, lambda output: output[index].sum())
        grad = torch.autograd.grad(value, x, allow_unused=True)[0]
    seen = torch.zeros_like(x) if grad is None else grad
    return seen.abs().sum(dim=1).mean(dim=0).double().cpu().numpy()
