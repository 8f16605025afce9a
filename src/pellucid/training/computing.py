"""How a model computes: in float32 or, where torch's autocast takes it, in a type of half its size; compiled or not."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from pellucid.errors import TrainingError, UsageError
from pellucid.output import say
from pellucid.text import printable

HALVES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Computing:
    """Computes its model's outputs in a type of choice, for training, validation and predictions alike.

    Attributes:
        precision: `fp32`, `bf16` or `fp16`. Weights, losses, metrics and statistics are float32 in all of them.
    """

    model: nn.Module
    dls: Any
    precision: str = "fp32"

    def to_bf16(self) -> Self:
        """Compute outputs in bfloat16 from now on: as wide as float32, with three digits.

        Worth it on GPUs since 2020 and on processors that multiply bfloat16 (AMX, AVX512-BF16); others are slower.
        """
        return self._to("bf16")

    def to_fp16(self) -> Self:
        """Compute outputs in float16 from now on, with scaled losses: for GPUs that have no bfloat16.

        Steps whose gradients overflow are skipped, and how many there were is printed after the fit.

        Raises:
            UsageError: the loaders' device is the CPU.
        """
        return self._to("fp16")

    def to_fp32(self) -> Self:
        """Compute outputs in float32 from now on, as from the start."""
        return self._to("fp32")

    def compile(self, **options: Any) -> Self:
        """Have torch compile the model, in place: its weights, their names and saved files stay what they are.

        Compiling takes seconds to minutes at the first training batch, at the first validation batch and when the size
        of batches changes. It pays in long trainings, above all on GPUs. While the model is watched or has hooks
        (`ActivationStats`, `hook_outputs`) it runs uncompiled, with the same results but for rounding, and so does the
        head in frozen epochs that train on features. Copies of the model are not compiled, nor are loaded runs. On a
        CPU it needs a C++ compiler.

        Args:
            options: Those of `torch.compile`, such as `mode="max-autotune"`.
        """
        compile_in_place(self.model, **options)
        say(
            "the model is compiled at its first batches, which takes seconds to minutes; while it is watched "
            "(ActivationStats) it runs uncompiled"
        )
        return self

    def _to(self, precision: str) -> Self:
        half_of(precision, self.dls.device)
        self.precision = precision
        return self


def compile_in_place(model: nn.Module, **options: Any) -> None:
    """As `model.compile(**options)`, for models of torch's own layers too, and uncompiled while modules are changed.

    They are where they have hooks, or a `forward` of their own, as a body has whose features are known.
    """

    # torch compiles no code of its own that is not called by somebody else's: `model.compile()` leaves an
    # `nn.Sequential` uncompiled without a word (2.13). Compiled code neither sees later hooks nor forgets earlier ones.
    def call(*args: Any, **kwargs: Any) -> Any:
        return model._call_impl(*args, **kwargs)

    call.__code__ = call.__code__.replace()  # torch keeps at most 8 compilations of a code, and compiles no further
    compiled = torch.compile(call, **options)

    def compiled_or_changed(*args: Any, **kwargs: Any) -> Any:
        if any(map(_is_changed, model.modules())):
            return call(*args, **kwargs)
        try:
            return compiled(*args, **kwargs)
        except RuntimeError as error:
            refuse_compiler(error)
            raise

    model._compiled_call_impl = compiled_or_changed  # where `model.compile` keeps it: copies and pickles go without


def refuse_compiler(error: RuntimeError) -> None:
    """Raise TrainingError where the error, of the forward or the backward pass, is of a compiler that does not work."""
    # By its name: torch has no public one, and importing it takes a second.
    if any(kind.__name__ == "BackendCompilerFailed" for kind in type(error).__mro__):
        why = printable(str(getattr(error, "inner_exception", error)).partition("\n")[0])
        raise TrainingError(
            f"torch.compile cannot compile the model ({why}): install a C++ compiler, such as g++, or train without "
            "compile (--compile)"
        ) from error


def _is_changed(module: nn.Module) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks) or "forward" in vars(module)


def half_of(precision: str, device: torch.device) -> torch.dtype | None:
    """The type of a precision, None for float32.

    Raises:
        UsageError: it is float16 on a CPU, which computes that many times slower.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("float16 is for GPUs, and the batches are on the CPU: use bfloat16 there (to_bf16, bf16)")
    return HALVES[precision]


def as_float32(value: Any) -> Any:
    """Outputs with their tensors of a half type in float32, in tuples, lists and dicts as they came."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, dict):
        return {key: as_float32(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        each = [as_float32(member) for member in value]
        return type(value)(*each) if hasattr(value, "_fields") else type(value)(each)
    return value
