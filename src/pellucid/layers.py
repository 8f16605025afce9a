"""Building blocks of convolutional networks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pellucid.errors import UsageError

NormType = Literal["batch", "group", "instance", "layer"]
MIN_GROUP = 4


class Flatten(nn.Module):
    """Flatten every axis but the first: (batch, channel, row, column) → (batch, channel · row · column)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` as (batch, features)."""
        return x.flatten(1)


class CallableModel(nn.Module):
    """A plain callable as a module.

    Modules and parameters that it refers to by name, or holds, are its own: they are trained, saved and switched to
    evaluation with it. What it reaches in other ways it does not know.
    """

    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        self.function = function
        for referred, value in _referred(function).items():
            name = f"its_{referred}" if hasattr(self, referred) else referred
            if isinstance(value, nn.Module):
                self.add_module(name, value)
            elif isinstance(value, nn.Parameter):
                self.register_parameter(name, value)

    def forward(self, *inputs: Any) -> Any:
        """Call the function."""
        return self.function(*inputs)


def _referred(function: Any) -> dict[str, Any]:
    """What a callable refers to, by name: attributes of an object, closed-over and global variables of a function."""
    if isinstance(function, functools.partial):
        given = {f"argument_{i}": value for i, value in enumerate(function.args)} | function.keywords
        found = _referred(function.func) | given
        return found | ({"module": function.func} if isinstance(function.func, nn.Module) else {})
    if inspect.ismethod(function):
        owner = function.__self__
        return {"module": owner} if isinstance(owner, nn.Module) else _flat(vars(owner))
    if inspect.isfunction(function):
        names = inspect.getclosurevars(function)
        return _flat({**names.globals, **names.nonlocals})
    return _flat(getattr(function, "__dict__", {}))


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and under numbered names the members of those that are lists or tuples."""
    lists = {name: value for name, value in values.items() if isinstance(value, list | tuple)}
    members = {f"{name}_{i}": member for name, value in lists.items() for i, member in enumerate(value)}
    return {name.strip("_"): value for name, value in {**values, **members}.items()}


def sequential(*modules: nn.Module) -> nn.Sequential:
    """Chain modules: `nn.Sequential` under the chapter's name."""
    return nn.Sequential(*modules)


def norm_layer(kind: NormType, n_channels: int) -> nn.Module:
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
    raise UsageError(f"norm {kind!r} does not exist: use 'batch', 'group', 'instance', 'layer' or None")


class ConvLayer(nn.Sequential):
    """A convolution with its normalization and activation function.

    Args:
        ni: Channels in.
        nf: Channels out.
        ks: Kernel size.
        stride: Pixels between two positions of the kernel.
        padding: Pixels added on each side; None takes ks // 2, which keeps the size at stride 1 for odd kernels.
        norm: Kind of normalization, see `norm_layer`; None for none.
        act: Makes the activation function; None for none.
        act_first: Activation before the norm, as the chapter has it, instead of after.
        bias: Whether the convolution has a bias; None gives one unless a batch or instance norm follows it directly,
            which takes the mean of each channel away again.

    Raises:
        UsageError: there is no such norm.
    """

    def __init__(
        self,
        ni: int,
        nf: int,
        ks: int = 3,
        stride: int = 1,
        padding: int | None = None,
        *,
        norm: NormType | None = "batch",
        act: Callable[[], nn.Module] | None = nn.ReLU,
        act_first: bool = False,
        bias: bool | None = None,
    ):
        if bias is None:
            bias = norm not in ("batch", "instance") or (act_first and act is not None)
        conv = nn.Conv2d(ni, nf, ks, stride, ks // 2 if padding is None else padding, bias=bias)
        after = [norm_layer(norm, nf)] if norm else []
        if act is not None:
            after.insert(0 if act_first else len(after), act())
        super().__init__(conv, *after)

    def __getitem__(self, idx: Any) -> Any:
        """A child; for a slice a plain Sequential of children, as torch would call our `__init__` with them."""
        return nn.Sequential(*list(self)[idx]) if isinstance(idx, slice) else super().__getitem__(idx)


class ResBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut: relu(convs(x) + shortcut(x)).

    The second norm starts at zero, so a fresh block passes its input on. A shortcut that changes the size averages
    2×2 pixels and matches the channels with a 1×1 convolution.

    Source: He et al., arXiv:1512.03385, section 3; zero start and averaged shortcut: He et al., arXiv:1812.01187.
    """

    def __init__(self, ni: int, nf: int, stride: int = 1):
        super().__init__()
        last = ConvLayer(nf, nf, act=None)
        nn.init.zeros_(last[1].weight)  # pyright: ignore[reportArgumentType]
        self.convs = nn.Sequential(ConvLayer(ni, nf, stride=stride), last)
        shortcut: list[nn.Module] = [nn.AvgPool2d(2, ceil_mode=True)] if stride == 2 else []
        if ni != nf:
            shortcut.append(ConvLayer(ni, nf, ks=1, act=None))
        self.shortcut = nn.Sequential(*shortcut)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(convs(x) + shortcut(x))."""
        return self.act(torch.add(self.convs(x), self.shortcut(x)))
