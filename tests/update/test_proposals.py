"""The job that proposes the template's news, run on a checkout of a service with a remote repository.

GitHub is a `gh` that writes down what it was asked; GitLab a hook that writes down the options of a push.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.ci import Done, GitHub, GitLab
from support.edits import append, change
from support.git import git
from support.releases import Edit, Live, Template, updating_environ, without_env

GH = """#!/bin/sh
set -eu
echo "$@" >>"$ASKED"
case "$1 $2" in
"auth setup-git") ;;
"pr list") if grep -q "^pr create" "$ASKED"; then echo https://example.com/1; fi ;;
"pr create") cat >"$ASKED.body" ;;
*) exit 9 ;;
esac
"""
HOOK = """#!/bin/sh
set -eu
for number in $(seq 0 $((GIT_PUSH_OPTION_COUNT - 1))); do
    eval "echo \\"\\$GIT_PUSH_OPTION_$number\\"" >>"$ASKED"
done
"""
NEWS = append("docs/runbook.md", "\nNews.\n")
HERE = change("docs/runbook.md", "# Runbook\n", "# The runbook of orders\n")
THERE = change("docs/runbook.md", "# Runbook\n", "# What to do\n")


@dataclass
class Repository:
    """A service in a repository of a team's, and the CI of that."""

    home: Path
    template: Template
    ci: str
    token: str = ""

    def __post_init__(self) -> None:
        self.remote = self.home / "remote.git"
        self.asked = self.home / "asked"
        self.asked.touch()
        self.checkouts = 0

    def make(self, *edits: Edit) -> Repository:
        service = self.template.service(self.home / "service", self.template.releases[-1], *edits, ci=self.ci)
        git(self.home, "clone", "--quiet", "--bare", str(service.folder), str(self.remote))
        git(self.remote, "config", "receive.advertisePushOptions", "true")
        self.write(self.remote / "hooks" / "post-receive", HOOK)
        (self.home / "bin").mkdir()
        self.write(self.home / "bin" / "gh", GH)
        return self

    def write(self, path: Path, script: str) -> None:
        path.write_text(script)
        path.chmod(0o755)

    def check_out(self, branch: str) -> Path:
        """As CI does: one commit deep."""
        self.checkouts += 1
        folder = self.home / f"checkout-{self.checkouts}"
        git(self.home, "clone", "--quiet", "--depth=1", f"--branch={branch}", f"file://{self.remote}", str(folder))
        Live(folder, self.template)
        return folder

    def run(self, job: str, branch: str = "master") -> Done:
        work = self.home / f"run-{self.checkouts}"
        work.mkdir()
        environ = updating_environ(
            GIT_CONFIG_GLOBAL=str(work / "gitconfig"), RUNNER_TEMP=str(work), ASKED=str(self.asked)
        )
        environ["PATH"] = f"{self.home / 'bin'}:{environ['PATH']}"
        if self.ci == "github":
            values = {
                "secrets.TEMPLATE_READ_TOKEN": "",
                "secrets.TEMPLATE_UPDATE_TOKEN || github.token": self.token or "github's",
                "secrets.TEMPLATE_UPDATE_TOKEN != ''": "true" if self.token else "false",
                "steps.news.outputs.branch": "",
            }
            return GitHub(work, values).run(self.check_out(branch), job, environ)
        environ |= {
            "GITLAB_USER_NAME": "Somebody",
            "GITLAB_USER_EMAIL": "somebody@example.com",
            "CI_SERVER_URL": "https://gitlab.example.com",
            "CI_PROJECT_URL": str(self.remote.with_suffix("")),
            "CI_DEFAULT_BRANCH": "master",
            "CI_JOB_TOKEN": "the job's",
            "TEMPLATE_UPDATE_TOKEN": "ours",
        }
        return GitLab(work).run(self.check_out(branch), job, environ)

    def update(self) -> Done:
        return self.run({"github": "update", "gitlab": "template"}[self.ci])

    def branches(self) -> set[str]:
        return set(git(self.remote, "for-each-ref", "--format=%(refname:short)", "refs/heads").split())

    def proposed(self) -> str:
        """The branch with the news, and that a request to merge it was made, once."""
        (branch,) = self.branches() - {"master"}
        asked = self.asked.read_text().splitlines()
        if self.ci == "github":
            title = git(self.remote, "log", "-1", "--format=%s", branch)
            created = [line for line in asked if line.startswith("pr create")]
            assert created == [f"pr create --head {branch} --title {title} --body-file -"]
            body = Path(f"{self.asked}.body").read_text()
            assert body.strip() == git(self.remote, "log", "-1", "--format=%b", branch)
        else:
            options = ["merge_request.create", "merge_request.target=master", "merge_request.remove_source_branch"]
            assert asked == options, "GitLab takes title and description from the commit"
        return branch

    def message(self, branch: str) -> str:
        return git(self.remote, "log", "-1", "--format=%B", branch)


ONE_IN_CI = pytest.mark.parametrize(
    "repository", ["github", pytest.param("gitlab", marks=pytest.mark.with_all)], indirect=True
)


@pytest.fixture
def repository(request: pytest.FixtureRequest, template: Template, tmp_path: Path) -> Repository:
    return Repository(tmp_path, template.fork(tmp_path / "fork"), request.param)


