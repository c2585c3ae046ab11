"""The edge as the world meets it: nginx from compose.yaml and deploy/nginx/, as they are rendered.

Two of the four ways to the service, nginx and a load balancer in front of it, are walked here with forged headers;
tests/boot/test_promises.py walks the others, nobody in front and an ingress that is trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.conftest import Builder, Stack
from deploy.edge import CONFIG, Edge, load, serve_edge
from support.answers import VARIANTS
from support.chromium import DESKTOP, PHONE, Chromium
from support.docker import Container, Docker
from support.packages import find
from support.service import Answer, wait_for
from support.template import ROOT, SERVICE, Render
from support.template import load as load_module

SECONDS: dict[str, float] = load_module(SERVICE / "app" / "capacity.py").SECONDS
OBSERVATORY = Path(__file__).with_name("observatory")
SCANNER = "node_modules/@mdn/mdn-http-observatory"
FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9;host=evil.example",
}


@pytest.fixture(scope="session")
def edge(builder: Builder, render: Render, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """The worker class makes no difference to it."""
    with serve_edge(builder, render(), tmp_path_factory.mktemp("edge")) as edge:
        yield edge


@pytest.fixture(scope="session")
def upstream_of_all(edge: Edge) -> Iterator[Container]:
    with edge.upstream() as container:
        edge.wait_for_upstream()
        yield container


@pytest.fixture
def upstream(upstream_of_all: Container, edge: Edge) -> Container:
    """What stands behind the edge, alone there: addresses of the test before are forgotten."""

    def alone() -> bool:
        for _ in range(3):
            edge.get("/echo")
        return {line["upstream"] for line in edge.log_lines(3)} == {f"{upstream_of_all.host}:8000"}

    wait_for(alone, "nginx asks no other")
    return upstream_of_all


def counts(upstream: Container) -> dict[str, int]:
    told: dict[str, int] = upstream.get("/counts").json
    return told


def assert_problem(answer: Answer, status: int, **headers: str | None) -> None:
    """What nginx says itself has the form of what the service says, and the same headers."""
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["title"]
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.get_all("Strict-Transport-Security") == ["max-age=63072000; includeSubDomains"]
    for name, value in headers.items():
        assert answer.headers[name.replace("_", "-")] == value


# The configuration


def test_nginx_finds_no_fault_with_it_and_would(edge: Edge) -> None:
    checked = edge.check()
    assert "test is successful" in checked.stderr
    assert "warn" not in checked.stderr
    path = edge.folder / "deploy" / "nginx" / "limits.conf"
    text = path.read_text()
    path.write_text(f"{text}gzip maybe;\n")
    assert edge.check().returncode == 1
    path.write_text(text)


def gixy(edge: Edge, file: Path) -> list[dict[str, Any]]:
    """What gixy finds in all that nginx reads."""
    file.write_text(edge.nginx.execute("nginx", "-c", CONFIG, "-T"))
    command = [str(Path(sys.executable).with_name("gixy")), "--format=json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == bool(found), done.stderr
    return found


def test_gixy_finds_nothing_and_would(edge: Edge, tmp_path: Path) -> None:
    assert gixy(edge, tmp_path / "whole.conf") == []
    with edge.changed("proxy.conf", "Host $host$client_port", "Host $http_host"):
        assert {finding["plugin"] for finding in gixy(edge, tmp_path / "whole.conf")} == {"host_spoofing"}


def find_numbers(text: str, directive: str) -> list[float]:
    return [float(number) for number in re.findall(rf"^\s*{directive} (\d+)s;", text, re.M)]


def test_its_seconds_are_those_of_the_ladders(edge: Edge) -> None:
    """tests/boot/test_idle_ladder.py has nginx and the service do what these numbers promise."""
    text = "".join(path.read_text() for path in sorted((edge.folder / "deploy" / "nginx").glob("*.conf")))
    assert find_numbers(text, "keepalive_timeout") == [SECONDS["proxy_idle"], SECONDS["upstream_idle"]]
    assert find_numbers(text, "proxy_read_timeout") == [SECONDS["proxy"]]
    assert find_numbers(text, "proxy_send_timeout") == [SECONDS["proxy"]]
    assert find_numbers(text, "client_header_timeout") == [SECONDS["first_bytes"]]
    (shutdown,) = find_numbers(text, "worker_shutdown_timeout")
    assert SECONDS["proxy"] < shutdown < SECONDS["grace"]


def test_its_body_limit_is_that_of_the_service(edge: Edge) -> None:
    (limit,) = re.findall(
        r"client_max_body_size (\d+)m;", (edge.folder / "deploy" / "nginx" / "nginx.conf").read_text()
    )
    assert f"| `MAX_CONTENT_LENGTH` | `{int(limit) * 2**20}` |" in (edge.folder / "docs" / "settings.md").read_text()


@pytest.mark.parametrize("variant_of_names", VARIANTS)
def test_it_starts_for_a_name_of_any_length_with_a_certificate_of_its_own(
    docker: Docker, builder: Builder, render: Render, variant_of_names: str
) -> None:
    files = render(**VARIANTS[variant_of_names]) / "deploy" / "nginx"
    image = yaml.safe_load((files.parent.parent / "compose.yaml").read_text())["services"]["nginx"]["image"]
    options = [f"--volume={files}:/etc/nginx/service:ro", f"--volume={files}/templates:/etc/nginx/templates:ro"]
    options += [f"--volume={files}/self-signed.sh:/docker-entrypoint.d/40-self-signed.sh:ro", "--env=HTTPS_SUFFIX="]
    with docker.container(
        builder.images.find(image),
        "--tmpfs=/etc/nginx/tls",
        *options,
        command=("nginx", "-c", CONFIG, "-g", "daemon off;"),
    ) as nginx:
        ask = ("openssl", "x509", "-in", "/etc/nginx/tls/fullchain.pem", "-noout", "-ext", "subjectAltName")
        nginx.wait_until("curl", "--fail", "--insecure", "https://127.0.0.1:8443/healthz/edge")
        name = VARIANTS[variant_of_names].get("domain_name", "localhost")
        assert f"DNS:{name}, DNS:localhost, IP Address:127.0.0.1" in nginx.execute(*ask)
        resolve = ("--resolve", f"{name}:8443:127.0.0.1", f"https://{name}:8443/")
        known = nginx.execute(
            "curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}", *resolve
        )
        assert known == "502", "it would ask the service, and there is none"


# TLS and HTTP/2


def sslyze(edge: Edge) -> str:
    """What sslyze holds against it, by Mozilla's intermediate profile; empty where it complies."""
    command = [str(Path(sys.executable).with_name("sslyze")), "--mozilla_config", "intermediate"]
    command += ["--certinfo_ca_file", str(edge.authority), f"localhost:{edge.port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    verdict = done.stdout.partition("COMPLIANCE AGAINST")[2]
    assert verdict, done.stdout + done.stderr
    assert (done.returncode == 0) == ("OK - Compliant" in verdict)
    return "" if done.returncode == 0 else verdict


def test_its_tls_is_mozillas_intermediate_profile_and_a_weaker_one_is_noticed(edge: Edge) -> None:
    assert sslyze(edge) == ""
    with edge.changed(
        "nginx.conf", "ECDHE-RSA-CHACHA20-POLY1305;", "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-SHA;"
    ):
        assert "CBC_SHA" in sslyze(edge)


def test_it_speaks_http_2(edge: Edge, upstream: Container) -> None:
    command = [str(find("curl", "curl")), "--silent", "--cacert", str(edge.authority), "--write-out", "%{http_version}"]
    done = subprocess.run([*command, f"https://localhost:{edge.port}/echo"], capture_output=True, check=True)
    assert done.stdout.endswith(b"}2")
    assert dict(json.loads(done.stdout[:-1])["headers"])["host"] == f"localhost:{edge.port}"


def test_without_tls_it_leads_to_tls(edge: Edge, upstream: Container) -> None:
    answer = edge.plain("GET", "/echo?q=1")
    assert (answer.status, answer.headers["Location"]) == (308, f"https://localhost:{edge.port}/echo?q=1")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Strict-Transport-Security" not in answer.headers
    assert "GET /echo?q=1" not in counts(upstream)


def test_what_an_authority_asks_for_is_served_without_tls_and_whatever_the_host(edge: Edge) -> None:
    acme = edge.environ["COMPOSE_PROJECT_NAME"] + "_acme"
    file = "/acme/.well-known/acme-challenge/token"
    write = f"mkdir -p $(dirname {file}) && echo proof >{file}"
    nginx = edge.nginx.state["Config"]["Image"]
    edge.docker.run("run", "--rm", "--entrypoint=sh", f"--volume={acme}:/acme", nginx, "-c", write)
    assert edge.plain("GET", "/.well-known/acme-challenge/token", {"Host": "192.0.2.1"}).status == 200


# Who asks, and for what


def test_forwarded_headers_of_a_client_are_not_believed(edge: Edge, upstream: Container) -> None:
    told = edge.get("/echo", FORGED).json["headers"]
    mine = upstream.state["NetworkSettings"]["Networks"].popitem()[1]["Gateway"]
    assert [header for header in told if "forwarded" in header[0] or header[0] in ("host", "x-real-ip")] == [
        ["host", f"localhost:{edge.port}"],
        ["x-forwarded-for", mine],
        ["x-forwarded-proto", "https"],
        ["x-forwarded-host", f"localhost:{edge.port}"],
    ]
    assert edge.plain("GET", "/echo", {"X-Forwarded-Proto": "https"}).status == 308


def test_a_load_balancer_is_believed_where_it_is_trusted(edge: Edge, upstream: Container) -> None:
    """It appends the address that it saw to what its client had sent, and speaks without TLS to us."""
    balancer = upstream.state["NetworkSettings"]["Networks"].popitem()[1]["Gateway"]
    said = {**FORGED, "X-Forwarded-For": "203.0.113.9, 198.51.100.4", "X-Forwarded-Proto": "https", "Host": "localhost"}
    with edge.changed("trusted-proxies.conf", "", f"set_real_ip_from {balancer};"):
        answer = get_plain(edge, "/echo", said)
        headers = dict(answer["headers"])
        assert headers["x-forwarded-for"] == "198.51.100.4"
        assert headers["x-forwarded-proto"] == "https"
        assert headers["host"] == headers["x-forwarded-host"] == "localhost"
        assert edge.plain("GET", "/echo", {**said, "X-Forwarded-Proto": "http"}).status == 308
        without_address = {"X-Forwarded-Proto": "https", "Host": "localhost"}
        assert edge.plain("GET", "/echo", without_address).status == 308, "then it is no load balancer that speaks"


def get_plain(edge: Edge, path: str, headers: dict[str, str]) -> Any:
    command = [str(find("curl", "curl")), "--silent", "--fail"]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    done = subprocess.run([*command, f"http://localhost:{edge.http_port}{path}"], capture_output=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "192.0.2.1", "LOCALHOST.", "evil.example:80"]
)
def test_for_another_host_it_has_no_answer_but_to_probes(edge: Edge, upstream: Container, host: str) -> None:
    if host == "LOCALHOST.":
        assert edge.get("/echo", {"Host": host}).status == 200, "a host name in full ends with a dot"
        return
    assert_problem(edge.get("/echo", {"Host": host}), 421)
    assert edge.plain("GET", "/echo", {"Host": host}).status == 421
    assert edge.get("/healthz/live", {"Host": host}).status == 200
    assert edge.get("/healthz/edge", {"Host": host}).json == {"status": "ok"}


