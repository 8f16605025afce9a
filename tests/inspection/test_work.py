"""The layer table adds up: parameters to the model's, multiplications to PyTorch's own counter, on any architecture."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from architectures import NETWORKS
from flops import torch_counts
from pellucid import convolution as cv
from pellucid.convolution.summary import summarize


class SamePadding(nn.Conv2d):
    """Pads by a module of its own, as TensorFlow's networks ported to PyTorch do (EfficientNet)."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.static_padding = nn.ZeroPad2d((0, 1, 0, 1))

    def forward(self, x):
        return F.conv2d(self.static_padding(x), self.weight, self.bias, self.stride, groups=self.groups)


class Gated(nn.Module):
    """Squeeze and excitation between an expansion and a projection, with same-padded convolutions."""

    def __init__(self, c: int):
        super().__init__()
        self.expand, self.depth = SamePadding(c, 4 * c, 1), SamePadding(4 * c, 4 * c, 3, 2, groups=4 * c)
        self.squeeze, self.excite, self.project = nn.Linear(4 * c, 2), nn.Linear(2, 4 * c), nn.Conv2d(4 * c, 2 * c, 1)

    def forward(self, x):
        x = self.depth(F.silu(self.expand(x)))
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(x.mean((2, 3))))))
        return self.project(x * gate[:, :, None, None])


class Patches(nn.Module):
    """A vision transformer: class token and positions of the model itself, attention by a weight it multiplies with."""

    def __init__(self, c: int = 16):
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, c)), nn.Parameter(torch.zeros(1, 17, c))
        self.patch = nn.Conv2d(3, c, 8, 8)
        self.block = nn.TransformerEncoderLayer(c, 4, 2 * c, batch_first=True)
        self.mixer = nn.Parameter(torch.zeros(c, c))
        self.head = nn.Linear(c, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        attended = F.scaled_dot_product_attention(x, x, x)
        return self.head((self.block(x) + attended)[:, 0] @ self.mixer)


class LayerScale(nn.Module):
    """ConvNeXt's block: a parameter of its own beside its layers."""

    def __init__(self, c: int):
        super().__init__()
        self.depth, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c)
        self.wide, self.narrow, self.gamma = nn.Linear(c, 4 * c), nn.Linear(4 * c, c), nn.Parameter(torch.ones(c))

    def forward(self, x):
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)


class Recurrent(nn.Module):
    """Reads rows of pixels; the GRU gives a tuple."""

    def __init__(self):
        super().__init__()
        self.rows, self.head = nn.GRU(3 * 32, 8, num_layers=2, batch_first=True, bidirectional=True), nn.Linear(16, 4)

    def forward(self, x):
        out, _ = self.rows(x.permute(0, 2, 1, 3).flatten(2))
        return self.head(out[:, -1])


