"""Networks in words: built like by hand, described back in the same words, with the wrong word pointed at."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.convolution.notation import network, read_size
from pellucid.convolution.wording import describe
from pellucid.errors import UsageError


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    return repr(ours) == repr(theirs)


def test_the_chapters_network():
    built = network("conv 1 8 k5 s2 p2, relu, conv 8 16 k3 s2 p1, bn, flatten, linear 784 10", (1, 28, 28))
    by_hand = nn.Sequential(
        nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Flatten(),
        nn.Linear(784, 10),
    )  # fmt: skip
    assert same(built, by_hand)
    assert built(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("text", "size", "layer"),
    [
        ("conv 8 k3x5 p1x2", (3, 9, 9), nn.Conv2d(3, 8, (3, 5), padding=(1, 2))),
        ("conv 3 6 k3 g3 d2 nobias", (3, 9, 9), nn.Conv2d(3, 6, 3, dilation=2, groups=3, bias=False)),
        ("conv 3 6 k4 p same", (3, 9, 9), nn.Conv2d(3, 6, 4, padding="same")),
        ("conv 3 6 k3", (3, 9), nn.Conv1d(3, 6, 3)),
        ("conv 3 6 k3", (3, 9, 9, 9), nn.Conv3d(3, 6, 3)),
        ("dwconv k3", (5, 9, 9), nn.Conv2d(5, 5, 3, groups=5)),
        ("dwconv 5 10 k3", (5, 9, 9), nn.Conv2d(5, 10, 3, groups=5)),
        ("deconv 5 2 k3 s2 p1 op1", (5, 9, 9), nn.ConvTranspose2d(5, 2, 3, 2, 1, 1)),
        ("maxpool k2", (5, 9, 9), nn.MaxPool2d(2)),
        ("maxpool k3 s2 p1 ceil", (5, 9, 9), nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
        ("maxpool k3 s1 p same", (5, 9), nn.MaxPool1d(3, 1, 1)),
        ("avgpool k2x3", (5, 9, 9), nn.AvgPool2d((2, 3))),
        ("GAP", (5, 9, 9), nn.AdaptiveAvgPool2d(1)),
        ("bn", (5,), nn.BatchNorm1d(5)),
        ("bn 5", (5, 9, 9, 9), nn.BatchNorm3d(5)),
        ("leaky", (5,), nn.LeakyReLU()),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_words_make_the_layer(text, size, layer):
    built = network(text, size)
    x = torch.zeros(1, *size)
    assert type(built[0]) is type(layer)
    assert built.eval()[0](x).shape == layer.eval()(x).shape
    assert describe(built[0]) == describe(layer)
    assert [p.shape for p in built.parameters()] == [p.shape for p in layer.parameters()]


@st.composite
def layers(draw: st.DrawFn) -> str:
    """A random layer that needs no channels in."""
    kind = draw(st.sampled_from(["conv", "dwconv", "deconv", "maxpool", "avgpool", "relu", "bn"]))
    words = [kind, *([str(2 * draw(st.integers(1, 3)))] if kind in ("conv", "deconv") else [])]
    if kind in ("relu", "bn"):
        return kind
    k = draw(st.integers(1, 4))
    words += [f"k{k}", f"s{draw(st.integers(1, 3))}", f"p{draw(st.integers(0, k // 2))}"]
    words += draw(st.lists(st.sampled_from(["d2"]), max_size=1)) if kind in ("conv", "dwconv", "maxpool") else []
    words += draw(st.lists(st.sampled_from(["ceil"]), max_size=1)) if "pool" in kind else ["nobias"]
    return " ".join(words)


@settings(max_examples=80)
@given(st.lists(layers(), min_size=1, max_size=4), st.sampled_from([(2, 40), (4, 30, 20), (2, 12, 13, 14)]))
def test_a_network_runs_and_its_description_makes_it_again(parts, size):
    try:
        built = network(", ".join(parts), size)
    except UsageError as error:
        assert "does not fit into" in str(error) or "nothing is left" in str(error)
        return
    built.eval()(torch.empty(1, *size)) if all(n < 50 for n in size) else None
    again = network(", ".join(describe(layer) for layer in built), size)
    assert same(again, built)


def test_sizes_are_read():
    assert (
        read_size("1x28x28") == (1, 28, 28) and read_size("3×480×640") == (3, 480, 640) and read_size("784") == (784,)
    )


@pytest.mark.parametrize("text", ["", "1x", "28*28", "0x3", "-1x3", "1x2x3x4x5", "1 x 2"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="such as 1x28x28"):
        read_size(text)


@pytest.mark.parametrize(
    ("text", "word", "message"),
    [
        ("conv 1 8 q5", "q5", "takes numbers of inputs and outputs and k3 for the kernel, s2 for the stride"),
        ("relu, conv2d 1 8", "conv2d", "use conv, dwconv, deconv, maxpool"),
        ("conv 1 8 k5, , relu", " ", "a layer is missing"),
        ("conv 8 k5,", " ", "a layer is missing"),
        ("", " ", "a layer is missing"),
        ("conv 3 8 k5", "3", "takes 3 channels here, but is given 1×28×28"),
        ("conv 1 8 k3, bn 9", "9", "takes 9 channels here, but is given 8×26×26"),
        ("flatten, linear 9 2", "9", "takes 9 features here, but is given 784"),
        ("relu, conv 1 8", "conv", "needs a kernel, such as k3"),
        ("conv k3", "conv", "needs the number of outputs, such as 'conv 1 8'"),
        ("conv 1 8 k30", "conv", "spans 30 pixels does not fit into 28"),
        ("conv 1 8 k3 k5", "k5", "k is given twice"),
        ("conv 1 8 9 k3", "9", "one number too many: conv takes 2"),
        ("gap 3", "3", "one number too many: gap takes none"),
        ("conv 1 0 k3", "0", "1 or more"),
        ("conv 1 8 k0", "k0", "1 or more"),
        ("conv 1 8 k3 g2", "g2", "1 and 8 channels cannot be divided into 2 groups"),
        ("conv 1 8 k3x3x3", "k3x3x3", "3 numbers for 2 axes"),
        ("conv 1 8 k3 s2 p same", "conv", "at stride 1 only"),
        ("conv 1 8 k3 op1", "op1", "means nothing to conv"),
        ("deconv 1 8 k3 p  same", "deconv", "give pixels"),
        ("deconv 1 8 k3 s2 op2", "deconv", "must be smaller than the stride 2"),
        ("maxpool k2 s1 p same", "p same", "use an odd one"),
        ("maxpool k2 p2", "p2", "at most half of its kernel"),
        ("relu k3", "k3", "means nothing to relu, which takes nothing more"),
        ("linear 10", "linear", "put flatten before it"),
        ("flatten, conv 8 k3", "conv", "needs channels and 1 to 3 axes of pixels, but gets 784"),
    ],
)
def test_the_wrong_word_is_pointed_at(text, word, message):
    with pytest.raises(UsageError) as caught:
        network(text, (1, 28, 28))
    said, source, marks = str(caught.value).split("\n")
    assert message in said and source == f"  {text}"
    start, end = marks.index("^"), len(marks)
    assert source.ljust(end)[start:end] == word and set(marks[start:]) == {"^"}


def test_layers_without_words_have_their_class_name():
    assert describe(nn.Dropout()) == "Dropout" and describe(nn.AdaptiveAvgPool2d(7)) == "AdaptiveAvgPool2d"
    assert describe(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")) == "conv 1 2 k3 p1 reflect"


def test_an_average_over_three_axes_needs_a_kernel_that_fits_without_padding():
    with pytest.raises(UsageError, match="kernel of 3×3×3 does not fit into 2×4×4"):
        network("avgpool k3 s1 p1", (1, 2, 4, 4))
    with pytest.raises(RuntimeError):  # as torch says
        nn.AvgPool3d(3, 1, 1)(torch.zeros(1, 1, 2, 4, 4))
    assert network("maxpool k3 s1 p1", (1, 2, 4, 4))(torch.zeros(1, 1, 2, 4, 4)).shape == (1, 1, 2, 4, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("conv 1 8 k0", "k0: the number after k is 1 or more"),
        ("conv 1 8 k3 s0", "s0: the number after s is 1 or more"),
        ("conv 1 9999999999999 k3", "no memory holds the weights of this conv"),
        ("conv 1 99999999999999999999999 k3", "no memory holds the weights of this conv"),
        ("flatten, linear 9999999999999", "no memory holds the weights of this linear"),
    ],
)
def test_numbers_that_no_layer_can_have_are_named(text, said):
    with pytest.raises(UsageError, match=said):
        network(text, (1, 28, 28))
