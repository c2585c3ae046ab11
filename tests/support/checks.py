"""What a rendered service must be; each check returns what it found wrong, one line a finding."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

import yaml

from support.git import would_track
from support.template import SERVICE

Paths = Sequence[str]  # of the files that git would track
RUFF = Path(sys.executable).with_name("ruff")
EMPTY_ON_PURPOSE: frozenset[str] = frozenset()
# Text of the template that was to be replaced. Flask's own templates have its braces, which are theirs to keep.
LEFTOVER = re.compile(r"\{\{-?\s*cookiecutter\b|#\{[%#]|\bcookiecutter\.(?!io\b|readthedocs\b)\w|\{%")
FLASK_TEMPLATES = "app/templates/"
WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(1, 10))}


def unparsed(folder: Path, paths: Paths) -> list[str]:
    """Files that what reads them cannot read."""
    errors = {path: complaint(PurePosixPath(path).name, (folder / path).read_text(encoding="utf-8")) for path in paths}
    return [f"{path} is unparsed: {error}" for path, error in errors.items() if error]


@cache  # most files are those of the service before
def complaint(name: str, text: str) -> str:
    """What its parser says against a file's text, if anything."""
    parse = PARSERS.get(PurePosixPath(name).suffix) or PARSERS.get(name)
    try:
        if parse:
            parse(text)
    except (ValueError, SyntaxError, yaml.YAMLError, configparser.Error) as error:
        return f"{error}"
    return ""


class ComposeLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML with the tags by which a Compose file replaces what another one has."""


for tag in ("!override", "!reset"):
    ComposeLoader.add_constructor(tag, lambda loader, node: node.value)


def parse_ini(text: str) -> None:
    """INI as certbot and PgBouncer read it too: keys before the first section, lines that include a file."""
    configparser.ConfigParser().read_string("[top]\n" + re.sub(r"^%include .*$", "", text, flags=re.M))


PARSERS: dict[str, Callable[[str], object]] = {
    ".py": ast.parse,
    ".toml": tomllib.loads,
    "uv.lock": tomllib.loads,
    ".json": json.loads,
    ".yaml": lambda text: list(yaml.load_all(text, ComposeLoader)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
    ".ini": parse_ini,
}


def leftovers(folder: Path, paths: Paths) -> list[str]:
    """Text of the template that was to be replaced, and names of files with it."""
    found = [f"{path} has a leftover name" for path in paths if re.search(r"[{}]|cookiecutter", path)]
    for path in paths:
        for number, line in enumerate((folder / path).read_text(encoding="utf-8").splitlines(), 1):
            marks = {match[0] for match in LEFTOVER.finditer(line)}
            if marks - ({"{%"} if path.startswith(FLASK_TEMPLATES) else set()):
                found.append(f"{path}:{number} has a leftover: {line.strip()}")
    return found


def empty_files(folder: Path, paths: Paths) -> list[str]:
    """Files with nothing in them."""
    empty = [path for path in paths if not (folder / path).read_bytes().strip()]
    return [f"{path} is empty" for path in empty if path not in EMPTY_ON_PURPOSE]


def untidy(folder: Path, paths: Paths) -> list[str]:
    """Files without exactly one newline at their end, and stray blanks."""
    found = []
    for path in paths:
        text = (folder / path).read_bytes().decode()
        blank_lines = 2 if path.endswith((".py", ".mako")) else 1
        prose = re.sub(r"^```python.*?^```", "code", text, flags=re.M | re.S)  # ruff sees to the code in a page
        faults = {
            "has no newline at its end": text and not text.endswith("\n"),
            "has blank lines at its end": text.endswith("\n\n"),
            "begins with a blank line": text.startswith("\n"),
            "has blanks at the end of a line": re.search(r"[ \t]$", text, re.M),
            "has a run of blank lines": "\n" * (blank_lines + 2) in prose,
            "has carriage returns": "\r" in text,
        }
        found += [f"{path} {fault}" for fault, there in faults.items() if there]
    return found


def illegal_names(_: Path, paths: Paths) -> list[str]:
    """Names that Windows cannot have, or cannot tell apart."""
    found = []
    for path in paths:
        for part in path.split("/"):
            if re.search(r'[<>:"|?*\\\x00-\x1f]|[. ]$', part) or part.split(".")[0].lower() in WINDOWS_DEVICES:
                found.append(f"{path} is an illegal name on Windows")
    folded = [path.lower() for path in paths]
    return found + [f"{path} differs in case alone" for path in paths if folded.count(path.lower()) > 1]


def unformatted(folder: Path, _: Paths = (), ruff: Path = RUFF) -> list[str]:
    """What ruff finds, with the service's own configuration."""
    found = []
    for command in (["check", "--output-format=concise"], ["format", "--check"]):
        arguments = [str(ruff), *command, "--no-cache", "--quiet"]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            found.append(f"ruff {command[0]}: {done.stdout}{done.stderr}")
    return found


def altered_python(folder: Path, paths: Paths) -> list[str]:
    """Python that is not byte for byte the template's: it never sees Jinja."""
    python = [path for path in paths if path.endswith(".py")]
    return [
        f"{path} is not the template's"
        for path in python
        if not (SERVICE / path).is_file() or (folder / path).read_bytes() != (SERVICE / path).read_bytes()
    ]


def bytecode(folder: Path, _: Paths) -> list[str]:
    """What running the hook left behind; what lies about in the template's own folder is not its doing."""
    paths = [path.relative_to(folder) for path in folder.rglob("__pycache__")]
    return [f"{path} was left behind" for path in paths if not (SERVICE / path).exists()]


def open_secrets(folder: Path, paths: Paths) -> list[str]:
    """Secrets that git would track."""
    return [f"{path} would be tracked" for path in paths if re.search(r"(^|/)\.env$|^secrets/", path)]


CHECKS: tuple[Callable[[Path, Paths], list[str]], ...] = (
    unparsed,
    leftovers,
    empty_files,
    untidy,
    illegal_names,
    unformatted,
    altered_python,
    bytecode,
    open_secrets,
)


def find_faults(folder: Path) -> list[str]:
    """Everything that every check finds."""
    paths = would_track(folder)
    return [finding for check in CHECKS for finding in check(folder, paths)]
