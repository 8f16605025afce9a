"""Letters for weights, inputs and outputs, and the equations and matrices written with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pellucid.errors import UsageError

Name = tuple[str, int | None]
Entry = tuple[int, ...]

TEXT_ROWS = 64
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
NAMES = """
alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu
nu xi pi rho sigma tau upsilon varphi chi psi omega
"""
LATEX = {letter: rf"\{name}" for letter, name in zip("αβγδεζηθικλμνξπρστυφχψω", NAMES.split(), strict=True)}


class Alphabet:
    """Names without end: the letters, then the letters with subscript 1, 2 …"""

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def __getitem__(self, i: int) -> Name:
        turn, place = divmod(i, len(self.letters))
        return self.letters[place], turn or None


GREEK = Alphabet("αβγδεζηθικλμνξπρστυφχψω")  # omicron looks like o
INPUTS = Alphabet("ABCDEFGHJKLMN")  # the chapter's, without I
OUTPUTS = Alphabet("PQRSTUVWXYZ")


def text(name: Name) -> str:
    """A name as text, α₁."""
    letter, subscript = name
    return letter if subscript is None else letter + str(subscript).translate(SUBSCRIPTS)


def latex(name: Name) -> str:
    r"""A name as LaTeX, \alpha_{1}."""
    letter, subscript = name
    plain = LATEX.get(letter, letter)
    return plain if subscript is None else f"{plain}_{{{subscript}}}"


def chosen_rows(rows: Iterable[int] | None, n_rows: int) -> list[int]:
    """The rows to write as equations."""
    if rows is None:
        if n_rows > TEXT_ROWS:
            raise UsageError(f"{n_rows:,} equations are too many; name up to {TEXT_ROWS}, such as rows=range(8)")
        return list(range(n_rows))
    chosen = [int(row) for row in rows]
    if len(chosen) > TEXT_ROWS:
        raise UsageError(f"{len(chosen):,} equations are too many; name up to {TEXT_ROWS}, such as rows=range(8)")
    wrong = [row for row in chosen if not 0 <= row < n_rows]
    if wrong:
        raise UsageError(f"there is no row {wrong[0]}; rows go from 0 to {n_rows - 1}")
    return chosen


def equations(rows: Sequence[tuple[list[tuple[Name, Name]], Name | None, Name]], as_latex: bool) -> str:
    """One line for each row: its terms (weight, input), its bias, its output."""
    write = latex if as_latex else text
    between = " " if as_latex else ""
    lines = []
    for terms, bias, output in rows:
        parts = [f"{write(weight)}{between}{write(value)}" for weight, value in terms]
        parts += [write(bias)] if bias else []
        equal = " &= " if as_latex else " = "
        lines.append(f"{' + '.join(parts) or '0'}{equal}{write(output)}")
    if as_latex:
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"
    return "\n".join(lines)


def matrix_text(entries: list[list[Entry]]) -> list[str]:
    """The matrix as lines of letters; a dot is a zero for good."""
    cells = [["+".join(text(GREEK[w]) for w in entry) or "·" for entry in row] for row in entries]
    width = max(len(cell) for row in cells for cell in row)
    return [" ".join(cell.center(width) for cell in row).rstrip() for row in cells]


def matrix_latex(entries: list[list[Entry]], biases: Sequence[Name | None]) -> str:
    """Matrix times input plus bias equals output; `array` because LaTeX's `pmatrix` ends at ten columns."""
    cells = [[" + ".join(latex(GREEK[w]) for w in entry) or r"\color{gray}{0}" for entry in row] for row in entries]
    columns = len(entries[0])
    parts = [
        _array(cells), _array([[latex(INPUTS[c])] for c in range(columns)]),
        *(["+", _array([[latex(b)] for b in biases if b])] if biases[0] else []),
        "=", _array([[latex(OUTPUTS[r])] for r in range(len(entries))]),
    ]  # fmt: skip
    return "\n".join(parts)


def _array(cells: list[list[str]]) -> str:
    rows = " \\\\\n".join(" & ".join(row) for row in cells)
    return f"\\left(\\begin{{array}}{{{'c' * len(cells[0])}}}\n{rows}\n\\end{{array}}\\right)"
