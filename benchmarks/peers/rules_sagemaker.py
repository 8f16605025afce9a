"""SageMaker Debugger's built-in rules with their published default thresholds, on an unmodified script.

    python rules_sagemaker.py SCRIPT [ARGUMENTS]        prints one JSON object: rule → first step at which it fires

Written from the documentation of the rules (https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html),
without their code. Losses are looked at every step, everything else every tenth step and the one after it: the
service's own default, every 500 steps, would see nothing of runs as short as these. Functions are seen as well as
modules. Left out are rules without default thresholds (TensorVariance), those that compare runs, and those for text
and trees. `MEANS` says generously which faults each rule could stand for.
"""

import contextlib
import io
import json
import runpy
import sys
from collections import deque

import numpy as np
import torch
import torch.nn.functional as F

EVERY = 10
MEANS = {
    "VanishingGradient": "vanishing-gradients initial-scale-too-small dead-units saturated-units broken-graph",
    "ExplodingTensor": "loss-not-a-number exploding-gradients learning-rate-too-high initial-scale-too-large",
    "DeadRelu": "dead-units learning-rate-too-high activation-on-output",
    "SaturatedActivation": "saturated-units initial-scale-too-large inputs-not-normalised",
    "PoorWeightInitialization": "initial-scale-too-large initial-scale-too-small symmetric-initialisation dead-units "
    "vanishing-gradients exploding-gradients",
    "WeightUpdateRatio": "learning-rate-too-high learning-rate-too-low optimizer-not-stepped updates-lost "
    "schedule-misused parameters-not-optimised",
    "AllZero": "dead-units constant-input activation-on-output broken-graph",
    "UnchangedTensor": "optimizer-not-stepped updates-lost parameters-not-optimised broken-graph constant-input "
    "learning-rate-too-low",
    "LossNotDecreasing": "learning-rate-too-high learning-rate-too-low labels-random optimizer-not-stepped wrong-loss "
    "gradients-not-zeroed updates-lost weight-decay-too-high constant-input symmetric-initialisation schedule-misused",
    "Overfit": "overfitting labels-noisy labels-random train-valid-preprocessing-mismatch model-left-in-eval-mode",
    "Overtraining": "overfitting underfitting schedule-misused",
    "ClassImbalance": "class-imbalance data-not-shuffled",
    "CheckInputImages": "inputs-not-normalised train-valid-preprocessing-mismatch constant-input",
}


