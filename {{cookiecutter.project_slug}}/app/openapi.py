"""The API's own document, `/api/openapi.json`, and a page of it for people, `/api/docs`.

It is made from what views say of themselves (`app.validation.Operation`), once, when somebody asks for it: a request
to them pays nothing for it. A view that says nothing is not in it; tests/test_openapi.py names those below /api.
"""

from __future__ import annotations

import json
import re
import shlex
from contextlib import suppress
from inspect import cleandoc
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify, render_template, request
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.routing import IntegerConverter, Rule

from app.errors import Problem
from app.preconditions import IF_MATCH, IF_NONE_MATCH
from app.settings import ANSWERS, Settings
from app.validation import Operation

blueprint = Blueprint("openapi", __name__, url_prefix="/api")
REF = "#/components/schemas/{model}"
# What app/validation.py and app/limits.py answer with, and a path that fits no row.
BODY_ERRORS, QUERY_ERRORS, LIMIT_ERRORS, PATH_ERRORS = {400, 413, 415, 422}, {422}, {429}, {404}
Json = dict[str, Any]


@blueprint.get("/openapi.json")
def show_document() -> Response:
    return jsonify(document())


@blueprint.get("/docs")
def show_page() -> str:
    return render_template("api.html", api=document(), curl=curl, root=request.url_root.rstrip("/"))


def document() -> Json:
    """The document, with the prefix that this request came under as its server."""
    made: Json = current_app.extensions.get("openapi") or make_document(current_app)
    current_app.extensions["openapi"] = made
    return {**made, "servers": [{"url": request.script_root or "/"}]}


def make_document(app: Flask) -> Json:
    """Describe every view of `app` that has an `Operation`."""
    settings: Settings = app.extensions["settings"]
    views = [
        (rule, view, view.__dict__["operation"])
        for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)
        if "operation" in (view := app.view_functions[rule.endpoint]).__dict__
    ]
    models: set[tuple[Any, JsonSchemaMode]] = {(Problem, "serialization")}
    for *_, operation in views:
        models |= {(operation.body, "validation"), (operation.query, "validation"), (operation.answer, "serialization")}
    inputs = [(model, mode, TypeAdapter(model)) for model, mode in models if model]
    refs, definitions = TypeAdapter.json_schemas(inputs, ref_template=REF)
    schemas: Json = definitions["$defs"]
    paths: Json = {}
    for rule, view, operation in views:
        summary, _, description = cleandoc(view.__doc__ or rule.endpoint).partition("\n")
        described = {
            "operationId": rule.endpoint,
            "tags": [rule.endpoint.split(".")[0]],
            "summary": summary,
            "description": description.strip(),
            "parameters": describe_parameters(rule, operation, refs, schemas),
            "responses": describe_responses(rule, operation, is_limited(app, view), refs, schemas),
        }
        if operation.body:
            content = describe_content("application/json", refs[operation.body, "validation"], schemas)
            described["requestBody"] = {"required": True, "content": content}
        path = paths.setdefault(re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule.rule), {})
        path |= {method.lower(): described for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    info = {"title": ANSWERS["name"], "description": ANSWERS["description"], "version": settings.app_version}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def describe_parameters(rule: Rule, operation: Operation, refs: Any, schemas: Json) -> list[Json]:
    """What stands in the path, as its converter takes it, in the query, and in headers."""
    found = []
    for name, converter in rule._converters.items():  # Werkzeug tells it nowhere else
        schema: Json = {"type": "string", "pattern": f"^{converter.regex}$"}
        if isinstance(converter, IntegerConverter):
            low = converter.min or (-(2**63) if converter.signed else 0)
            high = converter.max or 2**63 - 1  # the largest number of a column
            schema = {"type": "integer", "minimum": low, "maximum": high, "examples": [max(low, 1)]}
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    model = resolve(refs[operation.query, "validation"], schemas) if operation.query else {}
    for name, schema in model.get("properties", {}).items():
        found.append({"name": name, "in": "query", "required": name in model.get("required", ()), "schema": schema})
    headers = [*operation.headers]
    headers += [IF_MATCH] if 412 in operation.errors else []
    headers += [IF_NONE_MATCH] if operation.versioned and "GET" in (rule.methods or ()) else []
    return found + [{"in": "header", "required": False, **header} for header in headers]


def is_limited(app: Flask, view: Any) -> bool:
    """Whether a view has a decorator of app/limits.py, and limits are on."""
    return "limits" in app.extensions and "limited" in view.__dict__


def describe_responses(rule: Rule, operation: Operation, limited: bool, refs: Any, schemas: Json) -> Json:
    """The view's own answer, and every problem that is to be expected."""
    answer: Json = {"description": HTTP_STATUS_CODES[operation.status]}
    if operation.answer:
        answer["content"] = describe_content("application/json", refs[operation.answer, "serialization"], schemas)
    sent = {"Location": "Where it is."} if operation.status == 201 else {}
    sent |= {"ETag": "Its version, for `If-Match` and `If-None-Match`."} if operation.versioned else {}
    if sent:
        answer["headers"] = {name: {"description": told, "schema": {"type": "string"}} for name, told in sent.items()}
    expected = {*operation.errors, *(BODY_ERRORS if operation.body else ()), *(QUERY_ERRORS if operation.query else ())}
    expected |= {*(PATH_ERRORS if rule.arguments else ()), *(LIMIT_ERRORS if limited else ())}
    expected |= {400} if 412 in operation.errors else set()
    content = describe_content("application/problem+json", refs[Problem, "serialization"], schemas)
    responses: Json = {str(operation.status): answer}
    if operation.versioned and "GET" in (rule.methods or ()):
        responses["304"] = {"description": HTTP_STATUS_CODES[304]}
    for status in sorted(expected):
        responses[str(status)] = {"description": HTTP_STATUS_CODES[status], "content": content}
        if status == 429:
            responses["429"]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return responses | {"default": {"description": "Any other problem", "content": content}}


def describe_content(mime: str, schema: Json, schemas: Json) -> Json:
    """A body, with an example of it where every field of it has one."""
    content: Json = {"schema": schema}
    with suppress(LookupError, RecursionError):  # of a model that holds itself there is no end
        content["example"] = example(schema, schemas)
    return {mime: content}


def example(schema: Json, schemas: Json) -> Any:
    """A value for `schema`, put together from the examples of its fields.

    Raises:
        LookupError: a field has none.
    """
    schema = resolve(schema, schemas)
    for name in ("examples", "enum", "anyOf"):
        if name in schema:
            return example(schema["anyOf"][0], schemas) if name == "anyOf" else schema[name][0]
    if "properties" in schema:
        return {name: example(part, schemas) for name, part in schema["properties"].items()}
    return [example(schema["items"], schemas)] if "items" in schema else schema["default"]


def resolve(schema: Json, schemas: Json) -> Json:
    """What a reference stands for; a schema that is none stands for itself."""
    return schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def curl(root: str, path: str, method: str, operation: Json) -> str:
    """A command that makes this request, to be pasted into a shell."""
    for parameter in operation["parameters"]:
        value = parameter["schema"].get("examples", [f"{{{parameter['name']}}}"])[0]
        path = path.replace(f"{{{parameter['name']}}}", str(value))
    command = ["curl", *(["-X", method.upper()] if method != "get" else []), root + path]
    for mime, content in operation.get("requestBody", {"content": {}})["content"].items():
        command += ["-H", f"Content-Type: {mime}", "-d", json.dumps(content.get("example", {}))]
    return shlex.join(command)
