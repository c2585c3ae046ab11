"""The template with its history, and services of every release of it, as a team keeps them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from support.git import ENVIRON, git, listed
from support.service import Service, clean_environ
from support.template import ROOT, SERVICE, load

HISTORY = ROOT / "tests" / "update" / "history"
RELEASES: dict[str, str] = json.loads((HISTORY.parent / "releases.json").read_text(encoding="utf-8"))
SCRIPT = "scripts/template_update.py"
COOKIECUTTER = Path(sys.executable).with_name("cookiecutter")

Edit = Callable[[Path], object]
Tree = dict[str, tuple[str, bytes]]


def fetch_bundles(into: Path, clone: Path = ROOT) -> dict[str, str]:
    """Give a repository the releases that the bundles of a clone hold; their commits, by version."""
    home = clone / "tests" / "update"
    releases: dict[str, str] = json.loads((home / "releases.json").read_text(encoding="utf-8"))
    for version in releases:
        git(into, "fetch", "--quiet", "--no-tags", str(home / "history" / f"{version}.bundle"), "*:refs/bundled/*")
    return releases


class Template:
    """A repository of the template: the earlier releases, and the work tree of this one as the newest.

    Attributes:
        releases: the versions, oldest first.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.newest = home / "newest"  # the newest release, checked out; the folder itself changes with each render
        self.releases: list[str] = []
        self.rendered: dict[str, Path] = {}

    def build(self) -> Template:
        """What a clone without tags or history lacks comes from the bundles beside the tests."""
        if (self.home / "built").exists():
            self.releases = (self.home / "built").read_text().split()
            return self
        self.folder.mkdir()
        git(self.folder, "init", "--quiet", "--initial-branch=main")
        for version, commit in fetch_bundles(self.folder).items():
            git(self.folder, "tag", f"v{version}", commit)
            self.releases.append(version)
        git(self.folder, "reset", "--quiet", "--soft", f"v{self.releases[-1]}")
        for path in listed(ROOT):  # and nothing else: the work tree is empty until now
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, self.folder / path)
        self.release(version=self.next_version(bump=False))
        git(self.folder, "worktree", "add", "--quiet", "--detach", str(self.newest), "main")
        (self.home / "built").write_text(" ".join(self.releases))
        return self

    def next_version(self, *, bump: bool = True) -> str:
        version = json.loads((self.folder / "cookiecutter.json").read_text(encoding="utf-8"))["__version"]
        major, minor, patch = version.split(".")
        return f"{major}.{minor}.{int(patch) + 1}" if bump or version in self.releases else version

    def fork(self, folder: Path) -> Template:
        """Another repository with the same releases, to make more of them."""
        git(ROOT, "clone", "--quiet", "--shared", "--branch=main", str(self.folder), str(folder))
        other = Template(folder, self.home)
        other.releases = list(self.releases)
        return other

    def release(self, *edits: Edit, version: str = "") -> Template:
        """One release more, in which the service's folder was edited."""
        for edit in edits:
            edit(self.folder / SERVICE.name)
        version = version or self.next_version()
        for name, mark in (("cookiecutter.json", '"__version": "'), ("pyproject.toml", '\nversion = "')):
            text = (self.folder / name).read_text(encoding="utf-8")
            before, _, after = text.partition(mark)
            (self.folder / name).write_text(before + mark + version + after[after.index('"') :], encoding="utf-8")
        lock = self.folder / "uv.lock"
        mark = 'name = "flask-prod-template"\nversion = "'
        before, _, after = lock.read_text(encoding="utf-8").partition(mark)
        lock.write_text(before + mark + version + after[after.index('"') :], encoding="utf-8")
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", f"Release {version}")
        git(self.folder, "tag", f"v{version}")
        self.releases.append(version)
        return self

    def questions(self, version: str) -> dict[str, str | list[str]]:
        context = json.loads(git(self.folder, "show", f"v{version}:cookiecutter.json"))
        return {name: default for name, default in context.items() if not name.startswith("_")}

    def render(self, version: str, **answers: str) -> Path:
        """A service as `cookiecutter` leaves it; nobody changes it."""
        key = hashlib.sha256(json.dumps([str(self.folder), version, answers]).encode()).hexdigest()[:16]
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (self.home / key / "complete").exists():
                self.run_cookiecutter(key, version, answers)
        (self.rendered[key],) = (path for path in (self.home / key).iterdir() if path.is_dir())
        return self.rendered[key]

    def run_cookiecutter(self, key: str, version: str, answers: Mapping[str, str]) -> None:
        config = {name: str(self.home / "cookiecutter" / name) for name in ("cookiecutters_dir", "replay_dir")}
        text = json.dumps({**config, "default_context": answers}, ensure_ascii=False)
        (self.home / f"{key}.json").write_text(text, encoding="utf-8")
        git(self.folder, "checkout", "--quiet", f"v{version}")
        command = [sys.executable, str(COOKIECUTTER), "--no-input", "--config-file", str(self.home / f"{key}.json")]
        command += ["--output-dir", str(self.home / key), str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        git(self.folder, "checkout", "--quiet", "main")
        (self.home / key / "complete").touch()

    def service(self, folder: Path, version: str, *edits: Edit, **answers: str) -> Live:
        """A service that a team made with a release, changed, and committed."""
        shutil.copytree(self.render(version, **answers), folder)
        git(folder, "init", "--quiet")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "New service")
        live = Live(folder, self)
        live.commit(*edits)
        return live


