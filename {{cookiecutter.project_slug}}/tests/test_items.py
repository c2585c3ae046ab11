"""`/api/items`. Goes with `app/items/`."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import REGISTRY
from sqlalchemy import update

from app.extensions import db
from app.items import routes
from app.items.model import Item

URL = "/api/items"


def create(client: FlaskClient, name: str = "bolt") -> int:
    """The id of a new item."""
    response = client.post(URL, json={"name": name})
    assert response.status_code == 201
    number: int = response.get_json()["id"]
    return number


def cursor(number: int) -> str:
    return f"{number:016x}"


def test_an_item_lives_from_creation_to_deletion(client: FlaskClient) -> None:
    response = client.post(URL, json={"name": "bolt", "quantity": 5})
    item = response.get_json()
    where = response.headers["Location"]
    assert (response.status_code, where) == (201, f"{URL}/{item['id']}")
    assert item.keys() == {"id", "name", "quantity", "version", "created_at", "updated_at"}
    assert (item["name"], item["quantity"]) == ("bolt", 5)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", item["created_at"])
    assert client.get(where).get_json() == item

    assert client.patch(where, json={}).get_json() == item
    changed = client.patch(where, json={"quantity": 4}).get_json()
    assert changed == {**item, "quantity": 4, "version": item["version"] + 1, "updated_at": changed["updated_at"]}
    assert client.get(where).get_json() == changed

    deletion = client.delete(where)
    assert (deletion.status_code, deletion.data) == (204, b"")
    assert client.get(where).status_code == 404


@pytest.mark.parametrize("name", ["a", "ü" * 100, "🔩" * 100, 'line\nfeed "quotes" <b>'])
def test_a_name_is_kept_as_sent(client: FlaskClient, name: str) -> None:
    assert client.get(f"{URL}/{create(client, name)}").get_json()["name"] == name


def test_a_whole_number_may_be_written_with_a_point(client: FlaskClient) -> None:
    response = client.post(URL, data='{"name": "a", "quantity": 3.0}', content_type="application/json")
    assert response.get_json()["quantity"] == 3


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/name"]),
        ([], [""]),
        ({"name": ""}, ["/name"]),
        ({"name": "a" * 101}, ["/name"]),
        ({"name": "nul \0"}, ["/name"]),
        ({"name": None}, ["/name"]),
        ({"name": 5, "quantity": "5"}, ["/name", "/quantity"]),
        *[({"name": "a", "quantity": bad}, ["/quantity"]) for bad in (-1, 2**31, 10**100, 1.5, True, None)],
        ({"name": "a", "id": 1, "of/a~kind": 1}, ["/id", "/of~1a~0kind"]),
    ],
)
def test_what_is_not_valid_is_pointed_at(client: FlaskClient, body: Any, pointers: list[str]) -> None:
    response = client.post(URL, json=body)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.get_json()["errors"]] == pointers


@pytest.mark.parametrize("body", [{"name": None}, {"name": ""}, {"quantity": -1}, {"version": 5}])
def test_a_change_is_held_to_the_same_rules(client: FlaskClient, body: dict[str, object]) -> None:
    assert client.patch(f"{URL}/{create(client)}", json=body).status_code == 422


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"name": "\\ud800"}', b"[" * 9000])
def test_a_body_that_is_not_json_is_refused(client: FlaskClient, body: bytes) -> None:
    assert client.post(URL, data=body, content_type="application/json").status_code == 400


@pytest.mark.parametrize("number", [0, 2**63 - 1, 2**63, 10**50])
def test_a_number_that_no_item_has_is_not_found(client: FlaskClient, number: int) -> None:
    where = f"{URL}/{number}"
    responses = (client.get(where), client.patch(where, json={"quantity": 1}), client.delete(where))
    assert [response.status_code for response in responses] == [404] * 3


def test_a_page_has_twenty_items_unless_told_otherwise(client: FlaskClient) -> None:
    assert client.get(URL).get_json() == {"items": [], "next_cursor": None}
    for _ in range(21):
        create(client)
    assert len(client.get(URL).get_json()["items"]) == 20
    whole = client.get(f"{URL}?limit=21").get_json()
    assert (len(whole["items"]), whole["next_cursor"]) == (21, None)


def test_pages_show_every_item_once_while_others_come_and_go(client: FlaskClient) -> None:
    numbers = [create(client) for _ in range(7)]
    seen: list[int] = []
    position = ""
    while position is not None:
        page = client.get(URL, query_string={"limit": 2, "cursor": position}).get_json()
        position = page["next_cursor"]
        seen += [item["id"] for item in page["items"]]
        if len(numbers) < 10:
            client.delete(f"{URL}/{seen[-1]}")  # the one that the cursor points at
            numbers.append(create(client))
    assert seen == numbers


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        *[("limit", raw) for raw in ("0", "101", "many", "", "9" * 5000)],
        *[
            ("cursor", raw)
            for raw in ("guessed", "ünicode", cursor(-1), cursor(2**63), cursor(1)[1:], f"{cursor(1)}\n", "0" * 5000)
        ],
    ],
)
def test_a_bad_limit_or_cursor_is_pointed_at(client: FlaskClient, name: str, raw: str) -> None:
    response = client.get(URL, query_string={name: raw})
    assert response.status_code == 422
    assert [error["pointer"] for error in response.get_json()["errors"]] == [f"/{name}"]


CHANGES = pytest.mark.parametrize(("method", "body"), [("PATCH", {"quantity": 1}), ("DELETE", None)])


@CHANGES
@pytest.mark.parametrize(("headers", "status"), [({}, 409), ({"If-Match": '"1"'}, 412), ({"If-Match": "*"}, 412)])
def test_a_change_to_what_somebody_else_changed_meanwhile_is_refused(
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    body: dict[str, int] | None,
    headers: dict[str, str],
    status: int,
) -> None:
    find_item = routes.find_item

    def find_and_be_overtaken(item_id: int) -> Item:
        item = find_item(item_id)
        with db.engine.begin() as somebody_else:
            somebody_else.execute(update(Item).values(quantity=9, version=Item.version + 1))
        return item

    where = f"{URL}/{create(client)}"
    monkeypatch.setattr(routes, "find_item", find_and_be_overtaken)
    assert client.open(where, method=method, json=body, headers=headers).status_code == status
    assert client.get(where).get_json()["quantity"] == 9


def test_a_summary_counts_what_is_there(client: FlaskClient) -> None:
    assert client.get(f"{URL}/summary").get_json() == {"items": 0, "quantity": 0}
    for quantity in (3, 2**31 - 1):
        client.post(URL, json={"name": "bolt", "quantity": quantity})
    assert client.get(f"{URL}/summary").get_json() == {"items": 2, "quantity": 2**31 + 2}


def test_the_tag_of_an_item_is_its_version(client: FlaskClient) -> None:
    created = client.post(URL, json={"name": "bolt"})
    where = created.headers["Location"]
    assert created.headers["ETag"] == client.get(where).headers["ETag"] == '"1"'
    assert client.patch(where, json={"quantity": 1}).headers["ETag"] == '"2"'
    assert client.patch(where, json={"quantity": 1}).headers["ETag"] == '"2"', "nothing was changed"
    assert client.get(where).headers["ETag"] == '"2"'


@CHANGES
@pytest.mark.parametrize("sent", ['"1"', "*", '"0", "1"', '"0","1",', 'W/"1", "1"', ' "a,b" , "1"'])
def test_a_change_to_the_version_that_the_client_has_seen_is_made(
    client: FlaskClient, method: str, body: dict[str, int] | None, sent: str
) -> None:
    response = client.open(f"{URL}/{create(client)}", method=method, json=body, headers={"If-Match": sent})
    assert response.status_code < 300


@CHANGES
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        *[(sent, 412) for sent in ('"2"', '""', '"01"', '"0", "2"', 'W/"1"', '"ü"', '"10"')],
        *[(sent, 400) for sent in ("1", "", '"1', '1"', "*, *", '"1" "2"', 'w/"1"', "," * 8000, " ," * 4000 + "x")],
    ],
)
def test_a_change_to_another_version_or_to_none_that_can_be_read_is_refused(
    client: FlaskClient, method: str, body: dict[str, int] | None, sent: str, status: int
) -> None:
    """What cannot be read is no reason to go on unprotected."""
    where = f"{URL}/{create(client)}"
    response = client.open(where, method=method, json=body, headers={"If-Match": sent})
    assert (response.status_code, response.content_type) == (status, "application/problem+json")
    assert client.get(where).headers["ETag"] == '"1"'


def test_a_condition_about_what_is_not_there_changes_nothing(client: FlaskClient) -> None:
    for sent in ("*", '"1"', "nonsense"):
        assert client.delete(f"{URL}/7", headers={"If-Match": sent}).status_code == 404


@pytest.mark.parametrize("sent", ['"1"', 'W/"1"', "*", '"7", "1"'])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_the_newest_version_is_told_so_without_a_body(client: FlaskClient, method: str, sent: str) -> None:
    response = client.open(f"{URL}/{create(client)}", method=method, headers={"If-None-Match": sent})
    assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", '"1"')
    assert "Content-Type" not in response.headers


@pytest.mark.parametrize("sent", ['"2"', '"', "", "nonsense"])
def test_who_has_not_gets_it(client: FlaskClient, sent: str) -> None:
    response = client.get(f"{URL}/{create(client)}", headers={"If-None-Match": sent})
    assert (response.status_code, response.get_json()["name"]) == (200, "bolt")


def test_the_document_says_who_takes_which_condition(client: FlaskClient) -> None:
    paths = client.get("/api/openapi.json").get_json()["paths"]
    told = {
        method: {parameter["name"] for parameter in described["parameters"] if parameter["in"] == "header"}
        for path in (URL, f"{URL}/{{item_id}}")
        for method, described in paths[path].items()
        if (path, method) != (URL, "get")
    }
    assert told == {
        "post": {"Idempotency-Key"},
        "get": {"If-None-Match"},
        "patch": {"If-Match"},
        "delete": {"If-Match"},
    }
    one = paths[f"{URL}/{{item_id}}"]
    assert "304" in one["get"]["responses"]
    assert "ETag" in one["patch"]["responses"]["200"]["headers"]
    assert one["delete"]["responses"].keys() >= {"409", "412"}


def test_creations_are_counted_by_outcome(client: FlaskClient) -> None:
    def counted() -> list[float]:
        return [REGISTRY.get_sample_value("items_created_total", {"status": code}) or 0 for code in ("201", "422")]

    before = counted()
    create(client)
    client.post(URL, json={})
    assert counted() == [before[0] + 1, before[1] + 1]


def test_the_api_is_asked_for_no_token(client: FlaskClient) -> None:
    created = client.post(URL, json={"name": "Bolt"})
    assert created.status_code == 201
    path = created.headers["Location"]
    assert client.patch(path, json={"quantity": 2}).status_code == 200
    assert client.delete(path).status_code == 204


def test_a_view_that_only_reads_needs_no_replica(app: Flask) -> None:
    assert getattr(app.view_functions["items.list_items"], "read_only", False)
    assert app.extensions["breakers"] == []
