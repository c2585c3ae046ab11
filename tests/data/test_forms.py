"""Forms over TLS, behind a proxy of ours, sent by a real browser and by others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from boot.conftest import prepare
from support.browser import Browser
from support.chromium import Chromium
from support.nginx import nginx
from support.service import Service, free_port, wait_for

pytestmark = pytest.mark.default_class

# Ours, and beside it one with a form that sends itself to ours, into a frame, so that the page itself stays.
SITES = """
ssl_certificate certificate; ssl_certificate_key key;
server {
    listen 127.0.0.1:%(ours)s ssl;
    location / {
        proxy_pass http://127.0.0.1:%(service)s;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $http_host;
    }
}
server {
    listen 127.0.0.1:%(theirs)s ssl;
    location / {
        default_type text/html;
        return 200 '<iframe name="frame"></iframe>
            <form target="frame" method="post" action="https://localhost:%(ours)s/trial/login">
            <input name="user" value="eve"></form><script>document.forms[0].submit()</script>';
    }
}
"""
SEND_FORM = """
document.forms[0].user.value = "ann";
fetch("", {method: "POST", body: new URLSearchParams(new FormData(document.forms[0])), keepalive: true});
"""


@dataclass
class Sites:
    """A service in production, the port of its proxy, and that of a site which attacks it."""

    service: Service
    ours: int
    theirs: int

    def sent(self) -> list[int]:
        """The statuses of the forms that have arrived."""
        lines = [line for line in self.service.log() if line.get("method") == "POST"]
        return [line["status"] for line in lines]


@pytest.fixture
def sites(folder: Path, venv: Path, tmp_path: Path) -> Iterator[Sites]:
    ports = {"ours": free_port(), "theirs": free_port()}
    environ = {
        "APP_ENV": "production",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",  # forms need no database
        "TRUSTED_PROXY_HOPS": "1",
    }
    (tmp_path / "state").mkdir()
    edge = tmp_path / "nginx"
    edge.mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", edge / "key", "-out", edge / "certificate"], check=True, capture_output=True)
    service = prepare(folder, venv, tmp_path / "state", environ)
    with service, nginx(edge, ports["ours"], SITES % {**ports, "service": service.port}):
        yield Sites(service, **ports)


def test_a_browser_sends_our_form_and_for_other_sites_none_that_is_taken(sites: Sites) -> None:
    with Chromium("--ignore-certificate-errors") as browser:
        page = f"https://localhost:{sites.ours}/trial"
        browser.visit(f"{page}/login", run=[SEND_FORM])
        assert wait_for(sites.sent, "our form arrives") == [200]
        assert '"user":"ann"' in browser.visit(f"{page}/whoami").text, "it kept the cookie that it was given"
        browser.visit(f"https://localhost:{sites.theirs}/")  # a neighbour: the cookie goes with it
        wait_for(lambda: len(sites.sent()) > 1, "its form arrives")
        browser.visit(f"https://127.0.0.1:{sites.theirs}/")  # a stranger: SameSite keeps the cookie back
        wait_for(lambda: len(sites.sent()) > 2, "its form arrives")
        assert sites.sent() == [200, 400, 400]
        assert '"user":"ann"' in browser.visit(f"{page}/whoami").text


@pytest.fixture(scope="module")
def behind_tls(folder: Path, venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with prepare(folder, venv, tmp_path_factory.mktemp("tls"), {"TRUSTED_PROXY_HOPS": "1"}) as service:
        yield service


@pytest.mark.parametrize(
    ("referer", "status"),
    [
        ("https://shop.example/trial/login", 200),
        ("https://shop.example/", 200),  # as much as a stricter policy lets out
        ("http://shop.example/trial/login", 400),
        ("https://evil.example/", 400),
        ("", 400),
    ],
)
def test_over_tls_a_form_comes_from_a_page_of_ours(behind_tls: Service, referer: str, status: int) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9", "Host": "shop.example"}
    browser = Browser()
    token = browser.open_form(behind_tls, "/trial/login")
    answer = browser.post(
        behind_tls, "/trial/login", headers | ({"Referer": referer} if referer else {}), csrf_token=token, user="ann"
    )
    assert answer.status == status
    if status == 400:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert "referrer" in answer.json["detail"]
