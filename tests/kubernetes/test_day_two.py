"""What docs/kubernetes.md has its reader do on the days after the first, done so."""

from __future__ import annotations

import json

from kubernetes.conftest import SLUG, Team
from support.service import SECRET_KEY, wait_for


def test_a_command_runs_in_a_pod_that_serves_and_in_a_job(team: Team, tasks: dict[str, list[str]]) -> None:
    here, beside = tasks["run a command once"]
    team.follow(here)
    said = team.follow(beside.replace("flask backfill NAME", "flask db current"))
    assert said.startswith(f"job {SLUG}-run\n")
    assert "(head)" in said


def test_a_pod_says_how_ready_it_is(team: Team, tasks: dict[str, list[str]]) -> None:
    said = team.follow(next(one for one in tasks["see why a pod is not ready"] if "exec" in one), POD=min(team.ready()))
    assert '"status"' in said
    assert "database" in said


def test_one_looks_inside_with_an_image_that_has_tools(team: Team, tasks: dict[str, list[str]]) -> None:
    (command,) = tasks["look inside"]
    (image,) = {
        pod["spec"]["containers"][0]["image"] for pod in team.cluster.get("pods", "--namespace=ingress")["items"]
    }
    pod = min(team.ready())
    tool = "--container=tool -- sh -c 'id -u; grep -a -o gunicorn /proc/1/cmdline'"
    team.follow(f"{command.replace('busybox', image)} {tool}", POD=pod)
    wait_for(
        lambda: "gunicorn" in team.cluster.ask("logs", f"--namespace={team.namespace}", pod, "--container=tool").stdout,
        "it sees the processes of the service",
        60,
    )


def test_a_secret_that_is_rotated_reaches_every_pod_and_nobody_notices(team: Team, tasks: dict[str, list[str]]) -> None:
    restart = tasks["rotate a secret"][0]
    before, new = team.ready(), "another-one-of-" + SECRET_KEY
    with team.visitors(wanted=500, clients=2) as load:
        team.kubectl("patch", "secret", SLUG, f"--patch={json.dumps({'stringData': {'secret_key': new}})}")
        team.follow(restart)
        team.kubectl("rollout", "status", f"deployment/{SLUG}", "--timeout=300s")
    assert load.outcomes.keys() <= {"answered", "close"}, load.losses
    assert not before & team.ready()
    for name in team.ready():
        assert team.kubectl("exec", name, "--container=app", "--", "cat", "/run/secrets/secret_key") == new


def test_a_changed_setting_starts_new_pods(team: Team) -> None:
    (image,) = team.images()
    file = team.folder / "deploy/kubernetes/base/kustomization.yaml"
    text = file.read_text()
    before = team.ready()
    assert text.count("LOG_LEVEL=INFO") == 1
    file.write_text(text.replace("LOG_LEVEL=INFO", "LOG_LEVEL=WARNING"))
    try:
        team.done("deploy", image)
    finally:
        file.write_text(text)
    assert not before & team.ready()
    for name in team.ready():
        assert team.kubectl("exec", name, "--container=app", "--", "printenv", "LOG_LEVEL") == "WARNING"
