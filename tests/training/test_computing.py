"""Precision and compiling: what computes in which type, what stays float32, and that nothing else changes."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.activations.hook import hook_outputs
from pellucid.data.loader import DataLoaders
from pellucid.errors import TrainingError, UsageError
from pellucid.metrics import accuracy
from pellucid.optim.optimizers import SGD, Adam
from pellucid.training import forward, loop, scaling
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.gradients import GradientAccumulation, GradientClip
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.training.computing import HALVES, as_float32
from pellucid.training.learner import Learner
from pellucid.training.timing import faster_precision

LR = 0.1


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * 9, 3)
    )


def batches(n: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(12, 1, 8, 8, generator=generator), torch.arange(12) % 3) for _ in range(n)]


def learner(model: nn.Module | None = None, data: Any = None, **options) -> Learner:
    data = batches() if data is None else data
    options = {"lr": LR, "opt_func": partial(SGD, mom=0.0), "metrics": accuracy} | options
    return Learner(DataLoaders(data, data, device="cpu"), model or network(), F.cross_entropy, **options)


class Types(Callback):
    """The types of a batch's parts, and of what the layers give."""

    def __init__(self) -> None:
        self.seen = set()

    def before_fit(self):
        self.hook = self.learn.model[0].register_forward_hook(lambda module, given, out: self.seen.add(out.dtype))

    def after_loss(self):
        self.seen.add((self.learn.pred.dtype, self.learn.loss.dtype))

    def cleanup_fit(self):
        self.hook.remove()
        self.seen |= {p.dtype for p in self.learn.model.parameters()}


