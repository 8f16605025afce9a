"""The work of a model, layer by layer: parameters and multiplications, such that rows add up to the whole model.

The model runs once under a dispatch mode of torch's, which sees every operation whatever code called it, and every
operation is charged to the innermost module that was being called. So a layer counts the same whether it is torch's
own, a subclass, or a function call in somebody's `forward`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import UninitializedBuffer, is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pellucid.inspection.looking import looking
from pellucid.inspection.lookup import CallNames

# Operations of torch's that multiply and that neither its own counter nor we have a formula for. Those of other
# libraries (deformable convolutions, quantised layers) are told by their namespace.
UNKNOWN = {
    *("_native_multi_head_attention", "_transformer_encoder_layer_fwd", "_scaled_dot_product_flash_attention_for_cpu"),
    *("_addmm_activation", "_int_mm", "_weight_int4pack_mm", "_weight_int8pack_mm", "_sparse_mm", "_cdist_forward"),
    *("_thnn_fused_lstm_cell", "_thnn_fused_gru_cell", "_cudnn_rnn", "miopen_rnn"),
}
DECOMPOSITIONS = ("linalg_", "_linalg_", "_fft_", "cholesky", "triangular_solve", "geqrf", "ormqr", "lu_")
ELEMENTWISE = {"linalg_vector_norm", "linalg_cross", "linalg_diagonal"}  # no product of matrices, despite their names
TORCH = ("aten", "prim", "prims")
CONVOLUTIONS = ("convolution", "_convolution")


@dataclass(frozen=True)
class Work:
    """One call of one layer, for one image.

    Attributes:
        name: Of the module in the model, `name#2` for its second call; empty for the model itself.
        module: The module.
        shape: Of its output (the first tensor of it), batch first; empty where it gives none.
        called: Whether the model called it at all; the others have a row for their parameters' sake.
        n_params: Parameters that no other row counts: its own, and those of modules in it that are not called.
        trainable: Whether parameters it works with are trained, its own or those an earlier row counts.
        n_multiplications: In its convolutions and matrix products, over the output grid (a transposed convolution:
            the input grid), without those of the layers inside it.
        n_multiplications_input: The same with convolutions over the input grid, as the book's chapter counts.
        uncounted: Names of operations in it that multiply and cannot be counted.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    called: bool
    n_params: int
    trainable: bool
    n_multiplications: int
    n_multiplications_input: int
    uncounted: tuple[str, ...]


@dataclass
class _Frame:
    """A call that is going on, or is over."""

    name: str
    module: nn.Module
    inner: int = 0
    over_output: int = 0
    over_input: int = 0
    uncounted: dict[str, None] = field(default_factory=dict)
    output: Any = None
    params: list[nn.Parameter] = field(default_factory=list)

    @property
    def layer(self) -> bool:
        """Whether it is more than a container of the calls inside it."""
        return not self.inner or bool(self.over_output or self.uncounted or self.params)


def layer_work(model: nn.Module, xb: Tensor) -> list[Work]:
    """Run a model on a batch in evaluation mode and list its layers in the order in which their calls ended.

    The parameters of all rows together are the model's, each counted once. The model is left as it was.

    Args:
        model: Any module whose layers have their shapes, see `with_shapes`.
        xb: A batch it accepts, batch axis first.
    """
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper: the calls inside compiled code are not seen
    frames = _calls(model, xb)
    uncalled = _place_parameters(model, frames)
    call_name = CallNames()
    rows = [_row(call_name(frame.name), frame, len(xb), called=True) for frame in frames if frame.layer]
    return rows + [_row(frame.name, frame, len(xb), called=False) for frame in uncalled]


def with_shapes(model: nn.Module, xb: Tensor) -> nn.Module:
    """The model itself, or of one with lazy layers a copy to which running the batch gave its shapes."""
    lazy = [tensor for tensor in (*model.parameters(), *model.buffers()) if is_lazy(tensor)]
    if not lazy:
        return model
    # deepcopy refuses buffers without a shape, which are as good as new ones
    model = copy.deepcopy(model, {id(b): UninitializedBuffer() for b in lazy if isinstance(b, UninitializedBuffer)})
    with looking(model), torch.no_grad():
        model(xb)
    return model


