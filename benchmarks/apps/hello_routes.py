"""A feature that does nothing but answer: copied into a rendered service as `app/hello/routes.py`."""

from flask import Blueprint, Response, jsonify

blueprint = Blueprint("hello", __name__, url_prefix="/hello")


@blueprint.get("")
def hello() -> Response:
    return jsonify(hello="world")
