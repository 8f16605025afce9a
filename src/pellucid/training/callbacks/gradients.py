"""What is done to gradients before the optimizer's step: gather them over several batches, and limit their norm."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pellucid.errors import UsageError
from pellucid.nn.losses import batch_share, setting
from pellucid.number import count
from pellucid.optim.groups import parameters_of
from pellucid.optim.optimizers import refuse_closure
from pellucid.training.callbacks.core import Callback, CancelBatchException


class GradientAccumulation(Callback):
    """Step once for several batches, with the gradient that all their images would have as one batch.

    Batches are gathered until they hold `n_acc` images or more, and what is left at the end of an epoch has a step of
    its own, as an incomplete last batch has. The gradient is that of the whole group for torch's losses, class weights
    and ignored labels included. Batchnorm still normalises each batch by itself, and its running statistics move with
    each. Schedules count batches, not steps.

    Args:
        n_acc: Images a step.

    Raises:
        UsageError: when a fit begins: the optimizer evaluates the loss itself, as LBFGS does.
    """

    order = 6  # what comes later sees the gradients of the group, and only when there is a step
    needs_images = False
    run_valid = False

    def __init__(self, n_acc: int = 32):
        self.n_acc = count(n_acc, "n_acc")

    def before_fit(self) -> None:
        refuse_closure(self.learn.opt, type(self).__name__)
        self._n: int = 0
        self._divisor: Any = 0

    def state_dict(self) -> dict[str, Any]:
        return {"n": self._n, "divisor": self._divisor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._n, self._divisor = state["n"], state["divisor"]
        if isinstance(self._divisor, Tensor):
            self._divisor = self._divisor.to(self.learn.dls.device)

    def before_backward(self) -> None:
        loss_func, yb = self.learn.loss_func, self.learn.yb
        self._n += len(self.learn.xb[0])
        if setting(loss_func, "reduction") == "sum":
            return
        factor, items = batch_share(loss_func, yb[0])
        self._divisor = self._divisor + items
        # Not by `factor` alone: scaled losses of float16 would overflow.
        self.learn.loss_grad = self.learn.loss_grad * (factor / self.n_acc)

    def after_backward(self) -> None:
        last = self.learn.iter + 1 == self.learn.n_iter
        if self._n < self.n_acc and not last:
            raise CancelBatchException
        if setting(self.learn.loss_func, "reduction") != "sum":
            for p in parameters_of(self.learn.opt):
                if p.grad is not None:
                    p.grad.mul_(self.n_acc / self._divisor)
        self._n, self._divisor = 0, 0


class GradientClip(Callback):
    """Scale gradients down where the norm of all of them together exceeds a limit.

    Statistics of gradients are of the scaled ones, which the optimizer is given.

    Args:
        max_norm: The limit.
        norm_type: Which norm, 2 for the root of the sum of squares, `inf` for the largest value.

    Attributes:
        total_norm: The norm at the last step, before it was limited; a tensor, so that reading it is up to you.

    Raises:
        UsageError: `max_norm` is not positive; when a fit begins: the optimizer evaluates the loss itself.

    Source: Pascanu et al., arXiv:1211.5063.
    """

    order = 11  # gradients are no longer scaled, and not recorded yet
    needs_images = False
    total_norm: Tensor

    def __init__(self, max_norm: float = 1.0, norm_type: float = 2.0):
        if not max_norm > 0:
            raise UsageError(f"max_norm must be positive, got {max_norm}")
        self.max_norm, self.norm_type = max_norm, norm_type

    def before_fit(self) -> None:
        refuse_closure(self.learn.opt, type(self).__name__)

    def before_step(self) -> None:
        self.total_norm = nn.utils.clip_grad_norm_(parameters_of(self.learn.opt), self.max_norm, self.norm_type)