def _row(name: str, frame: _Frame, n_images: int, *, called: bool) -> Work:
    output = _first_tensor(frame.output)
    # Work that does not depend on the image, such as a product of weights, is shared by the batch: hence rounded up.
    over_output, over_input = (-(-n // n_images) for n in (frame.over_output, frame.over_input))
    return Work(
        name,
        frame.module,
        () if output is None else tuple(output.shape),
        called,
        sum(p.numel() for p in frame.params),
        any(p.requires_grad for p in (frame.params if frame.inner else frame.module.parameters())),
        over_output,
        over_input,
        tuple(frame.uncounted),
    )


def _calls(model: nn.Module, xb: Tensor) -> list[_Frame]:
    frames: list[_Frame] = []
    going_on: list[_Frame] = []
    # What a parametrization computes is part of the layer whose weight it makes.
    names = {id(m): name for name, m in model.named_modules() if "parametrizations" not in name.split(".")}

    def before(module: nn.Module, args: Any) -> None:
        if id(module) in names:
            if going_on:
                going_on[-1].inner += 1
            going_on.append(_Frame(names[id(module)], module))

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in names:
            while going_on[-1].module is not module:  # calls that ended with an exception which the model caught
                going_on.pop()
            frame = going_on.pop()
            frame.output = output
            frames.append(frame)

    with ExitStack() as stack:
        # Hooks of all modules, since scripted ones take none of their own.
        stack.callback(register_module_forward_pre_hook(before).remove)
        stack.callback(register_module_forward_hook(after).remove)
        stack.enter_context(looking(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_no_fused_attention())
        stack.enter_context(_Charging(going_on))
        model(xb)
    return frames


@contextmanager
def _no_fused_attention() -> Iterator[None]:
    # Fused attention is one operation on the CPU, which neither shows its parts nor has a formula in torch's counter.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Charging(TorchDispatchMode):
    """Charge every operation to the innermost call that is going on."""

    def __init__(self, going_on: list[_Frame]):
        super().__init__()
        self.going_on = going_on

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", func)
        if packet not in flop_registry and hasattr(func, "decompose") and func.namespace == "aten":
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        output = func(*args, **kwargs)
        if self.going_on:
            self._charge(self.going_on[-1], func, packet, args, kwargs, output)
        return output

    @staticmethod
    def _charge(frame: _Frame, func: Any, packet: Any, args: Any, kwargs: Any, output: Any) -> None:
        name, namespace = packet.__name__, getattr(func, "namespace", "higher_order")
        if packet in flop_registry:
            n = flop_registry[packet](*args, **kwargs, out_val=output) // 2  # an addition for each multiplication
            frame.over_output += n
            one_grid = name not in CONVOLUTIONS or args[6]  # transposed convolutions go over the input grid already
            frame.over_input += n if one_grid else args[1].numel() * args[0].shape[0] * prod(args[0].shape[2:])
        elif name in PRODUCTS:
            n = PRODUCTS[name](*args)
            frame.over_output += n
            frame.over_input += n
        elif _first_tensor(output) is not None and _multiplies(name, namespace):
            frame.uncounted[f"{namespace}::{name}"] = None


def _multiplies(name: str, namespace: str) -> bool:
    if namespace not in TORCH or name in UNKNOWN:
        return True
    return name.startswith(DECOMPOSITIONS) and name not in ELEMENTWISE


def _lstm(x: Tensor, weight_in: Tensor, weight_hidden: Tensor, *_: Any) -> int:
    return (weight_in.numel() + weight_hidden.numel()) * x.shape[0] * x.shape[1]


# Operations that torch's counter leaves out, from their arguments: each weight works once a step, or once a row.
PRODUCTS: dict[str, Callable[..., int]] = {
    "mkldnn_rnn_layer": _lstm,
    "_trilinear": lambda left, weight, *_: weight.numel() * left.shape[0],
    "mv": lambda matrix, *_: matrix.numel(),
    "addmv": lambda _, matrix, *__: matrix.numel(),
    "dot": lambda vector, *_: vector.numel(),
    "vdot": lambda vector, *_: vector.numel(),
    "addbmm": lambda _, left, right: left.numel() * right.shape[-1],
    "addr": lambda _, left, right: left.numel() * right.numel(),
}


def _place_parameters(model: nn.Module, frames: list[_Frame]) -> list[_Frame]:
    """Give every parameter to one call; returns frames for modules with parameters that were not called.

    A parameter belongs to the innermost called module that holds it: usually its layer; the module around where a
    function of the parent uses the weight of a child (as attention does). Parents that only pass data on use none:
    then the child was left out, as an auxiliary classifier is in evaluation.
    """
    first: dict[str, int] = {}
    for i, frame in enumerate(frames):
        first.setdefault(frame.name, i)
    places: dict[int, tuple[int, str]] = {}
    params = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        params[id(p)] = p
        path = name.split(".")[:-1]
        path = path[: path.index("parametrizations")] if "parametrizations" in path else path
        holder = ".".join(path)
        while ".".join(path) not in first and path:
            path.pop()
        place = first.get(".".join(path), len(frames)), holder
        places[id(p)] = min(places.get(id(p), place), place)
    works = [frame.layer for frame in frames]  # before any parameter is placed
    uncalled: dict[str, _Frame] = {}
    for key, (i, holder) in places.items():
        if i < len(frames) and (works[i] or frames[i].name == holder):
            frames[i].params.append(params[key])
        else:
            found = uncalled.setdefault(holder, _Frame(holder, model.get_submodule(holder)))
            found.params.append(params[key])
    return list(uncalled.values())


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return next((found for part in parts if (found := _first_tensor(part)) is not None), None)
