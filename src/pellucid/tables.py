"""Tables in columns, as text that pipes well and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

GAP = "  "


def columns(rows: Sequence[Sequence[str]], *, left: int | None = None, least: Sequence[int] = ()) -> list[str]:
    """Rows as lines with columns of equal width.

    Args:
        rows: The cells.
        left: How many columns hold words, flush left; the others hold numbers, flush right. None for all.
        least: Smallest width of each column.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths = list(map(max, widths, least)) if least else widths
    places = ["<" if left is None or i < left else ">" for i in range(len(widths))]
    return [
        GAP.join(f"{cell:{place}{width}}" for cell, place, width in zip(row, places, widths, strict=True)).rstrip()
        for row in rows
    ]


def as_text(head: Sequence[str], rows: Sequence[Sequence[str]], foot: Sequence[str] = (), *, left: int) -> str:
    """Columns under a head, words flush left, numbers flush right.

    Args:
        head: A word for each column.
        rows: The cells.
        foot: A last row below a rule, for totals; () for none.
        left: How many columns hold words; the others hold numbers.
    """
    lines = columns([head, *rows, *([foot] if foot else [])], left=left)
    rule = "─" * max(map(len, lines))
    lines.insert(1, rule)
    if foot:
        lines.insert(-1, rule)
    return "\n".join(lines)


def framed(head: Sequence[str], rows: Sequence[Sequence[str]], *, least: Sequence[int] = ()) -> list[str]:
    """Lines of a table whose head stands between two rules, as fastai prints them; all columns flush left."""
    above, *lines = columns([head, *rows], least=least)
    rule = "=" * max(map(len, [above, *lines]))
    return [rule, above, rule, *lines]


def as_html(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    foot: Sequence[str] = (),
    *,
    left: int,
    notes: Sequence[str] = (),
) -> str:
    """The same table in HTML, with a title above and notes below."""

    def line(cells: Sequence[str], tag: str) -> str:
        sides = ["left" if i < left else "right" for i in range(len(cells))]
        styles = (f"text-align:{side};padding:2px 8px" for side in sides)
        parts = (f'<{tag} style="{style}">{escape(c)}</{tag}>' for style, c in zip(styles, cells, strict=True))
        return f"<tr>{''.join(parts)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    end = f"<tfoot>{line(foot, 'th')}</tfoot>" if foot else ""
    above = f"<caption>{escape(title)}</caption><thead>{line(head, 'th')}</thead>"
    below = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return f"<table>{above}<tbody>{body}</tbody>{end}</table>{below}"
