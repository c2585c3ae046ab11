"""The profile `monitoring`: Prometheus sees every instance, and Grafana finds Prometheus.

Prometheus is Debian's, a real one. Grafana is a stand-in that answers /api/health (tests/support/standins/grafana):
that a Grafana likes its data source is not shown here, only that the file is where it looks and leads to Prometheus.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.conftest import Builder, Stack, standins
from support.packages import find
from support.service import Client, wait_for
from support.template import Render

PROMETHEUS = "deploy/monitoring/prometheus.yml"
SOURCES = "deploy/monitoring/grafana/provisioning/datasources/prometheus.yml"


def promtool(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(find("promtool", "prometheus")), "check", "config", str(folder / PROMETHEUS)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_promtool_finds_nothing_wrong(render: Render) -> None:
    done = promtool(render())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"), [("15s", "15"), ("type: A\n", "typ: A\n"), ("port: 9102", "port: metrics")]
)
def test_promtool_finds_what_is_wrong(render: Render, tmp_path: Path, right: str, wrong: str) -> None:
    text = (render() / PROMETHEUS).read_text()
    assert right in text
    (tmp_path / PROMETHEUS).parent.mkdir(parents=True)
    (tmp_path / PROMETHEUS).write_text(text.replace(right, wrong))
    assert promtool(tmp_path).returncode == 1


@pytest.fixture(scope="module")
def monitored(builder: Builder, stack: Stack) -> Iterator[Stack]:
    """The stack with its profile, and one instance more."""
    (stack.folder / "standins.json").write_text(json.dumps(standins(builder, stack.folder, "monitoring")))
    services = ["--wait", "--no-recreate", "--scale=app=2", "app", "prometheus", "grafana"]
    try:
        stack.compose("--profile=monitoring", "up", "--detach", *services)
        yield stack
    finally:  # `down` leaves alone what is of a profile
        stack.compose("--profile=monitoring", "rm", "--stop", "--force", "prometheus", "grafana")
    stack.compose("up", "--detach", "--wait", "--no-recreate", "--scale=app=1", "app")


@pytest.mark.with_all
def test_prometheus_sees_every_instance(monitored: Stack) -> None:
    prometheus: Client = monitored.container("prometheus")
    prometheus.port = 9090

    def seen() -> list[dict[str, Any]]:
        return [one for one in prometheus.get("/api/v1/targets").json["data"]["activeTargets"] if one["health"] == "up"]

    wait_for(lambda: len(seen()) == 2, "both instances have been asked", 60)
    answer = prometheus.get("/api/v1/query?query=count(app_info)").json["data"]["result"]
    assert answer[0]["value"][1] == "2"


@pytest.mark.with_all
def test_grafana_finds_prometheus(monitored: Stack) -> None:
    (source,) = yaml.safe_load((monitored.folder / SOURCES).read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    grafana = monitored.container("grafana")
    assert "Healthy" in grafana.execute("wget", "-q", "-O", "-", f"{source['url']}/-/healthy")
    secret = (monitored.folder / "secrets" / "grafana_password").read_text()
    assert secret not in json.dumps(grafana.state)


def test_its_data_source_is_asked_about_as_often_as_there_is_news(render: Render) -> None:
    (source,) = yaml.safe_load((render() / SOURCES).read_text())["datasources"]
    scrape = yaml.safe_load((render() / PROMETHEUS).read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape


@pytest.mark.with_all
def test_the_stores_and_the_edge_are_not_for_monitoring(monitored: Stack) -> None:
    for service in ("prometheus", "grafana"):
        (network,) = monitored.container(service).state["NetworkSettings"]["Networks"]
        assert network.endswith("_monitoring")
