"""Receptive fields against brute force: change a pixel and see which activations change."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from pellucid import convolution as cv
from pellucid.errors import UsageError
from pellucid.models import plain_cnn, simple_cnn, small_resnet

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
DEEP = dict(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


class Outputs(fx.Interpreter):
    """The output of every operation of a model, by the name `receptive_field` gives it."""

    def run_node(self, n):
        result = super().run_node(n)
        self.kept = getattr(self, "kept", {})
        if isinstance(result, torch.Tensor) and n.op in ("call_module", "call_function", "call_method"):
            name = n.target if n.op == "call_module" else n.name
            self.kept.setdefault(name, result.clone())
        return result


def outputs(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs of all operations; with float64, positive weights no unit's inputs cancel and none is switched off."""
    runner = Outputs(fx.symbolic_trace(model))
    with torch.no_grad():
        runner.run(images)
    return runner.kept


def positive(model: nn.Module) -> nn.Module:
    """Weights drawn from (0.5, 1.5) and scaled so that values neither grow nor vanish; no biases."""
    model = model.double().eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        size = max(parameter[0].numel(), 1) if parameter.ndim > 1 else 1
        values = (0.5 + torch.rand(parameter.shape, generator=generator, dtype=torch.float64)) / size
        parameter.data = torch.zeros_like(values) if name.endswith("bias") else values
    return model


def dependence(model: nn.Module, shape: tuple[int, ...], pixels: np.ndarray, how: str) -> dict[str, torch.Tensor]:
    """Which outputs change with each pixel (all its channels): [pixel, channel …] by operation.

    `nan` puts nan into the pixel, which nothing can hide: exact for any depth, but it also marks what is multiplied by
    zero. `change` adds to it.
    """
    base = 1 + torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = base.repeat(len(pixels) + 1, *[1] * len(shape))
    flat = batch.reshape(len(batch), shape[0], -1)
    for image, pixel in enumerate(pixels):
        flat[image, :, pixel] = torch.nan if how == "nan" else flat[image, :, pixel] + 50
    found = {}
    for name, values in outputs(positive(model), batch).items():
        if len(values) == len(batch):
            found[name] = values[:-1].isnan() if how == "nan" else (values[:-1] / values[-1] - 1).abs() > 1e-13
    return found


def check(model: nn.Module, shape: tuple[int, ...], how: str, rng: np.random.Generator, n_pixels=10**9, n_units=4) -> int:
    """Compare fields and masks of every operation, at corners and random units, with brute force; returns units."""
    rf = cv.receptive_field(model, shape)
    n = int(np.prod(shape[1:]))
    pixels = np.arange(n) if n <= n_pixels else rng.choice(n, n_pixels, replace=False)
    truth, compared = dependence(model, shape, pixels, how), 0
    for name, changed in truth.items():
        dims = rf._units.unit_dims(name)
        lengths = [changed.shape[dim] for dim in dims]
        units = {tuple(0 for _ in lengths), tuple(k - 1 for k in lengths)}
        units |= {tuple(int(rng.integers(k)) for k in lengths) for _ in range(n_units)}
        for unit in units:
            index = [unit[dims.index(dim)] if dim in dims else slice(None) for dim in range(1, changed.ndim)]
            expected = changed[(slice(None), *index)].reshape(len(pixels), -1).any(dim=1).numpy()
            mask = rf.mask(name, unit).numpy()
            assert mask.shape == shape[1:]
            assert (mask.reshape(-1)[pixels] == expected).all(), f"{name} at {unit}"
            spans = [range(int(p.min()), int(p.max()) + 1) if len(p) else range(0) for p in np.nonzero(mask)]
            assert list(rf.field(name, unit)) == spans, f"{name} at {unit}"
            compared += 1
    assert compared
    return compared


# -- random models --------------------------------------------------------------------------------------------------


class Through(nn.Module):
    """A module made of a function, with the modules it uses."""

    def __init__(self, function, *modules):
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.function = function

    def forward(self, x):
        return self.function(x, *self.parts)


