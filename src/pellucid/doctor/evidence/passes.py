"""Passes of the model: what each was given and answered, and which of them `backward` followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, overrides

from pellucid.activations import graph
from pellucid.activations.targets import is_readable, tensors_in
from pellucid.doctor.evidence.functions import name_of
from pellucid.doctor.evidence.inputs import Gathered, Given
from pellucid.doctor.evidence.labels import Answer, Answers, predicted
from pellucid.doctor.evidence.streams import Numbers
from pellucid.doctor.listening import passing_over
from pellucid.doctor.modes import put, take_away

# What makes a class of an output, by the name of the function.
_HOW = {"argmax": "argmax", "max": "argmax", "topk": "argmax", "round": "round"} | dict.fromkeys(
    ("gt", "__gt__", "ge", "__ge__", "lt", "__lt__", "le", "__le__"), "threshold"
)
_COMPARING = "eq", "__eq__", "equal", "ne", "__ne__"


@dataclass
class Pass:
    """A call of the model, or one of each of several modules that are trained together.

    Attributes:
        grad: Whether gradients were on.
        step: Steps before it.
        given, answer: Input and output.
        training: Whether the model itself was in training mode.
        modes, functions: Training modes of norms and dropouts, and of dropouts that are called as functions.
        x: The input itself, as long as the pass is the last one.
        roots: The modules that were called, by identity.
        numbers: Of the nodes that made its outputs; autograd numbers them as they come.
        batch_labels: Labels in the loader's batch.
        loss: Value of the first loss that was computed of it.
        fresh: Whether a loader had just begun.
        over: Whether `backward` was called on a loss of it.
    """

    grad: bool
    step: int
    given: Given
    training: bool
    modes: list[bool]
    x: Tensor | None = None
    answer: Answer = field(default_factory=Answer)
    functions: dict[str, bool] = field(default_factory=dict)
    roots: set[int] = field(default_factory=set)
    numbers: set[int] = field(default_factory=set)
    batch_labels: Tensor | None = None
    loss: Tensor | None = None
    fresh: bool = False
    over: bool = False

    @property
    def n(self) -> int:
        """Number of items."""
        return self.given.shape[0] if self.given.shape else 0

    def returned(self, output: Any) -> None:
        """Take the output of one of its modules."""
        found = list(tensors_in(output))
        self.numbers |= {node._sequence_nr() for t in found if (node := t.grad_fn) is not None}
        self.answer.said(next((t for t in found if t.ndim and len(t) == self.n and is_readable(t)), None))


@dataclass
class Phase:
    """All passes of training, or of validation."""

    inputs: Gathered = field(default_factory=Gathered)
    answers: Answers = field(default_factory=Answers)
    losses: Numbers = field(default_factory=Numbers)
    steps: Numbers = field(default_factory=Numbers)
    n: int = 0
    in_eval: int = 0

    def add(self, each: Pass) -> None:
        """Take a pass."""
        self.n += 1
        self.in_eval += not each.training
        self.inputs.add(each.given)
        if each.answer.labels is None:
            each.answer.labels = each.batch_labels
        self.answers.add(each.answer)
        if each.loss is not None:
            self.losses.put(each.loss)
            self.steps.put(each.step)


def behind(roots: Any, passes: Sequence[Pass], owned: set[int]) -> list[Pass]:
    """Those of the passes that a loss was computed from.

    Autograd numbers the nodes of a graph in the order in which they are made, so that only what was made after a
    pass's output has to be walked.

    Args:
        roots: What `backward` is called on.
        passes: Passes with gradients.
        owned: Identities of the model's parameters, for passes whose outputs are no tensors.
    """
    tensors = [roots] if isinstance(roots, Tensor) else list(roots)
    wanted = {number: each for each in passes for number in each.numbers}
    found: dict[int, Pass] = {}
    if wanted:
        lowest = min(wanted)
        waiting = [node for t in tensors if (node := t.grad_fn) is not None]
        known = set(waiting)
        while waiting:
            node = waiting.pop()
            number = node._sequence_nr()
            if number in wanted:
                found[id(wanted[number])] = wanted[number]
                if len(found) == len(passes):
                    break
            if number > lowest:
                new = [each for each, _ in node.next_functions if each is not None and each not in known]
                known.update(new)
                waiting += new
    unknown = [each for each in passes if not each.numbers]
    if unknown and not found and graph.reaches(tensors, owned):
        return unknown[-1:]
    return [each for each in passes if id(each) in found]


class Comparisons(overrides.TorchFunctionMode):
    """Sees what the predictions of a pass are compared with, by `==`: the labels; and what made them."""

    def __init__(self) -> None:
        self.of: Pass | None = None
        self.compared = ""
        self._how = ""

    def begin(self, of: Pass) -> None:
        """Look at what follows a pass."""
        self.end()
        self.of, self._how = of, ""
        put(self)

    def end(self) -> None:
        """Look no more."""
        self.of = None
        take_away(self)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.of is not None and args and isinstance(args[0], Tensor) and len(args[0].shape):
            name = name_of(func)
            self._how = _HOW.get(name, self._how) if len(args[0]) == self.of.n else self._how
            if name in _COMPARING and len(args) > 1:
                with passing_over():
                    self._compare(self.of, *args[:2])
        return result

    def _compare(self, of: Pass, *both: Any) -> None:
        if not all(isinstance(x, Tensor) and x.ndim in (1, 2) and x.numel() == of.n for x in both):
            return
        self.compared = self._how or self.compared
        if of.answer.labels is not None:
            return
        x = of.answer.known
        said = None if x is None else predicted(x, of.answer.kind)
        for one, other in (both, both[::-1]):
            if said is not None and torch.equal(one.reshape(-1).to(said.dtype), said):
                of.answer.labels = other.detach().reshape(-1).to(torch.int64)
                return
