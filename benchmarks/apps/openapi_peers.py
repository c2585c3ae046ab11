"""The same two routes, documented by each library: run by benchmarks/openapi.py, it prints microseconds, as JSON."""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
from typing import Annotated

from apiflask import APIFlask
from app.validation import Operation, read_body, read_query
from flask import Flask, jsonify
from flask_openapi3 import OpenAPI
from flask_smorest import Api
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema, fields, validate
from pydantic import BaseModel, ConfigDict, Field
from spectree import Response, SpecTree
from werkzeug.test import create_environ

CALLS, ROUNDS = 300, 40
ITEM = {"id": 1, "name": "Bolt", "quantity": 3}


class Query(BaseModel):
    limit: int = Field(20, ge=1, le=100)


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=100)]
    quantity: Annotated[int, Field(ge=0)] = 0


class Item(BaseModel):
    id: int
    name: str
    quantity: int


class QuerySchema(Schema):
    limit = fields.Integer(load_default=20, validate=validate.Range(1, 100))


class BodySchema(Schema):
    name = fields.String(required=True, validate=validate.Length(1, 100))
    quantity = fields.Integer(strict=True, load_default=0, validate=validate.Range(0))


class ItemSchema(Schema):
    id = fields.Integer()
    name = fields.String()
    quantity = fields.Integer()


def answer(name: str, quantity: int) -> dict[str, object]:
    return {"id": 1, "name": name, "quantity": quantity}


def by_hand() -> Flask:
    app = Flask("by_hand")

    @app.get("/items")
    def read():
        return jsonify(answer("Bolt", read_query(Query).limit))

    @app.post("/items")
    def create():
        body = read_body(Body)
        return jsonify(answer(body.name, body.quantity)), 201

    return app


def ours() -> Flask:
    app = Flask("ours")

    @app.get("/items")
    @Operation(query=Query, answer=Item)
    def read(query):
        return answer("Bolt", query.limit)

    @app.post("/items")
    @Operation(body=Body, answer=Item, status=201)
    def create(body):
        return answer(body.name, body.quantity)

    return app


def apiflask() -> Flask:
    app = APIFlask("apiflask")

    @app.get("/items")
    @app.input(Query, location="query", arg_name="query")
    @app.output(Item)
    def read(query):
        return answer("Bolt", query.limit)

    @app.post("/items")
    @app.input(Body, arg_name="body")
    @app.output(Item, status_code=201)
    def create(body):
        return answer(body.name, body.quantity)

    return app


def flask_smorest() -> Flask:
    app = Flask("smorest")
    app.config.update(API_TITLE="x", API_VERSION="1", OPENAPI_VERSION="3.1.0")
    blueprint = SmorestBlueprint("items", "items")

    @blueprint.route("/items", methods=["GET"])
    @blueprint.arguments(QuerySchema, location="query")
    @blueprint.response(200, ItemSchema)
    def read(query):
        return answer("Bolt", query["limit"])

    @blueprint.route("/items", methods=["POST"])
    @blueprint.arguments(BodySchema)
    @blueprint.response(201, ItemSchema)
    def create(body):
        return answer(**body)

    Api(app).register_blueprint(blueprint)
    return app


def flask_openapi3() -> Flask:
    app = OpenAPI("openapi3")

    @app.get("/items", responses={200: Item})
    def read(query: Query):
        return jsonify(answer("Bolt", query.limit))

    @app.post("/items", responses={201: Item})
    def create(body: Body):
        return jsonify(answer(body.name, body.quantity)), 201

    return app


def spectree() -> Flask:
    app = Flask("spectree")
    spec = SpecTree("flask", app=app)

    @app.get("/items")
    @spec.validate(resp=Response(HTTP_200=Item))
    def read(query: Query):
        return jsonify(answer("Bolt", query.limit))

    @app.post("/items")
    @spec.validate(resp=Response(HTTP_201=Item))
    def create(json: Body):
        return jsonify(answer(json.name, json.quantity)), 201

    return app


BODY = json.dumps({"name": "Bolt", "quantity": 3}).encode()
GET = create_environ("/items?limit=3")
POST = create_environ("/items", method="POST", data=BODY, content_type="application/json")
REQUESTS = {"GET": (GET, b"", "200"), "POST": (POST, BODY, "201")}


def call(application: Flask, method: str, calls: int = CALLS) -> float:
    environ, body, expected = REQUESTS[method]
    answers = []
    began = time.process_time()
    for _ in range(calls):
        given = {**environ, "wsgi.input": io.BytesIO(body)}
        answers.append(b"".join(application.wsgi_app(given, lambda status, *_: answers.append(status))))
    took = (time.process_time() - began) / calls * 1e6
    assert answers[0].startswith(expected), answers[:2]
    assert json.loads(answers[1]) == ITEM, answers[:2]
    return took


apps = {make.__name__: make() for make in (by_hand, ours, apiflask, flask_smorest, flask_openapi3, spectree)}
rounds = [
    {(name, method): call(app, method) for name, app in apps.items() for method in REQUESTS} for _ in range(ROUNDS)
]
medians = {name: [statistics.median(each[name, method] for each in rounds[1:]) for method in REQUESTS] for name in apps}
print(json.dumps(medians), file=sys.stderr)
