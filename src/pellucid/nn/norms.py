"""Normalization layers, by kind."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, TypeVar

from torch import nn

from pellucid.errors import UsageError

NormKind = Literal["batch", "group", "instance", "layer"]
Norm = TypeVar("Norm", bound=type[nn.Module])

_NORMS: list[type[nn.Module]] = [
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
]


def norm(cls: Norm) -> Norm:
    """Class decorator: the layer is a norm. Its own parameters do not decay, and train in groups that are frozen.

    ```
    @norm
    class ScaleNorm(nn.Module): ...
    ```
    """
    _NORMS.append(cls)
    return cls


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm of torch's, or one that `norm` has registered."""
    return isinstance(module, tuple(_NORMS))


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm of torch's, of any number of dimensions, lazy and synchronised ones too."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def norm_params(model: nn.Module) -> set[int]:
    """Identities of the parameters that belong to norms."""
    return {id(p) for m in model.modules() if is_norm(m) for p in m.parameters(recurse=False)}


class NormType(Enum):
    """Kinds of norms.

    `Batch`, `Instance`, `Group` and `Layer` as in `norm_layer`; `BatchZero` and `InstanceZero` begin with a scale of 0;
    `Weight` (arXiv:1602.07868) and `Spectral` (arXiv:1802.05957) are of the kernel.
    """

    Batch, BatchZero, Weight, Spectral, Instance, InstanceZero, Group, Layer = range(1, 9)


NAMED: dict[str, NormType] = {
    "batch": NormType.Batch,
    "group": NormType.Group,
    "instance": NormType.Instance,
    "layer": NormType.Layer,
}
BATCH = NormType.Batch, NormType.BatchZero
INSTANCE = NormType.Instance, NormType.InstanceZero
MIN_GROUP = 4


def norm_layer(kind: NormKind, n_channels: int) -> nn.Module:
    """A normalization layer with a learned scale and shift for each of `n_channels`.

    Values are brought to mean 0 and variance 1, taken for `batch` over a channel in all images of the batch, for
    `instance` over a channel of one image, for `layer` over all channels of one image, and for `group` over groups of
    channels of one image: up to 32 groups, of four channels at least, so that few channels make few groups and not
    instance norm.

    Raises:
        UsageError: there is no such kind.

    Source: batch arXiv:1502.03167, group arXiv:1803.08494 (section 4.1 compares numbers of groups),
    instance arXiv:1607.08022, layer arXiv:1607.06450 (for convolutions as in arXiv:1803.08494, section 3.1).
    """
    if kind == "batch":
        return nn.BatchNorm2d(n_channels)
    if kind == "instance":
        return nn.InstanceNorm2d(n_channels, affine=True)
    if kind == "layer":
        return nn.GroupNorm(1, n_channels)
    if kind == "group":
        fitting = [n for n in range(1, 33) if n_channels % n == 0 and n_channels // n >= MIN_GROUP]
        return nn.GroupNorm(max(fitting, default=1), n_channels)
    raise _no_norm(kind)


def BatchNorm(nf: int, ndim: int = 2, norm_type: Any = NormType.Batch, **kwargs: Any) -> nn.Module:
    """torch's batchnorm over `ndim` axes, whose scale begins at 1, or 0 under `NormType.BatchZero`, and shift at 0.001.

    Args:
        nf: Channels.
        ndim: Axes of an image: 1, 2 or 3.
        norm_type: `NormType.Batch` or `NormType.BatchZero`.
        kwargs: Those of `nn.BatchNorm2d`: eps, momentum, affine, track_running_stats.
    """
    return _begun(of_axes("BatchNorm", ndim)(nf, **kwargs), zero=norm_type is NormType.BatchZero)


def InstanceNorm(
    nf: int, ndim: int = 2, norm_type: Any = NormType.Instance, affine: bool = True, **kwargs: Any
) -> nn.Module:
    """torch's instance norm, begun as `BatchNorm`; zero under `NormType.InstanceZero`."""
    layer = of_axes("InstanceNorm", ndim)(nf, affine=affine, **kwargs)
    return _begun(layer, zero=norm_type is NormType.InstanceZero)


def norm_type_of(kind: Any) -> NormType | None:
    """The `NormType` of a name; None for none.

    Raises:
        UsageError: there is no such norm.
    """
    if kind is None or isinstance(kind, NormType):
        return kind
    if kind not in NAMED:
        raise _no_norm(kind)
    return NAMED[kind]


def takes_mean(kind: NormType | None) -> bool:
    """Whether a norm takes the mean of each channel away, and with it a bias before it."""
    return kind in (*BATCH, *INSTANCE)


def norm_of(kind: NormType | None, nf: int, ndim: int) -> nn.Module | None:
    """The layer of a norm; None where there is none, as for norms of the kernel."""
    if kind in BATCH:
        return BatchNorm(nf, ndim, kind)
    if kind in INSTANCE:
        return InstanceNorm(nf, ndim, kind)
    if kind in (NormType.Group, NormType.Layer):
        return norm_layer("group" if kind is NormType.Group else "layer", nf)
    return None


def of_axes(name: str, ndim: int) -> Callable[..., Any]:
    """torch's class of that name for images of `ndim` axes.

    Raises:
        UsageError: there is none.
    """
    if ndim not in (1, 2, 3):
        raise UsageError(f"ndim is the number of axes of an image, 1, 2 or 3, got {ndim}")
    return getattr(nn, f"{name}{ndim}d")


def _begun(layer: Any, zero: bool) -> Any:
    if layer.affine:
        nn.init.constant_(layer.weight, 0.0 if zero else 1.0)
        nn.init.constant_(layer.bias, 1e-3)
    return layer


def _no_norm(kind: Any) -> UsageError:
    return UsageError(f"norm {kind!r} does not exist: use 'batch', 'group', 'instance', 'layer' or None")
