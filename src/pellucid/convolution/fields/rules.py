"""What each of PyTorch's operations reads: for every module and function, the moves from its inputs to its output.

A rule is called like the function it describes, with the output's shape first. A module is read as a call whose
arguments are the attributes of the same names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from torch import nn

from pellucid.convolution.fields import taps
from pellucid.convolution.fields.taps import Gather, Move, Permute, Reshape, everything, part

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """A tensor that an operation was given: the step that made it, and its shape with a batch axis first."""

    step: str
    shape: Shape


Path = tuple[Source, tuple[Move, ...]]
Paths = list[Path]
Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}

POINTWISE = """
abs absolute acos acosh add addcdiv addcmul alpha_dropout asin asinh atan atan2 atanh bitwise_and bitwise_not
bitwise_or ceil celu clamp clamp_max clamp_min clip clone contiguous cos cosh cpu cuda detach div divide double
dropout dropout1d dropout2d dropout3d elu eq erf exp exp2 expm1
feature_alpha_dropout fill float floor floordiv ge gelu gt half
hardshrink hardsigmoid hardswish hardtanh iadd imul isub itruediv le leaky_relu lerp log log10 log1p log2 logical_and
logical_not logical_or logit logsigmoid lt masked_fill maximum minimum mish mul multiply ne neg negative pos pow prelu
radd reciprocal relu relu6 remainder rmul round rrelu rsqrt rsub selu sgn sigmoid sign silu sin sinh softplus softshrink
softsign sqrt square sub subtract tan tanh tanhshrink threshold to truediv true_divide trunc type type_as where
Identity Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout ELU CELU GELU Hardshrink Hardsigmoid
Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU ReLU ReLU6 RReLU SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh
Tanhshrink Threshold
"""
SAME_VALUES = "flatten reshape reshape_as squeeze unflatten unsqueeze view view_as Flatten Unflatten"
GRIDS = "1d 2d 3d"
WINDOWS = ("conv", "pool", "Conv", "Pool")


def rule(*families: str) -> Callable[[Rule], Rule]:
    """Register a rule under names; a name that ends in `?` stands for its 1d, 2d and 3d form."""

    def register(function: Rule) -> Rule:
        for name in " ".join(families).split():
            for dims in GRIDS.split() if name.endswith("?") else [""]:
                RULES[name.removesuffix("?") + dims] = function
        return function

    return register


def paths_of(out: Any, target: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, bool]:
    """The paths from a call's inputs to its output, and whether its rule is known.

    Args:
        out: Shape of the output, or a list of shapes.
        target: The module, the function or the method's name.
        args, kwargs: Of the call, tensors as `Source`.

    Returns:
        Paths, or a list of paths for each output if there are several.
    """
    if isinstance(target, nn.Module):
        names = [kind.__name__ for kind in type(target).__mro__]
        found = next((RULES[name] for name in names if name in RULES), None)
        if found:
            kwargs = _attributes(found, target) | kwargs
    else:
        name = target if isinstance(target, str) else target.__name__
        found = RULES.get(name.strip("_"))
    kwargs = {"x" if name == "input" else name: value for name, value in kwargs.items() if name != "out"}
    if found and _takes(found, out, args, kwargs):
        return found(out, *args, **kwargs), True
    paths = [path for source in sources_in((args, kwargs)) for path in whole(out, source)]
    return [paths] * len(out) if isinstance(out, list) else paths, False


def _takes(found: Rule, *call: Any) -> bool:
    out, args, kwargs = call
    try:
        inspect.signature(found).bind(out, *args, **kwargs)
    except TypeError:
        return False
    return True


def _attributes(found: Rule, module: nn.Module) -> dict[str, Any]:
    names = [name for name, p in list(inspect.signature(found).parameters.items())[2:] if p.kind is not p.VAR_KEYWORD]
    return {name: getattr(module, name) for name in names if hasattr(module, name)}


def sources_in(value: Any) -> list[Source]:
    """The tensors among arguments, nested lists included."""
    if isinstance(value, Source):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [source for item in value for source in sources_in(item)] if isinstance(value, list | tuple) else []


def _per_axis(value: Any, n: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * n if len(values) == 1 else values


def whole(out: Any, x: Source) -> Paths:
    """Every output place reads every input place."""
    shape = out[0] if isinstance(out, list) else out
    gathers = [Gather(dim, everything(n, 1)) for dim, n in enumerate(x.shape)]
    ones = Reshape((1,) * len(x.shape), (1,) * len(shape))
    return [(x, (*gathers, ones, *(Gather(dim, everything(1, n)) for dim, n in enumerate(shape))))]


@rule(POINTWISE)
def pointwise(out: Shape, *args: Any, **kwargs: Any) -> Paths:
    """Each place reads its own; smaller tensors are repeated."""
    return [(x, _spread(x.shape, out)) for x in sources_in((args, kwargs))]


def _spread(shape: Shape, out: Shape) -> tuple[Move, ...]:
    full = (1,) * (len(out) - len(shape)) + shape
    moves: list[Move] = [] if full == shape else [Reshape(shape, full)]
    moves += [Gather(dim, everything(1, n)) for dim, n in enumerate(out) if full[dim] != n]
    return tuple(moves)


@rule("expand expand_as broadcast_to")
def spread(out: Shape, x: Source, *_: Any, **__: Any) -> Paths:
    """A tensor repeated along axes of length one."""
    return [(x, _spread(x.shape, out))]


@rule(SAME_VALUES)
def same_values(out: Shape, x: Source, *_: Any, **__: Any) -> Paths:
    """The same values in another shape."""
    return [(x, (Reshape(x.shape, out),))]


@rule("permute")
def permute(out: Shape, x: Source, *dims: Any, **kwargs: Any) -> Paths:
    """Axes in another order."""
    order = kwargs.get("dims", dims[0] if len(dims) == 1 else dims)
    return [(x, (Permute(tuple(d % len(out) for d in order)),))]


@rule("transpose swapaxes swapdims")
def transpose(out: Shape, x: Source, dim0: int, dim1: int) -> Paths:
    """Two axes swapped."""
    order = list(range(len(out)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return [(x, (Permute(tuple(d % len(out) for d in order)),))]


def _channels(shape: Shape, out: Shape, groups: int, dim: int = 1) -> Gather:
    n_in, n_out = shape[dim], out[dim]
    if groups == 1:
        return Gather(dim, everything(n_in, n_out))
    group = tuple(range(n_in // groups))
    return Gather(dim, taps.Taps(n_in, n_out, (group,) * (n_out // groups), n_in // groups))


@rule("conv? Conv?")
def conv(
    out: Shape,
    x: Source,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Paths:
    """A window along each axis of the grid; all channels of the group."""
    sizes = tuple(weight.shape[2:])
    strides, gaps = _per_axis(stride, len(sizes)), _per_axis(dilation, len(sizes))
    if isinstance(padding, str):
        totals = [gap * (k - 1) if padding == "same" else 0 for k, gap in zip(sizes, gaps, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(p, p) for p in _per_axis(padding, len(sizes))]
    moves: list[Move] = []
    for dim, (k, s, gap, (low, high)) in enumerate(zip(sizes, strides, gaps, sides, strict=True), start=2):
        n = x.shape[dim]
        if padding_mode != "zeros":
            moves.append(Gather(dim, _padded(n, low, high, padding_mode)))
            n, low = n + low + high, 0
        moves.append(Gather(dim, taps.window(n, out[dim], k, s, low, gap)))
    return [(x, (*moves, _channels(x.shape, out, groups)))]


@rule("conv_transpose? ConvTranspose?")
def conv_transpose(
    out: Shape,
    x: Source,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Paths:
    """Each input place spread over a window of the output."""
    sizes = tuple(weight.shape[2:])
    axes = zip(sizes, *(_per_axis(v, len(sizes)) for v in (stride, padding, dilation)), strict=True)
    moves = [
        Gather(dim, taps.transposed(x.shape[dim], out[dim], *axis)) for dim, axis in enumerate(axes, start=2)
    ]  # fmt: skip
    return [(x, (*moves, _channels(x.shape, out, groups)))]


def _pooled(out: Shape, x: Source, size: Any, stride: Any, padding: Any, dilation: Any) -> Paths:
    n = len(_per_axis(size, len(out) - 2))
    first = len(out) - n
    axes = zip(*(_per_axis(v, n) for v in (size, stride or size, padding, dilation)), strict=True)
    return [(x, tuple(
        Gather(dim, taps.window(x.shape[dim], out[dim], *axis)) for dim, axis in enumerate(axes, start=first)
    ))]  # fmt: skip


@rule("max_pool? MaxPool? max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices")
def max_pool(
    out: Any,
    x: Source,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    *_: Any,
    **__: Any,
) -> Any:
    """A window in each channel; with indices, twice."""
    if isinstance(out, list):
        return [_pooled(shape, x, kernel_size, stride, padding, dilation) for shape in out]
    return _pooled(out, x, kernel_size, stride, padding, dilation)


@rule("avg_pool? AvgPool?")
def avg_pool(
    out: Shape, x: Source, kernel_size: Any, stride: Any = None, padding: Any = 0, *_: Any, **__: Any
) -> Paths:
    """A window in each channel."""
    return _pooled(out, x, kernel_size, stride, padding, 1)


@rule("lp_pool? LPPool?")
def lp_pool(out: Shape, x: Source, norm_type: Any, kernel_size: Any, stride: Any = None, *_: Any, **__: Any) -> Paths:
    """A window in each channel."""
    return _pooled(out, x, kernel_size, stride, 0, 1)


@rule("adaptive_avg_pool? adaptive_max_pool? AdaptiveAvgPool? AdaptiveMaxPool?")
def adaptive_pool(out: Any, x: Source, *_: Any, **__: Any) -> Any:
    """Windows that tile each axis as evenly as they can."""
    if isinstance(out, list):
        return [adaptive_pool(shape, x) for shape in out]
    return [(x, tuple(Gather(dim, taps.adaptive(x.shape[dim], out[dim])) for dim in range(2, len(out))))]


@rule("interpolate upsample Upsample UpsamplingNearest2d UpsamplingBilinear2d")
def interpolate(
    out: Shape,
    x: Source,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Paths:
    """The neighbours that each new place is interpolated from."""
    if antialias:
        return whole(out, x)
    n_axes = len(out) - 2
    given = scale_factor is not None and not recompute_scale_factor
    factors = _per_axis(scale_factor, n_axes) if given else (None,) * n_axes
    moves = []
    for dim, factor in enumerate(factors, start=2):
        n_in, n_out = x.shape[dim], out[dim]
        ratio = 1 / Fraction(factor).limit_denominator(10_000) if factor else Fraction(n_in, n_out)
        reach = {"nearest": None, "nearest-exact": None, "bicubic": (-1, 2)}.get(mode, (0, 1))
        offset = Fraction(0) if mode == "nearest" else Fraction(1, 2)
        if align_corners:
            ratio, offset = Fraction(n_in - 1, max(n_out - 1, 1)), Fraction(0)
        if mode == "area":
            axis = taps.adaptive(n_in, n_out)
        elif ratio == 0 or n_in == 1:
            axis = everything(1, n_out) if n_in == 1 else part(n_in, n_out, 0, n_in)
        else:
            axis = taps.rescaled(n_in, n_out, ratio, offset, reach)
        moves.append(Gather(dim, axis))
    return [(x, tuple(moves))]


@rule("linear Linear LazyLinear")
def linear(out: Shape, x: Source, *_: Any, **__: Any) -> Paths:
    """Everything along the last axis."""
    return [(x, (Gather(len(out) - 1, everything(x.shape[-1], out[-1])),))]


def _with_own(x: Source, dims: Sequence[int], *more: Move) -> Paths:
    """Each place reads itself and, for a statistic, everything along `dims`."""
    return [(x, ()), (x, (*(Gather(dim, everything(x.shape[dim], x.shape[dim])) for dim in dims), *more))]


@rule("batch_norm BatchNorm? SyncBatchNorm")
def batch_norm(out: Shape, x: Source, running_mean: Any = None, running_var: Any = None, *_: Any, **__: Any) -> Paths:
    """Each place reads its own, in evaluation mode; without running statistics the whole channel."""
    return [(x, ())] if running_mean is not None else _with_own(x, range(2, len(out)))


@rule("instance_norm InstanceNorm?")
def instance_norm(out: Shape, x: Source, running_mean: Any = None, *_: Any, **__: Any) -> Paths:
    """The whole channel, unless running statistics are kept."""
    return batch_norm(out, x, running_mean)


@rule("group_norm GroupNorm")
def group_norm(out: Shape, x: Source, num_groups: int, *_: Any, **__: Any) -> Paths:
    """Everything in the group of channels."""
    return _with_own(x, range(2, len(out)), _channels(x.shape, out, num_groups))


@rule("layer_norm LayerNorm rms_norm RMSNorm")
def layer_norm(out: Shape, x: Source, normalized_shape: Any, *_: Any, **__: Any) -> Paths:
    """Everything along the last axes."""
    return _with_own(x, range(len(out) - len(_per_axis(normalized_shape, 1)), len(out)))


@rule("local_response_norm LocalResponseNorm")
def local_response_norm(out: Shape, x: Source, size: int, *_: Any, **__: Any) -> Paths:
    """The neighbouring channels."""
    return [(x, ()), (x, (Gather(1, taps.window(out[1], out[1], size, padding=size // 2)),))]


@rule("softmax log_softmax softmin Softmax LogSoftmax Softmin cumsum cumprod")
def along_one_axis(out: Shape, x: Source, dim: int | None = None, *_: Any, **__: Any) -> Paths:
    """Everything along one axis."""
    return _with_own(x, [(1 if dim is None else dim) % len(out)])


@rule("Softmax2d")
def softmax2d(out: Shape, x: Source) -> Paths:
    """All channels."""
    return _with_own(x, [1])


@rule("normalize")
def normalize(out: Shape, x: Source, p: float = 2.0, dim: int = 1, *_: Any, **__: Any) -> Paths:
    """Everything along one axis."""
    return _with_own(x, [dim % len(out)])


@rule("mean sum prod amax amin max min var std logsumexp norm median all any argmax argmin")
def reduction(out: Any, x: Source, dim: Any = None, *_: Any, **kwargs: Any) -> Any:
    """Everything along the axes that go."""
    if isinstance(dim, Source) or isinstance(kwargs.get("other"), Source):
        return pointwise(out, x, dim, **kwargs)
    if isinstance(out, list):
        return [reduction(shape, x, dim, **kwargs) for shape in out]
    dims = range(len(x.shape)) if dim is None else [d % len(x.shape) for d in _per_axis(dim, 1)]
    left = tuple(1 if d in dims else n for d, n in enumerate(x.shape))
    return [(x, (*(Gather(d, everything(x.shape[d], 1)) for d in dims), Reshape(left, out)))]


@rule("cat concat concatenate")
def cat(out: Shape, tensors: Sequence[Source], dim: int = 0, *_: Any, **kwargs: Any) -> Paths:
    """Each tensor's places, one tensor behind the other."""
    dim, start, paths = kwargs.get("axis", dim) % len(out), 0, []
    for x in tensors:
        paths.append((x, (Gather(dim, part(x.shape[dim], out[dim], -start)),)))
        start += x.shape[dim]
    return paths


