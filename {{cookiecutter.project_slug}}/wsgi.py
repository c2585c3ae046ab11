"""The WSGI application, for a server: `wsgi:app`; `flask` commands find it here too."""

from __future__ import annotations

import sys

from app import create_app
from app.settings import SettingsError

try:
    app = create_app()
except SettingsError as error:
    if sys.argv[1:2] == ["preflight"]:  # flask preflight, which tells this in its own way
        from app.preflight import refuse

        raise SystemExit(refuse(error.problems, "--json" in sys.argv)) from None
    raise SystemExit(str(error)) from None
