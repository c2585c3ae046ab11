"""Static files under names with a hash in them, where scripts/assets.py has made those; a browser keeps them for good.

In development there are none: `url_for('static', filename='app.css')` is then the plain name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flask import Flask, Response

NAMES = Path(__file__).with_name("assets.json")


def init_app(app: Flask) -> None:
    """Name the copies in `url_for`, and tell browsers to keep them."""
    if not NAMES.exists():
        return
    hashed: dict[str, str] = json.loads(NAMES.read_text(encoding="utf-8"))

    @app.url_defaults
    def name_copy(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static":
            values["filename"] = hashed.get(values["filename"], values["filename"])

    def send(filename: str) -> Response:
        response = app.send_static_file(filename)
        if filename in hashed.values():
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response

    app.view_functions["static"] = send
