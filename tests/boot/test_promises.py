"""What a running service promises, whatever serves it. Each test takes a variant as a real process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boot.conftest import Send, Start, prepare
from support.load import Load
from support.service import SECRET_KEY, Answer, Metrics, Service, free_port, wait_for
from support.template import SERVICE, load

THREADS: dict[str, int] = load(SERVICE / "app" / "capacity.py").THREADS  # of a worker, by variant
FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "/evil",
    "SCRIPT_NAME": "/evil",
}


def get_request(path: str, connection: str = "close") -> str:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n"


def read(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def takes_nobody(port: int) -> bool:
    """Whether a listener is gone, or behind its door."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return True
    return False


# Answers


@pytest.mark.every_class
def test_an_item_lives_through_create_read_change_list_and_delete(service: Service) -> None:
    created = service.request("POST", "/api/items", {"name": "Bolt", "quantity": 3})
    assert created.status == 201
    path = created.headers["Location"]
    assert service.get(path).json == created.json
    assert service.request("PATCH", path, {"quantity": 5}).json["quantity"] == 5
    assert created.json["id"] in [item["id"] for item in service.get("/api/items?limit=100").json["items"]]
    assert service.request("DELETE", path).status == 204
    assert service.get(path).status == 404


@pytest.mark.default_class
def test_the_page_and_its_files_are_there(service: Service) -> None:
    page = service.get("/")
    assert page.status == 200
    assert "What is running" in page.body.decode()
    for file in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.body.decode()):
        assert service.get(file).status == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.default_class
def test_probes_answer_whatever_the_host(start: Start) -> None:
    service = start(TRUSTED_HOSTS="api.example.com")
    for host in ("10.0.0.7:8000", "evil.example", ""):
        assert service.get("/healthz/live", {"Host": host}).status == 200
        assert service.get("/healthz/ready", {"Host": host}).json["status"] == "ok"
    assert service.get("/api/items", {"Host": "evil.example"}).status == 400
    assert service.get("/api/items", {"Host": "api.example.com"}).status == 200


@pytest.mark.default_class
@pytest.mark.default_class
@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/nowhere", None, {}, 404),
        ("PUT", "/api/items", None, {}, 405),
        ("POST", "/api/items", b"name=x", {"Content-Type": "text/plain"}, 415),
        ("POST", "/api/items", b"{", {"Content-Type": "application/json"}, 400),
        ("POST", "/api/items", {"name": ""}, {}, 422),
        ("POST", "/api/items", {"name": "x" * 2**20}, {}, 413),
        ("GET", "/trial/teapot", None, {}, 429),
        ("GET", "/trial/fail", None, {}, 500),
    ],
)
def test_an_error_is_a_problem_whose_id_stands_in_header_body_and_log(
    service: Service, method: str, path: str, body: object, headers: dict[str, str], status: int
) -> None:
    answer = service.request(method, path, body, {"X-Request-ID": f"trial-{status}-{method}", **headers})
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["request_id"] == answer.headers["X-Request-ID"] == f"trial-{status}-{method}"
    assert service.wait_for_log(logger="^app.request$", request_id=f"trial-{status}-{method}")["status"] == status


@pytest.mark.default_class
def test_a_traceback_reaches_the_log_in_one_line_and_never_the_client(service: Service) -> None:
    answer = service.get("/trial/fail", {"X-Request-ID": "the-failing-one"})
    assert b"ZeroDivision" not in answer.body
    assert b"Traceback" not in answer.body
    line = service.wait_for_log(request_id="the-failing-one", level="ERROR")
    assert "Traceback" in line["exc_info"]
    assert "second line" in line["exc_info"]


