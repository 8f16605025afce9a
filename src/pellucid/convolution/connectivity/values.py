"""Rules of operations on single places, of norms and of what runs along whole axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pellucid.convolution.connectivity.axes import everything, groups, part, window
from pellucid.convolution.connectivity.moves import Gather, Move, Reshape, Shape
from pellucid.convolution.connectivity.registry import Input, Read, inputs_in, per_axis, rule, whole
from pellucid.convolution.connectivity.weights import Copy, Function, Kernel, Standardized, Weights

POINTWISE = """
abs absolute acos acosh add addcdiv addcmul alpha_dropout asin asinh atan atan2 atanh bitwise_and bitwise_not
bitwise_or ceil celu clamp clamp_max clamp_min clip cos cosh div divide double eq erf exp exp2 expm1 fill float floor
floordiv ge gt half hardshrink hardsigmoid iadd imul isub itruediv le lerp log log10 log1p log2 logical_and
logical_not logical_or logit logsigmoid lt masked_fill maximum minimum mish mul multiply ne neg negative pos pow prelu
radd reciprocal relu6 remainder rmul round rrelu rsqrt rsub selu sgn sign sin sinh softplus softshrink
softsign sqrt square sub subtract tan tanhshrink threshold to truediv true_divide trunc type type_as where
CELU Hardshrink Hardsigmoid LogSigmoid Mish PReLU RReLU SELU Softplus Softshrink Softsign Tanhshrink Threshold
"""
UNCHANGED = """
clone contiguous cpu cuda detach dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout
Identity Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout
"""


@rule(POINTWISE)
def pointwise(out: Shape, *args: Any, **kwargs: Any) -> list[Read]:
    """Each place reads its own; smaller tensors are repeated."""
    inputs = inputs_in((args, kwargs))
    return [Read(x, repeated(x.shape, out), Function() if len(inputs) == 1 else None) for x in inputs]


@rule(UNCHANGED)
def unchanged(out: Shape, x: Input, *_: Any, **__: Any) -> list[Read]:
    """In evaluation mode, the same number."""
    return [Read(x, (), Copy())]


def _function(x: Input, details: str, formula: str) -> list[Read]:
    return [Read(x, (), Function(details, formula))]


@rule("relu ReLU")
def relu(out: Shape, x: Input, inplace: bool = False) -> list[Read]:
    """Zero or more."""
    return _function(x, "max(0, x)", "MAX(0,{x})")


@rule("leaky_relu LeakyReLU")
def leaky_relu(out: Shape, x: Input, negative_slope: float = 0.01, inplace: bool = False) -> list[Read]:
    """Less steep below zero."""
    return _function(x, f"x, or {negative_slope:g}·x below 0", f"IF({{x}}>0,{{x}},{negative_slope}*{{x}})")


@rule("hardtanh Hardtanh ReLU6")
def hardtanh(out: Shape, x: Input, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> list[Read]:
    """Cut off on both sides."""
    return _function(x, f"between {min_val:g} and {max_val:g}", f"MIN({max_val},MAX({min_val},{{x}}))")


@rule("elu ELU")
def elu(out: Shape, x: Input, alpha: float = 1.0, inplace: bool = False) -> list[Read]:
    """Levels off at −α."""
    return _function(x, "x, or α·(exp(x) − 1) below 0", f"IF({{x}}>0,{{x}},{alpha}*(EXP({{x}})-1))")


@rule("gelu GELU")
def gelu(out: Shape, x: Input, approximate: str = "none") -> list[Read]:
    """Times the normal distribution function."""
    if approximate == "none":
        return _function(x, "x·Φ(x)", "{x}*NORMSDIST({x})")
    return _function(x, "x·Φ(x), by tanh", "{x}/2*(1+TANH(SQRT(2/PI())*({x}+0.044715*{x}^3)))")


@rule("silu SiLU")
def silu(out: Shape, x: Input, inplace: bool = False) -> list[Read]:
    """Times its sigmoid."""
    return _function(x, "x/(1 + exp(−x))", "{x}/(1+EXP(-{x}))")


@rule("sigmoid Sigmoid")
def sigmoid(out: Shape, x: Input, **_: Any) -> list[Read]:
    """Between 0 and 1."""
    return _function(x, "1/(1 + exp(−x))", "1/(1+EXP(-{x}))")


@rule("tanh Tanh")
def tanh(out: Shape, x: Input, **_: Any) -> list[Read]:
    """Between −1 and 1."""
    return _function(x, "tanh(x)", "TANH({x})")


@rule("hardswish Hardswish")
def hardswish(out: Shape, x: Input, inplace: bool = False) -> list[Read]:
    """A `silu` of straight lines and one parabola."""
    return _function(x, "x·(x + 3)/6 between −3 and 3", "{x}*MIN(6,MAX(0,{x}+3))/6")


def repeated(shape: Shape, out: Shape) -> tuple[Move, ...]:
    """Moves of broadcasting."""
    full = (1,) * (len(out) - len(shape)) + shape
    moves: list[Move] = [] if full == shape else [Reshape(shape, full)]
    moves += [Gather(dim, everything(1, n)) for dim, n in enumerate(out) if full[dim] != n]
    return tuple(moves)


def _with_own(x: Input, dims: Sequence[int], *more: Move, weights: Weights | None = None) -> list[Read]:
    """Each place reads itself and, for a statistic, everything along `dims`."""
    along = [Gather(dim, everything(x.shape[dim], x.shape[dim])) for dim in dims]
    return [Read(x, (), weights), Read(x, (*along, *more), weights)]


@rule("batch_norm BatchNorm? SyncBatchNorm")
def batch_norm(
    out: Shape, x: Input, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: Any = None, eps: float = 1e-5,
) -> list[Read]:  # fmt: skip
    """Each place reads its own, in evaluation mode; without running statistics the whole channel."""
    if running_mean is None:
        return _with_own(x, range(2, len(out)))
    given = (weight, bias, running_mean, running_var)
    known = all(value is None or isinstance(value, Tensor) for value in given)  # rather than what a graph computes
    return [Read(x, (), Standardized(eps, *given) if known else None)]


@rule("instance_norm InstanceNorm?")
def instance_norm(
    out: Shape, x: Input, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: Any = None, eps: float = 1e-5,
) -> list[Read]:  # fmt: skip
    """The whole channel, unless running statistics are kept."""
    if running_mean is not None:
        return batch_norm(out, x, running_mean, running_var, weight, bias, eps=eps)
    return _with_own(x, range(2, len(out)), weights=Standardized(eps, weight, bias, groups=x.shape[1]))


@rule("group_norm GroupNorm")
def group_norm(
    out: Shape, x: Input, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> list[Read]:
    """Everything in the group of channels."""
    own_group = Gather(1, groups(x.shape[1], out[1], num_groups))
    return _with_own(x, range(2, len(out)), own_group, weights=Standardized(eps, weight, bias, groups=num_groups))


@rule("layer_norm LayerNorm rms_norm RMSNorm")
def layer_norm(out: Shape, x: Input, normalized_shape: Any, *_: Any, **__: Any) -> list[Read]:
    """Everything along the last axes."""
    return _with_own(x, range(len(out) - len(per_axis(normalized_shape, 1)), len(out)))


@rule("local_response_norm LocalResponseNorm")
def local_response_norm(out: Shape, x: Input, size: int, *_: Any, **__: Any) -> list[Read]:
    """The neighbouring channels."""
    return [Read(x), Read(x, (Gather(1, window(out[1], out[1], size, before=size // 2)),))]


@rule("softmax log_softmax softmin Softmax LogSoftmax Softmin cumsum cumprod")
def along_one_axis(out: Shape, x: Input, dim: int | None = None, *_: Any, **__: Any) -> list[Read]:
    """Everything along one axis."""
    return _with_own(x, [(1 if dim is None else dim) % len(out)])


@rule("Softmax2d")
def softmax2d(out: Shape, x: Input) -> list[Read]:
    """All channels."""
    return _with_own(x, [1])


@rule("normalize")
def normalize(out: Shape, x: Input, p: float = 2.0, dim: int = 1, *_: Any, **__: Any) -> list[Read]:
    """Everything along one axis."""
    return _with_own(x, [dim % len(out)])


@rule("mean sum prod amax amin max min var std logsumexp norm median all any argmax argmin")
def reduction(out: Any, x: Input, dim: Any = None, *_: Any, **kwargs: Any) -> Any:
    """Everything along the axes that go."""
    if isinstance(dim, Input) or isinstance(kwargs.get("other"), Input):
        return pointwise(out, x, dim, **kwargs)
    if isinstance(out, list):
        return [reduction(shape, x, dim, **kwargs) for shape in out]
    dims = range(len(x.shape)) if dim is None else [d % len(x.shape) for d in per_axis(dim, 1)]
    left = tuple(1 if d in dims else n for d, n in enumerate(x.shape))
    return [Read(x, (*(Gather(d, everything(x.shape[d], 1)) for d in dims), Reshape(left, out)))]


@rule("linear Linear LazyLinear")
def linear(out: Shape, x: Input, weight: Any, bias: Any = None) -> list[Read]:
    """Everything along the last axis."""
    last = len(out) - 1
    weights = Kernel(weight, bias, dim=last) if isinstance(weight, Tensor) else None
    return [Read(x, (Gather(last, everything(x.shape[-1], out[-1])),), weights)]


@rule("matmul bmm mm")
def matmul(out: Shape, a: Input, b: Input) -> list[Read]:
    """A row of the first and a column of the second."""
    if not len(a.shape) == len(b.shape) == len(out) or a.shape[:-2] != b.shape[:-2]:
        return whole(out, a) + whole(out, b)
    last = len(out) - 1
    return [
        Read(a, (Gather(last, everything(a.shape[-1], out[-1])),)),
        Read(b, (Gather(last - 1, everything(b.shape[-2], out[-2])),)),
    ]


@rule("glu GLU")
def glu(out: Shape, x: Input, dim: int = -1) -> list[Read]:
    """The first half along an axis times a gate made of the second."""
    dim %= len(out)
    return [Read(x, (Gather(dim, part(x.shape[dim], out[dim], start)),)) for start in (0, out[dim])]
