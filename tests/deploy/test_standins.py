"""Stand-ins behave as the images whose names they answer to, where our files rely on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.conftest import Builder
from support.docker import Docker
from support.service import wait_for

pytestmark = pytest.mark.with_all


def test_postgres_makes_the_user_and_runs_what_is_in_its_folder(
    docker: Docker, builder: Builder, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)  # the server is another user
    (tmp_path / "password").write_text("canary-of-postgres")
    (tmp_path / "setup.sql").write_text("CREATE TABLE made (); ALTER TABLE made OWNER TO app;")
    options = [
        f"--volume={tmp_path}:/docker-entrypoint-initdb.d:ro",
        "--env=POSTGRES_USER=app",
        "--env=POSTGRES_DB=shop",
    ]
    options.append("--env=POSTGRES_PASSWORD_FILE=/docker-entrypoint-initdb.d/password")
    with docker.container(builder.images.find("postgres:17.11-trixie"), *options) as server:
        server.wait_until("pg_isready", "--host=127.0.0.1", "--username=app")
        url = "postgresql://app:{}@127.0.0.1/shop"
        tables = server.execute("psql", "-Atc", r"\dt", url.format("canary-of-postgres"))
        assert tables == "public|made|table|app"
        refused = docker.ask("exec", server.name, "psql", "-c", "", f"postgresql://app:wrong@{server.host}/shop")
        assert "password authentication failed" in refused.stderr
        assert server.stop() == 0


def test_nginx_fills_in_its_templates_and_follows_addresses(docker: Docker, builder: Builder, tmp_path: Path) -> None:
    """`resolve` in an upstream is of 1.27.3."""
    (tmp_path / "default.conf.template").write_text(
        "upstream app { zone app 64k; resolver 127.0.0.11; server ${APP_HOST}:8000 resolve; }\n"
        'server { listen 8000; location / { return 200 "$host ${APP_HOST}"; } }\n'
    )
    options = [f"--volume={tmp_path}:/etc/nginx/templates:ro", "--env=APP_HOST=localhost"]
    with docker.container(builder.images.find("nginx:1.30.1-trixie"), *options) as server:
        wait_for(lambda: "start worker process" in server.output(), "nginx runs")
        version = re.findall(r"nginx/(\d+)\.(\d+)\.(\d+)", docker.run("logs", server.name) + server.output())
        assert tuple(map(int, version[0])) >= (1, 27, 3)
        assert server.get("/", {"Host": "example.com"}).body == b"example.com localhost"
        assert server.stop() == 0


def test_redis_takes_options_and_runs_as_nobody_of_note(docker: Docker, builder: Builder) -> None:
    image = builder.images.find("redis:8.10.1")
    with docker.container(image, command=("--maxmemory", "64mb", "--save", "")) as server:
        server.wait_until("redis-cli", "ping")
        assert "67108864" in server.execute("redis-cli", "config", "get", "maxmemory")
        uid = server.execute("sh", "-c", "grep ^Uid: /proc/1/status").split()[1]
        assert uid != "0"
        assert server.stop() == 0


def test_pgbouncer_runs_on_its_file(docker: Docker, builder: Builder, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # the server is another user
    (tmp_path / "pgbouncer.ini").write_text(
        "[databases]\nshop = host=nowhere\n[pgbouncer]\nlisten_addr = *\nauth_type = any\nadmin_users = app\n"
    )
    with docker.container(builder.images.find("pgbouncer:1.24.1"), f"--volume={tmp_path}:/etc/pgbouncer:ro") as server:
        wait_for(lambda: "process up" in server.output(), "PgBouncer runs")
        assert server.stop() == 0
