"""Building blocks of convolutional networks, under fastai's names and with its arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from pellucid.errors import UsageError
from pellucid.nn.norms import BatchNorm, NormType, norm_of, norm_type_of, of_axes, takes_mean
from pellucid.padding import same_sides

Mish, Swish = nn.Mish, nn.SiLU
Initialiser = Callable[[Tensor], Any]
INITIALISERS: dict[Initialiser, tuple[type[nn.Module], ...]] = {
    nn.init.kaiming_uniform_: (nn.ReLU, nn.ReLU6, nn.LeakyReLU, Swish, Mish),
    nn.init.xavier_uniform_: (nn.Sigmoid, nn.Tanh),
}


class Module(nn.Module):
    """`nn.Module` whose subclasses need not call `super().__init__()` before they set layers."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Module:
        """Make the module ready before its `__init__`."""
        module = super().__new__(cls)
        nn.Module.__init__(module)
        return module

    def __init__(self) -> None:
        pass  # not torch's, which would forget the layers of a subclass that calls this one late


class Flatten(nn.Module):
    """Flatten every axis but the first: (batch, channel, row, column) → (batch, channel · row · column).

    Args:
        full: Flatten the first too: → (batch · channel · row · column,).
    """

    def __init__(self, full: bool = False):
        super().__init__()
        self.full = full

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` as (batch, features), or as one vector."""
        return x.flatten(0 if self.full else 1)


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


Lambda = CallableModel


def sequential(*modules: Any) -> nn.Sequential:
    """Chain modules and functions: `nn.Sequential` under the chapter's name."""
    if any(isinstance(module, dict) for module in modules):
        return nn.Sequential(*modules)
    return nn.Sequential(*(m if isinstance(m, nn.Module) else CallableModel(m) for m in modules))


class Conv2dSame(nn.Conv2d):
    """A convolution padded as TensorFlow's 'same': ⌈n / stride⌉ outputs of n pixels, the larger half of zeros after.

    At stride 2 an even image is padded on one side only; PyTorch's symmetric padding would shift what every kernel
    sees by a pixel. Arguments are those of `nn.Conv2d`; a `padding` of one's own is refused.

    Source: tf.nn, "Notes on padding".

    Raises:
        UsageError: `padding` is given.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, **options: Any):
        if options.get("padding", 0) != 0:
            raise UsageError(f"Conv2dSame pads as TensorFlow does, padding={options['padding']!r} has no meaning")
        super().__init__(in_channels, out_channels, kernel_size, stride, **options)

    def forward(self, input: Tensor) -> Tensor:
        """Pad and convolve (batch, channel, row, column)."""
        axes = zip(input.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        (top, bottom), (left, right) = (same_sides(*axis) for axis in axes)
        if (top, left) == (bottom, right):
            return F.conv2d(input, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)
        if self.dilation != (1, 1):
            padded = F.pad(input, (left, right, top, bottom))
            return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        # One zero more after the image than before it is a zero in front of the kernel: the same sums, and no copy of
        # the image, which took a fifth of EfficientNet's time on a CPU.
        weight = F.pad(self.weight, (right - left, 0, bottom - top, 0))
        return F.conv2d(input, weight, self.bias, self.stride, (bottom, right), self.dilation, self.groups)


class AdaptiveConcatPool2d(nn.Module):
    """Largest values and means of each channel, side by side: (batch, c, row, column) → (batch, 2c, size, size).

    Args:
        size: Rows and columns of the result; None for 1.
    """

    def __init__(self, size: int | tuple[int, int] | None = None):
        super().__init__()
        self.size = size or 1
        self.ap, self.mp = nn.AdaptiveAvgPool2d(self.size), nn.AdaptiveMaxPool2d(self.size)

    def forward(self, x: Tensor) -> Tensor:
        """Return maxima, then means."""
        return torch.cat([self.mp(x), self.ap(x)], 1)


def AvgPool(
    ks: int = 2, stride: int | None = None, padding: int = 0, ndim: int = 2, ceil_mode: bool = False
) -> nn.Module:
    """torch's average pooling over `ndim` axes."""
    return of_axes("AvgPool", ndim)(ks, stride=stride, padding=padding, ceil_mode=ceil_mode)


def MaxPool(
    ks: int = 2, stride: int | None = None, padding: int = 0, ndim: int = 2, ceil_mode: bool = False
) -> nn.Module:
    """torch's max pooling over `ndim` axes."""
    return of_axes("MaxPool", ndim)(ks, stride=stride, padding=padding, ceil_mode=ceil_mode)


def AdaptiveAvgPool(sz: int = 1, ndim: int = 2) -> nn.Module:
    """torch's average pooling to `sz` positions on each of `ndim` axes."""
    return of_axes("AdaptiveAvgPool", ndim)(sz)


class PoolFlatten(nn.Sequential):
    """Pool each channel to one value and flatten, as before the last linear layer.

    Args:
        pool_type: `Avg`, `Max`, or `Cat` for both.
    """

    def __init__(self, pool_type: str = "Avg"):
        pools = {"Avg": nn.AdaptiveAvgPool2d, "Max": nn.AdaptiveMaxPool2d, "Cat": AdaptiveConcatPool2d}
        if pool_type not in pools:
            raise UsageError(f"pool_type {pool_type!r} does not exist: use 'Avg', 'Max' or 'Cat'")
        super().__init__(pools[pool_type](1), Flatten())


class LinBnDrop(nn.Sequential):
    """A linear layer with batchnorm and dropout before it, as in a classifier's head.

    Args:
        n_in: Features in.
        n_out: Features out.
        bn: Batchnorm; the linear layer then has no bias.
        p: Share of features that dropout silences; 0 for no dropout.
        act: Activation function after the linear layer.
        lin_first: Linear layer and activation function before batchnorm and dropout.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        bn: bool = True,
        p: float = 0.0,
        act: nn.Module | None = None,
        lin_first: bool = False,
    ):
        linear: list[nn.Module] = [nn.Linear(n_in, n_out, bias=not bn), *([act] if act is not None else [])]
        others = [BatchNorm(n_out if lin_first else n_in, ndim=1)] if bn else []
        others += [nn.Dropout(p)] if p else []
        super().__init__(*(linear + others if lin_first else others + linear))


def init_default(m: nn.Module, func: Initialiser | None = nn.init.kaiming_normal_) -> nn.Module:
    """Set the weight of a layer by `func` and its bias to 0; returns the layer."""
    if func and isinstance(getattr(m, "weight", None), Tensor):
        func(m.weight)  # pyright: ignore[reportArgumentType]
    if isinstance(getattr(m, "bias", None), Tensor):
        nn.init.zeros_(m.bias)  # pyright: ignore[reportArgumentType]
    return m


def init_linear(
    m: nn.Module, act_func: nn.Module | None = None, init: Any = "auto", bias_std: float | None = 0.01
) -> None:
    """Set weight and bias of a layer by the activation function that follows.

    Args:
        m: A linear layer or convolution.
        act_func: The activation function.
        init: `auto` takes Kaiming's uniform values for a ReLU and its like, Xavier's for sigmoid and tanh, and leaves
            the weight as torch made it for others; a function sets the weight; None leaves it.
        bias_std: Standard deviation of the biases; None leaves them as torch made them.
    """
    if not (init == "auto" or init is None or callable(init)):
        raise UsageError(f"init {init!r} does not exist: use 'auto', None, or a function that sets a weight")
    bias: Any = getattr(m, "bias", None)
    if bias is not None and bias_std is not None:
        nn.init.normal_(bias, 0, bias_std) if bias_std else nn.init.zeros_(bias)
    if init == "auto":
        init = next((function for function, kinds in INITIALISERS.items() if isinstance(act_func, kinds)), None)
    if init is not None:
        init(m.weight)


class ConvLayer(nn.Sequential):
    """A convolution with its normalization and activation function.

    Args:
        ni: Channels in.
        nf: Channels out.
        ks: Kernel size.
        stride: Pixels between two positions of the kernel.
        padding: Pixels added on each side; None takes (ks − 1) // 2, which keeps the size at stride 1 for odd kernels,
            and 0 under `transpose`.
        bias: Whether the convolution has a bias; None gives one unless it has a batch or instance norm, which takes
            the mean of each channel away again.
        ndim: Axes of an image: 1, 2 or 3.
        norm_type: Which norm, a `NormType` or the name of a kind of `norm_layer`; None for none. Weight and spectral
            norm are of the kernel.
        bn_1st: The norm before the activation function, or after it.
        act_cls: Makes the activation function; None for none.
        transpose: A transposed convolution.
        init: How the kernel begins, see `init_linear`; None as torch made it.
        xtra: A module at the end.
        bias_std: Standard deviation of the biases at the beginning; None as torch made them.
        norm: Another name of `norm_type`.
        act: Another name of `act_cls`.
        act_first: Activation before the norm, as the chapter has it: `bn_1st=False`, with a bias, as the norm then does
            not follow the convolution directly.
        kwargs: Those of `nn.Conv2d`: groups, dilation, padding_mode.

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
        bias: bool | None = None,
        ndim: int = 2,
        norm_type: Any = NormType.Batch,
        bn_1st: bool = True,
        act_cls: Callable[[], nn.Module] | None = nn.ReLU,
        transpose: bool = False,
        init: Any = "auto",
        xtra: nn.Module | None = None,
        bias_std: float | None = 0.01,
        *,
        norm: Any = ...,
        act: Any = ...,
        act_first: bool = False,
        **kwargs: Any,
    ):
        kind = norm_type_of(norm_type if norm is ... else norm)
        activation = (act_cls if act is ... else act) or (lambda: None)
        activation = activation()
        if bias is None:
            bias = not takes_mean(kind) or (act_first and activation is not None)
        if padding is None:
            padding = 0 if transpose else (ks - 1) // 2
        conv = of_axes("ConvTranspose" if transpose else "Conv", ndim)(
            ni, nf, ks, stride=stride, padding=padding, bias=bias, **kwargs
        )
        init_linear(conv, activation, init, bias_std)
        if kind in (NormType.Weight, NormType.Spectral):
            conv = (weight_norm if kind is NormType.Weight else spectral_norm)(conv)
        after = [norm_of(kind, nf, ndim), activation]
        layers = [conv, *(after if bn_1st and not act_first else reversed(after)), xtra]
        super().__init__(*(layer for layer in layers if layer is not None))

    def __getitem__(self, idx: Any) -> Any:
        """A child; for a slice a plain Sequential of children, as torch would call our `__init__` with them."""
        return nn.Sequential(*list(self)[idx]) if isinstance(idx, slice) else super().__getitem__(idx)


class ResBlock(nn.Module):
    """Convolutions around a shortcut: act(convs(x) + shortcut(x)).

    With `expansion` 1 they are two ks × ks convolutions; otherwise a bottleneck of 1×1, ks × ks and 1×1, between
    ni · expansion and nf · expansion channels. The last norm begins with a scale of 0, so a fresh block passes its
    input on, but for the norm's first shift of 0.001. A shortcut that changes the size averages pixels, and it matches
    the channels with a 1×1 convolution.

    Args:
        expansion: Channels outside over channels inside.
        ni: Channels in, over `expansion`.
        nf: Channels out, over `expansion`.
        stride: Of the block.
        groups: Groups of the ks × ks convolution.
        reduction: Not supported: squeeze and excitation.
        nh1: Channels after the first 1×1 convolution; None for `nh2`.
        nh2: Channels after the ks × ks convolution; None for `nf`.
        dw: That convolution works on each channel alone.
        g2: Groups of the last convolution.
        sa: Not supported: self-attention.
        sym: Not supported: symmetric self-attention.
        norm_type: Norm of the convolutions, see `ConvLayer`.
        act_cls: Makes the activation functions.
        ndim: Axes of an image.
        ks: Kernel size.
        pool: (stride, ndim=, ceil_mode=) → pooling of the shortcut, `AvgPool` or `MaxPool`.
        pool_first: Pool before the shortcut's convolution, or after it.
        kwargs: Those of `ConvLayer`, for all convolutions.

    Source: He et al., arXiv:1512.03385, section 3; zero start and averaged shortcut: He et al., arXiv:1812.01187.
    """

    def __init__(
        self,
        expansion: int,
        ni: int,
        nf: int,
        stride: int = 1,
        groups: int = 1,
        reduction: int | None = None,
        nh1: int | None = None,
        nh2: int | None = None,
        dw: bool = False,
        g2: int = 1,
        sa: bool = False,
        sym: bool = False,
        norm_type: Any = NormType.Batch,
        act_cls: Callable[[], nn.Module] = nn.ReLU,
        ndim: int = 2,
        ks: int = 3,
        pool: Callable[..., nn.Module] = AvgPool,
        pool_first: bool = True,
        **kwargs: Any,
    ):
        super().__init__()
        if reduction or sa or sym:
            raise UsageError("squeeze and excitation (reduction) and self-attention (sa, sym) are not in this ResBlock")
        nh2 = nh2 or nf
        nh1 = nh1 or nh2
        nf, ni = nf * expansion, ni * expansion
        inner = {"norm_type": norm_type, "act_cls": act_cls, "ndim": ndim, **kwargs}
        kind: Any = norm_type_of(norm_type)
        zero = {NormType.Batch: NormType.BatchZero, NormType.Instance: NormType.InstanceZero}.get(kind, kind)
        last = inner | {"norm_type": zero, "act_cls": None}
        if expansion == 1:
            convs = [ConvLayer(ni, nh2, ks, stride, groups=ni if dw else groups, **inner)]
            convs += [ConvLayer(nh2, nf, ks, groups=g2, **last)]
        else:
            convs = [ConvLayer(ni, nh1, 1, **inner)]
            convs += [ConvLayer(nh1, nh2, ks, stride, groups=nh1 if dw else groups, **inner)]
            convs += [ConvLayer(nh2, nf, 1, groups=g2, **last)]
        self.convs = nn.Sequential(*convs)
        shortcut: list[nn.Module] = [ConvLayer(ni, nf, 1, act_cls=None, ndim=ndim, **kwargs)] if ni != nf else []
        if stride != 1:
            shortcut.insert(0 if pool_first else 1, pool(stride, ndim=ndim, ceil_mode=True))
        self.shortcut = nn.Sequential(*shortcut)
        self.act = act_cls()

    def forward(self, x: Tensor) -> Tensor:
        """Return act(convs(x) + shortcut(x))."""
        return self.act(torch.add(self.convs(x), self.shortcut(x)))


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
