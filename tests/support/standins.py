"""Images by their real names: from their registry where that can be reached, else stand-ins built of Debian packages."""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.docker import HOME, Docker
from support.packages import find
from support.template import ROOT, SERVICE, load

RECIPES = Path(__file__).with_name("standins")
MINBASE = (
    "--quiet",
    "--variant=minbase",
    "--dpkgopt=force-unsafe-io",
    "--aptopt=Acquire::Retries 3",
    "--aptopt=Acquire::Languages none",
    "trixie",
    "-",
    "http://deb.debian.org/debian",
)
PINNED = re.compile(r"(?:FROM |--from=|image: )(\S+@sha256:[0-9a-f]{64})")


@dataclass
class Images:
    """What an engine gets instead of what it cannot fetch. The recipe of `registry/name:tag` is `standins/name/`."""

    docker: Docker
    had: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, name: str) -> str:
        """The name under which the engine has an image: its own, or that of its stand-in."""
        if name not in self.had:
            pulled = self.docker.ask("pull", "--quiet", name)
            if "manifest" in pulled.stderr:  # the registry answered, and has no such image
                pytest.fail(f"{name}: {pulled.stderr}", pytrace=False)
            self.had[name] = name if pulled.returncode == 0 else self.build(name)
        return self.had[name]

    def find_all(self, names: Collection[str]) -> dict[str, str]:
        """The same for several, side by side: building one is to wait for packages most of the time."""
        with ThreadPoolExecutor() as pool:
            return dict(zip(names, pool.map(self.find, names), strict=True))

    def contexts(self, dockerfile: Path) -> list[str]:
        """Options of `docker build` that lead the pinned images of a Dockerfile, which stays as it is, to what is here."""
        options = []
        for name, found in self.find_all({*PINNED.findall(dockerfile.read_text(encoding="utf-8"))}).items():
            if found != name:
                options += ["--build-context", f"{name}=docker-image://{found}"]
        return options

    def build(self, name: str) -> str:
        """The stand-in for an image, built; the engine's build cache makes that quick the second time."""
        path, _, tag = name.partition("@")[0].rpartition(":")
        recipe = RECIPES / path.rpartition("/")[2]
        standin = f"standin/{recipe.name}"
        context = recipe
        if recipe.name == "uv":
            context = fetch_uv(tag)
        else:
            with self.lock:
                self.build_debian()
        self.docker.run("build", "--quiet", "--tag", standin, "--file", recipe / "Dockerfile", context)
        return standin

    def build_debian(self) -> None:
        """The image `standin/debian`, on which the others build."""
        command = [str(find("mmdebstrap", "mmdebstrap")), *MINBASE]
        made = f"standin/minbase:{hashlib.sha256(' '.join(MINBASE).encode()).hexdigest()[:12]}"
        if self.docker.ask("image", "inspect", made).returncode:
            with subprocess.Popen(command, stdout=subprocess.PIPE) as making:
                self.docker.run("import", "-", made, stdin=making.stdout)
            if making.returncode:
                self.docker.run("rmi", made)
                pytest.fail(f"{' '.join(command)} ended with {making.returncode}", pytrace=False)
        self.docker.run("tag", made, "standin/minbase")
        self.docker.run("build", "--quiet", "--tag", "standin/debian", RECIPES / "debian")


def fetch_uv(version: str) -> Path:
    """A folder with the files of that version's wheel."""
    folder = HOME / f"uv-{version}"
    if not (folder / "bin" / "uv").exists():
        with contextlib.chdir(ROOT):  # where this repository's own uv is
            uv = load(SERVICE / "scripts" / "bootstrap.py").find_uv()
        command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", folder, f"uv=={version}"]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder
