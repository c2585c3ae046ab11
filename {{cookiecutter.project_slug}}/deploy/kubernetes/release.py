"""Roll a release out in a cluster, go back to the one before, say what runs, or run a command beside it:
`release.py deploy 1.2.3`, `rollback`, `status`, `run -- flask preflight`.

The cluster is the one that kubectl speaks to. What a release needs goes first, then its migration; only when that has
ended well do pods follow, one after the other, and if they do not become ready the former ones come back. Standard
library only, beside kubectl; docs/kubernetes.md has the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SLUG: str = json.loads((HERE.parents[1] / "app" / "service.json").read_text(encoding="utf-8"))["slug"]
VERSION = "app.kubernetes.io/version"  # a label of the pods
REVISION = "deployment.kubernetes.io/revision"  # by which Kubernetes counts what a Deployment was
MANAGER = "--field-manager=release.py"
DIGEST = re.compile(r"(?P<name>[^@]+)@(?P<digest>sha256:[0-9a-f]{64})")
TAG = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")  # of an image, and the value of a label


class Failure(Exception):
    """Why a release was not made, in one line."""


def run(*command: str, text: str | None = None, show: bool = False) -> str:
    """What a command prints, given `text`; it may print for itself instead.

    Raises:
        Failure: it ended with something other than 0.
    """
    pipe = None if show else subprocess.PIPE
    try:
        done = subprocess.run(command, input=text, stdout=pipe, stderr=pipe, text=True, check=False)
    except FileNotFoundError:
        raise Failure(f"{command[0]} is not installed") from None
    if done.returncode:
        said = (done.stderr or "").strip().rpartition("\n")[2]
        raise Failure(f"{' '.join(command)} ended with {done.returncode}" + (f": {said}" if said else ""))
    return (done.stdout or "").strip()


def resolve(version: str, image: str) -> str:
    """The image by its digest: a tag may be led to another image, and pods that start later would be of that one."""
    if DIGEST.fullmatch(version):
        return version
    if not TAG.fullmatch(version):
        raise Failure(f"{version} is neither a version like 1.2.3 nor an image by digest: NAME@sha256:...")
    try:
        found = run("docker", "buildx", "imagetools", "inspect", f"{image}:{version}", "--format={{.Manifest.Digest}}")
    except Failure as failure:
        raise Failure(f"{failure}. Without Docker, name it: release.py deploy {image}@sha256:...") from None
    return f"{image}@{found}"


def find(text: str, pattern: str) -> str:
    """What the one group of `pattern` is in `text`, the first time."""
    found = re.search(pattern, text, re.M)
    return found[1] if found else ""


def patch(kind: str, name: str, *operations: dict[str, Any], **options: bool) -> dict[str, Any]:
    """What kustomize shall change of a manifest, as JSON Patch says it."""
    return {"target": {"kind": kind, "name": name}, "patch": json.dumps(operations), "options": options}


class Environment:
    """An overlay and the namespace that it describes."""

    def __init__(self, overlay: str, patience: int, dry_run: bool) -> None:
        self.folder, self.patience, self.dry_run = HERE / "overlays" / overlay, patience, dry_run
        if not self.folder.is_dir():
            known = ", ".join(sorted(path.name for path in (HERE / "overlays").iterdir()))
            raise Failure(f"there is no overlay {overlay}; there are: {known}")
        plain = run("kubectl", "kustomize", str(self.folder))
        self.namespace = find(plain, r"^  namespace: (\S+)$")
        self.image = find(plain, rf"^ +(?:- )?image: (\S+/{SLUG}):by-release$")
        if not (self.namespace and self.image):
            raise Failure(f"overlay {overlay} has no namespace, or no image {SLUG}:by-release")

    def kubectl(self, *command: str, text: str | None = None, show: bool = False) -> str:
        return run("kubectl", f"--namespace={self.namespace}", *command, text=text, show=show)

    def ask(self, kind: str, name: str) -> dict[str, Any]:
        """What the cluster has under a name; empty where there is nothing."""
        found = self.kubectl("get", kind, name, "--ignore-not-found", "--output=json")
        return json.loads(found) if found else {}

    def render(self, image: str, version: str, *patches: dict[str, Any]) -> dict[str, str]:
        """The overlay's manifests with this image in them, and kustomize's patches, by kind and name."""
        if not DIGEST.fullmatch(image):
            raise Failure(f"{image} is no image by digest")
        name, digest = image.split("@")
        # Of the pods of the service, and of these alone: a label more would start others anew with each release.
        path = f"/spec/template/metadata/labels/{VERSION.replace('/', '~1')}"
        add_version = patch("Deployment", SLUG, {"op": "add", "path": path, "value": version})
        with tempfile.TemporaryDirectory() as scratch:
            here = Path(scratch).resolve()
            kustomization = {
                "resources": [os.path.relpath(self.folder, here)],
                "images": [{"name": self.image, "newName": name, "digest": digest}],
                "patches": [add_version, *patches],
            }
            (here / "kustomization.yaml").write_text(json.dumps(kustomization), encoding="utf-8")
            whole = run("kubectl", "kustomize", str(here))
        # kustomize writes the same form whatever it was given: the keys at the top of a document begin their lines.
        manifests = [f"{document}\n" for document in whole.split("\n---\n")]
        return {f"{find(text, r'^kind: (.+)$')}/{find(text, r'^  name: (.+)$')}": text for text in manifests}

    def apply(self, *manifests: str) -> None:
        """Have the cluster be so, by server-side apply: what others set, like the number of replicas, stays theirs."""
        options = ["apply", "--server-side", "--force-conflicts", MANAGER, "--filename=-"]
        self.kubectl(*options, text="---\n".join(manifests))

    def wait_for_secret(self) -> None:
        """Pods without it would wait for it, and tell nobody. An operator takes a moment to write it."""
        deadline = time.monotonic() + 30
        while not self.ask("secret", SLUG):
            if time.monotonic() > deadline:
                mend = f"kubectl -n {self.namespace} create secret generic {SLUG} --from-file=..."
                raise Failure(f"there is no Secret {SLUG}; docs/kubernetes.md says what is in it: {mend}")
            time.sleep(1)

    def run_job(self, name: str, manifest: str) -> None:
        """A Job to its end; its log is shown if that is not a good one."""
        if self.ask("job", name).get("status", {}).get("active"):
            raise Failure(f"job {name} is under way, by somebody else? kubectl -n {self.namespace} get job {name}")
        print(f"job {name}", flush=True)
        self.kubectl("delete", "job", name, "--ignore-not-found", "--wait")
        self.apply(manifest)
        while True:  # the Job has its own deadline
            conditions = self.ask("job", name).get("status", {}).get("conditions", [])
            states = {condition["type"] for condition in conditions if condition["status"] == "True"}
            if "Complete" in states:
                return
            if "Failed" in states:
                with suppress(Failure):  # a container that was never started has no log
                    self.kubectl("logs", f"job/{name}", "--all-containers", "--tail=40", show=True)
                raise Failure(f"job {name} failed, as it says above")
            time.sleep(1)

    def revision(self) -> int:
        """The number of what the Deployment is at; 0 before the first release."""
        notes: dict[str, str] = self.ask("deployment", SLUG).get("metadata", {}).get("annotations", {})
        return int(notes.get(REVISION, 0))

    def running(self) -> tuple[str, str]:
        """The version that the Deployment is at, and its image.

        Raises:
            Failure: there is none.
        """
        found = self.ask("deployment", SLUG)
        if not found:
            raise Failure(f"nothing was released to {self.namespace} yet: make deploy VERSION=1.2.3")
        template = found["spec"]["template"]
        image = next(one["image"] for one in template["spec"]["containers"] if one["name"] == "app")
        return template["metadata"]["labels"].get(VERSION, "unknown"), image

    def wait_for_rollout(self, name: str) -> None:
        self.kubectl("rollout", "status", f"deployment/{name}", f"--timeout={self.patience}s", show=True)

    def show_pods(self) -> None:
        """How the pods are, the newest last, and what the newest of the service has to say."""
        selector = f"--selector=app.kubernetes.io/name={SLUG},app.kubernetes.io/component=web"
        pods = ["get", "pods", selector, "--sort-by=.metadata.creationTimestamp"]
        self.kubectl(*pods, show=True)
        newest = self.kubectl(*pods, "--output=name")
        if newest:
            with suppress(Failure):
                self.kubectl("logs", newest.split()[-1], "--container=app", "--tail=20", show=True)

    def revisions(self) -> dict[int, dict[str, Any]]:
        """The ReplicaSets of the service by their numbers, the oldest first."""
        selector = f"--selector=app.kubernetes.io/name={SLUG},app.kubernetes.io/component=web"
        sets = json.loads(self.kubectl("get", "replicasets", selector, "--output=json"))["items"]
        numbered = {int(one["metadata"].get("annotations", {}).get(REVISION, 0)): one for one in sets}
        return dict(sorted(numbered.items()))

    def return_to(self, revision: int) -> None:
        """Give the Deployment the pods of a revision.

        `kubectl rollout undo` would do so in its own name, and what an old release has then would stay in all new ones.
        """
        found = self.ask("deployment", SLUG)
        template = self.revisions()[revision]["spec"]["template"]
        template["metadata"]["labels"].pop("pod-template-hash", None)
        spec = {**found["spec"], "template": template}
        spec.pop("replicas", None)  # the autoscaler's
        labels = found["metadata"].get("labels", {})
        head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": SLUG, "labels": labels}}
        self.apply(json.dumps({**head, "spec": spec}))

    def roll(self, change: Callable[[], None]) -> None:
        """Change the Deployment, and have it as before if that does not serve."""
        before = self.revision()
        try:
            change()
            self.wait_for_rollout(SLUG)
            version, image = self.running()
            self.run_job(f"{SLUG}-smoke", self.render(image, version)[f"Job/{SLUG}-smoke"])
        except Failure as failure:
            self.show_pods()
            failed = self.revision()
            if not before or failed == before:
                then = "its pods are those of before" if before else "nothing ran before"
                raise Failure(f"{failure}; {then}") from None
            self.return_to(before)
            self.wait_for_rollout(SLUG)
            # Or a rollback would go to it.
            self.kubectl("delete", "replicaset", self.revisions()[failed]["metadata"]["name"])
            raise Failure(f"{failure}; what ran before is back") from None
        print(f"{version} serves")


def deploy(environment: Environment, version: str) -> None:
    """Make `version` what runs."""
    image = resolve(version, environment.image)
    label = version if "@" not in version else image.partition("@sha256:")[2][:12]
    manifests = environment.render(image, label)
    web, migrate, smoke = f"Deployment/{SLUG}", f"Job/{SLUG}-migrate", f"Job/{SLUG}-smoke"
    first = [text for name, text in manifests.items() if name not in (web, migrate, smoke)]
    print(f"{image} to {environment.namespace}, in {run('kubectl', 'config', 'current-context')}")
    if environment.dry_run:
        preview(environment, manifests, web, migrate, smoke)
        return
    environment.apply(*first)
    environment.wait_for_secret()
    environment.wait_for_rollout(f"{SLUG}-pgbouncer")
    environment.run_job(f"{SLUG}-migrate", manifests[migrate])
    environment.roll(lambda: environment.apply(manifests[web]))


def preview(environment: Environment, manifests: dict[str, str], *last: str) -> None:
    """Say what a release would do, and show how the cluster would differ; nothing is changed."""
    steps = [name for name in manifests if name not in last]
    print(f"1. apply {', '.join(steps)}\n2. run {last[1]}\n3. roll {last[0]} out\n4. run {last[2]}")
    command = ["diff", "--server-side", "--force-conflicts", MANAGER, "--filename=-"]
    # The Jobs are made anew each time, which a comparison with the last ones cannot know.
    kept = [text for name, text in manifests.items() if not name.startswith("Job/")]
    kubectl = ["kubectl", f"--namespace={environment.namespace}", *command]
    if subprocess.run(kubectl, input="---\n".join(kept), text=True, check=False).returncode > 1:
        raise Failure("kubectl cannot compare, as it says above; before the first release there is no namespace yet")


def rollback(environment: Environment) -> None:
    """Back to the release before, without a migration; again, to the one that it left."""
    environment.running()
    former = [number for number in environment.revisions() if number < environment.revision()]
    if not former:
        raise Failure("no release came before the one that runs: deploy one, make deploy VERSION=1.2.3")
    version = environment.revisions()[former[-1]]["spec"]["template"]["metadata"]["labels"].get(VERSION, "unknown")
    print(f"back to {version} in {environment.namespace}", flush=True)
    if not environment.dry_run:
        environment.roll(lambda: environment.return_to(former[-1]))


def run_once(environment: Environment, command: list[str]) -> None:
    """Run a command in a Job, with the image, the settings and the secrets of what runs, and print its log."""
    version, image = environment.running()
    name, migrate = f"{SLUG}-run", f"{SLUG}-migrate"
    pod = "/spec/template/spec"
    other = patch(
        "Job",
        migrate,
        {"op": "replace", "path": "/metadata/name", "value": name},
        {"op": "replace", "path": f"{pod}/containers/0/command", "value": command},
        {"op": "remove", "path": f"{pod}/initContainers"},
        {"op": "remove", "path": "/spec/activeDeadlineSeconds"},
        allowNameChange=True,
    )
    manifest = environment.render(image, version, other)[f"Job/{name}"]
    if environment.dry_run:
        print(manifest, end="")
        return
    environment.run_job(name, manifest)
    environment.kubectl("logs", f"job/{name}", show=True)


def status(environment: Environment) -> None:
    """Print which release the Deployment is at, and how its pods are."""
    version, image = environment.running()
    print(f"{version} ({image}) in {environment.namespace}")
    pods = [f"--selector=app.kubernetes.io/name={SLUG}", f"--label-columns={VERSION}"]
    environment.kubectl("get", "pods", *pods, show=True)
    environment.kubectl("get", "horizontalpodautoscaler", SLUG, show=True)
    environment.kubectl("rollout", "history", f"deployment/{SLUG}", show=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="release.py", description="Roll a release out in a cluster, or back.")
    parser.add_argument("action", choices=["deploy", "rollback", "status", "run"])
    parser.add_argument("version", nargs="?", default="", help="the tag of an image, or an image by digest")
    parser.add_argument("--overlay", default="production", help="a folder of overlays/ (%(default)s)")
    parser.add_argument("--patience", type=int, default=600, help="seconds for a rollout, at most (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    own = sys.argv[1:]
    command: list[str] = []
    if "--" in own:
        cut = own.index("--")
        own, command = own[:cut], own[cut + 1 :]
    asked = parser.parse_intermixed_args(own)
    if (asked.action == "deploy") != bool(asked.version) or (asked.action == "run") != bool(command):
        parser.error("usage: release.py deploy VERSION, or rollback, or status, or run -- COMMAND")
    try:
        environment = Environment(asked.overlay, asked.patience, asked.dry_run)
        if asked.action == "deploy":
            deploy(environment, asked.version)
        elif asked.action == "run":
            run_once(environment, command)
        else:
            {"rollback": rollback, "status": status}[asked.action](environment)
    except Failure as failure:
        sys.exit(f"{asked.version} is not released: {failure}" if asked.action == "deploy" else str(failure))
    except KeyboardInterrupt:
        sys.exit("interrupted; what was begun goes on in the cluster: make status")


if __name__ == "__main__":
    main()
