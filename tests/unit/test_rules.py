"""The answers: which ones will do, what is said about the others, and where a service says it came from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from jinja2 import TemplateSyntaxError

import answers
import template_rules
from support.ask import Ask
from support.git import git
from support.template import QUESTIONS, ROOT

FREE_TEXT = [name for name, default in QUESTIONS.items() if isinstance(default, str)]

# No question takes these.
NEVER = {
    "nothing": "",
    "a space": " ",
    "300 characters": "x" * 300,
    "300 digits": "1" * 300,
    "an emoji": "\N{ROCKET}",
    "a double quote": 'a"b',
    "a single quote": "it's",
    "a newline": "my\nservice",
    "a newline at the end": "service\n",
    "a carriage return": "my\rservice",
    "a line separator": "my\u2028service",
    "a tab": "my\tservice",
    "a NUL": "my\0service",
    "an escape sequence": "\x1b[31mred",
    "text that turns round": "my\u202eservice",
    "a space that shows as none": "my\u200bservice",
    "braces": "{service}",
    "a backslash": "my\\service",
    "a variable": "$HOME",
    "a command": "`id`",
    "a comment": "my # service",
    "a per cent sign": "100%",
    "markup": "<b>service",
    "a space at the end": "service ",
    "braces from Jinja": "{{ '{{' }}",
    "much from Jinja": "{{ 'x' * 300 }}",
    "nothing from Jinja": "{{ '' }}",
}
BAD = {
    "project_name": ["../x", "a/b", "x" * 61, "- -", "..."],
    "project_slug": [
        "../x",
        "/tmp/x",
        ".",
        "a",
        "a" * 41,
        "-a",
        "a-",
        "1a",
        "My-Service",
        "my service",
        "my_service",
        "my.service",
        "k\u00e4se",
        "flask",
        "Redis",
        "prometheus_client",
        "prometheus-client",
        "prometheus--client",
        "{{ 'x' * 50 }}",
        "{{ 1 + 1 }}",
        "{{ '../x' }}",
        "{{ cookiecutter.project_name }}",
    ],
    "description": ["x" * 201, "https://example.com/?a=b", "a@b"],
    "domain_name": [
        "shop",
        "Shop.example.com",
        "shop_eu.example.com",
        "-shop.example.com",
        "shop-.example.com",
        "shop..example.com",
        ".example.com",
        "example.com.",
        "*.example.com",
        "https://example.com",
        "example.com:8443",
        "192.0.2.7",
        "::1",
        f"{'l' * 64}.example.com",
        f"{'long.' * 50}com.",
        "k\u00e4se.example.com",
    ],
    "cpus": ["0", "0.09", "-1", "257", "1e1", "1,5", "one", "1.", ".5", "1.0001", "nan", "inf", "0x1", "\u0661", "1_0"],
    "memory_mb": ["0", "129", "1048577", "-512", "512.5", "512MB", "1e3", "99999999", "\u0665\u0661\u0662", "1_000"],
    "max_replicas": ["0", "1001", "-1", "2.5", "many", "\u0663"],
    "container_registry": [
        "GHCR.io/acme",
        "https://ghcr.io/acme",
        "ghcr.io/acme/",
        "ghcr.io//acme",
        "/acme",
        "ghcr.io/acme:1.2.3",
        "ghcr.io/-acme",
        "ghcr.io:port/acme",
        "ghcr.io acme",
        "-ghcr.io",
        "$HOME",
        f"ghcr.io/{'a' * 200}",
    ],
}
GOOD = {
    "project_name": ["A2", "K\u00e4se Dienst", "O\u2019Brien & Sons (UK), Ltd.: v2.0!", "a" * 40, "x_y"],
    "project_slug": ["ab", "a1", "a" * 40, "a--b", "flask-shop", "app"],
    "description": ["x", "x" * 200, "B\u00fccher/K\u00e4se: 50+50, ja?", "\u65e5\u672c\u8a9e", "\U0001d49clpha"],
    "domain_name": ["localhost", "a.b", "xn--bcher-kva.example.com", "1.example", f"{'a' * 63}.{'long.' * 36}com"],
    "cpus": ["0.1", "0.125", "1.0", "256"],
    "memory_mb": ["130", "1048576"],
    "max_replicas": ["1", "1000"],
    "container_registry": ["localhost", "localhost:5000", "acme", "ghcr.io/acme/shop_eu", "127.0.0.1:5000/a.b-c"],
}


def rows(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(question, answer) for question, answers in table.items() for answer in answers]


def test_every_free_text_question_has_a_rule_and_a_row_in_each_table() -> None:
    assert FREE_TEXT == list(template_rules.RULES) == list(BAD) == list(GOOD)


@pytest.mark.parametrize("question", FREE_TEXT)
@pytest.mark.parametrize("answer", NEVER.values(), ids=NEVER)
def test_what_no_question_takes_is_one_line_and_leaves_nothing_on_disk(ask: Ask, question: str, answer: str) -> None:
    refused(ask, question, answer)


@pytest.mark.parametrize(("question", "answer"), rows(BAD))
def test_a_bad_answer_is_one_line_and_leaves_nothing_on_disk(ask: Ask, question: str, answer: str) -> None:
    refused(ask, question, answer)


@pytest.mark.parametrize("name", ["flask", "Flask", "prometheus_client", "\u65e5\u672c", "3D Maps", "x" * 50])
def test_a_name_that_makes_no_good_slug_is_refused_as_the_slug_that_it_makes(ask: Ask, name: str) -> None:
    refused(ask, "project_name", name, named="project_slug")


def refused(ask: Ask, question: str, answer: str, *, named: str = "") -> None:
    outcome = ask(**{question: answer})
    assert re.fullmatch(rf"{named or question}=[ -~]+ will not do\. It must be [^\n]+\.\n", outcome.output)
    assert outcome.exit_code == 1
    assert outcome.left == []


def test_a_long_answer_is_named_by_its_beginning(ask: Ask) -> None:
    assert ask(cpus="9" * 300).output.startswith(f"cpus='{'9' * 57}...' will not do.")


@pytest.mark.parametrize(("question", "answer"), rows(GOOD))
def test_a_good_answer_stands_in_the_service_as_it_was_given(ask: Ask, question: str, answer: str) -> None:
    outcome = ask(**{question: answer})
    assert outcome.exit_code == 0, outcome.output
    (record,) = ask.output.glob("*/.template.json")
    assert json.loads(record.read_text(encoding="utf-8"))["answers"][question] == answer


def test_a_name_in_another_script_makes_a_slug_in_ascii(ask: Ask) -> None:
    ask(project_name="K\u00e4se Dienst \u00c5")
    assert [path.name for path in ask.output.iterdir()] == ["kase-dienst-a"]


def test_no_package_that_the_service_depends_on_is_a_slug() -> None:
    packages = template_rules.dependencies()
    assert {"flask", "gunicorn", "prometheus-client", "pytest"} <= packages
    assert not [name for name in packages if template_rules.is_slug(name)]


@pytest.mark.parametrize(
    ("answers", "error", "says"),
    [
        ({"project_name": "{{"}, TemplateSyntaxError, "unexpected 'end of template'"),
        ({"project_name": "#{% if %}"}, TemplateSyntaxError, "Expected an expression"),
        ({"worker_class": "eventlet"}, ValueError, "but the choices are"),
    ],
)
def test_what_cookiecutter_itself_refuses_leaves_nothing_on_disk(
    ask: Ask, answers: dict[str, str], error: type[Exception], says: str
) -> None:
    outcome = ask(**answers)
    assert isinstance(outcome.error, error)
    assert says in str(outcome.error)
    assert outcome.left == []


@pytest.mark.parametrize(("question", "answer"), [("project_slug", "../x"), ("description", 'a"b\n'), ("cpus", "")])
def test_a_bad_answer_is_one_line_from_the_real_command_too(ask: Ask, question: str, answer: str) -> None:
    outcome = ask.run("--no-input", f"{question}={answer}")
    assert re.fullmatch(rf"{question}=[^\n]+\n", outcome.output)
    assert (outcome.exit_code, outcome.left) == (1, [])


def test_a_bad_default_of_an_organisation_is_refused_like_an_answer(ask: Ask) -> None:
    ask.set_defaults({"memory_mb": "lots"})
    outcome = ask()
    assert outcome.output.startswith("memory_mb='lots' will not do.")
    assert (outcome.exit_code, outcome.left) == (1, [])


def loose(folder: Path) -> Path:
    commit(folder)
    return folder


def packed(folder: Path) -> Path:
    commit(folder)
    git(folder, "pack-refs", "--all")
    return folder


def branch_in_a_folder(folder: Path) -> Path:
    commit(folder)
    git(folder, "switch", "--quiet", "--create", "feature/new.thing")
    commit(folder)
    return folder


def newer_than_packed(folder: Path) -> Path:
    packed(folder)
    commit(folder)
    return folder


def detached(folder: Path) -> Path:
    commit(folder)
    commit(folder)
    git(folder, "checkout", "--quiet", "--detach", "HEAD~1")
    return folder


def worktree(folder: Path) -> Path:
    commit(folder)
    git(folder, "worktree", "add", "--quiet", "../tree")
    commit(folder)
    return folder.parent / "tree"


def worktree_packed(folder: Path) -> Path:
    tree = worktree(folder)
    git(folder, "pack-refs", "--all")
    return tree


def submodule(folder: Path) -> Path:
    outer = folder.parent / "outer"
    outer.mkdir()
    commit(folder)
    commit(outer)
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(folder), "inner")
    return outer / "inner"


def commit(folder: Path) -> None:
    git(folder, "init", "--quiet")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a commit")


@pytest.mark.parametrize(
    "arrange",
    [loose, packed, branch_in_a_folder, newer_than_packed, detached, worktree, worktree_packed, submodule],
)
def test_the_commit_is_the_one_that_git_says(tmp_path: Path, arrange: Callable[[Path], Path]) -> None:
    (tmp_path / "repository").mkdir()
    repository = arrange(tmp_path / "repository")
    assert template_rules.read_commit(repository) == git(repository, "rev-parse", "HEAD")


def test_without_a_repository_or_a_first_commit_there_is_no_commit(tmp_path: Path) -> None:
    assert template_rules.read_commit(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert template_rules.read_commit(tmp_path) is None


@pytest.mark.parametrize(
    ("template", "folder", "source"),
    [
        (".", ".", ROOT.as_posix()),
        ("../somewhere", "../somewhere", ROOT.as_posix()),
        ("gh:org/flask-prod", "/home/me/.cookiecutters/flask-prod", "gh:org/flask-prod"),
        ("https://example.com/org/flask-prod", None, "https://example.com/org/flask-prod"),
    ],
)
def test_the_source_is_what_was_given_but_a_local_folder_is_absolute(
    template: str, folder: str | None, source: str
) -> None:
    context = {"_template": template, "__version": "1", "cpus": "2", **({"_repo_dir": folder} if folder else {})}
    record = json.loads(template_rules.record(context))
    assert record["source"] == source
    assert record["answers"] == {"cpus": "2"}


def test_an_update_knows_a_record_that_was_edited() -> None:
    record = json.loads(
        template_rules.record({"_template": ".", "__version": "1", "cpus": "2", "description": "K\u00e4se"})
    )
    found = record.pop("digest")
    assert found == template_rules.digest(record) == answers.digest(record)
    assert found != answers.digest({**record, "answers": {"cpus": "3"}})
