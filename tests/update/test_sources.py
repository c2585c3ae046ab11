"""Where a template may be: with an abbreviation, private, shallow, moved, without releases; and where a service may be."""

from __future__ import annotations

import base64
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from cookiecutter.config import BUILTIN_ABBREVIATIONS
from cookiecutter.repository import expand_abbreviations

from support.edits import append
from support.git import git
from support.releases import SCRIPT, Live, Template, updating_environ
from support.template import SERVICE, load

pytestmark = pytest.mark.with_all


def source_of(service: Live) -> str:
    return str(json.loads((service.folder / ".template.json").read_text())["source"])


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("gh:org/flask-prod", "https://github.com/org/flask-prod.git"),
        ("gl:org/flask-prod", "https://gitlab.com/org/flask-prod.git"),
        ("bb:org/flask-prod", "https://bitbucket.org/org/flask-prod"),
        ("git@example.com:org/flask-prod.git", "git@example.com:org/flask-prod.git"),
        ("https://example.com/org/flask-prod", "https://example.com/org/flask-prod"),
    ],
)
def test_an_abbreviation_is_what_cookiecutter_takes_it_for(source: str, address: str) -> None:
    expand = load_script().expand
    assert expand(source) == address
    assert expand(source).removesuffix(".git") == expand_abbreviations(source, BUILTIN_ABBREVIATIONS).removesuffix(
        ".git"
    )


def load_script() -> ModuleType:
    sys.path.insert(0, str(SERVICE / "scripts"))
    try:
        return load(SERVICE / "scripts" / "template_update.py")
    finally:
        sys.path.pop(0)


def test_an_abbreviated_source_stays_abbreviated_and_git_rewrites_as_it_is_told(
    template: Template, tmp_path: Path
) -> None:
    """A mirror of the organisation's, by git's own setting."""
    service = template.service(tmp_path / "service", "0.3.0")
    git(service.folder, "config", f"url.{template.folder.as_uri()}.insteadOf", "https://github.com/org/flask-prod.git")
    (service.folder / "gitconfig").write_text((service.folder / ".git" / "config").read_text())
    done = service.update("--source=gh:org/flask-prod", GIT_CONFIG_GLOBAL=str(service.folder / "gitconfig"))
    assert done.returncode == 0, done.stderr
    assert source_of(service) == "gh:org/flask-prod"