@rule("stack")
def stack(out: Shape, tensors: Sequence[Source], dim: int = 0) -> Paths:
    """Each tensor's places along a new axis."""
    dim %= len(out)
    one = (*out[:dim], 1, *out[dim + 1 :])
    return [(x, (Reshape(x.shape, one), Gather(dim, part(1, len(tensors), -i)))) for i, x in enumerate(tensors)]


@rule("chunk split tensor_split unsafe_chunk unsafe_split")
def split(out: list[Shape], x: Source, sections: Any = None, dim: int = 0, **_: Any) -> list[Paths]:
    """Pieces along one axis."""
    dim, start, pieces = dim % len(x.shape), 0, []
    for shape in out:
        pieces.append([(x, (Gather(dim, part(x.shape[dim], shape[dim], start)),))])
        start += shape[dim]
    return pieces


@rule("unbind")
def unbind(out: list[Shape], x: Source, dim: int = 0) -> list[Paths]:
    """Slices along one axis, which goes."""
    return [select(shape, x, dim, place) for place, shape in enumerate(out)]


@rule("select")
def select(out: Shape, x: Source, dim: int, index: int) -> Paths:
    """One slice along an axis, which goes."""
    dim %= len(x.shape)
    one = (*x.shape[:dim], 1, *x.shape[dim + 1 :])
    return [(x, (Gather(dim, part(x.shape[dim], 1, index % x.shape[dim])), Reshape(one, out)))]


