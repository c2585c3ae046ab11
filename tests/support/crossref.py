"""Whether the manifests of a rendered service agree with each other and with the service: names, ports, numbers, keys.

`find_faults(documents, folder)` says what does not, one line a finding that begins with the name of its check. What a
schema can tell is not looked at here; what "restricted" forbids is, as Pod Security has it
(https://kubernetes.io/docs/concepts/security/pod-security-standards/).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from support.settings import read_settings
from support.template import SERVICE, load

Document = dict[str, Any]
capacity = load(SERVICE / "app" / "capacity.py")

RESTRICTED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
UNITS = {"": 1.0, "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
PLACEHOLDER = ":by-release"  # what release.py puts a digest in the place of
PROMETHEUS = {"kubernetes.io/metadata.name": "monitoring"}
OTLP = 4318


def parse(quantity: object) -> float:
    """A quantity as Kubernetes reads it.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", str(quantity))
    if not found or found[2] not in UNITS:
        raise ValueError(f"{quantity} is no quantity")
    return float(found[1]) * UNITS[found[2]]


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector, or the plain one of a Service, selects what has these labels."""
    selector = selector or {}
    plain = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
    return all(labels.get(key) == value for key, value in plain.items()) and all(
        (labels.get(one["key"]) in one["values"]) == (one["operator"] == "In")
        for one in selector.get("matchExpressions", [])
    )


@dataclass(frozen=True)
class Pod:
    """The pods that a Deployment or a Job makes."""

    owner: Document

    @property
    def name(self) -> str:
        return f"{self.owner['kind']} {self.owner['metadata']['name']}"

    @property
    def spec(self) -> Document:
        found: Document = self.owner["spec"]["template"]["spec"]
        return found

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.owner["spec"]["template"]["metadata"].get("labels", {})
        return found

    @property
    def component(self) -> str:
        return self.labels.get("app.kubernetes.io/component", "")

    @property
    def containers(self) -> list[Document]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for one in self.containers for port in one.get("ports", [])}

    def serves(self, port: str | int) -> bool:
        return port in self.ports or port in self.ports.values()


class Cluster:
    """All documents of an overlay, and what the service in `folder` is."""

    def __init__(self, documents: list[Document], folder: Path) -> None:
        self.documents, self.folder = documents, folder
        self.answers: dict[str, str] = json.loads(self.read("app/service.json"))
        self.slug = self.answers["slug"]
        self.variables = read_settings(self.read("app/settings.py"))

    def read(self, path: str) -> str:
        return (self.folder / path).read_text(encoding="utf-8")

    def all(self, *kinds: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] in kinds]

    def get(self, kind: str, name: str) -> Document | None:
        return next((one for one in self.all(kind) if one["metadata"]["name"] == name), None)

    @cached_property
    def pods(self) -> list[Pod]:
        return [Pod(document) for document in self.all("Deployment", "Job")]

    def pod(self, kind: str, end: str = "") -> Pod:
        return next(pod for pod in self.pods if pod.name == f"{kind} {self.slug}{end}")

    @property
    def web(self) -> Pod:
        return self.pod("Deployment")

    @property
    def pooler(self) -> Pod:
        return self.pod("Deployment", "-pgbouncer")

    @property
    def app(self) -> Document:
        return next(one for one in self.web.spec["containers"] if one["name"] == "app")

    @property
    def scaler(self) -> Document:
        found: Document = self.all("HorizontalPodAutoscaler")[0]["spec"]
        return found

    @property
    def environ(self) -> dict[str, str]:
        return self.environ_of(self.app)

    def environ_of(self, container: Document) -> dict[str, str]:
        """What a container is told."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            config = self.get("ConfigMap", source.get("configMapRef", {}).get("name", ""))
            found |= config["data"] if config else {}
        return found | {one["name"]: one.get("value", "") for one in container.get("env", [])}

    def plan(self) -> Any:
        """What the service starts with, by the limits that it has; WEB_CONCURRENCY beats them."""
        limits = self.app["resources"].get("limits", {})
        cpus = parse(limits["cpu"]) if "cpu" in limits else float(self.answers["cpus"])
        memory = int(parse(limits["memory"]) / 2**20) if "memory" in limits else int(self.answers["memory_mb"])
        workers = self.environ.get("WEB_CONCURRENCY")
        return capacity.plan(
            capacity.Limits(cpus, memory, ""), self.answers["worker_class"], workers=int(workers) if workers else None
        )

    def file(self, name: str) -> str:
        """A file of some ConfigMap; empty if there is none."""
        return next((one["data"][name] for one in self.all("ConfigMap") if name in one.get("data", {})), "")

    def ini(self, setting: str) -> int:
        """A number of PgBouncer's, which takes its default where no file has it: that is 0 here."""
        return int(self.pooler_settings("kubernetes.ini").get(setting, 0))

    def pooler_settings(self, name: str, found: dict[str, str] | None = None) -> dict[str, str]:
        """What PgBouncer reads, files that are included too. A section that begins anew puts all settings back."""
        found = {} if found is None else found
        for line in self.file(name).splitlines():
            if line.startswith("%include "):
                self.pooler_settings(line.rpartition("/")[2], found)
            elif line == "[pgbouncer]":
                found.clear()
            elif setting := re.match(r"(\w+) = (.*)", line):
                found[setting[1]] = setting[2]
        return found


