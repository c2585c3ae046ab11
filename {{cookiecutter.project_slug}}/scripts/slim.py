"""Take out of an environment what no running service reads: `python3 scripts/slim.py .venv`. Made for the image.

That is the test suites in wheels, the sources of what is compiled, and the symbols of compiled libraries, which only
a debugger asks for: a tenth of the size. Standard library only.
"""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

TESTS = ("tests", "alembic/testing", "sqlalchemy/testing")
SOURCES = {".c", ".cpp", ".h", ".hpp", ".pxd", ".pyi", ".pyx"}


def main(root: Path) -> None:
    for folder in [path for pattern in TESTS for path in root.rglob(pattern) if path.is_dir()]:
        shutil.rmtree(folder, ignore_errors=True)  # it may be within one that is gone
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            if path.suffix in SOURCES:
                path.unlink()
            elif ".so" in path.suffixes:
                cut_symbols(path)


def cut_symbols(path: Path) -> None:
    """Cut a 64-bit ELF file (elf(5)) after its last segment: the loader reads segments, a debugger what follows."""
    with path.open("r+b") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":  # 64 bits, little endian
            return
        (table,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(table)
        segments = file.read(size * count)
        ends = [sum(struct.unpack_from("<Q16xQ", segments, at + 8)) for at in range(0, size * count, size)]
        file.truncate(max(*ends, table + size * count))
        # The table of sections was behind that, so the header no longer names it.
        file.seek(40)
        file.write(bytes(8))
        file.seek(60)
        file.write(bytes(4))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