@pytest.mark.parametrize(("precision", "half"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_layers_compute_in_the_type_and_the_rest_is_float32(precision, half):
    learn = learner(cbs=Types)
    assert getattr(learn, f"to_{precision}")() is learn and learn.precision == precision
    learn.fit(1)
    assert learn.types.seen == {half, (torch.float32, torch.float32), torch.float32}


def test_bfloat16_trains_as_autocast_by_hand():
    data = batches()
    learn, model = learner(data=data).to_bf16(), network()
    torch.manual_seed(5)
    learn.fit(2)
    torch.manual_seed(5)
    for _ in range(2):
        model.train()
        for x, y in data:
            with torch.autocast("cpu", torch.bfloat16):
                pred = model(x)
            model.zero_grad()
            F.cross_entropy(pred.float(), y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= LR * p.grad
    for ours, theirs in zip(learn.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)  # convolutions of other layouts round otherwise


def test_validation_and_predictions_compute_in_it_too():
    learn = learner()
    model = copy.deepcopy(learn.model).eval()
    exact, exact_loss = learn.get_preds()[0], learn.validate()[0]
    rough, rough_loss = learn.to_bf16().get_preds()[0], learn.validate()[0]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = torch.cat([model(x).float().softmax(1) for x, _ in batches()])
    torch.testing.assert_close(rough, expected, rtol=0, atol=1e-6)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact) and rough_loss != exact_loss
    assert rough_loss == pytest.approx(exact_loss, rel=0.02)
    assert torch.equal(learn.to_fp32().get_preds()[0], exact)


def test_statistics_of_half_precision_are_as_exact_as_their_values():
    found = {}
    for precision in ("fp32", "bf16"):
        learn = learner(cbs=ActivationStats(with_hist=True, with_grads=True))
        learn.precision = precision
        learn.fit(2)
        found[precision] = learn.activation_stats.history
    exact, rough = found["fp32"], found["bf16"]
    assert exact.layers == rough.layers
    for name in ("grad.norm", "weight.norm"):
        np.testing.assert_allclose(rough.series[name], exact.series[name], rtol=0.1, atol=1e-3)
    assert rough.series["loss"].tolist() == pytest.approx(exact.series["loss"].tolist(), rel=0.02)


Pair = namedtuple("Pair", "a b")


def test_outputs_of_every_form_become_float32():
    half = lambda: torch.ones(2, dtype=torch.bfloat16)
    found = as_float32({"x": (half(), [half()]), "y": Pair(half(), torch.ones(1, dtype=torch.int64)), "z": "text"})
    assert found["x"][0].dtype == found["x"][1][0].dtype == found["y"].a.dtype == torch.float32
    assert found["y"].b.dtype == torch.int64 and found["z"] == "text" and isinstance(found["y"], Pair)


def test_float16_on_a_cpu_is_refused():
    learn = learner()
    with pytest.raises(UsageError, match="float16 is for GPUs, and the batches are on the CPU: use bfloat16"):
        learn.to_fp16()
    learn.precision = "fp16"  # as of loaders that were moved since
    for use in (lambda: learn.fit(1), learn.validate, learn.get_preds):
        with pytest.raises(UsageError, match="float16 is for GPUs"):
            use()


@pytest.fixture
def float16(monkeypatch) -> Any:
    """Float16 on the CPU, which computes it slowly: what is tested is the scaling around it."""
    for module in (loop, forward):
        monkeypatch.setattr(module, "half_of", lambda precision, device: HALVES[precision])

    def made(*args, **options) -> Learner:
        learn = learner(*args, **options)
        learn.precision = "fp16"
        return learn

    return made


def test_scaled_losses_leave_the_record_and_the_training_what_they_are(float16, capsys):
    runs = {}
    for make in (learner, float16):
        torch.manual_seed(0)
        runs[make] = learn = make(cbs=ActivationStats(with_grads=True))
        learn.fit(3)
    exact, rough = runs[learner], runs[float16]
    assert list(rough.recorder.raw_losses) == pytest.approx(list(exact.recorder.raw_losses), rel=0.01)
    norms = (learn.activation_stats.history.series["grad.norm"] for learn in (rough, exact))
    torch.testing.assert_close(*map(torch.from_numpy, norms), rtol=0.05, atol=1e-3)
    for ours, theirs in zip(rough.model.parameters(), exact.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.01)
    assert (rough.scaling.n_steps, rough.scaling.n_skipped) == (9, 0) and exact.scaling is None
    assert "skipped" not in capsys.readouterr().out


class Overflows(Callback):
    """Make the gradients of some batches infinite, as those of a scaled loss may be."""

    def __init__(self, batches: range | list[int]):
        self.batches, self.before, self.after = batches, [], []

    def after_backward(self):
        if self.learn.train_iter in self.batches:
            self.learn.model[0].weight.grad[0] = float("inf")

    def before_step(self):
        self.before.append(copy.deepcopy(self.learn.model[5].weight.detach()))

    def after_batch(self):
        if self.learn.training:
            self.after.append(copy.deepcopy(self.learn.model[5].weight.detach()))


@pytest.mark.parametrize("opt_func", [Adam, partial(SGD, mom=0.9, wd=0.1), torch.optim.SGD])
def test_steps_whose_gradients_overflow_are_skipped_and_counted(float16, capsys, opt_func):
    learn = float16(cbs=Overflows([1, 4]), opt_func=opt_func)
    learn.fit(2)
    same = [torch.equal(a, b) for a, b in zip(learn.overflows.before, learn.overflows.after, strict=True)]
    assert same == [False, True, False, False, True, False]
    assert (learn.scaling.n_steps, learn.scaling.n_skipped) == (6, 2)
    said = "2 of 6 steps were skipped, as float16 gradients overflowed; losses are now scaled by 16384"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("look_every", [1, 50])
def test_many_in_a_row_end_the_training_with_what_to_do(float16, monkeypatch, look_every):
    monkeypatch.setattr(scaling, "LOOK_EVERY", look_every)
    learn = float16(cbs=Overflows(range(5, 100)))
    with pytest.raises(TrainingError, match=r"overflowed in 20 steps in a row.*learn\.to_bf16\(\)"):
        learn.fit(30)


def test_a_loss_that_overflows_points_to_bfloat16(float16):
    learn = float16(data=[(1e6 * x, y) for x, y in batches()])
    learn.model[1] = nn.Identity()
    with pytest.raises(TrainingError, match=r"became (nan|inf).*Train in bfloat16, learn\.to_bf16\(\): float16 ends"):
        learn.fit(1)


class Norms(Callback):
    order = 20

    def before_fit(self):
        self.seen = []

    def before_step(self):
        self.seen.append(torch.cat([p.grad.flatten() for p in self.learn.model.parameters()]).norm().item())


def test_gathering_and_clipping_see_gradients_without_the_scale(float16):
    learn = float16(cbs=[GradientAccumulation(36), Norms])
    exact = learner(cbs=[GradientAccumulation(36), Norms])
    for each in (learn, exact):
        torch.manual_seed(3)
        each.fit(2)
    assert learn.norms.seen == pytest.approx(exact.norms.seen, rel=0.05) and len(learn.norms.seen) == 2
    clipped = float16(cbs=[GradientClip(0.01), Norms])
    clipped.fit(1)
    assert clipped.norms.seen == pytest.approx([0.01] * 3, rel=1e-3)


def test_float16_refuses_an_optimizer_that_evaluates_the_loss_itself(float16):
    with pytest.raises(UsageError, match="float16 does not work with LBFGS"):
        float16(opt_func=torch.optim.LBFGS).fit(1)


def test_a_trial_of_precisions_changes_nothing():
    learn = learner()
    learn.fit(1)

    def state() -> list[Tensor]:
        moments = [v for each in learn.opt.state.values() for v in each.values() if isinstance(v, Tensor)]
        return [v.clone() for v in (*learn.model.state_dict().values(), *moments)]

    before, rng = state(), torch.get_rng_state()
    record, modes = learn.recorder.values.copy(), [m.training for m in learn.model.modules()]
    chosen, seconds = faster_precision(learn)
    assert set(seconds) == {"fp32", "bf16"} and chosen in seconds and all(taken > 0 for taken in seconds.values())
    assert all(map(torch.equal, state(), before))
    assert torch.equal(torch.get_rng_state(), rng) and learn.recorder.values == record
    assert [m.training for m in learn.model.modules()] == modes
    assert learn.precision == "fp32" and all(p.grad is None for p in learn.model.parameters())


def test_the_faster_precision_wins_if_it_is_clearly_faster(monkeypatch):
    from pellucid.training import timing

    learn = learner()
    for bf16, expected in ((0.5, "bf16"), (0.97, "fp32"), (2.0, "fp32")):
        monkeypatch.setattr(timing, "_times", lambda names, n, step, s=bf16: {"fp32": 1.0, "bf16": s})
        assert faster_precision(learn)[0] == expected


@pytest.mark.filterwarnings("ignore:the model runs uncompiled")
def test_a_compiled_model_trains_saves_and_is_watched_as_the_plain_one(tmp_path, capsys):
    compiled, plain = learner(path=tmp_path), learner(path=tmp_path)
    assert compiled.compile(backend="eager") is compiled
    assert "compiled at its first batches" in capsys.readouterr().out
    for learn in (compiled, plain):
        torch.manual_seed(4)
        learn.fit(2)
    for ours, theirs in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    compiled.save("compiled")
    fresh = learner(path=tmp_path).load("compiled")
    torch.testing.assert_close(fresh.get_preds()[0], compiled.get_preds()[0])
    compiled.add_cb(ActivationStats())
    compiled.fit(1)
    assert compiled.activation_stats.history.layers[0].name == "0"


class Compiler:
    """A backend that compiles nothing and counts what it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.graphs += 1
        return graph.forward


def test_models_of_torchs_own_layers_are_compiled_once_for_training_and_once_for_validation():
    compiler = Compiler()
    learn = learner().compile(backend=compiler)
    learn.fit(3)
    assert compiler.graphs == 2
    learn.summary()
    learn.get_preds()
    assert compiler.graphs == 2


def test_hooks_see_a_compiled_model_and_leave_no_trace():
    compiler, seen = Compiler(), []
    learn = learner().compile(backend=compiler)
    x = batches()[0][0]
    plain = learn.model.eval()(x)
    with hook_outputs([learn.model[0]]) as hooks:
        assert torch.equal(learn.model(x), plain)
        assert hooks.stored[0].shape == (12, 4, 3, 3)
    hook = learn.model.register_forward_hook(lambda module, given, out: seen.append(out))
    learn.model(x)
    hook.remove()
    learn.model(x)
    assert len(seen) == 1 and compiler.graphs == 1


def test_copies_of_a_compiled_model_are_plain():
    learn = learner().compile(backend=Compiler())
    learn.fit(1)
    x = batches()[0][0]
    other = pickle.loads(pickle.dumps(copy.deepcopy(learn.model)))
    assert other._compiled_call_impl is None
    assert torch.equal(other.eval()(x), learn.model.eval()(x))


def test_a_training_batch_of_one_image_names_its_size_and_what_to_do():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    data = [*batches(1), (torch.randn(1, 1, 8, 8), torch.tensor([0]))]
    with pytest.raises(TrainingError, match=r"this training batch has 1 item, .*take larger batches.*drop_last=True"):
        learner(model, data).fit(1)


def test_a_learner_is_made_compiled(monkeypatch, capsys):
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    learn = learner(compile=True)
    assert "compiled at its first batches, which takes seconds to minutes" in capsys.readouterr().out
    assert compiler.graphs == 0
    learn.fit(1)
    assert compiler.graphs == 2


def test_a_compiler_that_fails_is_told_in_one_line():
    def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        raise RuntimeError("no compiler here\nand much more")

    learn = learner().compile(backend=broken)
    with pytest.raises(TrainingError, match=r"cannot compile the model \(no compiler here\): .*without compile"):
        learn.fit(1)


def test_layers_that_pass_features_on_run_uncompiled_and_then_compiled_again():
    compiler = Compiler()
    learn = learner().compile(backend=compiler)
    x = batches()[0][0]
    plain = learn.model.eval()(x)
    learn.model[0].forward = lambda images: images[:, :, :3, :3].expand(-1, 4, -1, -1)
    changed = learn.model(x)
    del learn.model[0].forward
    assert torch.equal(learn.model(x), plain) and not torch.equal(changed, plain) and compiler.graphs == 1


def test_any_number_of_models_can_be_compiled():
    compilers = [Compiler() for _ in range(12)]
    for compiler in compilers:
        learner().compile(backend=compiler).model(batches()[0][0])
    assert [compiler.graphs for compiler in compilers] == [1] * 12
