"""The API's document is true of the running service, whatever serves it, and its page needs nobody else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boot.conftest import Start, prepare
from support.chromium import DESKTOP, PHONE, Chromium
from support.service import Service

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
HOOKS = Path(__file__).parents[1] / "support" / "schemathesis_hooks.py"
# Its own list, and 412: a tag that is well-formed may be an old one.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "429", "5xx"]
"""
DEADLINE = 120  # seconds; it takes about ten
OPEN = ["document.querySelectorAll('details').forEach(each => { each.open = true })"]
Json = dict[str, Any]


def read_document(service: Service) -> Json:
    """The document without its "any other problem": each status that comes has to be named.

    `If-Match` has a format there, which support/schemathesis_hooks.py knows.
    """
    document: Json = service.get("/api/openapi.json").json
    for methods in document["paths"].values():
        for operation in methods.values():
            del operation["responses"]["default"]
            for parameter in operation["parameters"]:
                if parameter["name"] == "If-Match":
                    parameter["schema"]["format"] = "entity-tags"
    return document


def explore(document: Json, service: Service, folder: Path, examples: int) -> str:
    """What schemathesis finds, with all its checks on; empty where it finds nothing."""
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [str(SCHEMATHESIS), "run", "openapi.json", "--url", f"http://127.0.0.1:{service.port}", "--checks", "all"]
    options = ["--max-examples", str(examples), "--seed", "1", "--generation-database", "none", "--no-color"]
    environ = {**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS)}
    done = subprocess.run(
        [*command, *options], cwd=folder, env=environ, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout if done.returncode else ""


@pytest.mark.default_class
def test_schemathesis_finds_nothing(start: Start, tmp_path: Path) -> None:
    service = start(LOG_LEVEL="WARNING")
    document = read_document(service)
    assert document["paths"], "there is something to explore"
    assert explore(document, service, tmp_path, examples=100) == ""
    assert [line for line in service.log() if line["level"] == "ERROR"] == []


@pytest.mark.with_all
@pytest.mark.default_class
def test_schemathesis_finds_what_is_false(service: Service, tmp_path: Path) -> None:
    document = read_document(service)
    items, one = document["paths"]["/api/items"], document["paths"]["/api/items/{item_id}"]
    schemas = document["components"]["schemas"]
    del one["get"]["responses"]["404"]
    schemas["ItemUpdate"]["properties"]["quantity"]["maximum"] = 2**40
    schemas["ItemPage"]["required"].append("color")
    content = items["post"]["responses"]["201"]["content"]
    content["text/csv"] = content.pop("application/json")
    document["paths"]["/trial/fail"] = {"get": {"responses": {"200": {"description": "It works."}}}}
    findings = explore(document, service, tmp_path, examples=10)
    for finding in (
        "Undocumented status code",
        "Response violates schema",
        "Schema-valid request rejected",
        "Undocumented Content-Type",
        "Server error",
    ):
        assert finding in findings


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@pytest.mark.default_class
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize(("path", "shown"), [("/api/docs", "Create an item."), ("/", "What is running")])
def test_a_browser_shows_the_page_and_complains_of_nothing(
    browser: Chromium, service: Service, path: str, shown: str, width: int
) -> None:
    own = f"http://127.0.0.1:{service.port}/"
    visit = browser.visit(own.rstrip("/") + path, width, run=OPEN)
    assert visit.complaints == []
    assert visit.requests[0] == own.rstrip("/") + path
    assert [address for address in visit.requests if not address.startswith(own)] == []
    assert shown.lower() in visit.text.lower()
    assert visit.width <= width, "it does not scroll sideways"


DEFECTS = """
<p style="color: red">an inline style</p>
<script>console.log("an inline script")</script>
<img src="https://example.com/outside.png" alt="">
<img src="/static/icon.svg" alt="" width="1000">
</main>
"""


@pytest.mark.with_all
@pytest.mark.default_class
def test_a_browser_complains_of_what_is_wrong(browser: Chromium, folder: Path, venv: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "service"
    shutil.copytree(folder, copy)
    shutil.copy(folder.parent / "app.db", copy.parent)
    page = copy / "app" / "templates" / "index.html"
    page.write_text(page.read_text().replace("</main>", DEFECTS))
    with prepare(copy, venv, tmp_path, {}) as service:
        visit = browser.visit(f"http://127.0.0.1:{service.port}/", PHONE)
    complaints = "\n".join(visit.complaints)
    for directive in ("style-src 'self'", "script-src 'self'", "img-src 'self'"):
        assert directive in complaints
    assert "https://example.com/outside.png" in visit.requests
    assert visit.width > PHONE
