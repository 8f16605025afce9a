from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from pellucid import convolution as cv
from pellucid.errors import UsageError
from pellucid.nn.models import simple_cnn, small_resnet

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Norms with statistics and weights of their own, so that none of them is the identity; evaluation mode."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def outputs(model: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Outputs of the innermost modules by name, in a pass of our own."""
    found: dict[str, np.ndarray] = {}
    hooks = [
        module.register_forward_hook(
            lambda _, __, out, name=name: found.__setitem__(name, out[0].detach().clone().numpy())
        )
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


def spoiled(model: nn.Module, x: torch.Tensor, pixel: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Units that turn nan when one pixel is nan: those that take it, at whatever weight."""
    x = x.clone()
    x[(0, *pixel)] = float("nan")
    return {name: np.isnan(values) for name, values in outputs(model, x).items()}


@st.composite
def layers(draw, channels: int, size: int) -> tuple[list[nn.Module], int, int]:
    """Some layers that fit a map of `size`, with the channels and size they give."""
    kind = draw(st.sampled_from(["conv", "conv", "conv", "max", "average", "adaptive", "transposed", "norm"]))
    if kind == "norm":
        return [nn.BatchNorm2d(channels)], channels, size
    if kind == "adaptive":
        to = draw(st.integers(1, size))
        return [draw(st.sampled_from([nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d]))(to)], channels, to
    kernel = draw(st.integers(1, min(3, size)))
    stride = draw(st.integers(1, 3))
    if kind == "transposed":
        out = draw(st.integers(1, 3))
        module = nn.ConvTranspose2d(channels, out, kernel, min(stride, 2), draw(st.integers(0, (kernel - 1) // 2)))
    elif kind == "conv":
        groups = draw(st.sampled_from([g for g in (1, 2, 3, 4) if channels % g == 0]))
        out = groups * draw(st.integers(1, 2))
        dilation = draw(st.integers(1, 2)) if 2 * (kernel - 1) < size else 1
        mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
        padding = draw(st.integers(0, min(2, size - 1)))
        bias = draw(st.booleans())
        module = nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias, mode)
        if draw(st.integers(0, 4)) == 0:
            module = nn.Conv2d(channels, out, kernel, 1, "same", dilation, groups)
    else:
        padding, ceil = draw(st.integers(0, kernel // 2)), draw(st.booleans())
        include = draw(st.booleans())
        max_pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
        average = nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil, count_include_pad=include)
        module, out = max_pool if kind == "max" else average, channels
    made = module(torch.zeros(1, channels, size, size))
    return [module, *([nn.ReLU()] if draw(st.booleans()) else [])], made.shape[1], made.shape[2]


@st.composite
def nets(draw) -> tuple[nn.Sequential, torch.Tensor]:
    channels, size = draw(st.integers(1, 3)), draw(st.integers(5, 9))
    x = torch.randn(
        1, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))
    )
    modules: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        made, channels, size = draw(layers(channels, size))
        modules += made
        if size < 2:
            break
    if draw(st.booleans()):
        modules += [nn.Flatten(), nn.Linear(channels * size * size, 3)]
    return lively(nn.Sequential(*modules), draw(st.integers(0, 99))).double(), x


@settings(max_examples=80)
@given(nets(), st.data())
def test_random_nets_add_up(net, data):
    model, x = net
    layer = str(data.draw(st.integers(0, len(model) - 1)))
    true = outputs(model, x)[layer]
    unit = tuple(data.draw(st.integers(0, n - 1)) for n in true.shape)
    t = cv.trace(model, x, layer, unit[1:] or None, channel=unit[0])
    found = t.immediate()
    assert t.value == found.activation == true[unit]
    if found.kind == "largest":
        assert found.products.sum() == pytest.approx(true[unit], abs=1e-12)
        assert found.winner.value == true[unit]
    else:
        assert found.products.sum() + found.bias == pytest.approx(true[unit], abs=1e-9)
    before = x[0].numpy() if layer == "0" else outputs(model, x)[str(int(layer) - 1)]
    for row in found.rows():
        assert row.value == (before[(row.channel, *row.position)] if -1 not in row.position else 0)

    full = t.full()
    pixels = x.clone().requires_grad_()
    inner = model[: int(layer) + 1](pixels)[(0, *unit)]
    (gradient,) = torch.autograd.grad(inner, pixels)
    np.testing.assert_allclose(full.weights, gradient[0].numpy(), atol=1e-12)
    assert full.holds and full.total == pytest.approx(true[unit], abs=1e-9)


@settings(max_examples=40)
@given(nets(), st.data())
def test_precedents_and_dependents_are_what_a_nan_reaches(net, data):
    model, x = net
    pixel = tuple(data.draw(st.integers(0, n - 1)) for n in x.shape[1:])
    reached = spoiled(model, x, pixel)
    found = cv.trace(model, x, "image", pixel[1:], channel=pixel[0]).dependents()
    assert found.keys() == reached.keys()
    for name in reached:
        np.testing.assert_array_equal(found[name], reached[name])
    layer = data.draw(st.sampled_from(sorted(reached)))
    unit = tuple(data.draw(st.integers(0, n - 1)) for n in reached[layer].shape)
    taken = cv.trace(model, x, layer, unit[1:] or None, channel=unit[0]).precedents()["image"]
    assert bool(taken[pixel]) == bool(reached[layer][unit])


def test_the_chapters_window():
    image = torch.zeros(1, 6, 6)
    image[0, 2:4] = torch.tensor([0.0, 99, 107, 95, 20, 0])
    edges = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    edges.weight.data[0, 0] = torch.tensor([[-1.0, -1, -1], [0, 0, 0], [1, 1, 1]])
    found = cv.trace(edges, image, position=(1, 2)).immediate()
    assert found.sum == 99 + 107 + 95 and found.bias == 0
    np.testing.assert_array_equal(found.products[0], [[0, 0, 0], [0, 0, 0], [99, 107, 95]])
    np.testing.assert_array_equal(found.places[0], [0, 1, 2])
    np.testing.assert_array_equal(
        cv.trace(edges, image, position=(0, 0)).immediate().inside, [[0, 0, 0], [0, 1, 1], [0, 1, 1]]
    )
    text = str(found)
    assert "convolution 3×3, padding 1, 1 → 1 channels" in text and "rows 0 to 2, columns 1 to 3" in text
    assert (
        "  99.0000 107.00 " in text.replace("  107.00", " 107.00") and "products 301.00 + bias 0.0000 = 301.00" in text
    )


def test_a_container_stands_for_its_last_call_and_shows_the_convolutions_window():
    model, x = lively(simple_cnn(), 1), torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(2))
    true = outputs(model, x[None])
    t = cv.trace(model, x, layer="2", position=(3, 2))
    strongest = true["2.2"][:, 3, 2].argmax()
    assert (t.channel, t.value) == (strongest, true["2.2"][strongest, 3, 2])
    found = t.immediate()
    window = F.pad(torch.tensor(true["1.2"]), (1, 1, 1, 1))[:, 6:9, 4:7].double().numpy()
    np.testing.assert_array_equal(found.values, window)
    np.testing.assert_array_equal(found.weights, model[2][0].weight[strongest].detach().double().numpy())
    assert found.sum == true["2.0"][strongest, 3, 2]
    assert [step.layer for step in found.steps] == ["2.1", "2.2"]
    assert [step.value for step in found.steps] == [true["2.1"][strongest, 3, 2], true["2.2"][strongest, 3, 2]]
    assert t.full().total == pytest.approx(t.value, rel=1e-4)
    same = [cv.trace(model, x, layer, (3, 2)) for layer in (model[2], 5, "2.2", "5")[:3]]
    assert [each.value for each in same] == [t.value] * 3
    assert cv.trace(model, x, "2.0", (3, 2), channel=7).value == true["2.0"][7, 3, 2]
    assert cv.trace(model, x).channel == true["5"].argmax() and cv.trace(model, x, "5", 3).channel == 3
    assert not model.training


def test_branches_are_followed_and_their_sum_is_shown():
    model = lively(small_resnet(3, 5, 32, width=8), 3)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    true = outputs(model, x)
    t = cv.trace(model, x, "2", (1, 2), channel=6)
    found = t.immediate()
    assert found.kind == "sum of layers" and found.source == ("2.convs.1.1", "2.shortcut.1.1")
    assert list(found.values) == [true[name][6, 1, 2] for name in found.source]
    assert found.steps[-1].value == true["2.act"][6, 1, 2] == t.value
    assert t.full().holds
    lit = t.precedents()
    for pixel in ((0, 5, 9), (2, 0, 31), (1, 31, 0), (0, 8, 12)):
        assert lit["image"][pixel] == spoiled(model, x, pixel)["2.act"][6, 1, 2]
    assert lit["2.convs.1.1"].sum() == lit["2.shortcut.1.1"].sum() == 1


class Crossroads(nn.Module):
    """Concatenation, a function instead of a module, a mean over the map, GELU."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 3, 1)
        self.c, self.gelu, self.last = nn.Conv2d(5, 4, 3), nn.GELU(), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(torch.cat([self.a(x), self.b(x)], 1))
        return self.last(self.gelu(self.c(x)).mean((2, 3)))


def test_code_between_the_layers_is_followed_by_what_it_takes():
    torch.manual_seed(5)
    model, x = Crossroads().eval(), torch.randn(1, 1, 7, 7)
    t = cv.trace(model, x, "c", (1, 3), channel=2)
    lit = t.precedents()
    expected = np.zeros((7, 7), bool)
    expected[1:4, 3:6] = True
    np.testing.assert_array_equal(lit["a"], np.stack([expected] * 2))
    np.testing.assert_array_equal(lit["b"], np.stack([expected] * 3))
    assert t.full().holds
    last = cv.trace(model, x, "last", channel=1)
    assert last.precedents()["gelu"].all() and last.immediate().kind == "weighted"
    assert not last.full().holds and "curved" in str(last.full())  # GELU


def test_layers_without_a_window_show_their_tangent():
    torch.manual_seed(6)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Sigmoid(), nn.Flatten(), nn.Softmax(1)).double()
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    norm = cv.trace(model, x, "1", (0, 1), channel=3).immediate()
    assert norm.kind == "tangent" and norm.channels == (2, 3) and norm.values.shape == (2, 3, 3)
    assert norm.products.sum() + norm.bias == pytest.approx(norm.sum)
    curve = cv.trace(model, x, "2", (2, 2), channel=0).immediate()
    assert curve.kind == "function" and curve.sum == pytest.approx(1 / (1 + np.exp(-curve.values.item())))
    assert "Sigmoid(" in str(curve)
    assert cv.trace(model, x, "4", channel=8).precedents()["3"].all()


def test_modules_that_work_in_place_or_twice_are_traced():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    model = nn.Sequential(conv, nn.ReLU(inplace=True), conv, nn.ReLU(inplace=True))
    x = torch.randn(1, 1, 6, 6)
    t = cv.trace(model, x, "0#2", (2, 2))  # the second call of a module
    assert t.layer == "0#2" and t.value == pytest.approx(conv(F.relu(conv(x)))[0, 0, 2, 2].item(), abs=1e-6)
    assert t.full().holds and t.precedents()["image"].sum() == 25
    first = cv.trace(model, x, conv, (2, 2)).network.labels
    assert first == ["0", "1", "0#2", "3"]


def test_the_model_is_left_as_it_was():
    model = simple_cnn().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    t = cv.trace(model, torch.randn(28, 28), "1", (2, 2))
    t.immediate(), t.full(), t.precedents(), t.dependents(), t.show()
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "9"}, "layer 9 does not exist: Sequential has 0.0 (Conv2d)"),
        ({"layer": "convs"}, "layer 'convs' does not exist"),
        ({"layer": nn.ReLU()}, "the given ReLU is no module of Sequential"),
        ({"layer": "1", "position": (7, 0)}, "(7, 0) lies outside the map of 1: it has rows 0 to 6 and columns 0 to 6"),
        ({"layer": "1", "position": (-1, 0)}, "lies outside the map of 1"),
        ({"layer": "1", "position": 3}, "position (3,) has 1 numbers; 1 has rows 0 to 6"),
        ({"layer": "1", "position": (1, 1), "channel": 16}, "1 has channels 0 to 15, not 16"),
        ({"layer": "5", "position": (1, 1)}, "5 gives 10 numbers and no map"),
    ],
)  # fmt: skip
def test_wrong_places_are_named(options, message):
    with pytest.raises(UsageError) as error:
        cv.trace(simple_cnn(norm=False), torch.randn(28, 28), **options)
    assert message in str(error.value)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_pixels_have_dependents_only():
    t = cv.trace(simple_cnn(), torch.randn(28, 28), "image", (5, 5))
    with pytest.raises(UsageError, match="no precedents"):
        t.immediate()
    with pytest.raises(UsageError, match="no precedents"):
        t.full()
    with pytest.raises(UsageError, match="calls no module"):
        cv.trace(Pair(), torch.randn(28, 28))
    with pytest.raises(UsageError, match="does not take an image"):
        cv.trace(simple_cnn(), torch.randn(3, 28, 28))


def test_the_picture_leads_from_the_image_to_the_activation():
    model, x = lively(simple_cnn(), 1), torch.randn(1, 28, 28)
    from pellucid.convolution.tracing.panels import panels

    t = cv.trace(model, x, "1", (3, 5))
    drawn = panels(t.network, t.place, t.unit, t.full())
    assert [panel.title.split("\n")[0] for panel in drawn] == ["image", "layer 0", "layer 1"]
    np.testing.assert_array_equal(drawn[0].lit, t.precedents()["image"][0])
    np.testing.assert_allclose(drawn[0].kernel, t.full().weights[0])
    assert drawn[-1].cell == (3, 5) and drawn[-1].picture[3, 5] == t.value
    assert len(t.show().axes) == 6
    assert len(cv.trace(model, x).show().axes) == 12  # the flattened numbers are those of the layer before
