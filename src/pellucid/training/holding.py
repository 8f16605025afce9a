"""A model's optimizer: made of the groups a splitter gives, renewed when the model was edited, frozen by groups."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.optim import Optimizer

from pellucid.errors import UsageError
from pellucid.inspection.looking import kept_modes
from pellucid.nn.layers import CallableModel
from pellucid.nn.norms import norm_params
from pellucid.optim.groups import LearningRate, Splitter, split, spread
from pellucid.optim.hypers import hypers, restore_hypers, snapshot_hypers
from pellucid.optim.optimizers import OptFunc, carry_state, makes_decay, param_groups
from pellucid.text import first_few


@dataclass(frozen=True)
class Holding:
    """An optimizer as it was when the learner first met it.

    Attributes:
        opt: The optimizer.
        params: The parameters of each of its torch groups.
        hypers: The settings of each.
        by_hand: Whether a user made it, or changed its groups.
    """

    opt: Optimizer
    params: list[list[Tensor]]
    hypers: list[dict[str, Any]]
    by_hand: bool

    @classmethod
    def of(cls, opt: Optimizer, *, by_hand: bool) -> Holding:
        """How an optimizer is now."""
        return cls(opt, [list(group["params"]) for group in opt.param_groups], snapshot_hypers(opt), by_hand)

    def is_of(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Whether these torch groups hold the very same parameters, in the same order."""
        mine = [list(map(id, params)) for params in self.params]
        return mine == [list(map(id, group["params"])) for group in groups]


class HasOptimizer:
    """Has a model, and an optimizer of its parameters.

    Attributes:
        opt: The optimizer; None before the first fit. One that a user assigns is trained with as it is.
        opt_func, splitter, lr, wd_bn_bias, train_bn: As of `Learner`.
    """

    model: nn.Module
    loss_func: Any
    dls: Any
    opt: Any
    opt_func: OptFunc
    splitter: Splitter
    lr: LearningRate
    wd_bn_bias: bool
    train_bn: bool
    _holding: Holding | None
    _left_out: dict[Tensor, Any]

    def create_opt(self) -> None:
        """Make a new optimizer of all parameter groups, with model and loss on the loaders' device.

        Raises:
            UsageError: nothing of the model can be trained, or the optimizer takes no parameter groups.
        """
        self._put_on_device()
        groups = self._torch_groups()
        hint = ": is it a function that makes a model? then call it" if isinstance(self.model, CallableModel) else ""
        held = [p for group in groups for p in group["params"]]
        checked_trainable(held, hint)
        warn_of_left_out(self.model, self.loss_func, held)
        try:
            self.opt = self.opt_func(groups, lr=spread(self.lr, 1)[0])
        except ValueError as error:
            raise UsageError(f"no optimizer of {len(groups)} parameter groups could be made: {error}") from error
        self._holding, self._left_out = Holding.of(self.opt, by_hand=False), {}

    def _ready_opt(self, reset_opt: bool = False) -> None:
        """Have an optimizer of the parameters there are, with the settings that it began with.

        After an edit of the model a new one takes over the moments of the parameters that stayed, and of those that
        come back, as frozen ones do with a splitter that leaves them out. An optimizer that a
        user has assigned or added groups to is left alone.
        """
        if self.opt is None or reset_opt:
            self.create_opt()
            return
        self._put_on_device()
        known = self._holding
        if known is None or known.by_hand or known.opt is not self.opt or not known.is_of(self.opt.param_groups):
            known = Holding.of(self.opt, by_hand=True)
        self._holding = known
        if known.by_hand:
            held = [p for group in self.opt.param_groups for p in group["params"]]
            checked_trainable(held)
            warn_of_left_out(self.model, self.loss_func, held)
        elif not known.is_of(self._torch_groups()):
            left_out = self._left_out
            self.create_opt()
            moments = carry_state(known.opt, self.opt, left_out)
            ids = {id(p) for module in self._modules() for p in module.parameters()}
            self._left_out = {p: state for p, state in moments.items() if id(p) in ids}  # others never come back
        restore_hypers(self.opt, self._holding.hypers)

    def _leave_opt(self) -> None:
        """Give an optimizer made by hand its own settings back, so that the user finds and changes these."""
        if self._holding is not None and self._holding.by_hand and self._holding.is_of(self.opt.param_groups):
            restore_hypers(self.opt, self._holding.hypers)

    def _copy_opt(self, held: Sequence[Tensor]) -> None:
        """Go on with a copy of the optimizer, of the same parameters."""
        if self.opt is None:
            return
        known, own = self._holding, copy.deepcopy(self.opt, {id(p): p for p in held})
        if known is not None and known.opt is self.opt:
            self._holding = replace(known, opt=own)
        self.opt = own

    def freeze(self) -> None:
        """Train only the last parameter group, and the norms of the others."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Train all parameter groups."""
        self.freeze_to(0)

    def freeze_to(self, n: int) -> None:
        """Train parameter groups from `n` on, negative `n` counted from the end, and the norms of those before.

        Without `train_bn` the norms of those before are frozen as well.
        """
        norms = norm_params(self.model) if self.train_bn else set()
        groups = self._groups()
        if not -len(groups) <= n < len(groups):
            raise UsageError(f"freeze_to({n}) leaves nothing to train: the parameter groups are 0 to {len(groups) - 1}")
        first = n % len(groups)
        for i, group in enumerate(groups):
            for p in group:
                p.requires_grad_(i >= first or id(p) in norms)

    def _modules(self) -> list[nn.Module]:
        """Everything of the learner's that may hold weights or statistics."""
        return [m for m in (self.model, self.loss_func) if isinstance(m, nn.Module)]

    def _put_on_device(self) -> None:
        for module in self._modules():
            module.to(self.dls.device)

    def _groups(self) -> list[list[nn.Parameter]]:
        initialise(self.model, self._some_inputs)
        return split(self.model, self.splitter)

    def _torch_groups(self) -> list[dict[str, Any]]:
        return param_groups(self.model, self._groups(), decay_all=self.wd_bn_bias or not makes_decay(self.opt_func))

    def _rates(self, lr: LearningRate | None) -> list[float]:
        """A rate for each group; None stands for the learner's, or for those of an optimizer made by hand."""
        by_hand = self._holding is not None and self._holding.opt is self.opt and self._holding.by_hand
        if not by_hand:
            return spread(self.lr if lr is None else lr, len(self._groups()))
        rates = hypers(self.opt)["lr"]
        return spread(rates if lr is None else lr, len(rates))

    def _some_inputs(self) -> Sequence[Any]:
        """Inputs of one batch, as the model takes them."""
        raise NotImplementedError


