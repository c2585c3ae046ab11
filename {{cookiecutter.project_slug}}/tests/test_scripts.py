"""`scripts/make_env.py`: a fresh clone gets what it needs, and nothing that is there is ever changed."""

from __future__ import annotations

import runpy
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import ROOT, load_settings, read_env_file

MakeEnv = Callable[[], list[str]]


@pytest.fixture
def make_env(tmp_path: Path) -> MakeEnv:
    """The script in a folder of its own, beside what it reads."""
    for name in ("scripts/make_env.py", "app/capacity.py", "app/service.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    main: MakeEnv = runpy.run_path(str(tmp_path / "scripts" / "make_env.py"))["main"]
    return main


def test_a_fresh_clone_gets_all_that_development_needs(make_env: MakeEnv, tmp_path: Path) -> None:
    assert make_env() == ["SECRET_KEY", "POSTGRES_PASSWORD", "WEB_CONCURRENCY"]
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    settings = load_settings({"APP_ENV": "development"}, tmp_path)
    assert len(settings.secret_key) >= 32
    assert settings.worker_ceiling


def test_nothing_is_overwritten(make_env: MakeEnv, tmp_path: Path) -> None:
    given = "# mine\nSECRET_KEY=mine\nPOSTGRES_PASSWORD=\nOTHER=1"
    (tmp_path / ".env").write_text(given)
    assert make_env() == ["POSTGRES_PASSWORD", "WEB_CONCURRENCY"]
    complete = (tmp_path / ".env").read_text()
    assert complete.startswith(given + "\n")
    assert read_env_file(tmp_path / ".env")["POSTGRES_PASSWORD"]
    assert make_env() == []
    assert (tmp_path / ".env").read_text() == complete
