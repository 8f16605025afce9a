"""A progress bar for long file work: on a terminal only, silent elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pellucid.output import is_terminal

Tick = Callable[[int], None]


@contextmanager
def progress(what: str, total: int) -> Iterator[Tick]:
    """Show `what` and a bar on standard error while the block runs; call the result with the number of items done."""
    if not is_terminal(sys.stderr):
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)


class DownloadBar:
    """The bar that pooch's HTTP downloader drives: it sets `total` (bytes), then calls `update` for each piece."""

    def __init__(self, what: str):
        self.what, self.total = what, 0
        self._stack, self._tick = ExitStack(), None

    def update(self, n: int) -> None:
        """Count `n` more bytes."""
        self._tick = self._tick or self._stack.enter_context(progress(self.what, self.total))
        self._tick(n)

    def reset(self) -> None:
        """Nothing: called before the last `update`."""

    def close(self) -> None:
        """Take the bar away."""
        self._stack.close()
