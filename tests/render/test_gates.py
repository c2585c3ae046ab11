"""Linters of the field find nothing in any variant, and find what they are there for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support import gates
from support.answers import ROWS
from support.gates import GATES
from support.git import would_track
from support.template import ROOT, Render

# A gate, a file, what in it is replaced (None: the defect goes to its end), the defect, and what the tool then says.
DEFECTS: list[tuple[str, str, str | None, str, str]] = [
    ("hadolint", "Dockerfile", None, "RUN apt-get update && apt-get install --yes curl\n", "DL3008"),
    ("hadolint", "Dockerfile", None, 'RUN <<"EOF"\nrm -rf "$HOME/"*\nEOF\n', "SC2115"),
    ("hadolint", "Dockerfile", "@sha256:", ":latest@sha256:", "Dockerfile"),
    ("shellcheck", "deploy/nginx/self-signed.sh", None, "rm -rf $DIR\n", "SC2086"),
    ("shellcheck", "deploy/start", None, '#!/bin/sh\nset -eu\necho "$@ and others"\n', "SC2145"),
    ("yamllint", "compose.yaml", None, "volumes:\n  other:\n", "key-duplicates"),
    ("yamllint", "compose.yaml", 'restart: "no"', "restart: no", "truthy"),
    ("compose-lint", "compose.yaml", '"127.0.0.1:${HTTP_PORT', '"${HTTP_PORT', "CL-0005"),
    ("compose-lint", "compose.yaml", "read_only: true", "read_only: false", "CL-0007"),
    ("compose-lint", "compose.yaml", "cap_drop: [ALL]", "cap_drop: [MKNOD]", "CL-0006"),
    ("compose-lint", "compose.yaml", "tls:/etc/nginx/tls", "/var/run/docker.sock:/var/run/docker.sock", "CL-0001"),
    (
        "compose-lint",
        "compose.yaml",
        "POSTGRES_PASSWORD_FILE: /run/secrets/postgres_password",
        "POSTGRES_PASSWORD: a",
        "CL-0020",
    ),
    ("compose-lint", "compose.yaml", "  assets:", "  files:", "compose-lint.yaml"),  # an ignore of nothing any more
    ("actionlint", ".github/workflows/ci.yml", "needs: [lint, test", "needs: [lints, test", "lints"),
    ("actionlint", ".github/workflows/ci.yml", "steps.build.outputs.digest", "steps.built.outputs.digest", "built"),
    ("actionlint", ".github/workflows/template.yml", '"refs/heads/$BRANCH"', "refs/heads/$BRANCH", "SC2086"),
    (
        "zizmor",
        ".github/workflows/deploy-compose.yml",
        '"$DEPLOY_HOST" "$VERSION"',
        '"$DEPLOY_HOST" ${{ inputs.version }}',
        "template-injection",
    ),
    (
        "zizmor",
        ".github/workflows/ci.yml",
        "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
        "@v7",
        "unpinned-uses",
    ),
    ("zizmor", ".github/workflows/ci.yml", "        with:\n          persist-credentials: false\n", "", "artipacked"),
    ("zizmor", ".github/workflows/deploy-compose.yml", "permissions: {}\n", "", "excessive-permissions"),
    (
        "zizmor",
        ".github/actions/python/action.yml",
        "@20cfd1bf945f4377ade1205e4dbc17946fc9a30d # v10.0.1",
        "@v10",
        "unpinned-uses",
    ),
    ("zizmor", ".github/dependabot.yml", "    cooldown: {default-days: 7}\n", "", "dependabot-cooldown"),
    ("check-jsonschema", ".gitlab/deploy-compose.yml", "when: manual", "when: by hand", "by hand"),
    ("check-jsonschema", ".gitlab-ci.yml", "build-image:\n", "image:\n", "$.image"),
    ("check-jsonschema", ".github/dependabot.yml", "interval: weekly", "interval: fortnightly", "fortnightly"),
    (
        "check-jsonschema",
        "renovate.json",
        '"minimumReleaseAge": "7 days"',
        '"minimumReleaseAge": 7',
        "minimumReleaseAge",
    ),
    ("trivy config", "Dockerfile", None, "USER root\n", "DS-0002"),
    ("trivy secret", "deploy/nginx/upstream.conf", None, f"# ghp_{'Ab1Cd2Ef3G' * 4}\n"[:43] + "\n", "github-pat"),
]


@pytest.fixture(scope="session")
def variants(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every service of the covering array, each as a clone has it."""
    folder = tmp_path_factory.mktemp("variants")
    for number, answers in enumerate(ROWS):
        copy(render(**answers), folder / f"row-{number}")
    return folder


def copy(service: Path, to: Path) -> Path:
    for path in would_track(service):
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(service / path, to / path)
    return to


@pytest.mark.parametrize("gate", GATES)
def test_no_variant_has_a_finding(variants: Path, gate: str) -> None:
    assert GATES[gate](variants) == []


@pytest.mark.parametrize("gate", ["actionlint", "zizmor", "yamllint"])
def test_the_workflows_of_this_repository_have_no_finding(tmp_path: Path, gate: str) -> None:
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    assert GATES[gate](tmp_path) == []


@pytest.mark.parametrize(("gate", "file", "right", "wrong", "finding"), DEFECTS)
def test_a_planted_defect_is_found(
    render: Render, tmp_path: Path, gate: str, file: str, right: str | None, wrong: str, finding: str
) -> None:
    gitlab = file.startswith(".gitlab") or file == "renovate.json"
    service = copy(render(ci="gitlab") if gitlab else render(), tmp_path / "service")
    path = service / file
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    assert right is None or right in text
    path.write_text(text + wrong if right is None else text.replace(right, wrong), encoding="utf-8")
    assert [line for line in GATES[gate](service) if finding in line]


def test_every_gate_has_a_defect_that_it_finds() -> None:
    assert {gate for gate, *_ in DEFECTS} == {*GATES}


@pytest.mark.parametrize("gate", GATES)
def test_a_tool_that_is_missing_or_broken_is_no_clean_bill(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str
) -> None:
    service = copy(render(), tmp_path / "service")
    monkeypatch.setattr(gates, "TOOLS", tmp_path)
    monkeypatch.setitem(gates.ENVIRON, "PATH", "/usr/bin:/bin")
    with pytest.raises(FileNotFoundError):
        GATES[gate](service)
    tool = tmp_path / gate.split()[0]
    tool.write_text("#!/bin/sh\nkill -9 $$\n")
    tool.chmod(0o755)
    assert GATES[gate](service) == [f"{tool.name} ended with -9"]