class Watcher:
    """Collects what the rules look at, and keeps the first step at which each one fires."""

    def __init__(self) -> None:
        self.step, self.depth = 0, 0
        self.fired: dict[str, int] = {}
        self.parameters: dict[int, torch.nn.Parameter] = {}
        self.before: dict[int, np.ndarray] = {}  # weights at the step before
        self.saved: dict[object, deque] = {}  # the last four of each tensor that UnchangedTensor looks at
        self.relu_variances: list[float] = []
        self.losses: list[float] = []
        self.valid: list[float] = []  # losses without gradients since the last step
        self.epochs: list[tuple[float, float, int]] = []  # mean training and validation loss, steps so far
        self.labels: list[int] = []
        self.right: list[bool] = []
        self.pixels: list[torch.Tensor] = []

    def fire(self, rule: str, when: object = True) -> None:
        if when:
            self.fired.setdefault(rule, self.step)

    @property
    def looking(self) -> bool:
        return self.step % EVERY == 0 and torch.is_grad_enabled()

    def enter(self, module, inputs) -> None:
        if self.depth == 0 and torch.is_grad_enabled():
            for parameter in module.parameters():
                self.parameters[id(parameter)] = parameter
            x = inputs[0] if inputs else None
            if isinstance(x, torch.Tensor) and x.dim() == 4 and len(self.pixels) * len(x) < 500:
                self.pixels.append(x.detach().mean((0, 2, 3)))
                self.fire("CheckInputImages", (torch.stack(self.pixels).mean(0).abs() > 0.2).any())
        self.depth += 1

    def leave(self, *_) -> None:
        self.depth = max(0, self.depth - 1)

    def relu(self, x: torch.Tensor) -> None:
        if not self.looking:
            return
        x = x.detach().float()
        units = x.flatten(2).transpose(1, 2).flatten(0, 1) if x.dim() > 2 else x.reshape(-1, x.shape[-1])
        active = (units > 0).float().mean(0) * 100
        self.fire("DeadRelu", (active < 1.0).float().mean() * 100 > 50.0)
        self.fire("AllZero", (units <= 0).all())
        self.fire("ExplodingTensor", not torch.isfinite(units).all())
        self.relu_variances.append(units.var().item())

    def saturating(self, x: torch.Tensor, limit: float) -> None:
        if self.looking:
            x = x.detach().float()
            units = x.flatten(2).transpose(1, 2).flatten(0, 1) if x.dim() > 2 else x.reshape(-1, x.shape[-1])
            active = (units.abs() < limit).float().mean(0) * 100
            self.fire("SaturatedActivation", (active < 1.0).float().mean() * 100 > 50.0)

    def loss(self, output: torch.Tensor, target: torch.Tensor, value: torch.Tensor) -> None:
        if value.dim() == 0 and not torch.is_grad_enabled():
            self.valid.append(value.item())
        if torch.is_grad_enabled() and not target.is_floating_point() and output.dim() == 2 and target.dim() == 1:
            self.labels += target.tolist()
            self.right += (output.argmax(1) == target).tolist()

    def backward(self, value: torch.Tensor) -> None:
        """After the gradients of a step are there."""
        if self.valid:
            self.validated()
        loss = value.item()
        self.losses.append(loss)
        self.loss_rules(loss)
        gradients = {key: p.grad for key, p in self.parameters.items() if p.grad is not None}
        if self.step % EVERY == 0:
            self.tensor_rules(gradients)
        if self.step % EVERY == 1:
            self.update_rule()
        self.relu_variances.clear()
        self.step += 1

    def loss_rules(self, loss: float) -> None:
        self.fire("ExplodingTensor", not np.isfinite(loss))
        if len(self.losses) > 10 and (len(self.losses) - 1) % 10 == 0:
            earlier = self.losses[-11]
            self.fire("LossNotDecreasing", (earlier - loss) / max(abs(earlier), 1e-12) * 100 < 0.1)
        best = np.minimum.accumulate(self.losses)
        self.fire("Overtraining", len(best) > 5 and best[-6] - best[-1] < 0.01)
        if len(self.losses) == 10:
            self.fire("PoorWeightInitialization", min(self.losses[5:]) >= min(self.losses[:5]))
        if len(self.labels) >= 500 and len(self.labels) % 500 < 100:
            counts = np.bincount(self.labels[-500:])
            counts = counts[counts > 0]
            self.fire("ClassImbalance", counts.max() / counts.min() > 10 or len(counts) == 1)

    def tensor_rules(self, gradients: dict[int, torch.Tensor]) -> None:
        spreads = []
        for key, gradient in gradients.items():
            values = gradient.detach().float().flatten()
            self.fire("VanishingGradient", values.abs().mean() < 1e-7)
            self.fire("ExplodingTensor", not torch.isfinite(values).all())
            self.fire("AllZero", (values == 0).all())
            if self.step < 10 and self.parameters[key].dim() > 1:
                low, high = np.percentile(values.numpy(), [5, 95])
                spreads.append(high - low)
            self.unchanged(("gradient", key), values.numpy())
        if self.step < 10:
            least = min(self.relu_variances, default=1.0)
            apart = max(self.relu_variances, default=1.0) / max(least, 1e-30)
            self.fire("PoorWeightInitialization", apart > 10.0 or (spreads and min(spreads) < 0.001))
        self.before = {}
        for key, parameter in self.parameters.items():
            weights = parameter.detach().float().numpy().copy()
            self.fire("ExplodingTensor", not np.isfinite(weights).all())
            if parameter.dim() > 1:
                self.before[key] = weights
                self.unchanged(("weight", key), weights)

    def unchanged(self, key: object, values: np.ndarray) -> None:
        kept = self.saved.setdefault(key, deque(maxlen=4))
        kept.append(values.copy())
        same = [np.allclose(kept[0], other, rtol=1e-5, atol=1e-8) for other in kept]
        self.fire("UnchangedTensor", len(kept) == 4 and all(same))

    def update_rule(self) -> None:
        for key, before in self.before.items():
            moved = np.abs(self.parameters[key].detach().float().numpy() - before).mean()
            ratio = moved / (np.abs(before).mean() + 1e-9)
            self.fire("WeightUpdateRatio", ratio > 10.0 or ratio < 1e-8)

    def validated(self) -> None:
        """A stretch of batches without gradients has ended: the losses of an epoch."""
        since = self.losses[self.epochs[-1][2] if self.epochs else 0 :]
        if since:
            self.epochs.append((float(np.mean(since)), float(np.mean(self.valid)), len(self.losses)))
            worse = [(v - t) / max(abs(t), 1e-12) > 0.1 for t, v, _ in self.epochs]
            self.fire("Overfit", len(worse) > 1 and worse[-1] and worse[-2])
            best = np.minimum.accumulate([v for _, v, _ in self.epochs])
            self.fire("Overtraining", len(best) > 10 and best[-11] - best[-1] < 0.01)
        self.valid = []

    def finish(self) -> None:
        if self.valid:
            self.validated()
        labels, right = np.array(self.labels[-500:]), np.array(self.right[-500:])
        if len(labels):
            wrong = [1 - right[labels == label].mean() for label in np.unique(labels)]
            self.fire("ClassImbalance", max(wrong) > 0.7)


