"""Numbers as rules say them."""

from __future__ import annotations


def num(value: float) -> str:
    """Three digits.

    >>> num(2.30259), num(0.00001), num(120000)
    ('2.3', '0.00001', '120,000')
    """
    if value == 0 or not 1e-6 <= abs(value) < 1e7:
        return f"{value:.3g}"
    digits = f"{float(f'{value:.3g}'):,.10f}"
    return digits.rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """A share in per cent.

    >>> percent(0.256), percent(0.0004), percent(1)
    ('26 %', 'under 0.1 %', '100 %')
    """
    hundredths = 100 * share
    if 0 < hundredths < 0.1:
        return "under 0.1 %"
    return f"{hundredths:.0f} %" if hundredths >= 1 or hundredths == 0 else f"{hundredths:.1f} %"


def times(factor: float) -> str:
    """How many times as much, two digits.

    >>> times(12.34), times(3), times(719223)
    ('12 times', '3 times', '720,000 times')
    """
    return f"{num(float(f'{factor:.2g}'))} times"


def part(share: float) -> str:
    """A part of a whole, as a fraction where it is small.

    >>> part(0.066), part(0.002), part(2e-6), part(1e-32)
    ('6.6 %', '1/500', '1/500,000', 'under 1/10,000,000')
    """
    if share >= 0.005 or share <= 0:
        return f"{num(float(f'{100 * share:.2g}'))} %"
    return f"1/{num(float(f'{1 / share:.2g}'))}" if share > 1e-7 else "under 1/10,000,000"


def layer(name: str) -> str:
    """A module's name in a sentence; one of numbers, as nn.Sequential gives them, would read as a number.

    >>> layer("features.conv1"), layer("1.1"), layer("0")
    ('features.conv1', 'layer 1.1', 'layer 0')
    """
    return f"layer {name}" if name.replace(".", "").isdigit() else name
