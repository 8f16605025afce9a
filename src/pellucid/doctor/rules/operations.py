"""What rules read of the operations between the model's input and the loss."""

from __future__ import annotations

from pellucid.doctor.evidence.record import Op
from pellucid.doctor.rules.core import Case

_ACTIVATIONS = (
    *("relu", "relu6", "sigmoid", "tanh", "softmax", "softplus", "leaky_relu", "elu", "gelu", "silu", "hardtanh"),
    *("hardsigmoid", "log_softmax", "logsigmoid", "clamp", "softsign", "exp", "square", "abs"),
)
_SHAPES = (
    *(
        "reshape",
        "view",
        "flatten",
        "squeeze",
        "unsqueeze",
        "contiguous",
        "transpose",
        "permute",
        "getitem",
        "__getitem__",
    ),
    *("to", "float", "type", "dropout", "identity", "size", "dim", "cpu", "clone"),
)


def output_activation(case: Case, names: tuple[str, ...] = _ACTIVATIONS) -> Op | None:
    """The activation that the model's output went through last, if only changes of shape came after it."""
    inside = [op for op in case.evidence.ops if op.module is not None]
    before_loss = [
        op
        for op in case.evidence.ops
        if op.name.endswith("_loss") or op.name.startswith(("cross_entropy", "binary_cross_entropy"))
    ]
    if before_loss:  # an activation may be applied between the model and the loss, too
        inside = case.evidence.ops[: case.evidence.ops.index(before_loss[0])]
    for op in reversed(inside):
        if op.module is None and not op.attached:
            continue  # the targets' own: y[i], one_hot(y)
        name = op.name if op.name.startswith("__") else op.name.rstrip("_")
        if name in names:
            return op
        if name not in _SHAPES:
            return None
    return None
