"""What a service was made from, what it shall be made from now, and what a release says about that."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stage import git, refuse

TEMPLATE = Path(__file__).resolve().parent.parent

Questions = dict[str, str | list[str]]


def digest(entry: Mapping[str, object]) -> str:
    """As in `template_rules.py`, which would bring cookiecutter with it."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """`.template.json` of the service's last commit.

    Attributes:
        base: the commit of the template that the service was rendered from.
    """

    source: str
    version: str
    base: str
    answers: dict[str, str]


def read_record() -> Record:
    """What the service was made from, checked.

    Raises:
        SystemExit: it is damaged, or somebody edited it.
    """
    try:
        entry = json.loads(git("show", "HEAD:./.template.json"))
        if entry.pop("digest", None) not in (None, digest(entry)):  # the first releases wrote none
            refuse_record("was edited")
        record = Record(entry["source"], entry["version"], entry["commit"] or "v" + entry["version"], entry["answers"])
        texts = [record.source, record.version, record.base, *record.answers.values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        refuse_record("is damaged")
    if not all(isinstance(text, str) for text in texts):
        refuse_record("is damaged")
    return record


def refuse_record(what: str) -> Any:
    """Say how to put it back as it was before the commit that changed it."""
    changed = git("rev-list", "-1", "--abbrev-commit", "HEAD", "--", ".template.json").strip()
    command = f"git checkout {changed}~ -- .template.json && git commit -m 'As it was'"
    refuse(f".template.json {what}. Put it back: {command}. To change an answer: make template-update question=answer")


def read_questions(commit: str) -> tuple[Questions, str]:
    """The questions of a release, with the default or the choices of each; and its version."""
    context = json.loads(git("show", f"{commit}:cookiecutter.json", folder=TEMPLATE))
    return {name: value for name, value in context.items() if not name.startswith("_")}, context["__version"]


def check_record(record: Record, commit: str) -> None:
    """Hold the record against the release that it names.

    Raises:
        SystemExit: that release can not have written it.
    """
    questions, version = read_questions(commit)
    chosen = {name: choices for name, choices in questions.items() if isinstance(choices, list)}
    if (
        version != record.version
        or questions.keys() != record.answers.keys()
        or any(record.answers[name] not in choices for name, choices in chosen.items())
    ):
        refuse_record("was edited")


@dataclass(frozen=True)
class Notes:
    """What a release says to those who come from an older one; `docs/upgrade/VERSION.toml`.

    Attributes:
        changed: what is different in a rendered service.
        todo: what a person must do.
        settings: a new setting, and what it opts in to.
        renamed: the former name of a question, and its new one.
    """

    version: str
    changed: list[str]
    todo: list[str]
    settings: dict[str, str]
    renamed: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{self.version}:", *(f"  - {line}" for line in self.changed)]
        lines += [f"  - {name}: {line}" for name, line in self.settings.items()]
        lines += [f"  To do: {line}" for line in self.todo]
        return "\n".join(lines)


def read_notes(old: str, new: str, folder: Path = TEMPLATE / "docs" / "upgrade") -> list[Notes]:
    """The notes of the releases after `old`, up to `new`; a release may have none."""
    found = []
    for path in sorted(folder.glob("*.toml"), key=lambda path: as_numbers(path.stem)):
        if as_numbers(old) < as_numbers(path.stem) <= as_numbers(new):
            notes = tomllib.loads(path.read_text(encoding="utf-8"))
            lists = [notes.get(name, []) for name in ("changed", "todo")]
            found.append(Notes(path.stem, *lists, *(notes.get(name, {}) for name in ("settings", "renamed"))))
    return found


def as_numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def choose(
    recorded: Mapping[str, str], given: Mapping[str, str], questions: Questions, notes: list[Notes], version: str
) -> dict[str, str]:
    """The answers for the new release: the recorded ones by their new names, then those given now.

    Raises:
        SystemExit: a question is not asked, or an answer is not among its choices.
    """
    answers = dict(recorded)
    for release in notes:
        answers = {release.renamed.get(name, name): answer for name, answer in answers.items()}
    unknown = sorted(given.keys() - questions.keys())
    if unknown:
        refuse(f"{unknown[0]} is no question of {version}. Choose from: {', '.join(questions)}")
    answers = {name: answer for name, answer in answers.items() if name in questions} | dict(given)
    for name, answer in answers.items():
        choices = questions[name]
        if isinstance(choices, list) and answer not in choices:
            mend = f"make template-update {name}={choices[0]}"
            refuse(f"{name}={answer} is no answer of {version}. Choose from {', '.join(choices)}: {mend}")
    return answers
