"""Hyper-parameters under one name each, whichever optimizer they belong to: read, checked and set here.

Names are fastai's: `lr`, `mom` (torch's `momentum`, or the first of `betas`), `sqr_mom` (the second), `eps`, `wd`
(`weight_decay`). What has no such name keeps its own, as RMSprop's `alpha` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pellucid.errors import UsageError
from pellucid.number import is_number, number

Hyper = tuple[str, int]  # name, parameter group

_SHORT = {"momentum": "mom", "weight_decay": "wd"}
_LONG = {short: long for long, short in _SHORT.items()}
_DECAYS = "mom", "sqr_mom"
_NOT_NEGATIVE = "lr", "eps", "wd"
_NO_HYPERS = "params", "group"  # `group` is the number of the learner's group, see `param_groups`


def numbers(group: Mapping[str, Any]) -> dict[str, Any]:
    """Every number in a parameter group: Python's or numpy's, or a tensor of one value (torch's `capturable` rates)."""
    found: dict[str, Any] = {}
    for name, value in group.items():
        if value is None or type(value) is bool:  # half of a group are switches, and this runs several times a batch
            continue
        if name == "betas":
            found["mom"], found["sqr_mom"] = value
        # Adafactor's `eps` is a pair: such settings have no single value that could be recorded or scheduled.
        elif name not in _NO_HYPERS and (is_number(value) or (isinstance(value, Tensor) and value.numel() == 1)):
            found[_SHORT.get(name, name)] = value
    return found


class HyperRows:
    """The row of each hyper-parameter in a table of their values, in the order in which they came.

    Parameter groups and names may come while a table is filled, and go: a row stays once it is there.
    """

    def __init__(self) -> None:
        self._rows: dict[Hyper, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Hyper]:
        return iter(self._rows)

    def of(self, hypers: Iterable[Hyper]) -> list[int]:
        """Their rows, new ones for those that have none."""
        return [self._rows.setdefault(each, len(self._rows)) for each in hypers]

    def by_name(self) -> dict[str, list[int]]:
        """Name → rows of its groups, in ascending order."""
        names = dict.fromkeys(name for name, _ in self._rows)
        return {name: [row for (each, _), row in self._rows.items() if each == name] for name in names}


def hyper(value: Any, name: str) -> float:
    """A value of a hyper-parameter as a Python float.

    Raises:
        UsageError: it is no finite number, or one that makes no sense: `lr`, `wd` and `eps` start at 0, and so do `mom`
            and `sqr_mom`, which stay below 1. Other names are the optimizer's own and may have any value.
    """
    found = number(value, name)
    if name in _DECAYS and not 0 <= found < 1:
        raise UsageError(f"{name} is the share that is kept at each step, at least 0 and below 1, got {found}")
    if name in _NOT_NEGATIVE and found < 0:
        raise UsageError(f"{name} must be at least 0, got {found}")
    return found


def hypers(opt: Optimizer) -> dict[str, list[float]]:
    """Every hyper-parameter as `name → one value per learner group`: lr, mom, sqr_mom, eps, wd, and torch's own names.

    The value of a group is that of its first torch group; the zero weight decay of norms and biases is not listed.
    """
    first = [numbers(group) for group in _first_of_each(opt, _learner_groups(opt))]
    return {name: [found[name] for found in first] for name in _schedulable(first[0])}


def set_hyper(opt: Optimizer, name: str, values: float | Sequence[float]) -> None:
    """Set a hyper-parameter, one value for all learner groups or one each.

    Raises:
        UsageError: the optimizer has no such hyper-parameter, the number of values is not that of the groups, or one of
            them is no number or out of range, see `hyper`.
    """
    owners = _learner_groups(opt)
    known = _schedulable(numbers(opt.param_groups[owners.index(0)]))
    if name not in known:
        raise UsageError(f"{type(opt).__name__} has no hyper-parameter {name!r}; it has {', '.join(known)}")
    n_groups = max(owners) + 1
    one = is_number(values) or isinstance(values, str) or not isinstance(values, Iterable)
    each = [values] * n_groups if one else list(values)  # pyright: ignore[reportArgumentType]
    if len(each) != n_groups:
        raise UsageError(f"{len(each)} values of {name} for {n_groups} parameter groups")
    each = [hyper(value, name) for value in each]
    for owner, group in zip(owners, opt.param_groups, strict=True):
        if not (name == "wd" and group.get("exempt")):
            _set(group, name, each[owner])


def has_momentum(opt: Optimizer) -> bool:
    """Whether it was made to use momentum; SGD of momentum 0 keeps no mean of gradients that a schedule could decay."""
    return any("betas" in group or group.get("momentum", 0) != 0 for group in opt.param_groups)


def snapshot_hypers(opt: Optimizer) -> list[dict[str, Any]]:
    """Copy the settings of every torch group, to put back with `restore_hypers`."""
    return [{k: v for k, v in group.items() if k != "params"} for group in opt.param_groups]


def restore_hypers(opt: Optimizer, snapshot: list[dict[str, Any]]) -> None:
    """Put settings back that `snapshot_hypers` copied."""
    for group, settings in zip(opt.param_groups, snapshot, strict=True):
        group.update(settings)


# The functions below run several times a batch, for every schedule and for the record of it.
def _learner_groups(opt: Optimizer) -> list[int]:
    """For each torch group the index of its learner group; a group that is not ours stands for itself."""
    given = [group.get("group", i) for i, group in enumerate(opt.param_groups)]
    order = {n: index for index, n in enumerate(sorted(set(given)))}
    return [order[n] for n in given]


def _first_of_each(opt: Optimizer, owners: list[int]) -> list[dict[str, Any]]:
    return [opt.param_groups[owners.index(index)] for index in range(max(owners) + 1)]


def _schedulable(found: dict[str, Any]) -> list[str]:
    # Whole numbers under other names are sizes and counts, as LBFGS's `max_iter`: a schedule would make floats of them.
    return [name for name, v in found.items() if name in _NOT_NEGATIVE or name in _DECAYS or isinstance(v, float)]


def _set(group: dict[str, Any], name: str, value: float) -> None:
    if name in _DECAYS and "betas" in group:
        group["betas"] = (value, group["betas"][1]) if name == "mom" else (group["betas"][0], value)
    else:
        group[_LONG.get(name, name)] = value
