"""`docs/seed-coverage.md` has a row for every name of the seed, and every file and test that it names is there.

Constants of the seed that no behaviour would show at once are read from the service's sources here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from support.template import ROOT, SERVICE

TABLE = ROOT / "docs" / "seed-coverage.md"
NAMES = ROOT / "docs" / "seed-names.txt"
TOPICS = {
    "capacity and preflight",
    "containers and the edge",
    "data layer",
    "Kubernetes",
    "monitoring and load",
    "other platforms",
    "other servers",
    "tracing and Sentry",
    "updates and CI",
    "worker classes",
}
PATHS = r"`[^`]+`(?:, `[^`]+`)*"
HERE = re.compile(rf"(?P<paths>{PATHS})(?:[:;] .+)?|to come: (?P<topic>[^;]+)(?:; .+)?|not rendered: .+")


@dataclass(frozen=True)
class Row:
    """A line of a table: what the seed says, what became of it, and the tests that keep it."""

    number: int
    cells: tuple[str, ...]

    def __str__(self) -> str:
        return f"line {self.number}: {self.cells[0] or '(empty)'}"


def read_rows(text: str) -> list[Row]:
    """The rows of all tables in `text`, without their headings."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("|") and not line.startswith(("| Seed says |", "|---")):
            rows.append(Row(number, tuple(cell.strip() for cell in line.strip("|").split("|"))))
    return rows


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def is_file(path: str) -> bool:
    folder, name = (SERVICE, path.removeprefix("service/")) if path.startswith("service/") else (ROOT, path)
    return (folder / name).is_file()


def find_malformed(rows: Iterable[Row]) -> list[str]:
    """Rows without three filled cells, or whose second or third cell is of no known form."""
    found = []
    for row in rows:
        if len(row.cells) != 3 or not all(row.cells):
            found.append(f"{row}: it needs three cells with something in each")
            continue
        _, here, kept_by = row.cells
        form = HERE.fullmatch(here)
        if form is None:
            found.append(f"{row}: begin with `files`, 'to come: topic' or 'not rendered: reason'")
        elif form["topic"] and form["topic"] not in TOPICS:
            found.append(f"{row}: there is no topic '{form['topic']}'")
        elif kept_by != "-" and (form["topic"] or not re.fullmatch(PATHS, kept_by)):
            found.append(f"{row}: name `tests`, or write -; what is to come has none")
    return found


def find_missing_files(rows: Iterable[Row]) -> list[str]:
    """Files of the second cell, and tests of the third, that are not there."""
    found = []
    for row in rows:
        _, here, kept_by = (*row.cells, "", "")[:3]
        form = HERE.fullmatch(here)
        paths = code_spans(form["paths"] or "") if form else []
        found += [f"{row}: there is no file {path}" for path in paths if not is_file(path)]
        for test in code_spans(kept_by):
            if not re.search(r"(^|/)tests/(\w+/)*test_\w+\.py$", test) or not is_file(test):
                found.append(f"{row}: there is no test {test}")
    return found


def find_unmapped(rows: Iterable[Row], names: Iterable[str]) -> list[str]:
    """Names that stand, as words of their own, in the first cell of no row."""
    said = "\n".join(row.cells[0] for row in rows)
    return [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said)]


def read_names() -> list[str]:
    return NAMES.read_text(encoding="utf-8").splitlines()


ROWS = read_rows(TABLE.read_text(encoding="utf-8"))


def test_every_row_is_complete() -> None:
    assert not find_malformed(ROWS)


def test_every_file_and_test_in_the_table_is_there() -> None:
    assert not find_missing_files(ROWS)


def test_every_name_of_the_seed_has_a_row() -> None:
    assert not find_unmapped(ROWS, read_names())


def test_the_list_of_names_is_sorted_and_has_none_twice() -> None:
    names = read_names()
    assert names == sorted(set(names))
    assert all(name == name.strip() and name for name in names)


def test_no_row_is_written_twice() -> None:
    said = [row.cells[0] for row in ROWS]
    assert not {text for text in said if said.count(text) > 1}


GOOD = "| `backlog = 2048` | `service/gunicorn.conf.py`: the same | `tests/unit/test_seed_coverage.py` |"


@pytest.mark.parametrize(
    "line",
    [
        GOOD,
        "| `keepalive` | `cookiecutter.json`, `service/app/capacity.py` | - |",
        "| `.env` | `service/.gitignore`; to come: the image | - |",
        "| `replicas: 3` | to come: Kubernetes; the autoscaler's to set | - |",
        "| `eventlet` | not rendered: Gunicorn removed it | - |",
        "| `eventlet` | not rendered: Gunicorn removed it | `tests/unit/test_seed_coverage.py` |",
    ],
)
def test_a_good_row_passes(line: str) -> None:
    rows = read_rows(line)
    assert len(rows) == 1
    assert not find_malformed(rows)
    assert not find_missing_files(rows)


