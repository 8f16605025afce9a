"""The blocks of docs/any-loop.md, and a witness that sees independently what happens while they run."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pellucid
from pellucid.history.history import History
from pellucid.history.record import Section

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "any-loop.md"


def block(title: str) -> str:
    """The Python code under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))


def run(code: str, names: dict, *, watched: bool) -> SimpleNamespace:
    """Execute a block; unwatched, `pellucid.watch` is replaced by a block that does nothing."""
    torch.manual_seed(3)
    namespace = dict(names)
    unwatched = patch.object(pellucid, "watch", lambda *_, **__: nullcontext(MagicMock()))
    with nullcontext() if watched else unwatched:
        exec(compile(code, str(PAGE), "exec"), namespace)
    return SimpleNamespace(**namespace)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1), nn.Linear(4 * 4 * 4, 3))


def images(n: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, 1, 8, 8, generator=generator), torch.arange(n) % 3)


def loaders(bs: int = 8) -> tuple[DataLoader, DataLoader]:
    """Four training batches of which the last is smaller, two validation batches; in order."""
    return DataLoader(images(29, seed=1), bs), DataLoader(images(13, seed=2), bs)


class Witness:
    """Keeps every output and gradient of a model by plain hooks, in float64.

    Attributes:
        passes: Outputs of each training pass, by module name.
        valid: Outputs of each validation pass, by module name, under the number of training passes before it.
        grads: Gradient norms, by parameter name, of each `note_gradients`.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.passes: list[dict[str, list[Tensor]]] = []
        self.valid: dict[int, dict[str, list[Tensor]]] = {}
        self.grads: list[dict[str, float]] = []
        model.register_forward_pre_hook(self._begin)
        for name, module in model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(self._keep(name))

    def note_gradients(self, *_: object) -> None:
        named = self.model.named_parameters()
        self.grads.append({name: p.grad.double().norm().item() for name, p in named if p.grad is not None})

    def _begin(self, *_: object) -> None:
        if self.model.training:
            self.passes.append({})

    def _keep(self, name: str) -> Callable:
        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            place = self.passes[-1] if self.model.training else self.valid.setdefault(len(self.passes), {})
            place.setdefault(name, []).append(output.detach().as_subclass(Tensor).double())

        return keep


def check(history: History, witness: Witness, losses: list[float], loss_tolerance: float = 1e-6) -> None:
    """Compare a history with what a witness saw and a framework logged, one optimizer step a training pass."""
    n = len(witness.passes)
    assert n == len(losses)
    assert history.train.steps.tolist() == [[i, i + 1] for i in range(n)]
    _check_section(history, history.train, witness.passes)
    assert history.valid.steps[:, 0].tolist() == list(witness.valid)
    _check_section(history, history.valid, list(witness.valid.values()))
    np.testing.assert_allclose(history.loss, losses, rtol=1e-5, atol=loss_tolerance)
    assert len(witness.grads) == n
    norms = [[step[name] for step in witness.grads] for name in history.params]
    np.testing.assert_allclose(history.series["grad.norm"], norms, rtol=1e-4, atol=1e-7)
    assert (history.series["grad.norm"] > 0).any()
    assert (history.series["update.ratio"] > 0).any()


def _check_section(history: History, section: Section, columns: list[dict[str, list[Tensor]]]) -> None:
    edges = np.linspace(-10, 10, 81)
    for row, layer in enumerate(history.layers):
        for column, outputs in enumerate(columns):
            x = torch.cat([each.flatten() for each in outputs[layer.name]]).numpy()
            assert section.mean[row, column] == pytest.approx(x.mean(), rel=1e-4, abs=1e-6)
            assert section.std[row, column] == pytest.approx(x.std(ddof=1), rel=1e-4)
            assert section.count[row, column] == x.size
            assert section.near_zero[row, column] == (x <= np.float32(0.05)).sum()
            np.testing.assert_array_equal(section.hist[row, column], np.histogram(x, edges)[0])


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models are equal bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
