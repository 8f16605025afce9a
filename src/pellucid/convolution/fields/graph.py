"""A model's operations on one image, each with what it reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.convolution.connectivity import Input, Read, inputs_in, reads_of, rule_of
from pellucid.errors import UsageError
from pellucid.inspection.looking import looking
from pellucid.inspection.lookup import CallNames

IN_PLACE = ("iadd", "imul", "isub", "itruediv")
WINDOWS = ("conv", "pool", "Conv", "Pool")


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: Of the module in the model, or of the operation in `forward`.
        kind: Class name of the module, or name of the function.
        is_module: Whether it is a module of PyTorch.
        shape: Of the output, batch axis of one first.
        reads: What it reads and how.
    """

    name: str
    kind: str
    is_module: bool
    shape: tuple[int, ...]
    reads: list[Read]


class Untraceable(Exception):
    """The model's code cannot be followed symbolically; the text says where it went wrong."""


def as_type_of(model: nn.Module, images: Tensor) -> Tensor:
    """Images in the model's own type and on its device."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(0, device="cpu"))
    return images.to(weight.device, weight.dtype)


def operations(model: nn.Module, input_size: tuple[int, ...]) -> dict[str, Operation]:
    """Follow a model on an image of this size and list its operations in order, by graph key; the image is first.

    Raises:
        Untraceable: torch.fx cannot follow the model.
        UsageError: the model does not take such an image.
    """
    from torch import fx

    with looking(model), torch.no_grad():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                traced = fx.GraphModule(model, _tracer().trace(model))
        except Exception as error:  # a forward given stand-ins for tensors can fail in any way
            raise Untraceable(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from None
        reader = _reader(traced, dict(model.named_modules()))
        try:
            reader.run(as_type_of(model, torch.zeros(1, *input_size, device="cpu")))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise refused(model, input_size, error) from None
    for name in sorted(reader.unknown):
        warnings.warn(f"receptive_field does not know {name!r}: every output of it is taken to see all of its input",
                      stacklevel=3)  # fmt: skip
    return reader.operations


def refused(model: nn.Module, input_size: tuple[int, ...], error: Exception) -> UsageError:
    """What to say when a model does not take an image."""
    return UsageError(
        f"{type(model).__name__} does not take an image of shape {tuple(input_size)}: {str(error).splitlines()[0]}"
    )


def _tracer() -> Any:
    from torch import fx

    class Tracer(fx.Tracer):
        """Takes a module that has a rule as one operation, as it does PyTorch's own."""

        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return super().is_leaf_module(m, module_qualified_name) or rule_of(m) is not None

    return Tracer()


