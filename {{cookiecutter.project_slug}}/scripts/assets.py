"""Give static files names that never get another content: `python3 scripts/assets.py`, when an image is built.

`app/static/app.css` gets a copy `app.<hash>.css` beside it, and `app/assets.json` says so; with it, `url_for('static',
filename='app.css')` names the copy. `python3 scripts/assets.py publish FOLDER` copies them to where nginx serves them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HASHED = re.compile(r"\.[0-9a-f]{16}\.[^.]+$")  # as app/assets.py and deploy/nginx/nginx.conf know them
KEPT = 30 * 24 * 3600  # seconds for which a page that names a file may still be open somewhere


def fingerprint(root: Path = ROOT) -> dict[str, str]:
    """Copy every static file to its hashed name, and write down which is which."""
    static = root / "app" / "static"
    names = {}
    for path in sorted(static.rglob("*")):
        if path.is_file() and not HASHED.search(path.name):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            copy = path.with_name(f"{path.stem}.{digest}{path.suffix}")
            shutil.copyfile(path, copy)
            names[path.relative_to(static).as_posix()] = copy.relative_to(static).as_posix()
    (root / "app" / "assets.json").write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")
    return names


def publish(target: Path, root: Path = ROOT) -> None:
    """Copy static files into `target`. What an older release has there under a hashed name stays for a month."""
    static = root / "app" / "static"
    for path in sorted(static.rglob("*")):
        if path.is_file():
            copy = target / path.relative_to(static)
            copy.parent.mkdir(parents=True, exist_ok=True)
            half = copy.with_name(f"{copy.name}.new")  # nobody is sent half a file
            shutil.copyfile(path, half)
            half.replace(copy)
    for path in target.rglob("*"):
        if HASHED.search(path.name) and path.stat().st_mtime < time.time() - KEPT:
            path.unlink()


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            fingerprint()
        case ["publish", folder]:
            publish(Path(folder))
        case _:
            sys.exit("usage: python3 scripts/assets.py [publish FOLDER]")
