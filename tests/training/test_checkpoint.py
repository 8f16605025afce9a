"""Weights and moments come back from files bit for bit, under plain names, or nothing changes and it is said why."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.data.loader import DataLoaders
from pellucid.errors import UsageError
from pellucid.optim.groups import params, split_at
from pellucid.optim.optimizers import SGD, Adam
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.checkpoint import load_weights, optimizer_file, plain_model, plain_names, save_weights
from pellucid.training.learner import Learner

LR = 0.05


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Sequential(nn.ReLU(), nn.Linear(5, 5)), nn.Linear(5, 4))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, pred: Tensor, targ: Tensor) -> Tensor:
        return ((pred - targ) * self.scale).square().mean()


def learner(folder: Path, model: Any = None, loss: Any = None, **options: Any) -> Learner:
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(24, 6, generator=rng), torch.randn(24, 4, generator=rng))
    dls = DataLoaders(TorchDataLoader(data, 8), TorchDataLoader(data, 8), device="cpu")
    learn = Learner(dls, model or network(), loss or nn.functional.mse_loss, path=folder, **options)
    learn.remove_cb(ProgressCallback)
    return learn


def state(learn: Learner) -> list[Any]:
    modules = [m for m in (learn.model, learn.loss_func) if isinstance(m, nn.Module)]
    held = [] if learn.opt is None else [p for group in learn.opt.param_groups for p in group["params"]]
    return copy.deepcopy([[dict(m.state_dict()) for m in modules], [dict(learn.opt.state.get(p, {})) for p in held]])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list | tuple) else a == b


OPTIMIZERS: dict[str, Any] = {
    "Adam": Adam,
    "SGD": SGD,
    "SGD with momentum": partial(SGD, mom=0.9),
    "L2": partial(Adam, decouple_wd=False),
    "RMSprop": partial(torch.optim.RMSprop, momentum=0.9, centered=True),
    "NAdam": torch.optim.NAdam,
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "LBFGS": partial(torch.optim.LBFGS, max_iter=3),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_after_load_as_if_nothing_had_happened(kind, tmp_path):
    learn = learner(tmp_path, opt_func=OPTIMIZERS[kind])
    learn.fit(2, LR)
    before = state(learn)
    learn.save("here")
    learn.fit(1, LR)
    expected = state(learn)
    assert not same(before, expected)
    learn.load("here")
    assert same(state(learn), before)
    other = learner(tmp_path, nn.Sequential(*network()), opt_func=OPTIMIZERS[kind])  # in another process, say
    with torch.no_grad():
        other.model[0].weight.zero_()
    other.load("here")
    for each in (learn, other):
        each.fit(1, LR)
        assert same(state(each), expected)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_other_weights_never_meet_old_moments(kind, tmp_path):
    """A fit on a loss without gradient must leave weights that were just loaded where they are, moments or not."""
    learn = learner(tmp_path, opt_func=OPTIMIZERS[kind], wd=None if kind == "LBFGS" else 0)
    learn.save("fresh")
    learn.fit(2, LR)
    learn.save("without", with_opt=False)
    learn.fit(1, LR)
    fresh = learner(tmp_path, opt_func=OPTIMIZERS[kind])
    fresh.create_opt()
    for name, options in (("fresh", {}), ("without", {}), ("fresh", {"with_opt": False})):
        learn.load(name, **options)
        assert same(state(learn)[1], state(fresh)[1])
        before = [p.detach().clone() for p in learn.model.parameters()]
        learn.loss_func = lambda pred, targ: (pred * 0).sum()
        learn.fit(1, LR)
        assert all(map(torch.equal, before, learn.model.parameters()))
        learn.loss_func = nn.functional.mse_loss
        learn.fit(1, LR)


def test_parameters_beside_the_model_come_back_as_well(tmp_path):
    loss, free = Scaled(), nn.Parameter(torch.ones(2, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    learn = learner(tmp_path, loss=loss, splitter=lambda m: [params(m), params(loss), [free]])
    free.register_hook(lambda grad: grad)
    learn.loss_func.forward = lambda pred, targ: Scaled.forward(loss, pred, targ) + (free * 0.1).square().sum()
    learn.fit(1, LR)
    before, kept = state(learn), free.detach().clone()
    learn.save("all")
    learn.fit(1, LR)
    assert not torch.equal(free, kept)
    learn.load("all")
    assert same(state(learn), before) and torch.equal(free, kept)


def test_moments_go_by_name_whatever_the_groups_are(tmp_path):
    learn = learner(tmp_path)
    learn.fit(1, LR)
    learn.save("one")
    other = learner(tmp_path, splitter=split_at(1, 3)).load("one")
    mine, theirs = ({n: dict(each.opt.state[p]) for n, p in each.model.named_parameters()} for each in (learn, other))
    assert same(mine, theirs)


def test_moments_of_other_weights_or_of_another_optimizer_are_not_taken(tmp_path):
    learn = learner(tmp_path)
    learn.fit(1, LR)
    file = learn.save("mine")
    other = learner(tmp_path, opt_func=SGD)
    with pytest.warns(UserWarning, match="belongs to another optimizer; _SGDW begins without moments"):
        other.load("mine")
    learn.fit(1, LR)
    save_model(learn.model, str(file))  # by somebody who knows of no moments
    with pytest.warns(UserWarning, match="belongs to other weights; _Adam begins without moments"):
        learn.load("mine")
    assert not learn.opt.state


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def compiled_inside(model: nn.Module) -> nn.Module:
    model[2] = torch.compile(model[2], backend="eager")
    return model


def wrapped_twice(model: nn.Module) -> nn.Module:
    return AveragedModel(nn.DataParallel(compiled_inside(model)))


WRAPPERS = [compiled, compiled_inside, nn.DataParallel, AveragedModel, wrapped_twice]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=lambda wrap: wrap.__name__)
def test_wrapped_models_are_saved_under_plain_names_and_load_everywhere(wrap, tmp_path):
    plain, wrapped = network(), wrap(network())
    with torch.no_grad():
        for p in wrapped.parameters():
            p.add_(1)
    if isinstance(wrapped, AveragedModel):
        wrapped.n_averaged.fill_(7)
    save_weights(wrapped, tmp_path / "w.safetensors")
    assert load_file(tmp_path / "w.safetensors").keys() == plain.state_dict().keys()
    assert {name for name in plain_names(wrapped).values() if name} == plain.state_dict().keys()
    load_model(plain, str(tmp_path / "w.safetensors"))  # safetensors' own
    other, again = network(), wrap(network())
    load_weights(other, tmp_path / "w.safetensors")
    load_weights(again, tmp_path / "w.safetensors")
    assert same(dict(other.state_dict()), dict(plain.state_dict()))
    assert same(dict(again.state_dict()), dict(wrapped.state_dict()))  # n_averaged too
    assert type(plain_model(wrapped)) is nn.Sequential
    save_weights(plain, tmp_path / "p.safetensors")
    load_weights(wrap(network()), tmp_path / "p.safetensors")


class WithExtra(nn.Module):
    """Keeps more than tensors in its state."""

    def __init__(self, extra: Any):
        super().__init__()
        self.body, self.extra = nn.Linear(2, 2), extra

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


EXTRAS = [None, 3, "text", [1.5, None], {"a": (1, True), "b": {"c": torch.arange(3.0)}}, torch.tensor(2), {}]


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_extra_state_comes_back(extra, tmp_path):
    model, other = WithExtra(extra), WithExtra("other")
    save_weights(model, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert same(other.extra, extra) and same(dict(other.body.state_dict()), dict(model.body.state_dict()))


class Ties(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(3, 3, bias=False) for _ in range(3))
        self.b.weight = self.a.weight
        self.c.weight.data = self.a.weight.data[:2]  # a part of it
        self.register_buffer("every_second", torch.arange(6.0)[::2])


def untied() -> nn.Module:
    model = Ties()
    model.b.weight = nn.Parameter(torch.zeros(3, 3))
    return model


@pytest.mark.parametrize("target", [Ties, untied])
@pytest.mark.parametrize("writer", [save_weights, None])
def test_tied_weights_and_parts_of_others(target, writer, tmp_path):
    model = Ties()
    file = tmp_path / "w.safetensors"
    if writer:
        writer(model, file)
    else:
        kept = {k: v.clone() for k, v in model.state_dict().items() if k != "a.weight"}
        save_file(kept, file, {"a.weight": "b.weight"})  # as safetensors' own names them, which keeps either one
    other = target()
    load_weights(other, file)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in other.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_of_every_floating_type_keep_it(dtype, tmp_path):
    model, other = nn.Linear(3, 2).to(dtype), nn.Linear(3, 2).to(dtype)
    save_weights(model, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert a.dtype == b.dtype == dtype and torch.equal(a.float(), b.float())


def test_lazy_models_load_and_are_not_saved_before_they_have_values(tmp_path):
    save_weights(nn.Sequential(nn.Linear(3, 2)), tmp_path / "w.safetensors")
    lazy = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(UsageError, match=r"'0.weight' has no values yet"):
        save_weights(lazy, tmp_path / "lazy.safetensors")
    load_weights(lazy, tmp_path / "w.safetensors")
    assert lazy(torch.ones(1, 3)).shape == (1, 2)
    assert [f.name for f in tmp_path.iterdir()] == ["w.safetensors"]


def unkeepable(kind: str) -> nn.Module:
    model = nn.Linear(2, 2)
    if kind == "object":
        return WithExtra(object())
    if kind == "quantised":
        model.register_buffer("q", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))
    if kind == "quantised while it runs":
        torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(model), {nn.Linear})
    if kind == "sparse":
        model.register_buffer("q", torch.eye(2).to_sparse())
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "named"),
    [("object", "object"), ("quantised", "Tensor"), ("sparse", "Tensor"), ("quantised while it runs", "dtype")],
)
def test_what_a_file_cannot_keep_is_named_and_nothing_is_written(kind, named, tmp_path):
    with pytest.raises(
        UsageError, match=rf"holds a {named}, which a file of weights cannot keep: save it with torch\.save"
    ):
        save_weights(unkeepable(kind), tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def lacks(tensors: dict[str, Tensor]) -> str:
    del tensors["3.weight"]
    return "'3.weight' is missing"


def has_more(tensors: dict[str, Tensor]) -> str:
    tensors["4.weight"] = torch.ones(1)
    return "'4.weight' is not the model's"


def other_shape(tensors: dict[str, Tensor]) -> str:
    tensors["3.weight"] = torch.ones(4, 6)
    return "'3.weight' is 4×6, the model's is 4×5"


def whole_numbers(tensors: dict[str, Tensor]) -> str:
    tensors["0.weight"] = torch.ones(5, 6, dtype=torch.int8)
    return "'0.weight' is torch.int8, the model's is torch.float32"


@pytest.mark.parametrize("fault", [lacks, has_more, other_shape, whole_numbers])
def test_weights_that_do_not_fit_change_nothing(fault, tmp_path):
    learn = learner(tmp_path)
    file = learn.save("w")
    tensors = {k: v + 1 for k, v in load_file(file).items()}
    said = fault(tensors)
    save_file(tensors, file)
    before = state(learn)
    with pytest.raises(UsageError, match=f"its weights do not fit this Sequential: {said}"):
        learn.load("w")
    assert same(state(learn), before)
    if fault in (lacks, has_more):
        learn.load("w", strict=False)
        assert torch.equal(learn.model[0].weight, tensors["0.weight"])


def metadata_of(file: Path) -> dict[str, Any]:
    head = file.read_bytes()
    return json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])["__metadata__"]


@pytest.mark.parametrize("damage", ["shape", "json", "form", "torn", "pointer"])
def test_a_damaged_file_of_moments_is_refused(damage, tmp_path):
    learn = learner(tmp_path)
    learn.fit(1, LR)
    file = optimizer_file(learn.save("w"))
    tensors, content = load_file(file), json.loads(metadata_of(file)["pellucid"])
    if damage == "shape":  # a kernel would read beyond its end
        tensors["0.weight.exp_avg#"] = torch.zeros(2)
    if damage == "form":
        content["state"]["0.weight"] = {"code": "import os"}
    if damage == "pointer":
        content["state"]["0.weight"] = {"dict": {"exp_avg": {"tensor": "elsewhere"}}}
    text = "{" if damage == "json" else json.dumps(content)
    save_file(tensors, file, {"pellucid": text})
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UsageError, match=r"damaged|do not fit a parameter of 5×6"):
        learn.load("w")


def test_places_that_cannot_be_written_or_read(tmp_path):
    (tmp_path / "models").write_text("a file where a folder belongs")
    with pytest.raises(UsageError, match="cannot be written"):
        learner(tmp_path).save("w")
    learn = learner(tmp_path, model_dir="elsewhere")
    assert learn.save("w") == tmp_path / "elsewhere" / "w.safetensors"
    (tmp_path / "elsewhere" / "folder.safetensors").mkdir()
    (tmp_path / "elsewhere" / "text.safetensors").write_text("no tensors")
    for name, said in (("nothing", "no such file"), ("folder", "is a folder"), ("text", "damaged")):
        with pytest.raises(UsageError, match=said):
            learn.load(name)


def test_a_parameter_cut_between_fits_loses_its_moments_and_no_memory_is_harmed(tmp_path):
    learn = learner(tmp_path)
    learn.fit(1, LR)
    learn.model[3].weight.data = learn.model[3].weight.data[:, :2].clone()
    learn.model[2][1].weight.data = learn.model[2][1].weight.data[:2].clone()
    learn.model[2][1].bias.data = learn.model[2][1].bias.data[:2].clone()
    learn.fit(1, LR)
    assert learn.opt.state[learn.model[3].weight]["exp_avg"].shape == (4, 2)
    assert learn.opt.state[learn.model[3].weight]["step"] == 3 < learn.opt.state[learn.model[0].weight]["step"]