Check = Callable[[Cluster], Iterator[str]]


def find_missing(cluster: Cluster) -> Iterator[str]:
    """The parts without which there is nothing to compare, and numbers that are none."""
    parts = [("Deployment", ""), ("Deployment", "-pgbouncer"), ("Job", "-migrate"), ("Job", "-smoke")]
    for kind, end in [*parts, ("Service", ""), ("HorizontalPodAutoscaler", "")]:
        if cluster.get(kind, cluster.slug + end) is None:
            yield f"parts: there is no {kind} {cluster.slug}{end}"
    for pod in cluster.pods:
        for one in pod.containers:
            for quantity in [
                *one["resources"].get("requests", {}).values(),
                *one["resources"].get("limits", {}).values(),
            ]:
                try:
                    parse(quantity)
                except ValueError as error:
                    yield f"quantities: {pod.name}: {one['name']}: {error}"


def check_names(cluster: Cluster) -> Iterator[str]:
    """Names that are legal and there once, in one namespace that is made here."""
    seen = set()
    namespaces = {document["metadata"].get("namespace") for document in cluster.documents} - {None}
    spaces = {document["metadata"]["name"] for document in cluster.all("Namespace")}
    if namespaces != spaces:
        yield f"namespaces {sorted(namespaces)} are used, and {sorted(spaces)} made"
    for document in cluster.documents:
        kind, name = document["kind"], document["metadata"]["name"]
        if (kind, name) in seen:
            yield f"{kind} {name} is there twice"
        seen.add((kind, name))
        longest = 63 if kind in ("Service", "Job", "Deployment", "Namespace") else 253
        start = "[a-z]" if kind == "Service" else "[a-z0-9]"
        if not re.fullmatch(rf"{start}([a-z0-9.-]*[a-z0-9])?", name) or len(name) > longest:
            yield f"{kind} {name} has a name that it cannot have"
        for value in document["metadata"].get("labels", {}).values():
            if not re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", str(value)):
                yield f"{kind} {name} has a label that it cannot have: {value}"


def check_labels(cluster: Cluster) -> Iterator[str]:
    """By whom things are found, in every document; the template's version too."""
    version = cluster.answers["template_version"]
    for document in cluster.documents:
        labels = document["metadata"].get("labels", {})
        for label in ("part-of", "managed-by", "instance"):
            if not labels.get(f"app.kubernetes.io/{label}"):
                yield f"{document['kind']} {document['metadata']['name']} has no app.kubernetes.io/{label}"
        if labels.get("template-version") != version:
            yield f"{document['kind']} {document['metadata']['name']} has not the template's version {version}"


def check_references(cluster: Cluster) -> Iterator[str]:
    """What a pod is given is there, and what is there is given to one."""
    used = set()
    for pod in cluster.pods:
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        mounts = [mount for one in pod.containers for mount in one.get("volumeMounts", [])]
        for name in {mount["name"] for mount in mounts} ^ volumes.keys():
            yield f"{pod.name}: volume {name} is mounted and not there, or there and not mounted"
        wanted = [volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume]
        wanted += [source["configMapRef"]["name"] for one in pod.containers for source in one.get("envFrom", [])]
        used.update(wanted)
        for name in wanted:
            if cluster.get("ConfigMap", name) is None:
                yield f"{pod.name}: there is no ConfigMap {name}"
        for mount in mounts:
            source = volumes.get(mount["name"], {}).get("configMap")
            config = cluster.get("ConfigMap", source["name"]) if source else None
            if config and "subPath" in mount and mount["subPath"] not in config["data"]:
                yield f"{pod.name}: ConfigMap {source['name']} has no {mount['subPath']}"
        account = pod.spec.get("serviceAccountName", "")
        if cluster.get("ServiceAccount", account) is None:
            yield f"{pod.name}: there is no ServiceAccount {account or '(the default one is used)'}"
        if pod.owner["kind"] == "Deployment" and not all(re.search(r"-[a-z0-9]{10}$", name) for name in wanted):
            yield f"{pod.name}: a change of {wanted} would start no new pods"
    for config in cluster.all("ConfigMap"):
        if config["metadata"]["name"] not in used:
            yield f"ConfigMap {config['metadata']['name']} is given to nobody"


