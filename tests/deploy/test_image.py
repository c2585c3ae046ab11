"""What the image of a service promises, built by a real engine from the Dockerfile as it is rendered."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import shutil
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.conftest import EPOCH, RUN, Builder, production
from support.docker import Container, Docker
from support.load import Load
from support.standins import PINNED
from support.template import Render

MEGABYTE = 10**6
BUDGET = {"gevent": 81}  # megabytes over the base; else 75
# Whoever may do least: no file to write but in memory, no right, no name, no home.
LEAST = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=54321:54321"]
LEAST += ["--env=HOME=/nowhere", "--cpus=1", "--memory=512m"]
QUICK = ["--health-interval=1s", "--health-start-interval=1s", "--health-retries=1"]


def layers(docker: Docker, image: str) -> list[str]:
    found: list[str] = docker.inspect(image)["RootFS"]["Layers"]
    return found


def base_of(builder: Builder, folder: Path) -> str:
    return builder.images.find(PINNED.findall((folder / "Dockerfile").read_text())[0])


@pytest.fixture(scope="session")
def container(docker: Docker, image: str, network: str, database_url: str) -> Iterator[Container]:
    """The service in production form, with the least rights, that tests share."""
    options = [f"--network={network}", *LEAST, *QUICK, *production(database_url)]
    with docker.container(image, *options) as running:
        running.wait_for_health("healthy")
        yield running


# What is in it


def test_it_adds_no_more_to_its_base_than_it_may(
    docker: Docker, builder: Builder, folder: Path, image: str, variant: str
) -> None:
    added = docker.inspect(image)["Size"] - docker.inspect(base_of(builder, folder))["Size"]
    assert added <= BUDGET.get(variant, 75) * MEGABYTE


def find_intruders(docker: Docker, image: str, base: str, archive: Path) -> list[str]:
    """Files of an image that no image should have, and canaries in its files, its history and its configuration."""
    found = []
    for name, text in read(docker, image, base, archive):
        found += [f"{canary} in {name}" for canary in sorted(set(re.findall(r"canary-of-\w+", text.decode("latin-1"))))]
        if re.search(r"(^|/)(\.env.*|\.git|secrets|notes\.txt)(/|$)|^srv/tests/", name):
            found.append(name)
    return found


def read(docker: Docker, image: str, base: str, archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that the layers add to those of the base, and of what describes them."""
    docker.run("save", "--output", archive, image)
    yield "history", docker.run("history", "--no-trunc", "--format=json", image).encode()
    yield "configuration", json.dumps(docker.inspect(image)).encode()
    with tarfile.open(archive) as saved:
        manifest = json.load(extract(saved, "manifest.json"))[0]
        for name in manifest["Layers"][len(layers(docker, base)) :]:
            with tarfile.open(fileobj=extract(saved, name)) as layer:
                for entry in layer:
                    yield entry.name, extract(layer, entry).read() if entry.isreg() else b""


def extract(archive: tarfile.TarFile, entry: Any) -> Any:
    file = archive.extractfile(entry)
    assert file is not None
    return file


def test_no_layer_has_a_secret_a_test_or_the_history_of_the_code(
    docker: Docker, builder: Builder, folder: Path, image: str, tmp_path: Path
) -> None:
    assert find_intruders(docker, image, base_of(builder, folder), tmp_path / "image.tar") == []


@pytest.mark.with_all
def test_what_dockerignore_keeps_out_would_be_found(
    docker: Docker, builder: Builder, folder: Path, image: str, tmp_path: Path
) -> None:
    careless = shutil.copytree(folder, tmp_path / "service", symlinks=True)
    (careless / ".dockerignore").unlink()
    found = find_intruders(
        docker, builder.build(careless, "careless"), base_of(builder, folder), tmp_path / "image.tar"
    )
    assert {"srv/.env", "srv/.git", "srv/tests/conftest.py", "srv/secrets/key", "canary-of-files in srv/notes.txt"} <= {
        *found
    }


LOOK = """
import importlib.util, json, pathlib
files = [path for path in pathlib.Path("/srv").rglob("*") if not path.is_symlink()]
print(json.dumps({
    "others": [str(path) for path in files if path.stat().st_uid or path.stat().st_mode & 0o022],
    "hidden": [str(path) for path in files if path.stat().st_mode & 0o004 == 0],
    "slow": [str(path) for path in files if path.suffix == ".py" and ".venv/bin" not in str(path)
             and not pathlib.Path(importlib.util.cache_from_source(path)).exists()],
}))
"""


