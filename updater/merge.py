"""Git's own merge of three trees, worked out without touching files, index or branch."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field

from stage import git, refuse

LOCK = "uv.lock"
# No identity is asked for: these commits exist for git to find the common ancestor by, and belong to no branch.
SOMEBODY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in {"NAME": "template", "EMAIL": "template@localhost", "DATE": "2000-01-01T00:00:00Z"}.items()
}
# A file that the team put into a folder that moved stays where the team put it.
WAYS = ("-c", "merge.renames=true", "-c", "merge.directoryRenames=false")
OLDEST_GIT = (2, 38)

Stages = list[tuple[str, str, str]]  # mode, object and stage, as in the index


@dataclass
class Merged:
    """What a merge came to.

    Attributes:
        tree: its files, conflicts marked in them.
        conflicts: what stands in the index of each path that is in conflict.
        reasons: git's own words on these.
    """

    tree: str
    conflicts: dict[str, Stages] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def merge(base: str, ours: str, theirs: str, name: str) -> Merged:
    """Merge trees; `name` is what conflict markers call theirs."""
    version = tuple(int(number) for number in git("version").split()[2].split(".")[:2])
    if version < OLDEST_GIT:
        refuse(f"git 2.38 or newer is needed and this is {git('version').split()[2]}: apt install git")
    names = ["yours", f"template/{name}"]
    ancestor = commit_tree(base)
    for label, tree in zip(names, (ours, theirs), strict=True):
        git("update-ref", f"refs/{label}", commit_tree(tree, ancestor))
    command = ["git", *WAYS, "merge-tree", "--write-tree", "-z", *names]
    top = git("rev-parse", "--show-toplevel").rstrip("\n")  # elsewhere it prints paths as they are seen from there
    done = subprocess.run(command, cwd=top, capture_output=True, check=False)
    for label in names:
        git("update-ref", "-d", f"refs/{label}")
    if done.returncode not in (0, 1):
        refuse(f"git could not merge: {done.stderr.decode(errors='replace').strip()}")
    merged = read_merged(done.stdout.decode(errors="surrogateescape"))
    lock = {stage: find_blob(tree, LOCK) for stage, tree in (("1", base), ("2", ours), ("3", theirs))}
    if all(lock.values()) and len(set(lock.values())) == 3:
        # Text merged from two lock files is none. Theirs stays, and uv puts ours into it.
        merged.conflicts[LOCK] = [(*found, stage) for stage, found in lock.items() if found]
        merged.reasons = [reason for reason in merged.reasons if not reason.endswith(f" {LOCK}")]
        merged.reasons.append(f"Changed on both sides: {LOCK}. Lock again: make lock && git add {LOCK}")
        merged.tree = replace_blob(merged.tree, LOCK, *(lock["3"] or ("", "")))
    return merged


def commit_tree(tree: str, *parents: str) -> str:
    arguments = [word for parent in parents for word in ("-p", parent)]
    return git("-c", "commit.gpgSign=false", "commit-tree", tree, *arguments, "-m", "update", environ=SOMEBODY).strip()


def read_merged(output: str) -> Merged:
    """Read what `git merge-tree -z` prints: a tree, a line a stage, then a list of fields a message."""
    tree, _, rest = output.partition("\0")
    merged = Merged(tree)
    fields = iter(rest.split("\0"))
    for line in iter(lambda: next(fields, ""), ""):
        entry, _, path = line.partition("\t")
        mode, blob, stage = entry.split(" ")
        merged.conflicts.setdefault(path, []).append((mode, blob, stage))
    for count in iter(lambda: next(fields, ""), ""):
        for _ in range(int(count)):
            next(fields)
        kind, message = next(fields), next(fields)
        if kind.startswith("CONFLICT"):
            merged.reasons.append(" ".join(message.split()))
    return merged


def find_blob(tree: str, path: str) -> tuple[str, str] | None:
    """Mode and object of a path, if the tree has it."""
    line = git("ls-tree", "--full-tree", tree, "--", path)
    mode, _, blob = line.partition("\t")[0].split(" ") if line else ("", "", "")
    return (mode, blob) if line else None


def replace_blob(tree: str, path: str, mode: str, blob: str) -> str:
    """The tree with another file at a path of its first level."""
    lines = git("ls-tree", "--full-tree", "-z", tree).split("\0")
    kept = [line for line in lines if line and line.partition("\t")[2] != path]
    return git("mktree", "-z", given=[*kept, f"{mode} blob {blob}\t{path}"]).strip()


def put_below(head: str, prefix: str, tree: str) -> str:
    """The whole repository's tree, where the service is a folder of it."""
    if not prefix:
        return tree
    first, _, rest = prefix.strip("/").partition("/")
    above = git("rev-parse", f"{head}^{{tree}}").strip()
    inner = put_below(git("rev-parse", f"{above}:{first}").strip(), rest, tree)
    lines = git("ls-tree", "--full-tree", "-z", above).split("\0")
    kept = [line for line in lines if line and line.partition("\t")[2] != first]
    return git("mktree", "-z", given=[*kept, f"040000 tree {inner}\t{first}"]).strip()
