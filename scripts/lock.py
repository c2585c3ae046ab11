"""Lock the newest dependencies: `uv.lock` here, and the one `uv.lock` that serves every rendered service.

The service's lock holds the service's name once; that is a variable again when this is done.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVICE = ROOT / "{{cookiecutter.project_slug}}"
sys.path.insert(0, str(SERVICE / "scripts"))
sys.dont_write_bytecode = True  # in the service's folder it would be rendered

from bootstrap import find_uv  # noqa: E402

VARIABLE = "{{ cookiecutter.project_slug }}"
STAND_IN = "stand-in-for-the-slug"


def main() -> None:
    uv = find_uv()
    subprocess.run([uv, "lock", "--upgrade"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = (SERVICE / "pyproject.toml").read_text(encoding="utf-8").replace(VARIABLE, STAND_IN)
        (folder / "pyproject.toml").write_text(project, encoding="utf-8")
        subprocess.run([uv, "lock"], cwd=folder, check=True)
        lock = (folder / "uv.lock").read_text(encoding="utf-8")
    lock, count = re.subn(f'^name = "{STAND_IN}"$', f'name = "{VARIABLE}"', lock, flags=re.M)
    if count != 1:
        sys.exit(f"The service's own entry was found {count} times in the new lock; nothing was written.")
    (SERVICE / "uv.lock").write_text(lock, encoding="utf-8")


if __name__ == "__main__":
    main()
