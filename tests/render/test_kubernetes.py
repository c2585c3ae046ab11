"""Manifests of Kubernetes: every overlay, worker class and size, read by the field's tools and held to the service."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from support.crossref import CHECKS, find_faults
from support.manifests import OVERLAYS, VERSIONS, Document, against_schemas, against_trivy, against_types, build, read
from support.template import QUESTIONS, Render

SIZES = [
    {"cpus": "0.25", "memory_mb": "256", "max_replicas": "1", "project_slug": "ab", "container_registry": "a"},
    {
        "cpus": "1",
        "memory_mb": "512",
        "max_replicas": "10",
        "container_registry": "ghcr.io/acme",
        "domain_name": "shop.example.com",
    },
    {"cpus": "2.5", "memory_mb": "200", "max_replicas": "2", "domain_name": f"{'l' * 63}.example.com"},
    {
        "cpus": "8",
        "memory_mb": "16384",
        "max_replicas": "1000",
        "project_slug": "a-slug-of-the-greatest-allowed-length-40",
        "container_registry": "registry.example.com:5000/x/y.z_0",
        "domain_name": "shop.example.com",
    },
]
# The default worker class in every size, the others in the least and the greatest.
VARIANTS = {
    f"{worker_class}-{size['cpus']}": {"platform": "kubernetes", "worker_class": worker_class, **size}
    for worker_class in QUESTIONS["worker_class"]
    for size in (SIZES if worker_class == QUESTIONS["worker_class"][0] else [SIZES[0], SIZES[-1]])
}
DEFAULT = "gthread-1"


class Builds:
    """`builds(name, overlay)` is what kustomize makes of an overlay of a variant, and is made once."""

    def __init__(self, render: Render, scratch: Path) -> None:
        self.render, self.scratch = render, scratch
        self.built: dict[tuple[str, str], str] = {}

    def __call__(self, name: str = DEFAULT, overlay: str = OVERLAYS[-1]) -> str:
        if (name, overlay) not in self.built:
            self.built[name, overlay] = build(self.render(**VARIANTS[name]), self.scratch / name, overlay)
        return self.built[name, overlay]


@pytest.fixture(scope="session")
def builds(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    return Builds(render, tmp_path_factory.mktemp("builds"))


@pytest.fixture(scope="session")
def different(builds: Builds) -> list[Document]:
    """Every document that there is in any overlay of any variant, once."""
    texts = [builds(name, overlay) for name in VARIANTS for overlay in OVERLAYS]
    return list({json.dumps(document): document for text in texts for document in read(text)}.values())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_agrees_with_itself_and_with_the_service(
    builds: Builds, render: Render, name: str, overlay: str
) -> None:
    assert find_faults(read(builds(name, overlay)), render(**VARIANTS[name])) == []


def test_the_four_newest_versions_of_kubernetes_have_these_fields_and_no_others(different: list[Document]) -> None:
    assert len(VERSIONS) == 4
    assert against_schemas(different) == []


def test_the_types_of_kubernetes_read_every_pod(different: list[Document]) -> None:
    assert against_types(different) == []


def test_trivy_finds_nothing(different: list[Document], tmp_path: Path) -> None:
    (tmp_path / "manifests.yaml").write_text(yaml.safe_dump_all(different))
    assert against_trivy(tmp_path) == []


def test_every_file_is_named_by_a_kustomization(render: Render) -> None:
    folder = render(**VARIANTS[DEFAULT]) / "deploy" / "kubernetes"
    texts = "".join(path.read_text() for path in folder.rglob("kustomization.yaml"))
    files = {path.name for path in folder.rglob("*") if path.is_file()} - {"kustomization.yaml", "release.py"}
    assert {name for name in files if name not in texts} == set()


# A document of the default service with all components, what in it is replaced (None: it goes), the defect, and what is
# then found.
WEB, POOLER, MIGRATE = "Deployment/my-service", "Deployment/my-service-pgbouncer", "Job/my-service-migrate"
SCALER, ROUTE, NETWORK = "HorizontalPodAutoscaler/my-service", "HTTPRoute/my-service", "NetworkPolicy/my-service"
POD_LABEL = "app.kubernetes.io/component: web\n        app.kubernetes.io/instance"
DEFECTS: list[tuple[str, str | None, str, str]] = [
    (
        "Service/my-service",
        "component: web\n    app.kubernetes.io/name",
        "component: wep\n    app.kubernetes.io/name",
        "selectors: Service my-service does not select",
    ),
    (WEB, POD_LABEL, POD_LABEL.replace("web", "wep"), "selectors: Deployment my-service selects the pods of []"),
    (
        POOLER,
        "component: pgbouncer\n      app.kubernetes.io/name",
        "component: web\n      app.kubernetes.io/name",
        "selectors: Deployment my-service-pgbouncer selects",
    ),
    (
        WEB,
        "component: web\n            app.kubernetes.io/name",
        "component: x\n            app.kubernetes.io/name",
        "selectors: Deployment my-service is spread by",
    ),
    (
        "ServiceMonitor/my-service",
        "component: metrics",
        "component: web",
        "ports: ServiceMonitor asks Service my-service at metrics",
    ),
    (
        "ServiceMonitor/my-service",
        "component: metrics",
        "component: x",
        "selectors: ServiceMonitor my-service selects 0",
    ),
    (
        "ServiceMonitor/my-service",
        "port: metrics",
        "port: http",
        "ports: ServiceMonitor asks Service my-service-metrics at http",
    ),
    ("Service/my-service", "targetPort: edge", "targetPort: web", "ports: Service my-service leads to web"),
    (WEB, "containerPort: 8000", "containerPort: 8080", "ports: the service listens on 8000"),
    (WEB, "containerPort: 9102", "containerPort: 9100", "ports: the service listens on 8000 and 9102"),
    (
        WEB,
        'prometheus.io/port: "9102"',
        'prometheus.io/port: "8000"',
        "ports: Deployment my-service: prometheus.io/port",
    ),
    (
        WEB,
        "path: /healthz/ready\n            port: http",
        "path: /healthz/ready\n            port: web",
        "ports: Deployment my-service: readinessProbe of app asks web",
    ),
    ("Ingress/my-service", "name: http", "name: web", "ports: Ingress asks Service my-service at web"),
    (ROUTE, "port: 80", "port: 8000", "ports: HTTPRoute asks Service my-service at 8000"),
    (ROUTE, "- shop.example.com", "- shop.example.org", "hosts: shop.example.org is not the domain"),
    ("Ingress/my-service", "  - hosts:\n    - shop", "  - hosts:\n    - www.shop", "hosts: Ingress serves"),
    (
        "Job/my-service-smoke",
        "my-service:80",
        "my-service:8000",
        "ports: Job my-service-smoke asks Service my-service at 8000",
    ),
    (
        "Service/my-service-pgbouncer",
        "name: my-service-pgbouncer",
        "name: 1-pgbouncer",
        "names: Service 1-pgbouncer has a name",
    ),
    (
        "Service/my-service-pgbouncer",
        "name: my-service-pgbouncer",
        "name: my-service",
        "names: Service my-service is there twice",
    ),
    ("Namespace/my-service-production", "name: my-service-production", "name: my-service", "names: namespaces"),
    (
        "Namespace/my-service-production",
        "enforce: restricted",
        "enforce: baseline",
        "security: Namespace my-service-production does not",
    ),
    (MIGRATE, "template-version: ", "other-version: ", "labels: Job my-service-migrate has not the template's version"),
    (
        "Ingress/my-service",
        "app.kubernetes.io/part-of",
        "part-of",
        "labels: Ingress my-service has no app.kubernetes.io/part-of",
    ),
    (
        WEB,
        "path: /healthz/live\n            port: http\n          periodSeconds: 20",
        "path: /healthz\n            port: http\n          periodSeconds: 20",
        "probes: Deployment my-service: livenessProbe asks /healthz, which",
    ),
    (
        WEB,
        "path: /healthz/live\n            port: http\n          periodSeconds: 20",
        "path: /healthz/ready\n            port: http\n          periodSeconds: 20",
        "probes: Deployment my-service: livenessProbe asks /healthz/ready, and not",
    ),
    (
        WEB,
        "port: http\n          periodSeconds: 20",
        "port: http\n          periodSeconds: 5",
        "probes: a pod is started anew before",
    ),
    (WEB, "failureThreshold: 120", "failureThreshold: 10", "probes: 10 s to start in"),
    (WEB, "progressDeadlineSeconds: 300", "progressDeadlineSeconds: 100", "probes: 120 s to start in"),
    (WEB, "timeoutSeconds: 10", "timeoutSeconds: 1", "probes: a pod that has much to do"),
    (
        WEB,
        'cpu: "1"\n            memory: 512Mi\n          requests',
        'cpu: "2"\n            memory: 512Mi\n          requests',
        "quantities: Deployment my-service: app has more cpu by its limit",
    ),
    (
        WEB,
        'requests:\n            cpu: "1"',
        'requests:\n            cpu: "2"',
        "quantities: Deployment my-service: app requests more cpu",
    ),
    (
        WEB,
        "memory: 512Mi\n          requests",
        "memory: 512MB\n          requests",
        "quantities: Deployment my-service: app: 512MB is no quantity",
    ),
    (
        POOLER,
        "            memory: 128Mi\n          requests",
        "          requests",
        "quantities: Deployment my-service-pgbouncer: pgbouncer has no request or no limit of memory",
    ),
    (
        WEB,
        "sizeLimit: 64Mi\n        name: tmp",
        "sizeLimit: 1Gi\n        name: tmp",
        "quantities: Deployment my-service: volume tmp may have all",
    ),
    (MIGRATE, 'cpu: "1"', 'cpu: "2"', "workers: Job my-service-migrate: migrate would count other"),
    (
        SCALER,
        "kind: Deployment\n    name: my-service",
        "kind: Deployment\n    name: my-servise",
        "scaler: HPA scales Deployment my-servise",
    ),
    (SCALER, "maxReplicas: 10", "maxReplicas: 11", "scaler: HPA has from 3 to 11"),
    (SCALER, "minReplicas: 3", "minReplicas: 12", "scaler: HPA has from 12 to 10"),
    (SCALER, "averageValue: 409Mi", "averageValue: 100Mi", "scaler: HPA takes an instance for full"),
    (
        SCALER,
        "container: app\n      name: cpu",
        "container: web\n      name: cpu",
        "scaler: HPA looks at container web",
    ),
    (SCALER, "name: http_requests_in_flight", "name: http_in_flight", "scaler: HPA asks for http_in_flight"),
    (SCALER, 'averageValue: "5"', 'averageValue: "50"', "scaler: HPA waits for more requests"),
    (SCALER, "stabilizationWindowSeconds: 300", "stabilizationWindowSeconds: 0", "scaler: HPA takes a pause"),
    (
        WEB,
        "  progressDeadlineSeconds: 300",
        "  progressDeadlineSeconds: 300\n  replicas: 3",
        "scaler: each release would undo",
    ),
    (
        "PodDisruptionBudget/my-service",
        "maxUnavailable: 1",
        "minAvailable: 3",
        "disruption: Deployment my-service: its PodDisruptionBudget lets no node",
    ),
    (
        "PodDisruptionBudget/my-service-pgbouncer",
        "maxUnavailable: 1",
        "maxUnavailable: 2",
        "disruption: Deployment my-service-pgbouncer: a drain may take all 2",
    ),
    ("PodDisruptionBudget/my-service", None, "", "disruption: Deployment my-service has 0"),
    (MIGRATE, None, "", "parts: there is no Job my-service-migrate"),
    (WEB, "maxUnavailable: 0", "maxUnavailable: 1", "rollout: a release takes a pod away"),
    (WEB, "maxSurge: 1", "maxSurge: 3", "rollout: a release has 3 pods more"),
    ("NetworkPolicy/default-deny", "  - Egress", "  - Ingress", "network: not everything is forbidden"),
    ("NetworkPolicy/default-deny", "port: 53", "port: 54", "network: Deployment my-service does not reach DNS by UDP"),
    (NETWORK, "port: edge", "port: http", "network: Deployment my-service: nobody is let in at edge"),
    (NETWORK, "port: metrics", "port: 9103", "network: NetworkPolicy my-service lets in at 9103"),
    (
        NETWORK,
        "metadata.name: monitoring",
        "metadata.name: ingress",
        "network: Deployment my-service: its metrics are open",
    ),
    (
        NETWORK,
        "  - from:\n    - namespaceSelector:\n        matchLabels:\n          kubernetes.io/metadata.name: monitoring\n    ports",
        "  - ports",
        "network: NetworkPolicy my-service lets everybody in",
    ),
    (NETWORK, "component: web", "component: x", "network: NetworkPolicy my-service is about nobody"),
    (
        "NetworkPolicy/my-service-out",
        "port: 6432",
        "port: 5432",
        "network: Deployment my-service does not reach Deployment my-service-pgbouncer at 6432",
    ),
    (
        "NetworkPolicy/my-service-out",
        "port: 8080",
        "port: 8000",
        "network: Job my-service-smoke does not reach Deployment my-service at 8080",
    ),
    (
        "NetworkPolicy/my-service-out",
        "port: 4318",
        "port: 4317",
        "network: Deployment my-service does not reach the collector",
    ),
    (
        "NetworkPolicy/my-service-pgbouncer",
        "  egress:\n  - ports:\n    - port: 5432",
        "  egress:\n  - ports:\n    - port: 5433",
        "network: Deployment my-service-pgbouncer does not reach the database",
    ),
    (
        "NetworkPolicy/my-service-pgbouncer",
        "- web",
        "- wep",
        "network: Deployment my-service does not reach Deployment my-service-pgbouncer",
    ),
    (
        "ConfigMap/my-service-",
        'TRUSTED_PROXY_HOPS: "1"',
        'TRUSTED_PROXY_HOPS: "0"',
        "settings: Deployment my-service: app takes its proxy",
    ),
    ("ConfigMap/my-service-", "LOG_LEVEL", "LOGLEVEL", "settings: Deployment my-service: app is told LOGLEVEL"),
    (
        "ConfigMap/my-service-",
        "LOG_LEVEL: INFO",
        "LOG_LEVEL: INFO\n  SECRET_KEY: abc",
        "settings: Deployment my-service: app is told the secret SECRET_KEY",
    ),
    (
        "ConfigMap/my-service-",
        "LOG_LEVEL: INFO",
        "LOG_LEVEL: INFO\n  SENTRY_DSN_FILE: /x",
        "network: Deployment my-service does not reach Sentry",
    ),
    ("ConfigMap/my-service-", "LOG_LEVEL: INFO", 'WEB_CONCURRENCY: "12"', "workers: 12 workers need"),
    (WEB, "name: SECRET_KEY_FILE", "name: SECRET_FILE", "settings: Deployment my-service: app is not told SECRET_KEY"),
    (
        WEB,
        "value: /run/secrets/secret_key",
        "value: /run/secrets/key",
        "settings: Deployment my-service: app reads /run/secrets/key, which",
    ),
    (
        MIGRATE,
        "path: migration_url",
        "path: url",
        "settings: Job my-service-migrate: preflight is given /run/secrets/url",
    ),
    (WEB, "- key: secret_key", "- key: key", "secrets: pods want"),
    (WEB, "secretName: my-service", "secretName: others", "secrets: there is no Secret others"),
    (POOLER, "defaultMode: 288", "defaultMode: 292", "secrets: Secret my-service is open"),
    ("ExternalSecret/my-service", "secretKey: migration_url", "secretKey: url", "secrets: pods want"),
    ("ExternalSecret/my-service", "kind: ExternalSecret", "kind: Secret", "secrets: a secret is in git"),
    (WEB, "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 45", "ladders: pre_stop + graceful"),
    (WEB, "seconds: 15", "seconds: 5", "ladders: a pod stops 5 s after"),
    (WEB, "seconds: 10\n", "seconds: 20\n", "ladders: the service ends before nginx"),
    (ROUTE, "request: 30s", "request: 20s", "ladders: request (25 s) is not under proxy (20 s)"),
    ("ConfigMap/my-service-nginx-", "keepalive_timeout 60s", "keepalive_timeout 90s", "ladders: upstream_idle (90 s)"),
    (
        "ConfigMap/my-service-nginx-",
        "worker_shutdown_timeout 35s",
        "worker_shutdown_timeout 50s",
        "ladders: the kubelet kills a stop of nginx",
    ),
    (POOLER, "kill -INT 1; sleep 25", "kill -INT 1; sleep 5", "ladders: a PgBouncer that ends cuts"),
    (
        "ConfigMap/my-service-pgbouncer-",
        "max_client_conn = 89",
        "max_client_conn = 88",
        "connections: 10 replicas open 89",
    ),
    (
        "ConfigMap/my-service-pgbouncer-",
        "default_pool_size = 29\n    max_db_connections = 29",
        "default_pool_size = 87\n    max_db_connections = 87",
        "connections: 3 PgBouncers open 261",
    ),
    (
        "ConfigMap/my-service-pgbouncer-",
        "    listen_addr = *",
        "    [pgbouncer]\n    listen_addr = *",
        "connections: 10 replicas open 89 connections, PgBouncer takes 0",
    ),
    (POOLER, "replicas: 2", "replicas: 3", "connections: 4 PgBouncers open 116"),
    ("ConfigMap/my-service-pgbouncer-", "listen_port = 6432", "listen_port = 6433", "ports: PgBouncer listens on 6433"),
    (
        "ConfigMap/my-service-pgbouncer-",
        "auth_file = /run/secrets/pgbouncer_users",
        "auth_file = /run/secrets/users",
        "settings: Deployment my-service-pgbouncer is given",
    ),
    (WEB, "runAsNonRoot: true", "runAsNonRoot: false", "security: Deployment my-service: static: may run as root"),
    (WEB, "runAsUser: 10001", "runAsUser: 0", "security: Deployment my-service: static: runs as root"),
    (
        MIGRATE,
        "type: RuntimeDefault",
        "type: Unconfined",
        "security: Job my-service-migrate: preflight: has no seccomp",
    ),
    (
        POOLER,
        "allowPrivilegeEscalation: false",
        "privileged: true",
        "security: Deployment my-service-pgbouncer: pgbouncer: is privileged",
    ),
    (
        POOLER,
        "            - ALL",
        "            - NET_RAW",
        "security: Deployment my-service-pgbouncer: pgbouncer: has capabilities",
    ),
    (
        POOLER,
        "readOnlyRootFilesystem: true",
        "readOnlyRootFilesystem: false",
        "security: Deployment my-service-pgbouncer: pgbouncer: may write",
    ),
    (WEB, "enableServiceLinks: false", "enableServiceLinks: true", "security: Deployment my-service: Services set"),
    (WEB, "enableServiceLinks: false", "hostNetwork: true", "security: Deployment my-service: hostNetwork is on"),
    (
        WEB,
        "automountServiceAccountToken: false",
        "automountServiceAccountToken: true",
        "security: Deployment my-service: it has a token",
    ),
    (
        WEB,
        "      - emptyDir:\n          sizeLimit: 256Mi",
        "      - hostPath:\n          path: /var/cache",
        "security: Deployment my-service: volume cache is of a kind",
    ),
    (
        WEB,
        "containerPort: 8000",
        "containerPort: 8000\n          hostPort: 8000",
        "security: Deployment my-service: app: takes port 8000 of the node",
    ),
    (
        POOLER,
        "serviceAccountName: my-service",
        "serviceAccountName: default",
        "references: Deployment my-service-pgbouncer: there is no ServiceAccount",
    ),
    (
        WEB,
        "mountPath: /etc/nginx/conf.d\n          name: conf",
        "mountPath: /etc/nginx/conf.d\n          name: config",
        "references: Deployment my-service: volume",
    ),
    (
        WEB,
        "subPath: self-signed.sh",
        "subPath: signed.sh",
        "references: Deployment my-service: ConfigMap my-service-nginx-",
    ),
    ("ConfigMap/my-service-pgbouncer-", None, "", "references: Deployment my-service-pgbouncer: there is no ConfigMap"),
    (POOLER, "@sha256:7d7a", "@sha256:7d7b", "images: Deployment my-service-pgbouncer: edoburu/pgbouncer"),
    (
        POOLER,
        "@sha256:7d7a27d9e90985cab5cf42256f5c13a3120baa4b055b69df37beb272b89b2340",
        "",
        "images: Deployment my-service-pgbouncer: edoburu/pgbouncer:v1.25.2-p0 is not by digest",
    ),
    (MIGRATE, "my-service:by-release", "my-service:1.2.3", "images: "),
    (MIGRATE, "        - --skip\n        - migrations\n", "", "jobs: a migration begins without preflight"),
    (MIGRATE, "backoffLimit: 0", "backoffLimit: 6", "jobs: a migration that failed is run again"),
    (MIGRATE, "        - upgrade", "        - stamp", "jobs: it runs something else"),
]


def plant(text: str, document: str, right: str | None, wrong: str) -> list[Document]:
    """The documents of an overlay with a defect in one of them; a name that ends in a hyphen is without its hash."""
    kind, _, name = document.partition("/")
    ending = r"\w{10}" if name.endswith("-") else ""
    parts = text.split("\n---\n")
    (number,) = [
        number
        for number, part in enumerate(parts)
        if re.search(rf"^kind: {kind}$", part, re.M) and re.search(rf"^  name: {name}{ending}$", part, re.M)
    ]
    if right is None:
        del parts[number]
    else:
        assert right in parts[number], parts[number]
        parts[number] = parts[number].replace(right, wrong, 1)
    return read("\n---\n".join(parts))


@pytest.mark.parametrize(("document", "right", "wrong", "finding"), DEFECTS, ids=[finding for *_, finding in DEFECTS])
def test_a_planted_defect_is_found(
    builds: Builds, render: Render, document: str, right: str | None, wrong: str, finding: str
) -> None:
    planted = plant(builds(), document, right, wrong)
    assert [fault for fault in find_faults(planted, render(**VARIANTS[DEFAULT])) if fault.startswith(finding)]


def test_every_check_has_a_defect_that_it_finds() -> None:
    assert {finding.partition(":")[0] for *_, finding in DEFECTS} == {"parts", *CHECKS}


@pytest.mark.parametrize(
    ("document", "right", "wrong", "finding"),
    [
        (WEB, "periodSeconds: 20", "periodSecond: 20", "'periodSecond' was unexpected"),
        (SCALER, "autoscaling/v2", "autoscaling/v2beta2", "Couldn't find schema"),
        ("Ingress/my-service", "pathType: Prefix", "pathType: 5", "is not of type"),
    ],
)
def test_a_defect_that_schemas_know_is_found(
    builds: Builds, document: str, right: str, wrong: str, finding: str
) -> None:
    found = against_schemas(plant(builds(), document, right, wrong))
    assert len([line for line in found if finding in line]) >= len(VERSIONS)


def test_a_defect_that_types_know_is_found(builds: Builds) -> None:
    planted = plant(builds(), WEB, "periodSeconds: 20", "periodSeconds: soon")
    assert [line for line in against_types(planted) if "cannot unmarshal string" in line]


def test_a_defect_that_trivy_knows_is_found(builds: Builds, tmp_path: Path) -> None:
    planted = plant(builds(), POOLER, "readOnlyRootFilesystem: true", "privileged: true")
    (tmp_path / "planted.yaml").write_text(yaml.safe_dump_all(planted))
    assert [line for line in against_trivy(tmp_path) if "KSV-0017" in line]
