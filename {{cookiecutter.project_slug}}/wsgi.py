"""The WSGI application, for a server: `wsgi:app`; `flask` commands find it here too."""

from __future__ import annotations

from app import create_app
from app.settings import SettingsError

try:
    app = create_app()
except SettingsError as error:
    raise SystemExit(str(error)) from None
