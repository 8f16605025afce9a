"""Gradients, weights and updates of a model's parameters, read around an optimizer step.

On the CPU a compiled kernel (if numba is installed) reads gradients and weights once; elsewhere torch's batched
reductions give the same numbers on the device of the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.activations.reading import at_hand, compiled, is_plain

BEFORE = ("grad.norm", "grad.mean_abs", "grad.zero", "weight.norm")
AFTER = "update.ratio"
_norms, _differences = torch._foreach_norm, torch._foreach_sub  # pyright: ignore[reportPrivateImportUsage]


class Parameters:
    """Reads the same parameters at each step.

    Attributes:
        params: The parameters.
    """

    def __init__(self, params: Sequence[nn.Parameter]):
        self.params = list(params)
        n = len(self.params)
        self._sizes = np.empty(0, np.int64)  # of lazy modules known at the first step only
        self._jobs = np.zeros((n, 4), np.int64)  # addresses of gradient, weight and copy; number of values
        self._copy = np.empty(0, np.float32)
        self._before: list[Tensor] = []
        self._divisors: Tensor | None = None  # the sizes, on the parameters' device
        self._norms = np.zeros(n)

    def before(self) -> np.ndarray | Tensor:
        """Norm, mean size and share of exact zeros of the gradients, and norm of the weights: [quantity, parameter].

        A parameter without gradient counts as one whose gradient is zero. Keeps a copy of the weights.
        """
        if not len(self._sizes):
            self._sizes = np.array([p.numel() for p in self.params], np.int64)
        kernel = at_hand()
        if kernel is None or not all(is_plain(p) and (p.grad is None or is_plain(p.grad)) for p in self.params):
            return self._reduce()
        self._jobs[:, 0] = [0 if p.grad is None else p.grad.data_ptr() for p in self.params]
        self._jobs[:, 1] = [p.data_ptr() for p in self.params]
        if not len(self._copy):
            self._copy = np.empty(self._sizes.sum(), np.float32)
            offsets = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
            self._jobs[:, 2] = self._copy.ctypes.data + offsets * self._copy.itemsize
            self._jobs[:, 3] = self._sizes
        self._before = []
        sums = kernel.read_parameters(self._jobs)
        self._norms = np.sqrt(sums[3])
        return np.stack([np.sqrt(sums[0]), sums[1] / self._sizes, sums[2] / self._sizes, self._norms])

    def after(self) -> np.ndarray | Tensor:
        """Norm of the step over norm of the weights before it, [parameter]; 0 for weights that were all zero."""
        if self._before:
            with torch.no_grad():
                moved = torch.stack(_norms(_differences([p.detach() for p in self.params], self._before)))
                ratios = moved / torch.stack(_norms(self._before))
            self._before = []
            return torch.nan_to_num(ratios, nan=0.0, posinf=0.0)
        self._jobs[:, 1] = [p.data_ptr() for p in self.params]
        moved = np.sqrt(compiled().read_moves(self._jobs))  # type: ignore[union-attr]
        return np.divide(moved, self._norms, out=np.zeros_like(moved), where=self._norms > 0)

    def _reduce(self) -> Tensor:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in self.params]
        grads = [g.coalesce().to_dense() if g.is_sparse else g for g in grads]
        with torch.no_grad():
            self._before = [p.detach().clone() for p in self.params]
            if self._divisors is None or self._divisors.device != grads[0].device:  # a copy to a device waits for it
                self._divisors = torch.from_numpy(self._sizes).to(grads[0].device)
            sizes = self._divisors
            zeros = 1 - torch.stack([g.count_nonzero() for g in grads]) / sizes
            norms = [torch.stack(_norms(tensors, p)).float() for tensors, p in ((grads, 2), (grads, 1))]
            return torch.stack([norms[0], norms[1] / sizes, zeros, torch.stack(_norms(self._before)).float()])
