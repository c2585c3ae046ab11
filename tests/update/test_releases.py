"""From each earlier release to this one, and from answers to other answers: the tree is the one rendered directly."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.answers import VARIANTS, Answers
from support.git import git
from support.releases import RELEASES, Live, Template, without_env


def known(template: Template, version: str, answers: Answers) -> Answers:
    """Those of the answers that could be given at a release."""
    questions = template.questions(version)
    return {
        name: answer
        for name, answer in answers.items()
        if name in questions and (isinstance(questions[name], str) or answer in questions[name])
    }


def is_as_rendered(service: Live, version: str, answers: Answers) -> None:
    direct = service.template.render(version, **answers)
    assert without_env(service.files()) == without_env(Live(direct, service.template).files())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("version", RELEASES)
def test_a_service_of_an_earlier_release_becomes_one_of_this(
    template: Template, tmp_path: Path, version: str, variant: str
) -> None:
    answers = known(template, version, VARIANTS[variant])
    service = template.service(tmp_path / "service", version, **answers)
    env = (service.folder / ".env").read_bytes()
    done = service.update()
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(service.folder, "diff", "--name-only") == "", "all of it is staged"
    assert git(service.folder, "ls-files", "--others", "--exclude-standard") == ""
    is_as_rendered(service, template.releases[-1], answers)
    assert (service.folder / ".env").read_bytes() == env
    service.commit()
    again = service.update()
    assert (again.returncode, again.stdout.startswith("Nothing is new")) == (0, True)
