"""What CI does of a rendered service: its pins agree, its jobs run, and its key can do one thing on the host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from support import gates
from support.answers import CHOICES
from support.ci import Done, GitHub, GitLab, gitlab_job
from support.git import ENVIRON, git
from support.service import clean_environ
from support.template import ROOT, SERVICE, Render

HURTS = '''"""Index."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_items_quantity", "items", ["quantity"])


def downgrade() -> None:
    op.drop_index("ix_items_quantity")
'''


ON = {ci: pytest.mark.parametrize("service", [ci], indirect=True) for ci in ("github", "gitlab")}


@pytest.fixture(params=["github", "gitlab"])
def service(request: pytest.FixtureRequest, render: Render, venv: Path, tmp_path: Path) -> Path:
    """As its repository has it, and with what `make install` would install."""
    folder = tmp_path / "service"
    git(tmp_path, "init", "--quiet", str(folder))
    rendered = render(ci=request.param)
    git(folder, "-c", "core.bare=false", f"--work-tree={rendered}", "add", "--all")
    git(folder, "commit", "--quiet", "--message", "New service")
    git(folder, "checkout", "--quiet", "--force", "HEAD", "--", ".")
    (folder / ".venv").symlink_to(venv)
    (venv / "installed").touch()
    return folder


def run(service: Path, job: str, tmp_path: Path, worker_id: str) -> Done:
    (tmp_path / "run").mkdir(exist_ok=True)
    environ = {
        **clean_environ(),
        **ENVIRON,
        "PATH": os.environ["PATH"],
        "MYPY_CACHE_DIR": str(ROOT / "build" / "mypy" / worker_id),
        "RUNNER_TEMP": str(tmp_path),
    }
    runner = GitHub(tmp_path / "run", {}) if (service / ".github").exists() else GitLab(tmp_path / "run")
    return runner.run(service, job, environ)


@pytest.mark.with_all
@ON["github"]
def test_lint_passes_a_new_service_and_no_fault(service: Path, tmp_path: Path, worker_id: str) -> None:
    done = run(service, "lint", tmp_path, worker_id)
    assert done.returncode == 0, done.stdout + done.stderr
    with (service / "wsgi.py").open("a") as file:
        file.write("import os\n")
    assert run(service, "lint", tmp_path, worker_id).returncode != 0


def test_lint_passes_no_conflict_that_somebody_committed(service: Path, tmp_path: Path, worker_id: str) -> None:
    with (service / "README.md").open("a") as file:
        file.write("<<<<<<< yours\n=======\n>>>>>>> template/v1.0.0\n")
    git(service, "commit", "--quiet", "--all", "--message", "Update")
    done = run(service, "lint", tmp_path, worker_id)
    assert done.returncode == 1
    assert "README.md" in done.stdout


@ON["gitlab"]
def test_migrations_that_hurt_are_not_passed(service: Path, tmp_path: Path, worker_id: str) -> None:
    done = run(service, "migrations", tmp_path, worker_id)
    assert done.returncode == 0, done.stdout + done.stderr
    (service / "migrations" / "versions" / "0003_index.py").write_text(HURTS)
    done = run(service, "migrations", tmp_path, worker_id)
    assert done.returncode == 1
    assert "require-concurrent-index-creation" in done.stdout


def test_the_jobs_have_the_python_and_the_uv_of_the_image(render: Render, tmp_path: Path) -> None:
    """GitLab's are the very image; GitHub's are read from the Dockerfile."""
    dockerfile = (render() / "Dockerfile").read_text()
    python, uv = re.findall(r"^FROM (python:\S+)|uv:([0-9.]+)@", dockerfile, re.M)
    gitlab = yaml.safe_load((render(ci="gitlab") / ".gitlab-ci.yml").read_text())
    assert gitlab["default"]["image"] == python[0]
    action = yaml.safe_load((render() / ".github" / "actions" / "python" / "action.yml").read_text())
    script = tmp_path / "script"
    script.write_text(action["runs"]["steps"][0]["run"])
    environ = {**ENVIRON, "GITHUB_OUTPUT": str(tmp_path / "output")}
    subprocess.run(["bash", "-e", str(script)], cwd=render(), env=environ, check=True)
    found = re.search(r"python:([0-9.]+)-", python[0])
    assert found is not None
    assert (tmp_path / "output").read_text() == f"python={found[1]}\nuv={uv[1]}\n"


def test_an_action_has_one_version_wherever_it_is_used() -> None:
    """And says it: a commit, and beside it the version that a person reads."""
    paths = [*(SERVICE / ".github").rglob("*.yml"), *(ROOT / ".github").rglob("*.yml")]
    used = [use for path in paths for use in re.findall(r"uses: ([a-z].+)", path.read_text())]
    pins = {use.partition("@")[0]: use for use in used}
    assert used
    assert {*used} == {*pins.values()}
    assert [use for use in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []


@pytest.mark.parametrize(("registry", "host"), [("ghcr.io/acme", "ghcr.io"), ("localhost", "localhost")])
@pytest.mark.parametrize(("ref", "version"), [("refs/tags/v1.2.3", "1.2.3"), ("refs/heads/main", "f00d")])
def test_an_image_is_named_by_the_answers_and_the_tag(
    render: Render, tmp_path: Path, registry: str, host: str, ref: str, version: str
) -> None:
    service = render(container_registry=registry)
    steps = yaml.safe_load((service / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["image"]["steps"]
    (step,) = (step for step in steps if step.get("id") == "image")
    environ = {**ENVIRON, "GITHUB_REF": ref, "GITHUB_SHA": "f00d", "GITHUB_OUTPUT": str(tmp_path / "output")}
    (tmp_path / "script").write_text(step["run"].replace("git log -1 --format=%ct", "echo 1"))
    subprocess.run(["bash", "-e", str(tmp_path / "script")], cwd=service, env=environ, check=True)
    lines = (tmp_path / "output").read_text().splitlines()
    assert lines == [f"name={registry}/my-service", f"registry={host}", f"version={version}", "time=1"]


DOCKER = """#!/bin/sh
case $1 in login) echo "login $3 $(cat) $5" ;; buildx) [ "$2" = create ] || echo "$2: $*" ;; esac
case $* in *--metadata-file*) echo "{}" >image.json ;; esac
"""


@pytest.mark.parametrize(
    ("registry", "source", "login"),
    [
        ("registry.gitlab.com/acme", "push", "login job the-jobs registry.gitlab.com"),
        ("registry.example.com:5000/acme", "push", "login us ours registry.example.com:5000"),
        ("registry.gitlab.com/acme", "merge_request_event", None),
        ("localhost", "push", None),
    ],
)
def test_an_image_is_pushed_from_no_merge_request_and_each_registry_gets_its_own_password(
    render: Render, tmp_path: Path, registry: str, source: str, login: str | None
) -> None:
    """GitLab's, with a `docker` that says what it was asked for."""
    service = render(ci="gitlab", container_registry=registry)
    (tmp_path / "bin").mkdir()
    for name, script in {"docker": DOCKER, "git": "#!/bin/sh\necho 1\n"}.items():
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    told = {"CI_COMMIT_TAG": "v1.2.3", "CI_COMMIT_SHA": "f00d", "CI_PIPELINE_SOURCE": source, "CI_PROJECT_URL": "u"}
    told |= {"CI_REGISTRY": "registry.gitlab.com", "CI_REGISTRY_USER": "job", "CI_REGISTRY_PASSWORD": "the-jobs"}
    told |= {"REGISTRY_USERNAME": "us", "REGISTRY_PASSWORD": "ours", **gitlab_job(service, "build-image")["variables"]}
    environ = {**ENVIRON, **told, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    (tmp_path / "checkout").mkdir()
    shutil.copy(service / ".gitlab-ci.yml", tmp_path / "checkout")
    done = GitLab(tmp_path).run(tmp_path / "checkout", "build-image", environ)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    (build,) = (line for line in lines if line.startswith("build: "))
    assert "APP_VERSION=1.2.3" in build
    assert [line for line in lines if line.startswith("login")] == ([login] if login else [])
    assert (f" --push --tag {registry}/my-service:1.2.3 " in build) == bool(login)


@pytest.mark.parametrize("job", ["lint", "test", "migrations", "audit", "build-image", "deploy", "template"])
def test_shellcheck_finds_nothing_in_a_script_for_gitlab(render: Render, tmp_path: Path, job: str) -> None:
    """What git expands itself stands in single quotes."""
    head = ["#!/bin/bash", "# shellcheck disable=SC2016", "set -eo pipefail"]
    for platform in CHOICES["platform"]:
        script = "\n".join([*head, *gitlab_job(render(ci="gitlab", platform=platform), job)["script"]])
        (tmp_path / f"{platform}.sh").write_text(script + "\n")
    assert gates.shellcheck(tmp_path) == []


SSH = """#!/bin/sh
for word; do echo "$word"; done
"""


@pytest.mark.parametrize(("service", "job"), [("github", "production"), ("gitlab", "deploy")], indirect=["service"])
def test_a_deploy_asks_the_host_for_the_release_and_knows_the_host_by_its_key(
    service: Path, job: str, tmp_path: Path
) -> None:
    """With an `ssh` that says what it was given."""
    (tmp_path / "bin").mkdir()
    for name, script in {"ssh": SSH, "ssh-agent": "#!/bin/sh\n", "ssh-add": '#!/bin/sh\ncat - "$@" >&2\n'}.items():
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "key").write_text("our key")
    environ = {**ENVIRON, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path)}
    if job == "production":
        values = {
            "vars.DEPLOY_HOST": "app@host",
            "vars.DEPLOY_KNOWN_HOSTS": "host key",
            "secrets.DEPLOY_KEY": "our key",
        }
        done = GitHub(tmp_path, {**values, "inputs.version": "1.2.3 $(id)"}).run(service, job, environ)
        version, known = "1.2.3 $(id)", tmp_path / "known_hosts"
        assert known.read_text() == "host key\n"
    else:
        known = tmp_path / "key"
        own = {"DEPLOY_KEY": str(known), "DEPLOY_KNOWN_HOSTS": str(known), "DEPLOY_HOST": "app@host"}
        done = GitLab(tmp_path).run(
            service, job, {**environ, **own, "CI_COMMIT_TAG": "v1.2.3", "CI_COMMIT_SHA": "f00d"}
        )
        version = "1.2.3"
    assert done.returncode == 0, done.stdout + done.stderr
    options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes"]
    assert done.stdout.splitlines() == [*options, "app@host", version]
    assert "our key" in done.stderr


PYTHON = """#!/bin/sh
echo "$*"
cat "$KUBECONFIG"
"""


@pytest.mark.parametrize(
    ("ci", "version", "asked"),
    [
        ("github", "1.2.3 $(id)", "deploy -- 1.2.3 $(id)"),
        ("github", "rollback", "rollback"),
        ("gitlab", "1.2.3", "deploy 1.2.3"),
    ],
)
def test_a_deploy_to_a_cluster_is_the_command_of_a_person(
    render: Render, tmp_path: Path, ci: str, version: str, asked: str
) -> None:
    """With a `python3` that says what it was given, and a `docker` that says who logs in."""
    service = render(ci=ci, platform="kubernetes", container_registry="registry.example.com/acme")
    (tmp_path / "bin").mkdir()
    for name, script in {"python3": PYTHON, "docker": DOCKER}.items():
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    environ = {**ENVIRON, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    if ci == "github":
        values = {"secrets.DEPLOY_KUBECONFIG": "our cluster", "runner.temp": str(tmp_path), "inputs.version": version}
        done = GitHub(tmp_path, values).run(service, "production", environ)
    else:
        (tmp_path / "kubeconfig").write_text("our cluster\n")
        own = {
            "DEPLOY_KUBECONFIG": str(tmp_path / "kubeconfig"),
            "CI_COMMIT_TAG": f"v{version}",
            "CI_COMMIT_SHA": "f00d",
        }
        own |= {"CI_REGISTRY": "registry.gitlab.com", "REGISTRY_USERNAME": "us", "REGISTRY_PASSWORD": "ours"}
        done = GitLab(tmp_path).run(service, "deploy", {**environ, **own})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == [f"deploy/kubernetes/release.py {asked}", "our cluster"]
    assert (tmp_path / "kubeconfig").stat().st_mode & 0o777 == 0o600


# The host


@pytest.fixture
def host(render: Render, tmp_path: Path) -> Path:
    """A checkout on a host, behind its repository by a tag, and a `make` that says what it was asked for."""
    rendered = render()
    origin = tmp_path / "origin"
    git(tmp_path, "init", "--quiet", str(origin))
    git(origin, f"--work-tree={rendered}", "add", "--all")
    git(origin, "commit", "--quiet", "--message", "One")
    git(tmp_path, "clone", "--quiet", str(origin), "host")
    git(origin, "commit", "--quiet", "--allow-empty", "--message", "Two")
    git(origin, "tag", "v1.2.3")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "make").write_text('#!/bin/sh\necho "make $*"\n')
    (tmp_path / "bin" / "make").chmod(0o755)
    return tmp_path / "host"


def ask(host: Path, asked: str) -> Done:
    """As sshd does with a key whose line names a command."""
    path = f"{host.parent / 'bin'}:{os.environ['PATH']}"
    environ = {**ENVIRON, "PATH": path, "SSH_ORIGINAL_COMMAND": asked}
    command = ["sh", str(host / "deploy" / "compose" / "from-ci.sh")]
    return subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, check=False)


def test_a_release_is_rolled_out_with_the_files_of_its_tag(host: Path) -> None:
    assert ask(host, "1.2.3").stdout == "make deploy VERSION=1.2.3\n"
    assert git(host, "log", "-1", "--format=%s") == "Two"


def test_a_commit_is_rolled_out_by_its_id(host: Path) -> None:
    commit = git(host, "rev-parse", "HEAD")
    assert ask(host, commit).stdout == f"make deploy VERSION={commit}\n"


def test_the_way_back_needs_no_other_files(host: Path) -> None:
    assert ask(host, "rollback").stdout == "make rollback\n"
    assert git(host, "log", "-1", "--format=%s") == "One"


@pytest.mark.parametrize("asked", ["", "-1.2.3", "--help", "1.2.3; id", "$(id)", "1.2.3\nid", "../x", "a b", "v9.9.9"])
def test_what_is_no_release_is_refused(host: Path, asked: str) -> None:
    done = ask(host, asked)
    assert done.returncode != 0
    assert done.stdout == ""
    assert git(host, "log", "-1", "--format=%s") == "One"
