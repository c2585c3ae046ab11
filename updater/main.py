"""Merge a release of the template into a service: run by the service's `scripts/template_update.py`, in its folder.

It renders what the service was made from and what it shall be made from, in folders of their own, and has git merge the
difference. `--release` is the release that was found; the other arguments are those that the user gave.
docs/decisions/template-update.md has the reasons.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import stage
from answers import TEMPLATE, Notes, Record, check_record, choose, read_notes, read_questions, read_record
from merge import Merged, merge, put_below
from render import Side, correct_record, drop_sample, line_ends, render_both, write_tree
from stage import git, refuse


@dataclass(frozen=True)
class News:
    """What a service is updated from and to.

    Attributes:
        name: the release, or the commit if that is none.
        source: where the template is from now on.
        notes: of each release on the way.
    """

    record: Record
    base: Side
    target: Side
    version: str
    name: str
    source: str
    notes: list[Notes]

    def __str__(self) -> str:
        recorded = self.record.answers
        given = {name: answer for name, answer in self.target.answers.items() if recorded.get(name) != answer}
        lines = [f"{name}: {recorded.get(name)} -> {answer}" for name, answer in given.items()]
        return "\n".join(
            [f"Template {self.record.version} -> {self.version} ({self.name})", *lines, *map(str, self.notes)]
        )


def main(arguments: list[str]) -> int:
    """0: merged, or nothing is new; 1: conflicts are left, or `--check` found news; 2: refused, nothing is changed."""
    options = read_options(arguments)
    given = read_answers(options.answers)
    record = read_record()
    if not (options.check or options.diff):
        refuse_changes()
    news = find_news(options, record, given)
    if news.target == Side("target", news.base.commit, record.answers) and news.source == record.source:
        print(f"Nothing is new: this service is at {record.version} ({news.base.commit[:12]})")
        return 0
    if options.check:
        print(news)
        return 1
    head = git("rev-parse", "HEAD").strip()
    prefix = git("rev-parse", "--show-prefix").strip()
    merged, lines = render_and_merge(news, prefix)
    whole = put_below(head, prefix, merged.tree)
    if options.diff:
        print(git("diff", head, whole), end="")
        return 0
    message = f"Update from the template: {record.version} to {news.name}\n"
    apply(head, whole, {prefix + path: stages for path, stages in merged.conflicts.items()}, message)
    print(news, *lines, *outcome(merged), sep="\n")
    return 1 if merged.conflicts else 0


def find_news(options: argparse.Namespace, record: Record, given: Mapping[str, str]) -> News:
    """Where the service is, and where it shall be."""
    base = find_commit(record)
    check_record(record, base)
    found = target = git("rev-parse", f"{options.release}^{{commit}}", folder=TEMPLATE).strip()
    if not options.to and holds(base, target):  # the service is past the newest release, and is not taken back to it
        target = base
    questions, version = read_questions(target)
    notes = read_notes(record.version, version)
    answers = choose(record.answers, given, questions, notes, version)
    name = options.release if target == found and options.release != "origin/HEAD" else target[:12]
    source = str(Path(options.source).resolve()) if Path(options.source or "/none").exists() else options.source
    sides = Side("base", base, record.answers), Side("target", target, answers)
    return News(record, *sides, version, name, source or record.source, notes)


def read_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make template-update", allow_abbrev=False)
    parser.add_argument("--release", required=True)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--diff", action="store_true")
    parser.add_argument("--to")
    parser.add_argument("--source")
    parser.add_argument("answers", nargs="*")
    return parser.parse_args(arguments)


def read_answers(words: Iterable[str]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            refuse(f"{word} is no answer. Write it as question=answer: make template-update worker_class=sync")
    return {name: answer for name, _, answer in (word.partition("=") for word in words)}


def refuse_changes() -> None:
    """What is not committed could not be told from the template's news, nor be put back."""
    changed = [
        line[3:] for line in git("status", "--porcelain", "-z", "--untracked-files=no", "--", ".").split("\0") if line
    ]
    if changed and stage.plan_file().exists():
        refuse("An update waits to be committed: git commit, or take it back: make template-update ARGS=--abort")
    if changed:
        more = f" and {len(changed) - 1} more are" if len(changed) > 1 else " is"
        refuse(f"{changed[0]}{more} not committed. Commit first: git commit -a, or put aside: git stash")