@pytest.mark.parametrize(
    "line",
    [
        "| `backlog` |  | - |",
        "| `backlog` | to come: Kubernetes | |",
        "|  | to come: Kubernetes | - |",
        "| `backlog` | to come: Kubernetes |",
        "| `a | b` | to come: Kubernetes | - |",
        "| `backlog` | somewhere | - |",
        "| `backlog` | to come: soon | - |",
        "| `backlog` | to come: | - |",
        "| `backlog` | not rendered | - |",
        "| `backlog` | to come: Kubernetes | `tests/unit/test_seed_coverage.py` |",
        "| `backlog` | `service/gunicorn.conf.py` | by hand |",
    ],
)
def test_a_malformed_row_is_found(line: str) -> None:
    assert len(find_malformed(read_rows(line))) == 1


@pytest.mark.parametrize(
    ("defect", "missing"),
    [
        (GOOD.replace("service/gunicorn", "service/gone"), "there is no file service/gone.conf.py"),
        (GOOD.replace("service/gunicorn", "gunicorn"), "there is no file gunicorn.conf.py"),
        (GOOD.replace("service/gunicorn.conf.py", "service/app"), "there is no file service/app"),
        (GOOD.replace("test_seed_coverage", "test_gone"), "there is no test tests/unit/test_gone.py"),
        (GOOD.replace("tests/unit/test_seed_coverage.py", "tests/conftest.py"), "there is no test tests/conftest.py"),
        ("| `x` | `cookiecutter.json`, `gone.json` | - |", "there is no file gone.json"),
    ],
)
def test_a_missing_file_is_found(defect: str, missing: str) -> None:
    assert find_missing_files(read_rows(defect)) == [f"{read_rows(defect)[0]}: {missing}"]


@pytest.mark.parametrize(
    "said",
    ["", "`graceful_timeout = 30`", "`timeout-ms`", "`timeouts`", "nothing of it"],
)
def test_a_name_without_a_row_is_found(said: str) -> None:
    rows = read_rows(f"| {said} | to come: Kubernetes; timeout | - |")
    assert find_unmapped(rows, ["timeout"]) == ["timeout"]


@pytest.mark.parametrize("said", ["`timeout = 30`", "the timeout.", "(`timeout`)", "`--timeout`, `timeout`"])
def test_a_name_with_a_row_is_not_found(said: str) -> None:
    assert find_unmapped(read_rows(f"| {said} | to come: Kubernetes | - |"), ["timeout"]) == []


def test_removing_the_row_of_a_name_is_found() -> None:
    """The whole table, with one row after another taken out: the names that only it has are missed."""
    names = read_names()
    alone = [
        name for name in names if sum(name in row.cells[0] for row in ROWS) == 1 and not find_unmapped(ROWS, [name])
    ]
    assert len(alone) > len(names) // 2
    for name in alone:
        assert name in find_unmapped([row for row in ROWS if name not in row.cells[0]], [name])


def read_constant(path: str, name: str) -> Any:
    """The value that a module of the service gives to a variable or a dictionary's key, read without running it."""
    for node in ast.walk(ast.parse((SERVICE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return ast.literal_eval(node.value)
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name:
                    return ast.literal_eval(value)
    raise LookupError(f"{path} has no {name}")


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("gunicorn.conf.py", "backlog", 2048),
        ("gunicorn.conf.py", "preload_app", True),
        ("gunicorn.conf.py", "accesslog", None),
        ("app/capacity.py", "request", 25),
        ("app/capacity.py", "graceful", 30),
        ("app/capacity.py", "keepalive", 75),
        ("app/capacity.py", "MAX_REQUESTS", 10_000),
        ("app/database/__init__.py", "POOL_RECYCLE", 1800),
        ("app/database/postgres.py", "max_overflow", 0),
        ("app/database/postgres.py", "pool_pre_ping", True),
        ("app/database/postgres.py", "prepare_threshold", None),
        ("app/settings.py", "SESSION_COOKIE_HTTPONLY", True),
        ("app/settings.py", "SESSION_COOKIE_SAMESITE", "Lax"),
    ],
)
def test_a_number_is_the_one_that_the_table_gives(path: str, name: str, value: object) -> None:
    assert read_constant(path, name) == value


def test_the_seeds_headers_and_quiet_libraries_are_there() -> None:
    headers = dict(read_constant("app/security.py", "HEADERS"))
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert set(headers["Permissions-Policy"].split(", ")) == {"camera=()", "geolocation=()", "microphone=()"}
    assert {"botocore", "urllib3"} <= set(read_constant("app/observability/logs.py", "QUIET"))


def test_a_constant_that_is_gone_is_found() -> None:
    with pytest.raises(LookupError):
        read_constant("gunicorn.conf.py", "gone")
