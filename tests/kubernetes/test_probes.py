"""What the cluster asks a pod, and does with the answer; and what it does not do to all of them at once."""

from __future__ import annotations

from kubernetes.conftest import SLUG, Team
from support.service import wait_for

# Holds every process that the server starts, for as long as the container lives: it answers nobody.
HOLD = """
import os, pathlib, signal, time
print("held", flush=True)
while True:
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            if "\\nPPid:\\t1\\n" in status.read_text():
                os.kill(int(status.parent.name), signal.SIGSTOP)
        except OSError:
            pass
    time.sleep(0.2)
"""


def test_a_pod_that_does_not_answer_gets_no_requests_and_is_started_anew(team: Team) -> None:
    name = min(team.ready())
    others = team.ready() - {name}
    with team.started(name, HOLD):
        wait_for(lambda: name not in team.ready(), "the pod is not ready", 60)
        wait_for(lambda: name not in team.endpoints(), "it gets no requests", 10)
        assert team.endpoints() == others
        with team.visitors(wanted=200, clients=2) as load:
            pass
        assert load.outcomes.keys() <= {"answered", "close"}, load.losses
        wait_for(lambda: team.restarts(name) == 1, "it is started anew", 150)
    assert others <= team.ready()
    wait_for(lambda: name in team.endpoints(), "it gets requests again", 120)
    assert {team.restarts(other) for other in others} == {0}


def test_a_drain_takes_one_pod_and_waits_with_the_next(team: Team) -> None:
    nodes = [node["metadata"]["name"] for node in team.cluster.get("nodes")["items"]]
    selector = f"--pod-selector=app.kubernetes.io/name={SLUG},app.kubernetes.io/component=web"
    before = team.ready()
    with team.visitors(wanted=500, clients=2) as load:
        done = team.cluster.ask("drain", *nodes, selector, "--delete-emptydir-data", "--force", "--timeout=40s")
        try:
            assert done.returncode == 1
            assert "Cannot evict pod as it would violate the pod's disruption budget" in done.stdout + done.stderr
            assert len(team.ready() & before) == len(before) - 1
        finally:
            team.cluster.kubectl("uncordon", *nodes)
        wait_for(lambda: len(team.ready()) == len(before), "as many as before", 120)
    assert load.outcomes.keys() <= {"answered", "close"}, load.losses
