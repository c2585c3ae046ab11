"""What a limit on statements costs a SELECT on PostgreSQL, by the ways to set one."""

from __future__ import annotations

import json
import subprocess

from benchmarks.common import APPS, Row, promise, service_folder
from support.postgres import postgres
from support.service import SECRET_KEY, clean_environ

BOUND = 1.05  # times what it takes without a limit


def measure() -> list[Row]:
    folder = service_folder()
    with postgres() as server:
        environ = clean_environ(
            APP_ENV="development", SECRET_KEY=SECRET_KEY, DATABASE_URL=server.url, PYTHONPATH=str(folder)
        )
        command = [folder / ".venv" / "bin" / "python", APPS / "statement_timeout.py"]
        told = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout
    times: dict[str, float] = json.loads(told)
    bare = times.pop("nothing")
    rows = []
    for way, figure in times.items():
        promised = promise(figure / bare, BOUND, "times") if way.startswith("ours") else ""
        rows.append(Row(way, f"{figure:.0f} µs", f"no limit {bare:.0f} µs", f"{figure / bare:.2f}", promised))
    return rows
