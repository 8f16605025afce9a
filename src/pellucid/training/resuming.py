"""Go on with a training that ended before it was done, or begin another one at one of its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pellucid.errors import UsageError
from pellucid.text import first_few, printable
from pellucid.training import kept
from pellucid.training.asking import Asked
from pellucid.training.callbacks.checkpoint import Checkpoint
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.holder import listed
from pellucid.training.checkpoint import plain_model
from pellucid.training.fingerprint import differences, fingerprint
from pellucid.training.kept import Kept
from pellucid.training.state import refuse_other_model

METHODS = ("fit", "fit_one_cycle", "fit_flat_cos", "fit_frozen", "fine_tune")


class Resuming(Asked):
    """Goes on from what `Checkpoint` kept; the parts that it needs are the learner's."""

    dls: Any
    model: Any
    cbs: list[Callback]

    def resume(self, folder: str | Path, cbs: Any = None) -> None:
        """Go on with the fit that `Checkpoint(folder)` kept, from its last step, to the bits it would have ended in.

        Make the learner as it was made for that fit: same data, model, loss and callbacks. The method of the fit and
        its arguments are known, and so is the checkpoint callback; only callbacks that the fit was given besides are
        given again.

        Args:
            folder: Of the checkpoint callback, or a step of it that is kept: `runs/a@step300`, `runs/a@best`.
            cbs: The callbacks that the fit was given, but for the checkpoint.

        Raises:
            UsageError: there is no checkpoint, it is of other data, another model, other callbacks or an incompatible
                version, the training is done, or another process is training there.
        """
        where, step = kept.place_of(folder)
        found = kept.find(folder)
        if step is None and kept.training_of(where).get("state") == "done":
            raise UsageError(
                f"{printable(where)}: this training is done, learn.branch begins another one at one of its steps"
            )
        kept.warn_of_versions(found)
        self._go_on(found, where, found.description["asked"]["arguments"], listed(cbs))

    def branch(self, step: str | Path, folder: str | Path, cbs: Any = None, **changes: Any) -> None:
        """Begin another fit at a kept step of one: the same past, the same batches, and something changed.

        Args:
            step: Such as `runs/a@step300`, or `runs/a` for its last one.
            folder: Of the new fit's checkpoints.
            cbs: The callbacks of the new fit.
            changes: Arguments of the fit's method that are to be other ones, such as `lr_max=0.01` or `n_epoch=20`.

        Raises:
            UsageError: as `resume`; that step is not kept, or the method has no such argument.
        """
        found = kept.find(step)
        asked = found.description["asked"]
        names = set(asked["arguments"]) | set(_parameters(getattr(self, asked["method"], None)))
        if unknown := sorted(set(changes) - names):
            raise UsageError(f"{asked['method']} takes no {first_few(unknown)}; it takes {first_few(sorted(names))}")
        if kept.steps_in(Path(folder)):
            raise UsageError(f"{printable(folder)}: has checkpoints of another training; name another folder")
        found = dataclasses.replace(found, changed=True)
        self._go_on(found, Path(folder), asked["arguments"] | changes, listed(cbs))

    @contextmanager
    def going_on_from(self, found: Kept | None) -> Iterator[None]:
        """Have the call that is made inside the block go on from a kept step, after what must fit was compared.

        Raises:
            UsageError: data, model or callbacks are other ones.
        """
        if found is not None:
            self._refuse_others(found)
        self.kept_step = found
        try:
            yield
        finally:
            self.kept_step = None

    def _go_on(self, found: Kept, folder: Path, arguments: dict[str, Any], cbs: list[Any]) -> None:
        method = found.description["asked"]["method"]
        if method not in METHODS:
            raise UsageError(
                f"{printable(folder)}: was trained by {method}, which goes on with pellucid train --resume "
                f"{printable(folder)}"
            )
        missing = found.changed or not any(isinstance(cb, Checkpoint) for cb in [*self.cbs, *cbs])
        own = [Checkpoint(folder, **found.description["checkpoint"])] if missing else []
        given = {name: _from_json(name, value) for name, value in arguments.items()}
        with self.going_on_from(found):
            for name, p in plain_model(self.model).named_parameters():
                p.requires_grad_(found.state["trains"].get(name, p.requires_grad))
            getattr(self, method)(**given, cbs=[*own, *cbs])

    def _refuse_others(self, found: Kept) -> None:
        what = printable(found.folder)
        changed = differences(found.description["data"], fingerprint(self.dls))
        if changed:
            raise UsageError(f"{what}: was made with other data: {changed}")
        refuse_other_model(self, found.state, what)


def refuse_other_callbacks(learn: Any, found: Kept) -> None:
    """Raise UsageError where a callback that remembered something in the fit that is gone on with is missing."""
    missing = sorted(set(found.description["callbacks"]) - {cb.name for cb in learn.cbs})
    if missing and not found.changed:
        raise UsageError(
            f"{printable(found.folder)}: its fit had callbacks that are missing here: {first_few(missing)}; give them "
            "again, learn.resume(folder, cbs=[…])"
        )


def _parameters(method: Callable[..., Any] | None) -> list[str]:
    import inspect

    return [] if method is None else list(inspect.signature(method).parameters)


def _from_json(name: str, value: Any) -> Any:
    if isinstance(value, dict) and "unknown" in value:
        raise UsageError(f"the fit was given {name}={printable(value['unknown'])}, which no file can keep")
    return slice(*value["slice"]) if isinstance(value, dict) and "slice" in value else value