def test_a_body_too_large_in_chunks_is_refused_and_not_cut_off(service: Service) -> None:
    connection = service.connect()
    with contextlib.closing(connection):
        chunks = (b"x" * 65536 for _ in range(20))
        connection.request("POST", "/trial/echo", chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        assert connection.getresponse().status == 413


def test_a_body_nobody_read_is_no_part_of_the_next_request(service: Service) -> None:
    connection = service.connect()
    for _ in range(3):
        connection.request("POST", "/trial/ignore", b"GET /smuggled HTTP/1.1\r\n\r\n" * 100)
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    connection.close()


def test_two_hundred_writes_at_once_make_two_hundred_rows(start: Start) -> None:
    service = start()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: service.request("POST", "/api/items", {"name": f"n{n}"}), range(200)))
    assert [answer.status for answer in answers] == [201] * 200
    assert len({answer.json["id"] for answer in answers}) == 200


# Proxies


def test_a_forged_header_is_believed_by_nobody_who_trusts_no_proxy(start: Start, tmp_path: Path) -> None:
    assert (
        start().get("/trial/client", FORGED).json.items()
        >= {
            "address": "127.0.0.1",
            "scheme": "http",
            "root": "",
        }.items()
    )


def test_over_a_unix_socket_a_forged_header_is_not_believed_either(start: Start, tmp_path: Path) -> None:
    port = free_port()
    service = start(GUNICORN_BIND=f"unix:{tmp_path / 'socket'},127.0.0.1:{port}", PORT=str(port))
    head = "".join(f"{name}: {value}\r\n" for name, value in FORGED.items())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(tmp_path / "socket"))
        connection.sendall(f"GET /trial/client HTTP/1.1\r\nHost: localhost\r\n{head}Connection: close\r\n\r\n".encode())
        told = json.loads(read(connection).partition(b"\r\n\r\n")[2])
    assert (told["scheme"], told["host"], told["root"]) == ("http", "localhost", "")
    assert service.stop() == 0


def test_one_trusted_hop_takes_what_the_proxy_next_to_us_says(start: Start) -> None:
    service = start(TRUSTED_PROXY_HOPS="1")
    forwarded = {**FORGED, "X-Forwarded-For": "203.0.113.9, 198.51.100.4"}
    told = service.get("/trial/client", forwarded)
    assert told.json["address"] == "198.51.100.4"
    assert (told.json["scheme"], told.json["host"], told.json["root"]) == ("https", "evil.example", "")
    assert told.headers["Strict-Transport-Security"]


@pytest.mark.default_class
def test_a_prefix_is_the_proxys_to_strip_and_takes_no_probe_away(start: Start) -> None:
    service = start(SCRIPT_NAME="/shop", TRUSTED_PROXY_HOPS="1")
    assert service.get("/healthz/live").status == 200
    assert service.get("/trial/client", {"X-Forwarded-Prefix": "/shop"}).json["root"] == "/shop"
    assert service.get("/trial/client").json["root"] == ""


# Logs


@pytest.mark.parametrize(
    "level",
    [
        "INFO",
        pytest.param("DEBUG", marks=pytest.mark.default_class),
        *(
            pytest.param(level, marks=[pytest.mark.default_class, pytest.mark.with_all])
            for level in ("WARNING", "ERROR", "CRITICAL")
        ),
    ],
)
def test_every_line_of_output_is_json_at_every_level(start: Start, level: str, send: Send) -> None:
    service = start(LOG_LEVEL=level, PYTHONWARNINGS="default::DeprecationWarning")
    paths = ["/", "/trial/fail", "/trial/warn", "/nowhere", "/healthz/ready", "/api/items?limit=x", "/%FF%00"]
    for path in paths:
        service.get(path)
    read(send(service, "GARBAGE\r\n\r\n")[0])
    service.signal(signal.SIGHUP)
    service.wait_for_workers(2)
    os.kill(next(iter(service.workers())), signal.SIGKILL)
    service.wait_for_workers(2)
    assert service.stop() == 0
    lines = service.log()
    assert service.output.read_bytes().endswith(b"\n") or not lines
    assert service.errors.read_text() == ""
    order = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    assert all(order.index(line["level"]) >= order.index(level) for line in lines)
    if level == "INFO":
        loggers = {line["logger"] for line in lines}
        assert loggers >= {"app", "app.request", "gunicorn.error", "py.warnings"}
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"]) for line in lines)