def find_commit(record: Record) -> str:
    """The commit of the template that the service came from; fetched by its id if no branch or tag leads to it."""
    wanted = f"{record.base}^{{commit}}"
    for attempt in (["rev-parse", "--verify"], ["fetch", "--quiet", "origin", record.base], ["rev-parse", "--verify"]):
        arguments = [*attempt, wanted] if "rev-parse" in attempt else attempt
        done = subprocess.run(["git", *arguments], cwd=TEMPLATE, capture_output=True, text=True, check=False)
        if done.returncode == 0 and "rev-parse" in attempt:
            return done.stdout.strip()
    refuse(
        f"{record.source} has no {record.base}, which this service was made from. Complete a shallow clone: "
        "git fetch --unshallow --tags; or name a repository that has it: make template-update ARGS='--source URL'"
    )


def holds(commit: str, older: str) -> bool:
    """Whether a commit has another one in its history, or is it."""
    command = ["git", "merge-base", "--is-ancestor", older, commit]
    return subprocess.run(command, cwd=TEMPLATE, capture_output=True, check=False).returncode == 0


def tell_news(record: Record, version: str, name: str, notes: list[Notes]) -> None:
    print(f"Template {record.version} -> {version} ({name})")
    for release in notes:
        print(release)


def render_and_merge(news: News, prefix: str) -> tuple[Merged, list[str]]:
    """Render both sides, and have git merge their difference into the last commit; and what there is to say of it."""
    own = set(git("ls-tree", "-r", "-z", "--name-only", "HEAD").split("\0"))
    folders = render_both(stage.plan_file().with_name("work"), news.base, news.target)
    (folders[0] / ".template.json").write_text(git("show", "HEAD:./.template.json"), encoding="utf-8")
    answers = correct_record(folders[1], news.source, news.target.commit)
    new = [name for name in answers if name not in news.target.answers]
    lines = [f"New question, with its default: {name}={answers[name]}" for name in new]
    if drop_sample(folders, own):
        lines.append("The sample stays deleted")
    wants_crlf = line_ends()
    base, target = (write_tree(folder, wants_crlf) for folder in folders)
    return merge(base, git("rev-parse", f"HEAD:{prefix}").strip(), target, news.name), lines


def apply(head: str, tree: str, conflicts: Mapping[str, object], message: str) -> None:
    """Leave all that is needed for the last step, and have it taken."""
    top = Path(git("rev-parse", "--show-toplevel").rstrip("\n"))
    changes = [
        line for line in git("diff-tree", "-r", "-z", "--name-status", "--no-renames", head, tree).split("\0") if line
    ]
    status = dict(zip(changes[1::2], changes[::2], strict=True))
    for path, what in status.items():
        if what == "A" and os.path.lexists(top / path):
            refuse(
                f"{path} is in the way: the template has one now and yours is not in git. Add it: git add -f {path} && git commit"
            )
    git("update-index", "-q", "--refresh")
    git("read-tree", "-n", "-m", "-u", head, tree)
    shutil.copy(stage.__file__, stage.plan_file().with_name("stage.py"))
    paths = sorted({*status, *conflicts})
    plan = {"head": head, "merged": tree, "conflicts": conflicts, "paths": paths, "top": str(top), "message": message}
    stage.write_plan(plan, stage.PLANNED)
    stage.run_apart("--apply")


def outcome(merged: Merged) -> list[str]:
    """What to do next."""
    if not merged.conflicts:
        return ["Merged and staged. See it: git diff --cached. Test it: make test. Keep it: git commit"]
    files = f"{len(merged.conflicts)} files are" if len(merged.conflicts) > 1 else "1 file is"
    return [
        *merged.reasons,
        f"All else is merged and staged; {files} in conflict. Solve that, then: git add -A && git commit",
        "Or take all of it back: make template-update ARGS=--abort",
    ]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Exception:  # Python's own exit code for it is 1, which says something else here
        traceback.print_exc()
        sys.exit(2)
