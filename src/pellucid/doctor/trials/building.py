"""Makes what replay needs of a pass that was recorded: numbered slots in place of tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pellucid.activations import graph, scaler
from pellucid.doctor.trials.nested import replaced, tensors_of
from pellucid.doctor.trials.operations import Operation, version_of
from pellucid.doctor.trials.replay import CapturedBatch, Slot, Step

HIDDEN = "the loss is computed by code that cannot be recorded"
INSIDE = "the loss uses a tensor from inside the model that is not part of its output"
CHANGED = "a tensor that the loss was computed from was changed in place later"


class Builder:
    """Turns operations into steps.

    Args:
        trail: The calls of the model, and the operations outside of it that depend on it.
        owned: Identity of the model's parameters and buffers → name.
        inputs: Identities of the clones of what the model was given.
        seen: Identity → a constant, its clone if it was changed since, and its version when it was used.
        labels: Identities of the constants that are labels.
    """

    def __init__(
        self,
        trail: list[Operation],
        owned: dict[int, str],
        inputs: set[int],
        seen: dict[int, tuple[Tensor, Tensor | None, int]],
        labels: set[int],
    ):
        self.trail, self.owned, self.input_ids, self.seen, self.label_ids = trail, owned, inputs, seen, labels
        self.numbers: dict[int, int] = {}
        self.made: set[int] = set()
        self.constants: dict[int, Tensor] = {}
        self.parameters: dict[int, str] = {}
        self.inputs: list[int] = []
        self.labels: list[int] = []
        self.why = ""

    def batch(self, loss: Tensor | None) -> CapturedBatch:
        """The pass that ends with this loss; None takes the first number that was computed from the model's output."""
        if loss is None:
            loss = next((each.result for each in self.trail if _is_number(each.result)), None)
        steps = [] if loss is None else [self._step(operation) for operation in self._needed(loss)]
        at = self.numbers.get(id(loss), -1)
        if loss is None or at not in self.made:
            return CapturedBatch([], {}, {}, [], [], -1, float("nan"), why=HIDDEN)
        value = loss.detach()
        unscaled = scaler.unscaled(loss).detach()
        return CapturedBatch(
            steps=steps,
            constants=self.constants,
            parameters=self.parameters,
            inputs=self.inputs,
            labels=self.labels,
            loss_slot=at,
            loss=float(unscaled),
            scale=1.0 if scaler.unscaled(loss) is loss else float(value / unscaled),
            why=self.why,
        )

    def _needed(self, loss: Tensor) -> list[Operation]:
        """The operations that the loss depends on, the calls of the model among them."""
        wanted, needed = {id(loss)}, []
        for operation in reversed(self.trail):
            changed = operation.changed
            # Changing a view changes what it is a view of.
            whole = changed._base if changed is not None and changed._is_view() else changed
            by_change = changed is not None and not wanted.isdisjoint((id(changed), id(whole)))
            if by_change or not wanted.isdisjoint(map(id, tensors_of(operation.result))):
                needed.append(operation)
                wanted.update(map(id, tensors_of((operation.args, operation.kwargs))))
        return needed[::-1]

    def _step(self, operation: Operation) -> Step:
        args, kwargs = (replaced(each, self._slot) for each in (operation.args, operation.kwargs))
        if isinstance(operation.function, str):
            self._name_labels(operation.kwargs)
        changed = operation.changed
        return Step(
            name=operation.name,
            function=operation.function,
            args=args,
            kwargs=kwargs,
            results=tuple(self._result(t) for t in tensors_of(operation.result)),
            changes=None if changed is None else self.numbers[id(changed)],
            where=operation.where,
            grad=operation.grad,
            autocast=operation.autocast,
        )

    def _result(self, t: Tensor) -> int:
        number = self.numbers.setdefault(id(t), len(self.numbers))
        self.made.add(number)
        return number

    def _slot(self, leaf: Any) -> Any:
        """The slot of a tensor; what is not the result of a step is the model's own, or a constant."""
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) not in self.numbers:
            number = self.numbers[id(leaf)] = len(self.numbers)
            if id(leaf) in self.owned:
                self.parameters[number] = self.owned[id(leaf)]
            elif id(leaf) in self.input_ids:
                self.constants[number] = leaf
                self.inputs.append(number)
            else:
                self.constants[number] = self._constant(leaf)
                if id(leaf) in self.label_ids:
                    self.labels.append(number)
        return Slot(self.numbers[id(leaf)])

    def _constant(self, t: Tensor) -> Tensor:
        _, before, version = self.seen[id(t)]
        if before is not None:
            return before
        if t.grad_fn is not None and graph.reaches(t, self.owned.keys()):
            self.why = INSIDE
        elif version != version_of(t):
            self.why = CHANGED
        return t.detach().clone().requires_grad_(t.requires_grad)

    def _name_labels(self, kwargs: dict[str, Any]) -> None:
        """Labels that the model itself is given, as those of transformers are."""
        for name, value in kwargs.items():
            if isinstance(value, Tensor) and name in ("label", "labels", "target", "targets", "y"):
                number = self.numbers[id(value)]
                if number in self.inputs:
                    self.inputs.remove(number)
                    self.labels.append(number)


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point()