class Private(http.server.BaseHTTPRequestHandler):
    """`git http-backend` for those who know the password."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(b"team:token").decode()
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environ = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.server.root),  # type: ignore[attr-defined]
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
        }
        answer = subprocess.run(
            ["git", "http-backend"], env=environ, input=body, capture_output=True, check=True
        ).stdout
        head, _, content = answer.partition(b"\r\n\r\n")
        self.send_response(200)
        for line in head.decode().splitlines():
            name, _, value = line.partition(": ")
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def private(template: Template) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Private) as server:
        server.root = template.folder.parent  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{template.folder.name}/.git"
        server.shutdown()


def test_a_private_repository_is_read_with_what_git_s_helper_knows(
    template: Template, tmp_path: Path, private: str
) -> None:
    service = template.service(tmp_path / "service", "0.3.0")
    offline = {"GIT_TERMINAL_PROMPT": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    assert "is not at" in service.refused(f"--source={private}", **offline)
    config = tmp_path / "gitconfig"
    config.write_text('[credential]\n\thelper = "!f() { echo username=team; echo password=token; }; f"\n')
    done = service.update(f"--source={private}", **offline, GIT_CONFIG_GLOBAL=str(config))
    assert done.returncode == 0, done.stderr
    assert source_of(service) == private
    staged = git(service.folder, "diff", "--cached")
    assert "token" not in staged.replace("csrf_token", "").split(private)[1][:200]


def test_a_fork_that_moved_is_named_once(template: Template, tmp_path: Path) -> None:
    fork = template.fork(tmp_path / "fork")
    service = fork.service(tmp_path / "service", fork.releases[-1])
    fork.release(append("README.md", "News.\n"))
    fork.folder.rename(tmp_path / "moved")
    line = service.refused()
    assert f"The template is not at {fork.folder}." in line
    assert service.update("--source=../moved").returncode == 0
    assert source_of(service) == str(tmp_path / "moved")
    service.commit()
    assert service.update().stdout.startswith("Nothing is new")


@pytest.mark.with_all
def test_a_template_without_releases_is_followed_by_its_default_branch(template: Template, tmp_path: Path) -> None:
    fork = template.fork(tmp_path / "fork")
    service = fork.service(tmp_path / "service", fork.releases[-1])
    for tag in git(fork.folder, "tag").split():
        git(fork.folder, "tag", "--delete", tag)
    assert service.update().stdout.startswith("Nothing is new")
    append("{{cookiecutter.project_slug}}/README.md", "News.\n")(fork.folder)
    git(fork.folder, "commit", "--quiet", "--all", "--message", "News")
    assert service.update().returncode == 0
    assert (service.folder / "README.md").read_text().endswith("News.\n")
    newest = git(fork.folder, "rev-parse", "HEAD")
    assert json.loads((service.folder / ".template.json").read_text())["commit"] == newest


@pytest.mark.with_all
def test_a_service_that_is_past_the_newest_release_is_not_taken_back(template: Template, tmp_path: Path) -> None:
    fork = template.fork(tmp_path / "fork")
    newest = fork.releases[-1]
    fork.release(append("README.md", "News.\n"))
    service = fork.service(tmp_path / "service", fork.releases[-1])
    git(fork.folder, "tag", "--delete", f"v{fork.releases[-1]}")
    assert service.update().stdout.startswith("Nothing is new")
    assert service.update("worker_class=sync").returncode == 0
    assert (service.folder / "README.md").read_text().endswith("News.\n")
    service.commit()
    assert service.update(f"--to=v{newest}").returncode == 0, "unless it is told to"
    assert not (service.folder / "README.md").read_text().endswith("News.\n")


def test_a_record_without_a_commit_is_taken_by_its_version(template: Template, tmp_path: Path) -> None:
    """From an archive, where there is no git folder to read the commit from."""
    service = template.service(tmp_path / "service", "0.3.0")
    record = json.loads((service.folder / ".template.json").read_text())
    (service.folder / ".template.json").write_text(json.dumps({**record, "commit": None}))
    service.commit(append("app/health.py", "# ours\n"))
    done = service.update()
    assert done.returncode == 0, done.stdout + done.stderr
    direct = template.render(template.releases[-1])
    assert (service.folder / ".template.json").read_text() == (direct / ".template.json").read_text()
    assert (service.folder / "app" / "health.py").read_text() == (direct / "app" / "health.py").read_text() + "# ours\n"


@pytest.mark.with_all
def test_a_commit_that_no_branch_leads_to_is_fetched_by_its_name(template: Template, tmp_path: Path) -> None:
    fork = template.fork(tmp_path / "fork")
    git(fork.folder, "switch", "--quiet", "--create", "aside")
    fork.release(append("README.md", "Aside.\n"))
    service = fork.service(tmp_path / "service", fork.releases[-1])
    git(fork.folder, "switch", "--quiet", "main")
    git(fork.folder, "branch", "--quiet", "-D", "aside")
    git(fork.folder, "tag", "--delete", f"v{fork.releases[-1]}")
    git(fork.folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    fork.releases.pop()
    fork.release(append("Makefile", "# News.\n"))
    done = service.update(f"--source={fork.folder.as_uri()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (service.folder / "README.md").read_text().endswith("Aside.\n")


def test_a_shallow_clone_of_the_service_is_enough(template: Template, tmp_path: Path) -> None:
    service = template.service(tmp_path / "service", "0.3.0", append("app/health.py", "# ours\n"))
    git(tmp_path, "clone", "--quiet", "--depth=1", service.folder.as_uri(), "shallow")
    shallow = Live(tmp_path / "shallow", template)
    assert shallow.update().returncode == 0
    assert (shallow.folder / "app" / "health.py").read_text().endswith("# ours\n")


def test_a_service_in_a_folder_of_a_repository_and_in_a_worktree_of_it(template: Template, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    service = template.service(outer / "services" / "orders", "0.3.0")
    (service.folder / ".git").rename(tmp_path / "put-aside")
    (outer / "README.md").write_text("Of all services.\n")
    git(outer, "init", "--quiet")
    git(outer, "add", "--all")
    git(outer, "commit", "--quiet", "--message", "All services")
    git(outer, "worktree", "add", "--quiet", str(tmp_path / "tree"))
    for top in (outer, tmp_path / "tree"):
        inner = Live(top / "services" / "orders", template)
        inner.commit(append("app/__init__.py", "# ours\n"), append("app/sessions.py", "# ours\n"))
        (top / "README.md").write_text("Not committed.\n")
        done = inner.update()
        assert done.returncode == 1, done.stderr
        assert done.stderr == ""
        assert git(top, "diff", "--name-only", "--diff-filter=U") == "services/orders/app/sessions.py"
        assert (inner.folder / "app" / "__init__.py").read_text().endswith("# ours\n")
        assert (inner.folder / "app" / "breaker.py").exists()
        assert not (top / "app").exists()
        assert (top / "README.md").read_text() == "Not committed.\n"
        assert inner.update("--abort").returncode == 0
        assert git(top, "status", "--porcelain", "--untracked-files=no") == "M README.md"


def test_one_command_updates_a_service_that_has_no_script_yet(template: Template, tmp_path: Path) -> None:
    """As docs/update.md of the template has it, word by word but for the address."""
    service = template.service(tmp_path / "service", "0.1.0")
    assert not (service.folder / SCRIPT).exists()
    text = (Path(__file__).parents[2] / "docs" / "update.md").read_text()
    (command,) = [line for line in text.splitlines() if line.strip().startswith("git clone")]
    command = command.replace("/tmp/", f"{tmp_path}/").replace(
        "https://github.com/org/flask-prod", str(template.folder)
    )
    done = subprocess.run(
        command, shell=True, cwd=service.folder, env=updating_environ(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (service.folder / SCRIPT).exists()