def check_selectors(cluster: Cluster) -> Iterator[str]:
    """Who is selected is there, and is the one that is meant."""
    for pod in cluster.pods:
        if pod.owner["kind"] == "Deployment":
            owners = [other.name for other in cluster.pods if matches(pod.owner["spec"]["selector"], other.labels)]
            if owners != [pod.name]:
                yield f"{pod.name} selects the pods of {owners}"
        for constraint in pod.spec.get("topologySpreadConstraints", []):
            if not matches(constraint["labelSelector"], pod.labels):
                yield f"{pod.name} is spread by the labels of others"
    for kind in ("Service", "PodDisruptionBudget"):
        for document in cluster.all(kind):
            selector = document["spec"]["selector"]
            if [pod.owner["kind"] for pod in cluster.pods if matches(selector, pod.labels)] != ["Deployment"]:
                yield f"{kind} {document['metadata']['name']} does not select the pods of one Deployment"
    for monitor in cluster.all("ServiceMonitor"):
        selector = monitor["spec"]["selector"]
        services = [one for one in cluster.all("Service") if matches(selector, one["metadata"]["labels"])]
        if len(services) != 1:
            yield f"ServiceMonitor {monitor['metadata']['name']} selects {len(services)} Services"


def check_ports(cluster: Cluster) -> Iterator[str]:
    """A port that is named or numbered anywhere is one that is served; ours are those of the image."""
    image = cluster.read("Dockerfile")
    (served,) = re.findall(r"GUNICORN_BIND=0\.0\.0\.0:(\d+)", image)
    (metrics,) = re.findall(r'"METRICS_PORT".*"(\d+)"\)', cluster.read("app/settings.py"))
    found = {port["name"]: port["containerPort"] for port in cluster.app.get("ports", [])}
    if found != {"http": int(served), "metrics": int(metrics)}:
        yield f"the service listens on {served} and {metrics}, its container names {found}"
    for pod in cluster.pods:
        for one in pod.containers:
            own = {port["name"]: port["containerPort"] for port in one.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                action = one.get(probe, {}).get("httpGet") or one.get(probe, {}).get("tcpSocket")
                if action and action["port"] not in {*own, *own.values()}:
                    yield f"{pod.name}: {probe} of {one['name']} asks {action['port']}, which it has not"
        notes = pod.owner["spec"]["template"]["metadata"].get("annotations", {})
        if notes.get("prometheus.io/scrape") == "true" and notes.get("prometheus.io/port") != metrics:
            yield f"{pod.name}: prometheus.io/port is {notes.get('prometheus.io/port')}"
    if cluster.ini("listen_port") not in [p for pod in cluster.pods for p in pod.ports.values()]:
        yield f"PgBouncer listens on {cluster.ini('listen_port')}, which no container names"
    names: dict[str, set[str | int]] = {}
    for service in cluster.all("Service"):
        behind = [pod for pod in cluster.pods if matches(service["spec"]["selector"], pod.labels)]
        ports = service["spec"]["ports"]
        names[service["metadata"]["name"]] = {name for port in ports for name in (port["name"], port["port"])}
        for port in ports:
            if not all(pod.serves(port["targetPort"]) for pod in behind):
                yield f"Service {service['metadata']['name']} leads to {port['targetPort']}, which nobody serves"
    asked: list[tuple[str, str, str | int]] = []
    for ingress in cluster.all("Ingress"):
        for path in (path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]):
            port = path["backend"]["service"]["port"]
            asked.append(("Ingress", path["backend"]["service"]["name"], port.get("name", port.get("number"))))
    for route in cluster.all("HTTPRoute"):
        for backend in (backend for rule in route["spec"]["rules"] for backend in rule["backendRefs"]):
            asked.append(("HTTPRoute", backend["name"], backend["port"]))
    for monitor in cluster.all("ServiceMonitor"):
        for service in cluster.all("Service"):
            if matches(monitor["spec"]["selector"], service["metadata"]["labels"]):
                endpoints = [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]]
                asked += [("ServiceMonitor", service["metadata"]["name"], port) for port in endpoints]
    for job in (pod for pod in cluster.pods if pod.owner["kind"] == "Job"):
        for one in job.containers:
            host, _, number = cluster.environ_of(one).get("GUNICORN_BIND", "").partition(":")
            asked += [(job.name, host, int(number))] if host else []
    for who, name, port in asked:
        if port not in names.get(name, set()):
            yield f"{who} asks Service {name} at {port}, which it has not"