def test_the_code_is_roots_readable_to_all_and_compiled(docker: Docker, image: str) -> None:
    look = json.loads(docker.run("run", "--rm", "--user=0", image, "python", "-c", LOOK))
    assert look == {"others": [], "hidden": [], "slow": []}


def test_it_says_what_it_is_and_how_it_is_run(docker: Docker, image: str, folder: Path) -> None:
    config = docker.inspect(image)["Config"]
    answers = json.loads((folder / "app" / "service.json").read_text())
    assert config["Labels"] == {
        "org.opencontainers.image.title": answers["slug"],
        "org.opencontainers.image.description": answers["description"],
        "org.opencontainers.image.version": "1.2.3",
        "template.version": answers["template_version"],
    }
    assert "APP_VERSION=1.2.3" in config["Env"]
    assert config["User"] == "10001:10001"
    assert config["Cmd"] == ["gunicorn"]
    assert config["StopSignal"] == "SIGTERM"


# How it is built


def rebuild(builder: Builder, folder: Path, changed: str) -> tuple[str, dict[str, float]]:
    """The image with a comment more in one file, and the steps that this took.

    The comment is another one in each run: an engine that stays remembers what it built.
    """
    with (folder / changed).open("a") as file:
        file.write(f"\n# A change at {time.time_ns()}.\n")
    tag = f"changed-{Path(changed).stem}"
    return f"{RUN}/{tag}", builder.steps(folder, tag, f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}")


def test_a_change_of_code_changes_the_last_layer_alone(
    docker: Docker, builder: Builder, folder: Path, image: str, tmp_path: Path
) -> None:
    """And only what makes that layer is done: 1.5 to 2.1 s of work where this was written, on two busy cores."""
    changed, steps = rebuild(builder, shutil.copytree(folder, tmp_path / "service", symlinks=True), "app/clock.py")
    before, after = layers(docker, image), layers(docker, changed)
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]
    print(f"{sum(steps.values()):.1f} s of work: {steps}")
    assert [name.split(" RUN ")[0] for name in sorted(steps)] == [
        "[code 2/3] COPY . ./",
        "[code 3/3]",
        "[stage-3 3/3] COPY --from=code /srv/ ./",
    ]


@pytest.mark.with_all
def test_a_change_that_touches_the_packages_would_be_seen(
    builder: Builder, folder: Path, image: str, tmp_path: Path
) -> None:
    _, steps = rebuild(builder, shutil.copytree(folder, tmp_path / "service", symlinks=True), "scripts/slim.py")
    assert [name for name in steps if name.startswith("[dependencies 3/3] RUN")]


class Mirror(BaseHTTPRequestHandler):
    """A company's mirror of PyPI's index, for those who have its password."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(b"reader:canary-of-index").decode()
        if self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
            return
        self.asked.append(self.path)
        with urllib.request.urlopen(f"https://pypi.org{self.path}") as answer:
            body = answer.read()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index_url(docker: Docker) -> Iterator[str]:
    """The mirror's URL, for a container, with the password in it."""
    host = docker.inspect("bridge")["IPAM"]["Config"][0]["Gateway"]
    with ThreadingHTTPServer((host, 0), Mirror) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://reader:canary-of-index@{host}:{server.server_port}/simple"
        server.shutdown()
        thread.join()


@pytest.mark.with_all
def test_another_machine_builds_the_same_layers_and_its_index_leaves_no_trace(
    docker: Docker, builder: Builder, folder: Path, image: str, index_url: str, tmp_path: Path
) -> None:
    """Another umask, another time of checkout, nothing cached, and the packages from a mirror with a password."""
    elsewhere = shutil.copytree(folder, tmp_path / "service", symlinks=True)
    for path in elsewhere.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1_600_000_000, 1_600_000_000))
    (tmp_path / "index_url").write_text(index_url)
    again = builder.build(
        elsewhere,
        "again",
        "--no-cache",
        f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}",
        "--build-arg=APP_VERSION=1.2.3",
        f"--secret=id=index_url,src={tmp_path / 'index_url'}",
    )
    assert layers(docker, again) == layers(docker, image)
    assert "/simple/flask/" in Mirror.asked
    assert find_intruders(docker, again, base_of(builder, folder), tmp_path / "image.tar") == []


