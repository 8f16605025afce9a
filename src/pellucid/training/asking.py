"""What a learner was asked to do, as it can be asked again: a method, its arguments, and the fits it consists of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


class Asked:
    """Knows the call that is going on, and which fit of it.

    Attributes:
        asked: Name and arguments of the outermost call, `{"method": …, "arguments": {…}}`; None outside of one.
        fit_number: Fits that this call has begun before the present one.
        steps_before: Batches that those trained.
        kept_step: The `Kept` that the call goes on from; None from where it did, and where it began by itself.
        resumed_order: Random numbers at the beginning of the epoch in which it went on; None between epochs.
    """

    asked: dict[str, Any] | None = None
    fit_number: int = -1
    steps_before: int = 0
    train_iter: int
    kept_step: Any = None
    resumed_order: dict[str, Any] | None = None
    _when_done: list[Callable[[], None]]

    @property
    def step(self) -> int:
        """Batches trained since the call began, all its fits together."""
        return self.steps_before + self.train_iter

    @contextmanager
    def sequence(self, method: str, arguments: dict[str, Any]) -> Iterator[None]:
        """Count the fits inside the block as parts of one call; a call inside of another is a part of that."""
        if self.asked is not None:
            yield
            return
        self.asked, self._when_done = {"method": method, "arguments": arguments}, []
        self.fit_number, self.steps_before = -1, 0
        try:
            yield
            for finish in self._when_done:
                finish()
        finally:
            self.asked, self.kept_step, self._when_done = None, None, []

    def when_done(self, finish: Callable[[], None]) -> None:
        """Have a function called when the call has ended well; a second time it is not added."""
        if finish not in self._when_done:
            self._when_done.append(finish)

    @property
    def next_is_behind(self) -> bool:
        """Whether the next fit of this call was over where the call goes on from."""
        return self.kept_step is not None and self.fit_number + 1 < self.kept_step.fit

    def _next_fit(self) -> bool:
        """Begin the next fit of this call; False if it is to be left out, as it was over already."""
        behind = self.next_is_behind
        self.fit_number += 1
        return not behind


def remembered(method: Method) -> Method:
    """Have a learner know a method of this name, and its arguments but callbacks, while it runs."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        arguments = inspect.signature(method).bind(self, *args, **kwargs).arguments
        given = {name: value for name, value in arguments.items() if name not in ("self", "options")}
        given |= arguments.get("options", {})
        plain = {name: _plain(value) for name, value in given.items() if name != "cbs"}
        with self.sequence(method.__name__, plain):
            return method(self, *args, **kwargs)

    return call  # pyright: ignore[reportReturnType]


def _plain(value: Any) -> Any:
    """An argument as JSON has it; of others a description, with which the call cannot be made again."""
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop]}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if isinstance(value, str | int | float | bool | None) else {"unknown": repr(value)}
