"""What happens to a service for years, one thing at a time: its team changed this, and the template that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.edits import append, change, delete, mode, move, write
from support.releases import Edit, Live, Template

BINARY = bytes(range(256)) * 40
OWN = "app/orders/model.py"


@dataclass(frozen=True)
class Scenario:
    """A service made with `since` and changed by `team`, then updated.

    Attributes:
        to: the release; else this one.
        earlier: a release that comes first and that the service is made with; else `since` is.
        template: what the newest release changes, where history has no such change.
        outside: the same for what is beside the service's folder.
        conflicts: paths left in conflict, and how each is solved: by what is "ours" or "theirs", or "delete".
        has: paths, and what stands in them afterwards (`bytes`: all of it).
        gone: paths that are not there afterwards.
        runs: it can be started, once conflicts are solved.
    """

    team: Sequence[Edit]
    since: str = "0.3.0"
    to: str = ""
    earlier: Sequence[Edit] = ()
    template: Sequence[Edit] = ()
    outside: Sequence[Edit] = ()
    conflicts: Mapping[str, str] = field(default_factory=dict)
    has: Mapping[str, Sequence[str] | bytes] = field(default_factory=dict)
    gone: Sequence[str] = ()
    answers: Mapping[str, str] = field(default_factory=dict)

    def releases(self, template: Template, fork: Path) -> Template:
        """The template with those releases that history lacks."""
        if not (self.earlier or self.template or self.outside):
            return template
        template = template.fork(fork)
        template.release(*self.earlier)
        return template.release(
            *self.template, *((lambda service, edit=edit: edit(service.parent)) for edit in self.outside)
        )

    def prepare(self, template: Template, folder: Path) -> Live:
        """The service, before its update."""
        template = self.releases(template, folder.parent / "fork")
        since = template.releases[-2] if self.earlier else self.since
        return template.service(folder, since, *self.team, **self.answers)


def in_crlf(*paths: str) -> Edit:
    """As an editor on Windows writes it."""

    def edit(folder: Path) -> None:
        for path in paths:
            content = (folder / path).read_bytes()
            (folder / path).write_bytes(content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))

    return edit


def rename_question(folder: Path) -> None:
    """Ask for `memory` where `memory_mb` was asked for."""
    for path in ("cookiecutter.json", "template_rules.py", "{{cookiecutter.project_slug}}/app/service.json"):
        text = (folder / path).read_text(encoding="utf-8")
        text = re.sub(r"cookiecutter\.memory_mb", "cookiecutter.memory", text)
        if path != "{{cookiecutter.project_slug}}/app/service.json":
            text = re.sub(r"""(["'])memory_mb\1""", '"memory"', text)
            text = text.replace("check('memory_mb')", "check('memory')").replace('check("memory")', "check('memory')")
        (folder / path).write_text(text, encoding="utf-8")
    for pattern in ("*.ini", "*.yaml", "*.md"):
        for file in (folder / "{{cookiecutter.project_slug}}").rglob(pattern):
            file.write_text(file.read_text().replace("cookiecutter.memory_mb", "cookiecutter.memory"))
    version = re.search(r'"__version": "(\d+\.\d+\.)(\d+)"', (folder / "cookiecutter.json").read_text())
    assert version
    notes = folder / "docs" / "upgrade" / f"{version[1]}{int(version[2]) + 1}.toml"
    notes.parent.mkdir(exist_ok=True)
    notes.write_text('changed = ["memory is asked for by a shorter name"]\n[renamed]\nmemory_mb = "memory"\n')


TEAM_FILES = [
    write("app/orders/__init__.py", ""),
    write(OWN, '"""Ours."""\n'),
    write("deploy/pgbouncer/ours.txt", "ours\n"),
]
IMPORT = "from app import cli, database, errors, health, security, serialize"
SCENARIOS: dict[str, Scenario] = {
    "lines apart": Scenario(
        [change("app/__init__.py", '"""The service. ', '"""The service of orders. ')],
        has={"app/__init__.py": ["The service of orders", "sessions.init_app(app, settings)"]},
    ),
    "the same line": Scenario(
        [change("app/__init__.py", IMPORT, f"{IMPORT}, ours")],
        conflicts={"app/__init__.py": "theirs"},
        has={"app/__init__.py": ["<<<<<<< yours\n", f"{IMPORT}, ours\n", "=======\n", ">>>>>>> template/v"]},
    ),
    "a file that the team deleted and the template changed": Scenario(
        [delete("tests/test_secrets.py")],
        conflicts={"tests/test_secrets.py": "delete"},
        has={"tests/test_secrets.py": ["def test_"]},
    ),
    "a file that the template deleted and the team edited": Scenario(
        [append("docs/heavy-reads.md", "\nOurs.\n")],
        earlier=[append("docs/heavy-reads.md", "\n")],
        template=[delete("docs/heavy-reads.md")],
        conflicts={"docs/heavy-reads.md": "ours"},
        has={"docs/heavy-reads.md": ["\nOurs.\n"]},
    ),
    "a file that the template renamed and the team edited": Scenario(
        [change("app/server/workers.py", "LINGER = 2.0", "LINGER = 3.0")],
        since="0.2.0",
        to="0.3.0",
        has={"app/server/workers/gthread.py": ["LINGER = 3.0"]},
        gone=["app/server/workers.py"],
    ),
    "a file that the team renamed and the template edited": Scenario(
        [move("docs/runbook.md", "docs/operations.md")],
        has={"docs/operations.md": ["# Runbook", "PgBouncer"]},
        gone=["docs/runbook.md"],
    ),
    "a new file on both sides": Scenario(
        [write("app/cache.py", '"""Ours."""\n')],
        conflicts={"app/cache.py": "theirs"},
        has={"app/cache.py": ["<<<<<<< yours\n", '"""Ours."""\n']},
    ),
    "a new file on both sides, the same": Scenario(
        [write("docs/same.md", "The same.\n")],
        earlier=[append("README.md", "\n")],
        template=[write("docs/same.md", "The same.\n")],
        has={"docs/same.md": b"The same.\n"},
    ),
    "a binary file that the template changed": Scenario(
        [append("README.md", "\nOurs.\n")],
        earlier=[write("app/static/logo.png", BINARY)],
        template=[write("app/static/logo.png", BINARY[::-1])],
        has={"app/static/logo.png": BINARY[::-1], "README.md": ["\nOurs.\n"]},
    ),
    "a binary file that both changed": Scenario(
        [write("app/static/logo.png", BINARY + b"ours")],
        earlier=[write("app/static/logo.png", BINARY)],
        template=[write("app/static/logo.png", BINARY[::-1])],
        conflicts={"app/static/logo.png": "theirs"},
        has={"app/static/logo.png": BINARY + b"ours"},
    ),
    "a file that the template made executable": Scenario(
        [append("scripts/backup.py", "# ours\n")],
        earlier=[append("README.md", "\n")],
        template=[mode("scripts/backup.py", 0o755)],
        has={"scripts/backup.py": ["# ours\n"]},
    ),
    "a file that the team made executable": Scenario(
        [mode("app/health.py", 0o755)], has={"app/health.py": ["def add_breaker("]}
    ),
    "CRLF in the repository": Scenario(
        [
            in_crlf("app/__init__.py", "app/health.py"),
            change("app/health.py", "from __future__", "# ours\r\nfrom __future__"),
        ],
        has={
            "app/__init__.py": ["sessions.init_app(app, settings)\r\n"],
            "app/health.py": ["# ours\r\n", "def add_breaker(app: Flask, breaker: Breaker) -> None:\r\n"],
        },
    ),
    "a question with another name": Scenario(
        [append("README.md", "\nOurs.\n")],
        earlier=[append("README.md", "\n")],
        outside=[rename_question],
        answers={"memory_mb": "1024"},
        has={"app/service.json": ['"memory_mb": "1024"'], ".template.json": ['"memory": "1024"']},
    ),
    "a folder that moved": Scenario(
        [change("deploy/pgbouncer/pgbouncer.ini", "listen_port = 6432", "listen_port = 6543"), *TEAM_FILES],
        earlier=[append("README.md", "\n")],
        template=[
            move("deploy/pgbouncer", "deploy/pooler"),
            change("../hooks/post_gen_project.py", '"deploy/pgbouncer/kubernetes', '"deploy/pooler/kubernetes'),
            change("../hooks/post_gen_project.py", '"deploy/pgbouncer/kustomization', '"deploy/pooler/kustomization'),
        ],
        has={"deploy/pooler/pgbouncer.ini": ["listen_port = 6543"], "deploy/pgbouncer/ours.txt": b"ours\n"},
        gone=["deploy/pgbouncer/pgbouncer.ini"],
    ),
    "the sample deleted by the team": Scenario(
        [delete("app/items", "tests/test_items.py")], gone=["app/items", "tests/test_items.py"]
    ),
    "the team's own files": Scenario(
        [*TEAM_FILES, change("app/pages/routes.py", "from __future__", "# ours\nfrom __future__")],
        has={"app/pages/routes.py": ["# ours\n"]},
    ),
}

APART = (
    "CRLF in the repository",
    "a file that the template renamed and the team edited",
    "a question with another name",
)
IN_FORKS = [name for name, scenario in SCENARIOS.items() if scenario.earlier and name not in APART]
IN_HISTORY = [name for name in SCENARIOS if name not in (*APART, *IN_FORKS)]


def together(names: Sequence[str]) -> Scenario:
    """All of that in one service: what CI has time for."""
    all_of_them = [SCENARIOS[name] for name in names]
    return Scenario(
        team=[edit for scenario in all_of_them for edit in scenario.team],
        earlier=[edit for scenario in all_of_them for edit in scenario.earlier],
        template=[edit for scenario in all_of_them for edit in scenario.template],
        conflicts={path: side for scenario in all_of_them for path, side in scenario.conflicts.items()},
        has={path: wanted for scenario in all_of_them for path, wanted in scenario.has.items()},
        gone=[path for scenario in all_of_them for path in scenario.gone],
    )


MANY = {"many in history": together(IN_HISTORY), "many of releases to come": together(IN_FORKS)}
