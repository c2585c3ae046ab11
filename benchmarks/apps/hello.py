"""The smallest Flask application; bare.py adds a database to it."""

from flask import Flask, Response, jsonify

app = Flask(__name__)


@app.get("/healthz/live")
@app.get("/hello")
def hello() -> Response:
    return jsonify(hello="world")
