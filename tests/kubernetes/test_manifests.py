"""A real API server takes what is rendered: each overlay, with every component, under "restricted" and without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster
from support.manifests import OVERLAYS, build

NAMESPACE = "trial-of-manifests"
# What a pod may not under "restricted": a line of a manifest, and what stands there instead.
TOO_MUCH = {
    "as root": ("runAsNonRoot: true", "runAsNonRoot: false"),
    "more than it began with": ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
    "any system call": ("type: RuntimeDefault", "type: Unconfined"),
    "a capability": ("- ALL", "- NET_RAW"),
    "the node's files": (
        "emptyDir:\n          medium: Memory\n          sizeLimit: 64Mi",
        "hostPath: {path: /}",
    ),
}


@pytest.fixture
def cluster(kubernetes: Cluster) -> Iterator[Cluster]:
    """The cluster, in which what a test makes does not stay."""
    yield kubernetes
    kubernetes.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")


def apply(cluster: Cluster, text: str) -> tuple[int, str]:
    """The exit code and the complaints, of which a warning is one."""
    done = cluster.ask("apply", "--server-side", "--warnings-as-errors", "--filename=-", input=text)
    return done.returncode, done.stderr


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_taken_and_nothing_warned_of(
    cluster: Cluster, folder: Path, tmp_path: Path, overlay: str
) -> None:
    text = rendered(folder, tmp_path, overlay)
    assert apply(cluster, text) == (0, "")
    labels = cluster.get("namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert apply(cluster, text) == (0, ""), "and again"


@pytest.mark.parametrize("defect", TOO_MUCH)
def test_a_pod_that_may_do_more_is_warned_of(cluster: Cluster, folder: Path, tmp_path: Path, defect: str) -> None:
    text = rendered(folder, tmp_path, "staging")
    assert TOO_MUCH[defect][0] in text
    code, complaints = apply(cluster, text.replace(*TOO_MUCH[defect]))
    assert code == 1
    assert 'would violate PodSecurity "restricted:latest"' in complaints


def rendered(folder: Path, scratch: Path, overlay: str) -> str:
    """An overlay, in a namespace of its own."""
    name = "staging" if overlay == "staging" else "production"
    return build(folder, scratch, overlay).replace(f"my-service-{name}", NAMESPACE)
