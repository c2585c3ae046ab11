"""What a team, or the template, does to files: each is a function of the folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.releases import Edit


def write(path: str, content: str | bytes) -> Edit:
    def edit(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)

    return edit


def change(path: str, old: str, new: str) -> Edit:
    """One place of a file is different."""

    def edit(folder: Path) -> None:
        text = (folder / path).read_bytes().decode()
        assert text.count(old) == 1, f"{path} no longer has one {old!r}: choose another place"
        (folder / path).write_bytes(text.replace(old, new).encode())

    return edit


def append(path: str, text: str) -> Edit:
    def edit(folder: Path) -> None:
        with (folder / path).open("ab") as file:
            file.write(text.encode())

    return edit


def delete(*paths: str) -> Edit:
    def edit(folder: Path) -> None:
        for path in paths:
            if (folder / path).is_dir():
                shutil.rmtree(folder / path)
            else:
                (folder / path).unlink()

    return edit


def move(old: str, new: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)

    return edit


def mode(path: str, bits: int) -> Edit:
    return lambda folder: (folder / path).chmod(bits)
