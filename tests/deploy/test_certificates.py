"""A certificate from a real ACME server, and its renewals, while clients go on asking nginx."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.conftest import RUN, Builder, composed
from deploy.edge import Edge, load
from support.service import wait_for
from support.standins import PINNED
from support.template import SERVICE, Render

pytestmark = pytest.mark.with_all
DOMAIN = "shop.example.com"
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: a certificate lasts seconds here, and a machine may be slow
WAIT = 90


@dataclass
class Host(Edge):
    """A host to which `DOMAIN` leads, as far as the ACME server knows; `authority` is that of the server."""

    def handshake(self, *, verify: bool) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.authority) if verify else None)
        context.check_hostname = verify
        context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
        context.verify_flags |= NO_CHECK_TIME
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 20), server_hostname=DOMAIN)

    def connect(self, timeout: float = 20) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=timeout)
        connection.sock = self.handshake(verify=False)
        return connection

    def certificate(self) -> bytes:
        """What nginx shows, whoever made it."""
        with self.handshake(verify=False) as connection:
            return connection.getpeercert(binary_form=True) or b""

    def is_trusted(self) -> bool:
        """Whether a browser that trusts the authority takes it, for the domain."""
        try:
            self.handshake(verify=True).close()
        except ssl.SSLCertVerificationError:
            return False
        return True

    def certbot(self, *arguments: str) -> str:
        return self.compose("run", "--rm", "--no-deps", "certbot", *arguments)


def commands(heading: str) -> list[str]:
    """What the page tells to run under a heading, as far as a machine without a domain can."""
    page = (SERVICE / "docs" / "host.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## )", page, re.M | re.S)
    blocks = re.findall(r"^```console\n(.*?)^```$", section, re.M | re.S)
    found = re.findall(r"^\$ (.+)$", "".join(blocks), re.M)
    assert found
    return found


@pytest.fixture(scope="module")
def host(builder: Builder, render: Render, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """nginx as it starts on a new host; certbot is told of another server than Let's Encrypt's, and hurries."""
    scratch = tmp_path_factory.mktemp("certificates")
    folder = shutil.copytree(render(domain_name=DOMAIN), scratch / "service", symlinks=True)
    pebble = builder.images.build("pebble:2")
    authority = scratch / "acme.pem"
    authority.write_text(builder.docker.run("run", "--rm", pebble, "cat", "ca.pem"))
    (image,) = PINNED.findall((folder / "deploy" / "compose" / "production.yaml").read_text())
    certbot = {
        "image": builder.images.find(image),
        "environment": {"RENEW_EVERY": "2s", "REQUESTS_CA_BUNDLE": "/acme.pem"},
        "healthcheck": {"interval": "1s", "start_period": "0s"},
        "volumes": [f"{authority}:/acme.pem:ro"],
    }
    nginx = {"networks": {"edge": {"aliases": [DOMAIN]}}}
    services = {"certbot": certbot, "nginx": nginx, "pebble": {"image": pebble, "networks": ["edge"]}}
    (folder / "acme.json").write_text(json.dumps({"services": services}))
    shutil.copy(
        folder / "deploy" / "nginx" / "upstream.conf", folder / "deploy" / "compose"
    )  # a release would write it
    with (folder / "deploy" / "compose" / "certificates" / "cli.ini").open("a") as file:
        file.write("server = https://pebble:14000/dir\n")
    with composed(builder, folder, f"{RUN}-acme") as stack:
        files = "compose.yaml:deploy/compose/production.yaml:standins.json:acme.json"
        told = {**vars(stack), "environ": {**stack.environ, "COMPOSE_FILE": files}}
        host = Host(**told, builder=builder, authority=scratch / "root.pem")
        host.compose("up", "--no-deps", "--detach", "--wait", "nginx", "pebble")
        host.authority.write_text(wait_for(lambda: ask_for_root(host.container("pebble").host), "Pebble listens", WAIT))
        yield host
        host.compose("down", "--volumes", "--timeout=5")


def ask_for_root(pebble: str) -> str:
    """The authority that Pebble made at its start."""
    with contextlib.suppress(OSError):
        context = ssl._create_unverified_context()
        with urllib.request.urlopen(f"https://{pebble}:15000/roots/0", context=context) as answer:
            return str(answer.read().decode())
    return ""


@pytest.fixture
def certified(host: Host) -> Host:
    """The host, with a certificate and what renews it."""
    if not host.is_trusted():
        host.certbot("certonly")
    host.compose("up", "--no-deps", "--detach", "certbot", "pebble")
    wait_for(host.is_trusted, "nginx has the certificate", WAIT)
    return host


def test_the_first_certificate_takes_the_place_of_the_self_signed_one(host: Host) -> None:
    """By the commands of docs/host.md."""
    assert not host.is_trusted()
    requests = load(host, total=10**6, path="/healthz/edge", clients=4)
    requests.wait_for_answers(20)
    for command in commands("The code and the secrets") + commands("The certificate"):
        host.run("sh", "-c", command)
    wait_for(host.is_trusted, "nginx has the certificate", WAIT)
    assert set(requests.end().outcomes) <= {"answered", "close"}, requests.losses
    assert host.nginx.execute("stat", "-c", "%u %a", "/etc/nginx/tls/privkey.pem") == "0 600"


def test_it_is_renewed_before_it_ends_and_no_request_is_lost(certified: Host) -> None:
    requests = load(certified, total=10**6, path="/healthz/edge", clients=4)
    for _ in range(2):
        before = certified.certificate()
        wait_for(lambda: certified.certificate() != before, "another certificate", WAIT)  # noqa: B023
        assert certified.is_trusted()
    assert set(requests.end().outcomes) <= {"answered", "close"}, requests.losses


def test_a_certificate_that_is_about_to_end_is_a_sick_container(certified: Host) -> None:
    """Those here last less than ten days."""
    certified.container("certbot").wait_for_health("unhealthy", WAIT)


def test_without_the_authority_the_old_one_stays_and_the_log_says_so(certified: Host) -> None:
    certified.compose("stop", "pebble")
    try:
        wait_for(lambda: "was not renewed" in certified.container("certbot").output(), "it says so", WAIT)
        assert certified.is_trusted()
        assert certified.get("/healthz/edge").status == 200
    finally:
        certified.compose("start", "pebble")


def test_a_pair_that_does_not_fit_is_mended_and_never_served(certified: Host) -> None:
    """As it is when the host went down between the two files."""
    certified.nginx.execute("sh", "-c", "openssl ecparam -genkey -name prime256v1 >/etc/nginx/tls/privkey.pem")
    assert certified.is_trusted()
    wait_for(lambda: certified.check().returncode == 0, "the pair fits", WAIT)
    assert certified.is_trusted()


def test_a_name_that_leads_elsewhere_gets_no_certificate(certified: Host) -> None:
    with pytest.raises(AssertionError, match=r"other\.example\.com"):
        certified.certbot("certonly", "--cert-name=other", "--domain=other.example.com")
    assert certified.is_trusted()


def test_a_restart_instead_of_a_reload_would_be_noticed(certified: Host) -> None:
    requests = load(certified, total=10**6, path="/healthz/edge", clients=4)
    requests.wait_for_answers(20)
    certified.compose("restart", "nginx")
    assert {"lost", "refused"} & {*requests.end().outcomes}
    wait_for(certified.is_trusted, "nginx is back", WAIT)
