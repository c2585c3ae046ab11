"""The measured promises. `run.py` runs them; README.md has the figures of the last run."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))  # support.service, support.load
