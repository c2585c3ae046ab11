"""`deploy/kubernetes/release.py` with a stand-in for the cluster, which plays what it is told and writes down what it was
asked: in which order, and what is said when something fails. tests/kubernetes has the same on a cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from support.kubectl import find_kubectl
from support.template import QUESTIONS, Render

DIGEST = f"sha256:{'a1' * 32}"
OTHER = f"sha256:{'b2' * 32}"
# What a cluster would do: it keeps revisions of the Deployment, and its Jobs and rollouts end as `fails` says.
CLUSTER = """
import json, pathlib, re, subprocess, sys
home = pathlib.Path(__file__).parent
state = json.loads((home / "state").read_text())
words = [word for word in sys.argv[1:] if not word.startswith(("--namespace=", "--field-manager="))]
text = "" if sys.stdin is None or "--filename=-" not in words else sys.stdin.read()
kinds = [f"{kind}/{name}" for kind, name in re.findall(r"^kind: (.+)$(?:.*\\n)*?^  name: (.+)$", text, re.M)]
said, code = "", 0
def part(number):
    version, image = state["revisions"][number - 1]
    template = {"metadata": {"labels": {"app.kubernetes.io/version": version, "pod-template-hash": "x"}}}
    template["spec"] = {"containers": [{"name": "app", "image": image}]}
    notes = {"deployment.kubernetes.io/revision": str(number)}
    return {"metadata": {"name": f"set-{number}", "annotations": notes}, "spec": {"replicas": 1, "template": template}}
if words[0] == "kustomize":
    sys.exit(subprocess.run([state["kubectl"], *words]).returncode)
elif words[:2] == ["config", "current-context"]:
    said = "test"
elif words[0] == "apply" and text.startswith("{"):
    template = json.loads(text)["spec"]["template"]
    assert "replicas" not in json.loads(text)["spec"] and "pod-template-hash" not in template["metadata"]["labels"]
    kinds = ["Deployment/my-service as it was"]
    state["revisions"].append([template["metadata"]["labels"]["app.kubernetes.io/version"], template["spec"]["containers"][0]["image"]])
elif words[0] == "apply":
    if "Deployment/my-service" in kinds:
        (image,) = set(re.findall(r"image: (\\S*/my-service@\\S+)", text))
        version = re.findall(r"app.kubernetes.io/version: (\\S+)", text)[0]
        state["revisions"].append([version, image])
elif words[0] == "get" and words[1] == "job":
    condition = {"type": "Failed" if words[2] in state["fails"] else "Complete", "status": "True"}
    status = {"active": 1} if state["busy"] else {"conditions": [condition]}
    said = json.dumps({"status": status}) if words[2] in state["made"] or state["busy"] else ""
elif words[0] == "get" and words[1] == "deployment" and state["revisions"]:
    said = json.dumps(part(len(state["revisions"])))
elif words[0] == "get" and words[1] == "secret":
    said = "{}" if state["secret"] == "" else json.dumps({"kind": "Secret"})
elif words[0] == "get" and words[1] == "replicasets":
    # A template that comes back takes its ReplicaSet to a new number.
    numbers = {image: number for number, (version, image) in enumerate(state["revisions"], 1)}
    said = json.dumps({"items": [part(number) for number in numbers.values()]})
elif words[:2] == ["rollout", "status"]:
    current = f"{words[2]} {state['revisions'][-1][0]}" if state["revisions"] else words[2]
    if current in state["fails"]:
        code = 1
state["made"] += [kind.removeprefix("Job/") for kind in kinds if kind.startswith("Job/")]
(home / "state").write_text(json.dumps(state))
with (home / "log").open("a") as log:
    if words[0] not in ("get", "config"):
        print(*[word for word in words if not word.startswith("--")], *kinds, file=log)