def windows(draw, c_in, size, strides=(1, 2, 3)):
    """A convolution with any settings; (module, channels)."""
    k = tuple(draw(st.integers(1, min(4, n))) for n in size)
    groups = draw(st.sampled_from([g for g in (1, 2, c_in) if c_in % g == 0]))
    c_out = groups * draw(st.integers(1, 2))
    d = tuple(draw(st.integers(1, 2 if n > 2 * (j - 1) else 1)) for n, j in zip(size, k, strict=True))
    mode = draw(st.sampled_from(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"]))
    if draw(st.booleans()) and (mode == "zeros" or min(size) > 6):
        return nn.Conv2d(c_in, c_out, k, 1, "same", d, groups, padding_mode=mode)
    stride, padding = (tuple(draw(st.sampled_from(v)) for _ in size) for v in (strides, (0, 1, 2)))
    padding = tuple(min(p, n - 1) for p, n in zip(padding, size, strict=True))
    return nn.Conv2d(c_in, c_out, k, stride, padding, d, groups, padding_mode=mode)


def pooled(draw, size):
    k = tuple(draw(st.integers(1, min(3, n))) for n in size)
    kind, stride = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d])), draw(st.integers(1, 3))
    return kind(k, stride, tuple(draw(st.integers(0, j // 2)) for j in k), ceil_mode=draw(st.booleans()))


def residual(draw, c, size):
    k, gap = draw(st.sampled_from([(3, 1), (1, 3), (3, 3)])), draw(st.integers(1, 2))
    conv = nn.Conv2d(c, c, k, padding="same", dilation=gap, groups=draw(st.sampled_from([1, c])))
    if draw(st.booleans()):
        return Through(lambda x, f: F.relu(f(x) + x), conv)

    def in_place(x, f):
        y = f(x)
        y += x
        return y

    return Through(in_place, conv)


def branches(draw, c, size):
    one, other = nn.Conv2d(c, 2, 1), nn.Conv2d(c, 2, draw(st.sampled_from([(3, 3), (1, 5), (5, 1)])), padding="same")
    far = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(c, 2, 1))
    which = draw(st.sampled_from(["all", "part", "groups", "shuffle"]))
    mix = {"all": nn.Conv2d(6, 2, 1), "part": nn.Conv2d(3, 2, 1), "groups": nn.Conv2d(6, 2, 1, groups=2),
           "shuffle": nn.Sequential(nn.ChannelShuffle(2), nn.Conv2d(6, 6, 3, padding=1, groups=6))}[which]  # fmt: skip

    def forward(x, one, other, far, mix):
        y = torch.cat([one(x), other(x), far(x)], 1)
        return mix(y.chunk(2, 1)[1] if which == "part" else y)

    return Through(forward, one, other, far, mix)


def squeezed(draw, c, size):
    return Through(lambda x, f: x * f(F.adaptive_avg_pool2d(x, 1)), nn.Conv2d(c, c, 1))


def resized(draw, c, size):
    nearest = nn.Upsample(scale_factor=draw(st.sampled_from([2, 3])), mode="nearest")
    to = tuple(draw(st.integers(1, 12)) for _ in size)
    k, s = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    p = draw(st.integers(0, (k - 1) // 2))
    choices = [
        nearest, nn.Upsample(size=to, mode="nearest"), nn.AdaptiveAvgPool2d(to), nn.AdaptiveMaxPool2d(to),
        nn.ConvTranspose2d(c, c, k, s, p, draw(st.integers(0, s - 1)), draw(st.sampled_from([1, c]))),
        nn.PixelUnshuffle(2) if size[0] % 2 == size[1] % 2 == 0 else nn.PixelShuffle(2) if c % 4 == 0 else nn.Identity(),
    ]  # fmt: skip
    return draw(st.sampled_from(choices))


def padded(draw, c, size):
    sides = [draw(st.integers(-1, 2)) if min(size) > 3 else 0 for _ in range(4)]
    inside = [abs(p) for p in sides]
    crop = draw(st.integers(0, 1)) if min(size) > 3 else 0
    return draw(
        st.sampled_from([
            nn.ZeroPad2d(sides), Through(lambda x: F.pad(x, inside, "reflect")), nn.ReplicationPad2d(inside),
            nn.CircularPad2d(inside), Through(lambda x: x[:, :, crop:, : x.shape[3] - crop]),
            Through(lambda x: x[..., ::2].flip(2)),
        ])
    )  # fmt: skip


def rearranged(draw, c, size):
    norms = nn.LayerNorm(c), nn.GroupNorm(1, c), nn.InstanceNorm2d(c, affine=True), nn.BatchNorm2d(c)
    which = draw(st.integers(0, 5))
    if which == 0:
        return Through(lambda x, n, f: f(n(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2), norms[0], nn.Linear(c, c))
    if which == 1:
        return Through(lambda x: x.view(1 * x.size(0), 1, -1, x.shape[2], x.shape[3]).transpose(1, 2).flatten(1, 2))
    if which == 2:
        return Through(lambda x: x + x.mean((2, 3), keepdim=True) + x.amax(3, keepdim=True))
    if which == 3:
        return Through(lambda x: torch.stack([x, x.transpose(2, 3).transpose(-1, -2)], 2).sum(2))
    return draw(st.sampled_from(norms[1:] if min(size) > 1 else norms[3:]))


@st.composite
def nets(draw, most=5, parts=("conv", "pool", "residual", "branches", "squeezed", "resized", "padded", "rearranged")):
    """A random model with branches, and the shape of its image."""
    shape = draw(st.integers(1, 3)), draw(st.integers(4, 11)), draw(st.integers(4, 11))
    layers: list[nn.Module] = [windows(draw, shape[0], shape[1:], (1, 2))]
    for part in draw(st.lists(st.sampled_from(parts), min_size=1, max_size=most - 1)):
        with torch.no_grad():
            out = nn.Sequential(*layers).eval()(torch.zeros(1, *shape)).shape
        c, size = out[1], tuple(out[2:])
        make = {"residual": residual, "branches": branches, "squeezed": squeezed, "resized": resized, "padded": padded,
                "rearranged": rearranged}  # fmt: skip
        if part == "conv":
            layers.append(windows(draw, c, size))
        elif part == "pool":
            layers.append(pooled(draw, size))
        else:
            layers.append(make[part](draw, c, size))
        with torch.no_grad():
            out = nn.Sequential(*layers).eval()(torch.zeros(1, *shape)).shape
        if min(out) == 0 or out[2:].numel() > 600 or out[1] > 24:
            layers.pop()
    return nn.Sequential(*layers), shape


@settings(max_examples=500, **DEEP)
@given(nets(), st.integers(0, 2**32 - 1))
def test_random_models_against_nan_in_each_pixel(case, seed):
    model, shape = case
    check(model, shape, "nan", np.random.default_rng(seed))
