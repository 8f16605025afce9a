"""A training pass is recorded without changing it, and a copy of the model can make it again."""

import copy
import gc
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loops import fit, net
from torch import nn
from torch.nn import functional as F

from pellucid.doctor.evidence.gather import Gathering, open_gathering
from pellucid.doctor.trials.optimizers import Recipe
from pellucid.doctor.trials.replay import CapturedBatch
from pellucid.doctor.trials.specimen import Specimen
from pellucid.doctor.trials.tape import Tape


def network(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3), *more)


X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])


def captured(model, passes, x=X) -> Any:
    """One pass recorded as a watch would; the batch and a copy of the model as it was before."""
    before, tape, batches = copy.deepcopy(model), Tape(model), []
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda m, args: tape.begin(args) if m is model and not tape.recording else None
    )
    real, torch.autograd.backward = (
        torch.autograd.backward,
        lambda loss, *a, **k: (batches.append(tape.finish(loss)), real(loss, *a, **k)),
    )
    try:
        passes(model, x)
    finally:
        torch.autograd.backward = real
        hook.remove()
    return batches[0], before


def cross_entropy(model, x):
    F.cross_entropy(model(x), Y).backward()


def by_module(model, x):
    nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1)(model(x), Y).backward()


def by_hand(model, x):
    ((model(x) - F.one_hot(Y, 3).float()) ** 2).mean().backward()


def indexed(model, x):
    logp = model(x).log_softmax(1)
    loss = -logp[torch.arange(len(Y)), Y].mean()
    loss.backward()


def softmax_outside(model, x):
    F.nll_loss(torch.log(F.softmax(model(x), dim=1)), Y).backward()


def mixup(model, x):
    order = torch.randperm(len(x))
    out = model(0.7 * x + 0.3 * x[order])
    (0.7 * F.cross_entropy(out, Y) + 0.3 * F.cross_entropy(out, Y[order])).backward()


def siamese(model, x):
    F.triplet_margin_loss(model(x), model(x + 1), model(-x)).backward()


def recurrent(model, x):
    out = model(x)
    F.cross_entropy(model(F.pad(out, (0, 1))), Y).backward()


def penalised(model, x):
    loss = F.cross_entropy(model(x), Y)
    loss += 0.01 * sum(p.pow(2).sum() for p in model.parameters())
    (loss / 4).backward()


def in_place(model, x):
    kept = torch.zeros(6, 3)
    kept[:] = model(x)
    kept[:, 0].add_(1.0)
    F.cross_entropy(kept, Y).backward()


def teacher(model, x):
    with torch.no_grad():
        wanted = model(x).softmax(1)
    F.kl_div(model(x + 0.1).log_softmax(1), wanted, reduction="batchmean").backward()


def gradient_penalty(model, x):
    x = x.clone().requires_grad_()
    out = model(x)
    (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    (out.mean() + slope.norm(dim=1).sub(1).square().mean()).backward()


def half(model, x):
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(x), Y)
    loss.backward()


def scaled(model, x):
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(F.cross_entropy(model(x), Y)).backward()


PASSES = [
    *(cross_entropy, by_module, by_hand, indexed, softmax_outside, mixup, siamese, recurrent, penalised, in_place),
    *(teacher, gradient_penalty, half),
]


@pytest.mark.parametrize("passes", PASSES, ids=lambda each: each.__name__)
def test_a_pass_is_recorded_unchanged_and_can_be_made_again(passes):
    torch.manual_seed(2)
    plain = network()
    torch.manual_seed(3)
    passes(plain, X)
    drawn = torch.rand(3)
    model = network()
    torch.manual_seed(3)
    batch, before = captured(model, passes)
    assert torch.equal(torch.rand(3), drawn)  # no random number was drawn
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), model.buffers(), strict=True))
    again = copy.deepcopy(before)
    assert batch.check(again) == ""
    # its gradients are those of the pass
    again = copy.deepcopy(before)
    batch.random.restore()
    batch.replay(again)[0].backward()
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert not torch.overrides._get_current_function_mode_stack()
    assert torch.Tensor.backward.__module__ == "torch._tensor"


def test_the_loss_behind_a_grad_scaler():
    from pellucid.activations import scaler

    scaler.remember()
    try:
        batch, before = captured(network(), scaled)
    finally:
        scaler.forget()
    assert batch.scale == 65536
    assert batch.check(before) == ""
    assert 0.5 < batch.loss < 3


