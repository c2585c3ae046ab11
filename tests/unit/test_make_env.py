"""`.env`: what is missing is added, for its owner's eyes only, and what is there stays."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.template import Render, load

NAMES = ["SECRET_KEY", "POSTGRES_PASSWORD", "WEB_CONCURRENCY"]
SECRETS = ["secret_key", "postgres_password", "pgbouncer_users", "database_url", "migration_url", "grafana_password"]


class Service:
    """The part of a rendered service that the script needs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = root / ".env"

    def make_env(self, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", str(self.root / "scripts" / "make_env.py")]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(command, cwd="/", env=environ, umask=umask, capture_output=True, text=True, check=False)

    @property
    def mode(self) -> int:
        return stat.S_IMODE(self.env.stat().st_mode)

    @property
    def values(self) -> dict[str, str]:
        return dict(re.findall(r"^(\w+)=(.*)$", self.env.read_text(encoding="utf-8"), re.M))


@pytest.fixture
def service(render: Render, tmp_path: Path) -> Service:
    for path in ["scripts/make_env.py", "app/capacity.py", "app/service.json"]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(render() / path, tmp_path / path)
    return Service(tmp_path)


def test_a_new_file_has_every_name_and_says_what_it_is_for(service: Service) -> None:
    done = service.make_env()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ".env: added SECRET_KEY, POSTGRES_PASSWORD, WEB_CONCURRENCY\n"
    assert service.env.read_text().startswith("# For development on this machine only")
    assert list(service.values) == NAMES


def test_secrets_are_long_and_new_each_time_and_never_printed(service: Service) -> None:
    first = service.make_env()
    before = service.values
    service.env.unlink()
    service.make_env()
    for name in NAMES[:2]:
        assert len(before[name]) >= 32
        assert before[name] != service.values[name]
        assert before[name] not in first.stdout


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_the_number_of_workers_is_what_capacity_finds(service: Service, worker_class: str) -> None:
    answers = {"worker_class": worker_class, "cpus": "1", "memory_mb": "512"}
    (service.root / "app" / "service.json").write_text(json.dumps(answers))
    service.make_env()
    capacity = load(service.root / "app" / "capacity.py")
    expected = capacity.plan(capacity.find_limits(), worker_class).workers
    assert service.values["WEB_CONCURRENCY"] == str(expected)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_only_its_owner_may_read_it_whatever_the_umask(service: Service, umask: int) -> None:
    service.make_env(umask)
    assert service.mode == 0o600


def test_a_file_that_others_could_read_is_closed_before_a_secret_goes_in(service: Service) -> None:
    service.env.touch()
    service.env.chmod(0o644)
    service.make_env()
    assert service.mode == 0o600


def test_a_second_run_adds_nothing(service: Service) -> None:
    service.make_env()
    before = service.env.read_bytes()
    assert service.make_env().stdout == ""
    assert service.env.read_bytes() == before


@pytest.mark.parametrize("missing", NAMES)
@pytest.mark.parametrize("end", ["\n", ""])
def test_a_missing_name_is_added_and_the_rest_stays(service: Service, missing: str, end: str) -> None:
    mine = "# mine\n" + "\n".join(f"{name}=mine" for name in NAMES if name != missing) + "\nEXTRA='a b'" + end
    service.env.write_text(mine)
    assert service.make_env().stdout == f".env: added {missing}\n"
    added = service.env.read_text().removeprefix(mine.rstrip("\n") + "\n")
    assert re.fullmatch(rf"{missing}=\S+\n", added)


@pytest.mark.parametrize("line", ["SECRET_KEY=", "SECRET_KEY = ''", "# SECRET_KEY=mine", "SECRET_KEY=  \n\nA=1"])
def test_a_name_without_a_value_is_missing(service: Service, line: str) -> None:
    service.env.write_text(line + "\n")
    assert "SECRET_KEY" in service.make_env().stdout
    assert service.values["SECRET_KEY"]


@pytest.mark.parametrize("line", ["SECRET_KEY=mine", " SECRET_KEY = 'mine'", 'SECRET_KEY="mine"'])
def test_a_name_with_a_value_is_there(service: Service, line: str) -> None:
    service.env.write_text(line + "\n")
    assert "SECRET_KEY" not in service.make_env().stdout


def test_what_cannot_be_written_is_one_line_with_the_mend(service: Service) -> None:
    service.env.mkdir()  # stops root too, whom no mode stops
    done = service.make_env()
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"\S+\.env cannot be written: [^\n]+\. Make it yours: chown [^\n]+\n", done.stderr)


def test_it_leaves_nothing_but_the_file(service: Service) -> None:
    before = set(service.root.rglob("*"))
    service.make_env()
    secrets = service.root / "secrets"
    files = {secrets / name for name in SECRETS}
    assert set(service.root.rglob("*")) - before == {service.env, secrets, *files}


def test_containers_get_the_secrets_as_files_that_their_users_can_read(service: Service) -> None:
    service.env.write_text("POSTGRES_PASSWORD = 'p@ss/w\"rd'\n")
    service.make_env(0o077)
    secrets = service.root / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o444}
    assert (secrets / "postgres_password").read_text() == 'p@ss/w"rd'
    assert (secrets / "pgbouncer_users").read_text() == '"app" "p@ss/w""rd"\n'
    assert (secrets / "database_url").read_text() == "postgresql://app:p%40ss%2Fw%22rd@pgbouncer:6432/app"
    assert (secrets / "migration_url").read_text() == "postgresql://app:p%40ss%2Fw%22rd@postgres:5432/app"
    assert f"SECRET_KEY={(secrets / 'secret_key').read_text()}\n" in service.env.read_text()


def test_a_secret_in_a_file_is_never_overwritten(service: Service) -> None:
    service.make_env()
    (service.root / "secrets" / "secret_key").chmod(0o644)
    (service.root / "secrets" / "secret_key").write_text("mine")
    service.make_env()
    assert (service.root / "secrets" / "secret_key").read_text() == "mine"