@rule("narrow")
def narrow(out: Shape, x: Source, dim: int, start: int, length: int) -> Paths:
    """A stretch of one axis."""
    dim %= len(out)
    return [(x, (Gather(dim, part(x.shape[dim], length, start % x.shape[dim])),))]


@rule("getitem")
def getitem(out: Shape, x: Source, index: Any) -> Paths:
    """Slices, single places and new axes; anything else reads everything."""
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(item is None or item is Ellipsis or isinstance(item, int | slice) for item in items):
        return whole(out, x)
    missing = len(x.shape) - sum(item is not None and item is not Ellipsis for item in items)
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    items[at : at + 1] = [slice(None)] * missing
    moves: list[Move] = []
    shape: list[int] = []
    for item in (item for item in items if item is not None):
        dim, n = len(shape), x.shape[len(shape)]
        places = range(n)[item] if isinstance(item, slice) else range(item % n, item % n + 1)
        moves.append(Gather(dim, part(n, len(places), places.start, places.step)))
        shape.append(len(places))
    return [(x, (*moves, Reshape(tuple(shape), out)))]


def _padded(n: int, low: int, high: int, mode: str) -> taps.Taps:
    """One axis with `low` and `high` places more, empty or filled from inside; negative numbers crop."""
    n_out = n + low + high
    names = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in names or min(low, high) < 0:
        return part(n, n_out, -low)
    filled = np.pad(np.arange(n), (low, high), mode=names[mode])  # pyright: ignore[reportArgumentType, reportCallIssue]
    return taps.Taps(n, n_out, ((-low,),), 1, tuple(filled.tolist()))


