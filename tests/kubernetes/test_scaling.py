"""More pods when there is more to do, or somebody says so. They stay for five minutes, so these tests are the last."""

from __future__ import annotations

import contextlib
from typing import Any

from kubernetes.conftest import SLUG, Team
from support.service import wait_for

# Takes most of the fifth of a CPU that a pod has; with all of it gone, probes would find no answer in time.
BUSY = """
import time
print("busy", flush=True)
while True:
    end = time.process_time() + 0.017
    while time.process_time() < end:
        pass
    time.sleep(0.083)
"""


def test_pods_are_added_when_theirs_are_busy(team: Team) -> None:
    def scaler() -> Any:
        return team.get("horizontalpodautoscaler", SLUG)

    def conditions() -> dict[str, str]:
        return {one["type"]: one["status"] for one in scaler()["status"].get("conditions", [])}

    wait_for(lambda: conditions().get("ScalingActive") == "True", "the autoscaler knows how busy they are", 300)
    assert scaler()["status"]["currentReplicas"] == 3
    known = [one["containerResource"]["name"] for one in scaler()["status"]["currentMetrics"]]
    assert sorted(known) == ["cpu", "memory"]
    with contextlib.ExitStack() as stack:
        for name in team.ready():
            stack.enter_context(team.started(name, BUSY))
        wait_for(lambda: scaler()["status"]["desiredReplicas"] > 3, "more pods are asked for", 300)
        wait_for(lambda: len(team.ready()) > 3, "and are ready", 300)
    assert "SuccessfulRescale" in team.kubectl("get", "events", "--field-selector=reason=SuccessfulRescale")


def test_there_are_as_many_as_somebody_asks_for_by_hand(team: Team, tasks: dict[str, list[str]]) -> None:
    (command,) = [one for one in tasks["scale by hand"] if one.startswith("kubectl")]
    assert '"minReplicas":6' in command
    team.follow(command.replace('"minReplicas":6', '"minReplicas":5'))  # the most that this service may have
    wait_for(lambda: len(team.ready()) == 5, "there are five", 300)