@pytest.mark.parametrize("sent", ["12345678", "a" * 128, "A.b_c-9012"])
def test_an_id_that_will_do_is_kept(edge: Edge, upstream: Container, sent: str) -> None:
    answer = edge.get("/echo", {"X-Request-ID": sent})
    assert dict(answer.json["headers"])["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["1234567", "a" * 129, "a b c d e f", '"},{"a":"', "\u00e4" * 8])
def test_an_id_that_will_not_do_is_replaced(edge: Edge, upstream: Container, sent: str) -> None:
    answer = edge.get("/echo", {"X-Request-ID": sent.encode().decode("latin-1")})
    assert re.fullmatch("[0-9a-f]{32}", dict(answer.json["headers"])["x-request-id"])


def test_one_client_may_not_ask_without_end(edge: Edge, upstream: Container) -> None:
    with edge.changed("limits.conf", "rate=100000r/s", "rate=1r/m"):
        before = counts(upstream)["open"]
        connection = edge.connect()
        statuses = []
        for _ in range(210):
            connection.request("GET", "/echo")
            response = connection.getresponse()
            body = response.read()
            statuses.append(response.status)
        connection.close()
        assert statuses.count(200) in (200, 201), "the burst, and perhaps one more"
        assert statuses.count(429) == 210 - statuses.count(200)
        assert_problem(Answer(429, response.headers, body), 429, Retry_After="1")
        assert edge.get("/healthz/edge").status == 200
        assert counts(upstream)["open"] == before


def test_addresses_of_one_network_are_one_client(edge: Edge, upstream: Container) -> None:
    """The other half of an IPv6 address is whatever its owner likes."""
    balancer = upstream.state["NetworkSettings"]["Networks"].popitem()[1]["Gateway"]

    def ask(address: str) -> int:
        return edge.get("/echo", {"X-Forwarded-For": address}).status

    with (
        edge.changed("trusted-proxies.conf", "", f"set_real_ip_from {balancer};"),
        edge.changed("limits.conf", "rate=100000r/s", "rate=1r/m"),
        edge.changed("ours-over-tls.conf", "burst=200", "burst=1"),
    ):
        assert [ask(f"2001:db8::{number}") for number in range(1, 5)] == [200, 200, 429, 429]
        assert ask("2001:db8:0:1::1") == 200
        assert [ask(f"192.0.2.{number}") for number in range(1, 5)] == [200] * 4


def test_what_a_careless_edge_lets_through_would_be_seen(edge: Edge, upstream: Container) -> None:
    """The chain appended to instead of ended, a body without limit, a POST that is sent twice."""
    with (
        edge.changed("proxy.conf", "X-Forwarded-For $remote_addr;", "X-Forwarded-For $proxy_add_x_forwarded_for;"),
        edge.changed("nginx.conf", "client_max_body_size 1m;", "client_max_body_size 0;"),
        edge.changed("proxy.conf", "proxy_next_upstream error timeout;", "proxy_next_upstream error non_idempotent;"),
        edge.upstream(MORTAL="1"),
    ):
        forwarded = {dict(edge.get("/echo", FORGED).json["headers"])["x-forwarded-for"] for _ in range(3)}
        assert all(value.startswith("203.0.113.9, ") for value in forwarded)
        assert edge.request("POST", "/echo", bytes(20 * 2**20)).status == 200
        wait_for(lambda: any("," in line["upstream"] for line in ask_and_look(edge)), "one POST had two takers")


def ask_and_look(edge: Edge) -> list[dict[str, Any]]:
    assert edge.request("POST", "/echo/twice", {"x": 1}).status == 200
    return edge.log_lines(1)


# What it does not let through


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_20_mb_is_refused_before_the_service_hears_of_it(
    edge: Edge, upstream: Container, chunked: bool
) -> None:
    path = f"/echo/large-{chunked}"
    body: Any = (bytes(2**16) for _ in range(320)) if chunked else bytes(20 * 2**20)
    headers = {"Transfer-Encoding": "chunked"} if chunked else {}
    connection = edge.connect()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
        connection.request("POST", path, body, encode_chunked=chunked, headers=headers)
    response = connection.getresponse()
    assert_problem(Answer(response.status, response.headers, response.read()), 413)
    connection.close()
    assert f"POST {path}" not in counts(upstream)


@pytest.mark.parametrize("large", ["x" * 9000, "x" * 40_000])
def test_a_head_that_is_too_large_is_refused(edge: Edge, large: str) -> None:
    assert_problem(edge.get("/echo", {"X-Large": large}), 431)
    assert_problem(edge.get(f"/{large}"), 414)


CHUNKED = "Transfer-Encoding: chunked\r\n"
SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        f"Content-Length: 6\r\n{CHUNKED}",
        f"{CHUNKED}Content-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 60\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: -1\r\n",
        f"{CHUNKED}{CHUNKED}",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Host: evil.example\r\n",
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_refused(edge: Edge, upstream: Container, headers: str) -> None:
    request = f"POST /echo/two-ways HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n0\r\n\r\n{SMUGGLED}"
    answer = edge.say(request)
    assert answer.split()[1] in (b"400", b"501")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b'"request_id"' in answer
    assert not {"POST /echo/two-ways", "GET /smuggled"} & counts(upstream).keys()


@pytest.mark.parametrize(
    "header",
    ["X_Forwarded_For: 203.0.113.9", "Transfer-Encoding : chunked", "Bad Name: x", "X-Nul: a\0b", "X-Fold: a\r\n b"],
)
def test_a_header_that_is_none_does_not_pass(edge: Edge, upstream: Container, header: str) -> None:
    answer = edge.say(f"GET /echo HTTP/1.1\r\nHost: localhost\r\n{header}\r\nConnection: close\r\n\r\n")
    if answer.split()[1] == b"400":
        return
    names = dict(json.loads(answer.partition(b"\r\n\r\n")[2])["headers"])
    assert names.keys() <= {"host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"}
    assert "203.0.113.9" not in names.values()


def test_metrics_are_not_for_the_world(edge: Edge, upstream: Container) -> None:
    assert_problem(edge.get("/metrics"), 404)
    assert "GET /metrics" not in counts(upstream)


@pytest.mark.parametrize(
    "path", ["/static/../etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd", "/static..%2f", "/static/"]
)
def test_no_file_but_those_meant_is_served(edge: Edge, upstream: Container, path: str) -> None:
    answer = edge.say(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert b"root:" not in answer
    assert answer.split()[1] in (b"200", b"400", b"403", b"404")


# Slow clients, large bodies


SLOW = {
    "heads": "POST /slow-client HTTP/1.1\r\nHost: localhost\r\n",
    "bodies": "POST /slow-client HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc",
}


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW)
def test_slow_clients_take_nothing_from_the_service(edge: Edge, upstream: Container, sent: str) -> None:
    slow = [edge.open_socket() for _ in range(100)]
    for connection in slow:
        connection.sendall(sent.encode())
    assert {edge.get("/echo").status for _ in range(20)} == {200}
    assert counts(upstream)["open"] == 0
    for connection in slow:
        connection.sendall(b"X")
    assert counts(upstream)["open"] == 0
    for connection in slow:
        connection.close()


def test_without_buffers_slow_bodies_would_reach_the_service(edge: Edge, upstream: Container) -> None:
    with edge.changed("proxy.conf", "", "proxy_request_buffering off;"):
        slow = [edge.open_socket() for _ in range(5)]
        for connection in slow:
            connection.sendall(SLOW["bodies"].encode())
        wait_for(lambda: counts(upstream)["open"] == 5, "they hold a thread each")
        for connection in slow:
            connection.close()


def test_50_megabytes_pass_byte_for_byte_in_both_directions(edge: Edge, upstream: Container) -> None:
    content = random.Random(1).randbytes(50 * 2**20)
    digest = hashlib.sha256(content).hexdigest()
    assert hashlib.sha256(edge.get(f"/bytes/{len(content)}", timeout=60).body).hexdigest() == digest
    with edge.changed("nginx.conf", "client_max_body_size 1m;", "client_max_body_size 64m;"):
        told = edge.request("POST", "/echo", content, timeout=60).json
    assert (told["length"], told["sha256"]) == (len(content), digest)


def test_what_can_be_made_smaller_is(edge: Edge, upstream: Container) -> None:
    large = edge.request("POST", "/echo", {"x": 1}, {"Accept-Encoding": "gzip", "X-A": "a" * 2000})
    assert large.headers["Content-Encoding"] == "gzip"
    assert large.headers["Vary"] == "Accept-Encoding"
    assert edge.request("POST", "/echo", {"x": 1}, {"X-A": "a" * 2000}).headers["Content-Encoding"] is None


# When the service is not well


def test_a_service_that_is_gone_is_502_with_a_time_to_come_back(edge: Edge, upstream: Container) -> None:
    assert_problem(edge.get("/die"), 502, Retry_After="5", Cache_Control="no-store")


def test_a_service_that_takes_too_long_is_504(edge: Edge, upstream: Container) -> None:
    with edge.changed("proxy.conf", "proxy_read_timeout 30s", "proxy_read_timeout 1s"):
        assert_problem(edge.get("/slow/3"), 504, Retry_After=None)


def test_what_the_service_says_of_itself_is_not_touched(edge: Edge, upstream: Container) -> None:
    answer = edge.get("/status/503")
    assert (answer.status, answer.json) == (503, {"own": True})
    assert answer.headers.get_all("Content-Security-Policy") == ["default-src 'none'"]
    assert answer.headers.get_all("Strict-Transport-Security") == ["max-age=63072000; includeSubDomains"]


def test_only_what_changes_nothing_is_asked_of_another_instance(edge: Edge, upstream: Container) -> None:
    with edge.upstream(MORTAL="1", ME="mortal") as mortal:
        wait_for(lambda: edge.get("/echo").status == 200 and counts_of_dead(edge, mortal), "both are known")
        assert {edge.get(f"/echo/again-{number}").status for number in range(20)} == {200}
        statuses = [edge.request("POST", "/echo/once", {"x": 1}).status for _ in range(20)]
        assert set(statuses) == {200, 502}
        assert counts(upstream)["POST /echo/once"] == statuses.count(200)


def counts_of_dead(edge: Edge, mortal: Container) -> bool:
    return any(f"{mortal.host}:8000" in line["upstream"] for line in edge.log_lines(3))


def test_what_reached_nobody_is_asked_of_another_whatever_it_is(edge: Edge, upstream: Container) -> None:
    """An instance that stops refuses connections before nginx has heard of it."""
    with edge.upstream(PORT="9", ME="refuses") as refuses:
        wait_for(lambda: edge.get("/echo").status == 200 and counts_of_dead(edge, refuses), "both are known")
        assert {edge.request("POST", "/echo/refused", {"x": 1}).status for _ in range(20)} == {200}
        assert counts(upstream)["POST /echo/refused"] == 20


def test_it_follows_the_service_to_another_address(edge: Edge) -> None:
    master = edge.nginx.state["State"]["Pid"]
    with edge.upstream(ME="first") as first:
        edge.wait_for_upstream(lambda told: told["me"] == "first")
        with edge.upstream(ME="second") as second:
            edge.docker.run("stop", "--time=0", first.name)
            edge.wait_for_upstream(lambda told: told["me"] == "second")
            assert first.host != second.host
    assert edge.nginx.state["State"]["Pid"] == master


def test_a_reload_under_load_loses_nothing(edge: Edge, upstream: Container) -> None:
    under = load(edge, 100_000, "/slow/0.02")
    for _ in range(3):
        under.wait_for_answers(under.outcomes["answered"] + 50)
        edge.reload()
    under.end()
    assert set(under.outcomes) <= {"answered", "close"}, under.losses
    assert under.outcomes["close"] > 0, "kept connections were told"


def test_an_end_that_does_not_wait_would_lose_some(edge: Edge, upstream: Container) -> None:
    under = load(edge, 100_000, "/slow/0.5")
    under.wait_for_answers(10)
    edge.nginx.execute("nginx", "-c", CONFIG, "-s", "stop")
    edge.compose("up", "--no-deps", "--detach", "--wait", "nginx")
    under.end()
    assert under.outcomes["lost"] > 0


def test_a_stop_answers_what_is_in_flight(edge: Edge, upstream: Container) -> None:
    under = load(edge, 100_000, "/slow/0.5", clients=4)
    under.wait_for_answers(10)
    edge.compose("stop", "nginx")
    under.end()
    assert under.outcomes["lost"] == 0, under.losses
    assert edge.nginx.state["State"]["ExitCode"] == 0
    edge.compose("up", "--no-deps", "--detach", "--wait", "nginx")


# The whole stack: the page, its files, the log


def page_links(stack: Stack) -> list[str]:
    return re.findall(r'(?:href|src)="(/static/[^"]+)"', stack.get("/").body.decode())


def test_static_files_are_kept_for_good_under_names_with_their_hash(stack: Stack) -> None:
    links = page_links(stack)
    assert len(links) == 3
    for path in set(links):
        for whoever in (stack, stack.container("app")):
            answer = whoever.get(path)
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert hashlib.sha256(answer.body).hexdigest()[:16] in path
    plain = re.sub(r"\.[0-9a-f]{16}\.", ".", links[0])
    assert stack.get(plain).headers["Cache-Control"] == "no-cache"
    assert stack.get(plain).body == stack.get(links[0]).body
    assert "/static/" not in stack.container("nginx").output(), "a page is a line in the log, its files are none"


def test_the_headers_of_nginx_are_those_of_the_service(stack: Stack) -> None:
    page, file = stack.get("/").headers, stack.get(page_links(stack)[0]).headers
    names = re.findall(r"^add_header (\S+)", (stack.folder / "deploy" / "nginx" / "headers.conf").read_text(), re.M)
    assert len(names) == 9
    for name in names:
        ours, theirs = page.get_all(name, []), file.get_all(name, [])
        assert len(ours) == len(theirs) == 1
        assert ours == theirs or name == "X-Request-ID"
    direct = {name.lower() for name in stack.container("app").get("/").headers}
    assert {name.lower() for name in names} - direct == {"strict-transport-security"}, "that one comes over TLS alone"


def test_a_page_of_the_release_before_still_finds_its_files(stack: Stack) -> None:
    """In a rolling deploy files come first; pages of both releases are then served, and stay open for longer."""
    old = next(path for path in page_links(stack) if path.endswith(".css"))
    before = stack.get(old).body
    css = stack.folder / "app" / "static" / "app.css"
    css.write_bytes(css.read_bytes() + b"\n.new {\n  color: red;\n}\n")
    stack.compose("build", "assets")
    stack.compose("run", "--rm", "assets")
    new = f"/static/app.{hashlib.sha256(css.read_bytes()).hexdigest()[:16]}.css"
    assert new != old
    assert stack.get(new).body.endswith(b"color: red;\n}\n")
    assert stack.get(old).body == before
    told = stack.compose("run", "--rm", "assets", "python", "-c", "print(open('app/assets.json').read())")
    assert f'"app.css": "{new.removeprefix("/static/")}"' in told, "the image has its own alone"


def test_one_id_in_both_logs(stack: Stack) -> None:
    answer = stack.get("/api/items?limit=1&secret=canary", {"X-Request-ID": "from-client-1"})
    assert answer.headers["X-Request-ID"] == "from-client-1"
    answer = stack.get("/api/items", {"X-Request-ID": 'no"id'})
    for request_id in ("from-client-1", answer.headers["X-Request-ID"]):
        ours = stack.container("app").wait_for_log(request_id=f"^{request_id}$")
        lines = [json.loads(line) for line in stack.container("nginx").output().splitlines() if line.startswith("{")]
        (edges,) = [line for line in lines if line["request_id"] == request_id]
        for name in ("method", "path", "status", "level", "message"):
            assert edges[name] == ours[name]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", edges["ts"])
        assert isinstance(edges["duration_ms"], int)
    assert "canary" not in stack.container("nginx").output()


def test_the_service_knows_where_it_is_reached(stack: Stack) -> None:
    assert f"https://localhost:{stack.port}/api/items" in stack.get("/api/docs", FORGED).body.decode()


def test_no_port_is_published_but_those_of_nginx(stack: Stack) -> None:
    rows = [json.loads(line) for line in stack.compose("ps", "--format=json").splitlines()]
    published = {
        (row["Service"], port["PublishedPort"], port["URL"])
        for row in rows
        for port in row["Publishers"] or []
        if port["PublishedPort"]
    }
    assert published == {("nginx", stack.port, "127.0.0.1"), ("nginx", stack.http_port, "127.0.0.1")}
    assert stack.get("/metrics").status == 404


def test_nginx_has_no_more_rights_than_it_needs(stack: Stack) -> None:
    state = stack.container("nginx").state
    assert state["HostConfig"]["ReadonlyRootfs"]
    assert state["HostConfig"]["CapDrop"] == ["ALL"]
    assert sorted(state["HostConfig"]["CapAdd"]) == ["CHOWN", "SETGID", "SETUID"]
    assert state["Config"]["StopTimeout"] == SECONDS["grace"]
    nginx = stack.container("nginx")
    assert nginx.execute("stat", "-c", "%u %a", "/etc/nginx/tls/privkey.pem") == "0 600"
    assert (
        "Permission denied"
        in stack.docker.ask("exec", "--user=nginx", nginx.name, "cat", "/etc/nginx/tls/privkey.pem").stderr
    )


# MDN's HTTP Observatory


@pytest.fixture(scope="session")
def observatory() -> Path:
    """The scanner's folder, installed once for each lock file."""
    lock = (OBSERVATORY / "package-lock.json").read_bytes()
    home = ROOT / "build" / f"observatory-{hashlib.sha256(lock).hexdigest()[:12]}"
    home.parent.mkdir(exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(OBSERVATORY, home)
            # Its own scripts would fetch lists: of hosts in browsers' preload list, of which localhost is none.
            npm = [str(find("npm", "npm")), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(npm, cwd=home, check=True, capture_output=True)
            (home / SCANNER / "conf" / "hsts-preload.json").write_text("{}")
            (home / "complete").touch()
    return home


def scan(observatory: Path, site: Stack, certificate: Path) -> Any:
    """Grade, and what was found."""
    environ = {**os.environ, "NODE_EXTRA_CA_CERTS": str(certificate)}
    environ |= {"SITE_HTTP_PORT": str(site.http_port), "SITE_HTTPS_PORT": str(site.port)}
    command = [str(find("node", "nodejs")), "--import", "./ports.mjs", f"{SCANNER}/src/scan.js", "localhost"]
    done = subprocess.run(command, cwd=observatory, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["scan"]["grade"]


@pytest.mark.with_all
def test_the_observatory_gives_the_page_the_best_grade(stack: Stack, observatory: Path, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.write_text(stack.container("nginx").execute("cat", "/etc/nginx/tls/fullchain.pem"))
    assert scan(observatory, stack, certificate) == "A+"


@pytest.mark.with_all
def test_the_observatory_would_give_a_worse_one(edge: Edge, upstream: Container, observatory: Path) -> None:
    with (
        edge.changed("ours-over-tls.conf", "rewrite ^ /edge/https last;", ""),
        edge.changed("headers.conf", "add_header X-Content-Type-Options nosniff always;", ""),
    ):
        assert scan(observatory, edge, edge.authority) not in ("A+", "A")


# A browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    with Chromium("--ignore-certificate-errors") as browser:
        yield browser


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("path", ["/", "/api/docs"])
def test_a_browser_has_nothing_to_complain_of(
    stack: Stack, browser: Chromium, pytestconfig: pytest.Config, path: str, width: int
) -> None:
    wanted = path == "/" and width == DESKTOP and pytestconfig.getoption("--pictures")
    picture = ROOT / "docs" / "page.png" if wanted else None
    seen = browser.visit(f"https://localhost:{stack.port}{path}", width, picture=picture, height=560)
    assert seen.complaints == []
    assert {url.split("/")[2] for url in seen.requests} == {f"localhost:{stack.port}"}
    assert len(set(seen.requests)) == 3
    assert seen.width <= width
    assert "My Service" in seen.text


def test_a_browser_would_complain(edge: Edge, upstream: Container, browser: Chromium) -> None:
    seen = browser.visit(f"https://localhost:{edge.port}/page")
    assert any("inline" in complaint for complaint in seen.complaints)
    assert any("other.invalid" in complaint for complaint in seen.complaints)