def _reader(traced: Any, modules: dict[str, nn.Module]) -> Any:
    from torch import fx
    from torch.fx.node import map_aggregate

    class GraphReader(fx.Interpreter):
        """Runs the graph and notes what every operation was given, with tensors as sources."""

        def __init__(self, module: Any) -> None:
            super().__init__(module)
            self.operations: dict[str, Operation] = {}
            self.unknown: set[str] = set()
            self.pieces: dict[str, list[Input]] = {}  # outputs of operations with several, such as a split
            self.written: dict[str, str] = {}  # a tensor changed in place is read from the operation that changed it
            self.call_name = CallNames()
            self.ends = _ends(module.graph, modules)

        def source(self, value: Any) -> Any:
            if not isinstance(value, fx.Node):
                return value
            result = self.env[value]
            if isinstance(result, Tensor):
                return Input(self.written.get(value.name, value.name), tuple(result.shape))
            return self.pieces.get(value.name, result)

        def run_node(self, n: Any) -> Any:
            args, kwargs = map_aggregate(n.args, self.source), map_aggregate(n.kwargs, self.source)
            result = super().run_node(n)
            if n.op == "placeholder" and isinstance(result, Tensor):
                self.operations[n.name] = Operation("image", "image", False, tuple(result.shape), [])
            elif n.op.startswith("call") and inputs_in((args, kwargs)):
                self._note(n, args, kwargs, result)
            return result

        def _note(self, n: Any, args: Any, kwargs: Any, result: Any) -> None:
            target = self.fetch_attr(n.target) if n.op == "call_module" else n.target
            if target is getitem and isinstance(args[0], list):
                chosen = args[0][args[1]]
                if isinstance(chosen, list):
                    self.pieces[n.name] = chosen
                elif chosen.made_by in self.operations:
                    self.operations[n.name] = self._operation(n, target, chosen.shape, [Read(chosen)])
            elif isinstance(result, Tensor):
                self._note_one(n, target, args, kwargs, tuple(result.shape))
            elif isinstance(result, tuple | list) and all(isinstance(item, Tensor) for item in result):
                self._note_many(n, target, args, kwargs, [tuple(item.shape) for item in result])

        def _note_one(self, n: Any, target: Any, args: Any, kwargs: Any, shape: tuple[int, ...]) -> None:
            reads, known = reads_of(shape, target, args, kwargs)
            kept, kind = self._seeing(reads, target, known), _kind(target)
            if kept:
                self.operations[n.name] = self._operation(n, target, shape, kept)
                in_place = (kind.endswith("_") and not kind.endswith("__")) or kind in IN_PLACE
                if in_place and isinstance(n.args[0], fx.Node):
                    self.written[n.args[0].name] = n.name

        def _note_many(self, n: Any, target: Any, args: Any, kwargs: Any, shapes: list[tuple[int, ...]]) -> None:
            pieces, known = reads_of(shapes, target, args, kwargs)
            self.pieces[n.name] = [Input(f"{n.name}[{i}]", shape) for i, shape in enumerate(shapes)]
            for source, reads in zip(self.pieces[n.name], pieces, strict=True):
                kept = self._seeing(reads, target, known)
                if kept:
                    self.operations[source.made_by] = Operation(
                        source.made_by, _kind(target), False, source.shape, kept
                    )

        def _seeing(self, reads: list[Read], target: Any, known: bool) -> list[Read]:
            """What comes from the image in the end; others start at parameters."""
            kept = [read for read in reads if read.source.made_by in self.operations]
            if kept and not known:
                self.unknown.add(_kind(target))
            return kept

        def _operation(self, n: Any, target: Any, shape: tuple[int, ...], reads: list[Read]) -> Operation:
            module = n.target if n.op == "call_module" else self.ends.get(n.name)
            name, kind = module or n.name, _kind(modules[module] if module else target)
            return Operation(self.call_name(name), kind, module is not None, shape, reads)

    return GraphReader(traced)


def _ends(graph: Any, modules: dict[str, nn.Module]) -> dict[str, str]:
    """The operations that end a call of somebody's own module without submodules: operation → module."""

    def owner(node: Any) -> tuple[str, str] | None:
        stack = node.meta.get("nn_module_stack")
        call, (name, _) = next(reversed(stack.items())) if stack else ("", ("", None))
        plain = name and node.op != "call_module" and not list(modules[name].children())
        return (call, name) if plain else None

    owners = [(node.name, owner(node)) for node in graph.nodes]
    pairs = zip(owners, [*owners[1:], ("", None)], strict=True)
    return {node: own[1] for (node, own), (_, following) in pairs if own and own != following}


def _kind(target: Any) -> str:
    if isinstance(target, nn.Module):
        return type(target).__name__
    return target if isinstance(target, str) else target.__name__


def has_windows(found: dict[str, Operation]) -> bool:
    """Whether any operation is a convolution or a pooling."""
    return any(word in operation.kind for operation in found.values() for word in WINDOWS)


def output_of(model: nn.Module, name: str, images: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
    """Run a model and return what `read` makes of one layer's output, before anything changes that in place.

    Args:
        model: Any module.
        name: Of a module or an operation, as `operations` names it: `name#2` is its second call.
        images: A batch.
        read: Called with the output.
    """
    from torch import fx

    module_name, _, call = name.partition("#")
    left = int(call or 1)
    found: list[Tensor] = []

    def take(output: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            found.append(read(output))

    modules = dict(model.named_modules())
    if module_name in modules:
        hook = modules[module_name].register_forward_hook(lambda _module, _inputs, output: take(output))
        try:
            model(images)
        finally:
            hook.remove()
        return found[0]

    class Reader(fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            if n.name == name:
                take(result)
            return result

    Reader(fx.GraphModule(model, _tracer().trace(model))).run(images)
    return found[0]