def check_hosts(cluster: Cluster) -> Iterator[str]:
    """A host is served that the answers name, and the certificate is for it."""
    for ingress in cluster.all("Ingress"):
        served = {rule["host"] for rule in ingress["spec"]["rules"]}
        certified = {host for tls in ingress["spec"].get("tls", []) for host in tls["hosts"]}
        if served != certified:
            yield f"Ingress serves {sorted(served)}, its certificate is for {sorted(certified)}"
    routes = [host for route in cluster.all("HTTPRoute") for host in route["spec"]["hostnames"]]
    rules = [rule["host"] for ingress in cluster.all("Ingress") for rule in ingress["spec"]["rules"]]
    for host in [*rules, *routes]:
        if host.removeprefix("staging.") != cluster.answers["domain_name"]:
            yield f"{host} is not the domain of the answers"


def check_probes(cluster: Cluster) -> Iterator[str]:
    """Each probe asks what it is there for, and in time."""
    routes = set(re.findall(r'@blueprint\.get\("(/\w+)"\)', cluster.read("app/health.py")))
    known = {f"/healthz{route}" for route in routes} | {"/healthz/edge"}
    meant = {"startupProbe": "/healthz/live", "readinessProbe": "/healthz/ready", "livenessProbe": "/healthz/live"}
    for pod in (pod for pod in cluster.pods if pod.owner["kind"] == "Deployment"):
        for one in pod.spec["containers"]:
            for kind, path in meant.items():
                probe = one.get(kind)
                if probe is None:
                    if kind != "startupProbe" or one is cluster.app:
                        yield f"{pod.name}: {one['name']} has no {kind}"
                    continue
                asked = probe.get("httpGet", {}).get("path")
                if asked and asked not in known:
                    yield f"{pod.name}: {kind} asks {asked}, which the service has not"
                elif asked and one is cluster.app and asked != path:
                    yield f"{pod.name}: {kind} asks {asked}, and not {path}"
    live, ready, start = (cluster.app.get(kind, {}) for kind in ("livenessProbe", "readinessProbe", "startupProbe"))
    if live.get("periodSeconds", 10) * live.get("failureThreshold", 3) <= capacity.SECONDS["request"]:
        yield "a pod is started anew before Gunicorn replaces a worker that hangs"
    if live.get("timeoutSeconds", 1) < 5:
        yield "a pod that has much to do is taken for dead"
    if ready.get("timeoutSeconds", 1) <= 1:
        yield "a pod is taken out before it could say why"
    patience = start.get("periodSeconds", 10) * start.get("failureThreshold", 3)
    if not 60 <= patience < cluster.web.owner["spec"].get("progressDeadlineSeconds", 600):
        yield f"{patience} s to start in are too few, or more than a rollout waits for"


def check_quantities(cluster: Cluster) -> Iterator[str]:
    """Requests under limits, for each container; those of the service as answered, so that workers fit."""
    for pod in cluster.pods:
        for one in pod.containers:
            resources = one.get("resources", {})
            for name in ("cpu", "memory"):
                try:
                    request, limit = (parse(resources[kind][name]) for kind in ("requests", "limits"))
                except KeyError:
                    yield f"{pod.name}: {one['name']} has no request or no limit of {name}"
                else:
                    if request > limit:
                        yield f"{pod.name}: {one['name']} requests more {name} than its limit"
                    if one["name"] in ("app", "migrate", "preflight") and request != limit:
                        yield f"{pod.name}: {one['name']} has more {name} by its limit than it is sure of"
        for volume in pod.spec.get("volumes", []):
            size = volume.get("emptyDir", {}).get("sizeLimit")
            if "emptyDir" in volume and size is None:
                yield f"{pod.name}: volume {volume['name']} may fill the node"
            for one in pod.containers if size and volume["emptyDir"].get("medium") else ():
                mounted = volume["name"] in [mount["name"] for mount in one.get("volumeMounts", [])]
                if mounted and parse(size) >= parse(one["resources"]["limits"]["memory"]):
                    yield f"{pod.name}: volume {volume['name']} may have all of the memory of {one['name']}"


def check_workers(cluster: Cluster) -> Iterator[str]:
    """Workers that fit into the memory, and are counted alike wherever they are counted."""
    plan, limits = cluster.plan(), cluster.app["resources"]["limits"]
    if plan.memory_mb * 2**20 > parse(limits["memory"]):
        yield f"{plan.workers} workers need {plan.memory_mb} MB of {limits['memory']}"
    for pod in cluster.pods:
        for one in pod.containers:
            if one["name"] in ("migrate", "preflight") and one["resources"] != cluster.app["resources"]:
                yield f"{pod.name}: {one['name']} would count other workers than the service has"


