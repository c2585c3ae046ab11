"""Roll a release out on this host, or back to the one before: `release.py deploy 1.2.3`, `rollback`, `status`.

One instance after the other is replaced: a new one must be ready before nginx is told of it, and only when nginx no
longer sends anything to an old one does that stop. If one does not become ready, all is put back. Standard library only;
docs/compose.md has the rest.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "deploy" / "compose" / "release.json"  # what runs, and what ran before
SOURCE = ROOT / "deploy" / "nginx" / "upstream.conf"
UPSTREAM = ROOT / "deploy" / "compose" / "upstream.conf"  # the instances, for nginx
SERVER = "server app:8000 "  # a line of deploy/nginx/upstream.conf, which here is one for each instance
NGINX = ("nginx", "nginx", "-c", "/etc/nginx/service/nginx.conf")
STORES = ("postgres", "pgbouncer", "redis")


class Failure(Exception):
    """Why a release was not made, in one line."""


def run(*command: str, version: str = "", show: bool = False) -> str:
    """What a command prints; it may print for itself instead.

    Raises:
        Failure: it ended with something other than 0.
    """
    environ = {"COMPOSE_FILE": "compose.yaml:deploy/compose/production.yaml", **os.environ, "APP_VERSION": version}
    pipe = None if show else subprocess.PIPE
    done = subprocess.run(command, cwd=ROOT, env=environ, stdout=pipe, stderr=pipe, text=True, check=False)
    if done.returncode:
        last = (done.stderr or "").strip().rpartition("\n")[2]
        raise Failure(f"{' '.join(command)} ended with {done.returncode}" + (f": {last}" if last else ""))
    return (done.stdout or "").strip()


def compose(*command: str, version: str, show: bool = False) -> str:
    return run("docker", "compose", *command, version=version, show=show)


class Host:
    """The instances on this host, by the Compose project that they belong to."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        config: dict[str, Any] = json.loads(compose("config", "--format", "json", version="x"))
        self.image = config["services"]["app"]["image"].rpartition(":")[0]
        self.replicas = int(config["services"]["app"]["deploy"]["replicas"])
        self.labels = (f"project={config['name']}", "service=app", "oneoff=False")

    def instances(self) -> list[str]:
        """Their containers, the oldest first."""
        return self.ps("--quiet", "--no-trunc").split()[::-1]

    def ps(self, *options: str) -> str:
        filters = [f"--filter=label=com.docker.compose.{label}" for label in self.labels]
        return run("docker", "ps", "--all", *options, *filters)

    def version(self, instance: str) -> str:
        return run("docker", "inspect", "--format={{.Config.Image}}", instance).rpartition(":")[2]

    def fetch(self, version: str) -> None:
        """Have the image here."""
        name = f"{self.image}:{version}"
        try:
            run("docker", "image", "inspect", name)
        except Failure:
            try:
                run("docker", "pull", name)
            except Failure:
                mend = f"docker build --tag {name} --build-arg APP_VERSION={version} ."
                raise Failure(f"{name} is neither here nor in its registry. Build it: {mend}") from None

    def prepare(self, version: str, migrate: bool) -> None:
        """All that a release needs before its first instance: stores, schema, static files."""
        compose("up", "--detach", "--wait", "--no-recreate", *STORES, version=version)
        if migrate:
            for command in (["flask", "db", "upgrade"], ["flask", "preflight"]):
                try:
                    compose("run", "--rm", "--no-deps", "--no-TTY", "migrate", *command, version=version, show=True)
                except Failure:
                    raise Failure(f"{' '.join(command)} of {version} failed, as it says above") from None
        compose("run", "--rm", "--no-deps", "--no-TTY", "assets", version=version)

    def start(self, version: str) -> str:
        """One instance more, ready, of which nginx does not know yet.

        Raises:
            Failure: it is not ready in time, and is gone again.
        """
        before = self.instances()
        one_more = ("--scale", f"app={len(before) + 1}", "app")
        compose("up", "--detach", "--no-build", "--no-deps", "--no-recreate", *one_more, version=version)
        (instance,) = set(self.instances()) - {*before}
        try:
            self.wait_until_ready(instance, version)
        except BaseException:
            run("docker", "rm", "--force", "--volumes", instance)
            raise
        return instance

    def send_to(self, instances: list[str]) -> None:
        """Have nginx send requests to these. A reload loses none, and no worker of before takes new ones."""
        (line,) = [line for line in SOURCE.read_text().splitlines() if line.strip().startswith(SERVER)]
        names = [run("docker", "inspect", "--format={{.Name}}", instance).strip("/") for instance in instances]
        lines = "\n".join(line.replace(SERVER, f"server {name}:8000 ") for name in names)
        UPSTREAM.write_text(SOURCE.read_text().replace(line, lines))  # in place: a container has this very file
        if compose("ps", "--quiet", "nginx", version="x"):
            for then in (["-t", "-q"], ["-s", "reload"]):
                compose("exec", "--no-TTY", *NGINX, *then, version="x")

    def wait_until_ready(self, instance: str, version: str) -> None:
        deadline = time.monotonic() + self.patience
        last = ""
        while time.monotonic() < deadline:
            try:
                run("docker", "exec", instance, "python", "scripts/healthcheck.py", "/healthz/ready")
                return
            except Failure:
                state = json.loads(run("docker", "inspect", "--format={{json .}}", instance))
                last = "it ended at its start" if state["RestartCount"] else f"not within {self.patience:g} s"
                if state["RestartCount"]:
                    break
            time.sleep(0.5)
        run("docker", "logs", "--tail=20", instance, show=True)
        raise Failure(f"{version} did not become ready ({last}; its last lines are above)")

    def stop(self, instance: str) -> None:
        """It answers what it has; the container knows how long that may take."""
        run("docker", "stop", instance)
        run("docker", "rm", "--volumes", instance)

    def roll(self, version: str) -> None:
        """Replace every instance by one of `version`, or none."""
        old, new = self.instances(), list[str]()
        replaced: list[str] = []  # versions of those that are gone
        try:
            for _ in range(self.replicas):
                new.append(self.start(version))
                self.send_to([*old[1:], *new])
                if old:
                    replaced.append(self.version(old[0]))
                    self.stop(old.pop(0))
        except Failure:
            for former in replaced:
                old.append(self.start(former))
                self.send_to([*old, *new[1:]])
                self.stop(new.pop(0))
            raise
        self.send_to(new)
        for instance in old:
            self.stop(instance)


