"""The cases of the benchmark of diagnosis: every fault twice, a repair for each, nothing foreign needed."""

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from pellucid.doctor.names import NAMES

FAULTS = Path(__file__).parents[2] / "benchmarks" / "faults"
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in (FAULTS / "README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| case_")
]
SICK = [row for row in ROWS if row[1] != "healthy"]


def test_the_table_lists_every_script_once():
    assert [row[0] for row in ROWS] == sorted(path.stem for path in FAULTS.glob("case_*.py"))


def test_every_fault_is_there_on_two_architectures_one_of_them_held_out():
    found = defaultdict(set)
    for _, name, _, architecture, _, held_out, *_ in SICK:
        found[name].add((architecture, held_out))
    assert set(found) == set(NAMES) - {"undecided"}
    for name, where in found.items():
        assert len(where) >= 2, name
        assert {held_out for _, held_out in where} == {"yes", "no"}, name


def test_accepted_alternatives_are_names():
    also = {name for row in ROWS for name in row[2].split(", ") if name}
    assert also <= set(NAMES)


def test_enough_cases_come_from_public_threads():
    assert sum("https://github.com/" in row[-1] for row in SICK) >= 25


@pytest.mark.parametrize("case", [row[0] for row in SICK])
def test_the_patch_of_a_sick_case_applies_and_changes_few_lines(case):
    script = (FAULTS / f"{case}.py").read_text(encoding="utf-8")
    hunks = re.split(r"^@@.*@@\n", (FAULTS / "fixes" / f"{case}.patch").read_text(encoding="utf-8"), flags=re.M)[1:]
    assert hunks
    for hunk in hunks:
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        assert script.count(before) == 1
        assert 1 <= sum(line[0] in "+-" for line in lines) <= 10


@pytest.mark.parametrize("case", [row[0] for row in ROWS])
def test_a_script_needs_torch_numpy_and_pillow_only_and_names_no_fault(case):
    source = (FAULTS / f"{case}.py").read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported <= {"torch", "numpy", "PIL"} | sys.stdlib_module_names
    assert not re.search("|".join(NAMES), source)