def checked_trainable(params: Sequence[Tensor], hint: str = "") -> None:
    """Refuse parameters that no training can change.

    Raises:
        UsageError: none needs a gradient, or they were made in inference mode.
    """
    if not any(p.requires_grad for p in params):
        raise UsageError(f"the model has no trainable parameters{hint}")
    if any(p.is_inference() for p in params):
        raise UsageError(
            "the model was made inside torch.inference_mode, where tensors can never be trained: make it outside"
        )


def warn_of_left_out(model: nn.Module, loss_func: Any, held: Sequence[Tensor]) -> None:
    """Say so when parameters will stay untrained that look as if they should not.

    Those of the loss do. Those of the model may be left out on purpose, unless the optimizer holds others in their
    stead that the model no longer has.
    """
    ids = set(map(id, held))
    own = {id(p) for p in model.parameters()}
    of_loss = dict(loss_func.named_parameters()) if isinstance(loss_func, nn.Module) else {}
    loose = [name for name, p in of_loss.items() if p.requires_grad and id(p) not in ids]
    if loose:
        warnings.warn(
            f"the loss has parameters that are not trained ({first_few(map(repr, loose), 3)}): give a splitter that "
            "has them, such as lambda model: [params(model), params(loss)], or set their requires_grad to False",
            stacklevel=4,
        )
    gone = ids - own - {id(p) for p in of_loss.values()}
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in ids]
    if gone and missing:
        warnings.warn(
            f"{len(gone)} of the parameters that will be trained are not the model's, and "
            f"{first_few(map(repr, missing), 3)} of the model will not be: was a layer replaced? Then make "
            "optimizer or splitter anew",
            stacklevel=4,
        )


def initialise(model: nn.Module, inputs: Callable[[], Sequence[Any]]) -> None:
    """Let lazy modules find their sizes from a batch, if there are any; running statistics stay as they are."""
    tensors = (*model.parameters(), *model.buffers())
    if not any(isinstance(tensor, UninitializedBuffer | UninitializedParameter) for tensor in tensors):
        return
    with kept_modes(model), torch.no_grad():
        given = inputs()
        model.to(given[0].device).eval()
        model(*given)
