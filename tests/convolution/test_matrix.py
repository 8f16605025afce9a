"""A convolution's matrix against PyTorch's convolution, forward and gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid import convolution as cv
from pellucid.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@st.composite
def convolutions(draw):
    """Any convolution of `torch.nn` in float64, and an input size it takes."""
    n_axes = draw(st.integers(1, 3))
    most = {1: 12, 2: 7, 3: 4}[n_axes]
    size = tuple(draw(st.integers(1, most)) for _ in range(n_axes))
    groups = draw(st.integers(1, 3))
    channels = [groups * draw(st.integers(1, 2)) for _ in range(2)]
    kernel, stride, dilation = (tuple(draw(st.integers(1, n)) for _ in size) for n in (3, 3, 2))
    bias = draw(st.booleans())
    if draw(st.integers(0, 3)) == 0:
        padding = tuple(draw(st.integers(0, d * (k - 1) // 2)) for k, d in zip(kernel, dilation, strict=True))
        more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        layer = TRANSPOSED[n_axes](*channels, kernel, stride, padding, more, groups, bias, dilation)
    else:
        mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
        same = draw(st.booleans())
        padding = "same" if same else tuple(draw(st.integers(0, 2)) for _ in size)
        stride = 1 if same else stride
        layer = CONVOLUTIONS[n_axes](*channels, kernel, stride, padding, dilation, groups, bias, mode)
    return layer.double(), size


def takes(layer, size) -> bool:
    try:
        layer(torch.zeros(1, layer.in_channels, *size, dtype=torch.float64))
    except RuntimeError:
        return False
    return True


@settings(max_examples=400, suppress_health_check=list(HealthCheck), derandomize=True)
@given(convolutions())
def test_equal_to_torch_forward_and_gradient(case):
    layer, size = case
    if not takes(layer, size):
        with pytest.raises(UsageError, match="does not take an input"):
            cv.as_matrix(layer, size)
        return
    m = cv.as_matrix(layer, size)
    x = torch.randn(2, layer.in_channels, *size, dtype=torch.float64, requires_grad=True)
    expected = layer(x)
    torch.testing.assert_close(m(x), expected)
    torch.testing.assert_close(m(x[0]), expected[0])
    torch.testing.assert_close(m.dense(), m.sparse().to_dense())
    assert bool((m.dense()[m.is_zero] == 0).all()) and m.shape == (expected[0].numel(), x[0].numel())

    out = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * out).sum(), [x, *layer.parameters()])
    for found, true in zip(torch.autograd.grad((m(x) * out).sum(), [x, *layer.parameters()]), wanted, strict=True):
        torch.testing.assert_close(found, true)
    by_hand = torch.einsum("nr,nc->rc", out.flatten(1), x.detach().flatten(1))
    torch.testing.assert_close(m.weight_gradient(by_hand), wanted[1])
    shared = torch.autograd.grad((m.dense() * by_hand).sum(), layer.weight)[0]
    torch.testing.assert_close(shared, wanted[1])


def evaluated(text: str, weights: dict[str, float], inputs: dict[str, float]) -> list[float]:
    """What equations in text say, read term by term."""
    found = []
    for line in text.splitlines():
        left, _ = line.split(" = ")
        total = 0.0
        for term in left.split(" + "):
            weight = next((w for w in sorted(weights, key=len, reverse=True) if term.startswith(w)), "")
            value = term.removeprefix(weight)
            total += (weights[weight] if weight else 1) * (inputs[value] if value else 1) if term != "0" else 0
        found.append(total)
    return found


def test_the_chapters_equations():
    layer = nn.Conv2d(1, 1, 2)
    m = cv.as_matrix(layer, input_size=(3, 3))
    assert m.equations().splitlines() == [
        "αA + βB + γD + δE + b = P",
        "αB + βC + γE + δF + b = Q",
        "αD + βE + γG + δH + b = R",
        "αE + βF + γH + δJ + b = S",
    ]
    assert str(m).splitlines()[1:] == [
        "α β · γ δ · · · ·",
        "· α β · γ δ · · ·",
        "· · · α β · γ δ ·",
        "· · · · α β · γ δ",
    ]
    assert m.shape == (4, 9) and int(m.is_zero.sum()) == 20
    assert r"\alpha A + \beta B + \gamma D + \delta E + b &= P \\" in m.equations(latex=True)
    assert m.latex().count(r"\color{gray}{0}") == 20
    assert m.latex().count("b \\\\") == 3 and "{ccccccccc}" in m.latex()
    assert m._repr_latex_() == f"$$\n{m.latex()}\n$$"
    x = torch.rand(1, 3, 3)
    names = dict(zip("αβγδ", layer.weight.flatten().tolist(), strict=True)) | {"b": layer.bias.item()}
    values = evaluated(m.equations(), names, dict(zip("ABCDEFGHJ", x.flatten().tolist(), strict=True)))
    torch.testing.assert_close(torch.tensor(values), layer(x).flatten())


def test_equations_with_channels_groups_and_more_weights_than_letters():
    layer = nn.Conv2d(4, 4, 3, padding=1, groups=2)
    m = cv.as_matrix(layer, (2, 2))
    text, letters = m.equations(), "αβγδεζηθικλμνξπρστυφχψω"
    subscripts = ["", "₁", "₂", "₃"]
    greek = [letter + s for s in subscripts for letter in letters]
    latin = [letter + s for s in subscripts for letter in "ABCDEFGHJKLMN"]
    weights = dict(zip(greek, layer.weight.flatten().tolist(), strict=False))
    weights |= {f"b{s}": b for s, b in zip("₁₂₃₄", layer.bias.tolist(), strict=True)}
    x = torch.rand(4, 2, 2)
    found = evaluated(text, weights, dict(zip(latin, x.flatten().tolist(), strict=False)))
    torch.testing.assert_close(torch.tensor(found), layer(x).flatten())
    outputs = [line.split(" = ")[1] for line in text.splitlines()]
    assert outputs == [*"PQRSTUVWXYZ", "P₁", "Q₁", "R₁", "S₁", "T₁"]
    assert r"\alpha_{1}" in m.equations(latex=True)


def test_mirrored_padding_sums_weights_in_one_place():
    m = cv.as_matrix(nn.Conv1d(1, 1, 3, padding=1, padding_mode="reflect", bias=False), 4)
    assert m.equations().splitlines()[0] == "βA + αB + γB = P"
    assert str(m).splitlines()[1].split() == ["β", "α+γ", "·", "·"]
    assert int(m.is_zero.sum()) == 16 - 10


def test_a_row_that_sees_only_padding_is_its_bias():
    m = cv.as_matrix(nn.Conv1d(1, 1, 1, padding=1), 1)
    assert m.equations().splitlines() == ["b = P", "αA + b = Q", "b = R"]
    assert cv.as_matrix(nn.Conv1d(1, 1, 1, padding=1, bias=False), 1).equations().startswith("0 = P")


def test_large_matrices_stay_sparse_and_text_has_limits():
    layer = nn.Conv2d(3, 16, 3, padding=1)
    m = cv.as_matrix(layer, (64, 64))
    assert m.shape == (65536, 12288) and m.sparse().is_sparse and m.sparse()._nnz() == 16 * 3 * 190**2
    x = torch.rand(3, 64, 64)
    torch.testing.assert_close(m(x), layer(x), atol=1e-5, rtol=1e-5)
    assert len(str(m).splitlines()) == 1 and m._repr_latex_() is None
    assert len(m.equations(rows=range(8)).splitlines()) == 8
    with pytest.raises(UsageError, match="65,536 equations are too many"):
        m.equations()
    with pytest.raises(UsageError, match="there is no row 65536; rows go from 0 to 65535"):
        m.equations(rows=[65536])
    with pytest.raises(UsageError, match=r"too large to write down.*36"):
        m.latex()
    with pytest.raises(UsageError, match="too large with its zeros; use sparse"):
        m.dense()


@pytest.mark.parametrize(
    ("layer", "size", "message"),
    [
        (nn.Linear(3, 3), (3,), "takes a convolution of torch.nn, not Linear"),
        (nn.Conv2d(1, 1, 3), (2, 2), "does not take an input.*Kernel size can't be greater"),
        (nn.Conv2d(3, 1, 3), (1, 5, 5), "with 3 channels in front or without, not"),
        (nn.Conv2d(3, 1, 3), (5,), "length of 2 axes"),
        (nn.Conv2d(3, 1, 3), (0, 5), "length of 2 axes"),
    ],
)
def test_wrong_input_is_named(layer, size, message):
    with pytest.raises(UsageError, match=message):
        cv.as_matrix(layer, size)


def test_wrong_tensors_are_named():
    m = cv.as_matrix(nn.Conv2d(1, 1, 2), 3)
    with pytest.raises(UsageError, match=r"takes inputs of shape \(1, 3, 3\), not \(9,\)"):
        m(torch.zeros(9))
    with pytest.raises(UsageError, match=r"has its shape, \(4, 9\), not \(9, 4\)"):
        m.weight_gradient(torch.zeros(9, 4))
    with pytest.raises(UsageError, match=r"the kernel has shape \(1, 1, 2, 2\)"):
        m.sparse(torch.zeros(4))


def letters_drawn(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_picture_has_the_chapters_letters_and_one_colour_a_weight():
    figure = cv.as_matrix(nn.Conv2d(1, 1, 2), (3, 3)).show()
    drawn = letters_drawn(figure)
    assert [drawn.count(letter) for letter in "αβγδ0bAJPS"] == [4, 4, 4, 4, 20, 4, 1, 1, 1, 1]
    cells = figure.axes[0].patches[:36]
    colours = {
        letter: {c.get_facecolor() for c, d in zip(cells, drawn, strict=False) if d == letter} for letter in "αβγδ0"
    }
    assert all(len(found) == 1 for found in colours.values()) and len(set.union(*colours.values())) == 5


def test_a_large_picture_has_every_place():
    m = cv.as_matrix(nn.Conv2d(1, 2, 3, stride=2, padding=1), (14, 14))
    image = m.show().axes[0].images[0].get_array()
    assert image.shape == m.shape and (image.mask == m.is_zero.numpy()).all()
    assert (image.data[m.rows, m.columns] == m.weights.numpy()).all()
