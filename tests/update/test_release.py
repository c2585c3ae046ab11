"""`make release` does all of a release; and the tests of updates know every release."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.edits import change, write
from support.git import ENVIRON, git
from support.releases import HISTORY, RELEASES, Template, fetch_bundles
from support.template import ROOT


def test_every_release_has_a_bundle_that_leads_to_its_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert sorted(path.stem for path in HISTORY.iterdir()) == sorted(RELEASES)
    for version, commit in fetch_bundles(tmp_path).items():
        assert git(tmp_path, "rev-parse", f"{commit}^{{commit}}") == commit
        context = json.loads(git(tmp_path, "show", f"{commit}:cookiecutter.json"))
        assert context["__version"] == version


def bundled(folder: Path, version: str) -> str:
    """The commit of a release in a clone's bundles, which has all of the release but bundles."""
    releases = fetch_bundles(folder, folder)
    assert version in releases, "python scripts/release.py --remember VERSION"
    differing = git(folder, "diff", "--name-only", f"v{version}", releases[version]).split()
    assert [name for name in differing if not name.startswith("tests/update/history/")] == []
    return releases[version]


def test_every_tag_of_this_clone_is_a_release_that_updates_are_tested_from(tmp_path: Path) -> None:
    """A clone may have none, and then there is nothing to compare."""
    git(tmp_path, "clone", "--quiet", "--shared", str(ROOT), "clone")
    for tag in git(ROOT, "tag", "--list", "v*").split():
        bundled(tmp_path / "clone", tag[1:])


@pytest.fixture
def clone(template: Template, tmp_path: Path) -> Path:
    folder = template.fork(tmp_path / "clone").folder
    for tag in set(git(folder, "tag").split()) - {f"v{version}" for version in RELEASES}:
        git(folder, "tag", "--delete", tag)
    changelog = (folder / "CHANGELOG.md").read_text()
    first = re.search(r"^## \d", changelog, re.M)
    assert first
    (folder / "CHANGELOG.md").write_text(changelog[: changelog.index("## ")] + changelog[first.start() :])
    git(folder, "commit", "--quiet", "--all", "--allow-empty", "--message", "Nothing is unreleased")
    return folder


def release(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/release.py", *arguments]
    return subprocess.run(command, cwd=clone, env=ENVIRON, capture_output=True, text=True, check=False)


def test_one_command_makes_a_release(clone: Path, tmp_path: Path) -> None:
    changelog = (clone / "CHANGELOG.md").read_text()
    first = changelog.index("## ")
    (clone / "CHANGELOG.md").write_text(changelog[:first] + "## Unreleased\n\nNews.\n\n" + changelog[first:])
    git(clone, "commit", "--quiet", "--all", "--message", "News")

    done = release(clone, "7.8.9")

    assert done.returncode == 0, done.stdout + done.stderr
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "log", "--format=%s", "-2") == "Updates are tested from 7.8.9 on\nRelease 7.8.9"
    commit = git(clone, "rev-parse", "HEAD~")
    assert git(clone, "rev-parse", "v7.8.9^{commit}") == commit
    for name in ("pyproject.toml", "cookiecutter.json", "uv.lock"):
        assert git(clone, "show", f"v7.8.9:{name}").count("7.8.9") == 1, name
    assert "\n## 7.8.9 (20" in git(clone, "show", "v7.8.9:CHANGELOG.md")
    bare = tmp_path / "bare"  # what the tests of updates will have in a clone of one commit
    git(tmp_path, "init", "--quiet", "--bare", "bare")
    releases = fetch_bundles(bare, clone)
    assert releases == {**RELEASES, "7.8.9": bundled(clone, "7.8.9")}
    assert git(bare, "ls-tree", releases["7.8.9"], "tests/update/history") == ""
    assert '"7.8.9"' in git(bare, "show", f"{releases['7.8.9']}:cookiecutter.json")


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("0.5", "0.5 is no version. Name one: make release VERSION="),
        ("0.3.0", "v0.3.0 is released already. The next one: make release VERSION=0.4.0"),
        ("0.2.9", "0.2.9 is older than v0.3.0. Choose a newer one"),
        ("99.0.0", "CHANGELOG.md does not begin with what 99.0.0 brings. Write it under: ## Unreleased"),
    ],
)
def test_a_release_that_cannot_be_is_refused(clone: Path, version: str, says: str) -> None:
    newest = max(RELEASES, key=lambda name: [int(part) for part in name.split(".")])
    if newest != "0.3.0":
        says = says.replace("older than v0.3.0", f"older than v{newest}")
    before = git(clone, "rev-parse", "HEAD")
    done = release(clone, version)
    assert done.returncode == 1
    assert done.stderr.startswith(says), done.stderr
    assert git(clone, "rev-parse", "HEAD") == before
    assert git(clone, "status", "--porcelain") == ""


def test_changes_that_are_not_committed_are_refused(clone: Path) -> None:
    write("README.md", "Changed.\n")(clone)
    assert release(clone, "99.0.0").stderr == "The work tree has changes. Commit them first: git commit -a\n"


def test_a_tag_that_was_made_by_hand_can_be_remembered(clone: Path) -> None:
    change("cookiecutter.json", '"cpus": "1"', '"cpus": "2"')(clone)
    git(clone, "commit", "--quiet", "--all", "--message", "By hand")
    git(clone, "tag", "v98.0.0")
    assert release(clone, "--remember", "98.0.0").returncode == 0
    assert '"cpus": "2"' in git(clone, "show", f"{bundled(clone, '98.0.0')}:cookiecutter.json")


def test_make_release_is_that_command(clone: Path) -> None:
    shown = subprocess.run(
        ["make", "--dry-run", "release", "VERSION=1.2.3"],
        cwd=clone,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "scripts/release.py 1.2.3" in shown.stdout
