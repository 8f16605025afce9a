"""Whose loss it is: which parameters autograd would give a gradient."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence, Set
from typing import Any

import torch
from torch import Tensor

from pellucid.activations import scaler


def loss_of(roots: Any) -> Tensor | None:
    """The value `backward` is called on, before a GradScaler; of several, their sum; None if one is no scalar."""
    tensors = [roots] if isinstance(roots, Tensor) else list(roots)
    if torch._C._current_graph_task_id() != -1 or not tensors:  # a checkpoint calls `backward` inside `backward`
        return None
    if not all(isinstance(each, Tensor) and each.numel() == 1 for each in tensors):
        return None
    values = [scaler.unscaled(each).detach().reshape(()) for each in tensors]
    return values[0] if len(values) == 1 else torch.stack(values).sum()


def reaches(roots: Tensor | Sequence[Tensor], owned: Set[int]) -> bool:
    """Whether the graph of these tensors has a leaf whose identity is among `owned`.

    Breadth first, so that a model's own loss is known after the few operations behind its last layer; only a foreign
    graph is walked to its end.
    """
    tensors = [roots] if isinstance(roots, Tensor) else roots
    nodes: deque[Any] = deque(each.grad_fn for each in tensors if each.grad_fn is not None)
    known = set(nodes)
    while nodes:
        for node, _ in nodes.popleft().next_functions:
            if node is None or node in known:
                continue
            leaf = getattr(node, "variable", None)  # of the nodes that accumulate into a leaf
            if id(leaf) in owned:
                return True
            known.add(node)
            nodes.append(node)
    return any(id(each) in owned for each in tensors)


def gradients(leaves: Iterable[Tensor]) -> list[tuple[Tensor | None, int]]:
    """What tells whether any gradient changed: the tensors and their versions."""
    return [(p.grad, -1 if p.grad is None else p.grad._version) for p in leaves]


def differ(before: list[tuple[Tensor | None, int]], after: list[tuple[Tensor | None, int]]) -> bool:
    """Whether two results of `gradients` are of different gradients."""
    return any(a is not b or m != n for (a, m), (b, n) in zip(before, after, strict=True))
