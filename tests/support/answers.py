"""The answers that services are rendered with: few, and with every pair of answers among them."""

from __future__ import annotations

from covertable import make

from support.template import QUESTIONS

Answers = dict[str, str]

# The ends of what each free text may be; a question with choices has all of them.
TEXTS = {
    "project_name": [
        "My Service",
        "K\u00e4se & S\u00f6hne, \u65e5\u672c\u8a9e: \U0001d49c\u2019!",
        "Longest name ".ljust(60, "x"),
    ],
    "project_slug": ["my-service", "ab", "a-slug-of-the-greatest-allowed-length-40"],
    "description": ["A Flask service.", "1", "B\u00fccher/\u65e5\u672c\u8a9e ".ljust(200, "y")],
    "domain_name": ["localhost", "a.b", f"{'l' * 63}.xn--bcher-kva.example.com"],
    "cpus": ["1", "0.1", "256"],
    "memory_mb": ["512", "130", "1048576"],
    "max_replicas": ["10", "1", "1000"],
    "container_registry": ["localhost", "a", f"registry.example.com:5000/{'folder-' * 10}x/y.z_0"],
}


def cover(strength: int = 2) -> list[Answers]:
    """A covering array: each pair of answers to two questions stands in a row of it, always the same rows."""
    factors = {name: TEXTS[name] if isinstance(choices, str) else choices for name, choices in QUESTIONS.items()}
    rows: list[Answers] = make(factors, strength=strength)
    return sorted(({name: row[name] for name in QUESTIONS} for row in rows), key=lambda row: tuple(row.values()))


ROWS = cover()
CHOICES = {name: choices for name, choices in QUESTIONS.items() if isinstance(choices, list)}
# As unlike as they can be: the defaults, and the two ends of everything.
VARIANTS: dict[str, Answers] = {
    "default": {},
    "smallest": {name: ways[1] for name, ways in TEXTS.items()} | {name: ways[-1] for name, ways in CHOICES.items()},
    "largest": {name: ways[2] for name, ways in TEXTS.items()} | {name: ways[0] for name, ways in CHOICES.items()},
}


def describe(answers: Answers) -> str:
    """A test's name: a choice as it is, a text as its place in the list."""
    parts = [f"{name}-{TEXTS[name].index(text)}" if name in TEXTS else text for name, text in answers.items()]
    return ",".join(parts)