def test_a_request_line_has_the_fields_an_operator_searches_by(service: Service) -> None:
    service.get("/trial/client?x=1", {"X-Request-ID": "fields-fields"})
    line = service.wait_for_log(logger="^app.request$", request_id="fields-fields")
    assert (
        line.items()
        >= {
            "level": "INFO",
            "message": "request",
            "method": "GET",
            "path": "/trial/client",
            "route": "/trial/client",
            "status": 200,
            "user_id": "user-7",
            "trace_id": None,
        }.items()
    )
    assert line["duration_ms"] >= 0


@pytest.mark.default_class
def test_probes_are_not_logged(service: Service) -> None:
    service.get("/healthz/live", {"X-Request-ID": "probe-probe"})
    service.get("/api/items", {"X-Request-ID": "after-the-probe"})
    service.wait_for_log(request_id="after-the-probe")
    assert not [line for line in service.log() if line["request_id"] == "probe-probe"]


def test_the_first_lines_say_what_was_started_and_why(start: Start, variant: str) -> None:
    service = start(WEB_CONCURRENCY=None, APP_VERSION="1.4.2")
    service.wait_for_log(message=rf"my-service 1\.4\.2 .*development, at http://127\.0\.0\.1:{service.port}$")
    sized = rf"(\d+) {variant} workers of {THREADS[variant]} threads, a pool of \d connections each, about \d+ MB; .*CPU.*MB"
    found = re.search(sized, service.wait_for_log(message=sized)["message"])
    assert found is not None
    service.wait_for_workers(int(found[1]))
    assert service.command_line(service.process.pid) == "gunicorn: master [my-service]"


def test_what_requests_log_has_their_id_and_no_other(start: Start) -> None:
    service = start(WEB_CONCURRENCY="1")

    def ask(number: int) -> None:
        connection = service.connect()
        with contextlib.closing(connection):
            for part in range(3):
                connection.request("GET", "/trial/tell", headers={"X-Request-ID": f"trial-id-{number}-{part}"})
                assert connection.getresponse().read()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    told = [line for line in service.log() if line["logger"] == "app.trial"]
    assert len(told) == 24
    assert all(line["request_id"] == line["message"] for line in told)


# Metrics


def counted(metrics: Metrics, route: str) -> float:
    return metrics.total("http_requests_total", route=route)