def release(host: Host, version: str, record: dict[str, str], migrate: bool) -> None:
    """Make `version` what runs here."""
    current = record.get("current", "")
    try:
        host.fetch(version)
        host.prepare(version, migrate)
        host.roll(version)
        compose("up", "--detach", "--wait", "--no-build", "--no-deps", "--no-recreate", "nginx", version=version)
    except Failure as failure:
        serves = f"{current} serves on" if current else "nothing serves yet"
        raise Failure(f"{version} is not released, {serves}: {failure}") from None
    former = record.get("former", "") if version == current else current
    RECORD.write_text(json.dumps({"current": version, "former": former}) + "\n", encoding="utf-8")
    print(f"{version} serves" + (f"; before it: {former}" if former else ""))


def status() -> None:
    """Print which release serves, and its instances."""
    record: dict[str, str] = json.loads((RECORD.read_text(encoding="utf-8") if RECORD.exists() else "") or "{}")
    before = f"; before it: {record['former']}" if record.get("former") else ""
    print(f"{record['current']} serves{before}" if record else "nothing was released here yet")
    try:
        print(Host(0).ps("--format=table {{.Names}}\t{{.Image}}\t{{.Status}}"))
    except Failure as failure:
        sys.exit(str(failure))


def main() -> None:
    parser = argparse.ArgumentParser(prog="release.py", description="Roll a release out on this host, or back.")
    parser.add_argument("action", choices=["deploy", "rollback", "status"])
    parser.add_argument("version", nargs="?", default="", help="of the image to deploy, its tag")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds for an instance to be ready (60)")
    asked = parser.parse_args()
    if (asked.action == "deploy") != bool(asked.version):
        parser.error("usage: release.py deploy VERSION, or release.py rollback, or release.py status")
    if asked.action == "status":
        status()
        return
    with RECORD.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("Another release is under way on this host; try again when it is done.")
        text = RECORD.read_text(encoding="utf-8")
        record: dict[str, str] = json.loads(text) if text else {}
        version = asked.version or record.get("former", "")
        if not version:
            sys.exit("No release came before the one that runs: deploy one, make deploy VERSION=1.2.3")
        try:
            run(sys.executable, "scripts/make_env.py")  # a release may want a secret more
            release(Host(asked.patience), version, record, migrate=asked.action == "deploy")
        except Failure as failure:
            sys.exit(str(failure))


if __name__ == "__main__":
    main()
