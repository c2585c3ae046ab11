"""A real API server takes what is rendered: each overlay, with each component, under "restricted" and without a word."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubernetes.conftest import SLUG, make_secret
from support.cluster import Cluster

OVERLAYS = ("staging", "production")


def render_overlay(cluster: Cluster, folder: Path, overlay: str, namespace: str) -> str:
    """An overlay as kustomize has it, in a namespace of our own."""
    text = cluster.kubectl("kustomize", folder / "deploy/kubernetes/overlays" / overlay)
    return text.replace(f"{SLUG}-{overlay}", namespace)
