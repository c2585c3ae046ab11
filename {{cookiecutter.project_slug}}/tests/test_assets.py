"""Static files under names with their hash in them: how those are made, named, kept and forgotten."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from flask import Flask, url_for

from app import assets
from scripts.assets import HASHED, KEPT, fingerprint, publish

STATIC = Path(assets.__file__).with_name("static")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A service's folder with static files alone."""
    static = shutil.copytree(STATIC, tmp_path / "app" / "static")
    for path in static.rglob("*"):
        if HASHED.search(path.name):
            path.unlink()
    (static / "fonts").mkdir()
    (static / "fonts" / "own.woff2").write_bytes(b"font")
    return tmp_path


def test_each_file_gets_a_copy_with_its_hash_in_the_name(root: Path) -> None:
    static = root / "app" / "static"
    files = {path.relative_to(static).as_posix() for path in static.rglob("*") if path.is_file()}
    names = fingerprint(root)
    assert names.keys() == files >= {"app.css", "fonts/own.woff2"}
    for plain, hashed in names.items():
        assert HASHED.search(hashed)
        assert (static / hashed).read_bytes() == (static / plain).read_bytes()
    assert json.loads((root / "app" / "assets.json").read_text()) == names
    assert fingerprint(root) == names, "a copy gets no copy"


def test_another_content_is_another_name(root: Path) -> None:
    before = fingerprint(root)
    (root / "app" / "static" / "app.css").write_text("main { color: red; }")
    after = fingerprint(root)
    assert before["app.css"] != after["app.css"]
    assert before["icon.svg"] == after["icon.svg"]


def test_without_copies_a_page_names_the_files_themselves(app: Flask) -> None:
    with app.test_request_context():
        assert url_for("static", filename="app.css") == "/static/app.css"


def test_with_copies_a_page_names_those_and_a_browser_keeps_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = fingerprint(root)
    monkeypatch.setattr(assets, "NAMES", root / "app" / "assets.json")
    app = Flask("app", static_folder=str(root / "app" / "static"))
    assets.init_app(app)
    with app.test_request_context():
        path = url_for("static", filename="app.css")
        assert path == f"/static/{names['app.css']}"
        assert url_for("static", filename="unknown.css") == "/static/unknown.css"
    for asked, status, caching in (
        (path, 200, "public, max-age=31536000, immutable"),
        ("/static/app.css", 200, "no-cache"),
        ("/static/app.0123456789abcdef.css", 404, None),
    ):
        with app.test_client().get(asked) as answer:
            assert (answer.status_code, answer.headers.get("Cache-Control")) == (status, caching)


def test_files_of_an_older_release_are_kept_for_a_month(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "served"
    names = fingerprint(root)
    publish(target, root)
    shutil.rmtree(root / "app" / "static")
    (root / "app" / "static").mkdir()
    (root / "app" / "static" / "new.css").write_text("main { color: red; }")
    publish(target, root)
    kept, gone = target / names["app.css"], target / names["icon.svg"]
    os.utime(gone, times=(0, time.time() - KEPT - 60))
    publish(target, root)
    assert kept.exists()
    assert not gone.exists()
    assert (target / "new.css").exists()
