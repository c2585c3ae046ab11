"""The rules of this folder, whatever was imported before: cruft renders two releases of the template in one process.

Python keeps a module by its name, and the rules of the release that was rendered first would judge the second.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from jinja2 import Environment
from jinja2.ext import Extension


class Rules(Extension):
    """The filters of `template_rules.py` beside this file."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        runpy.run_path(str(Path(__file__).with_name("template_rules.py")))["Rules"](environment)
        sys.modules.pop(__name__, None)
