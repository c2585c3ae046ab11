"""A client that keeps cookies and sends forms, as a browser does, to whichever instance of a service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import urlencode

from support.service import Answer, Service


@dataclass
class Browser:
    """Its cookies last until an answer takes them back."""

    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, service: Service, path: str) -> Answer:
        return self.send(service, "GET", path)

    def open_form(self, service: Service, path: str) -> str:
        """The token in the form on a page."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.get(service, path).body.decode())
        assert found, f"{path} has no form with a token"
        return found[1]

    def post(self, service: Service, path: str, headers: Mapping[str, str] | None = None, **values: str) -> Answer:
        """Send a form."""
        form = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self.send(service, "POST", path, urlencode(values).encode(), form)

    def send(
        self,
        service: Service,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        answer = service.request(method, path, body, {**sent, **(headers or {})})
        for line in answer.headers.get_all("Set-Cookie", []):
            for name, cookie in SimpleCookie(line).items():
                if cookie["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = cookie.value
        return answer