@rule("pad")
def pad(out: Shape, x: Source, pad: Any, mode: str = "constant", value: Any = None) -> Paths:
    """Places around, empty or filled from inside; the first pair of numbers is for the last axis."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    moves = [
        Gather(len(out) - 1 - i, _padded(x.shape[len(out) - 1 - i], *sides, mode)) for i, sides in enumerate(pairs)
    ]
    return [(x, tuple(moves))]


@rule("ZeroPad? ConstantPad?")
def constant_padding(out: Shape, x: Source, padding: Any) -> Paths:
    """Empty places around."""
    return pad(out, x, padding)


@rule("ReflectionPad?")
def reflection_padding(out: Shape, x: Source, padding: Any) -> Paths:
    """Mirrored places around."""
    return pad(out, x, padding, "reflect")


@rule("ReplicationPad?")
def replication_padding(out: Shape, x: Source, padding: Any) -> Paths:
    """The border's places around."""
    return pad(out, x, padding, "replicate")


@rule("CircularPad?")
def circular_padding(out: Shape, x: Source, padding: Any) -> Paths:
    """Places of the other end around."""
    return pad(out, x, padding, "circular")


@rule("flip")
def flip(out: Shape, x: Source, *dims: Any) -> Paths:
    """Some axes backwards."""
    flat = dims[0] if isinstance(dims[0], list | tuple) else dims
    return [(x, tuple(Gather(d % len(out), part(out[d], out[d], out[d] - 1, -1)) for d in flat))]


