"""The budgets of `docs/budgets.md`: how long a module may be, so that the whole stays readable in an hour.

What counts is a line with code on it: no blank line, comment or docstring.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize

import pytest

from support.git import listed
from support.template import ROOT, SERVICE

TABLE = ROOT / "docs" / "budgets.md"
ASIDE = ("tests/", "benchmarks/", "docs/", "migrations/versions/", f"{SERVICE.name}/")
LONGEST = 200  # lines of a file, with its comments, unless its row has a reason
APP = 3820  # lines of code in the whole of app/
OWN = 1030  # and in the template's own Python, its tests aside

Sources = dict[str, str]
Rows = dict[str, tuple[int, str]]


def read_sources() -> Sources:
    """Every module that has a budget, `service/` in front of those that are rendered, and its text."""
    houses = {"": ROOT, "service/": SERVICE}
    return {
        prefix + path: (house / path).read_text(encoding="utf-8")
        for prefix, house in houses.items()
        for path in listed(house)
        if path.endswith(".py") and not path.startswith(ASIDE)
    }


def read_rows(table: str) -> Rows:
    """Module, budget, and the reason to pass `LONGEST`, if there is one."""
    rows = re.findall(r"^\| `(\S+)` +\| (\d+) +\|(.*)\|$", table, re.M)
    return {module: (int(budget), reason.strip()) for module, budget, reason in rows}


def count(source: str) -> int:
    """The lines with code on them."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if ast.get_docstring(node) is not None and first is not None and first.end_lineno is not None:
                lines.difference_update(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def find_misfits(sources: Sources, rows: Rows) -> list[str]:
    """What the table and the modules do not agree about."""
    counts = {module: count(source) for module, source in sources.items()}
    found = [f"{module}: {lines} lines of code, and no row" for module, lines in counts.items() if module not in rows]
    found += [f"{module}: a row, and no module" for module in rows if module not in sources]
    for module in rows.keys() & sources.keys():
        budget, reason = rows[module]
        if counts[module] > budget:
            found.append(f"{module}: {counts[module]} lines of code, and a budget of {budget}")
        length = len(sources[module].splitlines())
        if (length > LONGEST) != bool(reason):
            found.append(f"{module}: {length} lines with comments, and {reason or 'no reason'}")
    app = sum(lines for module, lines in counts.items() if module.startswith("service/app/"))
    if app > APP:
        found.append(f"service/app/: {app} lines of code, and a budget of {APP}")
    own = sum(lines for module, lines in counts.items() if not module.startswith("service/"))
    if own > OWN:
        found.append(f"the template's own: {own} lines of code, and a budget of {OWN}")
    return found


def test_every_module_keeps_its_budget_and_every_budget_has_its_module() -> None:
    assert find_misfits(read_sources(), read_rows(TABLE.read_text(encoding="utf-8"))) == []


SOURCE = '''"""A module.

With a docstring.
"""

# A comment.
import os


def name() -> str:
    """A function."""
    text = """
    not a docstring
    """
    return (
        text  # of one word
    )


class Empty:
    """A class."""
'''


def test_only_code_counts() -> None:
    assert count(SOURCE) == 9
    assert count("") == 0
    assert count("x = '''\n\n'''\n") == 3


FITS: tuple[Sources, Rows] = (
    {"service/app/a.py": "a = 1\n", "b.py": "b = 1\n"},
    {"service/app/a.py": (1, ""), "b.py": (9, "")},
)


def test_a_table_that_fits_is_not_found_fault_with() -> None:
    assert find_misfits(*FITS) == []


@pytest.mark.parametrize(
    ("sources", "rows", "finding"),
    [
        ({"c.py": "c = 1\n"}, {}, "c.py: 1 lines of code, and no row"),
        ({}, {"c.py": (10, "")}, "c.py: a row, and no module"),
        ({"b.py": "b = 1\n" * 10}, {}, "b.py: 10 lines of code, and a budget of 9"),
        ({"b.py": "b = 1\n" + "#\n" * 200}, {}, "b.py: 201 lines with comments, and no reason"),
        ({}, {"b.py": (9, "it is a list")}, "b.py: 1 lines with comments, and it is a list"),
        ({"service/app/a.py": "a = 1\n" * 3821}, {}, "service/app/: 3821 lines of code, and a budget of 3820"),
        ({"b.py": "b = 1\n" * 1031}, {}, "the template's own: 1031 lines of code, and a budget of 1030"),
    ],
)
def test_what_does_not_fit_is_found(sources: Sources, rows: Rows, finding: str) -> None:
    assert finding in find_misfits(FITS[0] | sources, FITS[1] | rows)


def test_a_row_of_the_table_is_read() -> None:
    table = "| Module | Lines | Reason |\n|---|---|---|\n| `app/a.py` | 120 | |\n| `b.py` | 90 | it is a list |\n"
    assert read_rows(table) == {"app/a.py": (120, ""), "b.py": (90, "it is a list")}