def test_what_the_dockerfile_builds_on_is_pinned(render: Render, variant: str) -> None:
    """In the one form that Renovate and Dependabot raise: `image:tag@sha256:…`."""
    dockerfile = (render(worker_class=variant) / "Dockerfile").read_text()
    stages = re.findall(r" AS (\w+)$", dockerfile, re.M)
    used = re.findall(r"(?:^FROM |--from=)(\S+)", dockerfile, re.M)
    assert [name for name in used if name not in stages] == PINNED.findall(dockerfile)
    assert "# syntax" not in dockerfile  # would be fetched anew, unpinned, at each build


# How it runs


def test_it_serves_with_the_least_rights(container: Container) -> None:
    created = container.request("POST", "/api/items", {"name": "Bolt", "quantity": 3})
    assert created.status == 201
    assert container.get(created.headers["Location"]).json["name"] == "Bolt"
    assert container.get("/healthz/ready").json["status"] == "ok"
    assert container.execute("python", "-c", "import os; print(os.getuid())") == "54321"


def test_its_log_has_not_one_error(container: Container) -> None:
    container.get("/api/items")
    container.wait_for_log(logger="^app.request$", path="/api/items")
    assert [line for line in container.log() if line["level"] not in ("INFO", "DEBUG")] == []


def test_its_version_is_told_to_prometheus(container: Container) -> None:
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9102/metrics').read().decode())"
    assert 'version="1.2.3"' in container.execute("python", "-c", ask)


DOOR = """
import socket
from app.server.hooks import shut_door
listener = socket.create_server(("127.0.0.1", 0))
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
half = socket.create_connection(listener.getsockname())
shut_door(listener)
refused = socket.socket().connect_ex(listener.getsockname())
half.sendall(b"all of it")
print(refused, listener.accept()[0].recv(64).decode())
"""


def test_its_door_shuts_without_a_privilege(container: Container) -> None:
    """New connections are refused, those half made come through. A socket filter would want CAP_NET_ADMIN."""
    assert container.execute("python", "-c", DOOR) == f"{errno.ECONNREFUSED} all of it"


def test_a_stop_under_load_loses_nothing_and_ends_with_0(
    docker: Docker, image: str, network: str, database_url: str
) -> None:
    options = [f"--network={network}", *LEAST, *QUICK, *production(database_url)]
    with docker.container(image, *options) as service:
        service.wait_for_health("healthy")
        load = Load(service.port, total=100_000, host=service.host, patience=15).start()
        load.wait_for_answers(200)
        code = service.stop()
        load.end()
        assert code == 0
        assert load.outcomes["lost"] == 0, load.losses
        assert [line for line in service.log() if line["level"] == "ERROR"] == []


def test_a_service_that_hangs_is_unhealthy_until_it_goes_on(
    docker: Docker, image: str, network: str, database_url: str
) -> None:
    with docker.container(image, f"--network={network}", *LEAST, *QUICK, *production(database_url)) as service:
        service.wait_for_health("healthy")
        docker.run("kill", "--signal=STOP", service.name)  # the first process; from within, nobody can stop that
        service.execute("python", "-c", "import os, signal; os.kill(-1, signal.SIGSTOP)")
        service.wait_for_health("unhealthy")
        assert "TimeoutError" in service.state["State"]["Health"]["Log"][-1]["Output"]
        service.execute("python", "-c", "import os, signal; os.kill(-1, signal.SIGCONT)")
        docker.run("kill", "--signal=CONT", service.name)
        service.wait_for_health("healthy")


BARE = """FROM {image}
USER 0
RUN ["python", "-c", "import os; [os.unlink(f.path) for d in ('/usr/bin', '/usr/sbin', '/usr/local/sbin') for f in os.scandir(d) if not f.name.startswith('python')]"]
USER 10001
"""


def test_it_needs_no_shell_and_no_tool(docker: Docker, image: str, network: str, database_url: str) -> None:
    docker.run("build", "--quiet", f"--tag={RUN}/bare", "-", input=BARE.format(image=image))
    assert "executable file not found" in docker.ask("run", "--rm", f"{RUN}/bare", "sh", "-c", "true").stderr
    with docker.container(f"{RUN}/bare", f"--network={network}", *QUICK, *production(database_url)) as service:
        service.wait_for_health("healthy")
        assert service.get("/api/items").status == 200
        assert service.stop() == 0


def test_a_worker_class_that_was_left_out_is_refused_in_one_line(docker: Docker, image: str, variant: str) -> None:
    if variant == "gevent":
        return
    done = docker.ask("run", "--rm", "--env=GUNICORN_WORKER_CLASS=gevent", *production("postgresql://a:b@c/d"), image)
    assert done.returncode == 1
    assert done.stderr.strip() == "GUNICORN_WORKER_CLASS: gevent is not installed here; the Dockerfile says why."
