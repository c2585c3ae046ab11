"""`cookiecutter .`, as a person types it."""

from __future__ import annotations

import json

import pytest

from support.ask import Ask
from support.template import QUESTIONS, ROOT


def test_enter_to_every_question_renders_the_defaults_and_says_what_is_next(ask: Ask) -> None:
    outcome = ask.run(template=".", typed="\n" * len(QUESTIONS))
    assert outcome.exit_code == 0, outcome.output
    assert "make run" in outcome.output
    (service,) = ask.output.iterdir()
    record = json.loads((service / ".template.json").read_text(encoding="utf-8"))
    assert service.name == record["answers"]["project_slug"] == "my-service"
    assert record["source"] == ROOT.as_posix()
    for name, choices in QUESTIONS.items():
        assert name == "project_slug" or record["answers"][name] == (
            choices if isinstance(choices, str) else choices[0]
        )


def test_every_question_and_choice_is_explained(ask: Ask) -> None:
    outcome = ask.run(template=".", typed="\n" * len(QUESTIONS))
    prompts = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["__prompts__"]
    assert list(prompts) == list(QUESTIONS)
    for name, choices in QUESTIONS.items():
        texts = (
            [prompts[name]]
            if isinstance(choices, str)
            else [prompts[name]["__prompt__"], *map(prompts[name].get, choices)]
        )
        for text in texts:
            assert text in " ".join(outcome.output.split())


@pytest.mark.parametrize(
    ("question", "answer"), [("project_slug", "../x"), ("project_name", "a\x7fb"), ("memory_mb", "0")]
)
def test_a_bad_answer_leaves_nothing_on_disk(ask: Ask, question: str, answer: str) -> None:
    outcome = ask.run(template=".", typed="".join(f"{answer if name == question else ''}\n" for name in QUESTIONS))
    assert outcome.output.splitlines()[-1].endswith(".")
    assert "will not do. It must be" in outcome.output
    assert (outcome.exit_code, outcome.left) == (1, [])