@rule("pixel_shuffle PixelShuffle")
def pixel_shuffle(out: Shape, x: Source, upscale_factor: int) -> Paths:
    """Blocks of channels laid out as blocks of pixels."""
    r = upscale_factor
    paths = []
    for row in range(r):
        for column in range(r):
            moves: list[Move] = [Gather(1, part(x.shape[1], out[1], row * r + column, r * r))]
            for dim, phase in ((2, row), (3, column)):
                pattern = tuple((0,) if u == phase else () for u in range(r))
                moves.append(Gather(dim, taps.Taps(x.shape[dim], out[dim], pattern, 1)))
            paths.append((x, tuple(moves)))
    return paths


@rule("pixel_unshuffle PixelUnshuffle")
def pixel_unshuffle(out: Shape, x: Source, downscale_factor: int) -> Paths:
    """Blocks of pixels laid out as blocks of channels."""
    r = downscale_factor
    paths = []
    for row in range(r):
        for column in range(r):
            phase = row * r + column
            pattern = tuple((0,) if u == phase else () for u in range(r * r))
            moves = [Gather(dim, part(x.shape[dim], out[dim], start, r)) for dim, start in ((2, row), (3, column))]
            paths.append((x, (*moves, Gather(1, taps.Taps(x.shape[1], out[1], pattern, 1)))))
    return paths


@rule("channel_shuffle ChannelShuffle")
def channel_shuffle(out: Shape, x: Source, groups: int) -> Paths:
    """Channels of the groups in turn."""
    n = out[1] // groups
    return [
        (
            x,
            (
                Gather(
                    1,
                    taps.Taps(out[1], out[1], ((),), 0, tuple(c % groups * n + c // groups for c in range(out[1]))),
                ),
            ),
        )
    ]


@rule("glu GLU")
def glu(out: Shape, x: Source, dim: int = -1) -> Paths:
    """The first half along an axis times a gate made of the second."""
    dim %= len(out)
    return [(x, (Gather(dim, part(x.shape[dim], out[dim], start)),)) for start in (0, out[dim])]


@rule("matmul bmm mm")
def matmul(out: Shape, a: Source, b: Source) -> Paths:
    """A row of the first and a column of the second."""
    if not len(a.shape) == len(b.shape) == len(out) or a.shape[:-2] != b.shape[:-2]:
        return whole(out, a) + whole(out, b)
    last = len(out) - 1
    return [
        (a, (Gather(last, everything(a.shape[-1], out[-1])),)),
        (b, (Gather(last - 1, everything(b.shape[-2], out[-2])),)),
    ]
