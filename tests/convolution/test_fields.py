"""Receptive fields against brute force: change a pixel and see which activations change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from architectures import NETWORKS
from pellucid import convolution as cv
from pellucid.errors import UsageError
from pellucid.nn.models import plain_cnn, simple_cnn, small_resnet

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
DEEP = {"suppress_health_check": list(HealthCheck), "derandomize": True}


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


def check(
    model: nn.Module, shape: tuple[int, ...], how: str, rng: np.random.Generator, n_pixels=10**9, n_units=4
) -> int:
    """Compare fields and masks of every operation, at corners and random units, with brute force; returns units."""
    rf = cv.receptive_field(model, shape)
    n = int(np.prod(shape[1:]))
    pixels = np.arange(n) if n <= n_pixels else rng.choice(n, n_pixels, replace=False)
    truth, compared = dependence(model, shape, pixels, how), 0
    for name, changed in truth.items():
        if name not in rf._units.names():  # it ends a module, whose name it has then
            continue
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
        nn.PixelUnshuffle(2) if size[0] % 2 == size[1] % 2 == 0 else nn.Identity(),
        nn.PixelShuffle(2) if c % 4 == 0 else nn.Sequential(nn.Conv2d(c, 4, 1), nn.PixelShuffle(2)),
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


@settings(max_examples=400, **DEEP)
@given(nets(), st.integers(0, 2**32 - 1))
def test_random_models_against_nan_in_each_pixel(case, seed):
    model, shape = case
    check(model, shape, "nan", np.random.default_rng(seed))


SMOOTH = ("conv", "residual", "branches", "squeezed", "padded")


@settings(max_examples=120, **DEEP)
@given(nets(most=3, parts=SMOOTH), st.integers(0, 2**32 - 1))
def test_random_models_against_a_change_of_each_pixel(case, seed):
    model, shape = case
    check(model, shape, "change", np.random.default_rng(seed))


@st.composite
def resizes(draw):
    """One interpolation with any mode and settings."""
    mode = draw(st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic", "area"]))
    align = {"align_corners": draw(st.booleans())} if mode.startswith("bi") else {}
    if draw(st.booleans()):
        to = {"size": tuple(draw(st.integers(1, 14)) for _ in range(2))}
    else:
        to = {"scale_factor": tuple(draw(st.sampled_from([0.4, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])) for _ in range(2))}
    return Through(lambda x: F.interpolate(x, mode=mode, **to, **align))


@settings(max_examples=150, **DEEP)
@given(resizes(), st.tuples(st.just(1), st.integers(3, 9), st.integers(3, 9)))
def test_interpolations_against_a_change_of_each_pixel(resize, shape):
    check(nn.Sequential(nn.Conv2d(1, 1, 1), resize), shape, "change", np.random.default_rng(0), n_units=200)


def attention(x):
    q = x.flatten(2).transpose(1, 2)
    return (torch.softmax(q @ q.transpose(1, 2), -1) @ q).transpose(1, 2).reshape(x.shape)


OPERATIONS = {
    "softmax": Through(lambda x: F.softmax(x, 3) + x.log_softmax(dim=1)),
    "Softmax2d": nn.Softmax2d(),
    "glu": Through(lambda x: F.glu(x, 1)),
    "GLU of rows": nn.GLU(2),
    "narrow": Through(lambda x: x.narrow(2, 1, 3)),
    "unbind": Through(lambda x: x.unbind(1)[2] + x.select(1, 0)),
    "expand": Through(lambda x: x.mean(2, keepdim=True).expand(-1, -1, 5, -1)),
    "expand_as": Through(lambda x: x[:, :1].expand_as(x)),
    "attention": Through(attention),
    "batched product": Through(lambda x: torch.matmul(x, x.transpose(2, 3))),
    "lp_pool": nn.LPPool2d(2, 3, 2),
    "F.lp_pool": Through(lambda x: F.lp_pool2d(x, 2.0, 2)),
    "local response": nn.LocalResponseNorm(3),
    "normalize": Through(lambda x: F.normalize(x) + F.normalize(x, dim=2)),
    "ReflectionPad2d": nn.ReflectionPad2d((1, 2, 0, 3)),
    "pixel_unshuffle": nn.PixelUnshuffle(2),
    "pixel_shuffle": nn.PixelShuffle(2),
    "group_norm": nn.GroupNorm(2, 4),
    "instance_norm": Through(lambda x: F.instance_norm(x)),
    "index by place": Through(lambda x: x[:, 1, None, 2:, -3]),
    "strided slices": Through(lambda x: x[..., ::2, 1::3]),
    "max over an axis": Through(lambda x: x.max(dim=3)[0] + torch.maximum(x, 2 * x).amin((1, 3))[:, None]),
    "max_pool with indices": Through(lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)[0]),
    "split in sizes": Through(lambda x: torch.cat(x.split([1, 3], 1)[::-1], dim=1)),
    "tensor_split": Through(lambda x: x.tensor_split(3, dim=2)[1]),
    "moved axes": Through(lambda x: x.permute(0, 3, 1, 2).flatten(2).unsqueeze(1).squeeze(1)),
    "written in place": Through(lambda x: (y := x * 2, y.add_(x.flip(2)), y)[2]),
    "convolution by keyword": Through(lambda x, f: F.conv2d(input=x, weight=f.weight, padding=1), nn.Conv2d(4, 2, 3)),
    "transposed and dilated": nn.ConvTranspose2d(4, 4, (2, 3), (3, 2), 1, (1, 0), 2, True, (2, 1)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_against_nan_in_each_pixel(name):
    model = nn.Sequential(nn.Conv2d(1, 4, (3, 1), padding=(1, 0), groups=1), OPERATIONS[name])
    check(model, (1, 6, 8), "nan", np.random.default_rng(0), n_units=60)


@pytest.mark.parametrize("name", NETWORKS)
def test_architectures_against_nan_in_pixels(name):
    make, size = NETWORKS[name]
    n_pixels = 8 if name == "U-Net" else 24
    assert check(make(), (3, *size), "nan", np.random.default_rng(0), n_pixels, n_units=2) > 250


@pytest.mark.parametrize(("name", "size"), [("ResNet-50", 427), ("Inception-v3", 1311)])
def test_published_sizes(name, size):
    """Araujo et al., Distill 2019, table 1, has 483 for ResNet-50 with the stride in the last unit of a stage."""
    make, image = NETWORKS[name]
    rows = cv.receptive_field(make(), (3, *image)).layers
    assert [row.size for row in rows if len(row.shape) == 3][-2] == (size, size)


@st.composite
def chains(draw):
    """Convolutions, poolings and enlargements of one axis without branches, and whether all units are alike."""
    layers, alike = [nn.Conv1d(1, 1, 1)], True
    for _ in range(draw(st.integers(1, 4))):
        k, s, d = draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
        kind = draw(st.sampled_from(["conv", "conv", "pool", "transposed", "nearest"]))
        alike &= kind in ("conv", "pool")
        layers.append(
            {"conv": nn.Conv1d(1, 1, k, s, draw(st.integers(0, 2)), d), "pool": nn.AvgPool1d(k, s),
             "transposed": nn.ConvTranspose1d(1, 1, k, s), "nearest": nn.Upsample(scale_factor=2)}[kind]
        )  # fmt: skip
    return nn.Sequential(*layers), alike


@settings(max_examples=100, **DEEP)
@given(chains())
def test_size_jump_and_start_hold_inside_large_images_and_are_known_from_small_ones(case):
    chain, alike = case
    large = cv.receptive_field(chain, (1, 400))
    for row in large.layers:
        (size,), (jump,), (start,) = row.size, row.jump, row.start
        spans = {u: large.field(row.name, u)[0] for u in range(row.shape[1])}
        far = {u: span for u, span in spans.items() if 2 * size < start + jump * u < 400 - 2 * size}
        assert not far or max(map(len, far.values())) == size
        if alike:
            assert all((span.start + span.stop - 1) / 2 == start + jump * u for u, span in far.items())
    try:
        small = cv.receptive_field(chain, (1, 14))
    except UsageError:
        return
    for one, other in zip(small.layers, large.layers, strict=True):
        assert (one.size, one.jump, one.start) == (other.size, other.jump, other.start)


# -- the chapter's networks -----------------------------------------------------------------------------------------


def test_fields_of_the_chapters_networks():
    strided = nn.Sequential(*[nn.Conv2d(1 if i == 0 else 2, 2, 3, stride=2, padding=1) for i in range(5)])
    assert [row.size for row in cv.receptive_field(strided, (1, 28, 28)).layers] == [(n, n) for n in (3, 7, 15, 31, 63)]
    for model in (plain_cnn(), simple_cnn()):
        rows = [row for row in cv.receptive_field(model, (1, 28, 28)).layers if row.kind == "Conv2d"]
        assert [row.size for row in rows] == [(n, n) for n in (5, 9, 17, 33, 65)]
        assert [row.jump for row in rows] == [(n, n) for n in (2, 4, 8, 16, 32)]
        assert [row.start for row in rows] == [(0.0, 0.0)] * 5
        assert [row.share for row in rows] == pytest.approx([25 / 784, 81 / 784, 289 / 784, 1, 1])


def test_two_strided_layers_see_seven_by_seven():
    rf = cv.receptive_field(nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)), (1, 28, 28))
    assert rf.field("2", (3, 3)) == (range(9, 16), range(9, 16))
    assert rf.field(-1, (0, 6)) == (range(4), range(21, 28))
    assert rf.mask("2", (3, 3)).sum() == 49 and rf["2"].size == rf[-1].size == (7, 7)


def test_a_dilated_unit_has_holes():
    rf = cv.receptive_field(nn.Conv2d(1, 1, 3, dilation=2), (1, 9, 9))
    mask = rf.mask(0, (1, 2))
    assert rf.field(0, (1, 2)) == (range(1, 6), range(2, 7))
    assert mask.nonzero().tolist() == [[r, c] for r in (1, 3, 5) for c in (2, 4, 6)]


def test_branches_make_a_cross():
    model = Through(
        lambda x, f, g: f(x) + g(x), nn.Conv2d(1, 1, (1, 5), padding="same"), nn.Conv2d(1, 1, (5, 1), 1, "same")
    )
    rf = cv.receptive_field(model, (1, 9, 9))
    assert rf["add"].size == (5, 5) and rf.mask("add", (4, 4)).sum() == 9


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        (nn.Sequential(nn.Conv1d(2, 3, 3, 2), nn.Conv1d(3, 1, 3)), (2, 30), (7,)),
        (nn.Sequential(nn.Conv3d(1, 2, 3), nn.MaxPool3d(2)), (1, 8, 9, 10), (4, 4, 4)),
    ],
)
def test_one_and_three_dimensions(model, size, expected):
    rf = cv.receptive_field(model, size)
    assert rf.layers[-1].size == expected
    assert tuple(map(len, rf.field())) == expected and rf.mask().shape == size[1:]
    with pytest.raises(UsageError, match="images with rows and columns"):
        rf.show()


def test_layers_called_twice_and_layers_of_ones_own_have_names():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3)
            self.own = Own()

        def forward(self, x):
            return self.own(self.conv(self.conv(x)))

    class Own(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x * 2, 2)

    rf = cv.receptive_field(Twice(), (1, 12, 12))
    assert [(row.name, row.kind, row.size[0]) for row in rf.layers] == [
        ("conv", "Conv2d", 3), ("conv#2", "Conv2d", 5), ("own", "Own", 6)
    ]  # fmt: skip
    x = torch.rand(1, 1, 12, 12)
    for name, side in (("conv", 3), ("conv#2", 5), ("own", 6)):
        assert (cv.effective_field(Twice(), x, name).map > 0).sum() == side**2


def test_the_model_stays_as_it_was():
    model = small_resnet(1, 3).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rf = cv.receptive_field(model, (1, 32, 32))
    rf.effective(torch.rand(2, 1, 32, 32), -3)
    assert model.training and all(module.training for module in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules()) and all(p.grad is None for p in model.parameters())


def test_the_table_as_text_and_html():
    rf = cv.receptive_field(nn.Sequential(nn.Conv2d(1, 8, (3, 5), 2), nn.AdaptiveAvgPool2d(1)), (1, 20, 20))
    lines = str(rf).splitlines()
    assert lines[0] == "Sequential on images of 1×20×20"
    assert lines[4].split() == ["0", "Conv2d", "8×9×8", "3×5", "2", "1×2", "3.8%"]
    assert lines[5].split() == ["1", "AdaptiveAvgPool2d", "8×1×1", "19", "–", "9", "90.2%"]
    assert rf._repr_html_().count("<tr>") == 3 and "<td>3×5</td>" in rf._repr_html_()


# -- models that cannot be followed ---------------------------------------------------------------------------------


class Undecided(nn.Module):
    """Looks at its values to decide what to do."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x):
        x = F.leaky_relu(self.first(x))
        return self.second(x) if x.sum() > 0 else self.second(-x)


