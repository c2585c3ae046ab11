"""What a documented view costs: ours, and the libraries that were looked at, on the same two routes in one process."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile

from benchmarks.common import APPS, BUILD, ROOT, Row, promise, service_folder
from support.service import clean_environ

PEERS = ("apiflask==3.1.2", "flask-smorest==0.47.0", "flask-openapi3==4.3.2", "spectree[flask,pydantic]==3.0.0")
BOUND = 1.1  # times what the same view takes undocumented
METHODS = ("GET with a query", "POST with a body")


def measure() -> list[Row]:
    times = call_all()
    by_hand = times.pop("by_hand")
    rows = []
    for name, figures in times.items():
        for what, figure, bare in zip(METHODS, figures, by_hand, strict=True):
            promised = promise(figure / bare, BOUND, "times") if name == "ours" else ""
            ratio, against = f"{figure / bare:.2f}", f"read by hand {bare:.0f} µs"
            rows.append(Row(f"{name.replace('_', '-')}, {what}", f"{figure:.0f} µs", against, ratio, promised))
    return rows


def call_all() -> dict[str, list[float]]:
    """Microseconds of the GET and of the POST by what serves them; what the service brings is not installed again."""
    folder, peers = service_folder(), BUILD / "peers"
    environ = clean_environ(PATH=f"{ROOT / '.uv/bin'}:{os.environ['PATH']}")
    ours = folder / ".venv" / "bin" / "python"
    subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", ours, peers], env=environ, check=True)
    install = ["uv", "pip", "install", "--quiet", "--python", str(peers / "bin" / "python"), *PEERS]
    subprocess.run(install, env=environ, check=True)
    (packages,) = (folder / ".venv" / "lib").glob("python*/site-packages")
    command = [peers / "bin" / "python", APPS / "openapi_peers.py"]
    with tempfile.TemporaryFile() as log:
        done = subprocess.run(
            command,
            env={**environ, "PYTHONPATH": f"{folder}:{packages}"},
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, list[float]] = json.loads(done.stderr)
    return found
