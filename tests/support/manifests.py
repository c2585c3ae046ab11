"""What an overlay of a rendered service comes to, and what tools of the field say of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from kubernetes_validate import utils

from support.gates import HERE, trivy
from support.kubectl import kubectl

Document = dict[str, Any]
OVERLAYS = ("production", "staging", "everything")  # the last one is made here
VERSIONS = sorted(set(utils.all_versions()), key=lambda version: int(version.split(".")[1]))[-4:]
CUSTOM = {"ExternalSecret", "HTTPRoute", "ServiceMonitor"}  # of operators, so no schema of Kubernetes' own
utils.schema_contents = cache(utils.schema_contents)  # a megabyte, read for each document


def build(service: Path, scratch: Path, overlay: str) -> str:
    """What kustomize makes of an overlay; `everything` is production with all components."""
    folder = service / "deploy" / "kubernetes"
    if overlay == "everything":
        copy = scratch / "service"
        shutil.copytree(service / "deploy", copy / "deploy", dirs_exist_ok=True)
        folder = copy / "deploy" / "kubernetes"
        path = folder / "overlays" / "production" / "kustomization.yaml"
        add = "".join(f"  - ../../components/{one.name}\n" for one in sorted((folder / "components").iterdir()))
        text = re.sub(r"^ +(# )?- \.\./\.\./components/.*\n", "", path.read_text(), flags=re.M)
        path.write_text(text.replace("components:\n", f"components:\n{add}"))
        overlay = "production"
    text, complaint = kubectl("kustomize", folder / "overlays" / overlay)
    assert complaint == "", complaint
    return text


def read(text: str) -> list[Document]:
    return list(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # a tenth of the time, in C


def against_schemas(documents: Iterable[Document]) -> list[str]:
    """What the schemas of the newest versions of Kubernetes have against documents, unknown fields among it."""
    found = []
    for document in documents:
        for version in VERSIONS if document["kind"] not in CUSTOM else ():
            name = f"{version}: {document['kind']} {document['metadata']['name']}"
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError as error:
                found.append(f"{name}: {error.message}")  # an API of before, which a newer version has not
    return found


def against_types(documents: Iterable[Document]) -> list[str]:
    """What Kubernetes' own types have against pods."""
    pods = yaml.safe_dump_all(document for document in documents if document["kind"] in ("Deployment", "Job"))
    command = ["set", "env", "--local", "--filename=-", "--output=yaml", "A=b"]
    _, complaint = kubectl(*command, text=pods)
    return complaint.splitlines()


def against_trivy(folder: Path) -> list[str]:
    """What trivy has against all that is in a folder."""
    return trivy(folder, "config", "--skip-check-update", f"--ignorefile={HERE / 'trivy-kubernetes.yaml'}")