class Attending(nn.Module):
    """Attention uses its projection's weight without calling it; heads give a dict; one layer is never called."""

    def __init__(self):
        super().__init__()
        self.patch, self.attend = nn.Conv2d(3, 8, 8, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.table, self.auxiliary = Table(), nn.Linear(8, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        return {"classes": self.attend(x, x, x, need_weights=False)[0] + self.table()}


class Table(nn.Module):
    """Called without arguments."""

    def __init__(self):
        super().__init__()
        self.values = nn.Parameter(torch.zeros(16, 8))

    def forward(self):
        return self.values


class Tied(nn.Module):
    """One weight in two layers, and one layer under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight, self.again = self.first.weight, self.first

    def forward(self, x):
        return self.again(self.second(self.first(x)))


def weight_norm(old: bool) -> nn.Module:
    layer = nn.Conv2d(3, 4, 3, stride=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        made = nn.utils.weight_norm(layer) if old else nn.utils.parametrizations.weight_norm(layer)
    return nn.Sequential(made, nn.ReLU(), nn.Conv2d(4, 2, 1))


class Direct(nn.Module):
    """Goes round the hooks of its layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.layer.forward(x)


SMALL: dict[str, Callable[[], nn.Module]] = {
    "EfficientNet": lambda: nn.Sequential(SamePadding(3, 4, 3, 2), Gated(4), Gated(8), nn.Flatten(), nn.Linear(256, 2)),
    "ViT": Patches,
    "ConvNeXt": lambda: nn.Sequential(nn.Conv2d(3, 8, 4, 4), LayerScale(8), LayerScale(8)),
    "GRU": Recurrent,
    "attention": Attending,
    "tied": Tied,
    "weight_norm": lambda: weight_norm(old=False),
    "weight_norm by a hook": lambda: weight_norm(old=True),
    "transposed": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ConvTranspose2d(4, 2, 3, 2, groups=2)),
    "calls forward": Direct,
}
ARCHITECTURES = NETWORKS | {name: (make, (32, 32)) for name, make in SMALL.items()}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_add_up_to_the_model_and_to_torchs_counter(name, batch):
    make, size = ARCHITECTURES[name]
    model, x = make().eval(), torch.zeros(batch, 3, *size)
    table = summarize(model, x)
    assert sum(row.n_params for row in table.rows) == sum(p.numel() for p in model.parameters()) == table.n_params
    assert sum(row.n_multiplications for row in table.rows) == torch_counts(model, x) / batch > 0
    assert not any(row.uncounted for row in table.rows)
    counts = cv.layer_counts(model, (3, *size), fields=False)
    assert [row.n_params for row in counts.rows] == [row.n_params for row in table.rows]
    assert counts.n_multiplications == sum(row.n_multiplications for row in table.rows)


def rows(model: nn.Module, *size: int) -> dict[str, tuple[str, int, int]]:
    return {r.name: (r.layer, r.n_params, r.n_multiplications) for r in cv.layer_counts(model, size, fields=False).rows}


def test_a_layer_that_holds_another_has_a_row():
    assert rows(SamePadding(3, 4, 3, 2), 3, 9, 9) == {
        "static_padding": ("ZeroPad2d", 0, 0),
        "": ("conv 3 4 k3 s2", 3 * 4 * 9 + 4, 3 * 4 * 9 * 16),
    }


def test_parameters_of_the_model_itself_and_of_layers_that_are_not_called_have_rows():
    found = rows(Attending(), 3, 32, 32)
    tokens, c = 16, 8
    projections, products = 4 * c * c * tokens, 2 * tokens * tokens * c
    assert found["attend"] == ("MultiheadAttention", 4 * c * c + 4 * c, projections + products)
    assert found["table"] == ("Table", tokens * c, 0)
    assert found["auxiliary"] == ("linear 8 3, not called", 27, 0)
    assert rows(Patches(), 3, 32, 32)[""] == ("Patches", 16 + 17 * 16 + 16 * 16, 16 * 16 + 2 * 17 * 17 * 16)


@pytest.mark.parametrize(
    ("layer", "size", "expected"),
    [
        (nn.GRU(4, 5), (3, 4), 3 * 3 * (4 * 5 + 5 * 5)),
        (nn.LSTM(4, 5), (3, 4), 3 * 4 * (4 * 5 + 5 * 5)),
        (nn.RNN(4, 5), (3, 4), 3 * (4 * 5 + 5 * 5)),
    ],
)
def test_recurrent_layers_use_each_weight_once_a_step(layer, size, expected):
    layer.batch_first = True
    found = rows(nn.Sequential(layer), *size)["0"]
    assert found[1:] == (sum(p.numel() for p in layer.parameters()), expected)


@pytest.mark.parametrize(
    ("function", "marked"),
    [
        (torch.linalg.vector_norm, False),
        (lambda x: torch.nn.functional.normalize(x, dim=-1), False),
        (lambda x: torch.linalg.cross(x, x), False),
        (torch.linalg.diagonal, False),
        (torch.linalg.det, True),
        (torch.linalg.eigvalsh, True),
        (lambda x: torch.linalg.solve(x, x), True),
        (lambda x: torch.linalg.matrix_norm(x, 2), True),
    ],
)
def test_of_linear_algebra_only_what_multiplies_is_marked(function, marked):
    class Layer(nn.Module):
        def forward(self, x):
            function(x + torch.eye(3))
            return x

    (row,) = cv.layer_counts(Layer(), (3, 3), fields=False).rows
    assert bool(row.uncounted) == marked


def test_what_cannot_be_counted_is_marked():
    @torch.library.custom_op("pellucid_tests::rotate", mutates_args=())
    def rotate(x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(4, 4)

    class Foreign(nn.Module):
        def forward(self, x):
            return rotate(x)

    model = nn.Sequential(nn.Linear(3, 4), Foreign())
    table = cv.layer_counts(model, (3,), fields=False)
    assert [row.uncounted for row in table.rows] == [(), ("pellucid_tests::rotate",)]
    for text in (str(table), str(summarize(model, torch.zeros(1, 3))), table._repr_html_()):
        assert "0 + ?" in text and "without pellucid_tests::rotate: no formula" in text


def test_lazy_layers_are_counted_and_stay_lazy():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    state = torch.get_rng_state()
    assert [p for _, p, _ in rows(model, 3, 6, 6).values()] == [112, 8, 0, 130]
    assert summarize(model, torch.zeros(2, 3, 6, 6)).n_params == 250
    assert all(map(nn.parameter.is_lazy, model.parameters())) and torch.equal(state, torch.get_rng_state())


def test_shapes_of_other_outputs_than_tensors():
    shapes = [row.shape for row in summarize(Attending(), torch.zeros(2, 3, 32, 32)).rows]
    assert shapes == [(2, 8, 4, 4), (2, 16, 8), (16, 8), ()]
    assert summarize(Recurrent(), torch.zeros(2, 3, 32, 32)).rows[0].shape == (2, 32, 16)


def test_frozen_parameters_are_told_apart():
    model = Attending()
    model.attend.requires_grad_(False)
    table = summarize(model, torch.zeros(1, 3, 32, 32))
    assert [row.trainable for row in table.rows] == [True, False, True, True]
    assert table.n_params - table.n_trainable == 288


def test_counting_changes_no_state_even_where_it_fails():
    model = nn.Sequential(Patches(), nn.ReLU()).train()
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(RuntimeError):
        summarize(model, torch.zeros(1, 5, 32, 32))
    assert model.training and model[0].training and torch.backends.mha.get_fastpath_enabled() == fast
    hooks = torch.nn.modules.module
    assert not hooks._global_forward_hooks and not hooks._global_forward_pre_hooks


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_wrapped_models_are_one_row_or_their_layers():
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    expected = rows(plain, 3)
    assert rows(torch.compile(plain), 3) == expected  # pyright: ignore
    assert rows(torch.jit.script(plain), 3) == {"": ("RecursiveScriptModule", 16, 12)}
    assert rows(nn.DataParallel(plain), 3) == {f"module.{name}": row for name, row in expected.items()}


A, B, C = torch.randn(2, 3, 4), torch.randn(2, 4, 5), torch.randn(3, 5)
COUNTED = {
    "addbmm": (lambda: torch.addbmm(C, A, B), 2 * 3 * 4 * 5),
    "addbmm, scaled": (lambda: torch.addbmm(C, A, B, beta=0.5, alpha=2), 2 * 3 * 4 * 5),
    "baddbmm": (lambda: torch.baddbmm(C, A, B), 2 * 3 * 4 * 5),
    "addmv": (lambda: torch.addmv(C[:, 0], A[0], B[0, :, 0], beta=2), 3 * 4),
    "addr": (lambda: torch.addr(C, A[0, :, 0], B[0, 0]), 3 * 5),
    "einsum": (lambda: torch.einsum("bij,bjk->ik", A, B), 2 * 3 * 4 * 5),
    "tensordot": (lambda: torch.tensordot(A, B[0], 1), 2 * 3 * 4 * 5),
    "chain": (lambda: torch.linalg.multi_dot([A[0], B[0]]), 3 * 4 * 5),
    "matmul of vectors": (lambda: A[0, 0] @ B[0, :, 0], 4),
}
MARKED = {
    "inverse": lambda: torch.linalg.inv(torch.eye(3)),
    "svd": lambda: torch.linalg.svd(A[0]),
    "solve": lambda: torch.linalg.solve(torch.eye(3), C),
    "cholesky": lambda: torch.linalg.cholesky(torch.eye(3)),
    "fft": lambda: torch.fft.rfft(C),
    "cdist": lambda: torch.cdist(A.expand(2, 3, 4), A, compute_mode="use_mm_for_euclid_dist_if_necessary"),
}


class Does(nn.Module):
    def __init__(self, action: Callable):
        super().__init__()
        self.action, self.weight = action, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        self.action()
        return x * self.weight


@pytest.mark.parametrize("name", COUNTED)
def test_every_product_is_counted(name):
    action, n = COUNTED[name]
    (row,) = cv.layer_counts(Does(action), (1, 2, 2)).rows
    assert row.n_multiplications == n


@pytest.mark.parametrize("name", MARKED)
def test_what_has_no_formula_is_marked(name):
    text = str(cv.layer_counts(Does(MARKED[name]), (1, 2, 2)))
    assert "no formula for their multiplications" in text and "check_errors" not in text
