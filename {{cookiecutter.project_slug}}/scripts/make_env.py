"""Write what this machine needs into `.env`, for development: `python3 scripts/make_env.py`.

Only what is missing is added; nothing is ever overwritten. Standard library only: it runs before anything is
installed, when the project is made and at each `make run`, so that a fresh clone has its own secrets too. As a command
it also writes `secrets/`, where `make up` has its containers read them.
"""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import secrets
import sys
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# For development on this machine only: git ignores it, no container or production command reads it.\n"


def wanted(root: Path) -> dict[str, str]:
    """Names and fresh values of all that belongs into `.env`."""
    # By its path: the package wants what is not installed yet. This way no `__pycache__` is left behind either.
    capacity = runpy.run_path(str(root / "app" / "capacity.py"))
    plan = capacity["plan"](capacity["find_limits"](), capacity["load_answers"]()["worker_class"])
    return {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
        "WEB_CONCURRENCY": str(plan.workers),
    }


def main(root: Path = ROOT) -> list[str]:
    """Complete `root/.env` (mode 0600) and return the names that were added."""
    path = root / ".env"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        sys.exit(f"{path} cannot be written: {error.strerror}. Make it yours: chown $USER .env && chmod 600 .env")
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        text = file.read()
        # A name without a value is missing: to the settings, empty means unset.
        present = set(re.findall(r"^[ \t]*([A-Z_]+)[ \t]*=[ \t]*['\"]*[^\s'\"]", text, re.M))
        missing = {name: value for name, value in wanted(root).items() if name not in present}
        if missing:
            with contextlib.suppress(OSError):  # a file system without modes
                path.chmod(0o600)  # also a file that was copied from an example
            begin = HEADER if not text else "" if text.endswith("\n") else "\n"
            file.write(begin + "".join(f"{name}={value}\n" for name, value in missing.items()))
    return list(missing)


def write_secrets(root: Path = ROOT) -> None:
    """Write the secrets of `root/.env` as files, which `compose.yaml` gives to containers."""
    lines = re.findall(r"^[ \t]*([A-Z_]+)[ \t]*=(.*)$", (root / ".env").read_text(encoding="utf-8"), re.M)
    values = {name: value.strip().strip("'\"") for name, value in lines}
    password = values["POSTGRES_PASSWORD"]
    user, in_quotes = f"app:{quote(password, safe='')}", password.replace('"', '""')
    texts = {
        "secret_key": values["SECRET_KEY"],
        "postgres_password": password,
        "pgbouncer_users": f'"app" "{in_quotes}"\n',
        "database_url": f"postgresql://{user}@pgbouncer:6432/app",
        "migration_url": f"postgresql://{user}@postgres:5432/app",
        "grafana_password": secrets.token_urlsafe(24),
    }
    folder = root / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)  # keeps others out; a container, whose user is another one, gets a file
    for name, text in texts.items():
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(descriptor, 0o444)


if __name__ == "__main__":
    added = main()
    write_secrets()
    if added:
        print(f".env: added {', '.join(added)}")
