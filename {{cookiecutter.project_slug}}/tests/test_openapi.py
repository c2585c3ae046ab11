"""The API's document and its page: valid, complete, true, and nothing of them where they are not wanted."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from flask import Blueprint, Flask, Response, abort
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from pydantic import BaseModel, Field

from app.openapi import curl
from app.security import HEADERS
from app.settings import ANSWERS, ROOT
from app.validation import Operation
from tests.conftest import SECRET_KEY, MakeApp

DOCUMENT, PAGE = "/api/openapi.json", "/api/docs"
ORDER = ("post", "put", "get", "patch", "delete")  # what is read or changed has to be there, and in the end it goes
crates = Blueprint("crates", __name__, url_prefix="/api/crates")
Json = dict[str, Any]


class Crate(BaseModel):
    size: Annotated[int, Field(ge=1, examples=[4])]
    kind: Literal["wood", "steel"] = "wood"


class Stack(BaseModel):
    crates: list[Crate]
    note: str  # has no example


class Nest(BaseModel):
    inner: list[Nest]


class Which(BaseModel):
    kind: Literal["wood", "steel"]


@crates.post("/<name>/<int(min=2, max=9):number>")
@Operation(body=Crate, answer=Crate, status=201, errors=(409,))
def put_crate(name: str, number: int, body: Crate) -> Crate:
    """Put a crate somewhere.

    A name that is `taken` is refused.
    """
    if name == "taken":
        abort(409)
    return body


@crates.get("")
@Operation(query=Which, answer=Stack)
def list_crates(query: Which) -> Json:
    return {"crates": [{"size": 1, "kind": query.kind}], "note": "none", "secret": "canary"}


@crates.get("/lie")
@Operation(answer=Crate)
def lie() -> Json:
    return {"size": 0}


@crates.get("/file")
@Operation(answer=Crate)
def send_file() -> Response:
    return Response("wood", mimetype="text/plain")


@crates.get("/nest/<int(signed=True):depth>")
@Operation(answer=Nest)
async def show_nest(depth: int) -> Json:
    return {"inner": [{"inner": []}]}


@crates.get("/undocumented")
def say_nothing() -> str:
    return ""


@pytest.fixture
def app(app: Flask) -> Flask:
    app.register_blueprint(crates)
    return app


@pytest.fixture
def document(client: FlaskClient) -> Json:
    found: Json = client.get(DOCUMENT).get_json()
    return found


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Path, method and description of each, in an order that they can be asked in."""
    for method in ORDER:
        yield from ((path, method, methods[method]) for path, methods in document["paths"].items() if method in methods)


def faults(value: Any, schema: Json, document: Json) -> list[str]:
    """What is wrong with a value, by a schema of the document."""
    checked = {**schema, "components": document["components"]}
    validator = Draft202012Validator(checked, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(value)]


def test_the_document_is_valid_and_says_what_it_is_of(document: Json) -> None:
    validate(document)
    assert document["info"] == {
        "title": ANSWERS["name"],
        "description": ANSWERS["description"],
        "version": "dev",
    }


def test_every_route_below_api_is_in_it(make_app: MakeApp) -> None:
    app = make_app()
    documented = app.test_client().get(DOCUMENT).get_json()["paths"]
    views = [
        app.view_functions[rule.endpoint]
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/") and not rule.endpoint.startswith("openapi.")
    ]
    silent = [view.__qualname__ for view in views if "operation" not in view.__dict__]
    assert silent == [], "Give them an @Operation(), of app/validation.py, below their route"
    assert sum(map(len, documented.values())) == len(views)


def test_a_view_that_says_nothing_is_left_out(document: Json) -> None:
    assert "/api/crates" in document["paths"]
    assert "/api/crates/undocumented" not in document["paths"]


def test_what_a_view_names_is_what_is_documented(document: Json) -> None:
    described = document["paths"]["/api/crates/{name}/{number}"]["post"]
    assert (described["summary"], described["description"]) == (
        "Put a crate somewhere.",
        "A name that is `taken` is refused.",
    )
    assert set(described["responses"]) == {"201", "400", "404", "409", "413", "415", "422", "default"}
    assert {parameter["name"]: parameter["schema"] for parameter in described["parameters"]} == {
        "name": {"type": "string", "pattern": "^[^/]{1,}$"},
        "number": {"type": "integer", "minimum": 2, "maximum": 9, "examples": [2]},
    }
    (kind,) = document["paths"]["/api/crates"]["get"]["parameters"]
    assert (kind["in"], kind["required"], kind["schema"]["enum"]) == ("query", True, ["wood", "steel"])
    answer = document["paths"]["/api/crates"]["get"]["responses"]["200"]["content"]["application/json"]
    assert "example" not in answer, "better none than one with a field that was made up"
    nest = document["paths"]["/api/crates/nest/{depth}"]["get"]
    assert nest["parameters"][0]["schema"]["minimum"] == -(2**63)
    assert "example" not in nest["responses"]["200"]["content"]["application/json"], "and none without an end"


def value_for(schema: Json) -> Any:
    """What the document proposes for a parameter, or else a word."""
    return next((schema[name][0] for name in ("examples", "enum") if name in schema), schema.get("default", "Bolt"))