print(said, end="")
sys.exit(code)
"""


@dataclass
class Stage:
    """A service, and a kubectl that plays a cluster."""

    service: Path
    home: Path

    def set(self, **state: object) -> None:
        path = self.home / "state"
        path.write_text(json.dumps({**json.loads(path.read_text()), **state}))

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Ctrl-C reaches it also where whoever runs the tests does without.
        command = ["env", "--default-signal=INT", sys.executable, "-B", "deploy/kubernetes/release.py", *arguments]
        environ = {"PATH": f"{self.home}:{os.defpath}", "HOME": str(self.home)}
        return subprocess.run(command, cwd=self.service, env=environ, capture_output=True, text=True, check=False)

    def steps(self) -> list[str]:
        """What was asked since the last time, in words; what goes before all is one."""
        path = self.home / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [re.sub(r"^apply Namespace/.*", "apply what goes before", line) for line in lines]


@pytest.fixture
def stage(render: Render, tmp_path: Path) -> Stage:
    home = tmp_path / "bin"
    home.mkdir()
    (home / "kubectl").write_text(f"#!{sys.executable} -ISB\n{CLUSTER}")  # as quick as can be
    (home / "docker").write_text(f'#!/bin/sh\n[ "$4" = registry/my-service:1.2.3 ] && echo {DIGEST}\n')
    for program in ("kubectl", "docker"):
        (home / program).chmod(0o755)
    state = {"kubectl": find_kubectl(), "revisions": [], "made": [], "fails": [], "busy": False, "secret": "is there"}
    (home / "state").write_text(json.dumps(state))
    service = tmp_path / "service"
    shutil.copytree(render(platform="kubernetes", container_registry="registry"), service)
    return Stage(service, home)


BEFORE = ["apply what goes before", "rollout status deployment/my-service-pgbouncer"]
MIGRATION = ["delete job my-service-migrate", "apply Job/my-service-migrate"]
ROLLOUT = ["apply Deployment/my-service", "rollout status deployment/my-service"]
RUN = ["delete job my-service-run", "apply Job/my-service-run"]
SMOKE = ["delete job my-service-smoke", "apply Job/my-service-smoke"]


def kustomized(steps: list[str]) -> list[str]:
    return [step for step in steps if not step.startswith("kustomize")]


def test_a_release_migrates_then_rolls_then_asks_whether_it_serves(stage: Stage) -> None:
    done = stage("deploy", "1.2.3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"registry/my-service@{DIGEST} to my-service-production, in test"
    assert done.stdout.splitlines()[-1] == "1.2.3 serves"
    assert kustomized(stage.steps()) == [*BEFORE, *MIGRATION, *ROLLOUT, *SMOKE]
    assert json.loads((stage.home / "state").read_text())["revisions"] == [["1.2.3", f"registry/my-service@{DIGEST}"]]


def test_an_image_by_digest_is_taken_as_it_is(stage: Stage) -> None:
    done = stage("deploy", f"mirror.example.com/my-service@{OTHER}", "--overlay=staging")
    assert done.stdout.splitlines()[0] == f"mirror.example.com/my-service@{OTHER} to my-service-staging, in test"
    assert done.stdout.splitlines()[-1] == f"{'b2' * 6} serves"


def test_a_migration_that_fails_ends_it_before_a_pod_is_touched(stage: Stage) -> None:
    stage.set(fails=["my-service-migrate"])
    done = stage("deploy", "1.2.3")
    assert done.returncode == 1
    assert done.stderr == "1.2.3 is not released: job my-service-migrate failed, as it says above\n"
    assert kustomized(stage.steps()) == [*BEFORE, *MIGRATION, "logs job/my-service-migrate"]


@pytest.mark.parametrize("fails", ["deployment/my-service 1.2.3", "my-service-smoke"])
def test_a_release_that_does_not_serve_is_undone_and_forgotten(stage: Stage, fails: str) -> None:
    stage("deploy", f"registry/my-service@{OTHER}")
    stage.steps()
    stage.set(fails=[fails])
    done = stage("deploy", "1.2.3")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("1.2.3 is not released: ")
    assert done.stderr.endswith("; what ran before is back\n")
    after = ["apply Deployment/my-service as it was", "rollout status deployment/my-service", "delete replicaset set-2"]
    steps = kustomized(stage.steps())
    assert steps[: len(BEFORE + MIGRATION + ROLLOUT)] == [*BEFORE, *MIGRATION, *ROLLOUT]
    assert steps[-3:] == after
    assert json.loads((stage.home / "state").read_text())["revisions"][-1][1].endswith(OTHER)


def test_the_first_release_has_nothing_to_go_back_to(stage: Stage) -> None:
    stage.set(fails=["deployment/my-service 1.2.3"])
    done = stage("deploy", "1.2.3")
    assert (done.returncode, done.stderr.endswith("; nothing ran before\n")) == (1, True)


def test_the_way_back_and_forth(stage: Stage) -> None:
    stage("deploy", f"registry/my-service@{OTHER}")
    refused = stage("rollback")
    assert refused.stderr == "no release came before the one that runs: deploy one, make deploy VERSION=1.2.3\n"
    stage("deploy", "1.2.3")
    stage.steps()
    done = stage("rollback")
    assert done.stdout.splitlines()[-1] == f"{'b2' * 6} serves"
    expected = ["apply Deployment/my-service as it was", "rollout status deployment/my-service", *SMOKE]
    assert kustomized(stage.steps()) == expected
    assert kustomized(stage("rollback", "--dry-run").stdout.splitlines()) == ["back to 1.2.3 in my-service-production"]
    assert stage("rollback").stdout.splitlines()[-1] == "1.2.3 serves"
    assert stage("status").stdout.startswith(f"1.2.3 (registry/my-service@{DIGEST}) in my-service-production\n")


def test_a_command_runs_in_a_job_of_what_serves(stage: Stage) -> None:
    stage("deploy", "1.2.3")
    stage.steps()
    told = stage("run", "--dry-run", "--", "flask", "backfill", "--pause", "1")
    (job,) = yaml.safe_load_all(told.stdout)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry/my-service@{DIGEST}"
    assert container["command"] == ["flask", "backfill", "--pause", "1"]
    assert "initContainers" not in job["spec"]["template"]["spec"]
    assert kustomized(stage.steps()) == []
    done = stage("run", "--", "flask", "preflight")
    assert done.returncode == 0, done.stderr
    assert kustomized(stage.steps()) == [*RUN, "logs job/my-service-run"]
    stage.set(fails=["my-service-run"])
    done = stage("run", "--", "flask", "preflight")
    assert (done.returncode, done.stderr) == (1, "job my-service-run failed, as it says above\n")


def test_options_may_stand_anywhere(stage: Stage) -> None:
    assert stage("deploy", "--overlay=staging", "1.2.3").stdout.endswith("1.2.3 serves\n")


def test_a_dry_run_changes_nothing(stage: Stage) -> None:
    done = stage("deploy", "1.2.3", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [line[:2] for line in done.stdout.splitlines()[1:]] == ["1.", "2.", "3.", "4."]
    assert [step.split()[0] for step in kustomized(stage.steps())] == ["diff"]


WRONG: list[tuple[dict[str, object], list[str], str]] = [
    ({}, ["deploy"], "usage: release.py deploy VERSION"),
    ({}, ["rollback", "1.2.3"], "usage: release.py deploy VERSION"),
    ({}, ["run"], "usage: release.py deploy VERSION"),
    ({}, ["status", "--", "flask"], "usage: release.py deploy VERSION"),
    ({}, ["run", "--", "flask"], "nothing was released to my-service-production yet: make deploy VERSION=1.2.3"),
    ({}, ["rollback"], "nothing was released to my-service-production yet: make deploy VERSION=1.2.3"),
    ({}, ["status"], "nothing was released to my-service-production yet: make deploy VERSION=1.2.3"),
    ({}, ["deploy", "1.2.3", "--overlay=test"], "there is no overlay test; there are: production, staging"),
    ({}, ["deploy", "1.2.4"], "Without Docker, name it: release.py deploy registry/my-service@sha256:..."),
    ({}, ["deploy", "a b"], "a b is neither a version like 1.2.3 nor an image by digest: NAME@sha256:..."),
    ({"busy": True}, ["deploy", "1.2.3"], "job my-service-migrate is under way, by somebody else?"),
    (
        {"fails": ["deployment/my-service-pgbouncer"]},
        ["deploy", "1.2.3"],
        "rollout status deployment/my-service-pgbouncer",
    ),
]


@pytest.mark.parametrize(("state", "arguments", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_what_cannot_be_done_is_one_line(
    stage: Stage, state: dict[str, object], arguments: list[str], says: str
) -> None:
    stage.set(**state)
    done = stage(*arguments)
    assert done.returncode in (1, 2)
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "apply Deployment/my-service" not in stage.steps()


def test_an_overlay_that_it_cannot_read_is_one_line(stage: Stage) -> None:
    path = stage.service / "deploy/kubernetes/overlays/staging/kustomization.yaml"
    path.write_text(path.read_text() + "images: [{name: registry/my-service, newTag: latest}]\n")
    done = stage("status", "--overlay=staging")
    assert done.stderr == "overlay staging has no namespace, or no image my-service:by-release\n"


def test_ctrl_c_is_one_line_that_says_what_goes_on(stage: Stage) -> None:
    (stage.home / "kubectl").write_text("#!/bin/sh\nkill -INT $PPID\n")
    done = stage("status")
    assert (done.returncode, done.stderr) == (1, "interrupted; what was begun goes on in the cluster: make status\n")


def test_without_kubectl_it_says_so(stage: Stage) -> None:
    (stage.home / "kubectl").unlink()
    done = subprocess.run(
        [sys.executable, "-B", "deploy/kubernetes/release.py", "status"],
        cwd=stage.service,
        env={"PATH": str(stage.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "kubectl is not installed\n")


@pytest.mark.parametrize("platform", QUESTIONS["platform"])
@pytest.mark.parametrize("target", ["deploy", "rollback", "status"])
def test_make_has_the_same_commands_on_every_platform(render: Render, platform: str, target: str) -> None:
    command = ["make", "--no-print-directory", "--dry-run", target, "VERSION=1.2.3", "ARGS=--patience 120"]
    done = subprocess.run(command, cwd=render(platform=platform), capture_output=True, text=True, check=True)
    version = "1.2.3 " if target == "deploy" else ""
    assert done.stdout.endswith(f" deploy/{platform}/release.py {target} {version}--patience 120\n")
