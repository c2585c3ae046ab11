"""Sessions on Redis: the cookie holds a signed id, Redis the values. Imported where REDIS_URL is set, and only there.

Redis is asked once by a request that touches its session, and told once by one that changes it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import session_json_serializer
from flask_session.base import Serializer
from flask_session.redis import RedisSessionInterface
from itsdangerous import BadSignature, TimestampSigner
from redis import RedisError, ResponseError

from app.sessions import Session

log = logging.getLogger(__name__)
RENEWALS = 4  # in a lifetime: a client that only reads has Redis and its cookie renewed when a quarter has gone


class Json(Serializer):  # type: ignore[misc]
    """As Flask's cookie holds values. Flask-Session's own falls back to pickle, which runs what it is given."""

    def encode(self, session: Session) -> bytes:
        return session_json_serializer.dumps(session.data).encode()

    def decode(self, serialized_data: bytes) -> Any:
        try:
            return session_json_serializer.loads(serialized_data.decode())
        except ValueError:
            return None  # nothing that we wrote


class RedisSession(Session):
    """A session that Redis has, or will have.

    Attributes:
        sid: the id under which Redis has it; empty: it has none yet.
        cleared: what the client's cookie stood for ends with this request.
        stale: its time has to be renewed.
        unreadable: Redis did not answer. The session looks empty, and what is written into it is lost. The client keeps
            its cookie, and so has its session again when Redis is back; only `clear` takes it away.
    """

    sid = ""
    cleared = stale = unreadable = False

    def clear(self) -> None:
        """End it, without asking what was in it. What is written afterwards is a new session, with another id."""
        self.data, self.sid = {}, ""
        self.cleared = self.modified = True
        self.stale = self.unreadable = False


class RedisSessions(RedisSessionInterface):  # type: ignore[misc]
    """Flask-Session's interface, with ids signed by SECRET_KEY (its fallbacks are good too) and values as JSON."""

    def __init__(self, app: Flask) -> None:
        super().__init__(app, app.extensions["redis"], key_prefix="sess:")
        self.serializer = Json()
        self.lifetime = app.permanent_session_lifetime
        keys = [*app.config["SECRET_KEY_FALLBACKS"], app.secret_key]  # the last one signs
        self.signer = TimestampSigner(keys, salt="session-id", key_derivation="hmac")

    def identify(self, request: Request) -> tuple[str, bool]:
        """The id that a client's cookie holds and whether it was signed long ago; an empty one if it is not ours."""
        cookie = request.cookies.get(self.get_cookie_name(self.app), "")
        try:
            sid, signed = self.signer.unsign(cookie, int(self.lifetime.total_seconds()), return_timestamp=True)
        except BadSignature:
            return "", False
        return sid.decode(), datetime.now(UTC) - signed > self.lifetime / RENEWALS

    def open_session(self, app: Flask, request: Request) -> RedisSession:
        return RedisSession(self.load, request)

    def load(self, session: RedisSession, request: Request) -> dict[str, Any]:
        sid, old = self.identify(request)
        if not sid:
            return {}
        try:
            data = self._retrieve_session_data(self._get_store_id(sid))
        except RedisError as error:
            session.unreadable = True
            tell(error)
            return {}
        if not isinstance(data, dict):
            return {}  # an id that Redis does not know is not taken over: it may be somebody else's choice
        session.sid, session.stale = sid, old
        return data

    def save_session(self, app: Flask, session: RedisSession, response: Response) -> None:
        """Tell Redis what has changed, and the client its id.

        Raises:
            TypeError: a value is nothing that JSON has.
        """
        if session.accessed:
            response.vary.add("Cookie")
        if session.unreadable or not (session.modified or session.stale):
            return
        try:
            kept = self.write(session)
        except RedisError as error:
            kept = False
            tell(error)
        cookie = {
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "secure": self.get_cookie_secure(app),
            "httponly": self.get_cookie_httponly(app),
            "samesite": self.get_cookie_samesite(app),
            "partitioned": self.get_cookie_partitioned(app),
        }
        name = self.get_cookie_name(app)
        if kept:
            response.set_cookie(name, self.signer.sign(session.sid).decode(), max_age=self.lifetime, **cookie)
        elif session.cleared or not session:  # also where Redis could not be told
            response.delete_cookie(name, **cookie)

    def write(self, session: RedisSession) -> bool:
        """Whether Redis has the session now, for its whole lifetime."""
        if session.cleared or not session:
            ended, _ = self.identify(session.request)
            if ended:
                self._delete_session(self._get_store_id(ended))
        if not session:
            return False
        known = bool(session.sid)
        session.sid = session.sid or self._generate_sid(self.sid_length)
        key = self._get_store_id(session.sid)
        if not session.modified:
            return bool(self.client.expire(key, self.lifetime))
        # xx: only over what is there. A request that began before a logout does not bring the session back.
        return bool(self.client.set(key, self.serializer.encode(session), ex=self.lifetime, xx=known))

    def regenerate(self, session: RedisSession) -> None:
        """Give the same values another id."""
        values = dict(session)
        session.clear()
        session.update(values)


def tell(error: RedisError) -> None:
    """Log that Redis refused, being full for example. That it is down `app/breaker.py` has told, once."""
    if isinstance(error, ResponseError):
        log.warning("a session is lost: %s", error)