def test_labels_inputs_and_a_softmax_can_be_other_ones():
    batch, model = captured(network(nn.Identity()), softmax_outside)
    model.eval()
    out = model(X)
    assert [t.tolist() for t in batch.label_values] == [Y.tolist()]
    assert torch.equal(batch.input_values[0], X)
    assert len(batch) == 6
    loss, output = batch.replay(model, labels=[Y.flip(0)])
    torch.testing.assert_close(loss, F.cross_entropy(out, Y.flip(0)))
    assert torch.equal(output, out)
    torch.testing.assert_close(batch.replay(model, without={"softmax", "log"})[0], F.nll_loss(out, Y))
    torch.testing.assert_close(batch.replay(model, inputs=[X * 2])[0], F.cross_entropy(model(X * 2), Y))
    assert torch.equal(batch.call(model, inputs=[X * 2]), model(X * 2))


def test_both_labels_of_mixup_are_labels():
    batch, _ = captured(network(), mixup)
    assert [t.shape for t in batch.label_values] == [(6,), (6,)]


def test_row_numbers_are_no_labels():
    batch, _ = captured(network(), indexed)
    assert [t.tolist() for t in batch.label_values] == [Y.tolist()]


def test_an_autoencoder_compares_with_the_inputs_it_had():
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))
    batch, before = captured(model, lambda model, x: F.mse_loss(model(x), x).backward())
    assert batch.check(before) == ""
    torch.testing.assert_close(batch.replay(before, inputs=[X + 1])[0], F.mse_loss(before(X + 1), X))


def test_inputs_that_the_model_changes():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))
    batch, before = captured(model, cross_entropy, X.clone())
    assert torch.equal(batch.input_values[0], X)
    assert batch.check(before) == ""


