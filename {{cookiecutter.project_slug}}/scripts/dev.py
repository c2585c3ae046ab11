"""Serve, and serve anew whatever was edited: `make dev`. For development; standard library only.

The whole server is started again: it loads the code once, before it forks (`preload_app`), and so do the hooks in
app/server/. Where the code does not load, the next edit starts it again.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WATCHED = ("app", "asgi.py", "gunicorn.conf.py", "wsgi.py", ".env")
GUNICORN = Path(sys.executable).with_name("gunicorn")


def look() -> dict[Path, int]:
    """Every file that the server reads as it starts, and when it was changed."""
    found = {}
    for name in WATCHED:
        for path in (ROOT / name, *(ROOT / name).rglob("*")):
            with contextlib.suppress(OSError):  # an editor replaces it at this moment
                if path.is_file() and "__pycache__" not in path.parts:
                    found[path] = path.stat().st_mtime_ns
    return found


def stop(server: subprocess.Popen[bytes]) -> None:
    """At once; a request that hangs is not waited for."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = None
    try:
        while True:
            seen = look()
            server = subprocess.Popen([GUNICORN], cwd=ROOT)
            while (now := look()) == seen:
                if server.returncode is None and server.poll() is not None:
                    print(f"It ended with {server.returncode}; the next edit starts it again.", flush=True)
                time.sleep(0.3)
            edited = sorted({path for path, _ in now.items() ^ seen.items()})
            print(f"{edited[0].relative_to(ROOT)} was edited", flush=True)
            stop(server)
    except KeyboardInterrupt:
        pass
    finally:
        if server is not None:
            stop(server)


if __name__ == "__main__":
    main()
