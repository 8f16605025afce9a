"""How many images of each class validate, and which groups: as near the share as whole ones allow."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

MOST_TRIES, STEPS = 50, 20_000  # orders of the groups that are tried: many where groups are few
Counts = Mapping[Any, int]


def apportioned(counts: Counts, share: float) -> dict[Any, int]:
    """Validation images of each class: its share rounded down or up, at least one and never all.

    Together they are that share of all images, rounded, as far as one image of each class allows.

    Args:
        counts: Class → its images, at least two.
        share: Between 0 and 1.

    Source: the largest remainder method, by which parliaments share out seats.

    >>> apportioned({"ant": 12, "bee": 12, "fly": 2}, 0.2)
    {'ant': 2, 'bee': 2, 'fly': 1}
    """
    found = {label: min(n - 1, max(1, math.floor(share * n))) for label, n in counts.items()}
    missing = max(0, round(share * sum(counts.values())) - sum(found.values()))
    room = [label for label, n in counts.items() if found[label] < share * n and found[label] < n - 1]
    for label in sorted(room, key=lambda label: found[label] - share * counts[label])[:missing]:
        found[label] += 1
    return found


def chosen_groups(groups: Sequence[Counts], sizes: Sequence[int], share: float, seed: int) -> list[int]:
    """Positions of the groups that validate, sorted; empty where none can.

    Each class of two groups or more is on both sides, unless every choice would take the last images of a class from
    training. Apart from that the groups keep this small:

        (validation images / images − share)² + mean over classes of (its validation images / its images − share)²

    Groups are taken in random order as long as that shrinks; of some orders, more where groups are few, the best is
    kept.

    Args:
        groups: Of each group, the number of its images of each class; an image may be of several classes, or none.
        sizes: Of each group, the number of its images.
        share: Between 0 and 1.
        seed: Of the orders.
    """
    search = _Search(groups, sizes, share)
    draw = random.Random(seed)
    order = list(range(len(groups)))
    best: tuple[float, list[int]] = math.inf, []
    for _ in range(max(1, min(MOST_TRIES, STEPS // len(groups)))):
        draw.shuffle(order)
        found = search.run(order)
        best = min(best, found, key=lambda each: each[0])
    return sorted(best[1])


class _Search:
    """One choice of groups after the other, each from an order."""

    def __init__(self, groups: Sequence[Counts], sizes: Sequence[int], share: float):
        self.groups, self.sizes, self.share = groups, sizes, share
        self.n_all = sum(sizes)
        self.total: dict[Any, int] = {}
        self.having: dict[Any, list[int]] = {}
        for i, group in enumerate(groups):
            for label, n in group.items():
                self.total[label] = self.total.get(label, 0) + n
                self.having.setdefault(label, []).append(i)
        self.rarest = sorted(self.having, key=lambda label: (len(self.having[label]), str(label)))

    def run(self, order: Sequence[int]) -> tuple[float, list[int]]:
        """What is left of the cost, and the groups."""
        self.taken: dict[int, None] = {}
        self.n, self.of = 0, dict.fromkeys(self.total, 0)
        cost = self.share**2 * 2
        place = {i: at for at, i in enumerate(order)}
        for label in self.rarest:
            if not self.of[label]:
                candidates = [i for i in sorted(self.having[label], key=place.__getitem__) if self._may(i)]
                if candidates:  # the first that helps: the one that helps most would always be among the largest
                    helping = next((i for i in candidates if self._change(i) < 0), None)
                    cost += self._take(min(candidates, key=self._change) if helping is None else helping)
        for i in order:
            if i not in self.taken and self._may(i) and self._change(i) < 0:
                cost += self._take(i)
        return cost, list(self.taken)

    def _may(self, i: int) -> bool:
        """Whether training keeps an image of each class without this group."""
        return all(self.of[label] + n < self.total[label] for label, n in self.groups[i].items())

    def _change(self, i: int) -> float:
        """What taking this group adds to the cost."""
        found = self._squared(self.n, self.sizes[i], self.n_all)
        by_class = [self._squared(self.of[label], n, self.total[label]) for label, n in self.groups[i].items()]
        return found + sum(by_class) / len(self.total)

    def _squared(self, before: int, more: int, n: int) -> float:
        return ((before + more) / n - self.share) ** 2 - (before / n - self.share) ** 2

    def _take(self, i: int) -> float:
        change = self._change(i)
        self.taken[i] = None
        self.n += self.sizes[i]
        for label, n in self.groups[i].items():
            self.of[label] += n
        return change
