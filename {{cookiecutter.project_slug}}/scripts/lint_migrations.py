"""Refuse migrations that would hurt a service that is running: `python scripts/lint_migrations.py [folder]`.

Each `upgrade` runs without a database and writes the SQL that PostgreSQL would get. squawk judges it
(https://squawkhq.com/docs/rules), and so do the rules below. What goes down again is not judged, only that it is there.

A comment above a statement, or in it, makes an exception, with the reason:

    # contract: release 3 was the last to read it      lets a column or a table go, or take another name
    # allow changing-column-type: it has forty rows    lets one rule pass
"""

from __future__ import annotations

import ast
import io
import json
import re
import runpy
import subprocess
import sys
import tempfile
import tokenize
import traceback
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

ROOT = Path(__file__).resolve().parent.parent
SQUAWK = Path(sys.executable).with_name("squawk")
CONTRACT = {"ban-drop-column", "ban-drop-table", "renaming-column", "renaming-table"}
MARK = r"# contract: *\S"
CONCURRENTLY = "in a migration of its own: with op.get_context().autocommit_block(): op.%s_index(..., postgresql_concurrently=True)"
NOT_VALID = "postgresql_not_valid=True here; in the next migration VALIDATE CONSTRAINT (docs/migrations.md)"
NEW_COLUMN = "a new column, a backfill, and the old one goes two releases later (docs/migrations.md)"
NO_READER = "when no running release uses it, say so above it: # contract: which release was the last"

# What happens otherwise, and the form that is right. What squawk finds beside these it explains itself.
RULES = {
    "require-concurrent-index-creation": ("writes wait while the index is built", CONCURRENTLY % "create"),
    "require-concurrent-index-deletion": ("reads and writes wait behind it", CONCURRENTLY % "drop"),
    "ban-concurrent-index-creation-in-transaction": ("PostgreSQL refuses it", CONCURRENTLY % "create"),
    "adding-required-field": (
        "the running release does not know the column, and its INSERTs fail",
        "nullable=True, or a server_default",
    ),
    "adding-not-nullable-field": (
        "reads and writes wait while the whole table is read",
        f"a CHECK (... IS NOT NULL) with {NOT_VALID}, then NOT NULL",
    ),
    "adding-field-with-default": ("reads and writes wait while the table is written anew", NEW_COLUMN),
    "changing-column-type": ("reads and writes wait while the table is written anew", NEW_COLUMN),
    "adding-foreign-key-constraint": ("writes to both tables wait while they are compared", NOT_VALID),
    "constraint-missing-not-valid": ("writes wait while the whole table is read", NOT_VALID),
    "disallowed-unique-constraint": (
        "reads and writes wait while its index is built",
        "op.create_index(..., unique=True), " + CONCURRENTLY % "create",
    ),
    "renaming-column": ("the running release asks for the old name, and fails", NEW_COLUMN),
    "renaming-table": ("the running release asks for the old name, and fails", NO_READER),
    "ban-drop-column": ("the running release asks for it, and fails", NO_READER),
    "ban-drop-table": ("the running release asks for it, and fails", NO_READER),
    # Rules of ours.
    "needs-a-database": (
        "nobody can look at its SQL before it runs, and flask db upgrade --sql fails",
        "op.execute with SQL, or a backfill for what must read rows",
    ),
    "data-change": (
        "it locks every row that it changes until all are changed, and users wait",
        "a backfill, which goes in small steps (app/database/backfill.py)",
    ),
    "index-if-not-exists": (
        "an invalid index, left by a run that failed, is taken for the one that is wanted",
        "without if_not_exists",
    ),
    "not-alone": (
        "what is done outside of the transaction is done already when a run that failed begins anew, and fails then",
        "a migration of its own for each",
    ),
    "no-downgrade": (
        "a release that has to go back finds no way",
        "write it, or say in it why there is none: a docstring, or raise NotImplementedError",
    ),
}


@dataclass(frozen=True)
class Finding:
    """What is wrong with a line of a migration."""

    path: Path
    line: int
    rule: str
    wrong: str

    def __str__(self) -> str:
        here = self.path.relative_to(Path.cwd()) if self.path.is_relative_to(Path.cwd()) else self.path
        lines = [f"{here}:{self.line}: {self.wrong} [{self.rule}]"]
        for label, text in zip(("otherwise:", "instead:  "), RULES.get(self.rule, ()), strict=False):
            lines.append(f"    {label} {text}")
        return "\n".join(lines)