class Live:
    """A service in its repository, and the command that updates it."""

    def __init__(self, folder: Path, template: Template) -> None:
        self.folder = folder
        self.template = template
        environment = ROOT / "build" / "updater" / hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()[:16]
        environment.mkdir(parents=True, exist_ok=True)
        home = folder / ".git" / "template-update"
        if (folder / ".git").is_dir() and not home.exists():  # one environment for all saves each some seconds
            home.mkdir()
            (home / "venv").symlink_to(environment)

    def commit(self, *edits: Edit) -> None:
        for edit in edits:
            edit(self.folder)
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", "Our changes")

    def command(self, *arguments: str) -> list[str]:
        """The service's own script; the first releases had none, and take the template's."""
        own = self.folder / SCRIPT
        script = own if own.exists() else self.template.newest / SERVICE.name / SCRIPT
        return [sys.executable, str(script), *arguments]

    def update(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=updating_environ(**environ),
            capture_output=True,
            text=True,
            check=False,
        )

    def refused(self, *arguments: str, **environ: str) -> str:
        """The line with which an update is refused; nothing is changed by it."""
        before = self.state()
        done = self.update(*arguments, **environ)
        assert done.returncode == 2, done.stdout + done.stderr
        assert self.state() == before
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        return line

    def state(self) -> tuple[str, str, Tree]:
        """All that an update may change: branch, index and files."""
        return git(self.folder, "rev-parse", "HEAD"), git(self.folder, "ls-files", "--stage"), self.files()

    def files(self) -> Tree:
        """Every file, those that git ignores among them, but not what Python leaves behind."""
        paths = [path for path in self.folder.rglob("*") if not path.is_dir() or path.is_symlink()]
        return {
            str(path.relative_to(self.folder)): (oct(path.lstat().st_mode), path.read_bytes())
            for path in paths
            if not {".git", "__pycache__", ".venv"} & set(path.relative_to(self.folder).parts)
        }

    def conflicts(self) -> set[str]:
        paths = git(self.folder, "diff", "--name-only", "--diff-filter=U", "-z").split("\0")
        return {path for path in paths if path}


def updating_environ(**values: str) -> dict[str, str]:
    """Nobody's settings, and a git that has no identity and may not guess one."""
    uv = Path(load(SERVICE / "scripts" / "bootstrap.py").find_uv()).parent
    own = {name: value for name, value in ENVIRON.items() if not name.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))}
    configured = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.useConfigOnly", "GIT_CONFIG_VALUE_0": "true"}
    environ = {**clean_environ(), **own, **configured, "PATH": f"{uv}:{os.environ['PATH']}"}
    environ.pop("PYTHONDONTWRITEBYTECODE")  # cookiecutter takes a second to compile
    return {**environ, **values}


def without_env(files: Mapping[str, tuple[str, bytes]]) -> Tree:
    return {path: file for path, file in files.items() if path != ".env"}


def works(folder: Path, state: Path, venv: Path, *, tests: bool) -> None:
    """Install what is locked, run the service's own tests, and start it; `venv` has what this release locks."""
    environ = clean_environ()
    if (folder / "uv.lock").read_bytes() == (venv.parent / "uv.lock").read_bytes():
        (folder / ".venv").symlink_to(venv)
    else:
        subprocess.run([sys.executable, "scripts/bootstrap.py"], cwd=folder, env=environ, check=True)
    if tests:
        tested = subprocess.run(
            [".venv/bin/pytest"], cwd=folder, env=environ, capture_output=True, text=True, check=False
        )
        assert tested.returncode == 0, tested.stdout + tested.stderr
    (state / "state").mkdir()
    service = Service(folder, folder / ".venv", state / "state")
    service.flask("db", "upgrade")
    with service:
        assert service.get("/healthz/ready").status == 200