def test_models_that_cannot_be_followed_are_measured_and_say_so():
    with pytest.warns(UserWarning, match="torch.fx cannot follow Undecided .*measured by gradients"):
        rf = cv.receptive_field(Undecided(), (1, 28, 28))
    followed = cv.receptive_field(nn.Sequential(Undecided().first, nn.LeakyReLU(), Undecided().second), (1, 28, 28))
    assert rf.measured and not followed.measured and "measured by gradients" in str(rf)
    assert [(r.name, r.size, r.jump) for r in rf.layers] == [("first", (3, 3), (2, 2)), ("second", (7, 7), (4, 4))]
    for position in ((0, 0), (3, 3), (6, 6), (0, 5)):
        assert rf.field("second", position) == followed.field("2", position)
        assert torch.equal(rf.mask("second", position), followed.mask("2", position))
    assert rf.effective(torch.rand(3, 1, 28, 28), "second").box == (range(9, 16), range(9, 16))


def test_unknown_operations_are_taken_to_see_everything_and_named():
    model = Through(lambda x, f: torch.sort(f(x), dim=3)[0], nn.Conv2d(1, 1, 3))
    with pytest.warns(UserWarning, match="does not know 'sort'"):
        rf = cv.receptive_field(model, (1, 8, 8))
    assert rf.field("sort[0]", (0, 0)) == rf.field("getitem", (0, 0)) == (range(8), range(8))


# -- effective fields -----------------------------------------------------------------------------------------------


def test_the_effective_field_of_a_convolution_is_its_kernel():
    conv = nn.Conv2d(2, 3, 3)
    field = cv.effective_field(conv, torch.rand(5, 2, 9, 9), 0, (2, 4))
    kernel = conv.weight.detach().sum(0).abs().sum(0)
    np.testing.assert_allclose(field.map[2:5, 4:7], kernel / kernel.sum(), rtol=1e-5)
    assert field.map.sum() == pytest.approx(1) and (field.map > 0).sum() == 9
    assert field.box == (range(2, 5), range(4, 7)) and field.n_images == 5


@pytest.mark.parametrize("n", [1, 4, 9])
def test_the_field_of_stacked_boxes_becomes_a_gaussian_that_widens_with_the_root_of_the_depth(n):
    layers = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(n)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / 9)
    field = cv.effective_field(nn.Sequential(*layers), torch.rand(1, 31, 31))
    assert field.sigma == pytest.approx([np.sqrt(n * 2 / 3)] * 2, rel=1e-5)
    assert field.centre == pytest.approx((15, 15)) and tuple(map(len, field.box)) == (2 * n + 1,) * 2
    rows, columns = field.square(0.95)
    held = field.map[rows.start : rows.stop, columns.start : columns.stop].sum()
    inner = field.map[rows.start + 1 : rows.stop - 1, columns.start + 1 : columns.stop - 1].sum()
    assert held >= 0.95 > inner
    assert field.size == np.sqrt((field.map > 0.0455 * field.map.max()).sum())
    assert f"over 1 image: sees {2 * n + 1}×{2 * n + 1} pixels" in str(field)


