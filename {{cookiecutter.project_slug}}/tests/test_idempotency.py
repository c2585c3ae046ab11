"""`Idempotency-Key`: what a client asks for twice is done once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask import Blueprint, Flask, Response, abort, after_this_request, g, request
from flask.testing import FlaskClient
from pydantic import BaseModel
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from app import database, idempotency
from app.clock import now
from app.extensions import db
from app.idempotency import StoredAnswer, idempotent
from app.validation import Operation
from tests.conftest import LogLines, MakeApp

URL = "/letters"
letters = Blueprint("letters", __name__, url_prefix=URL)


class Letter(BaseModel):
    words: str


@letters.before_request
def know_the_client() -> None:
    g.user_id = request.headers.get("User")


@letters.post("")
@letters.post("/again")
@idempotent
@Operation(body=Letter, answer=Letter, status=201)
def send(body: Letter) -> Any:
    number = add(body.words)
    if body.words == "wrong":
        abort(409)
    if body.words == "crash":
        raise LookupError
    if body.words == "commit":
        db.session.commit()
    if body.words == "later":
        return Response("in a year", 503)
    after_this_request(tell_whether_it_is_committed)
    return body, {"Location": f"/letters/{number}"}


def add(words: str) -> int:
    db.session.execute(text("INSERT INTO letters (words) VALUES (:words)"), {"words": words})
    return int(db.session.scalar(text("SELECT max(id) FROM letters")) or 0)


def tell_whether_it_is_committed(response: Response) -> Response:
    with db.engine.connect() as somebody_else:
        response.headers["Seen"] = str(somebody_else.scalar(text("SELECT count(*) FROM letters")))
    return response


@pytest.fixture
def app(app: Flask) -> Flask:
    app.register_blueprint(letters)
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE letters (id INTEGER PRIMARY KEY, words TEXT)")
    return app


def post(client: FlaskClient, words: str = "hello", key: str | None = "key-1", **options: Any) -> TestResponse:
    headers = {"Idempotency-Key": key, **options.pop("headers", {})}
    sent = {name: value for name, value in headers.items() if value is not None}
    return client.post(options.pop("path", URL), json={"words": words}, headers=sent, **options)


def written(app: Flask) -> list[str]:
    with app.app_context():
        return list(db.session.scalars(text("SELECT words FROM letters ORDER BY id")))


def test_a_repeated_request_is_done_once_and_answered_alike(app: Flask, client: FlaskClient) -> None:
    first, second = post(client), post(client)
    assert (first.status_code, first.get_json(), first.headers["Location"]) == (201, {"words": "hello"}, "/letters/1")
    assert (second.status_code, second.data, second.content_type) == (201, first.data, first.content_type)
    assert second.headers["Location"] == first.headers["Location"]
    assert ("Idempotent-Replayed" in first.headers, second.headers["Idempotent-Replayed"]) == (False, "true")
    assert second.headers.getlist("Content-Length") == [str(len(first.data))]
    assert second.headers["X-Request-ID"] != first.headers["X-Request-ID"], "it is another request all the same"
    assert written(app) == ["hello"]


def test_without_a_key_each_request_is_one_of_its_own_and_costs_no_statement_more(
    app: Flask, client: FlaskClient
) -> None:
    statements: list[str] = []
    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", lambda *values: statements.append(values[2]))
    for _ in range(2):
        assert post(client, key=None).status_code == 201
    assert written(app) == ["hello", "hello"]
    assert [statement for statement in statements if "idempotency_keys" in statement] == []
    assert post(client).status_code == 201
    assert [statement for statement in statements if "idempotency_keys" in statement] != [], "it would have been seen"


@pytest.mark.parametrize(
    "other",
    [
        {"key": "key-2"},
        {"path": f"{URL}/again"},
        {"headers": {"User": "8"}},
    ],
)
def test_another_key_path_or_client_is_another_request(app: Flask, client: FlaskClient, other: dict[str, Any]) -> None:
    assert post(client, headers={"User": "7"}).status_code == 201
    assert "Idempotent-Replayed" not in post(client, **{"headers": {"User": "7"}, **other}).headers
    assert len(written(app)) == 2


@pytest.mark.parametrize("other", [{"words": "goodbye"}, {"query_string": {"fast": "1"}}])
def test_the_same_key_with_another_body_or_query_is_refused(
    app: Flask, client: FlaskClient, other: dict[str, Any]
) -> None:
    post(client)
    response = post(client, **other)
    assert (response.status_code, response.content_type) == (422, "application/problem+json")
    assert written(app) == ["hello"]


@pytest.mark.parametrize(("words", "status"), [("wrong", 409), ("crash", 500), ("later", 503)])
def test_an_error_writes_nothing_and_the_key_may_be_tried_again(
    app: Flask, client: FlaskClient, words: str, status: int
) -> None:
    for _ in range(2):
        response = post(client, words)
        assert response.status_code == status
        assert "Idempotent-Replayed" not in response.headers
    assert written(app) == []
    assert post(client).status_code == 201
    assert written(app) == ["hello"]


@pytest.mark.parametrize("words", ["wrong", "crash", "later"])
def test_an_error_writes_nothing_without_a_key_either(app: Flask, client: FlaskClient, words: str) -> None:
    post(client, words, key=None)
    assert written(app) == []


@pytest.mark.parametrize("key", ["k", "k" * 255, "!~", str(uuid4()), f'"{uuid4()}"', '"a key in words"'])
def test_a_key_may_look_like_this(client: FlaskClient, key: str) -> None:
    assert [post(client, key=key).headers.get("Idempotent-Replayed") for _ in range(2)] == [None, "true"]


@pytest.mark.parametrize("key", ["", " ", "k" * 256, "clé", "a\tb", "a\x7f", "\xff"])
def test_a_key_that_is_none_is_refused(app: Flask, client: FlaskClient, key: str) -> None:
    response = post(client, key=None, environ_overrides={"HTTP_IDEMPOTENCY_KEY": key})
    assert (response.status_code, response.content_type) == (400, "application/problem+json")
    assert written(app) == []


@pytest.mark.parametrize("key", [None, "key-1"])
def test_after_this_request_comes_after_the_commit(client: FlaskClient, key: str | None) -> None:
    assert post(client, key=key).headers["Seen"] == "1"


def test_a_view_that_commits_by_itself_is_found_out(client: FlaskClient, log_lines: LogLines) -> None:
    """Its writes and its answer would be in two transactions, and a crash between them do the work twice."""
    assert post(client, "commit").status_code == 500
    assert "send ended the transaction" in "".join(str(line.get("exc_info")) for line in log_lines())
    assert post(client, "commit").status_code == 409, "nobody knows what became of it"


def test_who_waits_too_long_for_the_same_key_is_told_to_come_again(
    make_app: MakeApp, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CONNECT_TIMEOUT", 0.1)
    impatient = make_app()
    impatient.register_blueprint(letters)
    with app.app_context(), db.engine.begin() as another:
        another.exec_driver_sql("INSERT INTO letters (words) VALUES ('not committed yet')")
        response = post(impatient.test_client())
    assert (response.status_code, response.headers["Retry-After"]) == (409, "1")
    assert response.content_type == "application/problem+json"
    assert post(impatient.test_client()).status_code == 201


def test_old_answers_go_in_the_end(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        post(client, key=f"key-{number}")
    old = now() - idempotency.KEPT - timedelta(seconds=1)
    with app.app_context(), db.engine.begin() as connection:
        some = select(StoredAnswer.id).limit(4)
        connection.execute(update(StoredAnswer).values(created_at=old).where(StoredAnswer.id.in_(some)))
    monkeypatch.setattr(idempotency, "PURGED", 3)
    monkeypatch.setattr(idempotency, "PURGE_EVERY", 1)
    left = []
    for number in range(2):
        post(client, key=f"new-{number}")
        with app.app_context():
            left.append(len(db.session.scalars(select(StoredAnswer.id)).all()))
    assert left == [3, 3], "three at a time, and none that is a day old at most"


def test_what_was_done_stands_where_old_answers_cannot_be_deleted(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("DELETE", {}, Exception("disk full"))

    monkeypatch.setattr(idempotency, "PURGE_EVERY", 1)
    monkeypatch.setattr(idempotency, "delete", fail)
    assert post(client).status_code == 201
    assert written(app) == ["hello"]
    assert "could not be deleted" in "".join(line["message"] for line in log_lines())


def test_the_header_is_documented(app: Flask, client: FlaskClient) -> None:
    described = client.get("/api/openapi.json").get_json()["paths"][URL]["post"]
    (header,) = described["parameters"]
    assert (header["name"], header["in"], header["required"]) == ("Idempotency-Key", "header", False)
    assert described["responses"].keys() >= {"201", "400", "409", "422"}
