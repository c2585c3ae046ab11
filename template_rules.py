"""Jinja filters for `cookiecutter.json`: what makes a good answer, what follows from it, and the record of the answers.

An answer is checked after cookiecutter rendered it and before anything is written: a filter that raises
`FailedHookException` ends cookiecutter with one line and exit code 1. Whatever passes is safe inside a quoted
string of TOML, JSON, YAML, INI, a shell or a Makefile, so that the service's files need no escaping.
"""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment
from jinja2.ext import Extension

HERE = Path(__file__).resolve().parent
SERVICE = HERE / "{{cookiecutter.project_slug}}"
SLUG = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")  # an RFC 1035 label, as Kubernetes wants for a Service
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"  # of a host name
# A host, perhaps with a port, and folders in it: what stands before the name of an image.
REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-][a-z0-9]+)*)*")
PUNCTUATION = frozenset(" .,:;!?()&+-_/’")  # noqa: RUF001  the typographic apostrophe is meant


def slugify(name: str) -> str:
    """A slug for a name: small ASCII letters, digits and hyphens. What cannot be one is left for the check."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")


def dependencies() -> frozenset[str]:
    """The packages in the service's lock file, in the form in which PyPI compares names."""
    lock = (SERVICE / "uv.lock").read_text(encoding="utf-8")
    return frozenset(re.findall(r'^name = "([a-z0-9-]+)"', lock, re.M))


def is_text(longest: int) -> Callable[[str], bool]:
    """A rule: a single line of letters and digits of any language and plain punctuation."""

    def rule(answer: str) -> bool:
        plain = all(char in PUNCTUATION or unicodedata.category(char)[0] in "LMN" for char in answer)
        return plain and answer == answer.strip() and 0 < len(answer) <= longest

    return rule


def is_name(answer: str) -> bool:
    return is_text(60)(answer) and "/" not in answer and any(char.isalnum() for char in answer)


def is_slug(answer: str) -> bool:
    as_pypi = re.sub("-+", "-", answer)  # to PyPI, a run of hyphens is one
    return bool(SLUG.fullmatch(answer)) and as_pypi not in dependencies()


def is_domain(answer: str) -> bool:
    name = rf"({LABEL}\.)+(?![0-9]+$){LABEL}"  # no address: its last part would be a number
    return len(answer) <= 253 and (answer == "localhost" or bool(re.fullmatch(name, answer)))


def is_cpus(answer: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", answer)) and 0.1 <= float(answer) <= 256


def is_memory(answer: str) -> bool:
    """From what `app/capacity.py` counts for one worker, or preflight would refuse what was asked for."""
    return bool(re.fullmatch(r"[0-9]{1,7}", answer)) and 130 <= int(answer) <= 2**20


def is_replicas(answer: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,4}", answer)) and 1 <= int(answer) <= 1000


def is_registry(answer: str) -> bool:
    return bool(REGISTRY.fullmatch(answer)) and len(answer) <= 200


RULES: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "project_name": (is_name, "1 to 60 letters, digits, spaces and . , : ; ! ? ( ) & + - _ on one line"),
    "project_slug": (
        is_slug,
        "2 to 40 small letters, digits and hyphens, beginning with a letter, and not the name of a package "
        "that the service depends on",
    ),
    "description": (is_text(200), "1 to 200 letters, digits, spaces and . , : ; ! ? ( ) & + - _ / ’ on one line"),  # noqa: RUF001
    "domain_name": (
        is_domain,
        "localhost, or a host name of small letters, digits, hyphens and dots, like shop.example.com",
    ),
    "cpus": (is_cpus, "a number from 0.1 to 256, like 1 or 0.5"),
    "memory_mb": (is_memory, "a whole number of megabytes from 130 to 1048576"),
    "max_replicas": (is_replicas, "a whole number from 1 to 1000"),
    "container_registry": (
        is_registry,
        "up to 200 small letters and digits: a host, perhaps with a port, and folders, like ghcr.io/acme",
    ),
}


def check(answer: object, question: str) -> str:
    """The answer, if it keeps its rule.

    Raises:
        FailedHookException: with one line that names the question, the answer and the rule.
    """
    given = str(answer)
    keeps, rule = RULES[question]
    if not keeps(given):
        shown = ascii(given if len(given) <= 60 else given[:57] + "...")
        apostrophe = " An apostrophe is typed as \u2019 here." if "'" in given else ""
        raise FailedHookException(f"{question}={shown} will not do. It must be {rule}.{apostrophe}")
    return given


@cache  # a render asks it for two numbers
def load_capacity() -> dict[str, Any]:
    return runpy.run_path(str(SERVICE / "app" / "capacity.py"))


def count(context: Mapping[str, str], what: str) -> str:
    """A number that follows from `app/capacity.py` for these answers; loaded by its path it leaves nothing behind."""
    capacity = load_capacity()
    limits = capacity["Limits"](float(context["cpus"]), int(context["memory_mb"]), "")
    plan, replicas = capacity["plan"](limits, context["worker_class"]), int(context["max_replicas"])
    counts = {
        "connections": plan.connections(replicas),
        "pooled": plan.pooled(replicas),
        "pool_of_each": max(1, plan.pooled(replicas) // 3),  # two poolers, and one that is being replaced
        "workers": plan.workers,
        "in_flight": max(1, plan.workers * plan.threads * 7 // 10),  # of what an instance can have in hand
        # In a small instance, halfway from what its workers need to all it has: it is not full when it starts.
        "memory_target": max(limits.memory_mb * 8 // 10, (plan.memory_mb + limits.memory_mb) // 2),
        "min_replicas": min(3, replicas),
    }
    return str(counts[what])


def record(context: Mapping[str, object]) -> str:
    """The text of `.template.json`: where the service came from, for its later updates."""
    template = str(context.get("_template", HERE))
    # A local folder is used where it is. It may have been given as a relative path, and the current folder is
    # another one by now.
    source = HERE.as_posix() if template == context.get("_repo_dir") else template
    answers = {name: value for name, value in context.items() if not name.startswith("_")}
    entry = {"source": source, "version": context["__version"], "commit": read_commit(HERE), "answers": answers}
    return json.dumps({**entry, "digest": digest(entry)}, indent=2, ensure_ascii=False)


def digest(entry: Mapping[str, object]) -> str:
    """By it an update knows a record that was edited by hand, and so is no longer of what was rendered."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]


def read_commit(repository: Path) -> str | None:
    """The commit that is checked out, read from git's files without running git; None outside a repository."""
    git = repository / ".git"
    try:
        if git.is_file():  # a worktree or submodule: the file names the folder
            git = repository / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        shared = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
        for folder in (git, shared):
            if (folder / name).is_file():
                return (folder / name).read_text().strip()
        packed = re.search(rf"^([0-9a-f]+) {re.escape(name)}$", (shared / "packed-refs").read_text(), re.M)
        return packed and packed[1]
    except OSError:
        return None


class Rules(Extension):
    """Makes the filters known to cookiecutter."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters.update(slugify=slugify, check=check, count=count, record=record)
        # A letter beyond the basic plane stays one letter in JSON; as two escapes it would be no TOML.
        environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": True}