def test_images_are_averaged_one_by_one():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3))
    images = torch.randn(4, 1, 7, 7)
    x = images.clone().requires_grad_()
    expected = [torch.autograd.grad(model(x)[i, :, 1, 1].sum(), x)[0][i].abs().sum(0) for i in range(4)]
    expected = torch.stack(expected).mean(0)
    np.testing.assert_allclose(cv.effective_field(model, images, 1, (1, 1)).map, expected / expected.sum(), rtol=1e-4)


# -- wrong input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), (1, 3, 3), "neither convolution nor pooling"),
        (nn.Conv2d(3, 1, 3), (1, 8, 8), r"does not take an image of shape \(1, 8, 8\)"),
        (nn.Conv2d(1, 1, 9), (1, 8, 8), "Kernel size can't be greater"),
        (nn.Conv2d(1, 1, 3), (8,), r"input_size is \(channel, row, column\)"),
        (nn.Conv2d(1, 1, 3), (1, 0, 8), r"input_size is \(channel, row, column\)"),
        (lambda x: x, (1, 8, 8), "takes a torch.nn.Module, not function"),
    ],
)
def test_wrong_models_and_sizes_are_named(model, size, message):
    with pytest.raises(UsageError, match=message):
        cv.receptive_field(model, size)


def test_wrong_layers_positions_and_images_are_named():
    rf = cv.receptive_field(plain_cnn(), (1, 28, 28))
    with pytest.raises(UsageError, match=r"no layer 'conv9'; there are 0\.0, 0\.1, 1\.0"):
        rf.field("conv9")
    with pytest.raises(
        UsageError, match=r"no layer 30; there are 0\.0, .*a number below 5 counts layers with parameters"
    ):
        rf.field(30)
    with pytest.raises(
        UsageError, match=r"no unit at \(7, 0\): its map is 7×7, so positions go from 0 to 6 and 0 to 6"
    ):
        rf.field("1.0", (7, 0))
    with pytest.raises(UsageError, match=r"no unit at \(-1, 0\)"):
        rf.mask("1.0", (-1, 0))
    with pytest.raises(UsageError, match=r"no unit at \(3,\)"):
        rf.field("1.0", 3)
    with pytest.raises(UsageError, match=r"shape \(image, 1, 28, 28\), not \(2, 3, 28, 28\)"):
        rf.effective(torch.zeros(2, 3, 28, 28))
    with pytest.raises(UsageError, match="1 value that is nan or infinite"):
        rf.effective(hole())
    off = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU())
    nn.init.constant_(off[0].bias, -100.0)
    with pytest.raises(UsageError, match=r"no gradient of '1' at .* reaches these images"):
        cv.effective_field(off, torch.rand(1, 1, 8, 8), "1")


def hole() -> torch.Tensor:
    x = torch.zeros(1, 1, 28, 28)
    x[0, 0, 3, 4] = torch.nan
    return x


# -- pictures -------------------------------------------------------------------------------------------------------


def outlines(ax) -> list[tuple[float, ...]]:
    return [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in ax.patches]


def test_pictures_outline_the_field():
    rf = cv.receptive_field(nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, 2, 1)), (1, 28, 20))
    image = torch.rand(1, 28, 20)
    axes = rf.show("1", (3, 2), image).axes[0]
    assert outlines(axes) == [(4.5, 8.5, 7, 7)]
    shade = axes.images[1].get_array()[..., 3]
    assert ((shade == 0) == rf.mask("1", (3, 2)).numpy()).all()
    assert [box[2:] for box in outlines(rf.show(image=image).axes[0])] == [(3, 3), (7, 7)]
    figure = rf.effective(image, "1", (3, 2)).show()
    assert outlines(figure.axes[0])[0] == outlines(figure.axes[1])[0] == (4.5, 8.5, 7, 7)