def check_scaler(cluster: Cluster) -> Iterator[str]:
    """It scales what is there, within what the database's connections were counted for."""
    target = cluster.scaler["scaleTargetRef"]
    found = cluster.get(target["kind"], target["name"])
    if found is None or target["apiVersion"] != found["apiVersion"]:
        yield f"HPA scales {target['kind']} {target['name']}, which is not there"
    elif "replicas" in found["spec"]:
        yield "each release would undo what the HPA has scaled"
    low, high = cluster.scaler["minReplicas"], cluster.scaler["maxReplicas"]
    if not 1 <= low <= high <= int(cluster.answers["max_replicas"]):
        yield f"HPA has from {low} to {high} replicas, the answer is {cluster.answers['max_replicas']}"
    kinds = set()
    for metric in cluster.scaler["metrics"]:
        if metric["type"] == "ContainerResource":
            resource = metric["containerResource"]
            kinds.add(resource["name"])
            if resource["container"] not in {one["name"] for one in cluster.web.spec["containers"]}:
                yield f"HPA looks at container {resource['container']}, which is not there"
            if resource["name"] == "memory":
                full = parse(resource["target"]["averageValue"])
                if not cluster.plan().memory_mb * 2**20 < full < parse(cluster.app["resources"]["limits"]["memory"]):
                    yield "HPA takes an instance for full that has just started, or never"
        elif metric["type"] == "Pods":
            recorded = cluster.read("app/observability/metrics.py")
            if f'"{metric["pods"]["metric"]["name"]}"' not in recorded:
                yield f"HPA asks for {metric['pods']['metric']['name']}, which the service does not count"
            plan = cluster.plan()
            if not 0 < parse(metric["pods"]["target"]["averageValue"]) <= plan.workers * plan.threads:
                yield "HPA waits for more requests than an instance takes in hand"
    if kinds != {"cpu", "memory"}:
        yield f"HPA looks at {sorted(kinds)} alone"
    if cluster.scaler.get("behavior", {}).get("scaleDown", {}).get("stabilizationWindowSeconds", 300) < 300:
        yield "HPA takes a pause for an end"


def check_disruption(cluster: Cluster) -> Iterator[str]:
    """A node can always be drained, and a drain never takes all at once."""
    for pod in (pod for pod in cluster.pods if pod.owner["kind"] == "Deployment"):
        replicas = pod.owner["spec"].get("replicas", cluster.scaler["minReplicas"])
        budgets = [
            one["spec"] for one in cluster.all("PodDisruptionBudget") if matches(one["spec"]["selector"], pod.labels)
        ]
        if len(budgets) != 1:
            yield f"{pod.name} has {len(budgets)} PodDisruptionBudgets"
            continue
        may = budgets[0].get("maxUnavailable", replicas - budgets[0].get("minAvailable", 0))
        if may < 1:
            yield f"{pod.name}: its PodDisruptionBudget lets no node be drained"
        elif may >= replicas > 1:
            yield f"{pod.name}: a drain may take all {replicas} of it at once"


def check_rollout(cluster: Cluster) -> Iterator[str]:
    """There are never fewer of the service than before."""
    spec = cluster.web.owner["spec"]
    rolling = spec.get("strategy", {}).get("rollingUpdate", {})
    if spec.get("strategy", {}).get("type", "RollingUpdate") != "RollingUpdate" or rolling.get("maxUnavailable") != 0:
        yield "a release takes a pod away before the next one is ready"
    elif rolling.get("maxSurge") != 1:
        yield f"a release has {rolling.get('maxSurge')} pods more, connections are counted for 1"


