"""A training pass that was captured, and can be made again on a copy of the model, changed in one respect."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pellucid.doctor.trials.nested import replaced, tensors_of
from pellucid.doctor.trials.operations import Autocast, autocasting, name_of
from pellucid.seed import RandomState


@dataclass(frozen=True)
class Slot:
    """Stands for a tensor in what a step is given."""

    number: int


_NAMES = {"CrossEntropyLoss": "cross_entropy", "NLLLoss": "nll_loss", "MSELoss": "mse_loss"}
OUTPUT = object()  # stands for all that the first call returned


@dataclass(frozen=True)
class Step:
    """A call of the model, or an operation outside of it that the loss depends on.

    Attributes:
        name: Of the operation; `''` of a call.
        function: What is called; of a call the dotted path of the module, `''` for the model.
        args, kwargs: With `Slot`s in place of tensors.
        results: Numbers of the slots of the tensors in what it returns.
        changes: Number of the slot that it changes in place, or None.
        where: Line of the user's code.
        grad, autocast: Under which it ran.
    """

    name: str
    function: Callable[..., Any] | str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[int, ...]
    changes: int | None = None
    where: str = ""
    grad: bool = True
    autocast: Autocast = ()

    @property
    def is_call(self) -> bool:
        """Whether it calls the model or a module of it."""
        return isinstance(self.function, str)


@dataclass
class CapturedBatch:
    """A pass from the model's call to the loss: operations outside of the model, and the tensors that were constants.

    Attributes:
        steps: In order.
        constants: Number of a slot → tensor.
        parameters: Number of a slot → name of a parameter or buffer that was used outside of the model.
        inputs, labels: Numbers of the constants that the model was given, and of those that have an entry for each item
            of what they meet on the way from the model's output to the loss.
        loss_slot: Number of the loss's slot.
        loss: Its value, before a GradScaler.
        scale: What a GradScaler multiplied it with; else 1.
        why: Why the pass cannot be made again; `''` if it can.
        modes: Dotted path of each module → whether it was in training mode.
        random: The state of the random numbers when the model was called.
        step: Of the run, as far as whoever captured it says so.
    """

    steps: list[Step]
    constants: dict[int, Tensor]
    parameters: dict[int, str]
    inputs: list[int]
    labels: list[int]
    loss_slot: int
    loss: float
    scale: float = 1.0
    why: str = ""
    modes: dict[str, bool] = field(default_factory=dict)
    random: RandomState | None = None
    step: int = 0

    @classmethod
    def of(cls, loss_func: Callable[..., Any], args: Sequence[Any], *targets: Any) -> CapturedBatch:
        """A batch as a loader gave it: arguments of the model, and what the loss takes after the model's output."""
        constants: dict[int, Tensor] = {}

        def slot(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            constants[len(constants)] = leaf.detach().clone()
            return Slot(len(constants) - 1)

        given = replaced(tuple(args), slot)
        inputs = list(constants)
        wanted = replaced(targets, slot)
        labels = [number for number in constants if number not in inputs]
        steps = [
            Step("", "", given, {}, ()),
            Step(_NAMES.get(name_of(loss_func), name_of(loss_func)), loss_func, (OUTPUT, *wanted), {}, (-1,)),
        ]
        return cls(steps, constants, {}, inputs, labels, loss_slot=-1, loss=math.nan)

    def __len__(self) -> int:
        """How many items it has: the first axis of what the model was given first."""
        given = [self.constants[number] for number in (*self.inputs, *self.constants)]
        return next((len(t) for t in given if t.dim()), 0)

    @property
    def input_values(self) -> list[Tensor]:
        """The tensors that the model was given, as far as they do not come from it."""
        return [self.constants[number] for number in self.inputs]

    @property
    def label_values(self) -> list[Tensor]:
        """The tensors that are labels, targets or weights of items."""
        return [self.constants[number] for number in self.labels]

    @property
    def operations(self) -> list[Step]:
        """The operations outside of the model."""
        return [step for step in self.steps if not step.is_call]

    def call(self, model: nn.Module, inputs: Sequence[Tensor] | None = None) -> Any:
        """What a copy of the model outputs in the first call of the pass."""
        return _Player(self, model, inputs, None).run(self.steps[0])

    def replay(
        self,
        model: nn.Module,
        *,
        without: Collection[str] = (),
        labels: Sequence[Tensor] | None = None,
        inputs: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Any]:
        """The loss of a copy of the model, with its graph, and what the model output in its first call.

        Args:
            model: The copy, in the mode it is to run in.
            without: Names of operations outside of the model that are left out: they return what they are given first.
            labels, inputs: In place of `label_values` and `input_values`, of the same shapes.
        """
        player = _Player(self, model, inputs, labels)
        output = player.run(self.steps[0])
        for step in self.steps[1:]:
            with ExitStack() if step.is_call or not without else Skipping(without):
                player.run(step)
        return player.tensors[self.loss_slot] / self.scale, output

    def check(self, model: nn.Module, *, same_loss: bool = True) -> str:
        """Why a replay on the model as it was does not give the loss again, which `why` then says too; `''` if it does.

        The model is put into the modes it was in; random numbers go on from where they were then. Without `same_loss`
        the pass only has to go through, since these are not the weights it was made with.
        """
        if self.why:
            return self.why
        now, rounding = RandomState(), 1e-3 if self._rounds() else 1e-2
        for path, module in model.named_modules():
            module.training = self.modes.get(path, module.training)
        try:
            if self.random is not None:
                self.random.restore()
            loss = float(self.replay(model)[0].detach())
        except Exception as error:  # whatever the user's code does where it is called another time
            self.why = f"the pass cannot be repeated: {type(error).__name__}: {error}"
            return self.why
        finally:
            now.restore()
        same = math.isclose(loss, self.loss, rel_tol=rounding, abs_tol=rounding) or not math.isfinite(self.loss)
        if same_loss and not same:
            self.why = f"repeated, the pass has a loss of {loss:.4g} instead of {self.loss:.4g}"
        return self.why

    def _rounds(self) -> bool:
        half = torch.float16, torch.bfloat16
        return not any(step.autocast for step in self.steps) and all(t.dtype not in half for t in self.input_values)


def dealt(values: Sequence[Sequence[Tensor]], order: Tensor) -> list[list[Tensor]]:
    """The tensors of several batches with their items in another order, dealt to batches of the same sizes.

    Args:
        values: Of each batch tensors with an entry for each item; of all batches those at a place have equal items.
        order: A permutation of all items.
    """
    sizes = [len(tensors[0]) for tensors in values]
    places = [torch.cat(tensors)[order.to(tensors[0].device)].split(sizes) for tensors in zip(*values, strict=True)]
    return [[parts[at] for parts in places] for at in range(len(values))]


def can_be_dealt(values: Sequence[Sequence[Tensor]]) -> bool:
    """Whether `dealt` takes them."""
    shapes = [[t.shape[1:] for t in tensors if t.dim()] for tensors in values]
    even = all(len({len(t) for t in tensors if t.dim()}) == 1 for tensors in values)
    return even and all(each == shapes[0] and len(each) == len(values[0]) for each in shapes)


class Skipping(TorchFunctionMode):
    """Inside the block, functions of these names return what they are given first.

    Args:
        names: Of the functions.
        nth: Name → which of its calls inside the block are meant, from 0; all of them if it has none.
    """

    def __init__(self, names: Collection[str], nth: Mapping[str, Collection[int]] | None = None):
        self.names, self.nth, self.calls = names, nth or {}, Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = name_of(func)
        if name in self.names:
            self.calls[name] += 1
            if name not in self.nth or self.calls[name] - 1 in self.nth[name]:
                return args[0] if args else next(iter((kwargs or {}).values()))
        return func(*args, **(kwargs or {}))


class _Player:
    """Runs steps: `tensors` is what is in each slot so far."""

    def __init__(
        self,
        batch: CapturedBatch,
        model: nn.Module,
        inputs: Sequence[Tensor] | None,
        labels: Sequence[Tensor] | None,
    ):
        self.model, self.output = model, None
        changed = {step.changes for step in batch.steps}
        self.tensors = {
            number: t.clone() if number in changed else t.detach().requires_grad_() if t.requires_grad else t
            for number, t in batch.constants.items()
        }
        self.tensors |= zip(batch.inputs, inputs, strict=True) if inputs is not None else ()
        self.tensors |= zip(batch.labels, labels, strict=True) if labels is not None else ()
        if batch.parameters:
            own = dict(model.named_buffers()) | dict(model.named_parameters())
            self.tensors |= {number: own[name] for number, name in batch.parameters.items()}

    def run(self, step: Step) -> Any:
        args, kwargs = replaced(step.args, self._filled), replaced(step.kwargs, self._filled)
        function = self.model.get_submodule(step.function) if isinstance(step.function, str) else step.function
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(step.grad and torch.is_grad_enabled()))
            if step.autocast != autocasting():
                for kind in {kind for kind, _ in (*step.autocast, *autocasting())}:
                    wanted = dict(step.autocast).get(kind)
                    stack.enter_context(torch.autocast(kind, dtype=wanted, enabled=wanted is not None))
            result = function(*args, **kwargs)
        self.tensors |= zip(step.results, tensors_of(result), strict=True) if step.results else ()
        if self.output is None:
            self.output = result
        return result

    def _filled(self, leaf: Any) -> Any:
        if isinstance(leaf, Slot):
            return self.tensors[leaf.number]
        return self.output if leaf is OUTPUT else leaf
