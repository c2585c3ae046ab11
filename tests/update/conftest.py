"""The template with its history, once for each process of the run."""

from __future__ import annotations

import pytest

from support.releases import Template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """The earlier releases, and this work tree as the newest one. Who wants more of them makes a fork."""
    home = tmp_path_factory.mktemp("template")
    return Template(home / "flask-prod", home).build()