def install(watcher: Watcher) -> None:
    """Hooks and wrapped functions; the process ends with the script, so none is taken out again."""
    torch.nn.modules.module.register_module_forward_pre_hook(watcher.enter)
    torch.nn.modules.module.register_module_forward_hook(watcher.leave, always_call=True)
    for owner, name in ((F, "relu"), (torch, "relu"), (F, "relu6")):
        wrap(owner, name, lambda _, x, *__, **___: watcher.relu(x))
    for owner, name, limit in ((torch, "tanh", 9.4999), (torch, "sigmoid", 23.0)):
        wrap(owner, name, lambda _, x, *__, limit=limit, **___: watcher.saturating(x, limit))
    for name in ("cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss"):
        wrap(F, name, lambda result, output, target, *_, **__: watcher.loss(output, target, result))
    for name in ("binary_cross_entropy_with_logits", "binary_cross_entropy"):
        wrap(F, name, lambda result, output, target, *_, **__: watcher.loss(output, target, result))
    backward = torch.Tensor.backward

    def watched(self, *args, **kwargs):
        backward(self, *args, **kwargs)
        watcher.backward(self.detach())

    torch.Tensor.backward = watched


def wrap(owner: object, name: str, look) -> None:
    """Call `look(result, *args)` after each call of `owner.name`."""
    original = getattr(owner, name)

    def wrapped(*args, **kwargs):
        result = original(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            look(result, *args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def main() -> None:
    """Run the script with its arguments and print what fired."""
    script, sys.argv = sys.argv[1], sys.argv[1:]
    watcher = Watcher()
    install(watcher)
    failed = None
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_path(script, run_name="__main__")
        except (Exception, SystemExit) as error:
            failed = repr(error)
    watcher.finish()
    print(json.dumps({"fired": watcher.fired, "steps": watcher.step, "failed": failed}))


if __name__ == "__main__":
    main()