def test_the_model_may_compute_the_loss_itself():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 3)

        def forward(self, x, labels):
            logits = self.body(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    batch, before = captured(Whole(), lambda model, x: model(x, labels=Y)["loss"].backward())
    assert batch.check(before) == ""
    assert [t.tolist() for t in batch.label_values] == [Y.tolist()]
    assert len(batch.input_values) == 1
    loss = batch.replay(before, labels=[Y.flip(0)])[0]
    torch.testing.assert_close(loss, F.cross_entropy(before.body(X), Y.flip(0)))


def test_another_network_is_a_constant():
    judge = nn.Linear(3, 1)
    model = network()

    def generate(model, x):
        F.binary_cross_entropy_with_logits(judge(model(x)), torch.ones(6, 1)).backward()

    batch, before = captured(model, generate)
    with torch.no_grad():
        judge.weight.zero_()
    assert batch.check(before) == ""


def test_modules_may_be_called_without_the_model():
    model = network()
    tape = Tape(model)
    before = copy.deepcopy(model)
    torch.manual_seed(3)
    tape.begin((X,), module=model[0])
    hidden = model[0](X)
    loss = F.cross_entropy(model[4](model[2](hidden) * 2), Y)
    batch = tape.finish(loss)
    assert [step.function for step in batch.steps if step.is_call] == ["0", "2", "4"]
    assert batch.check(before) == ""


def test_a_gathered_training_can_be_made_again():
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    recipe = Recipe.of(optimizer, model)
    with open_gathering(Gathering(model)) as gathering:
        losses = fit(model, optimizer, 4)
    captures = gathering.captures
    assert [batch.loss for batch in captures.train] == losses[:3]
    assert all(step.where.startswith("loops.py") for step in captures.train[0].steps)
    run = Specimen.of(model, captures.train, recipes=[recipe], initial=captures.initial)
    assert run.why == ""
    random = captures.train[0].random
    assert random is not None
    random.restore()
    np.testing.assert_allclose(run.descend(run.copy(), 3), losses[:3], rtol=1e-5)


def test_operations_say_where_they_ran():
    class Inner(nn.Module):
        def forward(self, x):
            return torch.tanh(x).T.T

    model = nn.Sequential(nn.Linear(4, 3), Inner(), nn.Softmax(dim=1))
    tape = Tape(model)
    tape.begin((X,))
    out = model(X)
    loss = nn.CrossEntropyLoss()(out.sigmoid(), Y)
    seen = [(op.name, op.module, op.kind) for op in tape.ops]
    assert seen == [
        *(("linear", "0", "Linear"), ("tanh", "1", "Inner"), ("T", "1", "Inner"), ("T", "1", "Inner")),
        *(("softmax", "2", "Softmax"), ("sigmoid", None, ""), ("cross_entropy", None, "CrossEntropyLoss")),
    ]
    lines = {op.name: op.where for op in tape.ops}
    here = Inner.forward.__code__.co_firstlineno
    assert lines["tanh"] == f"test_tape.py:{here + 1}"
    assert lines["linear"] == f"test_tape.py:{here + 6}"  # torch's own code is not the user's
    assert torch.equal(tape.ops[-1].result, loss)
    tape.abandon()
    assert tape.ops == []


def test_a_validation_pass_ends_with_the_first_number():
    model = network().eval()
    tape = Tape(model)
    tape.begin((X,))
    with torch.no_grad():
        out = model(X)
        loss = F.cross_entropy(out, Y)
        hits = (out.argmax(1) == Y).float().mean()
    batch = tape.finish()
    assert batch.loss == float(loss) != float(hits)
    assert batch.check(copy.deepcopy(model)) == ""


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        return 2 * grad * ctx.saved_tensors[0]


def test_functions_of_the_users_own():
    batch, before = captured(network(), lambda model, x: Square.apply(model(x)).mean().backward())
    assert batch.check(before) == ""


def hidden(x):
    with torch._C.DisableTorchFunction():  # as code that torch does not dispatch
        return x + 1


def kept_inside(model: Any, x):
    features: list[Any] = []
    hook = model[2].register_forward_hook(lambda module, args, output: features.append(output))
    out = model(x)
    hook.remove()
    return F.cross_entropy(out, Y) + features[0].square().mean() * out.square().mean()


@pytest.mark.parametrize(
    ("passes", "why"),
    [
        (lambda model, x: hidden(model(x).mean()).backward(), "cannot be recorded"),
        (lambda model, x: kept_inside(model, x).backward(), "from inside the model"),
        (lambda model, x: F.cross_entropy(model(x) * next(DRIFT), Y).backward(), "instead of"),
    ],
)
def test_a_pass_that_cannot_be_made_again_says_why(passes, why):
    batch, before = captured(network(), passes)
    if why == "instead of":
        before[4].weight.data.mul_(2)  # not the model of that pass
    assert why in batch.check(before)
    assert why in batch.why


DRIFT = iter(range(2, 9))


def test_a_constant_that_changed_since_is_noticed():
    def passes(model, x):
        wanted = torch.zeros(6, 3)
        loss = (model(x) + wanted).mean()  # the gradient of a sum does not need what was added
        wanted += 1
        loss.backward()

    assert "changed" in captured(network(), passes)[0].why


def test_what_was_recorded_is_not_kept():
    model = network()
    tape = Tape(model)
    tape.begin((X,))
    out = model(X)
    loss = F.cross_entropy(out, Y)
    alive = weakref.ref(out)
    batch = tape.finish(loss)
    del out, loss
    gc.collect()
    assert alive() is None
    assert sum(t.numel() for t in batch.constants.values()) == X.numel() + Y.numel()


def test_an_error_in_the_model_ends_nothing_that_comes_after():
    model, tape = network(), Tape(network())
    tape.model = model
    tape.begin((X[:, :3],))
    with pytest.raises(RuntimeError):
        model(X[:, :3])
    tape.begin((X,))
    batch = tape.finish(F.cross_entropy(model(X), Y))
    assert len(batch) == 6
    assert [step.name for step in batch.steps] == ["", "cross_entropy"]
    assert not torch.overrides._get_current_function_mode_stack()


def test_other_modes_may_come_and_go():
    model = network()
    tape = Tape(model)
    tape.begin((X,))
    with torch.device("meta"):
        assert torch.zeros(2).is_meta
        loss = F.cross_entropy(model(X), Y)
        batch = tape.finish(loss)
        assert torch.zeros(2).is_meta
    assert batch.steps
    assert not torch.overrides._get_current_function_mode_stack()


def test_a_batch_from_a_loader_and_a_loss_function():
    model = network().eval()
    batch = CapturedBatch.of(F.cross_entropy, (X,), Y)
    torch.testing.assert_close(batch.replay(model)[0], F.cross_entropy(model(X), Y))
    loss = batch.replay(model, labels=[Y.flip(0)], inputs=[X + 1])[0]
    torch.testing.assert_close(loss, F.cross_entropy(model(X + 1), Y.flip(0)))
    named = CapturedBatch.of(lambda out, y: F.cross_entropy(out.logits, y), (X,), Y)
    torch.testing.assert_close(named.replay(Named(model))[0], F.cross_entropy(model(X), Y))


class Named(nn.Sequential):
    def forward(self, input):
        return SimpleNamespace(logits=super().forward(input))
