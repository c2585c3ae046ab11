"""The linter of migrations: each way to hurt a running service is found, and its good twin passes."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from app.settings import ROOT

linter: Any = import_module("scripts.lint_migrations")
lint = linter.lint

HEAD = '"""A trial."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n\n\ndef upgrade() -> None:\n'
DOWN = '\n\ndef downgrade() -> None:\n    """There is nothing to go back to."""\n'
OUTSIDE = "with op.get_context().autocommit_block():\n    "
CONCURRENT = OUTSIDE + 'op.create_index("ix", "items", ["name"], postgresql_concurrently=True)'
NOT_VALID_CHECK = 'op.create_check_constraint("c", "items", "name IS NOT NULL", postgresql_not_valid=True)'

# The rule, what it finds, and the form that is right.
TWINS = [
    ("require-concurrent-index-creation", 'op.create_index("ix", "items", ["name"])', CONCURRENT),
    (
        "require-concurrent-index-creation",
        'op.execute("CREATE INDEX ix ON items (name)")',
        OUTSIDE + 'op.execute("CREATE INDEX CONCURRENTLY ix ON items (name)")',
    ),
    (
        "require-concurrent-index-creation",
        'with op.batch_alter_table("items") as items:\n    items.create_index("ix", ["name"])',
        'op.create_table("new", sa.Column("n", sa.Text()))\nop.create_index("ix", "new", ["n"])',
    ),
    (
        "require-concurrent-index-deletion",
        'op.drop_index("ix", "items")',
        OUTSIDE + 'op.drop_index("ix", "items", postgresql_concurrently=True)',
    ),
    (
        "ban-concurrent-index-creation-in-transaction",
        'op.create_index("ix", "items", ["name"], postgresql_concurrently=True)',
        CONCURRENT,
    ),
    (
        "index-if-not-exists",
        OUTSIDE + 'op.create_index("ix", "items", ["name"], postgresql_concurrently=True, if_not_exists=True)',
        CONCURRENT,
    ),
    ("not-alone", 'op.add_column("items", sa.Column("x", sa.Text()))\n' + CONCURRENT, CONCURRENT),
    (
        "not-alone",
        CONCURRENT + '\n    op.create_index("iy", "items", ["id"], postgresql_concurrently=True)',
        CONCURRENT,
    ),
    (
        "adding-required-field",
        'op.add_column("items", sa.Column("x", sa.Text(), nullable=False))',
        'op.add_column("items", sa.Column("x", sa.Text(), nullable=False, server_default="none"))',
    ),
    (
        "adding-required-field",
        'with op.batch_alter_table("items") as items:\n    items.add_column(sa.Column("x", sa.Text(), nullable=False))',
        'with op.batch_alter_table("items") as items:\n    items.add_column(sa.Column("x", sa.Text()))',
    ),
    (
        "adding-not-nullable-field",
        'op.alter_column("items", "name", nullable=False)',
        'op.execute("ALTER TABLE items VALIDATE CONSTRAINT c")\nop.alter_column("items", "name", nullable=False)',
    ),
    (
        "adding-field-with-default",
        'op.add_column("items", sa.Column("x", sa.Uuid(), server_default=sa.text("gen_random_uuid()")))',
        'op.add_column("items", sa.Column("x", sa.Uuid()))',
    ),
    (
        "changing-column-type",
        'op.alter_column("items", "quantity", type_=sa.BigInteger())',
        'op.add_column("items", sa.Column("quantity_large", sa.BigInteger()))',
    ),
    (
        "adding-foreign-key-constraint",
        'op.create_foreign_key("fk", "items", "orders", ["order_id"], ["id"])',
        'op.create_foreign_key("fk", "items", "orders", ["order_id"], ["id"], postgresql_not_valid=True)',
    ),
    ("constraint-missing-not-valid", 'op.create_check_constraint("c", "items", "quantity < 9")', NOT_VALID_CHECK),
    (
        "constraint-missing-not-valid",
        NOT_VALID_CHECK + '\nop.execute("ALTER TABLE items VALIDATE CONSTRAINT c")',
        'op.execute("ALTER TABLE items VALIDATE CONSTRAINT c")',
    ),
    ("disallowed-unique-constraint", 'op.create_unique_constraint("uq", "items", ["name"])', CONCURRENT),
    (
        "renaming-column",
        'op.alter_column("items", "name", new_column_name="title")',
        'op.add_column("items", sa.Column("title", sa.Text()))',
    ),
    (
        "renaming-table",
        'op.rename_table("items", "things")',
        '# contract: release 3 was the last to know it\nop.rename_table("items", "things")',
    ),
    (
        "ban-drop-column",
        'op.drop_column("items", "name")',
        '# contract: release 3 was the last to read it\nop.drop_column("items", "name")',
    ),
    (
        "ban-drop-column",
        'with op.batch_alter_table("items") as items:\n    items.drop_column("name")',
        'with op.batch_alter_table("items") as items:\n    items.drop_column("name")  # contract: since release 4',
    ),
    ("ban-drop-table", 'op.drop_table("items")', 'op.drop_table("items")  # contract: release 3 read it last'),
    (
        "data-change",
        'op.execute("UPDATE items SET name = upper(name)")',
        '# allow data-change: there are four rows\nop.execute("UPDATE kinds SET name = upper(name)")',
    ),
    ("data-change", 'op.execute(sa.table("items").delete())', "pass"),
    (
        "data-change",
        'op.execute("TRUNCATE items")',
        'op.create_table("new", sa.Column("n", sa.Integer()))\nop.execute("UPDATE new SET n = 1")',
    ),
    (
        "needs-a-database",
        'op.get_bind().execute(sa.text("SELECT 1")).scalar()',
        "op.execute(\"INSERT INTO kinds (name) VALUES ('new')\")",
    ),
]


