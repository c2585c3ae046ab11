"""Ask the server in this container whether it lives: exit code 0 if it does, 1 with a line that says why if not.

Another question is asked by its path: `python scripts/healthcheck.py /healthz/ready`.

Standard library only, and nothing of the application: an image needs no curl, and a probe is cheap.
"""

from __future__ import annotations

import http.client
import os
import socket
import sys

PATH = "/healthz/live"
TIMEOUT = 3.0  # seconds of silence; less than what the Dockerfile's HEALTHCHECK waits in all


def connect(bind: str) -> socket.socket:
    """A connection to the first address of a GUNICORN_BIND; where that is any address, to this host.

    Raises:
        OSError: nothing answers there.
    """
    address = bind.split(",")[0].strip()
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104
    return socket.create_connection((host, int(port)), TIMEOUT)


def main(path: str = PATH) -> int:
    bind = os.environ.get("GUNICORN_BIND") or f"127.0.0.1:{os.environ.get('PORT') or 8000}"
    server = http.client.HTTPConnection("localhost")
    try:
        with connect(bind) as server.sock:
            server.request("GET", path, headers={"Connection": "close"})
            with server.getresponse() as response:
                status = response.status
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"{bind}{path}: {type(error).__name__}: {error}")
        return 1
    print(f"{bind}{path}: {status}")
    return int(status != 200)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
