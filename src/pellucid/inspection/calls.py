"""What a model does with one image: every call of an innermost module, with the values that went in and came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import UsageError
from pellucid.inspection.lookup import CallNames
from pellucid.inspection.runner import each_call
from pellucid.text import NOT_FINITE, counted

IMAGE = -1


@dataclass(frozen=True)
class Call:
    """One call of one innermost module.

    Attributes:
        name: The module's name in the model.
        label: The call's: the same, with `#2` if the module is called for the second time; of a model that is one
            layer, its class name.
        module: The module.
        source: Place in the list of the call whose output is this one's input; `IMAGE` for the image itself; None if
            something else lies between, such as an addition written in `forward`.
        input: What went in, batch axis first.
        output: What came out.
    """

    name: str
    label: str
    module: nn.Module
    source: int | None
    input: Tensor
    output: Tensor

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of input and output, without the batch axis."""
        return tuple(self.input.shape[1:]), tuple(self.output.shape[1:])


def as_batch(image: Any) -> Tensor:
    """An image as float batch of one: (row, column), (channel, row, column) or (1, channel, row, column).

    Raises:
        UsageError: another number of axes, more than one image, or values that are nan or infinite.
    """
    x = image if isinstance(image, Tensor) else torch.as_tensor(image, device="cpu")
    x = x if x.is_floating_point() else x.float()
    if not 2 <= x.ndim <= 4 or (x.ndim == 4 and len(x) != 1):
        raise UsageError(
            "an image has shape (row, column), (channel, row, column) or (1, channel, row, column), "
            f"not {tuple(x.shape)}"
        )
    x = x.reshape((1,) * (4 - x.ndim) + tuple(x.shape))
    if not x.isfinite().all():
        raise UsageError(f"the image has {counted(int((~x.isfinite()).sum()), *NOT_FINITE)}; fix them first")
    return x


def calls(model: nn.Module, image: Any) -> list[Call]:
    """Run a model on one image in evaluation mode, without gradients, and list the calls of its innermost modules.

    The model is left as it was. Activation functions that work in place are listed with input and output apart.

    Args:
        model: Any module that takes a batch of images and calls modules on tensors.
        image: As `as_batch` takes it.

    Raises:
        UsageError: the image is none, or the model does not take it.
    """
    batch = as_batch(image)
    places = {id(batch): IMAGE}
    kept: list[Tensor] = [batch]  # a tensor that lives keeps its id
    found: list[Call] = []
    given: dict[int, Tensor] = {}
    call_name = CallNames()

    def before(module: nn.Module, inputs: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            given[id(module)] = inputs[0].detach().clone()

    def after(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not (inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)):
            return
        source = places.get(id(inputs[0]))
        label = call_name(name or type(module).__name__)
        found.append(Call(name, label, module, source, given.pop(id(module)), output.detach().clone()))
        kept.append(output)
        places[id(output)] = len(found) - 1

    try:
        with each_call(model, after, before), torch.no_grad():
            model(batch)
    except RuntimeError as error:
        raise UsageError(
            f"{type(model).__name__} does not take an image of shape {tuple(batch.shape[1:])}: {error}"
        ) from None
    return found