def write(folder: Path, body: str, down: str = DOWN) -> Path:
    path = folder / "trial.py"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    path.write_text(HEAD + lines + down, encoding="utf-8")
    return path


def test_the_migrations_of_this_service_hurt_nobody() -> None:
    assert lint(ROOT / "migrations" / "versions") == []


@pytest.mark.parametrize(("rule", "bad", "good"), TWINS)
def test_what_hurts_is_found_at_its_line_and_its_twin_passes(tmp_path: Path, rule: str, bad: str, good: str) -> None:
    path = write(tmp_path, bad)
    found = [finding for finding in lint(tmp_path) if finding.rule == rule]
    assert found
    told = str(found[0])
    assert told.startswith(f"{path}:{found[0].line}: ")
    assert "otherwise: " in told
    assert "instead: " in told
    assert 8 <= found[0].line < 8 + len(bad.splitlines())
    write(tmp_path, good)
    assert lint(tmp_path) == []


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("", DOWN),
        ("\n\ndef downgrade() -> None:\n    pass\n", "\n\ndef downgrade() -> None:\n    pass  # it only adds rows\n"),
        ("\n\ndef downgrade() -> None:\n    ...\n", '\n\ndef downgrade() -> None:\n    op.drop_column("items", "x")\n'),
        ("\n\ndown = 1\n", '\n\ndef downgrade() -> None:\n    raise NotImplementedError("the rows are gone")\n'),
    ],
)
def test_a_way_back_or_the_reason_why_there_is_none(tmp_path: Path, bad: str, good: str) -> None:
    write(tmp_path, "pass", bad)
    assert [finding.rule for finding in lint(tmp_path)] == ["no-downgrade"]
    write(tmp_path, "pass", good)
    assert lint(tmp_path) == []


@pytest.mark.parametrize(
    "comment",
    [
        *("# contract:", "# it is fine", "# allow renaming-column: why not", "# allow ban-drop-column:"),
        "# contract: release 3\nop.execute('SELECT 1')",
    ],
)
def test_an_exception_is_for_one_statement_and_has_a_reason(tmp_path: Path, comment: str) -> None:
    write(tmp_path, f'{comment}\nop.drop_column("items", "name")')
    assert [finding.rule for finding in lint(tmp_path)] == ["ban-drop-column"]


def test_every_rule_has_a_defect_that_it_finds() -> None:
    assert {rule for rule, _, _ in TWINS} | {"no-downgrade"} == set(linter.RULES)
    assert set(linter.RULES) > linter.CONTRACT


def test_the_command_says_where_and_ends_with_one(tmp_path: Path) -> None:
    write(tmp_path, 'op.drop_table("items")')
    command = [sys.executable, str(ROOT / "scripts" / "lint_migrations.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "trial.py:8: " in done.stdout
    write(tmp_path, "pass")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_without_squawk_nothing_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "pass")
    monkeypatch.setattr(linter, "SQUAWK", tmp_path / "squawk")
    with pytest.raises(SystemExit, match="squawk did not run"):
        lint(tmp_path)
