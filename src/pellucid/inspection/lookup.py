"""Which layer is meant: by name, module, or number among the layers with parameters. Works on names, without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pellucid.text import first_few

MOST_NAMES = 40  # in a message


class CallNames:
    """Names for the calls of a model, given one by one: a module called again is `name#2`.

    >>> names = CallNames()
    >>> [names(each) for each in ("conv", "act", "conv")]
    ['conv', 'act', 'conv#2']
    """

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()

    def __call__(self, name: str) -> str:
        """The call's name, given its module's."""
        self.times[name] += 1
        return name if self.times[name] == 1 else f"{name}#{self.times[name]}"


@dataclass(frozen=True)
class Lookup:
    """The rows that can be asked for, and how to ask.

    >>> lookup = Lookup(["0", "1", "2.0", "2.1"], ["0", "2.0"])
    >>> [lookup.find(layer) for layer in ("1", "2", -1, 7)]
    [[1], [2, 3], [2], []]

    Attributes:
        rows: Names, as `CallNames` gives them, in order.
        numbered: Names of the layers with parameters, in the order of the flattened model: what a number counts.
        modules: Name → module of the whole model, containers too; empty where the model is gone.
    """

    rows: Sequence[str]
    numbered: Sequence[str]
    modules: Mapping[str, object] = field(default_factory=dict)

    def name(self, layer: object) -> str | None:
        """The name of a layer given by any of the three, whether it has rows or not; None if there is none.

        Args:
            layer: A name, where `conv` is the first call of a module and `conv#2` its second, and "" the whole model; a
                module, for its first call; or a number among the layers with parameters, negative from the end.
        """
        if isinstance(layer, int):
            return self.numbered[layer] if -len(self.numbered) <= layer < len(self.numbered) else None
        if isinstance(layer, str):  # `2#1` is how a command line, where 2 is a number, names the module '2'
            return layer if layer in self.rows else layer.removesuffix("#1")
        return next((name for name, module in self.modules.items() if module is layer), None)

    def find(self, layer: object) -> list[int]:
        """Places of a layer's rows: one, or all that are inside a container; none if there is no such layer."""
        name = self.name(layer)
        if name in self.rows:
            return [self.rows.index(name)]
        if name is None:
            return []
        return [place for place, row in enumerate(self.rows) if not name or row.startswith(f"{name}.")]


def listed(names: Sequence[str], kinds: Sequence[str]) -> str:
    """Names with their kinds, for a message: `0.0 (Conv2d), 0.1 (ReLU)`."""
    return first_few([f"{name} ({kind})" for name, kind in zip(names, kinds, strict=True)], MOST_NAMES)