@ONE_IN_CI
def test_news_is_proposed_as_a_branch_with_the_merge(repository: Repository, tmp_path: Path) -> None:
    template = repository.make().template.release(NEWS)
    before = git(repository.remote, "rev-parse", "master")
    done = repository.update()
    assert done.returncode == 0, done.stdout + done.stderr
    branch = repository.proposed()
    assert re.fullmatch(rf"template/{re.escape(template.releases[-1])}-[0-9a-f]{{7}}", branch)
    assert repository.message(branch).startswith(f"Template {template.releases[-2]} -> {template.releases[-1]} (v")
    assert git(repository.remote, "rev-parse", "master") == git(repository.remote, "rev-parse", f"{branch}^") == before
    merged = Live(repository.check_out(branch), template).files()
    assert merged == without_env(Live(template.render(template.releases[-1], ci=repository.ci), template).files())

    if repository.ci == "github":  # closed, and its branch deleted; on GitLab the branch has to stay
        git(repository.remote, "branch", "--quiet", "-D", branch)
    again = repository.update()
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{branch} is there already" in again.stdout
    assert repository.branches() == ({"master"} if repository.ci == "github" else {"master", branch})
    assert repository.asked.read_text().count("create") == 1, "nobody is asked a second time"


@ONE_IN_CI
def test_nothing_is_done_where_nothing_is_new(repository: Repository) -> None:
    done = repository.make().update()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing is new" in done.stderr
    assert repository.branches() == {"master"}
    assert repository.asked.read_text() == ""


@ONE_IN_CI
def test_a_conflict_is_proposed_with_its_marks_and_named_and_lint_does_not_pass_it(repository: Repository) -> None:
    repository.make(HERE).template.release(THERE)
    done = repository.update()
    assert done.returncode == 0, done.stdout + done.stderr
    branch = repository.proposed()
    subject, *lines = repository.message(branch).splitlines()
    assert subject.endswith(", 1 in conflict")
    assert "- docs/runbook.md: changed on both sides" in lines
    marked = git(repository.remote, "show", f"{branch}:docs/runbook.md")
    assert "<<<<<<< yours\n# The runbook of orders\n=======\n# What to do\n>>>>>>> template/v" in marked
    linted = repository.run("lint", branch)
    assert linted.returncode == 1, linted.stdout + linted.stderr
    assert "docs/runbook.md:1:<<<<<<< yours" in linted.stdout


@pytest.mark.with_all
def test_what_one_side_deleted_is_named_as_that(template: Template, tmp_path: Path) -> None:
    repository = Repository(tmp_path, template.fork(tmp_path / "fork"), "github")
    repository.make(lambda folder: (folder / "docs" / "runbook.md").unlink()).template.release(NEWS)
    assert repository.update().returncode == 0
    message = repository.message(repository.proposed())
    assert "- docs/runbook.md: deleted here, changed by the template: git rm it again, or keep it" in message


@pytest.mark.with_all
def test_a_lock_file_that_both_sides_changed_is_locked_again(template: Template, tmp_path: Path) -> None:
    """By the service's own dependencies and the template's, so that nobody is asked."""
    repository = Repository(tmp_path, template.fork(tmp_path / "fork"), "github")
    repository.make(append("uv.lock", "# ours\n"))
    repository.template.release(append("uv.lock", "# theirs\n"), NEWS)
    done = repository.update()
    assert done.returncode == 0, done.stdout + done.stderr
    branch = repository.proposed()
    assert "conflict" not in repository.message(branch)
    assert git(repository.remote, "show", f"{branch}:uv.lock").startswith("version = ")


@pytest.mark.with_all
def test_a_lock_file_waits_for_what_it_is_made_of(template: Template, tmp_path: Path) -> None:
    repository = Repository(tmp_path, template.fork(tmp_path / "fork"), "github")
    line = '"packaging>=25"'
    repository.make(append("uv.lock", "# ours\n"), change("pyproject.toml", line, '"packaging>=25.1"'))
    repository.template.release(append("uv.lock", "# theirs\n"), change("pyproject.toml", line, '"packaging>=25.2"'))
    assert repository.update().returncode == 0
    message = repository.message(repository.proposed())
    assert "- uv.lock: the template's is there: solve pyproject.toml, then make lock" in message
    assert "- pyproject.toml: changed on both sides" in message


@ONE_IN_CI
def test_a_refused_update_fails_the_job(repository: Repository) -> None:
    repository.make(change(".template.json", '"cpus": "1"', '"cpus": "2"')).template.release(NEWS)
    done = repository.update()
    assert done.returncode == 2, done.stdout + done.stderr
    assert ".template.json was edited" in done.stderr
    assert repository.branches() == {"master"}
    assert repository.asked.read_text() == ""


@pytest.mark.with_all
def test_news_of_workflows_needs_a_token_that_may_change_them(template: Template, tmp_path: Path) -> None:
    """GitHub refuses such a push of its own token; the job says what is missing."""
    repository = Repository(tmp_path, template.fork(tmp_path / "fork"), "github")
    repository.make().template.release(append(".github/workflows/ci.yml", "# News.\n"))
    done = repository.update()
    assert done.returncode == 1
    assert "::error::The news changes workflows, which needs the secret TEMPLATE_UPDATE_TOKEN" in done.stdout
    assert repository.branches() == {"master"}
    repository.token = "ours"
    assert repository.update().returncode == 0
    repository.proposed()


@pytest.mark.with_all
def test_a_pull_request_that_could_not_be_made_is_made_the_next_time(template: Template, tmp_path: Path) -> None:
    repository = Repository(tmp_path, template.fork(tmp_path / "fork"), "github")
    repository.make().template.release(NEWS)
    repository.write(tmp_path / "bin" / "gh", GH.replace('"pr create") cat >"$ASKED.body" ;;', ""))
    assert repository.update().returncode == 9
    repository.asked.write_text("")
    repository.write(tmp_path / "bin" / "gh", GH)
    assert repository.update().returncode == 0
    repository.proposed()
