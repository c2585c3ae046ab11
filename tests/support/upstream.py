"""What stands behind a proxy in tests: an HTTP server that says what it was sent, and fails as it is told to.

Standard library only, so that a container of nothing but Python can run it: `python -c TEXT`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COUNTS: Counter[str] = Counter()  # by method and path; "open" is how many requests are in hand
LOCK = threading.Lock()
PAGE = b"""<!doctype html><title>x</title><script>document.title = "inline"</script><img src="https://other.invalid/x.png">"""


class Handler(BaseHTTPRequestHandler):
    """Each path is something to do."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    wbufsize = 2**16  # head and body in one packet: else each answer waits for a delayed acknowledgement

    def handle_any(self) -> None:
        what, _, value = self.path.lstrip("/").partition("/")
        if what == "counts":
            with LOCK:
                self.answer(dict(COUNTS))
            return
        with LOCK:
            COUNTS[f"{self.command} {self.path}"] += 1
            COUNTS["open"] += 1
        try:
            self.act(what, value)
        finally:
            with LOCK:
                COUNTS["open"] -= 1

    def act(self, what: str, value: str) -> None:
        digest, length = hashlib.sha256(), 0
        while length < (whole := int(self.headers.get("Content-Length") or 0)):
            part = self.rfile.read(min(2**16, whole - length))
            if not part:
                return
            digest.update(part)
            length += len(part)
        if what == "die" or os.environ.get("MORTAL"):
            self.close_connection = True
        elif what == "bytes":
            self.send(200, random.Random(1).randbytes(int(value)), "application/octet-stream")
        elif what == "page":
            self.send(200, PAGE, "text/html")
        elif what == "status":
            self.answer({"own": True}, int(value))
        else:
            if what == "slow":
                time.sleep(float(value))
            sent = [[name.lower(), text] for name, text in self.headers.items()]
            told = {"method": self.command, "path": self.path, "headers": sent}
            self.answer({**told, "length": length, "sha256": digest.hexdigest(), "me": os.environ.get("ME")})

    def answer(self, told: Any, status: int = 200) -> None:
        self.send(status, json.dumps(told).encode(), "application/json")

    def send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", "default-src 'none'")
        self.send_header("Strict-Transport-Security", "max-age=1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    print(f"serves on {port}", file=sys.stderr, flush=True)
    Server(("", port), Handler).serve_forever()
