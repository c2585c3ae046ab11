"""The template as tests see it: where it is, and how it is rendered."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

from pytest_cookies.plugin import Cookies

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "{{cookiecutter.project_slug}}"
QUESTIONS: dict[str, str | list[str]] = {
    name: default
    for name, default in json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8")).items()
    if not name.startswith("_")
}


def load(path: Path) -> ModuleType:
    """A module by its path, leaving no `__pycache__` beside it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = keep
    return module


def imports(source: str) -> set[str]:
    """The top-level modules that a Python source imports."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


class Render:
    """`render(worker_class="sync")` is the folder of a service with those answers."""

    def __init__(self, cookies: Cookies) -> None:
        self.cookies = cookies
        self.rendered: dict[tuple[tuple[str, str], ...], Path] = {}

    def __call__(self, **answers: str) -> Path:
        key = tuple(sorted(answers.items()))
        if key not in self.rendered:
            result = self.cookies.bake(extra_context=answers, template=str(ROOT))
            if result.exception is not None:
                raise result.exception
            self.rendered[key] = result.project_path
        return self.rendered[key]