@pytest.mark.every_class
def test_every_request_is_counted_once_through_reload_recycling_and_kill(start: Start) -> None:
    service = start(GUNICORN_CMD_ARGS="--max-requests 60 --max-requests-jitter 20")

    def ask(count: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            answers: list[Answer] = list(pool.map(lambda _: service.get("/api/items"), range(count)))
        assert {answer.status for answer in answers} == {200}

    ask(200)
    service.wait_for_metrics(lambda m: counted(m, "/api/items") == 200, "200 counted")
    before = service.wait_for_workers(2)
    service.signal(signal.SIGHUP)
    service.wait_for_workers(2, without=before)
    ask(100)
    service.wait_for_metrics(lambda m: counted(m, "/api/items") == 300, "300 counted after a reload")
    victim = next(iter(service.wait_for_workers(2)))
    os.kill(victim, signal.SIGKILL)
    service.wait_for_workers(2, without={victim})
    ask(100)
    service.wait_for_metrics(
        lambda m: (
            counted(m, "/api/items") == m.total("http_request_duration_seconds_count", route="/api/items") == 400
            and m.total("http_requests_in_flight") == 0
        ),
        "400 counted after a kill, and timed, and none in flight",
    )


def test_what_was_in_flight_in_a_killed_worker_is_forgotten(start: Start, send: Send) -> None:
    service = start(WEB_CONCURRENCY="1")
    (connection,) = send(service, get_request("/trial/sleep/30.0"))
    service.wait_for_metrics(lambda m: m.total("http_requests_in_flight") == 1, "one in flight")
    (worker,) = service.workers()
    os.kill(worker, signal.SIGKILL)
    service.wait_for_metrics(
        lambda m: m.total("http_requests_in_flight") == m.total("server_threads_busy") == 0, "none in flight"
    )
    connection.close()


@pytest.mark.default_class
def test_routes_are_templates_and_methods_standard_ones(service: Service) -> None:
    service.get("/api/items/12345678")
    service.get("/no/such/path/12345678")
    service.request("BREW", "/api/items")
    metrics = service.wait_for_metrics(lambda m: m.total("http_requests_total", method="OTHER") >= 1, "OTHER")
    assert metrics.total("http_requests_total", route="/api/items/<int:item_id>", status="404") >= 1
    assert metrics.total("http_requests_total", route="unmatched", status="404") >= 1
    assert "12345678" not in metrics.text
    assert metrics.total("app_info", version="dev") == 1


def test_busy_threads_are_seen_and_the_full_pool_too(start: Start, send: Send) -> None:
    service = start(WEB_CONCURRENCY="1")
    threads = service.wait_for_metrics(lambda m: m.total("server_threads") > 0, "threads").total("server_threads")
    connections = send(service, *[get_request("/trial/sleep/2.0")] * int(threads))
    service.wait_for_metrics(lambda m: m.total("server_threads_busy") == threads, "every thread busy")
    assert all(b"200 OK" in read(connection) for connection in connections)
    service.wait_for_metrics(lambda m: m.total("server_threads_busy") == 0, "no thread busy")


def test_the_folder_of_metrics_is_new_stays_small_and_goes_with_the_server(start: Start) -> None:
    service = start()
    (folder,) = service.metrics_base.iterdir()
    for _ in range(5):
        before = service.wait_for_workers(2)
        service.signal(signal.SIGHUP)
        service.wait_for_workers(2, without=before)
        service.get("/api/items")
    slots = {path.stem.rpartition("_")[2] for path in folder.glob("*.db")}
    assert slots <= {"server", "0", "1", "2", "3"}, "one file a slot, and never more slots than workers at once"
    assert service.stop() == 0
    wait_for(lambda: not folder.exists(), "the folder is removed")


@pytest.mark.default_class
def test_a_folder_left_by_a_killed_server_is_removed_at_the_next_start(start: Start) -> None:
    first = start()
    first.wait_for_workers(2)  # or the master may fork another while they are killed
    (left,) = first.metrics_base.iterdir()
    for pid in first.session():
        os.kill(pid, signal.SIGKILL)
    first.process.wait()
    assert left.exists()
    second = start(PROMETHEUS_MULTIPROC_DIR=str(first.metrics_base))
    assert not left.exists()
    third = start(PROMETHEUS_MULTIPROC_DIR=str(first.metrics_base))
    assert len(list(first.metrics_base.iterdir())) == 2, "that of a living server stays"
    del second, third


@pytest.mark.default_class
def test_a_killed_listener_is_started_again(start: Start) -> None:
    service = start()
    (listener,) = wait_for(service.listeners, "a listener")
    os.kill(listener, signal.SIGKILL)
    wait_for(lambda: service.listeners() not in ([], [listener]), "another listener")
    service.wait_for_metrics(lambda m: m.total("server_threads") > 0, "metrics again")


@pytest.mark.default_class
def test_the_listener_ends_with_a_master_that_was_killed(start: Start) -> None:
    service = start()
    wait_for(service.listeners, "a listener")
    os.kill(service.process.pid, signal.SIGKILL)
    wait_for(lambda: not service.session(), "no process left")
    assert list(service.metrics_base.iterdir()) == []


@pytest.mark.default_class
def test_a_taken_metrics_port_is_one_warning_and_served_once_it_is_free(start: Start) -> None:
    first = start()
    second = start(METRICS_PORT=str(first.metrics_port))
    second.wait_for_log(level="WARNING", message="METRICS_PORT")
    assert second.get("/healthz/ready").status == 200
    first.stop()
    second.metrics_port = first.metrics_port
    second.wait_for_metrics(lambda m: m.total("server_threads") > 0, "the second server's metrics")
    assert len([line for line in second.log() if "METRICS_PORT" in line["message"]]) == 1


@pytest.mark.default_class
def test_it_listens_on_this_machine_alone_unless_told_otherwise(service: Service) -> None:
    """Nothing but a proxy of this machine reaches it; in development nobody else reaches the metrics either."""
    service.wait_for_metrics(lambda m: m.total("server_threads") > 0, "metrics are served")
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {fields[1] for fields in sockets if fields[3] == "0A"}
    for port in (service.port, service.metrics_port):
        assert f"0100007F:{port:04X}" in listening
        assert f"00000000:{port:04X}" not in listening


@pytest.mark.default_class
def test_the_public_port_has_no_metrics(service: Service) -> None:
    assert service.get("/metrics").status == 404


# Busy


def test_a_quick_request_never_waits_behind_slow_ones_while_a_worker_is_free(
    start: Start, variant: str, send: Send
) -> None:
    service = start(WEB_CONCURRENCY="3")
    threads = THREADS[variant]
    slow = send(service, *[get_request("/trial/sleep/4.0")] * (2 * threads))
    service.wait_for_metrics(lambda m: m.total("server_threads_busy") == 2 * threads, "two workers full")
    began = time.monotonic()
    for _ in range(20):
        assert service.get("/healthz/live").status == 200
    assert time.monotonic() - began < 3, "answered before any of the slow ones"
    for connection in slow:
        read(connection)


def test_connections_that_say_nothing_hold_up_nobody(start: Start, send: Send) -> None:
    service = start()
    silent = send(service, *[""] * 44)
    began = time.monotonic()
    assert service.get("/healthz/live").status == 200
    assert time.monotonic() - began < 3
    for connection in silent:
        connection.close()


def test_idle_connections_stay_alive_and_take_no_thread(start: Start, variant: str) -> None:
    if variant == "sync":
        pytest.skip("a sync worker keeps no connection alive")
    service = start(WEB_CONCURRENCY="1")
    connections = [service.connect() for _ in range(14)]
    for _ in range(2):
        for connection in connections:
            connection.request("GET", "/healthz/live")
            response = connection.getresponse()
            response.read()
            assert not response.will_close
    service.wait_for_metrics(lambda m: m.total("server_threads_busy") == 0, "no thread busy")
    for connection in connections:
        connection.close()


def test_a_worker_whose_every_thread_hangs_is_replaced(start: Start, send: Send, variant: str) -> None:
    service = start(WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS="--timeout 2")
    (stuck,) = service.workers()
    connections = send(service, *[get_request("/trial/sleep/60.0")] * THREADS[variant])
    service.wait_for_workers(1, without={stuck})
    assert "trial/routes.py" in service.wait_for_log(level="ERROR", message="did not answer")["message"]
    for connection in connections:
        connection.close()
    assert service.get("/healthz/live").status == 200


def test_a_long_request_beside_free_threads_replaces_nobody(start: Start, variant: str) -> None:
    if variant == "sync":
        pytest.skip("a sync worker has no other thread")
    service = start(WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS="--timeout 2")
    assert service.get("/trial/sleep/5.0").status == 200


# Stopping


@pytest.mark.every_class
def test_a_stop_under_load_loses_nothing(start: Start) -> None:
    service = start(LOG_LEVEL="WARNING")
    load = Load(service.port, total=2500).start()
    load.wait_for_answers(200)
    assert service.stop() == 0
    load.wait()
    assert load.outcomes["lost"] == 0, load.losses
    assert load.outcomes["refused"] > 0, "later connections are refused"
    assert load.outcomes["answered"] + load.outcomes["refused"] == 2500
    assert load.outcomes["close"] > 0, "kept connections are told to close"


def test_a_request_under_way_is_answered_before_the_stop(start: Start, send: Send) -> None:
    service = start()
    connections = send(service, get_request("/trial/sleep/2.0"), get_request("/trial/stream/20"))
    service.wait_for_metrics(lambda m: m.total("http_requests_in_flight") == 2, "both under way")
    assert service.stop() == 0
    slept, streamed = map(read, connections)
    assert b"200 OK" in slept
    assert streamed.endswith(b"0\r\n\r\n")
    assert streamed.partition(b"\r\n\r\n")[2].count(b"x") == 20_000


def test_more_requests_than_threads_are_all_answered_before_the_stop(start: Start, send: Send, variant: str) -> None:
    service = start(WEB_CONCURRENCY="1")
    connections = send(service, *[get_request("/trial/sleep/0.4")] * (2 * THREADS[variant] + 4))
    service.wait_for_metrics(lambda m: m.total("http_requests_in_flight") >= 1, "some under way")
    with ThreadPoolExecutor(len(connections)) as readers:
        answers = readers.map(read, connections)
        assert service.stop() == 0
        assert all(b"200 OK" in answer for answer in answers)


def test_connections_without_a_request_hold_up_no_stop(start: Start, send: Send) -> None:
    service = start(WEB_CONCURRENCY="1")
    send(service, *[""] * 10)  # and nothing is sent on them
    kept = [service.connect() for _ in range(10)]
    for connection in kept:
        connection.request("GET", "/healthz/live")
        assert connection.getresponse().read()
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 10, "before the grace for slow requests is over"
    assert all(connection.sock is None or connection.sock.recv(1) == b"" for connection in kept), "closed, not reset"
    for connection in kept:
        connection.close()


def test_a_request_that_comes_in_pieces_during_a_stop_is_answered(start: Start, send: Send) -> None:
    service = start(WEB_CONCURRENCY="1")
    head, _, rest = get_request("/healthz/live").partition("Host")
    (connection,) = send(service, head)
    service.signal(signal.SIGTERM)
    wait_for(lambda: takes_nobody(service.port), "nothing but this connection is left")
    connection.sendall(f"Host{rest}".encode())
    assert b"200 OK" in read(connection)
    assert service.process.wait(10) == 0


def test_clients_that_never_close_hold_up_nobody(start: Start, send: Send, variant: str) -> None:
    if variant == "sync":
        pytest.skip("a sync worker waits up to two seconds for its client to close: it needs a proxy in front")
    service = start(WEB_CONCURRENCY="1")
    left_open = send(service, *[get_request("/healthz/live")] * 30)
    began = time.monotonic()
    assert service.get("/healthz/live").status == 200
    assert service.stop() == 0
    assert time.monotonic() - began < 10, "two seconds for all of them, not two for each"
    assert all(b"200 OK" in read(connection) for connection in left_open)


def test_a_stop_that_comes_while_workers_are_forked_reaches_them(folder: Path, venv: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.conf.py"
    slow.write_text(
        "import runpy, time\n"
        "globals().update(runpy.run_path('gunicorn.conf.py'))\n"
        "forked = post_fork\n"
        "def post_fork(server, worker):\n"
        "    time.sleep(1)\n"
        "    forked(server, worker)\n"
    )
    service = prepare(folder, venv, tmp_path, {"GUNICORN_CMD_ARGS": f"--config {slow}"})
    service.start()
    try:
        service.wait_for_log(message="Booting worker")
        assert service.stop(seconds=10) == 0, "before the grace for slow requests is over"
    finally:
        service.clean_up()


def test_a_reload_under_load_loses_nothing(start: Start) -> None:
    service = start(LOG_LEVEL="WARNING")
    before = service.wait_for_workers(2)
    load = Load(service.port, total=1500).start()
    load.wait_for_answers(100)
    service.signal(signal.SIGHUP)
    service.wait_for_workers(2, without=before)
    load.wait()
    assert load.outcomes["lost"] == load.outcomes["refused"] == 0, load.losses
    assert load.outcomes["answered"] == 1500


def test_recycled_workers_lose_nothing(start: Start) -> None:
    service = start(LOG_LEVEL="WARNING", GUNICORN_CMD_ARGS="--max-requests 100 --max-requests-jitter 30")
    load = Load(service.port, total=1000).start().wait()
    assert load.outcomes["answered"] == 1000, load.losses
    assert len(service.wait_for_workers(2)) == 2


def test_a_killed_worker_is_replaced(start: Start) -> None:
    service = start()
    victim = next(iter(service.wait_for_workers(2)))
    os.kill(victim, signal.SIGKILL)
    service.wait_for_workers(2, without={victim})
    assert service.wait_for_log(level="ERROR", message=f"{victim}")
    assert service.get("/api/items").status == 200


def test_a_worker_told_to_stop_at_once_says_so_and_is_replaced(start: Start) -> None:
    service = start()
    told = next(iter(service.wait_for_workers(2)))
    os.kill(told, signal.SIGQUIT)
    service.wait_for_log(message=f"Worker {told} was told to stop at once")
    service.wait_for_workers(2, without={told})


def test_a_new_master_takes_over_the_socket_of_the_old_one(start: Start) -> None:
    service = start(LOG_LEVEL="WARNING")
    load = Load(service.port, total=3000).start()
    load.wait_for_answers(100)
    service.signal(signal.SIGUSR2)
    old = service.workers()
    wait_for(lambda: len(service.workers() - old) == 2, "two workers of the new master")
    service.signal(signal.SIGTERM)
    service.process.wait(20)
    load.wait()
    assert load.outcomes["lost"] == load.outcomes["refused"] == 0, load.losses
    assert service.get("/healthz/ready").status == 200


def test_control_c_ends_it_at_once_also_where_it_is_said_twice(start: Start) -> None:
    services = [start() for _ in range(5)]
    for service in services:
        os.killpg(service.process.pid, signal.SIGINT)  # a terminal tells every process, and the master its workers
        assert service.process.wait(10) == 0
    wait_for(lambda: not any(service.session() for service in services), "no process left")


# Refusing to start


@pytest.mark.default_class
def test_a_second_start_on_a_taken_port_is_refused_in_one_line(service: Service, tmp_path: Path) -> None:
    second = prepare(service.folder, service.venv, tmp_path, {"PORT": str(service.port)})
    second.start()
    assert second.process.wait(10) != 0
    (line,) = second.errors.read_text().splitlines()
    assert str(service.port) in line
    assert f"PORT={service.port + 1}" in line
    assert service.get("/healthz/live").status == 200


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"PROMETHEUS_MULTIPROC_DIR": "/proc/nowhere"}, "PROMETHEUS_MULTIPROC_DIR: no folder can be made"),
        (
            {"GUNICORN_WORKER_CLASS": "eventlet"},
            "GUNICORN_WORKER_CLASS: must be one of: gthread, sync, gevent, asgi; export GUNICORN_WORKER_CLASS=",
        ),
        ({"METRICS_PORT": "many"}, "METRICS_PORT: must be a whole number"),
        ({"READINESS_REQUIRED": "databse"}, "READINESS_REQUIRED: has no check databse"),
        ({"APP_ENV": "production", "SECRET_KEY": "changeme" * 8, "DATABASE_URL": ""}, "SECRET_KEY"),
    ],
)
def test_wrong_settings_are_said_in_a_line_each_without_their_secrets(
    folder: Path, venv: Path, tmp_path: Path, environ: dict[str, str], expected: str
) -> None:
    service = prepare(folder, venv, tmp_path, environ)
    service.start()
    assert service.process.wait(10) == 1
    errors = service.errors.read_text()
    assert expected in errors
    assert "Traceback" not in errors
    assert "changeme" not in errors + service.output.read_text()


@pytest.mark.default_class
def test_production_starts_without_its_database_and_says_that_it_is_not_ready(start: Start) -> None:
    service = start(
        APP_ENV="production", DATABASE_URL="postgres://app:canary-pw@127.0.0.1:1/app", METRICS_BIND="127.0.0.1"
    )
    began = time.monotonic()
    ready = service.get("/healthz/ready")
    assert time.monotonic() - began < 2
    assert (ready.status, ready.json["status"]) == (503, "unavailable")
    assert ready.json["checks"]["database"]["state"] == "down"
    page = service.get("/").body.decode()
    assert "What is running" not in page
    service.get("/api/items")
    service.stop()
    everything = service.output.read_text() + service.errors.read_text() + page
    assert "canary-pw" not in everything
    assert SECRET_KEY not in everything