def check_network(cluster: Cluster) -> Iterator[str]:
    """All is forbidden but what is needed, and what is needed is allowed."""
    policies = cluster.all("NetworkPolicy")
    closed = [one["spec"] for one in policies if one["spec"]["podSelector"] == {}]
    if not any(set(spec["policyTypes"]) == {"Ingress", "Egress"} for spec in closed):
        yield "not everything is forbidden that is not allowed"
    for policy in policies:
        spec, name = policy["spec"], policy["metadata"]["name"]
        selected = [pod for pod in cluster.pods if matches(spec["podSelector"], pod.labels)]
        if not selected and "acme.cert-manager.io/http01-solver" not in spec["podSelector"].get("matchLabels", {}):
            yield f"NetworkPolicy {name} is about nobody"
        for rule in spec.get("ingress", []):
            if not rule.get("from"):
                yield f"NetworkPolicy {name} lets everybody in"
            for port in rule.get("ports", [{}]):
                if selected and not all(pod.serves(port.get("port", 0)) for pod in selected):
                    yield f"NetworkPolicy {name} lets in at {port.get('port')}, which is not served there"
        for rule in spec.get("egress", []):
            if not rule.get("ports"):
                yield f"NetworkPolicy {name} lets out to every port"
    for pod in cluster.pods:
        inward = list(rules(policies, pod, "ingress"))
        for port, number in pod.ports.items():
            peers = [peer for rule in inward if admits(rule, port, number) for peer in rule.get("from", [])]
            if port == "metrics":
                spaces = [peer.get("namespaceSelector", {}).get("matchLabels") for peer in peers]
                if any(space != PROMETHEUS for space in spaces):
                    yield f"{pod.name}: its metrics are open to others than Prometheus"
            reached = any(
                matches(service["spec"]["selector"], pod.labels) and port_of(service, pod, number)
                for service in cluster.all("Service")
            )
            if not peers and (reached or port == "metrics"):
                yield f"{pod.name}: nobody is let in at {port}"
    database, pooler = database_port(cluster), cluster.ini("listen_port")
    needs: list[tuple[Pod, int, str]] = []
    needs += [(pod, database, "the database") for pod in (cluster.web, cluster.pooler, cluster.pod("Job", "-migrate"))]
    needs += [(cluster.web, OTLP, "the collector of traces")]
    for word, number, what in (("REDIS", 6379, "Redis"), ("SENTRY_DSN", 443, "Sentry")):
        needs += [(cluster.web, number, what)] if any(word in name for name in cluster.environ) else []
    for pod in cluster.pods:
        for protocol in ("UDP", "TCP"):
            if not any(admits(rule, "", 53, protocol) for rule in rules(policies, pod, "egress")):
                yield f"{pod.name} does not reach DNS by {protocol}"
    for pod, number, what in needs:
        if not any(admits(rule, "", number) for rule in rules(policies, pod, "egress")):
            yield f"{pod.name} does not reach {what} at {number}"
    ways = [(cluster.web, cluster.pooler, pooler), (cluster.pod("Job", "-migrate"), cluster.pooler, pooler)]
    for pod, other, number in [*ways, (cluster.pod("Job", "-smoke"), cluster.web, entrance(cluster))]:
        port = next((name for name, value in other.ports.items() if value == number), "")
        out = [rule for rule in rules(policies, pod, "egress") if leads(rule.get("to"), other)]
        into = [rule for rule in rules(policies, other, "ingress") if leads(rule.get("from"), pod)]
        if not any(admits(rule, "", number) for rule in out) or not any(admits(rule, port, number) for rule in into):
            yield f"{pod.name} does not reach {other.name} at {number}"


def rules(policies: list[Document], pod: Pod, way: str) -> Iterator[Document]:
    """What is allowed to a pod, by all policies that select it."""
    for policy in policies:
        if matches(policy["spec"]["podSelector"], pod.labels):
            yield from policy["spec"].get(way, [])


def admits(rule: Document, name: str, number: int, protocol: str = "TCP") -> bool:
    return "ports" not in rule or any(
        port.get("port") in (name, number) and port.get("protocol", "TCP") == protocol for port in rule["ports"]
    )


def leads(peers: list[Document] | None, pod: Pod) -> bool:
    """Whether a rule's peers include pods of this namespace like this one."""
    return peers is None or any(
        "namespaceSelector" not in peer and "podSelector" in peer and matches(peer["podSelector"], pod.labels)
        for peer in peers
    )


def port_of(service: Document, pod: Pod, number: int) -> bool:
    return any(
        port["targetPort"] in (number, *(n for n, p in pod.ports.items() if p == number))
        for port in service["spec"]["ports"]
    )


def database_port(cluster: Cluster) -> int:
    found = re.findall(r"^\* = .*\bport=(\d+)", cluster.file("database.ini"), re.M)
    return int(found[0]) if found else 5432


def entrance(cluster: Cluster) -> int:
    """The port of the pod that the Service leads to."""
    service = cluster.get("Service", cluster.slug) or {}
    target = service["spec"]["ports"][0]["targetPort"]
    return cluster.web.ports.get(target, target if isinstance(target, int) else 0)


def check_settings(cluster: Cluster) -> Iterator[str]:
    """What the service is told it reads, what it must have it is given, and no file of a secret is for nobody."""
    plain = {variable.name for variable in cluster.variables}
    files = {f"{variable.name}_FILE" for variable in cluster.variables if variable.secret}
    secret = {variable.name for variable in cluster.variables if variable.secret}
    for pod in cluster.pods:
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        mounted: set[str] = set()
        for one in pod.containers:
            paths = {
                f"{mount['mountPath']}/{item['path']}"
                for mount in one.get("volumeMounts", [])
                for item in volumes.get(mount["name"], {}).get("secret", {}).get("items", [])
            }
            mounted |= paths
            if one["name"] not in ("app", "migrate", "preflight"):
                continue
            told = cluster.environ_of(one)
            for name in told.keys() - plain - files:
                yield f"{pod.name}: {one['name']} is told {name}, which it does not read"
            for name in told.keys() & secret:
                yield f"{pod.name}: {one['name']} is told the secret {name} where everybody can read it"
            for name in {"SECRET_KEY", "DATABASE_URL", "DATABASE_MIGRATION_URL"} - {
                name.removesuffix("_FILE") for name in told
            }:
                yield f"{pod.name}: {one['name']} is not told {name}"
            read = {value for name, value in told.items() if name in files}
            for path in read - paths:
                yield f"{pod.name}: {one['name']} reads {path}, which is not mounted"
            for path in paths - read:
                yield f"{pod.name}: {one['name']} is given {path}, which it does not read"
            if told.get("TRUSTED_PROXY_HOPS") != "1":
                yield f"{pod.name}: {one['name']} takes its proxy for the client"
        if pod.name == cluster.pooler.name and mounted != {cluster.pooler_settings("kubernetes.ini").get("auth_file")}:
            yield f"{pod.name} is given {sorted(mounted)}, and reads another auth_file"
    same = [
        cluster.environ_of(one) for pod in cluster.pods for one in pod.containers if one["name"] in ("app", "migrate")
    ]
    if any(told != same[0] for told in same):
        yield "a migration is told other settings than the service"


