"""Watches the training of any script: the model is whichever one trains.

`with attend() as attended: …` finds the modules that are called from outside of any other with gradients on, and has
everything recorded from their very first pass.
"""

from __future__ import annotations

import gc
import warnings
from contextlib import ExitStack
from typing import Any, Self

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from pellucid.activations.watch import Watch
from pellucid.doctor import lines, listening
from pellucid.doctor.evidence.gather import Gathering, open_gathering
from pellucid.doctor.evidence.record import Evidence, Failure
from pellucid.doctor.evidence.schedules import alive
from pellucid.doctor.trials.specimen import Specimen
from pellucid.errors import UsageError
from pellucid.history.history import History
from pellucid.optim.groups import parameters_of

MAX_CALLS = 64
UNDECIDED = 3  # steps until which another, larger group of modules may take the place of the one that is watched


def attend() -> Attending:
    """Watch what trains inside a `with` block, without being told which model it is.

    Of several models that are trained apart from one another, as a generator and its critic, the largest one is
    watched; modules that one optimizer trains together, as an encoder and a decoder, are watched as one.
    """
    return Attending()


class Attending(listening.Listener):
    """What `attend` returns: the block, and afterwards what was seen.

    Attributes:
        watch: The watch of the model that was found; None before there is one.
        gathering: What gathers its evidence.
    """

    def __init__(self) -> None:
        super().__init__()
        self.watch: Watch | None = None
        self.gathering: Gathering | None = None
        self._stack: ExitStack | None = None
        self._examined: list[nn.Module] = []
        self._known: set[int] = set()  # the modules that are watched, as far as they have parameters
        self._held = (
            WeakIdKeyDictionary()
        )  # each module that was found → the optimizers that hold any of its parameters
        self._models = 0
        self._calls: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]] = []  # of the first pass
        self._loaded: tuple[Any, Any, float] | None = None
        self._failure: Failure | None = None

    def __enter__(self) -> Self:
        listening.listen(self)
        return self

    def __exit__(self, failed: type[BaseException] | None, error: BaseException | None, *_: Any) -> None:
        if error is not None and not isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
            if self.gathering is None:
                where = lines.raised_at(error.__traceback__)
                self._failure = Failure(type(error).__name__, str(error), where, during="input")
            else:
                self.gathering.failed(error)
        self._close()
        if self.gathering is not None:
            self.gathering.finished = error is None or isinstance(error, SystemExit)
        listening.forget(self)  # last, since the watch has put its own `backward` before that of the listeners

    @property
    def history(self) -> History | None:
        """What the layers of the model did; None if nothing trained."""
        return None if self.watch is None else self.watch.history

    def evidence(self) -> Evidence:
        """What else was seen."""
        if self.gathering is None:
            return Evidence(models=0, failure=self._failure, notes=list(self.notes))
        self.gathering.models = max(1, self._models)
        found = self.gathering.evidence()
        found.notes += self.notes
        return found

    def specimen(self) -> Specimen | None:
        """What trials need; None if nothing trained."""
        return None if self.gathering is None else self.gathering.specimen()

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, grad: bool) -> None:
        """Look whether it is a model that trains."""
        if not grad:
            return
        if id(module) in self._known or module in self._held:
            self._remember(module, args, kwargs)
            return
        if not any(p.requires_grad for p in module.parameters()):
            return
        self._models += 1
        owned = {id(p) for p in module.parameters()}
        self._held[module] = {
            id(optimizer) for optimizer in alive() if any(id(p) in owned for p in parameters_of(optimizer))
        }
        chosen = self._chosen(module)
        if chosen is not None:
            self._examine(chosen)
            if self.gathering is not None:
                if self._loaded is not None:
                    self.gathering.loaded(*self._loaded)
                self.gathering.catch_up([call for call in self._calls if call[0] in self._examined])
                self.gathering.called(module, args, kwargs, grad=grad)
        self._remember(module, args, kwargs)

    def returned(self, module: nn.Module, output: Any) -> None:
        """Keep what the modules of the first pass gave, until it is known which belong together."""
        if self._calls and self._calls[-1][0] is module:
            self._calls[-1] = (*self._calls[-1][:3], output)

    def loaded(self, iterator: Any, batch: Any, asked: float) -> None:
        """Keep the batch that the first pass is of."""
        if self.gathering is None or not self.gathering.backwards:
            self._loaded = iterator, batch, asked

    def before_backward(self, roots: Any, inputs: list[Tensor] | None) -> None:
        """Let go of the first pass."""
        if self.gathering is not None and self.gathering.backwards:
            self._calls, self._loaded = [], None

    def _remember(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.gathering is None or not self.gathering.backwards:
            self._calls = [*self._calls[-MAX_CALLS:], (module, args, kwargs, None)]

    def _chosen(self, module: nn.Module) -> list[nn.Module] | None:
        """The modules to watch now that this one was found; None if it changes nothing."""
        if self.gathering is None:
            return [module]
        mine = self._held[module]
        theirs = set().union(*(self._held[each] for each in self._examined))
        if self.gathering.steps == 0 and (mine & theirs or not mine or not theirs):
            return [*self._examined, module]
        others = [each for each, held in self._held.items() if held & mine or each is module]
        if self.gathering.steps < UNDECIDED and _size(others) > _size(self._examined):
            return others
        return None

    def _examine(self, modules: list[nn.Module]) -> None:
        self._close()
        self._examined = modules
        model = modules[0] if len(modules) == 1 else _common(modules)
        # Where forward() of a model is called, and not the model, each of its layers is called from outside.
        inner = modules if len(modules) == 1 or isinstance(model, Roots) else [*model.modules()]
        called = [m for m in inner if any(p.requires_grad for p in m.parameters())]
        self._known = set(map(id, called))
        held = any(self._held[each] for each in modules)
        try:
            self._open(model, called, "auto" if held else None)
        except UsageError as error:
            self.watch = self.gathering = None
            self.notes.append(str(error))

    def _open(self, model: nn.Module, roots: list[nn.Module], optimizer: Any) -> None:
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a watch says what it does not see, and the script did not ask for one
            self.watch = Watch(
                model, optimizer, loss=True, modules=None, every=1, with_hist=True, with_grads=optimizer is not None
            )
            self.gathering = Gathering(model, roots, self.watch)
            stack.callback(self._stop, self.watch)
            self.watch.start()
            if optimizer is None:
                self.watch.calls.begin()  # its hook comes too late for the call that runs
            stack.enter_context(open_gathering(self.gathering))
            self._stack = stack.pop_all()

    def _stop(self, watch: Watch) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            watch.stop()

    def _close(self) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            stack.close()


class Roots(nn.ModuleList):
    """Modules that are trained together, as one model; it is in training mode if any of them is."""

    @property
    def training(self) -> bool:  # pyright: ignore
        """Whether any of them is in training mode."""
        return any(module.training for module in self)

    @training.setter
    def training(self, mode: bool) -> None:  # pyright: ignore
        pass


def _common(modules: list[nn.Module]) -> nn.Module:
    """The smallest module that has all of these in it, so that their names are those of the user's; else a list."""
    wanted = set(map(id, modules))
    found = [x for x in gc.get_objects() if issubclass(type(x), nn.Module)]
    above = [x for x in found if wanted <= {id(each) for each in x.modules()}]
    return min(above, key=lambda x: sum(1 for _ in x.modules()), default=Roots(modules))


def _size(modules: list[nn.Module]) -> int:
    return sum(p.numel() for p in {id(p): p for m in modules for p in m.parameters()}.values())
