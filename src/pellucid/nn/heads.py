"""A network for photos in two parts: a body that was trained on other images, and a head for the classes at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from pellucid.errors import UsageError
from pellucid.nn.layers import AdaptiveConcatPool2d, Flatten, LinBnDrop

POOLINGS = ("Pool1d", "Pool2d", "Pool3d")


def create_body(model: nn.Module, cut: int | Callable[[nn.Module], nn.Module] | None = None) -> nn.Module:
    """The part of a network before its last pooling, which gives maps of features.

    Args:
        model: Its children run one after the other, as in a `Sequential`.
        cut: How many children are kept, negative from the end; or a function model → body. None cuts before the last
            child that pools.

    Raises:
        UsageError: no child of the model pools, and `cut` does not say where to cut.
    """
    if callable(cut):
        return cut(model)
    children = list(model.children())
    if cut is None:
        pooling = [i for i, child in enumerate(children) if any(map(_pools, child.modules()))]
        if not pooling:
            raise UsageError(
                f"no child of this {type(model).__name__} is a pooling layer, so where its body ends is not known: "
                "give cut=, how many of its children to keep, or a function model → body"
            )
        cut = pooling[-1]
    return nn.Sequential(*children[:cut])


def create_head(
    nf: int,
    n_out: int,
    lin_ftrs: Sequence[int] | None = None,
    ps: float | Sequence[float] = 0.5,
    pool: bool = True,
    concat_pool: bool = True,
    first_bn: bool = True,
    bn_final: bool = False,
    lin_first: bool = False,
) -> nn.Sequential:
    """A classifier of feature maps: pooling, then linear layers with batchnorm and dropout before them.

    Args:
        nf: Channels of the maps.
        n_out: Classes.
        lin_ftrs: Features between the linear layers; None has 512 between two, `[]` makes one layer.
        ps: Dropout before each linear layer; a single number is for the last, and half of it for the others.
        pool: Pool the maps first; without, the input is features (batch, nf).
        concat_pool: Pool largest values and means side by side, so that features are 2 `nf`, rather than means alone.
        first_bn: Batchnorm of the pooled features.
        bn_final: Batchnorm of the outputs.
        lin_first: Each linear layer before its batchnorm and dropout.

    Raises:
        UsageError: as many dropouts are given as neither one nor a layer each.
    """
    sizes = [nf * (2 if pool and concat_pool else 1), *([512] if lin_ftrs is None else lin_ftrs), n_out]
    n = len(sizes) - 1
    drops = [float(p) for p in ps] if isinstance(ps, Sequence) else [ps]
    drops = [drops[0] / 2] * (n - 1) + drops if len(drops) == 1 else drops
    if len(drops) != n:
        raise UsageError(f"a head of {n} linear layers has {n} dropouts, ps has {len(drops)}: give one, or {n}")
    layers: list[nn.Module] = []
    if pool:
        layers += [AdaptiveConcatPool2d() if concat_pool else nn.AdaptiveAvgPool2d(1), Flatten()]
    if lin_first:
        layers.append(nn.Dropout(drops[0]))
        drops = drops[1:]
    for i in range(n - lin_first):
        act = nn.ReLU() if i < n - 1 else None
        layers += LinBnDrop(sizes[i], sizes[i + 1], first_bn or i > 0, drops[i], act, lin_first)
    if lin_first:
        layers.append(nn.Linear(sizes[-2], n_out))
    if bn_final:
        layers.append(nn.BatchNorm1d(n_out, momentum=0.01))
    return nn.Sequential(*layers)


def _pools(module: nn.Module) -> bool:
    return type(module).__name__.endswith(POOLINGS)