class Output(io.StringIO):
    """Where Alembic writes each statement in one piece; it knows which line of the migration wrote it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.statements = str(path), list[tuple[int, str]]()

    def write(self, sql: str) -> int:
        frame = sys._getframe(1)
        while frame.f_code.co_filename != self.path and frame.f_back is not None:
            frame = frame.f_back
        line = frame.f_lineno if frame.f_code.co_filename == self.path else 1
        self.statements.append((line, sql))
        return len(sql)


class Migration:
    """A migration as it is written, and the SQL that its `upgrade` writes for PostgreSQL."""

    def __init__(self, path: Path) -> None:
        self.path = path
        source = path.read_text(encoding="utf-8")
        self.tree = ast.parse(source)
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        comments = [token for token in tokens if token.type == tokenize.COMMENT]
        self.comments = {token.start[0]: token.string for token in comments}
        self.alone = {token.start[0] for token in comments if token.line.lstrip().startswith("#")}
        self.statements: list[tuple[int, str]] = []

    def run(self) -> Iterator[Finding]:
        """Have `upgrade` write its SQL, as `flask db upgrade --sql` does."""
        output = Output(self.path)
        options = {"as_sql": True, "output_buffer": output, "literal_binds": True}
        context = MigrationContext.configure(dialect_name="postgresql", opts=options)
        try:
            with Operations.context(context), context.begin_transaction():
                runpy.run_path(str(self.path))["upgrade"]()
        except Exception as error:
            at = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == output.path]
            yield Finding(self.path, (at or [1])[-1] or 1, "needs-a-database", f"it does not run by itself: {error!r}")
        self.statements = output.statements

    def judge(self) -> Iterator[Finding]:
        """What squawk cannot know: how migrations run here."""
        inside, outside, is_inside = list[int](), list[int](), False
        new: set[str] = set()
        for line, sql in self.statements:
            if mark := re.match(r"(BEGIN|COMMIT);", sql):
                is_inside = mark[1] == "BEGIN"
                continue
            (inside if is_inside else outside).append(line)
            if table := re.match(r"\s*CREATE TABLE \"?([\w.]+)", sql, re.I):
                new.add(table[1])
            change = re.match(r"\s*(UPDATE|DELETE FROM|TRUNCATE(?: TABLE)?|MERGE INTO)\s+\"?([\w.]+)", sql, re.I)
            if change and change[2] not in new:
                yield Finding(self.path, line, "data-change", f"{change[1].upper()} of rows that users work with")
            if re.match(r"\s*CREATE (UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS", sql, re.I):
                yield Finding(self.path, line, "index-if-not-exists", "an index that may be there already")
        if outside and len(inside + outside) > 1:
            yield Finding(
                self.path, outside[0], "not-alone", "it leaves its transaction, and does something beside that"
            )

    def judge_downgrade(self) -> Iterator[Finding]:
        """A way back, or the reason why there is none."""
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == "downgrade":
                says = ast.get_docstring(node) or any(line in self.comments for line in lines_of(node))
                if not says and all(isinstance(part, ast.Pass | ast.Expr) and not has_call(part) for part in node.body):
                    yield Finding(
                        self.path, node.lineno, "no-downgrade", "a downgrade that does nothing, and no reason"
                    )
                return
        yield Finding(self.path, 1, "no-downgrade", "no downgrade")

    def allows(self, finding: Finding) -> bool:
        """Whether a comment in the statement of the finding, or right above it, makes an exception."""
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.stmt)]
        around = [node for node in nodes if finding.line in lines_of(node) and not isinstance(node, ast.FunctionDef)]
        if not around:
            return False
        statement = lines_of(max(around, key=lambda node: node.lineno))
        first = statement.start
        while first - 1 in self.alone:
            first -= 1
        said = [self.comments[line] for line in range(first, statement.stop) if line in self.comments]
        allowed = rf"# allow {re.escape(finding.rule)}: *\S"
        return any(re.match(allowed, text) or (finding.rule in CONTRACT and re.match(MARK, text)) for text in said)


def lines_of(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def has_call(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def ask_squawk(migrations: Iterable[Migration]) -> Iterator[Finding]:
    """What squawk finds.

    Raises:
        SystemExit: it did not look.
    """
    with tempfile.TemporaryDirectory() as name:
        written: dict[str, Migration] = {}
        for migration in migrations:
            file = Path(name) / f"{migration.path.stem}.sql"
            file.write_text("".join(sql for _, sql in migration.statements), encoding="utf-8")
            written[str(file)] = migration
        command = [str(SQUAWK), "--config", str(ROOT / ".squawk.toml"), "--reporter", "json", *written]
        try:
            told = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
        except (OSError, ValueError):
            sys.exit("squawk did not run. Install what uv.lock says: python3 scripts/bootstrap.py")
    for one in told:
        migration = written[one["file"]]
        starts = list(accumulate((sql.count("\n") for _, sql in migration.statements), initial=0))
        line = migration.statements[bisect_right(starts, one["line"], hi=len(migration.statements)) - 1][0]
        yield Finding(migration.path, line, one["rule_name"], " ".join([one["message"], one["help"] or ""]).strip())


def lint(folder: Path) -> list[Finding]:
    """What is wrong with the migrations in a folder."""
    migrations = {path: Migration(path) for path in sorted(folder.glob("*.py"))}
    findings = set[Finding]()
    for one in migrations.values():
        findings |= {*one.run(), *one.judge(), *one.judge_downgrade()}
    findings |= set(ask_squawk(migrations.values()))
    found = [finding for finding in findings if not migrations[finding.path].allows(finding)]
    return sorted(found, key=lambda finding: (finding.path, finding.line, finding.rule))


if __name__ == "__main__":
    found = lint(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "migrations" / "versions")
    print("\n".join(map(str, found)) or "The migrations hurt nobody.")
    sys.exit(bool(found))
