"""After rendering: remove what the answers do not need, write `.env`, name the next steps. Standard library only.

Cookiecutter renders this file and runs the copy inside the new service, so it can import nothing beside it.
"""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Mapping
from pathlib import Path

# A path of the service, and the answers one of which it needs. What is not listed is always there.
KEEP: dict[str, dict[str, set[str]]] = {
    "deploy/compose": {"platform": {"compose"}},
    "docs/compose.md": {"platform": {"compose"}},
    "docs/host.md": {"platform": {"compose"}},
    "deploy/kubernetes": {"platform": {"kubernetes"}},
    "deploy/nginx/kustomization.yaml": {"platform": {"kubernetes"}},
    "deploy/pgbouncer/kubernetes.ini": {"platform": {"kubernetes"}},
    "deploy/pgbouncer/kustomization.yaml": {"platform": {"kubernetes"}},
    "docs/kubernetes.md": {"platform": {"kubernetes"}},
    "docs/decisions/worker-class-gthread.md": {"worker_class": {"gthread"}},
    "docs/decisions/worker-class-sync.md": {"worker_class": {"sync"}},
    "docs/decisions/worker-class-gevent.md": {"worker_class": {"gevent"}},
    "docs/decisions/worker-class-asgi.md": {"worker_class": {"asgi"}},
}


def unneeded(answers: Mapping[str, str]) -> list[str]:
    """The paths of `KEEP` that these answers do not need."""
    return [
        path
        for path, needs in KEEP.items()
        if not all(answers[question] in allowed for question, allowed in needs.items())
    ]


def remove(root: Path, paths: list[str]) -> None:
    """Remove files and folders below `root`.

    Raises:
        FileNotFoundError: there is no such path, so the table is wrong.
    """
    for path in paths:
        target = root / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()


def make_env(root: Path) -> None:
    """Run the service's own `scripts/make_env.py`, leaving no `__pycache__` behind."""
    runpy.run_path(str(root / "scripts" / "make_env.py"))["main"](root)


def next_steps(answers: Mapping[str, str]) -> str:
    """What to type now; in ASCII, since not every terminal can print every name."""
    return f"""
Your service is ready in {answers["project_slug"]}/. Next:

  cd {answers["project_slug"]} && git init && git add . && git commit -m "New service"
  make run     # http://127.0.0.1:8000
  make test
"""


def main(answers: Mapping[str, str], root: Path) -> None:
    """Finish the service in `root`."""
    remove(root, unneeded(answers))
    make_env(root)
    print(next_steps(answers))


if __name__ == "__main__":
    main(json.loads(r"""{{ cookiecutter | tojson }}"""), Path.cwd())