def test_every_example_is_true(client: FlaskClient, document: Json) -> None:
    for path, method, described in operations(document):
        if described["operationId"] in ("crates.lie", "crates.send_file", "crates.show_nest"):
            continue
        values = {name: value_for(schema) for name, schema in schemas(described["parameters"], "path").items()}
        query = {name: value_for(schema) for name, schema in schemas(described["parameters"], "query").items()}
        headers = {name: value_for(schema) for name, schema in schemas(described["parameters"], "header").items()}
        for parameter in described["parameters"]:
            assert faults({**values, **query, **headers}[parameter["name"]], parameter["schema"], document) == []
        body = described.get("requestBody", {"content": {"application/json": {}}})["content"]["application/json"]
        assert not body or faults(body["example"], body["schema"], document) == []

        response = client.open(path.format(**values), method=method, json=body.get("example"), query_string=query)
        status = min(described["responses"])
        assert str(response.status_code) == status, response.text
        for mime, content in described["responses"][status].get("content", {}).items():
            assert response.mimetype == mime
            for shown in (response.get_json(), content.get("example", response.get_json())):
                assert faults(shown, content["schema"], document) == []


def schemas(parameters: list[Json], where: str) -> dict[str, Json]:
    return {parameter["name"]: parameter["schema"] for parameter in parameters if parameter["in"] == where}


@pytest.mark.parametrize(
    ("name", "sent", "status"),
    [
        ("b", {"data": "{", "content_type": "application/json"}, 400),
        ("taken", {"json": {"size": 1}}, 409),
        ("b", {"json": {"size": 1, "kind": "x" * 2**20}}, 413),
        ("b", {"data": "size=1"}, 415),
        ("b", {"json": {"size": 0}}, 422),
    ],
)
def test_every_problem_is_as_documented(
    client: FlaskClient, document: Json, name: str, sent: Json, status: int
) -> None:
    response = client.post(f"/api/crates/{name}/2", **sent)
    described = document["paths"]["/api/crates/{name}/{number}"]["post"]["responses"][str(status)]
    assert response.status_code == status
    assert faults(response.get_json(), described["content"][response.content_type]["schema"], document) == []


@pytest.mark.parametrize("number", [1, 10])
def test_a_number_beyond_its_converter_is_not_found(client: FlaskClient, number: int) -> None:
    assert client.post(f"/api/crates/b/{number}", json={"size": 1}).status_code == 404


def test_nothing_is_sent_that_is_not_documented(client: FlaskClient) -> None:
    assert client.get("/api/crates?kind=wood").get_json() == {
        "crates": [{"size": 1, "kind": "wood"}],
        "note": "none",
    }
    assert client.get("/api/crates/lie").status_code == 500
    assert client.get("/api/crates/file").text == "wood", "a response is a view's own affair"


def test_a_view_may_be_async(client: FlaskClient) -> None:
    pytest.importorskip("asgiref", reason="comes with flask[async]")
    assert client.get("/api/crates/nest/-1").get_json() == {"inner": [{"inner": []}]}


def test_the_server_is_where_the_request_came_to(client: FlaskClient) -> None:
    for prefix, server in (("", "/"), ("/shop", "/shop")):
        environ = {"SCRIPT_NAME": prefix}
        assert client.get(DOCUMENT, environ_overrides=environ).get_json()["servers"] == [{"url": server}]
        assert f"http://localhost{prefix}/api/crates" in client.get(PAGE, environ_overrides=environ).text


def test_the_page_shows_everything_and_needs_nobody_else(client: FlaskClient, document: Json) -> None:
    response = client.get(PAGE)
    page = response.text
    assert [response.headers.getlist(name) for name, _ in HEADERS] == [[value] for _, value in HEADERS]
    assert re.findall(r"<script|<style|\sstyle=|\son\w+=|javascript:", page) == []
    for path, _, described in operations(document):
        assert path in page
        assert described["summary"] in page
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in page
    for address in set(re.findall(r'(?:src|href)="([^"]*)"', page)):
        if address.startswith("#"):
            assert f'id="{address[1:]}"' in page
        else:
            assert re.match("/(?!/)", address)
            assert client.get(address).status_code == 200


def test_a_command_of_the_page_is_one_for_a_shell() -> None:
    content = {"application/json": {"example": {"name": "Bob's; $(rm)"}}}
    command = curl("http://a$(b)", "/c", "post", {"parameters": [], "requestBody": {"content": content}})
    assert shlex.split(command) == [
        *("curl", "-X", "POST", "http://a$(b)/c"),
        *("-H", "Content-Type: application/json", "-d", '{"name": "Bob\'s; $(rm)"}'),
    ]
    assert "'http://a$(b)/c'" in command


def test_what_the_page_shows_is_escaped(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "description", "<script>alert(1)</script>")
    page = make_app(APP_VERSION='"><script>').test_client().get(PAGE).text
    assert "<script>" not in page


def test_where_it_is_off_there_is_neither_and_nothing_of_it_is_loaded() -> None:
    code = (
        "import sys, app; client = app.create_app().test_client(); "
        f"print([client.get(path).status_code for path in ('{DOCUMENT}', '{PAGE}')], 'app.openapi' in sys.modules)"
    )
    environ = {"APP_ENV": "testing", "SECRET_KEY": SECRET_KEY, "DATABASE_URL": "sqlite://", "LOG_LEVEL": "WARNING"}
    for value, shown in (("0", "[404, 404] False\n"), ("1", "[200, 200] True\n")):
        command = [sys.executable, "-B", "-c", code]
        done = subprocess.run(command, cwd=ROOT, env={**environ, "API_DOCS": value}, capture_output=True, text=True)
        assert done.stdout == shown, done.stderr
