"""Tables in columns, as text that pipes well and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

GAP = "  "


def as_text(head: Sequence[str], rows: Sequence[Sequence[str]], foot: Sequence[str] = (), *, left: int) -> str:
    """Columns of equal width under a head, words flush left, numbers flush right.

    Args:
        head: A word for each column.
        rows: The cells.
        foot: A last row below a rule, for totals; () for none.
        left: How many columns hold words; the others hold numbers.
    """
    everything = [head, *rows, *([foot] if foot else [])]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    places = ["<" if i < left else ">" for i in range(len(head))]
    lines = [
        GAP.join(f"{cell:{place}{width}}" for cell, place, width in zip(row, places, widths, strict=True)).rstrip()
        for row in everything
    ]
    rule = "─" * max(map(len, lines))
    lines.insert(1, rule)
    if foot:
        lines.insert(-1, rule)
    return "\n".join(lines)


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
