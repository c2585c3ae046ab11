"""Programs from Debian's packages that tests run for real."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

import pytest

from support.template import ROOT, SERVICE, load

# Debian asks policy-rc.d whether it may start the service of what it installs: tests start their own. A mirror may
# fail for a moment.
INSTALL = r"""
policy=/usr/sbin/policy-rc.d
[ -e $policy ] || { trap "rm $policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; }
export DEBIAN_FRONTEND=noninteractive
for attempt in 1 2 3; do
    apt-get update -q && apt-get install -y -q --no-install-recommends "$0" && break
done
"""
# apt is led past the machine's own lists, so nothing is installed.
UNPACK = r"""
set -eu
mkdir -p lists/partial cache/archives/partial root
: >status
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] http://deb.debian.org/debian trixie main" >sources.list
cat >apt.conf <<END
Dir::State "$PWD";
Dir::State::lists "$PWD/lists";
Dir::State::status "$PWD/status";
Dir::Cache "$PWD/cache";
Dir::Etc::sourcelist "$PWD/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root";
Acquire::Retries "3";
Acquire::Languages "none";
END
export APT_CONFIG=$PWD/apt.conf
for attempt in 1 2 3; do
    apt-get update -q && apt-get download -q "$@" && break
done
for package in *.deb; do dpkg-deb -x "$package" root; done
rm -rf ./*.deb lists cache root/usr/share
"""


def find(program: str, package: str) -> Path:
    """Where a program is: a name on the PATH, or an absolute path with wildcards, of which the last one counts.

    If it is missing and we are root its package is installed; else the test fails with the command that does so.
    """
    for attempt in ("look", "install"):
        if program.startswith("/"):
            found = max(Path("/").glob(program[1:]), default=None)
        else:
            on_path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
            found = Path(on_path) if on_path else None
        if found is not None:
            return found
        if attempt == "look" and os.geteuid() == 0 and shutil.which("apt-get"):
            subprocess.run(["sh", "-c", INSTALL, package], check=False)
    pytest.fail(f"{program} is missing and could not be installed: sudo apt-get install {package}", pytrace=False)


def unpack(*packages: str, into: Path) -> Path:
    """A folder that has under `root` what is in packages of Debian 13, fetched once; they run beside an older Debian."""
    told = hashlib.sha256(f"{UNPACK}{packages}".encode()).hexdigest()[:12]
    folder = into / f"debian-{told}"
    if not folder.exists():
        for old in into.glob("debian-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=into, prefix="fetch-") as half:
            command = ["sh", "-c", UNPACK, "sh", *packages]
            done = subprocess.run(command, cwd=half, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.fail(f"Debian's packages could not be fetched:\n{done.stdout}{done.stderr}", pytrace=False)
            Path(half).rename(folder)
            Path(half).mkdir()  # for its context to remove
    return folder


def stock_packages(venv: Path) -> Path:
    """A folder with what `stock_app.py` needs and no service has: Flask's instrumentation, of the others' release.

    Args:
        venv: the environment of a service, which has the others.
    """
    locked = tomllib.loads((SERVICE / "uv.lock").read_text())["package"]
    version = next(one["version"] for one in locked if one["name"] == "opentelemetry-instrumentation-wsgi")
    home = ROOT / "build" / f"stock-{version}"
    home.parent.mkdir(exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            with contextlib.chdir(venv.parent):  # where the environment's own uv is
                uv = load(SERVICE / "scripts" / "bootstrap.py").find_uv()
            package = f"opentelemetry-instrumentation-flask=={version}"
            subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--target", home, package], check=True)
            (home / "complete").touch()
    return home
