"""kubectl without a cluster: Debian 13's, where the machine has none that is new enough."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from support.packages import unpack
from support.template import ROOT

OLDEST = 30  # of version 1: the first whose kustomize and types know all that is rendered


@cache
def find_kubectl() -> str:
    """Where a kubectl of version 1.30 or newer is; fetched if need be."""
    found = shutil.which("kubectl")
    if found and minor(found) >= OLDEST:
        return found
    home = ROOT / "build" / "kubectl"
    home.mkdir(parents=True, exist_ok=True)
    return str(unpack("kubectl", into=home) / "root/usr/bin/kubectl")


def minor(program: str) -> int:
    done = subprocess.run(
        [program, "version", "--client", "--output=json"], capture_output=True, text=True, check=False
    )
    return int(json.loads(done.stdout)["clientVersion"]["minor"].rstrip("+")) if done.returncode == 0 else 0


def kubectl(*arguments: str | Path, text: str | None = None) -> tuple[str, str]:
    """What it prints, and what it complains of; that is not empty where it fails. No cluster is asked."""
    command = [find_kubectl(), *map(str, arguments)]
    environ = {**os.environ, "KUBECONFIG": os.devnull}
    done = subprocess.run(command, input=text, env=environ, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr or ("" if done.returncode == 0 else f"kubectl ended with {done.returncode}")
