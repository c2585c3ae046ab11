"""`make deploy`, `make rollback` and `make status` in a cluster: nobody notices, and what is broken stays out."""

from __future__ import annotations

import json

import pytest

from deploy.test_rollout import BAD_MIGRATION
from kubernetes.conftest import SLUG, Team

# Releases that must not get through: a file, what stands there, and what does instead.
BROKEN = {
    "never-ready": ("app/health.py", '"/ready"', '"/elsewhere"'),
    "ends-at-once": ("gunicorn.conf.py", "", "raise SystemExit('it ends at once')\n"),
}
# And those of which no pod is begun: the same, and what the Job has to say.
REFUSED = {
    "bad-migration": ("migrations/versions/0003_bad.py", "", BAD_MIGRATION, "division by zero"),
    "bad-import": ("wsgi.py", "from app import create_app\n", "import nothing_of_the_kind\n", "nothing_of_the_kind"),
}


def test_the_migration_comes_before_the_pods(team: Team) -> None:
    job = team.get("job", f"{SLUG}-migrate")
    assert job["status"]["succeeded"] == 1
    assert all(job["status"]["completionTime"] <= pod["metadata"]["creationTimestamp"] for pod in team.pods())
    assert len(team.ready()) == 3
    status = team.done("status")
    (image,) = team.images()
    assert status.startswith(f"{image.partition('@sha256:')[2][:12]} ({image}) in {team.namespace}\n")
    for name in team.ready():
        assert name in status


def test_what_would_be_done_is_told_and_not_done(team: Team) -> None:
    (image,) = team.images()
    before = team.get("deployment", SLUG)["metadata"]["generation"]
    other = f"{image.partition('@')[0]}@sha256:{'0' * 64}"
    told = team.done("deploy", other, "--dry-run")
    assert f"3. roll Deployment/{SLUG} out" in told
    assert f"+        image: {other}" in told
    assert team.get("deployment", SLUG)["metadata"]["generation"] == before


@pytest.mark.parametrize("defect", REFUSED)
def test_a_failed_migration_or_preflight_lets_no_pod_follow(team: Team, defect: str) -> None:
    before, images = team.ready(), team.images()
    *change, said = REFUSED[defect]
    refused = team.release("deploy", team.build(defect, *change))
    assert refused.returncode == 2  # make's
    assert f"is not released: job {SLUG}-migrate failed, as it says above" in refused.stderr
    assert said in refused.stdout, "the log of the Job"
    assert (team.ready(), team.images()) == (before, images)


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_release_stops_by_itself_and_is_undone(team: Team, defect: str) -> None:
    before, images = team.ready(), team.images()
    image = team.build(defect, *BROKEN[defect])
    with team.visitors(wanted=500, clients=2) as load:
        refused = team.release("deploy", image, "--patience=60")
    assert refused.returncode == 2
    assert "is not released: " in refused.stderr
    assert "what ran before is back" in refused.stderr
    assert (team.ready(), team.images()) == (before, images)
    assert load.outcomes.keys() <= {"answered", "close"}, load.losses


def test_nobody_notices_a_release_or_the_way_back(team: Team, pytestconfig: pytest.Config) -> None:
    wanted = 20_000 if pytestconfig.getoption("--all") else 4_000
    first = team.images()
    second = team.build("2", "app/pages/routes.py", "blueprint = ", "# The second.\nblueprint = ")
    with team.visitors(wanted) as load:
        team.done("deploy", second)
        assert team.images() == {second}
        team.done("rollback")
        assert team.images() == first
    assert load.outcomes["answered"] >= wanted
    assert load.outcomes.keys() <= {"answered", "close"}, load.losses


@pytest.mark.with_all
def test_a_release_that_waits_for_nobody_is_noticed(team: Team) -> None:
    """The counter part: what is promised is kept by preStop and by one pod at a time."""
    hasty = [
        {"op": "remove", "path": "/spec/template/spec/containers/0/lifecycle"},
        {"op": "replace", "path": "/spec/strategy", "value": {"type": "Recreate"}},
    ]
    with team.visitors(wanted=500) as load:
        team.kubectl("patch", "deployment", SLUG, "--type=json", "--patch", json.dumps(hasty))
        team.kubectl("rollout", "status", f"deployment/{SLUG}", "--timeout=300s")
    assert load.outcomes.keys() - {"answered", "close"}
    team.done("rollback")