def check_secrets(cluster: Cluster) -> Iterator[str]:
    """One Secret, which is not in git; its keys are those that pods want, and those that an operator writes."""
    if cluster.all("Secret"):
        yield "a secret is in git"
    sources = [volume["secret"] for pod in cluster.pods for volume in pod.spec.get("volumes", []) if "secret" in volume]
    for source in sources:
        if source["secretName"] != cluster.slug:
            yield f"there is no Secret {source['secretName']}"
        if source.get("defaultMode", 0o644) & 0o007:
            yield f"Secret {source['secretName']} is open to every user of its pod"
    wanted = {item["key"] for source in sources for item in source.get("items", [])}
    for operator in cluster.all("ExternalSecret"):
        written = {one["secretKey"] for one in operator["spec"]["data"]}
        if operator["spec"]["target"]["name"] != cluster.slug or written != wanted:
            yield f"pods want {sorted(wanted)}, ExternalSecret writes {sorted(written)}"
    documented = set(re.findall(r"^\| `(\w+)` \|", cluster.read("docs/kubernetes.md"), re.M))
    if not wanted <= documented:
        yield f"docs/kubernetes.md does not tell of {sorted(wanted - documented)}"


def check_ladders(cluster: Cluster) -> Iterator[str]:
    """The timeout ladder and the idle ladder, with the seconds that stand in the manifests."""
    pod = cluster.web
    waits = {one["name"]: pre_stop(one) for one in pod.spec["containers"]}
    seconds = {
        **capacity.SECONDS,
        "pre_stop": waits["app"],
        "grace": float(pod.spec.get("terminationGracePeriodSeconds", 30)),
    }
    for route in cluster.all("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            timeout = rule.get("timeouts", {}).get("request")
            seconds["proxy"] = float(timeout.removesuffix("s")) if timeout else 0.0
            yield from capacity.broken_rungs(seconds)
    yield from capacity.broken_rungs(seconds)
    if waits["app"] < capacity.SECONDS["pre_stop"]:
        yield f"a pod stops {waits['app']:g} s after it is to end, while it may be sent requests"
    if "nginx" in waits:
        text, upstream = cluster.file("nginx.conf"), cluster.file("upstream.conf")
        (stop,) = re.findall(r"^worker_shutdown_timeout (\d+)s;", text, re.M)
        if waits["nginx"] + float(stop) >= seconds["grace"]:
            yield "the kubelet kills a stop of nginx that is not over"
        if not capacity.SECONDS["pre_stop"] <= waits["nginx"] < waits["app"]:
            yield "the service ends before nginx has passed on what it took"
        (client_idle,) = re.findall(r"^    keepalive_timeout (\d+)s;", text, re.M)
        (idle,) = re.findall(r"^    keepalive_timeout (\d+)s;", upstream, re.M)
        (proxy,) = re.findall(r"^proxy_read_timeout (\d+)s;", cluster.file("proxy.conf"), re.M)
        found = {"proxy": float(proxy), "proxy_idle": float(client_idle), "upstream_idle": float(idle)}
        yield from capacity.broken_rungs({**seconds, **found})
    pooler = cluster.pooler
    waited = pre_stop(pooler.spec["containers"][0])
    if (
        not capacity.SECONDS["pre_stop"] + capacity.SECONDS["statement"]
        < waited
        < pooler.spec["terminationGracePeriodSeconds"]
    ):
        yield "a PgBouncer that ends cuts transactions off"


def pre_stop(container: Document) -> float:
    """Seconds that a container goes on after it is told to end."""
    hook = container.get("lifecycle", {}).get("preStop", {})
    command = " ".join(hook.get("exec", {}).get("command", []))
    return float(hook.get("sleep", {}).get("seconds", 0)) + sum(map(float, re.findall(r"sleep (\d+)", command)))


def check_connections(cluster: Cluster) -> Iterator[str]:
    """At the most replicas, in the middle of a rollout: what they open PgBouncer takes, and what it opens the database."""
    plan, replicas = cluster.plan(), cluster.scaler["maxReplicas"]
    clients, pool, most = (cluster.ini(name) for name in ("max_client_conn", "default_pool_size", "max_db_connections"))
    if clients < plan.connections(replicas):
        yield f"{replicas} replicas open {plan.connections(replicas)} connections, PgBouncer takes {clients}"
    pooler = cluster.pooler.owner["spec"]
    rolling = pooler.get("strategy", {}).get("rollingUpdate", {})
    # While one is replaced the former one still has its connections.
    at_once = pooler.get("replicas", 1) + int(rolling.get("maxSurge", 1)) + int(rolling.get("maxUnavailable", 1))
    if max(pool, most) * at_once > capacity.MAX_CONNECTIONS * 9 // 10 and pool > 1:
        yield f"{at_once} PgBouncers open {max(pool, most) * at_once} of {capacity.MAX_CONNECTIONS} connections"
    if pool != most or pool < 1:
        yield f"default_pool_size is {pool}, max_db_connections {most}"


def check_security(cluster: Cluster) -> Iterator[str]:
    """Pod Security "restricted"; and more: a file system that cannot be written, no token, no variables by Services."""
    for document in cluster.all("Namespace"):
        if document["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"Namespace {document['metadata']['name']} does not enforce it"
    for pod in cluster.pods:
        for fault in [
            *pod_faults(pod),
            *(f"{one['name']}: {f}" for one in pod.containers for f in faults_of(one, pod)),
        ]:
            yield f"{pod.name}: {fault}"
    for account in cluster.all("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {account['metadata']['name']} gives a token to every pod"


def pod_faults(pod: Pod) -> Iterator[str]:
    spec, context = pod.spec, pod.spec.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
        if spec.get(name):
            yield f"{name} is on"
    for volume in spec.get("volumes", []):
        if not volume.keys() - {"name"} <= RESTRICTED_VOLUMES:
            yield f"volume {volume['name']} is of a kind that is forbidden"
    if context.get("sysctls"):
        yield "sysctls are set"
    if spec.get("automountServiceAccountToken") is not False:
        yield "it has a token"
    if spec.get("enableServiceLinks") is not False:
        yield "Services set variables of it"


def faults_of(container: Document, pod: Pod) -> Iterator[str]:
    whole, own = pod.spec.get("securityContext", {}), container.get("securityContext", {})
    both = {**whole, **own}
    if both.get("runAsNonRoot") is not True:
        yield "may run as root"
    if both.get("runAsUser") == 0:
        yield "runs as root"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "has no seccomp profile"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may get more privileges"
    if own.get("privileged") or own.get("procMount", "Default") != "Default":
        yield "is privileged"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "has capabilities"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "may write to its file system"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"takes port {port['hostPort']} of the node"


def check_images(cluster: Cluster) -> Iterator[str]:
    """Every image by its digest; ours all the same, for release.py to put one in."""
    ours = set()
    for pod in cluster.pods:
        for one in pod.containers:
            if one["image"].endswith(PLACEHOLDER) or f"/{cluster.slug}@" in one["image"]:
                ours.add(one["image"])
            elif not re.fullmatch(r"[^@]+:[^@:]+@sha256:[0-9a-f]{64}", one["image"]):
                yield f"{pod.name}: {one['image']} is not by digest"
            elif one["image"] not in cluster.read("compose.yaml"):
                yield f"{pod.name}: {one['image']} is another one than in compose.yaml"
    if len(ours) != 1:
        yield f"release.py would not know which of {sorted(ours)} is ours"


def check_jobs(cluster: Cluster) -> Iterator[str]:
    """The migration: asked first what it would stumble over, then run once."""
    job = cluster.pod("Job", "-migrate").owner
    spec = job["spec"]["template"]["spec"]
    if ["flask", "preflight", "--skip", "migrations"] not in [one["command"] for one in spec.get("initContainers", [])]:
        yield "a migration begins without preflight"
    if [one["command"] for one in spec["containers"]] != [["flask", "db", "upgrade"]]:
        yield "it runs something else"
    if job["spec"].get("backoffLimit") != 0 or spec.get("restartPolicy") != "Never":
        yield "a migration that failed is run again"


CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}


def find_faults(documents: list[Document], folder: Path) -> list[str]:
    """Everything that every check finds, each with the name of its check in front."""
    cluster = Cluster(documents, folder)
    if missing := list(find_missing(cluster)):
        return missing
    return [f"{name}: {fault}" for name, check in CHECKS.items() for fault in dict.fromkeys(check(cluster))]
