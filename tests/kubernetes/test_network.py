"""Who reaches whom is what network.yaml says, and nothing else; the cluster's own firewall does so."""

from __future__ import annotations

import pytest

from kubernetes.conftest import CONNECT, SLUG, Team

# From where, to what, and whether there is an answer.
INWARD = [
    ("ingress", "service", True),
    ("ingress", "app", True),
    ("ingress", "metrics", False),
    ("monitoring", "metrics", True),
    ("monitoring", "app", False),
    ("elsewhere", "service", False),
    ("elsewhere", "app", False),
    ("elsewhere", "metrics", False),
    ("elsewhere", "pgbouncer", False),
    ("ingress", "pgbouncer", False),
]
OUTWARD = [
    (f"{SLUG}-pgbouncer", 6432, True),
    ("postgres.data", 5432, True),
    ("kubernetes.default", 443, False),
    ("metrics-server.kube-system", 443, False),
]


@pytest.mark.parametrize(("namespace", "target", "reached"), INWARD)
def test_who_is_let_in(team: Team, namespace: str, target: str, reached: bool) -> None:
    pod = team.pods()[0]["status"]["podIP"]
    addresses = {
        "service": (f"{SLUG}.{team.namespace}", 80),
        "app": (pod, 8000),
        "metrics": (pod, 9102),
        "pgbouncer": (team.pods("pgbouncer")[0]["status"]["podIP"], 6432),
    }
    assert team.ask(namespace, *addresses[target]) is reached


@pytest.mark.parametrize(("host", "port", "reached"), OUTWARD)
def test_what_the_service_reaches(team: Team, host: str, port: int, reached: bool) -> None:
    pod = min(team.ready())
    done = team.cluster.ask(
        "exec", f"--namespace={team.namespace}", pod, "--container=app", "--", "python3", "-c", CONNECT, host, str(port)
    )
    assert (done.returncode == 0) is reached, done.stderr
    if not reached:
        assert "TimeoutError" in done.stderr or "refused" in done.stderr  # it has a name, though


def test_without_the_policies_anybody_is_let_in(team: Team) -> None:
    policies = team.kubectl("get", "networkpolicies", "--output=yaml")
    pod = team.pods()[0]["status"]["podIP"]
    team.kubectl("delete", "networkpolicies", "--all")
    try:
        team.wait_until_asked("elsewhere", pod, 8000, True)
    finally:
        team.kubectl("create", "--filename=-", input=policies)
    team.wait_until_asked("elsewhere", pod, 8000, False)
