"""The first value that is not a number: where it came from, as far as that can still be told."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor, nn

from pellucid.doctor.evidence.record import Failure, Op
from pellucid.history.history import History

# Functions that have no finite value at or below 0, by the names of their nodes in the graph, and what these keep: the
# argument, or the result, which is then not finite.
_RISKY = {
    "Log": ("_saved_self",),
    "Log2": ("_saved_self",),
    "Log10": ("_saved_self",),
    "Div": ("_saved_other",),
    "Sqrt": ("_saved_result",),
    "Rsqrt": ("_saved_result",),
    "Reciprocal": ("_saved_result",),
    "Exp": ("_saved_result",),
    "Pow": ("_saved_result",),
}
MAX_NODES = 200


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all values of all tensors are finite."""
    return all(bool(x.isfinite().all()) for x in tensors if x.is_floating_point() and not x.is_sparse)


def of_loss(
    step: int, loss: Tensor, given: Tensor | None, model: nn.Module, ops: list[Op], seen: History | None
) -> Failure:
    """Why the loss of this step is not finite, looked at before `backward`.

    Args:
        step: Which.
        loss: It, with its graph.
        given: What the model was given.
        model: As it is now.
        ops: What was seen to run in this pass; empty if it was not looked at.
        seen: Its layers and gradients.
    """
    failure = Failure(message=f"the loss is {loss.detach().reshape(-1)[0].item()}", step=step)
    if given is not None and not finite([given.detach()]):
        failure.during, failure.first_nonfinite = "input", "the model's input"
        return failure
    broken = next((name for name, p in model.named_parameters() if not finite([p.detach()])), None)
    if broken is not None:
        gradients = _last_gradients(seen, step)
        failure.during = "backward" if gradients is not None and not np.isfinite(gradients).all() else "step"
        failure.first_nonfinite = broken
        return failure
    op = next((op for op in ops if not np.isfinite([op.min, op.max]).all() and not np.isnan(op.zero)), None)
    if op is not None:
        failure.during = "loss" if op.module is None else "forward"
        failure.where, failure.first_nonfinite = op.where, f"{op.name} in {op.module}" if op.module else op.name
        return failure
    layer = _last_layer(seen)
    failure.during, failure.first_nonfinite = ("loss", _risky(loss)) if layer is None else ("forward", layer)
    return failure


def _last_layer(seen: History | None) -> str | None:
    """The first layer whose outputs were not finite in the last column."""
    if seen is None or not len(seen.train.steps):
        return None
    counts = seen.train.nonfinite[:, -1]
    return next((layer.name for layer, n in zip(seen.layers, counts, strict=True) if n > 0), None)


def _last_gradients(seen: History | None, step: int) -> np.ndarray | None:
    """The norms of gradients at the last step before this one."""
    norms = None if seen is None else seen.series.get("grad.norm")
    ended = [] if seen is None or norms is None else np.flatnonzero(seen.train.steps[:, 1] <= step)
    return norms[:, ended[-1]] if norms is not None and len(ended) else None


def _risky(loss: Tensor) -> str:
    """The deepest function in the graph of the loss that was given something it has no finite value for."""
    waiting, found, known = [loss.grad_fn], "", 0
    while waiting and known < MAX_NODES:
        node, known = waiting.pop(0), known + 1
        if node is not None:
            name = type(node).__name__.partition("Backward")[0]
            saved = [getattr(node, each, None) for each in _RISKY.get(name, ())]
            if any(isinstance(x, Tensor) and not bool((x.isfinite() & (x > 0)).all()) for x in saved):
                found = name.lower()
            waiting += [each for each, _ in node.next_functions]
    return found
