"""The version of the template: one number, in every place that names it."""

from __future__ import annotations

import json
import re
import tomllib

from support.template import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_the_version_is_a_release() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


def test_a_service_is_told_the_same_version() -> None:
    assert json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["__version"] == VERSION


def test_the_changelog_begins_with_the_version_or_with_what_is_not_released_yet() -> None:
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert sections[sections[0] == "Unreleased"] == VERSION
