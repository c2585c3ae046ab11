"""The lock files: up to date, from the public index alone, and the service's own fits every slug."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.template import ROOT, SERVICE, load

VARIABLE = "{{ cookiecutter.project_slug }}"
PUBLIC = ("https://pypi.org/simple", "https://files.pythonhosted.org/")
LOCKS = {"template": ROOT / "uv.lock", "service": SERVICE / "uv.lock"}


@pytest.fixture
def uv(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(ROOT)
    found: str = load(SERVICE / "scripts" / "bootstrap.py").find_uv()
    return found


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_a_lock_names_the_public_index_only(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    addresses = re.findall(r"https?://[^\"' ]+", text)
    assert addresses
    assert {address for address in addresses if not address.startswith(PUBLIC)} == set()
    sources = set(re.findall(r"^source = \{ (\w+)", text, re.M))
    assert sources == {"registry", "virtual"}


def test_the_services_lock_holds_its_name_once_as_a_variable() -> None:
    lock = (SERVICE / "uv.lock").read_text(encoding="utf-8")
    assert re.findall(r".*cookiecutter.*", lock) == [f'name = "{VARIABLE}"']


@pytest.mark.parametrize("slug", ["my-service", "ab", "a" * 40, "zz--top"])
def test_the_services_lock_agrees_with_its_project_whatever_the_slug(uv: str, tmp_path: Path, slug: str) -> None:
    for name in ("pyproject.toml", "uv.lock"):
        text = (SERVICE / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace(VARIABLE, slug), encoding="utf-8")
    check(uv, tmp_path)


def test_the_templates_lock_agrees_with_its_project(uv: str, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path)
    check(uv, tmp_path)


def check(uv: str, folder: Path) -> None:
    """`uv lock --check`, which needs no network when the lock is right."""
    command = [uv, "lock", "--check", "--offline"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
