"""What `app/settings.py` of a service reads, told from its source."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Variable:
    """A variable that `app/settings.py` reads, and the field of `Settings` that it fills."""

    name: str
    field: str
    secret: bool


@cache
def read_settings(source: str) -> list[Variable]:
    """The fields of `Settings` that have a variable of their own."""
    variables = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
            name, call = node.value.args[:1], node.value
            if ast.unparse(call.func) == "variable" and isinstance(name[0], ast.Constant):
                secret = any(keyword.arg == "secret" for keyword in call.keywords)
                variables.append(Variable(str(name[0].value), ast.unparse(node.target), secret))
    return variables
